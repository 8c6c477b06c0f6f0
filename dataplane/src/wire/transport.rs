//! Transport headers: TCP, UDP, SCTP.

use super::ip::{Header, chunk};
use super::{Checksum, Offload, Sctp, Tcp, TcpFlags, Transport, Udp, Version, icmp};
use crate::checksum::Sum;
use crate::{DropReason, Protocol};

/// The transport header behind `header`, and the state of its checksum. `rest` are the packet's
/// further buffers.
pub(super) fn read(
    frame: &[u8],
    rest: &[&[u8]],
    header: &Header,
    offload: Offload,
) -> Result<(Transport, Checksum), DropReason> {
    if let Some(fragment) = header.fragment
        && fragment.offset != 0
    {
        // At offset 8 it would overwrite TCP's flags (RFC 3128).
        if fragment.offset == 8 && header.protocol == Protocol::TCP {
            return Err(DropReason::TinyFragment);
        }
        return Ok((Transport::Unread, Checksum::Complete));
    }
    let segment = Segment {
        bytes: &frame[header.transport_offset..header.end.min(frame.len())],
        rest,
        length: header.end - header.transport_offset,
        is_cut: header.end > frame.len(),
        header,
        offload,
    };
    match (header.protocol, header.version) {
        (Protocol::TCP, _) => segment.tcp(),
        (Protocol::UDP, _) => segment.udp(),
        (Protocol::SCTP, _) => segment.sctp(),
        (Protocol::ICMP, Version::V4) | (Protocol::ICMPV6, Version::V6) => {
            icmp::read(frame, header).map(|transport| (transport, Checksum::Complete))
        }
        _ => Ok((Transport::Other, Checksum::Complete)),
    }
}

/// What a header that does not fit is called: a first fragment has to hold all of it.
pub(super) fn short(header: &Header) -> DropReason {
    if header.fragment.is_some() {
        DropReason::TinyFragment
    } else {
        DropReason::MalformedTransport
    }
}

/// Transport header and payload, or what a first fragment has of them.
struct Segment<'a> {
    /// As much of it as the first buffer holds: headers are read from there alone.
    bytes: &'a [u8],
    /// The packet's further buffers.
    rest: &'a [&'a [u8]],
    /// Bytes of it in all buffers.
    length: usize,
    /// It goes on behind `bytes`.
    is_cut: bool,
    header: &'a Header,
    offload: Offload,
}

const TCP_BYTES: usize = 20;
const UDP_BYTES: usize = 8;
const SCTP_BYTES: usize = 12;

