//! `top node`: the node, its workers, and the ports that are no pods'.

use serde_json::{Value, json};

use super::{Look, Shown, percent, rate, rounded, short, twice};
use crate::cli::session::VerbError;
use crate::cli::table::Table;
use crate::client::Client;
use crate::protocol::{Load, PortLoad, WorkerLoad};

/// One look at the node.
pub fn shown(client: &mut Client, names: &[String], look: &Look) -> Result<Shown, VerbError> {
    let (before, after, seconds) = twice(client, look.interval)?;
    if let Some(name) = names.iter().find(|name| **name != after.node) {
        let text = format!("Error from server (NotFound): nodes {name:?} not found");
        return Err(VerbError::Several(vec![VerbError::Local(text)]));
    }
    Ok(Shown {
        tables: tables(&before, &after, seconds),
        json: value(&before, &after, seconds),
        notes: Vec::new(),
    })
}

/// One worker's rates.
struct Busy {
    worker: WorkerLoad,
    /// Of a core.
    share: f64,
    packets: f64,
    bytes: f64,
    flow_decisions: f64,
    sleeps: f64,
}

fn workers(before: &Load, after: &Load, seconds: f64) -> Vec<Busy> {
    let pairs = before.workers.iter().zip(&after.workers);
    pairs
        .map(|(was, is)| Busy {
            worker: *is,
            share: (rate(was.busy_ns, is.busy_ns, seconds) / 1e9).min(1.0),
            packets: rate(was.packets, is.packets, seconds),
            bytes: rate(was.bytes, is.bytes, seconds),
            flow_decisions: rate(was.flow_decisions, is.flow_decisions, seconds),
            sleeps: rate(was.sleeps, is.sleeps, seconds),
        })
        .collect()
}

/// A port before and now.
fn ports<'a>(before: &'a Load, after: &'a Load) -> Vec<(&'a PortLoad, &'a PortLoad)> {
    let now = after.ports.iter();
    now.filter_map(|is| {
        let was = before.ports.iter();
        let mut same = was.filter(|was| was.port == is.port && was.uid == is.uid);
        Some((same.next()?, is))
    })
    .collect()
}

fn sum(pairs: &[(&PortLoad, &PortLoad)], read: impl Fn(&PortLoad) -> u64, seconds: f64) -> f64 {
    let rates = pairs
        .iter()
        .map(|(was, is)| rate(read(was), read(is), seconds));
    rates.sum()
}

fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn tables(before: &Load, after: &Load, seconds: f64) -> Vec<Table> {
    let (busy, pairs) = (workers(before, after, seconds), ports(before, after));
    let total = |read: fn(&Busy) -> f64| busy.iter().map(read).sum::<f64>();
    let mut node = Table::new([
        "NAME",
        "BUSY(cores)",
        "PACKETS(/s)",
        "BITS(/s)",
        "NEW FLOWS(/s)",
        "DROPPED(/s)",
        "RING STALLS(/s)",
        "CONNECTIONS",
        "FULL",
        "FRAMES IN USE",
    ]);
    node.push(vec![
        after.node.clone(),
        format!("{:.2}/{}", total(|busy| busy.share), busy.len()),
        short(total(|busy| busy.packets)),
        short(total(|busy| busy.bytes) * 8.0),
        short(total(|busy| busy.flow_decisions)),
        short(sum(&pairs, |port| port.dropped, seconds)),
        short(sum(&pairs, |port| port.stalled, seconds)),
        after.connections.to_string(),
        percent(share(after.connections, after.connections_max)),
        percent(share(
            after.frames.saturating_sub(after.frames_free),
            after.frames,
        )),
    ]);
    let mut workers = Table::new([
        "WORKER",
        "CORE",
        "BUSY",
        "PACKETS(/s)",
        "BITS(/s)",
        "NEW FLOWS(/s)",
        "SLEEPS(/s)",
    ]);
    for busy in &busy {
        workers.push(vec![
            busy.worker.worker.to_string(),
            busy.worker.core.to_string(),
            percent(busy.share),
            short(busy.packets),
            short(busy.bytes * 8.0),
            short(busy.flow_decisions),
            short(busy.sleeps),
        ]);
    }
    let mut others = Table::new([
        "PORT",
        "ROLE",
        "IN(pkt/s)",
        "IN(bit/s)",
        "OUT(pkt/s)",
        "OUT(bit/s)",
        "DROPPED(/s)",
        "RING STALLS(/s)",
    ]);
    for (was, is) in pairs.iter().filter(|(_, is)| is.pod.is_none()) {
        let rate = |read: fn(&PortLoad) -> u64| rate(read(was), read(is), seconds);
        others.push(vec![
            is.interface.clone(),
            is.role.clone(),
            short(rate(|port| port.in_packets)),
            short(rate(|port| port.in_bytes) * 8.0),
            short(rate(|port| port.out_packets)),
            short(rate(|port| port.out_bytes) * 8.0),
            short(rate(|port| port.dropped)),
            short(rate(|port| port.stalled)),
        ]);
    }
    vec![node, workers, others]
}

