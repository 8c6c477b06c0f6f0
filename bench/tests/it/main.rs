//! What the benchmarks are made of works; that says nothing about their numbers.

mod bpf_object;
mod system;
