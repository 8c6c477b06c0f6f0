//! A node in miniature: pods, an uplink and the host ports around the pipeline, without sockets.

use std::net::IpAddr;
use std::sync::Arc;

use arrayvec::ArrayVec;
use dataplane::conntrack::{self, AtomicU64, Table, Timeouts};
use dataplane::counters::{Counter, Counters, Totals};
use dataplane::events::{Event, EventQueue};
use dataplane::fragments::{self, Bounds, Held};
use dataplane::pipeline::{BURST_MAX, Inbound, Lanes, Limiters, Outcome, Tables, process};
use dataplane::policy::ir::EndpointPolicy;
use dataplane::policy::{Compiler, EndpointSlot, Slot};
use dataplane::route::{NextHop, Route, RouteTable, RouteTarget};
use dataplane::service::Affinity;
use dataplane::snapshot::{
    Endpoint, Epoch, Generation, Incarnation, Neighbour, Parts, Port, PortId, Role, Snapshot,
};
use dataplane::{Address, Direction, DropReason, Mac, Time};

use super::packets::{self, Spec, Transport};

/// Bytes of a window: a chunk's. Longer packets come in several, as the kernel cuts them.
pub const WINDOW: usize = 3840;

/// Workers that packets can come to.
pub const WORKERS: usize = 2;
pub const PODS: usize = 5;
pub const UPLINK: PortId = PortId(100);
pub const NODE: PortId = PortId(101);
pub const TRANSIT: PortId = PortId(102);
pub const OUTSIDE_MAC: Mac = Mac([2, 0, 0, 0, 9, 9]);
pub const SECOND: u64 = 1_000_000_000;

pub fn address(text: &str) -> Address {
    Address::from(text.parse::<IpAddr>().unwrap())
}

pub fn pod_address(pod: usize, v4: bool) -> Address {
    if v4 {
        Address::v4(0x0a00_000a + pod as u32)
    } else {
        address(&format!("fd00::{:x}", 10 + pod))
    }
}

pub fn outside(v4: bool) -> Address {
    address(if v4 { "192.0.2.7" } else { "2001:db8::7" })
}

pub fn node(v4: bool) -> Address {
    address(if v4 { "10.255.0.1" } else { "fd00:ffff::1" })
}

pub fn pod_mac(pod: usize) -> Mac {
    Mac([2, 0, 0, 0, 1, pod as u8])
}

/// Our own Ethernet address on a port.
pub fn port_mac(port: PortId) -> Mac {
    Mac([2, 0, 0, 0, 2, port.0 as u8])
}

pub fn pod_port(pod: usize) -> PortId {
    PortId(pod as u16)
}

/// Who stands where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    Pod(usize),
    Outside,
    Node,
    Transit,
}

impl Place {
    pub fn port(self) -> PortId {
        match self {
            Place::Pod(pod) => pod_port(pod),
            Place::Outside => UPLINK,
            Place::Node => NODE,
            Place::Transit => TRANSIT,
        }
    }

    pub fn address(self, v4: bool) -> Address {
        match self {
            Place::Pod(pod) => pod_address(pod, v4),
            Place::Outside => outside(v4),
            Place::Node => node(v4),
            Place::Transit => address(if v4 { "172.17.0.5" } else { "fd00:17::5" }),
        }
    }

    pub fn mac(self) -> Mac {
        match self {
            Place::Pod(pod) => pod_mac(pod),
            Place::Outside => OUTSIDE_MAC,
            Place::Node => Mac([2, 0, 0, 0, 3, 1]),
            Place::Transit => Mac([2, 0, 0, 0, 3, 2]),
        }
    }
}

/// The bounds of what comes in fragments.
pub const FRAGMENTS: Bounds = Bounds {
    datagrams: 64,
    frames: 64,
    port_percent: 50,
    pieces: 64,
    timeout_ms: 1000,
};

/// A packet on its way into the pipeline.
struct Arrived {
    ingress: PortId,
    window: Vec<u8>,
    len: usize,
    /// The bytes behind the window.
    rest: Vec<u8>,
    held: Option<fragments::Ticket>,
}

impl Arrived {
    fn new(ingress: PortId, bytes: &[u8]) -> Arrived {
        let (here, rest) = bytes.split_at(bytes.len().min(WINDOW));
        let mut window = vec![0xa5; WINDOW];
        window[..here.len()].copy_from_slice(here);
        Arrived {
            ingress,
            window,
            len: here.len(),
            rest: rest.to_vec(),
            held: None,
        }
    }
}

