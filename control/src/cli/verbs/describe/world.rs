//! What a page tells of other objects: the pods of a controller or a node, a pod's Services, who
//! reaches it, and events.

use serde_json::Value;

use crate::cli::columns::{last_seen, seconds_since_1970};
use crate::cli::session::VerbError;
use crate::cli::table::human_duration;
use crate::client::Client;
use crate::protocol::{Explained, GetParams, GetReply, TraceParams};

use super::page::{Page, items, text};

/// Pods that are asked whether they reach one; of more the page says that there are.
const SENDERS: usize = 100;

/// Objects beside the one that is described.
#[derive(Default)]
pub struct World {
    objects: Vec<Value>,
}

impl World {
    /// What the page of an object of that kind needs.
    pub fn gather(client: &mut Client, kind: &str, object: &Value) -> Result<World, VerbError> {
        let namespace = text(object, "/metadata/namespace");
        let wanted: &[&str] = match kind {
            "Deployment" => &["replicasets"],
            "DaemonSet" | "ReplicaSet" | "ReplicationController" | "StatefulSet" => &["pods"],
            "Node" => &["pods"],
            "Namespace" => &["resourcequotas", "limitranges"],
            "Pod" => &["services"],
            _ => &[],
        };
        let mut world = World::default();
        for resource in wanted {
            let params = GetParams {
                resource: (*resource).to_owned(),
                namespace: Some(match kind {
                    "Namespace" => text(object, "/metadata/name").to_owned(),
                    _ => namespace.to_owned(),
                }),
                all_namespaces: kind == "Node",
                ..GetParams::default()
            };
            let reply: GetReply = client.call("get", params)?;
            world.objects.extend(reply.items);
        }
        Ok(world)
    }

    /// Those of a kind.
    pub fn others(&self, kind: &str) -> Vec<&Value> {
        self.objects
            .iter()
            .filter(|object| object["kind"] == kind)
            .collect()
    }

    /// Those of a kind that belong to `owner`.
    fn owned(&self, kind: &str, owner: &Value) -> Vec<&Value> {
        let uid = text(owner, "/metadata/uid");
        let is_owner = |reference: &Value| text(reference, "/uid") == uid;
        let mut found = self.others(kind);
        found.retain(|one| items(one, "/metadata/ownerReferences").iter().any(is_owner));
        found
    }

    /// `1 Running / 0 Waiting / 0 Succeeded / 0 Failed`.
    pub fn pods_status(&self, owner: &Value) -> String {
        let phases: Vec<&str> = self
            .owned("Pod", owner)
            .into_iter()
            .map(|pod| text(pod, "/status/phase"))
            .collect();
        let count = |phase: &str| phases.iter().filter(|own| **own == phase).count();
        format!(
            "{} Running / {} Waiting / {} Succeeded / {} Failed",
            count("Running"),
            count("Pending") + count(""),
            count("Succeeded"),
            count("Failed")
        )
    }

    /// A Deployment's ReplicaSets: that of its template now, and the others that have pods.
    pub fn replica_sets(&self, deployment: &Value) -> (Vec<&Value>, Vec<&Value>) {
        let mut sets: Vec<&Value> = self.owned("ReplicaSet", deployment);
        sets.sort_by_key(|set| text(set, "/metadata/creationTimestamp").to_owned());
        let wanted = &deployment["spec"]["template"]["spec"];
        let at = sets
            .iter()
            .rposition(|set| set["spec"]["template"]["spec"] == *wanted);
        let new = at.map(|at| sets.remove(at));
        sets.retain(|set| set["spec"]["replicas"].as_i64() != Some(0));
        (new.into_iter().collect(), sets)
    }

    /// Pods of a node that have not ended.
    pub fn pods_on(&self, node: &str) -> Vec<&Value> {
        let mut pods = self.others("Pod");
        pods.retain(|pod| {
            let ended = ["Succeeded", "Failed"].contains(&text(pod, "/status/phase"));
            text(pod, "/spec/nodeName") == node && !ended
        });
        pods
    }

    /// The Services that select a pod.
    pub fn services_of(&self, pod: &Value) -> Vec<String> {
        let selects = |service: &&Value| {
            let wanted = service["spec"]["selector"].as_object();
            let label = |key: &str| pod["metadata"]["labels"].get(key);
            wanted.is_some_and(|wanted| {
                !wanted.is_empty() && wanted.iter().all(|(key, value)| label(key) == Some(value))
            })
        };
        let services = self.others("Service").into_iter().filter(selects);
        services
            .map(|service| text(service, "/metadata/name").to_owned())
            .collect()
    }
}

