//! Captures: packets for clients who want to see them, with what became of them.
//!
//! While somebody captures, the workers have a tap ([`dataplane::tap`]); else none. What they record
//! is taken in every turn, at most so many records, and handed on in messages that may be left out:
//! a client that does not take them is told how many packets it lost, and nobody waits.

mod ports;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use config::limits::{
    CAPTURE_MESSAGE_BYTES, CAPTURE_RECORDS_PER_TURN, CAPTURE_SNAPLEN_RANGE, CAPTURES,
};
use dataplane::snapshot::{Incarnation, PortId};
use dataplane::tap::{Fate, Form, Tap, TapRecord};
use k8s_openapi::ByteString;
use tracing::warn;

use super::observe::Clock;
use super::packets::{Said, Sketch};
use super::plane::Plane;
use super::server::{ClientId, refused, rpc_error};
use super::state::Daemon;
use super::watches::Droppable;
use crate::flow::filter::Matcher;
use crate::protocol::{
    CAPTURE_NOTIFICATION, CaptureDirection, CaptureEvent, CaptureInterface, CaptureParams,
    CaptureReply, CaptureSummary, CapturedPacket, ErrorObject, InterfaceSummary, Lost, Reason,
};

/// A port that a capture is about.
#[derive(Clone, Copy, Debug)]
struct Watched {
    port: PortId,
    /// Of the pod behind it, or none: another pod may get the number.
    incarnation: Incarnation,
    /// What was counted when the capture began.
    before: InterfaceSummary,
}

/// One client's capture.
#[derive(Debug)]
struct Capture {
    ports: Vec<Watched>,
    wanted: Matcher,
    /// Whether every packet is wanted, so that nobody has to read it.
    takes_all: bool,
    flows: bool,
    snaplen: u32,
    /// Ports that the client knows.
    known: BTreeSet<PortId>,
    lost: Lost,
}

impl Capture {
    fn has(&self, port: PortId) -> bool {
        self.ports.iter().any(|watched| watched.port == port)
    }

    fn is_about(&self, record: &TapRecord) -> bool {
        match record.form {
            Form::Received if self.has(record.ingress) => true,
            // What was dropped never came to the port that it was for.
            Form::Received => {
                let is_dropped = matches!(record.fate, Fate::Dropped(_) | Fate::Refused(_));
                let mut pods = self.ports.iter();
                is_dropped
                    && record.destination != Incarnation::NONE
                    && pods.any(|watched| watched.incarnation == record.destination)
            }
            // Nobody wants a packet twice, unless it is the answer to another.
            Form::Sent(port) => {
                let is_shown =
                    matches!(record.fate, Fate::Forwarded(_)) && self.has(record.ingress);
                self.has(port) && !is_shown
            }
        }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct Captures {
    tap: Option<Arc<Tap>>,
    running: BTreeMap<(ClientId, u64), Capture>,
    /// What the tap has lost as far as it was told.
    told_lost: u64,
    counts: CaptureCounts,
}

/// What was captured since the daemon's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureCounts {
    /// Packets sent to clients.
    pub packets: u64,
    /// Records that found no room with the workers.
    pub lost: u64,
    /// Packets that clients were too slow to take.
    pub not_taken: u64,
}

impl Captures {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.running.len()
    }

    /// What was captured since the daemon's start.
    pub fn counts(&self) -> CaptureCounts {
        self.counts
    }

    /// Takes note of a line that its client had no room for.
    pub fn not_taken(&mut self, client: ClientId, line: Droppable) {
        let (subscription, lost) = match line {
            Droppable::Packets(subscription, count) => {
                self.counts.not_taken += count;
                self.counts.packets = self.counts.packets.saturating_sub(count);
                let lost = Lost {
                    client: count,
                    daemon: 0,
                };
                (subscription, lost)
            }
            Droppable::PacketLosses(subscription, lost) => (subscription, lost),
            Droppable::Flow(_) | Droppable::Losses(..) => return,
        };
        if let Some(capture) = self.running.get_mut(&(client, subscription)) {
            capture.lost += lost;
        }
    }

    /// Takes note of what the workers had no room for.
    fn follow_losses(&mut self) {
        let Some(tap) = &self.tap else {
            return;
        };
        let lost = tap.lost();
        let fresh = lost - self.told_lost;
        self.told_lost = lost;
        self.counts.lost += fresh;
        for capture in self.running.values_mut() {
            capture.lost.daemon += fresh;
        }
    }
}

/// A message that is being filled.
#[derive(Debug, Default)]
struct Batch {
    packets: Vec<CapturedPacket>,
    interfaces: Vec<CaptureInterface>,
    bytes: usize,
}

