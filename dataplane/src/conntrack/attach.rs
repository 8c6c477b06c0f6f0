//! Taking over the table that an earlier process left in shared memory.
//!
//! The entries are the truth; buckets, locks, quota counters and free list are made anew from them.
//! So whatever the earlier process was doing when it was killed, an entry that was not complete is
//! discarded.
//!
//! Every verdict is decided again on its connection's next packet. Nobody can say that the epochs in
//! the table and those of the new process count on from each other: its state may have been lost.
//! The counters of rules are the earlier process' own, so that no entry names one any more.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::candidates::Candidate;
use super::insert::payer;
use super::layout::{
    self, CONTROL, COUNTERS, Canonical, Control, EPOCHS, Image, Layout, tag_of, tick,
};
use super::table::Read;
use super::{Attached, Epochs, Settings, Storage, Table, TableError};
use crate::counters::RuleCounters;
use crate::{Address, Protocol, Time};

impl<S: Storage> Table<S> {
    /// Takes over the table that an earlier process left in `storage`. Nobody else may use it.
    ///
    /// What is torn, contradictory or idle too long is discarded, the rest is decided again by its
    /// next packet ([`Hit::epochs`](super::Hit::epochs) are [`Epoch::NONE`](crate::snapshot::Epoch)).
    /// The hash seed is the table's, not
    /// the settings'. `storage` must be of this boot: times are of the monotonic clock.
    pub fn attach(
        storage: S,
        settings: Settings,
        now: Time,
    ) -> Result<(Self, Attached), TableError> {
        let mut table = Self::over(storage, settings)?;
        table.check_header()?;
        let words = table.storage.words();
        table.seed = [layout::H_SEED, layout::H_SEED + 1].map(|word| words[word].load(Acquire));
        table.clear();
        let mut attached = Attached {
            kept: 0,
            discarded: 0,
        };
        let high_water = &table.storage.words()[layout::H_HIGH_WATER];
        for entry in (0..table.settings.capacity).rev() {
            let control = Control(table.hot(entry, CONTROL).load(Acquire));
            if table.keep(entry, now) {
                high_water.fetch_max(u64::from(entry) + 1, Relaxed);
                attached.kept += 1;
                continue;
            }
            attached.discarded += u32::from(control.0 != Control::free(control.version()).0);
            if entry < table.high_water() {
                table.release(entry, control.next_version());
            } else {
                table.forget(entry);
            }
        }
        Ok((table, attached))
    }

    fn check_header(&self) -> Result<(), TableError> {
        let header = |word: usize| self.storage.words()[word].load(Acquire);
        let found = header(layout::H_LAYOUT);
        if found != layout::LAYOUT {
            return Err(TableError::Layout {
                expected: layout::LAYOUT,
                found,
            });
        }
        let Layout {
            capacity,
            buckets,
            quota,
            ..
        } = self.layout;
        for (what, word, expected) in [
            ("connections", layout::H_CAPACITY, capacity),
            ("buckets", layout::H_BUCKETS, buckets),
            ("quota counters", layout::H_QUOTA, quota),
        ] {
            let (found, expected) = (header(word), expected as u64);
            if found != expected {
                return Err(TableError::Size {
                    what,
                    expected,
                    found,
                });
            }
        }
        Ok(())
    }

    /// Puts an entry back into the buckets, if it is whole.
    fn keep(&self, entry: u32, now: Time) -> bool {
        let Read::Image(image, ()) = self.read(entry) else {
            return false;
        };
        if !is_sound(&image, now) || self.is_expired(&image, now) {
            return false;
        }
        let own = Canonical::of(&image.key());
        let outer = image
            .is_translated()
            .then(|| Canonical::of(&image.outer_key()));
        // Packets that would be taken for this connection's.
        let packets = [outer.unwrap_or(own), own.reversed()];
        let twin = |other: &Image| packets.iter().find_map(|c| other.direction_of(c));
        let places = [
            Some(self.place(&own)),
            outer.map(|outer| self.place(&outer)),
        ];
        let mut both = places.iter().flatten();
        if both
            .clone()
            .any(|place| self.find_where(place, twin).is_some())
            || !both.all(|place| self.refer_in(layout::reference(place, entry), place))
        {
            self.forget_references(entry, places.each_ref().map(Option::as_ref));
            return false;
        }
        let undecided = layout::pack_epochs(Epochs::default());
        self.hot(entry, EPOCHS).store(undecided, Release);
        let uncounted = layout::with_counters(image.counters, RuleCounters::default());
        self.cold(entry, COUNTERS).store(uncounted, Release);
        if let Some(payer) = payer(&image.ends()) {
            self.quota().charge(payer, u32::MAX);
            if image.state.is_evictable() {
                let version = image.control.version();
                self.candidates.note(payer, Candidate { entry, version });
            }
        }
        self.storage.words()[layout::H_LIVE].fetch_add(1, Relaxed);
        true
    }
}

/// Whether the words of an entry agree with each other.
fn is_sound(image: &Image, now: Time) -> bool {
    let key = image.key();
    let ordered = {
        let [a, b, c, d] = image.addresses;
        (a, b, image.ports as u16) <= (c, d, (image.ports >> 16) as u16)
    };
    let ports_agree = key.protocol.has_ports() || {
        // An echo's initiator asks, so its identifier stands in the source port.
        let icmp = matches!(key.protocol, Protocol::ICMP | Protocol::ICMPV6);
        key.destination_port == 0 && (icmp || key.source_port == 0)
    };
    let translation_agrees = !image.is_translated() || {
        let outer = image.outer_key();
        let is_v4 = key.source.is_v4();
        key.protocol.has_ports()
            && [outer.source, outer.destination].map(Address::is_v4) == [is_v4; 2]
    };
    ordered
        && ports_agree
        && translation_agrees
        && image.ports >> layout::PORTS_BITS == 0
        && image.state.fits(key.protocol)
        && tag_of(image.last_seen) == image.control.version()
        && image.last_seen as u32 <= tick(now)
        && image.created() <= tick(now)
}
