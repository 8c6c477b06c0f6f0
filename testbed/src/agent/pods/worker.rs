//! A pod's thread.

use std::fs::{self, File};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use control::protocol::{EndpointAddParams, EndpointAdded, EndpointRemoveParams, Mutation};
use k8s_openapi::api::core::v1::{Container, Pod as PodObject, PodSpec};
use serde_json::{Value, json};

use super::{Condition, ContainerState, Order, Pod, log_file, log_folder, status};
use crate::agent::probes::{self, Finding};
use crate::agent::spec::{self, Identity};
use crate::agent::{Agent, NODE, lock, open_log, scratch};
use crate::pod::message::{FromInit, ProcessSpec, RootSpec, ToInit};
use crate::pod::sandbox::Sandbox;
use crate::topology::{PodNetwork, mac_text};

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
/// Queues that a pod may ask for: each costs kernel memory for every chunk of packet memory.
const QUEUES: RangeInclusive<u32> = 1..=16;
/// Bytes that a pod may write outside its volumes.
const WRITABLE_BYTES: u64 = 512 << 20;
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
    next_process: u64,
    /// By container, for ports that are declared and not served yet: since when, next look.
    unserved: Vec<Option<(Instant, Instant)>>,
    /// By container, for readiness and start-up probes.
    probes: Vec<Probing>,
    written: Option<Value>,
}

