//! ICMP errors and the packets that they quote.

use dataplane::wire::{Icmp, IcmpError, Offload, Transport};
use dataplane::{DropReason, FlowKey, Protocol};

use super::frames::*;

/// An IPv4 packet of B to A, without Ethernet, as A's error about it quotes it.
fn quoted4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = ip4_header(protocol, 1000);
    (header.source, header.destination) = (B4, A4);
    header.header_checksum = 0xdead;
    let mut packet = header.to_bytes().to_vec();
    packet.extend(payload);
    packet
}

fn error4(icmp_type: u8, code: u8, parameter: u32, quoted: &[u8]) -> Vec<u8> {
    let mut message = vec![icmp_type, code, 0, 0];
    message.extend(parameter.to_be_bytes());
    message.extend(quoted);
    ip4(ICMP, &icmp4(message))
}

fn quoted6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = ip6_from_to(B6, A6, next, 3, payload);
    // The quotation is cut, its length field is not.
    frame[18..20].copy_from_slice(&1400u16.to_be_bytes());
    frame[14..].to_vec()
}

fn error6(icmp_type: u8, code: u8, parameter: u32, quoted: &[u8]) -> Vec<u8> {
    let mut message = vec![icmp_type, code, 0, 0];
    message.extend(parameter.to_be_bytes());
    message.extend(quoted);
    ip6(ICMPV6, &icmp6(A6, B6, message))
}

