//! Policy as the control thread hands it over: selectors resolved to addresses, names to numbers,
//! defaults made explicit. One [`EndpointPolicy`] per local endpoint.
//!
//! The rule is the atom: peers × ports of one rule, never flattened over rules or policies.
//! A rule whose named port resolves to different numbers for different peers becomes several
//! [`Rule`]s with the same policy and index.

use std::sync::Arc;

use ipnet::IpNet;

use crate::{PolicyId, Protocol, Tier};

/// The policies of one local endpoint, both directions.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EndpointPolicy {
    /// What the endpoint may receive; peers are sources.
    pub ingress: Chain,
    /// What the endpoint may send; peers are destinations.
    pub egress: Chain,
}

/// The rules of one endpoint and direction.
///
/// Meaning: Admin rules in order, the first match decides (Pass leaves the tier); then, if
/// [`Chain::isolating`] is not empty, accept iff any NetworkPolicy rule matches, else drop; then
/// Baseline rules in order, the first match decides; then accept.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Chain {
    /// The NetworkPolicies that isolate the endpoint in this direction, by (namespace, name).
    pub isolating: Vec<PolicyId>,
    /// Rules in order of evaluation: by tier, in the Admin and Baseline tiers by priority.
    pub rules: Vec<Arc<Rule>>,
}

/// One rule: traffic whose peer is in `peers` and whose port is in `ports`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Rule {
    /// The policy it belongs to.
    pub policy: PolicyId,
    /// Its index in that policy's list for the direction.
    pub index: u16,
    /// The policy's tier; never [`Tier::Default`].
    pub tier: Tier,
    /// What a match means. In [`Tier::NetworkPolicy`] always [`Action::Accept`].
    pub action: Action,
    /// The other end.
    pub peers: Peers,
    /// The destination's port.
    pub ports: Ports,
}

/// What a matching rule does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// Accept for good.
    Accept,
    /// Drop for good.
    Deny,
    /// Leave the tier.
    Pass,
}

/// A rule's other end. An empty set is a set that matches nothing, never [`Peers::Any`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Peers {
    /// Every address of both families, outside ones too.
    Any,
    /// Addresses in any of the blocks.
    Set(Arc<[Block]>),
}

impl Peers {
    /// Matches nothing.
    pub fn none() -> Peers {
        Peers::Set(Arc::from([]))
    }
}

/// A prefix without some of its parts. Prefixes are canonical: no host bits, no IPv4-mapped IPv6.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Block {
    /// The prefix.
    pub prefix: IpNet,
    /// What is taken out of this prefix, and of this one only.
    pub except: Vec<IpNet>,
}

/// A rule's ports. An empty list matches nothing, never [`Ports::Any`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Ports {
    /// Every port and every protocol, those without ports too.
    Any,
    /// Any of the ranges.
    List(Arc<[PortRange]>),
}

/// Ports of one protocol.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PortRange {
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// First port.
    pub first: u16,
    /// Last port, inclusive, not below `first`. All ports of a protocol are 0 to 65535.
    pub last: u16,
}
