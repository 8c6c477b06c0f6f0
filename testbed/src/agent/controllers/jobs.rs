//! Jobs: pods that run to their end, again after failures, up to a limit of them and of time.
//!
//! What is to be done about a Job is a function of it, its pods, what was seen of them before, and the
//! time ([`Plan`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use control::cli::columns::seconds_since_1970;
use serde_json::{Value, json};

use super::super::Agent;
use super::super::events::Tone;
use super::super::objects::{is_terminating, number, owner_uid, text, uid};
use super::{
    Expected, Outcome, component, delete_pod, is_over as has_ended, is_ready, pod_of, unique_suffix,
};
use crate::clock;

/// Seconds before a pod takes a failed one's place, doubled with each failure, as the Job
/// controller's.
const BACK_OFF_S: i64 = 10;
/// The longest of them.
const LONGEST_BACK_OFF_S: i64 = 600;
/// Which of an indexed Job's pods one is: annotation and label.
const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// What was seen of the pods of each Job, by its UID: a pod that has ended counts for good, whatever
/// becomes of it.
#[derive(Default)]
pub struct Memory(BTreeMap<String, Tally>);

impl Memory {
    /// Forgets the Jobs that are no more.
    pub fn keep(&mut self, jobs: &[Arc<Value>]) {
        let there: BTreeSet<&str> = jobs.iter().map(|job| uid(job)).collect();
        self.0.retain(|uid, _| there.contains(uid.as_str()));
    }
}

/// How a Job's pods have ended, by their UIDs.
#[derive(Default)]
struct Tally {
    /// And the index of each.
    succeeded: BTreeMap<String, Option<i64>>,
    failed: BTreeSet<String>,
    /// How many failures there were at the last look, and when as many were first seen.
    failures: (i64, i64),
}

impl Tally {
    fn take(&mut self, pods: &[&Arc<Value>]) {
        for pod in pods {
            let name = uid(pod).to_owned();
            match text(pod, "/status/phase") {
                "Succeeded" => drop(self.succeeded.insert(name, index_of(pod))),
                "Failed" => drop(self.failed.insert(name)),
                _ => {}
            }
        }
    }

    fn indexes(&self) -> BTreeSet<i64> {
        self.succeeded.values().flatten().copied().collect()
    }
}

fn index_of(pod: &Value) -> Option<i64> {
    let annotations = pod.pointer("/metadata/annotations")?;
    annotations[INDEX].as_str()?.parse().ok()
}

/// Where a Job is.
#[derive(Debug, PartialEq)]
struct State {
    active: i64,
    ready: i64,
    terminating: i64,
    succeeded: i64,
    failed: i64,
    /// How often pods that run have started their containers again.
    restarts: i64,
}

impl State {
    fn of(job: &Value, pods: &[&Arc<Value>], tally: &Tally) -> State {
        let active = pods.iter().filter(|pod| is_active(pod));
        let restarts = active.clone().flat_map(|pod| {
            let statuses = pod.pointer("/status/containerStatuses");
            let statuses = statuses.and_then(Value::as_array).into_iter().flatten();
            statuses.filter_map(|status| status["restartCount"].as_i64())
        });
        let restarts = restarts.sum::<i64>();
        let leaving = |pod: &&&Arc<Value>| is_terminating(pod) && !has_ended(pod);
        State {
            active: active.clone().count() as i64,
            ready: active.filter(|pod| is_ready(pod)).count() as i64,
            terminating: pods.iter().filter(leaving).count() as i64,
            succeeded: match is_indexed(job) {
                true => tally.indexes().len() as i64,
                false => tally.succeeded.len() as i64,
            },
            failed: tally.failed.len() as i64 + restarts,
            restarts,
        }
    }
}

fn is_active(pod: &Value) -> bool {
    !has_ended(pod) && !is_terminating(pod)
}

fn is_indexed(job: &Value) -> bool {
    text(job, "/spec/completionMode") == "Indexed"
}

fn condition<'a>(job: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = job.pointer("/status/conditions").and_then(Value::as_array);
    let mut conditions = conditions.into_iter().flatten();
    conditions.find(|condition| condition["type"] == kind && condition["status"] == "True")
}

