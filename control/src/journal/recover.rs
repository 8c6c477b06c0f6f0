//! What the files hold after an end of any kind.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use tracing::warn;

use super::JournalError;
use super::record::{Position, Record, decode};
use super::segment;

/// What was found.
#[derive(Debug)]
pub(super) struct Recovered {
    /// Since the last reset, oldest first.
    pub records: Vec<Record>,
    /// The segment to append to, and how many bytes of it hold.
    pub end: Position,
    /// Bytes that stand for everything up to the last reset.
    pub base_bytes: u64,
    /// Bytes of the lines behind those, but for the segment to append to.
    pub grown: u64,
    /// Segments that count no more: a base stands for them, or they are behind a torn line.
    pub stale: Vec<u64>,
}

/// A line that is not as it was written.
struct Damage {
    at: Position,
    path: PathBuf,
    line: usize,
    /// Whole lines behind it.
    behind: usize,
}

#[derive(Default)]
struct Reading {
    records: Vec<Record>,
    base_bytes: u64,
    /// Bytes of whole lines, by segment.
    lengths: Vec<(u64, u64)>,
    damage: Option<Damage>,
    /// What a line says was on disk when it was written.
    synced: Position,
    /// Segments that the last reset stands for.
    through: u64,
    /// Objects that the base still lacks.
    lacking: u64,
}

/// Reads the folder.
///
/// A line that is torn or damaged ends the journal if nothing says that it was on disk already:
/// that is how the last second of a machine without power looks. If something does, the disk has
/// lost what was safe, which is an error.
pub(super) fn recover(folder: &Path) -> Result<Recovered, JournalError> {
    let system = |source| JournalError::System {
        path: folder.to_owned(),
        source,
    };
    let mut reading = Reading::default();
    reading.read(folder, 0)?;
    let (old, next): (Vec<u64>, Vec<u64>) = segment::numbers(folder)
        .map_err(system)?
        .into_iter()
        .partition(|number| *number <= reading.through);
    let mut stale = old;
    for (number, expected) in next.into_iter().zip(reading.through + 1..) {
        let path = segment::path(folder, expected);
        if number != expected {
            return Err(JournalError::Damaged { path, line: 1 });
        }
        reading.read(folder, number)?;
    }
    if reading.lacking > 0 {
        let (path, line) = match reading.damage {
            Some(damage) => (damage.path, damage.line),
            None => (segment::path(folder, 0), reading.records.len()),
        };
        return Err(JournalError::Damaged { path, line });
    }
    if let Some(damage) = reading.damage.take() {
        if damage.at < reading.synced {
            let Damage { path, line, .. } = damage;
            return Err(JournalError::Damaged { path, line });
        }
        if damage.behind > 0 {
            warn!(
                "{}: line {} was not on disk when the machine stopped: it and {} behind it are \
                 discarded",
                damage.path.display(),
                damage.line,
                damage.behind
            );
        }
        let behind = |(number, _): &(u64, u64)| *number > damage.at.0;
        stale.extend(reading.lengths.iter().filter(|l| behind(l)).map(|l| l.0));
        reading.lengths.retain(|length| !behind(length));
    }
    let (number, bytes) = reading.lengths.pop().unwrap_or_default();
    // A base has its file for itself: appending goes on in the segment behind it.
    let end = if number <= reading.through && reading.through > 0 {
        reading.lengths.clear();
        Position(reading.through + 1, 0)
    } else {
        Position(number, bytes)
    };
    let lengths = reading.lengths.iter();
    let before: u64 = lengths.map(|(_, bytes)| bytes).sum();
    let grown = match end.0 {
        0 => 0,
        _ => before - reading.base_bytes.min(before),
    };
    Ok(Recovered {
        records: reading.records,
        end,
        base_bytes: reading.base_bytes,
        grown,
        stale,
    })
}

impl Reading {
    fn read(&mut self, folder: &Path, number: u64) -> Result<(), JournalError> {
        let path = segment::path(folder, number);
        let system = |source| JournalError::System {
            path: path.clone(),
            source,
        };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if number == 0 && error.kind() == io::ErrorKind::NotFound => {
                self.lengths.push((0, 0));
                return Ok(());
            }
            Err(error) => return Err(system(error)),
        };
        let mut reader = BufReader::new(file);
        let (mut line, mut bytes) = (Vec::new(), 0);
        let mut held = 0;
        for count in 1.. {
            line.clear();
            let length = reader.read_until(b'\n', &mut line).map_err(system)? as u64;
            if length == 0 {
                break;
            }
            match decode(&line) {
                // Before a line that only tells of the disk: the end before it may be damaged.
                _ if line == b"\n" => {}
                Some(record) => self.take(record, bytes + length),
                None if self.damage.is_none() => {
                    self.damage = Some(Damage {
                        at: Position(number, bytes),
                        path: path.clone(),
                        line: count,
                        behind: 0,
                    });
                    held = bytes;
                }
                None => {}
            }
            bytes += length;
        }
        let damage = self.damage.as_ref();
        if damage.is_none_or(|damage| damage.at.0 != number) {
            held = bytes;
        }
        self.lengths.push((number, held));
        Ok(())
    }

    /// A whole line that ends at byte `end` of its segment.
    fn take(&mut self, record: Record, end: u64) {
        self.synced = self.synced.max(record.synced.unwrap_or_default());
        if let Some(damage) = &mut self.damage {
            damage.behind += 1;
            return;
        }
        if record.reset {
            self.records.clear();
            self.base_bytes = end;
            self.through = record.through;
            self.lacking = record.objects;
        } else if self.lacking > 0 {
            self.lacking = self.lacking.saturating_sub(record.put.len() as u64);
            self.base_bytes = end;
        }
        self.records.push(record);
    }
}
