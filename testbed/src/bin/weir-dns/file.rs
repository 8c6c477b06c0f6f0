//! The file of records, read again when it was replaced.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use testbed::dns::Records;
use testbed::dns::records::RecordsError;
use testbed::dns::zone::Zone;

/// What tells one version of the file from the next: device, inode, size, modification and change
/// in nanoseconds. Nothing where there is no file.
type Version = Option<(u64, u64, u64, i128, i128)>;

/// The records of a version; a number that grows with every good one.
#[derive(Clone)]
pub struct Served {
    /// The records.
    pub zone: Arc<Zone>,
    /// Which.
    pub serial: u32,
}

#[derive(Default)]
struct State {
    version: Version,
    served: Option<Served>,
}

/// The file.
pub struct RecordsFile {
    path: PathBuf,
    state: Mutex<State>,
}

fn version(path: &Path) -> Version {
    let nanoseconds =
        |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
    let about = fs::metadata(path).ok()?;
    let modified = nanoseconds(about.mtime(), about.mtime_nsec());
    let changed = nanoseconds(about.ctime(), about.ctime_nsec());
    Some((about.dev(), about.ino(), about.len(), modified, changed))
}

impl RecordsFile {
    /// The file at a path; it need not be there yet.
    pub fn new(path: PathBuf) -> RecordsFile {
        RecordsFile {
            path,
            state: Mutex::default(),
        }
    }

    /// The newest records. A file that is bad or gone changes nothing, and a line says so once;
    /// without a first good one there are none.
    ///
    /// The file is looked at every time (one `stat`, about a microsecond): whoever replaced it
    /// may rely on the next answer.
    pub fn current(&self) -> Option<Served> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let version = version(&self.path);
        if version == state.version && (version.is_some() || state.served.is_some()) {
            return state.served.clone();
        }
        // The version is older than what is read below, never newer: a file that is replaced in
        // between is read once more.
        match self.read() {
            Ok(zone) => {
                let serial = state
                    .served
                    .as_ref()
                    .map_or(1, |old| old.serial.wrapping_add(1));
                println!("{} names, version {serial}", zone.len());
                state.served = Some(Served {
                    zone: Arc::new(zone),
                    serial,
                });
            }
            Err(error) if version.is_none() && state.version.is_none() => {
                println!("no records yet: {error}");
            }
            Err(error) => println!("records not taken, the old ones stay: {error}"),
        }
        state.version = version;
        state.served.clone()
    }

    fn read(&self) -> Result<Zone, RecordsError> {
        Zone::new(Records::read(&self.path)?)
    }
}
