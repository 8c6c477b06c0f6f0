//! Tests of the dataplane from outside, in one binary.
// Clippy's own exception for tests covers test functions only, not what they share.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bpf_object;
mod conntrack;
mod route;
mod simulator;
mod wire;
