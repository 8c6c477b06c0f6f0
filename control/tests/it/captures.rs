//! Captures over a dataplane that only remembers: who gets which packets, and what is lost.

use dataplane::snapshot::{Incarnation, PortId};
use dataplane::tap::{Fate, Form, TapRecord};
use dataplane::{Direction, DropReason, Generation, PolicyId, Provenance, Tier, Time, Verdict};
use serde_json::{Value, json};

use crate::store::{ME, Scene, deny, pod};

const A: [u8; 4] = [10, 0, 0, 2];
const B: [u8; 4] = [10, 0, 0, 3];

/// A SYN from A to B.
fn syn(source_port: u16, port: u16) -> Vec<u8> {
    let mut ip = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0];
    ip.extend(A);
    ip.extend(B);
    let sum: u32 = ip
        .chunks(2)
        .map(|two| u32::from(two[0]) << 8 | u32::from(two[1]))
        .sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9, 8, 0];
    frame.extend(ip);
    frame.extend(source_port.to_be_bytes());
    frame.extend(port.to_be_bytes());
    frame.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 4, 0, 0, 0, 0, 0]);
    frame
}

/// Two pods, of which B is isolated by the policy `d`.
fn scene(name: &str) -> Scene {
    let mut scene = Scene::new(name);
    let mut policy = deny("d");
    policy["spec"]["podSelector"] = json!({"matchLabels": {"app": "b"}});
    scene.must("apply", json!({"objects": [pod("a"), pod("b"), policy]}));
    scene.add("a", "u1", "10.0.0.2").unwrap();
    scene.add("b", "u2", "10.0.0.3").unwrap();
    scene
}

/// The port and the identity behind an address.
fn endpoint(scene: &Scene, address: [u8; 4]) -> (PortId, Incarnation) {
    let snapshot = scene.snapshot();
    let found = snapshot.endpoint_at(std::net::IpAddr::from(address).into());
    let found = found.unwrap();
    (found.port, found.incarnation)
}

/// What became of a packet from A to B.
fn record(scene: &Scene, fate: Fate, accept: bool, length: usize) -> TapRecord {
    let ((a, source), (_, destination)) = (endpoint(scene, A), endpoint(scene, B));
    let denied = Verdict {
        accept: false,
        provenance: Provenance {
            direction: Direction::Ingress,
            tier: Tier::NetworkPolicy,
            policy: Some(PolicyId(0)),
            rule: None,
        },
    };
    TapRecord {
        time: Time(1),
        ingress: a,
        form: Form::Received,
        fate,
        length: length as u32,
        verdict: Some(if accept {
            Verdict::default_accept(Direction::Ingress)
        } else {
            denied
        }),
        is_reply: false,
        generation: Generation(scene.generation()),
        translated: None,
        source,
        destination,
    }
}

fn push(scene: &Scene, record: &TapRecord, bytes: &[u8]) {
    let memory = scene.memory.borrow();
    let tap = memory.tap.as_ref().expect("somebody captures");
    assert!(tap.ring(0).unwrap().push(record, bytes));
}

/// The captures' notifications that wait.
fn told(scene: &mut Scene) -> Vec<Value> {
    let lines = scene.daemon.as_mut().unwrap().take_lines();
    let parsed = lines
        .iter()
        .map(|line| serde_json::from_slice::<Value>(&line.line).unwrap());
    parsed
        .filter(|line| line["method"] == "capture")
        .map(|line| line["params"].clone())
        .collect()
}

