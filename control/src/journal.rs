//! What outlives the daemon: the objects, their versions, and the generation.
//!
//! One folder, three files. `journal` holds a line per change: the FNV-1a hash of a JSON record, a
//! space, the record. A line is on disk before the change it tells of is published. A first line
//! with [`Record::reset`] stands for everything before it; when the rest has grown, the file is
//! written anew with such a line alone and renamed into place. `generation` holds the first number
//! that may be used after a crash: numbers are taken in blocks, so that not every one costs a
//! write, and none is ever used twice. `lock` keeps a second daemon out.
//!
//! A last line that is torn (the daemon or the machine died while it was written) is discarded: its
//! change was never acknowledged. A line that is broken with others behind it is an error, for then
//! the disk lost what was acknowledged.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use config::limits::JOURNAL_BYTES;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The files are their owner's alone: Secrets are among the objects.
const PRIVATE: u32 = 0o600;
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
        "{path}: line {line} is damaged and others follow it: restore the file, or move it away to \
         start without objects"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
    },
}

/// One change of the store.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    /// The generation that the change led to.
    pub generation: u64,
    /// The store's resource version after the change.
    pub resource_version: u64,
    /// Forget everything before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reset: bool,
    /// Objects as they are now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub put: Vec<Value>,
    /// Objects that are gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub delete: Vec<Gone>,
    /// Policies that were given numbers, in the numbers' order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<Numbered>,
}

/// Names an object that is gone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Gone {
    /// Its `apiVersion`.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its namespace; empty for cluster-scoped kinds.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A policy that has a number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Numbered {
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// The open journal.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    file: File,
    /// Bytes of lines that hold.
    bytes: u64,
    /// Bytes of the first line, which stands for everything before it.
    base_bytes: u64,
    /// Whether a line may be half written: nothing is appended before it is cut off.
    torn: bool,
    next_generation: u64,
    reserved: u64,
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
        let path = folder.join("journal");
        let mut options = File::options();
        options.read(true).append(true).create(true).mode(PRIVATE);
        let file = options.open(&path).map_err(at(&path))?;
        let (records, bytes, base_bytes) = read(&file, &path)?;
        file.set_len(bytes).map_err(at(&path))?;
        let recorded = records.iter().map(|record| record.generation).max();
        let path = folder.join("generation");
        let reserved = match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().unwrap_or(0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(at(&path)(error)),
        };
        let journal = Journal {
            folder: folder.to_owned(),
            file,
            bytes,
            base_bytes,
            torn: false,
            next_generation: reserved.max(recorded.map_or(1, |last| last + 1)).max(1),
            reserved: 0,
            _lock: lock,
        };
        Ok((journal, records))
    }

    /// A number that no snapshot had before. The reservation is on disk when this returns.
    pub fn next_generation(&mut self) -> Result<u64, JournalError> {
        if self.next_generation >= self.reserved {
            let reserved = self.next_generation + GENERATION_BLOCK;
            self.write_whole("generation", format!("{reserved}\n").as_bytes())?;
            self.reserved = reserved;
        }
        let generation = self.next_generation;
        self.next_generation += 1;
        Ok(generation)
    }

    /// Gives back the numbers that were reserved and not used; for an orderly end.
    pub fn close(self) -> Result<(), JournalError> {
        let next = format!("{}\n", self.next_generation);
        self.write_whole("generation", next.as_bytes())
    }

    /// Writes a change; it is on disk when this returns. When it fails the change is not recorded.
    pub fn append(&mut self, record: &Record) -> Result<(), JournalError> {
        let line = line(record).map_err(self.at("journal"))?;
        if self.torn {
            self.file.set_len(self.bytes).map_err(self.at("journal"))?;
            self.torn = false;
        }
        let written = self
            .file
            .write_all(&line)
            .and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            self.torn = self.file.set_len(self.bytes).is_err();
            return Err(self.at("journal")(error));
        }
        self.bytes += line.len() as u64;
        Ok(())
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the file has grown so much that [`Journal::compact`] is worth while.
    pub fn is_long(&self) -> bool {
        self.bytes > JOURNAL_BYTES.max(self.base_bytes * 2)
    }

    /// Writes the file anew with one record that stands for everything so far.
    pub fn compact(&mut self, everything: Record) -> Result<(), JournalError> {
        let everything = Record {
            reset: true,
            ..everything
        };
        let line = line(&everything).map_err(self.at("journal"))?;
        self.write_whole("journal", &line)?;
        let mut options = File::options();
        let file = options
            .read(true)
            .append(true)
            .open(self.folder.join("journal"));
        self.file = file.map_err(self.at("journal"))?;
        self.bytes = line.len() as u64;
        self.base_bytes = self.bytes;
        self.torn = false;
        Ok(())
    }

    /// Puts a file in the place of another so that at any moment one of the two is there whole.
    fn write_whole(&self, name: &str, bytes: &[u8]) -> Result<(), JournalError> {
        let new = self.folder.join(format!("{name}.new"));
        let write = || -> io::Result<()> {
            let mut options = File::options();
            options
                .write(true)
                .create(true)
                .truncate(true)
                .mode(PRIVATE);
            let mut file = options.open(&new)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&new, self.folder.join(name))?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(self.at(name))
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

/// FNV-1a, 64 bits: enough to tell a torn line from a whole one.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn line(record: &Record) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(record)?;
    let mut line = format!("{:016x} ", hash(&json)).into_bytes();
    line.extend_from_slice(&json);
    line.push(b'\n');
    Ok(line)
}

