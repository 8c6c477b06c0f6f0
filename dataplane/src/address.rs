//! Addresses as the dataplane keeps them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IP address of either family in 128 bits, in the numeric order of its bytes.
///
/// IPv4 is kept IPv4-mapped (`::ffff:a.b.c.d`), so that one key, one trie and one comparison serve
/// both families. The parser drops IPv6 packets that carry IPv4-mapped addresses
/// ([`DropReason::MartianAddress`](crate::DropReason::MartianAddress)), so that the two never mix.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Address(pub u128);

const MAPPED: u128 = 0xffff_0000_0000;

impl Address {
    /// The IPv4 address `bits`, in host order.
    pub const fn v4(bits: u32) -> Self {
        Address(MAPPED | bits as u128)
    }

    /// The IPv6 address `bits`, in host order.
    pub const fn v6(bits: u128) -> Self {
        Address(bits)
    }

    /// Whether this is an IPv4 address.
    pub const fn is_v4(self) -> bool {
        self.0 >> 32 == MAPPED >> 32
    }

    /// The IPv4 address in host order, if it is one.
    pub const fn as_v4(self) -> Option<u32> {
        if self.is_v4() {
            Some(self.0 as u32)
        } else {
            None
        }
    }

    /// `0.0.0.0` or `::`.
    pub const fn is_unspecified(self) -> bool {
        self.0 == MAPPED || self.0 == 0
    }

    /// `127.0.0.0/8` or `::1`.
    pub const fn is_loopback(self) -> bool {
        match self.as_v4() {
            Some(bits) => bits >> 24 == 127,
            None => self.0 == 1,
        }
    }

    /// `224.0.0.0/4` or `ff00::/8`.
    pub const fn is_multicast(self) -> bool {
        match self.as_v4() {
            Some(bits) => bits >> 28 == 0xe,
            None => self.0 >> 120 == 0xff,
        }
    }

    /// `255.255.255.255`; subnet broadcasts are not known here.
    pub const fn is_broadcast(self) -> bool {
        self.0 == MAPPED | 0xffff_ffff
    }

    /// `169.254.0.0/16` or `fe80::/10`.
    pub const fn is_link_local(self) -> bool {
        match self.as_v4() {
            Some(bits) => bits >> 16 == 0xa9fe,
            None => self.0 >> 118 == 0x3fa,
        }
    }

    /// The address as the standard library has it.
    pub fn to_ip(self) -> IpAddr {
        match self.as_v4() {
            Some(bits) => IpAddr::V4(Ipv4Addr::from(bits)),
            None => IpAddr::V6(Ipv6Addr::from(self.0)),
        }
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Address::v4(u32::from(v4)),
            IpAddr::V6(v6) => Address::v6(u128::from(v6)),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_ip().fmt(f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_ip().fmt(f)
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Mac = Mac([0xff; 6]);

    /// Whether the group bit is set (multicast and broadcast).
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
