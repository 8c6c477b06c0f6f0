//! The table: making one, finding entries in it, and following their packets.

use std::sync::atomic::AtomicU64 as ProcessLocal;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use super::candidates::Candidates;
use super::insert::payer;
use super::layout::{
    self, CONTROL, COUNTERS, Canonical, Control, ENDS, EPOCHS, Hash, Image, LAST_SEEN, LOCK,
    Layout, PORTS, Place, SIDE, TUPLE, WAYS, tag_of, tagged, tick,
};
use super::quota::Quota;
use super::sctp::Tags;
use super::state::Step;
use super::storage::AtomicU64;
use super::window::{self, Side};
use super::{
    Class, Counters, Ends, Facts, Handle, Hit, Settings, State, Storage, TableError, Timeouts,
};
use crate::snapshot::Incarnation;
use crate::{DropReason, FlowKey, Protocol, Time};

/// How often a lookup starts again because an entry changed hands under it.
const LOOKUP_ATTEMPTS: usize = 4;

/// The connection table, shared by all workers. See the module's documentation.
pub struct Table<S> {
    pub(super) storage: S,
    pub(super) settings: Settings,
    pub(super) layout: Layout,
    pub(super) seed: [u64; 2],
    pub(super) patience: [Patience; 32],
    pub(super) counted: Counted,
    pub(super) candidates: Candidates,
    /// Where eviction looks next.
    pub(super) hand: ProcessLocal,
    adopt_until: ProcessLocal,
}

/// How long an entry may be silent, ticks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Patience {
    /// Until it has expired.
    idle: i32,
    /// Until a packet is noted again.
    lag: i32,
}

impl Patience {
    fn of(timeout_s: u32) -> Patience {
        let ticks = layout::ticks(timeout_s);
        let lag = layout::lag(ticks);
        // The last packet may have been so much later than what is noted.
        let idle = ticks.saturating_add(lag);
        Patience {
            idle: i32::try_from(idle).unwrap_or(i32::MAX),
            lag: lag as i32,
        }
    }

    /// By state, and of DENIED entries at 0, which is no state's number.
    fn by_state(timeouts: &Timeouts) -> [Patience; 32] {
        let mut patience = [Patience::of(timeouts.denied_s); 32];
        for state in State::ALL {
            patience[*state as usize] = Patience::of(state.timeout_s(timeouts));
        }
        patience
    }

    /// Whether an entry with this word [`LAST_SEEN`] has expired.
    #[inline]
    pub fn is_over(self, last_seen: u64, now: Time) -> bool {
        tick(now).wrapping_sub(last_seen as u32) as i32 > self.idle
    }
}

/// [`Counters`], while they count. Nothing here is touched by packets of existing connections.
#[derive(Default)]
pub(super) struct Counted {
    pub inserted: ProcessLocal,
    pub expired: ProcessLocal,
    pub evicted: ProcessLocal,
    pub replaced: ProcessLocal,
    pub removed: ProcessLocal,
    pub redecided: ProcessLocal,
    pub raced: ProcessLocal,
    pub full: ProcessLocal,
    pub quota: ProcessLocal,
    pub busy: ProcessLocal,
}

pub(super) fn count(counter: &ProcessLocal) {
    counter.fetch_add(1, Relaxed);
}

impl<S: Storage> Table<S> {
    /// Words of storage that a table of these settings takes.
    pub fn words(settings: &Settings) -> usize {
        Layout::of(settings).words()
    }

    /// A new, empty table in `storage`, whatever lay there.
    pub fn new(storage: S, settings: Settings) -> Result<Self, TableError> {
        let table = Self::over(storage, settings)?;
        let words = table.storage.words();
        words[layout::H_LAYOUT].store(0, Release);
        table.clear();
        for entry in 0..table.settings.capacity {
            table.forget(entry);
        }
        words[layout::H_CAPACITY].store(table.layout.capacity as u64, Relaxed);
        words[layout::H_BUCKETS].store(table.layout.buckets as u64, Relaxed);
        words[layout::H_QUOTA].store(table.layout.quota as u64, Relaxed);
        words[layout::H_SEED].store(table.seed[0], Relaxed);
        words[layout::H_SEED + 1].store(table.seed[1], Relaxed);
        words[layout::H_LAYOUT].store(layout::LAYOUT, Release);
        Ok(table)
    }

