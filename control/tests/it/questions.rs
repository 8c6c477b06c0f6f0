//! `trace` and `matrix` offline: what they say, and in which form.

use control::matrix::Matrix;
use control::objects::decode_documents;
use control::offline::Offline;
use control::protocol::{MatrixParams, TraceParams};
use control::trace::Trace;
use serde_json::{Value, json};

use crate::schemas;

const OBJECTS: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: red}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: ops, labels: {team: blue}}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: db, labels: {app: db}},
 spec: {containers: [{name: c, image: i, ports: [{name: sql, containerPort: 3307}]}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: web, labels: {app: web}},
 spec: {containers: [{name: c, image: i, ports: [{containerPort: 80}, {containerPort: 53, protocol: UDP}]}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: ops, name: tool},
 spec: {containers: [{name: c, image: i}]}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: db}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
  - {from: [{podSelector: {matchLabels: {app: api}}}], ports: [{port: 3306}]}
  - {from: [{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.128/25]}}], ports: [{port: 3306}]}
  - {from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 3307}, {port: 53, protocol: UDP}]}
  - from: [{namespaceSelector: {matchLabels: {team: green}}, podSelector: {matchExpressions: [{key: app, operator: Exists}]}}]
    ports: [{port: 3306}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: everything-closed}
spec: {podSelector: {}}
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: guard}
spec:
  tier: Admin
  priority: 10
  subject: {namespaces: {matchLabels: {team: red}}}
  ingress:
  - {action: Pass, from: [{pods: {podSelector: {matchLabels: {app: web}}}}]}
  - {action: Deny, from: [{namespaces: {matchLabels: {team: blue}}}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: ops, name: tried, annotations: {weir.dev/mode: audit}}
spec: {podSelector: {}, policyTypes: [Egress]}
";

fn offline() -> Offline {
    Offline::new(decode_documents(OBJECTS, "t.yaml").unwrap()).unwrap()
}

fn trace(from: &str, to: &str, port: u16) -> Trace {
    let params = TraceParams {
        from: from.to_owned(),
        to: to.to_owned(),
        port: Some(port.to_string()),
        protocol: None,
        namespace: None,
    };
    offline().view().trace(&params).unwrap()
}

/// `TIER POLICY: RESULT` of the steps of one direction.
fn steps(trace: &Trace, direction: &str) -> Vec<String> {
    let steps = trace.steps.iter().filter(|s| s.direction == direction);
    steps
        .map(|step| {
            let policy = step.policy.as_deref().unwrap_or("-");
            format!("{} {policy}: {}", step.tier, step.result)
        })
        .collect()
}

fn misses(trace: &Trace) -> Vec<&str> {
    let steps = trace.steps.iter();
    steps.filter_map(|s| s.nearest_miss.as_deref()).collect()
}

#[test]
fn every_policy_that_was_asked_is_there() {
    let denied = trace("shop/web", "shop/db", 3306);
    assert_eq!(
        steps(&denied, "ingress"),
        [
            "admin guard: pass",
            "networkPolicy shop/db: deny",
            "networkPolicy shop/everything-closed: deny"
        ]
    );
    assert_eq!(
        denied.reason,
        "ingress: isolated by shop/db, shop/everything-closed, no rule matches port"
    );
    assert_eq!(
        misses(&denied),
        ["rule 2 fails on port: 3306/TCP, wants 3307/TCP or 53/UDP"]
    );
    let allowed = trace("shop/web", "shop/db", 3307);
    assert_eq!(
        steps(&allowed, "ingress"),
        [
            "admin guard: pass",
            "networkPolicy shop/db: allow",
            "networkPolicy shop/everything-closed: no match"
        ]
    );
    assert_eq!(allowed.deciders(), ["shop/db"]);
    let by_admin = trace("ops/tool", "shop/db", 3307);
    assert_eq!(steps(&by_admin, "ingress"), ["admin guard: deny"]);
    assert_eq!(by_admin.steps[1].rule, Some(1));
    assert_eq!(
        by_admin.steps[1].nearest_miss.as_deref(),
        Some("rule 0 fails on peer: ops/tool has no app, wants pods with app=web in any namespace")
    );
}

#[test]
fn a_miss_says_what_is_and_what_is_wanted() {
    let of = |from: &str, port: u16| {
        let trace = trace(from, "shop/db", port);
        assert_eq!(trace.verdict, "deny");
        misses(&trace).join("\n")
    };
    assert_eq!(
        of("192.0.2.200", 3306),
        "rule 1 fails on peer: 192.0.2.200 is in 192.0.2.0/24 but excepted by 192.0.2.128/25"
    );
    assert_eq!(
        of("198.51.100.1", 3306),
        "rule 0 fails on peer: 198.51.100.1, wants pods with app=api in namespace shop"
    );
    assert_eq!(of("192.0.2.1", 80), "rule 1 fails on port: 80, wants 3306");
}

#[test]
fn audit_says_what_it_would_change() {
    let trace = trace("ops/tool", "shop/web", 80);
    assert_eq!(trace.audit.len(), 1, "{trace:?}");
    assert_eq!(trace.audit[0].direction, "egress");
    assert_eq!(trace.audit[0].reason, "audit: would deny by ops/tried");
    // It has no part in what is decided.
    assert_eq!(steps(&trace, "egress"), ["default -: allow"]);
}

#[test]
fn a_trace_has_its_schema() {
    for (from, to, port) in [
        ("shop/web", "shop/db", 3306),
        ("shop/web", "shop/db", 3307),
        ("ops/tool", "shop/web", 80),
        ("192.0.2.1", "192.0.2.2", 80),
    ] {
        let trace = serde_json::to_value(trace(from, to, port)).unwrap();
        schemas::holds("trace.v1.schema.json", &trace);
    }
}

#[test]
fn a_matrix_reads_the_same_written_or_kept() {
    let offline = offline();
    for params in [
        MatrixParams::default(),
        MatrixParams {
            ports: vec!["80".into(), "icmp".into()],
            with: vec!["192.0.2.1".into()],
            namespace: Some("shop".into()),
        },
        MatrixParams {
            namespace: Some("nowhere".into()),
            ..MatrixParams::default()
        },
    ] {
        let view = offline.view();
        let kept = view.matrix(&params).unwrap();
        let plan = view.plan(&params).unwrap();
        let (mut json, mut text) = (Vec::new(), Vec::new());
        plan.write_json(&mut json).unwrap();
        plan.write_text(&mut text).unwrap();
        let value = serde_json::to_value(&kept).unwrap();
        schemas::holds("matrix.v1.schema.json", &value);
        let json = String::from_utf8(json).unwrap();
        assert_eq!(json, control::cli::output::indented(&value));
        assert_eq!(String::from_utf8(text).unwrap(), kept.text());
        let read: Matrix = serde_json::from_str(&json).unwrap();
        assert_eq!(read, kept);
    }
}

/// A rule for blocks of one family leaves the other as it is.
#[test]
fn families_that_are_judged_otherwise_are_told_apart() {
    let pod = |name: &str, number: u8| {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "a", "name": name},
            "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]},
            "status": {"phase": "Running", "podIP": format!("10.0.0.{number}"), "podIPs": [
                {"ip": format!("10.0.0.{number}")}, {"ip": format!("fd00::{number}")}]}
        })
    };
    let matrix = |block: &str| {
        let policy = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "a", "name": "one-family"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress"],
                     "ingress": [{"from": [{"ipBlock": {"cidr": block}}]}]}
        });
        let items = [pod("x", 1), pod("y", 2), policy];
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        let objects = decode_documents(&list.to_string(), "t.json").unwrap();
        let offline = Offline::new(objects).unwrap();
        let view = offline.view();
        let matrix = view.matrix(&MatrixParams::default()).unwrap();
        let mut text = Vec::new();
        let plan = view.plan(&MatrixParams::default()).unwrap();
        plan.write_text(&mut text).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), matrix.text());
        let value = serde_json::to_value(&matrix).unwrap();
        schemas::holds("matrix.v1.schema.json", &value);
        let ends = |to: &str| TraceParams {
            from: "a/x".into(),
            to: to.into(),
            port: Some("80".into()),
            ..TraceParams::default()
        };
        let trace = view.trace(&ends("a/y")).unwrap();
        let over_v6 = view.trace(&ends("fd00::2")).unwrap();
        (matrix, trace, over_v6)
    };
    let (only_v4, trace, over_v6) = matrix("10.0.0.0/8");
    assert_eq!(
        only_v4.text(),
        "FROM   a/x:80/TCP   a/y:80/TCP\na/x    .            4\na/y    4            .\n\
         4, 6: over IPv4 or IPv6 alone\n"
    );
    let value = serde_json::to_value(&only_v4.entries[1]).unwrap();
    assert_eq!(
        (&value["verdict"], &value["allowedFamily"]),
        (&json!("deny"), &json!("IPv4"))
    );
    assert!(
        only_v4.entries[1].reason.starts_with("IPv6: "),
        "{}",
        only_v4.entries[1].reason
    );
    assert_eq!((trace.verdict, trace.other_family), ("allow", Some("deny")));
    let last = trace.text().lines().last().unwrap().to_owned();
    assert_eq!(
        last,
        "  this is over IPv4; over IPv6: deny (ask with an IPv6 address to see why)"
    );
    assert_eq!((over_v6.verdict, over_v6.other_family), ("deny", None));
    let (only_v6, trace, _) = matrix("fd00::/8");
    assert!(only_v6.text().contains("a/x    .            6\n"));
    assert_eq!((trace.verdict, trace.other_family), ("deny", Some("allow")));
}

