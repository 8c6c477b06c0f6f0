//! One change among many: from the request's last byte to the last worker's acknowledgement, on a
//! node with a daemon of its own, and beside it the kernel's filter and its tools.

mod load;
mod node;
mod peers;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::{Value, json};

use crate::cluster::Numbers;
use crate::cluster_objects::{Counts, Objects};
use crate::error::BenchError;
use crate::output::{self, Report};
use load::{Load, Throughput};
use node::{Node, Stopwatch};
use peers::{Filter, Tool};

/// Changes that nobody counts, until caches and branches are warm.
const WARM_UP: u32 = 100;
/// The share of the most that goes through which is under way at half load.
const HALF: f64 = 0.5;

/// What to measure.
#[derive(Debug, Args)]
pub struct Arguments {
    /// NetworkPolicies in the cluster.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub policies: u32,
    /// Pods in the cluster.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(2..=65_000))]
    pub pods: u32,
    /// Pods behind the daemon, each with an interface.
    #[arg(long, default_value_t = 250, value_parser = clap::value_parser!(u32).range(2..=4_000))]
    pub local: u32,
    /// Services that come after the policies' changes have been measured; none leaves them out.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(0..=30_000))]
    pub services: u32,
    /// Backends of all Services together.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub backends: u32,
    /// Changes of each kind, idle and at half load.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub changes: u32,
    /// Changes by each of the kernel's tools.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub peer_changes: u32,
    /// Cores of the daemon's workers.
    #[arg(long, value_delimiter = ',', default_value = "0,1")]
    pub workers: Vec<u16>,
    /// Where the daemon's journal is made: on a disk, as that of a real one.
    #[arg(long, default_value = "/var/tmp")]
    pub state_dir: PathBuf,
}

/// Longer ones count as this long.
const LONGEST_NS: u64 = 60_000_000_000;

/// Latencies of one kind of change, in microseconds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Latency {
    count: u64,
    p50_us: f64,
    p90_us: f64,
    p99_us: f64,
    max_us: f64,
}

fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1000.0
}

fn latency(of: &Histogram<u64>) -> Latency {
    Latency {
        count: of.len(),
        p50_us: micros(of.value_at_quantile(0.5)),
        p90_us: micros(of.value_at_quantile(0.9)),
        p99_us: micros(of.value_at_quantile(0.99)),
        max_us: micros(of.max()),
    }
}

fn histogram() -> Result<Histogram<u64>, BenchError> {
    Histogram::new_with_bounds(1, LONGEST_NS, 3)
        .map_err(|error| BenchError::Setup(error.to_string()))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A row of the table.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    name: String,
    /// From before the request was sent until its reply was here; of a tool, how long it ran.
    whole: Latency,
    /// The daemon's own measure: from the request's arrival to the last acknowledgement.
    #[serde(skip_serializing_if = "Option::is_none")]
    in_daemon: Option<Latency>,
    /// And of that, from the publication to the last acknowledgement.
    #[serde(skip_serializing_if = "Option::is_none")]
    published: Option<Latency>,
    /// Traffic meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    traffic: Option<Throughput>,
}

/// What is changed.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// A policy that selects a local pod gets another port and other peers.
    Policy,
    /// Some pod gets another value of the label that policies select by.
    Label,
    /// A pod of another node comes, or goes again.
    Pod,
    /// A Service's port gets another number.
    Service {
        /// Services there are.
        services: u32,
    },
    /// A Service's backend becomes unready, or ready again.
    Backend {
        /// Services there are.
        services: u32,
        /// And their backends.
        backends: u32,
    },
}

impl Change {
    const OF_POLICY: [Change; 3] = [Change::Policy, Change::Label, Change::Pod];

    const fn of_services(services: u32, backends: u32) -> [Change; 2] {
        [
            Change::Service { services },
            Change::Backend { services, backends },
        ]
    }

