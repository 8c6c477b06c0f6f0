//! The generator and the sink: AF_XDP on the pods' side of their veths, on one thread, so that the
//! other core is the forwarder's alone.
//!
//! Packets are sent by a schedule and carry the time at which they were due, so that a sender that
//! was kept waiting shows in the latencies and does not hide them (coordinated omission).

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dataplane::snapshot::Role;
use dataplane::xdp::{Attachment, Programs};
use dataplane::xsk::{Burst, Kick, Magazine, PortOptions, PortSocket, Rejected, Umem};
use hdrhistogram::Histogram;
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use super::frame::{self, FRAME, Stamp, Template};
use super::interrupt::Interrupt;
use super::setup;
use super::topology::{Pod, Topology, pins};
use crate::error::BenchError;

/// Packets handed over at once.
const BATCH: u64 = 64;
/// Packets that a sender may be behind before it gives the schedule up: no forwarder has room for
/// more at once.
const BEHIND_MAX: u64 = 128;
/// Chunks of an end's packet memory.
const CHUNKS: u32 = 8192;
/// Entries of an end's rings: a millisecond of packets.
const RING: u32 = 2048;
/// How long packets may be under way after the last was sent.
const DRAIN_NS: u64 = 20_000_000;
/// How long the flows may take to be established.
const PRIME_NS: u64 = 10_000_000_000;
/// Longer latencies count as this long.
const LONGEST_NS: u64 = 10_000_000_000;

/// Nanoseconds of the monotonic clock.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    (time.tv_sec as u64) * 1_000_000_000 + time.tv_nsec as u64
}

/// An empty histogram of nanoseconds.
pub fn histogram() -> Result<Histogram<u64>, BenchError> {
    Histogram::new_with_bounds(1, LONGEST_NS, 3).map_err(setup)
}

/// Runs on a thread of its own on that core.
pub fn pinned<T: Send>(
    core: usize,
    work: impl FnOnce() -> Result<T, BenchError> + Send,
) -> Result<T, BenchError> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            pin(core)?;
            work()
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Keeps the calling thread on that core.
pub fn pin(core: usize) -> Result<(), BenchError> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).map_err(setup)
}

/// A pod's end of its veth.
struct End {
    umem: Arc<Umem>,
    magazine: Magazine,
    socket: PortSocket,
    programs: Programs,
    attachment: Option<Attachment>,
    folder: PathBuf,
    burst: Burst,
}

impl End {
    fn open(pod: &Pod, name: &str) -> Result<End, BenchError> {
        let folder = pins(name);
        let open = || -> Result<End, BenchError> {
            let mut programs = Programs::load(&folder, 2).map_err(setup)?;
            let attachment = programs.attach(Role::HostNode, pod.inner).map_err(setup)?;
            let umem = Umem::in_memory(CHUNKS, 2048).map_err(setup)?;
            let options = PortOptions {
                rx_entries: RING,
                tx_entries: RING,
                fill_idle: RING,
                in_flight_max: RING,
                ..PortOptions::new(pod.inner, 0)
            };
            let mut socket = PortSocket::open(&umem, &options).map_err(setup)?;
            programs
                .set_socket(pod.inner, 0, socket.as_fd())
                .map_err(setup)?;
            let mut magazine = umem.magazine();
            socket.refill(&mut magazine);
            Ok(End {
                magazine,
                umem,
                socket,
                programs,
                attachment: Some(attachment),
                folder: folder.clone(),
                burst: Burst::new(),
            })
        };
        pod.namespace.run(open).map_err(setup)?
    }

    /// Queues one packet; whether there was room.
    fn send(&mut self, write: impl FnOnce(&mut [u8])) -> bool {
        let Some(mut frame) = self.magazine.take() else {
            return false;
        };
        write(&mut self.umem.bytes_mut(&mut frame)[..FRAME]);
        match self.socket.transmit(frame, FRAME as u32, None) {
            Ok(()) => true,
            Err(Rejected { frame, .. }) => {
                self.magazine.give(frame);
                false
            }
        }
    }

