//! `weir trace`: what becomes of one connection, which policies were asked, which rule decided, and
//! which rule missed by least. Computed with the table that the workers run.
//!
//! An address is an address: that the node itself may always reach its pods (semantics D6) hangs on
//! the port a packet arrives by, which no address tells, and is not part of the answer.

use std::fmt::Write as _;
use std::net::IpAddr;

use dataplane::policy::{
    EndpointSlot, Explanation, PeerMatch, PolicyTable, PortMatch, RuleMatch,
    ir::{Action, PortRange},
};
use dataplane::{Address, Direction, PolicyId, Protocol, Tier, Verdict};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;
use thiserror::Error;

use crate::cluster::Cluster;
use crate::lower::{self, LocalEndpoint, PolicyIds};
use crate::objects::{Key, Object, kinds};
use crate::protocol::TraceParams;
use crate::selector::Selector;

/// Objects and the table compiled from them.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The objects.
    pub cluster: &'a Cluster,
    /// The pods that the table decides for.
    pub locals: &'a [LocalEndpoint],
    /// Their places in the table, in the same order.
    pub slots: &'a [EndpointSlot],
    /// The compiled policies.
    pub table: &'a PolicyTable,
    /// The policies' names.
    pub ids: &'a PolicyIds,
    /// The table's generation; 0 offline.
    pub generation: u64,
}

/// A question that cannot be answered.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TraceError {
    /// No such pod or Service.
    #[error("{0:?} is neither an address nor a pod or Service (NAMESPACE/NAME) that exists")]
    NoSuchEnd(String),
    /// A pod without an address, or a Service without a pod.
    #[error("{0} has no address")]
    NoAddress(String),
    /// Only a receiver can be a Service.
    #[error("{0} is a Service: only a receiver can be one")]
    ServiceSends(String),
    /// The ends have no address family in common.
    #[error("{0} and {1} have no address family in common")]
    NoCommonFamily(String, String),
    /// A port that is no number from 1 to 65535 and no name that the receiver gives one.
    #[error("port {0:?} is no number from 1 to 65535, and {1} calls no port so")]
    NoSuchPort(String, String),
    /// TCP, UDP and SCTP need a port.
    #[error("{0} needs a port (--port)")]
    PortMissing(String),
    /// Not a protocol that policy knows of.
    #[error("protocol {0:?}: it must be one of TCP, UDP, SCTP, ICMP")]
    NoSuchProtocol(String),
}

/// One end of a connection.
#[derive(Clone, Debug)]
pub struct End {
    /// `NS/POD`, or the address.
    pub name: String,
    /// At least one, of an address itself.
    pub addresses: Vec<IpAddr>,
    /// Index into [`View::locals`].
    pub local: Option<usize>,
    /// The pod's object.
    pub pod: Option<std::sync::Arc<Object>>,
}

/// One policy's answer, or a direction's default.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// `egress` of the sender or `ingress` of the receiver.
    pub direction: &'static str,
    /// `admin`, `networkPolicy`, `baseline`, `default`.
    pub tier: &'static str,
    /// `NS/NAME`; none where a default decided.
    pub policy: Option<String>,
    /// Index of the rule that matched.
    pub rule: Option<u16>,
    /// `allow`, `deny`, `pass` or `no match`.
    pub result: &'static str,
    /// For a denial: the rule of this policy that missed by least, and by what.
    pub nearest_miss: Option<String>,
}

/// The answer.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    /// `allow` or `deny`.
    pub verdict: &'static str,
    /// The generation that says so.
    pub generation: u64,
    /// `NS/POD` or an address.
    pub from: String,
    /// `NS/POD` or an address; of a Service the pod that was judged.
    pub to: String,
    /// `TCP`.
    pub protocol: String,
    /// Destination port behind any Service.
    pub port: Option<u16>,
    /// Every policy consulted, sender's first.
    pub steps: Vec<Step>,
    /// The decision in a line.
    pub reason: String,
}

/// Reads a protocol's name, case aside; `None` is TCP.
pub(crate) fn protocol(name: Option<&str>) -> Result<(Protocol, String), TraceError> {
    let name = name.unwrap_or("TCP").to_ascii_uppercase();
    let number = match name.as_str() {
        "TCP" => Protocol::TCP,
        "UDP" => Protocol::UDP,
        "SCTP" => Protocol::SCTP,
        "ICMP" => Protocol::ICMP,
        _ => return Err(TraceError::NoSuchProtocol(name)),
    };
    Ok((number, name))
}

