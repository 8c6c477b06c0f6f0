//! Several workers, one table.

use std::collections::HashSet;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use dataplane::conntrack::{BATCH, Entry, Hit};

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

fn flow(protocol: Protocol, number: u32) -> (FlowKey, Ends) {
    let pod = 1 + number % 4;
    let key = key(protocol, pod, 20, 1000 + number as u16);
    (key, ends(pod, 20))
}

/// A flow of those that there are, in either direction; every third goes back.
fn any_flow(protocol: Protocol, numbers: &mut Numbers) -> (FlowKey, Ends) {
    let (k, e) = flow(protocol, numbers.next() % FLOWS);
    if numbers.next().is_multiple_of(3) {
        (k.reversed(), back(e))
    } else {
        (k, e)
    }
}

/// The client's; the server's is 80.
fn client_port(key: &FlowKey) -> u16 {
    key.source_port.max(key.destination_port)
}

/// Accepts or denies by epoch and flow, and says in the verdict for which.
fn decide(epoch: u32, key: &FlowKey) -> Verdict {
    let port = client_port(key);
    verdict(!(epoch + u32::from(port)).is_multiple_of(3), epoch, port)
}

/// Never another flow's verdict, and never an older verdict than the epochs claim.
fn check(hit: &Hit, key: &FlowKey) {
    let port = client_port(key);
    let made_for = hit.verdict.provenance;
    assert_eq!(made_for.rule, Some(port));
    let made_at = made_for.policy.unwrap().0;
    assert!(made_at >= hit.epochs.source.0, "{made_at} {:?}", hit.epochs);
    assert_eq!(hit.verdict.accept, decide(made_at, key).accept);
    // The counters are the flow's own, and as new.
    assert_eq!(hit.counters.ingress, CounterId(port.into()));
    assert!(hit.counters.egress.0 >= hit.epochs.source.0, "{hit:?}");
}

/// What all threads share.
struct Common {
    table: Heap,
    epoch: AtomicU32,
    /// Seconds.
    clock: AtomicU32,
}

impl Common {
    fn new(strict_tcp: bool) -> Common {
        // Fewer entries than flows, so that eviction has work; several flows per bucket.
        let table = table(Settings {
            quota_per_endpoint: 20,
            endpoints: 128,
            strict_tcp,
            ..settings(64)
        });
        let (epoch, clock) = (AtomicU32::new(2), AtomicU32::new(0));
        Common {
            table,
            epoch,
            clock,
        }
    }

    fn now(&self) -> Time {
        at(u64::from(self.clock.load(Relaxed)))
    }

    /// One packet, by a worker that may hold an older snapshot than its neighbour.
    fn drive(&self, numbers: &mut Numbers, (key, ends): (FlowKey, Ends), facts: Facts, now: Time) {
        let epoch = self.epoch.load(SeqCst) - numbers.next() % 2;
        let decide = |key: &FlowKey| decide(epoch, key);
        let packet = Packet {
            key,
            ends,
            facts,
            now,
            epoch,
            decide: &decide,
        };
        assert_ne!(drive(&self.table, &packet), Err(DropReason::Internal));
    }

    /// What control does beside all else: an endpoint goes, policy changes, time goes on, and idle
    /// entries go.
    fn disturb(&self, choice: u32, numbers: &mut Numbers, cursor: &mut u32) {
        match choice {
            0 => {
                let endpoint = Incarnation(1 + numbers.next() % 4);
                self.table.remove_endpoint(endpoint);
            }
            1 => {
                self.epoch.fetch_add(1, SeqCst);
            }
            2 => {
                self.clock.fetch_add(5, Relaxed);
            }
            _ => *cursor = self.table.expire(*cursor, 16, self.now()).cursor,
        }
    }
}

/// Runs `work` in as many threads as there are workers, each with numbers of its own, and `control`
/// over and over beside them.
fn run(work: impl Fn(Numbers) + Sync, mut control: impl FnMut()) {
    std::thread::scope(|scope| {
        let work = &work;
        let workers: Vec<_> = (1..=WORKERS)
            .map(|seed| scope.spawn(move || work(Numbers(seed))))
            .collect();
        while !workers.iter().all(|worker| worker.is_finished()) {
            control();
        }
    });
}

