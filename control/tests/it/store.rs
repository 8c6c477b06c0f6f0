//! The daemon's own logic over a dataplane that only remembers: transactions, watches, the journal.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::Config;
use control::daemon::calls::Serving;
use control::daemon::network::{Facts, Interface, Queues};
use control::daemon::plane::{Connection, Frames, Outside, Plane, PlaneError, WorkerState};
use control::daemon::server::{ClientId, Service};
use control::daemon::state::Daemon;
use control::denial_log::{self, DenialLog};
use control::journal::Journal;
use control::netlink::{Channels, Link};
use control::protocol::{ErrorObject, Reason};
use dataplane::conntrack::{AtomicU64, Table};
use dataplane::counters::{RuleHits, Totals};
use dataplane::engine::{Acknowledged, EngineError};
use dataplane::events::{Event, EventKind};
use dataplane::snapshot::{EndpointSlot, Generation, Incarnation, PortId, Role};
use dataplane::tap::Tap;
use dataplane::xsk::{Audit, Statistics};
use dataplane::{Address, CounterId, Direction, FlowKey, Mac, Protocol, Snapshot, Time, Verdict};
use ipnet::IpNet;
use serde_json::{Value, json};

/// What the fake remembers, and how it behaves.
#[derive(Debug, Default)]
pub struct Memory {
    pub snapshot: Option<Arc<Snapshot>>,
    ports: BTreeSet<u16>,
    /// Ports there can be.
    room: u16,
    gone: Vec<u32>,
    links: Vec<Link>,
    channels: Vec<Channels>,
    /// Queues by port, since they have changed.
    queues: BTreeMap<u16, u16>,
    forgotten: Vec<u32>,
    resolved: Vec<Address>,
    pub events: Vec<Event>,
    /// By counter.
    pub rule_hits: Vec<RuleHits>,
    uplinks: Vec<String>,
    /// What the connection table knows.
    last_incarnation: u32,
    pub workers: Vec<WorkerState>,
    /// An address of the node besides its own.
    node_address: Option<Address>,
    pub conntrack: Option<Connections>,
    /// While somebody captures.
    pub tap: Option<Arc<Tap>>,
}

/// When the fake's connections were made, and when they are looked at.
pub const CONNTRACK_NOW: Time = Time(1_000_000_000_000);

/// A connection table without packets.
pub struct Connections(pub Table<Box<[AtomicU64]>>);

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Connections").finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
pub struct Fake(Rc<RefCell<Memory>>);

impl Plane for Fake {
    fn set_up(&mut self, _config: &Config) -> Result<Vec<Interface>, PlaneError> {
        let mut made = vec![interface("weir-node-x", Role::HostNode)];
        let memory = self.0.borrow();
        let uplinks = memory.uplinks.iter();
        made.extend(uplinks.map(|name| interface(name, Role::Uplink)));
        Ok(made)
    }

    fn uplink(&mut self, uplink: &config::Uplink) -> Result<Interface, PlaneError> {
        Ok(interface(&uplink.interface, Role::Uplink))
    }

    fn pod_interface(&mut self, name: &str) -> Result<Interface, PlaneError> {
        Ok(interface(name, Role::Pod))
    }

    fn add_queues(&mut self, port: PortId, queues: u16) -> Result<(), PlaneError> {
        self.0.borrow_mut().queues.insert(port.0, queues);
        Ok(())
    }

    fn add_port(
        &mut self,
        interface: &Interface,
        number: Option<PortId>,
    ) -> Result<PortId, PlaneError> {
        let mut memory = self.0.borrow_mut();
        let number = match interface.role {
            Role::HostNode => Some(PortId::HOST_NODE),
            _ => number,
        };
        let numbers = PortId::FIRST_FREE.0..memory.room;
        let free = { numbers }.find(|port| !memory.ports.contains(port));
        let wanted = number
            .map(|port| port.0)
            .filter(|port| !memory.ports.contains(port));
        let port = wanted.or(free).ok_or(EngineError::NoPort(memory.room))?;
        memory.ports.insert(port);
        Ok(PortId(port))
    }

