//! Pods that come and go beside others, and what very many of them cost.

use std::fs;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use control::netlink::{Namespace, Netlink, VethEnd};
use control::protocol::{AuditReply, EndpointAdded, Mutation};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use serde_json::{Value, json};

use crate::daemon::Node;

/// Pods added and removed beside the flow.
const TURNS: usize = 100;
/// Datagrams of one group; a group goes every millisecond.
const GROUP: u32 = 5;
/// Pods of a full node.
const MANY: usize = 250;
/// What each may cost in kernel memory.
const KERNEL_KIB: f64 = 1536.0;

fn audit(node: &Node) -> AuditReply {
    let audit: AuditReply = node.client().call("audit", json!({})).unwrap();
    assert_eq!(audit.problems, [""; 0]);
    audit
}

/// What was seen of a flow of numbered datagrams.
#[derive(Debug, Default)]
struct Seen {
    received: u32,
    longest_gap: Duration,
}

fn receive(socket: &UdpSocket, done: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let mut last: Option<Instant> = None;
    while !done.load(Ordering::Relaxed) {
        if socket.recv(&mut [0; 64]).is_err() {
            continue;
        }
        seen.received += 1;
        let now = Instant::now();
        if let Some(last) = last.replace(now) {
            seen.longest_gap = seen.longest_gap.max(now - last);
        }
    }
    seen
}

/// Sends until it is done; how many, and the longest time in which it could not.
fn send(socket: &UdpSocket, done: &AtomicBool) -> (u32, Duration) {
    let (mut sent, mut longest) = (0u32, Duration::ZERO);
    let mut last = Instant::now();
    while !done.load(Ordering::Relaxed) {
        for _ in 0..GROUP {
            socket.send(&sent.to_be_bytes()).unwrap();
            sent += 1;
        }
        std::thread::sleep(Duration::from_millis(1));
        longest = longest.max(last.elapsed());
        last = Instant::now();
    }
    (sent, longest)
}

/// A flow of up to 5,000 datagrams a second between two pods, while another pod is added and
/// removed a hundred times: none is lost, and there is no pause but those of the sender itself.
pub fn a_flow_loses_nothing_while_other_pods_come_and_go() {
    let mut node = Node::new("churn");
    node.pod("a", 2, true);
    node.pod("b", 3, true);
    node.pod("c", 4, false);
    let bind = |name: &str, port| {
        let bind = || UdpSocket::bind(("0.0.0.0", port)).unwrap();
        node.find(name).namespace.run(bind).unwrap()
    };
    let (from, to) = (bind("a", 0), bind("b", 7000));
    // What a receiver that is not let run leaves lying is not the daemon's to lose.
    set_socket_recv_buffer_size_force(&to, 64 << 20).unwrap();
    to.set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    from.connect((node.find("b").addresses[0], 7000)).unwrap();
    let (sent, seen) = (AtomicBool::new(false), AtomicBool::new(false));
    let uid = node.uid("c");
    let ((sent, held_up), seen) = std::thread::scope(|scope| {
        let receiver = scope.spawn(|| receive(&to, &seen));
        let sender = scope.spawn(|| send(&from, &sent));
        let turned = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..TURNS {
                node.add_endpoint("c");
                let params = json!({ "uid": uid });
                let removed = node.client().call::<Mutation>("endpoint.remove", params);
                removed.unwrap();
            }
        }));
        sent.store(true, Ordering::Relaxed);
        let sender = sender.join().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        seen.store(true, Ordering::Relaxed);
        let receiver = receiver.join().unwrap();
        turned.unwrap();
        (sender, receiver)
    });
    println!(
        "  {sent} datagrams; longest time without one {:?}, of the sender itself {held_up:?}",
        seen.longest_gap
    );
    assert_eq!(seen.received, sent, "{seen:?}");
    // Whoever else runs on the machine may hold either end up, but not for long.
    assert!(seen.longest_gap < Duration::from_millis(500), "{seen:?}");
    audit(&node);
}

