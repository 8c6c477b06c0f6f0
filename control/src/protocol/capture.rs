//! `capture`: packets as the dataplane sees them, with what became of them.

use k8s_openapi::ByteString;
use serde::{Deserialize, Serialize};

use super::Lost;
use crate::flow::Flow;
use crate::flow::filter::FlowFilter;

/// Method name of a capture's notifications; their params are a [`CaptureEvent`].
pub const CAPTURE_NOTIFICATION: &str = "capture";

/// `capture`: packets of some ports.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CaptureParams {
    /// Each an interface, a port's number, or a pod: `NS/POD`, `pod/POD`, `POD`; `any` is every port
    /// there is at the start.
    pub targets: Vec<String>,
    /// Namespace of pods that are named without one; by default `default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Bytes of a packet at most; by default all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snaplen: Option<u32>,
    /// Whether packets come with their [`Flow`].
    pub flows: bool,
    /// Packets that one of these takes; by default every packet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<FlowFilter>,
    /// But none that one of these takes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<FlowFilter>,
}

/// Reply of `capture`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CaptureReply {
    /// Number of this subscription on this connection.
    pub subscription: u64,
    /// Every port there is: packets may come from ports that nobody asked for, if they were dropped
    /// on their way to one.
    pub interfaces: Vec<CaptureInterface>,
    /// Bytes of a packet at most.
    pub snaplen: u32,
}

/// A port that packets were captured on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CaptureInterface {
    /// Its number.
    pub port: u16,
    /// Its interface.
    pub name: String,
    /// `pod`, `uplink`, `host-node`, `host-transit`.
    pub role: String,
    /// The pod, `NS/POD`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Its own Ethernet address.
    pub mac: [u8; 6],
}

/// Which way a packet went on the port it was captured on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CaptureDirection {
    /// It came in by the port.
    In,
    /// It went out by the port.
    Out,
}

/// A packet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CapturedPacket {
    /// Nanoseconds since 1970: when the burst that it came in was taken from the ring.
    pub time_ns: u64,
    /// The port.
    pub port: u16,
    /// Which way.
    pub direction: CaptureDirection,
    /// Its length, Ethernet header included.
    pub length: u32,
    /// What became of it, by whom and why.
    pub comment: String,
    /// Its bytes, or as many as were wanted.
    pub data: ByteString,
    /// Its flow, if that was wanted and it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow: Option<Flow>,
}

/// A capture's notification.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CaptureEvent {
    /// Of [`CaptureReply`].
    pub subscription: u64,
    /// Packets, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packets: Vec<CapturedPacket>,
    /// Ports that have come since.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<CaptureInterface>,
    /// Packets that are not told of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Lost>,
    /// Why nothing more comes: the ports are gone, or it was stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}

/// `capture.stop`: ends a capture.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CaptureStopParams {
    /// Of [`CaptureReply`].
    pub subscription: u64,
}

/// Reply of `capture.stop`. What was captured follows it, up to the notification with
/// [`CaptureEvent::ended`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CaptureSummary {
    /// The ports that were asked for and are still there.
    pub interfaces: Vec<InterfaceSummary>,
    /// What was lost and not told of yet.
    pub lost: Lost,
}

/// What happened on a port since a capture began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InterfaceSummary {
    /// The port.
    pub port: u16,
    /// Packets received from it.
    pub received: u64,
    /// Packets from it that found no room in its rings.
    pub dropped: u64,
}
