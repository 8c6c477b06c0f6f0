//! Rule hits, audited policies and the self-check's samples: exact counts.

use std::sync::Arc;

use dataplane::counters::{Counter, CounterId, RuleHits};
use dataplane::events::EventKind;
use dataplane::policy::ir::{Chain, EndpointPolicy, Isolation, Peers, Ports, Rule};
use dataplane::snapshot::{ExistingConnections, Role};
use dataplane::{Direction, DropReason, PolicyId, Protocol};

use super::packets::{ACK, SYN, SYN_ACK, Transport, tcp, udp};
use super::policies::{addresses, allow, port};
use super::world::{Place, SECOND, World, pod_address};

const A: Place = Place::Pod(0);
const B: Place = Place::Pod(1);

/// Counters of A's egress: its one rule, and its default denials.
const OUT: u32 = 1;
const OUT_DENIED: u32 = 2;
/// Counters of B's ingress.
const IN: u32 = 3;
const IN_DENIED: u32 = 4;

fn counted(rule: &Arc<Rule>, counter: u32) -> Arc<Rule> {
    Arc::new(Rule {
        counter: CounterId(counter),
        ..(**rule).clone()
    })
}

/// A chain that accepts these ports of any peer: hits count to `counter`, denials to `denied`.
fn chain(ports: &[Ports], counter: u32, denied: u32) -> Chain {
    let rule = |ports: &Ports| counted(&allow(9, Peers::Any, ports.clone()), counter);
    Chain {
        isolating: vec![Isolation {
            policy: PolicyId(9),
            counter: CounterId(denied),
        }],
        rules: ports.iter().map(rule).collect(),
        ..Chain::default()
    }
}

fn dns() -> Ports {
    port(Protocol::UDP, 53)
}

fn web() -> Ports {
    port(Protocol::TCP, 80)
}

/// A may send DNS and web, B may receive DNS.
fn world() -> World {
    let mut world = World::new(1024);
    let egress = chain(&[dns(), web()], OUT, OUT_DENIED);
    let ingress = chain(&[dns()], IN, IN_DENIED);
    world.set_policy(&[0], &egress_only(egress));
    world.set_policy(&[1], &ingress_only(ingress));
    world
}

fn egress_only(egress: Chain) -> EndpointPolicy {
    let ingress = Chain::default();
    EndpointPolicy { ingress, egress }
}

fn ingress_only(ingress: Chain) -> EndpointPolicy {
    let egress = Chain::default();
    EndpointPolicy { ingress, egress }
}

/// Connections and packets of a counter.
fn hits(world: &World, counter: u32) -> (u64, u64) {
    let mut hits = [RuleHits::default(); 64];
    world.counters.rule_hits(CounterId::NONE, &mut hits);
    let hits = hits[counter as usize];
    (hits.connections, hits.packets)
}

fn all_hits(world: &World) -> [(u64, u64); 4] {
    [OUT, OUT_DENIED, IN, IN_DENIED].map(|counter| hits(world, counter))
}

#[test]
fn both_deciding_rules_count_the_connection_and_its_packets_either_way() {
    let mut world = world();
    for _ in 0..3 {
        world.send(A, B, true, udp(4000, 53));
        world.send(B, A, true, udp(53, 4000));
    }
    assert_eq!(all_hits(&world), [(1, 6), (0, 0), (1, 6), (0, 0)]);
    // To the outside only the source has a say.
    world.send(A, Place::Outside, true, tcp(4000, 80, SYN));
    world.send(Place::Outside, A, true, tcp(80, 4000, SYN_ACK));
    assert_eq!(all_hits(&world), [(2, 8), (0, 0), (1, 6), (0, 0)]);
    // What the node itself originates is decided by no rule.
    world.send(Place::Node, B, true, udp(4000, 53));
    assert_eq!(all_hits(&world), [(2, 8), (0, 0), (1, 6), (0, 0)]);
    world.assert_balanced();
}

#[test]
fn denials_count_for_the_policy_that_isolates_and_so_do_their_later_packets() {
    let mut world = world();
    // Egress denies: ingress is not asked.
    for _ in 0..3 {
        world.send(A, B, true, udp(4000, 54));
    }
    assert_eq!(all_hits(&world), [(0, 0), (1, 3), (0, 0), (0, 0)]);
    // Egress accepts, ingress denies: each has decided. The other side's packets are dropped, too.
    world.send(A, B, true, tcp(4000, 80, SYN));
    world.send(A, B, true, tcp(4000, 80, ACK));
    world.send(B, A, true, tcp(80, 4000, SYN_ACK));
    assert_eq!(all_hits(&world), [(1, 3), (1, 3), (0, 0), (1, 3)]);
    assert_eq!(world.totals().counter(Counter::FlowsDenied), 2);
    world.assert_balanced();
}

