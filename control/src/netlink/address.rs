//! Addresses of interfaces.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Mode, Netlink, Result};

/// An interface's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The interface.
    pub interface: u32,
    /// The address, with its subnet's prefix length.
    pub address: IpNet,
}

impl Netlink {
    /// Every address of the namespace.
    pub fn addresses(&mut self) -> Result<Vec<InterfaceAddress>> {
        let mut addresses = Vec::new();
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        self.dump(request, "list addresses", |message| {
            if let RouteNetlinkMessage::NewAddress(message) = message {
                addresses.extend(InterfaceAddress::from_message(&message));
            }
        })?;
        Ok(addresses)
    }

    /// Gives an interface an address. IPv6 ones skip duplicate address detection.
    pub fn add_address(&mut self, interface: u32, address: IpNet) -> Result<()> {
        let mut message = address_message(interface, address);
        if address.addr().is_ipv6() {
            message.header.flags = AddressHeaderFlags::Nodad;
        }
        let what = format!("add address {address} to link {interface}");
        self.request(RouteNetlinkMessage::NewAddress(message), Mode::New, &what)
    }

    /// Takes an address away.
    pub fn delete_address(&mut self, interface: u32, address: IpNet) -> Result<()> {
        let message = address_message(interface, address);
        let what = format!("delete address {address} of link {interface}");
        self.request(
            RouteNetlinkMessage::DelAddress(message),
            Mode::Change,
            &what,
        )
    }
}

fn address_message(interface: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = interface;
    message.header.prefix_len = address.prefix_len();
    message.header.scope = AddressScope::Universe;
    message.header.family = match address.addr() {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.attributes = vec![
        AddressAttribute::Local(address.addr()),
        AddressAttribute::Address(address.addr()),
    ];
    message
}

impl InterfaceAddress {
    pub(super) fn from_message(message: &AddressMessage) -> Option<InterfaceAddress> {
        // A point-to-point address has its own end in LOCAL and the far one in ADDRESS.
        let mut found = None;
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(address) => {
                    found = Some(*address);
                    break;
                }
                AddressAttribute::Address(address) => found = Some(*address),
                _ => {}
            }
        }
        Some(InterfaceAddress {
            interface: message.header.index,
            address: IpNet::new(found?, message.header.prefix_len).ok()?,
        })
    }
}
