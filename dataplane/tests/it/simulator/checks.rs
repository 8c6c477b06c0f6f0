//! What is checked, answered and rewritten apart from policy.

use dataplane::events::EventKind;
use dataplane::pipeline::Outcome;
use dataplane::policy::ir::EndpointPolicy;
use dataplane::snapshot::PortId;
use dataplane::{Address, DropReason, Mac};
use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, EtherType, Icmpv4Type, NetSlice, PacketBuilder,
    SlicedPacket, TransportSlice,
};

use super::packets::{self, SYN, Spec, Transport};
use super::policies::ingress;
use super::world::{
    OUTSIDE_MAC, Place, UPLINK, World, address, node, outside, pod_address, pod_mac, port_mac,
};

const A: Place = Place::Pod(0);
const B: Place = Place::Pod(1);
const UDP: Transport = Transport::Udp { from: 4000, to: 53 };

fn send(world: &mut World, from: Place, spec: &Spec) -> Option<DropReason> {
    world
        .send_bytes(from.port(), &packets::build(spec))
        .dropped()
}

#[test]
fn sources_are_checked_on_every_port() {
    let mut world = World::new(64);
    for v4 in [true, false] {
        let with_source = |world: &World, from, source| {
            let spec = world.spec(from, B, v4, UDP);
            Spec { source, ..spec }
        };
        for (from, source) in [
            (A, pod_address(2, v4)),
            (A, outside(v4)),
            (A, node(v4)),
            (Place::Outside, pod_address(2, v4)),
            (Place::Outside, node(v4)),
            (Place::Node, outside(v4)),
            (Place::Node, pod_address(2, v4)),
            (Place::Transit, pod_address(2, v4)),
            // Of a pod that has gone, or is still to come.
            (Place::Outside, pod_address(99, v4)),
            (Place::Transit, pod_address(99, v4)),
        ] {
            let spec = with_source(&world, from, source);
            let dropped = send(&mut world, from, &spec);
            assert_eq!(
                dropped,
                Some(DropReason::SpoofedSource),
                "{from:?} {source}"
            );
            let event = world.drain().pop().unwrap();
            assert_eq!(event.kind, EventKind::Dropped(DropReason::SpoofedSource));
        }
        let mut spec = world.spec(A, B, v4, UDP);
        spec.source_mac = pod_mac(3);
        assert_eq!(send(&mut world, A, &spec), Some(DropReason::SpoofedMac));
    }
    world.assert_balanced();
}

#[test]
fn a_port_or_endpoint_without_live_policy_passes_nothing() {
    let mut world = World::new(64);
    let stranger = world.spec(A, B, true, UDP);
    let bytes = packets::build(&stranger);
    let sent = world.send_bytes(PortId(50), &bytes);
    assert_eq!(sent.dropped(), Some(DropReason::PortNotReady));
    world.policies.truncate(1);
    world.publish();
    assert_eq!(
        world.send(A, B, true, UDP).dropped(),
        Some(DropReason::EndpointNotReady)
    );
    assert_eq!(
        world.send(B, A, true, UDP).dropped(),
        Some(DropReason::PortNotReady)
    );
    world
        .policies
        .resize(super::world::PODS, EndpointPolicy::default());
    world.publish();
    assert_eq!(world.send(A, B, true, UDP).dropped(), None);
    world.assert_balanced();
}

#[test]
fn scope_and_ethernet_destination_are_checked() {
    let mut world = World::new(64);
    let base = world.spec(A, B, true, UDP);
    let base6 = world.spec(A, B, false, UDP);
    let group = Mac([1, 0, 0x5e, 0, 0, 1]);
    for (spec, reason) in [
        (
            Spec {
                destination_mac: pod_mac(1),
                ..base.clone()
            },
            DropReason::NotForUs,
        ),
        (
            Spec {
                destination: address("224.0.0.1"),
                destination_mac: group,
                ..base.clone()
            },
            DropReason::Multicast,
        ),
        (
            Spec {
                destination: address("255.255.255.255"),
                ..base.clone()
            },
            DropReason::Multicast,
        ),
        (
            Spec {
                destination: address("ff02::fb"),
                ..base6.clone()
            },
            DropReason::Multicast,
        ),
        (
            Spec {
                destination: address("fe80::77"),
                ..base6.clone()
            },
            DropReason::LinkLocal,
        ),
        (
            Spec {
                destination: address("169.254.169.254"),
                ..base.clone()
            },
            DropReason::LinkLocal,
        ),
    ] {
        assert_eq!(send(&mut world, A, &spec), Some(reason), "{spec:?}");
    }
    // Nobody's packets are routed through us, and no way out is the way in.
    let through = Spec {
        destination: address("203.0.113.9"),
        ..world.spec(Place::Outside, B, true, UDP)
    };
    assert_eq!(
        send(&mut world, Place::Outside, &through),
        Some(DropReason::NoRoute)
    );
    world.assert_balanced();
}

