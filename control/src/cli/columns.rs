//! The columns that `get` prints for each kind, as kubectl 1.34 and the API server's table
//! printers have them (kubernetes `pkg/printers/internalversion/printers.go`).

mod admission;
mod defined;
mod events;
mod more;
mod pods;
mod services;
mod storage;

use serde_json::Value;

pub use events::{last_seen, seen_interval};
pub use services::{address_and_port, first_of, load_balancer};
pub use storage::{access_modes, is_default_class, storage_class};

use super::table::{Table, human_duration};
use crate::protocol::GetReply;

/// How `get` wants its table.
#[derive(Clone, Copy, Debug, Default)]
pub struct Layout {
    /// `-o wide`.
    pub wide: bool,
    /// `-A`: a first column with the namespace.
    pub namespaces: bool,
    /// `--show-labels`: a last column with the labels.
    pub labels: bool,
    /// Several kinds are printed: names carry the kind, as `pod/x`.
    pub prefixed: bool,
}

/// A kind's columns: the names, then those that only `-o wide` prints.
struct Columns {
    narrow: &'static [&'static str],
    wide: &'static [&'static str],
}

fn columns(kind: &str) -> Columns {
    if let Some(columns) = more::columns(kind) {
        return columns;
    }
    let (narrow, wide): (&'static [_], &'static [_]) = match kind {
        "Pod" => (
            &["NAME", "READY", "STATUS", "RESTARTS", "AGE"],
            &["IP", "NODE", "NOMINATED NODE", "READINESS GATES"],
        ),
        "Namespace" => (&["NAME", "STATUS", "AGE"], &[]),
        "Service" => (
            &[
                "NAME",
                "TYPE",
                "CLUSTER-IP",
                "EXTERNAL-IP",
                "PORT(S)",
                "AGE",
            ],
            &["SELECTOR"],
        ),
        "NetworkPolicy" => (&["NAME", "POD-SELECTOR", "AGE"], &[]),
        // Their definitions' `additionalPrinterColumns`; AWS's has no age.
        "ClusterNetworkPolicy" => (&["NAME", "TIER", "PRIORITY", "AGE"], &[]),
        "AdminNetworkPolicy" => (&["NAME", "PRIORITY", "AGE"], &[]),
        "SecurityGroupPolicy" => (&["NAME", "SECURITY-GROUP-IDS"], &[]),
        "SecurityGroup" => (&["NAME", "INGRESS", "EGRESS", "AGE"], &["DESCRIPTION"]),
        "Deployment" => (
            &["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"],
            &["CONTAINERS", "IMAGES", "SELECTOR"],
        ),
        "ReplicaSet" | "ReplicationController" => (
            &["NAME", "DESIRED", "CURRENT", "READY", "AGE"],
            &["CONTAINERS", "IMAGES", "SELECTOR"],
        ),
        "Node" => (
            &["NAME", "STATUS", "ROLES", "AGE", "VERSION"],
            &[
                "INTERNAL-IP",
                "EXTERNAL-IP",
                "OS-IMAGE",
                "KERNEL-VERSION",
                "CONTAINER-RUNTIME",
            ],
        ),
        "EndpointSlice" => (&["NAME", "ADDRESSTYPE", "PORTS", "ENDPOINTS", "AGE"], &[]),
        "ConfigMap" => (&["NAME", "DATA", "AGE"], &[]),
        "Secret" => (&["NAME", "TYPE", "DATA", "AGE"], &[]),
        "ServiceAccount" => (&["NAME", "SECRETS", "AGE"], &[]),
        _ => (&["NAME", "AGE"], &[]),
    };
    Columns { narrow, wide }
}

/// The table of the objects of a reply, or of some of them, as [`table`].
pub fn table_of(
    reply: &GetReply,
    resource: &str,
    objects: &[Value],
    layout: Layout,
    now: i64,
) -> Table {
    match reply.columns.is_empty() {
        true => table(&reply.kind, resource, objects, layout, now),
        false => defined::table(&reply.columns, resource, objects, layout, now),
    }
}

/// The table of `objects`, all of one `kind`; `resource` is the prefix of names where wanted;
/// `now` is the wall clock in seconds since 1970.
pub fn table(kind: &str, resource: &str, objects: &[Value], layout: Layout, now: i64) -> Table {
    let mut names = columns(kind);
    let is_wide_event = kind == "Event" && layout.wide;
    if is_wide_event {
        names.narrow = events::WIDE;
    }
    let mut header: Vec<&str> = Vec::new();
    if layout.namespaces {
        header.push("NAMESPACE");
    }
    header.extend(names.narrow);
    if layout.wide {
        header.extend(names.wide);
    }
    if layout.labels {
        header.push("LABELS");
    }
    let mut table = Table::new(header);
    for object in objects {
        let mut row = Vec::new();
        if layout.namespaces {
            row.push(text(object, "/metadata/namespace"));
        }
        let mut cells = match kind {
            "Event" => events::event(object, text(object, "/metadata/name"), now, is_wide_event),
            _ => cells(kind, object, now, layout.wide),
        };
        if layout.prefixed && kind != "Event" {
            cells[0] = format!("{resource}/{}", cells[0]);
        }
        let wanted = names.narrow.len() + if layout.wide { names.wide.len() } else { 0 };
        cells.truncate(wanted);
        row.extend(cells);
        if layout.labels {
            row.push(labels(object.pointer("/metadata/labels")));
        }
        table.push(row);
    }
    table
}

