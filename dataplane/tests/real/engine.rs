//! The whole dataplane: an engine with two workers between three pods and the node's own stack, in
//! network namespaces named `weir-pipeline-PID-…`.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use dataplane::conntrack::Timeouts;
use dataplane::counters::{Counter, RuleHits};
use dataplane::engine::{ConntrackOptions, Engine, EngineError, Options, PortSpec};
use dataplane::events::{Event, EventKind};
use dataplane::fragments::Bounds;
use dataplane::policy::ir::{Block, Chain, EndpointPolicy, Peers, PortRange, Ports, Rule};
use dataplane::policy::{EndpointSlot, PolicyTable, ir};
use dataplane::polling::Polling;
use dataplane::route::{NextHop, Route, RouteTable, RouteTarget};
use dataplane::snapshot::{
    Endpoint, Epoch, Generation, Incarnation, Neighbour, Parts, Port, PortId, Role, Snapshot,
};
use dataplane::{Address, CounterId, Mac, PolicyId, Protocol, Tier};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const PODS: usize = 3;
pub const PATIENCE: Duration = Duration::from_millis(600);

pub fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs `work` on a thread in a network namespace.
pub fn inside<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    let file = std::fs::File::open(format!("/run/netns/{namespace}")).unwrap();
    let entered = || {
        use std::os::fd::AsFd;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        work()
    };
    thread::scope(|scope| scope.spawn(entered).join())
        .unwrap_or_else(|e| std::panic::resume_unwind(e))
}

fn address(text: &str) -> Address {
    Address::from(text.parse::<IpAddr>().unwrap())
}

pub fn pod_address(pod: usize, v4: bool) -> IpAddr {
    let text = if v4 {
        format!("10.9.0.1{pod}")
    } else {
        format!("fd09::1{pod}")
    };
    text.parse().unwrap()
}

fn pod_mac(pod: usize) -> Mac {
    Mac([2, 0, 0, 9, 0, pod as u8])
}

fn port_mac(number: usize) -> Mac {
    Mac([2, 0, 0, 9, 1, number as u8])
}

const NODE_MAC: Mac = Mac([2, 0, 0, 9, 2, 0]);
const OUTSIDE_MAC: Mac = Mac([2, 0, 0, 9, 3, 0]);

pub fn outside(v4: bool) -> IpAddr {
    let text = if v4 { "198.51.100.1" } else { "2001:db8::1" };
    text.parse().unwrap()
}

/// Namespaces, veths, a bpffs, and an engine in their midst.
pub struct Lab {
    prefix: String,
    bpffs: PathBuf,
    engine: Option<Engine>,
    pub parts: Parts,
    policies: Vec<EndpointPolicy>,
}

impl Lab {
    pub fn new(name: &str, workers: usize) -> Lab {
        let prefix = format!("weir-pipeline-{}-{name}", std::process::id());
        let bpffs = PathBuf::from(format!("/run/{prefix}-bpf"));
        std::fs::create_dir(&bpffs).unwrap();
        run(&format!("mount -t bpf bpf {}", bpffs.display()));
        let mut lab = Lab {
            prefix,
            bpffs,
            engine: None,
            parts: Parts::default(),
            policies: vec![EndpointPolicy::default(); PODS],
        };
        lab.make_namespaces();
        lab.make_uplink();
        let cores = (0..workers).collect();
        let pin_dir = lab.bpffs.join("weir");
        let start = || Engine::start(options(cores, pin_dir)).unwrap();
        lab.engine = Some(inside(&lab.node(), start));
        lab.add_ports();
        lab.publish();
        lab
    }

    pub fn node(&self) -> String {
        format!("{}-node", self.prefix)
    }

    pub fn outside(&self) -> String {
        format!("{}-out", self.prefix)
    }

    pub fn pod(&self, pod: usize) -> String {
        format!("{}-pod{pod}", self.prefix)
    }

