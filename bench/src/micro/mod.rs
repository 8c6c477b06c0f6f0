//! The dataplane's steps, each alone and all together, in memory: no sockets, no kernel, one
//! thread; look-ups of connections beside DPDK's `rte_hash`; and what a second thread adds.

mod packets;
mod peer;
mod rte_hash;
mod scaling;
mod world;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use dataplane::checksum::Sum;
use dataplane::conntrack::{BATCH, Ends};
use dataplane::pipeline::BURST_MAX;
use dataplane::policy::{EndpointSlot, Peer, PolicyTable};
use dataplane::snapshot::{Incarnation, PortId};
use dataplane::wire::{self, Offload};
use dataplane::{Direction, FlowKey, Protocol};
use serde::Serialize;
use serde_json::json;

use crate::cluster::Numbers;
use crate::error::BenchError;
use crate::machine;
use crate::output::{self, Report};
use crate::statistics::Summary;
use packets::{OPEN_PORT, SHUT_PORT, Segment};
use world::{Frame, Frames, World};

/// Connections a world can tell apart.
const FLOWS_MAX: u32 = 4_000_000;

/// What to measure.
#[derive(Clone, PartialEq, Eq, Debug, Args, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Arguments {
    /// Established connections in the table; several counts, separated by commas, are measured
    /// one after the other.
    #[arg(long, value_delimiter = ',', default_value = "1000,100000,1000000",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(FLOWS_MAX)))]
    pub flows: Vec<u32>,
    /// Connections in the tables that are compared with `rte_hash`'s.
    #[arg(long, default_value_t = 500_000,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(FLOWS_MAX)))]
    pub peer_flows: u32,
    /// Connections that one worker and two are compared with.
    #[arg(long, default_value_t = 200_000,
          value_parser = clap::value_parser!(u32).range(64..=i64::from(FLOWS_MAX)))]
    pub scaling_flows: u32,
    /// Connections that each run with new connections opens.
    #[arg(long, default_value_t = 100_000,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(FLOWS_MAX)))]
    pub new_flows: u32,
    /// Policies in the cluster, up to 40 of which select each of the 100 local pods; 0 measures
    /// without policy.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub policies: u32,
    /// Octets of a packet from the Ethernet header on, without frame check sequence.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u16).range(60..=1514))]
    pub frame_bytes: u16,
    /// Packets of a run (except with new connections).
    #[arg(long, default_value_t = 1_000_000,
          value_parser = clap::value_parser!(u32).range(64..=100_000_000))]
    pub packets: u32,
    /// Runs of each measurement, after one that is not counted.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub runs: u16,
    /// Measure IPv6 in place of IPv4.
    #[arg(long)]
    pub ipv6: bool,
}

/// One measurement's results.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Measured {
    name: String,
    ns_per_packet: Summary,
    /// Of the time-stamp counter.
    cycles_per_packet: f64,
    packets_per_second: f64,
    packets_per_run: u64,
    runs: u16,
}

/// Runs `once` (packets, and how long they took) as often as asked for.
fn measure(
    name: impl Into<String>,
    runs: u16,
    mut once: impl FnMut() -> Result<(u64, Duration), BenchError>,
) -> Result<Measured, BenchError> {
    let name = name.into();
    once()?;
    let mut values = Vec::new();
    let mut packets_per_run = 0;
    for _ in 0..runs {
        let (packets, elapsed) = once()?;
        packets_per_run = packets;
        values.push(elapsed.as_nanos() as f64 / packets as f64);
    }
    let ns_per_packet =
        Summary::of(&values).ok_or_else(|| BenchError::Setup(format!("{name}: no runs")))?;
    Ok(Measured {
        name,
        ns_per_packet,
        cycles_per_packet: ns_per_packet.median * machine::cycles_per_ns(),
        packets_per_second: 1e9 / ns_per_packet.median,
        packets_per_run,
        runs,
    })
}

