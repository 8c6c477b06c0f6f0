//! How long a packet waits for a forwarder that has been without one: how it is woken, and whether
//! it had gone to sleep at all.
//!
//! Single packets, each so long after the one before. The generator hands a packet over in its own
//! context, so that it is on the forwarder's ring when the call returns, and sees it on the sink's
//! ring when the forwarder's transmission returns: between the two lies what is measured.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::idle::running_ns;
use super::traffic::{Flows, Traffic, Trial, histogram};
use crate::error::BenchError;

/// From one packet to the next: what a request and its response leave between them, up to what
/// counts as quiet.
pub const GAPS: [Duration; 7] = [
    Duration::from_micros(20),
    Duration::from_micros(50),
    Duration::from_micros(100),
    Duration::from_micros(200),
    Duration::from_micros(500),
    Duration::from_millis(2),
    Duration::from_millis(10),
];

/// What became of the packets with one gap between them.
pub struct Wakes {
    /// From one packet to the next.
    pub gap: Duration,
    /// From when a packet was due until the sink had it, nanoseconds.
    pub latency: Histogram<u64>,
    /// Packets sent.
    pub sent: u64,
    /// Packets that arrived.
    pub received: u64,
    /// Share of one core, percent, of the forwarder's processes; none if it has none of its own.
    pub core_percent: Vec<f64>,
}

impl Wakes {
    /// Nothing as yet, one for each of [`GAPS`].
    pub fn none() -> Result<Vec<Wakes>, BenchError> {
        let empty = |gap| -> Result<Wakes, BenchError> {
            Ok(Wakes {
                gap,
                latency: histogram()?,
                sent: 0,
                received: 0,
                core_percent: Vec::new(),
            })
        };
        GAPS.into_iter().map(empty).collect()
    }

    /// Sends for so long.
    pub fn add(
        &mut self,
        traffic: &mut Traffic,
        processes: &[u32],
        flows: u32,
        duration: Duration,
    ) -> Result<(), BenchError> {
        let running = || -> Result<u64, BenchError> {
            let each = processes.iter().map(|pid| running_ns(*pid));
            each.sum()
        };
        let (begun, before) = (Instant::now(), running()?);
        let outcome = traffic.run(&Trial {
            rate: Some(1.0 / self.gap.as_secs_f64()),
            duration,
            packets: u64::MAX,
            flows: Flows::Established(flows),
            late: true,
        })?;
        if !processes.is_empty() {
            let seconds = (running()? - before) as f64 / 1e9;
            let share = seconds / begun.elapsed().as_secs_f64();
            self.core_percent.push(share * 100.0);
        }
        self.sent += outcome.sent;
        self.received += outcome.received;
        self.latency.add(&outcome.latency).map_err(super::setup)
    }
}