/// Memory of the kernel's, KiB: `VmallocUsed`, `Slab`, `Percpu`.
fn kernel_kib() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let field = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        let number = line.split_whitespace().next().unwrap();
        number.parse::<u64>().unwrap()
    };
    ["VmallocUsed:", "Slab:", "Percpu:"].map(field).iter().sum()
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Nanoseconds for which the process's threads have run.
fn running_ns(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        let first = text.split_whitespace().next().unwrap_or("0");
        first.parse::<u64>().unwrap_or(0)
    };
    tasks.flatten().map(of).sum()
}

/// A full node with two workers and the default packet memory. What a pod's veth and namespace cost
/// without Weir is not counted; no test beside this one may run.
pub fn two_hundred_and_fifty_pods_cost_little() {
    let node = Node::with("many", "[umem]\nchunks = 8192\n");
    let all = Namespace::create(&format!("{}-pods", node.tag)).unwrap();
    let mut netlink = node.namespace.run(Netlink::connect).unwrap().unwrap();
    let mut inside = all.run(Netlink::connect).unwrap().unwrap();
    let mut pods = Vec::new();
    for number in 0..MANY {
        let (interface, inner) = (format!("wm{number}"), format!("eth{number}"));
        let mac = [2, 0, 0, 1, (number >> 8) as u8, number as u8];
        let peer = VethEnd {
            mac: Some(mac),
            namespace: Some(all.as_fd()),
            ..VethEnd::new(&inner)
        };
        netlink
            .create_veth(&VethEnd::new(&interface), &peer)
            .unwrap();
        let index = inside.link(&inner).unwrap().unwrap().index;
        inside.set_up(index).unwrap();
        let address = format!("10.78.{}.{}", number >> 7, 2 + (number & 127));
        let applied = node.apply(json!([{
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("m{number}")},
            "spec": {"containers": [{"name": "c", "image": "none"}]},
            "status": {"podIP": address, "podIPs": [{"ip": address}]},
        }]));
        drop(applied);
        pods.push((interface, mac, address, node.uid(&format!("m{number}"))));
    }
    let pid = node.pid();
    let mut client = node.client();
    std::thread::sleep(Duration::from_secs(1));
    let (kernel, sockets, begun) = (kernel_kib(), descriptors(pid), Instant::now());
    for (number, (interface, mac, address, uid)) in pods.iter().enumerate() {
        let mac: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        let params = json!({
            "namespace": "default", "name": format!("m{number}"), "uid": uid,
            "interface": interface, "mac": mac.join(":"), "addresses": [address],
        });
        let added: EndpointAdded = client.call("endpoint.add", params).unwrap();
        assert_eq!(added.workers.live, 2);
    }
    let each = begun.elapsed() / MANY as u32;
    std::thread::sleep(Duration::from_secs(2));
    let kernel = (kernel_kib() - kernel) as f64 / MANY as f64;
    let sockets = descriptors(pid) - sockets;
    let (begun, before) = (Instant::now(), running_ns(pid));
    std::thread::sleep(Duration::from_secs(5));
    let idle = (running_ns(pid) - before) as f64 / begun.elapsed().as_nanos() as f64 * 100.0;
    let audit = audit(&node);
    println!(
        "  {MANY} pods, 2 workers, {} chunks: each {kernel:.0} KiB of kernel memory and {} \
         descriptors, live after {each:?}; {} frames lent to all; idle {idle:.2} % of a core",
        audit.chunks,
        sockets / MANY,
        audit.fill,
    );
    let params: Value = client.call("status", json!({})).unwrap();
    assert_eq!(params["health"], "ok");
    Namespace::delete(&format!("{}-pods", node.tag)).unwrap();
    assert!(kernel < KERNEL_KIB, "{kernel} KiB");
    assert_eq!(
        sockets,
        4 * MANY,
        "an owner's and a TX-only one each, twice"
    );
    assert!(audit.free > audit.chunks / 8, "{audit:?}");
    assert!(idle < 5.0, "{idle} % of a core");
}
