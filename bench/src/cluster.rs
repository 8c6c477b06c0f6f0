//! Made-up clusters with the kind of policies that people write, the same ones every time.

use std::sync::Arc;

use dataplane::policy::ir::{
    Action, Block, Chain, EndpointPolicy, Isolation, PeerSetId, Peers, PortRange, Ports, Rule,
};
use dataplane::policy::naive::PeerSets;
use dataplane::{Address, CounterId, PolicyId, Protocol, Tier};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// How large a cluster is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Local endpoints.
    pub endpoints: u32,
    /// Policies in the cluster; none is possible.
    pub policies: u32,
    /// Pods in the cluster; without any, policies are of the kind "all but one prefix".
    pub pods: u32,
    /// Outside prefixes, over all policies.
    pub cidrs: u32,
    /// Policies that select each endpoint; the same ones for every endpoint if all do.
    pub policies_per_endpoint: u32,
}

/// A small generator of numbers (SplitMix64): the same every time.
#[derive(Debug)]
pub struct Numbers(pub u64);

impl Numbers {
    /// The next one.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// The next one, less than `end` (or 0 if that is 0).
    pub fn below(&mut self, end: u32) -> u32 {
        (self.next() % u64::from(end.max(1))) as u32
    }
}

/// The policies of the cluster's local endpoints, and the pods that their rules speak of.
pub fn endpoints(size: &Size, numbers: &mut Numbers) -> (Vec<EndpointPolicy>, PeerSets) {
    let mut sets = PeerSets::new();
    let policies: Vec<[Vec<Arc<Rule>>; 2]> = (0..size.policies)
        .map(|id| match size.pods {
            0 => all_but_one(id),
            _ => policy(size, id, &mut sets, numbers),
        })
        .collect();
    let endpoints = (0..size.endpoints).map(|_| endpoint(size, &policies, numbers));
    (endpoints.collect(), sets)
}

/// The address of a pod of the cluster.
pub fn pod_address(pod: u32, v4: bool) -> Address {
    match v4 {
        true => Address::v4(0x0a00_0000 | pod),
        false => Address::v6(0xfd00 << 112 | u128::from(pod)),
    }
}

/// An address in the `cidr`th of the outside prefixes: /24 and /56, spread over their families.
pub fn cidr_address(cidr: u32, v4: bool) -> Address {
    match v4 {
        true => Address::v4(0x1400_0000 + cidr * 0x0d00),
        false => Address::v6(0x2001_0db8 << 96 | u128::from(cidr) << 73),
    }
}

fn prefix(address: Address, v4_length: u8, v6_length: u8) -> Block {
    let length = if address.is_v4() {
        v4_length
    } else {
        v6_length
    };
    let net = match address.to_ip() {
        std::net::IpAddr::V4(v4) => Ipv4Net::new(v4, length).map(IpNet::V4),
        std::net::IpAddr::V6(v6) => Ipv6Net::new(v6, length).map(IpNet::V6),
    };
    Block {
        prefix: net.unwrap_or_default().trunc(),
        except: Vec::new(),
    }
}

/// Ingress from pods of some selector, egress to some outside prefixes: what people write.
fn policy(size: &Size, id: u32, sets: &mut PeerSets, numbers: &mut Numbers) -> [Vec<Arc<Rule>>; 2] {
    let selected = 1 + numbers.below((size.pods / 50).min(100));
    let first = numbers.below(size.pods);
    let stride = 1 + numbers.below(7);
    let pods = (0..selected).map(|i| (first + i * stride) % size.pods);
    let from = pods.flat_map(|pod| [true, false].map(|v4| pod_address(pod, v4)));
    sets.insert(PeerSetId(id), from.collect());
    let share = size.cidrs / size.policies;
    let to: Vec<Block> = (0..share)
        .map(|i| prefix(cidr_address(id * share + i, i % 2 == 0), 24, 56))
        .collect();
    let from = Peers::sets([PeerSetId(id)]);
    [
        (Peers::blocks(to), numbers.below(1000)),
        (from, numbers.below(1000)),
    ]
    .map(|(peers, port)| vec![rule(id, peers, port as u16)])
}

/// `0.0.0.0/0` without one /24, a different one in each policy.
fn all_but_one(id: u32) -> [Vec<Arc<Rule>>; 2] {
    let mut block = prefix(Address::v4(0), 0, 0);
    block.except = vec![prefix(cidr_address(id, true), 24, 56).prefix];
    let rule = rule(id, Peers::blocks([block]), id as u16);
    [vec![rule], Vec::new()]
}

/// One endpoint whose ingress `count` rules decide, each for one prefix of IPv4 and a TCP port at
/// random, and the traffic that each lets in: an address and a port.
pub fn random_rules(count: u32, numbers: &mut Numbers) -> (EndpointPolicy, Vec<(Address, u16)>) {
    let mut ingress = Chain {
        isolating: vec![isolation(count)],
        ..Chain::default()
    };
    let mut traffic = Vec::new();
    for id in 0..count {
        let address = Address::v4(numbers.next() as u32);
        let (length, port) = (12 + numbers.below(21), numbers.next() as u16);
        let block = prefix(address, length as u8, 128);
        ingress.rules.push(rule(id, Peers::blocks([block]), port));
        traffic.push((address, port));
    }
    let egress = Chain::default();
    (EndpointPolicy { ingress, egress }, traffic)
}

fn rule(policy: u32, peers: Peers, port: u16) -> Arc<Rule> {
    Arc::new(Rule {
        policy: PolicyId(policy),
        index: 0,
        tier: Tier::NetworkPolicy,
        action: Action::Accept,
        peers,
        counter: CounterId::NONE,
        ports: Ports::List(
            [PortRange {
                protocol: Protocol::TCP,
                first: port,
                last: port,
            }]
            .into(),
        ),
    })
}

/// Isolated by a policy that is not counted.
fn isolation(id: u32) -> Isolation {
    Isolation {
        policy: PolicyId(id),
        counter: CounterId::NONE,
    }
}

fn endpoint(
    size: &Size,
    policies: &[[Vec<Arc<Rule>>; 2]],
    numbers: &mut Numbers,
) -> EndpointPolicy {
    let all = size.policies_per_endpoint >= size.policies;
    let mut selecting: Vec<u32> = match all {
        true => (0..size.policies).collect(),
        false => (0..size.policies_per_endpoint)
            .map(|_| numbers.below(size.policies))
            .collect(),
    };
    selecting.sort_unstable();
    selecting.dedup();
    let chain = |direction: usize| Chain {
        bound: Vec::new(),
        isolating: selecting.iter().map(|&id| isolation(id)).collect(),
        rules: selecting
            .iter()
            .flat_map(|&id| policies[id as usize][direction].iter().cloned())
            .collect(),
    };
    EndpointPolicy {
        egress: chain(0),
        ingress: chain(1),
    }
}
