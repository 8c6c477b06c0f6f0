//! Cases of several steps: what comes, changes and goes.

use super::generate::{
    ALL_IN_X, ALL_IN_Y, apply, base, created, dns, everything, item, peer, rule, single, slug,
    step, tcp_80, tcp_81, with_first_rule,
};
use super::table::{Case, Policy, Ports, Rule, Step};

fn case(about: &str, steps: Vec<Step>) -> Case {
    Case {
        name: slug(about),
        about: about.to_owned(),
        steps,
    }
}

/// A pod that serves what the nine serve, as an item of `apply`.
fn pod(namespace: &str, name: &str, host: u8) -> String {
    let mut ports = Vec::new();
    for protocol in ["TCP", "UDP", "SCTP"] {
        for port in [80, 81] {
            let name = format!("serve-{port}-{}", protocol.to_lowercase());
            ports.push(format!(
                "{{name: {name}, containerPort: {port}, protocol: {protocol}}}"
            ));
        }
    }
    format!(
        "  - apiVersion: v1\n    kind: Pod\n    metadata: {{name: {name}, namespace: {namespace}, \
         labels: {{pod: {name}}}}}\n    spec:\n      containers:\n      - name: serve\n        image: \
         agnhost\n        ports: [{}]\n    status: {{phase: Running, podIPs: [{{ip: 10.244.4.{host}}}, \
         {{ip: \"fd00:10:244::4:{host}\"}}]}}\n",
        ports.join(", ")
    )
}

fn namespace(name: &str, label: &str) -> String {
    format!(
        "  - {{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {{ns: {label}}}}}}}\n"
    )
}

fn delete(objects: &[&str]) -> String {
    let lines = objects.iter().map(|object| format!("  - {{{object}}}\n"));
    format!("  delete:\n{}", lines.collect::<String>())
}

fn label(object: &str) -> String {
    format!("  label:\n  - {{{object}}}\n")
}

fn with_pods(mut step: Step, pods: &[&'static str]) -> Step {
    step.more_pods = pods.to_vec();
    step
}

pub(super) fn actions() -> Vec<Case> {
    let base = base();
    let there = || created(&[&base]);
    let udp_81 = with_first_rule(true, |rule| {
        let text = "{protocol: UDP, port: serve-81-udp}";
        rule.ports = Some(vec![item(text, &[("UDP", 81)])]);
    });
    // The base policy's peers, with the pods of y-2, whose label is y's.
    let with_y_2 = {
        let mut policy = base.clone();
        let more = |rules: &mut Option<Vec<Rule>>, pods: &[&'static str]| {
            let peers = rules.as_mut().unwrap()[0].peers.as_mut().unwrap();
            peers[0].pods.extend(pods);
        };
        more(&mut policy.ingress, &["y-2/b"]);
        more(&mut policy.egress, &["y-2/a", "y-2/b"]);
        policy
    };
    let from_labelled = |text: &'static str, pods: &[&'static str]| {
        with_first_rule(true, |rule| rule.peers = Some(vec![peer("", text, pods)]))
    };
    let new_namespace = "{namespaceSelector: {matchLabels: {new-ns: qrs}}}";
    let new_pod = "{podSelector: {matchLabels: {new-label: abc}}, namespaceSelector: \
                   {matchExpressions: [{key: ns, operator: In, values: [y, z]}]}}";
    let (nobody, y) = (
        from_labelled(new_namespace, &[]),
        from_labelled(new_namespace, &ALL_IN_Y),
    );
    let (no_pod, y_b) = (
        from_labelled(new_pod, &[]),
        from_labelled(new_pod, &["y/b"]),
    );
    vec![
        case(
            "Create/delete policy",
            vec![
                there(),
                step(
                    "it is gone",
                    delete(&["kind: NetworkPolicy, namespace: x, name: base"]),
                    &[],
                ),
            ],
        ),
        case(
            "Create/update policy",
            vec![
                there(),
                step("its ports are others", apply(&[&udp_81]), &[&udp_81]),
            ],
        ),
        case(
            "Create/delete namespace",
            vec![
                there(),
                with_pods(
                    step(
                        "another namespace with y's label",
                        format!(
                            "  apply:\n{}{}{}",
                            namespace("y-2", "y"),
                            pod("y-2", "a", 11),
                            pod("y-2", "b", 12)
                        ),
                        &[&with_y_2],
                    ),
                    &["y-2/a", "y-2/b"],
                ),
                step(
                    "it is gone with its pods",
                    delete(&[
                        "kind: Pod, namespace: y-2, name: a",
                        "kind: Pod, namespace: y-2, name: b",
                        "kind: Namespace, name: y-2",
                    ]),
                    &[&base],
                ),
            ],
        ),
        case(
            "Update namespace so that policy applies, then again so it no longer applies",
            vec![
                created(&[&nobody]),
                step(
                    "y gets the label",
                    label("kind: Namespace, name: y, labels: {new-ns: qrs}"),
                    &[&y],
                ),
                step(
                    "y loses it",
                    label("kind: Namespace, name: y, labels: {new-ns: null}"),
                    &[&nobody],
                ),
            ],
        ),
        case(
            "Create/delete pod",
            vec![
                there(),
                with_pods(
                    step(
                        "x/d comes",
                        format!("  apply:\n{}", pod("x", "d", 13)),
                        &[&base],
                    ),
                    &["x/d"],
                ),
                step(
                    "x/d goes",
                    delete(&["kind: Pod, namespace: x, name: d"]),
                    &[&base],
                ),
            ],
        ),
        case(
            "Update pod so that policy applies, then again so it no longer applies",
            vec![
                created(&[&no_pod]),
                step(
                    "y/b gets the label",
                    label("kind: Pod, namespace: y, name: b, labels: {new-label: abc}"),
                    &[&y_b],
                ),
                step(
                    "y/b loses it",
                    label("kind: Pod, namespace: y, name: b, labels: {new-label: null}"),
                    &[&no_pod],
                ),
            ],
        ),
        example(),
    ]
}

