//! Completion in the shells themselves, without a daemon.

use std::io::Write;
use std::process::{Command, Stdio};

/// What `shell` says to a script that gets `weir completion SHELL` in front; none if the machine has no
/// such shell.
fn said(shell: &str, arguments: &[&str], script: &str) -> Option<String> {
    let weir = env!("CARGO_BIN_EXE_weir");
    let completion = Command::new(weir).args(["completion", shell]).output();
    let completion = String::from_utf8(completion.unwrap().stdout).unwrap();
    let mut child = Command::new(shell)
        .args(arguments)
        .env("WEIR_SOCKET", "/nonexistent")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let text = format!("{completion}\n{script}");
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{shell}");
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn bash_replaces_what_stands_behind_the_last_break() {
    let script = r#"
        t() { COMP_LINE=$1 COMP_POINT=${#1}; _weir; echo "${COMPREPLY[*]}"; }
        t "weir des"
        t "weir get networkp"
        t "weir apply --dry-run=s"
        t "weir get pods -o j"
        t "weir lab up thr"
        t "weir top no"
        t "weir capture a -o j"
        t "weir top pod --sort-by c"
        t "weir observe --to-fq"
        t "weir exec bb1 -- ca"
    "#;
    let expected = "describe\nnetworkpolicies\nserver\njson jsonpath-as-json= jsonpath=\nthree-tier\n\
                    node\njson\nconnections\n\n\n";
    assert_eq!(said("bash", &["--norc"], script).unwrap(), expected);
}

#[test]
fn fish_shows_what_is_said_of_a_word() {
    let script = "complete -C 'weir lab dow'\ncomplete -C 'weir get ev'\n";
    if let Some(said) = said("fish", &["--no-config"], script) {
        assert_eq!(said, "down\tTake a lab down\nevents\n");
    }
}

#[test]
fn zsh_reads_its_script() {
    // Its completion needs a terminal.
    let _ = said("zsh", &["-f", "-n"], "");
}

#[test]
fn an_unknown_shell_is_refused() {
    let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
    let output = weir.args(["completion", "csh"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.starts_with("error: unsupported shell type \"csh\": use one of bash, fish, zsh"));
}
