//! One worker and two, on one connection table.
//!
//! *Local*: both directions of a connection are on one worker. *Apart*: one worker has what the
//! initiators send, the other what comes back, so that every entry is both workers'.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use dataplane::pipeline::BURST_MAX;
use serde::Serialize;

use super::Arguments;
use super::workload::{Workload, established_frames};
use super::world::{Frames, World};
use crate::error::BenchError;
use crate::machine;
use crate::statistics::Summary;

/// What two workers do beside what one does.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Scaled {
    name: String,
    /// Nanoseconds a packet on one worker, alone.
    one: Summary,
    /// Nanoseconds a packet of both together: half of what each takes.
    two: Summary,
    /// Of the pairs of runs, the rate of two over that of one.
    ratio: Summary,
}

impl Scaled {
    /// The table's row.
    pub fn row(&self) -> Vec<String> {
        let ratio = &self.ratio;
        vec![
            self.name.clone(),
            format!("{:.1}", self.two.median),
            format!("{:.1}–{:.1}", self.two.min, self.two.max),
            format!("{:.0}", self.two.median * machine::cycles_per_ns()),
            format!(
                "{:.2}× one's ({:.2}–{:.2})",
                ratio.median, ratio.min, ratio.max
            ),
        ]
    }
}

/// Measures both ways to share connections out.
pub fn compare(arguments: &Arguments, workload: &Workload) -> Result<Vec<Scaled>, BenchError> {
    let flows = arguments.scaling_flows;
    let mut first = workload.populated(flows)?;
    let mut second = first.second_worker();
    let count = arguments.packets.min(1 << 18);
    let mut scaled = Vec::new();
    for (kind, apart) in [
        ("flows local to a worker", false),
        ("directions apart", true),
    ] {
        let share = |worker: u32| {
            established_frames(&first, flows, count, |(number, back)| match apart {
                true => back == (worker == 1),
                false => number % 2 == worker,
            })
        };
        let shares = [share(0)?, share(1)?];
        let name = format!("two workers, {kind}, {flows} established");
        let (mut one, mut two, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for run in 0..=arguments.runs {
            // What one worker takes for either share, alone.
            let alone = (work(&name, &mut first, &shares[0], None)?
                + work(&name, &mut first, &shares[1], None)?)
                / 2.0;
            let together = both(&name, [&mut first, &mut second], &shares)?;
            if run > 0 {
                one.push(alone);
                two.push(together);
                ratios.push(alone / together);
            }
        }
        let none = || BenchError::Setup("no run was asked for".to_owned());
        scaled.push(Scaled {
            name,
            one: Summary::of(&one).ok_or_else(none)?,
            two: Summary::of(&two).ok_or_else(none)?,
            ratio: Summary::of(&ratios).ok_or_else(none)?,
        });
    }
    Ok(scaled)
}

/// Nanoseconds a packet of one worker.
fn work(
    name: &str,
    world: &mut World,
    frames: &Frames,
    start: Option<&Barrier>,
) -> Result<f64, BenchError> {
    if let Some(start) = start {
        start.wait();
    }
    let mut elapsed = Duration::ZERO;
    for first in (0..frames.count()).step_by(BURST_MAX) {
        elapsed += world.send_burst(name, frames.burst(first), true)?;
    }
    Ok(elapsed.as_nanos() as f64 / frames.count() as f64)
}

/// Nanoseconds a packet of two workers together, each on a thread of its own.
fn both(name: &str, worlds: [&mut World; 2], shares: &[Frames; 2]) -> Result<f64, BenchError> {
    let start = Barrier::new(2);
    let [first, second] = worlds;
    let results = thread::scope(|scope| {
        let other = scope.spawn(|| work(name, second, &shares[1], Some(&start)));
        let here = work(name, first, &shares[0], Some(&start));
        [
            here,
            other
                .join()
                .unwrap_or_else(|_| Err(BenchError::Setup("a worker fell".to_owned()))),
        ]
    });
    let mut rate = 0.0;
    for result in results {
        rate += 1.0 / result?;
    }
    Ok(1.0 / rate)
}
