//! What a pod may do: the rules of the policies that are about it, in order.

use std::collections::BTreeSet;
use std::sync::Arc;

use dataplane::policy::ir::{Chain, EndpointPolicy, Isolation};
use dataplane::{CounterId, Direction, PolicyId, Tier};

use super::Policies;
use super::accounts::Picks;
use super::draft::Subject;
use super::endpoints::Attached;
use super::pods::{Facts, Pod, PodIndex};
use super::policies::PolicyIndex;
use super::ports::NamedPort;

/// What is to be compiled for a pod.
pub(super) struct PodPolicy {
    /// What is enforced.
    pub enforced: EndpointPolicy,
    /// With the policies in audit mode, if there are any about the pod.
    pub audit: Option<EndpointPolicy>,
}

/// Isolated by a policy that has no number of its own, with no rule: of an endpoint whose pod is not
/// in the cluster (or is another by UID) nobody can say what it may do.
pub(super) fn closed() -> PodPolicy {
    let chain = Chain {
        isolating: vec![Isolation {
            policy: PolicyId(PolicyId::MAX),
            counter: CounterId::NONE,
        }],
        ..Chain::default()
    };
    PodPolicy {
        enforced: EndpointPolicy {
            ingress: chain.clone(),
            egress: chain,
        },
        audit: None,
    }
}

impl Policies {
    /// What a pod may do; `None` if policies are not about it.
    pub(super) fn pod_policy(&mut self, index: PodIndex) -> Option<PodPolicy> {
        let pod = self.pods.get(index)?;
        let facts = pod.facts.as_ref().filter(|facts| facts.can_be_subject())?;
        let ports = facts.named_ports.clone();
        let (enforced, all) = self.about(pod, facts);
        let differs = all.len() > enforced.len() || self.have_other_members(&all);
        Some(PodPolicy {
            audit: differs.then(|| self.put_together(&all, &ports, true)),
            enforced: self.put_together(&enforced, &ports, false),
        })
    }

    /// The policies about a pod in order: those that are enforced, and all.
    pub(super) fn about(&self, pod: &Pod, facts: &Facts) -> (Vec<PolicyIndex>, Vec<PolicyIndex>) {
        let scopes = self.namespaces.scopes_of(&pod.namespace);
        let mut all = Vec::new();
        self.policies.selecting(&scopes, &facts.labels, |index| {
            if self.picks_account(index, pod, facts) != Picks::No {
                all.push(index);
            }
        });
        let mut enforced = all.clone();
        enforced.retain(|&index| !self.is_audit(index));
        for (list, with_audit) in [(&mut enforced, false), (&mut all, true)] {
            let groups = self.groups_of(pod, facts, with_audit);
            let members = groups.iter().filter_map(|name| self.policies.group(name));
            list.extend(members.filter(|&index| with_audit || !self.is_audit(index)));
            let order = |index: &PolicyIndex| {
                let policy = self.policies.get(*index);
                policy.map(|policy| (&policy.draft.order, policy.draft.groups.is_empty()))
            };
            list.sort_by(|a, b| order(a).cmp(&order(b)));
        }
        (enforced, all)
    }

    /// Whether some of these policies name security groups that may have other members if bindings
    /// in audit mode count.
    fn have_other_members(&self, about: &[PolicyIndex]) -> bool {
        let audited = |index| self.is_audit(index);
        let names_groups = |index: &PolicyIndex| {
            let policy = self.policies.get(*index).map(|policy| &policy.draft);
            policy.is_some_and(|draft| draft.ingress.names_groups() || draft.egress.names_groups())
        };
        self.policies.bindings().any(audited) && about.iter().any(names_groups)
    }

    pub(super) fn is_audit(&self, index: PolicyIndex) -> bool {
        let policy = self.policies.get(index);
        policy.is_some_and(|policy| policy.draft.audit)
    }