    fn remove_port(&mut self, port: PortId) -> Result<(), PlaneError> {
        let mut memory = self.0.borrow_mut();
        let snapshot = memory.snapshot.clone().unwrap_or_default();
        if snapshot.port(port).is_some() {
            let generation = snapshot.generation();
            return Err(EngineError::PortInUse { port, generation }.into());
        }
        assert!(memory.ports.remove(&port.0));
        Ok(())
    }

    fn set_local_prefixes(&mut self, _prefixes: &[IpNet]) -> Result<(), PlaneError> {
        Ok(())
    }

    fn publish(&mut self, snapshot: Snapshot) -> Result<Acknowledged, EngineError> {
        let mut memory = self.0.borrow_mut();
        let generation = snapshot.generation();
        let newest = memory
            .snapshot
            .as_ref()
            .map(|s| s.generation())
            .unwrap_or_default();
        assert!(generation > newest, "generations rise");
        memory.snapshot = Some(Arc::new(snapshot));
        Ok(Acknowledged {
            generation,
            workers: 2,
            elapsed: Duration::from_micros(83),
        })
    }

    fn live(&self, _generation: Generation) -> (usize, usize) {
        (2, 2)
    }

    fn workers(&self) -> Vec<WorkerState> {
        self.0.borrow().workers.clone()
    }

    fn owners(&self, _port: PortId) -> Vec<usize> {
        Vec::new()
    }

    fn port_statistics(&self, port: PortId) -> Option<Statistics> {
        Some(Statistics {
            rx_ring_full: u64::from(port.0),
            ..Statistics::default()
        })
    }

    fn fragments(&self) -> dataplane::fragments::Counts {
        dataplane::fragments::Counts::default()
    }

    fn conntrack(&self) -> dataplane::conntrack::Counters {
        let memory = self.0.borrow();
        let table = memory.conntrack.as_ref();
        table.map(|table| table.0.counters()).unwrap_or_default()
    }

    fn list_connections(&self, limit: usize) -> Vec<Connection> {
        let slots = 0..self.connection_slots();
        self.connections_in(slots).into_iter().take(limit).collect()
    }

    fn connection_slots(&self) -> u32 {
        let memory = self.0.borrow();
        let table = memory.conntrack.as_ref();
        table.map_or(0, |table| table.0.high_water())
    }

    fn connections_in(&self, slots: Range<u32>) -> Vec<Connection> {
        let memory = self.0.borrow();
        let table = memory.conntrack.iter();
        let entries = table.flat_map(|table| table.0.entries_in(slots.clone(), CONNTRACK_NOW));
        let idle = Duration::from_secs(1);
        entries.map(|entry| Connection { entry, idle }).collect()
    }

    fn remove_connection(&mut self, connection: &Connection) -> bool {
        let memory = self.0.borrow();
        let table = memory.conntrack.as_ref();
        table.is_some_and(|table| table.0.remove(&connection.entry))
    }

    fn last_incarnation(&self) -> Incarnation {
        Incarnation(self.0.borrow().last_incarnation)
    }

    fn sweep(&mut self) -> Result<(), PlaneError> {
        Ok(())
    }

    fn audit(&mut self) -> Result<Audit, PlaneError> {
        Ok(Audit::default())
    }

    fn events_lost(&self) -> u64 {
        0
    }

    fn samples_lost(&self) -> u64 {
        0
    }

    fn rule_hits(&self, first: CounterId, hits: &mut [RuleHits]) {
        let known = &self.0.borrow().rule_hits;
        for (at, hit) in (first.0 as usize..).zip(hits) {
            *hit = known.get(at).copied().unwrap_or_default();
        }
    }

    fn hits_of(&self, counter: CounterId) -> RuleHits {
        let known = &self.0.borrow().rule_hits;
        known.get(counter.0 as usize).copied().unwrap_or_default()
    }

    fn forget_endpoint(&mut self, incarnation: Incarnation) {
        self.0.borrow_mut().forgotten.push(incarnation.0);
    }

