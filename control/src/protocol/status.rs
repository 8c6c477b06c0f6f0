//! How the daemon is: `status`, `counters`, `audit` and `metrics`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Reply of `status`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Of the daemon.
    pub version: String,
    /// Of the daemon.
    pub pid: u32,
    /// From the configuration.
    pub instance: String,
    /// From the configuration.
    pub node: String,
    /// Since the daemon's start.
    pub uptime_seconds: u64,
    /// Live generation.
    pub generation: u64,
    /// `ok`, or what is wrong.
    pub health: String,
    /// By worker.
    pub workers: Vec<WorkerStatus>,
    /// By port.
    pub ports: Vec<PortStatus>,
    /// Connections.
    pub conntrack: ConntrackStatus,
    /// Objects in the store, by resource.
    pub objects: BTreeMap<String, usize>,
    /// The denial log.
    pub log: LogStatus,
    /// Clients connected.
    pub clients: u32,
}

/// One worker.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerStatus {
    /// Its number.
    pub index: u32,
    /// Its core.
    pub core: u32,
    /// Generation it acknowledged.
    pub generation: u64,
    /// Whether its thread runs.
    pub alive: bool,
}

/// One port.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortStatus {
    /// Its number.
    pub port: u16,
    /// Its interface.
    pub interface: String,
    /// `pod`, `uplink`, `host-node`, `host-transit`.
    pub role: String,
    /// Index of the worker that owns each of its receive queues.
    pub workers: Vec<u32>,
    /// The pod, `NS/POD`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The pod's UID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// The pod's addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// Whether its policy is live; before, it passes nothing.
    pub ready: bool,
    /// What is wrong with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Where its rings ran full or empty, since it was added.
    #[serde(default)]
    pub rings: RingStatus,
}

/// The kernel's counters of a port's AF_XDP sockets (`struct xdp_statistics`), summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RingStatus {
    /// Packets that found the RX ring full.
    pub rx_ring_full: u64,
    /// Packets that found the fill ring empty.
    pub rx_fill_ring_empty: u64,
    /// Packets that were dropped: no frame to receive into, or larger than one.
    pub rx_dropped: u64,
    /// Descriptors in the fill ring that the kernel refused.
    pub rx_invalid_descriptors: u64,
    /// Descriptors in the TX rings that the kernel refused.
    pub tx_invalid_descriptors: u64,
    /// Times that the kernel looked for something to transmit and found nothing.
    pub tx_ring_empty: u64,
}

/// The connection table.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConntrackStatus {
    /// Entries in use.
    pub entries: u64,
    /// Entries there can be.
    pub capacity: u64,
}

/// The denial log.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogStatus {
    /// Its file.
    pub path: String,
    /// Lines written since the start.
    pub lines: u64,
    /// Events lost on the way to it, since the start.
    pub lost: u64,
}

/// Reply of `counters`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CountersReply {
    /// By name, over all workers.
    pub counters: BTreeMap<String, u64>,
    /// Packets dropped, by [`dataplane::DropReason`] name, those that are not 0.
    pub drops: BTreeMap<String, u64>,
}

/// `audit`'s reply: where every chunk of packet memory is. Workers stop meanwhile, for some tens of
/// microseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditReply {
    /// Chunks there are.
    pub chunks: u32,
    /// Free.
    pub free: u32,
    /// In workers' hands.
    pub held: u32,
    /// Lent to the kernel to receive into.
    pub fill: u32,
    /// On their way out.
    pub transmit: u32,
    /// Of ports that are gone, on their way back.
    pub closing: u32,
    /// Chunks that are in two places, or in none, and the like; none if all is well.
    pub problems: Vec<String>,
}

/// Reply of `metrics`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricsReply {
    /// Prometheus' text exposition format 0.0.4.
    pub text: String,
}
