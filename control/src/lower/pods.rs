//! Pods as policy sees them: labels, addresses, named ports, and the peer sets that they are in.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use dataplane::Address;
use dataplane::policy::ir::PeerSetId;
use k8s_openapi::api::core::v1::Pod as PodObject;

use super::labels::{Labelled, Labels};
use super::namespaces::{Namespaces, ScopeId};
use super::ports::{NamedPort, named_ports};
use crate::objects::Object;
use crate::selector::Selector;

/// In a namespace with at most so many pods each is looked at rather than all with a label.
const FEW: usize = 64;

/// A pod's number as long as it is known.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PodIndex(u32);

/// What the object says of a pod.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Another pod of the same name has another.
    pub uid: String,
    /// Its labels.
    pub labels: Labels,
    /// The name of its ServiceAccount.
    pub account: String,
    /// What its containers call their ports.
    pub named_ports: Arc<[NamedPort]>,
    /// Its addresses by its status.
    stated: Vec<IpAddr>,
    on_host_network: bool,
    ended: bool,
}

impl Facts {
    fn of(object: &Object, pod: &PodObject) -> Facts {
        let spec = pod.spec.as_ref();
        let account = spec.and_then(|spec| {
            // The second is the first one's old name.
            let names = [&spec.service_account_name, &spec.service_account];
            names.into_iter().flatten().find(|name| !name.is_empty())
        });
        let mut stated = pod_addresses(pod);
        stated.sort_unstable();
        stated.dedup();
        Facts {
            uid: object.uid().to_owned(),
            labels: Labels::of(object),
            account: account.map_or_else(|| "default".to_owned(), String::clone),
            named_ports: named_ports(pod).into(),
            stated,
            on_host_network: is_on_host_network(pod),
            ended: has_ended(pod),
        }
    }

    /// Whether policies can be about it: not on the host network.
    pub fn can_be_subject(&self) -> bool {
        !self.on_host_network
    }

    /// The addresses under which it is a peer. `attached` are those of its own interface if it has
    /// one here, which count from before its status has them; `taken` says whether an address
    /// stands behind any interface of this node: then it is no other pod's, whatever a status that
    /// may be out of date still says.
    pub fn addresses(
        &self,
        attached: Option<&[IpAddr]>,
        taken: impl Fn(&IpAddr) -> bool,
    ) -> Vec<IpAddr> {
        let mut addresses = match attached {
            _ if self.on_host_network || self.ended => Vec::new(),
            Some(own) => own.to_vec(),
            None => {
                let stated = self.stated.iter().filter(|address| !taken(address));
                stated.copied().collect()
            }
        };
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }
}

/// One pod.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// None once it is gone; its memberships are yet to be taken back then.
    pub facts: Option<Facts>,
    /// The peer sets it is in, with each of its addresses there, in ascending order.
    pub memberships: Vec<(PeerSetId, Address)>,
}

/// All pods.
#[derive(Debug, Default)]
pub struct Pods {
    places: Vec<Option<Pod>>,
    free: Vec<PodIndex>,
    by_name: HashMap<(Arc<str>, Arc<str>), PodIndex>,
    by_namespace: HashMap<Arc<str>, Vec<PodIndex>>,
    by_label: Labelled<PodIndex>,
    stating: HashMap<IpAddr, Vec<PodIndex>>,
    /// Those whose memberships are to be looked at again.
    stale: BTreeSet<PodIndex>,
}

impl Pods {
    /// Takes a pod as it is now; `None` if it is gone.
    pub fn put(&mut self, namespace: &Arc<str>, name: &Arc<str>, object: Option<&Object>) {
        let typed = object.and_then(|object| Some((object, object.as_pod()?)));
        let facts = typed.map(|(object, pod)| Facts::of(object, pod));
        let key = (namespace.clone(), name.clone());
        let known = self.by_name.get(&key).copied();
        let index = match (known, &facts) {
            (Some(index), _) => index,
            (None, Some(_)) => self.add(key),
            (None, None) => return,
        };
        let Some(pod) = &mut self.places[index.0 as usize] else {
            return;
        };
        if pod.facts == facts {
            return;
        }
        let old = std::mem::replace(&mut pod.facts, facts);
        self.unlist(index, namespace, old.as_ref());
        self.list(index);
        self.stale.insert(index);
    }

    fn add(&mut self, key: (Arc<str>, Arc<str>)) -> PodIndex {
        let pod = Some(Pod {
            namespace: key.0.clone(),
            name: key.1.clone(),
            facts: None,
            memberships: Vec::new(),
        });
        let index = match self.free.pop() {
            Some(index) => {
                self.places[index.0 as usize] = pod;
                index
            }
            None => {
                self.places.push(pod);
                PodIndex((self.places.len() - 1) as u32)
            }
        };
        self.by_name.insert(key, index);
        index
    }

    fn list(&mut self, index: PodIndex) {
        let Some(pod) = &self.places[index.0 as usize] else {
            return;
        };
        let Some(facts) = &pod.facts else { return };
        let neighbours = self.by_namespace.entry(pod.namespace.clone()).or_default();
        neighbours.push(index);
        self.by_label.insert(&facts.labels, index);
        for address in &facts.stated {
            self.stating.entry(*address).or_default().push(index);
        }
    }

