//! Custom resources of applied definitions: what is accepted, refused, kept, and outlives what.

use control::objects::documents;
use control::protocol::Reason;
use serde_json::{Value, json};

use crate::store::Scene;

mod schemas;

fn one(text: &str) -> Value {
    documents(text, "t.yaml").unwrap().remove(0)
}

fn definition() -> Value {
    one(include_str!("../verbs/crontab-crd.yaml"))
}

fn crontab(name: &str) -> Value {
    json!({
        "apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": name},
        "spec": {"cronSpec": "* * * * */5"},
    })
}

fn apply(scene: &mut Scene, objects: &[Value]) -> Value {
    scene.must("apply", json!({ "objects": objects }))
}

fn stored(scene: &mut Scene, name: &str) -> Value {
    let params = json!({"resource": "crontabs.stable.example.com", "name": name});
    scene.must("get", params)["items"][0].clone()
}

/// A scene with the definition.
fn defined(name: &str) -> Scene {
    let mut scene = Scene::new(name);
    apply(&mut scene, &[definition()]);
    scene
}

/// A merge patch of the definition, applied.
fn redefined(scene: &mut Scene, patch: Value) -> Result<Value, String> {
    let target = json!({"resource": "crd", "name": "crontabs.stable.example.com"});
    let params = json!({"target": target, "type": "merge", "patch": patch});
    scene.call("patch", params).map_err(|error| error.message)
}

#[test]
fn objects_are_held_against_the_schema_as_an_api_server_does() {
    let mut scene = defined("custom-cases");
    let cases = one(include_str!("cases.yaml"));
    for case in cases.as_array().unwrap() {
        let mut object = crontab("c");
        object["spec"] = case["spec"].clone();
        let fields = case["fields"].as_str().unwrap_or("Strict");
        let params = json!({"objects": [object], "fieldValidation": fields});
        match (scene.call("create", params), case["refused"].as_str()) {
            (Ok(reply), None) => {
                assert_eq!(
                    reply["results"][0]["object"]["spec"], case["stored"],
                    "{case}"
                );
                if let Some(warned) = case["warned"].as_str() {
                    assert_eq!(reply["warnings"][0], warned);
                }
                let target = json!({"resource": "crontab", "name": "c"});
                scene.must("delete", json!({"targets": [target]}));
            }
            (Err(error), Some(refused)) => assert_eq!(error.message, refused, "{case}"),
            (given, _) => panic!("{case}: {given:?}"),
        }
    }
}

#[test]
fn definitions_are_refused_in_the_api_servers_words() {
    let cases = one(include_str!("definitions.yaml"));
    for case in cases.as_array().unwrap() {
        let mut scene = Scene::new("custom-definitions");
        let mut wrong = definition();
        control::cluster::patch::merge(&mut wrong, &case["patch"]);
        let error = scene
            .call("create", json!({"objects": [wrong]}))
            .unwrap_err();
        let refused = case["refused"].as_str().unwrap();
        assert!(
            error.message.contains(refused),
            "{}\n{refused}",
            error.message
        );
    }
}

#[test]
fn what_objects_depend_on_does_not_change_and_names_have_one_meaning() {
    let mut scene = defined("custom-immutable");
    for patch in [
        json!({"spec": {"scope": "Cluster"}}),
        json!({"spec": {"names": {"kind": "CronTable"}}}),
    ] {
        let refused = redefined(&mut scene, patch).unwrap_err();
        assert!(refused.contains("field is immutable"), "{refused}");
    }
    let mut rival = definition();
    rival["metadata"]["name"] = json!("tables.stable.example.com");
    rival["spec"]["names"] = json!({"kind": "Table", "plural": "tables", "shortNames": ["ct"]});
    let error = scene
        .call("create", json!({"objects": [rival]}))
        .unwrap_err();
    let expected = "\"ct\" is already in use by crontabs.stable.example.com";
    assert!(error.message.contains(expected), "{}", error.message);
}

