//! Deployments: a ReplicaSet for each template.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::Agent;
use super::super::events::Tone;
use super::super::objects::{is_terminating, number, owner_reference, owner_uid, text, uid};
use super::{Expected, Outcome, component, replicas, short_hash, write_changed};

/// Makes a Deployment's ReplicaSets, and says how far it is.
pub(super) fn look(
    agent: &Agent,
    deployment: &Value,
    sets: &[Arc<Value>],
    expected: &mut Expected,
) -> Outcome {
    if is_terminating(deployment) {
        return Ok(());
    }
    let template = &deployment["spec"]["template"];
    let hash = short_hash(template, 10);
    let wanted = format!("{}-{hash}", text(deployment, "/metadata/name"));
    let own: Vec<&Arc<Value>> = sets
        .iter()
        .filter(|set| owner_uid(set) == uid(deployment))
        .collect();
    let count = replicas(deployment);
    let current = own.iter().find(|set| text(set, "/metadata/name") == wanted);
    match current {
        None => {
            let set = replica_set(deployment, &wanted, &hash, count);
            if !expected.has(&set) {
                expected.note(&set);
                agent.create(set)?;
                tell_scaled(agent, deployment, &wanted, 0, count);
            }
        }
        Some(set) if replicas(set) != count => {
            agent.merge("replicasets", set, json!({"spec": {"replicas": count}}))?;
            tell_scaled(agent, deployment, &wanted, replicas(set), count);
        }
        Some(_) => {}
    }
    let ready = |set: &Value| number(set, "/status/readyReplicas").unwrap_or(0) as usize;
    let recreate = text(deployment, "/spec/strategy/type") == "Recreate";
    let replaced = current.is_some_and(|set| ready(set) >= count);
    for old in own
        .iter()
        .filter(|set| text(set, "/metadata/name") != wanted)
    {
        if replicas(old) > 0 && (recreate || replaced) {
            agent.merge("replicasets", old, json!({"spec": {"replicas": 0}}))?;
            let name = text(old, "/metadata/name");
            tell_scaled(agent, deployment, name, replicas(old), 0);
        }
    }
    let sum = |pointer: &str| {
        own.iter()
            .filter_map(|set| number(set, pointer))
            .sum::<i64>()
    };
    let updated = current
        .and_then(|set| number(set, "/status/replicas"))
        .unwrap_or(0);
    let available = sum("/status/readyReplicas");
    let complete = available as usize >= count;
    let condition = |kind: &str, holds: bool, reason: &str| json!({"type": kind, "status": if holds { "True" } else { "False" }, "reason": reason});
    let status = json!({
        "observedGeneration": number(deployment, "/metadata/generation").unwrap_or(1),
        "replicas": sum("/status/replicas"), "updatedReplicas": updated,
        "readyReplicas": available, "availableReplicas": available,
        "unavailableReplicas": (count as i64 - available).max(0),
        "conditions": [
            condition("Available", complete, "MinimumReplicasAvailable"),
            condition("Progressing", true, "NewReplicaSetAvailable"),
        ],
    });
    write_changed(agent, "deployments", deployment, status)
}

/// What the deployment controller says of a ReplicaSet that it scales.
fn tell_scaled(agent: &Agent, deployment: &Value, set: &str, from: usize, to: usize) {
    let way = if to > from { "up" } else { "down" };
    let message = format!("Scaled {way} replica set {set} from {from} to {to}");
    let about = (deployment, None);
    let reason = "ScalingReplicaSet";
    agent
        .events
        .note(component(deployment), about, Tone::Normal, reason, message);
}

fn replica_set(deployment: &Value, name: &str, hash: &str, count: usize) -> Value {
    let mut template = deployment["spec"]["template"].clone();
    template["metadata"]["labels"]["pod-template-hash"] = hash.into();
    let mut selector = deployment["spec"]["selector"].clone();
    selector["matchLabels"]["pod-template-hash"] = hash.into();
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": name, "namespace": deployment["metadata"]["namespace"],
            "labels": template["metadata"]["labels"],
            "ownerReferences": owner_reference(deployment),
        },
        "spec": {"replicas": count, "selector": selector, "template": template},
    })
}

#[cfg(test)]
mod tests {
    use super::super::pod_of;
    use super::*;

    #[test]
    fn a_replica_set_tells_its_pods_from_those_of_another_template() {
        let deployment = json!({
            "metadata": {"name": "web", "namespace": "ns", "uid": "u1"},
            "apiVersion": "apps/v1", "kind": "Deployment",
            "spec": {
                "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}},
            },
        });
        let hash = short_hash(&deployment["spec"]["template"], 10);
        let set = replica_set(&deployment, &format!("web-{hash}"), &hash, 2);
        assert_eq!(
            set["spec"]["selector"]["matchLabels"]["pod-template-hash"],
            hash
        );
        assert_eq!(owner_uid(&set), "u1");
        let pod = pod_of(&set, "web-x", &[]);
        assert_eq!(
            pod["metadata"]["labels"],
            json!({"app": "web", "pod-template-hash": hash})
        );
        let mut other = deployment["spec"]["template"].clone();
        other["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/restartedAt": "now"});
        assert_ne!(short_hash(&other, 10), hash);
    }
}
