//! Many decisions at once.
//!
//! One decision is a chain of memory accesses that each wait for the one before: bucket, page,
//! level after level of a tree, line, decision. The accesses of different decisions do not wait
//! for each other, so a batch takes every step for all of them before the next: the cache misses
//! of one step overlap.

use super::chain::CompiledChain;
use super::cidrs::Walk;
use super::numbers::{NONE, Probe};
use super::ports::{self, Step};
use super::table::{PolicyTable, unknown_endpoint};
use super::{Decision, EndpointSlot};
use crate::{Address, Direction, Protocol};

/// Decisions that go through the steps together.
pub const BATCH: usize = 32;

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
    probe: Probe,
    walk: Walk,
    /// The peer's class, once it is known.
    class: u32,
    /// The node that is looked at next, then the number of the decision.
    at: u32,
    place: u32,
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
        let mut lanes: [Lane<'_>; BATCH] = std::array::from_fn(|i| {
            let question = questions.get(i).unwrap_or(&questions[0]);
            Lane {
                chain: self.chain(question.slot, question.direction),
                probe: self.numbers.probe(question.peer),
                walk: Walk::new(question.peer),
                class: 0,
                at: 0,
                place: ports::place(question.protocol, question.destination_port),
            }
        });
        let lanes = &mut lanes[..questions.len().min(decisions.len())];
        let outside = self.find_members(questions, lanes);
        walk_blocks(lanes, outside);
        for lane in lanes.iter_mut() {
            let root = lane.chain.and_then(|chain| chain.roots.get(lane.class));
            match root {
                Some(&root) => lane.at = root,
                None => lane.chain = None,
            }
        }
        walk_lines(lanes);
        for ((lane, decision), question) in lanes.iter().zip(decisions).zip(questions) {
            let found = lane
                .chain
                .and_then(|chain| chain.decisions.get(lane.at as usize));
            *decision = match found {
                Some(&found) => found,
                None => unknown_endpoint(question.direction),
            };
        }
    }

    /// Finds the classes of peers in sets. Returns the lanes that have none yet, one bit each.
    #[inline]
    fn find_members(&self, questions: &[Question], lanes: &mut [Lane<'_>]) -> u32 {
        if self.numbers.is_empty() {
            return u32::MAX;
        }
        let mut numbers = [NONE; BATCH];
        for ((number, lane), question) in numbers.iter_mut().zip(&*lanes).zip(questions) {
            *number = self.numbers.find(question.peer, lane.probe);
        }
        let mut outside = 0;
        for (i, lane) in lanes.iter_mut().enumerate() {
            let class = lane
                .chain
                .and_then(|chain| chain.class_of_member(numbers[i]));
            match class {
                Some(class) => lane.class = class,
                None => outside |= 1 << i,
            }
        }
        outside
    }
}

/// Finds the classes of the lanes in `outside` by their chains' blocks.
#[inline]
fn walk_blocks(lanes: &mut [Lane<'_>], outside: u32) {
    let is_outside = |i: usize| outside & 1 << i != 0;
    let depth = |lane: &Lane<'_>| lane.chain.map_or(0, |chain| chain.cidrs.depth());
    let depth = lanes.iter().map(depth).max().unwrap_or(0);
    for level in 0..depth {
        for (i, lane) in lanes.iter_mut().enumerate() {
            if let Some(chain) = lane.chain
                && is_outside(i)
            {
                chain.cidrs.step(level, &mut lane.walk);
            }
        }
    }
    for (i, lane) in lanes.iter_mut().enumerate() {
        if let Some(chain) = lane.chain
            && is_outside(i)
        {
            lane.class = chain.cidrs.arrive(&lane.walk);
        }
    }
}

/// Takes all lanes from the roots of their lines to their decisions.
#[inline]
fn walk_lines(lanes: &mut [Lane<'_>]) {
    let mut walking = u32::MAX;
    while walking != 0 {
        let mut further = 0;
        for (i, lane) in lanes.iter_mut().enumerate() {
            let Some(chain) = lane.chain.filter(|_| walking & 1 << i != 0) else {
                continue;
            };
            match ports::step(&chain.nodes, lane.at, lane.place) {
                Some(Step::Node(node)) => {
                    lane.at = node;
                    further |= 1 << i;
                }
                Some(Step::Decision(decision)) => lane.at = decision,
                None => lane.chain = None,
            }
        }
        walking = further;
    }
}
