//! Everything the control thread tells the workers: immutable, numbered, adopted per burst.
//!
//! Control fills in [`Parts`] and calls [`Snapshot::build`], which checks that they agree with each
//! other, or derives a snapshot from the last one where only policy has changed
//! ([`Snapshot::with_policy`]); [`SnapshotCell`] publishes the result. Lookups on the packet path
//! neither allocate nor lock: ports and endpoints are arrays indexed by their numbers, addresses and
//! neighbours hash tables.

mod cell;
mod local;
mod topology;

use std::sync::Arc;

use arrayvec::ArrayVec;

pub use cell::{NotAcknowledged, Retired, SnapshotCell, SnapshotReader};
pub(crate) use local::Local;
use topology::Topology;

pub use crate::policy::EndpointSlot;
use crate::policy::PolicyTable;
use crate::route::RouteTable;
use crate::service::ServiceTable;
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
    /// By slot, when each endpoint's compiled policy last changed; never [`Epoch::NONE`] for one
    /// that there is.
    pub epochs: Vec<Epoch>,
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
    /// The Services, shared as long as none of them changes; empty by default.
    pub services: Arc<ServiceTable>,
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

/// How an endpoint stands with policy, by slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Standing {
    /// [`Epoch::NONE`] where there is no endpoint.
    epoch: Epoch,
    /// Whether the policy table knows the endpoint, as [`PolicyTable::contains`] would say.
    has_policy: bool,
}

impl Standing {
    /// Of the endpoint in slot number `slot`.
    fn new(slot: usize, epoch: Epoch, policy: &PolicyTable) -> Standing {
        let slot = u16::try_from(slot).map(EndpointSlot);
        Standing {
            epoch,
            has_policy: slot.is_ok_and(|slot| policy.contains(slot)),
        }
    }
}

/// Everything the workers need to decide and to forward: immutable.
///
/// What seldom changes is shared between snapshots, so that one that changes policy only
/// ([`Snapshot::with_policy`]), or a clone, costs a look at each endpoint.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    generation: Generation,
    topology: Arc<Topology>,
    standings: Vec<Standing>,
    routes: Arc<RouteTable>,
    policy: Arc<PolicyTable>,
    services: Arc<ServiceTable>,
    settings: Settings,
}

impl Snapshot {
    /// The snapshot of `parts`.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub fn build(parts: Parts) -> Result<Snapshot, SnapshotError> {
        let topology = Topology::build(&parts.neighbours, &parts.node_addresses, &parts.gateways);
        let topology = topology.with_ends(parts.ports, parts.endpoints)?;
        for endpoint in topology.endpoints() {
            let epoch = parts.epochs.get(usize::from(endpoint.slot.0));
            if epoch.is_none_or(|epoch| *epoch == Epoch::NONE) {
                return Err(SnapshotError::NoIdentity(endpoint.slot));
            }
        }
        let epochs = parts.epochs.iter().enumerate();
        let standing = |(slot, epoch): (usize, &Epoch)| Standing::new(slot, *epoch, &parts.policy);
        Ok(Snapshot {
            generation: parts.generation,
            topology: Arc::new(topology),
            standings: epochs.map(standing).collect(),
            routes: parts.routes,
            policy: parts.policy,
            services: parts.services,
            settings: parts.settings,
        })
    }

    /// This snapshot with other policies: the endpoints in `changed` get the epoch of `generation`,
    /// so that their connections are decided again. All else stays and is shared, whatever its
    /// size; the cost is eight bytes and a look into the
    /// table for each endpoint.
    ///
    /// # Errors
    /// [`SnapshotError::NoIdentity`] if one of `changed` is no endpoint of this snapshot, or the
    /// generation makes no epoch.
    pub fn with_policy(
        &self,
        generation: Generation,
        policy: Arc<PolicyTable>,
        changed: impl IntoIterator<Item = EndpointSlot>,
    ) -> Result<Snapshot, SnapshotError> {
        let epoch = Epoch::from(generation);
        let before = self.standings.iter().enumerate();
        let standing =
            |(slot, before): (usize, &Standing)| Standing::new(slot, before.epoch, &policy);
        let mut standings: Vec<Standing> = before.map(standing).collect();
        for slot in changed {
            let is_known = self.topology.endpoint(slot).is_some() && epoch != Epoch::NONE;
            let known = standings.get_mut(usize::from(slot.0));
            known
                .filter(|_| is_known)
                .ok_or(SnapshotError::NoIdentity(slot))?
                .epoch = epoch;
        }
        Ok(Snapshot {
            generation,
            topology: Arc::clone(&self.topology),
            standings,
            routes: Arc::clone(&self.routes),
            policy,
            services: Arc::clone(&self.services),
            settings: self.settings,
        })
    }

    /// This snapshot with other Services. Its number stays: for a snapshot that has not been
    /// published yet.
    #[must_use]
    pub fn with_services(self, services: Arc<ServiceTable>) -> Snapshot {
        Snapshot { services, ..self }
    }

    /// Its number.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// When the compiled policy of the endpoint in `slot` last changed; [`Epoch::NONE`] if there is
    /// no such endpoint.
    #[inline]
    pub fn epoch(&self, slot: EndpointSlot) -> Epoch {
        self.standing(slot).epoch
    }

    /// Whether there is policy for the endpoint in `slot`: without it, nothing passes.
    #[inline]
    pub fn has_policy(&self, slot: EndpointSlot) -> bool {
        self.standing(slot).has_policy
    }

    #[inline]
    fn standing(&self, slot: EndpointSlot) -> Standing {
        let standing = self.standings.get(usize::from(slot.0));
        standing.copied().unwrap_or_default()
    }

    /// A port that may pass packets.
    #[inline]
    pub fn port(&self, id: PortId) -> Option<&Port> {
        self.topology.port(id)
    }

    /// The endpoint in `slot`.
    pub fn endpoint(&self, slot: EndpointSlot) -> Option<&Endpoint> {
        self.topology.endpoint(slot)
    }

    /// What forwarding needs to know of the endpoint in `slot`.
    #[inline]
    pub(crate) fn local(&self, slot: EndpointSlot) -> Option<&Local> {
        self.topology.local(slot)
    }

    /// What forwarding needs to know of the endpoint with `address`.
    #[inline]
    pub(crate) fn local_at(&self, address: Address) -> Option<&Local> {
        self.topology.local_at(address)
    }

    /// The local endpoint that has `address`.
    pub fn endpoint_at(&self, address: Address) -> Option<&Endpoint> {
        self.topology.endpoint_at(address)
    }

    /// All endpoints.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.topology.endpoints()
    }

    /// All ports.
    pub fn ports(&self) -> impl Iterator<Item = &Port> {
        self.topology.ports()
    }

    /// The Ethernet address of a next hop on `port`.
    pub fn neighbour(&self, port: PortId, address: Address) -> Option<Mac> {
        self.topology.neighbour(port, address)
    }

    /// Whether `address` is one of the node's own.
    pub fn is_node_address(&self, address: Address) -> bool {
        self.topology.is_node_address(address)
    }

    /// Whether `address` is a gateway that we answer for.
    pub fn is_gateway(&self, address: Address) -> bool {
        self.topology.is_gateway(address)
    }

    /// The routes.
    pub fn routes(&self) -> &RouteTable {
        &self.routes
    }

    /// The endpoints' compiled policies.
    pub fn policy(&self) -> &PolicyTable {
        &self.policy
    }

    /// The endpoints' compiled policies, to be kept.
    pub fn shared_policy(&self) -> Arc<PolicyTable> {
        Arc::clone(&self.policy)
    }

    /// The Services.
    #[inline]
    pub fn services(&self) -> &ServiceTable {
        &self.services
    }

    /// The Services, to be kept.
    pub fn shared_services(&self) -> Arc<ServiceTable> {
        Arc::clone(&self.services)
    }

    /// The choices.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}

