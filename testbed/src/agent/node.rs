//! The lab's node as an object: this machine, as a kubelet would tell of it.

use std::fs;
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::{LAST_ADDRESS, NODE};
use crate::{clock, topology};

/// The node's Kubernetes version is the one whose API this is.
fn version() -> String {
    control::cli::verbs::version::git_version(env!("CARGO_PKG_VERSION"))
}

/// The node, so that `get nodes` shows it and its address has a name.
pub fn object() -> Value {
    static STARTED: OnceLock<String> = OnceLock::new();
    let since = STARTED.get_or_init(clock::now);
    let resources = json!({
        "cpu": std::thread::available_parallelism().map_or(1, |cores| cores.get()).to_string(),
        "memory": memory(&read("/proc/meminfo")),
        "pods": LAST_ADDRESS.to_string(),
    });
    let architecture = architecture();
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": NODE, "labels": {
            "kubernetes.io/arch": architecture,
            "kubernetes.io/hostname": NODE,
            "kubernetes.io/os": "linux",
        }},
        "spec": {
            "podCIDR": topology::PODS_V4.to_string(),
            "podCIDRs": [topology::PODS_V4.to_string(), topology::PODS_V6.to_string()],
        },
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": topology::NODE_V4.to_string()},
                {"type": "InternalIP", "address": topology::NODE_V6.to_string()},
                {"type": "Hostname", "address": NODE},
            ],
            "allocatable": resources,
            "capacity": resources,
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "AgentReady",
                "message": "the lab's agent runs pods",
                "lastHeartbeatTime": since, "lastTransitionTime": since,
            }],
            "nodeInfo": {
                "architecture": architecture,
                "bootID": read("/proc/sys/kernel/random/boot_id").trim(),
                "containerRuntimeVersion": concat!("weir://", env!("CARGO_PKG_VERSION")),
                "kernelVersion": read("/proc/sys/kernel/osrelease").trim(),
                "kubeProxyVersion": "",
                "kubeletVersion": version(),
                "machineID": read("/etc/machine-id").trim(),
                "operatingSystem": "linux",
                "osImage": os_image(&read("/etc/os-release")),
                "systemUUID": "",
            },
        },
    })
}

/// A file's text; nothing where the machine has no such file.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Go's name of the processor, which is what Kubernetes has.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The machine's memory as a quantity, of `/proc/meminfo`.
fn memory(meminfo: &str) -> String {
    let mut lines = meminfo.lines();
    let total = lines.find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes = total.and_then(|rest| rest.split_whitespace().next());
    format!("{}Ki", kibibytes.unwrap_or("0"))
}

/// What `/etc/os-release` calls the machine's system.
fn os_image(release: &str) -> String {
    let mut lines = release.lines();
    let name = lines.find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("Linux").trim_matches(['"', '\'']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_told_of_as_a_kubelet_tells() {
        assert_eq!(
            memory("MemTotal:        8144028 kB\nMemFree: 1 kB\n"),
            "8144028Ki"
        );
        assert_eq!(
            os_image("NAME=\"X\"\nPRETTY_NAME=\"Debian GNU/Linux 13\"\n"),
            "Debian GNU/Linux 13"
        );
        assert_eq!(os_image(""), "Linux");
        let node = object();
        for field in ["kernelVersion", "kubeletVersion", "osImage"] {
            let fact = &node["status"]["nodeInfo"][field];
            assert!(
                fact.as_str().is_some_and(|text| !text.is_empty()),
                "{field}"
            );
        }
    }
}
