//! Changes to a cluster, all or none.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{
    Cluster, Commit, Event, EventKind, LAST_APPLIED, OperationKind, Reason, Refusal,
    SYSTEM_NAMESPACES, Source, patch, timestamp,
};
use crate::objects::{
    Category, DecodeOptions, Decoded, FieldValidation, Key, Object, decode_value,
};
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
    cluster: Cluster,
    source: &'a mut dyn Source,
    events: Vec<Event>,
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
    pub fn commit(self) -> Commit {
        Commit {
            cluster: self.cluster,
            events: self.events,
            warnings: self.warnings,
        }
    }

    /// Stores a new object.
    pub fn create(&mut self, object: Object) -> Result<Outcome, Refusal> {
        let kind = object.kind();
        let mut value = object.to_value();
        let meta = metadata(&mut value);
        for field in SERVER_FIELDS {
            meta.shift_remove(field);
        }
        if object.name().is_empty()
            && let Some(prefix) = meta.get("generateName").and_then(Value::as_str)
        {
            let name = format!("{prefix}{}", suffix(self.source.random()));
            meta.insert("name".to_owned(), Value::from(name));
        }
        let stored = Object::with_kind(kind, value)?.0;
        if self.cluster.get(stored.key()).is_some() {
            let resource = kind.qualified_plural();
            let message = format!("{resource} {:?} already exists", stored.name());
            return Err(Refusal::new(Reason::AlreadyExists, message));
        }
        self.check_namespace(&stored)?;
        let mut value = stored.to_value();
        defaults::on_create(kind, &mut value, &self.cluster);
        self.validate(kind, &value, None)?;
        let uid = uuid(self.source.random());
        let now = timestamp(self.source.now());
        let meta = metadata(&mut value);
        meta.insert("uid".to_owned(), Value::from(uid));
        meta.insert("creationTimestamp".to_owned(), Value::from(now));
        if kind.counts_generation {
            meta.insert("generation".to_owned(), Value::from(1));
        }
        if kind.category == Category::Stored {
            self.warn(format!(
                "{} is stored but has no effect here",
                kind.qualified_plural()
            ));
        }
        let object = self.store(kind, value, EventKind::Added)?;
        Ok(Outcome {
            operation: OperationKind::Created,
            object,
        })
    }

    /// Does what `kubectl apply` does: creates the object, or merges three ways what was applied
    /// before ([`LAST_APPLIED`]), what is applied now and what is there.
    pub fn apply(&mut self, object: Object) -> Result<Outcome, Refusal> {
        let mut wanted = object.to_value();
        let applied = last_applied(&wanted);
        annotate(&mut wanted, LAST_APPLIED, &applied);
        let object = Object::with_kind(object.kind(), wanted.clone())?.0;
        if object.name().is_empty() {
            return Err(Refusal::new(
                Reason::BadRequest,
                "resource name may not be empty",
            ));
        }
        let Some(live) = self.cluster.get(object.key()).cloned() else {
            return self.create(object);
        };
        check_uid(&live, object.uid())?;
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
        let merged = patch::three_way(&original, &wanted, live.value());
        self.update(&live, merged, OperationKind::Configured, false)
    }

    /// Puts `object` in the place of the one stored; its `resourceVersion`, if it has one, must be
    /// the current one.
    pub fn replace(&mut self, object: Object) -> Result<Outcome, Refusal> {
        let live = self.existing(object.key())?;
        self.update(&live, object.to_value(), OperationKind::Replaced, false)
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
            PatchType::Strategic => patch::strategic(&mut value, with)
                .map_err(|message| Refusal::new(Reason::BadRequest, message))?,
            PatchType::Json => patch::json(&mut value, with)
                .map_err(|message| Refusal::new(Reason::Invalid, message))?,
        }
        let options = DecodeOptions {
            fields,
            ..DecodeOptions::default()
        };
        let mut decoded = Decoded::default();
        decode_value(value.clone(), &options, &mut decoded)?;
        for warning in decoded.warnings {
            self.warn(warning);
        }
        self.update(&live, value, OperationKind::Patched, false)
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
        let mut value = live.to_value();
        value["status"] = status;
        self.update(&live, value, OperationKind::Patched, true)
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

    fn delete_object(
        &mut self,
        live: &Arc<Object>,
        grace_period_s: Option<u32>,
    ) -> Result<Outcome, Refusal> {
        let grace_s = grace_period(live, grace_period_s);
        let finalizers = live.value()["metadata"]["finalizers"].as_array();
        let held = finalizers.is_some_and(|list| !list.is_empty());
        if grace_s == 0 && !held {
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

    fn mark_terminating(
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
        let content = |cluster: &Cluster| -> Vec<Arc<Object>> {
            let of = |object: &&Arc<Object>| object.namespace() == live.name();
            cluster.objects().filter(of).cloned().collect()
        };
        for object in content(&self.cluster) {
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
    fn remove(&mut self, live: &Arc<Object>) -> Result<Outcome, Refusal> {
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
        for dependent in self.dependents(live) {
            let orphaned = dependent.owners().all(|uid| !self.is_stored(uid));
            if orphaned && let Some(current) = self.cluster.get(dependent.key()).cloned() {
                self.delete_object(&current, None)?;
            }
        }
        self.settle_namespace(live.namespace())?;
        Ok(Outcome {
            operation: OperationKind::Deleted,
            object,
        })
    }

    fn dependents(&self, owner: &Object) -> Vec<Arc<Object>> {
        let owned = |object: &&Arc<Object>| object.owners().any(|uid| uid == owner.uid());
        self.cluster.objects().filter(owned).cloned().collect()
    }

    fn is_stored(&self, uid: &str) -> bool {
        self.cluster.objects().any(|object| object.uid() == uid)
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
        let finalizers = namespace.value()["metadata"]["finalizers"].as_array();
        let held = finalizers.is_some_and(|list| !list.is_empty());
        let empty = || self.cluster.objects().all(|o| o.namespace() != name);
        if namespace.is_terminating() && !held && !name.is_empty() && empty() {
            self.remove(&namespace)?;
        }
        Ok(())
    }

    fn existing(&self, key: &Key) -> Result<Arc<Object>, Refusal> {
        let found = self.cluster.get(key).cloned();
        found.ok_or_else(|| Refusal::not_found(key))
    }

    fn check_namespace(&self, object: &Object) -> Result<(), Refusal> {
        if !object.kind().namespaced {
            return Ok(());
        }
        let name = object.namespace();
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
                    object.kind().qualified_plural(),
                    object.name()
                ),
            )),
            Some(_) => Ok(()),
        }
    }

    fn validate(
        &mut self,
        kind: &'static crate::objects::Kind,
        value: &Value,
        old: Option<&Object>,
    ) -> Result<(), Refusal> {
        let object = Object::with_kind(kind, value.clone())?.0;
        let findings = validate::validate(&object, old);
        for warning in findings.warnings {
            self.warn(warning);
        }
        if findings.errors.is_empty() {
            return Ok(());
        }
        let message = validate::invalid(kind.kind, object.name(), &findings.errors);
        Err(Refusal::new(Reason::Invalid, message))
    }

    /// Stores a changed object. Of `status` only a change by `updateStatus` counts, of everything
    /// else only changes by the others.
    fn update(
        &mut self,
        live: &Arc<Object>,
        mut value: Value,
        operation: OperationKind,
        status: bool,
    ) -> Result<Outcome, Refusal> {
        let kind = live.kind();
        let given = Object::with_kind(kind, value.clone())?.0;
        if given.key() != live.key() {
            let message = "the name and namespace of an object may not change";
            return Err(Refusal::new(Reason::BadRequest, message));
        }
        check_uid(live, given.uid())?;
        let version = given.resource_version();
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
        keep_server_fields(&mut value, live, status);
        if !status {
            defaults::on_update(kind, &mut value, live, &self.cluster);
            self.validate(kind, &value, Some(live))?;
        }
        if value == *live.value() {
            let operation = match operation {
                OperationKind::Configured => OperationKind::Unchanged,
                other => other,
            };
            let object = live.clone();
            return Ok(Outcome { operation, object });
        }
        if kind.counts_generation && !status && differs_in_spec(&value, live.value()) {
            let next = live.generation() + 1;
            metadata(&mut value).insert("generation".to_owned(), Value::from(next));
        }
        let object = self.store(kind, value, EventKind::Modified)?;
        let finalizers = object.value()["metadata"]["finalizers"].as_array();
        let held = finalizers.is_some_and(|list| !list.is_empty());
        if object.is_terminating() && !held {
            self.release(&object)?;
        }
        Ok(Outcome { operation, object })
    }

    /// An object whose last finalizer has gone goes too, unless a runner still has to end it.
    fn release(&mut self, object: &Arc<Object>) -> Result<(), Refusal> {
        if object.as_namespace().is_some() {
            self.settle_namespace(object.name())
        } else if grace_period(object, None) == 0 {
            self.remove(object).map(|_| ())
        } else {
            Ok(())
        }
    }

    fn store(
        &mut self,
        kind: &'static crate::objects::Kind,
        mut value: Value,
        event: EventKind,
    ) -> Result<Arc<Object>, Refusal> {
        let version = self.cluster.resource_version + 1;
        let meta = metadata(&mut value);
        meta.insert("resourceVersion".to_owned(), json!(version.to_string()));
        let object = Arc::new(Object::with_kind(kind, value)?.0);
        self.cluster.resource_version = version;
        let old = self.cluster.put(object.clone());
        self.events.push(Event {
            kind: event,
            object: object.clone(),
            old,
        });
        Ok(object)
    }
}

