//! Packets for whoever captures: what came in, and what became of it.
//!
//! Frames that AF_XDP takes never reach the kernel's stack, so that no packet socket sees them. A
//! [`Tap`] is given to the workers while somebody captures, and to nobody otherwise: a worker without
//! one looks at one word of its own for each burst. With one it copies a burst's packets aside before
//! the pipeline rewrites them in place, and puts those of watched ports into its [`TapRing`], with
//! their verdicts.
//!
//! A ring is bounded, has one writer and one reader, and nobody waits: a record that does not fit is
//! counted ([`TapRing::lost`]) and the packet goes its way. Words are atomics, so that a reader who is
//! late never reads what the writer is changing: the writer overwrites only what was read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use crate::flow::SocketAddress;
use crate::snapshot::{Generation, Incarnation, PortId};
use crate::{Address, DropReason, FlowKey, Protocol, Time, Verdict};

/// What became of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It was sent on by this port.
    Forwarded(PortId),
    /// It was answered in place: ARP, neighbour discovery.
    Answered,
    /// It was dropped.
    Dropped(DropReason),
    /// It was dropped, and its sender was told so by an ICMP error.
    Refused(DropReason),
}

/// Which bytes a record has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// As received, by [`TapRecord::ingress`].
    Received,
    /// As sent, by the port: what was forwarded by its new headers, or an answer of our own making.
    Sent(PortId),
}

/// One packet's record; its bytes are beside it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TapRecord {
    /// When its burst was taken from the ring.
    pub time: Time,
    /// Where it came in.
    pub ingress: PortId,
    /// Which bytes these are.
    pub form: Form,
    /// What became of it.
    pub fate: Fate,
    /// Bytes that it has in this form, Ethernet header included; the record may have fewer.
    pub length: u32,
    /// What was decided for its connection, if it has one.
    pub verdict: Option<Verdict>,
    /// Whether it goes back to its connection's initiator.
    pub is_reply: bool,
    /// The snapshot that decided.
    pub generation: Generation,
    /// Of a translated connection what its packets do not show.
    pub translated: Option<Judged>,
    /// The local endpoint that sent it, if one did.
    pub source: Incarnation,
    /// The local endpoint that it is for, if any.
    pub destination: Incarnation,
}

/// A translated connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Judged {
    /// The flow that policy has judged, in its initiator's orientation.
    pub flow: FlowKey,
    /// What the initiator's packets are addressed to.
    pub service: SocketAddress,
}

/// Words of a record before its bytes: lengths, fate, ingress, verdict, time, generation, ends, and
/// what was translated.
const HEAD_WORDS: u64 = 14;
/// Bit of the last of these words: the connection is translated.
const IS_TRANSLATED: u64 = 1 << 63;
/// Where among them the fate stands, which is known last.
const FATE_WORD: u64 = 1;
/// Bit of the verdict's word: there is one.
const HAS_VERDICT: u64 = 1 << 62;
/// Bit of the verdict's word: the packet goes back.
const IS_REPLY: u64 = 1 << 63;

fn fate_word(fate: Fate, form: Form) -> u64 {
    let (kind, what) = match fate {
        Fate::Forwarded(port) => (0, u64::from(port.0)),
        Fate::Answered => (1, 0),
        Fate::Dropped(reason) => (2, reason as u64),
        Fate::Refused(reason) => (3, reason as u64),
    };
    let (sent, port) = match form {
        Form::Received => (0, 0),
        Form::Sent(port) => (1, u64::from(port.0)),
    };
    kind | sent << 8 | what << 16 | port << 32
}

fn read_fate(word: u64) -> (Fate, Form) {
    let what = (word >> 16) as u16;
    let reason = || {
        let mut all = DropReason::ALL.iter();
        let found = all.find(|reason| **reason as u16 == what);
        found.copied().unwrap_or(DropReason::Internal)
    };
    let fate = match word & 0xff {
        0 => Fate::Forwarded(PortId(what)),
        1 => Fate::Answered,
        2 => Fate::Dropped(reason()),
        _ => Fate::Refused(reason()),
    };
    let form = match word >> 8 & 1 {
        0 => Form::Received,
        _ => Form::Sent(PortId((word >> 32) as u16)),
    };
    (fate, form)
}

/// The words of a translated connection; zeroes of any other.
fn translated_words(translated: Option<Judged>) -> [u64; 7] {
    let Some(Judged { flow, service }) = translated else {
        return [0; 7];
    };
    let halves = |address: Address| [(address.0 >> 64) as u64, address.0 as u64];
    let [source, destination] = [flow.source, flow.destination].map(halves);
    let address = halves(service.address);
    let ports = u64::from(flow.source_port)
        | u64::from(flow.destination_port) << 16
        | u64::from(service.port) << 32
        | u64::from(flow.protocol.0) << 48
        | IS_TRANSLATED;
    let [[a, b], [c, d], [e, f]] = [source, destination, address];
    [a, b, c, d, e, f, ports]
}

