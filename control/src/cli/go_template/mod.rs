//! Go's `text/template`, as far as `-o go-template` needs it: objects are JSON, there are no methods.
//!
//! Numbers of an object are floating-point numbers, as kubectl's decoder makes them: `80` prints as
//! `80`, a million as `1e+06`, and `eq .spec.replicas 2` is an error of types there as here.
//!
//! A template is bounded: [`DEPTH`] levels of nesting, [`STEPS`] steps and [`OUTPUT`] bytes of output.

mod exec;
mod format;
mod functions;
mod lex;
mod parse;
#[cfg(test)]
mod tests;

use serde_json::Value;
use thiserror::Error;

use parse::Node;

/// How deep blocks, parentheses and templates may lie within each other.
pub const DEPTH: usize = 64;
/// How many nodes one rendering executes at most.
pub const STEPS: usize = 10_000_000;
/// How much one rendering writes at most.
pub const OUTPUT: usize = 64 << 20;

/// Why a template does not parse, or cannot be executed; the text is Go's.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct TemplateError(String);

/// A parsed template.
#[derive(Debug)]
pub struct Template {
    text: String,
    main: Vec<Node>,
    defined: Vec<(String, Vec<Node>)>,
}

impl Template {
    /// Parses `text`.
    pub fn parse(text: &str) -> Result<Template, TemplateError> {
        parse::template(text)
    }

    /// The template's output for `object`. A key that is not there prints `<no value>`, or is an
    /// error unless `missing_keys` are allowed.
    pub fn render(&self, object: &Value, missing_keys: bool) -> Result<String, TemplateError> {
        exec::render(self, object, missing_keys)
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// A value as Go prints it, its numbers as a template sees them.
pub fn shown(value: &Value) -> String {
    let mut out = String::new();
    format::plain(value, &mut out);
    out
}

/// A value as Go prints it, its numbers as they are.
pub fn shown_exactly(value: &Value) -> String {
    let mut out = String::new();
    format::plain_with(value, &|number| number.to_string(), &mut out);
    out
}
