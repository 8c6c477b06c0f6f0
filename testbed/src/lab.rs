//! Labs: what they are on this machine, and where.
//!
//! A lab is a folder under [`LABS_DIR`]. Whatever it has on the machine can be found from there:
//! namespaces by the names it remembers, processes by the namespaces they are in, pins by the
//! instance's name. So [`clean`] needs nobody's help, whoever was killed before.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use control::lab_protocol::{self, AgentStatus, LABS_DIR, LabError};
use rustix::fs::FlockOperation;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

mod down;
mod list;
mod prepare;
mod shell;
mod told;
mod up;

pub use down::{clean, down};
pub use list::{list, list_built_in, list_json};
pub use prepare::prepare_environment;
pub use shell::{shell, variables};
pub use up::{UpOptions, up, wait_settled};

/// Longest name: it is part of namespaces' names and of a daemon instance's.
const NAME_BYTES: usize = 40;

/// Why a lab's command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// What was asked cannot be.
    #[error("{0}")]
    Refused(String),
    /// The system refused.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// The agent refused or went away.
    #[error(transparent)]
    Agent(#[from] LabError),
}

fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> CommandError {
    let what = what.into();
    move |source| CommandError::System { what, source }
}

/// A lab by name, running or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lab {
    /// Its name.
    pub name: String,
}

/// What `up` writes down for the agent: `lab.json` in the lab's folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabFile {
    /// User and group that the lab's sockets are given to.
    pub owner: Option<(u32, u32)>,
    /// The daemon's program.
    pub weir: PathBuf,
    /// Cores of the daemon's workers.
    pub workers: Vec<u32>,
    /// What the external world serves, on every address: protocol and port.
    pub external_ports: Vec<(String, u16)>,
    /// Folder of the manifests that the lab came up with.
    pub folder: Option<PathBuf>,
    /// The folder that a shell of the lab takes for its home.
    #[serde(default)]
    pub home: Option<PathBuf>,
    /// Whether the lab's daemon enforces policy; off only to prove that scenarios notice.
    #[serde(default)]
    pub enforcement: config::Enforcement,
}

impl Lab {
    /// The lab of a name that names can have.
    pub fn named(name: &str) -> Result<Lab, CommandError> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let good = !name.is_empty() && name.len() <= NAME_BYTES && name.chars().all(plain);
        if !good || name.starts_with('-') || name.ends_with('-') {
            return Err(CommandError::Refused(format!(
                "a lab's name has 1 to {NAME_BYTES} lower-case letters, digits and hyphens, \
                 and begins and ends with a letter or digit; {name:?} does not"
            )));
        }
        Ok(Lab {
            name: name.to_owned(),
        })
    }

    /// Its folder.
    pub fn folder(&self) -> PathBuf {
        lab_protocol::lab_dir(&self.name)
    }

    /// Where the files of a lab that comes with Weir lie while it runs. Not in [`Lab::folder`]: a
    /// shell without root works here.
    pub fn tutorial_folder(&self) -> PathBuf {
        Path::new("/run/weir/tutorials").join(&self.name)
    }

    /// The daemon's socket.
    pub fn control_socket(&self) -> PathBuf {
        lab_protocol::control_socket(&self.name)
    }

    /// The agent's socket.
    pub fn agent_socket(&self) -> PathBuf {
        lab_protocol::lab_socket(&self.name)
    }

    /// The log of denials.
    pub fn log(&self) -> PathBuf {
        self.folder().join("network-policy.log")
    }

    /// Reads what `up` wrote down.
    pub fn read_file(&self) -> io::Result<LabFile> {
        Ok(serde_json::from_slice(&fs::read(
            self.folder().join("lab.json"),
        )?)?)
    }

    /// Takes the lock that says an agent lives, with its process in it.
    pub fn lock_agent(&self) -> io::Result<File> {
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            // Whoever can open it can hold the lock, and seem to be the agent.
            .mode(0o600)
            .open(self.folder().join("agent.lock"))?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        file.set_len(0)?;
        write!(file, "{}", std::process::id())?;
        Ok(file)
    }

    /// The agent's process, if one lives.
    pub fn agent_pid(&self) -> Option<Pid> {
        let mut file = File::open(self.folder().join("agent.lock")).ok()?;
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
            return None;
        }
        let mut text = String::new();
        file.read_to_string(&mut text).ok()?;
        Pid::from_raw(text.trim().parse().ok()?)
    }

    /// Whether there is anything of it on the machine.
    pub fn exists(&self) -> bool {
        self.folder().exists()
    }

    /// The agent's answer, if it runs.
    pub fn status(&self) -> Result<AgentStatus, LabError> {
        lab_protocol::status(&self.agent_socket())
    }
}

/// Every lab with a folder, by name.
pub fn all() -> Vec<Lab> {
    let names = fs::read_dir(LABS_DIR).into_iter().flatten().flatten();
    let mut labs: Vec<Lab> = names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter_map(|name| Lab::named(&name).ok())
        .collect();
    labs.sort_by(|a, b| a.name.cmp(&b.name));
    labs
}

/// The program `weir` beside this one, or on the `PATH`.
pub fn weir_program() -> PathBuf {
    let beside = std::env::current_exe()
        .ok()
        .map(|path| path.with_file_name("weir"));
    beside
        .filter(|path| path.exists())
        .unwrap_or_else(|| "weir".into())
}

/// The stand-ins' programs beside this one; without, only containers of images that need them fail.
pub fn applets_program() -> Option<PathBuf> {
    let beside = std::env::current_exe().ok()?.with_file_name("weir-applets");
    beside.exists().then_some(beside)
}

fn need_root() -> Result<(), CommandError> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(CommandError::Refused(
        "labs need root to make namespaces and to load XDP programs: run this with sudo".into(),
    ))
}

/// User and group behind sudo.
pub fn owner() -> Option<(u32, u32)> {
    let number = |name| std::env::var(name).ok()?.parse::<u32>().ok();
    Some((number("SUDO_UID")?, number("SUDO_GID")?)).filter(|(user, _)| *user != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_lead_elsewhere_are_refused() {
        for name in ["", "..", "a/b", "A", "-a", "a-", &"a".repeat(41)] {
            assert!(Lab::named(name).is_err(), "{name}");
        }
        assert_eq!(Lab::named("stars-2").unwrap().name, "stars-2");
    }
}
