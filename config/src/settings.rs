//! The file's shape.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::services::{self, Services};
use crate::{ConfigError, limits};

/// `weir.toml`. Every key is optional.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Names this daemon's pins (`/sys/fs/bpf/weir/INSTANCE`): letters, digits and hyphens.
    pub instance: String,
    /// The node's name in logs; by default the machine's host name.
    pub node_name: String,
    /// The control socket.
    pub socket: PathBuf,
    /// Number of a user who owns the control socket and may use it; by default only root and the
    /// daemon's own user may.
    pub socket_user: Option<u32>,
    /// Number of a group whose members may use it too.
    pub socket_group: Option<u32>,
    /// State that ends with the boot: the connection table. A tmpfs.
    pub runtime_dir: PathBuf,
    /// Objects and the generation, which outlive boots.
    pub state_dir: PathBuf,
    /// Cores of the workers, one worker each.
    pub workers: Vec<u32>,
    /// When workers without packets sleep.
    pub polling: Polling,
    /// Endpoints, uplinks and host ports together.
    pub max_ports: u32,
    /// Packet memory.
    pub umem: Umem,
    /// The connection table.
    pub conntrack: Conntrack,
    /// Interfaces to the world.
    pub uplinks: Vec<Uplink>,
    /// The way to the node's own stack.
    pub host_port: HostPort,
    /// Ranges that pods' addresses come from. The node's stack reaches them through the host port.
    pub pod_ranges: Vec<IpNet>,
    /// Services' addresses and node ports.
    pub services: Services,
    /// Gateway addresses that pods see, one per family; answered by the daemon itself.
    pub gateways: Addresses,
    /// What becomes of established connections that policy no longer allows.
    pub existing_connections: ExistingConnections,
    /// Whether what a pod sends to its own node follows policy.
    pub node_egress: NodeEgress,
    /// Whether policy is enforced at all.
    pub enforcement: Enforcement,
    /// The denial log.
    pub log: Log,
    /// The self-check of policy.
    pub self_check: SelfCheck,
    /// Bounds of the control socket, the store, fragments and counters.
    pub limits: Limits,
}

/// When workers without packets sleep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Polling {
    /// Never: each worker keeps its core busy, and no packet waits for one to wake up. For cores
    /// that nobody else is meant to have.
    pub busy_poll: bool,
    /// Microseconds for which a worker polls on behind its last packet, at most. How long it does
    /// follows the gaps between packets; on a core that others want it is 10. 0 is not at all.
    pub window_max_us: u32,
}

/// Packet memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Umem {
    /// Chunks.
    pub chunks: u32,
    /// Bytes of a chunk.
    pub chunk_bytes: u32,
}

/// The connection table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Conntrack {
    /// Connections.
    pub capacity: u32,
    /// Share of one endpoint, percent.
    pub quota_percent: u32,
    /// Whether TCP segments out of the window are invalid.
    pub strict_tcp: bool,
    /// Seconds after the first start, or after a lost table, in which TCP without SYN is adopted.
    pub adoption_window_s: u32,
    /// Time-outs by state.
    pub timeouts: ConntrackTimeouts,
}

/// Idle time-outs by state, seconds. The defaults are those of `nf_conntrack`
/// (`net/netfilter/nf_conntrack_proto_*.c`), but for an established TCP connection, which gets two
/// hours and four minutes as RFC 5382 REQ-5 asks at least.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConntrackTimeouts {
    /// TCP, SYN seen.
    pub tcp_syn_s: u32,
    /// TCP, established.
    pub tcp_established_s: u32,
    /// TCP, one or both sides have closed.
    pub tcp_closing_s: u32,
    /// TCP, reset or closed by both.
    pub tcp_closed_s: u32,
    /// UDP, one direction seen.
    pub udp_s: u32,
    /// UDP, both directions seen.
    pub udp_replied_s: u32,
    /// ICMP echo.
    pub icmp_s: u32,
    /// SCTP before it is established and after shutdown.
    pub sctp_opening_s: u32,
    /// SCTP, established.
    pub sctp_established_s: u32,
    /// Any other protocol.
    pub other_s: u32,
    /// A denied connection.
    pub denied_s: u32,
}

/// An interface to the world.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Uplink {
    /// Its name.
    pub interface: String,
    /// Zero-copy binding, only for queues that are ours alone.
    #[serde(default)]
    pub zero_copy: bool,
    /// Receive queues to drive at most, the first ones; by default all that are in use, 64 at most.
    /// What comes for pods by a queue that is not driven is dropped, so a smaller number is for NICs
    /// that steer pods' traffic to the first queues.
    #[serde(default)]
    pub queues: Option<u32>,
}

