//! What the parser says of a packet.

use crate::{Address, FlowKey, Mac, Protocol};

/// Whether the sender may have left transport checksums to a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offload {
    /// A virtual port (veth): the packet never crossed a wire, so its checksum may be unfinished.
    Virtual,
    /// A wire: what arrives carries its final checksum, right or wrong.
    Wire,
}

/// The state of a transport checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checksum {
    /// Final: right or wrong, it is the receiver's to judge.
    Complete,
    /// TCP or UDP left to a device: the field holds the folded sum of the pseudo-header
    /// (Linux's `CHECKSUM_PARTIAL`), so address rewrites add to it uncomplemented.
    Partial,
    /// The field is 0: UDP that does without, or SCTP whose CRC32c was left to a device. A
    /// protocol without a transport checksum known to us is `Complete`, not `Absent`.
    Absent,
}

/// A frame's description. Offsets count from the first byte of the Ethernet header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// The Ethernet addresses.
    pub ethernet: Ethernet,
    /// Bytes from the Ethernet header to the packet's end; Ethernet padding behind it is cut.
    pub length: u32,
    /// What the frame carries.
    pub kind: Kind,
}

/// The addresses of an Ethernet header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ethernet {
    /// Receiver; may be a group.
    pub destination: Mac,
    /// Sender; never a group nor all zeros.
    pub source: Mac,
}

/// What a frame carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// ARP for IPv4 over Ethernet, RFC 826.
    Arp(Arp),
    /// IPv4 or IPv6, neighbour discovery included.
    Ip(Ip),
}

/// Request or reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ArpOperation {
    /// Who has the target address?
    Request,
    /// The sender has its address.
    Reply,
}

/// An ARP packet for IPv4 over Ethernet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arp {
    /// Request or reply.
    pub operation: ArpOperation,
    /// The sender's Ethernet address as ARP states it: the source check compares it too.
    pub sender_mac: Mac,
    /// The sender's IPv4 address; 0.0.0.0 in a probe (RFC 5227).
    pub sender: Address,
    /// The target's Ethernet address; arbitrary in a request.
    pub target_mac: Mac,
    /// The target's IPv4 address.
    pub target: Address,
}

impl Arp {
    /// A probe for a duplicate of `target` (RFC 5227, section 2.1.1): never answered, or nobody
    /// behind this port could take an address for its own.
    pub fn is_probe(&self) -> bool {
        self.operation == ArpOperation::Request && self.sender == Address::v4(0)
    }

    /// An announcement of the sender's own address (gratuitous ARP, RFC 5227, section 2.3).
    pub fn is_gratuitous(&self) -> bool {
        self.sender == self.target
    }
}

/// An IP version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// RFC 791.
    V4,
    /// RFC 8200.
    V6,
}

/// An IP packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ip {
    /// IPv4 or IPv6.
    pub version: Version,
    /// Sender: unicast, except that ICMPv6 to a multicast group may come from `::`.
    pub source: Address,
    /// Receiver: may be multicast or broadcast ([`Ip::is_multicast`]).
    pub destination: Address,
    /// TTL or hop limit as received.
    pub hop_limit: u8,
    /// Type of service or traffic class.
    pub traffic_class: u8,
    /// Routers may not fragment it: IPv4's DF flag, always so in IPv6.
    pub dont_fragment: bool,
    /// The protocol behind all extension headers; in a fragment that is not the first, the
    /// fragment header's next header.
    pub protocol: Protocol,
    /// Where the transport header starts.
    pub transport_offset: u16,
    /// Bytes from there to the packet's end.
    pub transport_length: u32,
    /// The fragment's place, if it is one.
    pub fragment: Option<Fragment>,
    /// State of the transport checksum.
    pub checksum: Checksum,
    /// The transport header.
    pub transport: Transport,
}

/// A fragment's place in its packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// Identification: 16 bits in IPv4.
    pub identification: u32,
    /// Bytes of the packet's fragmentable part before this one: a multiple of 8.
    pub offset: u16,
    /// Bytes of the fragmentable part in this one: at least 1, and a multiple of 8 if more follow.
    pub length: u32,
    /// Whether more follow.
    pub more: bool,
}

/// A transport header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// TCP, RFC 9293.
    Tcp(Tcp),
    /// UDP, RFC 768.
    Udp(Udp),
    /// SCTP, RFC 9260.
    Sctp(Sctp),
    /// ICMP, RFC 792, and ICMPv6, RFC 4443, but for neighbour discovery.
    Icmp(Icmp),
    /// Neighbour discovery, RFC 4861: validated, never forwarded.
    Neighbour(Neighbour),
    /// Any other protocol: not read, no ports.
    Other,
    /// A fragment that is not the first: there is no transport header in it.
    Unread,
}

