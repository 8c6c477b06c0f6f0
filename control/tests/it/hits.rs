//! Hits of rules that only let traffic go on: they are counted together with what decides.

use std::sync::Arc;

use control::lower::{Change, LocalEndpoint, Policies, PolicyIds, Settings};
use control::objects::{Key, Object, kinds};
use dataplane::counters::RuleHits;
use dataplane::{Address, Direction, Protocol};
use serde_json::{Value, json};

use crate::store::{Scene, pod};

const ADDRESS: &str = "10.0.0.2";

/// What lets pods send to anybody: a security group, its binding and a Pass.
fn passing() -> [Value; 3] {
    [
        json!({
            "apiVersion": "weir.dev/v1alpha1", "kind": "SecurityGroup", "metadata": {"name": "sg"},
            "spec": {"egress": [
                {"protocol": "tcp", "fromPort": 9, "toPort": 9, "cidrs": ["0.0.0.0/0"]},
                {"protocol": "-1", "cidrs": ["0.0.0.0/0"]},
            ]}
        }),
        json!({
            "apiVersion": "vpcresources.k8s.aws/v1beta1", "kind": "SecurityGroupPolicy",
            "metadata": {"name": "bind", "namespace": "default"},
            "spec": {"podSelector": {}, "securityGroups": {"groupIds": ["sg"]}}
        }),
        json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": "pass"},
            "spec": {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, "egress": [
                {"action": "Pass", "to": [{"networks": ["0.0.0.0/0"]}]},
            ]}
        }),
    ]
}

fn allow() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "allow", "namespace": "default"},
        "spec": {"podSelector": {}, "policyTypes": ["Egress"],
            "egress": [{"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}]}
    })
}

/// Gives the pod its interface.
fn attach(scene: &mut Scene) {
    let found = scene.must("get", json!({"resource": "pods", "name": "a"}));
    let uid = found["items"][0]["metadata"]["uid"].as_str().unwrap();
    scene.add("a", uid, ADDRESS).unwrap();
}

/// Whose counter the pod's packets to an address add to.
fn counter(scene: &Scene, to: [u8; 4]) -> usize {
    let snapshot = scene.snapshot();
    let address: std::net::IpAddr = ADDRESS.parse().unwrap();
    let slot = snapshot.endpoint_at(address.into()).unwrap().slot;
    let peer = snapshot
        .policy()
        .peer(Address::from(std::net::IpAddr::from(to)));
    let decision =
        snapshot
            .policy()
            .decide(slot, Direction::Egress, &peer, Protocol::TCP, Some(80));
    decision.counter.0 as usize
}

/// A connection that adds to a counter, and its two packets.
fn hit(scene: &Scene, counter: usize) {
    let hits = &mut scene.memory.borrow_mut().rule_hits;
    if hits.len() <= counter {
        hits.resize(counter + 1, RuleHits::default());
    }
    hits[counter].connections += 1;
    hits[counter].packets += 2;
}

/// By rule the connections, or that they are not counted.
fn connections(scene: &mut Scene, kind: &str, name: &str) -> Vec<Option<u64>> {
    let namespace = (kind == "NetworkPolicy").then_some("default");
    let params = json!({"kind": kind, "name": name, "namespace": namespace});
    let reply = scene.must("hits", params);
    let rules = reply["policies"][0]["rules"].as_array().unwrap().iter();
    let of = |rule: &Value| {
        let connections = rule["connections"].as_u64().unwrap();
        assert_eq!(rule["packets"], connections * 2, "{rule}");
        assert_eq!(rule["lastHit"].is_string(), connections > 0, "{rule}");
        (rule["isCounted"] == true).then_some(connections)
    };
    rules.map(of).collect()
}

fn group(scene: &mut Scene) -> Vec<Option<u64>> {
    connections(scene, "SecurityGroup", "sg")
}

fn pass(scene: &mut Scene) -> Vec<Option<u64>> {
    connections(scene, "ClusterNetworkPolicy", "pass")
}

fn allowed(scene: &mut Scene) -> Vec<Option<u64>> {
    connections(scene, "NetworkPolicy", "allow")
}

#[test]
fn all_that_had_a_part_in_a_decision_are_counted_and_none_pays_for_another() {
    let mut scene = Scene::new("parts");
    let mut objects = vec![pod("a"), allow()];
    objects.extend(passing());
    scene.must("apply", json!({"objects": objects}));
    attach(&mut scene);

    let (inside, outside) = (
        counter(&scene, [192, 0, 2, 1]),
        counter(&scene, [9, 9, 9, 9]),
    );
    hit(&scene, inside);
    hit(&scene, inside);
    hit(&scene, outside);
    assert_eq!(group(&mut scene), [Some(0), Some(3)]);
    assert_eq!(pass(&mut scene), [Some(3)]);
    assert_eq!(
        allowed(&mut scene),
        [Some(2), Some(1)],
        "the rule, and the default"
    );

    // One member begins anew; what it had in common with others stays theirs, what nobody has read
    // yet, too.
    hit(&scene, inside);
    let mut changed = allow();
    changed["spec"]["egress"][0]["ports"] = json!([{"port": 80}]);
    scene.must("apply", json!({"objects": [changed]}));
    assert_eq!(group(&mut scene), [Some(0), Some(4)]);
    assert_eq!(pass(&mut scene), [Some(4)]);
    assert_eq!(allowed(&mut scene), [Some(0), Some(0)]);
    let again = counter(&scene, [192, 0, 2, 1]);
    hit(&scene, again);
    assert_eq!(allowed(&mut scene), [Some(1), Some(0)]);

    // One member goes. Workers still count for it a moment, by an older table: the others have that,
    // too, and whoever comes next has nothing of it.
    let target = json!({"resource": "netpol", "namespace": "default", "name": "allow"});
    scene.must("delete", json!({"targets": [target]}));
    hit(&scene, again);
    assert_eq!(group(&mut scene), [Some(0), Some(6)]);
    assert_eq!(pass(&mut scene), [Some(6)]);
    let undecided = counter(&scene, [192, 0, 2, 1]);
    assert!(undecided != again && undecided != outside);
    hit(&scene, undecided);
    assert_eq!(group(&mut scene), [Some(0), Some(7)]);
    scene.must("apply", json!({"objects": [allow()]}));
    assert_eq!(allowed(&mut scene), [Some(0), Some(0)]);
    hit(&scene, again);
    assert_eq!(allowed(&mut scene), [Some(0), Some(0)], "another's past");
    assert_eq!(pass(&mut scene), [Some(8)]);
    let metrics = scene.must("metrics", json!({}));
    let metrics = metrics["text"].as_str().unwrap();
    assert!(
        metrics.contains("\nweir_combinations_uncounted 0\n"),
        "{metrics}"
    );
}

