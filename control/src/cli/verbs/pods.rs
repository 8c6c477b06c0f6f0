//! `exec`, `attach` and `logs`: verbs on a lab's pods, through the lab's agent.

use std::io::Write;

use crate::cli::flags::{Flag, switch, value};
use crate::cli::session::{Session, VerbError};
use crate::cli::values;
use crate::lab_protocol::{self, AttachRequest, ContainerTarget, ExecRequest, LogsRequest};

/// Flags of `exec` and `attach`.
pub const STREAM_FLAGS: &[Flag] = &[
    value(
        "container",
        Some('c'),
        "The container; default the pod's first",
    ),
    switch("stdin", Some('i'), "Pass standard input on"),
    switch("tty", Some('t'), "Standard input is a terminal"),
    switch("quiet", Some('q'), ""),
];
/// Flags of `logs`.
pub const LOGS_FLAGS: &[Flag] = &[
    value(
        "container",
        Some('c'),
        "The container; default the pod's first",
    ),
    switch("follow", Some('f'), "Go on as lines come"),
    switch("previous", Some('p'), "The container's run before this one"),
    value("tail", None, "Only so many lines from the end; -1 for all"),
    value("since", None, "Only lines younger than this, as 5s or 2m"),
    switch("timestamps", None, "The time before each line"),
];

/// Runs `exec`; its exit status is the command's own.
pub fn exec(session: &mut Session) -> Result<(), VerbError> {
    let (target, command) = target_and_command(session)?;
    if command.is_empty() {
        return Err(VerbError::Local(
            "you must specify at least one command for the container".into(),
        ));
    }
    let request = ExecRequest {
        target,
        command,
        stdin: session.parsed.is_on("stdin"),
        tty: session.parsed.is_on("tty"),
        size: None,
        term: None,
    };
    let status = lab_protocol::exec(&session.lab_socket()?, &request)?;
    ended(status)
}

/// Runs `attach`.
pub fn attach(session: &mut Session) -> Result<(), VerbError> {
    let (target, _) = target_and_command(session)?;
    let request = AttachRequest {
        target,
        stdin: session.parsed.is_on("stdin"),
        tty: session.parsed.is_on("tty"),
        size: None,
    };
    let status = lab_protocol::attach(&session.lab_socket()?, &request)?;
    ended(status)
}

/// Says what kubectl says of a command that failed, and passes its status on.
fn ended(status: i32) -> Result<(), VerbError> {
    if status == 0 {
        return Ok(());
    }
    eprintln!("command terminated with exit code {status}");
    Err(VerbError::Status(u8::try_from(status).unwrap_or(1)))
}

/// Runs `logs`.
pub fn logs(session: &mut Session) -> Result<(), VerbError> {
    let (target, rest) = target_and_command(session)?;
    let container = match (target.container, rest.as_slice()) {
        (None, [container]) => Some(container.clone()),
        (named, []) => named,
        _ => {
            return Err(VerbError::Usage(
                "expected 'logs [-f] [-p] (POD) [-c CONTAINER]'".into(),
            ));
        }
    };
    let tail = match session.parsed.value("tail") {
        None | Some("-1") => None,
        Some(text) => Some(text.parse().map_err(|_| {
            VerbError::Local(format!("--tail takes a number of lines, not \"{text}\""))
        })?),
    };
    let since = values::limit(&session.parsed, "since")?;
    let request = LogsRequest {
        target: ContainerTarget {
            container,
            ..target
        },
        follow: session.parsed.is_on("follow"),
        previous: session.parsed.is_on("previous"),
        tail,
        since_s: since.map(|since| since.as_secs().max(1)),
        timestamps: session.parsed.is_on("timestamps"),
    };
    let mut out = std::io::stdout().lock();
    lab_protocol::logs(&session.lab_socket()?, &request, &mut out)?;
    Ok(out.flush()?)
}

/// `POD [-- COMMAND…]`; the pod may be written `pod/NAME`.
fn target_and_command(session: &Session) -> Result<(ContainerTarget, Vec<String>), VerbError> {
    let arguments = &session.parsed.arguments;
    let Some((pod, command)) = arguments.split_first() else {
        return Err(VerbError::Usage("pod, type/name must be specified".into()));
    };
    let pod = match pod.split_once('/') {
        Some(("pod" | "pods" | "po", name)) => name,
        Some((kind, _)) => {
            return Err(VerbError::Local(format!(
                "{kind} stands for several pods; name one of them (weir get pods)"
            )));
        }
        None => pod,
    };
    let target = ContainerTarget {
        namespace: session.namespace().unwrap_or_else(|| "default".to_owned()),
        pod: pod.to_owned(),
        container: session.parsed.value("container").map(str::to_owned),
    };
    Ok((target, command.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::flags::parse;

    #[test]
    fn the_command_is_what_follows_the_pod() {
        let words: Vec<String> = "-n ns -it pod/bb1 -- nc -l"
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        let session = Session::new(parse(STREAM_FLAGS, &words).unwrap());
        let (target, command) = target_and_command(&session).unwrap();
        assert_eq!(
            (target.namespace.as_str(), target.pod.as_str()),
            ("ns", "bb1")
        );
        assert_eq!(command, ["nc", "-l"]);
    }
}
