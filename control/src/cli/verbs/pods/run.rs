//! `run`: a pod from the command line, with a session in it if wanted (kubectl `pkg/cmd/run`).

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cli::flags::{Flag, optional, switch, value};
use crate::cli::session::{Session, VerbError};
use crate::cli::verbs::done::Done;
use crate::cli::verbs::mutate::{DryRun, dry_run};
use crate::cli::verbs::watched::Watched;
use crate::cli::verbs::{OUTPUT, TEMPLATE, target};
use crate::lab_protocol::{self, LogsRequest};
use crate::protocol::{ApplyParams, DeleteParams, Mutation, WatchEventType};

use super::attach::{Streams, attach};
use super::choose::{self, Purpose};
use super::objects::{Options, override_with};
use super::{POD_RUNNING_TIMEOUT, QUIET, STDIN, TTY};

/// Flags of `run`.
pub const FLAGS: &[Flag] = &[
    value("image", None, "The container's image; required"),
    STDIN,
    TTY,
    switch("rm", None, "Delete the pod when the session is over"),
    value(
        "restart",
        None,
        "Always (default), OnFailure or Never; with the last two the exit status is the command's",
    ),
    value("env", None, "NAME=VALUE for the container; may be repeated"),
    value("port", None, "The port that the container serves"),
    switch("expose", None, "Make a Service for --port too"),
    value(
        "labels",
        Some('l'),
        "Labels of the pod, as a=b,c=d; default run=NAME",
    ),
    value(
        "annotations",
        None,
        "KEY=VALUE for the pod; may be repeated",
    ),
    switch(
        "command",
        None,
        "What follows -- is the command, not the image's command's arguments",
    ),
    value("overrides", None, "JSON to merge into the pod"),
    value(
        "override-type",
        None,
        "How --overrides is merged: merge (default), strategic or json",
    ),
    switch(
        "attach",
        None,
        "Wait for the container, then attach; default with -i",
    ),
    switch(
        "leave-stdin-open",
        None,
        "The container's standard input outlives the first session",
    ),
    switch(
        "privileged",
        None,
        "Ask for privileges, which a lab does not give",
    ),
    QUIET,
    POD_RUNNING_TIMEOUT,
    optional("dry-run", "unchanged", "none, client or server"),
    OUTPUT,
    TEMPLATE,
    value(
        "replicas",
        Some('r'),
        "kubectl up to 1.17: how many pods the Deployment has (1)",
    ),
    value(
        "generator",
        None,
        "kubectl up to 1.17: what to make, as run-pod/v1",
    ),
    value("image-pull-policy", None, ""),
    value("field-manager", None, ""),
    switch("save-config", None, ""),
];

/// A pod that ends within this is not attached to.
const SHORT_LIFE: Duration = Duration::from_millis(400);
/// How long to wait for the pod.
const POD_TIMEOUT: Duration = Duration::from_secs(60);

/// An object that was made.
struct Created {
    /// Before the slash: `deployment.apps`.
    shown: String,
    object: Value,
}

/// Runs `run`; with a session in a pod that is not started again its exit status is the command's.
pub fn run(session: &mut Session) -> Result<(), VerbError> {
    let kubectl = session.kubectl()?;
    let options = Options::read(&session.parsed, kubectl)?;
    let limit = super::pod_timeout(&session.parsed, POD_TIMEOUT)?;
    let dry_run = dry_run(session.parsed.value("dry-run"))?;
    if options.attach && dry_run != DryRun::None {
        return Err(VerbError::Local(
            "--dry-run=[server|client] can't be used with attached containers options (--attach, \
             --stdin, or --tty)"
                .into(),
        ));
    }
    if let Some(generator) = options.generator()
        && kubectl.run_deprecates_workloads()
    {
        eprintln!(
            "kubectl run --generator={generator} is DEPRECATED and will be removed in a future \
             version. Use kubectl run --generator=run-pod/v1 or kubectl create instead."
        );
    }
    let mut done = Done::new(session, dry_run)?;
    let mut workload = options.workload();
    override_with(&session.parsed, &mut workload)?;
    let mut wanted = vec![workload];
    if options.expose {
        wanted.push(options.service());
    }
    let (mut created, mut errors) = (Vec::new(), Vec::new());
    for (at, object) in wanted.into_iter().enumerate() {
        match create(session, object, dry_run) {
            Ok(one) => created.push(one),
            Err(error) if at == 0 => return Err(error),
            Err(error) => errors.push(error),
        }
    }
    if !options.attach {
        for one in &created {
            done.print(&one.shown, &one.object, "created")?;
        }
        return VerbError::all(errors);
    }
    let outcome = converse(session, &options, &created[0].object, limit);
    if options.remove {
        for one in &created {
            remove(session, one)?;
        }
    }
    outcome?;
    VerbError::all(errors)
}

fn create(session: &mut Session, object: Value, dry_run: DryRun) -> Result<Created, VerbError> {
    let shown = match object["kind"].as_str() {
        Some("Deployment") => "deployment.apps",
        Some("Job") => "job.batch",
        Some("Service") => "service",
        _ => "pod",
    };
    let mut object = object;
    if dry_run == DryRun::Client {
        if let Some(namespace) = session.namespace() {
            object["metadata"]["namespace"] = namespace.into();
        }
    } else {
        // What only a client's form of the object has.
        if let Some(fields) = object.as_object_mut() {
            fields.shift_remove("status");
        }
        let params = ApplyParams {
            objects: vec![object.clone()],
            namespace: session.namespace(),
            dry_run: dry_run == DryRun::Server,
            ..ApplyParams::default()
        };
        let mutation: Mutation = session.connect()?.call("create", params)?;
        session.report_mutation(&mutation)?;
        if let Some(result) = mutation.results.first() {
            object = result.object.clone();
        }
    }
    Ok(Created {
        shown: shown.to_owned(),
        object,
    })
}

