//! Where a rollout is, in kubectl's lines (kubectl `pkg/polymorphichelpers/rollout_status.go`).

use serde_json::Value;

use crate::cli::verbs::find::Found;

/// The line for an object, and whether its rollout is over; or why there is none.
pub type View = fn(&Value) -> Result<(String, bool), String>;

/// How the rollout of such an object is told.
pub fn of(one: &Found) -> Result<View, String> {
    match one.resource.as_str() {
        "deployments.apps" => Ok(deployment),
        "daemonsets.apps" => Ok(daemon_set),
        "statefulsets.apps" => Ok(stateful_set),
        _ => {
            let kind = one.object["kind"].as_str().unwrap_or_default();
            let group = one.resource.split_once('.').map(|(_, group)| group);
            let group = group.map_or(String::new(), |group| format!(".{group}"));
            Err(format!(
                "no status viewer has been implemented for {kind}{group}"
            ))
        }
    }
}

fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// How many pods are wanted; one where nothing is said.
fn replicas(object: &Value) -> i64 {
    object["spec"]["replicas"].as_i64().unwrap_or(1)
}

fn is_observed(object: &Value) -> bool {
    number(object, "/metadata/generation") <= number(object, "/status/observedGeneration")
}

fn deployment(object: &Value) -> Result<(String, bool), String> {
    let name = name(object);
    if !is_observed(object) {
        let line = "Waiting for deployment spec update to be observed...\n";
        return Ok((line.to_owned(), false));
    }
    let conditions = object.pointer("/status/conditions");
    let mut conditions = conditions.and_then(Value::as_array).into_iter().flatten();
    let late = |c: &Value| c["type"] == "Progressing" && c["reason"] == "ProgressDeadlineExceeded";
    if conditions.any(late) {
        return Err(format!(
            "deployment \"{name}\" exceeded its progress deadline"
        ));
    }
    let (wanted, all) = (replicas(object), number(object, "/status/replicas"));
    let updated = number(object, "/status/updatedReplicas");
    let available = number(object, "/status/availableReplicas");
    let waiting = |what: String| {
        let line = format!("Waiting for deployment \"{name}\" rollout to finish: {what}...\n");
        Ok((line, false))
    };
    if updated < wanted {
        waiting(format!(
            "{updated} out of {wanted} new replicas have been updated"
        ))
    } else if all > updated {
        let old = all - updated;
        waiting(format!("{old} old replicas are pending termination"))
    } else if available < updated {
        waiting(format!(
            "{available} of {updated} updated replicas are available"
        ))
    } else {
        Ok((
            format!("deployment \"{name}\" successfully rolled out\n"),
            true,
        ))
    }
}

/// Pods of these two are replaced only where that is their strategy.
fn rolls(object: &Value) -> Result<(), String> {
    match object["spec"]["updateStrategy"]["type"].as_str() {
        Some("RollingUpdate") => Ok(()),
        _ => Err("rollout status is only available for RollingUpdate strategy type".to_owned()),
    }
}

fn daemon_set(object: &Value) -> Result<(String, bool), String> {
    rolls(object)?;
    let name = name(object);
    if !is_observed(object) {
        let line = "Waiting for daemon set spec update to be observed...\n";
        return Ok((line.to_owned(), false));
    }
    let wanted = number(object, "/status/desiredNumberScheduled");
    let updated = number(object, "/status/updatedNumberScheduled");
    let available = number(object, "/status/numberAvailable");
    let waiting = |what: String| {
        let line = format!("Waiting for daemon set \"{name}\" rollout to finish: {what}...\n");
        Ok((line, false))
    };
    if updated < wanted {
        waiting(format!(
            "{updated} out of {wanted} new pods have been updated"
        ))
    } else if available < wanted {
        waiting(format!(
            "{available} of {wanted} updated pods are available"
        ))
    } else {
        Ok((
            format!("daemon set \"{name}\" successfully rolled out\n"),
            true,
        ))
    }
}

