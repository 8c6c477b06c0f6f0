//! What conntrack needs to know of a packet beyond its key.

use super::state::{State, Step};

bitflags::bitflags! {
    /// TCP flags, as in octet 13 of the header (RFC 9293 §3.1).
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct TcpFlags: u8 {
        /// No more data from the sender.
        const FIN = 0x01;
        /// Synchronise sequence numbers.
        const SYN = 0x02;
        /// Reset the connection.
        const RST = 0x04;
        /// Push.
        const PSH = 0x08;
        /// The acknowledgement field counts.
        const ACK = 0x10;
        /// The urgent pointer counts.
        const URG = 0x20;
        /// ECN echo (RFC 3168).
        const ECE = 0x40;
        /// Congestion window reduced (RFC 3168).
        const CWR = 0x80;
    }
}

/// A TCP segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TcpFacts {
    /// Flags.
    pub flags: TcpFlags,
    /// Sequence number of the first octet.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Window as in the header, unscaled.
    pub window: u16,
    /// The window scale option (RFC 7323); looked at on SYN and SYN-ACK only.
    pub window_scale: Option<u8>,
    /// Octets of payload.
    pub payload_len: u32,
}

impl TcpFacts {
    /// Whether of the flags that move a connection this has ACK and no other.
    #[inline]
    pub(super) const fn is_plain(&self) -> bool {
        let mask = TcpFlags::SYN
            .union(TcpFlags::ACK)
            .union(TcpFlags::RST)
            .union(TcpFlags::FIN);
        self.flags.intersection(mask).bits() == TcpFlags::ACK.bits()
    }

    /// Whether this is a SYN that opens a connection: SYN without ACK, RST or FIN.
    #[inline]
    pub const fn is_syn(&self) -> bool {
        let mask = TcpFlags::SYN
            .union(TcpFlags::ACK)
            .union(TcpFlags::RST)
            .union(TcpFlags::FIN);
        self.flags.intersection(mask).bits() == TcpFlags::SYN.bits()
    }
}

/// An SCTP packet, by its first chunk (RFC 9260 §3.2): the chunks that change state come first or
/// alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SctpFacts {
    /// Type of the first chunk.
    pub chunk_type: u8,
    /// Verification tag of the common header.
    pub verification_tag: u32,
    /// Initiate tag, if the first chunk is INIT or INIT ACK; else 0.
    pub initiate_tag: u32,
    /// Flags of the first chunk; bit 0 is T of ABORT and SHUTDOWN COMPLETE.
    pub chunk_flags: u8,
}

/// An ICMP query (echo); errors go to [`Table::related`](super::Table::related).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IcmpFacts {
    /// Whether it asks (echo request) or answers (echo reply).
    pub request: bool,
}

/// What conntrack needs to know of a packet, by protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Facts {
    /// A TCP segment.
    Tcp(TcpFacts),
    /// A UDP datagram.
    Udp,
    /// An SCTP packet.
    Sctp(SctpFacts),
    /// An ICMP or ICMPv6 query.
    Icmp(IcmpFacts),
    /// Any other protocol.
    Other,
}

impl Facts {
    /// Whether such a packet may make an entry at any time (semantics D21): a SYN, an SCTP INIT or
    /// a heartbeat (a new path of a multi-homed association), an echo request, and every datagram
    /// of protocols without connections.
    #[inline]
    pub const fn opens(&self) -> bool {
        match self {
            Facts::Tcp(tcp) => tcp.is_syn(),
            Facts::Sctp(sctp) => super::sctp::opens(sctp),
            Facts::Icmp(icmp) => icmp.request,
            Facts::Udp | Facts::Other => true,
        }
    }

    /// Whether such a packet may make an entry in the adoption window.
    pub(super) fn adoptable(&self) -> bool {
        match self {
            Facts::Tcp(tcp) => super::tcp::adoptable(tcp),
            Facts::Sctp(sctp) => super::sctp::adoptable(sctp),
            _ => false,
        }
    }

    /// Whether such a packet is decided afresh even on a DENIED entry: the beginning of a new
    /// connection beyond doubt.
    pub const fn begins(&self) -> bool {
        match self {
            Facts::Tcp(tcp) => tcp.is_syn(),
            Facts::Sctp(sctp) => super::sctp::is_init(sctp),
            _ => false,
        }
    }

    /// The state of an entry that such a packet makes.
    pub(super) fn first_state(&self) -> State {
        match self {
            Facts::Tcp(tcp) if tcp.is_syn() => State::SynSent,
            Facts::Sctp(sctp) if super::sctp::opens(sctp) => super::sctp::first_state(sctp),
            Facts::Tcp(_) | Facts::Sctp(_) => State::Adopted,
            Facts::Udp => State::UdpUnreplied,
            Facts::Icmp(_) => State::IcmpUnreplied,
            Facts::Other => State::OtherUnreplied,
        }
    }

    /// Whether such a packet says only that the connection goes on as it stands: what
    /// [`Facts::step`] answers with [`Step::To`] this very state, and no windows or tags follow.
    #[inline]
    pub(super) const fn goes_on(&self, state: State, original: bool) -> bool {
        match self {
            Facts::Tcp(tcp) => tcp.is_plain() & matches!(state, State::Established),
            Facts::Udp => {
                matches!(state, State::UdpReplied)
                    | (original & matches!(state, State::UdpUnreplied))
            }
            Facts::Sctp(_) | Facts::Icmp(_) | Facts::Other => false,
        }
    }

    /// What such a packet does to a connection. `original` is whether the initiator sends it.
    pub(super) fn step(&self, state: State, original: bool) -> Step {
        match self {
            Facts::Tcp(tcp) => super::tcp::step(state, original, tcp),
            Facts::Sctp(sctp) => super::sctp::step(state, original, sctp),
            // Requests go the initiator's way and replies come back. Of identifier 0 a request the
            // other way would be a connection of its own, which the key cannot tell from this one.
            Facts::Icmp(icmp) if icmp.request != original => Step::Invalid,
            Facts::Icmp(_) if !original => Step::To(State::IcmpReplied),
            Facts::Udp if !original => Step::To(State::UdpReplied),
            Facts::Other if !original => Step::To(State::OtherReplied),
            Facts::Icmp(_) | Facts::Udp | Facts::Other => Step::To(state),
        }
    }
}