    /// Hands over what was queued and collects what was sent.
    fn kick(&mut self) -> Result<(), BenchError> {
        let kick = self.socket.kick();
        self.socket.complete(&mut self.magazine);
        match kick {
            Kick::Done | Kick::Pending => Ok(()),
            kick => Err(setup(format!("a pod's socket does not send: {kick:?}"))),
        }
    }

    /// Shows each received packet of ours.
    fn receive(&mut self, mut each: impl FnMut(&[u8], Stamp)) -> usize {
        self.burst.clear();
        let count = self.socket.receive(&mut self.burst, &mut self.magazine);
        for received in self.burst.drain(..) {
            let bytes = self.umem.bytes(&received.frame);
            let packet = bytes.get(..received.len as usize).unwrap_or(bytes);
            if let Some(stamp) = frame::stamp(packet) {
                each(packet, stamp);
            }
            self.magazine.give(received.frame);
        }
        if count > 0 {
            self.socket.refill(&mut self.magazine);
        }
        count
    }
}

/// Which flows a trial's packets belong to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flows {
    /// So many, in turn, established before.
    Established(u32),
    /// Every packet its own, counted from here on.
    New(u32),
}

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    /// Packets a second; none sends as fast as it can.
    pub rate: Option<f64>,
    /// For how long.
    pub duration: Duration,
    /// Packets at most.
    pub packets: u64,
    /// The flows.
    pub flows: Flows,
    /// Whether what could not be sent in time is sent late, as latencies want it, or not at all.
    pub late: bool,
}

/// What became of a trial.
#[derive(Debug)]
pub struct Outcome {
    /// Packets sent.
    pub sent: u64,
    /// Packets that arrived.
    pub received: u64,
    /// Packets that arrived behind a later one of the same trial.
    pub reordered: u64,
    /// Seconds in which packets were sent.
    pub sending_s: f64,
    /// Seconds until the last one arrived.
    pub whole_s: f64,
    /// From the time that a packet was due until the sink had it, nanoseconds.
    pub latency: Histogram<u64>,
}

impl Outcome {
    /// The share of packets that were lost.
    pub fn loss(&self) -> f64 {
        1.0 - self.received as f64 / self.sent.max(1) as f64
    }

    /// Packets a second that arrived.
    pub fn forwarded(&self) -> f64 {
        self.received as f64 / self.whole_s.max(1e-9)
    }

    /// Packets a second that were sent.
    pub fn offered(&self) -> f64 {
        self.sent as f64 / self.sending_s.max(1e-9)
    }
}

/// The generator in the first pod and the sink in the second.
pub struct Traffic {
    ends: [End; 2],
    templates: [Template; 2],
    trial: u16,
    interrupt: Interrupt,
}

impl Traffic {
    /// Opens the pods' ends; their own stacks hear nothing until it is dropped.
    pub fn open(topology: &Topology, interrupt: &Interrupt) -> Result<Traffic, BenchError> {
        let [a, b] = [&topology.pods[0], &topology.pods[1]];
        let open = |pod: &Pod, suffix: &str| End::open(pod, &format!("{}{suffix}", topology.name));
        Ok(Traffic {
            ends: [open(a, "-a")?, open(b, "-b")?],
            templates: [
                Template::new(a.party, b.party, a.router),
                Template::new(b.party, a.party, b.router),
            ],
            trial: 0,
            interrupt: interrupt.clone(),
        })
    }

