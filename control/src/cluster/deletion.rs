//! Deletions, and what goes with an object: what it owns, what a namespace holds, what a definition
//! defines.

use std::sync::Arc;

use serde_json::Value;

use super::fields::{has_finalizers, metadata};
use super::transaction::{Outcome, check_uid};
use super::{
    Event, EventKind, OperationKind, Reason, Refusal, SYSTEM_NAMESPACES, Transaction,
    is_definition, timestamp,
};
use crate::objects::{Key, Object};

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

impl Transaction<'_> {
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

    /// Lets go of an object that waited for its last finalizer only.
    pub(super) fn settle(&mut self, object: &Arc<Object>) -> Result<(), Refusal> {
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
