//! System calls of AF_XDP (`man 7 xdp` does not exist; `Documentation/networking/af_xdp.rst`,
//! `include/uapi/linux/if_xdp.h`).
#![allow(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

use super::ring::RingMemory;

/// Since Linux 6.17; not in libc yet.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// Bytes of packets that one socket may have under way. The bound that matters is the pool's
/// `in_flight_max`; the kernel's default of 208 KiB would stop at about 90 full packets.
const SEND_BUFFER_BYTES: libc::c_int = 8 << 20;

/// Which ring of a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RingKind {
    Rx,
    Tx,
    Fill,
    Completion,
}

/// The kernel's own counters of a socket (`struct xdp_statistics`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Statistics {
    /// Packets dropped for other reasons than a full ring: mostly no frame to receive into, or a
    /// packet larger than a frame.
    pub rx_dropped: u64,
    /// Descriptors in the fill ring that the kernel refused.
    pub rx_invalid_descriptors: u64,
    /// Descriptors in the TX ring that the kernel refused.
    pub tx_invalid_descriptors: u64,
    /// Packets dropped because the RX ring was full.
    pub rx_ring_full: u64,
    /// Packets that found the fill ring empty.
    pub rx_fill_ring_empty: u64,
    /// Times that the kernel looked for something to transmit and found nothing.
    pub tx_ring_empty: u64,
}

impl std::ops::AddAssign for Statistics {
    fn add_assign(&mut self, other: Statistics) {
        self.rx_dropped += other.rx_dropped;
        self.rx_invalid_descriptors += other.rx_invalid_descriptors;
        self.tx_invalid_descriptors += other.tx_invalid_descriptors;
        self.rx_ring_full += other.rx_ring_full;
        self.rx_fill_ring_empty += other.rx_fill_ring_empty;
        self.tx_ring_empty += other.tx_ring_empty;
    }
}

pub(super) fn socket() -> io::Result<OwnedFd> {
    // SAFETY: the call touches no memory.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just created and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `setsockopt` with a plain C value. Private to this module, so that `T` is always a type whose
/// every byte is initialised.
fn set<T: Copy>(fd: BorrowedFd<'_>, level: i32, option: i32, value: &T) -> io::Result<()> {
    // SAFETY: the pointer and the length describe `value`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// `getsockopt` into a plain C value that starts as zeroes; the kernel must fill all of it.
fn get<T: Copy>(fd: BorrowedFd<'_>, option: i32, mut value: T) -> io::Result<T> {
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the pointer and the length describe `value`; the kernel writes at most `len` bytes,
    // and the types used are plain integers, valid for any bytes.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_XDP,
            option,
            std::ptr::from_mut(&mut value).cast(),
            &mut len,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    if (len as usize) < size_of::<T>() {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "the kernel's AF_XDP is older than Linux 5.9",
        ));
    }
    Ok(value)
}

/// Registers packet memory with a socket; `metadata` asks for room for TX metadata.
pub(super) fn register(
    fd: BorrowedFd<'_>,
    address: u64,
    bytes: u64,
    chunk_bytes: u32,
    metadata: bool,
) -> io::Result<()> {
    let registration = libc::xdp_umem_reg {
        addr: address,
        len: bytes,
        chunk_size: chunk_bytes,
        headroom: 0,
        flags: if metadata {
            libc::XDP_UMEM_TX_METADATA_LEN
        } else {
            0
        },
        tx_metadata_len: if metadata {
            super::umem::TX_METADATA_BYTES
        } else {
            0
        },
    };
    set(fd, libc::SOL_XDP, libc::XDP_UMEM_REG, &registration)
}

pub(super) fn size_ring(fd: BorrowedFd<'_>, kind: RingKind, entries: u32) -> io::Result<()> {
    let option = match kind {
        RingKind::Rx => libc::XDP_RX_RING,
        RingKind::Tx => libc::XDP_TX_RING,
        RingKind::Fill => libc::XDP_UMEM_FILL_RING,
        RingKind::Completion => libc::XDP_UMEM_COMPLETION_RING,
    };
    set(fd, libc::SOL_XDP, option, &entries)
}

/// Lets one `sendto` send the whole TX ring, where the kernel knows how (else 32 packets), and
/// lifts the bound on bytes under way as far as we may.
pub(super) fn widen_transmission(fd: BorrowedFd<'_>, tx_entries: u32) {
    // Both only save system calls: without them kick() repeats itself and stops at fewer packets.
    let _ = set(fd, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, &tx_entries);
    if set(
        fd,
        libc::SOL_SOCKET,
        libc::SO_SNDBUFFORCE,
        &SEND_BUFFER_BYTES,
    )
    .is_err()
    {
        let _ = set(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, &SEND_BUFFER_BYTES);
    }
}

