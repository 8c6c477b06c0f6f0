//! `patches`, `patchesStrategicMerge` and `patchesJson6902`.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::super::session::VerbError;
use super::{Built, local, read, values};
use crate::cluster::patch;
use crate::selector::Selector;

/// A patch and whom it is for.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Patch {
    path: Option<String>,
    patch: Option<String>,
    target: Option<Target>,
    options: Option<Options>,
}

/// Whom a patch is for: what is given has to fit; names are whole, with `.*` and the like as regular
/// expressions refused.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Target {
    group: Option<String>,
    version: Option<String>,
    kind: Option<String>,
    name: Option<String>,
    namespace: Option<String>,
    label_selector: Option<String>,
}

/// What a patch may change beside.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Options {
    allow_name_change: bool,
    allow_kind_change: bool,
}

impl Target {
    fn fits(&self, one: &Built) -> Result<bool, VerbError> {
        let object = &one.object;
        let (group, version) = {
            let whole = object["apiVersion"].as_str().unwrap_or_default();
            whole.split_once('/').unwrap_or(("", whole))
        };
        let labels = Selector::parse(self.label_selector.as_deref().unwrap_or_default())
            .map_err(|error| local(format!("labelSelector: {error}")))?;
        let namespace = object["metadata"]["namespace"]
            .as_str()
            .unwrap_or("default");
        let pairs = [
            (&self.group, group),
            (&self.version, version),
            (&self.kind, one.kind()),
            (&self.namespace, namespace),
            (&self.name, one.original.as_str()),
        ];
        for (wanted, own) in pairs {
            match wanted.as_deref() {
                None | Some("" | ".*") => {}
                Some(wanted) if wanted.contains(['*', '+', '(', '[', '|', '\\', '?', '^', '$']) => {
                    return Err(local(format!(
                        "the target {wanted:?} of a patch is a regular expression: only .* is known"
                    )));
                }
                Some(wanted) if wanted != own => return Ok(false),
                Some(_) => {}
            }
        }
        Ok(labels.matches(|key| object["metadata"]["labels"][key].as_str()))
    }
}

/// Applies one.
pub fn apply(folder: &Path, patch: &Patch, built: &mut Vec<Built>) -> Result<(), VerbError> {
    let (text, name) = match (&patch.path, &patch.patch) {
        (Some(path), None) => (read(&folder.join(path))?, path.clone()),
        (None, Some(text)) => (text.clone(), "patch".to_owned()),
        _ => return Err(local("a patch has either a path or a patch")),
    };
    if let Some(Options {
        allow_name_change,
        allow_kind_change,
    }) = &patch.options
        && (*allow_name_change || *allow_kind_change)
    {
        return Err(local(
            "a patch that changes a name or a kind is not supported",
        ));
    }
    for document in values(&text, &name)? {
        let is_json = document.is_array();
        let Some(target) = &patch.target else {
            if is_json {
                return Err(local(format!("{name}: a JSON patch needs a target")));
            }
            merge(&document, &name, built)?;
            continue;
        };
        let mut doomed = Vec::new();
        for (at, one) in built.iter_mut().enumerate() {
            if !target.fits(one)? {
                continue;
            }
            if is_json {
                patch::json(&mut one.object, &document)
                    .map_err(|error| local(format!("{name}: {error}")))?;
            } else if merged(one, &document, &name)? {
                doomed.push(at);
            }
        }
        doomed
            .into_iter()
            .rev()
            .for_each(|at| drop(built.remove(at)));
    }
    Ok(())
}

/// Merges files, or patches written in place, into the objects that they name.
pub fn merge_files(
    folder: &Path,
    patches: &[String],
    built: &mut Vec<Built>,
) -> Result<(), VerbError> {
    for patch in patches {
        let in_place = patch.contains('\n');
        let text = if in_place {
            patch.clone()
        } else {
            read(&folder.join(patch))?
        };
        let name = if in_place { "patch" } else { patch };
        for document in values(&text, name)? {
            merge(&document, name, built)?;
        }
    }
    Ok(())
}

fn merge(document: &Value, name: &str, built: &mut Vec<Built>) -> Result<(), VerbError> {
    let wanted = document["metadata"]["name"].as_str().unwrap_or_default();
    let namespace = document["metadata"]["namespace"].as_str();
    let fits = |one: &Built| {
        one.kind() == document["kind"].as_str().unwrap_or_default()
            && one.original == wanted
            && namespace.is_none_or(|ns| one.object["metadata"]["namespace"].as_str() == Some(ns))
    };
    let Some(at) = built.iter().position(fits) else {
        let kind = document["kind"].as_str().unwrap_or("?");
        return Err(local(format!("{name}: no matches for {kind} {wanted:?}")));
    };
    if merged(&mut built[at], document, name)? {
        built.remove(at);
    }
    Ok(())
}

/// Merges strategically; whether the object is to go (`$patch: delete`).
fn merged(one: &mut Built, document: &Value, name: &str) -> Result<bool, VerbError> {
    if document["$patch"] == "delete" {
        return Ok(true);
    }
    let own_name = one.object["metadata"]["name"].clone();
    patch::strategic(&mut one.object, document)
        .map_err(|error| local(format!("{name}: {error}")))?;
    one.object["metadata"]["name"] = own_name;
    Ok(false)
}
