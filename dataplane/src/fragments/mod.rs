//! Fragments (semantics D9): which datagram each belongs to, and what was decided for its first one.
//!
//! Nothing is put together here. The first fragment has the transport header: it is judged like a
//! whole packet, and goes on at once. The others have no ports; they follow it, as long as its
//! connection is accepted under the epochs in force. A fragment ahead of its first is *held*: its
//! frame stays with the worker that received it ([`Held`]) until the first is decided, or too long.
//! Held fragments are undecided: when they are released they go through the pipeline from the
//! beginning, under the snapshot that is in force then.
//!
//! * [`Table`] has one entry per datagram under way, for all workers: a NIC spreads packets by their
//!   ports, and fragments behind the first have none, so that they may come to another worker than it.
//! * A [`Ticket`] names a datagram at one moment; when that has gone or its place has been given to
//!   another, the ticket is void.
//! * A datagram of which one fragment is dropped is dropped from then on: half of it is of no use to
//!   the receiver, and overlaps are attacks (RFC 5722, RFC 1858, RFC 3128).
//!
//! Everything has a bound ([`Bounds`]): datagrams and held frames, of all ports and of each, pieces
//! of a datagram, and the time between two of them. What exceeds one is dropped, never let through.
//!
//! A datagram's bookkeeping is some hundred bytes that change together, so a bucket of them is guarded
//! by a lock that nobody ever waits for: a worker tries it a bounded number of times and then drops
//! the fragment ([`DropReason::FragmentBusy`]). Whole packets never come here.

mod datagram;
mod held;
mod table;
#[cfg(test)]
mod tests;

pub use datagram::{First, PIECES_MAX, Piece};
pub use held::{Held, Released};
pub use table::Table;

use crate::conntrack::{Ends, TcpFacts};
use crate::snapshot::PortId;
use crate::{Address, DropReason, Protocol};

/// The bounds. All of them apply at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Datagrams under way, at least 1.
    pub datagrams: u32,
    /// Frames held, of all workers together; 0 holds none, so that the first fragment has to come
    /// first.
    pub frames: u32,
    /// The share of both that one ingress port can have, percent; at least one of each.
    pub port_percent: u32,
    /// Fragments of one datagram, at most [`PIECES_MAX`].
    pub pieces: u32,
    /// How long a datagram may wait for its first fragment, and for each further one after that,
    /// milliseconds.
    pub timeout_ms: u32,
}

/// What tells one datagram from another (RFC 791, RFC 8200), and from that of a pod that had the
/// same address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key {
    /// The endpoints at its ends, and the port that it came in by.
    pub ends: Ends,
    /// Sender.
    pub source: Address,
    /// Receiver.
    pub destination: Address,
    /// The sender's number for it.
    pub identification: u32,
    /// IPv4's protocol field. None for IPv6, where only the first fragment tells it.
    pub protocol: Option<Protocol>,
}

/// A datagram in the table, at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticket {
    serial: u64,
    slot: u32,
    ingress: PortId,
}

impl Ticket {
    /// The port that the datagram comes in by.
    pub fn ingress(&self) -> PortId {
        self.ingress
    }
}

/// What a fragment is to its datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entered {
    /// The first one: decide, then tell [`Table::decide`]. `length` is the whole datagram's in octets,
    /// if the last fragment has been there already.
    First {
        /// The datagram.
        ticket: Ticket,
        /// Octets behind the IP headers, all fragments together.
        length: Option<u32>,
    },
    /// A later one, whose first was accepted.
    Follows {
        /// The datagram.
        ticket: Ticket,
        /// What the first one says.
        first: First,
        /// With this fragment the length of a TCP segment is known: it is to be tracked with it.
        segment: Option<TcpFacts>,
    },
    /// A later one, whose first has not been decided: hold it.
    Waits(Ticket),
}

/// A fragment that has to be dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused {
    /// Why.
    pub reason: DropReason,
    /// Whether that is news: of a datagram's fragments at most one says so.
    pub is_news: bool,
    /// What the datagram's first fragment said, if that was accepted.
    pub first: Option<First>,
}

/// What is under way now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Datagrams.
    pub datagrams: u32,
    /// Frames held.
    pub frames: u32,
}
