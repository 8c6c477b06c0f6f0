//! What other implementations got wrong, each test named after the bug that it would show.

use control::lower::{LocalEndpoint, Policies};
use dataplane::{Address, Direction, Protocol};

use super::{Scene, judge, judge_refused};

/// `x/svc`: port 80 is `web` of the pods labelled `pod: b`, which here is 8080.
fn with_service() -> Scene {
    let mut scene = Scene::new();
    scene.pod(
        "x/b",
        "pod: b",
        &["10.0.0.12"],
        "containers: [{name: c, image: i, ports: [{name: web, containerPort: 8080}]}]",
        "Running",
    );
    scene.add(
        "{apiVersion: v1, kind: Service, metadata: {name: svc, namespace: x}, spec: {selector: \
         {pod: b}, ports: [{port: 80, targetPort: web}]}}",
    );
    scene
}

/// cloudnativelabs/kube-router#905: the Service's address met an egress rule for pods.
#[test]
fn egress_is_judged_behind_the_service() {
    let mut scene = with_service();
    scene.policy(
        "x/p",
        "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: \
         [{podSelector: {matchLabels: {pod: b}}}], ports: [{port: web}]}]}",
    );
    let trace = scene.trace("x/a", "x/svc", "80");
    assert_eq!(
        (trace.verdict, trace.to.as_str(), trace.port),
        ("allow", "x/b", Some(8080))
    );
    scene.policy(
        "x/p",
        "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{ipBlock: \
         {cidr: 10.96.0.0/12}}]}]}",
    );
    let trace = scene.trace("x/a", "x/svc", "80");
    assert_eq!(
        trace.reason,
        "egress: isolated by x/p, no rule matches peer"
    );
}

/// kubernetes/website#8295.
#[test]
fn a_service_port_is_not_the_container_s() {
    let mut scene = with_service();
    for (port, verdict) in [(80, "deny"), (8080, "allow")] {
        scene.policy(
            "x/p",
            &format!(
                "{{podSelector: {{matchLabels: {{pod: b}}}}, ingress: [{{ports: [{{port: \
                      {port}}}]}}]}}"
            ),
        );
        let trace = scene.trace("x/a", "x/svc", "80");
        assert_eq!(
            (trace.verdict, trace.port),
            (verdict, Some(8080)),
            "{}",
            trace.reason
        );
    }
}

/// cilium/cilium#9209, #14497: a block holds whoever has the address, in either direction.
#[test]
fn an_ip_block_does_not_leave_pods_out() {
    judge(
        &[
            (
                "x/in",
                "{ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}",
            ),
            (
                "x/out",
                "{policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/27}}]}]}",
            ),
        ],
        "
        y/a z/a -> x/a TCP/80: allow
        x/a -> y/a y/b x/b TCP/80: allow
        x/a -> 10.0.0.32 192.0.2.1 TCP/80: deny egress
        ",
    );
}

/// aws/aws-network-policy-agent PR 104: only the longest prefix was looked at.
#[test]
fn lpm_keeps_the_broader_rules_ports() {
    judge(
        &[(
            "x/p",
            "{ingress: [{from: [{ipBlock: {cidr: 192.0.0.0/8}}], ports: [{port: 80}]}, {from: \
             [{ipBlock: {cidr: 192.0.2.0/24}}], ports: [{port: 81}]}, {from: [{ipBlock: {cidr: \
             192.0.2.1/32}}], ports: [{port: 82}]}]}",
        )],
        "
        192.0.2.1 -> x/a TCP/80 TCP/81 TCP/82: allow
        192.0.2.2 -> x/a TCP/80 TCP/81: allow
        192.0.2.2 -> x/a TCP/82: deny ingress
        192.0.3.1 -> x/a TCP/80: allow
        192.0.3.1 -> x/a TCP/81 TCP/82: deny ingress
        ",
    );
    // A pod's own /32 does not hide the block around it.
    judge(
        &[(
            "x/p",
            "{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: 80}]}, {from: \
             [{podSelector: {}}], ports: [{port: 81}]}]}",
        )],
        "x/b -> x/a TCP/80 TCP/81: allow\ny/a -> x/a TCP/80: allow\ny/a -> x/a TCP/81: deny ingress",
    );
}