    fn connections_of(&self, incarnation: Incarnation) -> u32 {
        let memory = self.0.borrow();
        let table = memory.conntrack.as_ref();
        table.map_or(0, |table| table.0.charged(incarnation))
    }

    fn frames(&self) -> Frames {
        Frames { free: 3, all: 4 }
    }

    fn counters(&self) -> Totals {
        Totals::of([])
    }

    fn take_events(&mut self, _limit: usize) -> Vec<Event> {
        std::mem::take(&mut self.0.borrow_mut().events)
    }

    fn new_tap(&self) -> Arc<Tap> {
        Tap::new(1, self.0.borrow().room, 1 << 16)
    }

    fn record(&mut self, tap: Option<&Arc<Tap>>) -> Result<(), PlaneError> {
        self.0.borrow_mut().tap = tap.cloned();
        Ok(())
    }

    fn facts(&mut self) -> Result<Facts, PlaneError> {
        let own: std::net::IpAddr = "192.0.2.1".parse().unwrap();
        let more = self.0.borrow().node_address;
        Ok(Facts {
            node_addresses: more.into_iter().chain([own.into()]).collect(),
            ..Facts::default()
        })
    }

    fn outside(&mut self) -> Outside {
        let mut memory = self.0.borrow_mut();
        Outside {
            gone: std::mem::take(&mut memory.gone),
            links: std::mem::take(&mut memory.links),
            channels: std::mem::take(&mut memory.channels),
            facts: true,
        }
    }

    fn resolve(&mut self, _port: PortId, address: Address) {
        self.0.borrow_mut().resolved.push(address);
    }

    fn maintain(&mut self) {}
}

fn interface(name: &str, role: Role) -> Interface {
    Interface {
        index: name.bytes().map(u32::from).sum(),
        name: name.to_owned(),
        mac: Mac([2, 0, 0, 0, 0, 1]),
        mtu: 1500,
        queues: Queues::ONE,
        role,
        peer_mac: None,
        zero_copy: false,
        is_virtual: true,
    }
}

pub struct Scene {
    pub folder: PathBuf,
    pub memory: Rc<RefCell<Memory>>,
    pub daemon: Option<Daemon<Fake>>,
}

pub const ME: ClientId = ClientId(64);

impl Scene {
    pub fn new(name: &str) -> Scene {
        let folder = std::env::temp_dir().join(format!("weir-store-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        let mut scene = Scene {
            folder,
            memory: Rc::default(),
            daemon: None,
        };
        scene.start();
        scene
    }

    /// As after a crash: nothing of the daemon before is left but its files.
    pub fn start(&mut self) {
        self.start_over(Memory::default());
    }

    /// The same over another dataplane.
    fn start_over(&mut self, memory: Memory) {
        self.daemon = None;
        self.memory = Rc::new(RefCell::new(Memory { room: 5, ..memory }));
        let config = Config {
            runtime_dir: self.folder.join("run"),
            state_dir: self.folder.join("state"),
            ..Config::default()
        };
        let settings = denial_log::Settings {
            path: self.folder.join("network-policy.log"),
            format: config.log.format,
            file_bytes: config.log.file_bytes,
            files: 1,
            aggregation_s: 10,
            node: "n1".into(),
        };
        let log = DenialLog::open(settings, Instant::now()).unwrap();
        let (journal, records) = Journal::open(&config.state_dir).unwrap();
        let plane = Fake(self.memory.clone());
        self.daemon = Some(Daemon::start(config, plane, journal, records, log).unwrap());
    }

    pub fn call(&mut self, method: &str, params: Value) -> Result<Value, ErrorObject> {
        let daemon = self.daemon.as_mut().unwrap();
        let text = daemon.call(ME, method, params, Instant::now())?;
        Ok(serde_json::from_str(&text).unwrap())
    }

    pub fn must(&mut self, method: &str, params: Value) -> Value {
        self.call(method, params)
            .unwrap_or_else(|error| panic!("{method}: {}", error.message))
    }

    pub fn reason(&mut self, method: &str, params: Value) -> Reason {
        let error = self.call(method, params.clone());
        let error = error.expect_err(&format!("{method} {params}"));
        error.data.unwrap().reason
    }

    pub fn names(&mut self, resource: &str) -> Vec<String> {
        let found = self.must("get", json!({"resource": resource, "allNamespaces": true}));
        let items = found["items"].as_array().unwrap();
        items
            .iter()
            .map(|item| item["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    }

    pub fn generation(&self) -> u64 {
        self.snapshot().generation().0
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.memory.borrow().snapshot.clone().unwrap()
    }

    pub fn add(&mut self, name: &str, uid: &str, address: &str) -> Result<Value, ErrorObject> {
        let params = json!({
            "namespace": "default", "name": name, "uid": uid, "interface": format!("wp-{name}"),
            "mac": "02:00:00:00:00:09", "addresses": [address],
        });
        self.call("endpoint.add", params)
    }

    /// What the control thread does now and then; whether the daemon goes on.
    pub fn tick(&mut self) -> bool {
        let (signals, _quiet) = UnixStream::pair().unwrap();
        signals.set_nonblocking(true).unwrap();
        let mut serving = Serving {
            daemon: self.daemon.as_mut().unwrap(),
            signals: &signals,
            stopped: false,
            dead_worker: None,
        };
        serving.tick(None, 1);
        !serving.is_stopped()
    }

    /// Whether the published table lets any TCP into the endpoint with that address.
    fn is_open(&self, address: &str) -> bool {
        let snapshot = self.snapshot();
        let address: std::net::IpAddr = address.parse().unwrap();
        let slot: EndpointSlot = snapshot.endpoint_at(address.into()).unwrap().slot;
        let peer = snapshot.policy().peer(Address::v4(0x0808_0808));
        let policy = snapshot.policy();
        policy
            .decide(slot, Direction::Ingress, &peer, Protocol::TCP, Some(80))
            .verdict
            .accept
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

pub fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}
    })
}

pub fn deny(name: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}
    })
}

