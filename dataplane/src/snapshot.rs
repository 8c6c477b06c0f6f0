//! Everything the control thread tells the workers: immutable, numbered, adopted per burst.
//!
//! Control fills in [`Parts`] and calls [`Snapshot::build`], which checks that they agree with each
//! other; [`SnapshotCell`] publishes the result. Lookups on the packet path neither allocate nor
//! lock: ports and endpoints are arrays indexed by their numbers, addresses and neighbours hash
//! maps.

mod cell;

use std::sync::Arc;

use arrayvec::ArrayVec;
use hashbrown::{HashMap, HashSet};

pub use cell::{NotAcknowledged, SnapshotCell, SnapshotReader};

pub use crate::policy::EndpointSlot;
use crate::policy::PolicyTable;
use crate::route::RouteTable;
use crate::{Address, Mac};

/// The number of a snapshot: persisted, rising, never used for another snapshot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Generation(pub u64);

/// The low 32 bits of the generation at which one endpoint's compiled policy last changed.
///
/// Conntrack entries carry the epochs of both ends. Compared by wrapping distance
/// ([`Epoch::is_newer_than`]), so that they may wrap around; 0 is left out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Epoch(pub u32);

impl Epoch {
    /// The epoch of an end that is no local endpoint, or that nobody has decided for yet: never
    /// newer than anything, and older than all others.
    pub const NONE: Epoch = Epoch(0);

    /// Whether this epoch came after `other` (RFC 1982 serial number arithmetic).
    pub const fn is_newer_than(self, other: Epoch) -> bool {
        match (self, other) {
            (Epoch::NONE, _) => false,
            (_, Epoch::NONE) => true,
            _ => (self.0.wrapping_sub(other.0) as i32) > 0,
        }
    }
}

impl From<Generation> for Epoch {
    fn from(generation: Generation) -> Self {
        Epoch(generation.0 as u32)
    }
}

/// An endpoint's identity in state: one per pod UID, never used for another pod. 0 is "no local
/// endpoint".
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Incarnation(pub u32);

impl Incarnation {
    /// An end that is no local endpoint.
    pub const NONE: Incarnation = Incarnation(0);
}

/// A port's number in the dataplane: an index into [`Snapshot`]'s ports. Used again only after
/// every worker has acknowledged a snapshot without it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PortId(pub u16);

impl PortId {
    /// The number of [`Role::HostNode`]'s port, and of no other ever: connections remember their
    /// initiator's port by number, over restarts too, and those that came in here are exempt from
    /// ingress policy.
    pub const HOST_NODE: PortId = PortId(0);
    /// The number of [`Role::HostTransit`]'s port, and of no other ever.
    pub const HOST_TRANSIT: PortId = PortId(1);
    /// The first number that pods and uplinks can have.
    pub const FIRST_FREE: PortId = PortId(2);
}

/// What stands behind a port.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// The host-side veth of a pod.
    Pod,
    /// A NIC, or in a lab the veth to the external world.
    Uplink,
    /// Local output of the node's own stack (`weir-node`).
    HostNode,
    /// What the node's stack forwards or translates (`weir-transit`).
    HostTransit,
}

/// A port as the pipeline sees it. A port that is not in the snapshot passes nothing
/// ([`DropReason::PortNotReady`](crate::DropReason::PortNotReady)).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Port {
    /// Its number, as [`Engine::add_port`](crate::engine::Engine::add_port) gave it.
    pub id: PortId,
    /// What stands behind it.
    pub role: Role,
    /// Our Ethernet address on it: the interface's own. Gateways are answered with it.
    pub mac: Mac,
    /// Largest IP packet that may leave by it, in bytes.
    pub mtu: u16,
    /// Whether the interface is virtual (a veth), so that what comes from it may carry partial or
    /// absent checksums.
    pub is_virtual: bool,
    /// Source of the IPv4 ICMP errors that we send by it; none stays silent.
    pub icmp_source_v4: Option<Address>,
    /// Source of the ICMPv6 errors that we send by it; none stays silent.
    pub icmp_source_v6: Option<Address>,
    /// For [`Role::Pod`] the endpoint behind it; none for the other roles.
    pub endpoint: Option<EndpointSlot>,
    /// For the host roles the Ethernet address of the node's end of the veth. Pods' addresses are
    /// their endpoints', next hops on an uplink are in [`Parts::neighbours`].
    pub peer_mac: Option<Mac>,
}