/// The flags of a TCP header, in its bit order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// FIN.
    pub const FIN: u8 = 0x01;
    /// SYN.
    pub const SYN: u8 = 0x02;
    /// RST.
    pub const RST: u8 = 0x04;
    /// PSH.
    pub const PSH: u8 = 0x08;
    /// ACK.
    pub const ACK: u8 = 0x10;
    /// URG.
    pub const URG: u8 = 0x20;
    /// ECE.
    pub const ECE: u8 = 0x40;
    /// CWR.
    pub const CWR: u8 = 0x80;

    /// Whether all of `flags` are set.
    pub const fn has(self, flags: u8) -> bool {
        self.0 & flags == flags
    }

    /// SYN without ACK: it opens a connection.
    pub const fn opens(self) -> bool {
        self.0 & (Self::SYN | Self::ACK) == Self::SYN
    }
}

/// A TCP header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tcp {
    /// Sender's port.
    pub source_port: u16,
    /// Receiver's port.
    pub destination_port: u16,
    /// Sequence number of the first byte, or of SYN.
    pub sequence: u32,
    /// Acknowledgement number, whether or not ACK is set.
    pub acknowledgement: u32,
    /// Flags: one of the combinations that stacks send.
    pub flags: TcpFlags,
    /// Window field, unscaled.
    pub window: u16,
    /// Bytes of header, options included (20 to 60).
    pub header_length: u8,
    /// Bytes of payload. In a first fragment: of this fragment only.
    pub payload_length: u32,
    /// Window scale option (RFC 7323), read from packets with SYN only, at most 14.
    pub window_scale: Option<u8>,
    /// Where the value of the MSS option (RFC 9293) stands, read from packets with SYN only.
    pub mss_offset: Option<u16>,
}

impl Tcp {
    /// What the header says before its options (RFC 9293, section 3.1). Its flags and its length are
    /// for the caller to judge.
    #[inline(always)]
    pub(super) fn without_options(header: &[u8; 20], payload_length: usize) -> Tcp {
        let half = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let word = |at: usize| {
            let bytes = [header[at], header[at + 1], header[at + 2], header[at + 3]];
            u32::from_be_bytes(bytes)
        };
        Tcp {
            source_port: half(0),
            destination_port: half(2),
            sequence: word(4),
            acknowledgement: word(8),
            flags: TcpFlags(header[13]),
            window: half(14),
            header_length: (header[12] >> 4) * 4,
            payload_length: payload_length as u32,
            window_scale: None,
            mss_offset: None,
        }
    }

    /// Sequence space that the segment takes: payload, and one each for SYN and FIN.
    pub const fn sequence_length(&self) -> u32 {
        self.payload_length
            + (self.flags.0 & TcpFlags::SYN != 0) as u32
            + (self.flags.0 & TcpFlags::FIN != 0) as u32
    }
}

/// A UDP header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Udp {
    /// Sender's port; 0 where it wants no answer.
    pub source_port: u16,
    /// Receiver's port.
    pub destination_port: u16,
    /// Bytes of header and payload as the header says, never more than the packet has (but for a
    /// first fragment, where it counts the whole datagram).
    pub length: u16,
}

/// An SCTP common header and its first chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sctp {
    /// Sender's port.
    pub source_port: u16,
    /// Receiver's port.
    pub destination_port: u16,
    /// Verification tag.
    pub verification_tag: u32,
    /// Type of the first chunk.
    pub first_chunk: u8,
    /// Flags of the first chunk.
    pub first_chunk_flags: u8,
    /// The initiate tag of an INIT or INIT ACK: the tag the other side will send.
    pub initiate_tag: Option<u32>,
}

/// ICMP or ICMPv6, but for neighbour discovery.
///
/// An echo request and an echo reply of one identifier are each other's reverse by
/// [`Ip::flow_key`]; the other end's own request of that identifier is another flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Icmp {
    /// Echo request.
    EchoRequest {
        /// Identifier.
        identifier: u16,
        /// Sequence number.
        sequence: u16,
    },
    /// Echo reply: never opens a flow.
    EchoReply {
        /// Identifier.
        identifier: u16,
        /// Sequence number.
        sequence: u16,
    },
    /// An error about another packet (ICMP types 3, 11, 12; ICMPv6 types 1 to 4). Its checksum
    /// has been verified.
    Error(IcmpError),
    /// Meant for one link or obsolete: redirects, router discovery, multicast listeners, source
    /// quench, unknown ICMPv6 errors. Never forwarded.
    NotForwarded {
        /// ICMP type.
        icmp_type: u8,
        /// ICMP code.
        code: u8,
    },
    /// Anything else: forwarded where policy allows any port.
    Other {
        /// ICMP type.
        icmp_type: u8,
        /// ICMP code.
        code: u8,
    },
}

/// An ICMP error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IcmpError {
    /// ICMP type.
    pub icmp_type: u8,
    /// ICMP code.
    pub code: u8,
    /// The MTU that the sender asks for, in "fragmentation needed" and "packet too big" only.
    pub mtu: Option<u32>,
    /// The packet that the error is about.
    pub inner: Inner,
}

