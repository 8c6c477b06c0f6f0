//! Custom resources against the schema of their definition, in the API server's words
//! (apiextensions-apiserver `pkg/apiserver/validation`, kube-openapi `pkg/validation`).

use serde_json::Value;

use super::{FieldError, Findings};
use crate::objects::definitions::Definition;
use crate::objects::definitions::schema::{Additional, ListType, Schema, SchemaType};

mod values;

/// Errors that are told of one object.
const TOLD: usize = 100;

/// Holds an object against its definition's schema. Rules in CEL are not evaluated.
pub fn validate(definition: &Definition, object: &Value, findings: &mut Findings) {
    let mut walk = Walk {
        path: String::new(),
        complaints: Complaints::default(),
        steps: 0,
    };
    walk.value(&definition.shown().schema, object);
    walk.list_items(&definition.shown().schema, object);
    let Walk {
        complaints, steps, ..
    } = walk;
    findings.errors.extend(complaints.errors);
    if steps > config::limits::SCHEMA_STEPS {
        let message = "the object is too large to be held against its schema";
        findings.forbidden("<nil>", message);
    } else if complaints.blocked && definition.unread.has_rules {
        let message = "some validation rules were not checked because the object was invalid; \
                       correct the existing errors to complete validation";
        findings.invalid("<nil>", Value::Null, message);
    }
}

/// What is wrong with an object.
#[derive(Default)]
struct Complaints {
    errors: Vec<FieldError>,
    /// Something is so wrong that the API server does not look at the rules.
    blocked: bool,
}

impl Complaints {
    fn add(&mut self, path: &str, message: String) {
        if self.errors.len() < TOLD {
            // As Kubernetes prints the path of the whole object.
            let path = if path.is_empty() { "<nil>" } else { path };
            self.errors.push(FieldError {
                path: path.to_owned(),
                message,
            });
        }
    }

    fn extend(&mut self, more: Complaints) {
        self.blocked |= more.blocked;
        let room = TOLD.saturating_sub(self.errors.len());
        self.errors.extend(more.errors.into_iter().take(room));
    }
}

/// A walk through an object and its schema.
struct Walk {
    path: String,
    complaints: Complaints,
    steps: u32,
}

impl Walk {
    /// An error about the value at hand, in terms of `value`.
    fn invalid(&mut self, value: impl Into<Value>, detail: String) {
        let message = format!("Invalid value: {}: {detail}", value.into());
        self.complaints.add(&self.path, message);
    }

    /// [`Walk::invalid`], where the detail begins with the path.
    fn in_body(&mut self, value: impl Into<Value>, detail: &str) {
        let detail = format!("{} in body {detail}", self.path);
        self.invalid(value, detail);
    }

    /// An error behind which the API server does not look at the rules.
    fn block(&mut self, message: String) {
        self.complaints.blocked = true;
        self.complaints.add(&self.path, message);
    }

    /// Does something with a member of the value at hand.
    fn member(&mut self, name: &str, work: impl FnOnce(&mut Walk)) {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        work(self);
        self.path.truncate(length);
    }

    /// Does something with an item of the value at hand.
    fn item(&mut self, index: usize, work: impl FnOnce(&mut Walk)) {
        let length = self.path.len();
        self.path.push_str(&format!("[{index}]"));
        work(self);
        self.path.truncate(length);
    }

    /// Whether there may be a further step.
    fn step(&mut self) -> bool {
        self.steps = self.steps.saturating_add(1);
        self.steps <= config::limits::SCHEMA_STEPS
    }

    fn value(&mut self, schema: &Schema, value: &Value) {
        if !self.step() || (value.is_null() && schema.nullable) || !self.typed(schema, value) {
            return;
        }
        match value {
            Value::Object(members) => {
                for name in &schema.required {
                    if !members.contains_key(name) {
                        self.member(name, |walk| walk.block("Required value".to_owned()));
                    }
                }
                if schema.is_embedded {
                    self.embedded(value);
                }
                for (name, member) in members {
                    match (schema.properties.get(name), &schema.additional) {
                        (Some(each), _) => self.member(name, |walk| walk.value(each, member)),
                        (None, Additional::Each(each)) => {
                            self.member(name, |walk| walk.value(each, member));
                        }
                        (None, Additional::Any | Additional::Unknown) => {}
                    }
                }
            }
            Value::Array(items) => {
                if let Some(each) = &schema.items {
                    for (index, item) in items.iter().enumerate() {
                        self.item(index, |walk| walk.value(each, item));
                    }
                }
            }
            _ => {}
        }
        if let Some(checks) = &schema.checks {
            self.checks(checks, value);
        }
    }

    /// Whether the value has its type.
    fn typed(&mut self, schema: &Schema, value: &Value) -> bool {
        let is = |kind: SchemaType| match kind {
            SchemaType::Object => value.is_object(),
            SchemaType::Array => value.is_array(),
            SchemaType::String => value.is_string(),
            SchemaType::Number => value.is_number(),
            SchemaType::Boolean => value.is_boolean(),
            SchemaType::Integer => {
                let whole = value.as_f64().filter(|number| number.fract() == 0.0);
                whole.is_some()
            }
        };
        let wanted = match schema.kind {
            _ if schema.is_int_or_string => {
                if is(SchemaType::Integer) || is(SchemaType::String) {
                    return true;
                }
                "integer,string"
            }
            Some(kind) if !is(kind) => kind.name(),
            _ => return true,
        };
        let found = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let detail = format!("must be of type {wanted}: {found:?}");
        self.complaints.blocked = true;
        self.in_body(found, &detail);
        false
    }

    /// A resource in a resource says what it is.
    fn embedded(&mut self, value: &Value) {
        for name in ["apiVersion", "kind"] {
            if value[name].as_str().is_none_or(str::is_empty) {
                self.member(name, |walk| {
                    walk.block("Required value: must not be empty".to_owned());
                });
            }
        }
    }

    /// Items of lists that are sets or maps are told apart.
    fn list_items(&mut self, schema: &Schema, value: &Value) {
        if !self.step() {
            return;
        }
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    match (schema.properties.get(name), &schema.additional) {
                        (Some(each), _) => self.member(name, |walk| walk.list_items(each, member)),
                        (None, Additional::Each(each)) => {
                            self.member(name, |walk| walk.list_items(each, member));
                        }
                        (None, Additional::Any | Additional::Unknown) => {}
                    }
                }
            }
            Value::Array(items) => {
                let keys: Vec<String> = match &schema.list {
                    ListType::Atomic => Vec::new(),
                    ListType::Set => items.iter().map(Value::to_string).collect(),
                    ListType::Map(keys) => items
                        .iter()
                        .map(|item| key_of(item, keys).to_string())
                        .collect(),
                };
                let mut seen = std::collections::BTreeSet::new();
                for (index, key) in keys.into_iter().enumerate() {
                    if seen.contains(&key) {
                        self.item(index, |walk| walk.block(format!("Duplicate value: {key}")));
                    }
                    seen.insert(key);
                }
                if let Some(each) = &schema.items {
                    for (index, item) in items.iter().enumerate() {
                        self.item(index, |walk| walk.list_items(each, item));
                    }
                }
            }
            _ => {}
        }
    }
}

/// What tells an item of a map apart.
fn key_of(item: &Value, keys: &[String]) -> Value {
    let members = keys.iter().filter_map(|key| {
        let member = item.get(key)?;
        Some((key.clone(), member.clone()))
    });
    Value::Object(members.collect())
}
