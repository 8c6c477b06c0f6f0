//! One Service to its frontends.

use std::net::IpAddr;
use std::sync::Arc;

use dataplane::service::Frontend;
use dataplane::{Address, Protocol, SocketAddress};
use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::table::Node;
use crate::objects::Object;

/// What a Service is to the dataplane.
#[derive(Clone, Debug, Default)]
pub(super) struct Lowered {
    /// At its ClusterIPs.
    pub cluster: Vec<Arc<Frontend>>,
    /// At the node's addresses; their own address is only of the same family.
    pub node_ports: Vec<Frontend>,
    /// At addresses from elsewhere: `externalIPs`, and those of a load balancer.
    pub external: Vec<Frontend>,
    /// Addresses of it that nobody is let in by.
    pub closed: Vec<Address>,
}

/// A port of an endpoint.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    to: SocketAddress,
    ready: bool,
    /// Going, but still serving.
    draining: bool,
    local: bool,
}

/// None of what has no address of its own.
pub(super) fn lower(service: &Object, slices: &[&EndpointSlice], node: &Node) -> Option<Lowered> {
    let typed = service.as_service()?;
    let spec = typed.spec.as_ref()?;
    let addresses = cluster_ips(spec);
    if addresses.is_empty() {
        return None;
    }
    let mut lowered = Lowered::default();
    let externals = externals(typed, spec, node);
    for port in spec.ports.iter().flatten() {
        for &address in &addresses {
            let candidates = candidates(slices, port, address.is_ipv4(), node);
            let of = |policy: &Option<String>| {
                let local_only = policy.as_deref() == Some("Local");
                choose(&candidates, local_only)
            };
            // A ClusterIP is one for all that ask, wherever they are.
            let inside = of(&spec.internal_traffic_policy);
            let at = frontend(spec, port, address, inside.clone(), inside)?;
            // Outside addresses, asked from inside, lead to all backends.
            let outward = Frontend {
                internal: choose(&candidates, false),
                external: of(&spec.external_traffic_policy),
                ..at.clone()
            };
            let node_port = port.node_port.and_then(|number| u16::try_from(number).ok());
            if let Some(number) = node_port.filter(|&number| number != 0) {
                lowered.node_ports.push(Frontend {
                    port: number,
                    node_port: true,
                    ..outward.clone()
                });
            }
            for &external in &externals.open {
                if external.is_ipv4() == address.is_ipv4() {
                    lowered.external.push(Frontend {
                        address: external.into(),
                        ..outward.clone()
                    });
                }
            }
            lowered.cluster.push(Arc::new(at));
        }
    }
    lowered.closed = externals.closed.into_iter().map(Address::from).collect();
    Some(lowered)
}

/// Its own addresses; none if it is headless or a name for something else.
pub(crate) fn cluster_ips(spec: &ServiceSpec) -> Vec<IpAddr> {
    if spec.type_.as_deref() == Some("ExternalName") {
        return Vec::new();
    }
    let all = spec.cluster_ips.as_deref().unwrap_or_default().iter();
    // A Service from before there was a list of them.
    let first = spec.cluster_ip.as_ref().filter(|_| all.len() == 0);
    let addresses = all.chain(first).filter_map(|address| address.parse().ok());
    addresses.collect()
}

struct Externals {
    open: Vec<IpAddr>,
    closed: Vec<IpAddr>,
}

fn externals(
    typed: &k8s_openapi::api::core::v1::Service,
    spec: &ServiceSpec,
    node: &Node,
) -> Externals {
    let stated = spec.external_ips.iter().flatten();
    let stated = stated.filter_map(|address| address.parse::<IpAddr>().ok());
    let is_pods = |address: &IpAddr| node.pod_ranges.iter().any(|range| range.contains(address));
    let mut open: Vec<IpAddr> = stated.filter(|address| !is_pods(address)).collect();
    let balancer = typed.status.iter().flat_map(|s| &s.load_balancer);
    let ingress = balancer.flat_map(|balancer| balancer.ingress.iter().flatten());
    let balanced: Vec<IpAddr> = ingress
        .filter_map(|ingress| ingress.ip.as_deref()?.parse().ok())
        .filter(|address| !is_pods(address))
        .collect();
    // The dataplane knows no source ranges: what would be open to all stays closed.
    let ranges = spec.load_balancer_source_ranges.as_deref();
    match ranges.unwrap_or_default().is_empty() {
        true => {
            open.extend(balanced);
            Externals {
                open,
                closed: Vec::new(),
            }
        }
        false => Externals {
            open,
            closed: balanced,
        },
    }
}

