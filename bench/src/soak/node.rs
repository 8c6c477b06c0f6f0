//! A node of its own with a daemon, and pods that come and go.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use control::client::Client;
use control::netlink::{Namespace, Netlink, NetlinkError, Route, VethEnd};
use serde_json::{Value, json};

use super::setup;
use crate::error::BenchError;
use crate::system::{GATEWAY, PREFIX, spawn};

/// How long the daemon may take to be there, and to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The node, removed with everything in it when it is dropped.
#[derive(Debug)]
pub struct Node {
    name: String,
    folder: PathBuf,
    namespace: Namespace,
    daemon: Child,
}

/// A pod that the daemon has.
#[derive(Debug)]
pub struct Pod {
    /// Its name, which no other pod has at the same time.
    pub name: String,
    /// Its network namespace, by name.
    pub network: String,
    /// The same.
    pub namespace: Namespace,
    /// Its address.
    pub address: Ipv4Addr,
    uid: String,
    interface: String,
}

/// What a pod is to be.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// Its name.
    pub name: &'a str,
    /// The value of its label `role`.
    pub role: &'a str,
    /// The low 16 bits of its address, and what its interface is called by.
    pub number: u16,
    /// Queues each way.
    pub queues: u32,
}

fn connect(namespace: &Namespace) -> Result<Netlink, BenchError> {
    namespace
        .run(Netlink::connect)
        .map_err(setup)?
        .map_err(setup)
}

fn find(netlink: &mut Netlink, name: &str) -> Result<u32, BenchError> {
    let link = netlink.link(name).map_err(setup)?;
    link.map(|link| link.index)
        .ok_or_else(|| setup(format!("{name} is not there")))
}

