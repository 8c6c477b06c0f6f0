//! A worker's part in the ports: what it receives from, and how it sends to each.

use std::os::fd::AsFd;
use std::sync::Arc;

use super::sleep::{BUSY_MAX, Busy, Sleeper, Wake};
use super::turns::{Debt, Round};
use crate::pipeline::Transmission;
use crate::snapshot::PortId;
use crate::xsk::{
    self, Burst, Frame, Kick, Magazine, Parts, PoolId, PortSocket, Refused, TransmitSocket,
};
use crate::{DropReason, Time};

/// Rounds without a packet after which a port is no longer polled but watched.
const QUIET_ROUNDS: u32 = 64;
/// Rounds without headway after which a port that takes nothing no longer keeps us awake.
const STALLED_ROUNDS: u32 = 256;
/// How often queues are sorted into busy and watched ones.
const SORTED_EVERY_NS: u64 = 100_000_000;
/// Packets between two sortings that make a queue busy: 2,000 a second. Fewer cost less in epoll than
/// in longer lists.
const BUSY_PACKETS: u32 = 200;
/// Frames under way through another worker's port at which we see to it that it collects them.
const REAP_AT_IN_FLIGHT: u32 = 64;

/// One worker's sockets of one port.
#[derive(Debug, Default)]
pub(crate) struct PortEnds {
    /// Queues that the worker owns.
    pub owned: Vec<PortSocket>,
    /// How the worker sends to the port if it owns none of its queues.
    pub shared: Option<SharedEnd>,
}

/// A TX-only socket into another worker's queue.
#[derive(Debug)]
pub(crate) struct SharedEnd {
    pub socket: TransmitSocket,
    /// Wakes the queue's owner, who alone collects what was sent.
    pub owner: Arc<Wake>,
}

#[derive(Debug)]
struct Owned {
    port: PortId,
    socket: PortSocket,
    quiet_rounds: u32,
    polled: bool,
    /// Epoll does not watch it, so that it is always polled.
    busy: bool,
    /// Received and sent since queues were last sorted.
    packets: u32,
    /// Of its new flows, turns that it owes to others.
    debt: Debt,
}

