//! The state machines, as tables.

use super::facts::{Facts, IcmpFacts, SctpFacts, TcpFacts, TcpFlags};
use super::sctp::{Tags, chunk};
use super::state::Step::{self, Invalid, Pass, Restart, To};
use super::state::{State, State::*};
use super::window;

const O: bool = true;
const R: bool = false;

fn tcp(flags: &str) -> TcpFacts {
    let flags = flags.chars().fold(TcpFlags::empty(), |flags, c| {
        flags
            | match c {
                'S' => TcpFlags::SYN,
                'A' => TcpFlags::ACK,
                'F' => TcpFlags::FIN,
                'R' => TcpFlags::RST,
                _ => TcpFlags::PSH,
            }
    });
    TcpFacts {
        flags,
        ..TcpFacts::default()
    }
}

/// Every (state, segment, direction), one row per segment and direction.
#[test]
fn tcp_transitions() {
    let states = [
        SynSent,
        SynSent2,
        SynReceived,
        Established,
        FinWait,
        FinWaitReply,
        CloseWait,
        CloseWaitReply,
        LastAck,
        TimeWait,
        Close,
        Adopted,
    ];
    #[rustfmt::skip]
    let rows: [(&str, bool, [Step; 12]); 10] = [
        ("S", O, [To(SynSent), To(SynSent2), Pass, Pass, Restart, Restart, Restart, Restart,
                  Restart, Restart, Restart, Restart]),
        ("S", R, [To(SynSent2), To(SynSent2), Invalid, Invalid, Restart, Restart, Restart, Restart,
                  Restart, Restart, Restart, Restart]),
        ("SA", O, [Invalid, To(SynReceived), Pass, Pass, Invalid, Invalid, Invalid, Invalid,
                   Invalid, Invalid, Invalid, Pass]),
        ("SA", R, [To(SynReceived), To(SynReceived), Pass, Pass, Pass, Pass, Pass, Pass,
                   Pass, Pass, Pass, Pass]),
        ("FA", O, [Invalid, Invalid, To(FinWait), To(FinWait), To(FinWait), To(LastAck),
                   To(CloseWait), To(LastAck), To(LastAck), To(TimeWait), To(Close), To(FinWait)]),
        ("FA", R, [Invalid, Invalid, To(FinWaitReply), To(FinWaitReply), To(LastAck),
                   To(FinWaitReply), To(LastAck), To(CloseWaitReply), To(LastAck), To(TimeWait),
                   To(Close), To(FinWaitReply)]),
        ("A", O, [Invalid, Invalid, To(Established), To(Established), To(FinWait),
                  To(CloseWaitReply), To(CloseWait), To(CloseWaitReply), To(TimeWait), To(TimeWait),
                  To(Close), To(Adopted)]),
        ("A", R, [Pass, Pass, To(SynReceived), To(Established), To(CloseWait), To(FinWaitReply),
                  To(CloseWait), To(CloseWaitReply), To(TimeWait), To(TimeWait), To(Close),
                  To(Adopted)]),
        ("RA", O, [To(Close), To(Close), To(Close), To(Close), To(Close), To(Close), To(Close),
                   To(Close), To(Close), To(Close), Pass, To(Close)]),
        ("R", R, [To(Close), To(Close), To(Close), To(Close), To(Close), To(Close), To(Close),
                  To(Close), To(Close), To(Close), Pass, To(Close)]),
    ];
    for (flags, original, expected) in rows {
        for (state, expected) in states.into_iter().zip(expected) {
            let got = Facts::Tcp(tcp(flags)).step(state, original);
            assert_eq!(got, expected, "{flags} original={original} in {state:?}");
        }
    }
    for state in states {
        for flags in ["", "P", "SF"] {
            assert_eq!(
                Facts::Tcp(tcp(flags)).step(state, O),
                Invalid,
                "{flags:?} {state:?}"
            );
        }
    }
}

fn walk(first: State, steps: &[(&str, bool, State)]) {
    let mut state = first;
    for (i, (flags, original, expected)) in steps.iter().enumerate() {
        match Facts::Tcp(tcp(flags)).step(state, *original) {
            To(to) => state = to,
            Pass => {}
            step => panic!("step {i} ({flags}): {step:?} in {state:?}"),
        }
        assert_eq!(state, *expected, "step {i} ({flags})");
    }
}

