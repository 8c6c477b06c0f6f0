//! The packets of the generator: 60 octets of UDP in IPv4 (64 with the frame check sequence), with
//! the trial's number, a sequence number and the time they were due in them.

use std::net::Ipv4Addr;

/// Bytes of a frame without its check sequence.
pub const FRAME: usize = 60;
const ETHERNET: usize = 14;
const IP: usize = 20;
const UDP: usize = 8;
const PAYLOAD: usize = ETHERNET + IP + UDP;
/// The first port of both sides.
const PORT_BASE: u16 = 1024;
/// Ports that flows are spread over before the destination's port changes.
const PORTS: u32 = 60_000;

/// One end of the packets.
#[derive(Clone, Copy, Debug)]
pub struct Party {
    /// Its MAC as its packets have it.
    pub mac: [u8; 6],
    /// Its address.
    pub address: Ipv4Addr,
}

/// What all packets of one direction have in common.
#[derive(Clone, Copy, Debug)]
pub struct Template {
    bytes: [u8; FRAME],
    /// The sum of the pseudo header and the length.
    sum: u32,
}

/// What a packet says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// The trial it belongs to.
    pub trial: u16,
    /// Its number in the trial.
    pub sequence: u64,
    /// When it was due, nanoseconds of the monotonic clock.
    pub due: u64,
}

fn words(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum()
}

fn folded(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

impl Template {
    /// From one to the other, by way of a router with this MAC.
    pub fn new(from: Party, to: Party, router: [u8; 6]) -> Template {
        let mut bytes = [0; FRAME];
        bytes[..6].copy_from_slice(&router);
        bytes[6..12].copy_from_slice(&from.mac);
        bytes[12..14].copy_from_slice(&[8, 0]);
        let ip = &mut bytes[ETHERNET..ETHERNET + IP];
        ip[0] = 0x45;
        ip[2..4].copy_from_slice(&((FRAME - ETHERNET) as u16).to_be_bytes());
        ip[8] = 64;
        ip[9] = 17;
        ip[12..16].copy_from_slice(&from.address.octets());
        ip[16..20].copy_from_slice(&to.address.octets());
        let checksum = folded(words(ip));
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        let length = (FRAME - ETHERNET - IP) as u16;
        bytes[38..40].copy_from_slice(&length.to_be_bytes());
        let addresses = words(&bytes[26..34]);
        // The length stands in the pseudo header and in the header.
        let sum = addresses + 17 + 2 * u32::from(length);
        Template { bytes, sum }
    }

    /// Writes a packet of a flow; flows below 65,536 times the ports are all different.
    pub fn write(&self, into: &mut [u8], flow: u32, stamp: Stamp) {
        let source = PORT_BASE + (flow % PORTS) as u16;
        let destination = PORT_BASE + (flow / PORTS) as u16;
        into[..FRAME].copy_from_slice(&self.bytes);
        into[34..36].copy_from_slice(&source.to_be_bytes());
        into[36..38].copy_from_slice(&destination.to_be_bytes());
        into[PAYLOAD..PAYLOAD + 2].copy_from_slice(&stamp.trial.to_be_bytes());
        into[PAYLOAD + 2..PAYLOAD + 10].copy_from_slice(&stamp.sequence.to_be_bytes());
        into[PAYLOAD + 10..PAYLOAD + 18].copy_from_slice(&stamp.due.to_be_bytes());
        let payload = words(&into[PAYLOAD..FRAME]);
        let ports = u32::from(source) + u32::from(destination);
        // Zero would say that there is no checksum (RFC 768).
        let checksum = match folded(self.sum + ports + payload) {
            0 => 0xffff,
            checksum => checksum,
        };
        into[40..42].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// What a received packet says of itself, if it is one of ours.
pub fn stamp(packet: &[u8]) -> Option<Stamp> {
    let packet = packet.get(..FRAME)?;
    let is_ours = packet[12..14] == [8, 0] && packet[ETHERNET] == 0x45 && packet[23] == 17;
    let number = |at: usize| packet[at..at + 8].try_into().map(u64::from_be_bytes).ok();
    is_ours.then_some(Stamp {
        trial: u16::from_be_bytes([packet[PAYLOAD], packet[PAYLOAD + 1]]),
        sequence: number(PAYLOAD + 2)?,
        due: number(PAYLOAD + 10)?,
    })
}

/// Turns a packet round: the answer to it, from the same pair of ports.
pub fn answer(packet: &[u8], template: &Template, into: &mut [u8]) {
    into[..FRAME].copy_from_slice(&packet[..FRAME]);
    // Swapped ports and addresses change no sum, so that the checksum holds.
    into[..34].copy_from_slice(&template.bytes[..34]);
    into[34..36].copy_from_slice(&packet[36..38]);
    into[36..38].copy_from_slice(&packet[34..36]);
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use super::*;

    fn parties() -> [Party; 2] {
        [1, 2].map(|number| Party {
            mac: [2, 0, 0, 0, 0, number],
            address: Ipv4Addr::new(10, 0, 0, number),
        })
    }

    /// By other code than ours: the packet is one, and its checksums hold.
    fn check(bytes: &[u8], source: u8) -> (u16, u16) {
        let packet = SlicedPacket::from_ethernet(bytes).unwrap();
        let Some(NetSlice::Ipv4(ip)) = packet.net else {
            panic!("no IPv4");
        };
        let header = ip.header().to_header();
        assert_eq!(header.source, [10, 0, 0, source]);
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        let Some(TransportSlice::Udp(udp)) = packet.transport else {
            panic!("no UDP");
        };
        let checksum = udp
            .to_header()
            .calc_checksum_ipv4(&header, udp.payload())
            .unwrap();
        assert_eq!(udp.checksum(), checksum);
        (udp.source_port(), udp.destination_port())
    }

    #[test]
    fn a_packet_and_its_answer_are_whole_and_say_what_they_were_told() {
        let [a, b] = parties();
        let there = Template::new(a, b, [2, 0, 0, 0, 1, 0]);
        let back = Template::new(b, a, [2, 0, 0, 0, 1, 1]);
        let mut ports = std::collections::HashSet::new();
        for (flow_number, sequence) in [(0, 0), (999, 7), (70_000, u64::MAX), (123_456, 1 << 40)] {
            let told = Stamp {
                trial: 513,
                sequence,
                due: 0x0102_0304_0506_0708,
            };
            let mut bytes = [0; FRAME];
            there.write(&mut bytes, flow_number, told);
            assert_eq!(stamp(&bytes), Some(told));
            let (source, destination) = check(&bytes, 1);
            assert!(ports.insert((source, destination)), "another flow's ports");
            let mut turned = [0; FRAME];
            answer(&bytes, &back, &mut turned);
            assert_eq!(check(&turned, 2), (destination, source));
        }
    }

    #[test]
    fn other_packets_are_not_ours() {
        assert_eq!(stamp(&[0; 59]), None);
        assert_eq!(stamp(&[0; 60]), None);
    }
}
