//! One packet through the stages.

use super::decide::{Decision, Flow};
use super::service::{self, Rewriting};
use super::track::Admitted;
use super::{Inbound, Outcome, Tables, Transmission, source};
use crate::conntrack::{Ends, Facts, IcmpFacts, SctpFacts, Storage, TcpFacts, TcpFlags};
use crate::counters::Counter;
use crate::events::{Event, EventKind};
use crate::snapshot::{Endpoint, Incarnation, Port, Snapshot};
use crate::wire::{self, Icmp, Ip, Kind, Offload, Packet, Sctp, Tcp, Transport};
use crate::{Address, DropReason, FlowKey, SocketAddress, Time};

/// What a burst is processed with.
pub(super) struct Stage<'a, 't, S> {
    pub tables: &'a mut Tables<'t, S>,
    pub snapshot: &'a Snapshot,
    pub now: Time,
}

/// One IP packet with everything that was found out about it.
#[derive(Clone, Copy)]
pub(super) struct View<'s> {
    pub packet: &'s Packet,
    pub ip: &'s Ip,
    pub key: FlowKey,
    pub facts: Facts,
    pub port: &'s Port,
    /// The local endpoint that sent it, if one did.
    pub source: Option<&'s Endpoint>,
    /// The local endpoint that it is for, if any.
    pub destination: Option<&'s Endpoint>,
    /// What has been found out of its translation: then `key`, `source` and `destination` are of the
    /// client and the backend.
    pub rewriting: Rewriting,
}

impl<'s> View<'s> {
    /// The packet's flow as if it were its first packet.
    pub fn flow(&self) -> Flow<'s> {
        Flow {
            key: self.key,
            source: self.source,
            destination: self.destination,
            ingress: self.port.role,
            by_service: self.service().is_some(),
        }
    }

    /// The Service that its connection goes to, if it does.
    fn service(&self) -> Option<SocketAddress> {
        match self.rewriting {
            Rewriting::Packet { service, .. } => service,
            Rewriting::None | Rewriting::Error { .. } => None,
        }
    }

    /// Where it goes on to.
    pub fn onward(&self) -> Address {
        match &self.rewriting {
            Rewriting::None => self.ip.destination,
            Rewriting::Packet { to, .. } => to.destination,
            Rewriting::Error { destination, .. } => *destination,
        }
    }

    pub fn ends(&self) -> Ends {
        Ends {
            source: incarnation(self.source),
            destination: incarnation(self.destination),
            ingress: self.port.id,
        }
    }

    fn tcp_flags(&self) -> u8 {
        match self.facts {
            Facts::Tcp(tcp) => tcp.flags.bits(),
            _ => 0,
        }
    }
}

pub(super) fn incarnation(endpoint: Option<&Endpoint>) -> Incarnation {
    endpoint.map_or(Incarnation::NONE, |endpoint| endpoint.incarnation)
}