/// The way to the node's own stack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostPort {
    /// Whether the daemon makes it. Without it the node cannot reach its pods, nor they the node.
    pub enabled: bool,
    /// Addresses of the node towards its pods; put on the host port's own end.
    pub addresses: Vec<IpAddr>,
    /// Routing table that `ip rule iif lo` points to.
    pub table: u32,
    /// Preference of that rule.
    pub rule_priority: u32,
}

/// Addresses of both families.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Addresses {
    /// IPv4.
    pub v4: Option<std::net::Ipv4Addr>,
    /// IPv6.
    pub v6: Option<std::net::Ipv6Addr>,
}

/// What becomes of established connections that policy no longer allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExistingConnections {
    /// Decided again on their next packet.
    #[default]
    Redecide,
    /// Left alone until they end.
    Keep,
}

/// Whether what a pod sends to its own node follows policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeEgress {
    /// As to any other address.
    #[default]
    Policy,
    /// Always allowed.
    Allow,
}

/// Whether policy is enforced at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Enforcement {
    /// Yes.
    #[default]
    On,
    /// No: policies are stored and validated, and every packet of a pod passes as if there were
    /// none. For the tests that prove that tests notice; `weir status` says so loudly.
    Off,
}

/// The denial log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// The file; rotated to `FILE.1`, `FILE.2`, …
    pub path: PathBuf,
    /// Its lines' form.
    pub format: LogFormat,
    /// Bytes before it is rotated.
    pub file_bytes: u64,
    /// Rotated files kept.
    pub files: u32,
    /// Seconds over which denials of one flow make one line.
    pub aggregation_s: u32,
    /// Whether accepted new connections are written too.
    pub accepts: bool,
}

/// Form of the denial log's lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// `Node: n1;SIP: …`.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The self-check: a share of the new flows is decided again by a second, naive implementation of
/// policy, by a thread of low priority. `weir_policy_mismatch_total` must stay 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SelfCheck {
    /// One of so many new flows; 0 is none.
    pub sample_one_in: u32,
    /// At most so many a second.
    pub samples_per_second: u32,
    /// Percent of one core that it may use.
    pub cpu_percent: u32,
}

/// Bounds of the control socket, the store, fragments and counters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Clients at once.
    pub clients: u32,
    /// Bytes of one request.
    pub message_bytes: u32,
    /// Bytes waiting for one client.
    pub output_bytes: u32,
    /// Seconds a request may stay half sent.
    pub half_message_s: u32,
    /// Objects in the store.
    pub objects: u32,
    /// Datagrams that come in fragments at once.
    pub fragment_datagrams: u32,
    /// Frames of fragments ahead of their datagram's first.
    pub fragment_frames: u32,
    /// Share of one port of either, percent.
    pub fragment_port_percent: u32,
    /// Fragments of one datagram.
    pub fragment_pieces: u32,
    /// Milliseconds that a datagram may wait for its first fragment, and for each further one.
    pub fragment_timeout_ms: u32,
    /// Clients that stay with their backend, of all Services together.
    pub affinity_clients: u32,
    /// Counters of rule hits.
    pub rule_counters: u32,
    /// Counters of the hits that several rules have in common.
    pub compound_counters: u32,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            instance: "default".into(),
            node_name: host_name(),
            socket: "/run/weir/weir.sock".into(),
            socket_user: None,
            socket_group: None,
            runtime_dir: "/run/weir".into(),
            state_dir: "/var/lib/weir".into(),
            workers: vec![0],
            polling: Polling::default(),
            max_ports: limits::PORTS,
            umem: Umem::default(),
            conntrack: Conntrack::default(),
            uplinks: Vec::new(),
            host_port: HostPort::default(),
            pod_ranges: Vec::new(),
            services: Services::default(),
            gateways: Addresses::default(),
            existing_connections: ExistingConnections::default(),
            node_egress: NodeEgress::default(),
            enforcement: Enforcement::default(),
            log: Log::default(),
            self_check: SelfCheck::default(),
            limits: Limits::default(),
        }
    }
}

/// The machine's host name as the kernel tells it, `localhost` where it does not.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_else(|_| "localhost".into())
}

