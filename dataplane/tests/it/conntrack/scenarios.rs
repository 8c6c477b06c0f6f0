//! What semantics.md promises of connections, one test each.

use dataplane::conntrack::{IcmpError, Redecided, SctpFacts, State};

use super::*;

struct World {
    table: Heap,
    now: Time,
    epoch: u32,
    accepts: Box<dyn Fn(&FlowKey) -> bool>,
}

impl World {
    fn new(settings: Settings) -> World {
        World {
            table: table(settings),
            now: at(0),
            epoch: 1,
            accepts: Box::new(|_| true),
        }
    }

    fn send(&self, key: FlowKey, ends: Ends, facts: Facts) -> Result<Class, DropReason> {
        let decide = |key: &FlowKey| verdict((self.accepts)(key), self.epoch, 0);
        let packet = Packet {
            key,
            ends,
            facts,
            now: self.now,
            epoch: self.epoch,
            decide: &decide,
        };
        drive(&self.table, &packet)
    }

    fn policy(&mut self, accepts: impl Fn(&FlowKey) -> bool + 'static) {
        self.epoch += 1;
        self.accepts = Box::new(accepts);
    }

    fn state(&self, key: FlowKey, ends: Ends) -> Option<State> {
        self.table
            .lookup(&key, &ends, self.now)
            .map(|hit| hit.state)
    }
}

const DENIED: Result<Class, DropReason> = Err(DropReason::ConnectionDenied);
const INVALID: Result<Class, DropReason> = Err(DropReason::ConntrackInvalid);

#[test]
fn a_tcp_connection_is_followed_in_both_directions() {
    let world = World::new(settings(8));
    let (k, e) = (key(Protocol::TCP, 1, 2, 40_000), ends(1, 2));
    let (r, b) = (k.reversed(), back(e));
    assert_eq!(world.send(k, e, tcp(SYN)), Ok(Class::New));
    assert_eq!(world.state(k, e), Some(State::SynSent));
    assert_eq!(world.send(r, b, tcp(SYN_ACK)), Ok(Class::Reply));
    assert_eq!(world.send(k, e, tcp(ACK)), Ok(Class::Established));
    assert_eq!(world.state(r, b), Some(State::Established));
    assert_eq!(world.send(r, b, tcp(FIN)), Ok(Class::Reply));
    assert_eq!(world.send(k, e, tcp(FIN)), Ok(Class::Established));
    assert_eq!(world.send(r, b, tcp(ACK)), Ok(Class::Reply));
    assert_eq!(world.state(k, e), Some(State::TimeWait));
    // A SYN reopens it, from either side, as a connection of its own.
    assert_eq!(world.send(r, b, tcp(SYN)), Ok(Class::New));
    let hit = world.table.lookup(&r, &b, world.now).unwrap();
    assert!(hit.original_direction);
    assert_eq!(
        (hit.state, world.table.counters().entries),
        (State::SynSent, 1)
    );
}

#[test]
fn only_a_syn_makes_a_tcp_entry_but_in_the_adoption_window() {
    let mut world = World::new(settings(8));
    let (k, e) = (key(Protocol::TCP, 1, 2, 40_000), ends(1, 2));
    for flags in [SYN_ACK, ACK, FIN, RST, RST | ACK] {
        assert_eq!(world.send(k, e, tcp(flags)), INVALID, "{flags:?}");
    }
    world.table.adopt_until(at(30));
    for flags in [SYN_ACK, FIN, RST, RST | ACK] {
        assert_eq!(
            world.send(k, e, tcp(flags)),
            INVALID,
            "{flags:?} in the window"
        );
    }
    // Denied one way, accepted the other: the first accepted direction is the initiator's.
    let initiator = k.reversed();
    world.accepts = Box::new(move |key| *key == initiator);
    assert_eq!(world.send(k, e, tcp(ACK)), Err(DropReason::PolicyDenied));
    assert_eq!(world.table.counters().entries, 0);
    assert_eq!(world.send(initiator, back(e), tcp(ACK)), Ok(Class::New));
    assert_eq!(world.send(k, e, tcp(ACK)), Ok(Class::Reply));
    assert_eq!(world.state(k, e), Some(State::Adopted));
    world.now = at(31);
    assert_eq!(
        world.send(key(Protocol::TCP, 3, 2, 1), ends(3, 2), tcp(ACK)),
        INVALID
    );
}

