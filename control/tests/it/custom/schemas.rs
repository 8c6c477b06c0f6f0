//! What schemas say beside types, one at a time.

use serde_json::{Value, json};

use crate::store::Scene;

/// A definition whose objects have a field `x` of this schema.
fn definition(schema: &Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com", "scope": "Cluster",
            "names": {"kind": "Thing", "plural": "things"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {
                "openAPIV3Schema": {"type": "object", "properties": {"x": schema}},
            }}],
        },
    })
}

/// What an object with this `x` is refused with; nothing if it is stored.
fn complaint(scene: &mut Scene, schema: &Value, x: &Value) -> Option<String> {
    scene.must("apply", json!({"objects": [definition(schema)]}));
    let thing = json!({
        "apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"}, "x": x,
    });
    let params = json!({"objects": [thing], "dryRun": true});
    let error = scene.call("create", params).err()?;
    let message = error.message.strip_prefix("The Thing \"t\" is invalid: ");
    Some(message.unwrap_or(&error.message).to_owned())
}

#[test]
fn each_word_of_a_schema_holds() {
    let mut scene = Scene::new("custom-schemas");
    let text = |more: Value| {
        let mut schema = json!({"type": "string"});
        control::cluster::patch::merge(&mut schema, &more);
        schema
    };
    let branches = json!([{"required": ["a"]}, {"required": ["b"]}]);
    let pair = json!({"a": {"type": "integer"}, "b": {"type": "integer"}});
    let choice = |word: &str| json!({"type": "object", "properties": pair, word: branches});
    let none = "";
    let cases = [
        (
            text(json!({"minLength": 2})),
            json!("a"),
            "x: Invalid value: \"a\": x in body should be at least 2 chars long",
        ),
        (text(json!({"minLength": 2})), json!("äö"), none),
        (
            text(json!({"maxLength": 2})),
            json!("äöü"),
            "x: Too long: may not be more than 2 bytes",
        ),
        (text(json!({"nullable": true})), json!(null), none),
        (
            text(json!({"format": "date-time"})),
            json!("2026-01-01T00:00:00Z"),
            none,
        ),
        (
            text(json!({"format": "date-time"})),
            json!("today"),
            "x: Invalid value: \"today\": x in body must be of type date-time: \"today\"",
        ),
        (
            text(json!({"format": "ipv4"})),
            json!("10.0.0.256"),
            "x: Invalid value: \"10.0.0.256\": x in body must be of type ipv4: \"10.0.0.256\"",
        ),
        (text(json!({"format": "cidr"})), json!("10.0.0.0/8"), none),
        (
            text(json!({"format": "mac"})),
            json!("02:00:00:00:00:0g"),
            "x: Invalid value: \"02:00:00:00:00:0g\": x in body must be of type mac: \
             \"02:00:00:00:00:0g\"",
        ),
        (
            json!({"type": "number", "exclusiveMinimum": true, "minimum": 1}),
            json!(1),
            "x: Invalid value: 1: x in body should be greater than 1",
        ),
        (
            json!({"type": "number", "multipleOf": 5}),
            json!(7),
            "x: Invalid value: 7: x in body should be a multiple of 5",
        ),
        (json!({"type": "integer"}), json!(3.0), none),
        (
            json!({"type": "array", "items": {"type": "string"}, "minItems": 1}),
            json!([]),
            "x: Invalid value: 0: x in body should have at least 1 items",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}),
            json!(["a", "b", "a"]),
            "x[2]: Duplicate value: \"a\"",
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 1}),
            json!({"a": "", "b": ""}),
            "x: Too many: 2: must have at most 1 item",
        ),
        (choice("anyOf"), json!({"b": 1}), none),
        (
            choice("anyOf"),
            json!({}),
            "\n* <nil>: Invalid value: \"\": \"x\" must validate at least one schema (anyOf)\n\
             * x.a: Required value",
        ),
        (choice("oneOf"), json!({"a": 1}), none),
        (
            choice("oneOf"),
            json!({"a": 1, "b": 1}),
            "<nil>: Invalid value: \"\": \"x\" must validate one and only one schema (oneOf). Found \
             2 valid alternatives",
        ),
        (choice("allOf"), json!({"a": 1}), "x.b: Required value"),
        (
            json!({"type": "object", "properties": pair, "not": {"required": ["a"]}}),
            json!({"a": 1}),
            "<nil>: Invalid value: \"\": \"x\" must not validate the schema (not)",
        ),
        (
            json!({"type": "object", "x-kubernetes-embedded-resource": true,
            "x-kubernetes-preserve-unknown-fields": true}),
            json!({"kind": "Pod", "spec": {}}),
            "x.apiVersion: Required value: must not be empty",
        ),
    ];
    for (schema, x, expected) in cases {
        let said = complaint(&mut scene, &schema, &x).unwrap_or_default();
        assert_eq!(said, expected, "{schema} {x}");
    }
}

#[test]
fn what_is_not_looked_at_is_said_when_the_definition_comes() {
    let mut scene = Scene::new("custom-unread");
    let mut unread = definition(&json!({
        "type": "string", "pattern": "^\\p{Lu}+$",
        "x-kubernetes-validations": [{"rule": "self != ''"}],
    }));
    unread["spec"]["conversion"] = json!({"strategy": "Webhook"});
    let reply = scene.must("create", json!({"objects": [unread]}));
    let warnings = reply["warnings"].as_array().unwrap();
    let expected = [
        "objects of things.example.com are stored but have no effect here",
        "things.example.com: x-kubernetes-validations are not evaluated here: objects that break \
         these rules are accepted",
        "things.example.com: texts are not held against the pattern \"^\\\\p{Lu}+$\" here",
        "things.example.com: no webhook converts here: objects keep their fields whatever the \
         version",
    ];
    assert_eq!(warnings, &expected.map(Value::from));
}
