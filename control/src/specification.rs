//! The executable specification of NetworkPolicy: policies walked literally for one packet, on the
//! objects themselves. Slow and obvious.
//!
//! It shares nothing with [`lower`](crate::lower) but the object types: defaults, selectors,
//! CIDRs and named ports are read here once more, so that a mistake there is not made here too.
//! Tests, and the live self-check, hold the two equal.

use std::collections::BTreeMap;
use std::net::IpAddr;

use dataplane::{Direction, Protocol};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The objects that decide.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// Namespaces.
    pub namespaces: Vec<Namespace>,
    /// Pods, with their addresses in their status.
    pub pods: Vec<Pod>,
    /// Policies.
    pub policies: Vec<NetworkPolicy>,
    /// Addresses that stand behind an interface of this node, with the UID of the pod there: they
    /// are no other pod's, whatever its status still says.
    pub attached: Vec<(IpAddr, String)>,
}

/// What a packet that opens a connection shows.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    /// The end that is not the pod in question.
    pub peer: IpAddr,
    /// Its protocol.
    pub protocol: Protocol,
    /// The destination's port, for protocols that have any.
    pub port: Option<u16>,
}

impl World {
    /// Whether policy lets `pod` receive ([`Direction::Ingress`]) or send such traffic.
    pub fn allows(&self, pod: &Pod, direction: Direction, traffic: Traffic) -> bool {
        let selecting: Vec<&NetworkPolicy> = self
            .policies
            .iter()
            .filter(|policy| selects(policy, pod) && isolates(policy, direction))
            .collect();
        if selecting.is_empty() {
            return true;
        }
        selecting
            .iter()
            .any(|policy| self.policy_allows(policy, pod, direction, traffic))
    }

    fn policy_allows(
        &self,
        policy: &NetworkPolicy,
        pod: &Pod,
        direction: Direction,
        traffic: Traffic,
    ) -> bool {
        let Some(spec) = &policy.spec else {
            return false;
        };
        // Nobody knows whom it means: it isolates, and allows nothing.
        let mut expressions = spec
            .pod_selector
            .iter()
            .flat_map(|s| s.match_expressions.iter());
        if expressions.any(|list| !list.iter().all(is_readable)) {
            return false;
        }
        let home = policy.metadata.namespace.as_deref().unwrap_or("");
        match direction {
            Direction::Ingress => spec.ingress.iter().flatten().any(|rule| {
                self.peers_hold(rule.from.as_deref(), home, traffic.peer)
                    && self.ports_hold(rule.ports.as_deref(), &[pod], traffic)
            }),
            Direction::Egress => {
                let at_peer: Vec<&Pod> = self.pods_at(traffic.peer).collect();
                spec.egress.iter().flatten().any(|rule| {
                    let peers = rule.to.as_deref();
                    // Of pods that share an address while one replaces the other, the port's name
                    // counts on those that the peers hold.
                    let by_selector = |peer: &&Pod| self.pod_is_held(peers, home, peer, traffic);
                    let held: Vec<&Pod> = at_peer.iter().copied().filter(by_selector).collect();
                    self.peers_hold(peers, home, traffic.peer)
                        && self.ports_hold(rule.ports.as_deref(), &held, traffic)
                })
            }
        }
    }

    /// Pods that can be peers at an address.
    fn pods_at(&self, address: IpAddr) -> impl Iterator<Item = &Pod> {
        self.pods
            .iter()
            .filter(move |pod| counts(pod) && has_address(pod, address))
            .filter(move |pod| self.may_have(pod, address))
    }

    fn may_have(&self, pod: &Pod, address: IpAddr) -> bool {
        let mut owners = self.attached.iter().filter(|(own, _)| *own == address);
        let uid = pod.metadata.uid.as_ref();
        owners.clone().next().is_none() || owners.any(|(_, owner)| Some(owner) == uid)
    }

    fn peers_hold(&self, peers: Option<&[NetworkPolicyPeer]>, home: &str, address: IpAddr) -> bool {
        match peers {
            None | Some([]) => true,
            Some(peers) => peers.iter().any(|peer| match &peer.ip_block {
                Some(block) => alone(peer) && block_holds(block, address),
                None => self
                    .pods_at(address)
                    .any(|pod| self.selectors_hold(peer, home, pod)),
            }),
        }
    }

