//! Which address families a Service has: `ipFamilyPolicy`, `ipFamilies`, and how `clusterIP` and
//! `clusterIPs` follow each other (alloc.go, `initIPFamilyFields`; storage.go,
//! `patchAllocatedValues`, `normalizeClusterIPs`, `dropTypeDependentFields`).

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{Named, has_selector, is_external_name, is_headless, put, text, texts};
use crate::cluster::{Cluster, Refusal};
use crate::validate::{Findings, service};

const SINGLE: &str = "SingleStack";
const PREFER: &str = "PreferDualStack";
const REQUIRE: &str = "RequireDualStack";

/// Puts back what was handed out and the client left out.
pub(super) fn keep(spec: &mut Value, old: &Value) {
    if is_external_name(old) || is_external_name(spec) {
        return;
    }
    if text(spec, "clusterIP").is_empty() {
        put(spec, "clusterIP", old["clusterIP"].clone());
    }
    if texts(spec, "clusterIPs").is_empty() && spec["clusterIP"] == old["clusterIP"] {
        put(spec, "clusterIPs", old["clusterIPs"].clone());
    }
}

/// Has `clusterIPs` follow `clusterIP`, for clients that know only the one.
pub(super) fn normalize(spec: &mut Value, old: Option<&Value>) {
    let address = text(spec, "clusterIP").to_owned();
    let addresses = texts(spec, "clusterIPs");
    let Some(old) = old else {
        if !address.is_empty() && addresses.is_empty() {
            put(spec, "clusterIPs", json!([address]));
        }
        return;
    };
    let (before, all_before) = (text(old, "clusterIP"), texts(old, "clusterIPs"));
    if !before.is_empty() && address.is_empty() && addresses == all_before {
        put(spec, "clusterIPs", Value::Null);
    } else if !all_before.is_empty() && addresses.is_empty() && address == before {
        put(spec, "clusterIP", Value::Null);
    } else if address != before && addresses == all_before && !address.is_empty() {
        put(spec, "clusterIPs", json!([address]));
    }
}

/// Decides on policy and families.
pub(super) fn settle(
    named: &Named,
    spec: &mut Value,
    old: Option<&Value>,
    cluster: &Cluster,
) -> Result<(), Refusal> {
    if is_external_name(spec) || old.is_some_and(|old| is_as_preferred(spec, old)) {
        return Ok(());
    }
    let headless_by_hand = text(spec, "clusterIP") == "None" && !has_selector(spec);
    if text(spec, "ipFamilyPolicy").is_empty() {
        let before = old.map_or("", |old| text(old, "ipFamilyPolicy"));
        let policy = match before {
            "" if headless_by_hand => REQUIRE,
            "" => SINGLE,
            kept => kept,
        };
        put(spec, "ipFamilyPolicy", policy.into());
    }
    let mut findings = Findings::default();
    service::cluster_ips(spec, &mut findings);
    named.check(&findings)?;
    if let Some(old) = old {
        shrink(spec, old, &mut findings);
    }
    let single = text(spec, "ipFamilyPolicy") == SINGLE;
    for (field, what) in [("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")] {
        if single && texts(spec, field).len() == 2 {
            let detail = format!(
                "must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified"
            );
            findings.invalid("spec.ipFamilyPolicy", SINGLE, &detail);
        }
    }
    let configured = configured(cluster);
    infer(spec, &configured, &mut findings);
    named.check(&findings)?;
    complete(spec, &configured, headless_by_hand, &mut findings);
    named.check(&findings)
}

/// Whether nobody asked for a change of a Service that takes what families there are.
fn is_as_preferred(spec: &Value, old: &Value) -> bool {
    let prefers = |spec: &Value| text(spec, "ipFamilyPolicy") == PREFER;
    let same = |field: &str| texts(spec, field) == texts(old, field);
    prefers(spec) && prefers(old) && same("clusterIPs") && same("ipFamilies")
}

