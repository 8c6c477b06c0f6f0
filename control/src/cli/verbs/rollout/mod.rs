//! `rollout restart` and `rollout status`.

mod status;

use std::time::{Instant, SystemTime};

use serde_json::{Value, json};

use crate::cli::flags::{Flag, FlagError, GLOBAL, switch, value};
use crate::cli::session::{Session, VerbError};
use crate::cli::values;
use crate::cluster::timestamp;
use crate::protocol::{Mutation, PatchParams, PatchType, WatchEventType};

use super::done::Done;
use super::find::{Found, find};
use super::mutate::DryRun;
use super::watched::Watched;
use super::{FILES, MISSING_KEYS, OUTPUT, SELECTOR, TEMPLATE};

/// Flags of all of `rollout`.
pub const FLAGS: &[Flag] = &[
    FILES[0],
    FILES[1],
    FILES[2],
    SELECTOR,
    OUTPUT,
    TEMPLATE,
    MISSING_KEYS,
    value("field-manager", None, ""),
    switch(
        "watch",
        Some('w'),
        "status: wait until the rollout is over (default true)",
    ),
    value(
        "timeout",
        None,
        "status: wait so long at most, as 30s or 2m; 0 (default) for as long as it takes",
    ),
];

/// Flags that only one of them takes.
const OF_RESTART: [&str; 3] = ["output", "template", "field-manager"];
const OF_STATUS: [&str; 2] = ["watch", "timeout"];

/// The annotation of a pod template that `rollout restart` sets.
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// Runs `rollout`.
pub fn run(session: &mut Session) -> Result<(), VerbError> {
    let mut words = std::mem::take(&mut session.parsed.arguments);
    if words.is_empty() {
        return Err(VerbError::Usage(
            "rollout takes one of restart and status".into(),
        ));
    }
    let verb = words.remove(0);
    session.parsed.arguments = words;
    match verb.as_str() {
        "restart" => {
            refuse(session, &OF_STATUS)?;
            restart(session)
        }
        "status" => {
            refuse(session, &OF_RESTART)?;
            status(session)
        }
        "history" | "undo" => Err(VerbError::Local(format!(
            "rollout {verb} is not supported: earlier pod templates are not kept"
        ))),
        "pause" | "resume" => Err(VerbError::Local(format!(
            "rollout {verb} is not supported: a rollout begins when the pod template changes"
        ))),
        other => Err(VerbError::Usage(format!("unknown command \"{other}\""))),
    }
}

/// A flag of the other subcommand is one that this does not know.
fn refuse(session: &Session, others: &[&str]) -> Result<(), VerbError> {
    let given = session.parsed.in_order.iter().map(|(long, _)| *long);
    let mut own = given.filter(|long| GLOBAL.iter().all(|flag| flag.long != *long));
    match own.find(|long| others.contains(long)) {
        Some(long) => Err(FlagError::UnknownLong(long.to_owned()).into()),
        None => Ok(()),
    }
}

/// What the arguments mean; a word to stderr if that is nothing.
fn find_any(session: &mut Session) -> Result<(Vec<Found>, Vec<VerbError>), VerbError> {
    let files = session.parsed.was_given("filename") || session.parsed.was_given("kustomize");
    if session.parsed.arguments.is_empty() && !files {
        return Err(VerbError::Local("required resource not specified".into()));
    }
    let mut client = session.connect()?;
    let (found, missing) = find(session, &mut client, true)?;
    if found.is_empty() && missing.is_empty() {
        let namespace = session.namespace();
        let namespace = namespace.as_deref().unwrap_or("default");
        eprintln!("No resources found in {namespace} namespace.");
    }
    Ok((found, missing))
}

