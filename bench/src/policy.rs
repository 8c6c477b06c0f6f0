//! The policy table on nodes of several sizes: how long it compiles, how large it is, how long a
//! decision takes alone and in a batch, and that this does not follow the number of policies, rules
//! or prefixes.

use std::hint::black_box;
use std::time::{Duration, Instant};

use dataplane::policy::ir::EndpointPolicy;
use dataplane::policy::naive::PeerSets;
use dataplane::policy::{BATCH, Decision, EndpointSlot, PolicyTable, Question};
use dataplane::{Address, CounterId, Direction, Protocol, Verdict};
use serde::Serialize;
use serde_json::json;

use crate::cluster::{self, Numbers, Size, cidr_address, pod_address};
use crate::output::{self, Report};
use crate::statistics::Summary;

/// Decisions timed per table and run.
const DECISIONS: usize = 1 << 20;

const SIZES: [(&str, Size); 5] = [
    (
        "ten of everything",
        Size {
            endpoints: 10,
            policies: 10,
            pods: 10,
            cidrs: 100,
            policies_per_endpoint: 10,
        },
    ),
    (
        "large, 40 policies an endpoint",
        Size {
            endpoints: 250,
            policies: 10_000,
            pods: 5_000,
            cidrs: 100_000,
            policies_per_endpoint: 40,
        },
    ),
    (
        "large, 400 policies an endpoint",
        Size {
            endpoints: 250,
            policies: 10_000,
            pods: 5_000,
            cidrs: 100_000,
            policies_per_endpoint: 400,
        },
    ),
    (
        "large, every policy selects all",
        Size {
            endpoints: 250,
            policies: 10_000,
            pods: 5_000,
            cidrs: 100_000,
            policies_per_endpoint: 10_000,
        },
    ),
    (
        "all but one prefix, by 1,000",
        Size {
            endpoints: 10,
            policies: 1_000,
            pods: 0,
            cidrs: 0,
            policies_per_endpoint: 1_000,
        },
    ),
];

/// Rules with random prefixes on one endpoint.
const RULES: [(&str, u32); 4] = [
    ("100 rules, random prefixes", 100),
    ("1,000 rules, random prefixes", 1_000),
    ("10,000 rules, random prefixes", 10_000),
    ("100,000 rules, random prefixes", 100_000),
];

/// What is compiled, and what is asked of it.
struct Case {
    name: &'static str,
    endpoints: Vec<EndpointPolicy>,
    sets: PeerSets,
    questions: Vec<Question>,
}

/// One case's results.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Measured {
    name: &'static str,
    endpoints: usize,
    compile_ms: Summary,
    chains: usize,
    classes: usize,
    table_bytes: usize,
    decide_ns: Summary,
    batch_ns: Summary,
}

/// Measures every case `runs` times.
pub fn run(runs: usize) -> Report {
    let sizes = SIZES.iter().map(|(name, size)| cluster_case(name, size));
    let rules = RULES.iter().map(|&(name, count)| rules_case(name, count));
    let measured: Vec<Measured> = sizes
        .chain(rules)
        .filter_map(|case| measure(&case, runs))
        .collect();
    Report {
        benchmark: "policy",
        arguments: json!({ "runs": runs }),
        heads: vec![
            "cluster",
            "compile, ms",
            "min–max",
            "chains",
            "block classes",
            "table, MiB",
            "decide, ns",
            "min–max",
            "of a batch, ns",
            "min–max",
        ],
        rows: measured.iter().map(row).collect(),
        results: output::value(&measured),
        notes: vec![format!(
            "Medians of {runs} runs. A decision: one random peer, endpoint and port, alone or one \
             of {BATCH}. Rules with random prefixes: half of the traffic is what some rule is for."
        )],
    }
}

fn row(of: &Measured) -> Vec<String> {
    let range = |summary: &Summary| format!("{:.1}–{:.1}", summary.min, summary.max);
    vec![
        of.name.to_owned(),
        format!("{:.1}", of.compile_ms.median),
        range(&of.compile_ms),
        of.chains.to_string(),
        of.classes.to_string(),
        format!("{:.1}", of.table_bytes as f64 / f64::from(1 << 20)),
        format!("{:.1}", of.decide_ns.median),
        range(&of.decide_ns),
        format!("{:.1}", of.batch_ns.median),
        range(&of.batch_ns),
    ]
}

