//! kubectl's verbs on a lab's pods, as a person types them. The cases are the transcripts beside
//! this file, each played in a lab of its own by `sh`, with `kubectl` on its PATH.
//!
//! | line | says |
//! | --- | --- |
//! | `$ …` | run this; lines that end in a backslash go on |
//! | `~ …` | run this again and again until it says what follows, for 20 s at most |
//! | `@ …` | run this on a terminal, where the two outputs are one |
//! | `! …` | a line that it writes to stderr |
//! | `? N` | its exit status, where that is not 0 |
//! | `# …` | a comment |
//! | anything else | a line that it writes to stdout; `…` stands for any text within a line, and alone for any number of lines |

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use testbed::lab::{self, Lab};

use crate::{Outcome, Skipped, Test, WEIR_LAB};

pub const TESTS: &[Test] = &[
    ("verbs::run_and_attach", || {
        play("run", include_str!("run.txt"), None)
    }),
    ("verbs::old_kubectl", || {
        play("old", include_str!("old-kubectl.txt"), Some("1.8"))
    }),
    ("verbs::logs", || {
        play("logs", include_str!("logs.txt"), None)
    }),
    ("verbs::port_forward", || {
        play("forward", include_str!("port-forward.txt"), None)
    }),
    ("verbs::debug", || {
        play("debug", include_str!("debug.txt"), None)
    }),
    ("verbs::probes", || {
        play("probes", include_str!("probes.txt"), None)
    }),
    ("verbs::jobs", || {
        play("jobs", include_str!("jobs.txt"), None)
    }),
    ("verbs::workloads", || {
        play("workloads", include_str!("workloads.txt"), None)
    }),
];

/// What every transcript begins with.
const OBJECTS: &str = include_str!("objects.yaml");
/// What some of them apply.
const MANIFESTS: [(&str, &str); 4] = [
    ("workloads.yaml", include_str!("workloads.yaml")),
    ("later.yaml", LATER),
    ("probes.yaml", include_str!("probes.yaml")),
    ("jobs.yaml", include_str!("jobs.yaml")),
];
const LATER: &str =
    "{apiVersion: v1, kind: ConfigMap, metadata: {name: later}, data: {LATER: come}}";
/// How long a command that is repeated may take to say what it shall.
const PATIENCE: Duration = Duration::from_secs(20);

/// A lab, and a folder with `kubectl` and the objects in it; both gone with it.
struct Stage {
    lab: Lab,
    folder: PathBuf,
}

impl Stage {
    fn up(name: &str, kubectl: Option<&str>) -> Result<Stage, Skipped> {
        let weir = PathBuf::from(WEIR_LAB).with_file_name("weir");
        if !weir.exists() {
            let reason = "weir is not built: cargo build --workspace";
            return Err(Skipped(reason.into()));
        }
        let lab = Lab::named(&format!("verbs-{name}")).unwrap();
        if lab.exists() {
            lab::down(&lab).unwrap();
        }
        let folder = std::env::temp_dir().join(format!("weir-verbs-{name}"));
        let _left_over = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("bin")).unwrap();
        symlink(weir, folder.join("bin/kubectl")).unwrap();
        fs::write(folder.join("objects.yaml"), OBJECTS).unwrap();
        for (name, text) in MANIFESTS {
            fs::write(folder.join(name), text).unwrap();
        }
        let stage = Stage { lab, folder };
        let mut up = Command::new(WEIR_LAB);
        up.args(["up", &stage.lab.name, "-f"])
            .arg(stage.folder.join("objects.yaml"));
        if let Some(version) = kubectl {
            up.args(["--kubectl", version]);
        }
        let output = up.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        Ok(stage)
    }

    fn run(&self, command: &str, terminal: bool) -> Said {
        let path = std::env::var("PATH").unwrap();
        let path = format!("{}:{path}", self.folder.join("bin").display());
        let mut shell = match terminal {
            true => {
                let mut script = Command::new("script");
                script.args(["-qefc", command, "/dev/null"]);
                script
            }
            false => {
                let mut shell = Command::new("sh");
                shell.args(["-c", command]);
                shell
            }
        };
        let output = shell
            .current_dir(&self.folder)
            .env("PATH", path)
            .env("WEIR_LAB", &self.lab.name)
            .env("SHELL", "/bin/sh")
            .env_remove("WEIR_SOCKET")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        // `^@` is how a terminal shows the end of input that `script` types into it.
        let text = |bytes: Vec<u8>| {
            let text = String::from_utf8_lossy(&bytes).replace('\r', "");
            text.replace("^@", "")
        };
        Said {
            stdout: text(output.stdout),
            stderr: text(output.stderr),
            status: output.status.code().unwrap_or(-1),
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.lab.exists() {
            lab::down(&self.lab).unwrap();
        }
        let _gone = fs::remove_dir_all(&self.folder);
    }
}