/// aws-network-policy-agent PR 344, Azure/azure-container-networking#558.
#[test]
fn an_except_of_one_rule_cancels_no_other_rule() {
    judge(
        &[
            (
                "x/p",
                "{ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8]}}]}]}",
            ),
            (
                "x/q",
                "{ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}",
            ),
        ],
        "
        192.0.2.1 x/b -> x/a TCP/80: allow
        x/c y/a 10.200.0.1 -> x/a TCP/80: deny ingress
        ",
    );
    // Nor do two blocks share what one of them excepts.
    judge(
        &[(
            "x/p",
            "{ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.0/25]}}, {ipBlock: \
             {cidr: 192.0.2.0/24, except: [192.0.2.128/25]}}]}]}",
        )],
        "192.0.2.1 192.0.2.200 -> x/a TCP/80: allow",
    );
}

/// aws-network-policy-agent#609: the second spelling overwrote the first.
#[test]
fn two_spellings_of_one_block_add_up() {
    for other in [
        "192.0.2.77/24",
        "192.000.002.0/024",
        "'::ffff:192.0.2.0/120'",
    ] {
        judge(
            &[(
                "x/p",
                &format!(
                    "{{ingress: [{{from: [{{ipBlock: {{cidr: 192.0.2.0/24}}}}], ports: [{{port: \
                     80}}]}}, {{from: [{{ipBlock: {{cidr: {other}}}}}], ports: [{{port: 81}}]}}]}}"
                ),
            )],
            "
            192.0.2.1 -> x/a TCP/80 TCP/81: allow
            192.0.2.1 -> x/a TCP/82: deny ingress
            192.0.3.1 -> x/a TCP/80 TCP/81: deny ingress
            ",
        );
    }
}

/// aws-network-policy-agent#149: resolved on the sources, and dropped for blocks.
#[test]
fn named_ports_are_not_resolved_on_the_sources() {
    judge(
        &[(
            "y/p",
            "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: \
             {pod: b}}}, {ipBlock: {cidr: 192.0.2.0/24}}], ports: [{port: web}]}]}",
        )],
        "
        y/b 192.0.2.1 -> y/a TCP/80: allow
        y/b 192.0.2.1 -> y/a TCP/8080: deny ingress
        ",
    );
}

/// cilium/cilium#30003, ovn-org/ovn-kubernetes#2117.
#[test]
fn one_port_name_of_two_numbers_opens_neither_on_the_other_pod() {
    judge(
        &[(
            "x/p",
            "{policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {team: \
             blue}}}], ports: [{port: web}]}]}",
        )],
        "
        x/a -> y/a TCP/80: allow
        x/a -> y/b TCP/8080: allow
        x/a -> y/a TCP/8080: deny egress
        x/a -> y/b TCP/80: deny egress
        ",
    );
}

/// azure-container-networking#432, antrea-io/antrea#161.
#[test]
fn rules_are_not_multiplied_out() {
    let b = "{from: [{podSelector: {matchLabels: {pod: b}}}], ports: [{port: 80}]}";
    let c = "{from: [{podSelector: {matchLabels: {pod: c}}}], ports: [{port: 81}]}";
    let expectations = "
        x/b -> x/a TCP/80: allow
        x/c -> x/a TCP/81: allow
        x/b -> x/a TCP/81: deny ingress
        x/c -> x/a TCP/80: deny ingress
        ";
    judge(
        &[("x/p", &format!("{{ingress: [{b}, {c}]}}"))],
        expectations,
    );
    judge(
        &[
            ("x/p", &format!("{{ingress: [{b}]}}")),
            ("x/q", &format!("{{ingress: [{c}]}}")),
        ],
        expectations,
    );
}

