//! Addresses and ports rewritten in place, with every checksum that covers them.
//!
//! Checksums are changed by what has changed (RFC 1624), never made anew: so one that was wrong stays
//! wrong, for the receiver to see, and the payload is not read. SCTP's CRC32c is linear, and changes by
//! the CRC of what has changed with zeros behind it.

use super::{Brief, Checksum, ETHERNET_BYTES, Icmp, Packet, Transport, Version, ipv4};
use crate::checksum::{Change, Sum, crc32c_change};
use crate::{Address, DropReason, FlowKey, Protocol};

const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;
const SCTP_CHECKSUM: usize = 8;

/// Gives the packet the addresses and ports of `to`. A fragment behind its datagram's first has
/// addresses only.
///
/// # Errors
///
/// [`DropReason::Fragment`] for the first fragment of an SCTP packet that gets another port: how much
/// follows, which its checksum depends on, nobody knows yet. [`DropReason::Internal`] if `packet` does
/// not describe `bytes`, or is of a protocol that is not translated. The frame is unchanged then.
pub fn translate(bytes: &mut [u8], packet: &Packet, to: &FlowKey) -> Result<(), DropReason> {
    let ip = packet.ip().ok_or(DropReason::Internal)?;
    let at = usize::from(ip.transport_offset);
    let from = ip.flow_key();
    let addresses = of_addresses(&from, to);
    match (ip.transport, ip.checksum) {
        (Transport::Tcp(_), state) => tcp(bytes, at, state, &from, to)?,
        (Transport::Udp(_), state) => udp(bytes, at, state, &from, to)?,
        (Transport::Sctp(_), state) => {
            let has_new_port =
                (from.source_port, from.destination_port) != (to.source_port, to.destination_port);
            if state == Checksum::Complete && has_new_port {
                if ip.fragment.is_some() {
                    return Err(DropReason::Fragment);
                }
                sctp(bytes, at, ip.transport_length, &from, to)?;
            }
            put_ports(bytes, at, to)?;
        }
        (Transport::Unread, _) => {}
        _ => return Err(DropReason::Internal),
    }
    put_addresses(bytes, ETHERNET_BYTES, ip.version, to, addresses)
}

/// [`translate`] for a packet that [`brief`](super::brief) has described.
///
/// # Errors
///
/// [`DropReason::Internal`] if the frame is shorter than the description.
#[inline]
pub fn translate_brief(bytes: &mut [u8], brief: &Brief, to: &FlowKey) -> Result<(), DropReason> {
    let (at, from) = (usize::from(brief.transport_offset()), &brief.key);
    let addresses = of_addresses(from, to);
    match brief.tcp {
        Some(_) => tcp(bytes, at, brief.checksum, from, to)?,
        None => udp(bytes, at, brief.checksum, from, to)?,
    }
    put_addresses(bytes, ETHERNET_BYTES, brief.version, to, addresses)
}

fn of_addresses(from: &FlowKey, to: &FlowKey) -> Change {
    Change::NONE
        .address(from.source, to.source)
        .address(from.destination, to.destination)
}

fn of_all(from: &FlowKey, to: &FlowKey) -> Change {
    of_addresses(from, to)
        .word(from.source_port, to.source_port)
        .word(from.destination_port, to.destination_port)
}

fn tcp(
    bytes: &mut [u8],
    at: usize,
    state: Checksum,
    from: &FlowKey,
    to: &FlowKey,
) -> Result<(), DropReason> {
    internet(bytes, at + TCP_CHECKSUM, state, from, to)?;
    put_ports(bytes, at, to)
}

fn udp(
    bytes: &mut [u8],
    at: usize,
    state: Checksum,
    from: &FlowKey,
    to: &FlowKey,
) -> Result<(), DropReason> {
    if state != Checksum::Absent {
        internet(bytes, at + UDP_CHECKSUM, state, from, to)?;
        let field = field(bytes, at + UDP_CHECKSUM)?;
        // 0 would say that there is none; both zeros are one number.
        if state == Checksum::Complete && *field == [0, 0] {
            *field = [0xff, 0xff];
        }
    }
    put_ports(bytes, at, to)
}

fn sctp(
    bytes: &mut [u8],
    at: usize,
    length: u32,
    from: &FlowKey,
    to: &FlowKey,
) -> Result<(), DropReason> {
    let behind = (length as usize).checked_sub(4);
    let behind = behind.ok_or(DropReason::Internal)?;
    let change = crc32c_change(ports(from), ports(to), behind);
    let field = bytes.get_mut(at + SCTP_CHECKSUM..);
    let field = field.and_then(|bytes| bytes.first_chunk_mut::<4>());
    let field = field.ok_or(DropReason::Internal)?;
    *field = (u32::from_le_bytes(*field) ^ change).to_le_bytes();
    Ok(())
}

