//! The journal's files.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::record::Position;

/// The files are their owner's alone: Secrets are among the objects.
const PRIVATE: u32 = 0o600;

/// A file that lines are appended to.
#[derive(Debug)]
pub(super) struct Segment {
    /// 0 is `journal` itself, the others follow it in order.
    pub number: u64,
    pub path: PathBuf,
    pub file: File,
    /// Bytes of whole lines.
    pub written: AtomicU64,
    /// Whether its name is known to be on disk.
    pub linked: AtomicBool,
}

/// The file of a segment.
pub(super) fn path(folder: &Path, number: u64) -> PathBuf {
    match number {
        0 => folder.join("journal"),
        _ => folder.join(format!("journal.{number}")),
    }
}

/// The numbers of the segments behind the first, in order.
pub(super) fn numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("journal."));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

impl Segment {
    /// Opens or makes a segment of which the first `bytes` hold, and cuts off the rest.
    pub(super) fn open(folder: &Path, number: u64, bytes: u64) -> io::Result<Segment> {
        let path = path(folder, number);
        let mut options = File::options();
        options.append(true).create(true).mode(PRIVATE);
        let file = options.open(&path)?;
        file.set_len(bytes)?;
        Ok(Segment {
            number,
            path,
            file,
            written: AtomicU64::new(bytes),
            linked: AtomicBool::new(false),
        })
    }

    /// The end of its whole lines.
    pub(super) fn position(&self) -> Position {
        Position(self.number, self.written.load(Ordering::Acquire))
    }

    /// Brings to disk what is written; the bytes that are there then at least.
    pub(super) fn sync(&self, folder: &Path) -> io::Result<u64> {
        let written = self.written.load(Ordering::Acquire);
        self.file.sync_data()?;
        if !self.linked.load(Ordering::Relaxed) {
            File::open(folder)?.sync_all()?;
            self.linked.store(true, Ordering::Relaxed);
        }
        Ok(written)
    }
}

/// Puts a file in the place of another so that at any moment one of the two is there whole; `fill`
/// gives how many bytes it has written.
pub(super) fn replace(
    folder: &Path,
    name: &str,
    fill: impl FnOnce(&mut File) -> io::Result<u64>,
) -> io::Result<u64> {
    let new = folder.join(format!("{name}.new"));
    let mut options = File::options();
    options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(PRIVATE);
    let mut file = options.open(&new)?;
    let bytes = fill(&mut file)?;
    file.sync_all()?;
    fs::rename(&new, folder.join(name))?;
    File::open(folder)?.sync_all()?;
    Ok(bytes)
}

/// Writes `generation`.
pub(super) fn write_generation(folder: &Path, generation: u64) -> io::Result<()> {
    let text = format!("{generation}\n");
    replace(folder, "generation", |file| {
        file.write_all(text.as_bytes())?;
        Ok(text.len() as u64)
    })?;
    Ok(())
}
