//! `apply`, `create`, `replace`, `patch`, `delete`, `updateStatus`, `get` and `watch`.

use serde_json::Value;

use super::plane::Plane;
use super::server::{ClientId, refused};
use super::state::{Daemon, Live};
use super::watches::Watches;
use crate::cluster::{Commit, DeleteOptions, Outcome, Refusal, Transaction};
use crate::field_selector::FieldSelector;
use crate::objects::definitions::DEFINITION;
use crate::objects::{self, DecodeOptions, Decoded, Key, Kind, Object, decode_value};
use crate::protocol::{
    ApplyParams, DeleteParams, ErrorObject, FieldValidation, GetParams, GetReply, Mutation,
    ObjectRef, Operation, PatchParams, PrinterColumn, Reason, ResourcesReply, Target,
    UpdateStatusParams, WatchEventType, WatchParams, WatchReply,
};
use crate::selector::Selector;
use config::limits::WATCHES_PER_CLIENT;

/// What to do with each object of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// As `kubectl apply`.
    Apply,
    /// Only if it does not exist.
    Create,
    /// Only if it exists.
    Replace,
}

impl<P: Plane> Daemon<P> {
    /// One transaction over all objects.
    pub(super) fn put(&mut self, verb: Verb, params: ApplyParams) -> Result<Mutation, ErrorObject> {
        self.check_generation(params.expected_generation)?;
        let mut definitions = self.cluster.definitions().clone();
        definitions.read_all(&params.objects);
        let options = DecodeOptions {
            fields: fields(params.field_validation),
            namespace: params.namespace.as_deref(),
            definitions,
            ..DecodeOptions::default()
        };
        let mut decoded = Decoded::default();
        for (index, value) in params.objects.into_iter().enumerate() {
            decode_value(value, &options, &mut decoded)
                .map_err(|error| refusal(error.into(), Some(index)))?;
        }
        let Decoded { objects, warnings } = decoded;
        let server_side = params.server_side;
        self.transact(params.dry_run, warnings, |transaction| {
            // A kind's definition may stand behind its objects.
            let is_definition = |(_, object): &(usize, Object)| {
                (object.kind().api_version, object.kind().kind) == DEFINITION
            };
            let (first, then): (Vec<_>, Vec<_>) =
                objects.into_iter().enumerate().partition(is_definition);
            let mut outcomes = Vec::with_capacity(first.len() + then.len());
            for (index, object) in first.into_iter().chain(then) {
                let outcome = match verb {
                    Verb::Apply if server_side => transaction.apply_server_side(object),
                    Verb::Apply => transaction.apply(object),
                    Verb::Create => transaction.create(object),
                    Verb::Replace => transaction.replace(object),
                };
                let outcome = outcome.map_err(|error| refusal(error, Some(index)))?;
                outcomes.push((index, outcome));
            }
            outcomes.sort_by_key(|(index, _)| *index);
            Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
        })
    }

    /// Patches one object.
    pub(super) fn patch(&mut self, params: PatchParams) -> Result<Mutation, ErrorObject> {
        let key = self.key(&params.target)?;
        let fields = fields(params.field_validation);
        self.transact(params.dry_run, Vec::new(), |transaction| {
            let outcome = transaction.patch(&key, params.patch_type, &params.patch, fields);
            Ok(vec![outcome.map_err(|error| refusal(error, None))?])
        })
    }

    /// Deletes objects.
    pub(super) fn delete(&mut self, params: DeleteParams) -> Result<Mutation, ErrorObject> {
        let keys = params.targets.iter().map(|target| self.key(target));
        let keys: Vec<Key> = keys.collect::<Result<_, _>>()?;
        let options = DeleteOptions {
            grace_period_s: params.grace_period,
            orphan: params.orphan,
            ..DeleteOptions::default()
        };
        self.transact(params.dry_run, Vec::new(), |transaction| {
            let mut outcomes = Vec::with_capacity(keys.len());
            for (index, key) in keys.iter().enumerate() {
                match transaction.delete(key, &options) {
                    Ok(outcome) => outcomes.push(outcome),
                    Err(error) if params.ignore_not_found && error.reason == Reason::NotFound => {}
                    Err(error) => return Err(refusal(error, Some(index))),
                }
            }
            Ok(outcomes)
        })
    }

