//! Events of the workers: lines of the denial log, flows for observers, next hops to resolve.

use std::collections::BTreeMap;
use std::time::Instant;

use config::limits::LOG_FLOWS;
use dataplane::events::{Event, EventKind};
use dataplane::flow::SocketAddress;
use dataplane::policy::explain::{Explanation, PeerMatch, PortMatch};
use dataplane::snapshot::Incarnation;
use dataplane::{Address, Direction, DropReason, FlowKey, Protocol, Tier, Verdict};
use k8s_openapi::api::core::v1::Pod;

use super::observe::Clock;
use super::plane::Plane;
use super::state::Daemon;
use crate::denial_log::{Entry, LogVerdict};
use crate::flow::{
    Flow, FlowEnd, FlowPolicy, FlowService, FlowVerdict, protocol_name, tcp_flag_names,
};
use crate::trace::rule_name;

impl<P: Plane> Daemon<P> {
    /// Takes what the workers have told: writes the log, tells the observers.
    pub(super) fn follow_events(&mut self) {
        let now = Instant::now();
        let clock = Clock::now();
        for event in self.plane.take_events(LOG_FLOWS) {
            match event.kind {
                EventKind::NeighbourMissing { port, address } => self.plane.resolve(port, address),
                EventKind::Sampled(verdict) => self.verify(&event, verdict, now),
                _ => self.follow_event(&event, now, clock),
            }
        }
        let lost = self.plane.events_lost();
        let fresh = lost.saturating_sub(self.events_lost);
        self.log.add_lost(fresh);
        self.watches.lose_for_all(fresh);
        self.events_lost = lost;
        for line in self.log.flush(now) {
            self.watches.tell_log(&line);
        }
    }

    fn follow_event(&mut self, event: &Event, now: Instant, clock: Clock) {
        match event.kind {
            EventKind::Denied(verdict) => self.tallies.deny(verdict),
            EventKind::Audited { would, .. } => self.tallies.audit(would),
            _ => {}
        }
        let is_logged = match event.kind {
            EventKind::Accepted(_) => self.config.log.accepts,
            EventKind::Denied(_) | EventKind::DeniedAgain(_) | EventKind::Audited { .. } => true,
            EventKind::Dropped(reason) => is_worth_a_line(reason),
            EventKind::NeighbourMissing { .. } | EventKind::Sampled(_) => false,
        };
        let is_told = self.recent.admit(now);
        if !is_told {
            self.watches.lose_for_all(1);
        }
        if !is_logged && !is_told {
            return;
        }
        let flow = self.flow(event, clock);
        if is_logged {
            self.log.record(entry(event, &flow), 1, now);
        }
        if is_told {
            self.tell_flow(flow);
        }
    }

    /// The policy that a verdict names.
    pub(super) fn flow_policy(&self, verdict: Verdict) -> Option<FlowPolicy> {
        let by = verdict.provenance;
        let ids = self.policies.ids();
        let name = ids.name(by.policy?)?;
        Some(FlowPolicy {
            kind: name.kind.to_owned(),
            namespace: (!name.namespace.is_empty()).then(|| name.namespace.clone()),
            name: name.name.clone(),
            rule: by.rule,
            rule_name: rule_name(&self.cluster, ids, by).map(str::to_owned),
        })
    }

    /// What an event says, in words.
    fn flow(&self, event: &Event, clock: Clock) -> Flow {
        let key = &event.key;
        let decided = policy_verdict(event.kind);
        let ends = [event.source, event.destination];
        let (verdict, reason) = match event.kind {
            EventKind::Accepted(verdict) => (
                FlowVerdict::Forwarded,
                self.reason(&event.key, ends, verdict),
            ),
            EventKind::Denied(verdict) | EventKind::DeniedAgain(verdict) => {
                (FlowVerdict::Dropped, self.reason(&event.key, ends, verdict))
            }
            EventKind::Audited { would, .. } => {
                let verb = if would.accept { "allowed" } else { "denied" };
                let reason = format!("would be {verb}: {}", self.audit_reason(would));
                (FlowVerdict::Audit, reason)
            }
            EventKind::Sampled(verdict) => {
                (passed(verdict), self.reason(&event.key, ends, verdict))
            }
            EventKind::Dropped(reason) => (FlowVerdict::Dropped, reason.name().to_owned()),
            EventKind::NeighbourMissing { .. } => {
                let reason = DropReason::NoNeighbour.name();
                (FlowVerdict::Dropped, reason.to_owned())
            }
        };
        Flow {
            time: clock.wall_time(event.time),
            verdict,
            reason,
            direction: decided.map(|verdict| verdict.provenance.direction.into()),
            source: self.end(event.source, key.source, key.source_port, key.protocol),
            destination: self.end(
                event.destination,
                key.destination,
                key.destination_port,
                key.protocol,
            ),
            service: event.service.map(|service| self.flow_service(service)),
            protocol: protocol_name(key.protocol),
            tcp_flags: tcp_flag_names(event.tcp_flags),
            policy: decided.and_then(|verdict| self.flow_policy(verdict)),
            generation: event.generation.0,
            node: self.config.node_name.clone(),
        }
    }

