//! Whether a TCP segment lies in the window (`strict_tcp`).
//!
//! After Guido van Rooij, "Real Stateful TCP Packet Filtering in IP Filter" (2001), which Linux
//! follows, too. For each side we keep what we know of it:
//!
//! * `end`: highest sequence number + 1 that it has sent;
//! * `max_end`: highest that the other side's acknowledgements and windows allow it to send;
//! * `max_window`: largest window that it has announced.
//!
//! A segment is in the window when its data lies at most at `max_end`, not further back than the
//! receiver's largest window, and its acknowledgement is of data that we have seen, not older than
//! the sender's largest window (at least [`ACK_SLACK`]). SACK blocks are not looked at.

use super::facts::{TcpFacts, TcpFlags};
use super::state::State;

/// An acknowledgement may lag at least so far behind, octets.
const ACK_SLACK: u32 = 66_000;
/// The largest shift (RFC 7323 §2.3), also assumed for connections whose beginning we missed.
const MAX_SCALE: u8 = 14;

/// What is known of one side.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Side {
    pub end: u32,
    pub max_end: u32,
    /// 0: has not sent yet.
    pub max_window: u32,
    /// Shift of its window field.
    pub scale: u8,
    /// Whether its SYN had the window scale option.
    pub offers_scale: bool,
}

/// `a` > `b` in sequence space (RFC 9293 §3.4).
pub(super) const fn after(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) > 0
}

const fn later(a: u32, b: u32) -> u32 {
    if after(a, b) { a } else { b }
}

fn end_of(facts: &TcpFacts) -> u32 {
    let flags = facts.flags;
    facts
        .sequence
        .wrapping_add(facts.payload_len)
        .wrapping_add(u32::from(flags.contains(TcpFlags::SYN)))
        .wrapping_add(u32::from(flags.contains(TcpFlags::FIN)))
}

/// What the first segment of an entry tells: of its sender, and of the other side.
pub(super) fn first(facts: &TcpFacts) -> [Side; 2] {
    let mut sides = [Side::default(); 2];
    if facts.flags.contains(TcpFlags::SYN) {
        sides[0] = opening(facts);
    } else {
        // The beginning is lost: assume the largest scale, which errs towards letting pass.
        sides[0].scale = MAX_SCALE;
        sides[1].scale = MAX_SCALE;
        midstream(&mut sides, facts);
    }
    sides
}

fn opening(facts: &TcpFacts) -> Side {
    let end = end_of(facts);
    Side {
        end,
        max_end: end,
        max_window: u32::from(facts.window).max(1),
        scale: facts.window_scale.unwrap_or(0).min(MAX_SCALE),
        offers_scale: facts.window_scale.is_some(),
    }
}

/// `sides` are the sender's and the receiver's.
fn midstream(sides: &mut [Side; 2], facts: &TcpFacts) {
    let [sender, receiver] = sides;
    sender.end = end_of(facts);
    sender.max_window = (u32::from(facts.window) << sender.scale).max(1);
    let guess = sender.end.wrapping_add(sender.max_window);
    sender.max_end = if receiver.max_window == 0 {
        guess
    } else {
        later(guess, sender.max_end)
    };
    if receiver.max_window == 0 {
        receiver.end = facts.acknowledgement;
        receiver.max_end = facts.acknowledgement.wrapping_add(sender.max_window);
    }
}

/// What is known after a segment, if it is in the window. `sides` are the sender's and the
/// receiver's, `original` is whether the initiator sends it.
pub(super) fn advance(
    mut sides: [Side; 2],
    state: State,
    original: bool,
    facts: &TcpFacts,
) -> Option<[Side; 2]> {
    let flags = facts.flags;
    let syn = flags.contains(TcpFlags::SYN);
    begin(&mut sides, state, original, facts);
    let [mut sender, mut receiver] = sides;

    let rst = flags.contains(TcpFlags::RST);
    let acknowledges = flags.contains(TcpFlags::ACK) && !(rst && facts.acknowledgement == 0);
    let ack = if acknowledges {
        facts.acknowledgement
    } else {
        receiver.end
    };
    let (mut sequence, mut end) = (facts.sequence, end_of(facts));
    if rst && sender.max_window == 0 {
        // Who has not sent yet refuses: it must acknowledge the SYN (RFC 9293 §3.10.7.3).
        return (acknowledges && ack == receiver.end).then_some(sides);
    }
    // Without data, only the acknowledgement counts (keep-alives), but of a RST the sequence number.
    if sequence == end && !rst {
        (sequence, end) = (sender.end, sender.end);
    }
    let slack = sender.max_window.max(ACK_SLACK);
    let oldest = sender.end.wrapping_sub(receiver.max_window);
    if after(sequence, sender.max_end)
        || after(oldest, end)
        || after(ack, receiver.end)
        || after(receiver.end.wrapping_sub(slack), ack)
    {
        return None;
    }

    let window = if syn {
        u32::from(facts.window)
    } else {
        u32::from(facts.window) << sender.scale
    };
    sender.max_window = sender.max_window.max(window);
    sender.end = later(end, sender.end);
    if receiver.max_window != 0 && after(end, sender.max_end) {
        let beyond = end.wrapping_sub(sender.max_end);
        receiver.max_window = receiver.max_window.saturating_add(beyond);
    }
    if acknowledges {
        // A window of 0 lets one octet through: the probe.
        let allowed = ack.wrapping_add(window.max(1));
        receiver.max_end = later(allowed, receiver.max_end);
    }
    Some([sender, receiver])
}

/// Takes in a side's first segment, or its SYN sent anew with another number.
fn begin(sides: &mut [Side; 2], state: State, original: bool, facts: &TcpFacts) {
    let syn = facts.flags.contains(TcpFlags::SYN);
    let anew = syn
        && after(end_of(facts), sides[0].end)
        && matches!(
            (state, original),
            (State::SynSent, true) | (State::SynReceived, false)
        );
    if sides[0].max_window != 0 && !anew {
        return;
    }
    if facts.flags.contains(TcpFlags::RST) {
        return;
    }
    if !syn {
        midstream(sides, facts);
        return;
    }
    sides[0] = opening(facts);
    // Scaling needs the option of both (RFC 7323 §2.2).
    if sides[1].max_window != 0 && !(sides[0].offers_scale && sides[1].offers_scale) {
        sides[0].scale = 0;
        sides[1].scale = 0;
    }
}

/// Whether a sequence number quoted by an ICMP error can be of a segment that `sender` has sent and
/// `receiver` has not yet long acknowledged.
pub(super) fn quoted(sender: &Side, receiver: &Side, sequence: u32) -> bool {
    let slack = receiver.max_window.max(ACK_SLACK);
    sender.max_window != 0
        && !after(sequence, sender.end)
        && !after(sender.end.wrapping_sub(slack), sequence)
}