    /// A table over `storage`, of which nothing has been looked at.
    pub(super) fn over(storage: S, settings: Settings) -> Result<Self, TableError> {
        for (what, value, max) in [
            ("capacity", settings.capacity, Settings::MAX_CAPACITY),
            ("endpoints", settings.endpoints, Settings::MAX_ENDPOINTS),
        ] {
            if value == 0 || value > max {
                return Err(TableError::Range { what, value, max });
            }
        }
        let layout = Layout::of(&settings);
        let (words, needed) = (storage.words().len(), layout.words());
        if words < needed {
            return Err(TableError::TooSmall { words, needed });
        }
        Ok(Table {
            storage,
            seed: settings.hash_seed,
            layout,
            candidates: Candidates::new(settings.endpoints),
            patience: Patience::by_state(&settings.timeouts),
            settings,
            counted: Counted::default(),
            hand: ProcessLocal::new(0),
            adopt_until: ProcessLocal::new(0),
        })
    }

    /// Empties the counters, the buckets with their locks, and the free list.
    pub(super) fn clear(&self) {
        let words = self.storage.words();
        for word in [layout::H_FREE, layout::H_HIGH_WATER, layout::H_LIVE] {
            words[word].store(0, Relaxed);
        }
        let end = self.layout.entry(0);
        for word in &words[self.layout.quota_start()..end] {
            word.store(0, Relaxed);
        }
    }

    /// Until `until`, TCP and SCTP packets from the middle of a connection may make an entry.
    pub fn adopt_until(&self, until: Time) {
        self.adopt_until.store(until.0, Relaxed);
    }

    /// Whether such a packet may make an entry now though it opens nothing (semantics D21): TCP
    /// with ACK and without SYN, RST and FIN, or SCTP DATA, SACK or HEARTBEAT, in the adoption
    /// window.
    ///
    /// The caller judges it as new in the direction it goes, and inserts only what is accepted: a
    /// denial may just mean that the other end is the initiator. The first direction that policy
    /// accepts becomes the entry's orientation.
    pub fn adopts(&self, facts: &Facts, now: Time) -> bool {
        now.0 < self.adopt_until.load(Relaxed) && facts.adoptable()
    }

    /// The entry of the packet with this key and these ends. Waits for nobody.
    pub fn lookup(&self, key: &FlowKey, ends: &Ends, now: Time) -> Option<Hit> {
        let canonical = Canonical::of(key);
        let place = self.place(&canonical);
        let (image, original) = self.find(&canonical, &place)?;
        if !matches_ends(&image, original, ends) || self.is_expired(&image, now) {
            return None;
        }
        Some(self.hit(&image, original, place.first))
    }

    /// What a look-up says of an entry whose packet goes the initiator's way or not, and looked for it
    /// in this bucket first.
    #[inline(always)]
    pub(super) fn hit(&self, image: &Image, original: bool, bucket: u32) -> Hit {
        let verdict = image.control.verdict();
        // Of a translated entry's two tuples only one leads to its lock.
        let bucket = match image.is_translated() {
            true => self.place_of(image).first,
            false => bucket,
        };
        let translated = match image.is_translated() {
            true => image.translated(),
            false => None,
        };
        Hit {
            handle: Handle {
                entry: image.entry,
                bucket,
                version: image.control.version(),
            },
            original_direction: original,
            verdict,
            denied: !verdict.accept,
            counters: layout::unpack_counters(image.counters),
            epochs: layout::unpack_epochs(image.epochs),
            state: image.state,
            ingress: image.ingress(),
            translated,
        }
    }

