//! A pod's `status`, as the kubelet writes it.

use serde_json::{Value, json};

use super::{Condition, ContainerState, Role, State};
use crate::{clock, topology};

/// The pod's phase: `Pending`, `Running`, `Succeeded` or `Failed`.
///
/// A container that has ended and will be started again is [`Condition::Waiting`], so one that is
/// [`Condition::Ended`] stays so.
pub fn phase_of(containers: &[ContainerState]) -> &'static str {
    let of = |role: Role| containers.iter().filter(move |c| c.role == role);
    let (inits, mains) = (|| of(Role::Init), || of(Role::Main));
    let ended_with = |c: &ContainerState| match c.condition {
        Condition::Ended { code } => Some(code),
        _ => None,
    };
    if inits().any(|c| ended_with(c).is_some_and(|code| code != 0)) {
        return "Failed";
    }
    if mains().count() == 0 || !inits().all(|c| ended_with(c) == Some(0)) {
        return "Pending";
    }
    if mains().all(|c| ended_with(c).is_some()) {
        let good = mains().all(|c| ended_with(c) == Some(0));
        return if good { "Succeeded" } else { "Failed" };
    }
    let begun = |c: &ContainerState| c.started.is_some();
    if mains().all(begun) {
        "Running"
    } else {
        "Pending"
    }
}

/// The whole status.
pub fn status(state: &State) -> Value {
    let mains = || state.containers.iter().filter(|c| c.role == Role::Main);
    let ready = mains().count() > 0 && mains().all(|c| c.ready);
    let initialized = state
        .containers
        .iter()
        .filter(|c| c.role == Role::Init)
        .all(|c| c.condition == Condition::Ended { code: 0 });
    let begun = clock::rfc3339(state.begun.unwrap_or_else(std::time::SystemTime::now));
    let phase = phase_of(&state.containers);
    let condition = |kind: &str, holds: bool| {
        let mut condition = json!({
            "type": kind, "status": if holds { "True" } else { "False" },
            "lastProbeTime": null, "lastTransitionTime": begun,
        });
        if !holds && phase == "Succeeded" {
            condition["reason"] = "PodCompleted".into();
        } else if !holds && kind.ends_with("Ready") {
            condition["reason"] = "ContainersNotReady".into();
        }
        condition
    };
    let addresses: Vec<Value> = state
        .addresses
        .iter()
        .map(|ip| json!({"ip": ip.to_string()}))
        .collect();
    let list = |role: Role| -> Vec<Value> {
        let chosen = state.containers.iter().filter(|c| c.role == role);
        chosen.map(container).collect()
    };
    let mut status = json!({
        "phase": phase,
        "conditions": [
            condition("PodReadyToStartContainers", state.networked),
            condition("Initialized", initialized),
            condition("Ready", ready),
            condition("ContainersReady", ready),
            condition("PodScheduled", true),
        ],
        "hostIP": topology::NODE_V4.to_string(),
        "hostIPs": [
            {"ip": topology::NODE_V4.to_string()}, {"ip": topology::NODE_V6.to_string()},
        ],
        "startTime": begun,
        "qosClass": "BestEffort",
        "containerStatuses": list(Role::Main),
    });
    if let Some(first) = state.addresses.first() {
        status["podIP"] = first.to_string().into();
        status["podIPs"] = addresses.into();
    }
    for (field, role) in [
        ("initContainerStatuses", Role::Init),
        ("ephemeralContainerStatuses", Role::Ephemeral),
    ] {
        let some = list(role);
        if !some.is_empty() {
            status[field] = some.into();
        }
    }
    if let Some(message) = &state.message {
        status["message"] = message.as_str().into();
    }
    status
}

fn ended(code: i32, started: Value, finished: Value) -> Value {
    json!({"terminated": {
        "exitCode": code, "reason": if code == 0 { "Completed" } else { "Error" },
        "startedAt": started, "finishedAt": finished,
    }})
}

fn container(container: &ContainerState) -> Value {
    let time = |time: Option<std::time::SystemTime>| match time {
        Some(time) => Value::from(clock::rfc3339(time)),
        None => Value::Null,
    };
    let now = match &container.condition {
        Condition::Waiting { reason, message } if message.is_empty() => {
            json!({"waiting": {"reason": reason}})
        }
        Condition::Waiting { reason, message } => {
            json!({"waiting": {"reason": reason, "message": message}})
        }
        Condition::Running => json!({"running": {"startedAt": time(container.started)}}),
        Condition::Again { code } | Condition::Ended { code } => {
            ended(*code, time(container.started), time(container.finished))
        }
    };
    let last = match container.last {
        Some((code, from, to)) => ended(code, time(Some(from)), time(Some(to))),
        None => json!({}),
    };
    json!({
        "name": container.name, "image": container.image, "imageID": "",
        "ready": container.ready, "started": container.up,
        "restartCount": container.restarts, "state": now, "lastState": last,
        "containerID": format!("weir://{}", container.process_id),
    })
}
