//! What a change opens and closes, compared on two tables.

use std::collections::BTreeSet;

use control::objects::decode_documents;
use control::offline::{Offline, put_all};
use control::preview::{Comparison, Party, Side};
use control::protocol::{Preview, PreviewGroup};
use dataplane::policy::EndpointSlot;
use serde_json::{Value, json};

use crate::store::{Scene, deny, pod};

const PODS: [&str; 3] = ["db", "api", "web"];

fn pods() -> String {
    let pods = PODS.iter().enumerate().map(|(index, name)| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{namespace: x, name: {name}, labels: \
             {{app: {name}}}}}\nspec: {{containers: [{{name: c, image: i}}]}}\n\
             status: {{phase: Running, podIP: 10.0.0.{}}}\n",
            index + 1
        )
    });
    pods.collect()
}

/// Two pods with addresses of both families.
const DUAL_STACK: &str = "
---
{apiVersion: v1, kind: Pod, metadata: {namespace: x, name: six, labels: {app: six}},
 spec: {containers: [{name: c, image: i}]},
 status: {phase: Running, podIP: 10.0.0.6, podIPs: [{ip: 10.0.0.6}, {ip: 'fd00::6'}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: x, name: eight, labels: {app: eight}},
 spec: {containers: [{name: c, image: i}]},
 status: {phase: Running, podIP: 10.0.0.8, podIPs: [{ip: 10.0.0.8}, {ip: 'fd00::8'}]}}
";

fn policy(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
         metadata: {{namespace: x, name: {name}}}\nspec: {spec}\n"
    )
}

/// What `change` does to a scene with these policies.
fn preview(policies: &str, change: &str) -> Preview {
    let objects = || decode_documents(&format!("{}{policies}", pods()), "t.yaml").unwrap();
    let before = Offline::new(objects()).unwrap();
    // The same seed gives the same UIDs, and so the same slots.
    let mut after = Offline::new(objects()).unwrap();
    let change = decode_documents(change, "c.yaml").unwrap();
    after
        .change(|transaction| put_all(transaction, change))
        .unwrap();
    let (before, after) = (before.view(), after.view());
    assert_eq!((before.locals, before.slots), (after.locals, after.slots));
    let placed = before.locals.iter().zip(before.slots);
    let pods: Vec<Party> = placed
        .map(|(local, slot)| Party {
            name: format!("{}/{}", local.namespace, local.name),
            addresses: local.addresses.clone(),
            slot: Some(*slot),
        })
        .collect();
    let touched: BTreeSet<EndpointSlot> = before.slots.iter().copied().collect();
    let comparison = Comparison {
        before: Side::enforced(before.table),
        after: Side::enforced(after.table),
        touched: &touched,
        pods: &pods,
    };
    comparison.preview()
}

/// `a, b -> c: PORTS`, sorted.
fn lines(groups: &[PreviewGroup]) -> Vec<String> {
    let mut lines: Vec<String> = groups
        .iter()
        .map(|g| format!("{} -> {}: {}", g.from.join(", "), g.to.join(", "), g.ports))
        .collect();
    lines.sort();
    lines
}

#[test]
fn a_first_policy_closes_all_but_what_it_allows() {
    let preview = preview(
        "",
        &policy(
            "db",
            "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: \
             {app: api}}}], ports: [{port: 5432}, {port: 8000, endPort: 8010}]}]}",
        ),
    );
    assert_eq!(lines(&preview.opens), [""; 0]);
    assert_eq!(
        lines(&preview.closes),
        [
            "other IPv4 addresses, x/web -> x/db: everything",
            "x/api -> x/db: TCP 1-5431, 5433-7999, 8011-65535; UDP; SCTP; protocols without ports",
        ]
    );
    assert_eq!((preview.closed_pairs, preview.opened_pairs), (3, 0));
}

/// Each family is told of where they do not change alike.
#[test]
fn what_stays_open_over_one_family_is_not_told_as_closed() {
    let block = "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{ipBlock: {cidr: \
                 0.0.0.0/0}}], ports: [{port: 80}]}]}";
    let before = DUAL_STACK.to_owned();
    let told = preview(&before, &policy("db", block));
    let lines = lines(&told.closes);
    let of_six: Vec<&String> = lines.iter().filter(|line| line.contains("x/six")).collect();
    assert_eq!(
        of_six,
        [
            "0.0.0.0/0, x/api, x/eight, x/six, x/web -> x/db: TCP 1-79, 81-65535; UDP; SCTP; protocols without ports",
        ]
    );
    let block = block.replace("app: db", "app: six");
    let told = preview(&before, &policy("six", &block));
    let lines = self::lines(&told.closes);
    assert!(
        lines.contains(
            &"x/eight -> x/six: TCP 1-79, 81-65535; UDP; SCTP; protocols without ports (over IPv4)"
                .to_owned()
        ),
        "{lines:?}"
    );
    assert!(
        lines.contains(&"x/eight -> x/six: everything (over IPv6)".to_owned()),
        "{lines:?}"
    );
}

