//! What the daemon makes of the kernel's network, and what it reads there.
//!
//! It makes the host port: two veth pairs whose far ends it drives itself. What the node's own
//! programs send to pods takes `weir-node`, chosen by a rule for local output (`iif lo`) and a
//! table of its own; what the node forwards or translates takes `weir-transit`, by the main table.
//! So "sent by the node itself" is told by the port a packet comes from, never by an address.
//!
//! It reads addresses, routes and neighbours, and turns them into a snapshot's parts: [`Facts`].

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use config::Config;
use dataplane::engine::QUEUES_MAX;
use dataplane::route::{NextHop, Route as PlaneRoute, RouteTarget};
use dataplane::snapshot::{Neighbour as PlaneNeighbour, Port, PortId, Role};
use dataplane::{Address, Mac};
use ipnet::IpNet;

use crate::netlink::{
    Channels, Ethtool, InterfaceAddress, Link, MAIN_TABLE, Neighbour, NeighbourState, Netlink,
    NetlinkError, Route, RouteKind, Rule, VethEnd,
};

/// Kernel ends of the host port's pairs.
const NODE_LINK: &str = "weir-node";
const TRANSIT_LINK: &str = "weir-transit";
/// What the daemon's ends are called: the kernel ends' names and this.
const OUR_END: &str = "-x";
/// Next hops that the kernel is asked to keep alive at once, beyond which further ones wait until
/// others have failed.
const MANAGED_NEIGHBOURS: usize = 1024;
/// How soon a next hop that has failed may be asked for again.
const RETRY: Duration = Duration::from_secs(1);

/// An interface that a port is to be made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MAC.
    pub mac: Mac,
    /// Its MTU.
    pub mtu: u16,
    /// Its queues.
    pub queues: Queues,
    /// What stands behind it.
    pub role: Role,
    /// For the host roles the MAC of the kernel's end.
    pub peer_mac: Option<Mac>,
    /// Zero-copy binding.
    pub zero_copy: bool,
    /// Whether it is the end of a veth pair.
    pub is_virtual: bool,
}

/// Queues of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queues {
    /// Receive queues that are driven. What the program takes from others is dropped.
    pub driven: u16,
    /// Receive queues in use.
    pub receive: u16,
    /// Transmit queues in use.
    pub transmit: u16,
}

impl Queues {
    /// One in each direction.
    pub const ONE: Queues = Queues {
        driven: 1,
        receive: 1,
        transmit: 1,
    };

    /// As many as the interface has in use, but for what the dataplane can drive and `most` allows.
    pub fn of(receive: u32, transmit: u32, most: Option<u32>) -> Queues {
        let narrow = |count: u32| u16::try_from(count).unwrap_or(u16::MAX).max(1);
        let most = most.unwrap_or(u32::MAX).min(QUEUES_MAX.into());
        Queues {
            driven: narrow(receive.min(most)),
            receive: narrow(receive),
            transmit: narrow(transmit),
        }
    }

    /// What is wrong with them, if anything is.
    pub fn problem(&self) -> Option<String> {
        let Queues {
            driven, receive, ..
        } = self;
        (driven < receive).then(|| {
            format!(
                "{driven} of {receive} receive queues are driven, what comes for pods by the others \
                 is dropped: lower them (ethtool -L) or raise uplinks.queues"
            )
        })
    }
}

impl Interface {
    fn new(link: &Link, role: Role) -> Interface {
        Interface {
            index: link.index,
            name: link.name.clone(),
            mac: Mac(link.mac),
            mtu: u16::try_from(link.mtu).unwrap_or(u16::MAX),
            queues: Queues::ONE,
            role,
            peer_mac: None,
            zero_copy: false,
            is_virtual: link.kind == "veth",
        }
    }

    /// The port of this interface. `own` are addresses that ICMP errors may come from: the first
    /// of each family is taken, a link-local one only if there is no other.
    pub fn port(&self, id: PortId, own: &[Address]) -> Port {
        Port {
            id,
            role: self.role,
            mac: self.mac,
            mtu: self.mtu,
            is_virtual: self.is_virtual,
            icmp_source_v4: icmp_source(own, true),
            icmp_source_v6: icmp_source(own, false),
            endpoint: None,
            peer_mac: self.peer_mac,
        }
    }
}

