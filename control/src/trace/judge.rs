//! What the table says of a connection, and why, direction by direction.

use std::net::IpAddr;

use dataplane::policy::ir::Action;
use dataplane::policy::{Consulted, Explanation, PeerMatch, PortMatch};
use dataplane::{Address, Direction, PolicyId, Protocol, Provenance, Tier, Verdict};
use serde_json::Value;

use super::miss::Question;
use super::{Audit, End, Step, Trace, View};
use crate::cluster::Cluster;
use crate::family::Family;
use crate::lower::PolicyIds;
use crate::objects::{Key, kinds};

/// Policies that one line names.
const NAMED: usize = 5;

/// Why a pod's way to its own address is nobody's to deny.
pub(crate) const OWN_ADDRESS: &str = "a pod always reaches its own address";
/// Why nobody here has a say.
pub(crate) const NEITHER_HERE: &str = "neither end is a pod on this node";

/// A connection's first packet as policy sees it: with its real ends, behind any Service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow<'e> {
    pub(crate) from: &'e End,
    pub(crate) to: &'e End,
    /// An address of `from`.
    pub(crate) source: IpAddr,
    /// An address of `to`.
    pub(crate) destination: IpAddr,
    pub(crate) protocol: Protocol,
    pub(crate) port: Option<u16>,
    /// Whether it asks for a Service's address, and `to` is a backend of that.
    pub(crate) by_service: bool,
}

/// What the table says of a flow in one direction, and what led to it.
pub(crate) struct Explained {
    pub(crate) direction: Direction,
    /// With the verdict that counts.
    pub(crate) explanation: Explanation,
    /// Whether NetworkPolicy would have denied it, had it not been a pod's way to itself.
    pub(crate) spared: bool,
}

impl<'e> Flow<'e> {
    /// Whether both ends are one.
    fn is_hairpin(&self) -> bool {
        let same = self.from.local.is_some() && self.from.local == self.to.local;
        same || self.source == self.destination
    }

    /// Whether policy has nothing to say: a pod reaches its own address whatever policy says (D7).
    pub(crate) fn is_exempt(&self) -> bool {
        self.is_hairpin() && !self.by_service
    }

    /// Who has a say, of whom: egress of the sender, then ingress of the receiver.
    fn sides(&self) -> [(Direction, &'e End, IpAddr); 2] {
        [
            (Direction::Egress, self.from, self.destination),
            (Direction::Ingress, self.to, self.source),
        ]
    }

    /// What is left of a verdict: NetworkPolicy never denies a pod that reaches itself through a
    /// Service, the other tiers may (D7).
    fn spare(&self, verdict: Verdict) -> Verdict {
        if verdict.spares_a_pod_itself() && self.is_hairpin() {
            return Verdict::default_accept(verdict.provenance.direction);
        }
        verdict
    }
}

impl View<'_> {
    /// Judges a connection: egress of the sender, then ingress of the receiver, as the pipeline
    /// does.
    pub(crate) fn judge(&self, flow: &Flow<'_>) -> Trace {
        let mut trace = Trace {
            verdict: "allow",
            generation: self.generation,
            from: flow.from.name.clone(),
            to: flow.to.name.clone(),
            service: None,
            backends: Vec::new(),
            without_backend: None,
            protocol: String::new(),
            port: flow.port,
            family: Family::of(flow.source),
            other_family: None,
            steps: Vec::new(),
            audit: self.audits(flow),
            reason: String::new(),
        };
        if flow.is_exempt() {
            trace.reason = OWN_ADDRESS.to_owned();
            return trace;
        }
        let mut allowed = Vec::new();
        for explained in self.explanations(flow) {
            let direction = explained.direction;
            let question = Question {
                view: self,
                direction,
                peer: match direction {
                    Direction::Egress => flow.to,
                    Direction::Ingress => flow.from,
                },
                protocol: flow.protocol,
                port: flow.port,
            };
            let explanation = &explained.explanation;
            trace.steps.extend(self.steps(&question, explanation));
            let reason = match explained.spared {
                true => spared(direction),
                false => self.reason(direction, explanation),
            };
            if !explanation.verdict.accept {
                trace.verdict = "deny";
                trace.reason = reason;
                return trace;
            }
            allowed.push(reason);
        }
        trace.reason = match allowed.is_empty() {
            true => NEITHER_HERE.to_owned(),
            false => allowed.join("; "),
        };
        trace
    }

    /// What the table says of a connection: of egress at the sender, of ingress at the receiver;
    /// none where that end is no pod here, or a pod speaks to its own address.
    pub(crate) fn verdicts(&self, flow: &Flow<'_>) -> [Option<Verdict>; 2] {
        flow.sides().map(|(direction, end, peer)| {
            let at = end.local.filter(|_| !flow.is_exempt())?;
            let peer = self.table.peer(Address::from(peer));
            let decision =
                self.table
                    .decide(self.slots[at], direction, &peer, flow.protocol, flow.port);
            Some(flow.spare(decision.verdict))
        })
    }