impl View<'_> {
    /// Answers one question.
    pub fn trace(&self, params: &TraceParams) -> Result<Trace, TraceError> {
        let (protocol, protocol_name) = protocol(params.protocol.as_deref())?;
        let from = self.end(&params.from)?;
        let wanted = params.port.as_deref();
        let (to, port) = match self.service(&params.to) {
            Some(service) => self.backend(&params.to, &service, wanted, protocol)?,
            None => {
                let to = self.end(&params.to)?;
                let port = resolve_port(&to, wanted, protocol)?;
                (to, port)
            }
        };
        if protocol.has_ports() && port.is_none() {
            return Err(TraceError::PortMissing(protocol_name));
        }
        let (source, destination) = common_family(&from, &to)?;
        let port = port.filter(|_| protocol.has_ports());
        // Each family has its own number for ICMP.
        let protocol = match (protocol, destination) {
            (Protocol::ICMP, IpAddr::V6(_)) => Protocol::ICMPV6,
            (other, _) => other,
        };
        let mut trace = self.judge(&from, &to, (source, destination), protocol, port);
        trace.protocol = protocol_name;
        Ok(trace)
    }

    /// Judges a connection between two addresses: egress of the sender, then ingress of the
    /// receiver, as the pipeline does.
    pub(crate) fn judge(
        &self,
        from: &End,
        to: &End,
        (source, destination): (IpAddr, IpAddr),
        protocol: Protocol,
        port: Option<u16>,
    ) -> Trace {
        let mut trace = Trace {
            verdict: "allow",
            generation: self.generation,
            from: from.name.clone(),
            to: to.name.clone(),
            protocol: String::new(),
            port,
            steps: Vec::new(),
            reason: String::new(),
        };
        if source == destination {
            trace.reason = "a pod always reaches its own address".to_owned();
            return trace;
        }
        let mut allowed = Vec::new();
        let ends = (source, destination);
        for (direction, explanation) in self.explanations(from, to, ends, protocol, port) {
            let other = match direction {
                Direction::Egress => to,
                Direction::Ingress => from,
            };
            trace
                .steps
                .extend(self.steps(direction, &explanation, &other.name));
            let reason = self.reason(direction, &explanation);
            if !explanation.verdict.accept {
                trace.verdict = "deny";
                trace.reason = reason;
                return trace;
            }
            allowed.push(reason);
        }
        trace.reason = match allowed.is_empty() {
            true => "neither end is a pod on this node".to_owned(),
            false => allowed.join("; "),
        };
        trace
    }

    /// What the table says of a connection between two addresses: of egress at the sender, of
    /// ingress at the receiver; none where that end is no pod here, or a pod speaks to itself.
    pub(crate) fn verdicts(
        &self,
        from: &End,
        to: &End,
        (source, destination): (IpAddr, IpAddr),
        protocol: Protocol,
        port: Option<u16>,
    ) -> [Option<Verdict>; 2] {
        let decide = |direction, end: &End, peer: IpAddr| {
            let at = end.local.filter(|_| source != destination)?;
            let peer = self.table.peer(Address::from(peer));
            let slot = self.slots[at];
            let decision = self.table.decide(slot, direction, &peer, protocol, port);
            Some(decision.verdict)
        };
        [
            decide(Direction::Egress, from, destination),
            decide(Direction::Ingress, to, source),
        ]
    }

    /// What led to [`View::verdicts`], for those directions that were asked: ingress only if
    /// egress accepts.
    pub(crate) fn explanations(
        &self,
        from: &End,
        to: &End,
        (source, destination): (IpAddr, IpAddr),
        protocol: Protocol,
        port: Option<u16>,
    ) -> Vec<(Direction, Explanation)> {
        let mut explanations = Vec::new();
        if source == destination {
            return explanations;
        }
        let directions = [
            (Direction::Egress, from, destination),
            (Direction::Ingress, to, source),
        ];
        for (direction, end, peer) in directions {
            let Some(at) = end.local else { continue };
            let peer = Address::from(peer);
            let explanation = self
                .table
                .explain(self.slots[at], direction, peer, protocol, port);
            let accept = explanation.verdict.accept;
            explanations.push((direction, explanation));
            if !accept {
                break;
            }
        }
        explanations
    }

    pub(crate) fn policy_name(&self, id: PolicyId) -> String {
        match self.ids.name(id) {
            Some(name) if name.namespace.is_empty() => name.name.clone(),
            Some(name) => format!("{}/{}", name.namespace, name.name),
            None => "(the pod's object is gone)".to_owned(),
        }
    }

    /// The decision of one direction in words.
    fn reason(&self, direction: Direction, explanation: &Explanation) -> String {
        let by = explanation.verdict.provenance;
        let way = way(direction);
        let policy = by.policy.map(|id| self.policy_name(id));
        match (explanation.verdict.accept, policy, by.rule) {
            (true, Some(policy), Some(rule)) => format!("{way}: {policy} rule {rule} allows"),
            (false, Some(policy), Some(rule)) => format!("{way}: {policy} rule {rule} denies"),
            (false, Some(policy), None) => {
                let missed = explanation.nearest_misses();
                let why = match missed.first() {
                    None => "it has no rule",
                    Some((_, rule)) if rule.peer == PeerMatch::Matched => "no rule matches port",
                    Some((_, rule)) if rule.port == PortMatch::Matched => "no rule matches peer",
                    Some(_) => "no rule matches peer and port",
                };
                format!("{way}: isolated by {policy}, {why}")
            }
            (true, _, _) => format!("{way}: no policy selects the pod"),
            (false, None, _) => format!("{way}: the pod has no live policy yet"),
        }
    }

    fn steps(&self, direction: Direction, explanation: &Explanation, peer: &str) -> Vec<Step> {
        let verdict = explanation.verdict;
        let missed = explanation.nearest_misses();
        let mut steps: Vec<Step> = Vec::new();
        for consulted in &explanation.consulted {
            let matched = consulted.rules.iter().find(|rule| rule.matched());
            let nearest = missed.iter().find(|(id, _)| *id == consulted.policy);
            let by_default = !verdict.accept
                && verdict.provenance.rule.is_none()
                && consulted.tier == verdict.provenance.tier;
            let result = match matched.map(|rule| rule.action) {
                // Security groups only deny: what one lets pass the other tiers decide.
                Some(Action::Accept) if consulted.tier == Tier::SecurityGroup => "pass",
                Some(Action::Accept) => "allow",
                Some(Action::Deny) => "deny",
                Some(Action::Pass) => "pass",
                None if by_default => "deny",
                None => "no match",
            };
            steps.push(Step {
                direction: way(direction),
                tier: tier(consulted.tier),
                policy: Some(self.policy_name(consulted.policy)),
                rule: matched.map(|rule| rule.index),
                result,
                nearest_miss: nearest.map(|(_, rule)| miss(rule, peer)),
            });
        }
        if verdict.provenance.tier == Tier::Default {
            steps.push(Step {
                direction: way(direction),
                tier: tier(Tier::Default),
                policy: None,
                rule: None,
                result: if verdict.accept { "allow" } else { "deny" },
                nearest_miss: None,
            });
        }
        steps
    }

    /// The end that `text` names: an address or `NS/POD`.
    pub(crate) fn end(&self, text: &str) -> Result<End, TraceError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            let held = |l: &LocalEndpoint| l.addresses.contains(&address);
            if let Some(at) = self.locals.iter().position(held) {
                let mut end = self.local_end(at);
                end.addresses = vec![address];
                return Ok(end);
            }
            return Ok(End {
                name: text.to_owned(),
                addresses: vec![address],
                local: None,
                pod: None,
            });
        }
        let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
        let Some(object) = self.cluster.pod(namespace, name) else {
            if self.service(text).is_some() {
                return Err(TraceError::ServiceSends(text.to_owned()));
            }
            return Err(TraceError::NoSuchEnd(text.to_owned()));
        };
        let end = self.pod_end(object);
        if end.addresses.is_empty() {
            return Err(TraceError::NoAddress(end.name));
        }
        Ok(end)
    }

    /// The end of [`View::locals`] at this index.
    pub(crate) fn local_end(&self, at: usize) -> End {
        let local = &self.locals[at];
        End {
            name: format!("{}/{}", local.namespace, local.name),
            addresses: local.addresses.clone(),
            local: Some(at),
            pod: self.cluster.pod(&local.namespace, &local.name).cloned(),
        }
    }

    /// A pod as an end.
    pub(crate) fn pod_end(&self, object: &std::sync::Arc<Object>) -> End {
        if let Some(at) = self.locals.iter().position(|l| l.uid == object.uid()) {
            return self.local_end(at);
        }
        let pod = object.as_pod();
        End {
            name: format!("{}/{}", object.namespace(), object.name()),
            addresses: pod.map(lower::pod_addresses).unwrap_or_default(),
            local: None,
            pod: Some(object.clone()),
        }
    }

    /// The Service `NS/NAME`, unless a pod is called so.
    pub(crate) fn service(&self, text: &str) -> Option<std::sync::Arc<Object>> {
        let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
        if self.cluster.pod(namespace, name).is_some() {
            return None;
        }
        let kind = kinds::of::<Service>()?;
        self.cluster.get(&Key::new(kind, namespace, name)).cloned()
    }

    /// The first pod behind a Service, by name, and its port. Policy is judged there, never on the
    /// Service's own address and port (semantics D1).
    pub(crate) fn backend(
        &self,
        text: &str,
        object: &Object,
        wanted: Option<&str>,
        protocol: Protocol,
    ) -> Result<(End, Option<u16>), TraceError> {
        let backends = self.backends(text, object, wanted, protocol)?;
        let first = backends.into_iter().next();
        first.ok_or_else(|| TraceError::NoAddress(format!("Service {text}")))
    }

    /// The pods behind a Service, by name, and their ports; a pod that does not have the port by
    /// the name that the Service wants is none of them. At least one.
    pub(crate) fn backends(
        &self,
        text: &str,
        object: &Object,
        wanted: Option<&str>,
        protocol: Protocol,
    ) -> Result<Vec<(End, Option<u16>)>, TraceError> {
        let none = || TraceError::NoAddress(format!("Service {text}"));
        let spec = object
            .as_service()
            .and_then(|s| s.spec.as_ref())
            .ok_or_else(none)?;
        let labels = spec
            .selector
            .clone()
            .filter(|labels| !labels.is_empty())
            .ok_or_else(none)?;
        let selector = Selector::new(
            &k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector {
                match_labels: Some(labels),
                match_expressions: None,
            },
        );
        let kind = kinds::find("v1", "Pod").ok_or_else(none)?;
        let pods = self
            .cluster
            .list_in(kind, object.namespace())
            .filter(|pod| {
                let ended = pod.as_pod().is_some_and(lower::has_ended);
                !ended && selector.matches(|label| pod.label(label))
            });
        let ends: Vec<End> = pods
            .map(|pod| self.pod_end(pod))
            .filter(|end| !end.addresses.is_empty())
            .collect();
        if ends.is_empty() {
            return Err(none());
        }
        if !protocol.has_ports() {
            return Ok(ends.into_iter().map(|end| (end, None)).collect());
        }
        let ports = spec.ports.as_deref().unwrap_or_default();
        let named = |name: &Option<String>, word: &str| name.as_deref() == Some(word);
        let port = match (wanted, ports) {
            (None, [only]) => Some(only),
            (None, _) => None,
            (Some(word), _) => ports.iter().find(|port| {
                let same = protocol_of(port.protocol.as_deref()) == protocol;
                same && (port.port.to_string() == word || named(&port.name, word))
            }),
        };
        let word = wanted.unwrap_or_default();
        let missing = || TraceError::NoSuchPort(word.to_owned(), format!("Service {text}"));
        let port = port.ok_or_else(missing)?;
        let target = match &port.target_port {
            None | Some(IntOrString::Int(0)) => port.port.to_string(),
            Some(IntOrString::Int(number)) => number.to_string(),
            Some(IntOrString::String(name)) => name.clone(),
        };
        let mut unnamed = None;
        let mut backends = Vec::new();
        for end in ends {
            match resolve_port(&end, Some(&target), protocol) {
                Ok(number) => backends.push((end, number)),
                Err(error) => unnamed = Some(error),
            }
        }
        match unnamed {
            Some(error) if backends.is_empty() => Err(error),
            _ => Ok(backends),
        }
    }
}