/// The condition by which the Job has ended, well or not.
pub fn end(job: &Value) -> Option<&Value> {
    condition(job, "Complete").or_else(|| condition(job, "Failed"))
}

/// How a Job ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Complete,
    BackoffLimitExceeded,
    DeadlineExceeded,
}

impl End {
    /// The conditions, the first before the second, their reason and message.
    fn words(self) -> ([&'static str; 2], &'static str, &'static str) {
        let failed = ["FailureTarget", "Failed"];
        match self {
            End::Complete => (
                ["SuccessCriteriaMet", "Complete"],
                "CompletionsReached",
                "Reached expected number of succeeded pods",
            ),
            End::BackoffLimitExceeded => (
                failed,
                "BackoffLimitExceeded",
                "Job has reached the specified backoff limit",
            ),
            End::DeadlineExceeded => (
                failed,
                "DeadlineExceeded",
                "Job was active longer than specified deadline",
            ),
        }
    }

    fn of(job: &Value, now: &State, begun: i64, time: i64) -> Option<End> {
        let limit = number(job, "/spec/backoffLimit").unwrap_or(6);
        let again = text(job, "/spec/template/spec/restartPolicy") == "OnFailure";
        let past = match again {
            true => now.restarts > 0 && now.restarts >= limit,
            false => false,
        };
        if past || now.failed > limit {
            return Some(End::BackoffLimitExceeded);
        }
        let deadline = number(job, "/spec/activeDeadlineSeconds");
        if deadline.is_some_and(|deadline| time - begun >= deadline) {
            return Some(End::DeadlineExceeded);
        }
        let complete = match number(job, "/spec/completions") {
            Some(completions) => now.succeeded >= completions,
            // Pods that share out the work themselves: when one says that all is done, and all have
            // ended.
            None => now.succeeded > 0 && now.active == 0,
        };
        complete.then_some(End::Complete)
    }
}

/// What is to be done about a Job.
#[derive(Debug, Default)]
struct Plan {
    make: Vec<Value>,
    delete: Vec<Arc<Value>>,
    status: Value,
    notes: Vec<(Tone, &'static str, String)>,
    /// Its time after its end is over: it goes.
    remove: bool,
}

impl Plan {
    /// `coming` tells how many pods with names of a beginning are made and not seen yet.
    fn of(
        job: &Value,
        pods: &[&Arc<Value>],
        tally: &mut Tally,
        coming: &dyn Fn(&str) -> usize,
        time: i64,
    ) -> Plan {
        tally.take(pods);
        let status = job.get("status").cloned().unwrap_or(Value::Null);
        let mut plan = Plan {
            status,
            ..Plan::default()
        };
        if let Some(end) = end(job) {
            let ended = seconds_since_1970(text(end, "/lastTransitionTime"));
            let rest = number(job, "/spec/ttlSecondsAfterFinished");
            plan.remove = ended
                .zip(rest)
                .is_some_and(|(ended, rest)| time >= ended.saturating_add(rest));
            return plan;
        }
        let now = State::of(job, pods, tally);
        let suspended = job.pointer("/spec/suspend") == Some(&Value::Bool(true));
        let was_suspended = condition(job, "Suspended").is_some();
        let begun = match (suspended, text(job, "/status/startTime")) {
            (true, _) => None,
            (false, "") => Some(time),
            (false, _) if was_suspended => Some(time),
            (false, begun) => Some(seconds_since_1970(begun).unwrap_or(time)),
        };
        let end = End::of(job, &now, begun.unwrap_or(time), time);
        let wanted = match (end, suspended) {
            (Some(_), _) | (None, true) => 0,
            (None, false) => wanted(job, &now),
        };
        plan.fit(job, pods, wanted, &now, tally, coming, time);
        if suspended != was_suspended && end.is_none() {
            plan.notes.push(match suspended {
                true => (Tone::Normal, "Suspended", "Job suspended".into()),
                false => (Tone::Normal, "Resumed", "Job resumed".into()),
            });
        }
        if let Some(end) = end {
            let (_, reason, message) = end.words();
            plan.notes.push(match end {
                End::Complete => (Tone::Normal, "Completed", "Job completed".into()),
                _ => (Tone::Warning, reason, message.into()),
            });
        }
        plan.status = status_of(job, &now, tally, begun, end, time);
        plan
    }

