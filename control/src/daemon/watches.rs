//! Who wants to hear of which objects, of the log, and of which flows.
//!
//! Objects and log lines are never left out: a client that does not take them is closed. Flows are
//! many, and each stands for itself: what an observer does not take is counted, and it is told how
//! many.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::server::ClientId;
use crate::flow::filter::Matcher;
use crate::flow::{Flow, FlowVerdict};
use crate::objects::{Kind, Object};
use crate::protocol::{
    JSONRPC, LOG_NOTIFICATION, LogLine, Lost, Notification, OBSERVE_NOTIFICATION, ObserveEvent,
    WATCH_NOTIFICATION, WatchEvent, WatchEventType,
};

/// A line for a client.
#[derive(Debug)]
pub struct Outgoing {
    /// Whom it is for.
    pub client: ClientId,
    /// The line without its end.
    pub line: Vec<u8>,
    /// What may be left out if the client has no room for it; none: nothing may.
    pub droppable: Option<Droppable>,
}

/// A line that may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Droppable {
    /// A flow, for that subscription.
    Flow(u64),
    /// How many flows that subscription was not told of.
    Losses(u64, Lost),
    /// So many packets, for that subscription.
    Packets(u64, u64),
    /// How many packets that subscription was not told of.
    PacketLosses(u64, Lost),
}

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
    /// Flows, and how many of them could not be told since the last time.
    Flows { wanted: Box<Matcher>, lost: Lost },
    /// Packets; what is wanted of them stands with [`Captures`](super::captures::Captures).
    Packets,
}

/// The subscriptions, and the lines that wait for their clients.
#[derive(Debug, Default)]
pub struct Watches {
    subscriptions: BTreeMap<(ClientId, u64), Subject>,
    last: u64,
    lines: Vec<Outgoing>,
    flows_lost: u64,
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

    /// Begins to observe flows.
    pub fn add_flows(&mut self, client: ClientId, wanted: Matcher) -> u64 {
        let subject = Subject::Flows {
            wanted: Box::new(wanted),
            lost: Lost::default(),
        };
        self.add(client, subject)
    }

    /// Begins to capture packets.
    pub fn add_packets(&mut self, client: ClientId) -> u64 {
        self.add(client, Subject::Packets)
    }

    /// Whether a client has that subscription.
    pub fn has(&self, client: ClientId, subscription: u64) -> bool {
        self.subscriptions.contains_key(&(client, subscription))
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
        self.lines.retain(|line| line.client != client);
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
        self.queue(
            client,
            WATCH_NOTIFICATION,
            serde_json::to_value(params),
            None,
        );
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
            self.queue(client, LOG_NOTIFICATION, serde_json::to_value(params), None);
        }
    }

    /// Whether somebody observes flows with that verdict.
    pub fn wants(&self, verdict: FlowVerdict) -> bool {
        let mut subjects = self.subscriptions.values();
        subjects.any(|subject| match subject {
            Subject::Flows { wanted, .. } => wanted.may_match(verdict),
            _ => false,
        })
    }

    /// Tells the observers who want it of a flow.
    pub fn tell_flow(&mut self, flow: &Flow) {
        let observers: Vec<(ClientId, u64)> = self
            .subscriptions
            .iter()
            .filter(|(_, subject)| match subject {
                Subject::Flows { wanted, .. } => wanted.matches(flow),
                _ => false,
            })
            .map(|(key, _)| *key)
            .collect();
        for (client, subscription) in observers {
            let params = serde_json::to_value(ObserveEvent {
                subscription,
                flow: Some(flow.clone()),
                lost: None,
            });
            let droppable = Some(Droppable::Flow(subscription));
            self.queue(client, OBSERVE_NOTIFICATION, params, droppable);
        }
    }

    fn lose(&mut self, client: ClientId, subscription: u64, more: Lost) {
        let subject = self.subscriptions.get_mut(&(client, subscription));
        if let Some(Subject::Flows { lost, .. }) = subject {
            *lost += more;
        }
    }

    /// Takes note that no observer is told of so many events.
    pub fn lose_for_all(&mut self, events: u64) {
        for subject in self.subscriptions.values_mut() {
            if let Subject::Flows { lost, .. } = subject {
                lost.daemon += events;
            }
        }
    }

    /// Flows that observers wanted and were not told of, since the start.
    pub fn flows_lost(&self) -> u64 {
        self.flows_lost
    }

    /// Tells observers of what they have lost.
    fn tell_losses(&mut self) {
        let mut told = Vec::new();
        for ((client, subscription), subject) in &mut self.subscriptions {
            if let Subject::Flows { lost, .. } = subject
                && !lost.is_nothing()
            {
                told.push((*client, *subscription, std::mem::take(lost)));
            }
        }
        for (client, subscription, lost) in told {
            let params = serde_json::to_value(ObserveEvent {
                subscription,
                flow: None,
                lost: Some(lost),
            });
            let droppable = Some(Droppable::Losses(subscription, lost));
            self.queue(client, OBSERVE_NOTIFICATION, params, droppable);
        }
    }

    /// Takes note of a line that its client had no room for: the loss is told in the next turn.
    pub fn not_taken(&mut self, client: ClientId, line: Droppable) {
        match line {
            Droppable::Flow(subscription) => {
                self.flows_lost += 1;
                let one = Lost {
                    client: 1,
                    daemon: 0,
                };
                self.lose(client, subscription, one);
            }
            Droppable::Losses(subscription, lost) => self.lose(client, subscription, lost),
            Droppable::Packets(..) | Droppable::PacketLosses(..) => {}
        }
    }

    /// Adds a notification to the lines that wait.
    pub fn queue(
        &mut self,
        client: ClientId,
        method: &str,
        params: serde_json::Result<Value>,
        droppable: Option<Droppable>,
    ) {
        let notification = params.map(|params| Notification {
            jsonrpc: JSONRPC.to_owned(),
            method: method.to_owned(),
            params,
        });
        // Strings, numbers and maps with string keys: there is nothing that JSON could not hold.
        if let Ok(line) = notification.and_then(|whole| serde_json::to_vec(&whole)) {
            self.lines.push(Outgoing {
                client,
                line,
                droppable,
            });
        }
    }

    /// The lines that wait, which are the caller's from now on.
    pub fn take_lines(&mut self) -> Vec<Outgoing> {
        self.tell_losses();
        std::mem::take(&mut self.lines)
    }
}

