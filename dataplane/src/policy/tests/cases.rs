//! Named cases. The numbers are those of the bug list that the semantics come with.

use super::super::ir::EndpointPolicy;
use super::super::{
    Compiler, EndpointSlot, Explanation, PeerMatch, PolicyTable, PortMatch, Question, Slot, naive,
};
use super::*;
use crate::{Address, Direction, Verdict};

const TCP: Protocol = Protocol::TCP;

fn address(text: &str) -> Address {
    text.parse::<std::net::IpAddr>().unwrap().into()
}

fn table(ingress: Chain) -> PolicyTable {
    let policy = EndpointPolicy {
        ingress,
        egress: Chain::default(),
    };
    PolicyTable::compile(&[(EndpointSlot(0), &policy)])
}

fn ingress(table: &PolicyTable, peer: &str, protocol: Protocol, port: Option<u16>) -> Verdict {
    let peer = table.peer(address(peer));
    let decision = table.decide(EndpointSlot(0), Direction::Ingress, &peer, protocol, port);
    decision.verdict
}

fn accepts(table: &PolicyTable, peer: &str, port: u16) -> bool {
    ingress(table, peer, TCP, Some(port)).accept
}

fn explain(table: &PolicyTable, peer: &str, port: u16) -> Explanation {
    let peer = address(peer);
    table.explain(EndpointSlot(0), Direction::Ingress, peer, TCP, Some(port))
}

#[test]
fn an_endpoint_without_policies_accepts_by_default() {
    let table = table(Chain::default());
    let verdict = ingress(&table, "10.0.0.1", TCP, Some(80));
    assert_eq!(verdict, Verdict::default_accept(Direction::Ingress));
    assert!(!table.may_deny(EndpointSlot(0), Direction::Ingress));
}

#[test]
fn a_slot_without_policy_drops() {
    let table = table(Chain::default());
    for (table, slot) in [
        (&table, 1),
        (&table, u16::MAX),
        (&PolicyTable::default(), 0),
    ] {
        let slot = EndpointSlot(slot);
        let peer = table.peer(address("10.0.0.1"));
        let verdict = table
            .decide(slot, Direction::Egress, &peer, TCP, Some(80))
            .verdict;
        assert!(!verdict.accept);
        assert_eq!(verdict.provenance.tier, Tier::Default);
        assert_eq!(verdict.provenance.policy, None);
        assert!(!table.contains(slot));
        assert!(table.may_deny(slot, Direction::Egress));
        let explained = table.explain(slot, Direction::Egress, Address::v4(1), TCP, Some(80));
        assert_eq!((explained.verdict, explained.consulted.len()), (verdict, 0));
    }
}

#[test]
fn a_slot_given_twice_drops() {
    let open = EndpointPolicy::default();
    let [a, b] = [EndpointSlot(0), EndpointSlot(1)];
    let table = PolicyTable::compile(&[(a, &open), (b, &open), (a, &open), (a, &open)]);
    assert!(!table.contains(a) && table.contains(b));
}

#[test]
fn isolation_denies_and_names_the_first_policy() {
    let table = table(chain(&[7, 3], &[]));
    let verdict = ingress(&table, "10.0.0.1", TCP, Some(80));
    assert!(!verdict.accept);
    assert_eq!(verdict.provenance.policy, Some(PolicyId(7)));
    assert_eq!(verdict.provenance.rule, None);
    assert!(table.may_deny(EndpointSlot(0), Direction::Ingress));
    assert!(!table.may_deny(EndpointSlot(0), Direction::Egress));
}

#[test]
fn isolation_that_accepts_everything_denies_nothing() {
    let table = table(chain(&[1], &[allow(1, 0, Peers::Any, Ports::Any)]));
    assert!(!table.may_deny(EndpointSlot(0), Direction::Ingress));
    let verdict = ingress(&table, "2001:db8::1", Protocol::ICMPV6, None);
    assert_eq!(verdict.provenance.rule, Some(0));
}

