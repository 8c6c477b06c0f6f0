//! Random namespaces, pods and NetworkPolicies.

use serde_json::{Value, json};

/// Draws choices from bytes, zero once they are used up: shorter bytes are simpler worlds, so
/// that proptest's shrinking works.
pub(super) struct Choices<'a>(pub(super) std::slice::Iter<'a, u8>);

impl Choices<'_> {
    pub(super) fn below(&mut self, n: usize) -> usize {
        usize::from(self.0.next().copied().unwrap_or(0)) % n
    }

    pub(super) fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    /// True in `n` of 8.
    pub(super) fn chance(&mut self, n: usize) -> bool {
        let drawn = self.below(8);
        drawn != 0 && drawn <= n
    }

    pub(super) fn several<T>(
        &mut self,
        most: usize,
        mut make: impl FnMut(&mut Self) -> T,
    ) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| make(self)).collect()
    }
}

pub(super) const KEYS: [&str; 3] = ["a", "b", "c"];
pub(super) const VALUES: [&str; 3] = ["", "x", "y"];
pub(super) const NAMESPACES: [&str; 3] = ["n0", "n1", "n2"];
pub(super) const PORT_NAMES: [&str; 3] = ["web", "dns", "none"];
pub(super) const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
pub(super) const NUMBERS: [u16; 5] = [80, 81, 8080, 1, 65535];
pub(super) const CIDRS: [&str; 14] = [
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
/// Addresses that no pod has; the first two are nodes'.
pub(super) const OUTSIDE: [&str; 10] = [
    "10.0.1.1",
    "fd00:1::2",
    "192.0.2.1",
    "10.0.0.7",
    "10.9.9.9",
    "fd00::7",
    "2001:db8::1",
    "0.0.0.0",
    "::",
    "10.0.0.0",
];

pub(super) fn labels(c: &mut Choices<'_>) -> Value {
    let mut map = serde_json::Map::new();
    for key in KEYS {
        if c.chance(4) {
            map.insert(key.to_owned(), json!(c.one(&VALUES)));
        }
    }
    Value::Object(map)
}

pub(super) fn selector(c: &mut Choices<'_>, odd: bool) -> Value {
    let mut selector = json!({});
    if c.chance(3) {
        let (one, other) = (c.one(&KEYS), c.one(&KEYS));
        selector["matchLabels"] = json!({ one: c.one(&VALUES) });
        if c.chance(1) {
            selector["matchLabels"][other] = json!(c.one(&VALUES));
        }
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

/// Namespaces by the label that carries their name.
pub(super) fn by_name(c: &mut Choices<'_>) -> Value {
    let key = "kubernetes.io/metadata.name";
    let (one, other) = (c.one(&NAMESPACES), c.one(&NAMESPACES));
    match c.below(4) {
        0 | 1 => json!({"matchLabels": {key: one}}),
        2 => json!({"matchExpressions":
            [{"key": key, "operator": "NotIn", "values": [one]}]}),
        _ => json!({"matchExpressions":
            [{"key": key, "operator": "In", "values": [one, other]}]}),
    }
}

fn peer(c: &mut Choices<'_>, odd: bool) -> Value {
    match c.below(if odd { 8 } else { 6 }) {
        0 => json!({"podSelector": selector(c, odd)}),
        1 => json!({"namespaceSelector": selector(c, odd)}),
        2 => json!({"podSelector": selector(c, odd), "namespaceSelector": selector(c, odd)}),
        3 => json!({"namespaceSelector": by_name(c)}),
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
        5 if c.chance(4) => {
            // Neither is a number's or a protocol's name.
            port["port"] = json!("80");
            port["protocol"] = json!(c.one(&["", "tcp", "TCP"]));
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
    } else if odd && c.chance(1) {
        rule[peers] = Value::Null;
    }
    if c.chance(4) {
        rule["ports"] = json!(c.several(3, |c| port(c, odd)));
    }
    if odd && c.chance(1) {
        return Value::Null;
    }
    rule
}

pub(super) fn policy(c: &mut Choices<'_>, index: usize, odd: bool) -> Value {
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
    if odd && c.below(32) == 1 {
        spec = Value::Null;
    }
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
pub(super) fn pod(c: &mut Choices<'_>, index: usize, odd: bool) -> Value {
    let address = 1 + if c.chance(1) { 0 } else { index };
    let ips = match c.below(6) {
        0 => json!([{"ip": format!("10.0.0.{address}")}]),
        1 => json!([{"ip": format!("fd00::{address}")}]),
        2 => json!([]),
        3 if odd => json!([{"ip": format!("::ffff:10.0.0.{address}")}, {"ip": "none"}]),
        _ => json!([{"ip": format!("10.0.0.{address}")}, {"ip": format!("fd00::{address}")}]),
    };
    let mut status = json!({"podIPs": ips});
    if c.chance(1) {
        // As old kubelets say it.
        status = json!({"podIP": format!("10.0.0.{address}")});
    }
    let mut spec = json!({"containers": containers(c, "main", false)});
    if c.chance(2) {
        // Two containers may call different ports by one name.
        let beside = containers(c, "beside", false)[0].take();
        if let Some(list) = spec["containers"].as_array_mut() {
            list.push(beside);
        }
    }
    if c.chance(4) {
        let key = c.one(&["serviceAccountName", "serviceAccountName", "serviceAccount"]);
        spec[key] = json!(c.one(&["robot", "default", "nobody"]));
    }
    if c.chance(2) {
        spec["initContainers"] = containers(c, "init", true);
    }
    if c.chance(1) {
        spec["hostNetwork"] = json!(true);
        if c.chance(4) {
            // A node's, which is no pod's for that.
            status = json!({"podIPs": [{"ip": "10.0.1.1"}]});
        }
    }
    status["phase"] = json!(c.one(&[
        "Running",
        "Pending",
        "Running",
        "Succeeded",
        "Failed",
        "Running",
    ]));
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("pod{index}"), "namespace": c.one(&NAMESPACES),
            "labels": labels(c)},
        "spec": spec, "status": status});
    if odd && c.chance(1) {
        // On its way out it counts until it is gone.
        pod["metadata"]["deletionTimestamp"] = json!("2026-11-21T12:00:00Z");
    }
    pod
}
