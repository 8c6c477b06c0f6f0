//! The table of datagrams, shared by all workers.

use std::hint::spin_loop;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Mutex, MutexGuard, TryLockError};

use crossbeam_utils::CachePadded;

use super::datagram::{Datagram, First, Phase, Piece};
use super::{Bounds, Counts, Entered, Key, Refused, Ticket};
use crate::conntrack::keyed_hash;
use crate::snapshot::{Incarnation, PortId};
use crate::{DropReason, Time};

/// Datagrams that one bucket has room for.
const WAYS: usize = 16;
/// Room in the table over datagrams allowed: buckets fill unevenly.
const ROOM: usize = 2;
/// How often a worker tries a bucket's lock: some microseconds, and what is done under it takes less
/// than one.
const TRIES: u32 = 256;
/// Other buckets that a new datagram looks through for such as have been forgotten.
const SWEEP: usize = 4;

type Bucket = [Option<Datagram>; WAYS];

/// How many of something there are, of all ports and of each.
#[derive(Debug)]
struct Tally {
    all: AtomicU32,
    by_port: Box<[AtomicU32]>,
    max: u32,
    max_of_port: u32,
}

impl Tally {
    fn new(max: u32, port_percent: u32, ports: u16) -> Tally {
        let share = u64::from(max) * u64::from(port_percent.min(100)) / 100;
        Tally {
            all: AtomicU32::new(0),
            by_port: (0..ports).map(|_| AtomicU32::new(0)).collect(),
            max,
            max_of_port: (share as u32).max(1),
        }
    }

    fn take(&self, port: PortId) -> Result<(), DropReason> {
        let up_to = |max: u32| move |count: u32| (count < max).then_some(count + 1);
        let of_port = self.by_port.get(usize::from(port.0));
        let of_port = of_port.ok_or(DropReason::FragmentQuota)?;
        of_port
            .fetch_update(Relaxed, Relaxed, up_to(self.max_of_port))
            .map_err(|_| DropReason::FragmentQuota)?;
        if self
            .all
            .fetch_update(Relaxed, Relaxed, up_to(self.max))
            .is_err()
        {
            of_port.fetch_sub(1, Relaxed);
            return Err(DropReason::FragmentTableFull);
        }
        Ok(())
    }

    fn give(&self, port: PortId) {
        if let Some(of_port) = self.by_port.get(usize::from(port.0)) {
            of_port.fetch_sub(1, Relaxed);
            self.all.fetch_sub(1, Relaxed);
        }
    }
}

/// Datagrams under way. See the module's documentation.
#[derive(Debug)]
pub struct Table {
    bounds: Bounds,
    hash_seed: [u64; 2],
    buckets: Box<[CachePadded<Mutex<Bucket>>]>,
    /// By slot, the serial of its datagram while that is undecided; else 0.
    undecided: Box<[AtomicU64]>,
    datagrams: Tally,
    frames: Tally,
    serial: AtomicU64,
    changes: CachePadded<AtomicU64>,
    /// Where the next sweep begins.
    hand: AtomicU64,
}

impl Table {
    /// An empty table for ports whose numbers are below `ports`. `hash_seed` is a secret, so that
    /// nobody can aim at one bucket. Takes about 1.8 KiB for every datagram there can be.
    pub fn new(bounds: Bounds, ports: u16, hash_seed: [u64; 2]) -> Table {
        let datagrams = (bounds.datagrams.max(1)) as usize;
        let buckets = (datagrams * ROOM).div_ceil(WAYS);
        let tally = |max| Tally::new(max, bounds.port_percent, ports);
        Table {
            bounds,
            hash_seed,
            buckets: (0..buckets)
                .map(|_| CachePadded::new(Mutex::new([const { None }; WAYS])))
                .collect(),
            undecided: (0..buckets * WAYS).map(|_| AtomicU64::new(0)).collect(),
            datagrams: tally(bounds.datagrams),
            frames: tally(bounds.frames),
            serial: AtomicU64::new(1),
            changes: CachePadded::new(AtomicU64::new(0)),
            hand: AtomicU64::new(0),
        }
    }

