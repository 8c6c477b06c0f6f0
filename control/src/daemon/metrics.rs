//! Metrics in Prometheus' text exposition format 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
//!
//! Names and labels are stable. Label values are bounded: reasons, tiers and directions are few,
//! ports and policies as many as their limits allow, and no label is taken from packets.

use std::fmt::{Display, Write};

use config::limits::METRIC_POLICIES;
use dataplane::counters::Counter;
use dataplane::xsk::Statistics;
use dataplane::{Direction, DropReason, Generation, PolicyId, Tier};

use super::plane::Plane;
use super::report::role_name;
use super::state::Daemon;
use crate::denial_log::{direction_name, tier_name};
use crate::protocol::MetricsReply;

/// The tiers that deny.
const TIERS: [Tier; 5] = [
    Tier::SecurityGroup,
    Tier::Admin,
    Tier::NetworkPolicy,
    Tier::Baseline,
    Tier::Default,
];

/// What a metric is.
#[derive(Clone, Copy)]
enum Kind {
    /// It only rises, from zero at the daemon's start.
    Counter,
    /// It is what it is.
    Gauge,
}

/// The text so far.
#[derive(Default)]
struct Exposition {
    text: String,
}

impl Exposition {
    /// Begins a metric: its samples follow.
    fn family(&mut self, name: &str, kind: Kind, help: &str) -> Family<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let help = help.trim().replace('\\', "\\\\").replace('\n', "\\n");
        // Writing into a String cannot fail.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Family {
            name: name.to_owned(),
            text: &mut self.text,
        }
    }

    /// A metric with a single sample.
    fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help).sample(&[], value);
    }
}

/// A metric whose samples are being written.
struct Family<'a> {
    name: String,
    text: &'a mut String,
}

