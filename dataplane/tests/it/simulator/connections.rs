//! Connections and policy: what passes, what is cut, and what is told about it.

use dataplane::counters::Counter;
use dataplane::events::EventKind;
use dataplane::policy::ir::{EndpointPolicy, Peers, Ports};
use dataplane::snapshot::{Epoch, ExistingConnections, Generation, Incarnation, NodeEgress};
use dataplane::{Direction, DropReason, PolicyId, Protocol, Tier};

use super::packets::{ACK, RST, SYN, SYN_ACK, Transport, tcp, udp};
use super::policies::{addresses, allow, egress, ingress, port};
use super::world::{PODS, Place, SECOND, Sent, World, node, pod_address, pod_port};

const A: Place = Place::Pod(0);
const B: Place = Place::Pod(1);

fn deny_all() -> EndpointPolicy {
    ingress(9, vec![])
}

fn assert_passes(sent: &Sent, to: Place) {
    assert_eq!(sent.forwarded_to(), Some(to.port()), "{:?}", sent.outcome);
}

#[test]
fn without_policy_everything_passes_in_both_families() {
    let mut world = World::new(1024);
    for v4 in [true, false] {
        for (from, to) in [
            (A, B),
            (A, Place::Outside),
            (Place::Outside, B),
            (Place::Node, A),
        ] {
            assert_passes(&world.send(from, to, v4, udp(4000, 53)), to);
            assert_passes(&world.send(to, from, v4, udp(53, 4000)), from);
            assert_passes(&world.send(from, to, v4, tcp(4000, 80, SYN)), to);
            assert_passes(&world.send(to, from, v4, tcp(80, 4000, SYN_ACK)), from);
            assert_passes(&world.send(from, to, v4, Transport::EchoRequest(7)), to);
            assert_passes(&world.send(to, from, v4, Transport::EchoReply(7)), from);
        }
    }
    world.assert_balanced();
    assert!(world.drain().is_empty());
    assert_eq!(world.totals().counter(Counter::FlowsAccepted), 24);
}

#[test]
fn two_pods_ping_each_other_under_one_identifier() {
    let mut world = World::new(64);
    for v4 in [true, false] {
        assert_passes(&world.send(A, B, v4, Transport::EchoRequest(7)), B);
        assert_passes(&world.send(B, A, v4, Transport::EchoRequest(7)), A);
        assert_passes(&world.send(A, B, v4, Transport::EchoReply(7)), B);
        assert_passes(&world.send(B, A, v4, Transport::EchoReply(7)), A);
    }
    // Two flows each, and each is judged by itself: an answer needs its own question.
    assert_eq!(world.totals().counter(Counter::FlowsAccepted), 4);
    world.set_policy(&[0], &deny_all());
    assert_passes(&world.send(B, A, true, Transport::EchoReply(7)), A);
    let ping = world.send(B, A, true, Transport::EchoRequest(7));
    assert_eq!(ping.dropped(), Some(DropReason::PolicyDenied));
    let stray = world.send(B, A, true, Transport::EchoReply(8));
    assert_eq!(stray.dropped(), Some(DropReason::ConntrackInvalid));
    let denied: Vec<_> = (world.drain().into_iter())
        .filter(|event| matches!(event.kind, EventKind::Denied(_)))
        .map(|event| (event.key.source_port, event.key.destination_port))
        .collect();
    assert_eq!(denied, [(7, 0)]);
    world.assert_balanced();
}

#[test]
fn icmps_other_queries_pass_by_rules_for_any_port() {
    let mut world = World::new(64);
    let timestamp = |kind: u8| {
        let spec = World::new(8).spec(A, B, true, Transport::EchoRequest(7));
        let mut bytes = super::packets::build(&spec);
        bytes[34] = kind;
        bytes
    };
    let (question, port) = (timestamp(13), pod_port(0));
    world.set_policy(&[1], &deny_all());
    let denied = world.send_bytes(port, &question);
    assert_eq!(denied.dropped(), Some(DropReason::PolicyDenied));
    let anything = allow(9, addresses(&[pod_address(0, true)]), Ports::Any);
    world.set_policy(&[1], &ingress(9, vec![anything]));
    assert_passes(&world.send_bytes(port, &question), B);
    world.assert_balanced();
}

