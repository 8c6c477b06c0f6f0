//! One chain as workers read it.

use std::sync::Arc;

use super::cidrs::Cidrs;
use super::ir::{Chain, PeerSetId};
use super::lines;
use super::nodes::{self, Nodes};
use super::numbers::NONE;
use super::packed::{self, Packed};
use super::paged::Paged;
use super::{Decision, Peer};

/// Everything that a chain answers: class of a peer → its line of ports → decision.
///
/// A peer has a class in one of two ways. If some of the chain's sets hold it, its number leads to
/// it; such a class knows which sets these are *and* which blocks hold the address. Everybody
/// else's class is that of [`Cidrs`], which come first in the numbering.
///
/// Immutable for whoever reads. A clone shares all pages, so that a change of one member's class
/// costs a directory and a page.
#[derive(Clone, Debug)]
pub(super) struct CompiledChain {
    pub(super) cidrs: Arc<Cidrs>,
    /// The class of each address that has a number; 0 if no set of the chain holds it.
    pub(super) by_number: Paged<u32, 256>,
    /// The root of each class's line.
    pub(super) lines: Nodes,
    /// What is below the roots.
    pub(super) nodes: Nodes,
    /// What lines name by number.
    pub(super) decisions: Arc<[Packed]>,
    /// Whether the line of a class that some address has drops anything.
    pub(super) may_deny: bool,
    /// For explanations: the class that blocks alone would give the addresses of a class, then which
    /// sets hold them, by place in `sets`; and what the chain was compiled from.
    pub(super) holding: Paged<Option<Arc<[u32]>>, 64>,
    pub(super) sets: Arc<[PeerSetId]>,
    pub(super) source: Arc<Chain>,
}

impl CompiledChain {
    /// The class that membership gives an address of this number; none if that is up to
    /// [`CompiledChain::cidrs`].
    #[inline]
    pub(super) fn class_of_member(&self, number: u32) -> Option<u32> {
        if number == NONE {
            return None;
        }
        self.by_number
            .get(number)
            .copied()
            .filter(|&class| class != 0)
    }

    /// The class of a peer.
    #[inline(always)]
    pub(super) fn class(&self, peer: &Peer) -> u32 {
        match self.class_of_member(peer.number) {
            Some(class) => class,
            None => self.cidrs.class(peer.address),
        }
    }

    /// The decision for a peer at a place on the line of ports. There always is one; none would
    /// mean that the chain is broken.
    #[inline(always)]
    pub(super) fn decide(&self, peer: &Peer, place: u32) -> Option<&Packed> {
        let root = self.lines.get(self.class(peer))?;
        nodes::walk(root, &self.nodes, &self.decisions, place)
    }

    /// Whether two classes have the same line, however it is told.
    pub(super) fn decides_alike(&self, one: u32, other: u32) -> bool {
        self.line(one) == self.line(other)
    }

    /// The line of a class, with the decisions themselves.
    fn line(&self, class: u32) -> Vec<(u32, Decision)> {
        let Some(root) = self.lines.get(class) else {
            return Vec::new();
        };
        let mut line: Vec<(u32, Decision)> = Vec::new();
        let mut first = 0;
        for (end, step) in root.stretches() {
            let mut stretches = Vec::new();
            match step.is_node() {
                true => lines::unfold(&self.nodes, step.number(), first, end, &mut stretches),
                false => stretches.push((end, step.number())),
            }
            for (last, number) in stretches {
                let found = match step.is_here() {
                    true => root.decision(step, &self.decisions),
                    false => self.decisions.get(number as usize),
                };
                match (line.last_mut(), found.map(packed::unpack)) {
                    (Some(before), Some(found)) if before.1 == found => before.0 = last,
                    (_, Some(found)) => line.push((last, found)),
                    // Not in a chain that is whole.
                    (_, None) => {}
                }
            }
            first = end + 1;
        }
        line
    }

    /// The chain's sets that hold a peer.
    pub(super) fn sets_that_hold(&self, peer: &Peer) -> Vec<PeerSetId> {
        let holding = self.holding.get(self.class(peer));
        let holding = holding.and_then(Option::as_deref).unwrap_or_default();
        let set = |&place: &u32| self.sets.get(place as usize).copied();
        holding.iter().skip(1).filter_map(set).collect()
    }

    /// Bytes on the heap without `cidrs` and `source`, which are shared.
    pub(super) fn bytes(&self) -> usize {
        self.by_number.bytes()
            + self.lines.bytes()
            + self.nodes.bytes()
            + self.holding.bytes()
            + size_of_val(&self.decisions[..])
    }
}