    fn name(self) -> &'static str {
        match self {
            Change::Policy => "a policy's port and peers",
            Change::Label => "a pod's label",
            Change::Pod => "a pod comes or goes",
            Change::Service { .. } => "a Service's port",
            Change::Backend { .. } => "a Service's backend",
        }
    }

    fn request(self, objects: &Objects, turn: u32, numbers: &mut Numbers) -> (&'static str, Value) {
        match self {
            Change::Policy => {
                let mut policy = numbers.below(objects.counts.policies);
                while !objects.selects_local(policy) {
                    policy = (policy + 1) % objects.counts.policies;
                }
                let object = objects.policy(policy, turn + 1);
                ("apply", json!({"objects": [object]}))
            }
            Change::Label => {
                let pod = numbers.below(objects.counts.pods);
                let (namespace, name) = objects.pod_name(pod);
                let app = objects.app(pod, 1 + numbers.below(u32::MAX / 2));
                let params = json!({
                    "target": {"resource": "pods", "namespace": namespace, "name": name},
                    "type": "merge", "patch": {"metadata": {"labels": {"app": app}}},
                });
                ("patch", params)
            }
            Change::Pod => {
                // Beyond those that are there: comes in one turn, goes in the next.
                let pod = objects.counts.pods + turn / 2 % 100;
                if turn.is_multiple_of(2) {
                    return ("apply", json!({"objects": [objects.pod(pod, 0)]}));
                }
                let (namespace, name) = objects.pod_name(pod);
                let target = json!({"resource": "pods", "namespace": namespace, "name": name});
                ("delete", json!({"targets": [target], "gracePeriod": 0}))
            }
            Change::Service { services } => {
                let object = objects.service(numbers.below(services), turn + 1);
                ("apply", json!({"objects": [object]}))
            }
            Change::Backend { services, backends } => {
                // One in two turns: what is unready becomes ready.
                let service = Numbers(u64::from(turn / 2)).below(services);
                let object = objects.slice(service, services, backends, turn + 1);
                ("apply", json!({"objects": [object]}))
            }
        }
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
    let mut rows = Vec::new();
    let mut notes = Vec::new();
    let mut node = Node::start(&arguments.workers, &arguments.state_dir)?;
    let loaded = node.load(&objects)?;
    let plugged = node.plug_in(&objects)?;
    let mut numbers = Numbers(1);
    let mut stopwatch = node.stopwatch()?;
    let changes = arguments.changes;
    for change in Change::OF_POLICY {
        let row = measure(&mut stopwatch, change, &objects, changes, &mut numbers)?;
        rows.push(row.named("idle"));
    }
    let traffic = allow_traffic(&mut stopwatch, &objects)?;
    let addresses = [&*traffic[0], &*traffic[1]];
    let most = Load::most(&node.talkers, addresses)?;
    let rate = most * HALF;
    let mut loaded_with = |change, stopwatch: &mut Stopwatch, rows: &mut Vec<Row>| {
        let load = Load::start(&node.talkers, addresses, rate)?;
        std::thread::sleep(Duration::from_millis(300));
        let row = measure(stopwatch, change, &objects, changes, &mut numbers)?;
        let traffic = Some(load.throughput());
        let row = row.named("half load");
        rows.push(Row { traffic, ..row });
        Ok::<(), BenchError>(())
    };
    for change in Change::OF_POLICY {
        loaded_with(change, &mut stopwatch, &mut rows)?;
    }
    let services = arguments.services;
    if services > 0 {
        node.store(objects.services(services, arguments.backends))?;
        let mut numbers = Numbers(3);
        for change in Change::of_services(services, arguments.backends) {
            let row = measure(&mut stopwatch, change, &objects, changes, &mut numbers)?;
            rows.push(row.named("idle"));
            loaded_with(change, &mut stopwatch, &mut rows)?;
        }
    }
    let memory = node.memory()?;
    node.stop_daemon()?;
    let restarted = node.start_daemon()?;
    let restarted_memory = node.memory()?;
    drop(node);
    for tool in Tool::ALL {
        if arguments.peer_changes == 0 {
            break;
        }
        match measure_tool(tool, &objects, arguments.peer_changes) {
            Ok(row) => rows.push(row),
            Err(error) => notes.push(format!("{}: {error}", tool.command())),
        }
    }
    notes.insert(
        0,
        format!(
            "{} policies, {} pods, {} of them local; for the rows of Services as well {services} \
             Services with {} backends; {} changes a row. Request to reply: from \
             before the request is written until the reply is read, by one client on the same \
             machine. In the daemon: from the request's arrival to the last worker's \
             acknowledgement. Journal: written before publication. Half load: {:.0} datagrams a \
             second of 60 octets from pod to pod, of {:.0} that it sustains. \
             The objects were stored in {:.1} s, {} ports plugged in in {:.1} s. Daemon: {:.0} MiB \
             of its own, {:.0} MiB shared; restarted it served after {:.2} s with {:.0} MiB.",
            objects.counts.policies,
            objects.counts.pods,
            objects.counts.local,
            arguments.backends,
            arguments.changes,
            rate,
            most,
            loaded.as_secs_f64(),
            objects.counts.local,
            plugged.as_secs_f64(),
            memory.anonymous_kib as f64 / 1024.0,
            memory.shared_kib as f64 / 1024.0,
            restarted.as_secs_f64(),
            restarted_memory.anonymous_kib as f64 / 1024.0,
        ),
    );
    Ok(Report {
        benchmark: "change",
        arguments: json!({
            "counts": objects.counts, "changes": arguments.changes, "services": services,
            "backends": arguments.backends,
            "peerChanges": arguments.peer_changes, "workers": arguments.workers,
        }),
        heads: vec![
            "one change, µs",
            "p50",
            "p90",
            "p99",
            "max",
            "in the daemon, p50",
            "p99",
            "published, p50",
            "p99",
        ],
        rows: rows.iter().map(cells).collect(),
        results: json!({
            "rows": output::value(&rows), "most": most, "memory": memory,
            "restartedMemory": restarted_memory, "restartS": restarted.as_secs_f64(),
        }),
        notes,
    })
}

