use super::*;

const BEGIN: i64 = 1_700_000_000;

/// A Job played with pods that end as they are told.
struct Played {
    job: Value,
    pods: Vec<Arc<Value>>,
    tally: Tally,
    made: usize,
}

impl Played {
    fn new(spec: Value) -> Played {
        let mut spec = spec;
        spec["template"] = json!({"spec": {"containers": [{"name": "c"}], "restartPolicy":
            spec["restartPolicy"].as_str().unwrap_or("Never")}});
        Played {
            job: json!({"apiVersion": "batch/v1", "kind": "Job", "spec": spec,
                "metadata": {"name": "work", "namespace": "ns", "uid": "u"}}),
            pods: Vec::new(),
            tally: Tally::default(),
            made: 0,
        }
    }

    /// Looks at the Job so many seconds after its begin, and does what is to be done.
    fn look(&mut self, after: i64) -> Plan {
        let own: Vec<&Arc<Value>> = self.pods.iter().collect();
        let plan = Plan::of(&self.job, &own, &mut self.tally, &|_| 0, BEGIN + after);
        let gone: Vec<&str> = plan.delete.iter().map(|pod| uid(pod)).collect();
        self.pods.retain(|pod| !gone.contains(&uid(pod)));
        for pod in &plan.make {
            let mut pod = pod.clone();
            self.made += 1;
            pod["metadata"]["uid"] = format!("pod{}", self.made).into();
            self.pods.push(Arc::new(pod));
        }
        self.job["status"] = plan.status.clone();
        plan
    }

    /// Ends the first pod that runs.
    fn end(&mut self, phase: &str) {
        let at = self.pods.iter().position(|pod| is_active(pod)).unwrap();
        let mut pod = (*self.pods[at]).clone();
        pod["status"]["phase"] = phase.into();
        self.pods[at] = Arc::new(pod);
    }

    fn active(&self) -> usize {
        self.pods.iter().filter(|pod| is_active(pod)).count()
    }

    fn reason(&self) -> Option<&str> {
        end(&self.job).map(|end| text(end, "/reason"))
    }
}

fn told(plan: &Plan) -> Vec<&str> {
    plan.notes.iter().map(|(_, reason, _)| *reason).collect()
}

#[test]
fn as_many_run_at_once_as_may_until_all_are_done() {
    let mut job = Played::new(json!({"completions": 3, "parallelism": 2, "backoffLimit": 6}));
    job.look(0);
    assert_eq!(job.active(), 2);
    job.end("Succeeded");
    job.look(1);
    assert_eq!(job.active(), 2);
    job.end("Succeeded");
    job.look(2);
    assert_eq!(job.active(), 1, "no more than are missing");
    // One that has succeeded counts, though somebody deletes it.
    job.pods.retain(|pod| is_active(pod));
    job.end("Succeeded");
    let plan = job.look(3);
    assert_eq!(
        (job.reason(), told(&plan)),
        (Some("CompletionsReached"), vec!["Completed"])
    );
    assert_eq!(job.job["status"]["succeeded"], 3);
    assert_eq!(job.job["status"]["completionTime"], "2023-11-14T22:13:23Z");
    assert_eq!(job.made, 3);
}

#[test]
fn fewer_may_run_at_once_from_now_on() {
    let mut job = Played::new(json!({"completions": 9, "parallelism": 3}));
    job.look(0);
    job.job["spec"]["parallelism"] = 1.into();
    let plan = job.look(1);
    assert_eq!((job.active(), plan.delete.len()), (1, 2));
}

#[test]
fn without_completions_one_success_is_the_end_of_the_work() {
    let mut job = Played::new(json!({"parallelism": 2, "backoffLimit": 6}));
    job.look(0);
    job.end("Succeeded");
    job.look(1);
    assert_eq!((job.active(), job.made, job.reason()), (1, 2, None));
    job.end("Succeeded");
    job.look(2);
    assert_eq!((job.made, job.reason()), (2, Some("CompletionsReached")));
}