impl<P: Plane> Daemon<P> {
    /// Answers `capture`.
    pub(super) fn capture(
        &mut self,
        client: ClientId,
        params: &CaptureParams,
    ) -> Result<CaptureReply, ErrorObject> {
        let bad = |error: String| rpc_error(-32602, error);
        let wanted = Matcher::new(&params.allow, &params.deny).map_err(bad)?;
        let (least, most) = (*CAPTURE_SNAPLEN_RANGE.start(), *CAPTURE_SNAPLEN_RANGE.end());
        let snaplen = params.snaplen.unwrap_or(most);
        if !CAPTURE_SNAPLEN_RANGE.contains(&snaplen) {
            let text = format!("a snaplen of {snaplen} bytes is out of range {least} to {most}");
            return Err(bad(text));
        }
        self.check_watches(client)?;
        if self.captures.count() >= CAPTURES {
            let message = format!("{CAPTURES} captures run already");
            return Err(refused(Reason::TooManyRequests, message));
        }
        let namespace = params.namespace.as_deref().unwrap_or("default");
        let mut ports: Vec<Watched> = Vec::new();
        for target in &params.targets {
            for port in self.capture_ports(target, namespace)? {
                if ports.iter().all(|known| known.port != port) {
                    ports.push(self.watched(port));
                }
            }
        }
        if ports.is_empty() {
            return Err(bad("no port is named".into()));
        }
        let interfaces = self.capture_interfaces();
        let capture = Capture {
            ports,
            wanted,
            takes_all: params.allow.is_empty() && params.deny.is_empty(),
            flows: params.flows,
            snaplen,
            known: interfaces.iter().map(|known| PortId(known.port)).collect(),
            lost: Lost::default(),
        };
        let subscription = self.watches.add_packets(client);
        self.captures
            .running
            .insert((client, subscription), capture);
        if let Err(error) = self.rearm() {
            self.end_capture(client, subscription);
            return Err(refused(Reason::ServiceUnavailable, error));
        }
        Ok(CaptureReply {
            subscription,
            interfaces,
            snaplen,
        })
    }

    /// Answers `capture.stop`: what the workers have recorded by now is sent, and that it has ended.
    pub(super) fn stop_capture(
        &mut self,
        client: ClientId,
        subscription: u64,
    ) -> Result<CaptureSummary, ErrorObject> {
        if !self.captures.running.contains_key(&(client, subscription)) {
            return Err(rpc_error(-32602, format!("no capture {subscription}")));
        }
        while self.take_records() > 0 {}
        let capture = self.end_capture(client, subscription);
        // It goes behind the reply, and so do the packets before it.
        let last = CaptureEvent {
            subscription,
            ended: Some("stopped".into()),
            ..CaptureEvent::default()
        };
        self.tell_capture(client, &last, None);
        let Some(capture) = capture else {
            return Ok(CaptureSummary::default());
        };
        let ports = capture.ports.iter();
        let interfaces = ports
            .filter(|watched| self.is_there(watched))
            .map(|watched| {
                let now = self.counted(watched.port);
                InterfaceSummary {
                    port: watched.port.0,
                    received: now.received.saturating_sub(watched.before.received),
                    dropped: now.dropped.saturating_sub(watched.before.dropped),
                }
            });
        Ok(CaptureSummary {
            interfaces: interfaces.collect(),
            lost: capture.lost,
        })
    }

    fn end_capture(&mut self, client: ClientId, subscription: u64) -> Option<Capture> {
        let ended = self.captures.running.remove(&(client, subscription));
        self.watches.remove(client, subscription);
        self.rearm_or_warn();
        ended
    }

    /// A client is gone, or has ended one of its subscriptions: captures that nobody takes end.
    pub(super) fn forget_captures(&mut self) {
        let before = self.captures.count();
        let watches = &self.watches;
        let is_wanted = |(client, number): &(ClientId, u64)| watches.has(*client, *number);
        self.captures.running.retain(|key, _| is_wanted(key));
        if self.captures.count() != before {
            self.rearm_or_warn();
        }
    }

    fn rearm_or_warn(&mut self) {
        if let Err(error) = self.rearm() {
            warn!("what is to be captured is not what workers record: {error}");
        }
    }

