//! A worker's part in a capture: a burst's packets are copied aside before they are rewritten in
//! place, and those of watched ports go into the worker's ring with what became of them.

use std::sync::Arc;

use arrayvec::ArrayVec;

use super::Origin;
use crate::conntrack::{self, Ends, Storage};
use crate::pipeline::{BURST_MAX, Inbound, Outcome};
use crate::snapshot::{Endpoint, Incarnation, Port, Snapshot};
use crate::tap::{Drafts, Fate, Form, Judged, Tap, TapRecord};
use crate::wire::{self, Offload};
use crate::xsk::BURST;
use crate::{DropReason, FlowKey, Time};

/// One packet of the burst as it came.
#[derive(Debug)]
struct Copied {
    /// Its bytes in the recorder's copies.
    start: usize,
    end: usize,
    /// Its length, of which the copies may have less.
    total: usize,
    key: Option<FlowKey>,
}

/// What is needed to say who decided: all of it outlives the burst.
pub(super) struct Moment<'a, S> {
    pub conntrack: &'a conntrack::Table<S>,
    pub snapshot: &'a Snapshot,
    pub now: Time,
}

/// Copies packets for a tap. Made by control, so that the worker allocates nothing.
#[derive(Debug)]
pub(crate) struct Recorder {
    tap: Arc<Tap>,
    worker: usize,
    /// Room for every frame of a burst.
    copies: Box<[u8]>,
    packets: ArrayVec<Copied, BURST_MAX>,
    drafts: Drafts,
}

impl Recorder {
    /// A recorder for that worker.
    pub fn new(tap: Arc<Tap>, worker: usize, chunk_bytes: u32) -> Recorder {
        Recorder {
            tap,
            worker,
            copies: vec![0; BURST * chunk_bytes as usize].into(),
            packets: ArrayVec::new(),
            drafts: Drafts::default(),
        }
    }

    /// Copies a burst as it came.
    pub fn copy(&mut self, burst: &[Inbound<'_>], snapshot: &Snapshot) {
        self.packets.clear();
        let snaplen = self.tap.snaplen() as usize;
        let mut at = 0;
        for inbound in burst {
            let start = at;
            let first = inbound.window.get(..inbound.len).unwrap_or_default();
            for piece in std::iter::once(&first).chain(inbound.rest) {
                let wanted = piece.len().min(snaplen - (at - start));
                // A burst has no more frames than there is room for.
                let room = self.copies.get_mut(at..at + wanted);
                let Some(room) = room else {
                    break;
                };
                room.copy_from_slice(&piece[..wanted]);
                at += wanted;
            }
            let offload = match snapshot.port(inbound.ingress) {
                Some(Port {
                    is_virtual: true, ..
                }) => Offload::Virtual,
                _ => Offload::Wire,
            };
            let packet = wire::parse_split(first, inbound.rest, offload);
            self.packets.push(Copied {
                start,
                end: at,
                total: inbound.total(),
                key: packet.ok().and_then(|packet| packet.flow_key()),
            });
        }
    }

    /// Writes what is wanted of packet `number`: as it came, and as it goes, for which `sent` has the
    /// bytes. To be told of by [`Recorder::publish`].
    pub(super) fn write<'b, S: Storage>(
        &mut self,
        moment: &Moment<'_, S>,
        origin: &Origin<'_>,
        number: usize,
        outcome: &Outcome,
        sent: impl Iterator<Item = &'b [u8]> + Clone,
    ) {
        let (Some(copied), Some(ring)) = (self.packets.get(number), self.tap.ring(self.worker))
        else {
            return;
        };
        let fate = match outcome {
            Outcome::Forward(transmission) => Fate::Forwarded(transmission.port),
            Outcome::Answer(_) => Fate::Answered,
            Outcome::Refuse(_, reason) => Fate::Refused(*reason),
            Outcome::Drop(reason) => Fate::Dropped(*reason),
            // It comes again.
            Outcome::Hold(_) => return,
        };
        let (snapshot, ingress) = (moment.snapshot, origin.ingress(number));
        let is_dropped = outcome.drop_reason().is_some();
        let transmission = outcome.transmission();
        let transmission = transmission.filter(|sent| self.tap.is_watched(sent.port));
        let is_watched = self.tap.is_watched(ingress);
        if !is_watched && !is_dropped && transmission.is_none() {
            return;
        }
        let key = copied.key;
        let at = |address| snapshot.endpoint_at(address);
        let incarnation =
            |end: Option<&Endpoint>| end.map_or(Incarnation::NONE, |end| end.incarnation);
        let slot = snapshot.port(ingress).and_then(|port| port.endpoint);
        let shown = Ends {
            source: incarnation(slot.and_then(|slot| snapshot.endpoint(slot))),
            destination: incarnation(key.and_then(|key| at(key.destination))),
            ingress,
        };
        let hit = key.and_then(|key| moment.conntrack.lookup(&key, &shown, moment.now));
        let is_reply = hit.is_some_and(|hit| !hit.original_direction);
        let translated = hit.and_then(|hit| hit.translated);
        // What the packet shows, or of a translated connection what policy has judged.
        let (receiver, source, destination) = match (translated, is_reply) {
            (None, _) => (
                key.map(|key| key.destination),
                shown.source,
                shown.destination,
            ),
            (Some(own), false) => {
                let ends = own.ends;
                (Some(own.flow.destination), ends.source, ends.destination)
            }
            (Some(own), true) => {
                let ends = own.ends;
                (Some(own.flow.source), ends.destination, ends.source)
            }
        };
        // What is dropped never comes to the port that it was for.
        let missed = |endpoint: &Endpoint| is_dropped && self.tap.is_watched(endpoint.port);
        let received = is_watched || receiver.and_then(at).is_some_and(missed);
        if !received && transmission.is_none() {
            return;
        }
        let record = TapRecord {
            time: moment.now,
            ingress,
            form: Form::Received,
            fate,
            length: copied.total as u32,
            verdict: hit.map(|hit| hit.verdict),
            is_reply,
            generation: snapshot.generation(),
            translated: translated.map(|own| Judged {
                flow: own.flow,
                service: own.translation.service,
            }),
            source,
            destination,
        };
        let snaplen = self.tap.snaplen();
        if received {
            let bytes = self.copies.get(copied.start..copied.end);
            self.drafts.write(ring, &record, snaplen, bytes.into_iter());
        }
        if let Some(transmission) = transmission {
            let record = TapRecord {
                form: Form::Sent(transmission.port),
                length: transmission.len as u32,
                ..record
            };
            let snaplen = snaplen.min(record.length);
            self.drafts.write(ring, &record, snaplen, sent);
        }
    }

    /// Tells control of what was written, now that it is known whether the port took the packet.
    pub fn publish(&mut self, taken: Result<(), DropReason>) {
        if let Some(ring) = self.tap.ring(self.worker) {
            self.drafts.publish(ring, taken);
        }
    }
}
