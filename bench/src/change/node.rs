//! A node of its own: a network namespace with a daemon, pods' interfaces in two others.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use control::client::Client;
use control::netlink::{Namespace, Netlink, Route, VethEnd};
use serde_json::{Value, json};

use crate::cluster_objects::Objects;
use crate::error::BenchError;

/// How long the daemon may take to be there, and to answer.
const PATIENCE: Duration = Duration::from_secs(120);
/// Objects of one `apply` while the cluster is made.
const BATCH: usize = 500;

fn setup(error: impl std::fmt::Display) -> BenchError {
    BenchError::Setup(error.to_string())
}

/// The node; removed with everything in it when it is dropped.
#[derive(Debug)]
pub struct Node {
    name: String,
    folder: PathBuf,
    state: PathBuf,
    namespace: Namespace,
    /// The two pods that send to each other, each in a namespace of its own; the rest share one.
    pub talkers: [Namespace; 2],
    others: Namespace,
    daemon: Option<Child>,
}

/// How large the daemon is.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    /// Resident memory of its own, KiB.
    pub anonymous_kib: u64,
    /// Resident memory that is shared or of files (packet memory, connections), KiB.
    pub shared_kib: u64,
    /// The largest that all resident memory together has been, KiB.
    pub peak_kib: u64,
}

impl Node {
    /// Makes the namespaces and starts the daemon, with workers on these cores and its journal in a
    /// folder of its own in `state`.
    pub fn start(cores: &[u16], state: &Path) -> Result<Node, BenchError> {
        let name = format!("weir-bench-{}", std::process::id());
        let folder = PathBuf::from("/run").join(&name);
        fs::create_dir_all(&folder).map_err(setup)?;
        let create = |suffix: &str| -> Result<Namespace, BenchError> {
            let namespace = Namespace::create(&format!("{name}{suffix}")).map_err(setup)?;
            up(&namespace, "lo")?;
            Ok(namespace)
        };
        let mut node = Node {
            namespace: create("")?,
            talkers: [create("-a")?, create("-b")?],
            others: create("-pods")?,
            state: state.join(&name),
            name,
            folder,
            daemon: None,
        };
        let text = format!(
            "instance = '{name}'\nnode_name = 'n1'\nsocket = '{folder}/weir.sock'\n\
             runtime_dir = '{folder}'\nstate_dir = '{state}'\nworkers = {cores:?}\n\
             pod_ranges = ['10.64.0.0/12']\n[umem]\nchunks = 16384\nchunk_bytes = 2048\n\
             [host_port]\naddresses = ['10.254.0.1']\n[log]\npath = '{folder}/network-policy.log'\n",
            name = node.name,
            folder = node.folder.display(),
            state = node.state.display(),
        );
        fs::write(node.folder.join("weir.toml"), text).map_err(setup)?;
        node.start_daemon()?;
        Ok(node)
    }

