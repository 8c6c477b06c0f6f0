//! Batched look-ups of connections beside `rte_hash`'s bulk look-ups: the same keys in the same order,
//! tables of as many entries with as much room, interleaved runs.
//!
//! Ours says more for its cycles: the entry is read, its ends, epochs and time-out are checked, and
//! state, verdict and counters come with it. `rte_hash` compares the key and gives a pointer.

use dataplane::FlowKey;
use dataplane::conntrack::{BATCH, Ends};
use serde::Serialize;

use super::Arguments;
use super::rte_hash::Program;
use super::workload::{Workload, found_all, time_batches};
use crate::cluster::Numbers;
use crate::error::BenchError;
use crate::machine;
use crate::statistics::Summary;

/// Octets of `rte_hash`'s keys: the tuple with addresses of 128 bits, which is what our table keeps;
/// the same padded to a size that `rte_hash` has a comparison of its own for; and IPv4's, which a
/// table for IPv4 alone could do with.
const KEYS: [(usize, &str); 3] = [
    (37, "37-octet keys, as ours"),
    (48, "the same padded to 48"),
    (13, "13-octet keys, IPv4 only"),
];

/// Results of both.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Beside {
    flows: u32,
    runs: u16,
    /// Cycles a look-up.
    ours: Summary,
    theirs: Vec<Theirs>,
}

/// Results of `rte_hash` with one kind of key.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Theirs {
    key_bytes: usize,
    key: &'static str,
    cycles: Summary,
    /// Of the pairs of runs, ours over theirs.
    ratio: Summary,
}

/// Measures both, run by run in turns.
pub fn compare(arguments: &Arguments, workload: &Workload) -> Result<Beside, BenchError> {
    let flows = arguments.peer_flows;
    let world = workload.populated(flows)?;
    let packets = once_each(workload, flows);
    let program = Program::compile()?;
    let mut peers = Vec::new();
    if let Some(program) = &program {
        for (key_bytes, _) in KEYS.iter().filter(|key| key.0 != 13 || !arguments.ipv6) {
            let bytes: Vec<u8> = packets
                .iter()
                .flat_map(|(key, _)| packed(key, *key_bytes))
                .collect();
            let room = flows + flows / 4;
            peers.push(program.start(&bytes, *key_bytes, room.max(64))?);
        }
    }
    let mut ours = Vec::new();
    let mut theirs = vec![Vec::new(); peers.len()];
    // One run of each first that does not count.
    for run in 0..=arguments.runs {
        let (count, elapsed) = time_batches(&world, packets.chunks(BATCH));
        found_all("look-ups beside rte_hash", count, packets.len() as u64)?;
        let cycles = elapsed.as_nanos() as f64 / count as f64 * machine::cycles_per_ns();
        for (peer, theirs) in peers.iter_mut().zip(&mut theirs) {
            let cycles = peer.run()?;
            if run > 0 {
                theirs.push(cycles);
            }
        }
        if run > 0 {
            ours.push(cycles);
        }
    }
    let none = || BenchError::Setup("no run was asked for".to_owned());
    let theirs = KEYS.iter().zip(theirs).map(|((key_bytes, key), cycles)| {
        let ratios: Vec<f64> = ours.iter().zip(&cycles).map(|(a, b)| a / b).collect();
        Ok(Theirs {
            key_bytes: *key_bytes,
            key,
            cycles: Summary::of(&cycles).ok_or_else(none)?,
            ratio: Summary::of(&ratios).ok_or_else(none)?,
        })
    });
    Ok(Beside {
        flows,
        runs: arguments.runs,
        theirs: theirs.collect::<Result<_, BenchError>>()?,
        ours: Summary::of(&ours).ok_or_else(none)?,
    })
}

/// The keys of all `flows` connections, each once, in random order.
fn once_each(workload: &Workload, flows: u32) -> Vec<(FlowKey, Ends)> {
    let mut order: Vec<u32> = (0..flows).collect();
    let mut numbers = Numbers(9);
    for last in (1..order.len()).rev() {
        order.swap(last, numbers.below(last as u32 + 1) as usize);
    }
    let question = |number| workload.key(number, true);
    order.into_iter().map(question).collect()
}

/// A key's octets: addresses of both ends, ports, protocol, and padding.
fn packed(key: &FlowKey, key_bytes: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(key_bytes);
    let keep = if key_bytes < 37 { 4 } else { 16 };
    for address in [key.source, key.destination] {
        bytes.extend_from_slice(&address.0.to_be_bytes()[16 - keep..]);
    }
    bytes.extend_from_slice(&key.source_port.to_be_bytes());
    bytes.extend_from_slice(&key.destination_port.to_be_bytes());
    bytes.push(key.protocol.0);
    bytes.resize(key_bytes, 0);
    bytes
}

impl Beside {
    /// The table's rows.
    pub fn rows(&self) -> Vec<Vec<String>> {
        let row = |name: String, cycles: &Summary, last: String| {
            let per_ns = machine::cycles_per_ns();
            vec![
                name,
                format!("{:.1}", cycles.median / per_ns),
                format!("{:.1}–{:.1}", cycles.min / per_ns, cycles.max / per_ns),
                format!("{:.0}", cycles.median),
                last,
            ]
        };
        let rate =
            |cycles: &Summary| format!("{:.2} M", machine::cycles_per_ns() * 1e3 / cycles.median);
        let name = format!("conntrack, batches, each of {} once", self.flows);
        let mut rows = vec![row(name, &self.ours, rate(&self.ours))];
        rows.extend(self.theirs.iter().map(|theirs| {
            let ratio = &theirs.ratio;
            let last = format!(
                "ours {:.2}× ({:.2}–{:.2})",
                ratio.median, ratio.min, ratio.max
            );
            row(
                format!("  rte_hash bulk, {}", theirs.key),
                &theirs.cycles,
                last,
            )
        }));
        rows
    }

    /// What a reader must know.
    pub fn note(&self) -> String {
        match self.theirs.is_empty() {
            true => "DPDK is not here: install libdpdk-dev (Debian) and a C compiler for rte_hash."
                .to_owned(),
            false => format!(
                "Beside rte_hash: the same keys in the same order, runs in turns, bulks of 32, 4 KiB \
                 pages both;\nours reads the entry and checks its ends, epochs and time-out, theirs \
                 gives a pointer. {} pairs.",
                self.runs
            ),
        }
    }
}
