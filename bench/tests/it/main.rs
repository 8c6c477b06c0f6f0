//! What the benchmarks are made of works; that says nothing about their numbers.

#[path = "../../../dataplane/tests/it/bpf_object.rs"]
mod bpf_object;
mod soak;
mod system;
