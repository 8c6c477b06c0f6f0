//! Services: a backend for what is new, and the real ends of what is translated (D1).
//!
//! [`Stage::reach`] chooses for a connection's first packet; the connection's entry remembers it.
//! [`Stage::meet`] shows every later packet, of either direction, with its real ends. Both make a
//! [`View`] of which all that follows takes its key and its endpoints, with a [`Rewriting`] that is
//! carried out when the packet is sent on.

use super::stage::{Stage, View, incarnation};
use super::{Inbound, Outcome, stage};
use crate::conntrack::{Facts, Hit, NewEntry, Storage, Translated, Translation};
use crate::counters::Counter;
use crate::events::EventKind;
use crate::service::Found;
use crate::snapshot::{Endpoint, Role};
use crate::wire::{Transport, reply};
use crate::{Address, Direction, DropReason, FlowKey, SocketAddress};

/// What is written into a packet when it is sent on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rewriting {
    /// Its addresses and ports stay.
    None,
    /// It gets those of `to`.
    Packet {
        to: FlowKey,
        /// What the client asked for, if that is a Service's.
        service: Option<SocketAddress>,
    },
    /// An ICMP error: it gets these addresses, and what it quotes those of `inner`.
    Error {
        source: Address,
        destination: Address,
        inner: FlowKey,
    },
}

/// The ports from which connections get one that need another source port than their own: behind those
/// that Linux takes for its own connections (`net.ipv4.ip_local_port_range`).
pub(super) const SOURCE_PORTS: (u16, u16) = (61_000, 65_535);
/// Source ports that are tried for one connection.
pub(super) const SOURCE_PORT_TRIES: u32 = 16;

/// Where a new connection leads.
#[expect(
    clippy::large_enum_variant,
    reason = "looked at where it is, and never in a heap"
)]
pub(super) enum Reached<'s> {
    /// To where its first packet says.
    AsItCame,
    /// To a Service's backend.
    Backend {
        /// The first packet with its real ends.
        real: View<'s>,
        /// What its addresses are translated to.
        translation: Translation,
    },
}

/// What a look at a hit makes of its packet.
#[expect(
    clippy::large_enum_variant,
    reason = "looked at where it is, and never in a heap"
)]
pub(super) enum Met<'s> {
    /// Nothing else.
    AsItCame,
    /// The packet with its real ends.
    Real(View<'s>),
    /// The hit is not what it should be any more, and has been removed.
    Gone,
}

/// A connection's first packet, of which `view` shows the real ends, as it is sent on.
pub(super) fn sent_on<'s>(view: &View<'s>, translation: &Translation) -> View<'s> {
    let flow = view.key;
    let is_service = translation.is_service(&flow);
    View {
        rewriting: Rewriting::Packet {
            to: translation.inner(&flow),
            service: is_service.then_some(translation.service),
        },
        ..*view
    }
}

impl Translated {
    /// The addresses and ports that a packet gets which goes the initiator's way, or back.
    pub(super) fn to(&self, original: bool) -> FlowKey {
        if original {
            self.translation.inner(&self.flow)
        } else {
            self.translation.outer(&self.flow).reversed()
        }
    }

    fn rewriting(&self, original: bool) -> Rewriting {
        let translation = &self.translation;
        let is_service = translation.is_service(&self.flow);
        Rewriting::Packet {
            to: self.to(original),
            service: is_service.then_some(translation.service),
        }
    }
}

/// Whether such a packet opens a connection that can be translated: one that begins beyond doubt, so
/// that no other backend gets the rest of somebody's connection.
fn begins(facts: &Facts) -> bool {
    facts.begins() || matches!(facts, Facts::Udp)
}

