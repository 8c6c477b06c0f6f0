//! ClusterNetworkPolicy, AdminNetworkPolicy and BaselineAdminNetworkPolicy. What cannot be read
//! fails closed, as [`policy_api`](crate::objects::policy_api) says.

use std::net::IpAddr;

use dataplane::{Direction, Protocol};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::{Case, Decision, Subject, Tier, blocks, pods, selectors};
use crate::objects::Object;
use crate::objects::policy_api::{
    AdminNetworkPolicy, BaselineAdminNetworkPolicy, ClusterNetworkPolicy, EgressPeer, IngressPeer,
    NamespacedPod, Subject as About, admin, cluster,
};

/// A policy with what puts it before or after others.
struct Ranked<'a> {
    /// Priority, then kind, then name.
    rank: (i32, u8, &'a str),
    object: &'a Object,
    about: &'a About,
    rules: Vec<Rule<'a>>,
    /// Whether its tier is known, and its spec has no unknown members.
    readable: bool,
}

/// One rule of any of the three kinds.
struct Rule<'a> {
    action: Action,
    /// Without unknown members.
    readable: bool,
    peers: Vec<Peer<'a>>,
    /// Absent: any traffic.
    ports: Option<Vec<Ports<'a>>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Action {
    Accept,
    Deny,
    Pass,
    Unknown,
}

