//! Publication: one writer, many readers that acknowledge what they have adopted.
//!
//! A reader adopts the newest snapshot between bursts and then acknowledges its generation. The
//! writer keeps every snapshot that some reader still uses ([`Retired`]), so that a reader's own
//! reference is never the last: freeing a large table never happens on a worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use crossbeam_utils::CachePadded;

use super::{Generation, Snapshot};

/// The place where the newest snapshot stands.
#[derive(Debug)]
pub struct SnapshotCell {
    current: ArcSwap<Snapshot>,
    /// Generation of `current`, so that readers see by one load that nothing changed.
    published: CachePadded<AtomicU64>,
    acknowledged: Box<[CachePadded<AtomicU64>]>,
    /// The generation that the writer sleeps for; 0 while it does not.
    awaited: CachePadded<AtomicU64>,
    /// The writer's thread, since it has slept for the first time.
    writer: ArcSwapOption<Thread>,
}

/// How long the writer looks, yielding, before it sleeps: a worker that runs answers within a burst,
/// one that sleeps within some tens of microseconds. To be woken itself would cost the writer more.
const LOOK: Duration = Duration::from_micros(200);

/// Not every reader acknowledged in time.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "generation {} is live on {live} of {readers} workers only: the others did not answer in \
     {waited:?}", .generation.0
)]
pub struct NotAcknowledged {
    /// What was waited for.
    pub generation: Generation,
    /// Readers that have it.
    pub live: usize,
    /// Readers there are.
    pub readers: usize,
    /// How long the writer waited.
    pub waited: Duration,
}

impl SnapshotCell {
    /// A cell that holds `first`, with `readers` readers that have acknowledged nothing yet.
    pub fn new(first: Arc<Snapshot>, readers: usize) -> SnapshotCell {
        SnapshotCell {
            published: CachePadded::new(AtomicU64::new(first.generation().0)),
            current: ArcSwap::new(first),
            acknowledged: (0..readers)
                .map(|_| CachePadded::new(AtomicU64::new(0)))
                .collect(),
            awaited: CachePadded::new(AtomicU64::new(0)),
            writer: ArcSwapOption::empty(),
        }
    }

    /// Puts `snapshot` where readers find it. The one writer calls this, and keeps the returned
    /// predecessor while a reader may use it: [`Retired`].
    pub fn publish(&self, snapshot: Arc<Snapshot>) -> Arc<Snapshot> {
        let generation = snapshot.generation().0;
        let previous = self.current.swap(snapshot);
        self.published.store(generation, Ordering::Release);
        previous
    }

    /// The newest snapshot.
    pub fn load(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// The generation that every reader has adopted; that of the newest if there are no readers.
    pub fn acknowledged(&self) -> Generation {
        let oldest = self
            .acknowledged
            .iter()
            .map(|word| word.load(Ordering::Acquire))
            .min();
        Generation(oldest.unwrap_or_else(|| self.published.load(Ordering::Acquire)))
    }

    /// The generation that each reader has adopted, by number.
    pub fn adopted(&self) -> Vec<Generation> {
        let words = self.acknowledged.iter();
        words
            .map(|word| Generation(word.load(Ordering::Acquire)))
            .collect()
    }

    /// How many readers have adopted `generation` or a later one.
    pub fn live(&self, generation: Generation) -> usize {
        self.acknowledged
            .iter()
            .filter(|w| w.load(Ordering::Acquire) >= generation.0)
            .count()
    }

    /// How many readers there are.
    pub fn readers(&self) -> usize {
        self.acknowledged.len()
    }

    /// Waits until every reader has adopted `generation`. The one writer calls this. It looks for a
    /// moment, then leaves its core to the readers and sleeps until the last of them wakes it.
    ///
    /// # Errors
    /// If that takes longer than `patience`.
    pub fn wait(
        &self,
        generation: Generation,
        patience: Duration,
    ) -> Result<Duration, NotAcknowledged> {
        let start = Instant::now();
        loop {
            let live = self.live(generation);
            let waited = start.elapsed();
            if live == self.readers() {
                self.awaited.store(0, Ordering::Relaxed);
                return Ok(waited);
            }
            if waited > patience {
                self.awaited.store(0, Ordering::Relaxed);
                return Err(NotAcknowledged {
                    generation,
                    live,
                    readers: self.readers(),
                    waited,
                });
            }
            if waited < LOOK {
                thread::yield_now();
            } else if self.awaited.load(Ordering::Relaxed) != generation.0 {
                self.announce_sleep(generation);
                // And once more around: a reader may have answered before it could see that.
            } else {
                thread::park_timeout(patience - waited);
            }
        }
    }

    /// From here on the reader that completes `generation` wakes this thread.
    fn announce_sleep(&self, generation: Generation) {
        let this = thread::current();
        let known = self.writer.load();
        if known.as_ref().is_none_or(|known| known.id() != this.id()) {
            self.writer.store(Some(Arc::new(this)));
        }
        self.awaited.store(generation.0, Ordering::Relaxed);
        // Pairs with the one in `wake_writer`: the writer's next look sees the acknowledgement, or
        // the reader sees that the writer sleeps.
        fence(Ordering::SeqCst);
    }

    /// Wakes the writer if it sleeps for this acknowledgement, the last one.
    fn wake_writer(&self) {
        fence(Ordering::SeqCst);
        let awaited = self.awaited.load(Ordering::Relaxed);
        if awaited != 0
            && self.acknowledged().0 >= awaited
            && let Some(writer) = &*self.writer.load()
        {
            writer.unpark();
        }
    }

    /// Reader number `index`. There must be one per number; more would hide each other's delay.
    pub fn reader(self: &Arc<Self>, index: usize) -> SnapshotReader {
        SnapshotReader {
            current: self.load(),
            cell: Arc::clone(self),
            index,
        }
    }
}

/// Snapshots that are no longer the newest, while some reader uses them.
#[derive(Debug, Default)]
pub struct Retired(Vec<Arc<Snapshot>>);

impl Retired {
    /// Keeps one more.
    pub fn keep(&mut self, snapshot: Arc<Snapshot>) {
        self.sweep();
        self.0.push(snapshot);
    }

