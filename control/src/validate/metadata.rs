//! `metadata` (apimachinery `pkg/api/validation/objectmeta.go`).

use serde_json::Value;

use super::{Findings, names};
use crate::objects::Object;

/// The most bytes that an object's annotations may have together.
const ANNOTATIONS_BYTES: usize = 256 * 1024;

/// Whether an object's annotations are no larger than they may be.
pub fn has_room_for_annotations(object: &Value) -> bool {
    let annotations = object["metadata"]["annotations"].as_object();
    let lengths = annotations
        .into_iter()
        .flatten()
        .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len));
    lengths.sum::<usize>() <= ANNOTATIONS_BYTES
}

pub(super) fn validate(object: &Object, findings: &mut Findings) {
    let meta = object.metadata();
    if let Some(prefix) = meta.generate_name.as_deref().filter(|p| !p.is_empty()) {
        // A name grows behind it: a hyphen or dot at its end is fine.
        let sample = prefix.trim_end_matches(['-', '.']).to_owned() + "x";
        for message in name_complaints(object, &sample) {
            findings.invalid("metadata.generateName", prefix, &message);
        }
    }
    if object.name().is_empty() {
        findings.required("metadata.name", "name or generateName is required");
    } else {
        for message in name_complaints(object, object.name()) {
            findings.invalid("metadata.name", object.name(), &message);
        }
    }
    if object.kind().namespaced {
        for message in names::is_dns_1123_label(object.namespace()) {
            findings.invalid("metadata.namespace", object.namespace(), &message);
        }
    }
    labels(
        "metadata.labels",
        meta.labels
            .iter()
            .flatten()
            .map(|(k, v)| (k.as_str(), v.as_str())),
        findings,
    );
    let mut bytes = 0;
    for (key, value) in meta.annotations.iter().flatten() {
        for message in names::is_qualified_name(&key.to_lowercase()) {
            findings.invalid("metadata.annotations", key.as_str(), &message);
        }
        bytes += key.len() + value.len();
    }
    if bytes > ANNOTATIONS_BYTES {
        findings.push(
            "metadata.annotations",
            format!("Too long: may not be more than {ANNOTATIONS_BYTES} bytes"),
        );
    }
}

/// Labels at `path`.
pub(super) fn labels<'a>(
    path: &str,
    labels: impl Iterator<Item = (&'a str, &'a str)>,
    findings: &mut Findings,
) {
    for (key, value) in labels {
        for message in names::is_qualified_name(key) {
            findings.invalid(path, key, &message);
        }
        for message in names::is_label_value(value) {
            findings.invalid(path, value, &message);
        }
    }
}

fn name_complaints(object: &Object, name: &str) -> Vec<String> {
    match (object.kind().group(), object.kind().kind) {
        ("", "Namespace") => names::is_dns_1123_label(name),
        ("", "Service") => names::is_dns_1035_label(name),
        // RBAC names need only fit into a path.
        ("rbac.authorization.k8s.io", _) => {
            let bad = name == "." || name == ".." || name.contains(['/', '%']);
            let message = || "may not be '.' or '..' and may not contain '/' or '%'".to_owned();
            bad.then(message).into_iter().collect()
        }
        _ => names::is_dns_1123_subdomain(name),
    }
}
