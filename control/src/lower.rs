//! Objects to what the dataplane compiles: selectors become addresses, named ports numbers,
//! defaults explicit. One [`EndpointPolicy`] per local endpoint, rebuilt from the whole state each
//! time: no deltas that could go astray.
//!
//! The rules are those of the NetworkPolicy API (<https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/network-policy-v1/>).
//! A fragment that validation would refuse matches nothing and still isolates: a policy whose own
//! selector cannot be read isolates every pod that the readable part of it selects, and allows
//! nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use dataplane::policy::ir::{
    Action, Block, Chain, EndpointPolicy, Isolation, Peers, PortRange, Ports, Rule,
};
use dataplane::{CounterId, PolicyId, Protocol, Tier};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::cidr;
use crate::cluster::Cluster;
use crate::objects::Object;
use crate::selector::Selector;

/// A pod's interface on this node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalEndpoint {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's UID: another pod of that name is another endpoint.
    pub uid: String,
    /// The interface's addresses. They stand for the pod also before its status has them.
    pub addresses: Vec<IpAddr>,
}

/// A policy's names, for people.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PolicyName {
    /// `NetworkPolicy`.
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID: another policy of that name has another number.
    pub uid: String,
}

/// The numbers of policies. A number is never given to another policy, so that a verdict kept in
/// a conntrack entry or a log record is never read as another's.
#[derive(Clone, Debug, Default)]
pub struct PolicyIds {
    by_name: HashMap<PolicyName, PolicyId>,
    names: Vec<PolicyName>,
}

/// All [`PolicyId`]s have been given out.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{} policies have been numbered since the state directory was made; start with a new one",
    PolicyId::MAX
)]
pub struct OutOfPolicyIds;

impl PolicyIds {
    /// No numbers yet.
    pub fn new() -> PolicyIds {
        PolicyIds::default()
    }

    /// The registry whose numbers are these names' positions: what [`PolicyIds::names`] gave, from
    /// a journal.
    pub fn restore(names: Vec<PolicyName>) -> PolicyIds {
        let numbered = names.iter().cloned().enumerate();
        PolicyIds {
            by_name: numbered
                .map(|(at, name)| (name, PolicyId(at as u32)))
                .collect(),
            names,
        }
    }

    /// Every policy that ever had a number, by number.
    pub fn names(&self) -> &[PolicyName] {
        &self.names
    }

    /// Who has this number.
    pub fn name(&self, id: PolicyId) -> Option<&PolicyName> {
        self.names.get(id.0 as usize)
    }

    /// The policy's number; a new one if it has none.
    pub fn id(&mut self, name: PolicyName) -> Result<PolicyId, OutOfPolicyIds> {
        if let Some(&id) = self.by_name.get(&name) {
            return Ok(id);
        }
        // The last number stands for "no policy at all" (an endpoint without a pod).
        if self.names.len() >= PolicyId::MAX as usize {
            return Err(OutOfPolicyIds);
        }
        let id = PolicyId(self.names.len() as u32);
        self.names.push(name.clone());
        self.by_name.insert(name, id);
        Ok(id)
    }
}

/// What [`lower`] makes.
#[derive(Clone, Debug, Default)]
pub struct Lowered {
    /// The policies of the local endpoints, in their order. Endpoints with equal rules share them.
    pub policies: Vec<EndpointPolicy>,
}

/// Lowers all policies of `cluster` for the local endpoints.
///
/// An endpoint whose pod is not in the cluster (or is another by UID) has no labels to select it
/// by, so nobody can say what it may do: it is isolated in both directions and may do nothing.
pub fn lower(
    cluster: &Cluster,
    locals: &[LocalEndpoint],
    ids: &mut PolicyIds,
) -> Result<Lowered, OutOfPolicyIds> {
    let mut scene = Scene::new(cluster, locals);
    let policies = policies_by_namespace(cluster, ids)?;
    let none = Vec::new();
    let policies = locals.iter().map(|local| {
        let Some(pod) = scene.find(local) else {
            return closed();
        };
        let candidates = policies.get(&local.namespace).unwrap_or(&none);
        endpoint_policy(&mut scene, pod, candidates)
    });
    Ok(Lowered {
        policies: policies.collect(),
    })
}

