//! A lab's network: the node, its pods, and the external world behind the uplink.
//!
//! ```text
//!   pod netns              node netns                        external netns
//!   eth0 ─── veth ─── podN   daemon   uplink0 ─── veth ─── eth0   every other address
//! ```
//!
//! Every namespace has a name that `ip netns` knows; the names are written into the lab's folder
//! before they are made, so that whatever a crash left can be found and removed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use control::netlink::{Namespace, Netlink, NetlinkError, Route, RouteKind, VethEnd};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The node's end of the uplink.
pub const UPLINK: &str = "uplink0";
/// Gateways that pods see; the daemon answers for them.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// As [`GATEWAY_V4`].
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// The lab's pod range.
pub const PODS_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 16);
/// The lab's pod range.
pub const PODS_V6: Ipv6Net =
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 0), 64);
/// The lab's Services.
pub const SERVICES_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 12);
/// As [`SERVICES_V4`].
pub const SERVICES_V6: Ipv6Net =
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0), 112);
/// The node towards its pods.
pub const NODE_V4: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
/// As [`NODE_V4`].
pub const NODE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 1);
/// MTU of the pods' interfaces, for packets to other pods of the node: the largest round number
/// whose packets fit sixteen frames of packet memory.
pub const POD_MTU: u32 = 60_000;
/// Segments with which TCP between pods begins: sixteen frames each, as many as an idle port has
/// lent to the kernel. From there on both double.
pub const POD_INITIAL_WINDOW: u32 = 2;
/// MTU of the uplink, and of the pods' routes to all but other pods.
pub const WIRE_MTU: u32 = 1500;
const UPLINK_V4: [Ipv4Addr; 2] = [
    Ipv4Addr::new(172, 31, 255, 1),
    Ipv4Addr::new(172, 31, 255, 2),
];
const UPLINK_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0x10, 0x255, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0xfd00, 0x10, 0x255, 0, 0, 0, 0, 2),
];
/// MAC of the uplink's node end.
const UPLINK_MAC: [u8; 6] = [0x02, 0x57, 0xff, 0, 0, 1];
/// Longest name of a namespace; the kernel's file names end at 255.
const NAME_BYTES: usize = 200;

/// Why the network could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A file could not be written.
    #[error("{what}: {source}")]
    File {
        /// Which.
        what: String,
        /// Why.
        source: io::Error,
    },
}

fn file_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> TopologyError {
    let what = what.into();
    move |source| TopologyError::File { what, source }
}

/// A lab's network.
#[derive(Debug)]
pub struct Topology {
    lab: String,
    /// File with the names of the lab's namespaces.
    names: PathBuf,
    /// The node.
    pub node: Namespace,
    /// The external world.
    pub external: Namespace,
}

/// A pod's place in the network.
#[derive(Debug)]
pub struct PodNetwork {
    /// Its namespace's name.
    pub name: String,
    /// Its namespace.
    pub namespace: Namespace,
    /// The host-side veth.
    pub interface: String,
    /// MAC of `eth0`.
    pub mac: [u8; 6],
}

/// `02:00:0a:f4:00:02`.
pub fn mac_text(mac: [u8; 6]) -> String {
    let parts: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    parts.join(":")
}

/// Name of the node's namespace.
pub fn node_name(lab: &str) -> String {
    format!("weir-{lab}")
}

/// Name of the external world's namespace.
pub fn external_name(lab: &str) -> String {
    format!("weir-{lab}-external")
}

/// Name of a pod's namespace.
pub fn pod_name(lab: &str, namespace: &str, pod: &str) -> String {
    let mut name = format!("weir-{lab}-{namespace}-{pod}");
    name.truncate(NAME_BYTES);
    name
}

/// The address of the uplink's far end, which is a host of the external world.
pub const fn external_addresses() -> (Ipv4Addr, Ipv6Addr) {
    (UPLINK_V4[1], UPLINK_V6[1])
}