#[test]
fn a_denied_connection_drops_both_directions_and_only_its_initiator_keeps_it() {
    let mut world = World::new(settings(8));
    let (k, e) = (key(Protocol::UDP, 1, 2, 5000), ends(1, 2));
    let (r, b) = (k.reversed(), back(e));
    world.send(k, e, Facts::Udp).unwrap();
    world.send(r, b, Facts::Udp).unwrap();
    // Denied for the initiator, allowed the other way: the server must not open it from its side.
    world.policy(move |key| *key == r);
    assert_eq!(world.send(r, b, Facts::Udp), DENIED);
    assert_eq!(world.send(k, e, Facts::Udp), DENIED);
    // The initiator's datagram refreshes at 50 s, the server's at 100 s does not.
    world.now = at(50);
    assert_eq!(world.send(k, e, Facts::Udp), DENIED);
    world.now = at(100);
    assert_eq!(world.send(r, b, Facts::Udp), DENIED);
    world.now = at(115);
    assert_eq!(world.send(r, b, Facts::Udp), Ok(Class::New));
    // Allowed again, it goes on.
    world.policy(|_| true);
    assert_eq!(world.send(r, b, Facts::Udp), Ok(Class::Established));
}

#[test]
fn a_syn_on_a_denied_connection_is_decided_afresh() {
    let mut world = World::new(settings(8));
    let (k, e) = (key(Protocol::TCP, 1, 2, 40_000), ends(1, 2));
    world.accepts = Box::new(|_| false);
    assert_eq!(world.send(k, e, tcp(SYN)), Err(DropReason::PolicyDenied));
    assert_eq!(world.send(k, e, tcp(ACK)), DENIED);
    assert_eq!(world.send(k.reversed(), back(e), tcp(SYN_ACK)), DENIED);
    // The same epoch, so that only the SYN can be the reason.
    world.accepts = Box::new(|_| true);
    assert_eq!(world.send(k, e, tcp(ACK)), DENIED);
    assert_eq!(world.send(k, e, tcp(SYN)), Ok(Class::New));
    assert_eq!(
        world.send(k.reversed(), back(e), tcp(SYN_ACK)),
        Ok(Class::Reply)
    );
}

#[test]
fn an_older_snapshot_never_undoes_a_newer_decision() {
    let world = World::new(settings(8));
    let (k, e) = (key(Protocol::UDP, 1, 2, 5000), ends(1, 2));
    world.send(k, e, Facts::Udp).unwrap();
    let hit = world.table.lookup(&k, &e, world.now).unwrap();
    let denied = verdict(false, 5, 0);
    let newer = Redecided::Newer {
        verdict: denied,
        counters: counters(&denied),
    };
    let first = counters(&verdict(true, 1, 0));
    assert_eq!(hit.counters, first);
    let decide = |accept, epoch, epochs| {
        let verdict = verdict(accept, epoch & 0xff, 0);
        let counters = counters(&verdict);
        world.table.redecide(hit.handle, verdict, counters, epochs)
    };
    let redecide = |accept, epoch| decide(accept, epoch, epochs(epoch));
    assert_eq!(redecide(false, 5), Redecided::Stored { before: first });
    assert_eq!(redecide(true, 4), newer);
    assert_eq!(redecide(true, 5), newer);
    // One end newer, the other older: not a step forward in time, so it is refused as well.
    let mixed = Epochs {
        source: Epoch(6),
        destination: Epoch(4),
    };
    assert_eq!(decide(true, 6, mixed), newer);
    let hit = world.table.lookup(&k, &e, world.now).unwrap();
    assert!(hit.denied);
    assert_eq!(hit.counters, counters(&denied));
    // Epochs wrap around.
    for epoch in [0x7000_0000, 0xe000_0000, 3] {
        let stored = matches!(redecide(true, epoch), Redecided::Stored { .. });
        assert!(stored, "{epoch:#x}");
    }
    world.table.remove_endpoint(Incarnation(1));
    assert_eq!(redecide(true, 9), Redecided::Gone);
}

