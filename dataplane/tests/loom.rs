//! The connection table under interleavings of two or three threads, on loom's atomics. Not part of the ordinary run, for loom replaces the atomics of the
//! whole library:
//!
//! ```text
//! RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom \
//!     cargo test -p weir-dataplane --test loom --release
//! ```
//!
//! It tries interleavings with at most two preemptions, not the reordering of memory accesses: see
//! `conntrack::storage`. Without the bucket lock, or with epochs stored before the verdict, it fails.
#![cfg(loom)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dataplane::conntrack::{
    AtomicU64, Ends, Epochs, Facts, Handle, Inserted, NewEntry, Redecided, Settings, Table,
    Timeouts, Translation, heap,
};
use dataplane::counters::{CounterId, RuleCounters};
use dataplane::snapshot::{Epoch, Incarnation, PortId};
use dataplane::{
    Address, Direction, FlowKey, PolicyId, Protocol, Provenance, SocketAddress, Tier, Time, Verdict,
};
use loom::thread;

type Heap = Table<Box<[AtomicU64]>>;

const NOW: Time = Time(1_000_000_000_000);
const LATE: Time = NOW.plus_seconds(1000);

fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.max_branches = 100_000;
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&runs);
    builder.check(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        f();
    });
    let runs = runs.load(Ordering::Relaxed);
    println!("{runs} interleavings");
    assert!(
        runs > 5,
        "only {runs} interleavings: the model explores nothing"
    );
}

fn table(capacity: u32) -> Arc<Heap> {
    let settings = Settings {
        capacity,
        quota_per_endpoint: 8,
        endpoints: 1,
        timeouts: Timeouts::default(),
        strict_tcp: false,
        hash_seed: [3, 4],
    };
    Arc::new(Table::new(heap(Heap::words(&settings)), settings).unwrap())
}

fn key(port: u16) -> FlowKey {
    FlowKey {
        source: Address::v4(0x0a00_0001),
        destination: Address::v4(0x0a00_0002),
        source_port: port,
        destination_port: 80,
        protocol: Protocol::UDP,
    }
}

fn ends(key: &FlowKey) -> Ends {
    // No local endpoints: quota counters only add branches.
    let _ = key;
    Ends {
        source: Incarnation::NONE,
        destination: Incarnation::NONE,
        ingress: PortId(1),
    }
}

fn epochs(number: u32) -> Epochs {
    Epochs {
        source: Epoch(number),
        destination: Epoch(number),
    }
}

/// Made for this epoch and flow.
fn verdict(epoch: u32, flow: u16) -> Verdict {
    Verdict {
        accept: epoch.is_multiple_of(2),
        provenance: Provenance {
            direction: Direction::Ingress,
            tier: Tier::NetworkPolicy,
            policy: Some(PolicyId(epoch)),
            rule: Some(flow),
        },
    }
}

/// Counters that say the same as the verdict.
fn counters(verdict: &Verdict) -> RuleCounters {
    let provenance = verdict.provenance;
    RuleCounters {
        egress: CounterId(provenance.policy.unwrap().0),
        ingress: CounterId(provenance.rule.unwrap().into()),
    }
}

/// Decides flow 1 again.
fn redecide(table: &Heap, handle: Handle, epoch: u32) -> Redecided {
    let verdict = verdict(epoch, 1);
    table.redecide(handle, verdict, counters(&verdict), epochs(epoch))
}

fn insert(table: &Heap, key: FlowKey, flow: u16, epoch: u32, now: Time) -> Option<Inserted> {
    let new = NewEntry {
        translation: None,
        key,
        ends: ends(&key),
        verdict: verdict(epoch, flow),
        counters: counters(&verdict(epoch, flow)),
        epochs: epochs(epoch),
        facts: Facts::Udp,
    };
    // Busy and full are answers, too: the packet is dropped.
    table.insert(&new, now).ok()
}

