//! A worker: one thread on one core that takes packets from the ports it owns to wherever they go.
//!
//! Run to completion: a burst is received, processed and handed to transmit rings before the next
//! one. The worker owns the RX, fill and completion rings of its ports and has a TX-only socket to
//! every port that others own, so that it never hands a packet to another thread. Only fragments
//! ahead of their datagram's first stay with it for longer ([`Held`]).
//!
//! Ports that have work are polled, busy ones always; the others are watched by epoll, since looking at
//! 250 empty rings costs more than the packets do. A worker without work polls on for a while
//! ([`crate::polling`]), then sleeps ([`sleep`]).

mod chain;
mod ports;
mod recorder;
mod sleep;
mod turns;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arrayvec::ArrayVec;
use rustix::event::Timespec;
use rustix::thread::{CpuSet, sched_setaffinity, sched_yield};
use rustix::time::{ClockId, clock_gettime};

use self::ports::Ports;
pub(crate) use self::ports::{PortEnds, SharedEnd};
use self::recorder::Moment;
pub(crate) use self::recorder::Recorder;
pub(crate) use self::sleep::Wake;
use self::sleep::{READY_MAX, Sleeper};
use self::turns::Round;
use crate::conntrack::{Storage, Table};
use crate::counters::{Counter, Counters};
use crate::events::EventQueue;
use crate::fragments::{self, Held, Released, Ticket};
use crate::pipeline::{self, BURST_MAX, Lanes, Limiters, Outcome, Tables};
use crate::polling::{Next, PollWindow, Polling};
use crate::service::Affinity;
use crate::snapshot::{PortId, SnapshotReader};
use crate::xsk::{Burst, Frame, Holdings, Magazine, Received, Umem};
use crate::{DropReason, Time};

/// Rounds between two looks at the ports that are not polled.
const ROUNDS_BETWEEN_LOOKS: u32 = 16;
/// Rounds between two collections of what others have sent by our ports.
const ROUNDS_BETWEEN_REAPS: u32 = 8;
/// The longest sleep: what was missed is found after it at the latest.
const SLEEP_MAX: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// The longest sleep of a worker that holds fragments: another worker may receive what they wait for.
const SLEEP_HOLDING: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 1_000_000,
};

/// The monotonic clock.
pub(crate) fn now() -> Time {
    let t = clock_gettime(ClockId::Monotonic);
    // Neither part is negative on a monotonic clock.
    Time(
        (t.tv_sec as u64)
            .saturating_mul(1_000_000_000)
            .saturating_add(t.tv_nsec as u64),
    )
}

/// What control asks of a worker, between bursts.
#[derive(Debug)]
pub(crate) enum Command {
    /// Takes part in a port.
    AddPort(PortId, Box<PortEnds>),
    /// Gives back the sockets of a port, so that control closes them.
    RemovePort(PortId, SyncSender<PortEnds>),
    /// Waits until all workers wait, then says what it has and waits for the end of the audit.
    Audit(AuditTurn),
    /// Records packets from now on, or none any more; gives back the recorder before, so that control
    /// frees it.
    Record(Option<Box<Recorder>>, SyncSender<Option<Box<Recorder>>>),
    /// Ends.
    Stop,
}

/// A worker's part in an audit.
#[derive(Debug)]
pub(crate) struct AuditTurn {
    /// Says that the worker moves no frame from now on.
    pub waits: SyncSender<()>,
    /// Ends when every worker waits.
    pub all_wait: Receiver<()>,
    /// Takes what the worker has.
    pub told: SyncSender<Holdings>,
    /// Ends with the audit.
    pub done: Receiver<()>,
}

/// The longest that a worker lets packets wait for each half of an audit.
pub(crate) const AUDIT_PAUSE: Duration = Duration::from_millis(200);

/// What all workers share.
pub(crate) struct Shared<S> {
    pub conntrack: Table<S>,
    pub fragments: fragments::Table,
    pub affinity: Affinity,
    pub counters: Counters,
    /// One queue per worker.
    pub events: Box<[EventQueue]>,
    pub umem: Arc<Umem>,
    pub ports_max: u16,
    pub polling: Polling,
}

/// Control's side of a worker.
#[derive(Debug)]
pub(crate) struct WorkerHandle {
    pub wake: Arc<Wake>,
    pub mailbox: std::sync::mpsc::Sender<Command>,
    pub thread: Option<JoinHandle<()>>,
}

