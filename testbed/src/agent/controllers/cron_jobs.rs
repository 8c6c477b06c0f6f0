//! CronJobs: a Job at each time of a schedule.
//!
//! As with Jobs, what is to be done is a function of the objects and the time ([`Plan`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use control::cli::columns::seconds_since_1970;
use control::cron::Schedule;
use serde_json::{Value, json};

use super::super::Agent;
use super::super::events::Tone;
use super::super::objects::{is_terminating, number, owner_reference, owner_uid, text, uid};
use super::{Expected, Outcome, component, jobs};
use crate::clock;

/// How many times may have been missed before that is told.
const MISSED: i64 = 100;

/// By CronJob's UID: the last time of which it was told that no Job came of it.
#[derive(Default)]
pub struct Memory(BTreeMap<String, i64>);

impl Memory {
    /// Forgets the CronJobs that are no more.
    pub fn keep(&mut self, cron_jobs: &[Arc<Value>]) {
        let there: BTreeSet<&str> = cron_jobs.iter().map(|one| uid(one)).collect();
        self.0.retain(|uid, _| there.contains(uid.as_str()));
    }
}

/// What is to be done about a CronJob.
#[derive(Debug, Default)]
struct Plan {
    make: Option<Value>,
    delete: Vec<Arc<Value>>,
    status: Value,
    notes: Vec<(Tone, &'static str, String)>,
    /// The time of which it is told that no Job comes of it.
    skipped: Option<i64>,
}

impl Plan {
    /// `told` is the last time of which it was told that no Job came of it.
    fn of(cron_job: &Value, jobs: &[&Arc<Value>], told: Option<i64>, now: i64) -> Plan {
        let active: Vec<&Arc<Value>> = jobs.iter().copied().filter(|job| is_active(job)).collect();
        let mut plan = Plan::default();
        plan.tell_ends(cron_job, jobs);
        plan.clean_up(cron_job, jobs);
        let mut last = text(cron_job, "/status/lastScheduleTime").to_owned();
        let suspended = cron_job.pointer("/spec/suspend") == Some(&Value::Bool(true));
        match due(cron_job, now) {
            Ok(Some(due)) if !suspended => {
                if due.missed > MISSED {
                    let message = "too many missed start times. Set or decrease \
                                   .spec.startingDeadlineSeconds or check clock skew";
                    plan.notes
                        .push((Tone::Warning, "TooManyMissedTimes", message.into()));
                }
                if plan.start(cron_job, jobs, &active, due.time, told) {
                    last = clock::of_seconds(due.time);
                }
            }
            Ok(_) => {}
            Err(why) => {
                let schedule = text(cron_job, "/spec/schedule");
                let message = format!("unparseable schedule: {schedule:?} : {why}");
                plan.notes
                    .push((Tone::Warning, "UnparseableSchedule", message));
            }
        }
        plan.status = status(cron_job, jobs, &active, &last);
        plan
    }

    /// Says of Jobs that were active how they have ended.
    fn tell_ends(&mut self, cron_job: &Value, jobs: &[&Arc<Value>]) {
        let listed = cron_job.pointer("/status/active").and_then(Value::as_array);
        for before in listed.into_iter().flatten() {
            let job = jobs.iter().find(|job| uid(job) == text(before, "/uid"));
            let name = text(before, "/name");
            let note = match job.map(|job| jobs::end(job)) {
                Some(None) => continue,
                Some(Some(end)) => {
                    let kind = text(end, "/type");
                    let message = format!("Saw completed job: {name}, condition: {kind}");
                    (Tone::Normal, "SawCompletedJob", message)
                }
                None => {
                    let message = format!("Active job went missing: {name}");
                    (Tone::Normal, "MissingJob", message)
                }
            };
            self.notes.push(note);
        }
    }

    /// Removes the oldest of the Jobs that have ended, beyond as many as are kept.
    fn clean_up(&mut self, cron_job: &Value, jobs: &[&Arc<Value>]) {
        for (kind, field) in [
            ("Complete", "/spec/successfulJobsHistoryLimit"),
            ("Failed", "/spec/failedJobsHistoryLimit"),
        ] {
            let Some(kept) = number(cron_job, field).and_then(|kept| usize::try_from(kept).ok())
            else {
                continue;
            };
            let of_kind = |job: &&Arc<Value>| jobs::end(job).is_some_and(|end| end["type"] == kind);
            let mut ended: Vec<&Arc<Value>> = jobs.iter().copied().filter(of_kind).collect();
            ended.sort_by_key(|job| {
                let begun = text(job, "/status/startTime").to_owned();
                (begun, text(job, "/metadata/name").to_owned())
            });
            let surplus = ended.len().saturating_sub(kept);
            self.delete(ended.into_iter().take(surplus));
        }
    }

