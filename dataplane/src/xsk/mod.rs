//! AF_XDP: packet memory, rings and sockets, on libc.
//!
//! * [`Umem`] is one memory area for all ports; a [`Frame`] is the right to one chunk of it.
//! * [`PortSocket`] owns a queue of an interface: RX, fill, completion and a TX ring of its own.
//!   [`TransmitSocket`] is another worker's way to send through the same queue. Both share the
//!   kernel's pool of that queue, and no lock is taken in user space.
//! * [`Receiver`] and [`Transmitter`] are what these do apart from system calls, generic over the
//!   rings' memory, so that tests play the kernel.
//!
//! # Invariants
//!
//! * A chunk is in exactly one place, and its owner word says which. What the kernel says about
//!   addresses is checked against it; a completion or reception that cannot be is counted and
//!   otherwise ignored ([`Counters::bad_completions`], [`Counters::bad_receptions`]).
//! * Nothing is put on a TX ring that the kernel would refuse: a refused descriptor with metadata
//!   wedges the ring and completes its frame again at every kick.
//! * A queue has at most `in_flight_max` frames under way, so that a pod that does not take its
//!   packets cannot drain the packet memory.
//!
//! # Limits
//!
//! What an idle port's fill ring took during a burst stays there until traffic uses it; all ports
//! together take at most half of the chunks this way ([`PortOptions::fill_idle`]). Completions of
//! packets that a link that is down keeps are late.

mod audit;
#[cfg(test)]
mod chain_tests;
mod magazine;
#[cfg(test)]
mod mock;
#[cfg(test)]
mod model;
mod pool;
mod port;
mod ring;
mod socket;
mod system;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod thread_tests;
mod umem;

use std::io;

pub use audit::{Audit, Holdings, audit};
pub use magazine::{Batch, Magazine};
pub use pool::{Pool, PoolId, PoolOptions, ZERO_COPY_GRACE};
pub use port::{
    BURST, Burst, Counters, FillOptions, Kick, PARTS_MAX, Part, Parts, Received, Receiver, Refused,
    Rejected, Transmitter, TxChecksum,
};
pub use ring::{Consumer, Descriptor, Entry, EntryWord, Index, Producer, RingMemory};
pub use socket::{PortOptions, PortSocket, TransmitSocket};
pub use system::{MappedRing, Statistics, statistics, takes_multi_buffer};
pub use umem::{Census, Frame, Owner, PACKET_OFFSET, POOLS_MAX, TX_METADATA_BYTES, Umem};

/// What can go wrong in setting up packet memory and sockets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum XskError {
    /// Sizes that do not fit each other.
    #[error("packet memory: {0}")]
    Layout(&'static str),
    /// [`POOLS_MAX`].
    #[error("no more than {POOLS_MAX} queues can be bound; remove ports first")]
    TooManyPools,
    /// Somebody else has the queue, or the kernel has not yet let go of its last owner.
    #[error(
        "queue {queue} of interface {interface} stayed busy for {waited_ms} ms: another process \
         has an AF_XDP socket on it"
    )]
    Busy {
        /// Interface index.
        interface: u32,
        /// Queue.
        queue: u32,
        /// How long it was tried.
        waited_ms: u64,
    },
    /// The kernel refused.
    #[error("could not {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
}

impl XskError {
    pub(crate) fn system(what: &'static str) -> impl Fn(io::Error) -> XskError {
        move |source| XskError::System { what, source }
    }

    /// The kernel's error number, if the kernel refused.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            XskError::System { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}
