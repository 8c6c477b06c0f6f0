//! Answers written over the frame that asks for them.
//!
//! Every function takes the whole window of the chunk, of which the first `packet.length` bytes
//! are the received frame, not yet rewritten, and returns the length of the answer, which stands
//! at the window's start and has complete checksums. On an error the frame is unchanged.

use super::icmp::{self, v4, v6};
use super::{
    ArpOperation, ETHERNET_BYTES, Icmp, Ip, Kind, NeighbourMessage, Packet, TcpFlags, Transport,
    Version,
};
use crate::checksum::Sum;
use crate::{Address, DropReason, Mac, Protocol};

/// Bytes of an ARP reply with its Ethernet header.
const ARP_REPLY_BYTES: usize = ETHERNET_BYTES + 28;

/// Answers an ARP request: `arp.target` is at `mac`. Whether the target is ours is the caller's to
/// know.
///
/// # Errors
///
/// [`DropReason::NeighbourNotOurs`] for what is never answered: replies, probes and gratuitous
/// ARP (RFC 5227). [`DropReason::Internal`] if `packet` does not describe `bytes`.
pub fn arp_reply(bytes: &mut [u8], packet: &Packet, mac: Mac) -> Result<usize, DropReason> {
    let Kind::Arp(arp) = packet.kind else {
        return Err(DropReason::Internal);
    };
    if arp.operation != ArpOperation::Request || arp.is_probe() || arp.is_gratuitous() {
        return Err(DropReason::NeighbourNotOurs);
    }
    let frame = bytes
        .get_mut(..ARP_REPLY_BYTES)
        .ok_or(DropReason::Internal)?;
    let (sender, target) = (arp.sender.0 as u32, arp.target.0 as u32);
    ethernet(frame, mac, arp.sender_mac);
    let message = &mut frame[ETHERNET_BYTES..];
    // Hardware type, protocol type and lengths stay; the operation becomes a reply.
    message[6..8].copy_from_slice(&[0, 2]);
    message[8..14].copy_from_slice(&mac.0);
    message[14..18].copy_from_slice(&target.to_be_bytes());
    message[18..24].copy_from_slice(&arp.sender_mac.0);
    message[24..28].copy_from_slice(&sender.to_be_bytes());
    Ok(ARP_REPLY_BYTES)
}

/// Bytes of IPv6's fixed header.
const IPV6_BYTES: usize = 40;
/// Bytes of IPv4's header without options.
const IPV4_BYTES: usize = 20;
/// A neighbour advertisement with one link-layer address option.
const ADVERTISEMENT_BYTES: usize = 24 + 8;

/// Router, solicited, override (RFC 4861, section 4.4).
const ADVERTISEMENT_FLAGS: u8 = 0x80 | 0x40 | 0x20;

/// Answers a neighbour solicitation: the target is at `mac`, and it is a router (RFC 4861, section
/// 7.2.4). Whether the target is ours is the caller's to know.
///
/// # Errors
///
/// [`DropReason::NeighbourNotOurs`] for what is never answered: probes for duplicates (source
/// `::`, RFC 4862) and other messages. [`DropReason::NoFrame`] if the window is too small.
/// [`DropReason::Internal`] if `packet` is no neighbour discovery.
pub fn neighbour_advertisement(
    bytes: &mut [u8],
    packet: &Packet,
    mac: Mac,
) -> Result<usize, DropReason> {
    let Some((ip, neighbour)) = packet.ip().and_then(|ip| match ip.transport {
        Transport::Neighbour(neighbour) => Some((ip, neighbour)),
        _ => None,
    }) else {
        return Err(DropReason::Internal);
    };
    if neighbour.message != NeighbourMessage::Solicitation || ip.source.is_unspecified() {
        return Err(DropReason::NeighbourNotOurs);
    }
    let length = ETHERNET_BYTES + IPV6_BYTES + ADVERTISEMENT_BYTES;
    let frame = bytes.get_mut(..length).ok_or(DropReason::NoFrame)?;
    let receiver = neighbour.link_address.unwrap_or(packet.ethernet.source);
    ethernet(frame, mac, receiver);
    ipv6_header(frame, ADVERTISEMENT_BYTES, 255, neighbour.target, ip.source);
    let message = &mut frame[ETHERNET_BYTES + IPV6_BYTES..];
    message[..8].copy_from_slice(&[
        v6::NEIGHBOUR_ADVERTISEMENT,
        0,
        0,
        0,
        ADVERTISEMENT_FLAGS,
        0,
        0,
        0,
    ]);
    message[8..24].copy_from_slice(&neighbour.target.0.to_be_bytes());
    // Target link-layer address, one unit of 8 bytes.
    message[24..26].copy_from_slice(&[2, 1]);
    message[26..].copy_from_slice(&mac.0);
    seal_icmpv6(message, neighbour.target, ip.source);
    Ok(length)
}

