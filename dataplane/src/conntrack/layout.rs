//! How the table lies in its words, and how fields lie in a word.
//!
//! ```text
//! header 32 | quota counters | buckets × 8 | entries × 16: hot line 8, cold line 8 | translations × 8
//!
//! bucket   7 references (tag 32, entry + 1: 32; 0 = empty), lock
//! hot      0 control: version 13, state 5, verdict 46
//!          1 epochs: initiator's 32, other's 32 (of a free entry: the next free one + 1)
//!          2, 3 lower address   4, 5 higher address
//!          6 lower port 16, higher port 16, protocol 8, initiator is lower 1, ingress port 16,
//!            translated 1
//!          7 incarnations: initiator's 32, other's 32
//! cold     0 last seen: created (low 16), version 13, tick 32
//!          1 counters: created (high 16), ingress' 24, egress' 24
//!          2, 3, 4 initiator's side    5, 6, 7 other side (TCP windows or SCTP tags)
//! transl.  0, 1 Service's address   2, 3 initiator's own address
//!          4 Service's port 16, initiator's own port 16
//! ```
//!
//! The tuple in the hot line is the one that the other end knows. A translated entry's initiator sends
//! under another, which is put together from its line of translation: the entry has references in the
//! buckets of both. Only a packet that meets a translated entry reads that line, or one whose tag is
//! like its; the lines of others are never touched.
//!
//! The two lines of an entry are neighbours: a packet reads both, so they share a page's translation,
//! and processors fetch lines in such pairs. Behind the header of a shared region an entry begins at a
//! multiple of 128 bytes.
//!
//! "Lower" is the end whose (address, port) is numerically smaller, so that both directions hash
//! alike. Words that a worker may write after the entry has been reused under it carry the version,
//! so that such a write is refused. The counters, as the epochs, are written under the bucket's lock
//! only. The tick at which the entry was made has no word of its own: it stands in bits that no
//! write to these two words changes.

use super::{Ends, Epochs, Settings, State, Translated, Translation};
use crate::counters::{CounterId, RuleCounters};
use crate::snapshot::{Epoch, Incarnation, PortId};
use crate::{Address, FlowKey, Protocol, SocketAddress, Time, Verdict};

/// First word of a table of this layout: "weirct" and the layout's number.
pub(super) const LAYOUT: u64 = 0x7765_6972_6374_0006;

pub(super) const H_LAYOUT: usize = 0;
pub(super) const H_CAPACITY: usize = 1;
pub(super) const H_BUCKETS: usize = 2;
pub(super) const H_QUOTA: usize = 3;
pub(super) const H_SEED: usize = 4;
/// Head of the free list: change counter 32, entry + 1: 32. A cache line of its own.
pub(super) const H_FREE: usize = 8;
/// Entries given out so far, from the first on: those behind have never been in use, stand in no
/// list, and are looked at by nobody.
pub(super) const H_HIGH_WATER: usize = 9;
/// Number of live entries. A cache line of its own.
pub(super) const H_LIVE: usize = 16;
const HEADER: usize = 32;

/// References per bucket.
pub(super) const WAYS: usize = 7;
/// The lock's place in a bucket.
pub(super) const LOCK: usize = 7;
const LINE: usize = 8;
/// Words of an entry.
pub(super) const ENTRY: usize = 2 * LINE;
/// Where an entry's cold line begins.
pub(super) const COLD: usize = LINE;

/// Words of a translation that are used.
pub(super) const TRANSLATION: usize = 5;

pub(super) const CONTROL: usize = 0;
pub(super) const EPOCHS: usize = 1;
pub(super) const TUPLE: usize = 2;
pub(super) const PORTS: usize = 6;
pub(super) const ENDS: usize = 7;

pub(super) const LAST_SEEN: usize = 0;
pub(super) const COUNTERS: usize = 1;
/// First word of the initiator's side; the other side's is three on.
pub(super) const SIDE: usize = 2;

/// Where the parts of a table begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    pub capacity: usize,
    pub buckets: usize,
    pub quota: usize,
    /// Where entries begin.
    pub entries: usize,
    /// Where translations begin.
    pub translations: usize,
}

impl Layout {
    pub fn of(settings: &Settings) -> Layout {
        let capacity = settings.capacity as usize;
        // Twice as many references as entries.
        let buckets = (2 * capacity).div_ceil(WAYS).max(2);
        let quota = (4 * settings.endpoints as usize)
            .next_power_of_two()
            .max(32);
        let buckets_end = HEADER + quota + buckets * LINE;
        // With the region's header of one line in front, a multiple of an entry.
        let entries = buckets_end.next_multiple_of(ENTRY) + LINE;
        Layout {
            capacity,
            buckets,
            quota,
            entries,
            translations: entries + capacity * ENTRY,
        }
    }

