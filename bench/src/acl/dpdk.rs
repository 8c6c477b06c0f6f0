//! The peer: DPDK's `dpdk-test-acl`, which classifies the packets of a file by the rules of a file
//! with `rte_acl` and says how many cycles each took.

use std::path::Path;
use std::process::Command;

use super::rules::{FiveTuple, Packet, rules_file, trace_file};
use crate::error::BenchError;

/// The program; Debian has it in `dpdk-dev`.
const PROGRAM: &str = "dpdk-test-acl";
/// Memory that it reserves, MiB: building a trie of 100,000 rules takes some.
const MEMORY_MIB: u32 = 3072;
/// Times that it classifies the whole trace in one run.
const ITERATIONS: u32 = 20;

/// One run's result.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Classified {
    /// Cycles of the time-stamp counter for each packet.
    pub cycles: f64,
    /// Cycles of the time-stamp counter in a second.
    pub cycles_per_second: f64,
}

/// Files that the program reads, in a folder of their own that goes with this.
#[derive(Debug)]
pub struct Peer {
    folder: std::path::PathBuf,
    rules: usize,
    packets: usize,
}

impl Drop for Peer {
    fn drop(&mut self) {
        // What cannot be removed is left in the temporary folder.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Peer {
    /// Writes the files. None if the program is not on this machine.
    pub fn new(rules: &[FiveTuple], packets: &[Packet]) -> Result<Option<Peer>, BenchError> {
        if Command::new(PROGRAM).arg("--version").output().is_err() {
            return Ok(None);
        }
        let name = format!("weir-bench-acl-{}-{}", std::process::id(), rules.len());
        let folder = std::env::temp_dir().join(name);
        let peer = Peer {
            folder,
            rules: rules.len(),
            packets: packets.len(),
        };
        let failed =
            |error: std::io::Error| BenchError::Setup(format!("{PROGRAM}'s files: {error}"));
        std::fs::create_dir_all(&peer.folder).map_err(failed)?;
        std::fs::write(peer.file("rules"), rules_file(rules)).map_err(failed)?;
        std::fs::write(peer.file("trace"), trace_file(packets)).map_err(failed)?;
        Ok(Some(peer))
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.folder.join(name)
    }

    /// Runs it once, with the fastest algorithm that it finds for this processor.
    pub fn run(&self) -> Result<Classified, BenchError> {
        let text = self.output(ITERATIONS, 0)?;
        parse_summary(&text).ok_or_else(|| unread(&text))
    }

    /// For each packet whether some rule matches it.
    pub fn matches(&self) -> Result<Vec<bool>, BenchError> {
        let text = self.output(1, 3)?;
        let results: Vec<bool> = text.lines().filter_map(parse_result).collect();
        if results.len() != self.packets {
            return Err(unread(&text));
        }
        Ok(results)
    }

    fn output(&self, iterations: u32, verbose: u32) -> Result<String, BenchError> {
        let path = |option: &str, path: &Path| format!("--{option}={}", path.display());
        let output = Command::new(PROGRAM)
            .args(["--no-pci", "--no-telemetry", "--lcores", "0"])
            .args(memory_arguments())
            .arg("--")
            .arg(path("rulesf", &self.file("rules")))
            .arg(path("tracef", &self.file("trace")))
            .arg(format!("--rulenum={}", self.rules))
            .arg(format!("--tracenum={}", self.packets))
            .arg(format!("--iter={iterations}"))
            .arg(format!("--verbose={verbose}"))
            .output()
            .map_err(|error| BenchError::Setup(format!("{PROGRAM}: {error}")))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said.lines().last().unwrap_or_default();
            return Err(BenchError::Setup(format!("{PROGRAM} failed: {last}")));
        }
        Ok(text)
    }
}

/// Huge pages where the machine has free ones, ordinary memory otherwise, as our own tables are in.
fn memory_arguments() -> Vec<String> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let free_kib = |line: &str| {
        let count = line.strip_prefix("HugePages_Free:")?.trim();
        count.parse::<u32>().ok()
    };
    let enough = meminfo
        .lines()
        .find_map(free_kib)
        .is_some_and(|pages| pages * 2 >= MEMORY_MIB);
    let mut arguments = vec!["-m".to_owned(), MEMORY_MIB.to_string()];
    if !enough {
        arguments.push("--no-huge".to_owned());
    }
    arguments
}

fn unread(text: &str) -> BenchError {
    let last = text.lines().last().unwrap_or("nothing");
    BenchError::Setup(format!("{PROGRAM} printed what cannot be read: {last}"))
}

/// `… 20 iterations, 2000000 pkts, 1 categories, 228979836 cycles (0.09 sec), 114.49 cycles/pkt,
/// 22709423.20 pkt/sec`
fn parse_summary(text: &str) -> Option<Classified> {
    let line = text.lines().find(|line| line.contains("cycles/pkt"))?;
    let before = |word: &str| {
        let words = line[..line.find(word)?].trim_end();
        words.rsplit([' ', ',']).next()?.parse::<f64>().ok()
    };
    let cycles = before(" cycles/pkt")?;
    Some(Classified {
        cycles,
        cycles_per_second: cycles * before(" pkt/sec")?,
    })
}

/// `ipv4_5tuple: 1, category: 0, result: 7660`, the rule from 0; all ones is no rule.
fn parse_result(line: &str) -> Option<bool> {
    let rest = line.strip_prefix("ipv4_5tuple: ")?;
    let (_, result) = rest.split_once("result: ")?;
    Some(result.trim().parse::<u32>().ok()? != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_program_prints_is_read() {
        let text = "search_ip5tuples  @lcore 0: 20 iterations, 2000000 pkts, 1 categories, \
                    228979836 cycles (0.09 sec), 114.49 cycles/pkt, 22709423.20 pkt/sec\n";
        let read = parse_summary(text).unwrap();
        assert_eq!(read.cycles, 114.49);
        assert_eq!((read.cycles_per_second / 1e8).round(), 26.0);
        assert_eq!(parse_summary("nothing of the kind"), None);
        let line = "ipv4_5tuple: 1, category: 0, result: 0";
        assert_eq!(parse_result(line), Some(true));
        assert_eq!(
            parse_result("ipv4_5tuple: 2, category: 0, result: 4294967295"),
            Some(false)
        );
        assert_eq!(parse_result("dump_config:"), None);
    }
}
