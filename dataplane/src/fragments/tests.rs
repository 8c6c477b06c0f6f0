//! The table by itself: places, bounds, time and threads; and against a naive model.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::conntrack::Ends;
use crate::snapshot::Incarnation;
use crate::{Address, Time};

const MS: u64 = 1_000_000;

const BOUNDS: Bounds = Bounds {
    datagrams: 32,
    frames: 16,
    port_percent: 50,
    pieces: 6,
    timeout_ms: 100,
};

fn table(bounds: Bounds) -> Table {
    Table::new(bounds, 8, [3, 5])
}

fn key(port: u16, identification: u32) -> Key {
    Key {
        ends: Ends {
            source: Incarnation(1 + u32::from(port)),
            destination: Incarnation(9),
            ingress: PortId(port),
        },
        source: Address::v4(0x0a00_0001),
        destination: Address::v4(0x0a00_0002),
        identification,
        protocol: Some(Protocol::UDP),
    }
}

fn piece(start: u16, end: u16, is_last: bool) -> Piece {
    Piece {
        start,
        end,
        is_last,
    }
}

const FIRST: First = First {
    protocol: Protocol::UDP,
    source_port: 4000,
    destination_port: 53,
    segment: None,
    headers: 0,
};

/// Enters the first fragment of a datagram and accepts it.
fn accept(table: &Table, key: &Key, piece: Piece, now: Time) {
    let Ok(Entered::First { ticket, .. }) = table.enter(key, piece, now) else {
        panic!("{piece:?} is no first fragment");
    };
    table.decide(&ticket, Ok(FIRST), now);
}

fn refusal(table: &Table, key: &Key, piece: Piece, now: Time) -> Option<DropReason> {
    table.enter(key, piece, now).err().map(|r| r.reason)
}

fn is_followed(entered: &Result<Entered, Refused>) -> bool {
    matches!(entered, Ok(Entered::Follows { first: FIRST, .. }))
}

#[test]
fn a_later_fragment_follows_its_first_and_a_whole_datagram_is_forgotten() {
    let (table, now) = (table(BOUNDS), Time(0));
    for round in 0..3 {
        accept(&table, &key(1, 7), piece(0, 16, false), now);
        assert_eq!(table.counts().datagrams, 1, "{round}");
        assert!(is_followed(&table.enter(
            &key(1, 7),
            piece(24, 30, true),
            now
        )));
        assert!(is_followed(&table.enter(
            &key(1, 7),
            piece(16, 24, false),
            now
        )));
        assert_eq!(table.counts(), Counts::default());
    }
}

#[test]
fn what_tells_datagrams_apart() {
    let (table, now) = (table(BOUNDS), Time(0));
    let mine = key(1, 7);
    accept(&table, &mine, piece(0, 16, false), now);
    let mut others = [mine; 6];
    others[0].identification = 8;
    others[1].protocol = Some(Protocol::ICMP);
    others[2].ends.ingress = PortId(2);
    others[3].ends.source = Incarnation(77);
    others[4].ends.destination = Incarnation(77);
    others[5].source = Address::v4(0x0a00_0009);
    for other in others {
        let entered = table.enter(&other, piece(16, 24, true), now);
        assert!(matches!(entered, Ok(Entered::Waits(_))), "{other:?}");
    }
    assert!(is_followed(&table.enter(&mine, piece(16, 24, true), now)));
}

#[test]
fn whoever_comes_ahead_of_the_first_is_held_and_follows_it() {
    let (table, now) = (table(BOUNDS), Time(0));
    let mut held = Held::new(&table);
    for (number, at) in [piece(16, 24, false), piece(24, 25, true)]
        .into_iter()
        .enumerate()
    {
        let Ok(Entered::Waits(ticket)) = table.enter(&key(1, 7), at, now) else {
            panic!("{at:?}");
        };
        held.keep(&table, ticket, (number, 60), now).unwrap();
    }
    assert_eq!(
        table.counts(),
        Counts {
            datagrams: 1,
            frames: 2
        }
    );
    held.release(&table, now, 8, |_| panic!("nothing is decided"));
    accept(&table, &key(1, 7), piece(0, 16, false), now);
    let mut frames = Vec::new();
    held.release(&table, now, 1, |released| frames.push(released));
    assert_eq!(frames.len(), 1);
    held.release(&table, now, 1, |released| frames.push(released));
    assert!(held.is_empty());
    assert_eq!(frames.iter().map(|r| r.frame).collect::<Vec<_>>(), [0, 1]);
    for released in &frames {
        assert!(is_followed(&table.resume(&released.ticket, now)));
    }
    assert_eq!(table.counts(), Counts::default());
}

