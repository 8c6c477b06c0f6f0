//! What the agent and a pod's init say to each other: one JSON value a datagram of a SEQPACKET
//! socket pair, file descriptors beside it.

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use control::lab_protocol::WindowSize;

/// Bytes of one message at most; ConfigMaps, at most 1 MiB each in Kubernetes, travel in files.
pub const MESSAGE_BYTES: usize = 160 << 10;

/// What the pod's root is made of.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RootSpec {
    /// Host name.
    pub hostname: String,
    /// Text of `/etc/hosts`.
    pub hosts: String,
    /// Text of `/etc/resolv.conf`.
    pub resolv_conf: String,
    /// An empty folder of the machine on which the root is put together, inside the pod's mount
    /// namespace only.
    pub scratch: String,
    /// Bytes that the pod may write.
    pub writable_bytes: u64,
    /// Volumes by name.
    pub volumes: BTreeMap<String, Volume>,
    /// The machine's file with the stand-ins' programs; empty for a pod without.
    #[serde(default)]
    pub applets: String,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Volume {
    /// An empty folder. Also what stands in for claims and host paths, which have no meaning here.
    Empty {
        /// Bytes that it takes.
        bytes: u64,
    },
    /// The node's root, for a shell on it: the machine's below and a private layer above, as a pod's
    /// own root, and in it Weir's log where the AWS agent's would lie.
    Node {
        /// The machine's file.
        log: String,
    },
    /// Files, read-only: ConfigMap, Secret, downward API. Name within the volume and content.
    Files(BTreeMap<String, String>),
}

/// A volume at a path of a container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VolumeMount {
    /// The volume's name.
    pub volume: String,
    /// Absolute path in the container.
    pub path: String,
    /// Only this file or folder of the volume.
    #[serde(default)]
    pub sub_path: String,
    /// No writing.
    #[serde(default)]
    pub read_only: bool,
}

/// A program of an image that a stand-in takes the place of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandInProgram {
    /// Absolute path.
    pub path: String,
    /// Whether the machine's program of that name, where it has one, stays.
    pub machines: bool,
}

/// A process to start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// Program and arguments. Empty: the built-in responder.
    pub command: Vec<String>,
    /// What the responder serves, if it is the responder.
    #[serde(default)]
    pub responder: Option<crate::responder::Spec>,
    /// The whole environment.
    pub environment: Vec<(String, String)>,
    /// Working directory; empty is `/`.
    pub directory: String,
    /// User; root without.
    pub user: Option<u32>,
    /// Group; as the user without.
    pub group: Option<u32>,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Capabilities left to it, by number.
    pub capabilities: Vec<u8>,
    /// Volumes in its view of the root.
    pub mounts: Vec<VolumeMount>,
    /// Programs of its image that stand-ins are in its view of the root: paths.
    #[serde(default)]
    pub programs: Vec<StandInProgram>,
    /// Join the mount namespace of this process instead of making one: exec.
    #[serde(default)]
    pub join: Option<i32>,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// Whether its standard input is open.
    pub stdin: bool,
    /// Whether the first client's end of input is its own (`stdinOnce`).
    #[serde(default)]
    pub stdin_once: bool,
    /// The terminal's first size.
    pub size: Option<WindowSize>,
}

/// From the agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ToInit {
    /// First: the root.
    Root(Box<RootSpec>),
    /// Start a container's process; beside it the log file's descriptor.
    Start {
        /// Number that answers carry.
        id: u64,
        /// What.
        process: Box<ProcessSpec>,
    },
    /// Run a command for a client; beside it the client's connection.
    Exec {
        /// The container's process, whose view of the files it shares.
        container: u64,
        /// What.
        process: Box<ProcessSpec>,
    },
    /// Join a client with a container's process; beside it the client's connection.
    Attach {
        /// The container's process.
        container: u64,
        /// The terminal's size.
        size: Option<WindowSize>,
        /// Whether the client sends input.
        stdin: bool,
    },
    /// Carry a client's connection, which comes beside it, to a TCP port.
    Forward {
        /// On the loopback address.
        port: u16,
    },
    /// Give a volume of files these ones instead.
    Files {
        /// The volume's name.
        volume: String,
        /// Name within the volume and content.
        files: BTreeMap<String, String>,
    },
    /// Send a signal to a container's process.
    Signal {
        /// Which.
        id: u64,
        /// Signal number.
        signal: i32,
    },
    /// Which of these ports nobody listens on?
    Unserved {
        /// Number that the answer carries.
        id: u64,
        /// Protocol (`TCP`, `UDP`) and port.
        ports: Vec<(String, u16)>,
    },
}

/// From a pod's init.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromInit {
    /// The root stands; containers can start.
    Ready,
    /// The root could not be made; init ends.
    Broken(String),
    /// A container's process runs.
    Started {
        /// Its number.
        id: u64,
    },
    /// A container's process could not be started.
    NotStarted {
        /// Its number.
        id: u64,
        /// 127: no such program; 126: it cannot be executed; 128: anything else.
        code: i32,
        /// Why.
        message: String,
    },
    /// A container's process has ended.
    Exited {
        /// Its number.
        id: u64,
        /// Exit status, 128 + N after signal N.
        code: i32,
    },
    /// Answer to [`ToInit::Unserved`].
    Unserved {
        /// Its number.
        id: u64,
        /// The ports that nobody listens on.
        ports: Vec<(String, u16)>,
    },
}

/// Sends one message, with at most one descriptor beside it.
pub fn send(socket: impl AsFd, message: &impl Serialize, fd: Option<&OwnedFd>) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > MESSAGE_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("environment and arguments exceed {MESSAGE_BYTES} bytes"),
        ));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    let fds = fd.map(|fd| [fd.as_fd()]);
    if let Some(fds) = &fds {
        beside.push(SendAncillaryMessage::ScmRights(fds));
    }
    let parts = [IoSlice::new(&bytes)];
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(&socket, &parts, &mut beside, SendFlags::NOSIGNAL)
    })?;
    Ok(())
}

/// Receives one message; `None` when the other side is gone.
pub fn receive<T: DeserializeOwned>(
    socket: impl AsFd,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<(T, Option<OwnedFd>)>> {
    buffer.resize(MESSAGE_BYTES + 1, 0);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut parts = [IoSliceMut::new(buffer)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        match rustix::net::recvmsg(&socket, &mut parts, &mut beside, flags) {
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            other => break other?,
        }
    };
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut fd = None;
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            fd = fds.into_iter().next();
        }
    }
    Ok(Some((
        serde_json::from_slice(&buffer[..received.bytes])?,
        fd,
    )))
}
