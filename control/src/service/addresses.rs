//! ClusterIPs (alloc.go, `allocClusterIPs`; `ipallocator`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde_json::Value;

use super::families::{family_of, wanted};
use super::{Named, full, put, texts};
use crate::cluster::{Cluster, Refusal};
use crate::validate::Findings;

/// Gives the Service the addresses that it states and the ones that it leaves to us.
pub(super) fn hand_out(named: &Named, spec: &mut Value, cluster: &Cluster) -> Result<(), Refusal> {
    let stated = texts(spec, "clusterIPs");
    let mut addresses = Vec::new();
    for (family, address) in wanted(spec) {
        let address = match address {
            Some(address) => {
                check(named, &address, &stated, cluster)?;
                address
            }
            None => free(named, &family, cluster)?.to_string(),
        };
        addresses.push(address);
    }
    if let Some(first) = addresses.first() {
        put(spec, "clusterIP", first.as_str().into());
        put(spec, "clusterIPs", addresses.into());
    }
    Ok(())
}

/// Whether the Service may have the address that it states.
fn check(
    named: &Named,
    address: &str,
    stated: &[String],
    cluster: &Cluster,
) -> Result<(), Refusal> {
    let Ok(parsed) = address.parse::<IpAddr>() else {
        return Ok(());
    };
    let claim = cluster.claims().address(parsed);
    if claim.is_some_and(|holder| named.is(holder)) {
        return Ok(());
    }
    let pools = cluster.pools();
    let mut ranges = pools.services.ranges.iter();
    let range = ranges.find(|range| family_of(range.addr()) == family_of(parsed));
    let why = match range {
        _ if claim.is_some() => "provided IP is already allocated".to_owned(),
        Some(range) if !pools.foreign && !usable(range, parsed) => format!(
            "the provided IP ({address}) is not in the valid range. The range of valid IPs is \
             {range}"
        ),
        _ => return Ok(()),
    };
    let mut findings = Findings::default();
    let detail = format!("failed to allocate IP {address}: {why}");
    findings.invalid("spec.clusterIPs", stated.to_vec(), &detail);
    Err(named.refusal(&findings))
}

/// Neither the network's own address nor, in IPv4, its broadcast address.
fn usable(range: &IpNet, address: IpAddr) -> bool {
    let broadcast = address.is_ipv4() && address == range.broadcast();
    range.contains(&address) && address != range.network() && !broadcast
}

/// An address that nobody has: from a place that follows from the Service's name on, above those
/// that are left to people's choice.
fn free(named: &Named, family: &str, cluster: &Cluster) -> Result<IpAddr, Refusal> {
    let ranges = cluster.pools().services.ranges.iter();
    let mut of_family = ranges.filter(|range| family_of(range.addr()) == family);
    let range = of_family.next().ok_or_else(|| full("serviceIP"))?;
    let host_bits = u32::from(range.max_prefix_len() - range.prefix_len()).min(32);
    let size = (1_u64 << host_bits) - u64::from(range.addr().is_ipv4());
    let count = size - 1;
    let chosen = by_choice(size);
    let start = named.start(family) % (count - chosen);
    let candidates = (0..count - chosen).map(|step| chosen + 1 + (start + step) % (count - chosen));
    let candidates = candidates.chain(1..=chosen);
    let addresses = candidates.map(|offset| nth(range, offset));
    addresses
        .into_iter()
        .find(|address| cluster.claims().address(*address).is_none())
        .ok_or_else(|| full("serviceIP"))
}

/// How many addresses at a range's beginning are given only when all others are taken, so that
/// those that people state are free (`ipallocator.calculateRangeOffset`).
fn by_choice(size: u64) -> u64 {
    match size {
        0..=16 => 0,
        _ => (size / 16).clamp(16, 256),
    }
}

fn nth(range: &IpNet, offset: u64) -> IpAddr {
    match range.network() {
        IpAddr::V4(first) => Ipv4Addr::from(u32::from(first) + offset as u32).into(),
        IpAddr::V6(first) => Ipv6Addr::from(u128::from(first) + u128::from(offset)).into(),
    }
}