/// What came of one packet.
#[derive(Debug)]
pub struct Sent {
    pub outcome: Outcome,
    pub bytes: Vec<u8>,
}

impl Sent {
    pub fn forwarded_to(&self) -> Option<PortId> {
        match self.outcome {
            Outcome::Forward(t) => Some(t.port),
            _ => None,
        }
    }

    pub fn dropped(&self) -> Option<DropReason> {
        self.outcome.drop_reason()
    }
}

/// The node.
pub struct World {
    pub parts: Parts,
    pub policies: Vec<EndpointPolicy>,
    /// Each pod's policies with those in audit mode, where there are any.
    pub audits: Vec<Option<EndpointPolicy>>,
    pub snapshot: Snapshot,
    pub conntrack: Table<Box<[AtomicU64]>>,
    pub counters: Counters,
    pub events: EventQueue,
    pub fragments: fragments::Table,
    pub affinity: Affinity,
    /// What each worker holds.
    pub held: Vec<Held<Vec<u8>>>,
    /// What became of fragments that were held.
    pub released: Vec<Sent>,
    /// The worker that packets come to.
    pub worker: usize,
    pub now: Time,
    /// Whether ports complete partial checksums.
    pub offload: bool,
    limiters: Limiters,
    lanes: Box<Lanes>,
}

fn port(id: PortId, role: Role, endpoint: Option<EndpointSlot>, peer_mac: Option<Mac>) -> Port {
    Port {
        id,
        role,
        mac: port_mac(id),
        mtu: 1500,
        is_virtual: true,
        icmp_source_v4: Some(address("169.254.1.1")),
        icmp_source_v6: Some(address("fe80::1")),
        endpoint,
        peer_mac,
    }
}

fn pod(index: usize) -> (Port, Endpoint) {
    let slot = EndpointSlot(index as u16);
    let endpoint = Endpoint {
        slot,
        incarnation: Incarnation(1 + index as u32),
        port: pod_port(index),
        mac: pod_mac(index),
        addresses: [pod_address(index, true), pod_address(index, false)]
            .into_iter()
            .collect(),
    };
    (port(pod_port(index), Role::Pod, Some(slot), None), endpoint)
}

fn route(prefix: &str, port: PortId, gateway: Option<&str>) -> Route {
    let next_hop = gateway.map_or(NextHop::OnLink, |g| NextHop::Gateway(address(g)));
    Route {
        prefix: prefix.parse().unwrap(),
        target: Some(RouteTarget { port, next_hop }),
    }
}

/// Of the pods' range, what is no pod.
fn nowhere(prefix: &str) -> Route {
    Route {
        prefix: prefix.parse().unwrap(),
        target: None,
    }
}

fn parts() -> Parts {
    let (mut ports, endpoints): (Vec<_>, Vec<_>) = (0..PODS).map(pod).unzip();
    ports.push(port(UPLINK, Role::Uplink, None, None));
    ports.push(port(NODE, Role::HostNode, None, Some(Place::Node.mac())));
    ports.push(port(
        TRANSIT,
        Role::HostTransit,
        None,
        Some(Place::Transit.mac()),
    ));
    let routes = [
        route("0.0.0.0/0", UPLINK, Some("198.51.100.1")),
        route("::/0", UPLINK, Some("2001:db8:1::1")),
        route("10.255.0.1/32", NODE, None),
        route("fd00:ffff::1/128", NODE, None),
        route("172.17.0.0/16", TRANSIT, None),
        route("fd00:17::/64", TRANSIT, None),
        nowhere("10.0.0.0/24"),
        nowhere("fd00::/64"),
    ];
    let neighbour = |a: &str| Neighbour {
        port: UPLINK,
        address: address(a),
        mac: OUTSIDE_MAC,
    };
    Parts {
        generation: Generation(1),
        ports,
        endpoints,
        epochs: vec![Epoch(1); PODS],
        neighbours: vec![neighbour("198.51.100.1"), neighbour("2001:db8:1::1")],
        node_addresses: vec![node(true), node(false)],
        gateways: vec![address("169.254.1.1"), address("fe80::1")],
        routes: Arc::new(RouteTable::new(&routes)),
        ..Parts::default()
    }
}