    fn make_namespaces(&self) {
        let node = self.node();
        run(&format!("ip netns add {node}"));
        run(&format!("ip -n {node} link set lo up"));
        for pod in 0..PODS {
            let ns = self.pod(pod);
            run(&format!("ip netns add {ns}"));
            run(&format!("ip -n {ns} link set lo up"));
            run(&format!(
                "ip -n {node} link add p{pod} address {} type veth peer name eth0 address {} \
                 netns {ns}",
                port_mac(pod),
                pod_mac(pod)
            ));
            run(&format!("ip -n {node} link set p{pod} addrgenmode none"));
            run(&format!("ip -n {node} link set p{pod} up"));
            run(&format!("ip -n {ns} link set eth0 up"));
            run(&format!(
                "ip -n {ns} addr add {}/32 dev eth0",
                pod_address(pod, true)
            ));
            run(&format!(
                "ip -n {ns} addr add {}/128 dev eth0 nodad",
                pod_address(pod, false)
            ));
            run(&format!(
                "ip -n {ns} route add 169.254.1.1 dev eth0 scope link"
            ));
            run(&format!(
                "ip -n {ns} route add default via 169.254.1.1 dev eth0"
            ));
            run(&format!(
                "ip -n {ns} route add default via fe80::1 dev eth0"
            ));
        }
        run(&format!(
            "ip -n {node} link add host address {} type veth peer name weir-node address {}",
            port_mac(9),
            NODE_MAC
        ));
        run(&format!("ip -n {node} link set host addrgenmode none"));
        run(&format!("ip -n {node} link set host up"));
        run(&format!("ip -n {node} link set weir-node up"));
        run(&format!(
            "ip -n {node} addr add 10.9.255.1/32 dev weir-node"
        ));
        run(&format!(
            "ip -n {node} addr add fd09:ffff::1/128 dev weir-node nodad"
        ));
        run(&format!(
            "ip -n {node} route add 169.254.1.1 dev weir-node scope link"
        ));
        run(&format!(
            "ip -n {node} route add 10.9.0.0/24 via 169.254.1.1 dev weir-node"
        ));
        run(&format!(
            "ip -n {node} route add fd09::/64 via fe80::1 dev weir-node"
        ));
    }

    /// A veth to the outside, which routes the pods' ranges to the node.
    fn make_uplink(&self) {
        let (node, out) = (self.node(), self.outside());
        run(&format!("ip netns add {out}"));
        run(&format!("ip -n {out} link set lo up"));
        run(&format!(
            "ip -n {node} link add uplink address {} type veth peer name eth0 address {} netns {out}",
            port_mac(8),
            OUTSIDE_MAC
        ));
        run(&format!("ip -n {node} link set uplink up"));
        run(&format!("ip -n {out} link set eth0 up"));
        run(&format!("ip -n {node} addr add 198.51.100.2/24 dev uplink"));
        run(&format!(
            "ip -n {node} addr add 2001:db8::2/64 dev uplink nodad"
        ));
        run(&format!("ip -n {out} addr add 198.51.100.1/24 dev eth0"));
        run(&format!(
            "ip -n {out} addr add 2001:db8::1/64 dev eth0 nodad"
        ));
        run(&format!(
            "ip -n {out} route add 10.9.0.0/24 via 198.51.100.2"
        ));
        run(&format!("ip -n {out} route add fd09::/64 via 2001:db8::2"));
    }

    fn ifindex(&self, interface: &str) -> u32 {
        let line = run(&format!("ip -n {} -o link show {interface}", self.node()));
        line.split(':').next().unwrap().parse().unwrap()
    }

    pub fn engine(&mut self) -> &mut Engine {
        self.engine.as_mut().unwrap()
    }

    fn add_port(&mut self, interface: &str, role: Role) -> PortId {
        let ifindex = self.ifindex(interface);
        let node = self.node();
        let engine = self.engine();
        let spec = PortSpec {
            ifindex,
            role,
            queues: 1,
            transmit_queues: 1,
            zero_copy: false,
            number: None,
        };
        inside(&node, || engine.add_port(&spec)).unwrap()
    }