#[test]
fn a_datagram_that_overlaps_or_contradicts_itself_is_dropped_from_then_on() {
    let now = Time(0);
    for (before, at, reason) in [
        (
            piece(16, 32, false),
            piece(8, 24, false),
            DropReason::FragmentOverlap,
        ),
        (
            piece(16, 32, false),
            piece(24, 40, false),
            DropReason::FragmentOverlap,
        ),
        (
            piece(16, 32, false),
            piece(16, 24, false),
            DropReason::FragmentOverlap,
        ),
        (
            piece(16, 32, false),
            piece(0, 8, false),
            DropReason::FragmentOverlap,
        ),
        // The same octets, but the end.
        (
            piece(16, 32, false),
            piece(16, 32, true),
            DropReason::FragmentOverlap,
        ),
        (
            piece(24, 32, true),
            piece(32, 40, false),
            DropReason::FragmentContradiction,
        ),
        (
            piece(24, 32, true),
            piece(40, 48, true),
            DropReason::FragmentContradiction,
        ),
        (
            piece(24, 32, false),
            piece(16, 20, true),
            DropReason::FragmentContradiction,
        ),
    ] {
        let table = table(BOUNDS);
        accept(&table, &key(1, 7), piece(0, 16, false), now);
        assert!(is_followed(&table.enter(&key(1, 7), before, now)));
        let refused = table.enter(&key(1, 7), at, now).unwrap_err();
        assert_eq!((refused.reason, refused.is_news), (reason, true), "{at:?}");
        assert_eq!(refused.first, Some(FIRST));
        // What fits comes too late, the first one anew too.
        for fits in [piece(48, 56, false), piece(0, 16, false)] {
            let refused = table.enter(&key(1, 7), fits, now).unwrap_err();
            assert_eq!(refused.reason, DropReason::DatagramDropped);
            assert!(!refused.is_news);
        }
    }
}

#[test]
fn a_duplicate_is_dropped_and_harms_nobody() {
    let (table, now) = (table(BOUNDS), Time(0));
    accept(&table, &key(1, 7), piece(0, 16, false), now);
    assert!(is_followed(&table.enter(
        &key(1, 7),
        piece(24, 30, true),
        now
    )));
    for again in [piece(0, 16, false), piece(24, 30, true)] {
        let refused = table.enter(&key(1, 7), again, now).unwrap_err();
        assert_eq!(refused.reason, DropReason::FragmentDuplicate);
        assert!(!refused.is_news);
    }
    assert!(is_followed(&table.enter(
        &key(1, 7),
        piece(16, 24, false),
        now
    )));
}

#[test]
fn every_bound_is_one() {
    let now = Time(0);
    let table = table(BOUNDS);
    // A port's share of the datagrams: half of 32.
    for id in 0..16 {
        accept(&table, &key(1, id), piece(0, 16, false), now);
    }
    let first = piece(0, 16, false);
    let quota = Some(DropReason::FragmentQuota);
    assert_eq!(refusal(&table, &key(1, 99), first, now), quota);
    // Others have theirs, but not more than there is.
    for id in 0..16 {
        accept(&table, &key(2, id), first, now);
    }
    let full = Some(DropReason::FragmentTableFull);
    assert_eq!(refusal(&table, &key(3, 0), first, now), full);
    assert_eq!(
        refusal(&table, &key(8, 0), first, now),
        quota,
        "no such port"
    );
    // Pieces of a datagram.
    for number in 2..7 {
        let at = piece(number * 8, number * 8 + 8, false);
        assert!(is_followed(&table.enter(&key(1, 0), at, now)));
    }
    let too_many = refusal(&table, &key(1, 0), piece(56, 64, false), now);
    assert_eq!(too_many, Some(DropReason::FragmentPieces));
    // Once time is over, all is as new.
    let later = Time(100 * MS);
    accept(&table, &key(3, 0), first, later);
    for id in 0..64 {
        // Each newcomer looks through some buckets.
        let _ = table.enter(&key(4, id), piece(0, 8, true), later);
    }
    assert!(table.counts().datagrams <= 17, "{:?}", table.counts());
}