    /// Advances the connection by one packet, after [`Table::redecide`] if that was due.
    ///
    /// [`Class::New`] also stands for "the entry has gone meanwhile" if the packet opens a
    /// connection.
    ///
    /// Errors: `ConnectionDenied` for a DENIED one, `ConntrackInvalid` for a packet that does not
    /// belong where the connection stands, `Internal` if the facts are of another protocol than the
    /// key was. None of them changes the state.
    pub fn track(&self, hit: &Hit, facts: &Facts, now: Time) -> Result<Class, DropReason> {
        self.advance(hit.handle, hit.original_direction, facts, now)
    }

    /// [`Table::track`] of the entry that the handle names.
    #[inline(never)]
    pub(super) fn advance(
        &self,
        handle: Handle,
        original: bool,
        facts: &Facts,
        now: Time,
    ) -> Result<Class, DropReason> {
        let Handle { entry, version, .. } = handle;
        let control = self.hot(entry, CONTROL);
        let mut seen = Control(control.load(Acquire));
        loop {
            let state = match seen.state() {
                Some(state) if seen.version() == version => state,
                _ if facts.opens() => return Ok(Class::New),
                _ => return Err(DropReason::ConntrackInvalid),
            };
            let to = match self.step(seen, state, original, facts) {
                Ok(Step::Restart) => return Ok(Class::New),
                Ok(Step::Pass) => return Ok(class(original)),
                Ok(Step::To(to)) => to,
                Ok(Step::Invalid) => return Err(DropReason::ConntrackInvalid),
                Err(DropReason::ConnectionDenied) => {
                    if original {
                        self.touch(handle, self.patience(seen, state), now);
                    }
                    return Err(DropReason::ConnectionDenied);
                }
                Err(reason) => return Err(reason),
            };
            if !self.follow(handle, state, original, facts) {
                return Err(DropReason::ConntrackInvalid);
            }
            if to != state {
                let next = seen.with_state(to);
                if let Err(changed) = control.compare_exchange(seen.0, next.0, AcqRel, Acquire) {
                    seen = Control(changed);
                    continue;
                }
                self.note_if_closed(handle, to);
            }
            self.touch(handle, self.patience(seen, to), now);
            return Ok(class(original));
        }
    }

    /// Notes an entry that may go from now on when its endpoint needs room.
    fn note_if_closed(&self, handle: Handle, to: State) {
        if !to.is_evictable() {
            return;
        }
        let [ends, ports] = [ENDS, PORTS].map(|word| self.hot(handle.entry, word).load(Relaxed));
        if let Some(payer) = payer(&layout::unpack_ends(ends, ports)) {
            self.candidates.note(payer, handle.into());
        }
    }

    /// What a packet would do to an entry with this control word.
    pub(super) fn step(
        &self,
        control: Control,
        state: State,
        original: bool,
        facts: &Facts,
    ) -> Result<Step, DropReason> {
        if !state.fits_facts(facts) {
            return Err(DropReason::Internal);
        }
        if control.accepts() {
            return Ok(facts.step(state, original));
        }
        if facts.begins() {
            Ok(Step::Restart)
        } else {
            Err(DropReason::ConnectionDenied)
        }
    }

    /// Follows windows and tags. False if the packet disagrees with them.
    fn follow(&self, handle: Handle, state: State, original: bool, facts: &Facts) -> bool {
        match facts {
            Facts::Tcp(tcp) if self.settings.strict_tcp => {
                let (own, other) = (usize::from(!original), usize::from(original));
                let before = [self.side(handle, own), self.side(handle, other)];
                let Some(after) = window::advance(before, state, original, tcp) else {
                    return false;
                };
                self.store_side(handle, own, &before[0], &after[0]);
                self.store_side(handle, other, &before[1], &after[1]);
                true
            }
            Facts::Sctp(sctp) => {
                let before = self.tags(handle);
                let Some(after) = before.advance(state, original, sctp) else {
                    return false;
                };
                self.store_tags(handle, before, after);
                true
            }
            _ => true,
        }
    }

