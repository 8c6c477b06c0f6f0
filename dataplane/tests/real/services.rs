//! The kernel's own TCP and UDP through Services: what it takes for right, and what it believes.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread;

use dataplane::counters::Counter;
use dataplane::service::{Frontend, ServiceParts, ServiceTable};
use dataplane::{Protocol, SocketAddress};

use crate::engine::{
    Lab, PATIENCE, connect, inside, outside, pod_address, run, serve_sum_at, transfer,
};

pub const TARGET: u16 = 8080;

pub fn service(v4: bool) -> IpAddr {
    let text = if v4 { "10.96.0.1" } else { "fd96::1" };
    text.parse().unwrap()
}

/// Port 80 of the Service in both families, with these pods behind it.
pub fn set(lab: &mut Lab, pods: &[usize]) {
    let frontend = |protocol, v4: bool| {
        let backend = |pod: &usize| SocketAddress {
            address: pod_address(*pod, v4).into(),
            port: TARGET,
        };
        let backends: Vec<_> = pods.iter().map(backend).collect();
        Frontend {
            address: service(v4).into(),
            protocol,
            port: 80,
            internal: backends.clone(),
            external: backends,
            affinity_s: None,
            node_port: false,
            target_port: Some(TARGET),
        }
    };
    let families = [true, false];
    let of = |protocol| families.map(|v4| frontend(protocol, v4));
    let parts = ServiceParts {
        frontends: [Protocol::TCP, Protocol::UDP]
            .into_iter()
            .flat_map(of)
            .collect(),
        ..ServiceParts::default()
    };
    lab.parts.services = Arc::new(ServiceTable::build(parts).unwrap());
    lab.publish();
}

/// Ways to the Services from the node and from outside.
fn route_services(lab: &mut Lab) {
    let (node, out) = (lab.node(), lab.outside());
    for command in [
        format!("ip -n {node} route add 10.96.0.0/24 dev weir-node src 10.9.255.1"),
        format!("ip -n {node} route add fd96::/64 dev weir-node src fd09:ffff::1"),
        format!("ip -n {out} route add 10.96.0.0/24 via 198.51.100.2"),
        format!("ip -n {out} route add fd96::/64 via 2001:db8::2"),
    ] {
        run(&command);
    }
    let local = ["10.9.0.0/24", "fd09::/64", "10.96.0.0/24", "fd96::/64"];
    let local = local.map(|prefix| prefix.parse().unwrap());
    lab.engine().set_local_prefixes(&local).unwrap();
}

/// Answers each datagram with one of its length that consists of its name.
pub fn name_server(namespace: &str, at: SocketAddr, name: u8) {
    let socket = inside(namespace, || UdpSocket::bind(at).unwrap());
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&vec![name; len], from);
        }
    });
}

/// What [`asks`] sends.
pub const QUESTION: [u8; 4] = *b"????";

pub fn asks(namespace: &str, to: SocketAddr) -> std::io::Result<u8> {
    asks_with(namespace, to, QUESTION.len())
}

/// With a datagram of so many bytes.
fn asks_with(namespace: &str, to: SocketAddr, bytes: usize) -> std::io::Result<u8> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = inside(namespace, || UdpSocket::bind(any).unwrap());
    socket.set_read_timeout(Some(PATIENCE * 4)).unwrap();
    socket.connect(to).unwrap();
    socket.send(&vec![QUESTION[0]; bytes]).unwrap();
    let mut answer = vec![0; 1 << 16];
    let len = socket.recv(&mut answer)?;
    assert_eq!(len, bytes);
    assert!(answer[..len].iter().all(|name| *name == answer[0]));
    Ok(answer[0])
}

/// From a pod, a backend itself, the node and the outside: transfers that the receiver sums up,
/// checksums and segmentation offloaded, and datagrams whose answers a connected socket accepts.
pub fn services_lead_to_their_backends() {
    let mut lab = Lab::new("services", 2);
    route_services(&mut lab);
    set(&mut lab, &[1, 2]);
    let pods: Vec<String> = (0..3).map(|pod| lab.pod(pod)).collect();
    for v4 in [true, false] {
        let to = SocketAddr::new(service(v4), 80);
        for pod in [1, 2] {
            let at = SocketAddr::new(pod_address(pod, v4), TARGET);
            serve_sum_at(&pods[pod], at, 100);
            name_server(&pods[pod], at, pod as u8);
        }
        for from in [&pods[0], &pods[1], &lab.node(), &lab.outside()] {
            transfer(from, to, 8 << 20);
            let stream = connect(from, to).unwrap();
            assert_eq!(stream.peer_addr().unwrap(), to);
            let names = (0..40).map(|_| asks(from, to).unwrap());
            let both = names.fold(0, |seen, name| seen | 1 << name);
            assert_eq!(both, 0b110, "both backends answer {from}, v4 {v4}");
            // In fragments, both ways.
            for bytes in [3000, 9001] {
                asks_with(from, to, bytes).unwrap();
            }
        }
        transfer(&pods[0], to, 64 << 20);
    }
    // A pod that is its own only backend.
    set(&mut lab, &[1]);
    for v4 in [true, false] {
        let to = SocketAddr::new(service(v4), 80);
        transfer(&pods[1], to, 8 << 20);
        assert_eq!(asks(&pods[1], to).unwrap(), 1);
    }
    let totals = lab.engine().counters();
    assert!(
        totals.counter(Counter::ServiceConnections) > 100,
        "{totals:?}"
    );
    assert!(totals.counter(Counter::SourcePortsGiven) >= 4, "{totals:?}");
    lab.finish();
}

