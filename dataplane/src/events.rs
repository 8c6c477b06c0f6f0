//! What workers tell the control thread about single packets: for the denial log and `observe`.
//!
//! One bounded queue per worker, of fixed-size records. Nothing waits: what does not fit is counted
//! ([`EventQueue::lost`]). First denials of a flow may use the whole queue, and so do some questions
//! for next hops, by the port that asks; repeated denials and the rest use only its first half, so
//! that a flood of drops cannot push out the news. Samples for the self-check use its first quarter only and are counted apart
//! ([`EventQueue::samples_lost`]): to skip some of them loses nothing that happened.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;

use crate::snapshot::{Generation, Incarnation, PortId, Role};
use crate::{Address, DropReason, FlowKey, SocketAddress, Time, Verdict};

/// Something that happened to a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// When its burst was processed.
    pub time: Time,
    /// What happened.
    pub kind: EventKind,
    /// The flow as the packet shows it: a denial's is oriented like the connection it denies.
    pub key: FlowKey,
    /// For a flow to a Service the Service's address and port, as the client has them: `key` has the
    /// backend's, which policy judges. None of a packet that was dropped before a backend was chosen:
    /// then `key` has the Service's.
    pub service: Option<SocketAddress>,
    /// Where the packet came in.
    pub ingress: PortId,
    /// What stands behind that port: the port may be gone when the event is read.
    pub ingress_role: Role,
    /// The local endpoint that `key.source` is, if any.
    pub source: Incarnation,
    /// The local endpoint that `key.destination` is, if any.
    pub destination: Incarnation,
    /// The snapshot that decided.
    pub generation: Generation,
    /// The TCP flags byte; 0 for other protocols.
    pub tcp_flags: u8,
    /// The packet's length in bytes, Ethernet header included.
    pub len: u16,
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventKind {
    /// A new flow was accepted. Only if [`Settings::accept_events`] asks for it.
    ///
    /// [`Settings::accept_events`]: crate::snapshot::Settings::accept_events
    Accepted(Verdict),
    /// A flow was denied that was not denied before: new, or cut by newer policy.
    Denied(Verdict),
    /// Another packet of a denied flow.
    DeniedAgain(Verdict),
    /// A flow was decided, for the first time or again, and the policies in audit mode would have
    /// decided otherwise. Told once for each decision; what happened to the flow is `enforced`.
    Audited {
        /// What was decided.
        enforced: Verdict,
        /// What would have been decided, had the audited policies been enforced too.
        would: Verdict,
    },
    /// One of [`Settings::sample_one_in`] new flows, for the self-check, with what was decided.
    ///
    /// [`Settings::sample_one_in`]: crate::snapshot::Settings::sample_one_in
    Sampled(Verdict),
    /// Dropped for a reason other than policy.
    Dropped(DropReason),
    /// A packet was dropped because the Ethernet address of this next hop, on this port, is not in
    /// the snapshot: control should resolve it.
    NeighbourMissing {
        /// The port the next hop is on.
        port: PortId,
        /// The next hop.
        address: Address,
    },
}

/// One worker's events: written by the worker, drained by the control thread.
#[derive(Debug)]
pub struct EventQueue {
    queue: ArrayQueue<Event>,
    lost: AtomicU64,
    samples_lost: AtomicU64,
}

impl EventQueue {
    /// A queue of at least 2 events.
    pub fn new(capacity: usize) -> EventQueue {
        EventQueue {
            queue: ArrayQueue::new(capacity.max(2)),
            lost: AtomicU64::new(0),
            samples_lost: AtomicU64::new(0),
        }
    }

    /// Adds an event that must not be missed: it may use the whole queue. False if it is lost.
    pub fn push_first(&self, event: Event) -> bool {
        let kept = self.queue.push(event).is_ok();
        if !kept {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        kept
    }

    /// Adds an event that may be missed: it may use half of the queue. False if it is lost.
    pub fn push_repeated(&self, event: Event) -> bool {
        if self.queue.len() >= self.queue.capacity() / 2 {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        self.push_first(event)
    }

    /// Adds a sample: it may use a quarter of the queue. False if it is lost, which does not count
    /// as an event lost.
    pub fn push_sample(&self, event: Event) -> bool {
        let has_room = self.queue.len() < self.queue.capacity() / 4;
        let kept = has_room && self.queue.push(event).is_ok();
        if !kept {
            self.samples_lost.fetch_add(1, Ordering::Relaxed);
        }
        kept
    }

    /// Takes the oldest event.
    pub fn pop(&self) -> Option<Event> {
        self.queue.pop()
    }

    /// Events that did not fit, since the start; samples are not among them.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Samples that did not fit, since the start.
    pub fn samples_lost(&self) -> u64 {
        self.samples_lost.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(n: u64) -> Event {
        Event {
            time: Time(n),
            kind: EventKind::Dropped(DropReason::NoRoute),
            key: FlowKey::default(),
            service: None,
            ingress: PortId(0),
            ingress_role: Role::Uplink,
            source: Incarnation::NONE,
            destination: Incarnation::NONE,
            generation: Generation(1),
            tcp_flags: 0,
            len: 60,
        }
    }

    #[test]
    fn repeated_events_leave_room_for_first_ones_and_losses_are_counted() {
        let queue = EventQueue::new(8);
        let kept = (0..10).filter(|n| queue.push_repeated(event(*n))).count();
        assert_eq!((kept, queue.lost()), (4, 6));
        let kept = (10..20).filter(|n| queue.push_first(event(*n))).count();
        assert_eq!((kept, queue.lost()), (4, 12));
        let times: Vec<u64> = std::iter::from_fn(|| queue.pop())
            .map(|e| e.time.0)
            .collect();
        assert_eq!(times, [0, 1, 2, 3, 10, 11, 12, 13]);
    }

    #[test]
    fn samples_leave_room_for_all_else_and_are_counted_apart() {
        let queue = EventQueue::new(8);
        let kept = (0..5).filter(|n| queue.push_sample(event(*n))).count();
        assert_eq!((kept, queue.lost(), queue.samples_lost()), (2, 0, 3));
        let kept = (5..10).filter(|n| queue.push_repeated(event(*n))).count();
        assert_eq!((kept, queue.lost(), queue.samples_lost()), (2, 3, 3));
    }

    /// A worker is faster than control: what is kept comes whole and in order, the rest is counted.
    #[test]
    fn a_worker_and_control_lose_nothing_uncounted() {
        const EVENTS: u64 = 50_000;
        let queue = EventQueue::new(64);
        let mut drained = 0;
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                let push = |n: &u64| match n % 3 {
                    0 => queue.push_first(event(*n)),
                    1 => queue.push_repeated(event(*n)),
                    _ => queue.push_sample(event(*n)),
                };
                (1..=EVENTS).filter(push).count() as u64
            });
            let mut last = 0;
            loop {
                // Asked before the queue, so that the last events are not left in it.
                let is_last_look = worker.is_finished();
                for seen in std::iter::from_fn(|| queue.pop()) {
                    assert!(seen.time.0 > last);
                    last = seen.time.0;
                    assert_eq!(seen, event(last));
                    drained += 1;
                }
                if is_last_look {
                    break;
                }
                std::thread::yield_now();
            }
            assert_eq!(drained, worker.join().unwrap());
        });
        assert_eq!(drained + queue.lost() + queue.samples_lost(), EVENTS);
    }
}
