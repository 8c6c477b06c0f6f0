//! Nodes as peers: their labels and the addresses of their status.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use dataplane::Address;
use dataplane::policy::ir::PeerSetId;
use k8s_openapi::api::core::v1::Node as NodeObject;

use super::labels::Labels;
use super::pods::canonical;
use super::sets::PeerSets;
use crate::objects::Object;

/// One node.
#[derive(Clone, Debug, Default)]
struct Node {
    /// None once it is gone; its memberships are yet to be taken back then.
    facts: Option<(Labels, Vec<IpAddr>)>,
    memberships: Vec<(PeerSetId, Address)>,
}

/// All nodes.
#[derive(Debug, Default)]
pub struct Nodes {
    by_name: BTreeMap<Arc<str>, Node>,
    /// Those whose memberships are to be looked at again.
    stale: BTreeSet<Arc<str>>,
}

/// What a member's memberships were and are now.
pub struct Moved {
    /// Before, in ascending order.
    pub before: Vec<(PeerSetId, Address)>,
    /// Now, in ascending order.
    pub after: Vec<(PeerSetId, Address)>,
}

impl Nodes {
    /// Takes a node as it is now; `None` if it is gone.
    pub fn put(&mut self, name: &Arc<str>, object: Option<&Object>) {
        let typed = object.and_then(|object| Some((object, object.as_node()?)));
        let facts = typed.map(|(object, node)| (Labels::of(object), addresses(node)));
        let node = self.by_name.entry(name.clone()).or_default();
        if node.facts != facts {
            node.facts = facts;
            self.stale.insert(name.clone());
        }
    }

    /// Looks at the memberships of all nodes again.
    pub fn mark_all(&mut self) {
        self.stale.extend(self.by_name.keys().cloned());
    }

    /// Finds the sets that marked nodes are in now.
    pub fn settle(&mut self, sets: &PeerSets) -> Vec<Moved> {
        let mut moved = Vec::new();
        for name in std::mem::take(&mut self.stale) {
            let Some(node) = self.by_name.get_mut(&name) else {
                continue;
            };
            let mut after = Vec::new();
            if let Some((labels, addresses)) = &node.facts {
                for set in sets.of_node(labels) {
                    after.extend(addresses.iter().map(|ip| (set, Address::from(*ip))));
                }
                after.sort_unstable();
            }
            let before = std::mem::replace(&mut node.memberships, after.clone());
            if node.facts.is_none() {
                self.by_name.remove(&name);
            }
            moved.push(Moved { before, after });
        }
        moved
    }
}

/// `status.addresses`, those that are addresses and not names.
fn addresses(node: &NodeObject) -> Vec<IpAddr> {
    let status = node.status.as_ref();
    let stated = status.and_then(|status| status.addresses.as_deref());
    let mut found: Vec<IpAddr> = stated
        .unwrap_or_default()
        .iter()
        .filter_map(|address| address.address.parse().ok())
        .map(canonical)
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}
