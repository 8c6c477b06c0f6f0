//! ICMP (RFC 792) and ICMPv6 (RFC 4443), and the packets that their errors quote.

use super::ip::{self, Completeness, Header, chunk};
use super::{Icmp, IcmpError, Inner, Transport, Version, ipv4, ipv6, neighbour, transport};
use crate::checksum::Sum;
use crate::{DropReason, FlowKey, Protocol};

/// Bytes of the header that all messages have; an error's quotation follows.
pub(super) const HEADER_BYTES: usize = 8;

/// ICMP types (IANA "ICMP Type Numbers").
pub(super) mod v4 {
    pub(crate) const ECHO_REPLY: u8 = 0;
    pub(crate) const UNREACHABLE: u8 = 3;
    pub(crate) const PORT_UNREACHABLE: u8 = 3;
    pub(crate) const FRAGMENTATION_NEEDED: u8 = 4;
    pub(crate) const SOURCE_QUENCH: u8 = 4;
    pub(crate) const REDIRECT: u8 = 5;
    pub(crate) const ECHO_REQUEST: u8 = 8;
    pub(crate) const ROUTER_ADVERTISEMENT: u8 = 9;
    pub(crate) const ROUTER_SOLICITATION: u8 = 10;
    pub(crate) const TIME_EXCEEDED: u8 = 11;
    pub(crate) const PARAMETER_PROBLEM: u8 = 12;
}

/// ICMPv6 types (IANA "ICMPv6 type Numbers").
pub(super) mod v6 {
    pub(crate) const UNREACHABLE: u8 = 1;
    pub(crate) const PORT_UNREACHABLE: u8 = 4;
    pub(crate) const PACKET_TOO_BIG: u8 = 2;
    pub(crate) const TIME_EXCEEDED: u8 = 3;
    pub(crate) const PARAMETER_PROBLEM: u8 = 4;
    pub(crate) const LAST_ERROR: u8 = 127;
    pub(crate) const ECHO_REQUEST: u8 = 128;
    pub(crate) const ECHO_REPLY: u8 = 129;
    pub(crate) const LISTENER_QUERY: u8 = 130;
    pub(crate) const LISTENER_DONE: u8 = 132;
    pub(crate) const ROUTER_SOLICITATION: u8 = 133;
    pub(crate) const ROUTER_ADVERTISEMENT: u8 = 134;
    pub(crate) const NEIGHBOUR_SOLICITATION: u8 = 135;
    pub(crate) const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    pub(crate) const REDIRECT: u8 = 137;
    pub(crate) const ROUTER_RENUMBERING: u8 = 138;
    pub(crate) const INVERSE_SOLICITATION: u8 = 141;
    pub(crate) const INVERSE_ADVERTISEMENT: u8 = 142;
    pub(crate) const LISTENER_REPORT_2: u8 = 143;
    pub(crate) const CERTIFICATION_SOLICITATION: u8 = 148;
    pub(crate) const CERTIFICATION_ADVERTISEMENT: u8 = 149;
    pub(crate) const ROUTER_DISCOVERY_LAST: u8 = 153;
}

/// The message behind `header`, which is not a later fragment.
pub(super) fn read(frame: &[u8], header: &Header) -> Result<Transport, DropReason> {
    let is_cut = header.end > frame.len();
    let message = &frame[header.transport_offset..header.end.min(frame.len())];
    let short = match is_cut {
        true => DropReason::MultiBuffer,
        false => transport::short(header),
    };
    let fixed = *chunk::<HEADER_BYTES>(message, 0).ok_or(short)?;
    let [icmp_type, code, _, _, i0, i1, s0, s1] = fixed;
    let identifier = u16::from_be_bytes([i0, i1]);
    let sequence = u16::from_be_bytes([s0, s1]);
    let icmp = match (kind(header.version, icmp_type), code) {
        // We act upon these and check their sums, for which all of them has to be here. None is
        // that long (RFC 1812, section 4.3.2.3; RFC 4443, section 2.4).
        (Type::Neighbour | Type::Error, _) if is_cut => return Err(DropReason::MultiBuffer),
        (Type::Neighbour, _) => return neighbour::read(header, message).map(Transport::Neighbour),
        (Type::EchoRequest, 0) => Icmp::EchoRequest {
            identifier,
            sequence,
        },
        (Type::EchoReply, 0) => Icmp::EchoReply {
            identifier,
            sequence,
        },
        (Type::NotForwarded, _) => Icmp::NotForwarded { icmp_type, code },
        (Type::Error, _) => Icmp::Error(error(frame, header, message, fixed)?),
        (Type::EchoRequest | Type::EchoReply | Type::Other, _) => Icmp::Other { icmp_type, code },
    };
    Ok(Transport::Icmp(icmp))
}

enum Type {
    EchoRequest,
    EchoReply,
    Error,
    Neighbour,
    NotForwarded,
    Other,
}

