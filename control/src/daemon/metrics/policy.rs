//! Metrics of policy: what was decided, and by whom.

use config::limits::{METRIC_POLICIES, METRIC_RULES};
use dataplane::{Direction, PolicyId, Tier};

use super::exposition::{Exposition, Family, Kind};
use crate::daemon::plane::Plane;
use crate::daemon::state::Daemon;
use crate::denial_log::{direction_name, tier_name};

/// The tiers that deny.
const TIERS: [Tier; 5] = [
    Tier::SecurityGroup,
    Tier::Admin,
    Tier::NetworkPolicy,
    Tier::Baseline,
    Tier::Default,
];

impl<P: Plane> Daemon<P> {
    pub(super) fn policy_metrics(&self, out: &mut Exposition) {
        let footprint = self.table.footprint();
        out.single(
            "weir_policy_table_bytes",
            Kind::Gauge,
            "Memory of the compiled policy.",
            footprint.bytes,
        );
        out.single(
            "weir_policy_table_chains",
            Kind::Gauge,
            "Distinct lists of rules that endpoints have, both directions together.",
            footprint.chains,
        );
    }

    /// Flows denied by tier and direction, and what each policy has decided.
    pub(super) fn decision_metrics(&self, out: &mut Exposition) {
        let mut denied = out.family(
            "weir_policy_denied_flows_total",
            Kind::Counter,
            "Flows denied, by the tier and direction that denied them.",
        );
        for tier in TIERS {
            for direction in [Direction::Ingress, Direction::Egress] {
                let labels = [
                    ("tier", tier_name(Some(tier))),
                    ("direction", direction_name(Some(direction))),
                ];
                denied.sample(&labels, self.tallies.denied(tier, direction));
            }
        }
        let hits: Vec<_> = self.hits.by_policy().into_iter().collect();
        let mut connections = out.family(
            "weir_policy_connections_total",
            Kind::Counter,
            "Connections that the rules of a policy have decided or let go on, since its last change.",
        );
        let numbers = hits
            .iter()
            .map(|(policy, hits)| (*policy, hits.connections));
        self.per_policy(&mut connections, &[], numbers);
        let mut packets = out.family(
            "weir_policy_packets_total",
            Kind::Counter,
            "Packets of these connections, dropped ones too.",
        );
        let numbers = hits.iter().map(|(policy, hits)| (*policy, hits.packets));
        self.per_policy(&mut packets, &[], numbers);
        self.rule_metrics(out);
        let mut audited = out.family(
            "weir_policy_audited_flows_total",
            Kind::Counter,
            "Flows that a policy in audit mode would have decided otherwise.",
        );
        for (at, would) in [(0, "deny"), (1, "allow")] {
            let numbers = self
                .tallies
                .audited()
                .map(|(policy, counts)| (policy, counts[at]));
            self.per_policy(&mut audited, &[("would", would)], numbers);
        }
        let counters = self.policies.counters();
        out.single(
            "weir_rule_counters",
            Kind::Gauge,
            "Counters that belong to a rule.",
            counters.iter().count(),
        );
        out.single(
            "weir_rules_uncounted",
            Kind::Gauge,
            "Rules that have none because limits.rule_counters is reached.",
            counters.without(),
        );
        let compounds = self.policies.compounds();
        out.single(
            "weir_compound_counters",
            Kind::Gauge,
            "Counters that count for several rules: what decides, and those that let traffic come so far.",
            compounds.in_use(),
        );
        out.single(
            "weir_combinations_uncounted",
            Kind::Gauge,
            "Rules in common that have none because limits.compound_counters is reached.",
            compounds.without(),
        );
    }

    /// What each rule has decided, as many as [`METRIC_RULES`]; the rest in one.
    fn rule_metrics(&self, out: &mut Exposition) {
        let mut samples = Vec::new();
        let mut rest: Option<[u64; 2]> = None;
        for (counter, counted) in self.policies.counters().iter() {
            let (hits, _) = self.hits.of(counter);
            let numbers = [hits.connections, hits.packets];
            let name = self.policies.ids().name(counted.policy);
            match name.filter(|_| samples.len() < METRIC_RULES) {
                Some(name) => samples.push((name, counted, numbers)),
                None => {
                    let rest = rest.get_or_insert([0; 2]);
                    rest.iter_mut()
                        .zip(numbers)
                        .for_each(|(sum, one)| *sum += one);
                }
            }
        }
        let families = [
            (
                "weir_rule_connections_total",
                "Connections that a rule has decided or let go on, since its policy's last change. A policy's default denials are rule default.",
            ),
            (
                "weir_rule_packets_total",
                "Packets of these connections, dropped ones too.",
            ),
        ];
        for (at, (name, help)) in families.into_iter().enumerate() {
            let mut family = out.family(name, Kind::Counter, help);
            for (policy, counted, numbers) in &samples {
                let rule = counted
                    .rule
                    .map_or("default".to_owned(), |rule| rule.to_string());
                let labels = [
                    ("kind", policy.kind),
                    ("namespace", policy.namespace.as_str()),
                    ("policy", policy.name.as_str()),
                    ("uid", policy.uid.as_str()),
                    ("direction", direction_name(Some(counted.direction))),
                    ("rule", rule.as_str()),
                ];
                family.sample(&labels, numbers[at]);
            }
            if let Some(rest) = rest {
                let labels = ["kind", "namespace", "policy", "uid", "direction", "rule"];
                family.sample(&labels.map(|label| (label, "")), rest[at]);
            }
        }
    }

    /// A sample for each policy, as many as [`METRIC_POLICIES`]; the rest in one.
    fn per_policy(
        &self,
        family: &mut Family<'_>,
        labels: &[(&str, &str)],
        numbers: impl Iterator<Item = (PolicyId, u64)>,
    ) {
        let mut rest = None;
        for (at, (policy, number)) in numbers.enumerate() {
            let name = self.policies.ids().name(policy);
            match name.filter(|_| at < METRIC_POLICIES) {
                Some(name) => {
                    let own = [
                        ("kind", name.kind),
                        ("namespace", &name.namespace),
                        ("policy", &name.name),
                        // Another policy of that name counts for itself.
                        ("uid", &name.uid),
                    ];
                    family.sample(&[labels, &own].concat(), number);
                }
                None => *rest.get_or_insert(0) += number,
            }
        }
        if let Some(rest) = rest {
            let own = [("kind", ""), ("namespace", ""), ("policy", ""), ("uid", "")];
            family.sample(&[labels, &own].concat(), rest);
        }
    }
}
