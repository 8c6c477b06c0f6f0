//! The daemon's state, and how a change of it becomes a live snapshot.
//!
//! Every change takes one way: a candidate (objects, endpoints) is lowered and compiled; if that
//! holds it is written to the journal, then published, and the reply waits until every worker has
//! adopted it. What fails before the journal has changed nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use config::Config;
use dataplane::Address;
use dataplane::engine::EngineError;
use dataplane::policy::PolicyTable;
use dataplane::policy::ir::EndpointPolicy;
use dataplane::route::RouteTable;
use dataplane::snapshot::{
    Endpoint as PlaneEndpoint, EndpointSlot, Epoch, ExistingConnections, Generation, NodeEgress,
    Parts, PortId, Role, Settings, Snapshot,
};
use tracing::{error, warn};

use super::DaemonError;
use super::addresses::PodAddresses;
use super::endpoints::{Endpoint, Endpoints};
use super::network::{Facts, Interface};
use super::observe::RecentFlows;
use super::plane::{Outside, Plane, PlaneError};
use super::server::refused;
use super::verify::Verifier;
use super::watches::Watches;
use crate::cluster::{Cluster, Event, EventKind, System};
use crate::denial_log::DenialLog;
use crate::journal::{Gone, Journal, Numbered, Record};
use crate::lower::{LocalEndpoint, PolicyIds, PolicyName, lower};
use crate::objects::{Key, kinds};
use crate::protocol::{ErrorObject, Reason, WatchEventType, Workers};

/// What the workers decide by.
#[derive(Clone, Debug, Default)]
pub struct Compiled {
    /// UIDs in the order of the slots.
    pub uids: Vec<String>,
    /// Their policies.
    pub policies: Vec<EndpointPolicy>,
    /// What was compiled from them.
    pub table: Arc<PolicyTable>,
}

impl Compiled {
    /// The slot of a pod.
    pub fn slot(&self, uid: &str) -> Option<EndpointSlot> {
        let index = self.uids.iter().position(|known| known == uid)?;
        u16::try_from(index).ok().map(EndpointSlot)
    }
}

/// A generation that workers have adopted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Its number.
    pub generation: u64,
    /// Who adopted it.
    pub workers: Workers,
    /// From publication to the last acknowledgement, µs.
    pub elapsed_micros: u64,
}

/// The daemon.
#[derive(Debug)]
pub struct Daemon<P> {
    pub(super) config: Config,
    pub(super) plane: P,
    pub(super) journal: Journal,
    pub(super) cluster: Cluster,
    pub(super) source: System,
    pub(super) ids: PolicyIds,
    pub(super) endpoints: Endpoints,
    /// Host port and uplinks.
    pub(super) infrastructure: Vec<(Interface, PortId)>,
    /// Ports without an interface or endpoint that the newest snapshot still has.
    pub(super) leaving: Vec<PortId>,
    pub(super) facts: Facts,
    pub(super) compiled: Compiled,
    pub(super) live: Live,
    pub(super) log: DenialLog,
    pub(super) events_lost: u64,
    pub(super) watches: Watches,
    /// Flows of the recent past.
    pub(super) recent: RecentFlows,
    /// Whether the workers tell of connections that pass, by the newest snapshot.
    pub(super) accept_events_live: bool,
    /// Pods by their addresses, as of `cluster`.
    pub(super) addresses: PodAddresses,
    /// The self-check, unless it is switched off.
    pub(super) verifier: Option<Verifier>,
    pub(super) started: Instant,
    pub(super) clients: usize,
}

