//! What is left to decide once the peer is known: protocol and port to decision.
//!
//! Protocols and ports lie on one line: 65,536 places each for TCP, UDP and SCTP, and at its end one
//! place for each protocol, where its packets without a port are. A class of peers has that line cut
//! into stretches, each with one decision. It is kept as a small search tree of [`Node`]s: cache
//! lines that each hold the stretches of five rules for a port, or more of those that have something
//! in common. Most lines are one node.
//!
//! Each class has the first node of its line, the root, for itself, where its number says. Equal
//! nodes below are kept once, so that equal lines have equal roots.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::ir::{PortRange, Ports};
use super::paged::Paged;
use crate::Protocol;

/// The protocols with ports, in the order of their stretches.
const WITH_PORTS: [Protocol; 3] = [Protocol::TCP, Protocol::UDP, Protocol::SCTP];

/// The first of the places without a port, by protocol number.
const NO_PORT: u32 = (WITH_PORTS.len() as u32) << 16;

/// One after the last place.
pub(super) const END: u32 = NO_PORT + 256;

/// Numbers that a node holds.
const SLOTS: usize = 16;

/// Marks a slot as a colour, which is behind every place.
const COLOUR: u32 = 1 << 30;

/// Marks a colour as the number of a node below. Fewer decisions and nodes than this fit into
/// memory.
const BELOW: u32 = 1 << 29;

/// The place of a packet on the line.
#[inline]
pub(super) fn place(protocol: Protocol, port: Option<u16>) -> u32 {
    let port = port.map(u32::from);
    match (protocol, port) {
        (Protocol::TCP, Some(port)) => port,
        (Protocol::UDP, Some(port)) => 1 << 16 | port,
        (Protocol::SCTP, Some(port)) => 2 << 16 | port,
        _ => NO_PORT + protocol.0 as u32,
    }
}

/// The places that `ports` holds: firsts and one after the lasts. Ranges that nothing can match
/// are left out.
pub(super) fn places(ports: &Ports) -> Vec<(u32, u32)> {
    let of = |range: &PortRange| {
        if range.first > range.last {
            return None;
        }
        let Some(start) = WITH_PORTS.iter().position(|&p| p == range.protocol) else {
            let only = NO_PORT + u32::from(range.protocol.0);
            return Some((only, only + 1));
        };
        let start = (start as u32) << 16;
        Some((
            start + u32::from(range.first),
            start + u32::from(range.last) + 1,
        ))
    };
    match ports {
        Ports::Any => vec![(0, END)],
        Ports::List(ranges) => ranges.iter().filter_map(of).collect(),
    }
}

/// Stretches of a line, or nodes that have them: one cache line.
///
/// From the front, the places where a stretch begins, but for the first stretch: the place times
/// 16, plus what turns the number of the colour before into the number of its own (exclusive or).
/// The first stretch has colour 0. From the back, the colours: numbers of decisions, or with
/// [`BELOW`] of nodes.
///
/// So a node holds k stretches of d colours if k - 1 + d are not more than 16, and the colour of a
/// place is found without a branch: all that begins at or before the place, joined.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(align(64))]
pub(super) struct Node {
    slots: [u32; SLOTS],
}

impl Node {
    /// As many of these stretches as fit, which are said too; at least one, and two if there are.
    fn pack(stretches: &[Stretch]) -> (Node, usize) {
        let mut node = Node::default();
        let (mut packed, mut colours, mut begin, mut before) = (0, 0, 0, 0);
        for &(last, value) in stretches {
            let value = COLOUR | value;
            let known = (0..colours).find(|&c| node.slots[SLOTS - 1 - c] == value);
            let colour = known.unwrap_or(colours);
            if packed + colours.max(colour + 1) > SLOTS {
                break;
            }
            node.slots[SLOTS - 1 - colour] = value;
            colours = colours.max(colour + 1);
            if packed > 0 {
                node.slots[packed - 1] = begin << 4 | (before ^ colour) as u32;
            }
            (packed, begin, before) = (packed + 1, last + 1, colour);
        }
        (node, packed)
    }

