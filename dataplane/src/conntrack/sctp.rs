//! SCTP as a middlebox sees it (RFC 9260); the states are those of `nf_conntrack_proto_sctp.c`.
//!
//! Chunks that end an association must carry its verification tag (RFC 9260 §8.5), as far as it is
//! known from INIT, INIT ACK, COOKIE ECHO and COOKIE ACK.

use super::SctpFacts;
use super::state::{State, Step};

/// Chunk types, RFC 9260 §3.2.
pub(super) mod chunk {
    pub const DATA: u8 = 0;
    pub const INIT: u8 = 1;
    pub const INIT_ACK: u8 = 2;
    pub const SACK: u8 = 3;
    pub const HEARTBEAT: u8 = 4;
    pub const HEARTBEAT_ACK: u8 = 5;
    pub const ABORT: u8 = 6;
    pub const SHUTDOWN: u8 = 7;
    pub const SHUTDOWN_ACK: u8 = 8;
    pub const ERROR: u8 = 9;
    pub const COOKIE_ECHO: u8 = 10;
    pub const COOKIE_ACK: u8 = 11;
    pub const SHUTDOWN_COMPLETE: u8 = 14;
}

/// Whether the packet may make an entry: an INIT, or a HEARTBEAT on a new path of a multi-homed
/// association.
pub(super) const fn opens(facts: &SctpFacts) -> bool {
    match facts.chunk_type {
        chunk::INIT => facts.verification_tag == 0 && facts.initiate_tag != 0,
        chunk::HEARTBEAT => facts.verification_tag != 0,
        _ => false,
    }
}

/// Whether the packet asks for a fresh decision on a DENIED entry, as a SYN does.
pub(super) const fn is_init(facts: &SctpFacts) -> bool {
    facts.chunk_type == chunk::INIT && opens(facts)
}

/// Whether a packet from the middle of an association may be adopted.
pub(super) const fn adoptable(facts: &SctpFacts) -> bool {
    matches!(
        facts.chunk_type,
        chunk::DATA | chunk::SACK | chunk::HEARTBEAT
    ) && facts.verification_tag != 0
}

/// The state that an opening packet begins with.
pub(super) const fn first_state(facts: &SctpFacts) -> State {
    match facts.chunk_type {
        chunk::INIT => State::SctpCookieWait,
        _ => State::SctpHeartbeatSent,
    }
}

/// What a packet does to an association. `original` is whether the initiator sends it.
pub(super) fn step(state: State, original: bool, facts: &SctpFacts) -> Step {
    use State::*;
    let open = matches!(state, SctpEstablished | Adopted);
    let to = match facts.chunk_type {
        chunk::INIT if !opens(facts) => return Step::Invalid,
        chunk::INIT => match state {
            SctpClosed | Adopted => return Step::Restart,
            SctpHeartbeatSent if original => SctpCookieWait,
            _ => state,
        },
        chunk::ABORT => SctpClosed,
        chunk::SHUTDOWN if open && original => SctpShutdownSent,
        chunk::SHUTDOWN if open => SctpShutdownReceived,
        chunk::SHUTDOWN_ACK if matches!(state, SctpShutdownSent | SctpShutdownReceived) => {
            SctpShutdownAckSent
        }
        chunk::SHUTDOWN_COMPLETE if state == SctpShutdownAckSent => SctpClosed,
        // Stale cookie: the other side refuses the association.
        chunk::ERROR if state == SctpCookieEchoed && !original => SctpClosed,
        chunk::COOKIE_ECHO if state == SctpCookieWait => SctpCookieEchoed,
        chunk::COOKIE_ACK if state == SctpCookieEchoed => SctpEstablished,
        chunk::HEARTBEAT_ACK if state == SctpHeartbeatSent && !original => SctpEstablished,
        // On a new path, nothing but heartbeats until one is answered.
        chunk::HEARTBEAT if state == SctpHeartbeatSent => state,
        _ if state == SctpHeartbeatSent => return Step::Invalid,
        _ => state,
    };
    Step::To(to)
}

/// The tags that packets of an association carry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Tags {
    /// On packets of the initiator and of the other side, as far as known.
    pub by_direction: [Option<u32>; 2],
}

impl Tags {
    /// Whether a packet carries the right tag, if that matters, and what is known after it.
    pub fn advance(mut self, state: State, original: bool, facts: &SctpFacts) -> Option<Tags> {
        let (own, other) = (usize::from(!original), usize::from(original));
        let tag = facts.verification_tag;
        match facts.chunk_type {
            chunk::INIT | chunk::INIT_ACK if state == State::SctpCookieWait => {
                // What its receiver must send.
                self.by_direction[other] = Some(facts.initiate_tag);
            }
            chunk::COOKIE_ECHO | chunk::COOKIE_ACK => self.by_direction[own] = Some(tag),
            chunk::ABORT | chunk::SHUTDOWN_COMPLETE => {
                // T: the sender knew no tag of the peer's and reflects its own (§8.5.1).
                let reflected = facts.chunk_flags & 1 != 0;
                let expected = self.by_direction[if reflected { other } else { own }];
                if expected.is_some_and(|expected| expected != tag) {
                    return None;
                }
            }
            chunk::SHUTDOWN | chunk::SHUTDOWN_ACK
                if self.by_direction[own].is_some_and(|expected| expected != tag) =>
            {
                return None;
            }
            _ => {}
        }
        Some(self)
    }
}