impl World {
    /// A world without policies, whose table holds `capacity` connections.
    pub fn new(capacity: u32) -> World {
        World::with_bounds(capacity, FRAGMENTS)
    }

    /// One that follows TCP's windows.
    pub fn strict(capacity: u32) -> World {
        World::of(capacity, FRAGMENTS, true)
    }

    /// The same with other bounds of what comes in fragments.
    pub fn with_bounds(capacity: u32, bounds: Bounds) -> World {
        World::of(capacity, bounds, false)
    }

    fn of(capacity: u32, bounds: Bounds, strict_tcp: bool) -> World {
        let fragments = fragments::Table::new(bounds, 128, [7, 11]);
        let settings = conntrack::Settings {
            capacity,
            quota_per_endpoint: capacity,
            endpoints: 64,
            timeouts: Timeouts::default(),
            strict_tcp,
            hash_seed: [7, 11],
        };
        let words = Table::<Box<[AtomicU64]>>::words(&settings);
        let mut world = World {
            parts: parts(),
            policies: vec![EndpointPolicy::default(); PODS],
            audits: vec![None; PODS],
            snapshot: Snapshot::default(),
            conntrack: Table::new(conntrack::heap(words), settings).unwrap(),
            counters: Counters::new(WORKERS, 128, 64),
            events: EventQueue::new(4096),
            held: (0..WORKERS).map(|_| Held::new(&fragments)).collect(),
            fragments,
            affinity: Affinity::new(64, [7, 11]),
            released: Vec::new(),
            worker: 0,
            now: Time(1000 * SECOND),
            offload: true,
            limiters: Limiters::new(128),
            lanes: Box::default(),
        };
        world.publish();
        world
    }

    /// Compiles the policies and adopts the next generation.
    pub fn publish(&mut self) {
        let mut compiler = Compiler::new();
        let mut chains = |policy: &EndpointPolicy| {
            [
                compiler.chain(Direction::Egress, &policy.egress),
                compiler.chain(Direction::Ingress, &policy.ingress),
            ]
        };
        let slots: Vec<_> = (0..self.policies.len())
            .map(|pod| {
                let enforced = chains(&self.policies[pod]);
                let audit = self.audits[pod].as_ref().map(&mut chains);
                (EndpointSlot(pod as u16), Slot { enforced, audit })
            })
            .collect();
        compiler.settle();
        self.parts.policy = Arc::new(compiler.table(slots.into_iter()));
        self.parts.generation.0 += 1;
        self.snapshot = Snapshot::build(self.parts.clone()).unwrap();
    }

    /// Gives pods a policy: their epoch becomes the new generation's.
    pub fn set_policy(&mut self, pods: &[usize], policy: &EndpointPolicy) {
        let next = Generation(self.parts.generation.0 + 1);
        for pod in pods {
            self.policies[*pod] = policy.clone();
            self.parts.epochs[*pod] = Epoch::from(next);
        }
        self.publish();
    }

    /// Gives a pod policies in audit mode (with those enforced), or takes them.
    pub fn set_audit(&mut self, pod: usize, policy: Option<EndpointPolicy>) {
        self.audits[pod] = policy;
        self.parts.epochs[pod] = Epoch::from(Generation(self.parts.generation.0 + 1));
        self.publish();
    }

    /// Gives the pods' ports another MTU.
    pub fn set_pod_mtu(&mut self, mtu: u16) {
        let ports = &mut self.parts.ports;
        ports
            .iter_mut()
            .filter(|port| port.role == Role::Pod)
            .for_each(|port| port.mtu = mtu);
        self.publish();
    }

    /// Runs one packet through the pipeline, as if its transmission succeeded.
    pub fn send_bytes(&mut self, ingress: PortId, bytes: &[u8]) -> Sent {
        self.send_all(ingress, &[bytes]).pop().unwrap()
    }

    /// Runs a burst.
    pub fn send_all(&mut self, ingress: PortId, packets: &[&[u8]]) -> Vec<Sent> {
        let packets: Vec<_> = packets.iter().map(|bytes| (ingress, *bytes)).collect();
        self.send_mixed(&packets)
    }

    /// Runs a burst of packets that came in by several ports, and then what that releases.
    pub fn send_mixed(&mut self, packets: &[(PortId, &[u8])]) -> Vec<Sent> {
        let arrived = packets
            .iter()
            .map(|(ingress, bytes)| Arrived::new(*ingress, bytes))
            .collect();
        let sent = self.process(arrived);
        self.release();
        sent
    }

