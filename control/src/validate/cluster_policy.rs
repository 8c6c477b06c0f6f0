//! ClusterNetworkPolicy, AdminNetworkPolicy and BaselineAdminNetworkPolicy: what their definitions
//! ask for (network-policy-api, `config/crd`). Limits are the definitions'.

use crate::cidr;
use crate::objects::Object;
use crate::objects::policy_api::{
    EgressPeer, IngressPeer, NamespacedPod, Selection, Subject, admin, cluster,
};

use super::crd::Schema;
use super::{Findings, selectors};

/// What the three kinds differ in.
struct Definition {
    actions: &'static [&'static str],
    /// The most rules of a direction, peers of a rule, protocols of a rule.
    most: usize,
    /// Whether a namespace selector must stand beside a pod selector.
    both_selectors: bool,
    /// Whether a peer may be domain names.
    domain_names: bool,
    /// The list in which rules name protocols and ports.
    ports: &'static str,
    /// Why port names do not go with some peers.
    names: &'static str,
}

const CLUSTER: Definition = Definition {
    actions: &["Accept", "Deny", "Pass"],
    most: 25,
    both_selectors: false,
    domain_names: true,
    ports: "protocols",
    names: "networks/nodes/domainNames peer cannot be set with namedPorts since there are no \
            namedPorts for networks/nodes/domainNames",
};
const ADMIN: Definition = Definition {
    actions: &["Allow", "Deny", "Pass"],
    most: 100,
    both_selectors: true,
    domain_names: true,
    ports: "ports",
    names: CLUSTER.names,
};
const BASELINE: Definition = Definition {
    actions: &["Allow", "Deny"],
    domain_names: false,
    names: "networks/nodes peer cannot be set with namedPorts since there are no namedPorts for \
            networks/nodes",
    ..ADMIN
};
/// The most CIDRs, or domain names, of a peer.
const NETWORKS: usize = 25;
/// The most characters of a CIDR.
const CIDR_LENGTH: usize = 43;
/// The most characters of a rule's name.
const NAME_LENGTH: usize = 100;
const DOMAIN_NAME: &str = r"^(\*\.)?([a-zA-z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.)+[a-zA-z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.?$";

pub(super) fn validate(object: &Object, findings: &mut Findings) {
    let mut schema = Schema::new(object, findings);
    if !schema.required("spec") {
        return schema.finish();
    }
    if let Some(policy) = object.as_cluster_network_policy() {
        let spec = &policy.spec;
        unknown("spec", &spec.unknown, Part::Policy, &mut schema);
        schema.one_of("spec.tier", &spec.tier, &["Admin", "Baseline"]);
        schema.number("spec.priority", spec.priority, 0, 1000);
        subject(&spec.subject, &CLUSTER, &mut schema);
        for direction in ["ingress", "egress"] {
            schema.items(&format!("spec.{direction}"), 0, CLUSTER.most);
        }
        for (index, rule) in spec.ingress.iter().enumerate() {
            let path = format!("spec.ingress[{index}]");
            let head = (
                rule.name.as_str(),
                rule.action.as_str(),
                rule.unknown.as_slice(),
            );
            let from = rule.from.as_deref().unwrap_or_default();
            rule_head(&path, head, "from", &CLUSTER, &mut schema);
            ingress_peers(&path, from, &rule.action, &CLUSTER, &mut schema);
            protocols(&path, rule.protocols.as_deref(), &rule.action, &mut schema);
        }
        for (index, rule) in spec.egress.iter().enumerate() {
            let path = format!("spec.egress[{index}]");
            let head = (
                rule.name.as_str(),
                rule.action.as_str(),
                rule.unknown.as_slice(),
            );
            let to = rule.to.as_deref().unwrap_or_default();
            rule_head(&path, head, "to", &CLUSTER, &mut schema);
            egress_peers(&path, to, &rule.action, &CLUSTER, &mut schema);
            protocols(&path, rule.protocols.as_deref(), &rule.action, &mut schema);
            let mut items = rule.protocols.iter().flatten();
            let named = items.any(|item| item.destination_named_port.is_some());
            names_beside_addresses(&path, to, named, &CLUSTER, &mut schema);
        }
    }
    if let Some(policy) = object.as_admin_network_policy() {
        let spec = &policy.spec;
        unknown("spec", &spec.unknown, Part::Policy, &mut schema);
        schema.number("spec.priority", spec.priority, 0, 1000);
        subject(&spec.subject, &ADMIN, &mut schema);
        admin_rules(&spec.ingress, &spec.egress, &ADMIN, &mut schema);
    }
    if let Some(policy) = object.as_baseline_admin_network_policy() {
        let spec = &policy.spec;
        unknown("spec", &spec.unknown, Part::Policy, &mut schema);
        if object.name() != "default" {
            let message = "Only one baseline admin network policy with metadata.name=\"default\" \
                           can be created in the cluster";
            schema.rule("<nil>", "object", message);
        }
        subject(&spec.subject, &BASELINE, &mut schema);
        admin_rules(&spec.ingress, &spec.egress, &BASELINE, &mut schema);
    }
    schema.finish();
}

