//! What the workers' counters say of each rule: they are read once a second and whenever somebody
//! asks.
//!
//! A counter only rises. What it has counted since it was last read goes to the rule that it is of,
//! or, if it is a compound one, to each of its members: so a rule keeps what it has when a
//! combination that it was part of is gone, and a number that is given again brings nothing along.
//! A policy whose spec changes begins anew. When a rule was last hit is known to about a second:
//! that of the first reading that is higher.

use std::collections::BTreeMap;
use std::time::SystemTime;

use dataplane::counters::RuleHits;
use dataplane::policy::Compounds;
use dataplane::{CounterId, PolicyId};

use crate::lower::{Counted, Counters};

/// Who has which counter.
#[derive(Clone, Copy)]
pub struct Owners<'a> {
    /// Rules and default denials.
    pub counters: &'a Counters,
    /// Several of these.
    pub compounds: &'a Compounds,
}

/// What a rule has, or a policy's default denial.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    owner: Option<Counted>,
    hits: RuleHits,
    last: Option<SystemTime>,
}

/// The last readings of counters that follow each other, and room for the next.
#[derive(Debug, Default)]
struct Readings {
    seen: Vec<RuleHits>,
    now: Vec<RuleHits>,
}

impl Readings {
    /// Reads these counters; `read` writes them by number, from the first on.
    fn read(
        &mut self,
        numbers: std::ops::Range<u32>,
        read: impl FnOnce(CounterId, &mut [RuleHits]),
    ) {
        let count = numbers.len().max(self.seen.len());
        self.seen.resize(count, RuleHits::default());
        self.now.resize(count, RuleHits::default());
        read(CounterId(numbers.start), &mut self.now);
    }

    /// What has been counted at a place up to `now` since somebody last asked.
    fn take(&mut self, at: usize, now: RuleHits) -> RuleHits {
        if self.seen.len() <= at {
            self.seen.resize(at + 1, RuleHits::default());
        }
        let seen = std::mem::replace(&mut self.seen[at], now);
        RuleHits {
            connections: now.connections.saturating_sub(seen.connections),
            packets: now.packets.saturating_sub(seen.packets),
        }
    }
}

/// What the rules have.
#[derive(Debug, Default)]
pub struct Hits {
    /// By counter.
    marks: Vec<Mark>,
    rules: Readings,
    /// From the first compound counter on.
    compounds: Readings,
}

impl Hits {
    /// Takes what the counters say now; `read` writes as many as there is room for, from a number
    /// on.
    pub fn update(
        &mut self,
        owners: Owners<'_>,
        read: impl Fn(CounterId, &mut [RuleHits]),
        at: SystemTime,
    ) {
        let last = owners.counters.iter().last();
        let end = last.map_or(1, |(counter, _)| counter.0 + 1);
        self.rules.read(0..end, &read);
        for number in 0..self.rules.now.len() {
            let new = self.rules.take(number, self.rules.now[number]);
            self.add(owners, CounterId(number as u32), new, at);
        }
        let numbers = owners.compounds.numbers();
        self.compounds.read(numbers.clone(), &read);
        for (place, number) in numbers.enumerate() {
            let now = self.compounds.now[place];
            self.share(owners, CounterId(number), now, at);
        }
    }

    /// Adds what a compound counter has counted to each of its members.
    fn share(&mut self, owners: Owners<'_>, compound: CounterId, now: RuleHits, at: SystemTime) {
        let place = compound.0 - owners.compounds.numbers().start;
        let new = self.compounds.take(place as usize, now);
        if let Some(combination) = owners.compounds.combination(compound) {
            for member in combination.members() {
                self.add(owners, member, new, at);
            }
        }
    }

    /// Adds to what a counter's owner has, if it has one.
    fn add(&mut self, owners: Owners<'_>, counter: CounterId, new: RuleHits, at: SystemTime) {
        let number = counter.0 as usize;
        if self.marks.len() <= number {
            self.marks.resize(number + 1, Mark::default());
        }
        let owner = owners.counters.counted(counter);
        let mark = &mut self.marks[number];
        if mark.owner != owner {
            *mark = Mark {
                owner,
                ..Mark::default()
            };
        }
        if owner.is_some() && new != RuleHits::default() {
            mark.hits.connections += new.connections;
            mark.hits.packets += new.packets;
            mark.last = Some(at);
        }
    }

    /// Lets a rule begin anew; `now` reads a counter. What it had in common with others and has not
    /// been read is theirs.
    pub fn restart(
        &mut self,
        owners: Owners<'_>,
        counter: CounterId,
        now: impl Fn(CounterId) -> RuleHits,
        at: SystemTime,
    ) {
        for compound in owners.compounds.of(counter) {
            self.share(owners, compound, now(compound), at);
        }
        self.rules.take(counter.0 as usize, now(counter));
        if let Some(mark) = self.marks.get_mut(counter.0 as usize) {
            mark.hits = RuleHits::default();
            mark.last = None;
        }
    }

    /// What a counter's owner has, and when it was last hit.
    pub fn of(&self, counter: CounterId) -> (RuleHits, Option<SystemTime>) {
        match self.marks.get(counter.0 as usize) {
            Some(mark) => (mark.hits, mark.last),
            None => (RuleHits::default(), None),
        }
    }

    /// The sums by policy.
    pub fn by_policy(&self) -> BTreeMap<PolicyId, RuleHits> {
        let mut sums: BTreeMap<PolicyId, RuleHits> = BTreeMap::new();
        for mark in &self.marks {
            if let Some(owner) = mark.owner {
                let sum = sums.entry(owner.policy).or_default();
                sum.connections += mark.hits.connections;
                sum.packets += mark.hits.packets;
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests;
