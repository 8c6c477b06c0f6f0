//! Every malformed shape and the reason that counts it, as a table.

use dataplane::DropReason::{self, *};
use dataplane::wire::{Checksum, Fragment, Icmp, Offload, Transport};
use dataplane::{Address, Protocol};

use super::frames::*;

#[track_caller]
fn refused(frame: &[u8], reason: DropReason, what: &str) {
    assert_eq!(on_wire(frame).map(|_| ()), Err(reason), "{what}");
}

fn with(mut frame: Vec<u8>, changes: &[(usize, u8)]) -> Vec<u8> {
    for (at, value) in changes {
        frame[*at] = *value;
    }
    if frame[12..14] == [8, 0] {
        mend_ip4(&mut frame);
    }
    frame
}

#[test]
fn ethernet_headers() {
    let good = ip4(TCP, &tcp(0x02));
    assert!(on_wire(&good).is_ok());
    refused(&[], Truncated, "nothing");
    refused(&good[..13], Truncated, "half an Ethernet header");
    refused(&ethernet(0x8100, &[0; 60]), UnknownEthertype, "VLAN");
    refused(&ethernet(0x88a8, &[0; 60]), UnknownEthertype, "QinQ");
    refused(
        &ethernet(0x0026, &[0; 60]),
        UnknownEthertype,
        "802.3 length",
    );
    refused(&ethernet(0x88cc, &[0; 60]), UnknownEthertype, "LLDP");
    let group = with(good.clone(), &[(6, 0x03)]);
    refused(&group, MartianAddress, "a group as sender");
    let nobody = with(good, &[(6, 0), (11, 0)]);
    refused(&nobody, MartianAddress, "all zeros as sender");
}

#[test]
fn ipv4_headers() {
    let good = ip4(TCP, &tcp(0x02));
    for (changes, reason, what) in [
        (&[(14, 0x65)][..], MalformedIp, "version 6 in an IPv4 frame"),
        (&[(14, 0x44)], MalformedIp, "a header of 16 bytes"),
        (
            &[(16, 0), (17, 19)],
            MalformedIp,
            "total length below the header's",
        ),
        (&[(16, 0xff)], Truncated, "total length beyond the frame"),
        (&[(20, 0x80)], MalformedIp, "the reserved flag"),
        (&[(26, 127)], MartianAddress, "loopback source"),
        (&[(26, 224)], MartianAddress, "multicast source"),
        (&[(26, 0)], MartianAddress, "source on 'this network'"),
        (
            &[(26, 255), (27, 255), (28, 255), (29, 255)],
            MartianAddress,
            "broadcast source",
        ),
        (&[(30, 127)], MartianAddress, "loopback destination"),
        (&[(30, 0)], MartianAddress, "unspecified destination"),
    ] {
        refused(&with(good.clone(), changes), reason, what);
    }
    let mut bad_sum = good.clone();
    bad_sum[24] ^= 1;
    refused(&bad_sum, BadIpChecksum, "checksum");
    // 15 words of header promised, 5 there.
    let mut long = good.clone();
    long[14] = 0x4f;
    long[16..18].copy_from_slice(&60u16.to_be_bytes());
    refused(&long, Truncated, "header beyond the frame");
    let dhcp = with(good, &[(26, 0), (27, 0), (28, 0), (29, 0)]);
    refused(&dhcp, MartianAddress, "unspecified source");
}

#[test]
fn multicast_and_broadcast_destinations_are_told() {
    for destination in [[224, 0, 0, 251], [255, 255, 255, 255]] {
        let mut frame = ip4(UDP, &udp(8, &[]));
        frame[30..34].copy_from_slice(&destination);
        mend_ip4(&mut frame);
        assert!(ip_of(&frame, Offload::Wire).is_multicast());
    }
    let frame = ip6_from_to(A6, v6_text("ff02::fb"), UDP, 64, &udp(8, &[]));
    assert!(ip_of(&frame, Offload::Wire).is_multicast());
    assert!(!ip_of(&ip4(UDP, &udp(8, &[])), Offload::Wire).is_multicast());
}