    /// Gives the workers a tap that has what all captures want, or takes it from them.
    fn rearm(&mut self) -> Result<(), String> {
        self.captures.follow_losses();
        if self.captures.running.is_empty() {
            self.captures.told_lost = 0;
            return match self.captures.tap.take() {
                Some(_) => self.plane.record(None).map_err(|error| error.to_string()),
                None => Ok(()),
            };
        }
        let is_new = self.captures.tap.is_none();
        let plane = &self.plane;
        let tap = Arc::clone(self.captures.tap.get_or_insert_with(|| plane.new_tap()));
        let running = self.captures.running.values();
        let snaplen = running.clone().map(|capture| capture.snaplen).max();
        tap.set_snaplen(snaplen.unwrap_or_default());
        let ports: BTreeSet<PortId> = running
            .flat_map(|capture| capture.ports.iter().map(|watched| watched.port))
            .collect();
        for port in (0..self.config.max_ports as u16).map(PortId) {
            tap.watch(port, ports.contains(&port));
        }
        if is_new {
            let recording = self.plane.record(Some(&tap));
            recording.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Takes what the workers have recorded, and ends captures whose ports are gone.
    pub(super) fn follow_captures(&mut self) {
        if self.captures.running.is_empty() {
            return;
        }
        self.take_records();
        self.captures.follow_losses();
        let mut told = Vec::new();
        for ((client, subscription), capture) in &mut self.captures.running {
            if !capture.lost.is_nothing() {
                told.push((*client, *subscription, std::mem::take(&mut capture.lost)));
            }
        }
        for (client, subscription, lost) in told {
            let event = CaptureEvent {
                subscription,
                lost: Some(lost),
                ..CaptureEvent::default()
            };
            let droppable = Some(Droppable::PacketLosses(subscription, lost));
            self.tell_capture(client, &event, droppable);
        }
    }

    /// Ends the captures of ports that are gone.
    pub(super) fn end_gone_captures(&mut self) {
        let mut captures = std::mem::take(&mut self.captures.running);
        let mut ended = Vec::new();
        let mut changed = false;
        for (key, capture) in &mut captures {
            let before = capture.ports.len();
            capture.ports.retain(|watched| self.is_there(watched));
            changed |= capture.ports.len() != before;
            if capture.ports.is_empty() {
                ended.push(*key);
            }
        }
        self.captures.running = captures;
        for (client, subscription) in ended {
            let event = CaptureEvent {
                subscription,
                ended: Some("the port is gone".into()),
                ..CaptureEvent::default()
            };
            self.tell_capture(client, &event, None);
            self.end_capture(client, subscription);
        }
        if changed {
            self.rearm_or_warn();
        }
    }

    /// One turn's share of records; how many there were.
    fn take_records(&mut self) -> usize {
        let Some(tap) = self.captures.tap.clone() else {
            return 0;
        };
        let mut records = Vec::new();
        let drained = tap.drain(CAPTURE_RECORDS_PER_TURN, |record, bytes| {
            records.push((*record, bytes.to_vec()));
        });
        if drained == 0 {
            return 0;
        }
        // Each worker's are in order; a stable sort keeps it so.
        records.sort_by_key(|(record, _)| record.time);
        let clock = Clock::now();
        let mut captures = std::mem::take(&mut self.captures.running);
        let mut said = HashMap::new();
        for ((client, subscription), capture) in &mut captures {
            let mut batch = Batch::default();
            for (record, bytes) in &records {
                if !capture.is_about(record) {
                    continue;
                }
                let packet = self.captured(capture, record, bytes, clock, &mut said);
                let Some(packet) = packet else {
                    continue;
                };
                let port = PortId(packet.port);
                if capture.known.insert(port) {
                    let mut known = self.capture_interfaces().into_iter();
                    batch
                        .interfaces
                        .extend(known.find(|one| one.port == port.0));
                }
                batch.bytes += packet.data.0.len() + packet.comment.len() + 200;
                batch.packets.push(packet);
                if batch.bytes >= CAPTURE_MESSAGE_BYTES {
                    self.tell_packets(*client, *subscription, std::mem::take(&mut batch));
                }
            }
            self.tell_packets(*client, *subscription, batch);
        }
        self.captures.running = captures;
        drained
    }

    fn captured(
        &self,
        capture: &Capture,
        record: &TapRecord,
        bytes: &[u8],
        clock: Clock,
        said: &mut HashMap<Said, (String, String)>,
    ) -> Option<CapturedPacket> {
        let sketch = Sketch::of(record, bytes);
        let (reason, comment) = said
            .entry(sketch.said())
            .or_insert_with(|| self.describe(&sketch));
        let mut flow = None;
        if capture.flows || !capture.takes_all {
            flow = self.packet_flow(&sketch, reason, clock);
            let is_wanted = flow
                .as_ref()
                .is_some_and(|flow| capture.wanted.matches(flow));
            if !capture.takes_all && !is_wanted {
                return None;
            }
        }
        let (port, direction) = match record.form {
            Form::Received => (record.ingress, CaptureDirection::In),
            Form::Sent(port) => (port, CaptureDirection::Out),
        };
        let captured = bytes.len().min(capture.snaplen as usize);
        Some(CapturedPacket {
            time_ns: clock.wall_ns(record.time),
            port: port.0,
            direction,
            length: record.length,
            comment: comment.clone(),
            data: ByteString(bytes[..captured].to_vec()),
            flow: flow.filter(|_| capture.flows),
        })
    }

    fn tell_packets(&mut self, client: ClientId, subscription: u64, batch: Batch) {
        if batch.packets.is_empty() {
            return;
        }
        let count = batch.packets.len() as u64;
        self.captures.counts.packets += count;
        let event = CaptureEvent {
            subscription,
            packets: batch.packets,
            interfaces: batch.interfaces,
            ..CaptureEvent::default()
        };
        let droppable = Some(Droppable::Packets(subscription, count));
        self.tell_capture(client, &event, droppable);
    }

    fn tell_capture(
        &mut self,
        client: ClientId,
        event: &CaptureEvent,
        droppable: Option<Droppable>,
    ) {
        let params = serde_json::to_value(event);
        self.watches
            .queue(client, CAPTURE_NOTIFICATION, params, droppable);
    }
}
