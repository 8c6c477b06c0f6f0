//! Translated connections: found under two tuples, each in one direction.

use std::collections::HashMap;
use std::os::fd::AsFd;

use dataplane::conntrack::{Handle, Translation};
use dataplane::shm::{Region, memfd};
use dataplane::{SocketAddress, conntrack::Storage};
use proptest::prelude::*;

use super::*;

const SERVICE: u32 = 100;

fn socket(address: u32, port: u16) -> SocketAddress {
    SocketAddress {
        address: Address::v4(0x0a00_0000 + address),
        port,
    }
}

fn flow(client: SocketAddress, to: SocketAddress) -> FlowKey {
    FlowKey {
        source: client.address,
        destination: to.address,
        source_port: client.port,
        destination_port: to.port,
        protocol: Protocol::UDP,
    }
}

/// Addresses below [`SERVICE`] are pods'.
fn incarnation(address: Address) -> Incarnation {
    let number = address.0 as u32 & 0xffff;
    Incarnation(if number < SERVICE { number } else { 0 })
}

/// Of a packet as it comes in.
fn ends_of(key: &FlowKey) -> Ends {
    Ends {
        source: incarnation(key.source),
        destination: incarnation(key.destination),
        ingress: PortId(incarnation(key.source).0 as u16),
    }
}

fn new(key: FlowKey, translation: Option<Translation>) -> NewEntry {
    NewEntry {
        key,
        translation,
        ends: ends_of(&key),
        verdict: verdict(true, 1, 1),
        counters: RuleCounters::default(),
        epochs: epochs(1),
        facts: Facts::Udp,
    }
}

fn to_service(port: u16) -> Translation {
    Translation {
        service: socket(SERVICE, port),
        source: None,
    }
}

fn lookup<S: Storage>(table: &Table<S>, key: FlowKey, now: Time) -> Option<(Handle, bool)> {
    let hit = table.lookup(&key, &ends_of(&key), now)?;
    Some((hit.handle, hit.original_direction))
}

