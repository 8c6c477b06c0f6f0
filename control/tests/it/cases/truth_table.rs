//! What absent, null and empty mean, row by row
//! (<https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/network-policy-v1/>).

use super::{judge, judge_each, judge_refused};

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