impl Default for Addresses {
    /// Link-local ones, which no pod and no node can have: the same in every pod, whatever the
    /// pods' ranges are.
    fn default() -> Self {
        Addresses {
            v4: Some(std::net::Ipv4Addr::new(169, 254, 1, 1)),
            v6: Some(std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
        }
    }
}

impl Addresses {
    /// Those that are set.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.v4.map(IpAddr::from);
        v4.into_iter().chain(self.v6.map(IpAddr::from))
    }
}

impl Default for Polling {
    fn default() -> Self {
        Polling {
            busy_poll: false,
            window_max_us: limits::POLL_WINDOW_US,
        }
    }
}

impl Default for Umem {
    fn default() -> Self {
        Umem {
            chunks: limits::UMEM_CHUNKS,
            chunk_bytes: limits::UMEM_CHUNK_BYTES,
        }
    }
}

impl Default for Conntrack {
    fn default() -> Self {
        Conntrack {
            capacity: limits::CONNTRACK_CAPACITY,
            quota_percent: limits::CONNTRACK_QUOTA_PERCENT,
            strict_tcp: false,
            adoption_window_s: limits::ADOPTION_WINDOW_S,
            timeouts: ConntrackTimeouts::default(),
        }
    }
}

impl Default for ConntrackTimeouts {
    fn default() -> Self {
        ConntrackTimeouts {
            tcp_syn_s: 60,
            tcp_established_s: 7440,
            tcp_closing_s: 120,
            tcp_closed_s: 10,
            udp_s: 30,
            udp_replied_s: 120,
            icmp_s: 30,
            sctp_opening_s: 30,
            sctp_established_s: 7440,
            other_s: 60,
            denied_s: 60,
        }
    }
}

