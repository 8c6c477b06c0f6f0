//! Loading, attaching, and the maps.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{self, Map, MapData, XskMap};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::TcAttachOptions;
use aya::programs::xdp::XdpMode;
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp, tc};
use aya::{Ebpf, EbpfLoader};
use ipnet::IpNet;

use super::XdpError;
use super::pins::{Pins, interface_name};
use crate::snapshot::Role;
use crate::{Address, Protocol};

/// The built object; see its source's head for the command.
static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/weir.bpf.o"));

/// How often an attach is tried again while the interface's former link is still being let go.
const ATTACH_TRIES: u32 = 10;
/// Pause between them; a dying process holds its link for some 20 ms.
const ATTACH_PAUSE: Duration = Duration::from_millis(20);

/// What the map `local` says of a destination; the same numbers stand in the programs' source.
const OURS: u32 = 1;
const NODE_PORTS: u32 = 2;
const SOURCE_PORTS: u32 = 3;

/// Ports of the node's own addresses that an uplink's program gives to us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeServices {
    /// The addresses at which node ports are reached.
    pub addresses: Vec<Address>,
    /// The node ports.
    pub ports: Vec<(Protocol, u16)>,
    /// Addresses that translated connections come from: their answers are for the ports from 61000 on.
    pub sources: Vec<Address>,
}

/// An interface whose way in, and for pods whose way out, is ours.
#[derive(Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The interface.
    pub ifindex: u32,
}

/// The loaded programs and their maps.
pub struct Programs {
    ebpf: Ebpf,
    pins: Pins,
    slots: maps::HashMap<MapData, [u32; 2], u32>,
    sockets: XskMap<MapData>,
    local: LpmTrie<MapData, [u8; 16], u32>,
    node_ports: maps::HashMap<MapData, u32, u32>,
    /// What `local` is to hold: our prefixes, and the node's addresses with ports of Services.
    prefixes: Vec<IpNet>,
    node: NodeServices,
    /// Slots in use, by (interface, queue).
    used: HashMap<(u32, u32), u32>,
    free: Vec<u32>,
    slots_max: u32,
    /// Interfaces attached by this process.
    attached: Vec<u32>,
    /// Interfaces that were attached by this process and then left shut.
    left: Vec<u32>,
}

impl std::fmt::Debug for Programs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Programs")
            .field("pins", &self.pins)
            .field("attached", &self.attached)
            .field("used", &self.used)
            .finish_non_exhaustive()
    }
}

impl Programs {
    /// Loads the programs with room for `slots_max` (interface, queue) pairs. Links will be pinned
    /// in `pin_dir`, an instance's own folder on a bpffs.
    pub fn load(pin_dir: &Path, slots_max: u32) -> Result<Programs, XdpError> {
        let pins = Pins::open(pin_dir)?;
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("slots", slots_max)
            .map_max_entries("sockets", slots_max)
            .load(OBJECT)
            .map_err(|error| XdpError::Load(chain(&error)))?;
        for name in ["weir_pod", "weir_host", "weir_uplink"] {
            xdp(&mut ebpf, name)?
                .load()
                .map_err(|error| XdpError::Load(chain(&error)))?;
        }
        shut(&mut ebpf)?
            .load()
            .map_err(|error| XdpError::Load(chain(&error)))?;
        let slots = maps::HashMap::try_from(take(&mut ebpf, "slots")?).map_err(wrong_map)?;
        let sockets = XskMap::try_from(take(&mut ebpf, "sockets")?).map_err(wrong_map)?;
        let local = LpmTrie::try_from(take(&mut ebpf, "local")?).map_err(wrong_map)?;
        let node_ports =
            maps::HashMap::try_from(take(&mut ebpf, "node_ports")?).map_err(wrong_map)?;
        Ok(Programs {
            ebpf,
            pins,
            slots,
            sockets,
            local,
            node_ports,
            prefixes: Vec::new(),
            node: NodeServices::default(),
            used: HashMap::new(),
            free: (0..slots_max).rev().collect(),
            slots_max,
            attached: Vec::new(),
            left: Vec::new(),
        })
    }

