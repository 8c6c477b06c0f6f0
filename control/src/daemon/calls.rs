//! From a method's name to the work, and the work of every turn.

use std::time::{Duration, Instant};

use config::limits::CAPTURE_TURN_MS;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::objects::Verb;
use super::plane::Plane;
use super::server::{ClientId, Service, TICK, rpc_error};
use super::state::Daemon;
use super::watches::{Droppable, Outgoing};
use crate::protocol::{CaptureStopParams, ErrorObject, WatchReply};

/// A daemon and its end.
#[derive(Debug)]
pub struct Serving<'a, P> {
    /// The daemon.
    pub daemon: &'a mut Daemon<P>,
    /// Reads what a signal wrote, if one did.
    pub signals: &'a std::os::unix::net::UnixStream,
    /// Whether one did.
    pub stopped: bool,
    /// A worker that has ended, which it does only by panicking: the daemon ends, too, so that
    /// whoever watches over it starts a whole one.
    pub dead_worker: Option<usize>,
}

/// Index of the signals' descriptor among the server's sources.
pub const SIGNALS: usize = 0;
/// Index of the network monitor's; behind it are others of the kernel's.
pub const MONITOR: usize = 1;

impl<P: Plane> Service for Serving<'_, P> {
    fn call(
        &mut self,
        client: ClientId,
        method: &str,
        params: Value,
        arrived: Instant,
    ) -> Result<String, ErrorObject> {
        self.daemon.call(client, method, params, arrived)
    }

    fn gone(&mut self, client: ClientId) {
        self.daemon.arrived = Instant::now();
        self.daemon.watches.forget(client);
        self.daemon.forget_captures();
        self.daemon.follow_observers();
    }

    fn take_notifications(&mut self) -> Vec<Outgoing> {
        self.daemon.take_lines()
    }

    fn not_taken(&mut self, client: ClientId, line: Droppable) {
        self.daemon.watches.not_taken(client, line);
        self.daemon.captures.not_taken(client, line);
    }

    fn patience(&self) -> Duration {
        match self.daemon.captures.count() {
            0 => TICK,
            _ => Duration::from_millis(CAPTURE_TURN_MS),
        }
    }

    fn tick(&mut self, source: Option<usize>, clients: usize) {
        use std::io::Read;
        self.daemon.clients = clients;
        self.daemon.arrived = Instant::now();
        match source {
            Some(SIGNALS) => {
                let mut byte = [0; 16];
                self.stopped |= matches!((&mut &*self.signals).read(&mut byte), Ok(1..));
            }
            Some(_) => self.daemon.follow_outside(),
            None => {
                self.daemon.plane.maintain();
                self.daemon.journal.tick();
                self.daemon.follow_events();
                self.daemon.follow_hits();
                self.daemon.follow_outside();
                self.daemon.end_gone_captures();
                let workers = self.daemon.plane.workers();
                self.dead_worker = workers.iter().position(|worker| !worker.alive);
            }
        }
    }

    fn is_stopped(&self) -> bool {
        self.stopped || self.dead_worker.is_some()
    }
}

impl<P: Plane> Daemon<P> {
    /// The watches' and log followers' lines that wait for their clients.
    pub fn take_lines(&mut self) -> Vec<Outgoing> {
        self.follow_captures();
        self.watches.take_lines()
    }

    /// Answers one request, whose last byte came at `arrived`, with the result as JSON text.
    pub fn call(
        &mut self,
        client: ClientId,
        method: &str,
        params: Value,
        arrived: Instant,
    ) -> Result<String, ErrorObject> {
        self.arrived = arrived;
        match method {
            "apply" => give(self.put(Verb::Apply, take(params)?)?),
            "create" => give(self.put(Verb::Create, take(params)?)?),
            "replace" => give(self.put(Verb::Replace, take(params)?)?),
            "patch" => give(self.patch(take(params)?)?),
            "delete" => give(self.delete(take(params)?)?),
            "updateStatus" => give(self.update_status(take(params)?)?),
            "get" => give(self.get(&take(params)?)?),
            "resources" => give(self.resources()),
            "watch" => give(self.watch(client, &take(params)?)?),
            "unwatch" => {
                let WatchReply { subscription } = take(params)?;
                if self.watches.remove(client, subscription) {
                    self.forget_captures();
                    self.follow_observers();
                    return Ok("{}".to_owned());
                }
                Err(rpc_error(-32602, format!("no subscription {subscription}")))
            }
            "log.follow" => {
                self.check_watches(client)?;
                let subscription = self.watches.add_log(client);
                give(WatchReply { subscription })
            }
            "observe" => give(self.observe(client, &take(params)?)?),
            "load" => give(self.load()),
            "capture" => give(self.capture(client, &take(params)?)?),
            "capture.stop" => {
                let CaptureStopParams { subscription } = take(params)?;
                give(self.stop_capture(client, subscription)?)
            }
            "metrics" => give(self.metrics()),
            "hits" => give(self.list_hits(&take(params)?)?),
            "pod.policies" => give(self.pod_policies(&take(params)?)),
            "endpoint.add" => give(self.add_endpoint(take(params)?)?),
            "endpoint.remove" => give(self.remove_endpoint(&take(params)?)?),
            "trace" => give(self.trace(&take(params)?)?),
            "matrix" => give(self.matrix(&take(params)?)?),
            "status" => give(self.status()),
            "counters" => give(self.counters()),
            "audit" => give(self.audit()?),
            "conntrack.list" => give(self.list_connections(&take(params)?)?),
            "conntrack.flush" => give(self.flush_connections(&take(params)?)?),
            other => Err(rpc_error(-32601, format!("there is no method {other:?}"))),
        }
    }
}

/// Reads a method's parameters; absent ones are an empty object.
fn take<T: DeserializeOwned>(params: Value) -> Result<T, ErrorObject> {
    let params = if params.is_null() { json!({}) } else { params };
    serde_json::from_value(params).map_err(|error| rpc_error(-32602, format!("params: {error}")))
}

fn give(result: impl Serialize) -> Result<String, ErrorObject> {
    serde_json::to_string(&result).map_err(|error| rpc_error(-32603, error.to_string()))
}