impl Segment<'_> {
    /// What a header is called that `bytes` does not hold.
    fn short(&self) -> DropReason {
        if self.is_cut {
            return DropReason::MultiBuffer;
        }
        short(self.header)
    }

    fn tcp(&self) -> Result<(Transport, Checksum), DropReason> {
        let h = chunk::<TCP_BYTES>(self.bytes, 0).ok_or(self.short())?;
        let header_length = usize::from(h[12] >> 4) * 4;
        if header_length < TCP_BYTES {
            return Err(DropReason::MalformedTransport);
        }
        let options = self
            .bytes
            .get(TCP_BYTES..header_length)
            .ok_or(self.short())?;
        let flags = TcpFlags(h[13]);
        if !is_sent_by_stacks(flags) {
            return Err(DropReason::BadTcpFlags);
        }
        let mut tcp = Tcp::without_options(h, self.length - header_length);
        if flags.has(TcpFlags::SYN) {
            let at = self.header.transport_offset + TCP_BYTES;
            syn_options(&mut tcp, options, at)?;
        }
        let field = u16::from_be_bytes([h[16], h[17]]);
        Ok((Transport::Tcp(tcp), self.internet_checksum(field)))
    }

    fn udp(&self) -> Result<(Transport, Checksum), DropReason> {
        let [s0, s1, d0, d1, l0, l1, c0, c1] =
            *chunk::<UDP_BYTES>(self.bytes, 0).ok_or(self.short())?;
        let length = u16::from_be_bytes([l0, l1]);
        let whole = self.header.fragment.is_none();
        if usize::from(length) < UDP_BYTES || whole && usize::from(length) > self.length {
            return Err(DropReason::MalformedTransport);
        }
        let udp = Udp {
            source_port: u16::from_be_bytes([s0, s1]),
            destination_port: u16::from_be_bytes([d0, d1]),
            length,
        };
        let checksum = match u16::from_be_bytes([c0, c1]) {
            0 => Checksum::Absent,
            // Bytes behind the datagram are no part of its sum, but a device would add them; no
            // stack leaves such a packet to a device.
            _ if usize::from(length) != self.length => Checksum::Complete,
            field => self.internet_checksum(field),
        };
        Ok((Transport::Udp(udp), checksum))
    }

    /// Partial, if the field holds the folded pseudo-header sum and no wire was crossed. A final
    /// checksum looks like that once in 65,536 packets, and finishing it then changes nothing.
    fn internet_checksum(&self, field: u16) -> Checksum {
        if self.offload != Offload::Virtual || self.header.fragment.is_some() {
            return Checksum::Complete;
        }
        let Header {
            source,
            destination,
            protocol,
            ..
        } = *self.header;
        let length = self.length as u32;
        if Sum::pseudo_header(source, destination, protocol, length).folded() == field {
            Checksum::Partial
        } else {
            Checksum::Complete
        }
    }

    fn sctp(&self) -> Result<(Transport, Checksum), DropReason> {
        let h = chunk::<SCTP_BYTES>(self.bytes, 0).ok_or(self.short())?;
        let mut sctp = Sctp {
            source_port: u16::from_be_bytes([h[0], h[1]]),
            destination_port: u16::from_be_bytes([h[2], h[3]]),
            verification_tag: u32::from_be_bytes([h[4], h[5], h[6], h[7]]),
            first_chunk: 0,
            first_chunk_flags: 0,
            initiate_tag: None,
        };
        let chunks = &self.bytes[SCTP_BYTES..];
        if self.header.fragment.is_some() {
            let [chunk_type, flags, ..] = *chunk::<4>(chunks, 0).ok_or(self.short())?;
            (sctp.first_chunk, sctp.first_chunk_flags) = (chunk_type, flags);
        } else {
            self.sctp_chunks(&mut sctp)?;
        }
        let is_absent = h[8..] == [0; 4] && self.offload == Offload::Virtual;
        let checksum = if is_absent && self.header.fragment.is_none() {
            Checksum::Absent
        } else {
            Checksum::Complete
        };
        Ok((Transport::Sctp(sctp), checksum))
    }
}

/// The combinations of SYN, FIN, RST, ACK and URG that stacks send, as Linux's conntrack has them
/// (net/netfilter/nf_conntrack_proto_tcp.c, `tcp_valid_flags`); PSH, ECE and CWR go with any.
const fn is_sent_by_stacks(flags: TcpFlags) -> bool {
    const SYN: u8 = TcpFlags::SYN;
    const SYN_URG: u8 = TcpFlags::SYN | TcpFlags::URG;
    const SYN_ACK: u8 = TcpFlags::SYN | TcpFlags::ACK;
    const RST: u8 = TcpFlags::RST;
    const RST_ACK: u8 = TcpFlags::RST | TcpFlags::ACK;
    const FIN_ACK: u8 = TcpFlags::FIN | TcpFlags::ACK;
    const FIN_ACK_URG: u8 = TcpFlags::FIN | TcpFlags::ACK | TcpFlags::URG;
    const ACK: u8 = TcpFlags::ACK;
    const ACK_URG: u8 = TcpFlags::ACK | TcpFlags::URG;
    matches!(
        flags.0 & !(TcpFlags::PSH | TcpFlags::ECE | TcpFlags::CWR),
        SYN | SYN_URG | SYN_ACK | RST | RST_ACK | FIN_ACK | FIN_ACK_URG | ACK | ACK_URG
    )
}

