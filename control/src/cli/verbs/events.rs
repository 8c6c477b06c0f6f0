//! `events`: what happened, the newest last (kubectl `pkg/cmd/events`).

use serde_json::Value;

use crate::cli::columns::{Layout, last_seen, seen_interval, table};
use crate::cli::flags::{Flag, switch, value};
use crate::cli::output::{Form, list};
use crate::cli::session::{Session, VerbError, put};
use crate::cli::table::Table;
use crate::objects::kinds::find_resource;
use crate::protocol::{GetParams, GetReply, WatchEventType, WatchParams};

use super::get::now;
use super::{ALL_NAMESPACES, MISSING_KEYS, OUTPUT, TEMPLATE};

/// Flags of `events`.
pub const FLAGS: &[Flag] = &[
    ALL_NAMESPACES,
    value("for", None, "Of one object only, as pod/web"),
    value("types", None, "Normal, Warning or both"),
    switch(
        "watch",
        Some('w'),
        "After listing, print events as they come",
    ),
    switch("no-headers", None, "Leave out the header"),
    OUTPUT,
    TEMPLATE,
    MISSING_KEYS,
    value("chunk-size", None, ""),
];

/// Which events are meant.
struct Chosen {
    /// Kind and name of the object that they are about.
    about: Option<(String, String)>,
    types: Vec<String>,
}

impl Chosen {
    fn of(session: &Session) -> Result<Chosen, VerbError> {
        let local = |text: &str| VerbError::Local(text.to_owned());
        let about = match session.parsed.value("for") {
            None => None,
            Some(text) => {
                let Some((resource, name)) = text.split_once('/') else {
                    return Err(local("--for must be in resource/name form"));
                };
                let defined = || session.definitions().find_resource(resource);
                let kind = find_resource(resource).or_else(defined).ok_or_else(|| {
                    let text = format!("the server doesn't have a resource type {resource:?}");
                    VerbError::Local(text)
                })?;
                Some((kind.kind.to_owned(), name.to_owned()))
            }
        };
        let types: Vec<String> = session
            .parsed
            .values("types")
            .into_iter()
            .map(str::to_owned)
            .collect();
        let known = |kind: &String| ["normal", "warning"].contains(&kind.to_lowercase().as_str());
        if !types.iter().all(known) {
            return Err(local("valid --types are Normal or Warning"));
        }
        Ok(Chosen { about, types })
    }

    fn has(&self, event: &Value) -> bool {
        let of = &event["involvedObject"];
        let about = self
            .about
            .as_ref()
            .is_none_or(|(kind, name)| of["kind"] == *kind && of["name"] == *name);
        let own = event["type"].as_str().unwrap_or_default();
        about
            && (self.types.is_empty()
                || self.types.iter().any(|kind| kind.eq_ignore_ascii_case(own)))
    }
}

/// Runs `events`.
pub fn run(session: &mut Session) -> Result<(), VerbError> {
    if !session.parsed.arguments.is_empty() {
        let text = format!(
            "unexpected arguments: [{}]",
            session.parsed.arguments.join(" ")
        );
        return Err(VerbError::Usage(text));
    }
    let (form, chosen) = (Form::of(&session.parsed)?, Chosen::of(session)?);
    let all_namespaces = session.parsed.is_on("all-namespaces");
    let namespace = session.namespace().unwrap_or_else(|| "default".to_owned());
    if session.parsed.is_on("watch") {
        return watch(
            session,
            &form,
            &chosen,
            (!all_namespaces).then_some(namespace),
        );
    }
    let params = GetParams {
        resource: "events".into(),
        namespace: Some(namespace.clone()),
        all_namespaces,
        ..GetParams::default()
    };
    let reply: GetReply = session.connect()?.call("get", params)?;
    let mut events = reply.items;
    events.retain(|event| chosen.has(event));
    events.sort_by_key(last_seen);
    if !matches!(form, Form::Table { .. }) {
        put(&form.render(&list(events))?)?;
        return Ok(());
    }
    if events.is_empty() {
        match all_namespaces {
            true => eprintln!("No events found."),
            false => eprintln!("No events found in {namespace} namespace."),
        }
        return Ok(());
    }
    let headers = !session.parsed.is_on("no-headers");
    put(&rows(&events, all_namespaces).render(headers))
}

/// As `get events` has it, with kinds as they are written and how often it was seen.
fn rows(events: &[Value], all_namespaces: bool) -> Table {
    let shown: Vec<Value> = events.to_vec();
    let layout = Layout {
        namespaces: all_namespaces,
        ..Layout::default()
    };
    let mut rows = table("Event", "event", &shown, layout, now());
    let object = 3 + usize::from(all_namespaces);
    rows.map_column(usize::from(all_namespaces), |at, _| {
        seen_interval(&events[at], now())
    });
    rows.map_column(object, |at, _| {
        let of = &events[at]["involvedObject"];
        let text = |field: &str| of[field].as_str().unwrap_or_default();
        format!("{}/{}", text("kind"), text("name"))
    });
    rows
}

fn watch(
    session: &mut Session,
    form: &Form,
    chosen: &Chosen,
    namespace: Option<String>,
) -> Result<(), VerbError> {
    let mut client = session.connect()?;
    let all = namespace.is_none();
    client.watch(&WatchParams {
        resources: vec!["events".into()],
        namespace,
    })?;
    let (mut widths, mut headers) = (Vec::new(), !session.parsed.is_on("no-headers"));
    loop {
        let event = client.next_event()?;
        let is_new = matches!(
            event.event,
            WatchEventType::Added | WatchEventType::Modified
        );
        if !is_new || !chosen.has(&event.object) {
            continue;
        }
        match form {
            Form::Table { .. } => {
                let events = std::slice::from_ref(&event.object);
                put(&rows(events, all).render_below(headers, &mut widths))?;
                headers = false;
            }
            form => put(&form.render(&event.object)?)?,
        }
    }
}
