//! DPDK's `testpmd`, which moves packets from port to port on a core of its own and does no more.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::forwarder::Forwarder;
use super::setup;
use super::topology::Topology;
use crate::error::BenchError;

/// The program, as Debian calls it.
const PROGRAM: &str = "dpdk-testpmd";
/// How long it may take to forward.
const PATIENCE: Duration = Duration::from_secs(20);
/// The last that it prints at once before it forwards; what follows stays in its buffer.
const READY: &str = "Checking link statuses";
/// How long it takes from there.
const LINKS: Duration = Duration::from_millis(500);
/// How long it may take to end in order, which takes its programs off the interfaces.
const ENDING: Duration = Duration::from_secs(3);

/// A `testpmd` that runs while it is measured: it never sleeps.
#[derive(Debug)]
pub struct Dpdk {
    name: String,
    mode: String,
    driver: &'static str,
    cores: [u16; 2],
    log: PathBuf,
    child: Option<Child>,
    topology: Topology,
}

impl Dpdk {
    /// With this driver of DPDK, on `core`; `main` is where its idle main thread waits.
    pub fn prepare(
        number: u32,
        driver: &'static str,
        core: u16,
        main: u16,
    ) -> Result<Dpdk, BenchError> {
        let version = Command::new(PROGRAM)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        version.map_err(|error| setup(format!("{PROGRAM}: {error}")))?;
        let topology = Topology::create(number, 2)?;
        let mode = match driver {
            "net_af_xdp" => format!("AF_XDP copy, spins on core {core}"),
            _ => format!("AF_PACKET, spins on core {core}"),
        };
        let mut dpdk = Dpdk {
            name: format!("DPDK testpmd {driver}, no policy"),
            mode,
            driver,
            cores: [core, main],
            log: std::env::temp_dir().join(format!("{}.testpmd", topology.name)),
            child: None,
            topology,
        };
        // Whether it works here is known before anything is measured.
        dpdk.enter()?;
        dpdk.leave();
        Ok(dpdk)
    }
}

impl Forwarder for Dpdk {
    fn name(&self) -> &str {
        &self.name
    }

    fn mode(&self) -> &str {
        &self.mode
    }

    fn topology(&self) -> &Topology {
        &self.topology
    }

    fn processes(&self) -> Vec<u32> {
        self.child.iter().map(Child::id).collect()
    }

    // Nobody rewrites MACs, which a pod's stack would want.
    fn passes_tcp(&self) -> bool {
        false
    }

    fn enter(&mut self) -> Result<(), BenchError> {
        let log = fs::File::create(&self.log).map_err(setup)?;
        let [core, main] = self.cores;
        let mut command = Command::new(PROGRAM);
        command
            .args(["-l", &format!("{},{}", core.min(main), core.max(main))])
            .args([
                &format!("--main-lcore={main}"),
                "--no-pci",
                "--no-huge",
                "--no-shconf",
                "--no-telemetry",
            ])
            .args(["-m", "256"]);
        for (at, pod) in self.topology.pods.iter().enumerate() {
            command.arg(format!(
                "--vdev={}{at},iface={}",
                self.driver, pod.interface
            ));
        }
        command
            .args(["--", "--forward-mode=io", "--auto-start"])
            .args(["--total-num-mbufs=16384", "--nb-cores=1"])
            // A program of its own on each interface, with nothing left on the bpffs.
            .env("LIBXDP_SKIP_DISPATCHER", "1")
            .stdin(Stdio::piped())
            .stdout(log.try_clone().map_err(setup)?)
            .stderr(log);
        let child = self.topology.node.run(|| command.spawn()).map_err(setup)?;
        let child = self.child.insert(child.map_err(setup)?);
        let begun = Instant::now();
        loop {
            let said = fs::read_to_string(&self.log).unwrap_or_default();
            if said.contains(READY) {
                std::thread::sleep(LINKS);
                return Ok(());
            }
            let ended = child.try_wait().map_err(setup)?.is_some();
            if ended || begun.elapsed() > PATIENCE {
                let line = said.lines().rev().find(|line| !line.is_empty());
                let line = line.unwrap_or("it says nothing").to_owned();
                self.leave();
                return Err(setup(format!("{PROGRAM} with {}: {line}", self.driver)));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn leave(&mut self) {
        if let Some(mut child) = self.child.take() {
            let pid = rustix::process::Pid::from_child(&child);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let begun = Instant::now();
            while begun.elapsed() < ENDING && matches!(child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_file(&self.log);
    }
}

impl Drop for Dpdk {
    fn drop(&mut self) {
        self.leave();
    }
}
