//! Objects that make objects: Deployment → ReplicaSet → Pod, ReplicationController, StatefulSet,
//! DaemonSet (on the one node) and Job → Pod, Service → EndpointSlice; and their status.
//!
//! One thread looks at everything after each change. What it made and the mirror does not show yet
//! counts as made, or a slow watch would make it twice.

mod jobs;
mod revisions;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::events::Tone;
use super::objects::{is_terminating, number, owner_reference, owner_uid, text, uid};
use super::{Agent, endpoints};
use crate::clock;

/// How long something just made may take to show in the mirror.
const SETTLE: Duration = Duration::from_secs(5);
/// Without any change, how often to look all the same.
const LOOK: Duration = Duration::from_secs(2);
/// Changes that come closer together than this are looked at together.
const GATHER: Duration = Duration::from_millis(2);

/// What was made and is not seen yet, by kind and UID or name.
#[derive(Default)]
struct Expected {
    made: BTreeMap<(String, String, String), Instant>,
    failures: jobs::Failures,
}

/// Runs for good.
pub fn run(agent: &Arc<Agent>) {
    let mut expected = Expected::default();
    let mut seen = 0;
    while !agent.is_stopping() {
        seen = agent.mirror.wait(seen, LOOK);
        std::thread::sleep(GATHER);
        if !agent.daemon.ready.load(Ordering::Acquire) {
            continue;
        }
        if let Err(error) = look(agent, &mut expected) {
            agent.complain(format_args!("controllers: {error}"));
        }
    }
}

type Outcome = Result<(), control::client::ClientError>;

fn look(agent: &Agent, expected: &mut Expected) -> Outcome {
    expected.forget_seen(agent);
    let pods = agent.mirror.list("Pod");
    let sets = agent.mirror.list("ReplicaSet");
    for deployment in agent.mirror.list("Deployment") {
        deploy(agent, &deployment, &sets, expected)?;
    }
    for (kind, resource) in [
        ("ReplicaSet", "replicasets"),
        ("ReplicationController", "replicationcontrollers"),
        ("StatefulSet", "statefulsets"),
        ("DaemonSet", "daemonsets"),
    ] {
        for owner in agent.mirror.list(kind) {
            scale(agent, &owner, resource, &pods, expected)?;
        }
    }
    for job in agent.mirror.list("Job") {
        let mut failures = std::mem::take(&mut expected.failures);
        let outcome = jobs::look(agent, &job, &pods, expected, &mut failures);
        expected.failures = failures;
        outcome?;
    }
    remove_orphans(agent, &pods, &sets)?;
    endpoints::look(agent, &pods)
}

impl Expected {
    fn key(object: &Value) -> (String, String, String) {
        super::mirror::key_of(object)
    }

    fn note(&mut self, object: &Value) {
        self.made.insert(Expected::key(object), Instant::now());
    }

    fn forget_seen(&mut self, agent: &Agent) {
        self.made.retain(|(kind, namespace, name), made| {
            made.elapsed() < SETTLE && agent.mirror.get(kind, namespace, name).is_none()
        });
    }

    fn count(&self, kind: &str, namespace: &str, prefix: &str) -> usize {
        let keys = self.made.keys();
        keys.filter(|key| key.0 == kind && key.1 == namespace && key.2.starts_with(prefix))
            .count()
    }

    fn has(&self, object: &Value) -> bool {
        self.made.contains_key(&Expected::key(object))
    }
}

/// A short text that names a template, in the letters that Kubernetes uses
/// (`k8s.io/apimachinery/pkg/util/rand`).
fn short_hash(value: &Value, length: usize) -> String {
    const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut hasher = DefaultHasher::new();
    value.to_string().hash(&mut hasher);
    let mut rest = hasher.finish();
    let mut out = String::new();
    for _ in 0..length {
        out.push(char::from(LETTERS[(rest % 27) as usize]));
        rest /= 27;
    }
    out
}

fn replicas(object: &Value) -> usize {
    number(object, "/spec/replicas").map_or(1, |count| count.max(0) as usize)
}

fn deploy(
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
    let (component, about) = ("deployment-controller", (deployment, None));
    let reason = "ScalingReplicaSet";
    agent
        .events
        .note(component, about, Tone::Normal, reason, message);
}