fn parse(line: &[u8]) -> Option<Record> {
    let line = line.strip_suffix(b"\n")?;
    let (head, json) = line.split_at_checked(17)?;
    let stored = u64::from_str_radix(std::str::from_utf8(head).ok()?.trim_end(), 16).ok()?;
    if stored != hash(json) {
        return None;
    }
    serde_json::from_slice(json).ok()
}

/// The records since the last reset, the bytes of whole lines, and those of the reset's line.
fn read(file: &File, path: &Path) -> Result<(Vec<Record>, u64, u64), JournalError> {
    let mut reader = BufReader::new(file);
    let mut records = Vec::new();
    let (mut bytes, mut base_bytes) = (0, 0);
    let mut damaged = None;
    let mut buffer = Vec::new();
    for number in 1.. {
        buffer.clear();
        let read = reader.read_until(b'\n', &mut buffer);
        let length = read.map_err(|source| JournalError::System {
            path: path.to_owned(),
            source,
        })?;
        if length == 0 {
            break;
        }
        if let Some(line) = damaged {
            return Err(JournalError::Damaged {
                path: path.to_owned(),
                line,
            });
        }
        let Some(record) = parse(&buffer) else {
            damaged = Some(number);
            continue;
        };
        bytes += length as u64;
        if record.reset {
            records.clear();
            base_bytes = length as u64;
        }
        records.push(record);
    }
    Ok((records, bytes, base_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let name = format!("weir-journal-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            let _ = fs::remove_dir_all(&path);
            Folder(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn record(generation: u64) -> Record {
        Record {
            generation,
            resource_version: generation * 10,
            put: vec![json!({"kind": "Pod", "text": "a\nb \u{1f980}"})],
            ..Record::default()
        }
    }

    #[test]
    fn what_is_appended_is_read_again() {
        let folder = Folder::new("append");
        let (mut journal, records) = Journal::open(&folder.0).unwrap();
        assert_eq!(records, []);
        journal.append(&record(1)).unwrap();
        journal.append(&record(2)).unwrap();
        drop(journal);
        let (_, records) = Journal::open(&folder.0).unwrap();
        assert_eq!(records, [record(1), record(2)]);
    }

    #[test]
    fn nobody_else_reads_what_is_stored() {
        use std::os::unix::fs::PermissionsExt;
        let folder = Folder::new("private");
        let (mut journal, _) = Journal::open(&folder.0).unwrap();
        let check = |when: &str| {
            for name in ["journal", "generation"] {
                let mode = fs::metadata(folder.0.join(name)).unwrap().permissions();
                assert_eq!(mode.mode() & 0o777, 0o600, "{name} {when}");
            }
        };
        journal.append(&record(1)).unwrap();
        journal.next_generation().unwrap();
        check("as first written");
        journal.compact(record(2)).unwrap();
        check("compacted");
    }

    #[test]
    fn a_torn_tail_is_discarded_at_every_length_and_appending_goes_on() {
        let folder = Folder::new("torn");
        let (mut journal, _) = Journal::open(&folder.0).unwrap();
        journal.append(&record(1)).unwrap();
        journal.append(&record(2)).unwrap();
        drop(journal);
        let path = folder.0.join("journal");
        let whole = fs::read(&path).unwrap();
        let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for length in first..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let (mut journal, records) = Journal::open(&folder.0).unwrap();
            assert_eq!(records, [record(1)], "{length}");
            journal.append(&record(3)).unwrap();
            drop(journal);
            let (_, records) = Journal::open(&folder.0).unwrap();
            assert_eq!(records, [record(1), record(3)], "{length}");
        }
    }

    #[test]
    fn damage_before_the_end_is_an_error() {
        let folder = Folder::new("damage");
        let (mut journal, _) = Journal::open(&folder.0).unwrap();
        journal.append(&record(1)).unwrap();
        journal.append(&record(2)).unwrap();
        drop(journal);
        let path = folder.0.join("journal");
        let mut bytes = fs::read(&path).unwrap();
        bytes[30] ^= 1;
        fs::write(&path, bytes).unwrap();
        let error = Journal::open(&folder.0).unwrap_err();
        assert!(
            matches!(error, JournalError::Damaged { line: 1, .. }),
            "{error}"
        );
    }

    #[test]
    fn compaction_keeps_the_whole_and_drops_the_past() {
        let folder = Folder::new("compact");
        let (mut journal, _) = Journal::open(&folder.0).unwrap();
        for generation in 1..50 {
            journal.append(&record(generation)).unwrap();
        }
        let long = journal.bytes;
        journal.compact(record(49)).unwrap();
        journal.append(&record(50)).unwrap();
        assert!(journal.bytes < long / 10);
        drop(journal);
        let (_, records) = Journal::open(&folder.0).unwrap();
        let everything = Record {
            reset: true,
            ..record(49)
        };
        assert_eq!(records, [everything, record(50)]);
    }

    #[test]
    fn generations_rise_over_crashes_and_orderly_ends() {
        let folder = Folder::new("generations");
        let mut last = 0;
        for orderly in [false, true, true, false, true] {
            let (mut journal, _) = Journal::open(&folder.0).unwrap();
            for _ in 0..3 {
                let generation = journal.next_generation().unwrap();
                assert!(generation > last);
                last = generation;
            }
            if orderly {
                journal.close().unwrap();
            }
        }
        fs::remove_file(folder.0.join("generation")).unwrap();
        let (mut journal, _) = Journal::open(&folder.0).unwrap();
        journal.append(&record(last + 7)).unwrap();
        drop(journal);
        fs::remove_file(folder.0.join("generation")).unwrap_or_default();
        let (mut journal, _) = Journal::open(&folder.0).unwrap();
        assert_eq!(journal.next_generation().unwrap(), last + 8);
    }

    #[test]
    fn a_second_daemon_is_kept_out() {
        let folder = Folder::new("lock");
        let _journal = Journal::open(&folder.0).unwrap();
        let error = Journal::open(&folder.0).unwrap_err();
        assert!(matches!(error, JournalError::InUse(_)), "{error}");
    }
}
