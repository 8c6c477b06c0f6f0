//! The objects of a cluster and what an API server does with them: create, apply, replace, patch,
//! delete, status; UIDs, resource versions and generations; namespaces' lives, owners' deaths.
//!
//! A [`Cluster`] is plain data and never changes under its reader's hands. Changes are made in a
//! [`Transaction`], a copy that is committed whole or dropped, and that tells every change as an
//! [`Event`], for the journal and for watchers. Copies share all but what differs (persistent
//! ordered maps, [`shelf`]), so that neither a copy nor one change among many objects costs more
//! for their number. Clock and chance come from the caller ([`Source`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value, json};
use thiserror::Error;

use crate::objects::{DecodeError, Definitions, Key, Kind, Object, decode, definitions, kinds};
pub use crate::protocol::{OperationKind, Reason};
use crate::service::Pools;

mod claims;
mod custom;
mod deletion;
mod fields;
pub mod patch;
mod shelf;
mod source;
mod transaction;

pub use claims::Claims;
pub use deletion::DeleteOptions;
pub use source::{Seeded, Source, System};
pub use transaction::{Outcome, Transaction};

use shelf::{KeysByUid, Shelf};

/// Namespaces that always exist and cannot be deleted.
pub const SYSTEM_NAMESPACES: [&str; 4] =
    ["default", "kube-node-lease", "kube-public", "kube-system"];
/// The annotation in which `kubectl apply` keeps what it applied.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Why a change is refused. Nothing has changed then.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{message}")]
pub struct Refusal {
    /// Kubernetes' reason.
    pub reason: Reason,
    /// In the API server's words; for [`Reason::Invalid`] the whole of what kubectl prints
    /// (`The Pod "x" is invalid: …`), else what it prints behind `Error from server (REASON): `.
    pub message: String,
}

impl Refusal {
    pub(crate) fn new(reason: Reason, message: impl Into<String>) -> Refusal {
        Refusal {
            reason,
            message: message.into(),
        }
    }

    /// `pods "x" not found`.
    pub fn not_found(key: &Key) -> Refusal {
        let resource = key.kind.qualified_plural();
        Refusal::new(
            Reason::NotFound,
            format!("{resource} {:?} not found", &*key.name),
        )
    }
}

impl From<DecodeError> for Refusal {
    fn from(error: DecodeError) -> Refusal {
        let reason = match error {
            DecodeError::UnknownKind { .. } => Reason::NotFound,
            DecodeError::ForeignPolicy { .. } => Reason::Forbidden,
            DecodeError::TooMany => Reason::RequestEntityTooLarge,
            _ => Reason::BadRequest,
        };
        Refusal::new(reason, error.to_string())
    }
}

/// What happened to an object, as watchers are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventKind {
    /// `ADDED`.
    Added,
    /// `MODIFIED`.
    Modified,
    /// `DELETED`.
    Deleted,
}

/// One change.
#[derive(Clone, Debug)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The object as it is now; of a deleted one the last state, with the deletion's version.
    pub object: Arc<Object>,
    /// The object as it was.
    pub old: Option<Arc<Object>>,
}

/// A committed transaction.
#[derive(Debug)]
pub struct Commit {
    /// The cluster with the changes.
    pub cluster: Cluster,
    /// The changes, in order.
    pub events: Vec<Event>,
    /// For a person, without `Warning: `.
    pub warnings: Vec<String>,
}

/// The objects of a cluster. Cheap to clone, however many there are; clones are independent.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    shelves: BTreeMap<&'static Kind, Shelf>,
    /// Objects by their own UID.
    stored: KeysByUid,
    /// Objects by the UIDs of their owners.
    owned: KeysByUid,
    /// What Services have.
    claims: Claims,
    /// What CustomResourceDefinitions define.
    definitions: Definitions,
    /// What Services can have.
    pools: Arc<Pools>,
    resource_version: u64,
}

impl Cluster {
    /// Nothing at all, for a store that is to be restored ([`Cluster::restore`]).
    pub fn empty() -> Cluster {
        Cluster::default()
    }

    /// The same with other pools that Services' addresses and node ports come from.
    pub fn with_pools(mut self, pools: Pools) -> Cluster {
        self.pools = Arc::new(pools);
        self
    }

    /// What Services' addresses and node ports come from.
    pub fn pools(&self) -> &Pools {
        &self.pools
    }

    /// Which Services have which addresses and node ports.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The kinds that CustomResourceDefinitions define.
    pub fn definitions(&self) -> &Definitions {
        &self.definitions
    }

    /// A cluster with [`SYSTEM_NAMESPACES`] and the Service `default/kubernetes` left out: nothing
    /// serves it here.
    pub fn new(source: &mut dyn Source) -> Cluster {
        Cluster::empty().with_system_namespaces(source).cluster
    }

    /// Adds those of [`SYSTEM_NAMESPACES`] that lack.
    pub fn with_system_namespaces(self, source: &mut dyn Source) -> Commit {
        let mut transaction = self.begin(source);
        for name in SYSTEM_NAMESPACES {
            let value = json!({
                "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}
            });
            if let Ok(object) = Object::new(value)
                && transaction.get(object.key()).is_none()
            {
                // Cannot be refused: the name is valid and not taken.
                let _ = transaction.create(object);
            }
        }
        transaction.commit()
    }

