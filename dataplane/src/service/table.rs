//! The table of Services that workers look connections up in.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use super::shards::Shards;
use super::{
    BACKENDS_MAX, BACKENDS_OF_FRONTEND_MAX, FRONTENDS_MAX, Frontend, Lookup, NODE_ADDRESSES_MAX,
    NODE_PORTS_MAX, ServiceChange, ServiceError, ServiceParts,
};
use crate::snapshot::Role;
use crate::xdp::NodeServices;
use crate::{Address, FlowKey, Protocol, SocketAddress};

/// Every Service's frontends with their backends: immutable. The next one shares with it all but what
/// differs, so that a change costs what it changes and not what there is.
///
/// Look-ups neither allocate nor lock; their cost depends on neither how many Services nor how many
/// backends there are, but for whether a list still has a backend, which is a binary search.
#[derive(Clone, Debug, Default)]
pub struct ServiceTable {
    frontends: Shards<(SocketAddress, Protocol), Arc<Frontend>>,
    /// Addresses that are Services', and how often each is.
    addresses: Shards<Address, u32>,
    /// Node ports, and at how many addresses each is.
    node_ports: Shards<(Protocol, u16), u32>,
    /// The node's addresses, and how many node ports are at each.
    node_addresses: Arc<BTreeMap<Address, u32>>,
    /// Addresses of backends, and in how many lists each is.
    backend_addresses: Shards<Address, u32>,
    /// Backends of all lists together.
    backends: usize,
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

/// How often more, or less often, something is there.
type Counts<K> = HashMap<K, i64>;

/// What a change makes of what is counted.
#[derive(Default)]
struct Counted {
    addresses: Counts<Address>,
    node_ports: Counts<(Protocol, u16)>,
    node_addresses: Counts<Address>,
    backend_addresses: Counts<Address>,
    backends: i64,
}

fn add<K: Eq + Hash>(counts: &mut Counts<K>, key: K, times: i64) {
    *counts.entry(key).or_default() += times;
}

impl Counted {
    /// A frontend that comes (1) or goes (-1).
    fn frontend(&mut self, frontend: &Frontend, times: i64) {
        let Frontend {
            address,
            protocol,
            port,
            ..
        } = *frontend;
        if frontend.node_port {
            add(&mut self.node_ports, (protocol, port), times);
            add(&mut self.node_addresses, address, times);
        } else {
            add(&mut self.addresses, address, times);
        }
        for backend in frontend.internal.iter().chain(&frontend.external) {
            add(&mut self.backend_addresses, backend.address, times);
            self.backends += times;
        }
    }
}

impl ServiceTable {
    /// The table of `parts`.
    ///
    /// # Errors
    /// See [`ServiceError`].
    pub fn build(parts: ServiceParts) -> Result<ServiceTable, ServiceError> {
        let empty = ServiceTable {
            source_v4: parts.source_v4,
            source_v6: parts.source_v6,
            ..ServiceTable::default()
        };
        empty.with(ServiceChange {
            frontends: parts.frontends.into_iter().map(Arc::new).collect(),
            addresses: parts.addresses,
            ..ServiceChange::default()
        })
    }

    /// The table after a change.
    ///
    /// # Errors
    /// See [`ServiceError`].
    pub fn with(&self, change: ServiceChange) -> Result<ServiceTable, ServiceError> {
        let mut next = self.clone();
        let mut counted = Counted::default();
        for key in &change.gone {
            if let Some(frontend) = next.frontends.remove(key) {
                counted.frontend(&frontend, -1);
            }
        }
        for frontend in change.frontends {
            let frontend = settled(frontend)?;
            counted.frontend(&frontend, 1);
            let (at, protocol) = (frontend.at(), frontend.protocol);
            if next.frontends.insert((at, protocol), frontend).is_some() {
                return Err(ServiceError::FrontendTwice { at, protocol });
            }
        }
        for address in change.gone_addresses {
            add(&mut counted.addresses, address, -1);
        }
        for address in change.addresses {
            add(&mut counted.addresses, address, 1);
        }
        next.count(counted);
        next.check()?;
        Ok(next)
    }