fn comments(events: &[Value]) -> Vec<String> {
    let packets = events
        .iter()
        .flat_map(|event| event["packets"].as_array().into_iter().flatten());
    packets
        .map(|packet| packet["comment"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn packets_come_with_what_became_of_them() {
    let mut scene = scene("capture");
    let ((a, _), (b, _)) = (endpoint(&scene, A), endpoint(&scene, B));
    let reply = scene.must("capture", json!({"targets": ["b"], "flows": true}));
    let names: Vec<&str> = reply["interfaces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["weir-node-x", "wp-a", "wp-b"]);
    {
        let memory = scene.memory.borrow();
        let tap = memory.tap.as_ref().unwrap();
        assert!(tap.is_watched(b) && !tap.is_watched(a));
    }
    let frame = syn(4000, 80);
    let policy = Fate::Dropped(DropReason::PolicyDenied);
    push(&scene, &record(&scene, policy, false, frame.len()), &frame);
    let sent = TapRecord {
        form: Form::Sent(b),
        ..record(&scene, Fate::Forwarded(b), true, frame.len())
    };
    push(&scene, &sent, &frame);
    // What goes from A to somebody else is another capture's.
    let elsewhere = TapRecord {
        destination: Incarnation::NONE,
        ..record(&scene, policy, false, frame.len())
    };
    push(&scene, &elsewhere, &frame);
    let events = told(&mut scene);
    let generation = scene.generation();
    let expected = [
        format!(
            "DROPPED (policy_denied); NetworkPolicy default/d ingress: no rule allows anything; \
             generation {generation}"
        ),
        format!(
            "FORWARDED to default/b (wp-b); ingress: no policy applies; generation {generation}"
        ),
    ];
    assert_eq!(comments(&events), expected);
    let packets = events[0]["packets"].as_array().unwrap();
    for (packet, direction) in packets.iter().zip(["in", "out"]) {
        crate::schemas::holds("capture.v1.schema.json", packet);
        assert_eq!(packet["direction"], direction);
    }
    assert_eq!(packets[0]["port"], a.0);
    assert_eq!(packets[0]["length"], 54);
    let flow = &packets[0]["flow"];
    assert_eq!(flow["source"]["pod"], "a", "{flow}");
    assert_eq!(flow["destination"]["port"], 80, "{flow}");
    assert_eq!(flow["tcpFlags"], json!(["SYN"]), "{flow}");
    assert_eq!(flow["policy"]["name"], "d", "{flow}");
    // The end is behind the reply, and nothing is recorded any more.
    let stopped = scene.must(
        "capture.stop",
        json!({"subscription": reply["subscription"]}),
    );
    assert_eq!(stopped["interfaces"][0]["port"], b.0);
    assert_eq!(told(&mut scene)[0]["ended"], "stopped");
    assert!(scene.memory.borrow().tap.is_none());
}

#[test]
fn filters_and_lengths_are_each_captures_own() {
    let mut scene = scene("capture-filter");
    let all = scene.must("capture", json!({"targets": ["any"]}));
    let some = json!({
        "targets": ["wp-a"], "snaplen": 128, "deny": [{"destinationPort": [81]}],
        "allow": [{"verdict": ["DROPPED"]}],
    });
    let some = scene.must("capture", some);
    assert_eq!(
        scene.memory.borrow().tap.as_ref().unwrap().snaplen(),
        262_144
    );
    let policy = Fate::Dropped(DropReason::PolicyDenied);
    let mut frame = syn(4000, 80);
    frame.resize(300, 7);
    push(&scene, &record(&scene, policy, false, 300), &frame);
    push(&scene, &record(&scene, policy, false, 54), &syn(4000, 81));
    push(
        &scene,
        &record(&scene, Fate::Answered, true, 54),
        &syn(4000, 80),
    );
    let events = told(&mut scene);
    let lengths = |subscription: &Value| -> Vec<usize> {
        let own = events
            .iter()
            .filter(|event| event["subscription"] == *subscription);
        let packets = own.flat_map(|event| event["packets"].as_array().unwrap());
        let data = packets.map(|packet| packet["data"].as_str().unwrap());
        data.map(|base64| base64.len() / 4 * 3).collect()
    };
    // Base64 rounds up to three.
    assert_eq!(lengths(&all["subscription"]), [300, 54, 54]);
    assert_eq!(lengths(&some["subscription"]), [129]);
    for (params, words) in [
        (
            json!({"targets": ["any"], "snaplen": 20}),
            "out of range 128 to 262144",
        ),
        (json!({"targets": []}), "no port is named"),
    ] {
        let error = scene.call("capture", params).unwrap_err();
        assert!(error.message.contains(words), "{}", error.message);
    }
    let missing = scene
        .call("capture", json!({"targets": ["nobody"]}))
        .unwrap_err();
    assert!(
        missing.message.starts_with("pods \"nobody\" not found"),
        "{}",
        missing.message
    );
}

#[test]
fn what_is_lost_is_told_and_captures_are_bounded() {
    let mut scene = scene("capture-lost");
    let reply = scene.must("capture", json!({"targets": ["pod/a"]}));
    let frame = syn(1, 2);
    let one = record(&scene, Fate::Answered, true, frame.len());
    {
        let memory = scene.memory.borrow();
        let ring = memory.tap.as_ref().unwrap().ring(0).unwrap();
        while ring.push(&one, &frame) {}
    }
    let daemon = scene.daemon.as_mut().unwrap();
    let lines = daemon.take_lines();
    let droppable = lines[0].droppable.unwrap();
    let packets: Value = serde_json::from_slice(&lines[0].line).unwrap();
    let packets = packets["params"]["packets"].as_array().unwrap().len();
    use control::daemon::calls::Serving;
    use control::daemon::server::Service;
    let (signals, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut serving = Serving {
        daemon,
        signals: &signals,
        stopped: false,
        dead_worker: None,
    };
    serving.not_taken(ME, droppable);
    assert!(serving.patience() < std::time::Duration::from_millis(100));
    let events = told(&mut scene);
    let lost: Vec<&Value> = events
        .iter()
        .filter_map(|event| event.get("lost"))
        .collect();
    assert_eq!(lost, [&json!({"client": packets, "daemon": 0})]);
    let metrics = scene.must("metrics", json!({}));
    let metrics = metrics["text"].as_str().unwrap().to_owned();
    for line in [
        "weir_captures 1".to_owned(),
        "weir_capture_packets_lost_total 1".to_owned(),
        format!("weir_capture_packets_not_taken_total {packets}"),
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line}:\n{metrics}"
        );
    }
    // What the ring had no room for was told with the first packets.
    let first: Value = serde_json::from_slice(&lines.last().unwrap().line).unwrap();
    assert_eq!(first["params"]["lost"]["daemon"], 1, "{first}");

    for _ in 1..8 {
        scene.must("capture", json!({"targets": ["a"]}));
    }
    let error = scene
        .call("capture", json!({"targets": ["a"]}))
        .unwrap_err();
    assert_eq!(error.message, "8 captures run already");

    // A port that goes ends the captures that are about it alone.
    scene.must("endpoint.remove", json!({"uid": "u1"}));
    scene.tick();
    let events = told(&mut scene);
    let ended = events
        .iter()
        .filter(|event| event["ended"] == "the port is gone");
    assert_eq!(ended.count(), 8);
    assert!(scene.memory.borrow().tap.is_none());
    let again = scene.call(
        "capture.stop",
        json!({"subscription": reply["subscription"]}),
    );
    assert!(again.unwrap_err().message.starts_with("no capture"));
}

#[test]
fn a_client_that_goes_takes_its_captures_along() {
    let mut scene = scene("capture-gone");
    scene.must("capture", json!({"targets": ["a"]}));
    let unwatched = scene.must("capture", json!({"targets": ["b"]}));
    scene.must(
        "unwatch",
        json!({"subscription": unwatched["subscription"]}),
    );
    let (b, _) = endpoint(&scene, B);
    assert!(!scene.memory.borrow().tap.as_ref().unwrap().is_watched(b));
    use control::daemon::calls::Serving;
    use control::daemon::server::Service;
    let (signals, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut serving = Serving {
        daemon: scene.daemon.as_mut().unwrap(),
        signals: &signals,
        stopped: false,
        dead_worker: None,
    };
    serving.gone(ME);
    assert!(scene.memory.borrow().tap.is_none());
}