impl Default for HostPort {
    fn default() -> Self {
        HostPort {
            enabled: true,
            addresses: Vec::new(),
            table: 8844,
            rule_priority: 90,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Log {
            path: "/var/log/weir/network-policy.log".into(),
            format: LogFormat::default(),
            file_bytes: limits::LOG_FILE_BYTES,
            files: limits::LOG_FILES,
            aggregation_s: limits::LOG_AGGREGATION_S,
            accepts: false,
        }
    }
}

impl Default for SelfCheck {
    fn default() -> Self {
        SelfCheck {
            sample_one_in: limits::SAMPLE_ONE_IN,
            samples_per_second: limits::SAMPLES_PER_SECOND,
            cpu_percent: limits::SELF_CHECK_CPU_PERCENT,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            clients: limits::CLIENTS,
            message_bytes: limits::MESSAGE_BYTES,
            output_bytes: limits::OUTPUT_BYTES,
            half_message_s: limits::HALF_MESSAGE_S,
            objects: limits::OBJECTS,
            fragment_datagrams: limits::FRAGMENT_DATAGRAMS,
            fragment_frames: limits::FRAGMENT_FRAMES,
            fragment_port_percent: limits::FRAGMENT_PORT_PERCENT,
            fragment_pieces: limits::FRAGMENT_PIECES,
            fragment_timeout_ms: limits::FRAGMENT_TIMEOUT_MS,
            affinity_clients: limits::AFFINITY_CLIENTS,
            rule_counters: limits::RULE_COUNTERS,
            compound_counters: limits::COMPOUND_COUNTERS,
        }
    }
}

impl Config {
    /// Reads, parses and checks the file.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.display().to_string(),
            source,
        })?;
        Config::parse(&text, &path.display().to_string())
    }

    /// Parses and checks the text; `name` is what errors call it.
    pub fn parse(text: &str, name: &str) -> Result<Config, ConfigError> {
        let config: Config = toml::from_str(text).map_err(|error| ConfigError::Parse {
            path: name.to_owned(),
            message: error.to_string(),
        })?;
        config.check()?;
        Ok(config)
    }

    /// The ranges whose packets are the daemon's: pods' and Services'.
    pub fn our_ranges(&self) -> impl Iterator<Item = IpNet> {
        let services = &self.services.ranges;
        self.pod_ranges.iter().chain(services).copied()
    }

    /// The file's text, as [`Config::parse`] reads it.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        toml::to_string(self).map_err(|error| ConfigError::Parse {
            path: "weir.toml".into(),
            message: error.to_string(),
        })
    }

    /// Checks every value against its range and against the others.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_names()?;
        self.check_workers()?;
        if ![2048, 4096].contains(&self.umem.chunk_bytes) {
            return wrong("umem.chunk_bytes", "must be 2048 or 4096");
        }
        range("umem.chunks", self.umem.chunks, limits::UMEM_CHUNKS_RANGE)?;
        range("max_ports", self.max_ports, limits::PORTS_RANGE)?;
        range(
            "polling.window_max_us",
            self.polling.window_max_us,
            limits::POLL_WINDOW_RANGE_US,
        )?;
        self.check_conntrack()?;
        range(
            "log.file_bytes",
            self.log.file_bytes,
            limits::LOG_FILE_BYTES_RANGE,
        )?;
        range("log.files", self.log.files, limits::LOG_FILES_RANGE)?;
        range(
            "log.aggregation_s",
            self.log.aggregation_s,
            limits::LOG_AGGREGATION_RANGE_S,
        )?;
        self.check_self_check()?;
        services::check(self)?;
        range("limits.clients", self.limits.clients, limits::CLIENTS_RANGE)?;
        range(
            "limits.message_bytes",
            self.limits.message_bytes,
            limits::MESSAGE_BYTES_RANGE,
        )?;
        range(
            "limits.output_bytes",
            self.limits.output_bytes,
            limits::OUTPUT_BYTES_RANGE,
        )?;
        range(
            "limits.half_message_s",
            self.limits.half_message_s,
            limits::HALF_MESSAGE_RANGE_S,
        )?;
        range("limits.objects", self.limits.objects, limits::OBJECTS_RANGE)?;
        self.check_fragments()?;
        range(
            "limits.rule_counters",
            self.limits.rule_counters,
            limits::RULE_COUNTERS_RANGE,
        )?;
        let most = limits::COUNTERS - self.limits.rule_counters;
        range(
            "limits.compound_counters",
            self.limits.compound_counters,
            *limits::COMPOUND_COUNTERS_RANGE.start()..=most,
        )
    }

    fn check_fragments(&self) -> Result<(), ConfigError> {
        let l = &self.limits;
        for (key, value, allowed) in [
            (
                "limits.fragment_datagrams",
                l.fragment_datagrams,
                limits::FRAGMENT_DATAGRAMS_RANGE,
            ),
            (
                "limits.fragment_frames",
                l.fragment_frames,
                limits::FRAGMENT_FRAMES_RANGE,
            ),
            (
                "limits.fragment_port_percent",
                l.fragment_port_percent,
                limits::FRAGMENT_PORT_PERCENT_RANGE,
            ),
            (
                "limits.fragment_pieces",
                l.fragment_pieces,
                limits::FRAGMENT_PIECES_RANGE,
            ),
            (
                "limits.affinity_clients",
                l.affinity_clients,
                limits::AFFINITY_CLIENTS_RANGE,
            ),
            (
                "limits.fragment_timeout_ms",
                l.fragment_timeout_ms,
                limits::FRAGMENT_TIMEOUT_RANGE_MS,
            ),
        ] {
            range(key, value, allowed)?;
        }
        Ok(())
    }

    fn check_names(&self) -> Result<(), ConfigError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if self.instance.is_empty() || self.instance.len() > 63 || !self.instance.chars().all(plain)
        {
            return wrong("instance", "must be 1 to 63 letters, digits or hyphens");
        }
        if self.node_name.is_empty() || self.node_name.contains([';', '\n']) {
            return wrong(
                "node_name",
                "must not be empty nor contain `;` or a line break",
            );
        }
        for (index, uplink) in self.uplinks.iter().enumerate() {
            if uplink.interface.is_empty() || uplink.interface.len() > 15 {
                return wrong("uplinks.interface", "must be 1 to 15 bytes");
            }
            if let Some(queues) = uplink.queues {
                range("uplinks.queues", queues, limits::UPLINK_QUEUES_RANGE)?;
            }
            if self.uplinks[..index]
                .iter()
                .any(|u| u.interface == uplink.interface)
            {
                return wrong("uplinks.interface", "an interface may stand here only once");
            }
        }
        for range in &self.pod_ranges {
            if range.trunc() != *range {
                return wrong(
                    "pod_ranges",
                    "must not have bits set beyond the prefix length",
                );
            }
        }
        if self.host_port.enabled && !(1..=0x7fff_ffff).contains(&self.host_port.table) {
            return wrong("host_port.table", "must be between 1 and 2147483647");
        }
        Ok(())
    }

    fn check_workers(&self) -> Result<(), ConfigError> {
        if !limits::WORKERS_RANGE.contains(&self.workers.len()) {
            return wrong("workers", "must list between 1 and 32 cores");
        }
        if self.workers.iter().any(|core| *core > 1023) {
            return wrong("workers", "cores are numbered 0 to 1023");
        }
        Ok(())
    }

    fn check_self_check(&self) -> Result<(), ConfigError> {
        let check = &self.self_check;
        range(
            "self_check.sample_one_in",
            check.sample_one_in,
            limits::SAMPLE_ONE_IN_RANGE,
        )?;
        range(
            "self_check.samples_per_second",
            check.samples_per_second,
            limits::SAMPLES_PER_SECOND_RANGE,
        )?;
        range(
            "self_check.cpu_percent",
            check.cpu_percent,
            limits::SELF_CHECK_CPU_PERCENT_RANGE,
        )
    }

    fn check_conntrack(&self) -> Result<(), ConfigError> {
        let c = &self.conntrack;
        range(
            "conntrack.capacity",
            c.capacity,
            limits::CONNTRACK_CAPACITY_RANGE,
        )?;
        range(
            "conntrack.quota_percent",
            c.quota_percent,
            limits::CONNTRACK_QUOTA_PERCENT_RANGE,
        )?;
        range(
            "conntrack.adoption_window_s",
            c.adoption_window_s,
            limits::ADOPTION_WINDOW_RANGE_S,
        )?;
        let t = &c.timeouts;
        for (key, value) in [
            ("conntrack.timeouts.tcp_syn_s", t.tcp_syn_s),
            ("conntrack.timeouts.tcp_established_s", t.tcp_established_s),
            ("conntrack.timeouts.tcp_closing_s", t.tcp_closing_s),
            ("conntrack.timeouts.tcp_closed_s", t.tcp_closed_s),
            ("conntrack.timeouts.udp_s", t.udp_s),
            ("conntrack.timeouts.udp_replied_s", t.udp_replied_s),
            ("conntrack.timeouts.icmp_s", t.icmp_s),
            ("conntrack.timeouts.sctp_opening_s", t.sctp_opening_s),
            (
                "conntrack.timeouts.sctp_established_s",
                t.sctp_established_s,
            ),
            ("conntrack.timeouts.other_s", t.other_s),
            ("conntrack.timeouts.denied_s", t.denied_s),
        ] {
            range(key, value, limits::TIMEOUT_RANGE_S)?;
        }
        Ok(())
    }
}