    /// What it was made with.
    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// What is under way now.
    pub fn counts(&self) -> Counts {
        Counts {
            datagrams: self.datagrams.all.load(Relaxed),
            frames: self.frames.all.load(Relaxed),
        }
    }

    /// A number that is another one when a datagram of which something is held has been decided or
    /// has gone.
    pub fn changes(&self) -> u64 {
        self.changes.load(Acquire)
    }

    /// Whether the ticket's datagram still waits to be decided.
    pub fn is_undecided(&self, ticket: &Ticket) -> bool {
        let serial = self.undecided.get(ticket.slot as usize);
        serial.is_some_and(|serial| serial.load(Acquire) == ticket.serial)
    }

    /// Takes in a fragment that has just been received.
    ///
    /// # Errors
    /// Why it has to be dropped. But for a duplicate the whole datagram is, from then on.
    pub fn enter(&self, key: &Key, piece: Piece, now: Time) -> Result<Entered, Refused> {
        let number = self.bucket_of(key);
        // Nobody knows its datagram: let the one that tells the flow speak for it.
        let is_news = piece.start == 0;
        let refused = |reason| Refused {
            reason,
            is_news,
            first: None,
        };
        let mut bucket = self.lock(number).ok_or(refused(DropReason::FragmentBusy))?;
        self.forget_late(number, &mut bucket, now);
        let is_its = |datagram: &&mut Datagram| datagram.key == *key;
        let way = match bucket
            .iter_mut()
            .position(|slot| slot.as_mut().filter(is_its).is_some())
        {
            Some(way) => way,
            None => self
                .insert(number, &mut bucket, key, now)
                .map_err(refused)?,
        };
        let slot = number * WAYS + way;
        let ticket = |datagram: &Datagram| Ticket {
            slot: slot as u32,
            serial: datagram.serial,
            ingress: key.ends.ingress,
        };
        let Some(datagram) = &mut bucket[way] else {
            return Err(refused(DropReason::Internal));
        };
        if let Phase::Dropped(reason) = datagram.phase {
            datagram.until = self.until(now);
            return Err(follow_up(reason));
        }
        if let Err(reason) = datagram.take(piece, self.bounds.pieces as usize) {
            if reason == DropReason::FragmentDuplicate {
                return Err(Refused {
                    is_news: false,
                    ..refused(reason)
                });
            }
            return Err(self.condemn(slot, datagram, reason, now));
        }
        let Phase::Accepted(first) = datagram.phase else {
            let ticket = ticket(datagram);
            if piece.start == 0 {
                let length = datagram.length();
                return Ok(Entered::First { ticket, length });
            }
            if let Err(reason) = self.frames.take(key.ends.ingress) {
                return Err(self.condemn(slot, datagram, reason, now));
            }
            datagram.held += 1;
            return Ok(Entered::Waits(ticket));
        };
        datagram.until = self.until(now);
        let follows = Entered::Follows {
            ticket: ticket(datagram),
            first,
            segment: datagram.take_segment(),
        };
        self.remove_if_done(slot, &mut bucket[way]);
        Ok(follows)
    }

    /// Asks again for a fragment that was held: whether it may follow its first now.
    ///
    /// # Errors
    /// Why it has to be dropped. If its first has not come, then the whole datagram is, from then on.
    pub fn resume(&self, ticket: &Ticket, now: Time) -> Result<Entered, Refused> {
        let gone = Refused {
            reason: DropReason::FragmentTimeout,
            is_news: false,
            first: None,
        };
        let mut bucket = self.lock(bucket_of_slot(ticket.slot)).ok_or(Refused {
            reason: DropReason::FragmentBusy,
            ..gone
        })?;
        let place = &mut bucket[ticket.slot as usize % WAYS];
        let its = place.as_mut().filter(|d| d.serial == ticket.serial);
        let datagram = its.ok_or(gone)?;
        datagram.held = datagram.held.saturating_sub(1);
        let slot = ticket.slot as usize;
        match datagram.phase {
            Phase::Undecided => Err(self.condemn(slot, datagram, DropReason::FragmentTimeout, now)),
            Phase::Dropped(reason) => Err(follow_up(reason)),
            Phase::Accepted(first) => {
                let follows = Entered::Follows {
                    ticket: *ticket,
                    first,
                    segment: datagram.take_segment(),
                };
                self.remove_if_done(slot, place);
                Ok(follows)
            }
        }
    }