    /// The value of the stretch that holds `place`.
    #[inline]
    fn value(&self, place: u32) -> u32 {
        let bound = (place << 4 | 15) as i32;
        // All slots, though colours are behind every place: that makes it four vectors.
        let begun = |&slot: &u32| if slot as i32 <= bound { slot } else { 0 };
        let joined = self.slots.iter().map(begun).fold(0, |all, one| all ^ one);
        self.slots[SLOTS - 1 - joined as usize % SLOTS] & !COLOUR
    }
}

impl Default for Node {
    fn default() -> Node {
        Node {
            slots: [COLOUR; SLOTS],
        }
    }
}

/// Nodes for look-ups: 64 bytes each.
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

/// The number of the decision at a place of the line whose root is one of `roots`.
#[inline]
pub(super) fn walk(roots: &Nodes, nodes: &Nodes, root: u32, place: u32) -> Option<u32> {
    let mut at = step(roots, root, place)?;
    loop {
        match at {
            Step::Decision(decision) => return Some(decision),
            Step::Node(below) => at = step(nodes, below, place)?,
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
    level: Vec<Stretch>,
    above: Vec<Stretch>,
}

impl Lines {
    /// The root of a line. What is below it is added to `nodes` unless it is there. The stretches
    /// follow each other; there is at least one.
    pub(super) fn root(&mut self, nodes: &mut Nodes, line: &[Stretch]) -> Node {
        let (root, packed) = Node::pack(line);
        if packed == line.len() {
            return root;
        }
        self.level.clear();
        self.level.extend(line);
        loop {
            self.above.clear();
            let mut rest = &self.level[..];
            while !rest.is_empty() {
                let (node, packed) = Node::pack(rest);
                if packed == self.level.len() {
                    return node;
                }
                let number = find_or_add(&mut self.known, &self.hasher, nodes, node);
                self.above.push((rest[packed - 1].0, number | BELOW));
                rest = &rest[packed..];
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
        for length in [1, 2, 7, 8, 9, 63, 64, 65, 73, 1000] {
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
            let root = lines.root(&mut nodes, &line);
            let mut roots = Nodes::default();
            roots.set(3, root);
            for place in (0..length * 3 + 3).chain([NO_PORT]) {
                let expected = (place / 3).min(length - 1) + 7;
                assert_eq!(
                    walk(&roots, &nodes, 3, place),
                    Some(expected),
                    "{place} of {length}"
                );
            }
            let before = lines.count();
            assert_eq!(lines.root(&mut nodes, &line), root);
            assert_eq!(lines.count(), before, "nothing is kept twice");
        }
        assert_eq!(walk(&nodes, &nodes, lines.count() as u32 + 64, 0), None);
    }

    #[test]
    fn a_node_holds_five_rules_for_a_port_and_their_default() {
        let rules = |count: u32| -> Vec<Stretch> {
            let rule = |i: u32| [(i * 1000 + 99, 0), (i * 1000 + 100, i)];
            let rules = (1..=count).flat_map(rule);
            rules.chain([(END - 1, 0)]).collect()
        };
        assert_eq!(Node::pack(&rules(5)).1, 11);
        let (node, packed) = Node::pack(&rules(6));
        assert_eq!(packed, 11, "where a sixth begins, its colour has no place");
        for i in 1..=5 {
            let places = [99, 100, 101].map(|place| node.value(i * 1000 + place));
            assert_eq!(places, [0, i, 0]);
        }
        let two: Vec<Stretch> = (0..20).map(|i| (i, i % 2)).collect();
        assert_eq!(Node::pack(&two).1, 15);
        assert_eq!(size_of::<Node>(), 64);
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
            edge(Protocol::ICMPV6, 7),
        ];
        assert!(in_order.is_sorted_by(|a, b| a < b), "{in_order:?}");
        let all_tcp = PortRange {
            protocol: Protocol::TCP,
            first: 0,
            last: u16::MAX,
        };
        let held = places(&Ports::List([all_tcp].into()));
        let without = place(Protocol::TCP, None);
        assert!(
            held.iter()
                .all(|&(first, end)| without < first || end <= without)
        );
        for (at, protocol) in (0..).zip(WITH_PORTS) {
            assert_eq!(edge(protocol, 9), at << 16 | 9, "as `places` has it");
        }
    }
}
