//! How lines become nodes: what is there already is used again.
//!
//! Equal nodes are kept once. Besides, where prefixes lie within each other, a class has the rules
//! of the class around it and one more: then its root says where the two lines differ, and leads to
//! the other's nodes everywhere else. So what is read of a table is little more than the roots, and
//! a packet that the innermost rule takes reads one.
//!
//! ```text
//!  10.0.0.0/8, 40 rules    root ──▶ nodes of the whole line
//!                                     ▲
//!  10.1.0.0/16, 41 rules   root: 443 is rule 41, all else
//! ```

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::nodes::{BELOW, Node, Nodes, Stretch};
use super::packed::Packed;
use super::ports::END;

/// More stretches than this do not fit a node.
const MOST: usize = 16;

/// A node with a whole line below it, which others may lead to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Base {
    node: u32,
}

/// Finds the nodes that there are already, for whoever adds lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    hasher: DefaultHashBuilder,
    known: HashTable<u32>,
    /// Scratch: the level that is made into nodes, and the one above it.
    level: Vec<Stretch>,
    above: Vec<Stretch>,
    /// The line of a base, and which one's.
    base: Option<Base>,
    base_line: Vec<Stretch>,
    /// Where a line differs from that, which is led to elsewhere; no more of it than is too much.
    differing: Vec<Stretch>,
}

impl Lines {
    /// The root of a line. What is below it is added to `nodes` unless it is there. The stretches
    /// follow each other; there is at least one.
    pub(super) fn root(
        &mut self,
        nodes: &mut Nodes,
        line: &[Stretch],
        decisions: &[Packed],
    ) -> Node {
        let root = Node::root(line, decisions);
        root.unwrap_or_else(|| self.top(nodes, line))
    }

    /// The same where others are similar: `base` is that of a line that may be. Returned is one for
    /// the next that may be.
    pub(super) fn root_near(
        &mut self,
        nodes: &mut Nodes,
        line: &[Stretch],
        decisions: &[Packed],
        base: Option<Base>,
    ) -> (Node, Option<Base>) {
        if let Some(root) = Node::root(line, decisions) {
            return (root, base);
        }
        if let Some(base) = base {
            self.differ(nodes, line, base);
            if let Some(root) = Node::root(&self.differing, decisions) {
                return (root, Some(base));
            }
        }
        let top = self.top(nodes, line);
        let node = find_or_add(&mut self.known, &self.hasher, nodes, top);
        (top, Some(Base { node }))
    }

