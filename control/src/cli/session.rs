//! What every verb needs: where the daemon is, which namespace is meant, and how errors read.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use thiserror::Error;

use crate::client::{Client, ClientError};
use crate::lab_protocol::{self, LabError};
use crate::objects::Definitions;
use crate::protocol::{Mutation, Reason, ResourcesReply};

use super::context::{self, Choices};
use super::flags::{FlagError, Parsed};
use super::kubectl_version::KubectlVersion;

/// The daemon's socket where no lab is meant.
pub const SOCKET: &str = "/run/weir/weir.sock";

/// Why a verb failed, as it is printed.
#[derive(Debug, Error)]
pub enum VerbError {
    /// The command line is wrong: printed with a pointer to `--help`.
    #[error("{0}")]
    Usage(String),
    /// A flag is wrong.
    #[error("{0}")]
    Flag(#[from] FlagError),
    /// The client's own objection, behind `error: `.
    #[error("{0}")]
    Local(String),
    /// The daemon's objection, behind `Error from server (REASON): `.
    #[error("{0}")]
    Client(#[from] ClientError),
    /// The lab's agent's objection.
    #[error("{0}")]
    Lab(#[from] LabError),
    /// What went wrong with one object each; the others were done.
    #[error("{} errors", .0.len())]
    Several(Vec<VerbError>),
    /// Whoever read the output has ended: there is nobody to tell.
    #[error("broken pipe")]
    Pipe,
    /// Everything is printed already; only the status is left.
    #[error("exit status {0}")]
    Status(u8),
}

/// Prints text at once. Whoever read and has seen enough, as `| head` has, ends the verb in silence.
///
/// # Errors
/// [`VerbError::Pipe`] if nobody reads any more, [`VerbError::Local`] if it cannot be written.
pub fn put(text: &str) -> Result<(), VerbError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(VerbError::Pipe),
        other => Ok(other?),
    }
}

impl From<std::io::Error> for VerbError {
    fn from(error: std::io::Error) -> Self {
        VerbError::Local(error.to_string())
    }
}

impl VerbError {
    /// What a verb that goes on after an error ends with.
    pub fn all(mut errors: Vec<VerbError>) -> Result<(), VerbError> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(VerbError::Several(errors)),
        }
    }

    /// Prints the error on stderr as kubectl does and gives the exit status.
    pub fn report(&self, verb: &str) -> ExitCode {
        match self {
            VerbError::Status(status) => return ExitCode::from(*status),
            VerbError::Pipe => {}
            VerbError::Usage(text) => {
                eprintln!("error: {text}\nSee 'weir {verb} --help' for usage");
            }
            VerbError::Flag(error) => {
                eprintln!("error: {error}\nSee 'weir {verb} --help' for usage.");
            }
            VerbError::Local(text) if text.starts_with("error: ") => eprintln!("{text}"),
            VerbError::Local(text) => eprintln!("error: {text}"),
            // kubectl begins a line with `error: ` only if it is the only one.
            VerbError::Several(errors) => {
                for error in errors {
                    match error {
                        VerbError::Local(text) => eprintln!("{text}"),
                        other => drop(other.report(verb)),
                    }
                }
            }
            VerbError::Client(error) => eprintln!("{}", server_error(error)),
            VerbError::Lab(LabError::Refused { reason, message }) => {
                eprintln!("Error from server ({reason}): {message}");
            }
            VerbError::Lab(error) => eprintln!("error: {error}"),
        }
        ExitCode::FAILURE
    }
}

/// A daemon's refusal as kubectl prints the API server's.
fn server_error(error: &ClientError) -> String {
    match error.reason() {
        // An Invalid message names the object itself ("The Pod "x" is invalid: ...").
        Some(Reason::Invalid) if error.to_string().starts_with("The ") => error.to_string(),
        Some(reason) => format!("Error from server ({}): {error}", reason.name()),
        None => format!("error: {error}"),
    }
}

/// One invocation.
pub struct Session {
    /// Flags and arguments.
    pub parsed: Parsed,
    socket: Option<PathBuf>,
}

impl Session {
    /// For a command line that is taken apart already.
    pub fn new(parsed: Parsed) -> Session {
        Session {
            parsed,
            socket: None,
        }
    }

    /// The namespace that is meant, if one is chosen: by `-n`, else for the context by `config
    /// set-context`.
    pub fn namespace(&self) -> Option<String> {
        self.namespace_flag().or_else(|| {
            let mut choices = Choices::load();
            // Most people have chosen none: nobody is asked then where the daemon is.
            if choices.namespaces.is_empty() {
                return None;
            }
            choices.namespaces.remove(&self.context()?)
        })
    }

    /// The namespace that `-n` names, if any.
    pub fn namespace_flag(&self) -> Option<String> {
        self.parsed
            .value("namespace")
            .filter(|n| !n.is_empty())
            .map(str::to_owned)
    }

    /// The name of what is spoken to: a lab, or the machine's daemon.
    pub fn context(&self) -> Option<String> {
        self.socket().ok().map(|socket| context::name_of(&socket))
    }

    /// The daemon's socket.
    pub fn socket(&self) -> Result<PathBuf, VerbError> {
        match &self.socket {
            Some(path) => Ok(path.clone()),
            None => self.find_socket(),
        }
    }

    /// Where the lab's copy lies of what is at an address, if it has one.
    pub fn local_copy(&self, url: &str) -> Option<PathBuf> {
        lab_protocol::local_copy(&self.socket().ok()?, url)
    }

