//! Packets beyond one buffer: lengths, checksums and answers over several.

use dataplane::counters::Counter;
use dataplane::pipeline::Outcome;
use dataplane::policy::ir::EndpointPolicy;
use dataplane::{DropReason, wire};
use etherparse::{NetSlice, SlicedPacket, TcpOptionElement, TransportSlice};

use super::checks::error;
use super::cut::cut;
use super::packets::{self, ACK, Flags, SYN, SYN_ACK, Spec, Transport, tcp, udp};
use super::policies::ingress;
use super::world::{Place, Sent, UPLINK, WINDOW, World, pod_address};

const A: Place = Place::Pod(0);
const B: Place = Place::Pod(1);
const MTU: u16 = 60_000;

fn jumbo() -> World {
    let mut world = World::new(256);
    world.set_pod_mtu(MTU);
    world
}

fn with_length(spec: Spec, payload: usize) -> Vec<u8> {
    let bytes = (0..payload).map(|at| (at * 7 + at / 251) as u8).collect();
    packets::build(&Spec {
        payload: bytes,
        ..spec
    })
}

/// Where the transport header starts.
fn headers(v4: bool) -> usize {
    if v4 { 34 } else { 54 }
}

#[test]
fn packets_pass_whole_wherever_their_buffers_end() {
    let mut world = jumbo();
    let around = |buffers: usize| buffers * WINDOW - 120..buffers * WINDOW + 20;
    let lengths = around(1).chain(around(2)).chain(59_900..59_940);
    for payload in lengths.step_by(3) {
        for v4 in [true, false] {
            let spec = world.spec(A, B, v4, udp(4000, 53));
            let bytes = with_length(spec, payload);
            let sent = world.send_bytes(A.port(), &bytes);
            assert_eq!(sent.forwarded_to(), Some(B.port()), "{payload} {v4}");
            assert_eq!(sent.bytes.len(), bytes.len());
            // Ethernet, the hop limit and IPv4's sum are new, and nothing else is.
            let at = headers(v4);
            assert_eq!(sent.bytes[at..], bytes[at..], "{payload} {v4}");
        }
    }
    world.assert_balanced();
}

#[test]
fn padding_behind_the_packet_is_cut_with_its_buffers() {
    let mut world = jumbo();
    for payload in [10, 3000, WINDOW - 42, WINDOW + 5] {
        let mut bytes = with_length(world.spec(A, B, true, udp(4000, 53)), payload);
        let length = bytes.len();
        bytes.resize(length + 2 * WINDOW, 0xaa);
        let sent = world.send_bytes(A.port(), &bytes);
        assert_eq!(sent.outcome.transmission().unwrap().len, length);
    }
    world.assert_balanced();
}

#[test]
fn lengths_are_those_of_all_buffers() {
    let mut world = jumbo();
    for v4 in [true, false] {
        let whole = with_length(world.spec(A, B, v4, udp(4000, 53)), 9000);
        for cut in [1, 100, WINDOW, whole.len() - WINDOW] {
            let sent = world.send_bytes(A.port(), &whole[..whole.len() - cut]);
            assert_eq!(sent.dropped(), Some(DropReason::Truncated), "{cut}");
        }
    }
    // TCP's payload is counted by conntrack: what follows the segment is in the window.
    let syn = world.send(A, B, true, tcp(4000, 80, SYN));
    assert_eq!(syn.dropped(), None);
    let answer = Transport::Tcp {
        from: 80,
        to: 4000,
        flags: SYN_ACK,
        seq: 77,
        ack: 1001,
    };
    assert_eq!(world.send(B, A, true, answer).dropped(), None);
    let segment = |seq| Transport::Tcp {
        from: 4000,
        to: 80,
        flags: ACK,
        seq,
        ack: 78,
    };
    for number in 0..20 {
        let spec = world.spec(A, B, true, segment(1001 + number * 20_000));
        let bytes = with_length(spec, 20_000);
        let sent = world.send_bytes(A.port(), &bytes);
        assert_eq!(sent.forwarded_to(), Some(B.port()), "{number}");
        let ack = Transport::Tcp {
            from: 80,
            to: 4000,
            flags: ACK,
            seq: 78,
            ack: 1001 + (number + 1) * 20_000,
        };
        assert_eq!(world.send(B, A, true, ack).dropped(), None, "{number}");
    }
    world.assert_balanced();
}

