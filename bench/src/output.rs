//! Results as a table for people or as JSON for programs.

use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Value, json};

use crate::machine::Machine;

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Format {
    /// Aligned columns under a line about the machine.
    Table,
    /// One JSON object: machine, arguments, results.
    Json,
}

/// Results ready to print.
#[derive(Debug)]
pub struct Report {
    /// The subcommand.
    pub benchmark: &'static str,
    /// What it was asked for.
    pub arguments: Value,
    /// Column heads.
    pub heads: Vec<&'static str>,
    /// The table's cells.
    pub rows: Vec<Vec<String>>,
    /// The same results, unrounded.
    pub results: Value,
    /// What a reader must know.
    pub notes: Vec<String>,
}

impl Report {
    /// Prints to standard output; a warning about the build also to standard error.
    pub fn print(&self, format: Format) {
        let machine = Machine::this();
        if let Some(warning) = machine.warning() {
            eprintln!("warning: {warning}");
        }
        match format {
            Format::Table => print!("{}", self.text(&machine)),
            Format::Json => println!("{:#}", self.json(&machine)),
        }
    }

    fn text(&self, machine: &Machine) -> String {
        let mut text = format!("{}\n\n", machine.line());
        text += &aligned(&self.heads, &self.rows);
        for note in &self.notes {
            text += &format!("\n{note}");
        }
        if !self.notes.is_empty() {
            text.push('\n');
        }
        text
    }

    fn json(&self, machine: &Machine) -> Value {
        json!({
            "benchmark": self.benchmark,
            "machine": machine,
            "warning": machine.warning(),
            "arguments": self.arguments,
            "results": self.results,
            "notes": self.notes,
        })
    }
}

/// A serialisable value as JSON.
pub fn value(of: &impl Serialize) -> Value {
    serde_json::to_value(of).unwrap_or(Value::Null)
}

/// The first column to the left, the others to the right.
fn aligned(heads: &[&str], rows: &[Vec<String>]) -> String {
    let heads: Vec<String> = heads.iter().map(|head| (*head).to_owned()).collect();
    let lines = || std::iter::once(&heads).chain(rows);
    let widths: Vec<usize> = (0..heads.len())
        .map(|column| {
            let cells = lines().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for line in lines() {
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            match column {
                0 => text += &format!("{cell:width$}"),
                _ => text += &format!("  {cell:>width$}"),
            }
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Report, aligned};
    use crate::machine::Machine;

    #[test]
    fn columns_are_aligned() {
        let rows = vec![
            vec!["a".to_owned(), "12.0".to_owned()],
            vec!["long".to_owned(), "1–2".to_owned()],
        ];
        assert_eq!(
            aligned(&["", "ns"], &rows),
            "        ns\na     12.0\nlong   1–2\n"
        );
    }

    #[test]
    fn json_names_the_machine_and_warns_of_a_dev_build() {
        let report = Report {
            benchmark: "micro",
            arguments: serde_json::json!({}),
            heads: vec![],
            rows: vec![],
            results: serde_json::json!([]),
            notes: vec![],
        };
        let mut machine = Machine::this();
        machine.profile = "dev";
        let value = report.json(&machine);
        assert!(value["machine"]["cores"].as_u64().unwrap() >= 1);
        assert!(value["warning"].is_string());
        machine.profile = "release";
        assert!(report.json(&machine)["warning"].is_null());
    }
}
