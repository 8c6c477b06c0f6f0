//! Integration tests that need neither root nor network.

mod captures;
mod cases;
mod chance;
mod completion;
mod connections;
mod custom;
mod explained;
mod flows;
mod hits;
mod hostile;
mod lowering;
mod metrics;
mod objects;
mod policy;
mod policy_kinds;
mod policy_test;
mod preview;
mod questions;
mod schemas;
mod services;
mod store;
mod top;
mod verbs;
