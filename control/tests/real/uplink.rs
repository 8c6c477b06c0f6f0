//! Uplinks and pods with several queues, and a network that changes while packets flow.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use control::netlink::{Ethtool, Namespace, Netlink, VethEnd};
use control::protocol::{ConntrackListReply, CountersReply, PortStatus, Status};
use serde_json::json;

use crate::daemon::{Node, PATIENCE};

/// Flows at once: so many that none of the queues is left out by all sets of them, and no more than
/// the frames that an idle pod's queue has waiting, so that none is lost however late a worker comes.
const FLOWS: usize = 28;
/// How long the first answers are waited for, which may have to ask for neighbours.
const FIRST: Duration = Duration::from_millis(50);
/// Datagrams of a flow.
const ROUNDS: u32 = 40;

fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output();
    let output = output.unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn in_namespace(name: &str, command: &str) -> String {
    run(&format!("ip netns exec {name} {command}"))
}

/// A network beyond an uplink, removed with the test: a veth with so many queues to the node's end,
/// which is called `uplink`, and an address on either side of it.
struct Outside {
    name: String,
    namespace: Namespace,
    /// On the link.
    address: IpAddr,
}

impl Outside {
    fn new(node: &str, uplink: &str, number: u8, queues: u32) -> Outside {
        let name = format!("{node}-{uplink}");
        let namespace = Namespace::create(&name).unwrap();
        run(&format!(
            "ip -n {node} link add {uplink} numrxqueues {queues} numtxqueues {queues} type veth \
             peer name eth0 numrxqueues {queues} numtxqueues {queues} netns {name}"
        ));
        run(&format!("ip -n {name} link set lo up"));
        in_namespace(&name, "sysctl -qw net.ipv4.conf.eth0.arp_notify=1");
        run(&format!("ip -n {name} link set eth0 up"));
        run(&format!("ip -n {node} link set {uplink} up"));
        run(&format!(
            "ip -n {name} addr add 192.0.{number}.2/24 dev eth0"
        ));
        run(&format!("ip -n {name} addr add 203.0.113.1/32 dev lo"));
        run(&format!(
            "ip -n {node} addr add 192.0.{number}.1/24 dev {uplink}"
        ));
        run(&format!(
            "ip -n {name} route add 10.77.0.0/24 via 192.0.{number}.1"
        ));
        let address = format!("192.0.{number}.2").parse().unwrap();
        Outside {
            name,
            namespace,
            address,
        }
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = Namespace::delete(&self.name);
    }
}

/// A node with one uplink of so many queues.
fn node(name: &str, queues: u32, more: &str) -> (Node, Outside) {
    let mut outside = None;
    let more = format!("[[uplinks]]\ninterface = 'up0'\n{more}");
    let node = Node::prepared(name, &more, |tag| {
        outside = Some(Outside::new(tag, "up0", 2, queues));
    });
    (node, outside.unwrap())
}

fn port(node: &Node, interface: &str) -> Option<PortStatus> {
    let status: Status = node.client().call("status", json!({})).unwrap();
    let mut ports = status.ports.into_iter();
    ports.find(|port| port.interface == interface)
}

/// The workers that own an interface's queues.
fn workers(node: &Node, interface: &str) -> BTreeSet<u32> {
    port(node, interface).unwrap().workers.into_iter().collect()
}

fn drops(node: &Node, reason: &str) -> u64 {
    let reply: CountersReply = node.client().call("counters", json!({})).unwrap();
    reply.drops.get(reason).copied().unwrap_or(0)
}

/// By queue, packets that an interface's program has redirected, or dropped.
fn by_queue(node: &Node, interface: &str, what: &str, queues: usize) -> Vec<u64> {
    let text = in_namespace(&node.tag, &format!("ethtool -S {interface}"));
    let value = |queue: usize| {
        let wanted = format!("rx_queue_{queue}_xdp_{what}:");
        let line = text.lines().find_map(|l| l.trim().strip_prefix(&wanted));
        line.map_or(0, |value| value.trim().parse().unwrap())
    };
    (0..queues).map(value).collect()
}

fn soon(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not so in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sends back every datagram that comes to the namespace, until the test's process ends.
fn echo(namespace: &Namespace, at: &str) {
    let socket = namespace.run(|| UdpSocket::bind(at).unwrap()).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((count, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..count], from);
        }
    });
}

