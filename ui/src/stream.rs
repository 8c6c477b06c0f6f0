//! What a page hears as long as it is open: objects, flows, edges, the daemon's health.
//!
//! Each page has a connection to the daemon of its own and a thread that reads it. What the browser
//! does not take stays in the daemon's socket until the daemon leaves flows out and says how many,
//! so that losses are counted in one place. The page's part of the connection, [`Events`], is
//! Server-Sent Events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>):
//!
//! | event | data |
//! | --- | --- |
//! | `reset` | `{}`: forget everything, it comes anew |
//! | `objects` | `{"objects": […], "removed": [KEY…], "synced": true}` |
//! | `health` | see [`Daemon::health`](crate::daemon::Daemon::health) |
//! | `edges` | `{"edges": […], "removed": [ID…]}` |
//! | `flows` | `{"flows": […], "leftOut": 0}`: those that the filter takes, the oldest first |
//! | `lost` | `{"client": 0, "daemon": 0}`, since the last time |
//! | `gone` | `{"reason": "…"}`: the daemon does not answer; it is tried again |

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use control::client::{Client, ClientError};
use control::flow::Flow;
use control::flow::filter::Matcher;
use control::protocol::{
    Explained, Lost, Notification, OBSERVE_NOTIFICATION, ObserveEvent, ObserveParams,
    WATCH_NOTIFICATION, WatchEvent, WatchEventType, WatchParams,
};
use hyper::body::{Body, Bytes, Frame};
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::daemon::ANSWER_TIME;
use crate::edges::Edges;
use crate::edges::Judgement;
use crate::objects;
use crate::sentence;
use crate::server::Site;

/// Events on their way to one browser.
const EVENTS: usize = 32;
/// How long an event may wait for the browser before the page is given up.
const TAKE_TIME: Duration = Duration::from_secs(30);
/// How often what has gathered is sent.
const BEAT: Duration = Duration::from_millis(100);
/// How often health is looked at when nothing has changed.
const HEALTH_BEAT: Duration = Duration::from_secs(1);
/// How often a daemon that is gone is looked for.
const SEARCH_BEAT: Duration = Duration::from_millis(300);
/// Flows of the recent past that a page begins with.
const PAST: u32 = 2000;
/// Flows told in one beat; more are counted as left out.
pub const FLOWS_PER_BEAT: usize = 200;
/// Objects in one event.
pub const OBJECTS_PER_EVENT: usize = 250;
/// Questions about edges in one beat.
const QUESTIONS_PER_BEAT: usize = 128;

/// The browser's end: a body that ends when the page's thread does.
#[derive(Debug)]
pub struct Events(Receiver<Bytes>);

impl Body for Events {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = self.0.poll_recv(context);
        polled.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// The browser does not listen any more.
struct Closed;

/// Why a connection to the daemon ended.
enum Ended {
    Browser,
    Daemon(ClientError),
}

impl From<Closed> for Ended {
    fn from(_: Closed) -> Ended {
        Ended::Browser
    }
}

impl From<ClientError> for Ended {
    fn from(error: ClientError) -> Ended {
        Ended::Daemon(error)
    }
}

/// Begins a page's stream. It ends with the browser's connection and gives its permit back then.
pub fn begin(
    site: Arc<Site>,
    wanted: Matcher,
    permit: OwnedSemaphorePermit,
) -> std::io::Result<Events> {
    let (sender, receiver) = channel(EVENTS);
    let out = Out {
        sender,
        runtime: tokio::runtime::Handle::current(),
    };
    std::thread::Builder::new()
        .name("page".into())
        .spawn(move || {
            run(&site, &wanted, &out);
            drop(permit);
        })?;
    Ok(Events(receiver))
}

struct Out {
    sender: Sender<Bytes>,
    runtime: tokio::runtime::Handle,
}

impl Out {
    fn send(&self, event: &str, payload: &Value) -> Result<(), Closed> {
        let text = Bytes::from(format!("event: {event}\ndata: {payload}\n\n"));
        let sent = self.sender.send_timeout(text, TAKE_TIME);
        self.runtime.block_on(sent).map_err(|_| Closed)
    }

