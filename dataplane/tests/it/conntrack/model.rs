//! The table against a naive model: one map, one time, no sharing.

use std::collections::HashMap;

use dataplane::conntrack::{IcmpFacts, State};
use proptest::prelude::*;

use super::*;

/// Time goes in steps that no sum of which comes near a time-out.
const STEP_S: u64 = 7;
const FLOWS: u16 = 6;

#[derive(Clone, Debug)]
enum Op {
    Packet {
        flow: u16,
        reverse: bool,
        kind: u8,
        pods: u8,
    },
    Later(u8),
    Policy,
    Expire,
    Remove(u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        20 => (0..FLOWS, any::<bool>(), 0..5_u8, 0..8_u8)
            .prop_map(|(flow, reverse, kind, pods)| Op::Packet { flow, reverse, kind, pods: pods / 6 }),
        4 => (1..12_u8).prop_map(Op::Later),
        2 => Just(Op::Policy),
        2 => Just(Op::Expire),
        1 => (0..4_u8).prop_map(Op::Remove),
    ]
}

struct Connection {
    initiator: FlowKey,
    ends: Ends,
    accept: bool,
    epoch: u32,
    state: State,
    seen_s: u64,
}

#[derive(Default)]
struct Model {
    connections: HashMap<[(Address, u16); 2], Connection>,
    now_s: u64,
}

/// The policy: an arbitrary function of epoch and direction that denies a third.
fn accepts(epoch: u32, key: &FlowKey) -> bool {
    let mix = u64::from(epoch) * 31 + (key.source.0 as u64) * 7 + u64::from(key.source_port) * 3;
    !mix.is_multiple_of(3)
}

fn timeout_s(c: &Connection) -> u64 {
    match c.state {
        _ if !c.accept => 60,
        State::UdpUnreplied | State::IcmpUnreplied | State::IcmpReplied => 30,
        State::UdpReplied => 120,
        State::SynSent | State::SynSent2 | State::SynReceived => 60,
        State::Established => 7440,
        _ => 10,
    }
}

fn slot(key: &FlowKey) -> [(Address, u16); 2] {
    let mut ends = [
        (key.source, key.source_port),
        (key.destination, key.destination_port),
    ];
    ends.sort();
    ends
}

impl Model {
    fn packet(
        &mut self,
        key: FlowKey,
        ends: Ends,
        facts: Facts,
        epoch: u32,
    ) -> Result<Class, DropReason> {
        let now_s = self.now_s;
        let begins = matches!(facts, Facts::Tcp(t) if t.flags == SYN);
        let belongs = self.connections.get_mut(&slot(&key)).filter(|c| {
            let original = c.initiator == key;
            let same = if original {
                c.ends == ends
            } else {
                (c.ends.source, c.ends.destination) == (ends.destination, ends.source)
            };
            same && now_s - c.seen_s <= timeout_s(c)
        });
        if let Some(c) = belongs {
            let original = c.initiator == key;
            if epoch > c.epoch {
                (c.accept, c.epoch) = (accepts(epoch, &c.initiator), epoch);
            }
            if !c.accept && !begins {
                if original {
                    c.seen_s = now_s;
                }
                return Err(DropReason::ConnectionDenied);
            }
            let to = if c.accept {
                next(c.state, original, &facts)
            } else {
                Next::Fresh
            };
            let class = if original {
                Class::Established
            } else {
                Class::Reply
            };
            match to {
                Next::Invalid => return Err(DropReason::ConntrackInvalid),
                Next::Same => return Ok(class),
                Next::State(state) => {
                    (c.state, c.seen_s) = (state, now_s);
                    return Ok(class);
                }
                Next::Fresh => {}
            }
        }
        let state = match facts {
            Facts::Udp => State::UdpUnreplied,
            Facts::Icmp(icmp) if icmp.request => State::IcmpUnreplied,
            _ if begins => State::SynSent,
            _ => return Err(DropReason::ConntrackInvalid),
        };
        let accept = accepts(epoch, &key);
        let made = Connection {
            initiator: key,
            ends,
            accept,
            epoch,
            state,
            seen_s: now_s,
        };
        self.connections.insert(slot(&key), made);
        if accept {
            Ok(Class::New)
        } else {
            Err(DropReason::PolicyDenied)
        }
    }
}

enum Next {
    State(State),
    Same,
    Fresh,
    Invalid,
}

