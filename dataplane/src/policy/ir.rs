//! Policy as the control thread hands it over: selectors resolved to sets of addresses, names to
//! numbers, defaults made explicit. One [`EndpointPolicy`] per local endpoint.
//!
//! The rule is the atom: peers × ports of one rule, never flattened over rules or policies.
//! A rule whose named port resolves to different numbers for different peers becomes several
//! [`Rule`]s with the same policy and index.

use std::sync::Arc;

use ipnet::IpNet;

use crate::{CounterId, PolicyId, Protocol, Tier};

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
/// Meaning, tier by tier:
///
/// 1. If [`Chain::bound`] is not empty, drop what no SecurityGroup rule matches; what one matches
///    goes on.
/// 2. Admin rules in order, the first match decides (Pass leaves the tier).
/// 3. If [`Chain::isolating`] is not empty, accept iff any NetworkPolicy rule matches, else drop.
/// 4. Baseline rules in order, the first match decides.
/// 5. Accept.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Chain {
    /// What binds the endpoint to security groups, by (namespace, name). Empty: no security group
    /// is asked, whatever rules of [`Tier::SecurityGroup`] there are.
    pub bound: Vec<Isolation>,
    /// The NetworkPolicies that isolate the endpoint in this direction, by (namespace, name).
    pub isolating: Vec<Isolation>,
    /// Rules in order of evaluation: by tier, in the Admin and Baseline tiers by priority.
    pub rules: Vec<Arc<Rule>>,
}

/// A policy that denies what no rule of its tier lets pass.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Isolation {
    /// The policy.
    pub policy: PolicyId,
    /// Counts the denials by default that name it: those of the first one in its list.
    pub counter: CounterId,
}

/// One rule: traffic whose peer is in `peers` and whose port is in `ports`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Rule {
    /// The policy it belongs to; in [`Tier::SecurityGroup`] the group.
    pub policy: PolicyId,
    /// Its index in that policy's list for the direction; the last number stands for all rules
    /// from there on.
    pub index: u16,
    /// The policy's tier; never [`Tier::Default`].
    pub tier: Tier,
    /// What a match means. In [`Tier::SecurityGroup`] and [`Tier::NetworkPolicy`] always
    /// [`Action::Accept`].
    pub action: Action,
    /// The other end.
    pub peers: Peers,
    /// The destination's port.
    pub ports: Ports,
    /// Counts what this rule decides, or lets go on: a match in [`Tier::SecurityGroup`], or a Pass,
    /// counts together with what decides then, see [`Compounds`](super::Compounds).
    pub counter: CounterId,
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

/// A rule's other end. An empty list is a list that matches nothing, never [`Peers::Any`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Peers {
    /// Every address of both families, outside ones too.
    Any,
    /// Addresses in any of the sets or in any of the blocks.
    Of {
        /// Sets whose members control lists.
        sets: Arc<[PeerSetId]>,
        /// Blocks of addresses.
        blocks: Arc<[Block]>,
    },
}

impl Peers {
    /// Matches nothing.
    pub fn none() -> Peers {
        Peers::blocks([])
    }

    /// Addresses in any of the blocks.
    pub fn blocks(blocks: impl Into<Arc<[Block]>>) -> Peers {
        Peers::Of {
            sets: Arc::from([]),
            blocks: blocks.into(),
        }
    }

    /// Addresses in any of the sets.
    pub fn sets(sets: impl Into<Arc<[PeerSetId]>>) -> Peers {
        Peers::Of {
            sets: sets.into(),
            blocks: Arc::from([]),
        }
    }
}

/// A set of addresses that changes as the cluster does, while the rules that name it stay: the
/// pods that a selector picks, the nodes, the members of a security group.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PeerSetId(pub u32);

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
    /// Any protocol: a range of one without ports is all of that protocol.
    pub protocol: Protocol,
    /// First port.
    pub first: u16,
    /// Last port, inclusive, not below `first`. All ports of a protocol are 0 to 65535.
    pub last: u16,
}
