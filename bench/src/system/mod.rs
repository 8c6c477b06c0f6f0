//! From pod to pod with real packets: Weir and its peers on the same topology, in the same run,
//! in turns.

mod cpu;
mod dpdk;
mod folder;
mod forwarder;
mod frame;
mod idle;
mod interrupt;
mod jitter;
mod kernel;
mod measure;
mod plot;
mod priority;
mod raw;
mod redirect;
mod report;
mod results;
mod search;
mod tcp;
mod topology;
mod traffic;
mod wake;
mod weir;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::error::BenchError;
use crate::output::Report;
use dpdk::Dpdk;
use forwarder::Forwarder;
pub use interrupt::Interrupt;
use kernel::{Filter, Kernel, Spread};
use measure::Measurement;
use priority::Priority;
use raw::Raw;
use redirect::Redirect;
pub use topology::{GATEWAY, PREFIX, pins, sweep};
pub use weir::spawn;
use weir::{Link, Weir};

fn setup(error: impl std::fmt::Display) -> BenchError {
    BenchError::Setup(error.to_string())
}

/// What to measure.
#[derive(Debug, Args)]
pub struct Arguments {
    /// What to measure, of each forwarder that can do it.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Part::ALL)]
    pub measure: Vec<Part>,
    /// Only forwarders whose name contains one of these words: weir, kernel nftables, kernel
    /// nftables rps, kernel nftables threaded, kernel iptables, raw af_xdp, xdp redirect, dpdk
    /// af_xdp, dpdk af_packet.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// A short look: fewer rounds, shorter trials, ten pods at rest.
    #[arg(long)]
    pub quick: bool,
    /// Rounds over all forwarders, each the other way round [default: 3, quick: 1].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub rounds: Option<u16>,
    /// How long one rate is tried; latencies and TCP take three times as long
    /// [default: 300, quick: 60].
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u16).range(10..=60_000))]
    pub trial: Option<u16>,
    /// How often the range of rates is halved [default: 7, quick: 4].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=20))]
    pub halvings: Option<u16>,
    /// Pairs of trials that tell what policy and conntrack add to AF_XDP forwarding
    /// [default: 12, quick: 2].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub pairs: Option<u16>,
    /// Pods of the node at rest [default: 250, quick: 10].
    #[arg(long, value_parser = clap::value_parser!(u16).range(2..=1000))]
    pub idle_pods: Option<u16>,
    /// Flows of the packets.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub flows: u32,
    /// The share of packets that may be lost of what still counts as none.
    #[arg(long, default_value_t = 0.001)]
    pub loss: f64,
    /// The core of the generator and the sink.
    #[arg(long, default_value_t = 0)]
    pub generator: u16,
    /// The core of the forwarder, where it has one of its own.
    #[arg(long, default_value_t = 1)]
    pub worker: u16,
    /// Addresses that the policy lets in beside the client's.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub peers: u32,
    /// How Weir's pods are connected, a row for each: `usual`, as the lab does, or their MTU and
    /// what is set beside it, as in 9000+gro+threaded+noqueue.
    #[arg(long, value_delimiter = ',', default_value = "usual")]
    pub links: Vec<Link>,
    /// The priority at which all of it runs, and its session meanwhile, as `nice` counts. On a
    /// quiet machine leave it: the kernel's own network threads keep theirs and fall behind.
    #[arg(long, allow_negative_numbers = true,
          value_parser = clap::value_parser!(i32).range(-20..=19))]
    pub nice: Option<i32>,
    /// A folder to write plots (SVG) into.
    #[arg(long)]
    pub plots: Option<PathBuf>,
}

/// A part of the measurement.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Part {
    /// Throughput without loss, overload, new flows, CPU time.
    Packets,
    /// Latencies at fixed loads.
    Latency,
    /// What policy and conntrack add, in interleaved pairs.
    Pairs,
    /// A stream, requests and responses, connections.
    Tcp,
    /// Latencies of single packets, each so long after the one before.
    Wake,
    /// A node with many pods at rest.
    Idle,
}

impl Part {
    const ALL: [Part; 6] = [
        Part::Packets,
        Part::Latency,
        Part::Pairs,
        Part::Tcp,
        Part::Wake,
        Part::Idle,
    ];
}

/// Sizes and times of a run.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    rounds: u16,
    trial: Duration,
    halvings: u16,
    pairs: u16,
    idle_pods: u16,
    idle: Duration,
    flows: u32,
    loss: f64,
    generator: u16,
    worker: u16,
}

impl Plan {
    fn of(arguments: &Arguments) -> Plan {
        let quick = arguments.quick;
        let or =
            |given: Option<u16>, usual, short| given.unwrap_or(if quick { short } else { usual });
        Plan {
            rounds: or(arguments.rounds, 3, 1),
            trial: Duration::from_millis(or(arguments.trial, 300, 60).into()),
            halvings: or(arguments.halvings, 7, 4),
            pairs: or(arguments.pairs, 12, 2),
            idle_pods: or(arguments.idle_pods, 250, 10),
            idle: Duration::from_secs(if quick { 1 } else { 10 }),
            flows: arguments.flows,
            loss: arguments.loss,
            generator: arguments.generator,
            worker: arguments.worker,
        }
    }

