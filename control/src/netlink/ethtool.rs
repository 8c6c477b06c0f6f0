//! Channels: how many queues of an interface are in use, and when that changes.
//!
//! rtnetlink tells the queues that an interface has room for, `/sys` those of whatever network
//! namespace it was mounted in. Ethtool's netlink (Linux 5.6, `include/uapi/linux/ethtool_netlink.h`)
//! tells those in use, of the socket's own namespace. It speaks generic netlink, of which this needs
//! two requests and one notification: written out here, because the crates for it bring tokio.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};
use rustix::io::Errno;

use super::{NetlinkError, Result};

/// Bytes of `struct nlmsghdr`, of `struct genlmsghdr` and of `struct nlattr`.
const HEADER: usize = 16;
const GENERIC_HEADER: usize = 4;
const ATTRIBUTE_HEADER: usize = 4;
/// `NLMSG_ERROR`.
const ERROR: u16 = 2;
/// The two high bits of an attribute's type are flags.
const ATTRIBUTE_TYPE: u16 = 0x3fff;
/// `NLA_F_NESTED`.
const NESTED: u16 = 1 << 15;

/// `GENL_ID_CTRL`, and what is asked of it.
const CONTROL: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
const FAMILY_GROUPS: u16 = 7;
const GROUP_NAME: u16 = 1;
const GROUP_ID: u16 = 2;

/// `ETHTOOL_MSG_CHANNELS_GET` and what answers and tells of them.
const CHANNELS_GET: u8 = 17;
const CHANNELS_TOLD: [u8; 2] = [18, 19];
const CHANNELS_HEADER: u16 = 1;
const DEVICE_INDEX: u16 = 1;
const RX_COUNT: u16 = 6;
const TX_COUNT: u16 = 7;
const COMBINED_COUNT: u16 = 9;

/// An interface's queues in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channels {
    /// The interface.
    pub interface: u32,
    /// Queues that it receives by.
    pub receive: u32,
    /// Queues that it transmits by.
    pub transmit: u32,
}

/// Asks for channels, and hears of their changes, in one network namespace.
pub struct Ethtool {
    asks: Socket,
    /// Never blocks.
    hears: Socket,
    family: u16,
    sequence: u32,
}

impl Ethtool {
    /// Connects to the namespace the calling thread is in.
    ///
    /// # Errors
    /// A kernel before 5.6, or one without `CONFIG_ETHTOOL_NETLINK`, is not found.
    pub fn connect() -> Result<Ethtool> {
        let open = || -> io::Result<Ethtool> {
            let mut asks = Socket::new(NETLINK_GENERIC)?;
            asks.bind_auto()?;
            asks.connect(&SocketAddr::new(0, 0))?;
            let mut ethtool = Ethtool {
                asks,
                hears: Socket::new(NETLINK_GENERIC)?,
                family: CONTROL,
                sequence: 0,
            };
            let name = attribute(FAMILY_NAME, b"ethtool\0");
            let answer = ethtool.request(GET_FAMILY, &name)?;
            let missing = || io::Error::from(io::ErrorKind::NotFound);
            let id = number(&answer, FAMILY_ID).ok_or_else(missing)?;
            ethtool.family = id as u16;
            let group = find(&answer, FAMILY_GROUPS).and_then(monitor_group);
            ethtool.hears.bind(&SocketAddr::new(0, 0))?;
            ethtool.hears.add_membership(group.ok_or_else(missing)?)?;
            ethtool.hears.set_non_blocking(true)?;
            Ok(ethtool)
        };
        open().map_err(|source| NetlinkError {
            what: "ethtool's netlink".into(),
            source,
        })
    }

    /// An interface's channels; none where its driver does not tell.
    pub fn channels(&mut self, interface: u32) -> Result<Option<Channels>> {
        let index = attribute(DEVICE_INDEX, &interface.to_ne_bytes());
        let header = attribute(CHANNELS_HEADER | NESTED, &index);
        match self.request(CHANNELS_GET, &header) {
            Ok(answer) => Ok(Some(channels(interface, &answer))),
            Err(error) if error.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => Ok(None),
            Err(source) => Err(NetlinkError {
                what: format!("ask for the channels of link {interface}"),
                source,
            }),
        }
    }

