//! A node in memory: local pods around the pipeline, without sockets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use dataplane::conntrack::{self, Table, Timeouts};
use dataplane::counters::Counters;
use dataplane::events::EventQueue;
use dataplane::fragments;
use dataplane::pipeline::{
    BURST_MAX, Inbound, Lanes, Limiters, Outcome, Tables, Transmission, process,
};
use dataplane::policy::ir::{
    Action, Block, EndpointPolicy, Isolation, Peers, PortRange, Ports, Rule,
};
use dataplane::policy::{EndpointSlot, PolicyTable};
use dataplane::service::Affinity;
use dataplane::shm::{self, Region};
use dataplane::snapshot::{
    Endpoint, Epoch, Generation, Incarnation, Parts, Port, PortId, Role, Snapshot,
};
use dataplane::wire::rewrite;
use dataplane::{Address, CounterId, FlowKey, Mac, PolicyId, Protocol, Tier, Time};

use super::packets::{self, OPEN_PORT, Segment};
use crate::cluster::{self, Numbers, Size, pod_address};
use crate::error::BenchError;

/// Local pods.
pub const PODS: u32 = 100;
/// Workers that a node can have here.
const WORKERS: usize = 2;
/// Pods of the cluster that policies speak of.
const CLUSTER_PODS: u32 = 5_000;
/// Octets of a packet's window: those of a 4096-octet chunk behind its headroom.
const WINDOW: usize = 3840;
/// The ports that connections come from, for one pair of pods.
const SOURCE_PORTS: u32 = 60_000;
/// Bounds of what comes in fragments, which here nothing does.
const FRAGMENTS: fragments::Bounds = fragments::Bounds {
    datagrams: 1,
    frames: 0,
    port_percent: 100,
    pieces: 2,
    timeout_ms: 1000,
};
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

/// Many packets, ready to be sent: their bytes stand one behind the other.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
    /// Where each ends, and the port that it comes in by.
    ends: Vec<(usize, PortId)>,
}

impl Frames {
    /// Appends one.
    pub fn push(&mut self, frame: &Frame) {
        self.bytes.extend_from_slice(&frame.bytes);
        self.ends.push((self.bytes.len(), frame.ingress));
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.ends.len()
    }

    /// Those from `first` on, a burst at most.
    pub fn burst(&self, first: usize) -> impl Iterator<Item = (PortId, &[u8])> {
        let burst = self.ends.iter().enumerate().skip(first).take(BURST_MAX);
        burst.map(|(number, (end, ingress))| {
            let start = number
                .checked_sub(1)
                .map_or(0, |before| self.ends[before].0);
            (*ingress, &self.bytes[start..*end])
        })
    }
}

/// What the workers of a node share.
struct Node {
    snapshot: Snapshot,
    conntrack: Table<Region>,
    fragments: fragments::Table,
    affinity: Affinity,
    counters: Counters,
}

