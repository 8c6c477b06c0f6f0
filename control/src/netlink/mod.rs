//! Links, addresses, routes, rules and neighbours of the calling thread's network namespace.
//!
//! A thin layer on rtnetlink(7): a [`Netlink`] is a socket of the namespace that the calling
//! thread was in when it connected, whatever the thread does afterwards. Every request waits for
//! the kernel's answer. [`Namespace`] makes and enters namespaces, [`Monitor`] tells of changes.

mod address;
mod ethtool;
mod link;
mod monitor;
mod namespace;
mod neighbour;
mod route;
mod rule;

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

pub use address::InterfaceAddress;
pub use ethtool::{Channels, Ethtool};
pub use link::{Link, VethEnd};
pub use monitor::{Change, Monitor};
pub use namespace::Namespace;
pub use neighbour::{Neighbour, NeighbourState};
pub use route::{MAIN_TABLE, Route, RouteKind};
pub use rule::Rule;

/// A request that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct NetlinkError {
    /// What was asked.
    pub what: String,
    /// The kernel's answer.
    pub source: io::Error,
}

impl NetlinkError {
    /// Whether what was to be made exists already (EEXIST).
    pub fn is_exists(&self) -> bool {
        self.source.kind() == io::ErrorKind::AlreadyExists
    }

    /// Whether what was named does not exist (ENODEV, ESRCH, ENOENT, EADDRNOTAVAIL).
    pub fn is_not_found(&self) -> bool {
        use rustix::io::Errno;
        let missing = [Errno::NODEV, Errno::SRCH, Errno::NOENT, Errno::ADDRNOTAVAIL];
        let code = self.source.raw_os_error();
        missing
            .iter()
            .any(|errno| code == Some(errno.raw_os_error()))
    }
}

/// What this module's calls give.
pub type Result<T> = std::result::Result<T, NetlinkError>;

/// How a request treats what exists.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Fail if it exists.
    New,
    /// Replace it.
    Replace,
    /// Change or delete what exists.
    Change,
}

/// A socket of one network namespace.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Connects to the namespace the calling thread is in.
    pub fn connect() -> Result<Netlink> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            socket.set_ext_ack(true)?;
            Ok(socket)
        };
        let socket = open().map_err(|source| NetlinkError {
            what: "rtnetlink socket".into(),
            source,
        })?;
        Ok(Netlink {
            socket,
            sequence: 0,
        })
    }

    /// Sends a request and waits for its acknowledgement; `what` names it in an error.
    fn request(&mut self, message: RouteNetlinkMessage, mode: Mode, what: &str) -> Result<()> {
        let flags = NLM_F_REQUEST
            | NLM_F_ACK
            | match mode {
                Mode::New => NLM_F_CREATE | NLM_F_EXCL,
                Mode::Replace => NLM_F_CREATE | NLM_F_REPLACE,
                Mode::Change => 0,
            };
        self.exchange(message, flags, |_| {})
            .map_err(|source| NetlinkError {
                what: what.to_owned(),
                source,
            })
    }

    /// Asks for everything of a kind and gives each message to `each`.
    fn dump(
        &mut self,
        message: RouteNetlinkMessage,
        what: &str,
        mut each: impl FnMut(RouteNetlinkMessage),
    ) -> Result<()> {
        self.exchange(message, NLM_F_REQUEST | NLM_F_DUMP, &mut each)
            .map_err(|source| NetlinkError {
                what: what.to_owned(),
                source,
            })
    }

    fn exchange(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        mut each: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            if self.take_answer(&bytes, &mut each)? {
                return Ok(());
            }
        }
    }

    /// Reads one datagram of an answer; true at its end.
    fn take_answer(
        &self,
        bytes: &[u8],
        each: &mut impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<bool> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            let length = (message.header.length as usize).next_multiple_of(4);
            rest = rest.get(length.max(16)..).unwrap_or(&[]);
            if message.header.sequence_number != self.sequence {
                continue;
            }
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(true),
                NetlinkPayload::Error(error) => {
                    return match error.code {
                        None => Ok(true),
                        Some(code) => Err(io::Error::from_raw_os_error(code.get().abs())),
                    };
                }
                NetlinkPayload::InnerMessage(inner) => each(inner),
                _ => {}
            }
        }
        Ok(false)
    }
}

impl std::fmt::Debug for Netlink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Netlink").finish_non_exhaustive()
    }
}
