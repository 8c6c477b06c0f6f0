//! The workers together: what the control thread starts, feeds and asks.
//!
//! One [`Engine`] per daemon, owned by the control thread; everything slow (sockets, programs,
//! waiting) happens there, never on a worker. The order of a pod's life:
//!
//! 1. [`Engine::add_port`] attaches the program and binds the sockets. The port passes nothing yet.
//! 2. [`Engine::publish`] with a snapshot that has the port, its endpoint and its policy. When it
//!    returns `Ok`, every worker decides by that snapshot.
//! 3. [`Engine::publish`] without them, [`Engine::forget_endpoint`], [`Engine::remove_port`].
//!
//! [`Engine::maintain`] wants to be called about ten times a second: it expires connections and
//! takes back the frames of removed ports.

mod audit;
mod memory;
mod ports;
mod record;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;

pub use self::memory::{ConnectionTable, TableMemory};
use self::ports::PortRegister;
use crate::Time;
use crate::conntrack::Timeouts;
use crate::counters::{Counter, CounterId, Counters, RuleHits, Totals};
use crate::events::{Event, EventQueue};
use crate::fragments;
use crate::polling::Polling;
use crate::service::{Affinity, ServiceTable};
use crate::snapshot::{
    Generation, Incarnation, NotAcknowledged, PortId, Retired, Role, Snapshot, SnapshotCell,
};
use crate::wire::ETHERNET_BYTES;
use crate::worker::{self, Command, Shared, WorkerHandle};
use crate::xdp::{Programs, XdpError};
use crate::xsk::{PACKET_OFFSET, PARTS_MAX, Statistics, Umem, XskError, takes_multi_buffer};

/// How an [`Engine`] is started.
#[derive(Debug)]
pub struct Options {
    /// The core of each worker; one worker per entry, at most [`WORKERS_MAX`].
    pub cores: Vec<usize>,
    /// Ports there can be at once.
    pub ports_max: u16,
    /// Chunks of packet memory.
    pub umem_chunks: u32,
    /// Bytes of a chunk: 2048 or 4096.
    pub umem_chunk_bytes: u32,
    /// Where programs, links and maps are pinned: a folder of this instance's own on a bpffs.
    pub pin_dir: PathBuf,
    /// The connection table.
    pub conntrack: ConntrackOptions,
    /// The bounds of what comes in fragments; the frames held take at most an eighth of
    /// [`Options::umem_chunks`] whatever is set.
    pub fragments: fragments::Bounds,
    /// Clients' bonds with a backend (`sessionAffinity: ClientIP`), about, 112 bytes each; beyond them
    /// those that would end first are given up.
    pub affinity_bonds: u32,
    /// Counters of rules, compound ones too, 1 to [`CounterId::MAX`] + 1: 16 bytes each for every
    /// worker. Rules whose [`CounterId`] is not below it count into [`CounterId::NONE`].
    pub rule_counters: u32,
    /// Events that one worker can have waiting.
    pub events_max: usize,
    /// When workers without packets sleep.
    pub polling: Polling,
    /// How long [`Engine::publish`] waits for the workers.
    pub publish_patience: Duration,
}

/// Most workers an engine can have.
pub const WORKERS_MAX: usize = 32;

/// Most queues of one port: each costs 128 bytes of kernel memory per UMEM chunk.
pub const QUEUES_MAX: u16 = 64;

/// The connection table's memory and bounds.
#[derive(Debug)]
pub struct ConntrackOptions {
    /// A file on a tmpfs, or a memfd, that outlives the daemon; opened read-write by control. It is
    /// grown to the size needed. None keeps the table in memory of the process.
    pub file: Option<OwnedFd>,
    /// The boot's identity (`/proc/sys/kernel/random/boot_id`): a table of another boot is not
    /// taken over.
    pub boot: u128,
    /// Connections.
    pub capacity: u32,
    /// The largest share of one endpoint, percent.
    pub quota_percent: u32,
    /// Whether TCP segments out of the window are invalid.
    pub strict_tcp: bool,
    /// Idle time-outs.
    pub timeouts: Timeouts,
    /// How long after a start with an empty table TCP without SYN is adopted (D21).
    pub adoption_window_s: u32,
}

