//! What rules have decided: the workers' counters, read once a second and whenever somebody asks.
//!
//! A counter belongs to a rule as long as its policy exists; then it is given to another. So each
//! has a base, what it had counted when it last belonged to nobody, and what counts is the rest.
//! A policy whose spec changes begins anew. When a rule was last hit is known to about a second:
//! that of the first reading that is higher.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use dataplane::counters::RuleHits;
use dataplane::{CounterId, Direction, PolicyId, Tier, Verdict};

use super::plane::Plane;
use super::server::refused;
use super::state::Daemon;
use crate::cluster::{Event, EventKind};
use crate::flow::time_text;
use crate::lower::{Counted, Counters, PolicyRules};
use crate::objects::{Key, Object, kinds};
use crate::protocol::{
    ErrorObject, HitsParams, HitsReply, PodPoliciesParams, PodPoliciesReply, PodPolicy, PolicyHits,
    Reason, RuleHit,
};

/// How often the counters are read.
const EVERY: Duration = Duration::from_secs(1);

/// What is known of a counter.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    owner: Option<Counted>,
    base: RuleHits,
    seen: RuleHits,
    last: Option<SystemTime>,
}

impl Mark {
    /// Begins anew: what is counted so far is somebody else's.
    fn restart(&mut self, now: RuleHits) {
        self.base = now;
        self.seen = now;
        self.last = None;
    }

    fn hits(&self) -> RuleHits {
        RuleHits {
            connections: self.seen.connections.saturating_sub(self.base.connections),
            packets: self.seen.packets.saturating_sub(self.base.packets),
        }
    }
}

/// The counters' readings.
#[derive(Debug)]
pub struct Hits {
    marks: Vec<Mark>,
    readings: Vec<RuleHits>,
    read: Instant,
}

impl Hits {
    /// Nothing is read yet.
    pub fn new(now: Instant) -> Hits {
        Hits {
            marks: Vec::new(),
            readings: Vec::new(),
            read: now,
        }
    }

    /// Takes what the counters say now; `read` writes it by number.
    pub fn update(
        &mut self,
        counters: &Counters,
        read: impl FnOnce(&mut [RuleHits]),
        at: SystemTime,
    ) {
        let last = counters.iter().last();
        let count = last.map_or(1, |(counter, _)| counter.0 as usize + 1);
        let count = count.max(self.marks.len());
        self.marks.resize(count, Mark::default());
        self.readings.resize(count, RuleHits::default());
        read(&mut self.readings);
        for ((number, mark), now) in (0..).zip(&mut self.marks).zip(&self.readings) {
            let owner = counters.counted(CounterId(number));
            if mark.owner != owner {
                // What was free has counted nothing since: its first owner's hits are all there.
                if mark.owner.is_some() {
                    mark.restart(*now);
                }
                mark.owner = owner;
                mark.last = None;
            }
            if owner.is_none() {
                mark.restart(*now);
            } else if *now != mark.seen {
                mark.seen = *now;
                mark.last = Some(at);
            }
        }
    }

    /// Lets a counter begin anew at what it says now.
    pub fn restart(&mut self, counter: CounterId, now: RuleHits) {
        if let Some(mark) = self.marks.get_mut(counter.0 as usize) {
            mark.restart(now);
        }
    }

    /// What a counter's owner has decided, and when it last did.
    pub fn of(&self, counter: CounterId) -> (RuleHits, Option<SystemTime>) {
        match self.marks.get(counter.0 as usize) {
            Some(mark) => (mark.hits(), mark.last),
            None => (RuleHits::default(), None),
        }
    }

    /// The sums by policy.
    pub fn by_policy(&self) -> BTreeMap<PolicyId, RuleHits> {
        let mut sums: BTreeMap<PolicyId, RuleHits> = BTreeMap::new();
        for mark in &self.marks {
            if let Some(owner) = mark.owner {
                let (sum, hits) = (sums.entry(owner.policy).or_default(), mark.hits());
                sum.connections += hits.connections;
                sum.packets += hits.packets;
            }
        }
        sums
    }
}

/// Decisions that the workers have told of, since the start.
#[derive(Debug, Default)]
pub struct Tallies {
    /// Flows denied, by tier and direction.
    denied: BTreeMap<(Tier, Direction), u64>,
    /// Flows that a policy in audit mode would deny, and would allow.
    audited: BTreeMap<PolicyId, [u64; 2]>,
}

impl Tallies {
    /// A flow was denied.
    pub fn deny(&mut self, verdict: Verdict) {
        let provenance = verdict.provenance;
        let key = (provenance.tier, provenance.direction);
        *self.denied.entry(key).or_default() += 1;
    }

    /// A flow would have been decided otherwise.
    pub fn audit(&mut self, would: Verdict) {
        if let Some(policy) = would.provenance.policy {
            self.audited.entry(policy).or_default()[usize::from(would.accept)] += 1;
        }
    }

    /// Flows denied by a tier in a direction.
    pub fn denied(&self, tier: Tier, direction: Direction) -> u64 {
        self.denied.get(&(tier, direction)).copied().unwrap_or(0)
    }

    /// By policy: flows that it would have denied, and would have allowed.
    pub fn audited(&self) -> impl Iterator<Item = (PolicyId, [u64; 2])> {
        self.audited
            .iter()
            .map(|(policy, counts)| (*policy, *counts))
    }
}

impl<P: Plane> Daemon<P> {
    /// Reads the counters if it is time.
    pub(super) fn follow_hits(&mut self) {
        if self.hits.read.elapsed() >= EVERY {
            self.read_hits();
        }
    }

