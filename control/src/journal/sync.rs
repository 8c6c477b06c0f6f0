//! The thread that waits for the disk, so that no change has to.
//!
//! What is appended has left the process at once and outlives it; this thread brings it to disk
//! within [`JOURNAL_SYNC_MS`], and reserves generations before they run out. A disk that refuses
//! cannot be asked again (what it refused counts as written from then on): the journal takes no
//! more changes then.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use config::limits::JOURNAL_SYNC_MS;
use tracing::error;

use super::record::Position;
use super::segment::{Segment, write_generation};

#[derive(Debug)]
struct State {
    /// When the segments are to be synced; none if nothing was appended since they were last.
    due: Option<Instant>,
    /// Segments that may hold what is not on disk, oldest first; the last is appended to.
    segments: Vec<Arc<Segment>>,
    /// Everything before is on disk.
    synced: Position,
    /// The disk's refusal.
    failure: Option<String>,
    /// A reservation that is wanted, until it is written.
    wanted: Option<u64>,
    /// Generations below are reserved.
    reserved: u64,
    refused: Option<io::Error>,
    ends: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// There is something to do.
    work: Condvar,
    /// Something was done.
    done: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of the state is whole, whatever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wait<'a>(condvar: &Condvar, guard: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
    condvar.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// The thread's other end. When it is dropped, everything appended is synced once more.
#[derive(Debug)]
pub(super) struct Syncer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    /// Starts the thread; `synced` is what is on disk of `segment` and those before.
    pub(super) fn start(
        folder: &Path,
        segment: Arc<Segment>,
        synced: Position,
    ) -> io::Result<Syncer> {
        let state = State {
            due: None,
            segments: vec![segment],
            synced,
            failure: None,
            wanted: None,
            reserved: 0,
            refused: None,
            ends: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            work: Condvar::new(),
            done: Condvar::new(),
        });
        let (theirs, folder) = (shared.clone(), folder.to_owned());
        let thread = thread::Builder::new()
            .name("weir-journal".into())
            .spawn(move || run(&theirs, &folder))?;
        Ok(Syncer {
            shared,
            thread: Some(thread),
        })
    }

    /// Something was appended.
    pub(super) fn appended(&self) {
        let mut state = self.shared.lock();
        if state.due.is_none() {
            state.due = Some(Instant::now() + Duration::from_millis(JOURNAL_SYNC_MS));
            self.shared.work.notify_one();
        }
    }

    /// Appending goes on in another segment.
    pub(super) fn follow(&self, segment: Arc<Segment>) {
        let mut state = self.shared.lock();
        state.segments.push(segment);
        state.due = Some(Instant::now());
        self.shared.work.notify_one();
    }

    /// Everything before this place is on disk; or what the disk said.
    pub(super) fn synced(&self) -> Result<Position, String> {
        let state = self.shared.lock();
        state.failure.clone().map_or(Ok(state.synced), Err)
    }

    /// Brings everything to disk now.
    pub(super) fn sync(&self) -> Result<Position, String> {
        let mut state = self.shared.lock();
        state.due = Some(Instant::now());
        self.shared.work.notify_one();
        let whole = |state: &State| {
            let written = state.segments.last().map(|last| last.position());
            written.is_none_or(|written| state.synced >= written)
        };
        while state.failure.is_none() && !whole(&state) {
            state = wait(&self.shared.done, state);
        }
        state.failure.clone().map_or(Ok(state.synced), Err)
    }

    /// Generations below this one are reserved.
    pub(super) fn reserved(&self) -> u64 {
        self.shared.lock().reserved
    }

    /// Asks for a reservation of everything below `generation`, without waiting.
    pub(super) fn reserve(&self, generation: u64) {
        let mut state = self.shared.lock();
        if state.wanted.is_none() {
            state.wanted = Some(generation);
            self.shared.work.notify_one();
        }
    }

    /// As [`Syncer::reserve`], and waits for it.
    pub(super) fn reserve_now(&self, generation: u64) -> io::Result<u64> {
        let mut state = self.shared.lock();
        state.refused = None;
        while state.reserved < generation {
            if let Some(error) = state.refused.take() {
                return Err(error);
            }
            if state.wanted.is_none() {
                state.wanted = Some(generation);
                self.shared.work.notify_one();
            }
            state = wait(&self.shared.done, state);
        }
        Ok(state.reserved)
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.shared.lock().ends = true;
        self.shared.work.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic there has been told already.
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared, folder: &Path) {
    let mut state = shared.lock();
    loop {
        if let Some(generation) = state.wanted {
            drop(state);
            let written = write_generation(folder, generation);
            state = shared.lock();
            state.wanted = None;
            match written {
                Ok(()) => state.reserved = generation,
                Err(error) => state.refused = Some(error),
            }
            shared.done.notify_all();
            continue;
        }
        let now = Instant::now();
        match state.due {
            None if state.ends => return,
            None => state = wait(&shared.work, state),
            Some(due) if due > now && !state.ends => {
                let waited = shared.work.wait_timeout(state, due - now);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            Some(_) => {
                state.due = None;
                let segments = state.segments.clone();
                drop(state);
                let synced = sync(&segments, folder);
                state = shared.lock();
                match synced {
                    Ok(synced) => {
                        state.synced = state.synced.max(synced);
                        state.segments.retain(|segment| segment.number >= synced.0);
                    }
                    Err((path, error)) => {
                        let failure = format!("{}: {error}", path.display());
                        error!(
                            "the journal is not on disk, no change is taken any more: {failure}"
                        );
                        state.failure = Some(failure);
                    }
                }
                shared.done.notify_all();
            }
        }
    }
}

/// Syncs the segments, oldest first, so that what is on disk has no hole.
fn sync(segments: &[Arc<Segment>], folder: &Path) -> Result<Position, (PathBuf, io::Error)> {
    let mut synced = Position::default();
    for segment in segments {
        let bytes = segment.sync(folder);
        let bytes = bytes.map_err(|error| (segment.path.clone(), error))?;
        synced = Position(segment.number, bytes);
    }
    Ok(synced)
}
