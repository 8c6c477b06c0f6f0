//! A mirror of the daemon's objects, kept by a watch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use control::client::{Client, ClientError};
use control::protocol::{WatchEvent, WatchEventType, WatchParams};
use serde_json::Value;

use super::{Agent, daemon, lock, pods};

/// The kinds that a lab runs or reads.
pub const RESOURCES: [&str; 14] = [
    "namespaces",
    "pods",
    "services",
    "endpointslices",
    "endpoints",
    "configmaps",
    "secrets",
    "replicationcontrollers",
    "replicasets",
    "deployments",
    "statefulsets",
    "daemonsets",
    "jobs",
    "cronjobs",
];

/// Kind, namespace and name.
pub type Key = (String, String, String);

/// The objects.
#[derive(Default)]
pub struct Mirror {
    objects: Mutex<BTreeMap<Key, Arc<Value>>>,
    /// Counts changes; the condition tells of them.
    changes: Mutex<u64>,
    /// When the last one was.
    last: Mutex<Option<Instant>>,
    changed: Condvar,
}

/// What names an object.
pub fn key_of(object: &Value) -> Key {
    let text = |pointer: &str| {
        let found = object.pointer(pointer).and_then(Value::as_str);
        found.unwrap_or_default().to_owned()
    };
    (
        text("/kind"),
        text("/metadata/namespace"),
        text("/metadata/name"),
    )
}

impl Mirror {
    /// One object.
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let key = (kind.to_owned(), namespace.to_owned(), name.to_owned());
        lock(&self.objects).get(&key).cloned()
    }

    /// All objects of a kind, by namespace and name.
    pub fn list(&self, kind: &str) -> Vec<Arc<Value>> {
        let objects = lock(&self.objects);
        let from = (kind.to_owned(), String::new(), String::new());
        let range = objects.range(from..).take_while(|(key, _)| key.0 == kind);
        range.map(|(_, object)| object.clone()).collect()
    }

    /// Waits for a change after the one numbered `seen`, or for the time given; the newest number.
    pub fn wait(&self, seen: u64, longest: Duration) -> u64 {
        let changes = lock(&self.changes);
        let waited = self
            .changed
            .wait_timeout_while(changes, longest, |now| *now == seen);
        match waited {
            Ok((now, _)) => *now,
            Err(poisoned) => *poisoned.into_inner().0,
        }
    }

    /// The number of the last change, and how long it is ago.
    pub fn last_change(&self) -> (u64, Duration) {
        let number = *lock(&self.changes);
        (
            number,
            lock(&self.last).map_or(Duration::MAX, |last| last.elapsed()),
        )
    }

    /// Makes whoever waits look again.
    pub fn nudge(&self) {
        *lock(&self.last) = Some(Instant::now());
        *lock(&self.changes) += 1;
        self.changed.notify_all();
    }

    fn put(&self, object: Arc<Value>) {
        lock(&self.objects).insert(key_of(&object), object);
        self.nudge();
    }

    fn remove(&self, key: &Key) -> Option<Arc<Value>> {
        let gone = lock(&self.objects).remove(key);
        self.nudge();
        gone
    }

    fn keys(&self) -> BTreeSet<Key> {
        lock(&self.objects).keys().cloned().collect()
    }
}

/// Watches for good; a daemon that was started again is watched anew.
pub fn watch(agent: &Arc<Agent>) {
    while !agent.is_stopping() {
        match watch_once(agent) {
            Ok(()) | Err(ClientError::Connect { .. } | ClientError::Closed) => {}
            Err(_) if agent.is_stopping() => {}
            Err(error) => agent.complain(format_args!("watch: {error}")),
        }
        agent.daemon.ready.store(false, Ordering::Release);
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn watch_once(agent: &Arc<Agent>) -> Result<(), ClientError> {
    let mut client = Client::connect(agent.lab.control_socket())?;
    daemon::greet(agent)?;
    let resources = RESOURCES.map(str::to_owned).to_vec();
    client.watch(&WatchParams {
        resources,
        namespace: None,
    })?;
    // What the mirror has and the daemon does not tell of until it is in step has gone meanwhile.
    let mut unseen = agent.mirror.keys();
    loop {
        let WatchEvent { event, object, .. } = client.next_event()?;
        match event {
            WatchEventType::Synced => {
                for key in std::mem::take(&mut unseen) {
                    forget(agent, &key);
                }
                pods::announce_again(agent);
                agent.daemon.ready.store(true, Ordering::Release);
                agent.mirror.nudge();
            }
            WatchEventType::Deleted => forget(agent, &key_of(&object)),
            WatchEventType::Added | WatchEventType::Modified => {
                unseen.remove(&key_of(&object));
                let object = Arc::new(object);
                agent.mirror.put(object.clone());
                match object["kind"].as_str() {
                    Some("Pod") => pods::seen(agent, &object),
                    Some("ConfigMap" | "Secret") => pods::mounted(agent, &object),
                    _ => {}
                }
            }
        }
    }
}

fn forget(agent: &Arc<Agent>, key: &Key) {
    if let Some(object) = agent.mirror.remove(key)
        && key.0 == "Pod"
    {
        pods::gone(agent, &object);
    }
}
