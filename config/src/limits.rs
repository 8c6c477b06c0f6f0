//! Every bound of the daemon: its default, and where it can be set, its range.
//!
//! What happens at a bound is said where the bound is: nothing is unbounded and nothing fails
//! open.

use std::ops::RangeInclusive;

use crate::PortRange;

/// UMEM chunks. 250 idle pods park 8,000 of them; the others are for traffic, at 60,000 bytes some
/// 200 packets. At 4096 bytes each the default is 44 MiB of memory and, per bound queue,
/// 128 bytes of kernel memory a chunk. At the bound a packet is dropped as `no_frame`.
pub const UMEM_CHUNKS: u32 = 11_264;
/// Range of `umem.chunks`.
pub const UMEM_CHUNKS_RANGE: RangeInclusive<u32> = 512..=1 << 20;
/// Bytes of a UMEM chunk: 2048 or 4096 (the kernel takes no other aligned size).
pub const UMEM_CHUNK_BYTES: u32 = 4096;

/// Connections the table holds. At the bound unreplied entries go first, then new flows that a
/// policy may deny are dropped as `conntrack_full`.
/// Takes 140 MiB of memory, reserved at the start.
pub const CONNTRACK_CAPACITY: u32 = 1_000_000;
/// Range of `conntrack.capacity`.
pub const CONNTRACK_CAPACITY_RANGE: RangeInclusive<u32> = 1 << 10..=1 << 24;
/// Share of the table, in percent, that one endpoint can use. At the bound: `conntrack_quota`.
pub const CONNTRACK_QUOTA_PERCENT: u32 = 25;
/// Range of `conntrack.quota_percent`.
pub const CONNTRACK_QUOTA_PERCENT_RANGE: RangeInclusive<u32> = 1..=100;
/// Seconds after a first start, or after a lost table, in which TCP without a SYN is adopted.
pub const ADOPTION_WINDOW_S: u32 = 30;
/// Range of `conntrack.adoption_window_s`.
pub const ADOPTION_WINDOW_RANGE_S: RangeInclusive<u32> = 0..=3600;
/// Range of every `conntrack.timeouts` key.
pub const TIMEOUT_RANGE_S: RangeInclusive<u32> = 1..=7 * 24 * 3600;

/// Endpoints and other ports together. At the bound `endpoint.add` is refused.
pub const PORTS: u32 = 512;
/// Range of `max_ports`.
pub const PORTS_RANGE: RangeInclusive<u32> = 8..=4096;
/// Host bits of a range of `services.ranges`, as the API server takes them: 8 to 1,048,576 addresses.
/// At the bound a new Service that wants an address is refused.
pub const SERVICE_RANGE_BITS: RangeInclusive<u8> = 3..=20;
/// Node ports. At the bound a new Service that wants one is refused.
pub const NODE_PORTS: PortRange = PortRange {
    first: 30_000,
    last: 32_767,
};
/// Microseconds for which a worker polls on behind its last packet, at most: about twice what waking
/// it takes on a virtual machine.
pub const POLL_WINDOW_US: u32 = 200;
/// Range of `polling.window_max_us`.
pub const POLL_WINDOW_RANGE_US: RangeInclusive<u32> = 0..=1_000_000;
/// Receive queues of one interface that are driven at most; what comes for pods by further ones is
/// dropped. Range of `uplinks.queues`.
pub const UPLINK_QUEUES_RANGE: RangeInclusive<u32> = 1..=64;
/// Workers, each on a core of its own.
pub const WORKERS_RANGE: RangeInclusive<usize> = 1..=32;

/// Clients of the control socket at once. One more is told so and closed.
pub const CLIENTS: u32 = 64;
/// Range of `limits.clients`.
pub const CLIENTS_RANGE: RangeInclusive<u32> = 1..=1024;
/// Bytes of one request line. A longer one is answered with an error and its client closed.
pub const MESSAGE_BYTES: u32 = 32 << 20;
/// Range of `limits.message_bytes`.
pub const MESSAGE_BYTES_RANGE: RangeInclusive<u32> = 64 << 10..=256 << 20;
/// Bytes of replies and notifications waiting for one client. A client that lets more gather is
/// closed; one that merely is slow is not read from until it has taken what waits.
pub const OUTPUT_BYTES: u32 = 64 << 20;
/// Range of `limits.output_bytes`.
pub const OUTPUT_BYTES_RANGE: RangeInclusive<u32> = 64 << 10..=512 << 20;
/// Seconds that a request may stay half sent before its client is closed.
pub const HALF_MESSAGE_S: u32 = 30;
/// Range of `limits.half_message_s`.
pub const HALF_MESSAGE_RANGE_S: RangeInclusive<u32> = 1..=3600;
/// Watches of one client.
pub const WATCHES_PER_CLIENT: usize = 64;
/// Objects in the store. At the bound an `apply` that would add one is refused.
pub const OBJECTS: u32 = 100_000;
/// Range of `limits.objects`.
pub const OBJECTS_RANGE: RangeInclusive<u32> = 100..=1_000_000;

