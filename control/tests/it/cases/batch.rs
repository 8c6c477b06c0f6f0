//! What the API server says of Jobs, CronJobs and probes (`pkg/apis/batch/validation`).

use control::cluster::{Cluster, Reason, Seeded};
use control::objects::Object;
use serde_json::{Value, json};

use super::scene::refusal_text;

fn template(container: Value) -> Value {
    let mut whole = json!({"name": "c", "image": "i"});
    for (field, value) in container.as_object().into_iter().flatten() {
        whole[field] = value.clone();
    }
    json!({"spec": {"restartPolicy": "Never", "containers": [whole]}})
}

fn object(kind: &str, spec: Value) -> Object {
    Object::new(json!({"apiVersion": "batch/v1", "kind": kind, "spec": spec,
        "metadata": {"name": "x", "namespace": "default"}}))
    .unwrap()
}

fn job(mut spec: Value) -> Object {
    spec["template"] = template(json!({}));
    object("Job", spec)
}

fn cron_job(mut spec: Value) -> Object {
    spec["jobTemplate"] = json!({"spec": {"template": template(json!({}))}});
    object("CronJob", spec)
}

/// The kept object with its defaults and the warnings, or the refusal.
fn created(object: Object) -> Result<(Value, Vec<String>), String> {
    let mut source = Seeded::new(7);
    let cluster = Cluster::new(&mut source);
    let mut transaction = cluster.begin(&mut source);
    match transaction.create(object) {
        Err(refusal) => {
            assert_eq!(refusal.reason, Reason::Invalid);
            Err(refusal.message)
        }
        Ok(_) => {
            let commit = transaction.commit();
            let kept = commit.events.last().unwrap().object.value().clone();
            Ok((kept, commit.warnings))
        }
    }
}

fn refused(object: Object, complaints: &[&str]) {
    let head = format!("The {} \"x\" is invalid: ", object.kind().kind);
    let expected = refusal_text(&head, complaints);
    assert_eq!(created(object).unwrap_err(), expected);
}

#[test]
fn a_schedule_and_its_zone() {
    for (spec, complaint) in [
        (json!({"schedule": ""}), "spec.schedule: Required value"),
        (
            json!({"schedule": "* * * *"}),
            "spec.schedule: Invalid value: \"* * * *\": expected exactly 5 fields, found 4: [* * * *]",
        ),
        (
            json!({"schedule": "TZ=UTC @daily"}),
            "spec.schedule: Invalid value: \"TZ=UTC @daily\": cannot use TZ or CRON_TZ in schedule, \
             use timeZone field instead",
        ),
        (
            json!({"schedule": "@daily", "timeZone": "Middle/Earth"}),
            "spec.timeZone: Invalid value: \"Middle/Earth\": unknown time zone Middle/Earth",
        ),
        (
            json!({"schedule": "@daily", "timeZone": "Local"}),
            "spec.timeZone: Invalid value: \"Local\": timeZone must be an explicit time zone as \
             defined in https://www.iana.org/time-zones",
        ),
        (
            json!({"schedule": "@daily", "concurrencyPolicy": "Wait"}),
            "spec.concurrencyPolicy: Unsupported value: \"Wait\": supported values: \"Allow\", \
             \"Forbid\", \"Replace\"",
        ),
        (
            json!({"schedule": "@daily", "startingDeadlineSeconds": -1}),
            "spec.startingDeadlineSeconds: Invalid value: -1: must be greater than or equal to 0",
        ),
    ] {
        refused(cron_job(spec), &[complaint]);
    }
    let (kept, warnings) = created(cron_job(json!({"schedule": "@daily"}))).unwrap();
    assert_eq!(warnings, [""; 0]);
    let spec = &kept["spec"];
    let history = (
        &spec["successfulJobsHistoryLimit"],
        &spec["failedJobsHistoryLimit"],
    );
    assert_eq!(history, (&json!(3), &json!(1)));
    assert_eq!(spec["concurrencyPolicy"], "Allow");
}

#[test]
fn a_jobs_numbers_and_what_is_not_heeded() {
    let complaint = "spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0";
    refused(job(json!({"backoffLimit": -1})), &[complaint]);
    let complaint = "spec.completions: Required value: when completion mode is Indexed";
    refused(
        job(json!({"completionMode": "Indexed", "parallelism": 2})),
        &[complaint],
    );
    let (_, warnings) = created(job(json!({"podFailurePolicy": {"rules": []}}))).unwrap();
    let warning =
        "spec.podFailurePolicy has no effect here: every failure counts against backoffLimit";
    assert_eq!(warnings, [warning]);
}

#[test]
fn a_job_has_one_pod_or_pods_that_share_the_work() {
    let completions = |spec| created(job(spec)).unwrap().0["spec"]["completions"].clone();
    assert_eq!(completions(json!({})), 1);
    assert_eq!(completions(json!({"parallelism": 3})), Value::Null);
    assert_eq!(completions(json!({"completions": 5})), 5);
}

#[test]
fn a_jobs_pods_stay_as_they_are() {
    let mut source = Seeded::new(7);
    let mut cluster = Cluster::new(&mut source);
    let mut transaction = cluster.begin(&mut source);
    transaction.create(job(json!({"completions": 1}))).unwrap();
    cluster = transaction.commit().cluster;
    let mut transaction = cluster.begin(&mut source);
    let refusal = transaction
        .replace(job(json!({"completions": 2})))
        .unwrap_err();
    let expected =
        "The Job \"x\" is invalid: spec.completions: Invalid value: 2: field is immutable";
    assert_eq!(refusal.message, expected);
}

#[test]
fn probes() {
    let pod = |probes: Value| {
        let spec = template(probes)["spec"].clone();
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "spec": spec,
            "metadata": {"name": "x", "namespace": "default"}});
        Object::new(pod).unwrap()
    };
    for (container, complaint) in [
        (
            json!({"livenessProbe": {}}),
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
        ),
        (
            json!({"startupProbe": {"tcpSocket": {"port": 1}, "httpGet": {"port": 1}}}),
            "spec.containers[0].startupProbe.tcpSocket: Forbidden: may not specify more than 1 \
             handler type",
        ),
        (
            json!({"livenessProbe": {"tcpSocket": {"port": 1}, "successThreshold": 2}}),
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ),
        (
            json!({"readinessProbe": {"tcpSocket": {"port": 1}, "periodSeconds": -1}}),
            "spec.containers[0].readinessProbe.periodSeconds: Invalid value: -1: must be greater \
             than or equal to 0",
        ),
        (
            json!({"readinessProbe": {"tcpSocket": {"port": 1}, "terminationGracePeriodSeconds": 1}}),
            "spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 1: \
             must not be set for readinessProbes",
        ),
    ] {
        refused(pod(container), &[complaint]);
    }
}