/// Leaves the checksum to a device: the field holds the pseudo-header's sum.
fn make_partial(bytes: &mut [u8], v4: bool, field: usize) {
    let (at, addresses) = (headers(v4), if v4 { 26..34 } else { 22..54 });
    let words = bytes[addresses].chunks(2);
    let mut sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    sum += (bytes.len() - at) as u32 + if field == 16 { 6 } else { 17 };
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    bytes[at + field..at + field + 2].copy_from_slice(&(sum as u16).to_be_bytes());
}

#[test]
fn software_completes_checksums_over_all_buffers() {
    let mut world = jumbo();
    let segment = tcp(4000, 80, ACK);
    for (transport, field) in [(udp(4000, 53), 6), (segment, 16)] {
        for v4 in [true, false] {
            // Even and odd first buffers: WINDOW is even, the transport header starts even.
            for payload in [100, 3785, 3786, 3787, 3800, 9001, 20_000, 59_001] {
                let complete = with_length(world.spec(A, B, v4, transport.clone()), payload);
                let mut partial = complete.clone();
                make_partial(&mut partial, v4, field);
                world.offload = false;
                let sent = world.send_bytes(A.port(), &partial);
                assert_eq!(sent.outcome.transmission().unwrap().checksum, None);
                let at = headers(v4);
                assert_eq!(sent.bytes[at..], complete[at..], "{payload} {v4} {field}");
                world.offload = true;
                let sent = world.send_bytes(A.port(), &partial);
                let checksum = sent.outcome.transmission().unwrap().checksum.unwrap();
                let place = (usize::from(checksum.start), usize::from(checksum.offset));
                assert_eq!(place, (at, field));
                assert_eq!(sent.bytes[at..], partial[at..]);
            }
        }
    }
    world.assert_balanced();
}

#[test]
fn what_a_wire_does_not_carry_is_answered_with_its_mtu() {
    let mut world = jumbo();
    for v4 in [true, false] {
        // Beyond one buffer and within it, towards the world and the node.
        for (to, payload) in [
            (Place::Outside, 1473),
            (Place::Outside, 8000),
            (Place::Outside, 50_000),
            (Place::Node, 8000),
        ] {
            let bytes = with_length(world.spec(A, to, v4, udp(4000, 53)), payload);
            let sent = world.send_bytes(A.port(), &bytes);
            assert_too_big(&sent, &bytes, v4, 1500);
        }
        // And between pods what is beyond theirs.
        let bytes = with_length(world.spec(A, B, v4, udp(4000, 53)), 60_001);
        let sent = world.send_bytes(A.port(), &bytes);
        assert_too_big(&sent, &bytes, v4, MTU);
    }
    // Not before policy.
    world.set_policy(&[1], &ingress(9, vec![]));
    let bytes = with_length(world.spec(A, B, true, udp(4000, 53)), 60_001);
    let sent = world.send_bytes(A.port(), &bytes);
    assert_eq!(sent.outcome, Outcome::Drop(DropReason::PolicyDenied));
    world.set_policy(&[1], &EndpointPolicy::default());
    world.assert_balanced();
}