fn remove(session: &mut Session, one: &Created) -> Result<(), VerbError> {
    let params = DeleteParams {
        targets: vec![target(&one.shown, &one.object)],
        ignore_not_found: true,
        grace_period: None,
        orphan: false,
        dry_run: false,
    };
    session.connect()?.call::<Mutation>("delete", params)?;
    if !session.parsed.is_on("quiet") {
        let metadata = &one.object["metadata"];
        let name = metadata["name"].as_str().unwrap_or_default();
        let namespace = metadata["namespace"].as_str();
        let line = session
            .kubectl()?
            .deleted(&one.shown, name, "deleted", namespace);
        println!("{line}");
    }
    Ok(())
}

/// A session in the pod, or its log if it is over already; then its exit status.
fn converse(
    session: &mut Session,
    options: &Options,
    made: &Value,
    limit: Duration,
) -> Result<(), VerbError> {
    let mut client = session.connect()?;
    let pod = choose::pod(&mut client, made.clone(), Purpose::Session, limit)?.pod;
    let begun = |pod: &Value| {
        let ready = choose::condition(pod, "Ready").is_some_and(|c| c["status"] == "True");
        choose::ended(pod).is_some() || (pod["status"]["phase"] == "Running" && ready)
    };
    let pod = wait_for(session, &pod, limit, begun)?;
    let pod = match short_life(session, &pod)? {
        Some(ended) => ended,
        None => pod,
    };
    if choose::ended(&pod).is_some() {
        print_log(session, &pod, None)?;
    } else {
        attach(session, &pod, None, Streams::of(session))?;
    }
    if !options.has_status() {
        return Ok(());
    }
    let succeeds = options.restart_policy == "OnFailure";
    let over = |pod: &Value| match choose::ended(pod) {
        Some(phase) => !succeeds || phase == "Succeeded",
        None => false,
    };
    exit_status(&wait_for(session, &pod, limit, over)?)
}

/// The pod, if it ends soon. A kubelet takes about a second to report that a pod runs, so that with
/// kubectl nobody attaches to a short command: its log is printed.
fn short_life(session: &mut Session, pod: &Value) -> Result<Option<Value>, VerbError> {
    until(session, pod, SHORT_LIFE, |pod| choose::ended(pod).is_some())
}

/// Waits until `holds` is true of the pod.
pub fn wait_for(
    session: &mut Session,
    pod: &Value,
    limit: Duration,
    holds: impl Fn(&Value) -> bool,
) -> Result<Value, VerbError> {
    let found = until(session, pod, limit, holds)?;
    found.ok_or_else(|| VerbError::Local("timed out waiting for the condition".into()))
}

/// As [`wait_for`]; none if it does not become true in time.
fn until(
    session: &mut Session,
    pod: &Value,
    limit: Duration,
    holds: impl Fn(&Value) -> bool,
) -> Result<Option<Value>, VerbError> {
    let deadline = Instant::now() + limit;
    let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str);
    let namespace = text("/metadata/namespace").map(str::to_owned);
    let mut watched = Watched::begin(session, vec!["pods".into()], namespace)?;
    let same = |object: &Value| object["metadata"]["uid"] == pod["metadata"]["uid"];
    if let Some(now) = watched.objects().find(|object| same(object))
        && holds(now)
    {
        return Ok(Some(now.clone()));
    }
    loop {
        let Some(event) = watched.next(Some(deadline))? else {
            return Ok(None);
        };
        if !same(&event.object) {
            continue;
        }
        if event.event == WatchEventType::Deleted {
            let name = text("/metadata/name").unwrap_or_default();
            return Err(VerbError::Local(format!(
                "pods \"{name}\" was deleted meanwhile"
            )));
        }
        if holds(&event.object) {
            return Ok(Some(event.object));
        }
    }
}

/// Prints what a container has written.
pub fn print_log(session: &Session, pod: &Value, container: Option<&str>) -> Result<(), VerbError> {
    let container = choose::container(pod, container, true)?;
    let request = LogsRequest {
        target: super::exec::target(pod, &container["name"]),
        ..LogsRequest::default()
    };
    let mut out = std::io::stdout().lock();
    lab_protocol::logs(&session.lab_socket()?, &request, &mut out)?;
    Ok(out.flush()?)
}

/// What a pod's end says: nothing, or the command's exit status.
fn exit_status(pod: &Value) -> Result<(), VerbError> {
    if pod["status"]["phase"] == "Succeeded" {
        return Ok(());
    }
    let text = |pointer: &str| {
        pod.pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    let ended = pod.pointer("/status/containerStatuses/0/state/terminated");
    let code = ended
        .and_then(|ended| ended["exitCode"].as_i64())
        .unwrap_or(0);
    if code == 0 {
        return Err(VerbError::Local(format!(
            "pod {namespace}/{name} failed with unknown exit code"
        )));
    }
    let field = |field: &str| {
        ended
            .and_then(|ended| ended[field].as_str())
            .unwrap_or_default()
    };
    let (reason, message) = (field("reason"), field("message"));
    eprintln!("pod {namespace}/{name} terminated ({reason})");
    if !message.is_empty() {
        eprintln!("{message}");
    }
    Err(VerbError::Status(u8::try_from(code).unwrap_or(1)))
}
