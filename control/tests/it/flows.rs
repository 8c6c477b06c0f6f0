//! What the daemon tells of packets: observers, the log, metrics.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::time::{Duration, Instant};

use dataplane::counters::RuleHits;
use dataplane::events::{Event, EventKind};
use dataplane::snapshot::{Generation, Incarnation, PortId, Role};
use dataplane::{
    Address, Direction, DropReason, FlowKey, PolicyId, Protocol, Provenance, SocketAddress, Tier,
    Time, Verdict,
};
use serde_json::{Value, json};

use crate::store::{Scene, deny, pod};

fn event(kind: EventKind) -> Event {
    Event {
        time: Time(1),
        kind,
        key: FlowKey {
            source: Address::v4(0x0a00_0002),
            destination: Address::v4(0x0a00_0003),
            source_port: 4000,
            destination_port: 80,
            protocol: Protocol::TCP,
        },
        service: None,
        ingress: PortId(3),
        ingress_role: Role::Pod,
        source: Incarnation::NONE,
        destination: Incarnation::NONE,
        generation: Generation(1),
        tcp_flags: 2,
        len: 60,
    }
}

/// What the first policy of the store says.
fn by_policy(accept: bool, rule: Option<u16>) -> Verdict {
    Verdict {
        accept,
        provenance: Provenance {
            direction: Direction::Ingress,
            tier: Tier::NetworkPolicy,
            policy: Some(PolicyId(0)),
            rule,
        },
    }
}

fn tell(scene: &mut Scene, kinds: &[EventKind]) {
    let events = kinds.iter().copied().map(event);
    scene.memory.borrow_mut().events.extend(events);
    assert!(scene.tick());
}

/// The notifications that wait.
fn notifications(scene: &mut Scene) -> Vec<Value> {
    let lines = scene.daemon.as_mut().unwrap().take_lines();
    let parse = |line: &[u8]| serde_json::from_slice::<Value>(line).unwrap();
    lines.iter().map(|line| parse(&line.line)).collect()
}

#[test]
fn workers_tell_of_connections_that_pass_only_while_somebody_wants_to_know() {
    let mut scene = Scene::new("accepts");
    let accepts = |scene: &Scene| scene.snapshot().settings().accept_events;
    assert!(!accepts(&scene));
    let drops = json!({"follow": true, "allow": [{"verdict": ["DROPPED"]}]});
    let before = scene.generation();
    let reply = scene.must("observe", drops);
    assert_eq!(reply["accepts"], false);
    assert_eq!(scene.generation(), before, "nothing is published for drops");
    let reply = scene.must("observe", json!({"follow": true}));
    assert_eq!(reply["accepts"], true);
    assert!(accepts(&scene));
    tell(
        &mut scene,
        &[EventKind::Accepted(Verdict::default_accept(
            Direction::Ingress,
        ))],
    );
    let told = notifications(&mut scene);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["method"], "observe");
    assert_eq!(told[0]["params"]["subscription"], reply["subscription"]);
    assert_eq!(told[0]["params"]["flow"]["verdict"], "FORWARDED");
    assert_eq!(told[0]["params"]["flow"]["reason"], "no policy applies");
    let log = fs::read_to_string(scene.folder.join("network-policy.log")).unwrap();
    assert_eq!(log, "", "log.accepts is off");
    // Another policy is live in between; the setting stays.
    scene.must("apply", json!({"objects": [deny("d")]}));
    assert!(accepts(&scene));
    scene.must("unwatch", json!({"subscription": reply["subscription"]}));
    assert!(!accepts(&scene));
}

