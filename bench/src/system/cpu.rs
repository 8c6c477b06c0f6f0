//! CPU time of all cores.
//!
//! What counts is the time of our own processes, of the kernel's network threads, and all time in
//! interrupts, whoever was interrupted: on a machine that does nothing else this is what
//! `/proc/stat` says of all cores, and on one that is shared it leaves the others' processes out.

use std::fs;

use serde::Serialize;

/// Ticks of `/proc` a second (`USER_HZ`, the same on every architecture that Weir runs on).
const TICKS: f64 = 100.0;
/// Kernel threads that carry packets.
const THREADS: [&str; 3] = ["napi/", "ksoftirqd/", "backlog_napi/"];

/// CPU seconds since some time before.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cpu {
    /// Our processes and the kernel's network threads.
    pub threads_s: f64,
    /// Interrupts, on all cores.
    pub interrupts_s: f64,
    /// Everything that is not idle, whoever's it is.
    pub machine_s: f64,
}

impl Cpu {
    /// Until now; `processes` are those that count beside this one.
    pub fn now(processes: &[u32]) -> Cpu {
        let own = std::process::id();
        let counted = processes
            .iter()
            .copied()
            .chain([own])
            .chain(kernel_threads());
        let threads: u64 = counted.map(ticks_of).sum();
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let (interrupts, machine) = machine(&stat);
        Cpu {
            threads_s: threads as f64 / TICKS,
            interrupts_s: interrupts as f64 / TICKS,
            machine_s: machine as f64 / TICKS,
        }
    }

    /// From `before` until this.
    pub fn since(self, before: Cpu) -> Cpu {
        Cpu {
            threads_s: self.threads_s - before.threads_s,
            interrupts_s: self.interrupts_s - before.interrupts_s,
            machine_s: self.machine_s - before.machine_s,
        }
    }

    /// Seconds that the measurement used, without what the machine's interrupts take anyway.
    pub fn used(self, idle_interrupts: f64, seconds: f64) -> f64 {
        self.threads_s + (self.interrupts_s - idle_interrupts * seconds).max(0.0)
    }
}

fn kernel_threads() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers
        .filter(|pid: &u32| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            THREADS.iter().any(|thread| name.starts_with(thread))
        })
        .collect()
}

fn ticks_of(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    process(&stat).unwrap_or(0)
}

/// User and system time in `/proc/PID/stat`, whose second field may contain anything.
fn process(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Time in interrupts, and all time that is neither idle nor stolen, in `/proc/stat`.
fn machine(stat: &str) -> (u64, u64) {
    let line = stat.lines().next().unwrap_or_default();
    let numbers: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .map(|number| number.parse().unwrap_or(0))
        .collect();
    let field = |at: usize| numbers.get(at).copied().unwrap_or(0);
    let interrupts = field(5) + field(6);
    (interrupts, field(0) + field(1) + field(2) + interrupts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_in_what_the_kernel_prints() {
        let stat = "cpu  10 2 30 400 5 6 7 80 0 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n";
        assert_eq!(machine(stat), (13, 55));
        let stat = "12 (a) b) S 1 2 3 4 5 6 7 8 9 10 111 222 3 4 20";
        assert_eq!(process(stat), Some(333));
        assert_eq!(process(""), None);
    }

    #[test]
    fn work_of_our_own_is_counted() {
        let before = Cpu::now(&[]);
        let begun = std::time::Instant::now();
        while begun.elapsed().as_millis() < 100 {
            std::hint::black_box(0);
        }
        assert!(Cpu::now(&[]).since(before).threads_s > 0.0);
    }

    #[test]
    fn what_interrupts_take_anyway_is_subtracted() {
        let cpu = Cpu {
            threads_s: 1.0,
            interrupts_s: 0.5,
            machine_s: 9.0,
        };
        assert_eq!(cpu.used(0.1, 2.0), 1.3);
        assert_eq!(cpu.used(1.0, 2.0), 1.0);
    }
}
