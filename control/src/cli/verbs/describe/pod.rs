//! A Pod: what kubectl shows first, its containers, and the policies that are about it.

use serde_json::Value;

use crate::protocol::PodPolicy;

use super::page::{Page, items, text};

/// Writes the page, but for the events at its end.
pub fn describe(page: &mut Page, pod: &Value, policies: &[PodPolicy]) {
    page.field(0, "Name", text(pod, "/metadata/name"));
    page.field(0, "Namespace", text(pod, "/metadata/namespace"));
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
    page.labels(pod);
    page.annotations(pod);
    let status = match pod.pointer("/metadata/deletionTimestamp") {
        Some(_) => "Terminating",
        None => text(pod, "/status/phase"),
    };
    page.field(0, "Status", status);
    page.field(0, "IP", text(pod, "/status/podIP"));
    page.line(0, "IPs:");
    for ip in items(pod, "/status/podIPs") {
        page.field(1, "IP", text(ip, "/ip"));
    }
    let owner = items(pod, "/metadata/ownerReferences").first();
    if let Some(owner) = owner {
        let named = format!("{}/{}", text(owner, "/kind"), text(owner, "/name"));
        page.field(0, "Controlled By", named);
    }
    page.line(0, "Containers:");
    let statuses = items(pod, "/status/containerStatuses");
    for container in items(pod, "/spec/containers") {
        let name = text(container, "/name");
        let status = statuses.iter().find(|status| text(status, "/name") == name);
        page.line(1, format!("{name}:"));
        describe_container(page, container, status);
    }
    page.line(0, "Policies:");
    if policies.is_empty() {
        page.line(1, "<none>");
    }
    for policy in policies {
        page.line(1, policy_line(policy));
    }
}

fn describe_container(page: &mut Page, container: &Value, status: Option<&Value>) {
    page.field(2, "Image", text(container, "/image"));
    let ports: Vec<String> = items(container, "/ports")
        .iter()
        .map(|port| {
            let protocol = port["protocol"].as_str().unwrap_or("TCP");
            let number = &port["containerPort"];
            match port["name"].as_str() {
                Some(name) => format!("{number}/{protocol} ({name})"),
                None => format!("{number}/{protocol}"),
            }
        })
        .collect();
    let label = if ports.len() > 1 { "Ports" } else { "Port" };
    let ports = if ports.is_empty() {
        "<none>".to_owned()
    } else {
        ports.join(", ")
    };
    page.field(2, label, ports);
    let Some(status) = status else {
        return;
    };
    let state = status["state"].as_object();
    let state = state.and_then(|state| state.keys().next());
    let state = match state.map(String::as_str) {
        Some("running") => "Running",
        Some("terminated") => "Terminated",
        _ => "Waiting",
    };
    page.field(2, "State", state);
    let ready = status["ready"].as_bool() == Some(true);
    page.field(2, "Ready", if ready { "True" } else { "False" });
    let restarts = status["restartCount"].as_u64().unwrap_or(0);
    page.field(2, "Restart Count", restarts.to_string());
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
        let mut page = Page::default();
        describe(&mut page, &pod, &policies);
        let text = page.render();
        for line in [
            "Node:             <none>",
            "    Port:           80/TCP (http)",
            "    State:          Running",
            "Policies:",
            "  NetworkPolicy shop/p",
            "  ClusterNetworkPolicy p (audit)",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
        }
    }
}
