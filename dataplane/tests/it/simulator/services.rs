//! Services: backends chosen, translated there and back, judged as what they are.

use std::collections::BTreeSet;
use std::sync::Arc;

use dataplane::counters::Counter;
use dataplane::events::EventKind;
use dataplane::pipeline::Outcome;
use dataplane::policy::ir::{Action, Chain, EndpointPolicy, Peers, Rule};
use dataplane::service::{Frontend, ServiceParts, ServiceTable};
use dataplane::snapshot::{Epoch, Generation, Incarnation};
use dataplane::{Address, CounterId, DropReason, FlowKey, PolicyId, Protocol, SocketAddress, Tier};

use super::packets::{self, ACK, RST, SYN, SYN_ACK, Spec, Transport, tcp, udp};
use super::policies::{addresses, allow, egress, ingress, port};
use super::shown;
use super::world::{
    OUTSIDE_MAC, Place, SECOND, Sent, UPLINK, World, address, node, outside, pod_address, port_mac,
};

pub const A: Place = Place::Pod(0);
const BACKENDS: [usize; 2] = [1, 2];

pub fn service(v4: bool) -> Address {
    address(if v4 { "10.96.0.1" } else { "fd00:96::1" })
}

pub fn at(address: Address, port: u16) -> SocketAddress {
    SocketAddress { address, port }
}

/// Port 80 of the Service, in every protocol and family, with these pods' 8080 behind it.
pub fn frontends(pods: &[usize]) -> Vec<Frontend> {
    let of = |v4: bool, protocol| {
        let backends = pods.iter().map(|pod| at(pod_address(*pod, v4), 8080));
        let backends: Vec<_> = backends.collect();
        Frontend {
            address: service(v4),
            protocol,
            port: 80,
            internal: backends.clone(),
            external: backends,
            affinity_s: None,
            node_port: false,
            target_port: Some(8080),
        }
    };
    let protocols = [Protocol::TCP, Protocol::UDP, Protocol::SCTP];
    let both = |protocol| [true, false].map(|v4| of(v4, protocol));
    protocols.into_iter().flat_map(both).collect()
}

/// Makes these the Services there are.
pub fn set(world: &mut World, frontends: Vec<Frontend>) {
    let parts = ServiceParts {
        frontends,
        source_v4: Some(node(true)),
        source_v6: Some(node(false)),
        ..ServiceParts::default()
    };
    world.parts.services = Arc::new(ServiceTable::build(parts).unwrap());
    world.publish();
}

pub fn with_backends(pods: &[usize]) -> World {
    let mut world = World::new(1024);
    set(&mut world, frontends(pods));
    world
}

/// The frame of a packet to an address that is nobody's place.
pub fn frame(world: &World, from: Place, to: Address, transport: Transport) -> Vec<u8> {
    let spec = world.spec(from, from, to.is_v4(), transport);
    packets::build(&Spec {
        destination: to,
        ..spec
    })
}

pub fn ask(world: &mut World, from: Place, v4: bool, transport: Transport) -> Sent {
    let bytes = frame(world, from, service(v4), transport);
    world.send_bytes(from.port(), &bytes)
}

/// The pod that a packet to the Service came to, with all that it shows.
pub fn pod_of(sent: &Sent) -> usize {
    let port = sent.forwarded_to().unwrap_or_else(|| panic!("{sent:?}"));
    usize::from(port.0)
}

/// The answer of a backend to what came to it.
fn answer(world: &mut World, pod: usize, to: &FlowKey, transport: Transport) -> Sent {
    let bytes = frame(world, Place::Pod(pod), to.source, transport);
    world.send_bytes(Place::Pod(pod).port(), &bytes)
}

