//! Policy: what control hands over ([`ir`]), what turns it into tables ([`Compiler`]), and what
//! workers consult ([`PolicyTable`]).
//!
//! A decision is a function of endpoint, direction, peer address, protocol and port. [`naive`] is
//! that function as the rules read, one after another. The table computes the same without looking
//! at rules: those were painted onto lines of ports beforehand, one line for each *class* of peers
//! that all rules of a chain see alike.
//!
//! ```text
//!  slot, direction ──▶ chain                  the endpoint's rules; equal chains are one
//!
//!  peer address ──numbers──▶ number ──page──▶ class     it is in some set that the chain names
//!               └─cidrs: pieces────────────▶ class     else: which blocks hold it
//!
//!  class ──▶ line ──root, nodes──▶ decision             verdict, rule, counter
//!  protocol, port ──▶ place ──┘
//! ```
//!
//! Why it is right: two addresses of one class are in the same sets and the same blocks, so that
//! the same rules of the chain hold them, in the same order; and a line is those rules painted in
//! that order. Why it stays right: sets change often and rules seldom, so the class of a member is
//! an entry in an array, written when the member joins or leaves, while blocks and lines stay as
//! they are until a chain is compiled anew. Who reads has a snapshot: all that changes is in pages
//! that are copied when they are written ([`paged`]).
//!
//! What a look-up costs, and what there is in memory:
//!
//! | structure | a look-up reads | memory |
//! | --- | --- | --- |
//! | [`numbers`] | a bucket, 64 bytes; a member's address too | about 60 bytes an address in any set |
//! | members' classes ([`chain`]) | one entry of a page | 4 bytes for each address, in each chain with members near it |
//! | [`cidrs`], [`pieces`] | a shortcut and a leaf, 64 bytes (IPv6: 192); where prefixes crowd together, instead of the shortcut a node of a [`tree`] for each factor of 17 (IPv6: 9) | about 26 bytes (IPv6: 60) a prefix, once for all chains with equal lists |
//! | lines ([`nodes`], [`lines`]) | the root, 64 bytes, which holds what five rules for a port make, or what the class has beside the class around it; where that says nothing of the port, the nodes of the other class, 64 bytes for each level | 64 bytes for each class, in each chain, and for what does not fit there |
//! | decisions ([`packed`]) | none if it is in the root, as those of two rules are; else one, 12 bytes | one for each rule of each chain, and for each combination of counters on its lines |
//!
//! What counts is how many cache lines a look-up reads and how many there are of each kind: with
//! many rules they come from the third-level cache or from memory. So they are packed, and a batch
//! asks for them ahead.
//!
//! What a change costs: a member that joins or leaves a set, one class in each chain that names
//! the set; a new or changed chain, that chain. In numbers: `weir bench policy`.
//!
//! Bounds: a class of blocks holds the list of those that cover it, so n prefixes that all lie
//! within each other need n² numbers; a class of members that nobody has any more is forgotten
//! when there are more of these than others; [`compounds`] says how many counters of several rules
//! there can be.
//!
//! Read [`ir`], [`naive`]; then a look-up: [`tree`], [`pieces`], [`cidrs`], [`numbers`], [`ports`], [`nodes`],
//! [`packed`], [`chain`], [`table`], [`batch`]; then how it is made: [`spans`], [`paint`], [`rules`],
//! [`lines`], [`live`], [`members`], [`compounds`], [`compiler`]. [`explain`] says why a decision is what it is.

#![allow(rustdoc::private_intra_doc_links)] // A tour for readers of the source.

mod batch;
mod chain;
mod cidrs;
mod compiler;
mod compounds;
pub mod explain;
pub mod ir;
mod lines;
mod live;
mod members;
pub mod naive;
mod nodes;
mod numbers;
mod packed;
mod paged;
mod paint;
mod pieces;
mod ports;
mod reach;
mod rules;
mod spans;
mod spoken;
mod table;
#[cfg(test)]
mod tests;
mod tree;

pub use batch::{BATCH, Question};
pub use compiler::Compiler;
pub use compounds::{Combination, Compounds};
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
    /// The counter of the rule that decided, or of the policy that denied by default; where other
    /// rules let it come so far, the compound one of all of them ([`Compounds`]).
    /// [`CounterId::NONE`] where no rule had a part in it.
    pub counter: CounterId,
}

impl Decision {
    /// What stands where nobody has decided yet: nothing passes.
    pub(crate) const UNDECIDED: Decision = table::unknown_endpoint(crate::Direction::Egress);
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

impl Slot {
    /// All of its chains.
    fn chains(&self) -> impl Iterator<Item = ChainId> {
        let audit = self.audit.into_iter().flatten();
        self.enforced.into_iter().chain(audit)
    }
}
