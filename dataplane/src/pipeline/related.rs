//! ICMP errors: they pass with the connection that they are about (D4), translated as it is.

use super::service;
use super::stage::{Stage, View, incarnation};
use super::track::{Admitted, Connection};
use crate::DropReason;
use crate::conntrack::{Facts, Hit, IcmpError, Storage};
use crate::counters::Counter;
use crate::events::EventKind;
use crate::snapshot::Role;
use crate::wire;

impl<'a, S: Storage> Stage<'a, '_, S> {
    /// An ICMP error (D4): passes with the connection that it is about.
    pub(super) fn admit_error<'v>(
        &mut self,
        view: &View<'v>,
        error: &wire::IcmpError,
    ) -> Admitted<'v>
    where
        'a: 'v,
    {
        match self.related(view, error) {
            Ok(admitted) => {
                self.tables.counters.add(Counter::Related, 1);
                Ok(admitted)
            }
            Err(reason) => Err(self.drop_invalid(view, reason)),
        }
    }

    fn related<'v>(&mut self, view: &View<'v>, error: &wire::IcmpError) -> Admitted<'v>
    where
        'a: 'v,
    {
        let snapshot = self.snapshot;
        let inner = error.inner.key;
        let inner_source = snapshot.endpoint_at(inner.source);
        let inner_destination = snapshot.endpoint_at(inner.destination);
        let question = IcmpError {
            inner,
            inner_source: incarnation(inner_source),
            inner_destination: incarnation(inner_destination),
            sender: incarnation(view.source),
            destination: view.ip.destination,
            tcp_sequence: error.inner.tcp_sequence,
            mtu: error.mtu,
        };
        let mut hit = self.tables.conntrack.related(&question, self.now)?;
        // The quoted packet's flow, as a view of that packet would show it.
        let quoted = View {
            key: inner,
            facts: Facts::Other,
            source: inner_source,
            destination: inner_destination,
            ..*view
        };
        let (quoted, admitted) = match &hit.translated {
            None => (quoted, None),
            Some(translated) => {
                let original = hit.original_direction;
                let real = self.real(&quoted, translated, original);
                let real = real.ok_or(DropReason::UnrelatedIcmpError)?;
                // It goes to whoever sent the quoted packet.
                let sender = view.ip.source;
                let admitted = View {
                    destination: real.source,
                    rewriting: service::error_rewriting(translated, original, sender),
                    ..*view
                };
                (real, Some(admitted))
            }
        };
        if !self.is_ready(admitted.as_ref().unwrap_or(view).destination) {
            return Err(DropReason::EndpointNotReady);
        }
        let connection = self.orient_quoted(&quoted, &hit);
        if connection.epochs.is_newer_than(hit.epochs) {
            let cut = self.redecide(&quoted, &connection, &mut hit);
            if cut.ok_or(DropReason::UnrelatedIcmpError)? {
                let kind = EventKind::Denied(hit.verdict);
                let event = self.event(&quoted, kind, !hit.original_direction);
                self.announce_first(event);
            }
        }
        if hit.denied {
            return Err(DropReason::ConnectionDenied);
        }
        let rate = snapshot.settings().icmp_errors_per_second;
        if !self.tables.limiters.related_errors.allow(rate, self.now) {
            return Err(DropReason::IcmpRateLimited);
        }
        Ok(admitted)
    }

    /// As [`Stage::orient`], for a packet that did not come in here itself: the role of its port is
    /// the entry's to say in either direction.
    fn orient_quoted<'v>(&self, quoted: &View<'v>, hit: &Hit) -> Connection<'v> {
        let mut connection = self.orient(quoted, hit);
        connection.flow.ingress = self
            .snapshot
            .port(hit.ingress)
            .map_or(Role::Uplink, |port| port.role);
        connection
    }
}
