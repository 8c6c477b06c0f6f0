//! Bringing labs up and down, and finding them.
//!
//! A lab is a folder under [`LABS_DIR`]. Whatever it has on the machine can be found from there:
//! namespaces by the names it remembers, processes by the namespaces they are in, pins by the
//! instance's name. So [`clean`] needs nobody's help, whoever was killed before.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use control::cli::kubectl_version;
use control::lab_protocol::{self, AgentStatus, LABS_DIR, LabError};
use control::netlink::Namespace;
use rustix::fs::FlockOperation;
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use crate::topology;

mod list;
mod prepare;
mod shell;
mod told;

pub use list::{list, list_built_in, list_json};
pub use prepare::prepare_environment;
pub use shell::{shell, variables};

/// How long the agent may take to answer after its start.
const AGENT_START: Duration = Duration::from_secs(15);
/// How long pods may take to be ready.
const PODS_READY: Duration = Duration::from_secs(120);
/// How long killed processes may take to be gone.
const KILLED: Duration = Duration::from_secs(5);
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

/// What `up` is asked for.
#[derive(Clone, Debug, Default)]
pub struct UpOptions {
    /// Manifests: files, folders, URLs, as `apply -f` takes them.
    pub manifests: Vec<String>,
    /// Whether to look into folders' folders too.
    pub recursive: bool,
    /// Ports of the external world, instead of 80 and 443 of TCP.
    pub external_ports: Vec<(String, u16)>,
    /// Whether to say what happens, on stderr.
    pub progress: bool,
    /// Whether policy is enforced.
    pub enforcement: config::Enforcement,
    /// Where a shell of the lab begins; default the manifests' folder.
    pub folder: Option<PathBuf>,
    /// The kubectl whose words and ways the lab's commands have, as `1.8`; default Weir's own.
    pub kubectl: Option<String>,
    /// The folder that a shell of the lab takes for its home; default the user's own.
    pub home: Option<PathBuf>,
    /// Addresses of which the lab has copies, and where those lie.
    pub urls: BTreeMap<String, PathBuf>,
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

/// Two workers where there are two cores.
fn workers() -> Vec<u32> {
    let Ok(cores) = rustix::thread::sched_getaffinity(None) else {
        return vec![0];
    };
    let usable = (0..1024)
        .filter(|core| cores.is_set(*core))
        .map(|core| core as u32);
    let chosen: Vec<u32> = usable.take(2).collect();
    if chosen.is_empty() { vec![0] } else { chosen }
}

/// Brings a lab up: agent, daemon, manifests, pods ready. On failure nothing is left.
pub fn up(lab: &Lab, options: &UpOptions) -> Result<AgentStatus, CommandError> {
    need_root()?;
    if lab.agent_pid().is_some() {
        let name = &lab.name;
        return Err(CommandError::Refused(format!(
            "lab {name} runs already; weir lab down {name} ends it"
        )));
    }
    let say = |text: &str| {
        if options.progress {
            eprintln!("{text}");
        }
    };
    if lab.exists() {
        say(&format!(
            "lab {}: removing what an earlier one left",
            lab.name
        ));
        clean(lab)?;
    }
    let result = up_or_fail(lab, options, &say);
    if result.is_err() {
        let folder = lab.folder();
        for name in ["agent.log", "daemon.log"] {
            let text = fs::read_to_string(folder.join(name)).unwrap_or_default();
            let last: Vec<&str> = text.lines().rev().take(5).collect();
            for line in last.iter().rev() {
                say(&format!("  {name}: {line}"));
            }
        }
        down(lab)?;
    }
    result
}

fn up_or_fail(
    lab: &Lab,
    options: &UpOptions,
    say: &dyn Fn(&str),
) -> Result<AgentStatus, CommandError> {
    prepare(lab, options)?;
    start_agent(lab)?;
    say(&format!("lab {}: network and daemon are up", lab.name));
    if !options.manifests.is_empty() {
        apply(lab, options)?;
    }
    wait_ready(lab, options)
}

fn prepare(lab: &Lab, options: &UpOptions) -> Result<(), CommandError> {
    let folder = lab.folder();
    let make = |path: PathBuf| {
        fs::create_dir_all(&path).map_err(system(format!("make {}", path.display())))
    };
    make(folder.join("bin"))?;
    for name in ["runtime", "state", "logs", "scratch"] {
        let path = folder.join(name);
        make(path.clone())?;
        let private = fs::Permissions::from_mode(0o700);
        fs::set_permissions(&path, private).map_err(system(format!("close {name}")))?;
    }
    if let Some(text) = &options.kubectl {
        let wrong = |why: String| CommandError::Refused(why);
        kubectl_version::KubectlVersion::parse(text).map_err(wrong)?;
        let path = lab.control_socket().with_file_name(kubectl_version::FILE);
        fs::write(path, text).map_err(system("write the version of kubectl"))?;
    }
    let urls = serde_json::to_vec_pretty(&options.urls).map_err(io::Error::from);
    urls.and_then(|text| fs::write(folder.join(lab_protocol::URLS_FILE), text))
        .map_err(system(format!("write {}", lab_protocol::URLS_FILE)))?;
    let weir = weir_program();
    let external_ports = match options.external_ports.is_empty() {
        true => [80, 443].map(|port| ("TCP".to_owned(), port)).to_vec(),
        false => options.external_ports.clone(),
    };
    let first = options.manifests.first().map(Path::new);
    let manifests = first.and_then(|path| match path.is_dir() {
        true => path.canonicalize().ok(),
        false => path.parent()?.canonicalize().ok(),
    });
    let file = LabFile {
        owner: owner(),
        weir: weir.clone(),
        workers: workers(),
        external_ports,
        folder: options.folder.clone().or(manifests),
        home: options.home.clone(),
        enforcement: options.enforcement,
    };
    shell::write_prepare_environment(&folder.join("bin"))?;
    let text = serde_json::to_vec_pretty(&file).map_err(io::Error::from);
    text.and_then(|text| fs::write(folder.join("lab.json"), text))
        .and_then(|()| symlink(&weir, folder.join("bin/kubectl")))
        .map_err(system(format!("write to {}", folder.display())))
}

fn start_agent(lab: &Lab) -> Result<(), CommandError> {
    let log = File::create(lab.folder().join("agent.log")).map_err(system("write agent.log"))?;
    let program = std::env::current_exe().map_err(system("find this program"))?;
    let mut agent = Command::new(program);
    agent
        .args(["__agent", &lab.name])
        .stdin(Stdio::null())
        .current_dir("/");
    // Out of the terminal's reach: Ctrl-C ends this command, not the lab.
    agent
        .stdout(Stdio::null())
        .stderr(Stdio::from(log))
        .process_group(0);
    let mut agent = agent.spawn().map_err(system("start the agent"))?;
    let deadline = Instant::now() + AGENT_START;
    loop {
        if lab.status().is_ok_and(|status| status.daemon_pid.is_some())
            && control::client::Client::connect(lab.control_socket()).is_ok()
        {
            return Ok(());
        }
        if let Ok(Some(status)) = agent.try_wait() {
            return Err(CommandError::Refused(format!(
                "the lab's agent ended: {status}"
            )));
        }
        if Instant::now() > deadline {
            let trouble = lab.status().ok().and_then(|status| status.trouble);
            let why = trouble.unwrap_or_else(|| "the daemon's socket does not answer".into());
            return Err(CommandError::Refused(format!(
                "the lab did not come up: {why}"
            )));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// `weir apply -f …` on the lab's socket: one transaction, with its own lines and errors.
fn apply(lab: &Lab, options: &UpOptions) -> Result<(), CommandError> {
    let mut command = Command::new(weir_program());
    command
        .arg("apply")
        .env("WEIR_SOCKET", lab.control_socket());
    if options.recursive {
        command.arg("-R");
    }
    for path in &options.manifests {
        command.args(["-f", path]);
    }
    if !options.progress {
        command.stdout(Stdio::null());
    }
    let status = command.status().map_err(system("run weir apply"))?;
    match status.success() {
        true => Ok(()),
        false => Err(CommandError::Refused(
            "the lab's manifests were not applied".into(),
        )),
    }
}

/// Pods that the daemon's objects ask for: those there are, and those that controllers owe.
fn wanted_pods(lab: &Lab) -> Result<usize, CommandError> {
    use control::protocol::{GetParams, GetReply};
    let refused = |error: control::client::ClientError| CommandError::Refused(error.to_string());
    let mut client = control::client::Client::connect(lab.control_socket()).map_err(refused)?;
    let mut list = |resource: &str| -> Result<Vec<serde_json::Value>, CommandError> {
        let params = GetParams {
            resource: resource.into(),
            all_namespaces: true,
            ..GetParams::default()
        };
        client
            .call::<GetReply>("get", params)
            .map(|reply| reply.items)
            .map_err(refused)
    };
    let pods = list("pods")?;
    let mut wanted = pods
        .iter()
        .filter(|pod| pod["metadata"]["ownerReferences"].is_null())
        .count();
    for resource in ["deployments", "replicationcontrollers", "statefulsets"] {
        for owner in list(resource)? {
            wanted += owner["spec"]["replicas"].as_u64().unwrap_or(1) as usize;
        }
    }
    for set in list("replicasets")? {
        if set["metadata"]["ownerReferences"].is_null() {
            wanted += set["spec"]["replicas"].as_u64().unwrap_or(1) as usize;
        }
    }
    Ok(wanted + list("daemonsets")?.len())
}

fn wait_ready(lab: &Lab, options: &UpOptions) -> Result<AgentStatus, CommandError> {
    let deadline = Instant::now() + PODS_READY;
    let mut shown = usize::MAX;
    loop {
        let status = lab.status()?;
        // Counted anew each time: the agent's own pods are made beside the manifests'.
        let wanted = wanted_pods(lab)?;
        let settled =
            |pod: &&control::lab_protocol::PodState| pod.ready || pod.phase == "Succeeded";
        let ready = status.pods.iter().filter(settled).count();
        if options.progress && wanted > 0 && ready != shown {
            eprintln!("lab {}: {ready} of {wanted} pods ready", lab.name);
            shown = ready;
        }
        if ready >= wanted && ready == status.pods.len() && status.settled {
            if options.progress {
                told::tell(&status.pods);
            }
            return Ok(status);
        }
        if Instant::now() > deadline {
            let late: Vec<String> = status
                .pods
                .iter()
                .filter(|pod| !settled(pod))
                .map(|pod| {
                    let why = pod.message.as_deref().unwrap_or("not ready");
                    format!("{}/{} ({}: {why})", pod.namespace, pod.name, pod.phase)
                })
                .collect();
            return Err(CommandError::Refused(format!(
                "{ready} of {wanted} pods are ready after {} s; missing: {}",
                PODS_READY.as_secs(),
                late.join(", ")
            )));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until the lab's pods are as its objects want them, at most for `limit`; whether they are.
pub fn wait_settled(lab: &Lab, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if let (Ok(status), Ok(wanted)) = (lab.status(), wanted_pods(lab)) {
            let over = |phase: &str| phase == "Succeeded" || phase == "Failed";
            let done = |pod: &control::lab_protocol::PodState| pod.ready || over(&pod.phase);
            if status.settled && status.pods.len() >= wanted && status.pods.iter().all(done) {
                return true;
            }
        }
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Takes a lab down, whatever is left of it. A lab that is not there is an error.
pub fn down(lab: &Lab) -> Result<(), CommandError> {
    need_root()?;
    if !lab.exists() {
        return Err(CommandError::Refused(format!(
            "no lab is called {}",
            lab.name
        )));
    }
    // An agent that answers lets the daemon remove its own things first.
    let _no_agent = lab_protocol::shutdown(&lab.agent_socket());
    let _none_unpacked = fs::remove_dir_all(lab.tutorial_folder());
    clean(lab)
}

/// Removes everything of a lab, without anybody's help.
pub fn clean(lab: &Lab) -> Result<(), CommandError> {
    if let Some(agent) = lab.agent_pid() {
        let _gone = rustix::process::kill_process(agent, Signal::KILL);
    }
    let folder = lab.folder();
    let mut names: BTreeSet<String> = topology::remembered(&folder).into_iter().collect();
    names.insert(topology::node_name(&lab.name));
    names.insert(topology::external_name(&lab.name));
    kill_inside(&names)?;
    for name in names.iter().filter(|name| Namespace::path(name).exists()) {
        match Namespace::delete(name) {
            // Somebody else takes the same lab down: what is gone is gone.
            Err(_) if !Namespace::path(name).exists() => {}
            other => other.map_err(|error| CommandError::Refused(error.to_string()))?,
        }
    }
    let pins = Path::new("/sys/fs/bpf/weir").join(format!("lab-{}", lab.name));
    if pins.exists() {
        fs::remove_dir_all(&pins).map_err(system(format!("remove {}", pins.display())))?;
    }
    unmount_below(&folder)?;
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(system(format!("remove {}", folder.display()))),
    }
}

/// Kills every process in these namespaces, and waits until none is left.
fn kill_inside(names: &BTreeSet<String>) -> Result<(), CommandError> {
    let identity = |path: &Path| {
        fs::metadata(path)
            .ok()
            .map(|found| (found.dev(), found.ino()))
    };
    let own = identity(Path::new("/proc/self/ns/net"));
    let namespaces: BTreeSet<(u64, u64)> = names
        .iter()
        .filter_map(|name| identity(&Namespace::path(name)))
        // A name without its mount is a plain file; and nobody ends the machine's own namespace.
        .filter(|found| Some(*found) != own)
        .collect();
    let deadline = Instant::now() + KILLED;
    loop {
        let mut left = 0;
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let inside = identity(&entry.path().join("ns/net"));
            if inside.is_some_and(|inside| namespaces.contains(&inside))
                && let Some(pid) = Pid::from_raw(pid)
            {
                left += 1;
                let _gone = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
        if left == 0 {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(CommandError::Refused(format!(
                "{left} processes of the lab do not end; try again"
            )));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn unmount_below(folder: &Path) -> Result<(), CommandError> {
    let table = fs::read_to_string("/proc/self/mountinfo").map_err(system("read mountinfo"))?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    let mut points: Vec<&str> = points
        .filter(|point| Path::new(point).starts_with(folder))
        .collect();
    points.reverse();
    for point in points {
        rustix::mount::unmount(point, UnmountFlags::DETACH)
            .map_err(io::Error::from)
            .map_err(system(format!("unmount {point}")))?;
    }
    Ok(())
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
