//! Patches that make one object of another, as `edit` and `set` send them: only what was changed is in
//! them, so that what somebody else changes meanwhile stays.

use serde_json::{Map, Value};

use super::{ListMerge, list_merge, same_key};

/// The merge patch (RFC 7396) that makes `after` of `before`; none if they are the same.
pub fn merge_difference(before: &Value, after: &Value) -> Option<Value> {
    difference(before, after, &|_, old, new| {
        merge_difference(old, new).map(|part| (part, Vec::new()))
    })
}

/// Kubernetes' strategic merge patch that makes `after` of `before`; none if they are the same. Items
/// of a list that is joined by key are patched each by itself.
pub fn strategic_difference(before: &Value, after: &Value) -> Option<Value> {
    difference(before, after, &strategic_member)
}

/// A member's part of a patch, and the directives that stand beside it.
type Part = (Value, Vec<(String, Value)>);

fn difference(
    before: &Value,
    after: &Value,
    member: &dyn Fn(&str, &Value, &Value) -> Option<Part>,
) -> Option<Value> {
    let (Value::Object(old), Value::Object(new)) = (before, after) else {
        return (before != after).then(|| after.clone());
    };
    let mut patch = Map::new();
    for (key, value) in new {
        match old.get(key) {
            Some(same) if same == value => {}
            Some(old) => {
                let Some((part, directives)) = member(key, old, value) else {
                    continue;
                };
                patch.extend(directives);
                // Where only the order changes nothing else is said.
                if !part.as_array().is_some_and(Vec::is_empty) || is_empty_list(value) {
                    patch.insert(key.clone(), part);
                }
            }
            None => drop(patch.insert(key.clone(), value.clone())),
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

fn is_empty_list(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty)
}

fn strategic_member(field: &str, before: &Value, after: &Value) -> Option<Part> {
    let (Value::Array(old), Value::Array(new)) = (before, after) else {
        return strategic_difference(before, after).map(|part| (part, Vec::new()));
    };
    let whole = || Some((after.clone(), Vec::new()));
    let both = [old.as_slice(), new.as_slice()].concat();
    match list_merge(field, &both) {
        ListMerge::Atomic => whole(),
        ListMerge::Set => {
            let added = new.iter().filter(|item| !old.contains(item));
            let gone: Vec<Value> = old
                .iter()
                .filter(|item| !new.contains(item))
                .cloned()
                .collect();
            let mut directives = vec![(format!("$setElementOrder/{field}"), after.clone())];
            if !gone.is_empty() {
                directives.push((format!("$deleteFromPrimitiveList/{field}"), gone.into()));
            }
            Some((added.cloned().collect(), directives))
        }
        // Whose keys are not unique are told apart by nothing.
        ListMerge::Keyed(keys) if has_twins(old, keys) || has_twins(new, keys) => {
            let mut items = vec![serde_json::json!({"$patch": "replace"})];
            items.extend_from_slice(new);
            Some((items.into(), Vec::new()))
        }
        ListMerge::Keyed(keys) => {
            let order: Vec<Value> = new.iter().map(|item| key_of(item, keys)).collect();
            let directives = vec![(format!("$setElementOrder/{field}"), order.into())];
            Some((keyed_items(old, new, keys).into(), directives))
        }
    }
}

type Keys<'k> = &'k [(&'static str, &'static str)];

fn keyed_items(old: &[Value], new: &[Value], keys: Keys<'_>) -> Vec<Value> {
    let with_key = |item: &Value, part: Value| {
        let mut whole = key_of(item, keys);
        if let (Value::Object(whole), Value::Object(part)) = (&mut whole, part) {
            whole.extend(part);
        }
        whole
    };
    let mut items = Vec::new();
    for item in new {
        match old.iter().find(|old| same_key(old, item, keys)) {
            None => items.push(item.clone()),
            Some(before) => {
                let part = strategic_difference(before, item);
                items.extend(part.map(|part| with_key(before, part)));
            }
        }
    }
    let gone = old
        .iter()
        .filter(|item| !new.iter().any(|other| same_key(item, other, keys)));
    items.extend(gone.map(|item| with_key(item, serde_json::json!({"$patch": "delete"}))));
    items
}

/// The members of an item that tell it from the others.
fn key_of(item: &Value, keys: Keys<'_>) -> Value {
    let members = keys
        .iter()
        .filter_map(|(key, _)| Some(((*key).to_owned(), item.get(*key)?.clone())));
    Value::Object(members.collect())
}

fn has_twins(items: &[Value], keys: Keys<'_>) -> bool {
    let mut numbered = items.iter().enumerate();
    numbered.any(|(at, item)| items[..at].iter().any(|other| same_key(other, item, keys)))
}

#[cfg(test)]
mod tests {
    use super::super::{merge, strategic};
    use super::*;
    use serde_json::json;

    #[test]
    fn a_merge_difference_makes_one_of_the_other() {
        let before = json!({"a": {"b": 1, "c": [1, 2]}, "gone": true, "same": "x"});
        let after = json!({"a": {"b": 2, "c": []}, "same": "x", "new": {"d": {}}});
        let patch = merge_difference(&before, &after).unwrap();
        assert_eq!(
            patch,
            json!({"a": {"b": 2, "c": []}, "new": {"d": {}}, "gone": null})
        );
        let mut patched = before.clone();
        merge(&mut patched, &patch);
        assert_eq!(patched, after);
        assert_eq!(merge_difference(&before, &before), None);
    }

    #[test]
    fn a_strategic_difference_names_what_changed_alone() {
        let before = json!({"spec": {"containers": [
            {"name": "a", "image": "one", "args": ["x"]}, {"name": "b", "image": "two"}]}});
        let after = json!({"spec": {"containers": [
            {"name": "a", "image": "one", "args": ["x", "y"]}, {"name": "b", "image": "two"}]}});
        assert_eq!(
            strategic_difference(&before, &after).unwrap(),
            json!({"spec": {
                "$setElementOrder/containers": [{"name": "a"}, {"name": "b"}],
                "containers": [{"name": "a", "args": ["x", "y"]}]}})
        );
    }

    #[test]
    fn a_strategic_difference_makes_one_of_the_other() {
        let container = |name: &str, more: Value| {
            let mut all = json!({"name": name, "image": "i"});
            merge(&mut all, &more);
            all
        };
        let pod = |containers: Vec<Value>, more: Value| {
            let mut all = json!({"metadata": {"finalizers": ["a/1", "b/2"]},
                "spec": {"containers": containers}});
            merge(&mut all, &more);
            all
        };
        let env = |names: &[&str]| {
            let env: Vec<Value> = names
                .iter()
                .map(|name| json!({"name": name, "value": name}))
                .collect();
            json!({"env": env})
        };
        let ports = |protocols: &[&str]| {
            let ports: Vec<Value> = protocols
                .iter()
                .map(|protocol| json!({"containerPort": 53, "protocol": protocol}))
                .collect();
            json!({"ports": ports})
        };
        let nothing = || json!({});
        let (a, b, c) = ("a", "b", "c");
        let all = [
            pod(vec![container(a, nothing())], nothing()),
            pod(
                vec![container(a, env(&["x", "y"])), container(b, nothing())],
                nothing(),
            ),
            pod(
                vec![container(b, nothing()), container(a, env(&["y", "x"]))],
                nothing(),
            ),
            pod(
                vec![container(c, nothing()), container(a, env(&["z", "x"]))],
                nothing(),
            ),
            pod(
                vec![container(a, ports(&["UDP"])), container(b, env(&[]))],
                nothing(),
            ),
            pod(vec![container(a, ports(&["TCP", "UDP"]))], nothing()),
            pod(vec![container(a, ports(&["TCP", "TCP"]))], nothing()),
            pod(vec![container(a, env(&["x", "x", "y"]))], nothing()),
            pod(vec![], nothing()),
            pod(vec![], json!({"metadata": {"finalizers": ["b/2", "c/3"]}})),
            pod(vec![], json!({"metadata": {"finalizers": []}})),
            pod(
                vec![],
                json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
            ),
            pod(
                vec![],
                json!({"spec": {"volumes": [{"name": "v", "secret": {"secretName": "s"}}]}}),
            ),
            pod(
                vec![],
                json!({"spec": {"ingress": [{"ports": [{"port": 80}]}, {}]}}),
            ),
        ];
        for before in &all {
            for after in &all {
                let Some(patch) = strategic_difference(before, after) else {
                    assert_eq!(before, after);
                    continue;
                };
                let mut patched = before.clone();
                strategic(&mut patched, &patch).unwrap();
                assert_eq!(&patched, after, "{before}\n{patch}");
            }
        }
    }

    #[test]
    fn what_somebody_else_changed_meanwhile_stays() {
        let container =
            |name: &str, image: &str| json!({"name": name, "image": image, "args": [name]});
        let before = json!({"containers": [container("a", "1"), container("b", "1")]});
        let mine = json!({"containers": [container("b", "1"), container("a", "2")]});
        let patch = strategic_difference(&before, &mine).unwrap();
        let mut theirs =
            json!({"containers": [container("c", "1"), container("a", "1"), container("b", "9")]});
        strategic(&mut theirs, &patch).unwrap();
        assert_eq!(
            theirs,
            json!({"containers": [container("c", "1"), container("b", "9"), container("a", "2")]})
        );
    }
}
