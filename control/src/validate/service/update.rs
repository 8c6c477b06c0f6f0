//! What of a Service may not change (`validateUpgradeDowngradeClusterIPs` and its like).

use k8s_openapi::api::core::v1::ServiceSpec;

use super::{is_headless, kind_of, list};
use crate::validate::Findings;

const FIXED: &str = "may not change once set";

pub(super) fn validate(spec: &ServiceSpec, old: &ServiceSpec, findings: &mut Findings) {
    let external = |spec: &ServiceSpec| kind_of(spec) == "ExternalName";
    if !external(spec) && !external(old) {
        if !(is_headless(spec) && is_headless(old)) {
            addresses(spec, old, findings);
        }
        if !is_headless(spec) && !is_headless(old) {
            families(spec, old, findings);
        }
    }
    let balanced = |spec: &ServiceSpec| kind_of(spec) == "LoadBalancer";
    if balanced(spec) && balanced(old) && spec.load_balancer_class != old.load_balancer_class {
        let class = spec.load_balancer_class.as_deref();
        findings.invalid("spec.loadBalancerClass", class, FIXED);
    }
    let checked = |spec: &ServiceSpec| {
        balanced(spec) && spec.external_traffic_policy.as_deref() == Some("Local")
    };
    if checked(spec) && checked(old) && spec.health_check_node_port != old.health_check_node_port {
        findings.forbidden("spec.healthCheckNodePort", "field is immutable");
    }
}

fn addresses(spec: &ServiceSpec, old: &ServiceSpec, findings: &mut Findings) {
    let value = list(spec.cluster_ips.as_ref());
    let now = spec.cluster_ips.as_deref().unwrap_or_default();
    let before = old.cluster_ips.as_deref().unwrap_or_default();
    if now.is_empty() && !before.is_empty() {
        let detail = "primary clusterIP can not be unset";
        findings.invalid("spec.clusterIPs[0]", value, detail);
        return;
    }
    // Where a family came or went only the first address can be compared.
    let compared = if now.len() == before.len() {
        now.len()
    } else {
        1
    };
    for (index, (now, before)) in now.iter().zip(before).enumerate().take(compared) {
        if now != before {
            findings.invalid(format!("spec.clusterIPs[{index}]"), value.clone(), FIXED);
        }
    }
    if now.len() == 1 && before.len() == 2 {
        single(spec, "clusterIP", findings);
    }
}

fn families(spec: &ServiceSpec, old: &ServiceSpec, findings: &mut Findings) {
    let value = list(spec.ip_families.as_ref());
    let now = spec.ip_families.as_deref().unwrap_or_default();
    let before = old.ip_families.as_deref().unwrap_or_default();
    if now.is_empty() && !before.is_empty() {
        let detail = "primary ipFamily can not be unset";
        findings.invalid("spec.ipFamilies[0]", value, detail);
        return;
    }
    let compared = if now.len() == before.len() {
        now.len()
    } else {
        1
    };
    let mut pairs = now.iter().zip(before).take(compared);
    if pairs.any(|(now, before)| now != before) {
        findings.invalid("spec.ipFamilies[0]", value, FIXED);
    }
    if now.len() == 1 && before.len() == 2 {
        single(spec, "ipFamily", findings);
    }
}

/// A family is given up only by those who say so.
fn single(spec: &ServiceSpec, what: &str, findings: &mut Findings) {
    let policy = spec.ip_family_policy.as_deref();
    if policy != Some("SingleStack") {
        let detail = format!("must be set to 'SingleStack' when releasing the secondary {what}");
        findings.invalid("spec.ipFamilyPolicy", policy, &detail);
    }
}
