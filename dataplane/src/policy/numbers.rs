//! Addresses that are in some set, by number: small numbers are what arrays are indexed by.
//!
//! A hash table whose buckets are cache lines of seven entries, in pages that are shared until
//! written: the control thread adds and removes while workers read their own copy. An address of
//! the outside, which is in no set, costs one line.

use std::hash::{BuildHasher, RandomState};

use super::paged::Paged;
use crate::Address;

/// Entries of one bucket.
const ENTRIES: usize = 7;

/// Of an entry that is empty.
pub(super) const NONE: u32 = u32::MAX;

/// Buckets are added when there would be more entries than this for each.
const LOAD: usize = 3;

/// Some of the addresses whose hash leads here.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Bucket {
    /// What is compared first: bits of the hash.
    tags: [u32; ENTRIES],
    /// Whether an address that belongs here may be in the next bucket, because this was full.
    is_overflown: bool,
    numbers: [u32; ENTRIES],
}

impl Default for Bucket {
    fn default() -> Bucket {
        Bucket {
            tags: [0; ENTRIES],
            is_overflown: false,
            numbers: [NONE; ENTRIES],
        }
    }
}

/// Which number an address has, if it has one.
///
/// Memory: about 40 bytes an address, and 64 for each bucket of a third as many.
#[derive(Clone, Debug)]
pub(super) struct Numbers {
    /// As many as `mask` + 1, a power of two; pages never written are empty buckets.
    buckets: Paged<Bucket, 32>,
    mask: u32,
    /// By number; what has no number reads as some address that has none.
    addresses: Paged<Address, 128>,
    /// Entries.
    count: usize,
    /// Buckets that overflowed since they were last built.
    overflown: usize,
    /// Nobody can choose addresses that all go to one bucket.
    seed: u64,
}

impl Default for Numbers {
    fn default() -> Numbers {
        Numbers {
            buckets: Paged::default(),
            mask: 0,
            addresses: Paged::default(),
            count: 0,
            overflown: 0,
            seed: RandomState::new().hash_one(0),
        }
    }
}

/// An address on its way to its number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    bucket: u32,
    tag: u32,
}

impl Numbers {
    /// Whether no address has a number.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Where to look for an address.
    #[inline]
    pub(super) fn probe(&self, address: Address) -> Probe {
        // Multiplying both halves and folding the product mixes every bit into every other.
        let (high, low) = ((address.0 >> 64) as u64, address.0 as u64);
        let product = u128::from(low ^ self.seed) * u128::from(high ^ 0x9e37_79b9_7f4a_7c15);
        let hash = (product >> 64) as u64 ^ product as u64;
        let hash = hash.wrapping_mul(0xd6e8_feb8_6659_fd93);
        Probe {
            bucket: (hash >> 32) as u32,
            tag: hash as u32 ^ low as u32,
        }
    }

    /// The number of the address that `probe` was made for, or [`NONE`].
    #[inline]
    pub(super) fn find(&self, address: Address, probe: Probe) -> u32 {
        let mut at = probe.bucket & self.mask;
        // As many as there are, so that it ends even if all of them overflowed.
        for _ in 0..=self.mask {
            let Some(bucket) = self.buckets.get(at) else {
                return NONE;
            };
            for entry in 0..ENTRIES {
                let number = bucket.numbers[entry];
                if bucket.tags[entry] == probe.tag && self.address(number) == Some(address) {
                    return number;
                }
            }
            if !bucket.is_overflown {
                return NONE;
            }
            at = (at + 1) & self.mask;
        }
        NONE
    }

    /// The address of a number that was inserted and not removed.
    #[inline]
    pub(super) fn address(&self, number: u32) -> Option<Address> {
        self.addresses.get(number).copied()
    }

    /// Gives an address that has none a number that no other has.
    pub(super) fn insert(&mut self, address: Address, number: u32) {
        self.addresses.set(number, address);
        self.count += 1;
        let buckets = self.mask as usize + 1;
        if self.count > buckets * LOAD || self.overflown * 8 > buckets + 64 {
            self.rebuild(number);
        } else {
            self.place(address, number);
        }
    }