#[test]
fn a_new_pod_with_an_old_address_inherits_nothing() {
    let world = World::new(settings(8));
    let (k, e) = (key(Protocol::TCP, 1, 2, 40_000), ends(1, 2));
    world.send(k, e, tcp(SYN)).unwrap();
    world.send(k.reversed(), back(e), tcp(SYN_ACK)).unwrap();
    // The same addresses, but another pod at either end, or another way in.
    for other in [
        ends(9, 2),
        ends(1, 9),
        Ends {
            ingress: PortId(9),
            ..e
        },
    ] {
        assert_eq!(world.table.lookup(&k, &other, world.now), None, "{other:?}");
        assert_eq!(world.send(k, other, tcp(ACK)), INVALID);
    }
    assert_eq!(
        world
            .table
            .lookup(&k.reversed(), &back(ends(9, 2)), world.now),
        None
    );
    // Its own connection takes the place.
    assert_eq!(world.send(k, ends(9, 2), tcp(SYN)), Ok(Class::New));
    assert_eq!(world.table.lookup(&k, &e, world.now), None);
    assert_eq!(
        (
            world.table.charged(Incarnation(1)),
            world.table.charged(Incarnation(9))
        ),
        (0, 1)
    );
    assert_eq!(world.table.remove_endpoint(Incarnation(2)), 1);
    assert_eq!(world.table.counters().entries, 0);
    assert_eq!(world.table.charged(Incarnation(9)), 0);
}

#[test]
fn an_endpoint_cannot_use_up_the_others_share() {
    let world = World::new(Settings {
        quota_per_endpoint: 4,
        ..settings(16)
    });
    let flow = |i: u16| key(Protocol::UDP, 1, 2, i);
    for i in 0..4 {
        assert_eq!(world.send(flow(i), ends(1, 2), Facts::Udp), Ok(Class::New));
        assert_eq!(
            world.send(flow(i).reversed(), ends(2, 1), Facts::Udp),
            Ok(Class::Reply)
        );
    }
    let refused = Err(DropReason::ConntrackQuota);
    assert_eq!(world.send(flow(9), ends(1, 2), Facts::Udp), refused);
    // Flows from outside count for their destination.
    let outside = |i: u16| key(Protocol::UDP, 500, 3, i);
    for i in 0..4 {
        assert_eq!(
            world.send(outside(i), ends(0, 3), Facts::Udp),
            Ok(Class::New)
        );
        world
            .send(outside(i).reversed(), ends(3, 0), Facts::Udp)
            .unwrap();
    }
    assert_eq!(world.send(outside(9), ends(0, 3), Facts::Udp), refused);
    assert_eq!(world.table.charged(Incarnation(3)), 4);
    // Others are not affected, and between nodes there is nobody to charge.
    assert_eq!(
        world.send(key(Protocol::UDP, 4, 2, 1), ends(4, 2), Facts::Udp),
        Ok(Class::New)
    );
    assert_eq!(
        world.send(key(Protocol::UDP, 7, 8, 1), ends(0, 0), Facts::Udp),
        Ok(Class::New)
    );
    assert_eq!(world.table.counters().quota, 2);
}