fn options(options: &[u8]) -> Vec<u8> {
    let mut header = ip4_header(TCP, 20);
    header.options = options.try_into().unwrap();
    header.set_payload_len(20).unwrap();
    ip4_with(header, &tcp(0x02))
}

#[test]
fn ipv4_options() {
    for (bytes, reason) in [
        (&[131, 7, 4, 10, 0, 0, 1, 0][..], SourceRouted),
        (&[137, 7, 4, 10, 0, 0, 1, 0], SourceRouted),
        (&[1, 1, 1, 131], SourceRouted),
        (&[7, 0, 0, 0], MalformedOptions),
        (&[7, 1, 0, 0], MalformedOptions),
        (&[7, 5, 0, 0], MalformedOptions),
        (&[1, 1, 1, 7], MalformedOptions),
        (&[0x44, 0xff, 0, 0], MalformedOptions),
    ] {
        refused(&options(bytes), reason, &format!("{bytes:?}"));
    }
    for bytes in [
        &[0, 0, 0, 0][..],
        &[1, 1, 1, 1],
        &[0x94, 4, 0, 0],
        // Behind the end of the list nothing counts.
        &[0, 131, 1, 1],
        &[1, 7, 7, 4, 0, 0, 0, 0],
    ] {
        let ip = ip_of(&options(bytes), Offload::Wire);
        assert_eq!(usize::from(ip.transport_offset), 34 + bytes.len());
        assert_eq!(
            ip.flow_key().destination_port,
            80,
            "options do not shift ports"
        );
    }
}

#[test]
fn ipv4_fragments() {
    let fragment = |units: u16, more: bool, protocol: u8, payload: &[u8]| {
        let mut frame = ip4(protocol, payload);
        let field = units | if more { 0x2000 } else { 0 };
        frame[18..20].copy_from_slice(&[0xab, 0xcd]);
        frame[20..22].copy_from_slice(&field.to_be_bytes());
        mend_ip4(&mut frame);
        frame
    };
    let first = [tcp(0x02), vec![0; 4]].concat();
    let ip = ip_of(&fragment(0, true, TCP, &first), Offload::Virtual);
    let place = Fragment {
        length: first.len() as u32,
        identification: 0xabcd,
        offset: 0,
        more: true,
    };
    assert_eq!(ip.fragment, Some(place));
    assert_eq!(ip.flow_key().destination_port, 80);
    assert_eq!(
        ip.checksum,
        Checksum::Complete,
        "a part has no partial checksum"
    );
    let later = ip_of(&fragment(3, false, TCP, &[1; 5]), Offload::Wire);
    assert_eq!(later.fragment.unwrap().offset, 24);
    assert_eq!(later.transport, Transport::Unread);
    assert_eq!((later.ports(), later.policy_port()), ((0, 0), None));
    for (frame, reason, what) in [
        (
            fragment(0, true, TCP, &first[..16]),
            TinyFragment,
            "half a TCP header",
        ),
        (
            fragment(0, true, UDP, &[]),
            MalformedIp,
            "an empty fragment",
        ),
        (
            fragment(0, true, SCTP, &first[..8]),
            TinyFragment,
            "half an SCTP header",
        ),
        (
            fragment(1, true, TCP, &first),
            TinyFragment,
            "TCP's flags overwritten",
        ),
        (
            fragment(0, true, UDP, &[0; 12]),
            MalformedIp,
            "length no multiple of 8",
        ),
        (
            fragment(0x1fff, false, UDP, &[0; 16]),
            OversizedDatagram,
            "beyond 65535 bytes",
        ),
        (
            // 65512 bytes before it and 20 of header: the longest ends with 3 bytes more.
            fragment(65_512 / 8, false, UDP, &[0; 4]),
            OversizedDatagram,
            "beyond 65535 bytes with the header",
        ),
        (
            fragment(2, false, UDP, &[]),
            MalformedIp,
            "an empty last one",
        ),
    ] {
        refused(&frame, reason, what);
    }
    let longest = ip_of(&fragment(65_512 / 8, false, UDP, &[0; 3]), Offload::Wire);
    assert_eq!(longest.fragment.unwrap().length, 3);
    // Its options do not fit the first fragment.
    let mut cut = syn(&[2, 4, 5, 0xb4, 1, 1, 1, 1, 1, 1, 1, 1]);
    cut.truncate(24);
    refused(
        &fragment(0, true, TCP, &cut),
        TinyFragment,
        "TCP options cut",
    );
}

