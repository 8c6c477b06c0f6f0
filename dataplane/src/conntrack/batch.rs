//! Look-ups in stages, for many packets at once.
//!
//! A look-up waits for memory twice: for its bucket, then for its entry. Those of different packets
//! do not wait for each other, so a burst takes each step for all of its packets before the next:
//! hash and ask for the buckets ([`Table::probe`]), compare tags and ask for the entries
//! ([`Table::aim`]), read the entries ([`Table::meet`]).
//!
//! The first two steps decide nothing: what they find is a hint where to read. The entry is read,
//! and has to be the packet's, when its turn comes, after all packets before it have had their say.
//! So a burst's packets are treated as if one came after the other.

use std::sync::atomic::Ordering::Acquire;

use super::layout::{
    self, COLD, CONTROL, COUNTERS, Canonical, Control, ENDS, ENTRY, EPOCHS, Hash, Image, LAST_SEEN,
    PORTS, TUPLE, WAYS,
};
use super::storage::AtomicU64;
use super::table::{Patience, Read, class, entry_of, matches_ends};
use super::{Class, Ends, Epochs, Facts, Handle, Hit, State, Storage, Table, Translated};
use crate::counters::RuleCounters;
use crate::shm::prefetch;
use crate::{DropReason, FlowKey, Time};

/// Look-ups that go through the stages together.
pub const BATCH: usize = 32;

/// No entry's number.
const NOWHERE: u32 = u32::MAX;

/// A packet's key on its way to its entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    canonical: Canonical,
    hash: Hash,
    bucket: u32,
    /// The entry that is perhaps the packet's.
    entry: u32,
}

impl Probe {
    /// Of no key.
    pub const EMPTY: Probe = Probe {
        canonical: Canonical {
            addresses: [0; 4],
            ports: 0,
            from_lower: false,
        },
        hash: Hash::EMPTY,
        bucket: 0,
        entry: NOWHERE,
    };

    /// Whether no entry was seen that is perhaps the packet's.
    pub fn is_lost(&self) -> bool {
        self.entry == NOWHERE
    }

    /// The key.
    pub fn key(&self) -> FlowKey {
        self.canonical.key()
    }
}

/// The entry that a packet has met, as it is now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Met {
    handle: Handle,
    original: bool,
    control: Control,
    state: State,
    ports: u64,
    epochs: u64,
    counters: u64,
    last_seen: u64,
    patience: Patience,
}

impl Met {
    /// Whether what stands in the entry is an accept that was decided under the packet's own epochs,
    /// `epochs` being those of the packet's ends in its orientation.
    #[inline]
    pub fn is_accepted_under(&self, epochs: PackedEpochs) -> bool {
        let turned = epochs.0.rotate_left(if self.original { 0 } else { 32 });
        self.control.accepts() & (turned == self.epochs)
    }

    /// Whether the packet goes the initiator's way.
    pub fn is_original(&self) -> bool {
        self.original
    }

    /// The counters of the rules that decided.
    #[inline]
    pub fn counters(&self) -> RuleCounters {
        layout::unpack_counters(self.counters)
    }

    fn hit(&self) -> Hit {
        let verdict = self.control.verdict();
        Hit {
            handle: self.handle,
            original_direction: self.original,
            verdict,
            denied: !verdict.accept,
            counters: self.counters(),
            epochs: layout::unpack_epochs(self.epochs),
            state: self.state,
            ingress: layout::ingress(self.ports),
            // Translated ones are not met.
            translated: None,
        }
    }
}

/// The epochs of a packet's ends as an entry holds them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackedEpochs(u64);

impl PackedEpochs {
    /// Of ends that are not local.
    pub const NONE: PackedEpochs = PackedEpochs(0);
}

impl From<Epochs> for PackedEpochs {
    #[inline]
    fn from(epochs: Epochs) -> Self {
        PackedEpochs(layout::pack_epochs(epochs))
    }
}

impl<S: Storage> Table<S> {
    /// What [`Table::lookup`] says to each key. Answers as many as both slices have; best are
    /// [`BATCH`] or a multiple of it.
    pub fn lookup_batch(&self, keys: &[(FlowKey, Ends)], now: Time, hits: &mut [Option<Hit>]) {
        for (keys, hits) in keys.chunks(BATCH).zip(hits.chunks_mut(BATCH)) {
            self.lookup_lanes(keys, now, hits);
        }
    }

    fn lookup_lanes(&self, keys: &[(FlowKey, Ends)], now: Time, hits: &mut [Option<Hit>]) {
        let mut probes = [Probe::EMPTY; BATCH];
        let probes = &mut probes[..keys.len().min(hits.len()).min(BATCH)];
        for (probe, (key, _)) in probes.iter_mut().zip(keys) {
            self.probe(key, probe);
        }
        self.aim_all(probes.iter_mut());
        for ((probe, (key, ends)), hit) in probes.iter().zip(keys).zip(hits) {
            *hit = if probe.entry == NOWHERE {
                None
            } else if let Some(met) = self.meet(probe, ends, now) {
                Some(met.hit())
            } else {
                // Another's entry with the same tag, or one that changed hands meanwhile.
                self.lookup(key, ends, now)
            };
        }
    }

    /// The first step: hashes the key and asks for its primary bucket.
    #[inline(always)]
    pub(crate) fn probe(&self, key: &FlowKey, probe: &mut Probe) {
        let canonical = Canonical::of(key);
        let hash = Hash::of(&canonical.addresses, canonical.ports, self.seed);
        let bucket = hash.first(self.layout.buckets);
        prefetch(self.lock_word(bucket));
        probe.canonical = canonical;
        probe.hash = hash;
        probe.bucket = bucket;
        probe.entry = NOWHERE;
    }

