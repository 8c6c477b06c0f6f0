//! What policy says of a flow: egress of its source, then ingress of its destination.

use arrayvec::ArrayVec;

use super::BURST_MAX;
use crate::conntrack::{Ends, Translation};
use crate::counters::{CounterId, RuleCounters};
use crate::policy::{self, PolicyTable, Question};
use crate::snapshot::{Endpoint, Incarnation, NodeEgress, Role, Snapshot};
use crate::{Address, Direction, FlowKey, Verdict};

/// What `snapshot` would decide of a connection in the table, as its next packet would have it
/// decided again (D2). None if one of its ends is no endpoint any more.
pub fn decide_again(
    snapshot: &Snapshot,
    key: &FlowKey,
    ends: &Ends,
    translation: Option<&Translation>,
) -> Option<Verdict> {
    let end = |address, incarnation| match incarnation {
        Incarnation::NONE => Some(None),
        wanted => {
            let endpoint = snapshot.endpoint_at(address)?;
            (endpoint.incarnation == wanted).then_some(Some(endpoint))
        }
    };
    let flow = Flow {
        key: *key,
        source: end(key.source, ends.source)?,
        destination: end(key.destination, ends.destination)?,
        // A port that is gone exempts nothing.
        ingress: snapshot
            .port(ends.ingress)
            .map_or(Role::Uplink, |port| port.role),
        by_service: translation.is_some_and(|translation| translation.is_service(key)),
    };
    Some(flow.decide(snapshot).verdict)
}

/// What was decided for a flow, and the counters of what decided. A source that may not send has no
/// ingress decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Decision {
    pub verdict: Verdict,
    pub counters: RuleCounters,
}

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
    /// Whether the initiator asked for a Service, and the destination is a backend of that.
    pub by_service: bool,
}

/// A direction in which an end's policy has a say.
#[derive(Clone, Copy)]
struct Judgement<'s> {
    endpoint: &'s Endpoint,
    direction: Direction,
}

impl<'s> Flow<'s> {
    /// Whether both ends are one pod.
    pub fn is_hairpin(&self) -> bool {
        match (self.source, self.destination) {
            (Some(source), Some(destination)) => source.slot == destination.slot,
            _ => false,
        }
    }

    /// Whether policy has nothing to say: a pod reaches its own address whatever policy says (D7).
    fn is_exempt(&self) -> bool {
        self.is_hairpin() && !self.by_service
    }

    /// What is left of a decision: NetworkPolicy never denies a pod that reaches itself through a
    /// Service, the other tiers may (D7).
    fn spare(&self, decision: policy::Decision) -> policy::Decision {
        if !decision.verdict.spares_a_pod_itself() || !self.is_hairpin() {
            return decision;
        }
        policy::Decision {
            verdict: Verdict::default_accept(decision.verdict.provenance.direction),
            counter: CounterId::NONE,
        }
    }

