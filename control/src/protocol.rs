//! What the control socket speaks: newline-delimited JSON-RPC 2.0
//! (<https://www.jsonrpc.org/specification>).
//!
//! One JSON value a line, both ways. Requests are pipelined: replies come in the requests' order,
//! notifications of a client's watches in between. Batches (arrays) are not taken.
//!
//! | method | params | result |
//! | --- | --- | --- |
//! | `apply` `create` `replace` | [`ApplyParams`] | [`Mutation`] |
//! | `patch` | [`PatchParams`] | [`Mutation`] |
//! | `delete` | [`DeleteParams`] | [`Mutation`] |
//! | `updateStatus` | [`UpdateStatusParams`] | [`Mutation`] |
//! | `get` | [`GetParams`] | [`GetReply`] |
//! | `watch` | [`WatchParams`] | [`WatchReply`], then [`WatchEvent`] notifications |
//! | `unwatch` | [`WatchReply`] | `{}` |
//! | `endpoint.add` | [`EndpointAddParams`] | [`EndpointAdded`] |
//! | `endpoint.remove` | [`EndpointRemoveParams`] | [`Mutation`] without results |
//! | `status` | `{}` | [`Status`] |
//! | `trace` | [`TraceParams`] | [`Explained`] |
//! | `matrix` | [`MatrixParams`] | [`Explained`] |
//! | `counters` | `{}` | [`CountersReply`] |
//! | `conntrack.list` | [`ConntrackListParams`] | [`ConntrackListReply`] |
//! | `conntrack.flush` | [`ConntrackFlushParams`] | [`ConntrackFlushReply`] |
//! | `log.follow` | `{}` | [`WatchReply`], then [`LogLine`] notifications |
//! | `observe` | [`ObserveParams`] | [`ObserveReply`], then [`ObserveEvent`] notifications |
//! | `metrics` | `{}` | [`MetricsReply`] |
//! | `hits` | [`HitsParams`] | [`HitsReply`] |
//! | `load` | `{}` | [`Load`] |
//! | `capture` | [`CaptureParams`] | [`CaptureReply`], then [`CaptureEvent`]s |
//! | `capture.stop` | [`CaptureStopParams`] | [`CaptureSummary`] |
//! | `pod.policies` | [`PodPoliciesParams`] | [`PodPoliciesReply`] |

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::flow::filter::FlowFilter;
use crate::flow::{Flow, FlowEnd, FlowVerdict};

mod capture;
mod load;

pub use capture::*;
pub use load::*;

/// The protocol's version, in every message.
pub const JSONRPC: &str = "2.0";
/// Method name of a watch's notifications; their params are a [`WatchEvent`].
pub const WATCH_NOTIFICATION: &str = "watch";
/// Method name of a log follower's notifications; their params are a [`LogLine`].
pub const LOG_NOTIFICATION: &str = "log";
/// Method name of an observer's notifications; their params are an [`ObserveEvent`].
pub const OBSERVE_NOTIFICATION: &str = "observe";

/// A call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// [`JSONRPC`].
    pub jsonrpc: String,
    /// Number or string, given back with the reply.
    pub id: Value,
    /// Method.
    pub method: String,
    /// An object; absent is `{}`.
    #[serde(default)]
    pub params: Value,
}

/// A reply: exactly one of `result` and `error`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Response {
    /// [`JSONRPC`].
    pub jsonrpc: String,
    /// The request's id; null if it could not be read.
    pub id: Value,
    /// What the method gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorObject>,
}

/// What comes unasked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Notification {
    /// [`JSONRPC`].
    pub jsonrpc: String,
    /// [`WATCH_NOTIFICATION`], [`LOG_NOTIFICATION`] or [`OBSERVE_NOTIFICATION`].
    pub method: String,
    /// What it says.
    pub params: Value,
}

/// A JSON-RPC error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorObject {
    /// -32700 parse error, -32600 invalid request, -32601 no such method, -32602 bad params,
    /// [`REFUSED`] otherwise.
    pub code: i64,
    /// What was wrong, in one line or several; kubectl prints it behind
    /// `Error from server (REASON): `.
    pub message: String,
    /// Why, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<ErrorDetail>,
}

/// Code of every error that is not about JSON-RPC itself.
pub const REFUSED: i64 = -32000;

