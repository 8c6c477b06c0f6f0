//! The dataplane's steps and the whole pipeline in memory, by criterion: `cargo bench -p weir-bench`,
//! with criterion's arguments behind `--`. Worlds, packets and timed loops are those of
//! `weir bench micro`, which measures peers beside them.
//!
//! Where nothing else is said, an iteration is one packet (one look-up, one flow). Of batches and
//! bursts an iteration is a whole one; criterion's throughput is in packets everywhere.

use std::sync::Arc;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput};
use dataplane::conntrack::BATCH;
use dataplane::pipeline::BURST_MAX;
use weir_bench::error::BenchError;
use weir_bench::micro::packets::Segment;
use weir_bench::micro::workload::{self, NewFlows, Parser, Workload};
use weir_bench::micro::world::{self, Frames, World};
use weir_bench::micro::{FRAME_BYTES, POLICIES};

/// Established connections in the table.
const FLOWS: [u32; 2] = [1_000, 100_000];
/// New connections that a node takes before an empty one goes on in its place.
const NEW_FLOWS: u32 = 1 << 16;
/// Packets and keys in random order before they come again.
const PACKETS: u32 = 1 << 16;
/// Packets of the bursts: many, and one.
const BURSTS: [usize; 2] = [32, 1];

type Group<'c> = BenchmarkGroup<'c, WallTime>;

fn main() -> Result<(), BenchError> {
    // Four seconds each: there are some thirty.
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .nresamples(20_000)
        .without_plots()
        .configure_from_args();
    let policy = Arc::new(world::policy_table(POLICIES));
    let [ipv4, ipv6] = [false, true].map(|ipv6| Workload {
        policy: Arc::clone(&policy),
        ipv6,
        frame_bytes: FRAME_BYTES.into(),
    });
    for (family, workload) in [("IPv4", &ipv4), ("IPv6", &ipv6)] {
        parse(&mut criterion, family, workload)?;
        decide(&mut criterion, family, workload);
    }
    conntrack(&mut criterion, &ipv4)?;
    pipeline(&mut criterion, &ipv4)?;
    criterion.final_summary();
    Ok(())
}

