//! Stopping the workers for a moment to see where every frame is.

use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Instant;

use super::{Engine, EngineError};
use crate::worker::{AUDIT_PAUSE, AuditTurn, Command};
use crate::xsk::{self, Audit};

impl Engine {
    /// Whether every chunk of packet memory is in exactly one place. Stops all workers meanwhile,
    /// for some tens of microseconds unless one of them is kept from running; packets wait in their
    /// rings.
    ///
    /// # Errors
    /// [`EngineError::AuditLate`] if a worker does not answer in time; nothing is known then.
    pub fn audit(&mut self) -> Result<Audit, EngineError> {
        self.check_workers()?;
        // Half of what the workers wait, so that an audit that is in time finds all of them waiting.
        let deadline = Instant::now() + AUDIT_PAUSE / 2;
        let workers = self.workers.len();
        let (waits, waiting) = sync_channel(workers);
        let (told, tellings) = sync_channel(workers);
        // Dropping these tells the workers to go on.
        let (mut starts, mut ends) = (Vec::new(), Vec::new());
        for worker in &self.workers {
            let (start, all_wait) = sync_channel(0);
            let (end, done) = sync_channel(0);
            starts.push(start);
            ends.push(end);
            worker.send(Command::Audit(AuditTurn {
                waits: waits.clone(),
                all_wait,
                told: told.clone(),
                done,
            }));
        }
        collect(&waiting, workers, deadline)?;
        drop(starts);
        let holdings = collect(&tellings, workers, deadline)?;
        let audit = xsk::audit(&self.shared.umem, &holdings);
        if Instant::now() > deadline {
            return Err(EngineError::AuditLate);
        }
        drop(ends);
        Ok(audit)
    }
}

fn collect<T>(from: &Receiver<T>, count: usize, deadline: Instant) -> Result<Vec<T>, EngineError> {
    let next = |_| {
        let left = deadline.saturating_duration_since(Instant::now());
        from.recv_timeout(left).map_err(|_| EngineError::AuditLate)
    };
    (0..count).map(next).collect()
}
