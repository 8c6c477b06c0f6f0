//! What a run has measured, as its JSON form has it.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::idle::Idle;
use super::jitter::Jitter;
use super::tcp::Placement;
use crate::statistics::Summary;

/// A forwarder's packets.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PacketRow {
    /// Who.
    pub name: String,
    /// How: copy mode, which cores.
    pub mode: String,
    /// Packets a second with no more than the stated loss.
    pub throughput: Summary,
    /// Packets a second that were sent in overload.
    pub offered: Summary,
    /// And that arrived.
    pub forwarded: Summary,
    /// CPU seconds of all cores, generator and sink included, for a million packets that arrived
    /// in overload.
    pub cpu_s_per_million: Summary,
    /// The same as `/proc/stat` has it, with everybody else on the machine.
    pub machine_s_per_million: Summary,
    /// Packets that arrived out of order in overload.
    pub reordered: u64,
    /// Packets a second when each is a connection of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_flows: Option<Summary>,
}

/// Latencies at one load, microseconds from the time that a packet was due.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LatencyRow {
    /// Who.
    pub name: String,
    /// Of whose throughput the load is a share.
    pub load: String,
    /// Packets a second that were due.
    pub rate: f64,
    /// Packets that arrived.
    pub packets: u64,
    /// The share that did not.
    pub loss: f64,
    /// Percentiles and the maximum.
    pub percentiles: Percentiles,
}

/// Single packets, each so long after the one before.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WakeRow {
    /// Who.
    pub name: String,
    /// From one packet to the next, microseconds.
    pub gap_us: u64,
    /// Packets that arrived.
    pub packets: u64,
    /// The share that did not.
    pub loss: f64,
    /// Percentiles and the maximum, from the time that a packet was due.
    pub percentiles: Percentiles,
    /// Share of one core that the forwarder used, percent; none if it is no process of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub core_percent: Option<Summary>,
}

/// Of a histogram, microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Percentiles {
    /// 50 %.
    pub p50: f64,
    /// 90 %.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p999: f64,
    /// 99.99 %.
    pub p9999: f64,
    /// All.
    pub max: f64,
}

impl Percentiles {
    /// Of these times, nanoseconds.
    pub fn of(times: &Histogram<u64>) -> Percentiles {
        let at = |share| times.value_at_quantile(share) as f64 / 1000.0;
        Percentiles {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: times.max() as f64 / 1000.0,
        }
    }
}

/// TCP at one placement of client and server.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TcpRow {
    /// Who.
    pub name: String,
    /// Where client and server ran.
    pub placement: Placement,
    /// Gigabits a second of one stream.
    pub stream_gbps: Summary,
    /// A request and its response: half took no longer, microseconds.
    pub request_p50_us: Summary,
    /// 99 % took no longer.
    pub request_p99_us: Summary,
    /// Connections a second, one after the other.
    pub connections: Summary,
}

/// What policy and conntrack add to AF_XDP forwarding.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Added {
    /// Pairs of trials.
    pub pairs: usize,
    /// Nanoseconds a packet.
    pub nanoseconds: Summary,
    /// Cycles a packet at the clock that the kernel names; none if it names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cycles: Option<Summary>,
    /// The middle half of the pairs, in cycles or else nanoseconds.
    pub middle_half: [f64; 2],
    /// The least share of what was offered that AF_XDP forwarding left: near zero the generator
    /// was the limit and the true cost is greater.
    pub raw_loss: f64,
}

/// Everything.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Results {
    /// Before the measurements, on the generator's and on the worker's core.
    pub jitter: [Jitter; 2],
    /// After them.
    pub jitter_after: [Jitter; 2],
    /// Seconds of interrupts a second that the machine has anyway, all cores.
    pub idle_interrupts: f64,
    /// Busy cores before the measurement began: others' work.
    pub busy_before: f64,
    /// Packets.
    pub packets: Vec<PacketRow>,
    /// Weir's throughput over each other's, pairs of the same round.
    pub ratios: BTreeMap<String, Summary>,
    /// Latencies.
    pub latencies: Vec<LatencyRow>,
    /// TCP.
    pub tcp: Vec<TcpRow>,
    /// Single packets.
    pub wakes: Vec<WakeRow>,
    /// What policy and conntrack add.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub added: Option<Added>,
    /// A node at rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<Idle>,
}
