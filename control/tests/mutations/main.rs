//! Planted mistakes in the policy compiler, each of which a test must catch.
//!
//! `mutations.toml` lists them: a file, the text that stands there once, and what it is replaced
//! by. Without being asked, this test only holds the list to the code: every text still stands
//! where it is said to, once. `WEIR_MUTATIONS=all` (or parts of names, between commas) plants them
//! one by one in a copy of the sources under `target/mutations` and runs the tests until one fails;
//! a mistake that passes all of them has survived, and fails this test. The tests have to pass
//! without a mistake first, or what they say of one would mean nothing; and what does not build is
//! no mistake.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;

/// The mistakes.
const LIST: &str = include_str!("mutations.toml");
/// Longer than any of the tests takes, on a busy machine too: a mutant that is still running then
/// does not end.
const PATIENCE: Duration = Duration::from_secs(600);
/// What a build of the workspace reads.
const SOURCES: [&str; 7] = [
    "Cargo.toml",
    "Cargo.lock",
    "config",
    "dataplane",
    "control",
    "testbed",
    "bench",
];

/// All mistakes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutations {
    mutation: Vec<Mutation>,
}

/// One mistake.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutation {
    /// What goes wrong, as a person would say it.
    name: String,
    /// The file, from the workspace's root.
    file: PathBuf,
    /// What stands there, once.
    find: String,
    /// What is put in its place.
    replace: String,
}

/// How a mutant ended.
enum End {
    /// These tests failed.
    Caught(Vec<String>),
    /// The tests did not end.
    Hung,
    /// Every test passed.
    Survived,
    /// It is no mutant: it does not build.
    NotBuilt(String),
}

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mutations: Mutations = match toml::from_str(LIST) {
        Ok(mutations) => mutations,
        Err(error) => {
            println!("test mutations.toml ... FAILED: {error}");
            return ExitCode::FAILURE;
        }
    };
    let wrong: Vec<String> = check(&root, &mutations.mutation);
    for line in &wrong {
        println!("test the_list_of_mutations_fits_the_code ... FAILED: {line}");
    }
    if !wrong.is_empty() {
        return ExitCode::FAILURE;
    }
    println!("test the_list_of_mutations_fits_the_code ... ok");
    match std::env::var("WEIR_MUTATIONS") {
        Ok(wanted) => plant(&root, &mutations.mutation, &wanted),
        Err(_) => {
            let count = mutations.mutation.len();
            println!("test {count} mutations ... skipped: WEIR_MUTATIONS=all plants them");
            ExitCode::SUCCESS
        }
    }
}

/// What is wrong with the list.
fn check(root: &Path, mutations: &[Mutation]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (at, mutation) in mutations.iter().enumerate() {
        let name = &mutation.name;
        if mutations[..at].iter().any(|other| other.name == *name) {
            wrong.push(format!("{name}: the name stands twice"));
        }
        let text = fs::read_to_string(root.join(&mutation.file)).unwrap_or_default();
        let count = text.matches(&mutation.find).count();
        if count != 1 || mutation.find == mutation.replace {
            let file = mutation.file.display();
            wrong.push(format!("{name}: stands {count} times in {file}"));
        }
    }
    wrong
}