    fn add_ports(&mut self) {
        for pod in 0..PODS {
            let id = self.add_port(&format!("p{pod}"), Role::Pod);
            let slot = EndpointSlot(pod as u16);
            self.parts
                .ports
                .push(port(id, Role::Pod, port_mac(pod), Some(slot)));
            self.parts.epochs.push(Epoch(1));
            self.parts.endpoints.push(Endpoint {
                slot,
                incarnation: Incarnation(pod as u32 + 1),
                port: id,
                mac: pod_mac(pod),
                addresses: [true, false]
                    .map(|v4| pod_address(pod, v4).into())
                    .into_iter()
                    .collect(),
            });
        }
        let id = self.add_port("host", Role::HostNode);
        let mut host = port(id, Role::HostNode, port_mac(9), None);
        host.peer_mac = Some(NODE_MAC);
        self.parts.ports.push(host);
        let uplink = self.add_port("uplink", Role::Uplink);
        self.parts
            .ports
            .push(port(uplink, Role::Uplink, port_mac(8), None));
        let local = ["10.9.0.0/24", "fd09::/64"].map(|prefix| prefix.parse().unwrap());
        self.engine().set_local_prefixes(&local).unwrap();
        let route = |prefix: &str, port, next_hop| Route {
            prefix: prefix.parse().unwrap(),
            target: Some(RouteTarget { port, next_hop }),
        };
        let gateway = |v4| NextHop::Gateway(outside(v4).into());
        let routes = RouteTable::new(&[
            route("10.9.255.1/32", id, NextHop::OnLink),
            route("fd09:ffff::1/128", id, NextHop::OnLink),
            route("0.0.0.0/0", uplink, gateway(true)),
            route("::/0", uplink, gateway(false)),
        ]);
        self.parts.routes = Arc::new(routes);
        for v4 in [true, false] {
            let (address, mac) = (outside(v4).into(), OUTSIDE_MAC);
            self.parts.neighbours.push(Neighbour {
                port: uplink,
                address,
                mac,
            });
        }
        self.parts.node_addresses = vec![
            address("10.9.255.1"),
            address("fd09:ffff::1"),
            address("198.51.100.2"),
            address("2001:db8::2"),
        ];
        self.parts.gateways = vec![address("169.254.1.1"), address("fe80::1")];
    }

    pub fn publish(&mut self) {
        let slots: Vec<_> = self
            .policies
            .iter()
            .enumerate()
            .map(|(i, p)| (EndpointSlot(i as u16), p))
            .collect();
        self.parts.policy = Arc::new(PolicyTable::compile(&slots));
        self.parts.generation.0 += 1;
        let snapshot = Snapshot::build(self.parts.clone()).unwrap();
        let acknowledged = self.engine().publish(snapshot).unwrap();
        assert_eq!(acknowledged.generation, self.parts.generation);
    }

    pub fn set_policy(&mut self, pod: usize, policy: EndpointPolicy) {
        self.policies[pod] = policy;
        self.parts.epochs[pod] = Epoch::from(Generation(self.parts.generation.0 + 1));
        self.publish();
    }

    fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        self.engine()
            .drain_events(usize::MAX, |event| events.push(*event));
        events
    }

    /// Stops the engine, having seen that every packet and every frame is accounted for.
    pub fn finish(mut self) {
        let engine = self.engine.take().unwrap();
        let deadline = Instant::now() + Duration::from_secs(2);
        while engine.counters().unaccounted() != 0 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        let totals = engine.counters();
        assert_eq!(totals.unaccounted(), 0, "{totals:?}");
        engine.check_workers().unwrap();
        let umem = Arc::clone(engine.umem());
        engine.stop();
        umem.reclaim();
        let census = umem.census();
        assert_eq!(census.free, umem.chunks(), "{census:?}");
        assert_eq!(umem.lost(), 0);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.engine = None;
        let ip = |args: &[&str]| drop(Command::new("ip").args(args).output());
        for pod in 0..PODS {
            ip(&["netns", "del", &self.pod(pod)]);
        }
        ip(&["netns", "del", &self.node()]);
        ip(&["netns", "del", &self.outside()]);
        drop(Command::new("umount").arg(&self.bpffs).output());
        drop(std::fs::remove_dir(&self.bpffs));
    }
}

