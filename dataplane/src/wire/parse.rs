//! The parser's entry: Ethernet and ARP.

use super::ip::{self, Completeness, Header};
use super::{Arp, ArpOperation, ETHERNET_BYTES, Ethernet, Ip, Kind, Offload, Packet};
use super::{ipv4, ipv6, transport};
use crate::{Address, DropReason, Mac};

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];

/// Describes the frame in `bytes`, from its Ethernet header on.
///
/// # Errors
///
/// As [`parse_split`].
pub fn parse(bytes: &[u8], offload: Offload) -> Result<Packet, DropReason> {
    parse_split(bytes, &[], offload)
}

/// Describes a frame that lies in several buffers: `bytes` holds its beginning, `rest` what
/// follows. Its headers have to be in the first, or it is [`DropReason::MultiBuffer`]; lengths are
/// those of the whole.
///
/// Transport checksums are left to the receiver, except for neighbour discovery and ICMP errors,
/// which we act upon ourselves.
///
/// # Errors
///
/// The reason for which the frame has to be dropped.
pub fn parse_split(bytes: &[u8], rest: &[&[u8]], offload: Offload) -> Result<Packet, DropReason> {
    let behind = rest.iter().map(|buffer| buffer.len()).sum();
    let whole = Completeness::Whole { behind };
    let Some([d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, e0, e1]) =
        bytes.first_chunk::<ETHERNET_BYTES>()
    else {
        return Err(whole.cut(DropReason::Truncated));
    };
    let ethernet = Ethernet {
        destination: Mac([*d0, *d1, *d2, *d3, *d4, *d5]),
        source: Mac([*s0, *s1, *s2, *s3, *s4, *s5]),
    };
    let header = match [*e0, *e1] {
        ETHERTYPE_IPV4 => ipv4::header(bytes, ETHERNET_BYTES, whole)?,
        ETHERTYPE_IPV6 => ipv6::header(bytes, ETHERNET_BYTES, whole)?,
        ETHERTYPE_ARP => {
            check_station(ethernet.source, DropReason::MartianAddress)?;
            return arp(bytes, ethernet, whole);
        }
        _ => return Err(DropReason::UnknownEthertype),
    };
    check_station(ethernet.source, DropReason::MartianAddress)?;
    ip::check_addresses(&header)?;
    let (transport, checksum) = transport::read(bytes, rest, &header, offload)?;
    Ok(Packet {
        ethernet,
        length: header.end as u32,
        kind: Kind::Ip(describe(&header, transport, checksum)),
    })
}

fn describe(header: &Header, transport: super::Transport, checksum: super::Checksum) -> Ip {
    Ip {
        version: header.version,
        source: header.source,
        destination: header.destination,
        hop_limit: header.hop_limit,
        traffic_class: header.traffic_class,
        dont_fragment: header.dont_fragment,
        protocol: header.protocol,
        transport_offset: header.transport_offset as u16,
        transport_length: (header.end - header.transport_offset) as u32,
        fragment: header.fragment,
        checksum,
        transport,
    }
}

/// A sender's Ethernet address is one station's: no group, not all zeros.
fn check_station(mac: Mac, otherwise: DropReason) -> Result<(), DropReason> {
    if mac.is_group() || mac == Mac([0; 6]) {
        return Err(otherwise);
    }
    Ok(())
}

/// ARP for IPv4 over Ethernet is 28 bytes: hardware type 1, protocol type 0x0800, lengths 6 and 4.
const ARP_BYTES: usize = 28;
const ARP_PREFIX: [u8; 6] = [0, 1, 0x08, 0x00, 6, 4];

fn arp(bytes: &[u8], ethernet: Ethernet, completeness: Completeness) -> Result<Packet, DropReason> {
    let Some(message) = bytes[ETHERNET_BYTES..].first_chunk::<ARP_BYTES>() else {
        return Err(completeness.cut(DropReason::Truncated));
    };
    let (prefix, body) = message.split_at(ARP_PREFIX.len());
    if prefix != ARP_PREFIX {
        return Err(DropReason::MalformedArp);
    }
    let operation = match body {
        [0, 1, ..] => ArpOperation::Request,
        [0, 2, ..] => ArpOperation::Reply,
        _ => return Err(DropReason::MalformedArp),
    };
    let mac = |at: usize| {
        let m = message;
        Mac([m[at], m[at + 1], m[at + 2], m[at + 3], m[at + 4], m[at + 5]])
    };
    let address = |at: usize| {
        let m = message;
        Address::v4(u32::from_be_bytes([m[at], m[at + 1], m[at + 2], m[at + 3]]))
    };
    let arp = Arp {
        operation,
        sender_mac: mac(8),
        sender: address(14),
        target_mac: mac(18),
        target: address(24),
    };
    check_station(arp.sender_mac, DropReason::MalformedArp)?;
    let impossible = |ip: Address| ip.is_multicast() || ip.is_broadcast() || ip.is_loopback();
    // Only a probe has no sender, and only its answer no target.
    let nobody = match arp.operation {
        ArpOperation::Request => arp.target.is_unspecified(),
        ArpOperation::Reply => arp.sender.is_unspecified(),
    };
    if impossible(arp.sender) || impossible(arp.target) || nobody {
        return Err(DropReason::MalformedArp);
    }
    Ok(Packet {
        ethernet,
        length: (ETHERNET_BYTES + ARP_BYTES) as u32,
        kind: Kind::Arp(arp),
    })
}