#[test]
fn flows_are_told_with_names_and_kept_for_those_who_come_later() {
    let mut scene = Scene::new("names");
    let applied = scene.must("apply", json!({"objects": [pod("a"), pod("b"), deny("d")]}));
    let uid = applied["results"][0]["uid"].as_str().unwrap().to_owned();
    let added = scene.add("a", &uid, "10.0.0.2").unwrap();
    let target = json!({"resource": "pods", "name": "b"});
    let status = json!({"phase": "Running", "podIPs": [{"ip": "10.0.0.3"}]});
    scene.must("updateStatus", json!({"target": target, "status": status}));
    let denied = Event {
        source: Incarnation(added["incarnation"].as_u64().unwrap() as u32),
        ..event(EventKind::Denied(by_policy(false, None)))
    };
    scene.memory.borrow_mut().events.push(denied);
    tell(&mut scene, &[EventKind::Dropped(DropReason::NoRoute)]);
    let ask = |scene: &mut Scene, params: Value| -> Vec<Value> {
        let reply = scene.must("observe", params);
        reply["flows"].as_array().unwrap().clone()
    };
    let flows = ask(&mut scene, json!({}));
    assert_eq!(flows.len(), 2);
    let flow = &flows[0];
    let end = |ip: &str, port: u16, pod: &str| json!({"ip": ip, "port": port, "namespace": "default", "pod": pod, "labels": {"app": pod}});
    assert_eq!(flow["source"], end("10.0.0.2", 4000, "a"));
    assert_eq!(flow["destination"], end("10.0.0.3", 80, "b"));
    assert_eq!(flow["verdict"], "DROPPED");
    assert_eq!(flow["direction"], "INGRESS");
    assert_eq!(flow["tcpFlags"], json!(["SYN"]));
    let policy = json!({"kind": "NetworkPolicy", "namespace": "default", "name": "d", "rule": null,
            "ruleName": null});
    assert_eq!(flow["policy"], policy);
    assert_eq!(flow["generation"], 1);
    assert_eq!(flows[1]["reason"], "no_route");
    assert_eq!(flows[1]["policy"], Value::Null);
    assert_eq!(ask(&mut scene, json!({"number": 1})), flows[1..]);
    let allow = json!([{"policy": ["default/d"]}]);
    assert_eq!(ask(&mut scene, json!({ "allow": allow })), flows[..1]);
    assert_eq!(
        ask(&mut scene, json!({"since": "2999-01-01T00:00:00Z"})),
        [] as [Value; 0]
    );
    for wrong in [
        json!({"since": "noon"}),
        json!({"allow": [{"sourceIp": ["x"]}]}),
        json!({"allow": [{"nonsense": 1}]}),
    ] {
        let error = scene.call("observe", wrong).unwrap_err();
        assert_eq!(error.code, -32602, "{}", error.message);
    }
}

#[test]
fn what_a_policy_in_audit_mode_would_do_is_logged_and_told_as_such() {
    let mut scene = Scene::new("audited");
    scene.must("apply", json!({"objects": [deny("d")]}));
    let audited = EventKind::Audited {
        enforced: Verdict::default_accept(Direction::Ingress),
        would: by_policy(false, None),
    };
    let other = EventKind::Audited {
        enforced: by_policy(false, None),
        would: by_policy(true, Some(2)),
    };
    scene.must(
        "observe",
        json!({"follow": true, "allow": [{"verdict": ["AUDIT"]}]}),
    );
    tell(
        &mut scene,
        &[audited, other, EventKind::Dropped(DropReason::NoRoute)],
    );
    let told = notifications(&mut scene);
    let reasons: Vec<_> = told
        .iter()
        .map(|line| line["params"]["flow"]["reason"].as_str().unwrap())
        .collect();
    let expected = [
        "would be denied: no rule matches",
        "would be allowed: rule 2 accepts",
    ];
    assert_eq!(reasons, expected);
    assert_eq!(told[0]["params"]["flow"]["policy"]["name"], "d");
    let log = fs::read_to_string(scene.folder.join("network-policy.log")).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    assert!(
        lines[0].contains(";PolicyVerdict: AUDIT;Tier: NETWORK_POLICY;Direction: INGRESS;"),
        "{log}"
    );
    assert!(
        lines[0].contains(";Policy: default/d;Reason: would be denied: no rule matches;"),
        "{log}"
    );
    assert!(
        lines[0].ends_with(";Would: DENY") && lines[1].ends_with(";Would: ACCEPT"),
        "{log}"
    );
}

