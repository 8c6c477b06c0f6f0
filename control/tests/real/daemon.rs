//! The daemon itself: a process, two pods behind it, packets of the kernel's own stacks.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use control::client::Client;
use control::netlink::{Namespace, Netlink, Route, VethEnd};
use control::protocol::{EndpointAdded, Mutation, OperationKind, Reason, Status};
use serde_json::{Value, json};

/// How long what should come is waited for.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long what should not come is.
const SILENCE: Duration = Duration::from_millis(1500);

pub struct Pod {
    name: &'static str,
    pub namespace: Namespace,
    pub addresses: Vec<IpAddr>,
    mac: String,
}

pub struct Node {
    pub tag: String,
    pub folder: PathBuf,
    pub namespace: Namespace,
    daemon: Option<Child>,
    pods: Vec<Pod>,
}

impl Node {
    pub fn new(name: &str) -> Node {
        Node::with(name, "")
    }

    /// A node with more in its configuration.
    pub fn with(name: &str, more: &str) -> Node {
        Node::prepared(name, more, |_| {})
    }

    /// And with more in its network namespace before its daemon starts; `prepare` gets its name.
    pub fn prepared(name: &str, more: &str, prepare: impl FnOnce(&str)) -> Node {
        let tag = format!("weir-daemon-{}-{name}", std::process::id());
        let folder = PathBuf::from("/run").join(&tag);
        fs::create_dir_all(&folder).unwrap();
        let namespace = Namespace::create(&tag).unwrap();
        up(&namespace, "lo");
        prepare(&tag);
        let text = format!(
            "instance = '{tag}'\nnode_name = 'n1'\nsocket = '{0}/weir.sock'\nruntime_dir = '{0}'\n\
             state_dir = '{0}/state'\nworkers = [0, 1]\npod_ranges = ['10.77.0.0/24', 'fd77::/64']\n\
             [host_port]\naddresses = ['10.254.0.1', 'fd54::1']\n\
             [log]\npath = '{0}/network-policy.log'\n{more}",
            folder.display()
        );
        fs::write(folder.join("weir.toml"), text).unwrap();
        let mut node = Node {
            tag,
            folder,
            namespace,
            daemon: None,
            pods: Vec::new(),
        };
        node.start();
        node
    }