#[test]
fn a_wide_prefix_keeps_its_ports_under_a_narrow_one() {
    // Bug 3: longest match alone loses port 443.
    let wide = allow(1, 0, peers(&["10.0.0.0/8"]), ports(&[(TCP, 443, 443)]));
    let narrow = allow(2, 0, peers(&["10.0.0.5/32"]), ports(&[(TCP, 80, 80)]));
    let table = table(chain(&[1, 2], &[wide, narrow]));
    assert!(accepts(&table, "10.0.0.5", 443));
    assert!(accepts(&table, "10.0.0.5", 80));
    assert!(!accepts(&table, "10.0.0.6", 80));
}

#[test]
fn an_exception_is_its_own_blocks_only() {
    // Bug 4.
    let cut = Peers::blocks([block("10.0.0.0/8", &["10.1.0.0/16"])]);
    let again = allow(2, 0, peers(&["10.1.2.0/24"]), ports(&[(TCP, 80, 80)]));
    let table = table(chain(&[1, 2], &[allow(1, 0, cut, Ports::Any), again]));
    assert!(accepts(&table, "10.2.0.1", 1));
    assert!(!accepts(&table, "10.1.0.1", 80));
    assert!(accepts(&table, "10.1.2.1", 80));
    assert!(!accepts(&table, "10.1.2.1", 81));
}

#[test]
fn peers_of_one_rule_do_not_get_ports_of_another() {
    // Bug 8.
    let a = allow(1, 0, peers(&["10.0.0.1/32"]), ports(&[(TCP, 80, 80)]));
    let b = allow(1, 1, peers(&["10.0.0.2/32"]), ports(&[(TCP, 81, 81)]));
    let table = table(chain(&[1], &[a, b]));
    let accepted = |peer, port| accepts(&table, peer, port);
    assert!(accepted("10.0.0.1", 80) && accepted("10.0.0.2", 81));
    assert!(!accepted("10.0.0.1", 81) && !accepted("10.0.0.2", 80));
}

#[test]
fn no_peer_and_no_port_are_nothing_and_not_everything() {
    // Bug 9, and a named port that nobody has.
    let nobody = allow(1, 0, Peers::none(), Ports::Any);
    let nothing = allow(1, 1, Peers::Any, ports(&[]));
    let table = table(chain(&[1], &[nobody, nothing]));
    assert!(!accepts(&table, "10.0.0.1", 80));
    let explained = explain(&table, "10.0.0.1", 80);
    let rules = &explained.consulted[0].rules;
    assert_eq!(rules[0].peer, PeerMatch::Nobody);
    assert_eq!(rules[1].port, PortMatch::Wanted(vec![]));
}

#[test]
fn protocols_are_apart_and_ranges_inclusive() {
    // Bugs 16 and 17.
    let sctp = Protocol::SCTP;
    let list = ports(&[
        (sctp, 0, 0),
        (sctp, 100, 200),
        (sctp, 65535, 65535),
        (TCP, 65535, 65535),
    ]);
    let table = table(chain(&[1], &[allow(1, 0, Peers::Any, list)]));
    let accepted = |protocol, port| ingress(&table, "10.0.0.1", protocol, Some(port)).accept;
    for port in [0, 100, 150, 200, 65535] {
        assert!(accepted(sctp, port), "SCTP {port}");
    }
    for port in [1, 99, 201, 65534] {
        assert!(!accepted(sctp, port), "SCTP {port}");
    }
    assert!(accepted(TCP, 65535) && !accepted(TCP, 0) && !accepted(Protocol::UDP, 0));
}