#[test]
fn rules_are_called_by_their_names_in_the_log_and_to_observers() {
    let mut scene = Scene::new("rule-names");
    let everybody = json!([{"namespaces": {}}]);
    let policy = json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "guard"},
        "spec": {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, "ingress": [
            {"name": "no_telnet;PolicyVerdict: ACCEPT", "action": "Deny", "from": everybody},
            {"action": "Accept", "from": everybody},
        ]}
    });
    scene.must("apply", json!({"objects": [policy]}));
    let by_guard = |accept, rule| Verdict {
        accept,
        provenance: Provenance {
            tier: Tier::Admin,
            ..by_policy(accept, Some(rule)).provenance
        },
    };
    let audited = EventKind::Audited {
        enforced: Verdict::default_accept(Direction::Ingress),
        would: by_guard(false, 0),
    };
    let kinds = [
        EventKind::Denied(by_guard(false, 0)),
        EventKind::Denied(by_guard(false, 1)),
        audited,
    ];
    tell(&mut scene, &kinds);
    let reply = scene.must("observe", json!({}));
    let flows = reply["flows"].as_array().unwrap();
    let named = "rule 0 \"no_telnet;PolicyVerdict: ACCEPT\" denies";
    let reasons: Vec<&str> = flows
        .iter()
        .map(|f| f["reason"].as_str().unwrap())
        .collect();
    let would = format!("would be denied: {named}");
    assert_eq!(reasons, [named, "rule 1 denies", &would]);
    assert_eq!(
        flows[0]["policy"]["ruleName"],
        "no_telnet;PolicyVerdict: ACCEPT"
    );
    assert_eq!(flows[1]["policy"]["ruleName"], Value::Null);
    let log = fs::read_to_string(scene.folder.join("network-policy.log")).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    let expected = ";Policy: guard;Reason: rule 0 \"no_telnet,PolicyVerdict: ACCEPT\" denies;";
    assert!(lines[0].contains(expected), "{log}");
    assert_eq!(lines[0].matches(";PolicyVerdict: ").count(), 1, "{log}");
}

/// The metrics by name and labels, read as strictly as the format's description has it.
pub fn parse(text: &str) -> BTreeMap<String, f64> {
    let is_name = |name: &str| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        name.starts_with("weir_") && name.chars().all(plain)
    };
    let mut samples = BTreeMap::new();
    let mut known = HashSet::new();
    let mut family: Option<(String, String)> = None;
    let mut helped: Option<String> = None;
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').unwrap();
            assert!(is_name(name) && words.ends_with(['.', ')']), "{line}");
            assert!(!words.contains('`') && !words.contains('['), "{line}");
            helped = Some(name.to_owned());
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(
                helped.as_deref(),
                Some(name),
                "HELP comes right before TYPE"
            );
            assert!(known.insert(name.to_owned()), "{name} is there twice");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            // Base units, whole words (https://prometheus.io/docs/practices/naming/).
            let shunned = [
                "ns",
                "us",
                "ms",
                "nanoseconds",
                "microseconds",
                "milliseconds",
                "kib",
            ];
            assert!(
                !name.split('_').any(|part| shunned.contains(&part)),
                "{line}"
            );
            family = Some((name.to_owned(), kind.to_owned()));
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            let (family, kind) = family.as_ref().unwrap();
            let part = name.strip_prefix(family.as_str());
            let parts: &[&str] = match kind.as_str() {
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            assert!(
                part.is_some_and(|part| parts.contains(&part)),
                "samples follow their TYPE"
            );
            if let Some(labels) = series.strip_prefix(name).filter(|rest| !rest.is_empty()) {
                let labels = labels.strip_prefix('{').unwrap().strip_suffix('}').unwrap();
                let mut rest = labels;
                while !rest.is_empty() {
                    let (key, after) = rest.split_once("=\"").unwrap();
                    assert!(
                        key.chars().all(|c| c.is_ascii_lowercase() || c == '_'),
                        "{line}"
                    );
                    let end = after.find('"').unwrap();
                    rest = after[end + 1..].trim_start_matches(',');
                }
            }
            let number: f64 = value.parse().unwrap();
            assert!(
                number >= 0.0
                    && (kind == "gauge" || name.contains("_seconds") || number.fract() == 0.0),
                "{line}"
            );
            assert!(
                samples.insert(series.to_owned(), number).is_none(),
                "{series} twice"
            );
        }
    }
    samples
}

