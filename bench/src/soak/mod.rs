//! Minutes of mixed load with policies and pods coming and going, under the eyes of an auditor.
//!
//! Nothing is measured here but that nothing goes wrong: every frame of the packet memory is in
//! exactly one place, the daemon does not grow, policy is what the self-check says it is, what is
//! shut stays shut, and a flow that no change is about goes on.

mod changes;
mod node;
mod traffic;
mod watch;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use crate::error::BenchError;
use crate::output::Report;
use crate::system::Interrupt;
use changes::Changes;
use node::{Node, Pod, Wanted};
use traffic::{Tally, Threads};
use watch::{Check, Watch};

fn setup(error: impl std::fmt::Display) -> BenchError {
    BenchError::Setup(error.to_string())
}

/// How long, and in which order.
#[derive(Debug, Args)]
pub struct Arguments {
    /// For so many minutes.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_080))]
    pub minutes: u32,
    /// For so many seconds instead.
    #[arg(long, value_parser = clap::value_parser!(u32).range(5..=604_800))]
    pub seconds: Option<u32>,
    /// Decides the order of changes and what is sent; the same again makes the same choices.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The workers' cores.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1])]
    pub workers: Vec<u16>,
}

impl Arguments {
    fn duration(&self) -> Duration {
        let seconds = self.seconds.unwrap_or(self.minutes * 60);
        Duration::from_secs(seconds.into())
    }
}

/// Between two looks at everything.
const LOOK: Duration = Duration::from_secs(1);
/// How long what is under way may take to come home after the last packet: fragments whose first
/// never came are kept the longest.
const HOME: Duration = Duration::from_secs(70);

/// The pods that stay.
struct Cast {
    watched: [Pod; 2],
    vault: Pod,
    clients: Vec<Pod>,
    servers: Vec<Pod>,
}

impl Cast {
    fn new(node: &Node) -> Result<Cast, BenchError> {
        let mut client = node.client()?;
        let mut number = 9;
        let mut add = |name: &str, role: &str, queues| {
            number += 1;
            let wanted = Wanted {
                name,
                role,
                number,
                queues,
            };
            node.add(&mut client, &wanted)
        };
        let cast = Cast {
            watched: [
                add("watched-0", "watched", 1)?,
                add("watched-1", "watched", 1)?,
            ],
            vault: add("vault", "vault", 1)?,
            clients: vec![add("client-0", "client", 1)?, add("client-1", "client", 2)?],
            servers: vec![add("server-0", "server", 1)?, add("server-1", "server", 2)?],
        };
        let objects = json!({"objects": [changes::shut()]});
        node::call(&mut client, "apply", objects)?;
        Ok(cast)
    }

    /// Those that serve, those that come and go, the node, and addresses that are nobody's.
    fn targets(&self) -> Vec<Ipv4Addr> {
        let mut targets: Vec<Ipv4Addr> = self.servers.iter().map(|pod| pod.address).collect();
        targets.extend(self.clients.iter().map(|pod| pod.address));
        let turning = changes::FIRST..changes::FIRST + changes::PODS;
        targets.extend(turning.map(|number| {
            let [high, low] = number.to_be_bytes();
            Ipv4Addr::new(10, 244, high, low)
        }));
        targets.extend([[10, 244, 9, 9], [10, 254, 0, 1], [192, 0, 2, 1]].map(Ipv4Addr::from));
        targets
    }
}

/// Runs it. The report says what was done and seen; an error beside it that something is wrong.
pub fn run(arguments: &Arguments) -> Result<(Report, Vec<String>), BenchError> {
    if !rustix::process::geteuid().is_root() {
        return Err(setup("network namespaces need root"));
    }
    let interrupt = Interrupt::watch()?;
    crate::system::sweep();
    let node = Node::start(&arguments.workers)?;
    let cast = Cast::new(&node)?;
    let tally = Arc::new(Tally::default());
    let mut watch = Watch::begin(&node)?;
    let done = AtomicBool::new(false);
    let changed = std::thread::scope(|scope| {
        let changing = scope.spawn(|| {
            let mut changes = Changes::new(&node, arguments.seed)?;
            while !done.load(Ordering::Relaxed) {
                changes.step()?;
            }
            changes.undo()?;
            Ok::<_, BenchError>(changes.changed)
        });
        let watched = act(arguments, &cast, &tally, |begun| {
            while begun.elapsed() < arguments.duration() && !changing.is_finished() {
                interrupt.check()?;
                std::thread::sleep(LOOK);
                watch.look(&node)?;
            }
            Ok(())
        });
        done.store(true, Ordering::Relaxed);
        let changed = changing.join();
        let changed = changed.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        watched.and(changed)
    })?;
    let begun = Instant::now();
    while !watch.is_home(&node)? && begun.elapsed() < HOME {
        interrupt.check()?;
        std::thread::sleep(LOOK / 4);
    }
    let checks = watch.end(&node, &tally)?;
    drop(cast);
    Ok(report(arguments, &tally, changed, &watch, checks))
}