    /// The first of the nodes that make the line. It is not added, those below it are.
    fn top(&mut self, nodes: &mut Nodes, line: &[Stretch]) -> Node {
        self.level.clear();
        self.level.extend(line);
        loop {
            self.above.clear();
            let mut rest = &self.level[..];
            while !rest.is_empty() {
                let (node, packed) = Node::new(rest);
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

    /// Finds where a line differs from that of `base`.
    fn differ(&mut self, nodes: &Nodes, line: &[Stretch], base: Base) {
        if self.base != Some(base) {
            self.base = Some(base);
            self.base_line.clear();
            unfold(nodes, base.node, 0, END - 1, &mut self.base_line);
        }
        self.differing.clear();
        let mut theirs = self.base_line.iter().peekable();
        let mut own = line.iter().peekable();
        while let (Some(&&(last, decision)), Some(&&(base_last, base_decision))) =
            (own.peek(), theirs.peek())
        {
            let colour = match decision == base_decision {
                true => base.node | BELOW,
                false => decision,
            };
            push(&mut self.differing, last.min(base_last), colour);
            if self.differing.len() > MOST {
                return;
            }
            own.next_if(|_| last <= base_last);
            theirs.next_if(|_| base_last <= last);
        }
    }

    #[cfg(test)]
    fn count(&self) -> usize {
        self.known.len()
    }
}

/// Adds what the nodes from `node` on say of the places from `first` to `last`.
pub(super) fn unfold(nodes: &Nodes, node: u32, first: u32, last: u32, line: &mut Vec<Stretch>) {
    let Some(node) = nodes.get(node) else { return };
    let mut first = first;
    for (end, step) in node.stretches() {
        if end < first {
            continue;
        }
        let end = end.min(last);
        match step.is_node() {
            true => unfold(nodes, step.number(), first, end, line),
            false => push(line, end, step.number()),
        }
        if end == last {
            return;
        }
        first = end + 1;
    }
}

/// Adds a stretch, joined with one before of the same colour.
fn push(line: &mut Vec<Stretch>, last: u32, colour: u32) {
    match line.last_mut() {
        Some(before) if before.1 == colour => before.0 = last,
        _ => line.push((last, colour)),
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
    use super::super::nodes::walk;
    use super::super::packed::{decisions, unpack};
    use super::*;

    /// What the line whose root this is says of a place.
    fn number(root: &Node, nodes: &Nodes, decisions: &[Packed], place: u32) -> Option<u32> {
        let found = walk(root, nodes, decisions, place)?;
        Some(unpack(found).counter.0)
    }

    /// Stretches of three places each, the last to the end, of different decisions.
    fn line(length: u32) -> Vec<Stretch> {
        let stretch = |at| {
            (
                if at + 1 == length {
                    END - 1
                } else {
                    at * 3 + 2
                },
                at + 7,
            )
        };
        (0..length).map(stretch).collect()
    }

    #[test]
    fn lines_of_every_length_are_walked_to_the_right_stretch() {
        let (mut lines, mut nodes) = (Lines::default(), Nodes::default());
        let decisions = decisions(1007);
        for length in [1, 2, 7, 8, 9, 63, 64, 65, 73, 1000] {
            let line = line(length);
            let (root, base) = lines.root_near(&mut nodes, &line, &decisions, None);
            for place in (0..length * 3 + 3).chain([END - 1]) {
                let expected = (place / 3).min(length - 1) + 7;
                let found = number(&root, &nodes, &decisions, place);
                assert_eq!(found, Some(expected), "{place} of {length}");
            }
            let before = lines.count();
            let again = lines.root_near(&mut nodes, &line, &decisions, None);
            assert_eq!(again, (root, base));
            assert_eq!(lines.count(), before, "nothing is kept twice");
        }
    }

    #[test]
    fn a_line_that_differs_little_from_its_base_is_one_node_more() {
        let (mut lines, mut nodes) = (Lines::default(), Nodes::default());
        let decisions = decisions(200);
        let outer = line(100);
        let (_, base) = lines.root_near(&mut nodes, &outer, &decisions, None);
        let before = lines.count();
        // Within one stretch, over many, at both ends, and as far as there is room.
        for places in [
            &[(30, 31)][..],
            &[(30, 200)],
            &[(0, 2)],
            &[(299, END)],
            &[(5, 6), (50, 60), (70, 71)],
        ] {
            let inner = painted(&outer, places);
            let (root, same) = lines.root_near(&mut nodes, &inner, &decisions, base);
            assert_eq!((lines.count(), same), (before, base), "{places:?}");
            for place in (0..310).chain([END - 1]) {
                let expected = inner
                    .iter()
                    .find(|&&(last, _)| place <= last)
                    .map(|of| of.1);
                let found = number(&root, &nodes, &decisions, place);
                assert_eq!(found, expected, "{place}, {places:?}");
            }
        }
        let scattered: Vec<_> = (0..20).map(|i| (i * 9, i * 9 + 1)).collect();
        let far = painted(&outer, &scattered);
        let (root, other) = lines.root_near(&mut nodes, &far, &decisions, base);
        assert_ne!(other, base, "too different to be told in one node");
        assert_eq!(number(&root, &nodes, &decisions, 9), Some(150));
        // And another base again.
        let inner = painted(&far, &[(100, 101)]);
        let (root, same) = lines.root_near(&mut nodes, &inner, &decisions, other);
        assert_eq!(same, other);
        let found = [99, 100, 101].map(|place| number(&root, &nodes, &decisions, place));
        assert_eq!(found, [150, 150, 40].map(Some));
    }

    /// The line with decision 150 at these places.
    fn painted(line: &[Stretch], places: &[(u32, u32)]) -> Vec<Stretch> {
        let cuts = places.iter().flat_map(|&(first, end)| [first, end]);
        let mut lasts: Vec<u32> = cuts.filter(|&cut| cut > 0).map(|cut| cut - 1).collect();
        lasts.extend(line.iter().map(|&(last, _)| last));
        lasts.sort_unstable();
        let mut painted = Vec::new();
        for last in lasts {
            let is_in = places
                .iter()
                .any(|&(first, end)| (first..end).contains(&last));
            let before = line.iter().find(|&&(end, _)| last <= end);
            let colour = if is_in {
                150
            } else {
                before.map_or(0, |of| of.1)
            };
            push(&mut painted, last, colour);
        }
        painted
    }
}
