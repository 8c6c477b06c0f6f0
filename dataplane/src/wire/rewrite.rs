//! Changes to a frame that is forwarded, in place.
//!
//! Each takes the frame and the [`Packet`] that [`parse`](super::parse) made of it. A frame
//! shorter than its description is [`DropReason::Internal`] and stays unchanged.

use super::Packet;
use crate::{DropReason, Mac};

/// Writes the Ethernet addresses of the next hop.
///
/// # Errors
///
/// [`DropReason::Internal`] if the frame is shorter than an Ethernet header.
pub fn rewrite_ethernet(bytes: &mut [u8], source: Mac, destination: Mac) -> Result<(), DropReason> {
    let header = bytes.get_mut(..12).ok_or(DropReason::Internal)?;
    header[..6].copy_from_slice(&destination.0);
    header[6..].copy_from_slice(&source.0);
    Ok(())
}

/// Takes 1 from TTL or hop limit, and updates IPv4's header checksum (RFC 1624).
///
/// # Errors
///
/// [`DropReason::TtlExceeded`] if none would be left.
pub fn decrement_ttl(_bytes: &mut [u8], _packet: &Packet) -> Result<(), DropReason> {
    Err(DropReason::Internal)
}

/// Finishes a transport checksum in software: TCP's and UDP's Partial one, SCTP's absent CRC32c.
/// What is Complete, and UDP that does without, stays as it is.
///
/// # Errors
///
/// [`DropReason::Internal`] if `packet` does not describe `bytes`.
pub fn complete_checksum(_bytes: &mut [u8], _packet: &Packet) -> Result<(), DropReason> {
    Err(DropReason::Internal)
}

/// Lowers the MSS option of a SYN or SYN-ACK to what fits `mtu`, and its checksum with it. Returns
/// whether it changed something: never for a packet without the option (RFC 9293 then has the
/// receiver assume the least), nor for one that asks for less.
///
/// # Errors
///
/// [`DropReason::Internal`] if `packet` does not describe `bytes`.
pub fn clamp_mss(_bytes: &mut [u8], _packet: &Packet, _mtu: u32) -> Result<bool, DropReason> {
    Err(DropReason::Internal)
}
