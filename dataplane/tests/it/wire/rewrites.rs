//! What forwarding changes, against checksums that etherparse computes.

use dataplane::DropReason;
use dataplane::wire::{Checksum, Offload, Packet, Transport, parse, rewrite};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::frames::*;

/// What the checksum fields of a frame hold, and what they should: transport, then IPv4.
fn sums(frame: &[u8]) -> Vec<(u16, u16)> {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let net = sliced.net.unwrap();
    let transport = match (&net, sliced.transport.unwrap()) {
        (NetSlice::Ipv4(ip), TransportSlice::Tcp(tcp)) => {
            let right = tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination());
            (tcp.checksum(), right.unwrap())
        }
        (NetSlice::Ipv6(ip), TransportSlice::Tcp(tcp)) => {
            let right = tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination());
            (tcp.checksum(), right.unwrap())
        }
        (NetSlice::Ipv4(ip), TransportSlice::Udp(udp)) => {
            let (source, destination) = (ip.header().source(), ip.header().destination());
            let header = udp.to_header();
            let right = header.calc_checksum_ipv4_raw(source, destination, udp.payload());
            (udp.checksum(), right.unwrap())
        }
        (NetSlice::Ipv6(ip), TransportSlice::Udp(udp)) => {
            let (source, destination) = (ip.header().source(), ip.header().destination());
            let header = udp.to_header();
            let right = header.calc_checksum_ipv6_raw(source, destination, udp.payload());
            (udp.checksum(), right.unwrap())
        }
        _ => (0, 0),
    };
    let mut sums = vec![transport];
    if let NetSlice::Ipv4(ip) = net {
        let header = ip.header().to_header();
        sums.push((header.header_checksum, header.calc_header_checksum()));
    }
    sums
}

#[track_caller]
fn check_sums(frame: &[u8]) {
    for (is, should) in sums(frame) {
        assert_eq!(is, should);
    }
}

