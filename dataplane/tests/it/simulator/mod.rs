//! The pipeline with everything behind it, without sockets: a node in miniature.

mod bursts;
mod checks;
mod connections;
mod cut;
mod fragments;
mod hits;
mod jumbo;
mod kept;
pub mod packets;
mod policies;
mod random;
mod services;
pub mod shown;
mod translations;
mod world;
