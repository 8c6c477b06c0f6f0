//! Random endpoints, rules and packets: the table, the explanation and the specification agree.
//!
//! `WEIR_CASES` sets how many cases run.

use std::cell::RefCell;
use std::sync::Arc;

use ipnet::IpNet;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::super::ir::EndpointPolicy;
use super::super::naive::PeerSets;
use super::super::{EndpointSlot, Explanation, PeerMatch, PolicyTable, PortMatch, Question, naive};
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

/// Sets that rules may name.
pub(super) const SETS: u32 = 5;

/// Few addresses, so that prefixes nest, touch and overlap and packets fall on their edges.
pub(super) fn address() -> impl Strategy<Value = Address> + Clone {
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
    let set = (0..SETS).prop_map(PeerSetId);
    let of = (vec(block, 0..4), prop_oneof![Just(vec![]), vec(set, 0..3)]);
    let of = of.prop_map(|(blocks, sets)| Peers::Of {
        sets: sets.into(),
        blocks: blocks.into(),
    });
    prop_oneof![1 => Just(Peers::Any), 5 => of]
}

fn port() -> impl Strategy<Value = u16> + Clone {
    select(vec![0, 1, 2, 79, 80, 81, 82, 443, 65533, 65534, 65535])
}

/// Some of the protocols without ports, the least and the greatest number among them.
pub(super) const WITHOUT_PORTS: [Protocol; 5] = [
    Protocol(0),
    Protocol::ICMP,
    Protocol(47),
    Protocol::ICMPV6,
    Protocol(255),
];

fn protocol() -> impl Strategy<Value = Protocol> + Clone {
    let known = [Protocol::TCP, Protocol::UDP, Protocol::SCTP, Protocol::ICMP];
    prop_oneof![8 => select(known.to_vec()), 1 => select(WITHOUT_PORTS.to_vec())]
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
        Tier::SecurityGroup,
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
                Tier::SecurityGroup | Tier::NetworkPolicy => Action::Accept,
                _ => action,
            },
            peers,
            ports,
            counter: CounterId(u32::from(index) + 10 * policy),
        })
}

/// What binds and what isolates; which rules of a common pool a chain takes, and whether as they
/// are or as copies.
type Picks = (Vec<u32>, Vec<u32>, Vec<(Index, bool)>);

fn picks() -> impl Strategy<Value = Picks> {
    vec((any::<Index>(), any::<bool>()), 0..12).prop_flat_map(|rules| {
        let some = || prop_oneof![Just(vec![]), vec(0_u32..6, 1..3)];
        (
            prop_oneof![3 => Just(vec![]), 1 => some()],
            some(),
            Just(rules),
        )
    })
}

fn pick((bound, isolating, picks): &Picks, pool: &[Arc<Rule>]) -> Chain {
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
    Chain {
        bound: bound.iter().copied().map(isolation).collect(),
        ..chain(isolating, &rules)
    }
}

/// Several endpoints whose chains share rules.
pub(super) fn endpoints() -> impl Strategy<Value = Vec<EndpointPolicy>> {
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

/// Who is in which set.
fn members() -> impl Strategy<Value = PeerSets> {
    let member = ((0..SETS).prop_map(PeerSetId), address());
    vec(member, 0..12).prop_map(|members| {
        let mut sets = PeerSets::new();
        for (set, member) in members {
            sets.entry(set).or_default().insert(member);
        }
        sets
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
pub(super) fn run<S: Strategy>(strategy: S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    run_some(strategy, 1, test);
}

/// One of `of` as many.
pub(super) fn run_some<S: Strategy>(
    strategy: S,
    of: u32,
    test: impl Fn(S::Value) -> Result<(), TestCaseError>,
) {
    let cases = std::env::var("WEIR_CASES").ok();
    let config = Config {
        cases: cases
            .map_or(10_000_u32, |cases| cases.parse().unwrap())
            .div_ceil(of),
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
    sets: &PeerSets,
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
    let table = PolicyTable::compile_with(sets, &input);
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
        (endpoints(), members(), vec(packet(), 1..40)),
        |(endpoints, sets, packets)| {
            let (mut questions, mut expected) = (Vec::new(), Vec::new());
            let seen = RefCell::new((&mut questions, &mut expected));
            for_each(
                &sets,
                &endpoints,
                &packets,
                |table, slot, policy, direction, p| {
                    let peer = table.peer(p.peer);
                    let decided = table.decide(slot, direction, &peer, p.protocol, p.port);
                    let (protocol, port) = (p.protocol, p.port);
                    let by_rules = naive::decide(policy, &sets, direction, p.peer, protocol, port);
                    prop_assert_eq!(decided, by_rules, "{:?}", p);
                    prop_assert!(decided.verdict.accept || table.may_deny(slot, direction));
                    let mut seen = seen.borrow_mut();
                    seen.0.push(Question {
                        slot,
                        direction,
                        peer: p.peer,
                        protocol,
                        destination_port: port,
                    });
                    seen.1.push(by_rules);
                    Ok(())
                },
            )?;
            let slots = (0..).map(|slot| EndpointSlot(slot * 3));
            let input: Vec<_> = slots.zip(&endpoints).collect();
            let table = PolicyTable::compile_with(&sets, &input);
            let nobody = naive::accepted(Direction::Egress);
            let mut decided = vec![nobody; questions.len()];
            table.decide_batch(&questions, &mut decided);
            prop_assert_eq!(decided, expected);
            Ok(())
        },
    );
}

#[test]
fn explanations_agree_with_decisions() {
    run(
        (endpoints(), members(), vec(packet(), 1..20)),
        |(endpoints, sets, packets)| {
            for_each(
                &sets,
                &endpoints,
                &packets,
                |table, slot, policy, direction, p| {
                    let explained = table.explain(slot, direction, p.peer, p.protocol, p.port);
                    let (protocol, port) = (p.protocol, p.port);
                    let expected = naive::decide(policy, &sets, direction, p.peer, protocol, port);
                    prop_assert_eq!(explained.verdict, expected.verdict);
                    agrees(&explained, naive::chain(policy, direction), &sets, p)
                },
            )
        },
    );
}

/// Whether the rules' results lead to the verdict, and are true.
fn agrees(
    explained: &Explanation,
    chain: &Chain,
    sets: &PeerSets,
    p: &Packet,
) -> Result<(), TestCaseError> {
    let by = explained.verdict.provenance;
    let mut decided = false;
    for consulted in &explained.consulted {
        let tier = consulted.tier;
        prop_assert!(tier <= by.tier, "a tier after the decision");
        let every_rule = matches!(tier, Tier::SecurityGroup | Tier::NetworkPolicy);
        for result in &consulted.rules {
            let is_part = |rule: &&Arc<Rule>| {
                (rule.policy, rule.tier, rule.index) == (consulted.policy, tier, result.index)
            };
            let mut parts = chain.rules.iter().filter(is_part);
            let decides =
                (by.tier, by.policy, by.rule) == (tier, Some(consulted.policy), Some(result.index));
            let in_force = parts.any(|rule| naive::matches(rule, sets, p.peer, p.protocol, p.port));
            if result.matched() {
                prop_assert!(in_force);
                prop_assert!(
                    decides || every_rule || result.action == Action::Pass,
                    "{:?} matched and did not decide",
                    result
                );
                decided |= decides;
            } else if every_rule {
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
    if !chain.bound.is_empty() {
        for binding in &chain.bound {
            prop_assert!(
                explained
                    .consulted
                    .iter()
                    .any(|c| c.policy == binding.policy)
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