#[test]
fn held_frames_have_their_bounds() {
    let (table, now) = (table(BOUNDS), Time(0));
    let wait = |port, id, at| table.enter(&key(port, id), piece(at, at + 8, false), now);
    for (port, id) in [(1, 0), (2, 0)] {
        for number in 1..5 {
            assert!(matches!(wait(port, id, number * 8), Ok(Entered::Waits(_))));
        }
        for number in 1..5 {
            assert!(matches!(
                wait(port, id + 1, number * 8),
                Ok(Entered::Waits(_))
            ));
        }
        let refused = wait(port, 2, 8).unwrap_err();
        assert_eq!(refused.reason, DropReason::FragmentQuota);
        assert!(refused.is_news, "there is a datagram to speak of, once");
        assert!(!wait(port, 2, 16).unwrap_err().is_news);
    }
    let refused = wait(3, 0, 8).unwrap_err();
    assert_eq!(refused.reason, DropReason::FragmentTableFull);
    assert_eq!(table.counts().frames, 16);
}

#[test]
fn a_first_fragment_that_never_comes_is_not_waited_for() {
    let (table, now) = (table(BOUNDS), Time(0));
    let mut held = Held::new(&table);
    for at in [piece(16, 24, false), piece(24, 25, true)] {
        let Ok(Entered::Waits(ticket)) = table.enter(&key(1, 7), at, now) else {
            panic!("{at:?}");
        };
        held.keep(&table, ticket, ((), 60), now).unwrap();
    }
    let before = Time(100 * MS - 1);
    held.release(&table, before, 8, |_| panic!("there is time left"));
    let late = Time(100 * MS);
    let mut tickets = Vec::new();
    held.release(&table, late, 8, |released| tickets.push(released.ticket));
    let refusals: Vec<_> = tickets
        .iter()
        .map(|ticket| table.resume(ticket, late).unwrap_err())
        .map(|refused| (refused.reason, refused.is_news))
        .collect();
    let timeout = DropReason::FragmentTimeout;
    assert_eq!(refusals, [(timeout, true), (timeout, false)]);
    assert_eq!(table.counts().frames, 0);
    // Now the first one comes: too late for as long again.
    let first = piece(0, 16, false);
    assert_eq!(refusal(&table, &key(1, 7), first, late), Some(timeout));
}

#[test]
fn whoever_goes_takes_its_datagrams_along() {
    let (table, now) = (table(BOUNDS), Time(0));
    for port in 1..4 {
        accept(&table, &key(port, 7), piece(0, 16, false), now);
    }
    table.forget_port(PortId(1));
    table.forget_endpoint(Incarnation(3));
    assert_eq!(table.counts().datagrams, 1);
    let mut held = Held::new(&table);
    let Ok(Entered::Waits(ticket)) = table.enter(&key(4, 7), piece(16, 24, true), now) else {
        panic!("it waits");
    };
    held.keep(&table, ticket, ((), 60), now).unwrap();
    table.forget_endpoint(Incarnation(9));
    assert_eq!(table.counts().datagrams, 0);
    let mut count = 0;
    held.release(&table, now, 8, |released| {
        count += 1;
        assert!(table.resume(&released.ticket, now).is_err());
    });
    assert_eq!((count, table.counts()), (1, Counts::default()));
}

/// What a datagram is, in the plainest way: octets that are there or not.
#[derive(Default)]
struct Model {
    octets: Vec<bool>,
    pieces: Vec<Piece>,
    is_dropped: bool,
}