/// What a snapshot takes from the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Addresses of the node, loopback and IPv6 link-local ones left out. IPv4 link-local ones are
    /// there, for node-local DNS caches listen at such.
    pub node_addresses: Vec<Address>,
    /// Routes, lower metrics first.
    pub routes: Vec<PlaneRoute>,
    /// Next hops on uplinks with their MACs.
    pub neighbours: Vec<PlaneNeighbour>,
}

/// The kernel's network.
#[derive(Debug)]
pub struct Network {
    netlink: Netlink,
    /// None where the kernel has no such interface.
    ethtool: Option<Ethtool>,
    /// Pods' and Services'.
    our_ranges: Vec<IpNet>,
    /// Next hops the kernel was asked for, and when.
    managed: BTreeMap<(u32, IpAddr), Instant>,
}

impl Network {
    /// Connects to the namespace the calling thread is in.
    pub fn connect(config: &Config) -> Result<Network, NetlinkError> {
        Ok(Network {
            netlink: Netlink::connect()?,
            ethtool: Ethtool::connect().ok(),
            our_ranges: config.our_ranges().collect(),
            managed: BTreeMap::new(),
        })
    }

    /// Makes the host port, or what of it lacks, and gives its two interfaces.
    pub fn set_up_host_port(&mut self, config: &Config) -> Result<Vec<Interface>, NetlinkError> {
        if !config.host_port.enabled {
            return Ok(Vec::new());
        }
        let node = self.host_pair(NODE_LINK, Role::HostNode)?;
        let transit = self.host_pair(TRANSIT_LINK, Role::HostTransit)?;
        let links = self.netlink.links()?;
        for (name, interface, table) in [
            (NODE_LINK, &node, config.host_port.table),
            (TRANSIT_LINK, &transit, MAIN_TABLE),
        ] {
            let Some(kernel_end) = links.iter().find(|link| link.name == name) else {
                continue;
            };
            if name == NODE_LINK {
                for address in &config.host_port.addresses {
                    let added = self
                        .netlink
                        .add_address(kernel_end.index, IpNet::from(*address));
                    unless_exists(added)?;
                }
            }
            // Only then, because a route's source has to be an address of the node.
            self.route_pods(config, kernel_end.index, interface.mac, table)?;
        }
        for v6 in [false, true] {
            let added = self.netlink.add_rule(&Rule {
                v6,
                priority: config.host_port.rule_priority,
                input: Some("lo".into()),
                table: config.host_port.table,
            });
            unless_exists(added)?;
        }
        Ok(vec![node, transit])
    }

    /// One pair of the host port, up; gives the daemon's end.
    fn host_pair(&mut self, name: &str, role: Role) -> Result<Interface, NetlinkError> {
        let ours = format!("{name}{OUR_END}");
        let created = self
            .netlink
            .create_veth(&VethEnd::new(name), &VethEnd::new(&ours));
        unless_exists(created)?;
        let missing = |name: &str| NetlinkError {
            what: format!("find {name}: delete the other end of its pair"),
            source: std::io::ErrorKind::NotFound.into(),
        };
        let kernel_end = self.netlink.link(name)?.ok_or_else(|| missing(name))?;
        let our_end = self.netlink.link(&ours)?.ok_or_else(|| missing(&ours))?;
        // What pods send to the node comes in here although routes to pods may point elsewhere.
        write_setting(&format!("ipv4/conf/{name}/rp_filter"), "2")?;
        self.strip(&our_end)?;
        self.netlink.set_up(our_end.index)?;
        self.netlink.set_up(kernel_end.index)?;
        Ok(Interface {
            peer_mac: Some(Mac(kernel_end.mac)),
            ..Interface::new(&our_end, role)
        })
    }