/// A port to add.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortSpec {
    /// The interface's index in the network namespace of the calling thread.
    pub ifindex: u32,
    /// What stands behind it.
    pub role: Role,
    /// Receive queues to drive, from 0; at most [`QUEUES_MAX`]. What comes by others is dropped.
    pub queues: u16,
    /// Transmit queues that the interface has: nothing is sent by a driven queue whose number is
    /// not below it.
    pub transmit_queues: u16,
    /// Whether to bind zero-copy: only for queues that are ours alone.
    pub zero_copy: bool,
    /// The number that the port had under a former daemon, if control remembers it: connections
    /// know their initiator's port by number, and go on only under the same one. The host roles
    /// have numbers of their own ([`PortId::HOST_NODE`]), whatever stands here.
    pub number: Option<PortId>,
}

/// Every worker decides by a new generation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Acknowledged {
    /// The generation.
    pub generation: Generation,
    /// Workers that have adopted it: all of them.
    pub workers: usize,
    /// From the publication until the last worker adopted it.
    pub elapsed: Duration,
}

/// Why the engine could not do something. Nothing has changed unless the variant says so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// An option is out of its bounds.
    #[error("{0}")]
    Options(String),
    /// The system refused something.
    #[error("{what}: {source}")]
    System {
        /// What was tried, of which interface.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A program could not be loaded or attached.
    #[error(transparent)]
    Xdp(#[from] XdpError),
    /// Packet memory or a socket.
    #[error(transparent)]
    Xsk(#[from] XskError),
    /// All port numbers are in use.
    #[error("all {0} ports are in use: raise max_ports")]
    NoPort(u16),
    /// The number asked for is taken, or beyond the ports there can be.
    #[error("port number {} is taken or too large", .0.0)]
    NumberTaken(PortId),
    /// No such port.
    #[error("port {} does not exist", .0.0)]
    UnknownPort(PortId),
    /// The port still stands in the newest snapshot.
    #[error("port {} still stands in generation {}", .port.0, .generation.0)]
    PortInUse {
        /// The port.
        port: PortId,
        /// The newest snapshot.
        generation: Generation,
    },
    /// A generation that is not newer than the newest.
    #[error("generation {} is not newer than {}", .offered.0, .newest.0)]
    StaleGeneration {
        /// What was offered.
        offered: Generation,
        /// What is live.
        newest: Generation,
    },
    /// The snapshot is published, but not every worker has adopted it in time.
    #[error(transparent)]
    NotAcknowledged(#[from] NotAcknowledged),
    /// A worker was kept from running while frames were to be counted.
    #[error("the workers did not stop in time to count their frames: try again")]
    AuditLate,
    /// A worker has ended, which it does only by panicking. Packets of its ports are dropped.
    #[error("worker {0} has ended: restart the daemon")]
    WorkerGone(usize),
}

/// The workers, their ports and tables.
pub struct Engine {
    shared: Arc<Shared<Arc<TableMemory>>>,
    workers: Vec<WorkerHandle>,
    cell: Arc<SnapshotCell>,
    /// Snapshots that some worker may still use.
    retired: Retired,
    programs: Programs,
    /// The Services whose node ports the programs know.
    services: Arc<ServiceTable>,
    /// Whether some of their backends were elsewhere then; none before the programs were told.
    remote_backends: Option<bool>,
    ports: PortRegister,
    publish_patience: Duration,
    expire_cursor: u32,
    taken_over: bool,
    /// Whether the kernel takes packets of several frames.
    multi_buffer: bool,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let generation = self.cell.load().generation();
        let workers = self.workers.len();
        f.debug_struct("Engine")
            .field("workers", &workers)
            .field("generation", &generation)
            .finish_non_exhaustive()
    }
}

/// Entries of the connection table that one [`Engine::maintain`] looks at, as a share: all that are
/// in use in this many calls.
const EXPIRE_SLICES: u32 = 20;

impl Engine {
    /// Maps the memory, loads the programs and starts the workers, with an empty snapshot of
    /// generation 0: until the first [`Engine::publish`] nothing passes.
    ///
    /// # Errors
    /// If an option is out of bounds or the system refuses memory, programs or threads.
    pub fn start(options: Options) -> Result<Engine, EngineError> {
        check(&options)?;
        let workers = options.cores.len();
        let now = worker::now();
        let adoption_window_s = u64::from(options.conntrack.adoption_window_s);
        let opened = memory::open(options.conntrack, options.ports_max, now)?;
        if !opened.taken_over {
            opened
                .table
                .adopt_until(now.plus_seconds(adoption_window_s));
        }
        let umem = Umem::in_memory(options.umem_chunks, options.umem_chunk_bytes)?;
        let multi_buffer =
            takes_multi_buffer().map_err(XskError::system("open an AF_XDP socket"))?;
        let slots_max = u32::from(options.ports_max) * QUEUES_PER_PORT_MEAN + QUEUES_BESIDE;
        let programs = Programs::load(&options.pin_dir, slots_max)?;
        let events = (0..workers)
            .map(|_| EventQueue::new(options.events_max))
            .collect();
        let counters = Counters::new(workers, options.ports_max, options.rule_counters);
        let fragments = fragments::Bounds {
            frames: options.fragments.frames.min(options.umem_chunks / 8),
            ..options.fragments
        };
        let seed = [memory::random(), memory::random()];
        let fragments = fragments::Table::new(fragments, options.ports_max, seed);
        let seed = [memory::random(), memory::random()];
        let affinity = Affinity::new(options.affinity_bonds, seed);
        learn_bonds(&opened.table, &affinity, now);
        let shared = Arc::new(Shared {
            conntrack: opened.table,
            fragments,
            affinity,
            counters,
            events,
            umem,
            ports_max: options.ports_max,
            polling: options.polling,
        });
        let cell = Arc::new(SnapshotCell::new(Arc::new(Snapshot::default()), workers));
        let mut engine = Engine {
            shared,
            workers: Vec::with_capacity(workers),
            cell,
            retired: Retired::default(),
            programs,
            services: Arc::default(),
            remote_backends: None,
            ports: PortRegister::new(options.ports_max, multi_buffer),
            multi_buffer,
            publish_patience: options.publish_patience,
            expire_cursor: 0,
            taken_over: opened.taken_over,
        };
        for (index, core) in options.cores.into_iter().enumerate() {
            let (shared, reader) = (Arc::clone(&engine.shared), engine.cell.reader(index));
            let worker = worker::start(index, core, shared, reader).map_err(|source| {
                EngineError::System {
                    what: format!("start a worker on core {core}"),
                    source,
                }
            })?;
            engine.workers.push(worker);
        }
        Ok(engine)
    }

    /// Attaches the role's program to an interface, binds its sockets and gives the port a number.
    /// It passes nothing until a published snapshot has it.
    ///
    /// # Errors
    /// If all ports are in use or the system refuses. An uplink is left as it was; any other
    /// interface may stay shut, so that nothing passes past the daemon.
    pub fn add_port(&mut self, spec: &PortSpec) -> Result<PortId, EngineError> {
        self.check_workers()?;
        let Engine {
            ports,
            programs,
            workers,
            shared,
            ..
        } = self;
        let port = ports.add(spec, programs, workers, &shared.umem)?;
        // It passes nothing before a snapshot has it, so that nothing has been counted yet.
        shared.counters.set_pod(port, spec.role == Role::Pod);
        Ok(port)
    }

    /// To be called after a port's interface has got more queues: drives `queues` of them from now
    /// on, or as many as before if that is more, and gives the program to all of them. Others'
    /// packets go on meanwhile, and so do the port's. Returns how many there are. Fewer there never
    /// are: the kernel keeps those that are bound (`net/ethtool/channels.c`).
    ///
    /// # Errors
    /// If there is no such port, or the system refuses: what comes by the new queues is dropped then.
    pub fn add_queues(&mut self, port: PortId, queues: u16) -> Result<u16, EngineError> {
        self.check_workers()?;
        let Engine {
            ports,
            programs,
            workers,
            shared,
            ..
        } = self;
        ports.add_queues(port, queues, programs, workers, &shared.umem)
    }

    /// Takes a port back: closes its sockets, and detaches an uplink's program. A pod's interface
    /// stays shut while it exists: the pod may still run. Works too when the interface is gone
    /// already. Frames that the kernel still holds come back by [`Engine::maintain`].
    ///
    /// # Errors
    /// If the port does not exist or the newest snapshot still has it. If a program cannot be
    /// detached or a worker has ended, the port is gone all the same.
    pub fn remove_port(&mut self, port: PortId) -> Result<(), EngineError> {
        let newest = self.cell.load();
        if newest.port(port).is_some() {
            return Err(EngineError::PortInUse {
                port,
                generation: newest.generation(),
            });
        }
        let Engine {
            ports,
            programs,
            workers,
            ..
        } = self;
        let removed = ports.remove(port, programs, workers);
        self.shared.fragments.forget_port(port);
        removed?;
        self.shared.umem.reclaim();
        Ok(())
    }

    /// Removes pins of interfaces that are gone: of pods that went while no daemon ran; how many
    /// there were.
    ///
    /// # Errors
    /// If the pins' folder cannot be read or a pin not be removed.
    pub fn sweep_pins(&self) -> Result<usize, EngineError> {
        Ok(self.programs.sweep()?)
    }

    /// What the uplink's program redirects to us: packets to these prefixes. All else on an uplink
    /// stays with the node's stack. Replaces the prefixes set before.
    ///
    /// # Errors
    /// If the kernel refuses the map's update; some prefixes may be set then.
    pub fn set_local_prefixes(&mut self, prefixes: &[IpNet]) -> Result<(), EngineError> {
        Ok(self.programs.set_local_prefixes(prefixes)?)
    }

    /// Publishes a snapshot and waits until every worker has adopted it.
    ///
    /// # Errors
    /// [`EngineError::StaleGeneration`] if it is not newer than the newest, [`EngineError::Xdp`] if the
    /// uplinks' programs cannot be told of its Services' node ports: nothing changes then.
    /// [`EngineError::NotAcknowledged`] after [`Options::publish_patience`] and
    /// [`EngineError::WorkerGone`]: it is published all the same.
    pub fn publish(&mut self, snapshot: Snapshot) -> Result<Acknowledged, EngineError> {
        let (offered, newest) = (snapshot.generation(), self.cell.load().generation());
        if offered <= newest {
            return Err(EngineError::StaleGeneration { offered, newest });
        }
        self.tell_programs(&snapshot)?;
        let begin = Instant::now();
        let previous = self.cell.publish(Arc::new(snapshot));
        self.retired.keep(previous);
        for worker in &self.workers {
            worker.wake.wake();
        }
        self.check_workers()?;
        self.cell.wait(offered, self.publish_patience)?;
        // From the publication: a worker that is woken may have adopted it before we wait.
        let elapsed = begin.elapsed();
        self.retired.sweep();
        Ok(Acknowledged {
            generation: offered,
            workers: self.workers.len(),
            elapsed,
        })
    }

    /// Lets the uplinks' programs give us the node ports of a snapshot's Services, and what comes back to
    /// the node's address that connections elsewhere are translated to. Before workers know them, or
    /// after they have forgotten, such packets are dropped.
    fn tell_programs(&mut self, snapshot: &Snapshot) -> Result<(), EngineError> {
        let services = snapshot.shared_services();
        if Arc::ptr_eq(&services, &self.services) {
            return Ok(());
        }
        let has_remote = services.has_remote(|address| snapshot.endpoint_at(address).is_none());
        let same = services.is_same_at_the_node(&self.services);
        if !same || self.remote_backends != Some(has_remote) {
            self.programs
                .set_node_services(services.of_the_node(has_remote))?;
        }
        self.remote_backends = Some(has_remote);
        self.services = services;
        Ok(())
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.cell.load()
    }

    /// Workers that decide by `generation` or a later one, and workers there are.
    pub fn live(&self, generation: Generation) -> (usize, usize) {
        (self.cell.live(generation), self.workers.len())
    }

    /// The largest MTU that a port's interface may have, bytes: larger packets are dropped, by the
    /// kernel or as [`DropReason::MultiBuffer`](crate::DropReason::MultiBuffer). Zero-copy ports
    /// take one chunk a packet.
    pub fn mtu_max(&self, zero_copy: bool) -> u32 {
        let several = self.multi_buffer && !zero_copy;
        mtu_max(self.shared.umem.chunk_bytes(), several)
    }

    /// Whether the connection table went on from an earlier daemon's.
    pub fn taken_over(&self) -> bool {
        self.taken_over
    }

    /// Removes a gone endpoint's connections, and how many; and what has come of datagrams from it or
    /// for it. Call after a snapshot without it is live.
    pub fn forget_endpoint(&mut self, incarnation: Incarnation) -> usize {
        self.shared.fragments.forget_endpoint(incarnation);
        self.shared.conntrack.remove_endpoint(incarnation) as usize
    }

    /// The connection table, for listing and its counters.
    pub fn conntrack(&self) -> &ConnectionTable {
        &self.shared.conntrack
    }

    /// Datagrams that are coming in fragments.
    pub fn fragments(&self) -> &fragments::Table {
        &self.shared.fragments
    }

    /// The kernel's counters of a port's sockets, summed; none if there is no such port.
    pub fn port_statistics(&self, port: PortId) -> Option<Statistics> {
        self.ports.statistics(port)
    }

    /// The packet memory, for its census.
    pub fn umem(&self) -> &Arc<Umem> {
        &self.shared.umem
    }

    /// The sums of all workers' counters.
    pub fn counters(&self) -> Totals {
        self.shared.counters.totals()
    }

    /// Writes the hits of the rules from `first` on into `hits`, summed over the workers: as
    /// [`Counters::rule_hits`].
    pub fn rule_hits(&self, first: CounterId, hits: &mut [RuleHits]) {
        self.shared.counters.rule_hits(first, hits);
    }

    /// The hits of one rule: as [`Counters::hits_of`].
    pub fn hits_of(&self, counter: CounterId) -> RuleHits {
        self.shared.counters.hits_of(counter)
    }

    /// Counters of rules there are, [`CounterId::NONE`] among them: [`Options::rule_counters`].
    pub fn rule_counters(&self) -> u32 {
        self.shared.counters.rules_max()
    }

    /// Hands at most `limit` events to `each`, oldest first per worker; how many there were.
    pub fn drain_events(&self, limit: usize, mut each: impl FnMut(&Event)) -> usize {
        let mut drained = 0;
        for queue in &self.shared.events {
            while drained < limit
                && let Some(event) = queue.pop()
            {
                each(&event);
                drained += 1;
            }
        }
        drained
    }

    /// Samples for the self-check that workers could not queue, since the start.
    pub fn samples_lost(&self) -> u64 {
        self.shared
            .events
            .iter()
            .map(EventQueue::samples_lost)
            .sum()
    }

    /// Events that workers could not queue, since the start; samples are not among them.
    pub fn events_lost(&self) -> u64 {
        self.shared.events.iter().map(EventQueue::lost).sum()
    }

    /// Work that is due now and then: expires a slice of the connection table, takes back frames.
    pub fn maintain(&mut self) {
        let used = self.shared.conntrack.high_water();
        let budget = used.div_ceil(EXPIRE_SLICES);
        let now = worker::now();
        self.expire_cursor = self
            .shared
            .conntrack
            .expire(self.expire_cursor, budget, now)
            .cursor;
        self.shared.umem.reclaim();
        // After a publication that was not acknowledged in time.
        self.retired.sweep();
    }

    /// Whether every worker lives.
    ///
    /// # Errors
    /// [`EngineError::WorkerGone`] names the first that has ended.
    pub fn check_workers(&self) -> Result<(), EngineError> {
        let gone = |worker: &WorkerHandle| worker.thread.as_ref().is_none_or(|t| t.is_finished());
        match self.workers.iter().position(gone) {
            Some(index) => Err(EngineError::WorkerGone(index)),
            None => Ok(()),
        }
    }

    /// Whether each worker's thread runs, by number.
    pub fn workers_alive(&self) -> Vec<bool> {
        let alive = |worker: &WorkerHandle| {
            let thread = worker.thread.as_ref();
            thread.is_some_and(|thread| !thread.is_finished())
        };
        self.workers.iter().map(alive).collect()
    }

    /// The generation that each worker has adopted, by number.
    pub fn adopted(&self) -> Vec<Generation> {
        self.cell.adopted()
    }

    /// The worker that owns a port's first queue.
    pub fn owner(&self, port: PortId) -> Option<usize> {
        self.ports.owner(port)
    }

    /// The worker that owns each queue of a port; none if there is no such port.
    pub fn owners(&self, port: PortId) -> &[usize] {
        self.ports.owners(port)
    }

    /// One worker's share of a counter; 0 beyond the workers there are.
    pub fn counter_of(&self, worker: usize, counter: Counter) -> u64 {
        let shard = self.shared.counters.shard(worker);
        shard.map_or(0, |shard| shard.count(counter))
    }

    /// Stops the workers and closes every socket. Programs stay attached and pinned, so that
    /// nothing passes until a successor takes over (D11).
    pub fn stop(self) {}
}

/// What frames of this size hold of a packet, less its Ethernet header. A frame's beginning is the
/// kernel's; IP has no packets beyond 65,535 bytes.
fn mtu_max(chunk_bytes: u32, multi_buffer: bool) -> u32 {
    let frames = if multi_buffer { PARTS_MAX as u32 } else { 1 };
    let bytes = frames * (chunk_bytes - PACKET_OFFSET) - ETHERNET_BYTES as u32;
    bytes.min(u16::MAX.into())
}

/// Socket slots are shared by all ports; most have one queue.
const QUEUES_PER_PORT_MEAN: u32 = 2;
/// And a few uplinks may have very many.
const QUEUES_BESIDE: u32 = 4 * QUEUES_MAX as u32;

impl Drop for Engine {
    fn drop(&mut self) {
        for worker in &self.workers {
            worker.send(Command::Stop);
        }
        for worker in &mut self.workers {
            if let Some(thread) = worker.thread.take() {
                // A worker that panicked has said so already.
                let _ = thread.join();
            }
        }
    }
}

/// Takes on the bonds of clients whose connections go on.
fn learn_bonds(connections: &ConnectionTable, affinity: &Affinity, now: Time) {
    for entry in connections.entries(now) {
        if let Some(translation) = entry.translation
            && translation.is_service(&entry.key)
        {
            let (asked, backend) = (translation.outer(&entry.key), entry.key.receiver());
            affinity.learn(&asked, backend, entry.created);
        }
    }
}

fn check(options: &Options) -> Result<(), EngineError> {
    let refuse = |text: String| Err(EngineError::Options(text));
    let workers = options.cores.len();
    if workers == 0 || workers > WORKERS_MAX {
        return refuse(format!(
            "workers: {workers} cores given, 1 to {WORKERS_MAX} are possible"
        ));
    }
    if options.ports_max <= PortId::FIRST_FREE.0 {
        return refuse(format!("max_ports must be above {}", PortId::FIRST_FREE.0));
    }
    if !(1..=CounterId::MAX + 1).contains(&options.rule_counters) {
        let counters = options.rule_counters;
        return refuse(format!(
            "{counters} rule counters are out of range 1 to {}",
            CounterId::MAX + 1
        ));
    }
    if !(1..=100).contains(&options.conntrack.quota_percent) {
        let percent = options.conntrack.quota_percent;
        return refuse(format!(
            "conntrack quota of {percent} percent is out of range 1 to 100"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_mtu_is_what_the_frames_of_a_packet_hold() {
        // One frame of 4096 bytes begins with 256 of the kernel's, and the packet with Ethernet's 14.
        assert_eq!([mtu_max(4096, false), mtu_max(2048, false)], [3826, 1778]);
        assert_eq!([mtu_max(4096, true), mtu_max(2048, true)], [65_535, 32_242]);
    }
}
