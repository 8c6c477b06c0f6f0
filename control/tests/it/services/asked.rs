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
    assert!(
        matrix
            .text()
            .ends_with("~: by some of the Service's backends\n")
    );
}
