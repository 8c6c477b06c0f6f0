//! What both IP versions' headers come down to.

use super::{Fragment, Version};
use crate::{Address, DropReason, Protocol};

/// How much of an IP packet there is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Completeness {
    /// All that its length promises, or it is truncated. `behind` bytes of the frame are not in the
    /// slice that is read, but behind it: of a packet in several buffers only the first is read.
    Whole { behind: usize },
    /// As much as an ICMP error quotes, changed by routers on its way: lengths are an upper bound
    /// and the header checksum says nothing.
    Quoted,
}

impl Completeness {
    /// Why a header is refused that the slice does not hold: `otherwise`, unless there is more
    /// behind it.
    pub(super) fn cut(self, otherwise: DropReason) -> DropReason {
        match self {
            Completeness::Whole { behind } if behind > 0 => DropReason::MultiBuffer,
            _ => otherwise,
        }
    }
}

/// An IP header with all its extension headers. Offsets count from the frame's first byte.
/// `transport_offset` is no greater than `end` nor than the bytes that were read; `end` may lie
/// behind those where a packet has several buffers.
pub(super) struct Header {
    pub(super) version: Version,
    pub(super) source: Address,
    pub(super) destination: Address,
    pub(super) hop_limit: u8,
    pub(super) traffic_class: u8,
    pub(super) dont_fragment: bool,
    pub(super) protocol: Protocol,
    pub(super) transport_offset: usize,
    pub(super) end: usize,
    pub(super) fragment: Option<Fragment>,
    /// Whether there is an IPv6 fragment header, be it of a whole packet (RFC 6946).
    pub(super) fragment_header: bool,
}

/// The `N` bytes at `at`, if `bytes` has them.
pub(super) fn chunk<const N: usize>(bytes: &[u8], at: usize) -> Option<&[u8; N]> {
    bytes.get(at..)?.first_chunk()
}

/// A fragment's place from its fields, checked against the packet's size: `length` bytes of the
/// fragmentable part follow the headers, of which `headers` bytes count for the length of the whole.
pub(super) fn fragment(
    identification: u32,
    offset: u16,
    more: bool,
    length: usize,
    headers: usize,
) -> Result<Fragment, DropReason> {
    // A fragment is not empty, and only the last one's length may be no multiple of 8.
    if length == 0 || more && !length.is_multiple_of(8) {
        return Err(DropReason::MalformedIp);
    }
    // It ends within the largest packet (RFC 791, RFC 8200 section 4.5).
    if usize::from(offset) + length + headers > usize::from(u16::MAX) {
        return Err(DropReason::OversizedDatagram);
    }
    Ok(Fragment {
        identification,
        offset,
        length: length as u32,
        more,
    })
}

/// Refuses addresses that cannot stand in a packet on any link of ours.
///
/// `::` may be a source where an address is still being acquired (RFC 4862): ICMPv6 to a group.
pub(super) fn check_addresses(header: &Header) -> Result<(), DropReason> {
    let (source, destination) = (header.source, header.destination);
    let martian = match header.version {
        Version::V4 => {
            let this_network = |address: Address| address.0 as u32 >> 24 == 0;
            this_network(source) || source.is_broadcast() || this_network(destination)
        }
        Version::V6 => {
            let acquiring = header.protocol == Protocol::ICMPV6 && destination.is_multicast();
            source.is_v4()
                || destination.is_v4()
                || source.is_unspecified() && !acquiring
                || destination.is_unspecified()
        }
    };
    if martian || source.is_loopback() || destination.is_loopback() || source.is_multicast() {
        return Err(DropReason::MartianAddress);
    }
    Ok(())
}