    /// What led to [`View::verdicts`], for those directions that were asked: ingress only if
    /// egress accepts.
    pub(crate) fn explanations(&self, flow: &Flow<'_>) -> Vec<Explained> {
        let mut explanations = Vec::new();
        if flow.is_exempt() {
            return explanations;
        }
        for (direction, end, peer) in flow.sides() {
            let Some(at) = end.local else { continue };
            let (slot, peer) = (self.slots[at], Address::from(peer));
            let mut explanation =
                self.table
                    .explain(slot, direction, peer, flow.protocol, flow.port);
            let verdict = flow.spare(explanation.verdict);
            let spared = verdict != explanation.verdict;
            explanation.verdict = verdict;
            explanations.push(Explained {
                direction,
                explanation,
                spared,
            });
            if !verdict.accept {
                break;
            }
        }
        explanations
    }

    /// What would be decided otherwise if policies in audit mode were enforced.
    fn audits(&self, flow: &Flow<'_>) -> Vec<Audit> {
        let mut audits = Vec::new();
        for (direction, end, peer) in flow.sides() {
            let Some(at) = end.local.filter(|_| !flow.is_exempt()) else {
                continue;
            };
            let (table, slot) = (self.table, self.slots[at]);
            let peer = table.peer(Address::from(peer));
            let enforced = table.decide(slot, direction, &peer, flow.protocol, flow.port);
            let audited = table.audit(slot, direction, &peer, flow.protocol, flow.port);
            let Some(would) = audited.map(|decision| flow.spare(decision.verdict)) else {
                continue;
            };
            if would.accept == flow.spare(enforced.verdict).accept {
                continue;
            }
            let verdict = if would.accept { "allow" } else { "deny" };
            audits.push(Audit {
                direction: way(direction),
                verdict,
                reason: format!(
                    "audit: would {verdict} by {}",
                    self.decider(would.provenance)
                ),
            });
        }
        audits
    }

    /// A policy's name; `NS/NAME` if it lives in a namespace.
    pub(crate) fn policy_name(&self, id: PolicyId) -> String {
        match self.ids.name(id) {
            Some(name) if name.namespace.is_empty() => name.name.clone(),
            Some(name) => format!("{}/{}", name.namespace, name.name),
            None => "(the pod's object is gone)".to_owned(),
        }
    }

    /// A rule as its policy's object has it; none if that has gone, or holds no such rule.
    pub(super) fn rule(
        &self,
        policy: PolicyId,
        direction: Direction,
        index: u16,
    ) -> Option<&Value> {
        stated(self.cluster, self.ids, policy, direction, index)
    }

    fn rule_name(&self, policy: PolicyId, direction: Direction, index: u16) -> Option<&str> {
        self.rule(policy, direction, index).and_then(name_of)
    }

    fn decider(&self, by: Provenance) -> String {
        let Some(id) = by.policy else {
            return "default".to_owned();
        };
        let policy = self.policy_name(id);
        let Some(rule) = by.rule else { return policy };
        match self.rule_name(id, by.direction, rule) {
            Some(name) => format!("{policy} rule {rule} {name:?}"),
            None => format!("{policy} rule {rule}"),
        }
    }

    /// The decision of one direction in words, as far as the verdict alone tells.
    pub(crate) fn brief(&self, direction: Direction, verdict: Verdict) -> String {
        let by = verdict.provenance;
        let way = way(direction);
        let decider = self.decider(by);
        match (verdict.accept, by.policy, by.rule) {
            (true, Some(_), _) => format!("{way}: {decider} allows"),
            (false, Some(_), Some(_)) => format!("{way}: {decider} denies"),
            (false, Some(_), None) if by.tier == Tier::SecurityGroup => {
                format!("{way}: bound by {decider}, no security group allows it")
            }
            (false, Some(_), None) => format!("{way}: isolated by {decider}, no rule allows it"),
            (true, None, _) => format!("{way}: no policy decides"),
            (false, None, _) => format!("{way}: the pod has no live policy yet"),
        }
    }

