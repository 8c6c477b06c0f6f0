//! What a page tells of other objects: the pods of a controller or a node, a pod's Services, who
//! reaches it, and events.

use serde_json::Value;

use crate::cli::columns::{last_seen, seconds_since_1970};
use crate::cli::session::VerbError;
use crate::cli::table::human_duration;
use crate::client::Client;
use crate::protocol::{Explained, GetParams, GetReply, TraceParams};

use super::page::{Page, items, text};
use super::service::Reachable;

/// The label that names an EndpointSlice's Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

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
            "Node" | "PersistentVolumeClaim" => &["pods"],
            "Namespace" => &["resourcequotas", "limitranges"],
            "Pod" => &["services"],
            "Service" => &["endpointslices"],
            "Ingress" => &["services", "endpointslices"],
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

    /// The EndpointSlices of a Service.
    pub fn slices_of(&self, service: &str) -> Vec<&Value> {
        let mut slices = self.others("EndpointSlice");
        slices.retain(|slice| slice["metadata"]["labels"][SERVICE_NAME] == service);
        slices
    }

    /// The names of the pods that mount a claim, in order.
    pub fn pods_with_claim(&self, claim: &str) -> Vec<String> {
        let mounts = |volume: &Value| volume["persistentVolumeClaim"]["claimName"] == claim;
        let pods = self.others("Pod").into_iter();
        let mut names: Vec<String> = pods
            .filter(|pod| items(pod, "/spec/volumes").iter().any(mounts))
            .map(|pod| text(pod, "/metadata/name").to_owned())
            .collect();
        names.sort_unstable();
        names
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

/// `NS/NAME`.
fn whole_name(object: &Value) -> String {
    format!(
        "{}/{}",
        text(object, "/metadata/namespace"),
        text(object, "/metadata/name")
    )
}

/// For each port of a pod, who may reach it.
pub fn reachable_from(client: &mut Client, pod: &Value) -> Result<Reachable, VerbError> {
    let containers = items(pod, "/spec/containers").iter();
    let ports: Vec<(&Value, &str)> = containers
        .flat_map(|container| items(container, "/ports"))
        .map(|port| {
            let protocol = port["protocol"].as_str().unwrap_or("TCP");
            (&port["containerPort"], protocol)
        })
        .collect();
    if text(pod, "/status/podIP").is_empty() {
        return Ok(Vec::new());
    }
    let own = whole_name(pod);
    reachable(client, &format!("pod/{own}"), Some(&own), &ports)
}

/// For each port of a Service, who may reach a backend by it.
pub fn service_reachable_from(
    client: &mut Client,
    service: &Value,
) -> Result<Reachable, VerbError> {
    if service["spec"]["type"] == "ExternalName" {
        return Ok(Vec::new());
    }
    let ports: Vec<(&Value, &str)> = items(service, "/spec/ports")
        .iter()
        .map(|port| {
            let protocol = port["protocol"].as_str().unwrap_or("TCP");
            (&port["port"], protocol)
        })
        .collect();
    let to = format!("service/{}", whole_name(service));
    reachable(client, &to, None, &ports)
}

/// For each port, the pods other than `own` that reach `to`.
fn reachable(
    client: &mut Client,
    to: &str,
    own: Option<&str>,
    ports: &[(&Value, &str)],
) -> Result<Reachable, VerbError> {
    if ports.is_empty() {
        return Ok(Vec::new());
    }
    let params = GetParams {
        resource: "pods".into(),
        all_namespaces: true,
        ..GetParams::default()
    };
    let reply: GetReply = client.call("get", params)?;
    let alive = |pod: &&Value| {
        let ended = ["Succeeded", "Failed"].contains(&text(pod, "/status/phase"));
        !ended && !text(pod, "/status/podIP").is_empty()
    };
    let pods = reply.items.iter().filter(alive).map(whole_name);
    let senders: Vec<String> = pods
        .filter(|sender| own.is_none_or(|own| own != sender))
        .collect();
    let mut found = Vec::new();
    for (port, protocol) in ports {
        let mut allowed = Vec::new();
        let mut unanswered = 0;
        for sender in senders.iter().take(SENDERS) {
            let params = TraceParams {
                from: format!("pod/{sender}"),
                to: to.to_owned(),
                port: Some(port.to_string()),
                protocol: Some((*protocol).to_owned()),
                namespace: None,
            };
            // A sender that went meanwhile reaches nobody.
            let Ok(Explained { json, .. }) = client.call("trace", params) else {
                continue;
            };
            let backends = json["backends"].as_array();
            if json["service"].is_string() && backends.is_some_and(Vec::is_empty) {
                unanswered += 1;
            }
            match json["verdict"].as_str() {
                Some("allow") => allowed.push(sender.clone()),
                Some("some") => allowed.push(format!("{sender} (some backends)")),
                _ => {}
            }
        }
        let lines = match unanswered > 0 && unanswered == senders.len().min(SENDERS) {
            true => vec!["<none>: no endpoint is ready".to_owned()],
            false => senders_lines(allowed, senders.len(), own.is_some()),
        };
        found.push((format!("{port}/{protocol}"), lines));
    }
    Ok(found)
}

/// Who may, of so many pods.
fn senders_lines(allowed: Vec<String>, all: usize, others: bool) -> Vec<String> {
    let asked = all.min(SENDERS);
    let other = if others { "other " } else { "" };
    let every = allowed.len() == asked && !allowed.iter().any(|line| line.ends_with(')'));
    let mut lines = match allowed.len() {
        0 => vec![format!("<none> of {asked} pods")],
        _ if every && asked > 1 => vec![format!("all {other}pods ({asked})")],
        _ => allowed,
    };
    if all > SENDERS {
        lines.push(format!("({} pods more were not asked)", all - SENDERS));
    }
    lines
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
