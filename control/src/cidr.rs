//! CIDR text as the API server reads it: sloppily (`k8s.io/utils/net.ParseCIDRSloppy`), then made
//! canonical, so that two spellings of one block are one block.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A block as it was written and as it is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cidr {
    /// The block: no host bits, IPv4 in IPv6 made IPv4.
    pub net: IpNet,
    /// The address as it was written, host bits included.
    pub address: IpAddr,
    /// Leading zeros, or IPv4 in IPv6: a spelling that Kubernetes means to refuse one day.
    pub odd: bool,
}

/// Reads `text`; `None` if the API server would refuse it as no CIDR.
pub fn parse(text: &str) -> Option<Cidr> {
    let (address, length) = text.split_once('/')?;
    let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
    let bits: u8 = length.parse().ok().filter(|_| digits)?;
    let zeros = length.len() > 1 && length.starts_with('0');
    if address.contains(':') {
        let v6: Ipv6Addr = address.parse().ok()?;
        if bits > 128 {
            return None;
        }
        let net = Ipv6Net::new(v6, bits).ok()?.trunc();
        return Some(match net.network().to_ipv4_mapped() {
            // Go compares such a block with IPv4 addresses.
            Some(v4) if bits >= 96 => Cidr {
                net: IpNet::V4(Ipv4Net::new(v4, bits - 96).ok()?.trunc()),
                address: IpAddr::V4(v6.to_ipv4_mapped()?),
                odd: true,
            },
            _ => Cidr {
                net: IpNet::V6(net),
                address: IpAddr::V6(v6),
                odd: zeros || v6.to_ipv4_mapped().is_some(),
            },
        });
    }
    let (v4, octet_zeros) = sloppy_v4(address)?;
    let net = Ipv4Net::new(v4, bits).ok()?.trunc();
    Some(Cidr {
        net: IpNet::V4(net),
        address: IpAddr::V4(v4),
        odd: zeros || octet_zeros,
    })
}

/// Four decimal octets; leading zeros do not make them octal. Also whether there were any.
fn sloppy_v4(text: &str) -> Option<(Ipv4Addr, bool)> {
    let mut octets = [0u8; 4];
    let mut parts = text.split('.');
    let mut zeros = false;
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        zeros |= part.len() > 1 && part.starts_with('0');
        *octet = part.parse().ok()?;
    }
    parts
        .next()
        .is_none()
        .then(|| (Ipv4Addr::from(octets), zeros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_block_are_one_block() {
        let net = |text: &str| parse(text).map(|c| c.net.to_string());
        for (text, expected) in [
            ("10.0.0.0/8", Some("10.0.0.0/8")),
            ("10.1.2.3/8", Some("10.0.0.0/8")),
            ("010.000.0.0/08", Some("10.0.0.0/8")),
            ("::ffff:10.1.2.0/120", Some("10.1.2.0/24")),
            ("::ffff:10.1.2.0/96", Some("0.0.0.0/0")),
            ("::ffff:10.1.2.0/64", Some("::/64")),
            ("::/0", Some("::/0")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("2001:DB8::1/32", Some("2001:db8::/32")),
            ("10.0.0.0", None),
            ("10.0.0.0/33", None),
            ("10.0.0/8", None),
            ("10.0.0.0.0/8", None),
            ("10.0.0.256/8", None),
            ("10.0.0.0/+8", None),
            ("10.0.0.0/", None),
            ("fe80::1%eth0/64", None),
            ("::/129", None),
            (" 10.0.0.0/8", None),
            ("", None),
        ] {
            assert_eq!(net(text).as_deref(), expected, "{text:?}");
        }
    }
}
