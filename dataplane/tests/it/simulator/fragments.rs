//! Datagrams in fragments: any order, any cut, both families, one worker or two; and attacks.

use std::collections::BTreeMap;

use dataplane::conntrack::State;
use dataplane::counters::Counter;
use dataplane::events::EventKind;
use dataplane::fragments::Bounds;
use dataplane::pipeline::Outcome;
use dataplane::policy::ir::EndpointPolicy;
use dataplane::snapshot::{Epoch, Generation, Incarnation, PortId};
use dataplane::{DropReason, Protocol};
use proptest::prelude::*;

use super::cut::{ETHERNET, cut, header, mend, part};
use super::packets::{self, ACK, Transport, tcp, udp};
use super::policies::{addresses, allow, egress, ingress, port};
use super::world::{FRAGMENTS, Place, SECOND, World, pod_address, pod_port};

const A: Place = Place::Pod(0);
const B: Place = Place::Pod(1);
const OUT: Place = Place::Outside;

/// A whole packet with `payload` octets behind the transport header, which may be too long for any
/// link: its lengths are for `fragments` to mend.
fn whole(
    world: &World,
    from: Place,
    to: Place,
    v4: bool,
    transport: Transport,
    len: usize,
) -> Vec<u8> {
    let mut spec = world.spec(from, to, v4, transport);
    spec.payload = (0..len).map(|i| (i % 251) as u8).collect();
    packets::build(&spec)
}

/// What follows the IP headers of a fragment, and where it starts.
fn content(frame: &[u8]) -> (usize, &[u8]) {
    let word = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    if frame[12..14] == [8, 0] {
        (word(20) % 0x2000 * 8, &frame[ETHERNET + 20..])
    } else {
        (word(56) / 8 * 8, &frame[ETHERNET + 48..])
    }
}

/// Puts together what was forwarded: the receiver's work.
fn together<'a>(frames: impl IntoIterator<Item = &'a Vec<u8>>) -> Vec<u8> {
    let mut parts: BTreeMap<usize, &[u8]> = BTreeMap::new();
    for frame in frames {
        let (start, content) = content(frame);
        assert!(parts.insert(start, content).is_none(), "twice at {start}");
    }
    let mut whole = Vec::new();
    for (start, content) in parts {
        assert_eq!(start, whole.len(), "a gap");
        whole.extend(content);
    }
    whole
}

/// Sends fragments one by one to the workers named, and says what has been forwarded to `to`.
fn send(
    world: &mut World,
    ingress: PortId,
    fragments: &[(usize, &Vec<u8>)],
    to: Place,
) -> Vec<Vec<u8>> {
    let mut forwarded = Vec::new();
    for (worker, frame) in fragments {
        world.worker = *worker;
        let sent = world.send_bytes(ingress, frame);
        forwarded.push(sent);
        for worker in 0..2 {
            world.worker = worker;
            world.release();
        }
        forwarded.append(&mut world.released);
    }
    world.worker = 0;
    let is_forwarded = |sent: &super::world::Sent| match sent.outcome {
        Outcome::Forward(t) => {
            assert_eq!(t.port, to.port());
            true
        }
        _ => false,
    };
    forwarded.retain(is_forwarded);
    forwarded.into_iter().map(|sent| sent.bytes).collect()
}

fn deny_all() -> EndpointPolicy {
    ingress(9, vec![])
}

fn drops(world: &World, reason: DropReason) -> u64 {
    world.totals().dropped(reason)
}

#[test]
fn datagrams_pass_whole_in_any_order_between_pods_and_with_the_world() {
    let mut world = World::new(64);
    let transports = |n: u16| [udp(4000 + n, 53), Transport::EchoRequest(n + 1)];
    let mut id = 0;
    for (from, to) in [
        (A, B),
        (A, OUT),
        (OUT, B),
        (Place::Node, B),
        (Place::Transit, A),
    ] {
        for v4 in [true, false] {
            for transport in transports(id) {
                let whole = whole(&world, from, to, v4, transport, 4000);
                id += 1;
                let fragments = cut(&whole, id, 1232);
                let mut order: Vec<usize> = (0..fragments.len()).collect();
                for turn in 0..2 {
                    let numbered: Vec<_> = order.iter().map(|n| (0, &fragments[*n].1)).collect();
                    let forwarded = send(&mut world, from.port(), &numbered, to);
                    assert_eq!(
                        forwarded.len(),
                        fragments.len(),
                        "{from:?} {to:?} {v4} {turn}"
                    );
                    let expected = &whole[ETHERNET + header(&whole)..];
                    assert_eq!(together(&forwarded), expected);
                    for frame in &forwarded {
                        assert_eq!(frame[if v4 { 22 } else { 21 }], 63, "the hop limit");
                    }
                    order.reverse();
                }
            }
        }
    }
    world.assert_balanced();
    assert_eq!(world.fragments.counts(), Default::default());
    // One flow each, however many fragments it came in.
    assert_eq!(
        world.totals().counter(Counter::FlowsAccepted),
        u64::from(id)
    );
    assert!(world.totals().counter(Counter::FragmentsHeld) > 0);
}