#[test]
fn a_matrix_in_memory_is_bounded() {
    let pods = (0..600).map(|pod| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "a", "name": format!("p{pod}")},
            "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]}
        })
    });
    let list = json!({"apiVersion": "v1", "kind": "List", "items": pods.collect::<Vec<Value>>()});
    let objects = decode_documents(&list.to_string(), "t.json").unwrap();
    let offline = Offline::new(objects).unwrap();
    let params = MatrixParams::default();
    let error = offline.view().matrix(&params).unwrap_err().to_string();
    assert!(
        error.starts_with("the matrix has 360000 entries, more than 250000"),
        "{error}"
    );
    let mut json = Vec::new();
    offline
        .view()
        .plan(&params)
        .unwrap()
        .write_json(&mut json)
        .unwrap();
    assert_eq!(json.iter().filter(|b| **b == b'{').count(), 360_000);
}

/// What is said of a question that has no answer.
fn refused(objects: &str, params: &TraceParams) -> String {
    let offline = Offline::new(decode_documents(objects, "t.yaml").unwrap()).unwrap();
    offline.view().trace(params).unwrap_err().to_string()
}

#[test]
fn a_pod_that_has_ended_is_said_to_have() {
    let objects = format!(
        "{OBJECTS}---\n{{apiVersion: v1, kind: Pod, metadata: {{namespace: ops, name: done}}, \
         spec: {{containers: [{{name: c, image: i}}]}}, \
         status: {{phase: Succeeded, podIP: 10.0.0.9}}}}\n"
    );
    for (from, to) in [("ops/done", "shop/db"), ("shop/web", "ops/done")] {
        let params = TraceParams {
            from: from.to_owned(),
            to: to.to_owned(),
            port: Some("80".to_owned()),
            protocol: None,
            namespace: None,
        };
        assert_eq!(
            refused(&objects, &params),
            "ops/done has ended (Succeeded): it sends and receives nothing"
        );
    }
}

