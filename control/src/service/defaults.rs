//! `SetDefaults_Service` (`pkg/apis/core/v1/defaults.go`).

use serde_json::{Value, json};

use super::{kind, needs_node_ports, put, text};

/// Seconds that a client stays with its backend if nobody says how long.
pub(super) const AFFINITY_S: u32 = 10_800;

pub(super) fn fill(spec: &mut Value) {
    if !spec.is_object() {
        *spec = json!({});
    }
    let default = |spec: &mut Value, field: &str, value: &str| {
        if text(spec, field).is_empty() {
            put(spec, field, value.into());
        }
    };
    default(spec, "sessionAffinity", "None");
    default(spec, "type", "ClusterIP");
    match text(spec, "sessionAffinity") {
        "None" => put(spec, "sessionAffinityConfig", Value::Null),
        "ClientIP" if spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"].is_null() => {
            let config = json!({"clientIP": {"timeoutSeconds": AFFINITY_S}});
            put(spec, "sessionAffinityConfig", config);
        }
        _ => {}
    }
    ports(spec);
    if is_reached_from_outside(spec) {
        default(spec, "externalTrafficPolicy", "Cluster");
    }
    if ["ClusterIP", "NodePort", "LoadBalancer"].contains(&kind(spec)) {
        default(spec, "internalTrafficPolicy", "Cluster");
    }
    let no_choice = spec["allocateLoadBalancerNodePorts"].is_null();
    if kind(spec) == "LoadBalancer" && no_choice {
        put(spec, "allocateLoadBalancerNodePorts", true.into());
    } else if no_choice {
        put(spec, "allocateLoadBalancerNodePorts", Value::Null);
    }
}

fn ports(spec: &mut Value) {
    let Some(ports) = spec.get_mut("ports").and_then(Value::as_array_mut) else {
        return;
    };
    for port in ports {
        if text(port, "protocol").is_empty() {
            put(port, "protocol", "TCP".into());
        }
        let target = &port["targetPort"];
        if target.is_null() || *target == 0 || *target == "" {
            let number = port["port"].clone();
            put(port, "targetPort", number);
        }
        if port["nodePort"] == 0 {
            put(port, "nodePort", Value::Null);
        }
    }
}

/// `ExternallyAccessible` (`pkg/api/service/util.go`).
pub(super) fn is_reached_from_outside(spec: &Value) -> bool {
    let external = spec["externalIPs"]
        .as_array()
        .is_some_and(|e| !e.is_empty());
    needs_node_ports(spec) || (kind(spec) == "ClusterIP" && external)
}

/// What only the old type had, unless the client changed it.
pub(super) fn let_go(spec: &mut Value, old: &Value) {
    let drop = |spec: &mut Value, field: &str, had: bool, has: bool| {
        if had && !has && spec[field] == old[field] {
            put(spec, field, Value::Null);
        }
    };
    let balanced = |spec: &Value| kind(spec) == "LoadBalancer";
    let (had, has) = (is_reached_from_outside(old), is_reached_from_outside(spec));
    drop(spec, "externalTrafficPolicy", had, has);
    let (had, has) = (balanced(old), balanced(spec));
    drop(spec, "allocateLoadBalancerNodePorts", had, has);
    drop(spec, "loadBalancerClass", had, has);
}
