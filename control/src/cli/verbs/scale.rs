//! `scale`: how many pods an object wants.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cli::flags::{Flag, optional, switch, value};
use crate::cli::session::{Session, VerbError};
use crate::cli::values;
use crate::client::{Client, ClientError};
use crate::daemon::server::refused;
use crate::protocol::{GetParams, GetReply, Mutation, PatchParams, PatchType, Reason};

use super::done::Done;
use super::find::{Found, find};
use super::mutate::{DryRun, dry_run};
use super::{FILES, MISSING_KEYS, OUTPUT, SELECTOR, TEMPLATE};

/// Flags of `scale`.
pub const FLAGS: &[Flag] = &[
    FILES[0],
    FILES[1],
    FILES[2],
    SELECTOR,
    OUTPUT,
    TEMPLATE,
    MISSING_KEYS,
    value("replicas", None, "How many pods there are to be; required"),
    value(
        "current-replicas",
        None,
        "Only if so many are wanted now; -1 for any number (default)",
    ),
    value(
        "resource-version",
        None,
        "Only if the object has this resource version",
    ),
    switch("all", None, "All objects of the kinds in the namespace"),
    value(
        "timeout",
        None,
        "Wait so long, as 30s or 1m, until there are as many; 0 (default) does not wait",
    ),
    optional("dry-run", "unchanged", "none, client or server"),
];

/// Kinds that have a number of pods.
const SCALABLE: &[&str] = &[
    "deployments.apps",
    "replicasets.apps",
    "statefulsets.apps",
    "replicationcontrollers",
];

/// How often to try again while others change the object.
const RETRY_EVERY: Duration = Duration::from_millis(100);
/// And for how long.
const RETRY_FOR: Duration = Duration::from_secs(300);
/// How often to look whether there are as many pods as wanted.
const LOOK: Duration = Duration::from_millis(100);

/// What must hold of an object for it to be scaled.
struct Precondition<'a> {
    replicas: Option<i64>,
    resource_version: Option<&'a str>,
}

/// Runs `scale`.
pub fn run(session: &mut Session) -> Result<(), VerbError> {
    let local = |text: &str| VerbError::Local(text.to_owned());
    let replicas = values::integer(&session.parsed, "replicas")?;
    let current = values::integer(&session.parsed, "current-replicas")?.unwrap_or(-1);
    let limit = values::limit(&session.parsed, "timeout")?;
    let replicas = replicas.ok_or_else(|| local("required flag(s) \"replicas\" not set"))?;
    let dry_run = dry_run(session.parsed.value("dry-run"))?;
    let mut done = Done::new(session, dry_run)?;
    if replicas < 0 {
        return Err(local(
            "The --replicas=COUNT flag is required, and COUNT must be greater than or equal to 0",
        ));
    }
    if current < -1 {
        return Err(local(
            "The --current-replicas must specify an integer of -1 or greater",
        ));
    }
    let mut client = session.connect()?;
    let (found, missing) = find(session, &mut client, false)?;
    let version = session.parsed.value("resource-version");
    let precondition = Precondition {
        replicas: Some(current).filter(|current| *current != -1),
        resource_version: version.filter(|version| !version.is_empty()),
    };
    if precondition.resource_version.is_some() && found.len() > 1 {
        return Err(local(
            "cannot use --resource-version with multiple resources",
        ));
    }
    if found.is_empty() {
        VerbError::all(missing)?;
        return Err(local("no objects passed to scale"));
    }
    for one in &found {
        if dry_run == DryRun::Client {
            let mut object = one.object.clone();
            object["spec"]["replicas"] = replicas.into();
            done.print(&one.shown, &object, "scaled")?;
            continue;
        }
        let mutation = scale(
            &mut client,
            one,
            replicas,
            &precondition,
            dry_run != DryRun::None,
        )?;
        if let Some(limit) = limit.filter(|_| dry_run == DryRun::None) {
            wait_for(&mut client, one, replicas, limit)?;
        }
        let object = mutation.results.first().map(|result| &result.object);
        done.print(&one.shown, object.unwrap_or(&one.object), "scaled")?;
        session.report_mutation(&mutation)?;
    }
    VerbError::all(missing)
}

