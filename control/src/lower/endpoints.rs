//! The pods' interfaces on this node, and the chains that are compiled for each.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use dataplane::policy::{ChainId, EndpointSlot, Slot};

use super::pods::PodIndex;

/// A pod's interface on this node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalEndpoint {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's UID: another pod of that name is another endpoint.
    pub uid: String,
    /// The interface's addresses. They stand for the pod also before its status has them.
    pub addresses: Vec<IpAddr>,
}

/// What is compiled for an endpoint, by direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chains {
    /// What is enforced.
    pub enforced: [ChainId; 2],
    /// What would be with the policies in audit mode, where that may decide otherwise.
    pub audit: Option<[ChainId; 2]>,
}

impl Chains {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = ChainId> {
        self.enforced
            .into_iter()
            .chain(self.audit.into_iter().flatten())
    }
}

impl From<&Chains> for Slot {
    fn from(chains: &Chains) -> Slot {
        Slot {
            enforced: chains.enforced,
            audit: chains.audit,
        }
    }
}

/// An endpoint with its place in the tables.
#[derive(Clone, Debug)]
pub struct Attached {
    /// Who it is.
    pub local: LocalEndpoint,
    /// Its place, as long as it is attached.
    pub slot: EndpointSlot,
    /// Its pod, if that is among the objects.
    pub pod: Option<PodIndex>,
    /// None until they are compiled for the first time.
    pub chains: Option<Chains>,
}

/// There are no more places in the tables.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("at most {} endpoints fit", u16::MAX)]
pub struct OutOfSlots;

/// The endpoints by UID.
#[derive(Debug, Default)]
pub struct LocalEndpoints {
    by_uid: BTreeMap<String, Attached>,
    by_pod: HashMap<PodIndex, Vec<String>>,
    /// UIDs by namespace.
    by_namespace: HashMap<String, BTreeSet<String>>,
    /// Addresses behind interfaces, with how many have each.
    addresses: HashMap<IpAddr, u32>,
    free: BTreeSet<u16>,
    next: u16,
    /// Those whose chains are to be put together again.
    stale: BTreeSet<String>,
}

impl LocalEndpoints {
    /// Adds an endpoint that is not there.
    pub fn attach(&mut self, local: LocalEndpoint) -> Result<EndpointSlot, OutOfSlots> {
        let slot = match self.free.pop_first() {
            Some(slot) => slot,
            None if self.next == u16::MAX => return Err(OutOfSlots),
            None => {
                self.next += 1;
                self.next - 1
            }
        };
        for address in &local.addresses {
            *self.addresses.entry(*address).or_default() += 1;
        }
        let slot = EndpointSlot(slot);
        self.stale.insert(local.uid.clone());
        let neighbours = self.by_namespace.entry(local.namespace.clone());
        neighbours.or_default().insert(local.uid.clone());
        let attached = Attached {
            local,
            slot,
            pod: None,
            chains: None,
        };
        self.by_uid.insert(attached.local.uid.clone(), attached);
        Ok(slot)
    }

    /// Takes an endpoint out. Its place may be another's from then on.
    pub fn detach(&mut self, uid: &str) -> Option<Attached> {
        let gone = self.by_uid.remove(uid)?;
        self.stale.remove(uid);
        self.free.insert(gone.slot.0);
        for address in &gone.local.addresses {
            if let Some(count) = self.addresses.get_mut(address) {
                *count -= 1;
                if *count == 0 {
                    self.addresses.remove(address);
                }
            }
        }
        if let Some(neighbours) = self.by_namespace.get_mut(&gone.local.namespace) {
            neighbours.remove(uid);
            if neighbours.is_empty() {
                self.by_namespace.remove(&gone.local.namespace);
            }
        }
        self.unlink(&gone);
        Some(gone)
    }

    fn unlink(&mut self, endpoint: &Attached) {
        let Some(pod) = endpoint.pod else { return };
        if let Some(uids) = self.by_pod.get_mut(&pod) {
            uids.retain(|uid| *uid != endpoint.local.uid);
            if uids.is_empty() {
                self.by_pod.remove(&pod);
            }
        }
    }

    /// Says which pod stands behind an endpoint.
    pub fn link(&mut self, uid: &str, pod: Option<PodIndex>) {
        let Some(known) = self
            .by_uid
            .get(uid)
            .filter(|known| known.pod != pod)
            .cloned()
        else {
            return;
        };
        self.unlink(&known);
        if let Some(pod) = pod {
            self.by_pod.entry(pod).or_default().push(uid.to_owned());
        }
        if let Some(endpoint) = self.by_uid.get_mut(uid) {
            endpoint.pod = pod;
        }
    }

    /// Puts an endpoint's chains on record, and gives those that it had.
    pub fn compiled(&mut self, uid: &str, chains: Chains) -> Option<Chains> {
        self.by_uid.get_mut(uid)?.chains.replace(chains)
    }

    /// The endpoint of that UID.
    pub fn get(&self, uid: &str) -> Option<&Attached> {
        self.by_uid.get(uid)
    }

    /// All of them, by UID.
    pub fn iter(&self) -> impl Iterator<Item = &Attached> {
        self.by_uid.values()
    }

    /// Those of one namespace, by UID.
    pub fn iter_in(&self, namespace: &str) -> impl Iterator<Item = &Attached> {
        let uids = self.by_namespace.get(namespace).into_iter().flatten();
        uids.filter_map(|uid| self.by_uid.get(uid))
    }

    /// Whether an endpoint's chains are to be put together again anyway.
    pub fn is_marked(&self, uid: &str) -> bool {
        self.stale.contains(uid)
    }

    /// The addresses of a pod's own interface.
    pub fn addresses_of(&self, namespace: &str, name: &str, uid: &str) -> Option<&[IpAddr]> {
        let local = &self.by_uid.get(uid)?.local;
        let same = local.namespace == namespace && local.name == name;
        same.then_some(&local.addresses)
    }

    /// Whether an address stands behind any interface.
    pub fn has(&self, address: &IpAddr) -> bool {
        self.addresses.contains_key(address)
    }

    /// Puts the chains together again of the endpoints that a pod stood behind, or has now.
    pub fn mark_pod(&mut self, pod: PodIndex, uid: Option<&str>) {
        let linked = self.by_pod.get(&pod).into_iter().flatten().cloned();
        self.stale.extend(linked);
        if let Some(uid) = uid.filter(|uid| self.by_uid.contains_key(*uid)) {
            self.stale.insert(uid.to_owned());
        }
    }

    /// Puts an endpoint's chains together again.
    pub fn mark(&mut self, uid: &str) {
        self.stale.insert(uid.to_owned());
    }

    /// Puts the chains of all together again.
    pub fn mark_all(&mut self) {
        self.stale.extend(self.by_uid.keys().cloned());
    }

    /// Those that were marked since the last call.
    pub fn take_stale(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.stale)
    }

    /// The first place behind all endpoints'.
    pub fn slots_end(&self) -> u16 {
        self.next
    }
}