/// Isolated by a policy that has no number of its own, with no rule.
fn closed() -> EndpointPolicy {
    let chain = Chain {
        isolating: vec![isolation(PolicyId(PolicyId::MAX))],
        bound: Vec::new(),
        rules: Vec::new(),
    };
    EndpointPolicy {
        ingress: chain.clone(),
        egress: chain,
    }
}

/// Isolated by a policy that is not counted.
fn isolation(policy: PolicyId) -> Isolation {
    Isolation {
        policy,
        counter: CounterId::NONE,
    }
}

/// One NetworkPolicy, ready to be asked whom it selects.
struct Policy {
    id: PolicyId,
    /// What of its selector can be read.
    selector: Selector,
    /// Some of its selector cannot be read: it isolates, its rules do not count.
    unread: bool,
    ingress: bool,
    egress: bool,
    object: Arc<Object>,
}

fn policies_by_namespace(
    cluster: &Cluster,
    ids: &mut PolicyIds,
) -> Result<BTreeMap<String, Vec<Policy>>, OutOfPolicyIds> {
    let mut found: BTreeMap<String, Vec<Policy>> = BTreeMap::new();
    // By namespace and name: the order in which rules are looked at, and so who is named first.
    for object in cluster.list_of::<NetworkPolicy>() {
        let Some(policy) = object.as_network_policy() else {
            continue;
        };
        let default = NetworkPolicySpec::default();
        let spec = policy.spec.as_ref().unwrap_or(&default);
        let (ingress, egress) = directions(spec);
        let id = ids.id(PolicyName {
            kind: "NetworkPolicy",
            namespace: object.namespace().to_owned(),
            name: object.name().to_owned(),
            uid: object.uid().to_owned(),
        })?;
        let selector = spec.pod_selector.as_ref().map(Selector::new);
        let (selector, unread) = selector.unwrap_or_default().readable();
        found
            .entry(object.namespace().to_owned())
            .or_default()
            .push(Policy {
                id,
                selector,
                unread,
                ingress,
                egress,
                object: object.clone(),
            });
    }
    Ok(found)
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

/// A pod that policies can be about: with addresses, not on the host network, not ended.
struct Subject {
    object: Arc<Object>,
    addresses: Vec<IpAddr>,
    /// Container ports by name and protocol; a name may have several numbers.
    named_ports: Vec<(String, Protocol, u16)>,
}

/// Index of a [`Subject`] in its [`Scene`].
type PodIndex = usize;

/// Everything that rules refer to, with what has been found out already.
struct Scene {
    pods: Vec<Subject>,
    by_namespace: BTreeMap<String, Vec<PodIndex>>,
    namespaces: Vec<Arc<Object>>,
    /// Pods by (namespace selector or one namespace, pod selector).
    selected: HashMap<(Scope, Selector), Arc<[PodIndex]>>,
    /// Rules by (policy, direction, what named ports are on the selected pod).
    lowered: HashMap<(PolicyId, bool, NamedPorts), Vec<Arc<Rule>>>,
}

/// Names resolved on the selected pod; empty where a policy's rules do not depend on it.
type NamedPorts = Vec<(String, Protocol, u16)>;

#[derive(Clone, PartialEq, Eq, Hash)]
enum Scope {
    One(String),
    Matching(Selector),
}

impl Scene {
    fn new(cluster: &Cluster, locals: &[LocalEndpoint]) -> Scene {
        let local: HashMap<(&str, &str), &LocalEndpoint> = locals
            .iter()
            .map(|l| ((l.namespace.as_str(), l.name.as_str()), l))
            .collect();
        let attached: HashSet<IpAddr> = locals.iter().flat_map(|l| &l.addresses).copied().collect();
        let mut scene = Scene {
            pods: Vec::new(),
            by_namespace: BTreeMap::new(),
            namespaces: cluster.list_of::<Namespace>().cloned().collect(),
            selected: HashMap::new(),
            lowered: HashMap::new(),
        };
        for object in cluster.list_of::<Pod>() {
            let Some(pod) = object.as_pod() else { continue };
            if is_host_network(pod) {
                continue;
            }
            let here = local
                .get(&(object.namespace(), object.name()))
                .filter(|l| l.uid == object.uid());
            let mut addresses = match here {
                _ if has_ended(pod) => Vec::new(),
                Some(l) => l.addresses.clone(),
                // What stands behind an interface of ours is that pod's. Another's status may be
                // out of date: an address is used again at once.
                None => {
                    let mut stated = pod_addresses(pod);
                    stated.retain(|address| !attached.contains(address));
                    stated
                }
            };
            addresses.sort_unstable();
            addresses.dedup();
            if addresses.is_empty() && here.is_none() {
                continue;
            }
            let index = scene.pods.len();
            let place = scene.by_namespace.entry(object.namespace().to_owned());
            place.or_default().push(index);
            scene.pods.push(Subject {
                object: object.clone(),
                addresses,
                named_ports: named_ports(pod),
            });
        }
        scene
    }

    /// The pod of a local endpoint.
    fn find(&self, local: &LocalEndpoint) -> Option<PodIndex> {
        let pods = self.by_namespace.get(&local.namespace)?;
        let of = |&&index: &&PodIndex| {
            let object = &self.pods[index].object;
            object.name() == local.name && object.uid() == local.uid
        };
        pods.iter().find(of).copied()
    }

    /// The pods in `scope` that `selector` selects.
    fn select(&mut self, scope: Scope, selector: Selector) -> Arc<[PodIndex]> {
        let key = (scope, selector);
        if let Some(found) = self.selected.get(&key) {
            return found.clone();
        }
        let (scope, selector) = &key;
        let namespaces: Vec<&str> = match scope {
            Scope::One(name) => vec![name],
            Scope::Matching(by) => self
                .namespaces
                .iter()
                .filter(|object| by.matches(|label| object.label(label)))
                .map(|object| object.name())
                .collect(),
        };
        let found: Arc<[PodIndex]> = namespaces
            .iter()
            .filter_map(|name| self.by_namespace.get(*name))
            .flatten()
            .copied()
            .filter(|&at| selector.matches(|label| self.pods[at].object.label(label)))
            .collect();
        self.selected.insert(key, found.clone());
        found
    }

    fn addresses<'a>(&'a self, pods: &'a [PodIndex]) -> impl Iterator<Item = IpAddr> + 'a {
        pods.iter()
            .flat_map(|&at| self.pods[at].addresses.iter().copied())
    }
}

fn is_host_network(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    spec.and_then(|spec| spec.host_network).unwrap_or_default()
}

/// Whether the pod's containers have ended for good: its address may be another's by now.
pub(crate) fn has_ended(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// `status.podIPs`, else `status.podIP`; text that is no address is left out.
pub(crate) fn pod_addresses(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else {
        return Vec::new();
    };
    let listed = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let single = status.pod_ip.as_deref();
    let addresses = listed.chain(single).filter_map(|text| text.parse().ok());
    addresses.map(canonical).collect()
}

/// IPv4 in IPv6 is IPv4.
fn canonical(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        v4 => v4,
    }
}

/// Container ports with a name, sidecars' (restartable init containers') too.
pub(crate) fn named_ports(pod: &Pod) -> Vec<(String, Protocol, u16)> {
    let Some(spec) = &pod.spec else {
        return Vec::new();
    };
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let mut found: Vec<_> = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            let name = port.name.clone().filter(|name| !name.is_empty())?;
            let number = u16::try_from(port.container_port)
                .ok()
                .filter(|&n| n != 0)?;
            // In a container an empty protocol is an absent one.
            let stated = port.protocol.as_deref().filter(|p| !p.is_empty());
            Some((name, protocol(stated)?, number))
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// TCP if nothing is stated; `None` for what is no protocol of the API.
fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("TCP") => Some(Protocol::TCP),
        Some("UDP") => Some(Protocol::UDP),
        Some("SCTP") => Some(Protocol::SCTP),
        Some(_) => None,
    }
}