#[test]
fn packets_reach_a_backend_and_its_answers_come_from_the_service() {
    for client in [A, Place::Outside, Place::Node, Place::Transit] {
        let mut world = with_backends(&BACKENDS);
        for v4 in [true, false] {
            for (there, back) in [
                (tcp(4000, 80, SYN), tcp(8080, 4000, SYN_ACK)),
                (udp(4000, 80), udp(8080, 4000)),
            ] {
                let sent = ask(&mut world, client, v4, there.clone());
                let pod = pod_of(&sent);
                assert!(BACKENDS.contains(&pod));
                let shows = shown::right(&sent.bytes);
                assert_eq!(shows.sender(), at(client.address(v4), 4000));
                assert_eq!(shows.receiver(), at(pod_address(pod, v4), 8080));
                let sent = answer(&mut world, pod, &shows, back);
                assert_eq!(sent.forwarded_to(), Some(client.port()), "{sent:?}");
                let back = shown::right(&sent.bytes);
                assert_eq!(back.sender(), at(service(v4), 80));
                assert_eq!(back.receiver(), at(client.address(v4), 4000));
                // The next packet goes the same way, the backend's address itself does not.
                let more = match there {
                    Transport::Tcp { .. } => tcp(4000, 80, ACK),
                    other => other,
                };
                let again = ask(&mut world, client, v4, more);
                assert_eq!(pod_of(&again), pod);
                assert_eq!(shown::right(&again.bytes), shows);
            }
        }
        assert_eq!(world.totals().counter(Counter::ServiceConnections), 4);
        world.assert_balanced();
    }
}

#[test]
fn sctp_gets_its_checksum_with_its_port() {
    let mut world = with_backends(&BACKENDS[..1]);
    for v4 in [true, false] {
        for is_absent in [false, true] {
            let from = 4000 + u16::from(is_absent);
            let mut bytes = frame(&world, A, service(v4), udp(from, 80));
            bytes = shown::sctp(&bytes, 1, 0);
            let transport = if v4 { 34 } else { 54 };
            if is_absent {
                bytes[transport + 8..transport + 12].fill(0);
            }
            let sent = world.send_bytes(A.port(), &bytes);
            assert_eq!(pod_of(&sent), 1);
            let shows = shown::right(&sent.bytes);
            assert_eq!(shows.receiver(), at(pod_address(1, v4), 8080));
            let back = frame(&world, Place::Pod(1), pod_address(0, v4), udp(8080, from));
            let sent = world.send_bytes(Place::Pod(1).port(), &shown::sctp(&back, 2, 7));
            assert_eq!(sent.forwarded_to(), Some(A.port()));
            assert_eq!(shown::right(&sent.bytes).sender(), at(service(v4), 80));
        }
    }
    // What was wrong stays wrong.
    let mut bytes = shown::sctp(&frame(&world, A, service(true), udp(5000, 80)), 1, 0);
    bytes[42] ^= 1;
    let sent = world.send_bytes(A.port(), &bytes);
    let (key, at) = shown::key_at(&sent.bytes, 14);
    assert!(!shown::is_right(&key, &sent.bytes[at..]));
}

#[test]
fn connections_spread_and_affinity_keeps_a_clients_together() {
    let mut world = with_backends(&BACKENDS);
    let pods = |world: &mut World, from: std::ops::Range<u16>| {
        let ask = |port| pod_of(&ask(world, A, true, tcp(port, 80, SYN)));
        from.map(ask).collect::<Vec<usize>>()
    };
    let spread = pods(&mut world, 4000..4100);
    let first = spread.iter().filter(|pod| **pod == 1).count();
    assert!((25..75).contains(&first), "{first} of 100");
    let sticky = frontends(&BACKENDS).into_iter().map(|frontend| Frontend {
        affinity_s: Some(60),
        ..frontend
    });
    set(&mut world, sticky.collect());
    let together: BTreeSet<_> = pods(&mut world, 5000..5050).into_iter().collect();
    assert_eq!(together.len(), 1);
    // Each new connection counts the time anew; when it is over the next choice is free.
    let mut seen = BTreeSet::new();
    for round in 0..30 {
        world.now = world.now.plus_nanos(61 * SECOND);
        seen.extend(pods(&mut world, 6000 + round..6001 + round));
    }
    assert_eq!(seen.len(), 2);
    world.assert_balanced();
}

