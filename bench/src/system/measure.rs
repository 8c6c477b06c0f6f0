//! The measurements, each over all forwarders in turns.

use std::collections::BTreeMap;
use std::time::Duration;

use super::cpu::Cpu;
use super::forwarder::Forwarder;
use super::idle;
use super::interrupt::Interrupt;
use super::jitter::{self, Jitter};
use super::results::{Added, LatencyRow, PacketRow, Percentiles, Results, TcpRow, WakeRow};
use super::search::throughput;
use super::setup;
use super::tcp::{self, Placement};
use super::traffic::{Flows, Outcome, Traffic, Trial, histogram, pinned};
use super::wake::Wakes;
use super::{Plan, topology::Topology, weir};
use crate::error::BenchError;
use crate::statistics::Summary;

/// New flows of one trial: the kernel keeps 262,144 connections unless told otherwise, and those
/// of three rounds must fit.
const NEW_FLOWS: u64 = 60_000;
/// Where their numbers begin, beyond those of established ones, so that no port is used twice.
const NEW_FLOWS_FROM: u32 = 120_000;
/// Shares of the slowest forwarder's throughput at which latencies are measured.
const LOADS: [f64; 3] = [0.1, 0.5, 0.8];
/// And the share of each one's own.
const OWN_LOAD: f64 = 0.8;
/// How long the machine is looked at without a measurement.
const REST_MAX: Duration = Duration::from_secs(2);
/// A search begins this far above what was forwarded in overload.
const CEILING: f64 = 1.1;

/// Several runs of one forwarder's packets.
#[derive(Debug, Default)]
struct Packets {
    throughput: Vec<f64>,
    offered: Vec<f64>,
    forwarded: Vec<f64>,
    cpu: Vec<f64>,
    machine: Vec<f64>,
    reordered: u64,
    new_flows: Vec<f64>,
}

/// A run under way.
pub struct Measurement {
    plan: Plan,
    interrupt: Interrupt,
    results: Results,
}

type Forwarders = [Box<dyn Forwarder>];

/// What Weir's row is called; others are compared with it.
const RAW: &str = "AF_XDP forwarding, no policy";

fn summary(values: &[f64]) -> Result<Summary, BenchError> {
    Summary::of(values).ok_or_else(|| setup("nothing was measured"))
}

impl Measurement {
    /// Looks at the machine at rest first.
    pub fn begin(plan: Plan, interrupt: &Interrupt) -> Result<Measurement, BenchError> {
        let before = Cpu::now(&[]);
        let rest = plan.long().min(REST_MAX);
        std::thread::sleep(rest);
        let cpu = Cpu::now(&[]).since(before);
        let jitter = floor(&plan, interrupt)?;
        Ok(Measurement {
            plan,
            interrupt: interrupt.clone(),
            results: Results {
                jitter_after: jitter,
                jitter,
                idle_interrupts: cpu.interrupts_s / rest.as_secs_f64(),
                busy_before: cpu.machine_s / rest.as_secs_f64(),
                packets: Vec::new(),
                ratios: BTreeMap::new(),
                latencies: Vec::new(),
                tcp: Vec::new(),
                wakes: Vec::new(),
                added: None,
                idle: None,
            },
        })
    }

    /// What was measured.
    pub fn end(mut self) -> Result<Results, BenchError> {
        self.results.jitter_after = floor(&self.plan, &self.interrupt)?;
        Ok(self.results)
    }

    /// Every forwarder once a round; the next round goes the other way round.
    fn rounds(
        &self,
        forwarders: &mut Forwarders,
        rounds: u16,
        mut visit: impl FnMut(&Measurement, usize, &dyn Forwarder) -> Result<(), BenchError>,
    ) -> Result<(), BenchError> {
        for round in 0..rounds {
            let count = forwarders.len();
            for turn in 0..count {
                let at = if round % 2 == 0 {
                    turn
                } else {
                    count - 1 - turn
                };
                let forwarder = &mut forwarders[at];
                self.interrupt.check()?;
                forwarder.enter()?;
                let visited = visit(self, at, &**forwarder);
                let name = forwarder.name().to_owned();
                forwarder.leave();
                visited.map_err(|error| match error {
                    BenchError::Setup(text) => BenchError::Setup(format!("{name}: {text}")),
                    error => error,
                })?;
            }
        }
        Ok(())
    }