/// The tier and the priority of a policy that has both.
pub(super) fn rank(object: &Object) -> Option<(&str, i32)> {
    if let Some(policy) = object.as_cluster_network_policy() {
        return Some((&policy.spec.tier, policy.spec.priority));
    }
    let policy = object.as_admin_network_policy()?;
    Some(("Admin", policy.spec.priority))
}

fn admin_rules(
    ingress: &[admin::IngressRule],
    egress: &[admin::EgressRule],
    definition: &Definition,
    schema: &mut Schema<'_>,
) {
    for direction in ["ingress", "egress"] {
        schema.items(&format!("spec.{direction}"), 0, definition.most);
    }
    for (index, rule) in ingress.iter().enumerate() {
        let path = format!("spec.ingress[{index}]");
        let head = (
            rule.name.as_str(),
            rule.action.as_str(),
            rule.unknown.as_slice(),
        );
        let from = rule.from.as_deref().unwrap_or_default();
        rule_head(&path, head, "from", definition, schema);
        ingress_peers(&path, from, &rule.action, definition, schema);
        ports(&path, rule.ports.as_deref(), &rule.action, schema);
    }
    for (index, rule) in egress.iter().enumerate() {
        let path = format!("spec.egress[{index}]");
        let head = (
            rule.name.as_str(),
            rule.action.as_str(),
            rule.unknown.as_slice(),
        );
        let to = rule.to.as_deref().unwrap_or_default();
        rule_head(&path, head, "to", definition, schema);
        egress_peers(&path, to, &rule.action, definition, schema);
        ports(&path, rule.ports.as_deref(), &rule.action, schema);
        let mut items = rule.ports.iter().flatten();
        let named = items.any(|item| item.named_port.is_some());
        names_beside_addresses(&path, to, named, definition, schema);
    }
}

/// What fails closed because of a member that nobody knows.
#[derive(Clone, Copy)]
enum Part<'a> {
    /// Every rule of the policy.
    Policy,
    /// One rule, of this action.
    Rule(&'a str),
}

/// Warns of members that a newer API may have, which have been let in.
fn unknown(path: &str, names: &[String], part: Part<'_>, schema: &mut Schema<'_>) {
    let comes_to = match part {
        Part::Policy => {
            ", so every rule fails closed: Accept matches nothing, Deny and Pass deny all traffic \
             of the subject"
        }
        Part::Rule(action) => fails_closed(action),
    };
    for name in names {
        schema
            .findings
            .warnings
            .push(format!("{path}.{name}: nothing is known of it{comes_to}"));
    }
}

/// What an unknown member below a rule comes to.
fn fails_closed(action: &str) -> &'static str {
    match action {
        "Accept" | "Allow" => ": the rule matches nothing",
        _ => ": the rule denies all traffic of the subject",
    }
}

fn selector(by: &Selection, path: &str, part: Part<'_>, schema: &mut Schema<'_>) {
    selectors::validate(&by.known(), path, schema.findings);
    unknown(path, by.unknown(), part, schema);
}

fn subject(subject: &Subject, definition: &Definition, schema: &mut Schema<'_>) {
    let path = "spec.subject";
    if !schema.required(path) {
        return;
    }
    schema.one_member(path);
    unknown(path, &subject.unknown, Part::Policy, schema);
    if let Some(namespaces) = &subject.namespaces {
        let path = format!("{path}.namespaces");
        selector(namespaces, &path, Part::Policy, schema);
    }
    if let Some(pods) = &subject.pods {
        let path = format!("{path}.pods");
        namespaced_pod(pods, &path, Part::Policy, definition, schema);
    }
}

