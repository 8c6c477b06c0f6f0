//! The command line: kubectl's verbs over the daemon's socket, and Weir's own.
//!
//! `VERBS` is the only list of verbs: dispatch, `--help` and the check for unknown flags read it.

pub mod base64;
pub mod columns;
pub mod completion;
pub mod context;
pub mod custom_columns;
pub mod files;
pub mod flags;
pub mod go_template;
mod help;
pub mod jsonpath;
pub mod key_values;
pub mod kubectl_version;
pub mod kustomize;
pub mod output;
pub mod preview;
pub mod session;
pub mod table;
pub mod values;
mod verb_list;
pub mod verbs;

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use flags::{Flag, Parsed};
use help::{overview, verb_help};
use session::{Session, VerbError};
use verb_list::{VERBS, Verb};
use verbs::{diff, test};

/// Runs the command line and gives the exit status.
pub fn main(arguments: Vec<String>) -> ExitCode {
    if let [first, words @ ..] = &arguments[..]
        && first == completion::ASKED
    {
        completion::answer(words);
        return ExitCode::SUCCESS;
    }
    let every: Vec<Flag> = VERBS.iter().flat_map(|verb| verb.flags).copied().collect();
    let (name, rest) = flags::split_verb(&every, &arguments);
    let Some(name) = name else {
        print!("{}", overview());
        return ExitCode::SUCCESS;
    };
    if name == "help" {
        return help(&rest);
    }
    let Some(verb) = VERBS.iter().find(|verb| verb.name == name) else {
        return companion(&name, &rest);
    };
    let parsed = match flags::parse(verb.flags, &rest) {
        Ok(parsed) => parsed,
        Err(error) => {
            let status = VerbError::Flag(error).report(verb.name);
            // 1 would say that an expectation does not hold, or that there are differences.
            return match verb.name {
                "test" => test::NOT_RUNNABLE.into(),
                "diff" => diff::FAILED.into(),
                _ => status,
            };
        }
    };
    if parsed.is_on("help") {
        print!("{}", verb_help(verb));
        return ExitCode::SUCCESS;
    }
    finish(verb, parsed)
}

fn finish(verb: &Verb, parsed: Parsed) -> ExitCode {
    match (verb.run)(&mut Session::new(parsed)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(verb.name),
    }
}

fn help(rest: &[String]) -> ExitCode {
    let Some(name) = rest.first() else {
        print!("{}", overview());
        return ExitCode::SUCCESS;
    };
    match VERBS.iter().find(|verb| verb.name == name) {
        Some(verb) => {
            print!("{}", verb_help(verb));
            ExitCode::SUCCESS
        }
        None => companion(name, &["--help".to_owned()]),
    }
}

/// Runs `weir-NAME`, beside this program or on PATH, in place of this process.
fn companion(name: &str, rest: &[String]) -> ExitCode {
    let program = format!("weir-{name}");
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    let beside = std::env::current_exe()
        .ok()
        .and_then(|own| Some(own.parent()?.join(&program)));
    let candidates = beside
        .into_iter()
        .filter(|path| path.exists())
        .chain([PathBuf::from(program)]);
    for candidate in candidates.filter(|_| plain) {
        let error = Command::new(&candidate).args(rest).exec();
        if error.kind() != std::io::ErrorKind::NotFound {
            eprintln!("error: cannot run {}: {error}", candidate.display());
            return ExitCode::FAILURE;
        }
    }
    eprintln!("error: unknown command \"{name}\" for \"weir\"\n\nRun 'weir --help' for usage.");
    ExitCode::FAILURE
}
