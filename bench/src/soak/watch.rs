//! Looks at a daemon again and again.

use std::fs;
use std::sync::atomic::Ordering;

use control::protocol::{AuditReply, CountersReply, MetricsReply, Status};
use serde::Serialize;
use serde_json::{Value, json};

use super::node::{Node, call};
use super::setup;
use super::traffic::Tally;
use crate::error::BenchError;

/// Problems that are told at most.
const PROBLEMS_MAX: usize = 20;
/// Looks before the daemon's size counts: what it keeps of the past has a bound, and fills first.
const WARM_UP: usize = 10;
/// How much larger than then it may ever be, KiB: tables double, and allocators keep.
const GROWTH_KIB: u64 = 24 << 10;

/// One thing that must hold.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// What.
    pub name: String,
    /// What was seen.
    pub seen: u64,
    /// The least that is right.
    pub least: u64,
    /// The most that is right.
    pub most: u64,
}

impl Check {
    /// Whether it holds.
    pub fn holds(&self) -> bool {
        (self.least..=self.most).contains(&self.seen)
    }
}

/// What was seen so far.
#[derive(Debug)]
pub struct Watch {
    descriptors: u64,
    audits: u64,
    /// Audits that no worker had time for.
    late: u64,
    /// Memory of the daemon's own, KiB: by look.
    sizes: Vec<u64>,
    most_connections: u64,
    samples: u64,
    problems: Vec<String>,
}

impl Watch {
    /// Begins with the pods that stay.
    pub fn begin(node: &Node) -> Result<Watch, BenchError> {
        Ok(Watch {
            descriptors: descriptors(node)?,
            audits: 0,
            late: 0,
            sizes: Vec::new(),
            most_connections: 0,
            samples: 0,
            problems: Vec::new(),
        })
    }

    /// Audits made.
    pub fn audits(&self) -> u64 {
        self.audits
    }

    /// Flows that the self-check has decided again, as of the end.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// What is wrong, in words.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    fn complain(&mut self, problem: String) {
        if self.problems.len() < PROBLEMS_MAX && !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// Looks at everything while packets flow.
    pub fn look(&mut self, node: &Node) -> Result<(), BenchError> {
        self.audit(node)?;
        self.sizes.push(size_kib(node)?);
        let status: Status = parse(call(&mut node.client()?, "status", json!({}))?)?;
        if status.health != "ok" {
            self.complain(format!("health: {}", status.health));
        }
        self.most_connections = self.most_connections.max(status.conntrack.entries);
        Ok(())
    }

    fn audit(&mut self, node: &Node) -> Result<Option<AuditReply>, BenchError> {
        let reply: Result<Value, _> = node.client()?.call("audit", json!({}));
        let Ok(reply) = reply else {
            // A worker was not let run in time; on a busy machine that happens.
            self.late += 1;
            return Ok(None);
        };
        let audit: AuditReply = parse(reply)?;
        self.audits += 1;
        for problem in &audit.problems {
            self.complain(format!("audit {}: {problem}", self.audits));
        }
        let sum = audit.free + audit.held + audit.fill + audit.transmit + audit.closing;
        if sum != audit.chunks {
            self.complain(format!(
                "audit {}: {sum} of {} chunks",
                self.audits, audit.chunks
            ));
        }
        Ok(Some(audit))
    }

    /// Whether nothing is under way any more.
    pub fn is_home(&mut self, node: &Node) -> Result<bool, BenchError> {
        let audit = self.audit(node)?;
        Ok(audit.is_some_and(|audit| audit.held + audit.transmit + audit.closing == 0))
    }

    /// The last look, when nothing is sent any more, and only the pods that stay are there.
    pub fn end(&mut self, node: &Node, tally: &Tally) -> Result<Vec<Check>, BenchError> {
        let home = self.is_home(node)?;
        let mut client = node.client()?;
        let counters: CountersReply = parse(call(&mut client, "counters", json!({}))?)?;
        let counter = |name: &str| counters.counters.get(name).copied().unwrap_or(0);
        let dropped: u64 = counters.drops.values().sum();
        let gone = counter("transmitted_packets") + counter("answered_packets") + dropped;
        let unaccounted = counter("received_packets").abs_diff(gone);
        let metrics: MetricsReply = parse(call(&mut client, "metrics", json!({}))?)?;
        let metric = |name: &str| {
            let values = metrics.text.lines().filter(|line| line.starts_with(name));
            let value = |line: &str| line.rsplit(' ').next()?.parse::<f64>().ok();
            values.filter_map(value).sum::<f64>() as u64
        };
        self.samples = metric("weir_policy_samples_total");
        let of = |word: &std::sync::atomic::AtomicU64| word.load(Ordering::Relaxed);
        let lost = of(&tally.steady_sent).saturating_sub(of(&tally.steady_received));
        let warm = self.sizes.get(WARM_UP.min(self.sizes.len() / 2)).copied();
        let most = self.sizes.iter().max().copied().unwrap_or(0);
        let first = self.descriptors;
        let problems = self.problems.len() as u64;
        drop(client);
        let capacity = 20_000;
        Ok([
            ("what is wrong by the audits and the daemon", problems, 0, 0),
            ("audits that were in time", self.audits, 1, u64::MAX),
            ("frames not home at the end", u64::from(!home), 0, 0),
            ("packets that are not accounted for", unaccounted, 0, 0),
            (
                "packets that a mistake of ours dropped",
                drops(&counters, "internal"),
                0,
                0,
            ),
            (
                "verdicts that the self-check denies",
                metric("weir_policy_mismatch_total"),
                0,
                0,
            ),
            (
                "reasons that it denies",
                metric("weir_policy_reason_mismatch_total"),
                0,
                0,
            ),
            ("packets that reached what is shut", of(&tally.leaked), 0, 0),
            ("answers that were changed", of(&tally.harmed), 0, 0),
            (
                // Where cores are shared, a worker may come too late for what its rings hold.
                "watched datagrams that were lost",
                lost,
                0,
                of(&tally.steady_sent) / 100,
            ),
            (
                "most connections at once",
                self.most_connections,
                0,
                capacity,
            ),
            (
                "open descriptors at the end",
                descriptors(node)?,
                first,
                first,
            ),
            (
                "most memory of its own, KiB",
                most,
                0,
                warm.unwrap_or(most) + GROWTH_KIB,
            ),
        ]
        .into_iter()
        .map(|(name, seen, least, most)| Check {
            name: name.to_owned(),
            seen,
            least,
            most,
        })
        .collect())
    }
}

fn drops(counters: &CountersReply, reason: &str) -> u64 {
    counters.drops.get(reason).copied().unwrap_or(0)
}

fn parse<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, BenchError> {
    serde_json::from_value(value).map_err(setup)
}

/// The fewest of several looks: the daemon closes what its clients have left a little later.
fn descriptors(node: &Node) -> Result<u64, BenchError> {
    let mut fewest = u64::MAX;
    for _ in 0..10 {
        let folder = fs::read_dir(format!("/proc/{}/fd", node.pid())).map_err(setup)?;
        fewest = fewest.min(folder.count() as u64);
        std::thread::sleep(std::time::Duration::from_millis(30));
    }
    Ok(fewest)
}

fn size_kib(node: &Node) -> Result<u64, BenchError> {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).map_err(setup)?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| setup("the kernel does not tell the daemon's size"))
}
