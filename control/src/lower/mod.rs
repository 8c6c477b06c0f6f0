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
//! Read `draft`, `network_policy`, `labels`, `namespaces`, `pods`, `sets`, `policies`, `chains`,
//! `settle` and this file in this order.

use std::sync::Arc;

use dataplane::policy::{Compiler, Compounds, EndpointSlot, PolicyTable};

use crate::cluster::{Cluster, Event, EventKind};
use crate::objects::{Key, Object};

mod about;
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
mod settle;

pub use about::{PolicyRule, PolicyRules};
pub use counters::{Counted, Counters};
pub use draft::{AUDIT, MODE};
pub use endpoints::{LocalEndpoint, OutOfSlots};
pub use ids::{OutOfPolicyIds, PolicyIds, PolicyName};
pub(crate) use pods::{end_phase, has_ended, pod_addresses};
pub(crate) use ports::named_ports;

use accounts::Accounts;
use endpoints::LocalEndpoints;
use namespaces::Namespaces;
use nodes::Nodes;
use pods::Pods;
use policies::PolicyStore;
use sets::PeerSets;
use settle::is_policy;

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
    pub(crate) fn key(&self) -> Option<&Key> {
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
    /// So many numbers from there on are those of compound counters.
    pub compound_counters: u32,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            enforced: true,
            rule_counters: config::limits::RULE_COUNTERS,
            compound_counters: config::limits::COMPOUND_COUNTERS,
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
        let compounds = settings.rule_counters..settings.rule_counters + settings.compound_counters;
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
            compiler: Compiler::with_compounds(compounds),
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
        self.compiler.compounds_mut().begin_trial();
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
        self.compiler.compounds_mut().end_trial();
        self.ids.truncate(self.ids_kept);
        self.counters.take_back();
    }

    /// The changes so far are there to stay: the counters of the policies that have gone with them
    /// may be given out again.
    pub fn keep(&mut self) {
        self.compiler.compounds_mut().end_trial();
        self.ids_kept = self.ids.names().len();
        self.counters.keep();
    }

    /// The counters have been read, and workers had the time to see the tables of the last reading:
    /// numbers that have been free since then may be given again.
    pub fn have_read(&mut self) {
        self.compiler.compounds_mut().have_read();
        self.counters.have_read();
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
        self.compiler.place(gone.slot, None);
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
        self.compiler.table(std::iter::empty())
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
        self.compiler.compounds_mut().begin_trial();
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
        let others = compiled.iter().map(|(slot, chains)| (*slot, chains.into()));
        let table = self.compiler.table(others);
        for (_, chains) in compiled {
            self.release(&chains);
        }
        self.compiler.compounds_mut().end_trial();
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

    /// The counters of several rules.
    pub fn compounds(&self) -> &Compounds {
        self.compiler.compounds()
    }
}
