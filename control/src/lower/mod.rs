//! Objects to what the dataplane compiles: selectors become addresses, named ports numbers,
//! defaults explicit.
//!
//! [`Policies`] is fed with the changes of objects and touches only what a change touches. From
//! scratch is a change in which everything is new; taking a change back is the change with old and
//! new swapped. What stands there afterwards depends on the objects alone, never on the way they
//! came to be ([`Policies::update`]).
//!
//! ```text
//!  object ──draft──▶ Draft           what one object says, by kind: network_policy, cluster_policy,
//!                                    security_group
//!  Draft ──policies─▶ Rules          peers as numbers of sets, named ports as numbers
//!  pod, node ──sets─▶ memberships    by an index of selectors (labels), told to the compiler
//!  endpoint ──endpoints─▶ chains     the rules of the policies that select it, in order, compiled
//! ```
//!
//! Read [`draft`], [`network_policy`], [`labels`], [`namespaces`], [`pods`], [`sets`], [`policies`]
//! and this file in this order.

use std::collections::BTreeSet;
use std::sync::Arc;

use dataplane::policy::ir::{EndpointPolicy, PeerSetId};
use dataplane::policy::{ChainId, Compiler, EndpointSlot, PolicyTable, Slot};
use dataplane::{Address, Direction, PolicyId};

use crate::cluster::{Cluster, Event, EventKind};
use crate::objects::{Key, Object};

mod accounts;
mod chains;
mod cluster_policy;
mod counters;
mod draft;
mod endpoints;
mod ids;
mod interned;
mod labels;
mod namespaces;
mod network_policy;
mod nodes;
mod pods;
mod policies;
mod ports;
mod security_group;
mod sets;

pub use counters::{Counted, Counters};
pub use draft::{AUDIT, MODE};
pub use endpoints::{LocalEndpoint, OutOfSlots};
pub use ids::{OutOfPolicyIds, PolicyIds, PolicyName};
pub(crate) use pods::{has_ended, pod_addresses};
pub(crate) use ports::named_ports;

use accounts::Accounts;
use chains::{PodPolicy, closed};
use draft::Draft;
use endpoints::{Chains, LocalEndpoints};
use labels::Labels;
use namespaces::Namespaces;
use nodes::Nodes;
use pods::{PodIndex, Pods};
use policies::{Ground, PolicyIndex, PolicyStore};
use sets::{Changed, Members, PeerSets};

/// An object as it was and as it is.
#[derive(Clone, Debug)]
pub struct Change {
    /// None if it is new.
    pub old: Option<Arc<Object>>,
    /// None if it is gone.
    pub new: Option<Arc<Object>>,
}

impl Change {
    /// A new object.
    pub fn added(object: &Arc<Object>) -> Change {
        Change {
            old: None,
            new: Some(object.clone()),
        }
    }

    /// The object was, and is, called so.
    fn key(&self) -> Option<&Key> {
        let object = self.new.as_ref().or(self.old.as_ref())?;
        Some(object.key())
    }
}

impl From<&Event> for Change {
    fn from(event: &Event) -> Change {
        Change {
            old: event.old.clone(),
            new: (event.kind != EventKind::Deleted).then(|| event.object.clone()),
        }
    }
}

/// What a change has come to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Touched {
    /// The endpoints for which other decisions may be made than before, and new ones.
    pub endpoints: Vec<EndpointSlot>,
}

/// Choices.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Without, every endpoint may do everything, whatever policies say.
    pub enforced: bool,
    /// Counters of rules are numbered below this.
    pub rule_counters: u32,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            enforced: true,
            rule_counters: config::limits::RULE_COUNTERS,
        }
    }
}