/// Packets of many frames, as pods send them to each other, through a Service.
pub fn large_packets_go_through_services() {
    let mut lab = Lab::new("large", 2);
    let mtu = lab.engine().mtu_max(false).min(60_000);
    let node = lab.node();
    for pod in 0..3 {
        let ns = lab.pod(pod);
        // The end that the program is on first: its peer's may not be larger.
        run(&format!("ip -n {node} link set p{pod} mtu {mtu}"));
        run(&format!("ip -n {ns} link set eth0 mtu {mtu}"));
        lab.parts.ports[pod].mtu = mtu as u16;
    }
    set(&mut lab, &[1, 2]);
    for v4 in [true, false] {
        for pod in [1, 2] {
            let at = SocketAddr::new(pod_address(pod, v4), TARGET);
            serve_sum_at(&lab.pod(pod), at, 100);
        }
        transfer(&lab.pod(0), SocketAddr::new(service(v4), 80), 128 << 20);
    }
    let totals = lab.engine().counters();
    let received = totals.port(lab.parts.ports[0].id);
    let mean = received.received_bytes / received.received.max(1);
    assert!(mean > 4000, "packets of {mean} bytes, of an MTU of {mtu}");
    lab.finish();
}

fn node_uplink(v4: bool) -> IpAddr {
    let text = if v4 { "198.51.100.2" } else { "2001:db8::2" };
    text.parse().unwrap()
}

/// Node ports on the uplink's addresses, of a pod and of a backend that is elsewhere; the node's other
/// ports there stay its own.
pub fn node_ports_are_reached_from_outside() {
    let mut lab = Lab::new("nodeport", 2);
    route_services(&mut lab);
    let (out, node, pod) = (lab.outside(), lab.node(), lab.pod(1));
    let mut frontends = Vec::new();
    for v4 in [true, false] {
        let near = SocketAddr::new(pod_address(1, v4), TARGET);
        let far = SocketAddr::new(outside(v4), TARGET);
        serve_sum_at(&pod, near, 100);
        serve_sum_at(&out, far, 100);
        let ports = [
            (node_uplink(v4), 30_080, near, true),
            (node_uplink(v4), 30_081, far, true),
            (service(v4), 80, far, false),
        ];
        frontends.extend(ports.map(|(address, port, backend, node_port)| {
            let backend = vec![SocketAddress {
                address: backend.ip().into(),
                port: TARGET,
            }];
            Frontend {
                address: address.into(),
                protocol: Protocol::TCP,
                port,
                internal: backend.clone(),
                external: backend,
                affinity_s: None,
                node_port,
                target_port: None,
            }
        }));
    }
    let parts = ServiceParts {
        frontends,
        source_v4: Some(node_uplink(true).into()),
        source_v6: Some(node_uplink(false).into()),
        ..ServiceParts::default()
    };
    lab.parts.services = Arc::new(ServiceTable::build(parts).unwrap());
    lab.publish();
    for v4 in [true, false] {
        let at = |port| SocketAddr::new(node_uplink(v4), port);
        transfer(&out, at(30_080), 8 << 20);
        transfer(&lab.pod(0), at(30_080), 8 << 20);
        transfer(&out, at(30_081), 8 << 20);
        transfer(&node, SocketAddr::new(service(v4), 80), 8 << 20);
        serve_sum_at(&node, at(2222), 1);
        transfer(&out, at(2222), 1 << 20);
        let error = connect(&out, at(2223)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "by the node");
    }
    lab.finish();
}

/// Without a backend, or at a port that the Service has not, the kernel hears it at once.
pub fn services_without_backends_refuse() {
    let mut lab = Lab::new("refuse", 2);
    route_services(&mut lab);
    set(&mut lab, &[]);
    let refuse = |lab: &Lab, ports: &[u16]| {
        for from in [lab.pod(0), lab.node(), lab.outside()] {
            for v4 in [true, false] {
                for port in ports {
                    let to = SocketAddr::new(service(v4), *port);
                    let error = connect(&from, to).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{from} {to}");
                    let error = asks(&from, to).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{from} {to}");
                }
            }
        }
    };
    refuse(&lab, &[80, 81]);
    // The backend's own refusals, an ICMP error among them, are believed to be the Service's.
    set(&mut lab, &[1]);
    refuse(&lab, &[80]);
    assert!(lab.engine().counters().counter(Counter::Related) >= 6);
    lab.finish();
}
