//! How a rule missed, in words: what the traffic has, and what the rule wants instead, as its
//! object says it.

use std::collections::BTreeSet;

use dataplane::policy::ir::PortRange;
use dataplane::policy::{PeerMatch, PortMatch, RuleMatch};
use dataplane::{Direction, PolicyId, Protocol};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;

use super::{End, View};
use crate::selector::{Selector, Test};

/// Peers and port ranges of one rule that are spelled out.
const SHOWN: usize = 5;

/// The question that a rule missed.
pub(super) struct Question<'a> {
    pub(super) view: &'a View<'a>,
    pub(super) direction: Direction,
    /// The end that is not the pod whose policy it is.
    pub(super) peer: &'a End,
    pub(super) protocol: Protocol,
    pub(super) port: Option<u16>,
}

/// What a rule's peers are.
#[derive(Default)]
struct Wanted {
    words: Vec<String>,
    /// Label keys that it looks at.
    pod_keys: BTreeSet<String>,
    namespace_keys: BTreeSet<String>,
}

impl Question<'_> {
    /// `rule 2 fails on port: 3306, wants 3307`.
    pub(super) fn miss(&self, policy: PolicyId, rule: &RuleMatch) -> String {
        let index = rule.index;
        let peer = (rule.peer != PeerMatch::Matched).then(|| self.peer_miss(policy, rule));
        let port = match &rule.port {
            PortMatch::Matched => None,
            PortMatch::Wanted(ranges) => Some(self.port_miss(ranges)),
        };
        match (peer, port) {
            (Some(peer), Some(port)) => {
                format!("rule {index} fails on peer: {peer}; on port: {port}")
            }
            (Some(peer), None) => format!("rule {index} fails on peer: {peer}"),
            (None, Some(port)) => format!("rule {index} fails on port: {port}"),
            (None, None) => format!("rule {index} matches"),
        }
    }

    fn port_miss(&self, ranges: &[PortRange]) -> String {
        // The protocol goes without saying where there is but one.
        let same = ranges.iter().all(|range| range.protocol == self.protocol);
        let asked = match self.port {
            Some(port) if same => port.to_string(),
            Some(port) => format!("{port}/{}", protocol_name(self.protocol)),
            None => format!("{} has none", protocol_name(self.protocol)),
        };
        if ranges.is_empty() {
            return format!("{asked}, wants a port by a name that nobody there has");
        }
        let wanted = ranges
            .iter()
            .map(|range| range_name(range, !same))
            .collect();
        format!("{asked}, wants {}", listed(wanted))
    }

    fn peer_miss(&self, policy: PolicyId, rule: &RuleMatch) -> String {
        if let PeerMatch::Excepted { prefix, except } = &rule.peer {
            let name = &self.peer.name;
            return format!("{name} is in {prefix} but excepted by {except}");
        }
        let wanted = self.wanted(policy, rule.index).unwrap_or_default();
        let is = self.described(&wanted);
        if wanted.words.is_empty() {
            return format!("{is} is not among its peers");
        }
        format!("{is}, wants {}", listed(wanted.words))
    }

    /// The peer with the labels that the rule looks at.
    fn described(&self, wanted: &Wanted) -> String {
        let mut text = self.peer.name.clone();
        let Some(pod) = &self.peer.pod else {
            return text;
        };
        let state = |keys: &BTreeSet<String>, get: &dyn Fn(&str) -> Option<String>| {
            let of = |key: &String| match get(key) {
                Some(value) => format!("{key}={value}"),
                None => format!("no {key}"),
            };
            keys.iter().map(of).collect::<Vec<_>>().join(", ")
        };
        if !wanted.pod_keys.is_empty() {
            let labels = state(&wanted.pod_keys, &|key| pod.label(key).map(str::to_owned));
            text += &format!(" has {labels}");
        }
        if !wanted.namespace_keys.is_empty() {
            let namespace = self.view.cluster.namespace(pod.namespace());
            let labels = state(&wanted.namespace_keys, &|key| {
                namespace.and_then(|n| n.label(key)).map(str::to_owned)
            });
            text += &format!(" in a namespace with {labels}");
        }
        text
    }

    /// The rule's peers as its object has them; none if the object has gone or holds no such rule.
    fn wanted(&self, policy: PolicyId, index: u16) -> Option<Wanted> {
        let name = self.view.ids.name(policy)?;
        let rule = self.view.rule(policy, self.direction, index)?;
        let peers = match self.direction {
            Direction::Ingress => "from",
            Direction::Egress => "to",
        };
        let mut wanted = Wanted::default();
        for peer in rule[peers].as_array().into_iter().flatten() {
            wanted.add_peer(peer, &name.namespace);
        }
        // A security group's rule.
        wanted.add_texts(&rule["cidrs"], "");
        wanted.add_texts(&rule["securityGroups"], "members of ");
        Some(wanted)
    }
}