#[test]
fn a_changed_rule_opens_and_closes() {
    let rule = |port: u16| {
        policy(
            "db",
            &format!(
                "{{podSelector: {{matchLabels: {{app: db}}}}, ingress: [{{ports: [{{port: {port}}}]}}]}}"
            ),
        )
    };
    let preview = preview(&rule(80), &rule(81));
    assert_eq!(
        lines(&preview.opens),
        ["other IPv4 addresses, x/api, x/web -> x/db: TCP 81"]
    );
    assert_eq!(
        lines(&preview.closes),
        ["other IPv4 addresses, x/api, x/web -> x/db: TCP 80"]
    );
}

#[test]
fn what_another_policy_allows_or_denies_stays() {
    let open = policy("open", "{podSelector: {}, ingress: [{}]}");
    let closed = policy("closed", "{podSelector: {}}");
    let nothing = preview(&open, &closed);
    assert_eq!((nothing.opened_pairs, nothing.closed_pairs), (0, 0));
    // Egress of the sender still denies.
    let mute = policy("mute", "{podSelector: {}, policyTypes: [Egress]}");
    let nothing = preview(&format!("{mute}{closed}"), &open);
    let opens = lines(&nothing.opens);
    assert_eq!(
        opens,
        ["other IPv4 addresses -> x/api, x/db, x/web: everything"]
    );
}

#[test]
fn addresses_outside_are_asked_for_by_example() {
    let egress = |block: &str| {
        policy(
            "out",
            &format!(
                "{{podSelector: {{matchLabels: {{app: web}}}}, policyTypes: [Egress], egress: \
                 [{{to: [{{ipBlock: {block}}}]}}]}}"
            ),
        )
    };
    let preview = preview(
        &egress("{cidr: 198.51.100.0/24}"),
        &egress("{cidr: 198.51.100.0/24, except: [198.51.100.0/25]}"),
    );
    assert_eq!(lines(&preview.opens), [""; 0]);
    assert_eq!(
        lines(&preview.closes),
        ["x/web -> 198.51.100.0/25: everything"]
    );
}

#[test]
fn a_label_moves_a_pod() {
    let rule = policy(
        "db",
        "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: \
         {app: api}}}]}]}",
    );
    let relabelled = "{apiVersion: v1, kind: Pod, metadata: {namespace: x, name: web, labels: \
                      {app: api}}, spec: {containers: [{name: c, image: i}]}}";
    let preview = preview(&rule, relabelled);
    assert_eq!(lines(&preview.opens), ["x/web -> x/db: everything"]);
    assert_eq!(lines(&preview.closes), [""; 0]);
}

#[test]
fn a_policy_in_audit_mode_changes_nothing_and_says_what_it_would() {
    let mut scene = Scene::new("audit-preview");
    let [mut a, mut b] = [pod("a"), pod("b")];
    for (pod, address) in [(&mut a, "10.0.0.2"), (&mut b, "10.0.0.3")] {
        pod["status"] = json!({"phase": "Running", "podIPs": [{"ip": address}]});
    }
    scene.must("apply", json!({"objects": [a, b]}));
    let found = scene.must("get", json!({"resource": "pods", "name": "b"}));
    let uid = found["items"][0]["metadata"]["uid"]
        .as_str()
        .unwrap()
        .to_owned();
    scene.add("b", &uid, "10.0.0.3").unwrap();
    let try_out = |scene: &mut Scene, policy: &Value| {
        scene.must("apply", json!({"objects": [policy], "dryRun": true}))["preview"].clone()
    };
    let enforced = deny("d");
    let mut audited = deny("d");
    audited["metadata"]["annotations"] = json!({"weir.dev/mode": "audit"});
    let preview = try_out(&mut scene, &enforced);
    assert!(preview["closedPairs"].as_u64().unwrap() > 0, "{preview}");
    assert_eq!(preview.get("audited"), None);
    let would = try_out(&mut scene, &audited);
    assert_eq!(
        (&would["closedPairs"], &would["openedPairs"]),
        (&json!(0), &json!(0)),
        "{would}"
    );
    let told = &would["audited"];
    assert_eq!(
        told["policies"],
        json!(["networkpolicy.networking.k8s.io/d"])
    );
    assert_eq!(told["closes"], preview["closes"]);
    assert_eq!(told["closedPairs"], preview["closedPairs"]);
    assert_eq!(told["openedPairs"], 0);
    // One that is enforced is taken back to audit: that opens, and says what it would close.
    scene.must("apply", json!({"objects": [enforced]}));
    let back = try_out(&mut scene, &audited);
    assert_eq!(back["opens"], preview["closes"], "{back}");
    assert_eq!(back["audited"]["closes"], preview["closes"], "{back}");
}