    pub const fn words(&self) -> usize {
        self.translations + self.capacity * LINE
    }

    pub const fn quota_start(&self) -> usize {
        HEADER
    }

    pub const fn bucket(&self, bucket: u32) -> usize {
        HEADER + self.quota + bucket as usize * LINE
    }

    pub const fn entry(&self, entry: u32) -> usize {
        self.entries + entry as usize * ENTRY
    }

    pub const fn translation(&self, entry: u32) -> usize {
        self.translations + entry as usize * LINE
    }
}

/// The control word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Control(pub u64);

const STATE_SHIFT: u32 = Verdict::BITS;
const VERSION_SHIFT: u32 = STATE_SHIFT + 5;
/// Versions wrap after this many reuses of one entry. A worker would have to sleep through all of
/// them between a lookup and its use for a stale handle to look valid.
pub(super) const VERSIONS: u16 = 1 << 13;
const FREE: u64 = 0;
const WRITING: u64 = 1;

impl Control {
    pub const fn live(version: u16, state: State, verdict: Verdict) -> Control {
        Control(
            (version as u64) << VERSION_SHIFT | (state as u64) << STATE_SHIFT | verdict.to_bits(),
        )
    }

    pub const fn free(version: u16) -> Control {
        Control((version as u64) << VERSION_SHIFT | FREE << STATE_SHIFT)
    }

    pub const fn writing(version: u16) -> Control {
        Control((version as u64) << VERSION_SHIFT | WRITING << STATE_SHIFT)
    }

    pub const fn version(self) -> u16 {
        (self.0 >> VERSION_SHIFT) as u16
    }

    pub const fn next_version(self) -> u16 {
        (self.version() + 1) % VERSIONS
    }

    /// The state, if the entry is live.
    #[inline]
    pub const fn state(self) -> Option<State> {
        State::from_bits((self.0 >> STATE_SHIFT) as u8 & 0x1f)
    }

    pub const fn verdict(self) -> Verdict {
        Verdict::from_bits(self.0)
    }

    /// Whether the verdict is to accept.
    pub const fn accepts(self) -> bool {
        self.0 & 1 != 0
    }

    pub const fn with_state(self, state: State) -> Control {
        Control(self.0 & !(0x1f << STATE_SHIFT) | (state as u64) << STATE_SHIFT)
    }

    pub const fn with_verdict(self, verdict: Verdict) -> Control {
        Control(self.0 >> STATE_SHIFT << STATE_SHIFT | verdict.to_bits())
    }
}

/// A key without its direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Canonical {
    /// Words [`TUPLE`]`..`[`PORTS`] of a hot line.
    pub addresses: [u64; 4],
    /// Ports and protocol as in word [`PORTS`].
    pub ports: u64,
    /// Whether the packet's source is the lower end.
    pub from_lower: bool,
}

const PORTS_MASK: u64 = (1 << 40) - 1;
const FROM_LOWER: u64 = 1 << 40;
const INGRESS_SHIFT: u32 = 41;
const TRANSLATED: u64 = 1 << 57;
/// Bits of word [`PORTS`] that are used.
pub(super) const PORTS_BITS: u32 = INGRESS_SHIFT + 17;

impl Canonical {
    /// Without branches: which end is lower is as good as random, and a processor would guess
    /// wrong half of the time.
    #[inline]
    pub fn of(key: &FlowKey) -> Canonical {
        let (a, b) = (key.source.0, key.destination.0);
        let (p, q) = (u64::from(key.source_port), u64::from(key.destination_port));
        let from_lower = (a < b) | (a == b) & (p <= q);
        let swap = u64::from(from_lower).wrapping_sub(1);
        let (high, low) = (((a ^ b) >> 64) as u64 & swap, (a ^ b) as u64 & swap);
        let ports = (p ^ q) & swap;
        Canonical {
            addresses: [
                (a >> 64) as u64 ^ high,
                a as u64 ^ low,
                (b >> 64) as u64 ^ high,
                b as u64 ^ low,
            ],
            ports: (p ^ ports) | (q ^ ports) << 16 | u64::from(key.protocol.0) << 32,
            from_lower,
        }
    }