fn namespaced_pod(
    pods: &NamespacedPod,
    path: &str,
    part: Part<'_>,
    definition: &Definition,
    schema: &mut Schema<'_>,
) {
    let (namespaces, labels) = (
        format!("{path}.namespaceSelector"),
        format!("{path}.podSelector"),
    );
    if definition.both_selectors {
        schema.required(&namespaces);
    }
    schema.required(&labels);
    unknown(path, &pods.unknown, part, schema);
    selector(&pods.namespace_selector, &namespaces, part, schema);
    selector(&pods.pod_selector, &labels, part, schema);
}

fn rule_head(
    path: &str,
    (name, action, names): (&str, &str, &[String]),
    peers: &str,
    definition: &Definition,
    schema: &mut Schema<'_>,
) {
    schema.length(&format!("{path}.name"), name, NAME_LENGTH);
    schema.one_of(&format!("{path}.action"), action, definition.actions);
    let peers = format!("{path}.{peers}");
    if schema.required(&peers) {
        schema.items(&peers, 1, definition.most);
    }
    schema.items(&format!("{path}.{}", definition.ports), 1, definition.most);
    unknown(path, names, Part::Rule(action), schema);
}

fn ingress_peers(
    path: &str,
    peers: &[IngressPeer],
    action: &str,
    definition: &Definition,
    schema: &mut Schema<'_>,
) {
    for (index, peer) in peers.iter().enumerate() {
        let path = format!("{path}.from[{index}]");
        schema.one_member(&path);
        unknown(&path, &peer.unknown, Part::Rule(action), schema);
        if let Some(namespaces) = &peer.namespaces {
            let path = format!("{path}.namespaces");
            selector(namespaces, &path, Part::Rule(action), schema);
        }
        if let Some(pods) = &peer.pods {
            let path = format!("{path}.pods");
            namespaced_pod(pods, &path, Part::Rule(action), definition, schema);
        }
    }
}

fn egress_peers(
    path: &str,
    peers: &[EgressPeer],
    action: &str,
    definition: &Definition,
    schema: &mut Schema<'_>,
) {
    for (index, peer) in peers.iter().enumerate() {
        let path = format!("{path}.to[{index}]");
        schema.one_member(&path);
        unknown(&path, &peer.unknown, Part::Rule(action), schema);
        let selected = [("namespaces", &peer.namespaces), ("nodes", &peer.nodes)];
        for (member, by) in selected {
            if let Some(by) = by {
                let path = format!("{path}.{member}");
                selector(by, &path, Part::Rule(action), schema);
            }
        }
        if let Some(pods) = &peer.pods {
            let path = format!("{path}.pods");
            namespaced_pod(pods, &path, Part::Rule(action), definition, schema);
        }
        networks(&path, peer.networks.as_deref(), schema);
        let names = peer.domain_names.as_deref();
        domain_names(&path, names, action, definition, schema);
    }
}

fn networks(path: &str, networks: Option<&[String]>, schema: &mut Schema<'_>) {
    let networks = networks.unwrap_or_default();
    schema.items(&format!("{path}.networks"), 1, NETWORKS);
    for (index, text) in networks.iter().enumerate() {
        let path = format!("{path}.networks[{index}]");
        schema.length(&path, text, CIDR_LENGTH);
        schema.new_in_set(&path, text, &networks[..index]);
        if cidr::parse(text).is_none_or(|block| block.odd) {
            schema.rule(&path, "string", "Invalid CIDR format provided");
        }
    }
}

fn domain_names(
    path: &str,
    names: Option<&[String]>,
    action: &str,
    definition: &Definition,
    schema: &mut Schema<'_>,
) {
    let Some(names) = names else { return };
    let path = format!("{path}.domainNames");
    if !definition.domain_names {
        let message = "a BaselineAdminNetworkPolicy has no domainNames";
        return schema.findings.forbidden(path, message);
    }
    schema.items(&path, 1, NETWORKS);
    for (index, name) in names.iter().enumerate() {
        let path = format!("{path}[{index}]");
        schema.new_in_set(&path, name, &names[..index]);
        if !is_domain_name(name) {
            let message = format!("{path} in body should match '{DOMAIN_NAME}'");
            schema.findings.invalid(path, name.as_str(), &message);
        }
    }
    schema.findings.warnings.push(format!(
        "{path}: domain names are not supported{}",
        fails_closed(action)
    ));
}