#[test]
fn policy_is_judged_on_the_backend_and_its_port() {
    for (number, passes) in [(8080, true), (80, false)] {
        let mut world = with_backends(&BACKENDS[..1]);
        let from_a = addresses(&[pod_address(0, true)]);
        let rule = allow(9, from_a, port(Protocol::TCP, number));
        world.set_policy(&[1], &ingress(9, vec![rule]));
        let sent = ask(&mut world, A, true, tcp(4000, 80, SYN));
        assert_eq!(sent.forwarded_to().is_some(), passes, "{sent:?}");
        if !passes {
            assert_eq!(sent.dropped(), Some(DropReason::PolicyDenied));
            let event = world.drain().pop().unwrap();
            assert!(matches!(event.kind, EventKind::Denied(_)));
            assert_eq!(event.key.receiver(), at(pod_address(1, true), 8080));
            assert_eq!(event.service, Some(at(service(true), 80)));
            assert_eq!(event.destination, Incarnation(2));
        }
        let to_backend = addresses(&[pod_address(1, true)]);
        let rule = allow(9, to_backend, port(Protocol::TCP, number));
        world.set_policy(&[1], &EndpointPolicy::default());
        world.set_policy(&[0], &egress(9, vec![rule]));
        let sent = ask(&mut world, A, true, tcp(4001, 80, SYN));
        assert_eq!(sent.forwarded_to().is_some(), passes, "{sent:?}");
        world.assert_balanced();
    }
}

#[test]
fn newer_policy_cuts_and_reopens_from_either_side() {
    for answer_first in [false, true] {
        let mut world = with_backends(&BACKENDS[..1]);
        let shows = shown::right(&ask(&mut world, A, true, udp(4000, 80)).bytes);
        world.set_policy(&[1], &ingress(9, vec![]));
        let cut = if answer_first {
            answer(&mut world, 1, &shows, udp(8080, 4000))
        } else {
            ask(&mut world, A, true, udp(4000, 80))
        };
        assert_eq!(cut.dropped(), Some(DropReason::PolicyDenied));
        let event = world.drain().pop().unwrap();
        assert_eq!(event.key, shows, "the initiator's orientation");
        assert_eq!(event.service, Some(at(service(true), 80)));
        let after = ask(&mut world, A, true, udp(4000, 80));
        assert_eq!(after.dropped(), Some(DropReason::ConnectionDenied));
        world.set_policy(&[1], &EndpointPolicy::default());
        assert_eq!(pod_of(&ask(&mut world, A, true, udp(4000, 80))), 1);
        world.assert_balanced();
    }
}

#[test]
fn of_a_removed_backend_tcp_goes_on_and_datagrams_move() {
    let mut world = with_backends(&BACKENDS[..1]);
    let shows = shown::right(&ask(&mut world, A, true, tcp(4000, 80, SYN)).bytes);
    answer(&mut world, 1, &shows, tcp(8080, 4000, SYN_ACK));
    ask(&mut world, A, true, tcp(4000, 80, ACK));
    ask(&mut world, A, true, udp(4000, 80));
    // Another that has not been answered yet.
    ask(&mut world, A, true, tcp(4001, 80, SYN));
    set(&mut world, frontends(&BACKENDS[1..]));
    assert_eq!(pod_of(&ask(&mut world, A, true, tcp(4000, 80, ACK))), 1);
    assert_eq!(pod_of(&ask(&mut world, A, true, udp(4000, 80))), 2);
    assert_eq!(pod_of(&ask(&mut world, A, true, tcp(4001, 80, SYN))), 2);
    let late = answer(&mut world, 1, &shows, udp(8080, 4000));
    assert_eq!(
        shown::right(&late.bytes).sender().port,
        8080,
        "a stranger's by now"
    );
    // And when there is none any more.
    set(&mut world, frontends(&[]));
    assert_eq!(pod_of(&ask(&mut world, A, true, tcp(4000, 80, ACK))), 1);
    let refused = ask(&mut world, A, true, udp(4000, 80));
    assert_eq!(refused.dropped(), Some(DropReason::ServiceNoBackend));
    // A Service that comes takes over what was routed elsewhere before.
    let other = address("10.96.0.9");
    let bytes = frame(&world, A, other, udp(4000, 80));
    assert_eq!(
        world.send_bytes(A.port(), &bytes).forwarded_to(),
        Some(UPLINK)
    );
    let moved = frontends(&BACKENDS)
        .into_iter()
        .filter(|f| f.address.is_v4());
    let moved = moved.map(|frontend| Frontend {
        address: other,
        ..frontend
    });
    set(&mut world, moved.collect());
    let taken = world.send_bytes(A.port(), &bytes);
    assert!(BACKENDS.contains(&pod_of(&taken)));
    world.assert_balanced();
}

