//! A line of keys cut into pieces, each with a value: which piece holds a key.
//!
//! ```text
//!  shortcuts   │ 0 │ 0 │ tree │ 2 │ 3 │ …       one for each of equally wide parts of the line
//!                │         │
//!  leaves      [ 8 pieces ][ 8 pieces ] …       their ends beside their values
//! ```
//!
//! Where the cuts are spread, a part holds the end of one leaf at most, so that its shortcut and
//! that end say which of two leaves it is: two cache misses for any number of pieces. Where they
//! crowd together, a [`Tree`] over the ends of the leaves finds the leaf: a step for each factor
//! of sixteen, however crowded it is.

use super::tree::{Key, Tree};
use crate::shm::prefetch;

/// Pieces of one leaf.
const PIECES: usize = 8;

/// At most so many shortcuts for a leaf: nine bytes beside its 64. In a line that is cut at random
/// one in about 60 parts then has the ends of two leaves.
const SHORTCUTS: usize = 8;

/// Where [`Pieces::start`] leads when only the tree can tell.
const BY_TREE: u32 = u32::MAX;

/// Pieces over keys of type `K`, with `W` keys in a node of the tree.
///
/// Memory: 12 bytes for a piece of 32-bit keys (28 if they have 128), and little more.
#[derive(Debug)]
pub(super) struct Pieces<K, const W: usize> {
    /// The end of the first leaf, from where `1 << shift` keys each have a shortcut; the first is
    /// for keys before that too, the last for those behind.
    first: K,
    shift: u32,
    parts: usize,
    shortcuts: Vec<Shortcuts>,
    /// The ends of all leaves but the last.
    ends: Tree<K, W>,
    leaves: Vec<Leaf<K>>,
}

/// Shortcuts of neighbouring parts: one cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Shortcuts {
    /// The leaf of the first part.
    first: u32,
    /// How much further each part's leaf is; [`FAR`] where only the tree can tell.
    further: [u8; PARTS],
}

impl Shortcuts {
    /// Of parts of which the first is in this leaf. So far only the tree can tell.
    const fn new(first: u32) -> Shortcuts {
        Shortcuts {
            first,
            further: [FAR; PARTS],
        }
    }

    /// Says where a part begins, unless that is too far.
    fn set(&mut self, part: usize, leaf: u32) {
        let further = u8::try_from(leaf - self.first);
        self.further[part] = further.unwrap_or(FAR);
    }
}

/// Parts whose shortcuts are in one cache line.
const PARTS: usize = 60;

/// Further than a part's leaf can be from the first part's, to be found without the tree.
const FAR: u8 = u8::MAX;

/// Neighbouring pieces. With 32-bit keys it is one cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Leaf<K> {
    /// The last key of each piece; those of pieces that are missing, and of the last piece of all,
    /// are the largest there is.
    lasts: [K; PIECES],
    values: [u32; PIECES],
}

impl<K: Key> Leaf<K> {
    fn new(pieces: &[(K, u32)]) -> Leaf<K> {
        let mut leaf = Leaf {
            lasts: [K::MAX; PIECES],
            values: [0; PIECES],
        };
        for (at, &(last, value)) in pieces.iter().enumerate() {
            leaf.lasts[at] = last;
            leaf.values[at] = value;
        }
        leaf
    }

    fn end(&self) -> K {
        self.lasts[PIECES - 1]
    }
}

impl<K: Key, const W: usize> Pieces<K, W> {
    /// Of pieces with their last keys, rising; the last one reaches to the end of the line.
    /// Neighbours with one value become one.
    pub(super) fn new(pieces: &[(K, u32)]) -> Pieces<K, W> {
        let mut merged: Vec<(K, u32)> = Vec::with_capacity(pieces.len());
        for &(last, value) in pieces {
            match merged.last_mut() {
                Some(before) if before.1 == value => before.0 = last,
                _ => merged.push((last, value)),
            }
        }
        if let Some((last, _)) = merged.last_mut() {
            *last = K::MAX;
        }
        let leaves: Vec<Leaf<K>> = merged.chunks(PIECES).map(Leaf::new).collect();
        let but_last = leaves.len().saturating_sub(1);
        let ends: Vec<K> = leaves[..but_last].iter().map(Leaf::end).collect();
        let first = ends.first().copied().unwrap_or(K::MAX);
        let span = |shift| ends.last().map_or(0, |&last| last.parts_from(first, shift));
        let fits = |&shift: &u32| span(shift) < SHORTCUTS * leaves.len();
        let shift = (0..).find(fits).unwrap_or(0);
        let parts = span(shift) + 1;
        let mut shortcuts = Vec::with_capacity(parts.div_ceil(PARTS));
        let mut rest = &ends[..];
        for part in 0..parts {
            let leaf = (ends.len() - rest.len()) as u32;
            if part % PARTS == 0 {
                shortcuts.push(Shortcuts::new(leaf));
            }
            let here = |end: &&K| end.parts_from(first, shift) == part;
            let within = rest.iter().take_while(here).count();
            rest = &rest[within..];
            if within <= 1
                && let Some(line) = shortcuts.last_mut()
            {
                line.set(part % PARTS, leaf);
            }
        }
        Pieces {
            first,
            shift,
            parts,
            shortcuts,
            ends: Tree::new(&ends),
            leaves,
        }
    }

