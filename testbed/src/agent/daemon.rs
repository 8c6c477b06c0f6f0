//! The lab's daemon: configured, started in the node's namespace, started again when it dies.

use std::fs::File;
use std::io;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use config::{Addresses, Config, Uplink};
use control::client::ClientError;
use control::protocol::{ApplyParams, Mutation};
use ipnet::IpNet;
use rustix::process::{Pid, Signal};

use super::{Agent, lock, names, node};
use crate::lab::{Lab, LabFile};
use crate::topology;

/// A daemon that lived shorter than this is started again with a pause.
const SHORT_LIFE: Duration = Duration::from_secs(2);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// After SIGTERM, how long the daemon may take to remove what it made.
const FAREWELL: Duration = Duration::from_secs(3);

/// The daemon's process.
#[derive(Default)]
pub struct Daemon {
    /// Whether the agent's mirror is in step with it.
    pub ready: AtomicBool,
    /// How often it was started again.
    pub restarts: AtomicU32,
    pid: Mutex<Option<u32>>,
}

impl Daemon {
    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        *lock(&self.pid)
    }
}

/// Connections of a lab: 9 MiB, where a node's take 140.
const CONNECTIONS: u32 = 1 << 16;

/// The configuration of a lab's daemon.
pub fn configuration(lab: &Lab, file: &LabFile) -> Config {
    let folder = lab.folder();
    let mut config = Config {
        instance: format!("lab-{}", lab.name),
        node_name: super::NODE.to_owned(),
        socket: lab.control_socket(),
        socket_group: file.owner.map(|(_, group)| group),
        runtime_dir: folder.join("runtime"),
        state_dir: folder.join("state"),
        workers: file.workers.clone(),
        uplinks: vec![Uplink {
            interface: topology::UPLINK.to_owned(),
            zero_copy: false,
            queues: None,
        }],
        pod_ranges: vec![IpNet::V4(topology::PODS_V4), IpNet::V6(topology::PODS_V6)],
        gateways: Addresses {
            v4: Some(topology::GATEWAY_V4),
            v6: Some(topology::GATEWAY_V6),
        },
        ..Config::default()
    };
    config.services.ranges = vec![
        IpNet::V4(topology::SERVICES_V4),
        IpNet::V6(topology::SERVICES_V6),
    ];
    config.host_port.addresses = vec![topology::NODE_V4.into(), topology::NODE_V6.into()];
    config.conntrack.capacity = CONNECTIONS;
    config.enforcement = file.enforcement;
    config.log.path = lab.log();
    config
}

fn start(agent: &Agent, file: &LabFile) -> io::Result<Child> {
    let folder = agent.lab.folder();
    let log = File::options()
        .create(true)
        .append(true)
        .open(folder.join("daemon.log"))?;
    let mut command = Command::new(&file.weir);
    command
        .args(["daemon", "--config"])
        .arg(folder.join("weir.toml"))
        .stdin(Stdio::null())
        .stdout(Stdio::from(log.try_clone()?))
        .stderr(Stdio::from(log));
    let node = &agent.topology.node;
    node.run(|| command.spawn()).map_err(io::Error::other)?
}

/// Keeps the daemon running until the lab goes down.
pub fn keep(agent: &Agent, file: &LabFile) {
    let mut pause = Duration::ZERO;
    while !agent.is_stopping() {
        let begun = Instant::now();
        match start(agent, file) {
            Ok(mut child) => {
                *lock(&agent.daemon.pid) = Some(child.id());
                let status = child.wait();
                *lock(&agent.daemon.pid) = None;
                if !agent.is_stopping() {
                    let how = status.map_or_else(|error| error.to_string(), |s| s.to_string());
                    agent.complain(format_args!("the daemon ended: {how}; see daemon.log"));
                }
            }
            Err(error) => agent.complain(format_args!("the daemon did not start: {error}")),
        }
        if agent.is_stopping() {
            return;
        }
        agent.daemon.restarts.fetch_add(1, Ordering::Relaxed);
        pause = if begun.elapsed() < SHORT_LIFE {
            (pause * 2).clamp(Duration::from_millis(100), LONGEST_PAUSE)
        } else {
            Duration::ZERO
        };
        std::thread::sleep(pause);
    }
}

/// First words to a daemon that was just started: the node it is, and the DNS pod with its Service.
/// A store that
/// outlived it has them already.
pub fn greet(agent: &Agent) -> Result<(), ClientError> {
    let params = ApplyParams {
        objects: vec![node::object(), names::pod_object(), names::service_object()],
        ..ApplyParams::default()
    };
    agent.call::<Mutation>("apply", params).map(|_| ())
}

/// Ends the daemon: it removes what it made, unless it takes too long.
pub fn stop(agent: &Agent) {
    let Some(pid) = agent.daemon.pid().and_then(|pid| Pid::from_raw(pid as i32)) else {
        return;
    };
    let _gone = rustix::process::kill_process(pid, Signal::TERM);
    let deadline = Instant::now() + FAREWELL;
    while agent.daemon.pid().is_some() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    if agent.daemon.pid().is_some() {
        let _gone = rustix::process::kill_process(pid, Signal::KILL);
    }
}