enum Peer<'a> {
    Namespaces(&'a LabelSelector),
    Pods(&'a NamespacedPod),
    Nodes(&'a LabelSelector),
    Networks(&'a [String]),
    Unreadable,
}

enum Ports<'a> {
    Range(Protocol, i32, i32),
    Named(&'a str),
    Unreadable,
}

impl Case<'_> {
    /// What the policies of a tier say; `None` if none decides, or one passes on.
    pub(super) fn cluster_wide(&self, tier: Tier) -> Option<Decision> {
        for policy in self.ranked(tier) {
            let Some(subject_is_readable) = self.is_about(policy.about) else {
                continue;
            };
            let readable = policy.readable && subject_is_readable;
            for (index, rule) in policy.rules.iter().enumerate() {
                let decided = |accept: bool| {
                    Some(Decision {
                        accept,
                        tier,
                        policy: Some(policy.object.key().clone()),
                        rule: Some(index),
                    })
                };
                let matches = if readable { self.matches(rule) } else { None };
                match (rule.action, matches) {
                    (_, Some(false)) => {}
                    (Action::Accept, Some(true)) => return decided(true),
                    (Action::Deny, Some(true)) => return decided(false),
                    (Action::Pass, Some(true)) => return None,
                    // Not readable, or an action that nobody knows.
                    (Action::Accept, None) => {}
                    (_, _) => return decided(false),
                }
            }
        }
        None
    }

    /// The policies of a tier that are asked, in the order in which they are evaluated.
    fn ranked(&self, tier: Tier) -> Vec<Ranked<'_>> {
        let mut found = Vec::new();
        for object in self.world.cluster.list_of::<ClusterNetworkPolicy>() {
            let Some(policy) = object.as_cluster_network_policy() else {
                continue;
            };
            let whole = policy.spec.unknown.is_empty();
            let (own, readable) = match policy.spec.tier.as_str() {
                "Admin" => (Tier::Admin, whole),
                "Baseline" => (Tier::Baseline, whole),
                // The tier that nobody overrides.
                _ => (Tier::Admin, false),
            };
            if own == tier && self.is_asked(object) {
                found.push(Ranked {
                    rank: (policy.spec.priority, 1, object.name()),
                    object,
                    about: &policy.spec.subject,
                    rules: self.rules_of_cluster(&policy.spec),
                    readable,
                });
            }
        }
        if tier == Tier::Admin {
            for object in self.world.cluster.list_of::<AdminNetworkPolicy>() {
                let Some(policy) = object.as_admin_network_policy() else {
                    continue;
                };
                let spec = &policy.spec;
                if self.is_asked(object) {
                    found.push(Ranked {
                        rank: (spec.priority, 0, object.name()),
                        object,
                        about: &spec.subject,
                        rules: self.rules_of_admin(&spec.ingress, &spec.egress, true),
                        readable: spec.unknown.is_empty(),
                    });
                }
            }
        } else {
            for object in self.world.cluster.list_of::<BaselineAdminNetworkPolicy>() {
                let Some(policy) = object.as_baseline_admin_network_policy() else {
                    continue;
                };
                let spec = &policy.spec;
                if self.is_asked(object) {
                    found.push(Ranked {
                        rank: (i32::MAX, 2, object.name()),
                        object,
                        about: &spec.subject,
                        rules: self.rules_of_admin(&spec.ingress, &spec.egress, false),
                        readable: spec.unknown.is_empty(),
                    });
                }
            }
        }
        found.sort_by(|a, b| a.rank.cmp(&b.rank));
        found
    }

    fn rules_of_cluster<'a>(&self, spec: &'a cluster::ClusterNetworkPolicySpec) -> Vec<Rule<'a>> {
        let action = |text: &str| match text {
            "Accept" => Action::Accept,
            "Deny" => Action::Deny,
            "Pass" => Action::Pass,
            _ => Action::Unknown,
        };
        let ports = |list: &'a Option<Vec<cluster::Protocol>>| {
            let list = list.as_ref()?;
            Some(list.iter().map(protocol).collect())
        };
        match self.direction {
            Direction::Ingress => {
                let rule = |rule: &'a cluster::IngressRule| Rule {
                    action: action(&rule.action),
                    readable: rule.unknown.is_empty(),
                    peers: rule.from.iter().flatten().map(ingress_peer).collect(),
                    ports: ports(&rule.protocols),
                };
                spec.ingress.iter().map(rule).collect()
            }
            Direction::Egress => {
                let rule = |rule: &'a cluster::EgressRule| Rule {
                    action: action(&rule.action),
                    readable: rule.unknown.is_empty(),
                    peers: rule.to.iter().flatten().map(egress_peer).collect(),
                    ports: ports(&rule.protocols),
                };
                spec.egress.iter().map(rule).collect()
            }
        }
    }

    /// `passes` says whether the kind knows Pass.
    fn rules_of_admin<'a>(
        &self,
        ingress: &'a [admin::IngressRule],
        egress: &'a [admin::EgressRule],
        passes: bool,
    ) -> Vec<Rule<'a>> {
        let action = |text: &str| match text {
            "Allow" => Action::Accept,
            "Deny" => Action::Deny,
            "Pass" if passes => Action::Pass,
            _ => Action::Unknown,
        };
        let ports = |list: &'a Option<Vec<admin::Port>>| {
            let list = list.as_ref()?;
            Some(list.iter().map(port).collect())
        };
        match self.direction {
            Direction::Ingress => {
                let rule = |rule: &'a admin::IngressRule| Rule {
                    action: action(&rule.action),
                    readable: rule.unknown.is_empty(),
                    peers: rule.from.iter().flatten().map(ingress_peer).collect(),
                    ports: ports(&rule.ports),
                };
                ingress.iter().map(rule).collect()
            }
            Direction::Egress => {
                let rule = |rule: &'a admin::EgressRule| Rule {
                    action: action(&rule.action),
                    readable: rule.unknown.is_empty(),
                    peers: rule.to.iter().flatten().map(egress_peer).collect(),
                    ports: ports(&rule.ports),
                };
                egress.iter().map(rule).collect()
            }
        }
    }

    /// Whether a policy is about the pod, and if so whether its subject can be read.
    fn is_about(&self, about: &About) -> Option<bool> {
        let host_network = self
            .subject
            .typed
            .spec
            .as_ref()
            .and_then(|s| s.host_network);
        if host_network == Some(true) {
            return None;
        }
        let namespace = self.namespace_of(self.subject);
        let mut selects = true;
        // Exactly one of them is valid; both select what both do, neither everybody.
        let mut readable =
            about.unknown.is_empty() && about.namespaces.is_some() != about.pods.is_some();
        if let Some(selector) = &about.namespaces {
            readable &= selectors::is_readable(selector);
            selects &= selectors::readable_part_holds(selector, namespace);
        }
        if let Some(both) = &about.pods {
            readable &= both.unknown.is_empty()
                && selectors::is_readable(&both.namespace_selector)
                && selectors::is_readable(&both.pod_selector);
            let pod = Some(self.subject.object);
            selects &= selectors::readable_part_holds(&both.namespace_selector, namespace)
                && selectors::readable_part_holds(&both.pod_selector, pod);
        }
        selects.then_some(readable)
    }

    /// Whether a rule matches the traffic; `None` if it cannot be read.
    fn matches(&self, rule: &Rule<'_>) -> Option<bool> {
        if !rule.readable || rule.peers.is_empty() {
            return None;
        }
        let mut held = false;
        let mut pods_held: Vec<Subject<'_>> = Vec::new();
        let mut without_names = false;
        for peer in &rule.peers {
            match peer {
                Peer::Namespaces(by) => {
                    self.hold_pods(by, &LabelSelector::default(), &mut pods_held)?;
                }
                Peer::Pods(both) => {
                    if !both.unknown.is_empty() {
                        return None;
                    }
                    self.hold_pods(&both.namespace_selector, &both.pod_selector, &mut pods_held)?;
                }
                Peer::Nodes(by) => {
                    without_names = true;
                    held |= self.is_node(by)?;
                }
                Peer::Networks(list) => {
                    without_names = true;
                    if list.is_empty() {
                        return None;
                    }
                    for block in *list {
                        held |= blocks::holds(block, self.traffic.peer)?;
                    }
                }
                Peer::Unreadable => return None,
            }
        }
        held |= !pods_held.is_empty();
        let Some(ports) = &rule.ports else {
            return Some(held);
        };
        if ports.is_empty() {
            return None;
        }
        let destinations = match self.direction {
            Direction::Ingress => vec![self.subject],
            Direction::Egress => pods_held,
        };
        let mut named = false;
        let mut port_holds = false;
        for item in ports {
            match *item {
                Ports::Unreadable => return None,
                Ports::Range(protocol, first, last) => {
                    let number = self.traffic.port.map(i32::from);
                    port_holds |= protocol == self.traffic.protocol
                        && number.is_some_and(|number| first <= number && number <= last);
                }
                Ports::Named(name) => {
                    named = true;
                    let number = self.traffic.port;
                    port_holds |= number.is_some_and(|number| {
                        let protocol = self.traffic.protocol;
                        let calls =
                            |pod: &Subject<'_>| pods::calls_port(pod.typed, name, protocol, number);
                        destinations.iter().any(calls)
                    });
                }
            }
        }
        if named && without_names {
            return None;
        }
        Some(held && port_holds)
    }

    /// Adds the pods at the other end that both selectors hold; `None` if one cannot be read.
    fn hold_pods<'b>(
        &'b self,
        namespaces: &LabelSelector,
        labels: &LabelSelector,
        held: &mut Vec<Subject<'b>>,
    ) -> Option<()> {
        if !selectors::is_readable(namespaces) || !selectors::is_readable(labels) {
            return None;
        }
        for pod in &self.at_peer {
            let namespace = self.namespace_of(*pod);
            if namespace.is_some_and(|namespace| selectors::holds(namespaces, namespace))
                && selectors::holds(labels, pod.object)
            {
                held.push(*pod);
            }
        }
        Some(())
    }

    /// Whether the other end is an address of a node with such labels; `None` if the selector
    /// cannot be read.
    fn is_node(&self, by: &LabelSelector) -> Option<bool> {
        if !selectors::is_readable(by) {
            return None;
        }
        let mut nodes = self.world.cluster.list_of::<Node>();
        Some(nodes.any(|object| {
            let status = object.as_node().and_then(|node| node.status.as_ref());
            let addresses = status.and_then(|status| status.addresses.as_ref());
            selectors::holds(by, object)
                && addresses
                    .into_iter()
                    .flatten()
                    .any(|address| match address.address.parse() {
                        Ok(IpAddr::V6(v6)) => {
                            let own = v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4);
                            own == self.traffic.peer
                        }
                        Ok(v4) => v4 == self.traffic.peer,
                        Err(_) => false,
                    })
        }))
    }
}

