//! Weir itself: a daemon in the node's namespace, two pods, a policy that lets one reach the other.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use control::client::Client;
use control::netlink::Namespace;
use serde_json::{Value, json};

use super::folder::MemoryFolder;
use super::forwarder::Forwarder;
use super::setup;
use super::topology::{Pod, Topology, pins};
use crate::error::BenchError;

/// What its row is called.
pub const NAME: &str = "Weir, policy and conntrack";
/// How long the daemon may take to be there, and to answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Objects of one request.
const BATCH: usize = 500;

/// A daemon with its pods.
#[derive(Debug)]
pub struct Weir {
    // Before the topology, so that it ends first.
    daemon: Daemon,
    name: String,
    mode: String,
    topology: Topology,
}

#[derive(Debug)]
struct Daemon {
    child: Child,
    name: String,
    folder: MemoryFolder,
}

/// How the pods are connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// MTU towards other pods, bytes.
    pub mtu: u32,
    /// The pod's end merges what comes by it (GRO), for which the node's end may not seem to segment.
    pub gro: bool,
    /// A thread of the kernel's polls the pod's end (threaded NAPI); else the pod's stack runs when
    /// the worker sends.
    pub threaded: bool,
    /// The node's end has no queue, so that a full pod loses packets instead of saying so.
    pub noqueue: bool,
}

/// What the lab gives pods.
pub const USUAL: Link = Link {
    mtu: 60_000,
    gro: false,
    threaded: false,
    noqueue: false,
};

impl std::str::FromStr for Link {
    type Err = String;

    /// `usual`, or an MTU and what is to be set, as in `9000+gro+threaded`.
    fn from_str(text: &str) -> Result<Link, String> {
        if text == "usual" {
            return Ok(USUAL);
        }
        let mut words = text.split('+');
        let mtu = words.next().unwrap_or_default();
        let mut link = Link {
            mtu: mtu.parse().map_err(|_| format!("{mtu} is no MTU"))?,
            ..USUAL
        };
        (link.gro, link.threaded, link.noqueue) = (false, false, false);
        for word in words {
            *match word {
                "gro" => &mut link.gro,
                "threaded" => &mut link.threaded,
                "noqueue" => &mut link.noqueue,
                _ => return Err(format!("{word} is none of gro, threaded, noqueue")),
            } = true;
        }
        Ok(link)
    }
}

impl std::fmt::Display for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MTU {}", self.mtu)?;
        let words = [
            (self.gro, "GRO"),
            (self.threaded, "threaded NAPI"),
            (self.noqueue, "no queue"),
        ];
        let set = words.iter().filter(|(set, _)| *set);
        set.into_iter()
            .try_for_each(|(_, word)| write!(f, ", {word}"))
    }
}

impl Weir {
    /// Starts the daemon with workers on these cores. `peers` pods beside the two are members of
    /// what the policy lets in.
    pub fn start(
        number: u32,
        pods: u32,
        workers: &[u16],
        peers: u32,
        link: Link,
    ) -> Result<Weir, BenchError> {
        let topology = Topology::with_mtu(number, pods, link.mtu)?;
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
        for (at, pod) in topology.pods.iter().enumerate() {
            set(&topology, at, &pod.interface, link)?;
        }
        let mode = match workers {
            [core] => format!("AF_XDP copy, worker on core {core}"),
            cores => format!("AF_XDP copy, workers on cores {cores:?}"),
        };
        let name = match link {
            USUAL => NAME.to_owned(),
            link => format!("{NAME}, {link}"),
        };
        Ok(Weir {
            daemon,
            name,
            mode,
            topology,
        })
    }
}

impl Forwarder for Weir {
    fn name(&self) -> &str {
        &self.name
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

/// Starts the `weir` beside this program as a daemon in a namespace. `folder` gets its configuration
/// and, in `out`, what it says.
pub fn spawn(
    namespace: &Namespace,
    folder: &Path,
    configuration: &str,
) -> Result<Child, BenchError> {
    fs::create_dir_all(folder).map_err(setup)?;
    let file = folder.join("weir.toml");
    fs::write(&file, configuration).map_err(setup)?;
    let log = fs::File::create(folder.join("out")).map_err(setup)?;
    let program = std::env::current_exe().map_err(setup)?;
    let mut command = Command::new(program.with_file_name("weir"));
    command
        .arg("daemon")
        .arg("--config")
        .arg(file)
        .stderr(log)
        .stdout(Stdio::null());
    let child = namespace.run(|| command.spawn()).map_err(setup)?;
    child.map_err(|error| setup(format!("the daemon: {error}")))
}

impl Daemon {
    fn start(topology: &Topology, workers: &[u16]) -> Result<Daemon, BenchError> {
        let name = topology.name.clone();
        let folder = MemoryFolder::create(PathBuf::from("/run").join(&name))?;
        let text = format!(
            "instance = '{name}'\nnode_name = 'n1'\nsocket = '{folder}/weir.sock'\n\
             runtime_dir = '{folder}'\nstate_dir = '{folder}/state'\nworkers = {workers:?}\n\
             pod_ranges = ['10.244.0.0/15']\n\
             [host_port]\naddresses = ['10.254.0.1']\n[log]\npath = '{folder}/network-policy.log'\n",
            folder = folder.path().display(),
        );
        let child = spawn(&topology.node, folder.path(), &text)?;
        let mut daemon = Daemon {
            child,
            name,
            folder,
        };
        let begun = Instant::now();
        while UnixStream::connect(daemon.folder.path().join("weir.sock")).is_err() {
            let ended = daemon.child.try_wait().map_err(setup)?.is_some();
            if ended || begun.elapsed() > PATIENCE {
                let output =
                    fs::read_to_string(daemon.folder.path().join("out")).unwrap_or_default();
                return Err(setup(format!("the daemon does not start: {output}")));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(daemon)
    }

    fn client(&self) -> Result<Client, BenchError> {
        let mut client = Client::connect(self.folder.path().join("weir.sock")).map_err(setup)?;
        client.set_timeout(Some(PATIENCE)).map_err(setup)?;
        Ok(client)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(pins(&self.name));
    }
}

/// Connects a pod as `link` says; the daemon has set the queue by now.
fn set(topology: &Topology, at: usize, interface: &str, link: Link) -> Result<(), BenchError> {
    if link.gro {
        topology.shell(&format!("ethtool -K {interface} tso off"))?;
        topology.pod_shell(at, "ethtool -K eth0 gro on")?;
    }
    if link.threaded {
        topology.pod_shell(at, "echo 1 > /sys/class/net/eth0/threaded")?;
    }
    if link.noqueue {
        topology.shell(&format!("tc qdisc replace dev {interface} root noqueue"))?;
    }
    Ok(())
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
