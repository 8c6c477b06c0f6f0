//! ARP and neighbour discovery: what is read, what is refused, what is never answered.

use dataplane::wire::{ArpOperation, Kind, Neighbour, NeighbourMessage, Offload, Transport, reply};
use dataplane::{DropReason, Mac};
use etherparse::{ArpHardwareId, ArpOperation as Operation, ArpPacket, EtherType};

use super::frames::*;

const OURS: Mac = Mac([2, 0, 0, 0, 0, 9]);
const GROUP: &str = "ff02::1:ff00:3";

fn arp(operation: Operation, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let packet = ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        operation,
        &POD.0,
        &sender,
        &[0; 6],
        &target,
    )
    .unwrap();
    ethernet(0x0806, &packet.to_bytes())
}

#[test]
fn arp_is_read_and_answered() {
    let mut frame = arp(Operation::REQUEST, A4, B4);
    let packet = on_wire(&frame).unwrap();
    let Kind::Arp(read) = packet.kind else {
        panic!("ARP");
    };
    assert_eq!(read.operation, ArpOperation::Request);
    assert_eq!(
        (read.sender, read.target, read.sender_mac),
        (v4(A4), v4(B4), POD)
    );
    let length = reply::arp_reply(&mut frame, &packet, OURS).unwrap();
    let answer = etherparse::SlicedPacket::from_ethernet(&frame[..length]).unwrap();
    let Some(etherparse::NetSlice::Arp(answer)) = answer.net else {
        panic!("ARP");
    };
    assert_eq!(answer.operation(), Operation::REPLY);
    assert_eq!(
        (answer.sender_hw_addr(), answer.sender_protocol_addr()),
        (&OURS.0[..], &B4[..])
    );
    assert_eq!(
        (answer.target_hw_addr(), answer.target_protocol_addr()),
        (&POD.0[..], &A4[..])
    );
    assert_eq!((&frame[..6], &frame[6..12]), (&POD.0[..], &OURS.0[..]));
}

#[test]
fn probes_gratuitous_arp_and_replies_are_never_answered() {
    for (operation, sender, target) in [
        (Operation::REQUEST, [0; 4], B4),
        (Operation::REQUEST, B4, B4),
        (Operation::REPLY, A4, B4),
        (Operation::REPLY, B4, B4),
    ] {
        let mut frame = arp(operation, sender, target);
        let before = frame.clone();
        let packet = on_wire(&frame).unwrap();
        let answer = reply::arp_reply(&mut frame, &packet, OURS);
        assert_eq!(
            answer,
            Err(DropReason::NeighbourNotOurs),
            "{sender:?} {target:?}"
        );
        assert_eq!(frame, before);
    }
}

#[test]
fn arp_that_is_refused() {
    let good = arp(Operation::REQUEST, A4, B4);
    for length in 14..good.len() {
        assert_eq!(on_wire(&good[..length]), Err(DropReason::Truncated));
    }
    for (at, value, what) in [
        (15, 6, "hardware type"),
        (16, 0x86, "protocol type"),
        (18, 8, "hardware length"),
        (19, 16, "protocol length"),
        (21, 3, "operation"),
        (20, 1, "operation's upper byte"),
        (22, 3, "a group as sender"),
        (28, 127, "loopback sender"),
        (28, 224, "multicast sender"),
        (38, 127, "loopback target"),
        (38, 239, "multicast target"),
    ] {
        let mut frame = good.clone();
        frame[at] = value;
        assert_eq!(on_wire(&frame), Err(DropReason::MalformedArp), "{what}");
    }
    let nobody = arp(Operation::REPLY, [0; 4], B4);
    assert_eq!(
        on_wire(&nobody),
        Err(DropReason::MalformedArp),
        "reply of nobody"
    );
    let everybody = arp(Operation::REQUEST, A4, [255; 4]);
    assert_eq!(
        on_wire(&everybody),
        Err(DropReason::MalformedArp),
        "broadcast target"
    );
    let nothing = arp(Operation::REQUEST, A4, [0; 4]);
    assert_eq!(
        on_wire(&nothing),
        Err(DropReason::MalformedArp),
        "request for nobody"
    );
    let mut padded = good;
    padded.resize(60, 0);
    assert_eq!(on_wire(&padded).unwrap().length, 42);
}