    fn count(&mut self, counted: Counted) {
        self.addresses.count(counted.addresses);
        self.node_ports.count(counted.node_ports);
        self.backend_addresses.count(counted.backend_addresses);
        self.backends = self
            .backends
            .saturating_add_signed(counted.backends as isize);
        let changed = counted.node_addresses.into_iter();
        for (address, change) in changed.filter(|(_, change)| *change != 0) {
            let addresses = Arc::make_mut(&mut self.node_addresses);
            let known = addresses.remove(&address).map_or(0, i64::from);
            let left = u32::try_from(known + change).unwrap_or(0);
            if left > 0 {
                addresses.insert(address, left);
            }
        }
    }

    /// Whether there is no more than there can be.
    fn check(&self) -> Result<(), ServiceError> {
        if self.frontends.len() > FRONTENDS_MAX {
            return Err(ServiceError::TooManyFrontends(self.frontends.len()));
        }
        if self.backends > BACKENDS_MAX {
            return Err(ServiceError::TooManyBackends(self.backends));
        }
        let (ports, addresses) = (self.node_ports.len(), self.node_addresses.len());
        if ports > NODE_PORTS_MAX || addresses > NODE_ADDRESSES_MAX {
            return Err(ServiceError::TooManyNodePorts { ports, addresses });
        }
        Ok(())
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
        let frontend = self.frontends.get(&(to, protocol))?;
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
                || self.frontends.contains(&(key.receiver(), key.protocol)))
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

    /// The frontends, their backends sorted; in no particular order.
    pub fn frontends(&self) -> impl Iterator<Item = &Frontend> {
        self.frontends.iter().map(|(_, frontend)| &**frontend)
    }

    /// The addresses that belong to Services, in no particular order.
    pub fn addresses(&self) -> impl Iterator<Item = Address> + '_ {
        self.addresses.iter().map(|(address, _)| *address)
    }

    /// Whether some backend `is_remote`. Where none is there are no more to ask about than there are
    /// endpoints.
    pub(crate) fn has_remote(&self, is_remote: impl Fn(Address) -> bool) -> bool {
        let mut addresses = self.backend_addresses.iter();
        addresses.any(|(address, _)| is_remote(*address))
    }

    /// Whether the node's own ports, and its addresses for translated connections, are what they are
    /// in `other`, which the one was made from.
    pub(crate) fn is_same_at_the_node(&self, other: &ServiceTable) -> bool {
        self.node_ports.is_copy_of(&other.node_ports)
            && Arc::ptr_eq(&self.node_addresses, &other.node_addresses)
            && (self.source_v4, self.source_v6) == (other.source_v4, other.source_v6)
    }