    /// Starts a transaction on a copy.
    pub fn begin<'a>(&self, source: &'a mut dyn Source) -> Transaction<'a> {
        Transaction::new(self.clone(), source)
    }

    /// The version of the newest change.
    pub fn resource_version(&self) -> u64 {
        self.resource_version
    }

    /// The object called so.
    pub fn get(&self, key: &Key) -> Option<&Arc<Object>> {
        self.shelves.get(key.kind)?.get(key)
    }

    /// Objects of a kind by namespace and name.
    pub fn list(&self, kind: &'static Kind) -> impl Iterator<Item = &Arc<Object>> {
        self.shelves.get(kind).into_iter().flat_map(Shelf::iter)
    }

    /// Objects of a kind in one namespace by name.
    pub fn list_in<'a>(
        &'a self,
        kind: &'static Kind,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Object>> {
        let shelf = self.shelves.get(kind).into_iter();
        shelf.flat_map(move |shelf| shelf.iter_in(namespace))
    }

    /// Objects of every kind in one namespace, by kind and name; cluster-scoped ones in none (`""`).
    pub fn content_of<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Object>> {
        let shelves = self.shelves.values();
        shelves.flat_map(move |shelf| shelf.iter_in(namespace))
    }

    /// Objects that the object with this UID owns (`metadata.ownerReferences`).
    pub fn dependents<'a>(&'a self, owner: &'a str) -> impl Iterator<Item = &'a Arc<Object>> {
        self.owned.keys(owner).filter_map(|key| self.get(key))
    }

    /// Whether there is an object with this UID.
    pub fn is_stored(&self, uid: &str) -> bool {
        self.stored.keys(uid).next().is_some()
    }

    /// Objects of the kind of `T`, for kinds that are known.
    pub fn list_of<T: k8s_openapi::Resource>(&self) -> impl Iterator<Item = &Arc<Object>> {
        let kind = kinds::of::<T>();
        kind.into_iter().flat_map(|kind| self.list(kind))
    }

    /// Every object, by kind, namespace and name.
    pub fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.shelves.values().flat_map(Shelf::iter)
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.shelves.values().map(Shelf::len).sum()
    }

    /// The kind called so, if there are objects of it.
    pub fn kind(&self, api_version: &str, name: &str) -> Option<&'static Kind> {
        let is_meant = |kind: &&&'static Kind| kind.api_version == api_version && kind.kind == name;
        self.shelves.keys().find(is_meant).copied()
    }

    /// How many objects of each kind there are, for kinds that have any.
    pub fn counts(&self) -> impl Iterator<Item = (&'static Kind, usize)> {
        let shelves = self.shelves.iter();
        let counts = shelves.map(|(kind, shelf)| (*kind, shelf.len()));
        counts.filter(|(_, count)| *count > 0)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the namespace exists.
    pub fn has_namespace(&self, name: &str) -> bool {
        self.namespace(name).is_some()
    }

    /// The namespace called so.
    pub fn namespace(&self, name: &str) -> Option<&Arc<Object>> {
        self.get(&Key::new(kinds::find("v1", "Namespace")?, "", name))
    }

    /// The pod called so.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        self.get(&Key::new(kinds::find("v1", "Pod")?, namespace, name))
    }

    /// Puts a stored object back as it was: from a snapshot or a journal, without any check. What
    /// defines its kind has to be there before.
    pub fn restore(&mut self, value: Value) -> Result<(), DecodeError> {
        let kind = decode::kind_among(&value, &self.definitions)?;
        let (object, _) = Object::with_kind(kind, value)?;
        let version = object.resource_version().parse().unwrap_or(0);
        self.resource_version = self.resource_version.max(version);
        self.put(Arc::new(object));
        Ok(())
    }

    /// Removes an object while a journal is replayed; `version` is that of the deletion.
    pub fn forget(&mut self, key: &Key, version: u64) {
        self.resource_version = self.resource_version.max(version);
        self.take(key);
    }

    fn put(&mut self, object: Arc<Object>) -> Option<Arc<Object>> {
        let shelf = self.shelves.entry(object.kind()).or_default();
        let old = shelf.put(object.clone());
        self.claims.follow(old.as_deref(), Some(&object));
        if is_definition(&object) {
            self.definitions.read(object.value());
        }
        if old.as_ref().is_none_or(|old| old.uid() != object.uid()) {
            if let Some(old) = &old {
                self.stored.remove(old.uid(), old.key());
            }
            self.stored.insert(object.uid(), object.key());
        }
        if let Some(old) = &old {
            // Most changes leave the owners as they are.
            if old.owners().eq(object.owners()) {
                return Some(old.clone());
            }
            for owner in old.owners() {
                self.owned.remove(owner, old.key());
            }
        }
        for owner in object.owners() {
            self.owned.insert(owner, object.key());
        }
        old
    }

    fn take(&mut self, key: &Key) -> Option<Arc<Object>> {
        let old = self.shelves.get_mut(key.kind)?.take(key)?;
        self.stored.remove(old.uid(), key);
        self.claims.follow(Some(&old), None);
        if is_definition(&old) {
            self.definitions.remove(old.name());
        }
        for owner in old.owners() {
            self.owned.remove(owner, key);
        }
        Some(old)
    }
}

/// Whether it is a CustomResourceDefinition.
fn is_definition(object: &Object) -> bool {
    (object.kind().api_version, object.kind().kind) == definitions::DEFINITION
}

/// A moment as Kubernetes writes it: RFC 3339 in whole seconds, UTC. Moments before 1970 are 1970.
pub fn timestamp(at: SystemTime) -> String {
    let seconds = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs());
    let moment = k8s_openapi::jiff::Timestamp::from_second(seconds as i64).unwrap_or_default();
    moment.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests;
