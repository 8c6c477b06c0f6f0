//! Labs on one machine.

pub mod probe;
pub mod scenario;
