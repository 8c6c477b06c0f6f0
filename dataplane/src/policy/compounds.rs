//! Counters of several rules at once.
//!
//! A packet adds to one counter for each decision, though more than one rule may have had a part in
//! it: the security group's rule that let it come so far, the `Pass` rules that it met, and what
//! decided. So every [`Combination`] that occurs has a counter of its own, a compound one, and
//! whoever reads the counters adds what it counts to each of its members.
//!
//! Bounds: there are as many compound counters as [`Compounds::new`] is given numbers. A combination
//! beyond them counts for its first member alone, and the others are known to miss hits
//! ([`Compounds::misses`]), until no chain has the combination any more.
//!
//! A number that no chain needs any more rests, and keeps its members, until the counters have been
//! read twice ([`Compounds::have_read`]). What workers count before they have newer tables so goes to
//! those who were meant, and nothing of it to whoever has the number next.

use std::collections::VecDeque;
use std::ops::Range;

use hashbrown::{HashMap, HashSet};

use crate::CounterId;

/// The most rules that have a part in one decision: a security group's, a `Pass` of the Admin tier,
/// and what decides; or, where nobody does, a `Pass` of the Baseline tier.
const MEMBERS: usize = 3;

/// The counters of the rules that have a part in one decision: of what decided, then of those that
/// let it come so far. Those without a counter are left out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Combination([CounterId; MEMBERS]);

impl Combination {
    /// Of these counters, each once, of which there are not more than [`MEMBERS`].
    pub(super) fn new(counters: impl Iterator<Item = CounterId>) -> Combination {
        let mut members = [CounterId::NONE; MEMBERS];
        let mut count = 0;
        for counter in counters.filter(|&counter| counter != CounterId::NONE) {
            if count < MEMBERS && !members.contains(&counter) {
                members[count] = counter;
                count += 1;
            }
        }
        Combination(members)
    }

    /// Its counters.
    pub fn members(self) -> impl Iterator<Item = CounterId> {
        let members = self.0.into_iter();
        members.filter(|&counter| counter != CounterId::NONE)
    }

    /// What counts where there is no compound counter; [`CounterId::NONE`] for nobody's.
    const fn first(self) -> CounterId {
        self.0[0]
    }

    /// Whether its first member's counter is all it takes.
    fn is_plain(self) -> bool {
        self.members().count() < 2
    }
}

/// Who has which compound counter.
#[derive(Debug, Default)]
pub struct Compounds {
    numbers: Range<u32>,
    /// By number, from the first of `numbers`; none where nobody has it.
    given: Vec<Option<Combination>>,
    free: VecDeque<CounterId>,
    known: HashMap<Combination, Known>,
    parts: HashMap<CounterId, Part>,
    /// What rests, and after how many readings it began to.
    resting: VecDeque<(u64, Combination)>,
    readings: u64,
    /// Combinations that there is no counter for.
    without: usize,
    /// The number of the last trial, and whether it goes on.
    trial: u64,
    on_trial: bool,
}

/// A combination that chains have, or that rests.
#[derive(Debug)]
struct Known {
    /// None if there was none left.
    counter: Option<CounterId>,
    /// How often chains have it.
    uses: u32,
    /// The trial that it came up in; 0 if in none.
    trial: u64,
    /// After how many readings it began to rest.
    rests: Option<u64>,
}

/// What a rule's counter is a member of.
#[derive(Debug, Default)]
struct Part {
    compounds: HashSet<CounterId>,
    /// Combinations that have no counter and count for another member.
    missing: usize,
}

impl Compounds {
    /// Readings that a number rests for.
    pub const READINGS: u64 = 2;

    /// Compound counters of these numbers, which are nobody else's.
    pub fn new(numbers: Range<u32>) -> Compounds {
        Compounds {
            numbers,
            ..Compounds::default()
        }
    }

    /// The counter of a combination. Whoever asks has it until he releases it.
    pub(super) fn acquire(&mut self, combination: Combination) -> CounterId {
        if combination.is_plain() {
            return combination.first();
        }
        if let Some(known) = self.known.get_mut(&combination) {
            known.uses += 1;
            known.rests = None;
            return known.counter.unwrap_or(combination.first());
        }
        let counter = self.give(combination);
        for (at, member) in combination.members().enumerate() {
            let part = self.parts.entry(member).or_default();
            part.compounds.extend(counter);
            part.missing += usize::from(at > 0 && counter.is_none());
        }
        self.without += usize::from(counter.is_none());
        let known = Known {
            counter,
            uses: 1,
            trial: if self.on_trial { self.trial } else { 0 },
            rests: None,
        };
        self.known.insert(combination, known);
        counter.unwrap_or(combination.first())
    }

