//! `get --watch`: objects as they are, and every change of them as it comes.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::cli::columns::table_of;
use crate::cli::output::Form;
use crate::cli::session::{Session, VerbError, put};
use crate::field_selector::FieldSelector;
use crate::protocol::{WatchEventType, WatchParams};
use crate::selector::Selector;

use super::super::{Named, fetch, singular};
use super::{add_hits, add_label_columns, layout, name_of, now};

/// Which objects of a watch are meant.
struct Chosen<'a> {
    names: &'a [String],
    labels: Selector,
    fields: FieldSelector,
    /// Those that are at present, by UID, as they were last.
    present: HashMap<String, Value>,
}

impl Chosen<'_> {
    fn has(&self, object: &Value) -> bool {
        let named = self.names.is_empty() || self.names.iter().any(|n| n == name_of(object));
        named
            && self
                .labels
                .matches(|key| object["metadata"]["labels"][key].as_str())
            && self.fields.matches(object)
    }

    /// What an event is to who sees nothing but what is meant: an object that has come to be meant
    /// is new, one that is meant no more has gone, and is shown as it was.
    fn seen(&mut self, is_there: bool, object: Value) -> Option<(&'static str, Value)> {
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
        if !is_there {
            return self.present.remove(uid).map(|_| ("DELETED", object));
        }
        if !self.has(&object) {
            return self.present.remove(uid).map(|last| ("DELETED", last));
        }
        let before = self.present.insert(uid.to_owned(), object.clone());
        let kind = if before.is_some() {
            "MODIFIED"
        } else {
            "ADDED"
        };
        Some((kind, object))
    }
}

/// Runs it; it ends when the daemon or whoever reads does.
pub fn run(session: &mut Session, form: &Form, wanted: &[Named]) -> Result<(), VerbError> {
    let [Named { resource, names }] = wanted else {
        return Err(VerbError::Local(
            "you may only specify a single resource type with --watch".into(),
        ));
    };
    let labels = Selector::parse(session.parsed.value("selector").unwrap_or_default())
        .map_err(|error| VerbError::Local(error.to_string()))?;
    let fields = session.parsed.value("field-selector").unwrap_or_default();
    let mut chosen = Chosen {
        names,
        labels,
        fields: FieldSelector::parse(fields).map_err(VerbError::Local)?,
        present: HashMap::new(),
    };
    let mut client = session.connect()?;
    // Asks once, so that an unknown resource is refused and the kind's columns are known.
    let one = Named {
        resource: resource.clone(),
        names: names.clone(),
    };
    let about = fetch(session, &mut client, &[one])?.remove(0).0;
    let all_namespaces = session.parsed.is_on("all-namespaces") || !about.namespaced;
    let namespace = session.namespace().unwrap_or_else(|| "default".to_owned());
    let params = WatchParams {
        resources: vec![about.resource.clone()],
        namespace: (!all_namespaces).then_some(namespace),
    };
    client.watch(&params)?;
    let (mut listing, mut widths) = (true, Vec::new());
    let mut headers = !session.parsed.is_on("no-headers");
    loop {
        let event = client.next_event()?;
        if event.event == WatchEventType::Synced {
            listing = false;
            continue;
        }
        let is_there = event.event != WatchEventType::Deleted;
        let Some((kind, object)) = chosen.seen(is_there, event.object) else {
            continue;
        };
        if listing && session.parsed.is_on("watch-only") {
            continue;
        }
        let says_kind = session.parsed.is_on("output-watch-events");
        match form {
            Form::Table { wide } => {
                let layout = layout(session, &about, *wide, session.parsed.is_on("show-kind"));
                let objects = std::slice::from_ref(&object);
                let mut rows = table_of(&about, &singular(&about), objects, layout, now());
                add_hits(&mut rows, &about.kind, objects, layout, &mut client)?;
                add_label_columns(session, &mut rows, objects);
                if says_kind {
                    rows.insert_columns(0, ["EVENT"], vec![vec![kind.to_owned()]]);
                }
                put(&rows.render_below(headers, &mut widths))?;
                headers = false;
            }
            Form::Name => {
                put(&format!("{}/{}\n", singular(&about), name_of(&object)))?;
            }
            Form::CustomColumns(columns) => {
                put(&columns.render(&object, std::mem::take(&mut headers)))?;
            }
            _ if says_kind => {
                let told = json!({"type": kind, "object": object});
                put(&format!("{}{}", separator(form), form.render(&told)?))?;
            }
            _ => put(&format!("{}{}", separator(form), form.render(&object)?))?,
        }
    }
}

/// What stands before an object of a watch.
const fn separator(form: &Form) -> &'static str {
    match form {
        Form::Yaml => "---\n",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_that_is_meant_no_more_has_gone() {
        let mut chosen = Chosen {
            names: &[],
            labels: Selector::parse("app=web").unwrap(),
            fields: FieldSelector::parse("status.phase=Running").unwrap(),
            present: HashMap::new(),
        };
        let pod = |uid: &str, phase: &str| json!({"metadata": {"uid": uid, "labels": {"app": "web"}}, "status": {"phase": phase}});
        let (pending, running) = (pod("u", "Pending"), pod("u", "Running"));
        assert_eq!(chosen.seen(true, pending.clone()), None);
        assert_eq!(
            chosen.seen(true, running.clone()),
            Some(("ADDED", running.clone()))
        );
        assert_eq!(
            chosen.seen(true, running.clone()),
            Some(("MODIFIED", running.clone()))
        );
        let other = json!({"metadata": {"uid": "v"}, "status": {"phase": "Running"}});
        assert_eq!(chosen.seen(true, other), None);
        assert_eq!(
            chosen.seen(true, pod("u", "Failed")),
            Some(("DELETED", running.clone()))
        );
        assert_eq!(chosen.seen(false, pod("u", "Failed")), None);
        assert!(chosen.seen(true, running.clone()).is_some());
        assert_eq!(
            chosen.seen(false, running.clone()),
            Some(("DELETED", running))
        );
    }
}
