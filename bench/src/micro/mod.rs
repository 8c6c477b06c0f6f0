//! The dataplane's steps, each alone and all together, in memory: no sockets, no kernel, one
//! thread; look-ups of connections beside DPDK's `rte_hash`; and what a second thread adds.

pub mod packets;
mod peer;
mod rte_hash;
mod scaling;
pub mod workload;
pub mod world;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use dataplane::FlowKey;
use dataplane::checksum::Sum;
use dataplane::conntrack::{BATCH, Ends};
use dataplane::pipeline::BURST_MAX;
use serde::Serialize;
use serde_json::json;

use crate::error::BenchError;
use crate::machine;
use crate::output::{self, Report};
use crate::statistics::Summary;
use packets::Segment;
use workload::{Parser, Workload, established_frames, found_all};
use world::World;

/// Connections a world can tell apart.
const FLOWS_MAX: u32 = 4_000_000;
/// Policies in the cluster, unless something else is asked for.
pub const POLICIES: u32 = 1_000;
/// Octets of a packet, unless something else is asked for.
pub const FRAME_BYTES: u16 = 60;

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
    #[arg(long, default_value_t = POLICIES, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub policies: u32,
    /// Octets of a packet from the Ethernet header on, without frame check sequence.
    #[arg(long, default_value_t = FRAME_BYTES, value_parser = clap::value_parser!(u16).range(60..=1514))]
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

impl Arguments {
    fn workload(&self) -> Workload {
        Workload {
            policy: Arc::new(world::policy_table(self.policies)),
            ipv6: self.ipv6,
            frame_bytes: self.frame_bytes.into(),
        }
    }
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
    let workload = arguments.workload();
    let mut measured = vec![
        parse(arguments, &workload, Parser::Whole)?,
        parse(arguments, &workload, Parser::Short)?,
        checksum(arguments)?,
        decide(arguments, &workload)?,
    ];
    for flows in &arguments.flows {
        measured.extend(established(arguments, &workload, *flows)?);
    }
    for first_packet in [Segment::Syn, Segment::Datagram] {
        measured.push(new_flows(arguments, &workload, first_packet, true)?);
        if arguments.policies > 0 {
            measured.push(new_flows(arguments, &workload, first_packet, false)?);
        }
    }
    let beside = peer::compare(arguments, &workload)?;
    let scaling = scaling::compare(arguments, &workload)?;
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

fn parse(
    arguments: &Arguments,
    workload: &Workload,
    parser: Parser,
) -> Result<Measured, BenchError> {
    let frames = workload.segments(parser)?;
    let name = format!("parse, {parser}, {} octets", arguments.frame_bytes);
    measure(name, arguments.runs, || {
        let every = frames.iter().cycle().take(arguments.packets as usize);
        Ok((arguments.packets.into(), parser.time(every)))
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

/// What a new connection between two local pods asks of policy.
fn decide(arguments: &Arguments, workload: &Workload) -> Result<Measured, BenchError> {
    let questions = workload.questions();
    measure("classify + decide, both ends", arguments.runs, || {
        let every = questions.iter().cycle().take(arguments.packets as usize);
        let elapsed = workload::time_decisions(&workload.policy, every);
        Ok((arguments.packets.into(), elapsed))
    })
}

/// Looking connections up, hit and miss, and the whole pipeline, on a table of `flows`.
fn established(
    arguments: &Arguments,
    workload: &Workload,
    flows: u32,
) -> Result<Vec<Measured>, BenchError> {
    let mut world = workload.populated(flows)?;
    let frames = established_frames(&world, flows, arguments.packets, |_| true)?;
    let mut measured = vec![
        lookup(arguments, workload, &world, flows, true)?,
        lookup(arguments, workload, &world, flows, false)?,
        lookup_batch(arguments, workload, &world, flows)?,
    ];
    let name = format!("forwarding that looks at nothing, {flows} established");
    measured.push(measure(name, arguments.runs, || {
        let mut elapsed = Duration::ZERO;
        for first in (0..frames.count()).step_by(BURST_MAX) {
            elapsed += world.forward_blindly(frames.burst(first))?;
        }
        Ok((frames.count() as u64, elapsed))
    })?);
    let name = format!("whole pipeline, {flows} established");
    measured.push(measure(name.clone(), arguments.runs, || {
        let mut elapsed = Duration::ZERO;
        for first in (0..frames.count()).step_by(BURST_MAX) {
            elapsed += world.send_burst(&name, frames.burst(first), true)?;
        }
        Ok((frames.count() as u64, elapsed))
    })?);
    Ok(measured)
}

/// Keys to look up.
fn keys(
    arguments: &Arguments,
    workload: &Workload,
    flows: u32,
    present: bool,
) -> Vec<(FlowKey, Ends)> {
    workload.keys(flows, arguments.packets.min(1 << 19), present)
}

fn lookup(
    arguments: &Arguments,
    workload: &Workload,
    world: &World,
    flows: u32,
    present: bool,
) -> Result<Measured, BenchError> {
    let packets = keys(arguments, workload, flows, present);
    let kind = if present { "hit" } else { "miss" };
    let name = format!("conntrack lookup, {kind}, {flows} established");
    measure(name.clone(), arguments.runs, || {
        let every = packets.iter().cycle().take(arguments.packets as usize);
        let (found, elapsed) = workload::time_lookups(world, every);
        let expected = if present { arguments.packets.into() } else { 0 };
        found_all(&name, found, expected)?;
        Ok((arguments.packets.into(), elapsed))
    })
}

fn lookup_batch(
    arguments: &Arguments,
    workload: &Workload,
    world: &World,
    flows: u32,
) -> Result<Measured, BenchError> {
    let packets = keys(arguments, workload, flows, true);
    let name = format!("conntrack lookup, hit, in batches, {flows} established");
    measure(name.clone(), arguments.runs, || {
        let (found, elapsed) = workload::time_batches(world, packets.chunks(BATCH));
        found_all(&name, found, packets.len() as u64)?;
        Ok((packets.len() as u64, elapsed))
    })
}

/// Every packet opens a connection that policy accepts or denies, on a table that is empty at
/// first and has room for all.
fn new_flows(
    arguments: &Arguments,
    workload: &Workload,
    first_packet: Segment,
    accepted: bool,
) -> Result<Measured, BenchError> {
    let begin = || workload.new_flows(arguments.new_flows, first_packet, accepted);
    let name = format!("whole pipeline, {}", begin()?.name);
    measure(name, arguments.runs, || {
        let mut flows = begin()?;
        let mut elapsed = Duration::ZERO;
        while flows.left() > 0 {
            elapsed += flows.begin(BURST_MAX as u32)?;
        }
        flows.have_entries()?;
        Ok((arguments.new_flows.into(), elapsed))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::packets::{OPEN_PORT, SHUT_PORT};
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
