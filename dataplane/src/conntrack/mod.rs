//! Connection tracking: one table for all workers, both directions of a connection in one entry.
//!
//! ```text
//!   key ──hash──► primary bucket ─┐  7 references + lock       entry: hot line   cold line
//!             └─► second bucket ──┴─► (tag, entry) ──────────► control, epochs,  last seen, counters,
//!                                                              tuple, ends       TCP windows
//! ```
//!
//! * [`Table`] holds everything in one slice of atomic words ([`Storage`]), without pointers, so
//!   that it can lie in shared memory and outlive the process ([`Table::attach`]).
//! * The *control word* of an entry holds version, [`State`] and verdict. A [`Handle`] is
//!   (entry, version): when the version has moved on, the handle is void.
//! * Entries are made, removed and decided again under a try-lock of their primary bucket, bounded
//!   in spins ([`DropReason::ConntrackBusy`](crate::DropReason::ConntrackBusy)). Lookups and state
//!   changes take no lock and wait for nobody.
//! * An entry names both ends by [`Incarnation`] and the initiator's ingress port. A packet that
//!   disagrees does not match (semantics D22).
//! * A translated connection has two tuples: its initiator's packets show one, what the other end gets
//!   and sends shows the other. So it has references in the buckets of both ([`Translation`]), and
//!   each tuple names it in one direction only: as long as these differ, tuples may meet.
//! * A denied connection is an entry, too ([`Hit::denied`]): it drops both directions, is refreshed
//!   by the initiator only and counts in the quota (D2).
//! * An entry names the counters of the rules that decided it ([`Hit::counters`]), in a cache line
//!   that every packet reads anyway. Counting is the caller's.
//!
//! * Look-ups of many packets go in stages, so that they wait for memory together
//!   ([`Table::lookup_batch`]).
//!
//! How a packet uses it: [`Table::lookup`]; on a hit whose [`Epochs`] are older than the snapshot's,
//! [`Table::redecide`]; then [`Table::track`]. [`Class::New`] or a miss means: ask the policy, then
//! [`Table::insert`], provided [`Facts::opens`] or [`Table::adopts`] says that this packet may make an
//! entry.
//!
//! State machines follow RFC 9293 (TCP) and RFC 9260 (SCTP) as a middlebox sees them; the states are
//! those of Linux (`net/netfilter/nf_conntrack_proto_{tcp,sctp}.c`).

mod attach;
mod batch;
mod candidates;
mod facts;
mod insert;
mod layout;
mod quota;
mod related;
mod sctp;
mod state;
mod storage;
mod sweep;
mod table;
mod tcp;
#[cfg(test)]
mod tests;
mod window;

pub use batch::BATCH;
pub(crate) use batch::{PackedEpochs, Probe};
pub use facts::{Facts, IcmpFacts, SctpFacts, TcpFacts, TcpFlags};
pub(crate) use layout::keyed_hash;
pub use state::{State, Timeouts};
pub use storage::{AtomicU64, Storage, heap};
pub use table::Table;

use crate::counters::RuleCounters;
use crate::snapshot::{Epoch, Incarnation, PortId};
use crate::{Address, FlowKey, SocketAddress, Time, Verdict};

/// What a [`Table`] is made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Connections, 1 to [`Settings::MAX_CAPACITY`].
    pub capacity: u32,
    /// Connections that one endpoint may have in the table: those it initiates, and those that
    /// come to it from outside. At the bound: `conntrack_quota`.
    pub quota_per_endpoint: u32,
    /// Endpoints alive at once, at most; sizes the quota's counters. Beyond four times as many, a
    /// new endpoint's connections may be refused as `conntrack_quota`.
    pub endpoints: u32,
    /// Idle time-outs by state.
    pub timeouts: Timeouts,
    /// Whether TCP segments outside the window are invalid.
    pub strict_tcp: bool,
    /// Secret of the hash, random per table, so that nobody can aim at one bucket.
    pub hash_seed: [u64; 2],
}

impl Settings {
    /// The largest `capacity`.
    pub const MAX_CAPACITY: u32 = 1 << 24;
    /// The largest `endpoints`.
    pub const MAX_ENDPOINTS: u32 = 1 << 16;
}

/// Who stands at the ends of one packet, and where it came in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ends {
    /// The local endpoint that the packet's source address belongs to.
    pub source: Incarnation,
    /// The local endpoint that the packet's destination address belongs to.
    pub destination: Incarnation,
    /// The port that the packet came in by.
    pub ingress: PortId,
}

