//! Ports, and the names that containers give them.

use std::sync::Arc;

use dataplane::Protocol;
use dataplane::policy::ir::{PortRange, Ports};
use k8s_openapi::api::core::v1::Pod;

/// A container's name for a port: name, protocol, number.
pub type NamedPort = (String, Protocol, u16);

/// A port's name in a rule.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PortName {
    /// As the containers call it.
    pub name: String,
    /// Only ports of this protocol; of any, if there is none.
    pub protocol: Option<Protocol>,
}

/// A rule's ports, with names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DraftPorts {
    /// Every port and every protocol.
    Any,
    /// Those in the ranges, and those called so. Without either: none.
    Of {
        /// Numbers, sorted.
        ranges: Vec<PortRange>,
        /// Names, sorted; what they mean depends on the destination.
        names: Arc<[PortName]>,
    },
}

impl DraftPorts {
    /// The ports that `ranges` and `names` list.
    pub fn of(mut ranges: Vec<PortRange>, mut names: Vec<PortName>) -> DraftPorts {
        ranges.sort_unstable();
        ranges.dedup();
        names.sort_unstable();
        names.dedup();
        DraftPorts::Of {
            ranges,
            names: names.into(),
        }
    }

    /// The names in it.
    pub fn names(&self) -> &[PortName] {
        match self {
            DraftPorts::Any => &[],
            DraftPorts::Of { names, .. } => names,
        }
    }

    /// With the names as one destination understands them.
    pub fn on(&self, destination: &[NamedPort]) -> Ports {
        match self {
            DraftPorts::Any => Ports::Any,
            DraftPorts::Of { ranges, names } => {
                let mut all = ranges.clone();
                all.extend(resolve(names, destination));
                all.sort_unstable();
                all.dedup();
                Ports::List(all.into())
            }
        }
    }
}

/// All ports of a protocol.
pub fn all_of(protocol: Protocol) -> PortRange {
    PortRange {
        protocol,
        first: 0,
        last: u16::MAX,
    }
}

/// The range from `first` to `last`; `None` unless both are ports and in order.
pub fn range(protocol: Protocol, first: i32, last: i32) -> Option<PortRange> {
    let first = u16::try_from(first).ok().filter(|&first| first > 0)?;
    let last = u16::try_from(last).ok().filter(|&last| last >= first)?;
    Some(PortRange {
        protocol,
        first,
        last,
    })
}

/// What names mean on a destination: sorted, each number once.
pub fn resolve(names: &[PortName], destination: &[NamedPort]) -> Vec<PortRange> {
    let called = |name: &PortName, (own, protocol, _): &NamedPort| {
        *own == name.name && name.protocol.is_none_or(|wanted| wanted == *protocol)
    };
    let ports = destination.iter();
    let mut found: Vec<PortRange> = ports
        .filter(|port| names.iter().any(|name| called(name, port)))
        .map(|&(_, protocol, number)| PortRange {
            protocol,
            first: number,
            last: number,
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// TCP if nothing is stated; `None` for what is no protocol of the API.
pub fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("TCP") => Some(Protocol::TCP),
        Some("UDP") => Some(Protocol::UDP),
        Some("SCTP") => Some(Protocol::SCTP),
        Some(_) => None,
    }
}

/// Container ports with a name, sidecars' (restartable init containers') too.
pub(crate) fn named_ports(pod: &Pod) -> Vec<NamedPort> {
    let Some(spec) = &pod.spec else {
        return Vec::new();
    };
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let mut found: Vec<_> = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            let name = port.name.clone().filter(|name| !name.is_empty())?;
            let number = u16::try_from(port.container_port)
                .ok()
                .filter(|&n| n != 0)?;
            // In a container an empty protocol is an absent one.
            let stated = port.protocol.as_deref().filter(|p| !p.is_empty());
            Some((name, protocol(stated)?, number))
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}