    /// Keeps an entry alive without a packet that [`Table::track`] takes: the initiator of a DENIED
    /// one has tried again to open it. False if it has gone.
    pub fn refresh(&self, handle: Handle, now: Time) -> bool {
        let control = Control(self.hot(handle.entry, CONTROL).load(Acquire));
        match control.state() {
            Some(state) if control.version() == handle.version => {
                self.touch(handle, self.patience(control, state), now);
                true
            }
            _ => false,
        }
    }

    /// Notes that the connection lives, where that has not been noted lately ([`layout::lag`]).
    #[inline]
    fn touch(&self, handle: Handle, patience: Patience, now: Time) {
        let seen = self.cold(handle.entry, LAST_SEEN).load(Relaxed);
        self.touch_seen(handle, patience, seen, now);
    }

    /// [`Table::touch`] where `seen` is what the word [`LAST_SEEN`] held a moment ago.
    #[inline]
    pub(super) fn touch_seen(&self, handle: Handle, patience: Patience, seen: u64, now: Time) {
        let tick = tick(now);
        let ago = tick.wrapping_sub(seen as u32) as i32;
        if tag_of(seen) == handle.version && ago > patience.lag {
            // Who loses the race loses it to a worker that did the same.
            let again = layout::seen_again(seen, tick);
            let word = self.cold(handle.entry, LAST_SEEN);
            let _ = word.compare_exchange(seen, again, Relaxed, Relaxed);
        }
    }

    /// Finds the entry of a packet's tuple, whatever its ends, and whether the packet goes its
    /// initiator's way.
    #[inline(always)]
    pub(super) fn find(&self, canonical: &Canonical, place: &Place) -> Option<(Image, bool)> {
        self.search(place, |image| image.direction_of(canonical))
    }

    /// The first entry that a tuple's buckets refer to of which `wanted` says something, and what.
    #[inline(never)]
    pub(super) fn find_where<T>(
        &self,
        place: &Place,
        wanted: impl Fn(&Image) -> Option<T>,
    ) -> Option<(Image, T)> {
        self.search(place, wanted)
    }

    /// [`Table::find_where`] where it is called: an image that is returned is one that is copied.
    #[inline(always)]
    fn search<T>(&self, place: &Place, wanted: impl Fn(&Image) -> Option<T>) -> Option<(Image, T)> {
        for _ in 0..LOOKUP_ATTEMPTS {
            let mut moved = false;
            for bucket in [place.first, place.second] {
                for reference in self.references(bucket) {
                    let reference = reference.load(Acquire);
                    let Some(entry) = entry_of(reference) else {
                        continue;
                    };
                    if (reference >> 32) as u32 != place.tag || entry >= self.settings.capacity {
                        continue;
                    }
                    match self.read_if(entry, &wanted) {
                        Read::Image(image, found) => return Some((image, found)),
                        Read::Moved => moved = true,
                        Read::Other => {}
                    }
                }
            }
            if !moved {
                return None;
            }
        }
        None
    }

    /// A consistent image of an entry, if it is live and `wanted` says something of its tuples.
    ///
    /// The control word is read last again: the same version means that nobody has reused the entry
    /// meanwhile. Epochs are read before it and before the counters, so that verdict and counters
    /// are at least as new as they are.
    #[inline(always)]
    pub(super) fn read_if<T>(&self, entry: u32, wanted: impl Fn(&Image) -> Option<T>) -> Read<T> {
        let first = Control(self.hot(entry, CONTROL).load(Acquire));
        if first.state().is_none() {
            return Read::Other;
        }
        let tuple = |i: usize| self.hot(entry, TUPLE + i).load(Acquire);
        let mut image = Image {
            entry,
            control: first,
            state: State::Adopted,
            addresses: [tuple(0), tuple(1), tuple(2), tuple(3)],
            ports: self.hot(entry, PORTS).load(Acquire),
            ends: 0,
            epochs: 0,
            last_seen: 0,
            counters: 0,
            translation: [0; layout::TRANSLATION],
        };
        if image.is_translated() {
            image.translation = self.read_translation(entry);
        }
        let found = wanted(&image);
        if found.is_some() {
            image.ends = self.hot(entry, ENDS).load(Acquire);
            image.epochs = self.hot(entry, EPOCHS).load(Acquire);
            image.last_seen = self.cold(entry, LAST_SEEN).load(Acquire);
            image.counters = self.cold(entry, COUNTERS).load(Acquire);
        }
        let last = Control(self.hot(entry, CONTROL).load(Acquire));
        match last.state() {
            Some(state) if last.version() == first.version() => {
                let Some(found) = found else {
                    return Read::Other;
                };
                image.control = last;
                image.state = state;
                Read::Image(image, found)
            }
            _ => Read::Moved,
        }
    }

