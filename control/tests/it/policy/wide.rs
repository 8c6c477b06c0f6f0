//! Random policies of the whole cluster and security groups, and what they refer to.

use serde_json::{Value, json};

use super::objects::{CIDRS, Choices, NAMESPACES, NUMBERS, PORT_NAMES, by_name, labels, selector};

/// The name of a list of ports, and what makes one entry of it.
type Ports = (&'static str, fn(&mut Choices<'_>, bool, bool) -> Value);

/// Names of security groups; the last is never made.
const GROUPS: [&str; 4] = ["sg0", "sg1", "sg2", "sg-none"];
/// CIDRs that validation takes.
const NETWORKS: [&str; 8] = [
    "0.0.0.0/0",
    "::/0",
    "10.0.0.0/8",
    "10.0.0.1/32",
    "10.0.0.4/30",
    "fd00::/64",
    "fd00::4/126",
    "192.0.2.0/24",
];

pub(super) fn node(c: &mut Choices<'_>, index: usize) -> Value {
    let addresses = [
        json!([{"type": "InternalIP", "address": "10.0.1.1"},
            {"type": "Hostname", "address": "one"}]),
        json!([{"type": "ExternalIP", "address": "fd00:1::2"},
            {"type": "InternalIP", "address": "::ffff:10.0.0.7"}]),
    ];
    json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": format!("node{index}"), "labels": labels(c)},
        "status": {"addresses": addresses[index]}})
}

pub(super) fn account(c: &mut Choices<'_>, namespace: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": c.one(&["robot", "default"]), "namespace": namespace,
            "labels": labels(c)}})
}

/// Now and then a member that nobody knows.
fn newer(c: &mut Choices<'_>, odd: bool, mut value: Value) -> Value {
    if odd && c.below(32) == 1 {
        value["newer"] = json!({});
    }
    value
}

fn namespaced_pod(c: &mut Choices<'_>, odd: bool, both: bool) -> Value {
    let mut pods = json!({"podSelector": selector(c, odd)});
    if both || c.chance(4) {
        pods["namespaceSelector"] = selector(c, odd);
    }
    newer(c, odd, pods)
}

fn subject(c: &mut Choices<'_>, odd: bool, both: bool) -> Value {
    let value = match c.below(if odd { 10 } else { 8 }) {
        0..=2 => json!({"namespaces": {}}),
        3 => json!({"namespaces": selector(c, odd)}),
        4 => json!({"namespaces": by_name(c)}),
        5..=7 => json!({"pods": namespaced_pod(c, odd, both)}),
        8 => json!({}),
        _ => json!({"namespaces": selector(c, odd), "pods": namespaced_pod(c, odd, both)}),
    };
    newer(c, odd, value)
}

fn peer(c: &mut Choices<'_>, odd: bool, both: bool, addresses: bool) -> Value {
    let value = match c.below(if odd { 20 } else { 16 }) {
        0..=3 => json!({"namespaces": selector(c, odd)}),
        4 => json!({"namespaces": by_name(c)}),
        10..=12 if addresses => json!({"networks": networks(c, odd)}),
        13..=15 if addresses => json!({"nodes": selector(c, odd)}),
        5..=15 => json!({"pods": namespaced_pod(c, odd, both)}),
        16 => json!({}),
        17 => json!({"namespaces": {}, "pods": namespaced_pod(c, odd, both)}),
        18 if addresses && c.chance(2) => {
            json!({"domainNames": ["example.com"], "networks": networks(c, odd)})
        }
        18 if addresses => json!({"domainNames": ["example.com"]}),
        _ => json!({"networks": []}),
    };
    newer(c, odd, value)
}

fn networks(c: &mut Choices<'_>, odd: bool) -> Value {
    let mut list = vec![c.one(&NETWORKS)];
    if odd {
        list.extend(c.several(1, |c| c.one(&CIDRS)));
        list.extend(c.several(1, |c| c.one(&["10.0.0.0/8", "rubbish", "10.0.0.0/99"])));
    } else if c.chance(3) {
        list.push("2001:db8::/32");
    }
    json!(list)
}

/// Peers of a rule, and whether names of ports may stand beside them.
fn peers(c: &mut Choices<'_>, odd: bool, both: bool, egress: bool) -> (Value, bool) {
    let addresses = egress && c.chance(4);
    let mut list = vec![peer(c, odd, both, addresses)];
    list.extend(c.several(2, |c| peer(c, odd, both, addresses)));
    let none = odd && c.below(32) == 1;
    (
        if none {
            c.one(&[json!([]), Value::Null])
        } else {
            json!(list)
        },
        odd || !addresses,
    )
}

