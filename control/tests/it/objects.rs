//! Documents, the store, validation's words, offline answers.

use control::cluster::{
    Cluster, DeleteOptions, EventKind, LAST_APPLIED, OperationKind, Reason, Seeded, Transaction,
};
use control::objects::{
    DecodeError, DecodeOptions, FieldValidation, Key, Object, UnknownKinds, decode_documents,
    decode_documents_with, kinds,
};
use control::offline::Offline;
use control::protocol::{MatrixParams, PatchType, TraceParams};
use serde_json::json;

fn one(text: &str) -> Object {
    let mut objects = decode_documents(text, "t.yaml").unwrap();
    assert_eq!(objects.len(), 1);
    objects.remove(0)
}

fn key(kind: &str, namespace: &str, name: &str) -> Key {
    Key::new(kinds::find_resource(kind).unwrap(), namespace, name)
}

/// A change to a fresh cluster.
fn with<T>(act: impl FnOnce(&mut Transaction<'_>) -> T) -> T {
    let mut source = Seeded::new(7);
    let cluster = Cluster::new(&mut source);
    let mut transaction = cluster.begin(&mut source);
    act(&mut transaction)
}

fn pod(name: &str) -> Object {
    one(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, \
         spec: {{containers: [{{name: c, image: i}}]}}}}"
    ))
}

#[test]
fn documents_lists_and_defaults_of_namespace() {
    let text = "---\n# nothing\n---\napiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: \
        Namespace, metadata: {name: n, namespace: odd}}\n- {apiVersion: v1, kind: PodList, items: \
        [{metadata: {name: p}, spec: {containers: [{name: c, image: i}]}}]}\n---\n";
    let objects = decode_documents(text, "t.yaml").unwrap();
    let keys: Vec<_> = objects.iter().map(|o| o.key().clone()).collect();
    assert_eq!(keys, [key("ns", "", "n"), key("po", "default", "p")]);
}

/// What `kubectl create --dry-run=client --validate=false -f` of 1.33 says of each: its parser's
/// complaints count lines from 0, its scanner's from 1, both within a document, and none is told of
/// the first line.
#[test]
fn what_is_no_yaml_is_said_in_kubectl_s_words() {
    let context = "mapping values are not allowed in this context";
    for (text, expected) in [
        ("a: b: c", context),
        ("a: 1\nb: c: d\n", &format!("line 2: {context}")),
        ("a:\n- b\nc: 1\n- d\n", "line 3: did not find expected key"),
        ("- a\nb: 1\n", "line 1: did not find expected '-' indicator"),
        (
            "a: [1, 2\nb: 3\n",
            "line 1: did not find expected ',' or ']'",
        ),
        (
            "a: {b: 1\nc: 2\n",
            "line 1: did not find expected ',' or '}'",
        ),
        ("a: ]\n", "did not find expected node content"),
        ("x: 1\na: ]\n", "line 1: did not find expected node content"),
        (
            "x: 1\na: @b\n",
            "line 2: found character that cannot start any token",
        ),
        ("a: @b\n", "found character that cannot start any token"),
        ("x: 1\na: *b\n", "unknown anchor 'b' referenced"),
        (
            "x: 1\na: \"b\nc: 1\n",
            "line 4: found unexpected end of stream",
        ),
        (
            "x:\n  a: 1\n\tb: 1\n",
            "line 3: found a tab character that violates indentation",
        ),
        ("x: 1\nb\nc: 2\n", "line 3: could not find expected ':'"),
        (
            "x: 1\na: !foo!bar b\n",
            "line 1: found undefined tag handle",
        ),
        ("x: 1\na: \u{1}\n", "control characters are not allowed"),
        ("a: 1\n---\nb: c: d\n", context),
        ("a: 1\n---\nb: 1\nc: d: e\n", &format!("line 2: {context}")),
        (
            "a: 1\n--- # two\nb: 1\nc: d: e\n",
            &format!("line 2: {context}"),
        ),
        ("---\n---\na: 1\nb: c: d\n", &format!("line 2: {context}")),
        ("---\na: 1\nb: c: d\n", &format!("line 3: {context}")),
        (
            "# one\n---\n\na: 1\nb: c: d\n",
            &format!("line 3: {context}"),
        ),
        ("x:\n  y: 2\n z: 3\n", "line 2: did not find expected key"),
    ] {
        assert_eq!(
            decode_documents(text, "f.yaml").unwrap_err().to_string(),
            format!("error parsing f.yaml: error converting YAML to JSON: yaml: {expected}"),
            "{text:?}"
        );
    }
}

