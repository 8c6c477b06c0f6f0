//! `load`: what `top` makes rates of.

use dataplane::snapshot::PortId;

use super::network::Interface;
use super::plane::{Plane, monotonic};
use super::report::role_name;
use super::state::Daemon;
use crate::protocol::{Load, PortLoad, WorkerLoad};

impl<P: Plane> Daemon<P> {
    /// Answers `load`.
    pub(super) fn load(&self) -> Load {
        let workers = (0..).zip(self.config.workers.iter().zip(self.plane.workers()));
        let totals = self.plane.counters();
        let port = |interface: &Interface, port: PortId| {
            let counted = totals.port(port);
            let rings = self.plane.port_statistics(port).unwrap_or_default();
            PortLoad {
                port: port.0,
                interface: interface.name.clone(),
                role: role_name(interface.role).to_owned(),
                in_packets: counted.received,
                in_bytes: counted.received_bytes,
                out_packets: counted.transmitted,
                out_bytes: counted.transmitted_bytes,
                dropped: counted.dropped,
                stalled: rings.rx_ring_full + rings.rx_fill_ring_empty + rings.rx_dropped,
                ..PortLoad::default()
            }
        };
        let infrastructure = self.infrastructure.iter();
        let infrastructure = infrastructure.map(|(interface, id)| port(interface, *id));
        let pods = self.endpoints.iter().map(|endpoint| PortLoad {
            namespace: Some(endpoint.record.namespace.clone()),
            pod: Some(endpoint.record.name.clone()),
            uid: Some(endpoint.record.uid.clone()),
            connections: self.plane.connections_of(endpoint.incarnation()).into(),
            ..port(&endpoint.interface, endpoint.port)
        });
        let mut ports: Vec<PortLoad> = infrastructure.chain(pods).collect();
        ports.sort_by_key(|load| load.port);
        let frames = self.plane.frames();
        Load {
            node: self.config.node_name.clone(),
            time_ns: monotonic().0,
            workers: workers
                .map(|(worker, (core, state))| WorkerLoad {
                    worker,
                    core: *core,
                    busy_ns: state.busy_ns,
                    packets: state.received,
                    bytes: state.received_bytes,
                    flow_decisions: state.flow_decisions,
                    sleeps: state.sleeps,
                })
                .collect(),
            ports,
            connections: self.plane.conntrack().entries,
            connections_max: self.config.conntrack.capacity.into(),
            frames_free: frames.free.into(),
            frames: frames.all.into(),
        }
    }
}