pub(crate) fn wrong<T>(key: &'static str, message: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Value {
        key,
        message: message.into(),
    })
}

fn range<T: PartialOrd + std::fmt::Display>(
    key: &'static str,
    value: T,
    range: std::ops::RangeInclusive<T>,
) -> Result<(), ConfigError> {
    if range.contains(&value) {
        return Ok(());
    }
    let (first, last) = range.into_inner();
    wrong(
        key,
        format!("is {value}; must be between {first} and {last}, inclusive"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_the_defaults_and_they_hold() {
        let config = Config::parse("", "x").unwrap();
        assert_eq!(config, Config::default());
        assert_eq!(
            Config::parse(&config.to_toml().unwrap(), "x").unwrap(),
            config
        );
    }

    #[test]
    fn unknown_keys_are_errors_at_every_level() {
        for text in [
            "nonsense = 1",
            "[umem]\nchunk = 1",
            "[[uplinks]]\ninterface = 'a'\nx = 1",
        ] {
            let error = Config::parse(text, "weir.toml").unwrap_err().to_string();
            assert!(error.contains("unknown field"), "{error}");
        }
    }

    #[test]
    fn values_out_of_range_name_the_key_and_the_range() {
        for (text, expected) in [
            (
                "[umem]\nchunks = 1",
                "umem.chunks: is 1; must be between 512 and 1048576, inclusive",
            ),
            (
                "[limits]\nrule_counters = 16777116\ncompound_counters = 101",
                "limits.compound_counters: is 101; must be between 0 and 100, inclusive",
            ),
            (
                "[limits]\nfragment_pieces = 129",
                "limits.fragment_pieces: is 129; must be between 2 and 128, inclusive",
            ),
            (
                "[[uplinks]]\ninterface = 'a'\nqueues = 65",
                "uplinks.queues: is 65; must be between 1 and 64, inclusive",
            ),
            ("workers = []", "workers: must list between 1 and 32 cores"),
            (
                "instance = 'a/b'",
                "instance: must be 1 to 63 letters, digits or hyphens",
            ),
            (
                "pod_ranges = ['10.0.0.1/8']",
                "pod_ranges: must not have bits set beyond the prefix length",
            ),
        ] {
            assert_eq!(Config::parse(text, "x").unwrap_err().to_string(), expected);
        }
    }
}
