//! Packets, built by etherparse: by other code than the parser's.

use dataplane::{Address, Mac};
use etherparse::{IpHeaders, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, PacketBuilder};

/// TCP flags that tests set.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Flags {
    pub syn: bool,
    pub ack: bool,
    pub fin: bool,
    pub rst: bool,
}

pub const SYN: Flags = Flags {
    syn: true,
    ack: false,
    fin: false,
    rst: false,
};
pub const SYN_ACK: Flags = Flags {
    syn: true,
    ack: true,
    fin: false,
    rst: false,
};
pub const ACK: Flags = Flags {
    syn: false,
    ack: true,
    fin: false,
    rst: false,
};
pub const RST: Flags = Flags {
    syn: false,
    ack: false,
    fin: false,
    rst: true,
};

/// What stands behind the IP header.
#[derive(Clone, Debug)]
pub enum Transport {
    Tcp {
        from: u16,
        to: u16,
        flags: Flags,
        seq: u32,
        ack: u32,
    },
    Udp {
        from: u16,
        to: u16,
    },
    EchoRequest(u16),
    EchoReply(u16),
}

/// A UDP datagram.
pub fn udp(from: u16, to: u16) -> Transport {
    Transport::Udp { from, to }
}

/// A TCP segment of a connection whose sides began at 999 and 0.
pub fn tcp(from: u16, to: u16, flags: Flags) -> Transport {
    Transport::Tcp {
        from,
        to,
        flags,
        seq: 1000,
        ack: u32::from(flags.ack),
    }
}

/// A packet to build.
#[derive(Clone, Debug)]
pub struct Spec {
    pub source_mac: Mac,
    pub destination_mac: Mac,
    pub source: Address,
    pub destination: Address,
    pub ttl: u8,
    pub transport: Transport,
    pub payload: Vec<u8>,
}

fn ip_headers(spec: &Spec) -> IpHeaders {
    match (spec.source.as_v4(), spec.destination.as_v4()) {
        (Some(source), Some(destination)) => {
            let mut header = Ipv4Header::new(
                0,
                spec.ttl,
                IpNumber::TCP,
                source.to_be_bytes(),
                destination.to_be_bytes(),
            )
            .unwrap();
            header.dont_fragment = true;
            IpHeaders::Ipv4(header, Default::default())
        }
        (None, None) => IpHeaders::Ipv6(
            Ipv6Header {
                traffic_class: 0,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: 0,
                next_header: IpNumber::TCP,
                hop_limit: spec.ttl,
                source: spec.source.0.to_be_bytes(),
                destination: spec.destination.0.to_be_bytes(),
            },
            Default::default(),
        ),
        _ => panic!("two families in one packet"),
    }
}

/// The packet's bytes, checksums complete.
pub fn build(spec: &Spec) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(spec.source_mac.0, spec.destination_mac.0);
    let ip = ethernet.ip(ip_headers(spec));
    let v4 = spec.source.is_v4();
    let mut bytes = Vec::new();
    let payload = &spec.payload[..];
    match spec.transport {
        Transport::Tcp {
            from,
            to,
            flags,
            seq,
            ack,
        } => {
            let mut tcp = etherparse::TcpHeader::new(from, to, seq, 65000);
            (tcp.syn, tcp.ack, tcp.fin, tcp.rst) = (flags.syn, flags.ack, flags.fin, flags.rst);
            tcp.acknowledgment_number = ack;
            if flags.syn {
                tcp.set_options(&[etherparse::TcpOptionElement::MaximumSegmentSize(8960)])
                    .unwrap();
            }
            ip.tcp_header(tcp).write(&mut bytes, payload).unwrap();
        }
        Transport::Udp { from, to } => ip.udp(from, to).write(&mut bytes, payload).unwrap(),
        Transport::EchoRequest(id) if v4 => {
            ip.icmpv4_echo_request(id, 1)
                .write(&mut bytes, payload)
                .unwrap();
        }
        Transport::EchoRequest(id) => {
            ip.icmpv6_echo_request(id, 1)
                .write(&mut bytes, payload)
                .unwrap();
        }
        Transport::EchoReply(id) if v4 => {
            ip.icmpv4_echo_reply(id, 1)
                .write(&mut bytes, payload)
                .unwrap();
        }
        Transport::EchoReply(id) => {
            ip.icmpv6_echo_reply(id, 1)
                .write(&mut bytes, payload)
                .unwrap();
        }
    }
    bytes
}