fn inserted(result: Result<Inserted, DropReason>) -> Handle {
    match result {
        Ok(Inserted::New(handle)) => handle,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_tuple_names_the_connection_in_one_direction() {
    let table = table(settings(64));
    let (client, backend) = (socket(1, 4000), socket(2, 8080));
    let (key, service) = (flow(client, backend), flow(client, socket(SERVICE, 80)));
    let handle = inserted(table.insert(&new(key, Some(to_service(80))), at(0)));
    assert_eq!(lookup(&table, service, at(1)), Some((handle, true)));
    assert_eq!(lookup(&table, key.reversed(), at(1)), Some((handle, false)));
    for stranger in [key, service.reversed()] {
        assert_eq!(lookup(&table, stranger, at(1)), None, "{stranger:?}");
    }
    let hit = table.lookup(&service, &ends_of(&service), at(1)).unwrap();
    let translated = hit.translated.unwrap();
    assert_eq!((translated.flow, translated.ends), (key, ends_of(&key)));
    assert_eq!(translated.translation, to_service(80));
    let entry = table.entries(at(1)).next().unwrap();
    assert_eq!((entry.key, entry.ends), (key, ends_of(&key)));
    assert_eq!(entry.translation, Some(to_service(80)));
    // The batch leaves translated packets to the single look-up, which finds them.
    let keys = [service, key, key.reversed()].map(|key| (key, ends_of(&key)));
    let mut hits = [None; 3];
    table.lookup_batch(&keys, at(1), &mut hits);
    let found = hits.map(|hit| hit.map(|hit| hit.original_direction));
    assert_eq!(found, [Some(true), None, Some(false)]);
    assert!(table.retire(handle));
    assert_eq!(lookup(&table, service, at(1)), None);
    assert_eq!(lookup(&table, key.reversed(), at(1)), None);
    assert_eq!(table.counters().entries, 0);
}

#[test]
fn connections_that_could_not_be_told_apart_are_refused() {
    let table = table(settings(64));
    let (client, backend) = (socket(1, 4000), socket(2, 8080));
    let key = flow(client, backend);
    inserted(table.insert(&new(key, Some(to_service(80))), at(0)));
    // Another port of the Service with the same backend, and the backend itself: their answers
    // would look alike.
    for translation in [Some(to_service(81)), None] {
        let taken = table.insert(&new(key, translation), at(1));
        assert_eq!(taken, Ok(Inserted::Taken));
    }
    let other = Translation {
        service: socket(2, 8080),
        source: Some(socket(1, 61_000)),
    };
    let direct = inserted(table.insert(&new(key, Some(other)), at(1)));
    assert_eq!(lookup(&table, key, at(1)), Some((direct, true)));
    let answer = flow(backend, socket(1, 61_000));
    assert_eq!(lookup(&table, answer, at(1)), Some((direct, false)));
    assert_eq!(table.counters().entries, 2);
    // Of one that has expired nothing is in the way.
    let late = at(1000);
    inserted(table.insert(&new(key, Some(to_service(81))), late));
    let service = flow(client, socket(SERVICE, 80));
    assert_eq!(lookup(&table, service, late), None);
}

#[test]
fn a_new_backend_at_an_old_address_inherits_nothing() {
    let table = table(settings(64));
    let key = flow(socket(1, 4000), socket(2, 8080));
    inserted(table.insert(&new(key, Some(to_service(80))), at(0)));
    let mut successor = new(key, Some(to_service(80)));
    let raced = table.insert(&successor, at(1));
    assert!(matches!(raced, Ok(Inserted::Raced(_))), "{raced:?}");
    successor.ends.destination = Incarnation(77);
    inserted(table.insert(&successor, at(1)));
    assert_eq!(table.counters().entries, 1);
    assert_eq!(table.remove_endpoint(Incarnation(77)), 1);
    assert_eq!(table.counters().entries, 0);
}

struct Mapping(Region);

impl Storage for Mapping {
    fn words(&self) -> &[AtomicU64] {
        self.0.words()
    }
}

#[test]
fn a_successor_finds_translated_connections_under_both_tuples() {
    let settings = settings(64);
    let bytes = Table::<Mapping>::words(&settings) * 8;
    let fd = memfd(c"weir-conntrack-test", bytes).unwrap();
    let map = || Mapping(Region::map(fd.as_fd().try_clone_to_owned().unwrap(), bytes).unwrap());
    let before = Table::new(map(), settings.clone()).unwrap();
    let keys: Vec<FlowKey> = (0..20)
        .map(|n| flow(socket(1, 4000 + n), socket(2 + u32::from(n) % 3, 8080)))
        .collect();
    for key in &keys {
        inserted(before.insert(&new(*key, Some(to_service(80))), at(0)));
    }
    std::mem::forget(before);
    let (after, attached) = Table::attach(map(), settings.clone(), at(1)).unwrap();
    assert_eq!((attached.kept, attached.discarded), (20, 0));
    for key in keys {
        let service = key.with_receiver(socket(SERVICE, 80));
        let (handle, original) = lookup(&after, service, at(2)).unwrap();
        assert!(original);
        assert_eq!(lookup(&after, key.reversed(), at(2)), Some((handle, false)));
        assert!(after.retire(handle));
        assert_eq!(lookup(&after, key.reversed(), at(2)), None);
    }
}

/// An operation of the model: small numbers, so that tuples meet.
#[derive(Clone, Debug)]
enum Op {
    Insert {
        client: (u32, u16),
        backend: (u32, u16),
        /// 0 and 1 are ports of the Service, 2 the backend's own address.
        to: u8,
        source: Option<u16>,
    },
    Retire(usize),
    RemoveEndpoint(u32),
    Later(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let client = (1..4_u32, 80..83_u16);
    let backend = (1..4_u32, 80..82_u16);
    let insert = (client, backend, 0..4_u8, proptest::option::of(80..83_u16));
    prop_oneof![
        12 => insert.prop_map(|(client, backend, to, source)| Op::Insert {
            client,
            backend,
            to,
            source,
        }),
        2 => any::<usize>().prop_map(Op::Retire),
        1 => (1..4_u32).prop_map(Op::RemoveEndpoint),
        2 => (1..20_u64).prop_map(Op::Later),
    ]
}

#[derive(Clone, Copy, Debug)]
struct Connection {
    key: FlowKey,
    /// Packets that are its own, with their direction.
    packets: [(FlowKey, bool); 2],
    handle: Handle,
    made_s: u64,
}

/// Every packet that the universe has.
fn universe() -> impl Iterator<Item = FlowKey> {
    let sockets = || {
        let pods = (1..4).flat_map(|a| (79..84).map(move |p| socket(a, p)));
        pods.chain([80, 81].map(|port| socket(SERVICE, port)))
            .chain((80..83).map(|port| socket(SERVICE, 61_000 + port)))
    };
    sockets().flat_map(move |from| sockets().map(move |to| flow(from, to)))
}

fn check(ops: &[Op]) -> Result<(), TestCaseError> {
    let table = table(settings(128));
    let mut model: Vec<Connection> = Vec::new();
    let mut now_s = 0;
    for op in ops {
        match op {
            Op::Later(seconds) => {
                now_s += seconds;
                // Close to a time-out the table is coarser than seconds.
                while model
                    .iter()
                    .any(|c| (29..=31).contains(&(now_s - c.made_s)))
                {
                    now_s += 1;
                }
            }
            Op::Retire(which) if !model.is_empty() => {
                let gone = model.remove(which % model.len());
                prop_assert!(table.retire(gone.handle));
                prop_assert!(!table.retire(gone.handle));
            }
            Op::Retire(_) => {}
            Op::RemoveEndpoint(number) => {
                table.remove_endpoint(Incarnation(*number));
                let has = |address| incarnation(address) == Incarnation(*number);
                model.retain(|c| !has(c.key.source) && !has(c.key.destination));
            }
            Op::Insert {
                client,
                backend,
                to,
                source,
            } => {
                let (client, backend) = (socket(client.0, client.1), socket(backend.0, backend.1));
                let key = flow(client, backend);
                let service = match to {
                    0 | 1 => socket(SERVICE, 80 + u16::from(*to)),
                    _ => backend,
                };
                let source = source.map(|port| match to {
                    // As for a pod that reaches itself, or only with another port.
                    0 => socket(SERVICE, 61_000 + port),
                    _ => SocketAddress { port, ..client },
                });
                let plain = *to == 3 || service == backend && source.is_none();
                let translation = (!plain).then_some(Translation { service, source });
                let inner = source.map_or(key, |source| key.with_sender(source));
                let packets = if plain {
                    [(key, true), (key.reversed(), false)]
                } else {
                    [
                        (key.with_receiver(service), true),
                        (inner.reversed(), false),
                    ]
                };
                if packets[0].0 == packets[0].0.reversed()
                    || packets[1].0 == packets[1].0.reversed()
                {
                    continue;
                }
                let owns = |packet: FlowKey| {
                    move |c: &Connection| c.packets.iter().any(|(own, _)| *own == packet)
                };
                // Idle ones make way.
                let in_way = |c: &Connection| owns(packets[0].0)(c) || owns(packets[1].0)(c);
                model.retain(|c| !(in_way(c) && now_s - c.made_s > 31));
                let raced = model.iter().any(owns(packets[0].0));
                let taken = model.iter().any(owns(packets[1].0));
                match table.insert(&new(key, translation), at(now_s)) {
                    Ok(Inserted::New(handle)) => {
                        prop_assert!(!raced && !taken, "{op:?}");
                        model.push(Connection {
                            key,
                            packets,
                            handle,
                            made_s: now_s,
                        });
                    }
                    Ok(Inserted::Raced(_)) => prop_assert!(raced, "{op:?}"),
                    // Where there is one in the way of either kind, either is an answer.
                    Ok(Inserted::Taken) => prop_assert!(taken, "{op:?}"),
                    Err(reason) => prop_assert!(false, "{op:?} {reason:?}"),
                }
            }
        }
        let live = model.iter().filter(|c| now_s - c.made_s < 30);
        let mut expected = HashMap::new();
        for c in live {
            expected.extend(
                c.packets
                    .map(|(packet, original)| (packet, (c.handle, original))),
            );
        }
        for packet in universe() {
            let found = lookup(&table, packet, at(now_s));
            prop_assert_eq!(
                found,
                expected.get(&packet).copied(),
                "{:?} after {:?}",
                packet,
                op
            );
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn two_tuples_do_what_a_map_of_packets_does(ops in prop::collection::vec(op(), 1..60)) {
        check(&ops)?;
    }
}

/// A small generator of numbers (xorshift64*).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32 % bound
    }
}

/// A packet of a translated connection that one of these threads may have made: to the Service, or back.
fn any_packet(numbers: &mut Numbers) -> FlowKey {
    let client = socket(1 + numbers.below(3), 4000 + numbers.below(6) as u16);
    if numbers.below(2) == 0 {
        return flow(client, socket(SERVICE, 80 + numbers.below(2) as u16));
    }
    let back = match numbers.below(3) {
        0 => socket(SERVICE, 61_000 + numbers.below(6) as u16),
        _ => client,
    };
    flow(socket(4 + numbers.below(3), 8080), back)
}

/// What a worker does with a packet: follow its connection, or make one to a backend of its choice.
fn work(table: &Heap, numbers: &mut Numbers, now: Time) {
    let packet = any_packet(numbers);
    if let Some(hit) = table.lookup(&packet, &ends_of(&packet), now) {
        let translated = hit.translated.expect("there are no others");
        let (flow, translation) = (translated.flow, translated.translation);
        let own = match hit.original_direction {
            true => translation.outer(&flow),
            false => translation.inner(&flow).reversed(),
        };
        assert_eq!(own, packet, "another's entry: {hit:?}");
        assert_eq!(translated.ends.source, incarnation(flow.source));
        assert_eq!(translated.ends.destination, incarnation(flow.destination));
        match numbers.below(4) {
            0 => _ = table.retire(hit.handle),
            _ => _ = table.track(&hit, &Facts::Udp, now),
        }
        return;
    }
    if (packet.destination.0 as u32 & 0xffff) != SERVICE || packet.destination_port > 81 {
        return;
    }
    let key = packet.with_receiver(socket(4 + numbers.below(3), 8080));
    let source = match numbers.below(3) {
        0 => Some(socket(SERVICE, 61_000 + numbers.below(6) as u16)),
        _ => None,
    };
    let service = packet.receiver();
    let _ = table.insert(&new(key, Some(Translation { service, source })), now);
}

/// Several workers on a table that is too small for all they want: nobody ever gets another's entry, no
/// tuple has two, and nothing is left when all has gone.
#[test]
fn workers_never_share_a_tuple() {
    let table = table(Settings {
        quota_per_endpoint: 8,
        ..settings(24)
    });
    std::thread::scope(|scope| {
        for seed in 1..=4 {
            let table = &table;
            scope.spawn(move || {
                let mut numbers = Numbers(seed);
                for round in 0..60_000 {
                    work(table, &mut numbers, at(round / 1000));
                    match numbers.below(2000) {
                        0 => _ = table.remove_endpoint(Incarnation(1 + numbers.below(6))),
                        1 => _ = table.expire(0, 24, at(round / 1000)),
                        _ => {}
                    }
                }
            });
        }
    });
    let entries: Vec<_> = table.entries(at(60)).collect();
    let mut packets: Vec<FlowKey> = (entries.iter())
        .flat_map(|entry| {
            let translation = entry.translation.unwrap();
            let back = translation.inner(&entry.key).reversed();
            [translation.outer(&entry.key), back]
        })
        .collect();
    for packet in &packets {
        assert!(lookup(&table, *packet, at(60)).is_some(), "{packet:?}");
    }
    let count = packets.len();
    packets.sort_by_key(|key| {
        (
            key.source,
            key.source_port,
            key.destination,
            key.destination_port,
        )
    });
    packets.dedup();
    assert_eq!(packets.len(), count);
    assert!(table.counters().inserted > 1000);
    table.expire(0, 24, at(100_000));
    assert_eq!(table.counters().entries, 0);
    for endpoint in 1..4 {
        assert_eq!(table.charged(Incarnation(endpoint)), 0);
    }
    // Every reference has gone with its entry: the table can be filled anew.
    let all = (0..200).filter(|port| {
        let key = flow(socket(7, 9000 + port), socket(8, 8080));
        let new = new(key, Some(to_service(80)));
        matches!(table.insert(&new, at(100_001)), Ok(Inserted::New(_)))
    });
    assert!(all.count() >= 8);
}
