//! What clients get from a Service that nobody serves (semantics D19).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::Protocol;
use serde::{Deserialize, Serialize};

use super::{End, Trace, View};
use crate::family::Family;

/// An address of a Service that leads nowhere, for one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unserved {
    /// Of the address.
    pub family: Family,
    /// None of a headless Service, whose name has none of that family then.
    pub address: Option<IpAddr>,
    /// What there is not.
    pub missing: Missing,
    /// The port that policy is asked about; none of protocols without.
    pub policy_port: Option<u16>,
}

/// Why a Service's address leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Nobody is ready.
    Backend,
    /// The Service has no such port.
    Port,
}

/// What a client gets that asks in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WithoutBackend {
    /// A TCP reset.
    Reset,
    /// ICMP's port unreachable.
    Unreachable,
    /// Nothing: egress policy allows it no such port of anybody.
    Silence,
    /// It does not get so far: a headless Service's name has no address then.
    NoAddress,
}

impl Unserved {
    /// As an end of connections: one at no address in particular stands for a headless Service.
    pub(crate) fn end(&self, name: &str) -> End {
        let nowhere: IpAddr = match self.family {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        End {
            name: name.to_owned(),
            addresses: vec![self.address.unwrap_or(nowhere)],
            local: None,
            pod: None,
        }
    }
}

impl WithoutBackend {
    /// Whether the client is told at once.
    pub const fn is_refusal(self) -> bool {
        matches!(self, WithoutBackend::Reset | WithoutBackend::Unreachable)
    }

    /// In words, behind what there is not.
    pub(crate) fn reason(self, service: &str, unserved: &Unserved) -> String {
        let missing = match unserved.missing {
            Missing::Backend => "no ready backend",
            Missing::Port => "no such port",
        };
        let then = match (self, unserved.policy_port) {
            (WithoutBackend::Reset, _) => "refused at once (TCP reset)".to_owned(),
            (WithoutBackend::Unreachable, _) => {
                "refused at once (ICMP port unreachable)".to_owned()
            }
            (WithoutBackend::Silence, Some(port)) => {
                format!("silence, as egress policy allows port {port} of nobody")
            }
            (WithoutBackend::Silence, None) => "silence".to_owned(),
            (WithoutBackend::NoAddress, _) => "its name has no address".to_owned(),
        };
        format!("Service {service} has {missing}: {then}")
    }
}

impl View<'_> {
    /// What becomes of a connection to where nobody is. The caller says which protocol was asked
    /// for.
    pub(crate) fn judge_unserved(
        &self,
        from: &End,
        name: &str,
        unserved: &Unserved,
        protocol: Protocol,
    ) -> Trace {
        let without_backend = self.without_backend(from, unserved, protocol);
        Trace {
            verdict: "deny",
            generation: self.generation,
            from: from.name.clone(),
            to: name.to_owned(),
            service: None,
            backends: Vec::new(),
            without_backend: Some(without_backend),
            protocol: String::new(),
            port: unserved.policy_port,
            family: unserved.family,
            other_family: None,
            steps: Vec::new(),
            audit: Vec::new(),
            reason: without_backend.reason(name, unserved),
        }
    }
}
