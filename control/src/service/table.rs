//! Services and EndpointSlices to the dataplane's [`ServiceTable`].
//!
//! Which endpoints count is kube-proxy's rule (`pkg/proxy/topology.go`, `CategorizeEndpoints`):
//! ready ones, or, where there is none, those that are going but still serve; with a traffic policy
//! `Local` only those of this node. Topology hints are not looked at.
//!
//! What each Service lowers to is kept; a change lowers only the Services that it concerns anew, and
//! tells the table only what that makes different. A [`Services`] never changes: the next one shares
//! with it all but what differs, so that a change that is refused, or only tried, leaves nothing
//! behind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dataplane::Address;
use dataplane::service::{ServiceError, ServiceParts, ServiceTable};
use immutable_chunkmap::map::Map;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::claims::{self, Claims};
use super::lowered::{self, Lowered};
use crate::cluster::Cluster;
use crate::lower::Change;
use crate::objects::{Key, Object, kinds};

/// The label that names a slice's Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Entries of a chunk of the maps.
pub(super) const CHUNK: usize = 32;

/// Namespace and name.
pub(super) type Place = (Arc<str>, Arc<str>);
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
    claims: Claims,
    table: Arc<ServiceTable>,
}

impl Services {
    /// Those of a cluster, as connections at `node` see them.
    ///
    /// # Errors
    /// More than the dataplane takes.
    pub fn new(cluster: &Cluster, node: Node) -> Result<Services, ServiceError> {
        let all: Vec<Change> = cluster
            .list_of::<Service>()
            .chain(cluster.list_of::<EndpointSlice>())
            .map(Change::added)
            .collect();
        Services::default().at(node)?.with(cluster, &all)
    }

    /// After these changes, which led to `cluster`. The same table if they concern no Service.
    ///
    /// # Errors
    /// More than the dataplane takes.
    pub fn with(&self, cluster: &Cluster, changes: &[Change]) -> Result<Services, ServiceError> {
        let mut next = self.clone();
        let dirty = next.follow(changes);
        if dirty.is_empty() {
            return Ok(next);
        }
        let mut keys = BTreeSet::new();
        let (mut gone, mut come) = (Vec::new(), Vec::new());
        for place in dirty {
            let made = next.lower(cluster, &place);
            let node = next.node.clone();
            if let Some(old) = next.lowered.get(&place).cloned() {
                let of: Vec<_> = claims::of(&place, &old, &node)
                    .map(|(key, _)| key)
                    .collect();
                next.claims.withdraw(&place, of.iter().copied());
                keys.extend(of);
                gone.extend(&old.closed);
            }
            let Some(made) = made else {
                next.lowered.remove_cow(&place);
                continue;
            };
            keys.extend(claims::of(&place, &made, &node).map(|(key, _)| key));
            next.claims.make(claims::of(&place, &made, &node));
            come.extend(&made.closed);
            next.lowered.insert_cow(place, Arc::new(made));
        }
        let mut change = next.claims.changes(&self.claims, keys);
        change.gone_addresses = gone;
        change.addresses = come;
        if !change.is_empty() {
            next.table = Arc::new(self.table.with(change)?);
        }
        Ok(next)
    }

    /// The same at a node that has changed.
    ///
    /// # Errors
    /// More than the dataplane takes.
    pub fn at(&self, node: Node) -> Result<Services, ServiceError> {
        if *self.node == node {
            return Ok(self.clone());
        }
        // Its name and the pods' ranges, by which Services are lowered, are the configuration's.
        let same = (&self.node.name, &self.node.pod_ranges) == (&node.name, &node.pod_ranges);
        debug_assert!(
            same || self.lowered.len() == 0,
            "configuration never changes"
        );
        let source = |v4: bool| {
            let mut sources = node.sources.iter().chain(&node.addresses);
            sources.find(|address| address.is_v4() == v4).copied()
        };
        let mut parts = ServiceParts {
            source_v4: source(true),
            source_v6: source(false),
            ..ServiceParts::default()
        };
        let mut keys = BTreeSet::new();
        let mut claims = Claims::default();
        for (place, lowered) in &self.lowered {
            keys.extend(claims::of(place, lowered, &node).map(|(key, _)| key));
            claims.make(claims::of(place, lowered, &node));
            parts.addresses.extend(&lowered.closed);
        }
        let change = claims.changes(&Claims::default(), keys);
        Ok(Services {
            node: Arc::new(node),
            claims,
            table: Arc::new(ServiceTable::build(parts)?.with(change)?),
            ..self.clone()
        })
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

    /// Keeps up with the slices; the Services that these changes concern.
    fn follow(&mut self, changes: &[Change]) -> BTreeSet<Place> {
        let mut dirty = BTreeSet::new();
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
                    self.follow_slice(&key.name, change);
                }
                _ => {}
            }
        }
        dirty
    }

    /// What a Service is to the dataplane; none of one that is gone, or has no address of its own.
    fn lower(&self, cluster: &Cluster, place: &Place) -> Option<Lowered> {
        let kind = kinds::of::<Service>()?;
        let service = cluster.get(&Key::new(kind, &place.0, &place.1))?;
        let slices: Vec<&EndpointSlice> = self.slices(&place.0, &place.1).collect();
        lowered::lower(service, &slices, &self.node)
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
}

fn place(namespace: &str, name: &str) -> Place {
    (Arc::from(namespace), Arc::from(name))
}

/// The Service that a slice is of.
fn owner(slice: &Object) -> Option<Place> {
    let name = slice.label(SERVICE_NAME)?;
    Some((slice.key().namespace.clone(), Arc::from(name)))
}