#[test]
fn forwarding_rewrites_ethernet_and_hop_limit_and_keeps_checksums_right() {
    let mut world = World::new(64);
    for v4 in [true, false] {
        let sent = world.send(A, Place::Outside, v4, UDP);
        let packet = SlicedPacket::from_ethernet(&sent.bytes).unwrap();
        let ethernet = packet
            .link
            .unwrap()
            .to_header()
            .unwrap()
            .ethernet2()
            .unwrap();
        assert_eq!(Mac(ethernet.source), port_mac(UPLINK));
        assert_eq!(Mac(ethernet.destination), OUTSIDE_MAC);
        let Some(TransportSlice::Udp(udp)) = packet.transport else {
            panic!()
        };
        let header = udp.to_header();
        let expected = match packet.net.unwrap() {
            NetSlice::Ipv4(ip) => {
                let ip = ip.header().to_header();
                assert_eq!(ip.time_to_live, 63);
                assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                header.calc_checksum_ipv4(&ip, udp.payload()).unwrap()
            }
            NetSlice::Ipv6(ip) => {
                assert_eq!(ip.header().hop_limit(), 63);
                header
                    .calc_checksum_ipv6(&ip.header().to_header(), udp.payload())
                    .unwrap()
            }
            NetSlice::Arp(_) => panic!(),
        };
        assert_eq!(header.checksum, expected);
        assert_eq!(udp.payload(), b"weir");
    }
}

#[test]
fn a_missing_neighbour_is_asked_for() {
    let mut world = World::new(64);
    world.parts.neighbours.clear();
    world.publish();
    let sent = world.send(A, Place::Outside, true, UDP);
    assert_eq!(sent.dropped(), Some(DropReason::NoNeighbour));
    let kind = EventKind::NeighbourMissing {
        port: UPLINK,
        address: address("198.51.100.1"),
    };
    assert_eq!(world.drain().pop().unwrap().kind, kind);
}

fn arp(mac: Mac, sender: Address, target: Address) -> Vec<u8> {
    let v4 = |a: Address| a.as_v4().unwrap().to_be_bytes();
    let packet = ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        ArpOperation::REQUEST,
        &mac.0,
        &v4(sender),
        &[0; 6],
        &v4(target),
    );
    let mut bytes = Vec::new();
    let builder = PacketBuilder::ethernet2(mac.0, [0xff; 6]);
    builder.arp(packet.unwrap()).write(&mut bytes).unwrap();
    bytes
}

#[test]
fn arp_is_answered_for_gateways_and_towards_the_node_for_pods() {
    let mut world = World::new(64);
    let gateway = address("169.254.1.1");
    let own = pod_address(0, true);
    let sent = world.send_bytes(A.port(), &arp(pod_mac(0), own, gateway));
    let Outcome::Answer(answer) = sent.outcome else {
        panic!("{:?}", sent.outcome)
    };
    assert_eq!(answer.port, A.port());
    assert_eq!(sent.bytes[..6], pod_mac(0).0);
    assert_eq!(
        sent.bytes[22..28],
        port_mac(A.port()).0,
        "the sender's Ethernet address"
    );
    assert_eq!(sent.bytes[28..32], [169, 254, 1, 1]);
    let node_asks = arp(Place::Node.mac(), node(true), own);
    let sent = world.send_bytes(Place::Node.port(), &node_asks);
    assert!(
        matches!(sent.outcome, Outcome::Answer(_)),
        "{:?}",
        sent.outcome
    );
    for (bytes, reason) in [
        // A duplicate probe must stay without an answer, or nobody could take an address.
        (
            arp(pod_mac(0), Address::v4(0), gateway),
            DropReason::NeighbourNotOurs,
        ),
        (arp(pod_mac(0), own, own), DropReason::NeighbourNotOurs),
        (
            arp(pod_mac(0), own, pod_address(1, true)),
            DropReason::NeighbourNotOurs,
        ),
        (
            arp(pod_mac(0), pod_address(1, true), gateway),
            DropReason::SpoofedSource,
        ),
        (arp(pod_mac(1), own, gateway), DropReason::SpoofedMac),
    ] {
        assert_eq!(world.send_bytes(A.port(), &bytes).dropped(), Some(reason));
    }
    world.assert_balanced();
}

fn solicitation(mac: Mac, source: Address, target: Address) -> Vec<u8> {
    let mut body = Vec::from(target.0.to_be_bytes());
    if source != Address::v6(0) {
        body.extend_from_slice(&[1, 1]);
        body.extend_from_slice(&mac.0);
    }
    let group = address("ff02::1:ff00:1");
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(mac.0, [0x33, 0x33, 0xff, 0, 0, 1])
        .ipv6(source.0.to_be_bytes(), group.0.to_be_bytes(), 255)
        .icmpv6_raw(135, 0, [0; 4])
        .write(&mut bytes, &body)
        .unwrap();
    bytes
}

