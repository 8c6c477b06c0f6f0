//! Changes to a cluster, all or none.

use std::sync::Arc;

use serde_json::Value;

use super::fields::{
    SERVER_FIELDS, annotate_last_applied, differs_in_spec, keep_server_fields, key, metadata,
    suffix, uuid,
};
use super::{
    Cluster, Commit, Event, EventKind, LAST_APPLIED, OperationKind, Reason, Refusal, Source,
    custom, is_definition, patch, timestamp,
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

/// Changes in the making. Dropped, it changes nothing.
pub struct Transaction<'a> {
    pub(super) cluster: Cluster,
    pub(super) source: &'a mut dyn Source,
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

    pub(super) fn existing(&self, key: &Key) -> Result<Arc<Object>, Refusal> {
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

pub(super) fn check_uid(live: &Object, wanted: &str) -> Result<(), Refusal> {
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
