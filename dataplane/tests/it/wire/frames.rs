//! Frames to test with. Headers are encoded by etherparse; what it cannot encode is written out.

use std::net::{Ipv4Addr, Ipv6Addr};

use dataplane::wire::{Ip, Kind, Offload, Packet, parse};
use dataplane::{Address, DropReason, Mac};
use etherparse::{
    IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv6Extensions, Ipv6FlowLabel, Ipv6Header,
    PacketBuilder, TcpHeader,
};
use proptest::prelude::*;

pub const POD: Mac = Mac([2, 0, 0, 0, 0, 1]);
pub const GATEWAY: Mac = Mac([2, 0, 0, 0, 0, 2]);
pub const A4: [u8; 4] = [10, 0, 1, 2];
pub const B4: [u8; 4] = [10, 0, 2, 3];
pub const A6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2];
pub const B6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3];

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMP: u8 = 1;
pub const ICMPV6: u8 = 58;
pub const SCTP: u8 = 132;

pub fn v4(bytes: [u8; 4]) -> Address {
    Address::v4(u32::from(Ipv4Addr::from(bytes)))
}

pub fn v6(bytes: [u8; 16]) -> Address {
    Address::v6(u128::from(Ipv6Addr::from(bytes)))
}

pub fn v6_text(text: &str) -> [u8; 16] {
    text.parse::<Ipv6Addr>().unwrap().octets()
}

/// An Ethernet frame from the pod to its gateway.
pub fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(GATEWAY.0);
    frame.extend(POD.0);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An IPv4 header from A to B.
pub fn ip4_header(protocol: u8, payload: usize) -> Ipv4Header {
    Ipv4Header::new(payload as u16, 64, IpNumber(protocol), A4, B4).unwrap()
}

/// A frame with an IPv4 header, whose checksum is made right, and a payload.
pub fn ip4_with(mut header: Ipv4Header, payload: &[u8]) -> Vec<u8> {
    header.header_checksum = header.calc_header_checksum();
    let mut packet = header.to_bytes().to_vec();
    packet.extend(payload);
    ethernet(0x0800, &packet)
}

pub fn ip4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    ip4_with(ip4_header(protocol, payload.len()), payload)
}

/// Makes the IPv4 header checksum of a frame right again, if there is a whole header.
pub fn mend_ip4(frame: &mut [u8]) {
    let length = usize::from(frame[14] & 0xf) * 4;
    if !(20..=frame.len() - 14).contains(&length) {
        return;
    }
    frame[24..26].fill(0);
    let sum = internet_sum(&[&frame[14..14 + length]]);
    frame[24..26].copy_from_slice(&(!sum).to_be_bytes());
}

pub fn ip6_from_to(
    source: [u8; 16],
    destination: [u8; 16],
    next: u8,
    hop_limit: u8,
    payload: &[u8],
) -> Vec<u8> {
    let header = Ipv6Header {
        traffic_class: 0,
        flow_label: Ipv6FlowLabel::ZERO,
        payload_length: payload.len() as u16,
        next_header: IpNumber(next),
        hop_limit,
        source,
        destination,
    };
    let mut packet = header.to_bytes().to_vec();
    packet.extend(payload);
    ethernet(0x86dd, &packet)
}

pub fn ip6(next: u8, payload: &[u8]) -> Vec<u8> {
    ip6_from_to(A6, B6, next, 64, payload)
}

/// The sum of RFC 1071, folded, the slow way.
pub fn internet_sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
    }
    sum as u16
}