/// What one attempt to send goes by.
enum Socket<'a> {
    Owned(&'a mut PortSocket),
    Shared(&'a mut TransmitSocket),
}

fn checksum(transmission: &Transmission) -> Option<xsk::TxChecksum> {
    transmission.checksum.map(|c| xsk::TxChecksum {
        start: c.start,
        offset: c.offset,
    })
}

/// How packets leave by a port.
#[derive(Debug, Default)]
enum Exit {
    #[default]
    None,
    /// By the owned queue in this place.
    Owned(usize),
    Shared(SharedEnd),
}

#[derive(Debug, Default)]
struct PortExit {
    exit: Exit,
    /// It stands in `Ports::dirty`.
    dirty: bool,
    stalled_rounds: u32,
}

/// All ports of a worker.
#[derive(Debug, Default)]
pub(super) struct Ports {
    /// Owned queues; a place is the queue's token in epoll, and is used again.
    owned: Vec<Option<Owned>>,
    /// Places in `owned` that are polled.
    polled: Vec<usize>,
    /// By port number.
    exits: Vec<PortExit>,
    /// By port number: whether the kernel completes checksums on transmission.
    offload: Vec<bool>,
    /// Ports with something on their TX ring.
    dirty: Vec<PortId>,
    sorted: Time,
}

impl Ports {
    /// Takes part in a port.
    pub fn add(
        &mut self,
        port: PortId,
        ends: PortEnds,
        sleeper: &Sleeper,
        magazine: &mut Magazine,
    ) {
        let number = usize::from(port.0);
        if self.exits.len() <= number {
            self.exits.resize_with(number + 1, PortExit::default);
            self.offload.resize(number + 1, false);
        }
        if let Some(shared) = ends.shared {
            self.offload[number] = shared.socket.pool().takes_checksum_offload();
            self.exits[number] = PortExit {
                exit: Exit::Shared(shared),
                ..PortExit::default()
            };
        }
        for mut socket in ends.owned {
            let place = self.free_place();
            // Without the watch the port would be found only while it is polled; that can only
            // fail for want of kernel memory, and the periodic look still finds it.
            let _ = sleeper.watch(&socket, place as u64);
            socket.refill(magazine);
            if matches!(self.exits[number].exit, Exit::None) {
                self.offload[number] = socket.pool().takes_checksum_offload();
                self.exits[number] = PortExit {
                    exit: Exit::Owned(place),
                    ..PortExit::default()
                };
            }
            self.owned[place] = Some(Owned {
                port,
                socket,
                quiet_rounds: 0,
                polled: false,
                busy: false,
                packets: 0,
                debt: Debt::default(),
            });
            self.poll(place);
        }
    }

    fn free_place(&mut self) -> usize {
        let free = self.owned.iter().position(Option::is_none);
        free.unwrap_or_else(|| {
            self.owned.push(None);
            self.owned.len() - 1
        })
    }

    /// Gives up a port: its sockets, for control to close.
    pub fn remove(&mut self, port: PortId, sleeper: &Sleeper) -> PortEnds {
        let mut ends = PortEnds::default();
        for place in 0..self.owned.len() {
            let Some(owned) = self.owned[place].take_if(|owned| owned.port == port) else {
                continue;
            };
            sleeper.unwatch(&owned.socket);
            self.polled.retain(|polled| *polled != place);
            ends.owned.push(owned.socket);
        }
        self.dirty.retain(|dirty| *dirty != port);
        if let Some(exit) = self.exits.get_mut(usize::from(port.0)) {
            if let Exit::Shared(shared) = std::mem::take(exit).exit {
                ends.shared = Some(shared);
            }
            self.offload[usize::from(port.0)] = false;
        }
        ends
    }

    /// By port number, whether the kernel completes checksums on transmission.
    pub fn checksum_offload(&self) -> &[bool] {
        &self.offload
    }

    /// Polls the queues with these tokens from now on.
    pub fn activate(&mut self, tokens: &[u64]) {
        for token in tokens {
            self.poll(*token as usize);
        }
    }

    fn poll(&mut self, place: usize) {
        if let Some(Some(owned)) = self.owned.get_mut(place) {
            owned.quiet_rounds = 0;
            if !owned.polled {
                owned.polled = true;
                self.polled.push(place);
            }
        }
    }

    /// The queue that is polled at `position`, if there are as many.
    pub fn polled(&self, position: usize) -> Option<usize> {
        self.polled.get(position).copied()
    }

    /// Whether the queue at `place` gives up its turn in this round.
    pub fn gives_up_turn(&mut self, place: usize, round: &Round) -> bool {
        let owned = self.owned.get_mut(place).and_then(Option::as_mut);
        owned.is_some_and(|owned| owned.debt.gives_up(round))
    }

    /// After a burst from the queue at `place` that opened so many flows.
    pub fn opened(&mut self, place: usize, new_flows: u64) {
        if let Some(Some(owned)) = self.owned.get_mut(place) {
            owned.debt.incur(new_flows);
        }
    }

    /// Receives a burst from the queue at `place`, after seeing to its other rings. The port, and
    /// what was thrown away because its frames were too many.
    pub fn receive(
        &mut self,
        place: usize,
        magazine: &mut Magazine,
        received: &mut Burst,
    ) -> Option<(PortId, Refused)> {
        received.clear();
        let owned = self.owned.get_mut(place)?.as_mut()?;
        owned.socket.complete(magazine);
        owned.socket.refill(magazine);
        let packets = owned.socket.receive(received, magazine);
        owned.packets = owned.packets.saturating_add(packets as u32);
        owned.quiet_rounds = match packets {
            0 => owned.quiet_rounds.saturating_add(1),
            _ => 0,
        };
        Some((owned.port, owned.socket.take_refused()))
    }

    /// Stops polling queues that have been quiet; epoll watches them.
    pub fn settle(&mut self) {
        let owned = &mut self.owned;
        self.polled.retain(|place| {
            let Some(Some(queue)) = owned.get_mut(*place) else {
                return false;
            };
            queue.polled = queue.busy || queue.quiet_rounds < QUIET_ROUNDS;
            queue.polled
        });
    }

    /// Now and then: leaves queues with many packets to be polled, and lets epoll watch the others.
    pub fn sort(&mut self, sleeper: &Sleeper, time: Time) {
        if time.0.saturating_sub(self.sorted.0) < SORTED_EVERY_NS {
            return;
        }
        self.sorted = time;
        let mut room = BUSY_MAX;
        for place in 0..self.owned.len() {
            let Some(queue) = self.owned[place].as_mut() else {
                continue;
            };
            let busy = std::mem::take(&mut queue.packets) >= BUSY_PACKETS && room > 0;
            room -= usize::from(busy);
            if busy && !queue.busy {
                sleeper.unwatch(&queue.socket);
                queue.busy = true;
                self.poll(place);
            } else if queue.busy && !busy {
                // That fails only for want of kernel memory: then it stays as it is.
                queue.busy = sleeper.watch(&queue.socket, place as u64).is_err();
                room = room.saturating_sub(usize::from(queue.busy));
            }
        }
    }

    /// The queues that epoll does not watch.
    pub fn busy(&self) -> Busy<'_> {
        let polled = self.polled.iter().filter_map(|place| {
            let queue = self.owned.get(*place)?.as_ref()?;
            let socket = queue.busy.then(|| queue.socket.as_fd())?;
            Some((*place as u64, socket))
        });
        polled.take(BUSY_MAX).collect()
    }

    /// Collects, on every owned queue, the frames that anybody has sent by it, and lends frames to
    /// the kernel.
    pub fn reap(&mut self, magazine: &mut Magazine) {
        for queue in self.owned.iter_mut().flatten() {
            queue.socket.complete(magazine);
            queue.socket.refill(magazine);
        }
    }

    /// What each owned queue has, as [`Holdings::queues`](crate::xsk::Holdings::queues).
    pub fn queue_holdings(&self) -> impl Iterator<Item = (PoolId, u32, u32)> {
        self.owned.iter().flatten().map(|queue| {
            let pool = queue.socket.pool();
            (pool.id(), queue.socket.parked(), pool.in_flight())
        })
    }

    /// Puts a frame on a port's TX ring; the frame back if it is not taken.
    pub fn transmit(
        &mut self,
        frame: Frame,
        transmission: &Transmission,
        magazine: &mut Magazine,
    ) -> Result<(), (Frame, DropReason)> {
        let (len, checksum) = (transmission.len as u32, checksum(transmission));
        let mut frame = Some(frame);
        let sent = self.send(transmission.port, magazine, |socket| {
            let Some(whole) = frame.take() else {
                return Err(DropReason::Internal);
            };
            let sent = match socket {
                Socket::Owned(socket) => socket.transmit(whole, len, checksum),
                Socket::Shared(socket) => socket.transmit(whole, len, checksum),
            };
            sent.map_err(|rejected| {
                frame = Some(rejected.frame);
                rejected.reason
            })
        });
        match (sent, frame) {
            (Err(reason), Some(frame)) => Err((frame, reason)),
            _ => Ok(()),
        }
    }

    /// Puts a packet of several frames on a port's TX ring, all or none: `parts` is left as it was
    /// if it is not taken.
    pub fn transmit_parts(
        &mut self,
        parts: &mut Parts,
        transmission: &Transmission,
        magazine: &mut Magazine,
    ) -> Result<(), DropReason> {
        let checksum = checksum(transmission);
        self.send(transmission.port, magazine, |socket| match socket {
            Socket::Owned(socket) => socket.transmit_parts(parts, checksum),
            Socket::Shared(socket) => socket.transmit_parts(parts, checksum),
        })
    }

    /// Lets `put` put something on a port's TX ring, twice if only nobody had collected what was
    /// sent.
    #[inline]
    fn send(
        &mut self,
        port: PortId,
        magazine: &mut Magazine,
        mut put: impl FnMut(Socket<'_>) -> Result<(), DropReason>,
    ) -> Result<(), DropReason> {
        let Some(out) = self.exits.get_mut(usize::from(port.0)) else {
            return Err(DropReason::PortGone);
        };
        let sent = match &mut out.exit {
            Exit::None => return Err(DropReason::PortGone),
            Exit::Owned(place) => {
                let Some(Some(owned)) = self.owned.get_mut(*place) else {
                    return Err(DropReason::PortGone);
                };
                let mut sent = put(Socket::Owned(&mut owned.socket));
                if sent == Err(DropReason::TransmitFull) {
                    owned.socket.kick();
                    owned.socket.complete(magazine);
                    sent = put(Socket::Owned(&mut owned.socket));
                }
                owned.packets = owned.packets.saturating_add(1);
                sent
            }
            Exit::Shared(shared) => {
                let sent = put(Socket::Shared(&mut shared.socket));
                if shared.socket.pool().in_flight() >= REAP_AT_IN_FLIGHT {
                    shared.owner.wake();
                }
                sent
            }
        };
        if !out.dirty && sent.is_ok() {
            out.dirty = true;
            self.dirty.push(port);
        }
        sent
    }

    /// Makes the kernel send what stands on the TX rings. Whether something is left that may go
    /// soon.
    pub fn kick(&mut self) -> bool {
        let mut under_way = false;
        let (owned, exits) = (&mut self.owned, &mut self.exits);
        self.dirty.retain(|port| {
            let Some(out) = exits.get_mut(usize::from(port.0)) else {
                return false;
            };
            let kick = match &mut out.exit {
                Exit::None => Kick::Gone,
                Exit::Owned(place) => match owned.get_mut(*place) {
                    Some(Some(queue)) => queue.socket.kick(),
                    _ => Kick::Gone,
                },
                Exit::Shared(shared) => shared.socket.kick(),
            };
            match kick {
                Kick::Pending => {
                    out.stalled_rounds = out.stalled_rounds.saturating_add(1);
                    under_way |= out.stalled_rounds < STALLED_ROUNDS;
                }
                // What is left goes when the link is up, or is taken back with the port.
                Kick::Down => {}
                Kick::Done | Kick::Gone | Kick::Broken => {
                    out.stalled_rounds = 0;
                    out.dirty = false;
                    return false;
                }
            }
            true
        });
        under_way
    }
}
