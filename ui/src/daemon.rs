//! Single questions to the daemon, and its health, which all pages share.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use control::client::{Client, ClientError};
use control::protocol::{MetricsReply, Reason, Status};
use hyper::StatusCode;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::guard::Refusal;

/// Questions at once; more wait for their turn.
const CALLS: usize = 8;
/// How long an answer may take.
pub const ANSWER_TIME: Duration = Duration::from_secs(20);
/// Metrics that the page shows, and what it calls them.
const SHOWN_METRICS: [(&str, &str); 3] = [
    ("weir_policy_mismatch_total", "mismatches"),
    ("weir_policy_reason_mismatch_total", "reasonMismatches"),
    ("weir_policy_samples_total", "checked"),
];

/// The way to the daemon.
#[derive(Debug)]
pub struct Daemon {
    socket: PathBuf,
    room: Arc<Semaphore>,
    health: Mutex<Option<(Instant, Value)>>,
}

impl Daemon {
    /// The daemon behind this socket. Nothing is connected yet.
    pub fn new(socket: PathBuf) -> Daemon {
        Daemon {
            socket,
            room: Arc::new(Semaphore::new(CALLS)),
            health: Mutex::new(None),
        }
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A connection that waits for an answer for [`ANSWER_TIME`].
    pub fn connect(&self) -> Result<Client, ClientError> {
        connect(&self.socket)
    }

    /// Asks on a connection of its own, beside the thread that serves browsers.
    pub async fn ask<T, F>(&self, question: F) -> Result<T, Refusal>
    where
        T: Send + 'static,
        F: FnOnce(&mut Client) -> Result<T, ClientError> + Send + 'static,
    {
        let broken = |_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the question broke");
        let room = self.room.clone().acquire_owned().await;
        let room = room.map_err(|_| unavailable("the page ends"))?;
        let socket = self.socket.clone();
        let asked = tokio::task::spawn_blocking(move || {
            let _room = room;
            question(&mut connect(&socket)?)
        });
        let answer = asked.await.map_err(broken)?;
        answer.map_err(|error| refusal(&error))
    }

    /// The daemon's health, as it was at `since` or later; read on this connection unless another
    /// page has done so.
    pub fn health(&self, client: &mut Client, since: Instant) -> Result<Value, ClientError> {
        let mut known = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some((asked, health)) if *asked >= since => Ok(health.clone()),
            _ => {
                let asked = Instant::now();
                let read = read_health(client)?;
                *known = Some((asked, read.clone()));
                Ok(read)
            }
        }
    }
}

fn connect(socket: &Path) -> Result<Client, ClientError> {
    let mut client = Client::connect(socket)?;
    client.set_timeout(Some(ANSWER_TIME))?;
    Ok(client)
}

fn read_health(client: &mut Client) -> Result<Value, ClientError> {
    let status: Status = client.call("status", json!({}))?;
    let metrics: MetricsReply = client.call("metrics", json!({}))?;
    let live = |worker: &&control::protocol::WorkerStatus| {
        worker.alive && worker.generation == status.generation
    };
    let problems: Vec<String> = status
        .ports
        .iter()
        .filter_map(|port| Some(format!("{}: {}", port.interface, port.problem.as_ref()?)))
        .collect();
    let mut health = json!({
        "version": status.version,
        "node": status.node,
        "instance": status.instance,
        "generation": status.generation,
        "health": status.health,
        "uptimeSeconds": status.uptime_seconds,
        "workers": {
            "live": status.workers.iter().filter(live).count(),
            "total": status.workers.len(),
        },
        "conntrack": status.conntrack,
        "logLost": status.log.lost,
        "problems": problems,
    });
    for (name, key) in SHOWN_METRICS {
        health[key] = json!(metric(&metrics.text, name));
    }
    Ok(health)
}

/// The value of a metric without labels; none if it is not there.
fn metric(text: &str, name: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

fn unavailable(text: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, text)
}

/// What a browser is told of a failed question.
fn refusal(error: &ClientError) -> Refusal {
    let status = match error.reason() {
        Some(Reason::NotFound) => StatusCode::NOT_FOUND,
        Some(Reason::InternalError) => StatusCode::BAD_GATEWAY,
        Some(Reason::ServiceUnavailable | Reason::TooManyRequests) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Some(_) => StatusCode::BAD_REQUEST,
        None if matches!(error, ClientError::Refused(_)) => StatusCode::BAD_REQUEST,
        None => return unavailable(error.to_string()),
    };
    Refusal::new(status, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::metric;

    #[test]
    fn a_metric_is_found_by_its_whole_name() {
        let text = "# HELP weir_a x\nweir_a_total 7\nweir_a 3\nweir_b{x=\"y\"} 4\n";
        assert_eq!(metric(text, "weir_a"), Some(3));
        assert_eq!(metric(text, "weir_a_total"), Some(7));
        assert_eq!(metric(text, "weir_b"), None);
    }
}
