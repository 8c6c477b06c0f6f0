//! `conntrack.list` and `conntrack.flush`: connections.

use serde::{Deserialize, Serialize};

use crate::flow::filter::FlowFilter;
use crate::flow::{FlowEnd, FlowVerdict};

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
