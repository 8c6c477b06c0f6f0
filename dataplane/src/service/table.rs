//! The table of Services that workers look connections up in.

use hashbrown::{HashMap, HashSet};

use super::{
    BACKENDS_MAX, BACKENDS_OF_FRONTEND_MAX, FRONTENDS_MAX, Frontend, Lookup, NODE_ADDRESSES_MAX,
    NODE_PORTS_MAX, ServiceError, ServiceParts,
};
use crate::snapshot::Role;
use crate::xdp::NodeServices;
use crate::{Address, FlowKey, Protocol, SocketAddress};

/// Every Service's frontends with their backends: immutable.
///
/// Look-ups neither allocate nor lock; their cost depends on neither how many Services nor how many
/// backends there are, but for whether a list still has a backend, which is a binary search.
#[derive(Clone, Debug, Default)]
pub struct ServiceTable {
    frontends: Vec<Frontend>,
    by_key: HashMap<(SocketAddress, Protocol), u32>,
    addresses: HashSet<Address>,
    source_v4: Option<Address>,
    source_v6: Option<Address>,
}

/// A frontend as connections from somewhere see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found<'t> {
    /// The frontend.
    pub frontend: &'t Frontend,
    /// Its backends for connections from there: sorted, each once; may be none.
    pub backends: &'t [SocketAddress],
}

impl ServiceTable {
    /// The table of `parts`.
    ///
    /// # Errors
    /// See [`ServiceError`].
    pub fn build(parts: ServiceParts) -> Result<ServiceTable, ServiceError> {
        let mut frontends = parts.frontends;
        if frontends.len() > FRONTENDS_MAX {
            return Err(ServiceError::TooManyFrontends(frontends.len()));
        }
        let mut addresses: HashSet<Address> = parts.addresses.into_iter().collect();
        let mut by_key = HashMap::with_capacity(frontends.len());
        let mut backends = 0;
        for (number, frontend) in (0..).zip(&mut frontends) {
            backends += settle(frontend)?;
            let (at, protocol) = (frontend.at(), frontend.protocol);
            if by_key.insert((at, protocol), number).is_some() {
                return Err(ServiceError::FrontendTwice { at, protocol });
            }
            if !frontend.node_port {
                addresses.insert(frontend.address);
            }
        }
        if backends > BACKENDS_MAX {
            return Err(ServiceError::TooManyBackends(backends));
        }
        let table = ServiceTable {
            frontends,
            by_key,
            addresses,
            source_v4: parts.source_v4,
            source_v6: parts.source_v6,
        };
        let node = table.of_the_node(|_| false);
        let (ports, addresses) = (node.ports.len(), node.addresses.len());
        if ports > NODE_PORTS_MAX || addresses > NODE_ADDRESSES_MAX {
            return Err(ServiceError::TooManyNodePorts { ports, addresses });
        }
        Ok(table)
    }

