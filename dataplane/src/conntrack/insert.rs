//! Making, replacing, removing and re-deciding entries: what happens under a bucket's lock.
//!
//! The lock of an entry's primary bucket covers its coming to life, its removal, and its verdict
//! with its epochs. Who makes a translated entry has the locks of both of its tuples' primary
//! buckets, so that of two entries with one tuple in common the second always sees the first; after
//! that the lock is the hot line's tuple's. It is a try-lock with a bounded number of attempts; a worker
//! holds at most its own buckets' locks and one more, which it only *tries* to get, so that nobody
//! waits in a circle.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use super::candidates::Candidate;
use super::layout::{
    self, CONTROL, COUNTERS, Canonical, Control, ENDS, EPOCHS, Image, LAST_SEEN, PORTS, Place,
    TUPLE, pack_ends, pack_epochs, tick,
};
use super::sctp::{self, Tags};
use super::state::Step;
use super::storage::AtomicU64;
use super::table::{Read, count, entry_of, matches_ends};
use super::{Ends, Epochs, Facts, Handle, Inserted, NewEntry, Redecided, Storage, Table, window};
use crate::counters::RuleCounters;
use crate::snapshot::Incarnation;
use crate::{DropReason, Protocol, Time, Verdict};

/// Attempts at a lock before a packet is given up: some microseconds. A holder writes two cache
/// lines, so it lasts longer only if the holder has lost its core.
#[cfg(not(loom))]
const LOCK_ATTEMPTS: usize = 256;
#[cfg(loom)]
const LOCK_ATTEMPTS: usize = 2;

/// Entries looked at for one that may go, and notes of such that are tried.
pub(super) const EVICTION_SAMPLE: u32 = 32;

/// References used in a primary bucket up to which a new one goes there in any case. A look-up starts
/// there; with 4, one of 30 entries lies in its other bucket at 80 % of the capacity, and in a full
/// table both are full for less than one of a million.
const PRIMARY: usize = 4;

/// A bucket's lock, held.
struct Locked<'a> {
    word: &'a AtomicU64,
    bucket: u32,
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.word.store(0, Release);
    }
}

/// The locks that an insertion holds: of the primary bucket of its tuple, or those of both.
struct Locks<'a> {
    one: Locked<'a>,
    other: Option<Locked<'a>>,
}

impl Locks<'_> {
    fn holds(&self, bucket: u32) -> bool {
        self.one.bucket == bucket
            || (self.other.as_ref()).is_some_and(|other| other.bucket == bucket)
    }
}

/// The tuples under which a new entry will be found.
struct Tuples {
    /// What the other end gets; the hot line's.
    inner: Canonical,
    /// Where that is looked for.
    place: Place,
    /// Of a connection to be translated, what the initiator sends, and where that is looked for.
    outer: Option<(Canonical, Place)>,
}

/// Who is charged for a connection: its initiator, or the endpoint that the outside talks to
/// (semantics D15).
pub(super) fn payer(ends: &Ends) -> Option<Incarnation> {
    [ends.source, ends.destination]
        .into_iter()
        .find(|end| *end != Incarnation::NONE)
}

fn fits_protocol(facts: &Facts, protocol: Protocol) -> bool {
    facts.first_state().fits(protocol)
        && matches!(facts, Facts::Sctp(_)) == (protocol == Protocol::SCTP)
}