impl Model {
    /// Whether the fragment goes on, if its first is accepted at once.
    fn takes(&mut self, at: Piece, pieces_max: usize) -> bool {
        if self.is_dropped || self.pieces.contains(&at) {
            return false;
        }
        let (start, end) = (usize::from(at.start), usize::from(at.end));
        self.octets.resize(self.octets.len().max(end), false);
        let overlaps = self.octets[start..end].contains(&true);
        let lasts = self.pieces.iter().filter(|piece| piece.is_last);
        let length = lasts.map(|piece| piece.end).next();
        let contradicts = match (length, at.is_last) {
            (Some(length), is_last) => is_last || at.end > length,
            (None, true) => self.octets[end..].contains(&true),
            (None, false) => false,
        };
        if overlaps || contradicts || self.pieces.len() == pieces_max {
            self.is_dropped = true;
            return false;
        }
        self.octets[start..end].fill(true);
        self.pieces.push(at);
        true
    }

    fn is_whole(&self) -> bool {
        let length = self.pieces.iter().find(|piece| piece.is_last);
        !self.is_dropped
            && length.is_some_and(|piece| self.octets[..usize::from(piece.end)].iter().all(|o| *o))
    }
}

proptest! {
    /// Whatever comes in whatever order, to whichever worker: what goes on is what the model lets go on.
    #[test]
    fn the_table_is_the_model(
        fragments in proptest::collection::vec(
            (0..3_u32, 0..8_u16, 1..4_u16, 0..5_u8, 0..2_usize), 1..60,
        ),
    ) {
        let bounds = Bounds { datagrams: 64, frames: 64, port_percent: 100, ..BOUNDS };
        let (table, now) = (table(bounds), Time(0));
        let mut held = [Held::new(&table), Held::new(&table)];
        let mut models: [Model; 3] = Default::default();
        // Of each datagram: what should go on once its first has come, and what has gone on.
        let mut expected: [Vec<Piece>; 3] = Default::default();
        let mut passed: [Vec<Piece>; 3] = Default::default();
        for (id, start, units, last, worker) in fragments {
            let number = id as usize;
            let is_last = last == 0;
            let at = piece(start * 8, (start + units) * 8 - if is_last { 3 } else { 0 }, is_last);
            if models[number].takes(at, 6) {
                expected[number].push(at);
            }
            match table.enter(&key(1, id), at, now) {
                Ok(Entered::First { ticket, .. }) => {
                    passed[number].push(at);
                    table.decide(&ticket, Ok(FIRST), now);
                }
                Ok(Entered::Follows { .. }) => passed[number].push(at),
                Ok(Entered::Waits(ticket)) => {
                    held[worker].keep(&table, ticket, ((number, at), 0), now).unwrap();
                }
                Err(_) => {}
            }
            for held in &mut held {
                let mut released = Vec::new();
                held.release(&table, now, 64, |one| released.push(one));
                for one in released {
                    let (number, at) = one.frame;
                    if table.resume(&one.ticket, now).is_ok() {
                        passed[number].push(at);
                    }
                }
            }
            let model = &mut models[number];
            if model.is_dropped {
                // What was held goes with the rest; what has gone on has gone.
                let (want, have) = (&expected[number], &passed[number]);
                prop_assert!(have.iter().all(|at| want.contains(at)), "{want:?} {have:?}");
            } else if model.pieces.iter().any(|piece| piece.start == 0) {
                let sorted = |pieces: &[Piece]| {
                    let mut pieces = pieces.to_vec();
                    pieces.sort_by_key(|piece| piece.start);
                    pieces
                };
                prop_assert_eq!(sorted(&expected[number]), sorted(&passed[number]));
            } else {
                prop_assert!(passed[number].is_empty());
            }
            if model.is_whole() {
                // It is forgotten, and its number may name another.
                (*model, expected[number], passed[number]) = Default::default();
            }
        }
        let waiting: usize = held.iter().map(Held::len).sum();
        prop_assert_eq!(table.counts().frames as usize, waiting);
    }
}

/// Asks again as long as another has the bucket: whoever lost its core in there has it for long.
fn until_free(mut ask: impl FnMut() -> Result<Entered, Refused>) -> Result<Entered, Refused> {
    loop {
        match ask() {
            Err(refused) if refused.reason == DropReason::FragmentBusy => std::thread::yield_now(),
            answer => return answer,
        }
    }
}

