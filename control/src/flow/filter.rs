//! Which flows somebody wants: Hubble's filters, as far as they mean something here.
//!
//! Within a filter every member that is not empty must match, by any of its values; of several
//! filters one must match. `--pod x` is two filters, one for each end.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Flow, FlowDirection, FlowEnd, FlowVerdict};
use crate::selector::Selector;

/// Values of one member of a filter; beyond it the filter is refused.
const VALUES_MAX: usize = 256;
/// `*` in one name, each of which may be tried at every place.
const WILDCARDS_MAX: usize = 4;
/// Filters of one question.
const FILTERS_MAX: usize = 16;

/// Kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlowType {
    /// A packet was dropped, for whatever reason.
    Drop,
    /// Policy decided.
    PolicyVerdict,
}

/// What a flow must be. An empty member takes any flow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FlowFilter {
    /// `[NS/]PREFIX` of the source pod's name; without a namespace `default`, with an empty one
    /// any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source_pod: Vec<String>,
    /// The same of the destination.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub destination_pod: Vec<String>,
    /// Addresses or CIDRs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source_ip: Vec<String>,
    /// Addresses or CIDRs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub destination_ip: Vec<String>,
    /// Ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source_port: Vec<u16>,
    /// Ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub destination_port: Vec<u16>,
    /// Label selectors, for flows of a pod.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source_label: Vec<String>,
    /// Label selectors, for flows to a pod.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub destination_label: Vec<String>,
    /// `[KIND/]NAME` of what the source pod is one of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source_workload: Vec<String>,
    /// The same of the destination.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub destination_workload: Vec<String>,
    /// `[NS/]PREFIX` of the name of the Service that the flow is to; without a namespace `default`,
    /// with an empty one any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub destination_service: Vec<String>,
    /// Node names, in which `*` stands for anything.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub node_name: Vec<String>,
    /// Verdicts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub verdict: Vec<FlowVerdict>,
    /// `tcp`, `udp`, `sctp`, `icmp` (either family), `icmpv4`, `icmpv6`, or a number.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub protocol: Vec<String>,
    /// Sets of TCP flags, of which all must be set, as `SYN,ACK`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tcp_flags: Vec<String>,
    /// 4 or 6.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ip_version: Vec<u8>,
    /// The deciding policy's direction.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub direction: Vec<FlowDirection>,
    /// Drop reasons, `POLICY_DENIED`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drop_reason: Vec<String>,
    /// Kinds of events.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub event_type: Vec<FlowType>,
    /// The deciding policy, `NS/NAME` or `NAME`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policy: Vec<String>,
}

/// A pod's or a Service's name as a filter has it.
#[derive(Clone, Debug)]
struct PodPattern {
    /// None: any.
    namespace: Option<String>,
    prefix: String,
}

impl PodPattern {
    fn new(text: &str) -> PodPattern {
        match text.split_once('/') {
            Some(("", prefix)) => PodPattern {
                namespace: None,
                prefix: prefix.to_owned(),
            },
            Some((namespace, prefix)) => PodPattern {
                namespace: Some(namespace.to_owned()),
                prefix: prefix.to_owned(),
            },
            None => PodPattern {
                namespace: Some("default".to_owned()),
                prefix: text.to_owned(),
            },
        }
    }

    fn matches(&self, namespace: Option<&str>, name: Option<&str>) -> bool {
        name.is_some_and(|name| name.starts_with(&self.prefix))
            && (self.namespace.is_none() || self.namespace.as_deref() == namespace)
    }
}

/// What one end must be.
#[derive(Clone, Debug, Default)]
struct EndTest {
    pods: Vec<PodPattern>,
    networks: Vec<IpNet>,
    ports: Vec<u16>,
    labels: Vec<Selector>,
    workloads: Vec<String>,
}

/// Whether a member takes the flow: it is empty, or one of its values does.
fn any<T>(values: &[T], test: impl Fn(&T) -> bool) -> bool {
    values.is_empty() || values.iter().any(test)
}

