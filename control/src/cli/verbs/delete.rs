//! `delete`.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cli::flags::{Flag, joined, optional, switch, value};
use crate::cli::session::{Session, VerbError};
use crate::client::{Client, ClientError};
use crate::protocol::{DeleteParams, GetParams, GetReply, Mutation, Reason, Target};

use super::mutate::{DryRun, decode, dry_run};
use super::{
    ALL_NAMESPACES, FILES, Named, OUTPUT, SELECTOR, conntrack, fetch, named, singular, target,
};

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
    value("cascade", None, ""),
];

/// One object to delete, and how the message names it.
struct Doomed {
    target: Target,
    uid: String,
    shown: String,
    namespaced: bool,
}

/// Runs `delete`.
pub fn run(session: &mut Session) -> Result<(), VerbError> {
    let wanted = named(&session.parsed.arguments)?;
    if conntrack::is_meant(&wanted) {
        return conntrack::delete(session, &wanted);
    }
    conntrack::refuse_filters(&session.parsed)?;
    let mut client = session.connect()?;
    let mut failed = false;
    let doomed = if session.parsed.was_given("filename") || session.parsed.was_given("kustomize") {
        from_files(session, &mut client, &mut failed)?
    } else {
        from_arguments(session, &mut client, &mut failed)?
    };
    let dry_run = dry_run(session.parsed.value("dry-run"))?;
    let grace_period = grace_period(session)?;
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
        targets: doomed.iter().map(|one| one.target.clone()).collect(),
        ignore_not_found: true,
        grace_period,
        dry_run: dry_run != DryRun::None,
    };
    let mutation: Mutation = client.call("delete", &params)?;
    print(session, &doomed, grace_period, dry_run);
    session.report_mutation(&mutation)?;
    let waits = !session.parsed.was_given("wait") || session.parsed.is_on("wait");
    if waits && dry_run == DryRun::None && !session.parsed.is_on("force") {
        wait_until_gone(session, &mut client, &doomed)?;
    }
    if failed {
        Err(VerbError::Status(1))
    } else {
        Ok(())
    }
}

fn print(session: &Session, doomed: &[Doomed], grace_period: Option<u32>, dry_run: DryRun) {
    let forced = if grace_period == Some(0) {
        "force deleted"
    } else {
        "deleted"
    };
    for Doomed {
        target,
        shown,
        namespaced,
        ..
    } in doomed
    {
        if session.parsed.value("output") == Some("name") {
            println!("{shown}/{}", target.name);
            continue;
        }
        let from = match (&target.namespace, namespaced) {
            (Some(namespace), true) => format!(" from {namespace} namespace"),
            _ => String::new(),
        };
        println!(
            "{shown} \"{}\" {forced}{}{from}",
            target.name,
            dry_run.suffix()
        );
    }
}

fn grace_period(session: &Session) -> Result<Option<u32>, VerbError> {
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

/// Every object of the files that exists; the others are reported.
fn from_files(
    session: &Session,
    client: &mut Client,
    failed: &mut bool,
) -> Result<Vec<Doomed>, VerbError> {
    let mut doomed = Vec::new();
    for object in decode(session)? {
        let namespace = match object.namespace() {
            "" => session.namespace(),
            own => Some(own.to_owned()),
        };
        let params = GetParams {
            resource: object.kind().qualified_plural(),
            namespace,
            name: Some(object.name().to_owned()),
            ..GetParams::default()
        };
        match client.call::<GetReply>("get", &params) {
            Ok(reply) => doomed.extend(reply.items.iter().map(|item| doom(&reply, item))),
            Err(error) => missing(session, error, failed)?,
        }
    }
    Ok(doomed)
}

fn from_arguments(
    session: &Session,
    client: &mut Client,
    failed: &mut bool,
) -> Result<Vec<Doomed>, VerbError> {
    let wanted = named(&session.parsed.arguments)?;
    if wanted.is_empty() {
        return Err(VerbError::Local(
            "You must provide one or more resources by argument or filename".into(),
        ));
    }
    let chosen = session.parsed.is_on("all") || session.parsed.value("selector").is_some();
    let mut doomed = Vec::new();
    for Named { resource, names } in wanted {
        if names.is_empty() && !chosen {
            return Err(VerbError::Local(
                "resource(s) were provided, but no name was specified".into(),
            ));
        }
        let single = |name: &String| Named {
            resource: resource.clone(),
            names: vec![name.clone()],
        };
        let queries = match names.is_empty() {
            true => vec![Named {
                resource: resource.clone(),
                names: Vec::new(),
            }],
            false => names.iter().map(single).collect(),
        };
        for query in queries {
            match fetch(session, client, &[query]) {
                Ok(replies) => {
                    for (reply, _) in &replies {
                        doomed.extend(reply.items.iter().map(|item| doom(reply, item)));
                    }
                }
                Err(VerbError::Client(error)) => missing(session, error, failed)?,
                Err(other) => return Err(other),
            }
        }
    }
    Ok(doomed)
}

/// Reports an object that is not there; any other error ends the command.
fn missing(session: &Session, error: ClientError, failed: &mut bool) -> Result<(), VerbError> {
    if error.reason() != Some(Reason::NotFound) {
        return Err(error.into());
    }
    if !session.parsed.is_on("ignore-not-found") {
        VerbError::Client(error).report("delete");
        *failed = true;
    }
    Ok(())
}

fn doom(reply: &GetReply, item: &Value) -> Doomed {
    Doomed {
        target: target(&reply.resource, item),
        uid: item
            .pointer("/metadata/uid")
            .and_then(Value::as_str)
            .unwrap_or("")
            .to_owned(),
        shown: singular(reply),
        namespaced: reply.namespaced,
    }
}

/// Waits until every object is gone, or another stands under its name.
fn wait_until_gone(
    session: &Session,
    client: &mut Client,
    doomed: &[Doomed],
) -> Result<(), VerbError> {
    let limit = match session.parsed.value("timeout") {
        None => None,
        Some(text) => duration(text)?,
    };
    let begin = Instant::now();
    for Doomed {
        target, uid, shown, ..
    } in doomed
    {
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
            let same = |item: &Value| item.pointer("/metadata/uid").is_some_and(|u| u == uid);
            if !reply.items.iter().any(same) {
                break;
            }
            if limit.is_some_and(|limit| begin.elapsed() >= limit) {
                return Err(VerbError::Local(format!(
                    "timed out waiting for the condition on {shown}/{}",
                    target.name
                )));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

/// Reads a duration as Go writes it (`90s`, `1m30s`, `500ms`); 0 is no limit.
pub fn duration(text: &str) -> Result<Option<Duration>, VerbError> {
    let wrong = || VerbError::Local(format!("invalid duration \"{text}\": write 30s or 1m30s"));
    let (mut total, mut rest) = (0.0_f64, text);
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit_end = rest[digits..]
            .find(|c: char| c.is_ascii_digit())
            .map_or(rest.len(), |end| digits + end);
        total += number
            * match &rest[digits..unit_end] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "" if number == 0.0 => 0.0,
                "ms" => 0.001,
                _ => return Err(wrong()),
            };
        rest = &rest[unit_end..];
    }
    let total = Duration::try_from_secs_f64(total).map_err(|_| wrong())?;
    Ok((!total.is_zero()).then_some(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_writes_them() {
        assert_eq!(duration("1m30s").unwrap(), Some(Duration::from_secs(90)));
        assert_eq!(duration("500ms").unwrap(), Some(Duration::from_millis(500)));
        assert_eq!(duration("0").unwrap(), None);
        assert!(duration("soon").is_err());
        assert!(duration("5").is_err());
    }
}
