//! The numbers of the counters in which workers count what rules match.
//!
//! A policy has a counter for each rule, and one for what it drops by default, in each direction it
//! speaks of. They stay its own as long as it exists. Afterwards they rest until they have been read
//! twice, so that what workers still count by older tables is nobody else's; then they are given out
//! again, those that have been free longest first. Beyond the limit rules share
//! [`CounterId::NONE`].

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use dataplane::policy::Compounds;
use dataplane::{CounterId, Direction, PolicyId};

/// What a counter counts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Counted {
    /// The policy.
    pub policy: PolicyId,
    /// The direction.
    pub direction: Direction,
    /// The rule's index; none for what is dropped by default.
    pub rule: Option<u16>,
}

/// Who has which counter.
#[derive(Debug)]
pub struct Counters {
    limit: u32,
    /// What each counter is of, by number; that of [`CounterId::NONE`] is nobody's.
    counted: Vec<Option<Counted>>,
    free: VecDeque<CounterId>,
    /// What rests, and after how many readings it began to.
    resting: VecDeque<(u64, CounterId)>,
    readings: u64,
    of: HashMap<PolicyId, Owned>,
    /// Those whose policies may be gone.
    leaving: Vec<PolicyId>,
}

/// A policy's counters.
#[derive(Clone, Debug, Default)]
struct Owned {
    /// The policy exists.
    present: bool,
    directions: [PerDirection; 2],
    /// Rules that there was no counter for.
    without: usize,
}

#[derive(Clone, Debug, Default)]
struct PerDirection {
    by_default: Option<CounterId>,
    rules: Vec<CounterId>,
}

impl Counters {
    /// Counters numbered below `limit`.
    pub fn new(limit: u32) -> Counters {
        Counters {
            limit,
            counted: vec![None],
            free: VecDeque::new(),
            resting: VecDeque::new(),
            readings: 0,
            of: HashMap::new(),
            leaving: Vec::new(),
        }
    }

    /// Makes sure that a policy has counters for so many rules in a direction, and one for default
    /// denials if it `isolates`. What it has it keeps.
    pub fn claim(&mut self, policy: PolicyId, direction: Direction, isolates: bool, rules: usize) {
        let mut owned = self.of.remove(&policy).unwrap_or_default();
        owned.present = true;
        let mut own = std::mem::take(&mut owned.directions[direction as usize]);
        let counted = |rule| Counted {
            policy,
            direction,
            rule,
        };
        if isolates && own.by_default.is_none() {
            own.by_default = self.give(counted(None));
            owned.without += usize::from(own.by_default.is_none());
        }
        // Rules beyond the last index share it.
        for index in own.rules.len()..rules.min(usize::from(u16::MAX) + 1) {
            let counter = self.give(counted(Some(index as u16)));
            owned.without += usize::from(counter.is_none());
            own.rules.push(counter.unwrap_or(CounterId::NONE));
        }
        owned.directions[direction as usize] = own;
        self.of.insert(policy, owned);
    }

    fn give(&mut self, counted: Counted) -> Option<CounterId> {
        if let Some(counter) = self.free.pop_front() {
            self.counted[counter.0 as usize] = Some(counted);
            return Some(counter);
        }
        let next = self.counted.len() as u32;
        if next >= self.limit {
            return None;
        }
        self.counted.push(Some(counted));
        Some(CounterId(next))
    }

    /// The counter of a rule.
    pub fn rule(&self, policy: PolicyId, direction: Direction, index: u16) -> CounterId {
        let owned = self.of.get(&policy);
        let rules = owned.map(|owned| &owned.directions[direction as usize].rules);
        let counter = rules.and_then(|rules| rules.get(usize::from(index)));
        counter.copied().unwrap_or(CounterId::NONE)
    }

    /// The counter of what a policy drops by default.
    pub fn by_default(&self, policy: PolicyId, direction: Direction) -> CounterId {
        let owned = self.of.get(&policy);
        let counter = owned.and_then(|owned| owned.directions[direction as usize].by_default);
        counter.unwrap_or(CounterId::NONE)
    }

    /// The policy is gone. Its counters stay its own until [`Counters::keep`] or
    /// [`Counters::take_back`]: it may turn out that it is not.
    pub fn leave(&mut self, policy: PolicyId) {
        if let Some(owned) = self.of.get_mut(&policy) {
            owned.present = false;
            self.leaving.push(policy);
        }
    }

    /// Gives up the counters of the policies that have left and not come back.
    pub fn keep(&mut self) {
        let gone = self.give_up();
        let since = self.readings;
        self.resting
            .extend(gone.into_iter().map(|counter| (since, counter)));
    }

    /// The same where no worker has ever seen these policies: what they had is free at once.
    pub fn take_back(&mut self) {
        let gone = self.give_up();
        self.free.extend(gone);
    }

    /// The counters have been read: those that have rested long enough are free.
    pub fn have_read(&mut self) {
        self.readings += 1;
        while let Some(&(since, counter)) = self.resting.front() {
            // As long as compound ones, so that none of these has a member that is another's.
            if since + Compounds::READINGS > self.readings {
                break;
            }
            self.resting.pop_front();
            self.free.push_back(counter);
        }
    }

    fn give_up(&mut self) -> Vec<CounterId> {
        let mut gone = Vec::new();
        for policy in std::mem::take(&mut self.leaving) {
            let Entry::Occupied(owned) = self.of.entry(policy) else {
                continue;
            };
            if owned.get().present {
                continue;
            }
            let owned = owned.remove();
            for own in owned.directions {
                let counters = own.by_default.into_iter().chain(own.rules);
                for counter in counters.filter(|counter| *counter != CounterId::NONE) {
                    self.counted[counter.0 as usize] = None;
                    gone.push(counter);
                }
            }
        }
        gone
    }

    /// What a counter counts.
    pub fn counted(&self, counter: CounterId) -> Option<Counted> {
        *self.counted.get(counter.0 as usize)?
    }

    /// Every counter that is in use, with what it counts.
    pub fn iter(&self) -> impl Iterator<Item = (CounterId, Counted)> {
        let numbered = (0..).map(CounterId).zip(&self.counted);
        numbered.filter_map(|(counter, counted)| Some((counter, (*counted)?)))
    }

    /// All counters of a policy, with the rule that each is of, by direction and rule.
    pub fn of(&self, policy: PolicyId) -> Vec<(CounterId, Counted)> {
        let Some(owned) = self.of.get(&policy) else {
            return Vec::new();
        };
        let all = owned.directions.iter().flat_map(|own| {
            let rules = own.rules.iter().copied();
            own.by_default.into_iter().chain(rules)
        });
        all.filter_map(|counter| Some((counter, self.counted(counter)?)))
            .collect()
    }

    /// Rules and default denials that there is no counter for: the limit is reached.
    pub fn without(&self) -> usize {
        self.of.values().map(|owned| owned.without).sum()
    }
}
