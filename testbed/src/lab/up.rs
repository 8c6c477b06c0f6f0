//! Bringing a lab up, and waiting until it is.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use control::cli::kubectl_version;
use control::lab_protocol::{self, AgentStatus};

use super::{
    CommandError, Lab, LabFile, clean, down, need_root, owner, shell, system, told, weir_program,
};

/// How long the agent may take to answer after its start.
const AGENT_START: Duration = Duration::from_secs(15);
/// How long pods may take to be ready.
const PODS_READY: Duration = Duration::from_secs(120);

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
