//! The columns of workloads, events, and of kinds that are only stored.

use serde_json::Value;

use super::{Columns, count, items, labels, or, seconds_since_1970, selector, template, text};
use crate::cli::table::human_duration;

/// The columns of a kind, if it has some of its own here.
pub fn columns(kind: &str) -> Option<Columns> {
    const MADE: &[&str] = &["CONTAINERS", "IMAGES", "SELECTOR"];
    let (narrow, wide): (&'static [_], &'static [_]) = match kind {
        "StatefulSet" => (&["NAME", "READY", "AGE"], &["CONTAINERS", "IMAGES"]),
        "DaemonSet" => (
            &[
                "NAME",
                "DESIRED",
                "CURRENT",
                "READY",
                "UP-TO-DATE",
                "AVAILABLE",
                "NODE SELECTOR",
                "AGE",
            ],
            MADE,
        ),
        "Job" => (&["NAME", "STATUS", "COMPLETIONS", "DURATION", "AGE"], MADE),
        "CronJob" => (
            &[
                "NAME",
                "SCHEDULE",
                "TIMEZONE",
                "SUSPEND",
                "ACTIVE",
                "LAST SCHEDULE",
                "AGE",
            ],
            MADE,
        ),
        "Event" => (&["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"], &[]),
        "Endpoints" => (&["NAME", "ENDPOINTS", "AGE"], &[]),
        "PersistentVolume" => (
            &[
                "NAME",
                "CAPACITY",
                "ACCESS MODES",
                "RECLAIM POLICY",
                "STATUS",
                "CLAIM",
                "STORAGECLASS",
                "VOLUMEATTRIBUTESCLASS",
                "REASON",
                "AGE",
            ],
            &["VOLUMEMODE"],
        ),
        "PersistentVolumeClaim" => (
            &[
                "NAME",
                "STATUS",
                "VOLUME",
                "CAPACITY",
                "ACCESS MODES",
                "STORAGECLASS",
                "VOLUMEATTRIBUTESCLASS",
                "AGE",
            ],
            &["VOLUMEMODE"],
        ),
        "Ingress" => (&["NAME", "CLASS", "HOSTS", "ADDRESS", "PORTS", "AGE"], &[]),
        "IngressClass" => (&["NAME", "CONTROLLER", "PARAMETERS", "AGE"], &[]),
        "HorizontalPodAutoscaler" => (
            &[
                "NAME",
                "REFERENCE",
                "TARGETS",
                "MINPODS",
                "MAXPODS",
                "REPLICAS",
                "AGE",
            ],
            &[],
        ),
        "PodDisruptionBudget" => (
            &[
                "NAME",
                "MIN AVAILABLE",
                "MAX UNAVAILABLE",
                "ALLOWED DISRUPTIONS",
                "AGE",
            ],
            &[],
        ),
        "RoleBinding" | "ClusterRoleBinding" => (
            &["NAME", "ROLE", "AGE"],
            &["USERS", "GROUPS", "SERVICEACCOUNTS"],
        ),
        "Role" | "ClusterRole" | "CustomResourceDefinition" | "LimitRange" => {
            (&["NAME", "CREATED AT"], &[])
        }
        "Lease" => (&["NAME", "HOLDER", "AGE"], &[]),
        "PriorityClass" => (
            &["NAME", "VALUE", "GLOBAL-DEFAULT", "AGE", "PREEMPTIONPOLICY"],
            &[],
        ),
        "StorageClass" => (
            &[
                "NAME",
                "PROVISIONER",
                "RECLAIMPOLICY",
                "VOLUMEBINDINGMODE",
                "ALLOWVOLUMEEXPANSION",
                "AGE",
            ],
            &[],
        ),
        _ => return None,
    };
    Some(Columns { narrow, wide })
}

/// An Event's columns with `-o wide`, which puts some in between.
pub const WIDE_EVENT: &[&str] = &[
    "LAST SEEN",
    "TYPE",
    "REASON",
    "OBJECT",
    "SUBOBJECT",
    "SOURCE",
    "MESSAGE",
    "FIRST SEEN",
    "COUNT",
    "NAME",
];

