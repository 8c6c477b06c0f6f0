//! What is left to decide once the peer is known: protocol and port.
//!
//! Protocols and ports lie on one line: 65,536 places each for TCP, UDP and SCTP, and at its end one
//! place for each protocol, where its packets without a port are. A class of peers has that line cut
//! into stretches, each with one decision.

use std::hint::select_unpredictable;

use super::ir::{PortRange, Ports};
use crate::Protocol;

/// The protocols with ports, in the order of their stretches.
const WITH_PORTS: [Protocol; 3] = [Protocol::TCP, Protocol::UDP, Protocol::SCTP];

/// The first of the places without a port, by protocol number.
const NO_PORT: u32 = (WITH_PORTS.len() as u32) << 16;

/// One after the last place.
pub(super) const END: u32 = NO_PORT + 256;

/// The place of a packet on the line.
#[inline]
pub(super) fn place(protocol: Protocol, port: Option<u16>) -> u32 {
    // No branch: protocols take turns that nobody can predict.
    let is = |other: Protocol| u32::from(protocol == other);
    let start = is(Protocol::UDP) << 16 | is(Protocol::SCTP) << 17;
    let has_ports = start | is(Protocol::TCP);
    let has_port = has_ports != 0 && port.is_some();
    let at = start | u32::from(port.unwrap_or_default());
    select_unpredictable(has_port, at, NO_PORT + u32::from(protocol.0))
}

/// The places that `ports` holds: firsts and one after the lasts. Ranges that nothing can match
/// are left out.
pub(super) fn places(ports: &Ports) -> Vec<(u32, u32)> {
    let of = |range: &PortRange| {
        if range.first > range.last {
            return None;
        }
        let Some(start) = WITH_PORTS.iter().position(|&p| p == range.protocol) else {
            let only = NO_PORT + u32::from(range.protocol.0);
            return Some((only, only + 1));
        };
        let start = (start as u32) << 16;
        Some((
            start + u32::from(range.first),
            start + u32::from(range.last) + 1,
        ))
    };
    match ports {
        Ports::Any => vec![(0, END)],
        Ports::List(ranges) => ranges.iter().filter_map(of).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_protocols_do_not_touch() {
        let edge = |protocol, port| place(protocol, Some(port));
        let in_order = [
            edge(Protocol::TCP, 0),
            edge(Protocol::TCP, u16::MAX),
            edge(Protocol::UDP, 0),
            edge(Protocol::UDP, u16::MAX),
            edge(Protocol::SCTP, 0),
            edge(Protocol::SCTP, u16::MAX),
            edge(Protocol::ICMP, 7),
            edge(Protocol::ICMPV6, 7),
        ];
        assert!(in_order.is_sorted_by(|a, b| a < b), "{in_order:?}");
        let all_tcp = PortRange {
            protocol: Protocol::TCP,
            first: 0,
            last: u16::MAX,
        };
        let held = places(&Ports::List([all_tcp].into()));
        let without = place(Protocol::TCP, None);
        assert!(
            held.iter()
                .all(|&(first, end)| without < first || end <= without)
        );
        for (at, protocol) in (0..).zip(WITH_PORTS) {
            assert_eq!(edge(protocol, 9), at << 16 | 9, "as `places` has it");
        }
    }
}
