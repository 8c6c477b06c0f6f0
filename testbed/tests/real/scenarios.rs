//! The scenarios that come with Weir, and that they fail when nothing is enforced.

use std::process::{Command, Output, Stdio};
use std::sync::Mutex;

use testbed::scenario::{Grid, Scenario};

use crate::lab::{needs, text};
use crate::{Outcome, Skipped, Test, WEIR_LAB};

pub const TESTS: &[Test] = &[
    ("every_tutorial_plays_to_its_end", every_one_holds),
    ("a_tutorial_is_followed_by_hand", by_hand),
    (
        "a_scenario_fails_when_nothing_is_enforced",
        fails_without_enforcement,
    ),
];

/// Tutorials that are played, each in a lab of its own and two at once: most of their time they wait
/// for what a policy swallows.
const PLAYED: &[&str] = &[
    "eks-workshop",
    "http-echo",
    "stars",
    "three-tier",
    "namespaces",
    "spec",
];

/// Steps that deny nothing, and show what the log has of denials before.
const TOLD: &[(&str, usize)] = &[("eks-workshop", 9)];

fn every_one_holds() -> Outcome {
    needs(&["bash", "jq", "curl"])?;
    let played = play_all(PLAYED, &[]);
    for (_, output) in &played {
        println!("{}", String::from_utf8_lossy(&output.stdout));
    }
    for (name, output) in &played {
        assert!(output.status.success(), "{name}: {}", text(output));
    }
    Ok(())
}

/// Plays tutorials, with these options.
fn play_all(names: &[&'static str], options: &[&str]) -> Vec<(&'static str, Output)> {
    let queue = Mutex::new(names.iter().copied());
    let next = || queue.lock().unwrap().next();
    let play_some = || {
        let mut played = Vec::new();
        while let Some(name) = next() {
            let mut run = Command::new(WEIR_LAB);
            run.args(["run", name]).args(options);
            played.push((name, run.output().unwrap()));
        }
        played
    };
    let played = std::thread::scope(|scope| {
        let players = [(); 2].map(|()| scope.spawn(play_some));
        players.map(|player| player.join().unwrap()).concat()
    });
    assert_eq!(played.len(), names.len());
    played
}

/// What a person behind sudo types: the lab comes up as root, all else needs none.
fn by_hand() -> Outcome {
    needs(&["setpriv"])?;
    let lab = "eks-workshop";
    if testbed::lab::Lab::named(lab).unwrap().exists() {
        return Err(Skipped(format!("lab {lab} is in use")));
    }
    let up = Command::new(WEIR_LAB)
        .args(["up", lab, "--tutorial"])
        .env("SUDO_UID", NOBODY)
        .env("SUDO_GID", NOBODY)
        .output()
        .unwrap();
    let _down = Down(lab);
    assert!(up.status.success(), "{}", text(&up));
    let script = "pwd\nid -u\ncommand -v kubectl jq\n\
        F=~/environment/eks-workshop/modules/networking/network-policies/apply-network-policies\n\
        kubectl apply -n ui -f $F/default-deny.yaml && echo >>$F/default-deny.yaml\n\
        kubectl create ns surplus; kubectl delete ns carts\n\
        prepare-environment networking/network-policies\n\
        echo policies $(kubectl get netpol -A -o name)\n\
        echo namespaces $(kubectl get ns -o name)\n\
        kubectl wait --for=condition=Ready pod --all -n carts --timeout=1s\n\
        prepare-environment other\n";
    let mut shell = Command::new("setpriv")
        .args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"])
        .args([WEIR_LAB, "shell", lab])
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = shell.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, script.as_bytes()).unwrap();
    drop(stdin);
    let seen = text(&shell.wait_with_output().unwrap());
    for wanted in [
        "\n/run/weir/tutorials/eks-workshop\n65534\n",
        "/run/weir/labs/eks-workshop/bin/kubectl",
        "networkpolicy.networking.k8s.io/default-deny created",
        "condition met",
        "lab eks-workshop has the module networking/network-policies",
    ] {
        assert!(seen.contains(wanted), "{wanted}: {seen}");
    }
    let line = |begin: &str| seen.lines().find(|line| line.starts_with(begin)).unwrap();
    assert_eq!(line("policies"), "policies", "{seen}");
    let namespaces = line("namespaces ");
    assert!(namespaces.contains("namespace/carts"), "{seen}");
    assert!(!namespaces.contains("surplus"), "{seen}");
    Ok(())
}

/// User and group of nobody.
const NOBODY: &str = "65534";

/// Takes a lab down whatever happened.
struct Down(&'static str);

impl Drop for Down {
    fn drop(&mut self) {
        let down = Command::new(WEIR_LAB).args(["down", self.0]).output();
        println!("{}", text(&down.unwrap()));
    }
}

/// Every step that shows a denial fails, and no other; the connections that fail are those that were
/// promised to be denied.
fn fails_without_enforcement() -> Outcome {
    needs(&["bash", "jq", "curl"])?;
    for (name, output) in play_all(PLAYED, &["--enforcement=off"]) {
        let seen = text(&output);
        assert_eq!(output.status.code(), Some(1), "{name}: {seen}");
        let lab = config::labs::Lab::named(name).unwrap();
        let scenario = Scenario::parse(lab.file("scenario.yaml").unwrap()).unwrap();
        let mut shown = 0;
        for (index, step) in scenario.steps.iter().enumerate() {
            let number = index + 1;
            let begin = format!("FAILED: step {number}: ");
            let failures = seen.lines().filter_map(|line| line.strip_prefix(&begin));
            let failures: Vec<&str> = failures.collect();
            let (wrong, others): (Vec<&str>, Vec<&str>) = failures
                .iter()
                .partition(|line| line.contains(": promised "));
            let cells = step.matrix.iter().flat_map(Grid::cells);
            let denied = cells.filter(|cell| cell.sign != '+');
            let denied: Vec<String> = denied
                .map(|cell| {
                    let (row, column, sign) = (cell.row, cell.column, cell.sign);
                    format!("{row} to {column}: promised {sign}, got +")
                })
                .collect();
            assert_eq!(wrong, denied, "{name}, step {number}: {seen}");
            let shows = step.play.iter().any(|typed| typed.denied_by.is_some());
            let denies = shows || !denied.is_empty();
            assert!(!shows || !others.is_empty(), "{name}, step {number} held");
            let may_fail = denies || TOLD.contains(&(name, number));
            assert_eq!(
                !failures.is_empty(),
                may_fail,
                "{name}, step {number}: {seen}"
            );
            shown += usize::from(denies);
        }
        assert!(shown > 0, "{name} shows no denial");
    }
    Ok(())
}
