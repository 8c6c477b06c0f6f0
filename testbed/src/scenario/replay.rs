//! Typing a tutorial's commands into terminals, and holding what they show against the tutorial.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::typed::Typed;
use super::{Scenario, denials};
use crate::lab::{self, Lab};
use crate::tutorial::Tutorial;
use crate::tutorial::compare::{Extent, difference, seen_lines};
use crate::tutorial::terminal::{End, Surroundings, Terminal};

/// How long a command may take that nothing is said of.
const COMMAND_LIMIT: Duration = Duration::from_secs(150);
/// How long a shell may take to show its prompt, at its start and after Ctrl-C.
const PROMPT_LIMIT: Duration = Duration::from_secs(20);
/// How long pods may take to be as the objects want them before something is typed.
const SETTLED_LIMIT: Duration = Duration::from_secs(60);
/// How long what a running command is waited for to show may take.
const SHOWN_LIMIT: Duration = Duration::from_secs(20);
/// How long a reader waits before a page is loaded again.
const REFRESH: Duration = Duration::from_millis(500);
/// How long the log may lag behind a denial.
const LOG_LIMIT: Duration = Duration::from_secs(3);

/// Terminals in which a tutorial is being played.
#[derive(Debug)]
pub struct Replay<'a> {
    lab: &'a Lab,
    tutorial: Option<&'a Tutorial>,
    surroundings: Surroundings,
    terminals: BTreeMap<usize, Terminal>,
    /// In which shell the command of a line was typed.
    typed_in: BTreeMap<usize, usize>,
    /// Lines of outputs of which the scenario says where they belong.
    placed: BTreeSet<usize>,
    /// Commands typed.
    pub commands: usize,
    /// Outputs of the tutorial that were held against ours.
    pub compared: usize,
    /// Denials of what was typed that were found in the log.
    pub denials_logged: usize,
    /// Every difference, in words.
    pub failures: Vec<String>,
}