    /// Seconds of silence that the entry may keep.
    pub(super) fn timeout_s(&self, image: &Image) -> u32 {
        if image.control.verdict().accept {
            image.state.timeout_s(&self.settings.timeouts)
        } else {
            self.settings.timeouts.denied_s
        }
    }

    pub(super) fn is_expired(&self, image: &Image, now: Time) -> bool {
        let patience = self.patience(image.control, image.state);
        patience.is_over(image.last_seen, now)
    }

    /// How long an entry with this control word may be silent.
    #[inline]
    pub(super) fn patience(&self, control: Control, state: State) -> Patience {
        let index = if control.accepts() { state as usize } else { 0 };
        // Both are 32: numbers of states have five bits.
        self.patience[index % self.patience.len()]
    }

    #[inline]
    pub(super) fn place(&self, canonical: &Canonical) -> Place {
        let hash = Hash::of(&canonical.addresses, canonical.ports, self.seed);
        Place::of(hash, self.seed, self.layout.buckets)
    }

    pub(super) fn place_of(&self, image: &Image) -> Place {
        let hash = Hash::of(&image.addresses, image.ports, self.seed);
        Place::of(hash, self.seed, self.layout.buckets)
    }

    #[inline]
    pub(super) fn hot(&self, entry: u32, word: usize) -> &AtomicU64 {
        &self.storage.words()[self.layout.entry(entry) + word]
    }

    #[inline]
    pub(super) fn cold(&self, entry: u32, word: usize) -> &AtomicU64 {
        &self.storage.words()[self.layout.entry(entry) + layout::COLD + word]
    }

    #[inline(never)]
    fn read_translation(&self, entry: u32) -> [u64; layout::TRANSLATION] {
        let words = self.translation(entry);
        std::array::from_fn(|i| words[i].load(Acquire))
    }

    pub(super) fn translation(&self, entry: u32) -> &[AtomicU64] {
        let start = self.layout.translation(entry);
        &self.storage.words()[start..start + layout::TRANSLATION]
    }

    #[inline]
    pub(super) fn references(&self, bucket: u32) -> &[AtomicU64] {
        let start = self.layout.bucket(bucket);
        &self.storage.words()[start..start + WAYS]
    }

    #[inline]
    pub(super) fn lock_word(&self, bucket: u32) -> &AtomicU64 {
        &self.storage.words()[self.layout.bucket(bucket) + LOCK]
    }

