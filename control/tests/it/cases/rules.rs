//! The rules of the API, one by one.

use super::{Scene, judge, judge_each};

#[test]
fn policies_of_another_namespace_do_not_count() {
    judge(
        &[("y/p", "{}"), ("z/p", "{policyTypes: [Egress]}")],
        "
        z/a -> y/a TCP/80: deny both
        z/a -> x/a TCP/80: deny egress
        x/b -> x/a TCP/80: allow
        x/a -> y/a y/b TCP/80: deny ingress
        ",
    );
}

#[test]
fn policies_add_up_whatever_their_order() {
    let deny = "{policyTypes: [Ingress]}";
    let b = "{ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}";
    let c = "{ingress: [{from: [{podSelector: {matchLabels: {pod: c}}}]}]}";
    for names in [
        ["x/p", "x/q", "x/r"],
        ["x/r", "x/q", "x/p"],
        ["x/q", "x/r", "x/p"],
    ] {
        judge(
            &[(names[0], deny), (names[1], b), (names[2], c)],
            "
            x/b x/c -> x/a TCP/80: allow
            y/a y/b 192.0.2.1 -> x/a TCP/80: deny ingress
            ",
        );
    }
}

#[test]
fn both_ends_must_allow() {
    let sender = "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], \
                  egress: [{ports: [{port: 80}]}]}";
    let receiver = "{podSelector: {matchLabels: {pod: b}}, ingress: [{ports: [{port: 80}, \
                    {port: 81}]}]}";
    judge(
        &[("x/sender", sender), ("x/receiver", receiver)],
        "
        x/a -> x/b TCP/80: allow
        x/a -> x/b TCP/81: deny egress
        x/c -> x/b TCP/81: allow
        x/c -> x/b TCP/82: deny ingress
        x/a -> x/b TCP/82: deny both
        x/b -> x/a TCP/82: allow
        ",
    );
}

#[test]
fn isolation_is_per_direction_and_per_pod() {
    judge(
        &[
            (
                "x/in",
                "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress]}",
            ),
            (
                "x/out",
                "{podSelector: {matchLabels: {pod: b}}, policyTypes: [Egress]}",
            ),
        ],
        "
        x/c -> x/a TCP/80: deny ingress
        x/a -> x/c TCP/80: allow
        x/b -> x/c TCP/80: deny egress
        x/c -> x/b TCP/80: allow
        x/b -> x/a TCP/80: deny both
        x/c -> y/a TCP/80: allow
        ",
    );
}

#[test]
fn peers_are_or_ports_are_or_and_a_rule_is_and() {
    judge(
        &[(
            "x/p",
            "{ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}, {ipBlock: {cidr: \
             192.0.2.0/24}}], ports: [{port: 80}, {port: 53, protocol: UDP}]}]}",
        )],
        "
        x/b 192.0.2.1 -> x/a TCP/80 UDP/53: allow
        x/b 192.0.2.1 -> x/a TCP/53 UDP/80 ICMP: deny ingress
        x/c 192.0.3.1 -> x/a TCP/80 UDP/53: deny ingress
        ",
    );
}

#[test]
fn protocols_are_tcp_unless_stated_and_each_item_has_its_own() {
    judge(
        &[(
            "x/p",
            "{ingress: [{ports: [{port: 1}, {port: 2, protocol: UDP}, {port: 3, protocol: SCTP}, \
             {port: 4, protocol: null}]}]}",
        )],
        "
        y/a -> x/a TCP/1 UDP/2 SCTP/3 TCP/4: allow
        y/a -> x/a UDP/1 SCTP/1 TCP/2 SCTP/2 TCP/3 UDP/3 UDP/4 SCTP/4: deny ingress
        ",
    );
}

