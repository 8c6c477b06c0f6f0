//! Nodes, Namespaces, ConfigMaps, Secrets and ServiceAccounts as `kubectl describe` prints them.

use serde_json::Value;

use crate::cli::base64;
use crate::cli::columns::node_roles;

use super::containers::{conditions, sorted};
use super::page::{Page, items, rfc1123, text};
use super::scheduling;
use super::world::World;

/// `Namespace`.
pub fn namespace(page: &mut Page, object: &Value, world: &World) {
    page.field(0, "Name", text(object, "/metadata/name"));
    page.labels(object);
    page.annotations(object);
    let phase = match text(object, "/status/phase") {
        "" => "Active",
        phase => phase,
    };
    page.field(0, "Status", phase);
    page.line(0, "");
    scheduling::quotas(page, &world.others("ResourceQuota"));
    page.line(0, "");
    scheduling::limit_ranges(page, &world.others("LimitRange"));
}

/// `ConfigMap`.
pub fn config_map(page: &mut Page, object: &Value) {
    page.field(0, "Name", text(object, "/metadata/name"));
    page.field(0, "Namespace", text(object, "/metadata/namespace"));
    page.labels(object);
    page.annotations(object);
    page.line(0, "\nData\n====");
    for (key, value) in sorted(object.get("data")) {
        page.verbatim(format!(
            "{key}:\n----\n{}\n",
            value.as_str().unwrap_or_default()
        ));
    }
    page.line(0, "\nBinaryData\n====");
    for (key, value) in sorted(object.get("binaryData")) {
        page.verbatim(format!("{key}: {} bytes", decoded(value)));
    }
    page.line(0, "");
}

/// The bytes of a value in base64.
fn decoded(value: &Value) -> usize {
    base64::decode(value.as_str().unwrap_or_default()).map_or(0, |bytes| bytes.len())
}

/// `Secret`, without what it hides.
pub fn secret(page: &mut Page, object: &Value) {
    page.field(0, "Name", text(object, "/metadata/name"));
    page.field(0, "Namespace", text(object, "/metadata/namespace"));
    page.labels(object);
    page.annotations(object);
    let kind = match text(object, "/type") {
        "" => "Opaque",
        kind => kind,
    };
    page.line(0, "");
    page.field(0, "Type", kind);
    page.line(0, "\nData\n====");
    for (key, value) in sorted(object.get("data")) {
        page.field(0, key, format!("{} bytes", decoded(value)));
    }
}

/// `ServiceAccount`.
pub fn service_account(page: &mut Page, object: &Value) {
    page.field(0, "Name", text(object, "/metadata/name"));
    page.field(0, "Namespace", text(object, "/metadata/namespace"));
    page.labels(object);
    page.annotations(object);
    for (label, field) in [
        ("Image pull secrets", "/imagePullSecrets"),
        ("Mountable secrets", "/secrets"),
        ("Tokens", "/none"),
    ] {
        let names: Vec<String> = items(object, field)
            .iter()
            .map(|one| text(one, "/name").to_owned())
            .collect();
        page.list(0, label, &names);
    }
}

/// `Node`.
pub fn node(page: &mut Page, object: &Value, world: &World, now: i64) {
    page.field(0, "Name", text(object, "/metadata/name"));
    let roles = node_roles(object).join(",");
    page.field(0, "Roles", if roles.is_empty() { "<none>" } else { &roles });
    page.labels(object);
    page.annotations(object);
    page.field(
        0,
        "CreationTimestamp",
        rfc1123(text(object, "/metadata/creationTimestamp")),
    );
    let taints: Vec<String> = { items(object, "/spec/taints").iter() }
        .map(|taint| {
            let (key, effect) = (text(taint, "/key"), text(taint, "/effect"));
            match text(taint, "/value") {
                "" => format!("{key}:{effect}"),
                value => format!("{key}={value}:{effect}"),
            }
        })
        .collect();
    page.list(0, "Taints", &taints);
    let unschedulable = object.pointer("/spec/unschedulable") == Some(&Value::Bool(true));
    page.field(0, "Unschedulable", unschedulable.to_string());
    conditions(
        page,
        object,
        &[
            ("Type", "/type"),
            ("Status", "/status"),
            ("LastHeartbeatTime", "/lastHeartbeatTime"),
            ("LastTransitionTime", "/lastTransitionTime"),
            ("Reason", "/reason"),
            ("Message", "/message"),
        ],
    );
    page.line(0, "Addresses:");
    for address in items(object, "/status/addresses") {
        page.field(1, text(address, "/type"), text(address, "/address"));
    }
    for (label, field) in [
        ("Capacity", "/status/capacity"),
        ("Allocatable", "/status/allocatable"),
    ] {
        let quantities = sorted(object.pointer(field));
        if !quantities.is_empty() {
            page.line(0, format!("{label}:"));
        }
        for (name, quantity) in quantities {
            page.field(
                1,
                name,
                quantity
                    .as_str()
                    .map_or_else(|| quantity.to_string(), str::to_owned),
            );
        }
    }
    page.line(0, "System Info:");
    for (label, field) in [
        ("Machine ID", "machineID"),
        ("System UUID", "systemUUID"),
        ("Boot ID", "bootID"),
        ("Kernel Version", "kernelVersion"),
        ("OS Image", "osImage"),
        ("Operating System", "operatingSystem"),
        ("Architecture", "architecture"),
        ("Container Runtime Version", "containerRuntimeVersion"),
        ("Kubelet Version", "kubeletVersion"),
    ] {
        page.field(1, label, text(object, &format!("/status/nodeInfo/{field}")));
    }
    match text(object, "/spec/podCIDR") {
        "" => {}
        range => page.field(0, "PodCIDR", range),
    }
    let ranges: Vec<&str> = items(object, "/spec/podCIDRs")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    if !ranges.is_empty() {
        page.field(0, "PodCIDRs", ranges.join(","));
    }
    match text(object, "/spec/providerID") {
        "" => {}
        provider => page.field(0, "ProviderID", provider),
    }
    let pods = world.pods_on(text(object, "/metadata/name"));
    scheduling::pods_of_node(page, object, &pods, now);
}
