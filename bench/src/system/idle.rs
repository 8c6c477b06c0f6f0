//! What a node with many pods costs while nothing happens.

use std::fs;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::forwarder::Forwarder;
use super::interrupt::Interrupt;
use super::setup;
use super::weir::{USUAL, Weir};
use crate::error::BenchError;

/// Left alone for so long first, until timers of the start have run.
const SETTLE: Duration = Duration::from_secs(2);

/// The daemon at rest.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Idle {
    /// Pods.
    pub pods: u32,
    /// Workers.
    pub workers: usize,
    /// Share of one core, percent, of all its threads.
    pub core_percent: f64,
    /// Measured for so long, seconds.
    pub seconds: f64,
    /// Memory of its own, KiB.
    pub anonymous_kib: u64,
    /// Memory that is shared or of files (packet memory, connections), KiB.
    pub shared_kib: u64,
    /// How much `VmallocUsed` grew per pod, KiB: the kernel's pools and rings, nearly.
    pub kernel_kib_per_pod: f64,
    /// Sockets that it holds.
    pub sockets: usize,
}

/// Starts a daemon with so many pods and watches it.
pub fn measure(
    number: u32,
    pods: u32,
    workers: &[u16],
    duration: Duration,
    interrupt: &Interrupt,
) -> Result<Idle, BenchError> {
    let few = vmalloc_kib()?;
    let weir = Weir::start(number, pods, workers, 0, USUAL)?;
    let many = vmalloc_kib()?;
    let pid = weir.processes().first().copied().unwrap_or(0);
    pause(SETTLE.min(duration), interrupt)?;
    let (begun, before) = (Instant::now(), running_ns(pid)?);
    pause(duration, interrupt)?;
    let seconds = begun.elapsed().as_secs_f64();
    let running = (running_ns(pid)? - before) as f64 / 1e9;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).map_err(setup)?;
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).map_err(setup)?;
    let is_socket = |entry: &fs::DirEntry| {
        fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))
    };
    Ok(Idle {
        pods,
        workers: workers.len(),
        core_percent: running / seconds * 100.0,
        seconds,
        anonymous_kib: field(&status, "RssAnon:")?,
        shared_kib: field(&status, "RssShmem:")? + field(&status, "RssFile:")?,
        kernel_kib_per_pod: many.saturating_sub(few) as f64 / f64::from(pods.max(1)),
        sockets: descriptors.flatten().filter(is_socket).count(),
    })
}

fn pause(duration: Duration, interrupt: &Interrupt) -> Result<(), BenchError> {
    let begun = Instant::now();
    while begun.elapsed() < duration {
        interrupt.check()?;
        std::thread::sleep(Duration::from_millis(50).min(duration));
    }
    Ok(())
}

fn vmalloc_kib() -> Result<u64, BenchError> {
    let text = fs::read_to_string("/proc/meminfo").map_err(setup)?;
    field(&text, "VmallocUsed:")
}

fn field(text: &str, name: &str) -> Result<u64, BenchError> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| setup(format!("the kernel does not tell {name}")))
}

/// Nanoseconds for which a process's threads have run.
pub fn running_ns(pid: u32) -> Result<u64, BenchError> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).map_err(setup)?;
    let of = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        let first = text.split_whitespace().next().unwrap_or("0");
        first.parse::<u64>().unwrap_or(0)
    };
    Ok(tasks.flatten().map(of).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_is_seen() {
        let pid = std::process::id();
        let before = running_ns(pid).unwrap();
        let begun = Instant::now();
        while begun.elapsed().as_millis() < 20 {
            std::hint::black_box(0);
        }
        assert!(running_ns(pid).unwrap() > before);
        assert!(vmalloc_kib().unwrap() > 0);
    }
}