fn ingress_peer(peer: &IngressPeer) -> Peer<'_> {
    match (&peer.namespaces, &peer.pods) {
        _ if !peer.unknown.is_empty() => Peer::Unreadable,
        (Some(by), None) => Peer::Namespaces(by),
        (None, Some(both)) => Peer::Pods(both),
        _ => Peer::Unreadable,
    }
}

fn egress_peer(peer: &EgressPeer) -> Peer<'_> {
    if !peer.unknown.is_empty() || peer.domain_names.is_some() {
        return Peer::Unreadable;
    }
    match (&peer.namespaces, &peer.pods, &peer.nodes, &peer.networks) {
        (Some(by), None, None, None) => Peer::Namespaces(by),
        (None, Some(both), None, None) => Peer::Pods(both),
        (None, None, Some(by), None) => Peer::Nodes(by),
        (None, None, None, Some(list)) => Peer::Networks(list),
        _ => Peer::Unreadable,
    }
}

/// A ClusterNetworkPolicy's protocol.
fn protocol(item: &cluster::Protocol) -> Ports<'_> {
    if !item.unknown.is_empty() {
        return Ports::Unreadable;
    }
    let (number, transport) = match (
        &item.tcp,
        &item.udp,
        &item.sctp,
        &item.destination_named_port,
    ) {
        (Some(tcp), None, None, None) => (6, tcp),
        (None, Some(udp), None, None) => (17, udp),
        (None, None, Some(sctp), None) => (132, sctp),
        (None, None, None, Some(name)) if !name.is_empty() => return Ports::Named(name),
        _ => return Ports::Unreadable,
    };
    let port = transport.destination_port.as_ref();
    let Some(port) = port.filter(|port| port.unknown.is_empty() && transport.unknown.is_empty())
    else {
        return Ports::Unreadable;
    };
    match (port.number, &port.range) {
        (Some(one), None) => range(Protocol(number), one, one),
        (None, Some(several)) if several.unknown.is_empty() && several.start < several.end => {
            range(Protocol(number), several.start, several.end)
        }
        _ => Ports::Unreadable,
    }
}

/// A port of the v1alpha1 kinds.
fn port(item: &admin::Port) -> Ports<'_> {
    if !item.unknown.is_empty() {
        return Ports::Unreadable;
    }
    let by_name = |name: &Option<String>| pods::protocol_number(name.as_deref().unwrap_or("TCP"));
    match (&item.port_number, &item.named_port, &item.port_range) {
        (Some(one), None, None) if one.unknown.is_empty() => match by_name(&one.protocol) {
            Some(protocol) => range(protocol, one.port, one.port),
            None => Ports::Unreadable,
        },
        (None, Some(name), None) if !name.is_empty() => Ports::Named(name),
        (None, None, Some(several)) if several.unknown.is_empty() => {
            match by_name(&several.protocol) {
                Some(protocol) if several.start < several.end => {
                    range(protocol, several.start, several.end)
                }
                _ => Ports::Unreadable,
            }
        }
        _ => Ports::Unreadable,
    }
}

fn range<'a>(protocol: Protocol, first: i32, last: i32) -> Ports<'a> {
    if first < 1 || last > 65535 {
        return Ports::Unreadable;
    }
    Ports::Range(protocol, first, last)
}
