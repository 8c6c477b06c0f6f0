//! The connection table's memory: a file that outlives the daemon, or a memfd.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};

use super::{ConntrackOptions, EngineError};
use crate::Time;
use crate::conntrack::{AtomicU64, Settings, Storage, Table, TableError};
use crate::shm::{Found, Header, Region, memfd};

/// What stands behind our header: the connection table, which has a header of its own with its
/// layout and sizes. Ours adds the boot, outside of which times and port numbers mean nothing.
const REGION_LAYOUT: u64 = u64::from_be_bytes(*b"weirct\x00\x02");

/// The words behind the region's header.
#[derive(Debug)]
pub struct TableMemory(Region);

impl Storage for TableMemory {
    fn words(&self) -> &[AtomicU64] {
        self.0.words().get(Header::WORDS..).unwrap_or_default()
    }
}

/// The connection table of an engine.
pub type ConnectionTable = Table<Arc<TableMemory>>;

/// The table, and whether it goes on from an earlier daemon's.
pub(super) struct Opened {
    pub table: ConnectionTable,
    pub taken_over: bool,
}

/// Opens the table in `options.file`: what an earlier daemon of this boot left there goes on if the
/// sizes still fit, else it is started afresh.
pub(super) fn open(
    options: ConntrackOptions,
    ports_max: u16,
    now: Time,
) -> Result<Opened, EngineError> {
    let quota = u64::from(options.capacity) * u64::from(options.quota_percent.min(100)) / 100;
    let settings = Settings {
        capacity: options.capacity,
        quota_per_endpoint: (quota as u32).max(1),
        // Endpoints that are going may still have entries while their successors come.
        endpoints: (u32::from(ports_max) * 2).max(1),
        timeouts: options.timeouts,
        strict_tcp: options.strict_tcp,
        hash_seed: [random(), random()],
    };
    let bytes = (ConnectionTable::words(&settings) + Header::WORDS) * 8;
    let failed = |source| EngineError::System {
        what: format!(
            "reserve {} MiB for the {} connections of conntrack.capacity",
            bytes.div_ceil(1 << 20),
            options.capacity,
        ),
        source,
    };
    let file = match options.file {
        Some(file) => reserved(file, bytes),
        None => memfd(c"weir-conntrack", bytes),
    };
    let region = file
        .and_then(|file| Region::map(file, bytes))
        .map_err(failed)?;
    let header = Header {
        layout: REGION_LAYOUT,
        boot: options.boot,
        hash_seed: settings.hash_seed[0],
        time_base: now,
    };
    let found = Header::open(region.words(), header);
    let memory = Arc::new(TableMemory(region));
    if let Some(Found::Usable(_)) = found {
        match Table::attach(Arc::clone(&memory), settings.clone(), now) {
            Ok((table, _)) => {
                return Ok(Opened {
                    table,
                    taken_over: true,
                });
            }
            Err(TableError::Layout { .. } | TableError::Size { .. }) => {}
            Err(error) => return Err(refused(error)),
        }
    }
    let table = Table::new(memory, settings).map_err(refused)?;
    Ok(Opened {
        table,
        taken_over: false,
    })
}

fn refused(error: TableError) -> EngineError {
    EngineError::Options(error.to_string())
}

/// The file, grown or cut to `bytes`, with memory for all of it: what a full file system lacks later
/// would end the daemon (SIGBUS). Another size means another layout: its content goes.
fn reserved(file: OwnedFd, bytes: usize) -> io::Result<OwnedFd> {
    let file = File::from(file);
    let bytes = bytes as u64;
    if file.metadata()?.len() != bytes {
        file.set_len(0)?;
    }
    fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
    Ok(file.into())
}

/// A number that nobody can foretell: the standard library keys its hash maps with one.
pub(super) fn random() -> u64 {
    RandomState::new().hash_one(0u8)
}
