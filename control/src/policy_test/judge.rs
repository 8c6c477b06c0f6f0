//! What the evaluators say of one connection. All that this module's neighbours know of tables and
//! of the specification is here.

use std::collections::BTreeSet;

use dataplane::{Direction, Tier};

use super::flows::{Ends, Flow};
use super::run::PolicyKey;
use crate::specification::{Traffic, World};
use crate::trace::{Trace, View};

/// What an evaluator says of both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) egress: bool,
    pub(super) ingress: bool,
}

impl Answer {
    pub(super) fn allows(self) -> bool {
        self.egress && self.ingress
    }

    pub(super) fn words(self) -> &'static str {
        match (self.egress, self.ingress) {
            (true, true) => "allow",
            (false, true) => "deny at egress",
            (true, false) => "deny at ingress",
            (false, false) => "deny at egress and ingress",
        }
    }
}

/// The compiled table's answer.
pub(super) fn by_engine(view: View<'_>, ends: &Ends, flow: &Flow) -> Answer {
    let pair = (flow.source, flow.destination);
    let (from, to) = (ends.get(flow.from), ends.get(flow.to));
    let [egress, ingress] = view.verdicts(from, to, pair, flow.protocol(), flow.port);
    let accepts = |verdict: Option<dataplane::Verdict>| verdict.is_none_or(|v| v.accept);
    Answer {
        egress: accepts(egress),
        ingress: accepts(ingress),
    }
}

/// The compiled table's answer with its reasons.
pub(super) fn by_trace(view: View<'_>, ends: &Ends, flow: &Flow) -> Trace {
    let pair = (flow.source, flow.destination);
    let (from, to) = (ends.get(flow.from), ends.get(flow.to));
    let mut trace = view.judge(from, to, pair, flow.protocol(), flow.port);
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

    pub(super) fn answer(&self, ends: &Ends, flow: &Flow) -> Answer {
        let accepts = |end: u32, direction, peer| {
            let end = ends.get(end);
            if end.local.is_none() || flow.source == flow.destination {
                return true;
            }
            let traffic = Traffic {
                peer,
                protocol: flow.protocol(),
                port: flow.port,
            };
            let pod = end.pod.as_ref();
            // An interface without a pod's object may do nothing.
            pod.is_some_and(|pod| self.0.decide(pod, direction, traffic).accept)
        };
        Answer {
            egress: accepts(flow.from, Direction::Egress, flow.destination),
            ingress: accepts(flow.to, Direction::Ingress, flow.source),
        }
    }
}

/// The policies that decided a connection or isolate one of its ends: of which a rule matched, or
/// that isolate in the direction in which their tier was reached.
pub(super) fn touched(view: View<'_>, ends: &Ends, flow: &Flow, into: &mut BTreeSet<PolicyKey>) {
    let pair = (flow.source, flow.destination);
    let (from, to) = (ends.get(flow.from), ends.get(flow.to));
    for (_, explanation) in view.explanations(from, to, pair, flow.protocol(), flow.port) {
        for consulted in &explanation.consulted {
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
