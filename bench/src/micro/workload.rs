//! What is measured, by `weir bench micro` and by criterion's benches alike: nodes with connections;
//! packets, keys and questions to policy in random order; and the loops around what is timed.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::conntrack::{BATCH, Ends, Entry, Epochs, Facts, Inserted, NewEntry, TcpFacts};
use dataplane::counters::RuleCounters;
use dataplane::policy::{EndpointSlot, Peer, PolicyTable};
use dataplane::snapshot::{Epoch, Incarnation, PortId};
use dataplane::wire::{self, Offload};
use dataplane::{Address, Direction, FlowKey, Protocol, Verdict};

use super::FLOWS_MAX;
use super::packets::{OPEN_PORT, SHUT_PORT, Segment};
use super::world::{self, Frame, Frames, World};
use crate::cluster::Numbers;
use crate::error::BenchError;

/// The cluster's policy, and which packets there are.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Of every node's pods.
    pub policy: Arc<PolicyTable>,
    /// IPv6 in place of IPv4.
    pub ipv6: bool,
    /// Octets of a packet from the Ethernet header on, without frame check sequence.
    pub frame_bytes: usize,
}

/// How a packet's headers are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parser {
    /// By the whole parser.
    Whole,
    /// By the short way for ordinary packets.
    Short,
}

/// What a new connection between two local pods asks of policy: the slots and the addresses of both,
/// and the destination port.
pub type Question = ([EndpointSlot; 2], [Address; 2], u16);

impl Workload {
    /// A node with room for so many connections, and some more, as a table in service has.
    pub fn node(&self, flows: u32) -> Result<World, BenchError> {
        let capacity = (flows + flows / 4).max(1024);
        World::new(capacity, &self.policy, self.ipv6, self.frame_bytes)
    }

    /// A node with so many established connections.
    pub fn populated(&self, flows: u32) -> Result<World, BenchError> {
        let mut world = self.node(flows)?;
        world.establish(flows)?;
        Ok(world)
    }

    /// Segments of different connections.
    ///
    /// # Errors
    ///
    /// [`BenchError::Outcome`] if the parser refuses one.
    pub fn segments(&self, parser: Parser) -> Result<Vec<Frame>, BenchError> {
        let world = self.node(64)?;
        let frames = (0..256)
            .map(|number| world.frame(number, OPEN_PORT, Segment::Ack, false))
            .collect::<Result<Vec<_>, _>>()?;
        let refused = frames.iter().filter(|frame| !parser.parse(frame)).count();
        match refused {
            0 => Ok(frames),
            _ => Err(BenchError::Outcome {
                name: format!("parse, {parser}"),
                count: refused as u64,
                outcome: "refused".to_owned(),
            }),
        }
    }

    /// What 4096 new connections ask of policy; half of them it denies, if there is any.
    pub fn questions(&self) -> Vec<Question> {
        let mut numbers = Numbers(3);
        let question = |_| {
            let (source, destination) = world::ends(numbers.below(FLOWS_MAX));
            let ends = [source, destination];
            let to = [OPEN_PORT, SHUT_PORT][numbers.below(2) as usize];
            (
                ends.map(|pod| EndpointSlot(pod as u16)),
                ends.map(|pod| world::address(pod, self.ipv6)),
                to,
            )
        };
        (0..4096).map(question).collect()
    }

    /// The key and the ends of a connection's packets, or of one that there is not.
    pub fn key(&self, number: u32, present: bool) -> (FlowKey, Ends) {
        let to = if present { OPEN_PORT } else { SHUT_PORT };
        let (source, destination) = world::ends(number);
        let ends = Ends {
            source: Incarnation(1 + source),
            destination: Incarnation(1 + destination),
            ingress: PortId(source as u16),
        };
        (world::key(number, self.ipv6, to), ends)
    }