    fn delete<'a>(&mut self, jobs: impl Iterator<Item = &'a Arc<Value>>) {
        for job in jobs {
            let message = format!("Deleted job {}", text(job, "/metadata/name"));
            self.notes.push((Tone::Normal, "SuccessfulDelete", message));
            self.delete.push(job.clone());
        }
    }

    /// Starts the Job of a time, if it may; whether that time is done with.
    fn start(
        &mut self,
        cron_job: &Value,
        jobs: &[&Arc<Value>],
        active: &[&Arc<Value>],
        time: i64,
        told: Option<i64>,
    ) -> bool {
        let job = job(cron_job, time);
        let name = text(&job, "/metadata/name");
        if jobs
            .iter()
            .any(|other| text(other, "/metadata/name") == name)
        {
            return true;
        }
        match text(cron_job, "/spec/concurrencyPolicy") {
            "Forbid" if !active.is_empty() => {
                if told != Some(time) {
                    let message = "Not starting job because prior execution is running and \
                                   concurrency policy is Forbid";
                    self.notes
                        .push((Tone::Normal, "JobAlreadyActive", message.into()));
                    self.skipped = Some(time);
                }
                return false;
            }
            "Replace" => self.delete(active.iter().copied()),
            _ => {}
        }
        self.make = Some(job);
        true
    }
}

/// Whether a CronJob's Job runs. One that somebody has made of it by hand is none of its business.
fn is_active(job: &Value) -> bool {
    let annotations = job.pointer("/metadata/annotations");
    let by_hand =
        annotations.is_some_and(|all| all["cronjob.kubernetes.io/instantiate"].is_string());
    jobs::end(job).is_none() && !is_terminating(job) && !by_hand
}

/// A time for which there is no Job yet.
#[derive(Debug, PartialEq)]
struct Due {
    time: i64,
    /// How many there were since the last one with a Job, about.
    missed: i64,
}

/// The last time of the schedule until now of which no Job has come.
fn due(cron_job: &Value, now: i64) -> Result<Option<Due>, String> {
    let zone = cron_job.pointer("/spec/timeZone").and_then(Value::as_str);
    let schedule = Schedule::parse(text(cron_job, "/spec/schedule"), zone)?;
    let since = match text(cron_job, "/status/lastScheduleTime") {
        "" => text(cron_job, "/metadata/creationTimestamp"),
        last => last,
    };
    let mut since = seconds_since_1970(since).unwrap_or(now);
    if let Some(deadline) = number(cron_job, "/spec/startingDeadlineSeconds") {
        // What lies further back is missed for good.
        since = since.max(now.saturating_sub(deadline));
    }
    let Some(first) = schedule.next(since).filter(|first| *first <= now) else {
        return Ok(None);
    };
    let second = schedule.next(first).filter(|second| *second <= now);
    let Some(second) = second else {
        let missed = 1;
        return Ok(Some(Due {
            time: first,
            missed,
        }));
    };
    // From near the end on, however long ago the first was; further back as long as there is none, since
    // not all distances are as the first.
    let step = (second - first).max(1);
    let steps = (now - first) / step;
    let mut back = 1;
    let mut time = loop {
        let at = first + (steps - back).max(0) * step;
        match schedule.next(at).filter(|next| *next <= now) {
            Some(found) => break found,
            None => back *= 2,
        }
    };
    while let Some(next) = schedule.next(time).filter(|next| *next <= now) {
        time = next;
    }
    let missed = steps + 1;
    Ok(Some(Due { time, missed }))
}

