//! Small clusters of every kind of object that policy depends on, drawn from bytes.

use std::sync::Arc;

use control::cluster::Cluster;
use control::lower::LocalEndpoint;
use control::objects::Object;
use serde_json::{Value, json};

/// Pods that there can be: each has its own address, or now and then another's.
pub const PODS: usize = 6;

/// Draws choices from bytes, zero once they are used up: shorter bytes are simpler worlds, so
/// that proptest's shrinking works.
pub struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Choices<'_> {
    pub fn new(bytes: &[u8]) -> Choices<'_> {
        Choices(bytes.iter())
    }

    pub fn below(&mut self, n: usize) -> usize {
        usize::from(self.0.next().copied().unwrap_or(0)) % n
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    /// True in `n` of 8.
    pub fn chance(&mut self, n: usize) -> bool {
        let drawn = self.below(8);
        drawn != 0 && drawn <= n
    }

    fn several<T>(&mut self, most: usize, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| make(self)).collect()
    }
}

const NAMESPACES: [&str; 2] = ["n0", "n1"];
const VALUES: [&str; 2] = ["x", "y"];
const CIDRS: [&str; 4] = ["10.0.0.0/30", "10.0.0.0/8", "192.0.2.0/24", "fd00::/64"];

fn labels(c: &mut Choices<'_>) -> Value {
    let mut labels = json!({});
    for key in ["a", "b"] {
        if c.chance(5) {
            labels[key] = json!(c.one(&VALUES));
        }
    }
    labels
}

fn selector(c: &mut Choices<'_>) -> Value {
    match c.below(6) {
        0 => json!({}),
        1 | 2 => json!({"matchLabels": {c.one(&["a", "b"]): c.one(&VALUES)}}),
        3 => json!({"matchExpressions": [{"key": "a", "operator": "In", "values": VALUES}]}),
        4 => {
            json!({"matchExpressions": [{"key": "b", "operator": c.one(&["Exists", "DoesNotExist"])}]})
        }
        _ => json!({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["x"]}]}),
    }
}

fn in_namespace(c: &mut Choices<'_>) -> Value {
    match c.below(2) {
        0 => selector(c),
        _ => json!({"matchLabels": {"kubernetes.io/metadata.name": c.one(&NAMESPACES)}}),
    }
}

fn object(api: &str, kind: &str, name: &str, namespace: Option<&str>, spec: Value) -> Value {
    let mut value =
        json!({"apiVersion": api, "kind": kind, "metadata": {"name": name}, "spec": spec});
    if let Some(namespace) = namespace {
        value["metadata"]["namespace"] = json!(namespace);
    }
    value
}

fn namespace(c: &mut Choices<'_>, name: &str) -> Value {
    let mut labels = labels(c);
    labels["kubernetes.io/metadata.name"] = json!(name);
    let mut value = object("v1", "Namespace", name, None, json!({}));
    value["metadata"]["labels"] = labels;
    value
}

fn pod(c: &mut Choices<'_>) -> Value {
    let index = c.below(PODS);
    let namespace = NAMESPACES[index % 2];
    let host = 1 + if c.chance(1) { c.below(PODS) } else { index };
    let ports = c.several(2, |c| {
        json!({"name": c.one(&["web", "dns"]), "containerPort": c.one(&[80, 8080, 53]),
            "protocol": c.one(&["TCP", "UDP"])})
    });
    let mut spec = json!({"containers": [{"name": "c", "image": "i", "ports": ports}]});
    if c.chance(1) {
        spec["hostNetwork"] = json!(true);
    }
    if c.chance(3) {
        spec["serviceAccountName"] = json!(c.one(&["sa", "nobody"]));
    }
    let mut value = object("v1", "Pod", &format!("p{index}"), Some(namespace), spec);
    value["metadata"]["labels"] = labels(c);
    let mut ips = vec![json!({"ip": format!("10.0.0.{host}")})];
    if c.chance(2) {
        ips.push(json!({"ip": format!("fd00::{host}")}));
    }
    let phase = c.one(&["Running", "Running", "Running", "Pending", "Succeeded"]);
    value["status"] = json!({"phase": phase, "podIPs": ips});
    value
}

fn node(c: &mut Choices<'_>) -> Value {
    let mut value = object("v1", "Node", c.one(&["k0", "k1"]), None, json!({}));
    value["metadata"]["labels"] = labels(c);
    value["status"] = json!({"addresses": [
        {"type": "InternalIP", "address": c.one(&["10.9.0.1", "10.0.0.77", "10.0.0.3"])},
        {"type": "Hostname", "address": "10.0.0.1"}]});
    value
}

fn account(c: &mut Choices<'_>) -> Value {
    let name = c.one(&["sa", "default"]);
    let mut value = object(
        "v1",
        "ServiceAccount",
        name,
        Some(c.one(&NAMESPACES)),
        json!({}),
    );
    value["metadata"]["labels"] = labels(c);
    value
}

