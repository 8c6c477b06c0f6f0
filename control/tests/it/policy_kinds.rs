//! The kinds of policy beyond NetworkPolicy: what is refused and in which words, what is taken and
//! with which warnings, how they are named.

use control::cluster::{Cluster, DeleteOptions, Reason, Seeded};
use control::objects::{
    DecodeError, DecodeOptions, Decoded, FieldValidation, Key, Object, decode_value, kinds,
};
use control::offline::Offline;
use control::protocol::TraceParams;
use serde_json::{Value, json};

const UNCHECKED: &str = "<nil>: Invalid value: null: some validation rules were not checked \
    because the object was invalid; correct the existing errors to complete validation";
const FEW_MEMBERS: &str = "in body should have at least 1 properties";

fn object(kind: &str, name: &str, spec: Value) -> Value {
    let kind = kinds::find_resource(kind).unwrap();
    let mut value = json!({"apiVersion": kind.api_version, "kind": kind.kind,
        "metadata": {"name": name}, "spec": spec});
    if kind.namespaced {
        value["metadata"]["namespace"] = json!("default");
    }
    value
}

/// A ClusterNetworkPolicy's spec with `more` put into it.
fn cnp(more: Value) -> Value {
    let mut spec = json!({"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    spec
}

fn egress(rule: Value) -> Value {
    cnp(json!({"egress": [rule]}))
}

/// What the store says to a new object: its complaints without the first words, or warnings.
fn store(value: Value) -> Result<Vec<String>, Vec<String>> {
    let mut source = Seeded::new(7);
    let cluster = Cluster::new(&mut source);
    let mut transaction = cluster.begin(&mut source);
    let head = format!(
        "The {} {:?} is invalid: ",
        value["kind"].as_str().unwrap(),
        value["metadata"]["name"].as_str().unwrap()
    );
    match transaction.create(Object::new(value).unwrap()) {
        Ok(_) => Ok(transaction.commit().warnings),
        Err(refusal) => {
            assert_eq!(refusal.reason, Reason::Invalid);
            let complaints = refusal.message.strip_prefix(&head).unwrap();
            let complaints = complaints.trim_start_matches("\n* ").split("\n* ");
            Err(complaints.map(str::to_owned).collect())
        }
    }
}

fn refused(kind: &str, spec: Value, complaints: &[&str]) {
    let found = store(object(kind, "x", spec.clone()));
    let found = found.expect_err(&spec.to_string());
    assert_eq!(found, complaints, "{spec}");
}

fn taken(kind: &str, spec: Value, warnings: &[&str]) {
    let found = store(object(kind, "x", spec.clone()));
    let found = found.unwrap_or_else(|complaints| panic!("{spec}: {complaints:?}"));
    assert_eq!(found, warnings, "{spec}");
}

#[test]
fn kinds_go_by_upstream_s_names() {
    for (names, group) in [
        (
            ["cnp", "clusternetworkpolicies"],
            "policy.networking.k8s.io",
        ),
        (["anp", "adminnetworkpolicy"], "policy.networking.k8s.io"),
        (
            ["banp", "BaselineAdminNetworkPolicy"],
            "policy.networking.k8s.io",
        ),
        (["sgp", "securitygrouppolicies"], "vpcresources.k8s.aws"),
        (["sg", "securitygroups.weir.dev"], "weir.dev"),
    ] {
        let found = names.map(|name| kinds::find_resource(name).unwrap());
        assert_eq!(found[0], found[1]);
        assert_eq!(found[0].group(), group);
    }
}

#[test]
fn others_policies_stay_refused_and_so_do_versions_that_nobody_knows() {
    for (api_version, kind) in [
        ("policy.networking.k8s.io/v1beta1", "ClusterNetworkPolicy"),
        ("policy.networking.k8s.io/v1alpha1", "ClusterNetworkPolicy"),
        ("vpcresources.k8s.aws/v1beta2", "SecurityGroupPolicy"),
        ("networking.k8s.aws/v1alpha1", "ApplicationNetworkPolicy"),
        ("cilium.io/v2", "CiliumNetworkPolicy"),
        ("projectcalico.org/v3", "GlobalNetworkPolicy"),
        ("crd.antrea.io/v1beta1", "ClusterNetworkPolicy"),
        ("security.istio.io/v1", "AuthorizationPolicy"),
    ] {
        let error = Object::new(json!({"apiVersion": api_version, "kind": kind,
            "metadata": {"name": "x"}}));
        let error = error.unwrap_err();
        assert!(
            matches!(error, DecodeError::ForeignPolicy { .. }),
            "{kind}: {error}"
        );
    }
}

#[test]
fn a_policy_lacks_what_it_must_have() {
    refused("cnp", Value::Null, &["spec: Required value", UNCHECKED]);
    refused(
        "cnp",
        json!({"egress": [{}]}),
        &[
            "spec.tier: Required value",
            "spec.priority: Required value",
            "spec.subject: Required value",
            "spec.egress[0].action: Required value",
            "spec.egress[0].to: Required value",
            UNCHECKED,
        ],
    );
}

#[test]
fn tier_priority_and_action_are_bounded() {
    refused(
        "cnp",
        cnp(json!({"tier": "admin", "priority": 1001, "ingress": [
            {"action": "Allow", "from": [{"namespaces": {}}]}]})),
        &[
            "spec.tier: Unsupported value: \"admin\": supported values: \"Admin\", \"Baseline\"",
            "spec.priority: Invalid value: 1001: spec.priority in body should be less than or \
             equal to 1000",
            "spec.ingress[0].action: Unsupported value: \"Allow\": supported values: \"Accept\", \
             \"Deny\", \"Pass\"",
            UNCHECKED,
        ],
    );
    refused(
        "cnp",
        cnp(json!({"priority": -1})),
        &[
            "spec.priority: Invalid value: -1: spec.priority in body should be greater than or \
           equal to 0",
        ],
    );
}

#[test]
fn subjects_and_peers_have_exactly_one_member() {
    let members = "Too many: 2: must have at most 1 item";
    refused(
        "cnp",
        cnp(json!({"subject": {}})),
        &[&format!(
            "spec.subject: Invalid value: 0: spec.subject {FEW_MEMBERS}"
        )],
    );
    refused(
        "cnp",
        cnp(json!({"subject": {"namespaces": {}, "pods": {"podSelector": {}}}})),
        &[&format!("spec.subject: {members}"), UNCHECKED],
    );
    let to = "spec.egress[0].to";
    refused(
        "cnp",
        egress(json!({"action": "Deny", "to": [{}, {"namespaces": {}, "nodes": {}}, null]})),
        &[
            &format!("{to}[0]: Invalid value: 0: {to}[0] {FEW_MEMBERS}"),
            &format!("{to}[1]: {members}"),
            &format!("{to}[2]: Invalid value: 0: {to}[2] {FEW_MEMBERS}"),
            UNCHECKED,
        ],
    );
    refused(
        "cnp",
        cnp(json!({"subject": {"pods": {}}})),
        &["spec.subject.pods.podSelector: Required value", UNCHECKED],
    );
    refused(
        "anp",
        json!({"priority": 1, "subject": {"pods": {"podSelector": {}}}}),
        &[
            "spec.subject.pods.namespaceSelector: Required value",
            UNCHECKED,
        ],
    );
}

#[test]
fn lists_are_bounded() {
    let namespaces = |n: usize| json!(vec![json!({"namespaces": {}}); n]);
    let rules = |n: usize| json!(vec![json!({"action": "Deny", "to": namespaces(1)}); n]);
    taken("cnp", cnp(json!({"egress": rules(25)})), &[]);
    refused(
        "cnp",
        cnp(json!({"egress": rules(26)})),
        &[
            "spec.egress: Too many: 26: must have at most 25 items",
            UNCHECKED,
        ],
    );
    let (to, protocols) = ("spec.egress[0].to", "spec.egress[0].protocols");
    refused(
        "cnp",
        egress(json!({"action": "Deny", "to": [], "protocols": []})),
        &[
            &format!("{to}: Invalid value: 0: {to} in body should have at least 1 items"),
            &format!(
                "{protocols}: Invalid value: 0: {protocols} in body should have at least 1 items"
            ),
        ],
    );
    refused(
        "cnp",
        egress(json!({"action": "Deny", "to": namespaces(26)})),
        &[
            &format!("{to}: Too many: 26: must have at most 25 items"),
            UNCHECKED,
        ],
    );
    let ports = vec![json!({"tcp": {"destinationPort": {"number": 80}}}); 26];
    refused(
        "cnp",
        egress(json!({"action": "Deny", "to": namespaces(1), "protocols": ports})),
        &[
            &format!("{protocols}: Too many: 26: must have at most 25 items"),
            UNCHECKED,
        ],
    );
    let anp = |n| json!({"priority": 1, "subject": {"namespaces": {}}, "egress": rules(n)});
    taken("anp", anp(100), &[]);
    refused(
        "anp",
        anp(101),
        &[
            "spec.egress: Too many: 101: must have at most 100 items",
            UNCHECKED,
        ],
    );
    refused(
        "cnp",
        egress(json!({"name": "ü".repeat(101), "action": "Deny", "to": namespaces(1)})),
        &[
            "spec.egress[0].name: Too long: may not be more than 100 bytes",
            UNCHECKED,
        ],
    );
    let name = "ü".repeat(100);
    taken(
        "cnp",
        egress(json!({"name": name, "action": "Deny", "to": namespaces(1)})),
        &[],
    );
}

#[test]
fn networks_are_cidrs() {
    let rule = |networks: Value| egress(json!({"action": "Deny", "to": [{"networks": networks}]}));
    let path = "spec.egress[0].to[0].networks";
    let wrong = "Invalid value: \"string\": Invalid CIDR format provided";
    taken("cnp", rule(json!(["10.0.0.1/8", "::/0"])), &[]);
    refused(
        "cnp",
        rule(json!([
            "10.0.0.0",
            "010.0.0.0/8",
            "::ffff:10.0.0.0/104",
            "10.0.0.0/33"
        ])),
        &[0, 1, 2, 3]
            .map(|at| format!("{path}[{at}]: {wrong}"))
            .each_ref()
            .map(String::as_str),
    );
    refused(
        "cnp",
        rule(json!(["10.0.0.0/8", "10.0.0.0/8"])),
        &[&format!("{path}[1]: Duplicate value: \"10.0.0.0/8\"")],
    );
    refused(
        "cnp",
        rule(json!([])),
        &[&format!(
            "{path}: Invalid value: 0: {path} in body should have at least 1 items"
        )],
    );
}

#[test]
fn protocols_and_ports_are_bounded() {
    let rule = |protocol: Value| {
        egress(json!({"action": "Deny", "to": [{"namespaces": {}}], "protocols": [protocol]}))
    };
    let path = "spec.egress[0].protocols[0]";
    let few = |place: &str| format!("{place}: Invalid value: 0: {place} {FEW_MEMBERS}");
    refused("cnp", rule(json!({})), &[&few(path)]);
    refused(
        "cnp",
        rule(json!({"tcp": {}})),
        &[&few(&format!("{path}.tcp"))],
    );
    let port = format!("{path}.udp.destinationPort");
    refused(
        "cnp",
        rule(json!({"udp": {"destinationPort": {}}})),
        &[&few(&port)],
    );
    refused(
        "cnp",
        rule(json!({"udp": {"destinationPort": {"number": 0}}})),
        &[&format!(
            "{port}.number: Invalid value: 0: {port}.number in body should be greater than or \
             equal to 1"
        )],
    );
    let range = |range: Value| rule(json!({"udp": {"destinationPort": {"range": range}}}));
    let order =
        format!("{port}.range: Invalid value: \"object\": Start port must be less than End port");
    refused("cnp", range(json!({"start": 80, "end": 80})), &[&order]);
    refused(
        "cnp",
        range(json!({"start": 80, "end": 65536})),
        &[&format!(
            "{port}.range.end: Invalid value: 65536: {port}.range.end in body should be less than \
             or equal to 65535"
        )],
    );
    refused(
        "cnp",
        range(json!({"start": 80})),
        &[&format!("{port}.range.end: Required value"), UNCHECKED],
    );
}

#[test]
fn port_names_do_not_go_with_addresses() {
    let spec = egress(json!({"action": "Accept", "to": [{"networks": ["::/0"]}],
        "protocols": [{"destinationNamedPort": "web"}]}));
    let message = "spec.egress[0]: Invalid value: \"object\": networks/nodes/domainNames peer \
                   cannot be set with namedPorts since there are no namedPorts for \
                   networks/nodes/domainNames";
    refused("cnp", spec, &[message]);
}

#[test]
fn the_baseline_policy_is_called_default() {
    let spec = json!({"subject": {"namespaces": {}}});
    let message = "<nil>: Invalid value: \"object\": Only one baseline admin network policy with \
                   metadata.name=\"default\" can be created in the cluster";
    refused("banp", spec.clone(), &[message]);
    assert_eq!(store(object("banp", "default", spec)), Ok(Vec::new()));
    let pass = json!({"subject": {"namespaces": {}}, "ingress": [
        {"action": "Pass", "from": [{"namespaces": {}}]}]});
    let found = store(object("banp", "default", pass)).unwrap_err();
    assert_eq!(
        found[0],
        "spec.ingress[0].action: Unsupported value: \"Pass\": supported values: \"Allow\", \
         \"Deny\""
    );
}

#[test]
fn the_server_fills_in_tcp() {
    let mut source = Seeded::new(7);
    let cluster = Cluster::new(&mut source);
    let mut transaction = cluster.begin(&mut source);
    let spec = json!({"priority": 1, "subject": {"namespaces": {}}, "ingress": [
        {"action": "Deny", "from": [{"namespaces": {}}], "ports": [
            {"portNumber": {"port": 80}}, {"portRange": {"start": 1, "end": 2}}]}]});
    let object = Object::new(object("anp", "x", spec)).unwrap();
    let stored = transaction.create(object).unwrap().object;
    let ports = &stored.value()["spec"]["ingress"][0]["ports"];
    assert_eq!(ports[0]["portNumber"]["protocol"], "TCP");
    assert_eq!(ports[1]["portRange"]["protocol"], "TCP");
}

#[test]
fn what_nobody_knows_is_let_in_on_request_with_a_warning() {
    let spec = egress(json!({"action": "Deny", "to": [{"services": {}}]}));
    let value = object("cnp", "x", spec.clone());
    let strict = decode_value(
        value.clone(),
        &DecodeOptions::default(),
        &mut Decoded::default(),
    );
    assert!(
        strict
            .unwrap_err()
            .to_string()
            .contains("unknown field \"spec.egress[0].to[0].services\"")
    );
    let options = DecodeOptions {
        fields: FieldValidation::Ignore,
        ..DecodeOptions::default()
    };
    let mut decoded = Decoded::default();
    decode_value(value, &options, &mut decoded).unwrap();
    taken(
        "cnp",
        spec,
        &[
            "spec.egress[0].to[0].services: nothing is known of it: the rule denies all traffic of \
           the subject",
        ],
    );
    taken(
        "cnp",
        egress(json!({"action": "Accept", "to": [{"domainNames": ["*.example.com"]}]})),
        &[
            "spec.egress[0].to[0].domainNames: domain names are not supported: the rule matches \
           nothing",
        ],
    );
}

#[test]
fn domain_names_have_the_definition_s_form() {
    let rule = |name: &str| egress(json!({"action": "Accept", "to": [{"domainNames": [name]}]}));
    for name in ["example.com", "*.example.com.", "a.b", "x_y.z-1.q"] {
        assert!(store(object("cnp", "x", rule(name))).is_ok(), "{name}");
    }
    for name in [
        "com", "*.com", "a..b", "*", "-a.com", "a.*.com", "a-.com", "",
    ] {
        let found = store(object("cnp", "x", rule(name))).unwrap_err();
        assert!(
            found[0].contains("in body should match '^"),
            "{name}: {found:?}"
        );
    }
}

#[test]
fn equal_priorities_are_warned_of() {
    let mut source = Seeded::new(7);
    let cluster = Cluster::new(&mut source);
    let mut transaction = cluster.begin(&mut source);
    for (kind, name, priority) in [("cnp", "a", 5), ("cnp", "b", 6), ("anp", "c", 5)] {
        let mut spec = json!({"priority": priority, "subject": {"namespaces": {}}});
        if kind == "cnp" {
            spec["tier"] = json!("Admin");
        }
        let object = Object::new(object(kind, name, spec)).unwrap();
        transaction.create(object).unwrap();
    }
    let warnings = transaction.commit().warnings;
    assert_eq!(warnings.len(), 1);
    let expected = "spec.priority: clusternetworkpolicy.policy.networking.k8s.io/a has priority 5";
    assert!(warnings[0].starts_with(expected), "{warnings:?}");
}

#[test]
fn a_security_group_s_rules_are_checked() {
    let group = |rule: Value| json!({"ingress": [rule], "egress": []});
    let any = "0.0.0.0/0";
    for rule in [
        json!({"protocol": "tcp", "fromPort": 0, "toPort": 65535, "cidrs": [any]}),
        json!({"protocol": -1, "fromPort": -1, "toPort": -1, "cidrs": [any, "::/0"]}),
        json!({"protocol": "all", "securityGroups": ["x", "sg-0123"]}),
        json!({"protocol": 47, "cidrs": [any]}),
        json!({"protocol": "icmp", "fromPort": -1, "toPort": -1, "cidrs": [any]}),
    ] {
        taken("sg", group(rule), &[]);
    }
    let path = "spec.ingress[0]";
    let cases: [(Value, &[&str]); 8] = [
        (
            json!({"cidrs": [any]}),
            &["spec.ingress[0].protocol: Required value"],
        ),
        (
            json!({"protocol": "TCP", "cidrs": [any]}),
            &[
                "spec.ingress[0].protocol: Unsupported value: \"TCP\": supported values: \"-1\", \
               \"all\", \"tcp\", \"udp\", \"sctp\", \"icmp\", \"icmpv6\", \"0 to 255\"",
            ],
        ),
        (
            json!({"protocol": "tcp", "fromPort": 80, "cidrs": [any]}),
            &["spec.ingress[0].toPort: Required value: must be specified when `fromPort` is"],
        ),
        (
            json!({"protocol": "udp", "fromPort": 80, "toPort": 79, "cidrs": [any]}),
            &[
                "spec.ingress[0].toPort: Invalid value: 79: must be greater than or equal to \
               `fromPort`",
            ],
        ),
        (
            json!({"protocol": "tcp", "fromPort": 1, "toPort": 65536, "cidrs": [any]}),
            &[
                "spec.ingress[0].toPort: Invalid value: 65536: must be between 0 and 65535, \
               inclusive",
            ],
        ),
        (
            json!({"protocol": "-1", "fromPort": 80, "toPort": 80, "cidrs": [any]}),
            &[
                "spec.ingress[0].fromPort: Forbidden: may be specified for tcp, udp and sctp only",
                "spec.ingress[0].toPort: Forbidden: may be specified for tcp, udp and sctp only",
            ],
        ),
        (
            json!({"protocol": "tcp"}),
            &["spec.ingress[0]: Required value: must specify cidrs or securityGroups"],
        ),
        (
            json!({"protocol": "tcp", "cidrs": ["10.0.0.0/40"]}),
            &[
                "spec.ingress[0].cidrs[0]: Invalid value: \"10.0.0.0/40\": must be a valid CIDR \
               value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            ],
        ),
    ];
    for (rule, complaints) in cases {
        assert!(complaints[0].starts_with(path));
        refused("sg", group(rule), complaints);
    }
    let rule = json!({"protocol": "tcp", "cidrs": [any]});
    taken(
        "sg",
        json!({"ingress": vec![rule.clone(); 1000], "egress": []}),
        &[],
    );
    refused(
        "sg",
        json!({"ingress": vec![rule; 1001], "egress": []}),
        &["spec.ingress: Too many: 1001: must have at most 1000 items"],
    );
}

#[test]
fn a_group_without_egress_is_warned_of() {
    taken(
        "sg",
        json!({"ingress": []}),
        &[
            "spec.egress: absent: members may open no connection (EC2 adds a rule for all egress to \
           a new group; here it has to be written)",
        ],
    );
}

#[test]
fn a_binding_has_selectors_and_one_to_five_groups() {
    let ids = "spec.securityGroups.groupIds";
    let binding =
        |groups: Value| json!({"podSelector": {}, "securityGroups": {"groupIds": groups}});
    let absent =
        |name: &str| format!("{ids}: there is no SecurityGroup {name:?}: it allows nothing");
    let five = ["a", "b", "c", "d", "e"];
    let warnings = five.map(absent);
    taken(
        "sgp",
        binding(json!(five)),
        &warnings.each_ref().map(String::as_str),
    );
    refused(
        "sgp",
        binding(json!(["a", "b", "c", "d", "e", "f"])),
        &[&format!("{ids}: Too many: 6: must have at most 5 items")],
    );
    refused(
        "sgp",
        binding(json!([])),
        &[&format!(
            "{ids}: Invalid value: 0: {ids} in body should have at least 1 items"
        )],
    );
    taken(
        "sgp",
        json!({"securityGroups": {"groupIds": ["a"]}}),
        &[
            "spec: without selectors it binds no pod and has no effect",
            &absent("a"),
        ],
    );
    taken(
        "sgp",
        json!({"serviceAccountSelector": {}}),
        &["spec: without groups it binds no pod and has no effect"],
    );
}

#[test]
fn a_binding_to_no_group_is_warned_of_once_all_of_a_file_is_there() {
    let policy = object(
        "sgp",
        "x",
        json!({"podSelector": {}, "securityGroups": {"groupIds": ["later", "never"]}}),
    );
    let group = object("sg", "later", json!({"egress": []}));
    let mut source = Seeded::new(7);
    let cluster = Cluster::new(&mut source);
    let mut transaction = cluster.begin(&mut source);
    for value in [policy, group] {
        transaction.create(Object::new(value).unwrap()).unwrap();
    }
    let commit = transaction.commit();
    assert_eq!(
        commit.warnings,
        ["spec.securityGroups.groupIds: there is no SecurityGroup \"never\": it allows nothing"]
    );
    let mut transaction = commit.cluster.begin(&mut source);
    let key = Key::new(kinds::find_resource("sg").unwrap(), "", "later");
    transaction.delete(&key, &DeleteOptions::default()).unwrap();
    assert_eq!(
        transaction.commit().warnings,
        [
            "securitygrouppolicy.vpcresources.k8s.aws/x still binds pods to \"later\", which allows \
             nothing from now on"
        ]
    );
}

/// An older or newer API narrows selectors by members that are not known here; without them the
/// rest would select more than was meant.
#[test]
fn an_unknown_member_of_a_selector_fails_closed() {
    let narrowed = json!({"sameLabels": ["tenant"]});
    let spec = cnp(json!({"ingress": [
        {"action": "Accept", "from": [{"namespaces": narrowed}]},
        {"action": "Deny", "from": [{"pods": {"namespaceSelector": {}, "podSelector": {
            "matchExpressions": [{"key": "a", "operator": "Exists", "fuzzy": true}]}}}]},
    ]}));
    let strict = decode_value(
        object("cnp", "x", spec.clone()),
        &DecodeOptions::default(),
        &mut Decoded::default(),
    );
    let strict = strict.unwrap_err().to_string();
    for path in [
        "spec.ingress[0].from[0].namespaces.sameLabels",
        "spec.ingress[1].from[0].pods.podSelector.matchExpressions[0].fuzzy",
    ] {
        assert!(
            strict.contains(&format!("unknown field {path:?}")),
            "{strict}"
        );
    }
    taken(
        "cnp",
        spec,
        &[
            "spec.ingress[0].from[0].namespaces.sameLabels: nothing is known of it: the rule \
             matches nothing",
            "spec.ingress[1].from[0].pods.podSelector.matchExpressions[0].fuzzy: nothing is known \
             of it: the rule denies all traffic of the subject",
        ],
    );
    let mut subject = cnp(json!({"ingress": [{"action": "Accept", "from": [{"namespaces": {}}]}]}));
    subject["subject"] = json!({"namespaces": {"notSameLabels": ["tenant"]}});
    taken(
        "cnp",
        subject,
        &[
            "spec.subject.namespaces.notSameLabels: nothing is known of it, so every rule fails \
             closed: Accept matches nothing, Deny and Pass deny all traffic of the subject",
        ],
    );
    taken(
        "sgp",
        json!({"podSelector": {"matchFields": {}}, "securityGroups": {"groupIds": ["a"]}}),
        &[
            "spec.podSelector.matchFields: nothing is known of it: the pods that the rest selects \
             are bound to no group",
            "spec.securityGroups.groupIds: there is no SecurityGroup \"a\": it allows nothing",
        ],
    );
}

#[test]
fn a_rule_whose_selector_has_an_unknown_member_accepts_nobody_and_denies_everybody() {
    let pod = |name: &str| {
        object(
            "po",
            name,
            json!({"containers": [{"name": "c", "image": "i"}]}),
        )
    };
    let isolating = object("netpol", "closed", json!({"podSelector": {}}));
    let narrowed = json!({"namespaces": {"sameLabels": ["tenant"]}});
    let rule = |action: &str| json!({"name": "same", "action": action, "from": [narrowed]});
    let policy = |action: &str| object("cnp", "x", cnp(json!({"ingress": [rule(action)]})));
    let ask = |objects: Vec<Value>| {
        let objects = objects.into_iter().map(|value| Object::new(value).unwrap());
        let offline = Offline::new(objects.collect()).unwrap();
        let params = TraceParams {
            from: "default/a".to_owned(),
            to: "default/b".to_owned(),
            port: Some("80".to_owned()),
            protocol: None,
            namespace: None,
        };
        offline.view().trace(&params).unwrap().reason
    };
    assert_eq!(
        ask(vec![pod("a"), pod("b"), isolating, policy("Accept")]),
        "ingress: isolated by default/closed, no rule matches peer"
    );
    assert_eq!(
        ask(vec![pod("a"), pod("b"), policy("Deny")]),
        "ingress: x rule 0 \"same\" denies"
    );
}

#[test]
fn modes_are_audit_and_enforce() {
    for (mode, valid) in [("audit", true), ("enforce", true), ("Audit", false)] {
        let mut value = object("cnp", "x", cnp(json!({})));
        value["metadata"]["annotations"] = json!({"weir.dev/mode": mode});
        match store(value) {
            Ok(_) => assert!(valid, "{mode}"),
            Err(complaints) => {
                assert!(!valid, "{mode}");
                assert_eq!(
                    complaints,
                    [
                        "metadata.annotations[weir.dev/mode]: Unsupported value: \"Audit\": \
                      supported values: \"audit\", \"enforce\""
                    ]
                );
            }
        }
    }
}
