//! `exec`.

use std::time::Duration;

use crate::cli::flags::Flag;
use crate::cli::session::{Session, VerbError};
use crate::lab_protocol::{self, ContainerTarget, ExecRequest};

use super::choose::{self, Purpose};
use super::{CONTAINER, POD_RUNNING_TIMEOUT, QUIET, STDIN, TTY};

/// Flags of `exec`.
pub const FLAGS: &[Flag] = &[CONTAINER, STDIN, TTY, QUIET, POD_RUNNING_TIMEOUT];

/// How long to wait for a pod of a Deployment and the like.
const POD_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs `exec`; its exit status is the command's own.
pub fn run(session: &mut Session) -> Result<(), VerbError> {
    let limit = super::pod_timeout(&session.parsed, POD_TIMEOUT)?;
    let (word, command) = word_and_command(session)?;
    let namespace = super::namespace(session);
    let mut client = session.connect()?;
    let named = choose::object(&mut client, &namespace, &[word])?;
    let pod = choose::pod(&mut client, named, Purpose::Session, limit)?.pod;
    if let Some(phase) = choose::ended(&pod) {
        return Err(VerbError::Local(format!(
            "cannot exec into a container in a completed pod; current phase is {phase}"
        )));
    }
    let quiet = session.parsed.is_on("quiet");
    let container = choose::container(&pod, session.parsed.value("container"), quiet)?;
    let request = ExecRequest {
        target: target(&pod, &container["name"]),
        command,
        stdin: session.parsed.is_on("stdin"),
        tty: session.parsed.is_on("tty"),
        size: None,
        term: None,
    };
    let status = lab_protocol::exec(&session.lab_socket()?, &request, quiet)?;
    if status == 0 {
        return Ok(());
    }
    eprintln!("command terminated with exit code {status}");
    Err(VerbError::Status(u8::try_from(status).unwrap_or(1)))
}

/// A container of a pod.
pub fn target(pod: &serde_json::Value, container: &serde_json::Value) -> ContainerTarget {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    ContainerTarget {
        namespace: text(&pod["metadata"]["namespace"]),
        pod: text(&pod["metadata"]["name"]),
        container: container.as_str().map(str::to_owned),
    }
}

/// `(POD | TYPE/NAME) -- COMMAND…`; older kubectls needed no dashes.
fn word_and_command(session: &Session) -> Result<(String, Vec<String>), VerbError> {
    let arguments = &session.parsed.arguments;
    let (words, command) = match session.parsed.before_dashes {
        Some(at) => arguments.split_at(at),
        None if session.kubectl()?.exec_needs_no_dashes() => {
            arguments.split_at(arguments.len().min(1))
        }
        None => arguments.split_at(arguments.len()),
    };
    let [word] = words else {
        return Err(match words.len() {
            0 => VerbError::Local("pod, type/name or --filename must be specified".into()),
            _ => VerbError::Usage(
                "exec [POD] [COMMAND] is not supported anymore. Use exec [POD] -- [COMMAND] instead"
                    .into(),
            ),
        });
    };
    if command.is_empty() {
        return Err(VerbError::Local(
            "you must specify at least one command for the container".into(),
        ));
    }
    Ok((word.clone(), command.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::flags::parse;

    fn read(text: &str) -> Result<(String, Vec<String>), String> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        let session = Session::new(parse(FLAGS, &words).unwrap());
        word_and_command(&session).map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_is_what_follows_the_dashes() {
        let (word, command) = read("-n ns -it pod/bb1 -- nc -l").unwrap();
        assert_eq!(word, "pod/bb1");
        assert_eq!(command, ["nc", "-l"]);
        assert!(
            read("bb1 nc")
                .unwrap_err()
                .contains("not supported anymore")
        );
        assert!(read("bb1").unwrap_err().starts_with("you must specify"));
        assert!(read("-- nc").unwrap_err().starts_with("pod, type/name"));
    }
}
