//! EndpointSlice (`pkg/apis/discovery/validation/validation.go`).

use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::{Findings, names, service};
use crate::objects::Object;

const ADDRESS_TYPES: [&str; 3] = ["FQDN", "IPv4", "IPv6"];
const ENDPOINTS: usize = 1000;
const ADDRESSES: usize = 100;
const PORTS: usize = 20_000;
const ZONES: usize = 8;

pub(super) fn validate(object: &Object, old: Option<&Object>, findings: &mut Findings) {
    let Some(slice) = object.as_endpoint_slice() else {
        return;
    };
    let kind = slice.address_type.as_str();
    if kind.is_empty() {
        findings.required("addressType", "");
    } else if !ADDRESS_TYPES.contains(&kind) {
        findings.unsupported("addressType", kind, &ADDRESS_TYPES);
    }
    if slice.endpoints.len() > ENDPOINTS {
        too_many("endpoints", slice.endpoints.len(), ENDPOINTS, findings);
    } else {
        for (index, endpoint) in slice.endpoints.iter().enumerate() {
            self::endpoint(&format!("endpoints[{index}]"), endpoint, kind, findings);
        }
    }
    ports(slice, findings);
    if let Some(before) = old.and_then(Object::as_endpoint_slice)
        && before.address_type != slice.address_type
    {
        findings.invalid("addressType", kind, "field is immutable");
    }
}

fn too_many(path: &str, count: usize, most: usize, findings: &mut Findings) {
    findings.push(
        path,
        format!("Too many: {count}: must have at most {most} items"),
    );
}

fn endpoint(path: &str, endpoint: &Endpoint, kind: &str, findings: &mut Findings) {
    let at = format!("{path}.addresses");
    if endpoint.addresses.is_empty() {
        findings.required(at.as_str(), "must contain at least 1 address");
    } else if endpoint.addresses.len() > ADDRESSES {
        too_many(&at, endpoint.addresses.len(), ADDRESSES, findings);
    }
    for (index, address) in endpoint.addresses.iter().enumerate() {
        self::address(&format!("{at}[{index}]"), address, kind, findings);
    }
    if let Some(node) = &endpoint.node_name {
        for message in names::is_dns_1123_subdomain(node) {
            findings.invalid(format!("{path}.nodeName"), node.as_str(), &message);
        }
    }
    if let Some(name) = &endpoint.hostname {
        for message in names::is_dns_1123_label(name) {
            findings.invalid(format!("{path}.hostname"), name.as_str(), &message);
        }
    }
    let hints = endpoint.hints.iter();
    let zones: Vec<&str> = hints
        .flat_map(|hints| hints.for_zones.iter().flatten())
        .map(|zone| zone.name.as_str())
        .collect();
    let at = format!("{path}.hints.forZones");
    if zones.len() > ZONES {
        too_many(&at, zones.len(), ZONES, findings);
        return;
    }
    for (index, zone) in zones.iter().enumerate() {
        let at = format!("{at}[{index}].name");
        if zones[..index].contains(zone) {
            findings.duplicate(at.as_str(), *zone);
        }
        for message in names::is_label_value(zone) {
            findings.invalid(at.as_str(), *zone, &message);
        }
    }
}

fn address(path: &str, address: &str, kind: &str, findings: &mut Findings) {
    match kind {
        "IPv4" | "IPv6" => {
            let parsed = address.parse::<IpAddr>();
            match parsed {
                Ok(parsed) if parsed.is_ipv4() == (kind == "IPv4") => {
                    service::special(path, address, parsed, findings);
                }
                _ => findings.invalid(path, address, &format!("must be a valid {kind} address")),
            }
        }
        "FQDN" => {
            let name = address.strip_suffix('.').unwrap_or(address);
            for message in names::is_dns_1123_subdomain(name) {
                findings.invalid(path, address, &message);
            }
            if !name.contains('.') {
                let detail = "should be a domain with at least two segments separated by dots";
                findings.invalid(path, address, detail);
            }
        }
        _ => {}
    }
}

fn ports(slice: &EndpointSlice, findings: &mut Findings) {
    let ports = slice.ports.as_deref().unwrap_or_default();
    if ports.len() > PORTS {
        too_many("ports", ports.len(), PORTS, findings);
        return;
    }
    let name_of = |index: usize| ports[index].name.as_deref().unwrap_or_default();
    for (index, port) in ports.iter().enumerate() {
        let path = format!("ports[{index}]");
        let name = name_of(index);
        if !name.is_empty() {
            for message in names::is_dns_1123_label(name) {
                findings.invalid(format!("{path}.name"), name, &message);
            }
        }
        if (0..index).any(|before| name_of(before) == name) {
            findings.duplicate(format!("{path}.name"), name);
        }
        findings.protocol(format!("{path}.protocol"), port.protocol.as_deref());
        if let Some(number) = port.port {
            // The API server does not look at it; what is no port can be nobody's.
            findings.port_number(format!("{path}.port"), number);
        }
        if let Some(protocol) = &port.app_protocol {
            for message in names::is_qualified_name(protocol) {
                findings.invalid(format!("{path}.appProtocol"), protocol.as_str(), &message);
            }
        }
    }
}
