//! What outlives the daemon: the objects, their versions, and the generation.
//!
//! One folder. `journal`, and behind it the segments `journal.1`, `journal.2` … in order, hold a line
//! per change: the FNV-1a hash of a JSON record, a space, the record. A line is written before the
//! change it tells of is published, so that it outlives the process from then on; a thread brings it
//! to disk within a second ([`sync`]). When the segments have grown, appending goes on in a new one
//! while another thread writes the store as a whole, which replaces `journal` and all segments
//! before the new one ([`base`]); until it has its name, everything is there as it was.
//! `generation` holds the first number that may be used after a crash: numbers are taken in blocks,
//! so that not every one costs a write, and none is ever used twice. `lock` keeps a second daemon
//! out.
//!
//! Lines say how much was on disk when they were written. Damage behind that (the daemon died within
//! a line, the machine lost power before the disk had it) ends the journal there: what is discarded
//! is at most a second old. Damage before it is an error, for then the disk lost what it had.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use config::limits::JOURNAL_BYTES;
use serde_json::Value;
use tracing::error;

mod base;
mod record;
mod recover;
mod segment;
mod sync;

pub use base::Everything;
pub use record::{Gone, Numbered, Position, Record};

use base::Compaction;
use recover::Recovered;
use segment::Segment;
use sync::Syncer;

/// Generations reserved by one write.
const GENERATION_BLOCK: u64 = 4096;

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The system refused.
    #[error("{path}: {source}")]
    System {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another daemon uses the folder.
    #[error("{0} is in use by another daemon: give this one a state_dir of its own")]
    InUse(PathBuf),
    /// The disk lost something.
    #[error(
        "{path}: line {line} is damaged though it was on disk: restore the file, or move the \
         journal's files away to start without objects"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
    },
    /// The disk refused what was written before; nothing is written any more.
    #[error("an earlier change is not on disk ({0}): mend the disk and restart the daemon")]
    NotOnDisk(String),
}

/// The open journal.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    /// What is appended to; its bytes are those of lines that hold.
    segment: Arc<Segment>,
    /// Whether a line may be half written: nothing is appended before it is cut off.
    torn: bool,
    line: Vec<u8>,
    /// Bytes that stand for everything before the lines that were appended since.
    base_bytes: u64,
    /// Bytes of lines behind the base, in segments before this one.
    grown: u64,
    /// [`Journal::grown`] from which on a base is worth while.
    long: u64,
    /// What the newest line says is on disk.
    stated: Position,
    /// Generation and resource version of the newest line.
    newest: (u64, u64),
    compaction: Option<Compaction>,
    next_generation: u64,
    reserved: u64,
    syncer: Syncer,
    _lock: File,
}