#[test]
fn a_failed_pod_is_replaced_after_a_pause_up_to_the_limit() {
    let mut job = Played::new(json!({"completions": 1, "parallelism": 1, "backoffLimit": 1}));
    job.look(0);
    job.end("Failed");
    job.look(1);
    job.look(10);
    assert_eq!(job.active(), 0);
    job.look(11);
    assert_eq!(job.active(), 1);
    job.end("Failed");
    let plan = job.look(12);
    assert_eq!(job.reason(), Some("BackoffLimitExceeded"));
    assert_eq!(told(&plan), ["BackoffLimitExceeded"]);
    assert_eq!(job.job["status"]["failed"], 2);
}

#[test]
fn containers_that_start_again_count_as_failures() {
    let mut job = Played::new(
        json!({"completions": 1, "parallelism": 1, "backoffLimit": 2,
        "restartPolicy": "OnFailure"}),
    );
    job.look(0);
    let restarted = |job: &mut Played, times: i64| {
        let mut pod = (*job.pods[0]).clone();
        pod["status"]["containerStatuses"] = json!([{"restartCount": times}]);
        job.pods[0] = Arc::new(pod);
    };
    restarted(&mut job, 1);
    job.look(1);
    assert_eq!(job.reason(), None);
    restarted(&mut job, 2);
    job.look(2);
    assert_eq!(
        (job.reason(), job.active()),
        (Some("BackoffLimitExceeded"), 0)
    );
}

#[test]
fn its_time_is_over() {
    let mut job = Played::new(json!({"completions": 1, "parallelism": 1,
        "activeDeadlineSeconds": 30, "ttlSecondsAfterFinished": 60}));
    job.look(0);
    job.look(29);
    assert_eq!(job.active(), 1);
    let plan = job.look(30);
    assert_eq!((job.active(), job.reason()), (0, Some("DeadlineExceeded")));
    assert_eq!(told(&plan), ["SuccessfulDelete", "DeadlineExceeded"]);
    assert!(!job.look(89).remove);
    assert!(job.look(90).remove);
}

#[test]
fn suspended_it_has_no_pods_and_its_time_stands_still() {
    let mut job = Played::new(json!({"completions": 1, "parallelism": 1,
        "activeDeadlineSeconds": 30}));
    job.look(0);
    job.job["spec"]["suspend"] = true.into();
    let plan = job.look(20);
    assert_eq!(
        (job.active(), told(&plan)),
        (0, vec!["SuccessfulDelete", "Suspended"])
    );
    assert!(job.job["status"]["startTime"].is_null());
    assert_eq!(told(&job.look(100)), [""; 0]);
    job.job["spec"]["suspend"] = false.into();
    let plan = job.look(200);
    assert_eq!((job.active(), told(&plan)), (1, vec!["Resumed"]));
    job.look(229);
    assert_eq!(job.reason(), None);
    job.look(230);
    assert_eq!(job.reason(), Some("DeadlineExceeded"));
    let conditions = job.job["status"]["conditions"].as_array().unwrap();
    let kinds: Vec<&str> = conditions.iter().map(|c| text(c, "/type")).collect();
    assert_eq!(kinds, ["Suspended", "FailureTarget", "Failed"]);
    assert_eq!(conditions[0]["reason"], "JobResumed");
}

#[test]
fn each_index_is_done_once() {
    let mut job = Played::new(
        json!({"completions": 3, "parallelism": 2, "backoffLimit": 6,
        "completionMode": "Indexed"}),
    );
    let indexes = |plan: &Plan| -> Vec<i64> { plan.make.iter().filter_map(index_of).collect() };
    let plan = job.look(0);
    assert_eq!(indexes(&plan), [0, 1]);
    assert_eq!(plan.make[1]["spec"]["hostname"], "work-1");
    let variable = &plan.make[1]["spec"]["containers"][0]["env"][0];
    assert_eq!(variable["name"], "JOB_COMPLETION_INDEX");
    job.end("Failed");
    job.end("Succeeded");
    assert_eq!(
        indexes(&job.look(1)),
        [0_i64; 0],
        "after a failure there is a pause"
    );
    assert_eq!(indexes(&job.look(11)), [0, 2]);
    assert_eq!(job.job["status"]["completedIndexes"], "1");
    job.end("Succeeded");
    job.end("Succeeded");
    job.look(12);
    assert_eq!(job.reason(), Some("CompletionsReached"));
    assert_eq!(job.job["status"]["completedIndexes"], "0-2");
    assert_eq!(ranges(&BTreeSet::from([0, 1, 3, 4, 5, 7])), "0,1,3-5,7");
}