    /// The Service with an address, by the name that it has now.
    pub(super) fn flow_service(&self, service: SocketAddress) -> FlowService {
        let ip = service.address.to_ip();
        let claims = self.cluster.claims();
        let holder = claims.address(ip).or_else(|| claims.port(service.port));
        FlowService {
            ip,
            port: service.port,
            namespace: holder.map(|(namespace, _)| namespace.to_string()),
            name: holder.map(|(_, name)| name.to_string()),
        }
    }

    /// An end: the local endpoint, or another node's pod with that address.
    pub(super) fn end(
        &self,
        incarnation: Incarnation,
        address: Address,
        port: u16,
        protocol: Protocol,
    ) -> FlowEnd {
        let ip = address.to_ip();
        let mut end = FlowEnd {
            ip,
            port: protocol.has_ports().then_some(port),
            namespace: None,
            pod: None,
            labels: BTreeMap::new(),
            workload: None,
        };
        let object = if incarnation == Incarnation::NONE {
            self.addresses.at(ip)
        } else if let Some(endpoint) = self.endpoints.by_incarnation(incarnation) {
            let record = &endpoint.record;
            // The object may lag behind the interface, or be of another pod by now.
            end.namespace = Some(record.namespace.clone());
            end.pod = Some(record.name.clone());
            let named = self.cluster.pod(&record.namespace, &record.name);
            named.filter(|pod| pod.uid() == record.uid)
        } else {
            None
        };
        if let Some(object) = object {
            end.namespace = Some(object.namespace().to_owned());
            end.pod = Some(object.name().to_owned());
            let labels = object.labels();
            end.labels = labels.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
            end.workload = object.as_pod().and_then(workload);
        }
        end
    }

    /// Why, in words: of a denial by default what missed by least. `ends` are the local endpoints at
    /// `key`'s source and destination.
    pub(super) fn reason(&self, key: &FlowKey, ends: [Incarnation; 2], verdict: Verdict) -> String {
        let provenance = verdict.provenance;
        if let Some(said) = self.said_by_rule(verdict) {
            return said;
        }
        if verdict.accept {
            return "no policy applies".into();
        }
        let (own, peer) = match provenance.direction {
            Direction::Ingress => (ends[1], key.source),
            Direction::Egress => (ends[0], key.destination),
        };
        // The live table, which may be newer than the one that decided: then it may accept.
        let explained = self.explain(own, provenance.direction, peer, key);
        match explained {
            Some(explanation) if !explanation.verdict.accept => missed(&explanation),
            _ => "no rule matches".into(),
        }
    }

    /// Why the policies in audit mode would decide otherwise.
    fn audit_reason(&self, would: Verdict) -> String {
        let otherwise = match would.accept {
            true => "no policy applies",
            false => "no rule matches",
        };
        self.said_by_rule(would)
            .unwrap_or_else(|| otherwise.to_owned())
    }

    /// `rule 0 "no-telnet" denies`, if a rule decided.
    fn said_by_rule(&self, verdict: Verdict) -> Option<String> {
        let by = verdict.provenance;
        let rule = by.rule?;
        let verb = if verdict.accept { "accepts" } else { "denies" };
        Some(match rule_name(&self.cluster, self.policies.ids(), by) {
            Some(name) => format!("rule {rule} {name:?} {verb}"),
            None => format!("rule {rule} {verb}"),
        })
    }