impl Row {
    fn named(mut self, when: &str) -> Row {
        self.name = format!("{}, {when}", self.name);
        self
    }
}

fn cells(row: &Row) -> Vec<String> {
    let whole = &row.whole;
    let mut cells = vec![row.name.clone()];
    let values = [whole.p50_us, whole.p90_us, whole.p99_us, whole.max_us];
    cells.extend(values.map(|value| format!("{value:.0}")));
    for latency in [&row.in_daemon, &row.published] {
        let values = latency.as_ref().map(|l| [l.p50_us, l.p99_us]);
        let shown = values.map(|values| values.map(|value| format!("{value:.0}")));
        cells.extend(shown.unwrap_or_default());
    }
    cells
}

fn measure(
    stopwatch: &mut Stopwatch,
    change: Change,
    objects: &Objects,
    changes: u32,
    numbers: &mut Numbers,
) -> Result<Row, BenchError> {
    let (mut whole, mut in_daemon, mut published) = (histogram()?, histogram()?, histogram()?);
    // An even number first, so that every pod that comes goes.
    for turn in 0..WARM_UP + changes {
        let (method, params) = change.request(objects, turn, numbers);
        let timed = stopwatch.call(method, params)?;
        let result = &timed.reply["result"];
        let workers = &result["workers"];
        if workers["live"] != workers["total"] || workers["live"] == 0 {
            return Err(BenchError::Setup(format!(
                "not live on every worker: {result}"
            )));
        }
        if turn < WARM_UP {
            continue;
        }
        let field = |name: &str| result[name].as_u64().unwrap_or_default() * 1000;
        whole.saturating_record(nanos(timed.whole));
        in_daemon.saturating_record(field("requestMicros"));
        published.saturating_record(field("elapsedMicros"));
    }
    Ok(Row {
        name: change.name().to_owned(),
        whole: latency(&whole),
        in_daemon: Some(latency(&in_daemon)),
        published: Some(latency(&published)),
        traffic: None,
    })
}

/// Lets the first two pods talk; their addresses.
fn allow_traffic(stopwatch: &mut Stopwatch, objects: &Objects) -> Result<[String; 2], BenchError> {
    let policies: Vec<Value> = [0, 1]
        .map(|pod| {
            let (namespace, _) = objects.pod_name(pod);
            json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": {"name": format!("load-{pod}"), "namespace": namespace},
                "spec": {
                    "podSelector": {}, "policyTypes": ["Ingress", "Egress"],
                    "ingress": [{"ports": [{"protocol": "UDP"}]}],
                    "egress": [{"ports": [{"protocol": "UDP"}]}],
                },
            })
        })
        .into();
    stopwatch.call("apply", json!({"objects": policies}))?;
    Ok([0, 1].map(|pod| objects.pod_address(pod)))
}

fn measure_tool(tool: Tool, objects: &Objects, changes: u32) -> Result<Row, BenchError> {
    let filter = Filter::start(tool, objects)?;
    let mut numbers = Numbers(2);
    let mut whole = histogram()?;
    for turn in 0..changes {
        let at = numbers.below(filter.policies.len() as u32) as usize;
        let policy = filter.policies.get(at).copied().unwrap_or_default();
        whole.saturating_record(nanos(filter.change(policy, turn + 1)?));
    }
    Ok(Row {
        name: format!("{}, idle", tool.command()),
        whole: latency(&whole),
        in_daemon: None,
        published: None,
        traffic: None,
    })
}
