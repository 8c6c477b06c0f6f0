//! v1 Events, as a cluster's own components write them: what was started, ended, refused, and why.
//!
//! Whoever has something to tell puts a note into a bounded queue and goes on; one thread makes
//! objects of the notes. The same note about the same object counts up instead of coming again, as
//! with client-go's `tools/record`. At most [`KEPT`] events are kept, for [`AGE`] after they last
//! happened; a queue that is full loses notes, which are counted.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use control::protocol::{ApplyParams, Mutation, Target};
use serde_json::{Value, json};

use super::objects::{text, uid};
use super::{Agent, NODE};
use crate::clock;

/// Events that are kept, at most.
pub const KEPT: usize = 500;
/// How long an event is kept after it last happened: the API server's `--event-ttl`.
pub const AGE: Duration = Duration::from_secs(3600);
/// Notes that wait for the thread, at most.
const QUEUE: usize = 512;
/// Notes that come this close together become one request.
const GATHER: Duration = Duration::from_millis(20);
/// Without any note, how often to look for what is too old.
const LOOK: Duration = Duration::from_secs(30);

/// Whether something is as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tone {
    /// `Normal`.
    Normal,
    /// `Warning`.
    Warning,
}

/// Something that happened to an object.
#[derive(Clone, Debug)]
pub struct Note {
    about: Value,
    tone: Tone,
    component: &'static str,
    reason: &'static str,
    message: String,
}

/// Takes notes.
#[derive(Debug)]
pub struct Recorder {
    notes: SyncSender<Note>,
    lost: AtomicU64,
}

impl Recorder {
    /// A recorder, and what [`keep`] reads.
    pub fn new() -> (Recorder, Receiver<Note>) {
        let (notes, inbox) = sync_channel(QUEUE);
        let lost = AtomicU64::new(0);
        (Recorder { notes, lost }, inbox)
    }

    /// Takes a note on `object`, or on a part of it (`spec.containers{web}`).
    pub fn note(
        &self,
        component: &'static str,
        (object, part): (&Value, Option<String>),
        tone: Tone,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        let mut about = json!({
            "apiVersion": object["apiVersion"], "kind": object["kind"],
            "namespace": object["metadata"]["namespace"], "name": object["metadata"]["name"],
            "uid": object["metadata"]["uid"],
        });
        if let Some(part) = part {
            about["fieldPath"] = part.into();
        }
        let note = Note {
            about,
            tone,
            component,
            reason,
            message: message.into(),
        };
        if self.notes.try_send(note).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes that found the queue full.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// What makes two notes the same.
type Same = (String, String, &'static str, &'static str, String);

/// An event that is kept.
#[derive(Debug)]
struct Kept {
    namespace: String,
    name: String,
    count: u64,
    last: Instant,
}

/// The events that are kept, and what is to be done about each note.
#[derive(Debug, Default)]
struct Shelf {
    kept: BTreeMap<Same, Kept>,
    made: u64,
}

/// What a note becomes.
#[derive(Debug, PartialEq)]
enum Work {
    Create(Value),
    Count(Target, Value),
}

impl Shelf {
    fn take(&mut self, note: Note, now: Instant) -> Work {
        let field = |name: &str| text(&note.about, &format!("/{name}")).to_owned();
        let same = (
            field("uid"),
            field("fieldPath"),
            note.component,
            note.reason,
            note.message.clone(),
        );
        let time = clock::now();
        if let Some(kept) = self.kept.get_mut(&same) {
            kept.count += 1;
            kept.last = now;
            let target = kept.target();
            return Work::Count(target, json!({"count": kept.count, "lastTimestamp": time}));
        }
        self.made += 1;
        let namespace = match field("namespace") {
            empty if empty.is_empty() => "default".to_owned(),
            own => own,
        };
        let started = std::process::id();
        let name = format!("{}.{started:x}{:08x}", field("name"), self.made);
        let event = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": note.about,
            "reason": note.reason, "message": note.message,
            "type": if note.tone == Tone::Warning { "Warning" } else { "Normal" },
            "count": 1, "firstTimestamp": time, "lastTimestamp": time,
            "source": {"component": note.component, "host": NODE},
            "reportingComponent": note.component, "reportingInstance": NODE,
        });
        let kept = Kept {
            namespace,
            name,
            count: 1,
            last: now,
        };
        self.kept.insert(same, kept);
        Work::Create(event)
    }

    /// Takes out what is too old, and the oldest of what is too much.
    fn expired(&mut self, now: Instant) -> Vec<Target> {
        let mut gone = Vec::new();
        self.kept.retain(|_, kept| {
            let stays = now.saturating_duration_since(kept.last) < AGE;
            if !stays {
                gone.push(kept.target());
            }
            stays
        });
        while self.kept.len() > KEPT {
            let oldest = self.kept.iter().min_by_key(|(_, kept)| kept.last);
            let Some(key) = oldest.map(|(key, _)| key.clone()) else {
                break;
            };
            gone.extend(self.kept.remove(&key).map(|kept| kept.target()));
        }
        gone
    }
}

