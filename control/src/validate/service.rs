//! Service (`pkg/apis/core/validation/validation.go`, `ValidateService`), as far as the fields
//! that name packets go.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Findings, names};
use crate::objects::Object;

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

pub(super) fn validate(object: &Object, old: Option<&Object>, findings: &mut Findings) {
    let Some(spec) = object.as_service().and_then(|s| s.spec.as_ref()) else {
        findings.required("spec.ports", "");
        return;
    };
    let kind = spec.type_.as_deref().unwrap_or("ClusterIP");
    if !TYPES.contains(&kind) {
        findings.unsupported("spec.type", kind, &TYPES);
    }
    let ports = spec.ports.as_deref().unwrap_or_default();
    let cluster_ip = spec.cluster_ip.as_deref().unwrap_or_default();
    if ports.is_empty() && cluster_ip != "None" && kind != "ExternalName" {
        findings.required("spec.ports", "");
    }
    if kind == "ExternalName" && spec.external_name.as_deref().unwrap_or_default().is_empty() {
        findings.required("spec.externalName", "");
    }
    let mut seen = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let path = format!("spec.ports[{index}]");
        match port.name.as_deref().filter(|name| !name.is_empty()) {
            None if ports.len() > 1 => findings.required(format!("{path}.name"), ""),
            None => {}
            Some(name) => {
                for message in names::is_dns_1123_label(name) {
                    findings.invalid(format!("{path}.name"), name, &message);
                }
                if ports[..index]
                    .iter()
                    .any(|p| p.name.as_deref() == Some(name))
                {
                    findings.duplicate(format!("{path}.name"), name);
                }
            }
        }
        findings.port_number(format!("{path}.port"), port.port);
        findings.protocol(format!("{path}.protocol"), port.protocol.as_deref());
        match &port.target_port {
            Some(IntOrString::Int(0)) | None => {}
            Some(IntOrString::Int(number)) => {
                findings.port_number(format!("{path}.targetPort"), *number);
            }
            Some(IntOrString::String(name)) => {
                for message in names::is_port_name(name) {
                    findings.invalid(format!("{path}.targetPort"), name.as_str(), &message);
                }
            }
        }
        let key = (port.port, port.protocol.as_deref().unwrap_or("TCP"));
        if seen.contains(&key) {
            let value = serde_json::json!({"port": key.0, "protocol": key.1});
            findings.duplicate(path, value);
        }
        seen.push(key);
    }
    cluster_ip_of(object, old, cluster_ip, findings);
    let selector = spec.selector.iter().flatten();
    super::metadata::labels(
        "spec.selector",
        selector.map(|(key, value)| (key.as_str(), value.as_str())),
        findings,
    );
}

fn cluster_ip_of(object: &Object, old: Option<&Object>, cluster_ip: &str, findings: &mut Findings) {
    let path = "spec.clusterIPs[0]";
    if !cluster_ip.is_empty()
        && cluster_ip != "None"
        && cluster_ip.parse::<std::net::IpAddr>().is_err()
    {
        let message = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        findings.invalid(path, cluster_ip, message);
    }
    let external = |o: &Object| o.value()["spec"]["type"] == "ExternalName";
    if let Some(old) = old
        && !external(old)
        && !external(object)
    {
        let before = old.value()["spec"]["clusterIP"]
            .as_str()
            .unwrap_or_default();
        if !before.is_empty() && before != cluster_ip {
            let value = serde_json::json!([cluster_ip]);
            findings.invalid("spec.clusterIPs[0]", value, "may not change once set");
        }
    }
}
