//! What rules have decided, for people: asked for by `hits`, and told to metrics.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use dataplane::counters::RuleHits;
use dataplane::{Direction, PolicyId, Tier, Verdict};

use super::plane::Plane;
use super::readings::Owners;
use super::server::refused;
use super::state::Daemon;
use crate::cluster::{Event, EventKind};
use crate::flow::time_text;
use crate::lower::PolicyRules;
use crate::objects::{Key, Object, kinds};
use crate::protocol::{
    ErrorObject, HitsParams, HitsReply, PodPoliciesParams, PodPoliciesReply, PodPolicy, PolicyHits,
    Reason, RuleHit,
};

/// How often the counters are read.
const EVERY: Duration = Duration::from_secs(1);

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
        if self.hits_read.elapsed() >= EVERY {
            self.read_hits();
            // Workers need time to stop counting by older tables, so that readings for people, which
            // may follow each other closely, are none for this.
            self.policies.have_read();
            self.hits_read = Instant::now();
        }
    }

    fn read_hits(&mut self) {
        let plane = &self.plane;
        let owners = Owners {
            counters: self.policies.counters(),
            compounds: self.policies.compounds(),
        };
        let read = |first, readings: &mut [RuleHits]| plane.rule_hits(first, readings);
        self.hits.update(owners, read, SystemTime::now());
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
            let owners = Owners {
                counters: self.policies.counters(),
                compounds: self.policies.compounds(),
            };
            for (counter, _) in owners.counters.of(rules.policy) {
                let now = |counter| self.plane.hits_of(counter);
                self.hits.restart(owners, counter, now, SystemTime::now());
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
            without_compound: self.policies.compounds().without() as u64,
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
