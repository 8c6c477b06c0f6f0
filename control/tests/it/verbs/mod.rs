//! kubectl's verbs as a person types them: `weir` itself against a daemon over a dataplane that
//! only remembers. The cases are the transcripts beside this file.
//!
//! | line | says |
//! | --- | --- |
//! | `$ weir …` | run this (words may stand in quotes); variables of the environment may stand before it |
//! | `! …` | a line that it writes to stderr |
//! | `? N` | its exit status, where that is not 0 |
//! | `& METHOD PARAMS` | somebody else makes this call now |
//! | `&later METHOD PARAMS` | the same, while the next command runs |
//! | `% VERSION` | from here on as kubectl of that version |
//! | `# …` | a comment |
//! | anything else | a line that it writes to stdout; `…` stands for the rest of a line, and alone for any number of lines |

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use control::client::Client;
use control::daemon::calls::Serving;
use control::daemon::connection::Bounds;
use control::daemon::server::{Access, Server, ServerBounds};
use serde_json::Value;

use crate::store::Scene;

/// What every transcript begins with.
const OBJECTS: &str = include_str!("objects.yaml");
/// A file beside them, of which the daemon's lab has a copy at an address, too.
const SECRET: &str = include_str!("secret.yaml");
/// Other files beside them: a kind, an object of it, and one that is refused.
const CUSTOM: [(&str, &str); 3] = [
    ("crontab-crd.yaml", include_str!("crontab-crd.yaml")),
    ("crontab.yaml", include_str!("crontab.yaml")),
    ("calico-policy.yaml", include_str!("calico-policy.yaml")),
];
/// A folder for `-k`.
const OVERLAY: [(&str, &str); 2] = [
    (
        "kustomization.yaml",
        include_str!("overlay/kustomization.yaml"),
    ),
    ("web.yaml", include_str!("overlay/web.yaml")),
];
/// An editor that changes an object while somebody else does: `weir` is what `$WEIR` names.
const OTHER_PERSON: &str = "\
$WEIR set image deploy/web side=side:2 >/dev/null && sed -i 's/image: nginx$/image: nginx:1/' \"$1\"\n";
/// How long after a command's start somebody else acts.
const LATER: Duration = Duration::from_millis(300);

