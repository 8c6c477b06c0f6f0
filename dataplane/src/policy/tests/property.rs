//! Random endpoints, rules and packets: the table, the explanation and the specification agree.
//!
//! `WEIR_CASES` sets how many cases run.

use std::sync::Arc;

use ipnet::IpNet;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::super::ir::EndpointPolicy;
use super::super::{EndpointSlot, Explanation, PeerMatch, PolicyTable, PortMatch, naive};
use super::*;
use crate::{Address, Direction};

/// Where IPv4 ends and IPv6 goes on, and both ends of both.
const EDGES: [Address; 6] = [
    Address::v6(0),
    Address::v6((0xffff_u128 << 32) - 1),
    Address::v4(0),
    Address::v4(u32::MAX),
    Address::v6(1 << 48),
    Address::v6(u128::MAX),
];

/// Few addresses, so that prefixes nest, touch and overlap and packets fall on their edges.
fn address() -> impl Strategy<Value = Address> + Clone {
    let v4 = (0_u32..34).prop_map(|host| Address::v4(0x0a00_0000 + host));
    let v6 = (0_u128..34).prop_map(|host| Address::v6((0xfd00 << 112) + host));
    prop_oneof![4 => v4, 4 => v6, 1 => select(EDGES.to_vec())]
}

/// Prefixes of every kind: hosts, nested ones, whole families, and ones that are not canonical.
fn prefix() -> impl Strategy<Value = IpNet> + Clone {
    let lengths = [32, 31, 30, 29, 28, 27, 32, 31, 30, 1, 0];
    let of = |(address, from_end, canonical): (Address, u8, bool)| {
        let (length, all) = (32 - from_end, address.is_v4());
        let length = match (all, length) {
            (true, _) => length,
            (false, 0 | 1) => length,
            (false, _) => 128 - from_end,
        };
        let net = IpNet::new(address.to_ip(), length).unwrap();
        if canonical { net.trunc() } else { net }
    };
    let usual = (
        address(),
        select(lengths.map(|length| 32 - length).to_vec()),
        prop::bool::weighted(0.9),
    );
    let around_v4 = [
        "::/80",
        "::/81",
        "::ffff:0:0/96",
        "::ffff:10.0.0.0/120",
        "::fffe:0:0/95",
    ];
    prop_oneof![
        12 => usual.prop_map(of),
        1 => select(around_v4.map(|net| net.parse().unwrap()).to_vec()),
    ]
}

fn peers() -> impl Strategy<Value = Peers> + Clone {
    let block =
        (prefix(), vec(prefix(), 0..3)).prop_map(|(prefix, except)| Block { prefix, except });
    let set = vec(block, 0..4).prop_map(|blocks| Peers::blocks(blocks));
    prop_oneof![1 => Just(Peers::Any), 5 => set]
}

fn port() -> impl Strategy<Value = u16> + Clone {
    select(vec![0, 1, 2, 79, 80, 81, 82, 443, 65533, 65534, 65535])
}

fn protocol() -> impl Strategy<Value = Protocol> + Clone {
    let known = [Protocol::TCP, Protocol::UDP, Protocol::SCTP, Protocol::ICMP];
    prop_oneof![8 => select(known.to_vec()), 1 => any::<u8>().prop_map(Protocol)]
}

fn some_ports() -> impl Strategy<Value = Ports> + Clone {
    let range = (protocol(), port(), port()).prop_map(|(protocol, first, last)| PortRange {
        protocol,
        first,
        last,
    });
    let list = vec(range, 0..5).prop_map(|ranges| Ports::List(ranges.into()));
    prop_oneof![1 => Just(Ports::Any), 3 => list]
}

fn any_rule() -> impl Strategy<Value = Rule> + Clone {
    let tiers = [
        Tier::Admin,
        Tier::NetworkPolicy,
        Tier::NetworkPolicy,
        Tier::Baseline,
    ];
    let actions = [Action::Accept, Action::Deny, Action::Pass];
    (
        (0_u32..6, 0_u16..4),
        select(tiers.to_vec()),
        select(actions.to_vec()),
        peers(),
        some_ports(),
    )
        .prop_map(|((policy, index), tier, action, peers, ports)| Rule {
            policy: PolicyId(policy),
            index,
            tier,
            action: match tier {
                Tier::NetworkPolicy => Action::Accept,
                _ => action,
            },
            peers,
            ports,
            counter: CounterId(u32::from(index) + 10 * policy),
        })
}

/// Which rules of a common pool a chain takes, and whether as they are or as copies.
type Picks = (Vec<u32>, Vec<(Index, bool)>);

fn picks() -> impl Strategy<Value = Picks> {
    vec((any::<Index>(), any::<bool>()), 0..12).prop_flat_map(|rules| {
        let isolating = prop_oneof![Just(vec![]), vec(0_u32..6, 1..3)];
        (isolating, Just(rules))
    })
}

fn pick((isolating, picks): &Picks, pool: &[Arc<Rule>]) -> Chain {
    let mut rules: Vec<Arc<Rule>> = picks
        .iter()
        .map(|(index, copy)| {
            let rule = index.get(pool);
            if *copy {
                Arc::new(Rule::clone(rule))
            } else {
                Arc::clone(rule)
            }
        })
        .collect();
    rules.sort_by_key(|rule| rule.tier);
    chain(isolating, &rules)
}

