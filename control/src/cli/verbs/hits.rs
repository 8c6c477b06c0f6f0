//! What rules have decided, as `get -o wide` and `describe` show it.

use std::collections::HashMap;

use serde_json::Value;

use crate::cli::columns::seconds_since_1970;
use crate::cli::session::VerbError;
use crate::cli::table::{Table, human_duration};
use crate::client::Client;
use crate::protocol::{HitsParams, HitsReply, PolicyHits};

/// Kinds whose rules are counted.
const POLICIES: [&str; 6] = [
    "NetworkPolicy",
    "ClusterNetworkPolicy",
    "AdminNetworkPolicy",
    "BaselineAdminNetworkPolicy",
    "SecurityGroup",
    "SecurityGroupPolicy",
];

/// Whether objects of the kind are policies.
pub fn is_policy(kind: &str) -> bool {
    POLICIES.contains(&kind)
}

/// The hits of all policies of a kind, or of one.
pub fn fetch(client: &mut Client, params: &HitsParams) -> Result<HitsReply, VerbError> {
    Ok(client.call("hits", params)?)
}

/// The columns that `-o wide` has of policies, put before `labels` columns at the end of `table`,
/// whose rows are `objects`; `now` is the wall clock in seconds since 1970.
pub fn add_columns(
    table: &mut Table,
    labels: usize,
    objects: &[Value],
    hits: &HitsReply,
    now: i64,
) {
    let by_name: HashMap<(&str, &str), &PolicyHits> = hits
        .policies
        .iter()
        .map(|policy| {
            let namespace = policy.namespace.as_deref().unwrap_or("");
            ((namespace, policy.name.as_str()), policy)
        })
        .collect();
    let text = |object: &'_ Value, pointer: &str| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or("")
            .to_owned()
    };
    let cells = objects.iter().map(|object| {
        let namespace = text(object, "/metadata/namespace");
        let name = text(object, "/metadata/name");
        match by_name.get(&(namespace.as_str(), name.as_str())) {
            Some(policy) => cells(policy, now),
            None => vec!["<unknown>".to_owned(); 4],
        }
    });
    let at = table.columns() - labels;
    let names = ["CONNECTIONS", "PACKETS", "LAST HIT", "NEVER MATCHED"];
    table.insert_columns(at, names, cells.collect());
}

fn cells(policy: &PolicyHits, now: i64) -> Vec<String> {
    let (connections, packets) = policy.totals();
    let silent = policy.never_matched();
    vec![
        connections.to_string(),
        packets.to_string(),
        ago(policy.last_hit(), now),
        if silent.is_empty() {
            "<none>".to_owned()
        } else {
            silent.join(",")
        },
    ]
}

/// `5s ago`, `<never>`.
pub fn ago(moment: Option<&str>, now: i64) -> String {
    match moment.and_then(seconds_since_1970) {
        Some(at) => format!("{} ago", human_duration((now - at).max(0))),
        None => "<never>".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::FlowDirection;
    use crate::protocol::RuleHit;
    use serde_json::json;

    #[test]
    fn wide_columns_have_the_sums_and_name_the_silent_rules() {
        let rule = |rule, packets, is_counted| RuleHit {
            direction: FlowDirection::Ingress,
            rule,
            is_counted,
            connections: packets / 2,
            packets,
            last_hit: (packets > 0).then(|| "1970-01-01T00:00:10.5Z".to_owned()),
        };
        let rules = vec![
            rule(Some(0), 8, true),
            rule(Some(1), 0, true),
            rule(Some(2), 0, false),
            rule(None, 2, true),
        ];
        let hits = HitsReply {
            policies: vec![PolicyHits {
                kind: "NetworkPolicy".into(),
                namespace: Some("shop".into()),
                name: "web".into(),
                rules,
                ..PolicyHits::default()
            }],
            without_counter: 0,
            without_compound: 0,
        };
        let mut table = Table::new(["NAME", "LABELS"]);
        table.push(vec!["web".into(), "<none>".into()]);
        table.push(vec!["other".into(), "<none>".into()]);
        let objects = [
            json!({"metadata": {"name": "web", "namespace": "shop"}}),
            json!({"metadata": {"name": "other", "namespace": "shop"}}),
        ];
        add_columns(&mut table, 1, &objects, &hits, 15);
        assert_eq!(
            table.render(true),
            "NAME    CONNECTIONS   PACKETS     LAST HIT    NEVER MATCHED   LABELS\n\
             web     5             10          5s ago      ingress[1]      <none>\n\
             other   <unknown>     <unknown>   <unknown>   <unknown>       <none>\n"
        );
    }
}
