//! What a port's sockets do apart from system calls.

use std::io;
use std::sync::Arc;

use arrayvec::ArrayVec;

use super::magazine::Magazine;
use super::pool::Pool;
use super::ring::{Consumer, Descriptor, Producer, RingMemory};
use super::umem::{Frame, Owner, TX_METADATA_BYTES};
use crate::DropReason;

/// Packets received in one visit at most.
pub const BURST: usize = 64;

/// Frames of one packet at most: `MAX_SKB_FRAGS` + 1, what copy mode takes.
pub const PARTS_MAX: usize = 18;

/// Bytes of an Ethernet header: anything shorter the kernel drops.
const ETHERNET_BYTES: u32 = 14;

/// System calls of one [`Transmitter::kick`] at most. Copy mode sends 32 packets a call where it
/// has no larger budget, so this is more than any TX ring of ours holds.
const KICKS_MAX: u32 = 64;

/// One received frame.
#[derive(Debug)]
pub struct Received {
    /// Its chunk.
    pub frame: Frame,
    /// Bytes of the packet in it.
    pub len: u32,
    /// The packet continues in the next frame (multi-buffer).
    pub continues: bool,
}

/// What one visit received: whole packets, each in one or more frames after each other, of which
/// all but the last say that they continue.
pub type Burst = ArrayVec<Received, BURST>;

/// A checksum that the kernel (or whoever receives the packet without needing it) completes: the
/// field holds the folded pseudo-header sum, the rest from `start` to the packet's end is added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TxChecksum {
    /// Where summing starts: the transport header, bytes from the packet's first.
    pub start: u16,
    /// The checksum field, bytes from `start`.
    pub offset: u16,
}

/// A frame that was not taken for transmission, and why.
#[derive(Debug)]
pub struct Rejected {
    /// It, as it was.
    pub frame: Frame,
    /// [`DropReason::TransmitFull`] or, for a request that cannot be, [`DropReason::Internal`].
    pub reason: DropReason,
}

/// A piece of a packet of several frames.
#[derive(Debug)]
pub struct Part {
    /// Its chunk.
    pub frame: Frame,
    /// Bytes of the packet in it.
    pub len: u32,
}

/// The pieces of one packet, first to last.
pub type Parts = ArrayVec<Part, PARTS_MAX>;

/// How [`Transmitter::kick`] left the TX ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kick {
    /// The kernel has taken everything.
    Done,
    /// Something is left and the kernel takes no more just now; kick again soon.
    Pending,
    /// The link is down: what is left goes when it is up.
    Down,
    /// The interface is gone: remove the port.
    Gone,
    /// The kernel refuses the descriptor at the head for good: remove the port. A mistake of ours.
    Broken,
}

/// What a port's sockets have counted since they were opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Frames received.
    pub received: u64,
    /// Frames put on the TX ring.
    pub transmitted: u64,
    /// Frames completed.
    pub completed: u64,
    /// Received descriptors that cannot be; ignored.
    pub bad_receptions: u64,
    /// Completed addresses that cannot be; ignored.
    pub bad_completions: u64,
    /// Frames not taken because the TX ring or the port's share was full.
    pub transmit_full: u64,
    /// Requests to transmit that cannot be; a mistake of ours.
    pub bad_requests: u64,
    /// Visits that wanted to fill and found no free frame.
    pub fill_starved: u64,
    /// System calls to make the kernel transmit.
    pub kicks: u64,
}

/// How many frames a port lends the kernel to receive into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FillOptions {
    /// While idle; fewer, down to 8, where there are so many ports that idle ones would have more
    /// than half of the chunks.
    pub idle: u32,
    /// Under load; also bounded by the fill ring and by what all ports share.
    pub max: u32,
}

/// RX, fill and completion rings of one (interface, queue): for the worker that owns the port.
#[derive(Debug)]
pub struct Receiver<M> {
    rx: Consumer<M, Descriptor>,
    fill: Producer<M, u64>,
    completion: Consumer<M, u64>,
    pool: Arc<Pool>,
    depth: FillDepth,
    counters: Counters,
    refused: Refused,
    /// The last frame received belongs to a packet that is refused, and it continues.
    refusing: bool,
}

/// Packets of several frames that were thrown away.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Refused {
    /// How many.
    pub packets: u32,
    /// Their bytes.
    pub bytes: u64,
}