#[test]
fn one_bad_object_and_nothing_changes() {
    let mut scene = Scene::new("transaction");
    let before = scene.generation();
    let mut broken = deny("b");
    broken["spec"]["policyTypes"] = json!(["Sideways"]);
    for (last, reason) in [
        (broken, Reason::Invalid),
        (
            json!({"apiVersion": "v1", "kind": "Nonsense", "metadata": {"name": "x"}}),
            Reason::NotFound,
        ),
        (
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "void"}}),
            Reason::NotFound,
        ),
        (json!({"kind": 5}), Reason::BadRequest),
        (json!("text"), Reason::BadRequest),
    ] {
        let params = json!({"objects": [pod("a"), deny("a"), last]});
        assert_eq!(scene.reason("apply", params.clone()), reason, "{params}");
    }
    assert_eq!(scene.names("pods"), [""; 0]);
    assert_eq!(scene.names("netpol"), [""; 0]);
    assert_eq!(scene.generation(), before);
    scene.start();
    assert_eq!(scene.names("pods"), [""; 0]);
}

#[test]
fn dry_runs_and_wrong_generations_change_nothing() {
    let mut scene = Scene::new("dry");
    let before = scene.generation();
    let answer = scene.must("apply", json!({"objects": [pod("a")], "dryRun": true}));
    assert_eq!(answer["results"][0]["operation"], "created");
    assert_eq!(scene.names("pods"), [""; 0]);
    let params = json!({"objects": [pod("a")], "expectedGeneration": before + 1});
    assert_eq!(scene.reason("apply", params), Reason::Conflict);
    assert_eq!(scene.generation(), before);
    scene.must(
        "apply",
        json!({"objects": [pod("a")], "expectedGeneration": before}),
    );
    let params = json!({"objects": [pod("b")], "expectedGeneration": before});
    assert_eq!(scene.reason("apply", params), Reason::Conflict);
    let answer = scene.must("apply", json!({"objects": [pod("a")]}));
    assert_eq!(answer["results"][0]["operation"], "unchanged");
    assert_eq!(scene.names("pods"), ["a"]);
}