impl Family<'_> {
    fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(&self.name);
        for (at, (key, label)) in labels.iter().enumerate() {
            self.text.push(if at == 0 { '{' } else { ',' });
            let _ = write!(self.text, "{key}=\"{}\"", escaped(label));
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

/// A label's value with what must be escaped.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

type RingFamily = (&'static str, &'static str, fn(&Statistics) -> u64);

/// The kernel's counters of AF_XDP sockets, in its words.
const RING_FAMILIES: [RingFamily; 6] = [
    (
        "weir_port_xsk_rx_ring_full_packets_total",
        "Packets from a port that found the RX ring full.",
        |counted| counted.rx_ring_full,
    ),
    (
        "weir_port_xsk_rx_fill_ring_empty_packets_total",
        "Packets from a port that found the fill ring empty.",
        |counted| counted.rx_fill_ring_empty,
    ),
    (
        "weir_port_xsk_rx_dropped_packets_total",
        "Packets from a port that found no frame, or were larger than one.",
        |counted| counted.rx_dropped,
    ),
    (
        "weir_port_xsk_rx_invalid_descriptors_total",
        "Descriptors in a port's fill ring that the kernel refused.",
        |counted| counted.rx_invalid_descriptors,
    ),
    (
        "weir_port_xsk_tx_invalid_descriptors_total",
        "Descriptors in a port's TX rings that the kernel refused.",
        |counted| counted.tx_invalid_descriptors,
    ),
    (
        "weir_port_xsk_tx_ring_empty_total",
        "Times that the kernel looked for something to send to a port and found nothing.",
        |counted| counted.tx_ring_empty,
    ),
];

impl<P: Plane> Daemon<P> {
    /// Answers `metrics`.
    pub(super) fn metrics(&self) -> MetricsReply {
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
        MetricsReply { text: out.text }
    }

    fn daemon_metrics(&self, out: &mut Exposition) {
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
        out.single(
            "weir_publication_seconds",
            Kind::Gauge,
            "From the last publication to the last worker's acknowledgement.",
            self.live.elapsed_micros as f64 / 1e6,
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

    fn packet_metrics(&self, out: &mut Exposition) {
        let totals = self.plane.counters();
        for counter in Counter::ALL {
            let name = format!("weir_{}_total", counter.name());
            out.single(
                &name,
                Kind::Counter,
                counter.help(),
                totals.counter(*counter),
            );
        }
        let mut drops = out.family(
            "weir_dropped_packets_total",
            Kind::Counter,
            "Packets dropped, by reason.",
        );
        for reason in DropReason::ALL {
            drops.sample(&[("reason", reason.name())], totals.dropped(*reason));
        }
    }

    fn port_metrics(&self, out: &mut Exposition) {
        out.single(
            "weir_endpoints",
            Kind::Gauge,
            "Local pods.",
            self.endpoints.iter().count(),
        );
        let totals = self.plane.counters();
        let infrastructure = self
            .infrastructure
            .iter()
            .map(|(interface, port)| (interface, *port, String::new()));
        let pods = self
            .endpoints
            .iter()
            .map(|endpoint| (&endpoint.interface, endpoint.port, endpoint.pod()));
        let ports: Vec<_> = infrastructure.chain(pods).collect();
        type Read = fn(&dataplane::counters::PortTotals) -> u64;
        let families: [(&str, &str, Read); 5] = [
            (
                "weir_port_received_packets_total",
                "Packets received from a port.",
                |port| port.received,
            ),
            (
                "weir_port_received_bytes_total",
                "Bytes received from a port.",
                |port| port.received_bytes,
            ),
            (
                "weir_port_transmitted_packets_total",
                "Packets sent to a port.",
                |port| port.transmitted,
            ),
            (
                "weir_port_transmitted_bytes_total",
                "Bytes sent to a port.",
                |port| port.transmitted_bytes,
            ),
            (
                "weir_port_dropped_packets_total",
                "Packets from a port that were dropped.",
                |port| port.dropped,
            ),
        ];
        for (name, help, read) in families {
            let mut family = out.family(name, Kind::Counter, help);
            for (interface, port, pod) in &ports {
                let labels = [
                    ("interface", interface.name.as_str()),
                    ("role", role_name(interface.role)),
                    ("pod", pod),
                ];
                family.sample(&labels, read(&totals.port(*port)));
            }
        }
        let rings: Vec<_> = ports
            .iter()
            .map(|(interface, port, pod)| {
                let labels = [
                    ("interface", interface.name.as_str()),
                    ("role", role_name(interface.role)),
                    ("pod", pod.as_str()),
                ];
                (
                    labels,
                    self.plane.port_statistics(*port).unwrap_or_default(),
                )
            })
            .collect();
        for (name, help, read) in RING_FAMILIES {
            let mut family = out.family(name, Kind::Counter, help);
            for (labels, counted) in &rings {
                family.sample(labels, read(counted));
            }
        }
    }

    fn conntrack_metrics(&self, out: &mut Exposition) {
        let counted = self.plane.conntrack();
        out.single(
            "weir_conntrack_entries",
            Kind::Gauge,
            "Connections in the table.",
            counted.entries,
        );
        out.single(
            "weir_conntrack_capacity",
            Kind::Gauge,
            "Connections there can be.",
            self.config.conntrack.capacity,
        );
        for (name, help, value) in [
            ("inserted", "Connections entered.", counted.inserted),
            (
                "expired",
                "Connections that went because they were idle.",
                counted.expired,
            ),
            (
                "evicted",
                "Unreplied or closed connections that went to make room.",
                counted.evicted,
            ),
            (
                "replaced",
                "Connections replaced by a new one of the same ends.",
                counted.replaced,
            ),
            (
                "removed",
                "Connections removed with their pod.",
                counted.removed,
            ),
            (
                "redecided",
                "Connections decided again under newer policy.",
                counted.redecided,
            ),
            (
                "raced",
                "Insertions that found another worker's entry.",
                counted.raced,
            ),
            (
                "refused_full",
                "Insertions refused because the table is full.",
                counted.full,
            ),
            (
                "refused_quota",
                "Insertions refused because the endpoint's share is used up.",
                counted.quota,
            ),
            (
                "refused_busy",
                "Insertions and decisions given up because the bucket was locked.",
                counted.busy,
            ),
        ] {
            let name = format!("weir_conntrack_{name}_total");
            out.single(&name, Kind::Counter, help, value);
        }
    }

    fn fragment_metrics(&self, out: &mut Exposition) {
        let counts = self.plane.fragments();
        out.single(
            "weir_fragment_datagrams",
            Kind::Gauge,
            "Datagrams that are coming in fragments.",
            counts.datagrams,
        );
        out.single(
            "weir_fragment_frames",
            Kind::Gauge,
            "Fragments held because their datagram's first has not come.",
            counts.frames,
        );
    }

    fn policy_metrics(&self, out: &mut Exposition) {
        let footprint = self.table.footprint();
        out.single(
            "weir_policy_table_bytes",
            Kind::Gauge,
            "Memory of the compiled policy.",
            footprint.bytes,
        );
        out.single(
            "weir_policy_table_chains",
            Kind::Gauge,
            "Distinct lists of rules that endpoints have, both directions together.",
            footprint.chains,
        );
    }

    /// Flows denied by tier and direction, and what each policy has decided.
    fn decision_metrics(&self, out: &mut Exposition) {
        let mut denied = out.family(
            "weir_policy_denied_flows_total",
            Kind::Counter,
            "Flows denied, by the tier and direction that denied them.",
        );
        for tier in TIERS {
            for direction in [Direction::Ingress, Direction::Egress] {
                let labels = [
                    ("tier", tier_name(Some(tier))),
                    ("direction", direction_name(Some(direction))),
                ];
                denied.sample(&labels, self.tallies.denied(tier, direction));
            }
        }
        let hits: Vec<_> = self.hits.by_policy().into_iter().collect();
        let mut connections = out.family(
            "weir_policy_connections_total",
            Kind::Counter,
            "Connections that the rules of a policy have decided or let go on, since its last change.",
        );
        let numbers = hits
            .iter()
            .map(|(policy, hits)| (*policy, hits.connections));
        self.per_policy(&mut connections, &[], numbers);
        let mut packets = out.family(
            "weir_policy_packets_total",
            Kind::Counter,
            "Packets of these connections, dropped ones too.",
        );
        let numbers = hits.iter().map(|(policy, hits)| (*policy, hits.packets));
        self.per_policy(&mut packets, &[], numbers);
        let mut audited = out.family(
            "weir_policy_audited_flows_total",
            Kind::Counter,
            "Flows that a policy in audit mode would have decided otherwise.",
        );
        for (at, would) in [(0, "deny"), (1, "allow")] {
            let numbers = self
                .tallies
                .audited()
                .map(|(policy, counts)| (policy, counts[at]));
            self.per_policy(&mut audited, &[("would", would)], numbers);
        }
        let counters = self.policies.counters();
        out.single(
            "weir_rule_counters",
            Kind::Gauge,
            "Counters that belong to a rule.",
            counters.iter().count(),
        );
        out.single(
            "weir_rules_without_counter",
            Kind::Gauge,
            "Rules that have none because limits.rule_counters is reached.",
            counters.without(),
        );
        let compounds = self.policies.compounds();
        out.single(
            "weir_compound_counters",
            Kind::Gauge,
            "Counters that count for several rules: what decides, and those that let traffic come so far.",
            compounds.in_use(),
        );
        out.single(
            "weir_combinations_without_counter",
            Kind::Gauge,
            "Rules in common that have none because limits.compound_counters is reached.",
            compounds.without(),
        );
    }

    /// A sample for each policy, as many as [`METRIC_POLICIES`]; the rest in one.
    fn per_policy(
        &self,
        family: &mut Family<'_>,
        labels: &[(&str, &str)],
        numbers: impl Iterator<Item = (PolicyId, u64)>,
    ) {
        let mut rest = None;
        for (at, (policy, number)) in numbers.enumerate() {
            let name = self.policies.ids().name(policy);
            match name.filter(|_| at < METRIC_POLICIES) {
                Some(name) => {
                    let own = [
                        ("kind", name.kind),
                        ("namespace", &name.namespace),
                        ("policy", &name.name),
                        // Another policy of that name counts for itself.
                        ("uid", &name.uid),
                    ];
                    family.sample(&[labels, &own].concat(), number);
                }
                None => *rest.get_or_insert(0) += number,
            }
        }
        if let Some(rest) = rest {
            let own = [("kind", ""), ("namespace", ""), ("policy", ""), ("uid", "")];
            family.sample(&[labels, &own].concat(), rest);
        }
    }

    fn self_check_metrics(&self, out: &mut Exposition) {
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

    fn record_metrics(&self, out: &mut Exposition) {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_type_and_labels_are_written_as_the_format_wants_them() {
        let mut out = Exposition::default();
        out.single("weir_a", Kind::Gauge, " One.\nTwo\\. ", 0.5);
        let mut family = out.family("weir_b_total", Kind::Counter, "B.");
        family.sample(&[("x", "a\"b\\c\nd"), ("y", "")], 7);
        assert_eq!(
            out.text,
            "# HELP weir_a One.\\nTwo\\\\.\n# TYPE weir_a gauge\nweir_a 0.5\n\
             # HELP weir_b_total B.\n# TYPE weir_b_total counter\n\
             weir_b_total{x=\"a\\\"b\\\\c\\nd\",y=\"\"} 7\n"
        );
    }
}