/// A snapshot as it is shared.
pub type SharedSnapshot = Arc<Snapshot>;

#[cfg(test)]
mod tests {
    use super::*;

    const ENDPOINTS: u16 = 250;

    fn parts() -> Parts {
        let port = |slot: u16| Port {
            id: PortId(PortId::FIRST_FREE.0 + slot),
            role: Role::Pod,
            mac: Mac([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            is_virtual: true,
            icmp_source_v4: None,
            icmp_source_v6: None,
            endpoint: Some(EndpointSlot(slot)),
            peer_mac: None,
        };
        let endpoint = |slot: u16| Endpoint {
            slot: EndpointSlot(slot),
            incarnation: Incarnation(1 + u32::from(slot)),
            port: PortId(PortId::FIRST_FREE.0 + slot),
            mac: Mac([2, 0, 0, 0, 0, 2]),
            addresses: [Address::v4(0x0a00_0001 + u32::from(slot))]
                .into_iter()
                .collect(),
        };
        Parts {
            generation: Generation(7),
            ports: (0..ENDPOINTS).map(port).collect(),
            endpoints: (0..ENDPOINTS).map(endpoint).collect(),
            epochs: vec![Epoch(7); usize::from(ENDPOINTS)],
            ..Parts::default()
        }
    }

    #[test]
    fn a_snapshot_of_other_policy_shares_everything_else() {
        let first = Snapshot::build(parts()).unwrap();
        let policy = Arc::new(PolicyTable::default());
        let derive = || first.with_policy(Generation(9), Arc::clone(&policy), [EndpointSlot(3)]);
        let allocated = allocation_counter::measure(|| drop(derive()));
        assert_eq!(allocated.count_total, 1, "the standings");
        let next = derive().unwrap();
        assert!(Arc::ptr_eq(&first.topology, &next.topology));
        assert!(Arc::ptr_eq(&next.policy, &policy));
        assert_eq!(next.generation(), Generation(9));
        let epochs = |snapshot: &Snapshot| [2, 3].map(|slot| snapshot.epoch(EndpointSlot(slot)).0);
        assert_eq!((epochs(&first), epochs(&next)), ([7, 7], [7, 9]));
    }

    #[test]
    fn an_endpoint_that_is_not_there_has_no_epoch_and_gets_none() {
        let first = Snapshot::build(parts()).unwrap();
        let stranger = EndpointSlot(ENDPOINTS);
        assert_eq!(first.epoch(stranger), Epoch::NONE);
        let policy = Arc::new(PolicyTable::default());
        for (generation, slot) in [(9, stranger), (1 << 32, EndpointSlot(0))] {
            let refused = first.with_policy(Generation(generation), Arc::clone(&policy), [slot]);
            assert_eq!(refused.unwrap_err(), SnapshotError::NoIdentity(slot));
        }
        let mut without = parts();
        without.epochs.pop();
        let refused = Snapshot::build(without).unwrap_err();
        let last = EndpointSlot(ENDPOINTS - 1);
        assert_eq!(refused, SnapshotError::NoIdentity(last));
    }
}
