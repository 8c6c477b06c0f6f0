//! Everything that `wire` does with one input, and what must hold whatever the input.
//!
//! [`exercise`] is the fuzzing entry: a fuzz target's whole body is `exercise(bytes)`. Here random
//! and half-valid frames drive it.

use dataplane::wire::{
    Checksum, Icmp, Kind, Offload, Packet, Transport, brief, parse, parse_split, reply, rewrite,
};
use dataplane::{DropReason, Mac};
use proptest::prelude::*;

use super::frames::*;

/// Parses `bytes` and, if they are accepted, answers and rewrites them in every way.
///
/// # Panics
///
/// If a promise of `wire` is broken.
pub fn exercise(bytes: &[u8]) {
    for offload in [Offload::Virtual, Offload::Wire] {
        check_split(bytes, offload);
        let Ok(packet) = parse(bytes, offload) else {
            assert_eq!(brief(bytes, offload), None, "the short way accepts more");
            continue;
        };
        check_brief(bytes, &packet, offload);
        check_description(bytes, &packet, offload);
        check_rewrites(bytes, &packet, offload);
        check_replies(bytes, &packet);
    }
}

/// A frame in several buffers is the same frame, or its headers are not all in the first.
fn check_split(bytes: &[u8], offload: Offload) {
    let whole = parse(bytes, offload);
    for first in (0..bytes.len()).step_by(bytes.len().div_ceil(40).max(1)) {
        let (head, tail) = bytes.split_at(first);
        let (middle, end) = tail.split_at(tail.len().min(first % 7 + 1));
        let rest = [middle, &[], end];
        let split = parse_split(head, &rest, offload);
        match (&whole, &split) {
            (_, Err(DropReason::MultiBuffer)) => {
                // TCP's header has 60 bytes at most.
                let holds = |packet: &Packet| {
                    let ip = packet.ip().map_or(0, |ip| usize::from(ip.transport_offset));
                    first < ip + 60 || is_acted_upon(packet)
                };
                assert!(whole.as_ref().is_ok_and(holds) || whole.is_err() || first < 42);
            }
            _ => assert_eq!(split, whole, "cut at {first}"),
        }
        let Ok(packet) = split else { continue };
        let (mut one, mut other) = (bytes.to_vec(), head.to_vec());
        rewrite::complete_checksum(&mut one, &[], &packet).unwrap();
        rewrite::complete_checksum(&mut other, &rest, &packet).unwrap();
        assert_eq!(one[..first], other, "cut at {first}");
        let mut short = head.to_vec();
        if first < packet.length as usize {
            let refused = rewrite::complete_checksum(&mut short, &rest[..1], &packet);
            let reaches = first + middle.len() >= packet.length as usize;
            assert_eq!(refused.is_ok(), reaches, "buffers are missing");
        }
    }
}

/// Whether all of the packet is read, not only its headers.
fn is_acted_upon(packet: &Packet) -> bool {
    let transport = packet.ip().map(|ip| ip.transport);
    matches!(
        transport,
        Some(Transport::Neighbour(_) | Transport::Icmp(Icmp::Error(_)))
    )
}

/// Where the short way says something, it says the same, and forwards alike.
fn check_brief(bytes: &[u8], packet: &Packet, offload: Offload) {
    let Some(brief) = brief(bytes, offload) else {
        return;
    };
    let ip = packet.ip().expect("ARP has no short way");
    assert_eq!(brief.ethernet, packet.ethernet);
    assert_eq!(brief.length, packet.length);
    assert_eq!(brief.packet_length(), ip.packet_length());
    assert_eq!(brief.key, ip.flow_key());
    assert_eq!((brief.version, brief.hop_limit), (ip.version, ip.hop_limit));
    assert_eq!(brief.checksum, ip.checksum);
    assert_eq!(brief.tx_checksum(), packet.tx_checksum());
    assert_eq!(brief.transport_offset(), ip.transport_offset);
    assert_eq!(ip.fragment, None);
    assert!(!ip.is_multicast());
    match ip.transport {
        Transport::Tcp(tcp) => assert_eq!(brief.tcp, Some(tcp)),
        Transport::Udp(_) => assert_eq!(brief.tcp, None),
        other => panic!("{other:?} has no short way"),
    }
    if ip.hop_limit > 1 {
        let (ours, next) = (Mac([2, 9, 9, 9, 9, 1]), Mac([2, 9, 9, 9, 9, 2]));
        let (mut short, mut long) = (bytes.to_vec(), bytes.to_vec());
        let mut ethernet = [0; 12];
        ethernet[..6].copy_from_slice(&next.0);
        ethernet[6..].copy_from_slice(&ours.0);
        rewrite::forward(&mut short, brief.version, &ethernet).unwrap();
        rewrite::decrement_ttl(&mut long, packet).unwrap();
        rewrite::rewrite_ethernet(&mut long, ours, next).unwrap();
        assert_eq!(short, long);
    }
}

