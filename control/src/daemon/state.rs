//! The daemon's state, and how a change of it becomes a live snapshot.
//!
//! Every change takes one way: it is lowered and compiled; if that holds it is written to the
//! journal, then published ([`publication`](super::publication)), and the reply waits until every
//! worker has adopted it. What fails before the journal is taken back and has changed nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use config::Config;
use dataplane::Snapshot;
use dataplane::engine::EngineError;
use dataplane::policy::PolicyTable;
use dataplane::route::RouteTable;
use dataplane::snapshot::{EndpointSlot, Epoch, Generation, PortId};
use serde_json::Value;
use tracing::{error, warn};

use super::DaemonError;
use super::addresses::PodAddresses;
use super::captures::Captures;
use super::endpoints::Endpoints;
use super::hits::Tallies;
use super::metrics::Publications;
use super::network::{Facts, Interface};
use super::observe::RecentFlows;
use super::plane::{Plane, PlaneError};
use super::readings::Hits;
use super::server::refused;
use super::verify::Verifier;
use super::watches::Watches;
use crate::cluster::{Cluster, Event, EventKind, System};
use crate::denial_log::DenialLog;
use crate::journal::{Everything, Gone, Journal, Numbered, Record};
use crate::lower::{self, Change, Policies, PolicyIds, PolicyName, Touched};
use crate::objects::definitions::DEFINITION;
use crate::objects::{DecodeError, Key, kinds};
use crate::protocol::{ErrorObject, Reason, WatchEventType, Workers};
use crate::service::{Node, Pools, Services};

/// A generation that workers have adopted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Its number.
    pub generation: u64,
    /// Who adopted it.
    pub workers: Workers,
    /// From publication to the last acknowledgement, µs.
    pub elapsed_micros: u64,
    /// From the arrival of the request that asked for it to the last acknowledgement, µs.
    pub request_micros: u64,
}