#[derive(Default)]
struct Probing {
    next: Option<Instant>,
    started: bool,
    good: u32,
    bad: u32,
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
        next_process: 1,
        unserved: Vec::new(),
        probes: Vec::new(),
        written: None,
    };
    lock(&pod.state).begun = Some(SystemTime::now());
    let grace = loop {
        match worker.set_up() {
            Ok(()) => break worker.serve(),
            Err(why) => {
                lock(&pod.state).message = Some(why);
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
        }
    }

    fn hostname(&self) -> String {
        let mut name = self
            .spec
            .hostname
            .clone()
            .unwrap_or_else(|| self.pod.name.clone());
        name.truncate(63);
        name
    }

    /// Addresses, network, endpoint, root; in this order, so that nothing of the pod runs before
    /// its policy is live.
    fn set_up(&mut self) -> Result<(), String> {
        let given = given_addresses(self.object);
        let addresses = self.agent.take_addresses(&given)?;
        lock(&self.pod.state).addresses = addresses.clone();
        self.read_containers()?;
        let queues = wanted_queues(self.object)?;
        let number = self.agent.interface_number();
        let (namespace, name) = (&self.pod.namespace, &self.pod.name);
        let network = self
            .agent
            .topology
            .add_pod(namespace, name, number, &addresses, queues);
        let network = self
            .network
            .insert(network.map_err(|error| error.to_string())?);
        lock(&self.pod.state).network = network.name.clone();
        let endpoint = EndpointAddParams {
            namespace: self.pod.namespace.clone(),
            name: self.pod.name.clone(),
            uid: self.pod.uid.clone(),
            interface: network.interface.clone(),
            mac: mac_text(network.mac),
            addresses: addresses.clone(),
        };
        let annotation = json!({"metadata": {"annotations": {"weir.dev/netns": network.name}}});
        self.write_status();
        let text = |error: control::client::ClientError| error.to_string();
        self.agent
            .merge("pods", self.object, annotation)
            .map_err(text)?;
        if self.spec.node_name.is_none() {
            let bound = json!({"spec": {"nodeName": NODE}});
            // A daemon that holds a pod's spec fixed is right to refuse; the column stays empty.
            let _refused = self.agent.merge("pods", self.object, bound);
        }
        let added = self.agent.call::<EndpointAdded>("endpoint.add", &endpoint);
        added.map_err(|error| format!("endpoint.add: {error}"))?;
        lock(&self.pod.state).endpoint = Some(endpoint);
        self.start_sandbox()?;
        lock(&self.pod.state).message = None;
        Ok(())
    }

    fn read_containers(&mut self) -> Result<(), String> {
        let identity = self.identity();
        let inits = self
            .spec
            .init_containers
            .iter()
            .flatten()
            .map(|c| (c, true));
        let mains = self.spec.containers.iter().map(|c| (c, false));
        let (mut states, mut warnings) = (Vec::new(), Vec::new());
        for (container, init) in inits.chain(mains) {
            let (process, more) =
                spec::process(&self.typed, container, &identity, &self.agent.mirror)?;
            warnings.extend(more);
            states.push(ContainerState {
                name: container.name.clone(),
                image: container.image.clone().unwrap_or_default(),
                init,
                condition: Condition::Waiting {
                    reason: "ContainerCreating",
                    message: String::new(),
                },
                process_id: 0,
                process,
                restarts: 0,
                started: None,
                finished: None,
                last: None,
                stand_in: false,
                ready: false,
                due: Instant::now(),
            });
        }
        self.unserved = vec![None; states.len()];
        self.probes = states.iter().map(|_| Probing::default()).collect();
        let mut state = lock(&self.pod.state);
        state.containers = states;
        state.warnings = warnings;
        Ok(())
    }

    fn start_sandbox(&mut self) -> Result<(), String> {
        let Some(network) = &self.network else {
            return Err("no network".into());
        };
        let identity = self.identity();
        let (volumes, warnings) = spec::volumes(&self.spec, &identity, &self.agent.mirror)?;
        lock(&self.pod.state).warnings.extend(warnings);
        let hostname = self.hostname();
        let folder = self.agent.lab.folder();
        let text = |error: std::io::Error| error.to_string();
        let root = RootSpec {
            hosts: spec::hosts(&self.spec, &identity, &hostname),
            resolv_conf: spec::resolv_conf(&self.spec, &self.pod.namespace),
            hostname,
            scratch: scratch(&folder).map_err(text)?,
            writable_bytes: WRITABLE_BYTES,
            volumes,
            applets: crate::lab::applets_program()
                .map(|path| path.display().to_string())
                .unwrap_or_default(),
        };
        let logs = log_folder(self.agent, &self.pod.uid);
        fs::create_dir_all(&logs).map_err(text)?;
        let stderr = File::create(logs.join("init")).map_err(text)?;
        let sandbox = Sandbox::start(&self.agent.program, &network.namespace, root, stderr);
        let sandbox = Arc::new(sandbox.map_err(text)?);
        let (pod, ear) = (self.pod.clone(), sandbox.clone());
        std::thread::spawn(move || {
            let mut buffer = Vec::new();
            while let Some(heard) = ear.listen(&mut buffer) {
                pod.order(Order::Heard(heard));
            }
            pod.order(Order::InitEnded);
        });
        let _only_once = self.pod.sandbox.set(sandbox);
        Ok(())
    }

    /// Runs the containers until the pod is to end; the grace it then has.
    fn serve(&mut self) -> u64 {
        loop {
            self.start_due();
            self.look_at_ports();
            self.run_probes();
            self.write_status();
            let pause = self.next_time().saturating_duration_since(Instant::now());
            match self.inbox.recv_timeout(pause) {
                Ok(Order::Stop { grace_s }) => return grace_s,
                Ok(Order::Heard(heard)) => self.hear(heard),
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
            let first = state.containers.iter().position(|c| c.init && !done(c));
            let waiting = |at: &usize| {
                let container = &state.containers[*at];
                let waits = matches!(container.condition, Condition::Waiting { .. });
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
        let inits = self.spec.init_containers.as_deref().unwrap_or_default();
        inits
            .get(at)
            .unwrap_or_else(|| &self.spec.containers[at - inits.len()])
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
                let stand_in = {
                    let mut state = lock(&self.pod.state);
                    let container = &mut state.containers[at];
                    container.condition = Condition::Running;
                    container.started = Some(SystemTime::now());
                    container.finished = None;
                    container.stand_in
                };
                self.probes[at] = Probing::default();
                let container = self.container(at);
                let wants_ports = !stand_in && !spec::declared_ports(container).is_empty();
                let now = Instant::now();
                self.unserved[at] = wants_ports.then_some((now, now));
                self.plan_probes(at);
            }
            FromInit::NotStarted { id, code, message } => self.not_started(id, code, message),
            FromInit::Exited { id, code } => self.exited(id, code),
            FromInit::Unserved { id, ports } => self.ports_seen(id, &ports),
            FromInit::Ready | FromInit::Broken(_) => {}
        }
    }

    fn not_started(&mut self, id: u64, code: i32, message: String) {
        let Some(at) = self.position(id) else { return };
        // The machine does not have the program: the responder stands in for it.
        let init = lock(&self.pod.state).containers[at].init;
        if code == 127 && !init {
            self.start(at, true);
            return;
        }
        {
            let mut state = lock(&self.pod.state);
            state.message = Some(message);
            state.containers[at].started = Some(SystemTime::now());
        }
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
        let policy = self.spec.restart_policy.as_deref().unwrap_or("Always");
        let mut state = lock(&self.pod.state);
        let container = &mut state.containers[at];
        let again = match policy {
            "Never" => false,
            "OnFailure" => code != 0,
            _ => !container.init || code != 0,
        };
        let now = SystemTime::now();
        container.ready = false;
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
        container.condition = Condition::Waiting {
            reason: "CrashLoopBackOff",
            message: format!("back-off {}s restarting failed container", pause.as_secs()),
        };
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

    fn plan_probes(&mut self, at: usize) {
        let container = self.container(at);
        let probe = container
            .startup_probe
            .as_ref()
            .or(container.readiness_probe.as_ref());
        let started = container.startup_probe.is_none();
        let next = probe.map(|probe| {
            let delay = probe.initial_delay_seconds.unwrap_or(0).max(0) as u64;
            Instant::now() + Duration::from_secs(delay)
        });
        self.probes[at].next = next;
        self.probes[at].started = started;
        self.settle_ready();
    }

    fn run_probes(&mut self) {
        for at in 0..self.probes.len() {
            if self.probes[at]
                .next
                .is_none_or(|next| next > Instant::now())
            {
                continue;
            }
            let container = self.container(at);
            let starting = !self.probes[at].started;
            let chosen = match starting {
                true => container.startup_probe.clone(),
                false => container.readiness_probe.clone(),
            };
            let address = lock(&self.pod.state).addresses.first().copied();
            let (Some(probe), Some(address)) = (chosen, address) else {
                self.probes[at].next = None;
                continue;
            };
            let container = container.clone();
            let node = &self.agent.topology.node;
            let finding = probes::run(&probe, &container, address, node);
            self.judge_probe(at, &probe, finding);
        }
        self.settle_ready();
    }

    fn judge_probe(
        &mut self,
        at: usize,
        probe: &k8s_openapi::api::core::v1::Probe,
        finding: Finding,
    ) {
        let readiness = self.container(at).readiness_probe.is_some();
        let probing = &mut self.probes[at];
        match finding {
            Finding::Good | Finding::Unknown => (probing.good, probing.bad) = (probing.good + 1, 0),
            Finding::Bad(_) => (probing.good, probing.bad) = (0, probing.bad + 1),
        }
        // A program that comes up should not have to wait a whole period for being found so.
        let soon = Duration::from_millis(200);
        let period = probes::period(probe);
        let pause = if probing.good == 0 && probing.bad < 25 {
            soon
        } else {
            period
        };
        probing.next = Some(Instant::now() + pause.min(period));
        if !probing.started && probing.good > 0 {
            probing.started = true;
            probing.good = 0;
            probing.next = readiness.then(Instant::now);
        }
    }

    /// Ready: runs, has started up, serves what it declares, and its readiness probe succeeds.
    fn settle_ready(&mut self) {
        let mut state = lock(&self.pod.state);
        let inits = self.spec.init_containers.as_ref().map_or(0, Vec::len);
        for (at, container) in state.containers.iter_mut().enumerate() {
            let declared = match at < inits {
                true => continue,
                false => &self.spec.containers[at - inits],
            };
            let probing = &self.probes[at];
            let probed = match &declared.readiness_probe {
                None => true,
                Some(probe) => {
                    let good = probe.success_threshold.unwrap_or(1).max(1) as u32;
                    let bad = probe.failure_threshold.unwrap_or(3).max(1) as u32;
                    probing.good >= good || (container.ready && probing.bad < bad)
                }
            };
            let runs = container.condition == Condition::Running;
            container.ready = runs && probing.started && probed && self.unserved[at].is_none();
        }
    }

    fn next_time(&self) -> Instant {
        let state = lock(&self.pod.state);
        let waits = |c: &&ContainerState| {
            matches!(c.condition, Condition::Waiting { .. }) && c.process_id == 0
        };
        let starts = state.containers.iter().filter(waits).map(|c| c.due);
        let looks = self.unserved.iter().flatten().map(|(_, look)| *look);
        let probes = self.probes.iter().filter_map(|probing| probing.next);
        let far = Instant::now() + Duration::from_secs(3600);
        let first = starts.chain(looks).chain(probes).min().unwrap_or(far);
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

    /// Ends the containers, then removes whatever the pod had.
    fn tear_down(mut self, grace_s: u64) {
        let own = self.spec.termination_grace_period_seconds;
        let own = own.and_then(|s| u64::try_from(s).ok()).unwrap_or(30);
        self.end_containers(Duration::from_secs(grace_s.min(own)));
        if let Some(sandbox) = self.pod.sandbox.get() {
            sandbox.end();
        }
        self.release_network();
        let status = status::status(&lock(&self.pod.state));
        let ended = ["Succeeded", "Failed"].contains(&status["phase"].as_str().unwrap_or(""));
        if ended {
            self.write_status();
        }
        if let Err(error) = self.agent.remove("pods", self.object)
            && !self.agent.is_stopping()
        {
            self.agent
                .complain(format_args!("pod {}: {error}", self.pod.name));
        }
        super::forget(self.agent, self.pod);
    }

    fn end_containers(&mut self, grace: Duration) {
        let running = |pod: &Pod| -> Vec<u64> {
            let state = lock(&pod.state);
            let running = state
                .containers
                .iter()
                .filter(|c| c.condition == Condition::Running);
            running.map(|c| c.process_id).collect()
        };
        for id in running(self.pod) {
            self.tell(&ToInit::Signal { id, signal: 15 }, None);
        }
        self.spec.restart_policy = Some("Never".into());
        let deadline = Instant::now() + grace;
        while !running(self.pod).is_empty() && !self.agent.is_stopping() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            match self
                .inbox
                .recv_timeout(left.min(Duration::from_millis(200)))
            {
                Ok(Order::Heard(FromInit::Exited { id, code })) => self.exited(id, code),
                Ok(Order::InitEnded) => return,
                Ok(Order::Stop { grace_s: 0 }) => return,
                _ => {}
            }
        }
    }

    fn release_network(&mut self) {
        let (endpoint, addresses) = {
            let mut state = lock(&self.pod.state);
            (state.endpoint.take(), std::mem::take(&mut state.addresses))
        };
        if endpoint.is_some() && !self.agent.is_stopping() {
            let uid = self.pod.uid.clone();
            let removed = self
                .agent
                .call::<Mutation>("endpoint.remove", EndpointRemoveParams { uid });
            // Unknown to a daemon that was just started; then there is nothing to remove.
            let _unknown = removed;
        }
        if let Some(network) = self.network.take() {
            self.agent.topology.remove_pod(&network);
        }
        self.agent.free_addresses(&addresses);
    }
}

/// Queues of the pod's interface each way: what its annotation `weir.dev/queues` asks for, else one.
fn wanted_queues(object: &Value) -> Result<u32, String> {
    let annotations = object.pointer("/metadata/annotations");
    let Some(text) = annotations.and_then(|all| all["weir.dev/queues"].as_str()) else {
        return Ok(1);
    };
    let queues = text.parse().ok().filter(|count| QUEUES.contains(count));
    queues.ok_or_else(|| {
        let (first, last) = QUEUES.into_inner();
        format!("annotation weir.dev/queues is {text:?}: a pod has {first} to {last} queues")
    })
}

/// Addresses that the pod's manifest gives, in its status.
fn given_addresses(object: &Value) -> Vec<IpAddr> {
    let listed = object.pointer("/status/podIPs").and_then(Value::as_array);
    let many = listed
        .into_iter()
        .flatten()
        .filter_map(|entry| entry["ip"].as_str());
    let mut found: Vec<IpAddr> = many.filter_map(|text| text.parse().ok()).collect();
    let one = object.pointer("/status/podIP").and_then(Value::as_str);
    if found.is_empty() {
        found.extend(one.and_then(|text| text.parse::<IpAddr>().ok()));
    }
    // One per family.
    let mut families = Vec::new();
    found.retain(|address| {
        let new = !families.contains(&address.is_ipv4());
        families.push(address.is_ipv4());
        new
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_has_one_queue_unless_it_asks_for_more() {
        let pod = |queues: &str| json!({"metadata": {"annotations": {"weir.dev/queues": queues}}});
        assert_eq!(wanted_queues(&json!({"metadata": {}})), Ok(1));
        assert_eq!(wanted_queues(&pod("4")), Ok(4));
        for wrong in ["0", "17", "many", ""] {
            assert!(wanted_queues(&pod(wrong)).is_err(), "{wrong}");
        }
    }
}