#[test]
fn what_no_compound_counter_is_left_for_is_shown_as_not_counted() {
    let stored = |mut value: Value, uid: usize| {
        value["metadata"]["uid"] = json!(format!("u{uid}"));
        value["metadata"]["resourceVersion"] = json!("1");
        Change::added(&Arc::new(Object::new(value).unwrap()))
    };
    let counted = |compound_counters| {
        let settings = Settings {
            compound_counters,
            ..Settings::default()
        };
        let mut policies = Policies::new(PolicyIds::new(), settings);
        let mut a = pod("a");
        a["metadata"]["namespace"] = json!("default");
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}});
        let objects = passing().into_iter().chain([allow(), a, namespace]);
        let changes: Vec<Change> = objects.enumerate().map(|(at, o)| stored(o, at)).collect();
        policies.update(&changes).unwrap();
        policies.keep();
        let local = LocalEndpoint {
            namespace: "default".into(),
            name: "a".into(),
            uid: "u4".into(),
            addresses: vec![ADDRESS.parse().unwrap()],
        };
        policies.attach(local).unwrap();
        policies.compile_endpoints();
        let rules = |kind: &str, namespace, name| {
            let kind = kinds::KINDS.iter().find(|k| k.kind == kind).unwrap();
            let rules = policies
                .rules_of(&Key::new(kind, namespace, name))
                .unwrap()
                .rules;
            rules.iter().map(|rule| rule.is_counted).collect::<Vec<_>>()
        };
        let found = [
            rules("SecurityGroup", "", "sg"),
            rules("ClusterNetworkPolicy", "", "pass"),
            rules("NetworkPolicy", "default", "allow"),
        ];
        assert!(policies.counters().without() == 0);
        (
            found,
            policies.compounds().in_use(),
            policies.compounds().without(),
        )
    };
    let whole = [vec![true, true], vec![true], vec![true, true]];
    assert_eq!(counted(8), (whole.clone(), 4, 0));
    // The rule for port 9 and the one for any, each with the policy's rule and its default.
    let none = [vec![false, false], vec![false], vec![true, true]];
    assert_eq!(counted(0), (none, 0, 4));
    let ((some, in_use, without), most) = (counted(3), whole[2].clone());
    assert_eq!(
        (some[1].clone(), some[2].clone(), in_use, without),
        (vec![false], most, 3, 1)
    );
}

#[test]
fn questions_and_previews_use_no_compound_counters_up() {
    let mut scene = Scene::new("trials");
    let mut other = allow();
    other["metadata"]["name"] = json!("of-b");
    other["spec"]["podSelector"] = json!({"matchLabels": {"app": "b"}});
    let mut b = pod("b");
    b["status"] = json!({"phase": "Running", "podIPs": [{"ip": "10.0.0.3"}]});
    let mut objects = vec![pod("a"), b, allow(), other];
    objects.extend(passing());
    scene.must("apply", json!({"objects": objects}));
    let in_use = |scene: &mut Scene| {
        let metrics = scene.must("metrics", json!({}));
        let metrics = metrics["text"].as_str().unwrap().to_owned();
        let line = metrics
            .lines()
            .find(|l| l.starts_with("weir_compound_counters "));
        line.unwrap().rsplit(' ').next().unwrap().to_owned()
    };
    assert_eq!(in_use(&mut scene), "0", "nobody is here");
    attach(&mut scene);
    assert_eq!(in_use(&mut scene), "4");
    let mut more = allow();
    more["metadata"]["name"] = json!("more");
    more["spec"]["egress"] = json!([{"ports": [{"port": 1}]}, {"ports": [{"port": 2}]}]);
    scene.must("apply", json!({"objects": [more.clone()], "dryRun": true}));
    assert_eq!(in_use(&mut scene), "4");
    // Of a pod that is not here policy is compiled for the question alone.
    let asked = scene.must("matrix", json!({"ports": ["80/TCP"]}));
    assert!(
        asked["text"].as_str().unwrap().contains("default/b"),
        "{asked}"
    );
    assert_eq!(in_use(&mut scene), "4");
    scene.must("apply", json!({"objects": [more]}));
    assert_eq!(in_use(&mut scene), "6", "two rules more");
}