    /// Routes the pods' and Services' ranges out of a kernel end, by a gateway whose MAC is known for good.
    fn route_pods(
        &mut self,
        config: &Config,
        interface: u32,
        mac: Mac,
        table: u32,
    ) -> Result<(), NetlinkError> {
        for gateway in config.gateways.iter() {
            self.netlink.set_neighbour(interface, gateway, mac.0)?;
            for range in config.our_ranges() {
                if range.addr().is_ipv4() != gateway.is_ipv4() {
                    continue;
                }
                let own = config.host_port.addresses.iter();
                let source = own.copied().find(|own| own.is_ipv4() == gateway.is_ipv4());
                self.netlink.add_route(&Route {
                    table,
                    source: if table == MAIN_TABLE { None } else { source },
                    on_link: true,
                    ..Route::via(range, Some(gateway), interface)
                })?;
            }
        }
        Ok(())
    }

    /// The uplink of that name.
    pub fn uplink(&mut self, uplink: &config::Uplink) -> Result<Interface, NetlinkError> {
        let link = self.find(&uplink.interface)?;
        Ok(Interface {
            zero_copy: uplink.zero_copy,
            queues: self.queues(&link, uplink.queues)?,
            ..Interface::new(&link, Role::Uplink)
        })
    }

    /// A link's queues in use, at most `most` of them to be driven.
    fn queues(&mut self, link: &Link, most: Option<u32>) -> Result<Queues, NetlinkError> {
        let told = match &mut self.ethtool {
            Some(ethtool) => ethtool.channels(link.index)?,
            None => None,
        };
        let told = told.map(|channels| (channels.receive, channels.transmit));
        let (receive, transmit) = told
            .or_else(|| listed_queues(link))
            .unwrap_or((link.rx_queues, 1));
        Ok(Queues::of(receive, transmit, most))
    }

    /// What has changed of these interfaces' channels since the last call.
    pub fn changed_channels(&mut self, known: &BTreeMap<u32, (PortId, Role)>) -> Vec<Channels> {
        let Some(ethtool) = &mut self.ethtool else {
            return Vec::new();
        };
        match ethtool.changes() {
            Ok(mut changed) => {
                changed.retain(|channels| known.contains_key(&channels.interface));
                changed
            }
            // What was lost is asked for.
            Err(_) => {
                let told = known.keys().map(|index| ethtool.channels(*index));
                told.filter_map(Result::ok).flatten().collect()
            }
        }
    }

    /// Descriptor that tells of such changes.
    pub fn channels_fd(&self) -> Option<RawFd> {
        self.ethtool.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Makes the host side of a pod's veth ready: no address of any family, a queue that tells when
    /// the pod is slow, up.
    pub fn pod_interface(&mut self, name: &str) -> Result<Interface, NetlinkError> {
        let link = self.find(name)?;
        if link.kind != "veth" {
            let kind = if link.kind.is_empty() {
                "hardware"
            } else {
                &link.kind
            };
            return Err(NetlinkError {
                what: format!("interface {name} is {kind}, not the end of a veth pair"),
                source: std::io::ErrorKind::InvalidInput.into(),
            });
        }
        self.strip(&link)?;
        self.netlink.set_pfifo(link.index)?;
        self.netlink.set_up(link.index)?;
        // A veth that nobody gave a number has as many queues as cores, one of them in use.
        Ok(Interface {
            queues: self.queues(&link, None)?,
            ..Interface::new(&link, Role::Pod)
        })
    }

    fn find(&mut self, name: &str) -> Result<Link, NetlinkError> {
        self.netlink.link(name)?.ok_or_else(|| NetlinkError {
            what: format!("find interface {name}"),
            source: std::io::ErrorKind::NotFound.into(),
        })
    }

    /// Takes from a link of ours every address, and IPv6 as a whole, so that the node's stack
    /// neither speaks nor listens there.
    fn strip(&mut self, link: &Link) -> Result<(), NetlinkError> {
        // The name is the kernel's own, which holds no slash and is neither `.` nor `..`.
        write_setting(&format!("ipv6/conf/{}/disable_ipv6", link.name), "1")?;
        for address in self.netlink.addresses()? {
            if address.interface == link.index {
                let deleted = self.netlink.delete_address(link.index, address.address);
                deleted.or_else(|error| {
                    if error.is_not_found() {
                        Ok(())
                    } else {
                        Err(error)
                    }
                })?;
            }
        }
        Ok(())
    }

    /// Every link.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        self.netlink.links()
    }

