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

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::counters::Totals;
use crate::events::Event;
use crate::snapshot::{Generation, Incarnation, PortId, Role, Snapshot};

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
    /// Events that one worker can have waiting.
    pub events_max: usize,
    /// How long [`Engine::publish`] waits for the workers.
    pub publish_patience: Duration,
}

/// Most workers an engine can have.
pub const WORKERS_MAX: usize = 32;

/// The connection table's memory and bounds.
#[derive(Debug)]
pub struct ConntrackOptions {
    /// A file on a tmpfs, or a memfd, that outlives the daemon; opened read-write by control. It is
    /// grown to the size needed. None keeps the table in memory of the process.
    pub file: Option<OwnedFd>,
    /// Connections.
    pub capacity: u32,
    /// The largest share of one endpoint, percent.
    pub quota_percent: u32,
    /// Whether TCP segments out of the window are invalid.
    pub strict_tcp: bool,
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
    /// Receive queues to drive, from 0.
    pub queues: u16,
    /// Whether to bind zero-copy: only for queues that are ours alone.
    pub zero_copy: bool,
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
    /// All port numbers are in use.
    #[error("all {0} ports are in use: raise max_ports")]
    NoPort(u16),
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
    NotAcknowledged(#[from] crate::snapshot::NotAcknowledged),
    /// A worker has ended, which it does only by panicking. Packets of its ports are dropped.
    #[error("worker {0} has ended: restart the daemon")]
    WorkerGone(usize),
}

/// The workers, their ports and tables.
#[derive(Debug)]
pub struct Engine {
    _private: (),
}

impl Engine {
    /// Maps the memory, loads the programs and starts the workers, with an empty snapshot of
    /// generation 0: until the first [`Engine::publish`] nothing passes.
    ///
    /// # Errors
    /// If an option is out of bounds or the system refuses memory, programs or threads.
    pub fn start(options: Options) -> Result<Engine, EngineError> {
        let _ = options;
        Err(EngineError::Options("the engine is not there yet".into()))
    }

    /// Attaches the role's program to an interface, binds its sockets and gives the port a number.
    /// It passes nothing until a published snapshot has it.
    ///
    /// # Errors
    /// If all ports are in use or the system refuses; the interface is left as it was.
    pub fn add_port(&mut self, spec: &PortSpec) -> Result<PortId, EngineError> {
        let _ = spec;
        Err(EngineError::NoPort(0))
    }

    /// Takes a port back: closes its sockets, detaches its program. Works too when the interface
    /// is gone already. Frames that the kernel still holds come back by [`Engine::maintain`], and
    /// the number is used again only after that.
    ///
    /// # Errors
    /// If the port does not exist or the newest snapshot still has it.
    pub fn remove_port(&mut self, port: PortId) -> Result<(), EngineError> {
        Err(EngineError::UnknownPort(port))
    }

    /// What the uplink's program redirects to us: packets to these prefixes. All else on an uplink
    /// stays with the node's stack. Replaces the prefixes set before.
    ///
    /// # Errors
    /// If the kernel refuses the map's update; some prefixes may be set then.
    pub fn set_local_prefixes(&mut self, prefixes: &[IpNet]) -> Result<(), EngineError> {
        let _ = prefixes;
        Ok(())
    }

    /// Publishes a snapshot and waits until every worker has adopted it.
    ///
    /// # Errors
    /// [`EngineError::StaleGeneration`] if it is not newer than the newest: nothing changes then.
    /// [`EngineError::NotAcknowledged`] after [`Options::publish_patience`]: it is published all
    /// the same.
    pub fn publish(&mut self, snapshot: Snapshot) -> Result<Acknowledged, EngineError> {
        Err(EngineError::StaleGeneration {
            offered: snapshot.generation(),
            newest: snapshot.generation(),
        })
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::new(Snapshot::default())
    }

    /// Workers that decide by `generation` or a later one, and workers there are.
    pub fn live(&self, generation: Generation) -> (usize, usize) {
        let _ = generation;
        (0, 0)
    }

    /// Removes a gone endpoint's connections. Call after a snapshot without it is live.
    pub fn forget_endpoint(&mut self, incarnation: Incarnation) -> usize {
        let _ = incarnation;
        0
    }

    /// The sums of all workers' counters.
    pub fn counters(&self) -> Totals {
        Totals::of([])
    }

    /// Hands at most `limit` events to `each`, oldest first per worker; how many there were.
    pub fn drain_events(&self, limit: usize, mut each: impl FnMut(&Event)) -> usize {
        let _ = (limit, &mut each);
        0
    }

    /// Work that is due now and then: expires a slice of the connection table, takes back frames.
    pub fn maintain(&mut self) {}

    /// Stops the workers and closes every socket. Programs stay attached and pinned, so that
    /// nothing passes until a successor takes over (D11).
    pub fn stop(self) {}
}
