//! The cases: cyclonus' generators one by one, every part with its meaning.

use super::steps::{actions, end_to_end};
use super::table::{Case, NINE, PORTS, Peer, Policy, Port, Ports, Rule, Step};

pub(super) const ALL_IN_X: [&str; 3] = ["x/a", "x/b", "x/c"];
pub(super) const ALL_IN_Y: [&str; 3] = ["y/a", "y/b", "y/c"];
const ALL_IN_Z: [&str; 3] = ["z/a", "z/b", "z/c"];

/// The cases of a file.
pub(super) fn cases(file: &str) -> Vec<Case> {
    match file {
        "targets" => targets(),
        "rules" => rules(),
        "peers-of-ingress" => peers(true),
        "peers-of-egress" => peers(false),
        "ports-of-ingress" => ports(true),
        "ports-of-egress" => ports(false),
        "conflicts" => conflicts(),
        "actions" => actions(),
        "end-to-end" => end_to_end(),
        other => panic!("{other}"),
    }
}

pub(super) fn peer(about: &'static str, text: &'static str, pods: &[&'static str]) -> Peer {
    Peer {
        about,
        text,
        pods: pods.to_vec(),
        v4: false,
    }
}

pub(super) fn item(text: &'static str, opens: &[Port]) -> Ports {
    Ports {
        text,
        opens: opens.to_vec(),
    }
}

pub(super) fn rule(peers: Vec<Peer>, ports: Vec<Ports>) -> Rule {
    let some = |list: Vec<_>| Some(list).filter(|list| !list.is_empty());
    Rule {
        peers: some(peers),
        ports: Some(ports).filter(|list| !list.is_empty()),
    }
}

pub(super) fn everything() -> Rule {
    rule(Vec::new(), Vec::new())
}

pub(super) fn tcp_80() -> Ports {
    item("{protocol: TCP, port: 80}", &[("TCP", 80)])
}

pub(super) fn tcp_81() -> Ports {
    item("{protocol: TCP, port: 81}", &[("TCP", 81)])
}

/// Names are looked up on port 53, which is none of the ports that are asked for.
pub(super) fn dns() -> Rule {
    let items = ["{protocol: UDP, port: 53}", "{protocol: TCP, port: 53}"];
    rule(Vec::new(), items.map(|text| item(text, &[])).to_vec())
}

/// The policy that most cases change in one place: x/a, on TCP 80, from b and c of x and y, to a and
/// b of y and z.
pub(super) fn base() -> Policy {
    let from = peer(
        "",
        "{podSelector: {matchExpressions: [{key: pod, operator: In, values: [b, c]}]}, \
         namespaceSelector: {matchExpressions: [{key: ns, operator: In, values: [x, y]}]}}",
        &["x/b", "x/c", "y/b", "y/c"],
    );
    let to = peer(
        "",
        "{podSelector: {matchExpressions: [{key: pod, operator: In, values: [a, b]}]}, \
         namespaceSelector: {matchExpressions: [{key: ns, operator: In, values: [y, z]}]}}",
        &["y/a", "y/b", "z/a", "z/b"],
    );
    Policy {
        name: "base",
        namespace: "x",
        selector: "{matchLabels: {pod: a}}",
        subjects: vec!["x/a"],
        ingress: Some(vec![rule(vec![from], vec![tcp_80()])]),
        egress: Some(vec![rule(vec![to], vec![tcp_80()]), dns()]),
    }
}

/// The base policy with another first rule in one direction.
pub(super) fn with_first_rule(ingress: bool, change: impl FnOnce(&mut Rule)) -> Policy {
    let mut policy = base();
    let rules = match ingress {
        true => &mut policy.ingress,
        false => &mut policy.egress,
    };
    change(&mut rules.as_mut().unwrap()[0]);
    policy
}

pub(super) fn step(name: impl Into<String>, change: String, policies: &[&Policy]) -> Step {
    Step {
        name: name.into(),
        change,
        policies: policies.iter().map(|policy| (*policy).clone()).collect(),
        more_pods: Vec::new(),
    }
}

pub(super) fn apply(policies: &[&Policy]) -> String {
    let texts = policies.iter().map(|policy| policy.yaml());
    format!("  apply:\n{}", texts.collect::<String>())
}

pub(super) fn created(policies: &[&Policy]) -> Step {
    step("the policy is there", apply(policies), policies)
}

pub(super) fn single(name: String, about: String, policies: &[&Policy]) -> Case {
    Case {
        name,
        about,
        steps: vec![created(policies)],
    }
}

fn way(ingress: bool) -> &'static str {
    if ingress { "ingress" } else { "egress" }
}

pub(super) fn slug(text: &str) -> String {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    words.join("-").to_lowercase()
}

