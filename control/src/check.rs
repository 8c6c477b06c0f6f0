//! What this machine has and lacks for the daemon, each with the command that mends it.
//!
//! `weir check` prints it all; the daemon and `lab up` demand what they cannot do without.

use std::fs;
use std::path::Path;

use config::Config;
use rustix::fs::statfs;
use serde::Serialize;

/// Magic numbers of file systems (`include/uapi/linux/magic.h`).
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
const TMPFS_MAGIC: u64 = 0x0102_1994;
/// Where bpffs is mounted.
pub const BPFFS: &str = "/sys/fs/bpf";
/// The oldest kernel that does what we need: multi-buffer AF_XDP came with 6.6, and so did tcx,
/// which keeps the node's stack off the pods.
const KERNEL: (u32, u32) = (6, 6);
/// From this kernel on, the checksum of a frame can be left to its receiver (TX metadata).
const KERNEL_METADATA: (u32, u32) = (6, 8);
/// Bits of `CapEff` that the daemon uses (`include/uapi/linux/capability.h`).
const CAPABILITIES: [(u32, &str); 5] = [
    (12, "CAP_NET_ADMIN"),
    (13, "CAP_NET_RAW"),
    (21, "CAP_SYS_ADMIN"),
    (38, "CAP_PERFMON"),
    (39, "CAP_BPF"),
];

/// How a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// As it should be.
    Ok,
    /// Weir runs, but less well.
    Warning,
    /// Weir does not run.
    Missing,
}

/// One thing looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What: `kernel`, `bpffs`, …
    pub name: &'static str,
    /// How it weighs.
    pub weight: Weight,
    /// What was found, in words.
    pub found: String,
    /// The command, or the line of `weir.toml`, that mends it; empty where nothing is to be mended.
    pub mend: String,
}

fn ok(name: &'static str, found: impl Into<String>) -> Finding {
    finding(name, Weight::Ok, found, "")
}

fn finding(
    name: &'static str,
    weight: Weight,
    found: impl Into<String>,
    mend: impl Into<String>,
) -> Finding {
    Finding {
        name,
        weight,
        found: found.into(),
        mend: mend.into(),
    }
}

/// Looks at everything.
pub fn run(config: &Config) -> Vec<Finding> {
    let mut findings = vec![
        kernel(),
        capabilities(),
        xdp_sockets(),
        bpffs(),
        cores(config),
        memory(config),
        runtime_dir(config),
    ];
    findings.extend(uplinks(config));
    findings.extend(forwarding(config));
    findings
}

/// What the daemon cannot do without, as one text; `Ok` if nothing lacks.
pub fn demand(config: &Config) -> Result<(), String> {
    let missing: Vec<String> = run(config)
        .into_iter()
        .filter(|finding| finding.weight == Weight::Missing)
        .map(|finding| line(&finding))
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(missing.join("\n"))
    }
}

/// One finding as a line, or two where it can be mended.
pub fn line(finding: &Finding) -> String {
    let word = match finding.weight {
        Weight::Ok => "ok",
        Weight::Warning => "warning",
        Weight::Missing => "missing",
    };
    let mut text = format!("{word:<8} {:<12} {}", finding.name, finding.found);
    if !finding.mend.is_empty() {
        text.push_str(&format!("\n{:22}mend: {}", "", finding.mend));
    }
    text
}

/// `6.18.44-something` as numbers.
fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn kernel() -> Finding {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    weigh_kernel(&release)
}

fn weigh_kernel(release: &str) -> Finding {
    let mend = "install a newer kernel: on Debian 12, apt install -t bookworm-backports \
                linux-image-amd64";
    match parse_release(release) {
        Some(version) if version < KERNEL => {
            let (major, minor) = KERNEL;
            let found = format!("Linux {release}; {major}.{minor} is needed (tcx, AF_XDP frags)");
            finding("kernel", Weight::Missing, found, mend)
        }
        Some(version) if version < KERNEL_METADATA => {
            let found = format!("Linux {release}: checksums are completed in software before 6.8");
            finding("kernel", Weight::Warning, found, mend)
        }
        Some(_) => ok("kernel", format!("Linux {release}")),
        None => finding(
            "kernel",
            Weight::Warning,
            format!("Linux {release:?}, unreadable"),
            "",
        ),
    }
}

