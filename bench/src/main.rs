//! `weir-bench`: measurement.
fn main() {}
