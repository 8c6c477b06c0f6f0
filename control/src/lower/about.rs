//! Who is concerned, for people: the pods that a policy is about, the policies that are about a
//! pod, and what of a policy is counted.

use dataplane::{CounterId, Direction, PolicyId};

use super::accounts::Picks;
use super::draft::Subject;
use super::policies::PolicyIndex;
use super::{Policies, PolicyName};
use crate::objects::Key;

/// A policy's rules, and how each is counted.
#[derive(Clone, Debug)]
pub struct PolicyRules {
    /// The policy's number.
    pub policy: PolicyId,
    /// It only reports what it would do.
    pub audit: bool,
    /// By direction and index, default denials behind the rules of their direction.
    pub rules: Vec<PolicyRule>,
}

/// One rule, or what a policy denies because none of its rules matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyRule {
    /// Direction.
    pub direction: Direction,
    /// Its index; none for default denials.
    pub rule: Option<u16>,
    /// Its counter.
    pub counter: CounterId,
    /// Whether it is enforced, and all that it decides or lets go on is counted.
    pub is_counted: bool,
}

impl Policies {
    /// What a policy's object has for rules; none if it is no policy.
    pub fn rules_of(&self, key: &Key) -> Option<PolicyRules> {
        let policy = self.policies.get(self.policies.find(key)?)?;
        let draft = &policy.draft;
        let mut rules = Vec::new();
        for direction in [Direction::Ingress, Direction::Egress] {
            let chain = draft.chain(direction);
            let mut push = |rule, counter| {
                let is_whole = counter != CounterId::NONE && !self.compounds().misses(counter);
                rules.push(PolicyRule {
                    direction,
                    rule,
                    counter,
                    is_counted: !draft.audit && is_whole,
                });
            };
            for (index, _) in (0..=u16::MAX).zip(&chain.rules) {
                let counter = self.counters.rule(policy.id, direction, index);
                push(Some(index), counter);
            }
            if chain.isolates {
                push(None, self.counters.by_default(policy.id, direction));
            }
        }
        Some(PolicyRules {
            policy: policy.id,
            audit: draft.audit,
            rules,
        })
    }

    /// The pods of the cluster that a policy is about, `NS/POD`, sorted.
    pub fn subjects_of(&self, key: &Key) -> Vec<String> {
        let Some(index) = self.policies.find(key) else {
            return Vec::new();
        };
        let candidates = match self.policies.subject(index) {
            Some((scope, selector)) => self.pods.selected(&self.namespaces, scope, selector),
            None => self.pods.all().collect(),
        };
        let mut names: Vec<String> = candidates
            .into_iter()
            .filter_map(|pod| self.pods.get(pod))
            .filter(|pod| {
                let facts = pod.facts.as_ref().filter(|facts| facts.can_be_subject());
                facts.is_some_and(|facts| match self.subject_of(index) {
                    Some(Subject::Group(name)) => self.groups_of(pod, facts, true).contains(name),
                    _ => self.picks_account(index, pod, facts) != Picks::No,
                })
            })
            .map(|pod| format!("{}/{}", pod.namespace, pod.name))
            .collect();
        names.sort_unstable();
        names
    }

    fn subject_of(&self, index: PolicyIndex) -> Option<&Subject> {
        Some(&self.policies.get(index)?.draft.subject)
    }

    /// The policies that are about a pod, in the order in which they decide, and whether each is in
    /// audit mode. None if there is no such pod, or policies are not about it.
    pub fn policies_about(&self, namespace: &str, name: &str) -> Option<Vec<(&PolicyName, bool)>> {
        let pod = self.pods.get(self.pods.find(namespace, name)?)?;
        let facts = pod.facts.as_ref().filter(|facts| facts.can_be_subject())?;
        let (_, all) = self.about(pod, facts);
        let named = all.into_iter().filter_map(|index| {
            let policy = self.policies.get(index)?;
            Some((self.ids.name(policy.id)?, policy.draft.audit))
        });
        Some(named.collect())
    }
}
