//! Tutorials as data: what a text tells its reader to type, and what it shows of the answers.
//!
//! [`extract`] reads commands and outputs out of a tutorial's text, byte for byte. A lab keeps the
//! result as `tutorial.yaml`; a scenario says by line numbers when each command is typed, where, and
//! what comes of it. [`compare`] holds a terminal's text against the tutorial's; [`mask`] says what
//! may differ.

pub mod compare;
pub mod extract;
pub mod mask;
pub mod terminal;

use serde::{Deserialize, Serialize};

/// What a tutorial tells its reader to type and shows of the answers: `tutorial.yaml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tutorial {
    /// The text's file name.
    pub text: String,
    /// The first and the last line that were read, if it is only a part of the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<(usize, usize)>,
    /// In the text's order.
    pub entries: Vec<Entry>,
}

/// A command, an output or a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it begins in the text, from 1.
    pub line: usize,
    /// What it is, and its bytes without the indentation that all its lines share.
    #[serde(flatten)]
    pub part: Part,
    /// The prompt before a command, if the text shows one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Typed, all its lines.
    Command(String),
    /// Shown.
    Output(String),
    /// A file's content, or a part of it.
    Manifest(String),
}

impl Entry {
    /// The command, if it is one.
    pub fn command(&self) -> Option<&str> {
        match &self.part {
            Part::Command(text) => Some(text),
            _ => None,
        }
    }

    /// The output, if it is one.
    pub fn output(&self) -> Option<&str> {
        match &self.part {
            Part::Output(text) => Some(text),
            _ => None,
        }
    }
}

impl Tutorial {
    /// Reads a lab's `tutorial.yaml`.
    pub fn parse(text: &str) -> Result<Tutorial, serde_yaml_ng::Error> {
        serde_yaml_ng::from_str(text)
    }

    /// As `tutorial.yaml` holds it.
    pub fn to_yaml(&self) -> Result<String, serde_yaml_ng::Error> {
        serde_yaml_ng::to_string(self)
    }

    /// What begins at a line of the text.
    pub fn at(&self, line: usize) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.line == line)
    }

    /// The command that an output belongs to, unless the scenario names another one: the last
    /// before it.
    pub fn command_of(&self, output_line: usize) -> Option<usize> {
        let before = self.entries.iter().filter(|entry| entry.line < output_line);
        before
            .filter(|entry| entry.command().is_some())
            .map(|entry| entry.line)
            .next_back()
    }
}
