//! Counters, those of rules too: one shard per worker, summed when somebody asks.
//!
//! A shard has one writer, its worker, so that counting is a load, an add and a store, all relaxed:
//! no read-modify-write on the packet path, no shared cache line. Readers sum the shards; a sum is
//! not a snapshot of one instant, but no count is ever lost or decreases.
//!
//! The account that must balance, for every worker and for their sum, once nothing is under way and
//! no fragment is held:
//! `received == transmitted + answered + Σ dropped` (ICMP errors we originate are made of packets
//! that count as dropped).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use crate::{DropReason, snapshot::PortId};

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal;)*) => {
        /// What is counted besides drops. The order is that of [`Counter::ALL`].
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Counter {
            $($(#[doc = $doc])* $name,)*
        }

        impl Counter {
            /// Every counter.
            pub const ALL: &'static [Counter] = &[$(Counter::$name),*];

            /// The name in metrics and `weir status`, without prefix and suffix.
            pub const fn name(self) -> &'static str {
                match self { $(Counter::$name => $text,)* }
            }

            /// One line for people.
            pub const fn help(self) -> &'static str {
                match self { $(Counter::$name => concat!($($doc),*),)* }
            }
        }
    };
}

counters! {
    /// Packets taken from receive rings.
    Received = "received_packets";
    /// Their bytes, Ethernet header included.
    ReceivedBytes = "received_bytes";
    /// Packets handed to transmit rings and forwarded as what they are.
    Transmitted = "transmitted_packets";
    /// Their bytes.
    TransmittedBytes = "transmitted_bytes";
    /// Packets answered in place: ARP and neighbour solicitations for a gateway.
    Answered = "answered_packets";
    /// ICMP errors and TCP resets we made of packets that could not go on. Each such packet counts as
    /// dropped too.
    Originated = "originated_icmp_errors";
    /// New flows that policy accepted.
    FlowsAccepted = "flows_accepted";
    /// New flows that policy denied.
    FlowsDenied = "flows_denied";
    /// New flows that policy was asked about, those that found no room in the table too.
    FlowDecisions = "flow_decisions";
    /// Packets that passed without an entry, because no tier may deny anything at either end (D15).
    Untracked = "untracked_packets";
    /// Entries decided again under newer policy.
    Redecided = "flows_redecided";
    /// Of those, accepted before and denied now.
    RedecidedDenied = "flows_cut";
    /// TCP flows adopted without their SYN, in the adoption window (D21).
    Adopted = "flows_adopted";
    /// ICMP errors passed because they belong to a flow (D4).
    Related = "related_icmp_errors";
    /// New connections to Services for which a backend was chosen.
    ServiceConnections = "service_connections";
    /// Connections that got another source port, because their own was in use or is not ours.
    SourcePortsGiven = "source_ports_given";
    /// Clients' bonds with a backend that were given up before their time, for lack of room.
    AffinityDisplaced = "affinity_displaced";
    /// Fragments received.
    Fragments = "fragments";
    /// Of those, the ones that were held because they came ahead of their datagram's first.
    FragmentsHeld = "fragments_held";
    /// MSS options lowered.
    MssClamped = "mss_clamped";
    /// Checksums completed in software.
    ChecksumsCompleted = "checksums_completed";
    /// Decisions of flows that the policies in audit mode would have decided otherwise.
    FlowsAudited = "flows_audited";
    /// New flows chosen for the self-check, those that did not fit the queue too.
    FlowsSampled = "flows_sampled";
    /// Of those, the ones that did not fit the queue.
    SamplesLost = "samples_lost";
    /// Events that did not fit the queue.
    EventsLost = "events_lost";
    /// Bursts processed.
    Bursts = "bursts";
    /// Times the worker went to sleep.
    Sleeps = "sleeps";
    /// Turns that queues with many new flows gave up for others.
    TurnsGivenUp = "turns_given_up";
    /// Nanoseconds of rounds that had packets.
    BusyNanoseconds = "busy_nanoseconds";
}

/// What is counted per port.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PortTotals {
    /// Packets received from the port.
    pub received: u64,
    /// Bytes received from it.
    pub received_bytes: u64,
    /// Packets sent to it.
    pub transmitted: u64,
    /// Bytes sent to it.
    pub transmitted_bytes: u64,
    /// Packets from it that were dropped, by whatever reason.
    pub dropped: u64,
}