    fn check(&self) -> Result<(), Closed> {
        if self.sender.is_closed() {
            Err(Closed)
        } else {
            Ok(())
        }
    }
}

fn run(site: &Site, wanted: &Matcher, out: &Out) {
    loop {
        let error = match follow(site, wanted, out) {
            Ended::Browser => return,
            Ended::Daemon(error) => error,
        };
        if out
            .send("gone", &json!({"reason": error.to_string()}))
            .is_err()
        {
            return;
        }
        std::thread::sleep(SEARCH_BEAT);
    }
}

/// One connection to the daemon, from its beginning to its end.
fn follow(site: &Site, wanted: &Matcher, out: &Out) -> Ended {
    let begun = site.daemon.connect().map_err(Ended::from);
    let ended = begun.and_then(|client| Page::begin(site, wanted, out, client)?.go_on());
    match ended {
        Ok(never) => match never {},
        Err(ended) => ended,
    }
}

struct Page<'s> {
    site: &'s Site,
    wanted: &'s Matcher,
    out: &'s Out,
    client: Client,
    edges: Edges,
    objects: Vec<Value>,
    removed: Vec<String>,
    is_synced: bool,
    flows: Vec<Value>,
    left_out: u64,
    lost: Lost,
    generation: u64,
    /// Since when something is there that health may not know.
    changed: Option<Instant>,
    health_told: Instant,
}