    /// A connection to the daemon.
    pub fn connect(&mut self) -> Result<Client, VerbError> {
        let path = match &self.socket {
            Some(path) => path.clone(),
            None => self.socket.insert(self.find_socket()?).clone(),
        };
        Ok(Client::connect(path)?)
    }

    /// The kinds that CustomResourceDefinitions define, as the daemon that is meant tells of them; none
    /// if nobody answers, which other calls say.
    pub fn definitions(&self) -> Definitions {
        let told = || -> Result<ResourcesReply, VerbError> {
            let mut client = Client::connect(self.socket()?)?;
            Ok(client.call("resources", serde_json::json!({}))?)
        };
        told().map_or_else(
            |_| Definitions::default(),
            |reply| Definitions::told(&reply.resources),
        )
    }

    /// The kubectl whose words are spoken to the daemon that is meant.
    pub fn kubectl(&self) -> Result<KubectlVersion, VerbError> {
        let socket = self.socket.clone().or_else(|| self.find_socket().ok());
        KubectlVersion::of(socket.as_deref()).map_err(VerbError::Local)
    }

    /// The lab that `--lab` or `WEIR_LAB` names, else the only one that runs.
    pub fn lab(&self) -> Result<String, VerbError> {
        choose_lab(self.parsed.value("lab"))
    }

    /// The socket of the lab's agent: of the lab whose daemon is meant.
    pub fn lab_socket(&self) -> Result<PathBuf, VerbError> {
        let daemons = self.socket.clone().or_else(|| self.find_socket().ok());
        let beside = daemons.map(|socket| socket.with_file_name(lab_protocol::AGENT_SOCKET));
        match beside {
            Some(socket) if socket.exists() => Ok(socket),
            Some(_) => Err(LabError::NoLab.into()),
            None => Ok(lab_protocol::lab_socket(&self.lab()?)),
        }
    }

    fn find_socket(&self) -> Result<PathBuf, VerbError> {
        daemon_socket(self.parsed.value("socket"), self.parsed.value("lab"))
    }

    /// Says on stderr what a change went live with: on a terminal, or with `-v=1`; and what one
    /// would do that was only tried (`--dry-run=server`).
    pub fn report_mutation(&self, mutation: &Mutation) -> Result<(), VerbError> {
        for warning in &mutation.warnings {
            eprintln!("Warning: {warning}");
        }
        if let Some(preview) = &mutation.preview
            && self.parsed.value("dry-run") == Some("server")
        {
            eprint!("{}", super::preview::text(preview));
        }
        if !mutation.warnings.is_empty() && self.parsed.is_on("warnings-as-errors") {
            let count = mutation.warnings.len();
            return Err(VerbError::Local(format!("{count} warning(s) received")));
        }
        let verbose = self
            .parsed
            .value("v")
            .and_then(|v| v.parse::<u8>().ok())
            .unwrap_or(0)
            > 0;
        let terminal = rustix::termios::isatty(rustix::stdio::stderr());
        if verbose || terminal {
            eprintln!("{}", mutation.summary());
        }
        Ok(())
    }
}

/// The daemon's socket that is meant: `--socket`'s; `--lab`'s; `WEIR_SOCKET`'s; the machine's own
/// daemon's, unless `WEIR_LAB` names a lab; the only lab's that runs.
pub fn daemon_socket(socket: Option<&str>, lab: Option<&str>) -> Result<PathBuf, VerbError> {
    if let Some(path) = socket {
        return Ok(PathBuf::from(path));
    }
    let set = |name: &str| std::env::var_os(name).filter(|text| !text.is_empty());
    match set("WEIR_SOCKET") {
        Some(path) if lab.is_none() => return Ok(PathBuf::from(path)),
        _ => {}
    }
    if lab.is_none() && set("WEIR_LAB").is_none() && Path::new(SOCKET).exists() {
        let chosen = Choices::load().current_context;
        let lab = chosen.map(|name| lab_protocol::control_socket(&name));
        let lab = lab.filter(|path| path.exists());
        return Ok(lab.unwrap_or_else(|| PathBuf::from(SOCKET)));
    }
    match choose_lab(lab) {
        Ok(lab) => Ok(lab_protocol::control_socket(&lab)),
        Err(VerbError::Lab(LabError::NoLab)) => Err(VerbError::Local(format!(
            "no daemon answers at {SOCKET} and no lab runs; start a lab with \
             `weir lab up NAME`, or the daemon with `weir daemon`"
        ))),
        Err(other) => Err(other),
    }
}

/// The lab that is meant; where several run, that of the user's context.
fn choose_lab(named: Option<&str>) -> Result<String, VerbError> {
    match lab_protocol::choose_lab(named) {
        Err(LabError::SeveralLabs(names)) => {
            let chosen = Choices::load().current_context;
            let runs = |name: &String| names.split(", ").any(|own| own == name);
            Ok(chosen.filter(runs).ok_or(LabError::SeveralLabs(names))?)
        }
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{ErrorDetail, ErrorObject, REFUSED};

    fn refused(reason: Reason, message: &str) -> ClientError {
        let data = Some(ErrorDetail {
            reason,
            warnings: vec![],
            object: None,
        });
        ClientError::Refused(ErrorObject {
            code: REFUSED,
            message: message.into(),
            data,
        })
    }

    #[test]
    fn refusals_read_as_the_api_servers() {
        assert_eq!(
            server_error(&refused(Reason::NotFound, "pods \"x\" not found")),
            "Error from server (NotFound): pods \"x\" not found"
        );
        let invalid = "The NetworkPolicy \"x\" is invalid: spec: Required value";
        assert_eq!(server_error(&refused(Reason::Invalid, invalid)), invalid);
    }
}
