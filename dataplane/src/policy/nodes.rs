//! Lines of ports cut into stretches, packed for look-ups.
//!
//! A line is a small search tree of [`Node`]s: cache lines that each hold a few stretches with their
//! colours, a colour being a decision or another node to go on with. Most lines are one node. Each
//! class has the first node of its line, the root, for itself, where its number says; the nodes
//! below are shared.

use std::hint::select_unpredictable;
use std::ops::Range;

use super::packed::{Packed, WORDS};
use super::paged::Paged;
use super::ports::END;

/// A stretch of a line: its last place, and the number of its decision, or with [`BELOW`] of the
/// node that says more.
pub(super) type Stretch = (u32, u32);

/// Marks a slot as a colour, which is behind every place.
const COLOUR: u32 = 1 << 30;

/// Marks a colour as the number of a node below. Fewer decisions and nodes than 1 << 28 fit into
/// memory.
pub(super) const BELOW: u32 = 1 << 29;

/// Marks a colour as the slot of the node where the decision itself begins.
const HERE: u32 = 1 << 28;

/// Numbers that a node holds.
const SLOTS: usize = 16;

/// Stretches of a line, or nodes that have them: one cache line. It holds those of five rules for
/// a port, or more that have something in common.
///
/// From the front, the places where a stretch begins, but for the first stretch: the place times
/// 16, plus what turns the number of the colour before into the number of its own (exclusive or).
/// The first stretch has colour 0. From the back, the colours: numbers of decisions, or with
/// [`BELOW`] of nodes, or with [`HERE`] a slot of this node, from where a decision itself lies
/// between the two.
///
/// So a node holds k stretches of d colours if k - 1 + d are not more than 16, and the colour of a
/// place is found without a branch: all that begins at or before the place, joined.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(align(64))]
pub(super) struct Node {
    slots: [u32; SLOTS],
}

impl Default for Node {
    fn default() -> Node {
        Node {
            slots: [COLOUR; SLOTS],
        }
    }
}

impl Node {
    /// As many of these stretches as fit, which are said too; at least two if there are.
    pub(super) fn new(stretches: &[Stretch]) -> (Node, usize) {
        let (node, packed, _) = Node::pack(stretches);
        (node, packed)
    }

    /// These stretches, if they fit; with the decisions themselves, as far as these fit too: then
    /// nothing else is to be read for them.
    pub(super) fn root(stretches: &[Stretch], decisions: &[Packed]) -> Option<Node> {
        let (mut node, packed, free) = Node::pack(stretches);
        if packed == 0 || packed < stretches.len() {
            return None;
        }
        // From the last colour on: the first one begins the line and mostly is the default, which
        // everyone has near.
        let mut begin = free.start;
        for colour in free.end..SLOTS {
            let value = node.slots[colour] & !COLOUR;
            if value & BELOW != 0 || begin + WORDS > free.end {
                continue;
            }
            let Some(words) = decisions.get(value as usize) else {
                continue;
            };
            for (slot, word) in node.slots[begin..].iter_mut().zip(words) {
                *slot = COLOUR | word;
            }
            node.slots[colour] = COLOUR | HERE | begin as u32;
            begin += WORDS;
        }
        Some(node)
    }

    /// As many of these stretches as fit, how many these are, and which slots are free.
    fn pack(stretches: &[Stretch]) -> (Node, usize, Range<usize>) {
        let Node { mut slots } = Node::default();
        let (mut packed, mut colours, mut begin, mut before) = (0, 0, 0, 0);
        for &(last, value) in stretches {
            let value = COLOUR | value;
            let known = (0..colours).find(|&c| slots[SLOTS - 1 - c] == value);
            let colour = known.unwrap_or(colours);
            if packed + colours.max(colour + 1) > SLOTS {
                break;
            }
            slots[SLOTS - 1 - colour] = value;
            colours = colours.max(colour + 1);
            if packed > 0 {
                slots[packed - 1] = begin << 4 | (before ^ colour) as u32;
            }
            (packed, begin, before) = (packed + 1, last + 1, colour);
        }
        (Node { slots }, packed, packed.max(1) - 1..SLOTS - colours)
    }

    /// What it says of a place.
    #[inline]
    pub(super) fn step(&self, place: u32) -> Step {
        let bound = (place << 4 | 15) as i32;
        // All slots, though colours are behind every place: that makes it four vectors.
        let begun = |&slot: &u32| if slot as i32 <= bound { slot } else { 0 };
        let joined = self.slots.iter().map(begun).fold(0, |all, one| all ^ one);
        Step(self.slots[SLOTS - 1 - joined as usize % SLOTS] & !COLOUR)
    }

