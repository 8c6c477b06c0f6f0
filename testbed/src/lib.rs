//! Labs on one machine.
//!
//! A lab ([`lab`]) is a network of its own ([`topology`]) with a daemon of its own, and an agent
//! ([`agent`]) that runs the pods the daemon's objects ask for ([`pod`], [`responder`]).

pub mod agent;
pub mod clock;
pub mod dns;
pub mod images;
pub mod lab;
pub mod pod;
pub mod probe;
pub mod responder;
pub mod scenario;
pub mod topology;
pub mod tutorial;
