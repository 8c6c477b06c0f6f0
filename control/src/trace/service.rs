//! Where a Service's port leads: asked of the table that the workers choose backends from.

use std::net::IpAddr;

use dataplane::service::Lookup;
use dataplane::snapshot::Role;
use dataplane::{Address, Direction, Protocol};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::unserved::{Missing, Unserved, WithoutBackend};
use super::{End, TraceError, View, resolve_port};
use crate::family::Family;
use crate::objects::Object;
use crate::service::{cluster_ips, protocol_of};

/// A Service's port, as clients ask for it, and what answers.
#[derive(Clone, Debug)]
pub(crate) struct Reached {
    /// `NS/NAME`; an address that is no Service's ClusterIP stays itself.
    pub name: String,
    /// The port that clients ask for; none of protocols without.
    pub port: Option<u16>,
    /// The backends, each at one address, by address; none where nobody is ready.
    pub backends: Vec<Backend>,
    /// The addresses behind which there is nobody.
    pub unserved: Vec<Unserved>,
    /// Whether connections are translated; those to a headless Service go to the pods themselves.
    pub translated: bool,
}

/// A backend, and the way to it.
#[derive(Clone, Debug)]
pub(crate) struct Backend {
    /// Its one address, with the pod that has it.
    pub end: End,
    /// Its own port.
    pub port: Option<u16>,
    /// The Service's address that leads to it; its own one if nothing is translated.
    pub by: IpAddr,
}

impl View<'_> {
    /// Where a sender's connections to Services come in.
    pub(crate) fn role(&self, from: &End) -> Role {
        match from.local {
            Some(_) => Role::Pod,
            None => Role::Uplink,
        }
    }

    /// Where a connection to a Service leads that comes in by a port of this role.
    pub(crate) fn reached(
        &self,
        text: &str,
        object: &Object,
        wanted: Option<&str>,
        protocol: Protocol,
        role: Role,
    ) -> Result<Reached, TraceError> {
        let name = format!("{}/{}", object.namespace(), object.name());
        let spec = object.as_service().and_then(|s| s.spec.as_ref());
        let spec = spec.ok_or_else(|| TraceError::NoAddress(format!("Service {text}")))?;
        if spec.type_.as_deref() == Some("ExternalName") {
            let outside = spec.external_name.clone().unwrap_or_default();
            return Err(TraceError::OnlyAName(name, outside));
        }
        let addresses = cluster_ips(spec);
        if addresses.is_empty() {
            return self.headless(name, object, spec, wanted, protocol);
        }
        if !protocol.has_ports() {
            return Err(TraceError::NotTranslated(name));
        }
        let port = chosen(spec, wanted, protocol)
            .ok_or_else(|| no_such_port(&name, spec, wanted, protocol))?;
        let number = u16::try_from(port.port).unwrap_or(0);
        let mut reached = Reached {
            name,
            port: Some(number),
            backends: Vec::new(),
            unserved: Vec::new(),
            translated: true,
        };
        for address in addresses {
            self.look_up(&mut reached, role, address, protocol);
        }
        let ends = &mut reached.backends;
        ends.sort_by(|a, b| a.end.name.cmp(&b.end.name));
        Ok(reached)
    }

    /// Where a connection to an address leads that is a Service's; none if it is none.
    pub(crate) fn reached_at(
        &self,
        address: IpAddr,
        protocol: Protocol,
        port: Option<u16>,
        role: Role,
    ) -> Option<Reached> {
        let mut reached = Reached {
            name: address.to_string(),
            port,
            backends: Vec::new(),
            unserved: Vec::new(),
            translated: true,
        };
        let is_service = self.look_up(&mut reached, role, address, protocol);
        let has_it = |object: &&std::sync::Arc<Object>| {
            let spec = object.as_service().and_then(|s| s.spec.as_ref());
            spec.is_some_and(|spec| cluster_ips(spec).contains(&address))
        };
        if is_service && let Some(object) = self.cluster.list_of::<Service>().find(has_it) {
            reached.name = format!("{}/{}", object.namespace(), object.name());
        }
        is_service.then_some(reached)
    }

    /// Adds what stands behind one address; whether it is a Service's.
    fn look_up(
        &self,
        reached: &mut Reached,
        role: Role,
        address: IpAddr,
        protocol: Protocol,
    ) -> bool {
        let table = self.services.table();
        let port = reached.port.unwrap_or(0);
        let nobody = |missing, policy_port| Unserved {
            family: Family::of(address),
            address: Some(address),
            missing,
            policy_port,
        };
        match table.lookup(role, Address::from(address), protocol, port) {
            Lookup::Backends(backends) => {
                let backends = backends.iter().map(|backend| Backend {
                    end: self.address_end(backend.address.to_ip()),
                    port: Some(backend.port),
                    by: address,
                });
                reached.backends.extend(backends);
            }
            Lookup::NoBackend { policy_port } => {
                let nobody = nobody(Missing::Backend, Some(policy_port));
                reached.unserved.push(nobody);
            }
            Lookup::NoSuchPort => {
                let nobody = nobody(Missing::Port, reached.port);
                reached.unserved.push(nobody);
            }
            Lookup::NotAService => return false,
        }
        true
    }

    /// What a sender gets where a Service has nobody: by the table that the pipeline asks before it
    /// refuses.
    pub(crate) fn without_backend(
        &self,
        from: &End,
        unserved: &Unserved,
        protocol: Protocol,
    ) -> WithoutBackend {
        if unserved.address.is_none() {
            return WithoutBackend::NoAddress;
        }
        let Some(port) = unserved.policy_port.filter(|_| protocol.has_ports()) else {
            return WithoutBackend::Silence;
        };
        // Whoever is no pod of ours is told.
        let may_know = from.local.is_none_or(|at| {
            let slot = self.slots[at];
            self.table
                .may_accept(slot, Direction::Egress, protocol, port)
        });
        match protocol {
            _ if !may_know => WithoutBackend::Silence,
            Protocol::TCP => WithoutBackend::Reset,
            _ => WithoutBackend::Unreachable,
        }
    }

    /// A headless Service is a name for its pods: who asks it for a port asks them.
    fn headless(
        &self,
        name: String,
        object: &Object,
        spec: &ServiceSpec,
        wanted: Option<&str>,
        protocol: Protocol,
    ) -> Result<Reached, TraceError> {
        let slices = self.services.slices(object.namespace(), object.name());
        let ready = slices
            .flat_map(|slice| &slice.endpoints)
            .filter(|endpoint| {
                let conditions = endpoint.conditions.as_ref();
                conditions.and_then(|c| c.ready).unwrap_or(true)
            });
        let addresses = ready.filter_map(|endpoint| endpoint.addresses.first()?.parse().ok());
        let mut addresses: Vec<IpAddr> = addresses.collect();
        addresses.sort_unstable();
        addresses.dedup();
        let number = wanted.and_then(|word| word.parse::<u16>().ok());
        let port = chosen(spec, wanted, protocol);
        // By its name a port is what an SRV record says.
        let target = port.filter(|_| number.is_none()).map(target_of);
        if protocol.has_ports() && number.is_none() && target.is_none() {
            return Err(no_such_port(&name, spec, wanted, protocol));
        }
        let mut reached = Reached {
            name,
            port: number.filter(|_| protocol.has_ports()),
            backends: Vec::new(),
            unserved: Vec::new(),
            translated: false,
        };
        let mut unnamed = None;
        for address in addresses {
            let end = self.address_end(address);
            let resolved = match &target {
                Some(target) => resolve_port(&end, Some(target), protocol),
                None => Ok(number),
            };
            match resolved {
                Ok(port) => reached.backends.push(Backend {
                    end,
                    port: port.filter(|_| protocol.has_ports()),
                    by: address,
                }),
                Err(error) => unnamed = Some(error),
            }
        }
        if let Some(error) = unnamed
            && reached.backends.is_empty()
        {
            return Err(error);
        }
        // Its name has no address then; with some, nobody asks for those that it has not.
        if reached.backends.is_empty() {
            let families = [Family::V4, Family::V6].into_iter();
            let unserved = families.map(|family| Unserved {
                family,
                address: None,
                missing: Missing::Backend,
                policy_port: number,
            });
            reached.unserved.extend(unserved);
        }
        Ok(reached)
    }
}

