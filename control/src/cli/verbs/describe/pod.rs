//! A Pod: what kubectl shows first, its containers, and the policies that are about it.

use serde_json::Value;

use crate::protocol::PodPolicy;

use super::containers::{conditions, containers, tolerations, volumes};
use super::page::{Page, items, rfc1123, text};
use super::service::{Reachable, reachable_lines};

/// What only the daemon knows of a pod.
#[derive(Default)]
pub struct Told {
    /// The policies that are about it.
    pub policies: Vec<PodPolicy>,
    /// The Services that select it.
    pub services: Vec<String>,
    /// By port, who may reach it.
    pub reachable_from: Reachable,
}

/// Writes the page, but for the events at its end.
pub fn describe(page: &mut Page, pod: &Value, told: &Told) {
    page.field(0, "Name", text(pod, "/metadata/name"));
    page.field(0, "Namespace", text(pod, "/metadata/namespace"));
    page.field(
        0,
        "Priority",
        pod["spec"]["priority"].as_i64().unwrap_or(0).to_string(),
    );
    let account = match text(pod, "/spec/serviceAccountName") {
        "" => "default",
        named => named,
    };
    page.field(0, "Service Account", account);
    let node = match text(pod, "/spec/nodeName") {
        "" => "<none>".to_owned(),
        name => format!("{name}/{}", text(pod, "/status/hostIP")),
    };
    page.field(0, "Node", node);
    match text(pod, "/status/startTime") {
        "" => {}
        start => page.field(0, "Start Time", rfc1123(start)),
    }
    page.labels(pod);
    page.annotations(pod);
    let phase = text(pod, "/status/phase");
    let ended = ["Succeeded", "Failed"].contains(&phase);
    match pod.pointer("/metadata/deletionTimestamp") {
        Some(_) if !ended => page.field(0, "Status", "Terminating"),
        _ => page.field(0, "Status", phase),
    }
    for (label, field) in [("Reason", "/status/reason"), ("Message", "/status/message")] {
        match text(pod, field) {
            "" => {}
            found => page.field(0, label, found),
        }
    }
    page.field(0, "IP", text(pod, "/status/podIP"));
    let addresses = items(pod, "/status/podIPs");
    match addresses.is_empty() {
        true => page.field(0, "IPs", "<none>"),
        false => page.line(0, "IPs:"),
    }
    for ip in addresses {
        page.field(1, "IP", text(ip, "/ip"));
    }
    let owner = items(pod, "/metadata/ownerReferences").first();
    if let Some(owner) = owner {
        let named = format!("{}/{}", text(owner, "/kind"), text(owner, "/name"));
        page.field(0, "Controlled By", named);
    }
    let (spec, status) = (&pod["spec"], &pod["status"]);
    for (label, field, statuses) in [
        (
            "Init Containers",
            "/initContainers",
            "/initContainerStatuses",
        ),
        ("Containers", "", "/containerStatuses"),
        (
            "Ephemeral Containers",
            "/ephemeralContainers",
            "/ephemeralContainerStatuses",
        ),
    ] {
        if field.is_empty() || !items(spec, field).is_empty() {
            containers(page, label, spec, items(status, statuses), "");
        }
    }
    conditions(page, pod, &[("Type", "/type"), ("Status", "/status")]);
    volumes(page, spec, "");
    page.field(0, "QoS Class", quality(spec));
    page.pairs(0, "Node-Selectors", spec.get("nodeSelector"));
    tolerations(page, "Tolerations", spec);
    daemons_part(page, told);
}

/// What kubectl does not know.
fn daemons_part(page: &mut Page, told: &Told) {
    page.list(0, "Services", &told.services);
    page.line(0, "Policies:");
    if told.policies.is_empty() {
        page.line(1, "<none>");
    }
    for policy in &told.policies {
        page.line(1, policy_line(policy));
    }
    reachable_lines(page, &told.reachable_from);
}

/// Kubernetes' class of what the containers request.
fn quality(spec: &Value) -> &'static str {
    let containers = [items(spec, "/containers"), items(spec, "/initContainers")].concat();
    let of =
        |container: &Value, kind: &str, what: &str| container["resources"][kind].get(what).cloned();
    let (mut any, mut all) = (false, true);
    for container in &containers {
        for what in ["cpu", "memory"] {
            let (limit, request) = (
                of(container, "limits", what),
                of(container, "requests", what),
            );
            any |= limit.is_some() || request.is_some();
            all &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, all) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

fn policy_line(policy: &PodPolicy) -> String {
    let name = match &policy.namespace {
        Some(namespace) => format!("{namespace}/{}", policy.name),
        None => policy.name.clone(),
    };
    let mode = if policy.audit { " (audit)" } else { "" };
    format!("{} {name}{mode}", policy.kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_names_its_containers_and_its_policies() {
        let pod = json!({
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"containers": [{"name": "c", "image": "nginx",
                "ports": [{"containerPort": 80, "name": "http"}]}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}],
                "containerStatuses": [{"name": "c", "ready": true, "state": {"running": {}}}]}
        });
        let policy = |kind: &str, namespace: Option<&str>, audit| PodPolicy {
            kind: kind.into(),
            namespace: namespace.map(Into::into),
            name: "p".into(),
            audit,
        };
        let policies = [
            policy("NetworkPolicy", Some("shop"), false),
            policy("ClusterNetworkPolicy", None, true),
        ];
        let told = Told {
            policies: policies.into(),
            services: vec!["web".into()],
            reachable_from: vec![("80/TCP".into(), vec!["shop/a".into(), "shop/b".into()])],
        };
        let mut page = Page::default();
        describe(&mut page, &pod, &told);
        let text = page.render();
        for line in [
            "Node:             <none>",
            "    Port:           80/TCP (http)",
            "    Host Port:      0/TCP (http)",
            "    State:          Running",
            "Policies:",
            "  NetworkPolicy shop/p",
            "  ClusterNetworkPolicy p (audit)",
            "Reachable From:",
            "  80/TCP:  shop/a",
            "           shop/b",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
        }
    }
}
