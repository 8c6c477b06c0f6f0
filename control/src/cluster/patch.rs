//! Patches: JSON merge patch (RFC 7396), JSON patch (RFC 6902), Kubernetes' strategic merge patch
//! and `kubectl apply`'s three-way merge.
//!
//! Lists that strategic merging joins by key are those of the kinds that are stored here; every
//! other list is replaced whole, as in Kubernetes.

mod difference;

use serde_json::{Map, Value};

pub use difference::{merge_difference, strategic_difference};

use crate::objects::Kind;

/// RFC 7396, section 2.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(map) = target else {
        return;
    };
    for (key, change) in changes {
        if change.is_null() {
            map.shift_remove(key);
        } else {
            merge(map.entry(key.clone()).or_insert(Value::Null), change);
        }
    }
}

/// How a list is merged.
enum ListMerge {
    /// Replaced whole.
    Atomic,
    /// Plain values, joined as a set.
    Set,
    /// Objects, joined by these fields; a field's default if it is absent.
    Keyed(&'static [(&'static str, &'static str)]),
}

/// `patchMergeKey` and `patchStrategy` of `k8s.io/api` for the list called `field` with such
/// items. Ports are told apart by protocol too: by the number alone, DNS's two ports on 53 would
/// be one (kubernetes/kubernetes#39188).
fn list_merge(field: &str, items: &[Value]) -> ListMerge {
    let have = |key: &str| !items.is_empty() && items.iter().all(|i| i.get(key).is_some());
    match field {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "volumes"
        | "env"
        | "imagePullSecrets"
        | "secrets"
            if have("name") =>
        {
            ListMerge::Keyed(&[("name", "")])
        }
        "ports" if have("containerPort") => {
            ListMerge::Keyed(&[("containerPort", ""), ("protocol", "TCP")])
        }
        // A Service's ports; those of a NetworkPolicy lie inside atomic lists and do not get here.
        "ports" if have("port") => ListMerge::Keyed(&[("port", ""), ("protocol", "TCP")]),
        "volumeMounts" if have("mountPath") => ListMerge::Keyed(&[("mountPath", "")]),
        "volumeDevices" if have("devicePath") => ListMerge::Keyed(&[("devicePath", "")]),
        "hostAliases" if have("ip") => ListMerge::Keyed(&[("ip", "")]),
        "podIPs" | "hostIPs" if have("ip") => ListMerge::Keyed(&[("ip", "")]),
        "conditions" | "addresses" if have("type") => ListMerge::Keyed(&[("type", "")]),
        "ownerReferences" if have("uid") => ListMerge::Keyed(&[("uid", "")]),
        "topologySpreadConstraints" if have("topologyKey") => {
            ListMerge::Keyed(&[("topologyKey", ""), ("whenUnsatisfiable", "")])
        }
        "finalizers" => ListMerge::Set,
        _ => ListMerge::Atomic,
    }
}

fn same_key(a: &Value, b: &Value, keys: &[(&str, &str)]) -> bool {
    keys.iter().all(|(key, default)| {
        let text = |value: &Value| match value.get(key) {
            None | Some(Value::Null) => (*default).to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        text(a) == text(b)
    })
}

/// Kubernetes' strategic merge patch (apimachinery `pkg/util/strategicpatch`), with the directives
/// `$patch: replace|delete|merge`, `$deleteFromPrimitiveList/F`, `$retainKeys` and
/// `$setElementOrder/F`, without which the order is that of the stored list, then of the patch.
pub fn strategic(target: &mut Value, patch: &Value) -> Result<(), String> {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return Ok(());
    };
    match changes.get("$patch").map(|d| d.as_str().unwrap_or("")) {
        Some("replace") => {
            *target = without_directives(patch);
            return Ok(());
        }
        Some("delete") => {
            *target = Value::Object(Map::new());
            return Ok(());
        }
        Some("merge") | None => {}
        Some(other) => return Err(format!("unrecognized patch type: {other}")),
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(map) = target else {
        return Ok(());
    };
    if let Some(retained) = changes.get("$retainKeys").and_then(Value::as_array) {
        map.retain(|key, _| retained.iter().any(|kept| kept == key));
    }
    let before = map.clone();
    for (key, change) in changes {
        if let Some(field) = key.strip_prefix("$deleteFromPrimitiveList/") {
            if let (Some(list), Some(gone)) = (
                map.get_mut(field).and_then(Value::as_array_mut),
                change.as_array(),
            ) {
                list.retain(|item| !gone.contains(item));
            }
        } else if key.starts_with('$') {
            // Other directives were seen to above or do not change what is stored.
        } else if change.is_null() {
            map.shift_remove(key);
        } else {
            let old = map.entry(key.clone()).or_insert(Value::Null);
            strategic_field(key, old, change)?;
        }
    }
    for (key, order) in changes {
        let field = key.strip_prefix("$setElementOrder/");
        if let (Some(field), Some(order)) = (field, order.as_array())
            && let Some(list) = map.get_mut(field).and_then(Value::as_array_mut)
        {
            let stored = before.get(field).and_then(Value::as_array);
            set_order(field, list, order, stored.map_or(&[], Vec::as_slice));
        }
    }
    Ok(())
}

/// Puts the items that `order` names in its order. The others keep theirs, and stay ahead of those that
/// they were ahead of in the list as it was `stored`.
fn set_order(field: &str, list: &mut Vec<Value>, order: &[Value], stored: &[Value]) {
    let merge = list_merge(field, order);
    let same = |a: &Value, b: &Value| match merge {
        ListMerge::Keyed(keys) => same_key(a, b, keys),
        _ => a == b,
    };
    let mut others = std::mem::take(list);
    let mut named = Vec::new();
    for wanted in order {
        if let Some(at) = others.iter().position(|item| same(item, wanted)) {
            named.push(others.remove(at));
        }
    }
    let place = |item: &Value| stored.iter().position(|old| same(old, item));
    let mut others = others.into_iter().peekable();
    for item in named {
        let at = place(&item);
        while let Some(other) = others.next_if(|other| {
            let (own, other) = (at, place(other));
            own.zip(other).is_some_and(|(own, other)| other < own)
        }) {
            list.push(other);
        }
        list.push(item);
    }
    list.extend(others);
}

fn strategic_field(field: &str, target: &mut Value, change: &Value) -> Result<(), String> {
    let Value::Array(items) = change else {
        return strategic(target, change);
    };
    let replaced = |item: &&Value| item.get("$patch").is_some_and(|d| d == "replace");
    if items.iter().any(|item| replaced(&item)) {
        let kept = items.iter().filter(|item| !replaced(item));
        *target = Value::Array(kept.map(without_directives).collect());
        return Ok(());
    }
    match list_merge(field, items) {
        ListMerge::Atomic => *target = change.clone(),
        ListMerge::Set => {
            let list = array(target);
            for item in items {
                if !list.contains(item) {
                    list.push(item.clone());
                }
            }
        }
        ListMerge::Keyed(keys) => {
            let list = array(target);
            // What the patch adds is met by none of its other items.
            let mut stored = list.len();
            for item in items {
                let mut old = list[..stored].iter();
                let at = old.position(|old| same_key(old, item, keys));
                let deleted = item.get("$patch").is_some_and(|d| d == "delete");
                match at {
                    Some(at) if deleted => {
                        list.remove(at);
                        stored -= 1;
                    }
                    Some(at) => strategic(&mut list[at], item)?,
                    None if deleted => {}
                    None => list.push(without_directives(item)),
                }
            }
        }
    }
    Ok(())
}

fn array(value: &mut Value) -> &mut Vec<Value> {
    if !value.is_array() {
        *value = Value::Array(Vec::new());
    }
    match value {
        Value::Array(list) => list,
        _ => unreachable!("it was made a list above"),
    }
}

/// A patch's value as it is stored: no directives, no nulls in maps.
fn without_directives(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .filter(|(key, value)| !key.starts_with('$') && !value.is_null())
                .map(|(key, value)| (key.clone(), without_directives(value)))
                .collect(),
        ),
        other => other.clone(),
    }
}

