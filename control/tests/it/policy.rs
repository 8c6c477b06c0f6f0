//! Lowered and compiled policy against the specification, on random clusters and policies.
//!
//! `WEIR_CASES` sets the number of cases.

use std::net::IpAddr;

use control::cluster::{Cluster, Seeded};
use control::lower::{LocalEndpoint, Policies};
use control::objects::{Key, Object, kinds};
use control::specification::{Decision, Tier, Traffic, World};
use dataplane::{Address, Direction, Protocol};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

/// Draws choices from bytes, zero once they are used up: shorter bytes are simpler worlds, so
/// that proptest's shrinking works.
struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Choices<'_> {
    fn below(&mut self, n: usize) -> usize {
        usize::from(self.0.next().copied().unwrap_or(0)) % n
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    /// True in `n` of 8.
    fn chance(&mut self, n: usize) -> bool {
        let drawn = self.below(8);
        drawn != 0 && drawn <= n
    }

    fn several<T>(&mut self, most: usize, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| make(self)).collect()
    }
}

const KEYS: [&str; 3] = ["a", "b", "c"];
const VALUES: [&str; 3] = ["", "x", "y"];
const NAMESPACES: [&str; 3] = ["n0", "n1", "n2"];
const PORT_NAMES: [&str; 3] = ["web", "dns", "none"];
const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
const NUMBERS: [u16; 5] = [80, 81, 8080, 1, 65535];
const CIDRS: [&str; 14] = [
    "0.0.0.0/0",
    "::/0",
    "10.0.0.0/8",
    "10.0.0.0/29",
    "10.0.0.1/32",
    "10.0.0.6/30",
    "010.0.0.00/029",
    "::ffff:10.0.0.0/124",
    "fd00::/64",
    "fd00::4/126",
    "fd00::1/128",
    "192.0.2.0/24",
    "::ffff:0:0/90",
    "10.0.0.2/31",
];
const OUTSIDE: [&str; 6] = [
    "192.0.2.1",
    "10.0.0.7",
    "10.9.9.9",
    "fd00::7",
    "2001:db8::1",
    "0.0.0.0",
];

fn labels(c: &mut Choices<'_>) -> Value {
    let mut map = serde_json::Map::new();
    for key in KEYS {
        if c.chance(4) {
            map.insert(key.to_owned(), json!(c.one(&VALUES)));
        }
    }
    Value::Object(map)
}

fn selector(c: &mut Choices<'_>, odd: bool) -> Value {
    let mut selector = json!({});
    if c.chance(3) {
        selector["matchLabels"] = json!({ c.one(&KEYS): c.one(&VALUES) });
    }
    if c.chance(3) {
        let expression = |c: &mut Choices<'_>| {
            let operators = ["In", "NotIn", "Exists", "DoesNotExist", "Equals"];
            let operator = c.one(&operators[..if odd { 5 } else { 4 }]);
            let takes = operator == "In" || operator == "NotIn";
            let values = match c.below(4) {
                0 if odd => json!([]),
                1 if odd => json!(["x"]),
                2 if takes => json!([c.one(&VALUES), "y"]),
                _ if takes => json!([c.one(&VALUES)]),
                _ => Value::Null,
            };
            json!({"key": c.one(&KEYS), "operator": operator, "values": values})
        };
        let one = expression(c);
        let mut list = vec![one];
        list.extend(c.several(1, expression));
        selector["matchExpressions"] = json!(list);
    }
    selector
}