/// What a program needs to know of an error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorDetail {
    /// Kubernetes' `metav1.StatusReason`, or one of ours.
    pub reason: Reason,
    /// Warnings gathered before the refusal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The index, among the objects sent, of the one that was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<usize>,
}

/// Kubernetes' `metav1.StatusReason` (apimachinery `pkg/apis/meta/v1/types.go`), as far as used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// No such object, namespace or kind.
    NotFound,
    /// Exists already.
    AlreadyExists,
    /// The object changed since, or the expected generation is not the current one.
    Conflict,
    /// Fails validation.
    Invalid,
    /// Cannot be understood.
    BadRequest,
    /// Understood and refused.
    Forbidden,
    /// No such method on this kind.
    MethodNotAllowed,
    /// A bound was reached.
    TooManyRequests,
    /// The message is too long.
    RequestEntityTooLarge,
    /// The workers did not acknowledge in time; the change is made nonetheless.
    Timeout,
    /// Cannot be done now: a port could not be made, the dataplane does not run.
    ServiceUnavailable,
    /// A mistake in Weir, or the disk.
    InternalError,
}

impl Reason {
    /// As it is written, `NotFound`.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::NotFound => "NotFound",
            Reason::AlreadyExists => "AlreadyExists",
            Reason::Conflict => "Conflict",
            Reason::Invalid => "Invalid",
            Reason::BadRequest => "BadRequest",
            Reason::Forbidden => "Forbidden",
            Reason::MethodNotAllowed => "MethodNotAllowed",
            Reason::TooManyRequests => "TooManyRequests",
            Reason::RequestEntityTooLarge => "RequestEntityTooLarge",
            Reason::Timeout => "Timeout",
            Reason::ServiceUnavailable => "ServiceUnavailable",
            Reason::InternalError => "InternalError",
        }
    }
}

/// What to do with fields that a kind does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FieldValidation {
    /// Refuse.
    #[default]
    Strict,
    /// Warn.
    Warn,
    /// Take no notice.
    Ignore,
}

/// `apply`, `create`, `replace`: one transaction over all objects.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApplyParams {
    /// Whole objects, `List`s among them.
    pub objects: Vec<Value>,
    /// Namespace of objects that name none; by default `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Refuse with `Conflict` unless this is the live generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_generation: Option<u64>,
    /// Do everything but the change.
    #[serde(default)]
    pub dry_run: bool,
    /// Unknown fields.
    #[serde(default)]
    pub field_validation: FieldValidation,
}

/// How a patch is merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PatchType {
    /// RFC 7396.
    Merge,
    /// Kubernetes' strategic merge.
    #[default]
    Strategic,
    /// RFC 6902.
    Json,
}

/// Names one object, or all of a kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Target {
    /// Plural, singular, short name or kind, a group behind a dot if need be: `po`, `netpol`,
    /// `networkpolicies.networking.k8s.io`.
    pub resource: String,
    /// Namespace; by default `default`. Without effect on cluster-scoped kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
}

/// `patch`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PatchParams {
    /// Which object.
    pub target: Target,
    /// How.
    #[serde(rename = "type", default)]
    pub patch_type: PatchType,
    /// With what.
    pub patch: Value,
    /// Do everything but the change.
    #[serde(default)]
    pub dry_run: bool,
    /// Unknown fields.
    #[serde(default)]
    pub field_validation: FieldValidation,
}

/// `delete`: one transaction over all targets.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeleteParams {
    /// Which objects.
    pub targets: Vec<Target>,
    /// Targets that do not exist are no error.
    #[serde(default)]
    pub ignore_not_found: bool,
    /// Seconds that a pod gets to end; a pod with a runner is removed by its runner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_period: Option<u32>,
    /// Do everything but the change.
    #[serde(default)]
    pub dry_run: bool,
    /// What only they own stays, without an owner.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub orphan: bool,
}

/// `updateStatus`: replaces the object's `status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateStatusParams {
    /// Which object.
    pub target: Target,
    /// Refuse with `Conflict` unless the object has this UID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Its new status.
    pub status: Value,
}

