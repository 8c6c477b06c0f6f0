//! Two workers with a port each, which pass every frame on unchanged, as a wire would.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use dataplane::snapshot::Role;
use dataplane::xdp::Programs;
use dataplane::xsk::{
    Burst, Counters, Magazine, Part, Parts, PortOptions, PortSocket, TransmitSocket, TxChecksum,
    Umem,
};

pub struct Forwarder {
    programs: Programs,
    umem: Arc<Umem>,
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<Worker>>,
}

#[derive(Debug)]
pub struct Report {
    pub counters: Counters,
    /// Packets whose checksum was left to the kernel.
    pub offloaded: u64,
    /// Frames whose packet continued in the next.
    pub continued: u64,
}

struct Worker {
    port: PortSocket,
    other: TransmitSocket,
    magazine: Magazine,
    parts: Parts,
    offloaded: u64,
    continued: u64,
}

impl Forwarder {
    pub fn start(pins: &Path, umem: &Arc<Umem>, ports: &[u32; 2], parts: bool) -> Forwarder {
        let mut programs = Programs::load(pins, 16).unwrap();
        let sockets = ports.map(|port| {
            programs.attach(Role::Pod, port).unwrap();
            let mut options = PortOptions::new(port, 0);
            options.multi_buffer = parts;
            options.fill_idle = 64;
            let mut socket = PortSocket::open(umem, &options).unwrap();
            let mut magazine = umem.magazine();
            socket.refill(&mut magazine);
            programs.set_socket(port, 0, socket.as_fd()).unwrap();
            socket
        });
        let stop = Arc::new(AtomicBool::new(false));
        let others = [&sockets[1], &sockets[0]].map(|s| TransmitSocket::open(s.pool()).unwrap());
        let workers = sockets
            .into_iter()
            .zip(others)
            .map(|(port, other)| {
                let (stop, magazine) = (Arc::clone(&stop), umem.magazine());
                let mut worker = Worker {
                    port,
                    other,
                    magazine,
                    parts: Parts::new(),
                    offloaded: 0,
                    continued: 0,
                };
                thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        worker.visit();
                    }
                    worker
                })
            })
            .collect();
        Forwarder {
            programs,
            umem: Arc::clone(umem),
            stop,
            workers,
        }
    }

    /// Stops both workers, waits for what is under way, closes the sockets and fetches the frames.
    pub fn stop(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let mut workers: Vec<Worker> = self
            .workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .collect();
        let start = Instant::now();
        while workers
            .iter()
            .any(|worker| worker.port.pool().in_flight() > 0)
        {
            workers.iter_mut().for_each(Worker::settle);
            assert!(
                start.elapsed() < Duration::from_secs(5),
                "frames stay under way"
            );
        }
        let mut report = Report {
            counters: Counters::default(),
            offloaded: 0,
            continued: 0,
        };
        for worker in workers {
            report.counters = report.counters + worker.port.counters() + worker.other.counters();
            report.offloaded += worker.offloaded;
            report.continued += worker.continued;
        }
        drop(self.programs);
        self.umem.reclaim();
        report
    }
}

impl Worker {
    fn visit(&mut self) {
        self.port.complete(&mut self.magazine);
        self.port.refill(&mut self.magazine);
        let mut burst = Burst::new();
        if self.port.receive(&mut burst, &mut self.magazine) == 0 {
            self.settle();
            thread::yield_now();
            return;
        }
        for received in burst.drain(..) {
            self.continued += u64::from(received.continues);
            self.parts.push(Part {
                frame: received.frame,
                len: received.len,
            });
            if received.continues {
                continue;
            }
            let first = &self.parts[0];
            let umem = Arc::clone(self.magazine.umem());
            let bytes = &umem.bytes(&first.frame)[..first.len as usize];
            let total: u32 = self.parts.iter().map(|part| part.len).sum();
            let checksum = left_to_us(bytes, total);
            self.offloaded += u64::from(checksum.is_some());
            let _full = self.other.transmit_parts(&mut self.parts, checksum);
            // Emptied, unless the way out is full: then the packet is dropped.
            for part in self.parts.drain(..) {
                self.magazine.give(part.frame);
            }
        }
        self.other.kick();
    }

    fn settle(&mut self) {
        self.other.kick();
        self.port.kick();
        self.port.complete(&mut self.magazine);
    }
}

/// Whether a TCP or UDP packet's checksum field holds only the pseudo-header's sum. `total` is the
/// whole packet's length; both families without options or extension headers, as the tests send.
fn left_to_us(bytes: &[u8], total: u32) -> Option<TxChecksum> {
    let word = |at: usize| {
        Some(u32::from(u16::from_be_bytes(
            bytes.get(at..at + 2)?.try_into().ok()?,
        )))
    };
    let (protocol, start, addresses) = match word(12)? {
        0x0800 => (*bytes.get(23)?, 34_usize, 26..34),
        0x86dd => (*bytes.get(20)?, 54, 22..54),
        _ => return None,
    };
    let offset = match protocol {
        6 => 16,
        17 => 6,
        _ => return None,
    };
    let mut sum = u32::from(protocol) + total - start as u32;
    for at in addresses.step_by(2) {
        sum += word(at)?;
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (word(start + offset)? == sum).then_some(TxChecksum {
        start: start as u16,
        offset: offset as u16,
    })
}

/// Forwards between two ports until it is killed.
pub fn run_as_daemon(pins: &Path, first: &str, second: &str) -> ! {
    let umem = Umem::in_memory(1024, 4096).unwrap();
    let ports = [first.parse().unwrap(), second.parse().unwrap()];
    let _forwarder = Forwarder::start(pins, &umem, &ports, false);
    loop {
        thread::sleep(Duration::from_secs(60));
    }
}
