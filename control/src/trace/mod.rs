//! `weir trace`: what becomes of one connection, which policies were asked, which rule decided, and
//! which rule missed by least. Computed with the table that the workers run.
//!
//! An address is an address: that the node itself may always reach its pods (semantics D6) hangs on
//! the port a packet arrives by, which no address tells, and is not part of the answer.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use dataplane::Protocol;
use dataplane::policy::{EndpointSlot, PolicyTable};
use serde::Serialize;
use thiserror::Error;

use crate::cluster::Cluster;
use crate::family::Family;
use crate::lower::{LocalEndpoint, PolicyIds};
use crate::protocol::TraceParams;
use crate::service::Services;

mod ends;
mod judge;
mod miss;
mod service;
mod unserved;

pub use ends::End;
pub(crate) use ends::{EndName, common_family, families, resolve_port};
pub(crate) use judge::{Flow, NEITHER_HERE, OWN_ADDRESS, rule_name};
pub(crate) use service::{Backend, Reached};
pub use unserved::{Missing, Unserved, WithoutBackend};

/// Objects and the table compiled from them.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The objects.
    pub cluster: &'a Cluster,
    /// The pods that the table decides for.
    pub locals: &'a [LocalEndpoint],
    /// Their places in the table, in the same order.
    pub slots: &'a [EndpointSlot],
    /// The compiled policies.
    pub table: &'a PolicyTable,
    /// The policies' names.
    pub ids: &'a PolicyIds,
    /// The Services.
    pub services: &'a Services,
    /// The table's generation; 0 offline.
    pub generation: u64,
}

/// A question that cannot be answered.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TraceError {
    /// No such pod or Service.
    #[error("{0:?} is neither an address nor a pod or Service (NAMESPACE/NAME) that exists")]
    NoSuchEnd(String),
    /// A pod that will never send or receive again.
    #[error("{0} has ended ({1}): it sends and receives nothing")]
    HasEnded(String, String),
    /// A pod without an address, or a Service without a pod.
    #[error("{0} has no address")]
    NoAddress(String),
    /// A pod and a Service are called so.
    #[error("{0:?} is a pod and a Service: say pod/{1} or service/{1}")]
    PodAndService(String, String),
    /// A Service that stands for a name outside.
    #[error("Service {0} is a name for {1}: ask about that name's address")]
    OnlyAName(String, String),
    /// A protocol without ports, to a Service's own address.
    #[error(
        "the address of Service {0} answers on its ports alone: ask about one of them (--port)"
    )]
    NotTranslated(String),
    /// A port that the Service has not.
    #[error("Service {service} has no port {port}: it has {has}")]
    ServiceHasNoPort {
        /// `NS/NAME`.
        service: String,
        /// `81/TCP`.
        port: String,
        /// Those that it has.
        has: String,
    },
    /// Of several ports none was said.
    #[error("Service {0} needs a port (--port): it has {1}")]
    ServicePortMissing(String, String),
    /// Only a receiver can be a Service.
    #[error("{0} is a Service: only a receiver can be one")]
    ServiceSends(String),
    /// The ends have no address family in common.
    #[error("{0} and {1} have no address family in common")]
    NoCommonFamily(String, String),
    /// A port that is no number from 1 to 65535 and no name that the receiver gives one.
    #[error("port {0:?} is no number from 1 to 65535, and {1} calls no port so")]
    NoSuchPort(String, String),
    /// TCP, UDP and SCTP need a port.
    #[error("{0} needs a port (--port)")]
    PortMissing(String),
    /// A matrix that would not fit into a reply.
    #[error(
        "the matrix has {entries} entries, more than {limit}: ask for one namespace (-n), or give \
         the objects as files (-f), which has no limit"
    )]
    TooLarge {
        /// What was asked for.
        entries: usize,
        /// The most there can be.
        limit: usize,
    },
    /// Not a protocol that policy knows of.
    #[error("protocol {0:?}: it must be one of TCP, UDP, SCTP, ICMP")]
    NoSuchProtocol(String),
}

/// One policy's answer, or a direction's default.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// `egress` of the sender or `ingress` of the receiver.
    pub direction: &'static str,
    /// `securityGroup`, `admin`, `networkPolicy`, `baseline`, `default`.
    pub tier: &'static str,
    /// The policy's kind.
    pub kind: Option<&'static str>,
    /// `NS/NAME`, or `NAME` of one that lives in no namespace; none where a default decided.
    pub policy: Option<String>,
    /// Index of the rule that matched.
    pub rule: Option<u16>,
    /// What its author calls it, where the kind has names for rules.
    pub rule_name: Option<String>,
    /// `allow`, `deny`, `pass` or `no match`.
    pub result: &'static str,
    /// For a denial: the rule of this policy that missed by least, and by what.
    pub nearest_miss: Option<String>,
}

/// What policies in audit mode would change.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Audit {
    /// `egress` of the sender or `ingress` of the receiver.
    pub direction: &'static str,
    /// `allow` or `deny`.
    pub verdict: &'static str,
    /// `audit: would deny by NS/NAME`.
    pub reason: String,
}