fn kind(version: Version, icmp_type: u8) -> Type {
    match version {
        Version::V4 => match icmp_type {
            v4::ECHO_REQUEST => Type::EchoRequest,
            v4::ECHO_REPLY => Type::EchoReply,
            v4::UNREACHABLE | v4::TIME_EXCEEDED | v4::PARAMETER_PROBLEM => Type::Error,
            v4::SOURCE_QUENCH
            | v4::REDIRECT
            | v4::ROUTER_ADVERTISEMENT
            | v4::ROUTER_SOLICITATION => Type::NotForwarded,
            _ => Type::Other,
        },
        Version::V6 => match icmp_type {
            v6::ECHO_REQUEST => Type::EchoRequest,
            v6::ECHO_REPLY => Type::EchoReply,
            v6::UNREACHABLE..=v6::PARAMETER_PROBLEM => Type::Error,
            v6::ROUTER_SOLICITATION..=v6::REDIRECT => Type::Neighbour,
            // Errors that nobody has defined, what stays on a link, and what configures routers.
            0..=v6::LAST_ERROR
            | v6::LISTENER_QUERY..=v6::LISTENER_DONE
            | v6::ROUTER_RENUMBERING
            | v6::INVERSE_SOLICITATION
            | v6::INVERSE_ADVERTISEMENT
            | v6::LISTENER_REPORT_2
            | v6::CERTIFICATION_SOLICITATION..=v6::CERTIFICATION_ADVERTISEMENT
            // Multicast router discovery, RFC 4286: 151 to 153.
            | 151..=v6::ROUTER_DISCOVERY_LAST => Type::NotForwarded,
            _ => Type::Other,
        },
    }
}

/// Verifies the checksum of a whole message.
pub(super) fn verify(header: &Header, message: &[u8]) -> Result<(), DropReason> {
    let sum = match header.version {
        Version::V4 => Sum::ZERO,
        Version::V6 => Sum::pseudo_header(
            header.source,
            header.destination,
            Protocol::ICMPV6,
            message.len() as u32,
        ),
    };
    if sum.bytes(message).checksum() != 0 {
        return Err(DropReason::BadTransportChecksum);
    }
    Ok(())
}

fn error(
    frame: &[u8],
    header: &Header,
    message: &[u8],
    fixed: [u8; HEADER_BYTES],
) -> Result<IcmpError, DropReason> {
    // No link is so narrow that an error has to be fragmented (RFC 1812, section 4.3.2.3).
    if header.fragment.is_some() {
        return Err(DropReason::Fragment);
    }
    verify(header, message)?;
    let [icmp_type, code, _, _, m0, m1, m2, m3] = fixed;
    let mtu = match (header.version, icmp_type, code) {
        (Version::V4, v4::UNREACHABLE, v4::FRAGMENTATION_NEEDED) => {
            Some(u32::from(u16::from_be_bytes([m2, m3])))
        }
        (Version::V6, v6::PACKET_TOO_BIG, _) => Some(u32::from_be_bytes([m0, m1, m2, m3])),
        _ => None,
    };
    let at = header.transport_offset + HEADER_BYTES;
    let inner = quoted(&frame[..header.end], at, header.version)?;
    Ok(IcmpError {
        icmp_type,
        code,
        mtu,
        inner,
    })
}

/// The packet that an error quotes, of the error's own version, from `at` on.
fn quoted(frame: &[u8], at: usize, version: Version) -> Result<Inner, DropReason> {
    let inner = match version {
        Version::V4 => ipv4::header(frame, at, Completeness::Quoted),
        Version::V6 => ipv6::header(frame, at, Completeness::Quoted),
    }
    .map_err(|_| DropReason::MalformedTransport)?;
    ip::check_addresses(&inner)?;
    // A later fragment names no flow, and an error about it no connection.
    if inner.fragment.is_some_and(|fragment| fragment.offset != 0) {
        return Err(DropReason::UnrelatedIcmpError);
    }
    let is_icmp = matches!(
        (inner.protocol, version),
        (Protocol::ICMP, Version::V4) | (Protocol::ICMPV6, Version::V6)
    );
    // RFC 792 promises 8 bytes behind the header: ports, and what follows them. Other protocols'
    // are not read, and may have less.
    let [a, b, c, d, e, f, g, h] = match frame[inner.transport_offset..inner.end].first_chunk() {
        Some(first) => *first,
        None if is_icmp || inner.protocol.has_ports() => {
            return Err(DropReason::MalformedTransport);
        }
        None => [0; 8],
    };
    let second_word = u32::from_be_bytes([e, f, g, h]);
    let (ports, echo_request) = if inner.protocol.has_ports() {
        let ports = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        (ports, false)
    } else if is_icmp {
        let identifier = u16::from_be_bytes([e, f]);
        match kind(version, a) {
            Type::EchoRequest if b == 0 => (FlowKey::echo_ports(identifier, true), true),
            Type::EchoReply if b == 0 => (FlowKey::echo_ports(identifier, false), false),
            // Nobody may send errors about errors, nor about what stays on its link.
            Type::Error | Type::Neighbour | Type::NotForwarded => {
                return Err(DropReason::UnrelatedIcmpError);
            }
            Type::EchoRequest | Type::EchoReply | Type::Other => ((0, 0), false),
        }
    } else {
        ((0, 0), false)
    };
    Ok(Inner {
        key: FlowKey {
            source: inner.source,
            destination: inner.destination,
            source_port: ports.0,
            destination_port: ports.1,
            protocol: inner.protocol,
        },
        tcp_sequence: (inner.protocol == Protocol::TCP).then_some(second_word),
        echo_request,
        verification_tag: (inner.protocol == Protocol::SCTP).then_some(second_word),
        offset: at as u16,
        transport_offset: inner.transport_offset as u16,
    })
}