/// CustomResourceDefinitions in the store. At the bound another is refused.
pub const DEFINITIONS: usize = 1000;
/// Kinds that CustomResourceDefinitions have defined since the daemon's start, each in one version;
/// some hundred bytes of each stay until its end. At the bound a definition of a further one is refused.
pub const CUSTOM_KINDS: usize = 10_000;
/// Bytes of a CustomResourceDefinition, and of an object of a kind that one defines, with what defaults
/// add: as many as etcd takes. At the bound it is refused.
pub const CUSTOM_OBJECT_BYTES: usize = 3 << 19;
/// Comparisons of a value with a part of its schema, for one object. At the bound the object is refused.
pub const SCHEMA_STEPS: u32 = 2_000_000;

/// Datagrams that come in fragments at once, each about 1.8 KiB of memory. At the bound the fragments
/// of a further one are dropped as `fragment_table_full`.
pub const FRAGMENT_DATAGRAMS: u32 = 1024;
/// Range of `limits.fragment_datagrams`.
pub const FRAGMENT_DATAGRAMS_RANGE: RangeInclusive<u32> = 16..=1 << 16;
/// Frames that are held because their datagram's first fragment has not come, of all workers
/// together; never more than an eighth of `umem.chunks`. At the bound: `fragment_table_full`.
pub const FRAGMENT_FRAMES: u32 = 512;
/// Range of `limits.fragment_frames`; with 0 the first fragment has to come first.
pub const FRAGMENT_FRAMES_RANGE: RangeInclusive<u32> = 0..=1 << 16;
/// Share of both, in percent, that comes in by one port. At the bound: `fragment_quota`.
pub const FRAGMENT_PORT_PERCENT: u32 = 25;
/// Range of `limits.fragment_port_percent`.
pub const FRAGMENT_PORT_PERCENT_RANGE: RangeInclusive<u32> = 1..=100;
/// Fragments of one datagram: enough for the longest one over a link of IPv6's least MTU. At the
/// bound the datagram is dropped as `fragment_pieces`.
pub const FRAGMENT_PIECES: u32 = 64;
/// Range of `limits.fragment_pieces`.
pub const FRAGMENT_PIECES_RANGE: RangeInclusive<u32> = 2..=128;
/// Clients that stay with their backend (`sessionAffinity: ClientIP`), of all Services together, about.
/// At the bound the bond that would end first is given up, counted as `affinity_displaced`.
pub const AFFINITY_CLIENTS: u32 = 1 << 14;
/// Range of `limits.affinity_clients`.
pub const AFFINITY_CLIENTS_RANGE: RangeInclusive<u32> = 8..=1 << 20;
/// Milliseconds that a datagram may wait for its first fragment, and after that for each further one:
/// senders send them one right after the other. What comes later is dropped as `fragment_timeout`.
pub const FRAGMENT_TIMEOUT_MS: u32 = 1000;
/// Range of `limits.fragment_timeout_ms`.
pub const FRAGMENT_TIMEOUT_RANGE_MS: RangeInclusive<u32> = 10..=60_000;

/// Counters of rule hits, each 16 bytes for every worker. At the bound further rules count together,
/// under no name.
pub const RULE_COUNTERS: u32 = 1 << 16;
/// Range of `limits.rule_counters`.
pub const RULE_COUNTERS_RANGE: RangeInclusive<u32> = 1..=1 << 24;
/// Counters of rules that have a part in one decision together: a security group's rule, `Pass`
/// rules, and what decides. Each takes 16 bytes for every worker. At the bound what decides is
/// counted alone, and the other rules are shown as not counted.
pub const COMPOUND_COUNTERS: u32 = 1 << 16;
/// Range of `limits.compound_counters`.
pub const COMPOUND_COUNTERS_RANGE: RangeInclusive<u32> = 0..=(1 << 24) - 1;
/// Counters of both kinds together, at most.
pub const COUNTERS: u32 = 1 << 24;