/// What only the server writes.
const SERVER_FIELDS: [&str; 8] = [
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
];

/// `metadata` as a map; made if it lacks.
fn metadata(value: &mut Value) -> &mut Map<String, Value> {
    static EMPTY: fn() -> Value = || Value::Object(Map::new());
    if !value.is_object() {
        *value = EMPTY();
    }
    if !value["metadata"].is_object() {
        value["metadata"] = EMPTY();
    }
    match &mut value["metadata"] {
        Value::Object(map) => map,
        _ => unreachable!("metadata was made an object above"),
    }
}

/// Server-written fields and the other half (`status`, or all but `status`) stay as they are.
fn keep_server_fields(value: &mut Value, live: &Object, status: bool) {
    let old = live.value();
    if status {
        let new_status = value["status"].take();
        *value = old.clone();
        value["status"] = new_status;
        return;
    }
    for field in SERVER_FIELDS {
        match old["metadata"].get(field) {
            Some(kept) => {
                metadata(value).insert(field.to_owned(), kept.clone());
            }
            None => {
                metadata(value).shift_remove(field);
            }
        }
    }
    if let Some(map) = value.as_object_mut() {
        match old.get("status") {
            Some(kept) => {
                map.insert("status".to_owned(), kept.clone());
            }
            None => {
                map.shift_remove("status");
            }
        }
    }
}

