//! Changes to a cluster, all or none.

use std::sync::Arc;

use serde_json::Value;

use super::fields::{
    SERVER_FIELDS, annotate_last_applied, differs_in_spec, has_finalizers, keep_server_fields, key,
    metadata, suffix, uuid,
};
use super::{
    Cluster, Commit, Event, EventKind, LAST_APPLIED, OperationKind, Reason, Refusal,
    SYSTEM_NAMESPACES, Source, custom, is_definition, patch, timestamp,
};
use crate::objects::{Category, FieldValidation, Key, Kind, Object, decode};
use crate::protocol::PatchType;
use crate::{defaults, validate};

/// What became of an object.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was done.
    pub operation: OperationKind,
    /// The object as it is now; of a deleted one the last state.
    pub object: Arc<Object>,
}

/// How to delete.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeleteOptions<'a> {
    /// Seconds that a pod that runs somewhere (`spec.nodeName`) gets to end; 0 removes it at once.
    /// `None`: the pod's own.
    pub grace_period_s: Option<u32>,
    /// Refuse with `Conflict` unless the object has this UID.
    pub uid: Option<&'a str>,
    /// Leave what the object owns (`--cascade=orphan`).
    pub orphan: bool,
}

/// Changes in the making. Dropped, it changes nothing.
pub struct Transaction<'a> {
    pub(super) cluster: Cluster,
    source: &'a mut dyn Source,
    pub(super) events: Vec<Event>,
    warnings: Vec<String>,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(cluster: Cluster, source: &'a mut dyn Source) -> Transaction<'a> {
        Transaction {
            cluster,
            source,
            events: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// The cluster as the transaction has made it so far.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The object called so, as the transaction has made it so far.
    pub fn get(&self, key: &Key) -> Option<&Arc<Object>> {
        self.cluster.get(key)
    }

    /// Adds a warning for the caller.
    pub fn warn(&mut self, warning: impl Into<String>) {
        let warning = warning.into();
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// Ends it: the caller's cluster is [`Commit::cluster`] from now on.
    pub fn commit(mut self) -> Commit {
        // A file may bind pods to a group before it has the group: now all of it is there.
        for object in self.events.iter().map(|event| &event.object) {
            for warning in validate::security_group::absent_groups(object, &self.cluster) {
                if !self.warnings.contains(&warning) {
                    self.warnings.push(warning);
                }
            }
        }
        Commit {
            cluster: self.cluster,
            events: self.events,
            warnings: self.warnings,
        }
    }

    /// Stores a new object.
    pub fn create(&mut self, object: Object) -> Result<Outcome, Refusal> {
        let kind = object.kind();
        self.create_value(kind, object.into_value())
    }

    fn create_value(&mut self, kind: &'static Kind, mut value: Value) -> Result<Outcome, Refusal> {
        let meta = metadata(&mut value);
        for field in SERVER_FIELDS {
            meta.shift_remove(field);
        }
        let named = meta.get("name").and_then(Value::as_str);
        if named.is_none_or(str::is_empty)
            && let Some(prefix) = meta.get("generateName").and_then(Value::as_str)
        {
            let name = format!("{prefix}{}", suffix(self.source.random()));
            meta.insert("name".to_owned(), Value::from(name));
        }
        let key = key(kind, &value);
        if self.cluster.get(&key).is_some() {
            let resource = kind.qualified_plural();
            let message = format!("{resource} {:?} already exists", &*key.name);
            return Err(Refusal::new(Reason::AlreadyExists, message));
        }
        self.check_namespace(&key)?;
        self.check_definition(&key)?;
        defaults::on_create(kind, &mut value, &self.cluster)?;
        let meta = metadata(&mut value);
        let uid = uuid(self.source.random());
        let now = timestamp(self.source.now());
        meta.insert("uid".to_owned(), Value::from(uid));
        meta.insert("creationTimestamp".to_owned(), Value::from(now));
        if kind.counts_generation {
            meta.insert("generation".to_owned(), Value::from(1));
        }
        let object = self.next_version(kind, value)?;
        self.validate(&object, None)?;
        if kind.category == Category::Stored {
            self.warn_of_effect(&object);
        }
        Ok(Outcome {
            operation: OperationKind::Created,
            object: self.put(object, EventKind::Added),
        })
    }

    /// Does what `kubectl apply` does: creates the object, or merges three ways what was applied
    /// before ([`LAST_APPLIED`]), what is applied now and what is there.
    pub fn apply(&mut self, object: Object) -> Result<Outcome, Refusal> {
        let (key, uid) = (object.key().clone(), object.uid().to_owned());
        let mut wanted = object.into_value();
        annotate_last_applied(&mut wanted);
        if key.name.is_empty() {
            return Err(Refusal::new(
                Reason::BadRequest,
                "resource name may not be empty",
            ));
        }
        let Some(live) = self.cluster.get(&key).cloned() else {
            return self.create_value(key.kind, wanted);
        };
        check_uid(&live, &uid)?;
        let original = match live.annotation(LAST_APPLIED) {
            Some(text) => serde_json::from_str(text).unwrap_or(Value::Null),
            None => {
                self.warn(format!(
                    "resource {}/{} is missing the {LAST_APPLIED} annotation which is required by \
                     kubectl apply. kubectl apply should only be used on resources created \
                     declaratively by either kubectl create --save-config or kubectl apply. The \
                     missing annotation will be patched automatically.",
                    live.kind().plural,
                    live.name()
                ));
                Value::Null
            }
        };
        let lists = patch::Lists::of(key.kind);
        let merged = patch::three_way(&original, &wanted, live.value(), lists);
        self.update(&live, merged, OperationKind::Configured)
    }

    /// As [`Transaction::apply`], for objects of any size: where no annotation can hold what was applied,
    /// which then is not known the next time, the object takes the place of all that is there but for
    /// what others have written into `metadata`.
    pub fn apply_server_side(&mut self, object: Object) -> Result<Outcome, Refusal> {
        let mut annotated = object.to_value();
        annotate_last_applied(&mut annotated);
        if validate::has_room_for_annotations(&annotated) || object.name().is_empty() {
            return self.apply(object);
        }
        let (key, uid) = (object.key().clone(), object.uid().to_owned());
        let mut wanted = object.into_value();
        let Some(live) = self.cluster.get(&key).cloned() else {
            return self.create_value(key.kind, wanted);
        };
        check_uid(&live, &uid)?;
        let (new, old) = (&wanted["metadata"], &live.value()["metadata"]);
        let mut merged = patch::three_way(&Value::Null, new, old, patch::Lists::Whole);
        if let Some(annotations) = merged["annotations"].as_object_mut() {
            annotations.shift_remove(LAST_APPLIED);
        }
        wanted["metadata"] = merged;
        self.update(&live, wanted, OperationKind::Configured)
    }

    /// Puts `object` in the place of the one stored; its `resourceVersion`, if it has one, must be
    /// the current one.
    pub fn replace(&mut self, object: Object) -> Result<Outcome, Refusal> {
        let live = self.existing(object.key())?;
        self.update(&live, object.into_value(), OperationKind::Replaced)
    }

    /// Patches an object. `fields` says what to do with fields that its kind does not have.
    pub fn patch(
        &mut self,
        key: &Key,
        kind: PatchType,
        with: &Value,
        fields: FieldValidation,
    ) -> Result<Outcome, Refusal> {
        let live = self.existing(key)?;
        let mut value = live.to_value();
        match kind {
            PatchType::Merge => patch::merge(&mut value, with),
            PatchType::Strategic if key.kind.is_custom => return Err(custom::no_strategic_merge()),
            PatchType::Strategic => patch::strategic(&mut value, with)
                .map_err(|message| Refusal::new(Reason::BadRequest, message))?,
            PatchType::Json => patch::json(&mut value, with)
                .map_err(|message| Refusal::new(Reason::Invalid, message))?,
        }
        let (kind, warnings) = decode::check(&mut value, self.cluster.definitions(), fields)?;
        if kind != key.kind {
            let message = "the API version and the kind of an object may not change";
            return Err(Refusal::new(Reason::BadRequest, message));
        }
        for warning in warnings {
            self.warn(warning);
        }
        self.update(&live, value, OperationKind::Patched)
    }

    /// Replaces an object's `status`; `uid`, if given, must be the object's.
    pub fn update_status(
        &mut self,
        key: &Key,
        uid: Option<&str>,
        status: Value,
    ) -> Result<Outcome, Refusal> {
        let live = self.existing(key)?;
        check_uid(&live, uid.unwrap_or_default())?;
        if live.value().get("status").unwrap_or(&Value::Null) == &status {
            return Ok(Outcome {
                operation: OperationKind::Patched,
                object: live,
            });
        }
        let mut value = live.to_value();
        value["status"] = status;
        let object = self.store(live.kind(), value, EventKind::Modified)?;
        self.settle(&object)?;
        Ok(Outcome {
            operation: OperationKind::Patched,
            object,
        })
    }

    /// Deletes an object, and what it owns or (a namespace) holds.
    ///
    /// A pod that runs somewhere, and an object with finalizers, is only marked
    /// ([`OperationKind::Terminating`]): its runner deletes it again with a grace period of 0, or
    /// removes the finalizers. A namespace goes when the last of its objects has gone.
    pub fn delete(&mut self, key: &Key, options: &DeleteOptions<'_>) -> Result<Outcome, Refusal> {
        let live = self.existing(key)?;
        check_uid(&live, options.uid.unwrap_or_default())?;
        if live.as_namespace().is_some() && SYSTEM_NAMESPACES.contains(&live.name()) {
            let message = format!(
                "namespaces {:?} is forbidden: this namespace may not be deleted",
                live.name()
            );
            return Err(Refusal::new(Reason::Forbidden, message));
        }
        if options.orphan {
            self.disown(&live)?;
        }
        if live.as_namespace().is_some() {
            return self.delete_namespace(&live);
        }
        self.delete_object(&live, options.grace_period_s)
    }

    pub(super) fn delete_object(
        &mut self,
        live: &Arc<Object>,
        grace_period_s: Option<u32>,
    ) -> Result<Outcome, Refusal> {
        if is_definition(live) {
            return self.delete_definition(live);
        }
        let grace_s = grace_period(live, grace_period_s);
        if grace_s == 0 && !has_finalizers(live) {
            return self.remove(live);
        }
        if live.is_terminating() {
            return Ok(Outcome {
                operation: OperationKind::Terminating,
                object: live.clone(),
            });
        }
        let object = self.mark_terminating(live, grace_s, |_| {})?;
        Ok(Outcome {
            operation: OperationKind::Terminating,
            object,
        })
    }

    pub(super) fn mark_terminating(
        &mut self,
        live: &Arc<Object>,
        grace_s: u64,
        change: impl FnOnce(&mut Value),
    ) -> Result<Arc<Object>, Refusal> {
        let now = timestamp(self.source.now() + std::time::Duration::from_secs(grace_s));
        let mut value = live.to_value();
        let meta = metadata(&mut value);
        meta.insert("deletionTimestamp".to_owned(), Value::from(now));
        meta.insert(
            "deletionGracePeriodSeconds".to_owned(),
            Value::from(grace_s),
        );
        change(&mut value);
        self.store(live.kind(), value, EventKind::Modified)
    }

    fn delete_namespace(&mut self, live: &Arc<Object>) -> Result<Outcome, Refusal> {
        if !live.is_terminating() {
            self.mark_terminating(live, 0, |value| {
                value["status"]["phase"] = Value::from("Terminating");
            })?;
        }
        let content: Vec<Arc<Object>> = self.cluster.content_of(live.name()).cloned().collect();
        for object in content {
            // A cascade may have taken it already.
            if let Some(current) = self.cluster.get(object.key()).cloned() {
                self.delete_object(&current, None)?;
            }
        }
        self.settle_namespace(live.name())?;
        match self.cluster.get(live.key()).cloned() {
            Some(object) => Ok(Outcome {
                operation: OperationKind::Terminating,
                object,
            }),
            None => Ok(Outcome {
                operation: OperationKind::Deleted,
                object: live.clone(),
            }),
        }
    }

    /// Takes an object out, then what only it owned, then its namespace if that waits for it.
    pub(super) fn remove(&mut self, live: &Arc<Object>) -> Result<Outcome, Refusal> {
        let object = self.take(live)?;
        for dependent in self.dependents(live) {
            let orphaned = dependent.owners().all(|uid| !self.cluster.is_stored(uid));
            if orphaned && let Some(current) = self.cluster.get(dependent.key()).cloned() {
                self.delete_object(&current, None)?;
            }
        }
        self.settle_namespace(live.namespace())?;
        self.settle_definition(live.kind())?;
        Ok(Outcome {
            operation: OperationKind::Deleted,
            object,
        })
    }

    /// Takes an object out, and nothing with it; its last state.
    pub(super) fn take(&mut self, live: &Arc<Object>) -> Result<Arc<Object>, Refusal> {
        self.cluster.take(live.key());
        self.cluster.resource_version += 1;
        let mut value = live.to_value();
        let version = self.cluster.resource_version.to_string();
        metadata(&mut value).insert("resourceVersion".to_owned(), Value::from(version));
        let object = Arc::new(Object::with_kind(live.kind(), value)?.0);
        self.events.push(Event {
            kind: EventKind::Deleted,
            object: object.clone(),
            old: Some(live.clone()),
        });
        Ok(object)
    }

    fn dependents(&self, owner: &Object) -> Vec<Arc<Object>> {
        self.cluster.dependents(owner.uid()).cloned().collect()
    }

    /// Removes `owner` from its dependents' owners.
    fn disown(&mut self, owner: &Object) -> Result<(), Refusal> {
        for dependent in self.dependents(owner) {
            let mut value = dependent.to_value();
            if let Some(list) = value["metadata"]["ownerReferences"].as_array_mut() {
                list.retain(|reference| reference["uid"] != owner.uid());
            }
            self.store(dependent.kind(), value, EventKind::Modified)?;
        }
        Ok(())
    }

    /// Removes a terminating namespace that has become empty.
    fn settle_namespace(&mut self, name: &str) -> Result<(), Refusal> {
        let Some(namespace) = self.cluster.namespace(name).cloned() else {
            return Ok(());
        };
        if namespace.is_terminating()
            && !has_finalizers(&namespace)
            && !name.is_empty()
            && self.cluster.content_of(name).next().is_none()
        {
            self.remove(&namespace)?;
        }
        Ok(())
    }

    fn existing(&self, key: &Key) -> Result<Arc<Object>, Refusal> {
        let found = self.cluster.get(key).cloned();
        found.ok_or_else(|| Refusal::not_found(key))
    }

    fn check_namespace(&self, key: &Key) -> Result<(), Refusal> {
        if !key.kind.namespaced {
            return Ok(());
        }
        let name = &*key.namespace;
        match self.cluster.namespace(name) {
            None => Err(Refusal::new(
                Reason::NotFound,
                format!("namespaces {name:?} not found"),
            )),
            Some(namespace) if namespace.is_terminating() => Err(Refusal::new(
                Reason::Forbidden,
                format!(
                    "{} {:?} is forbidden: unable to create new content in namespace {name} \
                     because it is being terminated",
                    key.kind.qualified_plural(),
                    &*key.name
                ),
            )),
            Some(_) => Ok(()),
        }
    }

    fn validate(&mut self, object: &Object, old: Option<&Object>) -> Result<(), Refusal> {
        let mut findings = validate::validate(object, old);
        self.check_against_definition(object, &mut findings);
        let rivals = validate::rivals(object, &self.cluster);
        for warning in findings.warnings.into_iter().chain(rivals) {
            self.warn(warning);
        }
        if findings.errors.is_empty() {
            return Ok(());
        }
        let message = validate::invalid(object.kind().kind, object.name(), &findings.errors);
        Err(Refusal::new(Reason::Invalid, message))
    }

    /// Stores a changed object, all but its `status`. The value fits its kind's type.
    fn update(
        &mut self,
        live: &Arc<Object>,
        mut value: Value,
        operation: OperationKind,
    ) -> Result<Outcome, Refusal> {
        let kind = live.kind();
        if key(kind, &value) != *live.key() {
            let message = "the name and namespace of an object may not change";
            return Err(Refusal::new(Reason::BadRequest, message));
        }
        let text = |field: &str| value["metadata"][field].as_str().unwrap_or_default();
        check_uid(live, text("uid"))?;
        let version = text("resourceVersion");
        if !version.is_empty() && version != live.resource_version() {
            return Err(Refusal::new(
                Reason::Conflict,
                format!(
                    "Operation cannot be fulfilled on {} {:?}: the object has been modified; \
                     please apply your changes to the latest version and try again",
                    kind.qualified_plural(),
                    live.name()
                ),
            ));
        }
        keep_server_fields(&mut value, live, self.has_status_apart(kind));
        defaults::on_update(kind, &mut value, live, &self.cluster)?;
        if value == *live.value() {
            self.validate(live, Some(live))?;
            let operation = match operation {
                OperationKind::Configured => OperationKind::Unchanged,
                other => other,
            };
            let object = live.clone();
            return Ok(Outcome { operation, object });
        }
        let status_counts = !self.has_status_apart(kind);
        if kind.counts_generation && differs_in_spec(&value, live.value(), status_counts) {
            let next = live.generation() + 1;
            metadata(&mut value).insert("generation".to_owned(), Value::from(next));
        }
        let object = self.next_version(kind, value)?;
        self.validate(&object, Some(live))?;
        let object = self.put(object, EventKind::Modified);
        if is_definition(&object) {
            self.follow_definition(live, &object)?;
        }
        self.settle(&object)?;
        Ok(Outcome { operation, object })
    }

    /// Lets go of an object that waited for its last finalizer only.
    fn settle(&mut self, object: &Arc<Object>) -> Result<(), Refusal> {
        if object.is_terminating() && !has_finalizers(object) {
            self.release(object)?;
        }
        Ok(())
    }

    /// An object whose last finalizer has gone goes too, unless a runner still has to end it.
    fn release(&mut self, object: &Arc<Object>) -> Result<(), Refusal> {
        if object.as_namespace().is_some() {
            self.settle_namespace(object.name())
        } else if is_definition(object) {
            self.delete_definition(object).map(|_| ())
        } else if grace_period(object, None) == 0 {
            self.remove(object).map(|_| ())
        } else {
            Ok(())
        }
    }

    pub(super) fn store(
        &mut self,
        kind: &'static Kind,
        value: Value,
        event: EventKind,
    ) -> Result<Arc<Object>, Refusal> {
        let object = self.next_version(kind, value)?;
        Ok(self.put(object, event))
    }

    /// The object that `value` is with the version of the next change.
    pub(super) fn next_version(
        &self,
        kind: &'static Kind,
        mut value: Value,
    ) -> Result<Object, Refusal> {
        let version = (self.cluster.resource_version + 1).to_string();
        metadata(&mut value).insert("resourceVersion".to_owned(), Value::from(version));
        Ok(Object::with_kind(kind, value)?.0)
    }

    pub(super) fn put(&mut self, object: Object, event: EventKind) -> Arc<Object> {
        let object = Arc::new(object);
        self.cluster.resource_version += 1;
        let old = self.cluster.put(object.clone());
        self.events.push(Event {
            kind: event,
            object: object.clone(),
            old,
        });
        object
    }
}

fn check_uid(live: &Object, wanted: &str) -> Result<(), Refusal> {
    if wanted.is_empty() || wanted == live.uid() {
        return Ok(());
    }
    Err(Refusal::new(
        Reason::Conflict,
        format!(
            "Operation cannot be fulfilled on {} {:?}: Precondition failed: UID in precondition: \
             {wanted}, UID in object meta: {}",
            live.kind().qualified_plural(),
            live.name(),
            live.uid()
        ),
    ))
}

/// Seconds that an object gets to end: only a pod that runs somewhere and has not ended gets any.
fn grace_period(object: &Object, wanted_s: Option<u32>) -> u64 {
    let Some(pod) = object.as_pod() else {
        return 0;
    };
    let spec = pod.spec.as_ref();
    let placed = spec
        .and_then(|spec| spec.node_name.as_deref())
        .is_some_and(|node| !node.is_empty());
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    if !placed || matches!(phase, Some("Succeeded" | "Failed")) {
        return 0;
    }
    let own = spec.and_then(|spec| spec.termination_grace_period_seconds);
    match wanted_s {
        Some(wanted) => u64::from(wanted),
        None => own.map_or(30, |own| u64::try_from(own).unwrap_or(1)),
    }
}
