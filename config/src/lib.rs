//! Typed configuration of the daemon, and every limit in one place.
//!
//! [`Config::load`] reads `weir.toml`. A key nobody knows is an error, a number outside its range
//! is an error that names the range, and a missing key has the default that [`limits`] documents.

pub mod labs;
pub mod limits;
mod quantity;
mod services;
mod settings;

pub use quantity::Quantity;
pub use services::{PortRange, Services};
pub use settings::{
    Addresses, Config, Conntrack, ConntrackTimeouts, Enforcement, ExistingConnections, HostPort,
    Limits, Log, LogFormat, NodeEgress, Polling, SelfCheck, Umem, Uplink,
};

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no TOML, or has a key that nobody knows, or a value of the wrong type.
    #[error("{path}: {message}")]
    Parse {
        /// The file.
        path: String,
        /// Where and what.
        message: String,
    },
    /// A value is out of its range or contradicts another.
    #[error("{key}: {message}")]
    Value {
        /// The key as it is written in the file, `conntrack.capacity`.
        key: &'static str,
        /// What is wrong and what would be right.
        message: String,
    },
}