fn range(c: &mut Choices<'_>, odd: bool) -> (i64, i64) {
    if odd && c.chance(1) {
        return c.one(&[(80, 80), (81, 80), (0, 5), (1, 70_000)]);
    }
    let first = i64::from(c.one(&[80, 1, 8080, 8000]));
    (first, c.one(&[first + 1, 65_535, first + 80]))
}

fn number(c: &mut Choices<'_>, odd: bool) -> i64 {
    if odd && c.chance(1) {
        return c.one(&[0, -1, 65_536]);
    }
    i64::from(c.one(&NUMBERS))
}

fn protocol(c: &mut Choices<'_>, odd: bool, names: bool) -> Value {
    let transport = c.one(&["tcp", "udp", "sctp"]);
    let value = match c.below(if odd { 10 } else { 8 }) {
        0..=2 if names => json!({"destinationNamedPort": c.one(&PORT_NAMES)}),
        3 | 4 => {
            let (start, end) = range(c, odd);
            let range = newer(c, odd, json!({"start": start, "end": end}));
            json!({transport: {"destinationPort": {"range": range}}})
        }
        0..=7 => {
            let number = number(c, odd);
            let port = newer(c, odd, json!({"number": number}));
            let inner = newer(c, odd, json!({"destinationPort": port}));
            json!({transport: inner})
        }
        8 => c.one(&[
            json!({}),
            json!({"tcp": {}}),
            json!({"tcp": {"destinationPort": {}}}),
            json!({"destinationNamedPort": ""}),
        ]),
        _ => c.one(&[
            json!({"tcp": {"destinationPort": {"number": 80, "range": {"start": 1, "end": 9}}}}),
            json!({"udp": {"destinationPort": {"number": 80}}, "destinationNamedPort": "web"}),
        ]),
    };
    newer(c, odd, value)
}

fn admin_port(c: &mut Choices<'_>, odd: bool, names: bool) -> Value {
    let protocol = match c.below(if odd { 5 } else { 4 }) {
        0 => Value::Null,
        1 => json!("TCP"),
        2 => json!("UDP"),
        3 => json!("SCTP"),
        _ => json!("ICMP"),
    };
    let value = match c.below(if odd { 10 } else { 8 }) {
        0..=2 if names => json!({"namedPort": c.one(&PORT_NAMES)}),
        3 | 4 => {
            let (start, end) = range(c, odd);
            json!({"portRange": {"protocol": protocol, "start": start, "end": end}})
        }
        0..=7 => json!({"portNumber": {"protocol": protocol, "port": number(c, odd)}}),
        8 => c.one(&[
            json!({}),
            json!({"namedPort": ""}),
            json!({"portNumber": {}}),
        ]),
        _ => json!({"portNumber": {"port": 80}, "namedPort": "web"}),
    };
    newer(c, odd, value)
}

fn rules(
    c: &mut Choices<'_>,
    odd: bool,
    both: bool,
    egress: bool,
    actions: &[&str],
    (list, port): Ports,
) -> Value {
    let rules = c.several(3, |c| {
        let action = if odd && c.below(24) == 1 {
            c.one(&["Log", "", "Allow", "Accept", "Pass"])
        } else {
            c.one(actions)
        };
        let (peers, names) = peers(c, odd, both, egress);
        let mut rule = json!({"action": action, if egress { "to" } else { "from" }: peers});
        if c.chance(4) {
            let mut ports = vec![port(c, odd, names)];
            ports.extend(c.several(2, |c| port(c, odd, names)));
            rule[list] = json!(ports);
        } else if odd && c.below(16) == 1 {
            rule[list] = json!([]);
        }
        newer(c, odd, rule)
    });
    json!(rules)
}

pub(super) fn cluster_policy(c: &mut Choices<'_>, index: usize, odd: bool) -> Value {
    let actions = ["Accept", "Deny", "Pass"];
    let ports: Ports = ("protocols", protocol);
    let tier = if odd && c.below(16) == 1 {
        "Emergency"
    } else {
        c.one(&["Admin", "Baseline"])
    };
    let spec = json!({
        "tier": tier,
        "priority": c.one(&[5, 6, 0, 1000]),
        "subject": subject(c, odd, false),
        "ingress": rules(c, odd, false, false, &actions, ports),
        "egress": rules(c, odd, false, true, &actions, ports),
    });
    let name = c.one(&["a", "b", "c"]);
    json!({"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": format!("{name}{index}")}, "spec": newer(c, odd, spec)})
}