    /// Makes and deletes pods until as many as are wanted are active.
    #[expect(
        clippy::too_many_arguments,
        reason = "a Job, its pods, and what is known of them"
    )]
    fn fit(
        &mut self,
        job: &Value,
        pods: &[&Arc<Value>],
        wanted: i64,
        now: &State,
        tally: &mut Tally,
        coming: &dyn Fn(&str) -> usize,
        time: i64,
    ) {
        let active: Vec<&Arc<Value>> = pods.iter().filter(|pod| is_active(pod)).copied().collect();
        if now.active > wanted {
            let mut order = active;
            // Those that are not ready go first, and of them the youngest.
            order.sort_by_key(|pod| {
                let age = text(pod, "/metadata/creationTimestamp").to_owned();
                (is_ready(pod), std::cmp::Reverse(age))
            });
            let surplus = usize::try_from(now.active - wanted).unwrap_or(0);
            self.delete = order.into_iter().take(surplus).cloned().collect();
            for pod in &self.delete {
                let message = format!("Deleted pod: {}", text(pod, "/metadata/name"));
                self.notes.push((Tone::Normal, "SuccessfulDelete", message));
            }
            return;
        }
        if !is_due(now, tally, time) {
            return;
        }
        let name = text(job, "/metadata/name");
        if !is_indexed(job) {
            let coming = coming(&format!("{name}-")) as i64;
            let missing = (now.active + coming..wanted).map(|_| None);
            return self.make.extend(missing.map(|index| pod(job, index)));
        }
        let done = tally.indexes();
        let running: BTreeSet<i64> = active.iter().filter_map(|pod| index_of(pod)).collect();
        let completions = number(job, "/spec/completions").unwrap_or(0);
        let mut have = now.active;
        for index in (0..completions).filter(|index| !done.contains(index)) {
            if have >= wanted {
                break;
            }
            if running.contains(&index) {
                continue;
            }
            if coming(&format!("{name}-{index}-")) == 0 {
                self.make.push(pod(job, Some(index)));
            }
            have += 1;
        }
    }
}

/// How many pods shall be active.
fn wanted(job: &Value, now: &State) -> i64 {
    let parallelism = number(job, "/spec/parallelism").unwrap_or(1);
    let wanted = match number(job, "/spec/completions") {
        Some(completions) => parallelism.min(completions - now.succeeded),
        // Once one has succeeded no other begins.
        None if now.succeeded > 0 => now.active,
        None => parallelism,
    };
    match text(job, "/spec/podReplacementPolicy") {
        // Those that are going have their places until they are gone.
        "Failed" => (wanted - now.terminating).max(now.active.min(wanted)),
        _ => wanted,
    }
}

/// Whether a pod may be made: at once, but after a failure only when its pause is over.
fn is_due(now: &State, tally: &mut Tally, time: i64) -> bool {
    if tally.failures.0 != now.failed {
        tally.failures = (now.failed, time);
    }
    let pause = match now.failed {
        0 => 0,
        n => {
            let doubled = 2_i64.saturating_pow(u32::try_from(n - 1).unwrap_or(u32::MAX));
            BACK_OFF_S.saturating_mul(doubled).min(LONGEST_BACK_OFF_S)
        }
    };
    time - tally.failures.1 >= pause
}

/// Makes a Job's pods, and says how far it is.
pub(super) fn look(
    agent: &Agent,
    job: &Value,
    pods: &[Arc<Value>],
    expected: &mut Expected,
) -> Outcome {
    if is_terminating(job) {
        return Ok(());
    }
    let own: Vec<&Arc<Value>> = pods
        .iter()
        .filter(|pod| owner_uid(pod) == uid(job))
        .collect();
    let mut tally = expected.jobs.0.remove(uid(job)).unwrap_or_default();
    let namespace = text(job, "/metadata/namespace");
    let coming = |prefix: &str| expected.count("Pod", namespace, prefix);
    let plan = Plan::of(job, &own, &mut tally, &coming, clock::seconds());
    expected.jobs.0.insert(uid(job).to_owned(), tally);
    if plan.remove {
        return agent.remove("jobs", job);
    }
    for pod in &plan.delete {
        delete_pod(agent, pod)?;
    }
    let note = |tone, reason, message| {
        let about = (job, None);
        agent
            .events
            .note(component(job), about, tone, reason, message);
    };
    for pod in plan.make {
        let message = format!("Created pod: {}", text(&pod, "/metadata/name"));
        expected.note(&pod);
        agent.create(pod)?;
        note(Tone::Normal, "SuccessfulCreate", message);
    }
    for (tone, reason, message) in plan.notes {
        note(tone, reason, message);
    }
    super::write_changed(agent, "jobs", job, plan.status)
}