/// For each port of a pod, who may reach it: `80/TCP`, and the pods that may.
pub fn reachable_from(
    client: &mut Client,
    pod: &Value,
) -> Result<Vec<(String, Vec<String>)>, VerbError> {
    let name = |pod: &Value| {
        format!(
            "{}/{}",
            text(pod, "/metadata/namespace"),
            text(pod, "/metadata/name")
        )
    };
    let own = name(pod);
    let containers = items(pod, "/spec/containers").iter();
    let ports: Vec<&Value> = containers
        .flat_map(|container| items(container, "/ports"))
        .collect();
    if ports.is_empty() || text(pod, "/status/podIP").is_empty() {
        return Ok(Vec::new());
    }
    let params = GetParams {
        resource: "pods".into(),
        all_namespaces: true,
        ..GetParams::default()
    };
    let reply: GetReply = client.call("get", params)?;
    let alive = |pod: &&Value| !text(pod, "/status/podIP").is_empty();
    let senders: Vec<String> = reply
        .items
        .iter()
        .filter(alive)
        .map(name)
        .filter(|sender| *sender != own)
        .collect();
    let mut found = Vec::new();
    for port in ports {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        let mut allowed = Vec::new();
        for sender in senders.iter().take(SENDERS) {
            let params = TraceParams {
                from: sender.clone(),
                to: own.clone(),
                port: Some(port["containerPort"].to_string()),
                protocol: Some(protocol.to_owned()),
                namespace: None,
            };
            // A sender that went meanwhile reaches nobody.
            let told: Result<Explained, _> = client.call("trace", params);
            if told.is_ok_and(|told| told.json["verdict"] == "allow") {
                allowed.push(sender.clone());
            }
        }
        let asked = senders.len().min(SENDERS);
        let mut lines = match allowed.len() {
            0 => vec![format!("<none> of {asked} pods")],
            all if all == asked && asked > 1 => vec![format!("all other pods ({asked})")],
            _ => allowed,
        };
        if senders.len() > SENDERS {
            lines.push(format!(
                "({} pods more were not asked)",
                senders.len() - SENDERS
            ));
        }
        found.push((format!("{}/{protocol}", port["containerPort"]), lines));
    }
    Ok(found)
}

/// `Events:` at the end of a page.
pub fn events(
    page: &mut Page,
    client: &mut Client,
    object: &Value,
    now: i64,
) -> Result<(), VerbError> {
    let namespace = match text(object, "/metadata/namespace") {
        "" => "default",
        namespace => namespace,
    };
    let params = GetParams {
        resource: "events".into(),
        namespace: Some(namespace.to_owned()),
        ..GetParams::default()
    };
    let reply: GetReply = client.call("get", params)?;
    let about = |event: &&Value| {
        let of = &event["involvedObject"];
        let uid = text(of, "/uid");
        of["kind"] == object["kind"]
            && of["name"] == object["metadata"]["name"]
            && (uid.is_empty() || uid == text(object, "/metadata/uid"))
    };
    let mut events: Vec<&Value> = reply.items.iter().filter(about).collect();
    events.sort_by_key(|event| last_seen(event));
    event_lines(page, &events, now);
    Ok(())
}

fn event_lines(page: &mut Page, events: &[&Value], now: i64) {
    if events.is_empty() {
        return page.field(0, "Events", "<none>");
    }
    page.line(0, "Events:");
    page.line(1, "Type\tReason\tAge\tFrom\tMessage");
    page.line(1, "----\t------\t----\t----\t-------");
    let ago = |stamp: &str| match seconds_since_1970(stamp) {
        Some(then) => human_duration(now - then),
        None => "<unknown>".to_owned(),
    };
    for event in events {
        let or = |first: &'_ str, second: &'_ str| match text(event, first) {
            "" => text(event, second).to_owned(),
            found => found.to_owned(),
        };
        let first = ago(&or("/eventTime", "/firstTimestamp"));
        let age = match (event["series"]["count"].as_i64(), event["count"].as_i64()) {
            (Some(count), _) => {
                format!(
                    "{} (x{count} over {first})",
                    ago(text(event, "/series/lastObservedTime"))
                )
            }
            (None, Some(count)) if count > 1 => {
                format!(
                    "{} (x{count} over {first})",
                    ago(text(event, "/lastTimestamp"))
                )
            }
            _ => first,
        };
        let from = or("/source/component", "/reportingComponent");
        let mut message = text(event, "/message").trim().to_owned();
        let part = text(event, "/involvedObject/fieldPath");
        if !part.is_empty() {
            message = format!("{part}: {message}");
        }
        page.line(
            1,
            format!(
                "{}\t{}\t{age}\t{from}\t{message}",
                text(event, "/type"),
                text(event, "/reason")
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn events_stand_in_columns() {
        let event = json!({"type": "Warning", "reason": "Unhealthy", "count": 3,
            "message": "Readiness probe failed\n", "firstTimestamp": "1970-01-01T00:00:00Z",
            "lastTimestamp": "1970-01-01T00:01:35Z", "source": {"component": "kubelet"}});
        let mut page = Page::default();
        event_lines(&mut page, &[&event], 100);
        assert_eq!(
            page.render(),
            "\
Events:
  Type     Reason     Age                 From     Message
  ----     ------     ----                ----     -------
  Warning  Unhealthy  5s (x3 over 100s)   kubelet  Readiness probe failed
"
            .replace("100s)   ", "100s)  ")
            .replace("Age                 ", "Age                ")
            .replace("----                ", "----               ")
        );
    }

    #[test]
    fn a_deployments_sets_are_told_apart() {
        let set = |name: &str, image: &str, replicas: i64| {
            json!({"kind": "ReplicaSet", "metadata": {"name": name,
                "ownerReferences": [{"uid": "u"}]}, "spec": {"replicas": replicas,
                "template": {"spec": {"containers": [{"image": image}]}}}})
        };
        let world = World {
            objects: vec![set("old", "a", 1), set("gone", "b", 0), set("new", "c", 2)],
        };
        let deployment = json!({"metadata": {"uid": "u"},
            "spec": {"template": {"spec": {"containers": [{"image": "c"}]}}}});
        let (new, old) = world.replica_sets(&deployment);
        assert_eq!((new.len(), old.len()), (1, 1));
        assert_eq!(text(new[0], "/metadata/name"), "new");
        assert_eq!(text(old[0], "/metadata/name"), "old");
    }
}
