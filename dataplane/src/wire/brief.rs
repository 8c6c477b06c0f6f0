//! The parser's short way, for what nearly every packet is: TCP or UDP that opens nothing special,
//! right behind an IPv4 or IPv6 header without options.
//!
//! [`brief`] says of such a packet what [`parse`](super::parse) says, and of all others nothing: then
//! the long way has to be taken, which knows the reason for a drop, too. It is shorter because the
//! headers lie at fixed places, which one look at the length makes sure of, and because less is told.
//! Tests hold the two to each other.

use super::{Checksum, ETHERNET_BYTES, Offload, Tcp, TcpFlags, TxChecksum, Version};
use crate::checksum::Sum;
use crate::{Address, FlowKey, Mac, Protocol};

/// What the short way says of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Brief {
    /// The Ethernet addresses.
    pub ethernet: super::Ethernet,
    /// IPv4 or IPv6.
    pub version: Version,
    /// Bytes from the Ethernet header to the packet's end.
    pub length: u32,
    /// TTL or hop limit as received.
    pub hop_limit: u8,
    /// State of the transport checksum.
    pub checksum: Checksum,
    /// The flow.
    pub key: FlowKey,
    /// The TCP header, without the options that only a SYN has; none for UDP.
    pub tcp: Option<Tcp>,
}

const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const IPV4_TRANSPORT: usize = ETHERNET_BYTES + IPV4_BYTES;
const IPV6_TRANSPORT: usize = ETHERNET_BYTES + IPV6_BYTES;
const UDP_BYTES: usize = 8;
const TCP_BYTES: usize = 20;

/// By the low six bits of TCP's flags, one bit each: the combinations that stacks send behind a
/// SYN, URG left out.
const FLAGS: u64 = {
    let mut flags = 0;
    let ordinary = [
        TcpFlags::ACK,
        TcpFlags::RST,
        TcpFlags::RST | TcpFlags::ACK,
        TcpFlags::FIN | TcpFlags::ACK,
    ];
    let mut i = 0;
    while i < ordinary.len() {
        flags |= 1 << ordinary[i] | 1 << (ordinary[i] | TcpFlags::PSH);
        i += 1;
    }
    flags
};

/// What [`parse`](super::parse) says of the frame in `bytes`, if it is of the ordinary kind and to
/// be accepted; none says nothing about the frame.
#[inline(always)]
pub fn brief(bytes: &[u8], offload: Offload) -> Option<Brief> {
    let head = bytes.first_chunk::<{ IPV4_TRANSPORT + UDP_BYTES }>()?;
    let ethernet = super::Ethernet {
        destination: Mac([head[0], head[1], head[2], head[3], head[4], head[5]]),
        source: Mac([head[6], head[7], head[8], head[9], head[10], head[11]]),
    };
    if ethernet.source.is_group() || ethernet.source == Mac([0; 6]) {
        return None;
    }
    match [head[12], head[13], head[14]] {
        [0x08, 0x00, 0x45] => ipv4(bytes, head, ethernet, offload),
        [0x86, 0xdd, 0x60..=0x6f] => ipv6(bytes, ethernet, offload),
        _ => None,
    }
}

#[inline(always)]
fn ipv4(
    bytes: &[u8],
    head: &[u8; IPV4_TRANSPORT + UDP_BYTES],
    ethernet: super::Ethernet,
    offload: Offload,
) -> Option<Brief> {
    let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let length = ETHERNET_BYTES + (word(14) & 0xffff) as usize;
    // Flags and fragment offset, but for DF.
    let fragment = word(18) & 0xbfff;
    let (source, destination) = (word(26), word(30));
    // In whatever byte order: a sum that is all ones is so in both (RFC 1071, section 2B).
    let native =
        |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let sum = [14, 18, 22, 26, 30]
        .into_iter()
        .fold(Sum::ZERO, |sum, at| sum.word32(native(at)));
    let ordinary = (fragment == 0)
        & is_ordinary_v4(source)
        & is_ordinary_v4(destination)
        & sum.folds_to(0xffff)
        & (length <= bytes.len());
    if !ordinary {
        return None;
    }
    let protocol = Protocol(head[23]);
    let length_of_transport = length.checked_sub(IPV4_TRANSPORT)?;
    let pseudo = Sum::ZERO
        .word32(source)
        .word32(destination)
        .word32(u32::from(protocol.0))
        .word32(length_of_transport as u32);
    let packet = Ordinary {
        ethernet,
        version: Version::V4,
        length,
        hop_limit: head[22],
        source: Address::v4(source),
        destination: Address::v4(destination),
        pseudo,
        offload,
    };
    packet.transport(bytes.get(IPV4_TRANSPORT..length)?, protocol)
}

