//! How a change spreads: from objects to pods and policies, to the members of sets, to the chains of
//! endpoints. Whatever may have changed is marked; what is marked is looked at once, when the whole
//! change is known.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use dataplane::policy::ChainId;
use dataplane::policy::ir::{EndpointPolicy, PeerSetId, Peers};
use dataplane::{Address, Direction, PolicyId};

use super::chains::{PodPolicy, closed};
use super::draft::Draft;
use super::endpoints::Chains;
use super::ids::PolicyName;
use super::labels::Labels;
use super::pods::PodIndex;
use super::policies::{Ground, PolicyIndex};
use super::sets::{Changed, Members, Membership};
use super::{Policies, Touched, cluster_policy, network_policy, security_group};
use crate::objects::{Key, Object};

impl Policies {
    /// Takes an object as it is now; `None` if it is gone.
    pub(super) fn put(&mut self, key: &Key, object: Option<&Object>) {
        let (namespace, name) = (&key.namespace, &key.name);
        match (key.kind.api_version, key.kind.kind) {
            ("v1", "Namespace") => self.put_namespace(name, object.map(Labels::of)),
            ("v1", "Pod") => self.pods.put(namespace, name, object),
            ("v1", "Node") => self.nodes.put(name, object),
            ("v1", "ServiceAccount") => {
                self.put_account(namespace, name, object.map(Labels::of));
            }
            _ if is_policy(key) => self.put_policy(key, object),
            _ => {}
        }
    }

    fn put_namespace(&mut self, name: &Arc<str>, labels: Option<Labels>) {
        if self.namespaces.put(name, labels) {
            self.pods.mark_namespace(name);
        }
    }

    fn put_account(&mut self, namespace: &Arc<str>, name: &Arc<str>, labels: Option<Labels>) {
        if self.accounts.put(namespace, name, labels) {
            self.pods.mark_account(namespace, name);
        }
    }

    fn put_policy(&mut self, key: &Key, object: Option<&Object>) {
        // The number has been given out before anything changed.
        let drafted = object.and_then(|object| {
            let id = self.ids.find(&PolicyName::of(object))?;
            Some((id, draft(object)?))
        });
        let known = self.policies.find(key);
        if let Some(index) = known {
            let old = self.policies.get(index);
            let same = |(id, draft): &(PolicyId, Draft)| {
                old.is_some_and(|old| old.id == *id && old.draft == *draft)
            };
            if drafted.as_ref().is_some_and(same) {
                return;
            }
            self.mark_concerned(index);
        }
        let mut ground = Ground {
            namespaces: &mut self.namespaces,
            sets: &mut self.sets,
            counters: &mut self.counters,
        };
        if let Some(old) = self.policies.remove(key, &mut ground) {
            ground.counters.leave(old.id);
        }
        if let Some((id, draft)) = drafted {
            let index = self.policies.insert(key.clone(), id, draft, &mut ground);
            self.mark_concerned(index);
        }
    }

    /// Looks again at whatever a policy has to do with that comes or goes.
    fn mark_concerned(&mut self, index: PolicyIndex) {
        self.mark_subjects(index);
        let binds = |index| {
            let policy = self.policies.get(index);
            policy.is_some_and(|policy| !policy.draft.groups.is_empty())
        };
        if binds(index) {
            self.mark_members(index);
            if self.is_audit(index) {
                // Members of groups may be others where it counts, for anybody's rules.
                self.endpoints.mark_all();
            }
        }
    }

    /// Looks again at the memberships of the pods that a policy picks by labels.
    fn mark_members(&mut self, index: PolicyIndex) {
        if let Some((scope, selector)) = self.policies.subject(index) {
            for pod in self.pods.selected(&self.namespaces, scope, selector) {
                self.pods.mark(pod);
            }
        }
    }

