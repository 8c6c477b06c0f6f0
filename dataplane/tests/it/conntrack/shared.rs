//! The table in shared memory: what a successor takes over, and what it discards.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;

use dataplane::conntrack::{Attached, Redecided, State, Storage, TableError};
use dataplane::shm::{Region, memfd};

use super::*;

type Shared = Table<Mapping>;

struct Mapping(Region);

impl Storage for Mapping {
    fn words(&self) -> &[AtomicU64] {
        self.0.words()
    }
}

fn bytes(settings: &Settings) -> usize {
    Shared::words(settings) * 8
}

fn memory(settings: &Settings) -> OwnedFd {
    memfd(c"weir-conntrack-test", bytes(settings)).unwrap()
}

fn map(fd: &OwnedFd, settings: &Settings) -> Mapping {
    let fd = fd.as_fd().try_clone_to_owned().unwrap();
    Mapping(Region::map(fd, bytes(settings)).unwrap())
}

fn send(
    table: &Shared,
    key: FlowKey,
    ends: Ends,
    facts: Facts,
    now: Time,
) -> Result<Class, DropReason> {
    // Even ports are denied.
    let decide = |key: &FlowKey| verdict(key.source_port % 2 == 1, 1, key.source_port);
    let packet = Packet {
        key,
        ends,
        facts,
        now,
        epoch: 1,
        decide: &decide,
    };
    drive(table, &packet)
}

/// Entries that have never been in use cost no walk, in the successor's table neither.
#[test]
fn walks_end_where_entries_have_never_been_in_use() {
    let settings = settings(1000);
    let fd = memory(&settings);
    let table = Shared::new(map(&fd, &settings), settings.clone()).unwrap();
    assert_eq!(table.high_water(), 0);
    for port in 0..20 {
        let k = key(Protocol::UDP, 3, 2, 2 * port + 1);
        send(&table, k, ends(3, 2), Facts::Udp, at(u64::from(port))).unwrap();
    }
    assert_eq!(table.high_water(), 20);
    // The older half goes, and is used again before what has never been.
    assert_eq!(table.expire(0, 1000, at(40)).removed, 10);
    for port in 100..105 {
        let k = key(Protocol::UDP, 3, 2, 2 * port + 1);
        send(&table, k, ends(3, 2), Facts::Udp, at(40)).unwrap();
    }
    assert_eq!(
        (table.high_water(), table.entries(at(40)).count()),
        (20, 15)
    );
    drop(table);
    // The last entries are idle by now: what is left lies before them.
    let (after, attached) = Shared::attach(map(&fd, &settings), settings.clone(), at(60)).unwrap();
    assert_eq!((attached.kept, attached.discarded), (5, 10));
    assert!(after.high_water() < 20, "{}", after.high_water());
    for port in 0..995 {
        let k = key(Protocol::UDP, 5, 2, 2 * port + 1);
        send(&after, k, ends(5, 2), Facts::Udp, at(60)).unwrap();
    }
    assert_eq!(
        (after.high_water(), after.entries(at(60)).count()),
        (1000, 1000)
    );
}

