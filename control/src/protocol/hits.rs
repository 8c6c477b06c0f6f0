//! `hits` and `pod.policies`: what rules have decided, and whom policies are about.

use serde::{Deserialize, Serialize};

use crate::flow::FlowDirection;

/// `hits`: what rules have decided.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HitsParams {
    /// Only policies of this kind, `NetworkPolicy`; by default all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Only this one; with a kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its namespace, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Reply of `hits`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HitsReply {
    /// By kind, namespace and name.
    pub policies: Vec<PolicyHits>,
    /// Rules that there is no counter for (`limits.rule_counters`).
    pub without_counter: u64,
    /// Combinations of rules that there is no counter for (`limits.compound_counters`).
    #[serde(default)]
    pub without_compound: u64,
}

/// What the rules of one policy have decided, or let go on to what decides, since the daemon's
/// start or the policy's last change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyHits {
    /// `NetworkPolicy`.
    pub kind: String,
    /// Its namespace; null for kinds without.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Whether it is in audit mode: it decides nothing then.
    pub audit: bool,
    /// Pods of the cluster that it is about, `NS/POD`.
    pub pods: Vec<String>,
    /// By direction and rule, default denials last.
    pub rules: Vec<RuleHit>,
}

impl PolicyHits {
    /// Connections and packets of all rules together.
    pub fn totals(&self) -> (u64, u64) {
        let connections = self.rules.iter().map(|rule| rule.connections).sum();
        let packets = self.rules.iter().map(|rule| rule.packets).sum();
        (connections, packets)
    }

    /// When a rule last matched; null if none ever did.
    pub fn last_hit(&self) -> Option<&str> {
        self.rules
            .iter()
            .filter_map(|rule| rule.last_hit.as_deref())
            .max()
    }

    /// Rules that never matched, `ingress[0]`; default denials are not among them.
    pub fn never_matched(&self) -> Vec<String> {
        let silent = self
            .rules
            .iter()
            .filter(|rule| rule.packets == 0 && rule.is_counted);
        silent
            .filter_map(|rule| {
                let direction = rule.direction.name().to_lowercase();
                Some(format!("{direction}[{}]", rule.rule?))
            })
            .collect()
    }
}

/// What one rule has decided or, if it is a Pass or a security group's, has let go on. Of the rules
/// of one tier only the first that matches is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleHit {
    /// Direction.
    pub direction: FlowDirection,
    /// Index in the policy's list for the direction; null: what it denies because no rule matches.
    pub rule: Option<u16>,
    /// Whether it is counted: not in audit mode, nor beyond `limits.rule_counters`, nor, if it lets
    /// traffic go on, where `limits.compound_counters` leaves some of that out.
    pub is_counted: bool,
    /// Connections that it decided or let go on. A live connection that is decided again counts once
    /// more if any of the rules that had a part in it is another.
    pub connections: u64,
    /// Their packets, in both directions, dropped ones too.
    pub packets: u64,
    /// When the last one was seen, to about a second, RFC 3339; null if there was none.
    pub last_hit: Option<String>,
}

/// `pod.policies`: the policies that are about a pod.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodPoliciesParams {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
}

/// Reply of `pod.policies`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodPoliciesReply {
    /// By kind, namespace and name.
    pub policies: Vec<PodPolicy>,
}

/// A policy that is about a pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodPolicy {
    /// `NetworkPolicy`.
    pub kind: String,
    /// Its namespace; null for kinds without.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Whether it is in audit mode.
    pub audit: bool,
}
