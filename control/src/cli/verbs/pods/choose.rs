//! Which pod a word means: `POD`, `TYPE/NAME`, `TYPE NAME`; and which container of it (kubectl
//! `pkg/polymorphichelpers`, `pkg/util/podcmd`, `pkg/util/podutils`).

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cli::session::VerbError;
use crate::client::Client;
use crate::protocol::{GetParams, GetReply};

/// How often to look for a pod that is not there yet.
const LOOK: Duration = Duration::from_millis(50);
/// The annotation that names a pod's main container.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// What a pod is chosen for; it decides which of several is best.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A session in it.
    Session,
    /// Its log.
    Logs,
}

/// A pod, and the object that was named, which may be the same.
pub struct Chosen {
    /// What was named.
    pub named: Value,
    /// The pod.
    pub pod: Value,
    /// How many pods there were to choose among.
    pub among: usize,
}

/// The object that one or two words name; a word alone is a pod's name.
pub fn object(client: &mut Client, namespace: &str, words: &[String]) -> Result<Value, VerbError> {
    let (resource, name) = match words {
        [one] => match one.split_once('/') {
            Some((resource, name)) if !resource.is_empty() && !name.is_empty() => (resource, name),
            Some(_) => {
                return Err(VerbError::Local(
                    "arguments in resource/name form must have a single resource and name".into(),
                ));
            }
            None => ("pods", one.as_str()),
        },
        [resource, name] => (resource.as_str(), name.as_str()),
        _ => {
            return Err(VerbError::Local(
                "expected POD, TYPE/NAME, or TYPE NAME".into(),
            ));
        }
    };
    let params = GetParams {
        resource: resource.to_owned(),
        namespace: Some(namespace.to_owned()),
        name: Some(name.to_owned()),
        ..GetParams::default()
    };
    match client.call::<GetReply>("get", params) {
        Ok(mut reply) => Ok(reply.items.pop().unwrap_or_default()),
        // A kind that nobody knows is the client's own finding in kubectl.
        Err(error) if error.to_string().starts_with("the server doesn't have a") => {
            Err(VerbError::Local(error.to_string()))
        }
        Err(error) => Err(error.into()),
    }
}

/// The pod that an object stands for; waits until there is one.
pub fn pod(
    client: &mut Client,
    named: Value,
    purpose: Purpose,
    limit: Duration,
) -> Result<Chosen, VerbError> {
    if named["kind"] == "Pod" {
        let pod = named.clone();
        return Ok(Chosen {
            named,
            pod,
            among: 1,
        });
    }
    let mut pods = pods_of(client, &named, purpose, limit)?;
    let among = pods.len();
    Ok(Chosen {
        named,
        pod: pods.swap_remove(0),
        among,
    })
}

/// All pods that an object stands for, the best first; at least one.
pub fn pods_of(
    client: &mut Client,
    named: &Value,
    purpose: Purpose,
    limit: Duration,
) -> Result<Vec<Value>, VerbError> {
    let kind = named["kind"].as_str().unwrap_or_default();
    let selector = selector_of(named).map_err(|why| {
        VerbError::Local(match purpose {
            Purpose::Session => format!("cannot attach to *v1.{kind}: {why}"),
            Purpose::Logs => format!("cannot get the logs from *v1.{kind}: {why}"),
        })
    })?;
    let params = GetParams {
        resource: "pods".to_owned(),
        namespace: named["metadata"]["namespace"].as_str().map(str::to_owned),
        label_selector: Some(selector),
        ..GetParams::default()
    };
    let deadline = Instant::now() + limit;
    loop {
        let mut pods = client.call::<GetReply>("get", &params)?.items;
        if !pods.is_empty() {
            pods.sort_by_cached_key(|pod| rank(pod, purpose));
            return Ok(pods);
        }
        if Instant::now() >= deadline {
            return Err(VerbError::Local(
                "timed out waiting for the condition".into(),
            ));
        }
        std::thread::sleep(LOOK);
    }
}