impl Trace {
    /// The policies that decided: of a denial by default all that isolate, of an allowed
    /// connection those of both directions.
    pub fn deciders(&self) -> Vec<&str> {
        let decided = |step: &&Step| step.result == self.verdict;
        let steps = self.steps.iter().filter(decided);
        steps.filter_map(|step| step.policy.as_deref()).collect()
    }

    /// For a person, several lines.
    pub fn text(&self) -> String {
        let port = self.port.map_or(String::new(), |port| format!(" {port}"));
        let mut text = format!(
            "{} -> {} {}{port}: {}\n",
            self.from, self.to, self.protocol, self.verdict
        );
        for step in &self.steps {
            let policy = step.policy.as_deref().unwrap_or("(no policy)");
            let rule = step
                .rule
                .map_or(String::new(), |rule| format!(" rule {rule}"));
            // Writing into a String cannot fail.
            let _ = writeln!(
                text,
                "  {:<8}{:<15}{policy}{rule}: {}",
                step.direction, step.tier, step.result
            );
            if let Some(miss) = &step.nearest_miss {
                let _ = writeln!(text, "    nearest miss: {miss}");
            }
        }
        let _ = writeln!(text, "  {}", self.reason);
        text
    }
}

/// The sender's and the receiver's first addresses of a common family, IPv4 before IPv6.
pub(crate) fn common_family(from: &End, to: &End) -> Result<(IpAddr, IpAddr), TraceError> {
    let pairs = families(from, to);
    let none = || TraceError::NoCommonFamily(from.name.clone(), to.name.clone());
    pairs.first().copied().ok_or_else(none)
}