#[test]
fn what_is_no_object_is_said_in_the_api_server_s_words() {
    let policy = |spec: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: x}}\n\
             spec: {spec}\n"
        )
    };
    for (text, expected) in [
        (
            "a: b: c".to_owned(),
            "error parsing f.yaml: error converting YAML to JSON: yaml: mapping values are not \
             allowed in this context",
        ),
        (
            policy("{podSelector: {}, ingres: [], ingress: [{form: []}]}"),
            "NetworkPolicy in version \"v1\" cannot be handled as a NetworkPolicy: strict decoding \
             error: unknown field \"spec.ingres\", unknown field \"spec.ingress[0].form\"",
        ),
        (
            policy("{ingress: {}}"),
            "NetworkPolicy in version \"v1\" cannot be handled as a NetworkPolicy: json: cannot \
             unmarshal object into Go struct field NetworkPolicySpec.spec.ingress of type []",
        ),
        (
            "apiVersion: v1\nkind: Pot\nmetadata: {name: x}\n".to_owned(),
            "no matches for kind \"Pot\" in version \"v1\"\nensure CRDs are installed first",
        ),
    ] {
        let error = decode_documents(&text, "f.yaml").unwrap_err();
        assert_eq!(error.to_string(), expected, "{text}");
    }
    let cilium = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: x}\n";
    let options = DecodeOptions {
        unknown_kinds: UnknownKinds::Skip,
        ..DecodeOptions::default()
    };
    let refused = decode_documents_with(cilium, "f", &options).unwrap_err();
    assert!(
        matches!(refused, DecodeError::ForeignPolicy { .. }),
        "{refused}"
    );
    let ignored = ["CiliumNetworkPolicy".to_owned()];
    let options = DecodeOptions {
        ignored_kinds: &ignored,
        fields: FieldValidation::Warn,
        ..DecodeOptions::default()
    };
    let decoded = decode_documents_with(cilium, "f", &options).unwrap();
    assert_eq!((decoded.objects.len(), decoded.warnings.len()), (0, 1));
}

#[test]
fn nulls_are_what_go_makes_of_them_and_defaults_are_filled_in() {
    let text = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: x, labels: \
        {a: null}}\nspec:\n  podSelector: {matchLabels: null}\n  ingress: [null]\n  egress: null\n";
    let stored = with(|t| t.create(one(text))).unwrap().object;
    assert_eq!(
        stored.value()["spec"],
        json!({"podSelector": {}, "ingress": [{}], "policyTypes": ["Ingress"]})
    );
    assert_eq!(stored.label("a"), Some(""));
    assert_eq!(stored.generation(), 1);
    let text = "{apiVersion: v1, kind: Service, metadata: {name: s}, \
        spec: {selector: {a: b}, ports: [{port: 80}]}}";
    let stored = with(|t| t.create(one(text))).unwrap().object;
    let address = stored.value()["spec"]["clusterIP"].as_str().unwrap();
    assert!(address.starts_with("10.9"), "{address}");
    assert_eq!(
        stored.value()["spec"]["ports"],
        json!([{"port": 80, "protocol": "TCP", "targetPort": 80}])
    );
}

