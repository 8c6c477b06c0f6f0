//! Packet memory, and who owns each chunk of it.
//!
//! The area is cut into chunks. Each chunk has an owner word in shared memory: [`Owner`]. A chunk
//! in user space is a [`Frame`] (or lies in a [`Magazine`](super::Magazine) or in the return
//! queue); a chunk in the kernel is in the fill or RX ring of one pool, or in the TX rings or
//! completion ring of one pool. Every ring crossing checks the word and changes it, so that a
//! frame is always in exactly one place and the kernel's word for an address is never enough.
//!
//! Each state has one party that may end it: `Fill(p)` and `Transmit(p)` are ended by the owner of
//! pool p's RX and completion rings, `Free` and `Held` by who holds the frame. So a check followed
//! by a store needs no compare-and-swap.
//!
//! An owner word is eight bytes and not one, because a byte cannot name the pool, and a removed
//! port's frames are found by exactly that name.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use crossbeam_queue::ArrayQueue;

use super::XskError;
use super::magazine::{Batch, Magazine};
use super::pool::{Pool, PoolId};
use crate::shm::{Region, memfd};

/// Bytes before a packet in its chunk that the kernel keeps for XDP programs
/// (`XDP_PACKET_HEADROOM`); received packets start here, and so do frames of our own making.
pub const PACKET_OFFSET: u32 = 256;

/// Bytes of `struct xsk_tx_metadata` (`include/uapi/linux/if_xdp.h`), which stand right before the
/// packet.
pub const TX_METADATA_BYTES: u32 = 24;

/// Pools that one UMEM can have had frames in: a bound on the table of their states.
pub const POOLS_MAX: usize = 1 << 14;

/// The place where a chunk is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// In a magazine or in the return queue.
    Free,
    /// In the hands of a worker, as a [`Frame`].
    Held,
    /// In the fill or RX ring of a pool.
    Fill(PoolId),
    /// In a TX or completion ring of a pool, or in a packet under way.
    Transmit(PoolId),
}

impl Owner {
    fn to_word(self) -> u64 {
        match self {
            Owner::Free => 0,
            Owner::Held => 1,
            Owner::Fill(PoolId(pool)) => 2 | u64::from(pool) << 8,
            Owner::Transmit(PoolId(pool)) => 3 | u64::from(pool) << 8,
        }
    }

    fn from_word(word: u64) -> Option<Owner> {
        let pool = PoolId(u16::try_from(word >> 8).ok()?);
        match word & 0xff {
            0 => Some(Owner::Free),
            1 => Some(Owner::Held),
            2 => Some(Owner::Fill(pool)),
            3 => Some(Owner::Transmit(pool)),
            _ => None,
        }
    }
}

/// One chunk in user space: the right to its bytes. Neither copied nor cloned; it goes to a
/// magazine, to a ring, or is lost (which [`Umem::census`] shows).
#[derive(Debug)]
#[must_use = "a frame that is dropped is lost until the daemon restarts: give it to a magazine"]
pub struct Frame {
    pub(super) chunk: u32,
    pub(super) offset: u16,
    umem: u16,
}

impl Frame {
    /// Where the packet starts in the chunk, bytes.
    pub fn offset(&self) -> u32 {
        u32::from(self.offset)
    }
}

/// How many chunks are where.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Census {
    /// In magazines and the return queue.
    pub free: u32,
    /// Held as frames.
    pub held: u32,
    /// In fill and RX rings.
    pub fill: u32,
    /// Being transmitted.
    pub transmit: u32,
}

/// One memory area for the packets of every port. Shared by all threads.
#[derive(Debug)]
pub struct Umem {
    area: Region,
    owners: Region,
    chunk_bytes: u32,
    chunks: u32,
    id: u16,
    returned: ArrayQueue<Batch>,
    /// Pools that are live.
    pub(super) ports: AtomicU32,
    /// Chunks that fill rings may still take beyond each port's idle depth.
    fill_spare: AtomicU32,
    /// Frames that found no room in the return queue. Cannot happen with up to
    /// [`PARTIAL_BATCHES`] magazines dropped at once; counted, so that it would be seen.
    lost: AtomicU64,
    pub(super) pools: Mutex<PoolTable>,
}

