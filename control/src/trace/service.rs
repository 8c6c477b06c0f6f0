//! Where a Service's port leads: asked of the table that the workers choose backends from.

use std::net::IpAddr;

use dataplane::service::Lookup;
use dataplane::snapshot::Role;
use dataplane::{Address, Protocol};
use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{End, TraceError, View, resolve_port};
use crate::objects::Object;
use crate::service::{cluster_ips, protocol_of};

/// A Service's port, as clients ask for it, and what answers.
pub(crate) struct Reached {
    /// `NS/NAME`.
    pub name: String,
    /// The port that clients ask for; none of protocols without.
    pub port: Option<u16>,
    /// The backends, each at one address, by address; none where nobody is ready.
    pub backends: Vec<(End, Option<u16>)>,
    /// Of a Service without a backend: the port that policy is asked about.
    pub policy_port: Option<u16>,
}

impl View<'_> {
    /// Where a connection to a Service leads that comes from `from`; without a sender, from a pod of
    /// this node.
    pub(crate) fn reached(
        &self,
        text: &str,
        object: &Object,
        wanted: Option<&str>,
        protocol: Protocol,
        from: Option<&End>,
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
        let role = match from {
            Some(from) if from.local.is_none() => Role::Uplink,
            _ => Role::Pod,
        };
        let mut reached = Reached {
            name,
            port: Some(number),
            backends: Vec::new(),
            policy_port: None,
        };
        for address in addresses {
            let table = self.services.table();
            match table.lookup(role, Address::from(address), protocol, number) {
                Lookup::Backends(backends) => {
                    let ends = backends.iter().map(|backend| {
                        let end = self.address_end(backend.address.to_ip());
                        (end, Some(backend.port))
                    });
                    reached.backends.extend(ends);
                }
                Lookup::NoBackend { policy_port } => reached.policy_port = Some(policy_port),
                Lookup::NoSuchPort | Lookup::NotAService => {}
            }
        }
        reached.backends.sort_by(|a, b| a.0.name.cmp(&b.0.name));
        Ok(reached)
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
            policy_port: number,
        };
        let mut unnamed = None;
        for address in addresses {
            let end = self.address_end(address);
            let resolved = match &target {
                Some(target) => resolve_port(&end, Some(target), protocol),
                None => Ok(number),
            };
            match resolved {
                Ok(port) => reached
                    .backends
                    .push((end, port.filter(|_| protocol.has_ports()))),
                Err(error) => unnamed = Some(error),
            }
        }
        match unnamed {
            Some(error) if reached.backends.is_empty() => Err(error),
            _ => Ok(reached),
        }
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
