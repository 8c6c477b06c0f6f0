//! The index protocol of an AF_XDP ring, over any memory.
//!
//! A ring is a producer index, a consumer index, a flags word and a power of two of entries. The
//! producer writes entries, then its index with release ordering; the consumer reads that index
//! with acquire ordering, reads the entries, then writes its own index with release ordering
//! (`net/xdp/xsk_queue.h`). Indices run freely and wrap at 2^32.
//!
//! Entries are kept as atomic words as well, so that nothing the other side does is undefined
//! behaviour: at worst we read a wrong number, and every number is checked by whoever reads it.
//! On the processors we run on a relaxed 64-bit access is a plain move.
//!
//! The other side's index is not believed either: one that claims more entries than the ring has
//! counts as none at all.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A 32-bit index or flags word; implemented by the standard library's atomics and, in tests, by
/// loom's.
pub trait Index {
    /// Loads it.
    fn load(&self, order: Ordering) -> u32;
    /// Stores it.
    fn store(&self, value: u32, order: Ordering);
}

impl Index for AtomicU32 {
    fn load(&self, order: Ordering) -> u32 {
        AtomicU32::load(self, order)
    }
    fn store(&self, value: u32, order: Ordering) {
        AtomicU32::store(self, value, order);
    }
}

/// A 64-bit word of an entry.
pub trait EntryWord {
    /// Loads it, relaxed.
    fn load(&self) -> u64;
    /// Stores it, relaxed.
    fn store(&self, value: u64);
}

impl EntryWord for AtomicU64 {
    fn load(&self) -> u64 {
        AtomicU64::load(self, Ordering::Relaxed)
    }
    fn store(&self, value: u64) {
        AtomicU64::store(self, value, Ordering::Relaxed);
    }
}

/// Where a ring lives: mapped from a socket, or in the hands of a test.
pub trait RingMemory {
    /// Its index words.
    type Index: Index;
    /// Its entry words.
    type Word: EntryWord;
    /// How many entries have ever been produced.
    fn producer(&self) -> &Self::Index;
    /// How many entries have ever been consumed.
    fn consumer(&self) -> &Self::Index;
    /// `XDP_RING_NEED_WAKEUP`.
    fn flags(&self) -> &Self::Index;
    /// The entries: a power of two of them, [`Entry::WORDS`] words each.
    fn words(&self) -> &[Self::Word];
}

/// What a ring holds.
pub trait Entry: Copy {
    /// Words of an entry.
    const WORDS: usize;
    /// Reads one from its words.
    fn read<W: EntryWord>(words: &[W]) -> Self;
    /// Writes one to its words.
    fn write<W: EntryWord>(self, words: &[W]);
}

/// Entries of the fill and completion rings: an address in the UMEM.
impl Entry for u64 {
    const WORDS: usize = 1;
    fn read<W: EntryWord>(words: &[W]) -> u64 {
        words[0].load()
    }
    fn write<W: EntryWord>(self, words: &[W]) {
        words[0].store(self);
    }
}

/// `struct xdp_desc` (`include/uapi/linux/if_xdp.h`): entries of the RX and TX rings.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Descriptor {
    /// Where the packet starts, bytes from the start of the UMEM.
    pub address: u64,
    /// Its length in bytes.
    pub len: u32,
    /// [`Descriptor::CONTINUES`], [`Descriptor::METADATA`].
    pub options: u32,
}

impl Descriptor {
    /// The packet continues in the next descriptor (`XDP_PKT_CONTD`).
    pub const CONTINUES: u32 = libc::XDP_PKT_CONTD;
    /// A `struct xsk_tx_metadata` stands before the packet (`XDP_TX_METADATA`).
    pub const METADATA: u32 = libc::XDP_TX_METADATA;

    /// Whether the packet continues in the next descriptor.
    pub fn continues(&self) -> bool {
        self.options & Self::CONTINUES != 0
    }
}

impl Entry for Descriptor {
    const WORDS: usize = 2;
    fn read<W: EntryWord>(words: &[W]) -> Descriptor {
        let address = words[0].load();
        let rest = words[1].load().to_ne_bytes();
        let [l0, l1, l2, l3, o0, o1, o2, o3] = rest;
        Descriptor {
            address,
            len: u32::from_ne_bytes([l0, l1, l2, l3]),
            options: u32::from_ne_bytes([o0, o1, o2, o3]),
        }
    }
    fn write<W: EntryWord>(self, words: &[W]) {
        let [l0, l1, l2, l3] = self.len.to_ne_bytes();
        let [o0, o1, o2, o3] = self.options.to_ne_bytes();
        words[0].store(self.address);
        words[1].store(u64::from_ne_bytes([l0, l1, l2, l3, o0, o1, o2, o3]));
    }
}

