//! The API server's words, each with its field path
//! (`pkg/apis/networking/validation/validation.go`), and kubectl's for what is no manifest.

use control::cluster::{Cluster, Reason, Seeded};
use control::objects::{Object, decode_documents};
use serde_json::{Value, json};

use super::scene::refusal_text;

const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start \
    and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used \
    for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric \
    characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. \
    'MyValue',  or 'my_value',  or '12345', regex used for validation is \
    '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
    characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
    'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const NOT_A_CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

fn policy(name: &str, spec: &Value) -> Object {
    Object::new(
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "default"}, "spec": spec}),
    )
    .unwrap()
}

/// The whole refusal of a new policy.
fn refusal(object: Object) -> String {
    let mut source = Seeded::new(7);
    let cluster = Cluster::new(&mut source);
    let refusal = cluster.begin(&mut source).create(object).unwrap_err();
    assert_eq!(refusal.reason, Reason::Invalid);
    refusal.message
}

/// That a policy with this spec is refused with exactly these complaints.
fn refused(spec: &Value, complaints: &[&str]) {
    let expected = refusal_text("The NetworkPolicy \"x\" is invalid: ", complaints);
    assert_eq!(refusal(policy("x", spec)), expected, "{spec}");
}

/// That a policy with this spec is taken, with exactly these warnings.
fn taken(spec: &Value, warnings: &[&str]) {
    let mut source = Seeded::new(7);
    let cluster = Cluster::new(&mut source);
    let mut transaction = cluster.begin(&mut source);
    if let Err(refusal) = transaction.create(policy("x", spec)) {
        panic!("{refusal} {spec}");
    }
    assert_eq!(transaction.commit().warnings, warnings, "{spec}");
}

fn ingress_port(port: Value) -> Value {
    json!({"ingress": [{"ports": [port]}]})
}

fn block(block: Value) -> Value {
    json!({"egress": [{}, {"to": [{"ipBlock": block}]}]})
}

#[test]
fn protocol() {
    for name in ["X", "tcp", "ICMP", ""] {
        refused(
            &ingress_port(json!({"protocol": name})),
            &[&format!(
                "spec.ingress[0].ports[0].protocol: Unsupported value: {name:?}: supported values: \
                 \"TCP\", \"UDP\", \"SCTP\""
            )],
        );
    }
    for name in ["TCP", "UDP", "SCTP"] {
        taken(&ingress_port(json!({"protocol": name})), &[]);
    }
}

#[test]
fn port_out_of_range() {
    for port in [0, -1, 65536, i32::MAX] {
        refused(
            &json!({"egress": [{}, {"ports": [{"port": 1}, {"port": port}]}]}),
            &[&format!(
                "spec.egress[1].ports[1].port: Invalid value: {port}: must be between 1 and 65535, \
                 inclusive"
            )],
        );
    }
    taken(
        &json!({"ingress": [{"ports": [{"port": 1}, {"port": 65535}]}]}),
        &[],
    );
}

#[test]
fn end_port_out_of_range() {
    refused(
        &ingress_port(json!({"port": 80, "endPort": 65536})),
        &[
            "spec.ingress[0].ports[0].endPort: Invalid value: 65536: must be between 1 and 65535, \
           inclusive",
        ],
    );
    taken(&ingress_port(json!({"port": 80, "endPort": 65535})), &[]);
}

#[test]
fn end_port_below_port() {
    let path = "spec.ingress[0].ports[0].endPort: Invalid value";
    let below = "must be greater than or equal to `port`";
    refused(
        &ingress_port(json!({"port": 80, "endPort": 79})),
        &[&format!("{path}: 79: {below}")],
    );
    // Several complaints about one field.
    refused(
        &ingress_port(json!({"port": 80, "endPort": 0})),
        &[
            &format!("{path}: 0: {below}"),
            &format!("{path}: 0: must be between 1 and 65535, inclusive"),
        ],
    );
    taken(&ingress_port(json!({"port": 80, "endPort": 80})), &[]);
}

#[test]
fn port_name() {
    let length = "must be no more than 15 characters";
    let letters = "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)";
    let a_letter = "must contain at least one letter (a-z)";
    let hyphens = "must not contain consecutive hyphens";
    let ends = "must not begin or end with a hyphen";
    for (name, complaints) in [
        ("abcdefghijklmnop", vec![length]),
        ("Web", vec![letters]),
        ("a_b", vec![letters]),
        ("80", vec![a_letter]),
        ("a--b", vec![hyphens]),
        ("-a", vec![ends]),
        ("a-", vec![ends]),
        ("", vec![letters, a_letter]),
        ("-1--2-3-4-5-6-7-", vec![length, a_letter, hyphens, ends]),
    ] {
        let path = "spec.ingress[0].ports[0].port: Invalid value";
        let lines: Vec<_> = complaints
            .iter()
            .map(|c| format!("{path}: {name:?}: {c}"))
            .collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        refused(&ingress_port(json!({"port": name})), &lines);
    }
    for name in ["abcdefghijklmno", "a", "8a", "a-1"] {
        taken(&ingress_port(json!({"port": name})), &[]);
    }
}

