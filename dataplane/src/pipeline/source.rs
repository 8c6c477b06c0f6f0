//! Who may send what from where (D17).

use crate::snapshot::{Endpoint, Port, Role, Snapshot};
use crate::wire::Ip;
use crate::{Address, DropReason, Mac};

/// Checks a packet's Ethernet and IP source against the port it came in by; the local endpoint that
/// sent it, if one did.
///
/// A pod sends from its own addresses and Ethernet address. `weir-node` brings only what the node
/// itself says. What the node forwards or translates may carry any source but a local pod's or a
/// gateway's; an uplink's neither these nor the node's own. Both only what there is a way back to
/// (loose reverse-path filtering, RFC 3704): of the local pods' ranges that is nothing but the pods
/// there are, so that nobody takes the address of one that has gone or is still to come. Nobody sends
/// from a Service's address: what comes from there, we have translated. The parser
/// has dropped loopback, multicast and other impossible sources already.
pub(super) fn check<'s>(
    snapshot: &'s Snapshot,
    port: &Port,
    source_mac: Mac,
    source: Address,
) -> Result<Option<&'s Endpoint>, DropReason> {
    match port.role {
        Role::Pod => {
            let endpoint = sender(snapshot, port, source_mac)?;
            if !endpoint.addresses.contains(&source) {
                return Err(DropReason::SpoofedSource);
            }
            Ok(Some(endpoint))
        }
        Role::HostNode => {
            let services = snapshot.services();
            permit(snapshot.is_node_address(source) && !services.is_service_address(source))
        }
        Role::HostTransit => permit(!is_ours(snapshot, source) && has_way_back(snapshot, source)),
        Role::Uplink => permit(
            !is_ours(snapshot, source)
                && !snapshot.is_node_address(source)
                && has_way_back(snapshot, source),
        ),
    }
}

/// The endpoint behind a pod port, if the Ethernet source is its own.
pub(super) fn sender<'s>(
    snapshot: &'s Snapshot,
    port: &Port,
    source_mac: Mac,
) -> Result<&'s Endpoint, DropReason> {
    let endpoint = port
        .endpoint
        .and_then(|slot| snapshot.endpoint(slot))
        .filter(|endpoint| snapshot.has_policy(endpoint.slot))
        .ok_or(DropReason::PortNotReady)?;
    if endpoint.mac == source_mac {
        Ok(endpoint)
    } else {
        Err(DropReason::SpoofedMac)
    }
}

fn is_ours(snapshot: &Snapshot, source: Address) -> bool {
    snapshot.is_gateway(source)
        || snapshot.endpoint_at(source).is_some()
        || snapshot.services().is_service_address(source)
}

fn has_way_back(snapshot: &Snapshot, source: Address) -> bool {
    snapshot.routes().lookup(source).is_some()
}

fn permit<'s>(permitted: bool) -> Result<Option<&'s Endpoint>, DropReason> {
    if permitted {
        Ok(None)
    } else {
        Err(DropReason::SpoofedSource)
    }
}

/// Whether this is an IPv6 link-local unicast address, `fe80::/10`.
pub(super) fn is_v6_link_local(address: Address) -> bool {
    address.0 >> 118 == 0xfe80 >> 6
}

fn is_v4_link_local(address: Address) -> bool {
    address.as_v4().is_some_and(|bits| bits >> 16 == 0xa9fe)
}

/// Link-local packets stay on their link (RFC 4291 §2.5.6, RFC 3927 §2.7). Excepted is what goes to
/// an IPv4 link-local address of the node itself, where node-local DNS caches listen, and the
/// answers.
pub(super) fn check_scope(snapshot: &Snapshot, ip: &Ip) -> Result<(), DropReason> {
    let leaves_link = |address: Address| {
        is_v6_link_local(address) || is_v4_link_local(address) && !snapshot.is_node_address(address)
    };
    if leaves_link(ip.source) || leaves_link(ip.destination) {
        Err(DropReason::LinkLocal)
    } else {
        Ok(())
    }
}