#[test]
fn a_denial_drops_both_directions_and_is_announced_once_with_its_policy() {
    let mut world = World::new(1024);
    world.set_policy(&[1], &deny_all());
    let first = world.send(A, B, true, udp(4000, 53));
    assert_eq!(first.dropped(), Some(DropReason::PolicyDenied));
    let again = world.send(A, B, true, udp(4000, 53));
    assert_eq!(again.dropped(), Some(DropReason::ConnectionDenied));
    // The server cannot open it from its side either (D2), though its egress is free.
    let back = world.send(B, A, true, udp(53, 4000));
    assert_eq!(back.dropped(), Some(DropReason::ConnectionDenied));
    let events = world.drain();
    assert_eq!(events.len(), 3);
    let EventKind::Denied(verdict) = events[0].kind else {
        panic!("{:?}", events[0])
    };
    assert_eq!(verdict.provenance.direction, Direction::Ingress);
    assert_eq!(verdict.provenance.tier, Tier::NetworkPolicy);
    assert_eq!(verdict.provenance.policy, Some(PolicyId(9)));
    for event in &events {
        assert_eq!(event.key.source, pod_address(0, true));
        assert_eq!(
            (event.source, event.destination),
            (Incarnation(1), Incarnation(2))
        );
        assert_eq!(event.generation, world.snapshot.generation());
    }
    assert!(
        events[1..]
            .iter()
            .all(|e| e.kind == EventKind::DeniedAgain(verdict))
    );
    assert_eq!(events[2].ingress, pod_port(1));
    // Another flow the other way is nobody's business.
    assert_passes(&world.send(B, A, true, udp(53, 4001)), A);
    world.assert_balanced();
}

#[test]
fn replies_pass_an_isolated_client_and_only_its_own() {
    let mut world = World::new(1024);
    world.set_policy(&[0], &deny_all());
    assert_passes(&world.send(A, B, false, tcp(4000, 80, SYN)), B);
    assert_passes(&world.send(B, A, false, tcp(80, 4000, SYN_ACK)), A);
    assert_passes(&world.send(A, B, false, tcp(4000, 80, ACK)), B);
    assert_passes(&world.send(B, A, false, tcp(80, 4000, ACK)), A);
    let stray = world.send(B, A, false, tcp(80, 4001, SYN_ACK));
    assert_eq!(stray.dropped(), Some(DropReason::ConntrackInvalid));
    let opening = world.send(B, A, false, tcp(80, 4002, SYN));
    assert_eq!(opening.dropped(), Some(DropReason::PolicyDenied));
}

#[test]
fn ports_and_peers_decide_and_echo_needs_a_rule_for_any_port() {
    let mut world = World::new(1024);
    let c = Place::Pod(2);
    let rule = allow(
        9,
        addresses(&[pod_address(0, true)]),
        port(Protocol::TCP, 80),
    );
    world.set_policy(&[1], &ingress(9, vec![rule]));
    assert_passes(&world.send(A, B, true, tcp(4000, 80, SYN)), B);
    for (from, v4, packet) in [
        (A, true, tcp(4000, 81, SYN)),
        (A, true, udp(4000, 80)),
        (A, true, Transport::EchoRequest(1)),
        (A, false, tcp(4000, 80, SYN)),
        (c, true, tcp(4000, 80, SYN)),
    ] {
        let sent = world.send(from, B, v4, packet);
        assert_eq!(sent.dropped(), Some(DropReason::PolicyDenied));
    }
    let any = allow(9, addresses(&[pod_address(2, true)]), Ports::Any);
    world.set_policy(&[1], &ingress(9, vec![any]));
    assert_passes(&world.send(c, B, true, Transport::EchoRequest(2)), B);
    assert_passes(&world.send(B, c, true, Transport::EchoReply(2)), c);
}

#[test]
fn newer_policy_cuts_and_reopens_live_connections_from_either_side() {
    for reply_first in [false, true] {
        let mut world = World::new(1024);
        assert_passes(&world.send(A, B, true, udp(4000, 53)), B);
        assert_passes(&world.send(B, A, true, udp(53, 4000)), A);
        world.set_policy(&[1], &deny_all());
        let cut = if reply_first {
            world.send(B, A, true, udp(53, 4000))
        } else {
            world.send(A, B, true, udp(4000, 53))
        };
        assert_eq!(cut.dropped(), Some(DropReason::PolicyDenied));
        let events = world.drain();
        assert_eq!(events.len(), 1);
        assert!(matches!(events[0].kind, EventKind::Denied(_)));
        assert_eq!(
            events[0].key.source,
            pod_address(0, true),
            "the initiator's orientation"
        );
        let after = world.send(A, B, true, udp(4000, 53));
        assert_eq!(after.dropped(), Some(DropReason::ConnectionDenied));
        world.set_policy(&[1], &EndpointPolicy::default());
        assert_passes(&world.send(A, B, true, udp(4000, 53)), B);
        assert_passes(&world.send(B, A, true, udp(53, 4000)), A);
        assert_eq!(world.totals().counter(Counter::Redecided), 2);
        assert_eq!(world.totals().counter(Counter::RedecidedDenied), 1);
    }
}

