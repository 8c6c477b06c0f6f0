//! A burst is what its packets are one after the other, whatever it mixes.

use std::collections::HashSet;

use dataplane::counters::{Counter, CounterId};
use dataplane::events::Event;
use dataplane::policy::ir::{EndpointPolicy, Peers, Ports};
use dataplane::snapshot::{Generation, PortId};
use dataplane::{DropReason, Protocol};
use proptest::prelude::*;

use super::packets::{self, ACK, Flags, RST, SYN, SYN_ACK, Spec, Transport, tcp};
use super::policies::{addresses, allow, ingress, port};
use super::services::{frontends, service, set};
use super::world::{Place, SECOND, Sent, World, pod_address};

const A: Place = Place::Pod(0);
const B: Place = Place::Pod(1);
const FIN: Flags = Flags {
    syn: false,
    ack: true,
    fin: true,
    rst: false,
};

/// One packet: who to whom, of which of few connections, what.
#[derive(Clone, Debug)]
struct Sending {
    places: (Place, Place),
    v4: bool,
    client: u16,
    reply: bool,
    kind: u8,
    ttl: u8,
    long: bool,
    /// Whether the client asks for a Service, whoever is behind it.
    to_service: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Burst(Vec<Sending>),
    /// Seconds pass.
    Later(u64),
    /// B accepts from A only, from nobody, or from all.
    Policy(u8),
    /// The Service has these backends, as bits.
    Backends(u8),
}

fn sending() -> impl Strategy<Value = Sending> {
    let places = prop_oneof![
        8 => Just((A, B)),
        1 => Just((A, Place::Outside)),
        1 => Just((Place::Outside, B)),
        1 => Just((Place::Node, B)),
        1 => Just((A, A)),
    ];
    let ttl = prop_oneof![20 => Just(64), 1 => 0..3_u8];
    (
        places,
        any::<bool>(),
        0..2_u16,
        any::<bool>(),
        0..9_u8,
        ttl,
        0..20_u8,
        0..3_u8,
    )
        .prop_map(
            |(places, v4, client, reply, kind, ttl, long, service)| Sending {
                places,
                v4,
                client,
                reply,
                kind,
                ttl,
                long: long == 0,
                to_service: service == 0,
            },
        )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => proptest::collection::vec(sending(), 1..40).prop_map(Step::Burst),
        2 => (0..40_u64).prop_map(Step::Later),
        2 => (0..3_u8).prop_map(Step::Policy),
        1 => (0..4_u8).prop_map(Step::Backends),
    ]
}

fn packet(world: &World, sending: &Sending) -> (PortId, Vec<u8>) {
    let (client, server) = (4000 + sending.client, 80);
    let (places, (from, to)) = if sending.reply {
        ((sending.places.1, sending.places.0), (server, client))
    } else {
        (sending.places, (client, server))
    };
    let tcp = |flags| tcp(from, to, flags);
    let transport = match sending.kind {
        0 => tcp(SYN),
        1 => tcp(SYN_ACK),
        2 | 3 => tcp(ACK),
        4 => tcp(FIN),
        5 => tcp(RST),
        6 if sending.reply => Transport::EchoReply(7),
        6 => Transport::EchoRequest(7),
        _ => Transport::Udp { from, to },
    };
    let mut spec = Spec {
        ttl: sending.ttl,
        ..world.spec(places.0, places.1, sending.v4, transport)
    };
    if sending.to_service && !sending.reply {
        spec.destination = service(sending.v4);
    }
    if sending.long {
        spec.payload = vec![7; 1600];
    }
    (places.0.port(), packets::build(&spec))
}

fn policy(kind: u8) -> EndpointPolicy {
    let from_a = addresses(&[pod_address(0, true), pod_address(0, false)]);
    match kind {
        0 => ingress(1, vec![allow(1, from_a, port(Protocol::TCP, 80))]),
        1 => ingress(2, vec![]),
        _ => ingress(3, vec![allow(3, Peers::Any, Ports::Any)]),
    }
}

/// A Service whose backends have the port that clients ask for, so that its connections and others
/// meet.
fn set_backends(world: &mut World, backends: u8) {
    let pods: Vec<usize> = [0, 1]
        .into_iter()
        .filter(|pod| backends >> pod & 1 != 0)
        .collect();
    let mut frontends = frontends(&pods);
    for frontend in &mut frontends {
        for list in [&mut frontend.internal, &mut frontend.external] {
            list.iter_mut().for_each(|backend| backend.port = 80);
        }
    }
    set(world, frontends);
}

/// Everything that is seen of a world from outside.
fn seen(world: &World) -> (String, Vec<Event>, HashSet<String>) {
    let totals = world.totals();
    let counted = |counter: &&Counter| **counter != Counter::Bursts;
    let counters: Vec<_> = Counter::ALL.iter().filter(counted).collect();
    let counters: Vec<u64> = counters.iter().map(|c| totals.counter(**c)).collect();
    let drops: Vec<u64> = DropReason::ALL.iter().map(|r| totals.dropped(*r)).collect();
    let ports: Vec<_> = (0..128).map(|port| totals.port(PortId(port))).collect();
    let hits: Vec<_> = (0..64)
        .map(|id| world.counters.hits_of(CounterId(id)))
        .collect();
    let entries = world.conntrack.entries(world.now);
    (
        format!("{counters:?} {drops:?} {ports:?} {hits:?}"),
        world.drain(),
        // Entries' places depend on the order of insertion alone.
        entries.map(|entry| format!("{entry:?}")).collect(),
    )
}