#[test]
fn unreplied_entries_go_first_then_the_table_is_full() {
    let mut world = World::new(settings(8));
    let flow = |i: u16| key(Protocol::UDP, 1, 2, i);
    for i in 0..8 {
        world.now = at(u64::from(i));
        world.send(flow(i), ends(1, 2), Facts::Udp).unwrap();
        if i != 3 && i != 5 {
            world
                .send(flow(i).reversed(), ends(2, 1), Facts::Udp)
                .unwrap();
        }
    }
    // The older of the two unreplied ones goes, then the other, then nothing more.
    for (new, gone) in [(10, 3), (11, 5)] {
        assert_eq!(
            world.send(flow(new), ends(1, 2), Facts::Udp),
            Ok(Class::New)
        );
        assert_eq!(world.state(flow(gone), ends(1, 2)), None);
        world
            .send(flow(new).reversed(), ends(2, 1), Facts::Udp)
            .unwrap();
    }
    assert_eq!(
        world.send(flow(12), ends(1, 2), Facts::Udp),
        Err(DropReason::ConntrackFull)
    );
    let counters = world.table.counters();
    assert_eq!(
        (counters.entries, counters.evicted, counters.full),
        (8, 2, 1)
    );
    // An established connection that policy has denied stays, too.
    world.policy(|_| false);
    assert_eq!(world.send(flow(0), ends(1, 2), Facts::Udp), DENIED);
    world.policy(|_| true);
    assert_eq!(
        world.send(flow(13), ends(1, 2), Facts::Udp),
        Err(DropReason::ConntrackFull)
    );
    // Idle ones make room.
    world.now = at(400);
    assert_eq!(world.send(flow(14), ends(1, 2), Facts::Udp), Ok(Class::New));
}

/// Its entries lie close together in a large table: who looks at a few from the beginning finds
/// none of them.
#[test]
fn an_endpoint_at_its_quota_whose_connections_are_closed_opens_others() {
    let world = World::new(Settings {
        quota_per_endpoint: 200,
        ..settings(20_000)
    });
    // Another endpoint's connections, which stay.
    let others = |i: u16| key(Protocol::UDP, 3, 4, i);
    for i in 0..150 {
        world.send(others(i), ends(3, 4), Facts::Udp).unwrap();
        world
            .send(others(i).reversed(), ends(4, 3), Facts::Udp)
            .unwrap();
    }
    let (e, b) = (ends(1, 2), back(ends(1, 2)));
    for i in 0..5_000 {
        let k = key(Protocol::TCP, 1, 2, i);
        assert_eq!(world.send(k, e, tcp(SYN)), Ok(Class::New), "{i}");
        world.send(k.reversed(), b, tcp(SYN_ACK)).unwrap();
        world.send(k, e, tcp(ACK)).unwrap();
        world.send(k, e, tcp(RST)).unwrap();
    }
    assert_eq!(world.table.charged(Incarnation(1)), 200);
    assert_eq!(world.table.charged(Incarnation(3)), 150);
    assert_eq!(world.table.counters().quota, 0);
}

/// A flood that nobody answers pushes out itself, not the connections that were there.
#[test]
fn a_flood_at_its_endpoints_quota_replaces_itself() {
    let world = World::new(Settings {
        quota_per_endpoint: 200,
        ..settings(20_000)
    });
    let flow = |i: u16| key(Protocol::UDP, 1, 2, i);
    for i in 0..100 {
        world.send(flow(i), ends(1, 2), Facts::Udp).unwrap();
        world
            .send(flow(i).reversed(), ends(2, 1), Facts::Udp)
            .unwrap();
    }
    for i in 100..5_000 {
        assert_eq!(
            world.send(flow(i), ends(1, 2), Facts::Udp),
            Ok(Class::New),
            "{i}"
        );
    }
    assert!((0..100).all(|i| world.state(flow(i), ends(1, 2)).is_some()));
    assert_eq!(world.table.charged(Incarnation(1)), 200);
}

/// Entries are given out in order, so that those of one kind are neighbours.
#[test]
fn a_full_table_finds_room_wherever_it_is() {
    let world = World::new(settings(20_000));
    let flow = |i: u32| key(Protocol::UDP, i, 2, 1);
    for i in 0..20_000 {
        let k = flow(i + 10);
        world.send(k, ends(1, 2), Facts::Udp).unwrap();
        if i < 15_000 {
            world.send(k.reversed(), ends(2, 1), Facts::Udp).unwrap();
        }
    }
    for i in 20_000..24_000 {
        let k = flow(i + 10);
        assert_eq!(world.send(k, ends(1, 2), Facts::Udp), Ok(Class::New));
    }
    assert_eq!(world.table.counters().evicted, 4_000);
}