    /// The same flow in the other direction. Of one whose two ends are one, the same.
    pub const fn reversed(self) -> Canonical {
        let lower = (self.ports & 0xffff) == (self.ports >> 16 & 0xffff)
            && self.addresses[0] == self.addresses[2]
            && self.addresses[1] == self.addresses[3];
        Canonical {
            from_lower: !self.from_lower || lower,
            ..self
        }
    }

    /// The key that this is of.
    pub const fn key(&self) -> FlowKey {
        key(&self.addresses, self.ports, self.from_lower)
    }

    /// Word [`PORTS`] of an entry whose initiator sent the packet with this key.
    pub const fn ports_word(&self, ingress: PortId, is_translated: bool) -> u64 {
        let translated = if is_translated { TRANSLATED } else { 0 };
        let ingress = (ingress.0 as u64) << INGRESS_SHIFT;
        self.ports | (self.from_lower as u64) << 40 | ingress | translated
    }

    pub const fn same_ports(&self, word: u64) -> bool {
        word & PORTS_MASK == self.ports
    }

    /// Whether the ports are these, of an entry that is not translated.
    pub const fn same_plain_ports(&self, word: u64) -> bool {
        word & (PORTS_MASK | TRANSLATED) == self.ports
    }

    /// Whether a packet with this key goes the way of the initiator that this word [`PORTS`] names.
    pub const fn is_original(&self, word: u64) -> bool {
        (word & FROM_LOWER != 0) == self.from_lower
    }
}

/// A live entry as it was at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Image {
    pub entry: u32,
    pub control: Control,
    pub state: State,
    pub addresses: [u64; 4],
    pub ports: u64,
    pub ends: u64,
    pub epochs: u64,
    pub last_seen: u64,
    pub counters: u64,
    /// Of a translated entry; else anything.
    pub translation: [u64; TRANSLATION],
}

/// Whether an entry with this word [`PORTS`] is translated.
pub(super) const fn is_translated(ports: u64) -> bool {
    ports & TRANSLATED != 0
}

impl Image {
    pub const fn is_translated(&self) -> bool {
        is_translated(self.ports)
    }

    /// The initiator's packets as it sends them, of a translated entry.
    pub fn outer_key(&self) -> FlowKey {
        let [a, b, c, d, ports] = self.translation;
        let address = |high: u64, low: u64| Address(u128::from(high) << 64 | u128::from(low));
        FlowKey {
            source: address(c, d),
            destination: address(a, b),
            source_port: (ports >> 16) as u16,
            destination_port: ports as u16,
            protocol: Protocol((self.ports >> 32) as u8),
        }
    }

    /// The flow as policy judges it, in the initiator's orientation: from the initiator's own
    /// address to the one that answers.
    pub fn flow(&self) -> FlowKey {
        let key = self.key();
        if self.is_translated() {
            key.with_sender(self.outer_key().sender())
        } else {
            key
        }
    }

    /// What is to be done with its packets, if they are translated.
    // Apart, as is the direction below: entries that are not translated are looked up without either.
    #[inline(never)]
    pub fn translated(&self) -> Option<Translated> {
        if !self.is_translated() {
            return None;
        }
        let (inner, outer) = (self.key(), self.outer_key());
        Some(Translated {
            flow: self.flow(),
            ends: self.ends(),
            translation: Translation {
                service: outer.receiver(),
                source: (inner.sender() != outer.sender()).then_some(inner.sender()),
            },
        })
    }

    /// Whether a packet with this key is of this connection, and then whether it goes the
    /// initiator's way. Of a translated connection the initiator's packets have one tuple, those
    /// that go back another: what goes the other way under either is a stranger.
    #[inline]
    pub fn direction_of(&self, canonical: &Canonical) -> Option<bool> {
        if self.is_translated() {
            return self.translated_direction_of(canonical);
        }
        let is_own = self.is_own(canonical);
        is_own.then(|| self.is_original(canonical.from_lower))
    }

    #[inline(never)]
    fn translated_direction_of(&self, canonical: &Canonical) -> Option<bool> {
        if self.is_own(canonical) && !self.is_original(canonical.from_lower) {
            return Some(false);
        }
        (Canonical::of(&self.outer_key()) == *canonical).then_some(true)
    }

    fn is_own(&self, canonical: &Canonical) -> bool {
        self.addresses == canonical.addresses && canonical.same_ports(self.ports)
    }

    pub const fn ingress(&self) -> PortId {
        ingress(self.ports)
    }

