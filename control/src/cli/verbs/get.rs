//! `get`.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::cli::columns::{Layout, table};
use crate::cli::flags::{Flag, joined, switch, value};
use crate::cli::output::{Form, list};
use crate::cli::session::{Session, VerbError};
use crate::cli::table::Table;
use crate::client::Client;
use crate::protocol::{GetReply, HitsParams, Reason, WatchEventType, WatchParams};

use super::{
    ALL_NAMESPACES, Named, OUTPUT, SELECTOR, TEMPLATE, conntrack, fetch, hits, named, singular,
};

/// Flags of `get`.
pub const FLAGS: &[Flag] =
    &joined::<{ OBJECTS.len() + conntrack::FILTERS.len() }>(OBJECTS, &conntrack::FILTERS);

const OBJECTS: &[Flag] = &[
    OUTPUT,
    TEMPLATE,
    ALL_NAMESPACES,
    SELECTOR,
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
    switch("show-labels", None, "A last column with the labels"),
    switch("no-headers", None, "Leave out the header"),
    switch(
        "ignore-not-found",
        None,
        "An object that is not there is no error",
    ),
    value("sort-by", None, "JSONPath of the field to sort by"),
];

/// What `get all` stands for.
pub const ALL: &[&str] = &[
    "pods",
    "replicationcontrollers",
    "services",
    "daemonsets",
    "deployments",
    "replicasets",
    "statefulsets",
    "jobs",
];

/// Runs `get`.
pub fn run(session: &mut Session) -> Result<(), VerbError> {
    let form = Form::parse(
        session.parsed.value("output"),
        session.parsed.value("template"),
    )?;
    let mut wanted = named(&session.parsed.arguments)?;
    if wanted.is_empty() {
        return Err(VerbError::Usage(
            "Required resource not specified.\nUse \"weir api-resources\" for a complete list of \
             supported resources."
                .into(),
        ));
    }
    if conntrack::is_meant(&wanted) {
        return conntrack::get(session, &form, &wanted);
    }
    conntrack::refuse_filters(&session.parsed)?;
    let everything = wanted.len() == 1 && wanted[0].resource == "all";
    if everything {
        let expand = |r: &&str| Named {
            resource: (*r).to_owned(),
            names: Vec::new(),
        };
        wanted = ALL.iter().map(expand).collect();
    }
    if session.parsed.is_on("watch") || session.parsed.is_on("watch-only") {
        return watch(session, &form, &wanted);
    }
    let mut client = session.connect()?;
    let mut failed = false;
    let mut replies: Vec<(GetReply, bool)> = Vec::new();
    for one in split_names(wanted) {
        match fetch(session, &mut client, std::slice::from_ref(&one)) {
            Ok(found) => merge(&mut replies, found),
            Err(VerbError::Client(error)) if error.reason() == Some(Reason::NotFound) => {
                if one.names.is_empty() || !session.parsed.is_on("ignore-not-found") {
                    VerbError::Client(error).report("get");
                    failed = true;
                }
            }
            Err(other) => return Err(other),
        }
    }
    if let Some(path) = session.parsed.value("sort-by") {
        sort(&mut replies, path)?;
    }
    print(session, &form, &replies, failed, &mut client)?;
    if failed {
        Err(VerbError::Status(1))
    } else {
        Ok(())
    }
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

fn sort(replies: &mut [(GetReply, bool)], path: &str) -> Result<(), VerbError> {
    let Form::JsonPath(template) = Form::parse(Some("jsonpath"), Some(path))? else {
        return Ok(());
    };
    for (reply, _) in replies {
        reply.items.sort_by_cached_key(|item| {
            let text = template.render(item);
            // Numbers sort as numbers: they come first, padded to a common width.
            match text.parse::<u64>() {
                Ok(number) => format!("{number:020}"),
                Err(_) => text,
            }
        });
    }
    Ok(())
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
            let prefixed = replies.len() > 1;
            for (at, (reply, _)) in shown.iter().enumerate() {
                if at > 0 {
                    println!();
                }
                let layout = layout(session, reply, *wide, prefixed);
                let mut rows = table(&reply.kind, &singular(reply), &reply.items, layout, now());
                add_hits(&mut rows, &reply.kind, &reply.items, layout, client)?;
                print!("{}", rows.render(!session.parsed.is_on("no-headers")));
            }
        }
        Form::Name => {
            for (reply, _) in replies {
                for item in &reply.items {
                    println!("{}/{}", singular(reply), name_of(item));
                }
            }
        }
        _ => {
            let single = replies.len() == 1 && replies[0].1 && total == 1;
            if failed && total == 0 {
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
            print!("{}", form.render(&value)?);
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

fn watch(session: &mut Session, form: &Form, wanted: &[Named]) -> Result<(), VerbError> {
    let [Named { resource, names }] = wanted else {
        return Err(VerbError::Local(
            "you may only specify a single resource type with --watch".into(),
        ));
    };
    let mut client = session.connect()?;
    // Asks once, so that an unknown resource is refused and the kind's columns are known.
    let one = Named {
        resource: resource.clone(),
        names: Vec::new(),
    };
    let about = fetch(session, &mut client, &[one])?.remove(0).0;
    let all_namespaces = session.parsed.is_on("all-namespaces") || !about.namespaced;
    let namespace = session.namespace().unwrap_or_else(|| "default".to_owned());
    let params = WatchParams {
        resources: vec![about.resource.clone()],
        namespace: (!all_namespaces).then_some(namespace),
    };
    client.watch(&params)?;
    let selected = |object: &Value| names.is_empty() || names.iter().any(|n| n == name_of(object));
    let (mut listing, mut widths) = (true, Vec::new());
    let mut headers = !session.parsed.is_on("no-headers");
    loop {
        let event = client.next_event()?;
        if event.event == WatchEventType::Synced {
            listing = false;
            continue;
        }
        if (listing && session.parsed.is_on("watch-only")) || !selected(&event.object) {
            continue;
        }
        match form {
            Form::Table { wide } => {
                let layout = layout(session, &about, *wide, false);
                let objects = std::slice::from_ref(&event.object);
                let mut rows = table(&about.kind, &singular(&about), objects, layout, now());
                add_hits(&mut rows, &about.kind, objects, layout, &mut client)?;
                print!("{}", rows.render_below(headers, &mut widths));
                headers = false;
            }
            Form::Name => println!("{}/{}", singular(&about), name_of(&event.object)),
            _ => print!("{}", form.render(&event.object)?),
        }
        use std::io::Write;
        std::io::stdout().flush()?;
    }
}

fn name_of(object: &Value) -> &str {
    object
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or("")
}

fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() as i64)
}
