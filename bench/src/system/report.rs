//! The results as rows, notes and plots.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::plot::{Bar, Chart, Group};
use super::results::{PacketRow, Percentiles, Results, TcpRow, WakeRow};
use super::{Arguments, Plan, setup};
use crate::error::BenchError;
use crate::output::{self, Report};
use crate::statistics::Summary;

/// Columns of the widest section.
const COLUMNS: usize = 8;

/// The report of a run.
pub fn report(
    arguments: &Arguments,
    plan: &Plan,
    results: &Results,
    mut notes: Vec<String>,
) -> Report {
    let (mut first, mut rows) = (Vec::new(), Vec::new());
    let mut section = |heads: &[&'static str], lines: Vec<Vec<String>>| {
        if lines.is_empty() {
            return;
        }
        if first.is_empty() {
            first = heads.to_vec();
            // As many as the widest section has.
            first.resize(COLUMNS, "");
        } else {
            rows.push(Vec::new());
            rows.push(heads.iter().map(|head| (*head).to_owned()).collect());
        }
        rows.extend(lines);
    };
    section(
        &[
            "64-byte UDP, Mpps",
            "no loss",
            "min–max",
            "Weir is ×",
            "overload: in",
            "out",
            "CPU s/M",
            "new flows, M/s",
        ],
        results
            .packets
            .iter()
            .map(|row| packets(row, results))
            .collect(),
    );
    section(
        &[
            "latency, µs",
            "load",
            "Mpps",
            "p50",
            "p99",
            "p99.9",
            "p99.99",
        ],
        results
            .latencies
            .iter()
            .map(|row| {
                let Percentiles {
                    p50,
                    p99,
                    p999,
                    p9999,
                    ..
                } = row.percentiles;
                let mut cells = vec![row.name.clone(), row.load.clone(), millions(row.rate)];
                cells.extend([p50, p99, p999, p9999].map(|value| format!("{value:.1}")));
                cells
            })
            .collect(),
    );
    section(
        &[
            "TCP, one connection",
            "client, server on",
            "Gbit/s",
            "request p50, µs",
            "p99",
            "connections/s",
        ],
        results.tcp.iter().map(tcp).collect(),
    );
    section(
        &[
            "single packets, µs",
            "one every",
            "p50",
            "p99",
            "p99.9",
            "of a core, %",
        ],
        results.wakes.iter().map(wake).collect(),
    );
    notes.insert(0, conditions(arguments, plan, results));
    notes.extend(added(results));
    notes.extend(idle(results));
    Report {
        benchmark: "system",
        arguments: json!({"plan": plan, "measure": arguments.measure, "peers": arguments.peers,
                          "nice": arguments.nice}),
        heads: first,
        rows,
        results: output::value(results),
        notes,
    }
}

fn millions(value: f64) -> String {
    format!("{:.2}", value / 1e6)
}

fn packets(row: &PacketRow, results: &Results) -> Vec<String> {
    let Summary { median, min, max } = row.throughput;
    let ratio = results.ratios.get(&row.name);
    vec![
        format!("{} ({})", row.name, row.mode),
        millions(median),
        format!("{}–{}", millions(min), millions(max)),
        ratio.map_or(String::new(), |ratio| format!("{:.2}", ratio.median)),
        millions(row.offered.median),
        millions(row.forwarded.median),
        format!("{:.2}", row.cpu_s_per_million.median),
        row.new_flows
            .map_or(String::new(), |flows| millions(flows.median)),
    ]
}

fn tcp(row: &TcpRow) -> Vec<String> {
    vec![
        row.name.clone(),
        format!("{}, {}", row.placement.client, row.placement.server),
        format!("{:.1}", row.stream_gbps.median),
        format!("{:.1}", row.request_p50_us.median),
        format!("{:.1}", row.request_p99_us.median),
        format!("{:.0}", row.connections.median),
    ]
}

fn wake(row: &WakeRow) -> Vec<String> {
    let Percentiles { p50, p99, p999, .. } = row.percentiles;
    let mut cells = vec![row.name.clone(), row.gap_us.to_string()];
    cells.extend([p50, p99, p999].map(|value| format!("{value:.1}")));
    let share = row.core_percent;
    cells.push(share.map_or(String::new(), |share| format!("{:.1}", share.median)));
    cells
}