impl<'s> Page<'s> {
    fn begin(
        site: &'s Site,
        wanted: &'s Matcher,
        out: &'s Out,
        mut client: Client,
    ) -> Result<Page<'s>, Ended> {
        let resources = objects::WATCHED.iter().map(|name| (*name).to_owned());
        client.watch(&WatchParams {
            resources: resources.collect(),
            namespace: None,
        })?;
        let observed = client.observe(&ObserveParams {
            follow: true,
            number: Some(PAST),
            ..ObserveParams::default()
        })?;
        out.send("reset", &json!({}))?;
        let mut page = Page {
            site,
            wanted,
            out,
            client,
            edges: Edges::default(),
            objects: Vec::new(),
            removed: Vec::new(),
            is_synced: false,
            flows: Vec::new(),
            left_out: 0,
            lost: Lost::default(),
            generation: 0,
            changed: Some(Instant::now()),
            health_told: Instant::now(),
        };
        page.read_until_synced()?;
        for flow in observed.flows {
            page.add_flow(&flow);
        }
        // The past is not left out, it is past.
        page.left_out = 0;
        Ok(page)
    }

    /// Nodes' addresses are known before flows are named by them.
    fn read_until_synced(&mut self) -> Result<(), Ended> {
        let mut early = Vec::new();
        while !self.is_synced {
            self.out.check()?;
            let told = self.client.next_notification()?;
            match told.method.as_str() {
                OBSERVE_NOTIFICATION => early.push(told),
                _ => self.take(told)?,
            }
        }
        early.into_iter().try_for_each(|told| self.take(told))
    }

    fn go_on(mut self) -> Result<std::convert::Infallible, Ended> {
        loop {
            self.tell()?;
            let until = Instant::now() + BEAT;
            self.client.set_timeout(Some(BEAT))?;
            while Instant::now() < until && self.has_room() {
                match self.client.next_notification() {
                    Ok(told) => self.take(told)?,
                    Err(ClientError::Io(error)) if is_time_out(&error) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            self.client.set_timeout(Some(ANSWER_TIME))?;
        }
    }

    fn has_room(&self) -> bool {
        self.objects.len() + self.removed.len() < OBJECTS_PER_EVENT
    }

    fn take(&mut self, told: Notification) -> Result<(), Ended> {
        let broken = |error: serde_json::Error| ClientError::Protocol(error.to_string());
        match told.method.as_str() {
            WATCH_NOTIFICATION => {
                let event: WatchEvent = serde_json::from_value(told.params).map_err(broken)?;
                self.take_object(&event);
            }
            OBSERVE_NOTIFICATION => {
                let event: ObserveEvent = serde_json::from_value(told.params).map_err(broken)?;
                if let Some(flow) = event.flow {
                    self.add_flow(&flow);
                }
                self.lost += event.lost.unwrap_or_default();
            }
            _ => {}
        }
        Ok(())
    }

    fn take_object(&mut self, event: &WatchEvent) {
        let object = &event.object;
        match event.event {
            WatchEventType::Synced => self.is_synced = true,
            WatchEventType::Added | WatchEventType::Modified => {
                objects::node_addresses(object)
                    .for_each(|address| self.edges.add_node_address(address));
                self.objects.push(objects::shown(object));
            }
            WatchEventType::Deleted => {
                let key = objects::key(object);
                if let Some(pod) = key.strip_prefix("Pod/") {
                    self.edges.forget(pod);
                }
                // An object that came and went since the last beat must not come again.
                self.objects.retain(|shown| shown_key(shown) != key);
                self.removed.push(key);
            }
        }
        self.changed = Some(Instant::now());
    }

    fn add_flow(&mut self, flow: &Flow) {
        self.edges.add(flow);
        if !self.wanted.matches(flow) {
            return;
        }
        if self.flows.len() >= FLOWS_PER_BEAT {
            self.flows.remove(0);
            self.left_out += 1;
        }
        let mut shown = json!(flow);
        shown["sentence"] = sentence::of(flow).into();
        self.flows.push(shown);
    }

    /// Sends what has gathered.
    fn tell(&mut self) -> Result<(), Ended> {
        self.out.check()?;
        self.tell_objects()?;
        self.tell_health()?;
        self.judge_edges()?;
        if let Some(edges) = self.edges.take() {
            self.out.send("edges", &edges)?;
        }
        if !self.flows.is_empty() {
            let flows = std::mem::take(&mut self.flows);
            let left_out = std::mem::take(&mut self.left_out);
            self.out
                .send("flows", &json!({"flows": flows, "leftOut": left_out}))?;
        }
        if !self.lost.is_nothing() {
            let lost = std::mem::take(&mut self.lost);
            self.out.send("lost", &json!(lost))?;
        }
        Ok(())
    }

    /// In parts; only the last one of those that a page begins with says that it is whole.
    fn tell_objects(&mut self) -> Result<(), Ended> {
        let mut removed = std::mem::take(&mut self.removed);
        let mut objects = std::mem::take(&mut self.objects);
        while !objects.is_empty() || !removed.is_empty() {
            let rest = objects.split_off(objects.len().min(OBJECTS_PER_EVENT));
            let synced = self.is_synced && rest.is_empty();
            let told = json!({"objects": objects, "removed": removed, "synced": synced});
            self.out.send("objects", &told)?;
            (objects, removed) = (rest, Vec::new());
        }
        Ok(())
    }

    fn tell_health(&mut self) -> Result<(), Ended> {
        let is_due = self.health_told.elapsed() >= HEALTH_BEAT;
        let Some(since) = self.changed.or(is_due.then_some(self.health_told)) else {
            return Ok(());
        };
        let health = self.site.daemon.health(&mut self.client, since)?;
        self.generation = health["generation"].as_u64().unwrap_or(0);
        self.changed = None;
        self.health_told = Instant::now();
        Ok(self.out.send("health", &health)?)
    }

    /// Asks what policy says of edges now. All are asked before the first is answered.
    fn judge_edges(&mut self) -> Result<(), Ended> {
        let open = self.edges.unjudged(self.generation, QUESTIONS_PER_BEAT);
        let mut asked = Vec::with_capacity(open.len());
        for (edge, question) in open {
            asked.push((edge, self.client.send("trace", &question)?));
        }
        for (edge, question) in asked {
            let judgement = match self.client.receive_reply(question) {
                Ok(answer) => judgement(answer)?,
                Err(ClientError::Refused(error)) => Judgement {
                    verdict: None,
                    reason: error.message,
                },
                Err(error) => return Err(error.into()),
            };
            self.edges.judge(edge, self.generation, judgement);
        }
        Ok(())
    }
}

fn shown_key(shown: &Value) -> String {
    let part = |name: &str| shown[name].as_str().unwrap_or_default();
    format!("{}/{}/{}", part("kind"), part("namespace"), part("name"))
}

fn judgement(answer: Value) -> Result<Judgement, ClientError> {
    let answer: Explained =
        serde_json::from_value(answer).map_err(|error| ClientError::Protocol(error.to_string()))?;
    let part = |name: &str| answer.json[name].as_str().map(str::to_owned);
    Ok(Judgement {
        verdict: part("verdict"),
        reason: part("reason").unwrap_or_default(),
    })
}

fn is_time_out(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
    )
}
