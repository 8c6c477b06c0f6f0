//! Verbs on a lab's pods, through the lab's agent: `exec`, `attach`, `logs`, `run`, `debug`,
//! `port-forward` and `cp`.

pub mod attach;
mod choose;
pub mod copy;
pub mod debug;
pub mod exec;
pub mod logs;
mod objects;
pub mod port_forward;
pub mod run;

use std::time::Duration;

use crate::cli::flags::{Flag, Parsed, switch, value};
use crate::cli::session::{Session, VerbError};
use crate::cli::values;

/// `-c`.
const CONTAINER: Flag = value(
    "container",
    Some('c'),
    "The container; default the pod's first, or the one that it is annotated with",
);
/// `-i`.
const STDIN: Flag = switch("stdin", Some('i'), "Pass standard input on");
/// `-t`.
const TTY: Flag = switch("tty", Some('t'), "Standard input is a terminal");
/// `-q`.
const QUIET: Flag = switch(
    "quiet",
    Some('q'),
    "Print what the session prints and no more",
);
/// How long to wait for a pod.
const POD_RUNNING_TIMEOUT: Flag = value(
    "pod-running-timeout",
    None,
    "How long to wait until a pod is there, or runs, as 5s, 2m or 3h",
);

/// The namespace that is meant.
fn namespace(session: &Session) -> String {
    session.namespace().unwrap_or_else(|| "default".to_owned())
}

/// `--pod-running-timeout`, or kubectl's default for the verb.
fn pod_timeout(parsed: &Parsed, default: Duration) -> Result<Duration, VerbError> {
    let Some(seconds) = values::duration(parsed, "pod-running-timeout")? else {
        return Ok(default);
    };
    match Duration::try_from_secs_f64(seconds) {
        Ok(limit) if !limit.is_zero() => Ok(limit),
        _ => Err(VerbError::Local(
            "--pod-running-timeout must be higher than zero".into(),
        )),
    }
}

/// Five letters that Kubernetes' generated names end in (`k8s.io/apimachinery/pkg/util/rand`).
fn random_suffix() -> String {
    use std::hash::{BuildHasher, Hasher, RandomState};
    const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rest = RandomState::new().build_hasher().finish();
    let mut suffix = String::new();
    for _ in 0..5 {
        suffix.push(char::from(LETTERS[(rest % 27) as usize]));
        rest /= 27;
    }
    suffix
}

/// How this program was called: `kubectl` where that is a link to it.
fn program_name() -> String {
    let called = std::env::args_os().next().unwrap_or_default();
    let name = std::path::Path::new(&called).file_name();
    name.map_or("weir".into(), |name| name.to_string_lossy().into_owned())
}