#[test]
fn a_burst_of_fragments_is_what_they_are_one_by_one() {
    for v4 in [true, false] {
        let mut world = World::new(64);
        let packet = whole(&world, A, B, v4, udp(4000, 53), 60_000);
        let mut fragments = cut(&packet, 7, 1232);
        fragments.reverse();
        world.held.clear();
        let roomy = Bounds {
            port_percent: 100,
            ..FRAGMENTS
        };
        world = World::with_bounds(64, roomy);
        let frames: Vec<&[u8]> = fragments.iter().map(|(_, frame)| &frame[..]).collect();
        let sent = world.send_all(A.port(), &frames);
        let (last, held) = sent.split_last().unwrap();
        assert_eq!(last.forwarded_to(), Some(B.port()));
        assert!(
            held.iter()
                .all(|sent| matches!(sent.outcome, Outcome::Hold(_)))
        );
        let all = world.released.iter().chain([last]).map(|sent| &sent.bytes);
        assert_eq!(together(all), packet[ETHERNET + header(&packet)..]);
        world.assert_balanced();
    }
}

#[test]
fn what_is_denied_is_stopped_wholly_and_told_once() {
    for v4 in [true, false] {
        for first_comes in [0, 1, 3] {
            for policy_of in [0, 1] {
                let mut world = World::new(64);
                let policy = [egress(9, vec![]), deny_all()][policy_of].clone();
                world.set_policy(&[policy_of], &policy);
                let packet = whole(&world, A, B, v4, udp(4000, 53), 4000);
                let fragments = cut(&packet, 7, 1232);
                let mut order = vec![1, 2, 3];
                order.insert(first_comes, 0);
                let numbered: Vec<_> = order.iter().map(|n| (0, &fragments[*n].1)).collect();
                assert!(send(&mut world, A.port(), &numbered, B).is_empty());
                assert_eq!(drops(&world, DropReason::PolicyDenied), 1);
                assert_eq!(drops(&world, DropReason::ConnectionDenied), 3);
                let events = world.drain();
                assert_eq!(events.len(), 1, "{events:?}");
                assert!(matches!(events[0].kind, EventKind::Denied(_)));
                assert_eq!(events[0].key.destination_port, 53);
                world.assert_balanced();
            }
        }
    }
}

#[test]
fn policy_judges_fragments_by_the_ports_of_the_first() {
    let mut world = World::new(64);
    let dns = allow(
        9,
        addresses(&[pod_address(0, true)]),
        port(Protocol::UDP, 53),
    );
    world.set_policy(&[1], &ingress(9, vec![dns]));
    for (to, count) in [(53, 4), (54, 0)] {
        let packet = whole(&world, A, B, true, udp(4000, to), 4000);
        let fragments = cut(&packet, to, 1232);
        let reversed: Vec<_> = fragments.iter().rev().map(|f| (0, &f.1)).collect();
        assert_eq!(send(&mut world, A.port(), &reversed, B).len(), count);
    }
}

#[test]
fn newer_policy_stops_a_datagram_in_its_midst_and_does_not_open_one() {
    for v4 in [true, false] {
        let mut world = World::new(64);
        let packet = whole(&world, A, B, v4, udp(4000, 53), 4000);
        let fragments = cut(&packet, 7, 1232);
        let numbered: Vec<_> = fragments.iter().map(|f| (0, &f.1)).collect();
        assert_eq!(send(&mut world, A.port(), &numbered[..2], B).len(), 2);
        world.set_policy(&[1], &deny_all());
        assert!(send(&mut world, A.port(), &numbered[2..3], B).is_empty());
        let events = world.drain();
        assert_eq!(events.len(), 1, "{events:?}");
        assert!(matches!(events[0].kind, EventKind::Denied(_)));
        assert_eq!(events[0].key.destination_port, 53);
        // Its first part is not there any more for the rest to join.
        world.set_policy(&[1], &EndpointPolicy::default());
        assert!(send(&mut world, A.port(), &numbered[3..], B).is_empty());
        assert!(world.drain().is_empty());
        world.assert_balanced();
    }
}

