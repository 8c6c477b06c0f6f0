//! Translated packets against a packet that was built with those addresses and ports in the first place.

use dataplane::wire::{self, Kind, Offload, Packet, translate};
use dataplane::{Address, FlowKey, Mac, Protocol};
use etherparse::PacketBuilder;
use proptest::prelude::*;

use crate::simulator::packets::{self, ACK, SYN, Spec, Transport};
use crate::simulator::shown;

/// How the sender leaves the checksum.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Complete,
    Partial,
    Absent,
}

fn address(v4: bool) -> impl Strategy<Value = Address> {
    (any::<u128>(), 1..200_u32).prop_map(move |(bits, net)| match v4 {
        true => Address::v4((net % 126) << 24 | bits as u32 & 0xff_ffff | 0x0100_0000),
        false => Address::v6(0xfd << 120 | bits >> 8),
    })
}

fn key(v4: bool, protocol: Protocol) -> impl Strategy<Value = FlowKey> {
    let ends = (address(v4), address(v4), any::<u16>(), any::<u16>());
    ends.prop_map(
        move |(source, destination, source_port, destination_port)| FlowKey {
            source,
            destination,
            source_port,
            destination_port,
            protocol,
        },
    )
}

/// A packet of this flow.
fn build(key: &FlowKey, syn: bool, payload: &[u8], state: State) -> Vec<u8> {
    let (from, to) = (key.source_port, key.destination_port);
    let transport = match key.protocol {
        Protocol::TCP => packets::tcp(from, to, if syn { SYN } else { ACK }),
        _ => Transport::Udp { from, to },
    };
    let mut bytes = packets::build(&Spec {
        source_mac: Mac([2, 0, 0, 0, 0, 1]),
        destination_mac: Mac([2, 0, 0, 0, 0, 2]),
        source: key.source,
        destination: key.destination,
        ttl: 64,
        transport,
        payload: payload.to_vec(),
    });
    if key.protocol == Protocol::SCTP {
        bytes = shown::sctp(&bytes, 1, 0);
    }
    let at = if key.source.is_v4() { 34 } else { 54 };
    match (state, key.protocol) {
        (State::Absent, Protocol::SCTP) => bytes[at + 8..at + 12].fill(0),
        (State::Absent, Protocol::UDP) => bytes[at + 6..at + 8].fill(0),
        (State::Partial, Protocol::TCP | Protocol::UDP) => shown::make_partial(&mut bytes),
        _ => {}
    }
    bytes
}

fn parsed(bytes: &[u8]) -> Packet {
    wire::parse(bytes, Offload::Virtual).unwrap()
}

/// The same bytes, but for the two ways to write a checksum of 0.
fn alike(one: &[u8], other: &[u8]) -> bool {
    let same = |at: usize| {
        let zero = |bytes: &[u8]| bytes[at..at + 2] == [0, 0] || bytes[at..at + 2] == [0xff; 2];
        one[at..at + 2] == other[at..at + 2] || zero(one) && zero(other)
    };
    one.len() == other.len() && (0..one.len() - 1).all(same)
}