#[test]
fn names_without_a_namespace_are_of_the_one_that_is_asked_about() {
    let ask = |namespace: Option<&str>, from: &str| {
        let params = TraceParams {
            from: from.to_owned(),
            to: "db".to_owned(),
            port: Some("3307".to_owned()),
            protocol: None,
            namespace: namespace.map(str::to_owned),
        };
        let trace = offline().view().trace(&params);
        trace
            .map(|trace| [trace.from, trace.to])
            .map_err(|error| error.to_string())
    };
    let found = |from: &str| Ok([from.to_owned(), "shop/db".to_owned()]);
    assert_eq!(ask(Some("shop"), "web"), found("shop/web"));
    assert_eq!(ask(Some("shop"), "ops/tool"), found("ops/tool"));
    assert_eq!(ask(Some("shop"), "192.0.2.1"), found("192.0.2.1"));
    assert_eq!(
        ask(Some("shop"), "fd00::1"),
        Err("fd00::1 and shop/db have no address family in common".to_owned())
    );
    assert!(ask(Some("ops"), "tool").unwrap_err().contains("\"ops/db\""));
    assert!(ask(None, "shop/web").unwrap_err().contains("\"db\""));
}

#[test]
fn what_a_pod_and_a_service_are_called_is_to_be_said_more_exactly() {
    let objects = format!(
        "{OBJECTS}---\n{{apiVersion: v1, kind: Service, metadata: {{namespace: shop, name: db}}, \
         spec: {{clusterIP: None, selector: {{app: web}}, ports: [{{port: 5000, targetPort: 80}}]}}}}\n"
    );
    let offline = Offline::new(decode_documents(&objects, "t.yaml").unwrap()).unwrap();
    let ask = |from: &str, to: &str, port: &str| {
        let params = TraceParams {
            from: from.to_owned(),
            to: to.to_owned(),
            port: Some(port.to_owned()),
            protocol: None,
            namespace: Some("shop".to_owned()),
        };
        let trace = offline.view().trace(&params);
        trace
            .map(|trace| (trace.to, trace.port))
            .map_err(|error| error.to_string())
    };
    let meant = |to: &str, port| Ok((to.to_owned(), Some(port)));
    let both = "\"shop/db\" is a pod and a Service: say pod/shop/db or service/shop/db";
    assert_eq!(ask("ops/tool", "shop/db", "5000"), Err(both.to_owned()));
    assert_eq!(ask("ops/tool", "db", "5000"), Err(both.to_owned()));
    assert_eq!(
        ask("ops/tool", "pod/shop/db", "3307"),
        meant("shop/db", 3307)
    );
    // Nobody translates what goes to a headless Service's pods.
    assert_eq!(
        ask("ops/tool", "service/shop/db", "5000"),
        meant("shop/web", 5000)
    );
    // A Service sends nothing, so that a sender can only be the pod.
    assert_eq!(ask("db", "ops/tool", "80"), meant("ops/tool", 80));
    let error = ask("service/shop/db", "ops/tool", "80").unwrap_err();
    assert!(
        error.contains("is a Service: only a receiver can be one"),
        "{error}"
    );
    let error = ask("web", "service/shop/web", "80").unwrap_err();
    assert!(error.contains("\"service/shop/web\" is neither"), "{error}");
    // Two parts are a namespace and a name, whatever the first is.
    let error = ask("web", "pod/db", "80").unwrap_err();
    assert!(error.contains("\"pod/db\" is neither"), "{error}");
    let matrix = |with: &str| {
        let params = MatrixParams {
            with: vec![with.to_owned()],
            ..MatrixParams::default()
        };
        offline
            .view()
            .matrix(&params)
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    assert_eq!(matrix("shop/db"), Err(both.to_owned()));
    assert_eq!(matrix("service/shop/db"), Ok(()));
}