fn endpoint_policy(scene: &mut Scene, pod: PodIndex, candidates: &[Policy]) -> EndpointPolicy {
    let mut policy = EndpointPolicy::default();
    for candidate in candidates {
        let labels = scene.pods[pod].object.clone();
        if !candidate.selector.matches(|label| labels.label(label)) {
            continue;
        }
        if candidate.ingress {
            policy.ingress.isolating.push(isolation(candidate.id));
            policy
                .ingress
                .rules
                .extend(rules(scene, candidate, true, pod));
        }
        if candidate.egress {
            policy.egress.isolating.push(isolation(candidate.id));
            policy
                .egress
                .rules
                .extend(rules(scene, candidate, false, pod));
        }
    }
    policy
}

/// The rules of a policy in one direction for one selected pod; lowered once for all pods for
/// which they are the same.
fn rules(scene: &mut Scene, policy: &Policy, ingress: bool, pod: PodIndex) -> Vec<Arc<Rule>> {
    if policy.unread {
        return Vec::new();
    }
    let Some(spec) = policy
        .object
        .as_network_policy()
        .and_then(|p| p.spec.as_ref())
    else {
        return Vec::new();
    };
    let named = |ports: &Option<Vec<NetworkPolicyPort>>| {
        let mut ports = ports.iter().flatten();
        ports.any(|port| matches!(port.port, Some(IntOrString::String(_))))
    };
    let depends = ingress && spec.ingress.iter().flatten().any(|rule| named(&rule.ports));
    let own = if depends {
        scene.pods[pod].named_ports.clone()
    } else {
        Vec::new()
    };
    let key = (policy.id, ingress, own);
    if let Some(known) = scene.lowered.get(&key) {
        return known.clone();
    }
    let mut lowered = Vec::new();
    let namespace = policy.object.namespace();
    if ingress {
        for (index, rule) in spec.ingress.iter().flatten().enumerate() {
            let peers = peers(scene, namespace, rule.from.as_deref());
            let ports = ports(rule.ports.as_deref(), &key.2);
            push(&mut lowered, policy.id, index, peers.all, ports);
        }
    } else {
        for (index, rule) in spec.egress.iter().flatten().enumerate() {
            let peers = peers(scene, namespace, rule.to.as_deref());
            egress_rule(
                scene,
                policy.id,
                index,
                peers,
                rule.ports.as_deref(),
                &mut lowered,
            );
        }
    }
    scene.lowered.insert(key, lowered.clone());
    lowered
}