pub(super) fn bind(
    fd: BorrowedFd<'_>,
    interface: u32,
    queue: u32,
    flags: u16,
    shared: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: flags,
        sxdp_ifindex: interface,
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: shared.map_or(0, |fd| fd.as_raw_fd() as u32),
    };
    // SAFETY: the pointer and the length describe `address`, which outlives the call.
    let result = unsafe {
        libc::bind(
            fd.as_raw_fd(),
            std::ptr::from_ref(&address).cast(),
            size_of::<libc::sockaddr_xdp>() as libc::socklen_t,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Whether the kernel takes packets of several frames (`XDP_USE_SG`, Linux 6.6).
///
/// It looks at a bind's flags before it looks for the interface, and there is no interface 0: what
/// does not know the flag says `EINVAL`, what knows it `ENODEV`.
///
/// # Errors
///
/// When no AF_XDP socket can be opened.
pub fn takes_multi_buffer() -> io::Result<bool> {
    let fd = socket()?;
    let refusal = bind(fd.as_fd(), 0, 0, libc::XDP_COPY | libc::XDP_USE_SG, None);
    Ok(refusal.is_err_and(|error| error.raw_os_error() == Some(libc::ENODEV)))
}

/// Makes the kernel transmit.
pub(super) fn wake_transmit(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no buffer and no address are passed.
    let result = unsafe {
        libc::sendto(
            fd.as_raw_fd(),
            std::ptr::null(),
            0,
            libc::MSG_DONTWAIT,
            std::ptr::null(),
            0,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Makes the kernel look at the fill ring.
pub(super) fn wake_receive(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no buffer and no address are passed.
    let result = unsafe {
        libc::recvfrom(
            fd.as_raw_fd(),
            std::ptr::null_mut(),
            0,
            libc::MSG_DONTWAIT,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Reads a socket's counters: a system call that waits for one that transmits by the same socket, so
/// it is not for workers.
///
/// # Errors
/// If the descriptor is no AF_XDP socket.
pub fn statistics(fd: BorrowedFd<'_>) -> io::Result<Statistics> {
    let empty = libc::xdp_statistics {
        rx_dropped: 0,
        rx_invalid_descs: 0,
        tx_invalid_descs: 0,
        rx_ring_full: 0,
        rx_fill_ring_empty_descs: 0,
        tx_ring_empty_descs: 0,
    };
    let statistics = get(fd, libc::XDP_STATISTICS, empty)?;
    Ok(Statistics {
        rx_dropped: statistics.rx_dropped,
        rx_invalid_descriptors: statistics.rx_invalid_descs,
        tx_invalid_descriptors: statistics.tx_invalid_descs,
        rx_ring_full: statistics.rx_ring_full,
        rx_fill_ring_empty: statistics.rx_fill_ring_empty_descs,
        tx_ring_empty: statistics.tx_ring_empty_descs,
    })
}

/// A ring mapped from its socket. Keeps the socket open; unmaps before it lets go of it, because
/// the kernel keeps a queue busy as long as a ring of its socket is mapped anywhere.
#[derive(Debug)]
pub struct MappedRing {
    base: NonNull<u8>,
    bytes: usize,
    producer: usize,
    consumer: usize,
    flags: usize,
    entries: usize,
    words: usize,
    fd: Arc<OwnedFd>,
}

// SAFETY: the mapping is reached through atomics only and lives as long as the value.
unsafe impl Send for MappedRing {}

impl MappedRing {
    /// Maps a ring of `entries` entries that has been sized already.
    pub(super) fn map(fd: &Arc<OwnedFd>, kind: RingKind, entries: u32) -> io::Result<MappedRing> {
        let offsets = offsets(fd.as_fd())?;
        let (offset, page_offset, entry_bytes) = match kind {
            RingKind::Rx => (offsets.rx, libc::XDP_PGOFF_RX_RING, 16),
            RingKind::Tx => (offsets.tx, libc::XDP_PGOFF_TX_RING, 16),
            RingKind::Fill => (offsets.fr, libc::XDP_UMEM_PGOFF_FILL_RING as libc::off_t, 8),
            RingKind::Completion => (
                offsets.cr,
                libc::XDP_UMEM_PGOFF_COMPLETION_RING as libc::off_t,
                8,
            ),
        };
        let misplaced = [
            (offset.producer, 4),
            (offset.consumer, 4),
            (offset.flags, 4),
        ]
        .into_iter()
        .any(|(at, align)| at % align != 0 || at + align > offset.desc)
            || offset.desc % 8 != 0;
        if misplaced {
            return Err(io::Error::other(
                "the kernel lays rings out in an unknown way",
            ));
        }
        let bytes = offset.desc as usize + entries as usize * entry_bytes;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory of ours.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                fd.as_raw_fd(),
                page_offset,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(address.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(MappedRing {
            base,
            bytes,
            producer: offset.producer as usize,
            consumer: offset.consumer as usize,
            flags: offset.flags as usize,
            entries: offset.desc as usize,
            words: entries as usize * entry_bytes / 8,
            fd: Arc::clone(fd),
        })
    }

    fn index(&self, at: usize) -> &AtomicU32 {
        // SAFETY: map() has checked that the four bytes lie in the mapping, aligned; the kernel
        // accesses them atomically; they live as long as `self`.
        unsafe { &*self.base.as_ptr().add(at).cast::<AtomicU32>() }
    }
}

impl RingMemory for MappedRing {
    type Index = AtomicU32;
    type Word = AtomicU64;

    fn producer(&self) -> &AtomicU32 {
        self.index(self.producer)
    }

    fn consumer(&self) -> &AtomicU32 {
        self.index(self.consumer)
    }

    fn flags(&self) -> &AtomicU32 {
        self.index(self.flags)
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the words lie in the mapping, aligned to 8 as map() has checked, are accessed
        // atomically here, and live as long as `self`.
        unsafe {
            std::slice::from_raw_parts(self.base.as_ptr().add(self.entries).cast(), self.words)
        }
    }
}

impl AsFd for MappedRing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for MappedRing {
    fn drop(&mut self) {
        // SAFETY: base and bytes are what mmap returned, and no view outlives `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

fn offsets(fd: BorrowedFd<'_>) -> io::Result<libc::xdp_mmap_offsets> {
    let none = || libc::xdp_ring_offset {
        producer: 0,
        consumer: 0,
        desc: 0,
        flags: 0,
    };
    let empty = libc::xdp_mmap_offsets {
        rx: none(),
        tx: none(),
        fr: none(),
        cr: none(),
    };
    get(fd, libc::XDP_MMAP_OFFSETS, empty)
}
