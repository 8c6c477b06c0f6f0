//! Why a packet was dropped: a number, a name, and who is to blame.

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])* $name:ident = $number:literal, $text:literal, $blame:ident;)*) => {
        /// Why a packet was dropped. Numbers are stable: metrics and logs carry them.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[doc = $doc])* $name = $number,)*
        }

        impl DropReason {
            /// Every reason, in the order of the numbers.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$name),*];

            /// The name that logs, metrics and `weir status` print.
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$name => $text,)* }
            }

            /// Whose doing the drop is.
            pub const fn blame(self) -> Blame {
                match self { $(DropReason::$name => Blame::$blame,)* }
            }
        }
    };
}

/// Who is to blame for a drop.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Blame {
    /// The packet's bytes.
    Packet,
    /// A rule of policy.
    Policy,
    /// The sender's right to send this here: spoofing, scope, no route.
    Sender,
    /// A bound that was reached.
    Limit,
    /// Ours: a mistake in Weir.
    Weir,
}

drop_reasons! {
    /// Policy denies it.
    PolicyDenied = 1, "policy_denied", Policy;
    /// Conntrack holds a DENIED entry for its connection.
    ConnectionDenied = 2, "connection_denied", Policy;
    /// Shorter than an Ethernet header, or than what a length field promises.
    Truncated = 10, "truncated", Packet;
    /// An EtherType that is neither IPv4, IPv6 nor ARP (VLAN tags included).
    UnknownEthertype = 11, "unknown_ethertype", Packet;
    /// IP version, header length or total length is impossible.
    MalformedIp = 12, "malformed_ip", Packet;
    /// The IPv4 header checksum is wrong.
    BadIpChecksum = 13, "bad_ip_checksum", Packet;
    /// An IPv4 option that does not parse.
    MalformedOptions = 14, "malformed_options", Packet;
    /// Source routing (IPv4 LSRR, SSRR; IPv6 routing header 0).
    SourceRouted = 15, "source_routed", Packet;
    /// An IPv6 extension header that does not parse or stands where it may not.
    MalformedExtension = 16, "malformed_extension", Packet;
    /// More IPv6 extension headers than we walk.
    TooManyExtensions = 17, "too_many_extensions", Packet;
    /// A transport header that is too short or contradicts itself.
    MalformedTransport = 18, "malformed_transport", Packet;
    /// TCP flags that no stack sends together (SYN+FIN, SYN+RST, none, ...).
    BadTcpFlags = 19, "bad_tcp_flags", Packet;
    /// ARP that does not parse.
    MalformedArp = 20, "malformed_arp", Packet;
    /// Neighbour discovery that does not parse (hop limit, code, options).
    MalformedNeighbour = 21, "malformed_neighbour", Packet;
    /// A transport checksum that is neither right nor left to an offload.
    BadTransportChecksum = 22, "bad_transport_checksum", Packet;
    /// Another fragment of its datagram was dropped, so that this one would be of no use.
    DatagramDropped = 28, "datagram_dropped", Packet;
    /// The first fragment, which tells the flow, did not come within `limits.fragment_timeout_ms`.
    FragmentTimeout = 29, "fragment_timeout", Packet;
    /// A fragment of what is never sent in fragments: an ICMP error, or SCTP to a Service that gets
    /// another port, whose checksum depends on what follows.
    Fragment = 30, "fragment", Packet;
    /// The first fragment does not hold the whole transport header, or a later one of TCP would
    /// overwrite its flags (offset 8, RFC 3128).
    TinyFragment = 31, "tiny_fragment", Packet;
    /// It overlaps another fragment: the whole datagram is dropped from then on (RFC 5722, in both
    /// families).
    FragmentOverlap = 32, "fragment_overlap", Packet;
    /// One of exactly the same place was there before: only this one is dropped (RFC 8200, section
    /// 4.5), whatever is in it.
    FragmentDuplicate = 33, "fragment_duplicate", Packet;
    /// It and another fragment disagree on where the datagram ends: dropped from then on.
    FragmentContradiction = 34, "fragment_contradiction", Packet;
    /// The datagram would be longer than 65,535 octets.
    OversizedDatagram = 35, "oversized_datagram", Packet;
    /// The datagram has more fragments than `limits.fragment_pieces`: dropped from then on.
    FragmentPieces = 36, "fragment_pieces", Limit;
    /// `limits.fragment_datagrams` are under way, or `limits.fragment_frames` are held.
    FragmentTableFull = 37, "fragment_table_full", Limit;
    /// The port's share of either, `limits.fragment_port_percent`, is used up.
    FragmentQuota = 38, "fragment_quota", Limit;
    /// Another worker had the datagram's bucket for too long.
    FragmentBusy = 39, "fragment_busy", Limit;
    /// The source is not one that may stand behind this port.
    SpoofedSource = 40, "spoofed_source", Sender;
    /// The sender's Ethernet address is not the port's endpoint's.
    SpoofedMac = 41, "spoofed_mac", Sender;
    /// Loopback, unspecified, IPv4-mapped or otherwise impossible addresses.
    MartianAddress = 42, "martian_address", Sender;
    /// Multicast or broadcast, which Weir does not forward.
    Multicast = 43, "multicast", Sender;
    /// Addressed to another Ethernet address than ours.
    NotForUs = 44, "not_for_us", Sender;
    /// Link-local addresses do not leave their link.
    LinkLocal = 45, "link_local", Sender;
    /// ARP or neighbour discovery that nobody here answers.
    NeighbourNotOurs = 46, "neighbour_not_ours", Sender;
    /// No route to the destination.
    NoRoute = 47, "no_route", Sender;
    /// The next hop's Ethernet address is not known.
    NoNeighbour = 48, "no_neighbour", Limit;
    /// TTL or hop limit is used up.
    TtlExceeded = 49, "ttl_exceeded", Sender;
    /// Larger than the MTU of the way out.
    TooBig = 50, "too_big", Sender;
    /// The way out is the way in.
    SamePort = 51, "same_port", Sender;
    /// The destination is an address of a pod that is not ready to receive yet.
    EndpointNotReady = 52, "endpoint_not_ready", Sender;
    /// The port's policy is not live yet, so it passes nothing.
    PortNotReady = 53, "port_not_ready", Sender;
    /// The address is a Service's, the port is none of its: it is never routed on.
    ServiceNoPort = 54, "service_no_port", Sender;
    /// The Service has no ready backend for connections from there.
    ServiceNoBackend = 55, "service_no_backend", Sender;
    /// Neither the client nor the backend is a pod of ours, and there is no address of the node's by
    /// which the connection would come back here: control has named none, or the node itself is the
    /// backend.
    ServiceNoSource = 56, "service_no_source", Sender;
    /// Conntrack calls it invalid: it neither opens a connection nor belongs to one.
    ConntrackInvalid = 60, "conntrack_invalid", Sender;
    /// An ICMP error that belongs to no connection, or whose sender could not have seen it.
    UnrelatedIcmpError = 61, "unrelated_icmp_error", Sender;
    /// ICMP of a kind that is never forwarded (redirects, router discovery).
    IcmpNotForwarded = 62, "icmp_not_forwarded", Sender;
    /// ICMP errors beyond the rate.
    IcmpRateLimited = 63, "icmp_rate_limited", Limit;
    /// The connection table is full.
    ConntrackFull = 70, "conntrack_full", Limit;
    /// The endpoint's share of the connection table is used up.
    ConntrackQuota = 71, "conntrack_quota", Limit;
    /// The bucket stayed locked by another worker's insert.
    ConntrackBusy = 72, "conntrack_busy", Limit;
    /// The connection needs a source port of its own, and those that were tried are in use.
    SourcePorts = 73, "source_ports", Limit;
    /// The port's transmit ring, or its share of frames in flight, is full.
    TransmitFull = 80, "transmit_full", Limit;
    /// No free frame.
    NoFrame = 81, "no_frame", Limit;
    /// The port went away while the packet was under way.
    PortGone = 82, "port_gone", Limit;
    /// A packet of several frames that is not taken: too many frames, headers that the first
    /// frame does not hold, or a fragment that would have to be held.
    MultiBuffer = 83, "multi_buffer", Limit;
    /// The kernel handed us a descriptor that cannot be.
    BadDescriptor = 90, "bad_descriptor", Weir;
    /// A state that should be impossible.
    Internal = 91, "internal", Weir;
}

impl DropReason {
    /// One more than the largest number: the length of a table indexed by reason.
    pub const COUNT: usize = 92;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn numbers_and_names_are_unique_and_bounded() {
        let names: HashSet<_> = DropReason::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), DropReason::ALL.len());
        assert_eq!(
            DropReason::ALL.iter().map(|r| *r as usize).max().unwrap() + 1,
            DropReason::COUNT
        );
    }
}