/// Two workers receive the fragments of the same datagrams, in any order: each datagram goes on whole,
/// and nothing is left.
#[test]
fn two_workers_share_datagrams() {
    let bounds = Bounds {
        datagrams: 64,
        frames: 64,
        port_percent: 100,
        pieces: 64,
        timeout_ms: 60_000,
    };
    let table = table(bounds);
    let now = Time(0);
    let passed = std::sync::atomic::AtomicUsize::new(0);
    let entered: Vec<_> = (0..2000)
        .map(|_| std::sync::atomic::AtomicUsize::new(0))
        .collect();
    let barrier = std::sync::Barrier::new(2);
    let work = |worker: usize| {
        let relaxed = std::sync::atomic::Ordering::Relaxed;
        let mut held = Held::new(&table);
        let again = |held: &mut Held<()>| {
            let mut tickets = Vec::new();
            held.release(&table, now, 64, |one| tickets.push(one.ticket));
            for ticket in tickets {
                assert!(is_followed(&until_free(|| table.resume(&ticket, now))));
                passed.fetch_add(1, relaxed);
            }
        };
        for (id, others) in entered.iter().enumerate() {
            // Now and then the workers meet, so that they are at the same datagrams.
            if id % 16 == 0 {
                barrier.wait();
            }
            for number in [3_u16, 1, 2, 0] {
                if usize::from(number) % 2 != worker {
                    continue;
                }
                let at = piece(number * 8, number * 8 + 8, number == 3);
                match until_free(|| table.enter(&key(1, id as u32), at, now)) {
                    Ok(Entered::First { ticket, .. }) => {
                        while table.is_undecided(&ticket) {
                            table.decide(&ticket, Ok(FIRST), now);
                        }
                        passed.fetch_add(1, relaxed);
                    }
                    Ok(Entered::Follows { .. }) => drop(passed.fetch_add(1, relaxed)),
                    Ok(Entered::Waits(ticket)) => {
                        held.keep(&table, ticket, ((), 0), now).unwrap();
                    }
                    Err(refused) => panic!("{refused:?}"),
                }
                others.fetch_add(1, relaxed);
            }
            again(&mut held);
        }
        while !held.is_empty() {
            again(&mut held);
            std::hint::spin_loop();
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| work(1));
        work(0);
    });
    assert_eq!(passed.into_inner(), 4 * entered.len());
    assert_eq!(table.counts(), Counts::default());
}

/// What became of the fragments that one worker received.
#[derive(Default)]
struct Fates {
    passed: u32,
    refused: u32,
    waited: u32,
}

/// A worker of [`workers_share_a_crowded_table_with_control`].
struct Crowded<'a> {
    table: &'a Table,
    held: Held<Key>,
    fates: Fates,
}

impl Crowded<'_> {
    /// What a datagram's first fragment says in this test: which datagram it is of.
    fn first_of(key: &Key) -> First {
        First {
            source_port: key.identification as u16,
            destination_port: key.ends.ingress.0,
            ..FIRST
        }
    }

    fn is_denied(key: &Key) -> bool {
        key.identification.is_multiple_of(5)
    }

    /// A fragment that follows, or is dropped: by its own datagram's first, and by no denied one.
    fn follow(&mut self, key: &Key, entered: &Result<Entered, Refused>) {
        let first = match entered {
            Ok(Entered::Follows { first, .. }) => {
                self.fates.passed += 1;
                Some(*first)
            }
            Ok(other) => panic!("{other:?}"),
            Err(refused) => {
                self.fates.refused += 1;
                refused.first
            }
        };
        if let Some(first) = first {
            assert_eq!(first, Self::first_of(key));
            assert!(!Self::is_denied(key));
        }
    }

    fn receive(&mut self, key: &Key, piece: Piece, now: Time) {
        match self.table.enter(key, piece, now) {
            Ok(Entered::First { ticket, .. }) if Self::is_denied(key) => {
                let denied = Err(DropReason::PolicyDenied);
                self.table.decide(&ticket, denied, now);
                self.fates.refused += 1;
            }
            Ok(Entered::First { ticket, .. }) => {
                self.table.decide(&ticket, Ok(Self::first_of(key)), now);
                self.fates.passed += 1;
            }
            Ok(Entered::Waits(ticket)) => {
                self.fates.waited += 1;
                if self.fates.waited.is_multiple_of(8) {
                    self.table.abandon(&ticket, DropReason::Internal, now);
                    self.fates.refused += 1;
                    return;
                }
                self.held.keep(self.table, ticket, (*key, 0), now).unwrap();
            }
            other => self.follow(key, &other),
        }
    }

    fn release(&mut self, now: Time) {
        let mut released = Vec::new();
        self.held
            .release(self.table, now, 64, |one| released.push(one));
        for one in released {
            self.follow(&one.frame, &self.table.resume(&one.ticket, now));
        }
    }
}