fn example() -> Case {
    let named = in_x(
        "allow-all",
        Some(vec![rule(Vec::new(), vec![serve_81_tcp()])]),
        None,
    );
    case(
        "example: should allow ingress access on one named port",
        vec![
            created(&[&named]),
            with_pods(
                step(
                    "a fourth namespace",
                    format!("  apply:\n{}{}", namespace("w", "w"), pod("w", "a", 14)),
                    &[&named],
                ),
                &["w/a"],
            ),
            step(
                "its pod goes",
                delete(&["kind: Pod, namespace: w, name: a"]),
                &[&named],
            ),
            step(
                "and it goes too",
                delete(&["kind: Namespace, name: w"]),
                &[&named],
            ),
        ],
    )
}

fn serve_81_tcp() -> Ports {
    item("{port: serve-81-tcp}", &[("TCP", 81)])
}

/// A policy for every pod of x.
fn in_x(name: &'static str, ingress: Option<Vec<Rule>>, egress: Option<Vec<Rule>>) -> Policy {
    Policy {
        name,
        namespace: "x",
        selector: "{}",
        subjects: ALL_IN_X.to_vec(),
        ingress,
        egress,
    }
}

/// A policy for one pod, chosen by its label.
fn one(
    name: &'static str,
    subject: &'static str,
    ingress: Option<Vec<Rule>>,
    egress: Option<Vec<Rule>>,
) -> Policy {
    let (namespace, _) = subject.split_once('/').unwrap();
    Policy {
        name,
        namespace,
        selector: match subject {
            "y/b" => "{matchLabels: {pod: b}}",
            _ => "{matchLabels: {pod: a}}",
        },
        subjects: vec![subject],
        ingress,
        egress,
    }
}

pub(super) fn end_to_end() -> Vec<Case> {
    let mut cases = by_the_default_label();
    cases.extend(of_one_step());
    cases.extend(of_several_steps());
    cases
}

fn by_the_default_label() -> Vec<Case> {
    let z = || {
        peer(
            "",
            "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: z}}}",
            &["z/a", "z/b", "z/c"],
        )
    };
    [true, false]
        .map(|ingress| {
            let policy = with_first_rule(ingress, |rule| rule.peers = Some(vec![z()]));
            let way = if ingress { "ingress" } else { "egress" };
            let about = format!("{way}: select namespace by default label");
            single(slug(&about), about, &[&policy])
        })
        .into()
}