/// What a reader may see: the flow's own verdict and counters, at least as new as the epochs with
/// them.
fn look(table: &Heap, key: FlowKey, flow: u16, now: Time) -> bool {
    let Some(hit) = table.lookup(&key, &ends(&key), now) else {
        return false;
    };
    let provenance = hit.verdict.provenance;
    assert_eq!(provenance.rule, Some(flow));
    assert!(provenance.policy.unwrap().0 >= hit.epochs.source.0);
    assert_eq!(hit.counters.ingress, CounterId(flow.into()));
    assert!(hit.counters.egress.0 >= hit.epochs.source.0);
    true
}

#[test]
fn both_directions_at_once_make_one_entry() {
    model(|| {
        let table = table(2);
        let other = Arc::clone(&table);
        let thread = thread::spawn(move || insert(&other, key(1).reversed(), 1, 2, NOW));
        let here = insert(&table, key(1), 1, 2, NOW);
        let there = thread.join().unwrap();
        let made = [here, there];
        let new = made
            .iter()
            .filter(|m| matches!(m, Some(Inserted::New(_))))
            .count();
        assert_eq!(new, 1, "{made:?}");
        assert_eq!(table.counters().entries, 1);
        assert_eq!(table.entries(NOW).count(), 1);
        assert!(look(&table, key(1), 1, NOW));
    });
}