fn peer(c: &mut Choices<'_>, odd: bool) -> Value {
    match c.below(if odd { 8 } else { 6 }) {
        0 => json!({"podSelector": selector(c, odd)}),
        1 => json!({"namespaceSelector": selector(c, odd)}),
        2 => json!({"podSelector": selector(c, odd), "namespaceSelector": selector(c, odd)}),
        3 => json!({"namespaceSelector":
            {"matchLabels": {"kubernetes.io/metadata.name": c.one(&NAMESPACES)}}}),
        4 | 5 => {
            let cidr = c.one(&CIDRS);
            let except = if odd {
                c.several(2, |c| c.one(&CIDRS))
            } else {
                match cidr {
                    "0.0.0.0/0" => c.several(2, |c| c.one(&["10.0.0.0/30", "192.0.2.0/24"])),
                    "::/0" => c.several(1, |c| c.one(&["fd00::/126", "2001:db8::/32"])),
                    _ => Vec::new(),
                }
            };
            json!({"ipBlock": {"cidr": cidr, "except": except}})
        }
        6 => json!({}),
        _ => json!({"ipBlock": {"cidr": c.one(&["10.0.0.0/8", "nonsense", "10.0.0.0/99"]),
            "except": c.several(1, |c| c.one(&["rubbish", "10.0.0.0/30"]))},
            "podSelector": if c.chance(4) { json!({}) } else { Value::Null }}),
    }
}

fn port(c: &mut Choices<'_>, odd: bool) -> Value {
    let mut port = json!({});
    if c.chance(5) {
        port["protocol"] = json!(c.one(&PROTOCOLS));
    }
    match c.below(if odd { 8 } else { 5 }) {
        0 => {}
        1 => port["port"] = json!(c.one(&NUMBERS)),
        2 | 3 => port["port"] = json!(c.one(&PORT_NAMES)),
        4 => {
            let first = c.one(&NUMBERS);
            port["port"] = json!(first);
            port["endPort"] = json!(first.saturating_add(c.one(&[0, 1, 8000])));
        }
        5 => port["endPort"] = json!(90),
        6 => {
            port["port"] = json!(c.one(&[0, -1, 70_000, 81]));
            port["endPort"] = json!(c.one(&[80, 70_000]));
        }
        _ => {
            port["port"] = json!("web");
            port["endPort"] = json!(90);
            port["protocol"] = json!(c.one(&["TCP", "ICMP"]));
        }
    }
    port
}

fn rule(c: &mut Choices<'_>, peers: &str, odd: bool) -> Value {
    let mut rule = json!({});
    if c.chance(5) {
        rule[peers] = json!(c.several(3, |c| peer(c, odd)));
    }
    if c.chance(4) {
        rule["ports"] = json!(c.several(3, |c| port(c, odd)));
    }
    if odd && c.chance(1) {
        return Value::Null;
    }
    rule
}

fn policy(c: &mut Choices<'_>, index: usize, odd: bool) -> Value {
    let mut spec = json!({});
    if c.chance(6) {
        spec["podSelector"] = selector(c, odd);
    }
    if c.chance(5) {
        spec["ingress"] = json!(c.several(3, |c| rule(c, "from", odd)));
    }
    if c.chance(4) {
        spec["egress"] = json!(c.several(3, |c| rule(c, "to", odd)));
    }
    let types: [Value; 6] = [
        Value::Null,
        json!([]),
        json!(["Ingress"]),
        json!(["Egress"]),
        json!(["Ingress", "Egress"]),
        json!(["Ingress", "Ingress"]),
    ];
    spec["policyTypes"] = c.one(&types);
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": format!("p{index}"), "namespace": c.one(&NAMESPACES)},
        "spec": spec})
}

fn containers(c: &mut Choices<'_>, name: &str, init: bool) -> Value {
    let ports = c.several(2, |c| {
        let mut port = json!({"containerPort": c.one(&NUMBERS)});
        if c.chance(6) {
            port["name"] = json!(c.one(&PORT_NAMES[..2]));
        }
        if c.chance(4) {
            port["protocol"] = json!(c.one(&PROTOCOLS));
        }
        port
    });
    let mut container = json!({"name": name, "image": "i"});
    // A name twice in one container would be refused.
    let mut names: Vec<_> = ports.iter().map(|p| p["name"].clone()).collect();
    names.dedup();
    if names.len() == ports.len() || names.is_empty() {
        container["ports"] = json!(ports);
    }
    if init && c.chance(4) {
        container["restartPolicy"] = json!("Always");
    }
    json!([container])
}

