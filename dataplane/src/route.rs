//! Longest-prefix routes and next hops.

use ipnet::IpNet;

use crate::Address;
use crate::snapshot::PortId;

/// The way to a next hop.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum NextHop {
    /// A router with this address on the port's link: its neighbour entry has the Ethernet address.
    Gateway(Address),
    /// The destination itself is a neighbour on the port's link.
    OnLink,
    /// A local endpoint, by its index in the snapshot.
    Endpoint(u32),
}

/// Where packets to a prefix go.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RouteTarget {
    /// The port they leave by.
    pub port: PortId,
    /// Whom they are handed to there.
    pub next_hop: NextHop,
}

/// A route to a prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// Destinations; host bits are ignored.
    pub prefix: IpNet,
    /// Where they go; none for the kernel's `unreachable`, `blackhole` and `prohibit`, which hide
    /// shorter prefixes.
    pub target: Option<RouteTarget>,
}

/// Longest-prefix match over both families: built once, never changed, no allocation in lookups.
#[derive(Debug, Default)]
pub struct RouteTable {
    routes: Vec<Route>,
}

impl RouteTable {
    /// A table of `routes`. Of two routes to one prefix the earlier in the list wins, so callers
    /// sort by metric.
    pub fn new(routes: &[Route]) -> RouteTable {
        RouteTable {
            routes: routes.to_vec(),
        }
    }

    /// Where packets to `destination` go: the longest prefix that covers it.
    pub fn lookup(&self, destination: Address) -> Option<RouteTarget> {
        let covering = self
            .routes
            .iter()
            .filter(|route| route.prefix.contains(&destination.to_ip()));
        covering
            .rev()
            .max_by_key(|route| route.prefix.prefix_len())?
            .target
    }
}
