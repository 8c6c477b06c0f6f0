//! A value on its way to what it means, with its path and line for errors.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::lines::Lines;
use super::load::LoadError;

/// Where a document stands.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) file: &'a str,
    /// From 1.
    pub(super) document: usize,
}

/// A value in a document.
#[derive(Clone)]
pub(super) struct Node<'a> {
    pub(super) value: &'a Value,
    place: Place<'a>,
    path: String,
    lines: Option<&'a Lines>,
    line: Option<usize>,
}

impl<'a> Node<'a> {
    /// A whole document.
    pub(super) fn document(value: &'a Value, place: Place<'a>, lines: Option<&'a Lines>) -> Self {
        Node {
            value,
            place,
            path: String::new(),
            lines,
            line: lines.and_then(Lines::line),
        }
    }

    /// The line it begins in, or that of what it stands in.
    pub(super) fn line(&self) -> Option<usize> {
        self.line
    }

    fn child(&self, value: &'a Value, key: &str, path: String) -> Node<'a> {
        let lines = self.lines.and_then(|lines| lines.child(key));
        Node {
            value,
            place: self.place,
            path,
            lines,
            line: lines.and_then(Lines::line).or(self.line),
        }
    }

    /// An error about this value.
    pub(super) fn error(&self, message: impl Into<String>) -> LoadError {
        LoadError {
            file: self.place.file.to_owned(),
            document: Some(self.place.document),
            line: self.line,
            path: self.path.clone(),
            message: message.into(),
        }
    }

    fn mistyped(&self, wanted: &str) -> LoadError {
        let found = match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::String(_) => "text",
            Value::Array(_) => "a list",
            Value::Object(_) => "a mapping",
        };
        self.error(format!("must be {wanted}, not {found}"))
    }

    /// Its fields; one that is not among `known` is an error. Null counts as absent.
    pub(super) fn fields(&self, known: &[&str]) -> Result<Fields<'a>, LoadError> {
        let Value::Object(map) = self.value else {
            return Err(self.mistyped("a mapping"));
        };
        let fields = Fields {
            map,
            node: self.clone(),
        };
        for key in map.keys() {
            if !known.contains(&key.as_str()) {
                let at = fields.node_of(key, &Value::Null);
                let message = format!("unknown field {key:?}; there are: {}", known.join(", "));
                return Err(LoadError {
                    path: self.path.clone(),
                    ..at.error(message)
                });
            }
        }
        Ok(fields)
    }

    /// Text that is not empty.
    pub(super) fn text(&self) -> Result<String, LoadError> {
        match self.value {
            Value::String(text) if !text.is_empty() => Ok(text.clone()),
            Value::String(_) => Err(self.error("must not be empty")),
            _ => Err(self.mistyped("text")),
        }
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self) -> Result<bool, LoadError> {
        self.value
            .as_bool()
            .ok_or_else(|| self.mistyped("true or false"))
    }

    /// A list's items.
    pub(super) fn items(&self) -> Result<Vec<Node<'a>>, LoadError> {
        let Value::Array(items) = self.value else {
            return Err(self.mistyped("a list"));
        };
        let numbered = items.iter().enumerate();
        Ok(numbered
            .map(|(index, item)| {
                let path = format!("{}[{index}]", self.path);
                self.child(item, &index.to_string(), path)
            })
            .collect())
    }

    /// A mapping's values, whatever their keys.
    pub(super) fn entries(&self) -> Result<BTreeMap<String, Node<'a>>, LoadError> {
        let Value::Object(map) = self.value else {
            return Err(self.mistyped("a mapping"));
        };
        let fields = Fields {
            map,
            node: self.clone(),
        };
        Ok(map
            .iter()
            .map(|(key, value)| (key.clone(), fields.node_of(key, value)))
            .collect())
    }
}

/// A mapping's fields.
pub(super) struct Fields<'a> {
    map: &'a Map<String, Value>,
    node: Node<'a>,
}

impl<'a> Fields<'a> {
    fn node_of(&self, key: &str, value: &'a Value) -> Node<'a> {
        let path = match self.node.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        };
        self.node.child(value, key, path)
    }

    /// A field, if it is there.
    pub(super) fn get(&self, key: &str) -> Option<Node<'a>> {
        let value = self.map.get(key).filter(|value| !value.is_null())?;
        Some(self.node_of(key, value))
    }

    /// A field that must be there.
    pub(super) fn required(&self, key: &str) -> Result<Node<'a>, LoadError> {
        self.get(key)
            .ok_or_else(|| self.node.error(format!("{key:?} is missing")))
    }

    /// A field read by `read`, if it is there.
    pub(super) fn optional<T>(
        &self,
        key: &str,
        read: impl FnOnce(&Node<'a>) -> Result<T, LoadError>,
    ) -> Result<Option<T>, LoadError> {
        self.get(key).map(|node| read(&node)).transpose()
    }

    /// The items of a list, none if it is not there, each read by `read`.
    pub(super) fn list<T>(
        &self,
        key: &str,
        read: impl Fn(&Node<'a>) -> Result<T, LoadError>,
    ) -> Result<Vec<T>, LoadError> {
        match self.get(key) {
            Some(node) => node.items()?.iter().map(read).collect(),
            None => Ok(Vec::new()),
        }
    }
}
