//! The lab's DNS: names for Services and pods as a cluster's DNS gives them, and for the external
//! world.
//!
//! The agent renders the cluster's objects to [`records`] and writes them to a file; `weir-dns`,
//! which runs in the DNS pod, answers from that file and looks at it again for every question, so
//! that a name is right as soon as the file is. It needs the network for its answers only: a
//! policy that cuts the DNS pod off does not make its answers old.
//!
//! * [`records`]: objects in, records out, and their file.
//! * [`zone`]: a question in, an answer out (RFC 1034, 2308, 4592), without any I/O.

pub mod records;
pub mod render;
pub mod zone;

pub use records::{Record, Records, RecordsError};
pub use render::{Options, Rendered, render};