    /// Which of the node's own ports are Services', and come to translated connections: those are there
    /// only with remote backends.
    pub(crate) fn of_the_node(&self, has_remote: bool) -> NodeServices {
        let sources = [self.source_v4, self.source_v6].into_iter().flatten();
        NodeServices {
            addresses: self.node_addresses.keys().copied().collect(),
            ports: self.node_ports.iter().map(|(port, _)| *port).collect(),
            sources: sources.filter(|_| has_remote).collect(),
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

/// A frontend that is right, with its lists sorted.
fn settled(mut frontend: Arc<Frontend>) -> Result<Arc<Frontend>, ServiceError> {
    let (at, protocol) = (frontend.at(), frontend.protocol);
    if !protocol.has_ports() {
        return Err(ServiceError::NoPorts { at, protocol });
    }
    let in_order = |list: &[SocketAddress]| list.is_sorted_by(|a, b| a < b);
    if !in_order(&frontend.internal) || !in_order(&frontend.external) {
        let Frontend {
            internal, external, ..
        } = Arc::make_mut(&mut frontend);
        for list in [internal, external] {
            list.sort_unstable();
            list.dedup();
        }
    }
    for list in [&frontend.internal, &frontend.external] {
        if list.len() > BACKENDS_OF_FRONTEND_MAX {
            let count = list.len();
            return Err(ServiceError::TooManyOfFrontend { at, count });
        }
        let is_v4 = at.address.is_v4();
        if let Some(backend) = list.iter().find(|to| to.address.is_v4() != is_v4) {
            let backend = *backend;
            return Err(ServiceError::OtherFamily { at, backend });
        }
    }
    Ok(frontend)
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
    fn a_change_makes_what_a_table_from_scratch_is_and_leaves_the_old_one() {
        let node_port = |address, port, backends: &[SocketAddress]| Frontend {
            node_port: true,
            external: backends.to_vec(),
            ..frontend(address, port, backends)
        };
        let web = |backends: &[SocketAddress]| frontend(10, 80, backends);
        let before = build(vec![
            web(&[at(1, 8080), at(2, 8080)]),
            frontend(11, 80, &[at(1, 8080)]),
            node_port(7, 30_080, &[at(1, 8080)]),
        ])
        .unwrap();
        let tcp = Protocol::TCP;
        let change = ServiceChange {
            gone: vec![(at(10, 80), tcp), (at(11, 80), tcp), (at(12, 1), tcp)],
            frontends: vec![Arc::new(web(&[at(3, 8080)]))],
            addresses: vec![Address::v4(98), Address::v4(98)],
            ..ServiceChange::default()
        };
        let after = before.with(change).unwrap();
        let whole = ServiceTable::build(ServiceParts {
            frontends: vec![web(&[at(3, 8080)]), node_port(7, 30_080, &[at(1, 8080)])],
            addresses: vec![Address::v4(99), Address::v4(98), Address::v4(98)],
            ..ServiceParts::default()
        });
        let whole = whole.unwrap();
        let all = |table: &ServiceTable| {
            let frontends = table.frontends().map(|f| (f.at(), f.clone()));
            let frontends: BTreeMap<_, _> = frontends.collect();
            let sorted = |shards: &Shards<Address, u32>| {
                let counts = shards.iter().copied();
                counts.collect::<BTreeMap<_, _>>()
            };
            let backends = sorted(&table.backend_addresses);
            (
                frontends,
                sorted(&table.addresses),
                backends,
                table.backends,
            )
        };
        assert_eq!(all(&after), all(&whole));
        let of = |table: &ServiceTable| {
            table
                .find(Role::Pod, at(10, 80), tcp)
                .unwrap()
                .backends
                .len()
        };
        assert_eq!((of(&before), of(&after)), (2, 1));
        // The node's own ports have not changed, and the lists of one have only two backends more.
        assert!(after.is_same_at_the_node(&before));
        assert!(!whole.is_same_at_the_node(&before));
        let again = |backends: &[SocketAddress]| ServiceChange {
            gone: vec![(at(7, 30_080), tcp)],
            frontends: vec![Arc::new(node_port(7, 30_080, backends))],
            ..ServiceChange::default()
        };
        let other = after.with(again(&[at(4, 8080)])).unwrap();
        assert!(other.is_same_at_the_node(&after));
        assert_eq!(other.of_the_node(true).ports, [(tcp, 30_080)]);
        assert!(other.has_remote(|address| address == Address::v4(4)));
        assert!(!after.has_remote(|address| address == Address::v4(4)));
        // An address is a Service's until the last that has it is gone.
        let one = ServiceChange {
            gone_addresses: vec![Address::v4(98)],
            ..ServiceChange::default()
        };
        let left = other.with(one.clone()).unwrap();
        assert!(left.is_service_address(Address::v4(98)));
        let left = left.with(one).unwrap();
        assert!(!left.is_service_address(Address::v4(98)));
        let twice = ServiceChange {
            frontends: vec![Arc::new(web(&[]))],
            ..ServiceChange::default()
        };
        let expected = ServiceError::FrontendTwice {
            at: at(10, 80),
            protocol: tcp,
        };
        assert_eq!(left.with(twice).unwrap_err(), expected);
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
