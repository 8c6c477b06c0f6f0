//! pcapng as the IETF's draft has it
//! (<https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-03.html>): one section, little-endian,
//! an interface block for each port, nanosecond time stamps, verdicts as packets' comments.

use std::collections::BTreeMap;
use std::io::{self, Write};

use crate::protocol::{
    CaptureDirection, CaptureInterface, CaptureSummary, CapturedPacket, InterfaceSummary,
};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
/// LINKTYPE_ETHERNET.
const ETHERNET: u16 = 1;

const OPT_COMMENT: u16 = 1;
const SHB_OS: u16 = 3;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_DESCRIPTION: u16 = 3;
const IF_MAC_ADDRESS: u16 = 6;
const IF_TIME_RESOLUTION: u16 = 9;
const EPB_FLAGS: u16 = 2;
const EPB_DROP_COUNT: u16 = 4;
const ISB_START_TIME: u16 = 2;
const ISB_END_TIME: u16 = 3;
const ISB_RECEIVED: u16 = 4;
const ISB_DROPPED: u16 = 5;
const ISB_OS_DROPPED: u16 = 7;
const ISB_DELIVERED: u16 = 8;

/// A block that is being filled.
struct Block {
    body: Vec<u8>,
}

impl Block {
    fn new() -> Block {
        Block { body: Vec::new() }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.body.extend_from_slice(bytes);
        self.pad();
    }

    fn pad(&mut self) {
        self.body.resize(self.body.len().next_multiple_of(4), 0);
    }

    fn u16(&mut self, value: u16) {
        self.body.extend_from_slice(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.body.extend_from_slice(&value.to_le_bytes());
    }

    /// A moment as blocks have it: its high half first.
    fn time(&mut self, ns: u64) {
        self.u32((ns >> 32) as u32);
        self.u32(ns as u32);
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        // What is longer than an option can be is cut; nothing of ours is.
        let value = &value[..value.len().min(usize::from(u16::MAX))];
        self.u16(code);
        self.u16(value.len() as u16);
        self.bytes(value);
    }

    fn end_of_options(&mut self) {
        self.u32(0);
    }

    fn write(self, kind: u32, out: &mut impl Write) -> io::Result<()> {
        let length = (self.body.len() as u32 + 12).to_le_bytes();
        out.write_all(&kind.to_le_bytes())?;
        out.write_all(&length)?;
        out.write_all(&self.body)?;
        out.write_all(&length)
    }
}

/// What is known of an interface block.
#[derive(Clone, Copy, Debug)]
struct Described {
    /// Its number in the file.
    id: u32,
    /// Packets written.
    packets: u64,
}

/// Writes a capture's file.
#[derive(Debug)]
pub struct PcapNg<W> {
    out: W,
    snaplen: u32,
    interfaces: BTreeMap<u16, Described>,
    began_ns: u64,
    /// Losses that no packet has told of yet, and all there were.
    lost: u64,
    lost_total: u64,
}

impl<W: Write> PcapNg<W> {
    /// Begins a file.
    pub fn new(mut out: W, snaplen: u32, now_ns: u64) -> io::Result<PcapNg<W>> {
        let mut block = Block::new();
        block.u32(BYTE_ORDER_MAGIC);
        block.u16(1);
        block.u16(0);
        // The section's length is not known.
        block.u32(u32::MAX);
        block.u32(u32::MAX);
        block.option(SHB_OS, b"Linux");
        let program = concat!("weir ", env!("CARGO_PKG_VERSION"));
        block.option(SHB_USERAPPL, program.as_bytes());
        block.end_of_options();
        block.write(SECTION_HEADER, &mut out)?;
        Ok(PcapNg {
            out,
            snaplen,
            interfaces: BTreeMap::new(),
            began_ns: now_ns,
            lost: 0,
            lost_total: 0,
        })
    }

    /// Describes a port that packets may come from.
    pub fn interface(&mut self, interface: &CaptureInterface) -> io::Result<()> {
        let id = self.interfaces.len() as u32;
        let mut block = Block::new();
        block.u16(ETHERNET);
        block.u16(0);
        block.u32(self.snaplen);
        block.option(IF_NAME, interface.name.as_bytes());
        let description = match &interface.pod {
            Some(pod) => format!("pod {pod}"),
            None => interface.role.clone(),
        };
        block.option(IF_DESCRIPTION, description.as_bytes());
        block.option(IF_MAC_ADDRESS, &interface.mac);
        block.option(IF_TIME_RESOLUTION, &[9]);
        block.end_of_options();
        self.interfaces
            .insert(interface.port, Described { id, packets: 0 });
        block.write(INTERFACE_DESCRIPTION, &mut self.out)
    }

