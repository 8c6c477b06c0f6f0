//! What no API server has seen: policies and pods as files and tests hold them, with nothing filled
//! in and nothing validated. Absent, null and empty must mean the same as after defaults
//! (`testbed/cases/networkpolicy/nil-and-empty.yaml`), and what validation refuses must match
//! nothing, and still isolate.

use control::lower::{LocalEndpoint, Policies};
use dataplane::{Address, Direction, Protocol};

use super::{Scene, judge, judge_each, judge_refused};

#[test]
fn without_policies_everything_passes() {
    judge(
        &[],
        "
        */* -> */* TCP/80 UDP/53 SCTP/36412 ICMP: allow
        192.0.2.1 -> */* TCP/80 ICMP: allow
        */* -> 192.0.2.1 TCP/80 ICMP: allow
        ",
    );
}

#[test]
fn no_policy_types_and_no_egress_rule_isolate_ingress_alone() {
    judge_each(
        &[
            "{}",
            "{podSelector: {}}",
            "{policyTypes: []}",
            "{policyTypes: null}",
            "{egress: []}",
            "{egress: null, ingress: null}",
            "{policyTypes: [], egress: [], ingress: []}",
        ],
        "
        y/a 192.0.2.1 -> x/* TCP/80 UDP/53 ICMP: deny ingress
        x/* -> x/* TCP/80: deny ingress
        x/* -> y/a 192.0.2.1 TCP/80 UDP/53 ICMP: allow
        ",
    );
}

#[test]
fn no_policy_types_and_an_egress_rule_isolate_both() {
    judge_each(
        &[
            "{egress: [{ports: [{port: 80}]}]}",
            "{policyTypes: [], egress: [{ports: [{port: 80}]}]}",
            "{ingress: [], egress: [{ports: [{port: 80}]}]}",
        ],
        "
        y/a 192.0.2.1 -> x/* TCP/80: deny ingress
        x/* -> y/a 192.0.2.1 TCP/80: allow
        x/* -> y/a 192.0.2.1 TCP/81: deny egress
        x/a -> x/b TCP/80: deny ingress
        x/a -> x/b TCP/81: deny both
        ",
    );
}

#[test]
fn ingress_rules_without_the_type_are_ignored() {
    judge(
        &[(
            "x/p",
            "{policyTypes: [Egress], ingress: [{ports: [{port: 80}]}]}",
        )],
        "
        y/a 192.0.2.1 -> x/* TCP/80 TCP/81 UDP/53 ICMP: allow
        x/* -> y/a 192.0.2.1 TCP/80: deny egress
        x/* -> x/* TCP/80: deny egress
        ",
    );
}

#[test]
fn egress_rules_without_the_type_are_ignored() {
    judge(
        &[(
            "x/p",
            "{policyTypes: [Ingress], egress: [{ports: [{port: 80}]}]}",
        )],
        "
        x/* -> y/a 192.0.2.1 TCP/80 TCP/81 UDP/53 ICMP: allow
        y/a 192.0.2.1 -> x/* TCP/80: deny ingress
        ",
    );
}

#[test]
fn a_type_said_twice_is_said_once() {
    judge(
        &[("x/p", "{policyTypes: [Ingress, Ingress], egress: [{}]}")],
        "
        y/a -> x/a TCP/80: deny ingress
        x/a -> y/a TCP/80: allow
        ",
    );
    judge(
        &[("x/p", "{policyTypes: [Egress, Egress]}")],
        "
        y/a -> x/a TCP/80: allow
        x/a -> y/a TCP/80: deny egress
        ",
    );
}

#[test]
fn a_type_without_rules_allows_nothing() {
    judge_each(
        &[
            "{policyTypes: [Ingress]}",
            "{policyTypes: [Ingress], ingress: []}",
            "{policyTypes: [Ingress], ingress: null}",
        ],
        "
        y/a 192.0.2.1 -> x/* TCP/80 UDP/53 SCTP/36412 ICMP: deny ingress
        x/a -> y/a TCP/80: allow
        ",
    );
    judge_each(
        &[
            "{policyTypes: [Egress]}",
            "{policyTypes: [Egress], egress: []}",
            "{policyTypes: [Egress], egress: null}",
        ],
        "
        x/* -> y/a 192.0.2.1 TCP/80 UDP/53 SCTP/36412 ICMP: deny egress
        y/a -> x/a TCP/80: allow
        ",
    );
    judge_each(
        &["{policyTypes: [Ingress, Egress]}"],
        "
        x/* -> x/* TCP/80: deny both
        x/* -> y/a TCP/80: deny egress
        y/a -> x/* TCP/80: deny ingress
        ",
    );
}

#[test]
fn an_empty_rule_allows_everything() {
    judge_each(
        &["{ingress: [{}]}", "{ingress: [{from: [], ports: []}]}"],
        "
        y/a x/b 192.0.2.1 -> x/a TCP/80 TCP/65535 UDP/53 SCTP/1 ICMP: allow
        2001:db8::1 -> fd00::11 TCP/80 ICMP: allow
        ",
    );
    judge_each(
        &["{policyTypes: [Egress], egress: [{}]}"],
        "x/a -> y/a x/b 192.0.2.1 TCP/80 TCP/65535 UDP/53 SCTP/1 ICMP: allow",
    );
}

#[test]
fn no_from_is_every_source() {
    judge_each(
        &[
            "{ingress: [{ports: [{port: 80}]}]}",
            "{ingress: [{from: [], ports: [{port: 80}]}]}",
            "{ingress: [{from: null, ports: [{port: 80}]}]}",
        ],
        "
        y/* z/a 192.0.2.1 10.0.0.99 -> x/* TCP/80: allow
        y/* z/a 192.0.2.1 10.0.0.99 -> x/* TCP/81 UDP/80 ICMP: deny ingress
        2001:db8::1 -> fd00::11 TCP/80: allow
        ",
    );
}

#[test]
fn no_to_is_every_destination() {
    judge_each(
        &[
            "{policyTypes: [Egress], egress: [{ports: [{port: 80}]}]}",
            "{policyTypes: [Egress], egress: [{to: [], ports: [{port: 80}]}]}",
            "{policyTypes: [Egress], egress: [{to: null, ports: [{port: 80}]}]}",
        ],
        "
        x/* -> y/* z/a 192.0.2.1 10.0.0.99 TCP/80: allow
        x/* -> y/* z/a 192.0.2.1 10.0.0.99 TCP/81 UDP/80 ICMP: deny egress
        ",
    );
}

#[test]
fn no_ports_are_all_ports_of_all_protocols() {
    judge_each(
        &[
            "{ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}",
            "{ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}], ports: []}]}",
            "{ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}], ports: null}]}",
        ],
        "
        x/b -> x/a TCP/1 TCP/65535 UDP/53 SCTP/36412 ICMP: allow
        x/c -> x/a TCP/1 TCP/65535 UDP/53 SCTP/36412 ICMP: deny ingress
        ",
    );
}

#[test]
fn an_empty_port_is_every_tcp_port() {
    judge_each(
        &[
            "{ingress: [{ports: [{}]}]}",
            "{ingress: [{ports: [null]}]}",
            "{ingress: [{ports: [{protocol: null, port: null, endPort: null}]}]}",
            "{ingress: [{ports: [{protocol: TCP}]}]}",
        ],
        "
        y/a -> x/a TCP/1 TCP/80 TCP/65535: allow
        y/a -> x/a UDP/53 SCTP/36412 ICMP: deny ingress
        ",
    );
}

#[test]
fn a_protocol_alone_is_every_port_of_it() {
    judge(
        &[("x/p", "{ingress: [{ports: [{protocol: UDP}]}]}")],
        "
        y/a -> x/a UDP/1 UDP/53 UDP/65535: allow
        y/a -> x/a TCP/53 SCTP/36412 ICMP: deny ingress
        ",
    );
}

#[test]
fn an_empty_spec_pod_selector_is_every_pod_of_the_namespace() {
    judge_each(
        &[
            "{}",
            "{podSelector: {}}",
            "{podSelector: null}",
            "{podSelector: {matchLabels: {}, matchExpressions: []}}",
            "{podSelector: {matchLabels: null, matchExpressions: null}}",
        ],
        "
        z/a -> x/a x/b x/c TCP/80: deny ingress
        z/a -> y/a y/b TCP/80: allow
        ",
    );
}

#[test]
fn an_empty_pod_selector_peer_is_every_pod_of_the_policy_s_namespace() {
    judge_each(
        &[
            "{ingress: [{from: [{podSelector: {}}]}]}",
            "{ingress: [{from: [{podSelector: {matchLabels: null}}]}]}",
        ],
        "
        x/* -> x/* TCP/80 ICMP: allow
        y/* z/a 192.0.2.1 -> x/* TCP/80 ICMP: deny ingress
        ",
    );
}

#[test]
fn an_empty_namespace_selector_peer_is_every_pod_of_all_namespaces() {
    judge_each(
        &[
            "{ingress: [{from: [{namespaceSelector: {}}]}]}",
            "{ingress: [{from: [{namespaceSelector: {}, podSelector: {}}]}]}",
            "{ingress: [{from: [{namespaceSelector: {matchLabels: null}}]}]}",
        ],
        "
        x/* y/* z/a -> x/* TCP/80 ICMP: allow
        192.0.2.1 10.0.0.99 -> x/* TCP/80 ICMP: deny ingress
        ",
    );
}

#[test]
fn selectors_in_one_peer_are_and() {
    judge(
        &[(
            "x/p",
            "{ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}, \
             podSelector: {matchLabels: {pod: a}}}]}]}",
        )],
        "
        y/a -> x/b TCP/80: allow
        y/b x/a x/c z/a -> x/b TCP/80: deny ingress
        ",
    );
}

#[test]
fn peers_in_two_items_are_or() {
    judge(
        &[(
            "x/p",
            "{ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}, \
             {podSelector: {matchLabels: {pod: a}}}]}]}",
        )],
        "
        y/a y/b x/a -> x/b TCP/80: allow
        x/c z/a -> x/b TCP/80: deny ingress
        ",
    );
}

#[test]
fn a_peer_without_members_is_refused_and_matches_nothing() {
    for peer in [
        "{}",
        "null",
        "{ipBlock: null, podSelector: null, namespaceSelector: null}",
    ] {
        judge_refused(
            &format!("{{ingress: [{{from: [{peer}]}}]}}"),
            &["spec.ingress[0].from[0]: Required value: must specify a peer"],
            "
            x/b y/a 192.0.2.1 -> x/a TCP/80 ICMP: deny ingress
            x/a -> y/a TCP/80: allow
            ",
        );
    }
    judge_refused(
        "{policyTypes: [Egress], egress: [{to: [{}]}]}",
        &["spec.egress[0].to[0]: Required value: must specify a peer"],
        "x/a -> x/b y/a 192.0.2.1 TCP/80 ICMP: deny egress",
    );
}

#[test]
fn an_empty_except_is_none() {
    judge_each(
        &[
            "{ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/24}}]}]}",
            "{ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/24, except: []}}]}]}",
            "{ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/24, except: null}}]}]}",
        ],
        "
        192.0.2.0 192.0.2.255 -> x/a TCP/80: allow
        192.0.1.255 192.0.3.0 -> x/a TCP/80: deny ingress
        ",
    );
}

#[test]
fn an_end_port_without_a_number_is_refused_and_matches_nothing() {
    judge_refused(
        "{ingress: [{ports: [{endPort: 90}]}]}",
        &[
            "spec.ingress[0].ports[0].endPort: Invalid value: 90: may not be specified when `port` \
           is not specified",
        ],
        "y/a -> x/a TCP/80 TCP/90 TCP/1 UDP/80: deny ingress",
    );
    judge_refused(
        "{ingress: [{ports: [{port: web, endPort: 90}]}]}",
        &[
            "spec.ingress[0].ports[0].endPort: Invalid value: 90: may not be specified when `port` \
           is non-numeric",
        ],
        "y/a -> x/a TCP/80 TCP/90 TCP/1 UDP/80: deny ingress",
    );
}

#[test]
fn a_null_rule_is_an_empty_rule() {
    judge_each(
        &[
            "{ingress: [null]}",
            "{policyTypes: [Ingress], ingress: [null]}",
        ],
        "
        y/a 192.0.2.1 -> x/a TCP/80 UDP/53 ICMP: allow
        x/a -> y/a TCP/80: allow
        ",
    );
    // An egress rule, though empty, makes the policy one of both directions.
    judge_each(
        &["{egress: [null]}"],
        "
        y/a 192.0.2.1 -> x/a TCP/80 UDP/53 ICMP: deny ingress
        x/a -> y/a 192.0.2.1 TCP/80 UDP/53 ICMP: allow
        ",
    );
}

#[test]
fn a_null_selector_is_absent() {
    judge_each(
        &["{ingress: [{from: [{namespaceSelector: null, podSelector: {}}]}]}"],
        "
        x/b -> x/a TCP/80: allow
        y/a -> x/a TCP/80: deny ingress
        ",
    );
    judge_each(
        &[
            "{ingress: [{from: [{podSelector: null, namespaceSelector: {matchLabels: {team: blue}}}]}]}",
        ],
        "
        y/a -> x/a TCP/80: allow
        x/b -> x/a TCP/80: deny ingress
        ",
    );
}

#[test]
fn a_null_label_value_is_the_empty_text() {
    judge_each(
        &["{podSelector: {matchLabels: {pod: null}}}"],
        "y/a -> x/a TCP/80: allow",
    );
}

#[test]
fn a_port_name_that_nobody_has_matches_nothing_and_isolates() {
    judge(
        &[("x/p", "{ingress: [{ports: [{port: nobody}]}]}")],
        "
        y/a x/b 192.0.2.1 -> x/a TCP/80 UDP/53 ICMP: deny ingress
        x/a -> y/a TCP/80: allow
        ",
    );
    judge(
        &[(
            "x/p",
            "{policyTypes: [Egress], egress: [{ports: [{port: nobody}]}]}",
        )],
        "
        x/a -> y/a x/b 192.0.2.1 TCP/80 UDP/53 ICMP: deny egress
        y/a -> x/a TCP/80: allow
        ",
    );
    // Beside a port that exists it takes nothing away.
    judge(
        &[("x/p", "{ingress: [{ports: [{port: nobody}, {port: web}]}]}")],
        "
        y/a -> x/a TCP/80: allow
        y/a -> x/a TCP/81: deny ingress
        ",
    );
}

#[test]
fn pods_that_are_going_count_until_they_are_gone() {
    let mut scene = Scene::new();
    scene.policy(
        "x/p",
        "{ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}",
    );
    let going = "
        apiVersion: v1
        kind: Pod
        metadata: {name: b, namespace: x, labels: {pod: b}, deletionTimestamp: '2026-01-01T00:00:00Z',
          deletionGracePeriodSeconds: 30}
        spec: {containers: [{name: c, image: i}]}
        status: {phase: Running, podIP: 10.0.0.12, podIPs: [{ip: 10.0.0.12}]}";
    scene.add(going);
    scene.holds_as_written("x/b -> x/a TCP/80: allow\ny/a -> x/b TCP/80: deny ingress");
    scene.remove("Pod", "x/b");
    scene.holds_as_written("10.0.0.12 -> x/a TCP/80: deny ingress");
}

#[test]
fn a_pending_pod_with_an_address_counts() {
    let mut scene = Scene::new();
    let spec = "containers: [{name: c, image: i}]";
    scene.pod("x/b", "pod: b", &["10.0.0.12"], spec, "Pending");
    scene.policy(
        "x/p",
        "{ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}",
    );
    scene.holds_as_written("x/b -> x/a TCP/80: allow\ny/a -> x/b TCP/80: deny ingress");
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