    fn start(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command
            .arg("daemon")
            .arg("--config")
            .arg(self.folder.join("weir.toml"));
        let log = fs::File::options()
            .append(true)
            .create(true)
            .open(self.folder.join("out"));
        command.stderr(log.unwrap());
        // A child starts in the namespace of the thread that makes it.
        self.daemon = Some(self.namespace.run(|| command.spawn().unwrap()).unwrap());
        let deadline = Instant::now() + PATIENCE;
        while Client::connect(self.folder.join("weir.sock")).is_err() {
            let ended = self.daemon.as_mut().unwrap().try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "{}",
                self.output()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().unwrap().id()
    }

    fn output(&self) -> String {
        fs::read_to_string(self.folder.join("out")).unwrap_or_default()
    }

    fn kill(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    pub fn client(&self) -> Client {
        let mut client = Client::connect(self.folder.join("weir.sock")).unwrap();
        client.set_timeout(Some(PATIENCE)).unwrap();
        client
    }

    pub fn apply(&self, objects: Value) -> Mutation {
        let applied = self
            .client()
            .call::<Mutation>("apply", json!({"objects": objects}));
        let applied = applied.unwrap();
        assert_eq!((applied.workers.live, applied.workers.total), (2, 2));
        applied
    }

    /// A pod's object, its veth pair, and its endpoint unless `add` says not.
    pub fn pod(&mut self, name: &'static str, number: u8, add: bool) {
        self.wide_pod(name, number, 1, add);
    }

    /// As [`Node::pod`], with so many queues each way.
    pub fn wide_pod(&mut self, name: &'static str, number: u8, queues: u32, add: bool) {
        let namespace = Namespace::create(&format!("{}-{name}", self.tag)).unwrap();
        up(&namespace, "lo");
        let mut netlink = self.namespace.run(Netlink::connect).unwrap().unwrap();
        let mac = [2, 0, 0, 0, 0, number];
        let interface = format!("wp-{name}");
        let peer = VethEnd {
            mac: Some(mac),
            namespace: Some(namespace.as_fd()),
            queues,
            ..VethEnd::new("eth0")
        };
        let own = VethEnd {
            queues,
            ..VethEnd::new(&interface)
        };
        netlink.create_veth(&own, &peer).unwrap();
        let mut netlink = namespace.run(Netlink::connect).unwrap().unwrap();
        let eth0 = netlink.link("eth0").unwrap().unwrap().index;
        netlink.set_up(eth0).unwrap();
        let addresses: Vec<IpAddr> = [format!("10.77.0.{number}"), format!("fd77::{number}")]
            .iter()
            .map(|address| address.parse().unwrap())
            .collect();
        for (address, gateway) in addresses.iter().zip(["169.254.1.1", "fe80::1"]) {
            netlink.add_address(eth0, (*address).into()).unwrap();
            let everything = if address.is_ipv4() {
                "0.0.0.0/0"
            } else {
                "::/0"
            };
            let gateway = Some(gateway.parse().unwrap());
            netlink
                .add_route(&Route {
                    on_link: true,
                    ..Route::via(everything.parse().unwrap(), gateway, eth0)
                })
                .unwrap();
        }
        self.pods.push(Pod {
            name,
            namespace,
            addresses,
            mac: format!("02:00:00:00:00:{number:02x}"),
        });
        self.apply(json!([{
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"containers": [{"name": "c", "image": "none"}]}
        }]));
        if add {
            self.add_endpoint(name);
        }
    }

    pub fn find(&self, name: &str) -> &Pod {
        self.pods.iter().find(|pod| pod.name == name).unwrap()
    }

    pub fn uid(&self, name: &str) -> String {
        let params = json!({"resource": "pods", "name": name});
        let found: Value = self.client().call("get", params).unwrap();
        found["items"][0]["metadata"]["uid"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    pub fn add_endpoint(&self, name: &str) -> EndpointAdded {
        let pod = self.find(name);
        let params = json!({
            "namespace": "default", "name": name, "uid": self.uid(name),
            "interface": format!("wp-{name}"), "mac": pod.mac, "addresses": pod.addresses,
        });
        let added: EndpointAdded = self.client().call("endpoint.add", params).unwrap();
        assert_eq!((added.workers.live, added.workers.total), (2, 2));
        assert_eq!(added.warnings, [""; 0]);
        added
    }

    /// Whether a connection works, in one family: a byte there and back.
    pub fn connects(&self, from: &Namespace, to: &str, v6: bool) -> bool {
        self.attempt(from, to, v6, PATIENCE)
    }

    /// Whether a connection attempt times out.
    pub fn is_silent(&self, from: &Namespace, to: &str, v6: bool) -> bool {
        !self.attempt(from, to, v6, SILENCE)
    }

    fn attempt(&self, from: &Namespace, to: &str, v6: bool, timeout: Duration) -> bool {
        let address = self.address(to, v6);
        let result = from.run(|| connect(address, timeout)).unwrap();
        eprintln!("connect to {address}: {:?}", result.as_ref().map(drop));
        result.is_ok()
    }

    fn address(&self, name: &str, v6: bool) -> SocketAddr {
        SocketAddr::new(self.find(name).addresses[usize::from(v6)], 8080)
    }

    pub fn log(&self) -> String {
        std::thread::sleep(Duration::from_millis(300));
        fs::read_to_string(self.folder.join("network-policy.log")).unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(mut client) = Client::connect(self.folder.join("weir.sock"))
        {
            let counters = client.call::<Value>("counters", json!({}));
            eprintln!("{}\n{counters:#?}", self.output());
        }
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        for pod in &self.pods {
            let _ = Namespace::delete(&format!("{}-{}", self.tag, pod.name));
        }
        let _ = Namespace::delete(&self.tag);
        let _ = fs::remove_dir_all(&self.folder);
        let _ = fs::remove_dir_all(PathBuf::from("/sys/fs/bpf/weir").join(&self.tag));
    }
}

fn up(namespace: &Namespace, name: &str) {
    let mut netlink = namespace.run(Netlink::connect).unwrap().unwrap();
    let link = netlink.link(name).unwrap().unwrap();
    netlink.set_up(link.index).unwrap();
}

fn connect(to: SocketAddr, timeout: Duration) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&to, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    exchange(&mut stream)?;
    Ok(stream)
}

fn exchange(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"x")?;
    stream.read_exact(&mut [0])
}

/// Answers every byte in the pod, on every address, until the process ends.
pub fn serve(pod: &Pod) {
    let listener = pod
        .namespace
        .run(|| TcpListener::bind("[::]:8080").unwrap())
        .unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut buffer = [0; 64];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    let _ = stream.write_all(&buffer[..count]);
                }
            });
        }
    });
}

