//! The policy table on nodes of several sizes: how long it compiles, how large it is, how long a
//! decision takes, and that this does not follow the number of policies.

use std::hint::black_box;
use std::time::{Duration, Instant};

use dataplane::policy::{EndpointSlot, PolicyTable};
use dataplane::{Address, Direction, Protocol};
use serde::Serialize;
use serde_json::json;

use crate::cluster::{self, Numbers, Size, cidr_address, pod_address};
use crate::output::{self, Report};
use crate::statistics::Summary;

/// Decisions timed per table and run.
const DECISIONS: u32 = 1_000_000;

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

/// One size's results.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Measured {
    name: &'static str,
    endpoints: u32,
    policies: u32,
    policies_per_endpoint: u32,
    compile_ms: Summary,
    chains: usize,
    classes: usize,
    port_maps: usize,
    table_bytes: usize,
    classify_ns: Summary,
    decide_ns: Summary,
}

/// Measures every size `runs` times.
pub fn run(runs: usize) -> Report {
    let measured: Vec<Measured> = SIZES
        .iter()
        .filter_map(|(name, size)| measure(name, size, runs))
        .collect();
    Report {
        benchmark: "policy",
        arguments: json!({ "runs": runs }),
        heads: vec![
            "cluster",
            "compile, ms",
            "min–max",
            "chains",
            "classes",
            "port maps",
            "table, MiB",
            "classify, ns",
            "min–max",
            "decide, ns",
            "min–max",
        ],
        rows: measured.iter().map(row).collect(),
        results: output::value(&measured),
        notes: vec![format!(
            "Medians of {runs} runs. Classify and decide: one random peer, endpoint and port each \
             time."
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
        of.port_maps.to_string(),
        format!("{:.1}", of.table_bytes as f64 / f64::from(1 << 20)),
        format!("{:.1}", of.classify_ns.median),
        range(&of.classify_ns),
        format!("{:.1}", of.decide_ns.median),
        range(&of.decide_ns),
    ]
}

fn measure(name: &'static str, size: &Size, runs: usize) -> Option<Measured> {
    let mut numbers = Numbers(1);
    let endpoints = cluster::endpoints(size, &mut numbers);
    let slots = (0..).map(EndpointSlot);
    let input: Vec<_> = slots.zip(&endpoints).collect();
    let (mut compile, mut classify, mut decide) = (Vec::new(), Vec::new(), Vec::new());
    let mut footprint = None;
    for _ in 0..runs {
        let start = Instant::now();
        let table = PolicyTable::compile(&input);
        compile.push(start.elapsed().as_secs_f64() * 1e3);
        let (one, other) = time_decisions(&table, size, &mut numbers);
        let each = |all: Duration| all.as_nanos() as f64 / f64::from(DECISIONS);
        classify.push(each(one));
        decide.push(each(other));
        footprint = Some(table.footprint());
    }
    let footprint = footprint?;
    Some(Measured {
        name,
        endpoints: size.endpoints,
        policies: size.policies,
        policies_per_endpoint: size.policies_per_endpoint,
        compile_ms: Summary::of(&compile)?,
        chains: footprint.chains,
        classes: footprint.classes,
        port_maps: footprint.port_maps,
        table_bytes: footprint.bytes,
        classify_ns: Summary::of(&classify)?,
        decide_ns: Summary::of(&decide)?,
    })
}

/// Random peers, endpoints and ports: nothing is in the cache because it was just used.
fn time_decisions(table: &PolicyTable, size: &Size, numbers: &mut Numbers) -> (Duration, Duration) {
    let addresses: Vec<Address> = (0..1 << 16)
        .map(|i| match i % 2 {
            0 => pod_address(numbers.below(size.pods), numbers.below(2) == 0),
            _ => cidr_address(numbers.below(size.cidrs), numbers.below(2) == 0),
        })
        .collect();
    let pick = |i: u32| addresses[(i.wrapping_mul(0x9e37_79b1) >> 16) as usize];
    let start = Instant::now();
    for i in 0..DECISIONS {
        black_box(table.peer(pick(i)));
    }
    let classify = start.elapsed();

    let classes: Vec<_> = addresses.iter().map(|&a| table.peer(a)).collect();
    let start = Instant::now();
    for i in 0..DECISIONS {
        let random = i.wrapping_mul(0x9e37_79b1);
        black_box(table.decide(
            EndpointSlot((random % size.endpoints) as u16),
            if i & 1 == 0 {
                Direction::Egress
            } else {
                Direction::Ingress
            },
            &classes[(random >> 16) as usize],
            Protocol::TCP,
            Some(random as u16),
        ));
    }
    (classify, start.elapsed())
}
