//! Kubernetes objects in, policy snapshots out.

pub mod client;
pub mod daemon;
pub mod protocol;
pub mod cli;
