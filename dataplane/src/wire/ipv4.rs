//! IPv4, RFC 791.

use super::ip::{Completeness, Header, chunk, fragment};
use super::{ETHERNET_BYTES, Version};
use crate::checksum::Sum;
use crate::{Address, DropReason, Protocol};

/// Bytes of a header without options.
const HEADER_BYTES: usize = 20;

/// Flag that must be 0, DF, and MF, in the 16 bits that end with the fragment offset.
const RESERVED: u16 = 0x8000;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;

const OPTION_END: u8 = 0;
const OPTION_NONE: u8 = 1;
const OPTION_LOOSE_SOURCE_ROUTE: u8 = 131;
const OPTION_STRICT_SOURCE_ROUTE: u8 = 137;

/// The header at `at`.
pub(super) fn header(
    frame: &[u8],
    at: usize,
    completeness: Completeness,
) -> Result<Header, DropReason> {
    let Some(fixed) = chunk::<HEADER_BYTES>(frame, at) else {
        return Err(completeness.cut(DropReason::Truncated));
    };
    let header_length = usize::from(fixed[0] & 0xf) * 4;
    let total_length = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if fixed[0] >> 4 != 4 || header_length < HEADER_BYTES || total_length < header_length {
        return Err(DropReason::MalformedIp);
    }
    let Some(header) = frame.get(at..at + header_length) else {
        return Err(completeness.cut(DropReason::Truncated));
    };
    let mut end = at + total_length;
    if let Completeness::Whole { behind } = completeness {
        if end > frame.len() + behind {
            return Err(DropReason::Truncated);
        }
        if Sum::ZERO.bytes(header).checksum() != 0 {
            return Err(DropReason::BadIpChecksum);
        }
    } else {
        end = end.min(frame.len());
    }
    check_options(&header[HEADER_BYTES..])?;
    let flags = u16::from_be_bytes([fixed[6], fixed[7]]);
    if flags & RESERVED != 0 {
        return Err(DropReason::MalformedIp);
    }
    let (offset, more) = (flags << 3, flags & MORE_FRAGMENTS != 0);
    let fragment = if offset != 0 || more {
        let identification = u32::from(u16::from_be_bytes([fixed[4], fixed[5]]));
        let length = total_length - header_length;
        Some(fragment(
            identification,
            offset,
            more,
            length,
            header_length,
        )?)
    } else {
        None
    };
    Ok(Header {
        version: Version::V4,
        source: Address::v4(u32::from_be_bytes([
            fixed[12], fixed[13], fixed[14], fixed[15],
        ])),
        destination: Address::v4(u32::from_be_bytes([
            fixed[16], fixed[17], fixed[18], fixed[19],
        ])),
        hop_limit: fixed[8],
        traffic_class: fixed[1],
        dont_fragment: flags & DONT_FRAGMENT != 0,
        protocol: Protocol(fixed[9]),
        transport_offset: at + header_length,
        end,
        fragment,
        fragment_header: fragment.is_some(),
    })
}

/// Walks the options: at most 40 bytes, at least one a step.
fn check_options(mut options: &[u8]) -> Result<(), DropReason> {
    while let [kind, rest @ ..] = options {
        options = match *kind {
            OPTION_END => return Ok(()),
            OPTION_NONE => rest,
            OPTION_LOOSE_SOURCE_ROUTE | OPTION_STRICT_SOURCE_ROUTE => {
                return Err(DropReason::SourceRouted);
            }
            _ => match rest.first() {
                Some(length) if *length >= 2 => options.get(usize::from(*length)..),
                _ => None,
            }
            .ok_or(DropReason::MalformedOptions)?,
        };
    }
    Ok(())
}

/// Where the header's checksum stands in a frame.
pub(super) const CHECKSUM_AT: usize = ETHERNET_BYTES + 10;

/// Where TTL stands in a frame; the protocol number follows in the same 16-bit word.
pub(super) const TTL_AT: usize = ETHERNET_BYTES + 8;
