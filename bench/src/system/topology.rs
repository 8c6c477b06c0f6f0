//! Two pods and the node between them, each in a network namespace of its own.
//!
//! ```text
//!   pod netns               node netns               pod netns
//!   eth0 ─── veth ─── wbNa    forwarder    wbNb ─── veth ─── eth0
//! ```

use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use control::netlink::{Namespace, Netlink, NetlinkError, Route, VethEnd};
use ipnet::{IpNet, Ipv4Net};

use super::frame::Party;
use super::setup;
use crate::error::BenchError;

/// What every namespace, folder and pin of ours starts with.
pub const PREFIX: &str = "weir-bench-";
/// The gateway that pods see.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The pods' addresses.
const PODS: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 16);
/// MTU of a wire.
const WIRE_MTU: u32 = 1500;
/// Segments with which TCP begins where they are large, as in labs.
const LARGE_INITIAL_WINDOW: u32 = 2;
/// The folder of pins.
const PINS: &str = "/sys/fs/bpf/weir";

/// A pod.
#[derive(Debug)]
pub struct Pod {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its MAC and address.
    pub party: Party,
    /// The number of its `eth0` there.
    pub inner: u32,
    /// The name of the node's end of its veth.
    pub interface: String,
    /// The number of that end in the node's namespace.
    pub outer: u32,
    /// The MAC of that end: the pod's router.
    pub router: [u8; 6],
    name: String,
}

/// A node and two pods; removed when dropped.
#[derive(Debug)]
pub struct Topology {
    /// Its name, which that of everything in it starts with.
    pub name: String,
    /// The node.
    pub node: Namespace,
    /// The pods.
    pub pods: Vec<Pod>,
}

/// Connects to a namespace's netlink.
pub fn netlink(namespace: &Namespace) -> Result<Netlink, BenchError> {
    namespace
        .run(Netlink::connect)
        .map_err(setup)?
        .map_err(setup)
}

fn number_of(netlink: &mut Netlink, name: &str) -> Result<u32, BenchError> {
    let link = netlink.link(name).map_err(setup)?;
    link.map(|link| link.index)
        .ok_or_else(|| setup(format!("{name} is not there")))
}

impl Topology {
    /// Makes the node and its pods; `number` tells topologies of one run apart.
    pub fn create(number: u32, pods: u32) -> Result<Topology, BenchError> {
        Topology::with_mtu(number, pods, WIRE_MTU)
    }

    /// As [`Topology::create`], with pods that talk to each other in packets of up to `mtu` bytes,
    /// and to everybody else in those of a wire.
    pub fn with_mtu(number: u32, pods: u32, mtu: u32) -> Result<Topology, BenchError> {
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let mut topology = Topology {
            node: create(&name)?,
            name,
            pods: Vec::new(),
        };
        for pod in 0..pods {
            let made = topology.add_pod(number, pod, mtu)?;
            topology.pods.push(made);
        }
        Ok(topology)
    }

    fn add_pod(&self, number: u32, pod: u32, mtu: u32) -> Result<Pod, BenchError> {
        let name = format!("{}-pod{pod}", self.name);
        let namespace = create(&name)?;
        let made = self.plug(number, pod, mtu, namespace, &name);
        if made.is_err() {
            let _ = Namespace::delete(&name);
        }
        made
    }