    /// Where [`Pieces::value`] is to look for a key, which is asked for: a caller with many keys
    /// has their cache misses at once.
    #[inline]
    pub(super) fn start(&self, key: K) -> u32 {
        let part = key.parts_from(self.first, self.shift);
        let part = part.min(self.parts - 1);
        let line = &self.shortcuts[part / PARTS];
        match line.further[part % PARTS] {
            FAR => BY_TREE,
            further => {
                let leaf = line.first + u32::from(further);
                if let Some(leaf) = self.leaves.get(leaf as usize) {
                    prefetch(leaf);
                }
                leaf
            }
        }
    }

    /// The value of the piece that holds a key.
    #[inline(always)]
    pub(super) fn value(&self, key: K, start: u32) -> u32 {
        let leaf = match start {
            BY_TREE => self.ends.below(key),
            _ => start + u32::from(self.leaves[start as usize].end() < key),
        };
        let leaf = &self.leaves[leaf as usize];
        let before: usize = leaf.lasts.iter().map(|&l| usize::from(l < key)).sum();
        // The leaf is the one that holds the key, so `before` is below eight.
        leaf.values[before % PIECES]
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.shortcuts[..]) + self.ends.bytes() + size_of_val(&self.leaves[..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<K: Key + std::fmt::Debug, const W: usize>(lasts: &[K], keys: &[K]) {
        let pieces: Vec<(K, u32)> = lasts.iter().copied().chain([K::MAX]).zip(7..).collect();
        let made: Pieces<K, W> = Pieces::new(&pieces);
        for &key in keys {
            let expected = lasts.partition_point(|&last| last < key) as u32 + 7;
            let value = made.value(key, made.start(key));
            assert_eq!(value, expected, "{key:?} of {}", lasts.len());
        }
    }

    #[test]
    fn every_key_is_in_its_piece_at_every_size_and_density() {
        for size in [0, 1, 7, 8, 9, 16, 17, 64, 500, 5000] {
            let even: Vec<i32> = (0..size).map(|i| i * 1000 - 9000).collect();
            // Crowded twice, with nothing between.
            let crowds: Vec<i32> = (0..size).map(|i| i + (i % 2) * 1_000_000_000).collect();
            let mut growing: Vec<i32> = (0..size.min(31)).map(|i| (1 << i) - 5).collect();
            growing.extend((1 << 30..).take(size as usize));
            for mut lasts in [even, crowds, growing] {
                lasts.sort_unstable();
                let near = |&last: &i32| [last - 1, last, last + 1];
                let mut keys: Vec<i32> = lasts.iter().flat_map(near).collect();
                keys.extend([i32::MIN, i32::MAX]);
                check::<i32, 16>(&lasts, &keys);
                let wide = |&key: &i32| (key as u32 ^ 1 << 31) as u128;
                for shift in [0, 64, 96] {
                    let wide = |keys: &[i32]| -> Vec<u128> {
                        keys.iter().map(|key| wide(key) << shift).collect()
                    };
                    check::<u128, 8>(&wide(&lasts), &wide(&keys));
                }
            }
        }
    }

    #[test]
    fn equal_neighbours_are_one_piece() {
        let pieces: Vec<(i32, u32)> = (0..100).map(|i| (i, 3)).collect();
        let one: Pieces<i32, 16> = Pieces::new(&pieces);
        assert_eq!((one.leaves.len(), one.value(5, one.start(5))), (1, 3));
    }

    #[test]
    fn spread_pieces_hardly_need_the_tree() {
        let mut lasts: Vec<i32> = (0..100_000_u32)
            .map(|i| i.wrapping_mul(0x9e37_79b9).wrapping_mul(i | 1) as i32)
            .collect();
        lasts.sort_unstable();
        lasts.dedup();
        let pieces: Vec<(i32, u32)> = lasts.into_iter().zip(0..).collect();
        let made: Pieces<i32, 16> = Pieces::new(&pieces);
        let shortcuts = made.shortcuts.iter().flat_map(|line| line.further);
        let by_tree = shortcuts.take(made.parts).filter(|&at| at == FAR).count();
        assert!(by_tree * 20 < made.parts, "{by_tree}");
        assert!(made.bytes() < pieces.len() * 14, "{}", made.bytes());
        assert_eq!(size_of::<Leaf<i32>>(), 64);
    }
}