/// Leaves the transport checksum to a device, as a pod's stack does.
fn left_to_device(frame: &[u8]) -> Option<Vec<u8>> {
    let packet = on_wire(frame).unwrap();
    let ip = packet.ip().unwrap();
    let field = match ip.transport {
        Transport::Tcp(_) => 16,
        Transport::Udp(_) => 6,
        _ => return None,
    };
    let (source, destination) = (ip.source.to_ip(), ip.destination.to_ip());
    let octets = |ip| match ip {
        std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
        std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let length = ip.transport_length as usize;
    let pseudo = pseudo_header(&octets(source), &octets(destination), ip.protocol.0, length);
    let at = usize::from(ip.transport_offset) + field;
    let mut frame = frame.to_vec();
    frame[at..at + 2].copy_from_slice(&internet_sum(&[&pseudo]).to_be_bytes());
    Some(frame)
}

proptest! {
    #[test]
    fn a_hop_takes_one_from_the_limit_and_keeps_the_sums(sample in samples()) {
        let packet = on_wire(&sample.bytes).unwrap();
        let mut frame = sample.bytes.clone();
        let done = rewrite::decrement_ttl(&mut frame, &packet);
        if sample.hop_limit <= 1 {
            prop_assert_eq!(done, Err(DropReason::TtlExceeded));
            prop_assert_eq!(frame, sample.bytes);
        } else {
            prop_assert_eq!(done, Ok(()));
            check_sums(&frame[..sample.length]);
            prop_assert_eq!(ip_of(&frame, Offload::Wire).hop_limit, sample.hop_limit - 1);
        }
    }

    #[test]
    fn software_finishes_what_was_left_to_a_device(sample in samples(), mtu in 40..2000u32) {
        let Some(mut frame) = left_to_device(&sample.bytes) else { return Ok(()) };
        let packet = parse(&frame, Offload::Virtual).unwrap();
        prop_assert_eq!(packet.ip().unwrap().checksum, Checksum::Partial);
        rewrite::clamp_mss(&mut frame, &packet, mtu).unwrap();
        rewrite::complete_checksum(&mut frame, &[], &packet).unwrap();
        check_sums(&frame[..sample.length]);
        // What is final stays as it is.
        let mut complete = sample.bytes.clone();
        let packet = on_wire(&complete).unwrap();
        rewrite::complete_checksum(&mut complete, &[], &packet).unwrap();
        prop_assert_eq!(complete, sample.bytes);
    }

    #[test]
    fn a_clamped_mss_fits_and_keeps_the_sum(sample in samples(), mtu in 0..3000u32) {
        let packet = on_wire(&sample.bytes).unwrap();
        let mut frame = sample.bytes.clone();
        let changed = rewrite::clamp_mss(&mut frame, &packet, mtu).unwrap();
        check_sums(&frame[..sample.length]);
        let headers = if sample.source.is_v4() { 40 } else { 60 };
        match (mss(&sample.bytes, &packet), mss(&frame, &packet)) {
            (Some(before), Some(after)) => {
                let fitting = mtu.saturating_sub(headers);
                let expected = if fitting == 0 { before } else { before.min(fitting) };
                prop_assert_eq!(after, expected);
                prop_assert_eq!(changed, before != after);
            }
            _ => {
                prop_assert!(!changed);
                prop_assert_eq!(frame, sample.bytes);
            }
        }
    }
}

fn mss(frame: &[u8], packet: &Packet) -> Option<u32> {
    let Transport::Tcp(tcp) = packet.ip()?.transport else {
        return None;
    };
    let at = usize::from(tcp.mss_offset?);
    Some(u32::from(frame[at]) << 8 | u32::from(frame[at + 1]))
}

#[test]
fn sctp_gets_its_crc32c() {
    // The sum is computed bit by bit here, by RFC 9260's definition.
    let mut frame = ip4(SCTP, &sctp(0, &[&SCTP_INIT]));
    let packet = parse(&frame, Offload::Virtual).unwrap();
    let mut crc = !0u32;
    for byte in &frame[34..] {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    rewrite::complete_checksum(&mut frame, &[], &packet).unwrap();
    assert_eq!(frame[42..46], (!crc).to_le_bytes());
    assert_eq!(ip_of(&frame, Offload::Virtual).checksum, Checksum::Complete);
    // On a wire 0 is what the sender wrote, and stays.
    let mut frame = ip4(SCTP, &sctp(0, &[&SCTP_INIT]));
    let packet = on_wire(&frame).unwrap();
    rewrite::complete_checksum(&mut frame, &[], &packet).unwrap();
    assert_eq!(frame[42..46], [0; 4]);
}

#[test]
fn udp_never_gets_a_checksum_of_zero() {
    // A payload that makes the sum 0xffff, whose complement would say "no checksum".
    let pseudo = pseudo_header(&A4, &B4, UDP, 10);
    let mut datagram = udp(10, &[0, 0]);
    let sum = internet_sum(&[&pseudo, &datagram]);
    datagram[8..].copy_from_slice(&(!sum).to_be_bytes());
    datagram[6..8].copy_from_slice(&internet_sum(&[&pseudo]).to_be_bytes());
    let mut frame = ip4(UDP, &datagram);
    let packet = parse(&frame, Offload::Virtual).unwrap();
    rewrite::complete_checksum(&mut frame, &[], &packet).unwrap();
    assert_eq!(frame[40..42], [0xff, 0xff]);
}

#[test]
fn udp_without_a_checksum_stays_without() {
    let mut frame = ip4(UDP, &udp(8, &[]));
    let before = frame.clone();
    let packet = parse(&frame, Offload::Virtual).unwrap();
    assert_eq!(packet.tx_checksum(), None);
    rewrite::complete_checksum(&mut frame, &[], &packet).unwrap();
    assert_eq!(frame, before);
}

#[test]
fn a_frame_shorter_than_its_description_stays_unchanged() {
    let whole = ip4(TCP, &syn(&[2, 4, 0x23, 0x28]));
    let packet = parse(&whole, Offload::Virtual).unwrap();
    for length in 0..whole.len() {
        let mut frame = whole[..length].to_vec();
        if length < 26 {
            let done = rewrite::decrement_ttl(&mut frame, &packet);
            assert_eq!(done, Err(DropReason::Internal));
        }
        if length < 58 {
            let done = rewrite::clamp_mss(&mut frame, &packet, 1400);
            assert_eq!(done, Err(DropReason::Internal));
        }
        assert_eq!(frame, whole[..length]);
    }
}