/// Turns the packet into "time exceeded in transit" from `router` at `mac`, sent back to the
/// sender.
///
/// # Errors
///
/// [`DropReason::TtlExceeded`] where no error may be sent (RFC 1122, section 3.2.2; RFC 4443,
/// section 2.4): about ICMP errors, later fragments, multicast, or `router` of the other family.
pub fn time_exceeded(
    bytes: &mut [u8],
    packet: &Packet,
    router: Address,
    mac: Mac,
) -> Result<usize, DropReason> {
    let sort = Sort {
        v4: (v4::TIME_EXCEEDED, 0),
        v6: (v6::TIME_EXCEEDED, 0),
        parameter: 0,
    };
    error(bytes, packet, &sort, router, mac).ok_or(DropReason::TtlExceeded)
}

/// Turns the packet into "fragmentation needed" (RFC 1191) or "packet too big" (RFC 4443) for
/// `mtu` bytes from `router` at `mac`, sent back to the sender.
///
/// # Errors
///
/// [`DropReason::TooBig`] where no error may be sent, as in [`time_exceeded`]; also if IPv4 may
/// fragment the packet (no DF), since the message would not be true.
pub fn packet_too_big(
    bytes: &mut [u8],
    packet: &Packet,
    mtu: u32,
    router: Address,
    mac: Mac,
) -> Result<usize, DropReason> {
    let may_fragment = packet.ip().is_none_or(|ip| !ip.dont_fragment);
    // IPv4's field has 16 bits; no IPv4 packet is larger.
    let parameter = if router.is_v4() {
        mtu.min(u32::from(u16::MAX))
    } else {
        mtu
    };
    let sort = Sort {
        v4: (v4::UNREACHABLE, v4::FRAGMENTATION_NEEDED),
        v6: (v6::PACKET_TOO_BIG, 0),
        parameter,
    };
    if may_fragment {
        return Err(DropReason::TooBig);
    }
    error(bytes, packet, &sort, router, mac).ok_or(DropReason::TooBig)
}

/// Turns the packet into "port unreachable" from `router` at `mac`, sent back to the sender (RFC 1122,
/// section 4.1.3.1).
///
/// # Errors
///
/// [`DropReason::ServiceNoBackend`] where no error may be sent, as in [`time_exceeded`].
pub fn port_unreachable(
    bytes: &mut [u8],
    packet: &Packet,
    router: Address,
    mac: Mac,
) -> Result<usize, DropReason> {
    let sort = Sort {
        v4: (v4::UNREACHABLE, v4::PORT_UNREACHABLE),
        v6: (v6::UNREACHABLE, v6::PORT_UNREACHABLE),
        parameter: 0,
    };
    error(bytes, packet, &sort, router, mac).ok_or(DropReason::ServiceNoBackend)
}

/// Bytes of a TCP header without options.
const TCP_BYTES: usize = 20;