/// A local pod.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// Its number in this snapshot.
    pub slot: EndpointSlot,
    /// Its identity; never [`Incarnation::NONE`].
    pub incarnation: Incarnation,
    /// When its compiled policy last changed; never [`Epoch::NONE`].
    pub epoch: Epoch,
    /// The port it stands behind.
    pub port: PortId,
    /// The Ethernet address of its interface.
    pub mac: Mac,
    /// Its addresses: what it may send from and what reaches it.
    pub addresses: ArrayVec<Address, { Endpoint::ADDRESSES_MAX }>,
}

impl Endpoint {
    /// Most addresses one endpoint can have.
    pub const ADDRESSES_MAX: usize = 8;
}

/// A next hop whose Ethernet address control has learnt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Neighbour {
    /// The port it is reached by.
    pub port: PortId,
    /// Its address.
    pub address: Address,
    /// Its Ethernet address.
    pub mac: Mac,
}

/// What becomes of accepted connections that newer policy denies (D2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ExistingConnections {
    /// They are decided again on their next packet, and cut if denied.
    #[default]
    Redecide,
    /// They go on until they end. What was denied is decided again all the same.
    Keep,
}

/// Whether a pod's packets to its own node follow its egress policy (D6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum NodeEgress {
    /// They do.
    #[default]
    Policy,
    /// They always pass.
    Allow,
}

/// Choices that apply to every packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// What becomes of live connections when policy changes.
    pub existing_connections: ExistingConnections,
    /// Pod to its own node.
    pub node_egress: NodeEgress,
    /// Whether accepted flows make events too (the denial log at debug, `observe`).
    pub accept_events: bool,
    /// One of so many new flows makes an event for the self-check
    /// ([`EventKind::Sampled`](crate::events::EventKind::Sampled)); 0 is none.
    pub sample_one_in: u32,
    /// ICMP errors that one worker forwards or makes in a second, each; bursts of a tenth of that.
    pub icmp_errors_per_second: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            existing_connections: ExistingConnections::Redecide,
            node_egress: NodeEgress::Policy,
            accept_events: false,
            sample_one_in: 0,
            icmp_errors_per_second: 1000,
        }
    }
}

/// What a [`Snapshot`] is built from.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// Its number: larger than that of every snapshot before.
    pub generation: Generation,
    /// The ports that may pass packets.
    pub ports: Vec<Port>,
    /// The local endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Next hops with their Ethernet addresses.
    pub neighbours: Vec<Neighbour>,
    /// All addresses of the node itself.
    pub node_addresses: Vec<Address>,
    /// The pods' gateways, for which ARP and neighbour solicitations are answered on every port.
    pub gateways: Vec<Address>,
    /// Ways to everything that is no local endpoint, the node's own addresses included: those by
    /// the port of [`Role::HostNode`]. Local endpoints need no route.
    pub routes: Arc<RouteTable>,
    /// The endpoints' policies, by slot. An endpoint that the table lacks passes nothing.
    /// Shared, so that a snapshot that changes only a neighbour compiles nothing.
    pub policy: Arc<PolicyTable>,
    /// Choices.
    pub settings: Settings,
}

/// Why parts do not make a snapshot. Control made a mistake: nothing a user writes leads here.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// Two ports with one number.
    #[error("port {} stands twice in the snapshot", .0.0)]
    PortTwice(PortId),
    /// Two endpoints with one slot.
    #[error("endpoint slot {} stands twice in the snapshot", .0.0)]
    SlotTwice(EndpointSlot),
    /// An address of two endpoints, or of an endpoint and the node or a gateway.
    #[error("address {0} belongs to more than one endpoint, node or gateway")]
    AddressTwice(Address),
    /// A pod port and its endpoint do not name each other.
    #[error("port {} and endpoint slot {} do not name each other", .port.0, .slot.0)]
    Unpaired {
        /// The port.
        port: PortId,
        /// The endpoint.
        slot: EndpointSlot,
    },
    /// A pod port without an endpoint, or another role's port with one.
    #[error("port {} has an endpoint that its role does not have, or none where it needs one", .0.0)]
    WrongRole(PortId),
    /// An endpoint whose incarnation or epoch means "no endpoint".
    #[error("endpoint slot {} has no incarnation or no epoch", .0.0)]
    NoIdentity(EndpointSlot),
}