/// What `kubectl apply` makes of the object as it was applied before (`original`), as it is
/// applied now (`wanted`) and as it is there (`live`): what `wanted` says, without what only
/// `original` said, and else as it is.
pub fn three_way(original: &Value, wanted: &Value, live: &Value, lists: Lists) -> Value {
    let mut merged = live.clone();
    merge_three_ways(original, wanted, &mut merged, lists);
    merged
}

/// What becomes of lists where `apply` merges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lists {
    /// As the strategic merge joins them.
    Joined,
    /// Replaced whole: nobody knows how those of custom resources are joined.
    Whole,
}

impl Lists {
    /// What becomes of the lists of a kind.
    pub fn of(kind: &Kind) -> Lists {
        match kind.is_custom {
            true => Lists::Whole,
            false => Lists::Joined,
        }
    }
}

/// [`three_way`] in place: `live` becomes what is merged.
fn merge_three_ways(original: &Value, wanted: &Value, live: &mut Value, lists: Lists) {
    let (Value::Object(wanted), Value::Object(merged)) = (wanted, &mut *live) else {
        *live = wanted.clone();
        return;
    };
    if let Value::Object(original) = original {
        for key in original.keys() {
            if !wanted.contains_key(key) {
                merged.shift_remove(key);
            }
        }
    }
    for (key, value) in wanted {
        let before = original.get(key).unwrap_or(&Value::Null);
        match (value, merged.get_mut(key)) {
            (Value::Null, _) => {
                merged.shift_remove(key);
            }
            (Value::Array(items), Some(Value::Array(old))) if lists == Lists::Joined => {
                *old = three_way_list(key, before, items, old);
            }
            (_, Some(old)) => merge_three_ways(before, value, old, lists),
            (_, None) => {
                merged.insert(key.clone(), value.clone());
            }
        }
    }
}

