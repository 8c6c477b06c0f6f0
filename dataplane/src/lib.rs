//! Packets in, verdicts out.
//!
//! A reader's tour, in the order a packet meets the modules:
//!
//! * [`shm`]: memory that outlives the process (UMEM, owner bytes, conntrack).
//! * [`xsk`]: AF_XDP rings and sockets; a frame is always in exactly one place.
//! * [`xdp`]: the programs that redirect to the sockets and keep everyone else out.
//! * [`wire`]: headers parsed without copies; every malformed shape has a [`DropReason`].
//! * [`conntrack`]: one table for all workers, both directions of a connection in one entry.
//! * [`fragments`]: one table for all workers: later fragments follow their first.
//! * [`policy`]: compiled policy; what decides packets also explains them.
//! * [`service`]: which backends stand behind a Service's address.
//! * [`route`]: longest-prefix routes and next hops.
//! * [`snapshot`]: everything the control thread tells the workers, immutable, numbered.
//! * [`pipeline`]: the pure function from a burst to what becomes of each packet.
//! * [`tap`]: packets, with what became of them, for whoever captures.
//! * [`worker`]: the thread that drives the pipeline; [`polling`]: when it sleeps; [`engine`]: the
//!   workers together.
//!
//! This crate knows no Kubernetes, no async, no files and no command line. Time is an argument.

pub mod address;
pub mod checksum;
pub mod conntrack;
pub mod counters;
pub mod drop_reason;
// The engine's table lies in shared memory, which loom's atomics cannot stand for.
#[cfg(not(loom))]
pub mod engine;
pub mod events;
pub mod flow;
pub mod fragments;
pub mod pipeline;
pub mod policy;
pub mod polling;
pub mod route;
pub mod service;
pub mod shm;
pub mod snapshot;
pub mod tap;
pub mod time;
pub mod verdict;
pub mod wire;
#[cfg(not(loom))]
mod worker;
pub mod xdp;
pub mod xsk;

pub use address::{Address, Mac};
pub use counters::CounterId;
pub use drop_reason::DropReason;
pub use flow::{FlowKey, Protocol, SocketAddress};
pub use snapshot::{Generation, Snapshot};
pub use time::Time;
pub use verdict::{Direction, PolicyId, Provenance, Tier, Verdict};
