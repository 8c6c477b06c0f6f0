//! From what has been compiled to a snapshot that every worker has adopted.

use std::sync::Arc;

use dataplane::engine::EngineError;
use dataplane::snapshot::{
    Endpoint as PlaneEndpoint, EndpointSlot, Epoch, ExistingConnections, Generation, NodeEgress,
    Parts, Settings, Snapshot,
};
use dataplane::{Address, policy::PolicyTable};
use tracing::warn;

use super::plane::Plane;
use super::server::refused;
use super::state::{Daemon, Live};
use crate::lower::Touched;
use crate::protocol::{ErrorObject, Reason, Workers};
use crate::service::Services;

impl<P: Plane> Daemon<P> {
    /// The next snapshot: the newest one with other policies if nothing else has changed, else one
    /// from its parts.
    pub(super) fn draw(
        &self,
        generation: Generation,
        touched: &Touched,
        services: &Services,
    ) -> Result<Snapshot, ErrorObject> {
        let impossible = |error| {
            let message = format!("nothing has changed: {error}");
            refused(Reason::Conflict, message)
        };
        let touched = || touched.endpoints.iter().chain(&self.touched).copied();
        let table = match touched().next() {
            Some(_) => Arc::new(self.policies.table()),
            None => self.table.clone(),
        };
        let settings = self.settings();
        let drawn = match &self.newest {
            Some(newest) if *newest.settings() == settings => {
                newest.with_policy(generation, table, touched())
            }
            _ => Snapshot::build(self.parts(generation, table, touched())),
        };
        let snapshot = drawn.map_err(impossible)?;
        Ok(snapshot.with_services(services.table().clone()))
    }

    fn parts(
        &self,
        generation: Generation,
        policy: Arc<PolicyTable>,
        touched: impl Iterator<Item = EndpointSlot>,
    ) -> Parts {
        let gateways: Vec<Address> = self.config.gateways.iter().map(Address::from).collect();
        let node = &self.facts.node_addresses;
        let mut parts = Parts {
            generation,
            neighbours: self.facts.neighbours.clone(),
            node_addresses: node.clone(),
            gateways: gateways.clone(),
            routes: self.routes.clone(),
            policy,
            settings: self.settings(),
            ..Parts::default()
        };
        for (interface, port) in &self.infrastructure {
            parts.ports.push(interface.port(*port, node));
        }
        for endpoint in self.endpoints.iter() {
            let Some(slot) = self.policies.slot(&endpoint.record.uid) else {
                continue;
            };
            let mut port = endpoint.interface.port(endpoint.port, &gateways);
            port.endpoint = Some(slot);
            parts.ports.push(port);
            set_epoch(&mut parts.epochs, slot, endpoint.epoch);
            parts.endpoints.push(PlaneEndpoint {
                slot,
                incarnation: endpoint.incarnation(),
                port: endpoint.port,
                mac: endpoint.mac(),
                addresses: endpoint
                    .addresses()
                    .take(PlaneEndpoint::ADDRESSES_MAX)
                    .collect(),
            });
        }
        for slot in touched {
            set_epoch(&mut parts.epochs, slot, generation.into());
        }
        parts
    }

    fn settings(&self) -> Settings {
        Settings {
            existing_connections: match self.config.existing_connections {
                config::ExistingConnections::Redecide => ExistingConnections::Redecide,
                config::ExistingConnections::Keep => ExistingConnections::Keep,
            },
            node_egress: match self.config.node_egress {
                config::NodeEgress::Policy => NodeEgress::Policy,
                config::NodeEgress::Allow => NodeEgress::Allow,
            },
            accept_events: self.accept_events(),
            sample_one_in: self.config.self_check.sample_one_in,
            ..Settings::default()
        }
    }

    /// Publishes a snapshot and waits for the workers.
    pub(super) fn publish(&mut self, snapshot: Snapshot) -> Result<Live, ErrorObject> {
        let generation = snapshot.generation();
        let newest = snapshot.clone();
        let published = self.plane.publish(snapshot);
        let since_request = self.arrived.elapsed().as_micros();
        if let Err(EngineError::StaleGeneration { .. }) = published {
            let message = format!("the workers refuse generation {}", generation.0);
            return Err(refused(Reason::InternalError, message));
        }
        let touched = |slot| self.touched.contains(&slot);
        for (local, slot) in self.policies.endpoints().filter(|&(_, slot)| touched(slot)) {
            if let Some(endpoint) = self.endpoints.get_mut(&local.uid) {
                endpoint.epoch = newest.epoch(slot);
            }
        }
        self.touched.clear();
        self.table = newest.shared_policy();
        self.accept_events_live = newest.settings().accept_events;
        self.newest = Some(newest);
        for port in std::mem::take(&mut self.leaving) {
            if let Err(error) = self.remove_port(port) {
                warn!("port {} is left behind: {error}", port.0);
            }
        }
        let (live, total) = self.plane.live(generation);
        self.live = Live {
            generation: generation.0,
            workers: Workers {
                live: live as u32,
                total: total as u32,
            },
            elapsed_micros: 0,
            request_micros: u64::try_from(since_request).unwrap_or(u64::MAX),
        };
        self.keep_grounds();
        match published {
            Ok(acknowledged) => {
                let elapsed = acknowledged.elapsed.as_micros();
                self.live.elapsed_micros = u64::try_from(elapsed).unwrap_or(u64::MAX);
                self.publications
                    .publish
                    .add(acknowledged.elapsed.as_secs_f64());
                self.publications.request.add(since_request as f64 / 1e6);
                Ok(self.live)
            }
            Err(error) => {
                let message = format!(
                    "the change is made, but generation {} is live on {live}/{total} workers only: \
                     {error}",
                    generation.0
                );
                Err(refused(Reason::Timeout, message))
            }
        }
    }
}

fn set_epoch(epochs: &mut Vec<Epoch>, slot: EndpointSlot, epoch: Epoch) {
    let at = usize::from(slot.0);
    if epochs.len() <= at {
        epochs.resize(at + 1, Epoch::NONE);
    }
    epochs[at] = epoch;
}