/// What one backend of a Service gets.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BackendVerdict {
    /// `NS/POD` or an address.
    pub to: String,
    /// Its own port.
    pub port: Option<u16>,
    /// Of its address.
    pub family: Family,
    /// `allow` or `deny`.
    pub verdict: &'static str,
    /// The decision in a line.
    pub reason: String,
}

/// The answer.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    /// `allow` or `deny`; `some` if some backends of a Service are allowed and others are not.
    pub verdict: &'static str,
    /// The generation that says so.
    pub generation: u64,
    /// `NS/POD` or an address.
    pub from: String,
    /// `NS/POD` or an address; of a Service the pod that was judged, `NS/SERVICE` if that were none
    /// or several.
    pub to: String,
    /// The Service that was asked for, `NS/SERVICE`, and its port.
    pub service: Option<String>,
    /// What each backend of the Service gets.
    pub backends: Vec<BackendVerdict>,
    /// Of a Service without a ready backend, or without that port: what the client gets.
    pub without_backend: Option<WithoutBackend>,
    /// `TCP`.
    pub protocol: String,
    /// Destination port behind any Service; where nobody is behind it, the one that policy was asked
    /// about.
    pub port: Option<u16>,
    /// Of the addresses that were judged.
    pub family: Family,
    /// The verdict over the other family, where both ends have it.
    pub other_family: Option<&'static str>,
    /// Every policy consulted, sender's first.
    pub steps: Vec<Step>,
    /// Where policies in audit mode would have decided otherwise.
    pub audit: Vec<Audit>,
    /// The decision in a line.
    pub reason: String,
}

/// Reads a protocol's name, case aside; `None` is TCP.
pub(crate) fn protocol(name: Option<&str>) -> Result<(Protocol, String), TraceError> {
    let name = name.unwrap_or("TCP").to_ascii_uppercase();
    let number = match name.as_str() {
        "TCP" => Protocol::TCP,
        "UDP" => Protocol::UDP,
        "SCTP" => Protocol::SCTP,
        "ICMP" => Protocol::ICMP,
        _ => return Err(TraceError::NoSuchProtocol(name)),
    };
    Ok((number, name))
}

impl View<'_> {
    /// Answers one question.
    pub fn trace(&self, params: &TraceParams) -> Result<Trace, TraceError> {
        let (protocol, protocol_name) = protocol(params.protocol.as_deref())?;
        let [from, to] = params.ends();
        let from = self.end(&from)?;
        let role = self.role(&from);
        let wanted = params.port.as_deref();
        if let Some(service) = self.service(&to)? {
            let reached = self.reached(&to, &service, wanted, protocol, role)?;
            return self.trace_service(&from, reached, protocol, &protocol_name);
        }
        let address = to.parse::<IpAddr>().ok().map(|a| a.to_canonical());
        let to = self.end(&to)?;
        let port = resolve_port(&to, wanted, protocol)?;
        if protocol.has_ports() && port.is_none() {
            return Err(TraceError::PortMissing(protocol_name));
        }
        let port = port.filter(|_| protocol.has_ports());
        let reached = address.and_then(|address| self.reached_at(address, protocol, port, role));
        if let Some(reached) = reached {
            return self.trace_service(&from, reached, protocol, &protocol_name);
        }
        let mut trace = self.trace_end(&from, &to, (protocol, port), false)?;
        trace.protocol = protocol_name;
        Ok(trace)
    }

    fn trace_end(
        &self,
        from: &End,
        to: &End,
        (protocol, port): (Protocol, Option<u16>),
        by_service: bool,
    ) -> Result<Trace, TraceError> {
        let ends = common_family(from, to)?;
        let judge = |(source, destination): (IpAddr, IpAddr)| {
            // Each family has its own number for ICMP.
            let protocol = match (protocol, destination) {
                (Protocol::ICMP, IpAddr::V6(_)) => Protocol::ICMPV6,
                (other, _) => other,
            };
            self.judge(&Flow {
                from,
                to,
                source,
                destination,
                protocol,
                port,
                by_service,
            })
        };
        let mut trace = judge(ends);
        let mut others = families(from, to).into_iter();
        let other = others.find(|other| *other != ends);
        trace.other_family = other.map(|ends| judge(ends).verdict);
        Ok(trace)
    }

    /// All backends of a Service: each may be what a connection gets.
    fn trace_service(
        &self,
        from: &End,
        reached: Reached,
        protocol: Protocol,
        protocol_name: &str,
    ) -> Result<Trace, TraceError> {
        let asked = match reached.port {
            Some(port) => format!("{} {protocol_name} {port}", reached.name),
            None => format!("{} {protocol_name}", reached.name),
        };
        let mut traces = Vec::new();
        for Backend { end: to, port, .. } in &reached.backends {
            // A backend of the other family is none for this sender.
            if !families(from, to).is_empty() {
                let traced = self.trace_end(from, to, (protocol, *port), reached.translated);
                traces.push(traced?);
            }
        }
        let mut unserved = reached.unserved.iter();
        let has_family = |u: &&Unserved| from.addresses.iter().any(|a| Family::of(*a) == u.family);
        let unserved = unserved.find(has_family);
        let backends: Vec<BackendVerdict> = traces.iter().map(BackendVerdict::of).collect();
        let denied = traces
            .iter()
            .filter(|trace| trace.verdict == "deny")
            .count();
        let several = traces.len() > 1;
        // What is denied says more.
        let telling = traces.iter().position(|trace| trace.verdict == "deny");
        let count = traces.len();
        let mut trace = match (traces.into_iter().nth(telling.unwrap_or(0)), unserved) {
            (Some(trace), _) => trace,
            (None, Some(unserved)) => self.judge_unserved(from, &reached.name, unserved, protocol),
            (None, None) => {
                return Err(TraceError::NoCommonFamily(from.name.clone(), reached.name));
            }
        };
        if several {
            let ports = backends.iter().map(|backend| backend.port);
            let same = ports.clone().all(|port| port == trace.port);
            trace.to.clone_from(&reached.name);
            trace.port = trace.port.filter(|_| same);
            trace.other_family = None;
            if denied > 0 && denied < count {
                trace.verdict = "some";
                let reason = &trace.reason;
                trace.reason = format!("{denied} of {count} backends are denied: {reason}");
            }
        }
        if count > 0 && unserved.is_some() {
            trace.other_family = Some("deny");
        }
        trace.service = Some(asked);
        trace.backends = backends;
        trace.protocol = protocol_name.to_owned();
        Ok(trace)
    }
}