fn push(rules: &mut Vec<Arc<Rule>>, policy: PolicyId, index: usize, peers: Peers, ports: Ports) {
    rules.push(Arc::new(Rule {
        policy,
        // More rules than that do not fit a verdict; the last number stands for all behind it.
        index: u16::try_from(index).unwrap_or(u16::MAX),
        tier: Tier::NetworkPolicy,
        action: Action::Accept,
        peers,
        ports,
        counter: CounterId::NONE,
    }));
}

/// A rule's peers: all of them, and the pods among them, on which an egress rule's named ports are
/// resolved.
struct LoweredPeers {
    all: Peers,
    pods: Vec<(PodIndex, Vec<IpAddr>)>,
}

fn peers(scene: &mut Scene, namespace: &str, peers: Option<&[NetworkPolicyPeer]>) -> LoweredPeers {
    let peers = peers.unwrap_or_default();
    if peers.is_empty() {
        let everybody = scene.pods.iter().enumerate();
        return LoweredPeers {
            all: Peers::Any,
            pods: everybody.map(|(at, p)| (at, p.addresses.clone())).collect(),
        };
    }
    let mut blocks = Vec::new();
    let mut pods: BTreeMap<PodIndex, Vec<IpAddr>> = BTreeMap::new();
    for peer in peers {
        if let Some(block) = &peer.ip_block {
            // With a selector beside it the peer is invalid and matches nothing.
            let alone = peer.pod_selector.is_none() && peer.namespace_selector.is_none();
            if let Some(block) = ip_block(block).filter(|_| alone) {
                for (at, pod) in scene.pods.iter().enumerate() {
                    let inside = pod.addresses.iter().filter(|a| holds(&block, a));
                    let inside: Vec<IpAddr> = inside.copied().collect();
                    if !inside.is_empty() {
                        pods.entry(at).or_default().extend(inside);
                    }
                }
                blocks.push(block);
            }
            continue;
        }
        let selector = peer.pod_selector.as_ref().map(Selector::new);
        let scope = match (&peer.namespace_selector, &selector) {
            (Some(by), _) => Scope::Matching(Selector::new(by)),
            (None, Some(_)) => Scope::One(namespace.to_owned()),
            // A peer without members is invalid and matches nothing.
            (None, None) => continue,
        };
        let found = scene.select(scope, selector.unwrap_or_default());
        blocks.extend(scene.addresses(&found).map(single));
        for &at in found.iter() {
            pods.entry(at)
                .or_default()
                .extend(&scene.pods[at].addresses);
        }
    }
    blocks.sort_unstable();
    blocks.dedup();
    LoweredPeers {
        all: Peers::blocks(blocks),
        pods: pods.into_iter().collect(),
    }
}