/// Measures everything.
pub fn run(arguments: &Arguments) -> Result<Report, BenchError> {
    let policy = Arc::new(world::policy_table(arguments.policies));
    let mut measured = vec![
        parse(arguments, &policy, false)?,
        parse(arguments, &policy, true)?,
        checksum(arguments)?,
        decide(arguments, &policy)?,
    ];
    for flows in &arguments.flows {
        measured.extend(established(arguments, &policy, *flows)?);
    }
    for first_packet in [Segment::Syn, Segment::Datagram] {
        measured.push(new_flows(arguments, &policy, first_packet, true)?);
        if arguments.policies > 0 {
            measured.push(new_flows(arguments, &policy, first_packet, false)?);
        }
    }
    let beside = peer::compare(arguments, &policy)?;
    let scaling = scaling::compare(arguments, &policy)?;
    let mut rows: Vec<_> = measured.iter().map(row).collect();
    rows.extend(beside.rows());
    rows.extend(scaling.iter().map(scaling::Scaled::row));
    Ok(Report {
        benchmark: "micro",
        arguments: output::value(arguments),
        heads: vec!["in memory", "ns/packet", "min–max", "cycles", "packets/s"],
        rows,
        results: json!({ "oneThread": measured, "besideRteHash": beside, "scaling": scaling }),
        notes: vec![
            beside.note(),
            format!(
                "Medians of {} runs. {} octets a packet, {}, TCP; {} policies in the cluster, {} \
                 of them at each pod.",
                arguments.runs,
                arguments.frame_bytes,
                if arguments.ipv6 { "IPv6" } else { "IPv4" },
                arguments.policies,
                arguments.policies.min(40) + u32::from(arguments.policies > 0),
            ),
            "Packets' bytes are in the cache; connections are met in random order. Rings, system \
             calls\nand the kernel's share are not in these numbers."
                .to_owned(),
        ],
    })
}

fn row(of: &Measured) -> Vec<String> {
    let Summary { median, min, max } = of.ns_per_packet;
    vec![
        of.name.clone(),
        format!("{median:.1}"),
        format!("{min:.1}–{max:.1}"),
        format!("{:.0}", of.cycles_per_packet),
        format!("{:.2} M", of.packets_per_second / 1e6),
    ]
}

/// The whole parser, or its short way for ordinary packets.
fn parse(
    arguments: &Arguments,
    policy: &Arc<PolicyTable>,
    short: bool,
) -> Result<Measured, BenchError> {
    let way = if short {
        "the short way"
    } else {
        "the whole way"
    };
    let name = format!("parse, {way}, {} octets", arguments.frame_bytes);
    let world = World::new(64, policy, arguments.ipv6, arguments.frame_bytes.into())?;
    let frames = (0..256)
        .map(|number| world.frame(number, OPEN_PORT, Segment::Ack, false))
        .collect::<Result<Vec<_>, _>>()?;
    let parses = |frame: &Frame| match short {
        true => wire::brief(&frame.bytes, Offload::Virtual).is_some(),
        false => wire::parse(&frame.bytes, Offload::Virtual).is_ok(),
    };
    if !frames.iter().all(parses) {
        return Err(BenchError::Outcome {
            name,
            count: 1,
            outcome: "refused".to_owned(),
        });
    }
    measure(name, arguments.runs, || {
        let start = Instant::now();
        let every = frames.iter().cycle().take(arguments.packets as usize);
        for frame in every {
            let bytes = black_box(&frame.bytes[..]);
            match short {
                true => drop(black_box(wire::brief(bytes, Offload::Virtual))),
                false => drop(black_box(wire::parse(bytes, Offload::Virtual))),
            }
        }
        Ok((arguments.packets.into(), start.elapsed()))
    })
}

fn checksum(arguments: &Arguments) -> Result<Measured, BenchError> {
    let segment: Vec<u8> = (0..1480u32).map(|at| (at * 7) as u8).collect();
    measure("checksum of 1480 octets", arguments.runs, || {
        let start = Instant::now();
        for _ in 0..arguments.packets {
            black_box(Sum::ZERO.bytes(black_box(&segment)).checksum());
        }
        Ok((arguments.packets.into(), start.elapsed()))
    })
}

/// What a new connection between two local pods asks of policy: two addresses classified, egress
/// of the one and ingress of the other decided.
fn decide(arguments: &Arguments, policy: &PolicyTable) -> Result<Measured, BenchError> {
    let mut numbers = Numbers(3);
    let questions: Vec<_> = (0..4096)
        .map(|_| {
            let (source, destination) = world::ends(numbers.below(FLOWS_MAX));
            let ends = [source, destination];
            let to = [OPEN_PORT, SHUT_PORT][numbers.below(2) as usize];
            (
                ends.map(|pod| EndpointSlot(pod as u16)),
                ends.map(|pod| world::address(pod, arguments.ipv6)),
                Some(to),
            )
        })
        .collect();
    measure("classify + decide, both ends", arguments.runs, || {
        let start = Instant::now();
        let every = questions.iter().cycle().take(arguments.packets as usize);
        for (slots, addresses, to) in black_box(every) {
            let [source, destination] = addresses.map(|address| policy.peer(address));
            let decide = |slot, direction, peer: Peer| {
                black_box(policy.decide(slot, direction, &peer, Protocol::TCP, *to))
            };
            decide(slots[0], Direction::Egress, destination);
            decide(slots[1], Direction::Ingress, source);
        }
        Ok((arguments.packets.into(), start.elapsed()))
    })
}

