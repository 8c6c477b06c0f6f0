//! Expectations to single connections: ends resolved to pods, ports to numbers, and later lines in
//! the place of earlier ones.

use std::collections::HashMap;
use std::net::IpAddr;

use dataplane::Protocol;
use dataplane::snapshot::Role;
use thiserror::Error;

use super::model::{End, Expect, Port, Transport};
use crate::family::Family;
use crate::trace::{self, Reached, TraceError, Unserved, View, families, resolve_port};

/// The most connections that the lines of one step may speak of.
pub const MAX_FLOWS: usize = 1_000_000;

/// A line that cannot be judged.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{message}")]
pub struct FlowsError {
    /// The line of the file.
    pub line: Option<usize>,
    /// Why not.
    pub message: String,
}

/// One connection that a line speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Index into [`Flows::ends`].
    pub from: u32,
    /// Index into [`Flows::ends`].
    pub to: u32,
    /// Where it comes from.
    pub source: IpAddr,
    /// Where it goes: behind a Service, the pod; of a Service without a backend its own address,
    /// or if it is headless no address in particular.
    pub destination: IpAddr,
    /// Its protocol.
    pub transport: Transport,
    /// The pod's port; none for ICMP.
    pub port: Option<u16>,
    /// The Service's address and port that the sender asks for, if they lead to a backend or to
    /// nobody.
    pub service: Option<(IpAddr, u16)>,
    /// That nobody is behind the Service.
    pub unserved: Option<Unserved>,
    /// Index of the line that counts.
    pub line: usize,
}

impl Flow {
    /// The IP protocol: ICMP's is the family's.
    pub fn protocol(&self) -> Protocol {
        match (self.transport, self.destination) {
            (Transport::Tcp, _) => Protocol::TCP,
            (Transport::Udp, _) => Protocol::UDP,
            (Transport::Sctp, _) => Protocol::SCTP,
            (Transport::Icmp, IpAddr::V4(_)) => Protocol::ICMP,
            (Transport::Icmp, IpAddr::V6(_)) => Protocol::ICMPV6,
        }
    }
}

/// The ends that lines speak of, each once.
#[derive(Debug, Default)]
pub struct Ends {
    list: Vec<trace::End>,
    by_name: HashMap<String, u32>,
}

impl Ends {
    /// All of them.
    pub fn list(&self) -> &[trace::End] {
        &self.list
    }

    /// The end with that index.
    pub fn get(&self, index: u32) -> &trace::End {
        &self.list[index as usize]
    }

    fn add(&mut self, end: trace::End) -> u32 {
        // An address of a pod that has several is an end of its own.
        let key = match &end.addresses[..] {
            [only] => format!("{} {only}", end.name),
            _ => end.name.clone(),
        };
        let next = self.list.len() as u32;
        *self.by_name.entry(key).or_insert_with(|| {
            self.list.push(end);
            next
        })
    }
}

/// The connections that some lines speak of.
#[derive(Debug, Default)]
pub struct Flows {
    /// Who they are between.
    pub ends: Ends,
    /// In the order in which they are first spoken of.
    pub flows: Vec<Flow>,
}

/// A receiver, and the way to it.
#[derive(Clone, Copy, Debug)]
struct Receiver {
    end: u32,
    port: Option<u16>,
    service: Option<(IpAddr, u16)>,
    unserved: Option<Unserved>,
}

impl Receiver {
    const fn itself(end: u32, port: Option<u16>) -> Receiver {
        Receiver {
            end,
            port,
            service: None,
            unserved: None,
        }
    }
}

/// What a line of its own must say to speak of another connection.
type Place = (u32, u32, Transport, Option<u16>, Family, bool);

impl Flows {
    /// Resolves lines on the objects of `view`.
    pub fn expand(view: View<'_>, lines: &[Expect]) -> Result<Flows, FlowsError> {
        let mut expansion = Expansion {
            view,
            flows: Flows::default(),
            everyone: None,
            places: HashMap::new(),
        };
        for (index, line) in lines.iter().enumerate() {
            expansion.line(index, line).map_err(|message| FlowsError {
                line: line.line,
                message,
            })?;
        }
        Ok(expansion.flows)
    }
}

struct Expansion<'a> {
    view: View<'a>,
    flows: Flows,
    /// The ends of all pods, once they are needed.
    everyone: Option<Vec<u32>>,
    /// Where a connection stands in [`Flows::flows`].
    places: HashMap<Place, usize>,
}

