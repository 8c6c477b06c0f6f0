//! NetworkPolicy (<https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/network-policy-v1/>).

use dataplane::Direction;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Case, Decision, Subject, Tier, blocks, pods, selectors};
use crate::objects::kinds;

impl Case<'_> {
    /// What NetworkPolicies say; `None` if none isolates the pod in this direction.
    pub(super) fn network_policies(&self) -> Option<Decision> {
        let kind = kinds::find("networking.k8s.io/v1", "NetworkPolicy")?;
        let home = self.subject.object.namespace();
        let mut isolating = Vec::new();
        for object in self.world.cluster.list_in(kind, home) {
            let Some(policy) = object.as_network_policy() else {
                continue;
            };
            let nothing = NetworkPolicySpec::default();
            let spec = policy.spec.as_ref().unwrap_or(&nothing);
            if self.is_asked(object) && self.selects(spec) && isolates(spec, self.direction) {
                isolating.push((object, policy.spec.as_ref()));
            }
        }
        let (first, _) = isolating.first()?;
        for (object, spec) in &isolating {
            if let Some(rule) = spec.and_then(|spec| self.rule_that_allows(spec)) {
                return Some(Decision {
                    accept: true,
                    tier: Tier::NetworkPolicy,
                    policy: Some(object.key().clone()),
                    rule: Some(rule),
                });
            }
        }
        Some(Decision {
            accept: false,
            tier: Tier::NetworkPolicy,
            policy: Some(first.key().clone()),
            rule: None,
        })
    }

    /// Whether the policy, of the pod's namespace, selects it.
    fn selects(&self, spec: &NetworkPolicySpec) -> bool {
        match &spec.pod_selector {
            // What cannot be read does not say that the pod is not meant.
            Some(selector) => selectors::readable_part_holds(selector, Some(self.subject.object)),
            None => true,
        }
    }

    fn rule_that_allows(&self, spec: &NetworkPolicySpec) -> Option<usize> {
        // Nobody knows whom it means: it isolates, and allows nothing.
        if !spec.pod_selector.iter().all(selectors::is_readable) {
            return None;
        }
        match self.direction {
            Direction::Ingress => spec.ingress.iter().flatten().position(|rule| {
                let at_subject = [self.subject];
                self.peers_hold(rule.from.as_deref())
                    && self.ports_hold(rule.ports.as_deref(), &at_subject)
            }),
            Direction::Egress => spec.egress.iter().flatten().position(|rule| {
                let peers = rule.to.as_deref();
                // Of pods that share an address while one replaces the other, the port's name
                // counts on those that the peers hold.
                let by_peers = |pod: &&Subject<'_>| self.holds_pod(peers, **pod);
                let held: Vec<Subject<'_>> =
                    self.at_peer.iter().filter(by_peers).copied().collect();
                self.peers_hold(peers) && self.ports_hold(rule.ports.as_deref(), &held)
            }),
        }
    }

    fn peers_hold(&self, peers: Option<&[NetworkPolicyPeer]>) -> bool {
        match peers {
            None | Some([]) => true,
            Some(peers) => peers.iter().any(|peer| match &peer.ip_block {
                Some(block) => alone(peer) && block_holds(block, self.traffic.peer),
                None => self
                    .at_peer
                    .iter()
                    .any(|pod| self.selectors_hold(peer, *pod)),
            }),
        }
    }

    /// Whether the peers hold this pod, which is at the other end: by selector or by address.
    fn holds_pod(&self, peers: Option<&[NetworkPolicyPeer]>, pod: Subject<'_>) -> bool {
        match peers {
            None | Some([]) => true,
            Some(peers) => peers.iter().any(|peer| match &peer.ip_block {
                Some(block) => alone(peer) && block_holds(block, self.traffic.peer),
                None => self.selectors_hold(peer, pod),
            }),
        }
    }

    fn selectors_hold(&self, peer: &NetworkPolicyPeer, pod: Subject<'_>) -> bool {
        let in_namespace = match &peer.namespace_selector {
            Some(selector) => self
                .namespace_of(pod)
                .is_some_and(|namespace| selectors::holds(selector, namespace)),
            None => {
                peer.pod_selector.is_some()
                    && pod.object.namespace() == self.subject.object.namespace()
            }
        };
        let selected = match &peer.pod_selector {
            Some(selector) => selectors::holds(selector, pod.object),
            None => true,
        };
        in_namespace && selected
    }

    /// `destinations` are the pods on which a port's name means a number.
    fn ports_hold(
        &self,
        ports: Option<&[NetworkPolicyPort]>,
        destinations: &[Subject<'_>],
    ) -> bool {
        let Some(ports) = ports.filter(|ports| !ports.is_empty()) else {
            return true;
        };
        let Some(number) = self.traffic.port else {
            return false;
        };
        ports.iter().any(|port| {
            let protocol = pods::protocol_number(port.protocol.as_deref().unwrap_or("TCP"));
            protocol == Some(self.traffic.protocol)
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
                    (Some(IntOrString::String(name)), None) => destinations.iter().any(|pod| {
                        pods::calls_port(pod.typed, name, self.traffic.protocol, number)
                    }),
                }
        })
    }
}

/// A peer's ipBlock counts only without selectors beside it.
fn alone(peer: &NetworkPolicyPeer) -> bool {
    peer.pod_selector.is_none() && peer.namespace_selector.is_none()
}

/// Whether a policy with this spec isolates: `policyTypes`, else ingress, and egress if there is
/// an egress rule.
fn isolates(spec: &NetworkPolicySpec, direction: Direction) -> bool {
    let types = spec.policy_types.as_deref().unwrap_or_default();
    match direction {
        Direction::Ingress => types.is_empty() || types.iter().any(|t| t == "Ingress"),
        Direction::Egress if types.is_empty() => spec.egress.iter().flatten().count() > 0,
        Direction::Egress => types.iter().any(|t| t == "Egress"),
    }
}

fn block_holds(block: &IPBlock, address: std::net::IpAddr) -> bool {
    let mut excepted = false;
    for text in block.except.iter().flatten() {
        match blocks::holds(text, address) {
            Some(holds) => excepted |= holds,
            // Nobody knows what was to be taken out.
            None => return false,
        }
    }
    blocks::holds(&block.cidr, address) == Some(true) && !excepted
}
