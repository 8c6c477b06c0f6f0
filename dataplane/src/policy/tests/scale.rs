//! What sharing must save, counted rather than timed: `weir-bench policy` measures.

use super::super::ir::EndpointPolicy;
use super::super::naive::{self, PeerSets};
use super::super::{Compiler, EndpointSlot, PolicyTable, Question};
use super::*;
use crate::{Address, Direction, Verdict};

/// A /24 of its own.
fn own_prefix(i: u32) -> Peers {
    peers(&[&format!(
        "{}.{}.{}.0/24",
        20 + (i >> 16),
        i >> 8 & 255,
        i & 255
    )])
}

fn compile(policies: &[EndpointPolicy]) -> PolicyTable {
    let slots = (0..).map(EndpointSlot);
    PolicyTable::compile(&slots.zip(policies).collect::<Vec<_>>())
}

#[test]
fn endpoints_with_equal_policies_share_their_chains() {
    // Equal in content, nothing shared.
    let policy = |_| EndpointPolicy {
        ingress: chain(
            &[0],
            &(0..1000)
                .map(|i| allow(i, 0, own_prefix(i), ports(&[(Protocol::TCP, 80, 80)])))
                .collect::<Vec<_>>(),
        ),
        egress: Chain::default(),
    };
    let copies: Vec<EndpointPolicy> = (0..100).map(policy).collect();
    let (one, many) = (compile(&copies[..1]), compile(&copies));
    assert_eq!(many.footprint().chains, 2);
    assert!(many.footprint().bytes < one.footprint().bytes + 100 * 64);
}

#[test]
fn memory_grows_with_the_edges_and_not_with_their_product() {
    // Each endpoint has ten prefixes of its own; all together cut the number line.
    let endpoints = |count: u32| {
        let policy = |e: u32| {
            let own = (0..10).map(|i| allow(e, 0, own_prefix(e * 10 + i), Ports::Any));
            EndpointPolicy {
                ingress: chain(&[e], &own.collect::<Vec<_>>()),
                egress: Chain::default(),
            }
        };
        compile(&(0..count).map(policy).collect::<Vec<_>>()).footprint()
    };
    let (small, large) = (endpoints(50), endpoints(500));
    assert_eq!(large.chains, 501);
    assert!(large.bytes < 12 * small.bytes, "{small:?} {large:?}");
}

#[test]
fn everything_but_one_prefix_by_a_thousand_policies() {
    // Every class is in all sets but one: the case that explicit lists of sets do not survive.
    let rules: Vec<_> = (0..1000)
        .map(|i| {
            let but = format!("10.{}.{}.0/24", i >> 8, i & 255);
            let but = Peers::blocks([block("0.0.0.0/0", &[&but])]);
            let port = 1000 + i as u16;
            allow(i, 0, but, ports(&[(Protocol::TCP, port, port)]))
        })
        .collect();
    let policy = EndpointPolicy {
        ingress: chain(&[0], &rules),
        egress: Chain::default(),
    };
    let table = compile(&[policy]);
    let accept = |peer: u32, port| -> Verdict {
        let peer = table.peer(Address::v4(peer));
        let port = Some(port);
        table
            .decide(
                EndpointSlot(0),
                Direction::Ingress,
                &peer,
                Protocol::TCP,
                port,
            )
            .verdict
    };
    for i in 0..1000_u16 {
        let inside = 0x0a00_0000 + (u32::from(i) << 8);
        assert!(!accept(inside, 1000 + i).accept);
        assert!(accept(inside, 1000 + (i + 1) % 1000).accept);
    }
}

/// Twenty rules for 10.0.0.0/8, and one more for each prefix within it.
fn nested() -> Vec<Arc<Rule>> {
    let tcp = |first, last| ports(&[(Protocol::TCP, first, last)]);
    let outer = (0..20).map(|i| {
        let port = 1000 + i * 10;
        allow(0, i, peers(&["10.0.0.0/8"]), tcp(port, port))
    });
    let inner = (9..=32).map(|length| {
        let own = peers(&[&format!("10.77.3.9/{length}")
            .parse::<ipnet::IpNet>()
            .unwrap()
            .trunc()
            .to_string()]);
        // Some cover ports of the rules around them.
        let first = 900 + length * 7;
        allow(1, length, own, tcp(first, first + length % 3 * 20))
    });
    outer.chain(inner).collect()
}

#[test]
fn prefixes_within_each_other_decide_as_the_rules_read() {
    let policy = EndpointPolicy {
        ingress: chain(&[0], &nested()),
        egress: Chain::default(),
    };
    let table = compile(std::slice::from_ref(&policy));
    let around = (0..32).map(|bit| 0x0a4d_0309_u32 ^ 1 << bit);
    let questions: Vec<Question> = around
        .chain([0x0a4d_0309])
        .flat_map(|peer| (890..1210).map(move |port| (peer, port)))
        .map(|(peer, port)| Question {
            slot: EndpointSlot(0),
            direction: Direction::Ingress,
            peer: Address::v4(peer),
            protocol: Protocol::TCP,
            destination_port: Some(port),
        })
        .collect();
    let expected: Vec<Decision> = questions
        .iter()
        .map(|of| {
            let (sets, port) = (PeerSets::new(), of.destination_port);
            naive::decide(&policy, &sets, of.direction, of.peer, of.protocol, port)
        })
        .collect();
    let mut decisions = vec![expected[0]; questions.len()];
    table.decide_batch(&questions, &mut decisions);
    for ((question, expected), decision) in questions.iter().zip(&expected).zip(&decisions) {
        assert_eq!(decision, expected, "{question:?}");
        let peer = table.peer(question.peer);
        let (slot, direction) = (question.slot, question.direction);
        let port = question.destination_port;
        let single = table.decide(slot, direction, &peer, question.protocol, port);
        assert_eq!(single, *expected, "{question:?}");
    }
}

#[test]
fn a_member_whose_line_is_told_in_another_way_changes_nothing() {
    let mut rules = nested();
    let port = |port| ports(&[(Protocol::TCP, port, port)]);
    // What 10.0.0.0/8 may do anyway, and something new.
    rules.push(allow(2, 0, Peers::sets([PeerSetId(1)]), port(1000)));
    rules.push(allow(2, 1, Peers::sets([PeerSetId(2)]), port(22)));
    let mut compiler = Compiler::new();
    let id = compiler.chain(Direction::Ingress, &chain(&[0], &rules));
    for peer in [0x0a4d_0309, 0x0a4d_0000, 0x0a01_0000] {
        let peer = Address::v4(peer);
        compiler.add_member(PeerSetId(1), peer);
        assert_eq!(compiler.settle(), []);
        compiler.add_member(PeerSetId(2), peer);
        assert_eq!(compiler.settle(), [id]);
        compiler.remove_member(PeerSetId(2), peer);
        assert_eq!(compiler.settle(), [id]);
    }
}
