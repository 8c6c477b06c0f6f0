//! A node in memory: local pods around the pipeline, without sockets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use dataplane::conntrack::{self, AtomicU64, Table, Timeouts};
use dataplane::counters::Counters;
use dataplane::events::EventQueue;
use dataplane::pipeline::{BURST_MAX, Inbound, Limiters, Outcome, Tables, process};
use dataplane::policy::ir::{
    Action, Block, EndpointPolicy, Isolation, Peers, PortRange, Ports, Rule,
};
use dataplane::policy::{EndpointSlot, PolicyTable};
use dataplane::snapshot::{
    Endpoint, Epoch, Generation, Incarnation, Parts, Port, PortId, Role, Snapshot,
};
use dataplane::{Address, CounterId, FlowKey, Mac, PolicyId, Protocol, Tier, Time};

use super::packets::{self, OPEN_PORT, Segment};
use crate::cluster::{self, Numbers, Size, pod_address};
use crate::error::BenchError;

/// Local pods.
pub const PODS: u32 = 100;
/// Pods of the cluster that policies speak of.
const CLUSTER_PODS: u32 = 5_000;
/// Octets of a packet's window: those of a 4096-octet chunk behind its headroom.
const WINDOW: usize = 3840;
/// The ports that connections come from, for one pair of pods.
const SOURCE_PORTS: u32 = 60_000;
/// When the world begins.
const EPOCH_NS: u64 = 1_000_000_000_000;

/// A packet to be sent.
#[derive(Debug)]
pub struct Frame {
    /// The port it comes in by.
    pub ingress: PortId,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// The node.
pub struct World {
    snapshot: Snapshot,
    /// Its connections.
    pub conntrack: Table<Box<[AtomicU64]>>,
    counters: Counters,
    events: EventQueue,
    limiters: Limiters,
    started: Instant,
    windows: Vec<Vec<u8>>,
    ipv6: bool,
    frame_bytes: usize,
}

/// The policies of the local pods: `policies` in the cluster, up to 40 of which select each pod,
/// and one more that opens a port between all pods in both directions. None at all if `policies`
/// is 0.
pub fn policy_table(policies: u32) -> PolicyTable {
    let size = Size {
        endpoints: PODS,
        policies,
        pods: CLUSTER_PODS,
        cidrs: policies * 10,
        policies_per_endpoint: policies.min(40),
    };
    let (mut endpoints, sets) = cluster::endpoints(&size, &mut Numbers(1));
    if policies > 0 {
        endpoints
            .iter_mut()
            .for_each(|endpoint| open(endpoint, policies));
    }
    let slots = (0..).map(EndpointSlot);
    let input: Vec<_> = slots.zip(&endpoints).collect();
    PolicyTable::compile_with(&sets, &input)
}

/// Lets the pods' range in and out at one port, by a policy of its own.
fn open(endpoint: &mut EndpointPolicy, id: u32) {
    let blocks = ["10.0.0.0/8", "fd00::/16"].map(|prefix| Block {
        prefix: prefix.parse().unwrap_or_default(),
        except: Vec::new(),
    });
    let rule = Arc::new(Rule {
        policy: PolicyId(id),
        index: 0,
        tier: Tier::NetworkPolicy,
        action: Action::Accept,
        peers: Peers::blocks(blocks),
        counter: CounterId::NONE,
        ports: Ports::List(Arc::from([PortRange {
            protocol: Protocol::TCP,
            first: OPEN_PORT,
            last: OPEN_PORT,
        }])),
    });
    for chain in [&mut endpoint.ingress, &mut endpoint.egress] {
        chain.isolating.push(Isolation {
            policy: PolicyId(id),
            counter: CounterId::NONE,
        });
        chain.rules.push(Arc::clone(&rule));
    }
}

fn mac(pod: u32, ours: bool) -> Mac {
    let [_, _, high, low] = pod.to_be_bytes();
    Mac([2, 0, 0, u8::from(ours), high, low])
}

/// A pod's address. The first pod is the cluster's second: the address 10.0.0.0 is unusual.
pub fn address(pod: u32, ipv6: bool) -> Address {
    pod_address(pod + 1, !ipv6)
}

fn pod(index: u32) -> (Port, Endpoint) {
    let (slot, port) = (EndpointSlot(index as u16), PortId(index as u16));
    let addresses = [false, true].map(|ipv6| address(index, ipv6));
    let endpoint = Endpoint {
        slot,
        incarnation: Incarnation(1 + index),
        port,
        mac: mac(index, false),
        addresses: addresses.into_iter().collect(),
    };
    let port = Port {
        id: port,
        role: Role::Pod,
        mac: mac(index, true),
        mtu: 1500,
        is_virtual: true,
        icmp_source_v4: None,
        icmp_source_v6: None,
        endpoint: Some(slot),
        peer_mac: None,
    };
    (port, endpoint)
}

/// The pods at the ends of connection `number`.
pub fn ends(number: u32) -> (u32, u32) {
    let pair = number / SOURCE_PORTS * PODS + number % PODS;
    let source = pair % PODS;
    // Never the pod itself.
    let away = 1 + (pair / PODS + source) % (PODS - 1);
    (source, (source + away) % PODS)
}

/// The tuple of connection `number`: each its own.
pub fn key(number: u32, ipv6: bool, to: u16) -> FlowKey {
    let (source, destination) = ends(number);
    let from = 1024 + (number % SOURCE_PORTS) as u16;
    packets::key(address(source, ipv6), address(destination, ipv6), from, to)
}

impl World {
    /// A node whose table holds `capacity` connections.
    pub fn new(
        capacity: u32,
        policy: &Arc<PolicyTable>,
        ipv6: bool,
        frame_bytes: usize,
    ) -> Result<World, BenchError> {
        let settings = conntrack::Settings {
            capacity,
            quota_per_endpoint: capacity,
            endpoints: PODS,
            timeouts: Timeouts::default(),
            strict_tcp: false,
            hash_seed: [7, 11],
        };
        let setup = |error: &dyn std::fmt::Display| BenchError::Setup(error.to_string());
        let (ports, endpoints) = (0..PODS).map(pod).unzip();
        let parts = Parts {
            generation: Generation(1),
            ports,
            endpoints,
            epochs: vec![Epoch(1); PODS as usize],
            policy: Arc::clone(policy),
            ..Parts::default()
        };
        let words = Table::<Box<[AtomicU64]>>::words(&settings);
        Ok(World {
            snapshot: Snapshot::build(parts).map_err(|error| setup(&error))?,
            conntrack: Table::new(conntrack::heap(words), settings)
                .map_err(|error| setup(&error))?,
            counters: Counters::new(1, PODS as u16, 4096),
            events: EventQueue::new(4096),
            limiters: Limiters::new(PODS as u16),
            started: Instant::now(),
            windows: vec![vec![0; WINDOW]; BURST_MAX],
            ipv6,
            frame_bytes,
        })
    }