/// Looking connections up, hit and miss, and the whole pipeline, on a table of `flows`.
fn established(
    arguments: &Arguments,
    policy: &Arc<PolicyTable>,
    flows: u32,
) -> Result<Vec<Measured>, BenchError> {
    let mut world = populated(arguments, policy, flows)?;
    let frames = established_frames(&world, flows, arguments.packets, |_| true)?;
    let mut measured = vec![
        lookup(arguments, &world, flows, true)?,
        lookup(arguments, &world, flows, false)?,
        lookup_batch(arguments, &world, flows)?,
    ];
    let name = format!("forwarding that looks at nothing, {flows} established");
    measured.push(measure(name, arguments.runs, || {
        let mut elapsed = Duration::ZERO;
        for first in (0..frames.len()).step_by(BURST_MAX) {
            elapsed += world.forward_blindly(frames.burst(first))?;
        }
        Ok((frames.len() as u64, elapsed))
    })?);
    let name = format!("whole pipeline, {flows} established");
    measured.push(measure(name.clone(), arguments.runs, || {
        let mut elapsed = Duration::ZERO;
        for first in (0..frames.len()).step_by(BURST_MAX) {
            elapsed += world.send_burst(&name, frames.burst(first), true)?;
        }
        Ok((frames.len() as u64, elapsed))
    })?);
    Ok(measured)
}

/// A node with so many established connections.
fn populated(
    arguments: &Arguments,
    policy: &Arc<PolicyTable>,
    flows: u32,
) -> Result<World, BenchError> {
    // Some room, as a table in service has.
    let capacity = (flows + flows / 4).max(1024);
    let frame_bytes = arguments.frame_bytes.into();
    let mut world = World::new(capacity, policy, arguments.ipv6, frame_bytes)?;
    world.establish(flows)?;
    Ok(world)
}

/// `count` packets of established connections in random order, both directions by turns, of the
/// connections and directions that are `wanted`.
fn established_frames(
    world: &World,
    flows: u32,
    count: u32,
    wanted: impl Fn((u32, bool)) -> bool,
) -> Result<Frames, BenchError> {
    let mut frames = Frames::default();
    let mut numbers = Numbers(5);
    let mut back = false;
    while frames.len() < count as usize {
        let number = numbers.below(flows);
        if wanted((number, back)) {
            frames.push(&world.frame(number, OPEN_PORT, Segment::Ack, back)?);
        }
        back = !back;
    }
    Ok(frames)
}

/// The key and the ends of a connection's packets, or of one that there is not.
fn question(arguments: &Arguments, number: u32, present: bool) -> (FlowKey, Ends) {
    let to = if present { OPEN_PORT } else { SHUT_PORT };
    let (source, destination) = world::ends(number);
    let ends = Ends {
        source: Incarnation(1 + source),
        destination: Incarnation(1 + destination),
        ingress: PortId(source as u16),
    };
    (world::key(number, arguments.ipv6, to), ends)
}

/// Keys of connections in random order, present or not, with their ends.
fn keys(arguments: &Arguments, flows: u32, present: bool) -> Vec<(FlowKey, Ends)> {
    let mut numbers = Numbers(5);
    let mut next = || question(arguments, numbers.below(flows), present);
    let count = arguments.packets.min(1 << 19);
    (0..count).map(|_| next()).collect()
}

/// Fails unless so many were found.
fn found_all(name: &str, found: u64, expected: u64) -> Result<(), BenchError> {
    if found == expected {
        return Ok(());
    }
    Err(BenchError::Outcome {
        name: name.to_owned(),
        count: found.abs_diff(expected),
        outcome: if found < expected { "missed" } else { "found" }.to_owned(),
    })
}

fn lookup(
    arguments: &Arguments,
    world: &World,
    flows: u32,
    present: bool,
) -> Result<Measured, BenchError> {
    let packets = keys(arguments, flows, present);
    let kind = if present { "hit" } else { "miss" };
    let name = format!("conntrack lookup, {kind}, {flows} established");
    measure(name.clone(), arguments.runs, || {
        let now = world.now();
        let mut found = 0u64;
        let start = Instant::now();
        for (key, ends) in packets.iter().cycle().take(arguments.packets as usize) {
            found += u64::from(
                world
                    .conntrack()
                    .lookup(black_box(key), ends, now)
                    .is_some(),
            );
        }
        let elapsed = start.elapsed();
        let expected = if present { arguments.packets.into() } else { 0 };
        found_all(&name, found, expected)?;
        Ok((arguments.packets.into(), elapsed))
    })
}

