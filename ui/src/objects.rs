//! Of objects what the page shows.

use serde_json::{Map, Value, json};

/// The kinds that the page follows.
pub const WATCHED: [&str; 10] = [
    "namespaces",
    "pods",
    "services",
    "nodes",
    "networkpolicies",
    "clusternetworkpolicies",
    "adminnetworkpolicies",
    "baselineadminnetworkpolicies",
    "securitygroups",
    "securitygrouppolicies",
];

fn text<'v>(object: &'v Value, pointer: &str) -> &'v str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn list<'v>(object: &'v Value, pointer: &str) -> &'v [Value] {
    let found = object.pointer(pointer).and_then(Value::as_array);
    found.map_or(&[], Vec::as_slice)
}

/// `KIND/NS/NAME`, with an empty namespace where the kind has none.
pub fn key(object: &Value) -> String {
    let namespace = text(object, "/metadata/namespace");
    let name = text(object, "/metadata/name");
    format!("{}/{namespace}/{name}", text(object, "/kind"))
}

/// Whether the object is of a kind that decides about packets.
pub fn is_policy(object: &Value) -> bool {
    let kind = text(object, "/kind");
    kind.ends_with("Policy") || kind == "SecurityGroup"
}

/// The addresses of a Node.
pub fn node_addresses(object: &Value) -> impl Iterator<Item = &str> {
    let is_node = text(object, "/kind") == "Node";
    let addresses = list(object, "/status/addresses")
        .iter()
        .filter(move |_| is_node);
    addresses.map(|address| text(address, "/address"))
}

/// What the page needs of an object.
pub fn shown(object: &Value) -> Value {
    let mut shown = json!({
        "kind": text(object, "/kind"),
        "namespace": text(object, "/metadata/namespace"),
        "name": text(object, "/metadata/name"),
    });
    let more = match text(object, "/kind") {
        "Pod" => pod(object),
        "Namespace" => json!({"labels": object.pointer("/metadata/labels")}),
        "Service" => service(object),
        "Node" => json!({"addresses": node_addresses(object).collect::<Vec<_>>()}),
        _ => policy(object),
    };
    if let (Some(shown), Value::Object(more)) = (shown.as_object_mut(), more) {
        shown.extend(more);
    }
    shown
}

fn pod(pod: &Value) -> Value {
    let ready = |condition: &Value| {
        text(condition, "/type") == "Ready" && text(condition, "/status") == "True"
    };
    let owner = list(pod, "/metadata/ownerReferences").first();
    let phase = match pod.pointer("/metadata/deletionTimestamp") {
        Some(_) => "Terminating",
        None => text(pod, "/status/phase"),
    };
    let ips = list(pod, "/status/podIPs").iter().map(|ip| text(ip, "/ip"));
    json!({
        "labels": pod.pointer("/metadata/labels"),
        "ips": ips.collect::<Vec<_>>(),
        "phase": phase,
        "ready": list(pod, "/status/conditions").iter().any(ready),
        "node": text(pod, "/spec/nodeName"),
        "owner": owner.map(|owner| format!("{}/{}", text(owner, "/kind"), text(owner, "/name"))),
        "ports": pod_ports(pod),
    })
}

fn pod_ports(pod: &Value) -> Vec<Value> {
    let containers = list(pod, "/spec/containers").iter();
    let ports = containers.flat_map(|container| list(container, "/ports"));
    ports
        .map(|port| {
            json!({
                "port": port["containerPort"],
                "protocol": port["protocol"].as_str().unwrap_or("TCP"),
                "name": port["name"],
            })
        })
        .collect()
}

fn service(service: &Value) -> Value {
    let ports = list(service, "/spec/ports").iter().map(|port| {
        json!({"port": port["port"], "protocol": port["protocol"].as_str().unwrap_or("TCP")})
    });
    json!({
        "clusterIP": text(service, "/spec/clusterIP"),
        "ports": ports.collect::<Vec<_>>(),
    })
}

fn policy(policy: &Value) -> Value {
    let mode = policy.pointer("/metadata/annotations/weir.dev~1mode");
    json!({"audit": mode.and_then(Value::as_str) == Some("audit")})
}

/// The object as its author wrote it, as far as can be known: what the server has added is left out.
pub fn authored(object: &Value) -> Value {
    let mut object = object.clone();
    let Some(map) = object.as_object_mut() else {
        return object;
    };
    map.remove("status");
    if let Some(metadata) = map.get_mut("metadata").and_then(Value::as_object_mut) {
        for added in [
            "uid",
            "resourceVersion",
            "generation",
            "creationTimestamp",
            "managedFields",
        ] {
            metadata.remove(added);
        }
        let applied = "kubectl.kubernetes.io/last-applied-configuration";
        let annotations = metadata
            .get_mut("annotations")
            .and_then(Value::as_object_mut);
        annotations.map(|annotations: &mut Map<String, Value>| annotations.remove(applied));
        let is_empty = |value: &Value| value.as_object().is_some_and(Map::is_empty);
        metadata.retain(|_, value| !is_empty(value));
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_shown_by_what_its_author_and_its_runner_say() {
        let pod = json!({
            "kind": "Pod",
            "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"},
                "ownerReferences": [{"kind": "ReplicaSet", "name": "web-1"}]},
            "spec": {"containers": [{"ports": [{"containerPort": 80, "name": "http"}]}]},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}],
                "conditions": [{"type": "Ready", "status": "True"}]},
        });
        assert_eq!(key(&pod), "Pod/shop/web");
        let shown = shown(&pod);
        assert_eq!(shown["ips"], json!(["10.0.0.1"]));
        assert_eq!(shown["ready"], true);
        assert_eq!(shown["owner"], "ReplicaSet/web-1");
        assert_eq!(
            shown["ports"][0],
            json!({"port": 80, "protocol": "TCP", "name": "http"})
        );
        assert!(!is_policy(&pod));
    }

    #[test]
    fn a_policy_is_shown_without_what_the_server_added() {
        let policy = json!({
            "kind": "NetworkPolicy",
            "metadata": {"name": "deny", "namespace": "shop", "uid": "u", "resourceVersion": "3",
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}},
            "spec": {"podSelector": {}},
        });
        assert!(is_policy(&policy));
        let expected = json!({
            "kind": "NetworkPolicy",
            "metadata": {"name": "deny", "namespace": "shop"},
            "spec": {"podSelector": {}},
        });
        assert_eq!(authored(&policy), expected);
    }

    #[test]
    fn audit_mode_and_nodes_addresses_are_read() {
        let policy = json!({"kind": "NetworkPolicy",
            "metadata": {"name": "x", "annotations": {"weir.dev/mode": "audit"}}});
        assert_eq!(shown(&policy)["audit"], true);
        let node = json!({"kind": "Node", "metadata": {"name": "n"},
            "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.9"}]}});
        assert_eq!(node_addresses(&node).collect::<Vec<_>>(), ["10.0.0.9"]);
    }
}