#[test]
fn definitions_and_their_objects_outlive_a_crash() {
    let mut scene = defined("custom-crash");
    // In one line of the journal with its objects, which sort before it.
    let mut early = definition();
    early["metadata"]["name"] = json!("crontabs.a.example");
    early["spec"]["group"] = json!("a.example");
    let mut first = crontab("first");
    first["apiVersion"] = json!("a.example/v1");
    apply(&mut scene, &[first, early]);
    apply(&mut scene, &[crontab("kept"), crontab("gone")]);
    let target = json!({"resource": "crontab.stable.example.com", "name": "gone"});
    scene.must("delete", json!({"targets": [target]}));
    let before = stored(&mut scene, "kept");
    // The second start reads what the first one has read and written.
    for _ in 0..2 {
        scene.start();
        assert_eq!(scene.names("crontabs.stable.example.com"), ["kept"]);
        assert_eq!(scene.names("crontabs.a.example"), ["first"]);
        assert_eq!(stored(&mut scene, "kept"), before);
    }
    let kept = json!({"resource": "ct.stable.example.com", "name": "kept"});
    let patch = json!({"target": kept, "type": "merge", "patch": {"spec": {"replicas": 99}}});
    assert_eq!(scene.reason("patch", patch), Reason::Invalid);
    // Deleting a definition is one line of the journal that takes away the kind of others in it.
    let crd = json!({"resource": "crd", "name": "crontabs.stable.example.com"});
    scene.must("delete", json!({"targets": [crd]}));
    scene.start();
    assert_eq!(scene.names("crd"), ["crontabs.a.example"]);
    assert_eq!(
        scene.reason("get", json!({"resource": "crontabs.stable.example.com"})),
        Reason::NotFound
    );
    // A definition that comes again finds nothing of old.
    apply(&mut scene, &[definition()]);
    assert_eq!(scene.names("crontabs.stable.example.com"), [""; 0]);
}

