//! Listing and flushing connections, over a table without packets.

use control::protocol::{ConntrackFlushReply, ConntrackListReply, Reason};
use dataplane::conntrack::{Ends, Epochs, Facts, NewEntry, Settings, Table, Timeouts, heap};
use dataplane::counters::RuleCounters;
use dataplane::snapshot::{Epoch, PortId};
use dataplane::{Address, Direction, FlowKey, Protocol, Verdict};
use serde_json::{Value, json};

use crate::store::{CONNTRACK_NOW, Connections, Scene, pod};

/// So many connections of the pod, to port after port, and one of somebody else's.
fn scene(name: &str, connections: u32) -> Scene {
    labelled_scene(name, connections, json!({"app": "web"}))
}

fn labelled_scene(name: &str, connections: u32, labels: Value) -> Scene {
    let mut scene = Scene::new(name);
    let mut labelled = pod("a");
    labelled["metadata"]["labels"] = labels;
    scene.must("apply", json!({"objects": [labelled]}));
    let found = scene.must("get", json!({"resource": "pods", "name": "a"}));
    let uid = found["items"][0]["metadata"]["uid"]
        .as_str()
        .unwrap()
        .to_owned();
    scene.add("a", &uid, "10.0.0.2").unwrap();
    let settings = Settings {
        capacity: 2 * connections.max(10_000),
        quota_per_endpoint: 2 * connections.max(10_000),
        endpoints: 16,
        timeouts: Timeouts::default(),
        strict_tcp: false,
        hash_seed: [1, 2],
    };
    let table = Table::new(heap(Table::<Box<[_]>>::words(&settings)), settings).unwrap();
    let address: std::net::IpAddr = "10.0.0.2".parse().unwrap();
    let own = scene
        .snapshot()
        .endpoint_at(address.into())
        .unwrap()
        .incarnation;
    for number in 0..=connections {
        let is_ours = number < connections;
        let to = if is_ours { "192.0.2.9" } else { "192.0.2.8" };
        let from = if is_ours { "10.0.0.2" } else { "198.51.100.1" };
        let new = NewEntry {
            translation: None,
            key: FlowKey {
                source: from.parse::<std::net::IpAddr>().unwrap().into(),
                destination: Address::from(to.parse::<std::net::IpAddr>().unwrap()),
                protocol: Protocol::UDP,
                source_port: 1000 + (number / PORTS) as u16,
                destination_port: (number % PORTS) as u16,
            },
            ends: Ends {
                source: if is_ours { own } else { Default::default() },
                destination: Default::default(),
                ingress: PortId(2),
            },
            verdict: Verdict {
                accept: number % 2 == 0,
                ..Verdict::default_accept(Direction::Ingress)
            },
            counters: RuleCounters::default(),
            epochs: Epochs {
                source: Epoch::NONE,
                destination: Epoch::NONE,
            },
            facts: Facts::Udp,
        };
        table.insert(&new, CONNTRACK_NOW).unwrap();
    }
    scene.memory.borrow_mut().conntrack = Some(Connections(table));
    scene
}

/// Ports that connections of one source port go to.
const PORTS: u32 = 50_000;
/// More than a reply may have.
const MESSAGE_BYTES: usize = 1 << 20;

/// All parts of a listing; how many calls it took.
fn list(scene: &mut Scene, filter: Value) -> (Vec<Value>, usize) {
    let (mut entries, mut calls, mut cursor) = (Vec::new(), 0, None);
    loop {
        let params = json!({"filter": filter, "cursor": cursor});
        let part = scene.must("conntrack.list", params);
        let bytes = part.to_string().len();
        assert!(bytes < MESSAGE_BYTES, "a message of {bytes} bytes");
        entries.extend(part["entries"].as_array().unwrap().iter().cloned());
        calls += 1;
        let reply: ConntrackListReply = serde_json::from_value(part).unwrap();
        assert!(reply.entries.len() <= 500, "no reply grows with the table");
        cursor = reply.next;
        if cursor.is_none() {
            return (entries, calls);
        }
    }
}

