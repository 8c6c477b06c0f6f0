//! What is left to decide once the peer is known: protocol and port to verdict.
//!
//! Protocols and ports lie on one line: 65,536 places each for TCP, UDP and SCTP, and one last
//! stretch for everything that has no port. A [`PortMap`] is that line cut into stretches, each
//! decided by one rule or by none. It knows neither direction nor who isolates, so that chains
//! share it. Building one paints the rules onto the line in order of evaluation; a place
//! once painted keeps its colour, which is what "the first match decides" means.

use hashbrown::HashMap;

use super::Decision;
use super::ir::{Action, Chain, PortRange, Ports, Rule};
use super::naive;
use crate::{Direction, Protocol, Tier};

/// The protocols with ports, in the order of their stretches.
const WITH_PORTS: [Protocol; 3] = [Protocol::TCP, Protocol::UDP, Protocol::SCTP];

/// The place of everything that has no port.
const NO_PORT: u32 = (WITH_PORTS.len() as u32) << 16;

/// Rule numbers that the memory of lines already built may hold (4 bytes each).
const REMEMBERED_NUMBERS: usize = 1 << 22;

/// One after the last place.
const END: u32 = NO_PORT + 1;

/// The place of a packet on the line.
fn place(protocol: Protocol, port: Option<u16>) -> u32 {
    match (stretch(protocol), port) {
        (Some(stretch), Some(port)) => stretch | u32::from(port),
        _ => NO_PORT,
    }
}

/// Where a protocol's ports start.
fn stretch(protocol: Protocol) -> Option<u32> {
    let index = WITH_PORTS.iter().position(|&p| p == protocol)?;
    Some((index as u32) << 16)
}

/// The places of a range of ports, first and one after the last; none if nothing can match it.
fn places(range: &PortRange) -> Option<(u32, u32)> {
    let start = stretch(range.protocol)?;
    (range.first <= range.last).then(|| {
        let (first, last) = (u32::from(range.first), u32::from(range.last));
        (start + first, start + last + 1)
    })
}

/// Whether nothing matches `ports`.
pub(super) fn is_empty(ports: &Ports) -> bool {
    match ports {
        Ports::Any => false,
        Ports::List(ranges) => ranges.iter().all(|range| places(range).is_none()),
    }
}

/// The number of a line in [`PortMaps`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PortMap(pub(super) u32);

/// All lines, equal ones once.
#[derive(Debug, Default)]
pub(super) struct PortMaps {
    /// Where each line's stretches start in `starts` and `decisions`, and one after the last.
    lines: Vec<u32>,
    /// The place where a stretch starts; a line's first is 0.
    starts: Vec<u32>,
    /// The stretch's decision.
    decisions: Vec<Decision>,
}

impl PortMaps {
    /// The decision at one place of one line; none for a line that does not exist.
    pub(super) fn decision(
        &self,
        map: PortMap,
        protocol: Protocol,
        port: Option<u16>,
    ) -> Option<Decision> {
        let line = map.0 as usize;
        let first = *self.lines.get(line)? as usize;
        let end = *self.lines.get(line + 1)? as usize;
        let place = place(protocol, port);
        let stretch = self.starts[first..end].partition_point(|&start| start <= place) - 1;
        self.decisions.get(first + stretch).copied()
    }

    /// Whether some place of the line drops.
    pub(super) fn may_deny(&self, map: PortMap) -> bool {
        let line = map.0 as usize;
        let (first, end) = (self.lines[line] as usize, self.lines[line + 1] as usize);
        self.decisions[first..end].iter().any(|d| !d.verdict.accept)
    }

    /// How many lines there are.
    pub(super) fn count(&self) -> usize {
        self.lines.len().saturating_sub(1)
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        (self.lines.len() + self.starts.len()) * size_of::<u32>()
            + self.decisions.len() * size_of::<Decision>()
    }
}

/// A line by its stretches: where each starts and who decides.
type Line = Box<[(u32, Decision)]>;

/// Builds [`PortMaps`].
#[derive(Default)]
pub(super) struct PortMapsBuilder {
    maps: PortMaps,
    by_line: HashMap<Line, PortMap>,
    /// Lines by the numbers of the rules they were built from, in order: a memory that saves
    /// painting again and may be emptied at any time.
    by_rules: HashMap<Box<[u32]>, PortMap>,
    /// Numbers in the keys of `by_rules`.
    remembered: usize,
}

impl PortMapsBuilder {
    /// Begins another chain: what was remembered for the last one does not hold for it.
    pub(super) fn begin(&mut self) {
        self.by_rules.clear();
        self.remembered = 0;
    }

