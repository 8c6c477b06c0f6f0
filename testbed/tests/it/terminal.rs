//! Terminals with a real bash in them.

use std::path::PathBuf;
use std::time::Duration;

use testbed::tutorial::compare::seen_lines;
use testbed::tutorial::terminal::{End, Surroundings, Terminal};

const LIMIT: Duration = Duration::from_secs(60);

fn open() -> Terminal {
    let surroundings = Surroundings {
        program: PathBuf::from(env!("CARGO_BIN_EXE_weir-lab")),
        folder: std::env::temp_dir(),
        variables: vec![("GREETING".into(), "hello".into())],
    };
    Terminal::open(&surroundings, LIMIT).unwrap()
}

#[test]
fn a_command_s_output_and_status_are_its_own() {
    let mut terminal = open();
    terminal.type_text("echo $GREETING; (exit 3)").unwrap();
    assert_eq!(terminal.wait_end(LIMIT), End::Status(3));
    assert_eq!(terminal.output().trim_end(), "hello");
    // What is typed in several lines, and a variable that stays.
    terminal.type_text("X=a\\\nb").unwrap();
    assert_eq!(terminal.wait_end(LIMIT), End::Status(0));
    terminal.type_text("printf '%s\\n' $X >&2").unwrap();
    assert_eq!(terminal.wait_end(LIMIT), End::Status(0));
    assert_eq!(terminal.output().trim_end(), "ab");
}

#[test]
fn what_goes_on_is_looked_at_and_interrupted() {
    let mut terminal = open();
    terminal
        .type_text("echo begun; sleep 1000; echo after")
        .unwrap();
    assert!(terminal.wait_for("begun", LIMIT));
    assert_eq!(terminal.wait_end(Duration::from_millis(100)), End::Late);
    terminal.interrupt().unwrap();
    assert_eq!(terminal.wait_end(LIMIT), End::Status(130));
    assert_eq!(seen_lines(&terminal.output()), ["begun", "^C"]);
}

#[test]
fn a_shell_within_is_known_by_its_prompt() {
    let mut terminal = open();
    terminal.enters("/ # ");
    terminal.type_text("PS1='/ # ' sh -i").unwrap();
    assert_eq!(terminal.wait_end(LIMIT), End::Prompt);
    terminal.type_text("echo one; echo two").unwrap();
    assert_eq!(terminal.wait_end(LIMIT), End::Prompt);
    assert_eq!(seen_lines(&terminal.output()), ["one", "two"]);
    terminal.type_text("exit 5").unwrap();
    assert_eq!(terminal.wait_end(LIMIT), End::Status(5));
    terminal.type_text("exit").unwrap();
    assert_eq!(terminal.wait_end(LIMIT), End::Gone);
}