#[test]
fn ipv6_headers() {
    let good = ip6(TCP, &tcp(0x02));
    assert!(on_wire(&good).is_ok());
    refused(&with(good.clone(), &[(14, 0x40)]), MalformedIp, "version 4");
    refused(
        &with(good.clone(), &[(18, 0xff)]),
        Truncated,
        "payload length",
    );
    let syn = tcp(0x02);
    for (source, destination, what) in [
        ("::1", "fd00::2", "loopback source"),
        ("fd00::1", "::1", "loopback destination"),
        ("::", "fd00::2", "unspecified source"),
        ("::", "ff02::1", "unspecified source of TCP to a group"),
        ("fd00::1", "::", "unspecified destination"),
        ("ff02::1", "fd00::2", "multicast source"),
        ("::ffff:10.0.0.1", "fd00::2", "IPv4-mapped source"),
        ("fd00::1", "::ffff:10.0.0.1", "IPv4-mapped destination"),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", "both IPv4-mapped"),
    ] {
        let frame = ip6_from_to(v6_text(source), v6_text(destination), TCP, 64, &syn);
        refused(&frame, MartianAddress, what);
    }
    refused(&ip6(TCP, &[]), MalformedTransport, "no payload at all");
    assert_eq!(
        ip_of(&ip6(59, &[]), Offload::Wire).transport,
        Transport::Other
    );
}

/// Extension headers, each as (type, bytes behind the next header field), and then TCP.
fn chained(headers: &[(u8, &[u8])], last: u8, tail: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (index, (_, body)) in headers.iter().enumerate() {
        payload.push(headers.get(index + 1).map_or(last, |(next, _)| *next));
        payload.extend(*body);
    }
    payload.extend(tail);
    ip6(headers.first().map_or(last, |(first, _)| *first), &payload)
}

const PADDING: &[u8] = &[0, 1, 4, 0, 0, 0, 0];
const ROUTER_ALERT: &[u8] = &[0, 5, 2, 0, 0, 1, 0];