    /// Frees those that no reader uses. Nobody can take one up again that is not the newest, and a
    /// reader holds one at a time: however many publications a stuck reader misses, there stay at
    /// most as many as there are readers, and what others hold.
    pub fn sweep(&mut self) {
        self.0.retain(|snapshot| Arc::strong_count(snapshot) > 1);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// One reader: a worker's view.
#[derive(Debug)]
pub struct SnapshotReader {
    cell: Arc<SnapshotCell>,
    current: Arc<Snapshot>,
    index: usize,
}

impl SnapshotReader {
    /// Adopts the newest snapshot and acknowledges it. Call between bursts only, when nothing that
    /// was decided under the old one is still to be carried out.
    pub fn refresh(&mut self) -> &Arc<Snapshot> {
        let acknowledged = self.cell.acknowledged.get(self.index);
        let published = self.cell.published.load(Ordering::Acquire);
        if published != self.current.generation().0 {
            // The writer holds the one we let go here until the acknowledgement below.
            self.current = self.cell.load();
        }
        if let Some(word) = acknowledged {
            let generation = self.current.generation().0;
            if word.load(Ordering::Relaxed) != generation {
                word.store(generation, Ordering::Release);
                self.cell.wake_writer();
            }
        }
        &self.current
    }

    /// Whether [`SnapshotReader::refresh`] would change nothing.
    pub fn is_current(&self) -> bool {
        self.cell.published.load(Ordering::Acquire) == self.current.generation().0
    }

    /// What was adopted last.
    pub fn current(&self) -> &Arc<Snapshot> {
        &self.current
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Endpoint, EndpointSlot, Epoch, Incarnation, Parts, Port, PortId, Role};
    use crate::{Address, Mac};
    use std::sync::atomic::AtomicBool;

    fn snapshot(generation: u64) -> Arc<Snapshot> {
        let parts = Parts {
            generation: Generation(generation),
            ..Parts::default()
        };
        Arc::new(Snapshot::build(parts).unwrap())
    }

    #[test]
    fn a_generation_is_acknowledged_when_the_slowest_reader_has_adopted_it() {
        let cell = Arc::new(SnapshotCell::new(snapshot(1), 2));
        let (mut fast, mut slow) = (cell.reader(0), cell.reader(1));
        fast.refresh();
        assert_eq!(cell.acknowledged(), Generation(0));
        slow.refresh();
        assert_eq!(cell.acknowledged(), Generation(1));
        cell.publish(snapshot(2));
        assert_eq!(fast.refresh().generation(), Generation(2));
        assert_eq!(
            (cell.acknowledged(), cell.live(Generation(2))),
            (Generation(1), 1)
        );
        let late = cell
            .wait(Generation(2), Duration::from_millis(1))
            .unwrap_err();
        assert_eq!((late.live, late.readers), (1, 2));
        slow.refresh();
        assert!(cell.wait(Generation(2), Duration::ZERO).is_ok());
    }

    #[test]
    fn a_sleeping_writer_is_woken_by_the_last_reader() {
        let cell = Arc::new(SnapshotCell::new(snapshot(1), 2));
        let mut readers = [cell.reader(0), cell.reader(1)];
        cell.publish(snapshot(2));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| cell.wait(Generation(2), Duration::from_secs(600)));
            for reader in &mut readers {
                while cell.awaited.load(Ordering::Relaxed) == 0 {
                    std::thread::yield_now();
                }
                assert!(!waiting.is_finished());
                reader.refresh();
            }
            assert!(waiting.join().unwrap().is_ok());
        });
        assert_eq!(cell.awaited.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_stuck_reader_keeps_one_snapshot_however_many_it_misses() {
        let cell = Arc::new(SnapshotCell::new(snapshot(1), 2));
        let (mut stuck, mut lively) = (cell.reader(0), cell.reader(1));
        let mut retired = Retired::default();
        stuck.refresh();
        for generation in 2..1000 {
            retired.keep(cell.publish(snapshot(generation)));
            lively.refresh();
            // The stuck one's, and what the lively one has just left.
            assert!(retired.count() <= 2);
            assert_eq!(stuck.current().generation(), Generation(1));
        }
        stuck.refresh();
        retired.sweep();
        assert_eq!(retired.count(), 0);
    }

    #[test]
    fn readers_never_hold_the_last_reference() {
        let cell = Arc::new(SnapshotCell::new(snapshot(1), 2));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for index in 0..2 {
                let mut reader = cell.reader(index);
                let stop = &stop;
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        reader.refresh();
                    }
                });
            }
            for generation in 2..300 {
                let previous = cell.publish(snapshot(generation));
                cell.wait(Generation(generation), Duration::from_secs(10))
                    .unwrap();
                // All have moved on: ours is the only reference, so freeing it is ours too.
                assert_eq!(Arc::strong_count(&previous), 1);
            }
            stop.store(true, Ordering::Relaxed);
        });
    }

    /// The writer waits for nobody, and frees what it takes to be unused, while readers and somebody
    /// who asks now and then read what they hold.
    #[test]
    fn what_somebody_reads_is_not_freed() {
        const READERS: usize = 2;
        let cell = Arc::new(SnapshotCell::new(numbered(1), READERS));
        let stop = AtomicBool::new(false);
        let (mut retired, mut most) = (Retired::default(), 0);
        std::thread::scope(|scope| {
            let until_stop = |mut look: Box<dyn FnMut() -> Generation + Send>| {
                let stop = &stop;
                scope.spawn(move || {
                    let mut last = Generation(0);
                    while !stop.load(Ordering::Relaxed) {
                        let seen = look();
                        assert!(seen >= last);
                        last = seen;
                    }
                });
            };
            for index in 0..READERS {
                let mut reader = cell.reader(index);
                until_stop(Box::new(move || check(reader.refresh())));
            }
            let asks = Arc::clone(&cell);
            until_stop(Box::new(move || {
                let snapshot = asks.load();
                assert!(asks.acknowledged() <= asks.load().generation());
                check(&snapshot)
            }));
            for generation in 2..3000 {
                retired.keep(cell.publish(numbered(generation)));
                most = most.max(retired.count());
            }
            stop.store(true, Ordering::Relaxed);
        });
        // A reader that adopts holds two, who asks holds two, and one has just been added.
        assert!(most <= 2 * READERS + 2 + 1, "{most}");
        retired.sweep();
        assert_eq!(retired.count(), 0);
    }

    /// A snapshot whose content says its generation.
    fn numbered(generation: u64) -> Arc<Snapshot> {
        let endpoint = Endpoint {
            slot: EndpointSlot(0),
            incarnation: Incarnation(1),
            port: PortId::FIRST_FREE,
            mac: Mac([2, 0, 0, 0, 0, 2]),
            addresses: [Address::v4(generation as u32)].into_iter().collect(),
        };
        let port = Port {
            id: PortId::FIRST_FREE,
            role: Role::Pod,
            mac: Mac([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            is_virtual: true,
            icmp_source_v4: None,
            icmp_source_v6: None,
            endpoint: Some(EndpointSlot(0)),
            peer_mac: None,
        };
        let parts = Parts {
            generation: Generation(generation),
            ports: vec![port],
            endpoints: vec![endpoint],
            epochs: vec![Epoch(generation as u32)],
            ..Parts::default()
        };
        Arc::new(Snapshot::build(parts).unwrap())
    }

    fn check(snapshot: &Snapshot) -> Generation {
        let generation = snapshot.generation();
        let endpoint = snapshot.endpoint(EndpointSlot(0)).unwrap();
        let address = Address::v4(generation.0 as u32);
        assert_eq!(endpoint.addresses.as_slice(), [address]);
        assert_eq!(snapshot.epoch(EndpointSlot(0)), Epoch::from(generation));
        generation
    }
}