/// The pseudo-header that transport checksums cover.
pub fn pseudo_header(source: &[u8], destination: &[u8], protocol: u8, length: usize) -> Vec<u8> {
    let mut bytes = [source, destination].concat();
    bytes.extend((length as u32).to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes
}

/// An ICMPv6 message with the right checksum at bytes 2 and 3.
pub fn icmp6(source: [u8; 16], destination: [u8; 16], mut message: Vec<u8>) -> Vec<u8> {
    message[2..4].fill(0);
    let pseudo = pseudo_header(&source, &destination, ICMPV6, message.len());
    let sum = internet_sum(&[&pseudo, &message]);
    message[2..4].copy_from_slice(&(!sum).to_be_bytes());
    message
}

/// An ICMP message with the right checksum at bytes 2 and 3.
pub fn icmp4(mut message: Vec<u8>) -> Vec<u8> {
    message[2..4].fill(0);
    let sum = internet_sum(&[&message]);
    message[2..4].copy_from_slice(&(!sum).to_be_bytes());
    message
}

/// A TCP header without options and with a checksum of 0.
pub fn tcp(flags: u8) -> Vec<u8> {
    let mut header = vec![0; 20];
    header[..4].copy_from_slice(&[0x9c, 0x40, 0, 80]);
    header[12] = 5 << 4;
    header[13] = flags;
    header
}

/// A TCP SYN with options, padded to whole words.
pub fn syn(options: &[u8]) -> Vec<u8> {
    let mut header = tcp(0x02);
    header.extend(options);
    header.resize(header.len().next_multiple_of(4), 0);
    header[12] = (header.len() as u8 / 4) << 4;
    header
}

pub fn udp(length: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0x9c, 0x40, 0, 53];
    datagram.extend(length.to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    datagram
}

/// An SCTP packet with a checksum of 0.
pub fn sctp(verification_tag: u32, chunks: &[&[u8]]) -> Vec<u8> {
    let mut packet = vec![0x9c, 0x40, 0x0e, 0xe4];
    packet.extend(verification_tag.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend(chunks.concat());
    packet
}

pub const SCTP_INIT: [u8; 20] = [
    1, 0, 0, 20, 0xca, 0xfe, 0xba, 0xbe, 0, 1, 0, 0, 0, 10, 0, 10, 0, 0, 0, 1,
];

pub fn on_wire(frame: &[u8]) -> Result<Packet, DropReason> {
    parse(frame, Offload::Wire)
}

/// The IP packet in a frame that must parse.
#[track_caller]
pub fn ip_of(frame: &[u8], offload: Offload) -> Ip {
    match parse(frame, offload).expect("the frame must parse").kind {
        Kind::Ip(ip) => ip,
        Kind::Arp(_) => panic!("the frame must carry IP"),
    }
}

/// The transport headers that etherparse builds.
#[derive(Clone, Debug)]
pub enum Built {
    Tcp(TcpHeader),
    Udp(u16, u16),
    EchoRequest(u16, u16),
    EchoReply(u16, u16),
}

/// A frame that etherparse builds, and what it carries.
#[derive(Clone, Debug)]
pub struct Sample {
    pub bytes: Vec<u8>,
    pub built: Built,
    pub source: Address,
    pub destination: Address,
    pub hop_limit: u8,
    /// Bytes of the frame before Ethernet padding.
    pub length: usize,
}

fn tcp_header() -> impl Strategy<Value = TcpHeader> {
    // The combinations of FIN, SYN, RST, ACK and URG that stacks send, times PSH, ECE and CWR.
    let flags =
        proptest::sample::select(vec![0x02u8, 0x22, 0x12, 0x04, 0x14, 0x11, 0x31, 0x10, 0x30]);
    let extra = proptest::sample::select(vec![0u8, 0x08, 0x40, 0x80, 0xc8]);
    let options = proptest::sample::select(vec![
        vec![],
        vec![2, 4, 5, 0xb4],
        vec![
            2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7,
        ],
        vec![1, 2, 4, 0x23, 0x28, 3, 3, 20],
        vec![1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 9],
    ]);
    let numbers = any::<(u16, u16, u32, u32, u16)>();
    (numbers, flags, extra, options).prop_map(|(n, flags, extra, options)| {
        let mut header = TcpHeader::new(n.0, n.1, n.2, n.4);
        let flags = flags | extra;
        header.acknowledgment_number = n.3;
        header.fin = flags & 0x01 != 0;
        header.syn = flags & 0x02 != 0;
        header.rst = flags & 0x04 != 0;
        header.psh = flags & 0x08 != 0;
        header.ack = flags & 0x10 != 0;
        header.urg = flags & 0x20 != 0;
        header.ece = flags & 0x40 != 0;
        header.cwr = flags & 0x80 != 0;
        header.set_options_raw(&options).unwrap();
        header
    })
}

fn built() -> impl Strategy<Value = Built> {
    prop_oneof![
        4 => tcp_header().prop_map(Built::Tcp),
        3 => any::<(u16, u16)>().prop_map(|(a, b)| Built::Udp(a, b)),
        1 => any::<(u16, u16)>().prop_map(|(a, b)| Built::EchoRequest(a, b)),
        1 => any::<(u16, u16)>().prop_map(|(a, b)| Built::EchoReply(a, b)),
    ]
}

/// Unicast addresses of both families that no packet is refused for.
fn ends() -> impl Strategy<Value = (IpHeaders, Address, Address)> {
    let v4_address = any::<[u8; 3]>().prop_map(|[a, b, c]| [10, a, b, c]);
    let v6_address = any::<[u8; 15]>().prop_map(|rest| {
        let mut bytes = [0xfd; 16];
        bytes[1..].copy_from_slice(&rest);
        bytes
    });
    let options = proptest::sample::select(vec![
        vec![],
        vec![0x94, 4, 0, 0],
        vec![1, 7, 7, 4, 0, 0, 0, 0],
        vec![1, 1, 1, 0],
    ]);
    prop_oneof![
        (
            v4_address.clone(),
            v4_address,
            any::<u8>(),
            any::<bool>(),
            options
        )
            .prop_map(|(source, destination, ttl, df, options)| {
                let mut header = Ipv4Header::new(0, ttl, IpNumber(0), source, destination).unwrap();
                header.dont_fragment = df;
                header.options = options.as_slice().try_into().unwrap();
                let headers = IpHeaders::Ipv4(header, Ipv4Extensions::default());
                (headers, v4(source), v4(destination))
            }),
        (v6_address.clone(), v6_address, any::<u8>(), 0..4u8).prop_map(
            |(source, destination, hop_limit, kind)| {
                let header = Ipv6Header {
                    hop_limit,
                    source,
                    destination,
                    ..Ipv6Header::default()
                };
                let headers = IpHeaders::Ipv6(header, extensions(kind));
                (headers, v6(source), v6(destination))
            }
        ),
    ]
}

/// Extension headers: none, or hop-by-hop (router alert), destination options (padding), and an
/// atomic fragment header, in growing sets.
fn extensions(kind: u8) -> Ipv6Extensions {
    use etherparse::{IpFragOffset, Ipv6FragmentHeader, Ipv6RawExtHeader};
    let raw = |options: [u8; 6]| Ipv6RawExtHeader::new_raw(IpNumber(0), &options).unwrap();
    Ipv6Extensions {
        hop_by_hop_options: (kind >= 1).then(|| raw([5, 2, 0, 0, 1, 0])),
        destination_options: (kind >= 2).then(|| raw([1, 4, 0, 0, 0, 0])),
        fragment: (kind >= 3)
            .then(|| Ipv6FragmentHeader::new(IpNumber(0), IpFragOffset::ZERO, false, 0xdead_beef)),
        ..Ipv6Extensions::default()
    }
}

/// Valid frames.
pub fn samples() -> impl Strategy<Value = Sample> {
    let payload = proptest::collection::vec(any::<u8>(), 0..80);
    (ends(), built(), payload, 0..20usize).prop_map(|(ends, built, payload, padding)| {
        let (headers, source, destination) = ends;
        let is_v4 = matches!(headers, IpHeaders::Ipv4(..));
        let hop_limit = match &headers {
            IpHeaders::Ipv4(header, _) => header.time_to_live,
            IpHeaders::Ipv6(header, _) => header.hop_limit,
        };
        let builder = PacketBuilder::ethernet2(POD.0, GATEWAY.0).ip(headers);
        let mut bytes = Vec::new();
        match built.clone() {
            Built::Tcp(header) => builder.tcp_header(header).write(&mut bytes, &payload),
            Built::Udp(from, to) => builder.udp(from, to).write(&mut bytes, &payload),
            Built::EchoRequest(id, sequence) if is_v4 => builder
                .icmpv4_echo_request(id, sequence)
                .write(&mut bytes, &payload),
            Built::EchoReply(id, sequence) if is_v4 => builder
                .icmpv4_echo_reply(id, sequence)
                .write(&mut bytes, &payload),
            Built::EchoRequest(id, sequence) => builder
                .icmpv6_echo_request(id, sequence)
                .write(&mut bytes, &payload),
            Built::EchoReply(id, sequence) => builder
                .icmpv6_echo_reply(id, sequence)
                .write(&mut bytes, &payload),
        }
        .unwrap();
        let length = bytes.len();
        bytes.resize(length + padding, 0xaa);
        Sample {
            bytes,
            built,
            source,
            destination,
            hop_limit,
            length,
        }
    })
}
