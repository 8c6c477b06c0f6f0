//! `watch` and `log.follow`: what changes, and what is denied, as it happens.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Method name of a watch's notifications; their params are a [`WatchEvent`].
pub const WATCH_NOTIFICATION: &str = "watch";

/// Method name of a log follower's notifications; their params are a [`LogLine`].
pub const LOG_NOTIFICATION: &str = "log";

/// `watch`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WatchParams {
    /// As [`Target::resource`](super::Target::resource). Empty: every kind.
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

/// A log follower's notification.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogLine {
    /// Of [`WatchReply`].
    pub subscription: u64,
    /// The line without its end.
    pub line: String,
}