    /// The source's say. None towards the own node where the setting exempts it (D6).
    fn egress(&self, snapshot: &Snapshot) -> Option<Judgement<'s>> {
        let endpoint = self.source?;
        let exempt = snapshot.settings().node_egress == NodeEgress::Allow
            && snapshot.is_node_address(self.key.destination);
        let direction = Direction::Egress;
        (!exempt && !self.is_exempt()).then_some(Judgement {
            endpoint,
            direction,
        })
    }

    /// The destination's say. None for what the node itself originates (D6, D13): that is told by
    /// the port it came in by, never by an address; and what a pod has sent is never the node's.
    fn ingress(&self) -> Option<Judgement<'s>> {
        let endpoint = self.destination?;
        let by_node = self.ingress == Role::HostNode && self.source.is_none();
        let exempt = by_node || self.is_exempt();
        (!exempt).then_some(Judgement {
            endpoint,
            direction: Direction::Ingress,
        })
    }

    /// The verdict on the flow's first packet. An accept by both directions names ingress.
    pub fn decide(&self, snapshot: &Snapshot) -> Decision {
        let enforced =
            |judgement: Judgement<'_>| self.spare(judgement.enforced(snapshot.policy(), &self.key));
        let egress = self.egress(snapshot).map(enforced);
        settle(egress, || self.ingress().map(enforced))
    }

    /// What [`Flow::decide`] says of each flow, in `decisions`. They wait for memory together.
    pub fn decide_all(
        flows: &[Flow<'_>],
        snapshot: &Snapshot,
        decisions: &mut ArrayVec<Decision, BURST_MAX>,
    ) {
        let mut questions = ArrayVec::<Question, { 2 * BURST_MAX }>::new();
        for flow in flows {
            let judgements = [flow.egress(snapshot), flow.ingress()];
            let asked = judgements.into_iter().flatten();
            questions.extend(asked.map(|judgement| judgement.question(&flow.key)));
        }
        let mut answers = ArrayVec::<policy::Decision, { 2 * BURST_MAX }>::new();
        answers.extend(questions.iter().map(|_| policy::Decision::UNDECIDED));
        snapshot.policy().decide_batch(&questions, &mut answers);
        let mut answers = answers.iter().copied();
        let settled = flows.iter().map(|flow| {
            let egress = flow.egress(snapshot).and_then(|_| answers.next());
            let ingress = flow.ingress().and_then(|_| answers.next());
            let spare = |decision| flow.spare(decision);
            settle(egress.map(spare), || ingress.map(spare))
        });
        decisions.extend(settled);
    }

    /// The verdict if the policies in audit mode were enforced too; none if neither end has any.
    pub fn audit(&self, snapshot: &Snapshot) -> Option<Verdict> {
        let policy = snapshot.policy();
        let is_audited = |end: Option<&Endpoint>| end.is_some_and(|end| policy.audits(end.slot));
        if !is_audited(self.source) && !is_audited(self.destination) {
            return None;
        }
        let (egress, ingress) = (self.egress(snapshot), self.ingress());
        let audits = |j: &Option<Judgement<'_>>| {
            let decision = j.and_then(|j| j.audited(policy, &self.key))?;
            Some(self.spare(decision).verdict)
        };
        let audited = [audits(&egress), audits(&ingress)];
        if audited == [None, None] {
            return None;
        }
        // What has no audited policies keeps its say in the flow.
        let say = |judgement: Option<Judgement<'_>>, audited: Option<Verdict>| {
            audited.or_else(|| Some(self.spare(judgement?.enforced(policy, &self.key)).verdict))
        };
        let egress = say(egress, audited[0]);
        if egress.is_some_and(|verdict| !verdict.accept) {
            return egress;
        }
        let ingress = say(ingress, audited[1]);
        Some(
            ingress
                .or(egress)
                .unwrap_or(Verdict::default_accept(Direction::Ingress)),
        )
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

/// What both ends' say makes of a flow: the destination's counts if the source may send.
fn settle(
    egress: Option<policy::Decision>,
    ingress: impl FnOnce() -> Option<policy::Decision>,
) -> Decision {
    let mut counters = RuleCounters::default();
    let mut verdict = Verdict::default_accept(Direction::Ingress);
    if let Some(egress) = egress {
        (verdict, counters.egress) = (egress.verdict, egress.counter);
        if !verdict.accept {
            return Decision { verdict, counters };
        }
    }
    if let Some(ingress) = ingress() {
        (verdict, counters.ingress) = (ingress.verdict, ingress.counter);
    }
    Decision { verdict, counters }
}

impl Judgement<'_> {
    /// What policy says, and the counter of what says so.
    fn enforced(&self, policy: &PolicyTable, key: &FlowKey) -> policy::Decision {
        let peer = policy.peer(self.peer(key));
        let (slot, port) = (self.endpoint.slot, port(key));
        policy.decide(slot, self.direction, &peer, key.protocol, port)
    }

    /// What [`Judgement::enforced`] asks.
    fn question(&self, key: &FlowKey) -> Question {
        Question {
            slot: self.endpoint.slot,
            direction: self.direction,
            peer: self.peer(key),
            protocol: key.protocol,
            destination_port: port(key),
        }
    }

    /// What policy would say with what is audited; none if the endpoint has nothing of that.
    fn audited(&self, policy: &PolicyTable, key: &FlowKey) -> Option<policy::Decision> {
        let (slot, port) = (self.endpoint.slot, port(key));
        if !policy.audits(slot) {
            return None;
        }
        let peer = policy.peer(self.peer(key));
        policy.audit(slot, self.direction, &peer, key.protocol, port)
    }

    fn peer(&self, key: &FlowKey) -> Address {
        match self.direction {
            Direction::Egress => key.destination,
            Direction::Ingress => key.source,
        }
    }
}

/// The port that policy can name.
fn port(key: &FlowKey) -> Option<u16> {
    key.protocol.has_ports().then_some(key.destination_port)
}