const PORT_COUNTERS: usize = 5;

/// A rule's counter, or that of a policy's default denials, or a compound one of several of these:
/// an index into every worker's counters, given by control.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct CounterId(pub u32);

impl CounterId {
    /// What has no counter of its own: defaults that no policy made, and rules beyond the counters
    /// there are.
    pub const NONE: CounterId = CounterId(0);
    /// The largest number, so that two of them fit a connection's word.
    pub const MAX: u32 = (1 << 24) - 1;
}

/// The counters of what decided a flow: its source's egress and its destination's ingress.
/// [`CounterId::NONE`] where a direction had no say.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct RuleCounters {
    /// Of the source's egress.
    pub egress: CounterId,
    /// Of the destination's ingress.
    pub ingress: CounterId,
}

/// What a rule, or a policy's default denial, has decided so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RuleHits {
    /// Connections: one when a connection is decided, and one when a later decision of a live
    /// connection comes to this rule from another.
    pub connections: u64,
    /// Packets of these connections in either direction, the first ones and dropped ones too.
    pub packets: u64,
}

/// A rule's two words: side by side, so that the first packet of a flow touches one cache line.
#[derive(Debug, Default)]
struct RuleWords {
    connections: AtomicU64,
    packets: AtomicU64,
}

/// One worker's counters.
#[derive(Debug)]
pub struct CounterShard {
    counters: Box<[AtomicU64]>,
    /// By reason; what came from pods in the second half.
    drops: Box<[AtomicU64]>,
    /// By port number, whether a pod is behind it.
    pods: Box<[AtomicBool]>,
    ports: Box<[AtomicU64]>,
    rules: Box<[RuleWords]>,
}

fn zeroes(count: usize) -> Box<[AtomicU64]> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

/// Adds to a word that only this thread writes.
#[inline]
fn bump(word: &AtomicU64, amount: u64) {
    word.store(
        word.load(Ordering::Relaxed).wrapping_add(amount),
        Ordering::Relaxed,
    );
}

impl CounterShard {
    /// Counters at zero for ports numbered below `ports_max` and rules whose [`CounterId`] is below
    /// `rules_max`; hits of other rules count into [`CounterId::NONE`], which there always is.
    pub fn new(ports_max: u16, rules_max: u32) -> CounterShard {
        CounterShard {
            counters: zeroes(Counter::ALL.len()),
            drops: zeroes(2 * DropReason::COUNT),
            pods: (0..ports_max).map(|_| AtomicBool::new(false)).collect(),
            ports: zeroes(usize::from(ports_max) * PORT_COUNTERS),
            rules: (0..rules_max.clamp(1, CounterId::MAX + 1))
                .map(|_| RuleWords::default())
                .collect(),
        }
    }

    /// Adds `amount` to a counter. Only the shard's worker may call this.
    #[inline]
    pub fn add(&self, counter: Counter, amount: u64) {
        bump(&self.counters[counter as usize], amount);
    }

    /// A counter's value. What the shard's worker reads is exact.
    pub fn count(&self, counter: Counter) -> u64 {
        self.counters[counter as usize].load(Ordering::Relaxed)
    }

    /// Counts a packet received from `port`.
    #[inline]
    pub fn received(&self, port: PortId, bytes: usize) {
        self.received_all(port, 1, bytes as u64);
    }

    /// Counts `packets` received from `port`, of so many `bytes` together.
    #[inline]
    pub fn received_all(&self, port: PortId, packets: u64, bytes: u64) {
        self.add(Counter::Received, packets);
        self.add(Counter::ReceivedBytes, bytes);
        self.add_port(port, 0, packets);
        self.add_port(port, 1, bytes);
    }

    /// Counts a packet forwarded to `port`.
    #[inline]
    pub fn transmitted(&self, port: PortId, bytes: usize) {
        self.add(Counter::Transmitted, 1);
        self.add(Counter::TransmittedBytes, bytes as u64);
        self.add_port(port, 2, 1);
        self.add_port(port, 3, bytes as u64);
    }