fn options(cores: Vec<usize>, pin_dir: PathBuf) -> Options {
    Options {
        cores,
        ports_max: 16,
        umem_chunks: 4096,
        umem_chunk_bytes: 4096,
        pin_dir,
        conntrack: ConntrackOptions {
            file: None,
            boot: 1,
            capacity: 4096,
            quota_percent: 50,
            strict_tcp: false,
            timeouts: Timeouts::default(),
            adoption_window_s: 0,
        },
        fragments: Bounds {
            datagrams: 64,
            frames: 64,
            port_percent: 100,
            pieces: 64,
            timeout_ms: 1000,
        },
        affinity_bonds: 1024,
        rule_counters: 1024,
        events_max: 1024,
        polling: Polling::Adaptive {
            longest: Duration::from_micros(200),
        },
        publish_patience: Duration::from_secs(2),
    }
}

fn port(id: PortId, role: Role, mac: Mac, endpoint: Option<EndpointSlot>) -> Port {
    Port {
        id,
        role,
        mac,
        mtu: 1500,
        is_virtual: true,
        icmp_source_v4: Some(address("169.254.1.1")),
        icmp_source_v6: Some(address("fe80::1")),
        endpoint,
        peer_mac: None,
    }
}

/// A NetworkPolicy that isolates ingress, and lets `pod` reach `number` if one is given.
pub fn only(pod: usize, number: Option<(Protocol, u16)>) -> EndpointPolicy {
    let block = |v4| Block {
        prefix: pod_address(pod, v4).into(),
        except: vec![],
    };
    let rule = number.map(|(protocol, number)| {
        Arc::new(Rule {
            policy: PolicyId(5),
            index: 0,
            tier: Tier::NetworkPolicy,
            action: ir::Action::Accept,
            counter: CounterId::NONE,
            peers: Peers::blocks([block(true), block(false)]),
            ports: Ports::List(
                [PortRange {
                    protocol,
                    first: number,
                    last: number,
                }]
                .into(),
            ),
        })
    });
    let chain = Chain {
        bound: vec![],
        isolating: vec![ir::Isolation {
            policy: PolicyId(5),
            counter: CounterId::NONE,
        }],
        rules: rule.into_iter().collect(),
    };
    EndpointPolicy {
        ingress: chain,
        egress: Chain::default(),
    }
}

fn pings(namespace: &str, to: IpAddr) -> bool {
    let args = [
        "netns",
        "exec",
        namespace,
        "ping",
        "-c1",
        "-W1",
        "-n",
        &to.to_string(),
    ];
    Command::new("ip")
        .args(args)
        .output()
        .unwrap()
        .status
        .success()
}

/// Serves one TCP connection at `pod`: sends back the sum of what it reads. Returns its port.
fn serve_sum(namespace: &str, at: IpAddr, connections: usize) -> u16 {
    serve_sum_at(namespace, (at, 0).into(), connections)
}

/// The same at a port that is given.
pub fn serve_sum_at(namespace: &str, at: SocketAddr, connections: usize) -> u16 {
    let listener = inside(namespace, || TcpListener::bind(at).unwrap());
    let number = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().take(connections) {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let (mut sum, mut buffer) = (0u64, vec![0; 1 << 16]);
                loop {
                    match stream.read(&mut buffer) {
                        Ok(0) | Err(_) => break,
                        Ok(read) => sum = checksum(sum, &buffer[..read]),
                    }
                }
                let _ = stream.write_all(&sum.to_be_bytes());
            });
        }
    });
    number
}

/// Depends on every byte and its place.
fn checksum(sum: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(sum, |sum, byte| {
        sum.rotate_left(7).wrapping_add(u64::from(*byte) + 1)
    })
}

