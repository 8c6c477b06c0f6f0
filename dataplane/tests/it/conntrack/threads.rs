//! Several workers, one table.

use std::collections::HashSet;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::*;

const FLOWS: u32 = 96;
const ROUNDS: u32 = 40_000;
const WORKERS: u64 = 4;

/// A small generator of numbers (xorshift64*), so that each thread repeats itself.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }
}

fn flow(number: u32) -> (FlowKey, Ends) {
    let pod = 1 + number % 4;
    let key = key(Protocol::UDP, pod, 20, 1000 + number as u16);
    (key, ends(pod, 20))
}

/// Accepts or denies by epoch and flow, and says in the verdict for which.
fn decide(epoch: u32, key: &FlowKey) -> Verdict {
    // The client's; the server's is 80.
    let port = key.source_port.max(key.destination_port);
    verdict(!(epoch + u32::from(port)).is_multiple_of(3), epoch, port)
}

fn work(table: &Heap, epoch: &AtomicU32, clock: &AtomicU32, seed: u64) {
    let mut numbers = Numbers(seed);
    for _ in 0..ROUNDS {
        let (k, e) = flow(numbers.next() % FLOWS);
        let (k, e) = if numbers.next().is_multiple_of(3) {
            (k.reversed(), back(e))
        } else {
            (k, e)
        };
        let port = k.source_port.max(k.destination_port);
        let now = at(u64::from(clock.load(Relaxed)));
        if let Some(hit) = table.lookup(&k, &e, now) {
            let made_for = hit.verdict.provenance;
            // Never another flow's verdict, and never an older verdict than the epochs claim.
            assert_eq!(made_for.rule, Some(port));
            let made_at = made_for.policy.unwrap().0;
            assert!(made_at >= hit.epochs.source.0, "{made_at} {:?}", hit.epochs);
            assert_eq!(hit.verdict.accept, decide(made_at, &k).accept);
            // The counters are the flow's own, and as new.
            assert_eq!(hit.counters.ingress, CounterId(port.into()));
            assert!(hit.counters.egress.0 >= hit.epochs.source.0, "{hit:?}");
        }
        // A worker may hold an older snapshot than its neighbour.
        let epoch = epoch.load(SeqCst) - numbers.next() % 2;
        let decide = |key: &FlowKey| decide(epoch, key);
        let _ = drive(
            table,
            &Packet {
                key: k,
                ends: e,
                facts: Facts::Udp,
                now,
                epoch,
                decide: &decide,
            },
        );
    }
}

fn disturb(table: &Heap, epoch: &AtomicU32, clock: &AtomicU32, done: &AtomicU32) {
    let (mut numbers, mut cursor) = (Numbers(99), 0);
    while u64::from(done.load(SeqCst)) < WORKERS {
        match numbers.next() % 64 {
            0 => {
                table.remove_endpoint(Incarnation(1 + numbers.next() % 4));
            }
            1 => {
                epoch.fetch_add(1, SeqCst);
            }
            2 => {
                clock.fetch_add(5, Relaxed);
            }
            _ => {
                cursor = table
                    .expire(cursor, 16, at(u64::from(clock.load(Relaxed))))
                    .cursor
            }
        }
        assert!(table.entries(at(0)).count() <= 64);
    }
}

#[test]
fn workers_never_mix_up_connections_nor_lose_entries() {
    // Fewer entries than flows, so that eviction has work; several flows per bucket.
    let table = table(Settings {
        quota_per_endpoint: 20,
        endpoints: 128,
        ..settings(64)
    });
    let (epoch, clock, done) = (AtomicU32::new(2), AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for seed in 1..=WORKERS {
            let (table, epoch, clock, done) = (&table, &epoch, &clock, &done);
            scope.spawn(move || {
                let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    work(table, epoch, clock, seed);
                }));
                done.fetch_add(1, SeqCst);
                panicked.unwrap();
            });
        }
        disturb(&table, &epoch, &clock, &done);
    });
    let now = at(u64::from(clock.load(Relaxed)));
    // Nothing twice, nothing lost, everything charged exactly once.
    table.expire(0, 64, now);
    let entries: Vec<_> = table.entries(now).collect();
    let distinct: HashSet<_> = entries
        .iter()
        .map(|e| e.key.source_port.max(e.key.destination_port))
        .collect();
    assert_eq!(distinct.len(), entries.len());
    assert_eq!(table.counters().entries as usize, entries.len());
    let charged: u32 = (1..=20).map(|pod| table.charged(Incarnation(pod))).sum();
    assert_eq!(charged as usize, entries.len());
    let counters = table.counters();
    let gone = counters.expired + counters.evicted + counters.replaced + counters.removed;
    assert_eq!(counters.inserted, gone + counters.entries);
    for counter in [
        counters.inserted,
        counters.redecided,
        counters.evicted,
        counters.removed,
    ] {
        assert!(counter > 0, "{counters:?}");
    }
    // Every entry can still be used.
    table.expire(0, 64, now.plus_seconds(100_000));
    assert_eq!(table.counters().entries, 0);
    let later = now.plus_seconds(100_000);
    for number in 0..64_u32 {
        let facts = Facts::Udp;
        let (key, ends) = (
            key(Protocol::UDP, 30 + number, 99, 1),
            ends(30 + number, 99),
        );
        let decide = |_: &FlowKey| verdict(true, 1, 0);
        let made = drive(
            &table,
            &Packet {
                key,
                ends,
                facts,
                now: later,
                epoch: 1,
                decide: &decide,
            },
        );
        assert_eq!(made, Ok(Class::New), "{number}");
    }
}
