//! `configMapGenerator` and `secretGenerator`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use super::super::key_values::{self, Sources};
use super::super::session::VerbError;
use super::{Built, local, sha256};

/// One ConfigMap or Secret.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Generator {
    name: String,
    namespace: Option<String>,
    /// Of a Secret.
    #[serde(rename = "type")]
    kind: Option<String>,
    behavior: Option<String>,
    literals: Vec<String>,
    files: Vec<String>,
    envs: Vec<String>,
    env: Option<String>,
    options: Options,
}

/// How they are made.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Options {
    disable_name_suffix_hash: bool,
    immutable: bool,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

/// Makes the object, or merges it into the one that is there. Gives the hash that its name gets.
pub fn add(
    folder: &Path,
    generator: &Generator,
    kind: &str,
    all: &Options,
    built: &mut Vec<Built>,
) -> Result<Option<(String, String)>, VerbError> {
    if generator.name.is_empty() {
        return Err(local(format!("a generator of a {kind} has no name")));
    }
    let mut sources = Sources {
        literals: generator.literals.clone(),
        files: generator.files.clone(),
        env_files: generator.envs.clone(),
    };
    sources.env_files.extend(generator.env.clone());
    let values = key_values::read(&sources, folder)?;
    let mut object = match kind {
        "Secret" => key_values::secret(values),
        _ => key_values::config_map(values),
    };
    object["apiVersion"] = "v1".into();
    object["kind"] = kind.into();
    object["metadata"] = json!({"name": generator.name});
    if let Some(namespace) = &generator.namespace {
        object["metadata"]["namespace"] = namespace.as_str().into();
    }
    if kind == "Secret" {
        object["type"] = generator.kind.as_deref().unwrap_or("Opaque").into();
    }
    if all.immutable || generator.options.immutable {
        object["immutable"] = true.into();
    }
    for options in [all, &generator.options] {
        for (field, pairs) in [
            ("labels", &options.labels),
            ("annotations", &options.annotations),
        ] {
            for (key, value) in pairs {
                object["metadata"][field][key] = value.as_str().into();
            }
        }
    }
    let same = |one: &&mut Built| one.kind() == kind && one.original == generator.name;
    let present = built.iter_mut().find(same);
    match (generator.behavior.as_deref().unwrap_or("create"), present) {
        ("create", None) => built.push(Built::of(object.clone())),
        ("create", Some(_)) => {
            return Err(local(format!(
                "{kind} {:?} is there already; behavior: merge or replace would take it",
                generator.name
            )));
        }
        ("merge", Some(present)) => {
            for field in ["data", "binaryData"] {
                for (key, value) in object[field].as_object().into_iter().flatten() {
                    present.object[field][key] = value.clone();
                }
            }
            object = present.object.clone();
        }
        ("replace", Some(present)) => present.object = object.clone(),
        ("merge" | "replace", None) => {
            return Err(local(format!(
                "there is no {kind} {:?} to change",
                generator.name
            )));
        }
        (other, _) => return Err(local(format!("unknown behavior {other:?}"))),
    }
    let plain = all.disable_name_suffix_hash || generator.options.disable_name_suffix_hash;
    let key = format!("{kind}/{}", generator.name);
    Ok((!plain).then(|| (key, hash(&object))))
}

/// kustomize's hash of an object's content.
pub fn hash(object: &Value) -> String {
    let sorted = |field: &str| super::super::output::sorted(&object[field]);
    let name = &object["metadata"]["name"];
    let is_secret = object["kind"] == "Secret";
    let mut hashed = json!({});
    if !object["binaryData"].is_null() {
        hashed["binaryData"] = sorted("binaryData");
    }
    hashed["data"] = match object["data"].is_null() {
        true => "".into(),
        false => sorted("data"),
    };
    hashed["kind"] = object["kind"].clone();
    hashed["name"] = name.clone();
    if is_secret {
        hashed["type"] = object["type"].clone();
    }
    let hex = sha256::hex(hashed.to_string().as_bytes());
    let letter = |c: char| match c {
        '0' => 'g',
        '1' => 'h',
        '3' => 'k',
        'a' => 'm',
        'e' => 't',
        c => c,
    };
    hex.chars().take(10).map(letter).collect()
}