impl WorkerHandle {
    /// Sends a command and wakes the worker; false if it has ended.
    pub(crate) fn send(&self, command: Command) -> bool {
        let sent = self.mailbox.send(command).is_ok();
        self.wake.wake();
        sent
    }
}

/// Starts worker number `index` on `core`.
pub(crate) fn start<S: Storage + 'static>(
    index: usize,
    core: usize,
    shared: Arc<Shared<S>>,
    reader: SnapshotReader,
) -> std::io::Result<WorkerHandle> {
    let sleeper = Sleeper::new()?;
    let wake = sleeper.wake();
    let (mailbox, commands) = std::sync::mpsc::channel();
    let (report, pinned) = std::sync::mpsc::sync_channel(1);
    let worker = move || {
        let mut cores = CpuSet::new();
        cores.set(core);
        let result = sched_setaffinity(None, &cores);
        let failed = result.is_err();
        // The receiver waits for exactly this message.
        let _ = report.send(result);
        if !failed {
            Worker::new(index, shared, reader, sleeper, commands).run();
        }
    };
    let thread = thread::Builder::new()
        .name(format!("weir-worker-{index}"))
        .spawn(worker)?;
    match pinned.recv() {
        Ok(Ok(())) => Ok(WorkerHandle {
            wake,
            mailbox,
            thread: Some(thread),
        }),
        Ok(Err(errno)) => Err(errno.into()),
        Err(_) => Err(std::io::ErrorKind::BrokenPipe.into()),
    }
}

/// Where the packets of a burst come from.
enum Origin<'a> {
    /// All of them from this port, just now.
    Port(PortId),
    /// They were held, by these tickets.
    Held(&'a [Ticket]),
}

impl<'a> Origin<'a> {
    fn ticket(&self, number: usize) -> Option<&'a Ticket> {
        match self {
            Origin::Port(_) => None,
            Origin::Held(tickets) => tickets.get(number),
        }
    }

    /// `number` is below the length of the burst, and so of the tickets.
    fn ingress(&self, number: usize) -> PortId {
        match self {
            Origin::Port(port) => *port,
            Origin::Held(tickets) => tickets[number].ingress(),
        }
    }
}

/// Fragments that were held, and go through the pipeline again.
#[derive(Default)]
struct Again {
    tickets: ArrayVec<Ticket, BURST_MAX>,
    frames: Burst,
}

impl Again {
    fn push(&mut self, released: Released<Frame>) {
        self.tickets.push(released.ticket);
        self.frames.push(Received {
            frame: released.frame,
            len: released.len as u32,
            continues: false,
        });
    }
}

struct Worker<S> {
    index: usize,
    shared: Arc<Shared<S>>,
    reader: SnapshotReader,
    sleeper: Sleeper,
    commands: Receiver<Command>,
    ports: Ports,
    magazine: Magazine,
    limiters: Limiters,
    /// Fragments ahead of their first.
    held: Held<Frame>,
    lanes: Box<Lanes>,
    turns: Round,
    /// While somebody captures.
    recorder: Option<Box<Recorder>>,
}

impl<S: Storage> Worker<S> {
    fn new(
        index: usize,
        shared: Arc<Shared<S>>,
        reader: SnapshotReader,
        sleeper: Sleeper,
        commands: Receiver<Command>,
    ) -> Self {
        Worker {
            magazine: shared.umem.magazine(),
            limiters: Limiters::new(shared.ports_max),
            held: Held::new(&shared.fragments),
            lanes: Box::default(),
            index,
            shared,
            reader,
            sleeper,
            commands,
            ports: Ports::default(),
            turns: Round::default(),
            recorder: None,
        }
    }

    fn run(mut self) {
        let mut round = 0u32;
        let mut window = PollWindow::new(self.shared.polling, now());
        let mut ready = ArrayVec::new();
        let mut busy_since: Option<Time> = None;
        while self.obey() {
            // Nothing decided under the old snapshot is left: a round ends with every packet of
            // its bursts on a TX ring or back in the magazine. Fragments that are held are undecided:
            // when they are released, all of it is asked anew of the snapshot of that moment.
            self.reader.refresh();
            if round.is_multiple_of(ROUNDS_BETWEEN_REAPS) {
                self.ports.reap(&mut self.magazine);
            }
            let time = now();
            if let Some(since) = busy_since.take()
                && let Some(counters) = self.shared.counters.shard(self.index)
            {
                counters.add(Counter::BusyNanoseconds, time.since(since));
            }
            if round.is_multiple_of(ROUNDS_BETWEEN_LOOKS) {
                self.sleeper.poll(&mut ready);
                self.ports.activate(&ready);
                self.ports.sort(&self.sleeper, time);
            }
            round = round.wrapping_add(1);
            let packets = self.visit_ports(time);
            busy_since = (packets > 0).then_some(time);
            let under_way = self.ports.kick();
            self.ports.settle();
            match window.looked(packets > 0 || under_way, time) {
                Next::Poll => {}
                Next::Yield => sched_yield(),
                Next::Sleep => {
                    if !self.rest(&mut ready) {
                        return;
                    }
                    window.woke(!ready.is_empty(), now());
                    round = 0;
                }
            }
        }
    }