/// An update that says SingleStack gives up the second family; one that does not may not.
fn shrink(spec: &mut Value, old: &Value, findings: &mut Findings) {
    let policy = text(spec, "ipFamilyPolicy").to_owned();
    for (field, what) in [
        ("clusterIPs", "secondary cluster IP"),
        ("ipFamilies", "secondary IP family"),
    ] {
        let (now, before) = (texts(spec, field), texts(old, field));
        if policy == SINGLE && now == before && now.len() > 1 {
            put(spec, field, json!([now[0]]));
        } else if policy != SINGLE && now.len() == 1 && before.len() == 2 && now[0] == before[0] {
            let detail = format!("must be 'SingleStack' to release the {what}");
            findings.invalid("spec.ipFamilyPolicy", policy.as_str(), &detail);
        }
    }
}

/// The families of the configured ranges, the default one first.
fn configured(cluster: &Cluster) -> Vec<&'static str> {
    let ranges = cluster.pools().services.ranges.iter();
    ranges.map(|range| family_of(range.addr())).collect()
}

pub(super) fn family_of(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}

fn other(family: &str) -> &'static str {
    if family == "IPv4" { "IPv6" } else { "IPv4" }
}

/// Families that stated addresses imply.
fn infer(spec: &mut Value, configured: &[&str], findings: &mut Findings) {
    let addresses = texts(spec, "clusterIPs");
    let mut families = texts(spec, "ipFamilies");
    for (index, address) in addresses.iter().enumerate().skip(families.len()) {
        let Ok(parsed) = address.parse() else { break };
        let family = family_of(parsed);
        if configured.contains(&family) {
            families.push(family.to_owned());
        } else {
            let detail = format!("{family} is not configured on this cluster");
            let path = format!("spec.clusterIPs[{index}]");
            findings.invalid(path, addresses.clone(), &detail);
        }
    }
    put(spec, "ipFamilies", families.into());
}

fn complete(
    spec: &mut Value,
    configured: &[&'static str],
    headless_by_hand: bool,
    findings: &mut Findings,
) {
    let policy = text(spec, "ipFamilyPolicy").to_owned();
    let mut families = texts(spec, "ipFamilies");
    if !headless_by_hand {
        if policy == REQUIRE && configured.len() < 2 {
            let detail = "this cluster is not configured for dual-stack services";
            findings.invalid("spec.ipFamilyPolicy", policy.as_str(), detail);
        }
        for (index, family) in families.iter().enumerate() {
            if !configured.contains(&family.as_str()) {
                let path = format!("spec.ipFamilies[{index}]");
                findings.invalid(path, family.as_str(), "not configured on this cluster");
            }
        }
    }
    if families.is_empty() {
        families.extend(configured.first().map(|&first| first.to_owned()));
    }
    // What has no address of ours may have families that we have no range of.
    let dual = policy != SINGLE && (headless_by_hand || configured.len() == 2);
    if let [only] = &families[..]
        && dual
    {
        let second = other(only).to_owned();
        families.push(second);
    }
    put(spec, "ipFamilies", families.into());
}

/// What a Service that has become an ExternalName no longer has, unless the client changed it.
pub(super) fn let_go(spec: &mut Value, old: &Value) {
    if is_external_name(old) || !is_external_name(spec) {
        return;
    }
    let same = |field: &str| spec[field] == old[field];
    if same("clusterIP") && same("clusterIPs") {
        put(spec, "clusterIP", Value::Null);
        put(spec, "clusterIPs", Value::Null);
    }
    for field in ["ipFamilies", "ipFamilyPolicy"] {
        if spec[field] == old[field] {
            put(spec, field, Value::Null);
        }
    }
}

/// The families for which it wants an address, with what is stated.
pub(super) fn wanted(spec: &Value) -> Vec<(String, Option<String>)> {
    if is_external_name(spec) || is_headless(spec) {
        return Vec::new();
    }
    let addresses = texts(spec, "clusterIPs");
    let families = texts(spec, "ipFamilies").into_iter().enumerate();
    families
        .map(|(index, family)| (family, addresses.get(index).cloned()))
        .collect()
}
