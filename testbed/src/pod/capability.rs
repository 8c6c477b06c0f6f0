//! The capabilities of a container (capabilities(7)).

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets};

/// What a container has unless its spec says otherwise: containerd's default set without `MKNOD`
/// (there is no device cgroup to bound it) and `SETFCAP`.
pub const DEFAULT: [&str; 12] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// What `securityContext.capabilities.add` can add: nothing that reaches beyond the pod's own
/// namespaces.
pub const GRANTABLE: [&str; 4] = ["NET_ADMIN", "NET_BROADCAST", "IPC_LOCK", "SYS_NICE"];

/// Names by number, from `include/uapi/linux/capability.h`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

fn number(name: &str) -> Option<u8> {
    let name = name.strip_prefix("CAP_").unwrap_or(name);
    NAMES
        .iter()
        .position(|known| *known == name)
        .map(|at| at as u8)
}

/// The set that a container's `securityContext.capabilities` makes, and the names in `add` that
/// are not given.
pub fn resolve(add: &[String], drop: &[String]) -> (Vec<u8>, Vec<String>) {
    let all = |list: &[String]| list.iter().any(|name| name == "ALL");
    let mut set: Vec<u8> = if all(drop) {
        Vec::new()
    } else {
        let dropped: Vec<_> = drop.iter().filter_map(|name| number(name)).collect();
        let defaults = DEFAULT.iter().filter_map(|name| number(name));
        defaults
            .filter(|number| !dropped.contains(number))
            .collect()
    };
    let mut refused = Vec::new();
    for name in add {
        let short = name.strip_prefix("CAP_").unwrap_or(name);
        if short == "ALL" {
            let every = DEFAULT.iter().chain(&GRANTABLE);
            set.extend(every.filter_map(|name| number(name)));
            refused.push(name.clone());
        } else if DEFAULT.contains(&short) || GRANTABLE.contains(&short) {
            set.extend(number(short));
        } else {
            refused.push(name.clone());
        }
    }
    set.sort_unstable();
    set.dedup();
    (set, refused)
}

/// Leaves the calling process these capabilities and no way to more: what exec gives root is
/// bounded too.
pub fn limit_to(numbers: &[u8]) -> io::Result<()> {
    // SETPCAP is what removing from the bounding set needs, so that set goes first.
    for number in 0..=63_u32 {
        if numbers.contains(&(number as u8)) {
            continue;
        }
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // Beyond the last that this kernel knows.
            Err(rustix::io::Errno::INVAL) => break,
            other => other?,
        }
    }
    let bits = numbers
        .iter()
        .fold(0_u64, |bits, number| bits | 1 << number);
    let set = CapabilitySet::from_bits_retain(bits);
    let sets = CapabilitySets {
        effective: set,
        permitted: set,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::clear_ambient_capability_set()?;
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn dropping_all_and_adding_one_leaves_one() {
        let (set, refused) = resolve(&strings(&["NET_BIND_SERVICE"]), &strings(&["ALL"]));
        assert_eq!((set, refused.len()), (vec![10], 0));
    }

    #[test]
    fn nothing_that_reaches_the_machine_is_given() {
        let asked = strings(&["SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_NET_ADMIN", "ALL"]);
        let (set, refused) = resolve(&asked, &[]);
        assert_eq!(refused, strings(&["SYS_ADMIN", "CAP_SYS_PTRACE", "ALL"]));
        for name in [
            "SYS_ADMIN",
            "SYS_PTRACE",
            "SYS_MODULE",
            "MKNOD",
            "BPF",
            "SYS_RAWIO",
        ] {
            assert!(!set.contains(&number(name).unwrap()), "{name}");
        }
        assert!(set.contains(&12));
    }
}
