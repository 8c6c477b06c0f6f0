//! How many entries each endpoint has: counters by incarnation, in an open-addressed window.
//!
//! A word is (incarnation, count). An incarnation's counters lie in a window of 16 words; a counter
//! at 0 may be taken by another. Two workers that meet an incarnation for the first time at once may
//! make two counters for it, so the count is their sum.

use std::sync::atomic::Ordering::{AcqRel, Acquire};

use super::AtomicU64;
use super::layout::fold;
use crate::snapshot::Incarnation;

const WINDOW: usize = 16;

/// The counters.
pub(super) struct Quota<'a>(pub &'a [AtomicU64]);

impl Quota<'_> {
    fn window(&self, incarnation: Incarnation) -> impl Iterator<Item = &AtomicU64> {
        let mask = self.0.len() - 1;
        let start = fold(u64::from(incarnation.0), 0x9e37_79b9_7f4a_7c15) as usize;
        (0..WINDOW).map(move |i| &self.0[(start + i) & mask])
    }

    /// Entries of this endpoint.
    pub fn count(&self, incarnation: Incarnation) -> u32 {
        self.window(incarnation)
            .map(|word| word.load(Acquire))
            .filter(|word| (word >> 32) as u32 == incarnation.0)
            .fold(0, |sum, word| sum.saturating_add(word as u32))
    }

    /// Counts one more, unless there are `limit` already or no counter is to be had. Workers that
    /// charge one endpoint at the same moment may pass the limit by one each.
    pub fn charge(&self, incarnation: Incarnation, limit: u32) -> bool {
        if self.count(incarnation) >= limit {
            return false;
        }
        let own = |word: u64| (word >> 32) as u32 == incarnation.0 && word as u32 != u32::MAX;
        let free = |word: u64| word as u32 == 0;
        self.add(incarnation, own) || self.add(incarnation, free)
    }

    fn add(&self, incarnation: Incarnation, usable: impl Fn(u64) -> bool) -> bool {
        self.window(incarnation).any(|counter| {
            counter
                .fetch_update(AcqRel, Acquire, |word| {
                    let count = u64::from(word as u32) + 1;
                    usable(word).then_some(u64::from(incarnation.0) << 32 | count)
                })
                .is_ok()
        })
    }

    /// Counts one less.
    pub fn discharge(&self, incarnation: Incarnation) {
        let _ = self.window(incarnation).any(|counter| {
            counter
                .fetch_update(AcqRel, Acquire, |word| {
                    ((word >> 32) as u32 == incarnation.0 && word as u32 > 0).then(|| word - 1)
                })
                .is_ok()
        });
    }
}