    fn give(&mut self, combination: Combination) -> Option<CounterId> {
        let counter = match self.free.pop_front() {
            Some(counter) => counter,
            None if self.given.len() < self.numbers.len() => {
                self.given.push(None);
                CounterId(self.numbers.start + self.given.len() as u32 - 1)
            }
            None => return None,
        };
        let at = self.place(counter)?;
        self.given[at] = Some(combination);
        Some(counter)
    }

    /// Where a counter is in `given`, if it is a compound one that has ever been given.
    fn place(&self, counter: CounterId) -> Option<usize> {
        let place = counter.0.checked_sub(self.numbers.start)? as usize;
        (place < self.given.len()).then_some(place)
    }

    /// Takes back one [`Compounds::acquire`].
    pub(super) fn release(&mut self, combination: Combination) {
        let Some(known) = self.known.get_mut(&combination) else {
            return;
        };
        known.uses -= 1;
        if known.uses > 0 {
            return;
        }
        // What came up in this very trial no worker has seen.
        let unseen = self.on_trial && known.trial == self.trial;
        if unseen || known.counter.is_none() {
            self.forget(combination);
        } else {
            known.rests = Some(self.readings);
            self.resting.push_back((self.readings, combination));
        }
    }

    fn forget(&mut self, combination: Combination) {
        let Some(Known { counter, .. }) = self.known.remove(&combination) else {
            return;
        };
        for (at, member) in combination.members().enumerate() {
            let Some(part) = self.parts.get_mut(&member) else {
                continue;
            };
            match &counter {
                Some(counter) => {
                    part.compounds.remove(counter);
                }
                None => part.missing -= usize::from(at > 0),
            }
            if part.compounds.is_empty() && part.missing == 0 {
                self.parts.remove(&member);
            }
        }
        self.without -= usize::from(counter.is_none());
        if let Some(counter) = counter
            && let Some(at) = self.place(counter)
        {
            self.given[at] = None;
            self.free.push_back(counter);
        }
    }

    /// The counters have been read, and what they counted is with their members: numbers that have
    /// rested long enough may be given again.
    ///
    /// Between two calls lies the time that workers are given to stop counting by older tables.
    pub fn have_read(&mut self) {
        self.readings += 1;
        while let Some(&(since, combination)) = self.resting.front() {
            if since + Compounds::READINGS > self.readings {
                break;
            }
            self.resting.pop_front();
            let rests = self.known.get(&combination).and_then(|known| known.rests);
            if rests == Some(since) {
                self.forget(combination);
            }
        }
    }

    /// What is compiled from now on may never be seen by a worker: if it is released before
    /// [`Compounds::end_trial`], its numbers need no rest.
    pub fn begin_trial(&mut self) {
        self.trial += 1;
        self.on_trial = true;
    }

    /// What is compiled, workers may have seen.
    pub const fn end_trial(&mut self) {
        self.on_trial = false;
    }

    /// The numbers that have ever been given.
    pub fn numbers(&self) -> Range<u32> {
        self.numbers.start..self.numbers.start + self.given.len() as u32
    }

    /// The members of a compound counter, those of a resting one too; none if it is nobody's, or
    /// none at all.
    pub fn combination(&self, counter: CounterId) -> Option<Combination> {
        self.given[self.place(counter)?]
    }

    /// The compound counters that a rule's counter is a member of.
    pub fn of(&self, member: CounterId) -> impl Iterator<Item = CounterId> {
        let part = self.parts.get(&member).into_iter();
        part.flat_map(|part| part.compounds.iter().copied())
    }

    /// Whether some of a rule's hits are not counted for it, because there is no compound counter
    /// for them.
    pub fn misses(&self, member: CounterId) -> bool {
        let part = self.parts.get(&member);
        part.is_some_and(|part| part.missing > 0)
    }

    /// Compound counters that somebody has, resting ones too.
    pub fn in_use(&self) -> usize {
        self.given.len() - self.free.len()
    }

