//! What stands where: ports, endpoints, neighbours and the node's own addresses. It changes with
//! pods and next hops, not with policy.

use hashbrown::{HashMap, HashSet};

use super::local::{Local, Locals};
use super::{Endpoint, EndpointSlot, Incarnation, Neighbour, Port, PortId, Role, SnapshotError};
use crate::{Address, Mac};

/// The part of a snapshot that snapshots share as long as only policy changes.
#[derive(Debug, Default)]
pub(super) struct Topology {
    ports: Vec<Option<Port>>,
    endpoints: Vec<Option<Endpoint>>,
    locals: Locals,
    neighbours: HashMap<(PortId, Address), Mac>,
    node_addresses: HashSet<Address>,
    gateways: HashSet<Address>,
}

impl Topology {
    /// A topology without ports.
    pub fn build(
        neighbours: &[Neighbour],
        node_addresses: &[Address],
        gateways: &[Address],
    ) -> Topology {
        let known = neighbours.iter().map(|n| ((n.port, n.address), n.mac));
        Topology {
            neighbours: known.collect(),
            node_addresses: node_addresses.iter().copied().collect(),
            gateways: gateways.iter().copied().collect(),
            ..Topology::default()
        }
    }

    /// The same with these ports and endpoints, if they agree with each other.
    pub fn with_ends(
        mut self,
        ports: Vec<Port>,
        endpoints: Vec<Endpoint>,
    ) -> Result<Topology, SnapshotError> {
        for port in ports {
            self.insert_port(port)?;
        }
        let mut taken: HashSet<Address> = &self.node_addresses | &self.gateways;
        for endpoint in endpoints {
            if let Some(address) = endpoint.addresses.iter().find(|a| !taken.insert(**a)) {
                return Err(SnapshotError::AddressTwice(*address));
            }
            self.insert_endpoint(endpoint)?;
        }
        self.check_pairs()?;
        self.locals = Locals::new(&self.endpoints, &self.ports);
        Ok(self)
    }

    fn insert_port(&mut self, port: Port) -> Result<(), SnapshotError> {
        if port.endpoint.is_some() != (port.role == Role::Pod) {
            return Err(SnapshotError::WrongRole(port.id));
        }
        let index = usize::from(port.id.0);
        if self.ports.len() <= index {
            self.ports.resize(index + 1, None);
        }
        if self.ports[index].is_some() {
            return Err(SnapshotError::PortTwice(port.id));
        }
        self.ports[index] = Some(port);
        Ok(())
    }

    fn insert_endpoint(&mut self, endpoint: Endpoint) -> Result<(), SnapshotError> {
        let slot = endpoint.slot;
        if endpoint.incarnation == Incarnation::NONE {
            return Err(SnapshotError::NoIdentity(slot));
        }
        let index = usize::from(slot.0);
        if self.endpoints.len() <= index {
            self.endpoints.resize(index + 1, None);
        }
        if self.endpoints[index].is_some() {
            return Err(SnapshotError::SlotTwice(slot));
        }
        self.endpoints[index] = Some(endpoint);
        Ok(())
    }

    /// Every port's endpoint exists and names the port; an endpoint may be without its port.
    fn check_pairs(&self) -> Result<(), SnapshotError> {
        for port in self.ports() {
            let Some(slot) = port.endpoint else { continue };
            if self.endpoint(slot).is_none_or(|e| e.port != port.id) {
                return Err(SnapshotError::Unpaired {
                    port: port.id,
                    slot,
                });
            }
        }
        for endpoint in self.endpoints() {
            let (port, slot) = (endpoint.port, endpoint.slot);
            if self.port(port).is_some_and(|p| p.endpoint != Some(slot)) {
                return Err(SnapshotError::Unpaired { port, slot });
            }
        }
        Ok(())
    }

    #[inline]
    pub fn port(&self, id: PortId) -> Option<&Port> {
        self.ports.get(usize::from(id.0))?.as_ref()
    }

    pub fn ports(&self) -> impl Iterator<Item = &Port> {
        self.ports.iter().flatten()
    }

    pub fn endpoint(&self, slot: EndpointSlot) -> Option<&Endpoint> {
        self.endpoints.get(usize::from(slot.0))?.as_ref()
    }

    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.iter().flatten()
    }

    pub fn endpoint_at(&self, address: Address) -> Option<&Endpoint> {
        self.endpoint(self.local_at(address)?.slot)
    }

    #[inline]
    pub fn local(&self, slot: EndpointSlot) -> Option<&Local> {
        self.locals.get(slot)
    }

    #[inline]
    pub fn local_at(&self, address: Address) -> Option<&Local> {
        self.locals.at(address, &self.endpoints)
    }

    pub fn neighbour(&self, port: PortId, address: Address) -> Option<Mac> {
        self.neighbours.get(&(port, address)).copied()
    }

    pub fn is_node_address(&self, address: Address) -> bool {
        self.node_addresses.contains(&address)
    }

    pub fn is_gateway(&self, address: Address) -> bool {
        self.gateways.contains(&address)
    }
}
