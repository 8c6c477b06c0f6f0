//! Services and EndpointSlices to the dataplane's [`ServiceTable`].
//!
//! Which endpoints count is kube-proxy's rule (`pkg/proxy/topology.go`, `CategorizeEndpoints`):
//! ready ones, or, where there is none, those that are going but still serve; with a traffic policy
//! `Local` only those of this node. Topology hints are not looked at.
//!
//! What each Service lowers to is kept; a change lowers only the Services that it concerns anew. A
//! [`Services`] never changes: the next one shares with it all but what differs, so that a change
//! that is refused, or only tried, leaves nothing behind.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use dataplane::service::{Frontend, ServiceError, ServiceParts, ServiceTable};
use dataplane::{Address, Protocol, SocketAddress};
use immutable_chunkmap::map::Map;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::lowered::{self, Lowered};
use crate::cluster::Cluster;
use crate::lower::Change;
use crate::objects::{Key, Object, kinds};

/// The label that names a slice's Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Entries of a chunk of the maps.
const CHUNK: usize = 32;

/// Namespace and name.
type Place = (Arc<str>, Arc<str>);
/// A Service's slices by name.
type Slices = Arc<BTreeMap<Arc<str>, Arc<Object>>>;

/// The node that connections come in at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name, as endpoints have it; none takes every endpoint for one of this node.
    pub name: Option<String>,
    /// Its addresses: node ports are theirs.
    pub addresses: Vec<Address>,
    /// Those that it speaks to pods from, one a family at most.
    pub sources: Vec<Address>,
    /// Where pods' addresses are from. An `externalIPs` entry in them would take what is a pod's.
    pub pod_ranges: Vec<IpNet>,
}

/// All Services as the dataplane has them.
#[derive(Clone, Debug, Default)]
pub struct Services {
    node: Arc<Node>,
    lowered: Map<Place, Arc<Lowered>, CHUNK>,
    slices: Map<Place, Slices, CHUNK>,
    table: Arc<ServiceTable>,
}

impl Services {
    /// Those of a cluster, as connections at `node` see them.
    ///
    /// # Errors
    /// More than the dataplane takes.
    pub fn new(cluster: &Cluster, node: Node) -> Result<Services, ServiceError> {
        let empty = Services {
            node: Arc::new(node),
            ..Services::default()
        };
        let all: Vec<Change> = cluster
            .list_of::<Service>()
            .chain(cluster.list_of::<EndpointSlice>())
            .map(Change::added)
            .collect();
        let mut services = empty.lower(cluster, &all);
        services.table = Arc::new(services.build()?);
        Ok(services)
    }

    /// After these changes, which led to `cluster`. The same table if they concern no Service.
    ///
    /// # Errors
    /// More than the dataplane takes.
    pub fn with(&self, cluster: &Cluster, changes: &[Change]) -> Result<Services, ServiceError> {
        let concerned = changes.iter().any(|change| {
            let kind = change.key().map(|key| key.kind.kind);
            matches!(kind, Some("Service" | "EndpointSlice"))
        });
        if !concerned {
            return Ok(self.clone());
        }
        let mut services = self.lower(cluster, changes);
        services.table = Arc::new(services.build()?);
        Ok(services)
    }

    /// The same at a node that has changed.
    ///
    /// # Errors
    /// More than the dataplane takes.
    pub fn at(&self, node: Node) -> Result<Services, ServiceError> {
        if *self.node == node {
            return Ok(self.clone());
        }
        let mut services = self.clone();
        // Its name and the pods' ranges, by which Services are lowered, are the configuration's.
        let same = (&self.node.name, &self.node.pod_ranges) == (&node.name, &node.pod_ranges);
        debug_assert!(
            same || self.lowered.len() == 0,
            "configuration never changes"
        );
        services.node = Arc::new(node);
        services.table = Arc::new(services.build()?);
        Ok(services)
    }

    /// What the dataplane is given.
    pub fn table(&self) -> &Arc<ServiceTable> {
        &self.table
    }