    pub(super) fn quota(&self) -> Quota<'_> {
        let start = self.layout.quota_start();
        Quota(&self.storage.words()[start..start + self.layout.quota])
    }

    /// Puts an entry that nobody refers to at the head of the free list.
    pub(super) fn push_free(&self, entry: u32) {
        let head = &self.storage.words()[layout::H_FREE];
        let mut seen = head.load(Acquire);
        loop {
            self.hot(entry, EPOCHS).store(seen & 0xffff_ffff, Release);
            let next = changed(seen) | u64::from(entry + 1);
            match head.compare_exchange(seen, next, AcqRel, Acquire) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// Makes what lies in an entry that is in no list nobody's.
    pub(super) fn forget(&self, entry: u32) {
        let control = self.hot(entry, CONTROL);
        let version = Control(control.load(Relaxed)).next_version();
        control.store(Control::free(version).0, Relaxed);
    }

    /// Entries that have ever been in use: all of them lie before this one. Walks over the table
    /// end here.
    pub fn high_water(&self) -> u32 {
        let words = self.storage.words();
        let high_water = words[layout::H_HIGH_WATER].load(Acquire);
        // Of a sound table it is never higher.
        high_water.min(self.settings.capacity.into()) as u32
    }

    /// Takes an entry: one that has been given back, else one that has never been in use.
    pub(super) fn take_entry(&self) -> Option<u32> {
        self.pop_free().or_else(|| {
            let capacity = u64::from(self.settings.capacity);
            let next = |seen: u64| (seen < capacity).then_some(seen + 1);
            let high_water = &self.storage.words()[layout::H_HIGH_WATER];
            let taken = high_water.fetch_update(AcqRel, Acquire, next).ok()?;
            Some(taken as u32)
        })
    }

    /// Takes an entry from the free list.
    fn pop_free(&self) -> Option<u32> {
        let head = &self.storage.words()[layout::H_FREE];
        let mut seen = head.load(Acquire);
        loop {
            let entry = entry_of(seen).filter(|entry| *entry < self.settings.capacity)?;
            // Another worker may have taken it and overwritten this word, but then the head's change
            // counter has moved on.
            let rest = self.hot(entry, EPOCHS).load(Acquire) & 0xffff_ffff;
            match head.compare_exchange(seen, changed(seen) | rest, AcqRel, Acquire) {
                Ok(_) => return Some(entry),
                Err(now) => seen = now,
            }
        }
    }

    /// What is known of one side of a TCP connection: 0 the initiator's, 1 the other's.
    pub(super) fn side(&self, handle: Handle, side: usize) -> Side {
        let word = |i: usize| {
            let word = self.cold(handle.entry, SIDE + 3 * side + i).load(Relaxed);
            if tag_of(word) == handle.version {
                word
            } else {
                0
            }
        };
        let (end, max_end, max_window) = (word(0), word(1), word(2));
        Side {
            end: end as u32,
            max_end: max_end as u32,
            max_window: max_window as u32,
            scale: (end >> 48 & 0xf) as u8,
            offers_scale: end >> 52 & 1 != 0,
        }
    }

    /// Stores what has changed of a side. The two directions of a connection may be on two workers:
    /// each word only ever grows, so that neither takes back what the other has learnt.
    fn store_side(&self, handle: Handle, side: usize, before: &Side, after: &Side) {
        let (old, new) = (
            side_words(handle.version, before),
            side_words(handle.version, after),
        );
        let reset = before.max_window == 0 || before.offers_scale != after.offers_scale;
        for i in 0..3 {
            if old[i] == new[i] {
                continue;
            }
            let word = self.cold(handle.entry, SIDE + 3 * side + i);
            let _ = word.fetch_update(Relaxed, Relaxed, |current| {
                let grows = match i {
                    2 => (new[i] as u32) > (current as u32),
                    _ => window::after(new[i] as u32, current as u32),
                };
                let same_rest = current >> 32 == new[i] >> 32;
                let wanted = reset || grows || !same_rest;
                (tag_of(current) == handle.version && wanted).then_some(new[i])
            });
        }
    }

    /// Writes all of a side, of an entry that is not live yet.
    pub(super) fn write_side(&self, entry: u32, version: u16, side: usize, known: &Side) {
        for (i, word) in side_words(version, known).into_iter().enumerate() {
            self.cold(entry, SIDE + 3 * side + i).store(word, Release);
        }
    }

    pub(super) fn tags(&self, handle: Handle) -> Tags {
        let tag = |side: usize| {
            let word = self.cold(handle.entry, SIDE + 3 * side).load(Relaxed);
            (tag_of(word) == handle.version && word >> 48 & 1 != 0).then_some(word as u32)
        };
        Tags {
            by_direction: [tag(0), tag(1)],
        }
    }

    fn store_tags(&self, handle: Handle, before: Tags, after: Tags) {
        for side in 0..2 {
            if before.by_direction[side] != after.by_direction[side] {
                let new = tag_word(handle.version, after.by_direction[side]);
                let word = self.cold(handle.entry, SIDE + 3 * side);
                let _ = word.fetch_update(Relaxed, Relaxed, |current| {
                    (tag_of(current) == handle.version).then_some(new)
                });
            }
        }
    }

    /// Writes the tags of an entry that is not live yet.
    pub(super) fn write_tags(&self, entry: u32, version: u16, tags: Tags) {
        for side in 0..2 {
            self.cold(entry, SIDE + 3 * side)
                .store(tag_word(version, tags.by_direction[side]), Release);
        }
    }

    /// Entries charged to this endpoint.
    pub fn charged(&self, incarnation: Incarnation) -> u32 {
        self.quota().count(incarnation)
    }

    /// Counters.
    pub fn counters(&self) -> Counters {
        let c = &self.counted;
        Counters {
            entries: self.storage.words()[layout::H_LIVE].load(Relaxed),
            inserted: c.inserted.load(Relaxed),
            expired: c.expired.load(Relaxed),
            evicted: c.evicted.load(Relaxed),
            replaced: c.replaced.load(Relaxed),
            removed: c.removed.load(Relaxed),
            redecided: c.redecided.load(Relaxed),
            raced: c.raced.load(Relaxed),
            full: c.full.load(Relaxed),
            quota: c.quota.load(Relaxed),
            busy: c.busy.load(Relaxed),
        }
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}

/// What [`Table::read_if`] found.
pub(super) enum Read<T> {
    /// A live entry, as wanted, and what was said of it.
    Image(Image, T),
    /// Free, being written, or not wanted.
    Other,
    /// It changed hands while it was read.
    Moved,
}

/// The entry that a reference or the free list's head names.
pub(super) fn entry_of(word: u64) -> Option<u32> {
    (word as u32).checked_sub(1)
}

fn changed(head: u64) -> u64 {
    (head >> 32).wrapping_add(1) << 32
}

/// Whether the ends of a packet that goes the initiator's way, or not, are the entry's (semantics
/// D22). Where replies come in is not part of it: their source's incarnation and the source check of
/// their port say enough. A translated packet shows only its sender's end.
pub(super) fn matches_ends(image: &Image, original: bool, ends: &Ends) -> bool {
    let own = image.ends();
    match (image.is_translated(), original) {
        (false, true) => own == *ends,
        (false, false) => own.source == ends.destination && own.destination == ends.source,
        (true, true) => own.source == ends.source && own.ingress == ends.ingress,
        (true, false) => own.destination == ends.source,
    }
}

pub(super) const fn class(original: bool) -> Class {
    if original {
        Class::Established
    } else {
        Class::Reply
    }
}

fn side_words(version: u16, side: &Side) -> [u64; 3] {
    let scale = u64::from(side.scale) << 48 | u64::from(side.offers_scale) << 52;
    [
        tagged(version, side.end) | scale,
        tagged(version, side.max_end),
        tagged(version, side.max_window),
    ]
}

fn tag_word(version: u16, tag: Option<u32>) -> u64 {
    tagged(version, tag.unwrap_or(0)) | u64::from(tag.is_some()) << 48
}

impl State {
    #[inline]
    pub(super) fn fits_facts(self, facts: &Facts) -> bool {
        match facts {
            Facts::Tcp(_) => self.fits(Protocol::TCP),
            Facts::Sctp(_) => self.fits(Protocol::SCTP),
            Facts::Udp => self.fits(Protocol::UDP),
            Facts::Icmp(_) => self.fits(Protocol::ICMP),
            // Echoes of identifier 0 share a key with ICMP's other queries.
            Facts::Other => self.fits(Protocol::ICMP),
        }
    }
}