/// Whether [`DOMAIN_NAME`] matches, which takes more than it means to (`A-z`).
fn is_domain_name(name: &str) -> bool {
    let name = name.strip_prefix("*.").unwrap_or(name);
    let name = name.strip_suffix('.').unwrap_or(name);
    let label = |label: &str| {
        let bytes = label.as_bytes();
        let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
            return false;
        };
        (first.is_ascii_digit() || (b'A'..=b'z').contains(first))
            && (bytes.len() == 1 || last.is_ascii_alphanumeric())
            && bytes[1..]
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(b))
    };
    name.contains('.') && name.split('.').all(label)
}

/// Ports have names on pods only.
fn names_beside_addresses(
    path: &str,
    peers: &[EgressPeer],
    named: bool,
    definition: &Definition,
    schema: &mut Schema<'_>,
) {
    let addresses = |peer: &EgressPeer| {
        peer.networks.is_some() || peer.nodes.is_some() || peer.domain_names.is_some()
    };
    if named && peers.iter().any(addresses) {
        schema.rule(path, "object", definition.names);
    }
}

fn protocols(
    path: &str,
    protocols: Option<&[cluster::Protocol]>,
    action: &str,
    schema: &mut Schema<'_>,
) {
    for (index, protocol) in protocols.unwrap_or_default().iter().enumerate() {
        let path = format!("{path}.protocols[{index}]");
        schema.one_member(&path);
        unknown(&path, &protocol.unknown, Part::Rule(action), schema);
        for (name, transport) in [
            ("tcp", &protocol.tcp),
            ("udp", &protocol.udp),
            ("sctp", &protocol.sctp),
        ] {
            if let Some(transport) = transport {
                transport_fields(&format!("{path}.{name}"), transport, action, schema);
            }
        }
        port_name(
            &path,
            "destinationNamedPort",
            &protocol.destination_named_port,
            schema,
        );
    }
}

fn transport_fields(
    path: &str,
    transport: &cluster::Transport,
    action: &str,
    schema: &mut Schema<'_>,
) {
    schema.a_member(path);
    unknown(path, &transport.unknown, Part::Rule(action), schema);
    let Some(port) = &transport.destination_port else {
        return;
    };
    let path = format!("{path}.destinationPort");
    schema.one_member(&path);
    unknown(&path, &port.unknown, Part::Rule(action), schema);
    if let Some(number) = port.number {
        schema.number(&format!("{path}.number"), number, 1, 65535);
    }
    if let Some(range) = &port.range {
        let path = format!("{path}.range");
        unknown(&path, &range.unknown, Part::Rule(action), schema);
        ends(&path, range.start, range.end, schema);
    }
}

fn ends(path: &str, start: i32, end: i32, schema: &mut Schema<'_>) {
    schema.number(&format!("{path}.start"), start, 1, 65535);
    schema.number(&format!("{path}.end"), end, 1, 65535);
    if start >= end {
        schema.rule(path, "object", "Start port must be less than End port");
    }
}

/// The definition takes any text, but none that no container's port can have names one.
fn port_name(path: &str, member: &str, name: &Option<String>, schema: &mut Schema<'_>) {
    for message in name
        .as_deref()
        .into_iter()
        .flat_map(super::names::is_port_name)
    {
        let name = name.as_deref().unwrap_or_default();
        schema
            .findings
            .invalid(format!("{path}.{member}"), name, &message);
    }
}

fn ports(path: &str, ports: Option<&[admin::Port]>, action: &str, schema: &mut Schema<'_>) {
    for (index, port) in ports.unwrap_or_default().iter().enumerate() {
        let path = format!("{path}.ports[{index}]");
        schema.one_member(&path);
        unknown(&path, &port.unknown, Part::Rule(action), schema);
        if let Some(one) = &port.port_number {
            let path = format!("{path}.portNumber");
            unknown(&path, &one.unknown, Part::Rule(action), schema);
            let protocol = one.protocol.as_deref();
            schema
                .findings
                .protocol(format!("{path}.protocol"), protocol);
            schema.number(&format!("{path}.port"), one.port, 1, 65535);
        }
        if let Some(several) = &port.port_range {
            let path = format!("{path}.portRange");
            unknown(&path, &several.unknown, Part::Rule(action), schema);
            let protocol = several.protocol.as_deref();
            schema
                .findings
                .protocol(format!("{path}.protocol"), protocol);
            ends(&path, several.start, several.end, schema);
        }
        port_name(&path, "namedPort", &port.named_port, schema);
    }
}
