//! Objects as they are and change, for verbs that wait for something.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cli::session::{Session, VerbError};
use crate::client::{Client, ClientError};
use crate::protocol::{WatchEvent, WatchEventType, WatchParams};

use super::find::Found;

/// Kind, namespace and name.
type Key = (String, String, String);

fn key(object: &Value) -> Key {
    let text = |pointer: &str| {
        let found = object.pointer(pointer).and_then(Value::as_str);
        found.unwrap_or_default().to_owned()
    };
    (
        format!("{}/{}", text("/apiVersion"), text("/kind")),
        text("/metadata/namespace"),
        text("/metadata/name"),
    )
}

/// A watch on some resources, and its objects as the last event left them.
pub struct Watched {
    client: Client,
    objects: BTreeMap<Key, Value>,
}

impl Watched {
    /// Begins to watch, on a connection of its own; returns when everything that is there has come.
    pub fn begin(
        session: &mut Session,
        mut resources: Vec<String>,
        namespace: Option<String>,
    ) -> Result<Watched, VerbError> {
        resources.sort();
        resources.dedup();
        let mut watched = Watched {
            client: session.connect()?,
            objects: BTreeMap::new(),
        };
        watched.client.watch(&WatchParams {
            resources,
            namespace,
        })?;
        while watched
            .next(None)?
            .is_none_or(|event| event.event != WatchEventType::Synced)
        {}
        Ok(watched)
    }

    /// [`Watched::begin`] of what was found.
    pub fn of(session: &mut Session, found: &[Found]) -> Result<Watched, VerbError> {
        let resources = found.iter().map(|one| one.resource.clone()).collect();
        let mut namespaces = found.iter().map(|one| one.target().namespace);
        let first = namespaces.next().flatten();
        let shared = namespaces.all(|other| other == first);
        Watched::begin(session, resources, first.filter(|_| shared))
    }

    /// An object as it is now, if it is there.
    pub fn get(&self, one: &Found) -> Option<&Value> {
        self.objects.get(&key(&one.object))
    }

    /// All of them, as they are now.
    pub fn objects(&self) -> impl Iterator<Item = &Value> {
        self.objects.values()
    }

    /// Whether an event is about an object.
    pub fn concerns(event: &WatchEvent, one: &Found) -> bool {
        key(&event.object) == key(&one.object)
    }

    /// Waits for the next event, until `deadline` if there is one; none if that came first.
    pub fn next(&mut self, deadline: Option<Instant>) -> Result<Option<WatchEvent>, VerbError> {
        let left = match deadline {
            None => None,
            Some(deadline) => match deadline.saturating_duration_since(Instant::now()) {
                // A socket takes no time-out of zero; what is here already is read nonetheless.
                Duration::ZERO if !self.client.has_buffered() => return Ok(None),
                left => Some(left.max(Duration::from_millis(1))),
            },
        };
        self.client.set_timeout(left)?;
        let event = match self.client.next_event() {
            Ok(event) => event,
            Err(ClientError::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        match event.event {
            WatchEventType::Added | WatchEventType::Modified => {
                self.objects
                    .insert(key(&event.object), event.object.clone());
            }
            WatchEventType::Deleted => {
                self.objects.remove(&key(&event.object));
            }
            WatchEventType::Synced => {}
        }
        Ok(Some(event))
    }
}
