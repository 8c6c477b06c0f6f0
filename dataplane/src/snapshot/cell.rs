//! Publication: one writer, many readers that acknowledge what they have adopted.
//!
//! A reader adopts the newest snapshot between bursts and then acknowledges its generation. The
//! writer keeps every snapshot until all readers have acknowledged a later one, so that a reader's
//! own reference is never the last: freeing a large table never happens on a worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use crossbeam_utils::CachePadded;

use super::{Generation, Snapshot};

/// The place where the newest snapshot stands.
#[derive(Debug)]
pub struct SnapshotCell {
    current: ArcSwap<Snapshot>,
    /// Generation of `current`, so that readers see by one load that nothing changed.
    published: CachePadded<AtomicU64>,
    acknowledged: Box<[CachePadded<AtomicU64>]>,
}

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
        }
    }

    /// Puts `snapshot` where readers find it. The one writer calls this, and keeps the returned
    /// predecessor until [`SnapshotCell::acknowledged`] reaches the new generation.
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

    /// Waits until every reader has adopted `generation`: first yielding, then in short sleeps.
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
                return Ok(waited);
            }
            if waited > patience {
                return Err(NotAcknowledged {
                    generation,
                    live,
                    readers: self.readers(),
                    waited,
                });
            }
            if waited < Duration::from_micros(200) {
                std::thread::yield_now();
            } else {
                std::thread::sleep(Duration::from_micros(50));
            }
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
    use crate::snapshot::Parts;
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
}