impl<M: RingMemory> Receiver<M> {
    /// Rings of `pool`. `None` unless each has a power of two of entries.
    pub fn new(
        pool: Arc<Pool>,
        rx: M,
        fill: M,
        completion: M,
        options: FillOptions,
    ) -> Option<Self> {
        let fill = Producer::new(fill)?;
        let max = options.max.min(fill.entries());
        Some(Receiver {
            rx: Consumer::new(rx)?,
            completion: Consumer::new(completion)?,
            depth: FillDepth::new(options.idle.min(max), max),
            fill,
            pool,
            counters: Counters::default(),
            refused: Refused::default(),
            refusing: false,
        })
    }

    /// Lends the kernel free frames up to the port's present depth. Returns how many.
    pub fn refill(&mut self, magazine: &mut Magazine) -> u32 {
        let umem = self.pool.umem();
        debug_assert!(Arc::ptr_eq(umem, magazine.umem()));
        self.depth
            .follow(umem.fill_share(), |frames| umem.take_fill_spare(frames));
        let returned = self.depth.settle();
        if returned > 0 {
            umem.return_fill_spare(returned);
        }
        let wanted = self.depth.wanted().min(self.fill.free());
        let mut lent = 0;
        while lent < wanted {
            let Some(chunk) = magazine.take_chunk() else {
                self.counters.fill_starved += 1;
                break;
            };
            umem.set_owner(chunk, Owner::Fill(self.pool.id()));
            let pushed = self
                .fill
                .push(u64::from(chunk) * u64::from(umem.chunk_bytes()));
            debug_assert!(pushed, "free() had said that there is room");
            lent += 1;
        }
        self.fill.publish();
        self.depth.parked += lent;
        lent
    }

    /// Whether the kernel waits to be told of lent frames.
    pub fn fill_needs_wakeup(&self) -> bool {
        self.fill.needs_wakeup()
    }

    /// Takes received packets into `burst`, whole ones only, until the next would not fit or the
    /// ring is empty. Returns how many frames. A packet of more than [`PARTS_MAX`] frames goes to
    /// `magazine`: [`Receiver::take_refused`].
    ///
    /// A packet whose last frame is not there yet stays on the ring, with all of its frames.
    pub fn receive(&mut self, burst: &mut Burst, magazine: &mut Magazine) -> usize {
        let (before, mut taken) = (burst.len(), 0);
        while !burst.is_full() {
            let start = self.rx.place();
            let Some(first) = self.rx.pop() else {
                break;
            };
            if first.continues() || self.refusing {
                match self.receive_chain(first, burst, magazine) {
                    Some(frames) => taken += frames,
                    None => {
                        self.rx.return_to(start);
                        break;
                    }
                }
                continue;
            }
            match self.claim(first, false) {
                Some(received) => {
                    burst.push(received);
                    taken += 1;
                }
                None => self.counters.bad_receptions += 1,
            }
        }
        if self.rx.release() {
            self.counters.received += u64::from(taken);
            self.depth.parked = self.depth.parked.saturating_sub(taken);
            let umem = self.pool.umem();
            self.depth.adapt(umem.is_fill_spare_scarce(), |frames| {
                umem.take_fill_spare(frames)
            });
        }
        burst.len() - before
    }

    /// The packet of several frames that begins with `first`, or what is left of one that is
    /// refused. How many frames have left the kernel; none if the packet has to wait: for its
    /// own end, or for room in the burst.
    fn receive_chain(
        &mut self,
        first: Descriptor,
        burst: &mut Burst,
        magazine: &mut Magazine,
    ) -> Option<u32> {
        let mut chain: ArrayVec<Descriptor, PARTS_MAX> = ArrayVec::new();
        let mut last = first;
        chain.push(first);
        while last.continues() && !chain.is_full() {
            // What is refused is thrown away as it comes.
            match self.rx.pop() {
                Some(next) => last = next,
                None if self.refusing => break,
                // It fills the ring, so its end can never come.
                None if chain.len() as u32 == self.rx.entries() => break,
                None => return None,
            }
            chain.push(last);
        }
        let is_whole = !last.continues();
        if is_whole && !self.refusing && chain.len() > burst.remaining_capacity() {
            return None;
        }
        let mut frames: ArrayVec<Received, PARTS_MAX> = ArrayVec::new();
        for descriptor in &chain {
            frames.extend(self.claim(*descriptor, descriptor.continues()));
        }
        let bad = chain.len() - frames.len();
        self.counters.bad_receptions += bad as u64;
        let taken = frames.len() as u32;
        if is_whole && !self.refusing && bad == 0 {
            burst.extend(frames);
            return Some(taken);
        }
        self.refused.packets += u32::from(!self.refusing);
        self.refused.bytes += chain.iter().map(|part| u64::from(part.len)).sum::<u64>();
        self.refusing = !is_whole;
        for received in frames {
            magazine.give(received.frame);
        }
        Some(taken)
    }