fn targets() -> Vec<Case> {
    let namespaces = [("x", "x/a"), ("y", "y/a"), ("z", "z/a")].map(|(namespace, subject)| {
        let policy = Policy {
            namespace,
            subjects: vec![subject],
            ..base()
        };
        let about = format!("set namespace to {namespace}");
        single(format!("namespace-{namespace}"), about, &[&policy])
    });
    let selectors = [
        ("every-pod", "{}", &ALL_IN_X[..]),
        ("one-pod", "{matchLabels: {pod: a}}", &["x/a"]),
        (
            "two-pods",
            "{matchExpressions: [{key: pod, operator: In, values: [a, b]}]}",
            &["x/a", "x/b"],
        ),
    ]
    .map(|(name, selector, subjects)| {
        let policy = Policy {
            selector,
            subjects: subjects.to_vec(),
            ..base()
        };
        let about = format!("set pod selector to {selector}");
        single(name.to_owned(), about, &[&policy])
    });
    namespaces.into_iter().chain(selectors).collect()
}

fn rules() -> Vec<Case> {
    let mut cases = Vec::new();
    for ingress in [false, true] {
        for (what, rules) in [("deny all", vec![]), ("allow all", vec![everything()])] {
            let mut policy = base();
            match ingress {
                true => policy.ingress = Some(rules),
                false => policy.egress = Some(rules),
            }
            let about = format!("{}: {what}", way(ingress));
            cases.push(single(slug(&about), about, &[&policy]));
        }
    }
    cases
}

/// The ten peers, for a policy in x.
fn all_peers() -> Vec<Peer> {
    let v4 = |about, text, pods: &[&'static str]| Peer {
        v4: true,
        ..peer(about, text, pods)
    };
    vec![
        peer("empty pods + nil ns", "{podSelector: {}}", &ALL_IN_X),
        peer(
            "pods by label + nil ns",
            "{podSelector: {matchLabels: {pod: c}}}",
            &["x/c"],
        ),
        peer("nil pods + empty ns", "{namespaceSelector: {}}", &NINE),
        peer(
            "empty pods + empty ns",
            "{podSelector: {}, namespaceSelector: {}}",
            &NINE,
        ),
        peer(
            "pods by label + empty ns",
            "{podSelector: {matchLabels: {pod: c}}, namespaceSelector: {}}",
            &["x/c", "y/c", "z/c"],
        ),
        peer(
            "nil pods + ns by label",
            "{namespaceSelector: {matchLabels: {ns: x}}}",
            &ALL_IN_X,
        ),
        peer(
            "empty pods + ns by label",
            "{podSelector: {}, namespaceSelector: {matchLabels: {ns: x}}}",
            &ALL_IN_X,
        ),
        peer(
            "pods by label + ns by label",
            "{podSelector: {matchLabels: {pod: c}}, namespaceSelector: {matchLabels: {ns: x}}}",
            &["x/c"],
        ),
        // z's pods have the addresses 10.244.3.11 to 10.244.3.13.
        v4(
            "simple ipblock",
            "{ipBlock: {cidr: 10.244.3.0/24}}",
            &ALL_IN_Z,
        ),
        v4(
            "ipblock with except",
            "{ipBlock: {cidr: 10.244.3.0/24, except: [10.244.3.12/31]}}",
            &["z/a"],
        ),
    ]
}

fn peers(ingress: bool) -> Vec<Case> {
    let case = |peers: &[&Peer], about: String| {
        let list: Vec<Peer> = peers.iter().map(|peer| (*peer).clone()).collect();
        let change = |rule: &mut Rule| rule.peers = Some(list).filter(|list| !list.is_empty());
        let policy = with_first_rule(ingress, change);
        single(slug(&about), about, &[&policy])
    };
    let all = all_peers();
    let mut cases = vec![case(&[], format!("{}: empty peers", way(ingress)))];
    for one in &all {
        cases.push(case(&[one], format!("{}: {}", way(ingress), one.about)));
    }
    for (at, one) in all.iter().enumerate() {
        for other in &all[at + 1..] {
            let about = format!("{}, 2-peer: {}, {}", way(ingress), one.about, other.about);
            cases.push(case(&[one, other], about));
        }
    }
    cases
}

fn all_of(protocol: &'static str) -> Vec<Port> {
    let of = |port: &Port| port.0 == protocol;
    PORTS.iter().copied().filter(of).collect()
}

