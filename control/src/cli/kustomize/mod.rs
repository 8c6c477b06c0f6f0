//! `-k`: a kustomization folder, as kustomize builds it. What is known of its format is [`Kustomization`];
//! any other field is refused, so that nothing is left out in silence. Nothing is fetched.

mod generate;
mod labels;
mod names;
mod patches;
mod sha256;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::files::FILE_BYTES;
use super::session::VerbError;
use crate::objects::kinds;
use crate::objects::yaml::documents;

/// Kustomizations within kustomizations at most.
const DEPTH: usize = 16;
/// Objects of one build at most.
const OBJECTS: usize = 10_000;
/// What the file may be called.
const NAMES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// A kustomization file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Kustomization {
    api_version: Option<String>,
    kind: Option<String>,
    metadata: Option<Value>,
    resources: Vec<String>,
    /// As `resources`, in older files.
    bases: Vec<String>,
    namespace: Option<String>,
    name_prefix: Option<String>,
    name_suffix: Option<String>,
    common_labels: BTreeMap<String, String>,
    labels: Vec<labels::Labels>,
    common_annotations: BTreeMap<String, String>,
    patches: Vec<patches::Patch>,
    patches_strategic_merge: Vec<String>,
    patches_json6902: Vec<patches::Patch>,
    config_map_generator: Vec<generate::Generator>,
    secret_generator: Vec<generate::Generator>,
    generator_options: generate::Options,
    images: Vec<Image>,
    replicas: Vec<Replicas>,
}

/// Another image in place of one.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Image {
    name: String,
    new_name: Option<String>,
    new_tag: Option<String>,
    digest: Option<String>,
}

/// How many pods something has.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Replicas {
    name: String,
    count: u32,
}

/// An object as far as it is built.
#[derive(Clone, Debug)]
struct Built {
    object: Value,
    /// Its name before prefixes, suffixes and hashes.
    original: String,
}