/// The daemon.
#[derive(Debug)]
pub struct Daemon<P> {
    pub(super) config: Config,
    pub(super) plane: P,
    pub(super) journal: Journal,
    pub(super) cluster: Cluster,
    pub(super) source: System,
    pub(super) policies: Policies,
    /// How many of the policies' numbers the journal has.
    pub(super) journaled_ids: usize,
    pub(super) endpoints: Endpoints,
    /// Host port and uplinks.
    pub(super) infrastructure: Vec<(Interface, PortId)>,
    /// Ports without an interface or endpoint that the newest snapshot still has.
    pub(super) leaving: Vec<PortId>,
    pub(super) facts: Facts,
    /// [`Facts::routes`], to be looked up in.
    pub(super) routes: Arc<RouteTable>,
    /// The Services, as of `cluster` and `facts`.
    pub(super) services: Services,
    /// What the newest snapshot decides by.
    pub(super) table: Arc<PolicyTable>,
    /// Endpoints whose decisions may differ from those of the newest snapshot.
    pub(super) touched: BTreeSet<EndpointSlot>,
    /// The newest snapshot, as long as ports, endpoints and the network are as they are in it.
    pub(super) newest: Option<Snapshot>,
    pub(super) live: Live,
    pub(super) publications: Publications,
    pub(super) log: DenialLog,
    pub(super) events_lost: u64,
    pub(super) watches: Watches,
    /// Flows of the recent past.
    pub(super) recent: RecentFlows,
    /// Who captures what.
    pub(super) captures: Captures,
    /// Whether the workers tell of connections that pass, by the newest snapshot.
    pub(super) accept_events_live: bool,
    /// Pods by their addresses, as of `cluster`.
    pub(super) addresses: PodAddresses,
    /// What rules have decided.
    pub(super) hits: Hits,
    /// When the counters were last read because it was time.
    pub(super) hits_read: Instant,
    /// What the workers have told of, by who decided.
    pub(super) tallies: Tallies,
    /// The self-check, unless it is switched off.
    pub(super) verifier: Option<Verifier>,
    pub(super) started: Instant,
    /// When the request that is answered was here.
    pub(super) arrived: Instant,
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
        let cluster = cluster.with_pools(Pools {
            services: config.services.clone(),
            foreign: false,
        });
        let addresses = PodAddresses::of(&cluster);
        let journaled_ids = ids.names().len();
        let mut policies = Policies::new(ids, lower_settings(&config));
        let all: Vec<Change> = cluster.objects().map(Change::added).collect();
        policies
            .update(&all)
            .map_err(|error| DaemonError::Start(error.to_string()))?;
        let node = services_node(&config, &Facts::default());
        let services =
            Services::new(&cluster, node).map_err(|error| DaemonError::Start(error.to_string()))?;
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
            policies,
            journaled_ids,
            endpoints,
            infrastructure: Vec::new(),
            leaving: Vec::new(),
            facts: Facts::default(),
            routes: Arc::default(),
            services,
            table: Arc::default(),
            touched: BTreeSet::new(),
            newest: None,
            live: Live::default(),
            publications: Publications::default(),
            log,
            events_lost: 0,
            watches: Watches::default(),
            recent: RecentFlows::new(Instant::now()),
            captures: Captures::default(),
            accept_events_live: false,
            addresses,
            hits: Hits::default(),
            hits_read: Instant::now(),
            tallies: Tallies::default(),
            verifier,
            started: Instant::now(),
            arrived: Instant::now(),
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
        let changes: Vec<Change> = events.iter().map(Change::from).collect();
        let touched = self
            .policies
            .update(&changes)
            .map_err(|error| refused(Reason::InternalError, error.to_string()))?;
        let prepared = self
            .services
            .with(&cluster, &changes)
            .map_err(|error| refused(Reason::Forbidden, error.to_string()))
            .and_then(|services| {
                let snapshot = self.prepare(&cluster, events, &touched, &services)?;
                Ok((services, snapshot))
            });
        let (services, snapshot) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                self.policies.undo(&changes);
                return Err(error);
            }
        };
        self.policies.keep();
        self.touched.extend(touched.endpoints);
        self.cluster = cluster;
        self.services = services;
        self.addresses.follow(events);
        let live = self.publish(snapshot);
        // Nobody waits for what is below: the change is live, or the error says where not.
        for event in events {
            let kind = match event.kind {
                EventKind::Added => WatchEventType::Added,
                EventKind::Modified => WatchEventType::Modified,
                EventKind::Deleted => WatchEventType::Deleted,
            };
            self.watches.tell_all(kind, &event.object);
        }
        self.compact_journal();
        self.restart_hits(events);
        live
    }

    /// Everything of a change that can fail: a snapshot, and its record in the journal.
    fn prepare(
        &mut self,
        cluster: &Cluster,
        events: &[Event],
        touched: &Touched,
        services: &Services,
    ) -> Result<Snapshot, ErrorObject> {
        let generation = self.next_generation()?;
        let snapshot = self.draw(generation, touched, services)?;
        let ids = self.policies.ids();
        if !events.is_empty() || ids.names().len() > self.journaled_ids {
            let record = record(generation, cluster, events, ids, self.journaled_ids);
            self.write(record)?;
            self.journaled_ids = self.policies.ids().names().len();
        }
        Ok(snapshot)
    }

    /// Publishes what has changed but for the objects: endpoints, addresses, routes, neighbours.
    pub(super) fn refresh(&mut self) -> Result<Live, ErrorObject> {
        self.newest = None;
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

    fn write(&mut self, record: Record<&Value>) -> Result<(), ErrorObject> {
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
        let everything = Everything {
            generation: self.live.generation,
            cluster: self.cluster.clone(),
            policies: self.policies.ids().names().iter().map(numbered).collect(),
        };
        // The long journal holds the same.
        if let Err(error) = self.journal.compact(everything) {
            error!("the journal is not compacted: {error}");
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
        // What defines a kind may stand behind its objects.
        let (first, then): (Vec<Value>, Vec<Value>) = record
            .put
            .into_iter()
            .partition(|value| value["kind"] == DEFINITION.1);
        for value in first.into_iter().chain(then) {
            match cluster.restore(value) {
                Err(error @ DecodeError::UnknownKind { .. }) => {
                    warn!("the journal has an object that is left out: {error}");
                }
                other => {
                    other.map_err(|error| DaemonError::Start(format!("the journal: {error}")))?
                }
            }
        }
        for gone in record.delete {
            // By the objects: what defined the kind may be gone, or say another version now.
            if let Some(kind) = cluster.kind(&gone.api_version, &gone.kind) {
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

fn record<'a>(
    generation: Generation,
    cluster: &'a Cluster,
    events: &[Event],
    ids: &PolicyIds,
    known_ids: usize,
) -> Record<&'a Value> {
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
            Some(object) => record.put.push(object.value()),
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

/// The node that Services are reached at.
pub(super) fn services_node(config: &Config, facts: &Facts) -> Node {
    let sources = config.host_port.addresses.iter().copied();
    Node {
        name: Some(config.node_name.clone()),
        addresses: facts.node_addresses.clone(),
        sources: sources.map(Into::into).collect(),
        pod_ranges: config.pod_ranges.clone(),
    }
}

/// How policies are to be taken.
fn lower_settings(config: &Config) -> lower::Settings {
    lower::Settings {
        enforced: config.enforcement == config::Enforcement::On,
        rule_counters: config.limits.rule_counters,
        compound_counters: config.limits.compound_counters,
    }
}
