//! Peer sets: addresses that rules name by number. Equal sets are one.
//!
//! A set knows what it is of, not who is in it: that stands with each pod and node, and with the
//! compiler, which is told of every change.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use dataplane::policy::ir::{Block, PeerSetId, Peers, PortRange};

use super::draft::{DraftPeers, Picked};
use super::interned::Interned;
use super::labels::{LabelIndex, Labels};
use super::namespaces::{Namespaces, ScopeId, Scoped};
use super::ports::{NamedPort, PortName, resolve};
use crate::selector::Selector;

/// What a set is of.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Members {
    /// Pods in a scope that a selector matches.
    Pods(ScopeId, Selector),
    /// Nodes that a selector matches.
    Nodes(Selector),
    /// Pods that are in a security group.
    Group(Membership),
    /// Of the peers of a [`Destinations`] the pods on which its names mean these ports.
    Calling(DestinationsId, Arc<[PortRange]>),
}

/// Being in a security group.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Membership {
    /// The group.
    pub group: Arc<str>,
    /// Also by what only puts pods there in audit mode.
    pub audited: bool,
}

/// Peers of an egress rule that has named ports: the names mean something else on each pod.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Destinations {
    /// The rule's peers.
    pub peers: Peers,
    /// The names.
    pub names: Arc<[PortName]>,
}

/// A [`Destinations`]' number as long as anybody uses it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DestinationsId(u32);

/// What has come and gone since it was last asked, for whoever keeps the members.
#[derive(Debug, Default)]
pub struct Changed {
    /// Sets whose members are to be found.
    pub come: Vec<Members>,
    /// Sets that are no more.
    pub gone: Vec<Arc<Members>>,
    /// Destinations that are new or no more.
    pub destinations: Vec<Destinations>,
}

/// The sets that somebody uses.
#[derive(Debug, Default)]
pub struct PeerSets {
    sets: Interned<Members>,
    pods: Scoped<PeerSetId>,
    nodes: LabelIndex<PeerSetId>,
    destinations: Interned<Destinations>,
    /// By a set among their peers.
    by_set: HashMap<PeerSetId, Vec<DestinationsId>>,
    /// Those with peers that are everybody or in blocks: each pod may be in them.
    by_address: Vec<DestinationsId>,
    /// What the names of each mean, and the pods on which they do.
    meanings: HashMap<DestinationsId, BTreeMap<Arc<[PortRange]>, PeerSetId>>,
    /// Those whose names have come to mean something else.
    reworded: Vec<DestinationsId>,
    changed: Changed,
}

impl PeerSets {
    /// A rule's peers, each set of which has one use more; `audited` where policies in audit mode
    /// count.
    pub fn acquire(
        &mut self,
        peers: &DraftPeers,
        audited: bool,
        namespaces: &mut Namespaces,
    ) -> Peers {
        let DraftPeers::Of { picked, blocks } = peers else {
            return Peers::Any;
        };
        let mut sets: Vec<PeerSetId> = Vec::with_capacity(picked.len());
        for picked in picked {
            let set = match picked {
                Picked::Pods(scope, selector) => {
                    let scope = namespaces.acquire(scope);
                    let (set, new) = self.acquire_set(Members::Pods(scope, selector.clone()));
                    if !new {
                        // The set has a use of its scope already.
                        namespaces.release(scope);
                    }
                    set
                }
                Picked::Nodes(selector) => self.acquire_set(Members::Nodes(selector.clone())).0,
                Picked::Group(name) => {
                    let group = name.clone();
                    let members = Members::Group(Membership { group, audited });
                    self.acquire_set(members).0
                }
            };
            if sets.contains(&set) {
                self.sets.release(set.0);
            } else {
                sets.push(set);
            }
        }
        sets.sort_unstable();
        Peers::Of {
            sets: sets.into(),
            blocks: blocks.clone(),
        }
    }

    fn acquire_set(&mut self, members: Members) -> (PeerSetId, bool) {
        let (number, new) = self.sets.acquire(members.clone());
        let set = PeerSetId(number);
        if new {
            match &members {
                Members::Pods(scope, selector) => self.pods.insert(*scope, selector, set),
                Members::Nodes(selector) => self.nodes.insert(selector, set),
                Members::Group(_) | Members::Calling(..) => {}
            }
            self.changed.come.push(members);
        }
        (set, new)
    }

    /// Takes back what [`PeerSets::acquire`] gave.
    pub fn release(&mut self, peers: &Peers) {
        if let Peers::Of { sets, .. } = peers {
            sets.iter().for_each(|set| self.sets.release(set.0));
        }
    }

    /// The destinations' number, with one use more.
    pub fn acquire_destinations(
        &mut self,
        peers: &Peers,
        names: &Arc<[PortName]>,
    ) -> DestinationsId {
        let destinations = Destinations {
            peers: peers.clone(),
            names: names.clone(),
        };
        let (number, new) = self.destinations.acquire(destinations.clone());
        let id = DestinationsId(number);
        if new {
            self.listings(peers, |list| list.push(id));
            self.meanings.insert(id, BTreeMap::new());
            self.changed.destinations.push(destinations);
        }
        id
    }

    /// Takes back what [`PeerSets::acquire_destinations`] gave.
    pub fn release_destinations(&mut self, id: DestinationsId) {
        self.destinations.release(id.0);
    }

    /// The lists by which destinations with such peers are found.
    fn listings(&mut self, peers: &Peers, mut change: impl FnMut(&mut Vec<DestinationsId>)) {
        match peers {
            Peers::Any => change(&mut self.by_address),
            Peers::Of { sets, blocks } => {
                if !blocks.is_empty() {
                    change(&mut self.by_address);
                }
                for set in &**sets {
                    change(self.by_set.entry(*set).or_default());
                }
            }
        }
    }

