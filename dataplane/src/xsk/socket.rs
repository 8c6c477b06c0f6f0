//! Sockets: [`PortSocket`] owns a queue, [`TransmitSocket`] sends through it from another worker.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::XskError;
use super::magazine::Magazine;
use super::pool::{Pool, PoolOptions};
use super::port::{
    Burst, Counters, FillOptions, Kick, Parts, Receiver, Refused, Rejected, Transmitter, TxChecksum,
};
use super::system::{self, MappedRing, RingKind, Statistics};
use super::umem::{Frame, Umem};
use crate::DropReason;

/// How long a busy queue is tried again. The kernel lets go of a dead owner's queue within 20 ms;
/// a successor may also meet its predecessor's last moments.
const BUSY_WAIT: Duration = Duration::from_secs(3);
/// The first pause between attempts; doubled up to [`BUSY_PAUSE_MAX`].
const BUSY_PAUSE: Duration = Duration::from_millis(2);
const BUSY_PAUSE_MAX: Duration = Duration::from_millis(50);

/// How a port is bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortOptions {
    /// Interface index, in the network namespace of the calling thread.
    pub interface: u32,
    /// Queue of the interface, from 0.
    pub queue: u32,
    /// Zero-copy mode (the driver must have it) instead of copy mode.
    pub zero_copy: bool,
    /// Take and give packets of several frames (`XDP_USE_SG`, Linux 6.6). Without it a packet
    /// larger than a frame is dropped by the kernel and counted as `rx_dropped`.
    pub multi_buffer: bool,
    /// Entries of the RX and of the fill ring, a power of two.
    pub rx_entries: u32,
    /// Entries of each TX ring, a power of two.
    pub tx_entries: u32,
    /// Frames lent to the kernel while the port is idle.
    pub fill_idle: u32,
    /// Frames under way through the queue's TX rings at most. A veth takes 256 before it drops.
    pub in_flight_max: u32,
}

impl PortOptions {
    /// Copy mode, one frame a packet, 32 frames parked while idle and 256 in flight.
    pub fn new(interface: u32, queue: u32) -> Self {
        PortOptions {
            interface,
            queue,
            zero_copy: false,
            multi_buffer: false,
            rx_entries: 4096,
            tx_entries: 256,
            fill_idle: 32,
            in_flight_max: 256,
        }
    }
}

/// The owner's socket of one (interface, queue): for one worker alone.
///
/// Dropping it closes it once the [`TransmitSocket`]s of the queue are gone too; then
/// [`Umem::reclaim`] fetches its frames back.
#[derive(Debug)]
pub struct PortSocket {
    receiver: Receiver<MappedRing>,
    transmitter: Transmitter<MappedRing>,
}

/// Another worker's socket into the same queue: sends only. What it sends is completed at the
/// owner.
#[derive(Debug)]
pub struct TransmitSocket {
    transmitter: Transmitter<MappedRing>,
}