impl<S: Storage> Table<S> {
    /// Makes an entry. [`Inserted::Taken`] if its packets could not be told from another connection's.
    /// A DENIED, closing or closed one of the same tuple is replaced if this packet
    /// opens a connection anew; one with other ends or idle too long is always replaced.
    ///
    /// When the table or the endpoint's share is full, an idle, unreplied or closed entry makes
    /// room: the oldest of 32 from all over the table; for a share, the one that its endpoint left
    /// longest ago of the last 128, or else of those 32.
    ///
    /// Errors: `ConntrackFull`, `ConntrackQuota`, `ConntrackBusy`; `ConntrackInvalid` if the packet
    /// may not make an entry; `PolicyDenied` for a denied packet from the middle of a connection,
    /// which makes none; `Internal` if the facts are not of the key's protocol.
    pub fn insert(&self, new: &NewEntry, now: Time) -> Result<Inserted, DropReason> {
        if !fits_protocol(&new.facts, new.key.protocol) {
            return Err(DropReason::Internal);
        }
        if !new.facts.opens() {
            if !self.adopts(&new.facts, now) {
                return Err(DropReason::ConntrackInvalid);
            }
            if !new.verdict.accept {
                return Err(DropReason::PolicyDenied);
            }
        }
        let tuples = self.tuples(new);
        let Some(locks) = self.lock_both(&tuples) else {
            count(&self.counted.busy);
            return Err(DropReason::ConntrackBusy);
        };
        if let Some(other) = self.clear_the_way(new, &tuples, &locks, now)? {
            return Ok(other);
        }
        let payer = payer(&new.ends);
        if let Some(payer) = payer {
            self.charge(payer, &locks, now)?;
        }
        let made = self.place_entry(new, &tuples, &locks, now);
        match (made, payer) {
            (None, Some(payer)) => self.quota().discharge(payer),
            (Some(_), _) => count(&self.counted.inserted),
            (None, None) => {}
        }
        if let (Some(handle), Some(payer)) = (made, payer)
            && new.facts.first_state().is_evictable()
        {
            self.candidates.note(payer, handle.into());
        }
        let Some(handle) = made else {
            count(&self.counted.full);
            return Err(DropReason::ConntrackFull);
        };
        Ok(Inserted::New(handle))
    }

    fn tuples(&self, new: &NewEntry) -> Tuples {
        let inner = match &new.translation {
            Some(translation) => translation.inner(&new.key),
            None => new.key,
        };
        let inner = Canonical::of(&inner);
        let outer = new.translation.map(|translation| {
            let outer = Canonical::of(&translation.outer(&new.key));
            (outer, self.place(&outer))
        });
        Tuples {
            inner,
            place: self.place(&inner),
            outer,
        }
    }

