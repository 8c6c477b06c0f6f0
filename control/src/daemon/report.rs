//! `status`, `counters`, `trace` and `matrix`.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use dataplane::DropReason;
use dataplane::counters::Counter;
use dataplane::policy::PolicyTable;
use dataplane::service::Lookup;
use dataplane::snapshot::{EndpointSlot, Epoch, PortId, Role};
use k8s_openapi::api::core::v1::Pod;
use serde::Serialize;
use serde_json::Value;

use super::network::Interface;
use super::plane::Plane;
use super::server::refused;
use super::state::Daemon;
use crate::lower::{self, LocalEndpoint};
use crate::objects::Object;
use crate::protocol::{
    AuditReply, ConntrackStatus, CountersReply, ErrorObject, Explained, LogStatus, MatrixParams,
    PortStatus, Reason, RingStatus, Status, TraceParams, WorkerStatus,
};
use crate::trace::{self, EndName, TraceError, View};

impl<P: Plane> Daemon<P> {
    /// How the daemon is.
    pub(super) fn status(&self) -> Status {
        let generation = dataplane::Generation(self.live.generation);
        let (live, total) = self.plane.live(generation);
        let verifier = self.verifier.as_ref();
        let mismatches = verifier.map_or(0, |verifier| verifier.counts().mismatches());
        let health = if self.config.enforcement == config::Enforcement::Off {
            "ENFORCEMENT IS OFF (weir.toml): every packet of a pod passes".to_owned()
        } else if let Some(failure) = self.journal.failure() {
            format!("THE JOURNAL IS NOT ON DISK, no change is taken any more: {failure}")
        } else if mismatches > 0 {
            format!(
                "POLICY MISMATCH: the self-check decided {mismatches} flows otherwise (see the log)"
            )
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
            workers: self
                .plane
                .owners(port)
                .into_iter()
                .map(|w| w as u32)
                .collect(),
            ready: true,
            rings: self.rings(port),
            problem: interface.queues.problem(),
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

    fn rings(&self, port: PortId) -> RingStatus {
        let counted = self.plane.port_statistics(port).unwrap_or_default();
        RingStatus {
            rx_ring_full: counted.rx_ring_full,
            rx_fill_ring_empty: counted.rx_fill_ring_empty,
            rx_dropped: counted.rx_dropped,
            rx_invalid_descriptors: counted.rx_invalid_descriptors,
            tx_invalid_descriptors: counted.tx_invalid_descriptors,
            tx_ring_empty: counted.tx_ring_empty,
        }
    }

    fn conntrack_status(&self) -> ConntrackStatus {
        ConntrackStatus {
            entries: self.plane.conntrack().entries,
            capacity: u64::from(self.config.conntrack.capacity),
        }
    }

    /// The verdict on one connection, by the table that the workers use.
    pub(super) fn trace(&mut self, params: &TraceParams) -> Result<Value, ErrorObject> {
        // A Service's pods are in its namespace.
        let ends = params.ends();
        let namespaces = ends.each_ref().map(|end| EndName::new(end).namespace);
        let stated = [&params.from, &params.to].map(|end| end.parse::<IpAddr>().ok());
        let behind = stated[1].map(|address| self.behind(address, params));
        let addresses: Vec<IpAddr> = stated
            .into_iter()
            .flatten()
            .chain(behind.into_iter().flatten())
            .collect();
        let meant = |pod: &Object| {
            let own = pod.as_pod().map(lower::pod_addresses).unwrap_or_default();
            namespaces
                .iter()
                .any(|namespace| *namespace == pod.namespace())
                || addresses.iter().any(|address| own.contains(address))
        };
        let subjects = self.subjects(meant);
        let trace = subjects.view(self).trace(params).map_err(unanswerable)?;
        explained(trace.text(), &trace)
    }

    /// The backends at an address, if it is a Service's.
    fn behind(&self, address: IpAddr, params: &TraceParams) -> Vec<IpAddr> {
        let port = params.port.as_deref().and_then(|port| port.parse().ok());
        let protocol = trace::protocol(params.protocol.as_deref());
        let (Some(port), Ok((protocol, _))) = (port, protocol) else {
            return Vec::new();
        };
        let lists = [Role::Pod, Role::Uplink].map(|role| {
            let table = self.services.table();
            match table.lookup(role, address.to_canonical().into(), protocol, port) {
                Lookup::Backends(backends) => backends,
                _ => &[],
            }
        });
        let backends = lists.into_iter().flatten();
        backends.map(|backend| backend.address.to_ip()).collect()
    }

    /// The verdicts on all pairs, by the table that the workers use.
    pub(super) fn matrix(&mut self, params: &MatrixParams) -> Result<Value, ErrorObject> {
        let namespace = params.namespace.as_deref();
        let subjects = self.subjects(|pod| namespace.is_none_or(|n| n == pod.namespace()));
        let matrix = subjects.view(self).matrix(params).map_err(unanswerable)?;
        explained(matrix.text(), &matrix)
    }

    /// The pods whose policy can be asked: those of this node, by what the workers decide by, and
    /// others that are `meant`, compiled for the question.
    fn subjects(&mut self, meant: impl Fn(&Object) -> bool) -> Subjects {
        let placed = self.policies.endpoints();
        let placed = placed.map(|(local, slot)| (local.clone(), slot));
        let (mut locals, mut slots): (Vec<_>, Vec<_>) = placed.unzip();
        let own: HashSet<&str> = locals.iter().map(|local| local.uid.as_str()).collect();
        let pods = self.cluster.list_of::<Pod>();
        let others: Vec<Arc<Object>> = pods
            .filter(|pod| !own.contains(pod.uid()) && meant(pod))
            .cloned()
            .collect();
        if others.is_empty() {
            let table = self.table.clone();
            return Subjects {
                locals,
                slots,
                table,
            };
        }
        let names: Vec<(&str, &str)> = others.iter().map(|p| (p.namespace(), p.name())).collect();
        let (table, places) = self.policies.table_with(&names);
        for (pod, place) in others.iter().zip(places) {
            let Some(slot) = place else { continue };
            locals.push(LocalEndpoint {
                namespace: pod.namespace().to_owned(),
                name: pod.name().to_owned(),
                uid: pod.uid().to_owned(),
                addresses: pod.as_pod().map(lower::pod_addresses).unwrap_or_default(),
            });
            slots.push(slot);
        }
        Subjects {
            locals,
            slots,
            table: Arc::new(table),
        }
    }

    /// Where every frame is.
    pub(super) fn audit(&mut self) -> Result<AuditReply, ErrorObject> {
        let audit = self
            .plane
            .audit()
            .map_err(|error| refused(Reason::ServiceUnavailable, error.to_string()))?;
        Ok(AuditReply {
            chunks: audit.chunks,
            free: audit.free,
            held: audit.held,
            fill: audit.fill,
            transmit: audit.transmit,
            closing: audit.closing,
            problems: audit.problems,
        })
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

/// Pods that can be asked about, and the table that answers.
struct Subjects {
    locals: Vec<LocalEndpoint>,
    slots: Vec<EndpointSlot>,
    table: Arc<PolicyTable>,
}

impl Subjects {
    fn view<'a, P>(&'a self, daemon: &'a Daemon<P>) -> View<'a> {
        View {
            cluster: &daemon.cluster,
            locals: &self.locals,
            slots: &self.slots,
            table: &self.table,
            ids: daemon.policies.ids(),
            services: &daemon.services,
            generation: daemon.live.generation,
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
