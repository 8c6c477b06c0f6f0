//! `dryRun`: what a change would open and close, and which connections of now it would cut.
//!
//! The change is made in the engine of policies, compared, and taken back; no worker sees it.

use std::collections::BTreeSet;

use dataplane::conntrack::{Entry, State};
use dataplane::pipeline::decide_again;
use dataplane::snapshot::{EndpointSlot, ExistingConnections, Generation, Incarnation};
use dataplane::{Protocol, Snapshot};
use k8s_openapi::api::core::v1::Pod;

use super::plane::Plane;
use super::server::refused;
use super::state::Daemon;
use crate::cluster::{Cluster, Event, EventKind};
use crate::lower::{self, Change, LocalEndpoint};
use crate::objects::Key;
use crate::preview::{Comparison, Party, Side};
use crate::protocol::{AuditPreview, ErrorObject, Preview, PreviewCut, Reason};
use crate::trace::View;

/// The most connections that a preview names.
pub const MAX_CUTS: usize = 200;
/// The most connections that a preview looks at.
const MAX_CONNECTIONS: usize = 262_144;

impl<P: Plane> Daemon<P> {
    /// What a change would do. It has done nothing afterwards.
    pub(super) fn preview(
        &mut self,
        candidate: &Cluster,
        events: &[Event],
    ) -> Result<Preview, ErrorObject> {
        let changes: Vec<Change> = events.iter().map(Change::from).collect();
        let touched = self
            .policies
            .update(&changes)
            .map_err(|error| refused(Reason::InternalError, error.to_string()))?;
        // A number that no journal has given out; no worker sees it.
        let generation = Generation(self.live.generation.saturating_add(1));
        let preview = self
            .draw(generation, &touched, &self.services)
            .map(|snapshot| {
                let touched = touched.endpoints.into_iter().collect();
                let after = Side::enforced(snapshot.policy());
                let before = Side::enforced(&self.table);
                let mut preview = self.compare(candidate, &touched, before, after);
                preview.audited = self.audited(candidate, events, &touched, &snapshot);
                self.find_cuts(&snapshot, &mut preview);
                preview
            });
        self.policies.undo(&changes);
        preview
    }

    /// What the policies in audit mode would do; none if the change is about none of them.
    fn audited(
        &self,
        candidate: &Cluster,
        events: &[Event],
        touched: &BTreeSet<EndpointSlot>,
        snapshot: &Snapshot,
    ) -> Option<AuditPreview> {
        let stays = events.iter().filter(|e| e.kind != EventKind::Deleted);
        let keys = stays.map(|event| event.object.key());
        let audited = keys.filter(|key| self.policies.rules_of(key).is_some_and(|r| r.audit));
        let policies: Vec<String> = audited.map(Key::display).collect();
        if policies.is_empty() {
            return None;
        }
        let enforced = Side::enforced(snapshot.policy());
        let would = self.compare(
            candidate,
            touched,
            enforced,
            Side::audited(snapshot.policy()),
        );
        Some(AuditPreview {
            policies,
            opens: would.opens,
            opened_pairs: would.opened_pairs,
            closes: would.closes,
            closed_pairs: would.closed_pairs,
            pairs_left_out: would.pairs_left_out,
        })
    }

    fn compare(
        &self,
        candidate: &Cluster,
        touched: &BTreeSet<EndpointSlot>,
        before: Side<'_>,
        after: Side<'_>,
    ) -> Preview {
        if touched.is_empty() {
            return Preview::default();
        }
        let locals: std::collections::HashMap<&str, (&LocalEndpoint, EndpointSlot)> = self
            .policies
            .endpoints()
            .map(|(local, slot)| (local.uid.as_str(), (local, slot)))
            .collect();
        let mut pods = Vec::new();
        for object in self.cluster.list_of::<Pod>() {
            let stays = candidate.get(object.key());
            let Some(pod) = stays.filter(|pod| pod.uid() == object.uid()) else {
                continue;
            };
            let Some(typed) = pod.as_pod() else { continue };
            let spec = typed.spec.as_ref();
            let on_host = spec.and_then(|spec| spec.host_network).unwrap_or_default();
            if on_host || lower::has_ended(typed) {
                continue;
            }
            let local = locals.get(object.uid());
            let party = Party {
                name: format!("{}/{}", object.namespace(), object.name()),
                addresses: match local {
                    Some((local, _)) => local.addresses.clone(),
                    None => lower::pod_addresses(typed),
                },
                slot: local.map(|(_, slot)| *slot),
            };
            if !party.addresses.is_empty() {
                pods.push(party);
            }
        }
        let comparison = Comparison {
            before,
            after,
            touched,
            pods: &pods,
        };
        comparison.preview()
    }

    /// Decides the connections in the table under the candidate, as their next packets would.
    fn find_cuts(&self, candidate: &Snapshot, preview: &mut Preview) {
        if candidate.settings().existing_connections == ExistingConnections::Keep {
            return;
        }
        let view = View {
            cluster: &self.cluster,
            locals: &[],
            slots: &[],
            table: candidate.policy(),
            ids: self.policies.ids(),
            services: &self.services,
            generation: candidate.generation().0,
        };
        let connections = self.plane.list_connections(MAX_CONNECTIONS);
        let there = self.plane.conntrack().entries;
        preview.connections_left_out = match connections.len() {
            MAX_CONNECTIONS => there.saturating_sub(MAX_CONNECTIONS as u64),
            _ => 0,
        };
        for entry in connections.into_iter().map(|connection| connection.entry) {
            let live = entry.verdict.accept && !is_over(entry.state);
            let denied = |snapshot: &Snapshot| {
                let verdict = decide_again(
                    snapshot,
                    &entry.key,
                    &entry.ends,
                    entry.translation.as_ref(),
                )?;
                (!verdict.accept).then_some(verdict)
            };
            let Some(verdict) = denied(candidate).filter(|_| live) else {
                continue;
            };
            // The last change has cut it already; its next packet will find out.
            if self
                .newest
                .as_ref()
                .is_some_and(|now| denied(now).is_some())
            {
                continue;
            }
            preview.cut_connections += 1;
            if preview.cuts.len() < MAX_CUTS {
                let reason = view.brief(verdict.provenance.direction, verdict);
                preview.cuts.push(self.cut(&entry, reason));
            }
        }
    }

    fn cut(&self, entry: &Entry, reason: String) -> PreviewCut {
        let name = |address: dataplane::Address, incarnation: Incarnation| {
            let address = address.to_ip();
            match self.endpoints.by_incarnation(incarnation) {
                Some(endpoint) if incarnation != Incarnation::NONE => endpoint.pod(),
                _ => match self.addresses.at(address) {
                    Some(pod) => format!("{}/{}", pod.namespace(), pod.name()),
                    None => address.to_string(),
                },
            }
        };
        let key = &entry.key;
        PreviewCut {
            from: name(key.source, entry.ends.source),
            to: name(key.destination, entry.ends.destination),
            protocol: match key.protocol {
                Protocol::TCP => "TCP".to_owned(),
                Protocol::UDP => "UDP".to_owned(),
                Protocol::SCTP => "SCTP".to_owned(),
                Protocol::ICMP | Protocol::ICMPV6 => "ICMP".to_owned(),
                Protocol(number) => number.to_string(),
            },
            source_port: key.source_port,
            destination_port: key.destination_port,
            reason,
        }
    }
}

/// Whether nothing more is to come of a connection.
const fn is_over(state: State) -> bool {
    matches!(
        state,
        State::LastAck | State::TimeWait | State::Close | State::SctpClosed
    )
}