/// The node, and one of its workers.
pub struct World {
    node: Arc<Node>,
    worker: usize,
    events: EventQueue,
    limiters: Limiters,
    lanes: Box<Lanes>,
    /// How long the pipeline has worked: the clock goes by it, as if packets came as fast as they are
    /// taken.
    worked: Duration,
    windows: Vec<Vec<u8>>,
    /// Packets that the pipeline takes at once, at most.
    burst: usize,
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
        ports: Ports::List(Arc::from([Protocol::TCP, Protocol::UDP].map(|protocol| {
            PortRange {
                protocol,
                first: OPEN_PORT,
                last: OPEN_PORT,
            }
        }))),
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
        // Shared memory, as a daemon's table is in.
        let bytes = (Table::<Region>::words(&settings) + shm::Header::WORDS) * 8;
        let region = shm::memfd(c"weir-bench-conntrack", bytes)
            .and_then(|file| Region::map(file, bytes))
            .map_err(|error| setup(&error))?;
        let node = Arc::new(Node {
            snapshot: Snapshot::build(parts).map_err(|error| setup(&error))?,
            conntrack: Table::new(region, settings).map_err(|error| setup(&error))?,
            fragments: fragments::Table::new(FRAGMENTS, PODS as u16, [7, 11]),
            affinity: Affinity::new(8, [7, 11]),
            counters: Counters::new(WORKERS, PODS as u16, 4096),
        });
        Ok(World::of(node, 0, ipv6, frame_bytes))
    }

    fn of(node: Arc<Node>, worker: usize, ipv6: bool, frame_bytes: usize) -> World {
        World {
            node,
            worker,
            events: EventQueue::new(4096),
            limiters: Limiters::new(PODS as u16),
            lanes: Box::default(),
            worked: Duration::ZERO,
            windows: vec![vec![0; WINDOW]; BURST_MAX],
            burst: BURST_MAX,
            ipv6,
            frame_bytes,
        }
    }

    /// The same node as another of its workers sees it.
    pub fn second_worker(&self) -> World {
        let mut world = World::of(Arc::clone(&self.node), 1, self.ipv6, self.frame_bytes);
        world.worked = self.worked;
        world
    }

    /// From now on the pipeline takes at most so many packets at once, not [`BURST_MAX`].
    pub fn take_bursts_of(&mut self, packets: usize) {
        self.burst = packets.clamp(1, BURST_MAX);
    }

    /// Its connections.
    pub fn conntrack(&self) -> &Table<Region> {
        &self.node.conntrack
    }

    /// Now, on the world's clock.
    pub fn now(&self) -> Time {
        Time(EPOCH_NS + self.worked.as_nanos() as u64)
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
        let mut key = key(number, self.ipv6, to);
        if segment == Segment::Datagram {
            key.protocol = Protocol::UDP;
        }
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
    /// without the copying of the packets into their windows. Where that makes several bursts
    /// ([`World::take_bursts_of`]), the second and later ones are put together while the clock runs:
    /// a clock read for each would take as long as a packet.
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
        let packets = frames.iter().map(|frame| (frame.ingress, &frame.bytes[..]));
        self.send_burst(name, packets, forwarded)
    }

    /// [`World::send`] for packets that stand somewhere.
    pub fn send_burst<'f>(
        &mut self,
        name: &str,
        packets: impl Iterator<Item = (PortId, &'f [u8])>,
        forwarded: bool,
    ) -> Result<Duration, BenchError> {
        let now = self.now();
        let mut received = receive(&mut self.windows, packets);
        let mut waiting = received.drain(..);
        let mut burst: ArrayVec<_, BURST_MAX> = waiting.by_ref().take(self.burst).collect();
        let node = &*self.node;
        let Some(shard) = node.counters.shard(self.worker) else {
            return Err(BenchError::Setup("no counters".to_owned()));
        };
        let mut tables = Tables {
            conntrack: &node.conntrack,
            fragments: &node.fragments,
            affinity: &node.affinity,
            counters: shard,
            events: &self.events,
            limiters: &mut self.limiters,
            checksum_offload: &[true; PODS as usize],
        };
        let mut outcomes: ArrayVec<Outcome, BURST_MAX> = ArrayVec::new();
        let start = Instant::now();
        let lanes = &mut self.lanes;
        loop {
            process(
                &mut burst,
                lanes,
                &mut tables,
                &node.snapshot,
                now,
                &mut outcomes,
            );
            for (outcome, packet) in outcomes.iter().zip(&burst) {
                outcome.account(shard, packet.ingress, Ok(()));
            }
            if waiting.len() == 0 {
                break;
            }
            fared(name, &outcomes, forwarded)?;
            burst.clear();
            burst.extend(waiting.by_ref().take(self.burst));
        }
        let elapsed = start.elapsed();
        self.worked += elapsed;
        while self.events.pop().is_some() {}
        fared(name, &outcomes, forwarded)?;
        Ok(elapsed)
    }

    /// What forwarding costs that looks at nothing: the next Ethernet addresses are written into each
    /// packet, and it is counted.
    pub fn forward_blindly<'f>(
        &mut self,
        packets: impl Iterator<Item = (PortId, &'f [u8])>,
    ) -> Result<Duration, BenchError> {
        let mut burst = receive(&mut self.windows, packets);
        let Some(shard) = self.node.counters.shard(self.worker) else {
            return Err(BenchError::Setup("no counters".to_owned()));
        };
        let macs = [mac(1, true), mac(1, false)];
        let mut outcomes: ArrayVec<Outcome, BURST_MAX> = ArrayVec::new();
        let start = Instant::now();
        for packet in &mut burst {
            shard.received(packet.ingress, packet.len);
            let written = rewrite::rewrite_ethernet(packet.window, macs[0], macs[1]);
            outcomes.push(match written {
                Ok(()) => Outcome::Forward(Transmission {
                    port: PortId(1),
                    len: packet.len,
                    checksum: None,
                }),
                Err(reason) => Outcome::Drop(reason),
            });
        }
        for (outcome, packet) in outcomes.iter().zip(&burst) {
            outcome.account(shard, packet.ingress, Ok(()));
        }
        Ok(start.elapsed())
    }
}

/// Fails unless all were forwarded, or all dropped.
fn fared(name: &str, outcomes: &[Outcome], forwarded: bool) -> Result<(), BenchError> {
    let other = |outcome: &&Outcome| matches!(outcome, Outcome::Forward(_)) != forwarded;
    match outcomes.iter().find(other) {
        None => Ok(()),
        Some(outcome) => Err(BenchError::Outcome {
            name: name.to_owned(),
            count: outcomes.iter().filter(other).count() as u64,
            outcome: format!("{outcome:?}"),
        }),
    }
}

/// Copies packets into their windows, as a port's queue would have.
fn receive<'w, 'f>(
    windows: &'w mut [Vec<u8>],
    packets: impl Iterator<Item = (PortId, &'f [u8])>,
) -> ArrayVec<Inbound<'w>, BURST_MAX> {
    let mut burst = ArrayVec::new();
    for (window, (ingress, bytes)) in windows.iter_mut().zip(packets) {
        window[..bytes.len()].copy_from_slice(bytes);
        burst.push(Inbound {
            ingress,
            window,
            len: bytes.len(),
            held: None,
            rest: &[],
        });
    }
    burst
}
