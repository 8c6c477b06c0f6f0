//! What policy says of a flow: egress of its source, then ingress of its destination.

use crate::policy::PolicyTable;
use crate::snapshot::{Endpoint, NodeEgress, Role, Snapshot};
use crate::{Direction, FlowKey, Verdict};

/// A flow in its initiator's orientation, with the local endpoints at its ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow<'s> {
    /// The initiator is `source`.
    pub key: FlowKey,
    /// The local endpoint that is the source, if any.
    pub source: Option<&'s Endpoint>,
    /// The local endpoint that is the destination, if any.
    pub destination: Option<&'s Endpoint>,
    /// What stands behind the port where the initiator's packets come in.
    pub ingress: Role,
}

/// A direction in which an end's policy has a say.
#[derive(Clone, Copy)]
struct Judgement<'s> {
    endpoint: &'s Endpoint,
    direction: Direction,
}

impl<'s> Flow<'s> {
    /// Whether policy decides at all: a pod reaches itself whatever policy says (D7).
    fn is_hairpin(&self) -> bool {
        match (self.source, self.destination) {
            (Some(source), Some(destination)) => source.slot == destination.slot,
            _ => false,
        }
    }

    /// The source's say. None towards the own node where the setting exempts it (D6).
    fn egress(&self, snapshot: &Snapshot) -> Option<Judgement<'s>> {
        let endpoint = self.source?;
        let exempt = snapshot.settings().node_egress == NodeEgress::Allow
            && snapshot.is_node_address(self.key.destination);
        let direction = Direction::Egress;
        (!exempt && !self.is_hairpin()).then_some(Judgement {
            endpoint,
            direction,
        })
    }

    /// The destination's say. None for what the node itself originates (D6, D13): that is told by
    /// the port it came in by, never by an address; and what a pod has sent is never the node's.
    fn ingress(&self) -> Option<Judgement<'s>> {
        let endpoint = self.destination?;
        let by_node = self.ingress == Role::HostNode && self.source.is_none();
        let exempt = by_node || self.is_hairpin();
        (!exempt).then_some(Judgement {
            endpoint,
            direction: Direction::Ingress,
        })
    }

    /// The verdict on the flow's first packet. An accept by both directions names ingress.
    pub fn decide(&self, snapshot: &Snapshot) -> Verdict {
        let policy = snapshot.policy();
        let egress = self.egress(snapshot).map(|j| j.verdict(policy, &self.key));
        if let Some(verdict) = egress
            && !verdict.accept
        {
            return verdict;
        }
        match self.ingress() {
            Some(judgement) => judgement.verdict(policy, &self.key),
            None => egress.unwrap_or(Verdict::default_accept(Direction::Ingress)),
        }
    }

    /// Whether any tier may deny traffic of this flow's ends, so that it must not pass untracked
    /// (D15): either end, either direction that has a say.
    pub fn may_be_denied(&self, snapshot: &Snapshot) -> bool {
        let policy = snapshot.policy();
        [self.egress(snapshot), self.ingress()]
            .into_iter()
            .flatten()
            .any(|j| policy.may_deny(j.endpoint.slot, j.direction))
    }
}

impl Judgement<'_> {
    fn verdict(&self, policy: &PolicyTable, key: &FlowKey) -> Verdict {
        let peer = match self.direction {
            Direction::Egress => key.destination,
            Direction::Ingress => key.source,
        };
        let decision = policy.decide(
            self.endpoint.slot,
            self.direction,
            &policy.peer(peer),
            key.protocol,
            key.protocol.has_ports().then_some(key.destination_port),
        );
        decision.verdict
    }
}