/// The cells of one object, those of `-o wide` last.
fn cells(kind: &str, object: &Value, now: i64, wide: bool) -> Vec<String> {
    let name = text(object, "/metadata/name");
    let age = age(object, now);
    match kind {
        "Pod" => pods::pod(object, name, age, now),
        "Namespace" => vec![name, or(text(object, "/status/phase"), "Active"), age],
        "Service" => services::service(object, name, age, wide),
        "NetworkPolicy" => {
            vec![name, selector(object.pointer("/spec/podSelector")), age]
        }
        "ClusterNetworkPolicy" => vec![
            name,
            text(object, "/spec/tier"),
            shown(object, "/spec/priority"),
            age,
        ],
        "AdminNetworkPolicy" => vec![name, shown(object, "/spec/priority"), age],
        "SecurityGroupPolicy" => vec![name, shown(object, "/spec/securityGroups/groupIds")],
        "SecurityGroup" => vec![
            name,
            count(object, "/spec/ingress").to_string(),
            count(object, "/spec/egress").to_string(),
            age,
            text(object, "/spec/description"),
        ],
        "Deployment" => deployment(object, name, age),
        "ReplicaSet" | "ReplicationController" => replicas(object, name, age),
        "Node" => node(object, name, age),
        "EndpointSlice" => services::endpoint_slice(object, name, age),
        "Endpoints" => vec![name, services::endpoints(object), age],
        "Ingress" => services::ingress(object, name, age, wide),
        "ConfigMap" => {
            let keys = count(object, "/data") + count(object, "/binaryData");
            vec![name, keys.to_string(), age]
        }
        "Secret" => vec![
            name,
            or(text(object, "/type"), "Opaque"),
            count(object, "/data").to_string(),
            age,
        ],
        "ServiceAccount" => vec![name, count(object, "/secrets").to_string(), age],
        _ => more::cells(kind, object, name, age, now),
    }
}

fn deployment(object: &Value, name: String, age: String) -> Vec<String> {
    let number = |path| object.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let desired = object
        .pointer("/spec/replicas")
        .and_then(Value::as_u64)
        .unwrap_or(1);
    let (containers, images) = template(object);
    vec![
        name,
        format!("{}/{desired}", number("/status/readyReplicas")),
        number("/status/updatedReplicas").to_string(),
        number("/status/availableReplicas").to_string(),
        age,
        containers,
        images,
        selector(object.pointer("/spec/selector")),
    ]
}

fn replicas(object: &Value, name: String, age: String) -> Vec<String> {
    let number = |path| object.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let desired = object
        .pointer("/spec/replicas")
        .and_then(Value::as_u64)
        .unwrap_or(1);
    let (containers, images) = template(object);
    let chosen = object.pointer("/spec/selector");
    let chosen = match chosen.and_then(|s| s.get("matchLabels").or(s.get("matchExpressions"))) {
        Some(_) => selector(chosen),
        None => or(labels(chosen), "<none>"),
    };
    vec![
        name,
        desired.to_string(),
        number("/status/replicas").to_string(),
        number("/status/readyReplicas").to_string(),
        age,
        containers,
        images,
        chosen,
    ]
}

fn template(object: &Value) -> (String, String) {
    let containers = items(object, "/spec/template/spec/containers");
    let list = |key: &str| {
        containers
            .iter()
            .filter_map(|c| c[key].as_str())
            .collect::<Vec<_>>()
            .join(",")
    };
    (list("name"), list("image"))
}

