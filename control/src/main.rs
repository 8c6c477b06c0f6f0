//! `weir`: the command line and the daemon.
fn main() {}
