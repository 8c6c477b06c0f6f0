//! Walks over the whole table: expiry, removal of an endpoint, listing.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use super::layout::{Image, tick_start, unpack_counters, unpack_epochs};
use super::table::{Read, count};
use super::{Entry, Expired, Handle, Storage, Table};
use crate::Time;
use crate::snapshot::Incarnation;

impl<S: Storage> Table<S> {
    /// Removes idle entries among the next `budget` from `cursor` on. Entries whose bucket is
    /// locked wait for the next round; lookups do not match idle ones in any case.
    pub fn expire(&self, cursor: u32, budget: u32, now: Time) -> Expired {
        let high_water = self.high_water();
        let end = cursor.saturating_add(budget).min(high_water);
        let mut removed = 0;
        for entry in cursor..end {
            let idle = |image: &Image| self.is_expired(image, now);
            if let Read::Image(image, ()) = self.read(entry)
                && idle(&image)
                && self.remove_entry(&image, idle)
            {
                removed += 1;
            }
        }
        self.counted.expired.fetch_add(u64::from(removed), Relaxed);
        let cursor = if end >= high_water { 0 } else { end };
        Expired { cursor, removed }
    }

    /// Removes every entry of this endpoint, and says how many. Walks all that is in use: for the
    /// control thread, once every worker has acknowledged a snapshot without the endpoint. Packets
    /// no longer match its entries even before, for their ends differ.
    pub fn remove_endpoint(&self, incarnation: Incarnation) -> u32 {
        if incarnation == Incarnation::NONE {
            return 0;
        }
        let of = |image: &Image| {
            let ends = image.ends();
            ends.source == incarnation || ends.destination == incarnation
        };
        let slots = 0..self.high_water();
        slots.map(|entry| self.remove_where(entry, of)).sum()
    }

    /// Removes one entry, if it is still the one that was listed; whether it was. Its next packet is
    /// judged as one without a connection. For the control thread.
    pub fn remove(&self, entry: &Entry) -> bool {
        let Handle { version, .. } = entry.handle;
        let same = |image: &Image| image.control.version() == version;
        self.remove_where(entry.handle.entry, same) > 0
    }

    /// Removes the entry of a hit, if it is still that one and nobody has its bucket locked; whether it
    /// was removed. What it was translated to is no longer there.
    pub fn retire(&self, handle: Handle) -> bool {
        let Read::Image(image, ()) = self.read(handle.entry) else {
            return false;
        };
        let same = |image: &Image| image.control.version() == handle.version;
        let retired = same(&image) && self.remove_entry(&image, same);
        if retired {
            count(&self.counted.replaced);
        }
        retired
    }

    /// Empties a slot as long as it holds such an entry; how many it held.
    fn remove_where(&self, entry: u32, such: impl Fn(&Image) -> bool + Copy) -> u32 {
        let mut removed = 0;
        while let Read::Image(image, ()) = self.read(entry) {
            if !such(&image) {
                break;
            }
            if self.remove_entry(&image, such) {
                count(&self.counted.removed);
                removed += 1;
                continue;
            }
            // Somebody has locked the bucket, and is done in a moment.
            #[cfg(loom)]
            loom::thread::yield_now();
            #[cfg(not(loom))]
            std::thread::yield_now();
        }
        removed
    }

    /// The live entries, in no particular order; each is consistent in itself.
    pub fn entries(&self, now: Time) -> impl Iterator<Item = Entry> + '_ {
        self.entries_in(0..self.high_water(), now)
    }

    /// Those of [`Table::entries`] in these slots, of which [`Table::high_water`] are in use: a part
    /// of a listing that goes on later. An entry stays in its slot.
    pub fn entries_in(&self, slots: Range<u32>, now: Time) -> impl Iterator<Item = Entry> + '_ {
        let slots = slots.start..slots.end.min(self.high_water());
        slots.filter_map(move |entry| match self.read(entry) {
            Read::Image(image, ()) if !self.is_expired(&image, now) => Some(self.describe(&image)),
            _ => None,
        })
    }

    fn describe(&self, image: &Image) -> Entry {
        Entry {
            handle: Handle {
                entry: image.entry,
                bucket: self.place_of(image).first,
                version: image.control.version(),
            },
            key: image.flow(),
            translation: image.translated().map(|translated| translated.translation),
            ends: image.ends(),
            verdict: image.control.verdict(),
            counters: unpack_counters(image.counters),
            epochs: unpack_epochs(image.epochs),
            state: image.state,
            created: tick_start(image.created()),
            last_seen: tick_start(image.last_seen as u32),
            timeout_s: self.timeout_s(image),
        }
    }
}
