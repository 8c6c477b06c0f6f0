//! Fragments that wait for their first, each with its frame, in the hands of one worker.

use super::{Table, Ticket};
use crate::Time;
use crate::snapshot::PortId;

/// A frame that is held no more: it goes through the pipeline again, with its ticket
/// ([`Inbound::held`](crate::pipeline::Inbound::held)).
#[derive(Debug)]
pub struct Released<F> {
    /// The datagram.
    pub ticket: Ticket,
    /// The frame.
    pub frame: F,
    /// The packet's octets in it, from the Ethernet header on.
    pub len: usize,
    until: Time,
}

/// What one worker holds. `F` is a frame, or whatever stands for one.
#[derive(Debug)]
pub struct Held<F> {
    waiting: Vec<Released<F>>,
    capacity: usize,
    /// The table's [`changes`](Table::changes) at the last look.
    seen: u64,
    /// No frame has waited long enough before.
    earliest: Time,
}

impl<F> Held<F> {
    /// Room for all that `table` lets be held.
    pub fn new(table: &Table) -> Held<F> {
        let capacity = table.bounds().frames as usize;
        Held {
            waiting: Vec::with_capacity(capacity),
            capacity,
            seen: 0,
            earliest: Time(u64::MAX),
        }
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Frames held.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Keeps the frame of an [`Outcome::Hold`](crate::pipeline::Outcome::Hold).
    ///
    /// # Errors
    /// Gives it back if there is no room, which the table's own bounds prevent.
    pub fn keep(
        &mut self,
        table: &Table,
        ticket: Ticket,
        (frame, len): (F, usize),
        now: Time,
    ) -> Result<(), F> {
        if self.waiting.len() >= self.capacity {
            table.unhold(&ticket);
            return Err(frame);
        }
        let until = table.until(now);
        self.earliest = self.earliest.min(until);
        self.waiting.push(Released {
            ticket,
            frame,
            len,
            until,
        });
        Ok(())
    }

    /// Hands at most `limit` frames to `each`, in the order in which they came: those whose datagram
    /// has been decided or has gone, and those that have waited long enough. One load, as long as
    /// nothing has happened.
    pub fn release(
        &mut self,
        table: &Table,
        now: Time,
        limit: usize,
        each: impl FnMut(Released<F>),
    ) {
        let changes = table.changes();
        if self.waiting.is_empty() || changes == self.seen && now < self.earliest {
            return;
        }
        let mut earliest = Time(u64::MAX);
        let (mut taken, mut is_more) = (0, false);
        let is_due = |held: &mut Released<F>| {
            if now < held.until && table.is_undecided(&held.ticket) {
                earliest = earliest.min(held.until);
                return false;
            }
            is_more |= taken == limit;
            let goes = taken < limit;
            taken += usize::from(goes);
            goes
        };
        let released = self.waiting.extract_if(.., is_due);
        hand_over(released, table, each);
        // The next call looks again if this one has left something.
        self.earliest = if is_more { Time::default() } else { earliest };
        self.seen = changes;
    }

    /// Hands at most `limit` of the frames that came in by `port` to `each`, decided or not.
    pub fn release_port(
        &mut self,
        table: &Table,
        port: PortId,
        limit: usize,
        each: impl FnMut(Released<F>),
    ) {
        let is_of_port = |held: &mut Released<F>| held.ticket.ingress == port;
        let released = self.waiting.extract_if(.., is_of_port).take(limit);
        hand_over(released, table, each);
    }

    /// Hands every frame to `each`: the worker ends.
    pub fn release_all(&mut self, table: &Table, each: impl FnMut(Released<F>)) {
        let released = self.waiting.drain(..);
        hand_over(released, table, each);
    }
}

fn hand_over<F>(
    released: impl Iterator<Item = Released<F>>,
    table: &Table,
    mut each: impl FnMut(Released<F>),
) {
    for released in released {
        table.unhold(&released.ticket);
        each(released);
    }
}