/// kube-router#85: a set that came out empty was compiled to no filter at all.
#[test]
fn nobody_is_not_everybody() {
    judge(
        &[(
            "x/p",
            "{policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {matchLabels: {no: \
             one}}}]}], egress: [{to: [{namespaceSelector: {matchLabels: {no: one}}}]}]}",
        )],
        "
        y/a 192.0.2.1 -> x/a TCP/80 ICMP: deny ingress
        x/b -> x/a TCP/80 ICMP: deny both
        x/a -> y/a 192.0.2.1 TCP/80 ICMP: deny egress
        ",
    );
    // The excepts together take away all of the block.
    judge(
        &[(
            "x/p",
            "{ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.0/25, \
             192.0.2.128/25]}}]}]}",
        )],
        "192.0.2.1 192.0.2.200 192.0.3.1 y/a -> x/a TCP/80: deny ingress",
    );
}

/// azure-container-networking#554, #870.
#[test]
fn a_second_policy_takes_nothing_away() {
    judge(
        &[
            ("x/ports", "{ingress: [{ports: [{port: 80}]}]}"),
            (
                "x/peers",
                "{ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}",
            ),
            ("x/deny", "{policyTypes: [Ingress]}"),
            ("x/other-way", "{policyTypes: [Egress], egress: [{}]}"),
        ],
        "
        y/a x/c 192.0.2.1 -> x/a TCP/80: allow
        x/b -> x/a TCP/80 TCP/81 ICMP: allow
        y/a x/c 192.0.2.1 -> x/a TCP/81 ICMP: deny ingress
        ",
    );
}

/// azure-container-networking PR 551, antrea#4985: what policies shared went with the first.
#[test]
fn deleting_and_making_again_leaves_no_trace() {
    let spec = "{ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}, {ipBlock: {cidr: \
                192.0.2.0/24}}], ports: [{port: 80}]}]}";
    let narrow = "{ingress: [{from: [{podSelector: {matchLabels: {pod: c}}}]}]}";
    let shared =
        "x/b 192.0.2.1 -> x/a TCP/80: allow\nx/b 192.0.2.1 y/a -> x/a TCP/81: deny ingress";
    let mut scene = Scene::new();
    scene.policy("x/p", spec).policy("x/q", spec);
    scene.holds(shared);
    scene.remove("NetworkPolicy", "x/p");
    scene.holds(shared);
    scene.policy("x/p", narrow);
    scene.holds(&format!("{shared}\nx/c -> x/a TCP/81: allow"));
    scene.policy("x/q", narrow);
    scene.holds("x/c -> x/a TCP/81: allow\nx/b 192.0.2.1 -> x/a TCP/80: deny ingress");
}

/// antrea#6507, kube-router#1056: the address of a pod that had ended kept its rights.
#[test]
fn a_used_again_address_inherits_nothing() {
    let mut scene = Scene::new();
    let spec = "containers: [{name: c, image: i}]";
    scene.pod("x/job", "pod: b", &["10.0.0.99"], spec, "Succeeded");
    scene.pod("y/new", "pod: new", &["10.0.0.99"], spec, "Running");
    scene.policy(
        "x/p",
        "{ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}",
    );
    scene.policy(
        "x/q",
        "{podSelector: {matchLabels: {pod: b}}, policyTypes: [Egress]}",
    );
    scene.holds(
        "
        y/new -> x/a TCP/80: deny ingress
        y/new -> y/a TCP/80: allow
        y/a -> y/new TCP/80: allow
        ",
    );
}

