//! NetworkPolicy as a [`Draft`].
//!
//! The rules are those of the API
//! (<https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/network-policy-v1/>).
//! A fragment that validation would refuse matches nothing and still isolates: a policy whose own
//! selector cannot be read isolates every pod that the readable part of it selects, and allows
//! nothing.

use std::sync::Arc;

use dataplane::Tier;
use dataplane::policy::ir::{Action, Block};
use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::draft::{Draft, DraftChain, DraftPeers, DraftRule, Order, Picked, Subject, is_audit};
use super::namespaces::Scope;
use super::ports::{DraftPorts, PortName, all_of, protocol, range};
use crate::cidr;
use crate::objects::Object;
use crate::selector::Selector;

/// What a NetworkPolicy says; `None` for an object of another kind.
pub fn draft(object: &Object) -> Option<Draft> {
    let default = NetworkPolicySpec::default();
    let spec = object.as_network_policy()?.spec.as_ref();
    let spec = spec.unwrap_or(&default);
    let home = &object.key().namespace;
    let (ingress, egress) = directions(spec);
    let selector = spec.pod_selector.as_ref().map(Selector::new);
    let (selector, unread) = selector.unwrap_or_default().readable();
    let chain = |isolates: bool, rules: &mut dyn Iterator<Item = DraftRule>| DraftChain {
        isolates,
        rules: match isolates && !unread {
            true => rules.collect(),
            false => Vec::new(),
        },
    };
    let received = spec.ingress.iter().flatten();
    let sent = spec.egress.iter().flatten();
    Some(Draft {
        order: Order::plain(Tier::NetworkPolicy, object),
        audit: is_audit(object),
        subject: Subject::Pods {
            scope: Scope::One(home.clone()),
            selector,
            account: None,
        },
        groups: Vec::new(),
        ingress: chain(
            ingress,
            &mut received.map(|rule| allow(home, rule.from.as_deref(), rule.ports.as_deref())),
        ),
        egress: chain(
            egress,
            &mut sent.map(|rule| allow(home, rule.to.as_deref(), rule.ports.as_deref())),
        ),
    })
}

/// Which directions a policy isolates: `policyTypes`, else ingress, and egress if it has a rule.
fn directions(spec: &NetworkPolicySpec) -> (bool, bool) {
    let stated = |name: &str| {
        let types = spec.policy_types.as_deref().unwrap_or_default();
        types.iter().any(|t| t == name)
    };
    if spec.policy_types.iter().flatten().next().is_none() {
        (true, spec.egress.iter().flatten().next().is_some())
    } else {
        (stated("Ingress"), stated("Egress"))
    }
}

fn allow(
    home: &Arc<str>,
    peers: Option<&[NetworkPolicyPeer]>,
    ports: Option<&[NetworkPolicyPort]>,
) -> DraftRule {
    DraftRule {
        action: Action::Accept,
        peers: draft_peers(home, peers.unwrap_or_default()),
        ports: draft_ports(ports.unwrap_or_default()),
    }
}

fn draft_peers(home: &Arc<str>, peers: &[NetworkPolicyPeer]) -> DraftPeers {
    if peers.is_empty() {
        return DraftPeers::Any;
    }
    let (mut picked, mut blocks) = (Vec::new(), Vec::new());
    for peer in peers {
        let selector = peer.pod_selector.as_ref().map(Selector::new);
        match (&peer.ip_block, &peer.namespace_selector, selector) {
            (Some(block), None, None) => blocks.extend(ip_block(block)),
            // With a selector beside the block the peer is invalid and matches nothing.
            (Some(_), ..) => {}
            (None, Some(by), selector) => {
                let scope = Scope::Matching(Selector::new(by));
                picked.push(Picked::Pods(scope, selector.unwrap_or_default()));
            }
            (None, None, Some(selector)) => {
                picked.push(Picked::Pods(Scope::One(home.clone()), selector));
            }
            // A peer without members is invalid and matches nothing.
            (None, None, None) => {}
        }
    }
    DraftPeers::of(picked, blocks)
}

/// `None` if the block is invalid: an exception that nobody can read takes away everything.
fn ip_block(block: &IPBlock) -> Option<Block> {
    let prefix = cidr::parse(&block.cidr)?.net;
    let texts = block.except.iter().flatten();
    let mut except = texts
        .map(|text| Some(cidr::parse(text)?.net))
        .collect::<Option<Vec<IpNet>>>()?;
    except.sort_unstable();
    except.dedup();
    Some(Block { prefix, except })
}

fn draft_ports(ports: &[NetworkPolicyPort]) -> DraftPorts {
    if ports.is_empty() {
        return DraftPorts::Any;
    }
    let (mut ranges, mut names) = (Vec::new(), Vec::new());
    for port in ports {
        let Some(protocol) = protocol(port.protocol.as_deref()) else {
            continue;
        };
        match (&port.port, port.end_port) {
            (None, None) => ranges.push(all_of(protocol)),
            (Some(IntOrString::Int(first)), last) => {
                ranges.extend(range(protocol, *first, last.unwrap_or(*first)));
            }
            (Some(IntOrString::String(name)), None) => names.push(PortName {
                name: name.clone(),
                protocol: Some(protocol),
            }),
            // Invalid, matches nothing.
            (None | Some(IntOrString::String(_)), Some(_)) => {}
        }
    }
    DraftPorts::of(ranges, names)
}