#[test]
fn protocols_without_ports_pass_by_rules_without_ports_or_of_their_own() {
    // D12; the number is what an echo request's identifier would look like.
    let by_port = peers(&["10.0.0.1/32"]);
    let by_port = allow(
        1,
        0,
        by_port,
        ports(&[(TCP, 0, 65535), (Protocol::UDP, 0, 65535)]),
    );
    let any = allow(1, 1, peers(&["10.0.0.2/32"]), Ports::Any);
    // Of a security group: a protocol is all of it.
    let icmp = peers(&["10.0.0.3/32"]);
    let icmp = allow(1, 2, icmp, ports(&[(Protocol::ICMP, 0, 65535)]));
    let table = table(chain(&[1], &[by_port, any, icmp]));
    for port in [None, Some(0), Some(80)] {
        assert!(!ingress(&table, "10.0.0.1", Protocol::ICMP, port).accept);
        assert!(ingress(&table, "10.0.0.2", Protocol::ICMP, port).accept);
        assert!(ingress(&table, "10.0.0.2", Protocol(47), port).accept);
        assert!(ingress(&table, "10.0.0.3", Protocol::ICMP, port).accept);
        for other in [
            Protocol(0),
            Protocol(2),
            Protocol::ICMPV6,
            TCP,
            Protocol::UDP,
        ] {
            assert!(
                !ingress(&table, "10.0.0.3", other, port).accept,
                "{other:?}"
            );
        }
    }
    // TCP whose port could not be read.
    assert!(!ingress(&table, "10.0.0.1", TCP, None).accept);
    assert!(ingress(&table, "10.0.0.2", TCP, None).accept);
}

#[test]
fn families_are_apart() {
    let v4 = allow(1, 0, peers(&["0.0.0.0/0"]), ports(&[(TCP, 4, 4)]));
    let v6 = allow(1, 1, peers(&["::/0"]), ports(&[(TCP, 6, 6)]));
    let table = table(chain(&[1], &[v4, v6]));
    for (peer, open, shut) in [
        ("0.0.0.0", 4, 6),
        ("10.0.0.1", 4, 6),
        ("255.255.255.255", 4, 6),
        ("::", 6, 4),
        ("::fffe:ffff:ffff", 6, 4),
        ("::1:0:0:0", 6, 4),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 6, 4),
    ] {
        assert!(accepts(&table, peer, open), "{peer}");
        assert!(!accepts(&table, peer, shut), "{peer}");
    }
}

#[test]
fn tiers_decide_in_order_and_pass_leaves_one() {
    let one = || peers(&["10.0.0.1/32"]);
    let port = |port| ports(&[(TCP, port, port)]);
    let admin = |action, index, of| rule(Tier::Admin, action, 1, index, of);
    let baseline = |action, index, of| rule(Tier::Baseline, action, 2, index, of);
    let rules = [
        admin(Action::Pass, 0, (one(), port(80))),
        admin(Action::Deny, 1, (one(), ports(&[(TCP, 80, 81)]))),
        admin(Action::Accept, 2, (Peers::Any, port(82))),
        allow(3, 0, one(), port(80)),
        baseline(Action::Pass, 0, (one(), port(83))),
        baseline(Action::Deny, 1, (Peers::Any, Ports::Any)),
    ];
    let tier_of = |isolating: &[u32], port| {
        let verdict = ingress(
            &table(chain(isolating, &rules)),
            "10.0.0.1",
            TCP,
            Some(port),
        );
        (verdict.accept, verdict.provenance.tier)
    };
    assert_eq!(tier_of(&[3], 80), (true, Tier::NetworkPolicy));
    assert_eq!(tier_of(&[3], 81), (false, Tier::Admin));
    assert_eq!(tier_of(&[3], 82), (true, Tier::Admin));
    assert_eq!(tier_of(&[3], 83), (false, Tier::NetworkPolicy));
    assert_eq!(tier_of(&[], 80), (false, Tier::Baseline));
    assert_eq!(tier_of(&[], 83), (true, Tier::Default));
}

