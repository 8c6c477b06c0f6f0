//! Workers and the kernel as threads of their own on one memory area: whoever has a chunk may write to
//! it, and what it reads is what the one before has written.

#![allow(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use super::mock::{Kernel, Port, Ring, queue};
use super::*;

/// Packets that each kernel delivers.
const PACKETS: u32 = 5_000;
/// Few, so that they change hands often: what two magazines keep, two fill rings and two queues' share
/// of frames under way, and a batch or two for whoever has none.
const CHUNKS: u32 = 256;
const CHUNK: u32 = 2048;
const PACKET_BYTES: usize = 64;

type Packet = [u8; PACKET_BYTES];

/// A packet that shows whether it is whole.
fn packet(number: u32) -> Packet {
    let bytes = number.to_ne_bytes();
    std::array::from_fn(|at| bytes[at % bytes.len()] ^ at as u8)
}

fn is_whole(packet: &Packet) -> bool {
    let number = [packet[0], packet[1] ^ 1, packet[2] ^ 2, packet[3] ^ 3];
    *packet == self::packet(u32::from_ne_bytes(number))
}

/// Lets the others end if this thread fails.
struct Ending<'a>(&'a AtomicU32);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(u32::MAX / 2, Ordering::Relaxed);
        }
    }
}

/// The kernel's end of one queue.
struct KernelThread {
    umem: Arc<Umem>,
    kernel: Kernel,
    delivered: u32,
    /// Addresses taken for transmission and not completed.
    under_way: Vec<u64>,
}

impl KernelThread {
    fn place(&self, address: u64) -> *mut Packet {
        let place = address as usize + PACKET_BYTES;
        assert!(place <= self.umem.area_bytes() as usize);
        (self.umem.base_address() + address) as *mut Packet
    }

    /// One packet in, as far as a chunk was lent.
    fn deliver(&mut self) {
        if self.kernel.rx.free() == 0 {
            return;
        }
        let Some(chunk) = self.kernel.fill.pop() else {
            return;
        };
        self.kernel.fill.release();
        let address = chunk + u64::from(PACKET_OFFSET);
        // SAFETY: the place lies in the area, and a chunk that was lent is the kernel's to write
        // until it is on the RX ring.
        unsafe { self.place(address).write(packet(self.delivered)) };
        let len = PACKET_BYTES as u32;
        assert!(self.kernel.rx.push(Descriptor {
            address,
            len,
            options: 0
        }));
        self.kernel.rx.publish();
        self.delivered += 1;
    }

    /// The packets out of every socket of the queue; how many.
    fn take(&mut self) -> u32 {
        let mut taken = 0;
        for socket in 0..self.kernel.tx.len() {
            while let Some(descriptor) = self.kernel.take(socket) {
                // SAFETY: the place lies in the area, and what is on a TX ring is the kernel's to
                // read until it completes it.
                let packet = unsafe { self.place(descriptor.address).read() };
                assert!(is_whole(&packet));
                self.under_way.push(descriptor.address);
                taken += 1;
            }
        }
        taken
    }

    /// Some of the chunks back, not in their order.
    fn complete(&mut self) {
        while let Some(address) = self.under_way.pop() {
            if !self.kernel.complete(address) {
                self.under_way.push(address);
                return;
            }
        }
    }

    fn run(mut self, gone: &AtomicU32) -> Self {
        let _ending = Ending(gone);
        while gone.load(Ordering::Relaxed) < 2 * PACKETS {
            if self.delivered < PACKETS {
                self.deliver();
            }
            gone.fetch_add(self.take(), Ordering::Relaxed);
            self.complete();
            thread::yield_now();
        }
        self.complete();
        self
    }
}

/// A worker that owns one queue and has a TX ring to the other's.
struct WorkerThread {
    magazine: Magazine,
    receiver: Receiver<Ring>,
    own: Transmitter<Ring>,
    other: Transmitter<Ring>,
}

