//! Weir itself: a daemon in the node's namespace, two pods, a policy that lets one reach the other.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use control::client::Client;
use serde_json::{Value, json};

use super::forwarder::Forwarder;
use super::setup;
use super::topology::{Pod, Topology, pins};
use crate::error::BenchError;

/// How long the daemon may take to be there, and to answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Objects of one request.
const BATCH: usize = 500;

/// A daemon with its pods.
#[derive(Debug)]
pub struct Weir {
    // Before the topology, so that it ends first.
    daemon: Daemon,
    mode: String,
    topology: Topology,
}

#[derive(Debug)]
struct Daemon {
    child: Child,
    name: String,
    folder: PathBuf,
}

impl Weir {
    /// Starts the daemon with workers on these cores. `peers` pods beside the two are members of
    /// what the policy lets in.
    pub fn start(number: u32, pods: u32, workers: &[u16], peers: u32) -> Result<Weir, BenchError> {
        let topology = Topology::create(number, pods)?;
        let daemon = Daemon::start(&topology, workers)?;
        let mut client = daemon.client()?;
        let mut objects = policies();
        objects.extend(
            topology
                .pods
                .iter()
                .enumerate()
                .map(|(at, pod)| object(&pod_name(at), role(at), &pod.party.address.to_string())),
        );
        objects.extend((0..peers).map(|peer| {
            let address = format!("10.245.{}.{}", peer >> 8, peer & 255);
            object(&format!("peer-{peer}"), "client", &address)
        }));
        for batch in objects.chunks(BATCH) {
            let applied: Result<Value, _> = client.call("apply", json!({"objects": batch}));
            applied.map_err(setup)?;
        }
        for (at, pod) in topology.pods.iter().enumerate() {
            add(&mut client, at, pod)?;
        }
        let mode = match workers {
            [core] => format!("AF_XDP copy, worker on core {core}"),
            cores => format!("AF_XDP copy, workers on cores {cores:?}"),
        };
        Ok(Weir {
            daemon,
            mode,
            topology,
        })
    }
}

impl Forwarder for Weir {
    fn name(&self) -> &str {
        "Weir, policy and conntrack"
    }

    fn mode(&self) -> &str {
        &self.mode
    }

    fn topology(&self) -> &Topology {
        &self.topology
    }

    fn processes(&self) -> Vec<u32> {
        vec![self.daemon.child.id()]
    }

    fn tracks_connections(&self) -> bool {
        true
    }
}

impl Daemon {
    fn start(topology: &Topology, workers: &[u16]) -> Result<Daemon, BenchError> {
        let name = topology.name.clone();
        let folder = PathBuf::from("/run").join(&name);
        fs::create_dir_all(&folder).map_err(setup)?;
        let text = format!(
            "instance = '{name}'\nnode_name = 'n1'\nsocket = '{folder}/weir.sock'\n\
             runtime_dir = '{folder}'\nstate_dir = '{folder}/state'\nworkers = {workers:?}\n\
             pod_ranges = ['10.244.0.0/15']\n[umem]\nchunks = 16384\nchunk_bytes = 2048\n\
             [host_port]\naddresses = ['10.254.0.1']\n[log]\npath = '{folder}/network-policy.log'\n",
            folder = folder.display(),
        );
        let config = folder.join("weir.toml");
        fs::write(&config, text).map_err(setup)?;
        let log = fs::File::create(folder.join("out")).map_err(setup)?;
        let program = std::env::current_exe().map_err(setup)?;
        let mut command = Command::new(program.with_file_name("weir"));
        command
            .arg("daemon")
            .arg("--config")
            .arg(config)
            .stderr(log)
            .stdout(Stdio::null());
        let child = topology.node.run(|| command.spawn()).map_err(setup)?;
        let child = child.map_err(|error| setup(format!("the daemon: {error}")))?;
        let mut daemon = Daemon {
            child,
            name,
            folder,
        };
        let begun = Instant::now();
        while UnixStream::connect(daemon.folder.join("weir.sock")).is_err() {
            let ended = daemon.child.try_wait().map_err(setup)?.is_some();
            if ended || begun.elapsed() > PATIENCE {
                let output = fs::read_to_string(daemon.folder.join("out")).unwrap_or_default();
                return Err(setup(format!("the daemon does not start: {output}")));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(daemon)
    }

    fn client(&self) -> Result<Client, BenchError> {
        let mut client = Client::connect(self.folder.join("weir.sock")).map_err(setup)?;
        client.set_timeout(Some(PATIENCE)).map_err(setup)?;
        Ok(client)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
        let _ = fs::remove_dir_all(pins(&self.name));
    }
}

fn pod_name(at: usize) -> String {
    format!("pod-{at}")
}

/// The first pod is the client, the others serve.
fn role(at: usize) -> &'static str {
    if at == 0 { "client" } else { "server" }
}

fn object(name: &str, role: &str, address: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"role": role}},
        "spec": {"containers": [{"name": "c", "image": "registry.example/app:1"}]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    })
}

/// Both directions are isolated, and each lets the other through.
fn policies() -> Vec<Value> {
    let policy = |name: &str, selected: &str, kind: &str, direction: &str, way: &str| {
        let other = if selected == "client" {
            "server"
        } else {
            "client"
        };
        let ports = json!([
            {"protocol": "UDP", "port": 1, "endPort": 65535},
            {"protocol": "TCP", "port": 1, "endPort": 65535},
        ]);
        let peer = json!([{"podSelector": {"matchLabels": {"role": other}}}]);
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "podSelector": {"matchLabels": {"role": selected}},
                "policyTypes": [kind], direction: [{way: peer, "ports": ports}],
            },
        })
    };
    vec![
        policy("in", "server", "Ingress", "ingress", "from"),
        policy("out", "client", "Egress", "egress", "to"),
    ]
}

fn add(client: &mut Client, at: usize, pod: &Pod) -> Result<(), BenchError> {
    let name = pod_name(at);
    let params = json!({"resource": "pods", "namespace": "default", "name": name});
    let found: Value = client.call("get", params).map_err(setup)?;
    let mac: Vec<String> = pod.party.mac.iter().map(|b| format!("{b:02x}")).collect();
    let params = json!({
        "namespace": "default", "name": name, "uid": found["items"][0]["metadata"]["uid"],
        "interface": pod.interface, "mac": mac.join(":"),
        "addresses": [pod.party.address.to_string()],
    });
    let added: Result<Value, _> = client.call("endpoint.add", params);
    added.map(drop).map_err(setup)
}