#[test]
fn metrics_are_prometheus_text_with_stable_names() {
    let mut scene = Scene::new("metrics");
    scene.must("apply", json!({"objects": [pod("a"), deny("d")]}));
    scene.add("a", "u1", "10.0.0.2").unwrap();
    tell(&mut scene, &[EventKind::Denied(by_policy(false, None))]);
    let reply = scene.must("metrics", json!({}));
    let samples = parse(reply["text"].as_str().unwrap());
    for (series, expected) in [
        ("weir_generation", scene.generation() as f64),
        ("weir_workers", 2.0),
        ("weir_workers_live", 2.0),
        ("weir_endpoints", 1.0),
        ("weir_enforcement", 1.0),
        ("weir_objects{resource=\"pods\"}", 1.0),
        ("weir_received_packets_total", 0.0),
        ("weir_flows_denied_total", 0.0),
        (
            "weir_dropped_packets_total{reason=\"policy_denied\",direction=\"EGRESS\"}",
            0.0,
        ),
        ("weir_umem_frames_free", 3.0),
        ("weir_captures", 0.0),
        ("weir_conntrack_entries", 0.0),
        ("weir_conntrack_capacity", 1e6),
        ("weir_denial_log_lines_total", 1.0),
        ("weir_denial_log_lost_total", 0.0),
        ("weir_clients", 1.0),
    ] {
        assert_eq!(samples.get(series), Some(&expected), "{series}");
    }
    assert!(samples["weir_journal_bytes"] > 0.0);
    assert!(samples["weir_policy_table_bytes"] > 0.0);
    let drops = samples
        .keys()
        .filter(|series| series.starts_with("weir_dropped_packets_total"));
    assert_eq!(drops.count(), 2 * DropReason::ALL.len());
    // Each change that was published is in both histograms.
    for name in [
        "weir_publication_duration_seconds",
        "weir_apply_duration_seconds",
    ] {
        let count = samples[&format!("{name}_count")];
        assert!(count >= 3.0, "{name} {count}");
        assert_eq!(samples[&format!("{name}_bucket{{le=\"+Inf\"}}")], count);
        let buckets = samples
            .iter()
            .filter(|(series, _)| series.starts_with(&format!("{name}_bucket")));
        assert!(buckets.clone().count() > 5);
        assert!(buckets.map(|(_, value)| value).all(|value| *value <= count));
    }
    assert_eq!(
        samples["weir_publication_duration_seconds_bucket{le=\"0.0001\"}"],
        samples["weir_publication_duration_seconds_count"]
    );
}

/// The value of a metric without labels.
fn metric(scene: &mut Scene, name: &str) -> f64 {
    let reply = scene.must("metrics", json!({}));
    parse(reply["text"].as_str().unwrap())[name]
}