/// Everything the workers need to decide and to forward: immutable.
#[derive(Debug, Default)]
pub struct Snapshot {
    generation: Generation,
    ports: Vec<Option<Port>>,
    endpoints: Vec<Option<Endpoint>>,
    by_address: HashMap<Address, EndpointSlot>,
    neighbours: HashMap<(PortId, Address), Mac>,
    node_addresses: HashSet<Address>,
    gateways: HashSet<Address>,
    routes: Arc<RouteTable>,
    policy: Arc<PolicyTable>,
    settings: Settings,
}

impl Snapshot {
    /// The snapshot of `parts`.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub fn build(parts: Parts) -> Result<Snapshot, SnapshotError> {
        let mut snapshot = Snapshot {
            generation: parts.generation,
            neighbours: parts
                .neighbours
                .iter()
                .map(|n| ((n.port, n.address), n.mac))
                .collect(),
            node_addresses: parts.node_addresses.iter().copied().collect(),
            gateways: parts.gateways.iter().copied().collect(),
            routes: parts.routes,
            policy: parts.policy,
            settings: parts.settings,
            ..Snapshot::default()
        };
        for port in parts.ports {
            snapshot.insert_port(port)?;
        }
        for endpoint in parts.endpoints {
            snapshot.insert_endpoint(endpoint)?;
        }
        snapshot.check_pairs()?;
        Ok(snapshot)
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
        if endpoint.incarnation == Incarnation::NONE || endpoint.epoch == Epoch::NONE {
            return Err(SnapshotError::NoIdentity(slot));
        }
        let index = usize::from(slot.0);
        if self.endpoints.len() <= index {
            self.endpoints.resize(index + 1, None);
        }
        if self.endpoints[index].is_some() {
            return Err(SnapshotError::SlotTwice(slot));
        }
        for address in &endpoint.addresses {
            let taken = self.node_addresses.contains(address) || self.gateways.contains(address);
            if taken || self.by_address.insert(*address, slot).is_some() {
                return Err(SnapshotError::AddressTwice(*address));
            }
        }
        self.endpoints[index] = Some(endpoint);
        Ok(())
    }

    /// Every port's endpoint exists and names the port; an endpoint may be without its port.
    fn check_pairs(&self) -> Result<(), SnapshotError> {
        for port in self.ports.iter().flatten() {
            let Some(slot) = port.endpoint else { continue };
            if self.endpoint(slot).is_none_or(|e| e.port != port.id) {
                return Err(SnapshotError::Unpaired {
                    port: port.id,
                    slot,
                });
            }
        }
        for endpoint in self.endpoints.iter().flatten() {
            let (port, slot) = (endpoint.port, endpoint.slot);
            if self.port(port).is_some_and(|p| p.endpoint != Some(slot)) {
                return Err(SnapshotError::Unpaired { port, slot });
            }
        }
        Ok(())
    }

    /// Its number.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// A port that may pass packets.
    pub fn port(&self, id: PortId) -> Option<&Port> {
        self.ports.get(usize::from(id.0))?.as_ref()
    }

    /// The endpoint in `slot`.
    pub fn endpoint(&self, slot: EndpointSlot) -> Option<&Endpoint> {
        self.endpoints.get(usize::from(slot.0))?.as_ref()
    }

    /// The local endpoint that has `address`.
    pub fn endpoint_at(&self, address: Address) -> Option<&Endpoint> {
        self.endpoint(*self.by_address.get(&address)?)
    }

    /// All endpoints.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.iter().flatten()
    }

    /// All ports.
    pub fn ports(&self) -> impl Iterator<Item = &Port> {
        self.ports.iter().flatten()
    }

    /// The Ethernet address of a next hop on `port`.
    pub fn neighbour(&self, port: PortId, address: Address) -> Option<Mac> {
        self.neighbours.get(&(port, address)).copied()
    }

    /// Whether `address` is one of the node's own.
    pub fn is_node_address(&self, address: Address) -> bool {
        self.node_addresses.contains(&address)
    }

    /// Whether `address` is a gateway that we answer for.
    pub fn is_gateway(&self, address: Address) -> bool {
        self.gateways.contains(&address)
    }

    /// The routes.
    pub fn routes(&self) -> &RouteTable {
        &self.routes
    }

    /// The endpoints' compiled policies.
    pub fn policy(&self) -> &PolicyTable {
        &self.policy
    }

    /// The choices.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}

/// A snapshot as it is shared.
pub type SharedSnapshot = Arc<Snapshot>;
