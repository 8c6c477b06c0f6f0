//! Owners of so many pods: ReplicaSet, ReplicationController, StatefulSet, DaemonSet.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::events::Tone;
use super::super::objects::{is_terminating, number, owner_uid, text, uid};
use super::super::{Agent, mirror};
use super::{
    Expected, Outcome, component, delete_pod, is_over, is_ready, pod_of, replicas, revisions,
    unique_suffix, write_changed,
};

/// Makes or removes an owner's pods until there are as many as it wants.
pub(super) fn look(
    agent: &Agent,
    owner: &Value,
    resource: &str,
    pods: &[Arc<Value>],
    expected: &mut Expected,
) -> Outcome {
    if is_terminating(owner) {
        return Ok(());
    }
    let own: Vec<&Arc<Value>> = pods
        .iter()
        .filter(|pod| owner_uid(pod) == uid(owner) && !is_terminating(pod) && !is_over(pod))
        .collect();
    let count = match resource {
        "daemonsets" => 1,
        _ => replicas(owner),
    };
    let name = text(owner, "/metadata/name");
    let revision = revisions::of(owner);
    if resource == "statefulsets" {
        scale_ordered(agent, owner, &own, count, pods, expected)?;
    } else {
        let namespace = text(owner, "/metadata/namespace");
        let coming = expected.count("Pod", namespace, &format!("{name}-"));
        for _ in own.len() + coming..count {
            let revision = revision.as_deref();
            let labels = revision.map(|revision| (revisions::LABEL, revision));
            let pod_name = format!("{name}-{}", unique_suffix(owner));
            let pod = pod_of(owner, &pod_name, labels.as_slice());
            expected.note(&pod);
            agent.create(pod)?;
            tell_created(agent, owner, &pod_name);
        }
        // The youngest that is not ready goes first.
        let mut order = own.clone();
        order.sort_by_key(|pod| {
            (
                is_ready(pod),
                std::cmp::Reverse(text(pod, "/metadata/creationTimestamp").to_owned()),
            )
        });
        let surplus = own.len().saturating_sub(count);
        for pod in order.into_iter().take(surplus) {
            delete_pod(agent, pod)?;
            let message = format!("Deleted pod: {}", text(pod, "/metadata/name"));
            tell_pod(agent, owner, "SuccessfulDelete", message);
        }
    }
    if let Some(pod) = revisions::next_to_replace(owner, &own, count) {
        delete_pod(agent, pod)?;
    }
    let ready = own.iter().filter(|pod| is_ready(pod)).count();
    let generation = number(owner, "/metadata/generation").unwrap_or(1);
    let status = match resource {
        "daemonsets" => json!({
            "observedGeneration": generation, "desiredNumberScheduled": 1,
            "currentNumberScheduled": own.len(), "numberReady": ready, "numberMisscheduled": 0,
            "numberAvailable": ready, "updatedNumberScheduled": revisions::updated(owner, &own),
        }),
        _ => json!({
            "observedGeneration": generation, "replicas": own.len(),
            "readyReplicas": ready, "availableReplicas": ready,
            "fullyLabeledReplicas": own.len(),
        }),
    };
    let status = match resource {
        "statefulsets" => revisions::stateful_status(owner, &own, ready),
        _ => status,
    };
    write_changed(agent, resource, owner, status)
}

/// `NAME-0`, `NAME-1`, …: each after the one before is ready.
fn scale_ordered(
    agent: &Agent,
    owner: &Value,
    own: &[&Arc<Value>],
    count: usize,
    pods: &[Arc<Value>],
    expected: &mut Expected,
) -> Outcome {
    let name = text(owner, "/metadata/name");
    let revision = revisions::of(owner).unwrap_or_default();
    let parallel = text(owner, "/spec/podManagementPolicy") == "Parallel";
    let named = |name: &str| own.iter().find(|pod| text(pod, "/metadata/name") == name);
    for ordinal in 0..count {
        let pod_name = format!("{name}-{ordinal}");
        match named(&pod_name) {
            Some(pod) if parallel || is_ready(pod) => {}
            Some(_) => break,
            None => {
                let index = ordinal.to_string();
                let labels = [
                    ("statefulset.kubernetes.io/pod-name", pod_name.as_str()),
                    ("apps.kubernetes.io/pod-index", index.as_str()),
                    (revisions::LABEL, revision.as_str()),
                ];
                let pod = pod_of(owner, &pod_name, &labels);
                let there = pods
                    .iter()
                    .any(|other| mirror::key_of(other) == mirror::key_of(&pod));
                if !there && !expected.has(&pod) {
                    expected.note(&pod);
                    agent.create(pod)?;
                    tell_created(agent, owner, &pod_name);
                }
                if !parallel {
                    break;
                }
            }
        }
    }
    for pod in own {
        let ordinal = text(pod, "/metadata/name").rsplit('-').next();
        let ordinal = ordinal.and_then(|digits| digits.parse::<usize>().ok());
        if ordinal.is_none_or(|ordinal| ordinal >= count) {
            delete_pod(agent, pod)?;
        }
    }
    Ok(())
}

/// What the controllers of pods say of one that they make or delete.
fn tell_pod(agent: &Agent, owner: &Value, reason: &'static str, message: String) {
    let about = (owner, None);
    agent
        .events
        .note(component(owner), about, Tone::Normal, reason, message);
}

fn tell_created(agent: &Agent, owner: &Value, pod: &str) {
    let message = match text(owner, "/kind") {
        "StatefulSet" => {
            let name = text(owner, "/metadata/name");
            format!("create Pod {pod} in StatefulSet {name} successful")
        }
        _ => format!("Created pod: {pod}"),
    };
    tell_pod(agent, owner, "SuccessfulCreate", message);
}