#[test]
fn connections_survive_a_restart() {
    let settings = settings(64);
    let fd = memory(&settings);
    let before = Shared::new(map(&fd, &settings), settings.clone()).unwrap();
    let (k, e) = (key(Protocol::TCP, 1, 2, 41), ends(1, 2));
    for (original, flags) in [(true, SYN), (false, SYN_ACK), (true, ACK)] {
        let (k, e) = if original {
            (k, e)
        } else {
            (k.reversed(), back(e))
        };
        send(&before, k, e, tcp(flags), at(0)).unwrap();
    }
    for port in 0..20 {
        let _ = send(
            &before,
            key(Protocol::UDP, 3, 2, port),
            ends(3, 2),
            Facts::Udp,
            at(0),
        );
    }
    let listed: Vec<_> = before
        .entries(at(1))
        .map(|entry| (entry.key, entry.state, entry.verdict))
        .collect();
    // As after kill -9: nothing is told to the table. Another seed in the settings does not matter.
    std::mem::forget(before);
    let settings = Settings {
        hash_seed: [5, 6],
        ..settings
    };
    let (after, attached) = Shared::attach(map(&fd, &settings), settings.clone(), at(1)).unwrap();
    assert_eq!(
        attached,
        Attached {
            kept: 21,
            discarded: 0
        }
    );
    let again: Vec<_> = after
        .entries(at(1))
        .map(|entry| (entry.key, entry.state, entry.verdict))
        .collect();
    assert_eq!(again, listed);
    assert_eq!(
        (after.charged(Incarnation(1)), after.charged(Incarnation(3))),
        (1, 20)
    );
    assert_eq!(
        after.lookup(&k, &e, at(1)).unwrap().state,
        State::Established
    );
    assert_eq!(
        send(&after, k.reversed(), back(e), tcp(ACK), at(1)),
        Ok(Class::Reply)
    );
    // DENIED survives as well.
    let denied = key(Protocol::UDP, 3, 2, 4);
    assert!(after.lookup(&denied, &ends(3, 2), at(1)).unwrap().denied);
    // And there is room for the rest, exactly.
    let mut made = 0;
    for port in 100..200 {
        let k = key(Protocol::UDP, 5, 2, 2 * port + 1);
        made += u32::from(send(&after, k, ends(5, 2), Facts::Udp, at(1)) == Ok(Class::New));
        let _ = send(&after, k.reversed(), back(ends(5, 2)), Facts::Udp, at(1));
    }
    // The denied and unreplied ones went, the established stayed.
    assert!(made >= 43, "{made}");
    assert_eq!(after.counters().entries, 64);
    assert!(after.lookup(&k, &e, at(1)).is_some());
    // What was idle while nobody ran is discarded.
    drop(after);
    let (late, attached) = Shared::attach(map(&fd, &settings), settings, at(1000)).unwrap();
    assert_eq!(
        attached,
        Attached {
            kept: 1,
            discarded: 63
        }
    );
    assert!(late.lookup(&k, &e, at(1000)).is_some());
}

#[test]
fn any_torn_word_costs_at_most_its_entry() {
    let settings = settings(8);
    let words = Shared::words(&settings);
    let entries_start = words - 8 * (16 + 8);
    let whole = || {
        let fd = memory(&settings);
        let table = Shared::new(map(&fd, &settings), settings.clone()).unwrap();
        for port in [1, 3, 5, 7] {
            send(
                &table,
                key(Protocol::UDP, 1, 2, port),
                ends(1, 2),
                Facts::Udp,
                at(0),
            )
            .unwrap();
        }
        (fd, table)
    };
    for word in entries_start..words {
        for garbage in [0, u64::MAX, 0x8000_0000_0000_0000, 0x0123_4567_89ab_cdef] {
            let (fd, table) = whole();
            table_word(&fd, &settings, word, garbage);
            std::mem::forget(table);
            let (after, attached) =
                Shared::attach(map(&fd, &settings), settings.clone(), at(1)).unwrap();
            assert!(attached.kept >= 3, "word {word} {garbage:#x}: {attached:?}");
            assert_eq!(after.entries(at(1)).count() as u32, attached.kept);
            let found = [1, 3, 5, 7].into_iter().filter(|port| {
                after
                    .lookup(&key(Protocol::UDP, 1, 2, *port), &ends(1, 2), at(1))
                    .is_some()
            });
            assert!(found.count() >= 3, "word {word} {garbage:#x}");
            // The table works: it can be filled and emptied.
            for port in 0..20 {
                let k = key(Protocol::UDP, 6, 7, 2 * port + 1);
                let _ = send(&after, k, ends(6, 7), Facts::Udp, at(1));
            }
            assert_eq!(after.counters().entries, 8, "word {word} {garbage:#x}");
            let emptied = after.expire(0, 8, at(100_000)).removed;
            assert_eq!((emptied, after.counters().entries), (8, 0));
            assert_eq!(after.charged(Incarnation(6)), 0);
        }
    }
}