fn differs_in_spec(new: &Value, old: &Value) -> bool {
    let bare = |value: &Value| -> Map<String, Value> {
        let entries = value.as_object().into_iter().flatten();
        entries
            .filter(|(key, _)| *key != "metadata" && *key != "status")
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    bare(new) != bare(old)
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

/// What `kubectl apply` writes into [`LAST_APPLIED`]: the object without that annotation.
fn last_applied(value: &Value) -> String {
    let mut bare = value.clone();
    match &mut bare["metadata"]["annotations"] {
        Value::Object(annotations) => {
            annotations.shift_remove(LAST_APPLIED);
        }
        // kubectl makes an empty map where there was none.
        other => *other = Value::Object(Map::new()),
    }
    format!("{bare}\n")
}

fn annotate(value: &mut Value, key: &str, text: &str) {
    let meta = metadata(value);
    if !meta.get("annotations").is_some_and(Value::is_object) {
        meta.insert("annotations".to_owned(), Value::Object(Map::new()));
    }
    meta["annotations"][key] = Value::from(text);
}

/// A version 4 UUID (RFC 9562, section 5.4) of these bits.
fn uuid(bits: u128) -> String {
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{bits:032x}");
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

/// Five characters behind `generateName`, from Kubernetes' alphabet
/// (apimachinery `pkg/util/rand`): no vowels, so no words.
fn suffix(mut bits: u128) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut text = String::with_capacity(5);
    for _ in 0..5 {
        text.push(char::from(ALPHABET[(bits % 27) as usize]));
        bits /= 27;
    }
    text
}
