//! `status` and `counters`.

use std::collections::BTreeMap;

use dataplane::DropReason;
use dataplane::counters::Counter;
use dataplane::snapshot::{EndpointSlot, Epoch, PortId, Role};
use serde::Serialize;
use serde_json::Value;

use super::network::Interface;
use super::plane::{Connection, Plane};
use super::server::refused;
use super::state::Daemon;
use crate::lower::LocalEndpoint;
use crate::protocol::{
    ConntrackEntry, ConntrackListParams, ConntrackListReply, ConntrackStatus, CountersReply,
    ErrorObject, Explained, LogStatus, MatrixParams, PortStatus, Reason, Status, TraceParams,
    WorkerStatus,
};
use crate::trace::{TraceError, View};

/// Connections listed unless more are asked for.
const CONNECTIONS: u32 = 1000;

impl<P: Plane> Daemon<P> {
    /// How the daemon is.
    pub(super) fn status(&self) -> Status {
        let generation = dataplane::Generation(self.live.generation);
        let (live, total) = self.plane.live(generation);
        let health = if self.config.enforcement == config::Enforcement::Off {
            "ENFORCEMENT IS OFF (weir.toml): every packet of a pod passes".to_owned()
        } else if live == total {
            "ok".to_owned()
        } else {
            format!(
                "generation {} is live on {live}/{total} workers",
                generation.0
            )
        };
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            instance: self.config.instance.clone(),
            node: self.config.node_name.clone(),
            uptime_seconds: self.started.elapsed().as_secs(),
            generation: generation.0,
            health,
            workers: self.worker_statuses(),
            ports: self.port_statuses(),
            conntrack: self.conntrack_status(),
            objects: self.object_counts(),
            log: LogStatus {
                path: self.log.path().display().to_string(),
                lines: self.log.lines(),
                lost: self.log.lost(),
            },
            clients: self.clients as u32,
        }
    }

    fn worker_statuses(&self) -> Vec<WorkerStatus> {
        let workers = self.plane.workers();
        let cores = self.config.workers.iter().copied();
        let numbered = (0..).zip(cores.zip(workers));
        numbered
            .map(|(index, (core, worker))| WorkerStatus {
                index,
                core,
                generation: worker.generation.0,
                alive: worker.alive,
            })
            .collect()
    }

    fn port_statuses(&self) -> Vec<PortStatus> {
        let base = |interface: &Interface, port: PortId| PortStatus {
            port: port.0,
            interface: interface.name.clone(),
            role: role_name(interface.role).to_owned(),
            worker: self.plane.owner(port).unwrap_or_default() as u32,
            ready: true,
            ..PortStatus::default()
        };
        let infrastructure = self
            .infrastructure
            .iter()
            .map(|(interface, port)| base(interface, *port));
        let pods = self.endpoints.iter().map(|endpoint| PortStatus {
            pod: Some(endpoint.pod()),
            uid: Some(endpoint.record.uid.clone()),
            addresses: endpoint.record.addresses.clone(),
            ready: endpoint.epoch != Epoch::NONE,
            ..base(&endpoint.interface, endpoint.port)
        });
        let mut statuses: Vec<PortStatus> = infrastructure.chain(pods).collect();
        statuses.sort_by_key(|status| status.port);
        statuses
    }

    fn conntrack_status(&self) -> ConntrackStatus {
        ConntrackStatus {
            entries: self.plane.conntrack().entries,
            capacity: u64::from(self.config.conntrack.capacity),
        }
    }

    /// The verdict on one connection, by the table that the workers use.
    pub(super) fn trace(&self, params: &TraceParams) -> Result<Value, ErrorObject> {
        let (locals, slots) = self.locals();
        let trace = self
            .view(&locals, &slots)
            .trace(params)
            .map_err(unanswerable)?;
        explained(trace.text(), &trace)
    }

    /// The verdicts on all pairs, by the table that the workers use.
    pub(super) fn matrix(&self, params: &MatrixParams) -> Result<Value, ErrorObject> {
        let (locals, slots) = self.locals();
        let matrix = self
            .view(&locals, &slots)
            .matrix(params)
            .map_err(unanswerable)?;
        explained(matrix.text(), &matrix)
    }

    fn locals(&self) -> (Vec<LocalEndpoint>, Vec<EndpointSlot>) {
        let placed = self.policies.endpoints();
        placed.map(|(local, slot)| (local.clone(), slot)).unzip()
    }

    fn view<'a>(&'a self, locals: &'a [LocalEndpoint], slots: &'a [EndpointSlot]) -> View<'a> {
        View {
            cluster: &self.cluster,
            locals,
            slots,
            table: &self.table,
            ids: self.policies.ids(),
            generation: self.live.generation,
        }
    }

    /// Connections, as their initiators see them.
    pub(super) fn list_connections(&self, params: &ConntrackListParams) -> ConntrackListReply {
        let limit = params.limit.unwrap_or(CONNECTIONS) as usize;
        let entries = self.plane.list_connections(limit).into_iter();
        ConntrackListReply {
            total: self.plane.conntrack().entries,
            entries: entries
                .map(|Connection { entry, idle }| ConntrackEntry {
                    protocol: entry.key.protocol.0,
                    source: entry.key.source.to_ip(),
                    source_port: entry.key.source_port,
                    destination: entry.key.destination.to_ip(),
                    destination_port: entry.key.destination_port,
                    state: if entry.verdict.accept {
                        entry.state.name().to_owned()
                    } else {
                        "DENIED".to_owned()
                    },
                    policy: self.policy_name(entry.verdict),
                    idle_seconds: idle.as_secs(),
                })
                .collect(),
        }
    }

    /// The workers' counters by name.
    pub(super) fn counters(&self) -> CountersReply {
        let totals = self.plane.counters();
        let counters = Counter::ALL.iter();
        let drops = DropReason::ALL
            .iter()
            .map(|reason| (reason, totals.dropped(*reason)));
        CountersReply {
            counters: counters
                .map(|counter| (counter.name().to_owned(), totals.counter(*counter)))
                .collect(),
            drops: drops
                .filter(|(_, count)| *count > 0)
                .map(|(reason, count)| (reason.name().to_owned(), count))
                .collect::<BTreeMap<_, _>>(),
        }
    }
}

fn unanswerable(error: TraceError) -> ErrorObject {
    refused(Reason::BadRequest, error.to_string())
}

fn explained(text: String, json: &impl Serialize) -> Result<Value, ErrorObject> {
    let explained =
        serde_json::to_value(json).and_then(|json| serde_json::to_value(Explained { text, json }));
    explained.map_err(|error| refused(Reason::InternalError, error.to_string()))
}

pub(super) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Pod => "pod",
        Role::Uplink => "uplink",
        Role::HostNode => "host-node",
        Role::HostTransit => "host-transit",
    }
}
