//! What `lab.sock` speaks, and its client: `exec`, `attach`, `logs` and `port-forward` on a lab's
//! pods.
//!
//! A connection carries one request: a [`Request`] as one JSON line. The agent answers with one
//! JSON line, a [`Reply`]. After [`Reply::Ready`] both sides send frames until the agent closes:
//!
//! ```text
//! 0       1               5
//! | channel | length, BE   | payload: `length` bytes, at most FRAME_BYTES |
//! ```
//!
//! The channels are [`Channel`]'s. The client sends no frame before it has the reply. When the
//! client goes away, the process it started is ended (SIGHUP, then SIGKILL).

mod client;
mod frame;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use client::{
    LabError, attach, exec, exec_captured, exec_streamed, has_terminal, logs, port_forward,
    shutdown, status,
};
pub use frame::{Channel, Frame, read_frame, write_frame};

/// Folder that holds one folder per lab: sockets, state, logs.
pub const LABS_DIR: &str = "/run/weir/labs";
/// The agent's socket in its lab's folder.
pub const AGENT_SOCKET: &str = "lab.sock";
/// Bytes of one frame's payload at most. A longer one breaks the connection.
pub const FRAME_BYTES: usize = 64 << 10;
/// Bytes of a request line at most.
pub const REQUEST_BYTES: usize = 256 << 10;

/// Folder of one lab.
pub fn lab_dir(lab: &str) -> PathBuf {
    Path::new(LABS_DIR).join(lab)
}

/// The file beside a lab's control socket that says of which addresses the lab has copies: a JSON
/// object, URL to path.
pub const URLS_FILE: &str = "urls.json";
/// Bytes of that file at most; of a longer one no address is known.
const URLS_BYTES: u64 = 256 << 10;

/// The lab's own copy of what a tutorial finds at `url`, of the lab whose daemon answers at
/// `socket`; `None` without one.
pub fn local_copy(socket: &Path, url: &str) -> Option<PathBuf> {
    let file = std::fs::File::open(socket.with_file_name(URLS_FILE)).ok()?;
    let text = std::io::Read::take(file, URLS_BYTES);
    let mut copies: std::collections::BTreeMap<String, PathBuf> =
        serde_json::from_reader(text).ok()?;
    copies.remove(url)
}

/// The agent's socket of one lab.
pub fn lab_socket(lab: &str) -> PathBuf {
    lab_dir(lab).join(AGENT_SOCKET)
}

/// The daemon's control socket of one lab.
pub fn control_socket(lab: &str) -> PathBuf {
    lab_dir(lab).join("weir.sock")
}

/// Names of the labs whose agent answers, in order.
pub fn running_labs() -> Vec<String> {
    let Ok(folder) = std::fs::read_dir(LABS_DIR) else {
        return Vec::new();
    };
    let mut names: Vec<String> = folder
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| std::os::unix::net::UnixStream::connect(lab_socket(name)).is_ok())
        .collect();
    names.sort();
    names
}

/// The lab a command means: the one named, else `WEIR_LAB`, else the only one that runs.
pub fn choose_lab(named: Option<&str>) -> Result<String, LabError> {
    if let Some(name) = named {
        return Ok(name.to_owned());
    }
    if let Some(name) = std::env::var("WEIR_LAB").ok().filter(|n| !n.is_empty()) {
        return Ok(name);
    }
    let mut running = running_labs();
    match running.len() {
        1 => Ok(running.remove(0)),
        0 => Err(LabError::NoLab),
        _ => Err(LabError::SeveralLabs(running.join(", "))),
    }
}

/// The first line of a connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Run a command in a container.
    Exec(ExecRequest),
    /// Follow a container's output, and reach its standard input where it was started with one.
    Attach(AttachRequest),
    /// A container's log.
    Logs(LogsRequest),
    /// One TCP connection to a pod's port, made inside the pod's network namespace.
    PortForward(PortForwardRequest),
    /// What the agent runs; answered by [`Reply::Status`].
    Status,
    /// Take the lab down; the agent closes the connection when it is down but for its own folder.
    Shutdown,
}