/// Names an object in replies.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    /// `networking.k8s.io/v1`.
    pub api_version: String,
    /// `NetworkPolicy`.
    pub kind: String,
    /// As kubectl prints it before the slash: `networkpolicy.networking.k8s.io`, `pod`.
    pub resource: String,
    /// Namespace of a namespaced kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
}

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OperationKind {
    /// Was not there before.
    Created,
    /// Changed by `apply`.
    Configured,
    /// As it was.
    Unchanged,
    /// Changed by `replace`.
    Replaced,
    /// Changed by `patch` or `updateStatus`.
    Patched,
    /// Gone.
    Deleted,
    /// Marked as going (`metadata.deletionTimestamp`); its runner removes it.
    Terminating,
}

/// What became of one object.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    /// Which.
    #[serde(flatten)]
    pub reference: ObjectRef,
    /// What.
    pub operation: OperationKind,
    /// The object as it is now, or as it was if it is gone.
    pub object: Value,
}

/// How many workers adopted a generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workers {
    /// Acknowledged.
    pub live: u32,
    /// Configured.
    pub total: u32,
}

/// Reply of every call that changes something, sent after every worker has adopted the change.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mutation {
    /// By object, in the order they were sent.
    pub results: Vec<Operation>,
    /// For a person, on stderr behind `Warning: `.
    pub warnings: Vec<String>,
    /// The live generation.
    pub generation: u64,
    /// Who adopted it.
    pub workers: Workers,
    /// From publication to the last acknowledgement, µs.
    pub elapsed_micros: u64,
    /// From the arrival of the request's last byte to the last acknowledgement, µs; 0 if nothing had
    /// to be published.
    #[serde(default)]
    pub request_micros: u64,
    /// Of a change that was asked for and not made (`dryRun`): what it would do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<Preview>,
}

/// What a change would open, close and cut.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Preview {
    /// What may pass then and may not now, at most [`crate::preview::MAX_GROUPS`].
    pub opens: Vec<PreviewGroup>,
    /// Pairs of senders and receivers in `opens` and in what did not fit there.
    pub opened_pairs: u64,
    /// What may pass now and may not then.
    pub closes: Vec<PreviewGroup>,
    /// As [`Preview::opened_pairs`].
    pub closed_pairs: u64,
    /// Pairs that were not compared, because there are too many.
    pub pairs_left_out: u64,
    /// Connections of now that would be cut, at most [`crate::daemon::preview::MAX_CUTS`].
    pub cuts: Vec<PreviewCut>,
    /// Connections that would be cut, those that did not fit into `cuts` among them.
    pub cut_connections: u64,
    /// Connections that were not looked at, because there are too many.
    pub connections_left_out: u64,
    /// Of policies that the change puts into audit mode, or changes there: all of the above is
    /// without them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audited: Option<AuditPreview>,
}

/// What would be if the policies in audit mode were enforced, those too that the change leaves alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditPreview {
    /// The policies that the change is about, `networkpolicy.networking.k8s.io/deny`.
    pub policies: Vec<String>,
    /// What they would let pass, as [`Preview::opens`].
    pub opens: Vec<PreviewGroup>,
    /// As [`Preview::opened_pairs`].
    pub opened_pairs: u64,
    /// What they would not.
    pub closes: Vec<PreviewGroup>,
    /// As [`Preview::opened_pairs`].
    pub closed_pairs: u64,
    /// Pairs that were not compared, because there are too many.
    pub pairs_left_out: u64,
}

/// Pairs that have the same in common: each of `from` to each of `to`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreviewGroup {
    /// `NS/POD`, a prefix (addresses in it that are no pod's), `other IPv4 addresses`.
    pub from: Vec<String>,
    /// Senders that did not fit into `from`.
    pub more_from: u64,
    /// As `from`.
    pub to: Vec<String>,
    /// Receivers that did not fit into `to`.
    pub more_to: u64,
    /// `TCP 80, 443; UDP 53`, `everything`.
    pub ports: String,
    /// How many pairs these are.
    pub pairs: u64,
}

/// A connection that would be cut.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreviewCut {
    /// `NS/POD` or the address of the initiator.
    pub from: String,
    /// `NS/POD` or the address of the responder.
    pub to: String,
    /// `TCP`, or the protocol's number.
    pub protocol: String,
    /// The initiator's port.
    pub source_port: u16,
    /// The responder's port.
    pub destination_port: u16,
    /// Who would deny it: `ingress: isolated by NS/NAME, no rule allows it`.
    pub reason: String,
}