impl<'a, S: Storage> Stage<'a, '_, S> {
    /// Takes one packet to its end the whole way, and counts it if it is dropped. `ahead`: what policy
    /// says of its flow as a new one, if that is known.
    pub fn run(&mut self, inbound: &mut Inbound<'_>, ahead: Option<&Decision>) -> Outcome {
        let outcome = self.outcome(inbound, ahead);
        let outcome = outcome.unwrap_or_else(Outcome::Drop);
        if let Some(reason) = outcome.drop_reason() {
            self.tables.counters.dropped(inbound.ingress, reason);
        }
        outcome
    }

    fn outcome(
        &mut self,
        inbound: &mut Inbound<'_>,
        ahead: Option<&Decision>,
    ) -> Result<Outcome, DropReason> {
        let snapshot = self.snapshot;
        let port = snapshot
            .port(inbound.ingress)
            .ok_or(DropReason::PortNotReady)?;
        let offload = offload(port);
        let bytes = inbound
            .window
            .get(..inbound.len)
            .ok_or(DropReason::BadDescriptor)?;
        let packet = wire::parse_split(bytes, inbound.rest, offload)?;
        let ip = match &packet.kind {
            Kind::Arp(arp) => return self.answer_arp(inbound, &packet, arp, port),
            Kind::Ip(ip) => ip,
        };
        if let Transport::Neighbour(neighbour) = &ip.transport {
            return self.answer_neighbour(inbound, &packet, ip, neighbour, port);
        }
        // Looked at where it is: a view that is moved is one that is copied.
        match &self.view(bytes, &packet, ip, port) {
            Ok(view) => match &ip.fragment {
                Some(fragment) => self.fragment(inbound, view, fragment),
                None => {
                    let admitted = self.admit(view, ahead);
                    self.go_on(inbound, view, &admitted)
                }
            },
            Err(reason) => {
                self.announce_drop(ip, port, inbound.total(), *reason);
                Err(*reason)
            }
        }
    }

    /// Sends on what was admitted, and tells senders of what asks a Service in vain.
    pub fn go_on(
        &mut self,
        inbound: &mut Inbound<'_>,
        view: &View<'_>,
        admitted: &Admitted<'_>,
    ) -> Result<Outcome, DropReason> {
        match admitted {
            Ok(real) => self.forward(inbound, real.as_ref().unwrap_or(view)),
            Err(reason) if service::is_refusal(*reason) => {
                Ok(self.refuse_service(inbound, view, *reason))
            }
            Err(reason) => Err(*reason),
        }
    }

    /// The checks that need no state, and the endpoints at the packet's ends.
    fn view<'p>(
        &self,
        bytes: &[u8],
        packet: &'p Packet,
        ip: &'p Ip,
        port: &'p Port,
    ) -> Result<View<'p>, DropReason>
    where
        'a: 'p,
    {
        let snapshot = self.snapshot;
        if ip.is_multicast() {
            return Err(DropReason::Multicast);
        }
        if packet.ethernet.destination != port.mac {
            return Err(DropReason::NotForUs);
        }
        let source = source::check(snapshot, port, packet.ethernet.source, ip.source)?;
        source::check_scope(snapshot, ip)?;
        if matches!(ip.transport, Transport::Icmp(Icmp::NotForwarded { .. })) {
            return Err(DropReason::IcmpNotForwarded);
        }
        let destination = receiver(snapshot, source, ip.destination)?;
        let (key, facts) = (ip.flow_key(), facts(bytes, ip));
        Ok(View {
            packet,
            ip,
            key,
            facts,
            port,
            source,
            destination,
            rewriting: Rewriting::None,
        })
    }

    /// An event about a packet, with its flow in the orientation of `key`.
    pub fn event(&self, view: &View<'_>, kind: EventKind, reversed: bool) -> Event {
        let ends = view.ends();
        let (key, source, destination) = if reversed {
            (view.key.reversed(), ends.destination, ends.source)
        } else {
            (view.key, ends.source, ends.destination)
        };
        Event {
            time: self.now,
            kind,
            key,
            service: view.service(),
            ingress: view.port.id,
            ingress_role: view.port.role,
            source,
            destination,
            generation: self.snapshot.generation(),
            tcp_flags: view.tcp_flags(),
            len: clamp_length(view.packet.length as usize),
        }
    }

    /// Tells control of a packet that was dropped before it had a view.
    fn announce_drop(&mut self, ip: &Ip, port: &Port, len: usize, reason: DropReason) {
        let endpoint = port.endpoint.and_then(|slot| self.snapshot.endpoint(slot));
        let event = Event {
            time: self.now,
            kind: EventKind::Dropped(reason),
            key: ip.flow_key(),
            service: None,
            ingress: port.id,
            ingress_role: port.role,
            source: incarnation(endpoint),
            destination: incarnation(self.snapshot.endpoint_at(ip.destination)),
            generation: self.snapshot.generation(),
            tcp_flags: match ip.transport {
                Transport::Tcp(tcp) => tcp.flags.0,
                _ => 0,
            },
            len: clamp_length(len),
        };
        self.announce(event);
    }

    /// Tells control of something that it may miss.
    pub fn announce(&mut self, event: Event) {
        if !self.tables.events.push_repeated(event) {
            self.tables.counters.add(Counter::EventsLost, 1);
        }
    }

    /// Tells control of something new.
    pub fn announce_first(&mut self, event: Event) {
        if !self.tables.events.push_first(event) {
            self.tables.counters.add(Counter::EventsLost, 1);
        }
    }

    /// An answer to the sender, by the port that the packet came in by.
    pub fn answer(inbound: &Inbound<'_>, len: usize) -> Transmission {
        Transmission {
            port: inbound.ingress,
            len,
            checksum: None,
        }
    }
}