#[test]
fn held_fragments_are_judged_by_the_policy_of_their_release() {
    for denied in [false, true] {
        let mut world = World::new(64);
        let policies = [EndpointPolicy::default(), deny_all()];
        world.set_policy(&[1], &policies[usize::from(!denied)]);
        let packet = whole(&world, A, B, true, udp(4000, 53), 4000);
        let fragments = cut(&packet, 7, 1232);
        let numbered: Vec<_> = fragments.iter().map(|f| (0, &f.1)).collect();
        assert!(send(&mut world, A.port(), &numbered[1..], B).is_empty());
        world.set_policy(&[1], &policies[usize::from(denied)]);
        let forwarded = send(&mut world, A.port(), &numbered[..1], B);
        assert_eq!(forwarded.len(), if denied { 0 } else { 4 });
        world.assert_balanced();
    }
}

#[test]
fn overlaps_stop_the_datagram_and_are_told_once() {
    for v4 in [true, false] {
        let mut world = World::new(64);
        let packet = whole(&world, A, B, v4, udp(4000, 53), 4000);
        let fragments = cut(&packet, 7, 1232);
        let over = part(&packet, 7, 1224, 1232 + 8, true);
        let header = part(&packet, 7, 0, 1232 - 8, true);
        for attack in [over, header] {
            world.fragments.forget_port(A.port());
            let numbered: Vec<_> = [
                &fragments[0].1,
                &fragments[1].1,
                &attack,
                &fragments[2].1,
                &fragments[3].1,
            ]
            .map(|frame| (0, frame))
            .to_vec();
            assert_eq!(send(&mut world, A.port(), &numbered, B).len(), 2);
            let events = world.drain();
            let [event] = &events[..] else {
                panic!("{events:?}");
            };
            assert_eq!(event.kind, EventKind::Dropped(DropReason::FragmentOverlap));
            assert_eq!(event.key.destination_port, 53);
        }
        assert_eq!(drops(&world, DropReason::FragmentOverlap), 2);
        assert_eq!(drops(&world, DropReason::DatagramDropped), 4);
        world.assert_balanced();
    }
}

#[test]
fn a_duplicate_is_no_attack() {
    for v4 in [true, false] {
        let mut world = World::new(64);
        let packet = whole(&world, A, B, v4, udp(4000, 53), 4000);
        let fragments = cut(&packet, 7, 1232);
        let order = [0, 0, 2, 2, 1, 1, 3];
        let numbered: Vec<_> = order.iter().map(|n| (0, &fragments[*n].1)).collect();
        let forwarded = send(&mut world, A.port(), &numbered, B);
        assert_eq!(together(&forwarded), packet[ETHERNET + header(&packet)..]);
        assert_eq!(drops(&world, DropReason::FragmentDuplicate), 3);
        assert!(world.drain().is_empty());
    }
}

#[test]
fn a_tiny_first_fragment_leads_nothing_through() {
    for v4 in [true, false] {
        let mut world = World::new(64);
        let packet = whole(&world, A, B, v4, tcp(4000, 80, packets::SYN), 64);
        let (tiny, rest) = (
            part(&packet, 7, 0, 16, true),
            part(&packet, 7, 16, 80, false),
        );
        let flags = part(&packet, 8, 8, 88, false);
        let numbered: Vec<_> = [&tiny, &rest, &flags].map(|frame| (0, frame)).to_vec();
        assert!(send(&mut world, A.port(), &numbered, B).is_empty());
        assert_eq!(drops(&world, DropReason::TinyFragment), 2);
        world.now = world.now.plus_seconds(1);
        world.release();
        assert_eq!(
            world.released[0].dropped(),
            Some(DropReason::FragmentTimeout)
        );
        world.assert_balanced();
        assert_eq!(world.conntrack.counters().entries, 0);
    }
}

#[test]
fn orphans_are_dropped_in_time_and_told_once_for_each_datagram() {
    for v4 in [true, false] {
        let mut world = World::new(64);
        let packet = whole(&world, A, B, v4, udp(4000, 53), 4000);
        let fragments = cut(&packet, 7, 1232);
        let numbered: Vec<_> = fragments[1..].iter().map(|f| (0, &f.1)).collect();
        assert!(send(&mut world, A.port(), &numbered, B).is_empty());
        world.assert_balanced();
        world.now = world.now.plus_nanos(SECOND - 1);
        world.release();
        assert!(world.released.is_empty());
        world.now = world.now.plus_nanos(1);
        world.release();
        let reasons: Vec<_> = world.released.iter().map(|sent| sent.dropped()).collect();
        assert_eq!(reasons, [Some(DropReason::FragmentTimeout); 3]);
        assert_eq!(world.drain().len(), 1);
        world.assert_balanced();
    }
}