#[test]
fn ipv6_extension_headers_that_parse_do_not_shift_ports() {
    let authentication: &[u8] = &[
        4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    for headers in [
        &[(0u8, ROUTER_ALERT)][..],
        &[(60, PADDING)],
        &[
            (0, PADDING),
            (60, PADDING),
            (43, &[0, 2, 0, 0, 0, 0, 0]),
            (60, PADDING),
        ],
        &[(51, authentication)],
        &[(44, &[0, 0, 0, 1, 2, 3, 4])],
        &[(60, PADDING); 8],
    ] {
        let frame = chained(headers, TCP, &tcp(0x02));
        let ip = ip_of(&frame, Offload::Wire);
        assert_eq!(ip.protocol, Protocol::TCP);
        assert_eq!(ip.policy_port(), Some(80));
        assert_eq!(ip.fragment, None);
    }
}

#[test]
fn ipv6_extension_headers_that_are_refused() {
    let long: Vec<u8> = [&[4u8][..], &[0x1e, 0].repeat(9), &[1, 18], &[0; 18]].concat();
    let many_options: Vec<u8> = [&[2u8][..], &[0x1e, 0].repeat(9), &[1, 2, 0, 0]].concat();
    assert_eq!((long.len(), many_options.len()), (39, 23));
    for (headers, reason, what) in [
        (
            &[(60, PADDING), (0, PADDING)][..],
            MalformedExtension,
            "hop-by-hop second",
        ),
        (
            &[(0, PADDING), (0, PADDING)],
            MalformedExtension,
            "hop-by-hop twice",
        ),
        (&[(60, PADDING); 9], TooManyExtensions, "nine headers"),
        (
            &[(43, &[0, 0, 0, 0, 0, 0, 0])],
            SourceRouted,
            "routing header 0",
        ),
        (
            &[(43, &[0, 0, 1, 0, 0, 0, 0])],
            SourceRouted,
            "routing header 0, hops left",
        ),
        (
            &[(43, &[0, 4, 1, 0, 0, 0, 0])],
            SourceRouted,
            "segment routing, hops left",
        ),
        (
            &[(60, &[0, 0x1e, 9, 0, 0, 0, 0])],
            MalformedExtension,
            "option beyond header",
        ),
        (
            &[(60, &[0, 1, 3, 0, 0, 0, 5])],
            MalformedExtension,
            "option without length",
        ),
        (
            &[(0, &[0, 0xc2, 4, 0, 1, 0, 0])],
            MalformedExtension,
            "jumbo payload",
        ),
        (
            &[(60, &[1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])],
            MalformedExtension,
            "padding",
        ),
        (&[(60, &many_options)], TooManyExtensions, "nine options"),
        (
            &[(60, &long)],
            TooManyExtensions,
            "nine options and padding",
        ),
        (
            &[(60, &[200, 1, 4, 0, 0, 0, 0])],
            MalformedExtension,
            "header beyond packet",
        ),
        (
            &[(51, &[0, 0, 0, 0, 0, 0, 0])],
            MalformedExtension,
            "short authentication",
        ),
        (
            &[(44, &[0, 0, 0, 1, 2, 3, 4]), (44, &[0, 0, 0, 1, 2, 3, 4])],
            MalformedExtension,
            "fragment header twice",
        ),
    ] {
        refused(&chained(headers, TCP, &tcp(0x02)), reason, what);
    }
    for cut in 1..8 {
        let payload = [TCP, 0, 1, 4, 0, 0, 0, 0];
        refused(&ip6(60, &payload[..cut]), MalformedExtension, "header cut");
    }
}

#[test]
fn ipv6_fragments() {
    let first: &[u8] = &[0, 0, 1, 0, 0, 0xab, 0xcd];
    let tail = [tcp(0x02), vec![0; 4]].concat();
    let ip = ip_of(&chained(&[(44, first)], TCP, &tail), Offload::Virtual);
    assert_eq!(ip.fragment.unwrap().identification, 0xabcd);
    assert_eq!(
        (ip.policy_port(), ip.checksum),
        (Some(80), Checksum::Complete)
    );
    // What follows a later fragment's header is payload, whatever its next header says.
    let later = chained(&[(44, &[0, 0, 24, 0, 0, 0xab, 0xcd])], 60, &[0xff; 7]);
    let ip = ip_of(&later, Offload::Wire);
    assert_eq!(
        (ip.transport, ip.protocol),
        (Transport::Unread, Protocol(60))
    );
    assert_eq!(ip.fragment.unwrap().offset, 24);
    // Seven bytes of a destination options header: its length, and padding.
    let options = [0, 1, 4, 0, 0, 0, 0];
    let longest = chained(&[(44, &[0, 0xff, 0xf8, 0, 0, 0, 1])], UDP, &[0; 7]);
    let ip = ip_of(&longest, Offload::Wire);
    assert_eq!(ip.fragment.unwrap().length, 7);
    for (frame, reason, what) in [
        (
            chained(&[(44, first)], TCP, &tail[..16]),
            TinyFragment,
            "half a TCP header",
        ),
        (
            chained(&[(44, first)], 60, &[6, 1, 1, 4, 0, 0, 0, 0]),
            TinyFragment,
            "chain cut",
        ),
        (
            chained(&[(44, first)], TCP, &tail[..12]),
            MalformedIp,
            "no multiple of 8",
        ),
        (chained(&[(44, first)], TCP, &[]), MalformedIp, "empty"),
        (
            chained(&[(44, &[0, 0xff, 0xf8, 0, 0, 0, 1])], UDP, &[0; 16]),
            OversizedDatagram,
            "too long",
        ),
        (
            chained(
                &[(60, &options), (44, &[0, 0xff, 0xf8, 0, 0, 0, 1])],
                UDP,
                &[0; 7],
            ),
            OversizedDatagram,
            "too long with the headers before",
        ),
        (
            chained(&[(44, &[0, 0, 9, 0, 0, 0, 1])], TCP, &tail),
            TinyFragment,
            "offset 8",
        ),
    ] {
        refused(&frame, reason, what);
    }
}

#[test]
fn tcp_headers() {
    let valid = [0x02, 0x22, 0x12, 0x04, 0x14, 0x11, 0x31, 0x10, 0x30];
    for flags in 0..=255u8 {
        let expected = valid.contains(&(flags & 0x37));
        let parsed = on_wire(&ip4(TCP, &tcp(flags)));
        assert_eq!(parsed.is_ok(), expected, "{flags:#x}");
        if !expected {
            assert_eq!(parsed, Err(BadTcpFlags), "{flags:#x}");
        }
    }
    let mut short = tcp(0x10);
    short[12] = 4 << 4;
    refused(&ip4(TCP, &short), MalformedTransport, "data offset 4");
    short[12] = 6 << 4;
    refused(
        &ip4(TCP, &short),
        MalformedTransport,
        "data offset beyond the packet",
    );
    for options in [
        &[1, 1, 2, 4][..],
        &[2, 3, 5, 1],
        &[3, 4, 1, 1],
        &[8, 0, 1, 1],
        &[8, 1, 1, 1],
        &[8, 10, 1, 1],
        &[1, 1, 1, 8],
    ] {
        let frame = ip4(TCP, &syn(options));
        refused(&frame, MalformedTransport, &format!("options {options:?}"));
    }
    for options in [
        &[0, 99, 99, 99][..],
        &[1, 1, 1, 0],
        &[99, 2, 1, 1],
        &[2, 4, 5, 0xb4],
    ] {
        assert!(on_wire(&ip4(TCP, &syn(options))).is_ok(), "{options:?}");
    }
}

#[test]
fn udp_headers() {
    for length in 0..8 {
        refused(
            &ip4(UDP, &udp(length, &[])),
            MalformedTransport,
            "length below 8",
        );
    }
    refused(
        &ip4(UDP, &udp(13, &[0; 4])),
        MalformedTransport,
        "length beyond",
    );
    // Bytes behind the datagram are no part of it (RFC 9868 makes options of them).
    let frame = ip4(UDP, &udp(8, &[0; 4]));
    assert!(matches!(
        ip_of(&frame, Offload::Wire).transport,
        Transport::Udp(_)
    ));
    assert_eq!(ip_of(&frame, Offload::Virtual).checksum, Checksum::Absent);
}

#[test]
fn sctp_headers() {
    let good = sctp(0, &[&SCTP_INIT]);
    let Transport::Sctp(read) = ip_of(&ip4(SCTP, &good), Offload::Wire).transport else {
        panic!("SCTP");
    };
    assert_eq!((read.source_port, read.destination_port), (40000, 3812));
    assert_eq!(
        (read.first_chunk, read.initiate_tag),
        (1, Some(0xcafe_babe))
    );
    let data: &[u8] = &[0, 3, 0, 17, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    let cookie: &[u8] = &[10, 7, 0, 4];
    // The last chunk's padding may be missing; the first one's may not.
    let bundle = sctp(5, &[cookie, data]);
    let Transport::Sctp(read) = ip_of(&ip4(SCTP, &bundle), Offload::Wire).transport else {
        panic!("SCTP");
    };
    assert_eq!((read.first_chunk, read.first_chunk_flags), (10, 7));
    for (packet, what) in [
        (good[..12].to_vec(), "no chunk"),
        (sctp(0, &[&[1, 0, 0, 4]]), "INIT without body"),
        (sctp(5, &[&[0, 0, 0, 3]]), "chunk length 3"),
        (sctp(5, &[&[0, 0, 0, 0]]), "chunk length 0"),
        (
            sctp(5, &[&[0, 0, 0, 9, 0, 0, 0, 0]]),
            "chunk beyond the packet",
        ),
        (sctp(5, &[cookie, &[3, 0]]), "half a chunk header"),
        (sctp(0, &[&SCTP_INIT, cookie]), "INIT bundled"),
        (
            sctp(5, &[cookie, &[14, 0, 0, 4]]),
            "SHUTDOWN COMPLETE bundled",
        ),
        (sctp(5, &[&SCTP_INIT]), "INIT with a tag"),
    ] {
        refused(&ip4(SCTP, &packet), MalformedTransport, what);
    }
}

#[test]
fn checksum_states() {
    let partial = |protocol: u8, mut segment: Vec<u8>, field: usize| {
        let pseudo = pseudo_header(&A4, &B4, protocol, segment.len());
        segment[field..field + 2].copy_from_slice(&internet_sum(&[&pseudo]).to_be_bytes());
        ip4(protocol, &segment)
    };
    let tcp_frame = partial(TCP, tcp(0x02), 16);
    let udp_frame = partial(UDP, udp(13, b"hello"), 6);
    for (frame, offset) in [(&tcp_frame, 16), (&udp_frame, 6)] {
        assert_eq!(ip_of(frame, Offload::Virtual).checksum, Checksum::Partial);
        assert_eq!(ip_of(frame, Offload::Wire).checksum, Checksum::Complete);
        let device = dataplane::wire::parse(frame, Offload::Virtual)
            .unwrap()
            .tx_checksum();
        let device = device.unwrap();
        assert_eq!((device.start, device.offset), (34, offset));
        assert_eq!(on_wire(frame).unwrap().tx_checksum(), None);
    }
    let pseudo = pseudo_header(&A6, &B6, TCP, 20);
    let mut segment = tcp(0x02);
    segment[16..18].copy_from_slice(&internet_sum(&[&pseudo]).to_be_bytes());
    assert_eq!(
        ip_of(&ip6(TCP, &segment), Offload::Virtual).checksum,
        Checksum::Partial
    );
    // SCTP's CRC32c is left to a device by a field of 0, on virtual ports only.
    let frame = ip4(SCTP, &sctp(0, &[&SCTP_INIT]));
    assert_eq!(ip_of(&frame, Offload::Virtual).checksum, Checksum::Absent);
    assert_eq!(ip_of(&frame, Offload::Wire).checksum, Checksum::Complete);
    let frame = ip4(UDP, &udp(8, &[]));
    assert_eq!(ip_of(&frame, Offload::Wire).checksum, Checksum::Absent);
}

#[test]
fn icmp_kinds() {
    let kind = |frame: &[u8]| match ip_of(frame, Offload::Wire).transport {
        Transport::Icmp(icmp) => icmp,
        other => panic!("{other:?}"),
    };
    for icmp_type in [4, 5, 9, 10] {
        let icmp = kind(&ip4(ICMP, &[icmp_type, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(icmp, Icmp::NotForwarded { icmp_type, code: 0 });
    }
    for icmp_type in [
        5, 127, 130, 131, 132, 138, 141, 142, 143, 148, 149, 151, 152, 153,
    ] {
        let icmp = kind(&ip6(ICMPV6, &[icmp_type, 1, 0, 0, 0, 0, 0, 0]));
        assert_eq!(icmp, Icmp::NotForwarded { icmp_type, code: 1 });
    }
    assert_eq!(
        kind(&ip4(ICMP, &[13, 0, 0, 0, 0, 0, 0, 0])),
        Icmp::Other {
            icmp_type: 13,
            code: 0
        }
    );
    // An echo of another code is none.
    assert_eq!(
        kind(&ip4(ICMP, &[8, 9, 0, 0, 0, 7, 0, 1])),
        Icmp::Other {
            icmp_type: 8,
            code: 9
        }
    );
    // ICMP of the other family's number is just another protocol.
    for frame in [
        ip4(ICMPV6, &[135; 32]),
        ip6(ICMP, &[8, 0, 0, 0, 0, 7, 0, 1]),
    ] {
        assert_eq!(ip_of(&frame, Offload::Wire).transport, Transport::Other);
    }
    for length in 0..8 {
        refused(
            &ip4(ICMP, &[8; 8][..length]),
            MalformedTransport,
            "short ICMP",
        );
        refused(
            &ip6(ICMPV6, &[128; 8][..length]),
            MalformedTransport,
            "short ICMPv6",
        );
    }
    // While an address is being acquired, listeners report from `::`.
    let report = [143, 0, 0, 0, 0, 0, 0, 0];
    let frame = ip6_from_to([0; 16], v6_text("ff02::16"), ICMPV6, 1, &report);
    assert_eq!(ip_of(&frame, Offload::Wire).source, Address::v6(0));
}
