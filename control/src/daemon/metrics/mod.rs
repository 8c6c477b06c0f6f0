//! Metrics in Prometheus' text exposition format 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
//!
//! Names and labels are stable. Label values are bounded: reasons, tiers and directions are few,
//! ports and policies as many as their limits allow, and no label is taken from packets.

mod daemon;
mod exposition;
mod packets;
mod policy;

pub use self::exposition::Durations;
use self::exposition::Exposition;
use super::plane::Plane;
use super::state::Daemon;
use crate::protocol::MetricsReply;

/// How long changes took to become live.
#[derive(Clone, Copy, Debug, Default)]
pub struct Publications {
    /// From the publication.
    pub publish: Durations,
    /// From the request.
    pub request: Durations,
}

impl<P: Plane> Daemon<P> {
    /// Answers `metrics`.
    pub(in crate::daemon) fn metrics(&self) -> MetricsReply {
        let mut out = Exposition::default();
        self.daemon_metrics(&mut out);
        self.packet_metrics(&mut out);
        self.port_metrics(&mut out);
        self.conntrack_metrics(&mut out);
        self.fragment_metrics(&mut out);
        self.policy_metrics(&mut out);
        self.decision_metrics(&mut out);
        self.self_check_metrics(&mut out);
        self.record_metrics(&mut out);
        self.capture_metrics(&mut out);
        MetricsReply { text: out.text }
    }
}
