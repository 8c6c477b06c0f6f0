//! A kernel of our own making at the other end of the rings: honest, or lying.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::pool::{Pool, PoolOptions};
use super::port::{FillOptions, Receiver, Transmitter};
use super::ring::{Consumer, Descriptor, Producer, RingMemory};
use super::umem::{PACKET_OFFSET, Umem};

/// A ring on the heap.
#[derive(Clone, Debug)]
pub(super) struct Ring(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    producer: AtomicU32,
    consumer: AtomicU32,
    flags: AtomicU32,
    words: Vec<AtomicU64>,
}

impl Ring {
    /// A ring of `words` words whose indices are about to wrap around.
    pub(super) fn new(words: usize) -> Ring {
        let start = u32::MAX - 2;
        Ring(Arc::new(Shared {
            producer: AtomicU32::new(start),
            consumer: AtomicU32::new(start),
            flags: AtomicU32::new(libc::XDP_RING_NEED_WAKEUP),
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
        }))
    }

    /// Says that `index` entries were produced.
    pub(super) fn claim_produced(&self, index: u32) {
        self.0.producer.store(index, Ordering::Release);
    }

    /// Says that `index` entries were consumed.
    pub(super) fn claim_consumed(&self, index: u32) {
        self.0.consumer.store(index, Ordering::Release);
    }

    pub(super) fn produced(&self) -> u32 {
        self.0.producer.load(Ordering::Acquire)
    }
}

impl RingMemory for Ring {
    type Index = AtomicU32;
    type Word = AtomicU64;
    fn producer(&self) -> &AtomicU32 {
        &self.0.producer
    }
    fn consumer(&self) -> &AtomicU32 {
        &self.0.consumer
    }
    fn flags(&self) -> &AtomicU32 {
        &self.0.flags
    }
    fn words(&self) -> &[AtomicU64] {
        &self.0.words
    }
}

/// The kernel's side of one queue: one owner socket and any number of TX-only ones.
pub(super) struct Kernel {
    pub(super) rx: Producer<Ring, Descriptor>,
    pub(super) fill: Consumer<Ring, u64>,
    pub(super) completion: Producer<Ring, u64>,
    /// TX rings, the owner's first.
    pub(super) tx: Vec<Consumer<Ring, Descriptor>>,
}

/// Our side of one queue.
pub(super) struct Port {
    pub(super) receiver: Receiver<Ring>,
    /// The owner's first.
    pub(super) transmitters: Vec<Transmitter<Ring>>,
}

/// Entries of every ring of a mock queue.
pub(super) const ENTRIES: usize = 16;

/// A queue with `transmitters` TX rings and its kernel.
pub(super) fn queue(
    umem: &Arc<Umem>,
    transmitters: usize,
    fill: FillOptions,
    in_flight_max: u32,
) -> (Port, Kernel) {
    queue_of(ENTRIES, umem, transmitters, fill, in_flight_max)
}

/// As [`queue`], with rings of so many entries.
pub(super) fn queue_of(
    entries: usize,
    umem: &Arc<Umem>,
    transmitters: usize,
    fill: FillOptions,
    in_flight_max: u32,
) -> (Port, Kernel) {
    let options = PoolOptions {
        fd: None,
        interface: 7,
        queue: 0,
        zero_copy: false,
        multi_buffer: true,
        tx_entries: entries as u32,
        metadata: true,
        in_flight_max,
    };
    let pool = Pool::new(umem, options).unwrap();
    let descriptors = || Ring::new(entries * 2);
    let addresses = || Ring::new(entries);
    let (rx, fill_ring, completion) = (descriptors(), addresses(), addresses());
    let tx: Vec<Ring> = (0..transmitters).map(|_| descriptors()).collect();
    let kernel = Kernel {
        rx: Producer::new(rx.clone()).unwrap(),
        fill: Consumer::new(fill_ring.clone()).unwrap(),
        completion: Producer::new(completion.clone()).unwrap(),
        tx: tx
            .iter()
            .map(|ring| Consumer::new(ring.clone()).unwrap())
            .collect(),
    };
    let port = Port {
        receiver: Receiver::new(Arc::clone(&pool), rx, fill_ring, completion, fill).unwrap(),
        transmitters: tx
            .into_iter()
            .map(|ring| Transmitter::new(Arc::clone(&pool), ring).unwrap())
            .collect(),
    };
    (port, kernel)
}

impl Kernel {
    /// Takes a lent frame and puts a packet of `len` bytes into the RX ring. `false` when nothing
    /// is lent or the ring is full.
    pub(super) fn deliver(&mut self, len: u32, options: u32) -> bool {
        if self.rx.free() == 0 {
            return false;
        }
        let Some(chunk) = self.fill.pop() else {
            return false;
        };
        self.fill.release();
        let address = chunk + u64::from(PACKET_OFFSET);
        assert!(self.rx.push(Descriptor {
            address,
            len,
            options
        }));
        self.rx.publish();
        true
    }

    /// Takes a packet from a TX ring.
    pub(super) fn take(&mut self, socket: usize) -> Option<Descriptor> {
        let descriptor = self.tx[socket].pop()?;
        self.tx[socket].release();
        Some(descriptor)
    }

    /// Completes an address, whatever it is. `false` when the ring is full.
    pub(super) fn complete(&mut self, address: u64) -> bool {
        let pushed = self.completion.push(address);
        self.completion.publish();
        pushed
    }
}