#[test]
fn an_object_is_shown_in_one_version_whatever_it_was_written_in() {
    let mut scene = defined("custom-versions");
    let mut old = crontab("old");
    old["apiVersion"] = json!("stable.example.com/v1beta1");
    old["spec"] = json!({"cronSpec": "* * * * */5", "old": "x"});
    let reply = apply(&mut scene, &[old.clone()]);
    let warnings: Vec<&str> = reply["warnings"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert!(
        warnings.contains(&"stable.example.com/v1beta1 CronTab is deprecated"),
        "{warnings:?}"
    );
    let object = stored(&mut scene, "old");
    assert_eq!(object["apiVersion"], "stable.example.com/v1");
    assert_eq!(
        object["spec"],
        json!({"cronSpec": "* * * * */5", "replicas": 1})
    );
    assert_eq!(
        apply(&mut scene, &[old])["results"][0]["operation"],
        "unchanged"
    );
    // v1 is served no more: objects are those of v1beta1 then, over a restart too.
    let mut versions = definition()["spec"]["versions"].clone();
    versions[0]["served"] = json!(false);
    redefined(&mut scene, json!({"spec": {"versions": versions}})).unwrap();
    for _ in 0..2 {
        let object = stored(&mut scene, "old");
        assert_eq!(object["apiVersion"], "stable.example.com/v1beta1");
        assert_eq!(object["spec"], json!({"cronSpec": "* * * * */5"}));
        let error = scene
            .call("apply", json!({"objects": [crontab("new")]}))
            .unwrap_err();
        assert!(
            error
                .message
                .starts_with("no matches for kind \"CronTab\" in version")
        );
        scene.start();
    }
}

#[test]
fn status_is_written_apart_where_the_definition_says_so() {
    let mut scene = defined("custom-status");
    let mut object = crontab("c");
    object["status"] = json!({"replicas": 3});
    apply(&mut scene, &[object.clone()]);
    assert_eq!(stored(&mut scene, "c").get("status"), None);
    let target = json!({"resource": "ct", "name": "c"});
    scene.must(
        "updateStatus",
        json!({"target": target, "status": {"replicas": 3}}),
    );
    apply(&mut scene, &[crontab("c")]);
    assert_eq!(stored(&mut scene, "c")["status"], json!({"replicas": 3}));
    assert_eq!(stored(&mut scene, "c")["metadata"]["generation"], 1);
    let mut versions = definition()["spec"]["versions"].clone();
    versions[0]["subresources"] = Value::Null;
    redefined(&mut scene, json!({"spec": {"versions": versions}})).unwrap();
    object["status"] = json!({"replicas": 5});
    apply(&mut scene, &[object]);
    assert_eq!(stored(&mut scene, "c")["status"], json!({"replicas": 5}));
    assert_eq!(stored(&mut scene, "c")["metadata"]["generation"], 2);
}

#[test]
fn a_definition_waits_for_objects_that_wait_for_their_finalizers() {
    let mut scene = defined("custom-finalizers");
    let mut held = crontab("held");
    held["metadata"]["finalizers"] = json!(["example.com/mine"]);
    apply(&mut scene, &[held, crontab("free")]);
    let crd = json!({"resource": "crd", "name": "crontabs.stable.example.com"});
    let reply = scene.must("delete", json!({"targets": [crd]}));
    assert_eq!(reply["results"][0]["operation"], "terminating");
    assert_eq!(scene.names("crontabs"), ["held"]);
    let late = json!({"objects": [crontab("late")]});
    assert_eq!(scene.reason("create", late), Reason::MethodNotAllowed);
    scene.start();
    let target = json!({"resource": "crontabs", "name": "held"});
    let freed = json!({"metadata": {"finalizers": null}});
    scene.must(
        "patch",
        json!({"target": target, "type": "merge", "patch": freed}),
    );
    assert_eq!(scene.names("crd"), [""; 0]);
    assert_eq!(
        scene.reason("get", json!({"resource": "crontabs"})),
        Reason::NotFound
    );
}

#[test]
fn lists_of_custom_resources_are_applied_whole() {
    let mut scene = defined("custom-lists");
    let mut object = crontab("c");
    object["spec"]["ports"] = json!([{"name": "a"}, {"name": "b"}]);
    apply(&mut scene, &[object.clone()]);
    let target = json!({"resource": "ct", "name": "c"});
    let patch = json!([{"op": "replace", "path": "/spec/ports", "value": [{"name": "z"}]}]);
    scene.must(
        "patch",
        json!({"target": target, "type": "json", "patch": patch}),
    );
    object["spec"]["ports"] = json!([{"name": "b"}]);
    apply(&mut scene, &[object]);
    assert_eq!(
        stored(&mut scene, "c")["spec"]["ports"],
        json!([{"name": "b"}])
    );
}

#[test]
fn what_no_annotation_can_hold_is_applied_by_the_server() {
    let mut scene = Scene::new("custom-large");
    let mut large = definition();
    let schema = &mut large["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    schema["description"] = json!("x".repeat(300 << 10));
    let error = scene
        .call("apply", json!({"objects": [large]}))
        .unwrap_err();
    assert!(
        error.message.contains("metadata.annotations: Too long"),
        "{}",
        error.message
    );
    let by_server = |object: &Value| json!({"objects": [object], "serverSide": true});
    let reply = scene.must("apply", by_server(&large));
    assert_eq!(reply["results"][0]["operation"], "created");
    let again = scene.must("apply", by_server(&large));
    assert_eq!(again["results"][0]["operation"], "unchanged");
    // What is not in it any more goes, but for what others have written into its metadata.
    let target = json!({"resource": "crd", "name": "crontabs.stable.example.com"});
    let labelled = json!({"metadata": {"labels": {"by": "others"}}});
    scene.must(
        "patch",
        json!({"target": target, "type": "merge", "patch": labelled}),
    );
    large["spec"]["versions"].as_array_mut().unwrap().remove(1);
    large["spec"]["names"]
        .as_object_mut()
        .unwrap()
        .remove("shortNames");
    scene.must("apply", by_server(&large));
    let stored = scene.must("get", target)["items"][0].clone();
    assert_eq!(stored["metadata"]["labels"]["by"], "others");
    assert_eq!(stored["metadata"].get("annotations"), None);
    assert_eq!(stored["spec"]["versions"].as_array().unwrap().len(), 1);
    assert_eq!(stored["spec"]["names"].get("shortNames"), None);
    // Small ones are merged as ever.
    apply(&mut scene, &[crontab("small")]);
    let mut small = crontab("small");
    small["spec"]["image"] = json!("x");
    scene.must("apply", by_server(&small));
    scene.must("apply", by_server(&crontab("small")));
    assert_eq!(scene.names("crontabs"), ["small"]);
    let spec = json!({"cronSpec": "* * * * */5", "replicas": 1});
    assert_eq!(self::stored(&mut scene, "small")["spec"], spec);
}

#[test]
fn policies_of_others_are_refused_though_their_kind_is_defined() {
    let mut scene = Scene::new("custom-foreign");
    for (group, kind, plural) in [
        (
            "crd.projectcalico.org",
            "GlobalNetworkPolicy",
            "globalnetworkpolicies",
        ),
        ("crd.projectcalico.org", "NetworkPolicy", "networkpolicies"),
        ("cilium.io", "CiliumNetworkPolicy", "ciliumnetworkpolicies"),
        (
            "security.istio.io",
            "AuthorizationPolicy",
            "authorizationpolicies",
        ),
    ] {
        let name = format!("{plural}.{group}");
        let foreign = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": name},
            "spec": {
                "group": group, "scope": "Namespaced", "names": {"kind": kind, "plural": plural},
                "versions": [{"name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object"}}}],
            },
        });
        let policy = json!({
            "apiVersion": format!("{group}/v1"), "kind": kind, "metadata": {"name": "p"},
        });
        // Beside its definition, and behind it.
        let both = json!({"objects": [foreign, policy]});
        assert_eq!(scene.reason("apply", both), Reason::Forbidden);
        apply(&mut scene, &[foreign]);
        let error = scene
            .call("apply", json!({"objects": [policy]}))
            .unwrap_err();
        assert!(
            error
                .message
                .contains("restricts traffic and is not enforced here")
        );
        assert_eq!(scene.names(&name), [""; 0]);
    }
    // What a definition says of a kind that is enforced here changes nothing of it.
    let mut own = definition();
    own["metadata"]["name"] = json!("adminnetworkpolicies.policy.networking.k8s.io");
    own["metadata"]["annotations"]["api-approved.kubernetes.io"] = json!("https://example.org");
    own["spec"]["group"] = json!("policy.networking.k8s.io");
    own["spec"]["names"] = json!({"kind": "AdminNetworkPolicy", "plural": "adminnetworkpolicies"});
    own["spec"]["versions"][0]["name"] = json!("v1alpha1");
    apply(&mut scene, &[own]);
    let empty = json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": "AdminNetworkPolicy",
        "metadata": {"name": "a"}, "spec": {"cronSpec": "* * * * */5"},
    });
    assert_eq!(
        scene.reason("apply", json!({"objects": [empty]})),
        Reason::BadRequest
    );
}

