//! What the sockets of one (interface, queue) share.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::XskError;
use super::umem::{POOLS_MAX, Umem};

/// How long after its last socket a zero-copy pool's frames stay where they are: the driver gives
/// its buffers back from deferred work that user space cannot see the end of.
pub const ZERO_COPY_GRACE: Duration = Duration::from_secs(1);

/// Names a pool in owner words. Used again once the frames of its former bearer are back.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PoolId(pub u16);

/// The kernel's `xsk_buff_pool` of one (interface, queue), as far as user space knows it: one
/// owner socket with RX, fill and completion rings, and TX-only sockets of other workers. Lives as
/// long as any of them.
#[derive(Debug)]
pub struct Pool {
    umem: Arc<Umem>,
    id: PoolId,
    /// The owner socket; `None` under a test's mock kernel.
    fd: Option<Arc<OwnedFd>>,
    pub(super) interface: u32,
    pub(super) queue: u32,
    pub(super) zero_copy: bool,
    pub(super) multi_buffer: bool,
    /// Entries of each TX ring.
    pub(super) tx_entries: u32,
    /// Whether the UMEM was registered with room for TX metadata.
    pub(super) metadata: bool,
    in_flight: AtomicU32,
    in_flight_max: u32,
}

/// What a pool is made of.
#[derive(Debug)]
pub struct PoolOptions {
    /// The owner socket; `None` under a test's mock kernel.
    pub fd: Option<Arc<OwnedFd>>,
    /// Interface index.
    pub interface: u32,
    /// Queue of the interface.
    pub queue: u32,
    /// Whether it is bound in zero-copy mode.
    pub zero_copy: bool,
    /// Whether packets may have several frames.
    pub multi_buffer: bool,
    /// Entries of each TX ring.
    pub tx_entries: u32,
    /// Whether descriptors may carry TX metadata.
    pub metadata: bool,
    /// Frames under way through the pool's TX rings at most.
    pub in_flight_max: u32,
}

impl Pool {
    /// A pool with a number of its own, found by later sockets that want to share the UMEM.
    ///
    /// # Errors
    ///
    /// [`XskError::TooManyPools`] when [`POOLS_MAX`] pools are live or wait for their frames.
    pub fn new(umem: &Arc<Umem>, options: PoolOptions) -> Result<Arc<Pool>, XskError> {
        let mut table = umem.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let id = match table.free.pop() {
            Some(id) => id,
            None if usize::from(table.next) < POOLS_MAX => {
                table.next += 1;
                PoolId(table.next - 1)
            }
            None => return Err(XskError::TooManyPools),
        };
        let PoolOptions {
            in_flight_max,
            metadata,
            ..
        } = options;
        let pool = Arc::new(Pool {
            umem: Arc::clone(umem),
            id,
            fd: options.fd,
            interface: options.interface,
            queue: options.queue,
            zero_copy: options.zero_copy,
            multi_buffer: options.multi_buffer,
            tx_entries: options.tx_entries,
            metadata,
            in_flight: AtomicU32::new(0),
            in_flight_max,
        });
        table.live.retain(|live| live.strong_count() > 0);
        table.live.push(Arc::downgrade(&pool));
        umem.ports.fetch_add(1, Ordering::Relaxed);
        Ok(pool)
    }

    /// Its number.
    pub fn id(&self) -> PoolId {
        self.id
    }

    /// The packet memory.
    pub fn umem(&self) -> &Arc<Umem> {
        &self.umem
    }

    /// Whether transmitted packets may leave their checksum to the kernel.
    pub fn takes_checksum_offload(&self) -> bool {
        self.metadata
    }

    /// Frames under way through its TX rings.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// The owner socket, to share its pool or its UMEM.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_deref().map(AsFd::as_fd)
    }

    /// Counts `frames` more under way, unless that is beyond the bound.
    pub(super) fn depart(&self, frames: u32) -> bool {
        let before = self.in_flight.fetch_add(frames, Ordering::Relaxed);
        if before + frames > self.in_flight_max {
            self.in_flight.fetch_sub(frames, Ordering::Relaxed);
            return false;
        }
        true
    }

    /// Counts `frames` as arrived.
    pub(super) fn arrive(&self, frames: u32) {
        self.in_flight.fetch_sub(frames, Ordering::Relaxed);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // The rings are unmapped and every TX-only socket is closed by now; this closes the last.
        self.fd = None;
        self.umem.ports.fetch_sub(1, Ordering::Relaxed);
        let mut table = self
            .umem
            .pools
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let at = if self.zero_copy {
            Instant::now() + ZERO_COPY_GRACE
        } else {
            Instant::now()
        };
        table.closed.push((self.id, at));
    }
}