fn conditions(arguments: &Arguments, plan: &Plan, results: &Results) -> String {
    let floor = |at: usize| {
        let [before, after] = [results.jitter[at], results.jitter_after[at]];
        format!(
            "gaps p99.99 {:.1} µs (after: {:.1}), longest {:.0} ({:.0}), 250 µs of arithmetic p50 \
             {:.0}, p99 {:.0} ({:.0})",
            before.gap_p9999_us,
            after.gap_p9999_us,
            before.gap_max_us,
            after.gap_max_us,
            before.piece_p50_us,
            before.piece_p99_us,
            after.piece_p99_us,
        )
    };
    format!(
        "{} flows from pod to pod, established before. Generator and sink: AF_XDP (copy) on the \
         pods' side of their veths, one thread on core {} that never sleeps; it is in the CPU \
         seconds of every row. Each of {} rounds visits all forwarders, the next one the other way \
         round; medians. No loss: at most {} % in {} ms, {} halvings, a rate that fails is tried \
         once more. CPU: seconds of all cores in overload for a million packets that arrived: our \
         processes, the kernel's network threads and all interrupts, of which {:.3} s a second are \
         there anyway. Latency: from when a packet was due; loads are shares of the slowest \
         forwarder's throughput, or of one's own. Others kept {:.2} cores busy before it began; \
         ours ran at {}. Jitter floor without any device, core {}: {}; core {}: {}. No \
         zero-copy: veth has none. Kernel pktgen is not used: {}.",
        plan.flows,
        plan.generator,
        plan.rounds,
        plan.loss * 100.0,
        plan.trial.as_millis(),
        plan.halvings,
        results.idle_interrupts,
        results.busy_before,
        arguments
            .nice
            .map_or("its usual priority".to_owned(), |nice| format!(
                "nice {nice}"
            )),
        plan.generator,
        floor(0),
        plan.worker,
        floor(1),
        if Path::new("/proc/net/pktgen").exists() {
            "it would need a core for a sink of its own"
        } else {
            "this kernel has none"
        },
    )
}

fn added(results: &Results) -> Option<String> {
    let added = results.added.as_ref()?;
    let unit = if added.cycles.is_some() {
        "cycles"
    } else {
        "ns"
    };
    let median = added.cycles.unwrap_or(added.nanoseconds);
    Some(format!(
        "Policy and conntrack add {:.0} {unit} a packet to AF_XDP forwarding end to end (median of \
         {} interleaved pairs in overload; middle half {:.0} to {:.0}, all {:.0} to {:.0}). AF_XDP \
         forwarding lost at least {:.1} % of what was offered: near zero the generator was the \
         limit, and the true cost is greater.",
        median.median,
        added.pairs,
        added.middle_half[0],
        added.middle_half[1],
        median.min,
        median.max,
        added.raw_loss * 100.0,
    ))
}

fn idle(results: &Results) -> Option<String> {
    let idle = results.idle.as_ref()?;
    Some(format!(
        "At rest with {} pods and {} workers: {:.2} % of one core over {:.0} s, {:.1} MiB of its \
         own and {:.0} MiB shared, {:.0} KiB of kernel memory a pod (VmallocUsed), {} sockets.",
        idle.pods,
        idle.workers,
        idle.core_percent,
        idle.seconds,
        idle.anonymous_kib as f64 / 1024.0,
        idle.shared_kib as f64 / 1024.0,
        idle.kernel_kib_per_pod,
        idle.sockets,
    ))
}

/// Writes the plots of what was measured into a folder.
pub fn plots(results: &Results, folder: &Path) -> Result<(), BenchError> {
    fs::create_dir_all(folder).map_err(setup)?;
    for (name, chart) in charts(results) {
        fs::write(folder.join(name), chart.svg()).map_err(setup)?;
    }
    Ok(())
}

fn charts(results: &Results) -> Vec<(&'static str, Chart)> {
    let mut charts = Vec::new();
    let bars = |value: fn(&PacketRow) -> f64| {
        results
            .packets
            .iter()
            .map(|row| Group {
                name: row.name.clone(),
                bars: vec![Bar {
                    name: String::new(),
                    value: value(row),
                }],
            })
            .collect::<Vec<_>>()
    };
    if !results.packets.is_empty() {
        charts.push((
            "throughput.svg",
            Chart {
                title: "64-byte UDP from pod to pod without loss".to_owned(),
                unit: "million packets a second; more is better".to_owned(),
                groups: bars(|row| row.throughput.median / 1e6),
                digits: 2,
                logarithmic: false,
            },
        ));
        charts.push((
            "cpu.svg",
            Chart {
                title: "CPU seconds of all cores for a million packets".to_owned(),
                unit: "seconds, generator and sink included; less is better".to_owned(),
                groups: bars(|row| row.cpu_s_per_million.median),
                digits: 2,
                logarithmic: false,
            },
        ));
    }
    let half: Vec<_> = results
        .latencies
        .iter()
        .filter(|row| row.load.starts_with("50 %"))
        .collect();
    if let Some(first) = half.first() {
        let groups = half.iter().map(|row| {
            let Percentiles {
                p50,
                p99,
                p999,
                p9999,
                ..
            } = row.percentiles;
            let named = [
                ("p50", p50),
                ("p99", p99),
                ("p99.9", p999),
                ("p99.99", p9999),
            ];
            let bars = named.map(|(name, value)| Bar {
                name: name.to_owned(),
                value,
            });
            Group {
                name: row.name.clone(),
                bars: bars.into(),
            }
        });
        charts.push((
            "latency.svg",
            Chart {
                title: format!(
                    "Latency from pod to pod at {} million packets a second",
                    millions(first.rate)
                ),
                unit: "microseconds, logarithmic; less is better".to_owned(),
                groups: groups.collect(),
                digits: 1,
                logarithmic: true,
            },
        ));
    }
    charts
}