    /// The second step for all: an entry that lies in its other bucket costs a step more.
    #[inline]
    pub(crate) fn aim_all<'p>(&self, probes: impl Iterator<Item = &'p mut Probe>) {
        let mut elsewhere = arrayvec::ArrayVec::<(&mut Probe, u32), { 2 * BATCH }>::new();
        for probe in probes {
            if !self.aim(probe, probe.bucket) {
                let second = probe.hash.second(self.seed, self.layout.buckets);
                prefetch(self.lock_word(second));
                // What does not fit is found when its turn comes.
                let _ = elsewhere.try_push((probe, second));
            }
        }
        for (probe, second) in elsewhere {
            self.aim(probe, second);
        }
    }

    /// Compares the tags of a bucket, and asks for the entry of the first that is alike. False if
    /// there is none.
    #[inline(always)]
    fn aim(&self, probe: &mut Probe, bucket: u32) -> bool {
        let references = self.references(bucket);
        let Some(references) = references.first_chunk::<WAYS>() else {
            return false;
        };
        let tag = u64::from(probe.hash.tag()) << 32;
        let mut alike = 0_u32;
        for (way, reference) in references.iter().enumerate() {
            let differs = (reference.load(Acquire) ^ tag) >> 32;
            alike |= u32::from(differs == 0) << way;
        }
        let reference = match references.get(alike.trailing_zeros() as usize) {
            Some(reference) => reference.load(Acquire),
            None => return false,
        };
        let Some(entry) = entry_of(reference) else {
            return false;
        };
        let Some(words) = self.entry_words(entry) else {
            return false;
        };
        prefetch(&words[0]);
        prefetch(&words[COLD]);
        probe.entry = entry;
        true
    }

    /// The third step: the entry, if it is the packet's, live, of these ends, not expired and not
    /// translated.
    /// Whoever gets none looks it up by [`Table::lookup`].
    #[inline(always)]
    pub(crate) fn meet(&self, probe: &Probe, ends: &Ends, now: Time) -> Option<Met> {
        let words = self.entry_words(probe.entry)?;
        let load = |word: usize| words[word].load(Acquire);
        // As in `read_if`: control, what it covers, control again.
        let first = Control(load(CONTROL));
        let ports = load(PORTS);
        let canonical = &probe.canonical;
        let original = canonical.is_original(ports);
        let own = layout::pack_ends(ends).rotate_left(if original { 0 } else { 32 });
        let mut differs = load(ENDS) ^ own;
        for (word, address) in canonical.addresses.iter().enumerate() {
            differs |= load(TUPLE + word) ^ address;
        }
        let epochs = load(EPOCHS);
        let last_seen = load(COLD + LAST_SEEN);
        let counters = load(COLD + COUNTERS);
        let last = Control(load(CONTROL));
        first.state()?;
        let state = last.state()?;
        let strange = original & (layout::ingress(ports) != ends.ingress);
        let same = canonical.same_plain_ports(ports) & (differs == 0) & !strange;
        let whole = last.version() == first.version();
        let patience = self.patience(last, state);
        if !(same & whole) || patience.is_over(last_seen, now) {
            return None;
        }
        Some(Met {
            handle: Handle {
                entry: probe.entry,
                bucket: probe.bucket,
                version: last.version(),
            },
            original,
            control: last,
            state,
            ports,
            epochs,
            counters,
            last_seen,
            patience,
        })
    }

    /// The third step for a packet that has not met its entry: the entry, if it is that of the packet's
    /// translated connection, live, of its sender and not expired.
    pub(crate) fn meet_translated(
        &self,
        probe: &Probe,
        ends: &Ends,
        now: Time,
    ) -> Option<(Met, Translated)> {
        if probe.entry >= self.settings.capacity {
            return None;
        }
        let direction = |image: &Image| {
            let direction = image
                .is_translated()
                .then(|| image.direction_of(&probe.canonical));
            direction.flatten()
        };
        let Read::Image(image, original) = self.read_if(probe.entry, direction) else {
            return None;
        };
        let patience = self.patience(image.control, image.state);
        if !matches_ends(&image, original, ends) || patience.is_over(image.last_seen, now) {
            return None;
        }
        let hit = self.hit(&image, original, probe.bucket);
        let met = Met {
            handle: hit.handle,
            original,
            control: image.control,
            state: image.state,
            ports: image.ports,
            epochs: image.epochs,
            counters: image.counters,
            last_seen: image.last_seen,
            patience,
        };
        Some((met, hit.translated?))
    }

    /// [`Table::track`] of an entry that a packet has met.
    #[inline(always)]
    pub(crate) fn track_met(
        &self,
        met: &Met,
        facts: &Facts,
        now: Time,
    ) -> Result<Class, DropReason> {
        let followed = self.settings.strict_tcp & matches!(facts, Facts::Tcp(_));
        if met.control.accepts() & facts.goes_on(met.state, met.original) & !followed {
            self.touch_seen(met.handle, met.patience, met.last_seen, now);
            return Ok(class(met.original));
        }
        self.advance(met.handle, met.original, facts, now)
    }

    #[inline]
    fn entry_words(&self, entry: u32) -> Option<&[AtomicU64; ENTRY]> {
        if entry >= self.settings.capacity {
            return None;
        }
        let start = self.layout.entry(entry);
        self.storage.words().get(start..)?.first_chunk()
    }
}
