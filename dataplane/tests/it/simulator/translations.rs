//! Translation where it is seldom seen: checksums left to devices, large packets, fragments, ICMP
//! errors, spoofed sources and full tables.

use dataplane::counters::Counter;
use dataplane::wire::TxChecksum;
use dataplane::{Address, DropReason, Protocol};

use super::cut::{ETHERNET, cut, header};
use super::packets::{self, ACK, SYN, SYN_ACK, Spec, Transport, tcp, udp};
use super::services::{A, ask, at, frame, frontends, pod_of, service, set, with_backends};
use super::shown;
use super::world::{Place, UPLINK, World, address, pod_address, port_mac};

const B: Place = Place::Pod(1);

#[test]
fn checksums_left_to_a_device_are_its_to_complete() {
    for offload in [true, false] {
        let mut world = with_backends(&[1]);
        world.offload = offload;
        world.set_pod_mtu(60_000);
        for v4 in [true, false] {
            for (transport, field) in [(tcp(4000, 80, SYN), 16), (udp(4000, 80), 6)] {
                for payload in [0, 1, 1000, 1001, 9000, 40_001] {
                    let spec = world.spec(A, A, v4, transport.clone());
                    let mut bytes = packets::build(&Spec {
                        destination: service(v4),
                        payload: (0..payload).map(|n| (n * 7) as u8).collect(),
                        ..spec
                    });
                    shown::make_partial(&mut bytes);
                    let mut sent = world.send_bytes(A.port(), &bytes);
                    assert_eq!(pod_of(&sent), 1);
                    let checksum = sent.outcome.transmission().unwrap().checksum;
                    let start = if v4 { 34 } else { 54 };
                    let offset = field;
                    let left = offload.then_some(TxChecksum { start, offset });
                    assert_eq!(checksum, left);
                    if offload {
                        shown::complete(&mut sent.bytes);
                    }
                    let shows = shown::right(&sent.bytes);
                    assert_eq!(shows.receiver(), at(pod_address(1, v4), 8080));
                }
            }
        }
        world.assert_balanced();
    }
}

#[test]
fn a_datagram_without_a_checksum_stays_without() {
    let mut world = with_backends(&[1]);
    let mut bytes = frame(&world, A, service(true), udp(4000, 80));
    bytes[40..42].fill(0);
    let sent = world.send_bytes(A.port(), &bytes);
    assert_eq!(pod_of(&sent), 1);
    assert_eq!(sent.bytes[40..42], [0, 0]);
    assert_eq!(shown::key(&sent.bytes).destination_port, 8080);
}

#[test]
fn every_checksum_of_every_datagram_is_right() {
    let mut world = with_backends(&[1]);
    for v4 in [true, false] {
        for number in 0..3000_u32 {
            let spec = world.spec(A, A, v4, udp(4000, 80));
            let bytes = packets::build(&Spec {
                destination: service(v4),
                payload: number.wrapping_mul(0x9e37_79b9).to_be_bytes().to_vec(),
                ..spec
            });
            let sent = world.send_bytes(A.port(), &bytes);
            shown::right(&sent.bytes);
        }
    }
}

/// What the receiver of fragments puts together.
fn together(frames: &[Vec<u8>]) -> Vec<u8> {
    let part = |frame: &Vec<u8>| {
        let extension = if header(frame) == 40 { 8 } else { 0 };
        frame[ETHERNET + header(frame) + extension..].to_vec()
    };
    frames.iter().flat_map(part).collect()
}

#[test]
fn fragments_follow_their_first_to_its_backend() {
    for v4 in [true, false] {
        let mut world = with_backends(&[1, 2]);
        let payload: Vec<u8> = (0..4000).map(|n| (n % 251) as u8).collect();
        let spec = Spec {
            destination: service(v4),
            payload,
            ..world.spec(A, A, v4, udp(4000, 80))
        };
        let whole = packets::build(&spec);
        for reversed in [false, true] {
            let id = 7 + u16::from(reversed);
            let mut parts: Vec<_> = cut(&whole, id, 1400).into_iter().map(|f| f.1).collect();
            if reversed {
                parts.reverse();
            }
            let mut sent: Vec<_> = (parts.iter())
                .map(|part| world.send_bytes(A.port(), part))
                .collect();
            sent.append(&mut world.released);
            sent.retain(|sent| sent.forwarded_to().is_some());
            assert_eq!(sent.len(), parts.len(), "{sent:?}");
            let pod = pod_of(&sent[0]);
            assert!(sent.iter().all(|sent| pod_of(sent) == pod));
            let mut frames: Vec<_> = sent.into_iter().map(|sent| sent.bytes).collect();
            frames.sort_by_key(|frame| match v4 {
                true => u16::from_be_bytes([frame[20], frame[21]]) & 0x1fff,
                false => u16::from_be_bytes([frame[56], frame[57]]) & 0xfff8,
            });
            let segment = together(&frames);
            let key = shown::key(&frames[0]);
            assert_eq!(key.receiver(), at(pod_address(pod, v4), 8080));
            for frame in &frames {
                let shows = shown::key(frame);
                assert_eq!(
                    (shows.source, shows.destination),
                    (key.source, key.destination)
                );
            }
            assert!(shown::is_right(&key, &segment), "{v4} {reversed}");
        }
        world.assert_balanced();
    }
}

