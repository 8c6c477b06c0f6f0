//! What stands in for container images: a lab pulls none.
//!
//! [`find`] knows the images that tutorials and tests use. A stand-in does its original's network
//! work: what it answers comes over connections that a policy can cut, never from a constant that
//! would survive the cut. Its programs are one multi-call binary, `weir-applets` ([`applets`]),
//! which every pod's root has at [`APPLETS`]; in containers of the image, and in those only, it
//! lies at the paths of the original's programs. Everything else of a container is the machine's.

pub mod applets;
pub mod busybox;
mod database;
mod digest;
mod errors;
pub mod http;
pub mod mysql;
mod options;
pub mod postgres;
pub mod redis;
mod reference;
mod resolve;
pub mod servers;
mod sockets;
mod table;
mod url;

pub use table::{Image, Program, find};

/// Folder of a pod's root that has what stand-ins need.
pub const FOLDER: &str = "/run/.weir";
/// Where a pod's root has the multi-call binary.
pub const APPLETS: &str = "/run/.weir/applets";
/// Where a container has the machine's `/bin/sh` when a stand-in lies there.
pub const MACHINE_SHELL: &str = "/run/.weir/sh";
