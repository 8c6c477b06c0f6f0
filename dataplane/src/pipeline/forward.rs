//! The way out: route, hop limit, MTU, and the headers of the next link.

use super::service::Rewriting;
use super::stage::{Stage, View};
use super::{Inbound, Outcome, Transmission};
use crate::conntrack::Storage;
use crate::counters::Counter;
use crate::events::EventKind;
use crate::route::NextHop;
use crate::snapshot::{Endpoint, EndpointSlot, Port, PortId, Role, Snapshot};
use crate::wire::{Checksum, TcpFlags, Transport, TxChecksum, Version, reply, rewrite, translate};
use crate::{Address, DropReason, Mac, Protocol};

/// Where a packet leaves and to whom.
pub(super) struct Hop<'s> {
    pub egress: &'s Port,
    pub mac: Mac,
}

/// The way on.
pub(super) enum Next<'s> {
    Hop(Hop<'s>),
    /// By this port to this neighbour, whose Ethernet address is not known.
    Unresolved {
        port: PortId,
        address: Address,
    },
}

/// The way on of a packet that came in by `ingress`: to the local pod that it is for, else by the
/// routes. `source` is the local endpoint that sent it. One that is translated may go back where it
/// came from.
pub(super) fn next_hop<'s>(
    snapshot: &'s Snapshot,
    ingress: &Port,
    source: Option<EndpointSlot>,
    endpoint: Option<&Endpoint>,
    destination: Address,
    is_translated: bool,
) -> Result<Next<'s>, DropReason> {
    if let Some(endpoint) = endpoint {
        let egress = snapshot
            .port(endpoint.port)
            .ok_or(DropReason::EndpointNotReady)?;
        // Only a pod that talks to itself goes out where it came in.
        if egress.id == ingress.id && source.is_none_or(|slot| slot != endpoint.slot) {
            return Err(DropReason::SamePort);
        }
        let mac = endpoint.mac;
        return Ok(Next::Hop(Hop { egress, mac }));
    }
    let target = snapshot
        .routes()
        .lookup(destination)
        .ok_or(DropReason::NoRoute)?;
    let egress = snapshot.port(target.port).ok_or(DropReason::NoRoute)?;
    if egress.id == ingress.id && !is_translated {
        return Err(DropReason::SamePort);
    }
    let mac = match egress.role {
        // A pod's addresses are its endpoint's; a route cannot add others.
        Role::Pod => return Err(DropReason::NoRoute),
        Role::HostNode | Role::HostTransit => egress.peer_mac.ok_or(DropReason::NoNeighbour)?,
        Role::Uplink => {
            let address = match target.next_hop {
                NextHop::Gateway(gateway) => gateway,
                NextHop::OnLink => destination,
                NextHop::Endpoint(_) => return Err(DropReason::NoRoute),
            };
            let port = egress.id;
            match snapshot.neighbour(port, address) {
                Some(mac) => mac,
                None => return Ok(Next::Unresolved { port, address }),
            }
        }
    };
    Ok(Next::Hop(Hop { egress, mac }))
}

