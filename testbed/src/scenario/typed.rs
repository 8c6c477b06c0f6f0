//! What a scenario types: the tutorial's commands by their lines, and the few that the tutorial
//! only speaks of.

use serde::Deserialize;

use super::Scenario;
use crate::tutorial::{Part, Tutorial};

/// One command, or one look at what a command shows.
///
/// In YAML a number is a line of the tutorial, played as it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Written")]
pub struct Typed {
    /// Where the tutorial has the command, or the output that is looked at.
    pub line: Option<usize>,
    /// A command that the tutorial does not print, and where its words ask for it.
    pub ours: Option<Ours>,
    /// Which shell it is typed into.
    pub shell: usize,
    /// Exit status of the command; by default 0.
    pub status: i32,
    /// Text that the command prints before the play goes on while it still runs.
    pub stays: Option<String>,
    /// The prompt of the shell that the command leads into.
    pub enters: Option<String>,
    /// Typed again until it shows what it should, as one reloads a page.
    pub refresh: bool,
    /// Ctrl-C so many seconds after it was typed.
    pub ctrl_c_after_s: Option<u64>,
    /// What is pressed or looked at in place of typing: the line of a command that still runs.
    pub interrupts: Option<usize>,
    /// The output at `line` belongs to the command at this line, which still runs.
    pub of: Option<usize>,
    /// The tutorial shows lines of the output, not all.
    pub within: bool,
    /// What must be in the output, where the tutorial only tells of it.
    pub shows: Vec<String>,
    /// What must not be.
    pub lacks: Vec<String>,
    /// The policy, `NAMESPACE/NAME`, that denies what the command tries: the log must name it.
    pub denied_by: Option<String>,
    /// Where we differ from the tutorial.
    pub exception: Option<Exception>,
}

/// A command that the tutorial asks for in prose.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ours {
    /// The command.
    pub command: String,
    /// What the tutorial says, or why it is typed.
    pub because: String,
}

/// A difference from the tutorial that stays.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    /// What it is called.
    pub name: String,
    /// Why it stays.
    pub reason: String,
    /// What is shown in place of the tutorial's output.
    #[serde(default)]
    pub output: Option<String>,
    /// What is typed in place of the tutorial's command.
    #[serde(default)]
    pub command: Option<String>,
    /// Whether the command is left out.
    #[serde(default)]
    pub skipped: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Line(usize),
    Full(Box<Full>),
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
struct Full {
    line: Option<usize>,
    ours: Option<Ours>,
    shell: Option<usize>,
    status: i32,
    stays: Option<String>,
    enters: Option<String>,
    refresh: bool,
    ctrl_c_after_s: Option<u64>,
    interrupts: Option<usize>,
    of: Option<usize>,
    within: bool,
    shows: Vec<String>,
    lacks: Vec<String>,
    denied_by: Option<String>,
    exception: Option<Exception>,
}

impl From<Written> for Typed {
    fn from(written: Written) -> Typed {
        let full = match written {
            Written::Line(line) => Full {
                line: Some(line),
                ..Full::default()
            },
            Written::Full(full) => *full,
        };
        Typed {
            line: full.line,
            ours: full.ours,
            shell: full.shell.unwrap_or(1),
            status: full.status,
            stays: full.stays,
            enters: full.enters,
            refresh: full.refresh,
            ctrl_c_after_s: full.ctrl_c_after_s,
            interrupts: full.interrupts,
            of: full.of,
            within: full.within,
            shows: full.shows,
            lacks: full.lacks,
            denied_by: full.denied_by,
            exception: full.exception,
        }
    }
}

impl Typed {
    /// Where it is, for messages.
    pub fn place(&self) -> String {
        match (self.line, &self.ours) {
            (Some(line), _) => format!("line {line}"),
            (None, Some(ours)) => format!("`{}`", ours.command),
            (None, None) => format!("shell {}", self.shell),
        }
    }
}

impl Scenario {
    /// Everything that is typed, in order.
    pub fn typed(&self) -> impl Iterator<Item = &Typed> {
        self.steps.iter().flat_map(|step| &step.play)
    }

    /// The differences from the tutorial.
    pub fn exceptions(&self) -> impl Iterator<Item = &Exception> {
        self.typed().filter_map(|typed| typed.exception.as_ref())
    }

    /// Holds the play against the tutorial: every command of it is played, once and in its order,
    /// and what else is played names something that is there.
    pub fn check_play(&self, tutorial: &Tutorial) -> Result<(), String> {
        let mut played = Vec::new();
        for typed in self.typed() {
            let entry = typed.line.map(|line| {
                let found = tutorial.at(line);
                found.ok_or_else(|| format!("line {line} of the tutorial begins nothing"))
            });
            match (entry.transpose()?.map(|entry| &entry.part), &typed.ours) {
                (Some(Part::Command(_)), None) => played.extend(typed.line),
                (Some(Part::Output(_)), None) => {}
                (Some(Part::Manifest(_)), _) => {
                    return Err(format!("{}: a manifest is not typed", typed.place()));
                }
                (Some(_), Some(_)) => {
                    let place = typed.place();
                    return Err(format!(
                        "{place}: has a command of the tutorial and of ours"
                    ));
                }
                (None, _) => {}
            }
            for line in typed.of.iter().chain(&typed.interrupts) {
                if tutorial
                    .at(*line)
                    .and_then(|entry| entry.command())
                    .is_none()
                {
                    return Err(format!("{}: line {line} has no command", typed.place()));
                }
            }
        }
        let commands = tutorial.entries.iter();
        let wanted: Vec<usize> = commands
            .filter(|entry| entry.command().is_some())
            .map(|entry| entry.line)
            .collect();
        if played == wanted {
            return Ok(());
        }
        let difference = wanted
            .iter()
            .zip(played.iter().chain(std::iter::repeat(&0)))
            .find(|(wanted, played)| wanted != played);
        Err(match difference {
            Some((wanted, played)) => {
                format!("the tutorial's next command is at line {wanted}, played is {played}")
            }
            None => "more is played than the tutorial has".into(),
        })
    }
}
