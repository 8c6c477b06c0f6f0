//! NetworkPolicy (`pkg/apis/networking/validation/validation.go`, Kubernetes 1.34).

use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;

use super::{Findings, names, selectors};
use crate::cidr;
use crate::objects::Object;

pub(super) fn validate(object: &Object, old: Option<&Object>, findings: &mut Findings) {
    let spec = object.as_network_policy().and_then(|p| p.spec.as_ref());
    let Some(spec) = spec else {
        return;
    };
    let kept = old.map(known_cidrs).unwrap_or_default();
    if let Some(selector) = &spec.pod_selector {
        selectors::validate(selector, "spec.podSelector", findings);
    }
    for (index, rule) in spec.ingress.iter().flatten().enumerate() {
        let path = format!("spec.ingress[{index}]");
        ports(rule.ports.as_deref(), &path, findings);
        peers(
            rule.from.as_deref(),
            &format!("{path}.from"),
            &kept,
            findings,
        );
    }
    for (index, rule) in spec.egress.iter().flatten().enumerate() {
        let path = format!("spec.egress[{index}]");
        ports(rule.ports.as_deref(), &path, findings);
        peers(rule.to.as_deref(), &format!("{path}.to"), &kept, findings);
    }
    let types = spec.policy_types.as_deref().unwrap_or_default();
    if types.len() > 2 {
        findings.invalid(
            "spec.policyTypes",
            json!(types),
            "may not specify more than two policyTypes",
        );
        return;
    }
    for (index, name) in types.iter().enumerate() {
        if name != "Ingress" && name != "Egress" {
            let path = format!("spec.policyTypes[{index}]");
            findings.unsupported(path, name, &["Ingress", "Egress"]);
        }
    }
}

/// The CIDRs of an object that is stored: an update may keep what was accepted once.
fn known_cidrs(old: &Object) -> Vec<String> {
    let spec = old.as_network_policy().and_then(|p| p.spec.as_ref());
    let from = spec
        .iter()
        .flat_map(|spec| spec.ingress.iter().flatten())
        .flat_map(|rule| rule.from.iter().flatten());
    let to = spec
        .iter()
        .flat_map(|spec| spec.egress.iter().flatten())
        .flat_map(|rule| rule.to.iter().flatten());
    from.chain(to)
        .filter_map(|peer| peer.ip_block.as_ref())
        .flat_map(|block| {
            let except = block.except.iter().flatten();
            std::iter::once(&block.cidr).chain(except).cloned()
        })
        .collect()
}

fn ports(ports: Option<&[NetworkPolicyPort]>, path: &str, findings: &mut Findings) {
    for (index, port) in ports.iter().copied().flatten().enumerate() {
        let path = format!("{path}.ports[{index}]");
        findings.protocol(format!("{path}.protocol"), port.protocol.as_deref());
        let end_path = format!("{path}.endPort");
        match (&port.port, port.end_port) {
            (Some(IntOrString::Int(number)), end) => {
                findings.port_number(format!("{path}.port"), *number);
                if let Some(end) = end {
                    if end < *number {
                        let message = "must be greater than or equal to `port`";
                        findings.invalid(end_path.as_str(), end, message);
                    }
                    findings.port_number(end_path, end);
                }
            }
            (Some(IntOrString::String(name)), end) => {
                if let Some(end) = end {
                    let message = "may not be specified when `port` is non-numeric";
                    findings.invalid(end_path, end, message);
                }
                for message in names::is_port_name(name) {
                    findings.invalid(format!("{path}.port"), name.as_str(), &message);
                }
            }
            (None, Some(end)) => {
                let message = "may not be specified when `port` is not specified";
                findings.invalid(end_path, end, message);
            }
            (None, None) => {}
        }
    }
}

fn peers(
    peers: Option<&[NetworkPolicyPeer]>,
    path: &str,
    kept: &[String],
    findings: &mut Findings,
) {
    for (index, peer) in peers.iter().copied().flatten().enumerate() {
        let path = format!("{path}[{index}]");
        if let Some(selector) = &peer.pod_selector {
            selectors::validate(selector, &format!("{path}.podSelector"), findings);
        }
        if let Some(selector) = &peer.namespace_selector {
            selectors::validate(selector, &format!("{path}.namespaceSelector"), findings);
        }
        if let Some(block) = &peer.ip_block {
            ip_block(block, &format!("{path}.ipBlock"), kept, findings);
        }
        let selected = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
        match (selected, peer.ip_block.is_some()) {
            (false, false) => findings.required(path, "must specify a peer"),
            (true, true) => {
                findings.forbidden(path, "may not specify both ipBlock and another peer");
            }
            _ => {}
        }
    }
}

fn ip_block(block: &IPBlock, path: &str, kept: &[String], findings: &mut Findings) {
    if block.cidr.is_empty() {
        findings.required(format!("{path}.cidr"), "");
        return;
    }
    let Some(whole) = checked(&block.cidr, format!("{path}.cidr"), kept, findings) else {
        return;
    };
    for (index, text) in block.except.iter().flatten().enumerate() {
        let path = format!("{path}.except[{index}]");
        let Some(part) = checked(text, path.clone(), kept, findings) else {
            continue;
        };
        let inside = whole.net.contains(&part.address);
        if !inside || whole.net.prefix_len() >= part.net.prefix_len() {
            findings.invalid(path, text.as_str(), "must be a strict subset of `cidr`");
        }
    }
}

/// The block at `path`, with the API server's complaints and warnings about how it is written.
pub(super) fn checked(
    text: &str,
    path: String,
    kept: &[String],
    findings: &mut Findings,
) -> Option<cidr::Cidr> {
    let Some(block) = cidr::parse(text) else {
        let message = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
        findings.invalid(path, text, message);
        return None;
    };
    if kept.iter().any(|known| known == text) {
        return Some(block);
    }
    let ambiguous = block.address != block.net.network();
    if ambiguous {
        // IPv4 in IPv6 too has an IPv6 length here, as the API server prints it.
        let single = if text.contains(':') { 128 } else { 32 };
        findings.warnings.push(format!(
            "{path}: CIDR value {text:?} is ambiguous in this context (should be {:?} or {:?}?)",
            block.net.to_string(),
            format!("{}/{single}", block.address)
        ));
    }
    if block.odd {
        findings.warnings.push(format!(
            "{path}: non-standard CIDR value {text:?} will be considered invalid in a future \
             Kubernetes release: use {:?}",
            block.net.to_string()
        ));
    }
    let canonical = format!("{}/{}", block.address, block.net.prefix_len());
    if !ambiguous && !block.odd && block.address.is_ipv6() && canonical != text {
        findings.warnings.push(format!(
            "{path}: IPv6 CIDR value {text:?} should be in RFC 5952 canonical format \
             ({canonical:?})"
        ));
    }
    Some(block)
}