/// azure-container-networking PR 1440: another pod of the same name, on the same interface.
#[test]
fn a_pod_of_the_same_name_is_not_the_same_pod() {
    let mut cluster = control::cluster::Cluster::empty();
    for (kind, name) in [("Namespace", "x"), ("Pod", "a")] {
        cluster
            .restore(serde_json::json!({"apiVersion": "v1", "kind": kind,
                "metadata": {"name": name, "namespace": "x", "uid": "new"},
                "status": {"podIPs": [{"ip": "10.0.0.1"}]}}))
            .unwrap();
    }
    let local = |uid: &str| LocalEndpoint {
        namespace: "x".to_owned(),
        name: "a".to_owned(),
        uid: uid.to_owned(),
        addresses: vec!["10.0.0.1".parse().unwrap()],
    };
    let uids = ["old", "new"];
    let policies = Policies::from_scratch(&cluster, uids.map(local)).unwrap();
    let slots = uids.map(|uid| policies.slot(uid).unwrap());
    let table = policies.table();
    let peer = table.peer(Address::from(
        "192.0.2.1".parse::<std::net::IpAddr>().unwrap(),
    ));
    for direction in [Direction::Ingress, Direction::Egress] {
        // No object says what the old one may do, so it may do nothing.
        let accepts = |slot| {
            table
                .decide(slot, direction, &peer, Protocol::TCP, Some(80))
                .verdict
                .accept
        };
        assert_eq!(slots.map(accepts), [false, true], "{direction:?}");
    }
}

/// kubernetes/kubernetes PR 102509.
#[test]
fn sctp_is_neither_tcp_nor_unknown() {
    judge(
        &[("x/p", "{ingress: [{ports: [{protocol: SCTP, port: 80}]}]}")],
        "
        y/a -> x/a SCTP/80: allow
        y/a -> x/a TCP/80 UDP/80 SCTP/81: deny ingress
        ",
    );
    judge(
        &[("x/p", "{ingress: [{ports: [{protocol: TCP, port: 80}]}]}")],
        "y/a -> x/a SCTP/80: deny ingress",
    );
}

/// noironetworks/aci-containers PR 1653.
#[test]
fn end_port_is_not_ignored() {
    judge(
        &[(
            "x/p",
            "{policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 192.0.2.0/24}}], ports: \
             [{port: 1, endPort: 65535}]}]}",
        )],
        "
        x/a -> 192.0.2.1 TCP/1 TCP/2 TCP/32768 TCP/65535: allow
        x/a -> 192.0.2.1 UDP/2 ICMP: deny egress
        ",
    );
}

/// aws-network-policy-agent PR 576: names were joined with a hyphen.
#[test]
fn names_that_join_to_the_same_text_do_not_collide() {
    let mut scene = Scene::new();
    let spec = "containers: [{name: c, image: i}]";
    for (namespace, pod, host) in [("a-b", "c", 101), ("a", "b-c", 102), ("a", "b.c", 103)] {
        scene.add(&format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}}}}}"
        ));
        let address = format!("10.0.0.{host}");
        scene.pod(
            &format!("{namespace}/{pod}"),
            "app: p",
            &[&address],
            spec,
            "Running",
        );
    }
    scene.policy("a-b/d", "{policyTypes: [Ingress]}");
    scene.policy("a/b-d", "{ingress: [{ports: [{port: 80}]}]}");
    scene.policy("a/b.d", "{ingress: [{ports: [{port: 81}]}]}");
    scene.holds(
        "
        z/a -> a-b/c TCP/80 TCP/81: deny ingress
        z/a -> a/b-c a/b.c TCP/80 TCP/81: allow
        z/a -> a/b-c a/b.c TCP/82: deny ingress
        ",
    );
    scene.remove("NetworkPolicy", "a/b-d");
    scene.holds("z/a -> a/b-c TCP/80: deny ingress\nz/a -> a/b-c TCP/81: allow");
}

/// kube-router#614, contiv/vpp PR 798.
#[test]
fn not_in_matches_a_missing_key() {
    judge(
        &[(
            "x/p",
            "{ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: team, operator: NotIn, \
             values: [red]}]}}]}]}",
        )],
        "
        y/a z/a -> x/a TCP/80: allow
        x/b 192.0.2.1 -> x/a TCP/80: deny ingress
        ",
    );
}