#[test]
fn what_a_rule_passed_on_is_not_lost_behind_a_rule_for_everything() {
    let port = ports(&[(TCP, 80, 80)]);
    let rules = [
        rule(Tier::Admin, Action::Pass, 1, 0, (Peers::Any, port)),
        rule(Tier::Admin, Action::Accept, 1, 1, (Peers::Any, Ports::Any)),
        allow(2, 0, peers(&["10.0.0.1/32"]), Ports::Any),
    ];
    let table = table(chain(&[2], &rules));
    let tier = |peer, port| {
        let verdict = ingress(&table, peer, TCP, Some(port));
        (
            verdict.accept,
            verdict.provenance.tier,
            verdict.provenance.rule,
        )
    };
    assert_eq!(tier("10.0.0.1", 80), (true, Tier::NetworkPolicy, Some(0)));
    assert_eq!(tier("10.0.0.2", 80), (false, Tier::NetworkPolicy, None));
    assert_eq!(tier("10.0.0.2", 81), (true, Tier::Admin, Some(1)));
}

#[test]
fn explains_what_a_denial_lacked() {
    let cut = Peers::blocks([block("10.0.0.0/8", &["10.1.0.0/16"])]);
    let rules = [
        allow(1, 0, peers(&["10.9.0.1/32"]), ports(&[(TCP, 80, 80)])),
        allow(1, 1, cut, Ports::Any),
        allow(2, 0, peers(&["10.1.0.0/16"]), ports(&[(TCP, 443, 443)])),
    ];
    let table = table(chain(&[1, 2, 5], &rules));

    let denied = explain(&table, "10.1.0.1", 80);
    assert!(!denied.verdict.accept);
    let policies: Vec<u32> = denied.consulted.iter().map(|c| c.policy.0).collect();
    assert_eq!(policies, [1, 2, 5], "those that only isolate too");
    let [outside, excepted] = &denied.consulted[0].rules[..] else {
        panic!("{denied:?}");
    };
    assert_eq!(
        (&outside.peer, &outside.port),
        (&PeerMatch::Outside, &PortMatch::Matched)
    );
    let except = PeerMatch::Excepted {
        prefix: "10.0.0.0/8".parse().unwrap(),
        except: "10.1.0.0/16".parse().unwrap(),
    };
    assert_eq!(
        (&excepted.peer, &excepted.port),
        (&except, &PortMatch::Matched)
    );
    let [(policy, nearest)] = denied.nearest_misses()[..] else {
        panic!("{denied:?}");
    };
    assert_eq!(
        (policy, nearest.index),
        (PolicyId(2), 0),
        "only the port missed"
    );
    let PortMatch::Wanted(wanted) = &nearest.port else {
        panic!("{nearest:?}");
    };
    assert_eq!((wanted[0].first, wanted[0].last), (443, 443));

    let accepted = explain(&table, "10.2.0.1", 80);
    assert_eq!(accepted.verdict.provenance.rule, Some(1));
    assert_eq!(accepted.nearest_misses(), []);
}

#[test]
fn parts_of_one_rule_are_explained_as_one() {
    // A named port with two numbers: one rule of the policy, two here.
    let rules = [
        allow(1, 0, peers(&["10.0.0.1/32"]), ports(&[(TCP, 80, 80)])),
        allow(1, 0, peers(&["10.0.0.2/32"]), ports(&[(TCP, 8080, 8080)])),
    ];
    let table = table(chain(&[1], &rules));
    let explained = explain(&table, "10.0.0.2", 80);
    let [only] = &explained.consulted[0].rules[..] else {
        panic!("{explained:?}");
    };
    assert_eq!(only.peer, PeerMatch::Matched);
    assert!(matches!(&only.port, PortMatch::Wanted(wanted) if wanted[0].first == 8080));
    assert!(explain(&table, "10.0.0.2", 8080).consulted[0].rules[0].matched());
}

#[test]
fn admin_and_baseline_are_explained_up_to_the_decision() {
    let any = || (Peers::Any, Ports::Any);
    let rules = [
        rule(Tier::Admin, Action::Pass, 1, 0, any()),
        rule(Tier::Admin, Action::Deny, 2, 0, any()),
        allow(3, 0, Peers::Any, Ports::Any),
        rule(Tier::Baseline, Action::Deny, 4, 0, any()),
        rule(Tier::Baseline, Action::Deny, 5, 0, any()),
    ];
    let explained = explain(&table(chain(&[], &rules)), "10.0.0.1", 80);
    let policies: Vec<u32> = explained.consulted.iter().map(|c| c.policy.0).collect();
    assert_eq!(policies, [1, 4]);
}