    fn unlist(&mut self, index: PodIndex, namespace: &Arc<str>, facts: Option<&Facts>) {
        let Some(facts) = facts else { return };
        if let Some(neighbours) = self.by_namespace.get_mut(namespace) {
            neighbours.retain(|known| *known != index);
            if neighbours.is_empty() {
                self.by_namespace.remove(namespace);
            }
        }
        self.by_label.remove(&facts.labels, index);
        for address in &facts.stated {
            if let Some(pods) = self.stating.get_mut(address) {
                pods.retain(|known| *known != index);
                if pods.is_empty() {
                    self.stating.remove(address);
                }
            }
        }
    }

    /// The pod under a number.
    pub fn get(&self, index: PodIndex) -> Option<&Pod> {
        self.places.get(index.0 as usize)?.as_ref()
    }

    /// Every pod's number.
    pub fn all(&self) -> impl Iterator<Item = PodIndex> {
        self.by_name.values().copied()
    }

    /// The pod called so.
    pub fn find(&self, namespace: &str, name: &str) -> Option<PodIndex> {
        let key = (Arc::from(namespace), Arc::from(name));
        self.by_name.get(&key).copied()
    }

    /// The pods in a scope that a selector matches.
    pub fn selected(
        &self,
        namespaces: &Namespaces,
        scope: ScopeId,
        selector: &Selector,
    ) -> Vec<PodIndex> {
        let neighbours = namespaces
            .only(scope)
            .map(|name| self.by_namespace.get(name));
        let neighbours = neighbours.map(|pods| pods.map_or(&[][..], Vec::as_slice));
        let mut found = match neighbours.filter(|pods| pods.len() <= FEW) {
            Some(few) => few.to_vec(),
            None => match self.by_label.candidates(selector) {
                Some(candidates) => candidates,
                None => {
                    let names = namespaces.of(scope);
                    let lists = names.iter().filter_map(|name| self.by_namespace.get(name));
                    lists.flatten().copied().collect()
                }
            },
        };
        found.retain(|&index| {
            let Some(pod) = self.get(index) else {
                return false;
            };
            let facts = pod.facts.as_ref();
            facts.is_some_and(|facts| facts.labels.satisfy(selector))
                && namespaces.holds(scope, &pod.namespace)
        });
        found
    }

    /// Looks at a pod's memberships again.
    pub fn mark(&mut self, index: PodIndex) {
        self.stale.insert(index);
    }

    /// At those of all pods in a namespace.
    pub fn mark_namespace(&mut self, namespace: &str) {
        let pods = self.by_namespace.get(namespace).into_iter().flatten();
        self.stale.extend(pods);
    }

    /// At those of a namespace's pods with that ServiceAccount.
    pub fn mark_account(&mut self, namespace: &str, account: &str) {
        let pods = self.by_namespace.get(namespace).into_iter().flatten();
        let own = |index: &&PodIndex| {
            let facts = self.get(**index).and_then(|pod| pod.facts.as_ref());
            facts.is_some_and(|facts| facts.account == account)
        };
        let found: Vec<PodIndex> = pods.filter(own).copied().collect();
        self.stale.extend(found);
    }

    /// At those of the pods whose status has an address.
    pub fn mark_stating(&mut self, address: &IpAddr) {
        let pods = self.stating.get(address).into_iter().flatten();
        self.stale.extend(pods);
    }

    /// At those of all pods.
    pub fn mark_all(&mut self) {
        self.stale.extend(self.by_name.values());
    }

    /// Whether there is none left to be marked.
    pub fn are_all_marked(&self) -> bool {
        self.stale.len() == self.by_name.len()
    }

    /// Those that were marked since the last call.
    pub fn take_stale(&mut self) -> Vec<PodIndex> {
        std::mem::take(&mut self.stale).into_iter().collect()
    }

    /// Puts a pod's memberships on record, and gives those that it had. A pod that is gone is
    /// forgotten.
    pub fn settle(
        &mut self,
        index: PodIndex,
        memberships: Vec<(PeerSetId, Address)>,
    ) -> Vec<(PeerSetId, Address)> {
        let Some(place) = self.places.get_mut(index.0 as usize) else {
            return Vec::new();
        };
        if let Some(gone) = place.take_if(|pod| pod.facts.is_none()) {
            self.by_name.remove(&(gone.namespace, gone.name));
            self.free.push(index);
            return gone.memberships;
        }
        let pod = place.as_mut();
        pod.map(|pod| std::mem::replace(&mut pod.memberships, memberships))
            .unwrap_or_default()
    }
}

fn is_on_host_network(pod: &PodObject) -> bool {
    let spec = pod.spec.as_ref();
    spec.and_then(|spec| spec.host_network).unwrap_or_default()
}

/// Whether the pod's containers have ended for good: its address may be another's by now.
pub(crate) fn has_ended(pod: &PodObject) -> bool {
    end_phase(pod).is_some()
}

/// The phase of a pod that has ended.
pub(crate) fn end_phase(pod: &PodObject) -> Option<&str> {
    let phase = pod.status.as_ref()?.phase.as_deref();
    phase.filter(|phase| matches!(*phase, "Succeeded" | "Failed"))
}

/// `status.podIPs`, else `status.podIP`; text that is no address is left out.
pub(crate) fn pod_addresses(pod: &PodObject) -> Vec<IpAddr> {
    let Some(status) = &pod.status else {
        return Vec::new();
    };
    let listed = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let single = status.pod_ip.as_deref();
    let addresses = listed.chain(single).filter_map(|text| text.parse().ok());
    addresses.map(canonical).collect()
}

/// IPv4 in IPv6 is IPv4.
pub(crate) fn canonical(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        v4 => v4,
    }
}