    /// Follows what has been marked up to the endpoints.
    pub(super) fn settle(&mut self) -> Touched {
        let changed = self.sets.sweep(&mut self.namespaces);
        self.mark_sets(&changed);
        for pod in self.pods.take_stale() {
            self.settle_pod(pod);
        }
        for moved in self.nodes.settle(&self.sets) {
            self.tell(&moved.before, &moved.after);
        }
        self.sets.sweep(&mut self.namespaces);
        let reworded: BTreeSet<_> = self.sets.take_reworded().into_iter().collect();
        let resolved = reworded.iter().flat_map(|id| self.policies.sending(*id));
        let resolved: BTreeSet<PolicyIndex> = resolved.copied().collect();
        for index in resolved {
            self.policies.lower(index, &self.sets);
            self.mark_subjects(index);
        }
        self.sets.recycle();
        self.namespaces.sweep();
        self.compile()
    }

    /// Looks at the members again of the sets that have come or gone.
    fn mark_sets(&mut self, changed: &Changed) {
        for members in changed
            .come
            .iter()
            .chain(changed.gone.iter().map(|gone| &**gone))
        {
            self.mark_set(members);
        }
        for destinations in &changed.destinations {
            match &destinations.peers {
                Peers::Of { sets, blocks } if blocks.is_empty() => {
                    let members = sets.iter().filter_map(|set| self.sets.members(*set));
                    for members in members.collect::<Vec<_>>() {
                        self.mark_set(&members);
                    }
                }
                // Whoever has such a port may be meant.
                _ => self.pods.mark_all(),
            }
        }
    }

    fn mark_set(&mut self, members: &Members) {
        match members {
            Members::Pods(..) if self.pods.are_all_marked() => {}
            Members::Pods(scope, selector) => {
                for pod in self.pods.selected(&self.namespaces, *scope, selector) {
                    self.pods.mark(pod);
                }
            }
            Members::Nodes(_) => self.nodes.mark_all(),
            Members::Group(Membership { group, .. }) => {
                let bindings: Vec<PolicyIndex> = self.policies.bindings().collect();
                for index in bindings {
                    let policy = self.policies.get(index);
                    if policy.is_some_and(|policy| policy.draft.groups.contains(group)) {
                        self.mark_members(index);
                    }
                }
            }
            // Those who come and go are told as they do.
            Members::Calling(..) => {}
        }
    }

    /// Finds the sets that a pod is in, tells the compiler what has changed, and has its endpoint
    /// looked at.
    fn settle_pod(&mut self, index: PodIndex) {
        let Some(pod) = self.pods.get(index) else {
            return;
        };
        let uid = pod.facts.as_ref().map(|facts| facts.uid.clone());
        self.endpoints.mark_pod(index, uid.as_deref());
        let after = self.memberships(index);
        let before = self.pods.settle(index, after.clone());
        self.tell(&before, &after);
        let mut left = None;
        for (set, _) in before {
            if left != Some(set) {
                self.sets.leave(set);
                left = Some(set);
            }
        }
    }

    fn memberships(&mut self, index: PodIndex) -> Vec<(PeerSetId, Address)> {
        let Some(pod) = self.pods.get(index) else {
            return Vec::new();
        };
        let Some(facts) = &pod.facts else {
            return Vec::new();
        };
        let attached = self
            .endpoints
            .addresses_of(&pod.namespace, &pod.name, &facts.uid);
        let addresses = facts.addresses(attached, |address| self.endpoints.has(address));
        if addresses.is_empty() {
            return Vec::new();
        }
        let scopes = self.namespaces.scopes_of(&pod.namespace);
        let mut sets = self.sets.of_pod(&scopes, &facts.labels);
        for audited in [false, true] {
            let groups = self.groups_of(pod, facts, audited).into_iter();
            let groups = groups.map(|group| Members::Group(Membership { group, audited }));
            sets.extend(groups.filter_map(|group| self.sets.number(&group)));
        }
        let mut memberships = Vec::with_capacity(sets.len() * addresses.len());
        let mut join = |set: PeerSetId, addresses: &[IpAddr]| {
            let addresses = addresses.iter().map(|address| Address::from(*address));
            memberships.extend(addresses.map(|address| (set, address)));
        };
        sets.iter().for_each(|set| join(*set, &addresses));
        for (set, held) in self.sets.enter(&sets, &addresses, &facts.named_ports) {
            join(set, &held);
        }
        memberships.sort_unstable();
        memberships
    }