#[test]
fn a_syn_sent_again_on_a_denied_entry_is_a_packet_and_no_news() {
    let mut world = world();
    let first = world.send(A, B, true, tcp(4000, 80, SYN));
    assert_eq!(first.dropped(), Some(DropReason::PolicyDenied));
    // Four times in three minutes, beyond the denial's own time-out of one: it is kept alive.
    for _ in 0..4 {
        world.now = world.now.plus_nanos(45 * SECOND);
        let again = world.send(A, B, true, tcp(4000, 80, SYN));
        assert_eq!(again.dropped(), Some(DropReason::ConnectionDenied));
    }
    let kinds: Vec<_> = world.drain().iter().map(|event| event.kind).collect();
    let EventKind::Denied(verdict) = kinds[0] else {
        panic!("{kinds:?}")
    };
    assert_eq!(kinds[1..], [EventKind::DeniedAgain(verdict); 4]);
    assert_eq!(world.totals().counter(Counter::FlowsDenied), 1);
    assert_eq!(all_hits(&world), [(1, 5), (0, 0), (0, 0), (1, 5)]);
    // The other end's SYN opens a connection of its own, which nobody denies.
    let back = world.send(B, A, true, tcp(80, 4000, SYN));
    assert_eq!(back.forwarded_to(), Some(A.port()));
    // When policy lets it pass, the next SYN does.
    let open = ingress_only(chain(&[web()], IN, IN_DENIED));
    world.set_policy(&[1], &open);
    let sent = world.send(A, B, true, tcp(4001, 80, SYN));
    assert_eq!(sent.forwarded_to(), Some(B.port()));
    world.assert_balanced();
}

#[test]
fn a_syn_that_newer_policy_cuts_is_announced_once() {
    let mut world = World::new(64);
    world.send(A, B, true, tcp(4000, 80, SYN));
    world.set_policy(&[1], &ingress_only(chain(&[], IN, IN_DENIED)));
    let cut = world.send(A, B, true, tcp(4000, 80, SYN));
    assert_eq!(cut.dropped(), Some(DropReason::PolicyDenied));
    let again = world.send(A, B, true, tcp(4000, 80, SYN));
    assert_eq!(again.dropped(), Some(DropReason::ConnectionDenied));
    let events = world.drain();
    assert!(matches!(events[0].kind, EventKind::Denied(_)));
    assert!(matches!(events[1].kind, EventKind::DeniedAgain(_)));
    assert_eq!(events.len(), 2);
    assert_eq!(world.totals().counter(Counter::RedecidedDenied), 1);
    assert_eq!(hits(&world, IN_DENIED), (1, 2));
}

#[test]
fn a_later_decision_moves_the_connection_to_the_rules_that_decide_now() {
    let mut world = world();
    world.send(A, B, true, udp(4000, 53));
    // The same rule under another counter at B; A's stays.
    world.set_policy(&[1], &ingress_only(chain(&[dns()], 10, 11)));
    world.send(B, A, true, udp(53, 4000));
    world.send(A, B, true, udp(4000, 53));
    assert_eq!(all_hits(&world), [(1, 3), (0, 0), (1, 1), (0, 0)]);
    assert_eq!(hits(&world, 10), (1, 2));
    // Cut: it moves to the default denial.
    world.set_policy(&[1], &ingress_only(chain(&[], 10, 11)));
    world.send(A, B, true, udp(4000, 53));
    assert_eq!((hits(&world, 10), hits(&world, 11)), ((1, 2), (1, 1)));
    assert_eq!(hits(&world, OUT), (1, 4));
    // A decision that comes out the same counts no connection again.
    world.set_policy(&[0], &egress_only(chain(&[dns(), web()], OUT, OUT_DENIED)));
    world.send(A, B, true, udp(4000, 53));
    assert_eq!((hits(&world, OUT), hits(&world, 11)), ((1, 5), (1, 2)));
    world.assert_balanced();
}

#[test]
fn a_kept_connection_counts_for_no_rule_from_then_on() {
    let mut world = world();
    world.send(A, B, true, udp(4000, 53));
    world.parts.settings.existing_connections = ExistingConnections::Keep;
    world.set_policy(&[1], &ingress_only(chain(&[], 10, 11)));
    world.send(A, B, true, udp(4000, 53));
    assert_eq!((hits(&world, IN), hits(&world, 11)), ((1, 1), (0, 0)));
    assert_eq!(hits(&world, OUT), (1, 1));
    // A rule that lets it pass again has it.
    world.set_policy(&[1], &ingress_only(chain(&[dns()], 12, 13)));
    world.send(A, B, true, udp(4000, 53));
    assert_eq!((hits(&world, 12), hits(&world, OUT)), ((1, 1), (2, 2)));
}

