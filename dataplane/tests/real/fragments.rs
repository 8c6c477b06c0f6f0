//! Datagrams that the pods' own stacks cut and put together, and fragments sent by hand.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use dataplane::counters::Counter;
use dataplane::{DropReason, Protocol};
use etherparse::PacketBuilder;
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};

use super::cut::{ETHERNET, cut};
use super::engine::{Lab, PATIENCE, inside, only, outside, pod_address};

/// How often an allowed datagram may be lost: a burst of 41 frames finds a port that has been idle.
const ATTEMPTS: usize = 10;

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

fn server(namespace: &str, at: IpAddr) -> UdpSocket {
    let server = inside(namespace, || UdpSocket::bind((at, 0)).unwrap());
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    server
}

/// Whether a datagram of `length` octets arrives, whole and unharmed.
fn arrives(from: &str, server: &UdpSocket, length: usize) -> bool {
    let to = server.local_addr().unwrap();
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let client = inside(from, || UdpSocket::bind(any).unwrap());
    let sent = bytes(length);
    client.send_to(&sent, to).unwrap();
    let mut buffer = vec![0; 65_536];
    let Ok((received, _)) = server.recv_from(&mut buffer) else {
        return false;
    };
    assert_eq!(buffer[..received], sent);
    true
}

/// Fragments that a namespace's stack has received so far, both families.
fn fragments_received(namespace: &str) -> u64 {
    let read = |path| inside(namespace, || std::fs::read_to_string(path).unwrap());
    let v6 = read("/proc/thread-self/net/snmp6");
    let v6 = v6
        .lines()
        .find_map(|line| line.strip_prefix("Ip6ReasmReqds"));
    let v4 = read("/proc/thread-self/net/snmp");
    let mut lines = v4.lines().filter(|line| line.starts_with("Ip:"));
    let (names, numbers) = (lines.next().unwrap(), lines.next().unwrap());
    let place = names.split(' ').position(|name| name == "ReasmReqds");
    let v4 = numbers.split(' ').nth(place.unwrap()).unwrap();
    v4.parse::<u64>().unwrap() + v6.unwrap().trim().parse::<u64>().unwrap()
}

/// 4,000 and 60,000 octets between pods and with the outside, both ways; what policy denies does not
/// arrive by a single fragment.
pub fn datagrams_pass_or_not_at_all() {
    let mut lab = Lab::new("fragments", 2);
    let (a, b, out) = (lab.pod(0), lab.pod(1), lab.outside());
    for v4 in [true, false] {
        let ways = [
            (&a, &b, pod_address(1, v4)),
            (&a, &out, outside(v4)),
            (&out, &a, pod_address(0, v4)),
        ];
        for (from, at, to) in ways {
            let server = server(at, to);
            for length in [4_000, 60_000] {
                let arrived = (0..ATTEMPTS).any(|_| arrives(from, &server, length));
                assert!(arrived, "{length} octets from {from} to {to}");
            }
        }
    }
    let servers = [true, false].map(|v4| server(&b, pod_address(1, v4)));
    for server in &servers {
        let port = server.local_addr().unwrap().port();
        lab.set_policy(1, only(0, Some((Protocol::UDP, port))));
        assert!((0..ATTEMPTS).any(|_| arrives(&a, server, 4_000)));
        lab.set_policy(1, only(0, Some((Protocol::UDP, port ^ 1))));
        let before = fragments_received(&b);
        for length in [4_000, 60_000] {
            assert!(!arrives(&a, server, length), "{length} octets are denied");
        }
        assert_eq!(fragments_received(&b), before, "not even a part of them");
    }
    let totals = lab.engine().counters();
    assert!(totals.counter(Counter::Fragments) > 300, "{totals:?}");
    assert!(
        totals.dropped(DropReason::ConnectionDenied) >= 4,
        "{totals:?}"
    );
    lab.finish();
}

/// Fragments of a UDP datagram, as IP packets in the order of their places.
fn datagram(from: IpAddr, to: SocketAddr, id: u16, payload: &[u8]) -> Vec<Vec<u8>> {
    let ethernet = PacketBuilder::ethernet2([2; 6], [2; 6]);
    let ip = match (from, to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 64),
        _ => panic!("two families"),
    };
    let mut whole = Vec::new();
    let udp = ip.udp(40_000, to.port());
    udp.write(&mut whole, payload).unwrap();
    let fragments = cut(&whole, id, 1232);
    fragments
        .into_iter()
        .map(|(_, frame)| frame[ETHERNET..].to_vec())
        .collect()
}

/// A raw sender lets the last fragment come first: the receiver gets the datagram all the same, and if
/// policy denies it nothing. Fragments whose first never comes are dropped in time.
pub fn fragments_pass_in_any_order() {
    let mut lab = Lab::new("disorder", 2);
    let (a, b) = (lab.pod(0), lab.pod(1));
    for v4 in [true, false] {
        let server = server(&b, pod_address(1, v4));
        let to = server.local_addr().unwrap();
        let family = if v4 {
            AddressFamily::INET
        } else {
            AddressFamily::INET6
        };
        let raw = inside(&a, || {
            socket(family, SocketType::RAW, Some(ipproto::RAW)).unwrap()
        });
        let sent = bytes(9_000);
        let fragments = datagram(pod_address(0, v4), to, 7, &sent);
        let receiver = SocketAddr::new(to.ip(), 0);
        let send = |packet: &Vec<u8>| {
            sendto(&raw, packet, SendFlags::empty(), &receiver).unwrap();
        };
        fragments.iter().rev().for_each(send);
        let mut buffer = vec![0; 65_536];
        let (received, _) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(buffer[..received], sent);
        lab.set_policy(1, only(2, None));
        let before = fragments_received(&b);
        fragments.iter().rev().for_each(send);
        assert!(server.recv_from(&mut buffer).is_err());
        let orphans = datagram(pod_address(0, v4), to, 8, &sent);
        orphans[1..].iter().for_each(send);
        thread::sleep(Duration::from_millis(1500));
        assert_eq!(fragments_received(&b), before);
        let totals = lab.engine().counters();
        assert!(totals.counter(Counter::FragmentsHeld) >= 7, "{totals:?}");
        lab.set_policy(1, Default::default());
    }
    let totals = lab.engine().counters();
    assert!(
        totals.dropped(DropReason::FragmentTimeout) > 0,
        "{totals:?}"
    );
    assert_eq!(lab.engine().fragments().counts().frames, 0);
    lab.finish();
}

/// What is held for a port that goes, goes: its frames come home, and nothing is left in the table.
pub fn held_fragments_go_with_their_port() {
    let mut lab = Lab::new("going", 2);
    let (a, to) = (lab.pod(0), SocketAddr::new(pod_address(1, true), 9));
    let raw = || socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW)).unwrap();
    let raw = inside(&a, raw);
    let orphans = datagram(pod_address(0, true), to, 7, &bytes(9_000));
    let frames = |lab: &mut Lab| lab.engine().fragments().counts().frames;
    let mut attempts = 0;
    while frames(&mut lab) == 0 {
        for packet in &orphans[1..] {
            sendto(&raw, packet, SendFlags::empty(), &to).unwrap();
        }
        thread::sleep(Duration::from_millis(20));
        attempts += 1;
        assert!(attempts < 100, "nothing is held");
    }
    let gone = lab.parts.ports.remove(0);
    lab.publish();
    lab.engine().remove_port(gone.id).unwrap();
    assert_eq!(lab.engine().fragments().counts(), Default::default());
    lab.finish();
}