impl<P: Plane> Daemon<P> {
    /// Restores what the journal has, takes up ports and endpoints, and publishes the first
    /// snapshot.
    pub fn start(
        config: Config,
        plane: P,
        journal: Journal,
        records: Vec<Record>,
        log: DenialLog,
    ) -> Result<Daemon<P>, DaemonError> {
        let system = |what: &str| {
            let what = what.to_owned();
            move |source| DaemonError::System { what, source }
        };
        let source = System::open().map_err(system("open the random device"))?;
        let (cluster, ids) = restore(records)?;
        let addresses = PodAddresses::of(&cluster);
        let (endpoints, saved) =
            Endpoints::open(&config.runtime_dir).map_err(system("read the endpoints' file"))?;
        let verifier = match config.self_check.sample_one_in {
            0 => None,
            _ => {
                let started = Verifier::start(&config.self_check, &config.state_dir);
                Some(started.map_err(system("start the self-check's thread"))?)
            }
        };
        let mut daemon = Daemon {
            config,
            plane,
            journal,
            cluster,
            source,
            ids,
            endpoints,
            infrastructure: Vec::new(),
            leaving: Vec::new(),
            facts: Facts::default(),
            compiled: Compiled::default(),
            live: Live::default(),
            log,
            events_lost: 0,
            watches: Watches::default(),
            recent: RecentFlows::new(Instant::now()),
            accept_events_live: false,
            addresses,
            verifier,
            started: Instant::now(),
            clients: 0,
        };
        if daemon.config.enforcement == config::Enforcement::Off {
            warn!("enforcement is off: every packet of a pod passes, whatever policies say");
        }
        let last = daemon.plane.last_incarnation();
        daemon.endpoints.skip_incarnations(last);
        daemon.take_up_infrastructure()?;
        for record in saved {
            let pod = format!("{}/{}", record.namespace, record.name);
            if let Err(error) = daemon.take_up(record) {
                warn!("{pod} is not taken up again: {error}");
            }
        }
        // The uplinks' numbers before any connection knows them.
        if let Err(error) = daemon.endpoints.save() {
            warn!("connections from outside may not survive the next restart: {error}");
        }
        if let Err(error) = daemon.plane.sweep() {
            warn!("pins of ports that are gone are left behind: {error}");
        }
        let commit = daemon
            .cluster
            .clone()
            .with_system_namespaces(&mut daemon.source);
        let first = daemon.commit(commit.cluster, &commit.events);
        first.map_err(|error| DaemonError::Start(error.message))?;
        Ok(daemon)
    }

    fn take_up_infrastructure(&mut self) -> Result<(), DaemonError> {
        for interface in self.plane.set_up(&self.config)? {
            let is_uplink = interface.role == Role::Uplink;
            let number = if is_uplink {
                self.endpoints.uplink_number(&interface.name)
            } else {
                None
            };
            let port = self.plane.add_port(&interface, number)?;
            if is_uplink {
                self.endpoints.remember_uplink(&interface.name, port);
            }
            self.infrastructure.push((interface, port));
        }
        self.plane.set_local_prefixes(&self.config.pod_ranges)?;
        self.facts = self.plane.facts()?;
        Ok(())
    }

    /// Lowers and compiles a candidate. What equals the live one is the live one.
    fn compile(
        &self,
        cluster: &Cluster,
        endpoints: &Endpoints,
        ids: &mut PolicyIds,
    ) -> Result<Compiled, ErrorObject> {
        let locals: Vec<LocalEndpoint> = endpoints.iter().map(local).collect();
        let mut lowered = lower(cluster, &locals, ids)
            .map_err(|error| refused(Reason::InternalError, error.to_string()))?;
        if self.config.enforcement == config::Enforcement::Off {
            lowered.policies.fill(EndpointPolicy::default());
        }
        let uids: Vec<String> = locals.into_iter().map(|local| local.uid).collect();
        if uids == self.compiled.uids && lowered.policies == self.compiled.policies {
            return Ok(self.compiled.clone());
        }
        let slots: Vec<(EndpointSlot, &EndpointPolicy)> =
            (0..).map(EndpointSlot).zip(&lowered.policies).collect();
        let table = Arc::new(PolicyTable::compile(&slots));
        Ok(Compiled {
            uids,
            policies: lowered.policies,
            table,
        })
    }

    /// Makes a changed cluster the live one.
    pub(super) fn commit(
        &mut self,
        cluster: Cluster,
        events: &[Event],
    ) -> Result<Live, ErrorObject> {
        let limit = self.config.limits.objects as usize;
        if cluster.len() > limit && cluster.len() > self.cluster.len() {
            let message =
                format!("the store would hold more than {limit} objects (limits.objects)");
            return Err(refused(Reason::Forbidden, message));
        }
        let mut ids = self.ids.clone();
        let compiled = self.compile(&cluster, &self.endpoints, &mut ids)?;
        let generation = self.next_generation()?;
        let snapshot = self.build(generation, &compiled)?;
        if !events.is_empty() || ids.names().len() > self.ids.names().len() {
            let record = record(generation, &cluster, events, &ids, self.ids.names().len());
            self.write(&record)?;
        }
        self.ids = ids;
        self.cluster = cluster;
        self.addresses.follow(events);
        for event in events {
            let kind = match event.kind {
                EventKind::Added => WatchEventType::Added,
                EventKind::Modified => WatchEventType::Modified,
                EventKind::Deleted => WatchEventType::Deleted,
            };
            self.watches.tell_all(kind, &event.object);
        }
        self.compact_journal();
        self.publish(snapshot, compiled)
    }