#[test]
fn params_that_are_none_are_refused() {
    let mut scene = Scene::new("params");
    for (method, params) in [
        ("apply", json!({})),
        ("apply", json!({"objects": [], "unknown": 1})),
        ("apply", json!([])),
        ("get", json!({"resource": 7})),
        ("endpoint.add", json!({"uid": "x"})),
        ("unwatch", json!({"subscription": 99})),
    ] {
        let error = scene.call(method, params.clone()).unwrap_err();
        assert_eq!(error.code, -32602, "{method} {params}: {}", error.message);
    }
    assert_eq!(scene.call("nonsense", json!({})).unwrap_err().code, -32601);
}

#[test]
fn objects_policies_and_endpoints_outlive_a_crash() {
    let mut scene = Scene::new("crash");
    scene.must(
        "apply",
        json!({"objects": [pod("a"), pod("b"), pod("c"), deny("d")]}),
    );
    let uid = |scene: &mut Scene, name: &str| {
        let found = scene.must("get", json!({"resource": "po", "name": name}));
        found["items"][0]["metadata"]["uid"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let (a, b) = (uid(&mut scene, "a"), uid(&mut scene, "b"));
    scene.add("b", &b, "10.0.0.3").unwrap();
    scene.add("a", &a, "10.0.0.2").unwrap();
    scene.must(
        "delete",
        json!({"targets": [{"resource": "pod", "name": "c"}]}),
    );
    assert!(!scene.is_open("10.0.0.2"));
    let before = scene.snapshot();
    let kept = |snapshot: &Snapshot| -> BTreeSet<(String, u32, u16)> {
        let ends = snapshot.endpoints();
        ends.map(|end| (end.addresses[0].to_string(), end.incarnation.0, end.port.0))
            .collect()
    };

    scene.start();
    assert_eq!(scene.names("pods"), ["a", "b"]);
    assert_eq!(scene.names("netpol"), ["d"]);
    assert!(scene.generation() > before.generation().0);
    assert_eq!(kept(&scene.snapshot()), kept(&before));
    assert!(!scene.is_open("10.0.0.2"));

    scene.must("endpoint.remove", json!({"uid": a}));
    scene.must(
        "delete",
        json!({"targets": [{"resource": "netpol", "name": "d"}]}),
    );
    let again = scene.add("a", &a, "10.0.0.2").unwrap();
    assert_eq!(again["incarnation"], 3, "an identity is never used again");
    assert!(scene.is_open("10.0.0.2"));
}

#[test]
fn an_epoch_moves_only_with_the_endpoints_own_policy() {
    let mut scene = Scene::new("epoch");
    let mut only_a = deny("only-a");
    only_a["spec"]["podSelector"] = json!({"matchLabels": {"app": "a"}});
    let applied = scene.must("apply", json!({"objects": [pod("a"), pod("b")]}));
    for (index, address) in ["10.0.0.2", "10.0.0.3"].iter().enumerate() {
        let result = &applied["results"][index];
        let (name, uid) = (
            result["name"].as_str().unwrap(),
            result["uid"].as_str().unwrap(),
        );
        scene.add(name, uid, address).unwrap();
    }
    let epochs = |scene: &Scene| -> Vec<u32> {
        let snapshot = scene.snapshot();
        [2, 3]
            .map(|last| {
                let endpoint = snapshot.endpoint_at(Address::v4(0x0a00_0000 + last));
                snapshot.epoch(endpoint.unwrap().slot).0
            })
            .to_vec()
    };
    let before = epochs(&scene);
    scene.must("apply", json!({"objects": [only_a]}));
    let after = epochs(&scene);
    assert_eq!(after, [scene.generation() as u32, before[1]]);
}

#[test]
fn endpoints_that_cannot_be_are_refused_and_leave_nothing() {
    let mut scene = Scene::new("endpoints");
    let ports = |scene: &Scene| scene.memory.borrow().ports.len();
    let before = ports(&scene);
    scene.add("a", "u1", "10.0.0.2").unwrap();
    assert!(
        !scene.is_open("10.0.0.2"),
        "nobody knows what a pod without an object may do"
    );
    let warned = scene.add("a", "u1", "10.0.0.2").unwrap();
    assert_eq!(
        warned["warnings"].as_array().unwrap().len(),
        1,
        "the same again is no error"
    );
    for (name, uid, address, expected) in [
        ("a", "u1", "10.0.0.9", Reason::AlreadyExists),
        ("b", "u2", "10.0.0.2", Reason::Conflict),
        ("a", "u2", "10.0.0.9", Reason::Conflict),
        ("b", "u2", "192.0.2.1", Reason::Conflict),
        ("b", "u2", "169.254.1.1", Reason::Conflict),
        ("b", "u2", "127.0.0.1", Reason::BadRequest),
        ("b", "u2", "224.0.0.1", Reason::BadRequest),
        ("b", "u2", "::ffff:10.0.0.9", Reason::BadRequest),
        ("b", "", "10.0.0.9", Reason::BadRequest),
    ] {
        let error = scene.add(name, uid, address).unwrap_err();
        assert_eq!(
            error.data.unwrap().reason,
            expected,
            "{name} {uid} {address}"
        );
        assert_eq!(ports(&scene), before + 1, "{address} leaves a port behind");
    }
    scene.add("b", "u2", "10.0.0.3").unwrap();
    scene.add("c", "u3", "10.0.0.4").unwrap();
    let full = scene.add("d", "u4", "10.0.0.5").unwrap_err();
    assert!(
        full.message.contains("all 5 ports are in use"),
        "{}",
        full.message
    );
    assert_eq!(
        scene.reason("endpoint.remove", json!({"uid": "u4"})),
        Reason::NotFound
    );
    scene.must("endpoint.remove", json!({"uid": "u1"}));
    assert_eq!(scene.memory.borrow().forgotten.last(), Some(&1));
    scene.add("d", "u4", "10.0.0.5").unwrap();
}

#[test]
fn a_watch_tells_what_is_there_and_then_what_happens() {
    let mut scene = Scene::new("watch");
    scene.must("apply", json!({"objects": [pod("a"), deny("d")]}));
    let watch = scene.must(
        "watch",
        json!({"resources": ["pods"], "namespace": "default"}),
    );
    scene.must("apply", json!({"objects": [pod("b"), deny("e")]}));
    let mut labelled = pod("a");
    labelled["metadata"]["labels"]["app"] = json!("z");
    scene.must("apply", json!({"objects": [labelled]}));
    scene.must(
        "delete",
        json!({"targets": [{"resource": "po", "name": "b"}]}),
    );
    let lines = |scene: &mut Scene| -> Vec<String> {
        let lines = scene.daemon.as_mut().unwrap().take_lines();
        let parse = |line: &[u8]| serde_json::from_slice::<Value>(line).unwrap();
        lines
            .iter()
            .map(|outgoing| {
                assert_eq!(outgoing.client, ME);
                let params = &parse(&outgoing.line)["params"];
                let name = params["object"]["metadata"]["name"].as_str().unwrap_or("-");
                format!("{} {name}", params["type"].as_str().unwrap())
            })
            .collect()
    };
    let expected = ["ADDED a", "SYNCED -", "ADDED b", "MODIFIED a", "DELETED b"];
    assert_eq!(lines(&mut scene), expected);
    scene.must("unwatch", watch);
    scene.must("apply", json!({"objects": [pod("c")]}));
    assert_eq!(lines(&mut scene), [""; 0]);
    for _ in 0..config::limits::WATCHES_PER_CLIENT {
        scene.must("watch", json!({"resources": ["svc"]}));
    }
    let params = json!({"resources": ["svc"]});
    assert_eq!(scene.reason("watch", params), Reason::TooManyRequests);
}

#[test]
fn selectors_pick() {
    let mut scene = Scene::new("selectors");
    scene.must("apply", json!({"objects": [pod("a"), pod("b")]}));
    for (params, expected) in [
        (json!({"labelSelector": "app=a"}), vec!["a"]),
        (json!({"labelSelector": "app!=a"}), vec!["b"]),
        (json!({"labelSelector": "app in (a,b)"}), vec!["a", "b"]),
        (json!({"fieldSelector": "metadata.name=b"}), vec!["b"]),
        (
            json!({"fieldSelector": "metadata.name!=b,metadata.namespace==default"}),
            vec!["a"],
        ),
        (json!({"namespace": "kube-system"}), vec![]),
    ] {
        let mut whole = json!({"resource": "pods"});
        whole
            .as_object_mut()
            .unwrap()
            .extend(params.as_object().unwrap().clone());
        let found = scene.must("get", whole);
        let items = found["items"].as_array().unwrap();
        let names: Vec<&str> = items
            .iter()
            .map(|item| item["metadata"]["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, expected, "{params}");
    }
    let params = json!({"resource": "pods", "fieldSelector": "nonsense"});
    assert_eq!(scene.reason("get", params), Reason::BadRequest);
}

#[test]
fn a_denied_echo_is_logged_with_its_identifier_as_source_port() {
    let mut scene = Scene::new("echo");
    let (source_port, destination_port) = FlowKey::echo_ports(7, true);
    let event = Event {
        time: Time(1),
        kind: EventKind::Denied(Verdict::from_bits(0)),
        key: FlowKey {
            source: Address::v4(0x0a00_0002),
            destination: Address::v4(0x0a00_0003),
            source_port,
            destination_port,
            protocol: Protocol::ICMP,
        },
        service: None,
        ingress: PortId(3),
        ingress_role: Role::Pod,
        source: Incarnation::NONE,
        destination: Incarnation::NONE,
        generation: Generation(1),
        tcp_flags: 0,
        len: 98,
    };
    scene.memory.borrow_mut().events.push(event);
    assert!(scene.tick());
    let log = fs::read_to_string(scene.folder.join("network-policy.log")).unwrap();
    let expected = "SIP: 10.0.0.2;SPORT: 7;DIP: 10.0.0.3;DPORT: 0;PROTOCOL: ICMP;";
    assert!(log.contains(expected), "{log}");
}

#[test]
fn uplinks_and_pods_keep_their_port_numbers_over_a_restart() {
    let mut scene = Scene::new("numbers");
    let with = |uplinks: &[&str]| Memory {
        uplinks: uplinks.iter().map(|name| (*name).to_owned()).collect(),
        ..Memory::default()
    };
    let uplinks = |scene: &Scene| -> Vec<u16> {
        let snapshot = scene.snapshot();
        let ports = snapshot.ports().filter(|port| port.role == Role::Uplink);
        ports.map(|port| port.id.0).collect()
    };
    let pod = |scene: &Scene| scene.snapshot().endpoints().next().unwrap().port.0;
    scene.start_over(with(&["up"]));
    scene.add("a", "u1", "10.0.0.2").unwrap();
    let (uplink, port) = (uplinks(&scene)[0], pod(&scene));
    // Another uplink stands before it now, and takes neither number.
    scene.start_over(with(&["new", "up"]));
    let now = uplinks(&scene);
    assert!(now.contains(&uplink) && !now.contains(&port), "{now:?}");
    assert_eq!(pod(&scene), port);
    let saved = fs::read_to_string(scene.folder.join("run/endpoints.json")).unwrap();
    assert!(saved.contains(&format!("\"up\":{uplink}")), "{saved}");
}

#[test]
fn an_identity_that_the_connection_table_knows_is_not_given_away_though_the_file_is_lost() {
    let mut scene = Scene::new("lost");
    scene.add("a", "u1", "10.0.0.2").unwrap();
    fs::write(scene.folder.join("run/endpoints.json"), "torn").unwrap();
    scene.start_over(Memory {
        last_incarnation: 7,
        ..Memory::default()
    });
    let added = scene.add("b", "u2", "10.0.0.2").unwrap();
    assert_eq!(added["incarnation"], 8);
}

#[test]
fn an_address_is_of_the_pod_behind_its_interface_whatever_anothers_status_says() {
    let mut scene = Scene::new("again");
    let mut from_front = deny("from-front");
    from_front["spec"] = json!({
        "podSelector": {"matchLabels": {"app": "server"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "front"}}}]}],
    });
    let objects = json!([pod("server"), pod("front"), pod("thief"), from_front]);
    let applied = scene.must("apply", json!({ "objects": objects }));
    let uid = |at: usize| applied["results"][at]["uid"].as_str().unwrap().to_owned();
    scene.add("server", &uid(0), "10.0.0.2").unwrap();
    let status = json!({"phase": "Running", "podIPs": [{"ip": "10.0.0.9"}]});
    let target = json!({"resource": "pods", "name": "front"});
    scene.must("updateStatus", json!({"target": target, "status": status}));
    let passes = |scene: &Scene| {
        let snapshot = scene.snapshot();
        let slot = snapshot.endpoint_at(Address::v4(0x0a00_0002)).unwrap().slot;
        let peer = snapshot.policy().peer(Address::v4(0x0a00_0009));
        let policy = snapshot.policy();
        let decided = policy.decide(slot, Direction::Ingress, &peer, Protocol::TCP, Some(80));
        decided.verdict.accept
    };
    assert!(passes(&scene), "another node's pod");
    scene.add("thief", &uid(2), "10.0.0.9").unwrap();
    assert!(!passes(&scene));
    let uid = uid(2);
    scene.must("endpoint.remove", json!({ "uid": uid }));
    assert!(passes(&scene));
}

