//! Packets made by hand, for what sockets cannot say here: echo requests, and SCTP, which few
//! kernels have. An SCTP probe is an INIT chunk, and whoever it reaches answers with INIT ACK
//! (RFC 9260, section 5.1), so that both directions are seen.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use control::policy_test::model::Transport;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto};

/// Identifier of our echo requests.
const ECHO: u16 = 0x5765;
/// Source ports of SCTP probes begin here, so that none is a port that is served.
const FIRST_PORT: u32 = 20_000;
/// And this many follow.
const SOURCE_PORTS: u32 = 40_000;
/// Chunk types.
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;

/// Whether a protocol is one of raw sockets.
pub fn carries(transport: Transport) -> bool {
    matches!(transport, Transport::Sctp | Transport::Icmp)
}

/// A raw socket on one address.
pub struct Raw {
    socket: OwnedFd,
    address: IpAddr,
    transport: Transport,
}

/// What a packet that arrived is.
pub enum Arrived {
    /// The answer to the probe of this number.
    Answer(u32),
    /// Nothing of ours, or a question that has been answered.
    Nothing,
}

impl AsFd for Raw {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Raw {
    /// Opens one in the namespace of this thread.
    pub fn open(address: IpAddr, transport: Transport) -> io::Result<Raw> {
        let (family, echo) = match address {
            IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
            IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
        };
        let protocol = match transport {
            Transport::Sctp => ipproto::SCTP,
            _ => echo,
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(family, SocketType::RAW, flags, Some(protocol))?;
        rustix::net::bind(&socket, &SocketAddr::new(address, 0))?;
        Ok(Raw {
            socket,
            address,
            transport,
        })
    }

    /// Sends a question that bears this number.
    pub fn ask(&self, to: IpAddr, port: u16, number: u32) -> io::Result<()> {
        let packet = match self.transport {
            Transport::Sctp => {
                let source = (FIRST_PORT + number % SOURCE_PORTS) as u16;
                sctp(source, port, 0, INIT, number, &[])
            }
            _ => echo(self.address.is_ipv6(), number),
        };
        self.send(&packet, to)
    }

    fn send(&self, packet: &[u8], to: IpAddr) -> io::Result<()> {
        let to = SocketAddr::new(to, 0);
        rustix::net::sendto(&self.socket, packet, SendFlags::empty(), &to)?;
        Ok(())
    }

    /// The next packet that has arrived; a question is answered.
    pub fn take(&self) -> io::Result<Option<Arrived>> {
        let mut buffer = [0; 2048];
        let received = rustix::net::recvfrom(&self.socket, &mut buffer[..], RecvFlags::empty());
        let (length, _, from) = match received {
            Ok(received) => received,
            Err(rustix::io::Errno::AGAIN) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let from = match from.map(SocketAddr::try_from) {
            Some(Ok(from)) => from.ip(),
            _ => return Ok(Some(Arrived::Nothing)),
        };
        let mut packet = &buffer[..length];
        if self.address.is_ipv4() {
            // IPv4 raw sockets show the IP header, IPv6 ones do not.
            let header = usize::from(packet.first().map_or(0, |byte| byte & 15)) * 4;
            packet = packet.get(header..).unwrap_or_default();
        }
        let number = match self.transport {
            Transport::Sctp => self.take_sctp(packet, from)?,
            _ => echo_reply(self.address.is_ipv6(), packet),
        };
        Ok(Some(number.map_or(Arrived::Nothing, Arrived::Answer)))
    }

    fn take_sctp(&self, packet: &[u8], from: IpAddr) -> io::Result<Option<u32>> {
        let Some(header) = packet.get(..20) else {
            return Ok(None);
        };
        let short = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let word = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|byte| header[at + byte]));
        let (source, destination, tag) = (short(0), short(2), word(4));
        match header[12] {
            INIT => {
                let theirs = word(16);
                // A state cookie must be there (section 3.3.3); what is in it is our affair.
                let cookie = [0, 7, 0, 8, 1, 2, 3, 4];
                let answer = sctp(destination, source, theirs, INIT_ACK, !theirs, &cookie);
                self.send(&answer, from)?;
                Ok(None)
            }
            // Bears the tag of the question: its number.
            INIT_ACK => Ok(Some(tag)),
            _ => Ok(None),
        }
    }
}

/// A packet of one chunk of kind INIT or INIT ACK.
fn sctp(source: u16, to: u16, tag: u32, kind: u8, own_tag: u32, parameters: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    packet.extend(source.to_be_bytes());
    packet.extend(to.to_be_bytes());
    packet.extend(tag.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend([kind, 0]);
    packet.extend((20 + parameters.len() as u16).to_be_bytes());
    packet.extend(own_tag.to_be_bytes());
    packet.extend(65_536_u32.to_be_bytes());
    packet.extend([0, 1, 0, 1]);
    packet.extend(own_tag.to_be_bytes());
    packet.extend(parameters);
    let sum = crc32c(&packet);
    packet[8..12].copy_from_slice(&sum.to_le_bytes());
    packet
}

/// The checksum of RFC 9260, appendix A, a bit at a time.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut register = u32::MAX;
    for byte in bytes {
        register ^= u32::from(*byte);
        for _ in 0..8 {
            let low = register & 1;
            register = (register >> 1) ^ (0x82f6_3b78 * low);
        }
    }
    !register
}

fn echo(v6: bool, number: u32) -> Vec<u8> {
    let mut packet = vec![if v6 { 128 } else { 8 }, 0, 0, 0];
    packet.extend(ECHO.to_be_bytes());
    packet.extend((number as u16).to_be_bytes());
    packet.extend(number.to_be_bytes());
    if !v6 {
        // The kernel sums ICMPv6 itself (RFC 3542, section 3.1).
        let words = packet
            .chunks(2)
            .map(|two| u32::from(two[0]) << 8 | u32::from(two[1]));
        let sum: u32 = words.sum();
        let fold = |sum: u32| (sum & 0xffff) + (sum >> 16);
        packet[2..4].copy_from_slice(&(!(fold(fold(sum)) as u16)).to_be_bytes());
    }
    packet
}

fn echo_reply(v6: bool, packet: &[u8]) -> Option<u32> {
    let header = packet.get(..12)?;
    let reply = if v6 { 129 } else { 0 };
    let ours = header[0] == reply && header[4..6] == ECHO.to_be_bytes();
    let number = u32::from_be_bytes([0, 1, 2, 3].map(|byte| header[8 + byte]));
    ours.then_some(number)
}
