//! `endpoint.add` and `endpoint.remove`: pods' interfaces.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Workers;

/// `endpoint.add`: a pod's interface. The reply comes after its policy is live on every worker; the
/// port passes nothing before (semantics D10).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointAddParams {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's UID. Adding the same UID with the same interface again is no error.
    pub uid: String,
    /// The host-side end of its veth pair, in the daemon's network namespace.
    pub interface: String,
    /// MAC of the pod's end, `02:00:…`.
    pub mac: String,
    /// The pod's addresses, at most one per family.
    pub addresses: Vec<IpAddr>,
}

/// Reply of `endpoint.add`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointAdded {
    /// Number of its port.
    pub port: u16,
    /// Its incarnation.
    pub incarnation: u32,
    /// MAC that the pod sees its gateway with.
    pub gateway_mac: String,
    /// Gateway addresses that the daemon answers ARP and neighbour discovery for.
    pub gateways: Vec<IpAddr>,
    /// Warnings, for a person.
    pub warnings: Vec<String>,
    /// The live generation.
    pub generation: u64,
    /// Who adopted it.
    pub workers: Workers,
    /// From publication to the last acknowledgement, µs.
    pub elapsed_micros: u64,
}

/// `endpoint.remove`. An unknown UID is `NotFound`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointRemoveParams {
    /// The pod's UID.
    pub uid: String,
}