    /// Takes an address's number from it.
    pub(super) fn remove(&mut self, address: Address) {
        let probe = self.probe(address);
        let mut at = probe.bucket & self.mask;
        for _ in 0..=self.mask {
            let Some(&(mut bucket)) = self.buckets.get(at) else {
                return;
            };
            let is_it = |&entry: &usize| self.address(bucket.numbers[entry]) == Some(address);
            if let Some(entry) = (0..ENTRIES).find(is_it) {
                bucket.numbers[entry] = NONE;
                self.buckets.set(at, bucket);
                self.count -= 1;
                return;
            }
            at = (at + 1) & self.mask;
        }
    }

    fn place(&mut self, address: Address, number: u32) {
        let probe = self.probe(address);
        let mut at = probe.bucket & self.mask;
        // Ends: there are fewer entries than places.
        loop {
            let mut bucket = self.buckets.get(at).copied().unwrap_or_default();
            let free = bucket.numbers.iter().position(|&number| number == NONE);
            match free {
                Some(entry) => {
                    bucket.tags[entry] = probe.tag;
                    bucket.numbers[entry] = number;
                    self.buckets.set(at, bucket);
                    return;
                }
                None if !bucket.is_overflown => {
                    bucket.is_overflown = true;
                    self.overflown += 1;
                    self.buckets.set(at, bucket);
                }
                None => {}
            }
            at = (at + 1) & self.mask;
        }
    }

    /// Places all entries anew, and `new` with them, among buckets for twice as many.
    fn rebuild(&mut self, new: u32) {
        let old = (0..=self.mask).filter_map(|at| self.buckets.get(at));
        let numbers = old.flat_map(|bucket| bucket.numbers);
        let all: Vec<u32> = numbers.filter(|&n| n != NONE).chain([new]).collect();
        self.buckets = Paged::default();
        self.overflown = 0;
        self.mask = ((all.len() * 2).div_ceil(LOAD).next_power_of_two() as u32).max(1) - 1;
        for number in all {
            if let Some(address) = self.address(number) {
                self.place(address, number);
            }
        }
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        self.buckets.bytes() + self.addresses.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(numbers: &Numbers, address: Address) -> Option<u32> {
        let number = numbers.find(address, numbers.probe(address));
        (number != NONE).then_some(number)
    }

    fn nth(i: u32) -> Address {
        match i % 2 {
            0 => Address::v4(0x0a00_0000 + i),
            _ => Address::v6(0xfd00 << 112 | u128::from(i) << 64),
        }
    }

    #[test]
    fn every_address_has_its_number_while_others_come_and_go() {
        let mut numbers = Numbers::default();
        assert_eq!((numbers.is_empty(), find(&numbers, nth(0))), (true, None));
        (0..10_000).for_each(|i| numbers.insert(nth(i), i));
        let before = numbers.clone();
        for round in 1..20 {
            for i in (0..10_000).filter(|i| i % 20 == round) {
                numbers.remove(nth(i));
                assert_eq!(find(&numbers, nth(i)), None);
                // The number is another's now.
                numbers.insert(nth(i + 10_000), i);
            }
        }
        for i in 0..10_000 {
            let (stays, moved) = (i % 20 == 0, nth(i + 10_000));
            assert_eq!(find(&before, nth(i)), Some(i));
            assert_eq!(find(&before, moved), None);
            assert_eq!(find(&numbers, nth(i)), stays.then_some(i));
            assert_eq!(find(&numbers, moved), (!stays).then_some(i));
        }
        assert!(numbers.bytes() < 1 << 20, "{}", numbers.bytes());
        (0..10_000)
            .for_each(|i| numbers.remove(if i % 20 == 0 { nth(i) } else { nth(i + 10_000) }));
        assert!(numbers.is_empty());
        numbers.remove(nth(3));
        assert!(numbers.is_empty(), "what has no number keeps none");
    }

    #[test]
    fn the_address_of_all_zeros_is_one_like_others() {
        let mut numbers = Numbers::default();
        assert_eq!(find(&numbers, Address(0)), None);
        numbers.insert(nth(0), 5);
        assert_eq!(find(&numbers, Address(0)), None);
        numbers.insert(Address(0), 200);
        assert_eq!(find(&numbers, Address(0)), Some(200));
    }

    #[test]
    fn a_bucket_is_a_cache_line() {
        assert_eq!(size_of::<Bucket>(), 64);
    }
}
