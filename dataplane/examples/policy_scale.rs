//! Measures the policy table on a large node: how long it compiles, how large it is, how long a
//! decision takes, and that this does not follow the number of policies.
//!
//! ```sh
//! cargo run --release -p weir-dataplane --example policy_scale
//! ```

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::policy::ir::{Action, Block, Chain, EndpointPolicy, Peers, PortRange, Ports, Rule};
use dataplane::policy::{EndpointSlot, PolicyTable};
use dataplane::{Address, Direction, PolicyId, Protocol, Tier};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Decisions timed per table.
const DECISIONS: u32 = 2_000_000;

/// How large a cluster is.
struct Size {
    name: &'static str,
    endpoints: u32,
    policies: u32,
    pods: u32,
    /// Over all policies.
    cidrs: u32,
    /// Policies that select each endpoint; the same ones for every endpoint if all do.
    policies_per_endpoint: u32,
}

const SIZES: [Size; 5] = [
    Size {
        name: "ten of everything",
        endpoints: 10,
        policies: 10,
        pods: 10,
        cidrs: 100,
        policies_per_endpoint: 10,
    },
    Size {
        name: "large, 40 policies an endpoint",
        endpoints: 250,
        policies: 10_000,
        pods: 5_000,
        cidrs: 100_000,
        policies_per_endpoint: 40,
    },
    Size {
        name: "large, 400 policies an endpoint",
        endpoints: 250,
        policies: 10_000,
        pods: 5_000,
        cidrs: 100_000,
        policies_per_endpoint: 400,
    },
    Size {
        name: "large, every policy selects all",
        endpoints: 250,
        policies: 10_000,
        pods: 5_000,
        cidrs: 100_000,
        policies_per_endpoint: 10_000,
    },
    Size {
        name: "all but one prefix, by 1,000",
        endpoints: 10,
        policies: 1_000,
        pods: 0,
        cidrs: 0,
        policies_per_endpoint: 1_000,
    },
];

/// A small generator of numbers (SplitMix64): the same every time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, end: u32) -> u32 {
        (self.next() % u64::from(end.max(1))) as u32
    }
}

fn main() {
    println!(
        "{:32} {:>10} {:>8} {:>8} {:>9} {:>10} {:>8} {:>8}",
        "", "compile", "chains", "classes", "port maps", "table", "classify", "decide"
    );
    for size in &SIZES {
        measure(size);
    }
}

fn measure(size: &Size) {
    let mut numbers = Numbers(1);
    let policies: Vec<[Vec<Arc<Rule>>; 2]> = (0..size.policies)
        .map(|id| match size.pods {
            0 => all_but_one(id),
            _ => policy(size, id, &mut numbers),
        })
        .collect();
    let endpoints: Vec<EndpointPolicy> = (0..size.endpoints)
        .map(|_| endpoint(size, &policies, &mut numbers))
        .collect();
    let slots = (0..).map(EndpointSlot);
    let input: Vec<_> = slots.zip(&endpoints).collect();

    let compiling = (0..3).map(|_| {
        let start = Instant::now();
        let table = PolicyTable::compile(&input);
        (start.elapsed(), table)
    });
    let Some((compiled, table)) = compiling.min_by_key(|(elapsed, _)| *elapsed) else {
        return;
    };
    let (classify, decide) = time_decisions(&table, size, &mut numbers);
    let footprint = table.footprint();
    println!(
        "{:32} {:>7.1} ms {:>8} {:>8} {:>9} {:>6.1} MiB {:>5.0} ns {:>5.0} ns",
        size.name,
        compiled.as_secs_f64() * 1e3,
        footprint.chains,
        footprint.classes,
        footprint.port_maps,
        footprint.bytes as f64 / f64::from(1 << 20),
        classify.as_nanos() as f64 / f64::from(DECISIONS),
        decide.as_nanos() as f64 / f64::from(DECISIONS),
    );
}

/// Random peers, endpoints and ports: nothing is in the cache because it was just used.
fn time_decisions(table: &PolicyTable, size: &Size, numbers: &mut Numbers) -> (Duration, Duration) {
    let addresses: Vec<Address> = (0..1 << 16)
        .map(|i| match i % 2 {
            0 => pod_address(numbers.below(size.pods), numbers.below(2) == 0),
            _ => cidr_address(numbers.below(size.cidrs), numbers.below(2) == 0),
        })
        .collect();
    let pick = |i: u32| addresses[(i.wrapping_mul(0x9e37_79b1) >> 16) as usize];
    let start = Instant::now();
    for i in 0..DECISIONS {
        black_box(table.classify(pick(i)));
    }
    let classify = start.elapsed();

    let classes: Vec<_> = addresses.iter().map(|&a| table.classify(a)).collect();
    let start = Instant::now();
    for i in 0..DECISIONS {
        let random = i.wrapping_mul(0x9e37_79b1);
        black_box(table.decide(
            EndpointSlot((random % size.endpoints) as u16),
            if i & 1 == 0 {
                Direction::Egress
            } else {
                Direction::Ingress
            },
            classes[(random >> 16) as usize],
            Protocol::TCP,
            Some(random as u16),
        ));
    }
    (classify, start.elapsed())
}

fn pod_address(pod: u32, v4: bool) -> Address {
    match v4 {
        true => Address::v4(0x0a00_0000 | pod),
        false => Address::v6(0xfd00 << 112 | u128::from(pod)),
    }
}

/// An address in the `cidr`th of the outside prefixes: /24 and /56, spread over their families.
fn cidr_address(cidr: u32, v4: bool) -> Address {
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
fn policy(size: &Size, id: u32, numbers: &mut Numbers) -> [Vec<Arc<Rule>>; 2] {
    let selected = 1 + numbers.below((size.pods / 50).min(100));
    let first = numbers.below(size.pods);
    let stride = 1 + numbers.below(7);
    let pods = (0..selected).map(|i| (first + i * stride) % size.pods);
    let from = pods
        .flat_map(|pod| [true, false].map(|v4| prefix(pod_address(pod, v4), 32, 128)))
        .collect();
    let share = size.cidrs / size.policies;
    let to = (0..share)
        .map(|i| prefix(cidr_address(id * share + i, i % 2 == 0), 24, 56))
        .collect();
    [(to, numbers.below(1000)), (from, numbers.below(1000))]
        .map(|(blocks, port)| vec![rule(id, Peers::Set(blocks), port as u16)])
}

/// `0.0.0.0/0` without one /24, a different one in each policy.
fn all_but_one(id: u32) -> [Vec<Arc<Rule>>; 2] {
    let mut block = prefix(Address::v4(0), 0, 0);
    block.except = vec![prefix(cidr_address(id, true), 24, 56).prefix];
    let rule = rule(id, Peers::Set([block].into()), id as u16);
    [vec![rule], Vec::new()]
}

fn rule(policy: u32, peers: Peers, port: u16) -> Arc<Rule> {
    Arc::new(Rule {
        policy: PolicyId(policy),
        index: 0,
        tier: Tier::NetworkPolicy,
        action: Action::Accept,
        peers,
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
        isolating: selecting.iter().copied().map(PolicyId).collect(),
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
