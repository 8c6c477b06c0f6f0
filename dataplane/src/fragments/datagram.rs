//! One datagram: the places of its fragments, and what was decided.

use arrayvec::ArrayVec;

use super::Key;
use crate::conntrack::TcpFacts;
use crate::{DropReason, FlowKey, Protocol, Time};

/// The most fragments that one datagram can be allowed.
pub const PIECES_MAX: usize = 128;

/// The place of a fragment in its datagram, octets of what follows the IP headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// The first octet; a multiple of 8.
    pub start: u16,
    /// One behind the last octet; above `start`.
    pub end: u16,
    /// No more follow.
    pub is_last: bool,
}

/// What a datagram's first fragment says of its flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct First {
    /// The protocol behind all extension headers.
    pub protocol: Protocol,
    /// As in [`FlowKey`].
    pub source_port: u16,
    /// As in [`FlowKey`].
    pub destination_port: u16,
    /// A TCP header, while the segment's length is not known; `payload_len` is what the first
    /// fragment has of it.
    pub segment: Option<TcpFacts>,
    /// Octets before a TCP segment's payload.
    pub headers: u32,
}

impl First {
    /// The flow of a later fragment, whose own key has no ports.
    pub fn flow_key(&self, key: FlowKey) -> FlowKey {
        FlowKey {
            protocol: self.protocol,
            source_port: self.source_port,
            destination_port: self.destination_port,
            ..key
        }
    }
}

/// What was decided for a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// Nothing: its first fragment has not come, or is being judged.
    Undecided,
    /// The first fragment was accepted.
    Accepted(First),
    /// Dropped from then on.
    Dropped(DropReason),
}

/// A datagram under way.
#[derive(Debug)]
pub(super) struct Datagram {
    pub key: Key,
    /// Never used for another datagram.
    pub serial: u64,
    pub phase: Phase,
    /// When it is forgotten.
    pub until: Time,
    /// Fragments of it that somebody holds.
    pub held: u32,
    pieces: ArrayVec<Piece, PIECES_MAX>,
    /// Octets that have come.
    covered: u32,
    /// Octets of the whole, once the last fragment has come.
    length: Option<u16>,
}

impl Datagram {
    pub fn new(key: Key, serial: u64, until: Time) -> Datagram {
        Datagram {
            key,
            serial,
            phase: Phase::Undecided,
            until,
            held: 0,
            pieces: ArrayVec::new(),
            covered: 0,
            length: None,
        }
    }

    /// Octets of the whole, once that is known.
    pub fn length(&self) -> Option<u32> {
        self.length.map(u32::from)
    }

    /// Takes in the place of a fragment.
    ///
    /// # Errors
    /// Why it does not fit; nothing has changed then.
    pub fn take(&mut self, piece: Piece, pieces_max: usize) -> Result<(), DropReason> {
        if self.pieces.contains(&piece) {
            return Err(DropReason::FragmentDuplicate);
        }
        let overlaps = |other: &Piece| piece.start < other.end && other.start < piece.end;
        if self.pieces.iter().any(overlaps) {
            return Err(DropReason::FragmentOverlap);
        }
        let ends_before = |other: &Piece| piece.is_last && other.end > piece.end;
        let has_two_ends = piece.is_last && self.length.is_some();
        let is_behind_end = self.length.is_some_and(|length| piece.end > length);
        if has_two_ends || is_behind_end || self.pieces.iter().any(ends_before) {
            return Err(DropReason::FragmentContradiction);
        }
        if self.pieces.len() >= pieces_max.min(PIECES_MAX) {
            return Err(DropReason::FragmentPieces);
        }
        self.pieces.push(piece);
        self.covered += u32::from(piece.end - piece.start);
        if piece.is_last {
            self.length = Some(piece.end);
        }
        Ok(())
    }

    /// The TCP segment with its whole payload, once, as soon as its length is known.
    pub fn take_segment(&mut self) -> Option<TcpFacts> {
        let length = self.length()?;
        let Phase::Accepted(first) = &mut self.phase else {
            return None;
        };
        let segment = first.segment.take()?;
        let payload_len = length.saturating_sub(first.headers);
        Some(TcpFacts {
            payload_len,
            ..segment
        })
    }

    /// Nothing of it is missing, and nobody holds any of it.
    pub fn is_done(&self) -> bool {
        let is_accepted = matches!(self.phase, Phase::Accepted(_));
        is_accepted && self.held == 0 && self.length() == Some(self.covered)
    }
}