pub fn deny_b() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "deny-b"},
        "spec": {"podSelector": {"matchLabels": {"app": "b"}}, "policyTypes": ["Ingress"]}
    })
}

pub fn policy_is_enforced_the_moment_the_reply_is_there() {
    let mut node = Node::new("policy");
    node.pod("a", 2, true);
    node.pod("b", 3, false);
    serve(node.find("b"));
    let a = &node.find("a").namespace;
    assert!(
        node.is_silent(a, "b", false),
        "a port that was not added passes packets"
    );
    node.add_endpoint("b");
    for v6 in [false, true] {
        assert!(node.connects(a, "b", v6));
        assert!(
            node.connects(&node.namespace, "b", v6),
            "the node reaches its pods"
        );
    }
    let mut live = a
        .run(|| connect(node.address("b", false), PATIENCE).unwrap())
        .unwrap();

    let applied = node.apply(json!([deny_b()]));
    assert_eq!(applied.results[0].operation, OperationKind::Created);
    let error = exchange(&mut live).unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::WouldBlock,
        "what was live is cut in silence: {error}"
    );
    for v6 in [false, true] {
        assert!(node.is_silent(a, "b", v6));
        assert!(
            node.connects(&node.namespace, "b", v6),
            "probes of the node always pass"
        );
    }
    let log = node.log();
    let expected = format!(
        "PolicyVerdict: DENY;Tier: NETWORK_POLICY;Direction: INGRESS;Source: default/a;\
         Destination: default/b;Policy: default/deny-b;Reason: no rule allows anything;\
         Generation: {}",
        applied.generation
    );
    for address in ["SIP: 10.77.0.2;", "SIP: fd77::2;"] {
        assert!(
            log.lines()
                .any(|l| l.contains(address) && l.contains(&expected)),
            "{log}"
        );
    }

    let mut broken = deny_b();
    broken["spec"]["policyTypes"] = json!(["Nonsense"]);
    let refused = node
        .client()
        .call::<Mutation>("apply", json!({"objects": [broken]}));
    assert_eq!(refused.unwrap_err().reason(), Some(Reason::Invalid));
    assert!(
        node.is_silent(a, "b", false),
        "a refused change has changed something"
    );

    let params = json!({"targets": [{"resource": "netpol", "name": "deny-b"}]});
    node.client().call::<Mutation>("delete", params).unwrap();
    assert!(node.connects(a, "b", false));
    assert!(node.connects(a, "b", true));
}