/// The epochs under which a connection was decided, in its initiator's orientation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Epochs {
    /// Of the initiator's endpoint, [`Epoch::NONE`] if it is not local.
    pub source: Epoch,
    /// Of the other end.
    pub destination: Epoch,
}

impl Epochs {
    /// Whether either end's epoch came after the one in `other`.
    pub const fn is_newer_than(self, other: Epochs) -> bool {
        self.source.is_newer_than(other.source) || self.destination.is_newer_than(other.destination)
    }

    /// The same with the ends exchanged.
    pub const fn reversed(self) -> Epochs {
        Epochs {
            source: self.destination,
            destination: self.source,
        }
    }
}

/// An entry at one moment of its life. Void as soon as the entry is removed or replaced.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Handle {
    entry: u32,
    bucket: u32,
    version: u16,
}

impl Handle {
    /// The slot of the table that the entry is in.
    pub const fn slot(self) -> u32 {
        self.entry
    }
}

/// What [`Table::lookup`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hit {
    /// The entry.
    pub handle: Handle,
    /// Whether the packet goes the initiator's way.
    pub original_direction: bool,
    /// What was decided for the connection.
    pub verdict: Verdict,
    /// Whether the connection is DENIED: `!verdict.accept`.
    pub denied: bool,
    /// The counters of what decided. After a take-over they are nobody's until it is decided again.
    pub counters: RuleCounters,
    /// When it was decided, in the *initiator's* orientation, as [`Table::redecide`] takes them.
    pub epochs: Epochs,
    /// Where the connection stands.
    pub state: State,
    /// Where the initiator's packets come in.
    pub ingress: PortId,
    /// Of a translated connection what is to be done with its packets.
    pub translated: Option<Translated>,
}

/// What conntrack says of a packet. INVALID is a
/// [`DropReason::ConntrackInvalid`](crate::DropReason::ConntrackInvalid).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// Opens a connection, or opens it anew (SYN on a DENIED or closing entry, INIT on a closed
    /// one): decide as if there were no entry, in this packet's orientation, then insert.
    New,
    /// Belongs to a connection and goes the initiator's way.
    Established,
    /// Belongs to a connection and goes back to the initiator.
    Reply,
}

/// How a connection's packets are rewritten on their way: the initiator asks for `service`, what
/// answers is the entry's other end, and knows the initiator as `source`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Translation {
    /// What the initiator's packets are addressed to, and where those that it gets come from.
    pub service: SocketAddress,
    /// Where the other end sees the initiator's packets come from, if not from the initiator.
    pub source: Option<SocketAddress>,
}

impl Translation {
    /// A flow that is translated like this, as its initiator's packets show it: `flow` is as policy
    /// judges it, from the initiator to the one that answers.
    pub const fn outer(&self, flow: &FlowKey) -> FlowKey {
        flow.with_receiver(self.service)
    }

    /// Whether it is a Service's: else the connection only has another source port, because its own
    /// is in use.
    pub fn is_service(&self, flow: &FlowKey) -> bool {
        self.service != flow.receiver()
    }

    /// The same as the packets show it that the other end gets.
    pub const fn inner(&self, flow: &FlowKey) -> FlowKey {
        match self.source {
            Some(source) => flow.with_sender(source),
            None => *flow,
        }
    }
}

/// What is to be done with the packets of a translated connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translated {
    /// The flow as policy judges it, in the initiator's orientation.
    pub flow: FlowKey,
    /// Between whom, in the initiator's orientation. [`Table::lookup`] has compared the end that sent
    /// the packet; whether the other address still belongs to that endpoint, the caller has to see.
    pub ends: Ends,
    /// How its packets are rewritten.
    pub translation: Translation,
}

/// An entry to be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewEntry {
    /// As the first packet shows it; of a connection to be translated as policy judges it.
    pub key: FlowKey,
    /// How the connection's packets are to be rewritten, if they are.
    pub translation: Option<Translation>,
    /// Of the first packet; of a connection to be translated, of those whom policy judges.
    pub ends: Ends,
    /// What policy decided; a denial makes a DENIED entry.
    pub verdict: Verdict,
    /// The counters of what decided.
    pub counters: RuleCounters,
    /// Of both ends, in the first packet's orientation.
    pub epochs: Epochs,
    /// The first packet's.
    pub facts: Facts,
}

/// What became of [`Table::insert`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Inserted {
    /// The entry is in the table.
    New(Handle),
    /// Another worker made an entry for this connection meanwhile, perhaps in the other
    /// orientation. Look it up and treat the packet as a hit.
    Raced(Handle),
    /// Another connection's packets look like those that the other end would get or send: this one
    /// needs another source port.
    Taken,
}

