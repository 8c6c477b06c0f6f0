//! The dataplane daemon.

pub mod connection;
pub mod server;

use std::path::Path;

/// Why the daemon ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration was refused.
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    /// The system refused something.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Runs the daemon in the foreground until SIGTERM or SIGINT.
///
/// `config_path` is the configuration; none takes `/etc/weir/weir.toml` if it exists and the
/// defaults otherwise.
pub fn run(config_path: Option<&Path>) -> Result<(), DaemonError> {
    let config = match config_path {
        Some(path) => config::Config::load(path)?,
        None => config::Config::default(),
    };
    Err(DaemonError::System {
        what: format!("instance {}", config.instance),
        source: std::io::ErrorKind::Unsupported.into(),
    })
}