    /// Sends a packet of every flow and its answer, until all have been answered.
    pub fn prime(&mut self, flows: u32) -> Result<(), BenchError> {
        let begun = now();
        let mut waiting: Vec<bool> = vec![true; flows as usize];
        let mut left = flows;
        self.trial = self.trial.wrapping_add(1);
        let trial = self.trial;
        let [there, back] = self.templates;
        let [a, b] = &mut self.ends;
        let mut next = 0;
        while left > 0 {
            if now() - begun > PRIME_NS {
                return Err(setup(format!(
                    "{left} of {flows} flows were not answered: packets do not pass both ways"
                )));
            }
            self.interrupt.check()?;
            // Few at a time, so that none is lost; what was lost is sent again.
            for _ in 0..flows.min(32) {
                next = (next + 1) % flows;
                let stamp = Stamp {
                    trial,
                    sequence: u64::from(next),
                    due: 0,
                };
                if waiting[next as usize] {
                    a.send(|into| there.write(into, next, stamp));
                }
            }
            a.kick()?;
            let until = now() + 200_000;
            while now() < until {
                let mut packets = Vec::new();
                b.receive(|packet, _| packets.push(<[u8; FRAME]>::try_from(&packet[..FRAME])));
                for packet in packets.iter().flatten() {
                    b.send(|into| frame::answer(packet, &back, into));
                }
                b.kick()?;
                a.receive(|_, stamp| {
                    let at = stamp.sequence as usize;
                    if stamp.trial == trial && waiting.get(at) == Some(&true) {
                        waiting[at] = false;
                        left -= 1;
                    }
                });
            }
        }
        Ok(())
    }

    /// Sends and counts. The calling thread does nothing else meanwhile, and never sleeps.
    pub fn run(&mut self, trial: &Trial) -> Result<Outcome, BenchError> {
        self.trial = self.trial.wrapping_add(1);
        let number = self.trial;
        let [template, _] = self.templates;
        let [source, sink] = &mut self.ends;
        // What is left of the last trial.
        while sink.receive(|_, _| ()) > 0 {}
        let mut latency = histogram()?;
        let (mut sent, mut received, mut reordered, mut expected) = (0, 0, 0, 0);
        let begun = now();
        let mut schedule = begun as f64;
        let duration = trial.duration.as_nanos() as u64;
        let gap = trial.rate.map(|rate| 1e9 / rate);
        let (mut last_sent, mut last_received) = (begun, begun);
        loop {
            let time = now();
            let sending = time - begun < duration && sent < trial.packets;
            if sending {
                let due = gap.map_or(BATCH, |gap| {
                    let due = (time as f64 - schedule) / gap;
                    if due < 0.0 { 0 } else { due as u64 + 1 }
                });
                if let Some(gap) = gap
                    && due > BEHIND_MAX
                    && !trial.late
                {
                    schedule = time as f64 - BATCH as f64 * gap;
                }
                let mut batch = 0;
                while batch < due.min(BATCH) && sent < trial.packets {
                    let flow = match trial.flows {
                        Flows::Established(flows) => (sent % u64::from(flows)) as u32,
                        Flows::New(first) => first.wrapping_add(sent as u32),
                    };
                    let stamp = Stamp {
                        trial: number,
                        sequence: sent,
                        due: if gap.is_some() { schedule as u64 } else { time },
                    };
                    if !source.send(|into| template.write(into, flow, stamp)) {
                        break;
                    }
                    schedule += gap.unwrap_or(0.0);
                    sent += 1;
                    batch += 1;
                }
                if batch > 0 || due > 0 {
                    source.kick()?;
                    last_sent = now();
                }
            } else if (received == sent) || time - last_sent.max(last_received) > DRAIN_NS {
                break;
            } else {
                source.kick()?;
            }
            let arrival = now();
            let mut last = last_received;
            // More than one burst, or the sink would fall behind the source.
            for _ in 0..4 {
                let count = sink.receive(|_, stamp| {
                    if stamp.trial != number {
                        return;
                    }
                    received += 1;
                    reordered += u64::from(stamp.sequence < expected);
                    expected = expected.max(stamp.sequence);
                    latency.saturating_record(arrival.saturating_sub(stamp.due).max(1));
                    last = arrival;
                });
                if count < dataplane::xsk::BURST {
                    break;
                }
            }
            last_received = last;
            if self.interrupt.is_set() {
                return Err(BenchError::Interrupted);
            }
        }
        Ok(Outcome {
            sent,
            received,
            reordered,
            sending_s: (last_sent - begun) as f64 / 1e9,
            whole_s: (last_sent.max(last_received) - begun) as f64 / 1e9,
            latency,
        })
    }
}

impl Drop for End {
    fn drop(&mut self) {
        // The pod's own stack gets its packets back.
        if let Some(attachment) = self.attachment.take() {
            let _ = self.programs.detach(attachment);
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
