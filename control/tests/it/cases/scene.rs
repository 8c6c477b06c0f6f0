//! Pods and policies to judge, and the little language in which expectations are written:
//!
//! ```text
//! x/a y/* -> x/b 192.0.2.1 TCP/80 UDP/53 ICMP: deny ingress
//! ```
//!
//! Senders, receivers and traffic are multiplied out. An end is a pod (`*` stands for every name;
//! its first address counts) or an address. The verdict is `allow`, `deny egress` (of the sender),
//! `deny ingress` (of the receiver) or `deny both`.

use std::net::IpAddr;

use control::cluster::Cluster;
use control::lower::{LocalEndpoint, Policies};
use control::objects::{Object, decode_documents, kinds};
use control::offline::Offline;
use control::protocol::TraceParams;
use control::service::{Node, Services};
use control::specification::{Traffic, World};
use control::trace::View;
use dataplane::{Address, Direction, Protocol};
use serde_json::{Value, json};

/// Namespaces and pods of the standard scene. Every pod listens on `web` (80/TCP, on y/b 8080),
/// `dns` (53/UDP) and `sig` (36412/SCTP) and is labelled `pod: NAME`.
const NAMESPACES: [(&str, &str); 3] = [("x", "team: red"), ("y", "team: blue"), ("z", "")];
const PODS: [(&str, &str, u8, u16); 6] = [
    ("x", "a", 11, 80),
    ("x", "b", 12, 80),
    ("x", "c", 13, 80),
    ("y", "a", 21, 80),
    ("y", "b", 22, 8080),
    ("z", "a", 31, 80),
];

/// Objects in the order in which they are applied.
pub(crate) struct Scene {
    objects: Vec<Object>,
    traced: bool,
}

impl Scene {
    /// The standard scene, without policies.
    pub(crate) fn new() -> Scene {
        let mut scene = Scene {
            objects: Vec::new(),
            traced: true,
        };
        for (name, labels) in NAMESPACES {
            scene.add(&format!(
                "{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: \
                 {{{labels}}}}}}}"
            ));
        }
        for (namespace, name, host, web) in PODS {
            scene.pod(
                &format!("{namespace}/{name}"),
                &format!("pod: {name}"),
                &[&format!("10.0.0.{host}"), &format!("fd00::{host}")],
                &format!(
                    "containers: [{{name: c, image: i, ports: [{{name: web, containerPort: {web}}}, \
                     {{name: dns, containerPort: 53, protocol: UDP}}, \
                     {{name: sig, containerPort: 36412, protocol: SCTP}}]}}]"
                ),
                "Running",
            );
        }
        scene
    }

    /// Leaves `trace` out: it looks at every rule, and compares each with all before it.
    pub(crate) fn without_trace(&mut self) -> &mut Scene {
        self.traced = false;
        self
    }

    /// Adds objects; one of the same name takes the place of the one before.
    pub(crate) fn add(&mut self, text: &str) -> &mut Scene {
        for object in decode_documents(text, "case.yaml").unwrap() {
            self.objects.retain(|other| other.key() != object.key());
            self.objects.push(object);
        }
        self
    }

    /// Adds a pod.
    pub(crate) fn pod(
        &mut self,
        name: &str,
        labels: &str,
        addresses: &[&str],
        spec: &str,
        phase: &str,
    ) -> &mut Scene {
        let (namespace, name) = name.split_once('/').unwrap();
        let ips: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        let status = json!({"phase": phase, "podIPs": ips, "podIP": addresses.first()});
        self.add(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: \
             {{{labels}}}}}\nspec: {{{spec}}}\nstatus: {status}\n"
        ))
    }

    /// Adds a NetworkPolicy, `NAMESPACE/NAME`.
    pub(crate) fn policy(&mut self, name: &str, spec: &str) -> &mut Scene {
        let (namespace, name) = name.split_once('/').unwrap();
        self.add(&format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
             metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
        ))
    }

    /// Takes the object away again.
    pub(crate) fn remove(&mut self, kind: &str, name: &str) -> &mut Scene {
        let (namespace, name) = name.split_once('/').unwrap();
        let before = self.objects.len();
        self.objects.retain(|object| {
            (object.kind().kind, object.namespace(), object.name()) != (kind, namespace, name)
        });
        assert_eq!(self.objects.len() + 1, before, "{kind} {namespace}/{name}");
        self
    }

    /// What must happen to objects that neither defaults nor validation have seen.
    pub(crate) fn holds_as_written(&self, expectations: &str) {
        let mut cluster = Cluster::empty();
        for object in &self.objects {
            let mut value = object.to_value();
            let place = (object.kind().kind, object.namespace(), object.name());
            value["metadata"]["uid"] = Value::from(format!("{place:?}"));
            if object.kind().kind == "Namespace" {
                let name = value["metadata"]["name"].clone();
                value["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
            }
            cluster.restore(value).unwrap();
        }
        let policies = Policies::from_scratch(&cluster, locals(&cluster)).unwrap();
        let placed = policies.endpoints();
        let placed = placed.map(|(local, slot)| (local.clone(), slot));
        let (locals, slots): (Vec<LocalEndpoint>, Vec<_>) = placed.unzip();
        let table = policies.table();
        let services = Services::new(&cluster, Node::default()).unwrap();
        let view = View {
            cluster: &cluster,
            locals: &locals,
            slots: &slots,
            table: &table,
            ids: policies.ids(),
            services: &services,
            generation: 0,
        };
        judge(view, expectations, self.traced);
    }

    /// That the store refuses, with this first line and these complaints.
    pub(crate) fn refused(&self, head: &str, complaints: &[&str]) {
        let refusal = Offline::new(self.objects.clone()).unwrap_err();
        assert_eq!(refusal.message, refusal_text(head, complaints));
    }
}