/// The largest window scale that counts (RFC 7323, section 2.3).
const MAX_WINDOW_SCALE: u8 = 14;

/// Walks a SYN's options, at most 40 bytes; `at` is where they start in the frame.
fn syn_options(tcp: &mut Tcp, options: &[u8], at: usize) -> Result<(), DropReason> {
    const END: u8 = 0;
    const NONE: u8 = 1;
    const MSS: u8 = 2;
    const WINDOW_SCALE: u8 = 3;
    let mut rest = options;
    while let [kind, behind @ ..] = rest {
        rest = match (*kind, behind) {
            (END, _) => return Ok(()),
            (NONE, _) => behind,
            (_, [length, ..]) if (2..=rest.len()).contains(&usize::from(*length)) => {
                let (option, following) = rest.split_at(usize::from(*length));
                match *option {
                    [MSS, _, _, _] => {
                        tcp.mss_offset = Some((at + options.len() - rest.len() + 2) as u16);
                    }
                    [WINDOW_SCALE, _, shift] => {
                        tcp.window_scale = Some(shift.min(MAX_WINDOW_SCALE));
                    }
                    [MSS | WINDOW_SCALE, ..] => return Err(DropReason::MalformedTransport),
                    _ => {}
                }
                following
            }
            _ => return Err(DropReason::MalformedTransport),
        };
    }
    Ok(())
}

const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const SHUTDOWN_COMPLETE: u8 = 14;

impl Segment<'_> {
    /// The four bytes at `at`, wherever the buffers end.
    fn word(&self, at: usize) -> Option<[u8; 4]> {
        if let Some(word) = chunk::<4>(self.bytes, at) {
            return Some(*word);
        }
        let end = at.checked_add(4).filter(|end| *end <= self.length)?;
        let (mut word, mut start) = ([0; 4], 0);
        for buffer in std::iter::once(&self.bytes).chain(self.rest) {
            let (from, to) = (at.max(start), end.min(start + buffer.len()));
            if from < to {
                word[from - at..to - at].copy_from_slice(&buffer[from - start..to - start]);
            }
            start += buffer.len();
        }
        Some(word)
    }

    /// Walks the chunks of a whole SCTP packet: one step each 4 bytes at most.
    fn sctp_chunks(&self, sctp: &mut Sctp) -> Result<(), DropReason> {
        let mut at = SCTP_BYTES;
        let mut count = 0;
        let mut loner = false;
        while at < self.length {
            let rest = self.length - at;
            let [chunk_type, flags, l0, l1] =
                self.word(at).ok_or(DropReason::MalformedTransport)?;
            let length = usize::from(u16::from_be_bytes([l0, l1]));
            if length < 4 || length > rest {
                return Err(DropReason::MalformedTransport);
            }
            if count == 0 {
                (sctp.first_chunk, sctp.first_chunk_flags) = (chunk_type, flags);
            }
            if matches!(chunk_type, INIT | INIT_ACK) {
                // Tag, window, two counts of streams, initial TSN: 16 bytes behind the chunk header.
                let tag = self.word(at + 4).filter(|_| length >= 20);
                let tag = tag.ok_or(DropReason::MalformedTransport)?;
                sctp.initiate_tag = Some(u32::from_be_bytes(tag));
            }
            loner |= matches!(chunk_type, INIT | INIT_ACK | SHUTDOWN_COMPLETE);
            count += 1;
            // The last chunk's padding may be missing.
            at += length.next_multiple_of(4).min(rest);
        }
        // RFC 9260, section 6.10: these are never bundled; section 8.5.1: INIT comes with tag 0.
        let tagged_init = sctp.first_chunk == INIT && sctp.verification_tag != 0;
        if count == 0 || loner && count != 1 || tagged_init {
            return Err(DropReason::MalformedTransport);
        }
        Ok(())
    }
}
