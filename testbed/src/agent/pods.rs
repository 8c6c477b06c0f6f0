//! Running pods: one thread each, from the object's coming to its going.

mod status;
mod worker;

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Instant, SystemTime};

use control::lab_protocol::PodState;
use control::protocol::{EndpointAddParams, EndpointAdded};
use serde_json::Value;

use super::objects::{is_terminating, text, uid};
use super::probes::{Finding, Kind};
use super::{Agent, lock};
use crate::images;
use crate::pod::message::{FromInit, ProcessSpec};
use crate::pod::sandbox::Sandbox;

pub use status::phase_of;

/// What a pod's thread is told.
#[derive(Debug)]
pub enum Order {
    /// Init said something.
    Heard(FromInit),
    /// Init has ended by itself.
    InitEnded,
    /// The object has changed; containers may have been added to it.
    Changed(Arc<Value>),
    /// An object that the pod's volumes are made of has changed.
    Mounted,
    /// A probe has an answer.
    Probed {
        /// The process that was asked.
        id: u64,
        /// Which probe.
        kind: Kind,
        /// What it found.
        finding: Finding,
    },
    /// What a container does before its end is done.
    HookEnded {
        /// Its process.
        id: u64,
    },
    /// End it: the object is going, with so many seconds of grace, or has gone.
    Stop {
        /// Seconds.
        grace_s: u64,
    },
}

/// Where a container is.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// Not started, or to be started again.
    Waiting {
        /// As the kubelet writes it: `ContainerCreating`, `CrashLoopBackOff`, ….
        reason: &'static str,
        /// In words.
        message: String,
    },
    /// Its process runs.
    Running,
    /// Its process has ended and is about to be started again.
    Again {
        /// Exit status.
        code: i32,
    },
    /// Its process has ended.
    Ended {
        /// Exit status.
        code: i32,
    },
}

/// Which list of its pod's spec a container is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `initContainers`: one after the other, to its end.
    Init,
    /// `containers`.
    Main,
    /// `ephemeralContainers`: added while the pod runs, never started again.
    Ephemeral,
}

impl Role {
    /// The list's name.
    pub fn list(self) -> &'static str {
        match self {
            Role::Init => "initContainers",
            Role::Main => "containers",
            Role::Ephemeral => "ephemeralContainers",
        }
    }
}

/// One container.
#[derive(Clone, Debug)]
pub struct ContainerState {
    /// Name.
    pub name: String,
    /// Image.
    pub image: String,
    /// Which list it is in.
    pub role: Role,
    /// Where it is.
    pub condition: Condition,
    /// Number of its process, current or last.
    pub process_id: u64,
    /// Its process.
    pub process: ProcessSpec,
    /// How often it was started again.
    pub restarts: u32,
    /// When its process started.
    pub started: Option<SystemTime>,
    /// When its process ended.
    pub finished: Option<SystemTime>,
    /// The run before: exit status, start, end.
    pub last: Option<(i32, SystemTime, SystemTime)>,
    /// Whether the responder stands in for its program.
    pub stand_in: bool,
    /// Whether it has started up.
    pub up: bool,
    /// Whether it is ready.
    pub ready: bool,
    /// When it may be started.
    pub due: Instant,
}

/// What is known of a pod while it runs.
#[derive(Debug, Default)]
pub struct State {
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// Its network namespace's name.
    pub network: String,
    /// Whether its network is ready for containers.
    pub networked: bool,
    /// How the daemon knows its interface.
    pub endpoint: Option<EndpointAddParams>,
    /// Containers: init containers, then the others, then those that were added.
    pub containers: Vec<ContainerState>,
    /// What keeps it from running.
    pub message: Option<String>,
    /// Warnings from reading its spec.
    pub warnings: Vec<String>,
    /// When it was taken on.
    pub begun: Option<SystemTime>,
}

/// A pod that runs.
#[derive(Debug)]
pub struct Pod {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// State.
    pub state: Mutex<State>,
    /// Its init, once that runs.
    pub sandbox: OnceLock<Arc<Sandbox>>,
    orders: Mutex<Sender<Order>>,
}

impl Pod {
    /// Tells the pod's thread something; one that has ended needs no telling.
    pub fn order(&self, order: Order) {
        let _ended = lock(&self.orders).send(order);
    }