/// As kubectl prints complaints: one behind the first line, several below it.
pub(crate) fn refusal_text(head: &str, complaints: &[&str]) -> String {
    match complaints {
        [only] => format!("{head}{only}"),
        several => several
            .iter()
            .fold(head.to_owned(), |text, line| format!("{text}\n* {line}")),
    }
}

/// The pods with an interface: all on their own network that have not ended.
fn locals(cluster: &Cluster) -> Vec<LocalEndpoint> {
    let of = |object: &Object| {
        let value = object.value();
        let ended = ["Succeeded", "Failed"].map(Value::from);
        if value["kind"] != "Pod"
            || value["spec"]["hostNetwork"] == true
            || ended.contains(&value["status"]["phase"])
        {
            return None;
        }
        let ips = value["status"]["podIPs"].as_array()?.iter();
        Some(LocalEndpoint {
            namespace: object.namespace().to_owned(),
            name: object.name().to_owned(),
            uid: object.uid().to_owned(),
            addresses: ips
                .map(|ip| ip["ip"].as_str().unwrap().parse().unwrap())
                .collect(),
        })
    };
    cluster.objects().filter_map(|object| of(object)).collect()
}

/// One end of a connection.
#[derive(Clone)]
struct End {
    text: String,
    address: IpAddr,
    /// Index of the pod's endpoint, if it has one.
    local: Option<usize>,
}

/// What an evaluator says of both directions.
fn verdict(egress: bool, ingress: bool) -> String {
    let text = match (egress, ingress) {
        (true, true) => "allow",
        (false, true) => "deny egress",
        (true, false) => "deny ingress",
        (false, false) => "deny both",
    };
    text.to_owned()
}

fn judge(view: View<'_>, expectations: &str, traced: bool) {
    let local = view.locals.iter();
    let local = local.map(|l| (l.uid.as_str(), l.addresses.as_slice()));
    let world = World::new(view.cluster, local);
    let mut wrong = Vec::new();
    let mut judged = 0;
    let lines = expectations.lines().map(str::trim);
    for line in lines.filter(|line| !line.is_empty()) {
        let (question, expected) = line.rsplit_once(": ").expect(line);
        let verdicts = ["allow", "deny egress", "deny ingress", "deny both"];
        assert!(verdicts.contains(&expected), "{line}");
        // A trace ends with the first denial.
        let traced_to = expected.replace("both", "egress");
        for (from, to, traffic) in questions(view, question) {
            judged += 1;
            let mut answers = vec![
                ("engine", by_engine(view, &from, &to, &traffic), expected),
                (
                    "specification",
                    by_specification(view, &world, &from, &to, &traffic),
                    expected,
                ),
            ];
            if traced {
                answers.push(("trace", by_trace(view, &from, &to, &traffic), &traced_to));
            }
            for (evaluator, found, expected) in answers {
                if found != expected {
                    wrong.push(format!(
                        "{} -> {} {traffic}: {evaluator} says {found}, expected {expected}",
                        from.text, to.text
                    ));
                }
            }
        }
    }
    assert!(judged > 0, "nothing is expected");
    let kind = kinds::find("networking.k8s.io/v1", "NetworkPolicy").unwrap();
    let policies = view.cluster.list(kind).map(|p| p.value().to_string());
    let policies = policies.collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "{}\n{policies:.4000}", wrong.join("\n"));
}