    /// Publishes what has changed but for the objects: endpoints, addresses, routes, neighbours.
    pub(super) fn refresh(&mut self) -> Result<Live, ErrorObject> {
        let cluster = self.cluster.clone();
        self.commit(cluster, &[])
    }

    pub(super) fn next_generation(&mut self) -> Result<Generation, ErrorObject> {
        loop {
            let next = self.journal.next_generation().map_err(|error| {
                refused(
                    Reason::InternalError,
                    format!("nothing has changed: {error}"),
                )
            })?;
            // An epoch is the low half, and 0 means "no endpoint".
            if Epoch::from(Generation(next)) != Epoch::NONE {
                return Ok(Generation(next));
            }
        }
    }

    fn write(&mut self, record: &Record) -> Result<(), ErrorObject> {
        self.journal.append(record).map_err(|error| {
            refused(
                Reason::InternalError,
                format!("nothing has changed: {error}"),
            )
        })
    }

    fn compact_journal(&mut self) {
        if !self.journal.is_long() {
            return;
        }
        let everything = Record {
            generation: self.live.generation,
            resource_version: self.cluster.resource_version(),
            put: self
                .cluster
                .objects()
                .map(|object| object.to_value())
                .collect(),
            policies: self.ids.names().iter().map(numbered).collect(),
            ..Record::default()
        };
        // The long journal holds the same; the next change tries again.
        if let Err(error) = self.journal.compact(everything) {
            error!("the journal is not compacted: {error}");
        }
    }

    /// The epoch of an endpoint under `compiled`: the new generation if its policy differs.
    fn epoch(&self, endpoint: &Endpoint, compiled: &Compiled, generation: Generation) -> Epoch {
        let policy = |compiled: &Compiled| -> Option<EndpointPolicy> {
            let slot = compiled.slot(&endpoint.record.uid)?;
            compiled.policies.get(usize::from(slot.0)).cloned()
        };
        let same = policy(&self.compiled).is_some_and(|old| Some(old) == policy(compiled));
        if same && endpoint.epoch != Epoch::NONE {
            endpoint.epoch
        } else {
            generation.into()
        }
    }