impl BackendVerdict {
    /// Whether the two differ in nothing but the family.
    fn says(&self, other: &BackendVerdict) -> bool {
        let of = |b: &BackendVerdict| (b.to.clone(), b.port, b.verdict, b.reason.clone());
        of(self) == of(other)
    }

    fn of(trace: &Trace) -> BackendVerdict {
        BackendVerdict {
            to: trace.to.clone(),
            port: trace.port,
            family: trace.family,
            verdict: trace.verdict,
            reason: trace.reason.clone(),
        }
    }
}

impl Trace {
    /// The policies that decided: of a denial by default all that isolate, of an allowed
    /// connection those of both directions.
    pub fn deciders(&self) -> Vec<&str> {
        let decided = |step: &&Step| step.result == self.verdict;
        let steps = self.steps.iter().filter(decided);
        steps.filter_map(|step| step.policy.as_deref()).collect()
    }

    fn spread(&self) -> String {
        // A pod with addresses of both families is one backend.
        let names: BTreeSet<&str> = self.backends.iter().map(|b| b.to.as_str()).collect();
        match names.len() {
            0 => "nobody answers".to_owned(),
            1 => "one backend".to_owned(),
            several => format!("{several} backends, one of them for each connection"),
        }
    }

    /// For a person, several lines.
    pub fn text(&self) -> String {
        let port = self.port.map_or(String::new(), |port| format!(" {port}"));
        let mut text = format!(
            "{} -> {} {}{port}: {}\n",
            self.from, self.to, self.protocol, self.verdict
        );
        if let Some(service) = &self.service {
            let _ = writeln!(text, "  service {service}: {}", self.spread());
        }
        // One backend is the whole answer.
        for (index, backend) in self.backends.iter().enumerate() {
            let said = |other: &BackendVerdict| other.says(backend);
            if self.backends.len() == 1 || self.backends[..index].iter().any(said) {
                continue;
            }
            let BackendVerdict { to, verdict, .. } = backend;
            let mut others = self.backends.iter().filter(|other| other.to == *to);
            let over = match others.all(said) {
                true => String::new(),
                false => format!(" over {}", backend.family.name()),
            };
            let port = backend
                .port
                .map_or(String::new(), |port| format!(" {port}"));
            let _ = writeln!(text, "    {to}{port}{over}: {verdict} ({})", backend.reason);
        }
        for step in &self.steps {
            let policy = step.policy.as_deref().unwrap_or("(no policy)");
            let mut rule = step
                .rule
                .map_or(String::new(), |rule| format!(" rule {rule}"));
            if let Some(name) = &step.rule_name {
                let _ = write!(rule, " {name:?}");
            }
            // Writing into a String cannot fail.
            let _ = writeln!(
                text,
                "  {:<8}{:<15}{policy}{rule}: {}",
                step.direction, step.tier, step.result
            );
            if let Some(miss) = &step.nearest_miss {
                let _ = writeln!(text, "    nearest miss: {miss}");
            }
        }
        for audit in &self.audit {
            let _ = writeln!(text, "  {:<8}{}", audit.direction, audit.reason);
        }
        let _ = writeln!(text, "  {}", self.reason);
        if let Some(other) = self.other_family.filter(|other| *other != self.verdict) {
            let [this, that] = match self.family {
                Family::V4 => [Family::V4, Family::V6],
                Family::V6 => [Family::V6, Family::V4],
            };
            let (this, that) = (this.name(), that.name());
            let _ = writeln!(
                text,
                "  this is over {this}; over {that}: {other} (ask with an {that} address to see why)"
            );
        }
        text
    }
}