fn audited(c: &mut Choices<'_>, mut value: Value) -> Value {
    if c.chance(2) {
        value["metadata"]["annotations"] = json!({"weir.dev/mode": "audit"});
    }
    value
}

fn network_policy(c: &mut Choices<'_>) -> Value {
    let peers = |c: &mut Choices<'_>| {
        c.several(2, |c| match c.below(4) {
            0 => json!({"podSelector": selector(c)}),
            1 => json!({"namespaceSelector": in_namespace(c)}),
            2 => json!({"namespaceSelector": in_namespace(c), "podSelector": selector(c)}),
            _ => json!({"ipBlock": {"cidr": c.one(&CIDRS)}}),
        })
    };
    let ports = |c: &mut Choices<'_>| {
        c.several(2, |c| match c.below(3) {
            0 => json!({"port": 80, "protocol": c.one(&["TCP", "SCTP"])}),
            1 => json!({"port": "web", "protocol": "TCP"}),
            _ => json!({"port": "dns", "protocol": "UDP"}),
        })
    };
    let ingress = c.several(2, |c| json!({"from": peers(c), "ports": ports(c)}));
    let egress = c.several(2, |c| json!({"to": peers(c), "ports": ports(c)}));
    let types = c.one(&[
        json!(["Ingress"]),
        json!(["Egress"]),
        json!(["Ingress", "Egress"]),
    ]);
    let spec = json!({"podSelector": selector(c), "policyTypes": types,
        "ingress": ingress, "egress": egress});
    let name = format!("np{}", c.below(3));
    let namespace = c.one(&NAMESPACES);
    let value = object(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        &name,
        Some(namespace),
        spec,
    );
    audited(c, value)
}

fn subject(c: &mut Choices<'_>) -> Value {
    match c.below(2) {
        0 => json!({"namespaces": in_namespace(c)}),
        _ => json!({"pods": {"namespaceSelector": in_namespace(c), "podSelector": selector(c)}}),
    }
}

fn wide_peers(c: &mut Choices<'_>, egress: bool) -> Vec<Value> {
    let more = if egress { 4 } else { 2 };
    let peer = |c: &mut Choices<'_>| match c.below(more) {
        0 => json!({"namespaces": in_namespace(c)}),
        1 => json!({"pods": {"namespaceSelector": in_namespace(c), "podSelector": selector(c)}}),
        2 => json!({"nodes": selector(c)}),
        _ => json!({"networks": [c.one(&CIDRS)]}),
    };
    let mut peers = vec![peer(c)];
    peers.extend(c.several(1, peer));
    if c.chance(1) {
        peers.push(json!({"newer": {}}));
    }
    peers
}

fn cluster_policy(c: &mut Choices<'_>) -> Value {
    let rule = |c: &mut Choices<'_>, egress: bool| {
        let mut rule = json!({"action": c.one(&["Accept", "Deny", "Pass", "Deny"])});
        rule[if egress { "to" } else { "from" }] = json!(wide_peers(c, egress));
        if c.chance(5) {
            rule["protocols"] = match c.below(4) {
                0 => json!([{"tcp": {"destinationPort": {"number": 80}}}]),
                1 => json!([{"tcp": {"destinationPort": {"range": {"start": 80, "end": 9000}}}}]),
                2 => json!([{"destinationNamedPort": c.one(&["web", "dns"])}]),
                _ => json!([{"udp": {"destinationPort": {"number": 53}}},
                    {"destinationNamedPort": "web"}]),
            };
        }
        rule
    };
    let ingress = c.several(2, |c| rule(c, false));
    let egress = c.several(2, |c| rule(c, true));
    let spec = json!({"tier": c.one(&["Admin", "Baseline"]), "priority": c.below(3),
        "subject": subject(c), "ingress": ingress, "egress": egress});
    let name = format!("cnp{}", c.below(3));
    let api = "policy.networking.k8s.io/v1alpha2";
    let value = object(api, "ClusterNetworkPolicy", &name, None, spec);
    audited(c, value)
}

fn admin_policy(c: &mut Choices<'_>) -> Value {
    let baseline = c.chance(3);
    let rule = |c: &mut Choices<'_>, egress: bool| {
        let mut rule = json!({"action": c.one(&["Allow", "Deny", "Pass"])});
        rule[if egress { "to" } else { "from" }] = json!(wide_peers(c, egress));
        if c.chance(4) {
            rule["ports"] = match c.below(3) {
                0 => json!([{"portNumber": {"port": 80}}]),
                1 => json!([{"namedPort": "web"}]),
                _ => json!([{"portRange": {"protocol": "UDP", "start": 1, "end": 60}}]),
            };
        }
        rule
    };
    let ingress = c.several(2, |c| rule(c, false));
    let egress = c.several(2, |c| rule(c, true));
    let mut spec = json!({"subject": subject(c), "ingress": ingress, "egress": egress});
    let (kind, name) = if baseline {
        ("BaselineAdminNetworkPolicy", "default")
    } else {
        spec["priority"] = json!(c.below(3));
        ("AdminNetworkPolicy", c.one(&["anp0", "anp1"]))
    };
    let value = object("policy.networking.k8s.io/v1alpha1", kind, name, None, spec);
    audited(c, value)
}