    /// Replaces an object's status.
    pub(super) fn update_status(
        &mut self,
        params: UpdateStatusParams,
    ) -> Result<Mutation, ErrorObject> {
        let key = self.key(&params.target)?;
        self.transact(false, Vec::new(), |transaction| {
            let outcome = transaction.update_status(&key, params.uid.as_deref(), params.status);
            Ok(vec![outcome.map_err(|error| refusal(error, None))?])
        })
    }

    fn transact(
        &mut self,
        dry_run: bool,
        mut warnings: Vec<String>,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<Vec<Outcome>, ErrorObject>,
    ) -> Result<Mutation, ErrorObject> {
        let mut transaction = self.cluster.begin(&mut self.source);
        let outcomes = work(&mut transaction)?;
        let Commit {
            cluster,
            events,
            warnings: more,
        } = transaction.commit();
        for warning in more {
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
        let mut preview = None;
        let as_it_was = Live {
            request_micros: 0,
            ..self.live
        };
        let live = if dry_run {
            preview = Some(self.preview(&cluster, &events)?);
            as_it_was
        } else if events.is_empty() {
            as_it_was
        } else {
            self.commit(cluster, &events)?
        };
        Ok(Mutation {
            preview,
            ..mutation(&outcomes, warnings, live)
        })
    }

    fn check_generation(&self, expected: Option<u64>) -> Result<(), ErrorObject> {
        match expected {
            Some(expected) if expected != self.live.generation => {
                let message = format!(
                    "generation {expected} was expected, {} is live: read again and try again",
                    self.live.generation
                );
                Err(refused(Reason::Conflict, message))
            }
            _ => Ok(()),
        }
    }

    /// One object or many.
    pub(super) fn get(&self, params: &GetParams) -> Result<GetReply, ErrorObject> {
        let kind = self.find_kind(&params.resource)?;
        let namespace = params.namespace.as_deref().unwrap_or("default");
        let items = match &params.name {
            Some(name) => {
                let key = Key::new(kind, namespace, name);
                let found = self.cluster.get(&key);
                vec![
                    found
                        .ok_or_else(|| refusal(Refusal::not_found(&key), None))?
                        .to_value(),
                ]
            }
            None => self.list(kind, namespace, params)?,
        };
        Ok(GetReply {
            api_version: kind.api_version.to_owned(),
            kind: kind.kind.to_owned(),
            resource: kind.qualified_plural(),
            namespaced: kind.namespaced,
            items,
            columns: self.columns(kind),
            resource_version: self.cluster.resource_version().to_string(),
        })
    }

    fn list(
        &self,
        kind: &'static Kind,
        namespace: &str,
        params: &GetParams,
    ) -> Result<Vec<Value>, ErrorObject> {
        let bad = |message: String| refused(Reason::BadRequest, message);
        let text = params.label_selector.as_deref().unwrap_or_default();
        let labels = Selector::parse(text)
            .map_err(|error| bad(format!("unable to parse label selector {text:?}: {error}")))?;
        let text = params.field_selector.as_deref().unwrap_or_default();
        let fields = FieldSelector::parse(text).map_err(bad)?;
        let all = params.all_namespaces || !kind.namespaced;
        let picked = |object: &Object| {
            (all || object.namespace() == namespace)
                && labels.matches(|key| object.label(key))
                && fields.matches(object.value())
        };
        let objects = self.cluster.list(kind).filter(|object| picked(object));
        Ok(objects.map(|object| object.to_value()).collect())
    }

    /// Begins a watch: everything there is, then a mark, then every change.
    pub(super) fn watch(
        &mut self,
        client: ClientId,
        params: &WatchParams,
    ) -> Result<WatchReply, ErrorObject> {
        let kinds: Vec<&'static Kind> = params
            .resources
            .iter()
            .map(|word| self.find_kind(word))
            .collect::<Result<_, _>>()?;
        self.check_watches(client)?;
        let namespace = params.namespace.clone();
        let subscription = self
            .watches
            .add_objects(client, kinds.clone(), namespace.clone());
        for object in self.cluster.objects() {
            if Watches::concerns(&kinds, namespace.as_deref(), object) {
                let value = object.to_value();
                self.watches
                    .tell(client, subscription, WatchEventType::Added, value);
            }
        }
        let synced = WatchEventType::Synced;
        self.watches.tell(client, subscription, synced, Value::Null);
        Ok(WatchReply { subscription })
    }

    fn find_kind(&self, word: &str) -> Result<&'static Kind, ErrorObject> {
        self.cluster
            .definitions()
            .find_resource(word)
            .ok_or_else(|| {
                let message = format!("the server doesn't have a resource type {word:?}");
                refused(Reason::NotFound, message)
            })
    }

