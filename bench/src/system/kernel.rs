//! The kernel's routing with its packet filter and connection tracking.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use super::forwarder::Forwarder;
use super::setup;
use super::topology::Topology;
use crate::error::BenchError;

/// Which filter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Filter {
    /// nftables with a set of peers and a map of pods.
    Nftables,
    /// iptables with an ipset.
    Iptables,
}

/// How the work is spread over the cores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spread {
    /// Whoever sends forwards.
    Inline,
    /// Receive packet steering hands packets to the other core.
    Steering,
    /// A thread of the kernel on the other core polls (threaded NAPI with GRO).
    Threaded,
}

/// A node whose kernel forwards.
#[derive(Debug)]
pub struct Kernel {
    name: String,
    mode: String,
    topology: Topology,
}

impl Kernel {
    /// Sets it up; `core` is the one that the generator does not run on, `peers` addresses are let
    /// in beside the client's.
    pub fn start(
        number: u32,
        filter: Filter,
        spread: Spread,
        core: u16,
        peers: u32,
    ) -> Result<Kernel, BenchError> {
        let topology = Topology::create(number, 2)?;
        topology.route()?;
        match filter {
            Filter::Nftables => run(&topology, "nft", &["-f", "-"], &nftables(&topology, peers))?,
            Filter::Iptables => {
                run(&topology, "ipset", &["restore"], &ipset(&topology, peers))?;
                let rules = iptables(&topology);
                run(&topology, "iptables-restore", &["--noflush"], &rules)?;
            }
        }
        let mode = spread_over(&topology, spread, core)?;
        let filter = match filter {
            Filter::Nftables => "nftables",
            Filter::Iptables => "iptables + ipset",
        };
        let spread = match spread {
            Spread::Inline => "",
            Spread::Steering => ", RPS",
            Spread::Threaded => ", threaded NAPI without TSO",
        };
        Ok(Kernel {
            name: format!("kernel, {filter} + conntrack{spread}"),
            mode,
            topology,
        })
    }
}

impl Forwarder for Kernel {
    fn name(&self) -> &str {
        &self.name
    }

    fn mode(&self) -> &str {
        &self.mode
    }

    fn topology(&self) -> &Topology {
        &self.topology
    }

    fn tracks_connections(&self) -> bool {
        true
    }
}

fn spread_over(topology: &Topology, spread: Spread, core: u16) -> Result<String, BenchError> {
    let mut commands = String::new();
    for interface in topology.pods.iter().map(|pod| &pod.interface) {
        let _ = match spread {
            Spread::Inline => return Ok("on the sender's core".to_owned()),
            Spread::Steering => {
                let mask = 1_u64 << core;
                let path = format!("/sys/class/net/{interface}/queues/rx-0/rps_cpus");
                writeln!(commands, "echo {mask:x} > {path}")
            }
            // The kernel lets a veth poll when GRO is on.
            Spread::Threaded => writeln!(
                commands,
                "ethtool -K {interface} gro on\n\
                 echo 1 > /sys/class/net/{interface}/threaded\n\
                 for pid in $(pgrep '^napi/{interface}-'); do taskset -p -c {core} $pid; done"
            ),
        };
    }
    topology.shell(&commands)?;
    if spread == Spread::Threaded {
        // A veth hands its thread only what a sender without segmentation offload sends
        // (`veth_skb_is_eligible_for_gro`).
        for pod in 0..topology.pods.len() {
            topology.pod_shell(pod, "ethtool -K eth0 tso off")?;
        }
    }
    Ok(match spread {
        Spread::Threaded => format!("in the kernel's thread on core {core}"),
        _ => format!("steered to core {core}"),
    })
}

fn run(
    topology: &Topology,
    program: &str,
    arguments: &[&str],
    input: &str,
) -> Result<(), BenchError> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let child = topology.node.run(|| command.spawn()).map_err(setup)?;
    let mut child = child.map_err(|error| setup(format!("{program}: {error}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).map_err(setup)?;
    }
    let output = child.wait_with_output().map_err(setup)?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let first = complaint.lines().next().unwrap_or_default();
    Err(setup(format!("{program}: {first}")))
}

/// The client's address and those of the other peers that the policy lets in.
fn clients(topology: &Topology, peers: u32) -> Vec<String> {
    let others = (0..peers).map(|peer| format!("10.245.{}.{}", peer >> 8, peer & 255));
    let client = topology.pods[0].party.address.to_string();
    std::iter::once(client).chain(others).collect()
}

fn addresses(topology: &Topology) -> [String; 2] {
    [0, 1].map(|pod: usize| topology.pods[pod].party.address.to_string())
}

/// What the two NetworkPolicies say, as an agent would write it: a chain for each isolated pod and
/// direction, sets for peers, established connections first.
fn nftables(topology: &Topology, peers: u32) -> String {
    let [client, server] = addresses(topology);
    let clients = clients(topology, peers).join(", ");
    format!(
        "table ip weir {{\n\
         set clients {{ type ipv4_addr; elements = {{ {clients} }}; }}\n\
         set servers {{ type ipv4_addr; elements = {{ {server} }}; }}\n\
         chain from_client {{\n\
           ip daddr @servers udp dport 1-65535 return\n\
           ip daddr @servers tcp dport 1-65535 return\n\
           drop\n }}\n\
         chain to_server {{\n\
           ip saddr @clients udp dport 1-65535 return\n\
           ip saddr @clients tcp dport 1-65535 return\n\
           drop\n }}\n\
         chain forward {{\n\
           type filter hook forward priority 0; policy accept;\n\
           ct state established,related accept\n\
           ct state invalid drop\n\
           ip saddr vmap {{ {client} : jump from_client }}\n\
           ip daddr vmap {{ {server} : jump to_server }}\n }}\n}}\n"
    )
}

fn ipset(topology: &Topology, peers: u32) -> String {
    let [_, server] = addresses(topology);
    let mut text = "create clients hash:ip family inet\n".to_owned();
    for client in clients(topology, peers) {
        let _ = writeln!(text, "add clients {client}");
    }
    let _ = writeln!(
        text,
        "create servers hash:ip family inet\nadd servers {server}"
    );
    text
}

fn iptables(topology: &Topology) -> String {
    let [client, server] = addresses(topology);
    let allowed = |chain: &str, set: &str, side: &str| {
        ["udp", "tcp"]
            .map(|protocol| {
                format!(
                    "-A {chain} -p {protocol} -m set --match-set {set} {side} \
                     -m {protocol} --dport 1:65535 -j RETURN\n"
                )
            })
            .concat()
    };
    format!(
        "*filter\n:FROM_CLIENT - [0:0]\n:TO_SERVER - [0:0]\n\
         -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n\
         -A FORWARD -m conntrack --ctstate INVALID -j DROP\n\
         -A FORWARD -s {client}/32 -j FROM_CLIENT\n\
         -A FORWARD -d {server}/32 -j TO_SERVER\n\
         {}-A FROM_CLIENT -j DROP\n{}-A TO_SERVER -j DROP\nCOMMIT\n",
        allowed("FROM_CLIENT", "servers", "dst"),
        allowed("TO_SERVER", "clients", "src"),
    )
}
