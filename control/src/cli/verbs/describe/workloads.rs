//! What makes pods: Deployments and their like, as `kubectl describe` prints them.

use serde_json::Value;

use crate::cli::columns::{seconds_since_1970, selector};
use crate::cli::table::human_duration;

use super::containers::{conditions, template};
use super::page::{Page, items, rfc1123, text};
use super::world::World;

/// The kinds that are described here.
pub const KINDS: [&str; 7] = [
    "CronJob",
    "DaemonSet",
    "Deployment",
    "Job",
    "ReplicaSet",
    "ReplicationController",
    "StatefulSet",
];

/// Writes the page, but for the events at its end.
pub fn describe(page: &mut Page, kind: &str, object: &Value, world: &World) {
    page.field(0, "Name", text(object, "/metadata/name"));
    page.field(0, "Namespace", text(object, "/metadata/namespace"));
    match kind {
        "Deployment" => deployment(page, object, world),
        "StatefulSet" => stateful_set(page, object, world),
        "DaemonSet" => daemon_set(page, object, world),
        "Job" => job(page, object),
        "CronJob" => cron_job(page, object),
        _ => replicas(page, kind, object, world),
    }
}

fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

fn desired(object: &Value) -> i64 {
    let replicas = object.pointer("/spec/replicas");
    replicas.and_then(Value::as_i64).unwrap_or(1)
}

fn names(page: &mut Page, object: &Value) {
    page.labels(object);
    page.annotations(object);
}

fn chosen(object: &Value) -> String {
    selector(object.pointer("/spec/selector"))
}

const REASONS: &[(&str, &str)] = &[
    ("Type", "/type"),
    ("Status", "/status"),
    ("Reason", "/reason"),
];