#[test]
fn tcp_lives() {
    let open = [
        ("SA", R, SynReceived),
        ("A", O, Established),
        ("PA", R, Established),
    ];
    walk(SynSent, &open);
    // Normal close by the initiator; the FIN is sent twice.
    let close = [
        ("FA", O, FinWait),
        ("FA", O, FinWait),
        ("A", R, CloseWait),
        ("PA", R, CloseWait),
        ("FA", R, LastAck),
        ("A", O, TimeWait),
    ];
    walk(Established, &close);
    // Close by the other side, and both at once.
    let reply = [
        ("FA", R, FinWaitReply),
        ("A", O, CloseWaitReply),
        ("FA", O, LastAck),
    ];
    walk(Established, &reply);
    walk(
        Established,
        &[
            ("FA", R, FinWaitReply),
            ("FA", O, LastAck),
            ("A", R, TimeWait),
        ],
    );
    // Simultaneous open (RFC 9293 figure 8).
    let both = [
        ("S", R, SynSent2),
        ("SA", O, SynReceived),
        ("SA", R, SynReceived),
    ];
    walk(SynSent, &both);
    // Refused.
    walk(SynSent, &[("RA", R, Close)]);
}

#[test]
fn only_openings_make_entries() {
    for flags in ["SA", "A", "FA", "RA", "R", "F", "SF", "SR", ""] {
        assert!(!Facts::Tcp(tcp(flags)).opens(), "{flags}");
    }
    for flags in ["S", "SP"] {
        assert!(Facts::Tcp(tcp(flags)).opens(), "{flags}");
    }
    for (flags, adoptable) in [
        ("A", true),
        ("PA", true),
        ("SA", false),
        ("FA", false),
        ("RA", false),
    ] {
        assert_eq!(Facts::Tcp(tcp(flags)).adoptable(), adoptable, "{flags}");
    }
    assert!(Facts::Icmp(IcmpFacts { request: true }).opens());
    assert!(!Facts::Icmp(IcmpFacts { request: false }).opens());
}

#[test]
fn datagrams() {
    let icmp = |request| Facts::Icmp(IcmpFacts { request });
    let rows = [
        (Facts::Udp, UdpUnreplied, O, To(UdpUnreplied)),
        (Facts::Udp, UdpUnreplied, R, To(UdpReplied)),
        (Facts::Udp, UdpReplied, O, To(UdpReplied)),
        (Facts::Udp, UdpReplied, R, To(UdpReplied)),
        (Facts::Other, OtherUnreplied, R, To(OtherReplied)),
        (Facts::Other, OtherReplied, O, To(OtherReplied)),
        (icmp(true), IcmpUnreplied, O, To(IcmpUnreplied)),
        (icmp(true), IcmpReplied, O, To(IcmpReplied)),
        (icmp(false), IcmpUnreplied, R, To(IcmpReplied)),
        // The other end's own ping with the same identifier, and an answer that nobody asked for.
        (icmp(true), IcmpUnreplied, R, Invalid),
        (icmp(false), IcmpReplied, O, Invalid),
    ];
    for (facts, state, original, expected) in rows {
        assert_eq!(
            facts.step(state, original),
            expected,
            "{facts:?} {state:?} {original}"
        );
    }
}

fn sctp(chunk_type: u8, verification_tag: u32) -> SctpFacts {
    let initiates = matches!(chunk_type, chunk::INIT | chunk::INIT_ACK);
    SctpFacts {
        chunk_type,
        verification_tag,
        initiate_tag: if initiates { 77 } else { 0 },
        chunk_flags: 0,
    }
}

#[test]
fn sctp_transitions() {
    let states = [
        SctpClosed,
        SctpCookieWait,
        SctpCookieEchoed,
        SctpEstablished,
        SctpShutdownSent,
        SctpShutdownReceived,
        SctpShutdownAckSent,
        SctpHeartbeatSent,
        Adopted,
    ];
    let stay = states.map(To);
    let changed = |changes: &[(usize, Step)]| {
        let mut row = stay;
        for (at, step) in changes {
            row[*at] = *step;
        }
        row
    };
    let lone = (7, Invalid);
    let rows = [
        (
            chunk::INIT,
            O,
            changed(&[(0, Restart), (7, To(SctpCookieWait)), (8, Restart)]),
        ),
        (chunk::INIT, R, changed(&[(0, Restart), (8, Restart)])),
        (chunk::INIT_ACK, R, changed(&[lone])),
        (
            chunk::COOKIE_ECHO,
            O,
            changed(&[(1, To(SctpCookieEchoed)), lone]),
        ),
        (
            chunk::COOKIE_ACK,
            R,
            changed(&[(2, To(SctpEstablished)), lone]),
        ),
        (chunk::ABORT, R, [To(SctpClosed); 9]),
        (
            chunk::SHUTDOWN,
            O,
            changed(&[(3, To(SctpShutdownSent)), lone, (8, To(SctpShutdownSent))]),
        ),
        (
            chunk::SHUTDOWN,
            R,
            changed(&[
                (3, To(SctpShutdownReceived)),
                lone,
                (8, To(SctpShutdownReceived)),
            ]),
        ),
        (
            chunk::SHUTDOWN_ACK,
            R,
            changed(&[
                (4, To(SctpShutdownAckSent)),
                (5, To(SctpShutdownAckSent)),
                lone,
            ]),
        ),
        (
            chunk::SHUTDOWN_COMPLETE,
            O,
            changed(&[(6, To(SctpClosed)), lone]),
        ),
        (chunk::ERROR, R, changed(&[(2, To(SctpClosed)), lone])),
        (chunk::ERROR, O, changed(&[lone])),
        (chunk::HEARTBEAT, O, stay),
        (
            chunk::HEARTBEAT_ACK,
            R,
            changed(&[(7, To(SctpEstablished))]),
        ),
        (chunk::DATA, O, changed(&[lone])),
        (chunk::SACK, R, changed(&[lone])),
    ];
    for (chunk_type, original, expected) in rows {
        let tag = if chunk_type == chunk::INIT { 0 } else { 5 };
        for (state, expected) in states.into_iter().zip(expected) {
            let got = Facts::Sctp(sctp(chunk_type, tag)).step(state, original);
            assert_eq!(
                got, expected,
                "chunk {chunk_type} original={original} in {state:?}"
            );
        }
    }
    // RFC 9260 §8.5.1 (A): an INIT carries no tag.
    assert_eq!(
        Facts::Sctp(sctp(chunk::INIT, 5)).step(SctpClosed, O),
        Invalid
    );
    assert!(!Facts::Sctp(sctp(chunk::INIT, 5)).opens());
}

