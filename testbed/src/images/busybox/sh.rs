//! `sh` as a person meets it in busybox: the prompt `/ # `, line editing, `sh: x: not found`.
//!
//! The machine's shells do the work. With a terminal it is bash, told by a start-up file of this
//! program's to look as busybox's ash does; without one, or on a machine without bash, it is what
//! the machine has for `/bin/sh`.

use std::io::{self, IsTerminal};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::images::{MACHINE_SHELL, errors::strerror};

/// Where a pod's root has [`START`].
pub const START_FILE: &str = "/run/.weir/shrc";
/// Read by bash, because it is called `sh` and interactive, where `ENV` points.
pub const START: &str = r#"unset ENV
PS1='\w \$ '
PS2='> '
unset HISTFILE
bind 'set enable-bracketed-paste off' 2>/dev/null
command_not_found_handle() {
    echo "sh: $1: not found" >&2
    return 127
}
alias exit='exit 2>/dev/null'
[ -n "$WEIR_SH_ENV" ] && export ENV="$WEIR_SH_ENV"
unset WEIR_SH_ENV
"#;

/// Runs it.
pub fn main(arguments: &[String]) -> u8 {
    let error = if is_interactive(arguments) && Path::new("/bin/bash").exists() {
        become_bash(arguments)
    } else {
        machine_shell(arguments).exec()
    };
    eprintln!("sh: {}", strerror(&error));
    127
}

fn machine_shell(arguments: &[String]) -> Command {
    let mut command = Command::new(MACHINE_SHELL);
    command.arg0("sh").args(arguments);
    command
}

fn become_bash(arguments: &[String]) -> io::Error {
    let mut command = Command::new("/bin/bash");
    command.arg0("sh").args(arguments);
    if let Some(own) = std::env::var_os("ENV") {
        command.env("WEIR_SH_ENV", own);
    }
    command.env("ENV", START_FILE);
    command.exec()
}

/// As POSIX has it: `-i`, or a terminal on both ends and neither a script nor `-c`.
fn is_interactive(arguments: &[String]) -> bool {
    let mut options = arguments
        .iter()
        .filter(|argument| argument.starts_with('-'));
    let with = |letter: char| {
        let has = |option: &String| !option.starts_with("--") && option.contains(letter);
        arguments
            .iter()
            .take_while(|argument| argument.starts_with('-'))
            .any(has)
    };
    if with('c') {
        return false;
    }
    let only_options = options.clone().count() == arguments.len();
    let asked = options.any(|option| option.contains('i') && !option.starts_with("--"));
    asked || only_options && io::stdin().is_terminal() && io::stderr().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_scripts_are_not_interactive() {
        let is = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            is_interactive(&words)
        };
        assert!(is(&["-i"]));
        assert!(is(&["-il"]));
        assert!(!is(&["-c", "echo -i"]));
        assert!(!is(&["-ec", "echo"]));
        assert!(!is(&["script", "a"]));
    }
}