/// kube-network-policies: shapes that only validation had kept away were taken for "allow".
#[test]
fn what_validation_refuses_matches_nothing() {
    let denied = "y/a x/b 192.0.2.1 -> x/a TCP/80 TCP/1 TCP/90 UDP/80 ICMP: deny ingress";
    let path = "spec.ingress[0]";
    for (rule, complaint) in [
        (
            "{from: [{podSelector: {matchExpressions: [{key: a, operator: Gt, values: ['1']}]}}]}",
            format!(
                "{path}.from[0].podSelector.matchExpressions[0].operator: Invalid value: \"Gt\": not \
                 a valid selector operator"
            ),
        ),
        (
            "{from: [{podSelector: {matchExpressions: [{key: a, operator: NotIn}]}}]}",
            format!(
                "{path}.from[0].podSelector.matchExpressions[0].values: Required value: must be \
                 specified when `operator` is 'In' or 'NotIn'"
            ),
        ),
        (
            "{from: [{ipBlock: {cidr: rubbish}}]}",
            format!(
                "{path}.from[0].ipBlock.cidr: Invalid value: \"rubbish\": must be a valid CIDR \
                 value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
            ),
        ),
        (
            "{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [rubbish]}}]}",
            format!(
                "{path}.from[0].ipBlock.except[0]: Invalid value: \"rubbish\": must be a valid CIDR \
                 value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
            ),
        ),
        (
            "{from: [{ipBlock: {cidr: 0.0.0.0/0}, podSelector: {}}]}",
            format!("{path}.from[0]: Forbidden: may not specify both ipBlock and another peer"),
        ),
        (
            "{ports: [{port: 0}]}",
            format!(
                "{path}.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"
            ),
        ),
        (
            "{ports: [{port: 80, endPort: 79}]}",
            format!(
                "{path}.ports[0].endPort: Invalid value: 79: must be greater than or equal to `port`"
            ),
        ),
        (
            "{ports: [{protocol: ICMP}]}",
            format!(
                "{path}.ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"TCP\", \
                 \"UDP\", \"SCTP\""
            ),
        ),
    ] {
        judge_refused(&format!("{{ingress: [{rule}]}}"), &[&complaint], denied);
    }
}

/// The same of the policy's own selector: whoever cannot be told not to be meant is isolated.
#[test]
fn a_subject_selector_that_cannot_be_read_isolates() {
    judge_refused(
        "{podSelector: {matchLabels: {pod: a}, matchExpressions: [{key: k, operator: Gt, values: \
         ['1']}]}, policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]}",
        &[
            "spec.podSelector.matchExpressions[0].operator: Invalid value: \"Gt\": not a valid \
           selector operator",
        ],
        "
        y/a 192.0.2.1 -> x/a TCP/80: deny ingress
        x/a -> y/a 192.0.2.1 TCP/80: deny egress
        y/a -> x/b x/c TCP/80: allow
        ",
    );
}

/// projectcalico/calico#5566, cilium#12277: the node's address came into the peers' sets.
#[test]
fn a_host_network_peer_does_not_leak_its_node_s_address() {
    let mut scene = Scene::new();
    scene.pod(
        "x/agent",
        "pod: b",
        &["10.9.0.1"],
        "hostNetwork: true, containers: [{name: c, image: i, ports: [{name: web, containerPort: \
         80}]}]",
        "Running",
    );
    scene.policy(
        "x/p",
        "{policyTypes: [Ingress, Egress], ingress: [{from: [{namespaceSelector: {}}]}], \
         egress: [{ports: [{port: web}]}]}",
    );
    scene.holds(
        "
        10.9.0.1 -> x/a TCP/80: deny ingress
        x/a -> 10.9.0.1 TCP/80: deny egress
        y/a -> x/a TCP/80: allow
        x/a -> y/a TCP/80: allow
        ",
    );
}

/// The label of a namespace changes; no pod and no policy does.
#[test]
fn a_namespace_s_new_label_is_seen() {
    let mut scene = Scene::new();
    scene.policy(
        "x/p",
        "{ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}]}]}",
    );
    scene.holds("y/a y/b -> x/a TCP/80: allow\nz/a -> x/a TCP/80: deny ingress");
    scene.add("{apiVersion: v1, kind: Namespace, metadata: {name: y}}");
    scene.add("{apiVersion: v1, kind: Namespace, metadata: {name: z, labels: {team: blue}}}");
    scene.holds("y/a y/b -> x/a TCP/80: deny ingress\nz/a -> x/a TCP/80: allow");
}
