//! Network namespaces, veths and a bpffs for one test; removed when it ends.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A node with two pods behind veths, the pods on one subnet as if on a wire. The calling thread
/// is in the node's network namespace from then on.
pub struct World {
    prefix: String,
    folder: PathBuf,
    /// Where links are pinned.
    pub pins: PathBuf,
    mtu: u32,
    removed: AtomicU32,
}

/// Why no test can run here, if so.
pub fn lacks() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root");
    }
    let ip = Command::new("ip").arg("-V").stdout(Stdio::null()).status();
    match ip {
        Ok(status) if status.success() => None,
        _ => Some("needs the program ip: apt-get install iproute2"),
    }
}

fn run(words: &str) {
    let mut parts = words.split_whitespace();
    let output = Command::new(parts.next().unwrap())
        .args(parts)
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}: {complaint}");
}

/// Moves the calling thread into a network namespace.
pub fn enter(namespace: &str) {
    let file = std::fs::File::open(format!("/run/netns/{namespace}")).unwrap();
    move_into_link_name_space(
        std::os::fd::AsFd::as_fd(&file),
        Some(LinkNameSpaceType::Network),
    )
    .unwrap();
}

impl World {
    pub fn new(name: &str, mtu: u32) -> World {
        let prefix = format!("weir-xsk-{}-{name}", std::process::id());
        let folder = std::env::temp_dir().join(&prefix);
        let bpffs = folder.join("bpf");
        std::fs::create_dir_all(&bpffs).unwrap();
        mount("bpf", &bpffs, "bpf", MountFlags::empty(), None).unwrap();
        let pins = bpffs.join("weir/test");
        let world = World {
            prefix,
            folder,
            pins,
            mtu,
            removed: AtomicU32::new(0),
        };
        run(&format!("ip netns add {}", world.node()));
        enter(&world.node());
        run("ip link set lo up");
        for index in 0..2 {
            run(&format!("ip netns add {}", world.pod(index)));
            world.plug(index, &format!("port{index}"));
        }
        world
    }

    /// A veth between the node (`port`) and the pod (`eth0`).
    fn plug(&self, index: usize, port: &str) {
        let (pod, mtu, end) = (self.pod(index), self.mtu, index + 1);
        run(&format!(
            "ip link add {port} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {pod}"
        ));
        run(&format!("ip -n {pod} addr add 10.9.0.{end}/24 dev eth0"));
        run(&format!(
            "ip -n {pod} addr add fd09::{end}/64 dev eth0 nodad"
        ));
        run(&format!("ip -n {pod} link set eth0 up"));
        run(&format!("ip link set {port} up"));
    }

    /// Makes the kernel itself a way between the pods and from the node to them.
    pub fn bridge(&self) {
        run("ip link add bridge0 type bridge stp_state 0 forward_delay 0");
        run("ip link set port0 master bridge0");
        run("ip link set port1 master bridge0");
        run("ip addr add 10.9.0.254/24 dev bridge0");
        run("ip link set bridge0 up");
    }

    pub fn node(&self) -> String {
        format!("{}-n", self.prefix)
    }

    pub fn pod(&self, index: usize) -> String {
        format!("{}-{index}", self.prefix)
    }

    /// Interface indexes of both ports.
    pub fn ports(&self) -> [u32; 2] {
        [index_of("port0"), index_of("port1")]
    }

    pub fn remove_port(&self, index: usize) {
        run(&format!("ip link del port{index}"));
        self.removed.fetch_add(1, Ordering::Relaxed);
    }

    /// A new veth to the first pod, in place of the one that was removed.
    pub fn add_port(&self) -> u32 {
        self.plug(0, "again0");
        index_of("again0")
    }

    /// Tells the node the first pod's Ethernet address, so that reaching it needs no answer.
    pub fn tell_neighbour(&self) {
        let output = Command::new("ip")
            .args(["-n", &self.pod(0), "-o", "link", "show", "eth0"])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let mac = text
            .split("link/ether ")
            .nth(1)
            .unwrap()
            .split(' ')
            .next()
            .unwrap();
        run(&format!(
            "ip neigh replace 10.9.0.1 lladdr {mac} dev bridge0 nud permanent"
        ));
    }

    /// Pins that there are.
    pub fn pins(&self) -> usize {
        std::fs::read_dir(&self.pins).map_or(0, Iterator::count)
    }

    /// This very program as a daemon in the node's network namespace.
    pub fn spawn_daemon(&self) -> Daemon {
        let [first, second] = self.ports().map(|port| port.to_string());
        let child = Command::new(std::env::current_exe().unwrap())
            .args([
                "daemon".as_ref(),
                self.pins.as_os_str(),
                first.as_ref(),
                second.as_ref(),
            ])
            .spawn()
            .unwrap();
        Daemon(child)
    }
}

/// A process that does not outlive its test.
pub struct Daemon(Child);

impl Daemon {
    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Of the calling thread's network namespace: netlink by way of `ip`, because /sys may be another
/// namespace's.
fn index_of(interface: &str) -> u32 {
    let output = Command::new("ip")
        .args(["-o", "link", "show", interface])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split(':').next().unwrap().trim().parse().unwrap()
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.pins);
        let _ = unmount(self.folder.join("bpf"), UnmountFlags::DETACH);
        remove_tree(&self.folder);
        for namespace in [self.pod(0), self.pod(1), self.node()] {
            let _ = Command::new("ip")
                .args(["netns", "del", &namespace])
                .status();
        }
    }
}

fn remove_tree(folder: &Path) {
    let _ = std::fs::remove_dir(folder.join("bpf"));
    let _ = std::fs::remove_dir(folder);
}