impl Mutation {
    /// `generation 42 live on 2/2 workers in 83 µs`.
    pub fn summary(&self) -> String {
        format!(
            "generation {} live on {}/{} workers in {} µs",
            self.generation, self.workers.live, self.workers.total, self.elapsed_micros
        )
    }
}

/// `get`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GetParams {
    /// As [`Target::resource`].
    pub resource: String,
    /// Namespace; by default `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// All of them.
    #[serde(default)]
    pub all_namespaces: bool,
    /// One object: its absence is `NotFound`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// As kubectl's `-l`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<String>,
    /// `metadata.name`, `metadata.namespace`, `status.phase`, … with `=`, `==`, `!=`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field_selector: Option<String>,
}

/// Reply of `get`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetReply {
    /// `v1`.
    pub api_version: String,
    /// `Pod`.
    pub kind: String,
    /// `pods`, with the group behind a dot if it has one.
    pub resource: String,
    /// Whether the kind has namespaces.
    pub namespaced: bool,
    /// The objects, by namespace and name.
    pub items: Vec<Value>,
    /// The store's version.
    pub resource_version: String,
}

/// `watch`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WatchParams {
    /// As [`Target::resource`]. Empty: every kind.
    pub resources: Vec<String>,
    /// Only this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Reply of `watch` and `log.follow`, parameter of `unwatch`, which ends an `observe` too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchReply {
    /// Number of this subscription on this connection.
    pub subscription: u64,
}

/// Kind of a watch's event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum WatchEventType {
    /// New, or there already when the watch began.
    Added,
    /// Changed.
    Modified,
    /// Gone; the object is its last state.
    Deleted,
    /// Everything that was there when the watch began has been sent.
    Synced,
}

/// A watch's notification.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WatchEvent {
    /// Of [`WatchReply`].
    pub subscription: u64,
    /// What happened.
    #[serde(rename = "type")]
    pub event: WatchEventType,
    /// To what; null with [`WatchEventType::Synced`].
    #[serde(default)]
    pub object: Value,
}

/// `endpoint.add`: a pod's interface. The reply comes after its policy is live on every worker; the
/// port passes nothing before (semantics D10).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointAddParams {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's UID. Adding the same UID with the same interface again is no error.
    pub uid: String,
    /// The host-side end of its veth pair, in the daemon's network namespace.
    pub interface: String,
    /// MAC of the pod's end, `02:00:…`.
    pub mac: String,
    /// The pod's addresses, at most one per family.
    pub addresses: Vec<IpAddr>,
}

/// Reply of `endpoint.add`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointAdded {
    /// Number of its port.
    pub port: u16,
    /// Its incarnation.
    pub incarnation: u32,
    /// MAC that the pod sees its gateway with.
    pub gateway_mac: String,
    /// Gateway addresses that the daemon answers ARP and neighbour discovery for.
    pub gateways: Vec<IpAddr>,
    /// Warnings, for a person.
    pub warnings: Vec<String>,
    /// The live generation.
    pub generation: u64,
    /// Who adopted it.
    pub workers: Workers,
    /// From publication to the last acknowledgement, µs.
    pub elapsed_micros: u64,
}

/// `endpoint.remove`. An unknown UID is `NotFound`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointRemoveParams {
    /// The pod's UID.
    pub uid: String,
}

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
    pub objects: std::collections::BTreeMap<String, usize>,
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

/// An end of a `trace`, and of the flow it asks about: `NS/POD`, an address, `NS/SERVICE`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TraceParams {
    /// Sender: `NS/POD` or an address.
    pub from: String,
    /// Receiver: `NS/POD`, an address or `NS/SERVICE`.
    pub to: String,
    /// Destination port, number or name; absent for protocols without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// `TCP` (the default), `UDP`, `SCTP`, `ICMP`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Namespace of ends that name none; by default `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

impl TraceParams {
    /// Sender and receiver, names with their namespaces.
    pub fn ends(&self) -> [String; 2] {
        [&self.from, &self.to].map(|end| match &self.namespace {
            Some(namespace) if !end.contains('/') && end.parse::<std::net::IpAddr>().is_err() => {
                format!("{namespace}/{end}")
            }
            _ => end.clone(),
        })
    }
}

