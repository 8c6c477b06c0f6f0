//! The page: who talks to whom, what is denied and why, and who may reach whom.
//!
//! A client of the daemon's socket like any other, without privileges: it reads objects, flows and
//! metrics, asks `trace` and `matrix`, and changes nothing. A browser gets the page's files, which
//! are part of this program, one stream of events ([`stream`]) and answers to single questions
//! ([`routes`]).

pub mod assets;
pub mod daemon;
pub mod edges;
pub mod guard;
pub mod objects;
pub mod reach;
pub mod routes;
pub mod sentence;
pub mod server;
pub mod stream;