fn single(address: IpAddr) -> Block {
    Block {
        prefix: IpNet::from(address),
        except: Vec::new(),
    }
}

fn holds(block: &Block, address: &IpAddr) -> bool {
    block.prefix.contains(address) && !block.except.iter().any(|except| except.contains(address))
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

/// One item of `ports`.
enum Item<'a> {
    Range(PortRange),
    Named(&'a str, Protocol),
    /// Invalid, matches nothing.
    Nothing,
}

fn item(port: &NetworkPolicyPort) -> Item<'_> {
    let Some(protocol) = protocol(port.protocol.as_deref()) else {
        return Item::Nothing;
    };
    let range = |first: i32, last: i32| {
        let ends = (u16::try_from(first).ok(), u16::try_from(last).ok());
        match ends {
            (Some(first), Some(last)) if 0 < first && first <= last => Item::Range(PortRange {
                protocol,
                first,
                last,
            }),
            _ => Item::Nothing,
        }
    };
    match (&port.port, port.end_port) {
        (None, None) => Item::Range(PortRange {
            protocol,
            first: 0,
            last: u16::MAX,
        }),
        (Some(IntOrString::Int(number)), None) => range(*number, *number),
        (Some(IntOrString::Int(number)), Some(end)) => range(*number, end),
        (Some(IntOrString::String(name)), None) => Item::Named(name, protocol),
        (None | Some(IntOrString::String(_)), Some(_)) => Item::Nothing,
    }
}

/// A rule's ports with the names resolved by `named`.
fn ports(ports: Option<&[NetworkPolicyPort]>, named: &[(String, Protocol, u16)]) -> Ports {
    let ports = ports.unwrap_or_default();
    if ports.is_empty() {
        return Ports::Any;
    }
    let mut ranges = Vec::new();
    for port in ports {
        match item(port) {
            Item::Range(range) => ranges.push(range),
            Item::Named(name, protocol) => ranges.extend(
                named
                    .iter()
                    .filter(|(n, p, _)| n == name && *p == protocol)
                    .map(|&(_, protocol, number)| PortRange {
                        protocol,
                        first: number,
                        last: number,
                    }),
            ),
            Item::Nothing => {}
        }
    }
    ranges.sort_unstable();
    ranges.dedup();
    Ports::List(ranges.into())
}

/// An egress rule: its numbers for all peers, and for each set of numbers that its names have on
/// the pods among the peers, those pods.
fn egress_rule(
    scene: &Scene,
    policy: PolicyId,
    index: usize,
    peers: LoweredPeers,
    wanted: Option<&[NetworkPolicyPort]>,
    rules: &mut Vec<Arc<Rule>>,
) {
    let numbers = ports(wanted, &[]);
    let named = |port: &NetworkPolicyPort| matches!(item(port), Item::Named(..));
    let (names, rest): (Vec<_>, Vec<_>) = wanted
        .unwrap_or_default()
        .iter()
        .cloned()
        .partition(|port| named(port));
    if names.is_empty() || !rest.is_empty() {
        push(rules, policy, index, peers.all, numbers);
    }
    if names.is_empty() {
        return;
    }
    let mut groups: BTreeMap<Vec<PortRange>, Vec<Block>> = BTreeMap::new();
    for (at, addresses) in peers.pods {
        if let Ports::List(list) = ports(Some(&names), &scene.pods[at].named_ports)
            && !list.is_empty()
        {
            let blocks = groups.entry(list.to_vec()).or_default();
            blocks.extend(addresses.into_iter().map(single));
        }
    }
    if groups.is_empty() && rest.is_empty() {
        // Nobody has such a port: the rule is kept, so that it can be explained.
        push(
            rules,
            policy,
            index,
            Peers::none(),
            Ports::List(Arc::from([])),
        );
    }
    for (ranges, mut blocks) in groups {
        blocks.sort_unstable();
        blocks.dedup();
        push(
            rules,
            policy,
            index,
            Peers::blocks(blocks),
            Ports::List(ranges.into()),
        );
    }
}