    /// Attaches the role's program to an interface of the calling thread's network namespace, and
    /// shuts a pod's way past the daemon first. Pinned links of a former daemon are taken over.
    ///
    /// # Errors
    /// If the interface is gone, has no native XDP, or carries somebody else's program. It is left
    /// as it was, except that a pod's way past the daemon stays shut.
    pub fn attach(&mut self, role: Role, ifindex: u32) -> Result<Attachment, XdpError> {
        if role == Role::Pod {
            self.shut_egress(ifindex)?;
        }
        self.attach_xdp(program_of(role), ifindex)?;
        if !self.attached.contains(&ifindex) {
            self.attached.push(ifindex);
        }
        self.left.retain(|left| *left != ifindex);
        Ok(Attachment { ifindex })
    }

    /// Gives an attached interface's program to the queues that it has got since: a veth gives it to
    /// those alone that it had when it was attached, and takes the others' packets past it
    /// (`veth_set_channels` in `drivers/net/veth.c`). An update to the same program changes nothing,
    /// so there is another one for a moment; on an uplink the node's own packets are dropped in it.
    pub fn renew(&mut self, role: Role, ifindex: u32) -> Result<(), XdpError> {
        let other = match role {
            Role::HostNode | Role::HostTransit => Role::Pod,
            Role::Pod | Role::Uplink => Role::HostNode,
        };
        for role in [other, role] {
            let pin = self.pins.xdp(ifindex);
            let xdp = xdp(&mut self.ebpf, program_of(role))?;
            let pinned = PinnedLink::from_pin(&pin).map_err(|error| XdpError::Attach {
                interface: shown(ifindex),
                message: chain(&error),
            })?;
            update(xdp, pinned, ifindex)?;
        }
        Ok(())
    }

    /// Takes an interface's sockets away and leaves its programs there, so that nothing passes, by
    /// the daemon or past it, as long as the interface exists. Its pins go with the first
    /// [`Programs::sweep`] after it; [`Programs::attach`] takes it back.
    pub fn leave_shut(&mut self, attachment: Attachment) -> Result<(), XdpError> {
        let ifindex = attachment.ifindex;
        self.clear_sockets(ifindex)?;
        self.attached.retain(|attached| *attached != ifindex);
        self.left.push(ifindex);
        Ok(())
    }

    fn clear_sockets(&mut self, ifindex: u32) -> Result<(), XdpError> {
        let of = |&&(own, _): &&(u32, u32)| own == ifindex;
        let queues: Vec<(u32, u32)> = self.used.keys().filter(of).copied().collect();
        for (ifindex, queue) in queues {
            self.clear_socket(ifindex, queue)?;
        }
        Ok(())
    }

    /// Detaches what [`Programs::attach`] attached. An interface that is gone is no error. For a
    /// pod the order matters: the egress program goes last, with its interface open to the node's
    /// stack from then on, so call this only when the interface leaves Weir.
    pub fn detach(&mut self, attachment: Attachment) -> Result<(), XdpError> {
        let ifindex = attachment.ifindex;
        self.clear_sockets(ifindex)?;
        // A pin holds the only reference: without it the link is gone and the program detached.
        Pins::remove(&self.pins.xdp(ifindex))?;
        Pins::remove(&self.pins.egress(ifindex))?;
        self.attached.retain(|attached| *attached != ifindex);
        self.left.retain(|left| *left != ifindex);
        Ok(())
    }

    /// Removes pins of interfaces that are gone: of pods that were left shut before, or that went
    /// away while no daemon ran. An interface that is still there stays shut, whether or not this process has attached it:
    /// without its pins it would be open to the node's stack.
    pub fn sweep(&self) -> Result<usize, XdpError> {
        self.pins.sweep(&self.attached)
    }