#[derive(Debug, Default)]
struct Said {
    stdout: String,
    stderr: String,
    status: i32,
}

/// Whether a line is what was expected, where `…` stands for any text.
fn line_agrees(expected: &str, said: &str) -> bool {
    let Some((before, rest)) = expected.split_once('…') else {
        return expected == said;
    };
    let Some(said) = said.strip_prefix(before) else {
        return false;
    };
    let mut starts = said.char_indices().map(|(at, _)| at);
    starts.any(|at| line_agrees(rest, &said[at..])) || line_agrees(rest, "")
}

/// Whether lines are what was expected, where `…` alone stands for any number of them.
fn agrees(expected: &[&str], said: &[&str]) -> bool {
    match expected.split_first() {
        None => said.is_empty(),
        Some((&"…", rest)) => (0..=said.len()).any(|skip| agrees(rest, &said[skip..])),
        Some((line, rest)) => said
            .split_first()
            .is_some_and(|(first, others)| line_agrees(line, first) && agrees(rest, others)),
    }
}

/// A command and what it shall say.
#[derive(Debug, Default)]
struct Step<'a> {
    command: String,
    terminal: bool,
    again: bool,
    stdout: Vec<&'a str>,
    stderr: Vec<&'a str>,
    status: i32,
}

impl Step<'_> {
    fn agrees(&self, said: &Said) -> bool {
        let lines = |text: &'_ str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let same = |expected: &[&str], said: &str| {
            let said = lines(said);
            let said: Vec<&str> = said.iter().map(String::as_str).collect();
            agrees(expected, &said)
        };
        same(&self.stdout, &said.stdout)
            && same(&self.stderr, &said.stderr)
            && self.status == said.status
    }
}

fn steps(transcript: &str) -> Vec<Step<'_>> {
    let mut steps: Vec<Step<'_>> = Vec::new();
    let mut lines = transcript.lines();
    while let Some(line) = lines.next() {
        let sign = line.get(..2).unwrap_or_default();
        let rest = line.get(2..).unwrap_or_default();
        match (sign, steps.last_mut()) {
            ("$ " | "~ " | "@ ", _) => {
                let mut command = rest.to_owned();
                while let Some(whole) = command.strip_suffix('\\') {
                    command = whole.to_owned() + lines.next().unwrap_or_default().trim_start();
                }
                steps.push(Step {
                    command,
                    terminal: sign == "@ ",
                    again: sign == "~ ",
                    ..Step::default()
                });
            }
            ("# ", _) | (_, None) if line.is_empty() || sign == "# " => {}
            ("! ", Some(step)) => step.stderr.push(rest),
            ("? ", Some(step)) => step.status = rest.parse().unwrap(),
            (_, Some(step)) => step.stdout.push(line),
            (_, None) => panic!("what is {line:?}?"),
        }
    }
    for step in &mut steps {
        while step.stdout.last().is_some_and(|line| line.is_empty()) {
            step.stdout.pop();
        }
    }
    steps
}

fn play(name: &str, transcript: &str, kubectl: Option<&str>) -> Outcome {
    let stage = Stage::up(name, kubectl)?;
    for step in steps(transcript) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = stage.run(&step.command, step.terminal);
            if step.agrees(&said) {
                break;
            }
            let over = !step.again || Instant::now() > deadline;
            assert!(!over, "{name}: {step:#?}\n{said:#?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    Ok(())
}
