//! Whether a chain accepts a port of anybody at all.

use super::ir::{Action, Chain, Peers, PortRange, Ports, Rule};
use crate::{Protocol, Tier};

/// What a tier's rules make of a port, whoever is at the other end.
enum Tiers {
    /// For somebody it is accepted for good.
    Accepted,
    /// For everybody it is dropped for good.
    Denied,
    /// For somebody the next tier decides.
    Open,
}

/// Whether the chain accepts this port for any peer that a rule might hold. Which addresses there are
/// in sets is not asked: a rule for pods that do not exist allows the port all the same.
pub(super) fn may_accept(chain: &Chain, protocol: Protocol, port: u16) -> bool {
    let holds = |rule: &Rule| holds(&rule.ports, protocol, port);
    let of_tier = |tier: Tier| {
        let rules = chain.rules.iter().map(AsRef::as_ref);
        rules.filter(move |rule: &&Rule| rule.tier == tier && holds(rule))
    };
    if !chain.bound.is_empty() && of_tier(Tier::SecurityGroup).next().is_none() {
        return false;
    }
    match walk(of_tier(Tier::Admin)) {
        Tiers::Accepted => return true,
        Tiers::Denied => return false,
        Tiers::Open => {}
    }
    if !chain.isolating.is_empty() {
        return of_tier(Tier::NetworkPolicy).next().is_some();
    }
    !matches!(walk(of_tier(Tier::Baseline)), Tiers::Denied)
}

/// One tier's rules that hold the port, in their order.
fn walk<'r>(rules: impl Iterator<Item = &'r Rule>) -> Tiers {
    for rule in rules {
        let everybody = rule.peers == Peers::Any;
        match rule.action {
            Action::Accept => return Tiers::Accepted,
            Action::Deny if everybody => return Tiers::Denied,
            Action::Pass if everybody => return Tiers::Open,
            // Others may get further.
            Action::Deny | Action::Pass => {}
        }
    }
    Tiers::Open
}

fn holds(ports: &Ports, protocol: Protocol, port: u16) -> bool {
    let in_range = |range: &PortRange| {
        range.protocol == protocol && (range.first..=range.last).contains(&port)
    };
    match ports {
        Ports::Any => true,
        Ports::List(ranges) => ranges.iter().any(in_range),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::ir::Isolation;
    use super::*;
    use crate::{CounterId, PolicyId};

    fn rule(tier: Tier, action: Action, peers: Peers, port: Option<u16>) -> Arc<Rule> {
        let range = |port| PortRange {
            protocol: Protocol::TCP,
            first: port,
            last: port,
        };
        Arc::new(Rule {
            policy: PolicyId(1),
            index: 0,
            tier,
            action,
            peers,
            ports: port.map_or(Ports::Any, |port| Ports::List([range(port)].into())),
            counter: CounterId::NONE,
        })
    }

    fn isolation() -> Vec<Isolation> {
        vec![Isolation {
            policy: PolicyId(1),
            counter: CounterId::NONE,
        }]
    }

    fn chain(is_isolated: bool, rules: Vec<Arc<Rule>>) -> Chain {
        let isolating = if is_isolated { isolation() } else { vec![] };
        Chain {
            bound: vec![],
            isolating,
            rules,
        }
    }

    #[test]
    fn a_port_is_open_if_some_peer_may_get_it() {
        use Action::{Accept, Deny, Pass};
        use Tier::{Admin, Baseline, NetworkPolicy, SecurityGroup};
        let some = || Peers::none();
        let web = |chain: &Chain| may_accept(chain, Protocol::TCP, 80);
        assert!(web(&chain(false, vec![])));
        assert!(!web(&chain(true, vec![])));
        let allow = rule(NetworkPolicy, Accept, some(), Some(80));
        let allowed = chain(true, vec![allow.clone()]);
        assert!(web(&allowed));
        assert!(!may_accept(&allowed, Protocol::TCP, 81));
        assert!(!may_accept(&allowed, Protocol::UDP, 80));
        for (action, peers, expected) in [
            (Deny, Peers::Any, false),
            (Deny, some(), true),
            (Accept, some(), true),
            (Pass, Peers::Any, true),
        ] {
            let first = rule(Admin, action, peers.clone(), Some(80));
            assert_eq!(web(&chain(true, vec![first, allow.clone()])), expected);
            let last = rule(Baseline, action, peers, None);
            assert_eq!(web(&chain(false, vec![last.clone()])), expected);
            assert!(web(&chain(true, vec![allow.clone(), last])), "isolated");
        }
        let passed = rule(Admin, Pass, Peers::Any, None);
        let denied = rule(Admin, Deny, Peers::Any, None);
        assert!(web(&chain(false, vec![passed, denied])));
        let group = rule(SecurityGroup, Accept, some(), Some(80));
        let bound = Chain {
            bound: isolation(),
            ..chain(false, vec![group])
        };
        assert!(web(&bound));
        assert!(!may_accept(&bound, Protocol::TCP, 81));
    }
}
