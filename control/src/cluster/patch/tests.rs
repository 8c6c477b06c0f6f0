use serde_json::json;

use super::*;

#[test]
fn merge_patch_does_what_the_rfc_s_appendix_says() {
    // RFC 7396, appendix A.
    let cases = [
        (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
        (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
        (json!({"a":"b"}), json!({"a":null}), json!({})),
        (
            json!({"a":"b","b":"c"}),
            json!({"a":null}),
            json!({"b":"c"}),
        ),
        (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
        (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
        (
            json!({"a":{"b":"c"}}),
            json!({"a":{"b":"d","c":null}}),
            json!({"a":{"b":"d"}}),
        ),
        (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
        (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
        (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
        (
            json!({}),
            json!({"a":{"bb":{"ccc":null}}}),
            json!({"a":{"bb":{}}}),
        ),
    ];
    for (mut target, patch, expected) in cases {
        merge(&mut target, &patch);
        assert_eq!(target, expected, "patch {patch}");
    }
}

#[test]
fn json_patch_does_what_the_rfc_s_appendix_says() {
    // RFC 6902, appendix A.
    let cases = [
        (
            json!({"foo":["bar","baz"]}),
            json!([{"op":"add","path":"/foo/1","value":"qux"}]),
            Some(json!({"foo":["bar","qux","baz"]})),
        ),
        (
            json!({"foo":["bar","qux","baz"]}),
            json!([{"op":"remove","path":"/foo/1"}]),
            Some(json!({"foo":["bar","baz"]})),
        ),
        (
            json!({"foo":{"bar":"baz","waldo":"fred"},"qux":{"corge":"grault"}}),
            json!([{"op":"move","from":"/foo/waldo","path":"/qux/thud"}]),
            Some(json!({"foo":{"bar":"baz"},"qux":{"corge":"grault","thud":"fred"}})),
        ),
        (
            json!({"baz":"qux"}),
            json!([{"op":"test","path":"/baz","value":"bar"}]),
            None,
        ),
        (
            json!({"foo":"bar"}),
            json!([{"op":"add","path":"/baz/bat","value":"qux"}]),
            None,
        ),
        (
            json!({"/":9,"~1":10}),
            json!([{"op":"test","path":"/~01","value":10}]),
            Some(json!({"/":9,"~1":10})),
        ),
        (
            json!({"foo":["bar"]}),
            json!([{"op":"add","path":"/foo/-","value":["abc"]}]),
            Some(json!({"foo":["bar",["abc"]]})),
        ),
        (json!({}), json!([{"op":"remove","path":"/a"}]), None),
        (
            json!({}),
            json!([{"op":"replace","path":"/a","value":1}]),
            None,
        ),
    ];
    for (mut target, patch, expected) in cases {
        let before = target.clone();
        match (json(&mut target, &patch), expected) {
            (Ok(()), Some(expected)) => assert_eq!(target, expected, "patch {patch}"),
            (Err(_), None) => assert_eq!(target, before, "a failed patch changed its target"),
            (result, expected) => panic!("{patch}: {result:?}, expected {expected:?}"),
        }
    }
}

#[test]
fn strategic_merge_joins_containers_ports_and_env_by_key() {
    let mut target = json!({"spec": {"containers": [
        {"name": "a", "image": "one", "env": [{"name": "X", "value": "1"}],
         "ports": [{"containerPort": 53, "protocol": "UDP"}]},
        {"name": "b", "image": "two"},
    ]}});
    let patch = json!({"spec": {"containers": [
        {"name": "a", "env": [{"name": "Y", "value": "2"}],
         "ports": [{"containerPort": 53, "protocol": "TCP"}]},
        {"name": "b", "$patch": "delete"},
        {"name": "c", "image": "three"},
    ]}});
    strategic(&mut target, &patch).unwrap();
    assert_eq!(
        target,
        json!({"spec": {"containers": [
            {"name": "a", "image": "one",
             "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}],
             "ports": [{"containerPort": 53, "protocol": "UDP"},
                       {"containerPort": 53, "protocol": "TCP"}]},
            {"name": "c", "image": "three"},
        ]}})
    );
}

#[test]
fn strategic_merge_replaces_policy_rules_whole() {
    let mut target = json!({"spec": {"ingress": [{"ports": [{"port": 80}]}]}});
    strategic(
        &mut target,
        &json!({"spec": {"ingress": [{"ports": [{"port": 81}]}]}}),
    )
    .unwrap();
    assert_eq!(
        target,
        json!({"spec": {"ingress": [{"ports": [{"port": 81}]}]}})
    );
    strategic(
        &mut target,
        &json!({"spec": {"$patch": "replace", "egress": []}}),
    )
    .unwrap();
    assert_eq!(target, json!({"spec": {"egress": []}}));
    assert!(strategic(&mut target, &json!({"$patch": "mangle"})).is_err());
}

#[test]
fn three_way_keeps_what_others_wrote_and_removes_what_is_no_longer_applied() {
    let original = json!({"metadata": {"labels": {"a": "1", "b": "2"}},
        "spec": {"containers": [{"name": "x", "image": "i"}, {"name": "y", "image": "i"}]}});
    let wanted = json!({"metadata": {"labels": {"a": "9"}},
        "spec": {"containers": [{"name": "x", "image": "j"}]}});
    let live = json!({"metadata": {"labels": {"a": "1", "b": "2", "other": "3"}, "uid": "u"},
        "spec": {"containers": [{"name": "x", "image": "i", "defaulted": true},
            {"name": "y", "image": "i"}, {"name": "sidecar", "image": "s"}]},
        "status": {"phase": "Running"}});
    assert_eq!(
        three_way(&original, &wanted, &live, Lists::Joined),
        json!({"metadata": {"labels": {"a": "9", "other": "3"}, "uid": "u"},
            "spec": {"containers": [{"name": "x", "image": "j", "defaulted": true},
                {"name": "sidecar", "image": "s"}]},
            "status": {"phase": "Running"}})
    );
}