/// The port that a number or a name means; the only one if nothing is said.
fn chosen<'s>(
    spec: &'s ServiceSpec,
    wanted: Option<&str>,
    protocol: Protocol,
) -> Option<&'s ServicePort> {
    let ports = spec.ports.as_deref().unwrap_or_default();
    match (wanted, ports) {
        (None, [only]) => Some(only),
        (None, _) => None,
        (Some(word), _) => ports.iter().find(|port| {
            let same = protocol_of(port.protocol.as_deref()) == protocol;
            same && (port.port.to_string() == word || port.name.as_deref() == Some(word))
        }),
    }
}

fn target_of(port: &ServicePort) -> String {
    match &port.target_port {
        None | Some(IntOrString::Int(0)) => port.port.to_string(),
        Some(IntOrString::Int(number)) => number.to_string(),
        Some(IntOrString::String(name)) => name.clone(),
    }
}

fn no_such_port(
    name: &str,
    spec: &ServiceSpec,
    wanted: Option<&str>,
    protocol: Protocol,
) -> TraceError {
    let ports = spec.ports.iter().flatten().map(|port| {
        let called = port.name.as_deref().filter(|name| !name.is_empty());
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        match called {
            Some(called) => format!("{}/{protocol} ({called})", port.port),
            None => format!("{}/{protocol}", port.port),
        }
    });
    let ports: Vec<String> = ports.collect();
    let has = match ports.is_empty() {
        true => "none".to_owned(),
        false => ports.join(", "),
    };
    let protocol = crate::flow::protocol_name(protocol);
    match wanted {
        Some(word) => TraceError::ServiceHasNoPort {
            service: name.to_owned(),
            port: format!("{word}/{protocol}"),
            has,
        },
        None => TraceError::ServicePortMissing(name.to_owned(), has),
    }
}
