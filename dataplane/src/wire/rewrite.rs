//! Changes to a frame that is forwarded, in place.
//!
//! Each takes the frame and the [`Packet`] that [`parse`](super::parse) made of it. A frame
//! shorter than its description is [`DropReason::Internal`] and stays unchanged.

use arrayvec::ArrayVec;

use super::{Checksum, Packet, Transport, Version, ipv4, ipv6};
use crate::checksum::{self, Sum};
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

/// What [`decrement_ttl`] and [`rewrite_ethernet`] do, to a packet that [`brief`](super::brief) has
/// described as `version` and whose TTL or hop limit is above 1. `ethernet` are the next hop's
/// address and our own, as they stand in the header.
///
/// # Errors
///
/// [`DropReason::Internal`] if the frame is shorter than the description; it stays unchanged.
#[inline]
pub fn forward(bytes: &mut [u8], version: Version, ethernet: &[u8; 12]) -> Result<(), DropReason> {
    let header = bytes
        .first_chunk_mut::<{ super::ETHERNET_BYTES + 20 }>()
        .ok_or(DropReason::Internal)?;
    header[..12].copy_from_slice(ethernet);
    match version {
        Version::V4 => {
            let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
            let (old, field) = (word(ipv4::TTL_AT), word(ipv4::CHECKSUM_AT));
            let new = old.wrapping_sub(0x0100);
            let checksum = checksum::updated(field, old, new).to_be_bytes();
            header[ipv4::TTL_AT] = (new >> 8) as u8;
            header[ipv4::CHECKSUM_AT] = checksum[0];
            header[ipv4::CHECKSUM_AT + 1] = checksum[1];
        }
        Version::V6 => {
            header[ipv6::HOP_LIMIT_AT] = header[ipv6::HOP_LIMIT_AT].wrapping_sub(1);
        }
    }
    Ok(())
}

/// Takes 1 from TTL or hop limit, and updates IPv4's header checksum (RFC 1624).
///
/// # Errors
///
/// [`DropReason::TtlExceeded`] if none would be left, [`DropReason::Internal`] if `packet` does
/// not describe `bytes`.
pub fn decrement_ttl(bytes: &mut [u8], packet: &Packet) -> Result<(), DropReason> {
    let ip = packet.ip().ok_or(DropReason::Internal)?;
    if ip.hop_limit <= 1 {
        return Err(DropReason::TtlExceeded);
    }
    match ip.version {
        Version::V4 => {
            let old = word(bytes, ipv4::TTL_AT)?;
            let field = word(bytes, ipv4::CHECKSUM_AT)?;
            let new = old.checked_sub(0x0100).ok_or(DropReason::Internal)?;
            put(bytes, ipv4::TTL_AT, new)?;
            put(bytes, ipv4::CHECKSUM_AT, checksum::updated(field, old, new))
        }
        Version::V6 => {
            let hop_limit = bytes
                .get_mut(ipv6::HOP_LIMIT_AT)
                .ok_or(DropReason::Internal)?;
            *hop_limit = hop_limit.checked_sub(1).ok_or(DropReason::Internal)?;
            Ok(())
        }
    }
}

