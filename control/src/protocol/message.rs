//! The envelope: calls, replies, notifications, errors.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The protocol's version, in every message.
pub const JSONRPC: &str = "2.0";

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
    /// [`WATCH_NOTIFICATION`](super::WATCH_NOTIFICATION), or another subscription's.
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
    /// A patch of a type that the kind does not take.
    UnsupportedMediaType,
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
            Reason::UnsupportedMediaType => "UnsupportedMediaType",
            Reason::TooManyRequests => "TooManyRequests",
            Reason::RequestEntityTooLarge => "RequestEntityTooLarge",
            Reason::Timeout => "Timeout",
            Reason::ServiceUnavailable => "ServiceUnavailable",
            Reason::InternalError => "InternalError",
        }
    }
}