fn read_translated([a, b, c, d, e, f, ports]: [u64; 7]) -> Option<Judged> {
    let address = |high: u64, low: u64| Address(u128::from(high) << 64 | u128::from(low));
    (ports & IS_TRANSLATED != 0).then(|| Judged {
        flow: FlowKey {
            source: address(a, b),
            destination: address(c, d),
            source_port: ports as u16,
            destination_port: (ports >> 16) as u16,
            protocol: Protocol((ports >> 48) as u8),
        },
        service: SocketAddress {
            address: address(e, f),
            port: (ports >> 32) as u16,
        },
    })
}

/// One worker's records: written by the worker, read by control.
#[derive(Debug)]
pub struct TapRing {
    words: Box<[AtomicU64]>,
    /// Words that were written, ever.
    head: CachePadded<AtomicU64>,
    /// Words that were read, ever.
    tail: CachePadded<AtomicU64>,
    lost: AtomicU64,
}

impl TapRing {
    /// A ring of at least `bytes`, which is rounded up to a power of two of at least 4096.
    pub fn new(bytes: usize) -> TapRing {
        let words = bytes.max(4096).next_power_of_two() / 8;
        TapRing {
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
            head: CachePadded::new(AtomicU64::new(0)),
            tail: CachePadded::new(AtomicU64::new(0)),
            lost: AtomicU64::new(0),
        }
    }

    /// Records that did not fit.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Adds a record; false if it does not fit. Only one thread at a time may.
    pub fn push(&self, record: &TapRecord, bytes: &[u8]) -> bool {
        let lost = self.lost();
        let mut drafts = Drafts::default();
        drafts.write(self, record, u32::MAX, std::iter::once(bytes));
        drafts.publish(self, Ok(()));
        self.lost() == lost
    }

    fn word(&self, at: u64) -> &AtomicU64 {
        // The length is a power of two.
        &self.words[at as usize & (self.words.len() - 1)]
    }

    /// Takes the oldest record, and its bytes into `bytes`. Only one thread at a time may.
    pub fn pop(&self, bytes: &mut Vec<u8>) -> Option<TapRecord> {
        let tail = self.tail.load(Ordering::Relaxed);
        if tail == self.head.load(Ordering::Acquire) {
            return None;
        }
        let word = |at: u64| self.word(tail + at).load(Ordering::Relaxed);
        let captured = word(0) as u32 as usize;
        let body = captured.div_ceil(8) as u64;
        bytes.clear();
        for at in 0..body {
            bytes.extend(word(HEAD_WORDS + at).to_le_bytes());
        }
        bytes.truncate(captured);
        let (fate, form) = read_fate(word(FATE_WORD));
        let (verdict, ends) = (word(3), word(6));
        let record = TapRecord {
            time: Time(word(4)),
            ingress: PortId(word(2) as u16),
            form,
            fate,
            length: (word(0) >> 32) as u32,
            verdict: (verdict & HAS_VERDICT != 0).then(|| Verdict::from_bits(verdict)),
            is_reply: verdict & IS_REPLY != 0,
            generation: Generation(word(5)),
            translated: read_translated(std::array::from_fn(|at| word(7 + at as u64))),
            source: Incarnation((ends >> 32) as u32),
            destination: Incarnation(ends as u32),
        };
        self.tail.store(tail + HEAD_WORDS + body, Ordering::Release);
        Some(record)
    }
}

/// A record that is written and not yet told of.
#[derive(Clone, Copy, Debug)]
struct Draft {
    at: u64,
    end: u64,
    fate: Fate,
    form: Form,
}

/// A ring's writer: at most two drafts at a time, of one packet.
#[derive(Debug, Default)]
pub(crate) struct Drafts {
    received: Option<Draft>,
    sent: Option<Draft>,
}

impl Drafts {
    /// Writes a record with the first `snaplen` bytes of `pieces`. One that does not fit is counted.
    /// Of the two forms the received one goes first.
    pub fn write<'b>(
        &mut self,
        ring: &TapRing,
        record: &TapRecord,
        snaplen: u32,
        pieces: impl Iterator<Item = &'b [u8]> + Clone,
    ) {
        let there: usize = pieces.clone().map(<[u8]>::len).sum();
        let captured = (snaplen as usize).min(there);
        let size = HEAD_WORDS + captured.div_ceil(8) as u64;
        let begin = self.received.map(|draft| draft.end);
        let at = begin.unwrap_or_else(|| ring.head.load(Ordering::Relaxed));
        // What control has read before it moved the tail may be overwritten from then on.
        let used = at + size - ring.tail.load(Ordering::Acquire);
        if used > ring.words.len() as u64 {
            ring.lost
                .store(ring.lost.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            return;
        }
        let verdict = record.verdict.map_or(0, |v| v.to_bits() | HAS_VERDICT);
        let head = [
            captured as u64 | u64::from(record.length) << 32,
            fate_word(record.fate, record.form),
            u64::from(record.ingress.0),
            verdict | if record.is_reply { IS_REPLY } else { 0 },
            record.time.0,
            record.generation.0,
            u64::from(record.source.0) << 32 | u64::from(record.destination.0),
        ];
        let translated = translated_words(record.translated);
        for (word, value) in (at..).zip(head.into_iter().chain(translated)) {
            ring.word(word).store(value, Ordering::Relaxed);
        }
        write_bytes(ring, at + HEAD_WORDS, captured, pieces);
        let draft = Draft {
            at,
            end: at + size,
            fate: record.fate,
            form: record.form,
        };
        match record.form {
            Form::Received => self.received = Some(draft),
            Form::Sent(_) => self.sent = Some(draft),
        }
    }

    /// Tells of what was written, now that it is known whether the port took the packet.
    pub fn publish(&mut self, ring: &TapRing, taken: Result<(), DropReason>) {
        let (received, mut sent) = (self.received.take(), self.sent.take());
        if let Err(reason) = taken {
            // An answer that is not taken leaves what became of the packet as it was.
            if let Some(draft) = &received
                && matches!(draft.fate, Fate::Forwarded(_) | Fate::Answered)
            {
                let word = fate_word(Fate::Dropped(reason), draft.form);
                ring.word(draft.at + FATE_WORD)
                    .store(word, Ordering::Relaxed);
            }
            sent = None;
        }
        if let Some(last) = sent.or(received) {
            ring.head.store(last.end, Ordering::Release);
        }
    }
}

