//! The programs that bring packets to our sockets, and keep everyone else from the pods.
//!
//! Their source is `dataplane/bpf/weir.bpf.c`; the built object is part of this crate. One program
//! per role is loaded once, with one XSKMAP for all ports (attaching costs 0.1 to 10 ms a port,
//! loading 12 to 111 ms, so that nothing is loaded twice).
//!
//! Links are pinned in a folder of the instance on a bpffs, so that they outlive the daemon. When
//! it dies its sockets leave the XSKMAP and the programs drop: closed, not open. A successor takes
//! a pinned link over by a link update; there is no moment without a program.
//!
//! Native mode only. Generic XDP on veth hands over 64 KiB segments that no ring takes: TCP crawls
//! at 0.5 Mbit/s (measured on 6.18), so that it is refused instead of fallen back to.

mod pins;
mod programs;

pub use programs::{Attachment, NodeServices, Programs};

use std::io;
use std::path::PathBuf;

/// Why a program could not be loaded or attached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum XdpError {
    /// The pins' folder is not on a bpffs.
    #[error(
        "{} is not on a bpf filesystem; mount one: mount -t bpf bpf /sys/fs/bpf", .path.display()
    )]
    NoBpffs {
        /// The folder.
        path: PathBuf,
    },
    /// The kernel refused the programs or maps.
    #[error("cannot load the XDP programs: {0}")]
    Load(String),
    /// The interface does not take a program.
    #[error("cannot attach XDP in native mode to {interface}: {message}")]
    Attach {
        /// The interface, by name or index.
        interface: String,
        /// What the system said, and what to do.
        message: String,
    },
    /// A map's entry could not be set.
    #[error("cannot set {what}: {message}")]
    Map {
        /// What.
        what: String,
        /// What the system said.
        message: String,
    },
    /// All slots of the XSKMAP are in use.
    #[error("all {0} socket slots are in use")]
    NoSlot(u32),
    /// A file or folder.
    #[error("{}: {source}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}