pub fn connect(namespace: &str, to: SocketAddr) -> std::io::Result<TcpStream> {
    inside(namespace, || TcpStream::connect_timeout(&to, PATIENCE))
}

pub fn transfer(namespace: &str, to: SocketAddr, bytes: usize) {
    let mut stream = connect(namespace, to).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream
        .set_write_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut expected = 0;
    let mut sent = 0;
    let mut block = vec![0u8; 1 << 16];
    while sent < bytes {
        for (index, byte) in block.iter_mut().enumerate() {
            *byte = ((sent + index) as u32)
                .wrapping_mul(2_654_435_761)
                .to_be_bytes()[0];
        }
        stream.write_all(&block).unwrap();
        expected = checksum(expected, &block);
        sent += block.len();
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(u64::from_be_bytes(answer), expected);
}

/// Whether a datagram to `to` comes back.
fn udp_echo(from: &str, at: &str, to: IpAddr) -> bool {
    let (client, server) = udp_pair(from, at, to);
    comes_back(&client, &server)
}

/// A socket in `from` whose datagrams go to the one in `at`, at address `to`.
pub fn udp_pair(from: &str, at: &str, to: IpAddr) -> (UdpSocket, UdpSocket) {
    let server = inside(at, || UdpSocket::bind((to, 0)).unwrap());
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let client = inside(from, || UdpSocket::bind(any).unwrap());
    client.connect(server.local_addr().unwrap()).unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    (client, server)
}

pub fn comes_back(client: &UdpSocket, server: &UdpSocket) -> bool {
    client.send(b"weir").unwrap();
    let mut buffer = [0; 16];
    let Ok((_, back)) = server.recv_from(&mut buffer) else {
        return false;
    };
    server.send_to(b"reiw", back).unwrap();
    client.recv(&mut buffer).is_ok()
}

/// Ping, UDP and TCP with offloaded checksums between pods and with the node, both families.
pub fn packets_pass_between_pods_and_the_node() {
    let mut lab = Lab::new("pass", 2);
    for v4 in [true, false] {
        let (a, b) = (lab.pod(0), lab.pod(1));
        let to = pod_address(1, v4);
        assert!(pings(&a, to), "v4 {v4}");
        assert!(pings(&lab.node(), to), "the node, v4 {v4}");
        let node = if v4 { "10.9.255.1" } else { "fd09:ffff::1" };
        assert!(pings(&b, node.parse().unwrap()), "to the node, v4 {v4}");
        assert!(udp_echo(&a, &b, to), "v4 {v4}");
        let number = serve_sum(&b, to, 1);
        transfer(&a, (to, number).into(), 64 << 20);
    }
    let totals = lab.engine().counters();
    assert!(
        totals.counter(Counter::Answered) >= 4,
        "ARP and neighbour discovery: {totals:?}"
    );
    for pod in &lab.parts.ports[..2] {
        assert!(totals.port(pod.id).received > 1000, "{totals:?}");
    }
    lab.finish();
}

/// Pods and the outside reach each other through the uplink, checksums offloaded; the node keeps
/// what is its own there.
pub fn packets_pass_through_the_uplink() {
    let mut lab = Lab::new("uplink", 2);
    let (a, out, node) = (lab.pod(0), lab.outside(), lab.node());
    for v4 in [true, false] {
        assert!(pings(&a, outside(v4)), "v4 {v4}");
        assert!(pings(&out, pod_address(0, v4)), "v4 {v4}");
        assert!(pings(&node, outside(v4)), "the node's own, v4 {v4}");
        let number = serve_sum(&out, outside(v4), 1);
        transfer(&a, (outside(v4), number).into(), 8 << 20);
        let number = serve_sum(&a, pod_address(0, v4), 1);
        transfer(&out, (pod_address(0, v4), number).into(), 8 << 20);
    }
    let policy = EndpointPolicy {
        egress: only(1, None).ingress,
        ..EndpointPolicy::default()
    };
    lab.set_policy(0, policy);
    for v4 in [true, false] {
        assert!(!pings(&a, outside(v4)), "egress is shut, v4 {v4}");
        assert!(pings(&out, pod_address(0, v4)), "ingress is not, v4 {v4}");
    }
    lab.finish();
}

/// What policy denies times out in silence, the moment `publish` has returned; what it allows
/// passes; live connections are cut; denials are told with their policy.
pub fn policy_decides_and_cuts_live_connections() {
    let mut lab = Lab::new("policy", 2);
    let namespaces: Vec<String> = (0..PODS).map(|pod| lab.pod(pod)).collect();
    for v4 in [true, false] {
        let to = pod_address(2, v4);
        let open = SocketAddr::new(to, serve_sum(&namespaces[2], to, 9));
        let shut = SocketAddr::new(to, serve_sum(&namespaces[2], to, 9));
        let mut live = connect(&namespaces[0], shut).unwrap();
        connect(&namespaces[1], open).unwrap();
        lab.set_policy(2, only(0, Some((Protocol::TCP, open.port()))));
        lab.events();
        connect(&namespaces[0], open).unwrap();
        for (from, to) in [(0, shut), (1, open), (1, shut)] {
            let error = connect(&namespaces[from], to).unwrap_err();
            assert!(is_timeout(&error), "{from} to {to}: {error}");
        }
        assert!(!pings(&namespaces[0], to), "echo needs a rule for any port");
        assert!(!udp_echo(&namespaces[0], &namespaces[2], to));
        assert!(pings(&lab.node(), to), "the node reaches its pods");
        live.write_all(b"cut").unwrap();
        live.shutdown(std::net::Shutdown::Write).unwrap();
        live.set_read_timeout(Some(PATIENCE)).unwrap();
        assert!(is_timeout(&live.read(&mut [0; 8]).unwrap_err()));
        let denied = |e: &&Event| match e.kind {
            EventKind::Denied(verdict) => verdict.provenance.policy == Some(PolicyId(5)),
            _ => false,
        };
        let events = lab.events();
        let count = events.iter().filter(denied).count();
        assert!(
            count >= 6,
            "3 connections, ping, UDP and the one cut: {events:?}"
        );
        lab.set_policy(2, EndpointPolicy::default());
        let mut answer = [0; 8];
        live.set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        live.read_exact(&mut answer).unwrap();
        assert_eq!(
            u64::from_be_bytes(answer),
            checksum(0, b"cut"),
            "reopened, it goes on"
        );
        connect(&namespaces[1], shut).unwrap();
    }
    assert!(lab.engine().counters().counter(Counter::RedecidedDenied) >= 2);
    lab.finish();
}

/// From publication to the last worker's acknowledgement, sorted.
fn publications(lab: &mut Lab, pause: Duration) -> Vec<Duration> {
    let policy = Arc::clone(&lab.parts.policy);
    let mut elapsed: Vec<Duration> = (0..300)
        .map(|_| {
            thread::sleep(pause);
            lab.parts.generation.0 += 1;
            let generation = lab.parts.generation;
            let newest = lab.engine().snapshot();
            let changed = [EndpointSlot(0)];
            let next = newest.with_policy(generation, Arc::clone(&policy), changed);
            lab.engine().publish(next.unwrap()).unwrap().elapsed
        })
        .collect();
    elapsed.sort();
    elapsed
}

/// A publication is acknowledged when the workers have it, not at some later look: those that sleep
/// are woken, those that are busy look between bursts.
pub fn publications_wake_sleepers_and_do_not_wait_for_the_clock() {
    let mut lab = Lab::new("publish", 2);
    let (from, to) = (lab.pod(0), pod_address(1, true));
    // Longer than a worker takes to fall asleep.
    let asleep = publications(&mut lab, Duration::from_millis(3));
    let done = std::sync::atomic::AtomicBool::new(false);
    let busy = thread::scope(|scope| {
        scope.spawn(|| {
            inside(&from, || {
                let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    // A full queue refuses now and then.
                    let _ = socket.send_to(&[0; 64], (to, 9));
                }
            });
        });
        let busy = publications(&mut lab, Duration::from_millis(1));
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        busy
    });
    for (name, elapsed) in [("asleep", &asleep), ("busy", &busy)] {
        let [middle, late, last] = [150, 297, 299].map(|i| elapsed[i]);
        println!("  workers {name}: median {middle:?}, p99 {late:?}, longest {last:?}");
        // A worker that nobody wakes sleeps for 100 ms. What else the machine runs may delay some.
        assert!(middle < Duration::from_millis(20), "{name}: {middle:?}");
    }
    let mut hits = [RuleHits::default(); 1];
    lab.engine().rule_hits(CounterId::NONE, &mut hits);
    assert!(hits[0].packets > 100, "the workers count: {hits:?}");
    lab.finish();
}

