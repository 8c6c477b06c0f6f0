//! Service (`pkg/apis/core/validation/validation.go`, `ValidateService`, `ValidateServiceUpdate`).

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::{Findings, metadata, names};
use crate::cidr;
use crate::objects::Object;

mod addresses;
mod update;

pub(crate) use addresses::{cluster_ips, special};

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const AFFINITIES: [&str; 2] = ["ClientIP", "None"];
const TRAFFIC_POLICIES: [&str; 2] = ["Cluster", "Local"];
const DISTRIBUTIONS: [&str; 3] = ["PreferClose", "PreferSameNode", "PreferSameZone"];
/// Seconds that a client can stay with its backend: a day.
const AFFINITY_MAX_S: i32 = 86_400;

pub(super) fn validate(object: &Object, old: Option<&Object>, findings: &mut Findings) {
    let Some(spec) = object.as_service().and_then(|s| s.spec.as_ref()) else {
        findings.required("spec.ports", "");
        return;
    };
    if let Some(old) = old
        .and_then(Object::as_service)
        .and_then(|s| s.spec.as_ref())
    {
        update::validate(spec, old, findings);
    }
    kind(spec, findings);
    ports(spec, findings);
    let selector = spec.selector.iter().flatten();
    metadata::labels(
        "spec.selector",
        selector.map(|(key, value)| (key.as_str(), value.as_str())),
        findings,
    );
    affinity(spec, findings);
    cluster_ips(&object.value()["spec"], findings);
    for (index, address) in spec.external_ips.iter().flatten().enumerate() {
        let path = format!("spec.externalIPs[{index}]");
        match address.parse::<IpAddr>() {
            Ok(parsed) => special(&path, address, parsed, findings),
            Err(_) => findings.invalid(path, address.as_str(), addresses::ANY_IP),
        }
    }
    if !TYPES.contains(&kind_of(spec)) {
        findings.unsupported("spec.type", kind_of(spec), &TYPES);
    }
    node_ports(spec, findings);
    duplicates(spec, findings);
    balancer(spec, findings);
    traffic(spec, findings);
}

fn kind_of(spec: &ServiceSpec) -> &str {
    spec.type_.as_deref().unwrap_or("ClusterIP")
}

fn ports_of(spec: &ServiceSpec) -> &[ServicePort] {
    spec.ports.as_deref().unwrap_or_default()
}

fn is_headless(spec: &ServiceSpec) -> bool {
    match spec.cluster_ips.as_deref() {
        Some([only]) => only == "None",
        Some([_, _, ..]) => false,
        _ => spec.cluster_ip.as_deref() == Some("None"),
    }
}

/// What the type demands and forbids.
fn kind(spec: &ServiceSpec, findings: &mut Findings) {
    let kind = kind_of(spec);
    let external_name = kind == "ExternalName";
    if ports_of(spec).is_empty() && !is_headless(spec) && !external_name {
        findings.required("spec.ports", "");
    }
    if is_headless(spec) && ["LoadBalancer", "NodePort"].contains(&kind) {
        let detail = format!("may not be set to 'None' for {kind} services");
        findings.invalid("spec.clusterIPs[0]", "None", &detail);
    }
    if !external_name {
        return;
    }
    let count = |texts: &Option<Vec<String>>| texts.as_ref().map_or(0, Vec::len);
    for (field, is_set) in [
        ("clusterIPs", count(&spec.cluster_ips) > 0),
        ("ipFamilies", count(&spec.ip_families) > 0),
        ("ipFamilyPolicy", spec.ip_family_policy.is_some()),
    ] {
        if is_set {
            let path = format!("spec.{field}");
            findings.forbidden(path, "may not be set for ExternalName services");
        }
    }
    let name = spec.external_name.as_deref().unwrap_or_default();
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        findings.required("spec.externalName", "");
        return;
    }
    for message in names::is_dns_1123_subdomain(name) {
        findings.invalid("spec.externalName", name, &message);
    }
}

fn ports(spec: &ServiceSpec, findings: &mut Findings) {
    let ports = ports_of(spec);
    for (index, port) in ports.iter().enumerate() {
        let path = format!("spec.ports[{index}]");
        match port.name.as_deref().filter(|name| !name.is_empty()) {
            None if ports.len() > 1 => findings.required(format!("{path}.name"), ""),
            None => {}
            Some(name) => {
                for message in names::is_dns_1123_label(name) {
                    findings.invalid(format!("{path}.name"), name, &message);
                }
                let mut before = ports[..index].iter();
                if before.any(|p| p.name.as_deref() == Some(name)) {
                    findings.duplicate(format!("{path}.name"), name);
                }
            }
        }
        findings.port_number(format!("{path}.port"), port.port);
        findings.protocol(format!("{path}.protocol"), port.protocol.as_deref());
        match &port.target_port {
            None => {}
            // Not filled in yet.
            Some(IntOrString::Int(0)) if port.port != 0 => {}
            Some(IntOrString::Int(number)) => {
                findings.port_number(format!("{path}.targetPort"), *number);
            }
            Some(IntOrString::String(name)) => {
                for message in names::is_port_name(name) {
                    findings.invalid(format!("{path}.targetPort"), name.as_str(), &message);
                }
            }
        }
        if let Some(protocol) = &port.app_protocol {
            for message in names::is_qualified_name(protocol) {
                findings.invalid(format!("{path}.appProtocol"), protocol.as_str(), &message);
            }
        }
    }
}