/// Several endpoints whose chains share rules.
fn endpoints() -> impl Strategy<Value = Vec<EndpointPolicy>> {
    let pool = vec(any_rule(), 1..16);
    (pool, vec((picks(), picks()), 1..4)).prop_map(|(pool, chains)| {
        let pool: Vec<Arc<Rule>> = pool.into_iter().map(Arc::new).collect();
        let policy = |(ingress, egress): &(Picks, Picks)| EndpointPolicy {
            ingress: pick(ingress, &pool),
            egress: pick(egress, &pool),
        };
        chains.iter().map(policy).collect()
    })
}

#[derive(Clone, Debug)]
struct Packet {
    peer: Address,
    protocol: Protocol,
    port: Option<u16>,
}

fn packet() -> impl Strategy<Value = Packet> {
    let port = prop_oneof![9 => port().prop_map(Some), 1 => Just(None)];
    (address(), protocol(), port).prop_map(|(peer, protocol, port)| Packet {
        peer,
        protocol,
        port,
    })
}

/// Same cases every time; more of them with `WEIR_CASES`.
fn run<S: Strategy>(strategy: S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let cases = std::env::var("WEIR_CASES").ok();
    let config = Config {
        cases: cases.map_or(10_000, |cases| cases.parse().unwrap()),
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    if let Err(failure) = TestRunner::new_with_rng(config, rng).run(&strategy, test) {
        panic!("{failure}");
    }
}

/// Every endpoint and direction, with what one packet means to each.
fn for_each(
    endpoints: &[EndpointPolicy],
    packets: &[Packet],
    check: impl Fn(
        &PolicyTable,
        EndpointSlot,
        &EndpointPolicy,
        Direction,
        &Packet,
    ) -> Result<(), TestCaseError>,
) -> Result<(), TestCaseError> {
    let slots = || (0..).map(|slot| EndpointSlot(slot * 3));
    let input: Vec<_> = slots().zip(endpoints).collect();
    let table = PolicyTable::compile(&input);
    for (slot, policy) in slots().zip(endpoints) {
        for direction in [Direction::Egress, Direction::Ingress] {
            for packet in packets {
                check(&table, slot, policy, direction, packet)?;
            }
        }
    }
    Ok(())
}

#[test]
fn the_table_decides_as_the_specification() {
    run(
        (endpoints(), vec(packet(), 1..40)),
        |(endpoints, packets)| {
            for_each(&endpoints, &packets, |table, slot, policy, direction, p| {
                let peer = table.peer(p.peer);
                let decided = table.decide(slot, direction, &peer, p.protocol, p.port);
                let sets = naive::PeerSets::new();
                let expected = naive::decide(policy, &sets, direction, p.peer, p.protocol, p.port);
                prop_assert_eq!(decided, expected, "{:?}", p);
                prop_assert!(decided.verdict.accept || table.may_deny(slot, direction));
                Ok(())
            })
        },
    );
}

#[test]
fn explanations_agree_with_decisions() {
    run(
        (endpoints(), vec(packet(), 1..20)),
        |(endpoints, packets)| {
            for_each(&endpoints, &packets, |table, slot, policy, direction, p| {
                let explained = table.explain(slot, direction, p.peer, p.protocol, p.port);
                let sets = naive::PeerSets::new();
                let expected = naive::decide(policy, &sets, direction, p.peer, p.protocol, p.port);
                let expected = expected.verdict;
                prop_assert_eq!(explained.verdict, expected);
                agrees(&explained, naive::chain(policy, direction), p)
            })
        },
    );
}

/// Whether the rules' results lead to the verdict, and are true.
fn agrees(explained: &Explanation, chain: &Chain, p: &Packet) -> Result<(), TestCaseError> {
    let by = explained.verdict.provenance;
    let mut decided = false;
    for consulted in &explained.consulted {
        let tier = consulted.tier;
        prop_assert!(tier <= by.tier, "a tier after the decision");
        for result in &consulted.rules {
            let is_part = |rule: &&Arc<Rule>| {
                (rule.policy, rule.tier, rule.index) == (consulted.policy, tier, result.index)
            };
            let mut parts = chain.rules.iter().filter(is_part);
            let decides =
                (by.tier, by.policy, by.rule) == (tier, Some(consulted.policy), Some(result.index));
            let in_force = parts.any(|rule| {
                naive::matches(rule, &naive::PeerSets::new(), p.peer, p.protocol, p.port)
            });
            if result.matched() {
                prop_assert!(in_force);
                prop_assert!(
                    decides || tier == Tier::NetworkPolicy || result.action == Action::Pass,
                    "{:?} matched and did not decide",
                    result
                );
                decided |= decides;
            } else if tier == Tier::NetworkPolicy {
                prop_assert!(!in_force);
            }
            check_miss(&result.peer, &result.port, p)?;
        }
    }
    prop_assert_eq!(decided, by.rule.is_some());
    if by.tier == Tier::NetworkPolicy {
        for isolating in &chain.isolating {
            prop_assert!(
                explained
                    .consulted
                    .iter()
                    .any(|c| c.policy == isolating.policy)
            );
        }
    }
    for (_, miss) in explained.nearest_misses() {
        prop_assert!(!explained.verdict.accept && !miss.matched());
    }
    Ok(())
}

/// Whether what a rule is said to have missed by is so.
fn check_miss(peer: &PeerMatch, port: &PortMatch, p: &Packet) -> Result<(), TestCaseError> {
    if let PeerMatch::Excepted { prefix, except } = peer {
        let ip = p.peer.to_ip();
        prop_assert!(prefix.contains(&ip) && except.contains(&ip));
    }
    if let PortMatch::Wanted(ranges) = port {
        let wanted = Ports::List(ranges.as_slice().into());
        prop_assert!(!naive::matches_port(&wanted, p.protocol, p.port));
    }
    Ok(())
}