/// Everything that sends, while `work` runs.
fn act(
    arguments: &Arguments,
    cast: &Cast,
    tally: &Arc<Tally>,
    work: impl FnOnce(Instant) -> Result<(), BenchError>,
) -> Result<(), BenchError> {
    let mut servers: Vec<Threads> = Vec::new();
    for pod in cast.servers.iter().chain(&cast.clients) {
        servers.push(traffic::serve(pod)?);
    }
    servers.push(traffic::vault(&cast.vault, tally)?);
    let [sending, receiving] = traffic::steady(&cast.watched[0], &cast.watched[1], tally)?;
    let mut clients = Vec::new();
    for (number, pod) in (1..).zip(&cast.clients) {
        let seed = arguments.seed.wrapping_mul(number);
        let (targets, vault) = (cast.targets(), cast.vault.address);
        clients.push(traffic::client(pod, targets, vault, seed, tally)?);
    }
    let result = work(Instant::now());
    drop(clients);
    drop(sending);
    // What is still on its way arrives.
    std::thread::sleep(Duration::from_millis(500));
    drop(receiving);
    result
}

fn report(
    arguments: &Arguments,
    tally: &Tally,
    changed: changes::Changed,
    watch: &Watch,
    checks: Vec<Check>,
) -> (Report, Vec<String>) {
    let of = |word: &std::sync::atomic::AtomicU64| word.load(Ordering::Relaxed);
    let done = [
        ("TCP connections that carried all", of(&tally.streams)),
        ("  their bytes, there and back", of(&tally.bytes)),
        ("  refused, cut or silent", of(&tally.cut)),
        ("datagrams sent", of(&tally.datagrams)),
        ("  echoes that came back", of(&tally.echoes)),
        ("echo requests, 56 to 3000 bytes", of(&tally.pings)),
        ("attempts at what is shut", of(&tally.denied)),
        ("watched flow, datagrams sent", of(&tally.steady_sent)),
        ("  longest time without one, µs", of(&tally.steady_gap)),
        ("policies applied", changed.applied),
        ("policies deleted", changed.deleted),
        ("pods made", changed.made),
        ("pods taken away", changed.removed),
        ("audits", watch.audits()),
        ("flows that the self-check decided again", watch.samples()),
    ];
    let mut rows: Vec<Vec<String>> = done
        .iter()
        .map(|(name, count)| vec![(*name).to_owned(), count.to_string(), "".into(), "".into()])
        .collect();
    rows.extend(checks.iter().map(|check| {
        let verdict = if check.holds() { "ok" } else { "FAILED" };
        let bound = format!("{} to {}", check.least, check.most);
        vec![
            check.name.clone(),
            check.seen.to_string(),
            bound,
            verdict.into(),
        ]
    }));
    let failed = checks.iter().filter(|check| !check.holds());
    let mut failures: Vec<String> = failed
        .map(|check| format!("{}: {}", check.name, check.seen))
        .collect();
    failures.extend(watch.problems().iter().cloned());
    let report = Report {
        benchmark: "soak",
        arguments: json!({
            "seconds": arguments.duration().as_secs(), "seed": arguments.seed,
            "workers": arguments.workers,
        }),
        heads: vec!["soak", "seen", "allowed", ""],
        rows,
        results: json!({
            "done": done.iter().map(|(name, count)| (name.trim(), count)).collect::<std::collections::BTreeMap<_, _>>(),
            "checks": checks, "problems": watch.problems(),
        }),
        notes: watch.problems().to_vec(),
    };
    (report, failures)
}
