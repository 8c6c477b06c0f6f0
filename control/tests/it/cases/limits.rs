//! Sizes: what is large and must work, and what is told to be too large.

use std::fmt::Write as _;

use control::cluster::{Cluster, Reason, Seeded};
use control::objects::{DecodeError, decode_documents};
use control::offline::Offline;
use serde_json::json;

use super::Scene;

/// A verdict has 16 bits for the rule's index. Rules behind them still decide.
#[test]
fn rules_beyond_the_last_index_of_a_verdict_still_decide() {
    let mut spec = "{ingress: [".to_owned();
    for rule in 0..70_000 {
        let port = if rule == 69_999 { 90 } else { 80 };
        write!(spec, "{{ports: [{{port: {port}}}]}},").unwrap();
    }
    let mut scene = Scene::new();
    scene.policy("x/p", &(spec + "]}"));
    scene.without_trace().holds_as_written(
        "
        y/a -> x/a TCP/80 TCP/90: allow
        y/a -> x/a TCP/91 UDP/90: deny ingress
        ",
    );
}

#[test]
fn many_blocks_ports_and_policies_at_once() {
    let mut scene = Scene::new();
    // 2000 blocks with a hole each; odd ports below 4000.
    let blocks: Vec<String> = (0..2000)
        .map(|n| {
            let (a, b) = (n / 250, n % 250);
            format!("{{ipBlock: {{cidr: 198.{a}.{b}.0/24, except: [198.{a}.{b}.64/26]}}}}")
        })
        .collect();
    let ports: Vec<String> = (0..2000)
        .map(|n| format!("{{port: {}}}", 2 * n + 1))
        .collect();
    scene.policy(
        "x/p",
        &format!(
            "{{ingress: [{{from: [{}], ports: [{}]}}]}}",
            blocks.join(","),
            ports.join(",")
        ),
    );
    // And a policy for each of 500 addresses.
    for n in 0..500 {
        let (a, b) = (n / 250, n % 250);
        let spec = format!("{{ingress: [{{from: [{{ipBlock: {{cidr: 203.0.{a}.{b}/32}}}}]}}]}}");
        scene.policy(&format!("x/q{n}"), &spec);
    }
    scene.holds_as_written(
        "
        198.0.0.1 198.7.249.255 198.3.100.63 198.3.100.128 -> x/a TCP/1 TCP/3999: allow
        198.0.0.1 198.7.249.255 -> x/a TCP/2 TCP/4000 TCP/4001 UDP/1 ICMP: deny ingress
        198.0.0.64 198.7.249.127 198.8.0.1 198.0.250.1 -> x/a TCP/1 TCP/3999: deny ingress
        203.0.0.0 203.0.1.249 -> x/a TCP/2 UDP/9 ICMP: allow
        203.0.1.250 203.0.2.0 -> x/a TCP/1 UDP/9 ICMP: deny ingress
        ",
    );
}

/// `apply` keeps the manifest in an annotation, as kubectl does; `create` does not.
#[test]
fn a_manifest_too_large_for_its_annotation_can_be_created_but_not_applied() {
    let rules: Vec<_> = (0..20_000)
        .map(|n| json!({"ports": [{"port": 1 + n}]}))
        .collect();
    let policy = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "default"}, "spec": {"ingress": rules}});
    let object = decode_documents(&policy.to_string(), "t")
        .unwrap()
        .remove(0);
    let mut source = Seeded::new(1);
    let cluster = Cluster::new(&mut source);
    let mut transaction = cluster.begin(&mut source);
    let refusal = transaction.apply(object.clone()).unwrap_err();
    assert_eq!(
        (refusal.reason, refusal.message.as_str()),
        (
            Reason::Invalid,
            "The NetworkPolicy \"p\" is invalid: metadata.annotations: Too long: may not be more \
             than 262144 bytes"
        )
    );
    transaction.create(object).unwrap();
}

#[test]
fn too_many_objects_and_lists_too_deep_are_refused() {
    let item = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}});
    let list = |items: Vec<_>| json!({"apiVersion": "v1", "kind": "List", "items": items});
    let full = list(vec![item.clone(); 100_000]).to_string();
    assert_eq!(decode_documents(&full, "t").unwrap().len(), 100_000);
    let over = list(vec![item.clone(); 100_001]).to_string();
    assert_eq!(
        decode_documents(&over, "t").unwrap_err(),
        DecodeError::TooMany
    );
    let nested = |depth| {
        (0..depth)
            .fold(item.clone(), |inner, _| list(vec![inner]))
            .to_string()
    };
    assert_eq!(decode_documents(&nested(8), "t").unwrap().len(), 1);
    assert_eq!(
        decode_documents(&nested(9), "t").unwrap_err(),
        DecodeError::TooMany
    );
}

/// A workload stands for at most 1000 pods, and says so.
#[test]
fn more_replicas_than_are_looked_at_are_warned_of() {
    let deployment = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {replicas: \
        1001, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: \
        {containers: [{name: c, image: i}]}}}}";
    let offline = Offline::new(decode_documents(deployment, "t").unwrap()).unwrap();
    let pods = offline.view().locals.len();
    assert_eq!(pods, 1000);
    let warned = |w: &String| w.ends_with(": only 1000 of 1001 pods are looked at");
    assert!(
        offline.warnings.iter().any(warned),
        "{:?}",
        offline.warnings
    );
}