#[test]
fn links_and_their_queues_are_followed() {
    let mut scene = Scene::new("links");
    scene.add("a", "u1", "10.0.0.2").unwrap();
    let index = {
        let status = scene.must("status", json!({}));
        let name = status["ports"][1]["interface"].as_str().unwrap().to_owned();
        interface(&name, Role::Pod).index
    };
    scene.memory.borrow_mut().links = vec![Link {
        index,
        name: "x".into(),
        mac: [2, 0, 0, 0, 0, 9],
        mtu: 1400,
        up: true,
        rx_queues: 1,
        kind: "veth".into(),
        peer: None,
    }];
    let before = scene.snapshot().generation();
    scene.tick();
    let snapshot = scene.snapshot();
    assert!(snapshot.generation() > before);
    let port = snapshot.port(PortId(2)).unwrap();
    assert_eq!((port.mac, port.mtu), (Mac([2, 0, 0, 0, 0, 9]), 1400));
    let channels = |receive| Channels {
        interface: index,
        receive,
        transmit: receive,
    };
    scene.memory.borrow_mut().channels = vec![channels(3)];
    scene.tick();
    assert_eq!(scene.memory.borrow().queues.get(&2), Some(&3));
    // What was driven stays so.
    scene.memory.borrow_mut().channels = vec![channels(1)];
    scene.tick();
    assert_eq!(scene.memory.borrow().queues.get(&2), Some(&3));
}