#[test]
fn a_named_port_of_ingress_is_the_selected_pod_s() {
    // Everybody else calls 80 so; only y/b says 8080.
    judge(
        &[("y/p", "{ingress: [{ports: [{port: web}]}]}")],
        "
        x/a 192.0.2.1 -> y/a TCP/80: allow
        x/a 192.0.2.1 -> y/a TCP/8080: deny ingress
        x/a 192.0.2.1 -> y/b TCP/8080: allow
        x/a 192.0.2.1 -> y/b TCP/80 UDP/8080: deny ingress
        ",
    );
}

#[test]
fn a_named_port_of_egress_is_the_peer_s() {
    judge_each(
        &[
            "{policyTypes: [Egress], egress: [{ports: [{port: web}]}]}",
            "{policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}], ports: [{port: web}]}]}",
            "{policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}], \
             ports: [{port: web}]}]}",
        ],
        "
        x/a -> y/a x/b TCP/80: allow
        x/a -> y/b TCP/8080: allow
        x/a -> y/b TCP/80: deny egress
        x/a -> y/a TCP/8080: deny egress
        x/a -> 192.0.2.1 10.0.0.99 TCP/80 TCP/8080: deny egress
        ",
    );
}

#[test]
fn a_named_port_is_one_of_its_protocol() {
    judge(
        &[("x/p", "{ingress: [{ports: [{port: dns}]}]}")],
        "y/a -> x/a UDP/53 TCP/53: deny ingress",
    );
    judge(
        &[(
            "x/p",
            "{ingress: [{ports: [{port: dns, protocol: UDP}, {port: sig, protocol: SCTP}]}]}",
        )],
        "
        y/a -> x/a UDP/53 SCTP/36412: allow
        y/a -> x/a TCP/53 TCP/36412 UDP/36412: deny ingress
        ",
    );
}

#[test]
fn a_named_port_of_ingress_holds_for_an_ip_block_too() {
    judge(
        &[(
            "y/p",
            "{ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/24}}], ports: [{port: web}]}]}",
        )],
        "
        192.0.2.1 -> y/a TCP/80: allow
        192.0.2.1 -> y/b TCP/8080: allow
        192.0.2.1 -> y/b TCP/80: deny ingress
        192.0.3.1 -> y/a TCP/80: deny ingress
        ",
    );
}

#[test]
fn named_ports_of_sidecars_count_and_of_other_init_containers_do_not() {
    let mut scene = Scene::new();
    scene.pod(
        "x/a",
        "pod: a",
        &["10.0.0.11"],
        "containers: [{name: c, image: i, ports: [{containerPort: 80, name: main}]}], \
         initContainers: [{name: s, image: i, restartPolicy: Always, ports: [{containerPort: 15090, \
         name: proxy}]}, {name: j, image: i, ports: [{containerPort: 7000, name: job}]}]",
        "Running",
    );
    scene.policy(
        "x/p",
        "{ingress: [{ports: [{port: main}, {port: proxy}, {port: job}]}]}",
    );
    scene.holds(
        "
        y/a -> x/a TCP/80 TCP/15090: allow
        y/a -> x/a TCP/7000: deny ingress
        ",
    );
}

#[test]
fn end_port_is_inclusive_and_of_the_item_s_protocol() {
    judge(
        &[(
            "x/p",
            "{ingress: [{ports: [{port: 80, endPort: 90}, {protocol: UDP, port: 65000, endPort: \
             65535}, {protocol: SCTP, port: 7, endPort: 7}]}]}",
        )],
        "
        y/a -> x/a TCP/80 TCP/85 TCP/90 UDP/65000 UDP/65535 SCTP/7: allow
        y/a -> x/a TCP/79 TCP/91 UDP/64999 UDP/85 TCP/65535 SCTP/6 SCTP/8: deny ingress
        ",
    );
}

#[test]
fn an_ip_block_is_the_source_of_ingress_and_the_destination_of_egress() {
    judge(
        &[(
            "x/p",
            "{policyTypes: [Ingress, Egress], ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/24}}]}], \
             egress: [{to: [{ipBlock: {cidr: 198.51.100.0/24}}]}]}",
        )],
        "
        192.0.2.1 -> x/a TCP/80: allow
        198.51.100.1 -> x/a TCP/80: deny ingress
        x/a -> 198.51.100.1 TCP/80: allow
        x/a -> 192.0.2.1 TCP/80: deny egress
        ",
    );
}