/// Plants those whose name holds one of the parts in `wanted`, between commas, or all.
fn plant(root: &Path, mutations: &[Mutation], wanted: &str) -> ExitCode {
    let folder = root.join("target/mutations");
    let tree = folder.join("tree");
    if let Err(error) = copy_sources(root, &tree) {
        println!("the sources cannot be copied: {error}");
        return ExitCode::FAILURE;
    }
    let named = |mutation: &Mutation| wanted.split(',').any(|part| mutation.name.contains(part));
    let picked = |mutation: &&Mutation| wanted == "all" || named(mutation);
    if let Err(error) = check_unharmed(&tree, &folder.join("build"), mutations) {
        println!("without a mistake: {error}");
        return ExitCode::FAILURE;
    }
    let (mut caught, mut failed) = (0, 0);
    for mutation in mutations.iter().filter(picked) {
        let start = Instant::now();
        let end = mutate(&tree, &folder.join("build"), mutation);
        let seconds = start.elapsed().as_secs();
        let name = &mutation.name;
        match end {
            Ok(End::Caught(tests)) => {
                caught += 1;
                println!("caught ({seconds} s) {name}: {}", shortened(&tests));
            }
            Ok(End::Hung) => {
                caught += 1;
                println!("caught ({seconds} s) {name}: its tests do not end");
            }
            Ok(End::Survived) => {
                failed += 1;
                println!("SURVIVED ({seconds} s) {name}");
            }
            Ok(End::NotBuilt(error)) => {
                failed += 1;
                println!("NO MUTANT {name}: {error}");
            }
            Err(error) => {
                failed += 1;
                println!("NOT RUN {name}: {error}");
            }
        }
    }
    println!("{caught} caught, {failed} not");
    match failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// What tests that fail, or do not end, say of a mistake counts only if they pass without one.
fn check_unharmed(tree: &Path, build: &Path, mutations: &[Mutation]) -> Result<(), String> {
    let of = |dataplane| {
        let mut files = mutations.iter().map(|mutation| &mutation.file);
        files.find(|file| file.starts_with("dataplane") == dataplane)
    };
    for file in [of(true), of(false)].into_iter().flatten() {
        match run_tests(tree, build, file) {
            Ok(End::Survived) => {}
            Ok(End::Caught(tests)) => return Err(format!("fails {}", shortened(&tests))),
            Ok(End::Hung) => return Err("the tests do not end".to_owned()),
            Ok(End::NotBuilt(error)) => return Err(error),
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(())
}

fn shortened(tests: &[String]) -> String {
    match tests {
        [] => "a test crashed".to_owned(),
        [one] => one.clone(),
        [first, rest @ ..] => format!("{first} and {} more", rest.len()),
    }
}

/// Copies what has changed since the last time, so that what was built of the rest holds.
fn copy_sources(root: &Path, tree: &Path) -> std::io::Result<()> {
    fs::create_dir_all(tree)?;
    for name in SOURCES {
        copy(&root.join(name), &tree.join(name))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    if from.is_dir() {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    let bytes = fs::read(from)?;
    if fs::read(to).ok().as_ref() != Some(&bytes) {
        fs::write(to, bytes)?;
    }
    Ok(())
}

/// Plants one mistake, runs the tests, and puts the file back.
fn mutate(tree: &Path, build: &Path, mutation: &Mutation) -> std::io::Result<End> {
    let path = tree.join(&mutation.file);
    let text = fs::read_to_string(&path)?;
    fs::write(&path, text.replacen(&mutation.find, &mutation.replace, 1))?;
    let end = run_tests(tree, build, &mutation.file);
    fs::write(&path, text)?;
    end
}

/// Some tests.
struct Suite {
    /// What `cargo test` is told.
    arguments: &'static [&'static str],
    /// How many random cases a test has, if not as many as usual.
    cases: Option<&'static str>,
}

const fn all_of(arguments: &'static [&'static str]) -> Suite {
    Suite {
        arguments,
        cases: None,
    }
}

fn run_tests(tree: &Path, build: &Path, file: &Path) -> std::io::Result<End> {
    for suite in suites(file) {
        match run_suite(tree, build, suite)? {
            End::Survived => {}
            end => return Ok(end),
        }
    }
    Ok(End::Survived)
}

/// The tests for a mistake in `file`. Those that tell most and take least come first, for nothing is
/// run behind one that fails; in the end it is all tests that need no root.
fn suites(file: &Path) -> &'static [Suite] {
    const WRITTEN: Suite = all_of(&[
        "-p",
        "weir-control",
        "--test",
        "it",
        "--",
        "cases::as_written",
    ]);
    const FEW: Suite = Suite {
        arguments: &[
            "-p",
            "weir-control",
            "--test",
            "it",
            "--",
            "policy",
            "cases::",
            "lowering::",
        ],
        cases: Some("200"),
    };
    const OFFLINE: Suite = all_of(&["-p", "weir-control", "--test", "it"]);
    const COMPILER: Suite = all_of(&["-p", "weir-dataplane", "--lib", "--", "policy::"]);
    const COMPILER_FEW: Suite = Suite {
        cases: Some("1000"),
        ..COMPILER
    };
    const UNITS: Suite = all_of(&["-p", "weir-control", "--lib"]);
    match file.starts_with("dataplane") {
        true => &[COMPILER_FEW, COMPILER, FEW, OFFLINE],
        false => &[WRITTEN, FEW, OFFLINE, UNITS],
    }
}

fn run_suite(tree: &Path, build: &Path, suite: &Suite) -> std::io::Result<End> {
    let output = build.with_extension("log");
    // Building may take its time: how long it takes says nothing of the mistake.
    let (target, of_tests) = match suite.arguments.iter().position(|&text| text == "--") {
        Some(at) => suite.arguments.split_at(at),
        None => (suite.arguments, &[][..]),
    };
    let mut cargo = cargo(tree, build, suite, &output)?;
    cargo.args(target).arg("--no-run");
    if !cargo.status()?.success() {
        let text = fs::read_to_string(&output)?;
        let error = text.lines().find(|line| line.starts_with("error"));
        return Ok(End::NotBuilt(
            error.unwrap_or("no error is told").to_owned(),
        ));
    }
    let mut cargo = self::cargo(tree, build, suite, &output)?;
    // Whoever does not end is ended with all that it started.
    let mut child = cargo.args(target).args(of_tests).process_group(0).spawn()?;
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > PATIENCE {
            kill_process_group(Pid::from_child(&child), Signal::KILL)?;
            child.wait()?;
            return Ok(End::Hung);
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let text = fs::read_to_string(&output)?;
    if status.success() {
        return Ok(End::Survived);
    }
    let mut failed: Vec<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.contains("::") && !line.contains(' '))
        .map(str::to_owned)
        .collect();
    failed.sort_unstable();
    failed.dedup();
    Ok(End::Caught(failed))
}

/// `cargo test` in the copy, which writes to `output`.
fn cargo(tree: &Path, build: &Path, suite: &Suite, output: &Path) -> std::io::Result<Command> {
    let log = fs::File::create(output)?;
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["test", "--locked", "--quiet"])
        // To optimise this crate takes longer than to run its tests.
        .args(["--config", "profile.dev.package.weir-control.opt-level=0"])
        .current_dir(tree)
        .env("CARGO_TARGET_DIR", build)
        .env_remove("WEIR_MUTATIONS")
        .env_remove("WEIR_CASES")
        .envs(suite.cases.map(|cases| ("WEIR_CASES", cases)))
        // The first counterexample is enough.
        .env("PROPTEST_MAX_SHRINK_ITERS", "0")
        .stdout(Stdio::from(log.try_clone()?))
        .stderr(Stdio::from(log));
    Ok(cargo)
}