fn restart(session: &mut Session) -> Result<(), VerbError> {
    let mut done = Done::new(session, DryRun::None)?;
    let (found, mut errors) = find_any(session)?;
    let mut client = session.connect()?;
    for one in &found {
        let now = timestamp(SystemTime::now());
        if let Err(why) = may_restart(one, &now) {
            errors.push(VerbError::Local(why));
            continue;
        }
        let annotations = json!({RESTARTED_AT: now});
        let params = PatchParams {
            target: one.target(),
            patch_type: PatchType::Strategic,
            patch: json!({"spec": {"template": {"metadata": {"annotations": annotations}}}}),
            dry_run: false,
            field_validation: Default::default(),
        };
        match client.call::<Mutation>("patch", params) {
            Ok(mutation) => {
                let object = mutation.results.first().map(|result| &result.object);
                done.print(&one.shown, object.unwrap_or(&one.object), "restarted")?;
                session.report_mutation(&mutation)?;
            }
            Err(error) => errors.push(VerbError::Local(format!("failed to patch: {error}"))),
        }
    }
    VerbError::all(errors)
}

fn may_restart(one: &Found, now: &str) -> Result<(), String> {
    let (resource, name, object) = (&one.resource, one.name(), &one.object);
    let known = ["deployments.apps", "daemonsets.apps", "statefulsets.apps"];
    if !known.contains(&resource.as_str()) {
        return Err(format!(
            "error: {resource} \"{name}\" restarting is not supported"
        ));
    }
    if object.pointer("/spec/paused") == Some(&Value::Bool(true)) {
        return Err(format!(
            "error: {resource} \"{name}\" can't restart paused deployment (run rollout resume first)"
        ));
    }
    if object["spec"]["template"]["metadata"]["annotations"][RESTARTED_AT] == now {
        return Err(format!(
            "failed to create patch for {name}: if restart has already been triggered within the \
             past second, please wait before attempting to trigger another"
        ));
    }
    Ok(())
}

fn status(session: &mut Session) -> Result<(), VerbError> {
    let waits = !session.parsed.was_given("watch") || session.parsed.is_on("watch");
    let limit = values::limit(&session.parsed, "timeout")?;
    let (found, mut errors) = find_any(session)?;
    for one in &found {
        let deadline = limit.map(|limit| Instant::now() + limit);
        if let Err(error) = follow(session, one, waits, deadline) {
            errors.push(error);
        }
    }
    VerbError::all(errors)
}

/// Prints where a rollout is, with every change, until it is over.
fn follow(
    session: &mut Session,
    one: &Found,
    waits: bool,
    deadline: Option<Instant>,
) -> Result<(), VerbError> {
    use std::io::Write;
    let local = |text: String| VerbError::Local(text);
    let view = status::of(one).map_err(local)?;
    let mut watched = Watched::of(session, std::slice::from_ref(one))?;
    let mut current = watched.get(one).cloned();
    loop {
        let object = current.ok_or_else(|| local("object has been deleted".into()))?;
        let (line, over) = view(&object).map_err(local)?;
        let mut out = std::io::stdout().lock();
        out.write_all(line.as_bytes()).and_then(|()| out.flush())?;
        if over || !waits {
            return Ok(());
        }
        current = loop {
            match watched.next(deadline)? {
                None => return Err(local("timed out waiting for the condition".into())),
                Some(event) if Watched::concerns(&event, one) => {
                    let there = event.event != WatchEventType::Deleted;
                    break there.then_some(event.object);
                }
                Some(_) => {}
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_restarted_is_refused_as_kubectl_refuses_it() {
        let found = |resource: &str, spec: Value| Found {
            resource: resource.into(),
            shown: String::new(),
            namespaced: true,
            object: json!({"metadata": {"name": "x"}, "spec": spec}),
        };
        let at = |time: &str| {
            let annotations = json!({RESTARTED_AT: time});
            json!({"template": {"metadata": {"annotations": annotations}}})
        };
        let cases = [
            (
                found("pods", json!({})),
                "error: pods \"x\" restarting is not supported",
            ),
            (
                found("deployments.apps", json!({"paused": true})),
                "error: deployments.apps \"x\" can't restart paused deployment (run rollout resume \
                 first)",
            ),
            (
                found("statefulsets.apps", at("now")),
                "failed to create patch for x: if restart has already been triggered within the \
                 past second, please wait before attempting to trigger another",
            ),
        ];
        for (one, expected) in cases {
            assert_eq!(may_restart(&one, "now").unwrap_err(), expected);
        }
        assert_eq!(
            may_restart(&found("daemonsets.apps", at("before")), "now"),
            Ok(())
        );
    }
}
