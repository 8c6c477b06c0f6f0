//! Policies for tests, written as control would lower them.

use std::sync::Arc;

use dataplane::policy::ir::{
    Action, Block, Chain, EndpointPolicy, Isolation, Peers, PortRange, Ports, Rule,
};
use dataplane::{Address, CounterId, PolicyId, Protocol, Tier};
use ipnet::IpNet;

/// Peers that are exactly these addresses.
pub fn addresses(addresses: &[Address]) -> Peers {
    let block = |a: &Address| Block {
        prefix: IpNet::from(a.to_ip()),
        except: vec![],
    };
    Peers::blocks(addresses.iter().map(block).collect::<Vec<_>>())
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
        counter: CounterId::NONE,
    })
}

/// A policy that isolates and is not counted.
pub fn isolation(policy: u32) -> Isolation {
    Isolation {
        policy: PolicyId(policy),
        counter: CounterId::NONE,
    }
}

/// A NetworkPolicy `policy` that isolates ingress and allows `rules`.
pub fn ingress(policy: u32, rules: Vec<Arc<Rule>>) -> EndpointPolicy {
    let chain = Chain {
        bound: vec![],
        isolating: vec![isolation(policy)],
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
        bound: vec![],
        isolating: vec![isolation(policy)],
        rules,
    };
    EndpointPolicy {
        ingress: Chain::default(),
        egress: chain,
    }
}
