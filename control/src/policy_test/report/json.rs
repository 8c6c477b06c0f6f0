//! `weir test -o json`.

use serde::Serialize;
use serde_json::Value;

use super::{Entry, Report};
use crate::policy_test::run::{Failure, Verdict};
use crate::trace::Trace;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Json {
    version: u32,
    tests: Vec<JsonTest>,
    untouched: Vec<JsonUntouched>,
    summary: JsonSummary,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonTest {
    file: String,
    line: Option<usize>,
    name: String,
    description: Option<String>,
    /// `passed`, `failed`, `skipped`, `error`.
    result: &'static str,
    /// Why it was skipped or could not be judged.
    message: Option<String>,
    connections: usize,
    skipped: usize,
    failed: usize,
    failures: Vec<JsonFailure>,
    untouched: Vec<String>,
    seconds: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonFailure {
    line: Option<usize>,
    step: Option<String>,
    connection: Option<String>,
    expected: String,
    found: String,
    trace: Option<Trace>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonUntouched {
    file: String,
    policies: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonSummary {
    passed: usize,
    failed: usize,
    skipped: usize,
    errors: usize,
    untouched: usize,
    connections: usize,
}

impl Report {
    /// For a program.
    pub fn json(&self) -> Value {
        let totals = self.totals();
        let json = Json {
            version: 1,
            tests: self.entries.iter().map(test).collect(),
            untouched: self
                .untouched
                .iter()
                .map(|(file, policies)| JsonUntouched {
                    file: file.clone(),
                    policies: policies.iter().map(ToString::to_string).collect(),
                })
                .collect(),
            summary: JsonSummary {
                passed: totals.passed,
                failed: totals.failed,
                skipped: totals.skipped,
                errors: totals.broken,
                untouched: totals.untouched,
                connections: totals.flows,
            },
        };
        // Strings, numbers and lists: nothing of it can fail to be JSON.
        serde_json::to_value(json).unwrap_or_default()
    }
}

fn test(entry: &Entry) -> JsonTest {
    let outcome = &entry.outcome;
    let (result, message, line) = match &outcome.verdict {
        Verdict::Passed => ("passed", None, entry.line),
        Verdict::Failed => ("failed", None, entry.line),
        Verdict::Skipped(reason) => ("skipped", Some(reason.clone()), entry.line),
        Verdict::Broken { line, message } => ("error", Some(message.clone()), line.or(entry.line)),
    };
    JsonTest {
        file: entry.file.clone(),
        line,
        name: entry.name.clone(),
        description: entry.description.clone(),
        result,
        message,
        connections: outcome.flows,
        skipped: outcome.skipped,
        failed: outcome.failed,
        failures: outcome.failures.iter().map(failure).collect(),
        untouched: outcome.untouched.iter().map(ToString::to_string).collect(),
        seconds: entry.elapsed.as_secs_f64(),
    }
}

fn failure(failure: &Failure) -> JsonFailure {
    JsonFailure {
        line: failure.line,
        step: failure.step.clone(),
        connection: Some(failure.flow.clone()).filter(|flow| !flow.is_empty()),
        expected: failure.expected.clone(),
        found: failure.found.clone(),
        trace: failure.trace.clone(),
    }
}