/// The local endpoint that a packet is for, if any; `source` is the one that sent it.
pub(super) fn receiver<'s>(
    snapshot: &'s Snapshot,
    source: Option<&Endpoint>,
    destination: Address,
) -> Result<Option<&'s Endpoint>, DropReason> {
    let receiver = snapshot.endpoint_at(destination);
    if receiver.is_some_and(|endpoint| !is_ready(snapshot, endpoint)) {
        return Err(DropReason::EndpointNotReady);
    }
    // A Service's, a node port, or the answer to what was translated to come back here.
    let services = snapshot.services();
    let may_be_service = services.is_service_address(destination)
        || !services.is_empty() && snapshot.is_node_address(destination);
    if source.is_none() && receiver.is_none() && !may_be_service {
        // Nothing of ours is at either end: we are no router for others.
        return Err(DropReason::NoRoute);
    }
    Ok(receiver)
}

/// Whether packets can be brought to an endpoint, and policy be asked of it.
pub(super) fn is_ready(snapshot: &Snapshot, endpoint: &Endpoint) -> bool {
    snapshot.port(endpoint.port).is_some() && snapshot.has_policy(endpoint.slot)
}

fn clamp_length(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}

/// Whether what comes from this port may carry unfinished checksums.
pub(super) fn offload(port: &Port) -> Offload {
    if port.is_virtual {
        Offload::Virtual
    } else {
        Offload::Wire
    }
}

/// What conntrack needs to know of the packet.
fn facts(bytes: &[u8], ip: &Ip) -> Facts {
    match &ip.transport {
        Transport::Tcp(tcp) => Facts::Tcp(tcp_facts(tcp)),
        Transport::Udp(_) => Facts::Udp,
        Transport::Sctp(sctp) => Facts::Sctp(sctp_facts(bytes, ip, sctp)),
        Transport::Icmp(Icmp::EchoRequest { .. }) => Facts::Icmp(IcmpFacts { request: true }),
        Transport::Icmp(Icmp::EchoReply { .. }) => Facts::Icmp(IcmpFacts { request: false }),
        _ => Facts::Other,
    }
}

pub(super) fn tcp_facts(tcp: &Tcp) -> TcpFacts {
    TcpFacts {
        flags: TcpFlags::from_bits_retain(tcp.flags.0),
        sequence: tcp.sequence,
        acknowledgement: tcp.acknowledgement,
        window: tcp.window,
        window_scale: tcp.window_scale,
        payload_len: tcp.payload_length,
    }
}

fn sctp_facts(bytes: &[u8], ip: &Ip, sctp: &Sctp) -> SctpFacts {
    // The first chunk's flags follow the common header of 12 bytes and the chunk's type.
    let flags_at = usize::from(ip.transport_offset) + 13;
    SctpFacts {
        chunk_type: sctp.first_chunk,
        verification_tag: sctp.verification_tag,
        initiate_tag: sctp.initiate_tag.unwrap_or(0),
        chunk_flags: bytes.get(flags_at).copied().unwrap_or(0),
    }
}