fn set(path: &str, value: &str) {
    // A kernel without IPv6 has none of these, and needs none.
    let _not_there = fs::write(Path::new("/proc/sys/net").join(path), value);
}

/// Address settings for the namespace the thread is in: no waiting for duplicates, no routers but
/// ours.
fn settle_addresses() {
    for scope in ["all", "default"] {
        set(&format!("ipv6/conf/{scope}/accept_dad"), "0");
        set(&format!("ipv6/conf/{scope}/accept_ra"), "0");
        set(&format!("ipv6/conf/{scope}/disable_ipv6"), "0");
        set(&format!("ipv4/conf/{scope}/rp_filter"), "0");
    }
}

impl Topology {
    /// Makes the node and the external world. `folder` is the lab's.
    pub fn create(lab: &str, folder: &Path) -> Result<Topology, TopologyError> {
        let names = folder.join("namespaces");
        let note = |name: &str| remember(&names, name);
        note(&node_name(lab))?;
        note(&external_name(lab))?;
        let node = Namespace::create(&node_name(lab))?;
        let external = Namespace::create(&external_name(lab))?;
        // Both before any interface is up: a link-local address that waits for duplicates keeps
        // the first packets to its neighbours waiting.
        node.run(settle_addresses)?;
        external.run(settle_addresses)?;
        node.run(|| make_node(&external))??;
        external.run(make_external)??;
        Ok(Topology {
            lab: lab.to_owned(),
            names,
            node,
            external,
        })
    }

    /// Makes a pod's namespace and its interface, of so many queues each way. `number` is unique
    /// within the lab's life.
    pub fn add_pod(
        &self,
        namespace: &str,
        pod: &str,
        number: u32,
        addresses: &[IpAddr],
        queues: u32,
    ) -> Result<PodNetwork, TopologyError> {
        let mut name = pod_name(&self.lab, namespace, pod);
        // `a-b/c` and `a/b-c` want the same name; so does a pod that is going.
        if Namespace::path(&name).exists() {
            name = format!("{name}-{number}");
        }
        remember(&self.names, &name)?;
        let network = Namespace::create(&name)?;
        let interface = format!("pod{number}");
        let [high, low] = [(number >> 8) as u8, number as u8];
        let mac = [
            0x02,
            0x57,
            (number >> 24) as u8,
            (number >> 16) as u8,
            high,
            low,
        ];
        network.run(settle_addresses)?;
        let made = (|| -> Result<(), NetlinkError> {
            self.node
                .run(|| make_pair(&interface, &network, mac, queues))??;
            network.run(|| make_pod(addresses))?
        })();
        if let Err(error) = made {
            self.remove_pod_parts(&name, &interface);
            return Err(error.into());
        }
        Ok(PodNetwork {
            name,
            namespace: network,
            interface,
            mac,
        })
    }

    /// Removes a pod's namespace and interface.
    pub fn remove_pod(&self, pod: &PodNetwork) {
        self.remove_pod_parts(&pod.name, &pod.interface);
    }

    fn remove_pod_parts(&self, name: &str, interface: &str) {
        // The other end goes with it, whoever still holds the namespace.
        let _gone = self.node.run(|| -> Result<(), NetlinkError> {
            let mut netlink = Netlink::connect()?;
            match netlink.link(interface)? {
                Some(link) => netlink.delete_link(link.index),
                None => Ok(()),
            }
        });
        let _gone = Namespace::delete(name);
        forget(&self.names, name);
    }
}

/// Held while the file of names is changed: pods come and go on threads of their own.
static NAMES: Mutex<()> = Mutex::new(());

fn remember(names: &Path, name: &str) -> Result<(), TopologyError> {
    let _alone = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let file = File::options().create(true).append(true).open(names);
    file.and_then(|mut file| file.write_all(format!("{name}\n").as_bytes()))
        .map_err(file_error(format!("write {}", names.display())))
}