    /// Keys of `count` packets of connections in random order, present or not, with their ends.
    pub fn keys(&self, flows: u32, count: u32, present: bool) -> Vec<(FlowKey, Ends)> {
        let mut numbers = Numbers(5);
        let mut next = || self.key(numbers.below(flows), present);
        (0..count).map(|_| next()).collect()
    }

    /// `flows` connections that begin one after the other, each with a first packet that policy
    /// accepts or denies, on a node without any.
    pub fn new_flows(
        &self,
        flows: u32,
        first_packet: Segment,
        accepted: bool,
    ) -> Result<NewFlows, BenchError> {
        let protocol = match first_packet {
            Segment::Datagram => "UDP",
            _ => "TCP",
        };
        let kind = if accepted { "accepted" } else { "denied" };
        Ok(NewFlows {
            name: format!("new {protocol} flows, {kind}"),
            world: self.node(flows)?,
            flows,
            begun: 0,
            first_packet,
            accepted,
        })
    }
}

impl std::fmt::Display for Parser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Parser::Whole => "the whole way",
            Parser::Short => "the short way",
        })
    }
}

impl Parser {
    /// Reads a packet's headers; whether that was possible.
    #[inline]
    fn parse(self, frame: &Frame) -> bool {
        let bytes = black_box(&frame.bytes[..]);
        match self {
            Parser::Short => black_box(wire::brief(bytes, Offload::Virtual)).is_some(),
            Parser::Whole => black_box(wire::parse(bytes, Offload::Virtual)).is_ok(),
        }
    }

    /// How long the packets' headers take to read.
    pub fn time<'f>(self, frames: impl Iterator<Item = &'f Frame>) -> Duration {
        let start = Instant::now();
        for frame in frames {
            self.parse(frame);
        }
        start.elapsed()
    }
}

/// How long policy takes for the questions: two addresses classified, egress of the one and ingress
/// of the other decided.
pub fn time_decisions<'q>(
    policy: &PolicyTable,
    questions: impl Iterator<Item = &'q Question>,
) -> Duration {
    let start = Instant::now();
    for (slots, addresses, to) in black_box(questions) {
        let [source, destination] = addresses.map(|address| policy.peer(address));
        let decide = |slot, direction, peer: Peer| {
            black_box(policy.decide(slot, direction, &peer, Protocol::TCP, Some(*to)))
        };
        decide(slots[0], Direction::Egress, destination);
        decide(slots[1], Direction::Ingress, source);
    }
    start.elapsed()
}

/// How long it takes to look the keys up one by one, and how many were found.
pub fn time_lookups<'k>(
    world: &World,
    keys: impl Iterator<Item = &'k (FlowKey, Ends)>,
) -> (u64, Duration) {
    let (conntrack, now) = (world.conntrack(), world.now());
    let mut found = 0u64;
    let start = Instant::now();
    for (key, ends) in keys {
        found += u64::from(conntrack.lookup(black_box(key), ends, now).is_some());
    }
    (found, start.elapsed())
}

/// How long it takes to look keys up in batches, and how many were found.
pub fn time_batches<'k>(
    world: &World,
    batches: impl Iterator<Item = &'k [(FlowKey, Ends)]>,
) -> (u64, Duration) {
    let (conntrack, now) = (world.conntrack(), world.now());
    let mut hits = [None; BATCH];
    let mut found = 0u64;
    let start = Instant::now();
    for batch in batches {
        let hits = &mut hits[..batch.len()];
        conntrack.lookup_batch(black_box(batch), now, hits);
        found += hits.iter().flatten().count() as u64;
    }
    (found, start.elapsed())
}