impl Expansion<'_> {
    fn line(&mut self, index: usize, line: &Expect) -> Result<(), String> {
        let from = self.senders(&line.from)?;
        // A Service may lead its node's pods elsewhere than others.
        let (mut of_pods, mut of_others) = (None, None);
        let single = |end: &End| matches!(end, End::Named(_) | End::Address(_));
        let many = !single(&line.from) || !single(&line.to);
        let mut any = false;
        for &source in &from {
            let role = self.view.role(self.flows.ends.get(source));
            let known = match role {
                Role::Pod => &mut of_pods,
                _ => &mut of_others,
            };
            let to = match known {
                Some(to) => to,
                None => known.insert(self.line_receivers(line, role)?),
            };
            for receiver in &*to {
                // Nobody means a pod's way to itself by "all of these to all of those".
                let names = [source, receiver.end].map(|end| &self.flows.ends.get(end).name);
                if many && names[0] == names[1] {
                    continue;
                }
                any |= self.pair(index, line, source, receiver)?;
            }
        }
        match any {
            true => Ok(()),
            false => Err(
                "speaks of no connection: the ends have no address family in common, or \
                          there is but one pod"
                    .to_owned(),
            ),
        }
    }

    fn line_receivers(&mut self, line: &Expect, role: Role) -> Result<Vec<Receiver>, String> {
        let transport = line.protocol;
        if line.ports.is_empty() {
            return self.receivers(&line.to, (transport, None), role);
        }
        let mut to = Vec::new();
        for port in &line.ports {
            to.extend(self.receivers(&line.to, (transport, Some(port)), role)?);
        }
        Ok(to)
    }

    /// Adds a pair's connections, one for each family; whether there is any.
    fn pair(
        &mut self,
        index: usize,
        line: &Expect,
        from: u32,
        receiver: &Receiver,
    ) -> Result<bool, String> {
        let Receiver {
            end: to,
            port,
            service,
            unserved,
        } = *receiver;
        let ends = &self.flows.ends;
        // Of a pod's way to itself the one by a Service is another than the direct one.
        let [sender, backend] = [from, to].map(|end| ends.get(end).local);
        let hairpin = service.is_some() && sender.is_some() && sender == backend;
        let mut pairs = families(ends.get(from), ends.get(to));
        pairs.retain(|(source, _)| line.family.is_none_or(|f| f == Family::of(*source)));
        for &(source, destination) in &pairs {
            let family = Family::of(source);
            let flow = Flow {
                from,
                to,
                source,
                destination,
                transport: line.protocol,
                port,
                service,
                unserved,
                line: index,
            };
            let key = (from, to, line.protocol, port, family, hairpin);
            if let Some(&place) = self.places.get(&key) {
                self.flows.flows[place] = flow;
                continue;
            }
            if self.flows.flows.len() == MAX_FLOWS {
                return Err(format!(
                    "more than {MAX_FLOWS} connections are spoken of: name fewer ends"
                ));
            }
            self.places.insert(key, self.flows.flows.len());
            self.flows.flows.push(flow);
        }
        Ok(!pairs.is_empty())
    }

    fn senders(&mut self, end: &End) -> Result<Vec<u32>, String> {
        match end {
            End::Named(text) => {
                let end = self.view.end(text).map_err(words)?;
                Ok(vec![self.flows.ends.add(end)])
            }
            End::Several(ends) => {
                let mut all = Vec::new();
                for end in ends {
                    all.extend(self.senders(end)?);
                }
                Ok(all)
            }
            other => self.pods(other),
        }
    }

    fn receivers(
        &mut self,
        end: &End,
        (transport, port): (Transport, Option<&Port>),
        role: Role,
    ) -> Result<Vec<Receiver>, String> {
        let protocol = match transport {
            Transport::Tcp => Protocol::TCP,
            Transport::Udp => Protocol::UDP,
            Transport::Sctp => Protocol::SCTP,
            Transport::Icmp => Protocol::ICMP,
        };
        let wanted = port.map(Port::text);
        let wanted = wanted.as_deref();
        match end {
            End::Named(text) => {
                if let Some(service) = self.view.service(text).map_err(words)? {
                    let reached = self.view.reached(text, &service, wanted, protocol, role);
                    return Ok(self.behind(reached.map_err(words)?));
                }
                let end = self.view.end(text).map_err(words)?;
                let port = resolve_port(&end, wanted, protocol).map_err(words)?;
                Ok(vec![Receiver::itself(self.flows.ends.add(end), port)])
            }
            End::Several(ends) => {
                let mut all = Vec::new();
                for end in ends {
                    all.extend(self.receivers(end, (transport, port), role)?);
                }
                Ok(all)
            }
            other => {
                if let Some(reached) = self.at(other, (protocol, port), role) {
                    return Ok(self.behind(reached));
                }
                let pods = self.pods(other)?;
                let ends = &self.flows.ends;
                // A pod that calls no port so is not spoken of.
                let with_port = pods.into_iter().filter_map(|pod| {
                    let port = resolve_port(ends.get(pod), wanted, protocol).ok()?;
                    Some(Receiver::itself(pod, port))
                });
                let with_port: Vec<Receiver> = with_port.collect();
                match with_port.is_empty() {
                    true => Err(format!(
                        "none of these pods has a {} port called {:?}",
                        transport.name(),
                        wanted.unwrap_or_default()
                    )),
                    false => Ok(with_port),
                }
            }
        }
    }

    /// What stands behind an address that is a Service's.
    fn at(
        &self,
        end: &End,
        (protocol, port): (Protocol, Option<&Port>),
        role: Role,
    ) -> Option<Reached> {
        let number = match port {
            Some(Port::Number(number)) => Some(*number),
            Some(Port::Name(_)) => return None,
            None => None,
        };
        match end {
            End::Address(address) => self.view.reached_at(*address, protocol, number, role),
            _ => None,
        }
    }

    /// A Service's backends; for each family that has none the Service itself.
    fn behind(&mut self, reached: Reached) -> Vec<Receiver> {
        let Reached { name, port, .. } = reached;
        let ends = &mut self.flows.ends;
        let by = |address| reached.translated.then_some((address, port?));
        let backends = reached.backends.into_iter().map(|backend| Receiver {
            service: by(backend.by),
            ..Receiver::itself(ends.add(backend.end), backend.port)
        });
        let mut receivers: Vec<Receiver> = backends.collect();
        receivers.extend(reached.unserved.iter().map(|unserved| Receiver {
            end: ends.add(unserved.end(&name)),
            port,
            service: unserved.address.and_then(|address| Some((address, port?))),
            unserved: Some(*unserved),
        }));
        receivers
    }

    /// The pods, or the address, that an end stands for.
    fn pods(&mut self, end: &End) -> Result<Vec<u32>, String> {
        if let End::Address(address) = end {
            let end = self.view.end(&address.to_string()).map_err(words)?;
            return Ok(vec![self.flows.ends.add(end)]);
        }
        let everyone = match self.everyone.take() {
            Some(known) => known,
            None => {
                let locals = self.view.locals;
                let mut order: Vec<usize> = (0..locals.len()).collect();
                order.sort_by_key(|&at| (&locals[at].namespace, &locals[at].name));
                let ends = order.into_iter().map(|at| self.view.local_end(at));
                let ends = ends.filter(|end| !end.addresses.is_empty());
                ends.map(|end| self.flows.ends.add(end)).collect()
            }
        };
        let found: Vec<u32> = match end {
            End::Labelled { namespace, labels } => everyone
                .iter()
                .copied()
                .filter(|&at| {
                    let pod = self.flows.ends.get(at).pod.as_ref();
                    pod.is_some_and(|pod| {
                        namespace.as_ref().is_none_or(|n| n == pod.namespace())
                            && labels.iter().all(|(k, v)| pod.label(k) == Some(v.as_str()))
                    })
                })
                .collect(),
            _ => everyone.clone(),
        };
        self.everyone = Some(everyone);
        match (found.is_empty(), end) {
            (false, _) => Ok(found),
            (true, End::Labelled { namespace, labels }) => {
                let labels: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
                let place = match namespace {
                    Some(namespace) => format!(" in namespace {namespace}"),
                    None => String::new(),
                };
                Err(format!(
                    "no pod{place} has the labels {{{}}}",
                    labels.join(", ")
                ))
            }
            (true, _) => {
                Err("there is no pod: neither `objects`, `files` nor -f has one".to_owned())
            }
        }
    }
}

fn words(error: TraceError) -> String {
    error.to_string()
}
