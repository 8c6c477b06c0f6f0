//! The compiled table against the specification, and the cases that others got wrong.

mod cases;
mod property;
mod scale;

use std::sync::Arc;

use super::ir::{Action, Block, Chain, Peers, PortRange, Ports, Rule};
use crate::{PolicyId, Protocol, Tier};

fn block(prefix: &str, except: &[&str]) -> Block {
    Block {
        prefix: prefix.parse().unwrap(),
        except: except.iter().map(|e| e.parse().unwrap()).collect(),
    }
}

fn peers(prefixes: &[&str]) -> Peers {
    Peers::Set(prefixes.iter().map(|prefix| block(prefix, &[])).collect())
}

fn ports(ranges: &[(Protocol, u16, u16)]) -> Ports {
    let range = |&(protocol, first, last)| PortRange {
        protocol,
        first,
        last,
    };
    Ports::List(ranges.iter().map(range).collect())
}

fn rule(tier: Tier, action: Action, policy: u32, index: u16, of: (Peers, Ports)) -> Arc<Rule> {
    Arc::new(Rule {
        policy: PolicyId(policy),
        index,
        tier,
        action,
        peers: of.0,
        ports: of.1,
    })
}

/// A NetworkPolicy rule.
fn allow(policy: u32, index: u16, peers: Peers, ports: Ports) -> Arc<Rule> {
    let tier = Tier::NetworkPolicy;
    rule(tier, Action::Accept, policy, index, (peers, ports))
}

fn chain(isolating: &[u32], rules: &[Arc<Rule>]) -> Chain {
    Chain {
        isolating: isolating.iter().copied().map(PolicyId).collect(),
        rules: rules.to_vec(),
    }
}