    /// The decision of one direction in words.
    fn reason(&self, direction: Direction, explanation: &Explanation) -> String {
        let verdict = explanation.verdict;
        let way = way(direction);
        if verdict.accept && explanation.consulted.is_empty() {
            return format!("{way}: no policy selects the pod");
        }
        let by = verdict.provenance;
        if verdict.accept || by.policy.is_none() || by.rule.is_some() {
            return self.brief(direction, verdict);
        }
        let missed = explanation.nearest_misses();
        let why = match missed.first() {
            None => "there is no rule",
            Some((_, rule)) if rule.peer == PeerMatch::Matched => "no rule matches port",
            Some((_, rule)) if rule.port == PortMatch::Matched => "no rule matches peer",
            Some(_) => "no rule matches peer and port",
        };
        // Security groups are consulted in the tier of what binds pods to them, but bind nobody.
        let of_tier = explanation.consulted.iter().filter(|c| c.tier == by.tier);
        let isolating: Vec<String> = of_tier
            .filter(|c| by.tier != Tier::SecurityGroup || c.rules.is_empty())
            .map(|c| self.policy_name(c.policy))
            .collect();
        let verb = match by.tier {
            Tier::SecurityGroup => "bound",
            _ => "isolated",
        };
        format!("{way}: {verb} by {}, {why}", named(&isolating))
    }

    fn steps(&self, question: &Question<'_>, explanation: &Explanation) -> Vec<Step> {
        let verdict = explanation.verdict;
        let missed = explanation.nearest_misses();
        let direction = way(question.direction);
        let mut steps: Vec<Step> = Vec::new();
        for consulted in &explanation.consulted {
            let matched = consulted.rules.iter().find(|rule| rule.matched());
            let nearest = missed.iter().find(|(id, _)| *id == consulted.policy);
            steps.push(Step {
                direction,
                tier: tier(consulted.tier),
                kind: self.ids.name(consulted.policy).map(|name| name.kind),
                policy: Some(self.policy_name(consulted.policy)),
                rule: matched.map(|rule| rule.index),
                rule_name: matched
                    .and_then(|rule| {
                        self.rule_name(consulted.policy, question.direction, rule.index)
                    })
                    .map(str::to_owned),
                result: result(consulted, verdict),
                nearest_miss: nearest.map(|(id, rule)| question.miss(*id, rule)),
            });
        }
        if verdict.provenance.tier == Tier::Default {
            steps.push(Step {
                direction,
                tier: tier(Tier::Default),
                kind: None,
                policy: None,
                rule: None,
                rule_name: None,
                result: if verdict.accept { "allow" } else { "deny" },
                nearest_miss: None,
            });
        }
        steps
    }
}

/// What the author of the rule that decided calls it, as the policy's object has it now.
pub(crate) fn rule_name<'c>(
    cluster: &'c Cluster,
    ids: &PolicyIds,
    by: Provenance,
) -> Option<&'c str> {
    stated(cluster, ids, by.policy?, by.direction, by.rule?).and_then(name_of)
}

/// A rule in its policy's object.
fn stated<'c>(
    cluster: &'c Cluster,
    ids: &PolicyIds,
    policy: PolicyId,
    direction: Direction,
    index: u16,
) -> Option<&'c Value> {
    let name = ids.name(policy)?;
    let kind = kinds::KINDS.iter().find(|kind| kind.kind == name.kind)?;
    let key = Key::new(kind, &name.namespace, &name.name);
    let spec = &cluster.get(&key)?.value()["spec"];
    spec[way(direction)].get(usize::from(index))
}

/// A rule's name: a member of policies of the whole cluster.
fn name_of(rule: &Value) -> Option<&str> {
    let name = rule["name"].as_str()?;
    (!name.is_empty()).then_some(name)
}

/// A policy's part in a decision.
fn result(consulted: &Consulted, verdict: Verdict) -> &'static str {
    let by = verdict.provenance;
    let by_default = !verdict.accept && by.rule.is_none() && consulted.tier == by.tier;
    let matched = consulted.rules.iter().find(|rule| rule.matched());
    match matched.map(|rule| rule.action) {
        // Security groups only deny: what one lets pass the other tiers decide.
        Some(Action::Accept) if consulted.tier == Tier::SecurityGroup => "pass",
        Some(Action::Accept) => "allow",
        Some(Action::Deny) => "deny",
        Some(Action::Pass) => "pass",
        None if by_default => "deny",
        None => "no match",
    }
}

/// The first few, and how many more there are.
fn named(names: &[String]) -> String {
    let shown = names[..names.len().min(NAMED)].join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// What is said where NetworkPolicy alone would deny.
fn spared(direction: Direction) -> String {
    let way = way(direction);
    format!("{way}: no NetworkPolicy denies a pod the way to itself")
}

fn way(direction: Direction) -> &'static str {
    match direction {
        Direction::Egress => "egress",
        Direction::Ingress => "ingress",
    }
}

fn tier(tier: Tier) -> &'static str {
    match tier {
        Tier::SecurityGroup => "securityGroup",
        Tier::Admin => "admin",
        Tier::NetworkPolicy => "networkPolicy",
        Tier::Baseline => "baseline",
        Tier::Default => "default",
    }
}
