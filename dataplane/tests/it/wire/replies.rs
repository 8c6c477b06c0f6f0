//! The ICMP errors that we send.

use dataplane::wire::{Icmp, Offload, Transport, reply};
use dataplane::{Address, DropReason, Mac};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::frames::*;

const OURS: Mac = Mac([2, 0, 0, 0, 0, 9]);

fn router(of: Address) -> Address {
    if of.is_v4() {
        v4([10, 0, 0, 1])
    } else {
        v6(v6_text("fd00::1"))
    }
}

/// Asks etherparse whether an answer's checksums are right.
fn check_sums(answer: &[u8]) {
    let sliced = SlicedPacket::from_ethernet(answer).unwrap();
    match (sliced.net.unwrap(), sliced.transport.unwrap()) {
        (NetSlice::Ipv4(ip), TransportSlice::Icmpv4(icmp)) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            let (header, payload) = (icmp.header(), icmp.payload());
            assert_eq!(header.checksum, header.icmp_type.calc_checksum(payload));
        }
        (NetSlice::Ipv6(ip), TransportSlice::Icmpv6(icmp)) => {
            let header = ip.header();
            assert!(icmp.is_checksum_valid(header.source(), header.destination()));
        }
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn an_error_quotes_the_packet_and_goes_back(sample in samples(), big in any::<bool>()) {
        let packet = on_wire(&sample.bytes).unwrap();
        let ip = packet.ip().unwrap();
        let big = big && ip.dont_fragment;
        let mut window = sample.bytes.clone();
        window.resize(4096, 0);
        let router = router(ip.source);
        let length = if big {
            reply::packet_too_big(&mut window, &packet, 1400, router, OURS)
        } else {
            reply::time_exceeded(&mut window, &packet, router, OURS)
        }
        .unwrap();
        let answer = &window[..length];
        check_sums(answer);
        prop_assert_eq!(&answer[..6], &POD.0);
        prop_assert_eq!(&answer[6..12], &OURS.0);
        let read = ip_of(answer, Offload::Wire);
        prop_assert_eq!((read.source, read.destination), (router, ip.source));
        let Transport::Icmp(Icmp::Error(error)) = read.transport else {
            panic!("{read:?}");
        };
        prop_assert_eq!(error.mtu, big.then_some(1400));
        prop_assert_eq!(error.inner.key, ip.flow_key());
        // The packet is quoted as it came, padding left out.
        let quoted = &answer[usize::from(error.inner.offset)..];
        prop_assert_eq!(quoted, &sample.bytes[14..sample.length]);
    }
}

#[test]
fn errors_have_a_largest_size() {
    for (frame, largest) in [
        (ip4(UDP, &udp(1408, &[7; 1400])), 576),
        (ip6(UDP, &udp(1408, &[7; 1400])), 1280),
    ] {
        let packet = on_wire(&frame).unwrap();
        let router = router(packet.ip().unwrap().source);
        let mut window = frame.clone();
        window.resize(2048, 0);
        let length = reply::time_exceeded(&mut window, &packet, router, OURS).unwrap();
        assert_eq!(length - 14, largest);
        check_sums(&window[..length]);
        // A window without any room behind the packet quotes less.
        let mut window = frame.clone();
        let length = reply::time_exceeded(&mut window, &packet, router, OURS).unwrap();
        assert_eq!(length - 14, largest.min(frame.len() - 14));
        check_sums(&window[..length]);
    }
}

#[test]
fn a_small_packet_in_a_small_window_gets_no_error() {
    let frame = ip4(UDP, &udp(12, &[7; 4]));
    let packet = on_wire(&frame).unwrap();
    for room in 0..28 {
        let mut window = frame.clone();
        window.resize(frame.len() + room, 0);
        let before = window.clone();
        let answer = reply::time_exceeded(&mut window, &packet, v4([10, 0, 0, 1]), OURS);
        // Headers and 8 bytes must fit: 4 of the 12 behind the header may be missing.
        assert_eq!(answer.is_ok(), room >= 24, "{room}");
        if answer.is_err() {
            assert_eq!((answer, window), (Err(DropReason::TtlExceeded), before));
        }
    }
}

#[test]
fn no_error_is_sent_about_these() {
    let error = {
        let mut message = vec![11, 0, 0, 0, 0, 0, 0, 0];
        message.extend(&ip4(TCP, &tcp(0x02))[14..]);
        ip4(ICMP, &icmp4(message))
    };
    let mut later = ip4(UDP, &[0; 16]);
    later[20..22].copy_from_slice(&[0, 2]);
    mend_ip4(&mut later);
    let mut to_group = ip4(UDP, &udp(8, &[]));
    to_group[30] = 224;
    mend_ip4(&mut to_group);
    let mut by_broadcast = ip4(UDP, &udp(8, &[]));
    by_broadcast[..6].fill(0xff);
    let redirect = ip4(ICMP, &[5, 0, 0, 0, 0, 0, 0, 0]);
    for (frame, what) in [
        (error, "an error"),
        (later, "a later fragment"),
        (to_group, "multicast"),
        (by_broadcast, "an Ethernet broadcast"),
        (redirect, "a redirect"),
    ] {
        let packet = on_wire(&frame).unwrap();
        let mut window = frame.clone();
        window.resize(2048, 0);
        let before = window.clone();
        let answer = reply::time_exceeded(&mut window, &packet, v4([10, 0, 0, 1]), OURS);
        assert_eq!(answer, Err(DropReason::TtlExceeded), "{what}");
        assert_eq!(window, before);
    }
    let mut window = ip6(UDP, &udp(8, &[]));
    let packet = on_wire(&window).unwrap();
    window.resize(2048, 0);
    let other_family = reply::time_exceeded(&mut window, &packet, v4([10, 0, 0, 1]), OURS);
    assert_eq!(other_family, Err(DropReason::TtlExceeded));
}

#[test]
fn a_packet_that_may_be_fragmented_is_not_too_big() {
    let mut header = ip4_header(UDP, 8);
    header.dont_fragment = false;
    let mut window = ip4_with(header, &udp(8, &[]));
    let packet = on_wire(&window).unwrap();
    window.resize(2048, 0);
    let answer = reply::packet_too_big(&mut window, &packet, 1400, v4([10, 0, 0, 1]), OURS);
    assert_eq!(answer, Err(DropReason::TooBig));
}

#[test]
fn an_echo_request_that_expires_is_told() {
    let mut window = ip6(ICMPV6, &[128, 0, 0, 0, 0, 7, 0, 1]);
    let packet = on_wire(&window).unwrap();
    window.resize(2048, 0);
    let length = reply::time_exceeded(&mut window, &packet, v6(v6_text("fd00::1")), OURS).unwrap();
    let Transport::Icmp(Icmp::Error(error)) = ip_of(&window[..length], Offload::Wire).transport
    else {
        panic!("an error");
    };
    assert!(error.inner.echo_request);
    assert_eq!((error.icmp_type, error.code), (3, 0));
}