/// Epoll watches quiet queues and not busy ones: a packet wakes a worker that sleeps, whether its queue
/// was just busy, has been quiet for long, or has changed from one to the other.
pub fn queues_wake_their_worker_busy_and_quiet_again() {
    let mut lab = Lab::new("busy", 2);
    let (client, server) = udp_pair(&lab.pod(0), &lab.pod(1), pod_address(1, true));
    let crowd = inside(&lab.pod(0), || UdpSocket::bind("0.0.0.0:0").unwrap());
    let wakes = |times: usize, before: usize| {
        let mut elapsed: Vec<Duration> = (0..times)
            .map(|_| {
                for _ in 0..before {
                    // Nobody is there to take them.
                    let _ = crowd.send_to(b"crowd", (pod_address(1, true), 9));
                }
                // Longer than a worker takes to fall asleep.
                thread::sleep(Duration::from_millis(10));
                let begun = Instant::now();
                // A worker that has lost its core for long may have had no room left for it.
                assert!((0..3).any(|_| comes_back(&client, &server)));
                begun.elapsed()
            })
            .collect();
        elapsed.sort();
        elapsed[times / 2]
    };
    for _ in 0..2 {
        // Enough packets even if each wait took 100 ms, for longer than it takes to be sorted among the
        // busy ones.
        let busy = wakes(40, 300);
        thread::sleep(Duration::from_millis(250));
        let quiet = wakes(10, 0);
        println!("  woken in {busy:?} when busy, {quiet:?} when quiet");
        // A worker that nobody wakes sleeps for 100 ms.
        assert!(busy.max(quiet) < Duration::from_millis(20));
    }
    let sleeps = lab.engine().counters().counter(Counter::Sleeps);
    assert!(sleeps >= 100, "they slept {sleeps} times");
    lab.finish();
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}

