//! Many decisions at once.
//!
//! One decision is a chain of memory accesses that each wait for the one before: bucket, page,
//! shortcut, leaf, root. The accesses of different decisions do not wait for each other, so a batch
//! takes every step for all of them before the next, and each step asks for what the next one reads:
//! the cache misses of all overlap. Where what a step has read says this as often as that, it goes on
//! without a branch: one that was guessed wrong is known when the miss is over, and whatever was begun
//! behind it is thrown away.

use arrayvec::ArrayVec;

use super::chain::CompiledChain;
use super::nodes::Node;
use super::numbers::NONE;
use super::packed::{self, Packed};
use super::ports;
use super::table::{PolicyTable, unknown_endpoint};
use super::{Decision, EndpointSlot};
use crate::shm::prefetch;
use crate::{Address, Direction, Protocol};

/// Decisions that go through the steps together.
pub const BATCH: usize = 64;

/// What [`PolicyTable::decide`] is asked, once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Question {
    /// The endpoint whose policy is asked.
    pub slot: EndpointSlot,
    /// Of its traffic in this direction.
    pub direction: Direction,
    /// The other end.
    pub peer: Address,
    /// The protocol.
    pub protocol: Protocol,
    /// The destination's port; counts for protocols with ports.
    pub destination_port: Option<u16>,
}

/// A question on its way.
#[derive(Clone, Copy)]
struct Lane<'t> {
    chain: Option<&'t CompiledChain>,
    /// On the line of ports.
    place: u32,
    /// Where the search in the blocks is to go on; then the class; then the number of the node that
    /// comes after this one, if one does.
    at: u32,
    node: Option<&'t Node>,
    /// The decision in the end.
    found: Option<&'t Packed>,
}

impl Lane<'_> {
    /// Finds the root of the class's line.
    #[inline]
    fn find_root(&mut self) {
        self.node = self.chain.and_then(|chain| chain.lines.get(self.at));
        if let Some(root) = self.node {
            prefetch(root);
        }
    }

    /// Reads a node. Says whether there is another one to be read.
    #[inline]
    fn step(&mut self) -> bool {
        let (Some(chain), Some(node)) = (self.chain, self.node) else {
            // Whatever was found before this was not the decision.
            self.found = None;
            return false;
        };
        let step = node.step(self.place);
        self.at = step.number();
        self.found = node.decision(step, &chain.decisions);
        if let Some(found) = self.found {
            prefetch(found);
        }
        step.is_node()
    }
}

impl PolicyTable {
    /// What [`PolicyTable::decide`] says to each question. Answers as many as both slices have;
    /// best are [`BATCH`] or a multiple of it.
    pub fn decide_batch(&self, questions: &[Question], decisions: &mut [Decision]) {
        let batches = questions.chunks(BATCH).zip(decisions.chunks_mut(BATCH));
        for (questions, decisions) in batches {
            self.decide_lanes(questions, decisions);
        }
    }

    fn decide_lanes(&self, questions: &[Question], decisions: &mut [Decision]) {
        let lanes = questions
            .iter()
            .zip(decisions.iter())
            .map(|(question, _)| Lane {
                chain: self.chain(question.slot, question.direction),
                place: ports::place(question.protocol, question.destination_port),
                at: 0,
                node: None,
                found: None,
            });
        let mut kept: ArrayVec<Lane<'_>, BATCH> = ArrayVec::new_const();
        kept.extend(lanes.take(BATCH));
        let lanes = &mut kept[..];
        let outside = self.find_members(questions, lanes);
        find_pieces(questions, lanes, outside);
        walk_lines(lanes);
        for ((lane, decision), question) in lanes.iter().zip(decisions).zip(questions) {
            *decision = match lane.found {
                Some(found) => packed::unpack(found),
                None => unknown_endpoint(question.direction),
            };
        }
    }

    /// Finds the classes of peers in sets. Returns the lanes that have none yet, one bit each.
    #[inline]
    fn find_members(&self, questions: &[Question], lanes: &mut [Lane<'_>]) -> u64 {
        if self.numbers.is_empty() {
            return u64::MAX;
        }
        let mut numbers = [NONE; BATCH];
        let probe = |question: &Question| self.numbers.probe(question.peer);
        let mut probes = [self.numbers.probe(Address(0)); BATCH];
        for (known, question) in probes.iter_mut().zip(questions) {
            *known = probe(question);
        }
        for ((number, probe), question) in numbers.iter_mut().zip(probes).zip(questions) {
            *number = self.numbers.find(question.peer, probe);
        }
        let mut outside = 0;
        for (i, lane) in lanes.iter_mut().enumerate() {
            let class = lane
                .chain
                .and_then(|chain| chain.class_of_member(numbers[i]));
            match class {
                Some(class) => {
                    lane.at = class;
                    lane.find_root();
                }
                None => outside |= 1 << i,
            }
        }
        outside
    }
}

/// Finds the classes of the lanes in `outside` by their chains' blocks.
#[inline]
fn find_pieces(questions: &[Question], lanes: &mut [Lane<'_>], outside: u64) {
    for (i, (lane, question)) in lanes.iter_mut().zip(questions).enumerate() {
        if let Some(chain) = lane.chain
            && outside & 1 << i != 0
        {
            lane.at = chain.cidrs.start(question.peer);
        }
    }
    for (i, (lane, question)) in lanes.iter_mut().zip(questions).enumerate() {
        if let Some(chain) = lane.chain
            && outside & 1 << i != 0
        {
            lane.at = chain.cidrs.class_from(question.peer, lane.at);
            lane.find_root();
        }
    }
}

/// Takes all lanes from their lines' roots to their decisions.
#[inline]
fn walk_lines(lanes: &mut [Lane<'_>]) {
    let mut below = 0_u64;
    for (i, lane) in lanes.iter_mut().enumerate() {
        below |= u64::from(lane.step()) << i;
    }
    while below != 0 {
        for i in bits(below) {
            let lane = &mut lanes[i];
            lane.node = lane.chain.and_then(|chain| chain.nodes.get(lane.at));
            lane.node.into_iter().for_each(prefetch);
        }
        for i in bits(below) {
            let still = lanes[i].step();
            below ^= u64::from(!still) << i;
        }
    }
}

/// The places of the bits that are set.
fn bits(mut bits: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let next = bits.trailing_zeros();
        bits &= bits.wrapping_sub(1);
        (next < u64::BITS).then_some(next as usize)
    })
}
