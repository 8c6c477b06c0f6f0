//! The compiled table against the specification, and the cases that others got wrong.

mod cases;
mod changes;
mod property;
mod scale;

use std::sync::Arc;

use super::Decision;
use super::ir::{Action, Block, Chain, Isolation, PeerSetId, Peers, PortRange, Ports, Rule};
use crate::{CounterId, PolicyId, Protocol, Tier};

fn block(prefix: &str, except: &[&str]) -> Block {
    Block {
        prefix: prefix.parse().unwrap(),
        except: except.iter().map(|e| e.parse().unwrap()).collect(),
    }
}

fn peers(prefixes: &[&str]) -> Peers {
    Peers::blocks(
        prefixes
            .iter()
            .map(|prefix| block(prefix, &[]))
            .collect::<Vec<_>>(),
    )
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
        // Every rule its own, and none like a policy's.
        counter: CounterId(1000 + policy * 10 + u32::from(index)),
    })
}

/// A NetworkPolicy rule.
fn allow(policy: u32, index: u16, peers: Peers, ports: Ports) -> Arc<Rule> {
    let tier = Tier::NetworkPolicy;
    rule(tier, Action::Accept, policy, index, (peers, ports))
}

/// What denies by default and is counted under the policy's number.
fn isolation(policy: u32) -> Isolation {
    Isolation {
        policy: PolicyId(policy),
        counter: CounterId(1 + policy),
    }
}

fn chain(isolating: &[u32], rules: &[Arc<Rule>]) -> Chain {
    Chain {
        bound: Vec::new(),
        isolating: isolating.iter().copied().map(isolation).collect(),
        rules: rules.to_vec(),
    }
}
