//! What names a flow.

use std::fmt;

use crate::Address;

/// An IP protocol number (IANA "Assigned Internet Protocol Numbers").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Protocol(pub u8);

impl Protocol {
    /// ICMP for IPv4, RFC 792.
    pub const ICMP: Protocol = Protocol(1);
    /// TCP, RFC 9293.
    pub const TCP: Protocol = Protocol(6);
    /// UDP, RFC 768.
    pub const UDP: Protocol = Protocol(17);
    /// ICMP for IPv6, RFC 4443.
    pub const ICMPV6: Protocol = Protocol(58);
    /// SCTP, RFC 9260.
    pub const SCTP: Protocol = Protocol(132);

    /// Whether the protocol has ports that policy can name.
    pub const fn has_ports(self) -> bool {
        matches!(self, Protocol::TCP | Protocol::UDP | Protocol::SCTP)
    }
}

/// An address with a port.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct SocketAddress {
    /// The address.
    pub address: Address,
    /// The port.
    pub port: u16,
}

impl fmt::Display for SocketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::net::SocketAddr::new(self.address.to_ip(), self.port).fmt(f)
    }
}

/// One direction of a flow, as the packet shows it.
///
/// For TCP, UDP and SCTP the ports are the header's. An ICMP echo request has the identifier as its
/// source port and 0 as its destination port, a reply the other way round ([`FlowKey::echo_ports`]):
/// so the two are each other's reverse, and two hosts that ping each other under one identifier
/// have two flows. Only identifier 0, which no common `ping` uses, leaves them one. For all else
/// both ports are 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct FlowKey {
    /// Sender.
    pub source: Address,
    /// Receiver.
    pub destination: Address,
    /// Sender's port.
    pub source_port: u16,
    /// Receiver's port.
    pub destination_port: u16,
    /// Protocol of the transport header.
    pub protocol: Protocol,
}

impl FlowKey {
    /// Source and destination port in the key of an ICMP echo message.
    pub const fn echo_ports(identifier: u16, is_request: bool) -> (u16, u16) {
        if is_request {
            (identifier, 0)
        } else {
            (0, identifier)
        }
    }

    /// The sender's end.
    pub const fn sender(&self) -> SocketAddress {
        SocketAddress {
            address: self.source,
            port: self.source_port,
        }
    }

    /// The receiver's end.
    pub const fn receiver(&self) -> SocketAddress {
        SocketAddress {
            address: self.destination,
            port: self.destination_port,
        }
    }

    /// The same with another sender.
    pub const fn with_sender(self, sender: SocketAddress) -> FlowKey {
        FlowKey {
            source: sender.address,
            source_port: sender.port,
            ..self
        }
    }

    /// The same with another receiver.
    pub const fn with_receiver(self, receiver: SocketAddress) -> FlowKey {
        FlowKey {
            destination: receiver.address,
            destination_port: receiver.port,
            ..self
        }
    }

    /// The same flow in the other direction.
    pub const fn reversed(self) -> FlowKey {
        FlowKey {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
        }
    }
}