#[test]
fn sctp_ends_only_with_its_tag() {
    // The initiator's INIT announced 77: what comes back carries 77.
    let tags = Tags {
        by_direction: [None, Some(77)],
    };
    let abort = |tag, flags| SctpFacts {
        chunk_flags: flags,
        ..sctp(chunk::ABORT, tag)
    };
    assert_eq!(tags.advance(SctpEstablished, R, &abort(78, 0)), None);
    assert_eq!(tags.advance(SctpEstablished, R, &abort(77, 0)), Some(tags));
    assert_eq!(
        tags.advance(SctpEstablished, R, &sctp(chunk::SHUTDOWN, 78)),
        None
    );
    // Reflected tag (T): the initiator's peer's.
    assert_eq!(tags.advance(SctpEstablished, O, &abort(77, 1)), Some(tags));
    assert_eq!(tags.advance(SctpEstablished, O, &abort(78, 1)), None);
    let learnt = tags.advance(SctpCookieWait, O, &sctp(chunk::COOKIE_ECHO, 9));
    assert_eq!(
        learnt,
        Some(Tags {
            by_direction: [Some(9), Some(77)]
        })
    );
}

#[test]
fn state_numbers_round_trip() {
    for state in State::ALL {
        assert_eq!(State::from_bits(*state as u8), Some(*state));
        assert!((*state as u8) < 32);
    }
    assert_eq!(State::from_bits(0), None);
    assert_eq!(State::from_bits(1), None);
}

/// A conversation of two ends, segment by segment.
struct Talk {
    sides: [window::Side; 2],
    state: State,
}

impl Talk {
    fn open(client_scale: Option<u8>, server_scale: Option<u8>) -> Talk {
        let syn = TcpFacts {
            sequence: 1000,
            window: 64_000,
            window_scale: client_scale,
            ..tcp("S")
        };
        let mut talk = Talk {
            sides: window::first(&syn),
            state: SynSent,
        };
        let syn_ack = TcpFacts {
            sequence: 0xffff_fff0,
            acknowledgement: 1001,
            window: 65_000,
            window_scale: server_scale,
            ..tcp("SA")
        };
        assert!(talk.say(R, syn_ack));
        talk.state = SynReceived;
        assert!(talk.say(O, segment("A", 1001, 0xffff_fff1, 500, 0)));
        talk.state = Established;
        talk
    }

    fn say(&mut self, original: bool, facts: TcpFacts) -> bool {
        let [a, b] = self.sides;
        let sides = if original { [a, b] } else { [b, a] };
        match window::advance(sides, self.state, original, &facts) {
            Some([sender, receiver]) => {
                self.sides = if original {
                    [sender, receiver]
                } else {
                    [receiver, sender]
                };
                true
            }
            None => false,
        }
    }
}

fn segment(flags: &str, sequence: u32, acknowledgement: u32, window: u16, len: u32) -> TcpFacts {
    TcpFacts {
        sequence,
        acknowledgement,
        window,
        payload_len: len,
        ..tcp(flags)
    }
}