fn job(cron_job: &Value, time: i64) -> Value {
    let template = &cron_job["spec"]["jobTemplate"];
    let mut metadata = json!({
        "name": format!("{}-{}", text(cron_job, "/metadata/name"), time / 60),
        "namespace": cron_job["metadata"]["namespace"],
        "annotations": {
            "batch.kubernetes.io/cronjob-scheduled-timestamp": clock::of_seconds(time),
        },
        "ownerReferences": owner_reference(cron_job),
    });
    let annotations = template["metadata"]["annotations"].as_object();
    for (key, value) in annotations.into_iter().flatten() {
        metadata["annotations"][key] = value.clone();
    }
    if template["metadata"]["labels"].is_object() {
        metadata["labels"] = template["metadata"]["labels"].clone();
    }
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": template["spec"]})
}

fn status(cron_job: &Value, jobs: &[&Arc<Value>], active: &[&Arc<Value>], last: &str) -> Value {
    let reference = |job: &&Arc<Value>| {
        json!({
            "apiVersion": "batch/v1", "kind": "Job", "name": job["metadata"]["name"],
            "namespace": job["metadata"]["namespace"], "uid": job["metadata"]["uid"],
        })
    };
    let complete = jobs.iter().filter_map(|job| {
        let time = text(job, "/status/completionTime");
        (!time.is_empty()).then_some(time)
    });
    let before = text(cron_job, "/status/lastSuccessfulTime");
    let successful = complete.chain([before]).max().unwrap_or_default();
    let mut status = json!({});
    if !active.is_empty() {
        status["active"] = active.iter().map(reference).collect();
    }
    for (field, time) in [
        ("lastScheduleTime", last),
        ("lastSuccessfulTime", successful),
    ] {
        if !time.is_empty() {
            status[field] = time.into();
        }
    }
    status
}

