//! The parser and etherparse say the same of a packet.

use dataplane::drop_reason::Blame;
use dataplane::wire::{Checksum, Fragment, Icmp, Offload, Transport, Version, brief, parse};
use dataplane::{Address, Protocol};
use etherparse::{LinkSlice, NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::frames::*;

proptest! {
    /// The short way is there for the packets that nearly all are.
    #[test]
    fn ordinary_packets_go_the_short_way(sample in samples()) {
        let ip = *parse(&sample.bytes, Offload::Virtual).unwrap().ip().unwrap();
        let ordinary = match &sample.built {
            Built::Tcp(header) => !header.syn && !header.urg,
            Built::Udp(..) => true,
            _ => false,
        };
        let plain = |address: Address| match address.as_v4() {
            Some(bits) => bits >> 24 < 224 && bits >> 16 != 0xa9fe,
            None => address.0 >> 125 == 1 || address.0 >> 121 == 0xfc >> 1,
        };
        let headers = if ip.version == Version::V4 { 34 } else { 54 };
        let expected = ordinary
            && plain(ip.source)
            && plain(ip.destination)
            && ip.transport_offset == headers;
        prop_assert_eq!(brief(&sample.bytes, Offload::Virtual).is_some(), expected);
    }

    #[test]
    fn what_was_built_is_what_is_read(sample in samples()) {
        let packet = parse(&sample.bytes, Offload::Wire).unwrap();
        prop_assert_eq!(packet.ethernet.source, POD);
        prop_assert_eq!(packet.ethernet.destination, GATEWAY);
        prop_assert_eq!(packet.length as usize, sample.length);
        let ip = packet.ip().unwrap();
        prop_assert_eq!((ip.source, ip.destination), (sample.source, sample.destination));
        prop_assert_eq!(ip.hop_limit, sample.hop_limit);
        prop_assert_eq!(ip.fragment, None);
        prop_assert_eq!(ip.packet_length() as usize, sample.length - 14);
        let key = ip.flow_key();
        prop_assert_eq!((key.source, key.destination), (sample.source, sample.destination));
        match (&sample.built, ip.transport) {
            (Built::Tcp(header), Transport::Tcp(tcp)) => {
                prop_assert_eq!(key.protocol, Protocol::TCP);
                prop_assert_eq!(tcp.source_port, header.source_port);
                prop_assert_eq!(tcp.destination_port, header.destination_port);
                prop_assert_eq!(tcp.sequence, header.sequence_number);
                prop_assert_eq!(tcp.acknowledgement, header.acknowledgment_number);
                prop_assert_eq!(tcp.window, header.window_size);
                prop_assert_eq!(usize::from(tcp.header_length), header.header_len());
                let payload = ip.transport_length as usize - header.header_len();
                prop_assert_eq!(tcp.payload_length as usize, payload);
                check_syn_options(&sample, header, &tcp);
            }
            (Built::Udp(from, to), Transport::Udp(udp)) => {
                prop_assert_eq!((udp.source_port, udp.destination_port), (*from, *to));
                prop_assert_eq!(u32::from(udp.length), ip.transport_length);
                prop_assert_eq!((key.source_port, key.destination_port), (*from, *to));
            }
            (
                Built::EchoRequest(id, seq),
                Transport::Icmp(Icmp::EchoRequest { identifier, sequence }),
            ) => {
                prop_assert_eq!((identifier, sequence), (*id, *seq));
                prop_assert_eq!((key.source_port, key.destination_port), (*id, 0));
            }
            (
                Built::EchoReply(id, seq),
                Transport::Icmp(Icmp::EchoReply { identifier, sequence }),
            ) => {
                prop_assert_eq!((identifier, sequence), (*id, *seq));
                prop_assert_eq!((key.source_port, key.destination_port), (0, *id));
            }
            (built, read) => prop_assert!(false, "{built:?} was read as {read:?}"),
        }
    }

    #[test]
    fn a_packet_cut_anywhere_is_refused_and_padding_is_not_part_of_it(sample in samples()) {
        let whole = parse(&sample.bytes, Offload::Wire).unwrap();
        for length in 0..sample.bytes.len() {
            match parse(&sample.bytes[..length], Offload::Wire) {
                Ok(packet) => {
                    prop_assert!(length >= sample.length, "{length} of {}", sample.length);
                    prop_assert_eq!(packet, whole);
                }
                Err(reason) => {
                    prop_assert!(length < sample.length, "{length}: {reason:?}");
                    prop_assert_eq!(reason.name(), "truncated");
                }
            }
        }
    }

    /// The IP length is cut, too, so that the refusal is up to the layers above.
    #[test]
    fn a_transport_cut_anywhere_is_refused_with_the_packet_to_blame(sample in samples()) {
        let whole = *parse(&sample.bytes, Offload::Wire).unwrap().ip().unwrap();
        let headers = usize::from(whole.transport_offset);
        for length in headers..sample.length {
            let mut frame = sample.bytes[..length].to_vec();
            match whole.version {
                Version::V4 => {
                    frame[16..18].copy_from_slice(&(length as u16 - 14).to_be_bytes());
                    mend_ip4(&mut frame);
                }
                Version::V6 => {
                    frame[18..20].copy_from_slice(&(length as u16 - 54).to_be_bytes());
                }
            }
            let least = match whole.transport {
                Transport::Tcp(tcp) => usize::from(tcp.header_length),
                Transport::Udp(udp) => usize::from(udp.length),
                _ => 8,
            };
            let parsed = parse(&frame, Offload::Wire);
            prop_assert_eq!(parsed.is_ok(), length >= headers + least, "{}", length);
            if let Err(reason) = parsed {
                prop_assert_eq!(reason.name(), "malformed_transport");
            }
        }
    }

    /// Whatever bytes we accept, another parser accepts and reads alike.
    #[test]
    fn accepted_packets_read_alike(
        sample in samples(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
        mend in any::<bool>(),
    ) {
        let mut frame = sample.bytes.clone();
        for (at, value) in changes {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        if mend && frame[12..14] == [8, 0] {
            mend_ip4(&mut frame);
        }
        match parse(&frame, Offload::Wire) {
            Ok(packet) => if let Some(ip) = packet.ip() {
                compare(&frame, ip);
            },
            Err(reason) => {
                let blame = reason.blame();
                prop_assert!(matches!(blame, Blame::Packet | Blame::Sender | Blame::Limit));
            }
        }
    }
}

fn check_syn_options(sample: &Sample, header: &etherparse::TcpHeader, tcp: &dataplane::wire::Tcp) {
    use etherparse::TcpOptionElement::{MaximumSegmentSize, WindowScale};
    let (mut mss, mut scale) = (None, None);
    for option in header.options_iterator() {
        match option.unwrap() {
            MaximumSegmentSize(value) => mss = Some(value),
            WindowScale(value) => scale = Some(value.min(14)),
            _ => {}
        }
    }
    let read_mss = tcp.mss_offset.map(|at| {
        let at = usize::from(at);
        u16::from_be_bytes([sample.bytes[at], sample.bytes[at + 1]])
    });
    if header.syn {
        assert_eq!((read_mss, tcp.window_scale), (mss, scale));
    } else {
        assert_eq!((read_mss, tcp.window_scale), (None, None));
    }
}

fn is_unread(transport: &Transport) -> bool {
    matches!(
        transport,
        Transport::Other | Transport::Icmp(Icmp::Other { .. } | Icmp::NotForwarded { .. })
    )
}

fn compare(frame: &[u8], ip: &dataplane::wire::Ip) {
    let other = match SlicedPacket::from_ethernet(frame) {
        Ok(other) => other,
        // It reads what we do not: IGMP, ICMP timestamps.
        Err(_) if is_unread(&ip.transport) => return,
        Err(error) => panic!("{error} in {frame:02x?}"),
    };
    assert!(matches!(other.link, Some(LinkSlice::Ethernet2(_))));
    match other.net.unwrap() {
        NetSlice::Ipv4(slice) => {
            let header = slice.header();
            assert_eq!(ip.version, Version::V4);
            assert_eq!(ip.source, v4(header.source()));
            assert_eq!(ip.destination, v4(header.destination()));
            assert_eq!(ip.hop_limit, header.ttl());
            assert_eq!(ip.dont_fragment, header.dont_fragment());
            let fragment = header.is_fragmenting_payload().then(|| Fragment {
                length: ip.transport_length,
                identification: u32::from(header.identification()),
                offset: header.fragments_offset().byte_offset(),
                more: header.more_fragments(),
            });
            assert_eq!(ip.fragment, fragment);
        }
        NetSlice::Ipv6(slice) => {
            let header = slice.header();
            assert_eq!(ip.version, Version::V6);
            assert_eq!(ip.source, v6(header.source()));
            assert_eq!(ip.destination, v6(header.destination()));
            assert_eq!(ip.hop_limit, header.hop_limit());
            assert_eq!(ip.traffic_class, header.traffic_class());
            assert_eq!(ip.fragment.is_some(), slice.is_payload_fragmented());
            // etherparse takes a later fragment's payload for extension headers; we do not.
            if ip.transport != Transport::Unread {
                assert_eq!(ip.protocol.0, slice.payload().ip_number.0);
            }
        }
        other => panic!("{other:?}"),
    }
    // etherparse reads no transport header of a fragment, not even of the first.
    if ip.fragment.is_some() {
        return;
    }
    match (ip.transport, other.transport) {
        (Transport::Tcp(tcp), Some(TransportSlice::Tcp(slice))) => {
            assert_eq!(tcp.source_port, slice.source_port());
            assert_eq!(tcp.destination_port, slice.destination_port());
            assert_eq!(tcp.sequence, slice.sequence_number());
            assert_eq!(tcp.flags.0, slice.slice()[13]);
            assert_eq!(tcp.payload_length as usize, slice.payload().len());
        }
        (Transport::Udp(udp), Some(TransportSlice::Udp(slice))) => {
            assert_eq!(udp.source_port, slice.source_port());
            assert_eq!(udp.destination_port, slice.destination_port());
            assert_eq!(udp.length, slice.length());
        }
        (Transport::Icmp(_), Some(TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_))) => {}
        (Transport::Neighbour(_), Some(TransportSlice::Icmpv6(_))) => {}
        // etherparse knows no SCTP, and reads any version's ICMP behind any IP.
        (Transport::Sctp(_), None) => {}
        (Transport::Other, _) => assert!(!ip.protocol.has_ports()),
        (ours, theirs) => panic!("{ours:?} is {theirs:?} to etherparse"),
    }
    assert!(matches!(ip.checksum, Checksum::Complete | Checksum::Absent));
}
