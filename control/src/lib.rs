//! Kubernetes objects in, policy snapshots out.

pub mod cli;
pub mod client;
pub mod daemon;
pub mod denial_log;
pub mod journal;
pub mod lab_protocol;
pub mod netlink;
pub mod objects;
pub mod protocol;