fn three_way_list(field: &str, original: &Value, wanted: &[Value], live: &[Value]) -> Vec<Value> {
    let before = original.as_array().map(Vec::as_slice).unwrap_or_default();
    let sample = if wanted.is_empty() { before } else { wanted };
    match list_merge(field, sample) {
        ListMerge::Atomic => wanted.to_vec(),
        ListMerge::Set => {
            let kept = live
                .iter()
                .filter(|item| !wanted.contains(item) && !before.contains(item));
            wanted.iter().chain(kept).cloned().collect()
        }
        ListMerge::Keyed(keys) => {
            let find = |list: &[Value], item: &Value| -> Value {
                let found = list.iter().find(|other| same_key(other, item, keys));
                found.cloned().unwrap_or(Value::Null)
            };
            let named = wanted.iter().map(|item| match find(live, item) {
                Value::Null => item.clone(),
                old => three_way(&find(before, item), item, &old, Lists::Joined),
            });
            let kept = live
                .iter()
                .filter(|item| find(wanted, item).is_null() && find(before, item).is_null());
            named.chain(kept.cloned()).collect()
        }
    }
}

/// RFC 6902. Errors in the words of the library that the API server uses.
pub fn json(target: &mut Value, patch: &Value) -> Result<(), String> {
    let Value::Array(operations) = patch else {
        return Err("a JSON patch is a list of operations".to_owned());
    };
    let mut value = target.clone();
    for operation in operations {
        json_operation(&mut value, operation)?;
    }
    *target = value;
    Ok(())
}

fn json_operation(value: &mut Value, operation: &Value) -> Result<(), String> {
    let text = |field: &str| {
        let text = operation.get(field).and_then(Value::as_str);
        text.ok_or_else(|| format!("a JSON patch operation needs {field:?}"))
    };
    let with = || {
        let value = operation.get("value").cloned();
        value.ok_or_else(|| "a JSON patch operation needs \"value\"".to_owned())
    };
    let path = text("path")?;
    match text("op")? {
        "add" => add(value, path, with()?),
        "remove" => remove(value, path).map(drop),
        "replace" => {
            let missing = format!("replace operation does not apply: doc is missing path: {path}");
            *value.pointer_mut(path).ok_or(missing)? = with()?;
            Ok(())
        }
        "move" => {
            let from = text("from")?;
            if path
                .strip_prefix(from)
                .is_some_and(|rest| rest.starts_with('/'))
            {
                return Err(format!("cannot move {from} into its own part {path}"));
            }
            let moved = remove(value, from)?;
            add(value, path, moved)
        }
        "copy" => {
            let from = text("from")?;
            let copied = value.pointer(from).cloned();
            let missing = format!("copy operation does not apply: doc is missing path: {from}");
            add(value, path, copied.ok_or(missing)?)
        }
        "test" => {
            if value.pointer(path) == Some(&with()?) {
                Ok(())
            } else {
                Err(format!("testing value {path} failed"))
            }
        }
        other => Err(format!("unknown JSON patch operation {other:?}")),
    }
}

/// The parent's path and the last step, unescaped (RFC 6901).
fn split(path: &str) -> Option<(&str, String)> {
    let (parent, last) = path.rsplit_once('/')?;
    Some((parent, last.replace("~1", "/").replace("~0", "~")))
}

fn add(value: &mut Value, path: &str, item: Value) -> Result<(), String> {
    if path.is_empty() {
        *value = item;
        return Ok(());
    }
    let missing = || format!("add operation does not apply: doc is missing path: {path:?}");
    let (parent, last) = split(path).ok_or_else(missing)?;
    match value.pointer_mut(parent).ok_or_else(missing)? {
        Value::Object(map) => {
            map.insert(last, item);
        }
        Value::Array(list) if last == "-" => list.push(item),
        Value::Array(list) => {
            let at = index(&last).filter(|&at| at <= list.len());
            list.insert(at.ok_or_else(missing)?, item);
        }
        _ => return Err(missing()),
    }
    Ok(())
}

fn remove(value: &mut Value, path: &str) -> Result<Value, String> {
    let missing = || format!("remove operation does not apply: doc is missing path: {path:?}");
    let (parent, last) = split(path).ok_or_else(missing)?;
    match value.pointer_mut(parent).ok_or_else(missing)? {
        Value::Object(map) => map.shift_remove(&last).ok_or_else(missing),
        Value::Array(list) => {
            let at = index(&last).filter(|&at| at < list.len());
            Ok(list.remove(at.ok_or_else(missing)?))
        }
        _ => Err(missing()),
    }
}

/// An array index: digits without leading zeros (RFC 6901, section 4).
fn index(text: &str) -> Option<usize> {
    let plain = text == "0" || (!text.starts_with('0') && !text.starts_with('+'));
    text.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests;
