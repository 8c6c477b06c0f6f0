//! The rings' index protocol under loom: every interleaving and every reordering that the memory
//! model allows, on a ring small enough to be full and to wrap around.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use loom::sync::atomic::{AtomicU32, AtomicU64};
use loom::thread;

use super::ring::{Consumer, Descriptor, EntryWord, Index, Producer, RingMemory};

impl Index for AtomicU32 {
    fn load(&self, order: Ordering) -> u32 {
        AtomicU32::load(self, order)
    }
    fn store(&self, value: u32, order: Ordering) {
        AtomicU32::store(self, value, order);
    }
}

impl EntryWord for AtomicU64 {
    fn load(&self) -> u64 {
        AtomicU64::load(self, Ordering::Relaxed)
    }
    fn store(&self, value: u64) {
        AtomicU64::store(self, value, Ordering::Relaxed);
    }
}

struct Shared {
    producer: AtomicU32,
    consumer: AtomicU32,
    flags: AtomicU32,
    words: Vec<AtomicU64>,
}

#[derive(Clone)]
struct Memory(Arc<Shared>);

impl Memory {
    /// Two entries, the indices about to wrap around at 2^32.
    fn new() -> Memory {
        let start = u32::MAX - 1;
        Memory(Arc::new(Shared {
            producer: AtomicU32::new(start),
            consumer: AtomicU32::new(start),
            flags: AtomicU32::new(0),
            words: (0..4).map(|_| AtomicU64::new(0)).collect(),
        }))
    }
}

impl RingMemory for Memory {
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

const SENT: u32 = 3;

fn descriptor(number: u32) -> Descriptor {
    Descriptor {
        address: u64::from(number),
        len: number + 100,
        options: number + 200,
    }
}

/// Descriptors arrive whole, once, in order: an entry is never read before it is written, nor
/// written again before it is read.
#[test]
fn descriptors_arrive_whole_once_and_in_order() {
    loom::model(|| {
        let memory = Memory::new();
        let mut producer = Producer::<_, Descriptor>::new(memory.clone()).unwrap();
        let mut consumer = Consumer::<_, Descriptor>::new(memory).unwrap();
        let sender = thread::spawn(move || {
            let mut number = 0;
            while number < SENT {
                if producer.push(descriptor(number)) {
                    number += 1;
                    producer.publish();
                } else {
                    thread::yield_now();
                }
            }
        });
        let mut number = 0;
        while number < SENT {
            match consumer.pop() {
                Some(received) => {
                    assert_eq!(received, descriptor(number));
                    number += 1;
                    consumer.release();
                }
                None => thread::yield_now(),
            }
        }
        assert_eq!(consumer.pop(), None);
        sender.join().unwrap();
    });
}

/// As above with batches: what is pushed but not published is not seen, and what is read but not
/// released is not overwritten.
#[test]
fn batches_are_seen_whole() {
    loom::model(|| {
        let memory = Memory::new();
        let mut producer = Producer::<_, Descriptor>::new(memory.clone()).unwrap();
        let mut consumer = Consumer::<_, Descriptor>::new(memory).unwrap();
        let sender = thread::spawn(move || {
            assert!(producer.push(descriptor(0)));
            assert!(producer.push(descriptor(1)));
            producer.publish();
            while !producer.push(descriptor(2)) {
                thread::yield_now();
            }
            producer.publish();
        });
        while consumer.available() == 0 {
            thread::yield_now();
        }
        assert_eq!(consumer.available(), 2, "a batch is published as one");
        let first = (consumer.pop(), consumer.pop());
        assert_eq!(first, (Some(descriptor(0)), Some(descriptor(1))));
        assert_eq!(
            consumer.pop(),
            None,
            "the third waits for the places to be released"
        );
        consumer.release();
        loop {
            match consumer.pop() {
                Some(received) => break assert_eq!(received, descriptor(2)),
                None => thread::yield_now(),
            }
        }
        sender.join().unwrap();
    });
}