    /// Counts a drop of a packet that came from `port`.
    pub fn dropped(&self, port: PortId, reason: DropReason) {
        let pod = self.pods.get(usize::from(port.0));
        let half = match pod.is_some_and(|pod| pod.load(Ordering::Relaxed)) {
            true => DropReason::COUNT,
            false => 0,
        };
        bump(&self.drops[half + reason as usize], 1);
        self.add_port(port, 4, 1);
    }

    /// Counts a packet for what decided its flow.
    #[inline]
    pub fn rule_packet(&self, counters: RuleCounters) {
        for counter in [counters.egress, counters.ingress] {
            bump(&self.rule(counter).packets, 1);
        }
    }

    /// Counts a connection for a rule that decided it.
    pub fn rule_connection(&self, counter: CounterId) {
        bump(&self.rule(counter).connections, 1);
    }

    #[inline]
    fn rule(&self, counter: CounterId) -> &RuleWords {
        let index = counter.0 as usize;
        // The slice is never empty.
        &self.rules[if index < self.rules.len() { index } else { 0 }]
    }

    #[inline]
    fn add_port(&self, port: PortId, which: usize, amount: u64) {
        // A port beyond the table exists only if control made a mistake; the sums stay right.
        if let Some(word) = self.ports.get(usize::from(port.0) * PORT_COUNTERS + which) {
            bump(word, amount);
        }
    }
}

/// Sums over shards.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Totals {
    counters: Vec<u64>,
    drops: Vec<u64>,
    ports: Vec<PortTotals>,
}

impl Totals {
    /// The sum over `shards`.
    pub fn of<'a>(shards: impl IntoIterator<Item = &'a CounterShard>) -> Totals {
        let mut totals = Totals {
            counters: vec![0; Counter::ALL.len()],
            drops: vec![0; 2 * DropReason::COUNT],
            ports: Vec::new(),
        };
        for shard in shards {
            add_words(&mut totals.counters, &shard.counters);
            add_words(&mut totals.drops, &shard.drops);
            let ports = shard.ports.len() / PORT_COUNTERS;
            if totals.ports.len() < ports {
                totals.ports.resize(ports, PortTotals::default());
            }
            for (sum, words) in totals
                .ports
                .iter_mut()
                .zip(shard.ports.chunks(PORT_COUNTERS))
            {
                let [
                    received,
                    received_bytes,
                    transmitted,
                    transmitted_bytes,
                    dropped,
                ] = words
                else {
                    continue;
                };
                sum.received += received.load(Ordering::Relaxed);
                sum.received_bytes += received_bytes.load(Ordering::Relaxed);
                sum.transmitted += transmitted.load(Ordering::Relaxed);
                sum.transmitted_bytes += transmitted_bytes.load(Ordering::Relaxed);
                sum.dropped += dropped.load(Ordering::Relaxed);
            }
        }
        totals
    }

    /// A counter's sum.
    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters[counter as usize]
    }

    /// Packets dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped_of(reason, true) + self.dropped_of(reason, false)
    }

    /// Packets dropped for `reason` that came from pods, or that did not.
    pub fn dropped_of(&self, reason: DropReason, from_pods: bool) -> u64 {
        let half = if from_pods { DropReason::COUNT } else { 0 };
        self.drops[half + reason as usize]
    }

    /// Packets dropped for any reason.
    pub fn dropped_total(&self) -> u64 {
        self.drops.iter().sum()
    }

    /// A port's sums since its number was first used.
    pub fn port(&self, port: PortId) -> PortTotals {
        self.ports
            .get(usize::from(port.0))
            .copied()
            .unwrap_or_default()
    }

    /// Received packets that are not accounted for: those under way and fragments held, else 0.
    pub fn unaccounted(&self) -> i128 {
        i128::from(self.counter(Counter::Received))
            - i128::from(self.counter(Counter::Transmitted))
            - i128::from(self.counter(Counter::Answered))
            - i128::from(self.dropped_total())
    }
}

fn add_words(sums: &mut [u64], words: &[AtomicU64]) {
    for (sum, word) in sums.iter_mut().zip(words) {
        *sum += word.load(Ordering::Relaxed);
    }
}