/// Writes the first `captured` bytes of `pieces`, from word `at` on.
fn write_bytes<'b>(
    ring: &TapRing,
    mut at: u64,
    captured: usize,
    pieces: impl Iterator<Item = &'b [u8]>,
) {
    let mut left = captured;
    let (mut word, mut filled) = ([0u8; 8], 0);
    for piece in pieces {
        let mut piece = &piece[..piece.len().min(left)];
        left -= piece.len();
        if filled > 0 {
            let (first, rest) = piece.split_at(piece.len().min(8 - filled));
            word[filled..filled + first.len()].copy_from_slice(first);
            filled += first.len();
            piece = rest;
            if filled < 8 {
                continue;
            }
            ring.word(at)
                .store(u64::from_le_bytes(word), Ordering::Relaxed);
            at += 1;
        }
        let (whole, rest) = piece.as_chunks::<8>();
        for chunk in whole {
            ring.word(at)
                .store(u64::from_le_bytes(*chunk), Ordering::Relaxed);
            at += 1;
        }
        word[..rest.len()].copy_from_slice(rest);
        filled = rest.len();
    }
    if filled > 0 {
        ring.word(at)
            .store(u64::from_le_bytes(word), Ordering::Relaxed);
    }
}

/// What workers record, and where.
#[derive(Debug)]
pub struct Tap {
    /// A bit for each port.
    watched: Box<[AtomicU64]>,
    snaplen: AtomicU32,
    /// One per worker.
    rings: Box<[TapRing]>,
}

impl Tap {
    /// A tap of no port, with room for `ring_bytes` of records for each worker.
    pub fn new(workers: usize, ports_max: u16, ring_bytes: usize) -> Arc<Tap> {
        let words = usize::from(ports_max).div_ceil(64);
        Arc::new(Tap {
            watched: (0..words).map(|_| AtomicU64::new(0)).collect(),
            snaplen: AtomicU32::new(u32::MAX),
            rings: (0..workers).map(|_| TapRing::new(ring_bytes)).collect(),
        })
    }

    /// Sets whether packets from, to and for a port are recorded.
    pub fn watch(&self, port: PortId, wanted: bool) {
        let Some(word) = self.watched.get(usize::from(port.0) / 64) else {
            return;
        };
        let bit = 1 << (port.0 % 64);
        match wanted {
            true => word.fetch_or(bit, Ordering::Relaxed),
            false => word.fetch_and(!bit, Ordering::Relaxed),
        };
    }

    /// Sets how many bytes of a packet are recorded at most.
    pub fn set_snaplen(&self, bytes: u32) {
        self.snaplen.store(bytes, Ordering::Relaxed);
    }

    /// How many bytes of a packet are recorded at most.
    pub fn snaplen(&self) -> u32 {
        self.snaplen.load(Ordering::Relaxed)
    }

    /// Whether packets of that port are recorded.
    pub fn is_watched(&self, port: PortId) -> bool {
        let word = self.watched.get(usize::from(port.0) / 64);
        word.is_some_and(|word| word.load(Ordering::Relaxed) >> (port.0 % 64) & 1 != 0)
    }

    /// A worker's ring.
    pub fn ring(&self, worker: usize) -> Option<&TapRing> {
        self.rings.get(worker)
    }

    /// Hands at most `limit` records of each worker to `each`; how many there were.
    pub fn drain(&self, limit: usize, mut each: impl FnMut(&TapRecord, &[u8])) -> usize {
        let (mut drained, mut bytes) = (0, Vec::new());
        for ring in &self.rings {
            for _ in 0..limit {
                let Some(record) = ring.pop(&mut bytes) else {
                    break;
                };
                each(&record, &bytes);
                drained += 1;
            }
        }
        drained
    }

    /// Records that did not fit, of all workers.
    pub fn lost(&self) -> u64 {
        self.rings.iter().map(TapRing::lost).sum()
    }
}

#[cfg(test)]
mod tests;
