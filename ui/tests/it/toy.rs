//! A daemon's socket with the daemon's own server behind it, that says what a test wants.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use control::daemon::connection::Bounds;
use control::daemon::server::{Access, ClientId, Server, ServerBounds, Service, refused};
use control::daemon::watches::{Droppable, Outgoing};
use control::flow::{Flow, FlowDirection, FlowEnd, FlowPolicy, FlowVerdict};
use control::protocol::{
    ConntrackStatus, ErrorObject, Explained, GetReply, HitsReply, Lost, MetricsReply, Notification,
    ObserveEvent, ObserveReply, PodPoliciesReply, PodPolicy, PolicyHits, Reason, RuleHit, Status,
    WatchEvent, WatchEventType, WatchReply, WorkerStatus,
};
use serde::Serialize;
use serde_json::{Value, json};

/// What the daemon is to say, and what it was asked.
#[derive(Default)]
pub struct Told {
    pub generation: u64,
    /// What `trace` and `matrix` say.
    pub denies: bool,
    pub objects: Vec<Value>,
    pub past: Vec<Flow>,
    pub asked: Vec<String>,
    /// Flows that pages had no room for.
    pub not_taken: u64,
    watchers: Vec<ClientId>,
    observers: Vec<ClientId>,
    waiting: Vec<(ClientId, &'static str, Value)>,
}

impl Told {
    fn tell(&mut self, to: ClientId, method: &'static str, params: impl Serialize) {
        let params = serde_json::to_value(params).unwrap();
        self.waiting.push((to, method, params));
    }

    /// Tells everybody of an object.
    pub fn object(&mut self, event: WatchEventType, object: Value) {
        for client in self.watchers.clone() {
            let object = object.clone();
            let params = WatchEvent {
                subscription: 1,
                event,
                object,
            };
            self.tell(client, "watch", params);
        }
    }

    /// Tells everybody of a flow.
    pub fn flow(&mut self, flow: &Flow) {
        self.event(Some(flow.clone()), None);
    }

    /// Tells everybody of losses.
    pub fn lost(&mut self, lost: Lost) {
        self.event(None, Some(lost));
    }

    fn event(&mut self, flow: Option<Flow>, lost: Option<Lost>) {
        for client in self.observers.clone() {
            let params = ObserveEvent {
                subscription: 2,
                flow: flow.clone(),
                lost,
            };
            self.tell(client, "observe", params);
        }
    }

    pub fn pages(&self) -> usize {
        self.observers.len()
    }

    fn status(&self) -> Status {
        let worker = |index| WorkerStatus {
            index,
            core: index,
            generation: self.generation,
            alive: true,
        };
        Status {
            node: "n1".into(),
            generation: self.generation,
            health: "ok".into(),
            workers: vec![worker(0), worker(1)],
            conntrack: ConntrackStatus {
                entries: 3,
                capacity: 100,
            },
            ..Status::default()
        }
    }

    fn verdict(&self) -> &'static str {
        if self.denies { "deny" } else { "allow" }
    }
}

struct Toy {
    told: Arc<Mutex<Told>>,
    stop: Arc<AtomicBool>,
}

fn text(reply: impl Serialize) -> Result<String, ErrorObject> {
    Ok(serde_json::to_string(&reply).unwrap())
}