    /// Combinations that there is no counter for.
    pub const fn without(&self) -> usize {
        self.without
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(counters: &[u32]) -> Combination {
        Combination::new(counters.iter().copied().map(CounterId))
    }

    fn members(compounds: &Compounds, counter: CounterId) -> Vec<u32> {
        let combination = compounds.combination(counter);
        let members = combination.into_iter().flat_map(Combination::members);
        members.map(|counter| counter.0).collect()
    }

    #[test]
    fn one_member_needs_no_compound_and_equal_combinations_share_one() {
        let mut compounds = Compounds::new(100..102);
        assert_eq!(compounds.acquire(of(&[])), CounterId::NONE);
        assert_eq!(compounds.acquire(of(&[0, 7, 0])), CounterId(7));
        assert_eq!(compounds.in_use(), 0);
        let both = compounds.acquire(of(&[7, 0, 8]));
        assert_eq!(both, CounterId(100));
        assert_eq!(compounds.acquire(of(&[7, 8])), both);
        assert_eq!(members(&compounds, both), [7, 8]);
        assert_eq!(compounds.of(CounterId(8)).collect::<Vec<_>>(), [both]);
        assert_eq!(compounds.numbers(), 100..101);
        assert_eq!(members(&compounds, CounterId(7)), [] as [u32; 0]);
        assert_eq!(members(&compounds, CounterId(101)), [] as [u32; 0]);
    }

    #[test]
    fn beyond_the_bound_the_first_member_counts_and_the_others_are_known_to_miss_hits() {
        let mut compounds = Compounds::new(100..101);
        compounds.acquire(of(&[1, 2]));
        assert_eq!(compounds.acquire(of(&[3, 2, 4])), CounterId(3));
        assert_eq!(compounds.acquire(of(&[3, 2, 4])), CounterId(3));
        assert_eq!(compounds.without(), 1);
        let misses = |compounds: &Compounds| [1, 2, 3, 4].map(|n| compounds.misses(CounterId(n)));
        assert_eq!(misses(&compounds), [false, true, false, true]);
        compounds.release(of(&[3, 2, 4]));
        assert_eq!(misses(&compounds), [false, true, false, true]);
        compounds.release(of(&[3, 2, 4]));
        assert_eq!(misses(&compounds), [false; 4]);
        assert_eq!((compounds.without(), compounds.in_use()), (0, 1));
        // Without any numbers, too.
        let mut none = Compounds::default();
        assert_eq!(none.acquire(of(&[1, 2])), CounterId(1));
        assert!(none.misses(CounterId(2)));
    }

    #[test]
    fn a_number_rests_with_its_members_until_it_was_read_twice() {
        let mut compounds = Compounds::new(100..110);
        let first = compounds.acquire(of(&[1, 2]));
        compounds.release(of(&[1, 2]));
        compounds.have_read();
        assert_eq!(members(&compounds, first), [1, 2]);
        assert_ne!(compounds.acquire(of(&[3, 4])), first);
        // Back before anybody else has it: the same number, and it does not go.
        assert_eq!(compounds.acquire(of(&[1, 2])), first);
        for _ in 0..4 {
            compounds.have_read();
        }
        assert_eq!(members(&compounds, first), [1, 2]);
        compounds.release(of(&[1, 2]));
        compounds.have_read();
        compounds.have_read();
        assert_eq!(members(&compounds, first), [] as [u32; 0]);
        assert_eq!(compounds.of(CounterId(1)).count(), 0);
        assert_eq!(compounds.acquire(of(&[5, 6])), first);
        assert_eq!(compounds.in_use(), 2);
    }

    #[test]
    fn what_only_a_trial_had_is_free_at_once() {
        let mut compounds = Compounds::new(100..101);
        let kept = compounds.acquire(of(&[1, 2]));
        compounds.begin_trial();
        compounds.release(of(&[1, 2]));
        assert_eq!(members(&compounds, kept), [1, 2], "workers have seen it");
        compounds.end_trial();
        compounds.have_read();
        compounds.have_read();
        compounds.begin_trial();
        compounds.acquire(of(&[3, 4]));
        compounds.release(of(&[3, 4]));
        assert_eq!(compounds.in_use(), 0);
        compounds.acquire(of(&[5, 6]));
        compounds.end_trial();
        compounds.release(of(&[5, 6]));
        assert_eq!(compounds.in_use(), 1, "the trial was for good");
    }
}
