//! The ports that captures are about.

use dataplane::snapshot::{Incarnation, PortId};

use super::Watched;
use crate::daemon::plane::Plane;
use crate::daemon::report::role_name;
use crate::daemon::server::refused;
use crate::daemon::state::Daemon;
use crate::protocol::{CaptureInterface, ErrorObject, InterfaceSummary, Reason};

impl<P: Plane> Daemon<P> {
    /// The ports that a word names.
    pub(super) fn capture_ports(
        &self,
        target: &str,
        namespace: &str,
    ) -> Result<Vec<PortId>, ErrorObject> {
        let all = self.capture_interfaces();
        if target == "any" {
            return Ok(all.iter().map(|known| PortId(known.port)).collect());
        }
        let named =
            |known: &&CaptureInterface| known.name == target || target.parse() == Ok(known.port);
        if let Some(known) = all.iter().find(named) {
            return Ok(vec![PortId(known.port)]);
        }
        let (namespace, pod) = match target.split_once('/') {
            Some(("pod" | "pods" | "po", pod)) => (namespace, pod),
            Some((namespace, pod)) => (namespace, pod),
            None => (namespace, target),
        };
        let full = format!("{namespace}/{pod}");
        let mut endpoints = self.endpoints.iter();
        if let Some(endpoint) = endpoints.find(|endpoint| endpoint.pod() == full) {
            return Ok(vec![endpoint.port]);
        }
        let message = match self.cluster.pod(namespace, pod) {
            Some(_) => format!("pod {full} has no port on this node: nothing of it can be seen"),
            None => format!(
                "pods {pod:?} not found in namespace {namespace:?}, and there is no port of that \
                 name (see `weir status`)"
            ),
        };
        Err(refused(Reason::NotFound, message))
    }

    /// Every port.
    pub(super) fn capture_interfaces(&self) -> Vec<CaptureInterface> {
        let infrastructure = self.infrastructure.iter().map(|(interface, port)| {
            let pod = None;
            (interface, *port, pod)
        });
        let pods = self
            .endpoints
            .iter()
            .map(|endpoint| (&endpoint.interface, endpoint.port, Some(endpoint.pod())));
        let all = infrastructure.chain(pods);
        let mut all: Vec<CaptureInterface> = all
            .map(|(interface, port, pod)| CaptureInterface {
                port: port.0,
                name: interface.name.clone(),
                role: role_name(interface.role).to_owned(),
                pod,
                mac: interface.mac.0,
            })
            .collect();
        all.sort_by_key(|known| known.port);
        all
    }

    pub(super) fn watched(&self, port: PortId) -> Watched {
        Watched {
            port,
            incarnation: self.incarnation_at(port),
            before: self.counted(port),
        }
    }

    fn incarnation_at(&self, port: PortId) -> Incarnation {
        let mut endpoints = self.endpoints.iter();
        let endpoint = endpoints.find(|endpoint| endpoint.port == port);
        endpoint.map_or(Incarnation::NONE, |endpoint| endpoint.incarnation())
    }

    pub(super) fn is_there(&self, watched: &Watched) -> bool {
        match watched.incarnation {
            Incarnation::NONE => {
                let mut all = self.infrastructure.iter();
                all.any(|(_, port)| *port == watched.port)
            }
            incarnation => self
                .endpoints
                .by_incarnation(incarnation)
                .is_some_and(|endpoint| endpoint.port == watched.port),
        }
    }

    pub(super) fn counted(&self, port: PortId) -> InterfaceSummary {
        let rings = self.plane.port_statistics(port).unwrap_or_default();
        InterfaceSummary {
            port: port.0,
            received: self.plane.counters().port(port).received,
            dropped: rings.rx_ring_full + rings.rx_fill_ring_empty + rings.rx_dropped,
        }
    }
}
