//! CustomResourceDefinitions (apiextensions-apiserver `pkg/apis/apiextensions/validation`).

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Findings, names};
use crate::objects::Object;
use crate::objects::definitions::Definitions;

/// In whose groups definitions want to be approved.
const PROTECTED: [&str; 2] = ["k8s.io", "kubernetes.io"];
/// Who has approved of them.
const APPROVED: &str = "api-approved.kubernetes.io";

pub(super) fn validate(object: &Object, old: Option<&Object>, findings: &mut Findings) {
    let spec = &object.value()["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (group, plural) = (text(&spec["group"]), text(&spec["names"]["plural"]));
    let wanted = format!("{plural}.{group}");
    if object.name() != wanted {
        let detail = "must be spec.names.plural+\".\"+spec.group";
        findings.invalid("metadata.name", object.name(), detail);
    }
    if group.is_empty() {
        findings.required("spec.group", "");
    } else {
        for message in names::is_dns_1123_subdomain(&group) {
            findings.invalid("spec.group", group.as_str(), &message);
        }
        if group.split('.').count() < 2 {
            findings.invalid(
                "spec.group",
                group.as_str(),
                "should be a domain with at least one dot",
            );
        }
    }
    approved(object, &group, findings);
    match text(&spec["scope"]).as_str() {
        "Namespaced" | "Cluster" => {}
        "" => findings.required("spec.scope", ""),
        other => findings.unsupported("spec.scope", other, &["Cluster", "Namespaced"]),
    }
    called(&spec["names"], findings);
    versions(spec, findings);
    if let Some(old) = old {
        unchanged(spec, &old.value()["spec"], findings);
    }
}

fn approved(object: &Object, group: &str, findings: &mut Findings) {
    let is_of = |domain: &str| {
        let rest = group.strip_suffix(domain);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    if PROTECTED.into_iter().any(is_of) && object.annotation(APPROVED).is_none_or(str::is_empty) {
        let path = format!("metadata.annotations[{APPROVED}]");
        let detail = "protected groups must have approval annotation \
                      \"api-approved.kubernetes.io\", see \
                      https://github.com/kubernetes/enhancements/pull/1111";
        findings.required(path, detail);
    }
}

fn called(called: &Value, findings: &mut Findings) {
    let mut name = |path: &str, text: &str| {
        if text.is_empty() {
            findings.required(path, "");
        }
        for message in names::is_dns_1035_label(&text.to_lowercase()) {
            if !text.is_empty() {
                findings.invalid(path, text, &message);
            }
        }
    };
    for field in ["plural", "kind"] {
        let text = called[field].as_str().unwrap_or_default();
        name(&format!("spec.names.{field}"), text);
    }
    if let Some(singular) = called["singular"].as_str().filter(|text| !text.is_empty()) {
        name("spec.names.singular", singular);
    }
    for list in ["shortNames", "categories"] {
        for (index, text) in called[list].as_array().into_iter().flatten().enumerate() {
            let path = format!("spec.names.{list}[{index}]");
            name(&path, text.as_str().unwrap_or_default());
        }
    }
}

fn versions(spec: &Value, findings: &mut Findings) {
    let list = spec["versions"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let (mut seen, mut stored) = (BTreeSet::new(), 0);
    for (index, version) in list.iter().enumerate() {
        let path = format!("spec.versions[{index}]");
        let name = version["name"].as_str().unwrap_or_default();
        for message in names::is_dns_1035_label(name) {
            findings.invalid(format!("{path}.name"), name, &message);
        }
        if !seen.insert(name) {
            findings.invalid(format!("{path}.name"), name, "must be unique");
        }
        stored += usize::from(version["storage"] == true);
        let schema = &version["schema"]["openAPIV3Schema"];
        let path = format!("{path}.schema.openAPIV3Schema");
        if !schema.is_object() {
            findings.required(path, "schemas are required");
        } else if schema["type"].as_str() != Some("object") {
            match schema["type"].as_str() {
                None | Some("") => {
                    findings.required(format!("{path}.type"), "must not be empty at the root");
                }
                Some(other) => {
                    findings.invalid(format!("{path}.type"), other, "must be object at the root");
                }
            }
        }
    }
    if stored != 1 {
        let detail = "must have exactly one version marked as storage version";
        findings.invalid(
            "spec.versions",
            Value::from(seen.into_iter().collect::<Vec<_>>()),
            detail,
        );
    }
}

/// What objects that are there depend on. Kubernetes lets the kind change, and then does not
/// establish it.
fn unchanged(spec: &Value, old: &Value, findings: &mut Findings) {
    for pointer in ["/group", "/scope", "/names/plural", "/names/kind"] {
        let (now, before) = (spec.pointer(pointer), old.pointer(pointer));
        if now != before {
            let path = format!("spec{}", pointer.replace('/', "."));
            let now = now.cloned().unwrap_or_default();
            findings.invalid(path, now, "field is immutable");
        }
    }
}

/// Names that another definition of the same group has already, so that words would be of two
/// meanings.
pub fn taken(object: &Object, definitions: &Definitions, findings: &mut Findings) {
    let names = &object.value()["spec"]["names"];
    let group = object.value()["spec"]["group"].as_str().unwrap_or_default();
    let own: Vec<(&str, &str)> = ["plural", "singular", "kind"]
        .into_iter()
        .filter_map(|field| Some((field, names[field].as_str()?)))
        .chain({
            let short = names["shortNames"].as_array().into_iter().flatten();
            short.filter_map(|name| Some(("shortNames", name.as_str()?)))
        })
        .collect();
    for other in definitions.iter() {
        if other.kind.group() != group || other.name() == object.name() {
            continue;
        }
        let theirs = || {
            let short = other.short_names.iter().map(String::as_str);
            let names = [other.kind.plural, &other.singular]
                .into_iter()
                .chain(short);
            names
                .map(str::to_owned)
                .chain([other.kind.kind.to_lowercase()])
        };
        for (field, name) in &own {
            if theirs().any(|their| their == name.to_lowercase()) {
                let detail = format!("{name:?} is already in use by {}", other.name());
                findings.invalid(format!("spec.names.{field}"), *name, &detail);
            }
        }
    }
}