#[test]
fn keep_spares_live_connections_but_no_new_ones() {
    let mut world = World::new(1024);
    world.parts.settings.existing_connections = ExistingConnections::Keep;
    assert_passes(&world.send(A, B, true, udp(4000, 53)), B);
    world.set_policy(&[1], &deny_all());
    assert_passes(&world.send(A, B, true, udp(4000, 53)), B);
    assert_passes(&world.send(B, A, true, udp(53, 4000)), A);
    let fresh = world.send(A, B, true, udp(4001, 53));
    assert_eq!(fresh.dropped(), Some(DropReason::PolicyDenied));
    // What was denied is decided again under `keep`, too.
    world.set_policy(&[1], &EndpointPolicy::default());
    assert_passes(&world.send(A, B, true, udp(4001, 53)), B);
}

#[test]
fn a_syn_on_a_denied_connection_is_a_fresh_decision() {
    let mut world = World::new(1024);
    world.set_policy(&[1], &deny_all());
    let syn = world.send(A, B, true, tcp(4000, 80, SYN));
    assert_eq!(syn.dropped(), Some(DropReason::PolicyDenied));
    assert_passes(&world.send(B, A, true, tcp(80, 4000, SYN)), A);
    assert_passes(&world.send(A, B, true, tcp(4000, 80, SYN_ACK)), B);
}

#[test]
fn the_node_reaches_its_pods_and_what_it_forwards_does_not() {
    let mut world = World::new(1024);
    world.set_policy(&[0], &deny_all());
    for v4 in [true, false] {
        assert_passes(&world.send(Place::Node, A, v4, tcp(4000, 80, SYN)), A);
        assert_passes(
            &world.send(A, Place::Node, v4, tcp(80, 4000, SYN_ACK)),
            Place::Node,
        );
        let forwarded = world.send(Place::Transit, A, v4, tcp(4000, 80, SYN));
        assert_eq!(forwarded.dropped(), Some(DropReason::PolicyDenied));
        // Masqueraded by the node: its own address, but not its own words (D13).
        let mut spec = world.spec(Place::Transit, A, v4, tcp(4001, 80, SYN));
        spec.source = node(v4);
        let bytes = super::packets::build(&spec);
        let masqueraded = world.send_bytes(Place::Transit.port(), &bytes);
        assert_eq!(masqueraded.dropped(), Some(DropReason::PolicyDenied));
    }
    // Newer policy does not cut what the node opened.
    world.set_policy(&[0], &ingress(10, vec![]));
    assert_passes(
        &world.send(A, Place::Node, true, tcp(80, 4000, ACK)),
        Place::Node,
    );
}

#[test]
fn a_pod_reaches_its_node_by_policy_or_by_the_setting() {
    let mut world = World::new(1024);
    world.set_policy(&[0], &egress(9, vec![]));
    let denied = world.send(A, Place::Node, true, tcp(4000, 10250, SYN));
    assert_eq!(denied.dropped(), Some(DropReason::PolicyDenied));
    world.parts.settings.node_egress = NodeEgress::Allow;
    world.publish();
    assert_passes(
        &world.send(A, Place::Node, true, tcp(4001, 10250, SYN)),
        Place::Node,
    );
    let outside = world.send(A, Place::Outside, true, tcp(4001, 10250, SYN));
    assert_eq!(outside.dropped(), Some(DropReason::PolicyDenied));
}

