//! Everything from scratch: a cluster's objects to the table that workers read, and the steps of one
//! change in it, all in memory and on one thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use control::cluster::{Cluster, Commit, Seeded};
use control::lower::{Change, LocalEndpoint, Policies, PolicyIds, Settings};
use control::objects::{DecodeOptions, Decoded, Object, decode_value};
use serde::Serialize;
use serde_json::{Value, json};

use crate::cluster_objects::{Counts, Objects};
use crate::error::BenchError;
use crate::output::{self, Report};
use crate::statistics::Summary;

/// What to compile.
#[derive(Debug, Args)]
pub struct Arguments {
    /// NetworkPolicies in the cluster.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub policies: u32,
    /// Pods in the cluster.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(2..=65_000))]
    pub pods: u32,
    /// Pods of this node, for which is compiled.
    #[arg(long, default_value_t = 250, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub local: u32,
    /// Runs of the whole, and of every step.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub runs: u32,
}

fn setup(error: impl std::fmt::Display) -> BenchError {
    BenchError::Setup(error.to_string())
}

/// One line of the results.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Step {
    name: &'static str,
    micros: Summary,
}

/// Durations by the steps' names, in the order in which they first came.
#[derive(Debug, Default)]
struct Steps(Vec<(&'static str, Vec<f64>)>);

impl Steps {
    fn time<T>(&mut self, name: &'static str, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let result = work();
        self.add(name, begun.elapsed());
        result
    }

    fn add(&mut self, name: &'static str, elapsed: Duration) {
        let micros = elapsed.as_secs_f64() * 1e6;
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.push(micros),
            None => self.0.push((name, vec![micros])),
        }
    }

    fn summaries(&self) -> Vec<Step> {
        let steps = self.0.iter();
        steps
            .filter_map(|(name, values)| {
                let micros = Summary::of(values)?;
                Some(Step { name, micros })
            })
            .collect()
    }
}

/// Measures.
pub fn run(arguments: &Arguments) -> Result<Report, BenchError> {
    let objects = Objects {
        counts: Counts {
            policies: arguments.policies,
            pods: arguments.pods,
            local: arguments.local.min(arguments.pods),
        },
    };
    let mut source = Seeded::new(1);
    let begun = Instant::now();
    let mut cluster = store(&objects, &mut source)?;
    let stored = begun.elapsed();
    let before_kib = resident_kib();
    let locals = locals(&objects, &cluster);
    let changes: Vec<Change> = cluster.objects().map(Change::added).collect();
    let mut steps = Steps::default();
    let mut policies = None;
    for _ in 0..arguments.runs {
        let begun = Instant::now();
        let whole = scratch(&changes, &locals)?;
        let table = whole.table();
        steps.add("everything from scratch", begun.elapsed());
        drop((policies.take(), table));
        policies = Some(whole);
    }
    let mut policies = policies.ok_or_else(|| setup("nothing was compiled"))?;
    let after_kib = resident_kib();
    for turn in 0..arguments.runs * 100 {
        let policy = turn * 7919 % objects.counts.policies;
        if objects.selects_local(policy) {
            let value = objects.policy(policy, turn + 1);
            change(value, &mut cluster, &mut source, &mut policies, &mut steps)?;
        }
    }
    let measured = steps.summaries();
    Ok(Report {
        benchmark: "compile",
        arguments: json!({ "counts": objects.counts, "runs": arguments.runs }),
        heads: vec!["in memory, one thread", "µs", "min–max"],
        rows: measured.iter().map(cells).collect(),
        results: json!({
            "steps": output::value(&measured), "storedS": stored.as_secs_f64(),
            "objectsKib": before_kib, "withPoliciesKib": after_kib,
        }),
        notes: vec![format!(
            "{} policies, {} pods, {} of them local. Medians. The rows below the first are the steps \
             of one policy's change, `kubectl apply` of other peers and another port. To decode, \
             default, validate and store all objects took {:.2} s before. Resident: {:.0} MiB with \
             the objects, {:.0} MiB with what is compiled from them.",
            objects.counts.policies,
            objects.counts.pods,
            objects.counts.local,
            stored.as_secs_f64(),
            before_kib as f64 / 1024.0,
            after_kib as f64 / 1024.0,
        )],
    })
}

fn cells(step: &Step) -> Vec<String> {
    let Summary { median, min, max } = step.micros;
    vec![
        step.name.to_owned(),
        format!("{median:.1}"),
        format!("{min:.1}–{max:.1}"),
    ]
}

fn store(objects: &Objects, source: &mut Seeded) -> Result<Cluster, BenchError> {
    let cluster = Cluster::new(source);
    let mut transaction = cluster.begin(source);
    for value in objects.all() {
        let object = Object::new(value).map_err(setup)?;
        transaction.apply(object).map_err(setup)?;
    }
    Ok(transaction.commit().cluster)
}

fn locals(objects: &Objects, cluster: &Cluster) -> Vec<LocalEndpoint> {
    let local = (0..objects.counts.local).filter_map(|number| {
        let (namespace, name) = objects.pod_name(number);
        let uid = cluster.pod(&namespace, &name)?.uid().to_owned();
        let addresses = vec![objects.pod_address(number).parse().ok()?];
        Some(LocalEndpoint {
            namespace,
            name,
            uid,
            addresses,
        })
    });
    local.collect()
}

fn scratch(changes: &[Change], locals: &[LocalEndpoint]) -> Result<Policies, BenchError> {
    let mut policies = Policies::new(PolicyIds::new(), Settings::default());
    for local in locals {
        policies.attach(local.clone()).map_err(setup)?;
    }
    policies.update(changes).map_err(setup)?;
    policies.keep();
    Ok(policies)
}

/// One policy's change, step by step as the daemon makes it.
fn change(
    value: Value,
    cluster: &mut Cluster,
    source: &mut Seeded,
    policies: &mut Policies,
    steps: &mut Steps,
) -> Result<(), BenchError> {
    let whole = Instant::now();
    let line =
        json!({"jsonrpc": "2.0", "id": 1, "method": "apply", "params": {"objects": [value]}});
    let line = line.to_string();
    let mut request: Value = steps
        .time("read the request", || serde_json::from_str(&line))
        .map_err(setup)?;
    let value = request["params"]["objects"][0].take();
    let mut decoded = Decoded::default();
    steps
        .time("decode the object", || {
            decode_value(value, &DecodeOptions::default(), &mut decoded)
        })
        .map_err(setup)?;
    let object = decoded.objects.pop().ok_or_else(|| setup("no object"))?;
    let begun = Instant::now();
    let mut transaction = cluster.begin(source);
    let outcome = transaction.apply(object).map_err(setup)?;
    let Commit {
        cluster: next,
        events,
        ..
    } = transaction.commit();
    steps.add("merge, default, validate, store", begun.elapsed());
    let changes: Vec<Change> = events.iter().map(Change::from).collect();
    steps
        .time("lower and compile", || policies.update(&changes))
        .map_err(setup)?;
    let table = steps.time("put the table together", || Arc::new(policies.table()));
    steps
        .time("write the journal's line (no file)", || {
            serde_json::to_string(outcome.object.value())
        })
        .map_err(setup)?;
    steps
        .time("write the reply", || {
            serde_json::to_string(&outcome.object.to_value())
        })
        .map_err(setup)?;
    steps.time("free what is old", || {
        policies.keep();
        *cluster = next;
        drop((table, events, changes));
    });
    steps.add("one change, all of these", whole.elapsed());
    Ok(())
}

/// Resident memory of this process.
fn resident_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}