/// The label selector of an object's pods.
fn selector_of(object: &Value) -> Result<String, String> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let kind = object["kind"].as_str().unwrap_or_default();
    let selector = &object["spec"]["selector"];
    match kind {
        "Service" | "ReplicationController" => {
            let terms = equal_terms(selector);
            if terms.is_empty() {
                let what = kind.to_lowercase();
                return Err(format!(
                    "invalid {what} '{name}': {kind} is defined without a selector"
                ));
            }
            Ok(terms.join(","))
        }
        "Job" if selector.is_null() => Ok(format!("batch.kubernetes.io/job-name={name}")),
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" | "Job" => {
            let mut terms = equal_terms(&selector["matchLabels"]);
            let expressions = selector["matchExpressions"].as_array();
            terms.extend(expressions.into_iter().flatten().map(expression));
            Ok(terms.join(","))
        }
        _ => Err(format!("selector for *v1.{kind} not implemented")),
    }
}

fn equal_terms(labels: &Value) -> Vec<String> {
    let labels = labels.as_object().into_iter().flatten();
    let term = |(key, value): (&String, &Value)| {
        let value = value.as_str().unwrap_or_default();
        format!("{key}={value}")
    };
    labels.map(term).collect()
}

fn expression(expression: &Value) -> String {
    let key = expression["key"].as_str().unwrap_or_default();
    let values = expression["values"].as_array().into_iter().flatten();
    let values: Vec<&str> = values.filter_map(Value::as_str).collect();
    let values = values.join(",");
    match expression["operator"].as_str().unwrap_or_default() {
        "NotIn" => format!("{key} notin ({values})"),
        "Exists" => key.to_owned(),
        "DoesNotExist" => format!("!{key}"),
        _ => format!("{key} in ({values})"),
    }
}

/// What orders pods, the best first: on a node, running, ready, not going, ready for longest, quiet,
/// oldest.
fn rank(pod: &Value, purpose: Purpose) -> impl Ord + use<> {
    let text = |pointer: &str| {
        let found = pod.pointer(pointer).and_then(Value::as_str);
        found.unwrap_or_default().to_owned()
    };
    let phase = match (text("/status/phase").as_str(), purpose) {
        ("Running", _) => 0,
        ("Unknown", _) => 1,
        ("Pending", _) => 2,
        // What has ended has a log as good as any.
        (_, Purpose::Logs) => 0,
        (_, Purpose::Session) => 2,
    };
    let ready = condition(pod, "Ready").filter(|c| c["status"] == "True");
    let since = ready.and_then(|c| c["lastTransitionTime"].as_str());
    let going = !text("/metadata/deletionTimestamp").is_empty();
    let restarts = pod.pointer("/status/containerStatuses");
    let restarts = restarts.and_then(Value::as_array).into_iter().flatten();
    let restarts = restarts.filter_map(|status| status["restartCount"].as_i64());
    let restarts = restarts.max().unwrap_or(0);
    let restarts = match purpose {
        Purpose::Session => restarts,
        // The one that fails is the one that is asked about.
        Purpose::Logs => -restarts,
    };
    (
        text("/spec/nodeName").is_empty(),
        phase,
        Reverse(ready.is_some()),
        going && purpose == Purpose::Session,
        since.map(str::to_owned),
        restarts,
        text("/metadata/creationTimestamp"),
        text("/metadata/name"),
    )
}

/// A condition of a pod's status.
pub fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    let mut conditions = conditions.into_iter().flatten();
    conditions.find(|condition| condition["type"] == kind)
}

/// The lists of a pod's containers, in the order in which kubectl looks through them, and what
/// stands behind the names of each.
const LISTS: [(&str, &str); 3] = [
    ("containers", ""),
    ("ephemeralContainers", " (ephem)"),
    ("initContainers", " (init)"),
];

/// The containers of one of the lists.
pub fn containers<'a>(pod: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> {
    let found = pod["spec"][list].as_array();
    found.into_iter().flatten()
}

fn name(container: &Value) -> &str {
    container["name"].as_str().unwrap_or_default()
}

fn every_name(pod: &Value) -> String {
    let listed = LISTS.iter().flat_map(|(list, behind)| {
        containers(pod, list).map(move |container| format!("{}{behind}", name(container)))
    });
    listed.collect::<Vec<_>>().join(", ")
}