    /// Throughput, overload, new flows.
    pub fn packets(&mut self, forwarders: &mut Forwarders) -> Result<(), BenchError> {
        let mut all: Vec<Packets> = forwarders.iter().map(|_| Packets::default()).collect();
        let from = std::cell::Cell::new(NEW_FLOWS_FROM);
        self.rounds(forwarders, self.plan.rounds, |this, at, forwarder| {
            let first = from.get();
            from.set(first + NEW_FLOWS as u32);
            let topology = forwarder.topology();
            let processes = forwarder.processes();
            let new = forwarder.tracks_connections().then_some(first);
            let packets = &mut all[at];
            this.on_generator(topology, |traffic| {
                this.packets_of(traffic, &processes, new, packets)
            })
        })?;
        let weir = forwarders.iter().position(|one| one.name() == weir::NAME);
        for (forwarder, packets) in forwarders.iter().zip(&all) {
            if let Some(weir) = weir {
                let ours = all[weir].throughput.iter();
                let ratios: Vec<f64> = ours.zip(&packets.throughput).map(|(a, b)| a / b).collect();
                let name = forwarder.name().to_owned();
                self.results.ratios.insert(name, summary(&ratios)?);
            }
            self.results.packets.push(PacketRow {
                name: forwarder.name().to_owned(),
                mode: forwarder.mode().to_owned(),
                throughput: summary(&packets.throughput)?,
                offered: summary(&packets.offered)?,
                forwarded: summary(&packets.forwarded)?,
                cpu_s_per_million: summary(&packets.cpu)?,
                machine_s_per_million: summary(&packets.machine)?,
                reordered: packets.reordered,
                new_flows: Summary::of(&packets.new_flows),
            });
        }
        Ok(())
    }

    fn on_generator(
        &self,
        topology: &Topology,
        work: impl FnOnce(&mut Traffic) -> Result<(), BenchError> + Send,
    ) -> Result<(), BenchError> {
        pinned(self.plan.generator.into(), || {
            let mut traffic = Traffic::open(topology, &self.interrupt)?;
            traffic.prime(self.plan.flows)?;
            work(&mut traffic)
        })
    }

    fn trial(&self, rate: Option<f64>) -> Trial {
        Trial {
            rate,
            duration: self.plan.trial,
            packets: u64::MAX,
            flows: Flows::Established(self.plan.flows),
            late: false,
        }
    }

    fn packets_of(
        &self,
        traffic: &mut Traffic,
        processes: &[u32],
        new: Option<u32>,
        packets: &mut Packets,
    ) -> Result<(), BenchError> {
        // The fill rings find their depth, the caches what they need.
        traffic.run(&self.trial(None))?;
        let before = Cpu::now(processes);
        let overload = traffic.run(&self.trial(None))?;
        let cpu = Cpu::now(processes).since(before);
        let millions = overload.received as f64 / 1e6;
        let used = cpu.used(self.results.idle_interrupts, overload.whole_s);
        packets.cpu.push(used / millions);
        packets.machine.push(cpu.machine_s / millions);
        packets.offered.push(overload.offered());
        packets.forwarded.push(overload.forwarded());
        packets.reordered += overload.reordered;
        let ceiling = overload.forwarded() * CEILING;
        let found = throughput(ceiling, self.plan.halvings.into(), |rate| {
            Ok::<_, BenchError>(self.sustains(&traffic.run(&self.trial(Some(rate)))?, rate))
        })?;
        packets.throughput.push(found);
        if let Some(first) = new {
            let outcome = traffic.run(&Trial {
                packets: NEW_FLOWS,
                flows: Flows::New(first),
                ..self.trial(None)
            })?;
            packets.new_flows.push(outcome.forwarded());
        }
        Ok(())
    }

    fn sustains(&self, outcome: &Outcome, rate: f64) -> bool {
        let all_sent = outcome.offered() >= rate * 0.99;
        all_sent && outcome.loss() <= self.plan.loss
    }