/// The 24 port items, and three odd ones.
fn all_items() -> Vec<(&'static str, Ports)> {
    let (tcp, udp, sctp) = (all_of("TCP"), all_of("UDP"), all_of("SCTP"));
    let odd: &[Port] = &[];
    let items: [(&'static str, &'static str, &[Port]); 27] = [
        ("no protocol, no port", "{}", &tcp),
        ("no protocol, 80", "{port: 80}", &[("TCP", 80)]),
        ("no protocol, 81", "{port: 81}", &[("TCP", 81)]),
        ("TCP, no port", "{protocol: TCP}", &tcp),
        ("TCP, 80", "{protocol: TCP, port: 80}", &[("TCP", 80)]),
        ("TCP, 81", "{protocol: TCP, port: 81}", &[("TCP", 81)]),
        ("UDP, no port", "{protocol: UDP}", &udp),
        ("UDP, 80", "{protocol: UDP, port: 80}", &[("UDP", 80)]),
        ("UDP, 81", "{protocol: UDP, port: 81}", &[("UDP", 81)]),
        ("SCTP, no port", "{protocol: SCTP}", &sctp),
        ("SCTP, 80", "{protocol: SCTP, port: 80}", &[("SCTP", 80)]),
        ("SCTP, 81", "{protocol: SCTP, port: 81}", &[("SCTP", 81)]),
        (
            "TCP, serve-80-tcp",
            "{protocol: TCP, port: serve-80-tcp}",
            &[("TCP", 80)],
        ),
        (
            "TCP, serve-81-tcp",
            "{protocol: TCP, port: serve-81-tcp}",
            &[("TCP", 81)],
        ),
        (
            "UDP, serve-80-udp",
            "{protocol: UDP, port: serve-80-udp}",
            &[("UDP", 80)],
        ),
        (
            "UDP, serve-81-udp",
            "{protocol: UDP, port: serve-81-udp}",
            &[("UDP", 81)],
        ),
        (
            "SCTP, serve-80-sctp",
            "{protocol: SCTP, port: serve-80-sctp}",
            &[("SCTP", 80)],
        ),
        (
            "SCTP, serve-81-sctp",
            "{protocol: SCTP, port: serve-81-sctp}",
            &[("SCTP", 81)],
        ),
        (
            "TCP, 53 to 80",
            "{protocol: TCP, port: 53, endPort: 80}",
            &[("TCP", 80)],
        ),
        (
            "TCP, 53 to 84",
            "{protocol: TCP, port: 53, endPort: 84}",
            &tcp,
        ),
        (
            "UDP, 53 to 80",
            "{protocol: UDP, port: 53, endPort: 80}",
            &[("UDP", 80)],
        ),
        (
            "UDP, 53 to 84",
            "{protocol: UDP, port: 53, endPort: 84}",
            &udp,
        ),
        (
            "SCTP, 53 to 80",
            "{protocol: SCTP, port: 53, endPort: 80}",
            &[("SCTP", 80)],
        ),
        (
            "SCTP, 53 to 84",
            "{protocol: SCTP, port: 53, endPort: 84}",
            &sctp,
        ),
        (
            "open a named port that doesn't match its protocol",
            "{protocol: TCP, port: serve-81-udp}",
            odd,
        ),
        (
            "open a named port that isn't served",
            "{protocol: TCP, port: serve-7981-udp}",
            odd,
        ),
        (
            "open a numbered port that isn't served",
            "{protocol: TCP, port: 7981}",
            odd,
        ),
    ];
    items
        .into_iter()
        .map(|(about, text, opens)| (about, item(text, opens)))
        .collect()
}

fn ports(ingress: bool) -> Vec<Case> {
    let case = |items: Vec<Ports>, about: &str| {
        let about = format!("{}: {about}", way(ingress));
        let change = |rule: &mut Rule| rule.ports = Some(items).filter(|list| !list.is_empty());
        let policy = with_first_rule(ingress, change);
        single(slug(&about), about, &[&policy])
    };
    let mut cases = vec![case(Vec::new(), "empty port/protocol")];
    let all = all_items();
    for (about, item) in &all {
        cases.push(case(vec![item.clone()], about));
    }
    let find = |text: &str| all.iter().find(|(_, item)| item.text == text);
    let or_named = |text: &'static str| match (find(text), text) {
        (Some((_, item)), _) => item.clone(),
        (None, "{port: serve-80-tcp}") => item(text, &[("TCP", 80)]),
        (None, "{port: serve-81-tcp}") => item(text, &[("TCP", 81)]),
        (None, other) => panic!("{other}"),
    };
    for (one, other) in [
        ("{}", "{port: 80}"),
        ("{}", "{port: serve-80-tcp}"),
        ("{}", "{protocol: UDP}"),
        ("{port: 80}", "{port: 81}"),
        ("{port: 80}", "{port: serve-81-tcp}"),
        ("{port: 80}", "{protocol: UDP, port: serve-81-udp}"),
        (
            "{protocol: UDP, port: 80}",
            "{protocol: UDP, port: serve-81-udp}",
        ),
    ] {
        let about = format!("two items, {one} and {other}").replace("{}", "empty");
        cases.push(case(vec![or_named(one), or_named(other)], &about));
    }
    cases
}