/// Makes and removes a CronJob's Jobs, and says which run.
pub(super) fn look(
    agent: &Agent,
    cron_job: &Value,
    jobs: &[Arc<Value>],
    expected: &mut Expected,
) -> Outcome {
    if is_terminating(cron_job) {
        return Ok(());
    }
    let own: Vec<&Arc<Value>> = jobs
        .iter()
        .filter(|job| owner_uid(job) == uid(cron_job))
        .collect();
    let told = expected.cron_jobs.0.get(uid(cron_job)).copied();
    let plan = Plan::of(cron_job, &own, told, clock::seconds());
    if let Some(skipped) = plan.skipped {
        expected
            .cron_jobs
            .0
            .insert(uid(cron_job).to_owned(), skipped);
    }
    let note = |tone, reason, message| {
        let about = (cron_job, None);
        agent
            .events
            .note(component(cron_job), about, tone, reason, message);
    };
    for job in &plan.delete {
        agent.remove("jobs", job)?;
    }
    for (tone, reason, message) in plan.notes {
        note(tone, reason, message);
    }
    if let Some(job) = plan.make
        && !expected.has(&job)
    {
        let message = format!("Created job {}", text(&job, "/metadata/name"));
        expected.note(&job);
        agent.create(job)?;
        note(Tone::Normal, "SuccessfulCreate", message);
    }
    super::write_changed(agent, "cronjobs", cron_job, plan.status)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-30, 04:00.
    const FOUR: i64 = 1_796_011_200;

    fn cron_job(spec: Value) -> Value {
        let mut spec = spec;
        spec["jobTemplate"] = json!({"metadata": {"labels": {"app": "tick"}}, "spec": {}});
        json!({"apiVersion": "batch/v1", "kind": "CronJob", "spec": spec, "metadata": {
            "name": "tick", "namespace": "ns", "uid": "u", "creationTimestamp": clock::of_seconds(FOUR)}})
    }

    /// A Job that has ended by this condition, or runs.
    fn child(name: &str, end: Option<&str>) -> Arc<Value> {
        let mut job = json!({"metadata": {"name": name, "uid": name},
            "status": {"startTime": name}});
        if let Some(kind) = end {
            job["status"]["conditions"] = json!([{"type": kind, "status": "True"}]);
            job["status"]["completionTime"] = "2026-11-30T04:01:09Z".into();
        }
        Arc::new(job)
    }

    fn plan(cron_job: &Value, jobs: &[Arc<Value>], after: i64) -> Plan {
        let jobs: Vec<&Arc<Value>> = jobs.iter().collect();
        Plan::of(cron_job, &jobs, None, FOUR + after)
    }

    fn told(plan: &Plan) -> Vec<&str> {
        plan.notes.iter().map(|(_, reason, _)| *reason).collect()
    }

    #[test]
    fn a_job_comes_at_its_time_and_once() {
        let mut tick = cron_job(json!({"schedule": "* * * * *"}));
        assert!(plan(&tick, &[], 59).make.is_none());
        let first = plan(&tick, &[], 61);
        let made = first.make.unwrap();
        let name = format!("tick-{}", FOUR / 60 + 1);
        assert_eq!(made["metadata"]["name"], name.as_str());
        assert_eq!(made["metadata"]["labels"]["app"], "tick");
        assert_eq!(owner_uid(&made), "u");
        tick["status"] = first.status;
        assert_eq!(tick["status"]["lastScheduleTime"], "2026-11-30T04:01:00Z");
        let runs = [child(&name, None)];
        let second = plan(&tick, &runs, 70);
        assert!(second.make.is_none());
        assert_eq!(second.status["active"][0]["name"], name.as_str());
        tick["status"] = second.status;
        let third = plan(&tick, &[child(&name, Some("Complete"))], 80);
        assert_eq!(told(&third), ["SawCompletedJob"]);
        assert!(third.status["active"].is_null());
        assert_eq!(third.status["lastSuccessfulTime"], "2026-11-30T04:01:09Z");
    }

    #[test]
    fn one_job_makes_up_for_all_that_were_missed() {
        let tick = cron_job(json!({"schedule": "*/5 * * * *"}));
        let found = due(&tick, FOUR + 3605).unwrap().unwrap();
        assert_eq!((found.time, found.missed), (FOUR + 3600, 12));
        let many = plan(&tick, &[], 86_400);
        assert_eq!(told(&many), ["TooManyMissedTimes"]);
        let deadline = cron_job(json!({"schedule": "*/5 * * * *", "startingDeadlineSeconds": 30}));
        assert_eq!(due(&deadline, FOUR + 3631), Ok(None));
        let found = due(&deadline, FOUR + 3629).unwrap().unwrap();
        assert_eq!((found.time, found.missed), (FOUR + 3600, 1));
        let every = cron_job(json!({"schedule": "@every 7s"}));
        let found = due(&every, FOUR + 100).unwrap().unwrap();
        assert_eq!((found.time, found.missed), (FOUR + 98, 14));
        // Unequal distances: at nine, ten and then in the morning.
        let uneven = cron_job(json!({"schedule": "0 9,10 * * *"}));
        let found = due(&uneven, FOUR + 28 * 3600).unwrap().unwrap();
        assert_eq!(found.time, FOUR + 6 * 3600);
    }

    #[test]
    fn what_still_runs_is_let_be_waited_for_or_replaced() {
        let runs = [child("tick-1", None)];
        for (policy, makes, deletes) in [
            ("Allow", true, 0),
            ("Forbid", false, 0),
            ("Replace", true, 1),
        ] {
            let tick = cron_job(json!({"schedule": "* * * * *", "concurrencyPolicy": policy}));
            let plan = plan(&tick, &runs, 61);
            assert_eq!(
                (plan.make.is_some(), plan.delete.len()),
                (makes, deletes),
                "{policy}"
            );
        }
        let forbid = cron_job(json!({"schedule": "* * * * *", "concurrencyPolicy": "Forbid"}));
        let first = plan(&forbid, &runs, 61);
        assert_eq!(told(&first), ["JobAlreadyActive"]);
        let jobs: Vec<&Arc<Value>> = runs.iter().collect();
        let again = Plan::of(&forbid, &jobs, first.skipped, FOUR + 63);
        assert_eq!(told(&again), [""; 0], "told once of each time");
        let by_hand = {
            let mut job = (*runs[0]).clone();
            job["metadata"]["annotations"] = json!({"cronjob.kubernetes.io/instantiate": "manual"});
            Arc::new(job)
        };
        assert!(plan(&forbid, &[by_hand], 61).make.is_some());
    }

    #[test]
    fn suspended_it_makes_none_and_still_cleans_up() {
        let tick = cron_job(json!({"schedule": "* * * * *", "suspend": true,
            "successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 0}));
        let jobs = [
            child("tick-3", Some("Complete")),
            child("tick-1", Some("Complete")),
            child("tick-2", Some("Failed")),
            child("tick-4", None),
        ];
        let plan = plan(&tick, &jobs, 3600);
        assert!(plan.make.is_none());
        let gone: Vec<&str> = plan.delete.iter().map(|job| uid(job)).collect();
        assert_eq!(gone, ["tick-1", "tick-2"]);
    }
}