    /// Latencies, at the same loads for all and at each one's own.
    pub fn latencies(&mut self, forwarders: &mut Forwarders) -> Result<(), BenchError> {
        let rates: Vec<f64> = forwarders
            .iter()
            .map(|forwarder| {
                let rows = self.results.packets.iter();
                let mut own = rows.filter(|row| row.name == forwarder.name());
                own.next().map_or(0.0, |row| row.throughput.median)
            })
            .collect();
        // One that sustained no rate at all has no latencies, and is no measure for the others.
        let some = rates.iter().copied().filter(|rate| *rate > 0.0);
        let slowest = some.fold(f64::INFINITY, f64::min);
        let loads = |at: usize| {
            let own = ("own".to_owned(), OWN_LOAD * rates[at]);
            let shared = LOADS.map(|share| ("slowest".to_owned(), share * slowest));
            shared.into_iter().chain([own]).collect::<Vec<_>>()
        };
        let mut all = Vec::new();
        for (at, forwarder) in forwarders.iter().enumerate() {
            for (share, (whose, rate)) in LOADS.into_iter().chain([OWN_LOAD]).zip(loads(at)) {
                let load = format!("{:.0} % of the {whose}", share * 100.0);
                let load = load.replace("the own", "its own");
                all.push((forwarder.name().to_owned(), load, rate, histogram()?, 0, 0));
            }
        }
        let each = LOADS.len() + 1;
        self.rounds(forwarders, self.plan.rounds, |this, at, forwarder| {
            let rows = &mut all[at * each..(at + 1) * each];
            this.on_generator(forwarder.topology(), |traffic| {
                traffic.run(&this.trial(None))?;
                for (_, _, rate, times, sent, received) in rows {
                    if !rate.is_finite() || *rate <= 0.0 {
                        continue;
                    }
                    let outcome = traffic.run(&Trial {
                        duration: this.plan.long(),
                        late: true,
                        ..this.trial(Some(*rate))
                    })?;
                    times.add(&outcome.latency).map_err(setup)?;
                    *sent += outcome.sent;
                    *received += outcome.received;
                }
                Ok(())
            })
        })?;
        for (name, load, rate, times, sent, received) in all {
            if received == 0 {
                continue;
            }
            self.results.latencies.push(LatencyRow {
                name,
                load,
                rate,
                packets: received,
                loss: 1.0 - received as f64 / sent.max(1) as f64,
                percentiles: Percentiles::of(&times),
            });
        }
        Ok(())
    }

