//! CustomResourceDefinitions, and objects of the kinds that they define.

use std::sync::Arc;

use serde_json::{Value, json};

use super::fields::has_finalizers;
use super::transaction::Outcome;
use super::{Cluster, EventKind, OperationKind, Reason, Refusal, Transaction, is_definition};
use crate::objects::definitions::{DEFINITION, Definition};
use crate::objects::{Key, Kind, Object, kinds};
use crate::validate::{self, Findings};

/// What keeps a definition until the last object of its kind has gone.
const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// What a strategic merge patch of a custom resource is answered with.
pub(super) fn no_strategic_merge() -> Refusal {
    Refusal::new(
        Reason::UnsupportedMediaType,
        "the body of the request was in an unknown format - accepted media types include: \
         application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
    )
}

impl Cluster {
    /// Whether updates leave `status` alone: of kinds that everybody knows, and of others whose
    /// definition says so.
    pub(super) fn has_status_apart(&self, kind: &Kind) -> bool {
        let definition = self.definitions().of(kind);
        definition.is_none_or(|definition| definition.shown().has_status)
    }
}

impl Transaction<'_> {
    pub(super) fn has_status_apart(&self, kind: &Kind) -> bool {
        self.cluster.has_status_apart(kind)
    }

    /// Refuses a definition too many, and an object whose definition goes.
    pub(super) fn check_definition(&self, key: &Key) -> Result<(), Refusal> {
        let most = config::limits::DEFINITIONS;
        if key.kind.kind == "CustomResourceDefinition"
            && self.cluster.list(key.kind).count() >= most
        {
            let message = format!(
                "{} {:?} is forbidden: there are {most} of them already",
                key.kind.qualified_plural(),
                &*key.name
            );
            return Err(Refusal::new(Reason::Forbidden, message));
        }
        if self
            .definition_of(key.kind)
            .is_some_and(|definition| definition.is_terminating())
        {
            let message = "create not allowed while custom resource definition is terminating";
            return Err(Refusal::new(Reason::MethodNotAllowed, message));
        }
        Ok(())
    }

    /// The CustomResourceDefinition of a kind.
    fn definition_of(&self, kind: &Kind) -> Option<&Arc<Object>> {
        let definition = self.cluster.definitions().of(kind)?;
        let definitions = kinds::find(DEFINITION.0, DEFINITION.1)?;
        self.cluster
            .get(&Key::new(definitions, "", &definition.name()))
    }

    /// Holds a custom resource against its definition, and a definition against the others.
    pub(super) fn check_against_definition(&self, object: &Object, findings: &mut Findings) {
        if is_definition(object) {
            let definitions = self.cluster.definitions();
            validate::definition::taken(object, definitions, findings);
        }
        if is_definition(object) || object.kind().is_custom {
            let most = config::limits::CUSTOM_OBJECT_BYTES;
            if !fits(object.value(), most) {
                let message = format!("Too long: may not be more than {most} bytes");
                findings.errors.push(validate::FieldError {
                    path: "<nil>".to_owned(),
                    message,
                });
                return;
            }
        }
        if let Some(definition) = self.cluster.definitions().of(object.kind()) {
            validate::custom::validate(definition, object.value(), findings);
        }
    }

    /// Says what an object that only is stored does not do; of a policy engine's own kinds, and their
    /// definitions, that Weir takes its place.
    pub(super) fn warn_of_effect(&mut self, object: &Object) {
        let key = object.key();
        let plural = key.kind.qualified_plural();
        let engine =
            |name: &str| name.ends_with("tigera.io") || name.ends_with("projectcalico.org");
        let is_engine = engine(key.kind.group()) || (is_definition(object) && engine(&key.name));
        let replaced = if is_engine {
            "Weir already enforces policy here; "
        } else {
            ""
        };
        if !is_definition(object) {
            self.warn(format!(
                "{replaced}{plural} is stored but has no effect here"
            ));
            return;
        }
        // Read again as it will be: it is not stored yet.
        let Some(definition) = Definition::read(object.value()) else {
            self.warn(format!("{replaced}{} serves no version", key.name));
            return;
        };
        let name = &key.name;
        self.warn(if definition.is_foreign_policy() {
            format!("{replaced}objects of {name} restrict traffic and are refused here")
        } else {
            format!("{replaced}objects of {name} are stored but have no effect here")
        });
        if definition.unread.has_rules {
            self.warn(format!(
                "{name}: x-kubernetes-validations are not evaluated here: objects that break these \
                 rules are accepted"
            ));
        }
        for pattern in &definition.unread.patterns {
            self.warn(format!(
                "{name}: texts are not held against the pattern {pattern:?} here"
            ));
        }
        if object.value().pointer("/spec/conversion/strategy") == Some(&json!("Webhook")) {
            self.warn(format!(
                "{name}: no webhook converts here: objects keep their fields whatever the version"
            ));
        }
    }

    /// Deletes a definition and the objects of its kind. If some of them wait for their finalizers, it
    /// waits for them.
    pub(super) fn delete_definition(&mut self, live: &Arc<Object>) -> Result<Outcome, Refusal> {
        let definition = self.cluster.definitions().named(live.name()).cloned();
        let kind = definition.map(|definition| definition.kind);
        let objects = |cluster: &Cluster| -> Vec<Arc<Object>> {
            let kind = kind.into_iter();
            kind.flat_map(|kind| cluster.list(kind)).cloned().collect()
        };
        if !live.is_terminating() {
            self.mark_terminating(live, 0, |value| {
                let finalizers = &mut value["metadata"]["finalizers"];
                if !finalizers.is_array() {
                    *finalizers = json!([]);
                }
                if let Some(list) = finalizers.as_array_mut() {
                    list.push(json!(CLEANUP));
                }
            })?;
        }
        for object in objects(&self.cluster) {
            // A cascade may have taken it already.
            if let Some(current) = self.cluster.get(object.key()).cloned() {
                self.delete_object(&current, None)?;
            }
        }
        if let Some(kind) = kind {
            self.settle_definition(kind)?;
        }
        match self.cluster.get(live.key()).cloned() {
            Some(current) if kind.is_none() => self.without_cleanup(&current)?,
            _ => {}
        }
        Ok(match self.cluster.get(live.key()).cloned() {
            Some(object) => Outcome {
                operation: OperationKind::Terminating,
                object,
            },
            None => Outcome {
                operation: OperationKind::Deleted,
                object: live.clone(),
            },
        })
    }

    /// Removes a terminating definition if no object of its kind is left.
    pub(super) fn settle_definition(&mut self, kind: &'static Kind) -> Result<(), Refusal> {
        let Some(definition) = self.definition_of(kind).cloned() else {
            return Ok(());
        };
        if definition.is_terminating() && self.cluster.list(kind).next().is_none() {
            self.without_cleanup(&definition)?;
        }
        Ok(())
    }

    /// Takes [`CLEANUP`] off a definition, and the definition out if nothing else keeps it.
    fn without_cleanup(&mut self, definition: &Arc<Object>) -> Result<(), Refusal> {
        let mut value = definition.to_value();
        if let Some(list) = value["metadata"]["finalizers"].as_array_mut() {
            list.retain(|finalizer| finalizer != CLEANUP);
        }
        let object = self.store(definition.kind(), value, EventKind::Modified)?;
        if !has_finalizers(&object) {
            self.remove(&object)?;
        }
        Ok(())
    }

    /// Where a changed definition shows another version, its objects become that one's.
    pub(super) fn follow_definition(&mut self, old: &Object, new: &Object) -> Result<(), Refusal> {
        let (Some(before), Some(now)) =
            (Definition::read(old.value()), Definition::read(new.value()))
        else {
            return Ok(());
        };
        if before.kind == now.kind {
            return Ok(());
        }
        let objects: Vec<Arc<Object>> = self.cluster.list(before.kind).cloned().collect();
        for object in objects {
            let mut value = object.to_value();
            value["apiVersion"] = Value::from(now.kind.api_version);
            now.shown().schema.prune(&mut value);
            self.take(&object)?;
            self.store(now.kind, value, EventKind::Added)?;
        }
        Ok(())
    }
}

/// Whether the value is written with no more than so many bytes.
fn fits(value: &Value, most: usize) -> bool {
    struct Counted(usize);
    impl std::io::Write for Counted {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let left = self.0.checked_sub(bytes.len());
            self.0 = left.ok_or(std::io::ErrorKind::FileTooLarge)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    serde_json::to_writer(Counted(most), value).is_ok()
}