/// The cells of an object of such a kind.
pub fn cells(kind: &str, object: &Value, name: String, age: String, now: i64) -> Vec<String> {
    let number = |path: &str| object.pointer(path).and_then(Value::as_i64).unwrap_or(0);
    let at = |path: &str| or(text(object, path), "<none>");
    let made = || {
        let (containers, images) = template(object);
        [
            containers,
            images,
            selector(object.pointer("/spec/selector")),
        ]
    };
    match kind {
        "StatefulSet" => {
            let desired = object.pointer("/spec/replicas").and_then(Value::as_i64);
            let ready = number("/status/readyReplicas");
            let [containers, images, _] = made();
            vec![
                name,
                format!("{ready}/{}", desired.unwrap_or(1)),
                age,
                containers,
                images,
            ]
        }
        "DaemonSet" => {
            let counts = [
                "desiredNumberScheduled",
                "currentNumberScheduled",
                "numberReady",
                "updatedNumberScheduled",
                "numberAvailable",
            ];
            let counts = counts.map(|field| number(&format!("/status/{field}")).to_string());
            let nodes = labels(object.pointer("/spec/template/spec/nodeSelector"));
            [vec![name], counts.into(), vec![nodes, age], made().into()].concat()
        }
        "Job" => [job(object, name, age, now), made().into()].concat(),
        "CronJob" => {
            let last = text(object, "/status/lastScheduleTime");
            let last = seconds_since_1970(&last).map(|then| human_duration(now - then));
            let suspended = object.pointer("/spec/suspend") == Some(&Value::Bool(true));
            let inside = object.pointer("/spec/jobTemplate").unwrap_or(&Value::Null);
            let (containers, images) = template(inside);
            vec![
                name,
                text(object, "/spec/schedule"),
                at("/spec/timeZone"),
                if suspended { "True" } else { "False" }.to_owned(),
                count(object, "/status/active").to_string(),
                last.unwrap_or_else(|| "<none>".to_owned()),
                age,
                containers,
                images,
                selector(inside.pointer("/spec/selector")),
            ]
        }
        "Endpoints" => vec![name, endpoints(object), age],
        "PersistentVolume" => {
            let claim = object
                .pointer("/spec/claimRef")
                .filter(|claim| !claim.is_null());
            let claim = claim.map_or(String::new(), |claim| {
                format!("{}/{}", text(claim, "/namespace"), text(claim, "/name"))
            });
            vec![
                name,
                text(object, "/spec/capacity/storage"),
                access_modes(object),
                or(
                    text(object, "/spec/persistentVolumeReclaimPolicy"),
                    "Retain",
                ),
                or(text(object, "/status/phase"), "Available"),
                claim,
                text(object, "/spec/storageClassName"),
                or(text(object, "/spec/volumeAttributesClassName"), "<unset>"),
                text(object, "/status/reason"),
                age,
                or(text(object, "/spec/volumeMode"), "Filesystem"),
            ]
        }
        "PersistentVolumeClaim" => vec![
            name,
            or(text(object, "/status/phase"), "Pending"),
            text(object, "/spec/volumeName"),
            text(object, "/status/capacity/storage"),
            match text(object, "/spec/volumeName").is_empty() {
                true => String::new(),
                false => access_modes(object),
            },
            text(object, "/spec/storageClassName"),
            or(text(object, "/spec/volumeAttributesClassName"), "<unset>"),
            age,
            or(text(object, "/spec/volumeMode"), "Filesystem"),
        ],
        "Ingress" => {
            let hosts: Vec<String> = items(object, "/spec/rules")
                .iter()
                .map(|rule| text(rule, "/host"))
                .filter(|host| !host.is_empty())
                .collect();
            let tls = count(object, "/spec/tls") > 0;
            vec![
                name,
                at("/spec/ingressClassName"),
                or(hosts.join(","), "*"),
                text(object, "/status/loadBalancer/ingress/0/ip"),
                if tls { "80, 443" } else { "80" }.to_owned(),
                age,
            ]
        }
        "IngressClass" => {
            let parameters = object.pointer("/spec/parameters").filter(|p| !p.is_null());
            let parameters = parameters.map_or("<none>".to_owned(), |parameters| {
                let group = text(parameters, "/apiGroup");
                let dot = if group.is_empty() { "" } else { "." };
                let (kind, name) = (text(parameters, "/kind"), text(parameters, "/name"));
                format!("{kind}{dot}{group}/{name}")
            });
            vec![name, text(object, "/spec/controller"), parameters, age]
        }
        "HorizontalPodAutoscaler" => vec![
            name,
            format!(
                "{}/{}",
                text(object, "/spec/scaleTargetRef/kind"),
                text(object, "/spec/scaleTargetRef/name")
            ),
            "<unknown>".to_owned(),
            scalar(object, "/spec/minReplicas", "<unset>"),
            number("/spec/maxReplicas").to_string(),
            number("/status/currentReplicas").to_string(),
            age,
        ],
        "PodDisruptionBudget" => vec![
            name,
            scalar(object, "/spec/minAvailable", "N/A"),
            scalar(object, "/spec/maxUnavailable", "N/A"),
            number("/status/disruptionsAllowed").to_string(),
            age,
        ],
        "RoleBinding" | "ClusterRoleBinding" => {
            let role = format!(
                "{}/{}",
                text(object, "/roleRef/kind"),
                text(object, "/roleRef/name")
            );
            vec![
                name,
                role,
                age,
                subjects(object, "User"),
                subjects(object, "Group"),
                subjects(object, "ServiceAccount"),
            ]
        }
        "Role" | "ClusterRole" | "CustomResourceDefinition" | "LimitRange" => {
            vec![name, text(object, "/metadata/creationTimestamp")]
        }
        "Lease" => vec![name, text(object, "/spec/holderIdentity"), age],
        "PriorityClass" => {
            let is_default = object.get("globalDefault") == Some(&Value::Bool(true));
            vec![
                name,
                object["value"].as_i64().unwrap_or(0).to_string(),
                is_default.to_string(),
                age,
                or(text(object, "/preemptionPolicy"), "PreemptLowerPriority"),
            ]
        }
        "StorageClass" => {
            let grows = object.get("allowVolumeExpansion") == Some(&Value::Bool(true));
            vec![
                name,
                text(object, "/provisioner"),
                or(text(object, "/reclaimPolicy"), "Delete"),
                or(text(object, "/volumeBindingMode"), "Immediate"),
                grows.to_string(),
                age,
            ]
        }
        _ => vec![name, age],
    }
}