fn case() -> impl Strategy<Value = (FlowKey, FlowKey, bool, Vec<u8>, State)> {
    let protocol = prop_oneof![
        Just(Protocol::TCP),
        Just(Protocol::UDP),
        Just(Protocol::SCTP)
    ];
    let state = prop_oneof![
        2 => Just(State::Complete),
        2 => Just(State::Partial),
        1 => Just(State::Absent),
    ];
    (any::<bool>(), protocol).prop_flat_map(move |(v4, protocol)| {
        (
            key(v4, protocol),
            key(v4, protocol),
            any::<bool>(),
            proptest::collection::vec(any::<u8>(), 0..200),
            state.clone(),
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_translated_packet_is_one_of_the_other_flow((from, to, syn, payload, state) in case()) {
        let before = build(&from, syn, &payload, state);
        let expected = build(&to, syn, &payload, state);
        let packet = parsed(&before);
        let mut bytes = before.clone();
        translate::translate(&mut bytes, &packet, &to).unwrap();
        prop_assert!(alike(&bytes, &expected), "{bytes:02x?}\n{expected:02x?}");
        // The parser takes it for what it took the other, and back it is what it was.
        let after = parsed(&bytes);
        let (Kind::Ip(old), Kind::Ip(new)) = (&packet.kind, &after.kind) else {
            return Err(TestCaseError::fail("no IP"));
        };
        prop_assert_eq!(old.checksum, new.checksum);
        prop_assert_eq!(new.flow_key(), to);
        translate::translate(&mut bytes, &after, &from).unwrap();
        prop_assert!(alike(&bytes, &before), "{bytes:02x?}\n{before:02x?}");
    }

    #[test]
    fn the_short_way_translates_alike((from, to, _, payload, state) in case()) {
        let before = build(&from, false, &payload, state);
        if let Some(brief) = wire::brief(&before, Offload::Virtual) {
            let (mut long, mut short) = (before.clone(), before.clone());
            translate::translate(&mut long, &parsed(&before), &to).unwrap();
            translate::translate_brief(&mut short, &brief, &to).unwrap();
            prop_assert_eq!(long, short);
        }
    }

    #[test]
    fn a_wrong_checksum_stays_wrong((from, to, syn, payload, _) in case(), flip in 0..8_u8) {
        let mut bytes = build(&from, syn, &payload, State::Complete);
        let last = bytes.len() - 1;
        bytes[last] ^= 1 << flip;
        let packet = parsed(&bytes);
        translate::translate(&mut bytes, &packet, &to).unwrap();
        let (key, at) = shown::key_at(&bytes, 14);
        prop_assert!(!shown::is_right(&key, &bytes[at..]));
    }

    #[test]
    fn an_error_and_its_quotation_are_translated(
        (from, to, syn, payload, _) in case(),
        quoted in 8..300_usize,
    ) {
        // About `from`, from a router to its source, which becomes `to` about itself.
        let inner = build(&from, syn, &payload, State::Complete);
        let expected = build(&to, syn, &payload, State::Complete);
        let header = if from.source.is_v4() { 20 } else { 40 };
        // Half a checksum is nobody's to change.
        let quoted = if quoted == 17 { 18 } else { quoted };
        let end = (14 + header + quoted).min(inner.len());
        let error = |inner: &[u8], key: &FlowKey| {
            let message = &inner[14..end];
            let mut bytes = Vec::new();
            let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
            match key.source.as_v4() {
                Some(v4) => {
                    let to = v4.to_be_bytes();
                    let builder = ethernet.ipv4([9, 9, 9, 9], to, 64);
                    let kind = etherparse::icmpv4::DestUnreachableHeader::Port;
                    let kind = etherparse::Icmpv4Type::DestinationUnreachable(kind);
                    builder.icmpv4(kind).write(&mut bytes, message).unwrap();
                }
                None => {
                    let to = key.source.0.to_be_bytes();
                    let builder = ethernet.ipv6([0xfd; 16], to, 64);
                    let kind = etherparse::icmpv6::DestUnreachableCode::Port;
                    let kind = etherparse::Icmpv6Type::DestinationUnreachable(kind);
                    builder.icmpv6(kind).write(&mut bytes, message).unwrap();
                }
            }
            bytes
        };
        let mut bytes = error(&inner, &from);
        let wanted = error(&expected, &to);
        let packet = parsed(&bytes);
        let source = packet.ip().unwrap().source;
        translate::translate_error(&mut bytes, &packet, (source, to.source), &to).unwrap();
        // SCTP's checksum in a quotation stays what it was, and the error's own covers it.
        if from.protocol == Protocol::SCTP {
            shown::right(&bytes);
        } else {
            prop_assert!(alike(&bytes, &wanted), "{bytes:02x?}\n{wanted:02x?}");
        }
    }
}

#[test]
fn no_datagram_gets_a_checksum_that_says_there_is_none() {
    let socket = |port: u16| FlowKey {
        source: Address::v4(0x0a00_0001),
        destination: Address::v4(0x0a00_0002),
        source_port: 4000,
        destination_port: port,
        protocol: Protocol::UDP,
    };
    let before = build(&socket(53), false, b"weir", State::Complete);
    let packet = parsed(&before);
    let zeros = (0..=u16::MAX).filter(|port| {
        let mut bytes = before.clone();
        translate::translate(&mut bytes, &packet, &socket(*port)).unwrap();
        assert_ne!(bytes[40..42], [0, 0], "{port}");
        bytes[40..42] == [0xff, 0xff]
    });
    assert!(zeros.count() > 0, "the case is among them");
}