    /// Whether a packet that goes this way goes the initiator's way. A flow whose two ends are one
    /// has no other.
    pub const fn is_original(&self, from_lower: bool) -> bool {
        (self.ports & FROM_LOWER != 0) == from_lower
    }

    /// The tick at which the entry was made.
    pub const fn created(&self) -> u32 {
        let low = self.last_seen >> CREATED_LOW_SHIFT & 0xffff;
        let high = self.counters >> CREATED_HIGH_SHIFT;
        (high << 16 | low) as u32
    }

    /// In the initiator's orientation.
    pub const fn ends(&self) -> Ends {
        unpack_ends(self.ends, self.ports)
    }

    /// The tuple that the other end knows, in the initiator's orientation.
    pub const fn key(&self) -> FlowKey {
        key(&self.addresses, self.ports, self.is_original(true))
    }
}

/// Of a tuple's words; `from_lower` says whether the lower end is the source.
const fn key(addresses: &[u64; 4], ports: u64, from_lower: bool) -> FlowKey {
    let [a, b, c, d] = *addresses;
    let key = FlowKey {
        source: Address((a as u128) << 64 | b as u128),
        destination: Address((c as u128) << 64 | d as u128),
        source_port: ports as u16,
        destination_port: (ports >> 16) as u16,
        protocol: Protocol((ports >> 32) as u8),
    };
    if from_lower { key } else { key.reversed() }
}

/// The port in word [`PORTS`] where the initiator's packets come in.
pub(super) const fn ingress(ports: u64) -> PortId {
    PortId((ports >> INGRESS_SHIFT) as u16)
}

/// The line of translation of an entry whose initiator is `initiator`.
pub(super) const fn pack_translation(
    service: SocketAddress,
    initiator: SocketAddress,
) -> [u64; TRANSLATION] {
    let (to, from) = (service.address.0, initiator.address.0);
    let ports = service.port as u64 | (initiator.port as u64) << 16;
    [
        (to >> 64) as u64,
        to as u64,
        (from >> 64) as u64,
        from as u64,
        ports,
    ]
}

pub(super) const fn pack_ends(ends: &Ends) -> u64 {
    (ends.source.0 as u64) << 32 | ends.destination.0 as u64
}

/// Of the words [`ENDS`] and [`PORTS`].
pub(super) const fn unpack_ends(ends: u64, ports: u64) -> Ends {
    Ends {
        source: Incarnation((ends >> 32) as u32),
        destination: Incarnation(ends as u32),
        ingress: ingress(ports),
    }
}

pub(super) const fn pack_epochs(epochs: Epochs) -> u64 {
    (epochs.source.0 as u64) << 32 | epochs.destination.0 as u64
}

pub(super) const fn unpack_epochs(word: u64) -> Epochs {
    Epochs {
        source: Epoch((word >> 32) as u32),
        destination: Epoch(word as u32),
    }
}

/// Where the counters word holds the ingress' counter.
const INGRESS_COUNTER_SHIFT: u32 = 24;
const CREATED_HIGH_SHIFT: u32 = 48;
const CREATED_LOW_SHIFT: u32 = 45;

/// A counter's number where it stands in the word. One that does not fit is nobody's.
const fn pack_counter(counter: CounterId) -> u64 {
    if counter.0 > CounterId::MAX {
        CounterId::NONE.0 as u64
    } else {
        counter.0 as u64
    }
}

/// Word [`COUNTERS`] with other counters.
pub(super) const fn with_counters(word: u64, counters: RuleCounters) -> u64 {
    let ingress = pack_counter(counters.ingress) << INGRESS_COUNTER_SHIFT;
    word >> CREATED_HIGH_SHIFT << CREATED_HIGH_SHIFT | ingress | pack_counter(counters.egress)
}

/// The counters in word [`COUNTERS`].
pub(super) const fn unpack_counters(word: u64) -> RuleCounters {
    RuleCounters {
        egress: CounterId(word as u32 & CounterId::MAX),
        ingress: CounterId((word >> INGRESS_COUNTER_SHIFT) as u32 & CounterId::MAX),
    }
}

/// Words [`LAST_SEEN`] and [`COUNTERS`] of an entry made at `tick`.
pub(super) const fn first_seen(version: u16, tick: u32, counters: RuleCounters) -> [u64; 2] {
    let (low, high) = (tick as u64 & 0xffff, tick as u64 >> 16);
    [
        tagged(version, tick) | low << CREATED_LOW_SHIFT,
        with_counters(high << CREATED_HIGH_SHIFT, counters),
    ]
}

