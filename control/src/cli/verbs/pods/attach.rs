//! `attach`, and what `run` and `debug` attach with.

use std::time::Duration;

use serde_json::Value;

use crate::cli::flags::Flag;
use crate::cli::session::{Session, VerbError};
use crate::lab_protocol::{self, AttachRequest};

use super::choose::{self, Purpose};
use super::{CONTAINER, POD_RUNNING_TIMEOUT, QUIET, STDIN, TTY};

/// Flags of `attach`.
pub const FLAGS: &[Flag] = &[CONTAINER, STDIN, TTY, QUIET, POD_RUNNING_TIMEOUT];

/// How long to wait for a pod of a Deployment and the like.
const POD_TIMEOUT: Duration = Duration::from_secs(60);

/// How to attach.
#[derive(Clone, Copy, Debug)]
pub struct Streams {
    /// Whether standard input is passed on.
    pub stdin: bool,
    /// Whether a terminal is asked for.
    pub tty: bool,
    /// Whether to say nothing of one's own.
    pub quiet: bool,
}

impl Streams {
    /// By `-i`, `-t` and `-q`.
    pub fn of(session: &Session) -> Streams {
        Streams {
            stdin: session.parsed.is_on("stdin"),
            tty: session.parsed.is_on("tty"),
            quiet: session.parsed.is_on("quiet"),
        }
    }
}

/// Runs `attach`.
pub fn run(session: &mut Session) -> Result<(), VerbError> {
    let words = session.parsed.arguments.clone();
    if words.is_empty() {
        return Err(VerbError::Local(
            "at least 1 argument is required for attach".into(),
        ));
    }
    if words.len() > 2 {
        return Err(VerbError::Local(format!(
            "expected POD, TYPE/NAME, or TYPE NAME, (at most 2 arguments) saw {}: [{}]",
            words.len(),
            words.join(" ")
        )));
    }
    let limit = super::pod_timeout(&session.parsed, POD_TIMEOUT)?;
    let namespace = super::namespace(session);
    let mut client = session.connect()?;
    let named = choose::object(&mut client, &namespace, &words)?;
    let pod = choose::pod(&mut client, named, Purpose::Session, limit)?.pod;
    if let Some(phase) = choose::ended(&pod) {
        return Err(VerbError::Local(format!(
            "cannot attach a container in a completed pod; current phase is {phase}"
        )));
    }
    let streams = Streams::of(session);
    let container = session.parsed.value("container").map(str::to_owned);
    attach(session, &pod, container.as_deref(), streams)
}

/// Joins a container's streams with this process's own until either ends.
pub fn attach(
    session: &Session,
    pod: &Value,
    container: Option<&str>,
    streams: Streams,
) -> Result<(), VerbError> {
    let container = choose::container(pod, container, streams.quiet)
        .map_err(|error| VerbError::Local(format!("cannot attach to the container: {error}")))?;
    let name = container["name"].as_str().unwrap_or_default();
    let has_tty = container["tty"] == true;
    if streams.tty && !has_tty && !streams.quiet {
        eprintln!("error: Unable to use a TTY - container {name} did not allocate one");
    }
    let socket = session.lab_socket()?;
    // Said at once, where kubectl says it too: before the first of the container's output.
    let raw = has_tty && lab_protocol::has_terminal(streams.stdin, streams.quiet);
    if !streams.quiet {
        if session.kubectl()?.attach_warns_of_logs() {
            eprintln!(
                "All commands and output from this session will be recorded in container logs, \
                 including credentials and sensitive information passed through the command prompt."
            );
        }
        eprintln!("If you don't see a command prompt, try pressing enter.");
    }
    let request = AttachRequest {
        target: super::exec::target(pod, &container["name"]),
        stdin: streams.stdin,
        tty: raw,
        size: None,
    };
    lab_protocol::attach(&socket, &request)?;
    if raw && !streams.quiet {
        println!("{}", farewell(pod, name));
    }
    Ok(())
}

fn farewell(pod: &Value, container: &str) -> String {
    let (program, name) = (super::program_name(), &pod["metadata"]["name"]);
    let name = name.as_str().unwrap_or_default();
    let ephemeral = choose::containers(pod, "ephemeralContainers");
    let ephemeral = ephemeral.map(|container| container["name"].as_str());
    if ephemeral.into_iter().any(|name| name == Some(container)) {
        return format!(
            "Session ended, the ephemeral container will not be restarted but may be reattached \
             using '{program} attach {name} -c {container} -i -t' if it is still running"
        );
    }
    format!(
        "Session ended, resume using '{program} attach {name} -c {container} -i -t' command when \
         the pod is running"
    )
}
