//! SecurityGroup, and AWS's SecurityGroupPolicy (its definition, `vpcresources.k8s.aws`).

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::crd::Schema;
use super::{Findings, names, network_policy, selectors};
use crate::cluster::Cluster;
use crate::objects::policy_api::groups::{SecurityGroupRule, SecurityGroupSpec};
use crate::objects::policy_api::{SecurityGroup, SecurityGroupPolicy};
use crate::objects::{Key, Object, kinds};

/// The most rules of a direction: EC2's bound for all groups of an interface together.
pub const MAX_RULES: usize = 1000;
/// The most groups of a binding: EC2's default bound for an interface.
pub const MAX_GROUPS: usize = 5;
/// The most characters of a description, as in EC2.
const DESCRIPTION: usize = 255;
const PROTOCOLS: [&str; 8] = [
    "-1", "all", "tcp", "udp", "sctp", "icmp", "icmpv6", "0 to 255",
];

pub(super) fn validate_group(object: &Object, old: Option<&Object>, findings: &mut Findings) {
    let Some(group) = object.as_security_group() else {
        return;
    };
    let spec = &group.spec;
    let kept = old.and_then(|old| old.as_security_group());
    let kept = kept.map(|old| cidrs(&old.spec)).unwrap_or_default();
    for name in &spec.unknown {
        findings.warnings.push(format!(
            "spec.{name}: nothing is known of it: no rule of the group allows anything"
        ));
    }
    description("spec", spec.description.as_deref(), findings);
    if spec.egress.is_none() {
        findings.warnings.push(
            "spec.egress: absent: members may open no connection (EC2 adds a rule for all egress \
             to a new group; here it has to be written)"
                .to_owned(),
        );
    }
    for (direction, rules) in [("ingress", &spec.ingress), ("egress", &spec.egress)] {
        let rules = rules.as_deref().unwrap_or_default();
        let path = format!("spec.{direction}");
        if rules.len() > MAX_RULES {
            let length = rules.len();
            let message = format!("Too many: {length}: must have at most {MAX_RULES} items");
            findings.push(path.as_str(), message);
        }
        for (index, one) in rules.iter().enumerate() {
            rule(one, &format!("{path}[{index}]"), &kept, findings);
        }
    }
}

fn cidrs(spec: &SecurityGroupSpec) -> Vec<String> {
    let rules = spec.ingress.iter().chain(&spec.egress).flatten();
    let cidrs = rules.flat_map(|rule| rule.cidrs.iter().flatten());
    cidrs.cloned().collect()
}

fn description(path: &str, text: Option<&str>, findings: &mut Findings) {
    if text.is_some_and(|text| text.chars().count() > DESCRIPTION) {
        let message = format!("Too long: may not be more than {DESCRIPTION} bytes");
        findings.push(format!("{path}.description"), message);
    }
}

fn rule(rule: &SecurityGroupRule, path: &str, kept: &[String], findings: &mut Findings) {
    for name in &rule.unknown {
        findings.warnings.push(format!(
            "{path}.{name}: nothing is known of it: the rule allows nothing"
        ));
    }
    description(path, rule.description.as_deref(), findings);
    protocol(rule, path, findings);
    let (cidrs, groups) = (
        rule.cidrs.as_deref().unwrap_or_default(),
        rule.security_groups.as_deref().unwrap_or_default(),
    );
    if cidrs.is_empty() && groups.is_empty() && rule.unknown.is_empty() {
        findings.required(path, "must specify cidrs or securityGroups");
    }
    for (index, text) in cidrs.iter().enumerate() {
        let path = format!("{path}.cidrs[{index}]");
        network_policy::checked(text, path, kept, findings);
    }
    for (index, name) in groups.iter().enumerate() {
        for message in names::is_dns_1123_subdomain(name) {
            let path = format!("{path}.securityGroups[{index}]");
            findings.invalid(path, name.as_str(), &message);
        }
    }
}

