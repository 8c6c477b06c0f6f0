//! Complaints in the words in which the API server checks custom resources: against their
//! definition's schema (apiextensions-apiserver `pkg/apiserver/validation`, kube-openapi
//! `pkg/validation/errors`), then by its rules (`x-kubernetes-validations`).

use serde_json::Value;

use super::{FieldError, Findings};
use crate::objects::Object;

/// What a schema and its rules complain of, in one object.
pub(super) struct Schema<'a> {
    object: &'a Value,
    pub(super) findings: &'a mut Findings,
    /// Complaints of rules, which come last.
    rules: Vec<FieldError>,
    /// Something is so wrong that the API server does not look at the rules.
    blocked: bool,
}

impl<'a> Schema<'a> {
    pub(super) fn new(object: &'a Object, findings: &'a mut Findings) -> Schema<'a> {
        Schema {
            object: object.value(),
            findings,
            rules: Vec::new(),
            blocked: false,
        }
    }

    /// Adds the rules' complaints, or that they have not been looked at.
    pub(super) fn finish(self) {
        if self.blocked {
            let message = "some validation rules were not checked because the object was invalid; \
                           correct the existing errors to complete validation";
            self.findings.invalid("<nil>", Value::Null, message);
        } else {
            self.findings.errors.extend(self.rules);
        }
    }

    /// What stands at `path` (`spec.ingress[0].action`), unless it is absent or null.
    pub(super) fn at(&self, path: &str) -> Option<&'a Value> {
        let pointer = path.replace(['.', '['], "/").replace(']', "");
        let found = self.object.pointer(&format!("/{pointer}"));
        found.filter(|value| !value.is_null())
    }

    /// Whether something stands at `path`, which must be so.
    pub(super) fn required(&mut self, path: &str) -> bool {
        let present = self.at(path).is_some();
        if !present {
            self.blocked = true;
            self.findings.required(path, "");
        }
        present
    }

    /// One of the texts `supported`.
    pub(super) fn one_of(&mut self, path: &str, value: &str, supported: &[&str]) {
        if self.required(path) && !supported.contains(&value) {
            self.blocked = true;
            self.findings.unsupported(path, value, supported);
        }
    }

    /// A required number within bounds, both inclusive.
    pub(super) fn number(&mut self, path: &str, value: i32, least: i32, most: i32) {
        if !self.required(path) {
            return;
        }
        if value < least {
            let message = format!("{path} in body should be greater than or equal to {least}");
            self.findings.invalid(path, value, &message);
        }
        if value > most {
            let message = format!("{path} in body should be less than or equal to {most}");
            self.findings.invalid(path, value, &message);
        }
    }

    /// A list's length, if the list is there.
    pub(super) fn items(&mut self, path: &str, least: usize, most: usize) {
        let Some(length) = self.at(path).and_then(Value::as_array).map(Vec::len) else {
            return;
        };
        if length < least {
            let message = format!("{path} in body should have at least {least} items");
            self.findings.invalid(path, length, &message);
        }
        if length > most {
            self.blocked = true;
            let items = if most == 1 { "item" } else { "items" };
            let message = format!("Too many: {length}: must have at most {most} {items}");
            self.findings.push(path, message);
        }
    }

    /// Exactly one member.
    pub(super) fn one_member(&mut self, path: &str) {
        let members = self.at(path).and_then(Value::as_object);
        let members = members.into_iter().flatten().filter(|(_, v)| !v.is_null());
        let count = members.count();
        if count > 1 {
            self.blocked = true;
            let message = format!("Too many: {count}: must have at most 1 item");
            self.findings.push(path, message);
        } else {
            self.a_member(path);
        }
    }

    /// At least one member.
    pub(super) fn a_member(&mut self, path: &str) {
        let members = self.at(path).and_then(Value::as_object);
        if members.is_none_or(|members| members.values().all(Value::is_null)) {
            let message = format!("{path} in body should have at least 1 properties");
            self.findings.invalid(path, 0, &message);
        }
    }

    /// A text's length in characters.
    pub(super) fn length(&mut self, path: &str, text: &str, most: usize) {
        if text.chars().count() > most {
            self.blocked = true;
            self.findings
                .push(path, format!("Too long: may not be more than {most} bytes"));
        }
    }

    /// A text of a list whose items are a set.
    pub(super) fn new_in_set(&mut self, path: &str, text: &str, before: &[String]) {
        if before.iter().any(|other| other == text) {
            self.findings.duplicate(path, text);
        }
    }

    /// A rule on a value of this type (`object`, `string`) that does not hold.
    pub(super) fn rule(&mut self, path: &str, kind: &str, message: &str) {
        self.rules.push(FieldError {
            path: path.to_owned(),
            message: format!("Invalid value: {kind:?}: {message}"),
        });
    }
}