impl Node {
    /// Starts a daemon with workers on these cores.
    pub fn start(workers: &[u16]) -> Result<Node, BenchError> {
        let name = format!("{PREFIX}{}-soak", std::process::id());
        let folder = PathBuf::from("/run").join(&name);
        let namespace = Namespace::create(&name).map_err(setup)?;
        let daemon = start_daemon(&namespace, &name, &folder, workers);
        let daemon = daemon.inspect_err(|_| {
            let _ = Namespace::delete(&name);
            let _ = fs::remove_dir_all(&folder);
        })?;
        let mut node = Node {
            name,
            folder,
            namespace,
            daemon,
        };
        let begun = Instant::now();
        while UnixStream::connect(node.folder.join("weir.sock")).is_err() {
            let ended = node.daemon.try_wait().map_err(setup)?.is_some();
            if ended || begun.elapsed() > PATIENCE {
                return Err(setup(format!("the daemon does not start: {}", node.said())));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(node)
    }

    /// What the daemon has written.
    pub fn said(&self) -> String {
        fs::read_to_string(self.folder.join("out")).unwrap_or_default()
    }

    /// The daemon's process.
    pub fn pid(&self) -> u32 {
        self.daemon.id()
    }

    /// A connection to it.
    pub fn client(&self) -> Result<Client, BenchError> {
        let mut client = Client::connect(self.folder.join("weir.sock")).map_err(setup)?;
        client.set_timeout(Some(PATIENCE)).map_err(setup)?;
        Ok(client)
    }

    /// Makes a pod, and waits until its policy is live.
    pub fn add(&self, client: &mut Client, wanted: &Wanted<'_>) -> Result<Pod, BenchError> {
        let network = format!("{}-{}", self.name, wanted.name);
        let namespace = Namespace::create(&network).map_err(setup)?;
        let added = self.plug(client, wanted, network.clone(), namespace);
        if added.is_err() {
            let _ = Namespace::delete(&network);
        }
        added
    }

    fn plug(
        &self,
        client: &mut Client,
        wanted: &Wanted<'_>,
        network: String,
        namespace: Namespace,
    ) -> Result<Pod, BenchError> {
        let Wanted {
            name,
            role,
            number,
            queues,
        } = *wanted;
        let [high, low] = number.to_be_bytes();
        let (mac, address) = ([2, 0, 0, 3, high, low], Ipv4Addr::new(10, 244, high, low));
        let interface = format!("ws{number}");
        let own = VethEnd {
            queues,
            ..VethEnd::new(&interface)
        };
        let peer = VethEnd {
            mac: Some(mac),
            namespace: Some(namespace.as_fd()),
            queues,
            ..VethEnd::new("eth0")
        };
        connect(&self.namespace)?
            .create_veth(&own, &peer)
            .map_err(setup)?;
        let mut inside = connect(&namespace)?;
        let (lo, eth0) = (find(&mut inside, "lo")?, find(&mut inside, "eth0")?);
        (|| -> Result<(), NetlinkError> {
            inside.set_up(lo)?;
            inside.set_no_link_local(eth0)?;
            inside.set_up(eth0)?;
            inside.add_address(eth0, IpAddr::from(address).into())?;
            let everything = ipnet::IpNet::V4(ipnet::Ipv4Net::default());
            inside.add_route(&Route {
                on_link: true,
                ..Route::via(everything, Some(GATEWAY.into()), eth0)
            })
        })()
        .map_err(setup)?;
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "labels": {"role": role}},
            "spec": {"containers": [{"name": "c", "image": "registry.example/app:1"}]},
            "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
        });
        call(client, "apply", json!({"objects": [object]}))?;
        let params = json!({"resource": "pods", "namespace": "default", "name": name});
        let found = call(client, "get", params)?;
        let uid = found["items"][0]["metadata"]["uid"].as_str();
        let uid = uid.ok_or_else(|| setup("a pod has no UID"))?.to_owned();
        let text: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        let params = json!({
            "namespace": "default", "name": name, "uid": uid, "interface": interface,
            "mac": text.join(":"), "addresses": [address],
        });
        call(client, "endpoint.add", params)?;
        Ok(Pod {
            name: name.to_owned(),
            network,
            namespace,
            address,
            uid,
            interface,
        })
    }

    /// Takes a pod away: in order, or, as when a node's pods are killed, its interface first.
    pub fn remove(&self, client: &mut Client, pod: &Pod, abrupt: bool) -> Result<(), BenchError> {
        let params = json!({"uid": pod.uid});
        if !abrupt {
            call(client, "endpoint.remove", params)?;
            self.unplug(pod)?;
        } else {
            self.unplug(pod)?;
            // The daemon may have seen by itself that the interface is gone, or not yet.
            let removed: Result<Value, _> = client.call("endpoint.remove", params);
            if let Err(error) = removed
                && error.reason() != Some(control::protocol::Reason::NotFound)
            {
                return Err(setup(error));
            }
        }
        let target = json!({"resource": "pods", "namespace": "default", "name": pod.name});
        call(client, "delete", json!({"targets": [target]}))?;
        Namespace::delete(&pod.network).map_err(setup)
    }

    fn unplug(&self, pod: &Pod) -> Result<(), BenchError> {
        let mut netlink = connect(&self.namespace)?;
        let index = find(&mut netlink, &pod.interface)?;
        netlink.delete_link(index).map_err(setup)
    }
}

/// One request.
pub fn call(client: &mut Client, method: &str, params: Value) -> Result<Value, BenchError> {
    let reply: Result<Value, _> = client.call(method, params);
    reply.map_err(|error| setup(format!("{method}: {error}")))
}

fn start_daemon(
    namespace: &Namespace,
    name: &str,
    folder: &std::path::Path,
    workers: &[u16],
) -> Result<Child, BenchError> {
    let mut netlink = connect(namespace)?;
    let lo = find(&mut netlink, "lo")?;
    netlink.set_up(lo).map_err(setup)?;
    let text = format!(
        "instance = '{name}'\nnode_name = 'n1'\nsocket = '{folder}/weir.sock'\n\
         runtime_dir = '{folder}'\nstate_dir = '{folder}/state'\nworkers = {workers:?}\n\
         pod_ranges = ['10.244.0.0/16']\n[conntrack]\ncapacity = 20000\n\
         [host_port]\naddresses = ['10.254.0.1']\n\
         [log]\npath = '{folder}/network-policy.log'\nfile_bytes = 1000000\n\
         [self_check]\nsample_one_in = 4\ncpu_percent = 10\n",
        folder = folder.display(),
    );
    spawn(namespace, folder, &text)
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        let own = format!("{}-", self.name);
        for network in Namespace::names() {
            if network.starts_with(&own) {
                let _ = Namespace::delete(&network);
            }
        }
        let _ = Namespace::delete(&self.name);
        let _ = fs::remove_dir_all(&self.folder);
        let _ = fs::remove_dir_all(crate::system::pins(&self.name));
    }
}
