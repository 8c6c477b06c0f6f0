//! The pure function from a burst to what becomes of each packet.
//!
//! [`process`] knows no socket, clock, lock or allocation: what it reads and writes are its
//! arguments. Workers, the simulator, fuzzers and benches run the same code.
//!
//! A packet's way: parse → ARP and neighbour discovery answered → Ethernet destination, multicast
//! and link-local scope → source → the local endpoints at its ends → its datagram if it is a
//! fragment → connection table → for what is new, a backend if it is for a Service → policy of both
//! ends for what is new or was decided by older policy → route → TTL → MTU → addresses and ports
//! translated, headers rewritten. Every packet ends as exactly one [`Outcome`].
//!
//! Translation: what the connection table says of a translated connection's packet, or the choice of a
//! backend for a new one, makes the packet's view the real one (`Stage::meet`, `Stage::reach`): from
//! there on policy, events and routes know the client and the backend only. The bytes stay as they
//! came until the packet is sent on, so that an ICMP error about it quotes what its sender sent.
//!
//! A fragment ahead of its datagram's first is undecided ([`Outcome::Hold`]), and comes once more
//! when there is something to decide it by ([`Inbound::held`]).
//!
//! What it does not do: fragmentation of what is too big for the way out.

mod answer;
mod burst;
mod decide;
mod forward;
mod fragment;
mod limiter;
mod related;
mod service;
mod source;
mod stage;
mod track;

use arrayvec::ArrayVec;

pub use burst::Lanes;
pub use decide::decide_again;
pub use limiter::{Limiters, RateLimiter};

use crate::conntrack::{self, Storage};
use crate::counters::{Counter, CounterShard};
use crate::events::EventQueue;
use crate::fragments::{self, Ticket};
use crate::service::Affinity;
use crate::snapshot::{PortId, Snapshot};
use crate::wire::TxChecksum;
use crate::{DropReason, Time};

/// Packets in one burst at most.
pub const BURST_MAX: usize = 64;

/// One received packet, in the memory it was received into.
#[derive(Debug)]
pub struct Inbound<'a> {
    /// The port it came in by.
    pub ingress: PortId,
    /// The packet from its Ethernet header on, and the room behind it that an answer may use.
    pub window: &'a mut [u8],
    /// The packet's length in `window`.
    pub len: usize,
    /// What of the packet does not stand in `window`, in the buffers behind it; mostly nothing.
    pub rest: &'a [&'a [u8]],
    /// For a fragment that was held ([`Outcome::Hold`]) and comes again, what it was held with.
    pub held: Option<&'a Ticket>,
}

impl Inbound<'_> {
    /// Bytes of the packet in all of its buffers.
    pub fn total(&self) -> usize {
        self.len + self.rest.iter().map(|buffer| buffer.len()).sum::<usize>()
    }
}

/// Where a packet goes: its bytes stand finished in its window and the buffers behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transmission {
    /// The port to send it by.
    pub port: PortId,
    /// Its length, Ethernet header included: from the window's start, and where that is beyond the
    /// bytes received there, on in the buffers behind it.
    pub len: usize,
    /// A transport checksum that is still partial, for the kernel or the hardware to complete.
    pub checksum: Option<TxChecksum>,
}

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It is forwarded.
    Forward(Transmission),
    /// It is answered (ARP, neighbour discovery): the answer stands in its window.
    Answer(Transmission),
    /// It is dropped for the reason, and an ICMP error about that, or a TCP reset, stands in its window.
    Refuse(Transmission, DropReason),
    /// It is dropped.
    Drop(DropReason),
    /// It is a fragment ahead of its datagram's first, and not decided: the caller keeps its frame
    /// ([`Held`](crate::fragments::Held)) until it is released.
    Hold(Ticket),
}

impl Outcome {
    /// What is to be sent, if anything.
    pub fn transmission(&self) -> Option<&Transmission> {
        match self {
            Outcome::Forward(t) | Outcome::Answer(t) | Outcome::Refuse(t, _) => Some(t),
            Outcome::Drop(_) | Outcome::Hold(_) => None,
        }
    }

    /// Why the packet was dropped, if it was.
    pub fn drop_reason(&self) -> Option<DropReason> {
        match self {
            Outcome::Refuse(_, reason) | Outcome::Drop(reason) => Some(*reason),
            Outcome::Forward(_) | Outcome::Answer(_) | Outcome::Hold(_) => None,
        }
    }

    /// Counts what became of the transmission: `sent` says whether the port took it. Drops that
    /// [`process`] decided are counted by it.
    #[inline]
    pub fn account(&self, counters: &CounterShard, ingress: PortId, sent: Result<(), DropReason>) {
        match (self, sent) {
            (Outcome::Forward(t), Ok(())) => counters.transmitted(t.port, t.len),
            (Outcome::Answer(_), Ok(())) => counters.add(Counter::Answered, 1),
            (Outcome::Refuse(..), Ok(())) => counters.add(Counter::Originated, 1),
            (Outcome::Forward(_) | Outcome::Answer(_), Err(reason)) => {
                counters.dropped(ingress, reason);
            }
            (Outcome::Refuse(..), Err(_)) | (Outcome::Drop(_) | Outcome::Hold(_), _) => {}
        }
    }
}

/// What the pipeline reads and writes besides packets and snapshot. One per worker; the tables of
/// connections, of datagrams and of clients' backends are shared by all.
pub struct Tables<'a, S> {
    /// Connections.
    pub conntrack: &'a conntrack::Table<S>,
    /// Datagrams that come in fragments.
    pub fragments: &'a fragments::Table,
    /// Which client stays with which backend.
    pub affinity: &'a Affinity,
    /// The worker's counters.
    pub counters: &'a CounterShard,
    /// The worker's events.
    pub events: &'a EventQueue,
    /// The worker's limiters.
    pub limiters: &'a mut Limiters,
    /// By port number, whether transmission completes partial checksums. Where it does not, and for
    /// ports beyond the slice, they are completed in software.
    pub checksum_offload: &'a [bool],
}

/// Decides and rewrites a burst: `outcomes[i]` is what becomes of `burst[i]`.
///
/// Drops are counted here. The caller carries out the transmissions in order and tells
/// [`Outcome::account`] of each. `lanes` are room only: what stands in them does not matter.
pub fn process<S: Storage>(
    burst: &mut ArrayVec<Inbound<'_>, BURST_MAX>,
    lanes: &mut Lanes,
    tables: &mut Tables<'_, S>,
    snapshot: &Snapshot,
    now: Time,
    outcomes: &mut ArrayVec<Outcome, BURST_MAX>,
) {
    outcomes.clear();
    tables.counters.add(Counter::Bursts, 1);
    count_received(tables.counters, burst);
    let mut stage = stage::Stage {
        tables,
        snapshot,
        now,
    };
    stage.burst(burst, lanes, outcomes);
}

/// Counts the packets of a burst, those of one port together. What was held has been counted.
fn count_received(counters: &CounterShard, burst: &[Inbound<'_>]) {
    let is_alike = |a: &Inbound<'_>, b: &Inbound<'_>| {
        a.ingress == b.ingress && a.held.is_some() == b.held.is_some()
    };
    let runs = burst.chunk_by(is_alike);
    for run in runs.filter(|run| run[0].held.is_none()) {
        let bytes: usize = run.iter().map(Inbound::total).sum();
        counters.received_all(run[0].ingress, run.len() as u64, bytes as u64);
    }
}
