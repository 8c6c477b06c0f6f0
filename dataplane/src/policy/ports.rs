//! What is left to decide once the peer is known: protocol and port to verdict.
//!
//! Protocols and ports lie on one line: 65,536 places each for TCP, UDP and SCTP, and one last
//! stretch for everything that has no port. A [`PortMap`] is that line cut into stretches of one
//! verdict each. Building one paints the rules onto the line in order of evaluation; a place
//! once painted keeps its colour, which is what "the first match decides" means.

use hashbrown::HashMap;

use super::ir::{Action, PortRange, Ports, Rule};
use super::naive;
use crate::{Direction, PolicyId, Protocol, Tier, Verdict};

/// The protocols with ports, in the order of their stretches.
const WITH_PORTS: [Protocol; 3] = [Protocol::TCP, Protocol::UDP, Protocol::SCTP];

/// The place of everything that has no port.
const NO_PORT: u32 = (WITH_PORTS.len() as u32) << 16;

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
    /// Where each line's stretches start in `starts` and `verdicts`, and one after the last.
    lines: Vec<u32>,
    /// The place where a stretch starts; a line's first is 0.
    starts: Vec<u32>,
    /// The stretch's verdict.
    verdicts: Vec<Verdict>,
}

impl PortMaps {
    /// The verdict at one place of one line; none for a line that does not exist.
    pub(super) fn verdict(
        &self,
        map: PortMap,
        protocol: Protocol,
        port: Option<u16>,
    ) -> Option<Verdict> {
        let line = map.0 as usize;
        let first = *self.lines.get(line)? as usize;
        let end = *self.lines.get(line + 1)? as usize;
        let place = place(protocol, port);
        let stretch = self.starts[first..end].partition_point(|&start| start <= place) - 1;
        self.verdicts.get(first + stretch).copied()
    }

    /// Whether some place of the line drops.
    pub(super) fn may_deny(&self, map: PortMap) -> bool {
        let line = map.0 as usize;
        let (first, end) = (self.lines[line] as usize, self.lines[line + 1] as usize);
        self.verdicts[first..end].iter().any(|v| !v.accept)
    }

    /// How many lines there are.
    pub(super) fn count(&self) -> usize {
        self.lines.len().saturating_sub(1)
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        (self.lines.len() + self.starts.len()) * size_of::<u32>()
            + self.verdicts.len() * size_of::<Verdict>()
    }
}

/// Builds [`PortMaps`].
#[derive(Default)]
pub(super) struct PortMapsBuilder {
    maps: PortMaps,
    known: HashMap<Box<[(u32, Verdict)]>, PortMap>,
}

impl PortMapsBuilder {
    /// The line for `rules`: those of one chain that match the peer, in order of evaluation.
    ///
    /// `isolating` is the first policy that isolates; without one, NetworkPolicy rules do not
    /// count.
    pub(super) fn build(
        &mut self,
        direction: Direction,
        isolating: Option<PolicyId>,
        rules: &[&Rule],
    ) -> PortMap {
        let line = Paint::new(rules).finish(direction, isolating, rules);
        if let Some(&map) = self.known.get(line.as_slice()) {
            return map;
        }
        let maps = &mut self.maps;
        if maps.lines.is_empty() {
            maps.lines.push(0);
        }
        let map = PortMap(maps.count() as u32);
        maps.starts.extend(line.iter().map(|&(start, _)| start));
        maps.verdicts
            .extend(line.iter().map(|&(_, verdict)| verdict));
        maps.lines.push(maps.starts.len() as u32);
        self.known.insert(line.into_boxed_slice(), map);
        map
    }

    /// What was built so far.
    pub(super) fn maps(&self) -> &PortMaps {
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
    /// The verdict of each piece between two cuts, once decided.
    verdicts: Vec<Option<Verdict>>,
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
            verdicts: vec![None; pieces],
            next: Vec::new(),
        }
    }

    /// Paints tier after tier; the stretches of equal verdict, by start.
    fn finish(
        mut self,
        direction: Direction,
        isolating: Option<PolicyId>,
        rules: &[&Rule],
    ) -> Vec<(u32, Verdict)> {
        self.paint_tier(direction, Tier::Admin, rules);
        if let Some(policy) = isolating {
            self.paint_tier(direction, Tier::NetworkPolicy, rules);
            self.fill(naive::isolated(direction, policy));
        }
        self.paint_tier(direction, Tier::Baseline, rules);
        self.fill(Verdict::default_accept(direction));

        let pieces = self.cuts.iter().copied().zip(self.verdicts);
        let mut line: Vec<(u32, Verdict)> = pieces
            .filter_map(|(start, verdict)| Some((start, verdict?)))
            .collect();
        line.dedup_by(|next, kept| next.1 == kept.1);
        line
    }

    /// Paints the rules of one tier, the earlier over the later.
    fn paint_tier(&mut self, direction: Direction, tier: Tier, rules: &[&Rule]) {
        self.open_undecided();
        for rule in rules.iter().filter(|rule| rule.tier == tier) {
            // A pass closes the piece for this tier and leaves it undecided for the next.
            let pass = rule.action == Action::Pass && tier != Tier::NetworkPolicy;
            let verdict = (!pass).then(|| naive::by_rule(rule, direction));
            match &rule.ports {
                Ports::Any => self.paint(0, END, verdict),
                Ports::List(ranges) => {
                    for (first, end) in ranges.iter().filter_map(places) {
                        self.paint(first, end, verdict);
                    }
                }
            }
        }
    }

    /// Lets the next tier paint whatever is undecided.
    fn open_undecided(&mut self) {
        let pieces = self.verdicts.len() as u32;
        let opened = |piece: u32| match self.verdicts[piece as usize] {
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

    /// Closes the open pieces among the places from `first` to `end` with `verdict`.
    fn paint(&mut self, first: u32, end: u32, verdict: Option<Verdict>) {
        let first = self.cuts.partition_point(|&cut| cut < first);
        let mut piece = self.open_from(first);
        while self.cuts[piece] < end {
            self.verdicts[piece] = verdict;
            self.next[piece] = piece as u32 + 1;
            piece = self.open_from(piece + 1);
        }
    }

    /// Gives `verdict` to whatever is undecided.
    fn fill(&mut self, verdict: Verdict) {
        for piece in &mut self.verdicts {
            piece.get_or_insert(verdict);
        }
    }
}