/// What failed is no measurement, and criterion's closures cannot say so otherwise.
fn sound<T>(result: Result<T, BenchError>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

fn parse(criterion: &mut Criterion, family: &str, workload: &Workload) -> Result<(), BenchError> {
    let mut group = criterion.benchmark_group(format!("parse, {FRAME_BYTES} octets"));
    group.throughput(Throughput::Elements(1));
    for parser in [Parser::Whole, Parser::Short] {
        let frames = workload.segments(parser)?;
        let mut frames = frames.iter().cycle();
        group.bench_function(BenchmarkId::new(parser.to_string(), family), |bencher| {
            bencher.iter_custom(|packets| parser.time(frames.by_ref().take(packets as usize)));
        });
    }
    group.finish();
    Ok(())
}

fn decide(criterion: &mut Criterion, family: &str, workload: &Workload) {
    let mut group = criterion.benchmark_group("policy");
    group.throughput(Throughput::Elements(1));
    let questions = workload.questions();
    let mut questions = questions.iter().cycle();
    let id = format!("classify + decide, both ends, {POLICIES} policies");
    group.bench_function(BenchmarkId::new(id, family), |bencher| {
        bencher.iter_custom(|flows| {
            let flows = questions.by_ref().take(flows as usize);
            workload::time_decisions(&workload.policy, flows)
        });
    });
    group.finish();
}

fn conntrack(criterion: &mut Criterion, workload: &Workload) -> Result<(), BenchError> {
    let mut group = criterion.benchmark_group("conntrack");
    for flows in FLOWS {
        let world = workload.populated(flows)?;
        for (name, present) in [("look-up, hit", true), ("look-up, miss", false)] {
            let keys = workload.keys(flows, PACKETS, present);
            let mut keys = keys.iter().cycle();
            group.throughput(Throughput::Elements(1));
            group.bench_function(BenchmarkId::new(name, flows), |bencher| {
                bencher.iter_custom(|lookups| {
                    let keys = keys.by_ref().take(lookups as usize);
                    let (found, elapsed) = workload::time_lookups(&world, keys);
                    let expected = if present { lookups } else { 0 };
                    sound(workload::found_all(name, found, expected));
                    elapsed
                });
            });
        }
        batches(&mut group, workload, &world, flows);
        entries(&mut group, workload, &world, flows);
    }
    group.finish();
    Ok(())
}

fn batches(group: &mut Group<'_>, workload: &Workload, world: &World, flows: u32) {
    let name = format!("look-up, hit, batch of {BATCH}");
    let keys = workload.keys(flows, PACKETS, true);
    let mut batches = keys.chunks(BATCH).cycle();
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function(BenchmarkId::new(&name, flows), |bencher| {
        bencher.iter_custom(|count| {
            let batches = batches.by_ref().take(count as usize);
            let (found, elapsed) = workload::time_batches(world, batches);
            sound(workload::found_all(&name, found, count * BATCH as u64));
            elapsed
        });
    });
}

/// Entries made for new connections beside the established ones, and removed as the control thread
/// does it, some at a time, so that the table stays as full as it is.
fn entries(group: &mut Group<'_>, workload: &Workload, world: &World, flows: u32) {
    let keys: Vec<_> = (0..PACKETS)
        .map(|number| workload.key(number, false))
        .collect();
    let mut places = (0..keys.len()).step_by(BURST_MAX).cycle();
    group.throughput(Throughput::Elements(1));
    for (part, name) in ["insert", "remove"].into_iter().enumerate() {
        group.bench_function(BenchmarkId::new(name, flows), |bencher| {
            bencher.iter_custom(|count| {
                let mut elapsed = Duration::ZERO;
                let mut left = count as usize;
                while left > 0 {
                    let first = places.next().unwrap_or_default();
                    let some = left.min(BURST_MAX);
                    let both = workload::time_entries(world, &keys[first..first + some]);
                    elapsed += sound(both)[part];
                    left -= some;
                }
                elapsed
            });
        });
    }
}

fn pipeline(criterion: &mut Criterion, workload: &Workload) -> Result<(), BenchError> {
    let mut group = criterion.benchmark_group("pipeline");
    for flows in FLOWS {
        let mut world = workload.populated(flows)?;
        let frames = workload::established_frames(&world, flows, PACKETS, |_| true)?;
        for burst in BURSTS {
            world.take_bursts_of(burst);
            established(&mut group, &mut world, &frames, flows, burst);
        }
    }
    for (first_packet, accepted) in [
        (Segment::Syn, true),
        (Segment::Syn, false),
        (Segment::Datagram, true),
        (Segment::Datagram, false),
    ] {
        for burst in BURSTS {
            let begin = || -> Result<NewFlows, BenchError> {
                let mut flows = workload.new_flows(NEW_FLOWS, first_packet, accepted)?;
                flows.world.take_bursts_of(burst);
                Ok(flows)
            };
            new_flows(&mut group, begin, burst)?;
        }
    }
    group.finish();
    Ok(())
}

/// Calls `send` with numbers of packets that make up so many bursts: as many as there are windows.
fn in_turns(bursts: u64, burst: usize, mut send: impl FnMut(usize) -> Duration) -> Duration {
    let mut left = bursts as usize * burst;
    let mut elapsed = Duration::ZERO;
    while left > 0 {
        let packets = left.min(BURST_MAX);
        elapsed += send(packets);
        left -= packets;
    }
    elapsed
}

fn established(
    group: &mut Group<'_>,
    world: &mut World,
    frames: &Frames,
    flows: u32,
    burst: usize,
) {
    let name = format!("established, bursts of {burst}");
    let mut places = (0..frames.count()).step_by(BURST_MAX).cycle();
    group.throughput(Throughput::Elements(burst as u64));
    group.bench_function(BenchmarkId::new(&name, flows), |bencher| {
        bencher.iter_custom(|bursts| {
            in_turns(bursts, burst, |packets| {
                let first = places.next().unwrap_or_default();
                let packets = frames.burst(first).take(packets);
                sound(world.send_burst(&name, packets, true))
            })
        });
    });
}

fn new_flows(
    group: &mut Group<'_>,
    begin: impl Fn() -> Result<NewFlows, BenchError>,
    burst: usize,
) -> Result<(), BenchError> {
    let mut flows = begin()?;
    let id = format!("{}, bursts of {burst}", flows.name);
    group.throughput(Throughput::Elements(burst as u64));
    group.bench_function(id, |bencher| {
        bencher.iter_custom(|bursts| {
            in_turns(bursts, burst, |packets| {
                if (flows.left() as usize) < packets {
                    sound(flows.have_entries());
                    flows = sound(begin());
                }
                sound(flows.begin(packets as u32))
            })
        });
    });
    sound(flows.have_entries());
    Ok(())
}