fn solicitation(options: &[u8]) -> Vec<u8> {
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend(B6);
    message.extend(options);
    message
}

fn source_link() -> Vec<u8> {
    [&[1, 1], &POD.0[..]].concat()
}

fn frame_of(source: [u8; 16], destination: [u8; 16], message: Vec<u8>) -> Vec<u8> {
    let message = icmp6(source, destination, message);
    ip6_from_to(source, destination, ICMPV6, 255, &message)
}

#[track_caller]
fn read(frame: &[u8]) -> Neighbour {
    match ip_of(frame, Offload::Wire).transport {
        Transport::Neighbour(neighbour) => neighbour,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_solicitation_is_read_and_answered() {
    // With a nonce (RFC 3971) in front of the address, as Linux sends it.
    let options = [&[14, 1, 1, 2, 3, 4, 5, 6], &source_link()[..]].concat();
    for (destination, options) in [
        (v6_text(GROUP), options.as_slice()),
        (B6, &source_link()),
        (B6, &[]),
    ] {
        let mut frame = frame_of(A6, destination, solicitation(options));
        let neighbour = read(&frame);
        assert_eq!(neighbour.message, NeighbourMessage::Solicitation);
        assert_eq!(neighbour.target, v6(B6));
        assert_eq!(neighbour.link_address, (!options.is_empty()).then_some(POD));
        let packet = on_wire(&frame).unwrap();
        frame.resize(frame.len().max(86), 0);
        let length = reply::neighbour_advertisement(&mut frame, &packet, OURS).unwrap();
        assert_eq!(length, 86);
        let answer = &frame[..length];
        let read_back = read(answer);
        assert_eq!(read_back.message, NeighbourMessage::Advertisement);
        assert_eq!(
            (read_back.target, read_back.link_address),
            (v6(B6), Some(OURS))
        );
        let ip = ip_of(answer, Offload::Wire);
        assert_eq!(
            (ip.source, ip.destination, ip.hop_limit),
            (v6(B6), v6(A6), 255)
        );
        // Router, solicited, override.
        assert_eq!(answer[58], 0xe0);
        assert_eq!((&answer[..6], &answer[6..12]), (&POD.0[..], &OURS.0[..]));
        let sliced = etherparse::SlicedPacket::from_ethernet(answer).unwrap();
        let Some(etherparse::TransportSlice::Icmpv6(icmp)) = sliced.transport else {
            panic!("ICMPv6");
        };
        assert!(icmp.is_checksum_valid(B6, A6));
    }
}

#[test]
fn a_window_too_small_for_the_answer_is_left_alone() {
    let mut frame = frame_of(A6, B6, solicitation(&[]));
    let before = frame.clone();
    let packet = on_wire(&frame).unwrap();
    assert_eq!(frame.len(), 78);
    let answer = reply::neighbour_advertisement(&mut frame, &packet, OURS);
    assert_eq!((answer, frame), (Err(DropReason::NoFrame), before));
}

#[test]
fn probes_for_duplicates_and_advertisements_are_never_answered() {
    let mut advertisement = vec![136, 0, 0, 0, 0x60, 0, 0, 0];
    advertisement.extend(B6);
    for (frame, message) in [
        (
            frame_of([0; 16], v6_text(GROUP), solicitation(&[])),
            NeighbourMessage::Solicitation,
        ),
        // Enhanced duplicate detection adds a nonce (RFC 7527).
        (
            frame_of(
                [0; 16],
                v6_text(GROUP),
                solicitation(&[14, 1, 1, 2, 3, 4, 5, 6]),
            ),
            NeighbourMessage::Solicitation,
        ),
        (
            frame_of(A6, B6, advertisement),
            NeighbourMessage::Advertisement,
        ),
    ] {
        let mut frame = frame;
        assert_eq!(read(&frame).message, message);
        let packet = on_wire(&frame).unwrap();
        frame.resize(200, 0);
        let before = frame.clone();
        let answer = reply::neighbour_advertisement(&mut frame, &packet, OURS);
        assert_eq!((answer, frame), (Err(DropReason::NeighbourNotOurs), before));
    }
}

#[track_caller]
fn malformed(frame: &[u8], what: &str) {
    assert_eq!(
        on_wire(frame).map(|_| ()),
        Err(DropReason::MalformedNeighbour),
        "{what}"
    );
}

#[test]
fn neighbour_discovery_that_is_refused() {
    for hop_limit in [0, 1, 64, 254] {
        let message = icmp6(A6, B6, solicitation(&[]));
        let frame = ip6_from_to(A6, B6, ICMPV6, hop_limit, &message);
        malformed(&frame, "it crossed a router");
    }
    let mut code = solicitation(&[]);
    code[1] = 1;
    malformed(&frame_of(A6, B6, code), "code 1");
    for length in 8..24 {
        malformed(
            &frame_of(A6, B6, solicitation(&[])[..length].to_vec()),
            "no whole target",
        );
    }
    for (options, what) in [
        (&[1, 0, 2, 0, 0, 0, 0, 1][..], "option of length 0"),
        (&[14, 0, 0, 0, 0, 0, 0, 0], "unknown option of length 0"),
        (&[1, 2, 2, 0, 0, 0, 0, 1], "option beyond the message"),
        (&[1], "half an option header"),
        (&[14, 1, 0, 0], "half an option"),
        (
            &[1, 2, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
            "address of another link layer",
        ),
        (&[1, 1, 3, 0, 0, 0, 0, 1], "a group's address"),
        (&[1, 1, 0, 0, 0, 0, 0, 0], "the address of nobody"),
    ] {
        malformed(&frame_of(A6, B6, solicitation(options)), what);
    }
    let mut target = solicitation(&[]);
    target[8..24].copy_from_slice(&v6_text("ff02::1"));
    malformed(&frame_of(A6, B6, target.clone()), "a group as target");
    target[8..24].copy_from_slice(&[0; 16]);
    malformed(&frame_of(A6, B6, target), "nobody as target");
    let dad = v6_text(GROUP);
    malformed(
        &frame_of([0; 16], dad, solicitation(&source_link())),
        "nobody with an address",
    );
    malformed(
        &frame_of([0; 16], v6_text("ff02::1"), solicitation(&[])),
        "probe to all nodes",
    );
    let mut sum = frame_of(A6, B6, solicitation(&[]));
    sum[60] ^= 1;
    assert_eq!(on_wire(&sum), Err(DropReason::BadTransportChecksum));
    // Even a whole packet with a fragment header (RFC 6980).
    let message = icmp6(A6, B6, solicitation(&[]));
    let payload = [&[ICMPV6, 0, 0, 0, 0, 0, 0, 1], &message[..]].concat();
    malformed(
        &ip6_from_to(A6, B6, 44, 255, &payload),
        "with a fragment header",
    );
}

#[test]
fn advertisements_router_messages_and_redirects_that_are_refused() {
    let mut advertisement = vec![136, 0, 0, 0, 0x40, 0, 0, 0];
    advertisement.extend(B6);
    malformed(
        &frame_of(A6, v6_text("ff02::1"), advertisement.clone()),
        "solicited by a group",
    );
    malformed(
        &frame_of([0; 16], v6_text("ff02::1"), advertisement),
        "nobody advertises",
    );
    let router = [vec![134, 0, 0, 0], vec![0; 12]].concat();
    let local = v6_text("fe80::1");
    malformed(
        &frame_of(A6, B6, router.clone()),
        "a router's global address",
    );
    let read_router = read(&frame_of(local, B6, router));
    assert_eq!(read_router.message, NeighbourMessage::RouterAdvertisement);
    let solicitation = [&[133, 0, 0, 0, 0, 0, 0, 0], &source_link()[..]].concat();
    let all_routers = v6_text("ff02::2");
    malformed(
        &frame_of([0; 16], all_routers, solicitation.clone()),
        "nobody with an address",
    );
    let read_router = read(&frame_of(A6, all_routers, solicitation));
    assert_eq!(read_router.message, NeighbourMessage::RouterSolicitation);
    assert_eq!(read_router.link_address, Some(POD));
    let redirect = [&[137, 0, 0, 0, 0, 0, 0, 0], &A6[..], &B6[..]].concat();
    malformed(
        &frame_of(A6, B6, redirect.clone()),
        "a redirect from a global address",
    );
    assert_eq!(
        read(&frame_of(local, B6, redirect)).message,
        NeighbourMessage::Redirect
    );
}
