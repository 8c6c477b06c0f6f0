//! A pod's thread.

mod ending;
mod inside;
mod probing;
mod setting_up;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use k8s_openapi::api::core::v1::{Container, Pod as PodObject, PodSpec};
use serde_json::Value;

use super::{Condition, ContainerState, Order, Pod, Role, log_file, status};
use crate::agent::events::{Tone, container_part};
use crate::agent::probes::Probing;
use crate::agent::spec::{self, Identity};
use crate::agent::{Agent, NODE, lock, open_log};
use crate::images;
use crate::pod::message::{FromInit, ProcessSpec, ToInit, Volume};
use crate::topology::PodNetwork;

/// Pause before a pod that could not be made is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// Pauses before a container is started again, as the kubelet's: none, then this, doubled.
const BACK_OFF: Duration = Duration::from_secs(10);
/// The longest of them.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(300);
/// How long a program may take to listen on the ports it declares before the responder does.
const LISTEN_GRACE: Duration = Duration::from_secs(1);
/// Between two looks at the ports.
const LISTEN_LOOK: Duration = Duration::from_millis(100);
/// Added to a process's number: the responder for ports that its program does not serve.
const BESIDE: u64 = 1 << 32;

struct Worker<'a> {
    agent: &'a Arc<Agent>,
    pod: &'a Arc<Pod>,
    object: &'a Value,
    spec: PodSpec,
    typed: PodObject,
    inbox: &'a Receiver<Order>,
    network: Option<PodNetwork>,
    /// The containers as they are declared, in the order of their states.
    declared: Vec<Container>,
    /// The volumes as init has them.
    mounted: BTreeMap<String, Volume>,
    next_process: u64,
    /// By container, for ports that are declared and not served yet: since when, next look.
    unserved: Vec<Option<(Instant, Instant)>>,
    /// By container, where its probes are.
    probes: Vec<Probing>,
    /// By container that a probe has found broken: when its process is killed, if it does not end
    /// before.
    ending: Vec<Option<Instant>>,
    written: Option<Value>,
}

/// Runs a pod until it has ended and everything of it is gone.
pub fn run(agent: &Arc<Agent>, pod: &Arc<Pod>, object: &Value, inbox: &Receiver<Order>) {
    let typed: PodObject = serde_json::from_value(object.clone()).unwrap_or_default();
    let mut worker = Worker {
        agent,
        pod,
        object,
        spec: typed.spec.clone().unwrap_or_default(),
        typed,
        inbox,
        network: None,
        declared: Vec::new(),
        mounted: BTreeMap::new(),
        next_process: 1,
        unserved: Vec::new(),
        probes: Vec::new(),
        ending: Vec::new(),
        written: None,
    };
    lock(&pod.state).begun = Some(SystemTime::now());
    let (namespace, name) = (&pod.namespace, &pod.name);
    let message = format!("Successfully assigned {namespace}/{name} to {NODE}");
    let about = (object, None);
    agent.events.note(
        "default-scheduler",
        about,
        Tone::Normal,
        "Scheduled",
        message,
    );
    let grace = loop {
        match worker.set_up() {
            Ok(()) => break worker.serve(),
            Err(why) => {
                let before = lock(&pod.state).message.replace(why.clone());
                if before.as_ref() != Some(&why) {
                    worker.note(None, Tone::Warning, "FailedCreatePodSandBox", why);
                }
                worker.write_status();
                worker.release_network();
                if let Some(grace) = worker.wait_for_stop(RETRY) {
                    break grace;
                }
            }
        }
    };
    worker.tear_down(grace);
}