#[test]
fn neighbour_solicitations_are_answered_for_gateways() {
    let mut world = World::new(64);
    let gateway = address("fe80::1");
    for source in [pod_address(0, false), address("fe80::42")] {
        let sent = world.send_bytes(A.port(), &solicitation(pod_mac(0), source, gateway));
        assert!(
            matches!(sent.outcome, Outcome::Answer(_)),
            "{:?}",
            sent.outcome
        );
        let packet = SlicedPacket::from_ethernet(&sent.bytes).unwrap();
        let Some(NetSlice::Ipv6(ip)) = &packet.net else {
            panic!()
        };
        assert_eq!(ip.header().source(), gateway.0.to_be_bytes());
        assert_eq!(ip.header().destination(), source.0.to_be_bytes());
        let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else {
            panic!()
        };
        assert_eq!(icmp.type_u8(), 136);
        assert!(icmp.is_checksum_valid(ip.header().source(), ip.header().destination()));
        assert_eq!(sent.bytes[..6], pod_mac(0).0);
    }
    let unspecified = Address::v6(0);
    for (bytes, reason) in [
        (
            solicitation(pod_mac(0), unspecified, gateway),
            DropReason::NeighbourNotOurs,
        ),
        (
            solicitation(pod_mac(0), pod_address(0, false), pod_address(1, false)),
            DropReason::NeighbourNotOurs,
        ),
        (
            solicitation(pod_mac(0), pod_address(1, false), gateway),
            DropReason::SpoofedSource,
        ),
        (
            solicitation(pod_mac(1), pod_address(0, false), gateway),
            DropReason::SpoofedMac,
        ),
    ] {
        assert_eq!(world.send_bytes(A.port(), &bytes).dropped(), Some(reason));
    }
}

/// An ICMP error's type, code and quoted bytes, and the address it is for.
pub fn error(bytes: &[u8]) -> (u8, u8, Vec<u8>, Address) {
    let packet = SlicedPacket::from_ethernet(bytes).unwrap();
    let to = match packet.net.unwrap() {
        NetSlice::Ipv4(ip) => Address::v4(u32::from_be_bytes(ip.header().destination())),
        NetSlice::Ipv6(ip) => Address::v6(u128::from_be_bytes(ip.header().destination())),
        NetSlice::Arp(_) => panic!(),
    };
    match packet.transport.unwrap() {
        TransportSlice::Icmpv4(icmp) => {
            (icmp.type_u8(), icmp.code_u8(), icmp.payload().to_vec(), to)
        }
        TransportSlice::Icmpv6(icmp) => {
            (icmp.type_u8(), icmp.code_u8(), icmp.payload().to_vec(), to)
        }
        _ => panic!(),
    }
}

#[test]
fn what_cannot_go_on_is_answered_only_if_policy_lets_it_pass() {
    let mut world = World::new(64);
    for v4 in [true, false] {
        let short = Spec {
            ttl: 1,
            ..world.spec(A, B, v4, UDP)
        };
        let large = Spec {
            payload: vec![7; 1600],
            ..world.spec(A, B, v4, UDP)
        };
        for (spec, reason, icmp) in [
            (
                &short,
                DropReason::TtlExceeded,
                if v4 { (11, 0) } else { (3, 0) },
            ),
            (&large, DropReason::TooBig, if v4 { (3, 4) } else { (2, 0) }),
        ] {
            let sent = world.send_bytes(A.port(), &packets::build(spec));
            let Outcome::Refuse(answer, found) = sent.outcome else {
                panic!("{sent:?}")
            };
            assert_eq!((answer.port, found), (A.port(), reason));
            let (icmp_type, code, _, to) = error(&sent.bytes);
            assert_eq!((icmp_type, code), icmp);
            assert_eq!(to, pod_address(0, v4));
        }
    }
    world.set_policy(&[1], &ingress(9, vec![]));
    let short = Spec {
        ttl: 1,
        ..world.spec(A, B, true, UDP)
    };
    let sent = world.send_bytes(A.port(), &packets::build(&short));
    assert_eq!(sent.outcome, Outcome::Drop(DropReason::PolicyDenied));
    world.assert_balanced();
}

/// An ICMPv4 "host unreachable" from `from` to `to` that quotes `quoted`.
fn unreachable(from: Place, source: Address, to: Address, quoted: &[u8]) -> Vec<u8> {
    let v4 = |a: Address| a.as_v4().unwrap().to_be_bytes();
    let header = etherparse::icmpv4::DestUnreachableHeader::Host;
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(from.mac().0, port_mac(from.port()).0)
        .ipv4(v4(source), v4(to), 64)
        .icmpv4(Icmpv4Type::DestinationUnreachable(header))
        .write(&mut bytes, quoted)
        .unwrap();
    bytes
}