/// None of a port that is none.
fn frontend(
    spec: &ServiceSpec,
    port: &ServicePort,
    address: IpAddr,
    internal: Vec<SocketAddress>,
    external: Vec<SocketAddress>,
) -> Option<Frontend> {
    let affinity = spec.session_affinity.as_deref() == Some("ClientIP");
    let config = spec.session_affinity_config.as_ref();
    let seconds = config
        .and_then(|config| config.client_ip.as_ref()?.timeout_seconds)
        .and_then(|seconds| u32::try_from(seconds).ok());
    let target = match &port.target_port {
        Some(IntOrString::Int(number)) => u16::try_from(*number).ok().filter(|&n| n != 0),
        _ => None,
    };
    Some(Frontend {
        address: address.into(),
        protocol: protocol_of(port.protocol.as_deref()),
        port: u16::try_from(port.port).ok()?,
        internal,
        external,
        affinity_s: affinity.then(|| seconds.unwrap_or(super::defaults::AFFINITY_S)),
        node_port: false,
        target_port: target,
    })
}

pub(crate) fn protocol_of(name: Option<&str>) -> Protocol {
    match name {
        Some("UDP") => Protocol::UDP,
        Some("SCTP") => Protocol::SCTP,
        _ => Protocol::TCP,
    }
}

/// The endpoints of one family that have the port, by its name.
fn candidates(
    slices: &[&EndpointSlice],
    port: &ServicePort,
    v4: bool,
    node: &Node,
) -> Vec<Candidate> {
    let kind = if v4 { "IPv4" } else { "IPv6" };
    let name = port.name.as_deref().unwrap_or_default();
    let protocol = protocol_of(port.protocol.as_deref());
    let mut found = Vec::new();
    for slice in slices.iter().filter(|slice| slice.address_type == kind) {
        let mut ports = slice.ports.iter().flatten();
        let same = ports.find(|port| {
            port.name.as_deref().unwrap_or_default() == name
                && protocol_of(port.protocol.as_deref()) == protocol
        });
        let number = same.and_then(|port| u16::try_from(port.port?).ok());
        let Some(number) = number.filter(|&number| number != 0) else {
            continue;
        };
        found.extend(slice.endpoints.iter().filter_map(|endpoint| {
            // Further ones are not meant for connections (discovery/v1, Endpoint.addresses).
            let address: IpAddr = endpoint.addresses.first()?.parse().ok()?;
            let conditions = endpoint.conditions.as_ref();
            let is = |value: Option<bool>, absent: bool| value.unwrap_or(absent);
            let ready = is(conditions.and_then(|c| c.ready), true);
            let serving = is(conditions.and_then(|c| c.serving), ready);
            let going = is(conditions.and_then(|c| c.terminating), false);
            let own = node.name.as_deref();
            Some(Candidate {
                to: SocketAddress {
                    address: address.into(),
                    port: number,
                },
                ready,
                draining: serving && going,
                local: own.is_none_or(|own| endpoint.node_name.as_deref() == Some(own)),
            })
        }));
    }
    found
}

/// The ready ones, else those that still serve; in order, as the dataplane wants them.
fn choose(candidates: &[Candidate], local_only: bool) -> Vec<SocketAddress> {
    let wanted = || candidates.iter().filter(|c| c.local || !local_only);
    let mut chosen: Vec<SocketAddress> = wanted().filter(|c| c.ready).map(|c| c.to).collect();
    if chosen.is_empty() {
        chosen.extend(wanted().filter(|c| c.draining).map(|c| c.to));
    }
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

pub(super) fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    }
}