    /// Takes the locks of the primary buckets, the lower one first, so that two insertions do not keep
    /// each other's.
    fn lock_both(&self, tuples: &Tuples) -> Option<Locks<'_>> {
        let inner = tuples.place.first;
        let outer = tuples.outer.map_or(inner, |(_, place)| place.first);
        let one = self.lock(inner.min(outer), LOCK_ATTEMPTS)?;
        let other = match inner != outer {
            true => Some(self.lock(inner.max(outer), LOCK_ATTEMPTS)?),
            false => None,
        };
        Some(Locks { one, other })
    }

    /// Removes the entries that have to go for a new one; what became of the insertion if there is one
    /// that stays.
    fn clear_the_way(
        &self,
        new: &NewEntry,
        tuples: &Tuples,
        locks: &Locks<'_>,
        now: Time,
    ) -> Result<Option<Inserted>, DropReason> {
        let back = tuples.inner.reversed();
        loop {
            // Under the first packet's tuple the packet's own, under the other one a stranger's.
            let (first, place) = match &tuples.outer {
                Some((outer, place)) => (outer, place),
                None => (&tuples.inner, &tuples.place),
            };
            let own = |image: &Image| image.direction_of(first).map(Some);
            let strange = |image: &Image| image.direction_of(&back).map(|_| None);
            let found = match &tuples.outer {
                None => self.find_where(place, |image| own(image).or_else(|| strange(image))),
                Some(_) => self
                    .find_where(place, own)
                    .or_else(|| self.find_where(&tuples.place, strange)),
            };
            let Some((image, direction)) = found else {
                return Ok(None);
            };
            let (goes, stays) = match direction {
                Some(original) => {
                    let handle = self.hit(&image, original, place.first).handle;
                    let goes = self.gives_way(&image, original, new, now);
                    (goes, Inserted::Raced(handle))
                }
                // A stranger's packets only look like those that would come back.
                None => (self.is_expired(&image, now), Inserted::Taken),
            };
            if !goes {
                if let Inserted::Raced(_) = stays {
                    count(&self.counted.raced);
                }
                return Ok(Some(stays));
            }
            let version = image.control.version();
            let is_same = |now: &Image| now.control.version() == version;
            if !self.remove_if(&image, Some(locks), is_same) {
                // A translated entry's lock is another bucket's, and somebody has it.
                count(&self.counted.busy);
                return Err(DropReason::ConntrackBusy);
            }
            count(&self.counted.replaced);
        }
    }

    /// Whether an entry to which the packet belongs has to go for a new one.
    fn gives_way(&self, old: &Image, original: bool, new: &NewEntry, now: Time) -> bool {
        let is_other = match new.translation {
            // The packet does not show who is at the backend's address.
            Some(_) => old.flow() == new.key && old.ends() != new.ends,
            None => false,
        };
        if is_other || !matches_ends(old, original, &new.ends) || self.is_expired(old, now) {
            return true;
        }
        let step = self.step(old.control, old.state, original, &new.facts);
        step == Ok(Step::Restart)
    }

    fn charge(&self, payer: Incarnation, locks: &Locks<'_>, now: Time) -> Result<(), DropReason> {
        let limit = self.settings.quota_per_endpoint;
        let quota = self.quota();
        if quota.charge(payer, limit)
            || self.evict(Some(payer), locks, now) && quota.charge(payer, limit)
        {
            return Ok(());
        }
        count(&self.counted.quota);
        Err(DropReason::ConntrackQuota)
    }

    /// Takes a free entry, writes it and lets it be found.
    fn place_entry(
        &self,
        new: &NewEntry,
        tuples: &Tuples,
        locks: &Locks<'_>,
        now: Time,
    ) -> Option<Handle> {
        let entry = match self.take_entry() {
            Some(entry) => entry,
            None if self.evict(None, locks, now) => self.take_entry()?,
            None => return None,
        };
        let version = Control(self.hot(entry, CONTROL).load(Acquire)).version();
        // From here on nobody takes it for live; whoever still reads an old image will see that.
        self.hot(entry, CONTROL)
            .store(Control::writing(version).0, Release);
        self.write(entry, version, new, &tuples.inner, now);
        let outer = tuples.outer.as_ref().map(|(_, place)| place);
        let can_be_found = self.refer(entry, &tuples.place, locks, now)
            && outer.is_none_or(|place| self.refer(entry, place, locks, now));
        if !can_be_found {
            self.forget_references(entry, [Some(&tuples.place), outer]);
            self.release(entry, version);
            return None;
        }
        self.storage.words()[layout::H_LIVE].fetch_add(1, Relaxed);
        let control = Control::live(version, new.facts.first_state(), new.verdict);
        self.hot(entry, CONTROL).store(control.0, Release);
        Some(Handle {
            entry,
            bucket: tuples.place.first,
            version,
        })
    }

    fn write(&self, entry: u32, version: u16, new: &NewEntry, canonical: &Canonical, now: Time) {
        for (i, word) in canonical.addresses.into_iter().enumerate() {
            self.hot(entry, TUPLE + i).store(word, Release);
        }
        if let Some(translation) = &new.translation {
            let words = layout::pack_translation(translation.service, new.key.sender());
            for (to, word) in self.translation(entry).iter().zip(words) {
                to.store(word, Release);
            }
        }
        let ports = canonical.ports_word(new.ends.ingress, new.translation.is_some());
        self.hot(entry, PORTS).store(ports, Release);
        self.hot(entry, ENDS).store(pack_ends(&new.ends), Release);
        self.hot(entry, EPOCHS)
            .store(pack_epochs(new.epochs), Release);
        let [last_seen, counters] = layout::first_seen(version, tick(now), new.counters);
        self.cold(entry, LAST_SEEN).store(last_seen, Release);
        self.cold(entry, COUNTERS).store(counters, Release);
        match &new.facts {
            Facts::Tcp(tcp) if self.settings.strict_tcp => {
                for (side, known) in window::first(tcp).iter().enumerate() {
                    self.write_side(entry, version, side, known);
                }
            }
            Facts::Sctp(facts) => {
                let mut tags = Tags::default();
                if sctp::is_init(facts) {
                    tags.by_direction[1] = Some(facts.initiate_tag);
                }
                self.write_tags(entry, version, tags);
            }
            _ => {}
        }
    }

    /// Writes a reference to the entry into one of its buckets: the primary one while at most
    /// [`PRIMARY`] of its references are used, else the emptier one.
    fn refer(&self, entry: u32, place: &Place, locks: &Locks<'_>, now: Time) -> bool {
        let word = layout::reference(place, entry);
        if self.refer_in(word, place) {
            return true;
        }
        for bucket in [place.first, place.second] {
            for reference in self.references(bucket) {
                let Some(victim) = entry_of(reference.load(Acquire)) else {
                    continue;
                };
                let may_go = |image: &Image| self.may_go(image, None, now);
                if let Read::Image(image, ()) = self.read(victim)
                    && may_go(&image)
                    && self.remove_if(&image, Some(locks), may_go)
                {
                    count(&self.counted.evicted);
                    return self.refer_in(word, place);
                }
            }
        }
        false
    }

    pub(super) fn refer_in(&self, word: u64, place: &Place) -> bool {
        let used = |bucket: u32| {
            let references = self.references(bucket);
            references.iter().filter(|r| r.load(Relaxed) != 0).count()
        };
        let first = used(place.first);
        let order = if first <= PRIMARY || first <= used(place.second) {
            [place.first, place.second]
        } else {
            [place.second, place.first]
        };
        order.into_iter().any(|bucket| {
            self.references(bucket)
                .iter()
                .any(|reference| reference.compare_exchange(0, word, AcqRel, Relaxed).is_ok())
        })
    }

    /// Clears the references to an entry in these buckets.
    pub(super) fn forget_references(&self, entry: u32, places: [Option<&Place>; 2]) {
        for place in places.into_iter().flatten() {
            for bucket in [place.first, place.second] {
                for reference in self.references(bucket) {
                    if entry_of(reference.load(Relaxed)) == Some(entry) {
                        reference.store(0, Release);
                    }
                }
            }
        }
    }

    /// Where the initiator's packets look for a translated entry.
    pub(super) fn outer_place(&self, image: &Image) -> Option<Place> {
        let is_translated = image.is_translated();
        is_translated.then(|| self.place(&Canonical::of(&image.outer_key())))
    }

    /// Removes an entry whose primary bucket is locked by the caller.
    fn remove_locked(&self, image: &Image, place: &Place) {
        let version = image.control.next_version();
        // A swap, so that it follows any state change that a worker has just made without the lock;
        // who is about to make one sees another word now and gives up.
        self.hot(image.entry, CONTROL)
            .swap(Control::writing(version).0, AcqRel);
        let outer = self.outer_place(image);
        self.forget_references(image.entry, [Some(place), outer.as_ref()]);
        if let Some(payer) = payer(&image.ends()) {
            self.quota().discharge(payer);
        }
        self.storage.words()[layout::H_LIVE].fetch_sub(1, Relaxed);
        self.release(image.entry, version);
    }

    /// Gives an entry that nobody refers to back to the free list.
    pub(super) fn release(&self, entry: u32, version: u16) {
        self.hot(entry, CONTROL)
            .store(Control::free(version).0, Release);
        self.push_free(entry);
    }

    /// Locks the image's bucket (unless its lock is among `held`), looks whether the entry is still the
    /// one in the image and still `wanted` gone, and removes it.
    fn remove_if(
        &self,
        image: &Image,
        held: Option<&Locks<'_>>,
        wanted: impl Fn(&Image) -> bool,
    ) -> bool {
        let place = self.place_of(image);
        let is_held = held.is_some_and(|locks| locks.holds(place.first));
        let lock = (!is_held).then(|| self.lock(place.first, 1));
        let _lock = match lock {
            Some(None) => return false,
            lock => lock.flatten(),
        };
        match self.read(image.entry) {
            Read::Image(now, ()) if now.control.version() == image.control.version() => {
                let goes = wanted(&now);
                if goes {
                    self.remove_locked(&now, &place);
                }
                goes
            }
            _ => false,
        }
    }

    /// Removes the entry, of which no caller holds a lock, if it is still the one in the image and still
    /// `wanted` gone.
    pub(super) fn remove_entry(&self, image: &Image, wanted: impl Fn(&Image) -> bool) -> bool {
        self.remove_if(image, None, wanted)
    }

    pub(super) fn read(&self, entry: u32) -> Read<()> {
        if entry >= self.settings.capacity {
            return Read::Other;
        }
        self.read_if(entry, |_| Some(()))
    }

    fn may_go(&self, image: &Image, of: Option<Incarnation>, now: Time) -> bool {
        (of.is_none() || payer(&image.ends()) == of)
            && (image.state.is_evictable() || self.is_expired(image, now))
    }

    /// Removes an unreplied, closed or idle entry, of one payer if given. An established connection
    /// that has been DENIED stays, lest its server open it from the other side.
    fn evict(&self, of: Option<Incarnation>, locks: &Locks<'_>, now: Time) -> bool {
        let noted = of.and_then(|payer| self.noted(payer, now));
        let Some(victim) = noted.or_else(|| self.sampled(of, now)) else {
            return false;
        };
        let gone = self.remove_if(&victim, Some(locks), |image| self.may_go(image, of, now));
        if gone {
            count(&self.counted.evicted);
        }
        gone
    }

    /// The first of the payer's notes that still holds, of [`EVICTION_SAMPLE`].
    fn noted(&self, payer: Incarnation, now: Time) -> Option<Image> {
        let notes = (0..EVICTION_SAMPLE).map_while(|_| self.candidates.take(payer));
        let mut images = notes.filter_map(|note| match self.read(note.entry) {
            Read::Image(image, ()) if image.control.version() == note.version => Some(image),
            _ => None,
        });
        images.find(|image| self.may_go(image, Some(payer), now))
    }

    /// The oldest of [`EVICTION_SAMPLE`] that may go. They come from all over the table: entries are
    /// given out in order, so that neighbours are much alike.
    fn sampled(&self, of: Option<Incarnation>, now: Time) -> Option<Image> {
        let used = u64::from(self.high_water());
        let sample = u64::from(EVICTION_SAMPLE).min(used);
        let start = self.hand.fetch_add(1, Relaxed);
        let spread = (0..sample).map(|i| ((start + i * used / sample) % used) as u32);
        spread
            .filter_map(|entry| match self.read(entry) {
                Read::Image(image, ()) if self.may_go(&image, of, now) => Some(image),
                _ => None,
            })
            .reduce(|oldest, image| {
                let (than, seen) = (oldest.last_seen as u32, image.last_seen as u32);
                if window::after(than, seen) {
                    image
                } else {
                    oldest
                }
            })
    }

    /// Takes a bucket's lock.
    fn lock(&self, bucket: u32, attempts: usize) -> Option<Locked<'_>> {
        let word = self.lock_word(bucket);
        for _ in 0..attempts {
            if word.compare_exchange(0, 1, Acquire, Relaxed).is_ok() {
                return Some(Locked { word, bucket });
            }
            #[cfg(not(loom))]
            std::hint::spin_loop();
            #[cfg(loom)]
            loom::thread::yield_now();
        }
        None
    }

    /// Stores a new verdict and the counters of what decided, unless one of the same or a newer
    /// epoch stands there already: a worker that still holds an older snapshot never undoes a newer
    /// decision. `epochs` in the initiator's orientation.
    pub fn redecide(
        &self,
        handle: Handle,
        verdict: Verdict,
        counters: RuleCounters,
        epochs: Epochs,
    ) -> Redecided {
        let Some(_lock) = self.lock(handle.bucket, LOCK_ATTEMPTS) else {
            count(&self.counted.busy);
            return Redecided::Busy;
        };
        let control = self.hot(handle.entry, CONTROL);
        let mut seen = Control(control.load(Acquire));
        if seen.state().is_none() || seen.version() != handle.version {
            return Redecided::Gone;
        }
        let stored = layout::unpack_epochs(self.hot(handle.entry, EPOCHS).load(Acquire));
        let counted = self.cold(handle.entry, COUNTERS);
        let word = counted.load(Acquire);
        let before = layout::unpack_counters(word);
        if stored.is_newer_than(epochs) || !epochs.is_newer_than(stored) {
            return Redecided::Newer {
                verdict: seen.verdict(),
                counters: before,
            };
        }
        // Verdict and counters first, epochs after them: a reader between the two takes the new
        // verdict for an old one and asks again, never the other way round.
        while let Err(now) =
            control.compare_exchange(seen.0, seen.with_verdict(verdict).0, AcqRel, Acquire)
        {
            // Only the state can have changed: the rest is under our lock.
            seen = Control(now);
        }
        counted.store(layout::with_counters(word, counters), Release);
        self.hot(handle.entry, EPOCHS)
            .store(pack_epochs(epochs), Release);
        count(&self.counted.redecided);
        Redecided::Stored { before }
    }
}

impl From<Handle> for Candidate {
    fn from(handle: Handle) -> Self {
        Candidate {
            entry: handle.entry,
            version: handle.version,
        }
    }
}