impl Worker<'_> {
    fn wait_for_stop(&self, longest: Duration) -> Option<u64> {
        let deadline = Instant::now() + longest;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.inbox.recv_timeout(left) {
                Ok(Order::Stop { grace_s }) => return Some(grace_s),
                Ok(_) => {}
                Err(_) => return self.agent.is_stopping().then_some(0),
            }
        }
    }

    fn identity(&self) -> Identity {
        Identity {
            namespace: self.pod.namespace.clone(),
            name: self.pod.name.clone(),
            uid: self.pod.uid.clone(),
            addresses: lock(&self.pod.state).addresses.clone(),
            labels: self.typed.metadata.labels.clone().unwrap_or_default(),
            annotations: self.typed.metadata.annotations.clone().unwrap_or_default(),
        }
    }

    /// Takes a note on the pod, or on a container of it.
    fn note(&self, at: Option<usize>, tone: Tone, reason: &'static str, message: String) {
        let part = at.and_then(|at| {
            let state = lock(&self.pod.state);
            let container = state.containers.get(at)?;
            container_part(container.role.list(), &container.name)
        });
        let about = (self.object, part);
        self.agent
            .events
            .note("kubelet", about, tone, reason, message);
    }

    /// Whether the pod has the node's network and no endpoint of its own: no policy is about it.
    fn is_on_host(&self) -> bool {
        self.spec.host_network == Some(true)
    }

    /// Runs the containers until the pod is to end; the grace it then has.
    fn serve(&mut self) -> u64 {
        loop {
            self.start_due();
            self.look_at_ports();
            self.run_probes();
            self.kill_overdue();
            self.write_status();
            let pause = self.next_time().saturating_duration_since(Instant::now());
            match self.inbox.recv_timeout(pause) {
                Ok(Order::Stop { grace_s }) => return grace_s,
                Ok(Order::Heard(heard)) => self.hear(heard),
                Ok(Order::Changed(object)) => self.take_changes(&object),
                Ok(Order::Mounted) => self.take_files(),
                Ok(Order::Probed { id, kind, finding }) => self.take_finding(id, kind, &finding),
                Ok(Order::HookEnded { id }) => self.terminate(id),
                Ok(Order::InitEnded) if self.agent.is_stopping() => return 0,
                Ok(Order::InitEnded) => {
                    for container in &mut lock(&self.pod.state).containers {
                        if container.condition == Condition::Running {
                            container.condition = Condition::Ended { code: 137 };
                            container.ready = false;
                        }
                    }
                    lock(&self.pod.state).message = Some("the pod's init was killed".into());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return 0,
            }
        }
    }

    fn tell(&self, message: &ToInit, fd: Option<&OwnedFd>) {
        if let Some(sandbox) = self.pod.sandbox.get()
            && let Err(error) = sandbox.tell(message, fd)
        {
            let (namespace, name) = (&self.pod.namespace, &self.pod.name);
            self.agent
                .complain(format_args!("pod {namespace}/{name}: {error}"));
        }
    }

    /// Starts what is due: the first init container that has not succeeded, else all others.
    fn start_due(&mut self) {
        let due: Vec<usize> = {
            let state = lock(&self.pod.state);
            let done = |c: &ContainerState| c.condition == Condition::Ended { code: 0 };
            let mut all = state.containers.iter();
            let first = all.position(|c| c.role == Role::Init && !done(c));
            let waiting = |at: &usize| {
                let container = &state.containers[*at];
                let waits = matches!(
                    container.condition,
                    Condition::Waiting { .. } | Condition::Again { .. }
                );
                waits && container.process_id == 0 && container.due <= Instant::now()
            };
            match first {
                Some(at) => [at].into_iter().filter(waiting).collect(),
                None => (0..state.containers.len()).filter(waiting).collect(),
            }
        };
        for at in due {
            self.start(at, false);
        }
    }

    fn container(&self, at: usize) -> &Container {
        &self.declared[at]
    }

    fn start(&mut self, at: usize, stand_in: bool) {
        let id = self.next_process;
        self.next_process += 1;
        let identity = self.identity();
        let (name, run, process) = {
            let mut state = lock(&self.pod.state);
            let container = &mut state.containers[at];
            container.process_id = id;
            container.stand_in = stand_in || container.process.command.is_empty();
            (
                container.name.clone(),
                container.restarts,
                container.process.clone(),
            )
        };
        let declared = self.container(at);
        let process = if stand_in || process.command.is_empty() {
            let ports = spec::declared_ports(declared);
            spec::stand_in(&process, declared, &identity, ports)
        } else {
            process
        };
        let log = open_log(&log_file(self.agent, &self.pod.uid, &name, run));
        match log {
            Ok(log) => self.begin(id, process, log),
            Err(error) => self.agent.complain(format_args!("log of {name}: {error}")),
        }
    }

    fn begin(&self, id: u64, process: ProcessSpec, log: File) {
        let process = Box::new(process);
        self.tell(&ToInit::Start { id, process }, Some(&log.into()));
    }

    fn position(&self, id: u64) -> Option<usize> {
        let state = lock(&self.pod.state);
        state.containers.iter().position(|c| c.process_id == id)
    }

    fn hear(&mut self, heard: FromInit) {
        match heard {
            FromInit::Started { id } => {
                let Some(at) = self.position(id) else { return };
                self.note_start(at);
                let stand_in = {
                    let mut state = lock(&self.pod.state);
                    let container = &mut state.containers[at];
                    container.condition = Condition::Running;
                    container.started = Some(SystemTime::now());
                    container.finished = None;
                    container.stand_in
                };
                self.plan_probes(at);
                let container = self.container(at);
                let wants_ports = !stand_in && !spec::declared_ports(container).is_empty();
                let now = Instant::now();
                self.unserved[at] = wants_ports.then_some((now, now));
                self.settle_ready();
            }
            FromInit::NotStarted { id, code, message } => self.not_started(id, code, message),
            FromInit::Exited { id, code } => self.exited(id, code),
            FromInit::Unserved { id, ports } => self.ports_seen(id, &ports),
            FromInit::Ready | FromInit::Broken(_) => {}
        }
    }

    /// What a kubelet says of a container that it starts.
    fn note_start(&self, at: usize) {
        let (name, image, stand_in) = {
            let state = lock(&self.pod.state);
            let container = &state.containers[at];
            (
                container.name.clone(),
                container.image.clone(),
                container.stand_in,
            )
        };
        let known = images::find(&image);
        let pulled = match (stand_in, known) {
            (true, _) => format!("The built-in responder stands in for image \"{image}\""),
            (false, Some(known)) => {
                format!("{} stands in for image \"{image}\"", known.description)
            }
            (false, None) => {
                format!("Image \"{image}\" is not pulled: this machine's programs run")
            }
        };
        for (reason, message) in [
            ("Pulled", pulled),
            ("Created", format!("Created container: {name}")),
            ("Started", format!("Started container {name}")),
        ] {
            self.note(Some(at), Tone::Normal, reason, message);
        }
    }

    fn not_started(&mut self, id: u64, code: i32, message: String) {
        let Some(at) = self.position(id) else { return };
        // The machine does not have the program: the responder stands in for it. What somebody
        // wants to type into, or to see the end of, nothing stands in for.
        let role = lock(&self.pod.state).containers[at].role;
        let interactive = self.container(at).stdin == Some(true);
        if code == 127 && role == Role::Main && !interactive {
            self.start(at, true);
            return;
        }
        {
            let mut state = lock(&self.pod.state);
            state.message = Some(message.clone());
            state.containers[at].started = Some(SystemTime::now());
        }
        self.note(
            Some(at),
            Tone::Warning,
            "Failed",
            format!("Error: {message}"),
        );
        self.exited(id, code);
    }

    /// As the kubelet: started again by policy, later each time.
    fn exited(&mut self, id: u64, code: i32) {
        let Some(at) = self.position(id) else { return };
        let signal = ToInit::Signal {
            id: id + BESIDE,
            signal: 9,
        };
        self.tell(&signal, None);
        self.unserved[at] = None;
        self.probes[at] = Probing::default();
        let broken = self.ending[at].take().is_some();
        let policy = self.spec.restart_policy.as_deref().unwrap_or("Always");
        let mut state = lock(&self.pod.state);
        let container = &mut state.containers[at];
        let again = match policy {
            _ if container.role == Role::Ephemeral => false,
            "Never" => false,
            "OnFailure" => code != 0 || broken,
            _ => container.role == Role::Main || code != 0,
        };
        let now = SystemTime::now();
        container.ready = false;
        container.up = false;
        container.finished = Some(now);
        if !again {
            container.condition = Condition::Ended { code };
            return;
        }
        container.last = Some((code, container.started.unwrap_or(now), now));
        let pause = match container.restarts {
            0 => Duration::ZERO,
            n => (BACK_OFF * 2_u32.saturating_pow(n - 1)).min(LONGEST_BACK_OFF),
        };
        container.restarts += 1;
        container.process_id = 0;
        container.due = Instant::now() + pause;
        if pause.is_zero() {
            // Started again at once: as a kubelet shows it, ended until it runs.
            container.condition = Condition::Again { code };
            return;
        }
        let (pod, uid) = (&self.pod.name, &self.pod.uid);
        let failed = format!(
            "failed container={} pod={pod}_{}({uid})",
            container.name, self.pod.namespace
        );
        container.condition = Condition::Waiting {
            reason: "CrashLoopBackOff",
            message: format!("back-off {}s restarting {failed}", pause.as_secs()),
        };
        let message =
            format!("Back-off restarting {failed}").replacen("container=", "container ", 1);
        let message = message.replacen(" pod=", " in pod ", 1);
        drop(state);
        self.note(Some(at), Tone::Warning, "BackOff", message);
    }

    /// Asks init which declared ports nobody serves yet.
    fn look_at_ports(&mut self) {
        for at in 0..self.unserved.len() {
            let Some((since, look)) = self.unserved[at] else {
                continue;
            };
            if look > Instant::now() {
                continue;
            }
            self.unserved[at] = Some((since, Instant::now() + LISTEN_LOOK));
            let ports = spec::declared_ports(self.container(at));
            let id = lock(&self.pod.state).containers[at].process_id;
            self.tell(&ToInit::Unserved { id, ports }, None);
        }
    }

    fn ports_seen(&mut self, id: u64, ports: &[(String, u16)]) {
        let Some(at) = self.position(id) else { return };
        let Some((since, _)) = self.unserved[at] else {
            return;
        };
        if ports.is_empty() {
            self.unserved[at] = None;
        } else if since.elapsed() >= LISTEN_GRACE {
            self.unserved[at] = None;
            let identity = self.identity();
            let process = lock(&self.pod.state).containers[at].process.clone();
            let declared = self.container(at);
            let beside = spec::stand_in(&process, declared, &identity, ports.to_vec());
            let name = format!("{}.responder", declared.name);
            match open_log(&log_file(self.agent, &self.pod.uid, &name, 0)) {
                Ok(log) => self.begin(id + BESIDE, beside, log),
                Err(error) => self.agent.complain(format_args!("log of {name}: {error}")),
            }
        }
        self.settle_ready();
    }

    fn next_time(&self) -> Instant {
        let state = lock(&self.pod.state);
        let waits = |c: &&ContainerState| {
            matches!(
                c.condition,
                Condition::Waiting { .. } | Condition::Again { .. }
            ) && c.process_id == 0
        };
        let starts = state.containers.iter().filter(waits).map(|c| c.due);
        let looks = self.unserved.iter().flatten().map(|(_, look)| *look);
        let probes = self.probes.iter().filter_map(Probing::next);
        let kills = self.ending.iter().flatten().copied();
        let far = Instant::now() + Duration::from_secs(3600);
        let all = starts.chain(looks).chain(probes).chain(kills);
        let first = all.min().unwrap_or(far);
        // An init container that is not due keeps later ones waiting: do not spin on those.
        first.max(Instant::now() + Duration::from_millis(10))
    }

    fn write_status(&mut self) {
        let status = status::status(&lock(&self.pod.state));
        if self.written.as_ref() == Some(&status) {
            return;
        }
        match self.agent.write_status("pods", self.object, status.clone()) {
            Ok(()) => self.written = Some(status),
            // Written when the daemon is back: the next turn tries again.
            Err(error) => {
                let (namespace, name) = (&self.pod.namespace, &self.pod.name);
                self.agent
                    .complain(format_args!("status of {namespace}/{name}: {error}"));
            }
        }
    }
}
