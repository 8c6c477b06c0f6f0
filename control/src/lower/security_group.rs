//! SecurityGroup and SecurityGroupPolicy as [`Draft`]s.
//!
//! A group's rules are about its members; a SecurityGroupPolicy puts pods into groups. What of
//! either cannot be read allows nothing: [`policy_api`](crate::objects::policy_api) says when that
//! is so.

use std::sync::Arc;

use dataplane::policy::ir::{Action, Block, PortRange};
use dataplane::{Protocol, Tier};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::draft::{Draft, DraftChain, DraftPeers, DraftRule, Order, Picked, Subject, is_audit};
use super::namespaces::Scope;
use super::ports::{DraftPorts, all_of};
use crate::cidr;
use crate::objects::Object;
use crate::objects::policy_api::groups::SecurityGroupRule;
use crate::selector::Selector;

/// What a SecurityGroup or SecurityGroupPolicy says; `None` for an object of another kind, and for
/// a SecurityGroupPolicy without effect.
pub fn draft(object: &Object) -> Option<Draft> {
    if let Some(group) = object.as_security_group() {
        let spec = &group.spec;
        let readable = spec.unknown.is_empty();
        let chain = |rules: &Option<Vec<SecurityGroupRule>>| DraftChain {
            isolates: false,
            rules: rules
                .iter()
                .flatten()
                .map(|rule| allow(rule).filter(|_| readable))
                .map(|rule| rule.unwrap_or_else(|| DraftRule::unreadable(Action::Accept)))
                .collect(),
        };
        return Some(Draft {
            order: Order::plain(Tier::SecurityGroup, object),
            audit: is_audit(object),
            subject: Subject::Group(object.key().name.clone()),
            groups: Vec::new(),
            ingress: chain(&spec.ingress),
            egress: chain(&spec.egress),
        });
    }
    binding(object)
}

/// Binds pods to groups. One of which a part cannot be read binds those that the readable part
/// selects to no group, so that they may do nothing.
fn binding(object: &Object) -> Option<Draft> {
    let spec = &object.as_security_group_policy()?.spec;
    let ids = spec
        .security_groups
        .group_ids
        .as_deref()
        .unwrap_or_default();
    let known = spec.unknown.is_empty() && spec.security_groups.unknown.is_empty();
    let (pods, accounts) = (&spec.pod_selector, &spec.service_account_selector);
    let selects = pods.is_some() || accounts.is_some();
    let (selector, unread_pods) = pods
        .as_deref()
        .map(Selector::new)
        .unwrap_or_default()
        .readable();
    let account = accounts.as_deref().map(|by| Selector::new(by).readable());
    let unread_accounts = account.as_ref().is_some_and(|(_, unread)| *unread);
    let whole = known && !unread_pods && !unread_accounts;
    if whole && (!selects || ids.is_empty()) {
        // AWS takes no notice of such a one.
        return None;
    }
    let groups = ids.iter().map(|id| Arc::from(id.as_str()));
    let isolated = DraftChain {
        isolates: true,
        rules: Vec::new(),
    };
    Some(Draft {
        order: Order::plain(Tier::SecurityGroup, object),
        audit: is_audit(object),
        subject: Subject::Pods {
            scope: Scope::One(object.key().namespace.clone()),
            selector,
            account: account.map(|(selector, _)| selector),
        },
        groups: groups.filter(|_| whole).collect(),
        ingress: isolated.clone(),
        egress: isolated,
    })
}

/// `None` if any part of the rule cannot be read.
fn allow(rule: &SecurityGroupRule) -> Option<DraftRule> {
    rule.unknown.is_empty().then_some(())?;
    let groups = rule.security_groups.as_deref().unwrap_or_default();
    let picked = groups
        .iter()
        .map(|name| Picked::Group(Arc::from(name.as_str())));
    let blocks = rule.cidrs.iter().flatten().map(|text| {
        Some(Block {
            prefix: cidr::parse(text)?.net,
            except: Vec::new(),
        })
    });
    Some(DraftRule {
        action: Action::Accept,
        peers: DraftPeers::of(picked.collect(), blocks.collect::<Option<_>>()?),
        ports: ports(rule)?,
    })
}

fn ports(rule: &SecurityGroupRule) -> Option<DraftPorts> {
    // Beside a protocol without ports -1 is as absent.
    let stated = |port: Option<i32>| port.filter(|port| *port != -1);
    let (from, to) = (rule.from_port, rule.to_port);
    let protocol = match protocol(rule.protocol.as_ref()?)? {
        Some(protocol) if protocol.has_ports() => protocol,
        _ if stated(from).or(stated(to)).is_some() => return None,
        Some(protocol) => return Some(DraftPorts::of(vec![all_of(protocol)], Vec::new())),
        None => return Some(DraftPorts::Any),
    };
    let range = match (from, to) {
        (None, None) => all_of(protocol),
        (Some(from), Some(to)) => PortRange {
            protocol,
            first: u16::try_from(from).ok()?,
            last: u16::try_from(to).ok().filter(|_| to >= from)?,
        },
        _ => return None,
    };
    Some(DraftPorts::of(vec![range], Vec::new()))
}

/// A protocol by name or number, in EC2's words; `Some(None)` is every protocol.
fn protocol(stated: &IntOrString) -> Option<Option<Protocol>> {
    let text = match stated {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(text) => text.clone(),
    };
    Some(match text.as_str() {
        "-1" | "all" => None,
        "tcp" => Some(Protocol::TCP),
        "udp" => Some(Protocol::UDP),
        "sctp" => Some(Protocol::SCTP),
        "icmp" => Some(Protocol::ICMP),
        "icmpv6" => Some(Protocol::ICMPV6),
        number if number.bytes().all(|digit| digit.is_ascii_digit()) => {
            Some(Protocol(number.parse().ok()?))
        }
        _ => return None,
    })
}