impl PortSocket {
    /// Opens a socket on a queue. The UMEM is shared from any live socket of the same kind, and
    /// registered when there is none. Waits up to three seconds for a queue whose last owner the
    /// kernel has not let go of yet: not for the packet path.
    ///
    /// # Errors
    ///
    /// [`XskError::Busy`] when somebody has the queue, [`XskError::System`] otherwise
    /// (`EOPNOTSUPP`: no zero-copy here; `ENODEV`: no such interface; `EINVAL`: no such queue, or a
    /// kernel without multi-buffer; `EPERM`: needs CAP_NET_RAW).
    pub fn open(umem: &Arc<Umem>, options: &PortOptions) -> Result<PortSocket, XskError> {
        let start = Instant::now();
        let mut pause = BUSY_PAUSE;
        loop {
            match Self::open_once(umem, options) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    if start.elapsed() >= BUSY_WAIT {
                        return Err(XskError::Busy {
                            interface: options.interface,
                            queue: options.queue,
                            waited_ms: start.elapsed().as_millis() as u64,
                        });
                    }
                    thread::sleep(pause);
                    pause = (pause * 2).min(BUSY_PAUSE_MAX);
                }
                result => return result,
            }
        }
    }

    fn open_once(umem: &Arc<Umem>, options: &PortOptions) -> Result<PortSocket, XskError> {
        for anchor in anchors(umem, options) {
            let Some(fd) = anchor.fd() else { continue };
            match Self::bind(
                umem,
                options,
                Anchor::Shared {
                    fd,
                    metadata: anchor.metadata,
                },
            ) {
                // The anchor's interface is gone, so nothing can be shared from it.
                Err(error) if error.raw_os_error() == Some(libc::EBADF) => continue,
                result => return result,
            }
        }
        match Self::bind(umem, options, Anchor::Own { metadata: true }) {
            // A kernel before 6.11 or so: no metadata, so checksums are completed in software.
            Err(XskError::System {
                what: REGISTER,
                source,
            }) if source.raw_os_error() == Some(libc::EINVAL) => {
                Self::bind(umem, options, Anchor::Own { metadata: false })
            }
            result => result,
        }
    }

    fn bind(
        umem: &Arc<Umem>,
        options: &PortOptions,
        anchor: Anchor<'_>,
    ) -> Result<PortSocket, XskError> {
        let fd = Arc::new(system::socket().map_err(XskError::system("open an AF_XDP socket"))?);
        let (shared, metadata) = match anchor {
            Anchor::Shared { fd, metadata } => (Some(fd), metadata),
            Anchor::Own { metadata } => {
                let (address, bytes) = (umem.base_address(), umem.area_bytes());
                system::register(fd.as_fd(), address, bytes, umem.chunk_bytes(), metadata)
                    .map_err(XskError::system(REGISTER))?;
                (None, metadata)
            }
        };
        let sizes = [
            (RingKind::Fill, options.rx_entries),
            (RingKind::Completion, completion_entries(options)),
            (RingKind::Rx, options.rx_entries),
            (RingKind::Tx, options.tx_entries),
        ];
        for (kind, entries) in sizes {
            system::size_ring(fd.as_fd(), kind, entries)
                .map_err(XskError::system("size a ring"))?;
        }
        let map = |kind, entries| {
            MappedRing::map(&fd, kind, entries).map_err(XskError::system("map a ring"))
        };
        let [fill, completion, rx, tx] = sizes.map(|(kind, entries)| map(kind, entries));
        let (fill, completion, rx, tx) = (fill?, completion?, rx?, tx?);
        system::bind(
            fd.as_fd(),
            options.interface,
            options.queue,
            anchor.flags(options),
            shared,
        )
        .map_err(XskError::system("bind an AF_XDP socket"))?;
        system::widen_transmission(fd.as_fd(), options.tx_entries);
        let pool = Pool::new(
            umem,
            PoolOptions {
                fd: Some(fd),
                interface: options.interface,
                queue: options.queue,
                zero_copy: options.zero_copy,
                multi_buffer: options.multi_buffer,
                metadata,
                tx_entries: options.tx_entries,
                in_flight_max: options.in_flight_max,
            },
        )?;
        let depth = FillOptions {
            idle: options.fill_idle,
            max: options.rx_entries,
        };
        Receiver::new(Arc::clone(&pool), rx, fill, completion, depth)
            .zip(Transmitter::new(pool, tx))
            .map(|(receiver, transmitter)| PortSocket {
                receiver,
                transmitter,
            })
            .ok_or(XskError::Layout(
                "a ring must have a power of two of entries",
            ))
    }

    /// What the queue's sockets share; [`TransmitSocket::open`] takes it.
    pub fn pool(&self) -> &Arc<Pool> {
        self.receiver.pool()
    }

    /// Lends the kernel free frames up to the port's present depth. Returns how many.
    pub fn refill(&mut self, magazine: &mut Magazine) -> u32 {
        let lent = self.receiver.refill(magazine);
        if lent > 0 && self.receiver.fill_needs_wakeup() {
            // Any error here shows again, and is dealt with, at the next kick.
            let _ = system::wake_receive(self.as_fd());
        }
        lent
    }

    /// Takes received packets into `burst`: see [`Receiver::receive`].
    pub fn receive(&mut self, burst: &mut Burst, magazine: &mut Magazine) -> usize {
        self.receiver.receive(burst, magazine)
    }

    /// The packets that were thrown away since the last call: see [`Receiver::take_refused`].
    pub fn take_refused(&mut self) -> Refused {
        self.receiver.take_refused()
    }

    /// Frames that wait in the RX ring.
    pub fn waiting(&mut self) -> u32 {
        self.receiver.waiting()
    }

    /// Puts the frames whose transmission has ended, by whichever socket of the queue, into
    /// `magazine`. Returns how many.
    pub fn complete(&mut self, magazine: &mut Magazine) -> u32 {
        self.receiver.complete(magazine)
    }

    /// Puts a packet on the TX ring: see [`Transmitter::transmit`].
    ///
    /// # Errors
    ///
    /// As [`Transmitter::transmit`].
    pub fn transmit(
        &mut self,
        frame: Frame,
        len: u32,
        checksum: Option<TxChecksum>,
    ) -> Result<(), Rejected> {
        self.transmitter.transmit(frame, len, checksum)
    }

    /// Puts a packet of several frames on the TX ring: see [`Transmitter::transmit_parts`].
    ///
    /// # Errors
    ///
    /// As [`Transmitter::transmit_parts`].
    pub fn transmit_parts(
        &mut self,
        parts: &mut Parts,
        checksum: Option<TxChecksum>,
    ) -> Result<(), DropReason> {
        self.transmitter.transmit_parts(parts, checksum)
    }

    /// Makes the kernel transmit: see [`Transmitter::kick`].
    pub fn kick(&mut self) -> Kick {
        kick(&mut self.transmitter)
    }

    /// The kernel's counters.
    ///
    /// # Errors
    ///
    /// What `getsockopt` says.
    pub fn statistics(&self) -> io::Result<Statistics> {
        system::statistics(self.as_fd())
    }

    /// Our counters.
    pub fn counters(&self) -> Counters {
        self.receiver.counters() + self.transmitter.counters()
    }

    /// Frames lent to the kernel to receive into.
    pub fn parked(&self) -> u32 {
        self.receiver.parked()
    }
}