/// How long it takes to make entries for new connections, and to remove them again.
///
/// # Errors
///
/// [`BenchError::Outcome`] if one cannot be made or removed: the table had it, or has no room.
pub fn time_entries(world: &World, keys: &[(FlowKey, Ends)]) -> Result<[Duration; 2], BenchError> {
    let (conntrack, now) = (world.conntrack(), world.now());
    let entry = |&(key, ends): &(FlowKey, Ends)| NewEntry {
        translation: None,
        key,
        ends,
        verdict: Verdict::default_accept(Direction::Ingress),
        counters: RuleCounters::default(),
        epochs: Epochs {
            source: Epoch(1),
            destination: Epoch(1),
        },
        facts: Facts::Tcp(TcpFacts {
            flags: dataplane::conntrack::TcpFlags::SYN,
            ..TcpFacts::default()
        }),
    };
    let new: Vec<NewEntry> = keys.iter().map(entry).collect();
    let mut made = Vec::with_capacity(new.len());
    let start = Instant::now();
    made.extend(new.iter().map(|new| conntrack.insert(black_box(new), now)));
    let inserting = start.elapsed();
    let entries: Vec<Entry> = made
        .iter()
        .filter_map(|made| match made {
            Ok(Inserted::New(handle)) => Some(handle.slot()..handle.slot() + 1),
            _ => None,
        })
        .flat_map(|slot| conntrack.entries_in(slot, now))
        .collect();
    let start = Instant::now();
    let removed = entries.iter().filter(|entry| conntrack.remove(entry));
    let removed = removed.count() as u64;
    let removing = start.elapsed();
    found_all("entries made and removed", removed, keys.len() as u64)?;
    Ok([inserting, removing])
}

/// Fails unless so many were found.
pub fn found_all(name: &str, found: u64, expected: u64) -> Result<(), BenchError> {
    if found == expected {
        return Ok(());
    }
    Err(BenchError::Outcome {
        name: name.to_owned(),
        count: found.abs_diff(expected),
        outcome: if found < expected { "missed" } else { "found" }.to_owned(),
    })
}

/// `count` packets of established connections in random order, both directions by turns, of the
/// connections and directions that are `wanted`.
pub fn established_frames(
    world: &World,
    flows: u32,
    count: u32,
    wanted: impl Fn((u32, bool)) -> bool,
) -> Result<Frames, BenchError> {
    let mut frames = Frames::default();
    let mut numbers = Numbers(5);
    let mut back = false;
    while frames.count() < count as usize {
        let number = numbers.below(flows);
        if wanted((number, back)) {
            frames.push(&world.frame(number, OPEN_PORT, Segment::Ack, back)?);
        }
        back = !back;
    }
    Ok(frames)
}

/// Connections that begin, on a node of their own.
pub struct NewFlows {
    /// What they are, for people.
    pub name: String,
    /// Their node.
    pub world: World,
    flows: u32,
    begun: u32,
    first_packet: Segment,
    accepted: bool,
}

impl NewFlows {
    /// How many are still to begin.
    pub fn left(&self) -> u32 {
        self.flows - self.begun
    }

    /// Sends the first packets of the next `count`, [`BURST_MAX`](dataplane::pipeline::BURST_MAX) at
    /// most, and says how long the pipeline took.
    ///
    /// # Errors
    ///
    /// [`BenchError::Outcome`] if they fare otherwise than policy says.
    pub fn begin(&mut self, count: u32) -> Result<Duration, BenchError> {
        let to = if self.accepted { OPEN_PORT } else { SHUT_PORT };
        let numbers = self.begun..self.begun + count.min(self.left());
        self.begun = numbers.end;
        let frames = numbers
            .map(|number| self.world.frame(number, to, self.first_packet, false))
            .collect::<Result<Vec<_>, _>>()?;
        self.world.send(&self.name, &frames, self.accepted)
    }

    /// Fails unless each that has begun has an entry in the connection table.
    pub fn have_entries(&self) -> Result<(), BenchError> {
        let entries = self.world.conntrack().counters().entries;
        match entries.abs_diff(self.begun.into()) {
            0 => Ok(()),
            count => Err(BenchError::Outcome {
                name: self.name.clone(),
                count,
                outcome: "without an entry in the connection table".to_owned(),
            }),
        }
    }
}