    /// The frame that a descriptor names, if it was lent to the kernel.
    fn claim(&self, descriptor: Descriptor, continues: bool) -> Option<Received> {
        let umem = self.pool.umem();
        let Descriptor { address, len, .. } = descriptor;
        let (chunk, offset) = umem.locate(address)?;
        let is_inside = len > 0 && u32::from(offset).saturating_add(len) <= umem.chunk_bytes();
        let lent = Owner::Fill(self.pool.id());
        (is_inside && umem.claim(chunk, lent, Owner::Held)).then(|| Received {
            frame: umem.frame(chunk, offset),
            len,
            continues,
        })
    }

    /// The packets of too many frames, or of frames that cannot be, since the last call.
    pub fn take_refused(&mut self) -> Refused {
        std::mem::take(&mut self.refused)
    }

    /// Frames that wait in the RX ring.
    pub fn waiting(&mut self) -> u32 {
        self.rx.available()
    }

    /// Puts the frames whose transmission has ended, by whichever socket of the queue, into
    /// `magazine`. Returns how many.
    pub fn complete(&mut self, magazine: &mut Magazine) -> u32 {
        let umem = self.pool.umem();
        let mut seen = false;
        let mut completed = 0;
        // One visit takes what one ring can hold, however fast the kernel adds.
        for _ in 0..self.completion.entries() {
            let Some(address) = self.completion.pop() else {
                break;
            };
            seen = true;
            match umem.locate(address) {
                Some((chunk, _))
                    if umem.claim(chunk, Owner::Transmit(self.pool.id()), Owner::Free) =>
                {
                    magazine.give_chunk(chunk);
                    completed += 1;
                }
                _ => self.counters.bad_completions += 1,
            }
        }
        if seen {
            self.completion.release();
            self.pool.arrive(completed);
            self.counters.completed += u64::from(completed);
        }
        completed
    }

    /// Frames lent to the kernel to receive into.
    pub fn parked(&self) -> u32 {
        self.depth.parked
    }

    /// What it has counted.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The pool.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    pub(super) fn rx_memory(&self) -> &M {
        self.rx.memory()
    }
}

impl<M> Drop for Receiver<M> {
    fn drop(&mut self) {
        self.pool.umem().return_fill_spare(self.depth.borrowed);
    }
}

/// The depth of a fill ring: few frames while idle, doubled when a visit found more than a quarter
/// used, halved after a long time with no more than an eighth. The rest is for what comes while
/// the worker is elsewhere: a TCP stream in packets of sixteen frames sends dozens at once.
#[derive(Debug)]
struct FillDepth {
    /// The depth while idle, at most.
    idle_max: u32,
    /// And with as many ports as there are.
    idle: u32,
    max: u32,
    target: u32,
    /// Frames beyond `idle` taken from what all ports share.
    borrowed: u32,
    /// Frames lent to the kernel and not received.
    parked: u32,
    /// Visits with packets since the depth last had to grow or was halved.
    calm_visits: u32,
    /// The most frames that one of them found used.
    peak: u32,
}

/// The least that an idle port has waiting, unless it was given less.
const IDLE_MIN: u32 = 8;
/// Visits with packets but without need after which the depth is halved: once a worker was kept from
/// its core for some milliseconds it will be again, and with few frames it loses packets each time.
const CALM_VISITS: u32 = 1 << 16;
/// The same while other ports may want the frames.
const CALM_VISITS_SCARCE: u32 = 1 << 10;

impl FillDepth {
    fn new(idle: u32, max: u32) -> Self {
        FillDepth {
            idle_max: idle,
            idle,
            max,
            target: idle,
            borrowed: 0,
            parked: 0,
            calm_visits: 0,
            peak: 0,
        }
    }

    fn wanted(&self) -> u32 {
        self.target.saturating_sub(self.parked)
    }

    /// Takes `share` as the depth while idle, but for its bounds.
    fn follow(&mut self, share: u32, take_spare: impl Fn(u32) -> bool) {
        let idle = share.max(IDLE_MIN).min(self.idle_max);
        if idle == self.idle {
            return;
        }
        let was_idle = self.target <= self.idle;
        self.idle = idle;
        let borrowed = if was_idle {
            0
        } else {
            self.target.saturating_sub(idle)
        };
        let more = borrowed.saturating_sub(self.borrowed);
        if more == 0 || take_spare(more) {
            self.borrowed += more;
            self.target = idle + borrowed;
        } else {
            self.target = idle + self.borrowed;
        }
    }