impl Built {
    fn of(object: Value) -> Built {
        let original = object["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        Built { object, original }
    }

    fn kind(&self) -> &str {
        self.object["kind"].as_str().unwrap_or_default()
    }
}

fn local(text: impl Into<String>) -> VerbError {
    VerbError::Local(text.into())
}

/// The objects of a folder, Namespaces and definitions first.
pub fn build(folder: &str) -> Result<Vec<Value>, VerbError> {
    if folder.starts_with("http://") || folder.starts_with("https://") || folder.contains("?ref=") {
        return Err(local(format!(
            "-k {folder}: Weir fetches nothing; name a folder of this machine"
        )));
    }
    let mut built = build_below(Path::new(folder), 0)?;
    let order = |one: &Built| match one.kind() {
        "Namespace" => 0,
        "CustomResourceDefinition" => 1,
        _ => 2,
    };
    built.sort_by_key(order);
    Ok(built.into_iter().map(|one| one.object).collect())
}

/// The kustomization file of a folder.
fn file_of(folder: &Path) -> Result<PathBuf, VerbError> {
    let found: Vec<PathBuf> = NAMES
        .iter()
        .map(|name| folder.join(name))
        .filter(|path| path.is_file())
        .collect();
    match &found[..] {
        [one] => Ok(one.clone()),
        [] => Err(local(format!(
            "unable to find one of 'kustomization.yaml', 'kustomization.yml' or 'Kustomization' in \
             directory '{}'",
            folder.display()
        ))),
        _ => Err(local(format!(
            "Found multiple kustomization files under: {}",
            folder.display()
        ))),
    }
}

fn read(path: &Path) -> Result<String, VerbError> {
    let at = |error: std::io::Error| local(format!("{}: {error}", path.display()));
    if std::fs::metadata(path).map_err(at)?.len() > FILE_BYTES {
        return Err(local(format!(
            "{} is larger than {FILE_BYTES} bytes",
            path.display()
        )));
    }
    std::fs::read_to_string(path).map_err(at)
}

/// The documents of a text that is called `name` in errors.
fn values(text: &str, name: &str) -> Result<Vec<Value>, VerbError> {
    let wrong = |why: &str| local(format!("error parsing {name}: {why}"));
    documents(text).map_err(|error| wrong(&error.message))
}

fn build_below(folder: &Path, depth: usize) -> Result<Vec<Built>, VerbError> {
    if depth == DEPTH {
        return Err(local(format!(
            "{}: kustomizations lie within each other deeper than {DEPTH}",
            folder.display()
        )));
    }
    let path = file_of(folder)?;
    let mut read_as = values(&read(&path)?, &path.display().to_string())?;
    let wrong = |why: String| local(format!("{}: {why}", path.display()));
    if read_as.len() > 1 {
        return Err(wrong("it holds several documents".to_owned()));
    }
    let document = read_as.pop().unwrap_or(Value::Object(Map::new()));
    let wanted: Kustomization =
        serde_json::from_value(document).map_err(|error| wrong(error.to_string()))?;
    if !matches!(wanted.kind.as_deref(), None | Some("Kustomization")) {
        return Err(wrong("kind is not Kustomization".to_owned()));
    }
    let version = wanted.api_version.as_deref();
    if version.is_some_and(|version| !version.starts_with("kustomize.config.k8s.io/")) {
        return Err(wrong(
            "apiVersion is not of kustomize.config.k8s.io".to_owned(),
        ));
    }
    let _ = wanted.metadata;
    let mut built = Vec::new();
    for resource in wanted.bases.iter().chain(&wanted.resources) {
        resource_objects(folder, resource, depth, &mut built)?;
        if built.len() > OBJECTS {
            return Err(wrong(format!("more than {OBJECTS} objects")));
        }
    }
    let mut hashed = Vec::new();
    for (generators, kind) in [
        (&wanted.config_map_generator, "ConfigMap"),
        (&wanted.secret_generator, "Secret"),
    ] {
        for generator in generators {
            let options = &wanted.generator_options;
            hashed.extend(generate::add(folder, generator, kind, options, &mut built)?);
        }
    }
    patches::merge_files(folder, &wanted.patches_strategic_merge, &mut built)?;
    for patch in wanted.patches.iter().chain(&wanted.patches_json6902) {
        patches::apply(folder, patch, &mut built)?;
    }
    if let Some(namespace) = &wanted.namespace {
        built
            .iter_mut()
            .for_each(|one| place(&mut one.object, namespace));
    }
    labels::add(&wanted.common_labels, &wanted.labels, &mut built);
    labels::annotate(&wanted.common_annotations, &mut built);
    for image in &wanted.images {
        built
            .iter_mut()
            .for_each(|one| replace_image(&mut one.object, image));
    }
    for Replicas { name, count } in &wanted.replicas {
        let scaled = [
            "Deployment",
            "ReplicaSet",
            "ReplicationController",
            "StatefulSet",
        ];
        let meant = |one: &&mut Built| one.original == *name && scaled.contains(&one.kind());
        let mut any = false;
        for one in built.iter_mut().filter(meant) {
            one.object["spec"]["replicas"] = (*count).into();
            any = true;
        }
        if !any {
            return Err(wrong(format!(
                "replicas: nothing that has pods is called {name:?}"
            )));
        }
    }
    let prefix = wanted.name_prefix.as_deref().unwrap_or_default();
    let suffix = wanted.name_suffix.as_deref().unwrap_or_default();
    names::change(&mut built, prefix, suffix, &hashed);
    Ok(built)
}

fn resource_objects(
    folder: &Path,
    resource: &str,
    depth: usize,
    built: &mut Vec<Built>,
) -> Result<(), VerbError> {
    let path = folder.join(resource);
    if path.is_dir() {
        built.extend(build_below(&path, depth + 1)?);
        return Ok(());
    }
    if resource.contains("://") || resource.starts_with("github.com/") {
        return Err(local(format!(
            "resource {resource}: Weir fetches nothing; name a file or a folder of this machine"
        )));
    }
    for document in values(&read(&path)?, &path.display().to_string())? {
        match document["items"].as_array() {
            Some(items) if document["kind"] == "List" => {
                built.extend(items.iter().cloned().map(Built::of));
            }
            _ if document["metadata"]["name"].is_string() && document["kind"].is_string() => {
                built.push(Built::of(document));
            }
            _ => {
                return Err(local(format!(
                    "{}: a document is no object with a kind and a name",
                    path.display()
                )));
            }
        }
    }
    Ok(())
}

/// Puts an object of a namespaced kind into a namespace; of bindings the accounts, too.
fn place(object: &mut Value, namespace: &str) {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let namespaced = kinds::find(text("apiVersion"), text("kind")).is_none_or(|k| k.namespaced);
    let binds = ["ClusterRoleBinding", "RoleBinding"].contains(&text("kind"));
    if namespaced {
        object["metadata"]["namespace"] = namespace.into();
    }
    if binds {
        for subject in object["subjects"].as_array_mut().into_iter().flatten() {
            if subject["kind"] == "ServiceAccount" {
                subject["namespace"] = namespace.into();
            }
        }
    }
}

/// The pod specifications within an object.
fn pod_specs(object: &mut Value) -> Vec<&mut Value> {
    let pointer = match object["kind"].as_str().unwrap_or_default() {
        "Pod" => "/spec",
        "CronJob" => "/spec/jobTemplate/spec/template/spec",
        _ => "/spec/template/spec",
    };
    object.pointer_mut(pointer).into_iter().collect()
}

fn replace_image(object: &mut Value, image: &Image) {
    for spec in pod_specs(object) {
        for field in ["containers", "initContainers"] {
            for container in spec[field].as_array_mut().into_iter().flatten() {
                let own = container["image"].as_str().unwrap_or_default();
                if let Some(other) = other_image(own, image) {
                    container["image"] = other.into();
                }
            }
        }
    }
}

/// The image in place of `own`, if that is meant.
fn other_image(own: &str, image: &Image) -> Option<String> {
    let (rest, digest) = match own.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (own, None),
    };
    let slash = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match rest[slash..].split_once(':') {
        Some((base, tag)) => (&rest[..slash + base.len()], Some(tag)),
        None => (rest, None),
    };
    if name != image.name {
        return None;
    }
    let name = image.new_name.as_deref().unwrap_or(name);
    if let Some(digest) = &image.digest {
        return Some(format!("{name}@{digest}"));
    }
    if let Some(tag) = &image.new_tag {
        return Some(format!("{name}:{tag}"));
    }
    Some(match (tag, digest) {
        (_, Some(digest)) => format!("{name}@{digest}"),
        (Some(tag), None) => format!("{name}:{tag}"),
        (None, None) => name.to_owned(),
    })
}