impl Service for Toy {
    fn call(
        &mut self,
        client: ClientId,
        method: &str,
        params: Value,
        _arrived: Instant,
    ) -> Result<String, ErrorObject> {
        let mut told = self.told.lock().unwrap();
        told.asked.push(method.to_owned());
        match method {
            "watch" => {
                let object = |event, object| WatchEvent {
                    subscription: 1,
                    event,
                    object,
                };
                for known in told.objects.clone() {
                    told.tell(client, "watch", object(WatchEventType::Added, known));
                }
                told.tell(client, "watch", object(WatchEventType::Synced, Value::Null));
                told.watchers.push(client);
                text(WatchReply { subscription: 1 })
            }
            "observe" => {
                told.observers.push(client);
                text(ObserveReply {
                    subscription: Some(2),
                    flows: told.past.clone(),
                    accepts: true,
                })
            }
            "status" => text(told.status()),
            "metrics" => text(MetricsReply {
                text: "# TYPE weir_generation gauge\nweir_policy_mismatch_total 5\n".into(),
            }),
            "trace" if params["to"] == "nobody/x" => {
                Err(refused(Reason::BadRequest, "\"nobody/x\" is no pod"))
            }
            "trace" => text(Explained {
                text: "words".into(),
                json: json!({"verdict": told.verdict(), "reason": "because",
                    "generation": told.generation, "from": params["from"], "to": params["to"],
                    "protocol": params["protocol"], "port": 80, "steps": []}),
            }),
            "matrix" => text(Explained {
                text: String::new(),
                json: json!([{"from": "shop/a", "to": "shop/b", "protocol": "TCP", "port": 80,
                    "portName": null, "verdict": told.verdict(), "allowedFamily": null,
                    "reason": "because"}]),
            }),
            "pod.policies" => text(PodPoliciesReply {
                policies: vec![PodPolicy {
                    kind: "NetworkPolicy".into(),
                    namespace: Some("shop".into()),
                    name: "deny".into(),
                    audit: false,
                }],
            }),
            "hits" => text(HitsReply {
                policies: vec![hits(&params)],
                ..HitsReply::default()
            }),
            "get" if params["name"] == "gone" => Err(refused(
                Reason::NotFound,
                "networkpolicies \"gone\" not found",
            )),
            "get" => text(GetReply {
                items: vec![
                    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                    "metadata": {"name": params["name"], "uid": "u"}, "spec": {"podSelector": {}}}),
                ],
                ..GetReply::default()
            }),
            other => Err(refused(Reason::Forbidden, format!("nobody may {other}"))),
        }
    }

    fn gone(&mut self, client: ClientId) {
        let mut told = self.told.lock().unwrap();
        told.watchers.retain(|other| *other != client);
        told.observers.retain(|other| *other != client);
    }

    fn take_notifications(&mut self) -> Vec<Outgoing> {
        let waiting = std::mem::take(&mut self.told.lock().unwrap().waiting);
        let line = |(client, method, params): (ClientId, &str, Value)| Outgoing {
            client,
            line: serde_json::to_vec(&Notification {
                jsonrpc: "2.0".into(),
                method: method.into(),
                params,
            })
            .unwrap(),
            droppable: (method == "observe").then_some(Droppable::Flow(2)),
        };
        waiting.into_iter().map(line).collect()
    }

    fn not_taken(&mut self, _client: ClientId, _line: Droppable) {
        self.told.lock().unwrap().not_taken += 1;
    }

    fn tick(&mut self, _source: Option<usize>, _clients: usize) {}

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

fn hits(params: &Value) -> PolicyHits {
    PolicyHits {
        kind: params["kind"].as_str().unwrap().into(),
        namespace: params["namespace"].as_str().map(Into::into),
        name: params["name"].as_str().unwrap().into(),
        rules: vec![RuleHit {
            direction: FlowDirection::Ingress,
            rule: None,
            is_counted: true,
            connections: 4,
            packets: 9,
            last_hit: None,
        }],
        ..PolicyHits::default()
    }
}

/// The daemon.
pub struct Daemon {
    path: PathBuf,
    told: Arc<Mutex<Told>>,
    running: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
}

impl Daemon {
    pub fn start(name: &str) -> Daemon {
        let folder = std::env::temp_dir().join(format!("weir-ui-{}-{name}", std::process::id()));
        let mut daemon = Daemon {
            path: folder.join("weir.sock"),
            told: Arc::default(),
            running: None,
        };
        daemon.told().generation = 7;
        daemon.go_on();
        daemon
    }

    pub fn socket(&self) -> &Path {
        &self.path
    }

    pub fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap()
    }

    pub fn go_on(&mut self) {
        let bounds = ServerBounds {
            clients: 32,
            connection: Bounds {
                message_bytes: 1 << 20,
                output_bytes: 4 << 20,
                half_message: Duration::from_secs(5),
            },
        };
        let mut server = Server::bind(&self.path, Access::default(), bounds, &[]).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let mut toy = Toy {
            told: self.told.clone(),
            stop: stop.clone(),
        };
        let thread = std::thread::spawn(move || server.run(&mut toy).unwrap());
        self.running = Some((stop, thread));
    }

    pub fn stop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            stop.store(true, Ordering::SeqCst);
            thread.join().unwrap();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(self.path.parent().unwrap());
    }
}

/// A pod's object.
pub fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": name},
        "status": {"phase": "Running"}})
}

/// A flow from `shop/a` to `shop/b`.
pub fn flow(verdict: FlowVerdict, port: u16) -> Flow {
    let end = |pod: &str, ip: &str, port| FlowEnd {
        ip: ip.parse().unwrap(),
        port: Some(port),
        namespace: Some("shop".into()),
        pod: Some(pod.into()),
        labels: Default::default(),
        workload: None,
    };
    Flow {
        time: "2026-11-30T01:00:00.000000000Z".into(),
        verdict,
        reason: "no rule matches peer".into(),
        direction: Some(FlowDirection::Ingress),
        source: end("a", "10.0.0.1", 4000),
        destination: end("b", "10.0.0.2", port),
        service: None,
        protocol: "TCP".into(),
        tcp_flags: vec!["SYN".into()],
        policy: Some(FlowPolicy {
            kind: "NetworkPolicy".into(),
            namespace: Some("shop".into()),
            name: "deny".into(),
            rule: None,
            rule_name: None,
        }),
        generation: 7,
        node: "n1".into(),
    }
}