impl WorkerThread {
    /// Passes on what has come, every third packet back where it came from, each one changed; how many
    /// found no room.
    fn visit(&mut self) -> u32 {
        let umem = Arc::clone(self.magazine.umem());
        self.receiver.complete(&mut self.magazine);
        self.receiver.refill(&mut self.magazine);
        let (mut burst, mut dropped) = (Burst::new(), 0);
        self.receiver.receive(&mut burst, &mut self.magazine);
        for (at, mut received) in burst.drain(..).enumerate() {
            let bytes = umem.bytes_mut(&mut received.frame);
            let bytes = bytes.first_chunk_mut::<PACKET_BYTES>().unwrap();
            assert!(is_whole(bytes));
            bytes.iter_mut().for_each(|byte| *byte ^= 0x55);
            assert!(is_whole(bytes));
            let way = if at % 3 == 0 {
                &mut self.own
            } else {
                &mut self.other
            };
            if let Err(rejected) = way.transmit(received.frame, received.len, None) {
                self.magazine.give(rejected.frame);
                dropped += 1;
            }
        }
        for way in [&mut self.own, &mut self.other] {
            way.kick(|_| Ok(()));
        }
        dropped
    }

    fn run(mut self, gone: &AtomicU32) -> Self {
        let _ending = Ending(gone);
        while gone.load(Ordering::Relaxed) < 2 * PACKETS {
            gone.fetch_add(self.visit(), Ordering::Relaxed);
            thread::yield_now();
        }
        self
    }
}

#[test]
fn chunks_change_hands_between_workers_and_the_kernel() {
    let umem = Umem::in_memory(CHUNKS, CHUNK).unwrap();
    let fill = FillOptions { idle: 8, max: 16 };
    let (ports, kernels): (Vec<Port>, Vec<Kernel>) =
        (0..2).map(|_| queue(&umem, 2, fill, 16)).unzip();
    let (mut receivers, mut own, mut other) = (Vec::new(), Vec::new(), Vec::new());
    for mut port in ports {
        other.insert(0, port.transmitters.pop().unwrap());
        own.push(port.transmitters.pop().unwrap());
        receivers.push(port.receiver);
    }
    let workers = receivers.into_iter().zip(own).zip(other);
    let workers = workers.map(|((receiver, own), other)| WorkerThread {
        magazine: umem.magazine(),
        receiver,
        own,
        other,
    });
    let kernels = kernels.into_iter().map(|kernel| KernelThread {
        umem: Arc::clone(&umem),
        kernel,
        delivered: 0,
        under_way: Vec::new(),
    });
    let gone = AtomicU32::new(0);
    let (mut workers, kernels) = thread::scope(|scope| {
        let gone = &gone;
        let workers: Vec<_> = workers
            .map(|worker| scope.spawn(move || worker.run(gone)))
            .collect();
        let kernels: Vec<_> = kernels
            .map(|kernel| scope.spawn(move || kernel.run(gone)))
            .collect();
        let workers: Vec<WorkerThread> = workers.into_iter().map(|w| w.join().unwrap()).collect();
        let kernels: Vec<KernelThread> = kernels.into_iter().map(|k| k.join().unwrap()).collect();
        (workers, kernels)
    });
    assert!(kernels.iter().all(|kernel| kernel.delivered == PACKETS));
    let mut counters = Counters::default();
    for worker in &mut workers {
        worker.receiver.complete(&mut worker.magazine);
        assert_eq!(worker.receiver.pool().in_flight(), 0);
        counters = counters + worker.receiver.counters();
        counters = counters + worker.own.counters() + worker.other.counters();
    }
    assert_eq!(counters.received, u64::from(2 * PACKETS));
    assert_eq!((counters.bad_receptions, counters.bad_completions), (0, 0));
    assert_eq!(counters.completed, counters.transmitted);
    assert!(counters.transmitted > 0);
    drop(workers);
    umem.reclaim();
    assert_eq!((umem.census().free, umem.lost()), (CHUNKS, 0));
}
