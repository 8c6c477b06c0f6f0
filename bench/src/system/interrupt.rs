//! An interrupted run ends as every other: what it made is taken away by whoever made it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::setup;
use crate::error::BenchError;

/// Whether somebody has asked us to stop.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on the usual signals ask instead of killing.
    pub fn watch() -> Result<Interrupt, BenchError> {
        let interrupt = Interrupt::default();
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&interrupt.0)).map_err(setup)?;
        }
        Ok(interrupt)
    }

    /// Whether to stop.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error once somebody has asked.
    pub fn check(&self) -> Result<(), BenchError> {
        if self.is_set() {
            return Err(BenchError::Interrupted);
        }
        Ok(())
    }
}