/// The packet inside an ICMP error, as far as the error quotes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inner {
    /// The flow in the direction in which the inner packet travelled.
    pub key: FlowKey,
    /// TCP sequence number.
    pub tcp_sequence: Option<u32>,
    /// Whether it is an echo request (as against a reply); false for other protocols.
    pub echo_request: bool,
    /// SCTP verification tag.
    pub verification_tag: Option<u32>,
    /// Where the inner IP header starts.
    pub offset: u16,
    /// Where the inner transport header starts: at least 8 bytes of it are there, if the protocol
    /// has ports or is ICMP.
    pub transport_offset: u16,
}

impl IcmpError {
    /// Whether the MTU, if the error carries one, is one that a link may have: at least 576 bytes
    /// for IPv4 (RFC 791) and 1280 for IPv6 (RFC 8200).
    pub fn mtu_is_possible(&self) -> bool {
        let least = if self.inner.key.source.is_v4() {
            576
        } else {
            1280
        };
        self.mtu.is_none_or(|mtu| mtu >= least)
    }
}

/// A neighbour discovery message: hop limit 255, right checksum, code 0, options that parse.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Neighbour {
    /// Which message.
    pub message: NeighbourMessage,
    /// The target address; `::` in router messages.
    pub target: Address,
    /// Source link-layer address option (solicitations) or target link-layer address option
    /// (advertisements), of Ethernet's length.
    pub link_address: Option<Mac>,
}

/// The kinds of neighbour discovery messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NeighbourMessage {
    /// Who has the target address? From `::` it is a probe for a duplicate (RFC 4862).
    Solicitation,
    /// The sender has the target address.
    Advertisement,
    /// Router solicitation.
    RouterSolicitation,
    /// Router advertisement: a pod that sends it wants to be its neighbours' router.
    RouterAdvertisement,
    /// Redirect.
    Redirect,
}

/// What a device must be told to finish a Partial checksum (`csum_start`, `csum_offset`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TxChecksum {
    /// Where summing starts, in bytes from the Ethernet header.
    pub start: u16,
    /// Where the field stands, in bytes from `start`.
    pub offset: u16,
}

impl Packet {
    /// The IP packet, if it is one.
    pub fn ip(&self) -> Option<&Ip> {
        match &self.kind {
            Kind::Ip(ip) => Some(ip),
            Kind::Arp(_) => None,
        }
    }

    /// The flow, if the frame carries IP.
    pub fn flow_key(&self) -> Option<FlowKey> {
        self.ip().map(Ip::flow_key)
    }

    /// What the transmitting device must be told, if the checksum is Partial.
    pub fn tx_checksum(&self) -> Option<TxChecksum> {
        let ip = self.ip()?;
        if ip.checksum != Checksum::Partial {
            return None;
        }
        Some(TxChecksum {
            start: ip.transport_offset,
            offset: ip.checksum_offset()?,
        })
    }
}

impl Ip {
    /// The flow. Ports are 0 where the packet shows none (other protocols, later fragments).
    pub fn flow_key(&self) -> FlowKey {
        let (source_port, destination_port) = self.ports();
        FlowKey {
            source: self.source,
            destination: self.destination,
            source_port,
            destination_port,
            protocol: self.protocol,
        }
    }

    /// Source and destination port as [`FlowKey`] has them.
    pub fn ports(&self) -> (u16, u16) {
        match self.transport {
            Transport::Tcp(tcp) => (tcp.source_port, tcp.destination_port),
            Transport::Udp(udp) => (udp.source_port, udp.destination_port),
            Transport::Sctp(sctp) => (sctp.source_port, sctp.destination_port),
            Transport::Icmp(Icmp::EchoRequest { identifier, .. }) => {
                FlowKey::echo_ports(identifier, true)
            }
            Transport::Icmp(Icmp::EchoReply { identifier, .. }) => {
                FlowKey::echo_ports(identifier, false)
            }
            _ => (0, 0),
        }
    }

    /// The port that policy matches: none for protocols without ports and later fragments.
    pub fn policy_port(&self) -> Option<u16> {
        match self.transport {
            Transport::Tcp(tcp) => Some(tcp.destination_port),
            Transport::Udp(udp) => Some(udp.destination_port),
            Transport::Sctp(sctp) => Some(sctp.destination_port),
            _ => None,
        }
    }

    /// Whether the destination is multicast or limited broadcast.
    pub fn is_multicast(&self) -> bool {
        self.destination.is_multicast() || self.destination.is_broadcast()
    }

    /// Bytes of the IP packet: what an MTU bounds.
    pub fn packet_length(&self) -> u32 {
        u32::from(self.transport_offset) + self.transport_length - super::ETHERNET_BYTES as u32
    }

    /// Where the checksum field stands in the transport header, in bytes: TCP and UDP.
    pub(super) fn checksum_offset(&self) -> Option<u16> {
        match self.transport {
            Transport::Tcp(_) => Some(16),
            Transport::Udp(_) => Some(6),
            _ => None,
        }
    }
}