    /// Where a connection leads that comes in by a port of this role: from a pod ([`Role::Pod`]) or the
    /// node itself ([`Role::HostNode`]) to the internal list, from elsewhere to the external one.
    pub fn lookup(
        &self,
        from: Role,
        destination: Address,
        protocol: Protocol,
        port: u16,
    ) -> Lookup<'_> {
        let to = SocketAddress {
            address: destination,
            port,
        };
        match self.find(from, to, protocol) {
            None if self.is_service_address(destination) => Lookup::NoSuchPort,
            None => Lookup::NotAService,
            Some(found) if found.backends.is_empty() => Lookup::NoBackend {
                policy_port: found.frontend.policy_port(),
            },
            Some(found) => Lookup::Backends(found.backends),
        }
    }

    /// The frontend that has this address and port.
    pub fn find(&self, from: Role, to: SocketAddress, protocol: Protocol) -> Option<Found<'_>> {
        if self.frontends.is_empty() {
            return None;
        }
        let number = *self.by_key.get(&(to, protocol))?;
        let frontend = self.frontends.get(number as usize)?;
        let backends = match from {
            Role::Pod | Role::HostNode => &frontend.internal,
            Role::Uplink | Role::HostTransit => &frontend.external,
        };
        Some(Found { frontend, backends })
    }

    /// Whether a flow's destination is a frontend, or an address of a Service.
    pub fn concerns(&self, key: &FlowKey) -> bool {
        !self.is_empty()
            && (self.is_service_address(key.destination)
                || self.by_key.contains_key(&(key.receiver(), key.protocol)))
    }

    /// Whether the address belongs to a Service. The node's own addresses do not, whatever ports of
    /// theirs are node ports.
    #[inline]
    pub fn is_service_address(&self, address: Address) -> bool {
        !self.addresses.is_empty() && self.addresses.contains(&address)
    }

    /// Whether there is no Service at all.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.frontends.is_empty() && self.addresses.is_empty()
    }

    /// The frontends, their backends sorted.
    pub fn frontends(&self) -> &[Frontend] {
        &self.frontends
    }

    /// The addresses that belong to Services, in no particular order.
    pub fn addresses(&self) -> impl Iterator<Item = Address> + '_ {
        self.addresses.iter().copied()
    }

    /// Which of the node's own ports are Services', and come to translated connections: those are there
    /// only if some backend `is_remote`.
    pub(crate) fn of_the_node(&self, is_remote: impl Fn(Address) -> bool) -> NodeServices {
        let node_ports = || self.frontends.iter().filter(|frontend| frontend.node_port);
        let addresses: HashSet<Address> = node_ports().map(|port| port.address).collect();
        let ports: HashSet<_> = node_ports().map(|f| (f.protocol, f.port)).collect();
        let lists = |f: &Frontend| {
            [&f.internal, &f.external].map(|l| l.iter().any(|b| is_remote(b.address)))
        };
        let any_remote = self.frontends.iter().any(|f| lists(f).contains(&true));
        let sources = [self.source_v4, self.source_v6].into_iter().flatten();
        let sources = sources.filter(|_| any_remote);
        NodeServices {
            addresses: addresses.into_iter().collect(),
            ports: ports.into_iter().collect(),
            sources: sources.collect(),
        }
    }

    /// The node's address, of the family of `other`, for connections that have to come back here.
    pub fn source(&self, other: Address) -> Option<Address> {
        if other.is_v4() {
            self.source_v4
        } else {
            self.source_v6
        }
    }
}

impl Frontend {
    /// Its address and port.
    pub fn at(&self) -> SocketAddress {
        SocketAddress {
            address: self.address,
            port: self.port,
        }
    }

    pub(crate) fn policy_port(&self) -> u16 {
        self.target_port.unwrap_or(self.port)
    }
}

impl Found<'_> {
    /// Whether the list has this backend.
    pub fn serves(&self, backend: SocketAddress) -> bool {
        self.backends.binary_search(&backend).is_ok()
    }

    /// The backend that a hash, evenly spread, falls on.
    pub fn choose(&self, hash: u64) -> Option<SocketAddress> {
        let count = self.backends.len() as u64;
        let chosen = ((hash >> 32) * count) >> 32;
        self.backends.get(chosen as usize).copied()
    }
}