#[test]
fn a_flood_of_orphans_takes_its_ports_share_and_nobody_elses() {
    let mut world = World::new(64);
    let packet = whole(&world, A, B, true, udp(4000, 53), 4000);
    for id in 0..500 {
        let orphan = part(&packet, id, 1232, 2464, true);
        world.send_bytes(A.port(), &orphan);
    }
    let counts = world.fragments.counts();
    assert_eq!((counts.datagrams, counts.frames), (32, 32), "half of all");
    assert_eq!(drops(&world, DropReason::FragmentQuota), 500 - 32);
    assert!(
        world.drain().len() <= 32,
        "what has no first is not told of"
    );
    // Another pod's datagrams pass, in any order.
    let other = whole(&world, B, A, true, udp(53, 4000), 4000);
    let fragments = cut(&other, 7, 1232);
    let reversed: Vec<_> = fragments.iter().rev().map(|f| (0, &f.1)).collect();
    assert_eq!(send(&mut world, B.port(), &reversed, A).len(), 4);
    // And its own, when the flood is over.
    world.now = world.now.plus_seconds(1);
    world.release();
    world.now = world.now.plus_seconds(1);
    for id in 600..620 {
        world.send_bytes(A.port(), &part(&packet, id, 0, 1232, true));
    }
    world.now = world.now.plus_seconds(1);
    let fragments = cut(&packet, 900, 1232);
    let numbered: Vec<_> = fragments.iter().map(|f| (0, &f.1)).collect();
    assert_eq!(send(&mut world, A.port(), &numbered, B).len(), 4);
    world.assert_balanced();
}

#[test]
fn whoever_goes_takes_its_held_fragments_along() {
    let mut world = World::new(64);
    let packet = whole(&world, A, B, true, udp(4000, 53), 4000);
    let fragments = cut(&packet, 7, 1232);
    world.send_bytes(A.port(), &fragments[1].1);
    // Another pod at the same address behind the same port: its first fragment finds nothing to join.
    world.parts.endpoints[0].incarnation = Incarnation(77);
    world.parts.epochs[0] = Epoch::from(Generation(world.parts.generation.0 + 1));
    world.publish();
    world.fragments.forget_endpoint(Incarnation(1));
    world.release();
    assert_eq!(world.released.len(), 1);
    assert!(world.released[0].dropped().is_some());
    assert_eq!(world.fragments.counts(), Default::default());
    let sent = world.send_bytes(A.port(), &fragments[0].1);
    assert_eq!(sent.forwarded_to(), Some(pod_port(1)));
    world.assert_balanced();
}

#[test]
fn sources_are_checked_of_every_fragment() {
    let mut world = World::new(64);
    let packet = whole(&world, A, B, true, udp(4000, 53), 4000);
    for (_, mut frame) in cut(&packet, 7, 1232) {
        frame[26..30].copy_from_slice(&[10, 0, 0, 99]);
        mend(&mut frame);
        let sent = world.send_bytes(A.port(), &frame);
        assert_eq!(sent.dropped(), Some(DropReason::SpoofedSource));
    }
    assert_eq!(world.fragments.counts(), Default::default());
}

#[test]
fn an_error_about_reassembly_finds_the_datagrams_connection() {
    let mut world = World::new(64);
    let packet = whole(&world, A, B, true, udp(4000, 53), 4000);
    let first = &cut(&packet, 7, 1232)[0].1;
    let sent = world.send_bytes(A.port(), first);
    assert_eq!(sent.forwarded_to(), Some(B.port()));
    let quoted = &sent.bytes[ETHERNET..ETHERNET + 28];
    let spec = world.spec(B, A, true, Transport::EchoReply(0));
    let reassembly = etherparse::icmpv4::TimeExceededCode::FragmentReassemblyTimeExceeded;
    let error = etherparse::PacketBuilder::ethernet2(spec.source_mac.0, spec.destination_mac.0)
        .ipv4([10, 0, 0, 11], [10, 0, 0, 10], 64)
        .icmpv4(etherparse::Icmpv4Type::TimeExceeded(reassembly));
    let mut bytes = Vec::new();
    error.write(&mut bytes, quoted).unwrap();
    let sent = world.send_bytes(B.port(), &bytes);
    assert_eq!(sent.forwarded_to(), Some(A.port()));
    assert_eq!(world.totals().counter(Counter::Related), 1);
}