fn group(c: &mut Choices<'_>) -> Value {
    let rule = |c: &mut Choices<'_>| {
        let mut rule = match c.below(4) {
            0 => json!({"protocol": "-1"}),
            1 => json!({"protocol": "icmp"}),
            2 => json!({"protocol": "tcp", "fromPort": 80, "toPort": 80}),
            _ => json!({"protocol": c.one(&["tcp", "udp"])}),
        };
        if c.chance(4) {
            rule["cidrs"] = json!([c.one(&CIDRS)]);
        }
        rule["securityGroups"] = json!(c.several(2, |c| c.one(&["g0", "g1"])));
        rule
    };
    let ingress = c.several(2, rule);
    let egress = c.several(2, rule);
    let spec = json!({"ingress": ingress, "egress": egress});
    object(
        "weir.dev/v1alpha1",
        "SecurityGroup",
        c.one(&["g0", "g1"]),
        None,
        spec,
    )
}

fn binding(c: &mut Choices<'_>) -> Value {
    let ids = c.several(2, |c| c.one(&["g0", "g1", "missing"]));
    let mut spec = json!({"securityGroups": {"groupIds": ids}});
    if c.chance(5) {
        spec["podSelector"] = selector(c);
    }
    if c.chance(3) {
        spec["serviceAccountSelector"] = selector(c);
    }
    let name = format!("b{}", c.below(2));
    let namespace = c.one(&NAMESPACES);
    let api = "vpcresources.k8s.aws/v1beta1";
    let value = object(api, "SecurityGroupPolicy", &name, Some(namespace), spec);
    audited(c, value)
}

fn any(c: &mut Choices<'_>) -> Value {
    match c.below(12) {
        0 => node(c),
        1 => account(c),
        2 | 3 => cluster_policy(c),
        4 => admin_policy(c),
        5 => group(c),
        6 => binding(c),
        7 | 8 => network_policy(c),
        9 => {
            let name = c.one(&NAMESPACES);
            namespace(c, name)
        }
        _ => pod(c),
    }
}

/// Gives an object a UID: another one now and then, as if one of that name had been deleted.
fn with_uid(c: &mut Choices<'_>, mut value: Value) -> Value {
    let generation = if c.chance(1) { "b" } else { "a" };
    let metadata = &value["metadata"];
    let names = [&value["kind"], &metadata["namespace"], &metadata["name"]];
    let names = names.map(|name| name.as_str().unwrap_or_default().to_owned());
    value["metadata"]["uid"] = json!(format!("{}/{generation}", names.join("/")));
    value
}

/// What there is at first.
pub fn beginning(c: &mut Choices<'_>) -> Vec<Value> {
    let mut values: Vec<Value> = NAMESPACES.iter().map(|name| namespace(c, name)).collect();
    values.extend(c.several(6, pod));
    values.extend(c.several(8, any));
    values.into_iter().map(|value| with_uid(c, value)).collect()
}

/// An object to be applied, or one that is there to be deleted.
pub fn operation(c: &mut Choices<'_>, cluster: &Cluster) -> (Value, bool) {
    let deletable: Vec<&Arc<Object>> = cluster
        .objects()
        .filter(|object| object.kind().kind != "Namespace")
        .collect();
    if c.chance(3) && !deletable.is_empty() {
        return (deletable[c.below(deletable.len())].to_value(), true);
    }
    if c.chance(2) && !deletable.is_empty() {
        // New labels for something that is there.
        let mut value = deletable[c.below(deletable.len())].to_value();
        value["metadata"]["labels"] = labels(c);
        return (value, false);
    }
    let value = any(c);
    (with_uid(c, value), false)
}

/// The pods.
pub fn pods(cluster: &Cluster) -> Vec<Arc<Object>> {
    let pods = cluster.objects().filter(|object| object.as_pod().is_some());
    pods.cloned().collect()
}

/// A pod's interface, with addresses of its own.
pub fn endpoint(object: &Object) -> LocalEndpoint {
    let host: u8 = object.name().trim_start_matches('p').parse().unwrap();
    LocalEndpoint {
        namespace: object.namespace().to_owned(),
        name: object.name().to_owned(),
        uid: object.uid().to_owned(),
        addresses: vec![[10, 0, 0, host + 1].into()],
    }
}

/// Whether the pod is on the host network.
pub fn is_on_host_network(object: &Object) -> bool {
    object.value()["spec"]["hostNetwork"] == true
}

/// All objects, for a failed case.
pub fn describe(cluster: &Cluster) -> String {
    let lines = cluster.objects().map(|object| object.value().to_string());
    lines.collect::<Vec<_>>().join("\n")
}
