//! Why there is no result.

/// Why there is no result. A benchmark that measured something else than it says fails.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// What was to be measured could not be set up.
    #[error("cannot set the measurement up: {0}")]
    Setup(String),
    /// Somebody asked us to stop.
    #[error("interrupted")]
    Interrupted,
    /// Packets did not fare as the measurement says.
    #[error("{name}: {count} packets were {outcome}, which is not what is to be measured")]
    Outcome {
        /// The measurement.
        name: String,
        /// How many.
        count: u64,
        /// What became of the first one.
        outcome: String,
    },
}