#[test]
fn a_fragmented_segment_counts_whole_in_the_window() {
    for reversed in [false, true] {
        for v4 in [true, false] {
            let mut world = World::strict(64);
            world.send(A, B, v4, tcp(4000, 80, packets::SYN));
            world.send(B, A, v4, tcp(80, 4000, packets::SYN_ACK));
            let at = |seq, ack| Transport::Tcp {
                from: 4000,
                to: 80,
                flags: ACK,
                seq,
                ack,
            };
            world.send(A, B, v4, at(1001, 1001));
            let segment = whole(&world, A, B, v4, at(1005, 1001), 3000);
            let mut fragments = cut(&segment, 7, 1232);
            if reversed {
                fragments.reverse();
            }
            let numbered: Vec<_> = fragments.iter().map(|f| (0, &f.1)).collect();
            assert_eq!(send(&mut world, A.port(), &numbered, B).len(), 3);
            let acknowledgement = |ack| Transport::Tcp {
                from: 80,
                to: 4000,
                flags: ACK,
                seq: 1001,
                ack,
            };
            let too_much = world.send(B, A, v4, acknowledgement(4006));
            assert_eq!(too_much.dropped(), Some(DropReason::ConntrackInvalid));
            let all = world.send(B, A, v4, acknowledgement(4005));
            assert_eq!(all.forwarded_to(), Some(A.port()), "{v4} {reversed}");
            let entry = world.conntrack.entries(world.now).next().unwrap();
            assert_eq!(entry.state, State::Established);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Several datagrams, cut and mixed at random, with duplicates, to two workers: what policy allows
    /// arrives whole and once, what it denies does not arrive at all.
    #[test]
    fn whatever_is_mixed_arrives_whole_or_not_at_all(
        sizes in proptest::collection::vec((1..5000_usize, 1..150_usize, any::<bool>(), any::<bool>()), 1..5),
        order in proptest::collection::vec((any::<prop::sample::Index>(), 0..2_usize), 0..200),
    ) {
        let bounds = Bounds { frames: 1024, port_percent: 100, pieces: 128, ..FRAGMENTS };
        let mut world = World::with_bounds(64, bounds);
        let dns = allow(
            9,
            addresses(&[pod_address(0, true), pod_address(0, false)]),
            port(Protocol::UDP, 53),
        );
        world.set_policy(&[1], &ingress(9, vec![dns]));
        let mut packets = Vec::new();
        let mut queue = Vec::new();
        for (number, (len, units, v4, allowed)) in sizes.into_iter().enumerate() {
            let to = if allowed { 53 } else { 54 };
            let packet = whole(&world, A, B, v4, udp(4000 + number as u16, to), len);
            let size = (units * 8).max(len.div_ceil(120).next_multiple_of(8));
            let fragments = cut(&packet, number as u16, size);
            // A whole packet is not a fragment.
            if fragments.len() > 1 {
                queue.extend(fragments.into_iter().map(|f| (number, f.1)));
                packets.push((number, packet, allowed));
            }
        }
        let mut forwarded = Vec::new();
        let mut workers = order.iter().map(|(_, worker)| *worker).cycle();
        for (index, worker) in &order {
            if queue.is_empty() {
                break;
            }
            // Taken out, or sent now and once more later.
            let at = index.index(queue.len());
            let fragment = if index.index(4) == 0 { queue[at].clone() } else { queue.swap_remove(at) };
            forwarded.extend(send(&mut world, A.port(), &[(*worker, &fragment.1)], B));
        }
        for (_, frame) in queue {
            let worker = workers.next().unwrap_or(0);
            forwarded.extend(send(&mut world, A.port(), &[(worker, &frame)], B));
        }
        for (number, packet, allowed) in packets {
            let of_it = |frame: &&Vec<u8>| {
                let v4 = frame[12..14] == [8, 0];
                let id = if v4 { &frame[18..20] } else { &frame[60..62] };
                id == (number as u16).to_be_bytes() && frame[12..14] == packet[12..14]
            };
            let mut whole_parts: BTreeMap<usize, &[u8]> = BTreeMap::new();
            for frame in forwarded.iter().filter(of_it) {
                let (start, part) = content(frame);
                whole_parts.insert(start, part);
            }
            let arrived: Vec<u8> = whole_parts.values().flat_map(|part| part.iter().copied()).collect();
            if allowed {
                prop_assert_eq!(&arrived[..], &packet[ETHERNET + header(&packet)..]);
            } else {
                prop_assert!(arrived.is_empty());
            }
        }
        // Copies that came after the whole wait for a first that will not come.
        world.now = world.now.plus_seconds(2);
        for worker in 0..2 {
            world.worker = worker;
            for _ in 0..20 {
                world.release();
            }
        }
        prop_assert_eq!(world.fragments.counts().frames, 0);
        world.assert_balanced();
    }
}