/// cyclonus sets policies for a sender, x/b, against policies for a receiver, y/c; but its cases of
/// ingress select the sender too.
fn conflicts() -> Vec<Case> {
    let of = |name, subject, ingress: Option<Vec<Rule>>, egress: Option<Vec<Rule>>| Policy {
        name,
        namespace: if subject == "x/b" { "x" } else { "y" },
        selector: if subject == "x/b" {
            "{matchLabels: {pod: b}}"
        } else {
            "{matchLabels: {pod: c}}"
        },
        subjects: vec![subject],
        ingress,
        egress,
    };
    let ingress = |name, subject, rules: Vec<Rule>| of(name, subject, Some(rules), None);
    let egress = |name, subject, rules: Vec<Rule>| of(name, subject, None, Some(rules));
    let (from, to) = ("x/b", "y/c");
    let all = || vec![everything()];
    let none = Vec::new;
    let by = |peer: Peer| vec![rule(vec![peer], Vec::new())];
    let every_pod = || by(peer("", "{namespaceSelector: {}}", &NINE));
    let no_pod = || {
        by(peer(
            "",
            "{namespaceSelector: {matchLabels: {this-will-never-happen: qrs123}}}",
            &[],
        ))
    };
    let every_address = || {
        by(Peer {
            v4: true,
            ..peer("", "{ipBlock: {cidr: 0.0.0.0/0}}", &NINE)
        })
    };
    let no_address = || by(peer("", "{ipBlock: {cidr: 0.0.0.0/31}}", &[]));
    let deny_out = || egress("deny-all-egress", from, none());
    let deny_in = |subject| ingress("deny-all-ingress", subject, none());
    let out = |name, rules| egress(name, from, rules);
    let into = |name, rules| ingress(name, from, rules);
    let pairs: Vec<(&str, Vec<Policy>)> = vec![
        (
            "deny all from source, allow all to dest",
            vec![deny_out(), ingress("allow-all-ingress", to, all())],
        ),
        (
            "allow all from source, deny all to dest",
            vec![out("allow-all-egress", all()), deny_in(to)],
        ),
        (
            "deny all + allow all from same source",
            vec![deny_out(), out("allow-all-egress", all())],
        ),
        (
            "deny all + allow all to same dest",
            vec![deny_in(to), ingress("allow-all-ingress", to, all())],
        ),
        (
            "deny all + allow all by pod from same source",
            vec![deny_out(), out("allow-all-egress-by-pod", every_pod())],
        ),
        (
            "deny all + allow all by IP from same source",
            vec![deny_out(), out("allow-all-egress-by-ip", every_address())],
        ),
        (
            "deny all by IP + allow all by pod from same source",
            vec![
                out("deny-all-egress-by-ip", no_address()),
                out("allow-all-egress-by-pod", every_pod()),
            ],
        ),
        (
            "deny all by pod + allow all by IP from same source",
            vec![
                out("deny-all-egress-by-pod", no_pod()),
                out("allow-all-egress-by-ip", every_address()),
            ],
        ),
        (
            "deny all + allow all by pod to same source",
            vec![deny_in(from), into("allow-all-ingress-by-pod", every_pod())],
        ),
        (
            "deny all + allow all by IP to same source",
            vec![
                deny_in(from),
                into("allow-all-ingress-by-ip", every_address()),
            ],
        ),
        (
            "deny all by IP + allow all by pod to same source",
            vec![
                into("deny-all-ingress-by-ip", no_address()),
                into("allow-all-ingress-by-pod", every_pod()),
            ],
        ),
        (
            "deny all by pod + allow all by IP to same source",
            vec![
                into("deny-all-ingress-by-pod", no_pod()),
                into("allow-all-ingress-by-ip", every_address()),
            ],
        ),
        (
            "egress: deny all by IP",
            vec![out("deny-all-egress-by-ip", no_address())],
        ),
        (
            "egress: deny all by pod",
            vec![out("deny-all-egress-by-pod", no_pod())],
        ),
        (
            "ingress: deny all by IP",
            vec![into("deny-all-ingress-by-ip", no_address())],
        ),
        (
            "ingress: deny all by pod",
            vec![into("deny-all-ingress-by-pod", no_pod())],
        ),
    ];
    let allow_dns = egress("allow-dns", from, vec![dns()]);
    pairs
        .into_iter()
        .map(|(about, mut policies)| {
            if policies.iter().any(|policy| policy.egress.is_some()) {
                policies.push(allow_dns.clone());
            }
            let policies: Vec<&Policy> = policies.iter().collect();
            single(slug(about), about.to_owned(), &policies)
        })
        .collect()
}
