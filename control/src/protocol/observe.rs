//! `observe`: flows, as they are decided.

use serde::{Deserialize, Serialize};

use super::Lost;
use crate::flow::Flow;
use crate::flow::filter::FlowFilter;

/// Method name of an observer's notifications; their params are an [`ObserveEvent`].
pub const OBSERVE_NOTIFICATION: &str = "observe";

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
    pub lost: Option<Lost>,
}