    /// Now, on the world's clock.
    pub fn now(&self) -> Time {
        Time(EPOCH_NS + self.started.elapsed().as_nanos() as u64)
    }

    /// A segment of connection `number`, to the port `to` or back from it.
    pub fn frame(
        &self,
        number: u32,
        to: u16,
        segment: Segment,
        back: bool,
    ) -> Result<Frame, BenchError> {
        let (source, destination) = ends(number);
        let key = key(number, self.ipv6, to);
        let (sender, key) = match back {
            false => (source, key),
            true => (destination, key.reversed()),
        };
        let macs = [mac(sender, false), mac(sender, true)];
        Ok(Frame {
            ingress: PortId(sender as u16),
            bytes: packets::build(&key, macs, segment, self.frame_bytes)?,
        })
    }

    /// Opens connections 0 to `flows` by their three handshake segments.
    pub fn establish(&mut self, flows: u32) -> Result<(), BenchError> {
        let handshake = [
            (Segment::Syn, false),
            (Segment::SynAck, true),
            (Segment::Ack, false),
        ];
        for first in (0..flows).step_by(BURST_MAX) {
            let numbers = first..flows.min(first + BURST_MAX as u32);
            for (segment, back) in handshake {
                let frames = numbers
                    .clone()
                    .map(|number| self.frame(number, OPEN_PORT, segment, back))
                    .collect::<Result<Vec<_>, _>>()?;
                self.send("establish", &frames, true)?;
            }
        }
        Ok(())
    }

    /// Runs at most [`BURST_MAX`] packets through the pipeline and says how long that took,
    /// without the copying of the packets into their windows.
    ///
    /// # Errors
    ///
    /// [`BenchError::Outcome`] if a packet is not forwarded (dropped, if not `forwarded`).
    pub fn send(
        &mut self,
        name: &str,
        frames: &[Frame],
        forwarded: bool,
    ) -> Result<Duration, BenchError> {
        let now = self.now();
        let mut burst: ArrayVec<Inbound<'_>, BURST_MAX> = ArrayVec::new();
        for (window, frame) in self.windows.iter_mut().zip(frames) {
            window[..frame.bytes.len()].copy_from_slice(&frame.bytes);
            burst.push(Inbound {
                ingress: frame.ingress,
                window,
                len: frame.bytes.len(),
            });
        }
        let Some(shard) = self.counters.shard(0) else {
            return Err(BenchError::Setup("no counters".to_owned()));
        };
        let mut tables = Tables {
            conntrack: &self.conntrack,
            counters: shard,
            events: &self.events,
            limiters: &mut self.limiters,
            checksum_offload: &[true; PODS as usize],
        };
        let mut outcomes: ArrayVec<Outcome, BURST_MAX> = ArrayVec::new();
        let start = Instant::now();
        process(&mut burst, &mut tables, &self.snapshot, now, &mut outcomes);
        for (outcome, packet) in outcomes.iter().zip(&burst) {
            outcome.account(shard, packet.ingress, Ok(()));
        }
        let elapsed = start.elapsed();
        while self.events.pop().is_some() {}
        let other = |outcome: &&Outcome| matches!(outcome, Outcome::Forward(_)) != forwarded;
        match outcomes.iter().find(other) {
            None => Ok(elapsed),
            Some(outcome) => Err(BenchError::Outcome {
                name: name.to_owned(),
                count: outcomes.iter().filter(other).count() as u64,
                outcome: format!("{outcome:?}"),
            }),
        }
    }
}