    /// Whether the peers hold this pod, by selector or by address.
    fn pod_is_held(
        &self,
        peers: Option<&[NetworkPolicyPeer]>,
        home: &str,
        pod: &Pod,
        traffic: Traffic,
    ) -> bool {
        match peers {
            None | Some([]) => true,
            Some(peers) => peers.iter().any(|peer| match &peer.ip_block {
                Some(block) => alone(peer) && block_holds(block, traffic.peer),
                None => self.selectors_hold(peer, home, pod),
            }),
        }
    }

    fn selectors_hold(&self, peer: &NetworkPolicyPeer, home: &str, pod: &Pod) -> bool {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
        let in_namespace = match &peer.namespace_selector {
            Some(selector) => self.namespaces.iter().any(|object| {
                object.metadata.name.as_deref() == Some(namespace)
                    && labels_match(selector, object.metadata.labels.as_ref())
            }),
            None => peer.pod_selector.is_some() && namespace == home,
        };
        let selected = match &peer.pod_selector {
            Some(selector) => labels_match(selector, pod.metadata.labels.as_ref()),
            None => true,
        };
        in_namespace && selected
    }

    /// `destinations` are the pods on which a port's name means a number.
    fn ports_hold(
        &self,
        ports: Option<&[NetworkPolicyPort]>,
        destinations: &[&Pod],
        traffic: Traffic,
    ) -> bool {
        let Some(ports) = ports.filter(|ports| !ports.is_empty()) else {
            return true;
        };
        let Some(number) = traffic.port else {
            return false;
        };
        ports.iter().any(|port| {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            protocol_number(protocol) == Some(traffic.protocol)
                && match (&port.port, port.end_port) {
                    (None, None) => true,
                    (None, Some(_)) => false,
                    (Some(IntOrString::Int(first)), None) => {
                        i32::from(number) == *first && *first > 0
                    }
                    (Some(IntOrString::Int(first)), Some(last)) => {
                        *first > 0 && last <= 65535 && (*first..=last).contains(&i32::from(number))
                    }
                    (Some(IntOrString::String(_)), Some(_)) => false,
                    (Some(IntOrString::String(name)), None) => destinations
                        .iter()
                        .any(|pod| calls_port(pod, name, protocol, number)),
                }
        })
    }
}

/// A peer's ipBlock counts only without selectors beside it.
fn alone(peer: &NetworkPolicyPeer) -> bool {
    peer.pod_selector.is_none() && peer.namespace_selector.is_none()
}

fn selects(policy: &NetworkPolicy, pod: &Pod) -> bool {
    if policy.metadata.namespace != pod.metadata.namespace {
        return false;
    }
    match policy
        .spec
        .as_ref()
        .and_then(|spec| spec.pod_selector.as_ref())
    {
        Some(selector) => {
            // What cannot be read does not say that the pod is not meant.
            let mut selector = selector.clone();
            if let Some(list) = &mut selector.match_expressions {
                list.retain(is_readable);
            }
            labels_match(&selector, pod.metadata.labels.as_ref())
        }
        None => true,
    }
}

/// Whether an expression has an operator that we know and values as it wants them.
fn is_readable(expression: &LabelSelectorRequirement) -> bool {
    let values = expression
        .values
        .as_ref()
        .is_some_and(|values| !values.is_empty());
    match expression.operator.as_str() {
        "In" | "NotIn" => values,
        "Exists" | "DoesNotExist" => !values,
        _ => false,
    }
}

fn isolates(policy: &NetworkPolicy, direction: Direction) -> bool {
    let Some(spec) = &policy.spec else {
        return direction == Direction::Ingress;
    };
    let types = spec.policy_types.clone().unwrap_or_default();
    let egress_rules = spec.egress.clone().unwrap_or_default();
    match direction {
        Direction::Ingress => types.is_empty() || types.contains(&"Ingress".to_owned()),
        Direction::Egress if types.is_empty() => !egress_rules.is_empty(),
        Direction::Egress => types.contains(&"Egress".to_owned()),
    }
}

/// Whether a pod counts as a peer: on its own network, not ended.
fn counts(pod: &Pod) -> bool {
    let host_network = pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
    let phase = pod.status.as_ref().and_then(|status| status.phase.clone());
    let ended = phase == Some("Succeeded".to_owned()) || phase == Some("Failed".to_owned());
    !host_network && !ended
}

