//! The price of a new flow beside DPDK's `rte_acl`: the same five-tuple rules, the same packets, one
//! core, in memory, interleaved runs.
//!
//! Both answer for every packet of a trace whether a rule matches it, and they must agree on each.
//! `rte_acl` walks one trie over all five fields; Weir goes to the destination pod's chain, finds
//! the class of the source in it and the rule by protocol and port.

mod dpdk;
mod rules;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use dataplane::policy::ir::{
    Action, Block, Chain, EndpointPolicy, Isolation, Peers, PortRange, Ports, Rule,
};
use dataplane::policy::{BATCH, Decision, EndpointSlot, PolicyTable, Question};
use dataplane::{Address, CounterId, Direction, PolicyId, Tier};
use ipnet::{IpNet, Ipv4Net};
use serde::Serialize;
use serde_json::json;

use self::dpdk::{Classified, Peer};
use self::rules::{FiveTuple, Packet};
use crate::cluster::Numbers;
use crate::error::BenchError;
use crate::output::{self, Report};
use crate::statistics::Summary;

/// Packets of a trace: more than the caches of a core hold together with the tables, as in life.
const PACKETS: usize = 100_000;
/// Times that the whole trace is classified in one run of ours.
const ITERATIONS: u32 = 20;
/// The pods that rules are about.
const PODS: u32 = 250;

/// What is measured: rules, and pods that they are about.
const SETS: [(usize, u32); 7] = [
    (100, PODS),
    (1_000, PODS),
    (10_000, PODS),
    (100_000, PODS),
    (100, 1),
    (10_000, 1),
    (100_000, 1),
];

/// One set of rules.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Measured {
    rules: usize,
    pods: u32,
    matching: usize,
    /// Cycles a packet, flows in batches.
    weir: Summary,
    /// Cycles a packet, one flow after the other.
    weir_single: Summary,
    compile_ms: f64,
    table_bytes: usize,
    /// Cycles a packet; none where the program is not installed.
    dpdk: Option<Summary>,
    /// Of the pairs of runs, ours over the peer's.
    ratio: Option<Summary>,
}

/// Measures every set `runs` times, each run of ours followed by one of the peer's.
pub fn run(runs: usize) -> Result<Report, BenchError> {
    let mut measured = Vec::new();
    for (count, pods) in SETS {
        measured.push(measure(count, pods, runs)?);
    }
    let without_peer = measured.iter().any(|of| of.dpdk.is_none());
    let mut notes = vec![
        format!(
            "Medians of {runs} pairs of runs, cycles of the time-stamp counter, {PACKETS} packets a \
             trace, one core, in memory; no ring and no kernel."
        ),
        "Both answered alike for every packet.".to_owned(),
    ];
    if without_peer {
        notes[1] = "DPDK is not here: install dpdk-dev (Debian) for dpdk-test-acl.".to_owned();
    }
    Ok(Report {
        benchmark: "acl",
        arguments: json!({ "runs": runs }),
        heads: vec![
            "five-tuple rules",
            "pods",
            "weir, cycles",
            "min–max",
            "one by one",
            "rte_acl, cycles",
            "min–max",
            "weir / rte_acl",
            "min–max",
            "compile, ms",
            "table, MiB",
        ],
        rows: measured.iter().map(row).collect(),
        results: output::value(&measured),
        notes,
    })
}

fn row(of: &Measured) -> Vec<String> {
    let range = |summary: &Summary, digits: usize| {
        format!("{:.digits$}–{:.digits$}", summary.min, summary.max)
    };
    let optional = |summary: &Option<Summary>, digits: usize| match summary {
        Some(summary) => [
            format!("{:.digits$}", summary.median),
            range(summary, digits),
        ],
        None => ["-".to_owned(), "-".to_owned()],
    };
    let mut cells = vec![
        of.rules.to_string(),
        of.pods.to_string(),
        format!("{:.0}", of.weir.median),
        range(&of.weir, 0),
        format!("{:.0}", of.weir_single.median),
    ];
    cells.extend(optional(&of.dpdk, 0));
    cells.extend(optional(&of.ratio, 2));
    cells.push(format!("{:.1}", of.compile_ms));
    cells.push(format!("{:.1}", of.table_bytes as f64 / f64::from(1 << 20)));
    cells
}