#[test]
fn at_its_bounds_a_definition_or_an_object_is_refused() {
    let mut scene = defined("custom-bounds");
    let mut large = crontab("large");
    large["spec"]["image"] = json!("x".repeat(config::limits::CUSTOM_OBJECT_BYTES));
    let error = scene
        .call("create", json!({"objects": [large]}))
        .unwrap_err();
    let expected = "<nil>: Too long: may not be more than 1572864 bytes";
    assert!(
        error.message.contains(expected),
        "{}",
        &error.message[..200]
    );
    // A default of 1 KiB for each of 10,000 items.
    let versions = json!([{"name": "v1", "served": true, "storage": true, "schema": {
        "openAPIV3Schema": {"type": "object", "properties": {"items": {
            "type": "array", "items": {"type": "object", "properties": {
                "text": {"type": "string", "default": "x".repeat(1024)},
                // And many looks at each of them.
                "number": {"type": "integer", "anyOf": vec![json!({"minimum": 1}); 100]},
            }},
        }}},
    }}]);
    redefined(&mut scene, json!({"spec": {"versions": versions}})).unwrap();
    let mut grown = crontab("grown");
    grown["items"] = json!(vec![json!({}); 10_000]);
    grown.as_object_mut().unwrap().remove("spec");
    let params = json!({"objects": [grown.clone()]});
    assert_eq!(
        scene.reason("create", params),
        Reason::RequestEntityTooLarge
    );
    grown["items"] = json!(vec![json!({"text": "", "number": 0}); 30_000]);
    let error = scene
        .call("create", json!({"objects": [grown]}))
        .unwrap_err();
    let expected = "the object is too large to be held against its schema";
    assert!(
        error.message.contains(expected),
        "{}",
        &error.message[..200]
    );
    let definitions: Vec<Value> = (1..=config::limits::DEFINITIONS)
        .map(|number| {
            json!({
                "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                "metadata": {"name": format!("bs.b{number}.example.com")},
                "spec": {
                    "group": format!("b{number}.example.com"), "scope": "Cluster",
                    "names": {"kind": "B", "plural": "bs"},
                    "versions": [{"name": "v1", "served": true, "storage": true,
                        "schema": {"openAPIV3Schema": {"type": "object"}}}],
                },
            })
        })
        .collect();
    let (last, others) = definitions.split_last().unwrap();
    apply(&mut scene, others);
    let error = scene
        .call("create", json!({"objects": [last]}))
        .unwrap_err();
    assert!(
        error.message.ends_with("there are 1000 of them already"),
        "{}",
        error.message
    );
}