/// `matrix`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MatrixParams {
    /// As `--port`: `80/TCP`, `icmp`. Empty: every containerPort of the destination.
    #[serde(default)]
    pub ports: Vec<String>,
    /// As `--with`: addresses, CIDRs or `NS/SERVICE` beside the pods.
    #[serde(default)]
    pub with: Vec<String>,
    /// Only pods of this namespace; by default all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Reply of `trace` and `matrix`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explained {
    /// For a person.
    pub text: String,
    /// For a program, as `-o json` prints it.
    pub json: Value,
}

/// Reply of `counters`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CountersReply {
    /// By name, over all workers.
    pub counters: std::collections::BTreeMap<String, u64>,
    /// Packets dropped, by [`dataplane::DropReason`] name, those that are not 0.
    pub drops: std::collections::BTreeMap<String, u64>,
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

/// Which connections are meant: those that every member takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ConntrackFilter {
    /// Filters of which one must take it, if there are any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<FlowFilter>,
    /// Filters of which none may take it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<FlowFilter>,
    /// Either end is a pod of this namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Either end is a pod that this label selector picks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// States, as [`ConntrackEntry::state`] has them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<String>,
    /// Names, as [`ConntrackEntry::name`] has them; at most 256.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
}

/// `conntrack.list`: a part of the table. One call looks at a bounded part only, so that a full table
/// keeps nobody waiting; the whole is asked for in calls until there is no `next`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ConntrackListParams {
    /// At most so many entries, and never more than 500.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Where the part begins: `next` of the last reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<u32>,
    /// Which entries.
    pub filter: ConntrackFilter,
}

/// Reply of `conntrack.list`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConntrackListReply {
    /// Entries in the table.
    pub total: u64,
    /// Those of this part that are meant; there may be none.
    pub entries: Vec<ConntrackEntry>,
    /// Where the next part begins; none behind the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u32>,
}

/// `conntrack.flush`: removes connections of a part of the table, as `conntrack.list` lists them.
/// Their next packets are judged as those of strangers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ConntrackFlushParams {
    /// Where the part begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<u32>,
    /// Which entries. One that takes all of them wants `all` beside it.
    pub filter: ConntrackFilter,
    /// Whether no filter at all is meant.
    pub all: bool,
    /// Whether to count only.
    pub dry_run: bool,
}

/// Reply of `conntrack.flush`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConntrackFlushReply {
    /// Entries of this part that are gone, or would be.
    pub flushed: u64,
    /// Where the next part begins; none behind the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u32>,
}

/// [`ConntrackEntry::state`] of a connection that policy denied.
pub const DENIED_STATE: &str = "DENIED";

/// One connection, as its initiator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConntrackEntry {
    /// `PROTOCOL_SOURCE_PORT_DESTINATION_PORT`, in lower case.
    pub name: String,
    /// `TCP`, `UDP`, `SCTP`, `ICMP`, `ICMPV6`, or the protocol's number.
    pub protocol: String,
    /// Initiator.
    pub source: FlowEnd,
    /// Responder.
    pub destination: FlowEnd,
    /// The Service that the initiator asked for, `NS/NAME:PORT`; null where it asked for none.
    #[serde(default)]
    pub service: Option<String>,
    /// [`DENIED_STATE`], or the state in the words of Linux's `conntrack`: `ESTABLISHED`, …
    pub state: String,
    /// What policy decided.
    pub verdict: FlowVerdict,
    /// Policy that decided, `NS/NAME`; null where none did.
    pub policy: Option<String>,
    /// Seconds since it was last refreshed.
    pub idle_seconds: u64,
    /// Seconds since its first packet.
    pub age_seconds: u64,
    /// Seconds of further silence after which it goes.
    pub expires_seconds: u64,
}

/// A log follower's notification.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogLine {
    /// Of [`WatchReply`].
    pub subscription: u64,
    /// The line without its end.
    pub line: String,
}

/// `observe`: flows of the recent past, and those to come.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ObserveParams {
    /// Whether to send flows as they come. Connections that pass are told of only while somebody
    /// follows who wants them, or if `log.accepts` is set.
    pub follow: bool,
    /// At most so many flows of the recent past; by default all that are held and wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<u32>,
    /// The oldest of them instead of the newest.
    pub first: bool,
    /// None before this moment, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// None of the recent past after this moment, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Flows that one of these takes; by default every flow.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<FlowFilter>,
    /// But none that one of these takes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<FlowFilter>,
}