impl Kept {
    fn target(&self) -> Target {
        Target {
            resource: "events".into(),
            namespace: Some(self.namespace.clone()),
            name: self.name.clone(),
        }
    }
}

/// Makes events of notes, for good. An event that cannot be written (its namespace goes, the daemon
/// is just being started again) is not worth more than one try.
pub fn keep(agent: &Agent, inbox: &Receiver<Note>) {
    let mut shelf = Shelf::default();
    while !agent.is_stopping() {
        let first = match inbox.recv_timeout(LOOK) {
            Ok(note) => Some(note),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let mut notes: Vec<Note> = first.into_iter().collect();
        if !notes.is_empty() {
            std::thread::sleep(GATHER);
            notes.extend(inbox.try_iter());
        }
        let now = Instant::now();
        let mut created = Vec::new();
        let mut counted = Vec::new();
        for note in notes {
            match shelf.take(note, now) {
                Work::Create(event) => created.push(event),
                Work::Count(target, change) => counted.push((target, change)),
            }
        }
        create(agent, created);
        for (target, change) in counted {
            let object = json!({"metadata": {"name": target.name, "namespace": target.namespace}});
            let _gone_meanwhile = agent.merge("events", &object, change);
        }
        delete(agent, shelf.expired(now));
    }
}

fn create(agent: &Agent, events: Vec<Value>) {
    if events.is_empty() {
        return;
    }
    let write = |objects: Vec<Value>| {
        let params = ApplyParams {
            objects,
            ..ApplyParams::default()
        };
        agent.call::<Mutation>("create", params)
    };
    if events.len() > 1 && write(events.clone()).is_ok() {
        return;
    }
    for event in events {
        let _refused = write(vec![event]);
    }
}

fn delete(agent: &Agent, targets: Vec<Target>) {
    if targets.is_empty() {
        return;
    }
    let params = control::protocol::DeleteParams {
        targets,
        ignore_not_found: true,
        grace_period: Some(0),
        dry_run: false,
        orphan: false,
    };
    let _tried_once = agent.call::<Mutation>("delete", params);
}

/// How a container is named in an event: `spec.containers{web}`.
pub fn container_part(list: &str, name: &str) -> Option<String> {
    Some(format!("spec.{list}{{{name}}}"))
}

/// Whether an object can be written about: one without a UID is not the daemon's.
pub fn is_known(object: &Value) -> bool {
    !uid(object).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(name: &str, message: &str) -> Note {
        let (recorder, inbox) = Recorder::new();
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "ns", "uid": name}});
        recorder.note("kubelet", (&pod, None), Tone::Warning, "BackOff", message);
        inbox.try_recv().unwrap()
    }

    #[test]
    fn the_same_note_counts_up() {
        let (mut shelf, now) = (Shelf::default(), Instant::now());
        let Work::Create(event) = shelf.take(note("a", "m"), now) else {
            panic!("a first note");
        };
        assert_eq!(event["involvedObject"]["name"], "a");
        assert_eq!(
            (&event["type"], &event["count"]),
            (&"Warning".into(), &1.into())
        );
        let Work::Count(target, change) = shelf.take(note("a", "m"), now) else {
            panic!("a second note");
        };
        assert_eq!(event["metadata"]["name"], target.name.as_str());
        assert_eq!(change["count"], 2);
        assert!(matches!(
            shelf.take(note("a", "other"), now),
            Work::Create(_)
        ));
        assert!(matches!(shelf.take(note("b", "m"), now), Work::Create(_)));
    }

    #[test]
    fn events_are_bounded_in_number_and_age() {
        let (mut shelf, begin) = (Shelf::default(), Instant::now());
        for number in 0..KEPT + 3 {
            let later = begin + Duration::from_millis(number as u64);
            shelf.take(note("a", &number.to_string()), later);
        }
        assert_eq!(shelf.expired(begin).len(), 3);
        assert_eq!(shelf.kept.len(), KEPT);
        assert_eq!(
            shelf.expired(begin + AGE + Duration::from_secs(9)).len(),
            KEPT
        );
        assert!(shelf.kept.is_empty());
    }

    #[test]
    fn a_full_queue_loses_notes_and_counts_them() {
        let (recorder, _inbox) = Recorder::new();
        for _ in 0..QUEUE + 2 {
            recorder.note("kubelet", (&json!({}), None), Tone::Normal, "Pulled", "m");
        }
        assert_eq!(recorder.lost(), 2);
    }
}
