//! Policy: what control hands over ([`ir`]) and what workers consult ([`PolicyTable`]).
//!
//! A verdict is a function of endpoint, direction, peer address, protocol and port. [`naive`] is
//! that function as the rules read. The table computes the same in three look-ups, each with its
//! own small structure:
//!
//! ```text
//!  peer address ──classes──▶ class             which prefixes of all rules hold the address
//!  endpoint, direction ────▶ chain             equal chains once
//!  chain, class ────row────▶ port map          the chain's rules for that peer, in order
//!  port map, protocol, port ─ports─▶ verdict   with the rule that decided
//! ```
//!
//! Read [`ir`], [`naive`], `spans`, `classes`, `ports`, `row`, `compile` in this order; [`explain`]
//! says why a verdict is what it is.

mod batch;
mod chain;
mod cidrs;
mod compiler;
pub mod explain;
pub mod ir;
mod live;
mod members;
pub mod naive;
mod numbers;
mod paged;
mod paint;
mod ports;
mod rules;
mod spans;
mod spoken;
mod table;
#[cfg(test)]
mod tests;
mod tree;

pub use batch::{BATCH, Question};
pub use compiler::Compiler;
pub use explain::{Consulted, Explanation, PeerMatch, PortMatch, RuleMatch};
pub use spoken::Spoken;
pub use table::{Footprint, PolicyTable};

use crate::{Address, CounterId, Verdict};

/// A local endpoint's place in the tables of one snapshot: small and dense, so that tables are
/// arrays.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EndpointSlot(pub u16);

/// What a [`PolicyTable`] knows of an address.
///
/// Means something only to the table whose [`PolicyTable::peer`] made it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Peer {
    address: Address,
    number: u32,
}

/// A verdict, and who counts it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Decision {
    /// What becomes of the flow.
    pub verdict: Verdict,
    /// The counter of the rule that decided, or of the policy that denied by default;
    /// [`CounterId::NONE`] where nobody decided.
    pub counter: CounterId,
}

/// A [`Compiler`]'s number of a chain.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ChainId(u32);

/// The chains of one local endpoint, each pair by [`Direction`](crate::Direction): egress, ingress.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot {
    /// What is enforced.
    pub enforced: [ChainId; 2],
    /// What would be if policies in audit mode were enforced too, where that differs.
    pub audit: Option<[ChainId; 2]>,
}