    /// Gives the packets of an interface's queue to a bound socket.
    pub fn set_socket(
        &mut self,
        ifindex: u32,
        queue: u32,
        socket: BorrowedFd<'_>,
    ) -> Result<(), XdpError> {
        let what = |text: &str| format!("{text} of interface {ifindex}, queue {queue}");
        let slot = match self.used.get(&(ifindex, queue)) {
            Some(slot) => *slot,
            None => self.free.pop().ok_or(XdpError::NoSlot(self.slots_max))?,
        };
        let set = self
            .sockets
            .set(slot, socket.as_raw_fd(), 0)
            .map_err(|error| XdpError::Map {
                what: what("the socket"),
                message: chain(&error),
            })
            .and_then(|()| {
                self.slots
                    .insert([ifindex, queue], slot, 0)
                    .map_err(|error| XdpError::Map {
                        what: what("the slot"),
                        message: chain(&error),
                    })
            });
        match set {
            Ok(()) => _ = self.used.insert((ifindex, queue), slot),
            Err(error) => {
                if !self.used.contains_key(&(ifindex, queue)) {
                    self.free.push(slot);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes the packets of a queue away from its socket: they are dropped from now on.
    pub fn clear_socket(&mut self, ifindex: u32, queue: u32) -> Result<(), XdpError> {
        let Some(slot) = self.used.remove(&(ifindex, queue)) else {
            return Ok(());
        };
        // The slot's number leaves first, so that it never leads to another port's socket. Either
        // entry may be gone already: a closed socket leaves the XSKMAP by itself.
        let removed = self.slots.remove(&[ifindex, queue]);
        let _gone_with_its_socket = self.sockets.unset(slot);
        self.free.push(slot);
        match removed {
            Ok(()) => Ok(()),
            Err(maps::MapError::KeyNotFound) => Ok(()),
            Err(error) => Err(XdpError::Map {
                what: format!("the slot of interface {ifindex}, queue {queue}"),
                message: chain(&error),
            }),
        }
    }

    /// Replaces the destinations that an uplink's program gives to us; all else stays the node's, but for
    /// what [`Programs::set_node_services`] names.
    pub fn set_local_prefixes(&mut self, prefixes: &[IpNet]) -> Result<(), XdpError> {
        self.prefixes = prefixes.to_vec();
        self.sync_local()
    }

    /// Replaces the node's ports that an uplink's program gives to us.
    pub fn set_node_services(&mut self, node: NodeServices) -> Result<(), XdpError> {
        let failed = |error: maps::MapError| XdpError::Map {
            what: "the uplinks' node ports".into(),
            message: chain(&error),
        };
        let wanted: HashSet<u32> = node.ports.iter().map(port_key).collect();
        let present: HashSet<u32> = self
            .node_ports
            .keys()
            .collect::<Result<_, _>>()
            .map_err(failed)?;
        for key in wanted.difference(&present) {
            self.node_ports.insert(key, 1, 0).map_err(failed)?;
        }
        for key in present.difference(&wanted) {
            self.node_ports.remove(key).map_err(failed)?;
        }
        self.node = node;
        self.sync_local()
    }

    fn sync_local(&mut self) -> Result<(), XdpError> {
        let failed = |error: maps::MapError| XdpError::Map {
            what: "the uplinks' destinations".into(),
            message: chain(&error),
        };
        let mut wanted: HashMap<(u32, [u8; 16]), u32> = HashMap::new();
        let host = |address: &Address| (128, address.0.to_be_bytes());
        wanted.extend(self.node.addresses.iter().map(|a| (host(a), NODE_PORTS)));
        wanted.extend(self.node.sources.iter().map(|a| (host(a), SOURCE_PORTS)));
        wanted.extend(self.prefixes.iter().map(|prefix| (trie_key(prefix), OURS)));
        let present: Vec<Key<[u8; 16]>> = self
            .local
            .keys()
            .collect::<Result<_, _>>()
            .map_err(failed)?;
        for ((bits, address), whose) in &wanted {
            self.local
                .insert(&Key::new(*bits, *address), whose, 0)
                .map_err(failed)?;
        }
        for key in present {
            if !wanted.contains_key(&(key.prefix_len(), key.data())) {
                self.local.remove(&key).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Attaches a program natively, or updates the pinned link that a former daemon left.
    fn attach_xdp(&mut self, program: &str, ifindex: u32) -> Result<(), XdpError> {
        let pin = self.pins.xdp(ifindex);
        let xdp = xdp(&mut self.ebpf, program)?;
        let mut tries = 0;
        let id = loop {
            match xdp.attach_to_if_index(ifindex, XdpMode::Driver) {
                Ok(id) => break id,
                Err(error) if !is_busy(&error) => return Err(refused(ifindex, &error)),
                // Something is attached: a link of ours that is pinned, one that a dying process
                // still holds, or a stranger's.
                Err(error) => match PinnedLink::from_pin(&pin) {
                    Ok(pinned) => return update(xdp, pinned, ifindex),
                    Err(_) if tries < ATTACH_TRIES => {
                        tries += 1;
                        sleep(ATTACH_PAUSE);
                    }
                    Err(_) => return Err(refused(ifindex, &error)),
                },
            }
        };
        let link = xdp
            .take_link(id)
            .map_err(|error| refused(ifindex, &error))?;
        let link: FdLink = link.try_into().map_err(|_| wrong_link(ifindex))?;
        // A pin that is left is a link's whose interface is gone.
        Pins::remove(&pin)?;
        link.pin(&pin).map_err(|error| XdpError::Attach {
            interface: shown(ifindex),
            message: chain(&error),
        })?;
        Ok(())
    }

    /// Shuts the way out of a pod's host-side veth for everyone but our sockets.
    ///
    /// The new link is attached before a former one goes, so that there is no open moment; two at
    /// once only drop twice.
    fn shut_egress(&mut self, ifindex: u32) -> Result<(), XdpError> {
        let failed = |message: String| XdpError::Attach {
            interface: shown(ifindex),
            message: format!("its egress: {message}"),
        };
        let name = interface_name(ifindex).map_err(|error| failed(error.to_string()))?;
        let pin = self.pins.egress(ifindex);
        let program = shut(&mut self.ebpf)?;
        let mut tries = 0;
        let attached = loop {
            let attach = TcAttachOptions::TcxOrder(LinkOrder::first());
            match program.attach_with_options(&name, TcAttachType::Egress, attach) {
                // We have shut it before and left it so.
                Err(error) if is_busy(&error) && self.left.contains(&ifindex) => return Ok(()),
                // The kernel lets go of a removed pin's link a little later, and takes a program
                // once only; what is on its way out must not count as attached.
                Err(error) if is_busy(&error) && tries < ATTACH_TRIES => {
                    tries += 1;
                    sleep(ATTACH_PAUSE);
                }
                other => break other,
            }
        };
        match attached {
            Ok(id) => {
                let link = program.take_link(id).map_err(|e| failed(chain(&e)))?;
                let link: FdLink = link.try_into().map_err(|_| wrong_link(ifindex))?;
                Pins::remove(&pin)?;
                link.pin(&pin).map_err(|error| failed(chain(&error)))?;
            }
            // Before 6.6 there are no tcx links: a filter on clsact stays without a pin.
            Err(error) if lacks_tcx(&error) => {
                match tc::qdisc_add_clsact(&name) {
                    Ok(()) | Err(tc::TcError::AlreadyAttached) => {}
                    Err(error) => return Err(failed(chain(&error))),
                }
                let options = TcAttachOptions::Netlink(tc::NlOptions::default());
                let id = program
                    .attach_with_options(&name, TcAttachType::Egress, options)
                    .map_err(|e| failed(chain(&e)))?;
                // The filter must outlive this process: it goes with the interface.
                let link = program.take_link(id).map_err(|e| failed(chain(&e)))?;
                std::mem::forget(link);
            }
            Err(error) => return Err(failed(chain(&error))),
        }
        Ok(())
    }
}

/// Puts a program in the place of a pinned link's. The pin stays where it is: there is no moment in
/// which dying would detach the program.
fn update(xdp: &mut Xdp, pinned: PinnedLink, ifindex: u32) -> Result<(), XdpError> {
    let link = FdLink::from(pinned)
        .try_into()
        .map_err(|_| wrong_link(ifindex))?;
    let id = xdp.attach_to_link(link).map_err(|e| refused(ifindex, &e))?;
    drop(xdp.take_link(id).map_err(|e| refused(ifindex, &e))?);
    Ok(())
}

fn program_of(role: Role) -> &'static str {
    match role {
        Role::Pod => "weir_pod",
        Role::Uplink => "weir_uplink",
        Role::HostNode | Role::HostTransit => "weir_host",
    }
}

fn xdp<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, XdpError> {
    let program = ebpf
        .program_mut(name)
        .and_then(|program| program.try_into().ok());
    program.ok_or_else(|| XdpError::Load(format!("the object has no XDP program {name}")))
}

fn shut(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier, XdpError> {
    let program = ebpf
        .program_mut("weir_shut")
        .and_then(|program| program.try_into().ok());
    program.ok_or_else(|| XdpError::Load("the object has no tc program weir_shut".into()))
}

fn take(ebpf: &mut Ebpf, name: &str) -> Result<Map, XdpError> {
    ebpf.take_map(name)
        .ok_or_else(|| XdpError::Load(format!("the object has no map {name}")))
}

fn wrong_map(error: maps::MapError) -> XdpError {
    XdpError::Load(chain(&error))
}

/// The key of a node port.
fn port_key((protocol, port): &(Protocol, u16)) -> u32 {
    u32::from(protocol.0) << 16 | u32::from(*port)
}

/// The LPM trie's key: IPv4 as IPv4-mapped, so 96 bits longer.
fn trie_key(prefix: &IpNet) -> (u32, [u8; 16]) {
    let bits = u32::from(prefix.prefix_len()) + if prefix.addr().is_ipv4() { 96 } else { 0 };
    (bits, Address::from(prefix.network()).0.to_be_bytes())
}

fn os_error(error: &ProgramError) -> Option<i32> {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.raw_os_error();
        }
        source = error.source();
    }
    match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    }
}

fn is_busy(error: &ProgramError) -> bool {
    matches!(os_error(error), Some(libc::EBUSY | libc::EEXIST))
}

fn lacks_tcx(error: &ProgramError) -> bool {
    matches!(os_error(error), Some(libc::EINVAL | libc::EOPNOTSUPP))
}

fn refused(ifindex: u32, error: &ProgramError) -> XdpError {
    let what_to_do = match os_error(error) {
        Some(libc::EBUSY | libc::EEXIST) => {
            "; another XDP program is attached: see `bpftool net`, detach it with `ip link set dev IF xdp off`"
        }
        Some(libc::ERANGE) => {
            "; its MTU is too large for XDP: lower it with `ip link set dev IF mtu 1500`"
        }
        Some(libc::ENOSPC) => {
            "; its peer has more transmit queues than it has receive queues: see `ethtool -l IF`"
        }
        Some(libc::EOPNOTSUPP) => "; its driver has no native XDP",
        Some(libc::ENODEV) => "; the interface is gone",
        _ => "",
    };
    XdpError::Attach {
        interface: shown(ifindex),
        message: format!("{}{what_to_do}", chain(error)),
    }
}

fn wrong_link(ifindex: u32) -> XdpError {
    XdpError::Attach {
        interface: shown(ifindex),
        message: "the kernel has no BPF links for it; Linux 5.9 or later is needed".into(),
    }
}

fn shown(ifindex: u32) -> String {
    interface_name(ifindex).unwrap_or_else(|_| format!("interface {ifindex}"))
}

/// An error with its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_of_both_families_share_one_trie() {
        let v4 = trie_key(&"10.1.0.0/16".parse().unwrap());
        assert_eq!(v4.0, 112);
        assert_eq!(v4.1[10..], [0xff, 0xff, 10, 1, 0, 0]);
        let v6 = trie_key(&"fd00::/64".parse().unwrap());
        assert_eq!((v6.0, v6.1[0]), (64, 0xfd));
    }
}