    /// Takes note of packets that are not in the file; the next one that is says so.
    pub fn lose(&mut self, packets: u64) {
        self.lost += packets;
        self.lost_total += packets;
    }

    /// Writes a packet. False if its port was never described.
    pub fn packet(&mut self, packet: &CapturedPacket) -> io::Result<bool> {
        let Some(known) = self.interfaces.get_mut(&packet.port) else {
            return Ok(false);
        };
        known.packets += 1;
        let mut block = Block::new();
        block.u32(known.id);
        block.time(packet.time_ns);
        block.u32(packet.data.0.len() as u32);
        block.u32(packet.length);
        block.bytes(&packet.data.0);
        let direction: u32 = match packet.direction {
            CaptureDirection::In => 1,
            CaptureDirection::Out => 2,
        };
        block.option(EPB_FLAGS, &direction.to_le_bytes());
        if self.lost > 0 {
            block.option(
                EPB_DROP_COUNT,
                &std::mem::take(&mut self.lost).to_le_bytes(),
            );
        }
        block.option(OPT_COMMENT, packet.comment.as_bytes());
        block.end_of_options();
        block.write(ENHANCED_PACKET, &mut self.out)?;
        Ok(true)
    }

    /// Gives what was written so far to whoever reads.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Ends the file with what was counted on each port.
    pub fn finish(mut self, summary: &CaptureSummary, now_ns: u64) -> io::Result<()> {
        self.lose(summary.lost.client + summary.lost.daemon);
        for InterfaceSummary {
            port,
            received,
            dropped,
        } in &summary.interfaces
        {
            let Some(known) = self.interfaces.get(port) else {
                continue;
            };
            let mut block = Block::new();
            block.u32(known.id);
            block.time(now_ns);
            let halves = |ns: u64| {
                let [high, low] = [(ns >> 32) as u32, ns as u32].map(u32::to_le_bytes);
                [high, low].concat()
            };
            block.option(ISB_START_TIME, &halves(self.began_ns));
            block.option(ISB_END_TIME, &halves(now_ns));
            block.option(ISB_RECEIVED, &received.to_le_bytes());
            block.option(ISB_DROPPED, &dropped.to_le_bytes());
            // Nobody knows of which port they were.
            block.option(ISB_OS_DROPPED, &self.lost_total.to_le_bytes());
            block.option(ISB_DELIVERED, &known.packets.to_le_bytes());
            block.end_of_options();
            block.write(INTERFACE_STATISTICS, &mut self.out)?;
        }
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Lost;
    use k8s_openapi::ByteString;

    /// A block's type and body, and its options behind `fixed` bytes of it.
    type Read = (u32, Vec<u8>, Vec<(u16, Vec<u8>)>);

    fn u32_at(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    fn u16_at(bytes: &[u8], at: usize) -> u16 {
        u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
    }

    /// Reads a file by the draft's words, not by ours.
    fn read(mut file: &[u8]) -> Vec<Read> {
        let mut blocks = Vec::new();
        while !file.is_empty() {
            let (kind, length) = (u32_at(file, 0), u32_at(file, 4) as usize);
            assert!(length.is_multiple_of(4) && length >= 12, "{length}");
            assert_eq!(
                u32_at(file, length - 4) as usize,
                length,
                "its end says so too"
            );
            let body = file[8..length - 4].to_vec();
            let fixed = match kind {
                0x0a0d_0d0a => 16,
                1 => 8,
                5 => 12,
                6 => 20 + (u32_at(&body, 12) as usize).next_multiple_of(4),
                other => panic!("block type {other:#x}"),
            };
            let (mut options, mut at) = (Vec::new(), fixed);
            loop {
                let (code, len) = (u16_at(&body, at), usize::from(u16_at(&body, at + 2)));
                if code == 0 {
                    assert_eq!(
                        (len, at + 4),
                        (0, body.len()),
                        "nothing behind the last one"
                    );
                    break;
                }
                options.push((code, body[at + 4..at + 4 + len].to_vec()));
                at += 4 + len.next_multiple_of(4);
            }
            blocks.push((kind, body, options));
            file = &file[length..];
        }
        blocks
    }

    fn option(block: &Read, code: u16) -> Option<&[u8]> {
        let mut options = block.2.iter();
        options
            .find(|(c, _)| *c == code)
            .map(|(_, value)| &value[..])
    }

    #[test]
    fn a_file_reads_back_by_the_words_of_the_draft() {
        let mut file = Vec::new();
        let mut writer = PcapNg::new(&mut file, 262_144, 0x1_0000_0002).unwrap();
        let interface = |port: u16, pod: Option<&str>| CaptureInterface {
            port,
            name: format!("veth{port}"),
            role: "uplink".into(),
            pod: pod.map(str::to_owned),
            mac: [2, 0, 0, 0, 0, port as u8],
        };
        writer.interface(&interface(7, Some("shop/web-0"))).unwrap();
        writer.interface(&interface(3, None)).unwrap();
        let packet = |port, direction, data: &[u8]| CapturedPacket {
            time_ns: 0x1234_5678_9abc_def0,
            port,
            direction,
            length: 1500,
            comment: "DROPPED (policy_denied); … generation 3".into(),
            data: ByteString(data.to_vec()),
            flow: None,
        };
        let data: Vec<u8> = (0..61).collect();
        assert!(
            writer
                .packet(&packet(3, CaptureDirection::In, &data))
                .unwrap()
        );
        writer.lose(5);
        assert!(
            writer
                .packet(&packet(7, CaptureDirection::Out, &data[..4]))
                .unwrap()
        );
        assert!(
            !writer
                .packet(&packet(9, CaptureDirection::In, &data))
                .unwrap()
        );
        let summary = CaptureSummary {
            interfaces: vec![InterfaceSummary {
                port: 3,
                received: 10,
                dropped: 2,
            }],
            lost: Lost {
                client: 1,
                daemon: 1,
            },
        };
        writer.finish(&summary, 0x2_0000_0003).unwrap();

        let blocks = read(&file);
        let kinds: Vec<u32> = blocks.iter().map(|block| block.0).collect();
        assert_eq!(kinds, [0x0a0d_0d0a, 1, 1, 6, 6, 5]);
        assert_eq!(u32_at(&blocks[0].1, 0), 0x1a2b_3c4d);
        assert_eq!((u16_at(&blocks[0].1, 4), u16_at(&blocks[0].1, 6)), (1, 0));
        let pod = &blocks[1];
        assert_eq!((u16_at(&pod.1, 0), u32_at(&pod.1, 4)), (1, 262_144));
        assert_eq!(option(pod, 2), Some(&b"veth7"[..]));
        assert_eq!(option(pod, 3), Some(&b"pod shop/web-0"[..]));
        assert_eq!(option(pod, 6), Some(&[2, 0, 0, 0, 0, 7][..]));
        assert_eq!(option(pod, 9), Some(&[9][..]), "nanoseconds");
        let first = &blocks[3];
        assert_eq!(u32_at(&first.1, 0), 1, "the second interface");
        assert_eq!(
            (u32_at(&first.1, 4), u32_at(&first.1, 8)),
            (0x1234_5678, 0x9abc_def0)
        );
        assert_eq!((u32_at(&first.1, 12), u32_at(&first.1, 16)), (61, 1500));
        assert_eq!(first.1[20..81], data);
        assert_eq!(option(first, 2), Some(&[1, 0, 0, 0][..]), "inbound");
        assert_eq!(option(first, 4), None);
        let comment = "DROPPED (policy_denied); … generation 3";
        assert_eq!(option(first, 1), Some(comment.as_bytes()));
        let second = &blocks[4];
        assert_eq!(u32_at(&second.1, 0), 0);
        assert_eq!(option(second, 2), Some(&[2, 0, 0, 0][..]), "outbound");
        assert_eq!(option(second, 4), Some(&5u64.to_le_bytes()[..]));
        let counted = &blocks[5];
        assert_eq!(u32_at(&counted.1, 0), 1);
        for (code, value) in [(4, 10u64), (5, 2), (7, 7), (8, 1)] {
            assert_eq!(
                option(counted, code),
                Some(&value.to_le_bytes()[..]),
                "{code}"
            );
        }
        assert_eq!(option(counted, 3), Some(&[2, 0, 0, 0, 3, 0, 0, 0][..]));
    }
}
