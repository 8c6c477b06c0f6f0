//! XDP that redirects from veth to veth in the kernel, with no policy at all.

use aya::Ebpf;
use aya::maps::xdp::DevMapHash;
use aya::programs::Xdp;
use aya::programs::xdp::XdpMode;

use super::forwarder::Forwarder;
use super::setup;
use super::topology::Topology;
use crate::error::BenchError;

/// The built object; see its source's head for the command.
static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/redirect.bpf.o"));

/// Two interfaces that lead into each other.
pub struct Redirect {
    // Its programs are attached as long as it lives.
    _ebpf: Ebpf,
    topology: Topology,
}

impl Redirect {
    /// Attaches the program to the node's ends of the pods' veths.
    pub fn start(number: u32) -> Result<Redirect, BenchError> {
        let topology = Topology::create(number, 2)?;
        let interfaces: Vec<u32> = topology.pods.iter().map(|pod| pod.outer).collect();
        let attach = || -> Result<Ebpf, BenchError> {
            let mut ebpf = Ebpf::load(OBJECT).map_err(setup)?;
            let lacks = || setup("the object lacks a part");
            let map = ebpf.map_mut("ports").ok_or_else(lacks)?;
            let mut ports: DevMapHash<_> = map.try_into().map_err(setup)?;
            for (from, to) in [(0, 1), (1, 0)] {
                let (from, to) = (interfaces[from], interfaces[to]);
                ports.insert(from, to, None, 0).map_err(setup)?;
            }
            let program = ebpf.program_mut("redirect").ok_or_else(lacks)?;
            let program: &mut Xdp = program.try_into().map_err(setup)?;
            program.load().map_err(setup)?;
            for interface in &interfaces {
                program
                    .attach_to_if_index(*interface, XdpMode::Driver)
                    .map_err(setup)?;
            }
            Ok(ebpf)
        };
        let ebpf = topology.node.run(attach).map_err(setup)??;
        Ok(Redirect {
            _ebpf: ebpf,
            topology,
        })
    }
}

impl Forwarder for Redirect {
    fn name(&self) -> &str {
        "XDP redirect, no policy"
    }

    fn mode(&self) -> &str {
        "native XDP, on the sender's core"
    }

    fn topology(&self) -> &Topology {
        &self.topology
    }

    // Nobody rewrites MACs, which a pod's stack would want.
    fn passes_tcp(&self) -> bool {
        false
    }
}