impl Wanted {
    fn add_texts(&mut self, texts: &Value, before: &str) {
        let texts = texts.as_array().into_iter().flatten();
        let texts = texts.filter_map(Value::as_str);
        self.words
            .extend(texts.map(|text| format!("{before}{text}")));
    }

    /// A peer of a NetworkPolicy in `home`, or of a policy of the whole cluster.
    fn add_peer(&mut self, peer: &Value, home: &str) {
        let of_cluster = home.is_empty();
        if let Some(block) = peer["ipBlock"].as_object() {
            let cidr = block.get("cidr").and_then(Value::as_str);
            let mut text = cidr.unwrap_or_default().to_owned();
            let excepts = block.get("except").and_then(Value::as_array);
            let excepts = excepts.into_iter().flatten().filter_map(Value::as_str);
            let excepts: Vec<String> = excepts.map(str::to_owned).collect();
            if !excepts.is_empty() {
                text += &format!(" except {}", listed(excepts));
            }
            self.words.push(text);
        }
        self.add_texts(&peer["networks"], "");
        if let Some(nodes) = selector(&peer["nodes"]) {
            self.words.push(format!("nodes{}", labels(&nodes)));
        }
        if let Some(namespaces) = selector(&peer["namespaces"]) {
            self.add_pods(None, Some(namespaces), home);
        }
        let pods = match of_cluster {
            true => &peer["pods"],
            false => peer,
        };
        let by_pod = selector(&pods["podSelector"]);
        let by_namespace = selector(&pods["namespaceSelector"]);
        if by_pod.is_some() || by_namespace.is_some() {
            self.add_pods(by_pod, by_namespace, home);
        }
    }

    fn add_pods(&mut self, pods: Option<Selector>, namespaces: Option<Selector>, home: &str) {
        let keys = |selector: &Option<Selector>| {
            let requirements = selector.iter().flat_map(Selector::requirements);
            requirements.map(|r| r.key.clone()).collect::<Vec<_>>()
        };
        self.pod_keys.extend(keys(&pods));
        self.namespace_keys.extend(keys(&namespaces));
        let who = match &pods {
            Some(pods) => format!("pods{}", labels(pods)),
            None => "pods".to_owned(),
        };
        let place = match namespaces {
            Some(by) if by.requirements().is_empty() => " in any namespace".to_owned(),
            Some(by) => format!(" in namespaces{}", labels(&by)),
            None if home.is_empty() => " in any namespace".to_owned(),
            None => format!(" in namespace {home}"),
        };
        self.words.push(format!("{who}{place}"));
    }
}

fn selector(value: &Value) -> Option<Selector> {
    let selector = value.as_object()?;
    // What does not read as a selector was refused when it was stored.
    let selector: LabelSelector =
        serde_json::from_value(Value::Object(selector.clone())).unwrap_or_default();
    Some(Selector::new(&selector))
}

/// ` with app=web, tier in (a,b)`; nothing for a selector that selects all.
fn labels(selector: &Selector) -> String {
    let requirements = selector.requirements();
    if requirements.is_empty() {
        return String::new();
    }
    let words = requirements.iter().map(|requirement| {
        let key = &requirement.key;
        match &requirement.test {
            Test::In(values) => match &values[..] {
                [only] => format!("{key}={only}"),
                several => format!("{key} in ({})", several.join(",")),
            },
            Test::NotIn(values) => match &values[..] {
                [only] => format!("{key}!={only}"),
                several => format!("{key} notin ({})", several.join(",")),
            },
            Test::Exists => key.clone(),
            Test::DoesNotExist => format!("!{key}"),
            Test::Never => format!("{key} (unreadable)"),
        }
    });
    format!(" with {}", words.collect::<Vec<_>>().join(", "))
}

/// The first few, and how many more there are.
fn listed(mut words: Vec<String>) -> String {
    let more = words.len().saturating_sub(SHOWN);
    words.truncate(SHOWN);
    let mut text = words.join(" or ");
    if more > 0 {
        text += &format!(" or {more} more");
    }
    text
}

fn protocol_name(protocol: Protocol) -> String {
    match protocol {
        Protocol::TCP => "TCP".to_owned(),
        Protocol::UDP => "UDP".to_owned(),
        Protocol::SCTP => "SCTP".to_owned(),
        Protocol::ICMP | Protocol::ICMPV6 => "ICMP".to_owned(),
        Protocol(number) => format!("protocol {number}"),
    }
}

fn range_name(range: &PortRange, with_protocol: bool) -> String {
    let protocol = protocol_name(range.protocol);
    let ports = match (range.first, range.last) {
        (0, u16::MAX) => return format!("any {protocol}"),
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    };
    match with_protocol {
        true => format!("{ports}/{protocol}"),
        false => ports,
    }
}