    /// After a visit with packets. `scarce` says that little is left to share.
    fn adapt(&mut self, scarce: bool, take_spare: impl Fn(u32) -> bool) {
        let used = self.target.saturating_sub(self.parked);
        if used <= self.target / 4 {
            self.calm_visits += 1;
            self.peak = self.peak.max(used);
            let enough = if scarce {
                CALM_VISITS_SCARCE
            } else {
                CALM_VISITS
            };
            if self.calm_visits >= enough {
                if self.peak <= self.target / 8 {
                    self.target = (self.target / 2).max(self.idle);
                }
                (self.calm_visits, self.peak) = (0, 0);
            }
            return;
        }
        (self.calm_visits, self.peak) = (0, 0);
        let target = self.target.saturating_mul(2).min(self.max);
        let borrowed = target - self.idle;
        let more = borrowed.saturating_sub(self.borrowed);
        if more == 0 || take_spare(more) {
            self.borrowed += more;
            self.target = target;
        }
    }

    /// What can be given back to the other ports: what is neither wanted nor parked any more.
    fn settle(&mut self) -> u32 {
        let needed = self.target.max(self.parked).saturating_sub(self.idle);
        let returned = self.borrowed.saturating_sub(needed);
        self.borrowed -= returned;
        returned
    }
}

/// A TX ring into one (interface, queue): one worker's own.
#[derive(Debug)]
pub struct Transmitter<M> {
    tx: Producer<M, Descriptor>,
    pool: Arc<Pool>,
    counters: Counters,
}

impl<M: RingMemory> Transmitter<M> {
    /// A TX ring of `pool`. `None` unless it has a power of two of entries.
    pub fn new(pool: Arc<Pool>, tx: M) -> Option<Self> {
        Some(Transmitter {
            tx: Producer::new(tx)?,
            pool,
            counters: Counters::default(),
        })
    }

    /// Puts a packet of `len` bytes on the TX ring; the kernel sees it at the next
    /// [`Transmitter::kick`].
    ///
    /// # Errors
    ///
    /// The frame comes back with [`DropReason::TransmitFull`] when the ring or the port's share of
    /// frames in flight is full, with [`DropReason::Internal`] when the request cannot be: shorter
    /// than an Ethernet header, longer than the chunk, a checksum outside the packet or where
    /// [`Pool::takes_checksum_offload`] says no.
    pub fn transmit(
        &mut self,
        frame: Frame,
        len: u32,
        checksum: Option<TxChecksum>,
    ) -> Result<(), Rejected> {
        if len < ETHERNET_BYTES || !self.fits(&frame, len) || !self.allows(checksum, len) {
            self.counters.bad_requests += 1;
            return Err(Rejected {
                frame,
                reason: DropReason::Internal,
            });
        }
        if self.tx.free() == 0 || !self.pool.depart(1) {
            self.counters.transmit_full += 1;
            return Err(Rejected {
                frame,
                reason: DropReason::TransmitFull,
            });
        }
        self.put(frame, len, checksum, false);
        Ok(())
    }

    /// As [`Transmitter::transmit`], for a packet of several frames: all or none. Empties `parts`.
    ///
    /// # Errors
    ///
    /// As [`Transmitter::transmit`], with `parts` as they were; no parts at all are a bad request too. The checksum must lie
    /// in the first part.
    pub fn transmit_parts(
        &mut self,
        parts: &mut Parts,
        checksum: Option<TxChecksum>,
    ) -> Result<(), DropReason> {
        let first_len = parts.first().map_or(0, |part| part.len);
        let fits = parts
            .iter()
            .all(|part| part.len > 0 && self.fits(&part.frame, part.len));
        if first_len < ETHERNET_BYTES || !fits || !self.allows(checksum, first_len) {
            self.counters.bad_requests += parts.len() as u64;
            return Err(DropReason::Internal);
        }
        let frames = parts.len() as u32;
        if self.tx.free() < frames || !self.pool.depart(frames) {
            self.counters.transmit_full += u64::from(frames);
            return Err(DropReason::TransmitFull);
        }
        let mut checksum = checksum;
        let last = parts.len() - 1;
        for (index, Part { frame, len }) in parts.drain(..).enumerate() {
            self.put(frame, len, checksum.take(), index < last);
        }
        Ok(())
    }

