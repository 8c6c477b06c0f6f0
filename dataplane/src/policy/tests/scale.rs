//! What sharing must save, counted rather than timed: `weir-bench policy` measures.

use super::super::ir::EndpointPolicy;
use super::super::{EndpointSlot, PolicyTable};
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
