//! The cells of volumes and claims.

use serde_json::Value;

use super::{items, or, text};

/// A PersistentVolume's cells.
pub fn volume(object: &Value, name: String, age: String) -> Vec<String> {
    let claim = object
        .pointer("/spec/claimRef")
        .filter(|claim| !claim.is_null());
    let claim = claim.map_or(String::new(), |claim| {
        format!("{}/{}", text(claim, "/namespace"), text(claim, "/name"))
    });
    vec![
        name,
        or(text(object, "/spec/capacity/storage"), "0"),
        access_modes(items(object, "/spec/accessModes")),
        or(
            text(object, "/spec/persistentVolumeReclaimPolicy"),
            "Retain",
        ),
        phase(object, "Available"),
        claim,
        storage_class(object),
        or(text(object, "/spec/volumeAttributesClassName"), "<unset>"),
        text(object, "/status/reason"),
        age,
        or(text(object, "/spec/volumeMode"), "Filesystem"),
    ]
}

/// A PersistentVolumeClaim's cells.
pub fn claim(object: &Value, name: String, age: String) -> Vec<String> {
    let volume = text(object, "/spec/volumeName");
    let (capacity, modes) = match volume.is_empty() {
        true => (String::new(), String::new()),
        false => (
            or(text(object, "/status/capacity/storage"), "0"),
            access_modes(items(object, "/status/accessModes")),
        ),
    };
    vec![
        name,
        phase(object, "Pending"),
        volume,
        capacity,
        modes,
        storage_class(object),
        or(text(object, "/spec/volumeAttributesClassName"), "<unset>"),
        age,
        or(text(object, "/spec/volumeMode"), "Filesystem"),
    ]
}

/// A volume's or claim's phase; `fallback` until somebody has set one.
fn phase(object: &Value, fallback: &str) -> String {
    match object.pointer("/metadata/deletionTimestamp") {
        Some(time) if !time.is_null() => "Terminating".to_owned(),
        _ => or(text(object, "/status/phase"), fallback),
    }
}

/// A volume's or claim's class; an annotation of old times goes before the field.
pub fn storage_class(object: &Value) -> String {
    let annotations = &object["metadata"]["annotations"];
    let old = annotations["volume.beta.kubernetes.io/storage-class"].as_str();
    old.map_or_else(|| text(object, "/spec/storageClassName"), str::to_owned)
}

/// Whether an annotation says that a class is the default one.
pub fn is_default_class(object: &Value) -> bool {
    let annotations = &object["metadata"]["annotations"];
    [
        "storageclass.kubernetes.io/is-default-class",
        "storageclass.beta.kubernetes.io/is-default-class",
    ]
    .iter()
    .any(|key| annotations[*key] == "true")
}

/// `RWO,ROX`: always in that order, each once.
pub fn access_modes(modes: &[Value]) -> String {
    let all = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let named = all
        .iter()
        .filter(|(mode, _)| modes.iter().any(|own| own == mode));
    let short: Vec<&str> = named.map(|(_, short)| *short).collect();
    short.join(",")
}