pub fn a_dry_run_tells_what_it_would_cut_and_cuts_nothing() {
    let mut node = Node::new("preview");
    node.pod("a", 2, true);
    node.pod("b", 3, true);
    node.pod("c", 4, true);
    serve(node.find("b"));
    let a = &node.find("a").namespace;
    let mut live = a
        .run(|| connect(node.address("b", false), PATIENCE).unwrap())
        .unwrap();
    // What the node itself sends stays allowed, and so does its connection.
    let mut probe = node
        .namespace
        .run(|| connect(node.address("b", false), PATIENCE).unwrap())
        .unwrap();
    let before: Status = node.client().call("status", json!({})).unwrap();
    let try_out = |method: &str, mut params: Value| {
        params["dryRun"] = json!(true);
        let tried: Mutation = node.client().call(method, params).unwrap();
        tried.preview.unwrap()
    };
    let preview = try_out("apply", json!({"objects": [deny_b()]}));
    let closes: Vec<(String, String, String)> = preview
        .closes
        .iter()
        .map(|g| (g.from.join(" "), g.to.join(" "), g.ports.clone()))
        .collect();
    let expected = (
        "default/a default/c other IPv4 addresses other IPv6 addresses",
        "default/b",
        "everything",
    );
    let (from, to, ports) = &closes[0];
    assert_eq!((from.as_str(), to.as_str(), ports.as_str()), expected);
    assert_eq!((closes.len(), preview.opened_pairs), (1, 0));
    assert_eq!(preview.cut_connections, 1, "{preview:?}");
    let cut = &preview.cuts[0];
    let port = live.local_addr().unwrap().port();
    assert_eq!(
        (cut.from.as_str(), cut.to.as_str(), cut.protocol.as_str()),
        ("default/a", "default/b", "TCP")
    );
    assert_eq!((cut.source_port, cut.destination_port), (port, 8080));
    assert_eq!(
        cut.reason,
        "ingress: isolated by default/deny-b, no rule allows it"
    );

    exchange(&mut live).unwrap();
    exchange(&mut probe).unwrap();
    assert!(node.connects(&node.find("a").namespace, "b", true));
    let after: Status = node.client().call("status", json!({})).unwrap();
    assert_eq!(after.generation, before.generation);

    // For real it is as was told, and its deletion opens what it closed.
    node.apply(json!([deny_b()]));
    assert!(exchange(&mut live).is_err());
    exchange(&mut probe).unwrap();
    let target = json!({"targets": [{"resource": "netpol", "name": "deny-b"}]});
    let preview = try_out("delete", target);
    assert_eq!(preview.closed_pairs, 0);
    assert_eq!(preview.cut_connections, 0);
    assert_eq!(preview.opens[0].to, ["default/b"]);
    assert!(node.is_silent(&node.find("a").namespace, "b", false));
}

pub fn killed_it_is_closed_and_started_again_it_goes_on() {
    let mut node = Node::new("restart");
    node.pod("a", 2, true);
    node.pod("b", 3, true);
    node.pod("c", 4, true);
    serve(node.find("b"));
    serve(node.find("c"));
    node.apply(json!([deny_b()]));
    let a = &node.find("a").namespace;
    let mut live = a
        .run(|| connect(node.address("c", false), PATIENCE).unwrap())
        .unwrap();
    let before: Status = node.client().call("status", json!({})).unwrap();

    node.kill();
    let a = &node.find("a").namespace;
    assert!(
        node.is_silent(a, "c", false),
        "without a daemon packets pass"
    );
    assert!(
        node.is_silent(&node.namespace, "c", false),
        "the node's stack reaches a pod"
    );

    node.start();
    let after: Status = node.client().call("status", json!({})).unwrap();
    assert!(after.generation > before.generation);
    let ports = |status: &Status| -> Vec<(u16, String)> {
        status
            .ports
            .iter()
            .map(|port| (port.port, port.interface.clone()))
            .collect()
    };
    assert_eq!(ports(&after), ports(&before));
    live.set_read_timeout(Some(PATIENCE)).unwrap();
    exchange(&mut live).unwrap();
    let a = &node.find("a").namespace;
    assert!(node.connects(a, "c", true));
    assert!(node.is_silent(a, "b", false), "the policy is forgotten");
}

pub fn an_interface_that_goes_takes_its_endpoint_along() {
    let mut node = Node::new("gone");
    node.pod("a", 2, true);
    node.pod("b", 3, true);
    serve(node.find("a"));
    let mut netlink = node.namespace.run(Netlink::connect).unwrap().unwrap();
    let index = netlink.link("wp-b").unwrap().unwrap().index;
    netlink.delete_link(index).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status: Status = node.client().call("status", json!({})).unwrap();
        if status.ports.iter().all(|port| port.interface != "wp-b") {
            break;
        }
        assert!(Instant::now() < deadline, "the port is still there");
        std::thread::sleep(Duration::from_millis(20));
    }
    let removal = node
        .client()
        .call::<Mutation>("endpoint.remove", json!({"uid": node.uid("b")}));
    assert_eq!(removal.unwrap_err().reason(), Some(Reason::NotFound));
    assert!(node.connects(&node.namespace, "a", false));
    let uid = node.uid("a");
    node.client()
        .call::<Mutation>("endpoint.remove", json!({"uid": uid}))
        .unwrap();
    assert!(node.is_silent(&node.namespace, "a", false));
    node.add_endpoint("a");
    assert!(node.connects(&node.namespace, "a", false));
}