    fn plug(
        &self,
        number: u32,
        pod: u32,
        mtu: u32,
        namespace: Namespace,
        name: &str,
    ) -> Result<Pod, BenchError> {
        let [_, _, high, low] = (pod + 10).to_be_bytes();
        let party = Party {
            mac: [2, 0, 0, 1, high, low],
            address: Ipv4Addr::new(10, 244, high, low),
        };
        let router = [2, 0, 0, 2, high, low];
        let interface = format!("wb{number}p{pod}");
        let outer_end = VethEnd {
            mac: Some(router),
            mtu: Some(mtu),
            ..VethEnd::new(&interface)
        };
        let inner_end = VethEnd {
            mac: Some(party.mac),
            mtu: Some(mtu),
            namespace: Some(namespace.as_fd()),
            ..VethEnd::new("eth0")
        };
        let mut node = netlink(&self.node)?;
        node.create_veth(&outer_end, &inner_end).map_err(setup)?;
        let outer = number_of(&mut node, &interface)?;
        node.set_no_link_local(outer).map_err(setup)?;
        let mut own = netlink(&namespace)?;
        let inner = number_of(&mut own, "eth0")?;
        (|| -> Result<(), NetlinkError> {
            node.set_up(outer)?;
            own.set_no_link_local(inner)?;
            own.set_up(inner)?;
            let address = std::net::IpAddr::from(party.address);
            own.add_address(inner, address.into())?;
            let everything = IpNet::V4(Ipv4Net::default());
            for (range, mtu) in [(everything, WIRE_MTU), (PODS.into(), mtu)] {
                own.add_route(&Route {
                    on_link: true,
                    mtu: Some(mtu),
                    initial_window: (mtu > 9000).then_some(LARGE_INITIAL_WINDOW),
                    ..Route::via(range, Some(GATEWAY.into()), inner)
                })?;
            }
            // Nobody has to ask: the other end of the packets may hear nothing but packets.
            own.set_neighbour(inner, GATEWAY.into(), router)
        })()
        .map_err(setup)?;
        Ok(Pod {
            namespace,
            party,
            inner,
            interface,
            outer,
            router,
            name: name.to_owned(),
        })
    }

    /// Lets the node's own stack forward between the pods.
    pub fn route(&self) -> Result<(), BenchError> {
        let mut node = netlink(&self.node)?;
        for pod in &self.pods {
            let address = std::net::IpAddr::from(pod.party.address);
            node.add_route(&Route::via(address.into(), None, pod.outer))
                .map_err(setup)?;
            node.set_neighbour(pod.outer, address, pod.party.mac)
                .map_err(setup)?;
        }
        let set = || fs::write("/proc/sys/net/ipv4/ip_forward", "1");
        self.node.run(set).map_err(setup)?.map_err(setup)
    }

    /// Runs a shell's commands in the node's namespace, with its own view of `/sys`; what they
    /// print.
    pub fn shell(&self, commands: &str) -> Result<String, BenchError> {
        shell(&self.name, commands)
    }

    /// As [`Topology::shell`], in a pod's namespace.
    pub fn pod_shell(&self, pod: usize, commands: &str) -> Result<String, BenchError> {
        shell(&self.pods[pod].name, commands)
    }
}

fn shell(namespace: &str, commands: &str) -> Result<String, BenchError> {
    let words = ["netns", "exec", namespace, "sh", "-e", "-c", commands];
    let output = Command::new("ip").args(words).output().map_err(setup)?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        return Err(setup(format!("{commands}: {}", complaint.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn create(name: &str) -> Result<Namespace, BenchError> {
    let namespace = Namespace::create(name).map_err(setup)?;
    let made = (|| {
        let mut netlink = netlink(&namespace)?;
        let index = number_of(&mut netlink, "lo")?;
        netlink.set_up(index).map_err(setup)
    })();
    if made.is_err() {
        let _ = Namespace::delete(name);
    }
    made.map(|()| namespace)
}

impl Drop for Topology {
    fn drop(&mut self) {
        let outer: Vec<u32> = self.pods.iter().map(|pod| pod.outer).collect();
        let _gone = self.node.run(|| -> Result<(), NetlinkError> {
            let mut netlink = Netlink::connect()?;
            outer
                .iter()
                .try_for_each(|index| netlink.delete_link(*index))
        });
        for pod in &self.pods {
            let _ = Namespace::delete(&pod.name);
        }
        let _ = Namespace::delete(&self.name);
    }
}

/// Where programs of a topology's part are pinned.
pub fn pins(name: &str) -> PathBuf {
    Path::new(PINS).join(name)
}

/// Removes what runs left that were killed.
pub fn sweep() {
    let is_dead = |name: &str| {
        let pid = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next())
            .filter(|pid| pid.parse::<u32>().is_ok());
        pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists())
    };
    for name in Namespace::names().iter().filter(|name| is_dead(name)) {
        let _ = Namespace::delete(name);
    }
    for folder in [PINS, "/run"] {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(is_dead) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}