    fn read_hits(&mut self) {
        let plane = &self.plane;
        let read = |readings: &mut [RuleHits]| plane.rule_hits(readings);
        let counters = self.policies.counters();
        self.hits.update(counters, read, SystemTime::now());
        self.hits.read = Instant::now();
    }

    /// Lets the counters of policies whose spec has changed begin anew.
    pub(super) fn restart_hits(&mut self, events: &[Event]) {
        for event in events {
            let changed = event.kind == EventKind::Modified
                && event
                    .old
                    .as_ref()
                    .is_some_and(|old| old.generation() != event.object.generation());
            if !changed {
                continue;
            }
            let Some(rules) = self.policies.rules_of(event.object.key()) else {
                continue;
            };
            for (counter, _) in self.policies.counters().of(rules.policy) {
                self.hits.restart(counter, self.plane.hits_of(counter));
            }
        }
    }

    /// Answers `hits`.
    pub(super) fn list_hits(&mut self, params: &HitsParams) -> Result<HitsReply, ErrorObject> {
        self.read_hits();
        let unknown = |kind: &String| {
            let message = format!("{kind:?} is no kind of policy");
            refused(Reason::NotFound, message)
        };
        let kinds = kinds::KINDS.iter().filter(|kind| {
            let wanted = params.kind.as_deref();
            wanted.is_none_or(|wanted| wanted == kind.kind)
        });
        let mut policies = Vec::new();
        let mut known = false;
        for kind in kinds {
            known = true;
            let named = params.name.as_deref().map(|name| {
                let namespace = params.namespace.as_deref().unwrap_or_default();
                Key::new(kind, namespace, name)
            });
            match named {
                Some(key) => {
                    policies.extend(self.cluster.get(&key).and_then(|o| self.hits_of(o, true)))
                }
                None => {
                    let all = self.cluster.list(kind);
                    policies.extend(all.filter_map(|object| self.hits_of(object, false)));
                }
            }
        }
        if let (Some(kind), false) = (&params.kind, known) {
            return Err(unknown(kind));
        }
        Ok(HitsReply {
            policies,
            without_counter: self.policies.counters().without() as u64,
        })
    }

    /// A policy's hits; none of an object that is no policy. Whom it is about takes a look at every
    /// pod, and is told only where one policy is asked for.
    fn hits_of(&self, object: &Object, with_pods: bool) -> Option<PolicyHits> {
        let PolicyRules { audit, rules, .. } = self.policies.rules_of(object.key())?;
        let rules = rules.iter().map(|rule| {
            let (hits, last) = self.hits.of(rule.counter);
            let counts = |number: u64| if rule.is_counted { number } else { 0 };
            RuleHit {
                direction: rule.direction.into(),
                rule: rule.rule,
                is_counted: rule.is_counted,
                connections: counts(hits.connections),
                packets: counts(hits.packets),
                last_hit: last.filter(|_| rule.is_counted).map(time_text),
            }
        });
        let namespace = object.namespace();
        Some(PolicyHits {
            kind: object.kind().kind.to_owned(),
            namespace: (!namespace.is_empty()).then(|| namespace.to_owned()),
            name: object.name().to_owned(),
            audit,
            pods: if with_pods {
                self.policies.subjects_of(object.key())
            } else {
                Vec::new()
            },
            rules: rules.collect(),
        })
    }

    /// Answers `pod.policies`.
    pub(super) fn pod_policies(&self, params: &PodPoliciesParams) -> PodPoliciesReply {
        let about = self
            .policies
            .policies_about(&params.namespace, &params.name)
            .unwrap_or_default();
        let policies = about.into_iter().map(|(name, audit)| PodPolicy {
            kind: name.kind.to_owned(),
            namespace: (!name.namespace.is_empty()).then(|| name.namespace.clone()),
            name: name.name.clone(),
            audit,
        });
        PodPoliciesReply {
            policies: policies.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: PolicyId = PolicyId(1);
    const SECOND: PolicyId = PolicyId(2);

    fn set(packets: u64) -> impl FnOnce(&mut [RuleHits]) {
        move |readings| {
            for reading in readings {
                reading.packets = packets;
                reading.connections = packets / 2;
            }
        }
    }

    #[test]
    fn a_counter_that_is_given_away_begins_anew_and_nothing_is_lost_in_between() {
        let mut counters = Counters::new(100);
        let mut hits = Hits::new(Instant::now());
        let at = |second| SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        counters.claim(FIRST, Direction::Ingress, false, 1);
        let counter = counters.rule(FIRST, Direction::Ingress, 0);
        // Hit before it was ever looked at.
        hits.update(&counters, set(4), at(1));
        let (seen, last) = hits.of(counter);
        assert_eq!((seen.connections, seen.packets, last), (2, 4, Some(at(1))));
        hits.update(&counters, set(4), at(2));
        assert_eq!(hits.of(counter).1, Some(at(1)), "no hit since");
        hits.update(&counters, set(10), at(3));
        assert_eq!(
            (hits.of(counter).0.packets, hits.of(counter).1),
            (10, Some(at(3)))
        );
        counters.leave(FIRST);
        counters.keep();
        hits.update(&counters, set(11), at(4));
        counters.claim(SECOND, Direction::Egress, false, 1);
        assert_eq!(counters.rule(SECOND, Direction::Egress, 0), counter);
        hits.update(&counters, set(11), at(5));
        assert_eq!(hits.of(counter), (RuleHits::default(), None));
        hits.update(&counters, set(12), at(6));
        assert_eq!(hits.of(counter).0.packets, 1);
        assert_eq!(hits.by_policy()[&SECOND].packets, 1);
        hits.restart(
            counter,
            RuleHits {
                connections: 6,
                packets: 12,
            },
        );
        assert_eq!(hits.of(counter), (RuleHits::default(), None));
    }
}