    /// Tells what was decided for a datagram's first fragment. What is held of it goes on, or goes.
    pub fn decide(&self, ticket: &Ticket, decided: Result<First, DropReason>, now: Time) {
        // Should the bucket stay locked, the datagram stays undecided and is dropped with time.
        let Some(mut bucket) = self.lock(bucket_of_slot(ticket.slot)) else {
            return;
        };
        let slot = ticket.slot as usize;
        let place = &mut bucket[slot % WAYS];
        let Some(datagram) = place.as_mut().filter(|d| d.serial == ticket.serial) else {
            return;
        };
        match (decided, datagram.phase) {
            (Err(reason), _) => {
                self.condemn(slot, datagram, reason, now);
            }
            (Ok(first), Phase::Undecided) => {
                datagram.until = self.until(now);
                self.settle(slot, datagram, Phase::Accepted(first));
                self.remove_if_done(slot, place);
            }
            // A fragment that came meanwhile has condemned it.
            (Ok(_), _) => {}
        }
    }

    /// A fragment that waits cannot be held after all: its whole datagram is dropped for `reason`.
    pub fn abandon(&self, ticket: &Ticket, reason: DropReason, now: Time) {
        self.unhold(ticket);
        self.decide(ticket, Err(reason), now);
    }

    /// A frame is held no more.
    pub(super) fn unhold(&self, ticket: &Ticket) {
        self.frames.give(ticket.ingress);
    }

    /// Forgets the datagrams of an endpoint that has gone. For control, which waits for each bucket.
    pub fn forget_endpoint(&self, incarnation: Incarnation) {
        self.forget(|key| [key.ends.source, key.ends.destination].contains(&incarnation));
    }

    /// Forgets the datagrams that came in by a port that has gone, as
    /// [`Table::forget_endpoint`] does.
    pub fn forget_port(&self, port: PortId) {
        self.forget(|key| key.ends.ingress == port);
    }

    fn forget(&self, is_unwanted: impl Fn(&Key) -> bool) {
        for (number, bucket) in self.buckets.iter().enumerate() {
            // Not by the lock's own means: then a worker would have to wake whoever waits.
            let mut bucket = loop {
                match bucket.try_lock() {
                    Ok(bucket) => break bucket,
                    Err(TryLockError::Poisoned(poisoned)) => break poisoned.into_inner(),
                    Err(TryLockError::WouldBlock) => std::thread::yield_now(),
                }
            };
            for (way, place) in bucket.iter_mut().enumerate() {
                let datagram = place.as_ref();
                if datagram.is_some_and(|datagram| is_unwanted(&datagram.key)) {
                    self.remove(number * WAYS + way, place);
                }
            }
        }
    }

    /// When something that has come now has waited long enough.
    pub fn until(&self, now: Time) -> Time {
        now.plus_nanos(u64::from(self.bounds.timeout_ms) * 1_000_000)
    }

    fn bucket_of(&self, key: &Key) -> usize {
        let halves = |address: crate::Address| [(address.0 >> 64) as u64, address.0 as u64];
        let [a, b] = halves(key.source);
        let [c, d] = halves(key.destination);
        let protocol = key.protocol.map_or(0, |protocol| u64::from(protocol.0) + 1);
        let rest =
            u64::from(key.identification) << 32 | u64::from(key.ends.ingress.0) << 16 | protocol;
        let hash = keyed_hash(&[a, b, c, d], rest, self.hash_seed);
        ((u128::from(hash) * self.buckets.len() as u128) >> 64) as usize
    }