impl Journal {
    /// Opens the folder, which is made if need be, and reads what it holds, oldest first.
    pub fn open(folder: &Path) -> Result<(Journal, Vec<Record>), JournalError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| JournalError::System { path, source }
        };
        fs::create_dir_all(folder).map_err(at(folder))?;
        let lock = lock(folder)?;
        let Recovered {
            records,
            end,
            base_bytes,
            grown,
            stale,
        } = recover::recover(folder)?;
        for number in stale {
            let path = segment::path(folder, number);
            fs::remove_file(&path).map_err(at(&path))?;
        }
        let segment = Segment::open(folder, end.0, end.1);
        let segment = Arc::new(segment.map_err(at(&segment::path(folder, end.0)))?);
        let recorded = records.iter().map(|record| record.generation).max();
        let path = folder.join("generation");
        let reserved = match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().unwrap_or(0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(at(&path)(error)),
        };
        let stated = records.iter().filter_map(|record| record.synced).max();
        let newest = records.last();
        // What was read is there, but nobody knows whether it is on disk.
        let syncer = Syncer::start(folder, segment.clone(), Position::default());
        let syncer = syncer.map_err(at(folder))?;
        syncer.appended();
        let journal = Journal {
            folder: folder.to_owned(),
            segment,
            torn: false,
            line: Vec::new(),
            base_bytes,
            grown,
            long: JOURNAL_BYTES.max(base_bytes * 2),
            stated: stated.unwrap_or_default(),
            newest: newest.map_or((0, 0), |last| (last.generation, last.resource_version)),
            compaction: None,
            next_generation: reserved.max(recorded.map_or(1, |last| last + 1)).max(1),
            reserved: 0,
            syncer,
            _lock: lock,
        };
        Ok((journal, records))
    }

    /// A number that no snapshot had before. The reservation is on disk when this returns.
    pub fn next_generation(&mut self) -> Result<u64, JournalError> {
        let next = self.next_generation;
        if next + GENERATION_BLOCK / 2 >= self.reserved {
            self.reserved = self.syncer.reserved();
        }
        if next >= self.reserved {
            let reserved = self.syncer.reserve_now(next + GENERATION_BLOCK);
            self.reserved = reserved.map_err(self.at("generation"))?;
        } else if next + GENERATION_BLOCK / 2 >= self.reserved {
            self.syncer.reserve(self.reserved + GENERATION_BLOCK);
        }
        self.next_generation += 1;
        Ok(next)
    }

    /// Brings everything to disk, and gives back the numbers that were reserved and not used; for
    /// an orderly end.
    pub fn close(mut self) -> Result<(), JournalError> {
        if let Some(compaction) = self.compaction.take() {
            self.conclude(compaction);
        }
        self.sync()?;
        self.state_synced()?;
        self.sync()?;
        let failed = self.at("generation");
        let Journal {
            folder,
            syncer,
            next_generation,
            ..
        } = self;
        // The thread may be reserving more; ours is the last word.
        drop(syncer);
        segment::write_generation(&folder, next_generation).map_err(failed)
    }

    /// Brings everything appended to disk, and waits for it.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        let synced = self.syncer.sync();
        synced.map(drop).map_err(JournalError::NotOnDisk)
    }

    /// What the disk said when it refused what had been written; no change is taken from then on.
    pub fn failure(&self) -> Option<String> {
        self.syncer.synced().err()
    }

    /// Writes a change; it outlives the process when this returns, and the machine within a second.
    /// When it fails the change is not recorded.
    pub fn append(&mut self, record: Record<&Value>) -> Result<(), JournalError> {
        let synced = self.syncer.synced().map_err(JournalError::NotOnDisk)?;
        let newest = (record.generation, record.resource_version);
        self.write(Record {
            synced: Some(synced),
            ..record
        })?;
        self.newest = newest;
        self.syncer.appended();
        self.finish_compaction();
        Ok(())
    }

    /// Writes a record's line.
    fn write(&mut self, record: Record<&Value>) -> Result<(), JournalError> {
        let path = self.segment.path.clone();
        let failed = |source| JournalError::System { path, source };
        let encoded = record::encode(&record, &mut self.line);
        encoded.and_then(|()| self.write_line()).map_err(failed)?;
        self.stated = record.synced.unwrap_or_default();
        Ok(())
    }

    fn write_line(&mut self) -> io::Result<()> {
        let Segment { file, written, .. } = &*self.segment;
        let bytes = written.load(Ordering::Relaxed);
        if self.torn {
            file.set_len(bytes)?;
            self.torn = false;
        }
        let mut appended = file;
        if let Err(error) = appended.write_all(&self.line) {
            self.torn = file.set_len(bytes).is_err();
            return Err(error);
        }
        written.store(bytes + self.line.len() as u64, Ordering::Release);
        Ok(())
    }

    /// Work that is due now and then.
    pub fn tick(&mut self) {
        self.finish_compaction();
        // An error keeps the line from saying more than the next change's line will.
        let _ = self.state_synced();
    }

    /// Lets a line say that everything is on disk, if no change's line does: what is damaged later
    /// is known for damage then.
    fn state_synced(&mut self) -> Result<(), JournalError> {
        let synced = self.syncer.synced().map_err(JournalError::NotOnDisk)?;
        if synced <= self.stated || synced != self.segment.position() {
            return Ok(());
        }
        // If the end of the line before is damaged, this one must not be a part of it.
        self.line.clear();
        self.line.push(b'\n');
        self.write_line().map_err(self.at("journal"))?;
        let (generation, resource_version) = self.newest;
        self.write(Record {
            generation,
            resource_version,
            synced: Some(synced),
            ..Record::default()
        })
    }

    /// Its length in bytes, all segments together.
    pub fn bytes(&self) -> u64 {
        self.base_bytes + self.grown()
    }

    /// Bytes of lines behind the base.
    fn grown(&self) -> u64 {
        let own = self.segment.written.load(Ordering::Relaxed);
        let base = if self.segment.number == 0 {
            self.base_bytes
        } else {
            0
        };
        self.grown + own - base.min(own)
    }

    /// Whether the journal has grown so much that [`Journal::compact`] is worth while.
    pub fn is_long(&self) -> bool {
        self.compaction.is_none() && !self.torn && self.grown() > self.long
    }

    /// Begins to write everything anew on a thread of its own; it takes the place of all that has
    /// been appended so far. Does nothing while that goes on already.
    pub fn compact(&mut self, everything: Everything) -> Result<(), JournalError> {
        if self.compaction.is_some() || self.torn {
            return Ok(());
        }
        let (through, covers) = (self.segment.number, self.grown());
        // If anything fails below, it is tried again, but not with every change.
        self.long = covers + JOURNAL_BYTES;
        let next = Segment::open(&self.folder, through + 1, 0);
        let next = Arc::new(next.map_err(self.at("journal"))?);
        self.grown = covers;
        self.segment = next.clone();
        self.syncer.follow(next);
        let compaction = Compaction::start(&self.folder, everything, through, covers);
        self.compaction = Some(compaction.map_err(self.at("journal"))?);
        Ok(())
    }

    fn finish_compaction(&mut self) {
        if let Some(compaction) = self
            .compaction
            .take_if(|compaction| compaction.is_finished())
        {
            self.conclude(compaction);
        }
    }

    fn conclude(&mut self, compaction: Compaction) {
        let covers = compaction.covers;
        match compaction.finish() {
            Ok(bytes) => {
                self.grown -= covers;
                self.base_bytes = bytes;
                self.long = JOURNAL_BYTES.max(bytes * 2);
            }
            Err(error) => {
                // The long journal holds the same.
                error!("the journal is not compacted: {error}");
            }
        }
    }

    fn at(&self, name: &str) -> impl Fn(io::Error) -> JournalError + use<> {
        let path = self.folder.join(name);
        move |source| JournalError::System {
            path: path.clone(),
            source,
        }
    }
}

fn lock(folder: &Path) -> Result<File, JournalError> {
    let path = folder.join("lock");
    let system = |source| JournalError::System {
        path: path.clone(),
        source,
    };
    let mut options = File::options();
    let file = options
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(system)?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(JournalError::InUse(folder.to_owned())),
        Err(errno) => Err(system(errno.into())),
    }
}

#[cfg(test)]
mod tests;
