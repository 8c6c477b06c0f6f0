//! What a change that is only tried would open, close and cut.

use serde::{Deserialize, Serialize};

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
