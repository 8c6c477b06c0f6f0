//! `weir-bench`: measurement, and nothing but: no other crate depends on it.
//!
//! It is a library so that criterion's benches (`benches/`) measure the nodes and packets of [`micro`].

mod acl;
mod change;
mod cluster;
mod cluster_objects;
pub mod command_line;
mod compile;
pub mod error;
mod machine;
pub mod micro;
mod output;
mod policy;
mod soak;
mod statistics;
mod system;
