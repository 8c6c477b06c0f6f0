//! Lowered and compiled policy against the specification, on random clusters and policies.
//!
//! `WEIR_CASES` sets the number of clusters, `WEIR_SEED` picks others.

use std::net::IpAddr;

use control::cluster::Cluster;
use control::lower::{LocalEndpoint, Policies, PolicyIds};
use control::objects::{Key, kinds};
use control::specification::{Decision, Policies as Asked, Tier, Traffic, World};
use dataplane::{Address, Direction, Protocol};
use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use proptest::test_runner::Config;
use serde_json::json;

mod objects;
mod random;
mod wide;

use objects::{Choices, NUMBERS, OUTSIDE};

use crate::chance;

/// Every pod as one on this node, with its addresses by its status.
fn locals(cluster: &Cluster) -> Vec<LocalEndpoint> {
    let pods = cluster.objects().filter_map(|object| {
        let pod = object.as_pod()?;
        if pod.spec.as_ref()?.host_network == Some(true) {
            return None;
        }
        Some(LocalEndpoint {
            namespace: object.namespace().to_owned(),
            name: object.name().to_owned(),
            uid: object.uid().to_owned(),
            addresses: stated(pod),
        })
    });
    pods.collect()
}

/// The addresses in a pod's status.
fn stated(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else {
        return Vec::new();
    };
    let several = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let texts = several.chain(status.pod_ip.as_deref());
    let addresses = texts.filter_map(|text| text.parse::<IpAddr>().ok());
    addresses.map(|address| address.to_canonical()).collect()
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
    for (host, local) in (20..).zip(&mut locals) {
        if c.chance(1) {
            // What stands behind its interface; its status is late.
            local.addresses = vec![IpAddr::from([10, 0, 0, host])];
        }
    }
    let attached = locals.iter();
    let attached = attached.map(|l| (l.uid.as_str(), l.addresses.as_slice()));
    let world = World::new(&cluster, attached);
    let policies = Policies::from_scratch(&cluster, locals.iter().cloned()).unwrap();
    let table = policies.table();

    let pods = cluster.objects().filter_map(|object| object.as_pod());
    let mut peers: Vec<IpAddr> = pods.flat_map(stated).collect();
    peers.extend(locals.iter().flat_map(|local| &local.addresses));
    peers.sort_unstable();
    peers.dedup();
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
        // Now and then the port of one that has any cannot be read.
        let readable = protocol.has_ports() && self.below(16) != 0;
        (protocol, readable.then_some(port))
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
    let mut runner = chance::runner(1500, Config::default());
    let cases = runner.config().cases;
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

#[test]
fn a_port_that_cannot_be_read_is_none_of_a_security_group_s_ports() {
    let mut cluster = Cluster::empty();
    for value in [
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}),
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "n", "uid": "p"},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]}}),
        json!({"apiVersion": "weir.dev/v1alpha1", "kind": "SecurityGroup",
            "metadata": {"name": "sg"},
            "spec": {"ingress": [{"protocol": "tcp", "cidrs": ["0.0.0.0/0"]}]}}),
        json!({"apiVersion": "vpcresources.k8s.aws/v1beta1", "kind": "SecurityGroupPolicy",
            "metadata": {"name": "bind", "namespace": "n"},
            "spec": {"podSelector": {}, "securityGroups": {"groupIds": ["sg"]}}}),
    ] {
        cluster.restore(value).unwrap();
    }
    let locals = locals(&cluster);
    let attached = locals.iter();
    let attached = attached.map(|l| (l.uid.as_str(), l.addresses.as_slice()));
    let world = World::new(&cluster, attached);
    let policies = Policies::from_scratch(&cluster, locals.iter().cloned()).unwrap();
    let (table, slot) = (policies.table(), policies.slot("p").unwrap());
    let peer: IpAddr = "192.0.2.1".parse().unwrap();
    let protocol = Protocol::TCP;
    for (port, accepted) in [(Some(0), true), (Some(80), true), (None, false)] {
        let traffic = Traffic {
            peer,
            protocol,
            port,
        };
        let pod = world.pod("n", "p").unwrap();
        let expected = world.decide(pod, Direction::Ingress, traffic);
        let known = table.peer(Address::from(peer));
        let found = table.decide(slot, Direction::Ingress, &known, protocol, port);
        assert_eq!(decision(found.verdict, policies.ids()), expected);
        assert_eq!(expected.accept, accepted, "{port:?}");
    }
}