fn node(object: &Value, name: String, age: String) -> Vec<String> {
    let mut conditions = items(object, "/status/conditions").iter();
    let ready = conditions.rfind(|condition| condition["type"] == "Ready");
    let mut status = match ready {
        Some(condition) if condition["status"] == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if object.pointer("/spec/unschedulable") == Some(&Value::Bool(true)) {
        status.push_str(",SchedulingDisabled");
    }
    let address = |kind: &str| {
        items(object, "/status/addresses")
            .iter()
            .find(|address| address["type"] == kind)
            .and_then(|address| address["address"].as_str())
            .unwrap_or("<none>")
            .to_owned()
    };
    let fact = |key: &str| {
        or(
            text(object, &format!("/status/nodeInfo/{key}")),
            "<unknown>",
        )
    };
    vec![
        name,
        status,
        or(node_roles(object).join(","), "<none>"),
        age,
        text(object, "/status/nodeInfo/kubeletVersion"),
        address("InternalIP"),
        address("ExternalIP"),
        fact("osImage"),
        fact("kernelVersion"),
        fact("containerRuntimeVersion"),
    ]
}

/// The roles that a node's labels give it.
pub fn node_roles(node: &Value) -> Vec<String> {
    let labels = node
        .pointer("/metadata/labels")
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    let mut roles: Vec<String> = labels
        .filter_map(
            |(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
                None if key == "kubernetes.io/role" => value.as_str(),
                role => role,
            },
        )
        .filter(|role| !role.is_empty())
        .map(str::to_owned)
        .collect();
    roles.sort_unstable();
    roles.dedup();
    roles
}

/// The age since the object's creation.
fn age(object: &Value, now: i64) -> String {
    match seconds_since_1970(&text(object, "/metadata/creationTimestamp")) {
        Some(created) => human_duration(now - created),
        None => "<unknown>".to_owned(),
    }
}

/// Seconds since 1970 of a Kubernetes time stamp (`2026-01-02T03:04:05Z`, fractions ignored).
pub fn seconds_since_1970(stamp: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| stamp.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    // Days from the civil calendar: years that begin in March put the leap day last.
    let (year, month) = if month <= 2 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    Some((days - 719_468) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// A label selector in one line, as `kubectl get networkpolicy` prints it.
pub fn selector(selector: Option<&Value>) -> String {
    let mut parts: Vec<String> = Vec::new();
    if let Some(Value::Object(pairs)) = selector.and_then(|s| s.get("matchLabels")) {
        let mut pairs: Vec<_> = pairs.iter().collect();
        pairs.sort_by_key(|(key, _)| key.as_str());
        parts.extend(
            pairs
                .iter()
                .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or(""))),
        );
    }
    for expression in selector
        .map(|s| items(s, "/matchExpressions"))
        .unwrap_or_default()
    {
        let key = expression["key"].as_str().unwrap_or("");
        let mut values: Vec<&str> = items(expression, "/values")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        values.sort_unstable();
        let values = values.join(",");
        parts.push(match expression["operator"].as_str() {
            Some("In") => format!("{key} in ({values})"),
            Some("NotIn") => format!("{key} notin ({values})"),
            Some("DoesNotExist") => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    or(parts.join(","), "<none>")
}

/// Labels in one line, sorted by key.
fn labels(labels: Option<&Value>) -> String {
    let Some(Value::Object(pairs)) = labels else {
        return "<none>".to_owned();
    };
    let mut pairs: Vec<String> = pairs
        .iter()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or("")))
        .collect();
    pairs.sort_unstable();
    or(pairs.join(","), "<none>")
}

fn text(object: &Value, pointer: &str) -> String {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or("")
        .to_owned()
}

/// A value in JSON, as columns of custom resources are printed; empty if it is absent.
fn shown(object: &Value, pointer: &str) -> String {
    match object.pointer(pointer) {
        None | Some(Value::Null) => String::new(),
        Some(value) => value.to_string(),
    }
}

fn items<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

fn count(object: &Value, pointer: &str) -> usize {
    match object.pointer(pointer) {
        Some(Value::Object(map)) => map.len(),
        Some(Value::Array(list)) => list.len(),
        _ => 0,
    }
}

fn or(text: String, fallback: &str) -> String {
    if text.is_empty() {
        fallback.to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn time_stamps_count_from_1970() {
        assert_eq!(seconds_since_1970("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(
            seconds_since_1970("2000-02-29T12:00:01Z"),
            Some(951_825_601)
        );
        assert_eq!(
            seconds_since_1970("2026-11-21T02:00:00.5Z"),
            Some(1_795_226_400)
        );
        assert_eq!(seconds_since_1970("yesterday"), None);
    }

    #[test]
    fn a_pod_as_kubectl_prints_it() {
        let pod = json!({
            "metadata": {"name": "bb1", "namespace": "default",
                "creationTimestamp": "1970-01-01T00:00:00Z", "labels": {"b": "2", "a": "1"}},
            "spec": {"containers": [{"name": "c"}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1",
                "containerStatuses": [{"ready": true, "restartCount": 0, "state": {"running": {}}}]}
        });
        let layout = Layout {
            namespaces: true,
            labels: true,
            ..Layout::default()
        };
        let shown = table("Pod", "pod", &[pod], layout, 90).render(true);
        assert_eq!(
            shown,
            "NAMESPACE   NAME   READY   STATUS    RESTARTS   AGE   LABELS\n\
             default     bb1    1/1     Running   0          90s   a=1,b=2\n"
        );
    }

    #[test]
    fn selectors_in_one_line() {
        let shown = selector(Some(&json!({"matchLabels": {"b": "2", "a": "1"},
            "matchExpressions": [{"key": "k", "operator": "NotIn", "values": ["y", "x"]},
                {"key": "gone", "operator": "DoesNotExist"}, {"key": "here", "operator": "Exists"}]})));
        assert_eq!(shown, "a=1,b=2,k notin (x,y),!gone,here");
        assert_eq!(selector(Some(&json!({}))), "<none>");
    }
}
