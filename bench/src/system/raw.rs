//! AF_XDP forwarding without policy: what Weir's sockets can do at most.
//!
//! The same rings, copy mode, bursts and waiting as a worker's; a packet gets other MACs and
//! leaves by the other port, and that is all.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use dataplane::Time;
use dataplane::polling::{Next, PollWindow, Polling};
use dataplane::snapshot::Role;
use dataplane::xdp::Programs;
use dataplane::xsk::{
    Burst, Frame, Kick, Magazine, PortOptions, PortSocket, Rejected, TxChecksum, Umem,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::sched_yield;

use super::forwarder::Forwarder;
use super::setup;
use super::topology::{Topology, pins};
use super::traffic::{now, pin};
use crate::error::BenchError;

/// Chunks of packet memory, as Weir has in these measurements.
const CHUNKS: u32 = 16384;
/// How it polls on and sleeps, as a worker does unless told otherwise.
const POLLING: Polling = Polling::Adaptive {
    longest: Duration::from_micros(config::limits::POLL_WINDOW_US as u64),
};
/// The longest sleep, as a worker's.
const SLEEP_MAX: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};
const ETHERNET: usize = 14;

/// A thread that forwards.
pub struct Raw {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    mode: String,
    topology: Topology,
}

struct Port {
    socket: PortSocket,
    /// Destination and source of what leaves by it.
    macs: [u8; 12],
    dirty: bool,
}

impl Raw {
    /// Starts it on that core.
    pub fn start(number: u32, core: u16) -> Result<Raw, BenchError> {
        let topology = Topology::create(number, 2)?;
        let folder = pins(&topology.name);
        let umem = Umem::in_memory(CHUNKS, 2048).map_err(setup)?;
        let open = || -> Result<(Programs, Vec<Port>), BenchError> {
            let mut programs = Programs::load(&folder, 2).map_err(setup)?;
            let mut ports = Vec::new();
            for pod in &topology.pods {
                programs.attach(Role::Pod, pod.outer).map_err(setup)?;
                let options = PortOptions::new(pod.outer, 0);
                let socket = PortSocket::open(&umem, &options).map_err(setup)?;
                programs
                    .set_socket(pod.outer, 0, socket.as_fd())
                    .map_err(setup)?;
                let mut macs = [0; 12];
                macs[..6].copy_from_slice(&pod.party.mac);
                macs[6..].copy_from_slice(&pod.router);
                ports.push(Port {
                    socket,
                    macs,
                    dirty: false,
                });
            }
            Ok((programs, ports))
        };
        let (programs, mut ports) = topology.node.run(open).map_err(setup)??;
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let _programs = programs;
            let mut magazine = umem.magazine();
            if pin(core.into()).is_ok() {
                forward(&mut ports, &umem, &mut magazine, &asked);
            }
        });
        Ok(Raw {
            stop,
            thread: Some(thread),
            mode: format!("AF_XDP copy, one thread on core {core}"),
            topology,
        })
    }
}

impl Forwarder for Raw {
    fn name(&self) -> &str {
        "AF_XDP forwarding, no policy"
    }

    fn mode(&self) -> &str {
        &self.mode
    }

    fn topology(&self) -> &Topology {
        &self.topology
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_dir_all(pins(&self.topology.name));
    }
}

fn forward(ports: &mut [Port], umem: &Umem, magazine: &mut Magazine, stop: &AtomicBool) {
    let mut burst = Burst::new();
    let mut window = PollWindow::new(POLLING, Time(now()));
    for port in ports.iter_mut() {
        port.socket.refill(magazine);
    }
    while !stop.load(Ordering::Relaxed) {
        let (mut busy, time) = (false, Time(now()));
        for at in 0..ports.len() {
            let Ok([one, two]) = ports.get_disjoint_mut([at, 1 - at]) else {
                return;
            };
            one.socket.complete(magazine);
            one.socket.refill(magazine);
            if one.socket.receive(&mut burst, magazine) == 0 {
                continue;
            }
            busy = true;
            for received in burst.drain(..) {
                if let Err(frame) = pass(two, received.frame, received.len, umem, magazine) {
                    magazine.give(frame);
                }
            }
        }
        for port in ports.iter_mut().filter(|port| port.dirty) {
            port.dirty = port.socket.kick() == Kick::Pending;
            busy |= port.dirty;
        }
        match window.looked(busy, time) {
            Next::Poll => {}
            Next::Yield => sched_yield(),
            Next::Sleep => {
                let mut sockets: Vec<PollFd<'_>> = ports
                    .iter()
                    .map(|port| PollFd::new(&port.socket, PollFlags::IN))
                    .collect();
                let ready = poll(&mut sockets, Some(&SLEEP_MAX));
                window.woke(ready.is_ok_and(|ready| ready > 0), Time(now()));
            }
        }
    }
}

/// Sends a packet by a port; its frame back if there is no room.
fn pass(
    port: &mut Port,
    mut frame: Frame,
    len: u32,
    umem: &Umem,
    magazine: &mut Magazine,
) -> Result<(), Frame> {
    let packet = umem.bytes_mut(&mut frame);
    packet[..12].copy_from_slice(&port.macs);
    let checksum = tcp_checksum(&packet[..len as usize]);
    let mut sent = port.socket.transmit(frame, len, checksum);
    if let Err(Rejected { frame, .. }) = sent {
        // Perhaps only nobody has collected what was sent.
        port.socket.kick();
        port.socket.complete(magazine);
        sent = port.socket.transmit(frame, len, checksum);
    }
    port.dirty |= sent.is_ok();
    sent.map_err(|rejected| rejected.frame)
}

/// TCP between pods of one node has no checksum yet: the receiver is told so.
fn tcp_checksum(packet: &[u8]) -> Option<TxChecksum> {
    let is_tcp = packet.len() >= ETHERNET + 40
        && packet[12..14] == [8, 0]
        && packet[ETHERNET + 9] == 6
        && packet[ETHERNET] == 0x45;
    is_tcp.then_some(TxChecksum {
        start: (ETHERNET + 20) as u16,
        offset: 16,
    })
}