#[inline(always)]
fn ipv6(bytes: &[u8], ethernet: super::Ethernet, offload: Offload) -> Option<Brief> {
    let head = bytes.first_chunk::<IPV6_TRANSPORT>()?;
    let half = |at: usize| {
        let bytes = head[at..].first_chunk();
        bytes.map_or(0, |bytes| u64::from_be_bytes(*bytes))
    };
    let length = IPV6_TRANSPORT + usize::from(u16::from_be_bytes([head[18], head[19]]));
    let (source, destination) = ([half(22), half(30)], [half(38), half(46)]);
    let ordinary = is_ordinary_v6(source) & is_ordinary_v6(destination) & (length <= bytes.len());
    if !ordinary {
        return None;
    }
    let protocol = Protocol(head[20]);
    let address = |[high, low]: [u64; 2]| Address(u128::from(high) << 64 | u128::from(low));
    let words = |sum: Sum, [high, low]: [u64; 2]| {
        sum.word32((high >> 32) as u32)
            .word32(high as u32)
            .word32((low >> 32) as u32)
            .word32(low as u32)
    };
    let pseudo = words(words(Sum::ZERO, source), destination)
        .word32(u32::from(protocol.0))
        .word32((length - IPV6_TRANSPORT) as u32);
    let packet = Ordinary {
        ethernet,
        version: Version::V6,
        length,
        hop_limit: head[21],
        source: address(source),
        destination: address(destination),
        pseudo,
        offload,
    };
    packet.transport(bytes.get(IPV6_TRANSPORT..length)?, protocol)
}

/// Whether an IPv4 address is plain unicast: no "this network", loopback, link-local, multicast,
/// nor anything behind that.
#[inline(always)]
fn is_ordinary_v4(address: u32) -> bool {
    let first = address >> 24;
    (first.wrapping_sub(1) < 0xdf) & (first != 127) & (address >> 16 != 0xa9fe)
}

/// Whether an IPv6 address is plain unicast: global (`2000::/3`) or unique local (`fc00::/7`).
#[inline(always)]
fn is_ordinary_v6([high, _]: [u64; 2]) -> bool {
    (high >> 61 == 1) | (high >> 57 == 0xfc >> 1)
}

/// An IP packet of the ordinary kind.
struct Ordinary {
    ethernet: super::Ethernet,
    version: Version,
    length: usize,
    hop_limit: u8,
    source: Address,
    destination: Address,
    /// The pseudo-header's sum.
    pseudo: Sum,
    offload: Offload,
}

impl Ordinary {
    #[inline(always)]
    fn transport(&self, segment: &[u8], protocol: Protocol) -> Option<Brief> {
        match protocol {
            Protocol::TCP => self.tcp(segment),
            Protocol::UDP => self.udp(segment),
            _ => None,
        }
    }

    #[inline(always)]
    fn tcp(&self, segment: &[u8]) -> Option<Brief> {
        let h = segment.first_chunk::<TCP_BYTES>()?;
        let header_length = usize::from(h[12] >> 4) * 4;
        let flags = TcpFlags(h[13]);
        let ordinary = (header_length >= TCP_BYTES)
            & (header_length <= segment.len())
            & (FLAGS >> (flags.0 & 0x3f) & 1 != 0);
        if !ordinary {
            return None;
        }
        let tcp = Tcp::without_options(h, segment.len() - header_length);
        let checksum = self.checksum(u16::from_be_bytes([h[16], h[17]]));
        let ports = (tcp.source_port, tcp.destination_port);
        Some(self.brief(Protocol::TCP, ports, checksum, Some(tcp)))
    }

    #[inline(always)]
    fn udp(&self, segment: &[u8]) -> Option<Brief> {
        let h = segment.first_chunk::<UDP_BYTES>()?;
        if usize::from(u16::from_be_bytes([h[4], h[5]])) != segment.len() {
            return None;
        }
        let checksum = match u16::from_be_bytes([h[6], h[7]]) {
            0 => Checksum::Absent,
            field => self.checksum(field),
        };
        let ports = [[h[0], h[1]], [h[2], h[3]]].map(u16::from_be_bytes);
        Some(self.brief(Protocol::UDP, (ports[0], ports[1]), checksum, None))
    }

    #[inline(always)]
    fn checksum(&self, field: u16) -> Checksum {
        if (self.offload == Offload::Virtual) & self.pseudo.folds_to(field) {
            Checksum::Partial
        } else {
            Checksum::Complete
        }
    }

    #[inline(always)]
    fn brief(
        &self,
        protocol: Protocol,
        (source_port, destination_port): (u16, u16),
        checksum: Checksum,
        tcp: Option<Tcp>,
    ) -> Brief {
        Brief {
            ethernet: self.ethernet,
            version: self.version,
            length: self.length as u32,
            hop_limit: self.hop_limit,
            checksum,
            key: FlowKey {
                source: self.source,
                destination: self.destination,
                source_port,
                destination_port,
                protocol,
            },
            tcp,
        }
    }
}

impl Brief {
    /// Where the transport header starts, from the Ethernet header on.
    #[inline]
    pub fn transport_offset(&self) -> u16 {
        let offset = match self.version {
            Version::V4 => IPV4_TRANSPORT,
            Version::V6 => IPV6_TRANSPORT,
        };
        offset as u16
    }

    /// Bytes of the IP packet: what an MTU bounds.
    #[inline]
    pub fn packet_length(&self) -> u32 {
        self.length - ETHERNET_BYTES as u32
    }

    /// What the transmitting device must be told, if the checksum is Partial.
    #[inline]
    pub fn tx_checksum(&self) -> Option<TxChecksum> {
        (self.checksum == Checksum::Partial).then_some(TxChecksum {
            start: self.transport_offset(),
            offset: if self.tcp.is_some() { 16 } else { 6 },
        })
    }
}
