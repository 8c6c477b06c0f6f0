//! `clusterIP`, `clusterIPs`, `ipFamilies` and `ipFamilyPolicy`
//! (`ValidateServiceClusterIPsRelatedFields`), and addresses that name no host
//! (`ValidateNonSpecialIP`).

use std::net::IpAddr;

use serde_json::Value;

use crate::validate::Findings;

pub(super) const ANY_IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];
const POLICIES: [&str; 3] = ["PreferDualStack", "RequireDualStack", "SingleStack"];

/// Checks these fields against each other.
pub(crate) fn cluster_ips(spec: &Value, findings: &mut Findings) {
    if spec["type"] == "ExternalName" {
        return;
    }
    let texts = |field: &str| -> Vec<&str> {
        let items = spec[field].as_array().into_iter().flatten();
        items
            .map(|item| item.as_str().unwrap_or_default())
            .collect()
    };
    let path = "spec.clusterIPs";
    let (addresses, families) = (texts("clusterIPs"), texts("ipFamilies"));
    match spec["clusterIP"].as_str().unwrap_or_default() {
        "" if !addresses.is_empty() => {
            let detail = "must be empty when `clusterIP` is not specified";
            findings.invalid(path, addresses.clone(), detail);
        }
        "" => {}
        _ if addresses.is_empty() => findings.required(path, ""),
        first if addresses[0] != first => {
            let detail = "first value must match `clusterIP`";
            findings.invalid(path, addresses.clone(), detail);
        }
        _ => {}
    }
    for (index, family) in families.iter().enumerate() {
        let path = format!("spec.ipFamilies[{index}]");
        if !FAMILIES.contains(family) {
            findings.unsupported(path.as_str(), family, &FAMILIES);
        }
        if families[..index].contains(family) {
            findings.duplicate(path, *family);
        }
    }
    let policy = spec["ipFamilyPolicy"].as_str().unwrap_or_default();
    if !policy.is_empty() && !POLICIES.contains(&policy) {
        findings.unsupported("spec.ipFamilyPolicy", policy, &POLICIES);
    }
    let mut parsed: Vec<IpAddr> = Vec::new();
    for (index, address) in addresses.iter().enumerate() {
        if index == 0 && *address == "None" {
            if addresses.len() > 1 {
                let detail = "'None' must be the first and only value";
                findings.invalid(path, addresses.clone(), detail);
            }
            continue;
        }
        match address.parse() {
            Ok(address) => parsed.push(address),
            Err(_) => findings.invalid(format!("{path}[{index}]"), *address, ANY_IP),
        }
    }
    if addresses.len() > 2 {
        findings.invalid(path, addresses.clone(), "may only hold up to 2 values");
    }
    // Families of what is no address would only add to what was said.
    if parsed.len() != addresses.len() {
        return;
    }
    if let [first, second, ..] = parsed[..]
        && (first.is_ipv4() == second.is_ipv4() || parsed.len() > 2)
    {
        let detail = "may specify no more than one IP for each IP family";
        findings.invalid(path, addresses.clone(), detail);
    }
    for (index, (address, family)) in parsed.iter().zip(&families).enumerate() {
        let is_v4 = address.is_ipv4();
        if FAMILIES.contains(family) && (*family == "IPv4") != is_v4 {
            let detail =
                format!("expected an {family} value as indicated by `ipFamilies[{index}]`");
            findings.invalid(format!("{path}[{index}]"), addresses[index], &detail);
        }
    }
}

/// Complains of an address that names no one host.
pub(crate) fn special(path: &str, written: &str, address: IpAddr, findings: &mut Findings) {
    if address.is_unspecified() {
        findings.invalid(
            path,
            written,
            &format!("may not be unspecified ({written})"),
        );
    }
    if address.is_loopback() {
        let detail = "may not be in the loopback range (127.0.0.0/8, ::1/128)";
        findings.invalid(path, written, detail);
    }
    let (link, multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => {
            let first = v6.segments()[0];
            (first & 0xffc0 == 0xfe80, first & 0xff0f == 0xff02)
        }
    };
    if link {
        let detail = "may not be in the link-local range (169.254.0.0/16, fe80::/10)";
        findings.invalid(path, written, detail);
    }
    if multicast {
        let detail = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)";
        findings.invalid(path, written, detail);
    }
}
