//! EndpointSlices: which pods a Service means.

use std::sync::Arc;

use control::client::ClientError;
use serde_json::{Value, json};

use super::controllers::{chooses, is_ready};
use super::objects::{is_terminating, owner_reference, text, uid};
use super::{Agent, NODE};

/// Label that names a slice's Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label that names who keeps a slice.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// What we write there.
const OURS: &str = "weir-lab";

/// Writes the slices of every Service with a selector, and removes those of Services that went.
pub fn look(agent: &Agent, pods: &[Arc<Value>]) -> Result<(), ClientError> {
    let services = agent.mirror.list("Service");
    for service in &services {
        let selector = service.pointer("/spec/selector").and_then(Value::as_object);
        if selector.is_none_or(|selector| selector.is_empty()) || is_terminating(service) {
            continue;
        }
        let chosen: Vec<&Arc<Value>> = pods.iter().filter(|pod| chooses(service, pod)).collect();
        for family in ["IPv4", "IPv6"] {
            let slice = slice(service, &chosen, family);
            let (namespace, name) = (
                text(&slice, "/metadata/namespace"),
                text(&slice, "/metadata/name"),
            );
            let known = agent.mirror.get("EndpointSlice", namespace, name);
            let empty = slice["endpoints"].as_array().is_none_or(Vec::is_empty);
            let same = known.as_ref().is_some_and(|known| {
                known["endpoints"] == slice["endpoints"] && known["ports"] == slice["ports"]
            });
            // The second family's slice exists only where a pod has an address in it.
            if same || (empty && known.is_none() && family == "IPv6") {
                continue;
            }
            agent.apply(slice)?;
        }
    }
    let there = |slice: &Value| services.iter().any(|s| owner_is(slice, s));
    for slice in agent.mirror.list("EndpointSlice") {
        if slice["metadata"]["labels"][MANAGED_BY] == OURS && !there(&slice) {
            agent.remove("endpointslices", &slice)?;
        }
    }
    Ok(())
}

fn owner_is(slice: &Value, service: &Value) -> bool {
    super::objects::owner_uid(slice) == uid(service)
}

fn slice(service: &Value, pods: &[&Arc<Value>], family: &str) -> Value {
    let name = text(service, "/metadata/name");
    let publish = service.pointer("/spec/publishNotReadyAddresses") == Some(&Value::Bool(true));
    let endpoints: Vec<Value> = pods
        .iter()
        .filter_map(|pod| endpoint(pod, family, publish))
        .collect();
    let suffix = family.to_lowercase();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{name}-{suffix}"),
            "namespace": service["metadata"]["namespace"],
            "labels": {SERVICE_NAME: name, MANAGED_BY: OURS},
            "ownerReferences": owner_reference(service),
        },
        "addressType": family,
        "endpoints": endpoints,
        "ports": ports(service, pods),
    })
}

fn endpoint(pod: &Value, family: &str, publish: bool) -> Option<Value> {
    let addresses = pod.pointer("/status/podIPs").and_then(Value::as_array)?;
    let mut of_family = addresses
        .iter()
        .filter_map(|entry| entry["ip"].as_str())
        .filter(|ip| ip.contains(':') == (family == "IPv6"));
    let address = of_family.next()?;
    if ["Succeeded", "Failed"].contains(&text(pod, "/status/phase")) {
        return None;
    }
    let (ready, going) = (is_ready(pod), is_terminating(pod));
    let mut endpoint = json!({
        "addresses": [address],
        "conditions": {
            "ready": publish || (ready && !going), "serving": publish || ready, "terminating": going,
        },
        "nodeName": NODE,
        "targetRef": {
            "kind": "Pod", "namespace": pod["metadata"]["namespace"],
            "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"],
        },
    });
    let hostname = text(pod, "/spec/hostname");
    if !hostname.is_empty() {
        endpoint["hostname"] = hostname.into();
    }
    Some(endpoint)
}

/// The Service's ports, each with the number that the first pod resolves its target to.
fn ports(service: &Value, pods: &[&Arc<Value>]) -> Vec<Value> {
    let declared = service.pointer("/spec/ports").and_then(Value::as_array);
    let resolve = |port: &Value| -> Value {
        match &port["targetPort"] {
            Value::Null => port["port"].clone(),
            Value::String(name) => {
                let found = pods.iter().find_map(|pod| named_port(pod, name));
                found.map_or(Value::Null, Value::from)
            }
            number => number.clone(),
        }
    };
    let all = declared.into_iter().flatten();
    all.map(|port| {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        json!({
            "name": port["name"].as_str().unwrap_or_default(),
            "protocol": protocol, "port": resolve(port),
        })
    })
    .filter(|port| !port["port"].is_null())
    .collect()
}

fn named_port(pod: &Value, name: &str) -> Option<u64> {
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array)?;
    let mut ports = containers
        .iter()
        .filter_map(|c| c["ports"].as_array())
        .flatten();
    ports.find(|port| port["name"] == name)?["containerPort"].as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, ready: &str) -> Arc<Value> {
        Arc::new(json!({
            "metadata": {"name": name, "namespace": "ns", "labels": {"app": "web"}, "uid": name},
            "spec": {"containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]},
            "status": {
                "podIPs": [{"ip": "10.244.0.20"}, {"ip": "fd00::20"}], "phase": "Running",
                "conditions": [{"type": "Ready", "status": ready}],
            },
        }))
    }

    #[test]
    fn a_slice_has_the_pods_of_its_family_and_named_ports_as_numbers() {
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "web", "namespace": "ns", "uid": "s"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]},
        });
        let (a, b) = (pod("a", "True"), pod("b", "False"));
        assert!(chooses(&service, &a));
        let made = slice(&service, &[&a, &b], "IPv6");
        assert_eq!(made["endpoints"][0]["addresses"], json!(["fd00::20"]));
        assert_eq!(made["endpoints"][0]["conditions"]["ready"], true);
        assert_eq!(made["endpoints"][1]["conditions"]["ready"], false);
        assert_eq!(
            made["ports"],
            json!([{"name": "", "protocol": "TCP", "port": 8080}])
        );
    }
}
