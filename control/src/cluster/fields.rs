//! Parts of an object's JSON that the store reads and writes itself.

use serde_json::{Map, Value};

use super::LAST_APPLIED;
use crate::objects::{Key, Kind, Object};

/// What only the server writes.
pub(super) const SERVER_FIELDS: [&str; 8] = [
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
];

/// `metadata` as a map; made if it lacks.
pub(super) fn metadata(value: &mut Value) -> &mut Map<String, Value> {
    static EMPTY: fn() -> Value = || Value::Object(Map::new());
    if !value.is_object() {
        *value = EMPTY();
    }
    if !value["metadata"].is_object() {
        value["metadata"] = EMPTY();
    }
    match &mut value["metadata"] {
        Value::Object(map) => map,
        _ => unreachable!("metadata was made an object above"),
    }
}

/// Server-written fields stay as they are, and `status`, if it is written apart.
pub(super) fn keep_server_fields(value: &mut Value, live: &Object, keeps_status: bool) {
    let old = live.value();
    for field in SERVER_FIELDS {
        match old["metadata"].get(field) {
            Some(kept) => {
                metadata(value).insert(field.to_owned(), kept.clone());
            }
            None => {
                metadata(value).shift_remove(field);
            }
        }
    }
    if let Some(map) = value.as_object_mut().filter(|_| keeps_status) {
        match old.get("status") {
            Some(kept) => {
                map.insert("status".to_owned(), kept.clone());
            }
            None => {
                map.shift_remove("status");
            }
        }
    }
}

/// Whether anything but `metadata` differs, and `status`, unless that counts.
pub(super) fn differs_in_spec(new: &Value, old: &Value, status_counts: bool) -> bool {
    let counts =
        |(key, _): &(&String, &Value)| *key != "metadata" && (*key != "status" || status_counts);
    let entries = |value: &Value| match value {
        Value::Object(map) => map.iter().filter(counts).count(),
        _ => 0,
    };
    let changed = |(key, value): (&String, &Value)| old.get(key) != Some(value);
    let map = new.as_object().into_iter().flatten();
    entries(new) != entries(old) || map.filter(counts).any(changed)
}

/// The key that `value` says it has.
pub(super) fn key(kind: &'static Kind, value: &Value) -> Key {
    let meta = &value["metadata"];
    let text = |field: &str| meta[field].as_str().unwrap_or_default();
    Key::new(kind, text("namespace"), text("name"))
}

/// Whether `metadata.finalizers` holds any.
pub(super) fn has_finalizers(object: &Object) -> bool {
    let finalizers = object.value()["metadata"]["finalizers"].as_array();
    finalizers.is_some_and(|list| !list.is_empty())
}

/// Sets [`LAST_APPLIED`] to what `kubectl apply` writes there: the object without that annotation.
pub(super) fn annotate_last_applied(value: &mut Value) {
    match metadata(value).get_mut("annotations") {
        Some(Value::Object(annotations)) => {
            annotations.shift_remove(LAST_APPLIED);
        }
        // kubectl makes an empty map where there was none.
        _ => {
            let none = Value::Object(Map::new());
            metadata(value).insert("annotations".to_owned(), none);
        }
    }
    let text = format!("{value}\n");
    value["metadata"]["annotations"][LAST_APPLIED] = Value::from(text);
}

/// A version 4 UUID (RFC 9562, section 5.4) of these bits.
pub(super) fn uuid(bits: u128) -> String {
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{bits:032x}");
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

/// Five characters behind `generateName`, from Kubernetes' alphabet
/// (apimachinery `pkg/util/rand`): no vowels, so no words.
pub(super) fn suffix(mut bits: u128) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut text = String::with_capacity(5);
    for _ in 0..5 {
        text.push(char::from(ALPHABET[(bits % 27) as usize]));
        bits /= 27;
    }
    text
}