    fn key(&self, target: &Target) -> Result<Key, ErrorObject> {
        let kind = self.find_kind(&target.resource)?;
        let namespace = target.namespace.as_deref().unwrap_or("default");
        Ok(Key::new(kind, namespace, &target.name))
    }

    fn columns(&self, kind: &Kind) -> Vec<PrinterColumn> {
        let definition = self.cluster.definitions().of(kind);
        definition.map_or_else(Vec::new, |definition| definition.shown().columns.clone())
    }

    /// The kinds that CustomResourceDefinitions define.
    pub(super) fn resources(&self) -> ResourcesReply {
        let definitions = self.cluster.definitions().iter();
        ResourcesReply {
            resources: definitions
                .map(|definition| definition.resource())
                .collect(),
        }
    }

    pub(super) fn check_watches(&self, client: ClientId) -> Result<(), ErrorObject> {
        if self.watches.count(client) < WATCHES_PER_CLIENT {
            return Ok(());
        }
        let message = format!("a client has at most {WATCHES_PER_CLIENT} watches");
        Err(refused(Reason::TooManyRequests, message))
    }
}

fn fields(validation: FieldValidation) -> objects::FieldValidation {
    match validation {
        FieldValidation::Strict => objects::FieldValidation::Strict,
        FieldValidation::Warn => objects::FieldValidation::Warn,
        FieldValidation::Ignore => objects::FieldValidation::Ignore,
    }
}

fn refusal(error: Refusal, object: Option<usize>) -> ErrorObject {
    let mut refused = refused(error.reason, error.message);
    if let Some(detail) = &mut refused.data {
        detail.object = object;
    }
    refused
}

fn mutation(outcomes: &[Outcome], warnings: Vec<String>, live: Live) -> Mutation {
    let results = outcomes.iter().map(|outcome| Operation {
        reference: reference(&outcome.object),
        operation: outcome.operation,
        object: outcome.object.to_value(),
    });
    Mutation {
        results: results.collect(),
        warnings,
        generation: live.generation,
        workers: live.workers,
        elapsed_micros: live.elapsed_micros,
        preview: None,
        request_micros: live.request_micros,
    }
}

fn reference(object: &Object) -> ObjectRef {
    let kind = object.kind();
    ObjectRef {
        api_version: kind.api_version.to_owned(),
        kind: kind.kind.to_owned(),
        resource: kind.qualified_singular(),
        namespace: kind.namespaced.then(|| object.namespace().to_owned()),
        name: object.name().to_owned(),
        uid: object.uid().to_owned(),
    }
}

impl<P: Plane> Daemon<P> {
    /// Objects by resource, for `status`.
    pub(super) fn object_counts(&self) -> std::collections::BTreeMap<String, usize> {
        let counts = self.cluster.counts();
        counts
            .map(|(kind, count)| (kind.qualified_plural(), count))
            .collect()
    }
}