#[test]
fn apply_creates_configures_and_leaves_unchanged() {
    let labelled = |label: &str| {
        one(&format!(
            "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: m, labels: {{{label}}}}}, \
             data: {{k: v}}}}"
        ))
    };
    with(|t| {
        let first = t.apply(labelled("a: '1', b: '2'")).unwrap();
        assert_eq!(first.operation, OperationKind::Created);
        assert!(first.object.annotation(LAST_APPLIED).is_some());
        let again = t.apply(labelled("a: '1', b: '2'")).unwrap();
        assert_eq!(again.operation, OperationKind::Unchanged);
        assert_eq!(
            again.object.resource_version(),
            first.object.resource_version()
        );
        let live = key("cm", "default", "m");
        let add = json!({"metadata": {"labels": {"by": "hand"}}});
        t.patch(&live, PatchType::Merge, &add, FieldValidation::Strict)
            .unwrap();
        let second = t.apply(labelled("a: '3'")).unwrap();
        assert_eq!(second.operation, OperationKind::Configured);
        let labels: Vec<_> = second.object.labels().collect();
        assert_eq!(labels, [("a", "3"), ("by", "hand")]);
        assert_eq!(second.object.uid(), first.object.uid());
    });
}

#[test]
fn refusals_are_the_api_server_s() {
    with(|t| {
        t.create(pod("p")).unwrap();
        let twice = t.create(pod("p")).unwrap_err();
        assert_eq!(twice.to_string(), "pods \"p\" already exists");
        let lost = t.delete(&key("netpol", "default", "x"), &DeleteOptions::default());
        let lost = lost.unwrap_err();
        assert_eq!(
            lost.to_string(),
            "networkpolicies.networking.k8s.io \"x\" not found"
        );
        let mut stale = t.get(&key("po", "default", "p")).unwrap().to_value();
        stale["metadata"]["resourceVersion"] = json!("1");
        let stale = t.replace(Object::new(stale).unwrap()).unwrap_err();
        assert_eq!(stale.reason, Reason::Conflict);
        let homeless =
            one("{apiVersion: v1, kind: ConfigMap, metadata: {name: m, namespace: nowhere}}");
        let homeless = t.create(homeless).unwrap_err();
        assert_eq!(homeless.to_string(), "namespaces \"nowhere\" not found");
        let system = t.delete(&key("ns", "", "kube-system"), &DeleteOptions::default());
        assert_eq!(system.unwrap_err().reason, Reason::Forbidden);
        let odd = json!({"spec": {"colour": "red"}});
        let odd = t.patch(
            &key("po", "default", "p"),
            PatchType::Strategic,
            &odd,
            FieldValidation::Strict,
        );
        assert!(
            odd.unwrap_err()
                .message
                .contains("unknown field \"spec.colour\"")
        );
    });
}

#[test]
fn a_placed_pod_ends_before_it_goes_and_its_namespace_waits() {
    with(|t| {
        t.create(one(
            "{apiVersion: v1, kind: Namespace, metadata: {name: n}}",
        ))
        .unwrap();
        t.create(one(
            "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: n}, \
             spec: {nodeName: here, containers: [{name: c, image: i}]}}",
        ))
        .unwrap();
        let (ns, po) = (key("ns", "", "n"), key("po", "n", "p"));
        let outcome = t.delete(&ns, &DeleteOptions::default()).unwrap();
        assert_eq!(outcome.operation, OperationKind::Terminating);
        assert!(t.get(&po).unwrap().is_terminating());
        let late = one("{apiVersion: v1, kind: ConfigMap, metadata: {name: m, namespace: n}}");
        assert_eq!(t.create(late).unwrap_err().reason, Reason::Forbidden);
        let now = DeleteOptions {
            grace_period_s: Some(0),
            ..DeleteOptions::default()
        };
        let outcome = t.delete(&po, &now).unwrap();
        assert_eq!(outcome.operation, OperationKind::Deleted);
        assert!(t.get(&ns).is_none(), "the namespace went with its last pod");
    });
}