pub(super) fn admin_policy(c: &mut Choices<'_>, index: usize, odd: bool) -> Value {
    let actions = ["Allow", "Deny", "Pass"];
    let ports: Ports = ("ports", admin_port);
    let spec = json!({
        "priority": c.one(&[5, 6, 0, 1000]),
        "subject": subject(c, odd, true),
        "ingress": rules(c, odd, true, false, &actions, ports),
        "egress": rules(c, odd, true, true, &actions, ports),
    });
    let name = c.one(&["a", "b", "c"]);
    json!({"apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": "AdminNetworkPolicy",
        "metadata": {"name": format!("{name}{index}")}, "spec": newer(c, odd, spec)})
}

pub(super) fn baseline_policy(c: &mut Choices<'_>, odd: bool) -> Value {
    let actions = ["Allow", "Deny"];
    let ports: Ports = ("ports", admin_port);
    let spec = json!({
        "subject": subject(c, odd, true),
        "ingress": rules(c, odd, true, false, &actions, ports),
        "egress": rules(c, odd, true, true, &actions, ports),
    });
    json!({"apiVersion": "policy.networking.k8s.io/v1alpha1",
        "kind": "BaselineAdminNetworkPolicy",
        "metadata": {"name": "default"}, "spec": newer(c, odd, spec)})
}

fn group_rule(c: &mut Choices<'_>, odd: bool) -> Value {
    let with_ports = c.chance(5);
    let protocol = if with_ports {
        c.one(&[
            json!("tcp"),
            json!("udp"),
            json!("sctp"),
            json!("6"),
            json!(17),
        ])
    } else {
        c.one(&[
            json!(-1),
            json!("all"),
            json!("icmp"),
            json!("icmpv6"),
            json!(1),
            json!("47"),
        ])
    };
    let mut rule = json!({"protocol": protocol, "cidrs": networks(c, odd)});
    if with_ports && c.chance(6) {
        let first = i64::from(c.one(&NUMBERS));
        rule["fromPort"] = json!(first);
        rule["toPort"] = json!(c.one(&[first, 65_535]));
    } else if !with_ports && c.chance(2) {
        rule["fromPort"] = json!(-1);
        rule["toPort"] = json!(-1);
    }
    if c.chance(4) {
        rule["securityGroups"] = json!([c.one(&GROUPS), c.one(&GROUPS)]);
        if c.chance(5) {
            rule["cidrs"] = Value::Null;
        }
    }
    if odd && c.chance(1) {
        let (key, value) = c.one(&[
            ("protocol", json!("TCP")),
            ("protocol", json!("+6")),
            ("protocol", json!(256)),
            ("protocol", Value::Null),
            ("fromPort", json!(-1)),
            ("toPort", json!(70_000)),
            ("fromPort", Value::Null),
            ("cidrs", json!([])),
        ]);
        rule[key] = value;
    }
    newer(c, odd, rule)
}

pub(super) fn group(c: &mut Choices<'_>, index: usize, odd: bool) -> Value {
    let mut spec = json!({});
    for direction in ["ingress", "egress"] {
        if c.chance(6) {
            spec[direction] = json!(c.several(3, |c| group_rule(c, odd)));
        }
    }
    json!({"apiVersion": "weir.dev/v1alpha1", "kind": "SecurityGroup",
        "metadata": {"name": GROUPS[index]}, "spec": newer(c, odd, spec)})
}

pub(super) fn binding(c: &mut Choices<'_>, index: usize, odd: bool) -> Value {
    let mut spec = json!({});
    if c.chance(5) {
        spec["podSelector"] = selector(c, odd);
    }
    if c.chance(3) {
        spec["serviceAccountSelector"] = selector(c, odd);
    }
    if c.chance(7) {
        let mut groups = json!({"groupIds": [c.one(&GROUPS), c.one(&GROUPS)]});
        if odd && c.chance(1) {
            groups = c.one(&[json!({"groupIds": []}), json!({"newer": 1})]);
        }
        spec["securityGroups"] = groups;
    }
    json!({"apiVersion": "vpcresources.k8s.aws/v1beta1", "kind": "SecurityGroupPolicy",
        "metadata": {"name": format!("bind{index}"), "namespace": c.one(&NAMESPACES)},
        "spec": newer(c, odd, spec)})
}
