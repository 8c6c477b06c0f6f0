//! What is left to decide once the peer is known: protocol and port to decision.
//!
//! Protocols and ports lie on one line: 65,536 places each for TCP, UDP and SCTP, and one last
//! place for everything that has no port. A class of peers has that line cut into stretches, each
//! with one decision. It is kept as a small search tree of [`Node`]s of eight stretches; most lines
//! are one node, one cache line.
//!
//! Equal nodes are kept once, from the leaves upwards, so that equal lines have the same root: to
//! compare two lines is to compare two numbers.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::ir::{PortRange, Ports};
use super::paged::Paged;
use crate::Protocol;

/// The protocols with ports, in the order of their stretches.
const WITH_PORTS: [Protocol; 3] = [Protocol::TCP, Protocol::UDP, Protocol::SCTP];

/// The place of everything that has no port.
const NO_PORT: u32 = (WITH_PORTS.len() as u32) << 16;

/// One after the last place.
pub(super) const END: u32 = NO_PORT + 1;

/// Stretches of one node.
const WIDTH: usize = 8;

/// Marks a node's value as the number of a node below it.
const BELOW: u32 = 1 << 31;

/// The place of a packet on the line.
#[inline]
pub(super) fn place(protocol: Protocol, port: Option<u16>) -> u32 {
    let port = port.map(u32::from);
    match (protocol, port) {
        (Protocol::TCP, Some(port)) => port,
        (Protocol::UDP, Some(port)) => 1 << 16 | port,
        (Protocol::SCTP, Some(port)) => 2 << 16 | port,
        _ => NO_PORT,
    }
}

/// The places that `ports` holds: firsts and one after the lasts. Ranges that nothing can match
/// are left out.
pub(super) fn places(ports: &Ports) -> Vec<(u32, u32)> {
    let of = |range: &PortRange| {
        let start = WITH_PORTS.iter().position(|&p| p == range.protocol)?;
        let start = (start as u32) << 16;
        (range.first <= range.last).then(|| {
            (
                start + u32::from(range.first),
                start + u32::from(range.last) + 1,
            )
        })
    };
    match ports {
        Ports::Any => vec![(0, END)],
        Ports::List(ranges) => ranges.iter().filter_map(of).collect(),
    }
}

/// Up to eight stretches of a line, or eight nodes that have them: one cache line.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(align(64))]
pub(super) struct Node {
    /// The last place of each stretch but the last one; the rest is filled up.
    lasts: [i32; WIDTH],
    /// For each stretch the number of its decision, or of the node below with [`BELOW`].
    values: [u32; WIDTH],
}

impl Node {
    /// The value of the stretch that holds `place`.
    #[inline]
    fn value(&self, place: u32) -> u32 {
        let place = place as i32;
        let before: usize = self.lasts.iter().map(|&l| usize::from(l < place)).sum();
        // The last of the lasts is never used, so `before` is below eight.
        self.values[before % WIDTH]
    }
}

impl Default for Node {
    fn default() -> Node {
        Node {
            lasts: [i32::MAX; WIDTH],
            values: [0; WIDTH],
        }
    }
}

/// The nodes of one chain's lines, for look-ups: 64 bytes each.
pub(super) type Nodes = Paged<Node, 64>;

/// Where a walk from a line's root goes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// To another node.
    Node(u32),
    /// It has arrived at the number of a decision.
    Decision(u32),
}

/// One step of a walk; none where there is no such node.
#[inline]
pub(super) fn step(nodes: &Nodes, node: u32, place: u32) -> Option<Step> {
    let value = nodes.get(node)?.value(place);
    Some(match value & BELOW {
        0 => Step::Decision(value),
        _ => Step::Node(value & !BELOW),
    })
}

/// All steps of a walk.
#[inline]
pub(super) fn walk(nodes: &Nodes, root: u32, place: u32) -> Option<u32> {
    let mut node = root;
    loop {
        match step(nodes, node, place)? {
            Step::Decision(decision) => return Some(decision),
            Step::Node(below) => node = below,
        }
    }
}

