//! `load`: what has been counted so far, for rates between two looks.

use serde::{Deserialize, Serialize};

/// Reply of `load`. Counts begin with the daemon and never fall while a port or pod is the same.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Load {
    /// The node.
    pub node: String,
    /// When, in nanoseconds of a clock that only this machine has.
    pub time_ns: u64,
    /// By worker.
    pub workers: Vec<WorkerLoad>,
    /// By port.
    pub ports: Vec<PortLoad>,
    /// Connections in the table.
    pub connections: u64,
    /// Connections there can be.
    pub connections_max: u64,
    /// Frames that are free.
    pub frames_free: u64,
    /// Frames there are.
    pub frames: u64,
}

/// What one worker has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerLoad {
    /// Its number.
    pub worker: u32,
    /// Its core.
    pub core: u32,
    /// Nanoseconds of rounds that had packets.
    pub busy_ns: u64,
    /// Packets it has received.
    pub packets: u64,
    /// Bytes it has received.
    pub bytes: u64,
    /// New flows that it has asked policy about.
    pub flow_decisions: u64,
    /// Times it went to sleep.
    pub sleeps: u64,
}

/// What has come and gone by one port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortLoad {
    /// Its number.
    pub port: u16,
    /// Its interface.
    pub interface: String,
    /// `pod`, `uplink`, `host-node`, `host-transit`.
    pub role: String,
    /// The pod's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The pod's UID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Packets that came in by it: what a pod has sent.
    pub in_packets: u64,
    /// Their bytes.
    pub in_bytes: u64,
    /// Packets that went out by it: what a pod has received.
    pub out_packets: u64,
    /// Their bytes.
    pub out_bytes: u64,
    /// Packets that came in by it and were dropped.
    pub dropped: u64,
    /// Packets that its rings had no room for.
    pub stalled: u64,
    /// Connections that count in a pod's share of the table: those it has opened, and those that
    /// came to it from outside.
    pub connections: u64,
}