/// `TCP/80`, `ICMP`.
fn traffic(text: &str, v4: bool) -> (Protocol, Option<u16>) {
    let Some((protocol, port)) = text.split_once('/') else {
        assert_eq!(text, "ICMP");
        return (if v4 { Protocol::ICMP } else { Protocol::ICMPV6 }, None);
    };
    let protocol = match protocol {
        "TCP" => Protocol::TCP,
        "UDP" => Protocol::UDP,
        "SCTP" => Protocol::SCTP,
        other => panic!("{other}"),
    };
    (protocol, Some(port.parse().unwrap()))
}

/// Every question that the left side of an expectation asks. A pod is not asked about itself when
/// that comes of a `*`.
fn questions(view: View<'_>, text: &str) -> Vec<(End, End, String)> {
    let (senders, rest) = text.split_once(" -> ").expect(text);
    let is_traffic = |word: &&str| word.starts_with(|c: char| c.is_ascii_uppercase());
    let words = rest.split_whitespace();
    let (kinds, receivers): (Vec<&str>, Vec<&str>) = words.partition(is_traffic);
    let mut found = Vec::new();
    for from_word in senders.split_whitespace() {
        for to_word in &receivers {
            let many = from_word.contains('*') || to_word.contains('*');
            for from in ends(view, from_word) {
                for to in ends(view, to_word) {
                    if many && from.text == to.text {
                        continue;
                    }
                    let asked = kinds
                        .iter()
                        .map(|k| (from.clone(), to.clone(), (*k).to_owned()));
                    found.extend(asked);
                }
            }
        }
    }
    assert!(!found.is_empty(), "{text}: asks nothing");
    found
}

fn ends(view: View<'_>, word: &str) -> Vec<End> {
    if let Ok(address) = word.parse::<IpAddr>() {
        let held = |local: &LocalEndpoint| local.addresses.contains(&address);
        let local = view.locals.iter().position(held);
        return vec![End {
            text: word.to_owned(),
            address,
            local,
        }];
    }
    let (namespace, name) = word.split_once('/').expect(word);
    let fits = |wanted: &str, found: &str| wanted == "*" || wanted == found;
    let locals = view.locals.iter().enumerate();
    let found: Vec<End> = locals
        .filter(|(_, local)| fits(namespace, &local.namespace) && fits(name, &local.name))
        .map(|(at, local)| End {
            text: format!("{}/{}", local.namespace, local.name),
            address: local.addresses[0],
            local: Some(at),
        })
        .collect();
    assert!(!found.is_empty(), "there is no pod {word}");
    found
}

fn by_engine(view: View<'_>, from: &End, to: &End, text: &str) -> String {
    let (protocol, port) = traffic(text, to.address.is_ipv4());
    let accepts = |end: &End, direction, peer: IpAddr| {
        // A pod's own address is not policy's business, nor is an end that is no pod here.
        end.local.is_none_or(|_| from.address == to.address)
            || end.local.is_some_and(|at| {
                let peer = view.table.peer(Address::from(peer));
                let slot = view.slots[at];
                view.table
                    .decide(slot, direction, &peer, protocol, port)
                    .verdict
                    .accept
            })
    };
    verdict(
        accepts(from, Direction::Egress, to.address),
        accepts(to, Direction::Ingress, from.address),
    )
}

fn by_specification(view: View<'_>, world: &World, from: &End, to: &End, text: &str) -> String {
    let (protocol, port) = traffic(text, to.address.is_ipv4());
    let accepts = |end: &End, direction, peer: IpAddr| {
        let Some(at) = end.local.filter(|_| from.address != to.address) else {
            return true;
        };
        let local = &view.locals[at];
        let pod = world.pod(&local.namespace, &local.name).unwrap();
        let traffic = Traffic {
            peer,
            protocol,
            port,
        };
        world.decide(pod, direction, traffic).accept
    };
    verdict(
        accepts(from, Direction::Egress, to.address),
        accepts(to, Direction::Ingress, from.address),
    )
}

fn by_trace(view: View<'_>, from: &End, to: &End, text: &str) -> String {
    let (protocol, port) = text
        .split_once('/')
        .map_or((text, None), |(a, b)| (a, Some(b)));
    let trace = view.trace(&TraceParams {
        from: from.address.to_string(),
        to: to.address.to_string(),
        port: port.map(str::to_owned),
        protocol: Some(protocol.to_owned()),
        namespace: None,
    });
    let trace = trace.unwrap();
    match trace.reason.split(':').next() {
        Some(direction) if trace.verdict == "deny" => format!("deny {direction}"),
        _ => trace.verdict.to_owned(),
    }
}
