//! Random traffic under changing random policies, against a model that walks the policies
//! literally and remembers connections in a hash map.

use std::collections::HashMap;
use std::sync::Arc;

use dataplane::events::EventKind;
use dataplane::policy::ir::{Action, Chain, EndpointPolicy, Peers, PortRange, Ports, Rule};
use dataplane::policy::naive;
use dataplane::{CounterId, Direction, DropReason, FlowKey, PolicyId, Protocol, Tier};

use super::packets::{SYN, SYN_ACK, Transport};
use super::policies::{addresses, isolation};
use super::world::{PODS, Place, World};

/// A small generator (xorshift64*), so that a failing seed can be replayed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 33) % bound
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

const PLACES: [Place; PODS + 3] = [
    Place::Pod(0),
    Place::Pod(1),
    Place::Pod(2),
    Place::Pod(3),
    Place::Pod(4),
    Place::Outside,
    Place::Node,
    Place::Transit,
];
const CLIENT_PORTS: [u16; 3] = [4000, 4001, 4002];
const SERVER_PORTS: [u16; 3] = [53, 80, 81];

fn random_chain(random: &mut Random) -> Chain {
    let mut chain = Chain::default();
    if random.below(2) == 0 {
        chain.isolating.push(isolation(random.below(50) as u32));
    }
    for (tier, most) in [
        (Tier::Admin, 2),
        (Tier::NetworkPolicy, 3),
        (Tier::Baseline, 2),
    ] {
        if tier == Tier::NetworkPolicy && chain.isolating.is_empty() {
            continue;
        }
        for index in 0..random.below(most + 1) {
            chain
                .rules
                .push(Arc::new(random_rule(random, tier, index as u16)));
        }
    }
    chain
}

fn random_rule(random: &mut Random, tier: Tier, index: u16) -> Rule {
    let action = match tier {
        Tier::NetworkPolicy => Action::Accept,
        _ => random.pick(&[Action::Accept, Action::Deny, Action::Pass]),
    };
    let peers = match random.below(4) {
        0 => Peers::Any,
        _ => {
            let some = |random: &mut Random| {
                let (place, v4) = (random.pick(&PLACES), random.below(2) == 0);
                place.address(v4)
            };
            addresses(&[some(random), some(random), some(random)])
        }
    };
    let ports = match random.below(3) {
        0 => Ports::Any,
        _ => {
            let protocol = random.pick(&[Protocol::TCP, Protocol::UDP]);
            let first = random.pick(&SERVER_PORTS);
            let last = first + random.below(30) as u16;
            Ports::List(Arc::from([PortRange {
                protocol,
                first,
                last,
            }]))
        }
    };
    Rule {
        policy: PolicyId(100 + u32::from(index)),
        index,
        tier,
        action,
        peers,
        ports,
        counter: CounterId::NONE,
    }
}

/// What the model knows: the initiator's orientation of every connection, and what was last
/// decided for it.
#[derive(Default)]
struct Model {
    flows: HashMap<FlowKey, (Place, Place, bool)>,
}

fn accepts(world: &World, from: Place, to: Place, key: &FlowKey) -> bool {
    let port = key.protocol.has_ports().then_some(key.destination_port);
    let ask = |pod: usize, direction, peer| {
        naive::decide(
            &world.policies[pod],
            &naive::PeerSets::new(),
            direction,
            peer,
            key.protocol,
            port,
        )
        .verdict
        .accept
    };
    if from == to {
        return true;
    }
    let out = match from {
        Place::Pod(pod) => ask(pod, Direction::Egress, key.destination),
        _ => true,
    };
    let into = match to {
        Place::Pod(pod) if from != Place::Node => ask(pod, Direction::Ingress, key.source),
        _ => true,
    };
    out && into
}