#[test]
fn windows_follow_data_across_the_wrap() {
    let mut talk = Talk::open(Some(7), Some(7));
    // The server sends across 2^32; the client's window is 500 << 7 = 64,000.
    assert!(talk.say(R, segment("PA", 0xffff_fff1, 1001, 500, 1400)));
    assert!(talk.say(O, segment("A", 1001, 1385, 500, 0)));
    assert!(talk.say(R, segment("PA", 1385, 1001, 500, 1400)));
    // A retransmission is in the window; a keep-alive, too.
    assert!(talk.say(R, segment("PA", 0xffff_fff1, 1001, 500, 1400)));
    assert!(talk.say(O, segment("A", 1000, 1385, 500, 0)));
}

#[test]
fn windows_refuse_what_cannot_be() {
    let fresh = || Talk::open(Some(0), Some(0));
    // Beyond what the receiver takes, before what it has left behind, acknowledging the unsent.
    assert!(!fresh().say(O, segment("PA", 1001 + 70_000, 0xffff_fff1, 500, 10)));
    assert!(!fresh().say(
        O,
        segment("PA", 1001_u32.wrapping_sub(70_000), 0xffff_fff1, 500, 10)
    ));
    assert!(!fresh().say(O, segment("A", 1001, 5000, 500, 0)));
    assert!(!fresh().say(O, segment("A", 1001, 0xffff_fff1 - 100_000, 500, 0)));
    // A blind RST is judged by its sequence number.
    assert!(!fresh().say(R, segment("R", 0x7000_0000, 0, 0, 0)));
    assert!(fresh().say(R, segment("R", 0xffff_fff1, 0, 0, 0)));
}

#[test]
fn scaling_needs_both_options() {
    for (client, server, scaled) in [
        (Some(7), Some(7), true),
        (Some(7), None, false),
        (None, Some(7), false),
    ] {
        let mut talk = Talk::open(client, server);
        // The server may send 500 << 7 or only the SYN's 64,000 / 500; it has announced no more.
        let far = 0xffff_fff1_u32.wrapping_add(600);
        let passes = talk.say(R, segment("PA", far, 1001, 500, 10));
        assert_eq!(passes, scaled, "{client:?} {server:?}");
    }
}

#[test]
fn a_refusal_of_a_syn_is_in_the_window() {
    let syn = TcpFacts {
        sequence: 1000,
        window: 100,
        ..tcp("S")
    };
    let mut talk = Talk {
        sides: window::first(&syn),
        state: SynSent,
    };
    assert!(!talk.say(R, segment("RA", 0, 5, 0, 0)));
    assert!(talk.say(R, segment("RA", 0, 1001, 0, 0)));
}

#[test]
fn adopted_connections_go_on() {
    let first = segment("PA", 5000, 9000, 500, 100);
    let mut talk = Talk {
        sides: window::first(&first),
        state: Adopted,
    };
    assert!(talk.say(R, segment("PA", 9000, 5100, 300, 1000)));
    assert!(talk.say(O, segment("PA", 5100, 10_000, 500, 100)));
    assert!(!talk.say(R, segment("R", 0x4000_0000, 0, 0, 0)));
}

#[test]
fn quoted_sequences_must_have_been_sent() {
    let talk = Talk::open(Some(0), Some(0));
    let [client, server] = talk.sides;
    assert!(window::quoted(&client, &server, 1000));
    assert!(!window::quoted(&client, &server, 1001 + 5));
    assert!(!window::quoted(
        &client,
        &server,
        1001_u32.wrapping_sub(200_000)
    ));
}

/// The short way ([`Facts::goes_on`]) is one of the steps, and no opinion of its own: over all flags,
/// states and directions.
#[test]
fn what_goes_on_steps_to_where_it_stands() {
    let segments = (0..=u8::MAX).map(|bits| {
        Facts::Tcp(TcpFacts {
            flags: TcpFlags::from_bits_retain(bits),
            ..TcpFacts::default()
        })
    });
    let icmp = [O, R].map(|request| Facts::Icmp(IcmpFacts { request }));
    let sctp = Facts::Sctp(SctpFacts {
        chunk_type: chunk::HEARTBEAT,
        ..SctpFacts::default()
    });
    let mut went_on = 0;
    for facts in segments.chain(icmp).chain([sctp, Facts::Udp, Facts::Other]) {
        for (state, original) in State::ALL
            .iter()
            .flat_map(|state| [(*state, O), (*state, R)])
        {
            if facts.goes_on(state, original) {
                went_on += 1;
                let step = facts.step(state, original);
                assert_eq!(
                    step,
                    To(state),
                    "{facts:?} in {state:?}, original: {original}"
                );
                assert!(state.fits_facts(&facts), "{facts:?} in {state:?}");
            }
        }
    }
    assert!(
        went_on >= 5,
        "ordinary packets of TCP and UDP do: {went_on}"
    );
}
