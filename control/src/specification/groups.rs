//! Security groups and what binds pods to them
//! ([`policy_api::groups`](crate::objects::policy_api::groups)).

use dataplane::Direction;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Case, Decision, Subject, Tier, blocks, selectors};
use crate::objects::policy_api::groups::{SecurityGroupPolicySpec, SecurityGroupRule};
use crate::objects::{Key, Object, kinds};

impl Case<'_> {
    /// A denial, if the pod is bound to groups and no rule of any of them allows the traffic.
    pub(super) fn security_groups(&self) -> Option<Decision> {
        let bindings = self.bindings(self.subject);
        let first = bindings.first()?;
        let allowed = bindings
            .iter()
            .flat_map(|binding| &binding.groups)
            .any(|group| self.group_allows(group));
        (!allowed).then(|| Decision {
            accept: false,
            tier: Tier::SecurityGroup,
            policy: Some(first.policy.clone()),
            rule: None,
        })
    }

    fn group_allows(&self, name: &str) -> bool {
        let kind = kinds::find("weir.dev/v1alpha1", "SecurityGroup");
        let object = kind.and_then(|kind| self.world.cluster.get(&Key::new(kind, "", name)));
        // A group that does not exist, or is not asked, allows nothing.
        let object = object.filter(|object| self.is_asked(object));
        let Some(group) = object.and_then(|object| object.as_security_group()) else {
            return false;
        };
        if !group.spec.unknown.is_empty() {
            return false;
        }
        let rules = match self.direction {
            Direction::Ingress => group.spec.ingress.as_deref(),
            Direction::Egress => group.spec.egress.as_deref(),
        };
        let mut rules = rules.into_iter().flatten();
        rules.any(|rule| self.group_rule_allows(rule).unwrap_or(false))
    }

    /// `None` if the rule cannot be read.
    fn group_rule_allows(&self, rule: &SecurityGroupRule) -> Option<bool> {
        if !rule.unknown.is_empty() {
            return None;
        }
        let mut held = false;
        for block in rule.cidrs.iter().flatten() {
            held |= blocks::holds(block, self.traffic.peer)?;
        }
        for name in rule.security_groups.iter().flatten() {
            let is_member = |pod: &Subject<'_>| {
                let bindings = self.bindings(*pod);
                bindings.iter().any(|binding| binding.groups.contains(name))
            };
            held |= self.at_peer.iter().any(is_member);
        }
        Some(self.transport_holds(rule)? && held)
    }

    /// Whether the rule's protocol and ports hold the traffic; `None` if they cannot be read.
    fn transport_holds(&self, rule: &SecurityGroupRule) -> Option<bool> {
        let ports = match (rule.from_port, rule.to_port) {
            (None, None) => None,
            (Some(-1), Some(-1) | None) | (None, Some(-1)) => Some((-1, -1)),
            (Some(from), Some(to)) if (0..=to).contains(&from) && to <= 65535 => Some((from, to)),
            _ => return None,
        };
        let protocol = match rule.protocol.as_ref()? {
            IntOrString::Int(number) => number.to_string(),
            IntOrString::String(name) => name.clone(),
        };
        let number: u8 = match protocol.as_str() {
            "-1" | "all" => {
                return match ports {
                    None | Some((-1, -1)) => Some(true),
                    Some(_) => None,
                };
            }
            "icmp" => 1,
            "tcp" => 6,
            "udp" => 17,
            "icmpv6" => 58,
            "sctp" => 132,
            digits if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok()?,
            _ => return None,
        };
        let has_ports = [6, 17, 132].contains(&number);
        let port = self.traffic.port.map(i32::from);
        let in_range = match (has_ports, ports) {
            (false, None | Some((-1, -1))) => true,
            // All ports of the protocol: one that cannot be read is none of them.
            (true, None) => port.is_some(),
            (true, Some((from, to))) if from >= 0 => {
                port.is_some_and(|port| from <= port && port <= to)
            }
            _ => return None,
        };
        Some(self.traffic.protocol.0 == number && in_range)
    }

    /// What binds a pod to groups, by name.
    fn bindings(&self, pod: Subject<'_>) -> Vec<Binding> {
        let Some(kind) = kinds::find("vpcresources.k8s.aws/v1beta1", "SecurityGroupPolicy") else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for object in self.world.cluster.list_in(kind, pod.object.namespace()) {
            if let Some(policy) = object.as_security_group_policy()
                && self.is_asked(object)
                && let Some(groups) = self.groups_of(&policy.spec, pod)
            {
                found.push(Binding {
                    policy: object.key().clone(),
                    groups,
                });
            }
        }
        found
    }

    /// The groups to which a binding binds the pod; `None` if it does not.
    fn groups_of(&self, spec: &SecurityGroupPolicySpec, pod: Subject<'_>) -> Option<Vec<String>> {
        let groups = spec.security_groups.group_ids.clone().unwrap_or_default();
        let mut readable = spec.unknown.is_empty() && spec.security_groups.unknown.is_empty();
        for selector in spec
            .pod_selector
            .iter()
            .chain(&spec.service_account_selector)
        {
            readable &= selectors::is_readable(selector);
        }
        let selects = spec.pod_selector.is_some() || spec.service_account_selector.is_some();
        if readable && (!selects || groups.is_empty()) {
            return None;
        }
        if let Some(selector) = &spec.pod_selector
            && !selectors::readable_part_holds(selector, Some(pod.object))
        {
            return None;
        }
        if let Some(selector) = &spec.service_account_selector {
            match self.account_of(pod) {
                Account::Known(labels) => {
                    if !selectors::readable_part_holds(selector, labels) {
                        return None;
                    }
                }
                Account::Unknown => readable &= !selectors::has_requirements(selector),
            }
        }
        Some(if readable { groups } else { Vec::new() })
    }

    fn account_of(&self, pod: Subject<'_>) -> Account<'_> {
        let spec = pod.typed.spec.as_ref();
        let stated = spec.and_then(|spec| {
            let names = [&spec.service_account_name, &spec.service_account];
            names.into_iter().flatten().find(|name| !name.is_empty())
        });
        let name = stated.map_or("default", String::as_str);
        let kind = kinds::find("v1", "ServiceAccount");
        let key = kind.map(|kind| Key::new(kind, pod.object.namespace(), name));
        match key.and_then(|key| self.world.cluster.get(&key)) {
            Some(account) => Account::Known(Some(account)),
            // Every namespace has it, without labels.
            None if name == "default" => Account::Known(None),
            None => Account::Unknown,
        }
    }
}

/// A SecurityGroupPolicy that binds a pod.
struct Binding {
    policy: Key,
    groups: Vec<String>,
}

/// A pod's ServiceAccount.
enum Account<'a> {
    /// Its labels can be looked at; without an object it has none.
    Known(Option<&'a Object>),
    /// It is not in the cluster.
    Unknown,
}