    /// The slices of a Service, by name.
    pub fn slices<'a>(
        &'a self,
        namespace: &str,
        name: &str,
    ) -> impl Iterator<Item = &'a EndpointSlice> {
        let slices = self.slices.get(&place(namespace, name));
        slices
            .into_iter()
            .flat_map(|slices| slices.values())
            .filter_map(|object| object.as_endpoint_slice())
    }

    fn lower(&self, cluster: &Cluster, changes: &[Change]) -> Services {
        let mut next = self.clone();
        let mut dirty: BTreeSet<Place> = BTreeSet::new();
        for change in changes {
            let Some(key) = change.key() else { continue };
            match key.kind.kind {
                "Service" => {
                    dirty.insert((key.namespace.clone(), key.name.clone()));
                }
                "EndpointSlice" => {
                    for object in [&change.old, &change.new] {
                        dirty.extend(object.as_deref().and_then(owner));
                    }
                    next.follow_slice(&key.name, change);
                }
                _ => {}
            }
        }
        let Some(kind) = kinds::of::<Service>() else {
            return next;
        };
        for place in dirty {
            let service = cluster.get(&Key::new(kind, &place.0, &place.1));
            let slices: Vec<&EndpointSlice> = next.slices(&place.0, &place.1).collect();
            let made = service.and_then(|service| lowered::lower(service, &slices, &next.node));
            match made {
                Some(made) => {
                    next.lowered.insert_cow(place, Arc::new(made));
                }
                None => {
                    next.lowered.remove_cow(&place);
                }
            }
        }
        next
    }

    fn follow_slice(&mut self, name: &Arc<str>, change: &Change) {
        let old = change.old.as_deref().and_then(owner);
        if let Some(place) = old
            && let Some(slices) = self.slices.get(&place)
        {
            let mut slices = slices.clone();
            Arc::make_mut(&mut slices).remove(name);
            match slices.is_empty() {
                true => self.slices.remove_cow(&place),
                false => self.slices.insert_cow(place, slices),
            };
        }
        if let Some(object) = &change.new
            && let Some(place) = owner(object)
        {
            let known = self.slices.get(&place).cloned();
            let mut slices = known.unwrap_or_default();
            Arc::make_mut(&mut slices).insert(name.clone(), object.clone());
            self.slices.insert_cow(place, slices);
        }
    }

    fn build(&self) -> Result<ServiceTable, ServiceError> {
        let mut parts = ServiceParts::default();
        let mut seen: HashSet<(SocketAddress, Protocol)> = HashSet::new();
        let mut add = |parts: &mut ServiceParts, frontend: Frontend| {
            if seen.insert((frontend.at(), frontend.protocol)) {
                parts.frontends.push(frontend);
            }
        };
        let all = || (&self.lowered).into_iter().map(|(_, lowered)| lowered);
        for lowered in all() {
            for frontend in &lowered.cluster {
                add(&mut parts, frontend.clone());
            }
        }
        let usable = |address: &&Address| !lowered::is_link_local(address.to_ip());
        for address in self.node.addresses.iter().filter(usable) {
            for port in all().flat_map(|lowered| &lowered.node_ports) {
                // Of a node port the address says the family only.
                if port.address.is_v4() == address.is_v4() {
                    let address = *address;
                    add(
                        &mut parts,
                        Frontend {
                            address,
                            ..port.clone()
                        },
                    );
                }
            }
        }
        // Last, so that nobody takes by them what is another's.
        for lowered in all() {
            for frontend in &lowered.external {
                // Of an address of the node itself only this port is a Service's.
                let node_port = self.node.addresses.contains(&frontend.address);
                let frontend = frontend.clone();
                add(
                    &mut parts,
                    Frontend {
                        node_port,
                        ..frontend
                    },
                );
            }
            parts.addresses.extend(&lowered.closed);
        }
        let source = |v4: bool| {
            let mut sources = self.node.sources.iter().chain(&self.node.addresses);
            sources.find(|address| address.is_v4() == v4).copied()
        };
        parts.source_v4 = source(true);
        parts.source_v6 = source(false);
        ServiceTable::build(parts)
    }
}

fn place(namespace: &str, name: &str) -> Place {
    (Arc::from(namespace), Arc::from(name))
}

/// The Service that a slice is of.
fn owner(slice: &Object) -> Option<Place> {
    let name = slice.label(SERVICE_NAME)?;
    Some((slice.key().namespace.clone(), Arc::from(name)))
}