fn has_address(pod: &Pod, address: IpAddr) -> bool {
    let Some(status) = &pod.status else {
        return false;
    };
    let mut texts: Vec<String> = Vec::new();
    texts.extend(status.pod_ip.clone());
    for ip in status.pod_ips.iter().flatten() {
        texts.push(ip.ip.clone());
    }
    texts.iter().any(|text| text.parse() == Ok(address))
}

fn labels_match(selector: &LabelSelector, labels: Option<&BTreeMap<String, String>>) -> bool {
    let empty = BTreeMap::new();
    let labels = labels.unwrap_or(&empty);
    for (key, value) in selector.match_labels.iter().flatten() {
        if labels.get(key) != Some(value) {
            return false;
        }
    }
    for expression in selector.match_expressions.iter().flatten() {
        let value = labels.get(&expression.key);
        let values = expression.values.clone().unwrap_or_default();
        let holds = match expression.operator.as_str() {
            "In" => value.is_some_and(|value| values.contains(value)),
            "NotIn" => !values.is_empty() && !value.is_some_and(|value| values.contains(value)),
            "Exists" => values.is_empty() && value.is_some(),
            "DoesNotExist" => values.is_empty() && value.is_none(),
            _ => false,
        };
        if !holds {
            return false;
        }
    }
    true
}

fn protocol_number(name: &str) -> Option<Protocol> {
    Some(match name {
        "TCP" => Protocol(6),
        "UDP" => Protocol(17),
        "SCTP" => Protocol(132),
        _ => return None,
    })
}

/// Whether a container of the pod calls the port so.
fn calls_port(pod: &Pod, name: &str, protocol: &str, number: u16) -> bool {
    let Some(spec) = &pod.spec else {
        return false;
    };
    let mut containers = spec.containers.clone();
    for container in spec.init_containers.iter().flatten() {
        if container.restart_policy == Some("Always".to_owned()) {
            containers.push(container.clone());
        }
    }
    containers.iter().any(|container| {
        container.ports.iter().flatten().any(|port| {
            let stated = port.protocol.as_deref().unwrap_or("");
            !name.is_empty()
                && port.name.as_deref() == Some(name)
                && (if stated.is_empty() { "TCP" } else { stated }) == protocol
                && port.container_port == i32::from(number)
        })
    })
}

fn block_holds(block: &IPBlock, address: IpAddr) -> bool {
    let Some(whole) = bits(&block.cidr) else {
        return false;
    };
    let mut excepted = false;
    for text in block.except.iter().flatten() {
        match bits(text) {
            Some(part) => excepted |= part.holds(address),
            // Nobody knows what was to be taken out.
            None => return false,
        }
    }
    whole.holds(address) && !excepted
}

/// A block as its leading bits: `0` and `1` as text, one character a bit.
struct Bits {
    v4: bool,
    leading: String,
}

impl Bits {
    fn holds(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.v4 && written_out(address).starts_with(&self.leading)
    }
}

fn written_out(address: IpAddr) -> String {
    let bytes = match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    bytes.iter().map(|byte| format!("{byte:08b}")).collect()
}

/// Reads a CIDR as the API server does: leading zeros are decimal, host bits do not count, and a
/// block inside `::ffff:0:0/96` is one of IPv4.
fn bits(text: &str) -> Option<Bits> {
    let mut halves = text.split('/');
    let (address, length) = (halves.next()?, halves.next()?);
    if halves.next().is_some() || !length.chars().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let length: usize = length.parse().ok()?;
    if address.contains(':') {
        let address: std::net::Ipv6Addr = address.parse().ok()?;
        let all = written_out(IpAddr::V6(address));
        let leading = all.get(..length)?.to_owned();
        let mapped = format!("{}{}", "0".repeat(80), "1".repeat(16));
        return Some(match leading.strip_prefix(&mapped) {
            Some(v4) => Bits {
                v4: true,
                leading: v4.to_owned(),
            },
            None => Bits { v4: false, leading },
        });
    }
    let octets: Vec<&str> = address.split('.').collect();
    if octets.len() != 4 {
        return None;
    }
    let mut all = String::new();
    for octet in octets {
        if octet.is_empty() || !octet.chars().all(|c| c.is_ascii_digit()) {
            return None;
        }
        all += &format!("{:08b}", octet.parse::<u8>().ok()?);
    }
    let leading = all.get(..length)?.to_owned();
    Some(Bits { v4: true, leading })
}
