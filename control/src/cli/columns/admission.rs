//! Columns of what admits objects in a cluster.

use serde_json::Value;

use super::{count, or, text};

/// A ValidatingAdmissionPolicy.
pub(super) fn policy(object: &Value, name: String, age: String) -> Vec<String> {
    let of = |field: &str| text(object, &format!("/spec/paramKind/{field}"));
    let parameters = match object.pointer("/spec/paramKind") {
        Some(Value::Object(_)) => format!("{}/{}", of("apiVersion"), of("kind")),
        _ => "<unset>".to_owned(),
    };
    let validations = count(object, "/spec/validations").to_string();
    vec![name, validations, parameters, age]
}

/// A ValidatingAdmissionPolicyBinding.
pub(super) fn binding(object: &Value, name: String, age: String) -> Vec<String> {
    let of = |field: &str| text(object, &format!("/spec/paramRef/{field}"));
    let parameters = match of("namespace").as_str() {
        "" => or(of("name"), "<unset>"),
        namespace => format!("{namespace}/{}", of("name")),
    };
    vec![name, text(object, "/spec/policyName"), parameters, age]
}
