//! The connection table as the pipeline uses it.

mod batches;
mod model;
mod scenarios;
mod shared;
mod threads;
mod translated;

use dataplane::conntrack::{
    AtomicU64, Class, Ends, Epochs, Facts, Inserted, NewEntry, Settings, Table, TcpFacts, TcpFlags,
    Timeouts, heap,
};
use dataplane::counters::{CounterId, RuleCounters};
use dataplane::snapshot::{Epoch, Incarnation, PortId};
use dataplane::{
    Address, Direction, DropReason, FlowKey, PolicyId, Protocol, Provenance, Tier, Time, Verdict,
};

type Heap = Table<Box<[AtomicU64]>>;

fn settings(capacity: u32) -> Settings {
    Settings {
        capacity,
        quota_per_endpoint: 2 * capacity,
        endpoints: 16,
        timeouts: Timeouts::default(),
        strict_tcp: false,
        hash_seed: [0x1234_5678_9abc_def0, 0x0fed_cba9_8765_4321],
    }
}

fn table(settings: Settings) -> Heap {
    Table::new(heap(Heap::words(&settings)), settings).unwrap()
}

fn at(seconds: u64) -> Time {
    Time(1_000_000_000_000).plus_seconds(seconds)
}

fn key(protocol: Protocol, source: u32, destination: u32, port: u16) -> FlowKey {
    let ports = match protocol {
        Protocol::ICMP => FlowKey::echo_ports(port, true),
        p if p.has_ports() => (port, 80),
        _ => (0, 0),
    };
    FlowKey {
        source: Address::v4(0x0a00_0000 + source),
        destination: Address::v4(0x0a00_0000 + destination),
        source_port: ports.0,
        destination_port: ports.1,
        protocol,
    }
}

fn ends(source: u32, destination: u32) -> Ends {
    Ends {
        source: Incarnation(source),
        destination: Incarnation(destination),
        ingress: PortId(source as u16),
    }
}

fn back(ends: Ends) -> Ends {
    Ends {
        source: ends.destination,
        destination: ends.source,
        ingress: PortId(ends.destination.0 as u16),
    }
}

fn epochs(number: u32) -> Epochs {
    Epochs {
        source: Epoch(number),
        destination: Epoch(number),
    }
}

/// A verdict that says which epoch and flow it was made for.
fn verdict(accept: bool, epoch: u32, flow: u16) -> Verdict {
    Verdict {
        accept,
        provenance: Provenance {
            direction: Direction::Ingress,
            tier: Tier::NetworkPolicy,
            policy: Some(PolicyId(epoch)),
            rule: Some(flow),
        },
    }
}

/// Counters that say the same as the verdict.
fn counters(verdict: &Verdict) -> RuleCounters {
    let provenance = verdict.provenance;
    RuleCounters {
        egress: CounterId(provenance.policy.map_or(0, |policy| policy.0)),
        ingress: CounterId(provenance.rule.map_or(0, u32::from)),
    }
}

fn tcp(flags: TcpFlags) -> Facts {
    Facts::Tcp(TcpFacts {
        flags,
        ..TcpFacts::default()
    })
}

const SYN: TcpFlags = TcpFlags::SYN;
const SYN_ACK: TcpFlags = TcpFlags::SYN.union(TcpFlags::ACK);
const ACK: TcpFlags = TcpFlags::ACK;
const FIN: TcpFlags = TcpFlags::FIN.union(TcpFlags::ACK);
const RST: TcpFlags = TcpFlags::RST;

/// One packet, and the policy that a worker knows.
struct Packet<'a> {
    key: FlowKey,
    ends: Ends,
    facts: Facts,
    now: Time,
    /// Of the policy, the same for both ends.
    epoch: u32,
    decide: &'a dyn Fn(&FlowKey) -> Verdict,
}

/// What the pipeline does with a packet, as far as conntrack goes.
fn drive<S: dataplane::conntrack::Storage>(
    table: &Table<S>,
    packet: &Packet<'_>,
) -> Result<Class, DropReason> {
    let Packet {
        key,
        ends,
        facts,
        now,
        epoch,
        decide,
    } = packet;
    for _ in 0..4 {
        if let Some(hit) = table.lookup(key, ends, *now) {
            if epochs(*epoch).is_newer_than(hit.epochs) {
                let initiators = if hit.original_direction {
                    *key
                } else {
                    key.reversed()
                };
                let verdict = decide(&initiators);
                let counters = counters(&verdict);
                table.redecide(hit.handle, verdict, counters, epochs(*epoch));
            }
            match table.track(&hit, facts, *now) {
                Ok(Class::New) => {}
                other => return other,
            }
        }
        if !facts.opens() && !table.adopts(facts, *now) {
            return Err(DropReason::ConntrackInvalid);
        }
        let verdict = decide(key);
        let new = NewEntry {
            translation: None,
            key: *key,
            ends: *ends,
            verdict,
            counters: counters(&verdict),
            epochs: epochs(*epoch),
            facts: *facts,
        };
        match table.insert(&new, *now)? {
            Inserted::New(_) if verdict.accept => return Ok(Class::New),
            Inserted::New(_) => return Err(DropReason::PolicyDenied),
            Inserted::Raced(_) => {}
            Inserted::Taken => return Err(DropReason::SourcePorts),
        }
    }
    Err(DropReason::ConntrackBusy)
}
