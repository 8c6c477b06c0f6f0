//! `test`: policy unit tests. Offline: no daemon, no privilege.

use std::path::Path;
use std::time::Instant;

use crate::cli::files::{self, Source};
use crate::cli::flags::{Flag, switch, value};
use crate::cli::output::indented;
use crate::cli::session::{Session, VerbError};
use crate::objects::{Object, decode_documents_with};
use crate::policy_test::report::{Entry, Report};
use crate::policy_test::{self, File, LoadError, LoadOptions, Options, Shared};

use super::mutate::field_validation;
use super::{FILES, OUTPUT};

/// Exit status where something could not be judged.
pub const NOT_RUNNABLE: u8 = 2;

/// Flags of `test`.
pub const FLAGS: &[Flag] = &[
    value(
        "filename",
        Some('f'),
        "Files, folders or - with objects for every test, beside its own",
    ),
    FILES[1],
    switch(
        "strict",
        None,
        "Fail on a policy that no expectation touches (none that it decides or isolates an end of)",
    ),
    OUTPUT,
    value(
        "validate",
        None,
        "strict, warn or ignore: what to do with unknown fields of objects outside of tests",
    ),
    value(
        "ignore-kinds",
        None,
        "Kinds to leave out, as CiliumNetworkPolicy",
    ),
];

/// Runs the verb: status 0 if all holds, 1 if something does not, 2 if something cannot be judged.
pub fn run(session: &mut Session) -> Result<(), VerbError> {
    match judge(session) {
        Ok(0) => Ok(()),
        Ok(status) => Err(VerbError::Status(status)),
        Err(error) => {
            error.report("test");
            Err(VerbError::Status(NOT_RUNNABLE))
        }
    }
}

/// What is printed of a report.
#[derive(Clone, Copy)]
enum Form {
    Text,
    Json,
    Junit,
}

fn judge(session: &Session) -> Result<u8, VerbError> {
    let form = match session.parsed.value("output") {
        None | Some("" | "text") => Form::Text,
        Some("json") => Form::Json,
        Some("junit") => Form::Junit,
        Some(other) => {
            return Err(VerbError::Local(format!(
                "unable to match a printer suitable for the output format \"{other}\", allowed \
                 formats are: json,junit,text"
            )));
        }
    };
    let ignored: Vec<String> = session
        .parsed
        .values("ignore-kinds")
        .into_iter()
        .map(str::to_owned)
        .collect();
    let namespace = session.namespace();
    let options = LoadOptions {
        fields: field_validation(session.parsed.value("validate"))?,
        ignored_kinds: &ignored,
        namespace: namespace.as_deref(),
    };
    let report = match read(session, &options) {
        Ok((objects, files)) => run_all(files, &objects, session),
        // Who reads a document must get one, whatever is wrong.
        Err(Unread {
            file,
            line,
            error: error @ VerbError::Local(_),
        }) if !matches!(form, Form::Text) => {
            error.report("test");
            let file = file.unwrap_or_else(|| session.parsed.arguments.join(" "));
            Report::unread(file, line, error.to_string())
        }
        Err(Unread { error, .. }) => return Err(error),
    };
    match form {
        Form::Text => print!("{}", report.text()),
        Form::Json => print!("{}", indented(&report.json())),
        Form::Junit => print!("{}", report.junit()),
    }
    Ok(report.status())
}

/// What keeps the tests from being run at all.
struct Unread {
    /// The file, if it is one of the tests'.
    file: Option<String>,
    line: Option<usize>,
    error: VerbError,
}

impl From<VerbError> for Unread {
    fn from(error: VerbError) -> Unread {
        Unread {
            file: None,
            line: None,
            error,
        }
    }
}

impl From<LoadError> for Unread {
    fn from(error: LoadError) -> Unread {
        Unread {
            error: VerbError::Local(error.to_string()),
            file: Some(error.file),
            line: error.line,
        }
    }
}

/// The objects for all tests, and the tests.
fn read(session: &Session, options: &LoadOptions<'_>) -> Result<(Vec<Object>, Vec<File>), Unread> {
    Ok((objects(session, options)?, tests(session, options)?))
}

/// The objects of `-f`.
fn objects(session: &Session, options: &LoadOptions<'_>) -> Result<Vec<Object>, VerbError> {
    let names = session.parsed.values("filename");
    let mut objects = Vec::new();
    for source in files::read(&names, session.parsed.is_on("recursive"))? {
        let decoded = decode_documents_with(&source.text, &source.name, &options.plain())
            .map_err(|error| VerbError::Local(error.to_string()))?;
        warn(&decoded.warnings);
        objects.extend(decoded.objects);
    }
    Ok(objects)
}

/// The files that the arguments name.
fn tests(session: &Session, options: &LoadOptions<'_>) -> Result<Vec<File>, Unread> {
    let names: Vec<&str> = session
        .parsed
        .arguments
        .iter()
        .map(String::as_str)
        .collect();
    if names.is_empty() {
        return Err(VerbError::Usage("at least one FILE with tests is required".into()).into());
    }
    let standard_inputs = session
        .parsed
        .values("filename")
        .into_iter()
        .chain(names.clone());
    if standard_inputs.filter(|name| *name == "-").count() > 1 {
        let message = "standard input can be read once only: one - among FILE and -f";
        return Err(VerbError::Usage(message.into()).into());
    }
    let mut loaded = Vec::new();
    let mut found = 0;
    for source in files::read(&names, session.parsed.is_on("recursive"))? {
        let file = load(&source, options)?;
        warn(&file.warnings);
        found += file.tests.len();
        loaded.push(file);
    }
    if found == 0 {
        let message = format!("no PolicyTest in {}", names.join(", "));
        return Err(VerbError::Local(message).into());
    }
    Ok(loaded)
}

fn load(source: &Source, options: &LoadOptions<'_>) -> Result<File, LoadError> {
    // Of a name without a folder the parent is empty, which is this folder; so is STDIN's.
    let folder = Path::new(&source.name).parent();
    policy_test::load(
        &source.name,
        &source.text,
        folder.unwrap_or(Path::new("")),
        options,
    )
}

fn run_all(files: Vec<File>, objects: &[Object], session: &Session) -> Report {
    let options = Options {
        strict: session.parsed.is_on("strict"),
        check: false,
    };
    let mut report = Report::default();
    for file in files {
        let first = report.entries.len();
        let shared = Shared::new(objects.iter().chain(&file.objects).cloned().collect());
        for test in &file.tests {
            let begun = Instant::now();
            let outcome = policy_test::run(test, &shared, &options);
            for warning in &outcome.warnings {
                eprintln!("Warning: {}: {}: {warning}", test.file, test.name);
            }
            report
                .entries
                .push(Entry::new(test, outcome, begun.elapsed()));
        }
        if options.strict {
            let outcomes = report.entries[first..].iter().map(|entry| &entry.outcome);
            let untouched = policy_test::untouched(&file.objects, outcomes);
            report.untouched.push((file.name, untouched));
        }
    }
    if options.strict {
        let outcomes = report.entries.iter().map(|entry| &entry.outcome);
        let untouched = policy_test::untouched(objects, outcomes);
        let name = format!("-f {}", session.parsed.values("filename").join(","));
        report.untouched.push((name, untouched));
    }
    report
        .untouched
        .retain(|(_, policies)| !policies.is_empty());
    report
}

fn warn(warnings: &[String]) {
    for warning in warnings {
        eprintln!("Warning: {warning}");
    }
}
