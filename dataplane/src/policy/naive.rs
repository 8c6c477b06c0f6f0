//! The executable specification: an [`EndpointPolicy`] walked literally, one rule after another.
//!
//! Nothing here is clever, so that it can be believed by reading it. Tests hold
//! [`PolicyTable`](super::PolicyTable) equal to it, and [`explain`](super::explain) asks it rule
//! by rule.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::Decision;
use super::ir::{
    Action, Block, Chain, EndpointPolicy, Isolation, PeerSetId, Peers, PortRange, Ports, Rule,
};
use crate::{Address, CounterId, Direction, Protocol, Provenance, Tier, Verdict};

/// Who is in the sets that rules name. A set that is not here is empty.
pub type PeerSets = BTreeMap<PeerSetId, BTreeSet<Address>>;

/// What `policy` says of traffic of its endpoint in `direction`.
///
/// `peer` is the other end: the source of what the endpoint receives, the destination of what it
/// sends. `destination_port` counts for protocols with ports only; without one (there was none to
/// read) only rules for any port match.
pub fn decide(
    policy: &EndpointPolicy,
    sets: &PeerSets,
    direction: Direction,
    peer: Address,
    protocol: Protocol,
    destination_port: Option<u16>,
) -> Decision {
    let (mut decision, counters) =
        decide_and_count(policy, sets, direction, peer, protocol, destination_port);
    decision.counter = counters.first().copied().unwrap_or(CounterId::NONE);
    decision
}

/// The same, and the counters of all that had a part in it: of what decided, then of the rules that
/// let it come so far.
pub fn decide_and_count(
    policy: &EndpointPolicy,
    sets: &PeerSets,
    direction: Direction,
    peer: Address,
    protocol: Protocol,
    destination_port: Option<u16>,
) -> (Decision, Vec<CounterId>) {
    let chain = chain(policy, direction);
    let first_match = |tier: Tier| {
        let mut of_tier = chain.rules.iter().filter(move |rule| rule.tier == tier);
        let found = of_tier.find(|rule| matches(rule, sets, peer, protocol, destination_port));
        found.map(Arc::as_ref)
    };
    let mut passed = Vec::new();
    let decision = walk(chain, direction, first_match, &mut passed);
    let counters = std::iter::once(decision.counter).chain(passed);
    let counters = counters.filter(|&counter| counter != CounterId::NONE);
    (decision, counters.collect())
}

/// Asks one tier after another for its first match, and notes the counters of rules that only let
/// traffic go on.
fn walk<'c>(
    chain: &'c Chain,
    direction: Direction,
    first_match: impl Fn(Tier) -> Option<&'c Rule>,
    passed: &mut Vec<CounterId>,
) -> Decision {
    if let Some(&binding) = chain.bound.first() {
        match first_match(Tier::SecurityGroup) {
            Some(rule) => passed.push(rule.counter),
            None => return by_default(binding, Tier::SecurityGroup, direction),
        }
    }
    match first_match(Tier::Admin) {
        Some(rule) if rule.action != Action::Pass => return by_rule(rule, direction),
        Some(rule) => passed.push(rule.counter),
        None => {}
    }
    if let Some(&isolating) = chain.isolating.first() {
        return match first_match(Tier::NetworkPolicy) {
            Some(rule) => by_rule(rule, direction),
            None => by_default(isolating, Tier::NetworkPolicy, direction),
        };
    }
    match first_match(Tier::Baseline) {
        Some(rule) if rule.action != Action::Pass => by_rule(rule, direction),
        passing => {
            passed.extend(passing.map(|rule| rule.counter));
            accepted(direction)
        }
    }
}

/// The chain for one direction.
pub const fn chain(policy: &EndpointPolicy, direction: Direction) -> &Chain {
    match direction {
        Direction::Egress => &policy.egress,
        Direction::Ingress => &policy.ingress,
    }
}

/// The decision of a rule that decides.
pub const fn by_rule(rule: &Rule, direction: Direction) -> Decision {
    Decision {
        verdict: Verdict {
            accept: accepts(rule),
            provenance: Provenance {
                direction,
                tier: rule.tier,
                policy: Some(rule.policy),
                rule: Some(rule.index),
            },
        },
        counter: rule.counter,
    }
}

/// Whether a rule that decided accepts: any action but [`Action::Deny`] does, and in
/// [`Tier::NetworkPolicy`] there is only accept, whatever the rule says.
pub const fn accepts(rule: &Rule) -> bool {
    matches!(rule.tier, Tier::NetworkPolicy) || !matches!(rule.action, Action::Deny)
}

/// The decision for what no rule of `tier` lets pass, where `first` is the first policy that
/// isolates the endpoint, or binds it to security groups.
pub const fn by_default(first: Isolation, tier: Tier, direction: Direction) -> Decision {
    Decision {
        verdict: Verdict {
            accept: false,
            provenance: Provenance {
                direction,
                tier,
                policy: Some(first.policy),
                rule: None,
            },
        },
        counter: first.counter,
    }
}

/// The decision where nobody decides.
pub const fn accepted(direction: Direction) -> Decision {
    Decision {
        verdict: Verdict::default_accept(direction),
        counter: CounterId::NONE,
    }
}

/// Whether `rule` matches: its peers and its ports.
pub fn matches(
    rule: &Rule,
    sets: &PeerSets,
    peer: Address,
    protocol: Protocol,
    destination_port: Option<u16>,
) -> bool {
    let is_member = |set: PeerSetId| {
        let members = sets.get(&set);
        members.is_some_and(|members| members.contains(&peer))
    };
    matches_peer(&rule.peers, peer, is_member)
        && matches_port(&rule.ports, protocol, destination_port)
}

/// Whether `peers` holds `peer`, which is in the sets that `is_member` says.
pub fn matches_peer(peers: &Peers, peer: Address, is_member: impl Fn(PeerSetId) -> bool) -> bool {
    match peers {
        Peers::Any => true,
        Peers::Of { sets, blocks } => {
            sets.iter().any(|&set| is_member(set))
                || blocks
                    .iter()
                    .any(|block| matches_block(block, peer.to_ip()))
        }
    }
}

/// Whether `block` holds `ip`. Neither family's prefixes hold addresses of the other.
fn matches_block(block: &Block, ip: IpAddr) -> bool {
    block.prefix.contains(&ip) && !block.except.iter().any(|except| except.contains(&ip))
}

/// Whether `ports` holds `port` of `protocol`. A protocol without ports is in [`Ports::Any`] and in
/// ranges of its own (semantics D12), whatever number the caller took for its port; one with ports
/// whose port cannot be read is in [`Ports::Any`] alone.
pub fn matches_port(ports: &Ports, protocol: Protocol, port: Option<u16>) -> bool {
    let holds = |range: &PortRange| {
        range.protocol == protocol
            && range.first <= range.last
            && match port {
                _ if !protocol.has_ports() => true,
                Some(port) => range.first <= port && port <= range.last,
                None => false,
            }
    };
    match ports {
        Ports::Any => true,
        Ports::List(ranges) => ranges.iter().any(holds),
    }
}