/// A stretch of a line: its last place, and the number of its decision.
pub(super) type Stretch = (u32, u32);

/// Finds the nodes that there are already, for whoever adds lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    hasher: DefaultHashBuilder,
    known: HashTable<u32>,
    /// Scratch: the level that is made into nodes, and the one above it.
    level: Vec<(i32, u32)>,
    above: Vec<(i32, u32)>,
}

impl Lines {
    /// The root of a line, which is added to `nodes` unless it is there. The stretches follow each
    /// other; there is at least one.
    pub(super) fn intern(&mut self, nodes: &mut Nodes, line: &[Stretch]) -> u32 {
        self.level.clear();
        let stretches = line.iter();
        self.level
            .extend(stretches.map(|&(last, decision)| (last as i32, decision)));
        loop {
            self.above.clear();
            for chunk in self.level.chunks(WIDTH) {
                let mut node = Node::default();
                for (at, &(last, value)) in chunk.iter().enumerate() {
                    if at + 1 < chunk.len() {
                        node.lasts[at] = last;
                    }
                    node.values[at] = value;
                }
                let last = chunk[chunk.len() - 1].0;
                let number = find_or_add(&mut self.known, &self.hasher, nodes, node);
                self.above.push((last, number | BELOW));
            }
            if let [(_, root)] = self.above[..] {
                return root & !BELOW;
            }
            std::mem::swap(&mut self.level, &mut self.above);
        }
    }

    #[cfg(test)]
    fn count(&self) -> usize {
        self.known.len()
    }
}

fn find_or_add(
    known: &mut HashTable<u32>,
    hasher: &DefaultHashBuilder,
    nodes: &mut Nodes,
    node: Node,
) -> u32 {
    let is_same = |&number: &u32| nodes.get(number) == Some(&node);
    let hash = hasher.hash_one(node);
    if let Some(&number) = known.find(hash, is_same) {
        return number;
    }
    let number = known.len() as u32;
    nodes.set(number, node);
    let hash_of = |&number: &u32| hasher.hash_one(nodes.get(number).copied().unwrap_or_default());
    known.insert_unique(hash, number, hash_of);
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_every_length_are_walked_to_the_right_stretch() {
        let (mut lines, mut nodes) = (Lines::default(), Nodes::default());
        for length in [1, 2, 7, 8, 9, 63, 64, 65, 1000] {
            let line: Vec<Stretch> = (0..length)
                .map(|at| {
                    (
                        if at + 1 == length {
                            END - 1
                        } else {
                            at * 3 + 2
                        },
                        at + 7,
                    )
                })
                .collect();
            let root = lines.intern(&mut nodes, &line);
            for place in (0..length * 3 + 3).chain([NO_PORT]) {
                let expected = (place / 3).min(length - 1) + 7;
                assert_eq!(
                    walk(&nodes, root, place),
                    Some(expected),
                    "{place} of {length}"
                );
            }
            let before = lines.count();
            assert_eq!(lines.intern(&mut nodes, &line), root);
            assert_eq!(lines.count(), before, "nothing is kept twice");
        }
        assert_eq!(walk(&nodes, lines.count() as u32 + 64, 0), None);
    }

    #[test]
    fn places_of_protocols_do_not_touch() {
        let edge = |protocol, port| place(protocol, Some(port));
        let in_order = [
            edge(Protocol::TCP, 0),
            edge(Protocol::TCP, u16::MAX),
            edge(Protocol::UDP, 0),
            edge(Protocol::UDP, u16::MAX),
            edge(Protocol::SCTP, 0),
            edge(Protocol::SCTP, u16::MAX),
            edge(Protocol::ICMP, 7),
        ];
        assert!(in_order.is_sorted_by(|a, b| a < b), "{in_order:?}");
        assert_eq!(place(Protocol::TCP, None), NO_PORT);
        for (at, protocol) in (0..).zip(WITH_PORTS) {
            assert_eq!(edge(protocol, 9), at << 16 | 9, "as `places` has it");
        }
    }
}
