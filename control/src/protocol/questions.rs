//! `trace` and `matrix`: what policy says of a flow, and of all.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An end of a `trace`, and of the flow it asks about: `NS/POD`, an address, `NS/SERVICE`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TraceParams {
    /// Sender: `NS/POD` or an address.
    pub from: String,
    /// Receiver: `NS/POD`, an address or `NS/SERVICE`.
    pub to: String,
    /// Destination port, number or name; absent for protocols without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// `TCP` (the default), `UDP`, `SCTP`, `ICMP`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Namespace of ends that name none; by default `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

impl TraceParams {
    /// Sender and receiver, names with their namespaces.
    pub fn ends(&self) -> [String; 2] {
        [&self.from, &self.to].map(|end| match &self.namespace {
            Some(namespace) if !end.contains('/') && end.parse::<IpAddr>().is_err() => {
                format!("{namespace}/{end}")
            }
            _ => end.clone(),
        })
    }
}

/// `matrix`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MatrixParams {
    /// As `--port`: `80/TCP`, `icmp`. Empty: every containerPort of the destination.
    #[serde(default)]
    pub ports: Vec<String>,
    /// As `--with`: addresses, CIDRs or `NS/SERVICE` beside the pods.
    #[serde(default)]
    pub with: Vec<String>,
    /// Only pods of this namespace; by default all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Reply of `trace` and `matrix`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explained {
    /// For a person.
    pub text: String,
    /// For a program, as `-o json` prints it.
    pub json: Value,
}