#[test]
fn a_new_pod_at_a_backends_address_inherits_nothing() {
    let mut world = with_backends(&BACKENDS[..1]);
    let shows = shown::right(&ask(&mut world, A, true, tcp(4000, 80, SYN)).bytes);
    answer(&mut world, 1, &shows, tcp(8080, 4000, SYN_ACK));
    world.parts.endpoints[1].incarnation = Incarnation(77);
    world.parts.epochs[1] = Epoch::from(Generation(world.parts.generation.0 + 1));
    world.publish();
    let stale = ask(&mut world, A, true, tcp(4000, 80, ACK));
    assert_eq!(stale.dropped(), Some(DropReason::ConntrackInvalid));
    assert_eq!(pod_of(&ask(&mut world, A, true, tcp(4000, 80, SYN))), 1);
    world.assert_balanced();
}

/// The refusal that came back, if one did.
fn refusal(sent: &Sent) -> Option<FlowKey> {
    match sent.outcome {
        Outcome::Refuse(..) => Some(shown::right(&sent.bytes)),
        _ => None,
    }
}

#[test]
fn without_a_backend_the_sender_is_told_if_policy_lets_it_have_the_port_at_all() {
    for v4 in [true, false] {
        let mut world = with_backends(&[]);
        let reason = Some(DropReason::ServiceNoBackend);
        let syn = ask(&mut world, A, v4, tcp(4000, 80, SYN));
        assert_eq!(syn.dropped(), reason);
        let reset = refusal(&syn).unwrap();
        assert_eq!(reset.sender(), at(service(v4), 80));
        assert_eq!(reset.receiver(), at(pod_address(0, v4), 4000));
        let transport = if v4 { 34 } else { 54 };
        let flags = syn.bytes[transport + 13];
        assert_eq!(flags, 0x14, "RST, ACK");
        assert_eq!(
            syn.bytes[transport + 8..transport + 12],
            1005_u32.to_be_bytes()
        );
        let middle = ask(&mut world, A, v4, tcp(4000, 80, ACK));
        assert!(refusal(&middle).is_some());
        assert_eq!(middle.bytes[transport + 13], 0x04, "RST");
        let reset = ask(&mut world, A, v4, tcp(4000, 80, RST));
        assert_eq!((reset.dropped(), refusal(&reset)), (reason, None));
        let datagram = ask(&mut world, A, v4, udp(4000, 80));
        assert_eq!(datagram.dropped(), reason);
        let told = refusal(&datagram).unwrap();
        assert_eq!(
            (told.source, told.destination),
            (service(v4), pod_address(0, v4))
        );
        let kind = &datagram.bytes[transport..transport + 2];
        assert_eq!(kind, if v4 { [3, 3] } else { [1, 4] });
        // A port that it has not, and what has no ports.
        let port = ask(&mut world, A, v4, tcp(4000, 81, SYN));
        assert_eq!(port.dropped(), Some(DropReason::ServiceNoPort));
        assert!(refusal(&port).is_some());
        let echo = ask(&mut world, A, v4, Transport::EchoRequest(7));
        assert_eq!(echo.dropped(), Some(DropReason::ServiceNoPort));
        assert_eq!(refusal(&echo), None);
        world.assert_balanced();
    }
    let mut world = with_backends(&[]);
    let peers = || addresses(&[pod_address(3, true)]);
    for (rules, told) in [
        (vec![], false),
        (vec![allow(9, peers(), port(Protocol::TCP, 80))], false),
        (vec![allow(9, peers(), port(Protocol::UDP, 8080))], false),
        (vec![allow(9, peers(), port(Protocol::TCP, 8080))], true),
    ] {
        world.set_policy(&[0], &egress(9, rules));
        let syn = ask(&mut world, A, true, tcp(4000, 80, SYN));
        assert_eq!(syn.dropped(), Some(DropReason::ServiceNoBackend));
        assert_eq!(refusal(&syn).is_some(), told);
    }
    world.assert_balanced();
}

