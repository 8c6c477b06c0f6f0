//! Any object, as `kubectl describe` prints kinds that it knows nothing of.

use serde_json::{Map, Value};

use super::page::{Page, text};

/// Members of `metadata` that have lines of their own, or none.
const SHOWN: [&str; 5] = [
    "name",
    "namespace",
    "labels",
    "annotations",
    "managedFields",
];

/// Writes the page, but for the events at its end.
pub fn describe(page: &mut Page, object: &Value) {
    page.field(0, "Name", text(object, "/metadata/name"));
    page.field(0, "Namespace", text(object, "/metadata/namespace"));
    page.labels(object);
    page.annotations(object);
    let Some(members) = object.as_object() else {
        return;
    };
    let mut members = members.clone();
    if let Some(Value::Object(metadata)) = members.get_mut("metadata") {
        metadata.retain(|key, _| !SHOWN.contains(&key.as_str()));
    }
    map(page, 0, &members);
}

fn map(page: &mut Page, level: usize, members: &Map<String, Value>) {
    let mut keys: Vec<&String> = members.keys().collect();
    keys.sort_unstable();
    for key in keys {
        let label = label(key);
        match &members[key] {
            Value::Object(nested) => {
                page.line(level, format!("{label}:"));
                map(page, level + 1, nested);
            }
            Value::Array(items) => {
                page.line(level, format!("{label}:"));
                for item in items {
                    match item {
                        Value::Object(nested) => map(page, level + 1, nested),
                        scalar => page.line(level + 1, plain(scalar)),
                    }
                }
            }
            scalar => page.field(level, &label, plain(scalar)),
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "<nil>".to_owned(),
        other => other.to_string(),
    }
}

/// `podSelector` → `Pod Selector`, `apiVersion` → `API Version`.
fn label(key: &str) -> String {
    // What is no plain name (a label's key) stays as it is.
    if !key.chars().all(|c| c.is_ascii_alphanumeric()) {
        return key.to_owned();
    }
    let mut words: Vec<String> = Vec::new();
    let mut upper_before = true;
    for c in key.chars() {
        let upper = c.is_ascii_uppercase();
        match words.last_mut() {
            Some(word) if !upper || upper_before => word.push(c),
            _ => words.push(c.to_ascii_uppercase().to_string()),
        }
        upper_before = upper;
    }
    let acronyms = ["API", "URL", "UID", "OSB", "GUID"];
    for word in &mut words {
        let whole = word.to_ascii_uppercase();
        if acronyms.contains(&whole.as_str()) {
            *word = whole;
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_unknown_kind_reads_as_kubectls() {
        let object = json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": "x", "uid": "u", "labels": {"a": "b"}},
            "spec": {"tier": "Admin", "priority": 5,
                "subject": {"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": "n"}}},
                "ingress": [{"action": "Deny", "from": [{"namespaces": {}}]}]}
        });
        let mut page = Page::default();
        describe(&mut page, &object);
        assert_eq!(
            page.render(),
            "\
Name:         x
Namespace:    
Labels:       a=b
Annotations:  <none>
API Version:  policy.networking.k8s.io/v1alpha2
Kind:         ClusterNetworkPolicy
Metadata:
  UID:  u
Spec:
  Ingress:
    Action:  Deny
    From:
      Namespaces:
  Priority:  5
  Subject:
    Namespaces:
      Match Labels:
        kubernetes.io/metadata.name:  n
  Tier:                               Admin
"
        );
    }

    #[test]
    fn labels_are_words() {
        for (key, expected) in [
            ("podSelector", "Pod Selector"),
            ("apiVersion", "API Version"),
            ("uid", "UID"),
            ("ipBlock", "Ip Block"),
            ("kubernetes.io/x", "kubernetes.io/x"),
        ] {
            assert_eq!(label(key), expected);
        }
    }
}
