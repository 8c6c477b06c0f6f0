//! The executable specification: an [`EndpointPolicy`] walked literally, one rule after another.
//!
//! Nothing here is clever, so that it can be believed by reading it. Tests hold
//! [`PolicyTable`](super::PolicyTable) equal to it, and [`explain`](super::explain) asks it rule
//! by rule.

use std::net::IpAddr;

use super::ir::{Action, Block, Chain, EndpointPolicy, Peers, PortRange, Ports, Rule};
use crate::{Address, Direction, PolicyId, Protocol, Provenance, Tier, Verdict};

/// What `policy` says of traffic of its endpoint in `direction`.
///
/// `peer` is the other end: the source of what the endpoint receives, the destination of what it
/// sends. `destination_port` counts for protocols with ports only; without one (there was none to
/// read) only rules for any port match.
pub fn decide(
    policy: &EndpointPolicy,
    direction: Direction,
    peer: Address,
    protocol: Protocol,
    destination_port: Option<u16>,
) -> Verdict {
    let chain = chain(policy, direction);
    let first_match = |tier: Tier| {
        let of_tier = chain.rules.iter().filter(move |rule| rule.tier == tier);
        of_tier
            .into_iter()
            .find(|rule| matches(rule, peer, protocol, destination_port))
    };
    if let Some(rule) = first_match(Tier::Admin)
        && rule.action != Action::Pass
    {
        return by_rule(rule, direction);
    }
    if let Some(&isolating) = chain.isolating.first() {
        return match first_match(Tier::NetworkPolicy) {
            Some(rule) => by_rule(rule, direction),
            None => isolated(direction, isolating),
        };
    }
    match first_match(Tier::Baseline) {
        Some(rule) if rule.action != Action::Pass => by_rule(rule, direction),
        _ => Verdict::default_accept(direction),
    }
}

/// The chain for one direction.
pub const fn chain(policy: &EndpointPolicy, direction: Direction) -> &Chain {
    match direction {
        Direction::Egress => &policy.egress,
        Direction::Ingress => &policy.ingress,
    }
}

/// The verdict of a rule that decided.
pub const fn by_rule(rule: &Rule, direction: Direction) -> Verdict {
    Verdict {
        accept: accepts(rule),
        provenance: Provenance {
            direction,
            tier: rule.tier,
            policy: Some(rule.policy),
            rule: Some(rule.index),
        },
    }
}

/// Whether a rule that decided accepts: any action but [`Action::Deny`] does, and in
/// [`Tier::NetworkPolicy`] there is only accept, whatever the rule says.
pub const fn accepts(rule: &Rule) -> bool {
    matches!(rule.tier, Tier::NetworkPolicy) || !matches!(rule.action, Action::Deny)
}

/// The verdict for what no NetworkPolicy rule accepts, where `first` is the first policy that
/// isolates the endpoint.
pub const fn isolated(direction: Direction, first: PolicyId) -> Verdict {
    Verdict {
        accept: false,
        provenance: Provenance {
            direction,
            tier: Tier::NetworkPolicy,
            policy: Some(first),
            rule: None,
        },
    }
}

/// Whether `rule` matches: its peers and its ports.
pub fn matches(
    rule: &Rule,
    peer: Address,
    protocol: Protocol,
    destination_port: Option<u16>,
) -> bool {
    matches_peer(&rule.peers, peer) && matches_port(&rule.ports, protocol, destination_port)
}

/// Whether `peers` holds `peer`.
pub fn matches_peer(peers: &Peers, peer: Address) -> bool {
    match peers {
        Peers::Any => true,
        Peers::Set(blocks) => blocks
            .iter()
            .any(|block| matches_block(block, peer.to_ip())),
    }
}

/// Whether `block` holds `ip`. Neither family's prefixes hold addresses of the other.
fn matches_block(block: &Block, ip: IpAddr) -> bool {
    block.prefix.contains(&ip) && !block.except.iter().any(|except| except.contains(&ip))
}

/// Whether `ports` holds `port` of `protocol`. A protocol without ports is only in [`Ports::Any`]
/// (semantics D12), whatever number the caller took for its port.
pub fn matches_port(ports: &Ports, protocol: Protocol, port: Option<u16>) -> bool {
    let holds = |range: &PortRange| {
        let Some(port) = port else { return false };
        range.protocol == protocol && range.first <= port && port <= range.last
    };
    match ports {
        Ports::Any => true,
        Ports::List(ranges) => protocol.has_ports() && ranges.iter().any(holds),
    }
}