/// All workers' counters.
#[derive(Debug)]
pub struct Counters {
    shards: Box<[CachePadded<CounterShard>]>,
}

impl Counters {
    /// Says whether a pod is behind a port, so that drops are told apart by where packets came from.
    pub fn set_pod(&self, port: PortId, is_pod: bool) {
        for shard in &self.shards {
            if let Some(pod) = shard.pods.get(usize::from(port.0)) {
                pod.store(is_pod, Ordering::Relaxed);
            }
        }
    }

    /// A shard for each of `workers`, see [`CounterShard::new`].
    pub fn new(workers: usize, ports_max: u16, rules_max: u32) -> Counters {
        Counters {
            shards: (0..workers)
                .map(|_| CachePadded::new(CounterShard::new(ports_max, rules_max)))
                .collect(),
        }
    }

    /// One worker's shard; none beyond the workers there are.
    pub fn shard(&self, worker: usize) -> Option<&CounterShard> {
        self.shards.get(worker).map(|shard| &**shard)
    }

    /// The sum over all workers.
    pub fn totals(&self) -> Totals {
        Totals::of(self.shards.iter().map(|shard| &**shard))
    }

    /// Writes the hits of as many rules as `hits` has room for, from `first` on, into `hits`, summed
    /// over all workers; what is beyond the counters there are becomes zero. Allocates nothing, and
    /// reads 16 bytes a rule and worker.
    pub fn rule_hits(&self, first: CounterId, hits: &mut [RuleHits]) {
        hits.fill(RuleHits::default());
        for shard in &self.shards {
            let words = shard.rules.iter().skip(first.0 as usize);
            for (sum, words) in hits.iter_mut().zip(words) {
                sum.connections += words.connections.load(Ordering::Relaxed);
                sum.packets += words.packets.load(Ordering::Relaxed);
            }
        }
    }

    /// The hits of one rule, summed over all workers; zero beyond the counters there are.
    pub fn hits_of(&self, counter: CounterId) -> RuleHits {
        let mut sum = RuleHits::default();
        for shard in &self.shards {
            if let Some(words) = shard.rules.get(counter.0 as usize) {
                sum.connections += words.connections.load(Ordering::Relaxed);
                sum.packets += words.packets.load(Ordering::Relaxed);
            }
        }
        sum
    }

    /// Rule counters there are, [`CounterId::NONE`] among them.
    pub fn rules_max(&self) -> u32 {
        let rules = self.shards.first().map_or(1, |shard| shard.rules.len());
        rules as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever reads meanwhile sees sums that only rise, and in the end all of it.
    #[test]
    fn sums_rise_while_workers_count_and_miss_nothing() {
        const PACKETS: u64 = 20_000;
        const WORKERS: usize = 3;
        let counters = Counters::new(WORKERS, 4, 8);
        let rules = RuleCounters {
            egress: CounterId(3),
            ingress: CounterId(5),
        };
        std::thread::scope(|scope| {
            let count = |shard: &CounterShard| {
                for _ in 0..PACKETS {
                    shard.received(PortId(2), 100);
                    shard.rule_packet(rules);
                    shard.dropped(PortId(2), DropReason::NoRoute);
                }
            };
            let workers: Vec<_> = counters
                .shards
                .iter()
                .map(|shard| scope.spawn(move || count(shard)))
                .collect();
            let mut last = (0, 0, 0);
            while !workers.iter().all(|worker| worker.is_finished()) {
                let totals = counters.totals();
                let now = (
                    totals.counter(Counter::Received),
                    totals.dropped(DropReason::NoRoute),
                    counters.hits_of(rules.egress).packets,
                );
                assert!(now.0 >= last.0 && now.1 >= last.1 && now.2 >= last.2);
                last = now;
            }
        });
        let (totals, all) = (counters.totals(), PACKETS * WORKERS as u64);
        assert_eq!(totals.port(PortId(2)).received_bytes, 100 * all);
        assert_eq!((totals.unaccounted(), totals.dropped_total()), (0, all));
        let hits = RuleHits {
            connections: 0,
            packets: all,
        };
        assert_eq!(counters.hits_of(rules.egress), hits);
        assert_eq!(counters.hits_of(rules.ingress), hits);
    }
}