/// Turns a TCP segment into the reset that its receiver would send if nobody listened there (RFC 9293,
/// section 3.10.7.1), sent back by the port at `mac`.
///
/// # Errors
///
/// [`DropReason::ServiceNoBackend`] for a reset, which is never answered. [`DropReason::Internal`] if
/// `packet` is no TCP segment, [`DropReason::NoFrame`] if the window is too small.
pub fn tcp_reset(bytes: &mut [u8], packet: &Packet, mac: Mac) -> Result<usize, DropReason> {
    let ip = packet.ip().ok_or(DropReason::Internal)?;
    let Transport::Tcp(tcp) = ip.transport else {
        return Err(DropReason::Internal);
    };
    if tcp.flags.has(TcpFlags::RST) {
        return Err(DropReason::ServiceNoBackend);
    }
    let header = match ip.version {
        Version::V4 => IPV4_BYTES,
        Version::V6 => IPV6_BYTES,
    };
    let length = ETHERNET_BYTES + header + TCP_BYTES;
    let frame = bytes.get_mut(..length).ok_or(DropReason::NoFrame)?;
    let (source, destination) = (ip.destination, ip.source);
    ethernet(frame, mac, packet.ethernet.source);
    match ip.version {
        Version::V4 => {
            ipv4_header(frame, TCP_BYTES, source, destination);
            finish_ipv4(frame, Protocol::TCP, 0);
        }
        Version::V6 => {
            ipv6_header(frame, TCP_BYTES, HOP_LIMIT, source, destination);
            frame[ETHERNET_BYTES + 6] = Protocol::TCP.0;
        }
    }
    let (sequence, acknowledgement, flags) = if tcp.flags.has(TcpFlags::ACK) {
        (tcp.acknowledgement, 0, TcpFlags::RST)
    } else {
        let behind = tcp.sequence.wrapping_add(tcp.sequence_length());
        (0, behind, TcpFlags::RST | TcpFlags::ACK)
    };
    let segment = &mut frame[ETHERNET_BYTES + header..];
    segment[..2].copy_from_slice(&tcp.destination_port.to_be_bytes());
    segment[2..4].copy_from_slice(&tcp.source_port.to_be_bytes());
    segment[4..8].copy_from_slice(&sequence.to_be_bytes());
    segment[8..12].copy_from_slice(&acknowledgement.to_be_bytes());
    segment[12..].copy_from_slice(&[5 << 4, flags, 0, 0, 0, 0, 0, 0]);
    let sum = Sum::pseudo_header(source, destination, Protocol::TCP, TCP_BYTES as u32);
    let checksum = sum.bytes(segment).checksum();
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    Ok(length)
}

/// An error's type and code in either version, and the 32 bits behind its checksum.
struct Sort {
    v4: (u8, u8),
    v6: (u8, u8),
    parameter: u32,
}

/// The largest error about an IPv4 packet (RFC 1812, section 4.3.2.3), in bytes of IP.
const LARGEST_V4: usize = 576;
/// The largest error about an IPv6 packet: IPv6's least MTU (RFC 4443, section 2.4).
const LARGEST_V6: usize = 1280;

/// Precedence "internetwork control" (RFC 1812, section 4.3.2.5).
const CONTROL_CLASS: u8 = 0xc0;
const HOP_LIMIT: u8 = 64;

/// Whether an error may be sent about the packet.
fn may_answer(packet: &Packet, ip: &Ip) -> bool {
    let is_notice = match ip.transport {
        Transport::Icmp(Icmp::Error(_) | Icmp::NotForwarded { .. }) => true,
        Transport::Neighbour(_) | Transport::Unread => true,
        Transport::Icmp(_) | Transport::Other => false,
        Transport::Tcp(_) | Transport::Udp(_) | Transport::Sctp(_) => false,
    };
    !is_notice
        && !ip.is_multicast()
        && !packet.ethernet.destination.is_group()
        && !ip.source.is_unspecified()
}

