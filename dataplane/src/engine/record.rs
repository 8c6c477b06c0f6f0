//! Captures: a tap is given to the workers, and taken back.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use super::{Engine, EngineError};
use crate::tap::Tap;
use crate::worker::{Command, Recorder};

/// How long a worker may take to give its recorder back.
const GIVE_BACK_PATIENCE: Duration = Duration::from_millis(200);

impl Engine {
    /// A tap for this engine's workers and ports, with room for `ring_bytes` of records for each
    /// worker. Nothing is recorded before [`Engine::record`].
    pub fn new_tap(&self, ring_bytes: usize) -> Arc<Tap> {
        Tap::new(self.workers.len(), self.shared.ports_max, ring_bytes)
    }

    /// Lets the workers record packets for `tap`, in place of the one before, or for nobody. Each does
    /// from its next burst on.
    ///
    /// # Errors
    /// [`EngineError::WorkerGone`] if one has ended; the others do as they are told.
    pub fn record(&mut self, tap: Option<&Arc<Tap>>) -> Result<(), EngineError> {
        let mut gone = None;
        let chunk_bytes = self.shared.umem.chunk_bytes();
        for (index, worker) in self.workers.iter().enumerate() {
            let recorder =
                tap.map(|tap| Box::new(Recorder::new(Arc::clone(tap), index, chunk_bytes)));
            let (reply, given_back) = sync_channel(1);
            if !worker.send(Command::Record(recorder, reply)) {
                gone = Some(EngineError::WorkerGone(index));
                continue;
            }
            // Of a worker that is kept from its core for so long it is freed there.
            drop(given_back.recv_timeout(GIVE_BACK_PATIENCE));
        }
        gone.map_or(Ok(()), Err)
    }
}