/// Sends datagrams of many flows and takes their echoes; how many of each flow's came back. Nothing
/// is sent twice.
fn exchange(from: &Namespace, to: SocketAddr, rounds: u32, patience: Duration) -> Vec<u32> {
    let connect = || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect(to).unwrap();
        socket.set_read_timeout(Some(patience)).unwrap();
        socket
    };
    let open = || (0..FLOWS).map(|_| connect()).collect::<Vec<_>>();
    let sockets = from.run(open).unwrap();
    let mut answers = vec![0; FLOWS];
    let mut buffer = [0; 64];
    for round in 0..rounds {
        for socket in &sockets {
            // It may say that an earlier one was refused.
            let _ = socket.send(&round.to_be_bytes());
        }
        for (socket, answers) in sockets.iter().zip(&mut answers) {
            if matches!(socket.recv(&mut buffer), Ok(4)) && buffer[..4] == round.to_be_bytes() {
                *answers += 1;
            }
        }
    }
    answers
}

pub fn channels_are_told_of_each_namespace() {
    let tag = format!("weir-daemon-{}-channels", std::process::id());
    let namespace = Namespace::create(&tag).unwrap();
    let mut ethtool = namespace.run(Ethtool::connect).unwrap().unwrap();
    let mut netlink = namespace.run(Netlink::connect).unwrap().unwrap();
    let end = |name| VethEnd {
        queues: 4,
        ..VethEnd::new(name)
    };
    netlink.create_veth(&end("wa"), &end("wb")).unwrap();
    let index = netlink.link("wa").unwrap().unwrap().index;
    let four = ethtool.channels(index).unwrap().unwrap();
    assert_eq!((four.interface, four.receive, four.transmit), (index, 4, 4));
    assert_eq!(ethtool.changes().unwrap(), []);
    in_namespace(&tag, "ethtool -L wa rx 3 tx 2");
    let three = ethtool.changes().unwrap();
    assert_eq!((three[0].receive, three[0].transmit), (3, 2));
    assert_eq!(ethtool.channels(index).unwrap(), Some(three[0]));
    let loopback = netlink.link("lo").unwrap().unwrap().index;
    assert_eq!(ethtool.channels(loopback).unwrap(), None);
    assert!(ethtool.channels(9999).unwrap_err().is_not_found());
    Namespace::delete(&tag).unwrap();
}

/// Both queues of the uplink and of the pod, both workers; then the uplink gets more of them.
pub fn every_queue_of_an_uplink_and_of_a_hot_pod_carries_packets() {
    let (mut node, outside) = node("queues", 4, "");
    node.pod("a", 2, true);
    node.wide_pod("hot", 3, 2, true);
    // As after a start with two: the peer sends by no more.
    assert_eq!(port(&node, "up0").unwrap().workers.len(), 4);
    assert_eq!(port(&node, "wp-a").unwrap().workers.len(), 1);
    for interface in ["up0", "wp-hot"] {
        assert_eq!(workers(&node, interface), [0, 1].into(), "{interface}");
    }
    for pod in ["a", "hot"] {
        echo(&node.find(pod).namespace, "0.0.0.0:7000");
        let to = SocketAddr::new(node.find(pod).addresses[0], 7000);
        // Neighbours are found first, on both ends.
        soon("the first answers", || {
            let answers = exchange(&outside.namespace, to, 1, FIRST);
            answers.iter().all(|count| *count == 1)
        });
        let answers = exchange(&outside.namespace, to, ROUNDS, PATIENCE);
        assert!(answers.iter().all(|count| *count == ROUNDS), "{answers:?}");
    }
    echo(&outside.namespace, "203.0.113.1:7000");
    run(&format!(
        "ip -n {} route add default via {}",
        node.tag, outside.address
    ));
    let world = "203.0.113.1:7000".parse().unwrap();
    let hot = &node.find("hot").namespace;
    soon("the route", || {
        let answers = exchange(hot, world, 1, FIRST);
        answers.iter().all(|count| *count == 1)
    });
    let answers = exchange(hot, world, ROUNDS, PATIENCE);
    assert!(answers.iter().all(|count| *count == ROUNDS), "{answers:?}");
    for (interface, queues) in [("up0", 4), ("wp-hot", 2)] {
        let redirected = by_queue(&node, interface, "redirect", queues);
        assert!(redirected.iter().all(|count| *count > 0), "{redirected:?}");
        let dropped = by_queue(&node, interface, "drops", queues);
        assert_eq!(dropped, vec![0; queues], "{interface}");
    }
    // Whatever workers the two directions came to, each connection has seen both.
    let reply: ConntrackListReply = node.client().call("conntrack.list", json!({})).unwrap();
    let udp: Vec<_> = reply
        .entries
        .iter()
        .filter(|e| e.protocol == "UDP")
        .collect();
    assert!(udp.len() >= 3 * FLOWS, "{}", udp.len());
    let states: BTreeSet<&str> = udp.iter().map(|entry| entry.state.as_str()).collect();
    assert_eq!(states.len(), 1, "{states:?}");
    let reply: Status = node.client().call("status", json!({})).unwrap();
    assert_eq!(reply.health, "ok");
    tcp_by_many_queues(&node, &outside);
}