fn error(
    bytes: &mut [u8],
    packet: &Packet,
    sort: &Sort,
    router: Address,
    mac: Mac,
) -> Option<usize> {
    let ip = packet.ip()?;
    if !may_answer(packet, ip) || router.is_v4() != (ip.version == Version::V4) {
        return None;
    }
    let (header, largest, (icmp_type, code)) = match ip.version {
        Version::V4 => (IPV4_BYTES, LARGEST_V4, sort.v4),
        Version::V6 => (IPV6_BYTES, LARGEST_V6, sort.v6),
    };
    // The quotation moves behind the new headers: no more of it than the window has room for, but
    // its headers and 8 bytes more, or it tells the sender nothing.
    // A packet in several buffers is longer than its first, which holds more than is quoted.
    let here = bytes.len().min(packet.length as usize);
    let received = here.checked_sub(ETHERNET_BYTES)?;
    let message_at = ETHERNET_BYTES + header;
    let quotation_at = message_at + icmp::HEADER_BYTES;
    let quotation = received
        .min(largest - header - icmp::HEADER_BYTES)
        .min(bytes.len().checked_sub(quotation_at)?);
    let least = usize::from(ip.transport_offset) - ETHERNET_BYTES + 8;
    if quotation < least.min(received) {
        return None;
    }
    bytes.copy_within(ETHERNET_BYTES..ETHERNET_BYTES + quotation, quotation_at);
    let length = quotation_at + quotation;
    let frame = bytes.get_mut(..length)?;
    ethernet(frame, mac, packet.ethernet.source);
    let message_length = icmp::HEADER_BYTES + quotation;
    match ip.version {
        Version::V4 => ipv4_header(frame, message_length, router, ip.source),
        Version::V6 => ipv6_header(frame, message_length, HOP_LIMIT, router, ip.source),
    }
    let message = &mut frame[message_at..];
    message[..4].copy_from_slice(&[icmp_type, code, 0, 0]);
    message[4..8].copy_from_slice(&sort.parameter.to_be_bytes());
    match ip.version {
        Version::V4 => {
            let checksum = Sum::ZERO.bytes(message).checksum();
            message[2..4].copy_from_slice(&checksum.to_be_bytes());
        }
        Version::V6 => seal_icmpv6(message, router, ip.source),
    }
    Some(length)
}

/// Writes the addresses of an Ethernet header; the EtherType stays the request's.
fn ethernet(frame: &mut [u8], source: Mac, destination: Mac) {
    frame[..6].copy_from_slice(&destination.0);
    frame[6..12].copy_from_slice(&source.0);
}

/// Writes the header of an ICMP packet with `payload` bytes: DF, so that identification 0 is right
/// (RFC 6864).
fn ipv4_header(frame: &mut [u8], payload: usize, source: Address, destination: Address) {
    let header = &mut frame[ETHERNET_BYTES..ETHERNET_BYTES + IPV4_BYTES];
    let total = (IPV4_BYTES + payload) as u16;
    header[..2].copy_from_slice(&[0x45, CONTROL_CLASS]);
    header[2..4].copy_from_slice(&total.to_be_bytes());
    header[4..8].copy_from_slice(&[0, 0, 0x40, 0]);
    header[8..12].copy_from_slice(&[HOP_LIMIT, Protocol::ICMP.0, 0, 0]);
    header[12..16].copy_from_slice(&(source.0 as u32).to_be_bytes());
    header[16..20].copy_from_slice(&(destination.0 as u32).to_be_bytes());
    finish_ipv4(frame, Protocol::ICMP, CONTROL_CLASS);
}

/// Writes protocol and class into an IPv4 header, and its checksum.
fn finish_ipv4(frame: &mut [u8], protocol: Protocol, class: u8) {
    let header = &mut frame[ETHERNET_BYTES..ETHERNET_BYTES + IPV4_BYTES];
    (header[1], header[9]) = (class, protocol.0);
    header[10..12].copy_from_slice(&[0, 0]);
    let checksum = Sum::ZERO.bytes(header).checksum();
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// Writes the header of an ICMPv6 packet with `payload` bytes.
fn ipv6_header(
    frame: &mut [u8],
    payload: usize,
    hop_limit: u8,
    source: Address,
    destination: Address,
) {
    let header = &mut frame[ETHERNET_BYTES..ETHERNET_BYTES + IPV6_BYTES];
    header[..4].copy_from_slice(&[0x60, 0, 0, 0]);
    header[4..6].copy_from_slice(&(payload as u16).to_be_bytes());
    header[6..8].copy_from_slice(&[Protocol::ICMPV6.0, hop_limit]);
    header[8..24].copy_from_slice(&source.0.to_be_bytes());
    header[24..40].copy_from_slice(&destination.0.to_be_bytes());
}

/// Writes the checksum of an ICMPv6 message whose field is 0.
fn seal_icmpv6(message: &mut [u8], source: Address, destination: Address) {
    let length = message.len() as u32;
    let sum = Sum::pseudo_header(source, destination, Protocol::ICMPV6, length);
    let checksum = sum.bytes(message).checksum();
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
}