/// What the controllers of pods say of one that they make or delete.
fn tell_pod(agent: &Agent, owner: &Value, reason: &'static str, message: String) {
    let component = match text(owner, "/kind") {
        "ReplicaSet" => "replicaset-controller",
        "ReplicationController" => "replication-controller",
        "StatefulSet" => "statefulset-controller",
        _ => "daemonset-controller",
    };
    let about = (owner, None);
    agent
        .events
        .note(component, about, Tone::Normal, reason, message);
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

fn write_changed(agent: &Agent, resource: &str, object: &Value, status: Value) -> Outcome {
    if object.get("status") == Some(&status) {
        return Ok(());
    }
    agent.write_status(resource, object, status)
}

fn is_over(pod: &Value) -> bool {
    ["Succeeded", "Failed"].contains(&text(pod, "/status/phase"))
}

/// Whether the pod's `Ready` condition holds.
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    let mut all = conditions.into_iter().flatten();
    all.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// Makes or removes an owner's pods until there are as many as it wants.
fn scale(
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
                    .any(|other| super::mirror::key_of(other) == super::mirror::key_of(&pod));
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

fn delete_pod(agent: &Agent, pod: &Value) -> Outcome {
    let params = control::protocol::DeleteParams {
        targets: vec![super::objects::target("pods", pod)],
        ignore_not_found: true,
        ..Default::default()
    };
    agent
        .call::<control::protocol::Mutation>("delete", params)
        .map(|_| ())
}

fn unique_suffix(owner: &Value) -> String {
    use std::sync::atomic::AtomicU64;
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    short_hash(&json!([uid(owner), count, clock::now()]), 5)
}

fn pod_of(owner: &Value, name: &str, labels: &[(&str, &str)]) -> Value {
    let template = &owner["spec"]["template"];
    let mut metadata = template["metadata"].clone();
    if !metadata.is_object() {
        metadata = json!({});
    }
    for (key, value) in labels {
        metadata["labels"][key] = (*value).into();
    }
    metadata["name"] = name.into();
    metadata["namespace"] = owner["metadata"]["namespace"].clone();
    metadata["ownerReferences"] = owner_reference(owner);
    let mut spec = template["spec"].clone();
    if owner["kind"] == "StatefulSet" {
        spec["hostname"] = name.into();
        spec["subdomain"] = owner["spec"]["serviceName"].clone();
        if spec["subdomain"].is_null()
            && let Some(fields) = spec.as_object_mut()
        {
            fields.remove("subdomain");
        }
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
}

/// Removes what a controller made that is no longer there.
fn remove_orphans(agent: &Agent, pods: &[Arc<Value>], sets: &[Arc<Value>]) -> Outcome {
    let kinds = [
        "ReplicaSet",
        "ReplicationController",
        "StatefulSet",
        "DaemonSet",
        "Deployment",
        "Job",
    ];
    let lists = kinds.map(|kind| agent.mirror.list(kind));
    let owners: Vec<&str> = lists.iter().flatten().map(|owner| uid(owner)).collect();
    let orphan = |object: &Value| {
        let owner = owner_uid(object);
        let kind = object
            .pointer("/metadata/ownerReferences/0/kind")
            .and_then(Value::as_str);
        let ours = kind.is_some_and(|kind| kinds.contains(&kind));
        ours && !owners.contains(&owner)
    };
    for set in sets.iter().filter(|set| orphan(set)) {
        agent.remove("replicasets", set)?;
    }
    for pod in pods
        .iter()
        .filter(|pod| orphan(pod) && !is_terminating(pod))
    {
        delete_pod(agent, pod)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn a_stateful_sets_pods_have_its_name_and_number() {
        let owner = json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet",
            "metadata": {"name": "db", "namespace": "ns", "uid": "u"},
            "spec": {"serviceName": "db", "template": {"spec": {"containers": []}}},
        });
        let pod = pod_of(&owner, "db-0", &[("apps.kubernetes.io/pod-index", "0")]);
        assert_eq!(pod["spec"]["hostname"], "db-0");
        assert_eq!(pod["spec"]["subdomain"], "db");
        assert_eq!(
            pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"],
            "0"
        );
    }
}