/// Connections whose two directions hash to queues of their own, so to workers of their own.
fn tcp_by_many_queues(node: &Node, outside: &Outside) {
    let hot = node.find("hot");
    let listener = hot
        .namespace
        .run(|| TcpListener::bind("0.0.0.0:7001").unwrap())
        .unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut buffer = vec![0; 1 << 16];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..count]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    let to = SocketAddr::new(hot.addresses[0], 7001);
    let connect = || {
        let stream = TcpStream::connect_timeout(&to, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let open = || (0..FLOWS).map(|_| connect()).collect::<Vec<_>>();
    let mut streams = outside.namespace.run(open).unwrap();
    let sent = vec![7; 40_000];
    let mut back = vec![0; sent.len()];
    for stream in &mut streams {
        stream.write_all(&sent).unwrap();
        back.fill(0);
        stream.read_exact(&mut back).unwrap();
        assert_eq!(back, sent);
    }
    let reply: ConntrackListReply = node.client().call("conntrack.list", json!({})).unwrap();
    let of_ours = reply.entries.iter();
    let of_ours = of_ours.filter(|e| e.protocol == "TCP" && e.destination.port == Some(7001));
    let states: Vec<&str> = of_ours.map(|entry| entry.state.as_str()).collect();
    assert_eq!(states.len(), FLOWS);
    assert!(states.iter().all(|state| *state == states[0]), "{states:?}");
}

/// An uplink gets more queues while packets flow: they are driven, and flows go on. The kernel takes
/// none away that is bound.
pub fn an_uplink_that_gets_more_queues_is_followed() {
    let mut outside = None;
    let node = Node::prepared("channels", "[[uplinks]]\ninterface = 'up0'\n", |tag| {
        let made = Outside::new(tag, "up0", 2, 4);
        in_namespace(&made.name, "ethtool -L eth0 rx 2 tx 2");
        in_namespace(tag, "ethtool -L up0 rx 2 tx 2");
        outside = Some(made);
    });
    let (mut node, outside) = (node, outside.unwrap());
    node.pod("a", 2, true);
    assert_eq!(port(&node, "up0").unwrap().workers.len(), 2);
    echo(&node.find("a").namespace, "0.0.0.0:7000");
    let to = SocketAddr::new(node.find("a").addresses[0], 7000);
    soon("the first answers", || {
        let answers = exchange(&outside.namespace, to, 1, FIRST);
        answers.iter().all(|count| *count == 1)
    });
    let patience = Duration::from_millis(100);
    std::thread::scope(|scope| {
        let flows = scope.spawn(|| exchange(&outside.namespace, to, 10 * ROUNDS, patience));
        in_namespace(&node.tag, "ethtool -L up0 rx 4 tx 4");
        soon("four queues", || {
            port(&node, "up0").unwrap().workers.len() == 4
        });
        in_namespace(&outside.name, "ethtool -L eth0 rx 4 tx 4");
        let answers = flows.join().unwrap();
        // A veth has no carrier while its channels are set (drivers/net/veth.c).
        let nearly_all = |count: &u32| *count >= 9 * ROUNDS;
        assert!(answers.iter().all(nearly_all), "{answers:?}");
    });
    let answers = exchange(&outside.namespace, to, ROUNDS, PATIENCE);
    assert!(answers.iter().all(|count| *count == ROUNDS), "{answers:?}");
    let redirected = by_queue(&node, "up0", "redirect", 4);
    assert!(redirected.iter().all(|count| *count > 0), "{redirected:?}");
    in_namespace(&outside.name, "ethtool -L eth0 rx 2 tx 2");
    let fewer = [
        "netns", "exec", &node.tag, "ethtool", "-L", "up0", "rx", "2",
    ];
    let refused = Command::new("ip").args(fewer).output().unwrap();
    assert!(
        !refused.status.success(),
        "the kernel took bound queues away"
    );
    assert_eq!(port(&node, "up0").unwrap().problem, None);
}

/// What comes for pods by a queue without a socket is dropped: it does not take the node's stack,
/// which would forward it. `status` complains.
pub fn a_queue_that_is_not_driven_drops() {
    let (mut node, outside) = node("undriven", 2, "queues = 1");
    node.pod("a", 2, true);
    in_namespace(&node.tag, "sysctl -qw net.ipv4.ip_forward=1");
    let status = port(&node, "up0").unwrap();
    let problem = status.problem.unwrap_or_default();
    assert!(problem.starts_with("1 of 2 receive queues"), "{problem}");
    echo(&node.find("a").namespace, "0.0.0.0:7000");
    let to = SocketAddr::new(node.find("a").addresses[0], 7000);
    soon("some answers", || {
        let answers = exchange(&outside.namespace, to, 1, Duration::from_millis(20));
        answers.contains(&1)
    });
    let answers = exchange(&outside.namespace, to, 1, Duration::from_millis(50));
    assert!(answers.contains(&1) && answers.contains(&0), "{answers:?}");
    assert!(by_queue(&node, "up0", "drops", 2)[1] > 0);
    assert_eq!(by_queue(&node, "up0", "redirect", 2)[1], 0);
    // The node's own packets pass by either queue.
    echo(&node.namespace, "0.0.0.0:7002");
    let to = "192.0.2.1:7002".parse().unwrap();
    let answers = exchange(&outside.namespace, to, 1, PATIENCE);
    assert!(answers.iter().all(|count| *count == 1), "{answers:?}");
}

/// Counts the datagrams that come to 203.0.113.1.
fn count(outside: &Outside) -> Arc<AtomicU64> {
    let counted = Arc::new(AtomicU64::new(0));
    let bind = || UdpSocket::bind("203.0.113.1:7003").unwrap();
    let socket = outside.namespace.run(bind).unwrap();
    let counter = Arc::clone(&counted);
    std::thread::spawn(move || {
        while socket.recv(&mut [0; 64]).is_ok() {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    counted
}

/// A pod sends a datagram every millisecond; its next hop changes, then its gateway's MAC, then the
/// route goes and comes back, then the uplink itself.
pub fn next_hops_are_followed_while_packets_flow() {
    let mut both = Vec::new();
    let more = "[[uplinks]]\ninterface = 'up0'\n[[uplinks]]\ninterface = 'up1'\n";
    let mut node = Node::prepared("hops", more, |tag| {
        both = vec![
            Outside::new(tag, "up0", 2, 2),
            Outside::new(tag, "up1", 3, 2),
        ];
        run(&format!(
            "ip -n {tag} route add default via {}",
            both[0].address
        ));
    });
    node.pod("a", 2, true);
    let counted: Vec<_> = both.iter().map(count).collect();
    let done = AtomicBool::new(false);
    let tag = node.tag.clone();
    let route = |verb: &str, to: &Outside| {
        run(&format!(
            "ip -n {tag} route {verb} default via {}",
            to.address
        ));
    };
    // Whether what a pod sends now comes to one outside and not to the other.
    let only = |here: usize| {
        soon(&format!("packets come to {here}"), || {
            let before: Vec<u64> = counted.iter().map(|c| c.load(Ordering::Relaxed)).collect();
            std::thread::sleep(Duration::from_millis(50));
            let now: Vec<u64> = counted.iter().map(|c| c.load(Ordering::Relaxed)).collect();
            now[here] > before[here] + 10 && now[1 - here] == before[1 - here]
        });
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let bind = || UdpSocket::bind("0.0.0.0:0").unwrap();
            let socket = node.find("a").namespace.run(bind).unwrap();
            while !done.load(Ordering::Relaxed) {
                let sent = socket.send_to(b"weir", "203.0.113.1:7003");
                assert!(sent.is_ok() || sent.unwrap_err().kind() != ErrorKind::InvalidInput);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let guard = Done(&done);
        only(0);
        route("replace", &both[1]);
        only(1);
        let unknown = drops(&node, "no_neighbour");
        in_namespace(&both[1].name, "ip link set eth0 address 02:00:00:00:77:77");
        only(1);
        assert_eq!(
            drops(&node, "no_neighbour"),
            unknown,
            "its MAC was never unknown"
        );
        route("del", &both[1]);
        let none = drops(&node, "no_route");
        soon("drops for want of a route", || {
            drops(&node, "no_route") > none + 10
        });
        route("add", &both[0]);
        only(0);
        // The uplink goes, and its route with it; it comes back under its name.
        run(&format!("ip -n {tag} link del up0"));
        soon("the port is gone", || port(&node, "up0").is_none());
        let old = both.remove(0);
        drop(old);
        both.insert(0, Outside::new(&tag, "up0", 2, 2));
        soon("the port is back", || port(&node, "up0").is_some());
        let again = count(&both[0]);
        run(&format!(
            "ip -n {tag} route add default via {}",
            both[0].address
        ));
        soon("packets come by the new uplink", || {
            again.load(Ordering::Relaxed) > 10
        });
        drop(guard);
    });
}

/// Says that it is done, however the test ends.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
