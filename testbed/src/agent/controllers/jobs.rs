//! Jobs: pods that run to their end, again after failures, up to a limit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::Agent;
use super::super::events::Tone;
use super::super::objects::{is_terminating, number, owner_uid, text, uid};
use super::{Expected, Outcome, delete_pod, pod_of, unique_suffix, write_changed};
use crate::clock;

/// Pause before a pod takes a failed one's place, doubled with each failure, as the Job
/// controller's.
const BACK_OFF: Duration = Duration::from_secs(10);
/// The longest of them.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(600);
const COMPONENT: &str = "job-controller";

/// How many of a Job's pods had failed when it was last looked at, and when that was first seen.
pub type Failures = BTreeMap<String, (i64, Instant)>;

/// Where a Job is.
#[derive(Debug, PartialEq)]
struct State {
    active: i64,
    ready: i64,
    succeeded: i64,
    failed: i64,
}

fn state(pods: &[&Arc<Value>]) -> State {
    let phase = |pod: &Value| text(pod, "/status/phase").to_owned();
    let count = |wanted: &str| pods.iter().filter(|pod| phase(pod) == wanted).count() as i64;
    let over = |pod: &Value| ["Succeeded", "Failed"].contains(&phase(pod).as_str());
    let active = pods.iter().filter(|pod| !over(pod) && !is_terminating(pod));
    // A pod that starts its containers again counts each time.
    let restarts = active.clone().flat_map(|pod| {
        let statuses = pod.pointer("/status/containerStatuses");
        let statuses = statuses.and_then(Value::as_array).into_iter().flatten();
        statuses.filter_map(|status| status["restartCount"].as_i64())
    });
    State {
        active: active.clone().count() as i64,
        ready: active.filter(|pod| super::is_ready(pod)).count() as i64,
        succeeded: count("Succeeded"),
        failed: count("Failed") + restarts.sum::<i64>(),
    }
}

fn condition<'a>(job: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = job.pointer("/status/conditions").and_then(Value::as_array);
    let mut conditions = conditions.into_iter().flatten();
    conditions.find(|condition| condition["type"] == kind && condition["status"] == "True")
}

/// Whether the Job has ended, well or not.
pub fn is_over(job: &Value) -> bool {
    condition(job, "Complete").is_some() || condition(job, "Failed").is_some()
}

/// Makes a Job's pods, and says how far it is.
pub(super) fn look(
    agent: &Agent,
    job: &Value,
    pods: &[Arc<Value>],
    expected: &mut Expected,
    failures: &mut Failures,
) -> Outcome {
    if is_terminating(job) || is_over(job) {
        failures.remove(uid(job));
        return Ok(());
    }
    let own: Vec<&Arc<Value>> = pods
        .iter()
        .filter(|pod| owner_uid(pod) == uid(job))
        .collect();
    let now = state(&own);
    let limit = number(job, "/spec/backoffLimit").unwrap_or(6);
    let completions = number(job, "/spec/completions").unwrap_or(1);
    let parallelism = number(job, "/spec/parallelism").unwrap_or(1);
    let mut end = None;
    if now.failed > limit {
        let message = "Job has reached the specified backoff limit";
        end = Some(("Failed", "BackoffLimitExceeded", message));
        for pod in own.iter().filter(|pod| !super::is_over(pod)) {
            delete_pod(agent, pod)?;
        }
    } else if now.succeeded >= completions {
        end = Some((
            "Complete",
            "CompletionsReached",
            "Reached expected number of succeeded pods",
        ));
    } else if job.pointer("/spec/suspend") != Some(&Value::Bool(true))
        && is_due(job, &now, failures)
    {
        let prefix = format!("{}-", text(job, "/metadata/name"));
        let namespace = text(job, "/metadata/namespace");
        let coming = expected.count("Pod", namespace, &prefix) as i64;
        let wanted = parallelism.min(completions - now.succeeded) - now.active - coming;
        for _ in 0..wanted {
            let pod = pod(job);
            expected.note(&pod);
            agent.create(pod.clone())?;
            let message = format!("Created pod: {}", text(&pod, "/metadata/name"));
            let about = (job, None);
            agent
                .events
                .note(COMPONENT, about, Tone::Normal, "SuccessfulCreate", message);
        }
    }
    if let Some((kind, reason, message)) = end {
        let (tone, told, message) = match kind {
            "Complete" => (Tone::Normal, "Completed", "Job completed"),
            _ => (Tone::Warning, reason, message),
        };
        agent
            .events
            .note(COMPONENT, (job, None), tone, told, message);
    }
    write_changed(agent, "jobs", job, status(job, &now, end))
}