    /// Carries out what control asks; false when it asks to end.
    fn obey(&mut self) -> bool {
        loop {
            match self.commands.try_recv() {
                Ok(command) => {
                    if !self.carry_out(command) {
                        return false;
                    }
                }
                Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    fn carry_out(&mut self, command: Command) -> bool {
        match command {
            Command::AddPort(port, ends) => {
                self.ports
                    .add(port, *ends, &self.sleeper, &mut self.magazine);
            }
            Command::RemovePort(port, reply) => {
                self.let_go(port);
                // If control does not wait any more, the sockets close here.
                let _ = reply.send(self.ports.remove(port, &self.sleeper));
            }
            Command::Audit(turn) => self.take_part(&turn),
            Command::Record(recorder, reply) => {
                // If control does not wait any more, the old one is freed here.
                let _ = reply.send(std::mem::replace(&mut self.recorder, recorder));
            }
            Command::Stop => {
                let Worker {
                    held,
                    magazine,
                    shared,
                    ..
                } = self;
                held.release_all(&shared.fragments, |held| magazine.give(held.frame));
                return false;
            }
        }
        true
    }

    /// Tells what it has while no worker moves a frame. Others' transmissions count with the queue's
    /// owner, so that nobody tells before all wait.
    fn take_part(&mut self, turn: &AuditTurn) {
        // Whoever does not hear of it has given up waiting, and so do we.
        let _ = turn.waits.send(());
        let _ = turn.all_wait.recv_timeout(AUDIT_PAUSE);
        let _ = turn.told.send(Holdings {
            free: self.magazine.chunks().collect(),
            held: self.held.len() as u32,
            queues: self.ports.queue_holdings().collect(),
        });
        let _ = turn.done.recv_timeout(AUDIT_PAUSE);
    }

    /// Sleeps until a port, control or another worker has something for us; false if control asks
    /// to end.
    fn rest(&mut self, ready: &mut ArrayVec<u64, READY_MAX>) -> bool {
        if let Some(counters) = self.shared.counters.shard(self.index) {
            counters.add(Counter::Sleeps, 1);
        }
        let mut command = None;
        let longest = match self.held.is_empty() {
            true => &SLEEP_MAX,
            false => &SLEEP_HOLDING,
        };
        let Worker {
            commands, reader, ..
        } = self;
        let is_idle = || {
            command = commands.try_recv().ok();
            command.is_none() && reader.is_current()
        };
        self.sleeper
            .sleep(longest, &self.ports.busy(), ready, is_idle);
        self.ports.activate(ready);
        command.is_none_or(|command| self.carry_out(command))
    }

    /// One burst from every port that is polled and whose turn it is ([`turns`]); how many packets
    /// there were, and queues that have some still.
    fn visit_ports(&mut self, time: Time) -> usize {
        let (mut packets, mut position) = (0, 0);
        let mut received = Burst::new();
        while let Some(place) = self.ports.polled(position) {
            position += 1;
            if self.ports.gives_up_turn(place, &self.turns) {
                self.turns.has_packets();
                packets += 1;
                if let Some(counters) = self.shared.counters.shard(self.index) {
                    counters.add(Counter::TurnsGivenUp, 1);
                }
                continue;
            }
            let magazine = &mut self.magazine;
            let Some((ingress, refused)) = self.ports.receive(place, magazine, &mut received)
            else {
                continue;
            };
            if refused.packets > 0
                && let Some(counters) = self.shared.counters.shard(self.index)
            {
                let packets = u64::from(refused.packets);
                counters.received_all(ingress, packets, refused.bytes);
                for _ in 0..packets {
                    counters.dropped(ingress, DropReason::MultiBuffer);
                }
            }
            if !received.is_empty() {
                packets += received.len();
                self.turns.has_packets();
                let before = self.flow_decisions();
                self.process(&Origin::Port(ingress), &mut received, time);
                self.ports.opened(place, self.flow_decisions() - before);
            }
        }
        self.turns.end();
        self.release(time);
        packets
    }

    fn flow_decisions(&self) -> u64 {
        let counters = self.shared.counters.shard(self.index);
        counters.map_or(0, |counters| counters.count(Counter::FlowDecisions))
    }

    /// Takes up the held fragments that can be decided, or have waited for too long.
    fn release(&mut self, time: Time) {
        if self.held.is_empty() {
            return;
        }
        let mut again = Again::default();
        let table = &self.shared.fragments;
        self.held
            .release(table, time, BURST_MAX, |held| again.push(held));
        self.process_again(again, time);
    }

    /// Takes up the fragments that came in by a port that goes: the snapshot has it no more.
    fn let_go(&mut self, port: PortId) {
        let time = now();
        loop {
            let mut again = Again::default();
            let table = &self.shared.fragments;
            let each = |held| again.push(held);
            self.held.release_port(table, port, BURST_MAX, each);
            if again.tickets.is_empty() {
                return;
            }
            self.process_again(again, time);
        }
    }

    fn process_again(&mut self, again: Again, time: Time) {
        let Again {
            tickets,
            mut frames,
        } = again;
        if !frames.is_empty() {
            self.process(&Origin::Held(&tickets), &mut frames, time);
        }
    }

    /// Takes packets of one origin to wherever they go.
    fn process(&mut self, origin: &Origin<'_>, received: &mut Burst, time: Time) {
        let Worker {
            shared,
            ports,
            magazine,
            reader,
            limiters,
            held,
            lanes,
            recorder,
            ..
        } = self;
        let shards = (
            shared.counters.shard(self.index),
            shared.events.get(self.index),
        );
        let (Some(counters), Some(events)) = shards else {
            return;
        };
        let mut outcomes: ArrayVec<Outcome, BURST_MAX> = ArrayVec::new();
        {
            let mut rests = chain::Rests::new();
            let mut burst = ArrayVec::new();
            chain::collect(&shared.umem, origin, received, &mut burst, &mut rests);
            rests.give_to(&mut burst);
            if let Some(recorder) = recorder {
                recorder.copy(&burst, reader.current());
            }
            let mut tables = Tables {
                conntrack: &shared.conntrack,
                fragments: &shared.fragments,
                affinity: &shared.affinity,
                counters,
                events,
                limiters,
                checksum_offload: ports.checksum_offload(),
            };
            pipeline::process(
                &mut burst,
                lanes,
                &mut tables,
                reader.current(),
                time,
                &mut outcomes,
            );
        }
        let moment = Moment {
            conntrack: &shared.conntrack,
            snapshot: reader.current(),
            now: time,
        };
        let mut frames = received.drain(..);
        for (number, outcome) in outcomes.drain(..).enumerate() {
            let Some(first) = frames.next() else {
                break;
            };
            let ingress = origin.ingress(number);
            if first.continues {
                let parts = chain::parts(first, &mut frames);
                if let Some(recorder) = recorder {
                    let bytes = chain::bytes(&shared.umem, &parts, &outcome);
                    recorder.write(&moment, origin, number, &outcome, bytes);
                }
                let sent = chain::send(parts, &outcome, ports, magazine);
                outcome.account(counters, ingress, sent);
                if let Some(recorder) = recorder {
                    recorder.publish(sent);
                }
                continue;
            }
            if let Some(recorder) = recorder {
                let bytes = std::iter::once(shared.umem.bytes(&first.frame));
                recorder.write(&moment, origin, number, &outcome, bytes);
            }
            if let Outcome::Hold(ticket) = outcome {
                let frame = (first.frame, first.len as usize);
                if let Err(frame) = held.keep(&shared.fragments, ticket, frame, time) {
                    magazine.give(frame);
                    counters.dropped(ingress, DropReason::Internal);
                }
                continue;
            }
            let mut sent = Ok(());
            match outcome.transmission() {
                None => magazine.give(first.frame),
                Some(transmission) => {
                    let taken = ports.transmit(first.frame, transmission, magazine);
                    sent = taken.map_err(|(frame, reason)| {
                        magazine.give(frame);
                        reason
                    });
                    outcome.account(counters, ingress, sent);
                }
            }
            if let Some(recorder) = recorder {
                recorder.publish(sent);
            }
        }
    }
}
