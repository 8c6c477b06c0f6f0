//! Kubernetes objects in, policy snapshots out.

pub mod check;
pub mod cidr;
pub mod cli;
pub mod client;
pub mod cluster;
pub mod daemon;
pub mod defaults;
pub mod denial_log;
pub mod family;
pub mod field_selector;
pub mod flow;
pub mod journal;
pub mod lab_protocol;
pub mod lower;
pub mod matrix;
pub mod netlink;
pub mod objects;
pub mod offline;
pub mod policy_test;
pub mod preview;
pub mod protocol;
pub mod selector;
pub mod service;
pub mod specification;
pub mod trace;
pub mod validate;
