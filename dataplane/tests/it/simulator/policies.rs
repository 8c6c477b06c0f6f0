//! Policies for tests, written as control would lower them.

use std::sync::Arc;

use dataplane::policy::ir::{Action, Block, Chain, EndpointPolicy, Peers, PortRange, Ports, Rule};
use dataplane::{Address, PolicyId, Protocol, Tier};
use ipnet::IpNet;

/// Peers that are exactly these addresses.
pub fn addresses(addresses: &[Address]) -> Peers {
    let block = |a: &Address| Block {
        prefix: IpNet::from(a.to_ip()),
        except: vec![],
    };
    Peers::Set(addresses.iter().map(block).collect())
}

/// One port.
pub fn port(protocol: Protocol, port: u16) -> Ports {
    Ports::List(Arc::from([PortRange {
        protocol,
        first: port,
        last: port,
    }]))
}

/// A NetworkPolicy rule.
pub fn allow(policy: u32, peers: Peers, ports: Ports) -> Arc<Rule> {
    Arc::new(Rule {
        policy: PolicyId(policy),
        index: 0,
        tier: Tier::NetworkPolicy,
        action: Action::Accept,
        peers,
        ports,
    })
}

/// A NetworkPolicy `policy` that isolates ingress and allows `rules`.
pub fn ingress(policy: u32, rules: Vec<Arc<Rule>>) -> EndpointPolicy {
    let chain = Chain {
        isolating: vec![PolicyId(policy)],
        rules,
    };
    EndpointPolicy {
        ingress: chain,
        egress: Chain::default(),
    }
}

/// The same for egress.
pub fn egress(policy: u32, rules: Vec<Arc<Rule>>) -> EndpointPolicy {
    let chain = Chain {
        isolating: vec![PolicyId(policy)],
        rules,
    };
    EndpointPolicy {
        ingress: Chain::default(),
        egress: chain,
    }
}