/// What became of [`Table::redecide`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Redecided {
    /// The verdict stands in the entry.
    Stored {
        /// The counters that stood there.
        before: RuleCounters,
    },
    /// A verdict of the same or a newer epoch stands there already: follow it.
    Newer {
        /// That verdict.
        verdict: Verdict,
        /// The counters of what decided.
        counters: RuleCounters,
    },
    /// The entry is gone. Look up again.
    Gone,
    /// The bucket stayed locked. Apply the verdict to this packet; the next one tries again.
    Busy,
}

/// The packet quoted by an ICMP error, and the error's own ends (semantics D4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IcmpError {
    /// The quoted packet's key, as quoted.
    pub inner: FlowKey,
    /// The local endpoint at `inner.source`.
    pub inner_source: Incarnation,
    /// The local endpoint at `inner.destination`.
    pub inner_destination: Incarnation,
    /// Who sends the error: the local endpoint behind its ingress port, none for the node and the
    /// outside.
    pub sender: Incarnation,
    /// Where the error goes.
    pub destination: Address,
    /// The quoted TCP sequence number.
    pub tcp_sequence: Option<u32>,
    /// The MTU that the error announces, octets.
    pub mtu: Option<u32>,
}

/// An entry as `weir get conntrack` shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The entry.
    pub handle: Handle,
    /// In the initiator's orientation, as policy judges it: of a translated connection the
    /// initiator's own address and the backend's.
    pub key: FlowKey,
    /// How its packets are rewritten, if they are.
    pub translation: Option<Translation>,
    /// In the initiator's orientation.
    pub ends: Ends,
    /// What was decided.
    pub verdict: Verdict,
    /// The counters of what decided.
    pub counters: RuleCounters,
    /// In the initiator's orientation.
    pub epochs: Epochs,
    /// Where the connection stands.
    pub state: State,
    /// Since when it has been in the table, to about 0.13 s.
    pub created: Time,
    /// Last packet that kept it alive, to about 0.7 s.
    pub last_seen: Time,
    /// Seconds of silence after which it goes.
    pub timeout_s: u32,
}

/// What happened in the table since this process opened it, and how full it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Entries now.
    pub entries: u64,
    /// Entries made.
    pub inserted: u64,
    /// Entries that went because they were idle.
    pub expired: u64,
    /// Unreplied or closed entries that went to make room.
    pub evicted: u64,
    /// Entries replaced by a new connection of the same tuple.
    pub replaced: u64,
    /// Entries removed with their endpoint, or by hand.
    pub removed: u64,
    /// Verdicts renewed.
    pub redecided: u64,
    /// Insertions that found another worker's entry.
    pub raced: u64,
    /// Insertions refused: table full.
    pub full: u64,
    /// Insertions refused: the endpoint's share is used up.
    pub quota: u64,
    /// Insertions and decisions given up: bucket locked.
    pub busy: u64,
}

/// What [`Table::expire`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expired {
    /// Where to go on; 0 when the table's end was reached.
    pub cursor: u32,
    /// Entries removed.
    pub removed: u32,
}

/// What [`Table::attach`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attached {
    /// Connections that go on.
    pub kept: u32,
    /// Entries dropped because they were torn, contradictory or idle too long.
    pub discarded: u32,
}

/// Why a table cannot be made or taken over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TableError {
    /// Too little memory.
    #[error("conntrack storage holds {words} words, {needed} are needed: enlarge it")]
    TooSmall {
        /// Words there are.
        words: usize,
        /// Words needed ([`Table::words`]).
        needed: usize,
    },
    /// `capacity` or `endpoints` is out of range.
    #[error("conntrack {what} {value} is out of range 1 to {max}")]
    Range {
        /// Which setting.
        what: &'static str,
        /// Its value.
        value: u32,
        /// The largest allowed.
        max: u32,
    },
    /// The memory holds no table of this layout: make a new one.
    #[error(
        "conntrack storage holds no table of layout {expected:#x} but {found:#x}: start afresh"
    )]
    Layout {
        /// This program's layout.
        expected: u64,
        /// The first word.
        found: u64,
    },
    /// The table in memory has another size than the settings ask for: make a new one.
    #[error(
        "conntrack table was made for {found} {what}, settings ask for {expected}: start afresh"
    )]
    Size {
        /// Which setting.
        what: &'static str,
        /// What the settings ask for.
        expected: u64,
        /// What the table has.
        found: u64,
    },
}
