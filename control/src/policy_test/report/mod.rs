//! What became of tests, for a person ([`Report::text`]), for programs ([`Report::json`], in the
//! form of `control/schemas/test.v1.schema.json`) and for CI systems ([`Report::junit`]).

mod json;
mod junit;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use super::model::PolicyTest;
use super::run::{Failure, Outcome, PolicyKey, Verdict};

/// Failures of one test that a person is shown.
const SHOWN: usize = 10;

/// One test and what became of it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The file it stands in.
    pub file: String,
    /// The line it begins in.
    pub line: Option<usize>,
    /// Its name.
    pub name: String,
    /// What it shows.
    pub description: Option<String>,
    /// What became of it.
    pub outcome: Outcome,
    /// How long it took.
    pub elapsed: Duration,
}

impl Entry {
    /// A test's, with what became of it.
    pub fn new(test: &PolicyTest, outcome: Outcome, elapsed: Duration) -> Entry {
        Entry {
            file: test.file.clone(),
            line: test.line,
            name: test.name.clone(),
            description: test.description.clone(),
            outcome,
            elapsed,
        }
    }
}

/// What became of all tests.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// In the order in which they ran.
    pub entries: Vec<Entry>,
    /// With `--strict`: shared policies, by the file whose tests share them, that none of those
    /// tests touches. Those of a test alone are in its outcome.
    pub untouched: Vec<(String, BTreeSet<PolicyKey>)>,
}

/// How many of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Tests of which everything holds.
    pub passed: usize,
    /// Tests of which something does not.
    pub failed: usize,
    /// Tests that are not meant to run here.
    pub skipped: usize,
    /// Tests that could not be judged.
    pub broken: usize,
    /// Policies that no expectation touches, with `--strict`.
    pub untouched: usize,
    /// Connections judged.
    pub flows: usize,
}

impl Report {
    /// Of a file that cannot be read as tests, so that none has run: one case, which could not be
    /// judged.
    pub fn unread(file: String, line: Option<usize>, message: String) -> Report {
        let entry = Entry {
            file,
            line,
            name: "reading the tests".to_owned(),
            description: None,
            outcome: Outcome::new(Verdict::Broken { line, message }),
            elapsed: Duration::ZERO,
        };
        Report {
            entries: vec![entry],
            untouched: Vec::new(),
        }
    }

    /// How many of each.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for entry in &self.entries {
            match entry.outcome.verdict {
                Verdict::Passed => totals.passed += 1,
                Verdict::Failed => totals.failed += 1,
                Verdict::Skipped(_) => totals.skipped += 1,
                Verdict::Broken { .. } => totals.broken += 1,
            }
            totals.untouched += entry.outcome.untouched.len();
            totals.flows += entry.outcome.flows;
        }
        totals.untouched += self.untouched.iter().map(|(_, p)| p.len()).sum::<usize>();
        totals
    }

    /// The exit status: 0 all hold, 1 some fail, 2 some could not be judged.
    pub fn status(&self) -> u8 {
        let totals = self.totals();
        match (totals.broken, totals.failed + totals.untouched) {
            (0, 0) => 0,
            (0, _) => 1,
            _ => 2,
        }
    }

    /// For a person.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut file = None;
        for entry in &self.entries {
            if file != Some(&entry.file) {
                // Writing into a String cannot fail.
                let _ = writeln!(text, "{}", entry.file);
                file = Some(&entry.file);
            }
            write_entry(&mut text, entry);
        }
        for (file, policies) in &self.untouched {
            for policy in policies {
                let _ = writeln!(text, "{file}\n  FAIL  no expectation touches {policy}");
            }
        }
        let totals = self.totals();
        let counted = [
            (totals.passed, "passed"),
            (totals.failed, "failed"),
            (totals.broken, "not runnable"),
            (totals.skipped, "skipped"),
        ];
        let counted = counted.into_iter().filter(|(count, _)| *count > 0);
        let counted: Vec<String> = counted.map(|(n, what)| format!("{n} {what}")).collect();
        let _ = writeln!(
            text,
            "\n{} tests: {}; {} connections judged",
            self.entries.len(),
            counted.join(", "),
            totals.flows
        );
        if totals.untouched > 0 {
            let _ = writeln!(text, "{} policies untouched", totals.untouched);
        }
        text
    }
}

fn write_entry(text: &mut String, entry: &Entry) {
    let outcome = &entry.outcome;
    let name = &entry.name;
    let left_out = match outcome.skipped {
        0 => String::new(),
        count => format!(", {count} skipped"),
    };
    let _ = match &outcome.verdict {
        Verdict::Passed => {
            let flows = outcome.flows;
            writeln!(text, "  ok    {name} ({flows} connections{left_out})")
        }
        Verdict::Failed => writeln!(
            text,
            "  FAIL  {name} ({} failed, {} connections judged{left_out})",
            outcome.failed, outcome.flows
        ),
        Verdict::Skipped(reason) => writeln!(text, "  skip  {name}: {reason}"),
        Verdict::Broken { line, message } => {
            let line = line.map_or(String::new(), |line| format!("line {line}: "));
            writeln!(text, "  ERROR {name}: {line}{message}")
        }
    };
    for failure in outcome.failures.iter().take(SHOWN) {
        write_failure(text, failure);
    }
    if outcome.failed > SHOWN {
        let more = outcome.failed - SHOWN;
        let _ = writeln!(text, "        and {more} more");
    }
    for policy in &outcome.untouched {
        let _ = writeln!(text, "  FAIL  {name}: no expectation touches {policy}");
    }
}

fn write_failure(text: &mut String, failure: &Failure) {
    let _ = writeln!(text, "        {}", headline(failure));
    for line in trace_lines(failure) {
        let _ = writeln!(text, "          {line}");
    }
}

/// `line 17, step 2: shop/client -> shop/db TCP 5432: expected deny, found allow`.
fn headline(failure: &Failure) -> String {
    let mut place = Vec::new();
    place.extend(failure.line.map(|line| format!("line {line}")));
    place.extend(failure.step.clone());
    let mut parts = Vec::new();
    parts.extend((!place.is_empty()).then(|| place.join(", ")));
    parts.extend((!failure.flow.is_empty()).then(|| failure.flow.clone()));
    parts.push(format!(
        "expected {}, found {}",
        failure.expected, failure.found
    ));
    parts.join(": ")
}

/// What `trace` says, but for its first line.
fn trace_lines(failure: &Failure) -> Vec<String> {
    let Some(trace) = &failure.trace else {
        return Vec::new();
    };
    let text = trace.text();
    text.lines()
        .skip(1)
        .map(|l| l.trim_end().to_owned())
        .collect()
}
