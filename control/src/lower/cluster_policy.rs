//! ClusterNetworkPolicy, AdminNetworkPolicy and BaselineAdminNetworkPolicy as [`Draft`]s.
//!
//! A rule that cannot be read as a whole fails closed, in its place in the order:
//! [`policy_api`](crate::objects::policy_api) says when that is so.

use dataplane::policy::ir::{Action, Block, PortRange};
use dataplane::{Protocol, Tier};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::draft::{Draft, DraftChain, DraftPeers, DraftRule, Order, Picked, Subject, is_audit};
use super::namespaces::Scope;
use super::ports::{self, DraftPorts, PortName};
use crate::cidr;
use crate::objects::Object;
use crate::objects::policy_api::{
    self as api, EgressPeer, IngressPeer, NamespacedPod, admin, cluster,
};
use crate::selector::Selector;

/// What a policy of the whole cluster says; `None` for an object of another kind.
pub fn draft(object: &Object) -> Option<Draft> {
    if let Some(policy) = object.as_cluster_network_policy() {
        let spec = &policy.spec;
        let (tier, known) = match spec.tier.as_str() {
            "Admin" => (Tier::Admin, true),
            "Baseline" => (Tier::Baseline, true),
            _ => (Tier::Admin, false),
        };
        let readable = known && spec.unknown.is_empty();
        let place = (tier, spec.priority, 1);
        let ingress = spec.ingress.iter().map(cluster_ingress);
        let egress = spec.egress.iter().map(cluster_egress);
        return Some(assemble(
            object,
            place,
            &spec.subject,
            readable,
            ingress,
            egress,
        ));
    }
    if let Some(policy) = object.as_admin_network_policy() {
        let spec = &policy.spec;
        let readable = spec.unknown.is_empty();
        let place = (Tier::Admin, spec.priority, 0);
        let ingress = spec.ingress.iter().map(|rule| admin_ingress(rule, true));
        let egress = spec.egress.iter().map(|rule| admin_egress(rule, true));
        return Some(assemble(
            object,
            place,
            &spec.subject,
            readable,
            ingress,
            egress,
        ));
    }
    let spec = &object.as_baseline_admin_network_policy()?.spec;
    let readable = spec.unknown.is_empty();
    let place = (Tier::Baseline, i32::MAX, 2);
    let ingress = spec.ingress.iter().map(|rule| admin_ingress(rule, false));
    let egress = spec.egress.iter().map(|rule| admin_egress(rule, false));
    Some(assemble(
        object,
        place,
        &spec.subject,
        readable,
        ingress,
        egress,
    ))
}

/// A rule's action, and the rest of it as far as it can be read.
struct Read {
    action: Action,
    matching: Option<(DraftPeers, DraftPorts)>,
}

fn assemble(
    object: &Object,
    (tier, priority, rank): (Tier, i32, u8),
    subject: &api::Subject,
    readable: bool,
    ingress: impl Iterator<Item = Read>,
    egress: impl Iterator<Item = Read>,
) -> Draft {
    let (subject, subject_readable) = draft_subject(subject);
    let readable = readable && subject_readable;
    let rule = |read: Read| match read.matching.filter(|_| readable) {
        Some((peers, ports)) => DraftRule {
            action: read.action,
            peers,
            ports,
        },
        None => DraftRule::unreadable(read.action),
    };
    let chain = |rules: Vec<DraftRule>| DraftChain {
        isolates: false,
        rules,
    };
    Draft {
        order: Order {
            priority,
            rank,
            ..Order::plain(tier, object)
        },
        audit: is_audit(object),
        subject,
        groups: Vec::new(),
        ingress: chain(ingress.map(rule).collect()),
        egress: chain(egress.map(rule).collect()),
    }
}