#[test]
fn what_one_peer_excepts_another_may_allow() {
    let block = "{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.128/25]}}";
    let part = "{ipBlock: {cidr: 192.0.2.192/26}}";
    let expectations = "
        192.0.2.1 192.0.2.192 192.0.2.255 -> x/a TCP/80: allow
        192.0.2.128 192.0.2.191 -> x/a TCP/80: deny ingress
        ";
    // In one rule, in two rules, in two policies.
    judge(
        &[(
            "x/p",
            &format!("{{ingress: [{{from: [{block}, {part}]}}]}}"),
        )],
        expectations,
    );
    judge(
        &[(
            "x/p",
            &format!("{{ingress: [{{from: [{block}]}}, {{from: [{part}]}}]}}"),
        )],
        expectations,
    );
    judge(
        &[
            ("x/p", &format!("{{ingress: [{{from: [{block}]}}]}}")),
            ("x/q", &format!("{{ingress: [{{from: [{part}]}}]}}")),
        ],
        expectations,
    );
}

#[test]
fn all_of_ipv4_is_nothing_of_ipv6() {
    judge(
        &[("x/p", "{ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}")],
        "
        192.0.2.1 y/a -> x/a TCP/80: allow
        2001:db8::1 fd00::21 -> fd00::11 TCP/80: deny ingress
        ",
    );
    judge(
        &[("x/p", "{ingress: [{from: [{ipBlock: {cidr: '::/0'}}]}]}")],
        "
        192.0.2.1 y/a -> x/a TCP/80: deny ingress
        2001:db8::1 fd00::21 -> fd00::11 TCP/80: allow
        ",
    );
}

#[test]
fn an_ip_block_holds_pods_too() {
    judge(
        &[(
            "x/p",
            "{ingress: [{from: [{ipBlock: {cidr: 10.0.0.20/30}}]}]}",
        )],
        "
        y/a y/b 10.0.0.23 -> x/a TCP/80: allow
        x/b z/a -> x/a TCP/80: deny ingress
        fd00::21 -> fd00::11 TCP/80: deny ingress
        ",
    );
}

#[test]
fn selectors_match_all_addresses_of_pods_and_nothing_outside() {
    judge(
        &[(
            "x/p",
            "{policyTypes: [Ingress, Egress], ingress: [{from: [{namespaceSelector: {}}]}], \
             egress: [{to: [{namespaceSelector: {}}]}]}",
        )],
        "
        y/a -> x/a TCP/80: allow
        fd00::21 -> fd00::11 TCP/80: allow
        x/a -> y/a TCP/80: allow
        fd00::11 -> fd00::21 TCP/80: allow
        192.0.2.1 10.0.0.99 -> x/a TCP/80: deny ingress
        x/a -> 192.0.2.1 10.0.0.99 TCP/80: deny egress
        2001:db8::1 -> fd00::11 TCP/80: deny ingress
        ",
    );
}

