//! Why a verdict is what it is: every policy that was asked, rule by rule, and for a rule that
//! did not match what it would have taken.
//!
//! The verdict is the compiled table's; the reasons are found by walking the rules it was
//! compiled from. Numbers only: names and words are the control plane's.

use std::net::IpAddr;

use ipnet::IpNet;

use super::ir::{Action, Block, Chain, PeerSetId, Peers, PortRange, Ports, Rule};
use super::naive;
use crate::{Address, PolicyId, Protocol, Tier, Verdict};

/// A verdict and everything that was consulted for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// What [`PolicyTable::decide`](super::PolicyTable::decide) says, and who decided.
    pub verdict: Verdict,
    /// The policies consulted, in order of evaluation.
    ///
    /// In the SecurityGroup tier every policy that binds the endpoint is here, without rules, and
    /// every group that has rules for this direction.
    ///
    /// Tiers after the deciding one are absent, and in the Admin and Baseline tiers policies
    /// after the deciding one too. In the NetworkPolicy tier every policy that isolates the
    /// endpoint is here: any of them could have accepted.
    pub consulted: Vec<Consulted>,
}

/// One policy's part in a decision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Consulted {
    /// Its tier.
    pub tier: Tier,
    /// The policy.
    pub policy: PolicyId,
    /// Its rules for this direction, by index; empty if it only isolates.
    ///
    /// In the Admin and Baseline tiers rules after the deciding one are absent. Rules whose
    /// peers and ports were resolved apart (a named port with several numbers) count as one.
    pub rules: Vec<RuleMatch>,
}

/// How one rule compared with the traffic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RuleMatch {
    /// The rule's index in the policy's list for the direction.
    pub index: u16,
    /// What the rule does when it matches.
    pub action: Action,
    /// How its peers compared.
    pub peer: PeerMatch,
    /// How its ports compared.
    pub port: PortMatch,
}

impl RuleMatch {
    /// Whether the rule matched: both its peers and its ports.
    pub fn matched(&self) -> bool {
        self.peer == PeerMatch::Matched && self.port == PortMatch::Matched
    }
}

/// How a rule's peers compared with the other end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeerMatch {
    /// The rule's peers hold the address.
    Matched,
    /// They would, but for an exception.
    Excepted {
        /// The block's prefix, which holds the address.
        prefix: IpNet,
        /// What was taken out of it, the address with it.
        except: IpNet,
    },
    /// No set and no block holds the address.
    Outside,
    /// The rule names neither a set nor a block.
    Nobody,
}

/// How a rule's ports compared with the destination's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PortMatch {
    /// The rule's ports hold it.
    Matched,
    /// They do not; these are the ports it wants. Empty: none at all (a named port that nobody
    /// has).
    Wanted(Vec<PortRange>),
}

impl Explanation {
    /// A verdict for which no policy was consulted.
    pub(super) const fn without_policies(verdict: Verdict) -> Explanation {
        Explanation {
            verdict,
            consulted: Vec::new(),
        }
    }

    /// Of the rules that did not match and would have changed a denial, those that missed by
    /// least: first those whose peers matched (only the port missed), else those whose ports
    /// matched (only the peer missed), else all. Empty for an accept.
    pub fn nearest_misses(&self) -> Vec<(PolicyId, &RuleMatch)> {
        if self.verdict.accept {
            return Vec::new();
        }
        let distance = |rule: &RuleMatch| match (&rule.peer, &rule.port) {
            (PeerMatch::Matched, _) => 0,
            (PeerMatch::Excepted { .. }, PortMatch::Matched) => 1,
            (_, PortMatch::Matched) => 2,
            _ => 3,
        };
        let denied_in = self.verdict.provenance.tier;
        let would_help = |tier: Tier, rule: &RuleMatch| match rule.action {
            Action::Deny => false,
            // Leaving a tier helps only where that tier denies.
            Action::Pass => tier == denied_in,
            // A group that lets pass what another one lets pass already changes nothing.
            Action::Accept => tier != Tier::SecurityGroup || tier == denied_in,
        };
        let missed = || {
            let rules = self.consulted.iter().flat_map(|c| {
                let (tier, policy) = (c.tier, c.policy);
                c.rules.iter().map(move |rule| (tier, policy, rule))
            });
            rules
                .filter(|(tier, _, rule)| !rule.matched() && would_help(*tier, rule))
                .map(|(_, policy, rule)| (policy, rule))
        };
        let least = missed().map(|(_, rule)| distance(rule)).min();
        missed()
            .filter(|(_, rule)| Some(distance(rule)) == least)
            .collect()
    }
}

/// What a verdict was about.
pub(super) struct Traffic<'t> {
    pub(super) peer: Address,
    /// The chain's sets that hold the peer.
    pub(super) sets: &'t [PeerSetId],
    pub(super) protocol: Protocol,
    pub(super) port: Option<u16>,
}