fn check_description(bytes: &[u8], packet: &Packet, offload: Offload) {
    let length = packet.length as usize;
    assert!(length <= bytes.len());
    assert_eq!(parse(&bytes[..length], offload), Ok(*packet), "padding");
    let Kind::Ip(ip) = packet.kind else {
        assert_eq!(length, 42);
        return;
    };
    let transport = usize::from(ip.transport_offset);
    assert!(transport >= 34 && transport + ip.transport_length as usize == length);
    if offload == Offload::Wire {
        assert_ne!(ip.checksum, Checksum::Partial);
    }
    if let Some(device) = packet.tx_checksum() {
        // A descriptor that points behind its frame wedges the kernel's ring.
        assert!(usize::from(device.start) + usize::from(device.offset) + 2 <= length);
    }
    if let Transport::Tcp(tcp) = ip.transport
        && let Some(at) = tcp.mss_offset
    {
        assert!(usize::from(at) + 2 <= transport + usize::from(tcp.header_length));
    }
}

fn check_rewrites(bytes: &[u8], packet: &Packet, offload: Offload) {
    let Some(ip) = packet.ip() else { return };
    let mut frame = bytes.to_vec();
    rewrite::clamp_mss(&mut frame, packet, 1400).unwrap();
    match rewrite::decrement_ttl(&mut frame, packet) {
        Ok(()) => assert!(ip.hop_limit > 1),
        Err(reason) => assert!(ip.hop_limit <= 1 && reason == DropReason::TtlExceeded),
    }
    rewrite::complete_checksum(&mut frame, &[], packet).unwrap();
    rewrite::rewrite_ethernet(&mut frame, GATEWAY, POD).unwrap();
    assert_eq!(frame.len(), bytes.len());
    if matches!(ip.transport, Transport::Neighbour(_)) {
        // Its hop limit has to be 255: it cannot be forwarded.
        return;
    }
    let after = parse(&frame, offload).expect("a rewritten packet parses");
    assert_eq!(after.ethernet.source, GATEWAY);
    assert_eq!(after.flow_key(), packet.flow_key());
    assert_eq!(after.length, packet.length);
}

fn check_replies(bytes: &[u8], packet: &Packet) {
    let ours = Mac([2, 0, 0, 0, 0, 9]);
    for room in [0, 28, 48, 100, 2000] {
        let mut window = bytes.to_vec();
        window.resize(bytes.len() + room, 0x55);
        let before = window.clone();
        let router = match packet.kind {
            Kind::Ip(ip) if ip.source.is_v4() => v4([10, 0, 0, 1]),
            _ => v6(v6_text("fd00::1")),
        };
        for answer in 0..4 {
            let mut window = before.clone();
            let written = match answer {
                0 => reply::arp_reply(&mut window, packet, ours),
                1 => reply::neighbour_advertisement(&mut window, packet, ours),
                2 => reply::time_exceeded(&mut window, packet, router, ours),
                _ => reply::packet_too_big(&mut window, packet, 1400, router, ours),
            };
            let Ok(length) = written else {
                assert_eq!(window, before, "an answer that fails changes nothing");
                continue;
            };
            let answer = parse(&window[..length], Offload::Wire).expect("an answer parses");
            assert_eq!(answer.length as usize, length);
            assert_eq!(answer.ethernet.source, ours);
            if let Some(ip) = packet.ip() {
                assert_eq!(answer.ip().unwrap().destination, ip.source);
            }
        }
    }
}