    /// What takes longer than one trial of a rate.
    fn long(&self) -> Duration {
        self.trial * 3
    }
}

/// Measures.
pub fn run(arguments: &Arguments) -> Result<Report, BenchError> {
    if !(0.0..1.0).contains(&arguments.loss) {
        return Err(setup("--loss is a share below 1"));
    }
    if !rustix::process::geteuid().is_root() {
        return Err(setup("network namespaces need root"));
    }
    let interrupt = Interrupt::watch()?;
    topology::sweep();
    let plan = Plan::of(arguments);
    let mut notes = Vec::new();
    // Children inherit it. Without the right to it the run is as good as its neighbours let it be.
    let priority = arguments.nice.map(Priority::set).transpose();
    let _priority = priority.map_err(|error| notes.push(format!("Priority: {error}.")));
    let mut measurement = Measurement::begin(plan, &interrupt)?;
    let mut forwarders = forwarders(arguments, &interrupt, &mut notes)?;
    let wants = |part| arguments.measure.contains(&part);
    if wants(Part::Packets) || wants(Part::Latency) {
        measurement.packets(&mut forwarders)?;
    }
    if wants(Part::Latency) {
        measurement.latencies(&mut forwarders)?;
    }
    if wants(Part::Pairs) {
        measurement.pairs(&mut forwarders)?;
    }
    if wants(Part::Tcp) {
        measurement.tcp(&mut forwarders)?;
    }
    if wants(Part::Wake) {
        measurement.wakes(&mut forwarders)?;
    }
    drop(forwarders);
    if wants(Part::Idle) {
        measurement.idle(NUMBER_IDLE)?;
    }
    let results = measurement.end()?;
    if let Some(folder) = &arguments.plots {
        report::plots(&results, folder)?;
    }
    Ok(report::report(arguments, &plan, &results, notes))
}

/// The number of the topology of the node at rest.
const NUMBER_IDLE: u32 = 99;

/// All that work here and were asked for; why the others do not is noted.
fn forwarders(
    arguments: &Arguments,
    interrupt: &Interrupt,
    notes: &mut Vec<String>,
) -> Result<Vec<Box<dyn Forwarder>>, BenchError> {
    type Start = Box<dyn Fn(u32) -> Result<Box<dyn Forwarder>, BenchError>>;
    fn boxed<F: Forwarder + 'static>(
        started: Result<F, BenchError>,
    ) -> Result<Box<dyn Forwarder>, BenchError> {
        started.map(|forwarder| Box::new(forwarder) as Box<dyn Forwarder>)
    }
    let (core, main, peers) = (arguments.worker, arguments.generator, arguments.peers);
    let kernel = |filter, spread| -> Start {
        Box::new(move |number| boxed(Kernel::start(number, filter, spread, core, peers)))
    };
    let dpdk = |driver| -> Start {
        Box::new(move |number| boxed(Dpdk::prepare(number, driver, core, main)))
    };
    let weir = |link: Link| -> (&str, Start) {
        let start = move |number| boxed(Weir::start(number, 2, &[core], peers, link));
        ("weir", Box::new(start))
    };
    let mut all: Vec<(&str, Start)> = arguments.links.iter().copied().map(weir).collect();
    all.extend([
        ("kernel nftables", kernel(Filter::Nftables, Spread::Inline)),
        (
            "kernel nftables rps",
            kernel(Filter::Nftables, Spread::Steering),
        ),
        (
            "kernel nftables threaded",
            kernel(Filter::Nftables, Spread::Threaded),
        ),
        ("kernel iptables", kernel(Filter::Iptables, Spread::Inline)),
        (
            "raw af_xdp",
            Box::new(move |number| boxed(Raw::start(number, core))),
        ),
        (
            "xdp redirect",
            Box::new(move |number| boxed(Redirect::start(number))),
        ),
        ("dpdk af_xdp", dpdk("net_af_xdp")),
        ("dpdk af_packet", dpdk("net_af_packet")),
    ]);
    let only: Vec<String> = arguments
        .only
        .iter()
        .map(|word| word.to_lowercase())
        .collect();
    let mut forwarders = Vec::new();
    for (number, (name, start)) in (1..).zip(all) {
        interrupt.check()?;
        if !only.is_empty() && !only.iter().any(|word| name.contains(word.as_str())) {
            continue;
        }
        match start(number) {
            Ok(forwarder) => forwarders.push(forwarder),
            Err(error) => notes.push(format!("Left out, {name}: {error}.")),
        }
    }
    if forwarders.is_empty() {
        return Err(setup(format!("nothing to measure. {}", notes.join(" "))));
    }
    Ok(forwarders)
}
