//! Everything the control thread tells the workers: immutable, numbered, adopted per burst.

use std::sync::Arc;

/// The number of a snapshot: persisted, rising, never used for another snapshot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Generation(pub u64);

/// The low 32 bits of the generation at which one endpoint's compiled policy last changed.
///
/// Conntrack entries carry the epochs of both ends. Compared by wrapping distance
/// ([`Epoch::is_newer_than`]), so that they may wrap around.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Epoch(pub u32);

impl Epoch {
    /// The epoch of an end that is no local endpoint: never newer than anything.
    pub const NONE: Epoch = Epoch(0);

    /// Whether this epoch came after `other` (RFC 1982 serial number arithmetic).
    pub const fn is_newer_than(self, other: Epoch) -> bool {
        (self.0.wrapping_sub(other.0) as i32) > 0
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

/// Placeholder for the policy workstream: the fields arrive with `policy`, `route` and `pipeline`.
#[derive(Debug)]
pub struct Snapshot {
    /// Its number.
    pub generation: Generation,
}

/// A snapshot as it is shared.
pub type SharedSnapshot = Arc<Snapshot>;
