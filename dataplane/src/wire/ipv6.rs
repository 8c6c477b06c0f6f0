//! IPv6 and its extension headers, RFC 8200.

use super::ip::{Completeness, Header, chunk, fragment};
use super::{ETHERNET_BYTES, Fragment, MAX_EXTENSION_HEADERS, MAX_EXTENSION_OPTIONS, Version};
use crate::{Address, DropReason, Protocol};

/// Bytes of the fixed header.
const HEADER_BYTES: usize = 40;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// Routing header type 0 can bounce a packet between two nodes (RFC 5095).
const ROUTING_TYPE_0: u8 = 0;

const OPTION_PAD1: u8 = 0;
const OPTION_PADN: u8 = 1;
/// A jumbo payload option contradicts the payload length that we require (RFC 2675).
const OPTION_JUMBO: u8 = 0xc2;
/// Padding aligns to 8 bytes, so more than 7 in a row has another purpose (Linux: ip6_parse_tlv).
const MAX_PADDING: usize = 7;

/// Where the hop limit stands in a frame.
pub(super) const HOP_LIMIT_AT: usize = ETHERNET_BYTES + 7;

/// The header at `at`, and all extension headers behind it.
pub(super) fn header(
    frame: &[u8],
    at: usize,
    completeness: Completeness,
) -> Result<Header, DropReason> {
    let Some(fixed) = chunk::<HEADER_BYTES>(frame, at) else {
        return Err(completeness.cut(DropReason::Truncated));
    };
    if fixed[0] >> 4 != 6 {
        return Err(DropReason::MalformedIp);
    }
    let payload = at + HEADER_BYTES;
    let promised = payload + usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
    let end = match completeness {
        Completeness::Whole { behind } if promised > frame.len() + behind => {
            return Err(DropReason::Truncated);
        }
        Completeness::Whole { .. } => promised,
        Completeness::Quoted => promised.min(frame.len()),
    };
    let mut chain = Chain {
        frame: &frame[..end.min(frame.len())],
        at: payload,
        payload,
        promised,
        is_cut: end > frame.len(),
        next: fixed[6],
        fragment: None,
        fragment_header: false,
    };
    chain.walk()?;
    let address = |at: usize| {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&fixed[at..at + 16]);
        Address::v6(u128::from_be_bytes(bytes))
    };
    Ok(Header {
        version: Version::V6,
        source: address(8),
        destination: address(24),
        hop_limit: fixed[7],
        traffic_class: fixed[0] << 4 | fixed[1] >> 4,
        dont_fragment: true,
        protocol: Protocol(chain.next),
        transport_offset: chain.at,
        end,
        fragment: chain.fragment,
        fragment_header: chain.fragment_header,
    })
}

/// A walk along the extension headers.
struct Chain<'a> {
    /// The frame up to the packet's end.
    frame: &'a [u8],
    /// Where the next header starts.
    at: usize,
    /// Where the payload starts, behind the fixed header.
    payload: usize,
    /// Where the packet ends by its own word: beyond the frame in a quoted packet.
    promised: usize,
    /// The packet goes on behind the frame, in another buffer.
    is_cut: bool,
    /// Which protocol it is.
    next: u8,
    fragment: Option<Fragment>,
    fragment_header: bool,
}

impl Chain<'_> {
    /// Walks until something that is no extension header, or the end of what a fragment shows.
    fn walk(&mut self) -> Result<(), DropReason> {
        for step in 0..=MAX_EXTENSION_HEADERS {
            match self.next {
                HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS => {}
                _ => return Ok(()),
            }
            if step == MAX_EXTENSION_HEADERS {
                break;
            }
            // Hop-by-hop options stand first or not at all.
            if self.next == HOP_BY_HOP && step != 0 {
                return Err(DropReason::MalformedExtension);
            }
            self.step()?;
            if self.fragment.is_some_and(|fragment| fragment.offset != 0) {
                return Ok(());
            }
        }
        Err(DropReason::TooManyExtensions)
    }

    /// Walks over one header.
    fn step(&mut self) -> Result<(), DropReason> {
        // All extension headers have at least 8 bytes, the next header in the first of them.
        let fixed = *chunk::<8>(self.frame, self.at).ok_or(self.short())?;
        let units = usize::from(fixed[1]);
        let length = match self.next {
            FRAGMENT => 8,
            // RFC 4302, section 2.2: 32-bit words, minus 2; three of them are fixed.
            AUTHENTICATION if units >= 1 => (units + 2) * 4,
            AUTHENTICATION => return Err(DropReason::MalformedExtension),
            _ => (units + 1) * 8,
        };
        let header = self
            .frame
            .get(self.at..self.at + length)
            .ok_or(self.short())?;
        match self.next {
            HOP_BY_HOP | DESTINATION_OPTIONS => check_options(&header[2..])?,
            // Segments left of any type say that the destination is not the final one, which
            // policy would have to judge.
            ROUTING if fixed[2] == ROUTING_TYPE_0 || fixed[3] != 0 => {
                return Err(DropReason::SourceRouted);
            }
            FRAGMENT => self.fragment(fixed)?,
            _ => {}
        }
        self.next = fixed[0];
        self.at += length;
        Ok(())
    }

    fn fragment(&mut self, header: [u8; 8]) -> Result<(), DropReason> {
        if self.fragment_header {
            return Err(DropReason::MalformedExtension);
        }
        self.fragment_header = true;
        let [_, _, o0, o1, i0, i1, i2, i3] = header;
        let field = u16::from_be_bytes([o0, o1]);
        let (offset, more) = (field & !7, field & 1 != 0);
        // A fragment header on a whole packet is processed by itself (RFC 6946).
        if offset != 0 || more {
            let identification = u32::from_be_bytes([i0, i1, i2, i3]);
            let length = self.promised - self.at - header.len();
            // What counts is the payload: the headers before this one, but not the fixed one.
            let headers = self.at - self.payload;
            let found = fragment(identification, offset, more, length, headers)?;
            self.fragment = Some(found);
        }
        Ok(())
    }

    /// Why a header that ends behind the packet's end is refused: a first fragment has to hold the
    /// whole chain (RFC 7112).
    fn short(&self) -> DropReason {
        if self.is_cut {
            DropReason::MultiBuffer
        } else if self.fragment.is_some() {
            DropReason::TinyFragment
        } else {
            DropReason::MalformedExtension
        }
    }
}

/// Walks the options of a hop-by-hop or destination options header, as far as its length goes.
/// Bounded by options and by padding in a row.
fn check_options(mut options: &[u8]) -> Result<(), DropReason> {
    let (mut count, mut padding) = (0, 0);
    while let [kind, rest @ ..] = options {
        let length = match (*kind, rest.first()) {
            (OPTION_PAD1, _) => 1,
            (_, Some(length)) => usize::from(*length) + 2,
            (_, None) => return Err(DropReason::MalformedExtension),
        };
        let Some(following) = options.get(length..) else {
            return Err(DropReason::MalformedExtension);
        };
        match *kind {
            OPTION_PAD1 | OPTION_PADN => padding += length,
            OPTION_JUMBO => return Err(DropReason::MalformedExtension),
            _ => {
                count += 1;
                padding = 0;
            }
        }
        if padding > MAX_PADDING {
            return Err(DropReason::MalformedExtension);
        }
        if count > MAX_EXTENSION_OPTIONS {
            return Err(DropReason::TooManyExtensions);
        }
        options = following;
    }
    Ok(())
}