#[test]
fn a_pod_reaches_itself_through_its_service_unless_cluster_policy_denies() {
    for v4 in [true, false] {
        let mut world = with_backends(&[0]);
        let mut policy = ingress(9, vec![]);
        policy.egress = egress(9, vec![]).egress;
        world.set_policy(&[0], &policy);
        let sent = ask(&mut world, A, v4, tcp(4000, 80, SYN));
        assert_eq!(pod_of(&sent), 0);
        let shows = shown::right(&sent.bytes);
        assert_eq!(shows.receiver(), at(pod_address(0, v4), 8080));
        // A pod's stack refuses what comes from its own address.
        assert_eq!(shows.source, service(v4));
        let sent = answer(&mut world, 0, &shows, tcp(8080, shows.source_port, SYN_ACK));
        let back = shown::right(&sent.bytes);
        assert_eq!(pod_of(&sent), 0);
        assert_eq!(back.sender(), at(service(v4), 80));
        assert_eq!(back.receiver(), at(pod_address(0, v4), 4000));
        let entry = world.conntrack.entries(world.now).next().unwrap();
        assert_eq!(entry.key.sender(), at(pod_address(0, v4), 4000));
        assert_eq!(world.totals().counter(Counter::SourcePortsGiven), 1);
        let deny = Arc::new(Rule {
            policy: PolicyId(5),
            index: 0,
            tier: Tier::Admin,
            action: Action::Deny,
            peers: Peers::Any,
            ports: port(Protocol::TCP, 8080),
            counter: CounterId::NONE,
        });
        let denied = EndpointPolicy {
            egress: Chain {
                rules: vec![deny],
                ..policy.egress
            },
            ..policy
        };
        world.set_policy(&[0], &denied);
        let cut = ask(&mut world, A, v4, tcp(4000, 80, ACK));
        assert_eq!(cut.dropped(), Some(DropReason::PolicyDenied));
        // Its own address is nobody's to deny.
        let own = world.send(A, A, v4, tcp(4000, 8080, SYN));
        assert_eq!(pod_of(&own), 0);
        world.assert_balanced();
    }
}

/// The self-check tells a pod's own address, which nobody judges, from the way by a Service.
#[test]
fn a_pod_s_way_to_itself_is_sampled_with_the_service_it_is_by() {
    let mut world = with_backends(&[0]);
    world.parts.settings.sample_one_in = 1;
    world.publish();
    let sent = ask(&mut world, A, true, tcp(4000, 80, SYN));
    assert_eq!(pod_of(&sent), 0);
    let events = world.drain();
    let sampled = |kind: &EventKind| matches!(kind, EventKind::Sampled(verdict) if verdict.accept);
    let found = events.iter().find(|event| sampled(&event.kind)).unwrap();
    assert_eq!(found.source, found.destination);
    assert_eq!(found.service, Some(at(service(true), 80)));
    assert_eq!(found.key.receiver(), at(pod_address(0, true), 8080));
    world.assert_balanced();
}