fn transport(key: &FlowKey, reply: bool) -> Transport {
    let (from, to) = (key.source_port, key.destination_port);
    match key.protocol {
        Protocol::TCP if reply => Transport::Tcp {
            from,
            to,
            flags: SYN_ACK,
            seq: 1,
            ack: 1001,
        },
        Protocol::TCP => Transport::Tcp {
            from,
            to,
            flags: SYN,
            seq: 1000,
            ack: 0,
        },
        Protocol::UDP => Transport::Udp { from, to },
        _ if reply => Transport::EchoReply(to),
        _ => Transport::EchoRequest(from),
    }
}

/// One packet: a new one, or a reply in a connection that the model knows.
fn step(world: &mut World, model: &mut Model, random: &mut Random) {
    let known: Vec<_> = model
        .flows
        .iter()
        .map(|(key, flow)| (*key, *flow))
        .collect();
    let reply = !known.is_empty() && random.below(3) == 0;
    let (from, to, key) = if reply {
        let mut known = known;
        known.sort_by_key(|(key, _)| (key.source, key.destination, key.source_port, key.protocol));
        let (key, (from, to, _)) = random.pick(&known);
        (to, from, key.reversed())
    } else {
        let (from, to) = (random.pick(&PLACES), random.pick(&PLACES));
        let v4 = random.below(2) == 0;
        let icmp = if v4 { Protocol::ICMP } else { Protocol::ICMPV6 };
        let protocol = random.pick(&[Protocol::TCP, Protocol::UDP, icmp]);
        let (mut source_port, mut destination_port) =
            (random.pick(&CLIENT_PORTS), random.pick(&SERVER_PORTS));
        if !protocol.has_ports() {
            // Few identifiers, so that both ends ping each other under one.
            (source_port, destination_port) = FlowKey::echo_ports(source_port, true);
        }
        let (source, destination) = (from.address(v4), to.address(v4));
        (
            from,
            to,
            FlowKey {
                source,
                destination,
                source_port,
                destination_port,
                protocol,
            },
        )
    };
    let local = |place: Place| matches!(place, Place::Pod(_));
    if !local(from) && !local(to) || from == to {
        return;
    }
    world.now = world.now.plus_nanos(1_000_000);
    let v4 = key.source.is_v4();
    let sent = world.send(from, to, v4, transport(&key, reply));
    let original = if model.flows.contains_key(&key) || !reply {
        key
    } else {
        key.reversed()
    };
    let (initiator, other) = if original == key {
        (from, to)
    } else {
        (to, from)
    };
    let accept = accepts(world, initiator, other, &original);
    let before = model
        .flows
        .insert(original, (initiator, other, accept))
        .map(|flow| flow.2);
    if accept {
        assert_eq!(
            sent.forwarded_to(),
            Some(to.port()),
            "{key:?}: {:?}",
            sent.outcome
        );
        return;
    }
    let expected = match before {
        // A SYN sent once more is none the less of a flow that was denied before.
        Some(false) => DropReason::ConnectionDenied,
        _ => DropReason::PolicyDenied,
    };
    assert_eq!(sent.dropped(), Some(expected), "{key:?}, before {before:?}");
    let first = world
        .drain()
        .into_iter()
        .filter(|e| matches!(e.kind, EventKind::Denied(_)));
    assert_eq!(
        first.count(),
        usize::from(expected == DropReason::PolicyDenied)
    );
}

fn play(seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut world = World::new(4096);
    let mut model = Model::default();
    for _ in 0..300 {
        if random.below(12) == 0 {
            let pod = random.below(PODS as u64) as usize;
            let policy = EndpointPolicy {
                ingress: random_chain(&mut random),
                egress: random_chain(&mut random),
            };
            world.set_policy(&[pod], &policy);
        }
        step(&mut world, &mut model, &mut random);
    }
    world.assert_balanced();
}

#[test]
fn random_traffic_is_decided_as_the_policies_say() {
    let cases = std::env::var("WEIR_CASES")
        .ok()
        .and_then(|text| text.parse().ok());
    for seed in 1..=cases.unwrap_or(100u64) {
        let played = std::panic::catch_unwind(|| play(seed));
        assert!(played.is_ok(), "seed {seed} fails");
    }
}