/// The producing side of a ring (fill, TX).
#[derive(Debug)]
pub struct Producer<M, E> {
    memory: M,
    entries: u32,
    /// Entries written, published or not.
    written: u32,
    /// Entries published.
    published: u32,
    /// The consumer's index when we last looked.
    consumed: u32,
    entry: PhantomData<E>,
}

/// The consuming side of a ring (RX, completion).
#[derive(Debug)]
pub struct Consumer<M, E> {
    memory: M,
    entries: u32,
    /// Entries read, released or not.
    read: u32,
    /// The producer's index when we last looked.
    produced: u32,
    entry: PhantomData<E>,
}

/// Entries of a ring's memory, `None` unless a power of two.
fn entries_of<M: RingMemory, E: Entry>(memory: &M) -> Option<u32> {
    let entries = u32::try_from(memory.words().len() / E::WORDS).ok()?;
    (entries.is_power_of_two() && memory.words().len().is_multiple_of(E::WORDS)).then_some(entries)
}

fn slot<M: RingMemory, E: Entry>(memory: &M, entries: u32, index: u32) -> &[M::Word] {
    let start = (index & (entries - 1)) as usize * E::WORDS;
    &memory.words()[start..start + E::WORDS]
}

impl<M: RingMemory, E: Entry> Producer<M, E> {
    /// The producing side of `memory`, going on where its indices stand. `None` unless the number
    /// of entries is a power of two.
    pub fn new(memory: M) -> Option<Self> {
        let entries = entries_of::<M, E>(&memory)?;
        let written = memory.producer().load(Ordering::Relaxed);
        let consumed = memory.consumer().load(Ordering::Acquire);
        Some(Producer {
            memory,
            entries,
            written,
            published: written,
            consumed,
            entry: PhantomData,
        })
    }

    /// Entries that can be pushed now.
    pub fn free(&mut self) -> u32 {
        self.entries - self.pending()
    }

    /// Entries pushed that the other side has not consumed, as it says now. An impossible answer
    /// counts as "has consumed nothing".
    pub fn pending(&mut self) -> u32 {
        self.consumed = self.memory.consumer().load(Ordering::Acquire);
        self.written.wrapping_sub(self.consumed).min(self.entries)
    }

    /// Writes an entry, not yet visible to the other side. `false` when the ring is full.
    #[must_use]
    pub fn push(&mut self, entry: E) -> bool {
        if self.written.wrapping_sub(self.consumed) >= self.entries && self.free() == 0 {
            return false;
        }
        entry.write(slot::<M, E>(&self.memory, self.entries, self.written));
        self.written = self.written.wrapping_add(1);
        true
    }

    /// Makes what was pushed visible to the other side.
    pub fn publish(&mut self) {
        if self.published != self.written {
            self.memory
                .producer()
                .store(self.written, Ordering::Release);
            self.published = self.written;
        }
    }

    /// Whether the kernel asks to be woken (`XDP_RING_NEED_WAKEUP`).
    pub fn needs_wakeup(&self) -> bool {
        self.memory.flags().load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    /// Entries the ring has.
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// The memory.
    pub fn memory(&self) -> &M {
        &self.memory
    }
}

impl<M: RingMemory, E: Entry> Consumer<M, E> {
    /// The consuming side of `memory`, going on where its indices stand. `None` unless the number
    /// of entries is a power of two.
    pub fn new(memory: M) -> Option<Self> {
        let entries = entries_of::<M, E>(&memory)?;
        let read = memory.consumer().load(Ordering::Relaxed);
        let produced = read;
        Some(Consumer {
            memory,
            entries,
            read,
            produced,
            entry: PhantomData,
        })
    }

    /// Entries that can be read now. An impossible producer index counts as none.
    pub fn available(&mut self) -> u32 {
        self.produced = self.memory.producer().load(Ordering::Acquire);
        let available = self.produced.wrapping_sub(self.read);
        if available > self.entries {
            self.produced = self.read;
            return 0;
        }
        available
    }

    /// Reads the next entry; the other side may not use its place before [`Consumer::release`].
    pub fn pop(&mut self) -> Option<E> {
        if self.produced == self.read && self.available() == 0 {
            return None;
        }
        let entry = E::read(slot::<M, E>(&self.memory, self.entries, self.read));
        self.read = self.read.wrapping_add(1);
        Some(entry)
    }

    /// Entries the ring has.
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// The place of the next entry, for [`Consumer::return_to`].
    pub fn place(&self) -> u32 {
        self.read
    }

    /// Reads on from `place` again: entries that were read and not released.
    pub fn return_to(&mut self, place: u32) {
        self.read = place;
    }

    /// Gives the places of the entries read back to the other side; false if there were none.
    pub fn release(&mut self) -> bool {
        let consumer = self.memory.consumer();
        // Nobody but we writes it.
        let some = consumer.load(Ordering::Relaxed) != self.read;
        if some {
            consumer.store(self.read, Ordering::Release);
        }
        some
    }

    /// The memory.
    pub fn memory(&self) -> &M {
        &self.memory
    }
}
