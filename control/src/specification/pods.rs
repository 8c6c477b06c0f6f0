//! What a pod is to policy: whether it counts, which addresses it states, what it calls its ports.

use std::net::IpAddr;

use dataplane::Protocol;
use k8s_openapi::api::core::v1::Pod;

/// Whether a pod counts as a peer: on its own network, not ended.
pub(super) fn counts(pod: &Pod) -> bool {
    let host_network = pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    !host_network && phase != Some("Succeeded") && phase != Some("Failed")
}

/// Whether the pod's status has the address.
pub(super) fn states_address(pod: &Pod, address: IpAddr) -> bool {
    let Some(status) = &pod.status else {
        return false;
    };
    let several = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let mut texts = several.chain(status.pod_ip.as_deref());
    texts.any(|text| match text.parse() {
        // IPv4 in the clothes of IPv6 is IPv4.
        Ok(IpAddr::V6(v6)) => v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4) == address,
        Ok(v4) => v4 == address,
        Err(_) => false,
    })
}

/// Whether a container of the pod, or a sidecar, calls this port of this protocol so.
pub(super) fn calls_port(pod: &Pod, name: &str, protocol: Protocol, number: u16) -> bool {
    let Some(spec) = &pod.spec else {
        return false;
    };
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
    for container in spec.containers.iter().chain(sidecars) {
        for port in container.ports.iter().flatten() {
            let stated = match port.protocol.as_deref() {
                None | Some("") => "TCP",
                Some(stated) => stated,
            };
            if !name.is_empty()
                && port.name.as_deref() == Some(name)
                && protocol_number(stated) == Some(protocol)
                && port.container_port == i32::from(number)
            {
                return true;
            }
        }
    }
    false
}

/// The protocol that the API calls so.
pub(super) fn protocol_number(name: &str) -> Option<Protocol> {
    match name {
        "TCP" => Some(Protocol(6)),
        "UDP" => Some(Protocol(17)),
        "SCTP" => Some(Protocol(132)),
        _ => None,
    }
}