impl EndTest {
    fn new(
        pods: &[String],
        networks: &[String],
        ports: &[u16],
        labels: &[String],
        workloads: &[String],
    ) -> Result<EndTest, String> {
        let network = |text: &String| {
            let address = text.parse::<IpAddr>().map(IpNet::from);
            address
                .or_else(|_| text.parse::<IpNet>())
                .map_err(|_| format!("{text:?} is neither an IP address nor a CIDR"))
        };
        let selector = |text: &String| {
            Selector::parse(text).map_err(|error| format!("label {text:?}: {error}"))
        };
        Ok(EndTest {
            pods: pods.iter().map(|text| PodPattern::new(text)).collect(),
            networks: networks.iter().map(network).collect::<Result<_, _>>()?,
            ports: ports.to_vec(),
            labels: labels.iter().map(selector).collect::<Result<_, _>>()?,
            workloads: workloads.to_vec(),
        })
    }

    fn matches(&self, end: &FlowEnd) -> bool {
        let label = |selector: &Selector| {
            end.pod.is_some() && selector.matches(|key| end.labels.get(key).map(String::as_str))
        };
        let (namespace, pod) = (end.namespace.as_deref(), end.pod.as_deref());
        any(&self.pods, |wanted| wanted.matches(namespace, pod))
            && any(&self.networks, |network| network.contains(&end.ip))
            && any(&self.ports, |port| end.port == Some(*port))
            && any(&self.labels, label)
            && any(&self.workloads, |wanted| is_one_of(end, wanted))
    }
}

/// One filter, ready to be used.
#[derive(Clone, Debug)]
struct Test {
    source: EndTest,
    destination: EndTest,
    services: Vec<PodPattern>,
    rest: FlowFilter,
}

impl Test {
    fn new(filter: &FlowFilter) -> Result<Test, String> {
        check(filter)?;
        Ok(Test {
            source: EndTest::new(
                &filter.source_pod,
                &filter.source_ip,
                &filter.source_port,
                &filter.source_label,
                &filter.source_workload,
            )?,
            destination: EndTest::new(
                &filter.destination_pod,
                &filter.destination_ip,
                &filter.destination_port,
                &filter.destination_label,
                &filter.destination_workload,
            )?,
            services: filter
                .destination_service
                .iter()
                .map(|text| PodPattern::new(text))
                .collect(),
            rest: filter.clone(),
        })
    }

    fn matches(&self, flow: &Flow) -> bool {
        let rest = &self.rest;
        let version = if flow.source.ip.is_ipv4() { 4 } else { 6 };
        let event_type = |kind: &FlowType| match kind {
            FlowType::Drop => flow.verdict == FlowVerdict::Dropped,
            FlowType::PolicyVerdict => flow.is_policy_verdict(),
        };
        let drop_reason = flow.drop_reason();
        let policy = flow.policy.as_ref().map(|policy| policy.full_name());
        self.source.matches(&flow.source)
            && self.destination.matches(&flow.destination)
            && any(&rest.verdict, |verdict| *verdict == flow.verdict)
            && any(&rest.protocol, |name| protocol_is(name, &flow.protocol))
            && any(&rest.tcp_flags, |flags| has_flags(flags, &flow.tcp_flags))
            && any(&rest.ip_version, |wanted| *wanted == version)
            && any(&rest.direction, |d| Some(*d) == flow.direction)
            && any(&rest.drop_reason, |reason| {
                Some(reason) == drop_reason.as_ref()
            })
            && any(&rest.event_type, event_type)
            && any(&self.services, |wanted| {
                let service = flow.service.as_ref();
                service.is_some_and(|own| {
                    wanted.matches(own.namespace.as_deref(), own.name.as_deref())
                })
            })
            && any(&rest.node_name, |name| is_like(&flow.node, name))
            && any(&rest.policy, |name| Some(name) == policy.as_ref())
    }
}

/// Whether a pod is one of a workload, `[KIND/]NAME`; the kind in any case, as kubectl takes it.
fn is_one_of(end: &FlowEnd, wanted: &str) -> bool {
    let Some((kind, name)) = end.workload.as_deref().and_then(|own| own.split_once('/')) else {
        return false;
    };
    match wanted.split_once('/') {
        Some((wanted_kind, wanted)) => wanted_kind.eq_ignore_ascii_case(kind) && wanted == name,
        None => wanted == name,
    }
}

