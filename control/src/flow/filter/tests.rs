use super::*;
use crate::flow::FlowService;

fn flow() -> Flow {
    let end = |ip: &str, port, namespace: &str, pod: &str| FlowEnd {
        ip: ip.parse().unwrap(),
        port: Some(port),
        namespace: Some(namespace.into()),
        pod: Some(pod.into()),
        labels: [("app".to_owned(), pod.to_owned())].into(),
        workload: None,
    };
    Flow {
        time: "2026-11-21T02:00:00.000000000Z".into(),
        verdict: FlowVerdict::Dropped,
        reason: "no rule matches peer".into(),
        direction: Some(FlowDirection::Ingress),
        source: end("10.0.0.1", 4000, "default", "client-0"),
        destination: end("10.0.0.2", 80, "shop", "web-0"),
        service: None,
        protocol: "TCP".into(),
        tcp_flags: vec!["SYN".into()],
        policy: None,
        generation: 1,
        node: "n".into(),
    }
}

fn takes(allow: FlowFilter) -> bool {
    Matcher::new(&[allow], &[]).unwrap().matches(&flow())
}

fn list(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

#[test]
fn each_member_takes_what_it_says_and_nothing_else() {
    let f = FlowFilter::default;
    assert!(takes(f()));
    for (name, expected) in [
        ("client", true),
        ("default/client-0", true),
        ("/client", true),
        ("default/", true),
        ("web", false),
        ("shop/client", false),
    ] {
        let filter = FlowFilter {
            source_pod: list(&[name]),
            ..f()
        };
        assert_eq!(takes(filter), expected, "{name}");
    }
    for (network, expected) in [
        ("10.0.0.2", true),
        ("10.0.0.0/24", true),
        ("10.0.0.1", false),
        ("fd00::/8", false),
    ] {
        let filter = FlowFilter {
            destination_ip: list(&[network]),
            ..f()
        };
        assert_eq!(takes(filter), expected, "{network}");
    }
    for (label, expected) in [
        ("app=web-0", true),
        ("app", true),
        ("app in (x, web-0)", true),
        ("app=x", false),
    ] {
        let filter = FlowFilter {
            destination_label: list(&[label]),
            ..f()
        };
        assert_eq!(takes(filter), expected, "{label}");
    }
    for (protocol, expected) in [
        ("tcp", true),
        ("TCP", true),
        ("udp", false),
        ("icmp", false),
    ] {
        let filter = FlowFilter {
            protocol: list(&[protocol]),
            ..f()
        };
        assert_eq!(takes(filter), expected, "{protocol}");
    }
    for (flags, expected) in [("syn", true), ("SYN,ACK", false), ("rst", false)] {
        let filter = FlowFilter {
            tcp_flags: list(&[flags]),
            ..f()
        };
        assert_eq!(takes(filter), expected, "{flags}");
    }
    assert!(takes(FlowFilter {
        drop_reason: list(&["POLICY_DENIED"]),
        ip_version: vec![4],
        direction: vec![FlowDirection::Ingress],
        event_type: vec![FlowType::Drop],
        destination_port: vec![80, 81],
        ..f()
    }));
    assert!(!takes(FlowFilter {
        destination_port: vec![4000],
        ..f()
    }));
}

#[test]
fn services_are_matched_by_the_beginning_of_their_name() {
    let mut flow = flow();
    let wants = |name: &str| FlowFilter {
        destination_service: list(&[name]),
        ..FlowFilter::default()
    };
    let takes = |flow: &Flow, name| Matcher::new(&[wants(name)], &[]).unwrap().matches(flow);
    assert!(!takes(&flow, "shop/web"), "it is to no Service");
    flow.service = Some(FlowService {
        ip: "10.96.0.1".parse().unwrap(),
        port: 80,
        namespace: Some("shop".into()),
        name: Some("web".into()),
    });
    for (name, expected) in [
        ("shop/we", true),
        ("web", false),
        ("/web", true),
        ("shop/x", false),
    ] {
        assert_eq!(takes(&flow, name), expected, "{name}");
    }
}

#[test]
fn workloads_and_nodes_are_matched_by_name() {
    let mut flow = flow();
    flow.destination.workload = Some("Deployment/web".into());
    let takes = |filter| Matcher::new(&[filter], &[]).unwrap().matches(&flow);
    for (wanted, expected) in [
        ("web", true),
        ("deployment/web", true),
        ("StatefulSet/web", false),
        ("we", false),
    ] {
        let to = FlowFilter {
            destination_workload: list(&[wanted]),
            ..FlowFilter::default()
        };
        assert_eq!(takes(to), expected, "{wanted}");
        let from = FlowFilter {
            source_workload: list(&[wanted]),
            ..FlowFilter::default()
        };
        assert!(!takes(from), "the client is nobody's");
    }
    for (name, expected) in [
        ("n", true),
        ("*", true),
        ("n*", true),
        ("*m", false),
        ("", false),
    ] {
        let filter = FlowFilter {
            node_name: list(&[name]),
            ..FlowFilter::default()
        };
        assert_eq!(takes(filter), expected, "{name}");
    }
    assert!(is_like("k8s-1.example", "k8s-*.ex*le") && !is_like("k8s", "*a*"));
}

#[test]
fn one_of_the_allowing_and_none_of_the_denying_filters_must_match() {
    let by_port = |port| FlowFilter {
        destination_port: vec![port],
        ..FlowFilter::default()
    };
    let matcher = |allow: &[FlowFilter], deny: &[FlowFilter]| {
        Matcher::new(allow, deny).unwrap().matches(&flow())
    };
    assert!(matcher(&[by_port(1), by_port(80)], &[by_port(1)]));
    assert!(!matcher(&[by_port(80)], &[by_port(80)]));
    assert!(!matcher(&[], &[by_port(80)]));
}

#[test]
fn who_wants_drops_alone_does_not_ask_for_accepts() {
    let drops = FlowFilter {
        verdict: vec![FlowVerdict::Dropped],
        ..FlowFilter::default()
    };
    let matcher = Matcher::new(&[drops], &[]).unwrap();
    assert!(matcher.may_match(FlowVerdict::Dropped));
    assert!(!matcher.may_match(FlowVerdict::Forwarded));
    assert!(Matcher::default().may_match(FlowVerdict::Forwarded));
}

#[test]
fn what_cannot_be_read_is_refused() {
    let refused = |filter: FlowFilter| Matcher::new(&[filter], &[]).unwrap_err();
    let f = FlowFilter::default;
    assert!(
        refused(FlowFilter {
            source_ip: list(&["x"]),
            ..f()
        })
        .contains("neither")
    );
    assert!(
        refused(FlowFilter {
            protocol: list(&["http"]),
            ..f()
        })
        .contains("http")
    );
    assert!(
        refused(FlowFilter {
            tcp_flags: list(&["x"]),
            ..f()
        })
        .contains("tcp flag")
    );
    assert!(
        refused(FlowFilter {
            source_label: list(&["a=,=b"]),
            ..f()
        })
        .contains("label")
    );
}