#[test]
fn a_daemon_does_not_go_on_without_one_of_its_workers() {
    let mut scene = Scene::new("worker");
    let worker = |alive| WorkerState {
        generation: Generation(1),
        alive,
        ..WorkerState::default()
    };
    scene.memory.borrow_mut().workers = vec![worker(true), worker(true)];
    assert!(scene.tick());
    scene.memory.borrow_mut().workers[1].alive = false;
    assert!(!scene.tick());
}

#[test]
fn a_port_that_cannot_go_yet_goes_with_the_next_snapshot() {
    let mut scene = Scene::new("leaving");
    scene.add("a", "u1", "10.0.0.2").unwrap();
    scene.add("b", "u2", "10.0.0.3").unwrap();
    let ports = |scene: &Scene| scene.memory.borrow().ports.len();
    let before = ports(&scene);
    // The node takes a pod's address: no snapshot can be made of that.
    scene.memory.borrow_mut().node_address = Some(Address::v4(0x0a00_0003));
    scene.tick();
    let params = json!({"uid": "u1"});
    assert_eq!(scene.reason("endpoint.remove", params), Reason::Conflict);
    assert_eq!(ports(&scene), before, "the workers still use it");
    scene.memory.borrow_mut().node_address = None;
    scene.tick();
    assert_eq!(ports(&scene), before - 1);
}