/// A daemon that serves its socket.
struct Served {
    folder: PathBuf,
    end: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    fn start(name: &str) -> Served {
        let name = format!("verbs-{name}");
        let folder = std::env::temp_dir().join(format!("weir-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("objects.yaml"), OBJECTS).unwrap();
        std::fs::write(folder.join("other-person.sh"), OTHER_PERSON).unwrap();
        let secret = folder.join("secret.yaml");
        std::fs::write(&secret, SECRET).unwrap();
        for (file, text) in CUSTOM {
            std::fs::write(folder.join(file), text).unwrap();
        }
        std::fs::create_dir(folder.join("overlay")).unwrap();
        for (file, text) in OVERLAY {
            std::fs::write(folder.join("overlay").join(file), text).unwrap();
        }
        let copies = serde_json::json!({"https://example.org/secret.yaml": secret});
        std::fs::write(folder.join("urls.json"), copies.to_string()).unwrap();
        let (signals, end) = UnixStream::pair().unwrap();
        signals.set_nonblocking(true).unwrap();
        let socket = folder.join("weir.sock");
        let bounds = ServerBounds {
            clients: 8,
            connection: Bounds {
                message_bytes: 1 << 20,
                output_bytes: 4 << 20,
                half_message: Duration::from_secs(10),
            },
        };
        let fds = [signals.as_raw_fd()];
        let mut server = Server::bind(&socket, Access::default(), bounds, &fds).unwrap();
        // A scene stays on its thread.
        let thread = std::thread::spawn(move || {
            let mut scene = Scene::new(&name);
            let mut serving = Serving {
                daemon: scene.daemon.as_mut().unwrap(),
                signals: &signals,
                stopped: false,
                dead_worker: None,
            };
            server.run(&mut serving).unwrap();
        });
        Served {
            folder,
            end,
            thread: Some(thread),
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("weir.sock")
    }

    fn run(&self, words: &[String], kubectl: &str) -> Said {
        let is_set = |word: &&String| *word != "weir" && word.contains('=');
        let set = words.iter().take_while(is_set).count();
        let (set, words) = match words.get(set).map(String::as_str) {
            Some("weir") => (&words[..set], &words[set + 1..]),
            _ => (&[][..], words),
        };
        let output = Command::new(env!("CARGO_BIN_EXE_weir"))
            .args(words)
            .envs(set.iter().filter_map(|pair| pair.split_once('=')))
            .env("WEIR_KUBECTL_VERSION", kubectl)
            .env("WEIR", env!("CARGO_BIN_EXE_weir"))
            .current_dir(&self.folder)
            .env("WEIR_SOCKET", self.socket())
            .env("WEIR_CONFIG", self.folder.join("contexts.json"))
            .output()
            .unwrap();
        Said {
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
            status: output.status.code().unwrap(),
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        use std::io::Write;
        self.end.write_all(b"x").unwrap();
        let ended = self.thread.take().unwrap().join();
        std::fs::remove_dir_all(&self.folder).unwrap();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

#[derive(Debug, Default)]
struct Said {
    stdout: String,
    stderr: String,
    status: i32,
}

fn call(socket: &Path, line: &str) {
    let (method, params) = line.split_once(' ').unwrap();
    let params: Value = serde_json::from_str(params).unwrap_or_else(|e| panic!("{line}: {e}"));
    let mut client = Client::connect(socket).unwrap();
    let reply: Result<Value, _> = client.call(method, params);
    reply.unwrap_or_else(|error| panic!("{line}: {error}"));
}

/// Words between blanks; a quote keeps blanks in.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    let mut quoted = false;
    for c in line.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '\'' || c == '"' => (quote, quoted) = (Some(c), true),
            None if c == ' ' => {
                if !word.is_empty() || quoted {
                    words.push(std::mem::take(&mut word));
                }
                quoted = false;
            }
            _ => word.push(c),
        }
    }
    if !word.is_empty() || quoted {
        words.push(word);
    }
    words
}

/// Whether `said` is `expected`, where `…` ends a line early or stands for lines.
fn agrees(expected: &[&str], said: &[&str]) -> bool {
    match expected.split_first() {
        None => said.is_empty(),
        Some((&"…", rest)) => (0..=said.len()).any(|skip| agrees(rest, &said[skip..])),
        Some((line, rest)) => said.split_first().is_some_and(|(first, others)| {
            let same = match line.split_once('…') {
                Some((before, after)) => {
                    first.len() >= before.len() + after.len()
                        && first.starts_with(before)
                        && first.ends_with(after)
                }
                None => line == first,
            };
            same && agrees(rest, others)
        }),
    }
}

fn play(name: &str, transcript: &str) {
    let served = Served::start(name);
    let socket = served.socket();
    assert_eq!(
        served.run(&words("apply -f objects.yaml"), "").status,
        0,
        "the objects of every transcript"
    );
    let mut lines = transcript.lines().peekable();
    let (mut later, mut kubectl): (Vec<String>, _) = (Vec::new(), String::new());
    while let Some(line) = lines.next() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(line) = line.strip_prefix("&later ") {
            later.push(line.to_owned());
            continue;
        }
        if let Some(line) = line.strip_prefix("& ") {
            call(&socket, line);
            continue;
        }
        if let Some(version) = line.strip_prefix("% ") {
            kubectl = version.to_owned();
            continue;
        }
        let command = { line.strip_prefix("$ weir ") }.or_else(|| {
            line.strip_prefix("$ ")
                .filter(|rest| rest.contains(" weir "))
        });
        let command = command.unwrap_or_else(|| panic!("{name}: what is {line:?}?"));
        let (mut stdout, mut stderr, mut status) = (Vec::new(), Vec::new(), 0);
        while let Some(next) = lines.next_if(|next| !next.starts_with(['$', '&', '#', '%'])) {
            if let Some(error) = next.strip_prefix("! ") {
                stderr.push(error);
            } else if let Some(number) = next.strip_prefix("? ") {
                status = number.parse().unwrap();
            } else {
                stdout.push(next);
            }
        }
        while stdout.last().is_some_and(|line| line.is_empty()) {
            stdout.pop();
        }
        let (calls, socket) = (std::mem::take(&mut later), socket.clone());
        let others = std::thread::spawn(move || {
            for line in calls {
                std::thread::sleep(LATER);
                call(&socket, &line);
            }
        });
        let begun = Instant::now();
        let said = served.run(&words(command), &kubectl);
        others.join().unwrap();
        let holds = agrees(&stdout, &said.stdout.lines().collect::<Vec<_>>())
            && agrees(&stderr, &said.stderr.lines().collect::<Vec<_>>())
            && status == said.status;
        assert!(
            holds,
            "{name}: weir {command} (after {:?})\n{said:#?}",
            begun.elapsed(),
        );
    }
}

#[test]
fn top() {
    play("top", include_str!("top.txt"));
}

#[test]
fn capture() {
    play("capture", include_str!("capture.txt"));
}

#[test]
fn custom() {
    play("custom", include_str!("custom.txt"));
}

#[test]
fn delete() {
    play("delete", include_str!("delete.txt"));
}

#[test]
fn scale() {
    play("scale", include_str!("scale.txt"));
}

#[test]
fn rollout() {
    play("rollout", include_str!("rollout.txt"));
}

#[test]
fn wait() {
    play("wait", include_str!("wait.txt"));
}

#[test]
fn patch() {
    play("patch", include_str!("patch.txt"));
}

#[test]
fn pods() {
    play("pods", include_str!("pods.txt"));
}

#[test]
fn old_kubectl() {
    play("old-kubectl", include_str!("old-kubectl.txt"));
}

#[test]
fn version() {
    play("version", include_str!("version.txt"));
}

#[test]
fn api_resources() {
    play("api_resources", include_str!("api-resources.txt"));
}

#[test]
fn expose() {
    play("expose", include_str!("expose.txt"));
}

#[test]
fn create() {
    play("create", include_str!("create.txt"));
}

#[test]
fn label() {
    play("label", include_str!("label.txt"));
}

#[test]
fn get() {
    play("get", include_str!("get.txt"));
}

#[test]
fn config() {
    play("config", include_str!("config.txt"));
}

#[test]
fn edit() {
    play("edit", include_str!("edit.txt"));
}

#[test]
fn diff() {
    play("diff", include_str!("diff.txt"));
}

#[test]
fn describe() {
    play("describe", include_str!("describe.txt"));
}

#[test]
fn explain() {
    play("explain", include_str!("explain.txt"));
}

#[test]
fn kustomize() {
    play("kustomize", include_str!("kustomize.txt"));
}

#[test]
fn set() {
    play("set", include_str!("set.txt"));
}
