//! The cells of pods.

use serde_json::Value;

use super::{items, or, seconds_since_1970, text};
use crate::cli::table::human_duration;

/// A pod's cells.
pub fn pod(object: &Value, name: String, age: String, now: i64) -> Vec<String> {
    let wanted = items(object, "/spec/containers").len();
    let statuses = items(object, "/status/containerStatuses");
    let ready = statuses.iter().filter(|s| s["ready"] == true).count();
    let restarts: u64 = statuses
        .iter()
        .filter_map(|s| s["restartCount"].as_u64())
        .sum();
    let last = statuses
        .iter()
        .filter_map(|s| s.pointer("/lastState/terminated/finishedAt")?.as_str())
        .filter_map(seconds_since_1970)
        .max();
    let restarts = match last {
        Some(at) if restarts > 0 => format!("{restarts} ({} ago)", human_duration(now - at)),
        _ => restarts.to_string(),
    };
    vec![
        name,
        format!("{ready}/{wanted}"),
        pod_status(object, statuses),
        restarts,
        age,
        or(text(object, "/status/podIP"), "<none>"),
        or(text(object, "/spec/nodeName"), "<none>"),
        or(text(object, "/status/nominatedNodeName"), "<none>"),
        readiness_gates(object),
    ]
}

/// How many of a pod's readiness gates are open.
fn readiness_gates(object: &Value) -> String {
    let gates = items(object, "/spec/readinessGates");
    let conditions = items(object, "/status/conditions");
    let is_open = |gate: &&Value| {
        let own = conditions
            .iter()
            .find(|c| c["type"] == gate["conditionType"]);
        own.is_some_and(|condition| condition["status"] == "True")
    };
    match gates.len() {
        0 => "<none>".to_owned(),
        all => format!("{}/{all}", gates.iter().filter(is_open).count()),
    }
}

/// The STATUS column (Kubernetes `pkg/printers/internalversion/printers.go`): how far the init
/// containers are, why a container waits or ended, else the phase.
fn pod_status(object: &Value, statuses: &[Value]) -> String {
    let phase = or(text(object, "/status/phase"), "Pending");
    let is_true = |kind: &str| {
        let mut conditions = items(object, "/status/conditions").iter();
        conditions.any(|condition| condition["type"] == kind && condition["status"] == "True")
    };
    let going = object.pointer("/metadata/deletionTimestamp");
    if going.is_some_and(|time| !time.is_null()) && !["Succeeded", "Failed"].contains(&&*phase) {
        return "Terminating".to_owned();
    }
    if let Some(status) = initializing(object)
        && !is_true("Initialized")
    {
        return status;
    }
    let told = statuses.iter().find_map(|status| {
        let state = &status["state"];
        let waits = state.pointer("/waiting/reason").and_then(Value::as_str);
        let ended = state.get("terminated").filter(|ended| !ended.is_null());
        waits.map(str::to_owned).or_else(|| ended.map(why_ended))
    });
    let runs = |status: &Value| status["ready"] == true && status["state"]["running"].is_object();
    match told {
        // Some have ended well, others go on.
        Some(reason) if reason == "Completed" && statuses.iter().any(runs) => {
            let ready = is_true("Ready");
            if ready { "Running" } else { "NotReady" }.to_owned()
        }
        Some(reason) => reason,
        None => or(text(object, "/status/reason"), &phase),
    }
}

fn why_ended(ended: &Value) -> String {
    match (ended["reason"].as_str(), ended["signal"].as_i64()) {
        (Some(reason), _) if !reason.is_empty() => reason.to_owned(),
        (_, Some(signal)) if signal != 0 => format!("Signal:{signal}"),
        _ => format!("ExitCode:{}", ended["exitCode"].as_i64().unwrap_or(0)),
    }
}

/// `Init:1/2`, or what keeps the first init container that is not through.
fn initializing(object: &Value) -> Option<String> {
    let statuses = items(object, "/status/initContainerStatuses");
    for (number, status) in statuses.iter().enumerate() {
        let state = &status["state"];
        let ended = state.get("terminated").filter(|ended| !ended.is_null());
        if let Some(ended) = ended {
            if ended["exitCode"] == 0 {
                continue;
            }
            return Some(format!("Init:{}", why_ended(ended)));
        }
        let waits = state.pointer("/waiting/reason").and_then(Value::as_str);
        let all = items(object, "/spec/initContainers").len();
        return Some(match waits {
            Some(reason) if !["", "PodInitializing", "ContainerCreating"].contains(&reason) => {
                format!("Init:{reason}")
            }
            _ => format!("Init:{number}/{all}"),
        });
    }
    None
}