/// Reply of `observe`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObserveReply {
    /// Number of this subscription on this connection, if it follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscription: Option<u64>,
    /// Flows of the recent past, the oldest first.
    pub flows: Vec<Flow>,
    /// Whether connections that pass are told of at present.
    pub accepts: bool,
}

/// An observer's notification: a flow, or how many there would have been.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObserveEvent {
    /// Of [`ObserveReply`].
    pub subscription: u64,
    /// What happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow: Option<Flow>,
    /// What is not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<FlowsLost>,
}

/// Flows that an observer is not told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowsLost {
    /// Wanted, but the client did not take what was sent before.
    pub client: u64,
    /// More happened at once than is told of: nobody knows whether they were wanted.
    pub daemon: u64,
}

impl FlowsLost {
    /// Whether nothing is lost.
    pub fn is_nothing(&self) -> bool {
        *self == FlowsLost::default()
    }
}

/// Reply of `metrics`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricsReply {
    /// Prometheus' text exposition format 0.0.4.
    pub text: String,
}

/// `hits`: what rules have decided.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HitsParams {
    /// Only policies of this kind, `NetworkPolicy`; by default all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Only this one; with a kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its namespace, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Reply of `hits`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HitsReply {
    /// By kind, namespace and name.
    pub policies: Vec<PolicyHits>,
    /// Rules that there is no counter for (`limits.rule_counters`).
    pub without_counter: u64,
    /// Combinations of rules that there is no counter for (`limits.compound_counters`).
    #[serde(default)]
    pub without_compound: u64,
}

/// What the rules of one policy have decided, or let go on to what decides, since the daemon's
/// start or the policy's last change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyHits {
    /// `NetworkPolicy`.
    pub kind: String,
    /// Its namespace; null for kinds without.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Whether it is in audit mode: it decides nothing then.
    pub audit: bool,
    /// Pods of the cluster that it is about, `NS/POD`.
    pub pods: Vec<String>,
    /// By direction and rule, default denials last.
    pub rules: Vec<RuleHit>,
}

impl PolicyHits {
    /// Connections and packets of all rules together.
    pub fn totals(&self) -> (u64, u64) {
        let connections = self.rules.iter().map(|rule| rule.connections).sum();
        let packets = self.rules.iter().map(|rule| rule.packets).sum();
        (connections, packets)
    }

    /// When a rule last matched; null if none ever did.
    pub fn last_hit(&self) -> Option<&str> {
        self.rules
            .iter()
            .filter_map(|rule| rule.last_hit.as_deref())
            .max()
    }

    /// Rules that never matched, `ingress[0]`; default denials are not among them.
    pub fn never_matched(&self) -> Vec<String> {
        let silent = self
            .rules
            .iter()
            .filter(|rule| rule.packets == 0 && rule.is_counted);
        silent
            .filter_map(|rule| {
                let direction = rule.direction.name().to_lowercase();
                Some(format!("{direction}[{}]", rule.rule?))
            })
            .collect()
    }
}

/// What one rule has decided or, if it is a Pass or a security group's, has let go on. Of the rules
/// of one tier only the first that matches is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleHit {
    /// Direction.
    pub direction: crate::flow::FlowDirection,
    /// Index in the policy's list for the direction; null: what it denies because no rule matches.
    pub rule: Option<u16>,
    /// Whether it is counted: not in audit mode, nor beyond `limits.rule_counters`, nor, if it lets
    /// traffic go on, where `limits.compound_counters` leaves some of that out.
    pub is_counted: bool,
    /// Connections that it decided or let go on. A live connection that is decided again counts once
    /// more if any of the rules that had a part in it is another.
    pub connections: u64,
    /// Their packets, in both directions, dropped ones too.
    pub packets: u64,
    /// When the last one was seen, to about a second, RFC 3339; null if there was none.
    pub last_hit: Option<String>,
}

/// `pod.policies`: the policies that are about a pod.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodPoliciesParams {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
}

/// Reply of `pod.policies`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodPoliciesReply {
    /// By kind, namespace and name.
    pub policies: Vec<PodPolicy>,
}

/// A policy that is about a pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodPolicy {
    /// `NetworkPolicy`.
    pub kind: String,
    /// Its namespace; null for kinds without.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Whether it is in audit mode.
    pub audit: bool,
}
