//! Where a connection stands, and how long it may stay there in silence.

use crate::Protocol;

macro_rules! states {
    ($($(#[doc = $doc:literal])* $name:ident = $number:literal, $text:literal, $timeout:ident;)*) => {
        /// Where a connection stands. Numbers are part of the table's layout.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum State {
            $($(#[doc = $doc])* $name = $number,)*
        }

        impl State {
            /// Every state.
            pub const ALL: &'static [State] = &[$(State::$name),*];

            /// The name that listings print, in the words of Linux's `conntrack`.
            pub const fn name(self) -> &'static str {
                match self { $(State::$name => $text,)* }
            }

            /// The state with this number.
            #[inline]
            pub(super) const fn from_bits(bits: u8) -> Option<State> {
                match bits { $($number => Some(State::$name),)* _ => None }
            }

            /// The idle time-out of this state.
            pub(super) const fn timeout_s(self, timeouts: &Timeouts) -> u32 {
                match self { $(State::$name => timeouts.$timeout,)* }
            }
        }
    };
}

states! {
    /// TCP: SYN seen.
    SynSent = 2, "SYN_SENT", tcp_syn_s;
    /// TCP: SYN from both sides, simultaneous open.
    SynSent2 = 3, "SYN_SENT2", tcp_syn_s;
    /// TCP: SYN-ACK seen.
    SynReceived = 4, "SYN_RECV", tcp_syn_s;
    /// TCP: handshake complete.
    Established = 5, "ESTABLISHED", tcp_established_s;
    /// TCP: FIN of the initiator seen.
    FinWait = 6, "FIN_WAIT", tcp_closing_s;
    /// TCP: that FIN acknowledged.
    CloseWait = 7, "CLOSE_WAIT", tcp_closing_s;
    /// TCP: FIN of both sides seen.
    LastAck = 8, "LAST_ACK", tcp_closing_s;
    /// TCP: both FINs acknowledged.
    TimeWait = 9, "TIME_WAIT", tcp_closed_s;
    /// TCP: reset.
    Close = 10, "CLOSE", tcp_closed_s;
    /// TCP or SCTP: taken over in the adoption window, beginning not seen.
    Adopted = 11, "ADOPTED", tcp_established_s;
    /// UDP: no reply yet.
    UdpUnreplied = 12, "UNREPLIED", udp_s;
    /// UDP: both directions seen.
    UdpReplied = 13, "REPLIED", udp_replied_s;
    /// ICMP: no reply yet.
    IcmpUnreplied = 14, "UNREPLIED", icmp_s;
    /// ICMP: replied.
    IcmpReplied = 15, "REPLIED", icmp_s;
    /// SCTP: aborted or shut down.
    SctpClosed = 16, "CLOSED", tcp_closed_s;
    /// SCTP: INIT seen, perhaps INIT ACK.
    SctpCookieWait = 17, "COOKIE_WAIT", sctp_opening_s;
    /// SCTP: COOKIE ECHO seen.
    SctpCookieEchoed = 18, "COOKIE_ECHOED", sctp_opening_s;
    /// SCTP: COOKIE ACK seen.
    SctpEstablished = 19, "ESTABLISHED", sctp_established_s;
    /// SCTP: SHUTDOWN of the initiator seen.
    SctpShutdownSent = 20, "SHUTDOWN_SENT", sctp_opening_s;
    /// SCTP: SHUTDOWN of the other side seen.
    SctpShutdownReceived = 21, "SHUTDOWN_RECD", sctp_opening_s;
    /// SCTP: SHUTDOWN ACK seen.
    SctpShutdownAckSent = 22, "SHUTDOWN_ACK_SENT", sctp_opening_s;
    /// SCTP: a path opened by HEARTBEAT.
    SctpHeartbeatSent = 23, "HEARTBEAT_SENT", sctp_opening_s;
    /// Another protocol: no reply yet.
    OtherUnreplied = 24, "UNREPLIED", other_s;
    /// Another protocol: both directions seen.
    OtherReplied = 25, "REPLIED", other_s;
    /// TCP: FIN of the other side seen.
    FinWaitReply = 26, "FIN_WAIT", tcp_closing_s;
    /// TCP: that FIN acknowledged.
    CloseWaitReply = 27, "CLOSE_WAIT", tcp_closing_s;
}

/// What a packet does to a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// It passes, keeps the connection alive, and this is where it stands then.
    To(State),
    /// It passes, but says nothing sure about the connection: nothing changes.
    Pass,
    /// It opens the connection anew: decide afresh.
    Restart,
    /// It does not belong there.
    Invalid,
}

impl State {
    /// Whether the entry may go when room is needed: nobody has answered, or both sides have
    /// closed. A half-open TCP connection counts as unanswered, lest SYN floods stay.
    pub const fn is_evictable(self) -> bool {
        use State::*;
        matches!(
            self,
            SynSent
                | SynSent2
                | SynReceived
                | TimeWait
                | Close
                | UdpUnreplied
                | IcmpUnreplied
                | SctpClosed
                | SctpCookieWait
                | SctpHeartbeatSent
                | OtherUnreplied
        )
    }

    /// Whether a connection of this protocol can be in this state.
    #[inline]
    pub(super) const fn fits(self, protocol: Protocol) -> bool {
        use State::*;
        match self {
            Adopted => matches!(protocol, Protocol::TCP | Protocol::SCTP),
            SynSent | SynSent2 | SynReceived | Established | FinWait | FinWaitReply | CloseWait
            | CloseWaitReply | LastAck | TimeWait | Close => matches!(protocol, Protocol::TCP),
            UdpUnreplied | UdpReplied => matches!(protocol, Protocol::UDP),
            IcmpUnreplied | IcmpReplied => matches!(protocol, Protocol::ICMP | Protocol::ICMPV6),
            // ICMP's other queries (timestamps and the like) too.
            OtherUnreplied | OtherReplied => !protocol.has_ports(),
            _ => matches!(protocol, Protocol::SCTP),
        }
    }
}

/// Idle time-outs by state, seconds. See `weir_config`'s `conntrack.timeouts` for the defaults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// TCP, SYN seen.
    pub tcp_syn_s: u32,
    /// TCP, established or adopted.
    pub tcp_established_s: u32,
    /// TCP, one or both sides have closed.
    pub tcp_closing_s: u32,
    /// TCP and SCTP, reset or closed by both.
    pub tcp_closed_s: u32,
    /// UDP, one direction seen.
    pub udp_s: u32,
    /// UDP, both directions seen.
    pub udp_replied_s: u32,
    /// ICMP queries.
    pub icmp_s: u32,
    /// SCTP, opening or shutting down.
    pub sctp_opening_s: u32,
    /// SCTP, established.
    pub sctp_established_s: u32,
    /// Other protocols.
    pub other_s: u32,
    /// DENIED, whatever the protocol.
    pub denied_s: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            tcp_syn_s: 60,
            tcp_established_s: 7440,
            tcp_closing_s: 120,
            tcp_closed_s: 10,
            udp_s: 30,
            udp_replied_s: 120,
            icmp_s: 30,
            sctp_opening_s: 30,
            sctp_established_s: 7440,
            other_s: 60,
            denied_s: 60,
        }
    }
}
