//! A map in shards that are shared until written: a copy costs its directory, a write one shard.
//!
//! The control thread changes its own copy while workers read the one they were given.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};

/// Shards of a map: with as many entries as there can be, one has some hundreds.
const SHARDS: usize = 128;

/// The map. A look-up reads one line of the directory more than a map in one piece does.
#[derive(Clone, Debug)]
pub(super) struct Shards<K, V> {
    /// Empty as long as nothing was ever written.
    shards: Vec<Arc<HashTable<(K, V)>>>,
    hasher: DefaultHashBuilder,
    len: usize,
}

impl<K, V> Default for Shards<K, V> {
    fn default() -> Self {
        Shards {
            shards: Vec::new(),
            hasher: DefaultHashBuilder::default(),
            len: 0,
        }
    }
}

/// The table of a shard takes the hash's lowest and highest bits.
#[inline]
const fn shard(hash: u64) -> usize {
    (hash >> 32) as usize % SHARDS
}

impl<K: Eq + Hash + Clone, V: Clone> Shards<K, V> {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        if self.shards.is_empty() {
            return None;
        }
        let hash = self.hasher.hash_one(key);
        let table = self.shards.get(shard(hash))?;
        let entry = table.find(hash, |(known, _)| known == key)?;
        Some(&entry.1)
    }

    #[inline]
    pub(super) fn contains(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// Writes an entry; the one that it replaces.
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        if self.shards.is_empty() {
            self.shards = vec![Arc::default(); SHARDS];
        }
        let hasher = &self.hasher;
        let hash = hasher.hash_one(&key);
        let table = Arc::make_mut(&mut self.shards[shard(hash)]);
        if let Some(entry) = table.find_mut(hash, |(known, _)| *known == key) {
            return Some(std::mem::replace(&mut entry.1, value));
        }
        table.insert_unique(hash, (key, value), |(known, _)| hasher.hash_one(known));
        self.len += 1;
        None
    }

    /// Removes an entry; what it was.
    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let hash = self.hasher.hash_one(key);
        let shared = self.shards.get_mut(shard(hash))?;
        shared.find(hash, |(known, _)| known == key)?;
        let table = Arc::make_mut(shared);
        let entry = table.find_entry(hash, |(known, _)| known == key).ok()?;
        let ((_, value), _) = entry.remove();
        self.len -= 1;
        Some(value)
    }

    /// All entries, in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    /// Whether one is an unchanged copy of the other. Two with the same entries may be none.
    pub(super) fn is_copy_of(&self, other: &Self) -> bool {
        let mut pairs = self.shards.iter().zip(&other.shards);
        self.shards.len() == other.shards.len() && pairs.all(|(a, b)| Arc::ptr_eq(a, b))
    }
}

impl<K: Eq + Hash + Clone> Shards<K, u32> {
    /// Counts for each key how often it is there, with these changes; what nobody has any more goes.
    /// What comes as often as it goes writes nothing.
    pub(super) fn count(&mut self, changes: HashMap<K, i64>) {
        for (key, change) in changes.into_iter().filter(|(_, change)| *change != 0) {
            let known = self.get(&key).copied().map_or(0, i64::from);
            match u32::try_from(known.saturating_add(change)).unwrap_or(0) {
                0 => drop(self.remove(&key)),
                left => drop(self.insert(key, left)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_does_not_see_later_writes_and_shares_the_other_shards() {
        let mut map: Shards<u32, u32> = Shards::default();
        assert_eq!(map.get(&1), None);
        assert_eq!((map.remove(&1), map.len()), (None, 0));
        for key in 0..5000 {
            assert_eq!(map.insert(key, key + 1), None);
        }
        let copy = map.clone();
        assert!(copy.is_copy_of(&map));
        assert_eq!(map.insert(7, 70), Some(8));
        assert_eq!(map.remove(&9), Some(10));
        assert_eq!(map.remove(&9), None);
        assert_eq!(
            (map.get(&7), map.get(&9), map.len()),
            (Some(&70), None, 4999)
        );
        assert_eq!(
            (copy.get(&7), copy.get(&9), copy.len()),
            (Some(&8), Some(&10), 5000)
        );
        assert!(!copy.is_copy_of(&map));
        let shared = map.shards.iter().zip(&copy.shards);
        let shared = shared.filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert!((SHARDS - 2..SHARDS).contains(&shared), "{shared}");
        let mut left: Vec<u32> = map.iter().map(|(key, _)| *key).collect();
        left.sort_unstable();
        assert!(left.iter().copied().eq((0..5000).filter(|key| *key != 9)));
    }

    #[test]
    fn what_is_counted_is_there_as_long_as_somebody_has_it() {
        let mut counts: Shards<u8, u32> = Shards::default();
        counts.count(HashMap::from([(1, 2), (2, 1), (3, 0)]));
        assert_eq!(
            [1, 2, 3].map(|key| counts.get(&key).copied()),
            [Some(2), Some(1), None]
        );
        let before = counts.clone();
        counts.count(HashMap::from([(1, 0)]));
        assert!(counts.is_copy_of(&before));
        counts.count(HashMap::from([(1, -1), (2, -1)]));
        assert_eq!([1, 2].map(|key| counts.contains(&key)), [true, false]);
        counts.count(HashMap::from([(1, -1)]));
        assert!(counts.is_empty());
    }
}