/// One pair of addresses for each family that both ends have.
pub(crate) fn families(from: &End, to: &End) -> Vec<(IpAddr, IpAddr)> {
    let first = |end: &End, v4: bool| end.addresses.iter().copied().find(|a| a.is_ipv4() == v4);
    [true, false]
        .into_iter()
        .filter_map(|v4| Some((first(from, v4)?, first(to, v4)?)))
        .collect()
}

/// A port's number: as written, or as the receiving pod's containers call it.
pub(crate) fn resolve_port(
    to: &End,
    wanted: Option<&str>,
    protocol: Protocol,
) -> Result<Option<u16>, TraceError> {
    let Some(word) = wanted else {
        return Ok(None);
    };
    if let Ok(number) = word.parse::<u16>()
        && number != 0
    {
        return Ok(Some(number));
    }
    let pod = to.pod.as_ref().and_then(|object| object.as_pod());
    let named = pod.map(lower::named_ports).unwrap_or_default();
    let found = named
        .iter()
        .find(|(name, p, _)| name == word && *p == protocol);
    match found {
        Some(&(_, _, number)) => Ok(Some(number)),
        None => Err(TraceError::NoSuchPort(word.to_owned(), to.name.clone())),
    }
}

fn protocol_of(name: Option<&str>) -> Protocol {
    match name {
        Some("UDP") => Protocol::UDP,
        Some("SCTP") => Protocol::SCTP,
        _ => Protocol::TCP,
    }
}

