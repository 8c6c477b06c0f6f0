//! Metrics of the daemon itself: generation, workers, packet memory, records.

use dataplane::Generation;

use super::exposition::{Exposition, Kind};
use crate::daemon::plane::Plane;
use crate::daemon::state::Daemon;

impl<P: Plane> Daemon<P> {
    pub(super) fn daemon_metrics(&self, out: &mut Exposition) {
        out.family(
            "weir_build_info",
            Kind::Gauge,
            "Always 1; what runs, in its labels.",
        )
        .sample(
            &[
                ("version", env!("CARGO_PKG_VERSION")),
                ("instance", &self.config.instance),
                ("node", &self.config.node_name),
            ],
            1,
        );
        out.single(
            "weir_uptime_seconds",
            Kind::Gauge,
            "Seconds since the daemon's start.",
            self.started.elapsed().as_secs(),
        );
        out.single(
            "weir_generation",
            Kind::Gauge,
            "The newest generation that was published.",
            self.live.generation,
        );
        out.durations(
            "weir_publication_duration_seconds",
            "From a publication to the last worker's acknowledgement.",
            &self.publications.publish,
        );
        out.durations(
            "weir_apply_duration_seconds",
            "From the arrival of a request that changes something to the last worker's acknowledgement.",
            &self.publications.request,
        );
        let (live, total) = self.plane.live(Generation(self.live.generation));
        out.single(
            "weir_workers",
            Kind::Gauge,
            "Workers there should be.",
            total,
        );
        out.single(
            "weir_workers_live",
            Kind::Gauge,
            "Workers that decide by the newest generation.",
            live,
        );
        let workers = self.plane.workers();
        let mut alive = out.family(
            "weir_worker_alive",
            Kind::Gauge,
            "Whether a worker's thread runs.",
        );
        for (index, worker) in workers.iter().enumerate() {
            let alive_now = u8::from(worker.alive);
            alive.sample(&[("worker", &index.to_string())], alive_now);
        }
        let mut generation = out.family(
            "weir_worker_generation",
            Kind::Gauge,
            "The generation that a worker decides by.",
        );
        for (index, worker) in workers.iter().enumerate() {
            generation.sample(&[("worker", &index.to_string())], worker.generation.0);
        }
        let mut received = out.family(
            "weir_worker_received_packets_total",
            Kind::Counter,
            "Packets that a worker has taken from its receive rings.",
        );
        for (index, worker) in workers.iter().enumerate() {
            received.sample(&[("worker", &index.to_string())], worker.received);
        }
        let mut busy = out.family(
            "weir_worker_busy_seconds_total",
            Kind::Counter,
            "Time of a worker's rounds that had packets.",
        );
        for (index, worker) in workers.iter().enumerate() {
            busy.sample(
                &[("worker", &index.to_string())],
                worker.busy_ns as f64 / 1e9,
            );
        }
        let frames = self.plane.frames();
        out.single(
            "weir_umem_frames",
            Kind::Gauge,
            "Frames of packet memory.",
            frames.all,
        );
        out.single(
            "weir_umem_frames_free",
            Kind::Gauge,
            "Frames that are in no ring and with no packet.",
            frames.free,
        );
        out.single(
            "weir_clients",
            Kind::Gauge,
            "Clients of the control socket.",
            self.clients,
        );
        out.single(
            "weir_enforcement",
            Kind::Gauge,
            "1 if policy is enforced, 0 if every packet passes.",
            u8::from(self.config.enforcement == config::Enforcement::On),
        );
        let mut objects = out.family("weir_objects", Kind::Gauge, "Objects in the store.");
        for (resource, count) in self.object_counts() {
            objects.sample(&[("resource", &resource)], count);
        }
    }

    pub(super) fn self_check_metrics(&self, out: &mut Exposition) {
        let Some(verifier) = &self.verifier else {
            return;
        };
        let counts = verifier.counts();
        out.single(
            "weir_policy_mismatch_total",
            Kind::Counter,
            "Flows that the naive specification decides otherwise. Anything but 0 is a mistake in Weir.",
            counts.mismatches(),
        );
        out.single(
            "weir_policy_reason_mismatch_total",
            Kind::Counter,
            "Flows that it decides alike, but by another policy or rule.",
            counts.reason_mismatches(),
        );
        out.single(
            "weir_policy_samples_total",
            Kind::Counter,
            "New flows that the naive specification has decided again.",
            counts.checked(),
        );
        out.single(
            "weir_policy_samples_skipped_total",
            Kind::Counter,
            "Flows chosen for that and left out: too many at once, or of a generation that is gone.",
            counts.skipped() + self.plane.samples_lost(),
        );
    }

    pub(super) fn record_metrics(&self, out: &mut Exposition) {
        out.single(
            "weir_journal_bytes",
            Kind::Gauge,
            "Length of the journal.",
            self.journal.bytes(),
        );
        out.single(
            "weir_denial_log_lines_total",
            Kind::Counter,
            "Lines written to the denial log.",
            self.log.lines(),
        );
        out.single(
            "weir_denial_log_lost_total",
            Kind::Counter,
            "Events and lines that did not get into the denial log.",
            self.log.lost(),
        );
        out.single(
            "weir_observe_flows_limited_total",
            Kind::Counter,
            "Flows that no observer was told of because there were too many in a second.",
            self.recent.lost(),
        );
        out.single(
            "weir_observe_flows_not_taken_total",
            Kind::Counter,
            "Flows that an observer wanted and was too slow to take.",
            self.watches.flows_lost(),
        );
    }

    /// Who captures, and what was lost on the way.
    pub(super) fn capture_metrics(&self, out: &mut Exposition) {
        let counts = self.captures.counts();
        out.single(
            "weir_captures",
            Kind::Gauge,
            "Captures that run.",
            self.captures.count(),
        );
        for (name, help, value) in [
            (
                "weir_capture_packets_total",
                "Packets sent to clients that capture.",
                counts.packets,
            ),
            (
                "weir_capture_packets_lost_total",
                "Packets that workers had no room for to be captured.",
                counts.lost,
            ),
            (
                "weir_capture_packets_not_taken_total",
                "Packets that a capturing client was too slow to take.",
                counts.not_taken,
            ),
        ] {
            out.single(name, Kind::Counter, help, value);
        }
    }
}
