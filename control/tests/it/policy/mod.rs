//! Lowered and compiled policy against the specification, on random clusters and policies.
//!
//! `WEIR_CASES` sets the number of cases.

use std::net::IpAddr;

use control::cluster::Cluster;
use control::lower::{LocalEndpoint, Policies, PolicyIds};
use control::objects::{Key, kinds};
use control::specification::{Decision, Policies as Asked, Tier, Traffic, World};
use dataplane::{Address, Direction, Protocol};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

mod objects;
mod random;
mod wide;

use objects::{Choices, NUMBERS, OUTSIDE};

/// Every pod on this node, or every second: the others are peers by their status.
fn locals(cluster: &Cluster) -> Vec<LocalEndpoint> {
    let pods = cluster.objects().filter_map(|object| {
        let pod = object.as_pod()?;
        if pod.spec.as_ref()?.host_network == Some(true) {
            return None;
        }
        let ips = pod.status.as_ref()?.pod_ips.iter().flatten();
        Some(LocalEndpoint {
            namespace: object.namespace().to_owned(),
            name: object.name().to_owned(),
            uid: object.uid().to_owned(),
            addresses: ips.filter_map(|ip| ip.ip.parse().ok()).collect(),
        })
    });
    pods.collect()
}

/// Every object on a line of its own.
fn describe(cluster: &Cluster) -> String {
    let lines = cluster.objects().map(|object| object.value().to_string());
    lines.collect::<Vec<_>>().join("\n")
}

fn check(bytes: &[u8], odd: bool) -> Result<u64, TestCaseError> {
    let mut c = Choices(bytes.iter());
    let cluster = random::cluster(&mut c, odd);
    let mut locals = locals(&cluster);
    if c.chance(4) {
        let mut keep = false;
        locals.retain(|_| {
            keep = !keep;
            keep
        });
    }
    let attached = locals.iter();
    let attached = attached.map(|l| (l.uid.as_str(), l.addresses.as_slice()));
    let world = World::new(&cluster, attached);
    let policies = Policies::from_scratch(&cluster, locals.iter().cloned()).unwrap();
    let table = policies.table();

    let pods = cluster.objects().filter_map(|object| object.as_pod());
    let pod_ips = pods.flat_map(|p| p.status.iter());
    let pod_ips = pod_ips.flat_map(|s| s.pod_ips.iter().flatten());
    let mut peers: Vec<IpAddr> = pod_ips.filter_map(|ip| ip.ip.parse().ok()).collect();
    peers.extend(OUTSIDE.iter().map(|text| text.parse::<IpAddr>().unwrap()));
    let mut questions = Questions::new(bytes);
    let mut decided = 0;
    for local in &locals {
        let pod = world.pod(&local.namespace, &local.name).unwrap();
        let slot = policies.slot(&local.uid).unwrap();
        for direction in [Direction::Ingress, Direction::Egress] {
            for &peer in &peers {
                let known = table.peer(Address::from(peer));
                for _ in 0..QUESTIONS {
                    let (protocol, port) = questions.next();
                    let traffic = Traffic {
                        peer,
                        protocol,
                        port,
                    };
                    let enforced = table.decide(slot, direction, &known, protocol, port);
                    let audited = table.audit(slot, direction, &known, protocol, port);
                    for (asked, found) in [
                        (Asked::Enforced, enforced),
                        // Where audited policies cannot change anything the table says nothing.
                        (Asked::WithAudited, audited.unwrap_or(enforced)),
                    ] {
                        let expected = world.decide_by(asked, pod, direction, traffic);
                        let found = decision(found.verdict, policies.ids());
                        decided += 1;
                        prop_assert_eq!(
                            &found,
                            &expected,
                            "{:?}: {}/{} {:?} {:?}\n{}",
                            asked,
                            local.namespace,
                            local.name,
                            direction,
                            traffic,
                            describe(&cluster)
                        );
                    }
                }
            }
        }
    }
    Ok(decided)
}

/// How many kinds of traffic are asked about for each pod, direction and peer.
const QUESTIONS: usize = 3;

/// Traffic by chance, the same for the same bytes. Not drawn from the bytes themselves: there
/// would be none left in the richest worlds.
struct Questions(u64);

impl Questions {
    fn new(bytes: &[u8]) -> Questions {
        let mix = |state: u64, byte: &u8| (state ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        Questions(bytes.iter().fold(0xcbf2_9ce4_8422_2325, mix) | 1)
    }

    fn below(&mut self, n: u64) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n) as usize
    }

    fn next(&mut self) -> (Protocol, Option<u16>) {
        let protocols = [
            Protocol::TCP,
            Protocol::TCP,
            Protocol::UDP,
            Protocol::SCTP,
            Protocol::ICMP,
            Protocol::ICMPV6,
            Protocol(47),
        ];
        let protocol = protocols[self.below(7)];
        // One port that no world names.
        let ports = [NUMBERS[self.below(5)], 82, NUMBERS[self.below(5)]];
        let port = ports[self.below(3)];
        (protocol, protocol.has_ports().then_some(port))
    }
}

/// The engine's verdict in the specification's words.
fn decision(verdict: dataplane::Verdict, ids: &PolicyIds) -> Decision {
    let provenance = verdict.provenance;
    Decision {
        accept: verdict.accept,
        tier: match provenance.tier {
            dataplane::Tier::SecurityGroup => Tier::SecurityGroup,
            dataplane::Tier::Admin => Tier::Admin,
            dataplane::Tier::NetworkPolicy => Tier::NetworkPolicy,
            dataplane::Tier::Baseline => Tier::Baseline,
            dataplane::Tier::Default => Tier::Default,
        },
        policy: provenance.policy.map(|id| {
            let name = ids.name(id).unwrap();
            let kind = kinds::KINDS.iter().find(|k| k.kind == name.kind);
            Key::new(kind.unwrap(), &name.namespace, &name.name)
        }),
        rule: provenance.rule.map(usize::from),
    }
}

fn run(odd: bool) {
    let cases = std::env::var("WEIR_CASES")
        .ok()
        .and_then(|n| n.parse().ok());
    let cases: u32 = cases.unwrap_or(1500);
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    let bytes = proptest::collection::vec(any::<u8>(), 0..1200);
    let decided = std::cell::Cell::new(0);
    let result = runner.run(&bytes, |bytes| {
        decided.set(decided.get() + check(&bytes, odd)?);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    println!("{cases} clusters, {} decisions", decided.get());
    assert!(
        decided.get() > u64::from(cases) * 10,
        "the worlds are too small to mean anything"
    );
}

#[test]
fn compiled_policy_is_what_the_specification_says() {
    run(false);
}

#[test]
fn compiled_policy_is_what_the_specification_says_of_what_validation_would_refuse() {
    run(true);
}