impl Subject {
    fn concerns(&self, object: &Object) -> bool {
        match self {
            Subject::Objects { kinds, namespace } => {
                Watches::concerns(kinds, namespace.as_deref(), object)
            }
            Subject::Log | Subject::Flows { .. } | Subject::Packets => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::FlowEnd;
    use crate::flow::filter::FlowFilter;

    fn flow(verdict: FlowVerdict) -> Flow {
        let end = FlowEnd {
            ip: "10.0.0.1".parse().unwrap(),
            port: None,
            namespace: None,
            pod: None,
            labels: Default::default(),
            workload: None,
        };
        Flow {
            time: String::new(),
            verdict,
            reason: String::new(),
            direction: None,
            source: end.clone(),
            destination: end,
            service: None,
            protocol: "TCP".into(),
            tcp_flags: Vec::new(),
            policy: None,
            generation: 1,
            node: String::new(),
        }
    }

    #[test]
    fn an_observer_without_room_is_told_later_how_much_it_lost() {
        let mut watches = Watches::default();
        let client = ClientId(1);
        let drops = FlowFilter {
            verdict: vec![FlowVerdict::Dropped],
            ..FlowFilter::default()
        };
        let number = watches.add_flows(client, Matcher::new(&[drops], &[]).unwrap());
        assert!(watches.wants(FlowVerdict::Dropped) && !watches.wants(FlowVerdict::Forwarded));
        watches.tell_flow(&flow(FlowVerdict::Forwarded));
        for _ in 0..3 {
            watches.tell_flow(&flow(FlowVerdict::Dropped));
        }
        let lines = watches.take_lines();
        assert_eq!(lines.len(), 3);
        for line in &lines[1..] {
            watches.not_taken(client, line.droppable.unwrap());
        }
        watches.lose_for_all(7);
        let lost = Lost {
            client: 2,
            daemon: 7,
        };
        // Not even the news of the loss is taken: it is told again.
        for _ in 0..2 {
            let lines = watches.take_lines();
            let told = Droppable::Losses(number, lost);
            assert_eq!(lines[0].droppable, Some(told));
            watches.not_taken(client, told);
        }
        let lines = watches.take_lines();
        let event: Value = serde_json::from_slice(&lines[0].line).unwrap();
        assert_eq!(event["params"]["lost"]["client"], 2);
        assert_eq!(event["params"]["lost"]["daemon"], 7);
        assert!(watches.take_lines().is_empty());
        assert_eq!(watches.flows_lost(), 2);
    }
}
