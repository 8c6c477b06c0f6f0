//! Packets as bytes: parsed without copies, answered and rewritten in place.
//!
//! * [`parse`] reads a frame once and describes it in a [`Packet`]: plain copied numbers, so that
//!   nobody needs the bytes again to classify, track or decide.
//! * [`brief`] reads ordinary TCP and UDP packets, which nearly all are, in less time, and tells what
//!   an established connection's packet is asked.
//! * [`reply`] turns a received frame into its answer: ARP, neighbour advertisement, ICMP errors.
//! * [`translate`] gives a packet, or the one that an ICMP error quotes, other addresses and ports.
//! * [`rewrite`] changes a frame that is forwarded: addresses, hop limit, checksums, MSS.
//!
//! The parser takes any bytes: it never panics, allocates or loops beyond stated bounds, and says
//! of every frame that it refuses which [`DropReason`](crate::DropReason) applies.

mod brief;
mod icmp;
mod ip;
mod ipv4;
mod ipv6;
mod neighbour;
mod packet;
mod parse;
pub mod reply;
pub mod rewrite;
pub mod translate;
mod transport;

pub use brief::{Brief, brief};
pub use packet::{
    Arp, ArpOperation, Checksum, Ethernet, Fragment, Icmp, IcmpError, Inner, Ip, Kind, Neighbour,
    NeighbourMessage, Offload, Packet, Sctp, Tcp, TcpFlags, Transport, TxChecksum, Udp, Version,
};
pub use parse::{parse, parse_split};

/// Bytes of an Ethernet header without tags.
pub const ETHERNET_BYTES: usize = 14;

/// IPv6 extension headers walked before a packet is
/// [`TooManyExtensions`](crate::DropReason::TooManyExtensions).
pub const MAX_EXTENSION_HEADERS: usize = 8;

/// Options other than padding in one IPv6 hop-by-hop or destination options header; more are
/// [`TooManyExtensions`](crate::DropReason::TooManyExtensions) (RFC 8504, section 5.3; Linux has
/// the same default).
pub const MAX_EXTENSION_OPTIONS: usize = 8;