    /// A bucket, unless another worker has it for too long. A worker that has panicked leaves what it
    /// was about: each step leaves a datagram that can be judged.
    fn lock(&self, number: usize) -> Option<MutexGuard<'_, Bucket>> {
        let bucket = self.buckets.get(number)?;
        for _ in 0..TRIES {
            match bucket.try_lock() {
                Ok(bucket) => return Some(bucket),
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => spin_loop(),
            }
        }
        None
    }

    /// A new datagram, and its way in the bucket.
    fn insert(
        &self,
        number: usize,
        bucket: &mut Bucket,
        key: &Key,
        now: Time,
    ) -> Result<usize, DropReason> {
        self.sweep(now);
        let way = bucket.iter().position(Option::is_none);
        let way = way.ok_or(DropReason::FragmentTableFull)?;
        self.datagrams.take(key.ends.ingress)?;
        let serial = self.serial.fetch_add(1, Relaxed);
        bucket[way] = Some(Datagram::new(*key, serial, self.until(now)));
        self.undecided[number * WAYS + way].store(serial, Release);
        Ok(way)
    }

    /// Forgets what is late in some buckets: each new datagram looks further, so that what nobody
    /// asks for any more takes nobody's place for long.
    fn sweep(&self, now: Time) {
        let first = self.hand.fetch_add(SWEEP as u64, Relaxed) as usize;
        for number in first..first + SWEEP.min(self.buckets.len()) {
            let number = number % self.buckets.len();
            // What is busy, the caller's own bucket too, is left for the next time.
            if let Ok(mut bucket) = self.buckets[number].try_lock() {
                self.forget_late(number, &mut bucket, now);
            }
        }
    }

    fn forget_late(&self, number: usize, bucket: &mut Bucket, now: Time) {
        for (way, place) in bucket.iter_mut().enumerate() {
            if place.as_ref().is_some_and(|datagram| now >= datagram.until) {
                self.remove(number * WAYS + way, place);
            }
        }
    }

    fn remove_if_done(&self, slot: usize, place: &mut Option<Datagram>) {
        if place.as_ref().is_some_and(Datagram::is_done) {
            self.remove(slot, place);
        }
    }

    fn remove(&self, slot: usize, place: &mut Option<Datagram>) {
        if let Some(datagram) = place.take() {
            self.datagrams.give(datagram.key.ends.ingress);
            self.tell(slot, &datagram);
        }
    }

    /// Drops the datagram from now on.
    fn condemn(
        &self,
        slot: usize,
        datagram: &mut Datagram,
        reason: DropReason,
        now: Time,
    ) -> Refused {
        let first = match datagram.phase {
            Phase::Accepted(first) => Some(first),
            Phase::Undecided | Phase::Dropped(_) => None,
        };
        datagram.until = self.until(now);
        self.settle(slot, datagram, Phase::Dropped(reason));
        Refused {
            reason,
            is_news: true,
            first,
        }
    }

    fn settle(&self, slot: usize, datagram: &mut Datagram, phase: Phase) {
        datagram.phase = phase;
        self.tell(slot, datagram);
    }

    /// Lets those look who hold something of a datagram that is undecided no more.
    fn tell(&self, slot: usize, datagram: &Datagram) {
        self.undecided[slot].store(0, Release);
        if datagram.held > 0 {
            self.changes.fetch_add(1, AcqRel);
        }
    }
}

fn bucket_of_slot(slot: u32) -> usize {
    slot as usize / WAYS
}

/// What is said of the further fragments of a datagram that was dropped for `reason`: policy's doing
/// stays policy's.
fn follow_up(reason: DropReason) -> Refused {
    let reason = match reason {
        DropReason::PolicyDenied | DropReason::ConnectionDenied => DropReason::ConnectionDenied,
        DropReason::FragmentTimeout => DropReason::FragmentTimeout,
        _ => DropReason::DatagramDropped,
    };
    Refused {
        reason,
        is_news: false,
        first: None,
    }
}