/// Terminal size in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Columns.
    pub columns: u16,
    /// Rows.
    pub rows: u16,
}

/// Names a container; without `container` the pod's first, or the one its annotation
/// `kubectl.kubernetes.io/default-container` names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerTarget {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The container's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
}

/// `exec`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// Where.
    #[serde(flatten)]
    pub target: ContainerTarget,
    /// Program and arguments; no shell is involved.
    pub command: Vec<String>,
    /// Whether the client sends standard input.
    #[serde(default)]
    pub stdin: bool,
    /// Whether the command gets a terminal: standard error then comes on standard output.
    #[serde(default)]
    pub tty: bool,
    /// The terminal's first size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<WindowSize>,
    /// `TERM` inside; by default `xterm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<String>,
}

/// `attach`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AttachRequest {
    /// Where.
    #[serde(flatten)]
    pub target: ContainerTarget,
    /// Whether the client sends standard input.
    #[serde(default)]
    pub stdin: bool,
    /// Whether the container has a terminal (`tty: true` in its spec).
    #[serde(default)]
    pub tty: bool,
    /// The terminal's first size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<WindowSize>,
}

/// `logs`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LogsRequest {
    /// Where.
    #[serde(flatten)]
    pub target: ContainerTarget,
    /// Go on as lines come, until the container ends.
    #[serde(default)]
    pub follow: bool,
    /// The container's run before this one.
    #[serde(default)]
    pub previous: bool,
    /// Only so many lines from the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<u64>,
    /// Only lines since this moment, in the form of a log's own times
    /// (`2026-01-31T23:59:59.123456789Z`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// The time (RFC 3339) before each line.
    #[serde(default)]
    pub timestamps: bool,
}

/// `port-forward`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PortForwardRequest {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// TCP port in the pod.
    pub port: u16,
}

/// The agent's first line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// Frames follow.
    Ready {
        /// The container that was chosen.
        container: String,
        /// Whether it was chosen among several, for `Defaulted container "a" out of: a, b`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        among: Vec<String>,
    },
    /// Refused.
    Error {
        /// As Kubernetes' `metav1.StatusReason`: `NotFound`, `BadRequest`, `InternalError`.
        reason: String,
        /// What was wrong.
        message: String,
    },
    /// Answer to [`Request::Status`].
    Status(AgentStatus),
}

/// State of a lab.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    /// The lab's name.
    pub lab: String,
    /// The agent's process.
    pub pid: u32,
    /// The daemon's process, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daemon_pid: Option<u32>,
    /// How often the daemon was started again.
    pub daemon_restarts: u32,
    /// The node's network namespace, as `ip netns` knows it.
    pub node_namespace: String,
    /// The external world's.
    pub external_namespace: String,
    /// Every pod.
    pub pods: Vec<PodState>,
    /// Whether nothing is under way: names and EndpointSlices are those of the pods there are.
    #[serde(default)]
    pub settled: bool,
    /// The last thing that went wrong, if it still matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// State of one pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodState {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Its network namespace, as `ip netns` knows it.
    pub network_namespace: String,
    /// `Pending`, `Running`, `Succeeded`, `Failed`.
    pub phase: String,
    /// Whether it is ready.
    pub ready: bool,
    /// Why it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What of its spec has no effect or another one here, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Containers that the built-in responder stands in for: name, image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stand_ins: Vec<(String, String)>,
}

/// Payload of [`Channel::Status`]: the last frame of an exec or attach, and the only one of a
/// port-forward that the pod refuses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExitReport {
    /// The command's exit status; 128 + N if signal N ended it; 126 or 127 if it did not start.
    pub exit_code: i32,
    /// Why it did not start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