/// Word [`LAST_SEEN`] of an entry that has been seen again.
pub(super) const fn seen_again(word: u64, tick: u32) -> u64 {
    word >> 32 << 32 | tick as u64
}

/// Ticks by which a word [`LAST_SEEN`] may lag behind, of an entry that may be silent for so many: so
/// that a busy connection's packets seldom write to its lines, which other workers read. Half a
/// second at most, and a small part of the time-out.
pub(super) const fn lag(timeout: u32) -> u32 {
    if timeout / 64 < 4 { timeout / 64 } else { 4 }
}

/// Nanoseconds of a tick, as a power of two: 134 ms. 32 bits of them last 18 years.
const TICK_SHIFT: u32 = 27;

/// The tick that `now` lies in.
pub(super) const fn tick(now: Time) -> u32 {
    (now.0 >> TICK_SHIFT) as u32
}

/// The beginning of a tick.
pub(super) const fn tick_start(tick: u32) -> Time {
    Time((tick as u64) << TICK_SHIFT)
}

/// Ticks in so many seconds, rounded up, and one for the fraction that ticks lose.
pub(super) const fn ticks(seconds: u32) -> u32 {
    let nanoseconds = seconds as u64 * 1_000_000_000;
    (nanoseconds.div_ceil(1 << TICK_SHIFT) + 1) as u32
}

/// A value of 32 bits that belongs to one version of an entry.
pub(super) const fn tagged(version: u16, value: u32) -> u64 {
    (version as u64) << 32 | value as u64
}

/// The version that such a word belongs to.
pub(super) const fn tag_of(word: u64) -> u16 {
    (word >> 32) as u16 % VERSIONS
}

/// Where a key may lie: two buckets, the lock being the first one's, and the tag of its references.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub first: u32,
    pub second: u32,
    pub tag: u32,
}

/// A tuple's hash with the table's secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Hash(u64);

impl Hash {
    /// Of nothing.
    pub const EMPTY: Hash = Hash(0);

    #[inline]
    pub fn of(addresses: &[u64; 4], ports: u64, seed: [u64; 2]) -> Hash {
        Hash(keyed_hash(addresses, ports & PORTS_MASK, seed))
    }

    /// The primary bucket.
    #[inline]
    pub const fn first(self, buckets: usize) -> u32 {
        (((self.0 >> 32) * buckets as u64) >> 32) as u32
    }

    /// The other bucket, never the primary one.
    #[inline]
    pub fn second(self, seed: [u64; 2], buckets: usize) -> u32 {
        let n = buckets as u64;
        let other = fold(self.0, seed[1] ^ 0x2545_f491_4f6c_dd1d) & 0xffff_ffff;
        let step = 1 + ((other * (n - 1)) >> 32);
        let bucket = u64::from(self.first(buckets)) + step;
        (if bucket < n { bucket } else { bucket - n }) as u32
    }

    /// The tag of a reference: never 0, which is an empty reference's.
    #[inline]
    pub const fn tag(self) -> u32 {
        self.0 as u32 | 1
    }
}

/// A hash of two addresses and whatever else tells tuples apart, which nobody can foretell without the
/// seed: folded 128-bit products, as wyhash does.
#[inline]
pub(crate) fn keyed_hash(addresses: &[u64; 4], rest: u64, seed: [u64; 2]) -> u64 {
    let [a, b, c, d] = *addresses;
    // The constants keep IPv4's zero halves from meeting a weak seed.
    let mut h = fold(
        a ^ seed[0] ^ 0xa076_1d64_78bd_642f,
        b ^ seed[1] ^ 0x9e37_79b9_7f4a_7c15,
    );
    h = fold(
        c ^ seed[1] ^ 0xe703_7ed1_a0b4_28db,
        d ^ h ^ 0xc2b2_ae3d_27d4_eb4f,
    );
    fold(
        h ^ seed[0] ^ 0x8ebc_6af0_9c88_c6e3,
        rest ^ 0x1656_67b1_9e37_79f9,
    )
}

impl Place {
    /// Where a tuple with this hash may lie.
    #[inline]
    pub fn of(hash: Hash, seed: [u64; 2], buckets: usize) -> Place {
        Place {
            first: hash.first(buckets),
            second: hash.second(seed, buckets),
            tag: hash.tag(),
        }
    }
}

/// A reference to an entry, as it stands in a bucket.
pub(super) const fn reference(place: &Place, entry: u32) -> u64 {
    (place.tag as u64) << 32 | (entry as u64 + 1)
}

/// Both halves of a product, folded.
pub(super) fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}