#[test]
fn every_state_has_its_timeout() {
    type Row<'a> = (Protocol, &'a [(bool, Facts)], u64);
    let rows: [Row<'_>; 6] = [
        (Protocol::UDP, &[(true, Facts::Udp)], 30),
        (
            Protocol::UDP,
            &[(true, Facts::Udp), (false, Facts::Udp)],
            120,
        ),
        (Protocol::TCP, &[(true, tcp(SYN))], 60),
        (
            Protocol::TCP,
            &[(true, tcp(SYN)), (false, tcp(SYN_ACK)), (true, tcp(ACK))],
            7440,
        ),
        (Protocol::TCP, &[(true, tcp(SYN)), (false, tcp(RST))], 10),
        (Protocol(47), &[(true, Facts::Other)], 60),
    ];
    for (protocol, packets, timeout_s) in rows {
        let mut world = World::new(settings(4));
        let (k, e) = (key(protocol, 1, 2, 7), ends(1, 2));
        for (original, facts) in packets {
            let (k, e) = if *original {
                (k, e)
            } else {
                (k.reversed(), back(e))
            };
            world.send(k, e, *facts).unwrap();
        }
        world.now = at(timeout_s);
        assert!(world.state(k, e).is_some(), "{protocol:?} {packets:?}");
        assert_eq!(world.table.expire(0, 100, world.now).removed, 0);
        world.now = at(timeout_s + 1);
        assert!(world.state(k, e).is_none(), "{protocol:?} {packets:?}");
        let expired = world.table.expire(0, 100, world.now);
        assert_eq!((expired.removed, expired.cursor), (1, 0));
        assert_eq!(world.table.counters().entries, 0);
        assert_eq!(world.table.charged(Incarnation(1)), 0);
    }
}

#[test]
fn expiry_goes_on_where_it_stopped() {
    let mut world = World::new(settings(10));
    for i in 0..10 {
        world
            .send(key(Protocol::UDP, 1, 2, i), ends(1, 2), Facts::Udp)
            .unwrap();
    }
    world.now = at(100);
    let (mut cursor, mut removed, mut rounds) = (0, 0, 0);
    loop {
        let expired = world.table.expire(cursor, 4, world.now);
        removed += expired.removed;
        rounds += 1;
        cursor = expired.cursor;
        if cursor == 0 {
            break;
        }
    }
    assert_eq!((removed, rounds), (10, 3));
}

#[test]
fn icmp_errors_belong_to_a_connection_and_come_from_who_saw_it() {
    let mut world = World::new(Settings {
        strict_tcp: true,
        ..settings(8)
    });
    let (k, e) = (key(Protocol::TCP, 1, 200, 40_000), ends(1, 0));
    let syn = TcpFacts {
        flags: SYN,
        sequence: 1000,
        window: 100,
        ..TcpFacts::default()
    };
    world.send(k, e, Facts::Tcp(syn)).unwrap();
    let good = IcmpError {
        inner: k,
        inner_source: Incarnation(1),
        inner_destination: Incarnation::NONE,
        sender: Incarnation::NONE,
        destination: k.source,
        tcp_sequence: Some(1000),
        mtu: Some(1400),
    };
    let hit = world.table.related(&good, world.now).unwrap();
    assert!(hit.original_direction);
    let other = Address::v4(0x0a00_0063);
    let bad = [
        IcmpError {
            inner: k.reversed(),
            ..good
        },
        IcmpError {
            inner: FlowKey {
                source_port: 1,
                ..k
            },
            ..good
        },
        IcmpError {
            destination: other,
            ..good
        },
        IcmpError {
            sender: Incarnation(7),
            ..good
        },
        IcmpError {
            inner_source: Incarnation(7),
            ..good
        },
        IcmpError {
            mtu: Some(575),
            ..good
        },
        IcmpError {
            tcp_sequence: Some(1002),
            ..good
        },
        IcmpError {
            tcp_sequence: None,
            ..good
        },
    ];
    for error in bad {
        let got = world.table.related(&error, world.now);
        assert_eq!(got, Err(DropReason::UnrelatedIcmpError), "{error:?}");
    }
    // It keeps nothing alive.
    world.now = at(59);
    assert!(world.table.related(&good, world.now).is_ok());
    world.now = at(62);
    assert!(world.table.related(&good, world.now).is_err());
}