    /// The line for the rules of `chain` that match a peer, in order of evaluation: their numbers,
    /// equal for equal rules only, and the rule of each.
    pub(super) fn build<'a>(
        &mut self,
        direction: Direction,
        chain: &Chain,
        numbers: &[u32],
        rules: impl Iterator<Item = &'a Rule>,
    ) -> PortMap {
        if let Some(&map) = self.by_rules.get(numbers) {
            return map;
        }
        let rules: Vec<&Rule> = rules.collect();
        let map = self.intern(Paint::new(&rules).finish(direction, chain, &rules));
        self.remembered += numbers.len();
        if self.remembered > REMEMBERED_NUMBERS {
            self.by_rules.clear();
            self.remembered = numbers.len();
        }
        self.by_rules.insert(numbers.into(), map);
        map
    }

    fn intern(&mut self, line: Line) -> PortMap {
        if let Some(&map) = self.by_line.get(&line) {
            return map;
        }
        let maps = &mut self.maps;
        if maps.lines.is_empty() {
            maps.lines.push(0);
        }
        let map = PortMap(maps.count() as u32);
        maps.starts.extend(line.iter().map(|&(start, _)| start));
        maps.decisions.extend(line.iter().map(|&(_, by)| by));
        maps.lines.push(maps.starts.len() as u32);
        self.by_line.insert(line, map);
        map
    }

    /// What was built so far.
    pub(super) const fn maps(&self) -> &PortMaps {
        &self.maps
    }

    /// What was built.
    pub(super) fn finish(self) -> PortMaps {
        self.maps
    }
}

/// A line while rules are painted onto it.
struct Paint {
    /// The line cut wherever a rule's ports begin or end; the first cut is 0, the last [`END`].
    cuts: Vec<u32>,
    /// The decision for each piece between two cuts, once there is one.
    decisions: Vec<Option<Decision>>,
    /// For each piece the nearest one, from itself onwards, that may still be painted in this
    /// tier: a forest of jumps, shortened as it is walked, so that no piece is painted twice.
    next: Vec<u32>,
}

impl Paint {
    /// The bare line, cut for `rules`.
    fn new(rules: &[&Rule]) -> Paint {
        let mut cuts = vec![0, END];
        for rule in rules {
            if let Ports::List(ranges) = &rule.ports {
                let ends = ranges.iter().filter_map(places);
                cuts.extend(ends.flat_map(|(first, end)| [first, end]));
            }
        }
        cuts.sort_unstable();
        cuts.dedup();
        let pieces = cuts.len() - 1;
        Paint {
            cuts,
            decisions: vec![None; pieces],
            next: Vec::new(),
        }
    }

    /// Paints tier after tier, and behind each what its tier does by default.
    fn finish(mut self, direction: Direction, chain: &Chain, rules: &[&Rule]) -> Line {
        let defaults = [
            (Tier::SecurityGroup, chain.bound.first()),
            (Tier::Admin, None),
            (Tier::NetworkPolicy, chain.isolating.first()),
            (Tier::Baseline, None),
        ];
        for (tier, default) in defaults {
            self.open_undecided();
            for rule in rules.iter().filter(|rule| rule.tier == tier) {
                self.paint_rule(rule, direction);
            }
            if let Some(&first) = default {
                self.paint(0, END, Some(naive::by_default(first, tier, direction)));
            }
        }
        let accepted = naive::accepted(direction);
        let pieces = self.cuts.iter().copied().zip(self.decisions);
        let mut line: Vec<_> = pieces
            .map(|(start, decision)| (start, decision.unwrap_or(accepted)))
            .collect();
        line.dedup_by(|next, kept| next.1 == kept.1);
        line.into_boxed_slice()
    }

    /// Paints a rule under the earlier ones of its tier. A pass closes a piece for this tier and
    /// leaves it undecided for the next, and so does a match in a security group.
    fn paint_rule(&mut self, rule: &Rule, direction: Direction) {
        let passes = match rule.tier {
            Tier::SecurityGroup => true,
            Tier::NetworkPolicy => false,
            _ => rule.action == Action::Pass,
        };
        let decision = (!passes).then_some(naive::by_rule(rule, direction));
        match &rule.ports {
            Ports::Any => self.paint(0, END, decision),
            Ports::List(ranges) => {
                for (first, end) in ranges.iter().filter_map(places) {
                    self.paint(first, end, decision);
                }
            }
        }
    }

    /// Lets the next tier paint whatever is undecided.
    fn open_undecided(&mut self) {
        let pieces = self.decisions.len() as u32;
        let opened = |piece: u32| match self.decisions[piece as usize] {
            None => piece,
            Some(_) => piece + 1,
        };
        self.next = (0..pieces).map(opened).chain([pieces]).collect();
    }

    /// The first piece from `piece` onwards that may still be painted; the count if none is.
    fn open_from(&mut self, mut piece: usize) -> usize {
        while self.next[piece] as usize != piece {
            let skip = self.next[self.next[piece] as usize];
            self.next[piece] = skip;
            piece = skip as usize;
        }
        piece
    }

    /// Closes the open pieces among the places from `first` to `end` with `decision`.
    fn paint(&mut self, first: u32, end: u32, decision: Option<Decision>) {
        let first = self.cuts.partition_point(|&cut| cut < first);
        let mut piece = self.open_from(first);
        while self.cuts[piece] < end {
            self.decisions[piece] = decision;
            self.next[piece] = piece as u32 + 1;
            piece = self.open_from(piece + 1);
        }
    }
}