fn protocol(rule: &SecurityGroupRule, path: &str, findings: &mut Findings) {
    let stated = match &rule.protocol {
        None => return findings.required(format!("{path}.protocol"), ""),
        Some(IntOrString::Int(number)) => number.to_string(),
        Some(IntOrString::String(name)) => name.clone(),
    };
    let number = |text: &str| {
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        digits && text.parse::<u8>().is_ok()
    };
    if !PROTOCOLS[..7].contains(&stated.as_str()) && !number(&stated) {
        let path = format!("{path}.protocol");
        return findings.unsupported(path, &stated, &PROTOCOLS);
    }
    let (from, to) = (format!("{path}.fromPort"), format!("{path}.toPort"));
    if !["tcp", "udp", "sctp", "6", "17", "132"].contains(&stated.as_str()) {
        for (path, port) in [(from, rule.from_port), (to, rule.to_port)] {
            if port.is_some_and(|port| port != -1) {
                findings.forbidden(path, "may be specified for tcp, udp and sctp only");
            }
        }
        return;
    }
    match (rule.from_port, rule.to_port) {
        (None, None) => {}
        (Some(_), None) => findings.required(to, "must be specified when `fromPort` is"),
        (None, Some(_)) => findings.required(from, "must be specified when `toPort` is"),
        (Some(first), Some(last)) => {
            for (path, port) in [(&from, first), (&to, last)] {
                if !(0..=65535).contains(&port) {
                    let message = "must be between 0 and 65535, inclusive";
                    findings.invalid(path.as_str(), port, message);
                }
            }
            if last < first {
                findings.invalid(to, last, "must be greater than or equal to `fromPort`");
            }
        }
    }
}

pub(super) fn validate_binding(object: &Object, findings: &mut Findings) {
    let Some(policy) = object.as_security_group_policy() else {
        return;
    };
    let spec = &policy.spec;
    let unknown = spec.unknown.iter().map(|name| format!("spec.{name}"));
    let groups = &spec.security_groups;
    let below = groups.unknown.iter();
    let mut unknown: Vec<String> = unknown
        .chain(below.map(|name| format!("spec.securityGroups.{name}")))
        .collect();
    for (member, selector) in [
        ("podSelector", &spec.pod_selector),
        ("serviceAccountSelector", &spec.service_account_selector),
    ] {
        if let Some(selector) = selector {
            selectors::validate(&selector.known(), &format!("spec.{member}"), findings);
            let below = selector.unknown().iter();
            unknown.extend(below.map(|name| format!("spec.{member}.{name}")));
        }
    }
    let path = "spec.securityGroups.groupIds";
    let mut schema = Schema::new(object, findings);
    schema.items(path, 1, usize::MAX);
    let ids = groups.group_ids.as_deref().unwrap_or_default();
    if ids.len() > MAX_GROUPS {
        let message = format!(
            "Too many: {}: must have at most {MAX_GROUPS} items",
            ids.len()
        );
        findings.push(path, message);
    }
    for (index, id) in ids.iter().enumerate() {
        for message in names::is_dns_1123_subdomain(id) {
            findings.invalid(
                format!("{path}[{index}]"),
                Value::from(id.as_str()),
                &message,
            );
        }
    }
    for path in &unknown {
        findings.warnings.push(format!(
            "{path}: nothing is known of it: the pods that the rest selects are bound to no group"
        ));
    }
    let selects = spec.pod_selector.is_some() || spec.service_account_selector.is_some();
    if unknown.is_empty() && (!selects || ids.is_empty()) {
        let lacks = if selects { "groups" } else { "selectors" };
        findings.warnings.push(format!(
            "spec: without {lacks} it binds no pod and has no effect"
        ));
    }
}

/// Warnings of groups that pods are bound to and that do not exist, after a change of `object` to
/// what `cluster` holds now: such a group allows nothing, which may not be what was meant.
pub fn absent_groups(object: &Object, cluster: &Cluster) -> Vec<String> {
    let exists = |name: &str| {
        let kind = kinds::of::<SecurityGroup>();
        kind.is_some_and(|kind| cluster.get(&Key::new(kind, "", name)).is_some())
    };
    if let Some(policy) = object.as_security_group_policy() {
        if cluster.get(object.key()).is_none() {
            return Vec::new();
        }
        let ids = policy.spec.security_groups.group_ids.iter().flatten();
        let absent = ids.filter(|id| !exists(id));
        let path = "spec.securityGroups.groupIds";
        return absent
            .map(|id| format!("{path}: there is no SecurityGroup {id:?}: it allows nothing"))
            .collect();
    }
    let name = object.name();
    if object.as_security_group().is_none() || exists(name) {
        return Vec::new();
    }
    let names_it = |policy: &&Arc<Object>| {
        let policy = policy.as_security_group_policy();
        let mut ids = policy.into_iter().flat_map(|policy| {
            let ids = &policy.spec.security_groups.group_ids;
            ids.iter().flatten()
        });
        ids.any(|id| id == name)
    };
    let policies = cluster.list_of::<SecurityGroupPolicy>();
    policies
        .filter(names_it)
        .take(3)
        .map(|policy| {
            let policy = policy.key().display();
            format!("{policy} still binds pods to {name:?}, which allows nothing from now on")
        })
        .collect()
}