/// Changes one object; again, as long as others change it between the look and the change.
fn scale(
    client: &mut Client,
    one: &Found,
    replicas: i64,
    precondition: &Precondition<'_>,
    dry_run: bool,
) -> Result<Mutation, VerbError> {
    if !SCALABLE.contains(&one.resource.as_str()) {
        // What kubectl is told by a server on which the kind has no `scale`.
        let message = "the server could not find the requested resource";
        return Err(ClientError::Refused(refused(Reason::NotFound, message)).into());
    }
    let begun = Instant::now();
    loop {
        let mut patch = json!({"spec": {"replicas": replicas}});
        if precondition.replicas.is_some() || precondition.resource_version.is_some() {
            let live = get(client, one)?;
            check(precondition, &live)?;
            // What was checked is what is changed, or the daemon refuses.
            patch["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"].clone();
        }
        let params = PatchParams {
            target: one.target(),
            patch_type: PatchType::Merge,
            patch,
            dry_run,
            field_validation: Default::default(),
        };
        match client.call("patch", params) {
            Err(ref error)
                if error.reason() == Some(Reason::Conflict) && begun.elapsed() < RETRY_FOR =>
            {
                std::thread::sleep(RETRY_EVERY);
            }
            other => return Ok(other?),
        }
    }
}

fn get(client: &mut Client, one: &Found) -> Result<Value, ClientError> {
    let target = one.target();
    let params = GetParams {
        resource: target.resource,
        namespace: target.namespace,
        name: Some(target.name),
        ..GetParams::default()
    };
    let reply: GetReply = client.call("get", params)?;
    Ok(reply.items.into_iter().next().unwrap_or_default())
}

fn check(precondition: &Precondition<'_>, live: &Value) -> Result<(), VerbError> {
    let wrong = |what: &str, expected: &str, actual: &str| {
        Err(VerbError::Local(format!(
            "Expected {what} to be {expected}, was {actual}"
        )))
    };
    let replicas = live["spec"]["replicas"].as_i64().unwrap_or(0);
    if let Some(expected) = precondition.replicas.filter(|wanted| *wanted != replicas) {
        return wrong("replicas", &expected.to_string(), &replicas.to_string());
    }
    let version = live["metadata"]["resourceVersion"]
        .as_str()
        .unwrap_or_default();
    match precondition.resource_version {
        Some(expected) if expected != version => wrong("resource version", expected, version),
        _ => Ok(()),
    }
}

/// Waits until there are as many pods as wanted, or somebody wants another number.
fn wait_for(
    client: &mut Client,
    one: &Found,
    replicas: i64,
    limit: Duration,
) -> Result<(), VerbError> {
    let begun = Instant::now();
    loop {
        let live = get(client, one)?;
        let number = |pointer: &str| live.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
        if number("/spec/replicas") != replicas || number("/status/replicas") == replicas {
            return Ok(());
        }
        if begun.elapsed() >= limit {
            return Err(VerbError::Local(format!(
                "timed out waiting for \"{}\" to be synced",
                one.name()
            )));
        }
        std::thread::sleep(LOOK.min(limit));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_hold_is_told_as_kubectl_tells_it() {
        let live = json!({"metadata": {"resourceVersion": "7"}, "spec": {"replicas": 2}});
        let error = |replicas: Option<i64>, resource_version: Option<&str>| {
            let precondition = Precondition {
                replicas,
                resource_version,
            };
            check(&precondition, &live).map_err(|error| error.to_string())
        };
        assert_eq!(
            error(Some(3), None).unwrap_err(),
            "Expected replicas to be 3, was 2"
        );
        assert_eq!(
            error(Some(2), Some("8")).unwrap_err(),
            "Expected resource version to be 8, was 7"
        );
        assert_eq!(error(Some(2), Some("7")), Ok(()));
        assert_eq!(error(None, None), Ok(()));
    }
}