/// The pods that the readable part of a subject selects, and whether that is all of it.
fn draft_subject(subject: &api::Subject) -> (Subject, bool) {
    let mut whole = subject.unknown.is_empty();
    // Exactly one of them is valid; both select what both do, neither everybody.
    whole &= subject.namespaces.is_some() != subject.pods.is_some();
    let mut read = |selector: Option<&LabelSelector>| {
        let (selector, unread) = selector.map(Selector::new).unwrap_or_default().readable();
        whole &= !unread;
        selector
    };
    let pods = subject.pods.as_ref();
    let namespaces = read(subject.namespaces.as_deref());
    let namespaces = namespaces.and(read(pods.map(|pods| &*pods.namespace_selector)));
    let selector = read(pods.map(|pods| &*pods.pod_selector));
    whole &= pods.is_none_or(|pods| pods.unknown.is_empty());
    let subject = Subject::Pods {
        scope: Scope::Matching(namespaces),
        selector,
        account: None,
    };
    (subject, whole)
}

/// An action's name; `None` if it is none.
fn action(name: &str, accept: &str, passes: bool) -> Option<Action> {
    match name {
        _ if name == accept => Some(Action::Accept),
        "Deny" => Some(Action::Deny),
        "Pass" if passes => Some(Action::Pass),
        _ => None,
    }
}

/// Puts a rule together; one whose action nobody knows denies what it matches.
fn read(
    action: Option<Action>,
    matching: impl FnOnce() -> Option<(DraftPeers, DraftPorts)>,
) -> Read {
    Read {
        action: action.unwrap_or(Action::Deny),
        matching: matching(),
    }
}

fn cluster_ingress(rule: &cluster::IngressRule) -> Read {
    read(action(&rule.action, "Accept", true), || {
        rule.unknown.is_empty().then_some(())?;
        let peers = ingress_peers(rule.from.as_deref())?;
        Some((peers, protocols(rule.protocols.as_deref())?))
    })
}

fn cluster_egress(rule: &cluster::EgressRule) -> Read {
    read(action(&rule.action, "Accept", true), || {
        rule.unknown.is_empty().then_some(())?;
        let ports = protocols(rule.protocols.as_deref())?;
        Some((egress_peers(rule.to.as_deref(), &ports)?, ports))
    })
}

fn admin_ingress(rule: &admin::IngressRule, passes: bool) -> Read {
    read(action(&rule.action, "Allow", passes), || {
        rule.unknown.is_empty().then_some(())?;
        let peers = ingress_peers(rule.from.as_deref())?;
        Some((peers, admin_ports(rule.ports.as_deref())?))
    })
}

fn admin_egress(rule: &admin::EgressRule, passes: bool) -> Read {
    read(action(&rule.action, "Allow", passes), || {
        rule.unknown.is_empty().then_some(())?;
        let ports = admin_ports(rule.ports.as_deref())?;
        Some((egress_peers(rule.to.as_deref(), &ports)?, ports))
    })
}

/// A selector all of which can be read.
fn whole(selector: &LabelSelector) -> Option<Selector> {
    let (selector, unread) = Selector::new(selector).readable();
    (!unread).then_some(selector)
}

fn pods_in(namespaces: &LabelSelector) -> Option<Picked> {
    let scope = Scope::Matching(whole(namespaces)?);
    Some(Picked::Pods(scope, Selector::default()))
}

fn some_pods(pods: &NamespacedPod) -> Option<Picked> {
    pods.unknown.is_empty().then_some(())?;
    let scope = Scope::Matching(whole(&pods.namespace_selector)?);
    Some(Picked::Pods(scope, whole(&pods.pod_selector)?))
}

fn ingress_peers(peers: Option<&[IngressPeer]>) -> Option<DraftPeers> {
    let peers = peers.filter(|peers| !peers.is_empty())?;
    let picked = peers.iter().map(|peer| {
        peer.unknown.is_empty().then_some(())?;
        match (&peer.namespaces, &peer.pods) {
            (Some(namespaces), None) => pods_in(namespaces),
            (None, Some(pods)) => some_pods(pods),
            _ => None,
        }
    });
    Some(DraftPeers::of(picked.collect::<Option<_>>()?, Vec::new()))
}