fn flush(scene: &mut Scene, filter: Value, dry_run: bool) -> u64 {
    let (mut flushed, mut cursor) = (0, None);
    loop {
        let all = filter == json!({});
        let params = json!({"filter": filter, "cursor": cursor, "dryRun": dry_run, "all": all});
        let part = scene.must("conntrack.flush", params);
        let reply: ConntrackFlushReply = serde_json::from_value(part).unwrap();
        flushed += reply.flushed;
        cursor = reply.next;
        if cursor.is_none() {
            return flushed;
        }
    }
}

#[test]
fn a_full_table_is_listed_in_bounded_parts_each_entry_once() {
    let mut scene = scene("ct-parts", 120_000);
    let (entries, calls) = list(&mut scene, json!({}));
    assert_eq!(entries.len(), 120_001);
    assert!(calls >= 120_001 / 500, "{calls}");
    let mut names: Vec<_> = entries.iter().map(|one| one["name"].to_string()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 120_001);
    // Where nothing is meant a call still looks at a part only.
    let (none, calls) = list(&mut scene, json!({"namespace": "elsewhere"}));
    assert!(none.is_empty() && calls >= 120_001 / 4096, "{calls}");
}

#[test]
fn labels_without_measure_make_no_message_without_measure() {
    let labels = (0..400).map(|n| (format!("label-{n}"), json!("x".repeat(63))));
    let labels = Value::Object(labels.collect());
    let mut scene = labelled_scene("ct-labels", 300, labels);
    let (entries, calls) = list(&mut scene, json!({}));
    assert_eq!(entries.len(), 301);
    assert!(calls > 10, "{calls}");
}

#[test]
fn connections_are_picked_by_pods_addresses_ports_and_states() {
    let mut scene = scene("ct-pick", 100);
    let mut count = |filter: Value| list(&mut scene, filter).0.len();
    assert_eq!(count(json!({"namespace": "default"})), 100);
    assert_eq!(count(json!({"selector": "app=web"})), 100);
    assert_eq!(count(json!({"selector": "app=db"})), 0);
    assert_eq!(count(json!({"states": ["denied"]})), 50);
    assert_eq!(count(json!({"allow": [{"destinationPort": [7, 8]}]})), 2);
    assert_eq!(count(json!({"allow": [{"sourcePod": ["default/a"]}]})), 100);
    assert_eq!(count(json!({"deny": [{"sourcePod": ["default/a"]}]})), 1);
    assert_eq!(
        count(json!({"allow": [{"destinationIp": ["192.0.2.8/32"]}]})),
        1
    );
    assert_eq!(count(json!({"allow": [{"protocol": ["tcp"]}]})), 0);
    let name = "udp_10.0.0.2_1000_192.0.2.9_7";
    assert_eq!(count(json!({"names": [name, "no-such"]})), 1);
    let (entries, _) = list(&mut scene, json!({"names": [name]}));
    let one = &entries[0];
    assert_eq!(one["source"]["pod"], "a", "{one}");
    assert_eq!(one["state"], "DENIED", "{one}");
    assert_eq!(one["verdict"], "DROPPED", "{one}");
    for wrong in [
        json!({"states": ["NONSENSE"]}),
        json!({"selector": "=="}),
        json!({"allow": [{"protocol": ["nonsense"]}]}),
        json!({"names": vec!["x"; 257]}),
    ] {
        let reason = scene.reason("conntrack.list", json!({"filter": wrong}));
        assert_eq!(reason, Reason::BadRequest, "{wrong}");
    }
}

#[test]
fn a_flush_takes_what_is_meant_and_says_how_many() {
    let mut scene = scene("ct-flush", 10_000);
    assert!(
        scene.call("conntrack.flush", json!({})).is_err(),
        "not all by mistake"
    );
    let ours = json!({"namespace": "default"});
    assert_eq!(flush(&mut scene, ours.clone(), true), 10_000);
    assert_eq!(list(&mut scene, json!({})).0.len(), 10_001, "a dry run");
    assert_eq!(
        flush(&mut scene, json!({"states": ["DENIED"]}), false),
        5_000
    );
    assert_eq!(flush(&mut scene, ours, false), 5_000);
    assert_eq!(list(&mut scene, json!({})).0.len(), 1);
    assert_eq!(flush(&mut scene, json!({}), false), 1);
    assert!(list(&mut scene, json!({})).0.is_empty());
}
