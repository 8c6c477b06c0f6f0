//! Objects that make objects: Deployment → ReplicaSet → Pod; ReplicationController, StatefulSet, DaemonSet
//! (on the one node) and Job → Pod; CronJob → Job; Service → EndpointSlice; and their status.
//!
//! One thread looks at everything after each change. What it made and the mirror does not show yet
//! counts as made, or a slow watch would make it twice.

mod cron_jobs;
mod deployments;
mod jobs;
mod revisions;
mod scaled;

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
    jobs: jobs::Memory,
    cron_jobs: cron_jobs::Memory,
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
        let outcome = deployments::look(agent, &deployment, &sets, expected);
        go_on(agent, &deployment, outcome)?;
    }
    for (kind, resource) in [
        ("ReplicaSet", "replicasets"),
        ("ReplicationController", "replicationcontrollers"),
        ("StatefulSet", "statefulsets"),
        ("DaemonSet", "daemonsets"),
    ] {
        for owner in agent.mirror.list(kind) {
            let outcome = scaled::look(agent, &owner, resource, &pods, expected);
            go_on(agent, &owner, outcome)?;
        }
    }
    let jobs = agent.mirror.list("Job");
    for job in &jobs {
        let outcome = jobs::look(agent, job, &pods, expected);
        go_on(agent, job, outcome)?;
    }
    expected.jobs.keep(&jobs);
    let cron_jobs = agent.mirror.list("CronJob");
    for cron_job in &cron_jobs {
        let outcome = cron_jobs::look(agent, cron_job, &jobs, expected);
        go_on(agent, cron_job, outcome)?;
    }
    expected.cron_jobs.keep(&cron_jobs);
    remove_orphans(agent, &pods, &sets)?;
    endpoints::look(agent, &pods)
}

/// What the daemon refuses of one owner is told and keeps no other waiting; that it is gone does.
fn go_on(agent: &Agent, owner: &Value, outcome: Outcome) -> Outcome {
    let Err(error) = outcome else { return Ok(()) };
    if error.reason().is_none() {
        return Err(error);
    }
    let about = (owner, None);
    let message = format!("Error creating: {error}");
    agent.events.note(
        component(owner),
        about,
        Tone::Warning,
        "FailedCreate",
        message,
    );
    Ok(())
}

/// Which of Kubernetes' controllers looks after an owner.
fn component(owner: &Value) -> &'static str {
    match text(owner, "/kind") {
        "Deployment" => "deployment-controller",
        "ReplicaSet" => "replicaset-controller",
        "ReplicationController" => "replication-controller",
        "StatefulSet" => "statefulset-controller",
        "Job" => "job-controller",
        "CronJob" => "cronjob-controller",
        _ => "daemonset-controller",
    }
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