#[test]
fn workers_never_mix_up_connections_nor_lose_entries() {
    let common = Common::new(false);
    let table = &common.table;
    let work = |mut numbers: Numbers| {
        for _ in 0..ROUNDS {
            let (k, e) = any_flow(Protocol::UDP, &mut numbers);
            let now = common.now();
            if let Some(hit) = table.lookup(&k, &e, now) {
                check(&hit, &k);
            }
            common.drive(&mut numbers, (k, e), Facts::Udp, now);
        }
    };
    let (mut numbers, mut cursor) = (Numbers(99), 0);
    run(work, || {
        let choice = numbers.next() % 64;
        common.disturb(choice, &mut numbers, &mut cursor);
        assert!(table.entries(at(0)).count() <= 64);
    });
    check_all(table, common.now());
}

/// A segment that may be on its way in that direction, at some moment of a connection.
fn segment(numbers: &mut Numbers, original: bool) -> Facts {
    const FIRST: [u32; 2] = [1000, 5000];
    let (own, other) = if original { (0, 1) } else { (1, 0) };
    let flags = match numbers.next() % 12 {
        0 => SYN,
        1 => SYN_ACK,
        2 => FIN,
        3 => RST,
        _ => ACK,
    };
    let begins = flags.contains(SYN);
    let so_far = if begins { 0 } else { 1 + numbers.next() % 400 };
    Facts::Tcp(TcpFacts {
        flags,
        sequence: FIRST[own] + so_far,
        acknowledgement: FIRST[other] + 1,
        window: 4000,
        window_scale: begins.then_some(own as u8),
        payload_len: if flags == ACK {
            numbers.next() % 100
        } else {
            0
        },
    })
}

/// What is listed is one connection's, as whole as what a worker finds.
fn check_listed(entry: &Entry) {
    let original = entry.key.destination_port == 80;
    let number = u32::from(client_port(&entry.key)) - 1000;
    let (k, e) = flow(Protocol::TCP, number);
    let (k, e) = if original {
        (k, e)
    } else {
        (k.reversed(), back(e))
    };
    assert_eq!((entry.key, entry.ends), (k, e));
    assert_eq!(entry.verdict.provenance.rule, Some(client_port(&k)));
    assert!(entry.verdict.provenance.policy.unwrap().0 >= entry.epochs.source.0);
}

/// As above with TCP and its windows: a connection's two directions come to different workers, look-ups
/// go in batches, and control lists connections and removes some, or all, by hand.
#[test]
fn workers_follow_connections_while_control_lists_and_removes_them() {
    let common = Common::new(true);
    let table = &common.table;
    let work = |mut numbers: Numbers| {
        for round in 0..ROUNDS / 4 {
            let now = common.now();
            if round % 16 == 0 {
                let keys = [(); BATCH].map(|()| any_flow(Protocol::TCP, &mut numbers));
                let mut hits = [None; BATCH];
                table.lookup_batch(&keys, now, &mut hits);
                for ((key, _), hit) in keys.iter().zip(hits) {
                    hit.inspect(|hit| check(hit, key));
                }
            }
            let (k, e) = any_flow(Protocol::TCP, &mut numbers);
            let facts = segment(&mut numbers, k.destination_port == 80);
            common.drive(&mut numbers, (k, e), facts, now);
        }
    };
    let (mut numbers, mut cursor) = (Numbers(98), 0);
    run(work, || match numbers.next() % 32 {
        listing @ 16.. => {
            let one_in = if listing == 16 { 1 } else { 8 };
            for entry in table.entries(common.now()) {
                check_listed(&entry);
                if numbers.next() % one_in == 0 {
                    table.remove(&entry);
                }
            }
        }
        choice => common.disturb(choice, &mut numbers, &mut cursor),
    });
    assert!(table.counters().replaced > 0, "{:?}", table.counters());
    check_all(table, common.now());
}

/// What holds of the table as soon as nobody changes it any more.
fn check_all(table: &Heap, now: Time) {
    // Nothing twice, nothing lost, everything charged exactly once.
    table.expire(0, 64, now);
    let entries: Vec<_> = table.entries(now).collect();
    let distinct: HashSet<_> = entries.iter().map(|e| client_port(&e.key)).collect();
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
            table,
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