fn affinity(spec: &ServiceSpec, findings: &mut Findings) {
    let affinity = spec.session_affinity.as_deref().unwrap_or("None");
    if !AFFINITIES.contains(&affinity) {
        findings.unsupported("spec.sessionAffinity", affinity, &AFFINITIES);
    }
    if affinity != "ClientIP" {
        return;
    }
    let path = "spec.sessionAffinityConfig";
    let Some(config) = &spec.session_affinity_config else {
        findings.required(path, "when session affinity type is ClientIP");
        return;
    };
    let Some(client) = &config.client_ip else {
        let path = format!("{path}.clientIP");
        findings.required(path, "when session affinity type is ClientIP");
        return;
    };
    let path = format!("{path}.clientIP.timeoutSeconds");
    match client.timeout_seconds {
        None => findings.required(path, "when session affinity type is ClientIP"),
        Some(seconds) if !(1..=AFFINITY_MAX_S).contains(&seconds) => {
            let detail = format!("must be greater than 0 and less than {AFFINITY_MAX_S}");
            findings.invalid(path, seconds, &detail);
        }
        Some(_) => {}
    }
}

fn node_ports(spec: &ServiceSpec, findings: &mut Findings) {
    for (index, port) in ports_of(spec).iter().enumerate() {
        let path = format!("spec.ports[{index}].nodePort");
        if port.node_port.unwrap_or(0) != 0 && kind_of(spec) == "ClusterIP" {
            findings.forbidden(path, "may not be used when `type` is 'ClusterIP'");
        }
    }
}

fn protocol_of(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

/// Node ports and ports, each with its protocol, at most once.
fn duplicates(spec: &ServiceSpec, findings: &mut Findings) {
    let ports = ports_of(spec);
    for (index, port) in ports.iter().enumerate() {
        let number = port.node_port.unwrap_or(0);
        let same =
            |p: &&ServicePort| p.node_port == port.node_port && protocol_of(p) == protocol_of(port);
        if number != 0 && ports[..index].iter().any(|p| same(&p)) {
            findings.duplicate(format!("spec.ports[{index}].nodePort"), number);
        }
    }
    for (index, port) in ports.iter().enumerate() {
        let same = |p: &ServicePort| p.port == port.port && protocol_of(p) == protocol_of(port);
        if ports[..index].iter().any(same) {
            // As Go writes a port of which only the key is set.
            let value = json!({
                "Name": "", "Protocol": protocol_of(port), "AppProtocol": null,
                "Port": port.port, "TargetPort": 0, "NodePort": 0,
            });
            findings.duplicate(format!("spec.ports[{index}]"), value);
        }
    }
}

fn balancer(spec: &ServiceSpec, findings: &mut Findings) {
    let balanced = kind_of(spec) == "LoadBalancer";
    let only = "may only be used when `type` is 'LoadBalancer'";
    let ranges = spec.load_balancer_source_ranges.as_deref();
    let ranges = ranges.unwrap_or_default();
    if !ranges.is_empty() && !balanced {
        findings.forbidden("spec.LoadBalancerSourceRanges", only);
    }
    for (index, range) in ranges.iter().enumerate() {
        let range = range.trim();
        if cidr::parse(range).is_none() {
            let path = format!("spec.LoadBalancerSourceRanges[{index}]");
            let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            findings.invalid(path, range, detail);
        }
    }
    if spec.allocate_load_balancer_node_ports.is_some() && !balanced {
        findings.forbidden("spec.allocateLoadBalancerNodePorts", only);
    }
    if let Some(class) = &spec.load_balancer_class {
        if balanced {
            for message in names::is_qualified_name(class) {
                findings.invalid("spec.loadBalancerClass", class.as_str(), &message);
            }
        } else {
            findings.forbidden("spec.loadBalancerClass", only);
        }
    }
}

fn traffic(spec: &ServiceSpec, findings: &mut Findings) {
    let external = spec.external_traffic_policy.as_deref().unwrap_or_default();
    let balanced = kind_of(spec) == "LoadBalancer";
    let has_external_ips = spec.external_ips.iter().flatten().next().is_some();
    let reached = balanced
        || kind_of(spec) == "NodePort"
        || (kind_of(spec) == "ClusterIP" && has_external_ips);
    let path = "spec.externalTrafficPolicy";
    match external {
        "" => {}
        _ if !reached => {
            let detail = "may only be set for externally-accessible services";
            findings.invalid(path, external, detail);
        }
        _ if !TRAFFIC_POLICIES.contains(&external) => {
            findings.unsupported(path, external, &TRAFFIC_POLICIES);
        }
        _ => {}
    }
    let health_check = spec.health_check_node_port.unwrap_or(0);
    let path = "spec.healthCheckNodePort";
    if !(balanced && external == "Local") {
        if health_check != 0 {
            let detail = "may only be set when `type` is 'LoadBalancer' and \
                          `externalTrafficPolicy` is 'Local'";
            findings.invalid(path, health_check, detail);
        }
    } else if health_check == 0 {
        findings.required(path, "");
    } else {
        findings.port_number(path.to_owned(), health_check);
    }
    if let Some(internal) = spec.internal_traffic_policy.as_deref()
        && !TRAFFIC_POLICIES.contains(&internal)
    {
        findings.unsupported("spec.internalTrafficPolicy", internal, &TRAFFIC_POLICIES);
    }
    if let Some(wanted) = spec.traffic_distribution.as_deref()
        && !DISTRIBUTIONS.contains(&wanted)
    {
        findings.unsupported("spec.trafficDistribution", wanted, &DISTRIBUTIONS);
    }
}

/// Texts as a value in a message.
fn list(texts: Option<&Vec<String>>) -> Value {
    texts.map_or(Value::Null, |texts| json!(texts))
}