impl AsFd for PortSocket {
    /// For epoll (readable: something waits in the RX ring) and for the XSKMAP.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receiver.rx_memory().as_fd()
    }
}

impl TransmitSocket {
    /// Opens a TX-only socket into the pool's queue.
    ///
    /// # Errors
    ///
    /// [`XskError::System`], with `EBADF` when the interface is gone.
    pub fn open(pool: &Arc<Pool>) -> Result<TransmitSocket, XskError> {
        let fd = Arc::new(system::socket().map_err(XskError::system("open an AF_XDP socket"))?);
        let entries = pool.tx_entries;
        system::size_ring(fd.as_fd(), RingKind::Tx, entries)
            .map_err(XskError::system("size a ring"))?;
        let tx =
            MappedRing::map(&fd, RingKind::Tx, entries).map_err(XskError::system("map a ring"))?;
        system::bind(
            fd.as_fd(),
            pool.interface,
            pool.queue,
            libc::XDP_SHARED_UMEM,
            pool.fd(),
        )
        .map_err(XskError::system("bind a TX-only AF_XDP socket"))?;
        system::widen_transmission(fd.as_fd(), entries);
        Transmitter::new(Arc::clone(pool), tx)
            .map(|transmitter| TransmitSocket { transmitter })
            .ok_or(XskError::Layout(
                "a ring must have a power of two of entries",
            ))
    }

    /// Puts a packet on the TX ring: see [`Transmitter::transmit`].
    ///
    /// # Errors
    ///
    /// As [`Transmitter::transmit`].
    pub fn transmit(
        &mut self,
        frame: Frame,
        len: u32,
        checksum: Option<TxChecksum>,
    ) -> Result<(), Rejected> {
        self.transmitter.transmit(frame, len, checksum)
    }

    /// Puts a packet of several frames on the TX ring: see [`Transmitter::transmit_parts`].
    ///
    /// # Errors
    ///
    /// As [`Transmitter::transmit_parts`].
    pub fn transmit_parts(
        &mut self,
        parts: &mut Parts,
        checksum: Option<TxChecksum>,
    ) -> Result<(), DropReason> {
        self.transmitter.transmit_parts(parts, checksum)
    }

    /// Makes the kernel transmit: see [`Transmitter::kick`].
    pub fn kick(&mut self) -> Kick {
        kick(&mut self.transmitter)
    }

    /// What the queue's sockets share.
    pub fn pool(&self) -> &Arc<Pool> {
        self.transmitter.pool()
    }

    /// Our counters.
    pub fn counters(&self) -> Counters {
        self.transmitter.counters()
    }
}

impl AsFd for TransmitSocket {
    /// For the kernel's counters.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.transmitter.tx_memory().as_fd()
    }
}

fn kick(transmitter: &mut Transmitter<MappedRing>) -> Kick {
    transmitter.kick(|ring| system::wake_transmit(ring.as_fd()))
}

const REGISTER: &str = "register packet memory";

/// Where a socket's UMEM comes from.
#[derive(Clone, Copy)]
enum Anchor<'a> {
    /// Another socket has registered it.
    Shared { fd: BorrowedFd<'a>, metadata: bool },
    /// It registers it itself.
    Own { metadata: bool },
}

impl Anchor<'_> {
    fn flags(self, options: &PortOptions) -> u16 {
        match self {
            // Mode, need_wakeup and multi-buffer are inherited; saying them again is EINVAL.
            Anchor::Shared { .. } => libc::XDP_SHARED_UMEM,
            Anchor::Own { .. } => {
                let mode = if options.zero_copy {
                    libc::XDP_ZEROCOPY
                } else {
                    libc::XDP_COPY
                };
                let parts = if options.multi_buffer {
                    libc::XDP_USE_SG
                } else {
                    0
                };
                mode | parts | libc::XDP_USE_NEED_WAKEUP
            }
        }
    }
}

/// Live pools whose UMEM registration a socket like `options` can share. One registration has one
/// mode, which its first socket decides: copy-mode sockets share with each other, zero-copy ones
/// only on the same interface (its driver maps the memory for its device).
fn anchors(umem: &Umem, options: &PortOptions) -> Vec<Arc<Pool>> {
    let table = umem.pools.lock().unwrap_or_else(PoisonError::into_inner);
    let live: Vec<Arc<Pool>> = table
        .live
        .iter()
        .filter_map(std::sync::Weak::upgrade)
        .collect();
    // The lock is let go first: dropping the last handle of a pool takes it too.
    drop(table);
    live.into_iter()
        .filter(|pool| {
            pool.zero_copy == options.zero_copy
                && pool.multi_buffer == options.multi_buffer
                && (!pool.zero_copy || pool.interface == options.interface)
        })
        .collect()
}

/// Entries of the completion ring: the kernel stops transmitting when completions have no room.
fn completion_entries(options: &PortOptions) -> u32 {
    options
        .in_flight_max
        .max(options.tx_entries)
        .next_power_of_two()
}