/// A port passes nothing before its snapshot and nothing after; removed ports give their frames
/// back, and their numbers serve again.
pub fn ports_come_and_go() {
    let mut lab = Lab::new("ports", 2);
    let (a, to) = (lab.pod(0), pod_address(1, true));
    assert!(pings(&a, to));
    let ports = lab.parts.ports.clone();
    for _ in 0..3 {
        let gone = lab.parts.ports.remove(1);
        assert!(matches!(
            lab.engine().remove_port(gone.id),
            Err(EngineError::PortInUse { .. })
        ));
        lab.publish();
        assert!(!pings(&a, to));
        lab.engine().remove_port(gone.id).unwrap();
        let again = lab.add_port("p1", Role::Pod);
        assert_eq!(again, gone.id);
        assert!(!pings(&a, to), "it passes nothing before its snapshot");
        lab.parts.ports = ports.clone();
        lab.publish();
        assert!(pings(&a, to));
    }
    let audit = lab.engine().audit().unwrap();
    assert_eq!(audit.problems, [""; 0]);
    assert!(audit.fill > 0 && audit.free > audit.chunks / 2, "{audit:?}");
    assert!(matches!(
        lab.engine().remove_port(PortId(15)),
        Err(EngineError::UnknownPort(_))
    ));
    let census = lab.engine().umem().census();
    assert!(census.fill <= 4 * 64, "{census:?}");
    lab.finish();
}
