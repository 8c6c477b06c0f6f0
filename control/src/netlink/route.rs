//! Routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric,
    RouteNextHopFlags, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Mode, Netlink, Result};

/// The main routing table's number.
pub const MAIN_TABLE: u32 = RouteHeader::RT_TABLE_MAIN as u32;

/// What a route does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RouteKind {
    /// Sends on.
    #[default]
    Unicast,
    /// The address is the machine's own.
    Local,
    /// Drops in silence.
    Blackhole,
    /// Refuses with host unreachable.
    Unreachable,
    /// Refuses with administratively prohibited.
    Prohibit,
    /// Broadcast, multicast, throw and others, which Weir neither makes nor follows.
    Other,
}

/// A route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The prefix.
    pub destination: IpNet,
    /// The next hop, if not on the link; of a route with several the first.
    pub gateway: Option<IpAddr>,
    /// The interface out; of a route with several the first.
    pub interface: Option<u32>,
    /// The routing table.
    pub table: u32,
    /// The source address that the machine's own packets prefer.
    pub source: Option<IpAddr>,
    /// Metric; lower goes first. None leaves it to the kernel.
    pub metric: Option<u32>,
    /// MTU towards it, bytes.
    pub mtu: Option<u32>,
    /// Segments that a TCP connection sends before the first acknowledgement; none is the kernel's
    /// default, 10.
    pub initial_window: Option<u32>,
    /// Takes the gateway as reachable on the interface, whatever its address.
    pub on_link: bool,
    /// What it does.
    pub kind: RouteKind,
}

impl Route {
    /// A route out of an interface in the main table.
    pub fn via(destination: IpNet, gateway: Option<IpAddr>, interface: u32) -> Route {
        Route {
            destination,
            gateway,
            interface: Some(interface),
            table: MAIN_TABLE,
            source: None,
            metric: None,
            mtu: None,
            initial_window: None,
            on_link: false,
            kind: RouteKind::Unicast,
        }
    }

    fn message(&self) -> RouteMessage {
        let mut message = RouteMessage::default();
        let header = &mut message.header;
        header.address_family = family(self.destination.addr());
        header.destination_prefix_length = self.destination.prefix_len();
        header.table = u8::try_from(self.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
        header.protocol = RouteProtocol::Static;
        header.kind = match self.kind {
            RouteKind::Local => RouteType::Local,
            RouteKind::Blackhole => RouteType::BlackHole,
            RouteKind::Unreachable => RouteType::Unreachable,
            RouteKind::Prohibit => RouteType::Prohibit,
            RouteKind::Unicast | RouteKind::Other => RouteType::Unicast,
        };
        header.scope = match (self.kind, self.gateway) {
            (RouteKind::Local, _) => RouteScope::Host,
            (RouteKind::Unicast, None) => RouteScope::Link,
            _ => RouteScope::Universe,
        };
        if self.on_link {
            header.flags = RouteFlags::from_bits_retain(RouteNextHopFlags::Onlink.bits().into());
        }
        let attributes = &mut message.attributes;
        attributes.push(RouteAttribute::Table(self.table));
        if self.destination.prefix_len() > 0 {
            let address = RouteAddress::from(self.destination.addr());
            attributes.push(RouteAttribute::Destination(address));
        }
        attributes.extend(self.gateway.map(|ip| RouteAttribute::Gateway(ip.into())));
        attributes.extend(self.interface.map(RouteAttribute::Oif));
        attributes.extend(self.source.map(|ip| RouteAttribute::PrefSource(ip.into())));
        attributes.extend(self.metric.map(RouteAttribute::Priority));
        let mtu = self.mtu.map(RouteMetric::Mtu);
        let window = self.initial_window.map(RouteMetric::InitCwnd);
        let metrics: Vec<RouteMetric> = mtu.into_iter().chain(window).collect();
        if !metrics.is_empty() {
            attributes.push(RouteAttribute::Metrics(metrics));
        }
        message
    }

    pub(super) fn from_message(message: &RouteMessage) -> Option<Route> {
        let header = &message.header;
        let unspecified: IpAddr = match header.address_family {
            AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
            AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
            _ => return None,
        };
        let mut route = Route {
            destination: IpNet::from(unspecified),
            gateway: None,
            interface: None,
            table: u32::from(header.table),
            source: None,
            metric: None,
            mtu: None,
            initial_window: None,
            on_link: false,
            kind: kind(header.kind),
        };
        let mut destination = unspecified;
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(address) => destination = ip(address)?,
                RouteAttribute::Gateway(address) => route.gateway = ip(address),
                RouteAttribute::Oif(interface) => route.interface = Some(*interface),
                RouteAttribute::Table(table) => route.table = *table,
                RouteAttribute::PrefSource(address) => route.source = ip(address),
                RouteAttribute::Priority(metric) => route.metric = Some(*metric),
                RouteAttribute::Metrics(metrics) => {
                    for metric in metrics {
                        match metric {
                            RouteMetric::Mtu(mtu) => route.mtu = Some(*mtu),
                            RouteMetric::InitCwnd(segments) => {
                                route.initial_window = Some(*segments);
                            }
                            _ => {}
                        }
                    }
                }
                RouteAttribute::MultiPath(hops) => {
                    let first = hops.first()?;
                    route.interface = Some(first.interface_index);
                    for attribute in &first.attributes {
                        if let RouteAttribute::Gateway(address) = attribute {
                            route.gateway = ip(address);
                        }
                    }
                }
                _ => {}
            }
        }
        route.destination = IpNet::new(destination, header.destination_prefix_length).ok()?;
        Some(route)
    }
}

fn kind(kind: RouteType) -> RouteKind {
    match kind {
        RouteType::Unicast => RouteKind::Unicast,
        RouteType::Local => RouteKind::Local,
        RouteType::BlackHole => RouteKind::Blackhole,
        RouteType::Unreachable => RouteKind::Unreachable,
        RouteType::Prohibit => RouteKind::Prohibit,
        _ => RouteKind::Other,
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

pub(super) fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

impl Netlink {
    /// Every route of both families and all tables.
    pub fn routes(&mut self) -> Result<Vec<Route>> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            self.dump(
                RouteNetlinkMessage::GetRoute(message),
                "list routes",
                |message| {
                    if let RouteNetlinkMessage::NewRoute(message) = message {
                        routes.extend(Route::from_message(&message));
                    }
                },
            )?;
        }
        Ok(routes)
    }

    /// Adds a route, in the place of one with the same destination, table and metric.
    pub fn add_route(&mut self, route: &Route) -> Result<()> {
        let what = format!("add route {}", route.destination);
        let message = RouteNetlinkMessage::NewRoute(route.message());
        self.request(message, Mode::Replace, &what)
    }

    /// Deletes a route.
    pub fn delete_route(&mut self, route: &Route) -> Result<()> {
        let what = format!("delete route {}", route.destination);
        let mut message = route.message();
        message.header.scope = RouteScope::NoWhere;
        self.request(RouteNetlinkMessage::DelRoute(message), Mode::Change, &what)
    }
}
