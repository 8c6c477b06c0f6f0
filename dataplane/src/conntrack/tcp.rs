//! TCP as a middlebox sees it: RFC 9293's states of both ends folded into one.
//!
//! The states are Linux's (`nf_conntrack_proto_tcp.c`), with two differences: FIN_WAIT and
//! CLOSE_WAIT know which side has closed, so that a retransmitted FIN is not taken for the other
//! side's; and a SYN on a closing connection asks for a fresh decision (semantics D2) rather than
//! being let through.

use super::facts::{TcpFacts, TcpFlags};
use super::state::{State, Step};

/// What of the flags matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Segment {
    Syn,
    SynAck,
    Fin,
    Ack,
    Rst,
    /// None of these: no stack sends it.
    Bare,
}

impl Segment {
    const fn of(flags: TcpFlags) -> Segment {
        if flags.contains(TcpFlags::RST) {
            Segment::Rst
        } else if flags.contains(TcpFlags::SYN) {
            if flags.contains(TcpFlags::ACK) {
                Segment::SynAck
            } else {
                Segment::Syn
            }
        } else if flags.contains(TcpFlags::FIN) {
            Segment::Fin
        } else if flags.contains(TcpFlags::ACK) {
            Segment::Ack
        } else {
            Segment::Bare
        }
    }
}

/// Whether a segment from the middle of a connection may be adopted.
pub(super) fn adoptable(facts: &TcpFacts) -> bool {
    Segment::of(facts.flags) == Segment::Ack
}

/// What a segment does to a connection. `original` is whether the initiator sends it.
pub(super) fn step(state: State, original: bool, facts: &TcpFacts) -> Step {
    match Segment::of(facts.flags) {
        Segment::Syn if !facts.is_syn() => Step::Invalid,
        Segment::Syn => syn(state, original),
        Segment::SynAck => syn_ack(state, original),
        Segment::Fin => fin(state, original),
        Segment::Ack => ack(state, original),
        Segment::Rst if state == State::Close => Step::Pass,
        Segment::Rst => Step::To(State::Close),
        Segment::Bare => Step::Invalid,
    }
}

fn syn(state: State, original: bool) -> Step {
    use State::*;
    match (state, original) {
        (SynSent | SynSent2, true) => Step::To(state),
        // Perhaps the client has lost its connection: the server's answer (challenge ACK, RFC 5961)
        // and the client's RST will tell.
        (SynReceived | Established, true) => Step::Pass,
        (SynSent | SynSent2, false) => Step::To(SynSent2),
        (SynReceived | Established, false) => Step::Invalid,
        _ => Step::Restart,
    }
}

fn syn_ack(state: State, original: bool) -> Step {
    use State::*;
    match (state, original) {
        (SynSent2, _) | (SynSent, false) => Step::To(SynReceived),
        (SynSent, true) => Step::Invalid,
        (SynReceived | Established | Adopted, _) => Step::Pass,
        // May answer a SYN that was let through.
        (_, false) => Step::Pass,
        (_, true) => Step::Invalid,
    }
}

fn fin(state: State, original: bool) -> Step {
    use State::*;
    match (state, original) {
        (SynSent | SynSent2, _) => Step::Invalid,
        (SynReceived | Established | Adopted, true) => Step::To(FinWait),
        (SynReceived | Established | Adopted, false) => Step::To(FinWaitReply),
        (FinWait | CloseWait, false) | (FinWaitReply | CloseWaitReply, true) => Step::To(LastAck),
        _ => Step::To(state),
    }
}

fn ack(state: State, original: bool) -> Step {
    use State::*;
    match (state, original) {
        // Not before a SYN-ACK.
        (SynSent | SynSent2, true) => Step::Invalid,
        // A challenge ACK of a server that still holds an earlier connection.
        (SynSent | SynSent2, false) => Step::Pass,
        (SynReceived, true) => Step::To(Established),
        (FinWait, false) => Step::To(CloseWait),
        (FinWaitReply, true) => Step::To(CloseWaitReply),
        (LastAck, _) => Step::To(TimeWait),
        // Data after a RST may mean that the RST was forged: it keeps the entry alive.
        _ => Step::To(state),
    }
}
