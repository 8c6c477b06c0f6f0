//! What stands at the start of memory that outlives a process.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::Time;

/// `WEIRSHM` and a version of the header itself.
const MAGIC: u64 = u64::from_be_bytes(*b"WEIRSHM\x01");

/// The first [`Header::WORDS`] words of a region that a later process may find again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Names the layout of what follows, sizes included: whoever changes the layout changes this.
    pub layout: u64,
    /// The boot it was written in (`/proc/sys/kernel/random/boot_id`): monotonic times and
    /// interface indexes of another boot mean nothing.
    pub boot: u128,
    /// Seed of the hash that placed the entries.
    pub hash_seed: u64,
    /// When the region was set up.
    pub time_base: Time,
}

/// What [`Header::open`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// A header that fits: what follows can be used, entry by entry.
    Usable(Header),
    /// Nothing, another layout or another boot: a fresh header was written and every word after
    /// it is 0.
    Fresh(Header),
}

impl Header {
    /// Words that it takes: one cache line.
    pub const WORDS: usize = 8;

    /// Reads the header; one that does not fit `fresh` in layout and boot is replaced by `fresh`,
    /// and everything after it zeroed. `None` when there is no room for a header.
    ///
    /// The magic word is written last, so that a process that dies in between leaves a region
    /// that the next one starts afresh.
    pub fn open(words: &[AtomicU64], fresh: Header) -> Option<Found> {
        let (head, rest) = words.split_at_checked(Self::WORDS)?;
        if let Some(found) = Self::read(head)
            && found.layout == fresh.layout
            && found.boot == fresh.boot
        {
            return Some(Found::Usable(found));
        }
        head[0].store(0, Ordering::SeqCst);
        for word in rest {
            word.store(0, Ordering::Relaxed);
        }
        let Header {
            layout,
            boot,
            hash_seed,
            time_base,
        } = fresh;
        let values = [
            layout,
            (boot >> 64) as u64,
            boot as u64,
            hash_seed,
            time_base.0,
        ];
        for (word, value) in head[1..].iter().zip(values) {
            word.store(value, Ordering::Relaxed);
        }
        head[0].store(MAGIC, Ordering::Release);
        Some(Found::Fresh(fresh))
    }

    fn read(head: &[AtomicU64]) -> Option<Header> {
        if head[0].load(Ordering::Acquire) != MAGIC {
            return None;
        }
        let word = |index: usize| head[index].load(Ordering::Relaxed);
        Some(Header {
            layout: word(1),
            boot: u128::from(word(2)) << 64 | u128::from(word(3)),
            hash_seed: word(4),
            time_base: Time(word(5)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh(layout: u64, boot: u128, hash_seed: u64) -> Header {
        Header {
            layout,
            boot,
            hash_seed,
            time_base: Time(99),
        }
    }

    #[test]
    fn a_fitting_header_is_kept_and_another_starts_afresh() {
        let words: Vec<AtomicU64> = (0..16).map(|_| AtomicU64::new(0xdead)).collect();
        let first = fresh(1, 2 << 70 | 3, 11);
        assert_eq!(Header::open(&words, first), Some(Found::Fresh(first)));
        assert!(
            words[Header::WORDS..]
                .iter()
                .all(|w| w.load(Ordering::Relaxed) == 0)
        );
        words[12].store(5, Ordering::Relaxed);

        let again = fresh(1, 2 << 70 | 3, 77);
        assert_eq!(Header::open(&words, again), Some(Found::Usable(first)));
        assert_eq!(words[12].load(Ordering::Relaxed), 5);

        for other in [fresh(2, 2 << 70 | 3, 77), fresh(2, 4, 78)] {
            words[12].store(5, Ordering::Relaxed);
            assert_eq!(Header::open(&words, other), Some(Found::Fresh(other)));
            assert_eq!(words[12].load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn a_header_torn_in_its_making_starts_afresh() {
        let words: Vec<AtomicU64> = (0..16).map(|_| AtomicU64::new(0)).collect();
        let header = fresh(1, 1, 1);
        let _ = Header::open(&words, header);
        words[0].store(0, Ordering::Relaxed);
        assert_eq!(Header::open(&words, header), Some(Found::Fresh(header)));
        assert_eq!(Header::open(&words[..7], header), None);
    }
}