/// More datagrams than there is room for, while control forgets endpoints and ports, and time goes on:
/// each fragment has one fate, and in the end nothing is counted that is not there.
#[test]
fn workers_share_a_crowded_table_with_control() {
    const WORKERS: u64 = 3;
    const ROUNDS: u32 = 10_000;
    const PORTS: u16 = 4;
    let bounds = Bounds {
        datagrams: 12,
        frames: 8,
        timeout_ms: 5,
        ..BOUNDS
    };
    let table = table(bounds);
    let clock_ms = std::sync::atomic::AtomicU64::new(0);
    let relaxed = std::sync::atomic::Ordering::Relaxed;
    let now = || Time(clock_ms.load(relaxed) * MS);
    // Numbers below `n` that each thread repeats (PCG's multiplier).
    let below = |state: &mut u64, n: u32| {
        *state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (*state >> 33) as u32 % n
    };
    let work = |mut seed: u64| {
        let mut worker = Crowded {
            table: &table,
            held: Held::new(&table),
            fates: Fates::default(),
        };
        for _ in 0..ROUNDS {
            let port = below(&mut seed, PORTS.into()) as u16;
            let key = key(port, below(&mut seed, 24));
            let number = below(&mut seed, 4) as u16;
            let piece = piece(number * 8, number * 8 + 8, number == 3);
            worker.receive(&key, piece, now());
            worker.release(now());
        }
        let mut left = 0;
        worker.held.release_all(&table, |_| left += 1);
        worker.fates.refused += left;
        worker.fates
    };
    let mut all = Fates::default();
    std::thread::scope(|scope| {
        let work = &work;
        let workers: Vec<_> = (1..=WORKERS)
            .map(|seed| scope.spawn(move || work(seed)))
            .collect();
        let mut seed = 99;
        while !workers.iter().all(|worker| worker.is_finished()) {
            let port = below(&mut seed, PORTS.into()) as u16;
            match below(&mut seed, 8) {
                0 => table.forget_port(PortId(port)),
                1 => table.forget_endpoint(Incarnation(1 + u32::from(port))),
                2 => drop(clock_ms.fetch_add(1, relaxed)),
                _ => std::thread::yield_now(),
            }
        }
        for worker in workers {
            let fates = worker.join().unwrap();
            all.passed += fates.passed;
            all.refused += fates.refused;
            all.waited += fates.waited;
        }
    });
    assert_eq!(all.passed + all.refused, WORKERS as u32 * ROUNDS);
    assert!(all.passed > 0 && all.waited > 0);
    assert_eq!(table.counts().frames, 0);
    (0..PORTS).for_each(|port| table.forget_port(PortId(port)));
    assert_eq!(table.counts(), Counts::default());
    // Every place can still be used: two ports' shares are all there is.
    let enter = |port, id| table.enter(&key(port, id), piece(0, 8, false), now());
    for id in 0..bounds.datagrams {
        let entered = enter((id % 2) as u16, id);
        assert!(matches!(entered, Ok(Entered::First { .. })), "{entered:?}");
    }
    let full = enter(2, 99).unwrap_err();
    assert_eq!(full.reason, DropReason::FragmentTableFull);
}