#[test]
fn counters_beyond_those_there_are_count_together() {
    let mut world = World::new(64);
    world.set_policy(&[1], &ingress_only(chain(&[dns()], 1 << 20, 64)));
    world.send(A, B, true, udp(4000, 53));
    world.send(A, B, true, udp(4000, 54));
    // Each of the two: A's egress, which no policy decides, and B's ingress.
    assert_eq!(hits(&world, 0), (4, 4));
}

#[test]
fn packets_without_an_entry_count_no_connection() {
    let mut world = World::new(8);
    world.set_policy(&[1], &ingress_only(chain(&[dns()], IN, IN_DENIED)));
    let mut opened = 0;
    for from in 4000..4100 {
        if world
            .send(A, B, true, udp(from, 53))
            .forwarded_to()
            .is_some()
        {
            world.send(B, A, true, udp(53, from));
            opened += 1;
        }
    }
    let (connections, packets) = hits(&world, IN);
    assert_eq!((connections, packets), (opened, 100 + opened));
    // What does not belong to a connection is no hit either.
    world.send(A, B, true, tcp(4000, 80, ACK));
    assert_eq!(hits(&world, IN_DENIED), (0, 0));
}

#[test]
fn audited_policies_tell_where_they_would_decide_otherwise_and_change_nothing() {
    let mut world = World::new(1024);
    // Enforced: nothing. Audited: B accepts DNS only.
    world.set_audit(1, Some(ingress_only(chain(&[dns()], 20, 21))));
    for _ in 0..2 {
        let sent = world.send(A, B, true, udp(4000, 53));
        assert_eq!(sent.forwarded_to(), Some(B.port()));
    }
    assert!(world.drain().is_empty(), "no difference");
    for _ in 0..2 {
        let sent = world.send(A, B, true, udp(4000, 54));
        assert_eq!(sent.forwarded_to(), Some(B.port()));
        assert!(
            world
                .send(B, A, true, udp(54, 4000))
                .forwarded_to()
                .is_some()
        );
    }
    let events = world.drain();
    assert_eq!(events.len(), 1, "once for the flow: {events:?}");
    let EventKind::Audited { enforced, would } = events[0].kind else {
        panic!("{events:?}")
    };
    assert!(enforced.accept && !would.accept);
    assert_eq!(would.provenance.policy, Some(PolicyId(9)));
    assert_eq!(would.provenance.direction, Direction::Ingress);
    assert_eq!(events[0].key.destination_port, 54);
    assert_eq!(world.totals().counter(Counter::FlowsAudited), 1);
    // Audited policies have no hits: they decide nothing.
    assert_eq!((hits(&world, 20), hits(&world, 21)), ((0, 0), (0, 0)));

    // The audit changes: live flows are told of on their next packet, whichever side sends it.
    world.set_audit(1, Some(ingress_only(chain(&[], 20, 21))));
    world.send(B, A, true, udp(54, 4000));
    world.send(B, A, true, udp(53, 4000));
    world.send(A, B, true, udp(4000, 53));
    let events = world.drain();
    assert_eq!(events.len(), 2);
    for event in &events {
        assert!(matches!(event.kind, EventKind::Audited { .. }));
        assert_eq!(
            event.key.source,
            pod_address(0, true),
            "the initiator's orientation"
        );
    }
    assert_eq!(world.totals().counter(Counter::FlowsAudited), 3);
    // Gone: silence.
    world.set_audit(1, None);
    world.send(A, B, true, udp(4000, 53));
    assert!(world.drain().is_empty());
    world.assert_balanced();
}

