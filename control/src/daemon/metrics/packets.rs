//! Metrics of packets, ports, connections and fragments.

use dataplane::DropReason;
use dataplane::counters::Counter;
use dataplane::xsk::Statistics;

use super::exposition::{Exposition, Kind};
use crate::daemon::plane::Plane;
use crate::daemon::report::role_name;
use crate::daemon::state::Daemon;

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
    pub(super) fn packet_metrics(&self, out: &mut Exposition) {
        let totals = self.plane.counters();
        // Workers' times are told in seconds, by worker.
        let counters = Counter::ALL.iter();
        let is_count = |counter: &&Counter| **counter != Counter::BusyNanoseconds;
        for counter in counters.filter(is_count) {
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
            "Packets dropped, by reason; egress is what came from pods, ingress what did not.",
        );
        for reason in DropReason::ALL {
            for (direction, from_pods) in [("EGRESS", true), ("INGRESS", false)] {
                let labels = [("reason", reason.name()), ("direction", direction)];
                drops.sample(&labels, totals.dropped_of(*reason, from_pods));
            }
        }
    }

    pub(super) fn port_metrics(&self, out: &mut Exposition) {
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

    pub(super) fn conntrack_metrics(&self, out: &mut Exposition) {
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

    pub(super) fn fragment_metrics(&self, out: &mut Exposition) {
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
}
