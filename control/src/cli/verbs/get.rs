//! `get`.

mod watch;

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::cli::columns::{Layout, table_of};
use crate::cli::flags::{Flag, joined, switch, value};
use crate::cli::output::{Form, list};
use crate::cli::session::{Session, VerbError, put};
use crate::cli::table::Table;
use crate::client::Client;
use crate::protocol::{GetReply, HitsParams, Reason};

use super::sort::sort;
use super::{
    ALL_NAMESPACES, FILES, MISSING_KEYS, Named, OUTPUT, SELECTOR, TEMPLATE, categories, conntrack,
    fetch, find, hits, named, raw, singular,
};

/// Flags of `get`.
pub const FLAGS: &[Flag] =
    &joined::<{ OBJECTS.len() + conntrack::FILTERS.len() }>(OBJECTS, &conntrack::FILTERS);

const OBJECTS: &[Flag] = &[
    OUTPUT,
    TEMPLATE,
    MISSING_KEYS,
    ALL_NAMESPACES,
    SELECTOR,
    FILES[0],
    FILES[1],
    FILES[2],
    value(
        "field-selector",
        None,
        "Field selector, as status.phase=Running",
    ),
    switch(
        "watch",
        Some('w'),
        "After listing, print changes as they come",
    ),
    switch("watch-only", None, "Print changes only"),
    switch(
        "output-watch-events",
        None,
        "With --watch: say of each change whether it is ADDED, MODIFIED or DELETED",
    ),
    switch("show-labels", None, "A last column with the labels"),
    value(
        "label-columns",
        Some('L'),
        "Labels that get a column each, separated by commas",
    ),
    switch("show-kind", None, "Names with their kind, as pod/web"),
    switch("no-headers", None, "Leave out the header"),
    switch(
        "ignore-not-found",
        None,
        "An object that is not there is no error",
    ),
    value("sort-by", None, "JSONPath of the field to sort by"),
    value(
        "raw",
        None,
        "Print what the API would answer at a path, as /api/v1/namespaces/default/pods",
    ),
    value("chunk-size", None, ""),
    switch("show-managed-fields", None, ""),
];

/// Runs `get`.
pub fn run(session: &mut Session) -> Result<(), VerbError> {
    if let Some(path) = session.parsed.value("raw").map(str::to_owned) {
        return raw::get(session, &path);
    }
    let form = Form::of(&session.parsed)?;
    let by_files = session.parsed.was_given("filename") || session.parsed.was_given("kustomize");
    let mut wanted = named(&session.parsed.arguments)?;
    if wanted.is_empty() && !by_files {
        return Err(VerbError::Usage(
            "Required resource not specified.\nUse \"weir api-resources\" for a complete list of \
             supported resources."
                .into(),
        ));
    }
    if conntrack::is_meant(session, &wanted) {
        return conntrack::get(session, &form, &wanted);
    }
    conntrack::refuse_filters(&session.parsed)?;
    let watches = session.parsed.is_on("watch") || session.parsed.is_on("watch-only");
    if session.parsed.is_on("output-watch-events") && !watches {
        return Err(VerbError::Usage(
            "--output-watch-events option can only be used with --watch or --watch-only".into(),
        ));
    }
    wanted = categories::expand(session, wanted);
    if watches {
        return watch::run(session, &form, &wanted);
    }
    let mut client = session.connect()?;
    let mut errors = Vec::new();
    let mut replies: Vec<(GetReply, bool)> = Vec::new();
    if by_files {
        for query in find::queries(session, true)? {
            collect(
                client.call("get", &query).map(|reply| vec![(reply, true)]),
                &mut replies,
            )
            .map_or_else(|error| keep(session, error, &mut errors), Ok)?;
        }
    }
    for one in split_names(wanted) {
        match fetch(session, &mut client, std::slice::from_ref(&one)) {
            Ok(found) => merge(&mut replies, found),
            Err(VerbError::Client(error)) if error.reason() == Some(Reason::NotFound) => {
                let text = error.to_string();
                // A kind that nobody knows is the client's own finding in kubectl.
                if text.starts_with("the server doesn't have a resource type") {
                    return Err(VerbError::Local(text));
                }
                keep(session, error, &mut errors)?;
            }
            Err(other) => return Err(other),
        }
    }
    let failed = !errors.is_empty();
    if let Some(path) = session.parsed.value("sort-by") {
        for (reply, _) in &mut replies {
            sort(&mut reply.items, path)?;
        }
    }
    print(session, &form, &replies, failed, &mut client)?;
    for error in &errors {
        error.report("get");
    }
    if failed {
        Err(VerbError::Status(1))
    } else {
        Ok(())
    }
}

type Collected = Result<Vec<(GetReply, bool)>, crate::client::ClientError>;

fn collect(
    found: Collected,
    replies: &mut Vec<(GetReply, bool)>,
) -> Result<(), crate::client::ClientError> {
    merge(replies, found?);
    Ok(())
}

/// Keeps the error of an object that is not there for the end; any other ends the verb.
fn keep(
    session: &Session,
    error: crate::client::ClientError,
    errors: &mut Vec<VerbError>,
) -> Result<(), VerbError> {
    if error.reason() != Some(Reason::NotFound) {
        return Err(error.into());
    }
    if !session.parsed.is_on("ignore-not-found") {
        errors.push(error.into());
    }
    Ok(())
}

