//! Packets of several frames: from a burst's frames to the pipeline, and on to a TX ring.

use arrayvec::ArrayVec;

use super::Origin;
use super::ports::Ports;
use crate::DropReason;
use crate::pipeline::{BURST_MAX, Inbound, Outcome};
use crate::xsk::{BURST, Burst, Magazine, Part, Parts, Received, Umem};

/// The frames of a burst that are not their packet's first, in their order.
#[derive(Debug)]
pub(super) struct Rests<'f> {
    bytes: ArrayVec<&'f [u8], BURST>,
    /// The packet of each, by its number in the burst.
    packets: ArrayVec<u8, BURST>,
}

impl<'f> Rests<'f> {
    pub fn new() -> Rests<'f> {
        Rests {
            bytes: ArrayVec::new(),
            packets: ArrayVec::new(),
        }
    }

    /// Gives each packet what does not stand in its first frame.
    pub fn give_to<'a>(&'a self, burst: &mut ArrayVec<Inbound<'a>, BURST_MAX>)
    where
        'f: 'a,
    {
        let mut bytes: &'a [&'a [u8]] = &self.bytes;
        for run in self.packets.chunk_by(|a, b| a == b) {
            let (rest, others) = bytes.split_at(run.len());
            if let Some(inbound) = burst.get_mut(usize::from(run[0])) {
                inbound.rest = rest;
            }
            bytes = others;
        }
    }
}

/// Collects the packets that were received: in `burst` by their first frames, the others in `rests`.
pub(super) fn collect<'b, 'f: 'b>(
    umem: &'f Umem,
    origin: &Origin<'f>,
    received: &'f mut Burst,
    burst: &mut ArrayVec<Inbound<'b>, BURST_MAX>,
    rests: &mut Rests<'f>,
) {
    let mut begins = true;
    for Received {
        frame,
        len,
        continues,
    } in received.iter_mut()
    {
        let len = *len as usize;
        if begins {
            let number = burst.len();
            burst.push(Inbound {
                ingress: origin.ingress(number),
                held: origin.ticket(number),
                len,
                window: umem.bytes_mut(frame),
                rest: &[],
            });
        } else {
            let bytes = umem.bytes(frame);
            rests.bytes.push(bytes.get(..len).unwrap_or_default());
            rests.packets.push((burst.len() - 1) as u8);
        }
        begins = !*continues;
    }
}

/// The frames of the packet that begins with `first`, which continues.
pub(super) fn parts(first: Received, frames: &mut impl Iterator<Item = Received>) -> Parts {
    let mut parts = Parts::new();
    let mut next = Some(first);
    while let Some(Received {
        frame,
        len,
        continues,
    }) = next
    {
        // A burst has whole packets only, of no more frames than there is room for here.
        parts.push(Part { frame, len });
        next = if continues { frames.next() } else { None };
    }
    parts
}

/// The bytes of what will be sent of a packet of several frames, and perhaps more behind it.
pub(super) fn bytes<'f>(
    umem: &'f Umem,
    parts: &'f Parts,
    outcome: &Outcome,
) -> impl Iterator<Item = &'f [u8]> + Clone {
    let (answer, packet) = match outcome {
        Outcome::Forward(_) => (None, &parts[..]),
        _ => (parts.first(), &parts[..0]),
    };
    let whole = |part: &'f Part| {
        let bytes = umem.bytes(&part.frame);
        bytes.get(..part.len as usize).unwrap_or_default()
    };
    // An answer may be longer than what was received into its frame.
    let answer = answer.map(|part| umem.bytes(&part.frame));
    answer.into_iter().chain(packet.iter().map(whole))
}

/// Sends a packet of several frames, or the answer that was written over its first one, and gives
/// back the frames that nobody takes.
pub(super) fn send(
    mut parts: Parts,
    outcome: &Outcome,
    ports: &mut Ports,
    magazine: &mut Magazine,
) -> Result<(), DropReason> {
    let mut sent = Ok(());
    if let Some(transmission) = outcome.transmission() {
        let kept = match outcome {
            Outcome::Forward(_) => cut(&mut parts, transmission.len),
            _ => {
                parts[0].len = transmission.len as u32;
                1
            }
        };
        for part in parts.drain(kept..) {
            magazine.give(part.frame);
        }
        sent = ports.transmit_parts(&mut parts, transmission, magazine);
    }
    for part in parts.drain(..) {
        magazine.give(part.frame);
    }
    sent
}

/// Ends a packet after `len` bytes, which it has at least; how many of its frames hold them.
fn cut(parts: &mut Parts, len: usize) -> usize {
    let mut left = len as u32;
    let mut kept = 0;
    while let Some(part) = parts.get_mut(kept)
        && left > 0
    {
        part.len = part.len.min(left);
        left -= part.len;
        kept += 1;
    }
    kept
}