/// Walks `chain` for a verdict that is known.
pub(super) fn explain(chain: &Chain, verdict: Verdict, traffic: &Traffic<'_>) -> Explanation {
    let mut explanation = Explanation::without_policies(verdict);
    let consulted = &mut explanation.consulted;
    let of_tier = |tier| chain.rules.iter().filter(move |rule| rule.tier == tier);

    if !chain.bound.is_empty() {
        consulted.extend(chain.bound.iter().map(|binding| Consulted {
            tier: Tier::SecurityGroup,
            policy: binding.policy,
            rules: Vec::new(),
        }));
        for rule in of_tier(Tier::SecurityGroup) {
            note(consulted, rule, compare(rule, traffic));
        }
        if verdict.provenance.tier == Tier::SecurityGroup {
            return explanation;
        }
    }
    for rule in of_tier(Tier::Admin) {
        let compared = compare(rule, traffic);
        let matched = compared.matched();
        note(consulted, rule, compared);
        if matched && rule.action == Action::Pass {
            break;
        }
        if matched {
            return explanation;
        }
    }
    if !chain.isolating.is_empty() {
        consulted.extend(chain.isolating.iter().map(|isolating| Consulted {
            tier: Tier::NetworkPolicy,
            policy: isolating.policy,
            rules: Vec::new(),
        }));
        for rule in of_tier(Tier::NetworkPolicy) {
            note(consulted, rule, compare(rule, traffic));
        }
        return explanation;
    }
    for rule in of_tier(Tier::Baseline) {
        let compared = compare(rule, traffic);
        let matched = compared.matched();
        note(consulted, rule, compared);
        if matched {
            break;
        }
    }
    explanation
}

/// How `rule` compares with the traffic.
fn compare(rule: &Rule, traffic: &Traffic<'_>) -> RuleMatch {
    let (protocol, port) = (traffic.protocol, traffic.port);
    RuleMatch {
        index: rule.index,
        action: rule.action,
        peer: compare_peer(&rule.peers, traffic),
        port: match &rule.ports {
            ports if naive::matches_port(ports, protocol, port) => PortMatch::Matched,
            Ports::Any => PortMatch::Matched,
            Ports::List(ranges) => PortMatch::Wanted(ranges.to_vec()),
        },
    }
}

/// How `peers` compares with the other end.
fn compare_peer(peers: &Peers, traffic: &Traffic<'_>) -> PeerMatch {
    let Peers::Of { sets, blocks } = peers else {
        return PeerMatch::Matched;
    };
    if naive::matches_peer(peers, traffic.peer, |set| traffic.sets.contains(&set)) {
        return PeerMatch::Matched;
    }
    if sets.is_empty() && blocks.is_empty() {
        return PeerMatch::Nobody;
    }
    let ip: IpAddr = traffic.peer.to_ip();
    let excepted = |block: &Block| {
        let mut excepts = block.except.iter();
        let except = excepts.find(|except| except.contains(&ip))?;
        Some((block.prefix, *except))
    };
    let mut holders = blocks.iter().filter(|block| block.prefix.contains(&ip));
    match holders.find_map(excepted) {
        Some((prefix, except)) => PeerMatch::Excepted { prefix, except },
        None => PeerMatch::Outside,
    }
}

/// Adds a rule's result to its policy's, joining what is one rule in the policy.
fn note(consulted: &mut Vec<Consulted>, rule: &Rule, compared: RuleMatch) {
    let same = |c: &Consulted| c.policy == rule.policy && c.tier == rule.tier;
    let at = match consulted.iter().rposition(same) {
        Some(at) => at,
        None => {
            consulted.push(Consulted {
                tier: rule.tier,
                policy: rule.policy,
                rules: Vec::new(),
            });
            consulted.len() - 1
        }
    };
    let rules = &mut consulted[at].rules;
    // By index: a policy of many rules must not make its explanation quadratic.
    match rules.binary_search_by_key(&compared.index, |known| known.index) {
        Ok(at) => join(&mut rules[at], compared),
        Err(at) => rules.insert(at, compared),
    }
}

/// Makes one result of two parts of a rule: a part that matched wins, else the nearer one.
fn join(known: &mut RuleMatch, other: RuleMatch) {
    let nearness = |r: &RuleMatch| {
        (
            r.matched(),
            r.peer == PeerMatch::Matched,
            r.port == PortMatch::Matched,
            matches!(r.peer, PeerMatch::Excepted { .. }),
        )
    };
    match nearness(&other).cmp(&nearness(known)) {
        std::cmp::Ordering::Greater => *known = other,
        std::cmp::Ordering::Less => {}
        std::cmp::Ordering::Equal => {
            if let (PortMatch::Wanted(wanted), PortMatch::Wanted(more)) =
                (&mut known.port, other.port)
            {
                wanted.extend(more);
                wanted.sort_unstable();
                wanted.dedup();
            }
        }
    }
}