#[test]
fn the_self_check_knows_a_pod_s_way_to_itself() {
    let mut scene = Scene::new("selfcheck-itself");
    let applied = scene.must("apply", json!({"objects": [pod("a"), deny("d")]}));
    let uid = applied["results"][0]["uid"].as_str().unwrap().to_owned();
    let added = scene.add("a", &uid, "10.0.0.3").unwrap();
    let own = Incarnation(added["incarnation"].as_u64().unwrap() as u32);
    let (address, port) = (Address::v4(0x0a60_0001), 80);
    let service = Some(SocketAddress { address, port });
    let wait = |scene: &mut Scene, verdict: Verdict, service| {
        let mut event = Event {
            source: own,
            destination: own,
            service,
            generation: Generation(scene.generation()),
            ..event(EventKind::Sampled(verdict))
        };
        event.key.source = event.key.destination;
        let before = metric(scene, "weir_policy_samples_total");
        scene.memory.borrow_mut().events.push(event);
        assert!(scene.tick());
        let deadline = Instant::now() + Duration::from_secs(10);
        while metric(scene, "weir_policy_samples_total") == before {
            assert!(Instant::now() < deadline, "nobody looks at it");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let accept = Verdict::default_accept(Direction::Ingress);
    // What counts a disagreement counts it behind the sample: a wrong one comes last.
    wait(&mut scene, accept, None);
    wait(&mut scene, accept, service);
    let denies = json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "guard"},
        "spec": {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}},
                 "egress": [{"action": "Deny", "to": [{"namespaces": {}}]}]},
    });
    scene.must("apply", json!({"objects": [denies]}));
    wait(&mut scene, accept, None);
    let by_guard = Verdict {
        accept: false,
        provenance: Provenance {
            direction: Direction::Egress,
            tier: Tier::Admin,
            policy: Some(PolicyId(1)),
            rule: Some(0),
        },
    };
    wait(&mut scene, by_guard, service);
    assert_eq!(metric(&mut scene, "weir_policy_mismatch_total"), 0.0);
    assert_eq!(metric(&mut scene, "weir_policy_reason_mismatch_total"), 0.0);
    wait(&mut scene, accept, service);
    let deadline = Instant::now() + Duration::from_secs(10);
    while metric(&mut scene, "weir_policy_mismatch_total") != 1.0 {
        assert!(Instant::now() < deadline, "nobody noticed");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_self_check_notices_a_wrong_verdict_and_keeps_what_it_follows_from() {
    let mut scene = Scene::new("selfcheck");
    let applied = scene.must("apply", json!({"objects": [pod("a"), deny("d")]}));
    let uid = applied["results"][0]["uid"].as_str().unwrap().to_owned();
    let added = scene.add("a", &uid, "10.0.0.3").unwrap();
    assert_eq!(
        scene.snapshot().settings().sample_one_in,
        config::limits::SAMPLE_ONE_IN
    );
    let generation = Generation(scene.generation());
    let sample = |verdict: Verdict| Event {
        destination: Incarnation(added["incarnation"].as_u64().unwrap() as u32),
        generation,
        ..event(EventKind::Sampled(verdict))
    };
    let check = |scene: &mut Scene, event: Event, name: &str| {
        let before = metric(scene, name);
        scene.memory.borrow_mut().events.push(event);
        assert!(scene.tick());
        let deadline = Instant::now() + Duration::from_secs(10);
        while metric(scene, name) == before {
            assert!(Instant::now() < deadline, "{name} stays {before}");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let mismatches = |scene: &mut Scene| {
        let reasons = metric(scene, "weir_policy_reason_mismatch_total");
        (metric(scene, "weir_policy_mismatch_total"), reasons)
    };
    check(
        &mut scene,
        sample(by_policy(false, None)),
        "weir_policy_samples_total",
    );
    assert_eq!(mismatches(&mut scene), (0.0, 0.0), "right in all");
    // The node itself always reaches its pods.
    let by_node = Event {
        ingress_role: Role::HostNode,
        ..sample(Verdict::default_accept(Direction::Ingress))
    };
    check(&mut scene, by_node, "weir_policy_samples_total");
    assert_eq!(mismatches(&mut scene), (0.0, 0.0), "exempt");
    check(
        &mut scene,
        sample(by_policy(false, Some(0))),
        "weir_policy_reason_mismatch_total",
    );
    assert_eq!(
        mismatches(&mut scene),
        (0.0, 1.0),
        "right for a wrong reason"
    );
    let wrong = Verdict::default_accept(Direction::Ingress);
    check(&mut scene, sample(wrong), "weir_policy_mismatch_total");
    assert_eq!(mismatches(&mut scene), (1.0, 1.0), "wrong");
    let status = scene.must("status", json!({}));
    let health = status["health"].as_str().unwrap();
    assert!(health.starts_with("POLICY MISMATCH"), "{health}");
    let old = Event {
        generation: Generation(generation.0 + 1000),
        ..sample(wrong)
    };
    check(&mut scene, old, "weir_policy_samples_skipped_total");
    assert_eq!(mismatches(&mut scene), (1.0, 1.0), "nobody knows");
    let kept = scene
        .folder
        .join(format!("state/mismatch-{}-1.json", generation.0));
    let kept: Value = serde_json::from_slice(&fs::read(kept).unwrap()).unwrap();
    let names: Vec<&str> = kept["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|object| object["metadata"]["name"].as_str().unwrap())
        .collect();
    assert!(names.contains(&"d") && names.contains(&"a"), "{names:?}");
    assert_eq!(kept["mismatch"]["engine"], "accept (Ingress Default)");
    let specification = kept["mismatch"]["specification"].as_str().unwrap();
    assert!(
        specification.starts_with("drop (Ingress NetworkPolicy policy "),
        "{specification}"
    );
}

#[test]
fn hits_are_of_the_rule_that_has_the_counter_now() {
    let mut scene = Scene::new("hits");
    let mut policy = deny("d");
    policy["spec"]["ingress"] = json!([{"ports": [{"port": 80}]}, {"ports": [{"port": 81}]}]);
    scene.must("apply", json!({"objects": [pod("a"), policy]}));
    let ask = |scene: &mut Scene| {
        let params = json!({"kind": "NetworkPolicy", "namespace": "default", "name": "d"});
        let reply = scene.must("hits", params);
        reply["policies"][0].clone()
    };
    let count = |scene: &mut Scene, hits: [u64; 4]| {
        let hits = hits.map(|packets| RuleHits {
            connections: packets / 2,
            packets,
        });
        scene.memory.borrow_mut().rule_hits = hits.into();
    };
    let found = ask(&mut scene);
    assert_eq!(found["pods"], json!(["default/a"]));
    assert_eq!(
        found["rules"].as_array().unwrap().len(),
        3,
        "two rules and the default"
    );
    // Counter 0 is nobody's, 1 that of the default denials.
    count(&mut scene, [9, 2, 4, 0]);
    let found = ask(&mut scene);
    let rule = |at: usize, found: &Value| {
        let rule = &found["rules"][at];
        let last = rule["lastHit"].is_string();
        (
            rule["rule"].clone(),
            rule["connections"].clone(),
            rule["packets"].clone(),
            last,
        )
    };
    assert_eq!(rule(0, &found), (json!(0), json!(2), json!(4), true));
    assert_eq!(rule(1, &found), (json!(1), json!(0), json!(0), false));
    assert_eq!(rule(2, &found), (Value::Null, json!(1), json!(2), true));
    // A change of the spec begins anew, one of the labels does not.
    let mut changed =
        scene.must("get", json!({"resource": "netpol", "name": "d"}))["items"][0].clone();
    changed["metadata"]["labels"] = json!({"x": "y"});
    scene.must("replace", json!({"objects": [changed.clone()]}));
    assert_eq!(
        rule(0, &ask(&mut scene)),
        (json!(0), json!(2), json!(4), true)
    );
    changed["spec"]["ingress"][0]["ports"][0]["port"] = json!(8080);
    changed["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("resourceVersion");
    scene.must("replace", json!({"objects": [changed]}));
    assert_eq!(
        rule(0, &ask(&mut scene)),
        (json!(0), json!(0), json!(0), false)
    );
    count(&mut scene, [9, 2, 6, 0]);
    assert_eq!(
        rule(0, &ask(&mut scene)),
        (json!(0), json!(1), json!(2), true)
    );
    let about = scene.must("pod.policies", json!({"namespace": "default", "name": "a"}));
    assert_eq!(about["policies"][0]["name"], "d");
    assert_eq!(
        scene.reason("hits", json!({"kind": "Nonsense"})),
        control::protocol::Reason::NotFound
    );
    let reply = scene.must("metrics", json!({}));
    let samples = parse(reply["text"].as_str().unwrap());
    let mut packets = samples
        .iter()
        .filter(|(name, _)| name.starts_with("weir_policy_packets_total"));
    let (name, number) = packets.next().unwrap();
    assert!(
        name.contains("policy=\"d\"") && *number == 2.0,
        "{name} {number}"
    );
}