fn capabilities() -> Finding {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bits = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|text| u64::from_str_radix(text.trim(), 16).ok())
        .unwrap_or(0);
    weigh_capabilities(bits)
}

fn weigh_capabilities(bits: u64) -> Finding {
    let lacking: Vec<&str> = CAPABILITIES
        .iter()
        .filter(|(bit, _)| bits & 1 << bit == 0)
        .map(|(_, name)| *name)
        .collect();
    if lacking.is_empty() {
        return ok("privileges", "all capabilities the daemon uses");
    }
    let found = format!("without {}", lacking.join(", "));
    finding(
        "privileges",
        Weight::Missing,
        found,
        "run as root: sudo weir …",
    )
}

fn xdp_sockets() -> Finding {
    use rustix::net::{AddressFamily, SocketType, socket};
    match socket(AddressFamily::XDP, SocketType::RAW, None) {
        Ok(_) => ok("AF_XDP", "sockets can be opened"),
        Err(rustix::io::Errno::AFNOSUPPORT) => finding(
            "AF_XDP",
            Weight::Missing,
            "the kernel was built without it",
            "use a kernel with CONFIG_XDP_SOCKETS=y",
        ),
        Err(errno) => {
            let found = format!("a socket cannot be opened: {errno}");
            finding("AF_XDP", Weight::Missing, found, "run as root: sudo weir …")
        }
    }
}

/// Whether a BPF file system is mounted where pins go.
pub fn has_bpffs() -> bool {
    statfs(BPFFS).is_ok_and(|found| found.f_type as u64 == BPF_FS_MAGIC)
}

fn bpffs() -> Finding {
    if has_bpffs() {
        return ok("bpffs", format!("at {BPFFS}"));
    }
    finding(
        "bpffs",
        Weight::Missing,
        format!("{BPFFS} is no BPF file system (the daemon mounts one where it may)"),
        format!("mount -t bpf bpf {BPFFS}"),
    )
}

fn cores(config: &Config) -> Finding {
    let online = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let online = online.trim();
    let last = parse_cores(online);
    let beyond: Vec<String> = config
        .workers
        .iter()
        .filter(|core| !last.contains(core))
        .map(u32::to_string)
        .collect();
    if beyond.is_empty() {
        let count = config.workers.len();
        return ok("cores", format!("{count} for workers, online are {online}"));
    }
    let found = format!("no core {}; online are {online}", beyond.join(", "));
    finding(
        "cores",
        Weight::Missing,
        found,
        "name other cores in weir.toml: workers = [0]",
    )
}

/// `0-3,5` as numbers.
fn parse_cores(text: &str) -> Vec<u32> {
    let parts = text.split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    });
    parts.flatten().collect()
}

/// Bytes that the daemon and the kernel use for it at most, ports' pools left out.
fn needed_bytes(config: &Config) -> u64 {
    let umem = u64::from(config.umem.chunks) * u64::from(config.umem.chunk_bytes);
    // Hot and cold line of an entry, twice as many slots as connections.
    let conntrack = u64::from(config.conntrack.capacity) * 2 * 128;
    umem + conntrack + (64 << 20)
}

fn memory(config: &Config) -> Finding {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok())
        .unwrap_or(0)
        * 1024;
    let needed = needed_bytes(config);
    let found = format!(
        "{} MiB needed, {} MiB available",
        needed >> 20,
        available >> 20
    );
    if available >= needed {
        return ok("memory", found);
    }
    let mend = "lower umem.chunks or conntrack.capacity in weir.toml";
    finding("memory", Weight::Missing, found, mend)
}