#[test]
fn owners_take_what_they_own_unless_told_not_to() {
    let owned = |t: &mut Transaction<'_>| {
        let rs = one(
            "{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: r}, spec: {selector: \
             {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: \
             [{name: c, image: i}]}}}}",
        );
        let uid = t.create(rs).unwrap().object.uid().to_owned();
        let mut value = pod("p").to_value();
        value["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": uid}]);
        t.create(Object::new(value).unwrap()).unwrap();
    };
    for orphan in [false, true] {
        let mut source = Seeded::new(7);
        let cluster = Cluster::new(&mut source);
        let mut t = cluster.begin(&mut source);
        owned(&mut t);
        let options = DeleteOptions {
            orphan,
            ..DeleteOptions::default()
        };
        t.delete(&key("rs", "default", "r"), &options).unwrap();
        assert_eq!(t.get(&key("po", "default", "p")).is_some(), orphan);
        let commit = t.commit();
        let deleted = commit
            .events
            .iter()
            .filter(|e| e.kind == EventKind::Deleted);
        assert_eq!(deleted.count(), if orphan { 1 } else { 2 });
        assert!(
            cluster.pod("default", "p").is_none(),
            "the old cluster has not changed"
        );
        // What a journal holds makes the same cluster again.
        let mut restored = Cluster::empty();
        for object in commit.cluster.objects() {
            restored.restore(object.to_value()).unwrap();
        }
        assert!(restored.objects().eq(commit.cluster.objects()));
    }
}

const THREE: &str = "
{apiVersion: v1, kind: Pod, metadata: {name: web, labels: {app: web}}, spec: {containers: [{name: c, image: i}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: evil}, spec: {containers: [{name: c, image: i}]}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: db}, spec: {selector: {matchLabels: {app: db}},
  template: {metadata: {labels: {app: db}}, spec: {containers: [{name: c, image: i, ports: [{containerPort: 3306, name: sql}]}]}}}}
---
{apiVersion: v1, kind: Service, metadata: {name: db}, spec: {selector: {app: db}, ports: [{port: 1, targetPort: sql}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: db}, spec: {podSelector: {matchLabels: {app: db}},
  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: sql}]}]}}
";

#[test]
fn traces_and_matrices_from_files() {
    let offline = Offline::new(decode_documents(THREE, "t.yaml").unwrap()).unwrap();
    let ask = |from: &str, to: &str, port: &str| {
        let params = TraceParams {
            from: from.to_owned(),
            to: to.to_owned(),
            port: Some(port.to_owned()),
            protocol: None,
            namespace: None,
        };
        offline.view().trace(&params).unwrap()
    };
    let allowed = ask("default/web", "default/db", "1");
    assert_eq!((allowed.verdict, allowed.port), ("allow", Some(3306)));
    assert_eq!(allowed.steps.last().unwrap().rule, Some(0));
    let peer = ask("default/evil", "default/db-0", "sql");
    assert_eq!(peer.verdict, "deny");
    assert_eq!(
        peer.reason,
        "ingress: isolated by default/db, no rule matches peer"
    );
    let miss = peer.steps.last().unwrap().nearest_miss.as_deref();
    assert_eq!(
        miss,
        Some(
            "rule 0 fails on peer: default/evil has no app, wants pods with app=web in namespace default"
        )
    );
    let port = ask("default/web", "default/db-0", "80");
    let miss = port.steps.last().unwrap().nearest_miss.as_deref();
    assert_eq!(miss, Some("rule 0 fails on port: 80, wants 3306"));
    assert_eq!(ask("default/db-0", "default/db-0", "80").verdict, "allow");

    let matrix = offline.view().matrix(&MatrixParams::default()).unwrap();
    let found: Vec<_> = matrix
        .entries
        .iter()
        .map(|e| (e.from.as_str(), e.verdict.as_ref()))
        .collect();
    assert_eq!(
        found,
        [
            ("default/db-0", "allow"),
            ("default/evil", "deny"),
            ("default/web", "allow")
        ]
    );
    assert!(matrix.text().contains("default/db-0:3306/TCP"));
}