    /// What names mean on which peers of a rule.
    pub fn meanings(
        &self,
        id: DestinationsId,
    ) -> impl Iterator<Item = (&Arc<[PortRange]>, PeerSetId)> {
        let meanings = self.meanings.get(&id).into_iter().flatten();
        meanings.map(|(ranges, set)| (ranges, *set))
    }

    /// What a set is of.
    pub fn members(&self, set: PeerSetId) -> Option<Arc<Members>> {
        self.sets.get(set.0).cloned()
    }

    /// The set that is of `members`.
    pub fn number(&self, members: &Members) -> Option<PeerSetId> {
        self.sets.number(members).map(PeerSetId)
    }

    /// The sets that pick pods with such labels in one of the scopes.
    pub fn of_pod(&self, scopes: &[ScopeId], labels: &Labels) -> Vec<PeerSetId> {
        let mut found = Vec::new();
        self.pods.matching(scopes, labels, |set| found.push(set));
        found
    }

    /// The sets that pick nodes with such labels.
    pub fn of_node(&self, labels: &Labels) -> Vec<PeerSetId> {
        let mut found = Vec::new();
        self.nodes.matching(labels, |set| found.push(set));
        found
    }

    /// Enters a pod that is in `sets` among the destinations on which names mean something: the
    /// sets that it is in for that, each with those of its addresses that the peers hold. Each has
    /// one use more, which is the pod's ([`PeerSets::leave`]).
    pub fn enter(
        &mut self,
        sets: &[PeerSetId],
        addresses: &[IpAddr],
        ports: &[NamedPort],
    ) -> Vec<(PeerSetId, Vec<IpAddr>)> {
        if ports.is_empty() || addresses.is_empty() {
            return Vec::new();
        }
        let by_set = sets.iter().filter_map(|set| self.by_set.get(set)).flatten();
        let mut concerned: Vec<DestinationsId> = by_set.chain(&self.by_address).copied().collect();
        concerned.sort_unstable();
        concerned.dedup();
        let mut entered = Vec::new();
        for id in concerned {
            let Some(destinations) = self.destinations.get(id.0).cloned() else {
                continue;
            };
            let meaning = resolve(&destinations.names, ports);
            let held = held(&destinations.peers, sets, addresses);
            if meaning.is_empty() || held.is_empty() {
                continue;
            }
            let meaning: Arc<[PortRange]> = meaning.into();
            let (set, _) = self.acquire_set(Members::Calling(id, meaning.clone()));
            let meanings = self.meanings.entry(id).or_default();
            if meanings.insert(meaning, set).is_none() {
                self.reworded.push(id);
            }
            entered.push((set, held));
        }
        entered
    }

    /// Takes a pod's use of a set back that [`PeerSets::enter`] gave it. For sets of another sort
    /// this means nothing.
    pub fn leave(&mut self, set: PeerSetId) {
        if let Some(members) = self.sets.get(set.0)
            && let Members::Calling(..) = **members
        {
            self.sets.release(set.0);
        }
    }

    /// Forgets what nobody uses, and says what has come and gone since the last call.
    pub fn sweep(&mut self, namespaces: &mut Namespaces) -> Changed {
        for (number, destinations) in self.destinations.sweep() {
            let id = DestinationsId(number);
            let forget = |list: &mut Vec<DestinationsId>| list.retain(|known| *known != id);
            self.listings(&destinations.peers, forget);
            self.changed.destinations.push((*destinations).clone());
        }
        for (number, members) in self.sets.sweep() {
            let set = PeerSetId(number);
            match &*members {
                Members::Pods(scope, selector) => {
                    self.pods.remove(*scope, selector, set);
                    namespaces.release(*scope);
                }
                Members::Nodes(selector) => self.nodes.remove(selector, set),
                Members::Calling(id, meaning) => {
                    let known = self.destinations.get(id.0).is_some();
                    if let Entry::Occupied(mut meanings) = self.meanings.entry(*id) {
                        meanings.get_mut().remove(meaning);
                        if !known && meanings.get().is_empty() {
                            meanings.remove();
                        }
                    }
                    self.reworded.push(*id);
                }
                Members::Group(_) => {}
            }
            self.changed.gone.push(members);
        }
        self.by_set.retain(|_, list| !list.is_empty());
        std::mem::take(&mut self.changed)
    }

    /// Lets the numbers of what has been forgotten be given out again: at the end of a change.
    pub fn recycle(&mut self) {
        self.sets.recycle();
        self.destinations.recycle();
    }

    /// Destinations whose names have come to mean something else since the last call.
    pub fn take_reworded(&mut self) -> Vec<DestinationsId> {
        std::mem::take(&mut self.reworded)
    }
}

/// The addresses of a pod, which is in `sets`, that a rule's peers hold.
fn held(peers: &Peers, sets: &[PeerSetId], addresses: &[IpAddr]) -> Vec<IpAddr> {
    match peers {
        Peers::Any => addresses.to_vec(),
        Peers::Of { sets: own, .. } if own.iter().any(|set| sets.contains(set)) => {
            addresses.to_vec()
        }
        Peers::Of { blocks, .. } => {
            let inside = |address: &&IpAddr| blocks.iter().any(|block| holds(block, address));
            addresses.iter().filter(inside).copied().collect()
        }
    }
}

fn holds(block: &Block, address: &IpAddr) -> bool {
    block.prefix.contains(address) && !block.except.iter().any(|except| except.contains(address))
}