/// Only the segments that this test sends: SYN, SYN-ACK, ACK, RST.
fn next(state: State, original: bool, facts: &Facts) -> Next {
    use State::*;
    let flags = match facts {
        Facts::Tcp(tcp) => tcp.flags,
        Facts::Icmp(icmp) if icmp.request != original => return Next::Invalid,
        Facts::Icmp(_) if !original => return Next::State(IcmpReplied),
        Facts::Udp if !original => return Next::State(UdpReplied),
        _ => return Next::State(state),
    };
    if flags == RST {
        return if state == Close {
            Next::Same
        } else {
            Next::State(Close)
        };
    }
    let opening = matches!(state, SynSent | SynSent2);
    if flags == SYN {
        return match (state, original) {
            (Close, _) => Next::Fresh,
            (_, true) if opening => Next::State(state),
            (_, false) if opening => Next::State(SynSent2),
            (_, true) => Next::Same,
            (_, false) => Next::Invalid,
        };
    }
    if flags == SYN_ACK {
        return match (state, original) {
            (SynSent, true) | (Close, true) => Next::Invalid,
            _ if opening => Next::State(SynReceived),
            _ => Next::Same,
        };
    }
    match (state, original) {
        (_, true) if opening => Next::Invalid,
        (_, false) if opening => Next::Same,
        (SynReceived, true) => Next::State(Established),
        _ => Next::State(state),
    }
}

fn packet(flow: u16, reverse: bool, kind: u8, pods: u8) -> (FlowKey, Ends, Facts) {
    let protocol = [Protocol::UDP, Protocol::TCP, Protocol::ICMP][usize::from(flow % 3)];
    let k = key(protocol, 1, 2, 100 + flow);
    // Two generations of pods at the same addresses.
    let e = ends(1 + 2 * u32::from(pods), 2);
    let facts = match protocol {
        Protocol::UDP => Facts::Udp,
        Protocol::ICMP => Facts::Icmp(IcmpFacts {
            request: kind % 2 == usize::from(reverse) as u8,
        }),
        _ => tcp([SYN, SYN_ACK, ACK, ACK, RST][usize::from(kind)]),
    };
    if reverse {
        (k.reversed(), back(e), facts)
    } else {
        (k, e, facts)
    }
}

fn check(ops: &[Op]) -> Result<(), TestCaseError> {
    let table = table(settings(64));
    let mut model = Model::default();
    let mut epoch = 1;
    for op in ops {
        match op {
            Op::Later(steps) => model.now_s += u64::from(*steps) * STEP_S,
            Op::Policy => epoch += 1,
            Op::Expire => {
                table.expire(0, 64, at(model.now_s));
            }
            Op::Remove(incarnation) => {
                let of = Incarnation(u32::from(*incarnation));
                table.remove_endpoint(of);
                if of != Incarnation::NONE {
                    model
                        .connections
                        .retain(|_, c| c.ends.source != of && c.ends.destination != of);
                }
            }
            Op::Packet {
                flow,
                reverse,
                kind,
                pods,
            } => {
                let (key, ends, facts) = packet(*flow, *reverse, *kind, *pods);
                let decide = |key: &FlowKey| verdict(accepts(epoch, key), epoch, 0);
                let now = at(model.now_s);
                let got = drive(
                    &table,
                    &Packet {
                        key,
                        ends,
                        facts,
                        now,
                        epoch,
                        decide: &decide,
                    },
                );
                prop_assert_eq!(got, model.packet(key, ends, facts, epoch), "{:?}", op);
            }
        }
        let now_s = model.now_s;
        let mut expected: Vec<_> = model
            .connections
            .values()
            .filter(|c| now_s - c.seen_s <= timeout_s(c))
            .map(|c| (slot(&c.initiator), c.initiator, c.ends, c.accept, c.state))
            .collect();
        let mut got: Vec<_> = table
            .entries(at(now_s))
            .map(|e| (slot(&e.key), e.key, e.ends, e.verdict.accept, e.state))
            .collect();
        expected.sort_by_key(|c| c.0);
        got.sort_by_key(|c| c.0);
        prop_assert_eq!(got, expected, "after {:?}", op);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        std::env::var("WEIR_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(500)
    ))]

    #[test]
    fn the_table_does_what_a_map_does(ops in prop::collection::vec(op(), 1..120)) {
        check(&ops)?;
    }
}