/// Gives an ICMP error other addresses, and the packet that it quotes the addresses and ports of
/// `inner`.
///
/// # Errors
///
/// [`DropReason::Internal`] if `packet` is no ICMP error that describes `bytes`.
pub fn translate_error(
    bytes: &mut [u8],
    packet: &Packet,
    (source, destination): (Address, Address),
    inner: &FlowKey,
) -> Result<(), DropReason> {
    let ip = packet.ip().ok_or(DropReason::Internal)?;
    let Transport::Icmp(Icmp::Error(error)) = ip.transport else {
        return Err(DropReason::Internal);
    };
    let frame = bytes
        .get_mut(..packet.length as usize)
        .ok_or(DropReason::Internal)?;
    quoted(frame, ip.version, &error.inner, inner)?;
    let outer = FlowKey {
        source,
        destination,
        ..FlowKey::default()
    };
    let change = Change::NONE
        .address(ip.source, source)
        .address(ip.destination, destination);
    put_addresses(frame, ETHERNET_BYTES, ip.version, &outer, change)?;
    // Its checksum was right when it was parsed.
    let message = frame
        .get_mut(usize::from(ip.transport_offset)..)
        .ok_or(DropReason::Internal)?;
    *field(message, 2)? = [0, 0];
    let pseudo = match ip.version {
        Version::V4 => Sum::ZERO,
        Version::V6 => {
            let length = message.len() as u32;
            Sum::pseudo_header(source, destination, Protocol::ICMPV6, length)
        }
    };
    let checksum = pseudo.bytes(message).checksum();
    *field(message, 2)? = checksum.to_be_bytes();
    Ok(())
}

/// The packet that an error quotes. Its transport checksum is changed with it if the quotation reaches
/// so far; SCTP's, which covers what is not quoted, is nobody's to judge there.
fn quoted(
    frame: &mut [u8],
    version: Version,
    quotation: &super::Inner,
    to: &FlowKey,
) -> Result<(), DropReason> {
    let from = quotation.key;
    let at = usize::from(quotation.offset);
    put_addresses(frame, at, version, to, of_addresses(&from, to))?;
    let at = usize::from(quotation.transport_offset);
    put_ports(frame, at, to)?;
    let checksum_at = match from.protocol {
        Protocol::TCP => TCP_CHECKSUM,
        Protocol::UDP => UDP_CHECKSUM,
        _ => return Ok(()),
    };
    if let Ok(field) = field(frame, at + checksum_at)
        && (*field != [0, 0] || from.protocol != Protocol::UDP)
    {
        let whole = of_all(&from, to);
        *field = whole.update(u16::from_be_bytes(*field)).to_be_bytes();
    }
    Ok(())
}

fn ports(key: &FlowKey) -> [u8; 4] {
    (u32::from(key.source_port) << 16 | u32::from(key.destination_port)).to_be_bytes()
}

fn put_ports(bytes: &mut [u8], at: usize, to: &FlowKey) -> Result<(), DropReason> {
    let header = bytes.get_mut(at..).and_then(|b| b.first_chunk_mut::<4>());
    *header.ok_or(DropReason::Internal)? = ports(to);
    Ok(())
}

/// Changes a TCP or UDP checksum: a Partial one covers addresses only as yet, and is not complemented.
fn internet(
    bytes: &mut [u8],
    at: usize,
    state: Checksum,
    from: &FlowKey,
    to: &FlowKey,
) -> Result<(), DropReason> {
    let field = field(bytes, at)?;
    let old = u16::from_be_bytes(*field);
    let new = match state {
        Checksum::Partial => of_addresses(from, to).add_to(old),
        Checksum::Complete | Checksum::Absent => of_all(from, to).update(old),
    };
    *field = new.to_be_bytes();
    Ok(())
}

fn field(bytes: &mut [u8], at: usize) -> Result<&mut [u8; 2], DropReason> {
    let place = bytes.get_mut(at..).and_then(|b| b.first_chunk_mut::<2>());
    place.ok_or(DropReason::Internal)
}

/// Writes both addresses into the IP header at `at`, and IPv4's checksum with them.
fn put_addresses(
    bytes: &mut [u8],
    at: usize,
    version: Version,
    to: &FlowKey,
    change: Change,
) -> Result<(), DropReason> {
    let header = bytes.get_mut(at..).ok_or(DropReason::Internal)?;
    match version {
        Version::V4 => {
            let header = header.first_chunk_mut::<20>().ok_or(DropReason::Internal)?;
            let sum = field(header, ipv4::CHECKSUM_AT - ETHERNET_BYTES)?;
            *sum = change.update(u16::from_be_bytes(*sum)).to_be_bytes();
            header[12..16].copy_from_slice(&(to.source.0 as u32).to_be_bytes());
            header[16..20].copy_from_slice(&(to.destination.0 as u32).to_be_bytes());
        }
        Version::V6 => {
            let header = header.first_chunk_mut::<40>().ok_or(DropReason::Internal)?;
            header[8..24].copy_from_slice(&to.source.0.to_be_bytes());
            header[24..40].copy_from_slice(&to.destination.0.to_be_bytes());
        }
    }
    Ok(())
}