fn of_one_step() -> Vec<Case> {
    let one_step = |about: &str, policies: &[&Policy]| case(about, vec![created(policies)]);
    let not_x = peer(
        "",
        "{namespaceSelector: {matchExpressions: [{key: ns, operator: NotIn, values: [x]}]}, \
         podSelector: {matchExpressions: [{key: pod, operator: In, values: [b, c]}]}}",
        &["y/b", "y/c", "z/b", "z/c"],
    );
    let b_of_x = peer("", "{podSelector: {matchLabels: {pod: b}}}", &["x/b"]);
    let by = |peer| rule(vec![peer], Vec::new());
    let y_a = peer(
        "",
        "{namespaceSelector: {matchLabels: {ns: y}}, podSelector: {matchLabels: {pod: a}}}",
        &["y/a"],
    );
    let x_a = peer(
        "",
        "{namespaceSelector: {matchLabels: {ns: x}}, podSelector: {matchLabels: {pod: a}}}",
        &["x/a"],
    );
    let from_x_a = |name, subject| one(name, subject, Some(vec![by(x_a.clone())]), None);
    let out_80 = item("{port: 80}", &[("TCP", 80)]);
    vec![
        one_step(
            "should support a 'default-deny-ingress' policy",
            &[&in_x("deny-ingress", Some(Vec::new()), None)],
        ),
        one_step(
            "should support a 'default-deny-all' policy",
            &[&in_x(
                "deny-all-allow-dns",
                Some(Vec::new()),
                Some(vec![dns()]),
            )],
        ),
        one_step(
            "should enforce policy based on Multiple PodSelectors and NamespaceSelectors",
            &[&one(
                "allow-ns-y-z-pod-b-c",
                "x/a",
                Some(vec![by(not_x)]),
                None,
            )],
        ),
        one_step(
            "should support allow-all policy",
            &[&in_x("allow-all", Some(vec![everything()]), None)],
        ),
        one_step(
            "should allow ingress access on one named port",
            &[&in_x(
                "allow-all",
                Some(vec![rule(Vec::new(), vec![serve_81_tcp()])]),
                None,
            )],
        ),
        one_step(
            "should work with Ingress, Egress specified together",
            &[&one(
                "allow-client-a-via-pod-selector",
                "x/a",
                Some(vec![by(b_of_x)]),
                Some(vec![rule(Vec::new(), vec![out_80]), dns()]),
            )],
        ),
        one_step(
            "should support denying of egress traffic on the client side (even if the server \
             explicitly allows this traffic)",
            &[
                &one(
                    "allow-to-ns-y-pod-a",
                    "x/a",
                    None,
                    Some(vec![by(y_a), dns()]),
                ),
                &from_x_a("allow-from-xa-on-ya-match-selector", "y/a"),
                &from_x_a("allow-from-xa-on-yb-match-selector", "y/b"),
            ],
        ),
    ]
}

fn of_several_steps() -> Vec<Case> {
    let y = || peer("", "{namespaceSelector: {matchLabels: {ns: y}}}", &ALL_IN_Y);
    let from_y = |name, port| one(name, "x/a", Some(vec![rule(vec![y()], vec![port])]), None);
    let on_81 = from_y("allow-client-a-via-ns-selector-81", tcp_81());
    let on_80 = from_y("allow-client-a-via-ns-selector-80", tcp_80());
    let all = in_x(
        "allow-all-mutate-to-deny-all",
        Some(vec![everything()]),
        None,
    );
    let none = in_x("allow-all-mutate-to-deny-all", Some(Vec::new()), None);
    let from = |name, text, pods: &[&'static str]| {
        let by = rule(vec![peer("", text, pods)], Vec::new());
        one(name, "x/a", Some(vec![by]), None)
    };
    let from_namespace = |pods: &[&'static str]| {
        let text = "{namespaceSelector: {matchLabels: {ns2: updated}}}";
        from("allow-client-a-via-ns-selector", text, pods)
    };
    let from_pod = |pods: &[&'static str]| {
        let text = "{podSelector: {matchLabels: {pod: b, pod2: updated}}}";
        from("allow-client-a-via-pod-selector", text, pods)
    };
    let isolated = |subjects: &[&'static str]| Policy {
        selector: "{matchLabels: {target: isolated}}",
        subjects: subjects.to_vec(),
        ..in_x("deny-ingress-via-label-selector", Some(Vec::new()), None)
    };
    let deny_all = in_x("deny-all", Some(Vec::new()), Some(Vec::new()));
    vec![
        case(
            "should enforce multiple, stacked policies with overlapping podSelectors",
            vec![
                created(&[&on_81]),
                step("a second policy", apply(&[&on_80]), &[&on_81, &on_80]),
            ],
        ),
        case(
            "should enforce updated policy",
            vec![
                created(&[&all]),
                step("the same policy denies all", apply(&[&none]), &[&none]),
            ],
        ),
        case(
            "should allow ingress access from updated namespace",
            vec![
                created(&[&from_namespace(&[])]),
                step(
                    "y gets the label",
                    label("kind: Namespace, name: y, labels: {ns2: updated}"),
                    &[&from_namespace(&ALL_IN_Y)],
                ),
            ],
        ),
        case(
            "should allow ingress access from updated pod",
            vec![
                created(&[&from_pod(&[])]),
                step(
                    "x/b gets the label",
                    label("kind: Pod, namespace: x, name: b, labels: {pod2: updated}"),
                    &[&from_pod(&["x/b"])],
                ),
            ],
        ),
        case(
            "should deny ingress access to updated pod",
            vec![
                created(&[&isolated(&[])]),
                step(
                    "x/a gets the label",
                    label("kind: Pod, namespace: x, name: a, labels: {target: isolated}"),
                    &[&isolated(&["x/a"])],
                ),
            ],
        ),
        case(
            "should stop enforcing policies after they are deleted",
            vec![
                created(&[&deny_all]),
                step(
                    "it is gone",
                    delete(&["kind: NetworkPolicy, namespace: x, name: deny-all"]),
                    &[],
                ),
            ],
        ),
    ]
}