    /// Its state, for a person.
    pub fn summary(&self) -> PodState {
        let state = lock(&self.state);
        let replaced = |c: &&ContainerState| c.stand_in || images::find(&c.image).is_some();
        let stand_ins = state.containers.iter().filter(replaced);
        let mains = || state.containers.iter().filter(|c| c.role == Role::Main);
        let waiting = state.containers.iter().find_map(|c| match &c.condition {
            Condition::Waiting { reason, message } if *reason == "CrashLoopBackOff" => {
                Some(format!("{}: {reason}: {message}", c.name))
            }
            _ => None,
        });
        PodState {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            network_namespace: state.network.clone(),
            phase: phase_of(&state.containers).to_owned(),
            ready: mains().count() > 0 && mains().all(|c| c.ready),
            message: state.message.clone().or(waiting),
            warnings: state.warnings.clone(),
            stand_ins: stand_ins
                .map(|c| (c.name.clone(), c.image.clone()))
                .collect(),
        }
    }
}

/// Folder of a pod's logs: `CONTAINER-RUN.log`.
pub fn log_folder(agent: &Agent, uid: &str) -> PathBuf {
    agent
        .lab
        .folder()
        .join("logs")
        .join(uid.replace(['/', '.'], "_"))
}

/// File of a container's log.
pub fn log_file(agent: &Agent, uid: &str, container: &str, run: u32) -> PathBuf {
    log_folder(agent, uid).join(format!("{container}-{run}.log"))
}

/// Takes note of a pod object: starts it, or ends it if it is going.
pub fn seen(agent: &Arc<Agent>, object: &Arc<Value>) {
    if uid(object).is_empty() || agent.is_stopping() {
        return;
    }
    let mut pods = lock(&agent.pods);
    if is_terminating(object) {
        let seconds = object.pointer("/metadata/deletionGracePeriodSeconds");
        let grace_s = seconds.and_then(Value::as_u64).unwrap_or(30);
        match pods.get(uid(object)) {
            Some(pod) => pod.order(Order::Stop { grace_s }),
            None => {
                // Never ran here: nothing to end.
                let (agent, object) = (agent.clone(), object.clone());
                std::thread::spawn(move || {
                    if let Err(error) = agent.remove("pods", &object) {
                        agent.complain(error);
                    }
                });
            }
        }
        return;
    }
    if let Some(pod) = pods.get(uid(object)) {
        pod.order(Order::Changed(object.clone()));
        return;
    }
    let (namespace, name) = (
        text(object, "/metadata/namespace"),
        text(object, "/metadata/name"),
    );
    for other in pods.values() {
        // Went and came again while nobody watched.
        if other.namespace == namespace && other.name == name {
            other.order(Order::Stop { grace_s: 0 });
        }
    }
    let (orders, inbox) = channel();
    let pod = Arc::new(Pod {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: uid(object).to_owned(),
        state: Mutex::default(),
        sandbox: OnceLock::new(),
        orders: Mutex::new(orders),
    });
    pods.insert(pod.uid.clone(), pod.clone());
    let (agent, object) = (agent.clone(), object.clone());
    std::thread::spawn(move || worker::run(&agent, &pod, &object, &inbox));
}

/// Takes note that a ConfigMap or Secret has changed: pods of its namespace may have it mounted.
pub fn mounted(agent: &Agent, object: &Value) {
    let namespace = text(object, "/metadata/namespace");
    for pod in lock(&agent.pods).values() {
        if pod.namespace == namespace {
            pod.order(Order::Mounted);
        }
    }
}

/// Takes note that a pod object has gone.
pub fn gone(agent: &Agent, object: &Value) {
    if let Some(pod) = lock(&agent.pods).get(uid(object)) {
        pod.order(Order::Stop { grace_s: 0 });
    }
}

/// Tells a daemon that was started again of every interface.
pub fn announce_again(agent: &Agent) {
    let pods: Vec<_> = lock(&agent.pods).values().cloned().collect();
    for pod in pods {
        let endpoint = lock(&pod.state).endpoint.clone();
        if let Some(endpoint) = endpoint
            && let Err(error) = agent.call::<EndpointAdded>("endpoint.add", endpoint)
        {
            let (namespace, name) = (&pod.namespace, &pod.name);
            agent.complain(format_args!(
                "pod {namespace}/{name}: endpoint.add: {error}"
            ));
        }
    }
}

/// Forgets a pod that has ended.
fn forget(agent: &Agent, pod: &Pod) {
    lock(&agent.pods).remove(&pod.uid);
    let _none_written = fs::remove_dir_all(log_folder(agent, &pod.uid));
    agent.mirror.nudge();
}

/// Every pod's state, by namespace and name.
pub fn summaries(agent: &Agent) -> Vec<PodState> {
    let pods: Vec<_> = lock(&agent.pods).values().cloned().collect();
    let by_name: BTreeMap<_, _> = pods
        .iter()
        .map(|pod| ((pod.namespace.clone(), pod.name.clone()), pod.summary()))
        .collect();
    by_name.into_values().collect()
}
