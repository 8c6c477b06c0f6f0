//! Neighbours: which MAC an address has on a link.

use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourMessage,
    NeighbourState as State,
};

use super::route::family;
use super::{Mode, Netlink, Result};

/// What the kernel knows of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighbourState {
    /// Its MAC can be used (NUD_VALID: reachable, stale, delay, probe, permanent, noarp).
    Valid,
    /// It is being asked for.
    Incomplete,
    /// It did not answer, or the entry is gone.
    Failed,
}

/// A neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The link it is on.
    pub interface: u32,
    /// Its address.
    pub address: IpAddr,
    /// Its MAC, if known.
    pub mac: Option<[u8; 6]>,
    /// Whether the MAC can be used.
    pub state: NeighbourState,
}

impl Neighbour {
    pub(super) fn from_message(message: &NeighbourMessage) -> Option<Neighbour> {
        let mut address = None;
        let mut mac = None;
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                    address = Some(IpAddr::V4(*v4));
                }
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                    address = Some(IpAddr::V6(*v6));
                }
                NeighbourAttribute::LinkLayerAddress(bytes) => {
                    mac = bytes.as_slice().try_into().ok();
                }
                _ => {}
            }
        }
        let state = match message.header.state {
            State::Reachable
            | State::Stale
            | State::Delay
            | State::Probe
            | State::Permanent
            | State::Noarp => NeighbourState::Valid,
            State::Incomplete => NeighbourState::Incomplete,
            _ => NeighbourState::Failed,
        };
        Some(Neighbour {
            interface: message.header.ifindex,
            address: address?,
            mac,
            state,
        })
    }
}

impl Netlink {
    /// Every neighbour of the namespace.
    pub fn neighbours(&mut self) -> Result<Vec<Neighbour>> {
        let mut neighbours = Vec::new();
        let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        self.dump(request, "list neighbours", |message| {
            if let RouteNetlinkMessage::NewNeighbour(message) = message {
                neighbours.extend(Neighbour::from_message(&message));
            }
        })?;
        Ok(neighbours)
    }

    /// Sets a neighbour for good.
    pub fn set_neighbour(&mut self, interface: u32, address: IpAddr, mac: [u8; 6]) -> Result<()> {
        let mut message = neighbour_message(interface, address);
        message.header.state = State::Permanent;
        let attribute = NeighbourAttribute::LinkLayerAddress(mac.to_vec());
        message.attributes.push(attribute);
        let what = format!("set neighbour {address} on link {interface}");
        let request = RouteNetlinkMessage::NewNeighbour(message);
        self.request(request, Mode::Replace, &what)
    }

    /// Lets the kernel find a neighbour and keep it alive (`NTF_EXT_MANAGED`, Linux 5.16).
    pub fn manage_neighbour(&mut self, interface: u32, address: IpAddr) -> Result<()> {
        let mut message = neighbour_message(interface, address);
        message.header.state = State::None;
        let attribute = NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed);
        message.attributes.push(attribute);
        let what = format!("resolve neighbour {address} on link {interface}");
        let request = RouteNetlinkMessage::NewNeighbour(message);
        self.request(request, Mode::Replace, &what)
    }

    /// Deletes a neighbour.
    pub fn delete_neighbour(&mut self, interface: u32, address: IpAddr) -> Result<()> {
        let message = neighbour_message(interface, address);
        let what = format!("delete neighbour {address} on link {interface}");
        let request = RouteNetlinkMessage::DelNeighbour(message);
        self.request(request, Mode::Change, &what)
    }
}

fn neighbour_message(interface: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = interface;
    message
        .attributes
        .push(NeighbourAttribute::Destination(address.into()));
    message
}
