//! Answers written over the frame that asks for them.
//!
//! Every function takes the whole window of the chunk, of which the first `packet.length` bytes
//! are the received frame, and returns the length of the answer, which stands at the window's
//! start and has complete checksums. On an error the frame is unchanged.

use super::Packet;
use crate::{Address, DropReason, Mac};

/// Answers an ARP request: `arp.target` is at `mac`. Whether the target is ours is the caller's to
/// know.
///
/// # Errors
///
/// [`DropReason::NeighbourNotOurs`] for what is never answered: replies, probes and gratuitous
/// ARP (RFC 5227). [`DropReason::Internal`] if `packet` does not describe `bytes`.
pub fn arp_reply(_bytes: &mut [u8], _packet: &Packet, _mac: Mac) -> Result<usize, DropReason> {
    Err(DropReason::Internal)
}

/// Answers a neighbour solicitation: the target is at `mac`, and it is a router (RFC 4861, section
/// 7.2.4). Whether the target is ours is the caller's to know.
///
/// # Errors
///
/// [`DropReason::NeighbourNotOurs`] for what is never answered: probes for duplicates (source
/// `::`) and other messages. [`DropReason::NoFrame`] if the window is too small.
/// [`DropReason::Internal`] if `packet` does not describe `bytes`.
pub fn neighbour_advertisement(
    _bytes: &mut [u8],
    _packet: &Packet,
    _mac: Mac,
) -> Result<usize, DropReason> {
    Err(DropReason::Internal)
}

/// Turns the packet into "time exceeded in transit" from `router` at `mac`, sent back to the
/// sender.
///
/// # Errors
///
/// [`DropReason::TtlExceeded`] where no error may be sent (RFC 1122, section 3.2.2; RFC 4443,
/// section 2.4): about ICMP errors, later fragments, multicast, or `router` of the other family.
pub fn time_exceeded(
    _bytes: &mut [u8],
    _packet: &Packet,
    _router: Address,
    _mac: Mac,
) -> Result<usize, DropReason> {
    Err(DropReason::TtlExceeded)
}

/// Turns the packet into "fragmentation needed" (RFC 1191) or "packet too big" (RFC 4443) for
/// `mtu` bytes from `router` at `mac`, sent back to the sender.
///
/// # Errors
///
/// [`DropReason::TooBig`] where no error may be sent, as in [`time_exceeded`].
pub fn packet_too_big(
    _bytes: &mut [u8],
    _packet: &Packet,
    _mtu: u32,
    _router: Address,
    _mac: Mac,
) -> Result<usize, DropReason> {
    Err(DropReason::TooBig)
}