/// What became of each pool's number.
#[derive(Debug, Default)]
pub(super) struct PoolTable {
    /// Live pools, for later sockets to share from.
    pub(super) live: Vec<Weak<Pool>>,
    /// Numbers whose sockets are closed and whose frames have not been fetched back, and when they
    /// can be.
    pub(super) closed: Vec<(PoolId, Instant)>,
    /// Numbers to use again.
    pub(super) free: Vec<PoolId>,
    /// The next number never used.
    pub(super) next: u16,
}

/// Batches that are not full, from magazines that were dropped, which the return queue has room
/// for beside all full ones.
pub const PARTIAL_BATCHES: usize = 256;

impl Umem {
    /// Packet memory in `area`, with owner words in `owners` (8 bytes a chunk). All chunks start
    /// free: whatever the owner words said before is overwritten.
    ///
    /// # Errors
    ///
    /// [`XskError::Layout`] when `chunk_bytes` is neither 2048 nor 4096, the area is no whole
    /// number of chunks, or there are fewer owner words than chunks.
    pub fn new(area: Region, owners: Region, chunk_bytes: u32) -> Result<Arc<Umem>, XskError> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        if chunk_bytes != 2048 && chunk_bytes != 4096 {
            return Err(XskError::Layout("a chunk must have 2048 or 4096 bytes"));
        }
        if !area.len().is_multiple_of(chunk_bytes as usize) {
            return Err(XskError::Layout(
                "the area must be a whole number of chunks",
            ));
        }
        let chunks = u32::try_from(area.len() / chunk_bytes as usize)
            .map_err(|_| XskError::Layout("too many chunks"))?;
        if owners.words().len() < chunks as usize {
            return Err(XskError::Layout(
                "there must be 8 bytes of owner words per chunk",
            ));
        }
        let id = u16::try_from(NEXT.fetch_add(1, Ordering::Relaxed))
            .map_err(|_| XskError::Layout("too many memory areas in one process"))?;
        let umem = Umem {
            area,
            owners,
            chunk_bytes,
            chunks,
            id,
            returned: ArrayQueue::new(chunks as usize / Batch::CAPACITY + 1 + PARTIAL_BATCHES),
            ports: AtomicU32::new(0),
            fill_spare: AtomicU32::new(chunks / 2),
            lost: AtomicU64::new(0),
            pools: Mutex::default(),
        };
        let mut batch = Batch::new();
        for chunk in 0..chunks {
            umem.set_owner(chunk, Owner::Free);
            batch.push(chunk);
            if batch.is_full() {
                umem.give_back(std::mem::take(&mut batch));
            }
        }
        umem.give_back(batch);
        Ok(Arc::new(umem))
    }

    /// Packet memory in memfds of its own.
    ///
    /// # Errors
    ///
    /// As [`Umem::new`]; [`XskError::System`] when the memory cannot be had.
    pub fn in_memory(chunks: u32, chunk_bytes: u32) -> Result<Arc<Umem>, XskError> {
        let map = |name, bytes: usize| {
            memfd(name, bytes)
                .and_then(|fd| Region::map(fd, bytes))
                .map_err(XskError::system("map packet memory"))
        };
        let area = map(c"weir-umem", chunks as usize * chunk_bytes as usize)?;
        let owners = map(c"weir-owners", chunks as usize * 8)?;
        Umem::new(area, owners, chunk_bytes)
    }

    /// An empty magazine for one worker.
    pub fn magazine(self: &Arc<Self>) -> Magazine {
        Magazine::new(Arc::clone(self))
    }

    /// Bytes of a chunk.
    pub fn chunk_bytes(&self) -> u32 {
        self.chunk_bytes
    }

    /// Chunks.
    pub fn chunks(&self) -> u32 {
        self.chunks
    }

    /// The frame's bytes from the packet's first one to the end of the chunk. The packet's length
    /// is known to whoever received it.
    ///
    /// # Panics
    ///
    /// When the frame belongs to another UMEM, which only a mistake in the program can do.
    pub fn bytes<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        let (start, len) = self.window(frame);
        // SAFETY: window() lies in this frame's chunk. A frame is the only right to its chunk in
        // user space (not Clone, made in one place per crossing), the kernel has none while the
        // owner word says Held, and the borrow of the frame excludes writers.
        unsafe { std::slice::from_raw_parts(self.area.base().as_ptr().add(start), len) }
    }

    /// As [`Umem::bytes`], writable.
    ///
    /// # Panics
    ///
    /// As [`Umem::bytes`].
    pub fn bytes_mut<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        let (start, len) = self.window(frame);
        // SAFETY: as in bytes(); the exclusive borrow of the frame excludes every other view.
        unsafe { std::slice::from_raw_parts_mut(self.area.base().as_ptr().add(start), len) }
    }

    /// Writes the bytes right before the packet.
    pub(super) fn write_metadata(
        &self,
        frame: &mut Frame,
        metadata: &[u8; TX_METADATA_BYTES as usize],
    ) {
        let (start, _) = self.window(frame);
        assert!(
            frame.offset() >= TX_METADATA_BYTES,
            "no room for metadata before the packet"
        );
        // SAFETY: the bytes before the packet belong to the same chunk (the offset is at least
        // their number), which the frame is the only right to; the source is a local array.
        unsafe {
            let target = self
                .area
                .base()
                .as_ptr()
                .add(start - TX_METADATA_BYTES as usize);
            std::ptr::copy_nonoverlapping(metadata.as_ptr(), target, metadata.len());
        }
    }

    /// Where the frame's window starts in the area, and its length.
    fn window(&self, frame: &Frame) -> (usize, usize) {
        assert!(
            frame.umem == self.id && frame.chunk < self.chunks,
            "a frame of another memory area"
        );
        let chunk_bytes = self.chunk_bytes as usize;
        let offset = usize::from(frame.offset).min(chunk_bytes);
        (
            frame.chunk as usize * chunk_bytes + offset,
            chunk_bytes - offset,
        )
    }

    /// Where the packet starts in the area: what descriptors carry.
    pub(super) fn address(&self, frame: &Frame) -> u64 {
        self.window(frame).0 as u64
    }

    /// Makes the token of a chunk whose owner word has just become `Held`. Called where a chunk
    /// enters user space and nowhere else.
    pub(super) fn frame(&self, chunk: u32, offset: u16) -> Frame {
        debug_assert_eq!(self.owner(chunk), Some(Owner::Held));
        Frame {
            chunk,
            offset,
            umem: self.id,
        }
    }

    /// Whose the chunk is; `None` for a word that is no owner.
    pub fn owner(&self, chunk: u32) -> Option<Owner> {
        let word = self.owners.words().get(chunk as usize)?;
        Owner::from_word(word.load(Ordering::Acquire))
    }

    pub(super) fn set_owner(&self, chunk: u32, owner: Owner) {
        if let Some(word) = self.owners.words().get(chunk as usize) {
            word.store(owner.to_word(), Ordering::Release);
        }
    }

    /// The chunk and the offset in it of an address that the kernel named; `None` beyond the area.
    pub(super) fn locate(&self, address: u64) -> Option<(u32, u16)> {
        let chunk = u32::try_from(address / u64::from(self.chunk_bytes)).ok()?;
        let offset = (address % u64::from(self.chunk_bytes)) as u16;
        (chunk < self.chunks).then_some((chunk, offset))
    }

    /// Ends the state `from` of the chunk at `address`: `true` when it was in that state.
    pub(super) fn claim(&self, chunk: u32, from: Owner, to: Owner) -> bool {
        let claimed = self.owner(chunk) == Some(from);
        if claimed {
            self.set_owner(chunk, to);
        }
        claimed
    }

    /// Takes a batch of free chunks.
    pub(super) fn take_batch(&self) -> Option<Batch> {
        self.returned.pop()
    }

    /// Gives a batch of free chunks back.
    pub(super) fn give_back(&self, batch: Batch) {
        if batch.is_empty() {
            return;
        }
        if let Err(batch) = self.returned.push(batch) {
            self.lost.fetch_add(batch.len() as u64, Ordering::Relaxed);
        }
    }

    /// What an idle pool may have waiting: its share of half of the chunks, or all of them where
    /// there is no other.
    pub(super) fn fill_share(&self) -> u32 {
        match self.ports.load(Ordering::Relaxed) {
            0 | 1 => self.chunks,
            ports => self.chunks / 2 / ports,
        }
    }

    /// Takes `frames` of the chunks that fill rings share beyond their idle depth.
    pub(super) fn take_fill_spare(&self, frames: u32) -> bool {
        self.fill_spare
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |spare| {
                spare.checked_sub(frames)
            })
            .is_ok()
    }

    /// Whether less than half of that is left.
    pub(super) fn is_fill_spare_scarce(&self) -> bool {
        self.fill_spare.load(Ordering::Relaxed) < self.chunks / 4
    }

    /// Gives them back.
    pub(super) fn return_fill_spare(&self, frames: u32) {
        self.fill_spare.fetch_add(frames, Ordering::Relaxed);
    }

    /// The numbers of the chunks in the return queue, which is as before afterwards. While workers
    /// run, some may be missing that they have taken out and put back meanwhile.
    pub(super) fn returned_chunks(&self) -> Vec<u32> {
        let mut chunks = Vec::new();
        for _ in 0..self.returned.len() {
            let Some(batch) = self.returned.pop() else {
                break;
            };
            chunks.extend(batch.chunks());
            self.give_back(batch);
        }
        chunks
    }

    /// Whether the pool's sockets are closed and its frames on their way back.
    pub(super) fn is_closed(&self, pool: PoolId) -> bool {
        let table = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        table.closed.iter().any(|(closed, _)| *closed == pool)
    }

    /// Frames lost because the return queue was full; 0 unless something is wrong.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Counts where the chunks are. A look at words that others change: exact when they rest.
    pub fn census(&self) -> Census {
        let mut census = Census::default();
        for chunk in 0..self.chunks {
            match self.owner(chunk) {
                Some(Owner::Free) => census.free += 1,
                Some(Owner::Held) | None => census.held += 1,
                Some(Owner::Fill(_)) => census.fill += 1,
                Some(Owner::Transmit(_)) => census.transmit += 1,
            }
        }
        census
    }

    /// Fetches back the frames of every pool whose sockets are all closed, and returns how many.
    /// Cheap when there is none. For the control thread, after it has removed a port.
    ///
    /// In copy mode nothing touches a chunk once the sockets are closed: received packets were
    /// copied under RCU that closing waits for, packets to send are copied before `sendto`
    /// returns. A zero-copy pool counts as closed only [`super::pool::ZERO_COPY_GRACE`] later.
    pub fn reclaim(&self) -> u32 {
        let mut table = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let due = |&mut (_, at): &mut (PoolId, Instant)| at <= now;
        let closed: Vec<PoolId> = table
            .closed
            .extract_if(.., due)
            .map(|(pool, _)| pool)
            .collect();
        if closed.is_empty() {
            return 0;
        }
        let mut frames = 0;
        let mut batch = Batch::new();
        for chunk in 0..self.chunks {
            let pool = match self.owner(chunk) {
                Some(Owner::Fill(pool) | Owner::Transmit(pool)) => pool,
                _ => continue,
            };
            if !closed.contains(&pool) {
                continue;
            }
            self.set_owner(chunk, Owner::Free);
            frames += 1;
            batch.push(chunk);
            if batch.is_full() {
                self.give_back(std::mem::take(&mut batch));
            }
        }
        self.give_back(batch);
        table.free.extend(closed);
        frames
    }

    /// The area's first byte, for registration with a socket.
    pub(super) fn base_address(&self) -> u64 {
        self.area.base().as_ptr() as u64
    }

    /// The area's length in bytes.
    pub(super) fn area_bytes(&self) -> u64 {
        self.area.len() as u64
    }
}