impl<'a> Replay<'a> {
    /// No terminal is open yet.
    pub fn new(
        lab: &'a Lab,
        scenario: &Scenario,
        tutorial: Option<&'a Tutorial>,
        surroundings: Surroundings,
    ) -> Replay<'a> {
        let placed = scenario.typed().filter(|typed| typed.of.is_some());
        Replay {
            placed: placed.filter_map(|typed| typed.line).collect(),
            denials_logged: 0,
            lab,
            tutorial,
            surroundings,
            terminals: BTreeMap::new(),
            typed_in: BTreeMap::new(),
            commands: 0,
            compared: 0,
            failures: Vec::new(),
        }
    }

    /// Plays one entry and writes what is typed and shown to `out`.
    pub fn play(&mut self, typed: &Typed, out: &mut dyn Write) -> io::Result<()> {
        if let Some(exception) = &typed.exception {
            writeln!(out, "  exception: {}: {}", exception.name, exception.reason)?;
            if exception.skipped {
                return Ok(());
            }
        }
        if let Some(line) = typed.interrupts {
            return self.interrupt(line, typed, out);
        }
        match self.command(typed) {
            Some(command) => self.run(&command, typed, out),
            None => self.look(typed, out),
        }
    }

    /// The command to type; none where something that runs is only looked at.
    fn command(&self, typed: &Typed) -> Option<String> {
        let excepted = typed.exception.as_ref().and_then(|e| e.command.clone());
        let ours = || typed.ours.as_ref().map(|ours| ours.command.clone());
        let entry = || self.tutorial?.at(typed.line?)?.command().map(str::to_owned);
        excepted.or_else(ours).or_else(entry)
    }

    fn run(&mut self, command: &str, typed: &Typed, out: &mut dyn Write) -> io::Result<()> {
        lab::wait_settled(self.lab, SETTLED_LIMIT);
        let log = self.log();
        let log_begin = std::fs::metadata(&log).map_or(0, |found| found.len());
        if let std::collections::btree_map::Entry::Vacant(place) = self.terminals.entry(typed.shell)
        {
            place.insert(Terminal::open(&self.surroundings, PROMPT_LIMIT)?);
        }
        let Some(terminal) = self.terminals.get_mut(&typed.shell) else {
            return Ok(());
        };
        let several = if typed.shell == 1 {
            String::new()
        } else {
            format!("[shell {}] ", typed.shell)
        };
        writeln!(out, "  {several}$ {}", command.replace('\n', "\n    "))?;
        out.flush()?;
        if let Some(prompt) = &typed.enters {
            terminal.enters(prompt);
        }
        terminal.type_text(command)?;
        self.commands += 1;
        if let Some(line) = typed.line {
            self.typed_in.insert(line, typed.shell);
        }
        let interrupted = typed.ctrl_c_after_s.is_some();
        let end = match (&typed.stays, typed.ctrl_c_after_s) {
            (Some(text), _) => {
                if !terminal.wait_for(text, SHOWN_LIMIT) {
                    let what = format!("does not show {text:?}");
                    self.fail(typed, &what);
                }
                None
            }
            (None, Some(seconds)) => match terminal.wait_end(Duration::from_secs(seconds)) {
                End::Late => {
                    terminal.interrupt()?;
                    Some(terminal.wait_end(PROMPT_LIMIT))
                }
                early => {
                    self.fail(typed, &format!("ends before Ctrl-C: {early:?}"));
                    Some(early)
                }
            },
            (None, None) if typed.refresh => Some(refresh(terminal, command, typed)?),
            (None, None) => Some(terminal.wait_end(COMMAND_LIMIT)),
        };
        self.judge(typed, end, interrupted, out)?;
        if let Some(policy) = &typed.denied_by {
            self.look_for_denial(typed, policy, &log, log_begin);
        }
        Ok(())
    }

    /// Holds a command's end and its output against what is expected.
    fn judge(
        &mut self,
        typed: &Typed,
        end: Option<End>,
        interrupted: bool,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let Some(terminal) = self.terminals.get_mut(&typed.shell) else {
            return Ok(());
        };
        let mut output = terminal.output();
        let ending = match &end {
            Some(End::Late) => {
                terminal.interrupt()?;
                let _after = terminal.wait_end(PROMPT_LIMIT);
                Some("does not end".to_owned())
            }
            Some(End::Gone) => Some("ends the shell".into()),
            Some(End::Status(_)) if typed.enters.is_some() => Some("leads into no shell".into()),
            Some(End::Status(status)) if !interrupted && *status != typed.status => {
                Some(format!("ends with {status}, not {}", typed.status))
            }
            _ => None,
        };
        for line in seen_lines(&output) {
            writeln!(out, "    {line}")?;
        }
        if let Some(what) = ending {
            self.fail(typed, &what);
        }
        if let (Some(End::Prompt), Some(prompt)) = (&end, &typed.enters) {
            output.push('\n');
            output.push_str(prompt);
        }
        let extent = match (interrupted, typed.within) {
            (true, _) => Extent::Interrupted,
            (false, true) => Extent::Within,
            (false, false) => Extent::Whole,
        };
        self.compare(typed, &output, extent);
        Ok(())
    }

    /// Holds output against the tutorial's, and against what else must be in it.
    fn compare(&mut self, typed: &Typed, output: &str, extent: Extent) {
        let excepted = typed.exception.as_ref().and_then(|e| e.output.clone());
        let wanted = match excepted {
            Some(text) => vec![text],
            None => self.shown_by_tutorial(typed),
        };
        for text in &wanted {
            self.compared += 1;
            if let Some(difference) = difference(text, output, extent) {
                self.fail(typed, &format!("shows something else:\n{difference}"));
            }
        }
        let seen = seen_lines(output).join("\n");
        for text in &typed.shows {
            if !seen.contains(text) {
                self.fail(typed, &format!("does not show {text:?}"));
            }
        }
        for text in &typed.lacks {
            if seen.contains(text) {
                self.fail(typed, &format!("shows {text:?}"));
            }
        }
    }

    /// The outputs that the tutorial shows of a command, but those of which the scenario says
    /// where they belong.
    fn shown_by_tutorial(&self, typed: &Typed) -> Vec<String> {
        let (Some(tutorial), Some(line)) = (self.tutorial, typed.line) else {
            return Vec::new();
        };
        if let Some(output) = tutorial.at(line).and_then(|entry| entry.output()) {
            return vec![output.to_owned()];
        }
        let of_this = tutorial.entries.iter().filter(|entry| {
            tutorial.command_of(entry.line) == Some(line) && !self.placed.contains(&entry.line)
        });
        of_this
            .filter_map(|entry| entry.output().map(str::to_owned))
            .collect()
    }

    /// Looks at what a command that still runs has shown.
    fn look(&mut self, typed: &Typed, out: &mut dyn Write) -> io::Result<()> {
        let shell = typed.of.and_then(|line| self.typed_in.get(&line).copied());
        let Some(shell) = shell else {
            self.fail(typed, "looks at a command that was not typed");
            return Ok(());
        };
        let extent = match typed.within {
            true => Extent::Within,
            false => Extent::Whole,
        };
        let wanted = self.shown_by_tutorial(typed);
        let begin = Instant::now();
        let output = loop {
            let output = self
                .terminals
                .get(&shell)
                .map(Terminal::output)
                .unwrap_or_default();
            let there = wanted
                .iter()
                .all(|text| difference(text, &output, extent).is_none())
                && typed.shows.iter().all(|text| output.contains(text));
            if there || begin.elapsed() > SHOWN_LIMIT {
                break output;
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        writeln!(out, "  [shell {shell}] shows by now:")?;
        for line in seen_lines(&output) {
            writeln!(out, "    {line}")?;
        }
        self.compare(typed, &output, extent);
        Ok(())
    }

    /// Ends the command of a line by Ctrl-C.
    fn interrupt(&mut self, line: usize, typed: &Typed, out: &mut dyn Write) -> io::Result<()> {
        let terminal = self
            .typed_in
            .get(&line)
            .and_then(|shell| self.terminals.get_mut(shell));
        let Some(terminal) = terminal else {
            self.fail(typed, "interrupts a command that was not typed");
            return Ok(());
        };
        writeln!(out, "  Ctrl-C for the command of line {line}")?;
        terminal.interrupt()?;
        if matches!(terminal.wait_end(PROMPT_LIMIT), End::Late | End::Gone) {
            self.fail(typed, "goes on after Ctrl-C");
        }
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.lab.folder().join("network-policy.log")
    }

    /// Fails unless the log has got a denial by `policy` since it had `begin` bytes.
    fn look_for_denial(&mut self, typed: &Typed, policy: &str, log: &Path, begin: u64) {
        if denials::since(log, begin, LOG_LIMIT, |denial| denial.policy == policy) {
            self.denials_logged += 1;
        } else {
            self.fail(typed, &format!("leaves no denial by {policy} in the log"));
        }
    }

    fn fail(&mut self, typed: &Typed, what: &str) {
        self.failures.push(format!("{}: {what}", typed.place()));
    }
}

/// Types the command again until it shows what it should, or the time is over.
fn refresh(terminal: &mut Terminal, command: &str, typed: &Typed) -> io::Result<End> {
    let begin = Instant::now();
    loop {
        let end = terminal.wait_end(COMMAND_LIMIT);
        let seen = seen_lines(&terminal.output()).join("\n");
        let there = typed.shows.iter().all(|text| seen.contains(text));
        if there || !matches!(end, End::Status(_)) || begin.elapsed() > SHOWN_LIMIT {
            return Ok(end);
        }
        std::thread::sleep(REFRESH);
        terminal.type_text(command)?;
    }
}
