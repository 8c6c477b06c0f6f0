//! Captured packets in words: their flow, and what became of them.

use dataplane::flow::SocketAddress;
use dataplane::snapshot::Incarnation;
use dataplane::tap::{Fate, Form, TapRecord};
use dataplane::wire::{self, Offload, Transport};
use dataplane::{Direction, DropReason, FlowKey, Verdict};

use super::observe::Clock;
use super::plane::Plane;
use super::state::Daemon;
use crate::flow::{Flow, FlowService, FlowVerdict, protocol_name, tcp_flag_names};

/// What stands for the bytes of a packet that were not captured.
static BLANK: [u8; 1 << 16] = [0; 1 << 16];

/// What of a packet matters for words.
#[derive(Clone, Copy, Debug)]
pub struct Sketch<'a> {
    record: &'a TapRecord,
    key: Option<FlowKey>,
    tcp_flags: u8,
}

/// What the words about a packet depend on: packets that have it in common are described once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Said {
    key: Option<FlowKey>,
    ends: [Incarnation; 2],
    outcome: (u8, u16, bool),
    verdict: Option<Verdict>,
    generation: u64,
    is_reply: bool,
    service: Option<SocketAddress>,
}

impl<'a> Sketch<'a> {
    /// Of a record and its bytes.
    pub fn of(record: &'a TapRecord, bytes: &[u8]) -> Sketch<'a> {
        let missing = (record.length as usize).saturating_sub(bytes.len());
        let blank = [
            &BLANK[..missing.min(BLANK.len())],
            &BLANK[..missing.saturating_sub(BLANK.len()).min(BLANK.len())],
        ];
        let parsed = wire::parse_split(bytes, &blank, Offload::Virtual);
        let ip = parsed.ok().and_then(|packet| packet.ip().copied());
        Sketch {
            record,
            key: ip.map(|ip| ip.flow_key()),
            tcp_flags: match ip.map(|ip| ip.transport) {
                Some(Transport::Tcp(tcp)) => tcp.flags.0,
                _ => 0,
            },
        }
    }

    /// What the words depend on.
    pub fn said(&self) -> Said {
        let record = self.record;
        let outcome = match record.fate {
            Fate::Forwarded(port) => (0, port.0),
            Fate::Answered => (1, 0),
            Fate::Dropped(reason) => (2, reason as u16),
            Fate::Refused(reason) => (3, reason as u16),
        };
        Said {
            // No policy asks for the client's port.
            key: self.connection().map(|key| FlowKey {
                source_port: 0,
                ..key
            }),
            ends: [record.source, record.destination],
            outcome: (outcome.0, outcome.1, record.form == Form::Received),
            verdict: record.verdict,
            generation: record.generation.0,
            is_reply: record.is_reply,
            service: record.translated.map(|translated| translated.service),
        }
    }

    /// The connection as policy judges it, in its initiator's orientation.
    fn connection(&self) -> Option<FlowKey> {
        if let Some(translated) = self.record.translated {
            return Some(translated.flow);
        }
        match self.record.is_reply {
            true => self.key.map(FlowKey::reversed),
            false => self.key,
        }
    }

    /// What policy said, if that is what became of the packet.
    fn decided(&self) -> Option<Verdict> {
        match self.record.fate {
            Fate::Forwarded(_) => self.record.verdict.filter(|verdict| verdict.accept),
            Fate::Dropped(DropReason::PolicyDenied | DropReason::ConnectionDenied) => {
                self.record.verdict.filter(|verdict| !verdict.accept)
            }
            _ => None,
        }
    }
}

impl<P: Plane> Daemon<P> {
    /// Why, and what became of the packet altogether.
    pub(super) fn describe(&self, sketch: &Sketch<'_>) -> (String, String) {
        let record = sketch.record;
        let reason = match (sketch.decided(), sketch.connection(), record.fate) {
            (Some(verdict), Some(key), _) => {
                let mut ends = [record.source, record.destination];
                if record.is_reply {
                    ends.reverse();
                }
                self.reason(&key, ends, verdict)
            }
            (_, _, Fate::Dropped(reason) | Fate::Refused(reason)) => reason.name().to_owned(),
            (_, _, Fate::Answered) => "answered in place".to_owned(),
            _ => "no connection of its own".to_owned(),
        };
        let mut comment = match record.fate {
            Fate::Forwarded(port) => format!("FORWARDED to {}", self.port_label(port)),
            Fate::Answered if record.form == Form::Received => "ANSWERED by Weir".to_owned(),
            Fate::Answered => "ANSWER of Weir".to_owned(),
            Fate::Refused(reason) if record.form != Form::Received => {
                format!(
                    "ICMP ERROR about a packet that was dropped ({})",
                    reason.name()
                )
            }
            Fate::Refused(reason) => {
                format!("DROPPED ({}), answered by an ICMP error", reason.name())
            }
            Fate::Dropped(reason) => format!("DROPPED ({})", reason.name()),
        };
        if let Some(verdict) = sketch.decided() {
            let direction = match verdict.provenance.direction {
                Direction::Ingress => "ingress",
                Direction::Egress => "egress",
            };
            match self.flow_policy(verdict) {
                Some(policy) => {
                    let name = policy.full_name();
                    comment.push_str(&format!("; {} {name} {direction}", policy.kind));
                }
                None => comment.push_str(&format!("; {direction}")),
            }
            comment.push_str(&format!(": {reason}"));
        }
        if let Some(service) = self.packet_service(record) {
            comment.push_str(&format!("; Service {}", service.label()));
            if let (Form::Received, false, Some(key)) =
                (record.form, record.is_reply, sketch.connection())
            {
                comment.push_str(&format!(" at {}", key.receiver()));
            }
        }
        if record.is_reply {
            comment.push_str("; reply");
        }
        comment.push_str(&format!("; generation {}", record.generation.0));
        (reason, comment)
    }

