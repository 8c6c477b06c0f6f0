//! The command line: kubectl's verbs over the daemon's socket, and Weir's own.

pub mod columns;
pub mod flags;
pub mod jsonpath;
pub mod table;
