//! Policy: what control hands over ([`ir`]) and what workers consult ([`PolicyTable`]).

pub mod explain;
pub mod ir;
pub mod naive;
mod table;

pub use explain::{Consulted, Explanation, PeerMatch, PortMatch, RuleMatch};
pub use table::PolicyTable;

/// A local endpoint's place in the tables of one snapshot: small and dense, so that tables are
/// arrays.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EndpointSlot(pub u16);

/// What a [`PolicyTable`] knows of an address: which peers of which rules hold it.
///
/// Means something only to the table whose [`PolicyTable::classify`] made it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PeerClass(pub(crate) crate::Address);
