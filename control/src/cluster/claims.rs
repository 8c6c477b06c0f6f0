//! Which Service has which address and which node port.

use std::net::IpAddr;
use std::sync::Arc;

use immutable_chunkmap::map::Map;

use super::shelf::CHUNK;
use crate::objects::Object;

/// Namespace and name of a Service.
type Holder = (Arc<str>, Arc<str>);

/// Who has what Services are given. A copy costs as little as one of the objects.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    addresses: Map<IpAddr, Holder, CHUNK>,
    ports: Map<u16, Holder, CHUNK>,
}

impl Claims {
    /// The Service that has the address.
    pub fn address(&self, address: IpAddr) -> Option<&Holder> {
        self.addresses.get(&address)
    }

    /// The Service that has the node port.
    pub fn port(&self, port: u16) -> Option<&Holder> {
        self.ports.get(&port)
    }

    /// Has `object` in the place of `old`.
    pub(super) fn follow(&mut self, old: Option<&Object>, object: Option<&Object>) {
        if let Some(old) = old {
            let own = holder(old);
            for address in addresses(old) {
                if self.addresses.get(&address) == Some(&own) {
                    self.addresses.remove_cow(&address);
                }
            }
            for port in ports(old) {
                if self.ports.get(&port) == Some(&own) {
                    self.ports.remove_cow(&port);
                }
            }
        }
        if let Some(object) = object {
            for address in addresses(object) {
                self.addresses.insert_cow(address, holder(object));
            }
            for port in ports(object) {
                self.ports.insert_cow(port, holder(object));
            }
        }
    }
}

fn holder(object: &Object) -> Holder {
    let key = object.key();
    (key.namespace.clone(), key.name.clone())
}

fn addresses(object: &Object) -> impl Iterator<Item = IpAddr> {
    let spec = object.as_service().and_then(|s| s.spec.as_ref());
    let addresses = spec.and_then(|spec| spec.cluster_ips.as_ref());
    addresses
        .into_iter()
        .flatten()
        .filter_map(|address| address.parse().ok())
}

fn ports(object: &Object) -> impl Iterator<Item = u16> {
    let spec = object.as_service().and_then(|s| s.spec.as_ref());
    let ports = spec.and_then(|spec| spec.ports.as_ref());
    let numbers = ports
        .into_iter()
        .flatten()
        .filter_map(|port| port.node_port);
    let health_check = spec.and_then(|spec| spec.health_check_node_port);
    numbers
        .chain(health_check)
        .filter_map(|number| u16::try_from(number).ok())
        .filter(|&number| number != 0)
}
