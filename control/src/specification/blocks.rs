//! CIDRs as text of bits.

use std::net::{IpAddr, Ipv6Addr};

/// Whether the block holds the address; `None` if it is no block.
pub(super) fn holds(block: &str, address: IpAddr) -> Option<bool> {
    let block = bits(block)?;
    let address = match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        v4 => v4,
    };
    Some(address.is_ipv4() == block.v4 && written_out(address).starts_with(&block.leading))
}

/// A block as its leading bits: `0` and `1` as text, one character a bit.
struct Bits {
    v4: bool,
    leading: String,
}

fn written_out(address: IpAddr) -> String {
    let bytes = match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let mut text = String::with_capacity(128);
    for byte in bytes {
        for bit in (0..8).rev() {
            text.push(if byte >> bit & 1 == 1 { '1' } else { '0' });
        }
    }
    text
}

/// Reads a CIDR as the API server does: leading zeros are decimal, host bits do not count, and a
/// block inside `::ffff:0:0/96` is one of IPv4.
fn bits(text: &str) -> Option<Bits> {
    let mut halves = text.split('/');
    let (address, length) = (halves.next()?, halves.next()?);
    if halves.next().is_some() || !length.chars().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let length: usize = length.parse().ok()?;
    if address.contains(':') {
        let address: Ipv6Addr = address.parse().ok()?;
        let all = written_out(IpAddr::V6(address));
        let leading = all.get(..length)?.to_owned();
        let mapped = format!("{}{}", "0".repeat(80), "1".repeat(16));
        return Some(match leading.strip_prefix(&mapped) {
            Some(v4) => Bits {
                v4: true,
                leading: v4.to_owned(),
            },
            None => Bits { v4: false, leading },
        });
    }
    let octets: Vec<&str> = address.split('.').collect();
    if octets.len() != 4 {
        return None;
    }
    let mut bytes = [0; 4];
    for (byte, octet) in bytes.iter_mut().zip(octets) {
        if octet.is_empty() || !octet.chars().all(|c| c.is_ascii_digit()) {
            return None;
        }
        *byte = octet.parse::<u8>().ok()?;
    }
    let leading = written_out(IpAddr::from(bytes)).get(..length)?.to_owned();
    Some(Bits { v4: true, leading })
}