#[test]
fn match_expressions_by_operator() {
    let mut scene = Scene::new();
    for (name, label, host) in [
        ("none", "", 101),
        ("empty", "k: ''", 102),
        ("one", "k: v", 103),
    ] {
        let spec = "containers: [{name: c, image: i}]";
        let address = format!("10.0.0.{host}");
        scene.pod(&format!("z/{name}"), label, &[&address], spec, "Running");
    }
    let none = "z/none";
    let empty = "z/empty";
    let one = "z/one";
    for (expression, matching) in [
        ("{key: k, operator: In, values: [v, w]}", vec![one]),
        ("{key: k, operator: In, values: ['']}", vec![empty]),
        (
            "{key: k, operator: NotIn, values: [v, w]}",
            vec![none, empty],
        ),
        ("{key: k, operator: NotIn, values: ['']}", vec![none, one]),
        (
            "{key: k, operator: NotIn, values: [w]}",
            vec![none, empty, one],
        ),
        ("{key: k, operator: Exists}", vec![empty, one]),
        ("{key: k, operator: Exists, values: []}", vec![empty, one]),
        ("{key: k, operator: DoesNotExist}", vec![none]),
        // Requirements are AND, also on one key.
        (
            "{key: k, operator: Exists}, {key: k, operator: NotIn, values: [v]}",
            vec![empty],
        ),
        (
            "{key: k, operator: Exists}, {key: k, operator: DoesNotExist}",
            vec![],
        ),
    ] {
        let peer = "{namespaceSelector: {}, podSelector: {matchExpressions: [EXPRESSION]}}";
        let peer = peer.replace("EXPRESSION", expression);
        scene.policy("x/p", &format!("{{ingress: [{{from: [{peer}]}}]}}"));
        scene.policy(
            "z/p",
            &format!("{{podSelector: {{matchExpressions: [{expression}]}}}}"),
        );
        let mut expectations = String::new();
        for pod in [none, empty, one] {
            let held = matching.contains(&pod);
            let as_peer = if held { "allow" } else { "deny ingress" };
            let as_subject = if held { "deny ingress" } else { "allow" };
            expectations += &format!("{pod} -> x/a TCP/80: {as_peer}\n");
            expectations += &format!("y/a -> {pod} TCP/80: {as_subject}\n");
        }
        scene.holds(&expectations);
    }
}

#[test]
fn match_labels_want_the_key_even_for_an_empty_value() {
    let mut scene = Scene::new();
    let spec = "containers: [{name: c, image: i}]";
    scene.pod("z/none", "", &["10.0.0.101"], spec, "Running");
    scene.pod("z/empty", "k: ''", &["10.0.0.102"], spec, "Running");
    scene.policy("z/p", "{podSelector: {matchLabels: {k: ''}}}");
    scene.holds(
        "
        y/a -> z/empty TCP/80: deny ingress
        y/a -> z/none TCP/80: allow
        ",
    );
    scene.policy("z/p", "{podSelector: {matchLabels: {k: '', pod: a}}}");
    scene.holds("y/a -> z/empty z/none z/a TCP/80: allow");
}

#[test]
fn namespaces_are_selected_by_their_name_label() {
    judge(
        &[(
            "x/p",
            "{ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: \
             y}}}]}]}",
        )],
        "
        y/a y/b -> x/a TCP/80: allow
        x/b z/a -> x/a TCP/80: deny ingress
        ",
    );
    // A namespace without the label asked about matches what wants it gone.
    judge(
        &[(
            "x/p",
            "{ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: team, operator: \
             DoesNotExist}]}}]}]}",
        )],
        "
        z/a -> x/a TCP/80: allow
        x/b y/a -> x/a TCP/80: deny ingress
        ",
    );
}

#[test]
fn changed_labels_count_without_a_restart() {
    let mut scene = Scene::new();
    scene.policy(
        "x/p",
        "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: \
         {team: blue}}, podSelector: {matchLabels: {pod: a}}}]}]}",
    );
    scene.holds("y/a -> x/a TCP/80: allow\nz/a y/b -> x/a TCP/80: deny ingress");
    scene.add("{apiVersion: v1, kind: Namespace, metadata: {name: z, labels: {team: blue}}}");
    scene.holds("y/a z/a -> x/a TCP/80: allow\ny/b -> x/a TCP/80: deny ingress");
    let spec = "containers: [{name: c, image: i}]";
    scene.pod("y/a", "pod: other", &["10.0.0.21"], spec, "Running");
    scene.holds("z/a -> x/a TCP/80: allow\ny/a -> x/a TCP/80: deny ingress");
    scene.pod("x/a", "pod: other", &["10.0.0.11"], spec, "Running");
    scene.holds("y/a z/a y/b 192.0.2.1 -> x/a TCP/80: allow");
}