/// Whether a text is as the pattern has it, in which `*` stands for anything.
fn is_like(text: &str, pattern: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return text == pattern;
    };
    let Some(text) = text.strip_prefix(head) else {
        return false;
    };
    let mut ends = (0..=text.len()).filter(|at| text.is_char_boundary(*at));
    ends.any(|at| is_like(&text[at..], rest))
}

fn protocol_is(wanted: &str, protocol: &str) -> bool {
    match wanted.to_ascii_lowercase().as_str() {
        "icmp" => matches!(protocol, "ICMP" | "ICMPV6"),
        "icmpv4" => protocol == "ICMP",
        other => other.eq_ignore_ascii_case(protocol),
    }
}

fn has_flags(wanted: &str, flags: &[String]) -> bool {
    wanted.split(',').all(|flag| {
        flags
            .iter()
            .any(|present| present.eq_ignore_ascii_case(flag))
    })
}

fn check(filter: &FlowFilter) -> Result<(), String> {
    let lengths = [
        filter.source_pod.len(),
        filter.destination_pod.len(),
        filter.source_ip.len(),
        filter.destination_ip.len(),
        filter.source_port.len(),
        filter.destination_port.len(),
        filter.source_label.len(),
        filter.destination_label.len(),
        filter.protocol.len(),
        filter.tcp_flags.len(),
        filter.drop_reason.len(),
        filter.source_workload.len(),
        filter.destination_workload.len(),
        filter.node_name.len(),
        filter.destination_service.len(),
        filter.policy.len(),
    ];
    if lengths.iter().any(|length| *length > VALUES_MAX) {
        return Err(format!(
            "a filter has at most {VALUES_MAX} values of a kind"
        ));
    }
    let known = |name: &String| {
        let named = ["tcp", "udp", "sctp", "icmp", "icmpv4", "icmpv6"];
        named.iter().any(|known| known.eq_ignore_ascii_case(name)) || name.parse::<u8>().is_ok()
    };
    if let Some(name) = filter.protocol.iter().find(|name| !known(name)) {
        return Err(format!(
            "unknown protocol {name:?}: tcp, udp, sctp, icmp, icmpv4, icmpv6 or a number"
        ));
    }
    let flags = filter.tcp_flags.iter().flat_map(|set| set.split(','));
    for flag in flags {
        let known = |name: &&str| name.eq_ignore_ascii_case(flag);
        if !super::TCP_FLAGS.iter().any(known) {
            return Err(format!("unknown tcp flag: {flag}"));
        }
    }
    let stars = |name: &&String| name.matches('*').count() > WILDCARDS_MAX;
    if let Some(name) = filter.node_name.iter().find(stars) {
        return Err(format!("{name:?} has more than {WILDCARDS_MAX} of *"));
    }
    if let Some(version) = filter.ip_version.iter().find(|v| ![4, 6].contains(*v)) {
        return Err(format!("unknown ip version {version}: 4 or 6"));
    }
    Ok(())
}

/// Flows that one of the allowing filters takes, if there are any, and none of the denying ones.
#[derive(Clone, Debug, Default)]
pub struct Matcher {
    allow: Vec<Test>,
    deny: Vec<Test>,
}

impl Matcher {
    /// Errors say in words what cannot be read.
    pub fn new(allow: &[FlowFilter], deny: &[FlowFilter]) -> Result<Matcher, String> {
        if allow.len().max(deny.len()) > FILTERS_MAX {
            return Err(format!("at most {FILTERS_MAX} filters at once"));
        }
        let tests = |filters: &[FlowFilter]| -> Result<Vec<Test>, String> {
            filters.iter().map(Test::new).collect()
        };
        Ok(Matcher {
            allow: tests(allow)?,
            deny: tests(deny)?,
        })
    }

    /// Whether the flow is wanted.
    pub fn matches(&self, flow: &Flow) -> bool {
        any(&self.allow, |test| test.matches(flow))
            && !self.deny.iter().any(|test| test.matches(flow))
    }

    /// Whether flows with this verdict can be wanted at all.
    pub fn may_match(&self, verdict: FlowVerdict) -> bool {
        any(&self.allow, |test| {
            any(&test.rest.verdict, |wanted| *wanted == verdict)
        })
    }
}

#[cfg(test)]
mod tests;
