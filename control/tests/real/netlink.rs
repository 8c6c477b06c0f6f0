//! rtnetlink against the running kernel, in namespaces of its own.

use std::time::{Duration, Instant};

use control::netlink::{
    Change, Link, Monitor, Namespace, NeighbourState, Netlink, Route, RouteKind, Rule, VethEnd,
};
use std::os::fd::AsFd;

/// A namespace that is deleted with the test.
struct Scratch(String, Namespace);

impl Scratch {
    fn new(suffix: &str) -> Scratch {
        let name = format!("weir-daemon-{}-{suffix}", std::process::id());
        let namespace = Namespace::create(&name).unwrap();
        Scratch(name, namespace)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        Namespace::delete(&self.0).unwrap();
    }
}

fn link(netlink: &mut Netlink, name: &str) -> Link {
    netlink
        .link(name)
        .unwrap()
        .unwrap_or_else(|| panic!("no link {name}"))
}

pub fn a_veth_pair_across_namespaces() {
    let (near, far) = (Scratch::new("va"), Scratch::new("vb"));
    let mut a = near.1.run(Netlink::connect).unwrap().unwrap();
    let mut b = far.1.run(Netlink::connect).unwrap().unwrap();
    let mac = [2, 0, 0, 0, 0, 9];
    let peer = VethEnd {
        mac: Some(mac),
        mtu: Some(3000),
        namespace: Some(far.1.as_fd()),
        ..VethEnd::new("eth0")
    };
    a.create_veth(&VethEnd::new("wp0"), &peer).unwrap();
    let again = a
        .create_veth(&VethEnd::new("wp0"), &VethEnd::new("wp1"))
        .unwrap_err();
    assert!(again.is_exists(), "{again}");

    let (host, pod) = (link(&mut a, "wp0"), link(&mut b, "eth0"));
    assert_eq!(
        (pod.mac, pod.mtu, pod.up, pod.kind.as_str()),
        (mac, 3000, false, "veth")
    );
    assert_eq!(host.peer, Some(pod.index));
    b.set_up(pod.index).unwrap();
    b.set_mtu(pod.index, 1400).unwrap();
    a.set_no_link_local(host.index).unwrap();
    a.set_up(host.index).unwrap();
    a.set_pfifo(host.index).unwrap();
    for address in ["10.1.2.3/32", "fd00::3/128"] {
        b.add_address(pod.index, address.parse().unwrap()).unwrap();
    }
    assert_eq!(
        (link(&mut b, "eth0").mtu, link(&mut b, "eth0").up),
        (1400, true)
    );
    let addresses = b.addresses().unwrap();
    for address in ["10.1.2.3/32", "fd00::3/128"] {
        assert!(
            addresses
                .iter()
                .any(|a| a.address == address.parse().unwrap()),
            "{addresses:?}"
        );
    }
    let own = a.addresses().unwrap();
    assert!(
        own.iter().all(|address| address.interface != host.index),
        "{own:?}"
    );
    b.delete_address(pod.index, "10.1.2.3/32".parse().unwrap())
        .unwrap();
    assert!(
        b.addresses()
            .unwrap()
            .iter()
            .all(|a| a.address != "10.1.2.3/32".parse().unwrap())
    );

    a.delete_link(host.index).unwrap();
    assert!(b.link("eth0").unwrap().is_none());
    assert!(a.delete_link(host.index).unwrap_err().is_not_found());
}

pub fn routes_rules_and_neighbours() {
    let scratch = Scratch::new("routes");
    let mut netlink = scratch.1.run(Netlink::connect).unwrap().unwrap();
    netlink
        .create_veth(&VethEnd::new("wa"), &VethEnd::new("wb"))
        .unwrap();
    let index = link(&mut netlink, "wa").index;
    let other = link(&mut netlink, "wb").index;
    // A namespace has no local table, and takes no gateway, before its loopback is up.
    let loopback = link(&mut netlink, "lo").index;
    netlink.set_up(loopback).unwrap();
    netlink.set_up(index).unwrap();
    netlink.set_up(other).unwrap();
    for (destination, gateway) in [("10.9.0.0/16", "169.254.1.1"), ("fd09::/64", "fe80::1")] {
        let route = Route {
            table: 8844,
            on_link: true,
            mtu: Some(1400),
            ..Route::via(
                destination.parse().unwrap(),
                Some(gateway.parse().unwrap()),
                index,
            )
        };
        netlink.add_route(&route).unwrap();
        netlink.add_route(&route).unwrap();
        let found: Vec<Route> = netlink.routes().unwrap();
        let found: Vec<&Route> = found
            .iter()
            .filter(|found| found.destination == route.destination)
            .collect();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].gateway, route.gateway);
        assert_eq!((found[0].table, found[0].mtu), (8844, Some(1400)));
        assert_eq!(found[0].kind, RouteKind::Unicast);

        let gateway = gateway.parse().unwrap();
        netlink
            .set_neighbour(index, gateway, [2, 0, 0, 0, 0, 1])
            .unwrap();
        let neighbours = netlink.neighbours().unwrap();
        let neighbour = neighbours.iter().find(|n| n.address == gateway).unwrap();
        assert_eq!(neighbour.mac, Some([2, 0, 0, 0, 0, 1]));
        assert_eq!(neighbour.state, NeighbourState::Valid);
        netlink.delete_neighbour(index, gateway).unwrap();

        netlink.delete_route(&route).unwrap();
        assert!(netlink.delete_route(&route).unwrap_err().is_not_found());
    }
    for v6 in [false, true] {
        let rule = Rule {
            v6,
            priority: 90,
            input: Some("lo".into()),
            table: 8844,
        };
        netlink.add_rule(&rule).unwrap();
        assert!(netlink.add_rule(&rule).unwrap_err().is_exists());
        assert!(netlink.rules().unwrap().contains(&rule));
        netlink.delete_rule(&rule).unwrap();
        assert!(!netlink.rules().unwrap().contains(&rule));
    }
}

pub fn the_monitor_tells_of_a_link_that_goes() {
    let scratch = Scratch::new("monitor");
    let mut netlink = scratch.1.run(Netlink::connect).unwrap().unwrap();
    let mut monitor = scratch.1.run(Monitor::connect).unwrap().unwrap();
    assert_eq!(monitor.read(), []);
    netlink
        .create_veth(&VethEnd::new("wa"), &VethEnd::new("wb"))
        .unwrap();
    let wa = link(&mut netlink, "wa");
    netlink
        .manage_neighbour(wa.index, "10.0.0.9".parse().unwrap())
        .unwrap_or_default();
    netlink.delete_link(wa.index).unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut seen = Vec::new();
    while Instant::now() < deadline {
        seen.extend(monitor.read());
        let gone = |change: &Change| matches!(change, Change::LinkGone { name, index } if name == "wa" && *index == wa.index);
        if seen.iter().any(gone) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("the link's end was not told: {seen:?}");
}