    /// The decision that a step has found, in this node or among `decisions`; something where it
    /// has found another node. None would mean that there is no such decision.
    #[inline]
    pub(super) fn decision<'t>(
        &'t self,
        step: Step,
        decisions: &'t [Packed],
    ) -> Option<&'t Packed> {
        let Step(at) = step;
        // No branch: what is here and what is listed takes turns that nobody can predict.
        let listed = select_unpredictable(step.is_node(), 0, at as usize);
        let from = select_unpredictable(step.is_here(), &self.slots[..], decisions.as_flattened());
        let here = at as usize % SLOTS;
        let begin = select_unpredictable(step.is_here(), here, listed * WORDS);
        from.get(begin..)?.first_chunk()
    }

    /// Its stretches; the first begins and the last ends where the line does, but where it is not
    /// the first node of a line, only what lies where the way to it does counts.
    pub(super) fn stretches(&self) -> impl Iterator<Item = (u32, Step)> {
        let begins = self.slots.iter().take_while(|&&slot| slot & COLOUR == 0);
        let lasts = begins.map(|&slot| (slot >> 4) - 1).chain([END - 1]);
        lasts.map(|last| (last, self.step(last)))
    }
}

/// Nodes for look-ups: 64 bytes each.
pub(super) type Nodes = Paged<Node, 64>;

/// Where a walk along a line goes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Step(u32);

impl Step {
    /// Whether there is a node to go on with.
    #[inline]
    pub(super) const fn is_node(self) -> bool {
        self.0 & BELOW != 0
    }

    /// Whether the decision is in the node.
    #[inline]
    pub(super) const fn is_here(self) -> bool {
        self.0 & HERE != 0
    }

    /// The number of the node, or of the decision where that is not in the node.
    #[inline]
    pub(super) const fn number(self) -> u32 {
        self.0 & !BELOW
    }
}

/// The decision at a place of the line whose root is this; none where a node or it is missing.
#[inline]
pub(super) fn walk<'t>(
    root: &'t Node,
    nodes: &'t Nodes,
    decisions: &'t [Packed],
    place: u32,
) -> Option<&'t Packed> {
    let (mut node, mut step) = (root, root.step(place));
    while step.is_node() {
        node = nodes.get(step.number())?;
        step = node.step(place);
    }
    node.decision(step, decisions)
}

#[cfg(test)]
mod tests {
    use super::super::packed::decisions;
    use super::*;

    /// Rules for a port, 1000 places apart, and what is between them.
    fn rules(count: u32) -> Vec<Stretch> {
        let rule = |i: u32| [(i * 1000 + 99, 0), (i * 1000 + 100, i)];
        let rules = (1..=count).flat_map(rule);
        rules.chain([(END - 1, 0)]).collect()
    }

    #[test]
    fn a_node_holds_five_rules_for_a_port_and_their_default() {
        assert_eq!(Node::new(&rules(5)).1, 11);
        let (node, packed) = Node::new(&rules(6));
        assert_eq!(packed, 11, "where a sixth begins, its colour has no place");
        for i in 1..=5 {
            let places = [99, 100, 101].map(|place| node.step(i * 1000 + place));
            assert_eq!(places, [0, i, 0].map(Step));
        }
        let two: Vec<Stretch> = (0..20).map(|i| (i, i % 2)).collect();
        assert_eq!(Node::new(&two).1, 15);
        assert_eq!(size_of::<Node>(), 64);
    }

    #[test]
    fn a_root_holds_what_is_decided_too_as_far_as_there_is_room() {
        let listed = decisions(7);
        let (nodes, none) = (Nodes::default(), [[0; WORDS]; 7]);
        for (count, here) in [(0, 1), (1, 2), (2, 3), (3, 2), (4, 1), (5, 0)] {
            let root = Node::root(&rules(count), &listed).unwrap();
            let steps: Vec<Step> = root.stretches().map(|(_, step)| step).collect();
            let mut places: Vec<u32> = (0..=count).map(|i| i * 1000 + 100).collect();
            for (i, &place) in (0..).zip(&places) {
                let found = walk(&root, &nodes, &listed, place);
                assert_eq!(
                    found.map(|words| words[2] << 2 >> 2),
                    Some(i),
                    "rule {i} of {count}"
                );
            }
            // What is here is not looked for in the list.
            places.retain(|&place| walk(&root, &nodes, &none, place) != Some(&none[0]));
            assert_eq!(places.len(), here, "{count} rules: {steps:?}");
        }
        assert_eq!(Node::root(&rules(6), &listed), None);
        assert_eq!(Node::root(&[], &listed), None);
    }

    #[test]
    fn what_is_missing_decides_nothing() {
        let (nodes, listed) = (Nodes::default(), decisions(3));
        let lost = Node::root(&[(END - 1, 7 | BELOW)], &listed).unwrap();
        assert_eq!(walk(&lost, &nodes, &listed, 80), None);
        let (unknown, _) = Node::new(&[(END - 1, 3)]);
        assert_eq!(walk(&unknown, &nodes, &listed, 80), None);
    }
}
