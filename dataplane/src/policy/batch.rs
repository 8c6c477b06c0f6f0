//! Many decisions at once.
//!
//! One decision is a chain of memory accesses that each wait for the one before: bucket, page,
//! shortcut, leaf, line, decision. The accesses of different decisions do not wait for each other,
//! so a batch takes every step for all of them before the next: the cache misses of one step
//! overlap.

use super::chain::CompiledChain;
use super::cidrs::Cidrs;
use super::numbers::NONE;
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
    /// On the line of ports.
    place: u32,
    /// Where the next step is to look; in the end the number of the decision.
    at: u32,
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
                place: ports::place(question.protocol, question.destination_port),
                at: 0,
            }
        });
        let lanes = &mut lanes[..questions.len().min(decisions.len())];
        let outside = self.find_members(questions, lanes);
        find_pieces(questions, lanes, outside);
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
                Some(class) => lane.at = class,
                None => outside |= 1 << i,
            }
        }
        outside
    }
}

/// Finds the classes of the lanes in `outside` by their chains' blocks.
#[inline]
fn find_pieces(questions: &[Question], lanes: &mut [Lane<'_>], outside: u32) {
    let mut step = |step: fn(&Cidrs, Address, u32) -> u32| {
        for (i, (lane, question)) in lanes.iter_mut().zip(questions).enumerate() {
            if let Some(chain) = lane.chain
                && outside & 1 << i != 0
            {
                lane.at = step(&chain.cidrs, question.peer, lane.at);
            }
        }
    };
    step(|cidrs, peer, _| cidrs.start(peer));
    step(|cidrs, peer, start| cidrs.class_from(peer, start));
}

/// Takes all lanes from their peers' classes to their decisions.
#[inline]
fn walk_lines(lanes: &mut [Lane<'_>]) {
    let mut further = 0_u32;
    for (i, lane) in lanes.iter_mut().enumerate() {
        let Some(chain) = lane.chain else { continue };
        match ports::step(&chain.lines, lane.at, lane.place) {
            Some(Step::Decision(decision)) => lane.at = decision,
            Some(Step::Node(node)) => {
                lane.at = node;
                further |= 1 << i;
            }
            None => lane.chain = None,
        }
    }
    while further != 0 {
        let mut still = 0;
        while further != 0 {
            let i = further.trailing_zeros();
            further &= further - 1;
            let lane = &mut lanes[i as usize];
            let Some(chain) = lane.chain else { continue };
            match ports::step(&chain.nodes, lane.at, lane.place) {
                Some(Step::Decision(decision)) => lane.at = decision,
                Some(Step::Node(node)) => {
                    lane.at = node;
                    still |= 1 << i;
                }
                None => lane.chain = None,
            }
        }
        further = still;
    }
}
