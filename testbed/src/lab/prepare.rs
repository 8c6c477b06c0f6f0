//! `prepare-environment`: a lab as it is at its tutorial's start.

use std::collections::BTreeSet;
use std::time::Duration;

use control::client::{Client, ClientError};
use control::objects::{
    self, DecodeError, DecodeOptions, Decoded, Definitions, Object, decode_value, kinds,
};
use control::protocol::{
    ApplyParams, DeleteParams, GetParams, GetReply, Mutation, ResourcesReply, Target,
};
use serde_json::{Value, json};

use super::{CommandError, Lab, system, wait_settled};
use crate::scenario::Collection;

/// How long the lab's pods may take to be ready again.
const SETTLED_LIMIT: Duration = Duration::from_secs(120);
/// Namespaces that are the cluster's own.
const SYSTEM: &[&str] = &["kube-system", "kube-public", "kube-node-lease"];
/// Kinds that the cluster makes by itself.
const OWN_KINDS: &[&str] = &["Node", "Event", "Endpoints", "EndpointSlice", "Lease"];
/// Objects that the cluster puts into every namespace, or into `default`.
const OWN_NAMES: &[(&str, &str)] = &[
    ("Service", "kubernetes"),
    ("ConfigMap", "kube-root-ca.crt"),
    ("ServiceAccount", "default"),
    ("Namespace", "default"),
];

/// Removes what was made in the lab since its start, and applies what it started with. `module` is
/// what the tutorial calls its start, if it is named.
pub fn prepare_environment(lab: &Lab, module: Option<&str>) -> Result<(), CommandError> {
    let file = lab
        .read_file()
        .map_err(system(format!("no lab is called {}", lab.name)))?;
    let none = || CommandError::Refused(format!("lab {} has no tutorial", lab.name));
    let collection = Collection::read(&file.folder.ok_or_else(none)?)?;
    let scenario = collection.scenario()?;
    if module.is_some() && module != scenario.module.as_deref() {
        let what = match &scenario.module {
            Some(known) => format!("lab {} has the module {known}", lab.name),
            None => format!("lab {} has no modules", lab.name),
        };
        return Err(CommandError::Refused(what));
    }
    eprintln!("Resetting lab {} to the start of its tutorial", lab.name);
    let undecoded = |error: DecodeError| CommandError::Refused(error.to_string());
    let (mut options, mut documents) = (DecodeOptions::default(), Vec::new());
    for (path, text) in collection.chosen(&scenario.manifests) {
        documents.extend(objects::documents(&text, &path).map_err(undecoded)?);
    }
    options.definitions.read_all(&documents);
    let mut decoded = Decoded::default();
    for document in documents {
        decode_value(document, &options, &mut decoded).map_err(undecoded)?;
    }
    let objects = decoded.objects;
    let refused = |error: ClientError| CommandError::Refused(error.to_string());
    let mut client = Client::connect(lab.control_socket()).map_err(refused)?;
    let surplus = surplus(&mut client, &objects).map_err(refused)?;
    delete(&mut client, surplus).map_err(refused)?;
    if !objects.is_empty() {
        let params = ApplyParams {
            objects: objects.iter().map(Object::to_value).collect(),
            ..ApplyParams::default()
        };
        client.call::<Mutation>("apply", &params).map_err(refused)?;
    }
    if !wait_settled(lab, SETTLED_LIMIT) {
        return Err(CommandError::Refused(format!(
            "not every pod is ready after {} s; see: weir --lab {} get pods -A",
            SETTLED_LIMIT.as_secs(),
            lab.name
        )));
    }
    eprintln!("Lab {} is ready", lab.name);
    Ok(())
}

/// What there is beyond `wanted` and the cluster's own, but what goes with its namespace or its
/// owner.
fn surplus(client: &mut Client, wanted: &[Object]) -> Result<Vec<Target>, ClientError> {
    let namespace_of = |object: &Object| match &*object.key().namespace {
        "" if object.key().kind.namespaced => "default".to_owned(),
        name => name.to_owned(),
    };
    let kept: BTreeSet<(&str, String, String)> = wanted
        .iter()
        .map(|object| {
            let key = object.key();
            (key.kind.kind, namespace_of(object), key.name.to_string())
        })
        .collect();
    let reply: ResourcesReply = client.call("resources", json!({}))?;
    let definitions = Definitions::told(&reply.resources);
    let defined = definitions.iter().map(|definition| definition.kind);
    let mut surplus = Vec::new();
    for kind in kinds::KINDS.iter().chain(defined) {
        if OWN_KINDS.contains(&kind.kind) {
            continue;
        }
        let params = GetParams {
            resource: kind.qualified_plural(),
            all_namespaces: true,
            ..GetParams::default()
        };
        for item in client.call::<GetReply>("get", &params)?.items {
            let text = |field: &str| item["metadata"][field].as_str().unwrap_or_default();
            let (namespace, name) = (text("namespace"), text("name"));
            let own = SYSTEM.contains(&namespace)
                || (kind.kind == "Namespace" && SYSTEM.contains(&name))
                || OWN_NAMES.contains(&(kind.kind, name));
            let owned = !item["metadata"]["ownerReferences"].is_null();
            let inside_surplus = kind.namespaced
                && namespace != "default"
                && !kept.contains(&("Namespace", String::new(), namespace.to_owned()));
            let known = kept.contains(&(kind.kind, namespace.to_owned(), name.to_owned()));
            let going = !item["metadata"]["deletionTimestamp"].is_null();
            if own || owned || inside_surplus || known || going {
                continue;
            }
            surplus.push(Target {
                resource: kind.qualified_plural(),
                namespace: Some(namespace.to_owned()).filter(|text| !text.is_empty()),
                name: name.to_owned(),
            });
        }
    }
    Ok(surplus)
}

fn delete(client: &mut Client, targets: Vec<Target>) -> Result<(), ClientError> {
    if targets.is_empty() {
        return Ok(());
    }
    let params = DeleteParams {
        targets,
        ignore_not_found: true,
        grace_period: None,
        dry_run: false,
        orphan: false,
    };
    client.call::<Value>("delete", &params).map(drop)
}
