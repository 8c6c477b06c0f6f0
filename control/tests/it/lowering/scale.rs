//! What changes cost among 10,000 policies and 5,000 pods, 250 of them here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use control::lower::{Change, LocalEndpoint, Policies, PolicyIds, Settings};
use control::objects::Object;
use serde_json::{Value, json};

const NAMESPACES: usize = 100;
const PODS: usize = 5_000;
const LOCAL: usize = 250;
const POLICIES: usize = 10_000;

fn object(value: Value) -> Arc<Object> {
    Arc::new(Object::new(value).unwrap())
}

fn namespace(index: usize, team: usize) -> Arc<Object> {
    let name = format!("n{index}");
    object(
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "uid": name,
        "labels": {"kubernetes.io/metadata.name": name, "team": format!("t{team}")}}}),
    )
}

fn pod(index: usize, app: usize) -> Arc<Object> {
    let name = format!("p{index}");
    let ip = format!("10.{}.{}.{}", index >> 16, index >> 8 & 255, index & 255);
    object(json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": format!("n{}", index % NAMESPACES), "uid": name,
            "labels": {"app": format!("a{app}"), "tier": format!("t{}", index % 3)}},
        "spec": {"containers": [{"name": "c", "image": "i",
            "ports": [{"name": "web", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIPs": [{"ip": ip}]}}))
}

fn policy(index: usize, port: usize) -> Arc<Object> {
    let name = format!("np{index}");
    let own = index % NAMESPACES;
    object(
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": format!("n{own}"), "uid": name},
        "spec": {"podSelector": {"matchLabels": {"app": format!("a{}", index / NAMESPACES % 10)}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": format!("a{}", index % 7)}}},
                {"namespaceSelector": {"matchLabels": {"team": format!("t{}", index % 5)}},
                    "podSelector": {"matchLabels": {"app": format!("a{}", index % 10)}}}],
                "ports": [{"port": port}, {"port": "web"}]}],
            "egress": [{"to": [{"ipBlock": {"cidr": format!("192.0.{}.0/24", index % 256)}}]},
                {"to": [{"podSelector": {}}], "ports": [{"port": "web"}]}]}}),
    )
}

fn local(pod: &Object) -> LocalEndpoint {
    let ip = pod.value()["status"]["podIPs"][0]["ip"].as_str().unwrap();
    LocalEndpoint {
        namespace: pod.namespace().to_owned(),
        name: pod.name().to_owned(),
        uid: pod.uid().to_owned(),
        addresses: vec![ip.parse().unwrap()],
    }
}

/// The median of some times.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Bounds are far above what is expected, so that a busy machine does not fail them: they are there
/// for work that grows with everything there is.
#[test]
fn one_change_among_many_costs_what_it_touches() {
    let begin = Instant::now();
    let mut all: Vec<Arc<Object>> = (0..NAMESPACES).map(|n| namespace(n, n % 5)).collect();
    let pods: Vec<Arc<Object>> = (0..PODS).map(|n| pod(n, n / NAMESPACES % 10)).collect();
    all.extend(pods.iter().cloned());
    all.extend((0..POLICIES).map(|n| policy(n, 80)));
    println!("objects made in {:?}", begin.elapsed());

    let changes: Vec<Change> = all.iter().map(Change::added).collect();
    let mut policies = Policies::new(PolicyIds::new(), Settings::default());
    let begin = Instant::now();
    policies.update(&changes).unwrap();
    let lowered = begin.elapsed();
    for pod in pods.iter().step_by(PODS / LOCAL) {
        policies.attach(local(pod)).unwrap();
    }
    policies.compile_endpoints();
    policies.keep();
    let full = begin.elapsed();
    println!("lowered in {lowered:?}, with endpoints compiled {full:?}");
    assert!(full < Duration::from_secs(20), "{full:?}");

    type Toggle = Box<dyn Fn(usize) -> Arc<Object>>;
    let kinds: [(&str, Toggle); 4] = [
        ("a policy", Box::new(|odd| policy(4_200, 80 + odd))),
        ("a pod's label", Box::new(|odd| pod(20, odd))),
        (
            "a label of a pod that is elsewhere",
            Box::new(|odd| pod(21, odd)),
        ),
        ("a namespace's label", Box::new(|odd| namespace(20, odd))),
    ];
    for (what, make) in kinds {
        let mut times = Vec::new();
        let mut touched = 0;
        let mut old = None;
        for round in 0..21 {
            let new = make(round % 2);
            let change = Change {
                old: old.replace(new.clone()),
                new: Some(new),
            };
            let begin = Instant::now();
            touched = policies.update(&[change]).unwrap().endpoints.len();
            policies.keep();
            times.push(begin.elapsed());
        }
        let median = median(times);
        println!("{what}: {median:?}, touches {touched} endpoints");
        assert!(median < Duration::from_millis(100), "{what}: {median:?}");
    }
}