    /// Takes up the held fragments that can be decided, or have waited for too long, as the worker
    /// does after each round.
    pub fn release(&mut self) {
        let mut arrived = Vec::new();
        let held = &mut self.held[self.worker];
        held.release(&self.fragments, self.now, BURST_MAX, |released| {
            arrived.push(Arrived {
                ingress: released.ticket.ingress(),
                window: released.frame,
                len: released.len,
                rest: Vec::new(),
                held: Some(released.ticket),
            });
        });
        if !arrived.is_empty() {
            let sent = self.process(arrived);
            self.released.extend(sent);
        }
    }

    fn process(&mut self, mut arrived: Vec<Arrived>) -> Vec<Sent> {
        let mut outcomes = ArrayVec::new();
        let shard = self.counters.shard(self.worker).unwrap();
        let mut tables = Tables {
            conntrack: &self.conntrack,
            fragments: &self.fragments,
            affinity: &self.affinity,
            counters: shard,
            events: &self.events,
            limiters: &mut self.limiters,
            checksum_offload: &[self.offload; 128],
        };
        let behind: Vec<Vec<u8>> = arrived
            .iter_mut()
            .map(|arrived| std::mem::take(&mut arrived.rest))
            .collect();
        let rests: Vec<Vec<&[u8]>> = behind
            .iter()
            .map(|bytes| bytes.chunks(WINDOW).collect())
            .collect();
        {
            let mut burst: ArrayVec<Inbound<'_>, BURST_MAX> = arrived
                .iter_mut()
                .zip(&rests)
                .map(|(arrived, rest)| Inbound {
                    ingress: arrived.ingress,
                    window: &mut arrived.window,
                    len: arrived.len,
                    rest,
                    held: arrived.held.as_ref(),
                })
                .collect();
            let (snapshot, now) = (&self.snapshot, self.now);
            let allocated = allocation_counter::measure(|| {
                let lanes = &mut self.lanes;
                process(&mut burst, lanes, &mut tables, snapshot, now, &mut outcomes);
            });
            assert_eq!(allocated.count_total, 0, "the packet path allocated");
        }
        let held = &mut self.held[self.worker];
        let mut sent = Vec::new();
        for ((arrived, outcome), rest) in arrived.into_iter().zip(outcomes).zip(&behind) {
            outcome.account(shard, arrived.ingress, Ok(()));
            let mut bytes = arrived.window;
            if let Outcome::Hold(ticket) = outcome {
                let frame = (std::mem::take(&mut bytes), arrived.len);
                let kept = held.keep(&self.fragments, ticket, frame, self.now);
                assert!(
                    kept.is_ok(),
                    "there is room for what the table lets be held"
                );
            }
            bytes.extend(rest);
            bytes.truncate(outcome.transmission().map_or(0, |t| t.len));
            sent.push(Sent { outcome, bytes });
        }
        sent
    }

    /// Sends a well-formed packet from one place to another.
    pub fn send(&mut self, from: Place, to: Place, v4: bool, transport: Transport) -> Sent {
        let spec = self.spec(from, to, v4, transport);
        self.send_bytes(from.port(), &packets::build(&spec))
    }

    /// The packet that [`World::send`] sends.
    pub fn spec(&self, from: Place, to: Place, v4: bool, transport: Transport) -> Spec {
        Spec {
            source_mac: from.mac(),
            destination_mac: port_mac(from.port()),
            source: from.address(v4),
            destination: to.address(v4),
            ttl: 64,
            transport,
            payload: b"weir".to_vec(),
        }
    }

    /// The events since the last call.
    pub fn drain(&self) -> Vec<Event> {
        std::iter::from_fn(|| self.events.pop()).collect()
    }

    pub fn totals(&self) -> Totals {
        self.counters.totals()
    }

    /// Every packet ended as exactly one thing, or is held.
    pub fn assert_balanced(&self) {
        let totals = self.totals();
        let held: usize = self.held.iter().map(Held::len).sum();
        assert_eq!(totals.unaccounted(), held as i128, "{totals:?}");
        assert_eq!(self.fragments.counts().frames as usize, held);
        assert_eq!(totals.counter(Counter::EventsLost), self.events.lost());
    }
}
