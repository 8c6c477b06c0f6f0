//! Which pod template a StatefulSet's or DaemonSet's pods were made from, and which of them is to
//! be replaced when that has changed.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{is_ready, short_hash};
use crate::agent::objects::{number, text};

/// The label that says which template a pod was made from.
pub(super) const LABEL: &str = "controller-revision-hash";

/// What [`LABEL`] is on pods of the owner's template of now; none for kinds whose pods do not have
/// it (a Deployment's have `pod-template-hash`).
pub(super) fn of(owner: &Value) -> Option<String> {
    let hash = || short_hash(&owner["spec"]["template"], 10);
    match text(owner, "/kind") {
        "StatefulSet" => Some(format!("{}-{}", text(owner, "/metadata/name"), hash())),
        "DaemonSet" => Some(hash()),
        _ => None,
    }
}

fn has(pod: &Value, revision: &str) -> bool {
    pod["metadata"]["labels"][LABEL] == revision
}

fn count_of(pods: &[&Arc<Value>], revision: &str) -> usize {
    pods.iter().filter(|pod| has(pod, revision)).count()
}

/// How many pods are made from the template of now.
pub(super) fn updated(owner: &Value, own: &[&Arc<Value>]) -> usize {
    count_of(own, &of(owner).unwrap_or_default())
}

/// The one pod that is to make way for one of the template of now, if it is time for that.
///
/// A StatefulSet's pods are replaced from the last to the first, down to the strategy's
/// `partition`, each when those after it are ready; a DaemonSet's where its pod is of an earlier
/// template. With the strategy `OnDelete` nothing is replaced.
pub(super) fn next_to_replace<'a>(
    owner: &Value,
    own: &[&'a Arc<Value>],
    count: usize,
) -> Option<&'a Arc<Value>> {
    let revision = of(owner)?;
    if text(owner, "/spec/updateStrategy/type") == "OnDelete" {
        return None;
    }
    if text(owner, "/kind") == "DaemonSet" {
        return own.iter().find(|pod| !has(pod, &revision)).copied();
    }
    let ordered = text(owner, "/spec/podManagementPolicy") != "Parallel";
    if ordered && (own.len() < count || !own.iter().all(|pod| is_ready(pod))) {
        return None;
    }
    let first = number(owner, "/spec/updateStrategy/rollingUpdate/partition").unwrap_or(0);
    for ordinal in (usize::try_from(first).unwrap_or(0)..count).rev() {
        let name = format!("{}-{ordinal}", text(owner, "/metadata/name"));
        // One that is not there is on its way.
        let pod = own
            .iter()
            .find(|pod| text(pod, "/metadata/name") == name)
            .copied()?;
        if !has(pod, &revision) {
            return Some(pod);
        }
        if !is_ready(pod) {
            return None;
        }
    }
    None
}

/// A StatefulSet's status. Its `currentRevision` becomes the `updateRevision` when all pods are of
/// that and ready.
pub(super) fn stateful_status(owner: &Value, own: &[&Arc<Value>], ready: usize) -> Value {
    let update = of(owner).unwrap_or_default();
    let updated = count_of(own, &update);
    let before = text(owner, "/status/currentRevision");
    let complete = updated == own.len() && ready == own.len();
    let current = if complete || before.is_empty() {
        update.as_str()
    } else {
        before
    };
    json!({
        "observedGeneration": number(owner, "/metadata/generation").unwrap_or(1),
        "replicas": own.len(), "readyReplicas": ready, "availableReplicas": ready,
        "currentReplicas": count_of(own, current), "updatedReplicas": updated,
        "currentRevision": current, "updateRevision": update,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stateful(strategy: Value) -> Value {
        json!({
            "kind": "StatefulSet", "metadata": {"name": "db"},
            "spec": {
                "template": {"spec": {"containers": []}}, "updateStrategy": strategy,
            },
        })
    }

    /// A pod made from the owner's template of now, or of an earlier one.
    fn pod(owner: &Value, name: &str, new: bool, ready: bool) -> Arc<Value> {
        let revision = if new {
            of(owner).unwrap()
        } else {
            "old".into()
        };
        let ready = if ready { "True" } else { "False" };
        Arc::new(json!({
            "metadata": {"name": name, "labels": {LABEL: revision}},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
    }

    fn chosen(owner: &Value, pods: &[Arc<Value>], count: usize) -> Option<String> {
        let own: Vec<&Arc<Value>> = pods.iter().collect();
        let next = next_to_replace(owner, &own, count);
        next.map(|pod| text(pod, "/metadata/name").to_owned())
    }

    #[test]
    fn a_stateful_sets_pods_are_replaced_from_the_last_one_by_one() {
        let db = stateful(json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}));
        let pods = |states: [(bool, bool); 3]| -> Vec<Arc<Value>> {
            let named = states.into_iter().enumerate();
            named
                .map(|(at, (new, ready))| pod(&db, &format!("db-{at}"), new, ready))
                .collect()
        };
        let (old, new) = ((false, true), (true, true));
        let cases = [
            ([old, old, old], Some("db-2")),
            // The one that was replaced is not ready yet.
            ([old, old, (true, false)], None),
            ([old, old, new], Some("db-1")),
            // The partition ends at 1.
            ([old, new, new], None),
        ];
        for (states, expected) in cases {
            assert_eq!(
                chosen(&db, &pods(states), 3).as_deref(),
                expected,
                "{states:?}"
            );
        }
        assert_eq!(chosen(&db, &pods([old, old, old])[..2], 3), None);
        let by_hand = stateful(json!({"type": "OnDelete"}));
        assert_eq!(chosen(&by_hand, &pods([old, old, old]), 3), None);
    }

    #[test]
    fn a_daemon_sets_pod_of_an_earlier_template_goes() {
        let agent = json!({"kind": "DaemonSet", "metadata": {"name": "a"}, "spec": {}});
        assert_eq!(
            chosen(&agent, &[pod(&agent, "a-x", false, true)], 1).as_deref(),
            Some("a-x")
        );
        assert_eq!(chosen(&agent, &[pod(&agent, "a-x", true, false)], 1), None);
        let set = json!({"kind": "ReplicaSet", "metadata": {"name": "a"}, "spec": {}});
        assert_eq!(of(&set), None);
    }

    #[test]
    fn the_revision_of_now_is_current_when_all_pods_have_it() {
        let mut db = stateful(json!({"type": "RollingUpdate"}));
        let update = of(&db).unwrap();
        let old = [pod(&db, "db-0", false, true), pod(&db, "db-1", true, true)];
        db["status"]["currentRevision"] = "old".into();
        let status = stateful_status(&db, &old.iter().collect::<Vec<_>>(), 2);
        assert_eq!(status["currentRevision"], "old");
        assert_eq!(status["currentReplicas"], 1);
        assert_eq!(status["updatedReplicas"], 1);
        let new = [pod(&db, "db-0", true, true), pod(&db, "db-1", true, true)];
        let status = stateful_status(&db, &new.iter().collect::<Vec<_>>(), 2);
        assert_eq!(status["currentRevision"], update);
        assert_eq!(status["updateRevision"], update);
        let status = stateful_status(&db, &new.iter().collect::<Vec<_>>(), 1);
        assert_eq!(status["currentRevision"], "old");
    }
}
