//! `commonLabels`, `labels` and `commonAnnotations`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::Built;

/// Labels, and how deep they go.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Labels {
    pairs: BTreeMap<String, String>,
    include_selectors: bool,
    include_templates: bool,
}

/// Adds labels to metadata, and to templates and selectors as far as that is wanted.
pub fn add(common: &BTreeMap<String, String>, labels: &[Labels], built: &mut [Built]) {
    for one in built {
        label(&mut one.object, common, true, true);
        for Labels {
            pairs,
            include_selectors,
            include_templates,
        } in labels
        {
            let templates = *include_templates || *include_selectors;
            label(&mut one.object, pairs, templates, *include_selectors);
        }
    }
}

/// Adds annotations to metadata and templates.
pub fn annotate(annotations: &BTreeMap<String, String>, built: &mut [Built]) {
    if annotations.is_empty() {
        return;
    }
    for one in built {
        set(&mut one.object["metadata"]["annotations"], annotations);
        for template in templates(&mut one.object) {
            set(&mut template["metadata"]["annotations"], annotations);
        }
    }
}

fn set(map: &mut Value, pairs: &BTreeMap<String, String>) {
    if pairs.is_empty() {
        return;
    }
    if !map.is_object() {
        *map = json!({});
    }
    for (key, value) in pairs {
        map[key] = value.as_str().into();
    }
}

fn label(
    object: &mut Value,
    pairs: &BTreeMap<String, String>,
    templates_too: bool,
    selectors: bool,
) {
    if pairs.is_empty() {
        return;
    }
    set(&mut object["metadata"]["labels"], pairs);
    if templates_too {
        for template in templates(object) {
            set(&mut template["metadata"]["labels"], pairs);
        }
    }
    if !selectors {
        return;
    }
    match object["kind"].as_str().unwrap_or_default() {
        "ReplicationController" => set(&mut object["spec"]["selector"], pairs),
        "Service" if object["spec"]["selector"].is_object() => {
            set(&mut object["spec"]["selector"], pairs);
        }
        "DaemonSet" | "Deployment" | "ReplicaSet" | "StatefulSet" => {
            set(&mut object["spec"]["selector"]["matchLabels"], pairs);
        }
        "PodDisruptionBudget" => narrow(object.pointer_mut("/spec/selector"), pairs),
        // As kustomize: selectors that name labels are narrowed, empty ones stay as they are.
        "NetworkPolicy" => {
            narrow(object.pointer_mut("/spec/podSelector"), pairs);
            for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
                for rule in object["spec"][rules].as_array_mut().into_iter().flatten() {
                    for peer in rule[peers].as_array_mut().into_iter().flatten() {
                        narrow(peer.get_mut("podSelector"), pairs);
                    }
                }
            }
            // Reading by index has made what was not there.
            tidy(object);
        }
        _ => {}
    }
}

fn narrow(selector: Option<&mut Value>, pairs: &BTreeMap<String, String>) {
    if let Some(labels) = selector.and_then(|selector| selector.get_mut("matchLabels"))
        && labels.is_object()
    {
        set(labels, pairs);
    }
}

/// Takes out members that are null.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// The pod templates of an object.
fn templates(object: &mut Value) -> Vec<&mut Value> {
    let pointer = match object["kind"].as_str().unwrap_or_default() {
        "CronJob" => "/spec/jobTemplate/spec/template",
        _ => "/spec/template",
    };
    let template = object.pointer_mut(pointer);
    template
        .filter(|template| template.is_object())
        .into_iter()
        .collect()
}
