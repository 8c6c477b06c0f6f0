//! The route table against a list that is searched.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::Address;
use dataplane::route::{NextHop, Route, RouteTable, RouteTarget};
use dataplane::snapshot::PortId;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::prelude::*;

fn target(port: u16) -> RouteTarget {
    RouteTarget {
        port: PortId(port),
        next_hop: match port % 3 {
            0 => NextHop::OnLink,
            1 => NextHop::Gateway(Address::v4(0x0a00_0001)),
            _ => NextHop::Endpoint(u32::from(port)),
        },
    }
}

fn route(prefix: &str, port: u16) -> Route {
    Route {
        prefix: prefix.parse().unwrap(),
        target: Some(target(port)),
    }
}

fn at(address: &str) -> Address {
    address.parse::<IpAddr>().unwrap().into()
}

/// The longest covering prefix, the first of equal ones, by looking at each.
fn naive(routes: &[Route], destination: Address) -> Option<RouteTarget> {
    let mut best: Option<&Route> = None;
    for route in routes {
        let longer = best.is_none_or(|best| route.prefix.prefix_len() > best.prefix.prefix_len());
        if route.prefix.contains(&destination.to_ip()) && longer {
            best = Some(route);
        }
    }
    best?.target
}

#[test]
fn longest_prefix_wins_in_each_family() {
    let table = RouteTable::new(&[
        route("0.0.0.0/0", 1),
        route("::/0", 2),
        route("10.0.0.0/8", 3),
        route("10.1.0.0/16", 4),
        route("10.1.255.255/32", 5),
        route("255.255.255.255/32", 6),
        route("fd00::/64", 7),
        route("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128", 8),
    ]);
    for (address, port) in [
        ("9.255.255.255", 1),
        ("10.0.0.0", 3),
        ("10.1.0.0", 4),
        ("10.1.255.254", 4),
        ("10.1.255.255", 5),
        ("10.2.0.0", 3),
        ("11.0.0.0", 1),
        ("0.0.0.0", 1),
        ("255.255.255.254", 1),
        ("255.255.255.255", 6),
        ("::", 2),
        ("fd00::1", 7),
        ("fd00:0:0:1::", 2),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", 2),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 8),
    ] {
        assert_eq!(table.lookup(at(address)), Some(target(port)), "{address}");
    }
}

#[test]
fn a_default_route_of_one_family_is_none_of_the_other() {
    let v6_only = RouteTable::new(&[route("::/0", 1)]);
    assert_eq!(v6_only.lookup(at("10.0.0.1")), None);
    let v4_only = RouteTable::new(&[route("0.0.0.0/0", 1)]);
    assert_eq!(v4_only.lookup(at("fd00::1")), None);
    assert_eq!(RouteTable::new(&[]).lookup(at("10.0.0.1")), None);
}

#[test]
fn an_unreachable_prefix_hides_the_shorter_one() {
    let hole = Route {
        prefix: "10.1.0.0/16".parse().unwrap(),
        target: None,
    };
    let table = RouteTable::new(&[route("10.0.0.0/8", 1), hole, route("10.1.2.0/24", 2)]);
    assert_eq!(table.lookup(at("10.1.1.1")), None);
    assert_eq!(table.lookup(at("10.1.2.1")), Some(target(2)));
    assert_eq!(table.lookup(at("10.1.3.1")), None);
    assert_eq!(table.lookup(at("10.2.0.0")), Some(target(1)));
}

#[test]
fn the_earlier_of_equal_prefixes_wins_and_host_bits_do_not_count() {
    let table = RouteTable::new(&[route("10.1.2.3/16", 1), route("10.1.0.0/16", 2)]);
    assert_eq!(table.lookup(at("10.1.9.9")), Some(target(1)));
}

/// Addresses with few different bits, so that prefixes nest and lookups hit their edges.
fn bits() -> impl Strategy<Value = u128> {
    let byte = prop_oneof![Just(0u8), Just(0xff), Just(1), Just(0xfe), any::<u8>()];
    proptest::array::uniform16(byte).prop_map(u128::from_be_bytes)
}

fn prefix() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        (bits(), 0..=32u8).prop_map(|(bits, length)| {
            IpNet::V4(Ipv4Net::new(Ipv4Addr::from(bits as u32), length).unwrap())
        }),
        (bits(), 0..=128u8).prop_map(|(bits, length)| {
            IpNet::V6(Ipv6Net::new(Ipv6Addr::from(bits), length).unwrap())
        }),
    ]
}

fn routes() -> impl Strategy<Value = Vec<Route>> {
    let target = proptest::option::weighted(0.9, (0..6u16).prop_map(target));
    let route = (prefix(), target).prop_map(|(prefix, target)| Route { prefix, target });
    proptest::collection::vec(route, 0..40)
}

proptest! {
    #[test]
    fn equals_the_searched_list(
        routes in routes(),
        asked in proptest::collection::vec(bits(), 0..20),
    ) {
        let table = RouteTable::new(&routes);
        let edges = routes.iter().flat_map(|route| {
            let (first, last) = (Address::from(route.prefix.network()), Address::from(route.prefix.broadcast()));
            // The neighbours on either side, within the family.
            let step = |address: Address, by: i128| match address.as_v4() {
                Some(bits) => Address::v4(bits.wrapping_add(by as u32)),
                None => Address::v6(address.0.wrapping_add_signed(by)),
            };
            [first, last, step(first, -1), step(last, 1)]
        });
        let asked = asked.iter().flat_map(|bits| [Address::v4(*bits as u32), Address::v6(*bits)]);
        for address in edges.chain(asked) {
            // A number that turns out IPv4-mapped is an IPv4 address here and there.
            prop_assert_eq!(table.lookup(address), naive(&routes, address), "{}", address);
        }
    }
}