/// Checks a frontend and sorts its lists; how many backends they have.
fn settle(frontend: &mut Frontend) -> Result<usize, ServiceError> {
    let (at, protocol) = (frontend.at(), frontend.protocol);
    if !protocol.has_ports() {
        return Err(ServiceError::NoPorts { at, protocol });
    }
    let mut count = 0;
    for list in [&mut frontend.internal, &mut frontend.external] {
        list.sort_unstable();
        list.dedup();
        if list.len() > BACKENDS_OF_FRONTEND_MAX {
            let count = list.len();
            return Err(ServiceError::TooManyOfFrontend { at, count });
        }
        let is_v4 = at.address.is_v4();
        if let Some(backend) = list.iter().find(|to| to.address.is_v4() != is_v4) {
            let backend = *backend;
            return Err(ServiceError::OtherFamily { at, backend });
        }
        count += list.len();
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: u32, port: u16) -> SocketAddress {
        let address = Address::v4(address);
        SocketAddress { address, port }
    }

    fn frontend(address: u32, port: u16, backends: &[SocketAddress]) -> Frontend {
        Frontend {
            address: Address::v4(address),
            protocol: Protocol::TCP,
            port,
            internal: backends.to_vec(),
            external: Vec::new(),
            affinity_s: None,
            node_port: false,
            target_port: Some(8080),
        }
    }

    fn build(frontends: Vec<Frontend>) -> Result<ServiceTable, ServiceError> {
        ServiceTable::build(ServiceParts {
            frontends,
            addresses: vec![Address::v4(99)],
            ..ServiceParts::default()
        })
    }

    #[test]
    fn an_address_leads_to_backends_to_none_or_nowhere() {
        let node_port = Frontend {
            node_port: true,
            ..frontend(7, 30_080, &[at(1, 8080)])
        };
        let web = frontend(10, 80, &[at(2, 8080), at(1, 8080), at(2, 8080)]);
        let table = build(vec![web, frontend(10, 81, &[]), node_port]).unwrap();
        let from =
            |role, address, port| table.lookup(role, Address::v4(address), Protocol::TCP, port);
        let sorted = [at(1, 8080), at(2, 8080)];
        assert_eq!(from(Role::Pod, 10, 80), Lookup::Backends(&sorted));
        assert_eq!(from(Role::HostNode, 10, 80), Lookup::Backends(&sorted));
        for role in [Role::Uplink, Role::HostTransit] {
            let none = Lookup::NoBackend { policy_port: 8080 };
            assert_eq!(from(role, 10, 80), none, "the external list is empty");
        }
        assert_eq!(from(Role::Pod, 10, 82), Lookup::NoSuchPort);
        assert_eq!(
            from(Role::Pod, 99, 80),
            Lookup::NoSuchPort,
            "without any port"
        );
        let udp = table.lookup(Role::Pod, Address::v4(10), Protocol::UDP, 80);
        assert_eq!(udp, Lookup::NoSuchPort);
        assert_eq!(from(Role::Pod, 7, 30_080), Lookup::Backends(&sorted[..1]));
        assert_eq!(
            from(Role::Pod, 7, 22),
            Lookup::NotAService,
            "the node's own"
        );
        assert_eq!(from(Role::Pod, 11, 80), Lookup::NotAService);
        assert!(!table.is_service_address(Address::v4(7)));
        let empty = ServiceTable::default();
        let nothing = empty.lookup(Role::Pod, Address::v4(10), Protocol::TCP, 80);
        assert_eq!(nothing, Lookup::NotAService);
    }

    #[test]
    fn what_makes_no_table_is_refused() {
        let twice = build(vec![frontend(10, 80, &[]), frontend(10, 80, &[])]);
        let (tcp, ten) = (Protocol::TCP, at(10, 80));
        let expected = ServiceError::FrontendTwice {
            at: ten,
            protocol: tcp,
        };
        assert_eq!(twice.unwrap_err(), expected);
        let backend = SocketAddress {
            address: Address::v6(1),
            port: 80,
        };
        let mixed = build(vec![frontend(10, 80, &[backend])]).unwrap_err();
        assert_eq!(mixed, ServiceError::OtherFamily { at: ten, backend });
        let icmp = Frontend {
            protocol: Protocol::ICMP,
            ..frontend(10, 80, &[])
        };
        assert!(matches!(
            build(vec![icmp]),
            Err(ServiceError::NoPorts { .. })
        ));
        let many = BACKENDS_OF_FRONTEND_MAX + 1;
        let crowd: Vec<_> = (0..many as u32).map(|n| at(n, 80)).collect();
        let crowded = build(vec![frontend(10, 80, &crowd)]).unwrap_err();
        assert_eq!(
            crowded,
            ServiceError::TooManyOfFrontend {
                at: ten,
                count: many
            }
        );
    }

    #[test]
    fn every_backend_is_chosen_about_as_often() {
        let backends: Vec<_> = (0..7).map(|n| at(n, 80)).collect();
        let table = build(vec![frontend(10, 80, &backends)]).unwrap();
        let found = table.find(Role::Pod, at(10, 80), Protocol::TCP).unwrap();
        let mut counts = [0; 7];
        for n in 0..70_000_u64 {
            let hash = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let chosen = found.choose(hash).unwrap();
            assert!(found.serves(chosen));
            counts[chosen.address.0 as u32 as usize] += 1;
        }
        assert!(
            counts.iter().all(|n| (9_000..11_000).contains(n)),
            "{counts:?}"
        );
        assert!(!found.serves(at(7, 80)));
    }
}
