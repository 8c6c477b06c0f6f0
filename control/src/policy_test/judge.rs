//! What the evaluators say of one connection. All that this module's neighbours know of tables and
//! of the specification is here.

use std::collections::BTreeSet;

use dataplane::{Direction, Tier, Verdict};

use super::flows::{Ends, Flow};
use super::run::PolicyKey;
use crate::objects::{Key, kinds};
use crate::specification::{self, Decision, Traffic, World};
use crate::trace::{self, Trace, View, WithoutBackend};

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// What the compiled table says: of egress at the sender, of ingress at the receiver; none where
    /// that end is no pod, or a pod speaks to its own address.
    Judged([Option<Verdict>; 2]),
    /// Nobody is behind the Service.
    Unserved(WithoutBackend),
}

impl Answer {
    pub(super) fn allows(self) -> bool {
        match self {
            Answer::Judged(verdicts) => verdicts.iter().flatten().all(|verdict| verdict.accept),
            Answer::Unserved(_) => false,
        }
    }
}

/// The connection as `trace` and `matrix` ask about it.
fn asked<'e>(ends: &'e Ends, flow: &Flow) -> trace::Flow<'e> {
    trace::Flow {
        from: ends.get(flow.from),
        to: ends.get(flow.to),
        source: flow.source,
        destination: flow.destination,
        protocol: flow.protocol(),
        port: flow.port,
        by_service: flow.service.is_some(),
    }
}

/// The compiled table's answer.
pub(super) fn by_engine(view: View<'_>, ends: &Ends, flow: &Flow) -> Answer {
    match &flow.unserved {
        Some(unserved) => {
            let from = ends.get(flow.from);
            Answer::Unserved(view.without_backend(from, unserved, flow.protocol()))
        }
        None => Answer::Judged(view.verdicts(&asked(ends, flow))),
    }
}

/// The compiled table's answer with its reasons.
pub(super) fn by_trace(view: View<'_>, ends: &Ends, flow: &Flow) -> Trace {
    let (from, to) = (ends.get(flow.from), ends.get(flow.to));
    let mut trace = match &flow.unserved {
        Some(unserved) => view.judge_unserved(from, &to.name, unserved, flow.protocol()),
        None => view.judge(&asked(ends, flow)),
    };
    trace.protocol = flow.transport.name().to_owned();
    trace
}

/// The naive specification on the same objects.
pub(super) struct Specification(World);

impl Specification {
    pub(super) fn new(view: View<'_>) -> Specification {
        let local = view.locals.iter();
        let local = local.map(|l| (l.uid.as_str(), l.addresses.as_slice()));
        Specification(World::new(view.cluster, local))
    }

    /// Where specification, compiled table and trace do not agree on what becomes of a connection
    /// and who says so.
    pub(super) fn disagreement(
        &self,
        view: View<'_>,
        ends: &Ends,
        flow: &Flow,
        engine: Answer,
    ) -> Option<String> {
        let directions = [
            (Direction::Egress, flow.from, flow.destination),
            (Direction::Ingress, flow.to, flow.source),
        ];
        let verdicts = match engine {
            Answer::Judged(verdicts) => verdicts,
            Answer::Unserved(_) => [None, None],
        };
        // Its own address is not judged at all: this is the way by a Service.
        let [from, to] = [flow.from, flow.to].map(|end| ends.get(end).local);
        let to_itself = from.is_some() && from == to;
        for ((direction, end, peer), verdict) in directions.into_iter().zip(verdicts) {
            let Some(verdict) = verdict else { continue };
            let traffic = Traffic {
                peer,
                protocol: flow.protocol(),
                port: flow.port,
            };
            // What stands behind an end of this node that has no object may do nothing.
            let pod = ends.get(end).pod.as_ref();
            let specified = pod.map(|pod| self.0.decide(pod, direction, traffic));
            let specified = specified.map(|by| match to_itself {
                true => by.on_the_way_to_itself(),
                false => by,
            });
            let specified = specified.map_or("deny".to_owned(), |by| in_words(&by));
            let compiled = in_words(&decision(view, verdict));
            if specified != compiled {
                return Some(format!(
                    "{direction:?}: the compiled table says: {compiled}; the specification: \
                     {specified}"
                ));
            }
        }
        let traced = by_trace(view, ends, flow).verdict;
        let compiled = if engine.allows() { "allow" } else { "deny" };
        (traced != compiled)
            .then(|| format!("the compiled table says {compiled}, trace says {traced}"))
    }
}

/// A verdict as the specification gives it.
fn decision(view: View<'_>, verdict: Verdict) -> Decision {
    let by = verdict.provenance;
    let name = by.policy.and_then(|id| view.ids.name(id));
    let key = name.and_then(|name| {
        let kind = kinds::KINDS.iter().find(|kind| kind.kind == name.kind)?;
        Some(Key::new(kind, &name.namespace, &name.name))
    });
    Decision {
        accept: verdict.accept,
        tier: match by.tier {
            Tier::SecurityGroup => specification::Tier::SecurityGroup,
            Tier::Admin => specification::Tier::Admin,
            Tier::NetworkPolicy => specification::Tier::NetworkPolicy,
            Tier::Baseline => specification::Tier::Baseline,
            Tier::Default => specification::Tier::Default,
        },
        policy: key,
        rule: by.rule.map(usize::from),
    }
}

/// `deny by NetworkPolicy shop/web rule 2 (NetworkPolicy)`.
fn in_words(decision: &Decision) -> String {
    let verdict = if decision.accept { "allow" } else { "deny" };
    let by = decision.policy.as_ref();
    let by = by.map_or(String::new(), |key| {
        format!(" by {} {}/{}", key.kind.kind, key.namespace, key.name)
    });
    // The last number that a verdict has stands for all rules from there on.
    let rule = decision.rule.map(|rule| rule.min(usize::from(u16::MAX)));
    let rule = rule.map_or(String::new(), |rule| format!(" rule {rule}"));
    format!("{verdict}{by}{rule} ({:?})", decision.tier)
}

/// The policies that decided a connection or isolate one of its ends: of which a rule matched, or
/// that isolate in the direction in which their tier was reached.
pub(super) fn touched(view: View<'_>, ends: &Ends, flow: &Flow, into: &mut BTreeSet<PolicyKey>) {
    if flow.unserved.is_some() {
        return;
    }
    for explained in view.explanations(&asked(ends, flow)) {
        for consulted in &explained.explanation.consulted {
            // In these tiers a policy without a matching rule counts too: it isolates.
            let isolates = matches!(consulted.tier, Tier::SecurityGroup | Tier::NetworkPolicy);
            if !isolates && !consulted.rules.iter().any(|rule| rule.matched()) {
                continue;
            }
            if let Some(name) = view.ids.name(consulted.policy) {
                into.insert(PolicyKey {
                    kind: name.kind,
                    namespace: name.namespace.clone(),
                    name: name.name.clone(),
                });
            }
        }
    }
}
