//! What a packet shows, and whether its checksums are right: read by other code than the parser's.

use dataplane::{Address, FlowKey, Protocol};

use super::cut::ETHERNET;

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The one's complement sum of some bytes and what came before.
pub fn sum(bytes: &[u8], before: u32) -> u32 {
    let padded = bytes.chunks(2).map(|pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        u32::from(u16::from_be_bytes([pair[0], low]))
    });
    let sum = padded.fold(before, |sum, word| sum + word);
    (0..3).fold(sum, |sum, _| (sum & 0xffff) + (sum >> 16))
}

/// SCTP's checksum, bit by bit.
pub fn crc32c(bytes: &[u8]) -> u32 {
    let bit = |crc: u32, _| crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
    let byte = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), bit);
    !bytes.iter().fold(!0, byte)
}

/// Source, destination, protocol and where the transport header starts, of an IP packet at `at`.
pub fn key_at(bytes: &[u8], at: usize) -> (FlowKey, usize) {
    let ip = &bytes[at..];
    let v6 = |at: usize| Address::v6(u128::from_be_bytes(ip[at..at + 16].try_into().unwrap()));
    let v4 = |at: usize| Address::v4(u32::from_be_bytes(ip[at..at + 4].try_into().unwrap()));
    let (source, destination, protocol, transport) = match ip[0] >> 4 {
        4 => (v4(12), v4(16), ip[9], at + 20),
        _ if ip[6] == 44 => (v6(8), v6(24), ip[40], at + 48),
        _ => (v6(8), v6(24), ip[6], at + 40),
    };
    let protocol = Protocol(protocol);
    let port = |which: usize| match protocol.has_ports() {
        true => half(bytes, transport + 2 * which),
        false => 0,
    };
    let key = FlowKey {
        source,
        destination,
        source_port: port(0),
        destination_port: port(1),
        protocol,
    };
    (key, transport)
}

/// The sum of a pseudo-header.
pub fn pseudo(key: &FlowKey, length: usize) -> u32 {
    let mut bytes = Vec::new();
    for address in [key.source, key.destination] {
        match address.as_v4() {
            Some(v4) => bytes.extend(v4.to_be_bytes()),
            None => bytes.extend(address.0.to_be_bytes()),
        }
    }
    sum(&bytes, u32::from(key.protocol.0) + length as u32)
}

/// The flow that a frame shows.
pub fn key(frame: &[u8]) -> FlowKey {
    key_at(frame, ETHERNET).0
}

/// Whether the checksum of a transport header with all that follows it is right.
pub fn is_right(key: &FlowKey, segment: &[u8]) -> bool {
    match key.protocol {
        Protocol::SCTP => {
            let mut bytes = segment.to_vec();
            bytes[8..12].fill(0);
            segment[8..12] == crc32c(&bytes).to_le_bytes()
        }
        Protocol::ICMP => sum(segment, 0) == 0xffff,
        _ => sum(segment, pseudo(key, segment.len())) == 0xffff,
    }
}

/// The flow that a whole frame shows, whose checksums are right.
pub fn right(frame: &[u8]) -> FlowKey {
    let (key, transport) = key_at(frame, ETHERNET);
    if key.source.is_v4() {
        let header = &frame[ETHERNET..ETHERNET + 20];
        assert_eq!(sum(header, 0), 0xffff, "IPv4's header");
    }
    assert!(is_right(&key, &frame[transport..]), "{key:?}");
    key
}

/// What a sender leaves in the checksum field that a device completes, and where that field is.
pub fn make_partial(frame: &mut [u8]) {
    let (key, transport) = key_at(frame, ETHERNET);
    let field = transport + if key.protocol == Protocol::TCP { 16 } else { 6 };
    let partial = pseudo(&key, frame.len() - transport) as u16;
    frame[field..field + 2].copy_from_slice(&partial.to_be_bytes());
}

/// What a device makes of it.
pub fn complete(frame: &mut [u8]) {
    let (key, transport) = key_at(frame, ETHERNET);
    let field = transport + if key.protocol == Protocol::TCP { 16 } else { 6 };
    let value = !(sum(&frame[transport..], 0) as u16);
    frame[field..field + 2].copy_from_slice(&value.to_be_bytes());
}

/// An SCTP packet with one chunk of `kind`, in place of the UDP datagram that a frame holds.
pub fn sctp(udp: &[u8], kind: u8, tag: u32) -> Vec<u8> {
    let (key, transport) = key_at(udp, ETHERNET);
    let mut chunk = vec![kind, 0, 0, 20];
    chunk.extend(7_u32.to_be_bytes());
    chunk.extend([0; 12]);
    let mut segment = udp[transport..transport + 4].to_vec();
    segment.extend(tag.to_be_bytes());
    segment.extend([0; 4]);
    segment.extend(chunk);
    let crc = crc32c(&segment);
    segment[8..12].copy_from_slice(&crc.to_le_bytes());
    let mut frame = udp[..transport].to_vec();
    frame.extend(&segment);
    if key.source.is_v4() {
        frame[ETHERNET + 9] = Protocol::SCTP.0;
        let total = (frame.len() - ETHERNET) as u16;
        frame[ETHERNET + 2..ETHERNET + 4].copy_from_slice(&total.to_be_bytes());
        super::cut::mend(&mut frame);
    } else {
        frame[ETHERNET + 6] = Protocol::SCTP.0;
        let payload = segment.len() as u16;
        frame[ETHERNET + 4..ETHERNET + 6].copy_from_slice(&payload.to_be_bytes());
    }
    frame
}