    /// Asks the kernel for the MAC of a next hop and to keep it alive.
    pub fn resolve(&mut self, interface: u32, address: IpAddr, now: Instant) {
        let key = (interface, address);
        if self
            .managed
            .get(&key)
            .is_some_and(|since| now - *since < RETRY)
        {
            return;
        }
        if self.managed.len() >= MANAGED_NEIGHBOURS && !self.managed.contains_key(&key) {
            return;
        }
        self.managed.insert(key, now);
        // Where it cannot be asked for (the link is down), the next packet asks again.
        let _ = self.netlink.manage_neighbour(interface, address);
    }

    /// Reads everything anew. `ports` are the live ports by their interface's number.
    pub fn read(&mut self, ports: &BTreeMap<u32, (PortId, Role)>) -> Result<Facts, NetlinkError> {
        let addresses = self.netlink.addresses()?;
        let routes = self.netlink.routes()?;
        let neighbours = self.netlink.neighbours()?;
        let ours = self.our_links()?;
        self.forget_failed(&neighbours);
        let now = Instant::now();
        for route in &routes {
            let uplink = route.interface.filter(|index| is_uplink(ports, *index));
            if let (Some(index), Some(gateway), RouteKind::Unicast) =
                (uplink, route.gateway, route.kind)
            {
                self.resolve(index, gateway, now);
            }
        }
        Ok(Facts {
            node_addresses: node_addresses(&addresses),
            routes: plane_routes(&addresses, &routes, ports, &ours, &self.our_ranges),
            neighbours: plane_neighbours(&neighbours, ports),
        })
    }

    fn our_links(&mut self) -> Result<Vec<u32>, NetlinkError> {
        let links = self.netlink.links()?.into_iter();
        let ours = links.filter(|link| {
            let kernel_end = link.name.strip_suffix(OUR_END).unwrap_or(&link.name);
            link.name == "lo" || kernel_end == NODE_LINK || kernel_end == TRANSIT_LINK
        });
        Ok(ours.map(|link| link.index).collect())
    }

    /// Lets go of next hops that do not answer, so that the bound is for those that do.
    fn forget_failed(&mut self, neighbours: &[Neighbour]) {
        for neighbour in neighbours {
            let key = (neighbour.interface, neighbour.address);
            if neighbour.state == NeighbourState::Failed
                && self
                    .managed
                    .get(&key)
                    .is_some_and(|since| since.elapsed() > RETRY)
            {
                self.managed.remove(&key);
                let _ = self.netlink.delete_neighbour(key.0, key.1);
            }
        }
    }
}

/// Queues in use for receiving and transmitting as `/sys` lists them, for drivers that do not tell
/// their channels; none where it shows another network namespace than ours.
fn listed_queues(link: &Link) -> Option<(u32, u32)> {
    let folder = std::path::Path::new("/sys/class/net").join(&link.name);
    let read = |file: &str| fs::read_to_string(folder.join(file)).unwrap_or_default();
    if read("ifindex").trim() != link.index.to_string()
        || read("address").trim() != Mac(link.mac).to_string()
    {
        return None;
    }
    let names = fs::read_dir(folder.join("queues")).ok()?.flatten();
    let names: Vec<_> = names.map(|queue| queue.file_name()).collect();
    let count = |kind: &[u8]| {
        let of_kind = names
            .iter()
            .filter(|name| name.as_encoded_bytes().starts_with(kind));
        of_kind.count() as u32
    };
    Some((count(b"rx-"), count(b"tx-"))).filter(|(receive, _)| *receive > 0)
}

fn unless_exists(result: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match result {
        Err(error) if error.is_exists() => Ok(()),
        other => other,
    }
}

/// Writes below `/proc/sys/net`. A kernel without that family has nothing to set.
fn write_setting(path: &str, value: &str) -> Result<(), NetlinkError> {
    let path = format!("/proc/sys/net/{path}");
    match fs::write(&path, value) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(NetlinkError {
            what: format!("write {value} to {path}"),
            source: error,
        }),
        _ => Ok(()),
    }
}