fn value(before: &Load, after: &Load, seconds: f64) -> Value {
    let pairs = ports(before, after);
    let workers = workers(before, after, seconds).into_iter().map(|busy| {
        json!({
            "worker": busy.worker.worker,
            "core": busy.worker.core,
            "busy": rounded(busy.share),
            "packetsPerSecond": rounded(busy.packets),
            "bytesPerSecond": rounded(busy.bytes),
            "flowDecisionsPerSecond": rounded(busy.flow_decisions),
            "sleepsPerSecond": rounded(busy.sleeps),
        })
    });
    let others = pairs.iter().filter(|(_, is)| is.pod.is_none());
    let others = others.map(|(was, is)| {
        let rate = |read: fn(&PortLoad) -> u64| rounded(rate(read(was), read(is), seconds));
        json!({
            "interface": is.interface,
            "role": is.role,
            "inPacketsPerSecond": rate(|port| port.in_packets),
            "inBytesPerSecond": rate(|port| port.in_bytes),
            "outPacketsPerSecond": rate(|port| port.out_packets),
            "outBytesPerSecond": rate(|port| port.out_bytes),
            "droppedPacketsPerSecond": rate(|port| port.dropped),
            "ringStallsPerSecond": rate(|port| port.stalled),
        })
    });
    json!({
        "seconds": rounded(seconds),
        "node": after.node,
        "workers": workers.collect::<Vec<_>>(),
        "ports": others.collect::<Vec<_>>(),
        "droppedPacketsPerSecond": rounded(sum(&pairs, |port| port.dropped, seconds)),
        "ringStallsPerSecond": rounded(sum(&pairs, |port| port.stalled, seconds)),
        "connections": after.connections,
        "connectionsMax": after.connections_max,
        "framesFree": after.frames_free,
        "frames": after.frames,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_as_busy_as_its_rounds_with_packets_took() {
        let load = |busy_ns, packets| Load {
            node: "n1".into(),
            workers: vec![WorkerLoad {
                core: 3,
                busy_ns,
                packets,
                ..WorkerLoad::default()
            }],
            connections: 25,
            connections_max: 100,
            frames: 10,
            frames_free: 4,
            ..Load::default()
        };
        let (before, after) = (load(5, 10), load(500_000_005, 2010));
        let value = value(&before, &after, 2.0);
        assert_eq!(value["workers"][0]["busy"], 0.25);
        assert_eq!(value["workers"][0]["packetsPerSecond"], 1000.0);
        let text: Vec<String> = tables(&before, &after, 2.0)
            .iter()
            .map(|table| table.render(false))
            .collect();
        assert!(text[0].starts_with("n1   0.25/1   1.0k   0"), "{text:?}");
        assert!(text[0].ends_with("25   25%   60%\n"), "{text:?}");
        assert_eq!(text[1], "0   3   25%   1.0k   0   0   0\n");
    }
}