    fn fits(&self, frame: &Frame, len: u32) -> bool {
        // In aligned mode the kernel subtracts the metadata's length from every address, used or
        // not (net/xdp/xsk_queue.h, xp_aligned_validate_desc).
        frame.offset() >= TX_METADATA_BYTES
            && frame.offset().saturating_add(len) <= self.pool.umem().chunk_bytes()
    }

    fn allows(&self, checksum: Option<TxChecksum>, len: u32) -> bool {
        checksum.is_none_or(|TxChecksum { start, offset }| {
            self.pool.takes_checksum_offload() && u32::from(start) + u32::from(offset) + 2 <= len
        })
    }

    /// The caller has checked everything and counted the frame as departed.
    fn put(&mut self, mut frame: Frame, len: u32, checksum: Option<TxChecksum>, continues: bool) {
        let umem = self.pool.umem();
        let mut options = if continues { Descriptor::CONTINUES } else { 0 };
        if let Some(checksum) = checksum {
            umem.write_metadata(&mut frame, &checksum_metadata(checksum));
            options |= Descriptor::METADATA;
        }
        let address = umem.address(&frame);
        umem.set_owner(frame.chunk, Owner::Transmit(self.pool.id()));
        let pushed = self.tx.push(Descriptor {
            address,
            len,
            options,
        });
        debug_assert!(pushed, "free() had said that there is room");
        self.counters.transmitted += 1;
    }

    pub(super) fn tx_memory(&self) -> &M {
        self.tx.memory()
    }

    /// Shows the kernel what was put on the ring and, where it asks for it, makes it transmit with
    /// `wake` (one `sendto`). In copy mode a call sends a bounded number of packets and stops at
    /// any that is dropped, so it is repeated while it makes headway and something is left.
    pub fn kick(&mut self, mut wake: impl FnMut(&M) -> io::Result<()>) -> Kick {
        self.tx.publish();
        let mut pending = self.tx.pending();
        let mut kick = Kick::Pending;
        for _ in 0..KICKS_MAX {
            if pending == 0 {
                return Kick::Done;
            }
            if !self.tx.needs_wakeup() {
                return Kick::Pending;
            }
            self.counters.kicks += 1;
            let result = wake(self.tx.memory());
            let left = self.tx.pending();
            let headway = left != pending;
            pending = left;
            kick = match result.map_err(|error| error.raw_os_error()) {
                Ok(()) => Kick::Pending,
                Err(Some(libc::ENXIO | libc::ENODEV | libc::EBADF)) => return Kick::Gone,
                Err(Some(libc::ENETDOWN)) => return Kick::Down,
                Err(Some(
                    libc::EAGAIN | libc::EBUSY | libc::ENOBUFS | libc::EINTR | libc::ENOMEM,
                )) => Kick::Pending,
                Err(_) => Kick::Broken,
            };
            if !headway || self.pool.zero_copy {
                break;
            }
        }
        if pending == 0 { Kick::Done } else { kick }
    }

    /// Frames that can be put on the ring now.
    pub fn free(&mut self) -> u32 {
        self.tx.free()
    }

    /// What it has counted.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The pool.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }
}

/// `struct xsk_tx_metadata` with a checksum request: flags (u64), csum_start (u16), csum_offset
/// (u16), and 12 bytes for what we do not ask.
fn checksum_metadata(checksum: TxChecksum) -> [u8; TX_METADATA_BYTES as usize] {
    let mut bytes = [0; TX_METADATA_BYTES as usize];
    bytes[..8].copy_from_slice(&u64::from(libc::XDP_TXMD_FLAGS_CHECKSUM).to_ne_bytes());
    bytes[8..10].copy_from_slice(&checksum.start.to_ne_bytes());
    bytes[10..12].copy_from_slice(&checksum.offset.to_ne_bytes());
    bytes
}

impl std::ops::Add for Counters {
    type Output = Counters;
    fn add(self, other: Counters) -> Counters {
        Counters {
            received: self.received + other.received,
            transmitted: self.transmitted + other.transmitted,
            completed: self.completed + other.completed,
            bad_receptions: self.bad_receptions + other.bad_receptions,
            bad_completions: self.bad_completions + other.bad_completions,
            transmit_full: self.transmit_full + other.transmit_full,
            bad_requests: self.bad_requests + other.bad_requests,
            fill_starved: self.fill_starved + other.fill_starved,
            kicks: self.kicks + other.kicks,
        }
    }
}