#[test]
fn echo_replies_need_a_request() {
    let world = World::new(settings(8));
    let (k, e) = (key(Protocol::ICMP, 1, 2, 7), ends(1, 2));
    let echo = |request| Facts::Icmp(dataplane::conntrack::IcmpFacts { request });
    assert_eq!(world.send(k, e, echo(false)), INVALID);
    assert_eq!(world.send(k, e, echo(true)), Ok(Class::New));
    assert_eq!(
        world.send(k.reversed(), back(e), echo(false)),
        Ok(Class::Reply)
    );
    // Under identifier 0 the other side's own ping has this key too, and must not pass as an answer.
    assert_eq!(world.send(k.reversed(), back(e), echo(true)), INVALID);
}

#[test]
fn sctp_checks_tags_and_closes() {
    let world = World::new(settings(8));
    let (k, e) = (key(Protocol::SCTP, 1, 2, 7), ends(1, 2));
    let (r, b) = (k.reversed(), back(e));
    let chunk = |chunk_type, tag, initiate_tag| {
        Facts::Sctp(SctpFacts {
            chunk_type,
            verification_tag: tag,
            initiate_tag,
            chunk_flags: 0,
        })
    };
    assert_eq!(world.send(k, e, chunk(1, 0, 77)), Ok(Class::New));
    assert_eq!(world.send(r, b, chunk(2, 77, 99)), Ok(Class::Reply));
    assert_eq!(world.send(k, e, chunk(10, 99, 0)), Ok(Class::Established));
    assert_eq!(world.send(r, b, chunk(11, 77, 0)), Ok(Class::Reply));
    assert_eq!(world.state(k, e), Some(State::SctpEstablished));
    // A forged ABORT, then a true one.
    assert_eq!(world.send(r, b, chunk(6, 78, 0)), INVALID);
    assert_eq!(world.state(k, e), Some(State::SctpEstablished));
    assert_eq!(world.send(r, b, chunk(6, 77, 0)), Ok(Class::Reply));
    assert_eq!(world.state(k, e), Some(State::SctpClosed));
    assert_eq!(world.send(k, e, chunk(1, 0, 78)), Ok(Class::New));
}

#[test]
fn facts_of_another_protocol_are_refused() {
    let world = World::new(settings(8));
    let (k, e) = (key(Protocol::UDP, 1, 2, 7), ends(1, 2));
    let internal = Err(DropReason::Internal);
    assert_eq!(world.send(k, e, tcp(SYN)), internal);
    world.send(k, e, Facts::Udp).unwrap();
    assert_eq!(world.send(k, e, tcp(SYN)), internal);
}

#[test]
fn a_flow_to_itself_has_one_direction() {
    let world = World::new(settings(8));
    let k = FlowKey {
        source_port: 80,
        ..key(Protocol::UDP, 1, 1, 80)
    };
    assert_eq!(world.send(k, ends(1, 1), Facts::Udp), Ok(Class::New));
    assert_eq!(
        world.send(k.reversed(), ends(1, 1), Facts::Udp),
        Ok(Class::Established)
    );
}

#[test]
fn a_full_table_holds_exactly_its_capacity_whatever_the_seed() {
    for seed in 0..20 {
        let capacity = 700;
        let world = World::new(Settings {
            hash_seed: [seed, !seed],
            ..settings(capacity)
        });
        for i in 0..capacity as u16 {
            let k = key(Protocol::UDP, 1, 2, i);
            assert_eq!(
                world.send(k, ends(1, 2), Facts::Udp),
                Ok(Class::New),
                "{i} seed {seed}"
            );
            world.send(k.reversed(), ends(2, 1), Facts::Udp).unwrap();
        }
        let listed = world.table.entries(world.now);
        assert_eq!(listed.count(), capacity as usize);
        let one_more = world.send(key(Protocol::UDP, 1, 2, 9999), ends(1, 2), Facts::Udp);
        assert_eq!(one_more, Err(DropReason::ConntrackFull));
    }
}
