//! Typed configuration of the daemon, and every limit in one place.