/// Bytes of one denial log file before it is rotated.
pub const LOG_FILE_BYTES: u64 = 10 << 20;
/// Range of `log.file_bytes`.
pub const LOG_FILE_BYTES_RANGE: RangeInclusive<u64> = 4 << 10..=1 << 32;
/// Rotated denial log files kept beside the live one.
pub const LOG_FILES: u32 = 3;
/// Range of `log.files`.
pub const LOG_FILES_RANGE: RangeInclusive<u32> = 0..=100;
/// Denied flows remembered for aggregation. Beyond it a repeated denial is written again.
pub const LOG_FLOWS: usize = 8192;
/// Seconds over which denials of one flow make one line.
pub const LOG_AGGREGATION_S: u32 = 10;
/// Range of `log.aggregation_s`.
pub const LOG_AGGREGATION_RANGE_S: RangeInclusive<u32> = 1..=3600;
/// Lines a second that the denial log writes at most; what is beyond it is counted as lost.
pub const LOG_LINES_PER_SECOND: u32 = 10_000;

/// Flows of the recent past that `weir observe --last` can show; the oldest go.
pub const OBSERVED_FLOWS: usize = 4096;
/// Flows a second that observers are told of at most; what is beyond it is counted, and they are
/// told how many.
pub const OBSERVED_FLOWS_PER_SECOND: u32 = 20_000;

/// Captures at once, of all clients. One more is refused.
pub const CAPTURES: usize = 8;
/// Bytes of packets that each worker can have waiting for the control thread while somebody captures;
/// reserved only then. What does not fit is counted, and they are told how many.
pub const CAPTURE_RING_BYTES: usize = 4 << 20;
/// Packets of each worker that the control thread takes in one turn, so that others have theirs.
pub const CAPTURE_RECORDS_PER_TURN: usize = 1024;
/// Milliseconds between two such turns.
pub const CAPTURE_TURN_MS: u64 = 10;
/// Bytes of packets after which a message is sent to who captures.
pub const CAPTURE_MESSAGE_BYTES: usize = 128 << 10;
/// Bytes of a packet that can be captured: from what its headers take to all there can be.
pub const CAPTURE_SNAPLEN_RANGE: RangeInclusive<u32> = 128..=262_144;

/// Policies that metrics name each for itself, those with the lowest numbers; the others are summed
/// up under empty names.
pub const METRIC_POLICIES: usize = 1000;
/// Rules that metrics name each for itself, those with the lowest counters; the others are summed up
/// under empty names.
pub const METRIC_RULES: usize = 2000;

/// New flows of which one is decided again by the specification.
pub const SAMPLE_ONE_IN: u32 = 64;
/// Range of `self_check.sample_one_in`; 0 is none at all.
pub const SAMPLE_ONE_IN_RANGE: RangeInclusive<u32> = 0..=1 << 20;
/// Samples a second that are decided again at most; what is beyond it is skipped and counted.
pub const SAMPLES_PER_SECOND: u32 = 1000;
/// Range of `self_check.samples_per_second`.
pub const SAMPLES_PER_SECOND_RANGE: RangeInclusive<u32> = 1..=1_000_000;
/// Percent of one core that the self-check uses at most: behind each sample it rests as much
/// longer. While it rests samples wait, and those that find no room are skipped and counted.
pub const SELF_CHECK_CPU_PERCENT: u32 = 5;
/// Range of `self_check.cpu_percent`.
pub const SELF_CHECK_CPU_PERCENT_RANGE: RangeInclusive<u32> = 1..=100;
/// Samples that wait to be decided again.
pub const SELF_CHECK_QUEUE: usize = 1024;
/// Generations whose objects are kept for the self-check. A sample of an older one is skipped.
pub const SELF_CHECK_GENERATIONS: usize = 64;
/// Disagreements whose objects are written to the state directory; later ones are only logged.
pub const SELF_CHECK_FILES: usize = 4;

/// Milliseconds after which the journal's newest line is brought to disk (fdatasync): together with
/// the time that takes less than a second. A change is written before it is live, and outlives the
/// daemon from then on; a machine that loses power may lose this much.
pub const JOURNAL_SYNC_MS: u64 = 400;

/// Bytes of the journal after which the store is written as a whole and the journal begins anew.
pub const JOURNAL_BYTES: u64 = 16 << 20;

/// Milliseconds a publication may wait for every worker's acknowledgement. Beyond it the call is
/// answered with an error that says so; the snapshot is published nonetheless.
pub const PUBLISH_WAIT_MS: u64 = 2_000;
