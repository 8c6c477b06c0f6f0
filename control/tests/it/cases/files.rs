//! The files of `testbed/cases`: every line judged by the compiled engine, by the naive
//! specification and by `trace`, which must agree with the line and with each other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use control::policy_test::{File, LoadOptions, Options, Shared, Verdict, load, run};

use super::folder;

/// Every file of cases below a folder of them; casts are not cases.
fn files(below: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder().join(below)];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            let is = |name| path.file_name().is_some_and(|n| n == name);
            match path.extension() {
                _ if path.is_dir() && !is("cast") => folders.push(path),
                Some(extension) if extension == "yaml" => found.push(path),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

fn name(path: &Path) -> String {
    path.strip_prefix(folder()).unwrap().display().to_string()
}

fn read(path: &Path) -> File {
    let text = std::fs::read_to_string(path).unwrap();
    let parent = path.parent().unwrap();
    load(&name(path), &text, parent, &LoadOptions::default()).unwrap_or_else(|e| panic!("{e}"))
}

/// Judges every case below a folder, and says how many there are.
fn judge(below: &str) -> usize {
    let options = Options {
        strict: false,
        check: true,
    };
    let mut wrong = Vec::new();
    let (mut cases, mut skipped, mut flows) = (0, 0, 0);
    for path in files(below) {
        let file = read(&path);
        let shared = Shared::new(file.objects);
        for test in &file.tests {
            let outcome = run(test, &shared, &options);
            let place = |line: Option<usize>| {
                let line = line.map_or(String::new(), |line| format!(":{line}"));
                format!("{}{line}: {}", file.name, test.name)
            };
            cases += 1;
            flows += outcome.flows;
            match outcome.verdict {
                Verdict::Passed => {}
                Verdict::Skipped(_) => skipped += 1,
                Verdict::Broken { line, message } => {
                    wrong.push(format!("{}: {message}", place(line)));
                }
                Verdict::Failed => wrong.extend(outcome.failures.iter().map(|failure| {
                    let step = failure.step.as_deref().unwrap_or("at first");
                    format!(
                        "{}: {step}: {}: expected {}, found {}",
                        place(failure.line),
                        failure.flow,
                        failure.expected,
                        failure.found
                    )
                })),
            }
        }
    }
    println!("{below}: {cases} cases, {skipped} of them not offline, {flows} connections");
    let shown = wrong.len().min(60);
    assert!(
        wrong.is_empty(),
        "{} lines do not hold:\n{}",
        wrong.len(),
        wrong[..shown].join("\n")
    );
    cases
}

#[test]
fn networkpolicy() {
    judge("networkpolicy");
}

#[test]
fn bugs() {
    judge("bugs");
}

#[test]
fn updates() {
    judge("updates");
}

#[test]
fn tiers() {
    judge("tiers");
}

#[test]
fn security_groups() {
    judge("security-groups");
}

#[test]
fn services() {
    judge("services");
}

#[test]
fn kubernetes_end_to_end() {
    assert_eq!(judge("upstream/kubernetes-e2e"), 48);
}

#[test]
fn kubernetes_documentation() {
    judge("upstream/kubernetes-docs");
}

#[test]
fn network_policy_api_conformance() {
    assert_eq!(judge("upstream/conformance"), 24);
}

#[test]
fn tutorials() {
    judge("upstream/tutorials");
}

#[test]
fn cyclonus() {
    assert_eq!(judge("upstream/cyclonus"), 230);
}

/// A folder that no test above judges, two cases of one name in a folder, a bug without a file.
#[test]
fn every_case_is_judged_and_known_by_its_name() {
    let judged = [
        "networkpolicy",
        "bugs",
        "updates",
        "tiers",
        "security-groups",
        "services",
        "upstream/kubernetes-e2e",
        "upstream/kubernetes-docs",
        "upstream/conformance",
        "upstream/tutorials",
        "upstream/cyclonus",
    ];
    let below: usize = judged.iter().map(|below| files(below).len()).sum();
    assert_eq!(below, files("").len());
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    for path in files("") {
        let file = read(&path);
        assert!(!file.tests.is_empty(), "{}", file.name);
        for test in file.tests {
            assert!(test.description.is_some(), "{}: {}", file.name, test.name);
            let folder = name(path.parent().unwrap());
            let of = format!("{folder}: {}", test.name);
            if let Some(other) = names.insert(of, file.name.clone()) {
                panic!("{other} and {} both have {}", file.name, test.name);
            }
        }
    }
    let bugs = files("bugs");
    for number in 1..=30 {
        let prefix = format!("bugs/bug-{number:02}-");
        let of = bugs.iter().filter(|path| name(path).starts_with(&prefix));
        assert_eq!(of.count(), 1, "{prefix}");
    }
}