#[test]
fn the_newest_decision_stands() {
    model(|| {
        let table = table(1);
        let Some(Inserted::New(handle)) = insert(&table, key(1), 1, 2, NOW) else {
            panic!("an empty table takes an entry")
        };
        let threads = [3, 4].map(|epoch| {
            let table = Arc::clone(&table);
            thread::spawn(move || redecide(&table, handle, epoch))
        });
        assert!(look(&table, key(1), 1, NOW));
        let [older, newer] = threads.map(|thread| thread.join().unwrap());
        let hit = table.lookup(&key(1), &ends(&key(1)), NOW).unwrap();
        match (older, newer) {
            (older, Redecided::Stored { before }) => {
                assert_eq!((hit.verdict, hit.epochs), (verdict(4, 1), epochs(4)));
                assert_eq!(hit.counters, counters(&verdict(4, 1)));
                // A connection is counted where it comes to, once for each decision that stood.
                let stood = if matches!(older, Redecided::Stored { .. }) {
                    3
                } else {
                    2
                };
                assert_eq!(before.egress, CounterId(stood));
            }
            (Redecided::Stored { .. }, Redecided::Busy) => {
                assert_eq!((hit.verdict, hit.epochs), (verdict(3, 1), epochs(3)));
                assert_eq!(hit.counters, counters(&verdict(3, 1)));
            }
            (Redecided::Busy, Redecided::Busy) => unreachable!("somebody holds the lock"),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_state_change_does_not_undo_a_decision() {
    model(|| {
        let table = table(1);
        let _ = insert(&table, key(1), 1, 2, NOW);
        let reply = key(1).reversed();
        let hit = table.lookup(&reply, &ends(&reply), NOW).unwrap();
        let other = Arc::clone(&table);
        let thread = thread::spawn(move || redecide(&other, hit.handle, 3));
        let _ = table.track(&hit, &Facts::Udp, NOW);
        let before = counters(&verdict(2, 1));
        assert_eq!(thread.join().unwrap(), Redecided::Stored { before });
        let hit = table.lookup(&reply, &ends(&reply), NOW).unwrap();
        assert!(hit.denied);
        assert_eq!(hit.epochs, epochs(3));
    });
}

#[test]
fn a_reader_never_sees_half_of_a_reused_entry() {
    model(|| {
        // One entry, so that the second flow takes over the first one's.
        let table = table(1);
        let _ = insert(&table, key(1), 1, 2, NOW);
        let other = Arc::clone(&table);
        let writer = thread::spawn(move || {
            assert_eq!(other.expire(0, 1, LATE).removed, 1);
            assert!(insert(&other, key(2), 2, 4, LATE).is_some());
        });
        // Both look by a clock at which the first has not expired.
        look(&table, key(1), 1, NOW);
        look(&table, key(2), 2, NOW);
        writer.join().unwrap();
        assert!(!look(&table, key(1), 1, NOW));
        assert!(look(&table, key(2), 2, LATE));
        assert_eq!(table.counters().entries, 1);
    });
}

#[test]
fn a_stale_handle_changes_nothing() {
    model(|| {
        let table = table(1);
        let _ = insert(&table, key(1), 1, 2, NOW);
        let reply = key(1).reversed();
        let hit = table.lookup(&reply, &ends(&reply), NOW).unwrap();
        let other = Arc::clone(&table);
        let writer = thread::spawn(move || {
            // Either may find the bucket locked by the decision below.
            other.expire(0, 1, LATE).removed == 1 && insert(&other, key(2), 2, 2, LATE).is_some()
        });
        let _ = table.track(&hit, &Facts::Udp, NOW);
        let did = redecide(&table, hit.handle, 3);
        if writer.join().unwrap() {
            let now = table.lookup(&key(2), &ends(&key(2)), LATE).unwrap();
            assert_eq!(
                (now.verdict, now.counters, now.epochs),
                (verdict(2, 2), counters(&verdict(2, 2)), epochs(2)),
                "{did:?} {:?} {:?}",
                hit.handle,
                now.handle
            );
            assert_eq!(now.state, dataplane::conntrack::State::UdpUnreplied);
        }
    });
}

/// A connection to a Service, whose backend has this number.
fn insert_translated(table: &Heap, backend: u32) -> Option<Inserted> {
    let socket = |address, port| SocketAddress {
        address: Address::v4(address),
        port,
    };
    let new = NewEntry {
        key: key(1).with_receiver(socket(backend, 8080)),
        translation: Some(Translation {
            service: socket(99, 80),
            source: None,
        }),
        ends: ends(&key(1)),
        verdict: verdict(2, backend as u16),
        counters: counters(&verdict(2, backend as u16)),
        epochs: epochs(2),
        facts: Facts::Udp,
    };
    table.insert(&new, NOW).ok()
}

/// The backend of the connection, as its client's packets find it and as that backend's do.
fn backend_of(table: &Heap) -> Option<u32> {
    let service = key(1).with_receiver(SocketAddress {
        address: Address::v4(99),
        port: 80,
    });
    let hit = table.lookup(&service, &ends(&service), NOW)?;
    let flow = hit.translated.unwrap().flow;
    // Verdict and translation are of one entry.
    let backend = flow.destination.0 as u32;
    assert_eq!(hit.verdict.provenance.rule, Some(backend as u16));
    Some(backend)
}

#[test]
fn two_backends_at_once_make_one_translated_entry() {
    model(|| {
        let table = table(2);
        let other = Arc::clone(&table);
        let thread = thread::spawn(move || insert_translated(&other, 7));
        let here = insert_translated(&table, 8);
        backend_of(&table);
        let made = [here, thread.join().unwrap()];
        let new = made.iter().filter(|m| matches!(m, Some(Inserted::New(_))));
        // Each may have had one lock of the other's two.
        let new = new.count();
        assert!(new <= 1, "{made:?}");
        assert_eq!(table.counters().entries, new as u64);
        assert_eq!(backend_of(&table).is_some(), new == 1);
    });
}

#[test]
fn a_translated_entry_goes_under_both_tuples() {
    model(|| {
        let table = table(1);
        let Some(Inserted::New(handle)) = insert_translated(&table, 7) else {
            panic!("an empty table takes an entry")
        };
        let other = Arc::clone(&table);
        let thread =
            thread::spawn(move || other.retire(handle) && insert_translated(&other, 8).is_some());
        backend_of(&table);
        let moved = thread.join().unwrap();
        assert!(moved, "nobody else has the locks");
        assert_eq!(backend_of(&table), Some(8));
        assert_eq!(table.entries(NOW).count(), 1);
    });
}