fn stateful_set(object: &Value) -> Result<(String, bool), String> {
    rolls(object)?;
    if number(object, "/status/observedGeneration") == 0 || !is_observed(object) {
        let line = "Waiting for statefulset spec update to be observed...\n";
        return Ok((line.to_owned(), false));
    }
    let (wanted, ready) = (replicas(object), number(object, "/status/readyReplicas"));
    if ready < wanted {
        let line = format!("Waiting for {} pods to be ready...\n", wanted - ready);
        return Ok((line, false));
    }
    let updated = number(object, "/status/updatedReplicas");
    let rolling = &object["spec"]["updateStrategy"]["rollingUpdate"];
    if rolling.is_object() {
        let due = wanted - rolling["partition"].as_i64().unwrap_or(0);
        return Ok(if rolling["partition"].is_i64() && updated < due {
            let done = format!("{updated} out of {due} new pods have been updated");
            let line = format!("Waiting for partitioned roll out to finish: {done}...\n");
            (line, false)
        } else {
            let done = format!("{updated} new pods have been updated");
            (format!("partitioned roll out complete: {done}...\n"), true)
        });
    }
    let revision = |field: &str| object["status"][field].as_str().unwrap_or_default();
    let (current, update) = (revision("currentRevision"), revision("updateRevision"));
    Ok(if current == update {
        let pods = number(object, "/status/currentReplicas");
        let done = format!("{pods} pods at revision {current}");
        (
            format!("statefulset rolling update complete {done}...\n"),
            true,
        )
    } else {
        let done = format!("{updated} pods at revision {update}");
        (
            format!("waiting for statefulset rolling update to complete {done}...\n"),
            false,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_state_of_a_deployment_has_its_line() {
        let line = |observed: i64, [all, updated, available]: [i64; 3]| {
            deployment(&json!({
                "metadata": {"name": "web", "generation": 2}, "spec": {"replicas": 3},
                "status": {"observedGeneration": observed, "replicas": all,
                    "updatedReplicas": updated, "availableReplicas": available},
            }))
            .unwrap()
        };
        let waiting = "Waiting for deployment \"web\" rollout to finish: ";
        let cases = [
            (
                (1, [3, 3, 3]),
                "Waiting for deployment spec update to be observed...\n".to_owned(),
            ),
            (
                (2, [3, 1, 3]),
                format!("{waiting}1 out of 3 new replicas have been updated...\n"),
            ),
            (
                (2, [5, 3, 3]),
                format!("{waiting}2 old replicas are pending termination...\n"),
            ),
            (
                (2, [3, 3, 1]),
                format!("{waiting}1 of 3 updated replicas are available...\n"),
            ),
        ];
        for ((observed, numbers), expected) in cases {
            assert_eq!(line(observed, numbers), (expected, false));
        }
        let over = "deployment \"web\" successfully rolled out\n";
        assert_eq!(line(2, [3, 3, 3]), (over.to_owned(), true));
        let late = json!({
            "metadata": {"name": "web"},
            "status": {"conditions": [
                {"type": "Progressing", "reason": "ProgressDeadlineExceeded"},
            ]},
        });
        assert_eq!(
            deployment(&late).unwrap_err(),
            "deployment \"web\" exceeded its progress deadline"
        );
    }

    #[test]
    fn every_state_of_a_daemon_set_has_its_line() {
        let line = |observed: i64, [updated, available]: [i64; 2]| {
            daemon_set(&json!({
                "metadata": {"name": "a", "generation": 1},
                "spec": {"updateStrategy": {"type": "RollingUpdate"}},
                "status": {"observedGeneration": observed, "desiredNumberScheduled": 1,
                    "updatedNumberScheduled": updated, "numberAvailable": available},
            }))
            .unwrap()
            .0
        };
        let waiting = "Waiting for daemon set \"a\" rollout to finish: ";
        assert_eq!(
            line(0, [1, 1]),
            "Waiting for daemon set spec update to be observed...\n"
        );
        assert_eq!(
            line(1, [0, 1]),
            format!("{waiting}0 out of 1 new pods have been updated...\n")
        );
        assert_eq!(
            line(1, [1, 0]),
            format!("{waiting}0 of 1 updated pods are available...\n")
        );
        assert_eq!(
            line(1, [1, 1]),
            "daemon set \"a\" successfully rolled out\n"
        );
    }

    #[test]
    fn every_state_of_a_stateful_set_has_its_line() {
        let line = |strategy: Value, [observed, ready, updated]: [i64; 3], current: &str| {
            stateful_set(&json!({
                "metadata": {"name": "db", "generation": 1},
                "spec": {"replicas": 2, "updateStrategy": strategy},
                "status": {"observedGeneration": observed, "readyReplicas": ready,
                    "updatedReplicas": updated, "currentReplicas": 2,
                    "currentRevision": current, "updateRevision": "db-b"},
            }))
        };
        let plain = || json!({"type": "RollingUpdate"});
        let parted = || json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 1}});
        let cases = [
            (
                line(plain(), [0, 2, 2], "db-a"),
                "Waiting for statefulset spec update to be observed...\n",
            ),
            (
                line(plain(), [1, 1, 2], "db-a"),
                "Waiting for 1 pods to be ready...\n",
            ),
            (
                line(plain(), [1, 2, 1], "db-a"),
                "waiting for statefulset rolling update to complete 1 pods at revision db-b...\n",
            ),
            (
                line(plain(), [1, 2, 2], "db-b"),
                "statefulset rolling update complete 2 pods at revision db-b...\n",
            ),
            (
                line(parted(), [1, 2, 0], "db-a"),
                "Waiting for partitioned roll out to finish: 0 out of 1 new pods have been \
                 updated...\n",
            ),
            (
                line(parted(), [1, 2, 1], "db-a"),
                "partitioned roll out complete: 1 new pods have been updated...\n",
            ),
        ];
        for (told, expected) in cases {
            assert_eq!(told.unwrap().0, expected);
        }
        assert_eq!(
            line(json!({"type": "OnDelete"}), [1, 2, 2], "").unwrap_err(),
            "rollout status is only available for RollingUpdate strategy type"
        );
    }
}