/// Writes what a killed process might have left.
fn table_word(fd: &OwnedFd, settings: &Settings, word: usize, value: u64) {
    map(fd, settings).words()[word].store(value, Relaxed);
}

#[test]
fn torn_buckets_locks_and_free_list_are_made_anew() {
    let settings = settings(8);
    let fd = memory(&settings);
    let table = Shared::new(map(&fd, &settings), settings.clone()).unwrap();
    let (k, e) = (key(Protocol::UDP, 1, 2, 1), ends(1, 2));
    send(&table, k, e, Facts::Udp, at(0)).unwrap();
    std::mem::forget(table);
    let storage = map(&fd, &settings);
    // Everything between the header's sizes and the entries.
    let entries_start = Shared::words(&settings) - 8 * (16 + 8);
    for word in &storage.words()[8..entries_start] {
        word.store(u64::MAX, Relaxed);
    }
    let (after, attached) = Shared::attach(storage, settings, at(1)).unwrap();
    assert_eq!(
        attached,
        Attached {
            kept: 1,
            discarded: 0
        }
    );
    assert_eq!(
        send(&after, k, e, Facts::Udp, at(1)),
        Ok(Class::Established)
    );
    assert_eq!(
        send(&after, key(Protocol::UDP, 1, 2, 9), e, Facts::Udp, at(1)),
        Ok(Class::New)
    );
    assert_eq!(
        (after.counters().entries, after.charged(Incarnation(1))),
        (2, 2)
    );
}

#[test]
fn another_layout_or_size_is_refused() {
    let small = settings(8);
    let fd = memory(&small);
    let attach = |settings: &Settings| {
        Shared::attach(map(&fd, &small), settings.clone(), at(0))
            .map(|_| ())
            .unwrap_err()
    };
    assert!(matches!(
        attach(&small),
        TableError::Layout { found: 0, .. }
    ));
    drop(Shared::new(map(&fd, &small), small.clone()).unwrap());
    let fewer = attach(&settings(4));
    assert!(matches!(
        fewer,
        TableError::Size {
            what: "connections",
            expected: 4,
            found: 8
        }
    ));
    assert!(matches!(attach(&settings(9)), TableError::TooSmall { .. }));
    let zero = TableError::Range {
        what: "capacity",
        value: 0,
        max: Settings::MAX_CAPACITY,
    };
    assert_eq!(attach(&settings(0)), zero);
}

#[test]
fn a_new_daemon_decides_again_even_if_its_generations_start_over() {
    let settings = settings(8);
    let fd = memory(&settings);
    let before = Shared::new(map(&fd, &settings), settings.clone()).unwrap();
    let (k, e) = (key(Protocol::UDP, 1, 2, 7), ends(1, 2));
    let old = NewEntry {
        translation: None,
        key: k,
        ends: e,
        verdict: verdict(true, 42, 7),
        counters: counters(&verdict(true, 42, 7)),
        epochs: epochs(42),
        facts: Facts::Udp,
    };
    before.insert(&old, at(0)).unwrap();
    std::mem::forget(before);
    // Its state directory was lost, so the new daemon counts from 1.
    let (after, _) = Shared::attach(map(&fd, &settings), settings, at(1)).unwrap();
    let hit = after.lookup(&k, &e, at(1)).unwrap();
    assert!(hit.verdict.accept);
    assert!(epochs(1).is_newer_than(hit.epochs));
    // The old daemon's rules are not the new one's.
    assert_eq!(hit.counters, RuleCounters::default());
    let denied = verdict(false, 1, 7);
    let redecided = after.redecide(hit.handle, denied, counters(&denied), epochs(1));
    let before = RuleCounters::default();
    assert_eq!(redecided, Redecided::Stored { before });
    let hit = after.lookup(&k, &e, at(1)).unwrap();
    assert!(hit.denied);
    assert_eq!(hit.counters, counters(&denied));
    // When it was made is still known.
    let entry = after.entries(at(1)).next().unwrap();
    assert!(at(0).since(entry.created) < 200_000_000, "{entry:?}");
}