    /// The packet as a flow, in its own orientation; none of what is no IP.
    pub(super) fn packet_flow(
        &self,
        sketch: &Sketch<'_>,
        reason: &str,
        clock: Clock,
    ) -> Option<Flow> {
        let record = sketch.record;
        // Of a translated connection the pods, whatever the packet shows.
        let key = match (sketch.connection()?, record.is_reply) {
            (connection, true) => connection.reversed(),
            (connection, false) => connection,
        };
        let decided = sketch.decided();
        let end = |incarnation, address, port| self.end(incarnation, address, port, key.protocol);
        Some(Flow {
            time: clock.wall_time(record.time),
            verdict: match record.fate {
                Fate::Forwarded(_) | Fate::Answered => FlowVerdict::Forwarded,
                Fate::Dropped(_) | Fate::Refused(_) => FlowVerdict::Dropped,
            },
            reason: reason.to_owned(),
            direction: decided.map(|verdict| verdict.provenance.direction.into()),
            source: end(record.source, key.source, key.source_port),
            destination: end(record.destination, key.destination, key.destination_port),
            service: self.packet_service(record),
            protocol: protocol_name(key.protocol),
            tcp_flags: tcp_flag_names(sketch.tcp_flags),
            policy: decided.and_then(|verdict| self.flow_policy(verdict)),
            generation: record.generation.0,
            node: self.config.node_name.clone(),
        })
    }

    /// The Service that a packet's connection is to.
    fn packet_service(&self, record: &TapRecord) -> Option<FlowService> {
        let translated = record.translated?;
        let is_service = translated.service != translated.flow.receiver();
        is_service.then(|| self.flow_service(translated.service))
    }

    /// `shop/web-0 (veth3)`, or the interface alone.
    fn port_label(&self, port: dataplane::snapshot::PortId) -> String {
        let mut endpoints = self.endpoints.iter();
        if let Some(endpoint) = endpoints.find(|endpoint| endpoint.port == port) {
            return format!("{} ({})", endpoint.pod(), endpoint.interface.name);
        }
        let mut all = self.infrastructure.iter();
        match all.find(|(_, id)| *id == port) {
            Some((interface, _)) => interface.name.clone(),
            None => format!("port {}", port.0),
        }
    }
}