/// Something that is numbered has become too much.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum TooMany {
    /// Policies.
    #[error(transparent)]
    Policies(#[from] OutOfPolicyIds),
    /// Endpoints.
    #[error(transparent)]
    Endpoints(#[from] OutOfSlots),
}

/// Everything that policy depends on, and what follows from it for the endpoints of this node.
#[derive(Debug)]
pub struct Policies {
    settings: Settings,
    ids: PolicyIds,
    /// How many numbers somebody may have been told.
    ids_kept: usize,
    counters: Counters,
    namespaces: Namespaces,
    accounts: Accounts,
    pods: Pods,
    nodes: Nodes,
    sets: PeerSets,
    policies: PolicyStore,
    endpoints: LocalEndpoints,
    compiler: Compiler,
}

impl Policies {
    /// Nothing yet, with the numbers of policies that there have been.
    pub fn new(ids: PolicyIds, settings: Settings) -> Policies {
        Policies {
            settings,
            ids_kept: ids.names().len(),
            ids,
            counters: Counters::new(settings.rule_counters),
            namespaces: Namespaces::default(),
            accounts: Accounts::default(),
            pods: Pods::default(),
            nodes: Nodes::default(),
            sets: PeerSets::default(),
            policies: PolicyStore::default(),
            endpoints: LocalEndpoints::default(),
            compiler: Compiler::new(),
        }
    }

    /// All of a cluster, for these endpoints.
    pub fn from_scratch(
        cluster: &Cluster,
        endpoints: impl IntoIterator<Item = LocalEndpoint>,
    ) -> Result<Policies, TooMany> {
        let mut policies = Policies::new(PolicyIds::new(), Settings::default());
        let all: Vec<Change> = cluster.objects().map(Change::added).collect();
        policies.update(&all)?;
        for endpoint in endpoints {
            policies.attach(endpoint)?;
        }
        policies.compile_endpoints();
        policies.keep();
        Ok(policies)
    }

    /// Takes changes of objects, in their order, and of endpoints since the last call. Refused,
    /// nothing has changed.
    pub fn update(&mut self, changes: &[Change]) -> Result<Touched, OutOfPolicyIds> {
        let known = self.ids.names().len();
        for object in changes.iter().filter_map(|change| change.new.as_ref()) {
            if is_policy(object.key())
                && let Err(error) = self.ids.id(PolicyName::of(object))
            {
                self.ids.truncate(known);
                return Err(error);
            }
        }
        for change in changes {
            if let Some(key) = change.key() {
                self.put(key, change.new.as_deref());
            }
        }
        Ok(self.settle())
    }

    /// Takes back changes that [`Policies::update`] took last and that have not been kept: what is
    /// decided, and who has which number, is as before.
    pub fn undo(&mut self, changes: &[Change]) {
        for change in changes.iter().rev() {
            if let Some(key) = change.key() {
                self.put(key, change.old.as_deref());
            }
        }
        self.settle();
        self.ids.truncate(self.ids_kept);
        self.counters.keep();
    }

    /// The changes so far are there to stay: the counters of the policies that have gone with them
    /// may be given out again.
    pub fn keep(&mut self) {
        self.ids_kept = self.ids.names().len();
        self.counters.keep();
    }

    fn put(&mut self, key: &Key, object: Option<&Object>) {
        let (namespace, name) = (&key.namespace, &key.name);
        match (key.kind.api_version, key.kind.kind) {
            ("v1", "Namespace") => {
                if self.namespaces.put(name, object.map(Labels::of)) {
                    self.pods.mark_namespace(name);
                }
            }
            ("v1", "Pod") => self.pods.put(namespace, name, object),
            ("v1", "Node") => self.nodes.put(name, object),
            ("v1", "ServiceAccount") => {
                if self.accounts.put(namespace, name, object.map(Labels::of)) {
                    self.pods.mark_account(namespace, name);
                }
            }
            _ if is_policy(key) => self.put_policy(key, object),
            _ => {}
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
    fn settle(&mut self) -> Touched {
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
            use dataplane::policy::ir::Peers;
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
            Members::Pods(scope, selector) => {
                for pod in self.pods.selected(&self.namespaces, *scope, selector) {
                    self.pods.mark(pod);
                }
            }
            Members::Nodes(_) => self.nodes.mark_all(),
            Members::Group(name) => {
                let bindings: Vec<PolicyIndex> = self.policies.bindings().collect();
                for index in bindings {
                    let policy = self.policies.get(index);
                    if policy.is_some_and(|policy| policy.draft.groups.contains(name)) {
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
        let groups = self.groups_of(pod, facts, false);
        let groups = groups.into_iter().map(Members::Group);
        sets.extend(groups.filter_map(|group| self.sets.number(&group)));
        let mut memberships = Vec::with_capacity(sets.len() * addresses.len());
        let of = |set: PeerSetId, addresses: &[std::net::IpAddr]| {
            let own = addresses.iter().map(|address| Address::from(*address));
            own.map(move |address| (set, address)).collect::<Vec<_>>()
        };
        for set in &sets {
            memberships.extend(of(*set, &addresses));
        }
        for (set, held) in self.sets.enter(&sets, &addresses, &facts.named_ports) {
            memberships.extend(of(set, &held));
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

    fn compile_pod(&mut self, pod: Option<PodIndex>) -> Chains {
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

    fn release(&mut self, chains: &Chains) {
        chains.iter().for_each(|chain| self.compiler.release(chain));
    }

    /// Adds the interface of a pod. What it may do is compiled by the next
    /// [`Policies::compile_endpoints`] or [`Policies::update`].
    pub fn attach(&mut self, local: LocalEndpoint) -> Result<EndpointSlot, OutOfSlots> {
        self.detach(&local.uid);
        self.mark_addresses(&local);
        self.endpoints.attach(local)
    }

    /// Removes the interface of a pod. What follows for others is compiled as after
    /// [`Policies::attach`].
    pub fn detach(&mut self, uid: &str) {
        let Some(gone) = self.endpoints.detach(uid) else {
            return;
        };
        self.mark_addresses(&gone.local);
        if let Some(chains) = gone.chains {
            self.release(&chains);
        }
    }

    /// Whose addresses those of an interface are has changed.
    fn mark_addresses(&mut self, local: &LocalEndpoint) {
        if let Some(pod) = self.pods.find(&local.namespace, &local.name) {
            self.pods.mark(pod);
        }
        for address in &local.addresses {
            self.pods.mark_stating(address);
        }
    }

    /// Compiles for the endpoints that have come, and takes out those that are gone.
    pub fn compile_endpoints(&mut self) -> Touched {
        self.settle()
    }

    /// The table of all endpoints.
    pub fn table(&self) -> PolicyTable {
        self.table_of(std::iter::empty())
    }

    fn table_of(&self, others: impl Iterator<Item = (EndpointSlot, Chains)>) -> PolicyTable {
        let own = self.endpoints.iter();
        let own = own.filter_map(|endpoint| Some((endpoint.slot, endpoint.chains?)));
        let slots = own.chain(others).map(|(slot, chains)| {
            let chains = Slot {
                enforced: chains.enforced,
                audit: chains.audit,
            };
            (slot, chains)
        });
        self.compiler.table(slots)
    }

    /// A table in which pods without an interface here are subjects, too, each in the place
    /// returned for it; none for a pod that is not there or that policies are not about.
    pub fn table_with(
        &mut self,
        pods: &[(&str, &str)],
    ) -> (PolicyTable, Vec<Option<EndpointSlot>>) {
        let free = self.endpoints.slots_end()..u16::MAX;
        let mut free = free.map(EndpointSlot);
        let mut compiled = Vec::new();
        let mut slots = Vec::with_capacity(pods.len());
        for (namespace, name) in pods {
            let pod = self.pods.find(namespace, name);
            let subject = pod.filter(|pod| {
                let facts = self.pods.get(*pod).and_then(|pod| pod.facts.as_ref());
                facts.is_some_and(|facts| facts.can_be_subject())
            });
            let slot = subject.and_then(|_| free.next());
            if let Some(slot) = slot {
                compiled.push((slot, self.compile_pod(subject)));
            }
            slots.push(slot);
        }
        self.compiler.settle();
        let table = self.table_of(compiled.iter().copied());
        for (_, chains) in compiled {
            self.release(&chains);
        }
        (table, slots)
    }

    /// The place of an endpoint.
    pub fn slot(&self, uid: &str) -> Option<EndpointSlot> {
        Some(self.endpoints.get(uid)?.slot)
    }

    /// The endpoints with their places, by UID.
    pub fn endpoints(&self) -> impl Iterator<Item = (&LocalEndpoint, EndpointSlot)> {
        let attached = self.endpoints.iter();
        attached.map(|endpoint| (&endpoint.local, endpoint.slot))
    }

    /// The policies' numbers.
    pub fn ids(&self) -> &PolicyIds {
        &self.ids
    }

    /// The rules' counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

/// Whether objects of that kind are policies.
fn is_policy(key: &Key) -> bool {
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
