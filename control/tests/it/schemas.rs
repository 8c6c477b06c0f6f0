//! The JSON schemas of what the command line prints, and a validator for as much of JSON Schema
//! (draft 2020-12) as they use. A keyword that it does not know is an error, so that no schema
//! says what nobody checks.

use std::path::Path;

use serde_json::{Value, json};

/// Fails unless `value` satisfies a schema of `control/schemas`.
pub(crate) fn holds(schema: &str, value: &Value) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
    let text = std::fs::read_to_string(folder.join(schema)).unwrap();
    let root: Value = serde_json::from_str(&text).unwrap();
    let mut wrong = Vec::new();
    check(&root, &root, value, "$", &mut wrong);
    assert!(
        wrong.is_empty(),
        "{schema}:\n{}\n{value:#}",
        wrong.join("\n")
    );
}

fn check(root: &Value, schema: &Value, value: &Value, path: &str, wrong: &mut Vec<String>) {
    for (keyword, wanted) in schema.as_object().expect("a schema is an object") {
        match keyword.as_str() {
            "$schema" | "$id" | "$defs" | "title" | "description" => {}
            "$ref" => {
                let pointer = wanted.as_str().unwrap().strip_prefix('#').unwrap();
                check(root, root.pointer(pointer).unwrap(), value, path, wrong);
            }
            "type" => {
                let types = match wanted {
                    Value::Array(types) => types.clone(),
                    one => vec![one.clone()],
                };
                if !types.iter().any(|t| is_of(t.as_str().unwrap(), value)) {
                    wrong.push(format!("{path}: {value} is not of {wanted}"));
                }
            }
            "enum" => {
                if !wanted.as_array().unwrap().contains(value) {
                    wrong.push(format!("{path}: {value} is none of {wanted}"));
                }
            }
            "minimum" | "maximum" => {
                let (found, bound) = (value.as_f64(), wanted.as_f64().unwrap());
                let inside = |found| (keyword == "minimum") == (found >= bound) || found == bound;
                if found.is_some_and(|found| !inside(found)) {
                    wrong.push(format!("{path}: {value} is beyond the {keyword} {wanted}"));
                }
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, wanted, item, &format!("{path}[{index}]"), wrong);
                }
            }
            "required" => {
                for key in wanted.as_array().unwrap() {
                    if value.is_object() && value.get(key.as_str().unwrap()).is_none() {
                        wrong.push(format!("{path}: {key} is missing"));
                    }
                }
            }
            "properties" => {
                for (key, schema) in wanted.as_object().unwrap() {
                    if let Some(value) = value.get(key) {
                        check(root, schema, value, &format!("{path}.{key}"), wrong);
                    }
                }
            }
            "additionalProperties" => {
                assert_eq!(*wanted, json!(false), "only false is understood");
                let known = &schema["properties"];
                for key in value.as_object().into_iter().flat_map(|map| map.keys()) {
                    if known.get(key).is_none() {
                        wrong.push(format!("{path}: {key:?} is not in the schema"));
                    }
                }
            }
            other => panic!("the keyword {other:?} is not understood"),
        }
    }
}

fn is_of(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("the type {other:?} is not understood"),
    }
}

#[test]
fn the_validator_finds_what_is_wrong() {
    let schema = json!({
        "type": "object", "required": ["a"], "additionalProperties": false,
        "properties": {"a": {"type": ["integer", "null"], "minimum": 1, "maximum": 5},
                       "b": {"type": "array", "items": {"$ref": "#/$defs/c"}}},
        "$defs": {"c": {"enum": ["x", "y"]}}
    });
    let wrong = |value: Value| {
        let mut wrong = Vec::new();
        check(&schema, &schema, &value, "$", &mut wrong);
        wrong.len()
    };
    for (value, expected) in [
        (json!({"a": 1, "b": ["x"]}), 0),
        (json!({"a": null}), 0),
        (json!({"a": 0}), 1),
        (json!({"a": 6}), 1),
        (json!({"a": "1"}), 1),
        (json!({}), 1),
        (json!([]), 1),
        (json!({"a": 5, "b": ["z", "x", 1]}), 2),
        (json!({"a": 1, "d": 1}), 1),
    ] {
        assert_eq!(wrong(value.clone()), expected, "{value}");
    }
}
