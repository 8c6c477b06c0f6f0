//! Running one pod: its namespaces, its root, its processes.
//!
//! The agent starts one *init* per pod (process 1 of the pod's PID namespace) on a thread that has
//! entered the pod's network namespace and unshared the others; see [`sandbox`]. Init makes the
//! pod's root ([`root`]), then starts and reaps processes as the agent tells it over a socket
//! ([`message`]). Every process passes through a short stage of its own ([`stage`]) that takes its
//! terminal, drops its privileges and executes the program; no code runs between fork and exec.

pub mod capability;
pub mod init;
pub mod message;
pub mod process;
pub mod root;
pub mod sandbox;
pub mod stage;
mod stand_ins;
pub mod streams;