fn icmp_source(own: &[Address], v4: bool) -> Option<Address> {
    let of_family = own.iter().copied().filter(|address| address.is_v4() == v4);
    of_family.min_by_key(|address| is_link_local(address.to_ip()))
}

fn is_uplink(ports: &BTreeMap<u32, (PortId, Role)>, index: u32) -> bool {
    ports
        .get(&index)
        .is_some_and(|(_, role)| *role == Role::Uplink)
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    }
}

fn node_addresses(addresses: &[InterfaceAddress]) -> Vec<Address> {
    let mut found: Vec<Address> = addresses
        .iter()
        .map(|address| address.address.addr())
        .filter(|ip| !(ip.is_loopback() || ip.is_ipv6() && is_link_local(*ip)))
        .map(Address::from)
        .collect();
    found.sort();
    found.dedup();
    found
}

fn plane_neighbours(
    neighbours: &[Neighbour],
    ports: &BTreeMap<u32, (PortId, Role)>,
) -> Vec<PlaneNeighbour> {
    let usable = neighbours.iter().filter(|neighbour| {
        neighbour.state == NeighbourState::Valid && is_uplink(ports, neighbour.interface)
    });
    let mut found: Vec<PlaneNeighbour> = usable
        .filter_map(|neighbour| {
            Some(PlaneNeighbour {
                port: ports.get(&neighbour.interface)?.0,
                address: neighbour.address.into(),
                mac: Mac(neighbour.mac?),
            })
        })
        .collect();
    found.sort_by_key(|neighbour| (neighbour.port, neighbour.address));
    found
}