fn egress_peers(peers: Option<&[EgressPeer]>, ports: &DraftPorts) -> Option<DraftPeers> {
    let peers = peers.filter(|peers| !peers.is_empty())?;
    let (mut picked, mut blocks) = (Vec::new(), Vec::new());
    // A port's name means something on pods only.
    let numbers_only = ports.names().is_empty();
    for peer in peers {
        let known = peer.unknown.is_empty() && peer.domain_names.is_none();
        known.then_some(())?;
        match (&peer.namespaces, &peer.pods, &peer.nodes, &peer.networks) {
            (Some(namespaces), None, None, None) => picked.push(pods_in(namespaces)?),
            (None, Some(pods), None, None) => picked.push(some_pods(pods)?),
            (None, None, Some(nodes), None) if numbers_only => {
                picked.push(Picked::Nodes(whole(nodes)?));
            }
            (None, None, None, Some(networks)) if numbers_only && !networks.is_empty() => {
                for network in networks {
                    blocks.push(Block {
                        prefix: cidr::parse(network)?.net,
                        except: Vec::new(),
                    });
                }
            }
            _ => return None,
        }
    }
    Some(DraftPeers::of(picked, blocks))
}

fn protocols(protocols: Option<&[cluster::Protocol]>) -> Option<DraftPorts> {
    let Some(protocols) = protocols else {
        return Some(DraftPorts::Any);
    };
    let (mut ranges, mut names) = (Vec::new(), Vec::new());
    for protocol in protocols {
        protocol.unknown.is_empty().then_some(())?;
        let name = &protocol.destination_named_port;
        match (&protocol.tcp, &protocol.udp, &protocol.sctp, name) {
            (Some(tcp), None, None, None) => ranges.push(transport(Protocol::TCP, tcp)?),
            (None, Some(udp), None, None) => ranges.push(transport(Protocol::UDP, udp)?),
            (None, None, Some(sctp), None) => ranges.push(transport(Protocol::SCTP, sctp)?),
            (None, None, None, Some(name)) => names.push(port_name(name)?),
            _ => return None,
        }
    }
    (!protocols.is_empty()).then(|| DraftPorts::of(ranges, names))
}

fn transport(protocol: Protocol, transport: &cluster::Transport) -> Option<PortRange> {
    let port = transport.destination_port.as_ref()?;
    let known = transport.unknown.is_empty() && port.unknown.is_empty();
    known.then_some(())?;
    match (port.number, &port.range) {
        (Some(number), None) => ports::range(protocol, number, number),
        (None, Some(range)) if range.unknown.is_empty() && range.start < range.end => {
            ports::range(protocol, range.start, range.end)
        }
        _ => None,
    }
}

fn admin_ports(ports: Option<&[admin::Port]>) -> Option<DraftPorts> {
    let Some(ports) = ports else {
        return Some(DraftPorts::Any);
    };
    let (mut ranges, mut names) = (Vec::new(), Vec::new());
    for port in ports {
        port.unknown.is_empty().then_some(())?;
        match (&port.port_number, &port.named_port, &port.port_range) {
            (Some(one), None, None) if one.unknown.is_empty() => {
                let protocol = ports::protocol(one.protocol.as_deref())?;
                ranges.push(ports::range(protocol, one.port, one.port)?);
            }
            (None, Some(name), None) => names.push(port_name(name)?),
            (None, None, Some(some)) if some.unknown.is_empty() && some.start < some.end => {
                let protocol = ports::protocol(some.protocol.as_deref())?;
                ranges.push(ports::range(protocol, some.start, some.end)?);
            }
            _ => return None,
        }
    }
    (!ports.is_empty()).then(|| DraftPorts::of(ranges, names))
}

/// The name of a port of any protocol.
fn port_name(name: &str) -> Option<PortName> {
    (!name.is_empty()).then(|| PortName {
        name: name.to_owned(),
        protocol: None,
    })
}
