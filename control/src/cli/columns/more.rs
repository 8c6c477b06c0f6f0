//! The columns of workloads and of kinds that are only stored.

use serde_json::Value;

use super::{
    Columns, admission, count, is_default_class, items, labels, or, seconds_since_1970, selector,
    storage, template, text,
};
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
        "ResourceQuota" => (&["NAME", "REQUEST", "LIMIT", "AGE"], &[]),
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
        "ValidatingAdmissionPolicy" => (&["NAME", "VALIDATIONS", "PARAMKIND", "AGE"], &[]),
        "ValidatingAdmissionPolicyBinding" => (&["NAME", "POLICYNAME", "PARAMREF", "AGE"], &[]),
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
        "PersistentVolume" => storage::volume(object, name, age),
        "PersistentVolumeClaim" => storage::claim(object, name, age),
        "ResourceQuota" => {
            let (limits, requests): (Vec<_>, Vec<_>) = quota(object)
                .into_iter()
                .partition(|used| used.starts_with("limits."));
            vec![name, requests.join(", "), limits.join(", "), age]
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
        "ValidatingAdmissionPolicy" => admission::policy(object, name, age),
        "ValidatingAdmissionPolicyBinding" => admission::binding(object, name, age),
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
            let default = if is_default_class(object) {
                " (default)"
            } else {
                ""
            };
            vec![
                format!("{name}{default}"),
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

/// `pods: 1/4` of a ResourceQuota, sorted by name.
fn quota(object: &Value) -> Vec<String> {
    let hard = object.pointer("/status/hard").and_then(Value::as_object);
    let mut names: Vec<(&String, &Value)> = hard.into_iter().flatten().collect();
    names.sort_unstable_by_key(|(name, _)| *name);
    let used = |name: &String| object["status"]["used"][name].as_str().unwrap_or("0");
    names
        .iter()
        .map(|(name, hard)| format!("{name}: {}/{}", used(name), hard.as_str().unwrap_or("0")))
        .collect()
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
    } else if holds("FailureTarget") {
        "FailureTarget"
    } else if holds("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
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
    fn every_kind_has_as_many_cells_as_columns() {
        for kind in crate::objects::kinds::KINDS {
            for wide in [false, true] {
                let lines = shown(kind.kind, json!({"metadata": {"name": "x"}}), wide);
                assert_eq!(lines.len(), 2, "{}", kind.kind);
            }
            if let Some(columns) = columns(kind.kind).filter(|_| kind.kind != "Event") {
                let object = json!({"metadata": {"name": "x"}});
                let cells = super::super::cells(kind.kind, &object, 0, false);
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