/// A pod. Now and then two share an address, as when one has just replaced the other.
fn pod(c: &mut Choices<'_>, index: usize) -> Value {
    let address = 1 + if c.chance(1) { 0 } else { index };
    let ips = match c.below(4) {
        0 => json!([{"ip": format!("10.0.0.{address}")}]),
        1 => json!([{"ip": format!("fd00::{address}")}]),
        2 => json!([]),
        _ => json!([{"ip": format!("10.0.0.{address}")}, {"ip": format!("fd00::{address}")}]),
    };
    let mut spec = json!({"containers": containers(c, "main", false)});
    if c.chance(2) {
        spec["initContainers"] = containers(c, "init", true);
    }
    if c.chance(1) {
        spec["hostNetwork"] = json!(true);
    }
    let phase = c.one(&[
        "Running",
        "Pending",
        "Running",
        "Succeeded",
        "Failed",
        "Running",
    ]);
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("pod{index}"), "namespace": c.one(&NAMESPACES),
            "labels": labels(c)},
        "spec": spec, "status": {"phase": phase, "podIPs": ips}})
}

/// A cluster. An odd one holds what validation would refuse, put there without it.
fn cluster(c: &mut Choices<'_>, odd: bool) -> Cluster {
    let mut objects = Vec::new();
    for name in NAMESPACES {
        let mut labels = labels(c);
        labels["kubernetes.io/metadata.name"] = json!(name);
        objects.push(json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": labels}}));
    }
    for index in 0..=c.below(6) {
        objects.push(pod(c, index));
    }
    for index in 0..=c.below(5) {
        objects.push(policy(c, index, odd));
    }
    if odd {
        let mut cluster = Cluster::empty();
        for mut value in objects {
            value["metadata"]["uid"] = value["metadata"]["name"].clone();
            cluster.restore(value).unwrap();
        }
        return cluster;
    }
    let mut source = Seeded::new(1);
    let empty = Cluster::empty();
    let mut transaction = empty.begin(&mut source);
    for value in objects {
        let object = Object::new(value.clone()).unwrap();
        // The few that are refused (an empty selector value list, say) are left out.
        if let Err(refusal) = transaction.create(object) {
            panic!("{refusal} {value}");
        }
    }
    transaction.commit().cluster
}

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
    let cluster = cluster(&mut c, odd);
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
    let protocols = [Protocol::TCP, Protocol::UDP, Protocol::SCTP, Protocol::ICMP];
    let mut decided = 0;
    for local in &locals {
        let pod = world.pod(&local.namespace, &local.name).unwrap();
        for direction in [Direction::Ingress, Direction::Egress] {
            for &peer in &peers {
                let known = table.peer(Address::from(peer));
                for protocol in protocols {
                    // One port of each protocol by chance, and one that no world names.
                    for port in [c.one(&NUMBERS), 82] {
                        let port = protocol.has_ports().then_some(port);
                        let slot = policies.slot(&local.uid).unwrap();
                        let found = table
                            .decide(slot, direction, &known, protocol, port)
                            .verdict;
                        let traffic = Traffic {
                            peer,
                            protocol,
                            port,
                        };
                        let expected = world.decide(pod, direction, traffic);
                        decided += 1;
                        let found = Decision {
                            accept: found.accept,
                            tier: match found.provenance.tier {
                                dataplane::Tier::SecurityGroup => Tier::SecurityGroup,
                                dataplane::Tier::Admin => Tier::Admin,
                                dataplane::Tier::NetworkPolicy => Tier::NetworkPolicy,
                                dataplane::Tier::Baseline => Tier::Baseline,
                                dataplane::Tier::Default => Tier::Default,
                            },
                            policy: found.provenance.policy.map(|id| {
                                let name = policies.ids().name(id).unwrap();
                                let kind = kinds::KINDS.iter().find(|k| k.kind == name.kind);
                                Key::new(kind.unwrap(), &name.namespace, &name.name)
                            }),
                            rule: found.provenance.rule.map(usize::from),
                        };
                        prop_assert_eq!(
                            &found,
                            &expected,
                            "{}/{} {:?} {:?}\n{}",
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
    let bytes = proptest::collection::vec(any::<u8>(), 0..700);
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