    /// Channels that have been set since the last call; nothing if none have. What was lost because
    /// nobody read shows as an error, and is to be asked for.
    pub fn changes(&mut self) -> Result<Vec<Channels>> {
        let mut changed = Vec::new();
        loop {
            match self.hears.recv_from_full() {
                Ok((bytes, _)) => {
                    for (kind, payload) in messages(&bytes) {
                        changed.extend(self.told(kind, payload));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(changed),
                Err(source) => {
                    return Err(NetlinkError {
                        what: "hear of channels".into(),
                        source,
                    });
                }
            }
        }
    }

    fn told(&self, kind: u16, payload: &[u8]) -> Option<Channels> {
        let command = *payload.first()?;
        if kind != self.family || !CHANNELS_TOLD.contains(&command) {
            return None;
        }
        let attributes = payload.get(GENERIC_HEADER..)?;
        let interface = number(find(attributes, CHANNELS_HEADER)?, DEVICE_INDEX)?;
        Some(channels(interface, attributes))
    }

    /// Sends a request; the attributes of its answer.
    fn request(&mut self, command: u8, attributes: &[u8]) -> io::Result<Vec<u8>> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = (HEADER + GENERIC_HEADER + attributes.len()) as u32;
        let mut bytes = Vec::with_capacity(length as usize);
        bytes.extend(length.to_ne_bytes());
        bytes.extend(self.family.to_ne_bytes());
        bytes.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
        bytes.extend(self.sequence.to_ne_bytes());
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend([command, 1, 0, 0]);
        bytes.extend(attributes);
        self.asks.send(&bytes, 0)?;
        let mut answer = Vec::new();
        loop {
            let (bytes, _) = self.asks.recv_from_full()?;
            for (kind, payload) in messages(&bytes) {
                if kind == self.family {
                    answer = payload.get(GENERIC_HEADER..).unwrap_or_default().to_vec();
                } else if kind == ERROR {
                    let code = payload.first_chunk().map_or(0, |c| i32::from_ne_bytes(*c));
                    return match code {
                        0 => Ok(answer),
                        code => Err(io::Error::from_raw_os_error(code.abs())),
                    };
                }
            }
        }
    }
}

impl AsFd for Ethtool {
    /// Readable when channels have changed.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.hears.as_fd()
    }
}

impl AsRawFd for Ethtool {
    fn as_raw_fd(&self) -> RawFd {
        self.hears.as_raw_fd()
    }
}

impl std::fmt::Debug for Ethtool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ethtool").finish_non_exhaustive()
    }
}

/// Drivers count queues that do both beside those that do one.
fn channels(interface: u32, attributes: &[u8]) -> Channels {
    let count = |kind| number(attributes, kind).unwrap_or(0);
    let combined = count(COMBINED_COUNT);
    Channels {
        interface,
        receive: combined.saturating_add(count(RX_COUNT)),
        transmit: combined.saturating_add(count(TX_COUNT)),
    }
}

fn monitor_group(groups: &[u8]) -> Option<u32> {
    attributes(groups)
        .map(|(_, group)| group)
        .find(|group| find(group, GROUP_NAME) == Some(b"monitor\0"))
        .and_then(|group| number(group, GROUP_ID))
}

/// One attribute, padded to four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = ATTRIBUTE_HEADER + value.len();
    let mut bytes = Vec::with_capacity(length.next_multiple_of(4));
    bytes.extend((length as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

/// The messages of a datagram: each one's type and what is behind its header.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
        let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
        let payload = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, payload))
    })
}

/// Attributes side by side: types without their flags, and values.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?);
        let value = bytes.get(ATTRIBUTE_HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & ATTRIBUTE_TYPE, value))
    })
}

fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut all = attributes(bytes);
    all.find(|(kind, _)| *kind == wanted)
        .map(|(_, value)| value)
}

/// A number of two or four bytes.
fn number(bytes: &[u8], wanted: u16) -> Option<u32> {
    match *find(bytes, wanted)? {
        [a, b] => Some(u16::from_ne_bytes([a, b]).into()),
        [a, b, c, d] => Some(u32::from_ne_bytes([a, b, c, d])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_are_written() {
        let inner = attribute(DEVICE_INDEX, &7u32.to_ne_bytes());
        let mut all = attribute(CHANNELS_HEADER | NESTED, &inner);
        all.extend(attribute(2, b"odd"));
        all.extend(attribute(RX_COUNT, &3u32.to_ne_bytes()));
        all.extend(attribute(COMBINED_COUNT, &2u16.to_ne_bytes()));
        assert_eq!(find(&all, 2), Some(&b"odd"[..]));
        let header = find(&all, CHANNELS_HEADER).unwrap();
        assert_eq!(number(header, DEVICE_INDEX), Some(7));
        let expected = Channels {
            interface: 7,
            receive: 5,
            transmit: 2,
        };
        assert_eq!(channels(7, &all), expected);
        // Cut off anywhere, and with any length, it is read as far as it goes.
        for end in 0..all.len() {
            let _ = channels(7, &all[..end]);
            let mut broken = all.clone();
            broken[end] = 0xff;
            let _ = channels(7, &broken);
            broken[end] = 0;
            let _ = channels(7, &broken);
        }
    }
}