#[test]
fn an_audit_is_of_the_whole_flow() {
    let mut world = World::new(1024);
    world.set_policy(&[1], &ingress_only(chain(&[dns()], IN, IN_DENIED)));
    // A's audited egress denies what B denies anyway: no difference for the flow.
    world.set_audit(0, Some(egress_only(chain(&[dns()], 20, 21))));
    world.send(A, B, true, udp(4000, 54));
    let kinds: Vec<_> = world.drain().iter().map(|e| e.kind).collect();
    assert!(matches!(kinds[..], [EventKind::Denied(_)]), "{kinds:?}");
    // B's audited ingress would accept what its enforced one denies; A's audit still would not.
    world.set_audit(
        1,
        Some(ingress_only(chain(
            &[dns(), port(Protocol::UDP, 54)],
            20,
            21,
        ))),
    );
    world.send(A, B, true, udp(4001, 54));
    assert_eq!(world.totals().counter(Counter::FlowsAudited), 0);
    world.set_audit(0, None);
    world.send(A, B, true, udp(4002, 54));
    assert_eq!(world.totals().counter(Counter::FlowsAudited), 1);
    let told = world
        .drain()
        .into_iter()
        .find_map(|event| match event.kind {
            EventKind::Audited { enforced, would } => Some((enforced.accept, would.accept)),
            _ => None,
        });
    assert_eq!(told, Some((false, true)));
    world.assert_balanced();
}

#[test]
fn one_of_so_many_new_flows_is_sampled_with_what_was_decided() {
    let mut world = world();
    world.parts.settings.sample_one_in = 4;
    world.publish();
    for from in 4000..4400 {
        // Half of them are denied, and later packets are no new flows.
        world.send(A, B, true, udp(from, 53 + from % 2));
        world.send(A, B, true, udp(from, 53 + from % 2));
        if from % 100 == 0 {
            world.send(Place::Node, B, true, udp(from, 99));
        }
    }
    let events = world.drain();
    let sampled: Vec<_> = (events.iter())
        .filter_map(|event| match event.kind {
            EventKind::Sampled(verdict) => Some((event, verdict)),
            _ => None,
        })
        .collect();
    assert!(sampled.len().abs_diff(101) <= 2, "{}", sampled.len());
    assert_eq!(
        world.totals().counter(Counter::FlowsSampled),
        sampled.len() as u64
    );
    for (event, verdict) in &sampled {
        let by_node = event.ingress_role == Role::HostNode;
        assert_eq!(verdict.accept, event.key.destination_port == 53 || by_node);
    }
    let denied = sampled
        .iter()
        .filter(|(_, verdict)| !verdict.accept)
        .count();
    assert!((30..70).contains(&denied), "{denied}");
    world.assert_balanced();
}

#[test]
fn samples_that_do_not_fit_are_not_lost_events() {
    let mut world = World::new(8192);
    world.parts.settings.sample_one_in = 1;
    world.publish();
    for from in 1000..3000 {
        world.send(A, B, true, udp(from, 53));
    }
    let totals = world.totals();
    assert_eq!(totals.counter(Counter::FlowsSampled), 2000);
    // The queue holds 4096.
    assert_eq!(totals.counter(Counter::SamplesLost), 2000 - 1024);
    assert_eq!(world.events.samples_lost(), 2000 - 1024);
    assert_eq!(totals.counter(Counter::EventsLost), 0);
    world.assert_balanced();
}

#[test]
fn a_pod_that_asks_for_many_next_hops_leaves_the_queue_to_others() {
    let mut world = World::new(8192);
    world.parts.neighbours.clear();
    world.set_policy(&[2], &ingress_only(chain(&[], 10, 11)));
    for from in 1000..5000 {
        let sent = world.send(A, Place::Outside, true, udp(from, 53));
        assert_eq!(sent.dropped(), Some(DropReason::NoNeighbour));
    }
    // Another pod's question, and a denial, still find room: half of 4096, and two as news.
    let asked = world.totals().counter(Counter::EventsLost);
    assert_eq!(asked, 4000 - 2048);
    world.send(B, Place::Outside, true, udp(4000, 53));
    world.send(A, Place::Pod(2), true, udp(4000, 53));
    let events = world.drain();
    let last = &events[events.len() - 2..];
    assert!(matches!(last[0].kind, EventKind::NeighbourMissing { .. }));
    assert_eq!(last[0].source, world.parts.endpoints[1].incarnation);
    assert!(matches!(last[1].kind, EventKind::Denied(_)));
    world.assert_balanced();
}

#[test]
fn peers_that_no_rule_names_count_for_the_default_denial() {
    let mut world = World::new(64);
    let mut policy = chain(&[], IN, IN_DENIED);
    let peers = addresses(&[pod_address(0, true)]);
    policy.rules.push(counted(&allow(9, peers, Ports::Any), IN));
    world.set_policy(&[1], &ingress_only(policy));
    world.send(A, B, true, Transport::EchoRequest(1));
    world.send(Place::Pod(2), B, true, Transport::EchoRequest(1));
    world.send(A, B, false, Transport::EchoRequest(1));
    assert_eq!(
        (hits(&world, IN), hits(&world, IN_DENIED)),
        ((1, 1), (2, 2))
    );
}
