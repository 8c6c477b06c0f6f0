//! Where Services' addresses and node ports are taken from.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use crate::settings::{Config, wrong};
use crate::{ConfigError, limits};

/// Where Services' addresses and node ports are taken from: what the API server calls
/// `--service-cluster-ip-range` and `--service-node-port-range`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Services {
    /// ClusterIPs, one range a family at most. The first is the family of a Service that names
    /// none. No pod and no node may have an address in them; the node's stack and the world reach
    /// them through the daemon.
    pub ranges: Vec<IpNet>,
    /// Node ports.
    pub node_ports: PortRange,
}

impl Default for Services {
    /// Those of kubeadm.
    fn default() -> Self {
        Services {
            ranges: vec![IpNet::V4(Ipv4Net::new_assert(
                Ipv4Addr::new(10, 96, 0, 0),
                12,
            ))],
            node_ports: limits::NODE_PORTS,
        }
    }
}

/// Ports from the first to the last, both included: `30000-32767`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PortRange {
    /// Not 0.
    pub first: u16,
    /// Not before the first.
    pub last: u16,
}

impl PortRange {
    /// Whether the port is one of them.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl From<PortRange> for String {
    fn from(range: PortRange) -> String {
        range.to_string()
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<PortRange, String> {
        let ends = text.split_once('-');
        let ends = ends.and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
        match ends {
            Some((first, last)) if 0 < first && first <= last => Ok(PortRange { first, last }),
            _ => Err(format!("{text:?} is no range of ports such as 30000-32767")),
        }
    }
}

impl TryFrom<String> for PortRange {
    type Error = String;

    fn try_from(text: String) -> Result<PortRange, String> {
        text.parse()
    }
}

/// Checks the ranges against each other and against the addresses that are others'.
pub(crate) fn check(config: &Config) -> Result<(), ConfigError> {
    let refuse = |message: String| wrong("services.ranges", message);
    let ranges = &config.services.ranges;
    for (index, range) in ranges.iter().enumerate() {
        if range.trunc() != *range {
            return refuse("must not have bits set beyond the prefix length".into());
        }
        let host_bits = range.max_prefix_len() - range.prefix_len();
        if !limits::SERVICE_RANGE_BITS.contains(&host_bits) {
            let (least, most) = limits::SERVICE_RANGE_BITS.into_inner();
            let max = range.max_prefix_len();
            let (longest, shortest) = (max - least, max - most);
            return refuse(format!(
                "{range}: the prefix length must be between {shortest} and {longest}, inclusive"
            ));
        }
        let is_v4 = |range: &IpNet| range.addr().is_ipv4();
        if ranges[..index].iter().any(|r| is_v4(r) == is_v4(range)) {
            return refuse("may have one range of each address family".into());
        }
        let overlaps = |other: &&IpNet| range.contains(*other) || other.contains(range);
        if let Some(pods) = config.pod_ranges.iter().find(overlaps) {
            return refuse(format!("{range} overlaps with {pods} of pod_ranges"));
        }
        let gateways = config.gateways.iter();
        let mut own = gateways.chain(config.host_port.addresses.iter().copied());
        if let Some(address) = own.find(|address: &IpAddr| range.contains(address)) {
            return refuse(format!(
                "{range} holds {address}, which is a gateway or an address of the host port"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_others_have_are_refused() {
        for (text, expected) in [
            ("ranges = ['10.96.0.1/12']", "must not have bits set"),
            ("ranges = ['10.0.0.0/8']", "between 12 and 29, inclusive"),
            ("ranges = ['fd00::/64']", "between 108 and 125, inclusive"),
            (
                "ranges = ['10.96.0.0/16', '10.98.0.0/16']",
                "one range of each address family",
            ),
            (
                "ranges = ['10.244.0.0/24']\n[host_port]\naddresses = []",
                "10.244.0.0/24 overlaps with 10.244.0.0/16 of pod_ranges",
            ),
            (
                "ranges = ['10.96.0.0/12']\n[host_port]\naddresses = ['10.97.0.1']",
                "holds 10.97.0.1",
            ),
        ] {
            let text = format!("pod_ranges = ['10.244.0.0/16']\n[services]\n{text}");
            let error = Config::parse(&text, "x").unwrap_err().to_string();
            assert!(error.starts_with("services.ranges: "), "{error}");
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn node_ports_are_written_as_the_api_server_takes_them() {
        let config = Config::parse("[services]\nnode_ports = '31000-31999'", "x").unwrap();
        let ports = config.services.node_ports;
        assert_eq!((ports.first, ports.last), (31000, 31999));
        assert!(ports.contains(31999) && !ports.contains(32000));
        for wrong in ["0-5", "9-8", "80", "a-b"] {
            let text = format!("[services]\nnode_ports = '{wrong}'");
            let error = Config::parse(&text, "x").unwrap_err().to_string();
            assert!(error.contains("no range of ports"), "{error}");
        }
    }
}