/// An ICMP error about a packet, as `from` sends it: "port unreachable", or of another kind.
fn error_about(world: &World, from: Place, quoted: &[u8], kind: [u8; 2], to: Address) -> Vec<u8> {
    let v4 = to.is_v4();
    let mut message = vec![kind[0], kind[1], 0, 0, 0, 0, 5, 0];
    message.extend(&quoted[ETHERNET..]);
    let spec = Spec {
        destination: to,
        payload: message[8..].to_vec(),
        ..world.spec(from, from, v4, Transport::EchoRequest(7))
    };
    let mut bytes = packets::build(&spec);
    let start = ETHERNET + header(&bytes);
    bytes[start..start + 8].copy_from_slice(&message[..8]);
    let (mut key, _) = shown::key_at(&bytes, ETHERNET);
    key.protocol = if v4 { Protocol::ICMP } else { Protocol::ICMPV6 };
    bytes[start + 2..start + 4].fill(0);
    let pseudo = if v4 {
        0
    } else {
        shown::pseudo(&key, bytes.len() - start)
    };
    let checksum = !(shown::sum(&bytes[start..], pseudo) as u16);
    bytes[start + 2..start + 4].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// The flow that an error quotes, whose own checksums are right.
fn quoted(bytes: &[u8]) -> dataplane::FlowKey {
    shown::right(bytes);
    let at = ETHERNET + header(bytes) + 8;
    let (key, transport) = shown::key_at(bytes, at);
    if key.source.is_v4() {
        assert_eq!(
            shown::sum(&bytes[at..at + 20], 0),
            0xffff,
            "the quoted header"
        );
    }
    assert!(shown::is_right(&key, &bytes[transport..]), "the quotation");
    key
}

fn unreachable(v4: bool) -> [u8; 2] {
    if v4 { [3, 3] } else { [1, 4] }
}

#[test]
fn errors_are_translated_outside_and_inside_both_ways() {
    for client in [A, Place::Outside] {
        for v4 in [true, false] {
            let mut world = with_backends(&[1]);
            let own = client.address(v4);
            let there = ask(&mut world, client, v4, udp(4000, 80)).bytes;
            // The backend has nobody there.
            let error = error_about(&world, B, &there, unreachable(v4), own);
            let sent = world.send_bytes(B.port(), &error);
            assert_eq!(sent.forwarded_to(), Some(client.port()), "{sent:?}");
            let shows = shown::key(&sent.bytes);
            assert_eq!((shows.source, shows.destination), (service(v4), own));
            let inner = quoted(&sent.bytes);
            assert_eq!(inner.sender(), at(own, 4000));
            assert_eq!(inner.receiver(), at(service(v4), 80));
            // The client has gone when the answer comes.
            let back = frame(&world, B, own, udp(8080, 4000));
            let back = world.send_bytes(B.port(), &back).bytes;
            let error = error_about(&world, client, &back, unreachable(v4), service(v4));
            let sent = world.send_bytes(client.port(), &error);
            assert_eq!(pod_of(&sent), 1, "{sent:?}");
            let shows = shown::key(&sent.bytes);
            assert_eq!((shows.source, shows.destination), (own, pod_address(1, v4)));
            let inner = quoted(&sent.bytes);
            assert_eq!(inner.sender(), at(pod_address(1, v4), 8080));
            assert_eq!(inner.receiver(), at(own, 4000));
            // A router on the way keeps its own address.
            if client == Place::Outside {
                let router = address(if v4 { "192.0.2.99" } else { "2001:db8::99" });
                let too_big = if v4 { [3, 4] } else { [2, 0] };
                let mut error = error_about(&world, client, &back, too_big, service(v4));
                source(&mut error, router);
                let sent = world.send_bytes(UPLINK, &error);
                assert_eq!(pod_of(&sent), 1, "{sent:?}");
                assert_eq!(shown::key(&sent.bytes).source, router);
                quoted(&sent.bytes);
            }
            // Who has nothing to do with it says nothing.
            let error = error_about(&world, Place::Pod(2), &there, unreachable(v4), own);
            let sent = world.send_bytes(Place::Pod(2).port(), &error);
            assert_eq!(sent.dropped(), Some(DropReason::UnrelatedIcmpError));
            world.assert_balanced();
        }
    }
}

/// Gives an ICMP error another source, with its checksums.
fn source(bytes: &mut [u8], source: Address) {
    let at = ETHERNET;
    match source.as_v4() {
        Some(v4) => {
            bytes[at + 12..at + 16].copy_from_slice(&v4.to_be_bytes());
            super::cut::mend(bytes);
        }
        None => {
            bytes[at + 8..at + 24].copy_from_slice(&source.0.to_be_bytes());
            let (key, start) = shown::key_at(bytes, at);
            bytes[start + 2..start + 4].fill(0);
            let pseudo = shown::pseudo(&key, bytes.len() - start);
            let checksum = !(shown::sum(&bytes[start..], pseudo) as u16);
            bytes[start + 2..start + 4].copy_from_slice(&checksum.to_be_bytes());
        }
    }
}

#[test]
fn errors_about_a_pod_that_reaches_itself_find_it() {
    let mut world = with_backends(&[0]);
    let there = ask(&mut world, A, true, udp(4000, 80)).bytes;
    let error = error_about(&world, A, &there, [3, 3], service(true));
    let sent = world.send_bytes(A.port(), &error);
    assert_eq!(pod_of(&sent), 0, "{sent:?}");
    let inner = quoted(&sent.bytes);
    assert_eq!(inner.sender(), at(pod_address(0, true), 4000));
    assert_eq!(inner.receiver(), at(service(true), 80));
}

#[test]
fn our_own_errors_quote_what_the_sender_sent() {
    let mut world = with_backends(&[1]);
    for v4 in [true, false] {
        let spec = Spec {
            destination: service(v4),
            ttl: 1,
            ..world.spec(A, A, v4, udp(4000, 80))
        };
        let sent = world.send_bytes(A.port(), &packets::build(&spec));
        assert_eq!(sent.dropped(), Some(DropReason::TtlExceeded));
        assert_eq!(quoted(&sent.bytes).receiver(), at(service(v4), 80));
    }
}

#[test]
fn nobody_sends_from_a_services_address() {
    let mut world = with_backends(&[1]);
    for v4 in [true, false] {
        for from in [A, Place::Outside, Place::Node, Place::Transit] {
            let spec = Spec {
                source: service(v4),
                ..world.spec(from, B, v4, tcp(80, 4000, SYN))
            };
            let sent = world.send_bytes(from.port(), &packets::build(&spec));
            assert_eq!(sent.dropped(), Some(DropReason::SpoofedSource), "{from:?}");
        }
        // What the outside sends to a backend as it would come from us is a flow of its own.
        let spec = Spec {
            destination_mac: port_mac(UPLINK),
            ..world.spec(Place::Outside, B, v4, tcp(4000, 8080, ACK))
        };
        ask(&mut world, Place::Outside, v4, tcp(4000, 80, SYN));
        let sent = world.send_bytes(UPLINK, &packets::build(&spec));
        assert_eq!(world.conntrack.counters().entries, 1 + u64::from(!v4));
        assert!(
            sent.forwarded_to().is_some(),
            "untracked: nobody restricts it"
        );
    }
    world.assert_balanced();
}

#[test]
fn without_room_what_has_to_be_translated_is_dropped() {
    let mut world = World::new(8);
    set(&mut world, frontends(&[1]));
    // Answered ones do not make way.
    for from in 4000..4030 {
        let sent = ask(&mut world, A, true, udp(from, 80));
        if sent.forwarded_to().is_some() {
            let back = frame(&world, B, pod_address(0, true), udp(8080, from));
            world.send_bytes(B.port(), &back);
        }
    }
    let dropped = ask(&mut world, A, true, udp(5000, 80)).dropped();
    let limits = [DropReason::ConntrackFull, DropReason::ConntrackQuota];
    assert!(
        dropped.is_some_and(|reason| limits.contains(&reason)),
        "{dropped:?}"
    );
    assert_eq!(world.send(A, B, true, udp(5000, 8080)).dropped(), None);
    assert_eq!(world.totals().counter(Counter::Untracked), 1);
    world.assert_balanced();
}

#[test]
fn the_mss_is_clamped_on_the_way_to_a_service_too() {
    let mut world = with_backends(&[1]);
    let sent = ask(&mut world, A, true, tcp(4000, 80, SYN));
    assert_eq!(pod_of(&sent), 1);
    shown::right(&sent.bytes);
    assert_eq!(sent.bytes[54..58], [2, 4, 0x05, 0xb4]);
    let back = frame(&world, B, pod_address(0, true), tcp(8080, 4000, SYN_ACK));
    let back = world.send_bytes(B.port(), &back);
    shown::right(&back.bytes);
    assert_eq!(back.bytes[54..58], [2, 4, 0x05, 0xb4]);
}
