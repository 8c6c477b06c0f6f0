//! Events of the workers: lines of the denial log, next hops to resolve.

use std::time::Instant;

use config::limits::LOG_FLOWS;
use dataplane::events::{Event, EventKind};
use dataplane::policy::explain::{Explanation, PeerMatch, PortMatch};
use dataplane::snapshot::Incarnation;
use dataplane::{Address, Direction, DropReason, FlowKey, Tier, Verdict};

use super::plane::Plane;
use super::state::Daemon;
use crate::denial_log::Entry;

impl<P: Plane> Daemon<P> {
    /// Takes what the workers have told, and writes the log.
    pub(super) fn follow_events(&mut self) {
        let now = Instant::now();
        for event in self.plane.take_events(LOG_FLOWS) {
            match event.kind {
                EventKind::NeighbourMissing { port, address } => self.plane.resolve(port, address),
                EventKind::Accepted(verdict)
                | EventKind::Denied(verdict)
                | EventKind::DeniedAgain(verdict) => {
                    let entry = self.policy_entry(&event, verdict);
                    self.log.record(entry, 1, now);
                }
                EventKind::Dropped(reason) if is_worth_a_line(reason) => {
                    let entry = self.drop_entry(&event, reason);
                    self.log.record(entry, 1, now);
                }
                EventKind::Dropped(_) | EventKind::Audited { .. } | EventKind::Sampled(_) => {}
            }
        }
        let lost = self.plane.events_lost();
        self.log.add_lost(lost.saturating_sub(self.events_lost));
        self.events_lost = lost;
        for line in self.log.flush(now) {
            self.watches.tell_log(&line);
        }
    }

    fn policy_entry(&self, event: &Event, verdict: Verdict) -> Entry {
        let provenance = verdict.provenance;
        Entry {
            accept: verdict.accept,
            tier: Some(provenance.tier),
            direction: Some(provenance.direction),
            policy: self.policy_name(verdict),
            reason: self.reason(event, verdict),
            ..self.entry(event)
        }
    }

    /// The policy that a verdict names, `NS/NAME`, or `NAME` if it has no namespace.
    pub(super) fn policy_name(&self, verdict: Verdict) -> Option<String> {
        let name = self.ids.name(verdict.provenance.policy?)?;
        if name.namespace.is_empty() {
            return Some(name.name.clone());
        }
        Some(format!("{}/{}", name.namespace, name.name))
    }

    fn drop_entry(&self, event: &Event, reason: DropReason) -> Entry {
        Entry {
            reason: reason.name().replace('_', " "),
            ..self.entry(event)
        }
    }

    /// What every line has, whatever happened.
    fn entry(&self, event: &Event) -> Entry {
        Entry {
            source: event.key.source.to_ip(),
            // Of an echo request that is its identifier, and the other port 0.
            source_port: event.key.source_port,
            destination: event.key.destination.to_ip(),
            destination_port: event.key.destination_port,
            protocol: event.key.protocol,
            accept: false,
            tier: None,
            direction: None,
            source_pod: self.pod_of(event.source, event.key.source),
            destination_pod: self.pod_of(event.destination, event.key.destination),
            policy: None,
            reason: String::new(),
            generation: event.generation.0,
        }
    }

    /// `NS/POD` of an end: of the local endpoint, or of another node's pod with that address.
    fn pod_of(&self, incarnation: Incarnation, address: Address) -> Option<String> {
        if incarnation != Incarnation::NONE {
            return self
                .endpoints
                .by_incarnation(incarnation)
                .map(|endpoint| endpoint.pod());
        }
        let ip = address.to_ip().to_string();
        let pods = self.cluster.list_of::<k8s_openapi::api::core::v1::Pod>();
        let mut found = pods.filter(|pod| {
            let ips = pod.value()["status"]["podIPs"]
                .as_array()
                .into_iter()
                .flatten();
            ips.into_iter()
                .any(|known| known["ip"].as_str() == Some(&ip))
        });
        found
            .next()
            .map(|pod| format!("{}/{}", pod.namespace(), pod.name()))
    }

    /// Why, in words: of a denial by default what missed by least.
    fn reason(&self, event: &Event, verdict: Verdict) -> String {
        let provenance = verdict.provenance;
        if let Some(rule) = provenance.rule {
            let verb = if verdict.accept { "accepts" } else { "denies" };
            return format!("rule {rule} {verb}");
        }
        if verdict.accept {
            return "no policy applies".into();
        }
        let (own, peer) = match provenance.direction {
            Direction::Ingress => (event.destination, event.key.source),
            Direction::Egress => (event.source, event.key.destination),
        };
        // The live table, which may be newer than the one that decided: then it may accept.
        let explained = self.explain(own, provenance.direction, peer, &event.key);
        match explained {
            Some(explanation) if !explanation.verdict.accept => missed(&explanation),
            _ => "no rule matches".into(),
        }
    }

    fn explain(
        &self,
        own: Incarnation,
        direction: Direction,
        peer: Address,
        key: &FlowKey,
    ) -> Option<Explanation> {
        let endpoint = self.endpoints.by_incarnation(own)?;
        let slot = self.compiled.slot(&endpoint.record.uid)?;
        let port = key.protocol.has_ports().then_some(key.destination_port);
        Some(
            self.compiled
                .table
                .explain(slot, direction, peer, key.protocol, port),
        )
    }
}

/// Drops that tell of an attempt, not of the weather.
fn is_worth_a_line(reason: DropReason) -> bool {
    matches!(
        reason,
        DropReason::SpoofedSource | DropReason::SpoofedMac | DropReason::SourceRouted
    )
}

fn missed(explanation: &Explanation) -> String {
    let rules = || {
        let policies = explanation.consulted.iter();
        policies
            .filter(|policy| policy.tier == Tier::NetworkPolicy)
            .flat_map(|policy| &policy.rules)
    };
    if rules().next().is_none() {
        return "no rule allows anything".into();
    }
    let nearest = explanation.nearest_misses();
    match nearest.first().map(|(_, rule)| (&rule.peer, &rule.port)) {
        Some((PeerMatch::Matched, PortMatch::Wanted(_))) => "no rule matches port".into(),
        Some((PeerMatch::Excepted { except, .. }, _)) => format!("peer is excepted by {except}"),
        _ => "no rule matches peer".into(),
    }
}
