//! Sorted keys in a search tree of wide nodes: how many of them are below a key, in few cache
//! misses and without a branch that depends on the keys.
//!
//! ```text
//!            [ 16 keys ]                  a node has W keys and W + 1 children
//!       ┌──────┬──┴ … ┬──────┐
//!   [ 16 ]  [ 16 ] …       [ 16 ]         the lowest level holds every key, in order
//! ```
//!
//! The levels lie one behind another, and a node's children are where arithmetic says: there are no
//! pointers. A node of sixteen 32-bit keys is one cache line; comparing with all of them and adding
//! up takes as long as a binary search takes for two, because the compiler does it with vectors.

/// A search tree over keys of type `K`, `W` in a node.
///
/// Memory: the keys, filled up to whole nodes, and 1/W of that again for the upper levels.
#[derive(Debug)]
pub(super) struct Tree<K, const W: usize> {
    /// Of all levels, the root first.
    nodes: Vec<Node<K, W>>,
    /// Where each level starts in `nodes`; as many as there are levels.
    levels: Vec<u32>,
}

/// Keys side by side, on a cache line's boundary. A node that is not full is filled up with the
/// largest key there is, which is below nothing.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Node<K, const W: usize>([K; W]);

/// What a [`Tree`] can be made of.
pub(super) trait Key: Copy + Ord {
    /// The largest: below no key.
    const MAX: Self;

    /// How many parts of `1 << shift` keys lie between `first` and this key; none if it is not
    /// behind `first`.
    fn parts_from(self, first: Self, shift: u32) -> usize;
}

impl Key for i32 {
    const MAX: i32 = i32::MAX;

    #[inline]
    fn parts_from(self, first: i32, shift: u32) -> usize {
        ((i64::from(self) - i64::from(first)).max(0) as usize) >> shift
    }
}

impl Key for u128 {
    const MAX: u128 = u128::MAX;

    #[inline]
    fn parts_from(self, first: u128, shift: u32) -> usize {
        let parts = self.saturating_sub(first) >> shift;
        usize::try_from(parts).unwrap_or(usize::MAX)
    }
}

impl<K: Key, const W: usize> Tree<K, W> {
    /// A tree of sorted keys.
    pub(super) fn new(keys: &[K]) -> Tree<K, W> {
        let mut levels: Vec<Vec<Node<K, W>>> = Vec::new();
        // The largest key under each node of the level that is made next.
        let mut under: Vec<K> = keys.to_vec();
        let mut children = 1;
        while !under.is_empty() {
            // A lowest node holds W keys. One above holds what separates W + 1 children: the
            // largest key under each but its last.
            let level: Vec<(Node<K, W>, K)> = under
                .chunks(W - 1 + children)
                .map(|chunk| {
                    let mut node = Node([K::MAX; W]);
                    let own = chunk.len() + 1 - children;
                    node.0[..own].copy_from_slice(&chunk[..own]);
                    (node, chunk[chunk.len() - 1])
                })
                .collect();
            under = level.iter().map(|&(_, largest)| largest).collect();
            levels.push(level.into_iter().map(|(node, _)| node).collect());
            if under.len() == 1 {
                break;
            }
            children = 2;
        }
        levels.reverse();
        let starts = levels.iter().scan(0, |next, level| {
            let start = *next;
            *next += level.len() as u32;
            Some(start)
        });
        Tree {
            levels: starts.collect(),
            nodes: levels.concat(),
        }
    }

    /// How many keys are below `key`.
    #[inline]
    pub(super) fn below(&self, key: K) -> u32 {
        (0..self.levels.len()).fold(0, |place, level| self.step(level, place, key))
    }

    /// One level further down: from the place in the level to the place in the next, and from the
    /// lowest level to the number of keys below `key`.
    #[inline]
    fn step(&self, level: usize, place: u32, key: K) -> u32 {
        let node = self.levels[level] + place;
        let Node(keys) = &self.nodes[node as usize];
        let below: u32 = keys.iter().map(|&k| u32::from(k < key)).sum();
        let fan = W as u32 + u32::from(level + 1 < self.levels.len());
        place * fan + below
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.nodes[..]) + size_of_val(&self.levels[..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_the_keys_below_at_every_size() {
        let sizes = [
            0,
            1,
            15,
            16,
            17,
            16 * 17 - 1,
            16 * 17,
            16 * 17 + 1,
            5000,
            80_000,
        ];
        for size in sizes {
            let keys: Vec<i32> = (0..size).map(|i| i * 3 - 100).collect();
            let tree: Tree<i32, 16> = Tree::new(&keys);
            let every = if size < 6000 { 1 } else { 97 };
            for key in (-110..size * 3).step_by(every).chain([i32::MIN, i32::MAX]) {
                let expected = keys.partition_point(|&k| k < key);
                assert_eq!(tree.below(key) as usize, expected, "{key} of {size}");
            }
        }
    }

    #[test]
    fn the_largest_keys_are_told_apart_in_both_widths() {
        let keys = [0, 1, u128::MAX - 1];
        let tree: Tree<u128, 8> = Tree::new(&keys);
        let below = [0, 1, 2, u128::MAX - 1, u128::MAX].map(|key| tree.below(key));
        assert_eq!(below, [0, 1, 2, 2, 3]);
        let many: Vec<u128> = (0..1000).map(|i| i << 100).collect();
        let tree: Tree<u128, 8> = Tree::new(&many);
        for (at, &key) in (0..).zip(&many) {
            assert_eq!((tree.below(key), tree.below(key + 1)), (at, at + 1));
        }
    }

    #[test]
    fn sixteen_keys_are_one_cache_line() {
        assert_eq!(size_of::<Node<i32, 16>>(), 64);
        assert_eq!(Tree::<i32, 16>::new(&vec![0; 200_000]).levels.len(), 5);
    }
}
