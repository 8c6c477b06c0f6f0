//! Jobs and CronJobs (`pkg/apis/batch/validation`).

use serde_json::Value;

use super::{Findings, workload};
use crate::cron::Schedule;
use crate::objects::Object;

/// Characters of a CronJob's name: its Jobs add eleven.
const CRON_JOB_NAME: usize = 52;
/// What an indexed Job may have of pods.
const INDEXES: i64 = 100_000;

/// Fields of a Job's spec that are kept and not heeded.
const UNHEEDED: [(&str, &str); 5] = [
    (
        "backoffLimitPerIndex",
        "backoffLimit counts for the whole Job",
    ),
    ("maxFailedIndexes", "backoffLimit counts for the whole Job"),
    (
        "podFailurePolicy",
        "every failure counts against backoffLimit",
    ),
    (
        "successPolicy",
        "a Job is complete when all its pods have succeeded",
    ),
    ("managedBy", "the lab's own controller runs every Job"),
];

pub(super) fn validate_job(object: &Object, old: Option<&Object>, findings: &mut Findings) {
    workload::validate_template(object, old, findings);
    let spec = &object.value()["spec"];
    job_spec(spec, "spec", findings);
    if let Some(old) = old {
        let old = &old.value()["spec"];
        for field in ["completions", "template", "completionMode"] {
            let grows = spec["completionMode"] == "Indexed"
                && field == "completions"
                && spec["completions"] == spec["parallelism"];
            if old[field] != spec[field] && !grows {
                let path = format!("spec.{field}");
                findings.invalid(path, spec[field].clone(), "field is immutable");
            }
        }
    }
}

fn not_negative(spec: &Value, path: &str, fields: &[&str], findings: &mut Findings) {
    for field in fields {
        if let Some(number) = spec[*field].as_i64()
            && number < 0
        {
            let message = "must be greater than or equal to 0";
            findings.invalid(format!("{path}.{field}"), number, message);
        }
    }
}

fn job_spec(spec: &Value, path: &str, findings: &mut Findings) {
    let fields = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
    ];
    not_negative(spec, path, &fields, findings);
    match spec["completionMode"].as_str() {
        None | Some("NonIndexed") => {}
        Some("Indexed") if spec["completions"].is_null() => {
            let message = "when completion mode is Indexed";
            findings.required(format!("{path}.completions"), message);
        }
        Some("Indexed") => {
            if let Some(count) = spec["completions"]
                .as_i64()
                .filter(|count| *count > INDEXES)
            {
                let message = format!("must be less than or equal to {INDEXES}");
                findings.invalid(format!("{path}.completions"), count, &message);
            }
        }
        Some(other) => {
            let supported = ["Indexed", "NonIndexed"];
            findings.unsupported(format!("{path}.completionMode"), other, &supported);
        }
    }
    for (field, instead) in UNHEEDED {
        if !spec[field].is_null() {
            let warning = format!("{path}.{field} has no effect here: {instead}");
            findings.warnings.push(warning);
        }
    }
}

pub(super) fn validate_cron_job(object: &Object, findings: &mut Findings) {
    let spec = &object.value()["spec"];
    if object.name().len() > CRON_JOB_NAME {
        let message = format!("must be no more than {CRON_JOB_NAME} characters");
        findings.invalid("metadata.name", object.name(), &message);
    }
    schedule(spec, findings);
    not_negative(
        spec,
        "spec",
        &[
            "startingDeadlineSeconds",
            "successfulJobsHistoryLimit",
            "failedJobsHistoryLimit",
        ],
        findings,
    );
    if let Some(policy) = spec["concurrencyPolicy"].as_str() {
        let supported = ["Allow", "Forbid", "Replace"];
        if !supported.contains(&policy) {
            findings.unsupported("spec.concurrencyPolicy", policy, &supported);
        }
    }
    let path = "spec.jobTemplate.spec";
    let job = &spec["jobTemplate"]["spec"];
    job_spec(job, path, findings);
    workload::validate_pod_template(&job["template"], path, &["OnFailure", "Never"], findings);
}

fn schedule(spec: &Value, findings: &mut Findings) {
    let text = spec["schedule"].as_str().unwrap_or_default();
    if text.is_empty() {
        findings.required("spec.schedule", "");
    } else if text.contains("TZ") {
        let message = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        findings.invalid("spec.schedule", text, message);
    } else if let Err(why) = Schedule::parse(text, None) {
        findings.invalid("spec.schedule", text, &why);
    }
    let Some(zone) = spec["timeZone"].as_str() else {
        return;
    };
    if zone.is_empty() {
        let message = "timeZone must be nil or non-empty string";
        findings.invalid("spec.timeZone", zone, message);
    } else if zone.eq_ignore_ascii_case("local") {
        let message =
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        findings.invalid("spec.timeZone", zone, message);
    } else if let Err(why) = crate::cron::time_zone(zone) {
        findings.invalid("spec.timeZone", zone, &why);
    }
}
