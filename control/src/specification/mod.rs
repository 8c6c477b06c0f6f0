//! The executable specification of policy: objects walked literally for one packet. Slow and
//! obvious.
//!
//! It shares nothing with [`lower`](crate::lower) but the object types: defaults, selectors,
//! CIDRs, named ports, addresses and the order of tiers are read here once more, so that a mistake
//! there is not made here too. Tests, and the live self-check, hold the two equal.
//!
//! It needs no preparation, and looks at each object at most a few times for a decision: in a
//! cluster of 10,000 policies and 5,000 pods a decision takes a few milliseconds at most.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use dataplane::{Direction, Protocol};
use k8s_openapi::api::core::v1::Pod;

use crate::cluster::Cluster;
use crate::objects::{Key, Object};

mod blocks;
mod cluster_wide;
mod groups;
mod network_policy;
mod pods;
mod selectors;

/// The annotation that says whether a policy is enforced.
const MODE: &str = "weir.dev/mode";

/// The objects that decide, and the pods that stand behind an interface of this node.
#[derive(Clone, Debug)]
pub struct World {
    cluster: Cluster,
    /// Addresses behind an interface of this node, by the UID of the pod there.
    local: HashMap<String, Vec<IpAddr>>,
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

/// The tiers in the order in which they decide.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Tier {
    /// Security groups of the pods that are bound to any: they deny, or let it go on.
    SecurityGroup,
    /// AdminNetworkPolicy, and ClusterNetworkPolicy's `Admin`.
    Admin,
    /// NetworkPolicy.
    NetworkPolicy,
    /// ClusterNetworkPolicy's `Baseline`, and BaselineAdminNetworkPolicy.
    Baseline,
    /// No policy decided: accept.
    Default,
}

/// Accept or deny, and who says so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// Whether the traffic may pass.
    pub accept: bool,
    /// The tier that decided.
    pub tier: Tier,
    /// The policy that decided. Where nothing of a tier allows, the first by (namespace, name)
    /// that isolates the pod in that direction, or binds it to groups.
    pub policy: Option<Key>,
    /// The rule that decided, by its place in the policy's list for that direction; the first of
    /// several NetworkPolicy rules that allow, by (namespace, name, place).
    pub rule: Option<usize>,
}

impl Decision {
    /// What is left of it for a pod that reaches itself through a Service: NetworkPolicy never denies
    /// that, the other tiers may (semantics D7).
    #[must_use]
    pub fn on_the_way_to_itself(self) -> Decision {
        if self.accept || self.tier != Tier::NetworkPolicy {
            return self;
        }
        Decision {
            accept: true,
            tier: Tier::Default,
            policy: None,
            rule: None,
        }
    }
}

/// Which policies count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policies {
    /// Those that are enforced.
    Enforced,
    /// Those and the ones that are only watched (`weir.dev/mode: audit`).
    WithAudited,
}

impl World {
    /// The world of `cluster` on a node where each pod of `local` (its UID) stands behind an
    /// interface with these addresses. They are that pod's and no other's, whatever anybody's
    /// status says.
    ///
    /// Cheap: objects are shared, not copied.
    pub fn new<'a>(
        cluster: &Cluster,
        local: impl IntoIterator<Item = (&'a str, &'a [IpAddr])>,
    ) -> World {
        let local = local.into_iter();
        World {
            cluster: cluster.clone(),
            local: local
                .map(|(uid, addresses)| (uid.to_owned(), addresses.to_vec()))
                .collect(),
        }
    }

    /// What enforced policy says of traffic that `pod` would receive ([`Direction::Ingress`]) or
    /// send. `pod` is a Pod of this world.
    pub fn decide(&self, pod: &Object, direction: Direction, traffic: Traffic) -> Decision {
        self.decide_by(Policies::Enforced, pod, direction, traffic)
    }

    /// As [`World::decide`], by the `policies`.
    pub fn decide_by(
        &self,
        policies: Policies,
        pod: &Object,
        direction: Direction,
        traffic: Traffic,
    ) -> Decision {
        let Some(typed) = pod.as_pod() else {
            // Nobody knows what it is: it may do nothing.
            return Decision {
                accept: false,
                tier: Tier::Default,
                policy: None,
                rule: None,
            };
        };
        let case = Case {
            world: self,
            policies,
            subject: Subject { object: pod, typed },
            direction,
            traffic,
            at_peer: self.pods_at(traffic.peer),
        };
        None.or_else(|| case.security_groups())
            .or_else(|| case.cluster_wide(Tier::Admin))
            .or_else(|| case.network_policies())
            .or_else(|| case.cluster_wide(Tier::Baseline))
            .unwrap_or(Decision {
                accept: true,
                tier: Tier::Default,
                policy: None,
                rule: None,
            })
    }

    /// The pod of that UID.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        self.cluster.pod(namespace, name)
    }

    /// Pods that have this address, on their own network and not ended. There may be several for
    /// a moment, while one replaces another.
    fn pods_at(&self, address: IpAddr) -> Vec<Subject<'_>> {
        let taken = self.local.values().flatten().any(|own| *own == address);
        let mut found = Vec::new();
        for object in self.cluster.list_of::<Pod>() {
            let Some(typed) = object.as_pod() else {
                continue;
            };
            let has_it = match self.local.get(object.uid()) {
                Some(own) => own.contains(&address),
                None => !taken && pods::states_address(typed, address),
            };
            if has_it && pods::counts(typed) {
                found.push(Subject { object, typed });
            }
        }
        found
    }
}

/// A pod, as an object and as its type.
#[derive(Clone, Copy, Debug)]
struct Subject<'a> {
    object: &'a Object,
    typed: &'a Pod,
}

/// One question, with what is found out once.
struct Case<'a> {
    world: &'a World,
    policies: Policies,
    /// Whose policy is asked.
    subject: Subject<'a>,
    direction: Direction,
    traffic: Traffic,
    /// The pods at the other end's address.
    at_peer: Vec<Subject<'a>>,
}

impl Case<'_> {
    /// Whether a policy is among those that count.
    fn is_asked(&self, policy: &Object) -> bool {
        self.policies == Policies::WithAudited || policy.annotation(MODE) != Some("audit")
    }

    /// The object of the namespace that `pod` is in.
    fn namespace_of(&self, pod: Subject<'_>) -> Option<&Object> {
        let namespace = self.world.cluster.namespace(pod.object.namespace())?;
        Some(&**namespace)
    }
}
