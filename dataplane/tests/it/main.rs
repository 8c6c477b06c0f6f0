//! Tests of the dataplane from outside, in one binary.

mod bpf_object;
mod conntrack;
mod route;
mod simulator;
mod wire;