#[track_caller]
fn assert_too_big(sent: &Sent, bytes: &[u8], v4: bool, mtu: u16) {
    let Outcome::Refuse(answer, DropReason::TooBig) = sent.outcome else {
        panic!("{:?}", sent.outcome)
    };
    assert_eq!(answer.port, A.port());
    let (icmp_type, code, quoted, to) = error(&sent.bytes);
    assert_eq!((icmp_type, code), if v4 { (3, 4) } else { (2, 0) });
    assert_eq!(to, pod_address(0, v4));
    assert_eq!(quoted, bytes[14..14 + quoted.len()]);
    let packet = wire::parse(&sent.bytes, wire::Offload::Wire).unwrap();
    let wire::Transport::Icmp(wire::Icmp::Error(error)) = packet.ip().unwrap().transport else {
        panic!("{packet:?}")
    };
    assert_eq!(error.mtu, Some(u32::from(mtu)));
}

/// A later fragment of several buffers follows its first; one that would have to wait for it costs
/// the datagram, since what is held is one buffer.
#[test]
fn fragments_of_several_buffers_follow_and_do_not_wait() {
    let mut world = jumbo();
    for (id, v4) in [(7, true), (8, false)] {
        let whole = with_length(world.spec(A, B, v4, udp(4000, 53)), 20_000);
        let mut parts = cut(&whole, id, 8000);
        for (start, part) in &parts {
            let sent = world.send_bytes(A.port(), part);
            assert_eq!(sent.forwarded_to(), Some(B.port()), "{start} {v4}");
            assert_eq!(sent.bytes.len(), part.len());
        }
        parts = cut(&whole, id + 10, 8000);
        parts.swap(0, 1);
        for (at, (start, part)) in parts.iter().enumerate() {
            let sent = world.send_bytes(A.port(), part);
            let expected = match at {
                0 => DropReason::MultiBuffer,
                _ => DropReason::DatagramDropped,
            };
            assert_eq!(sent.dropped(), Some(expected), "{start} {v4}");
        }
    }
    world.assert_balanced();
}

fn mss(sent: &Sent) -> u16 {
    let packet = SlicedPacket::from_ethernet(&sent.bytes).unwrap();
    let Some(TransportSlice::Tcp(tcp)) = packet.transport else {
        panic!()
    };
    let right = match packet.net.unwrap() {
        NetSlice::Ipv4(ip) => {
            tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination())
        }
        NetSlice::Ipv6(ip) => {
            tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination())
        }
        NetSlice::Arp(_) => panic!(),
    };
    assert_eq!(tcp.checksum(), right.unwrap());
    match tcp.options_iterator().next().unwrap().unwrap() {
        TcpOptionElement::MaximumSegmentSize(size) => size,
        other => panic!("{other:?}"),
    }
}

#[test]
fn mss_is_that_of_the_wire_both_ways_and_the_pods_own_among_them() {
    let mut world = jumbo();
    let with = |flags: Flags, from, to, ack| Transport::Tcp {
        from,
        to,
        flags,
        seq: 1000,
        ack,
    };
    for (v4, wire) in [(true, 1460), (false, 1440)] {
        // The builder's SYNs ask for 8960.
        let syn = world.send(A, Place::Outside, v4, with(SYN, 4000, 80, 0));
        assert_eq!(mss(&syn), wire);
        let answer = world.send(Place::Outside, A, v4, with(SYN_ACK, 80, 4000, 1001));
        assert_eq!(mss(&answer), wire);
        let incoming = world.send(Place::Outside, A, v4, with(SYN, 5000, 80, 0));
        assert_eq!(
            (incoming.forwarded_to(), mss(&incoming)),
            (Some(A.port()), wire)
        );
        let answer = world.send(A, Place::Outside, v4, with(SYN_ACK, 80, 5000, 1001));
        assert_eq!((answer.forwarded_to(), mss(&answer)), (Some(UPLINK), wire));
        let between = world.send(A, B, v4, with(SYN, 4000, 80, 0));
        assert_eq!(mss(&between), 8960);
    }
    assert_eq!(world.totals().counter(Counter::MssClamped), 8);
    world.assert_balanced();
}
