//! Ordered maps whose copies share what is equal.
//!
//! A copy costs a reference count, a change a chunk of [`CHUNK`] entries and the nodes above it,
//! whatever the size: a transaction works on a copy of the store, and who reads an older one keeps
//! it as it was.

use std::sync::Arc;

use immutable_chunkmap::map::Map;
use immutable_chunkmap::set::Set;

use crate::objects::{Key, Object};

/// Entries of a chunk: what a change copies. Each costs up to three reference counts, so that
/// larger chunks make changes slow; smaller ones make the trees deep.
pub(super) const CHUNK: usize = 32;

/// Namespace and name.
type Place = (Arc<str>, Arc<str>);

/// Objects of one kind by namespace and name.
#[derive(Clone, Debug, Default)]
pub(super) struct Shelf(Map<Place, Arc<Object>, CHUNK>);

fn place(key: &Key) -> Place {
    (key.namespace.clone(), key.name.clone())
}

impl Shelf {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Arc<Object>> {
        self.0.get(&place(key))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Object>> {
        (&self.0).into_iter().map(|(_, object)| object)
    }

    pub(super) fn iter_in<'a>(
        &'a self,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Object>> {
        let first: Place = (Arc::from(namespace), Arc::from(""));
        let rest = self.0.range::<Place, _>(first..);
        rest.take_while(move |((other, _), _)| &**other == namespace)
            .map(|(_, object)| object)
    }

    /// Puts an object in; the one that stood there.
    pub(super) fn put(&mut self, object: Arc<Object>) -> Option<Arc<Object>> {
        self.0.insert_cow(place(object.key()), object)
    }

    pub(super) fn take(&mut self, key: &Key) -> Option<Arc<Object>> {
        self.0.remove_cow(&place(key))
    }
}

/// Objects' keys by a UID that they have or name. `None` sorts before all keys of its UID.
#[derive(Clone, Debug, Default)]
pub(super) struct KeysByUid(Set<(Arc<str>, Option<Key>), CHUNK>);

impl KeysByUid {
    /// The keys at `uid`; none at the empty one, which stands for "no UID".
    pub(super) fn keys<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = &'a Key> {
        let first: (Arc<str>, Option<Key>) = (Arc::from(uid), None);
        let rest = self.0.range::<(Arc<str>, Option<Key>), _>(first..);
        rest.take_while(move |(other, _)| &**other == uid)
            .filter_map(|(_, key)| key.as_ref())
    }

    pub(super) fn insert(&mut self, uid: &str, key: &Key) {
        if !uid.is_empty() {
            self.0.insert_cow((Arc::from(uid), Some(key.clone())));
        }
    }

    pub(super) fn remove(&mut self, uid: &str, key: &Key) {
        if !uid.is_empty() {
            self.0.remove_cow(&(Arc::from(uid), Some(key.clone())));
        }
    }
}
