//! Five-tuple rules with random CIDRs, and packets that meet them: one list for all who classify.
//!
//! A rule is what a policy says of one pod: whence, to which pod, which protocol, which ports. So
//! its destination is a pod's address and its source port any; the source's prefix, the ports and
//! the protocol are random.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use dataplane::Protocol;

use crate::cluster::Numbers;

/// The first pod's address; the others follow.
const PODS: u32 = 0x0a00_0000;
/// Prefix lengths of CIDRs, all equally likely.
const LENGTHS: std::ops::RangeInclusive<u32> = 8..=32;
/// Of ten packets so many are made to match a rule.
const MATCHING: u32 = 9;

/// One rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FiveTuple {
    /// The source's prefix, without host bits.
    pub source: u32,
    /// Its length.
    pub length: u8,
    /// Which pod is the destination.
    pub pod: u32,
    /// The destination's first port.
    pub first: u16,
    /// Its last one.
    pub last: u16,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
}

/// One packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// Its source.
    pub source: u32,
    /// Which pod is its destination.
    pub pod: u32,
    /// The source's port.
    pub source_port: u16,
    /// The destination's port.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

impl FiveTuple {
    /// A random rule about one of `pods`.
    fn random(pods: u32, numbers: &mut Numbers) -> FiveTuple {
        let length = LENGTHS.start() + numbers.below(LENGTHS.end() - LENGTHS.start() + 1);
        let first = 1 + numbers.below(64_000) as u16;
        let width = [0, 0, 0, 10, 1000][numbers.below(5) as usize];
        FiveTuple {
            source: numbers.next() as u32 & (u32::MAX << (32 - length)),
            length: length as u8,
            pod: numbers.below(pods),
            first,
            last: first + width,
            protocol: protocol(numbers),
        }
    }

    /// A random packet that matches the rule.
    fn packet(&self, numbers: &mut Numbers) -> Packet {
        let host = (1_u64 << (32 - self.length)) - 1;
        Packet {
            source: self.source | (numbers.next() & host) as u32,
            pod: self.pod,
            source_port: 1024 + numbers.below(64_000) as u16,
            port: self.first + numbers.below(u32::from(self.last - self.first) + 1) as u16,
            protocol: self.protocol,
        }
    }
}

fn protocol(numbers: &mut Numbers) -> Protocol {
    [Protocol::TCP, Protocol::UDP, Protocol::SCTP][numbers.below(3) as usize]
}

/// `count` different random rules about `pods` pods.
pub fn rules(count: usize, pods: u32, numbers: &mut Numbers) -> Vec<FiveTuple> {
    (0..count)
        .map(|_| FiveTuple::random(pods, numbers))
        .collect()
}

/// `count` packets in random order: most match a random rule, the others are random throughout.
pub fn packets(count: usize, rules: &[FiveTuple], pods: u32, numbers: &mut Numbers) -> Vec<Packet> {
    let random = |numbers: &mut Numbers| Packet {
        source: numbers.next() as u32,
        pod: numbers.below(pods),
        source_port: 1024 + numbers.below(64_000) as u16,
        port: numbers.next() as u16,
        protocol: protocol(numbers),
    };
    (0..count)
        .map(
            |_| match rules.get(numbers.below(rules.len() as u32) as usize) {
                Some(rule) if numbers.below(10) < MATCHING => rule.packet(numbers),
                _ => random(numbers),
            },
        )
        .collect()
}

/// A pod's address.
pub fn pod_address(pod: u32) -> Ipv4Addr {
    Ipv4Addr::from(PODS + pod)
}

/// The rules as `dpdk-test-acl --rulesf` reads them: source, destination, source ports,
/// destination ports, protocol and its mask.
pub fn rules_file(rules: &[FiveTuple]) -> String {
    let mut text = String::new();
    for rule in rules {
        let (source, pod) = (Ipv4Addr::from(rule.source), pod_address(rule.pod));
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "@{source}/{}\t{pod}/32\t0 : 65535\t{} : {}\t0x{:02x}/0xff",
            rule.length, rule.first, rule.last, rule.protocol.0
        );
    }
    text
}

/// The packets as `dpdk-test-acl --tracef` reads them: addresses and all else in decimal.
pub fn trace_file(packets: &[Packet]) -> String {
    let mut text = String::new();
    for packet in packets {
        let destination = u32::from(pod_address(packet.pod));
        let _ = writeln!(
            text,
            "{}\t{destination}\t{}\t{}\t{}",
            packet.source, packet.source_port, packet.port, packet.protocol.0
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_made_for_a_rule_matches_it_and_files_hold_what_was_made() {
        let mut numbers = Numbers(7);
        let rules = rules(500, 10, &mut numbers);
        for rule in &rules {
            let packet = rule.packet(&mut numbers);
            let mask = u32::MAX << (32 - u32::from(rule.length));
            assert_eq!(packet.source & mask, rule.source, "{rule:?}");
            assert!((rule.first..=rule.last).contains(&packet.port));
            assert_eq!((packet.pod, packet.protocol), (rule.pod, rule.protocol));
        }
        let packets = packets(100, &rules, 10, &mut numbers);
        assert_eq!(rules_file(&rules).lines().count(), 500);
        assert_eq!(trace_file(&packets).lines().count(), 100);
        let one = FiveTuple {
            source: 0xc0a8_0000,
            length: 16,
            pod: 3,
            first: 80,
            last: 90,
            protocol: Protocol::TCP,
        };
        assert_eq!(
            rules_file(&[one]),
            "@192.168.0.0/16\t10.0.0.3/32\t0 : 65535\t80 : 90\t0x06/0xff\n"
        );
    }
}