fn forget(names: &Path, name: &str) {
    let _alone = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let Ok(text) = fs::read_to_string(names) else {
        return;
    };
    let kept: String = text
        .lines()
        .filter(|line| *line != name)
        .flat_map(|line| [line, "\n"])
        .collect();
    let beside = names.with_extension("new");
    // A name too many does no harm: removing what is not there is no error.
    let _kept_too_many = fs::write(&beside, kept).and_then(|()| fs::rename(&beside, names));
}

/// The names in a lab's folder.
pub fn remembered(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join("namespaces")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn up(netlink: &mut Netlink, name: &str) -> Result<u32, NetlinkError> {
    let link = netlink.link(name)?.ok_or_else(|| NetlinkError {
        what: format!("find link {name}"),
        source: io::ErrorKind::NotFound.into(),
    })?;
    netlink.set_up(link.index)?;
    Ok(link.index)
}

fn everything() -> [IpNet; 2] {
    [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())]
}

fn make_node(external: &Namespace) -> Result<(), NetlinkError> {
    use std::os::fd::AsFd;
    let mut netlink = Netlink::connect()?;
    up(&mut netlink, "lo")?;
    let mut far = VethEnd::new("eth0");
    far.namespace = Some(external.as_fd());
    let mut near = VethEnd::new(UPLINK);
    near.mac = Some(UPLINK_MAC);
    netlink.create_veth(&near, &far)?;
    let uplink = up(&mut netlink, UPLINK)?;
    netlink.add_address(uplink, net(UPLINK_V4[0].into(), 30))?;
    netlink.add_address(uplink, net(UPLINK_V6[0].into(), 64))?;
    external.run(|| -> Result<(), NetlinkError> {
        up(&mut Netlink::connect()?, "eth0")?;
        Ok(())
    })??;
    let gateways = [UPLINK_V4[1].into(), UPLINK_V6[1].into()];
    for (destination, gateway) in everything().into_iter().zip(gateways) {
        netlink.add_route(&Route::via(destination, Some(gateway), uplink))?;
    }
    Ok(())
}

fn net(address: IpAddr, bits: u8) -> IpNet {
    // The lengths above are those of the address's family.
    IpNet::new(address, bits).unwrap_or_else(|_| IpNet::from(address))
}

/// Every address that is not the lab's own is a host of the external world: local routes for
/// everything, so that one responder answers for all of them.
fn make_external() -> Result<(), NetlinkError> {
    let mut netlink = Netlink::connect()?;
    let loopback = up(&mut netlink, "lo")?;
    let uplink = up(&mut netlink, "eth0")?;
    netlink.add_address(uplink, net(UPLINK_V4[1].into(), 30))?;
    netlink.add_address(uplink, net(UPLINK_V6[1].into(), 64))?;
    let ours: [(IpNet, IpAddr); 4] = [
        (IpNet::V4(PODS_V4), UPLINK_V4[0].into()),
        (IpNet::V4(SERVICES_V4), UPLINK_V4[0].into()),
        (IpNet::V6(PODS_V6), UPLINK_V6[0].into()),
        (IpNet::V6(SERVICES_V6), UPLINK_V6[0].into()),
    ];
    for (destination, gateway) in ours {
        netlink.add_route(&Route::via(destination, Some(gateway), uplink))?;
        // Solicitations for it would come from the link-local address, which the kernel makes up
        // to a second after the link is up (`net/core/link_watch.c`).
        netlink.set_neighbour(uplink, gateway, UPLINK_MAC)?;
    }
    for destination in everything() {
        let mut route = Route::via(destination, None, loopback);
        route.kind = RouteKind::Local;
        netlink.add_route(&route)?;
    }
    Ok(())
}