fn scalar(object: &Value, path: &str, fallback: &str) -> String {
    match object.pointer(path) {
        None | Some(Value::Null) => fallback.to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn subjects(object: &Value, kind: &str) -> String {
    let of_kind = items(object, "/subjects")
        .iter()
        .filter(|one| one["kind"] == kind);
    let named = of_kind.map(|one| match kind {
        "ServiceAccount" => format!("{}/{}", text(one, "/namespace"), text(one, "/name")),
        _ => text(one, "/name"),
    });
    named.collect::<Vec<_>>().join(", ")
}

/// `RWO,ROX`.
fn access_modes(object: &Value) -> String {
    let short = |mode: &Value| match mode.as_str()? {
        "ReadWriteOnce" => Some("RWO"),
        "ReadOnlyMany" => Some("ROX"),
        "ReadWriteMany" => Some("RWX"),
        "ReadWriteOncePod" => Some("RWOP"),
        _ => None,
    };
    let modes: Vec<&str> = items(object, "/spec/accessModes")
        .iter()
        .filter_map(short)
        .collect();
    modes.join(",")
}

fn endpoints(object: &Value) -> String {
    let mut found = Vec::new();
    for subset in items(object, "/subsets") {
        for address in items(subset, "/addresses") {
            let address = text(address, "/ip");
            match items(subset, "/ports") {
                [] => found.push(address),
                ports => found.extend(ports.iter().map(|port| {
                    let brackets = address.contains(':');
                    let (open, close) = if brackets { ("[", "]") } else { ("", "") };
                    format!("{open}{address}{close}:{}", port["port"])
                })),
            }
        }
    }
    match found.len() {
        0 => "<none>".to_owned(),
        1..=3 => found.join(","),
        more => format!("{} + {} more...", found[..3].join(","), more - 3),
    }
}

fn job(object: &Value, name: String, age: String, now: i64) -> Vec<String> {
    let number = |path: &str| object.pointer(path).and_then(Value::as_i64);
    let succeeded = number("/status/succeeded").unwrap_or(0);
    let completions = match (number("/spec/completions"), number("/spec/parallelism")) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, Some(parallel)) if parallel > 1 => format!("{succeeded}/1 of {parallel}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let holds = |kind: &str| {
        items(object, "/status/conditions")
            .iter()
            .any(|condition| condition["type"] == kind && condition["status"] == "True")
    };
    let status = if holds("Complete") {
        "Complete"
    } else if holds("Failed") {
        "Failed"
    } else if object.pointer("/metadata/deletionTimestamp").is_some() {
        "Terminating"
    } else if holds("Suspended") {
        "Suspended"
    } else {
        "Running"
    };
    let moment = |path: &str| seconds_since_1970(&text(object, path));
    let duration = match (
        moment("/status/startTime"),
        moment("/status/completionTime"),
    ) {
        (None, _) => String::new(),
        (Some(start), None) => human_duration(now - start),
        (Some(start), Some(end)) => human_duration(end - start),
    };
    vec![name, status.to_owned(), completions, duration, age]
}

/// The cells of an event.
pub fn event(object: &Value, name: String, now: i64, wide: bool) -> Vec<String> {
    let ago = |stamp: &str| match seconds_since_1970(stamp) {
        Some(then) => human_duration(now - then),
        None => "<unknown>".to_owned(),
    };
    let first = or(text(object, "/firstTimestamp"), &text(object, "/eventTime"));
    let last = or(text(object, "/lastTimestamp"), &first);
    let repeated = object["count"].as_i64().unwrap_or(1).max(1);
    let series = object["series"]["count"].as_i64();
    let seen = match (repeated, series) {
        (_, Some(count)) => {
            let observed = text(object, "/series/lastObservedTime");
            format!("{} (x{count} over {})", ago(&observed), ago(&first))
        }
        (1, None) => ago(&last),
        (count, None) => format!("{} (x{count} over {})", ago(&last), ago(&first)),
    };
    let object_of = object.get("involvedObject").unwrap_or(&Value::Null);
    let target = format!(
        "{}/{}",
        text(object_of, "/kind").to_lowercase(),
        text(object_of, "/name")
    );
    let (kind, reason) = (text(object, "/type"), text(object, "/reason"));
    let message = text(object, "/message").trim().to_owned();
    if !wide {
        return vec![seen, kind, reason, target, message];
    }
    let source: Vec<String> = ["/source/component", "/source/host"]
        .map(|path| text(object, path))
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect();
    let source = or(source.join(", "), &text(object, "/reportingComponent"));
    vec![
        seen,
        kind,
        reason,
        target,
        text(object_of, "/fieldPath"),
        source,
        message,
        ago(&first),
        series.unwrap_or(repeated).to_string(),
        name,
    ]
}

/// When an event was last seen, for sorting.
pub fn last_seen(event: &Value) -> String {
    let paths = [
        "/series/lastObservedTime",
        "/lastTimestamp",
        "/eventTime",
        "/firstTimestamp",
        "/metadata/creationTimestamp",
    ];
    let stamps = paths.map(|path| text(event, path));
    stamps
        .into_iter()
        .find(|stamp| !stamp.is_empty())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::{Layout, table};
    use super::*;
    use serde_json::json;

    fn shown(kind: &str, object: Value, wide: bool) -> Vec<String> {
        let layout = Layout {
            wide,
            ..Layout::default()
        };
        let text = table(kind, kind, &[object], layout, 100).render(true);
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_job_says_how_far_it_is() {
        let job = json!({"metadata": {"name": "j", "creationTimestamp": "1970-01-01T00:00:00Z"},
            "spec": {"completions": 3}, "status": {"succeeded": 1, "startTime": "1970-01-01T00:00:10Z"}});
        assert_eq!(
            shown("Job", job, false),
            [
                "NAME   STATUS    COMPLETIONS   DURATION   AGE",
                "j      Running   1/3           90s        100s"
            ]
        );
    }

    #[test]
    fn events_say_when_and_how_often() {
        let event = json!({"metadata": {"name": "web.1"}, "type": "Warning", "reason": "Unhealthy",
            "message": "probe failed\n", "count": 3, "firstTimestamp": "1970-01-01T00:00:00Z",
            "lastTimestamp": "1970-01-01T00:01:35Z", "source": {"component": "kubelet", "host": "n1"},
            "involvedObject": {"kind": "Pod", "name": "web", "fieldPath": "spec.containers{c}"}});
        assert_eq!(
            shown("Event", event.clone(), false),
            [
                "LAST SEEN           TYPE      REASON      OBJECT    MESSAGE",
                "5s (x3 over 100s)   Warning   Unhealthy   pod/web   probe failed"
            ]
        );
        let wide = shown("Event", event, true);
        assert!(
            wide[0].contains("SUBOBJECT") && wide[1].contains("kubelet, n1"),
            "{wide:?}"
        );
    }

    #[test]
    fn every_kind_has_as_many_cells_as_columns() {
        for kind in crate::objects::kinds::KINDS {
            for wide in [false, true] {
                let lines = shown(kind.kind, json!({"metadata": {"name": "x"}}), wide);
                assert_eq!(lines.len(), 2, "{}", kind.kind);
            }
            if let Some(columns) = columns(kind.kind).filter(|_| kind.kind != "Event") {
                let object = json!({"metadata": {"name": "x"}});
                let cells = cells(kind.kind, &object, "x".into(), "1s".into(), 0);
                assert_eq!(
                    cells.len(),
                    columns.narrow.len() + columns.wide.len(),
                    "{}",
                    kind.kind
                );
            }
        }
    }
}