#[track_caller]
fn read(frame: &[u8]) -> IcmpError {
    match ip_of(frame, Offload::Wire).transport {
        Transport::Icmp(Icmp::Error(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_quoted_flow_is_read_by_protocol() {
    let tcp = [0, 80, 0x9c, 0x40, 0, 0, 0, 7];
    let error = read(&error4(3, 1, 0, &quoted4(TCP, &tcp)));
    let key = FlowKey {
        source: v4(B4),
        destination: v4(A4),
        source_port: 80,
        destination_port: 40000,
        protocol: Protocol::TCP,
    };
    assert_eq!(error.inner.key, key);
    assert_eq!(error.inner.tcp_sequence, Some(7));
    assert_eq!((error.icmp_type, error.code, error.mtu), (3, 1, None));
    assert_eq!((error.inner.offset, error.inner.transport_offset), (42, 62));
    let udp = read(&error6(1, 4, 0, &quoted6(UDP, &tcp)));
    let key = FlowKey {
        source: v6(B6),
        destination: v6(A6),
        protocol: Protocol::UDP,
        ..key
    };
    assert_eq!((udp.inner.key, udp.inner.tcp_sequence), (key, None));
    let sctp = read(&error4(11, 0, 0, &quoted4(SCTP, &tcp)));
    assert_eq!(sctp.inner.verification_tag, Some(7));
    assert_eq!(sctp.inner.key.source_port, 80);
    let echo = read(&error4(
        11,
        0,
        0,
        &quoted4(ICMP, &[8, 0, 0, 0, 0x12, 0x34, 0, 1]),
    ));
    assert_eq!(
        (echo.inner.key.source_port, echo.inner.key.destination_port),
        (0x1234, 0)
    );
    assert!(echo.inner.echo_request);
    let reply = read(&error6(
        3,
        0,
        0,
        &quoted6(ICMPV6, &[129, 0, 0, 0, 0x12, 0x34, 0, 1]),
    ));
    assert!(!reply.inner.echo_request);
    assert_eq!(
        (
            reply.inner.key.source_port,
            reply.inner.key.destination_port
        ),
        (0, 0x1234)
    );
    // Extension headers in the quotation are walked.
    let hops = [&[TCP, 0, 1, 4, 0, 0, 0, 0][..], &tcp].concat();
    assert_eq!(
        read(&error6(1, 0, 0, &quoted6(60, &hops)))
            .inner
            .key
            .source_port,
        80
    );
}

#[test]
fn mtus_are_read_where_they_are_defined() {
    let tcp = [0, 80, 0x9c, 0x40, 0, 0, 0, 7];
    for (mtu, possible) in [
        (0, false),
        (68, false),
        (575, false),
        (576, true),
        (1400, true),
    ] {
        let error = read(&error4(3, 4, mtu, &quoted4(TCP, &tcp)));
        assert_eq!((error.mtu, error.mtu_is_possible()), (Some(mtu), possible));
    }
    for (mtu, possible) in [(0, false), (1279, false), (1280, true), (1 << 31, true)] {
        let error = read(&error6(2, 0, mtu, &quoted6(TCP, &tcp)));
        assert_eq!((error.mtu, error.mtu_is_possible()), (Some(mtu), possible));
    }
    // RFC 1191: the field's upper half is unused.
    assert_eq!(
        read(&error4(3, 4, 0xffff_05dc, &quoted4(TCP, &tcp))).mtu,
        Some(1500)
    );
    assert_eq!(read(&error4(3, 3, 1500, &quoted4(TCP, &tcp))).mtu, None);
    assert!(read(&error4(3, 3, 1500, &quoted4(TCP, &tcp))).mtu_is_possible());
}

#[track_caller]
fn refused(frame: &[u8], reason: DropReason, what: &str) {
    assert_eq!(on_wire(frame).map(|_| ()), Err(reason), "{what}");
}

#[test]
fn errors_that_are_refused() {
    let tcp = [0, 80, 0x9c, 0x40, 0, 0, 0, 7];
    let good = error4(3, 1, 0, &quoted4(TCP, &tcp));
    for length in 42..good.len() {
        let mut cut = good[..length].to_vec();
        cut[16..18].copy_from_slice(&(length as u16 - 14).to_be_bytes());
        mend_ip4(&mut cut);
        let message = icmp4(cut[34..].to_vec());
        cut[34..].copy_from_slice(&message);
        refused(&cut, DropReason::MalformedTransport, "quotation cut");
    }
    let mut bad_sum = good.clone();
    bad_sum[45] ^= 1;
    refused(&bad_sum, DropReason::BadTransportChecksum, "checksum");
    let mut bad_sum = error6(1, 0, 0, &quoted6(TCP, &tcp));
    bad_sum[56] ^= 1;
    refused(&bad_sum, DropReason::BadTransportChecksum, "checksum, IPv6");
    let mut fragment = good;
    fragment[20] = 0x20;
    mend_ip4(&mut fragment);
    refused(
        &fragment,
        DropReason::MalformedIp,
        "a fragment of odd length",
    );
    let mut later = quoted4(TCP, &tcp);
    later[6..8].copy_from_slice(&[0, 3]);
    refused(
        &error4(3, 1, 0, &later),
        DropReason::UnrelatedIcmpError,
        "about a later fragment",
    );
    for (quoted, what) in [
        (quoted4(ICMP, &[3, 1, 0, 0, 0, 0, 0, 0]), "about an error"),
        (quoted4(ICMP, &[5, 1, 0, 0, 0, 0, 0, 0]), "about a redirect"),
    ] {
        refused(
            &error4(3, 1, 0, &quoted),
            DropReason::UnrelatedIcmpError,
            what,
        );
    }
    let neighbour = quoted6(ICMPV6, &[135, 0, 0, 0, 0, 0, 0, 0]);
    refused(
        &error6(1, 3, 0, &neighbour),
        DropReason::UnrelatedIcmpError,
        "about a solicitation",
    );
    // The families do not mix.
    let mixed = error4(3, 1, 0, &quoted6(TCP, &tcp));
    refused(
        &mixed,
        DropReason::MalformedTransport,
        "IPv6 quoted by ICMP",
    );
    let mixed = error6(1, 0, 0, &quoted4(TCP, &[0; 40]));
    refused(
        &mixed,
        DropReason::MalformedTransport,
        "IPv4 quoted by ICMPv6",
    );
    let mut mapped = quoted6(TCP, &tcp);
    mapped[8..24].copy_from_slice(&v6_text("::ffff:10.0.2.3"));
    refused(
        &error6(1, 0, 0, &mapped),
        DropReason::MartianAddress,
        "an IPv4-mapped quotation",
    );
}
