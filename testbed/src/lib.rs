//! Labs on one machine.
