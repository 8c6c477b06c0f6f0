//! Which of an endpoint's entries may go when its share of the table is used up.
//!
//! An endpoint's entries lie anywhere in the table, and a worker cannot look through a million lines
//! for one that is closed. So whoever makes an unreplied entry or closes one notes it here, in a ring
//! that belongs to the endpoint; who needs room takes the oldest note. Notes are hints: an entry may
//! have been answered, removed or used again since, so it is looked at anew under its bucket's lock,
//! and two workers that write at the same moment may lose a note. When a ring is full the oldest note
//! goes; such an entry is still found by chance or by its time-out.

use std::sync::atomic::AtomicU64 as ProcessLocal;
use std::sync::atomic::Ordering::Relaxed;

use super::layout::fold;
use crate::snapshot::Incarnation;

/// Notes that a ring holds.
const NOTES: u64 = 128;

/// An entry, as it was when it was noted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Candidate {
    pub entry: u32,
    pub version: u16,
}

/// The rings. Endpoints of the same hash share one, and skip each other's notes.
pub(super) struct Candidates(Box<[Ring]>);

/// Its counters are read and written without read-modify-writes, which is all that hints need.
#[repr(align(64))]
struct Ring {
    noted: ProcessLocal,
    taken: ProcessLocal,
    notes: [ProcessLocal; NOTES as usize],
}

impl Candidates {
    /// Rings for so many endpoints.
    pub fn new(endpoints: u32) -> Self {
        let ring = || Ring {
            noted: ProcessLocal::new(0),
            taken: ProcessLocal::new(0),
            notes: std::array::from_fn(|_| ProcessLocal::new(0)),
        };
        let rings = endpoints.next_power_of_two();
        Candidates((0..rings).map(|_| ring()).collect())
    }

    fn ring(&self, payer: Incarnation) -> &Ring {
        let hash = fold(u64::from(payer.0), 0x9e37_79b9_7f4a_7c15) as usize;
        &self.0[hash & (self.0.len() - 1)]
    }

    /// Notes an entry of the payer's.
    pub fn note(&self, payer: Incarnation, candidate: Candidate) {
        let ring = self.ring(payer);
        let number = ring.noted.load(Relaxed);
        let note = u64::from(candidate.entry) << 32 | u64::from(candidate.version);
        ring.notes[(number % NOTES) as usize].store(note, Relaxed);
        ring.noted.store(number + 1, Relaxed);
    }

    /// Takes the oldest note of the payer's ring.
    pub fn take(&self, payer: Incarnation) -> Option<Candidate> {
        let ring = self.ring(payer);
        let noted = ring.noted.load(Relaxed);
        let number = ring.taken.load(Relaxed).max(noted.saturating_sub(NOTES));
        if number >= noted {
            return None;
        }
        ring.taken.store(number + 1, Relaxed);
        let note = ring.notes[(number % NOTES) as usize].load(Relaxed);
        Some(Candidate {
            entry: (note >> 32) as u32,
            version: note as u16,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: Incarnation = Incarnation(7);

    fn candidate(entry: u32) -> Candidate {
        Candidate { entry, version: 3 }
    }

    #[test]
    fn the_oldest_note_is_taken_first_and_once() {
        let candidates = Candidates::new(4);
        assert_eq!(candidates.take(POD), None);
        candidates.note(POD, candidate(5));
        candidates.note(POD, candidate(6));
        assert_eq!(candidates.take(POD), Some(candidate(5)));
        candidates.note(POD, candidate(7));
        assert_eq!(candidates.take(POD), Some(candidate(6)));
        assert_eq!(candidates.take(POD), Some(candidate(7)));
        assert_eq!(candidates.take(POD), None);
    }

    #[test]
    fn a_full_ring_forgets_the_oldest_notes() {
        let candidates = Candidates::new(1);
        (0..NOTES as u32 + 10).for_each(|entry| candidates.note(POD, candidate(entry)));
        let taken: Vec<u32> = std::iter::from_fn(|| candidates.take(POD))
            .map(|candidate| candidate.entry)
            .collect();
        assert_eq!(taken, (10..NOTES as u32 + 10).collect::<Vec<_>>());
    }
}
