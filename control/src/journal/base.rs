//! Writing the store as a whole, beside the changes that go on.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::record::{Numbered, Position, Record, encode};
use super::segment;
use crate::cluster::Cluster;
use crate::objects::Object;
use crate::objects::definitions::DEFINITION;

/// Objects of one line.
const OBJECTS_PER_LINE: usize = 32;
/// The lowest of the scheduler's priorities: nobody waits for a base, and workers share its core.
const NICE: i32 = 19;

/// Everything that the journal has to say.
#[derive(Debug)]
pub struct Everything {
    /// The generation that the store is at.
    pub generation: u64,
    /// The objects.
    pub cluster: Cluster,
    /// Policies that have numbers, in the numbers' order.
    pub policies: Vec<Numbered>,
}

/// A base that is being written.
#[derive(Debug)]
pub(super) struct Compaction {
    /// Bytes that the base stands for.
    pub covers: u64,
    thread: Option<JoinHandle<io::Result<u64>>>,
}

impl Compaction {
    /// Begins to write a base that stands for all segments up to `through`, which nothing is
    /// appended to any more.
    pub(super) fn start(
        folder: &Path,
        everything: Everything,
        through: u64,
        covers: u64,
    ) -> io::Result<Compaction> {
        let folder = folder.to_owned();
        let thread = thread::Builder::new()
            .name("weir-compact".into())
            .spawn(move || {
                // Without it the work is the same, only less polite.
                let _ = rustix::process::setpriority_process(None, NICE);
                write(&folder, &everything, through)
            })?;
        Ok(Compaction {
            covers,
            thread: Some(thread),
        })
    }

    pub(super) fn is_finished(&self) -> bool {
        let thread = self.thread.as_ref();
        thread.is_none_or(|thread| thread.is_finished())
    }

    /// Waits for its end; the base's bytes.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        let panicked = || io::Error::other("the thread panicked");
        let thread = self.thread.take().ok_or_else(panicked)?;
        thread.join().map_err(|_| panicked())?
    }
}

impl Drop for Compaction {
    fn drop(&mut self) {
        // Whoever opens the folder next must be alone there.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn write(folder: &Path, everything: &Everything, through: u64) -> io::Result<u64> {
    let bytes = segment::replace(folder, "journal", |file| {
        write_lines(file, everything, through)
    })?;
    // Until here they said the same as the base, and after a crash they are found to.
    for number in segment::numbers(folder)? {
        if number <= through {
            fs::remove_file(segment::path(folder, number))?;
        }
    }
    Ok(bytes)
}

fn write_lines(file: &mut File, everything: &Everything, through: u64) -> io::Result<u64> {
    let mut writer = BufWriter::with_capacity(256 << 10, file);
    let (mut line, mut bytes) = (Vec::new(), 0);
    let record = Record {
        generation: everything.generation,
        resource_version: everything.cluster.resource_version(),
        // The base has its name only once it is on disk.
        synced: Some(Position(through + 1, 0)),
        ..Record::default()
    };
    let mut write = |record: &Record<&_>| -> io::Result<()> {
        encode(record, &mut line)?;
        bytes += line.len() as u64;
        writer.write_all(&line)
    };
    write(&Record {
        reset: true,
        through,
        objects: everything.cluster.len() as u64,
        policies: everything.policies.clone(),
        ..record.clone()
    })?;
    let mut objects: Vec<&Arc<Object>> = everything.cluster.objects().collect();
    // What defines kinds comes before their objects.
    objects.sort_by_key(|object| object.kind().kind != DEFINITION.1);
    for objects in objects.chunks(OBJECTS_PER_LINE) {
        write(&Record {
            put: objects.iter().map(|object| object.value()).collect(),
            ..record.clone()
        })?;
    }
    writer.flush()?;
    Ok(bytes)
}