fn runtime_dir(config: &Config) -> Finding {
    // What does not exist yet will be made where its nearest parent is.
    let exists = config.runtime_dir.ancestors().find(|path| path.exists());
    let at = exists.unwrap_or(Path::new("/"));
    let path = config.runtime_dir.display();
    match statfs(at) {
        Ok(found) if found.f_type as u64 == TMPFS_MAGIC => {
            ok("runtime_dir", format!("{path} is in memory"))
        }
        _ => finding(
            "runtime_dir",
            Weight::Warning,
            format!("{path} is on a disk: the connection table is written to it all the time"),
            "name a folder on a tmpfs as runtime_dir in weir.toml, or: mount -t tmpfs -o huge=within_size tmpfs /run/weir",
        ),
    }
}

fn uplinks(config: &Config) -> Vec<Finding> {
    let uplinks = config.uplinks.iter();
    uplinks
        .map(|uplink| {
            let name = &uplink.interface;
            if Path::new("/sys/class/net").join(name).exists() || link_exists(name) {
                return ok("uplink", format!("{name} exists"));
            }
            let found = format!("no interface {name}");
            finding(
                "uplink",
                Weight::Missing,
                found,
                "ip link shows those that exist",
            )
        })
        .collect()
}

/// Asks the kernel, because `/sys` may show another network namespace than ours.
fn link_exists(name: &str) -> bool {
    let links = crate::netlink::Netlink::connect().and_then(|mut netlink| netlink.link(name));
    links.is_ok_and(|link| link.is_some())
}

fn forwarding(config: &Config) -> Option<Finding> {
    if !config.host_port.enabled {
        return None;
    }
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim() == "1";
    if read("/proc/sys/net/ipv4/ip_forward") {
        return Some(ok("forwarding", "the node forwards IPv4"));
    }
    Some(finding(
        "forwarding",
        Weight::Warning,
        "the node forwards nothing: pods reach the world by uplinks only",
        "sysctl -w net.ipv4.ip_forward=1",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_weighed_by_number() {
        for (release, weight) in [
            ("5.10.0-28-amd64", Weight::Missing),
            ("6.5.13", Weight::Missing),
            ("6.6.0", Weight::Warning),
            ("6.12.38+deb13-amd64", Weight::Ok),
            ("7.0-rc1", Weight::Ok),
            ("10.1", Weight::Ok),
            ("strange", Weight::Warning),
        ] {
            assert_eq!(weigh_kernel(release).weight, weight, "{release}");
        }
    }

    #[test]
    fn lacking_capabilities_are_named() {
        assert_eq!(weigh_capabilities(u64::MAX).weight, Weight::Ok);
        let finding = weigh_capabilities(!(1 << 39 | 1 << 12));
        assert_eq!(finding.weight, Weight::Missing);
        assert_eq!(finding.found, "without CAP_NET_ADMIN, CAP_BPF");
    }

    #[test]
    fn core_lists_are_read() {
        assert_eq!(parse_cores("0-3,5,7-8"), [0, 1, 2, 3, 5, 7, 8]);
        assert_eq!(parse_cores("0"), [0]);
        assert_eq!(parse_cores(""), [0u32; 0]);
    }

    #[test]
    fn cores_and_memory_that_do_not_exist_are_missing() {
        let mut config = Config {
            workers: vec![0, 1023],
            ..Config::default()
        };
        let finding = cores(&config);
        assert_eq!(finding.weight, Weight::Missing);
        assert!(
            finding.found.starts_with("no core 1023;"),
            "{}",
            finding.found
        );
        assert!(
            demand(&config)
                .unwrap_err()
                .contains("mend: name other cores")
        );
        config.umem.chunks = 1 << 31;
        assert_eq!(memory(&config).weight, Weight::Missing);
    }
}