#[test]
fn a_deleted_policy_leaves_others_as_they_were() {
    let mut scene = Scene::new();
    let allow = "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: \
                 {matchLabels: {pod: b}}}]}]}";
    scene
        .policy("x/p", allow)
        .policy("x/q", allow)
        .policy("x/deny", "{}");
    scene.holds("x/b -> x/a TCP/80: allow\nx/c -> x/a x/b TCP/80: deny ingress");
    scene.remove("NetworkPolicy", "x/q");
    scene.holds("x/b -> x/a TCP/80: allow\nx/c -> x/a x/b TCP/80: deny ingress");
    scene.remove("NetworkPolicy", "x/deny");
    scene.holds(
        "
        x/b -> x/a TCP/80: allow
        x/c -> x/a TCP/80: deny ingress
        x/c -> x/b TCP/80: allow
        ",
    );
    scene.remove("NetworkPolicy", "x/p");
    scene.holds("*/* -> */* TCP/80: allow");
}

#[test]
fn pods_that_have_ended_are_no_peers_and_their_address_is_nobody_s() {
    for phase in ["Succeeded", "Failed"] {
        let mut scene = Scene::new();
        let spec = "containers: [{name: c, image: i}]";
        scene.pod("y/a", "pod: a", &["10.0.0.21"], spec, phase);
        scene.policy("x/p", "{ingress: [{from: [{namespaceSelector: {}}]}]}");
        scene.holds(
            "
            10.0.0.21 -> x/a TCP/80: deny ingress
            y/b -> x/a TCP/80: allow
            ",
        );
    }
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

#[test]
fn a_pod_reaches_itself_whatever_its_policy() {
    judge(
        &[("x/p", "{policyTypes: [Ingress, Egress]}")],
        "
        x/a -> x/a TCP/80 ICMP: allow
        x/a -> x/b TCP/80 ICMP: deny both
        ",
    );
}

#[test]
fn a_host_network_pod_is_neither_subject_nor_selected_peer() {
    let mut scene = Scene::new();
    scene.pod(
        "x/host",
        "pod: b",
        &["10.1.0.1"],
        "hostNetwork: true, containers: [{name: c, image: i}]",
        "Running",
    );
    scene.policy(
        "x/p",
        "{policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {}}]}], \
         egress: [{to: [{podSelector: {}}]}]}",
    );
    scene.holds(
        "
        10.1.0.1 -> x/a TCP/80: deny ingress
        x/a -> 10.1.0.1 TCP/80: deny egress
        y/a -> 10.1.0.1 TCP/80: allow
        10.1.0.1 -> y/a TCP/80: allow
        x/b -> x/a TCP/80: allow
        ",
    );
    // Its address is its node's, and is allowed as an address.
    scene.policy(
        "x/q",
        "{ingress: [{from: [{ipBlock: {cidr: 10.1.0.1/32}}]}]}",
    );
    scene.holds("10.1.0.1 -> x/a TCP/80: allow");
}

#[test]
fn protocols_without_ports_pass_only_rules_without_ports() {
    judge(
        &[(
            "x/p",
            "{ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}, {ports: [{}, \
            {protocol: UDP}, {protocol: SCTP}]}]}",
        )],
        "
        x/b -> x/a ICMP: allow
        x/c y/a 192.0.2.1 -> x/a ICMP: deny ingress
        x/c y/a 192.0.2.1 -> x/a TCP/1 UDP/1 SCTP/1: allow
        fd00::12 -> fd00::11 ICMP: allow
        fd00::13 -> fd00::11 ICMP: deny ingress
        ",
    );
}

#[test]
fn each_address_family_stands_on_its_own() {
    judge(
        &[(
            "x/p",
            "{ingress: [{from: [{ipBlock: {cidr: 10.0.0.21/32}}]}]}",
        )],
        "
        10.0.0.21 -> 10.0.0.11 TCP/80: allow
        fd00::21 -> fd00::11 TCP/80: deny ingress
        ",
    );
}