    /// Starts the daemon and waits until it serves; how long that took.
    pub fn start_daemon(&mut self) -> Result<Duration, BenchError> {
        let program = std::env::current_exe().map_err(setup)?;
        let log = fs::File::options()
            .append(true)
            .create(true)
            .open(self.folder.join("out"));
        let mut command = Command::new(program.with_file_name("weir"));
        command
            .arg("daemon")
            .arg("--config")
            .arg(self.folder.join("weir.toml"))
            .stderr(log.map_err(setup)?)
            .stdout(Stdio::null());
        let begun = Instant::now();
        let daemon = self.namespace.run(|| command.spawn()).map_err(setup)?;
        let daemon = self.daemon.insert(daemon.map_err(setup)?);
        while UnixStream::connect(self.folder.join("weir.sock")).is_err() {
            let ended = daemon.try_wait().map_err(setup)?.is_some();
            if ended || begun.elapsed() > PATIENCE {
                let output = fs::read_to_string(self.folder.join("out")).unwrap_or_default();
                return Err(BenchError::Setup(format!(
                    "the daemon does not start: {output}"
                )));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(begun.elapsed())
    }

    /// Ends the daemon in order.
    pub fn stop_daemon(&mut self) -> Result<(), BenchError> {
        let Some(mut daemon) = self.daemon.take() else {
            return Ok(());
        };
        let pid = rustix::process::Pid::from_child(&daemon);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).map_err(setup)?;
        daemon.wait().map_err(setup)?;
        Ok(())
    }

    /// A client for set-up work.
    pub fn client(&self) -> Result<Client, BenchError> {
        let mut client = Client::connect(self.folder.join("weir.sock")).map_err(setup)?;
        client.set_timeout(Some(PATIENCE)).map_err(setup)?;
        Ok(client)
    }

    /// A connection whose every request is timed.
    pub fn stopwatch(&self) -> Result<Stopwatch, BenchError> {
        let stream = UnixStream::connect(self.folder.join("weir.sock")).map_err(setup)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(setup)?;
        Ok(Stopwatch {
            stream: BufReader::with_capacity(256 << 10, stream),
            line: Vec::new(),
        })
    }

    /// Stores the cluster; how long that took.
    pub fn load(&self, objects: &Objects) -> Result<Duration, BenchError> {
        let begun = Instant::now();
        self.store(objects.all())?;
        Ok(begun.elapsed())
    }

    /// Stores objects, many at a time.
    pub fn store(&self, objects: impl Iterator<Item = Value>) -> Result<(), BenchError> {
        let mut client = self.client()?;
        let all: Vec<Value> = objects.collect();
        for batch in all.chunks(BATCH) {
            let applied: Result<Value, _> = client.call("apply", json!({"objects": batch}));
            applied.map_err(setup)?;
        }
        Ok(())
    }

    /// Plugs in the node's own pods.
    pub fn plug_in(&self, objects: &Objects) -> Result<Duration, BenchError> {
        let mut client = self.client()?;
        let begun = Instant::now();
        for number in 0..objects.counts.local {
            self.pod(&mut client, objects, number)?;
        }
        Ok(begun.elapsed())
    }

    fn pod(&self, client: &mut Client, objects: &Objects, number: u32) -> Result<(), BenchError> {
        let (inside, inner) = match number {
            0 | 1 => (&self.talkers[number as usize], "eth0".to_owned()),
            _ => (&self.others, format!("eth{number}")),
        };
        let interface = format!("wp{number}");
        let [_, _, high, low] = number.to_be_bytes();
        let mac = [2, 0, 0, 1, high, low];
        let peer = VethEnd {
            mac: Some(mac),
            namespace: Some(inside.as_fd()),
            ..VethEnd::new(&inner)
        };
        let mut netlink = connect(&self.namespace)?;
        netlink
            .create_veth(&VethEnd::new(&interface), &peer)
            .map_err(setup)?;
        let mut netlink = connect(inside)?;
        let link = netlink.link(&inner).map_err(setup)?;
        let index = link.ok_or_else(|| setup("a veth is not there"))?.index;
        netlink.set_up(index).map_err(setup)?;
        let address: std::net::IpAddr = objects.pod_address(number).parse().map_err(setup)?;
        if number < 2 {
            netlink.add_address(index, address.into()).map_err(setup)?;
            let gateway = Some("169.254.1.1".parse().map_err(setup)?);
            let everything = "0.0.0.0/0".parse().map_err(setup)?;
            let route = Route {
                on_link: true,
                ..Route::via(everything, gateway, index)
            };
            netlink.add_route(&route).map_err(setup)?;
        }
        let (namespace, name) = objects.pod_name(number);
        let params = json!({"resource": "pods", "namespace": namespace, "name": name});
        let found: Value = client.call("get", params).map_err(setup)?;
        let mac: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        let params = json!({
            "namespace": namespace, "name": name, "uid": found["items"][0]["metadata"]["uid"],
            "interface": interface, "mac": mac.join(":"), "addresses": [address],
        });
        let added: Result<Value, _> = client.call("endpoint.add", params);
        added.map(drop).map_err(setup)
    }

    /// How large the daemon is now.
    pub fn memory(&self) -> Result<Memory, BenchError> {
        let pid = self.daemon.as_ref().map_or(0, Child::id);
        let text = fs::read_to_string(format!("/proc/{pid}/status")).map_err(setup)?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next());
            number.and_then(|number| number.parse::<u64>().ok())
        };
        let lacks = || setup("the daemon's size is not told");
        Ok(Memory {
            anonymous_kib: field("RssAnon:").ok_or_else(lacks)?,
            shared_kib: field("RssShmem:").ok_or_else(lacks)?
                + field("RssFile:").ok_or_else(lacks)?,
            peak_kib: field("VmHWM:").ok_or_else(lacks)?,
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        for suffix in ["", "-a", "-b", "-pods"] {
            let _ = Namespace::delete(&format!("{}{suffix}", self.name));
        }
        let _ = fs::remove_dir_all(&self.state);
        let _ = fs::remove_dir_all(&self.folder);
        let _ = fs::remove_dir_all(PathBuf::from("/sys/fs/bpf/weir").join(&self.name));
    }
}

fn connect(namespace: &Namespace) -> Result<Netlink, BenchError> {
    namespace
        .run(Netlink::connect)
        .map_err(setup)?
        .map_err(setup)
}

fn up(namespace: &Namespace, name: &str) -> Result<(), BenchError> {
    let mut netlink = connect(namespace)?;
    let link = netlink.link(name).map_err(setup)?;
    let index = link
        .ok_or_else(|| setup(format!("{name} is not there")))?
        .index;
    netlink.set_up(index).map_err(setup)
}

/// A connection whose every request is timed.
#[derive(Debug)]
pub struct Stopwatch {
    stream: BufReader<UnixStream>,
    line: Vec<u8>,
}

/// One timed request.
#[derive(Debug)]
pub struct Timed {
    /// From before it was sent until the reply was here.
    pub whole: Duration,
    /// The reply.
    pub reply: Value,
}

impl Stopwatch {
    /// Sends a request and waits for its reply, which must not be an error.
    pub fn call(&mut self, method: &str, params: Value) -> Result<Timed, BenchError> {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let mut request = serde_json::to_vec(&request).map_err(setup)?;
        request.push(b'\n');
        self.line.clear();
        // The last byte goes with the others, so that nothing is awake earlier than by a request.
        let begun = Instant::now();
        self.stream.get_mut().write_all(&request).map_err(setup)?;
        self.stream
            .read_until(b'\n', &mut self.line)
            .map_err(setup)?;
        let whole = begun.elapsed();
        let reply: Value = serde_json::from_slice(&self.line).map_err(setup)?;
        match reply.get("error") {
            Some(error) => Err(BenchError::Setup(format!("{method}: {error}"))),
            None => Ok(Timed { whole, reply }),
        }
    }
}