/// A SecurityGroup rule.
fn group(policy: u32, index: u16, peers: Peers, ports: Ports) -> Arc<Rule> {
    let tier = Tier::SecurityGroup;
    rule(tier, Action::Accept, policy, index, (peers, ports))
}

fn bound(bound: u32, of: Chain) -> Chain {
    Chain {
        bound: vec![isolation(bound)],
        ..of
    }
}

#[test]
fn security_groups_deny_first_and_allow_nothing_by_themselves() {
    let tcp = |port| ports(&[(TCP, port, port)]);
    let rules = [
        group(1, 0, peers(&["10.0.0.0/8"]), tcp(80)),
        group(2, 0, peers(&["10.0.0.0/8"]), tcp(81)),
        rule(Tier::Admin, Action::Accept, 3, 0, (Peers::Any, tcp(82))),
        allow(4, 0, Peers::Any, tcp(80)),
    ];
    let table = table(bound(9, chain(&[4], &rules)));
    let of = |peer, port| {
        let verdict = ingress(&table, peer, TCP, Some(port));
        let by = verdict.provenance;
        (verdict.accept, by.tier, by.policy.map(|p| p.0), by.rule)
    };
    assert_eq!(
        of("10.0.0.1", 80),
        (true, Tier::NetworkPolicy, Some(4), Some(0))
    );
    assert_eq!(
        of("10.0.0.1", 81),
        (false, Tier::NetworkPolicy, Some(4), None)
    );
    let by_binding = (false, Tier::SecurityGroup, Some(9), None);
    assert_eq!(of("10.0.0.1", 82), by_binding, "Admin comes after");
    assert_eq!(of("11.0.0.1", 80), by_binding);
    let explained = explain(&table, "11.0.0.1", 80);
    let policies: Vec<u32> = explained.consulted.iter().map(|c| c.policy.0).collect();
    assert_eq!(
        policies,
        [9, 1, 2],
        "the binding and its groups, nothing after"
    );
    let nearest: Vec<u32> = explained
        .nearest_misses()
        .iter()
        .map(|(p, _)| p.0)
        .collect();
    assert_eq!(nearest, [1], "only the peer missed");
}

#[test]
fn group_rules_mean_nothing_to_an_endpoint_that_nothing_binds() {
    let rules = [group(1, 0, peers(&["10.0.0.0/8"]), Ports::Any)];
    let unbound = table(chain(&[], &rules));
    assert!(accepts(&unbound, "11.0.0.1", 80));
    assert_eq!(explain(&unbound, "11.0.0.1", 80).consulted, []);
    let table = table(bound(9, chain(&[], &rules)));
    assert!(!accepts(&table, "11.0.0.1", 80) && accepts(&table, "10.0.0.1", 80));
}

#[test]
fn counters_are_those_of_what_decided() {
    let rules = [
        group(1, 0, peers(&["10.0.0.0/8"]), Ports::Any),
        rule(Tier::Admin, Action::Pass, 2, 0, (Peers::Any, Ports::Any)),
        allow(3, 7, Peers::Any, ports(&[(TCP, 80, 80)])),
    ];
    let table = table(bound(9, chain(&[4, 5], &rules)));
    let counter = |peer, port| {
        let peer = table.peer(address(peer));
        let slot = EndpointSlot(0);
        table
            .decide(slot, Direction::Ingress, &peer, TCP, Some(port))
            .counter
    };
    assert_eq!(counter("11.0.0.1", 80), isolation(9).counter);
    assert_eq!(counter("10.0.0.1", 80), rules[2].counter);
    assert_eq!(
        counter("10.0.0.1", 81),
        isolation(4).counter,
        "of the first"
    );
    let open = PolicyTable::compile(&[(EndpointSlot(0), &EndpointPolicy::default())]);
    let peer = open.peer(address("10.0.0.1"));
    let decision = open.decide(EndpointSlot(0), Direction::Egress, &peer, TCP, Some(80));
    assert_eq!(decision.counter, CounterId::NONE);
}

