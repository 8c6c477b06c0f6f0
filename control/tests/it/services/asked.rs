//! `trace`, `matrix` and `test` through Services.

use control::objects::decode_documents;
use control::offline::Offline;
use control::protocol::{MatrixParams, TraceParams};
use control::trace::Trace;

const SHOP: &str = "
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}},
  spec: {containers: [{name: c, image: i}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: db-a, namespace: shop, labels: {app: db, open: 'true'}},
  spec: {containers: [{name: c, image: i, ports: [{containerPort: 3306, name: sql}]}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: db-b, namespace: shop, labels: {app: db}},
  spec: {containers: [{name: c, image: i, ports: [{containerPort: 3307, name: sql}]}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: db, namespace: shop},
  spec: {selector: {app: db}, ports: [{port: 1, targetPort: sql}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: nobody, namespace: shop},
  spec: {selector: {app: none}, ports: [{port: 80, name: http}, {port: 81, name: more}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: outside, namespace: shop},
  spec: {ports: [{port: 443, targetPort: 8443}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4,
  metadata: {name: by-hand, namespace: shop, labels: {kubernetes.io/service-name: outside}},
  endpoints: [{addresses: [203.0.113.7]}], ports: [{port: 8443}]}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: closed, namespace: shop},
  spec: {podSelector: {matchExpressions: [{key: open, operator: DoesNotExist}, {key: app, operator:
  In, values: [db]}]}}}
";

fn shop() -> Offline {
    Offline::new(decode_documents(SHOP, "t.yaml").unwrap()).unwrap()
}

fn ask(offline: &Offline, to: &str, port: Option<&str>) -> Result<Trace, String> {
    let params = TraceParams {
        from: "shop/web".to_owned(),
        to: to.to_owned(),
        port: port.map(str::to_owned),
        protocol: None,
        namespace: None,
    };
    offline
        .view()
        .trace(&params)
        .map_err(|error| error.to_string())
}

#[test]
fn each_backend_is_judged_on_its_own_port() {
    let offline = shop();
    let trace = ask(&offline, "shop/db", Some("1")).unwrap();
    assert_eq!(
        (trace.verdict, trace.to.as_str(), trace.port),
        ("some", "shop/db", None)
    );
    let found: Vec<_> = trace
        .backends
        .iter()
        .map(|b| (b.to.as_str(), b.port, b.verdict))
        .collect();
    let expected = [
        ("shop/db-a", Some(3306), "allow"),
        ("shop/db-b", Some(3307), "deny"),
    ];
    assert_eq!(found, expected);
    let text = trace.text();
    assert!(text.contains("service shop/db TCP 1: 2 backends"), "{text}");
    assert!(
        text.contains("1 of 2 backends are denied: ingress: isolated by shop/closed"),
        "{text}"
    );
}

#[test]
fn a_backend_outside_is_one() {
    let trace = ask(&shop(), "shop/outside", None).unwrap();
    assert_eq!((trace.verdict, trace.to.as_str()), ("allow", "203.0.113.7"));
    assert_eq!(trace.port, Some(8443));
    assert_eq!(trace.service.as_deref(), Some("shop/outside TCP 443"));
}

#[test]
fn nobody_ready_and_no_such_port_are_said() {
    let offline = shop();
    let trace = ask(&offline, "shop/nobody", Some("http")).unwrap();
    assert_eq!((trace.verdict, trace.port), ("deny", Some(80)));
    assert!(
        trace.reason.contains("no ready backend"),
        "{}",
        trace.reason
    );
    for (to, port, why) in [
        (
            "shop/nobody",
            Some("90"),
            "Service shop/nobody has no port 90/TCP: it has 80/TCP (http), 81/TCP (more)",
        ),
        (
            "shop/nobody",
            None,
            "Service shop/nobody needs a port (--port): it has 80/TCP (http), 81/TCP (more)",
        ),
    ] {
        assert_eq!(ask(&offline, to, port).unwrap_err(), why);
    }
}

#[test]
fn a_matrix_tells_some_backends_from_all() {
    let params = MatrixParams {
        with: vec!["shop/db".into(), "shop/nobody".into()],
        ..MatrixParams::default()
    };
    let matrix = shop().view().matrix(&params).unwrap();
    let cell = |to: &str| {
        let found = matrix
            .entries
            .iter()
            .find(|e| e.from == "shop/web" && e.to == to);
        found.map(|e| {
            (
                e.port,
                e.verdict.to_string(),
                e.some_backends,
                e.reason.clone(),
            )
        })
    };
    let (port, verdict, some, reason) = cell("shop/db").unwrap();
    assert_eq!((port, verdict.as_str(), some), (Some(1), "deny", true));
    assert!(
        reason.starts_with("1 of 2 backends are denied: shop/db-b: ingress"),
        "{reason}"
    );
    let nobody = cell("shop/nobody").unwrap();
    assert_eq!((nobody.1.as_str(), nobody.2), ("deny", false));
    assert!(matrix.text().ends_with(
        "~: by some of the Service's backends\nR: refused at once, as the Service has no ready \
         backend\n"
    ));
}

/// A backend that asks its own Service, a client, and policies of which the packets know
/// (testbed/cases/services).
const ITSELF: &str = "
{apiVersion: v1, kind: Pod, metadata: {name: db, namespace: shop, labels: {app: db}},
  spec: {containers: [{name: c, image: i, ports: [{containerPort: 3306}]}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: svc, namespace: shop},
  spec: {clusterIP: 10.96.0.7, selector: {app: db}, ports: [{port: 1, targetPort: 3306}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: headless, namespace: shop},
  spec: {clusterIP: None, selector: {app: db}, ports: [{port: 3306}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: closed, namespace: shop},
  spec: {policyTypes: [Ingress, Egress]}}
";
const GUARD: &str = "
---
{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: guard},
  spec: {tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny,
  from: [{namespaces: {}}]}]}}
";

#[test]
fn a_pod_s_way_to_itself_through_its_service_is_judged_by_all_tiers_but_networkpolicy() {
    let offline = |text: &str| Offline::new(decode_documents(text, "t.yaml").unwrap()).unwrap();
    let ask = |offline: &Offline, to: &str, port: &str| {
        let params = TraceParams {
            from: "shop/db".to_owned(),
            to: to.to_owned(),
            port: Some(port.to_owned()),
            ..TraceParams::default()
        };
        let trace = offline.view().trace(&params).unwrap();
        crate::schemas::holds(
            "trace.v1.schema.json",
            &serde_json::to_value(&trace).unwrap(),
        );
        trace
    };
    let cell = |offline: &Offline, to: &str| {
        let params = MatrixParams {
            with: vec![to.to_owned()],
            ports: vec!["1".into()],
            ..MatrixParams::default()
        };
        let entries = offline.view().matrix(&params).unwrap().entries;
        let found = entries
            .into_iter()
            .find(|e| e.from == "shop/db" && e.to == to);
        found.unwrap().verdict.into_owned()
    };
    let closed = offline(ITSELF);
    // By the Service's name, and by its address.
    for to in ["shop/svc", "10.96.0.7"] {
        let trace = ask(&closed, to, "1");
        assert_eq!((trace.verdict, trace.to.as_str()), ("allow", "shop/db"));
        assert_eq!(trace.service.as_deref(), Some("shop/svc TCP 1"));
        let spared = "egress: no NetworkPolicy denies a pod the way to itself; ingress: no \
                      NetworkPolicy denies a pod the way to itself";
        assert_eq!(trace.reason, spared);
        assert_eq!(cell(&closed, to), "allow");
    }
    let guarded = offline(&format!("{ITSELF}{GUARD}"));
    for to in ["shop/svc", "10.96.0.7"] {
        let trace = ask(&guarded, to, "1");
        assert_eq!((trace.verdict, trace.deciders()), ("deny", vec!["guard"]));
        assert_eq!(cell(&guarded, to), "deny");
    }
    // Nothing is translated on these ways: they are to the pod's own address.
    for (to, port) in [("shop/db", "3306"), ("shop/headless", "3306")] {
        let trace = ask(&guarded, to, port);
        assert_eq!(trace.verdict, "allow", "{to}");
        assert_eq!(trace.reason, "a pod always reaches its own address");
    }
}

#[test]
fn who_asks_where_nobody_is_gets_what_the_packets_get() {
    let egress = |rule: &str| {
        format!(
            "---\n{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: out, \
             namespace: shop}}, spec: {{podSelector: {{matchLabels: {{app: web}}}}, policyTypes: \
             [Egress], egress: [{rule}]}}}}\n"
        )
    };
    let objects = "
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}},
  spec: {containers: [{name: c, image: i}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: nobody, namespace: shop},
  spec: {clusterIP: 10.96.0.9, selector: {app: none}, ports: [{port: 80, targetPort: 8080, name: t},
  {port: 80, targetPort: 8080, name: u, protocol: UDP}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: headless, namespace: shop},
  spec: {clusterIP: None, selector: {app: none}, ports: [{port: 80}]}}
";
    let answer = |policy: &str, to: &str, port: &str, protocol: &str| {
        let text = format!("{objects}{policy}");
        let offline = Offline::new(decode_documents(&text, "t.yaml").unwrap()).unwrap();
        let params = TraceParams {
            from: "shop/web".to_owned(),
            to: to.to_owned(),
            port: Some(port.to_owned()).filter(|port| !port.is_empty()),
            protocol: Some(protocol.to_owned()),
            ..TraceParams::default()
        };
        let trace = offline.view().trace(&params).unwrap();
        let json = serde_json::to_value(&trace).unwrap();
        crate::schemas::holds("trace.v1.schema.json", &json);
        assert_eq!(trace.verdict, "deny");
        let params = MatrixParams {
            with: vec![to.to_owned()],
            ports: vec![match port {
                "" => protocol.to_owned(),
                port => format!("{port}/{protocol}"),
            }],
            ..MatrixParams::default()
        };
        let matrix = offline.view().matrix(&params).unwrap();
        let json_of_matrix = serde_json::to_value(&matrix).unwrap();
        crate::schemas::holds("matrix.v1.schema.json", &json_of_matrix);
        let mut entries = matrix.entries.iter();
        let entry = entries
            .find(|e| e.from == "shop/web" && e.to == to)
            .unwrap();
        assert_eq!(
            serde_json::to_value(entry.without_backend).unwrap(),
            json["withoutBackend"]
        );
        assert_eq!(entry.reason, trace.reason);
        let told = ["reset", "unreachable"].contains(&json["withoutBackend"].as_str().unwrap());
        let row = matrix.text();
        let row = row
            .lines()
            .find(|line| line.starts_with("shop/web "))
            .unwrap()
            .to_owned();
        assert_eq!(row.contains('R'), told, "{row}");
        (json["withoutBackend"].clone(), trace.reason)
    };
    let refused = "Service shop/nobody has no ready backend: refused at once";
    let silent = "Service shop/nobody has no ready backend: silence, as egress policy allows port \
                  8080 of nobody";
    let none = egress("{ports: [{port: 80}]}");
    let some = egress("{to: [{podSelector: {matchLabels: {app: none}}}], ports: [{port: 8080}]}");
    for (policy, to, port, protocol, expected, reason) in [
        (
            "",
            "shop/nobody",
            "80",
            "TCP",
            "reset",
            format!("{refused} (TCP reset)"),
        ),
        (
            "",
            "10.96.0.9",
            "80",
            "TCP",
            "reset",
            format!("{refused} (TCP reset)"),
        ),
        (
            "",
            "shop/nobody",
            "80",
            "UDP",
            "unreachable",
            format!("{refused} (ICMP port unreachable)"),
        ),
        (
            &none,
            "shop/nobody",
            "80",
            "TCP",
            "silence",
            silent.to_owned(),
        ),
        (
            &some,
            "shop/nobody",
            "80",
            "TCP",
            "reset",
            format!("{refused} (TCP reset)"),
        ),
        (
            &some,
            "shop/nobody",
            "80",
            "UDP",
            "silence",
            silent.to_owned(),
        ),
        (
            "",
            "shop/headless",
            "80",
            "TCP",
            "no-address",
            "Service shop/headless has no ready backend: its name has no address".to_owned(),
        ),
        (
            "",
            "10.96.0.9",
            "81",
            "TCP",
            "reset",
            "Service shop/nobody has no such port: refused at once (TCP reset)".to_owned(),
        ),
        (
            "",
            "10.96.0.9",
            "",
            "ICMP",
            "silence",
            "Service shop/nobody has no such port: silence".to_owned(),
        ),
    ] {
        let (found, said) = answer(policy, to, port, protocol);
        assert_eq!(
            (found, said),
            (expected.into(), reason),
            "{to} {port} {protocol}"
        );
    }
}

/// A Service of both families, one of which has backends: each family is its own.
#[test]
fn a_family_without_backends_is_told_from_the_other() {
    let objects = "
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop},
  spec: {containers: [{name: c, image: i}]},
  status: {phase: Running, podIPs: [{ip: 10.244.0.1}, {ip: 'fd00::1'}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: db, namespace: shop, labels: {app: db}},
  spec: {containers: [{name: c, image: i}]},
  status: {phase: Running, podIPs: [{ip: 10.244.0.2}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: db, namespace: shop},
  spec: {ipFamilyPolicy: RequireDualStack, selector: {app: db}, ports: [{port: 80}]}}
";
    let offline = Offline::new(decode_documents(objects, "t.yaml").unwrap()).unwrap();
    let params = |from: &str| TraceParams {
        from: from.to_owned(),
        to: "service/shop/db".to_owned(),
        port: Some("80".to_owned()),
        ..TraceParams::default()
    };
    let trace = offline.view().trace(&params("shop/web")).unwrap();
    assert_eq!((trace.verdict, trace.other_family), ("allow", Some("deny")));
    let v6 = offline.view().trace(&params("fd00::1")).unwrap();
    let json = serde_json::to_value(&v6).unwrap();
    assert_eq!(
        (v6.verdict, &json["withoutBackend"]),
        ("deny", &"reset".into())
    );
    let params = MatrixParams {
        with: vec!["service/shop/db".into()],
        ..MatrixParams::default()
    };
    let matrix = offline.view().matrix(&params).unwrap();
    let entry = matrix
        .entries
        .iter()
        .find(|e| e.from == "shop/web")
        .unwrap();
    let json = serde_json::to_value(entry).unwrap();
    let found = (
        &json["verdict"],
        &json["allowedFamily"],
        &json["someBackends"],
    );
    assert_eq!(found, (&"deny".into(), &"IPv4".into(), &false.into()));
}