impl<'a, S: Storage> Stage<'a, '_, S> {
    /// Sends an admitted packet on its way.
    pub fn forward(
        &mut self,
        inbound: &mut Inbound<'_>,
        view: &View<'_>,
    ) -> Result<Outcome, DropReason> {
        let hop = match self.next_hop(view) {
            Ok(hop) => hop,
            Err(reason) => {
                if reason != DropReason::NoNeighbour {
                    let event = self.event(view, EventKind::Dropped(reason), false);
                    self.announce(event);
                }
                return Err(reason);
            }
        };
        if view.ip.hop_limit <= 1 {
            return Ok(self.refuse(inbound, view, DropReason::TtlExceeded, 0));
        }
        if view.ip.packet_length() > u32::from(hop.egress.mtu) {
            let mtu = hop.egress.mtu;
            return Ok(self.refuse(inbound, view, DropReason::TooBig, mtu));
        }
        let len = view.packet.length as usize;
        let here = len.min(inbound.len);
        let bytes = inbound.window.get_mut(..here).ok_or(DropReason::Internal)?;
        let checksum = self.rewrite(bytes, inbound.rest, view, &hop)?;
        Ok(Outcome::Forward(Transmission {
            port: hop.egress.id,
            len,
            checksum,
        }))
    }

    /// The port and the Ethernet address of the next hop; asks control to resolve one that is
    /// missing.
    fn next_hop(&mut self, view: &View<'_>) -> Result<Hop<'a>, DropReason> {
        let destination = view.onward();
        let is_translated = view.rewriting != Rewriting::None;
        let source = view.source.map(|source| source.slot);
        match next_hop(
            self.snapshot,
            view.port,
            source,
            view.destination,
            destination,
            is_translated,
        )? {
            Next::Hop(hop) => Ok(hop),
            Next::Unresolved { port, address } => {
                self.ask(view, port, address);
                Err(DropReason::NoNeighbour)
            }
        }
    }

    /// Asks control for the Ethernet address of a neighbour.
    fn ask(&mut self, view: &View<'_>, port: PortId, address: Address) {
        let kind = EventKind::NeighbourMissing { port, address };
        let event = self.event(view, kind, false);
        if self.tables.limiters.asks(view.port.id, self.now) {
            self.announce_first(event);
        } else {
            self.announce(event);
        }
    }

    /// Writes the headers as the next link needs them. What is left of the transport checksum for
    /// the way out to complete.
    fn rewrite(
        &mut self,
        bytes: &mut [u8],
        rest: &[&[u8]],
        view: &View<'_>,
        hop: &Hop<'_>,
    ) -> Result<Option<TxChecksum>, DropReason> {
        let packet = view.packet;
        match &view.rewriting {
            Rewriting::None => {}
            Rewriting::Packet { to, .. } => translate::translate(bytes, packet, to)?,
            Rewriting::Error {
                source,
                destination,
                inner,
            } => translate::translate_error(bytes, packet, (*source, *destination), inner)?,
        }
        if let Transport::Tcp(tcp) = &view.ip.transport
            && tcp.flags.has(TcpFlags::SYN)
        {
            // The MSS bounds what comes back: both links have to carry it.
            let mtu = u32::from(hop.egress.mtu.min(view.port.mtu));
            if rewrite::clamp_mss(bytes, packet, mtu)? {
                self.tables.counters.add(Counter::MssClamped, 1);
            }
        }
        rewrite::decrement_ttl(bytes, packet)?;
        rewrite::rewrite_ethernet(bytes, hop.egress.mac, hop.mac)?;
        let in_software = match view.ip.checksum {
            Checksum::Complete => return Ok(None),
            Checksum::Partial => !self.completes_checksums(hop.egress.id),
            // UDP without a checksum stays without; SCTP's CRC32c nobody after us would make.
            Checksum::Absent => view.ip.protocol == Protocol::SCTP,
        };
        if in_software {
            rewrite::complete_checksum(bytes, rest, packet)?;
            self.tables.counters.add(Counter::ChecksumsCompleted, 1);
            return Ok(None);
        }
        Ok(packet.tx_checksum())
    }

    pub fn completes_checksums(&self, port: PortId) -> bool {
        self.tables
            .checksum_offload
            .get(usize::from(port.0))
            .is_some_and(|offload| *offload)
    }

    /// Where an answer about the packet may be written.
    pub fn room<'w>(inbound: &'w mut Inbound<'_>) -> &'w mut [u8] {
        // Behind the first of several buffers' bytes there is nothing of this packet to quote.
        let room = match inbound.rest {
            [] => inbound.window.len(),
            _ => inbound.len,
        };
        inbound.window.get_mut(..room).unwrap_or_default()
    }

    /// Drops the packet and, where that is allowed, tells its sender why (RFC 792, RFC 4443).
    fn refuse(
        &mut self,
        inbound: &mut Inbound<'_>,
        view: &View<'_>,
        reason: DropReason,
        mtu: u16,
    ) -> Outcome {
        let event = self.event(view, EventKind::Dropped(reason), false);
        self.announce(event);
        let ip = view.ip;
        let source = match ip.version {
            Version::V4 => view.port.icmp_source_v4,
            Version::V6 => view.port.icmp_source_v6,
        };
        // RFC 1191 knows the message only for packets that may not be fragmented.
        let silent = reason == DropReason::TooBig && !ip.dont_fragment;
        let rate = self.snapshot.settings().icmp_errors_per_second;
        let Some(router) = source.filter(|_| !silent) else {
            return Outcome::Drop(reason);
        };
        if !self.tables.limiters.own_errors.allow(rate, self.now) {
            return Outcome::Drop(reason);
        }
        let window = Self::room(inbound);
        let (packet, mac) = (view.packet, view.port.mac);
        let written = match reason {
            DropReason::TooBig => {
                reply::packet_too_big(window, packet, u32::from(mtu), router, mac)
            }
            _ => reply::time_exceeded(window, packet, router, mac),
        };
        match written {
            Ok(len) => Outcome::Refuse(Self::answer(inbound, len), reason),
            Err(_) => Outcome::Drop(reason),
        }
    }
}