fn same(burst: &[Sent], single: &[Sent]) {
    for (number, (burst, single)) in burst.iter().zip(single).enumerate() {
        assert_eq!(burst.outcome, single.outcome, "packet {number}");
        assert_eq!(burst.bytes, single.bytes, "packet {number}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_burst_is_its_packets_one_after_the_other(steps in proptest::collection::vec(step(), 1..20)) {
        let mut worlds = [World::new(64), World::new(64)];
        worlds.iter_mut().for_each(|world| set_backends(world, 0b11));
        for step in steps {
            match step {
                Step::Burst(sendings) => {
                    let packets: Vec<_> = sendings.iter().map(|s| packet(&worlds[0], s)).collect();
                    let [together, apart] = &mut worlds;
                    let burst: Vec<_> = packets.iter().map(|(port, b)| (*port, &b[..])).collect();
                    let burst = together.send_mixed(&burst);
                    let single: Vec<_> =
                        packets.iter().map(|(port, b)| apart.send_bytes(*port, b)).collect();
                    same(&burst, &single);
                }
                Step::Later(seconds) => worlds.iter_mut().for_each(|world| {
                    world.now = world.now.plus_nanos(seconds * SECOND + 300_000_000);
                }),
                Step::Backends(backends) => worlds
                    .iter_mut()
                    .for_each(|world| set_backends(world, backends)),
                Step::Policy(kind) => worlds
                    .iter_mut()
                    .for_each(|world| world.set_policy(&[1], &policy(kind))),
            }
            let [together, apart] = worlds.each_ref().map(seen);
            prop_assert_eq!(together, apart);
        }
        worlds[0].assert_balanced();
    }
}

/// A whole connection in one burst: every packet meets what the one before has left.
#[test]
fn a_connection_opens_and_closes_within_a_burst() {
    let mut world = World::new(64);
    let parts = [
        (A, B, tcp(4000, 80, SYN), true),
        (B, A, tcp(80, 4000, SYN_ACK), true),
        (A, B, tcp(4000, 80, ACK), true),
        (B, A, tcp(80, 4000, RST), true),
        // Closed: a new connection of the same tuple, decided as such, and its answer.
        (A, B, tcp(4000, 80, SYN), true),
        (A, B, tcp(4000, 80, ACK), false),
        (B, A, tcp(80, 4000, SYN_ACK), true),
    ];
    let bytes = parts
        .clone()
        .map(|(from, to, transport, _)| packets::build(&world.spec(from, to, true, transport)));
    let burst: Vec<_> = parts
        .iter()
        .zip(&bytes)
        .map(|(p, b)| (p.0.port(), &b[..]))
        .collect();
    let sent = world.send_mixed(&burst);
    for ((from, to, transport, passes), sent) in parts.iter().zip(&sent) {
        let expected = passes.then_some(to.port());
        assert_eq!(
            sent.forwarded_to(),
            expected,
            "{from:?} {transport:?} {:?}",
            sent.outcome
        );
    }
    assert_eq!(world.totals().counter(Counter::FlowsAccepted), 2);
    assert_eq!(world.conntrack.counters().entries, 1);
}

/// Two packets of one new flow make one entry and one decision.
#[test]
fn a_new_flow_twice_in_a_burst_is_one_flow() {
    let mut world = World::new(64);
    world.set_policy(&[1], &policy(1));
    let udp = Transport::Udp { from: 4000, to: 53 };
    let bytes = packets::build(&world.spec(A, B, true, udp));
    let sent = world.send_all(A.port(), &[&bytes, &bytes]);
    let dropped: Vec<_> = sent.iter().map(Sent::dropped).collect();
    assert_eq!(
        dropped,
        [
            Some(DropReason::PolicyDenied),
            Some(DropReason::ConnectionDenied)
        ]
    );
    assert_eq!(world.totals().counter(Counter::FlowsDenied), 1);
    assert_eq!(world.conntrack.counters().inserted, 1);
    assert_eq!(world.parts.generation, Generation(3));
}

/// Established connections through a Service go the short way, both ways, in both families.
#[test]
fn a_services_packets_go_with_the_burst() {
    let mut world = World::new(64);
    set_backends(&mut world, 0b10);
    for v4 in [true, false] {
        let to = service(v4);
        let bytes = |world: &World, transport| super::services::frame(world, A, to, transport);
        let syn = bytes(&world, tcp(4000, 80, SYN));
        world.send_bytes(A.port(), &syn);
        world.send(B, A, v4, tcp(80, 4000, SYN_ACK));
        let there = bytes(&world, tcp(4000, 80, ACK));
        let back = packets::build(&world.spec(B, A, v4, tcp(80, 4000, ACK)));
        let burst = [(A.port(), &there[..]), (B.port(), &back[..])].repeat(16);
        let sent = world.send_mixed(&burst);
        for pair in sent.chunks(2) {
            assert_eq!(pair[0].forwarded_to(), Some(B.port()));
            let shows = super::shown::right(&pair[0].bytes);
            assert_eq!(
                (shows.source, shows.destination),
                (pod_address(0, v4), pod_address(1, v4))
            );
            assert_eq!(pair[1].forwarded_to(), Some(A.port()));
            let shows = super::shown::right(&pair[1].bytes);
            assert_eq!((shows.source, shows.destination), (to, pod_address(0, v4)));
        }
    }
    world.assert_balanced();
}