#[test]
fn rules_that_let_traffic_go_on_count_with_what_decides() {
    let web = || ports(&[(TCP, 80, 80)]);
    let rules = [
        group(1, 0, peers(&["10.0.0.0/8"]), web()),
        group(1, 1, peers(&["10.0.0.0/8"]), Ports::Any),
        rule(
            Tier::Admin,
            Action::Accept,
            2,
            0,
            (peers(&["10.1.0.0/16"]), web()),
        ),
        rule(
            Tier::Admin,
            Action::Pass,
            2,
            1,
            (Peers::Any, ports(&[(TCP, 80, 82)])),
        ),
        rule(
            Tier::Baseline,
            Action::Deny,
            3,
            0,
            (Peers::Any, ports(&[(TCP, 81, 81)])),
        ),
        rule(
            Tier::Baseline,
            Action::Pass,
            3,
            1,
            (Peers::Any, ports(&[(TCP, 82, 83)])),
        ),
    ];
    let ingress = bound(9, chain(&[], &rules));
    let mut compiler = Compiler::with_compounds(5000..5100);
    let chains = [Direction::Egress, Direction::Ingress].map(|direction| match direction {
        Direction::Egress => compiler.chain(direction, &Chain::default()),
        Direction::Ingress => compiler.chain(direction, &ingress),
    });
    let slot = Slot {
        enforced: chains,
        audit: None,
    };
    let table = compiler.table([(EndpointSlot(0), slot)].into_iter());
    let counted = |peer, port| -> Vec<u32> {
        let peer = table.peer(address(peer));
        let decision = table.decide(EndpointSlot(0), Direction::Ingress, &peer, TCP, Some(port));
        let counter = decision.counter;
        match compiler.compounds().combination(counter) {
            Some(combination) => combination.members().map(|c| c.0).collect(),
            None => vec![counter.0],
        }
    };
    let [web_rule, any_rule, accept, admin, deny, baseline] =
        rules.each_ref().map(|rule| rule.counter.0);
    assert_eq!(
        counted("11.0.0.1", 80),
        [isolation(9).counter.0],
        "nobody lets it pass"
    );
    assert_eq!(counted("10.1.0.1", 80), [accept, web_rule]);
    assert_eq!(counted("10.0.0.1", 80), [web_rule, admin], "nobody decides");
    assert_eq!(counted("10.0.0.1", 81), [deny, any_rule, admin]);
    assert_eq!(counted("10.0.0.1", 82), [any_rule, admin, baseline]);
    assert_eq!(counted("10.0.0.1", 83), [any_rule, baseline]);
    assert_eq!(counted("10.0.0.1", 84), [any_rule], "no compound for one");
    assert_eq!(compiler.compounds().in_use(), 5);
    assert_eq!(compiler.compounds().without(), 0);
}

#[test]
fn explanations_know_who_is_in_a_set() {
    let set = PeerSetId(3);
    let rules = [
        allow(1, 0, Peers::sets([set]), ports(&[(TCP, 443, 443)])),
        allow(1, 1, Peers::sets([PeerSetId(4)]), ports(&[(TCP, 80, 80)])),
    ];
    let policy = EndpointPolicy {
        ingress: chain(&[1], &rules),
        egress: Chain::default(),
    };
    let sets = [(set, [address("10.0.0.1")].into())].into();
    let table = PolicyTable::compile_with(&sets, &[(EndpointSlot(0), &policy)]);
    let of = |peer| -> Vec<PeerMatch> {
        let explained = explain(&table, peer, 80);
        let rules = explained.consulted[0].rules.iter();
        rules.map(|rule| rule.peer.clone()).collect()
    };
    assert_eq!(of("10.0.0.1"), [PeerMatch::Matched, PeerMatch::Outside]);
    assert_eq!(of("10.0.0.2"), [PeerMatch::Outside, PeerMatch::Outside]);
}