/// Bytes behind an Ethernet header of a type that we read.
fn half_valid() -> impl Strategy<Value = Vec<u8>> {
    let ethertype = proptest::sample::select(vec![0x0800u16, 0x86dd, 0x0806]);
    let body = proptest::collection::vec(any::<u8>(), 0..160);
    (ethertype, body, any::<bool>()).prop_map(|(ethertype, mut body, shape)| {
        if shape && !body.is_empty() {
            body[0] = if ethertype == 0x0800 { 0x45 } else { 0x60 };
        }
        let mut frame = ethernet(ethertype, &body);
        if shape && ethertype == 0x0800 && body.len() >= 20 {
            frame[16..18].copy_from_slice(&(body.len() as u16).to_be_bytes());
            mend_ip4(&mut frame);
        }
        if shape && ethertype == 0x86dd && body.len() >= 40 {
            frame[18..20].copy_from_slice(&(body.len() as u16 - 40).to_be_bytes());
        }
        frame
    })
}

/// IPv6 with chains of extension headers, right and wrong.
fn chains() -> impl Strategy<Value = Vec<u8>> {
    let kind = proptest::sample::select(vec![0u8, 43, 44, 51, 60, 6, 17, 58, 59, 132, 200]);
    let header = (kind, 0..3u8, any::<[u8; 6]>(), any::<bool>());
    let tail = proptest::collection::vec(any::<u8>(), 0..40);
    (proptest::collection::vec(header, 0..12), tail).prop_map(|(headers, tail)| {
        let mut payload = Vec::new();
        let first = headers.first().map_or(6, |header| header.0);
        for (index, (_, units, body, calm)) in headers.iter().enumerate() {
            let next = headers.get(index + 1).map_or(6, |header| header.0);
            payload.extend([next, *units]);
            payload.extend(if *calm { [1, 4, 0, 0, 0, 0] } else { *body });
            payload.extend(vec![0; usize::from(*units) * 8]);
        }
        payload.extend(tail);
        ip6(first, &payload)
    })
}

/// Neighbour discovery, ARP and ICMP errors, with right checksums.
fn special() -> impl Strategy<Value = Vec<u8>> {
    let body = proptest::collection::vec(any::<u8>(), 4..80);
    let group = v6_text("ff02::1:ff00:3");
    prop_oneof![
        (133..138u8, body.clone(), any::<bool>()).prop_map(move |(kind, body, to_group)| {
            let destination = if to_group { group } else { B6 };
            let message = [&[kind, 0, 0, 0], body.as_slice()].concat();
            let message = icmp6(A6, destination, message);
            ip6_from_to(A6, destination, ICMPV6, 255, &message)
        }),
        (1..5u8, any::<u8>(), chains()).prop_map(|(kind, code, quoted)| {
            let message = [&[kind, code, 0, 0, 0, 0, 5, 0], &quoted[14..]].concat();
            ip6(ICMPV6, &icmp6(A6, B6, message))
        }),
        (
            proptest::sample::select(vec![3u8, 11, 12]),
            any::<u8>(),
            samples()
        )
            .prop_map(|(kind, code, quoted)| {
                let message = [&[kind, code, 0, 0, 0, 0, 5, 0], &quoted.bytes[14..]].concat();
                ip4(ICMP, &icmp4(message))
            }),
        body.prop_map(|body| {
            let mut message = vec![0, 1, 8, 0, 6, 4, 0, 1];
            message.extend(body);
            ethernet(0x0806, &message)
        }),
    ]
}

proptest! {
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        exercise(&bytes);
    }

    #[test]
    fn half_valid_frames(frame in half_valid()) {
        exercise(&frame);
    }

    #[test]
    fn extension_header_chains(frame in chains()) {
        exercise(&frame);
    }

    #[test]
    fn special_messages(frame in special()) {
        exercise(&frame);
    }

    #[test]
    fn valid_frames_and_their_ruins(
        sample in samples(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        exercise(&sample.bytes);
        let mut frame = sample.bytes;
        for (at, value) in changes {
            let at = at.index(frame.len());
            frame[at] = value;
            if frame[12..14] == [8, 0] {
                mend_ip4(&mut frame);
            }
            exercise(&frame);
        }
        if let Some(cut) = cut {
            exercise(&frame[..cut.index(frame.len())]);
        }
    }
}