#[test]
fn ip_block_beside_a_selector() {
    for selector in ["podSelector", "namespaceSelector"] {
        refused(
            &json!({"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}, selector: {}}]}]}),
            &["spec.egress[0].to[0]: Forbidden: may not specify both ipBlock and another peer"],
        );
    }
    taken(
        &json!({"ingress": [{"from": [{"podSelector": {}, "namespaceSelector": {}}]}]}),
        &[],
    );
}

#[test]
fn except_is_a_strict_subset() {
    let strict = "must be a strict subset of `cidr`";
    let path = "spec.egress[1].to[0].ipBlock.except";
    for (cidr, except) in [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.0.0.0/8", "10.0.0.0/7"),
        ("10.0.0.0/8", "11.0.0.0/9"),
        ("10.0.0.0/8", "2001:db8::/32"),
        ("::/0", "10.0.0.0/8"),
        ("2001:db8::/32", "2001:db8::/32"),
    ] {
        refused(
            &block(json!({"cidr": cidr, "except": [except]})),
            &[&format!("{path}[0]: Invalid value: {except:?}: {strict}")],
        );
    }
    taken(
        &block(json!({"cidr": "10.0.0.0/8", "except": ["10.0.0.0/9", "10.1.2.3/32"]})),
        &[],
    );
    // One that cannot be read does not hide those behind it.
    refused(
        &block(json!({"cidr": "10.0.0.0/8", "except": ["a", "11.0.0.0/9"]})),
        &[
            &format!("{path}[0]: Invalid value: \"a\": {NOT_A_CIDR}"),
            &format!("{path}[1]: Invalid value: \"11.0.0.0/9\": {strict}"),
        ],
    );
}

/// A cluster refuses these only behind a feature gate (StrictIPCIDRValidation), and warns.
#[test]
fn non_standard_cidrs_are_warned_of() {
    let path = "spec.egress[1].to[0].ipBlock.cidr";
    let future = "will be considered invalid in a future Kubernetes release: use";
    taken(
        &block(json!({"cidr": "10.1.2.3/8"})),
        &[&format!(
            "{path}: CIDR value \"10.1.2.3/8\" is ambiguous in this context (should be \
             \"10.0.0.0/8\" or \"10.1.2.3/32\"?)"
        )],
    );
    taken(
        &block(json!({"cidr": "2001:db8::1/32"})),
        &[&format!(
            "{path}: CIDR value \"2001:db8::1/32\" is ambiguous in this context (should be \
             \"2001:db8::/32\" or \"2001:db8::1/128\"?)"
        )],
    );
    for (text, canonical) in [
        ("010.0.0.0/8", "10.0.0.0/8"),
        ("10.0.0.0/08", "10.0.0.0/8"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
    ] {
        taken(
            &block(json!({"cidr": text})),
            &[&format!(
                "{path}: non-standard CIDR value {text:?} {future} {canonical:?}"
            )],
        );
    }
    taken(
        &block(json!({"cidr": "::ffff:10.1.2.3/104"})),
        &[
            &format!(
                "{path}: CIDR value \"::ffff:10.1.2.3/104\" is ambiguous in this context (should be \
                 \"10.0.0.0/8\" or \"10.1.2.3/128\"?)"
            ),
            &format!(
                "{path}: non-standard CIDR value \"::ffff:10.1.2.3/104\" {future} \"10.0.0.0/8\""
            ),
        ],
    );
    taken(
        &block(json!({"cidr": "2001:DB8:0::/32"})),
        &[&format!(
            "{path}: IPv6 CIDR value \"2001:DB8:0::/32\" should be in RFC 5952 canonical format \
             (\"2001:db8::/32\")"
        )],
    );
    taken(
        &block(json!({"cidr": "10.0.0.0/8", "except": ["10.1.2.3/16"]})),
        &[
            "spec.egress[1].to[0].ipBlock.except[0]: CIDR value \"10.1.2.3/16\" is ambiguous in this \
           context (should be \"10.1.0.0/16\" or \"10.1.2.3/32\"?)",
        ],
    );
}

#[test]
fn label_keys_and_values() {
    let long = "k".repeat(64);
    let selector = |s: Value| json!({"podSelector": s});
    let labels = "spec.podSelector.matchLabels: Invalid value";
    for (key, complaint) in [
        ("-a", format!("name part {QUALIFIED}")),
        ("a b", format!("name part {QUALIFIED}")),
        (
            long.as_str(),
            "name part must be no more than 63 characters".to_owned(),
        ),
        ("/a", "prefix part must be non-empty".to_owned()),
        ("A/a", format!("prefix part {SUBDOMAIN}")),
        (
            "a/b/c",
            format!(
                "a qualified name {QUALIFIED} with an optional DNS subdomain prefix and '/' (e.g. \
                 'example.com/MyName')"
            ),
        ),
    ] {
        refused(
            &selector(json!({"matchLabels": {key: "v"}})),
            &[&format!("{labels}: {key:?}: {complaint}")],
        );
        refused(
            &selector(json!({"matchExpressions": [{"key": key, "operator": "Exists"}]})),
            &[&format!(
                "spec.podSelector.matchExpressions[0].key: Invalid value: {key:?}: {complaint}"
            )],
        );
    }
    for (value, complaint) in [
        ("-a", LABEL_VALUE),
        ("a b", LABEL_VALUE),
        (long.as_str(), "must be no more than 63 characters"),
    ] {
        refused(
            &selector(json!({"matchLabels": {"k": value}})),
            &[&format!("{labels}: {value:?}: {complaint}")],
        );
        refused(
            &selector(
                json!({"matchExpressions": [{"key": "k", "operator": "In", "values": ["", value]}]}),
            ),
            &[&format!(
                "spec.podSelector.matchExpressions[0].values[1]: Invalid value: {value:?}: \
                 {complaint}"
            )],
        );
    }
    let fits = "v".repeat(63);
    taken(
        &selector(json!({"matchLabels": {"example.com/My_name.1": fits, "k": ""}})),
        &[],
    );
}

#[test]
fn name() {
    let long = "n".repeat(254);
    for (name, complaint) in [
        ("Deny", SUBDOMAIN),
        ("deny_all", SUBDOMAIN),
        ("-deny", SUBDOMAIN),
        ("deny..all", SUBDOMAIN),
        (long.as_str(), "must be no more than 253 characters"),
    ] {
        let expected = format!(
            "The NetworkPolicy {name:?} is invalid: metadata.name: Invalid value: {name:?}: \
             {complaint}"
        );
        assert_eq!(refusal(policy(name, &json!({}))), expected);
    }
    for name in ["deny.all", "0", &"n".repeat(253)] {
        let mut source = Seeded::new(7);
        let cluster = Cluster::new(&mut source);
        cluster
            .begin(&mut source)
            .create(policy(name, &json!({})))
            .unwrap();
    }
}

#[test]
fn complaints_add_up_over_the_whole_policy() {
    refused(
        &json!({
            "podSelector": {"matchLabels": {"k": "-"}},
            "ingress": [{"from": [{}], "ports": [{"port": 0, "protocol": "X"}]}],
            "egress": [{"to": [{"ipBlock": {"cidr": "a"}}]}],
            "policyTypes": ["x", "y"]
        }),
        &[
            &format!("spec.podSelector.matchLabels: Invalid value: \"-\": {LABEL_VALUE}"),
            "spec.ingress[0].ports[0].protocol: Unsupported value: \"X\": supported values: \
             \"TCP\", \"UDP\", \"SCTP\"",
            "spec.ingress[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "spec.ingress[0].from[0]: Required value: must specify a peer",
            &format!("spec.egress[0].to[0].ipBlock.cidr: Invalid value: \"a\": {NOT_A_CIDR}"),
            "spec.policyTypes[0]: Unsupported value: \"x\": supported values: \"Ingress\", \
             \"Egress\"",
            "spec.policyTypes[1]: Unsupported value: \"y\": supported values: \"Ingress\", \
             \"Egress\"",
        ],
    );
}

/// A tutorial's policy whose indentation was lost: the list goes on inside a mapping.
const WITHOUT_INDENTATION: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
namespace: ui
name: allow-ui-egress
spec:
podSelector:
matchLabels:
app.kubernetes.io/name: ui
policyTypes:
- Egress
egress:
- to:
- namespaceSelector:
matchLabels:
podSelector:
matchLabels:
app.kubernetes.io/component: service
- namespaceSelector:
matchLabels:
kubernetes.io/metadata.name: kube-system
";

#[test]
fn a_manifest_without_indentation_is_no_manifest() {
    let error = decode_documents(WITHOUT_INDENTATION, "allow-ui-egress.yaml").unwrap_err();
    assert_eq!(
        error.to_string(),
        "error parsing allow-ui-egress.yaml: error converting YAML to JSON: yaml: line 18: did not \
         find expected key"
    );
    // Up to there it is YAML, and all its fields stand beside each other.
    let part: String = WITHOUT_INDENTATION
        .lines()
        .take(14)
        .map(|l| format!("{l}\n"))
        .collect();
    let object = decode_documents(&part, "t.yaml");
    assert_eq!(
        object.unwrap_err().to_string(),
        "NetworkPolicy in version \"v1\" cannot be handled as a NetworkPolicy: strict decoding \
         error: unknown field \"namespace\", unknown field \"name\", unknown field \
         \"podSelector\", unknown field \"matchLabels\", unknown field \
         \"app.kubernetes.io/name\", unknown field \"policyTypes\", unknown field \"egress\""
    );
}