impl<'a, S: Storage> Stage<'a, '_, S> {
    /// The packet of a hit with its real ends. If the hit is not what it should be any more, its entry
    /// is removed, so that the next look finds no such.
    ///
    /// # Errors
    /// `EndpointNotReady` if nothing may come to one of its ends.
    pub(super) fn meet<'v>(&self, view: &View<'v>, hit: &Hit) -> Result<Met<'v>, DropReason>
    where
        'a: 'v,
    {
        let original = hit.original_direction;
        let may_move = original && begins(&view.facts);
        let met = match &hit.translated {
            // What was routed before there was such a Service.
            None if may_move && self.snapshot.services().concerns(&view.key) => None,
            None => return Ok(Met::AsItCame),
            Some(translated) if may_move && !self.serves(view.port.role, translated) => None,
            Some(translated) => self.real(view, translated, original),
        };
        let Some(met) = met else {
            self.tables.conntrack.retire(hit.handle);
            return Ok(Met::Gone);
        };
        if self.is_ready(met.source) && self.is_ready(met.destination) {
            Ok(Met::Real(met))
        } else {
            Err(DropReason::EndpointNotReady)
        }
    }

    /// Whether the backend of a connection is still one of its Service's, for clients behind a port of
    /// this role.
    pub(super) fn serves(&self, from: Role, translated: &Translated) -> bool {
        let Translated {
            flow, translation, ..
        } = translated;
        let services = self.snapshot.services();
        match services.find(from, translation.service, flow.protocol) {
            Some(found) => found.serves(flow.receiver()),
            None => !translation.is_service(flow),
        }
    }

    /// The packet with its real ends; none if one of them is another endpoint by now.
    pub(super) fn real<'v>(
        &self,
        view: &View<'v>,
        translated: &Translated,
        original: bool,
    ) -> Option<View<'v>>
    where
        'a: 'v,
    {
        let (flow, ends) = (translated.flow, translated.ends);
        let end = |address, wanted| {
            let endpoint = self.snapshot.endpoint_at(address);
            (incarnation(endpoint) == wanted).then_some(endpoint)
        };
        let client = end(flow.source, ends.source)?;
        let backend = end(flow.destination, ends.destination)?;
        let (key, source, destination) = if original {
            (flow, client, backend)
        } else {
            (flow.reversed(), backend, client)
        };
        Some(View {
            key,
            source,
            destination,
            rewriting: translated.rewriting(original),
            ..*view
        })
    }

    pub(super) fn is_ready(&self, endpoint: Option<&Endpoint>) -> bool {
        endpoint.is_none_or(|endpoint| stage::is_ready(self.snapshot, endpoint))
    }

    /// Where a packet without a connection leads: to itself, or to a backend of the Service that it asks
    /// for.
    ///
    /// # Errors
    /// `ServiceNoPort` and `ServiceNoBackend` are to be told to the sender
    /// ([`Stage::refuse_service`]).
    pub(super) fn reach<'v>(&mut self, view: &View<'v>) -> Result<Reached<'v>, DropReason>
    where
        'a: 'v,
    {
        let snapshot = self.snapshot;
        let services = snapshot.services();
        let (to, protocol) = (view.key.receiver(), view.key.protocol);
        let found = match services.find(view.port.role, to, protocol) {
            Some(found) => found,
            None if services.is_service_address(to.address) => {
                return Err(DropReason::ServiceNoPort);
            }
            // Nothing of ours is at either end: we are no router for others.
            None if view.source.is_none() && view.destination.is_none() => {
                return Err(DropReason::NoRoute);
            }
            None => return Ok(Reached::AsItCame),
        };
        let backend = self.choose(view, &found)?;
        let destination = snapshot.endpoint_at(backend.address);
        if !self.is_ready(destination) {
            return Err(DropReason::EndpointNotReady);
        }
        let flow = view.key.with_receiver(backend);
        let is_hairpin =
            view.source.is_some() && incarnation(view.source) == incarnation(destination);
        let source = if is_hairpin {
            // A pod takes nothing that comes from its own address.
            Some(to.address)
        } else if view.source.is_none() && destination.is_none() {
            // The node takes nothing from its own address either, and answers others past us.
            let source = services.source(to.address);
            let source = source.filter(|_| !snapshot.is_node_address(backend.address));
            Some(source.ok_or(DropReason::ServiceNoSource)?)
        } else {
            None
        };
        let source = source.map(|address| SocketAddress { address, port: 0 });
        let translation = Translation {
            service: to,
            source,
        };
        Ok(Reached::Backend {
            real: View {
                key: flow,
                destination,
                rewriting: Rewriting::Packet {
                    to: flow,
                    service: Some(to),
                },
                ..*view
            },
            translation,
        })
    }

    fn choose(&mut self, view: &View<'_>, found: &Found<'_>) -> Result<SocketAddress, DropReason> {
        if found.backends.is_empty() {
            return Err(DropReason::ServiceNoBackend);
        }
        if !begins(&view.facts) {
            return Err(DropReason::ConntrackInvalid);
        }
        let chosen = self.tables.affinity.choose(&view.key, found, self.now);
        let chosen = chosen.ok_or(DropReason::ServiceNoBackend)?;
        self.tables.counters.add(Counter::ServiceConnections, 1);
        let displaced = u64::from(chosen.displaced);
        self.tables
            .counters
            .add(Counter::AffinityDisplaced, displaced);
        Ok(chosen.backend)
    }

    /// A new connection's translation with a source port of our choice, another one for each attempt.
    pub(super) fn with_source_port(&self, entry: &NewEntry, attempt: u32) -> Translation {
        let key = &entry.key;
        let mut translation = entry.translation.unwrap_or(Translation {
            service: key.receiver(),
            source: None,
        });
        let (first, last) = SOURCE_PORTS;
        let count = u64::from(last - first) + 1;
        let drawn = self.tables.affinity.draw(key) >> 32;
        let port = first + ((drawn + u64::from(attempt)) % count) as u16;
        let own = translation
            .source
            .map_or(key.source, |source| source.address);
        translation.source = Some(SocketAddress { address: own, port });
        translation
    }

    /// Drops what asks a Service in vain, and tells its sender, if egress policy would let it have such
    /// a port at all (D19): else that there is nobody is none of its business.
    pub(super) fn refuse_service(
        &mut self,
        inbound: &mut Inbound<'_>,
        view: &View<'_>,
        reason: DropReason,
    ) -> Outcome {
        let event = self.event(view, EventKind::Dropped(reason), false);
        self.announce(event);
        let rate = self.snapshot.settings().icmp_errors_per_second;
        if !self.may_know(view) || !self.tables.limiters.own_errors.allow(rate, self.now) {
            return Outcome::Drop(reason);
        }
        let window = Self::room(inbound);
        let (packet, mac) = (view.packet, view.port.mac);
        let written = match view.ip.transport {
            Transport::Tcp(_) => reply::tcp_reset(window, packet, mac),
            _ => reply::port_unreachable(window, packet, view.ip.destination, mac),
        };
        match written {
            Ok(len) => Outcome::Refuse(Self::answer(inbound, len), reason),
            Err(_) => Outcome::Drop(reason),
        }
    }

    fn may_know(&self, view: &View<'_>) -> bool {
        let FlowKey { protocol, .. } = view.key;
        if !protocol.has_ports() || matches!(view.ip.transport, Transport::Unread) {
            return false;
        }
        let Some(sender) = view.source else {
            return true;
        };
        let snapshot = self.snapshot;
        let found = snapshot
            .services()
            .find(Role::Pod, view.key.receiver(), protocol);
        let port = found.map_or(view.key.destination_port, |found| {
            found.frontend.policy_port()
        });
        let policy = snapshot.policy();
        policy.may_accept(sender.slot, Direction::Egress, protocol, port)
    }
}

/// Whether a refusal is to be told to the packet's sender.
pub(super) fn is_refusal(reason: DropReason) -> bool {
    matches!(
        reason,
        DropReason::ServiceNoPort | DropReason::ServiceNoBackend
    )
}

/// What an ICMP error about a translated connection's packet becomes: `original` says which way the
/// quoted packet went. Whoever sends the error has seen the packet as it is on that side; its receiver
/// knows the other. An error of the other end's own comes from where that end seems to be.
pub(super) fn error_rewriting(
    translated: &Translated,
    original: bool,
    sender: Address,
) -> Rewriting {
    let (flow, translation) = (&translated.flow, &translated.translation);
    if original {
        let inner = translation.outer(flow);
        Rewriting::Error {
            source: if sender == flow.destination {
                inner.destination
            } else {
                sender
            },
            destination: inner.source,
            inner,
        }
    } else {
        let inner = translation.inner(flow).reversed();
        Rewriting::Error {
            source: if sender == flow.source {
                inner.destination
            } else {
                sender
            },
            destination: inner.source,
            inner,
        }
    }
}