/// The dataplane's routes: the node's own addresses, then the kernel's main and default tables,
/// lower metrics first, then the pods' and Services' ranges, in which what is no endpoint is
/// nowhere.
fn plane_routes(
    addresses: &[InterfaceAddress],
    routes: &[Route],
    ports: &BTreeMap<u32, (PortId, Role)>,
    ours: &[u32],
    our_ranges: &[IpNet],
) -> Vec<PlaneRoute> {
    let port_of = |wanted: Role| {
        ports
            .values()
            .find(|(_, role)| *role == wanted)
            .map(|port| port.0)
    };
    let on_link = |port| RouteTarget {
        port,
        next_hop: NextHop::OnLink,
    };
    let mut found: Vec<PlaneRoute> = node_addresses(addresses)
        .into_iter()
        .map(|address| PlaneRoute {
            prefix: IpNet::from(address.to_ip()),
            target: port_of(Role::HostNode).map(on_link),
        })
        .collect();
    let mut kernel: Vec<&Route> = routes
        .iter()
        .filter(|route| [MAIN_TABLE, MAIN_TABLE - 1].contains(&route.table))
        .filter(|route| !matches!(route.kind, RouteKind::Local | RouteKind::Other))
        .filter(|route| !is_link_local(route.destination.addr()))
        .filter(|route| route.interface.is_none_or(|index| !ours.contains(&index)))
        .collect();
    kernel.sort_by_key(|route| (route.table != MAIN_TABLE, route.metric.unwrap_or(0)));
    found.extend(our_ranges.iter().map(|range| PlaneRoute {
        prefix: *range,
        target: None,
    }));
    found.extend(kernel.into_iter().map(|route| {
        PlaneRoute {
            prefix: route.destination,
            target: match (
                route.kind,
                route.interface.and_then(|index| ports.get(&index)),
            ) {
                (RouteKind::Unicast, Some((port, Role::Uplink))) => Some(RouteTarget {
                    port: *port,
                    next_hop: route
                        .gateway
                        .map_or(NextHop::OnLink, |ip| NextHop::Gateway(ip.into())),
                }),
                (RouteKind::Unicast, None) => port_of(Role::HostTransit).map(on_link),
                _ => None,
            },
        }
    }));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(destination: &str, gateway: Option<&str>, interface: u32) -> Route {
        let gateway = gateway.map(|gateway| gateway.parse().unwrap());
        Route::via(destination.parse().unwrap(), gateway, interface)
    }

    fn target(routes: &[PlaneRoute], prefix: &str) -> Option<Option<RouteTarget>> {
        let prefix: IpNet = prefix.parse().unwrap();
        routes
            .iter()
            .find(|route| route.prefix == prefix)
            .map(|route| route.target)
    }

    #[test]
    fn queues_that_are_not_driven_are_complained_of() {
        let all = Queues::of(4, 2, None);
        assert_eq!((all.driven, all.transmit, all.problem()), (4, 2, None));
        let some = Queues::of(4, 4, Some(3)).problem().unwrap();
        assert!(some.starts_with("3 of 4 receive queues"), "{some}");
        assert_eq!(Queues::of(1000, 1, None).driven, QUEUES_MAX);
        assert_eq!(Queues::of(0, 0, None), Queues::ONE);
    }

    #[test]
    fn kernel_routes_become_ports() {
        let ports = BTreeMap::from([
            (2, (PortId(0), Role::HostNode)),
            (3, (PortId(1), Role::HostTransit)),
            (4, (PortId(2), Role::Uplink)),
        ]);
        let ours = [1, 2, 3, 8, 9];
        let addresses = [
            InterfaceAddress {
                interface: 1,
                address: "127.0.0.1/8".parse().unwrap(),
            },
            InterfaceAddress {
                interface: 4,
                address: "192.0.2.7/24".parse().unwrap(),
            },
            InterfaceAddress {
                interface: 4,
                address: "fe80::7/64".parse().unwrap(),
            },
            InterfaceAddress {
                interface: 5,
                address: "169.254.20.10/32".parse().unwrap(),
            },
        ];
        let mut slow = route("0.0.0.0/0", Some("192.0.2.254"), 4);
        slow.metric = Some(100);
        let mut unreachable = route("203.0.113.0/24", None, 4);
        unreachable.kind = RouteKind::Unreachable;
        let mut local = route("192.0.2.7/32", None, 4);
        local.table = 255;
        local.kind = RouteKind::Local;
        let mut own_table = route("10.0.0.0/16", None, 8);
        own_table.table = 8844;
        let routes = [
            slow,
            route("0.0.0.0/0", Some("192.0.2.1"), 4),
            route("192.0.2.0/24", None, 4),
            route("172.17.0.0/16", None, 7),
            route("10.0.0.0/16", None, 9),
            route("fe80::/64", None, 4),
            unreachable,
            local,
            own_table,
        ];
        let pods = ["10.0.0.0/16".parse().unwrap()];
        let found = plane_routes(&addresses, &routes, &ports, &ours, &pods);
        let on_link = |port| {
            Some(RouteTarget {
                port: PortId(port),
                next_hop: NextHop::OnLink,
            })
        };
        assert_eq!(target(&found, "192.0.2.7/32"), Some(on_link(0)));
        assert_eq!(target(&found, "169.254.20.10/32"), Some(on_link(0)));
        assert_eq!(target(&found, "fe80::7/128"), None);
        let own = node_addresses(&addresses);
        assert_eq!(own.len(), 2);
        let v4 = |text: &str| Some(Address::from(text.parse::<IpAddr>().unwrap()));
        assert_eq!(icmp_source(&own, true), v4("192.0.2.7"));
        assert_eq!(icmp_source(&own[..1], true), v4("169.254.20.10"));
        assert_eq!(target(&found, "192.0.2.0/24"), Some(on_link(2)));
        assert_eq!(target(&found, "172.17.0.0/16"), Some(on_link(1)));
        assert_eq!(target(&found, "203.0.113.0/24"), Some(None));
        assert_eq!(target(&found, "10.0.0.0/16"), Some(None));
        assert_eq!(target(&found, "fe80::/64"), None);
        assert_eq!(target(&found, "127.0.0.1/32"), None);
        let gateway = Address::from("192.0.2.1".parse::<IpAddr>().unwrap());
        let first = target(&found, "0.0.0.0/0").unwrap().unwrap();
        assert_eq!(first.next_hop, NextHop::Gateway(gateway));
        assert_eq!(first.port, PortId(2));
    }
}