fn pod(job: &Value, index: Option<i64>) -> Value {
    let name = text(job, "/metadata/name");
    let (own, number) = (uid(job), index.map(|index| index.to_string()));
    let mut labels = vec![
        ("batch.kubernetes.io/controller-uid", own),
        ("batch.kubernetes.io/job-name", name),
        ("controller-uid", own),
        ("job-name", name),
    ];
    labels.extend(number.as_deref().map(|number| (INDEX, number)));
    let suffix = unique_suffix(job);
    let Some(number) = &number else {
        return pod_of(job, &format!("{name}-{suffix}"), &labels);
    };
    let mut pod = pod_of(job, &format!("{name}-{number}-{suffix}"), &labels);
    pod["metadata"]["annotations"][INDEX] = number.as_str().into();
    if pod["spec"]["hostname"].is_null() {
        pod["spec"]["hostname"] = format!("{name}-{number}").into();
    }
    let variable = json!({"name": "JOB_COMPLETION_INDEX", "valueFrom": {"fieldRef": {
        "apiVersion": "v1", "fieldPath": format!("metadata.labels['{INDEX}']")}}});
    for list in ["containers", "initContainers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            match container["env"].as_array_mut() {
                Some(variables) => variables.push(variable.clone()),
                None => container["env"] = json!([variable]),
            }
        }
    }
    pod
}

/// Numbers as `0-2,4`.
fn ranges(numbers: &BTreeSet<i64>) -> String {
    let mut runs: Vec<(i64, i64)> = Vec::new();
    for &number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let texts = runs.iter().map(|(first, last)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    });
    texts.collect::<Vec<_>>().join(",")
}

fn status_of(
    job: &Value,
    now: &State,
    tally: &Tally,
    begun: Option<i64>,
    end: Option<End>,
    time: i64,
) -> Value {
    let stamp = clock::of_seconds(time);
    let mut status = json!({"ready": now.ready, "terminating": now.terminating,
        "uncountedTerminatedPods": {}});
    if let Some(begun) = begun {
        status["startTime"] = clock::of_seconds(begun).into();
    }
    for (field, count) in [
        ("active", if end.is_some() { 0 } else { now.active }),
        ("succeeded", now.succeeded),
        ("failed", now.failed),
    ] {
        if count > 0 {
            status[field] = count.into();
        }
    }
    if is_indexed(job) {
        status["completedIndexes"] = ranges(&tally.indexes()).into();
    }
    let made = |kind: &str, holds: bool, reason: &str, message: &str| {
        json!({
            "type": kind, "status": if holds { "True" } else { "False" }, "reason": reason,
            "message": message, "lastProbeTime": stamp, "lastTransitionTime": stamp,
        })
    };
    let mut conditions = Vec::new();
    let before = job.pointer("/status/conditions").and_then(Value::as_array);
    let mut before = before.into_iter().flatten();
    let suspension = before.find(|condition| condition["type"] == "Suspended");
    let wants = job.pointer("/spec/suspend") == Some(&Value::Bool(true));
    let status_wanted = if wants { "True" } else { "False" };
    match suspension {
        Some(kept) if kept["status"] == status_wanted => conditions.push(kept.clone()),
        Some(_) if !wants => {
            conditions.push(made("Suspended", false, "JobResumed", "Job resumed"));
        }
        _ if wants => conditions.push(made("Suspended", true, "JobSuspended", "Job suspended")),
        _ => {}
    }
    if let Some(end) = end {
        let (kinds, reason, message) = end.words();
        conditions.extend(kinds.map(|kind| made(kind, true, reason, message)));
        if end == End::Complete {
            status["completionTime"] = stamp.clone().into();
        }
    }
    if !conditions.is_empty() {
        status["conditions"] = conditions.into();
    }
    status
}

#[cfg(test)]
mod tests;