fn lookup_batch(arguments: &Arguments, world: &World, flows: u32) -> Result<Measured, BenchError> {
    let packets = keys(arguments, flows, true);
    let name = format!("conntrack lookup, hit, in batches, {flows} established");
    measure(name.clone(), arguments.runs, || {
        time_batches(&name, world, &packets)
    })
}

/// Looks all keys up in batches; how many, and how long it took.
fn time_batches(
    name: &str,
    world: &World,
    packets: &[(FlowKey, Ends)],
) -> Result<(u64, Duration), BenchError> {
    let now = world.now();
    let mut hits = [None; BATCH];
    let mut found = 0u64;
    let start = Instant::now();
    for batch in packets.chunks(BATCH) {
        let hits = &mut hits[..batch.len()];
        world.conntrack().lookup_batch(black_box(batch), now, hits);
        found += hits.iter().flatten().count() as u64;
    }
    let elapsed = start.elapsed();
    found_all(name, found, packets.len() as u64)?;
    Ok((packets.len() as u64, elapsed))
}

/// Every packet opens a connection that policy accepts or denies, on a table that is empty at
/// first and has room for all.
fn new_flows(
    arguments: &Arguments,
    policy: &Arc<PolicyTable>,
    first_packet: Segment,
    accepted: bool,
) -> Result<Measured, BenchError> {
    let (kind, to) = match accepted {
        true => ("accepted", OPEN_PORT),
        false => ("denied", SHUT_PORT),
    };
    let protocol = match first_packet {
        Segment::Datagram => "UDP",
        _ => "TCP",
    };
    let name = format!("whole pipeline, new {protocol} flows, {kind}");
    let flows = arguments.new_flows;
    let capacity = (flows + flows / 4).max(1024);
    measure(name.clone(), arguments.runs, || {
        let frame_bytes = arguments.frame_bytes.into();
        let mut world = World::new(capacity, policy, arguments.ipv6, frame_bytes)?;
        let mut elapsed = Duration::ZERO;
        for first in (0..flows).step_by(BURST_MAX) {
            let frames = (first..flows.min(first + BURST_MAX as u32))
                .map(|number| world.frame(number, to, first_packet, false))
                .collect::<Result<Vec<_>, _>>()?;
            elapsed += world.send(&name, &frames, accepted)?;
        }
        match world.conntrack().counters().entries {
            entries if entries == u64::from(flows) => Ok((flows.into(), elapsed)),
            entries => Err(BenchError::Outcome {
                name: name.clone(),
                count: u64::from(flows).abs_diff(entries),
                outcome: "without an entry in the connection table".to_owned(),
            }),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn small(policies: u32, ipv6: bool) -> Arguments {
        Arguments {
            flows: vec![100],
            peer_flows: 100,
            scaling_flows: 100,
            new_flows: 200,
            policies,
            frame_bytes: 128,
            packets: 128,
            runs: 1,
            ipv6,
        }
    }

    /// What [`run`] checks itself: packets are forwarded, found, denied as the names say.
    #[test]
    fn every_measurement_measures_what_it_says() {
        for ipv6 in [false, true] {
            for (policies, rows) in [(20, 13), (0, 11)] {
                let report = run(&small(policies, ipv6)).unwrap();
                // Where DPDK is there, its rows come on top.
                let beside = report.results["besideRteHash"]["theirs"]
                    .as_array()
                    .unwrap();
                let scaling = report.results["scaling"].as_array().unwrap();
                assert_eq!(scaling.len(), 2);
                assert_eq!(report.rows.len(), rows + 1 + beside.len() + scaling.len());
            }
        }
    }

    #[test]
    fn connections_have_tuples_of_their_own() {
        let numbers = (0..200_000).chain(FLOWS_MAX - 1000..FLOWS_MAX);
        let keys: Vec<FlowKey> = numbers.map(|n| world::key(n, false, OPEN_PORT)).collect();
        let distinct: HashSet<&FlowKey> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
        assert!(keys.iter().all(|key| key.source != key.destination));
        assert!((0..1000).all(|number| world::ends(number).0 < world::PODS));
    }

    #[test]
    fn packets_that_fare_otherwise_are_an_error() {
        let policy = Arc::new(world::policy_table(5));
        let mut world = World::new(64, &policy, false, 60).unwrap();
        let frame = world.frame(0, SHUT_PORT, Segment::Syn, false).unwrap();
        let error = world.send("x", &[frame], true).unwrap_err();
        assert!(
            matches!(error, BenchError::Outcome { count: 1, .. }),
            "{error}"
        );
    }
}
