//! The objects of a test, and what its steps make of them.

use serde_json::{Map, Value, json};
use thiserror::Error;

use super::model::{Manifests, PolicyTest, Reference, Relabel, Step};
use crate::cluster::{DeleteOptions, Reason, Refusal, Transaction};
use crate::objects::{Decoded, FieldValidation, Key, Object, decode_value, kinds};
use crate::offline::{Offline, put_all};
use crate::protocol::PatchType;
use crate::trace::View;

/// A change that is refused. Nothing has changed then.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(transparent)]
pub struct StepError(#[from] pub Refusal);

/// Objects that change step by step, compiled after each.
#[derive(Debug)]
pub struct Scene {
    offline: Offline,
}

impl Scene {
    /// The objects of a test, behind those that it shares with others.
    pub fn new(shared: &[Object], test: &PolicyTest) -> Result<Scene, StepError> {
        let mut objects = shared.to_vec();
        objects.extend(test.files.iter().cloned());
        objects.extend(decode(&test.objects)?);
        let offline = Offline::new(objects)?;
        Ok(Scene { offline })
    }

    /// Makes a step's change.
    pub fn change(&mut self, step: &Step) -> Result<(), StepError> {
        let objects = decode(&step.apply)?;
        self.offline.change(|transaction| {
            for reference in &step.delete {
                delete(transaction, reference)?;
            }
            put_all(transaction, objects)?;
            for relabel in &step.label {
                label(transaction, relabel)?;
            }
            Ok(())
        })?;
        Ok(())
    }

    /// For questions.
    pub fn view(&self) -> View<'_> {
        self.offline.view()
    }

    /// For stderr, behind `Warning: `.
    pub fn warnings(&self) -> &[String] {
        &self.offline.warnings
    }
}

/// The objects that were written.
pub(super) fn decode(manifests: &Manifests) -> Result<Vec<Object>, Refusal> {
    let mut decoded = Decoded::default();
    for value in &manifests.values {
        decode_value(value.clone(), &manifests.options(), &mut decoded)?;
    }
    Ok(decoded.objects)
}

fn key(reference: &Reference) -> Result<Key, Refusal> {
    let kind = kinds::find_resource(&reference.kind).ok_or_else(|| Refusal {
        reason: Reason::NotFound,
        message: format!("there is no kind {:?}", reference.kind),
    })?;
    let namespace = reference.namespace.as_deref().unwrap_or("default");
    Ok(Key::new(kind, namespace, &reference.name))
}

fn delete(transaction: &mut Transaction<'_>, reference: &Reference) -> Result<(), Refusal> {
    // At once: nobody is there to end a pod.
    let options = DeleteOptions {
        grace_period_s: Some(0),
        ..DeleteOptions::default()
    };
    transaction.delete(&key(reference)?, &options).map(drop)
}

fn label(transaction: &mut Transaction<'_>, relabel: &Relabel) -> Result<(), Refusal> {
    let labels = relabel.labels.iter().map(|(key, value)| {
        let value = value.as_deref().map_or(Value::Null, Value::from);
        (key.clone(), value)
    });
    let labels: Map<String, Value> = labels.collect();
    let patch = json!({"metadata": {"labels": labels}});
    let key = key(&relabel.object)?;
    transaction
        .patch(&key, PatchType::Merge, &patch, FieldValidation::Strict)
        .map(drop)
}
