//! SCTP as a middlebox sees it (RFC 9260).

use super::SctpFacts;

/// Chunk types, RFC 9260 §3.2.
pub(super) mod chunk {
    pub const INIT: u8 = 1;
    pub const INIT_ACK: u8 = 2;
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

/// Whether the packet may make an entry.
pub(super) const fn opens(facts: &SctpFacts) -> bool {
    match facts.chunk_type {
        chunk::INIT => facts.verification_tag == 0 && facts.initiate_tag != 0,
        chunk::HEARTBEAT => facts.verification_tag != 0,
        _ => false,
    }
}