/// Questions of one run: too many to be in the cache because they were just asked.
const QUESTIONS: usize = 1 << 16;

fn cluster_case(name: &'static str, size: &Size) -> Case {
    let mut numbers = Numbers(1);
    let (endpoints, sets) = cluster::endpoints(size, &mut numbers);
    let questions = (0..QUESTIONS).map(|i| {
        let peer = match i % 2 {
            0 => pod_address(numbers.below(size.pods), numbers.below(2) == 0),
            _ => cidr_address(numbers.below(size.cidrs), numbers.below(2) == 0),
        };
        Question {
            slot: EndpointSlot(numbers.below(size.endpoints) as u16),
            direction: [Direction::Egress, Direction::Ingress][numbers.below(2) as usize],
            peer,
            protocol: Protocol::TCP,
            destination_port: Some(numbers.next() as u16),
        }
    });
    let questions = questions.collect();
    Case {
        name,
        endpoints,
        sets,
        questions,
    }
}

fn rules_case(name: &'static str, count: u32) -> Case {
    let mut numbers = Numbers(1);
    let (endpoint, traffic) = cluster::random_rules(count, &mut numbers);
    let questions = (0..QUESTIONS).map(|i| {
        let (peer, port) = match i % 2 {
            0 => traffic[numbers.below(count) as usize],
            _ => (Address::v4(numbers.next() as u32), numbers.next() as u16),
        };
        Question {
            slot: EndpointSlot(0),
            direction: Direction::Ingress,
            peer,
            protocol: Protocol::TCP,
            destination_port: Some(port),
        }
    });
    let questions = questions.collect();
    Case {
        name,
        endpoints: vec![endpoint],
        sets: PeerSets::new(),
        questions,
    }
}

fn measure(case: &Case, runs: usize) -> Option<Measured> {
    let slots = (0..).map(EndpointSlot);
    let input: Vec<_> = slots.zip(&case.endpoints).collect();
    let (mut compile, mut decide, mut batch) = (Vec::new(), Vec::new(), Vec::new());
    let mut footprint = None;
    for _ in 0..runs {
        let start = Instant::now();
        let table = PolicyTable::compile_with(&case.sets, &input);
        compile.push(start.elapsed().as_secs_f64() * 1e3);
        let each = |all: Duration| all.as_nanos() as f64 / DECISIONS as f64;
        decide.push(each(time_single(&table, &case.questions)));
        batch.push(each(time_batches(&table, &case.questions)));
        footprint = Some(table.footprint());
    }
    let footprint = footprint?;
    Some(Measured {
        name: case.name,
        endpoints: case.endpoints.len(),
        compile_ms: Summary::of(&compile)?,
        chains: footprint.chains,
        classes: footprint.classes,
        table_bytes: footprint.bytes,
        decide_ns: Summary::of(&decide)?,
        batch_ns: Summary::of(&batch)?,
    })
}

fn time_single(table: &PolicyTable, questions: &[Question]) -> Duration {
    let start = Instant::now();
    for of in questions.iter().cycle().take(DECISIONS) {
        let peer = table.peer(of.peer);
        let port = of.destination_port;
        black_box(table.decide(of.slot, of.direction, &peer, of.protocol, port));
    }
    start.elapsed()
}

fn time_batches(table: &PolicyTable, questions: &[Question]) -> Duration {
    let start = Instant::now();
    let batches = questions.chunks_exact(BATCH).cycle();
    let mut decisions = [UNDECIDED; BATCH];
    for batch in batches.take(DECISIONS / BATCH) {
        table.decide_batch(batch, &mut decisions);
        black_box(&decisions);
    }
    start.elapsed()
}

/// To be written over.
const UNDECIDED: Decision = Decision {
    verdict: Verdict::default_accept(Direction::Egress),
    counter: CounterId::NONE,
};