    fn explain(
        &self,
        own: Incarnation,
        direction: Direction,
        peer: Address,
        key: &FlowKey,
    ) -> Option<Explanation> {
        let endpoint = self.endpoints.by_incarnation(own)?;
        let slot = self.policies.slot(&endpoint.record.uid)?;
        let port = key.protocol.has_ports().then_some(key.destination_port);
        Some(
            self.table
                .explain(slot, direction, peer, key.protocol, port),
        )
    }
}

/// What a pod is one of. A Deployment's pods belong to a ReplicaSet that is named after it and a hash.
fn workload(pod: &Pod) -> Option<String> {
    let owners = pod.metadata.owner_references.as_ref()?;
    let mut owners = owners.iter();
    let owner = owners.find(|owner| owner.controller == Some(true))?;
    let labels = pod.metadata.labels.as_ref();
    let hash = labels.and_then(|labels| labels.get("pod-template-hash"));
    let deployment =
        hash.and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-'));
    Some(match deployment.filter(|_| owner.kind == "ReplicaSet") {
        Some(name) => format!("Deployment/{name}"),
        None => format!("{}/{}", owner.kind, owner.name),
    })
}

fn passed(verdict: Verdict) -> FlowVerdict {
    if verdict.accept {
        FlowVerdict::Forwarded
    } else {
        FlowVerdict::Dropped
    }
}

/// What policy said, if it decided; of an audited flow what it would have said.
fn policy_verdict(kind: EventKind) -> Option<Verdict> {
    match kind {
        EventKind::Accepted(verdict)
        | EventKind::Denied(verdict)
        | EventKind::DeniedAgain(verdict)
        | EventKind::Audited { would: verdict, .. }
        | EventKind::Sampled(verdict) => Some(verdict),
        EventKind::Dropped(_) | EventKind::NeighbourMissing { .. } => None,
    }
}

/// The log's line of a flow.
fn entry(event: &Event, flow: &Flow) -> Entry {
    let provenance = policy_verdict(event.kind).map(|verdict| verdict.provenance);
    Entry {
        source: flow.source.ip,
        // Of an echo request that is its identifier, and the other port 0.
        source_port: event.key.source_port,
        destination: flow.destination.ip,
        destination_port: event.key.destination_port,
        protocol: event.key.protocol,
        verdict: match event.kind {
            EventKind::Audited { would, .. } if would.accept => LogVerdict::WouldAccept,
            EventKind::Audited { .. } => LogVerdict::WouldDeny,
            EventKind::Accepted(_) => LogVerdict::Accept,
            _ => LogVerdict::Deny,
        },
        tier: provenance.map(|provenance| provenance.tier),
        direction: provenance.map(|provenance| provenance.direction),
        source_pod: flow.source.pod_name(),
        destination_pod: flow.destination.pod_name(),
        service: flow.service.as_ref().map(FlowService::label),
        policy: flow.policy.as_ref().map(FlowPolicy::full_name),
        reason: match flow.is_policy_verdict() {
            true => flow.reason.clone(),
            false => flow.reason.replace('_', " "),
        },
        generation: event.generation.0,
    }
}

/// Drops that tell of an attempt, not of the weather.
fn is_worth_a_line(reason: DropReason) -> bool {
    matches!(
        reason,
        DropReason::SpoofedSource | DropReason::SpoofedMac | DropReason::SourceRouted
    )
}

/// Why a tier denies although none of its rules says so.
fn missed(explanation: &Explanation) -> String {
    let tier = explanation.verdict.provenance.tier;
    let rule = match tier {
        Tier::SecurityGroup => "security group rule",
        _ => "rule",
    };
    let policies = explanation.consulted.iter();
    let mut rules = policies
        .filter(|policy| policy.tier == tier)
        .flat_map(|policy| &policy.rules);
    if rules.next().is_none() {
        return format!("no {rule} allows anything");
    }
    let nearest = explanation.nearest_misses();
    match nearest.first().map(|(_, rule)| (&rule.peer, &rule.port)) {
        Some((PeerMatch::Matched, PortMatch::Wanted(_))) => format!("no {rule} matches port"),
        Some((PeerMatch::Excepted { except, .. }, _)) => format!("peer is excepted by {except}"),
        _ => format!("no {rule} matches peer"),
    }
}