#[test]
fn icmp_errors_pass_with_the_connection_they_are_about() {
    let mut world = World::new(64);
    // Isolated both ways: only what belongs to its own connection comes in.
    world.set_policy(&[0], &ingress(9, vec![]));
    let question = packets::build(&world.spec(A, Place::Outside, true, UDP));
    assert_eq!(world.send_bytes(A.port(), &question).dropped(), None);
    let router = address("198.51.100.1");
    let own = pod_address(0, true);
    let about_ours = unreachable(Place::Outside, router, own, &question[14..]);
    let sent = world.send_bytes(UPLINK, &about_ours);
    assert_eq!(sent.forwarded_to(), Some(A.port()), "{:?}", sent.outcome);
    let mut other = world.spec(A, Place::Outside, true, UDP);
    other.transport = Transport::Udp { from: 4001, to: 53 };
    let quoted = packets::build(&other);
    let unknown = unreachable(Place::Outside, router, own, &quoted[14..]);
    let sent = world.send_bytes(UPLINK, &unknown);
    assert_eq!(sent.dropped(), Some(DropReason::UnrelatedIcmpError));
    // From a pod only about what was sent to that pod.
    let foreign = unreachable(B, pod_address(1, true), own, &question[14..]);
    let sent = world.send_bytes(B.port(), &foreign);
    assert_eq!(sent.dropped(), Some(DropReason::UnrelatedIcmpError));
    // And it falls with its connection.
    let mut closed = ingress(10, vec![]);
    closed.egress = super::policies::egress(10, vec![]).egress;
    world.set_policy(&[0], &closed);
    let sent = world.send_bytes(UPLINK, &about_ours);
    assert_eq!(sent.dropped(), Some(DropReason::ConnectionDenied));
    world.assert_balanced();
}

#[test]
fn mss_is_lowered_to_what_both_links_carry() {
    let mut world = World::new(64);
    for (v4, expected) in [(true, 1460u16), (false, 1440)] {
        let syn = Transport::Tcp {
            from: 4000,
            to: 80,
            flags: SYN,
            seq: 1,
            ack: 0,
        };
        let sent = world.send(A, B, v4, syn);
        let packet = SlicedPacket::from_ethernet(&sent.bytes).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = packet.transport else {
            panic!()
        };
        let option = tcp.options_iterator().next().unwrap().unwrap();
        assert_eq!(
            option,
            etherparse::TcpOptionElement::MaximumSegmentSize(expected)
        );
        let header = tcp.to_header();
        let checksum = match packet.net.unwrap() {
            NetSlice::Ipv4(ip) => header
                .calc_checksum_ipv4(&ip.header().to_header(), tcp.payload())
                .unwrap(),
            NetSlice::Ipv6(ip) => header
                .calc_checksum_ipv6(&ip.header().to_header(), tcp.payload())
                .unwrap(),
            NetSlice::Arp(_) => panic!(),
        };
        assert_eq!(tcp.checksum(), checksum);
    }
}

/// Replaces the UDP checksum by what an offloading stack leaves: the pseudo-header's sum.
fn make_partial(bytes: &mut [u8]) {
    let length = (bytes.len() - 34) as u32;
    let words = bytes[26..34]
        .chunks(2)
        .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
    let mut sum = words.sum::<u32>() + 17 + length;
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    bytes[40..42].copy_from_slice(&(sum as u16).to_be_bytes());
}

#[test]
fn a_partial_checksum_is_handed_on_where_the_way_out_completes_it() {
    let mut world = World::new(64);
    let complete = packets::build(&world.spec(A, B, true, UDP));
    let mut partial = complete.clone();
    make_partial(&mut partial);
    let sent = world.send_bytes(A.port(), &partial);
    let checksum = sent.outcome.transmission().unwrap().checksum.unwrap();
    assert_eq!((checksum.start, checksum.offset), (34, 6));
    assert_eq!(sent.bytes[40..42], partial[40..42]);
    world.offload = false;
    let sent = world.send_bytes(A.port(), &partial);
    assert_eq!(sent.outcome.transmission().unwrap().checksum, None);
    assert_eq!(sent.bytes[40..42], complete[40..42]);
}

#[test]
fn garbage_never_passes_and_is_always_accounted_for() {
    let mut world = World::new(64);
    let good = packets::build(&world.spec(A, B, false, UDP));
    for len in 0..good.len() {
        let sent = world.send_bytes(A.port(), &good[..len]);
        assert!(sent.dropped().is_some(), "{len}: {:?}", sent.outcome);
    }
    world.assert_balanced();
}
