//! Policies whose parts say what they mean, the truth tables that follow, and both as YAML.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A port of a protocol.
pub(super) type Port = (&'static str, u16);

/// The ports that are asked for.
pub(super) const PORTS: [Port; 6] = [
    ("TCP", 80),
    ("TCP", 81),
    ("UDP", 80),
    ("UDP", 81),
    ("SCTP", 80),
    ("SCTP", 81),
];

/// A peer of a rule.
#[derive(Clone)]
pub(super) struct Peer {
    pub(super) about: &'static str,
    pub(super) text: &'static str,
    /// The pods that it means.
    pub(super) pods: Vec<&'static str>,
    /// Whether it speaks of IPv4 alone.
    pub(super) v4: bool,
}

/// A port item of a rule.
#[derive(Clone)]
pub(super) struct Ports {
    pub(super) text: &'static str,
    /// Which of [`PORTS`] it means.
    pub(super) opens: Vec<Port>,
}

/// A rule. None is every peer, every port.
#[derive(Clone)]
pub(super) struct Rule {
    pub(super) peers: Option<Vec<Peer>>,
    pub(super) ports: Option<Vec<Ports>>,
}

/// A policy, and the pods that it selects.
#[derive(Clone)]
pub(super) struct Policy {
    pub(super) name: &'static str,
    pub(super) namespace: &'static str,
    pub(super) selector: &'static str,
    pub(super) subjects: Vec<&'static str>,
    pub(super) ingress: Option<Vec<Rule>>,
    pub(super) egress: Option<Vec<Rule>>,
}

/// A state to be asked about, and the change that leads there.
pub(super) struct Step {
    pub(super) name: String,
    /// `apply`, `delete` and `label` as YAML, two spaces in; none if nothing changes.
    pub(super) change: String,
    /// All policies that there are then.
    pub(super) policies: Vec<Policy>,
    /// Pods that there are then beside the nine.
    pub(super) more_pods: Vec<&'static str>,
}

/// A case.
pub(super) struct Case {
    pub(super) name: String,
    /// As cyclonus describes it.
    pub(super) about: String,
    pub(super) steps: Vec<Step>,
}

pub(super) const NINE: [&str; 9] = [
    "x/a", "x/b", "x/c", "y/a", "y/b", "y/c", "z/a", "z/b", "z/c",
];

/// The verdict by the API's words: a pod that no policy isolates in a direction is free in it; else
/// any rule of any policy that isolates it must hold both the peer and the port.
pub(super) fn allowed(policies: &[Policy], from: &str, to: &str, port: Port) -> bool {
    let passes = |subject: &str, peer: &str, rules: fn(&Policy) -> &Option<Vec<Rule>>| {
        let isolating = policies.iter().filter(|p| p.subjects.contains(&subject));
        let mut isolating = isolating.filter_map(|p| rules(p).as_ref()).peekable();
        isolating.peek().is_none()
            || isolating.flatten().any(|rule| {
                let peers = rule.peers.as_ref();
                let ports = rule.ports.as_ref();
                peers.is_none_or(|all| all.iter().any(|p| p.pods.contains(&peer)))
                    && ports.is_none_or(|all| all.iter().any(|p| p.opens.contains(&port)))
            })
    };
    passes(from, to, |policy| &policy.egress) && passes(to, from, |policy| &policy.ingress)
}

impl Policy {
    /// As an item of a list, two spaces in.
    pub(super) fn yaml(&self) -> String {
        let mut types = Vec::new();
        let mut lists = String::new();
        let directions = [
            ("Ingress", "ingress", "from", &self.ingress),
            ("Egress", "egress", "to", &self.egress),
        ];
        for (kind, key, peers, rules) in directions {
            let Some(rules) = rules else { continue };
            types.push(kind);
            if rules.is_empty() {
                writeln!(lists, "      {key}: []").unwrap();
                continue;
            }
            writeln!(lists, "      {key}:").unwrap();
            for rule in rules {
                writeln!(lists, "      - {}", rule.yaml(peers)).unwrap();
            }
        }
        format!(
            "  - apiVersion: networking.k8s.io/v1\n    kind: NetworkPolicy\n    metadata: {{name: {}, \
             namespace: {}}}\n    spec:\n      podSelector: {}\n      policyTypes: [{}]\n{lists}",
            self.name,
            self.namespace,
            self.selector,
            types.join(", ")
        )
    }
}

impl Rule {
    fn yaml(&self, key: &str) -> String {
        let peers = self.peers.as_ref().map(|peers| {
            let texts: Vec<&str> = peers.iter().map(|peer| peer.text).collect();
            format!("{key}: [{}]", texts.join(", "))
        });
        let ports = self.ports.as_ref().map(|ports| {
            let texts: Vec<&str> = ports.iter().map(|port| port.text).collect();
            format!("ports: [{}]", texts.join(", "))
        });
        let parts: Vec<String> = peers.into_iter().chain(ports).collect();
        format!("{{{}}}", parts.join(", "))
    }
}

impl Step {
    fn pods(&self) -> Vec<&'static str> {
        NINE.iter().chain(&self.more_pods).copied().collect()
    }

    /// Whether a rule speaks of IPv4 alone, so that the table is one of IPv4.
    fn v4(&self) -> bool {
        let rules = |policy: &Policy| {
            let both = [policy.ingress.clone(), policy.egress.clone()];
            both.into_iter().flatten().flatten().collect::<Vec<_>>()
        };
        let mut rules = self.policies.iter().flat_map(rules);
        rules.any(|rule| rule.peers.iter().flatten().any(|peer| peer.v4))
    }

    /// Everything passes, but for what follows.
    fn lines(&self) -> String {
        let pods = self.pods();
        let family = if self.v4() { "family: IPv4, " } else { "" };
        let mut lines = String::new();
        for protocol in ["TCP", "UDP", "SCTP"] {
            writeln!(
                lines,
                "  - {{from: \"*\", to: \"*\", port: [80, 81], protocol: {protocol}, {family}allow: true}}"
            )
            .unwrap();
        }
        for ((_, senders, receivers), (protocol, ports)) in self.denials(&pods) {
            writeln!(
                lines,
                "  - {{from: {}, to: {}, port: {}, protocol: {protocol}, {family}allow: false}}",
                list(&senders),
                list(&receivers),
                list(&ports)
            )
            .unwrap();
        }
        lines
    }

    /// What is denied: by protocol, senders and receivers, its ports. Receivers that the same senders
    /// cannot reach stand together.
    fn denials(&self, pods: &[&'static str]) -> Denials {
        let mut denials = Denials::new();
        for port in PORTS {
            let mut receivers: BTreeMap<Vec<&str>, Vec<String>> = BTreeMap::new();
            for &to in pods {
                let others = || pods.iter().copied().filter(|from| *from != to);
                let refused: Vec<&str> = others()
                    .filter(|from| !allowed(&self.policies, from, to, port))
                    .collect();
                let senders = match refused.len() {
                    0 => continue,
                    all if all == others().count() => vec!["*"],
                    _ => refused,
                };
                receivers.entry(senders).or_default().push(to.to_owned());
            }
            let place = PORTS.iter().position(|(protocol, _)| *protocol == port.0);
            for (senders, receivers) in receivers {
                let senders = senders.into_iter().map(str::to_owned).collect();
                let row = denials.entry((place, senders, receivers));
                row.or_insert((port.0, Vec::new()))
                    .1
                    .push(port.1.to_string());
            }
        }
        denials
    }
}

/// Place of the protocol, senders, receivers; and the protocol with its ports.
type Denials = BTreeMap<(Option<usize>, Vec<String>, Vec<String>), (&'static str, Vec<String>)>;

/// One word, or a list of them.
fn list(words: &[String]) -> String {
    match words {
        [only] if only == "*" => "\"*\"".to_owned(),
        [only] => only.clone(),
        several => format!("[{}]", several.join(", ")),
    }
}

/// A whole file.
pub(super) fn file(name: &str, cases: &[Case]) -> String {
    let mut text = format!(
        "# cyclonus' cases ({}), made by control/tests/it/cases/cyclonus: change them there.\n",
        name.replace('-', " ")
    );
    for (index, case) in cases.iter().enumerate() {
        if index > 0 {
            text += "---\n";
        }
        write!(
            text,
            "apiVersion: weir.dev/v1alpha1\nkind: PolicyTest\nmetadata: {{name: {}}}\ndescription: \
             {:?}\nfiles: [../../cast/nine-pods.yaml]\nsteps:\n",
            case.name, case.about
        )
        .unwrap();
        for step in &case.steps {
            writeln!(text, "- name: {}", step.name).unwrap();
            text += &step.change;
            text += "  expect:\n";
            text += &step.lines();
        }
    }
    text
}
