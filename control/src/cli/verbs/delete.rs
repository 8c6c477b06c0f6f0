//! `delete`.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cli::flags::{Flag, joined, optional, switch, value};
use crate::cli::session::{Session, VerbError};
use crate::cli::values;
use crate::client::Client;
use crate::protocol::{DeleteParams, GetParams, GetReply, Mutation, Reason};

use super::find::{Found, find};
use super::mutate::{DryRun, dry_run};
use super::{ALL_NAMESPACES, FILES, OUTPUT, SELECTOR, conntrack, named};

/// Flags of `delete`.
pub const FLAGS: &[Flag] =
    &joined::<{ OBJECTS.len() + conntrack::FILTERS.len() }>(OBJECTS, &conntrack::FILTERS);

const OBJECTS: &[Flag] = &[
    FILES[0],
    FILES[1],
    FILES[2],
    SELECTOR,
    ALL_NAMESPACES,
    OUTPUT,
    switch("all", None, "Every object of the kind in the namespace"),
    switch(
        "ignore-not-found",
        None,
        "An object that is not there is no error",
    ),
    optional("dry-run", "unchanged", "none, client or server"),
    value("grace-period", None, "Seconds that a pod gets to end"),
    switch(
        "force",
        None,
        "With --grace-period=0: do not wait for the pod's end",
    ),
    switch("now", None, "As --grace-period=1"),
    switch(
        "wait",
        None,
        "Wait until the objects are gone (default true)",
    ),
    value(
        "timeout",
        None,
        "How long to wait, as 30s or 1m; 0 for as long as it takes",
    ),
    optional(
        "cascade",
        "background",
        "background (default) or foreground: what it owns goes, too; orphan: stays",
    ),
    value(
        "field-selector",
        None,
        "Field selector, as metadata.name!=web",
    ),
];

/// Runs `delete`.
pub fn run(session: &mut Session) -> Result<(), VerbError> {
    let wanted = named(&session.parsed.arguments)?;
    if conntrack::is_meant(session, &wanted) {
        return conntrack::delete(session, &wanted);
    }
    conntrack::refuse_filters(&session.parsed)?;
    let mut client = session.connect()?;
    let (doomed, missing) = find(session, &mut client, false)?;
    let ignored = session.parsed.is_on("ignore-not-found");
    let failed = !missing.is_empty() && !ignored;
    for error in missing.iter().filter(|_| !ignored) {
        error.report("delete");
    }
    let dry_run = dry_run(session.parsed.value("dry-run"))?;
    let grace_period = grace_period(session)?;
    let limit = values::limit(&session.parsed, "timeout")?;
    let orphan = orphans(session.parsed.value("cascade"))?;
    if doomed.is_empty() {
        if !failed {
            println!("No resources found");
        }
        return if failed {
            Err(VerbError::Status(1))
        } else {
            Ok(())
        };
    }
    let params = DeleteParams {
        targets: doomed.iter().map(Found::target).collect(),
        ignore_not_found: true,
        grace_period,
        dry_run: dry_run != DryRun::None,
        orphan,
    };
    let mutation: Mutation = client.call("delete", &params)?;
    print(session, &doomed, grace_period, dry_run)?;
    session.report_mutation(&mutation)?;
    let waits = !session.parsed.was_given("wait") || session.parsed.is_on("wait");
    if waits && dry_run == DryRun::None && !session.parsed.is_on("force") {
        wait_until_gone(&mut client, &doomed, limit)?;
    }
    if failed {
        Err(VerbError::Status(1))
    } else {
        Ok(())
    }
}

fn print(
    session: &Session,
    doomed: &[Found],
    grace_period: Option<u32>,
    dry_run: DryRun,
) -> Result<(), VerbError> {
    let kubectl = session.kubectl()?;
    let forced = if grace_period == Some(0) {
        "force deleted"
    } else {
        "deleted"
    };
    for one in doomed {
        let (target, shown) = (one.target(), &one.shown);
        if session.parsed.value("output") == Some("name") {
            println!("{shown}/{}", target.name);
            continue;
        }
        let namespace = target.namespace.as_deref().filter(|_| one.namespaced);
        let line = kubectl.deleted(shown, &target.name, forced, namespace);
        println!("{line}{}", dry_run.suffix());
    }
    Ok(())
}

/// Whether what the objects own stays.
fn orphans(cascade: Option<&str>) -> Result<bool, VerbError> {
    match cascade {
        None | Some("background" | "foreground") => Ok(false),
        Some("orphan") => Ok(true),
        Some(old @ ("true" | "false")) => {
            let now = if old == "true" {
                "background"
            } else {
                "orphan"
            };
            eprintln!(
                "warning: --cascade={old} is deprecated (boolean value) and can be replaced with \
                 --cascade={now}."
            );
            Ok(old == "false")
        }
        Some(other) => Err(VerbError::Local(format!(
            "invalid cascade value ({other}). Must be \"background\", \"foreground\", or \"orphan\""
        ))),
    }
}

/// The seconds that pods get to end, if they are given.
pub fn grace_period(session: &Session) -> Result<Option<u32>, VerbError> {
    let given = session.parsed.value("grace-period");
    if session.parsed.is_on("now") {
        return match given {
            Some(_) => Err(VerbError::Local(
                "--now and --grace-period cannot be specified together".into(),
            )),
            None => Ok(Some(1)),
        };
    }
    match given {
        None if session.parsed.is_on("force") => Ok(Some(0)),
        None | Some("-1") => Ok(None),
        Some(text) => text
            .parse()
            .map(Some)
            .map_err(|_| VerbError::Local(format!("--grace-period takes seconds, not \"{text}\""))),
    }
}

/// Waits until every object is gone, or another stands under its name.
pub fn wait_until_gone(
    client: &mut Client,
    doomed: &[Found],
    limit: Option<Duration>,
) -> Result<(), VerbError> {
    let begin = Instant::now();
    for one in doomed {
        let target = one.target();
        let params = GetParams {
            resource: target.resource.clone(),
            namespace: target.namespace.clone(),
            name: Some(target.name.clone()),
            ..GetParams::default()
        };
        loop {
            let reply = match client.call::<GetReply>("get", &params) {
                Ok(reply) => reply,
                Err(error) if error.reason() == Some(Reason::NotFound) => break,
                Err(error) => return Err(error.into()),
            };
            let same = |item: &Value| {
                item.pointer("/metadata/uid")
                    .is_some_and(|u| u == one.uid())
            };
            if !reply.items.iter().any(same) {
                break;
            }
            if limit.is_some_and(|limit| begin.elapsed() >= limit) {
                return Err(VerbError::Local(format!(
                    "timed out waiting for the condition on {}/{}",
                    one.plural(),
                    target.name
                )));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}
