//! Links: veth pairs and their properties.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};

use super::{Mode, Netlink, Result};

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MAC; zeros where it has none.
    pub mac: [u8; 6],
    /// Its MTU, bytes.
    pub mtu: u32,
    /// Whether it is set up by its administrator.
    pub up: bool,
    /// Receive queues.
    pub rx_queues: u32,
    /// `veth`, `bridge`, …; empty for hardware.
    pub kind: String,
    /// The other end of a veth pair, or the lower device: its number in its own namespace.
    pub peer: Option<u32>,
}

/// One end of a veth pair that is to be made.
#[derive(Clone, Debug)]
pub struct VethEnd<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its MAC; none leaves it to the kernel.
    pub mac: Option<[u8; 6]>,
    /// Its MTU, bytes; none is 1500.
    pub mtu: Option<u32>,
    /// The namespace it comes into being in; none is the socket's.
    pub namespace: Option<BorrowedFd<'a>>,
    /// Queues in each direction.
    pub queues: u32,
}

impl<'a> VethEnd<'a> {
    /// An end in the socket's namespace with one queue.
    pub fn new(name: &'a str) -> VethEnd<'a> {
        VethEnd {
            name,
            mac: None,
            mtu: None,
            namespace: None,
            queues: 1,
        }
    }

    fn message(&self) -> LinkMessage {
        let mut message = LinkMessage::default();
        let attributes = &mut message.attributes;
        attributes.push(LinkAttribute::IfName(self.name.to_owned()));
        if let Some(mac) = self.mac {
            attributes.push(LinkAttribute::Address(mac.to_vec()));
        }
        if let Some(mtu) = self.mtu {
            attributes.push(LinkAttribute::Mtu(mtu));
        }
        attributes.push(LinkAttribute::NumTxQueues(self.queues));
        attributes.push(LinkAttribute::NumRxQueues(self.queues));
        if let Some(namespace) = self.namespace {
            attributes.push(LinkAttribute::NetNsFd(namespace.as_raw_fd()));
        }
        message
    }
}

impl Netlink {
    /// Every link of the namespace.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let mut links = Vec::new();
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        self.dump(request, "list links", |message| {
            if let RouteNetlinkMessage::NewLink(message) = message {
                links.push(Link::from_message(&message));
            }
        })?;
        Ok(links)
    }

    /// The link of that name, if there is one.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>> {
        Ok(self.links()?.into_iter().find(|link| link.name == name))
    }

    /// Makes a veth pair.
    pub fn create_veth(&mut self, end: &VethEnd<'_>, peer: &VethEnd<'_>) -> Result<()> {
        let mut message = end.message();
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer.message()))),
        ]));
        let what = format!("create veth pair {} {}", end.name, peer.name);
        self.request(RouteNetlinkMessage::NewLink(message), Mode::New, &what)
    }

    /// Makes a bridge (`InfoKind::Bridge`).
    pub fn create_bridge(&mut self, name: &str) -> Result<()> {
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        let info = vec![LinkInfo::Kind(InfoKind::Bridge)];
        message.attributes.push(LinkAttribute::LinkInfo(info));
        let what = format!("create bridge {name}");
        self.request(RouteNetlinkMessage::NewLink(message), Mode::New, &what)
    }

    /// Sets the link up.
    pub fn set_up(&mut self, index: u32) -> Result<()> {
        self.set_flags(index, LinkFlags::Up, "up")
    }

    /// Sets the link down.
    pub fn set_down(&mut self, index: u32) -> Result<()> {
        self.set_flags(index, LinkFlags::empty(), "down")
    }

    fn set_flags(&mut self, index: u32, flags: LinkFlags, word: &str) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = flags;
        message.header.change_mask = LinkFlags::Up;
        let what = format!("set link {index} {word}");
        self.request(RouteNetlinkMessage::SetLink(message), Mode::Change, &what)
    }

    fn set(&mut self, index: u32, attribute: LinkAttribute, what: &str) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(attribute);
        let what = format!("{what} of link {index}");
        self.request(RouteNetlinkMessage::SetLink(message), Mode::Change, &what)
    }

    /// Sets the MAC.
    pub fn set_mac(&mut self, index: u32, mac: [u8; 6]) -> Result<()> {
        self.set(index, LinkAttribute::Address(mac.to_vec()), "set MAC")
    }

    /// Sets the MTU, bytes.
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<()> {
        self.set(index, LinkAttribute::Mtu(mtu), "set MTU")
    }

    /// Renames the link, which must be down.
    pub fn rename(&mut self, index: u32, name: &str) -> Result<()> {
        self.set(index, LinkAttribute::IfName(name.to_owned()), "set name")
    }

    /// Moves the link to another namespace. Its number may change.
    pub fn move_to_namespace(&mut self, index: u32, namespace: BorrowedFd<'_>) -> Result<()> {
        let attribute = LinkAttribute::NetNsFd(namespace.as_raw_fd());
        self.set(index, attribute, "set namespace")
    }

    /// Makes the link a port of a bridge, or of none.
    pub fn set_bridge(&mut self, index: u32, bridge: Option<u32>) -> Result<()> {
        let attribute = LinkAttribute::Controller(bridge.unwrap_or(0));
        self.set(index, attribute, "set bridge")
    }

    /// Lets the link have no IPv6 link-local address of the kernel's making
    /// (`IN6_ADDR_GEN_MODE_NONE`). Takes effect when the link next comes up.
    pub fn set_no_link_local(&mut self, index: u32) -> Result<()> {
        let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        let attribute = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]);
        self.set(index, attribute, "set IPv6 address mode")
    }

    /// Puts a `pfifo` queue at the link's root, so that a veth whose receiver is full reports so
    /// instead of dropping (`drivers/net/veth.c`, `NETDEV_TX_BUSY`).
    pub fn set_pfifo(&mut self, index: u32) -> Result<()> {
        let mut message = TcMessage::with_index(index as i32);
        message.header.parent = TcHandle::ROOT;
        message.attributes.push(TcAttribute::Kind("pfifo".into()));
        let what = format!("set queue of link {index}");
        let request = RouteNetlinkMessage::NewQueueDiscipline(message);
        self.request(request, Mode::Replace, &what)
    }

    /// Deletes the link, and the other end of a veth pair with it.
    pub fn delete_link(&mut self, index: u32) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let what = format!("delete link {index}");
        self.request(RouteNetlinkMessage::DelLink(message), Mode::Change, &what)
    }
}

impl Link {
    pub(super) fn from_message(message: &LinkMessage) -> Link {
        let mut link = Link {
            index: message.header.index,
            name: String::new(),
            mac: [0; 6],
            mtu: 0,
            up: message.header.flags.contains(LinkFlags::Up),
            rx_queues: 1,
            kind: String::new(),
            peer: None,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Address(mac) => {
                    link.mac = mac.as_slice().try_into().unwrap_or_default();
                }
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::NumRxQueues(queues) => link.rx_queues = *queues,
                LinkAttribute::Link(peer) => link.peer = Some(*peer),
                LinkAttribute::LinkInfo(info) => {
                    for item in info {
                        if let LinkInfo::Kind(kind) = item {
                            link.kind = kind.to_string();
                        }
                    }
                }
                _ => {}
            }
        }
        link
    }
}