/// The container that is meant: the one named, the one that the pod is annotated with, the first.
pub fn container<'a>(
    pod: &'a Value,
    wanted: Option<&str>,
    quiet: bool,
) -> Result<&'a Value, VerbError> {
    let pod_name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let annotated = pod["metadata"]["annotations"][DEFAULT_CONTAINER].as_str();
    let wanted = wanted.or(annotated).filter(|wanted| !wanted.is_empty());
    if let Some(wanted) = wanted {
        let mut all = LISTS.iter().flat_map(|(list, _)| containers(pod, list));
        return all
            .find(|container| name(container) == wanted)
            .ok_or_else(|| {
                VerbError::Local(format!(
                    "container {wanted} is not valid for pod {pod_name} out of: {}",
                    every_name(pod)
                ))
            });
    }
    let first = containers(pod, "containers").next().ok_or_else(|| {
        let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
        VerbError::Local(format!(
            "pod {namespace}/{pod_name} does not have any containers"
        ))
    })?;
    let count: usize = LISTS
        .iter()
        .map(|(list, _)| containers(pod, list).count())
        .sum();
    if count > 1 && !quiet {
        let all = every_name(pod);
        eprintln!("Defaulted container \"{}\" out of: {all}", name(first));
    }
    Ok(first)
}

/// A word for why nobody can be in a pod that has ended, if it has.
pub fn ended(pod: &Value) -> Option<&str> {
    let phase = pod.pointer("/status/phase").and_then(Value::as_str);
    phase.filter(|phase| ["Succeeded", "Failed"].contains(phase))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_kind_that_has_pods_says_which() {
        let deployment = json!({"kind": "Deployment", "spec": {"selector": {
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["a", "b"]},
                {"key": "old", "operator": "DoesNotExist"},
            ],
        }}});
        let expected = "app=web,tier in (a,b),!old";
        assert_eq!(selector_of(&deployment).as_deref(), Ok(expected));
        let service = json!({"kind": "Service", "spec": {"selector": {"app": "web"}}});
        assert_eq!(selector_of(&service).as_deref(), Ok("app=web"));
        let job = json!({"kind": "Job", "metadata": {"name": "j"}, "spec": {}});
        assert_eq!(
            selector_of(&job).as_deref(),
            Ok("batch.kubernetes.io/job-name=j")
        );
        let bare = json!({"kind": "Service", "metadata": {"name": "s"}, "spec": {}});
        assert_eq!(
            selector_of(&bare).unwrap_err(),
            "invalid service 's': Service is defined without a selector"
        );
        let map = json!({"kind": "ConfigMap"});
        assert!(selector_of(&map).unwrap_err().ends_with("not implemented"));
    }

    #[test]
    fn a_pod_that_is_ready_and_stays_comes_first() {
        let pod = |name: &str, phase: &str, ready: bool, going: bool| {
            let mut pod = json!({
                "metadata": {"name": name},
                "spec": {"nodeName": "n"},
                "status": {"phase": phase, "conditions": [
                    {"type": "Ready", "status": if ready { "True" } else { "False" }},
                ]},
            });
            if going {
                pod["metadata"]["deletionTimestamp"] = "now".into();
            }
            pod
        };
        let mut pods = [
            pod("pending", "Pending", false, false),
            pod("going", "Running", true, true),
            pod("unready", "Running", false, false),
            pod("good", "Running", true, false),
        ];
        pods.sort_by_cached_key(|pod| rank(pod, Purpose::Session));
        let names: Vec<_> = pods
            .iter()
            .map(|pod| pod["metadata"]["name"].clone())
            .collect();
        assert_eq!(names, ["good", "going", "unready", "pending"]);
    }

    #[test]
    fn containers_are_named_annotated_or_first() {
        let mut pod = json!({
            "metadata": {"name": "p", "namespace": "n"},
            "spec": {
                "containers": [{"name": "a"}, {"name": "b"}],
                "initContainers": [{"name": "i"}],
                "ephemeralContainers": [{"name": "e"}],
            },
        });
        assert_eq!(container(&pod, None, true).unwrap()["name"], "a");
        assert_eq!(container(&pod, Some("i"), true).unwrap()["name"], "i");
        let error = container(&pod, Some("x"), true).unwrap_err().to_string();
        assert_eq!(
            error,
            "container x is not valid for pod p out of: a, b, e (ephem), i (init)"
        );
        pod["metadata"]["annotations"][DEFAULT_CONTAINER] = "b".into();
        assert_eq!(container(&pod, None, true).unwrap()["name"], "b");
    }
}