fn make_pair(
    interface: &str,
    pod: &Namespace,
    mac: [u8; 6],
    queues: u32,
) -> Result<(), NetlinkError> {
    use std::os::fd::AsFd;
    let mut netlink = Netlink::connect()?;
    let mut far = VethEnd::new("eth0");
    far.mac = Some(mac);
    far.mtu = Some(POD_MTU);
    far.namespace = Some(pod.as_fd());
    far.queues = queues;
    let mut near = VethEnd::new(interface);
    near.queues = queues;
    near.mtu = Some(POD_MTU);
    netlink.create_veth(&near, &far)?;
    let link = netlink.link(interface)?.ok_or_else(|| NetlinkError {
        what: format!("find link {interface}"),
        source: io::ErrorKind::NotFound.into(),
    })?;
    // No address at all: the node's own stack has no way to a pod but through the daemon.
    netlink.set_no_link_local(link.index)?;
    netlink.set_up(link.index)
}

fn make_pod(addresses: &[IpAddr]) -> Result<(), NetlinkError> {
    let mut netlink = Netlink::connect()?;
    up(&mut netlink, "lo")?;
    let eth0 = up(&mut netlink, "eth0")?;
    for address in addresses {
        netlink.add_address(eth0, IpNet::from(*address))?;
    }
    for (destination, gateway, (mtu, initial_window)) in pod_routes() {
        if addresses
            .iter()
            .any(|address| address.is_ipv4() == gateway.is_ipv4())
        {
            let mut route = Route::via(destination, Some(gateway), eth0);
            route.on_link = true;
            route.mtu = Some(mtu);
            route.initial_window = initial_window;
            netlink.add_route(&route)?;
        }
    }
    Ok(())
}

/// A pod's routes: other pods, and Services that lead to them, are reached in large packets, everybody
/// else in a wire's. So is the node, whose address towards its pods is of their range.
fn pod_routes() -> Vec<(IpNet, IpAddr, (u32, Option<u32>))> {
    const WIRE: (u32, Option<u32>) = (WIRE_MTU, None);
    const POD: (u32, Option<u32>) = (POD_MTU, Some(POD_INITIAL_WINDOW));
    let [all_v4, all_v6] = everything();
    let (v4, v6) = (GATEWAY_V4.into(), GATEWAY_V6.into());
    vec![
        (all_v4, v4, WIRE),
        (IpNet::V4(PODS_V4), v4, POD),
        (IpNet::V4(SERVICES_V4), v4, POD),
        (IpAddr::from(NODE_V4).into(), v4, WIRE),
        (all_v6, v6, WIRE),
        (IpNet::V6(PODS_V6), v6, POD),
        (IpNet::V6(SERVICES_V6), v6, POD),
        (IpAddr::from(NODE_V6).into(), v6, WIRE),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespace_names_fit_a_file_name() {
        assert_eq!(pod_name("stars", "client", "c-1"), "weir-stars-client-c-1");
        assert!(pod_name("a", &"n".repeat(63), &"p".repeat(253)).len() <= NAME_BYTES);
    }

    #[test]
    fn names_written_at_once_stay_apart() {
        let folder = std::env::temp_dir().join(format!("weir-at-once-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("namespaces");
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let file = &file;
                scope.spawn(move || {
                    for number in 0..50 {
                        remember(file, &format!("weir-{thread}-{number}")).unwrap();
                        if number % 2 == 0 {
                            forget(file, &format!("weir-{thread}-{number}"));
                        }
                    }
                });
            }
        });
        let names = remembered(&folder);
        assert_eq!(names.len(), 200);
        assert!(names.iter().all(|name| name.matches("weir-").count() == 1));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn names_are_remembered_until_forgotten() {
        let folder = std::env::temp_dir().join(format!("weir-names-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("namespaces");
        for name in ["a", "b", "c"] {
            remember(&file, name).unwrap();
        }
        forget(&file, "b");
        let left = remembered(&folder);
        fs::remove_dir_all(folder).unwrap();
        assert_eq!(left, ["a", "c"]);
    }
}