/// Whether a pod may be made: at once, but after a failure only when its pause is over.
fn is_due(job: &Value, now: &State, failures: &mut Failures) -> bool {
    let seen = failures
        .entry(uid(job).to_owned())
        .or_insert_with(|| (now.failed, Instant::now()));
    if seen.0 != now.failed {
        *seen = (now.failed, Instant::now());
    }
    let pause = match now.failed {
        0 => Duration::ZERO,
        n => {
            let doubled = 2_u32.saturating_pow(u32::try_from(n - 1).unwrap_or(u32::MAX));
            BACK_OFF.saturating_mul(doubled).min(LONGEST_BACK_OFF)
        }
    };
    seen.1.elapsed() >= pause
}

fn pod(job: &Value) -> Value {
    let name = text(job, "/metadata/name");
    let own = uid(job);
    let labels = [
        ("batch.kubernetes.io/controller-uid", own),
        ("batch.kubernetes.io/job-name", name),
        ("controller-uid", own),
        ("job-name", name),
    ];
    pod_of(job, &format!("{name}-{}", unique_suffix(job)), &labels)
}

fn status(job: &Value, now: &State, end: Option<(&str, &str, &str)>) -> Value {
    let time = clock::now();
    let begun = match text(job, "/status/startTime") {
        "" => time.clone(),
        begun => begun.to_owned(),
    };
    let mut status = json!({"startTime": begun, "ready": now.ready, "terminating": 0,
        "uncountedTerminatedPods": {}});
    for (field, count) in [
        ("active", if end.is_some() { 0 } else { now.active }),
        ("succeeded", now.succeeded),
        ("failed", now.failed),
    ] {
        if count > 0 {
            status[field] = count.into();
        }
    }
    if let Some((kind, reason, message)) = end {
        let condition = |kind: &str| {
            json!({
                "type": kind, "status": "True", "reason": reason, "message": message,
                "lastProbeTime": time, "lastTransitionTime": time,
            })
        };
        let before = if kind == "Complete" {
            "SuccessCriteriaMet"
        } else {
            "FailureTarget"
        };
        status["conditions"] = json!([condition(before), condition(kind)]);
        if kind == "Complete" {
            status["completionTime"] = time.into();
        }
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods(phases: &[&str]) -> Vec<Arc<Value>> {
        let pod = |phase: &&str| Arc::new(json!({"status": {"phase": phase}}));
        phases.iter().map(pod).collect()
    }

    #[test]
    fn pods_are_counted_by_how_they_ended() {
        let pods = pods(&["Succeeded", "Failed", "Running", "Pending"]);
        let all: Vec<&Arc<Value>> = pods.iter().collect();
        let expected = State {
            active: 2,
            ready: 0,
            succeeded: 1,
            failed: 1,
        };
        assert_eq!(state(&all), expected);
    }

    #[test]
    fn a_failed_pod_is_replaced_after_a_pause() {
        let job = json!({"metadata": {"uid": "u"}});
        let at = |failed| State {
            active: 0,
            ready: 0,
            succeeded: 0,
            failed,
        };
        let mut failures = Failures::new();
        assert!(is_due(&job, &at(0), &mut failures));
        assert!(!is_due(&job, &at(1), &mut failures));
        if let Some(seen) = failures.get_mut("u") {
            seen.1 = Instant::now().checked_sub(BACK_OFF).unwrap();
        }
        assert!(is_due(&job, &at(1), &mut failures));
        assert!(!is_due(&job, &at(2), &mut failures));
    }

    #[test]
    fn a_job_that_has_ended_says_so() {
        let job = json!({"metadata": {"uid": "u"}, "status": {"startTime": "t"}});
        let now = state(&[]);
        let mut ended = job.clone();
        ended["status"] = status(&job, &now, Some(("Complete", "r", "m")));
        assert!(is_over(&ended) && !is_over(&job));
        assert_eq!(ended["status"]["startTime"], "t");
    }
}