    /// Whether a policy that a pod's labels satisfy picks it by its ServiceAccount, too.
    pub(super) fn picks_account(&self, index: PolicyIndex, pod: &Pod, facts: &Facts) -> Picks {
        let subject = self.policies.get(index).map(|policy| &policy.draft.subject);
        match subject {
            Some(Subject::Pods {
                account: Some(selector),
                ..
            }) => self
                .accounts
                .picks(selector, &pod.namespace, &facts.account),
            _ => Picks::Yes,
        }
    }

    /// The security groups that a pod is in, those too that no object describes.
    pub(super) fn groups_of(
        &self,
        pod: &Pod,
        facts: &Facts,
        with_audit: bool,
    ) -> BTreeSet<Arc<str>> {
        let mut groups = BTreeSet::new();
        if self.policies.bindings().next().is_none() || !facts.can_be_subject() {
            return groups;
        }
        let scopes = self.namespaces.scopes_of(&pod.namespace);
        self.policies.binding(&scopes, &facts.labels, |index| {
            let counts = with_audit || !self.is_audit(index);
            if let Some(policy) = self.policies.get(index).filter(|_| counts)
                && self.picks_account(index, pod, facts) == Picks::Yes
            {
                groups.extend(policy.draft.groups.iter().cloned());
            }
        });
        groups
    }

    fn put_together(
        &mut self,
        about: &[PolicyIndex],
        ports: &Arc<[NamedPort]>,
        audited: bool,
    ) -> EndpointPolicy {
        EndpointPolicy {
            ingress: self.chain(about, Direction::Ingress, ports, audited),
            egress: self.chain(about, Direction::Egress, ports, audited),
        }
    }

    fn chain(
        &mut self,
        about: &[PolicyIndex],
        direction: Direction,
        ports: &Arc<[NamedPort]>,
        audited: bool,
    ) -> Chain {
        let mut chain = Chain::default();
        for &index in about {
            let Some(policy) = self.policies.get_mut(index) else {
                continue;
            };
            if let Some(isolation) = policy.isolation(direction) {
                match policy.draft.order.tier {
                    Tier::SecurityGroup => chain.bound.push(isolation),
                    _ => chain.isolating.push(isolation),
                }
            }
            chain
                .rules
                .extend(policy.rules(direction, ports, audited).iter().cloned());
        }
        chain
    }

    /// Looks again at what is compiled for every endpoint that a policy is about.
    pub(super) fn mark_subjects(&mut self, index: PolicyIndex) {
        let subject = self.policies.subject(index);
        let found: Vec<String> = match subject.and_then(|(scope, _)| self.namespaces.only(scope)) {
            Some(namespace) => self.uids_about(index, self.endpoints.iter_in(namespace)),
            None => self.uids_about(index, self.endpoints.iter()),
        };
        found.iter().for_each(|uid| self.endpoints.mark(uid));
    }

    /// The UIDs of those endpoints that a policy is about and that are not marked yet.
    fn uids_about<'a>(
        &self,
        index: PolicyIndex,
        endpoints: impl Iterator<Item = &'a Attached>,
    ) -> Vec<String> {
        let found = endpoints.filter(|endpoint| {
            !self.endpoints.is_marked(&endpoint.local.uid) && self.is_about(index, endpoint)
        });
        found.map(|endpoint| endpoint.local.uid.clone()).collect()
    }

    fn is_about(&self, index: PolicyIndex, endpoint: &Attached) -> bool {
        let pod = endpoint.pod.and_then(|pod| self.pods.get(pod));
        let Some((pod, facts)) = pod.and_then(|pod| Some((pod, pod.facts.as_ref()?))) else {
            return false;
        };
        if let Some(Subject::Group(name)) =
            self.policies.get(index).map(|policy| &policy.draft.subject)
        {
            return self.groups_of(pod, facts, true).contains(name);
        }
        let subject = self.policies.subject(index);
        subject.is_some_and(|(scope, selector)| {
            self.namespaces.holds(scope, &pod.namespace) && facts.labels.satisfy(selector)
        })
    }
}