#[test]
fn audit_is_asked_apart_and_only_where_there_is_something_to_audit() {
    let mut compiler = Compiler::new();
    let open = Chain::default();
    let egress = compiler.chain(Direction::Egress, &open);
    let enforced = [egress, compiler.chain(Direction::Ingress, &open)];
    let audited = [
        egress,
        compiler.chain(Direction::Ingress, &chain(&[6], &[])),
    ];
    let slot = |audit| Slot { enforced, audit };
    let slots = [(0, slot(None)), (1, slot(Some(audited)))];
    let table = compiler.table(slots.map(|(at, slot)| (EndpointSlot(at), slot)).into_iter());
    let peer = table.peer(address("10.0.0.1"));
    let audit = |slot, direction| table.audit(EndpointSlot(slot), direction, &peer, TCP, Some(1));
    assert_eq!(audit(0, Direction::Ingress), None);
    assert_eq!(audit(2, Direction::Ingress), None);
    let denied = audit(1, Direction::Ingress).unwrap();
    assert!(!denied.verdict.accept);
    assert_eq!(denied.counter, isolation(6).counter);
    assert!(audit(1, Direction::Egress).unwrap().verdict.accept);
    let enforced = table.decide(EndpointSlot(1), Direction::Ingress, &peer, TCP, Some(1));
    assert!(enforced.verdict.accept);
    assert!(
        !table.may_deny(EndpointSlot(1), Direction::Ingress),
        "audit denies nothing"
    );
}

#[test]
fn look_ups_allocate_nothing() {
    let blocks: Vec<Block> = (0..2000)
        .map(|i| block(&format!("20.{}.{}.0/25", i >> 8, i & 255), &[]))
        .collect();
    let numbers: Vec<_> = (0..40).map(|port| (TCP, port * 3, port * 3)).collect();
    let set = PeerSetId(0);
    let rules = [
        allow(1, 0, Peers::blocks(blocks), ports(&numbers)),
        allow(1, 1, Peers::sets([set]), ports(&[(TCP, 80, 80)])),
    ];
    let policy = EndpointPolicy {
        ingress: chain(&[1], &rules),
        egress: Chain::default(),
    };
    let members = (0..500)
        .map(|host| Address::v4(0x0a00_0000 + host))
        .collect();
    let table = PolicyTable::compile_with(&[(set, members)].into(), &[(EndpointSlot(0), &policy)]);
    let question = |i: u32| Question {
        slot: EndpointSlot((i % 5 == 4).into()),
        direction: [Direction::Ingress, Direction::Egress][usize::from(i.is_multiple_of(7))],
        peer: match i % 3 {
            0 => Address::v4(0x1400_0000 + i * 64),
            1 => Address::v4(0x0a00_0000 + i),
            _ => Address::v6(u128::from(i)),
        },
        protocol: TCP,
        destination_port: Some(i as u16),
    };
    let questions: Vec<Question> = (0..200).map(question).collect();
    let nothing = naive::accepted(Direction::Egress);
    let mut decisions = vec![nothing; 200];
    let allocated = allocation_counter::measure(|| {
        table.decide_batch(&questions, &mut decisions);
        for of in &questions {
            let peer = table.peer(of.peer);
            table.decide(
                of.slot,
                of.direction,
                &peer,
                of.protocol,
                of.destination_port,
            );
        }
    });
    assert_eq!(allocated.count_total, 0);
    // As many answers as fit: 70 is two batches and a rest.
    let mut few = vec![nothing; 70];
    table.decide_batch(&questions, &mut few);
    assert_eq!(few, decisions[..70]);
    table.decide_batch(&questions[..3], &mut few);
    table.decide_batch(&[], &mut few);
    assert_eq!(few, decisions[..70]);
    let single = questions.iter().map(|of| {
        let peer = table.peer(of.peer);
        table.decide(
            of.slot,
            of.direction,
            &peer,
            of.protocol,
            of.destination_port,
        )
    });
    assert_eq!(single.collect::<Vec<_>>(), decisions);
}