fn way(direction: Direction) -> &'static str {
    match direction {
        Direction::Egress => "egress",
        Direction::Ingress => "ingress",
    }
}

fn tier(tier: Tier) -> &'static str {
    match tier {
        Tier::SecurityGroup => "securityGroup",
        Tier::Admin => "admin",
        Tier::NetworkPolicy => "networkPolicy",
        Tier::Baseline => "baseline",
        Tier::Default => "default",
    }
}

/// How a rule missed, in words.
fn miss(rule: &RuleMatch, peer: &str) -> String {
    let peer = match &rule.peer {
        PeerMatch::Matched => None,
        PeerMatch::Excepted { prefix, except } => {
            Some(format!("{peer} is in {prefix} but excepted by {except}"))
        }
        PeerMatch::Outside => Some(format!("{peer} is not among its peers")),
        PeerMatch::Nobody => Some("its selectors select nobody".to_owned()),
    };
    let port = match &rule.port {
        PortMatch::Matched => None,
        PortMatch::Wanted(ranges) if ranges.is_empty() => {
            Some("no such port is known by the name that it wants".to_owned())
        }
        PortMatch::Wanted(ranges) => {
            let ranges: Vec<String> = ranges.iter().map(range).collect();
            Some(format!("it wants port {}", ranges.join(", ")))
        }
    };
    let parts: Vec<String> = [peer, port].into_iter().flatten().collect();
    format!("rule {}: {}", rule.index, parts.join("; "))
}

fn range(range: &PortRange) -> String {
    let protocol = match range.protocol {
        Protocol::UDP => "UDP",
        Protocol::SCTP => "SCTP",
        _ => "TCP",
    };
    match (range.first, range.last) {
        (0, u16::MAX) => format!("any/{protocol}"),
        (first, last) if first == last => format!("{first}/{protocol}"),
        (first, last) => format!("{first}-{last}/{protocol}"),
    }
}