/// One query a name, so that one missing object does not hide the others.
fn split_names(wanted: Vec<Named>) -> Vec<Named> {
    let mut single = Vec::new();
    for Named { resource, names } in wanted {
        if names.is_empty() {
            single.push(Named { resource, names });
        } else {
            let one = |name| Named {
                resource: resource.clone(),
                names: vec![name],
            };
            single.extend(names.into_iter().map(one));
        }
    }
    single
}

/// Puts objects of one kind together, in the order of their first appearance.
fn merge(replies: &mut Vec<(GetReply, bool)>, found: Vec<(GetReply, bool)>) {
    for (reply, by_name) in found {
        match replies
            .iter_mut()
            .find(|(r, _)| r.resource == reply.resource)
        {
            Some((present, _)) => present.items.extend(reply.items),
            None => replies.push((reply, by_name)),
        }
    }
}

fn print(
    session: &Session,
    form: &Form,
    replies: &[(GetReply, bool)],
    failed: bool,
    client: &mut Client,
) -> Result<(), VerbError> {
    let total: usize = replies.iter().map(|(reply, _)| reply.items.len()).sum();
    match form {
        Form::Table { wide } => {
            if total == 0 && !failed && !session.parsed.is_on("ignore-not-found") {
                eprintln!("{}", nothing_found(session, replies));
                return Ok(());
            }
            let shown: Vec<_> = replies
                .iter()
                .filter(|(r, _)| !r.items.is_empty())
                .collect();
            let prefixed = replies.len() > 1 || session.parsed.is_on("show-kind");
            for (at, (reply, _)) in shown.iter().enumerate() {
                if at > 0 {
                    put("\n")?;
                }
                let layout = layout(session, reply, *wide, prefixed);
                let mut rows = table_of(reply, &singular(reply), &reply.items, layout, now());
                add_hits(&mut rows, &reply.kind, &reply.items, layout, client)?;
                add_label_columns(session, &mut rows, &reply.items);
                put(&rows.render(!session.parsed.is_on("no-headers")))?;
            }
        }
        Form::Name => {
            for (reply, _) in replies {
                for item in &reply.items {
                    put(&format!("{}/{}\n", singular(reply), name_of(item)))?;
                }
            }
        }
        _ => {
            let single = replies.len() == 1 && replies[0].1 && total == 1;
            let nothing = failed || session.parsed.is_on("ignore-not-found");
            if nothing && total == 0 {
                return Ok(());
            }
            let value = if single {
                replies[0].0.items[0].clone()
            } else {
                list(
                    replies
                        .iter()
                        .flat_map(|(reply, _)| reply.items.clone())
                        .collect(),
                )
            };
            let text = match form {
                Form::CustomColumns(columns) => {
                    columns.render(&value, !session.parsed.is_on("no-headers"))
                }
                form => form.render(&value)?,
            };
            put(&text)?;
        }
    }
    Ok(())
}

/// Of policies, `-o wide` shows what their rules have decided.
fn add_hits(
    rows: &mut Table,
    kind: &str,
    objects: &[Value],
    layout: Layout,
    client: &mut Client,
) -> Result<(), VerbError> {
    if !layout.wide || !hits::is_policy(kind) {
        return Ok(());
    }
    let params = HitsParams {
        kind: Some(kind.to_owned()),
        ..HitsParams::default()
    };
    let reply = hits::fetch(client, &params)?;
    hits::add_columns(rows, usize::from(layout.labels), objects, &reply, now());
    Ok(())
}

/// `-L`: a column for each label, before that of `--show-labels`.
fn add_label_columns(session: &Session, rows: &mut Table, objects: &[Value]) {
    let keys = session.parsed.values("label-columns");
    if keys.is_empty() {
        return;
    }
    let at = rows.columns() - usize::from(session.parsed.is_on("show-labels"));
    let header = |key: &&str| key.rsplit('/').next().unwrap_or(key).to_uppercase();
    let cells = |object: &Value| {
        let label = |key: &&str| {
            let labels = &object["metadata"]["labels"];
            labels
                .get(*key)
                .and_then(Value::as_str)
                .unwrap_or("<none>")
                .to_owned()
        };
        keys.iter().map(label).collect()
    };
    rows.insert_columns(
        at,
        keys.iter().map(header),
        objects.iter().map(cells).collect(),
    );
}

fn layout(session: &Session, reply: &GetReply, wide: bool, prefixed: bool) -> Layout {
    Layout {
        wide,
        prefixed,
        namespaces: session.parsed.is_on("all-namespaces") && reply.namespaced,
        labels: session.parsed.is_on("show-labels"),
    }
}

fn nothing_found(session: &Session, replies: &[(GetReply, bool)]) -> String {
    let namespaced = replies.iter().any(|(reply, _)| reply.namespaced);
    if session.parsed.is_on("all-namespaces") || !namespaced {
        return "No resources found".to_owned();
    }
    let namespace = session.namespace().unwrap_or_else(|| "default".to_owned());
    format!("No resources found in {namespace} namespace.")
}

fn name_of(object: &Value) -> &str {
    object
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or("")
}

/// Seconds since 1970.
pub fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() as i64)
}