    /// Tells the compiler which memberships have come and gone.
    fn tell(&mut self, before: &[(PeerSetId, Address)], after: &[(PeerSetId, Address)]) {
        for (set, address) in before
            .iter()
            .filter(|one| after.binary_search(one).is_err())
        {
            self.compiler.remove_member(*set, *address);
        }
        for (set, address) in after
            .iter()
            .filter(|one| before.binary_search(one).is_err())
        {
            self.compiler.add_member(*set, *address);
        }
    }

    /// Compiles what has been marked, and says whose decisions may have changed by that or by the
    /// members of sets.
    fn compile(&mut self) -> Touched {
        let mut touched = BTreeSet::new();
        let mut replaced = Vec::new();
        for uid in self.endpoints.take_stale() {
            let Some(endpoint) = self.endpoints.get(&uid).cloned() else {
                continue;
            };
            let local = &endpoint.local;
            let pod = self.pods.find(&local.namespace, &local.name).filter(|pod| {
                let facts = self.pods.get(*pod).and_then(|pod| pod.facts.as_ref());
                facts.is_some_and(|facts| facts.uid == uid)
            });
            self.endpoints.link(&uid, pod);
            let chains = self.compile_pod(pod);
            if endpoint.chains != Some(chains) {
                touched.insert(endpoint.slot);
            }
            self.compiler.place(endpoint.slot, Some((&chains).into()));
            replaced.extend(self.endpoints.compiled(&uid, chains));
        }
        for chains in replaced {
            self.release(&chains);
        }
        let changed: BTreeSet<ChainId> = self.compiler.settle().into_iter().collect();
        for endpoint in self.endpoints.iter().filter(|_| !changed.is_empty()) {
            let mut chains = endpoint.chains.iter().flat_map(Chains::iter);
            if chains.any(|chain| changed.contains(&chain)) {
                touched.insert(endpoint.slot);
            }
        }
        Touched {
            endpoints: touched.into_iter().collect(),
        }
    }

    pub(super) fn compile_pod(&mut self, pod: Option<PodIndex>) -> Chains {
        let policy = if self.settings.enforced {
            pod.and_then(|pod| self.pod_policy(pod))
                .unwrap_or_else(closed)
        } else {
            PodPolicy {
                enforced: EndpointPolicy::default(),
                audit: None,
            }
        };
        let mut both = |policy: &EndpointPolicy| {
            [
                self.compiler.chain(Direction::Egress, &policy.egress),
                self.compiler.chain(Direction::Ingress, &policy.ingress),
            ]
        };
        let enforced = both(&policy.enforced);
        let mut chains = Chains {
            enforced,
            audit: policy.audit.as_ref().map(both),
        };
        if let Some(same) = chains.audit.take_if(|audit| *audit == enforced) {
            same.iter().for_each(|chain| self.compiler.release(*chain));
        }
        chains
    }

    pub(super) fn release(&mut self, chains: &Chains) {
        chains.iter().for_each(|chain| self.compiler.release(chain));
    }
}

/// Whether objects of that kind are policies.
pub(super) fn is_policy(key: &Key) -> bool {
    matches!(
        (key.kind.api_version, key.kind.kind),
        ("networking.k8s.io/v1", "NetworkPolicy")
            | ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy")
            | (
                "policy.networking.k8s.io/v1alpha1",
                "AdminNetworkPolicy" | "BaselineAdminNetworkPolicy"
            )
            | ("weir.dev/v1alpha1", "SecurityGroup")
            | ("vpcresources.k8s.aws/v1beta1", "SecurityGroupPolicy")
    )
}

/// What a policy's object says; `None` if it says nothing.
fn draft(object: &Object) -> Option<Draft> {
    network_policy::draft(object)
        .or_else(|| cluster_policy::draft(object))
        .or_else(|| security_group::draft(object))
}