fn measure(count: usize, pods: u32, runs: usize) -> Result<Measured, BenchError> {
    let mut numbers = Numbers(count as u64 + u64::from(pods));
    let rules = rules::rules(count, pods, &mut numbers);
    let packets = rules::packets(PACKETS, &rules, pods, &mut numbers);
    let policies = policies(&rules, pods);
    let endpoints: Vec<_> = (0..).map(EndpointSlot).zip(&policies).collect();
    let start = Instant::now();
    let table = PolicyTable::compile(&endpoints);
    let compile_ms = start.elapsed().as_secs_f64() * 1e3;

    let questions: Vec<Question> = packets.iter().map(question).collect();
    let accepts = |question| decide(&table, question).verdict.accept;
    let answers: Vec<bool> = questions.iter().map(accepts).collect();
    let peer = Peer::new(&rules, &packets)?;
    if let Some(peer) = &peer {
        agree(&answers, &peer.matches()?)?;
    }
    let (mut batched, mut single, mut theirs, mut ratios) = (vec![], vec![], vec![], vec![]);
    let mut cycles_per_ns = crate::machine::cycles_per_ns();
    for _ in 0..runs {
        let (one, many) = (
            time_single(&table, &questions),
            time_batched(&table, &questions),
        );
        let theirs_now = peer.as_ref().map(Peer::run).transpose()?;
        if let Some(Classified {
            cycles,
            cycles_per_second,
        }) = theirs_now
        {
            cycles_per_ns = cycles_per_second / 1e9;
            theirs.push(cycles);
            ratios.push(many * cycles_per_ns / cycles);
        }
        single.push(one * cycles_per_ns);
        batched.push(many * cycles_per_ns);
    }
    let none = || BenchError::Setup("no run was asked for".to_owned());
    Ok(Measured {
        rules: count,
        pods,
        matching: answers.iter().filter(|&&accepted| accepted).count(),
        weir: Summary::of(&batched).ok_or_else(none)?,
        weir_single: Summary::of(&single).ok_or_else(none)?,
        compile_ms,
        table_bytes: table.footprint().bytes,
        dpdk: Summary::of(&theirs),
        ratio: Summary::of(&ratios),
    })
}

/// The rules as ingress policies of their pods.
fn policies(rules: &[FiveTuple], pods: u32) -> Vec<EndpointPolicy> {
    let mut policies = vec![EndpointPolicy::default(); pods as usize];
    for policy in &mut policies {
        policy.ingress.isolating = vec![Isolation {
            policy: PolicyId(0),
            counter: CounterId::NONE,
        }];
    }
    for (index, rule) in rules.iter().enumerate() {
        let chain: &mut Chain = &mut policies[rule.pod as usize].ingress;
        chain.rules.push(Arc::new(Rule {
            policy: PolicyId((index >> 16) as u32),
            index: index as u16,
            tier: Tier::NetworkPolicy,
            action: Action::Accept,
            peers: Peers::blocks([block(rule)]),
            ports: Ports::List(Arc::from([PortRange {
                protocol: rule.protocol,
                first: rule.first,
                last: rule.last,
            }])),
            counter: CounterId::NONE,
        }));
    }
    policies
}

fn block(rule: &FiveTuple) -> Block {
    let net = Ipv4Net::new(rule.source.into(), rule.length);
    Block {
        prefix: IpNet::V4(net.unwrap_or_default()),
        except: Vec::new(),
    }
}

/// Fails unless both answered alike.
fn agree(ours: &[bool], theirs: &[bool]) -> Result<(), BenchError> {
    let differing = ours.iter().zip(theirs).position(|(a, b)| a != b);
    match differing {
        None => Ok(()),
        Some(at) => Err(BenchError::Setup(format!(
            "packet {at}: Weir says {}, dpdk-test-acl says {}",
            ours[at], theirs[at]
        ))),
    }
}

/// What the table is asked about a packet.
fn question(packet: &Packet) -> Question {
    Question {
        slot: EndpointSlot(packet.pod as u16),
        direction: Direction::Ingress,
        peer: Address::v4(packet.source),
        protocol: packet.protocol,
        destination_port: Some(packet.port),
    }
}

fn decide(table: &PolicyTable, question: &Question) -> Decision {
    let peer = table.peer(question.peer);
    table.decide(
        question.slot,
        question.direction,
        &peer,
        question.protocol,
        question.destination_port,
    )
}

/// Nanoseconds a packet, one after the other.
fn time_single(table: &PolicyTable, questions: &[Question]) -> f64 {
    time(questions.len(), || {
        for question in questions {
            black_box(decide(table, black_box(question)));
        }
    })
}

/// Nanoseconds a packet, in batches as a worker's burst brings them.
fn time_batched(table: &PolicyTable, questions: &[Question]) -> f64 {
    let none = decide(table, &questions[0]);
    let mut decisions = [none; BATCH];
    time(questions.len(), || {
        for batch in questions.chunks(BATCH) {
            table.decide_batch(black_box(batch), &mut decisions[..batch.len()]);
            black_box(&decisions);
        }
    })
}

fn time(packets: usize, mut whole_trace: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..ITERATIONS {
        whole_trace();
    }
    start.elapsed().as_nanos() as f64 / (packets as f64 * f64::from(ITERATIONS))
}