/// Finishes a transport checksum in software: TCP's and UDP's Partial one, SCTP's absent CRC32c.
/// What is Complete, and UDP that does without, stays as it is. `rest` are the buffers behind
/// `bytes` of a packet that has several.
///
/// # Errors
///
/// [`DropReason::Internal`] if `packet` does not describe `bytes` and `rest`, or `rest` are more
/// than [`BUFFERS_MAX`].
pub fn complete_checksum(
    bytes: &mut [u8],
    rest: &[&[u8]],
    packet: &Packet,
) -> Result<(), DropReason> {
    let Some(ip) = packet.ip() else {
        return Ok(());
    };
    let start = usize::from(ip.transport_offset);
    let end = bytes.len().min(packet.length as usize);
    let segment = bytes.get_mut(start..end).ok_or(DropReason::Internal)?;
    let further = behind(rest, packet.length as usize - end)?;
    match (ip.checksum, ip.transport) {
        (Checksum::Partial, transport) => {
            let at = ip.checksum_offset().ok_or(DropReason::Internal)?;
            // The pseudo-header's sum is in the field already, so it is summed with the rest.
            let (mut sum, mut length) = (Sum::ZERO.bytes(segment), segment.len());
            for buffer in further {
                sum = match length % 2 {
                    0 => sum.bytes(buffer),
                    _ => sum.bytes_at_odd(buffer),
                };
                length += buffer.len();
            }
            let value = match (sum.checksum(), transport) {
                (0, Transport::Udp(_)) => 0xffff,
                (value, _) => value,
            };
            put(segment, usize::from(at), value)
        }
        (Checksum::Absent, Transport::Sctp(_)) => {
            let crc = {
                let mut buffers: ArrayVec<&[u8], { BUFFERS_MAX + 1 }> = ArrayVec::new();
                buffers.push(segment);
                buffers.extend(further);
                checksum::crc32c(&buffers)
            };
            let field = segment.get_mut(8..12).ok_or(DropReason::Internal)?;
            field.copy_from_slice(&crc.to_le_bytes());
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Buffers behind a packet's first at most.
pub const BUFFERS_MAX: usize = crate::xsk::PARTS_MAX - 1;

/// The first `length` bytes of `buffers`.
fn behind<'b>(
    buffers: &[&'b [u8]],
    mut length: usize,
) -> Result<ArrayVec<&'b [u8], BUFFERS_MAX>, DropReason> {
    let mut pieces = ArrayVec::new();
    for buffer in buffers {
        if length == 0 {
            break;
        }
        let piece = &buffer[..buffer.len().min(length)];
        length -= piece.len();
        pieces
            .try_push(piece)
            .map_err(|_too_many| DropReason::Internal)?;
    }
    match length {
        0 => Ok(pieces),
        _ => Err(DropReason::Internal),
    }
}

/// Bytes of IPv4's or IPv6's header and of TCP's, neither with options, which are not counted
/// against the MSS (RFC 6691).
const HEADERS_V4: u32 = 20 + 20;
const HEADERS_V6: u32 = 40 + 20;

/// Lowers the MSS option of a SYN or SYN-ACK to what fits `mtu`, and its checksum with it. Returns
/// whether it changed something: never for a packet without the option (RFC 9293 then has the
/// receiver assume the least), nor for one that asks for less.
///
/// # Errors
///
/// [`DropReason::Internal`] if `packet` does not describe `bytes`.
pub fn clamp_mss(bytes: &mut [u8], packet: &Packet, mtu: u32) -> Result<bool, DropReason> {
    let Some(ip) = packet.ip() else {
        return Ok(false);
    };
    let Transport::Tcp(tcp) = ip.transport else {
        return Ok(false);
    };
    let Some(at) = tcp.mss_offset.map(usize::from) else {
        return Ok(false);
    };
    let headers = match ip.version {
        Version::V4 => HEADERS_V4,
        Version::V6 => HEADERS_V6,
    };
    let largest = mtu.saturating_sub(headers).min(u32::from(u16::MAX)) as u16;
    let old = word(bytes, at)?;
    if old <= largest || largest == 0 {
        return Ok(false);
    }
    // A Partial field covers only the pseudo-header as yet, which knows no options.
    if ip.checksum == Checksum::Complete {
        let field_at = usize::from(ip.transport_offset) + 16;
        let field = word(bytes, field_at)?;
        // At an odd offset the two bytes belong to two words of the sum, each to the other half.
        let is_odd = (at - usize::from(ip.transport_offset)) % 2 == 1;
        let (from, to) = if is_odd {
            (old.swap_bytes(), largest.swap_bytes())
        } else {
            (old, largest)
        };
        put(bytes, field_at, checksum::updated(field, from, to))?;
    }
    put(bytes, at, largest)?;
    Ok(true)
}

fn word(bytes: &[u8], at: usize) -> Result<u16, DropReason> {
    super::ip::chunk::<2>(bytes, at)
        .map(|word| u16::from_be_bytes(*word))
        .ok_or(DropReason::Internal)
}

fn put(bytes: &mut [u8], at: usize, word: u16) -> Result<(), DropReason> {
    let place = bytes.get_mut(at..at + 2).ok_or(DropReason::Internal)?;
    place.copy_from_slice(&word.to_be_bytes());
    Ok(())
}