    /// The worker's time per packet in overload, Weir's less that of AF_XDP forwarding.
    pub fn pairs(&mut self, forwarders: &mut Forwarders) -> Result<(), BenchError> {
        let place = |name: &str| forwarders.iter().position(|one| one.name() == name);
        let (Some(weir), Some(raw)) = (place(weir::NAME), place(RAW)) else {
            return Ok(());
        };
        let (mut added, mut raw_loss) = (Vec::new(), 1.0_f64);
        let topologies = [weir, raw].map(|at| forwarders[at].topology());
        pinned(self.plan.generator.into(), || {
            let mut ends = Vec::new();
            for topology in topologies {
                let mut traffic = Traffic::open(topology, &self.interrupt)?;
                traffic.prime(self.plan.flows)?;
                traffic.run(&self.trial(None))?;
                ends.push(traffic);
            }
            for pair in 0..usize::from(self.plan.pairs) {
                let mut nanoseconds = [0.0; 2];
                for turn in [pair % 2, 1 - pair % 2] {
                    let outcome = ends[turn].run(&self.trial(None))?;
                    nanoseconds[turn] = 1e9 / outcome.forwarded().max(1.0);
                    if turn == 1 {
                        raw_loss = raw_loss.min(outcome.loss());
                    }
                }
                added.push(nanoseconds[0] - nanoseconds[1]);
            }
            Ok(())
        })?;
        let gigahertz = gigahertz();
        let unit = gigahertz.unwrap_or(1.0);
        let cycles: Vec<f64> = added.iter().map(|nanoseconds| nanoseconds * unit).collect();
        let mut sorted = cycles.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share).round() as usize];
        self.results.added = Some(Added {
            pairs: added.len(),
            nanoseconds: summary(&added)?,
            cycles: gigahertz.map(|_| summary(&cycles)).transpose()?,
            middle_half: [at(0.25), at(0.75)],
            raw_loss,
        });
        Ok(())
    }

    /// TCP in four placements of client and server beside the worker's core.
    pub fn tcp(&mut self, forwarders: &mut Forwarders) -> Result<(), BenchError> {
        let [away, beside] = [self.plan.generator, self.plan.worker].map(usize::from);
        let placements = [
            (away, away),
            (away, beside),
            (beside, away),
            (beside, beside),
        ]
        .map(|(client, server)| Placement { client, server });
        let mut all: BTreeMap<(usize, usize), [Vec<f64>; 4]> = BTreeMap::new();
        self.rounds(forwarders, self.plan.rounds, |this, at, forwarder| {
            if !forwarder.passes_tcp() {
                return Ok(());
            }
            let (topology, interrupt) = (forwarder.topology(), &this.interrupt);
            let duration = this.plan.long();
            for (number, placement) in placements.into_iter().enumerate() {
                let row = all.entry((at, number)).or_default();
                let times = tcp::requests(topology, placement, duration, interrupt)?;
                let Percentiles { p50, p99, .. } = Percentiles::of(&times);
                let stream = tcp::stream(topology, placement, duration, interrupt)?;
                let connections = tcp::connections(topology, placement, duration, interrupt)?;
                for (values, value) in row.iter_mut().zip([stream, p50, p99, connections]) {
                    values.push(value);
                }
            }
            Ok(())
        })?;
        for ((at, number), [stream, p50, p99, connections]) in all {
            self.results.tcp.push(TcpRow {
                name: forwarders[at].name().to_owned(),
                placement: placements[number],
                stream_gbps: summary(&stream)?,
                request_p50_us: summary(&p50)?,
                request_p99_us: summary(&p99)?,
                connections: summary(&connections)?,
            });
        }
        Ok(())
    }

    /// Single packets, each so long after the one before: whether the forwarder is awake for them.
    pub fn wakes(&mut self, forwarders: &mut Forwarders) -> Result<(), BenchError> {
        let mut all = Vec::new();
        for _ in forwarders.iter() {
            all.push(Wakes::none()?);
        }
        self.rounds(forwarders, self.plan.rounds, |this, at, forwarder| {
            let processes = forwarder.processes();
            let (flows, duration) = (this.plan.flows, this.plan.long());
            this.on_generator(forwarder.topology(), |traffic| {
                for wakes in &mut all[at] {
                    wakes.add(traffic, &processes, flows, duration)?;
                }
                Ok(())
            })
        })?;
        for (forwarder, rows) in forwarders.iter().zip(all) {
            let rows = rows.into_iter().filter(|wakes| wakes.received > 0);
            self.results.wakes.extend(rows.map(|wakes| WakeRow {
                name: forwarder.name().to_owned(),
                gap_us: wakes.gap.as_micros() as u64,
                packets: wakes.received,
                loss: 1.0 - wakes.received as f64 / wakes.sent.max(1) as f64,
                percentiles: Percentiles::of(&wakes.latency),
                core_percent: Summary::of(&wakes.core_percent),
            }));
        }
        Ok(())
    }

    /// A node with many pods at rest, workers on both cores.
    pub fn idle(&mut self, number: u32) -> Result<(), BenchError> {
        let Plan {
            idle_pods,
            idle,
            generator,
            worker,
            ..
        } = self.plan;
        let measured = idle::measure(
            number,
            idle_pods.into(),
            &[generator, worker],
            idle,
            &self.interrupt,
        )?;
        self.results.idle = Some(measured);
        Ok(())
    }
}

fn floor(plan: &Plan, interrupt: &Interrupt) -> Result<[Jitter; 2], BenchError> {
    let on = |core: u16| jitter::measure(core.into(), plan.long().min(REST_MAX), interrupt);
    Ok([on(plan.generator)?, on(plan.worker)?])
}

/// The clock that the kernel names.
fn gigahertz() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("cpu MHz"))?;
    let megahertz: f64 = line.split_once(':')?.1.trim().parse().ok()?;
    Some(megahertz / 1000.0)
}