#[test]
fn tcp_without_syn_opens_nothing_where_policy_may_deny() {
    let mut world = World::new(1024);
    let web = allow(9, Peers::Any, port(Protocol::TCP, 80));
    world.set_policy(&[1], &ingress(9, vec![web]));
    for flags in [ACK, RST, SYN_ACK] {
        let sent = world.send(A, B, true, tcp(4000, 80, flags));
        assert_eq!(
            sent.dropped(),
            Some(DropReason::ConntrackInvalid),
            "{flags:?}"
        );
    }
    assert_eq!(world.conntrack.counters().entries, 0);
    // In the adoption window a segment from the middle is taken on, where policy allows it.
    world.conntrack.adopt_until(world.now.plus_seconds(10));
    assert_passes(&world.send(A, B, true, tcp(4000, 80, ACK)), B);
    assert_passes(&world.send(B, A, true, tcp(80, 4000, ACK)), A);
    let reset = world.send(A, B, true, tcp(4001, 80, RST));
    assert_eq!(reset.dropped(), Some(DropReason::ConntrackInvalid));
    assert_eq!(world.totals().counter(Counter::Adopted), 1);
}

#[test]
fn a_new_pod_with_an_old_address_inherits_nothing() {
    let mut world = World::new(1024);
    assert_passes(&world.send(A, B, true, tcp(4000, 80, SYN)), B);
    assert_passes(&world.send(B, A, true, tcp(80, 4000, SYN_ACK)), A);
    let next = Generation(world.parts.generation.0 + 1);
    world.parts.endpoints[1].incarnation = Incarnation(77);
    world.parts.epochs[1] = Epoch::from(next);
    world.parts.settings.existing_connections = ExistingConnections::Keep;
    world.policies[1] = deny_all();
    world.publish();
    let stale = world.send(A, B, true, tcp(4000, 80, ACK));
    assert_eq!(stale.dropped(), Some(DropReason::ConntrackInvalid));
}

#[test]
fn a_full_table_drops_new_flows_of_whom_policy_restricts_and_nobody_else() {
    let mut world = World::new(8);
    let dns = allow(9, Peers::Any, port(Protocol::UDP, 53));
    world.set_policy(&[1], &ingress(9, vec![dns]));
    // Replied flows are not evicted for new ones.
    let mut opened = 0u16;
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
    assert!((4..=8).contains(&opened), "{opened}");
    let refused = world.send(A, B, true, udp(5000, 53));
    let limits = [DropReason::ConntrackFull, DropReason::ConntrackQuota];
    assert!(
        refused.dropped().is_some_and(|r| limits.contains(&r)),
        "{refused:?}"
    );
    let c = Place::Pod(2);
    assert_passes(&world.send(A, c, true, tcp(5000, 80, SYN)), c);
    assert_passes(&world.send(c, A, true, tcp(80, 5000, SYN_ACK)), A);
    assert!(world.totals().counter(Counter::Untracked) >= 2);
    world.assert_balanced();
}

#[test]
fn idle_connections_end_and_denied_ones_with_them() {
    let mut world = World::new(1024);
    assert_passes(&world.send(A, B, true, udp(4000, 53)), B);
    world.set_policy(&[0], &deny_all());
    assert_passes(&world.send(B, A, true, udp(53, 4000)), A);
    world.now = world.now.plus_nanos(1000 * SECOND);
    let late = world.send(B, A, true, udp(53, 4000));
    assert_eq!(late.dropped(), Some(DropReason::PolicyDenied));
}

#[test]
fn every_pod_reaches_itself_whatever_policy_says() {
    let mut world = World::new(1024);
    let mut policy = deny_all();
    policy.egress = egress(9, vec![]).egress;
    world.set_policy(&(0..PODS).collect::<Vec<_>>(), &policy);
    assert_passes(&world.send(A, A, true, udp(4000, 53)), A);
    assert_eq!(
        world.send(A, B, true, udp(4000, 53)).dropped(),
        Some(DropReason::PolicyDenied)
    );
}

#[test]
fn what_a_pod_has_sent_is_never_taken_for_the_nodes_own() {
    let mut world = World::new(64);
    assert_passes(&world.send(A, B, true, udp(4000, 53)), B);
    // As after a restart that gave the pod's port number to the host port: the server's answer is
    // judged as its initiator's connection, which policy denies by now.
    let node = world
        .parts
        .ports
        .iter()
        .position(|p| p.id == Place::Node.port());
    let taken = world.parts.ports[node.unwrap()].clone();
    world.parts.ports[node.unwrap()].id = pod_port(0);
    let moved = dataplane::snapshot::PortId(90);
    world.parts.ports[0].id = moved;
    world.parts.endpoints[0].port = moved;
    assert_eq!(taken.role, dataplane::snapshot::Role::HostNode);
    world.set_policy(&[1], &deny_all());
    let back = world.send(B, A, true, udp(53, 4000));
    assert_eq!(back.dropped(), Some(DropReason::PolicyDenied));
}