    fn build(&self, generation: Generation, compiled: &Compiled) -> Result<Snapshot, ErrorObject> {
        let gateways: Vec<Address> = self.config.gateways.iter().map(Address::from).collect();
        let node = &self.facts.node_addresses;
        let mut parts = Parts {
            generation,
            neighbours: self.facts.neighbours.clone(),
            node_addresses: node.clone(),
            gateways: gateways.clone(),
            routes: Arc::new(RouteTable::new(&self.facts.routes)),
            policy: compiled.table.clone(),
            settings: Settings {
                accept_events: self.accept_events(),
                sample_one_in: self.config.self_check.sample_one_in,
                ..settings(&self.config)
            },
            ..Parts::default()
        };
        for (interface, port) in &self.infrastructure {
            parts.ports.push(interface.port(*port, node));
        }
        for (slot, endpoint) in (0..).map(EndpointSlot).zip(self.endpoints.iter()) {
            let mut port = endpoint.interface.port(endpoint.port, &gateways);
            port.endpoint = Some(slot);
            parts.ports.push(port);
            let epoch = self.epoch(endpoint, compiled, generation);
            parts.epochs.push(epoch);
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
        Snapshot::build(parts)
            .map_err(|error| refused(Reason::Conflict, format!("nothing has changed: {error}")))
    }

    fn publish(&mut self, snapshot: Snapshot, compiled: Compiled) -> Result<Live, ErrorObject> {
        let generation = snapshot.generation();
        let accept_events = snapshot.settings().accept_events;
        let epochs: BTreeMap<u32, Epoch> = snapshot
            .endpoints()
            .map(|end| (end.incarnation.0, snapshot.epoch(end.slot)))
            .collect();
        let published = self.plane.publish(snapshot);
        if let Err(EngineError::StaleGeneration { .. }) = published {
            let message = format!("the workers refuse generation {}", generation.0);
            return Err(refused(Reason::InternalError, message));
        }
        for endpoint in self.endpoints.iter_mut() {
            if let Some(epoch) = epochs.get(&endpoint.record.incarnation) {
                endpoint.epoch = *epoch;
            }
        }
        self.compiled = compiled;
        self.accept_events_live = accept_events;
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
        };
        self.keep_grounds();
        match published {
            Ok(acknowledged) => {
                let elapsed = acknowledged.elapsed.as_micros();
                self.live.elapsed_micros = u64::try_from(elapsed).unwrap_or(u64::MAX);
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

    /// Removes a port; if the newest snapshot still has it, because no later one could be
    /// published, as soon as one is.
    pub(super) fn remove_port(&mut self, port: PortId) -> Result<(), PlaneError> {
        let removed = self.plane.remove_port(port);
        if let Err(PlaneError::Engine(EngineError::PortInUse { .. })) = removed {
            self.leaving.push(port);
        }
        removed
    }

    /// Follows changes of the kernel's network.
    pub(super) fn follow_outside(&mut self) {
        let Outside { gone, facts } = self.plane.outside();
        for index in gone {
            self.lose_interface(index);
        }
        if facts {
            self.refresh_facts();
        }
    }

    /// Reads the kernel's network anew and publishes what has changed.
    pub(super) fn refresh_facts(&mut self) {
        match self.plane.facts() {
            Ok(facts) if facts == self.facts => {}
            Ok(facts) => {
                self.facts = facts;
                if let Err(error) = self.refresh() {
                    error!("the network's change is not live: {}", error.message);
                }
            }
            Err(error) => error!("the network cannot be read: {error}"),
        }
    }
}

/// The objects and the policies' numbers that the records led to.
fn restore(records: Vec<Record>) -> Result<(Cluster, PolicyIds), DaemonError> {
    let mut cluster = Cluster::empty();
    let mut names = Vec::new();
    for record in records {
        if record.reset {
            cluster = Cluster::empty();
            names.clear();
        }
        for value in record.put {
            let restored = cluster.restore(value);
            restored.map_err(|error| DaemonError::Start(format!("the journal: {error}")))?;
        }
        for gone in record.delete {
            if let Some(kind) = kinds::find(&gone.api_version, &gone.kind) {
                let key = Key::new(kind, &gone.namespace, &gone.name);
                cluster.forget(&key, record.resource_version);
            }
        }
        for policy in record.policies {
            let Some(kind) = kinds::KINDS.iter().find(|kind| kind.kind == policy.kind) else {
                let message = format!("the journal: {} is no kind of policy", policy.kind);
                return Err(DaemonError::Start(message));
            };
            names.push(PolicyName {
                kind: kind.kind,
                namespace: policy.namespace,
                name: policy.name,
                uid: policy.uid,
            });
        }
    }
    Ok((cluster, PolicyIds::restore(names)))
}

fn numbered(name: &PolicyName) -> Numbered {
    Numbered {
        kind: name.kind.to_owned(),
        namespace: name.namespace.clone(),
        name: name.name.clone(),
        uid: name.uid.clone(),
    }
}

fn record(
    generation: Generation,
    cluster: &Cluster,
    events: &[Event],
    ids: &PolicyIds,
    known_ids: usize,
) -> Record {
    let mut record = Record {
        generation: generation.0,
        resource_version: cluster.resource_version(),
        policies: ids.names()[known_ids..].iter().map(numbered).collect(),
        ..Record::default()
    };
    // By key, because a transaction may touch an object more than once: its end counts.
    let touched: BTreeMap<&Key, &Event> = events
        .iter()
        .map(|event| (event.object.key(), event))
        .collect();
    for key in touched.keys() {
        match cluster.get(key) {
            Some(object) => record.put.push(object.to_value()),
            None => record.delete.push(Gone {
                api_version: key.kind.api_version.to_owned(),
                kind: key.kind.kind.to_owned(),
                namespace: key.namespace.to_string(),
                name: key.name.to_string(),
            }),
        }
    }
    record
}

/// An endpoint as lowering sees it.
pub(super) fn local(endpoint: &Endpoint) -> LocalEndpoint {
    LocalEndpoint {
        namespace: endpoint.record.namespace.clone(),
        name: endpoint.record.name.clone(),
        uid: endpoint.record.uid.clone(),
        addresses: endpoint.record.addresses.clone(),
    }
}

fn settings(config: &Config) -> Settings {
    Settings {
        existing_connections: match config.existing_connections {
            config::ExistingConnections::Redecide => ExistingConnections::Redecide,
            config::ExistingConnections::Keep => ExistingConnections::Keep,
        },
        node_egress: match config.node_egress {
            config::NodeEgress::Policy => NodeEgress::Policy,
            config::NodeEgress::Allow => NodeEgress::Allow,
        },
        ..Settings::default()
    }
}