fn deployment(page: &mut Page, object: &Value, world: &World) {
    page.field(
        0,
        "CreationTimestamp",
        rfc1123(text(object, "/metadata/creationTimestamp")),
    );
    names(page, object);
    page.field(0, "Selector", chosen(object));
    page.field(
        0,
        "Replicas",
        format!(
            "{} desired | {} updated | {} total | {} available | {} unavailable",
            desired(object),
            number(object, "/status/updatedReplicas"),
            number(object, "/status/replicas"),
            number(object, "/status/availableReplicas"),
            number(object, "/status/unavailableReplicas")
        ),
    );
    let strategy = match text(object, "/spec/strategy/type") {
        "" => "RollingUpdate",
        named => named,
    };
    page.field(0, "StrategyType", strategy);
    page.field(
        0,
        "MinReadySeconds",
        number(object, "/spec/minReadySeconds").to_string(),
    );
    if strategy == "RollingUpdate" {
        let part =
            |field: &str| match object.pointer(&format!("/spec/strategy/rollingUpdate/{field}")) {
                None | Some(Value::Null) => "25%".to_owned(),
                Some(Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
            };
        page.field(
            0,
            "RollingUpdateStrategy",
            format!(
                "{} max unavailable, {} max surge",
                part("maxUnavailable"),
                part("maxSurge")
            ),
        );
    }
    template(page, &object["spec"]["template"]);
    conditions(page, object, REASONS);
    let (new, old) = world.replica_sets(object);
    if !new.is_empty() || !old.is_empty() {
        page.field(0, "OldReplicaSets", sets(&old));
        page.field(0, "NewReplicaSet", sets(&new));
    }
}

fn sets(sets: &[&Value]) -> String {
    let named = sets.iter().map(|set| {
        let made = number(set, "/status/replicas");
        format!(
            "{} ({made}/{} replicas created)",
            text(set, "/metadata/name"),
            desired(set)
        )
    });
    match sets.is_empty() {
        true => "<none>".to_owned(),
        false => named.collect::<Vec<_>>().join(", "),
    }
}

fn controller(page: &mut Page, object: &Value) {
    let owners = items(object, "/metadata/ownerReferences");
    if let Some(owner) = owners
        .iter()
        .find(|owner| owner["controller"].as_bool() == Some(true))
    {
        let named = format!("{}/{}", text(owner, "/kind"), text(owner, "/name"));
        page.field(0, "Controlled By", named);
    }
}

fn replicas(page: &mut Page, kind: &str, object: &Value, world: &World) {
    let selected = match kind {
        "ReplicaSet" => chosen(object),
        _ => super::page::joined(object.pointer("/spec/selector")),
    };
    page.field(0, "Selector", selected);
    names(page, object);
    controller(page, object);
    let current = number(object, "/status/replicas");
    page.field(
        0,
        "Replicas",
        format!("{current} current / {} desired", desired(object)),
    );
    page.field(0, "Pods Status", world.pods_status(object));
    template(page, &object["spec"]["template"]);
    conditions(page, object, REASONS);
}

fn stateful_set(page: &mut Page, object: &Value, world: &World) {
    page.field(
        0,
        "CreationTimestamp",
        rfc1123(text(object, "/metadata/creationTimestamp")),
    );
    page.field(0, "Selector", chosen(object));
    names(page, object);
    match text(object, "/spec/serviceName") {
        "" => {}
        service => page.field(0, "Service Name", service),
    }
    match text(object, "/spec/podManagementPolicy") {
        "" => {}
        policy => page.field(0, "Pod Management Policy", policy),
    }
    let total = number(object, "/status/replicas");
    page.field(
        0,
        "Replicas",
        format!("{} desired | {total} total", desired(object)),
    );
    let strategy = match text(object, "/spec/updateStrategy/type") {
        "" => "RollingUpdate",
        named => named,
    };
    page.field(0, "Update Strategy", strategy);
    if let Some(partition) = object.pointer("/spec/updateStrategy/rollingUpdate/partition") {
        page.field(1, "Partition", partition.to_string());
    }
    page.field(0, "Pods Status", world.pods_status(object));
    template(page, &object["spec"]["template"]);
    let claims = items(object, "/spec/volumeClaimTemplates");
    if claims.is_empty() {
        return page.field(0, "Volume Claims", "<none>");
    }
    page.line(0, "Volume Claims:");
    for claim in claims {
        page.field(1, "Name", text(claim, "/metadata/name"));
        let class = match text(claim, "/spec/storageClassName") {
            "" => "<unset>",
            class => class,
        };
        page.field(1, "StorageClass", class);
        page.pairs(0, "  Labels", claim.pointer("/metadata/labels"));
        page.annotations_of(0, "  Annotations", claim);
        let storage = text(claim, "/spec/resources/requests/storage");
        page.field(
            1,
            "Capacity",
            if storage.is_empty() {
                "<default>"
            } else {
                storage
            },
        );
        let modes: Vec<&str> = items(claim, "/spec/accessModes")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        page.field(1, "Access Modes", format!("[{}]", modes.join(" ")));
    }
}

fn daemon_set(page: &mut Page, object: &Value, world: &World) {
    page.field(0, "Selector", chosen(object));
    let nodes = super::page::joined(object.pointer("/spec/template/spec/nodeSelector"));
    page.field(0, "Node-Selector", nodes);
    names(page, object);
    for (label, field) in [
        (
            "Desired Number of Nodes Scheduled",
            "desiredNumberScheduled",
        ),
        (
            "Current Number of Nodes Scheduled",
            "currentNumberScheduled",
        ),
        (
            "Number of Nodes Scheduled with Up-to-date Pods",
            "updatedNumberScheduled",
        ),
        (
            "Number of Nodes Scheduled with Available Pods",
            "numberAvailable",
        ),
        ("Number of Nodes Misscheduled", "numberMisscheduled"),
    ] {
        page.line(
            0,
            format!("{label}: {}", number(object, &format!("/status/{field}"))),
        );
    }
    page.field(0, "Pods Status", world.pods_status(object));
    template(page, &object["spec"]["template"]);
}

fn job(page: &mut Page, object: &Value) {
    page.field(0, "Selector", chosen(object));
    names(page, object);
    controller(page, object);
    let shown = |pointer: &str| {
        object
            .pointer(pointer)
            .filter(|v| !v.is_null())
            .map(Value::to_string)
    };
    if let Some(parallel) = shown("/spec/parallelism") {
        page.field(0, "Parallelism", parallel);
    }
    let completions = shown("/spec/completions").unwrap_or_else(|| "<unset>".to_owned());
    page.field(0, "Completions", completions);
    let mode = match text(object, "/spec/completionMode") {
        "" => "NonIndexed",
        mode => mode,
    };
    page.field(0, "Completion Mode", mode);
    let suspended = object.pointer("/spec/suspend") == Some(&Value::Bool(true));
    page.field(0, "Suspend", suspended.to_string());
    for (label, pointer) in [
        ("Backoff Limit", "/spec/backoffLimit"),
        (
            "TTL Seconds After Finished",
            "/spec/ttlSecondsAfterFinished",
        ),
    ] {
        if let Some(value) = shown(pointer) {
            page.field(0, label, value);
        }
    }
    let [start, end] = ["/status/startTime", "/status/completionTime"].map(|at| text(object, at));
    if !start.is_empty() {
        page.field(0, "Start Time", rfc1123(start));
    }
    if !end.is_empty() {
        page.field(0, "Completed At", rfc1123(end));
    }
    if let (Some(start), Some(end)) = (seconds_since_1970(start), seconds_since_1970(end)) {
        page.field(0, "Duration", human_duration(end - start));
    }
    if let Some(deadline) = shown("/spec/activeDeadlineSeconds") {
        page.field(0, "Active Deadline Seconds", format!("{deadline}s"));
    }
    let count = |field: &str| number(object, &format!("/status/{field}"));
    let ready = shown("/status/ready").map_or(String::new(), |ready| format!(" ({ready} Ready)"));
    page.field(
        0,
        "Pods Statuses",
        format!(
            "{} Active{ready} / {} Succeeded / {} Failed",
            count("active"),
            count("succeeded"),
            count("failed")
        ),
    );
    template(page, &object["spec"]["template"]);
}

fn cron_job(page: &mut Page, object: &Value) {
    names(page, object);
    let shown = |of: &Value, pointer: &str, unit: &str, fallback: &str| {
        let value = of.pointer(pointer).filter(|value| !value.is_null());
        value.map_or(fallback.to_owned(), |value| format!("{value}{unit}"))
    };
    let or = |found: &'_ str, fallback: &'_ str| match found {
        "" => fallback.to_owned(),
        found => found.to_owned(),
    };
    page.field(0, "Schedule", text(object, "/spec/schedule"));
    let policy = or(text(object, "/spec/concurrencyPolicy"), "Allow");
    page.field(0, "Concurrency Policy", policy);
    let suspended = object.pointer("/spec/suspend") == Some(&Value::Bool(true));
    page.field(0, "Suspend", if suspended { "True" } else { "False" });
    let zone = or(text(object, "/spec/timeZone"), "<unset>");
    page.field(0, "Time Zone", zone);
    // What the API server sets where nothing is said.
    for (label, field, unit, fallback) in [
        (
            "Successful Job History Limit",
            "successfulJobsHistoryLimit",
            "",
            "3",
        ),
        (
            "Failed Job History Limit",
            "failedJobsHistoryLimit",
            "",
            "1",
        ),
        (
            "Starting Deadline Seconds",
            "startingDeadlineSeconds",
            "s",
            "<unset>",
        ),
    ] {
        let value = shown(object, &format!("/spec/{field}"), unit, fallback);
        page.field(0, label, value);
    }
    let job = &object["spec"]["jobTemplate"]["spec"];
    let chosen = job.get("selector").filter(|chosen| !chosen.is_null());
    let chosen = chosen.map_or("<unset>".to_owned(), |chosen| selector(Some(chosen)));
    page.field(0, "Selector", chosen);
    page.field(0, "Parallelism", shown(job, "/parallelism", "", "<unset>"));
    page.field(0, "Completions", shown(job, "/completions", "", "<unset>"));
    if job["activeDeadlineSeconds"].is_number() {
        let deadline = shown(job, "/activeDeadlineSeconds", "s", "");
        page.field(0, "Active Deadline Seconds", deadline);
    }
    template(page, &job["template"]);
    let last = match text(object, "/status/lastScheduleTime") {
        "" => "<unset>".to_owned(),
        last => rfc1123(last),
    };
    page.field(0, "Last Schedule Time", last);
    let active = items(object, "/status/active").iter();
    let active: Vec<&str> = active.map(|job| text(job, "/name")).collect();
    page.field(0, "Active Jobs", or(&active.join(", "), "<none>"));
}