#[test]
fn node_ports_answer_from_the_node_and_remote_backends_come_back_here() {
    let node_port = |v4: bool, backend: SocketAddress| Frontend {
        address: node(v4),
        protocol: Protocol::UDP,
        port: 30_080,
        internal: vec![backend],
        external: vec![backend],
        affinity_s: None,
        node_port: true,
        target_port: None,
    };
    for v4 in [true, false] {
        let mut world = World::new(64);
        set(
            &mut world,
            vec![node_port(v4, at(pod_address(1, v4), 8080))],
        );
        for client in [Place::Outside, A] {
            let bytes = frame(&world, client, node(v4), udp(4000, 30_080));
            let sent = world.send_bytes(client.port(), &bytes);
            assert_eq!(pod_of(&sent), 1);
            let shows = shown::right(&sent.bytes);
            assert_eq!(shows.sender(), at(client.address(v4), 4000), "not hidden");
            let back = answer(&mut world, 1, &shows, udp(8080, 4000));
            assert_eq!(back.forwarded_to(), Some(client.port()));
            assert_eq!(shown::right(&back.bytes).sender(), at(node(v4), 30_080));
        }
        // Its other ports are the node's.
        let ssh = world.send(A, Place::Node, v4, tcp(4000, 22, SYN));
        assert_eq!(ssh.forwarded_to(), Some(Place::Node.port()));
        // A backend that is not ours: the answer has to find back to us.
        let remote = address(if v4 { "192.0.2.80" } else { "2001:db8::80" });
        set(&mut world, vec![node_port(v4, at(remote, 8080))]);
        let bytes = frame(&world, Place::Outside, node(v4), udp(4001, 30_080));
        let sent = world.send_bytes(UPLINK, &bytes);
        assert_eq!(sent.forwarded_to(), Some(UPLINK), "{sent:?}");
        let shows = shown::right(&sent.bytes);
        assert_eq!(
            (shows.source, shows.receiver()),
            (node(v4), at(remote, 8080))
        );
        assert!(shows.source_port >= 61_000);
        let back = packets::build(&Spec {
            source_mac: OUTSIDE_MAC,
            destination_mac: port_mac(UPLINK),
            source: remote,
            destination: node(v4),
            ttl: 64,
            transport: udp(8080, shows.source_port),
            payload: b"weir".to_vec(),
        });
        let sent = world.send_bytes(UPLINK, &back);
        assert_eq!(sent.forwarded_to(), Some(UPLINK), "{sent:?}");
        let shows = shown::right(&sent.bytes);
        assert_eq!(shows.sender(), at(node(v4), 30_080));
        assert_eq!(shows.receiver(), at(outside(v4), 4001));
        // The node as its own backend: pods reach it, others' connections would go in a circle.
        set(&mut world, vec![node_port(v4, at(node(v4), 53))]);
        let bytes = frame(&world, A, node(v4), udp(4002, 30_080));
        let sent = world.send_bytes(A.port(), &bytes);
        assert_eq!(sent.forwarded_to(), Some(Place::Node.port()));
        assert_eq!(shown::right(&sent.bytes).receiver(), at(node(v4), 53));
        let back = world.send(Place::Node, A, v4, udp(53, 4002));
        assert_eq!(shown::right(&back.bytes).sender(), at(node(v4), 30_080));
        let bytes = frame(&world, Place::Outside, node(v4), udp(4002, 30_080));
        let sent = world.send_bytes(UPLINK, &bytes);
        assert_eq!(sent.dropped(), Some(DropReason::ServiceNoSource));
        // Other answers to the node are none of ours.
        let stray = packets::build(&Spec {
            transport: udp(8080, 60_999),
            ..world.spec(Place::Outside, Place::Node, v4, udp(1, 1))
        });
        assert_eq!(
            world.send_bytes(UPLINK, &stray).dropped(),
            Some(DropReason::NoRoute)
        );
        world.assert_balanced();
    }
}

#[test]
fn connections_that_would_look_alike_get_another_source_port() {
    let mut world = with_backends(&BACKENDS[..1]);
    let first = shown::right(&ask(&mut world, A, true, udp(4000, 80)).bytes);
    assert_eq!(first.source_port, 4000);
    let direct = world.send(A, Place::Pod(1), true, udp(4000, 8080));
    let shows = shown::right(&direct.bytes);
    assert_eq!((pod_of(&direct), shows.source), (1, pod_address(0, true)));
    assert!(shows.source_port >= 61_000, "{shows:?}");
    let back = answer(&mut world, 1, &shows, udp(8080, shows.source_port));
    let shows = shown::right(&back.bytes);
    assert_eq!(shows.sender(), at(pod_address(1, true), 8080));
    assert_eq!(shows.receiver(), at(pod_address(0, true), 4000));
    let back = answer(&mut world, 1, &first, udp(8080, 4000));
    assert_eq!(shown::right(&back.bytes).sender(), at(service(true), 80));
    assert_eq!(world.totals().counter(Counter::SourcePortsGiven), 1);
    world.assert_balanced();
}
