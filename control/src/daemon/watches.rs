//! Who wants to hear of which objects, and of the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::server::ClientId;
use crate::objects::{Kind, Object};
use crate::protocol::{
    JSONRPC, LOG_NOTIFICATION, LogLine, Notification, WATCH_NOTIFICATION, WatchEvent,
    WatchEventType,
};

/// What a subscription is about.
#[derive(Clone, Debug)]
enum Subject {
    /// Objects of these kinds (none: of every kind), in that namespace or in all.
    Objects {
        kinds: Vec<&'static Kind>,
        namespace: Option<String>,
    },
    /// Lines of the denial log.
    Log,
}

/// The subscriptions, and the lines that wait for their clients.
#[derive(Debug, Default)]
pub struct Watches {
    subscriptions: BTreeMap<(ClientId, u64), Subject>,
    last: u64,
    lines: Vec<(ClientId, Vec<u8>)>,
}

impl Watches {
    /// Begins a watch of objects.
    pub fn add_objects(
        &mut self,
        client: ClientId,
        kinds: Vec<&'static Kind>,
        namespace: Option<String>,
    ) -> u64 {
        self.add(client, Subject::Objects { kinds, namespace })
    }

    /// Begins to follow the log.
    pub fn add_log(&mut self, client: ClientId) -> u64 {
        self.add(client, Subject::Log)
    }

    fn add(&mut self, client: ClientId, subject: Subject) -> u64 {
        self.last += 1;
        self.subscriptions.insert((client, self.last), subject);
        self.last
    }

    /// Ends a subscription; whether there was one.
    pub fn remove(&mut self, client: ClientId, subscription: u64) -> bool {
        self.subscriptions.remove(&(client, subscription)).is_some()
    }

    /// Ends all of a client's.
    pub fn forget(&mut self, client: ClientId) {
        self.subscriptions.retain(|(owner, _), _| *owner != client);
        self.lines.retain(|(owner, _)| *owner != client);
    }

    /// How many a client has.
    pub fn count(&self, client: ClientId) -> usize {
        let range = (client, 0)..=(client, u64::MAX);
        self.subscriptions.range(range).count()
    }

    /// Tells one subscription of an object, or that it has heard of all.
    pub fn tell(
        &mut self,
        client: ClientId,
        subscription: u64,
        event: WatchEventType,
        object: Value,
    ) {
        let params = WatchEvent {
            subscription,
            event,
            object,
        };
        self.queue(client, WATCH_NOTIFICATION, serde_json::to_value(params));
    }

    /// Tells everybody concerned of an object.
    pub fn tell_all(&mut self, event: WatchEventType, object: &Arc<Object>) {
        let concerned: Vec<(ClientId, u64)> = self
            .subscriptions
            .iter()
            .filter(|(_, subject)| subject.concerns(object))
            .map(|(key, _)| *key)
            .collect();
        for (client, subscription) in concerned {
            self.tell(client, subscription, event, object.to_value());
        }
    }

    /// Whether a subscription to these kinds and that namespace is about the object.
    pub fn concerns(kinds: &[&'static Kind], namespace: Option<&str>, object: &Object) -> bool {
        let kind = kinds.is_empty() || kinds.contains(&object.kind());
        kind && namespace.is_none_or(|namespace| namespace == object.namespace())
    }

    /// Tells the log's followers of a line.
    pub fn tell_log(&mut self, line: &str) {
        let followers: Vec<(ClientId, u64)> = self
            .subscriptions
            .iter()
            .filter(|(_, subject)| matches!(subject, Subject::Log))
            .map(|(key, _)| *key)
            .collect();
        for (client, subscription) in followers {
            let params = LogLine {
                subscription,
                line: line.to_owned(),
            };
            self.queue(client, LOG_NOTIFICATION, serde_json::to_value(params));
        }
    }

    fn queue(&mut self, client: ClientId, method: &str, params: serde_json::Result<Value>) {
        let notification = params.map(|params| Notification {
            jsonrpc: JSONRPC.to_owned(),
            method: method.to_owned(),
            params,
        });
        // Strings, numbers and maps with string keys: there is nothing that JSON could not hold.
        if let Ok(line) = notification.and_then(|whole| serde_json::to_vec(&whole)) {
            self.lines.push((client, line));
        }
    }

    /// The lines that wait, which are the caller's from now on.
    pub fn take_lines(&mut self) -> Vec<(ClientId, Vec<u8>)> {
        std::mem::take(&mut self.lines)
    }
}

impl Subject {
    fn concerns(&self, object: &Object) -> bool {
        match self {
            Subject::Objects { kinds, namespace } => {
                Watches::concerns(kinds, namespace.as_deref(), object)
            }
            Subject::Log => false,
        }
    }
}
