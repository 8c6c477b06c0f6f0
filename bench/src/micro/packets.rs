//! The packets that are measured: TCP segments and UDP datagrams with complete checksums, built by
//! etherparse.

use dataplane::{Address, FlowKey, Mac, Protocol};
use etherparse::{
    IpHeaders, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, PacketBuilder, TcpHeader,
};

use crate::error::BenchError;

/// Which packet of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Segment {
    /// Opens it.
    Syn,
    /// Answers that.
    SynAck,
    /// Goes on in either direction.
    Ack,
    /// UDP, which has one kind only.
    Datagram,
}

/// The destination port that policy opens.
pub const OPEN_PORT: u16 = 8080;
/// A destination port that no policy opens.
pub const SHUT_PORT: u16 = 9;

/// A connection's tuple, from its initiator.
pub fn key(source: Address, destination: Address, from: u16, to: u16) -> FlowKey {
    FlowKey {
        source,
        destination,
        protocol: Protocol::TCP,
        source_port: from,
        destination_port: to,
    }
}

/// The frame, padded with payload to `length` octets from the Ethernet header on, if it is
/// shorter.
pub fn build(
    key: &FlowKey,
    macs: [Mac; 2],
    segment: Segment,
    length: usize,
) -> Result<Vec<u8>, BenchError> {
    let [source, destination] = macs;
    let ip_length = if key.source.is_v4() { 20 } else { 40 };
    let packet = PacketBuilder::ethernet2(source.0, destination.0).ip(ip_headers(key)?);
    let mut bytes = Vec::with_capacity(length);
    let written = match segment {
        Segment::Datagram => {
            let payload = vec![0x5a; length.saturating_sub(14 + ip_length + 8)];
            packet
                .udp(key.source_port, key.destination_port)
                .write(&mut bytes, &payload)
        }
        _ => {
            let payload = match segment {
                Segment::Ack => vec![0x5a; length.saturating_sub(14 + ip_length + 20)],
                _ => Vec::new(),
            };
            packet
                .tcp_header(tcp(key, segment))
                .write(&mut bytes, &payload)
        }
    };
    written.map_err(|error| BenchError::Setup(error.to_string()))?;
    // A frame on the wire is never shorter, and the padding does not belong to the IP packet.
    bytes.resize(bytes.len().max(60), 0);
    Ok(bytes)
}

fn tcp(key: &FlowKey, segment: Segment) -> TcpHeader {
    let mut tcp = TcpHeader::new(key.source_port, key.destination_port, 1000, 65000);
    tcp.syn = segment != Segment::Ack;
    tcp.ack = segment != Segment::Syn;
    (tcp.sequence_number, tcp.acknowledgment_number) = match segment {
        Segment::Syn => (999, 0),
        Segment::SynAck => (999, 1000),
        Segment::Ack | Segment::Datagram => (1000, 1000),
    };
    tcp
}

fn ip_headers(key: &FlowKey) -> Result<IpHeaders, BenchError> {
    match (key.source.as_v4(), key.destination.as_v4()) {
        (Some(source), Some(destination)) => {
            let ends = [source, destination].map(u32::to_be_bytes);
            let mut header = Ipv4Header::new(0, 64, IpNumber(key.protocol.0), ends[0], ends[1])
                .map_err(|error| BenchError::Setup(error.to_string()))?;
            header.dont_fragment = true;
            Ok(IpHeaders::Ipv4(header, Default::default()))
        }
        _ => {
            let header = Ipv6Header {
                traffic_class: 0,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: 0,
                next_header: IpNumber(key.protocol.0),
                hop_limit: 64,
                source: key.source.0.to_be_bytes(),
                destination: key.destination.0.to_be_bytes(),
            };
            Ok(IpHeaders::Ipv6(header, Default::default()))
        }
    }
}
