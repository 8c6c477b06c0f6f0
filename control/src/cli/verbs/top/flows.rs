//! `top flows`: the heaviest flows, by the packets themselves. Entries of connections count no bytes,
//! so that this looks at packets as a capture does, and says how many it could not look at.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::time::Instant;

use serde_json::{Value, json};

use super::super::capture::{self, wait};
use super::{Key, LIMIT, Look, Shown, rounded, short};
use crate::cli::session::{Session, VerbError};
use crate::cli::table::Table;
use crate::client::Client;
use crate::flow::{Flow, FlowEnd, FlowVerdict};
use crate::protocol::{CaptureEvent, CaptureParams, CaptureReply, Lost};

/// Bytes of a packet that say whose it is.
const SNAPLEN: u32 = 128;
/// Flows that are told apart in one look; packets of further ones are counted together.
const FLOWS_MAX: usize = 10_000;

/// What names a flow here.
type Name = (String, String, String, &'static str);

/// One direction of a connection.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    packets: u64,
    bytes: u64,
}

/// What one look has seen.
#[derive(Debug, Default)]
struct Seen {
    flows: HashMap<Name, Sum>,
    /// Of flows beyond those that are told apart, and of what is no IP.
    others: u64,
    lost: Lost,
}

impl Seen {
    fn take(&mut self, event: &CaptureEvent, is_wanted: impl Fn(&Flow) -> bool) {
        self.lost += event.lost.unwrap_or_default();
        for packet in &event.packets {
            let Some(flow) = &packet.flow else {
                self.others += 1;
                continue;
            };
            if !is_wanted(flow) {
                continue;
            }
            let verdict = match flow.verdict {
                FlowVerdict::Dropped => "DROPPED",
                _ => "FORWARDED",
            };
            let ends = (end(&flow.source), end(&flow.destination));
            let name = (ends.0, ends.1, flow.protocol.clone(), verdict);
            let is_full = self.flows.len() >= FLOWS_MAX;
            let sum = match self.flows.entry(name) {
                Entry::Vacant(_) if is_full => {
                    self.others += 1;
                    continue;
                }
                entry => entry.or_default(),
            };
            sum.packets += 1;
            sum.bytes += u64::from(packet.length);
        }
    }
}

fn end(end: &FlowEnd) -> String {
    match (end.pod_name(), end.port) {
        (Some(pod), Some(port)) => format!("{pod}:{port}"),
        (Some(pod), None) => pod,
        (None, Some(port)) => SocketAddr::new(end.ip, port).to_string(),
        (None, None) => end.ip.to_string(),
    }
}

/// One look at the flows.
pub fn shown(
    session: &Session,
    client: &mut Client,
    names: &[String],
    look: &Look,
) -> Result<Shown, VerbError> {
    if let Some(name) = names.first() {
        let text = format!("unexpected argument {name:?}: `weir top flows` shows all of them");
        return Err(VerbError::Usage(text));
    }
    let all = session.parsed.is_on("all-namespaces");
    let namespace = session.namespace().filter(|_| !all);
    let is_wanted = |flow: &Flow| {
        let is_in = |end: &FlowEnd| end.namespace == namespace;
        namespace.is_none() || is_in(&flow.source) || is_in(&flow.destination)
    };
    let params = CaptureParams {
        targets: vec!["any".into()],
        snaplen: Some(SNAPLEN),
        flows: true,
        ..CaptureParams::default()
    };
    let reply: CaptureReply = client.call("capture", &params)?;
    let begin = Instant::now();
    let deadline = begin + look.interval;
    let mut seen = Seen::default();
    while wait(client, None, Some(deadline))? {
        seen.take(&client.next_capture()?, is_wanted);
    }
    let seconds = begin.elapsed().as_secs_f64();
    let each = |event: &CaptureEvent| seen.take(event, is_wanted);
    let summary = capture::stop(client, reply.subscription, each)?;
    seen.lost.client += summary.lost.client;
    seen.lost.daemon += summary.lost.daemon;
    Ok(tell(seen, seconds, look))
}

fn tell(seen: Seen, seconds: f64, look: &Look) -> Shown {
    let mut rows: Vec<(Name, Sum)> = seen.flows.into_iter().collect();
    let key = look.sort_by.unwrap_or(Key::Bytes);
    rows.sort_by_key(|(name, sum)| {
        let number = match key {
            Key::Name | Key::Connections => 0,
            Key::Packets => sum.packets,
            Key::Bytes => sum.bytes,
            Key::Drops if name.3 == "DROPPED" => sum.packets,
            Key::Drops => 0,
        };
        (std::cmp::Reverse(number), name.clone())
    });
    let flows = rows.len();
    rows.truncate(look.limit.unwrap_or(LIMIT));
    let mut table = Table::new([
        "SOURCE",
        "DESTINATION",
        "PROTOCOL",
        "VERDICT",
        "PACKETS(/s)",
        "BITS(/s)",
    ]);
    let mut values: Vec<Value> = Vec::new();
    for ((source, destination, protocol, verdict), sum) in rows {
        let packets = sum.packets as f64 / seconds;
        let bytes = sum.bytes as f64 / seconds;
        values.push(json!({
            "source": source,
            "destination": destination,
            "protocol": protocol,
            "verdict": verdict,
            "packetsPerSecond": rounded(packets),
            "bytesPerSecond": rounded(bytes),
        }));
        table.push(vec![
            source,
            destination,
            protocol,
            verdict.to_owned(),
            short(packets),
            short(bytes * 8.0),
        ]);
    }
    let lost = seen.lost.client + seen.lost.daemon;
    let mut notes = Vec::new();
    if lost > 0 && !look.json {
        notes.push(format!(
            "{lost} packets were too many to be looked at: rates are of the others alone"
        ));
    }
    if flows == 0 && !look.json {
        notes.push("No packets".to_owned());
    }
    Shown {
        tables: if flows == 0 { Vec::new() } else { vec![table] },
        json: json!({
            "seconds": rounded(seconds),
            "flows": values,
            "flowsSeen": flows,
            "otherPackets": seen.others,
            "lostPackets": lost,
        }),
        notes,
    }
}
