//! Changes as the kernel tells them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::io::Errno;

use super::{InterfaceAddress, Link, Neighbour, NeighbourState, NetlinkError, Result, Route};

/// rtnetlink(7) groups: links, neighbours, IPv4 and IPv6 addresses and routes
/// (`RTNLGRP_*` in `include/uapi/linux/rtnetlink.h`).
const GROUPS: [u32; 6] = [1, 3, 5, 7, 9, 11];
/// Bytes that may wait in the socket before the kernel drops changes and says so.
const RECEIVE_BYTES: u32 = 1 << 20;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A link came or changed.
    Link(Link),
    /// A link is gone: deleted, or moved to another namespace.
    LinkGone {
        /// Its number.
        index: u32,
        /// Its name.
        name: String,
    },
    /// A neighbour came or changed; gone is [`NeighbourState::Failed`].
    Neighbour(Neighbour),
    /// An address came.
    Address(InterfaceAddress),
    /// An address is gone.
    AddressGone(InterfaceAddress),
    /// A route came or changed.
    Route(Route),
    /// A route is gone.
    RouteGone(Route),
    /// Changes were lost: what is known must be read anew as a whole.
    Overrun,
}

/// A socket that changes arrive on; never blocks.
pub struct Monitor {
    socket: Socket,
}

impl Monitor {
    /// Listens to the namespace the calling thread is in.
    pub fn connect() -> Result<Monitor> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind(&SocketAddr::new(0, 0))?;
            for group in GROUPS {
                socket.add_membership(group)?;
            }
            socket.set_rx_buf_sz(RECEIVE_BYTES)?;
            socket.set_non_blocking(true)?;
            Ok(socket)
        };
        let socket = open().map_err(|source| NetlinkError {
            what: "rtnetlink monitor".into(),
            source,
        })?;
        Ok(Monitor { socket })
    }

    /// Everything that has arrived, in its order; nothing if nothing has.
    pub fn read(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        loop {
            match self.socket.recv_from_full() {
                Ok((bytes, _)) if bytes.is_empty() => return changes,
                Ok((bytes, _)) => parse(&bytes, &mut changes),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => {
                    changes.push(Change::Overrun);
                }
                Err(_) => return changes,
            }
        }
    }
}

fn parse(bytes: &[u8], changes: &mut Vec<Change>) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest) else {
            // What cannot be read may have been of importance.
            changes.push(Change::Overrun);
            return;
        };
        let length = (message.header.length as usize).next_multiple_of(4);
        rest = rest.get(length.max(16)..).unwrap_or(&[]);
        if let NetlinkPayload::InnerMessage(inner) = message.payload {
            changes.extend(Change::from_message(&inner));
        }
    }
}

impl Change {
    fn from_message(message: &RouteNetlinkMessage) -> Option<Change> {
        match message {
            // A bridge tells of its ports in the same words: an interface that leaves a bridge is
            // "deleted" from the bridge, not from the machine (net/bridge/br_netlink.c).
            RouteNetlinkMessage::NewLink(message) | RouteNetlinkMessage::DelLink(message)
                if message.header.interface_family == AddressFamily::Bridge =>
            {
                None
            }
            RouteNetlinkMessage::NewLink(message) => {
                Some(Change::Link(Link::from_message(message)))
            }
            RouteNetlinkMessage::DelLink(message) => {
                let link = Link::from_message(message);
                Some(Change::LinkGone {
                    index: link.index,
                    name: link.name,
                })
            }
            RouteNetlinkMessage::NewNeighbour(message) => {
                Neighbour::from_message(message).map(Change::Neighbour)
            }
            RouteNetlinkMessage::DelNeighbour(message) => {
                let neighbour = Neighbour::from_message(message)?;
                Some(Change::Neighbour(Neighbour {
                    state: NeighbourState::Failed,
                    ..neighbour
                }))
            }
            RouteNetlinkMessage::NewAddress(message) => {
                InterfaceAddress::from_message(message).map(Change::Address)
            }
            RouteNetlinkMessage::DelAddress(message) => {
                InterfaceAddress::from_message(message).map(Change::AddressGone)
            }
            RouteNetlinkMessage::NewRoute(message) => {
                Route::from_message(message).map(Change::Route)
            }
            RouteNetlinkMessage::DelRoute(message) => {
                Route::from_message(message).map(Change::RouteGone)
            }
            _ => None,
        }
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Monitor {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl std::fmt::Debug for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Monitor").finish_non_exhaustive()
    }
}
