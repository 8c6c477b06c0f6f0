//! Who may reach whom, by policy: the daemon's matrix in a form that a browser can hold for many
//! pods, computed once for each generation whoever asks.

use std::collections::HashMap;
use std::sync::Arc;

use control::client::{Client, ClientError};
use control::family::Family;
use control::matrix::{Entry, Matrix};
use control::protocol::{Explained, MatrixParams, Status};
use serde::Serialize;
use serde_json::json;
use tokio::sync::Mutex;

use crate::daemon::Daemon;
use crate::guard::Refusal;

/// The matrix by receivers' ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reachability {
    /// The generation that says so.
    pub generation: u64,
    /// Who tries, `NS/POD`.
    pub from: Vec<String>,
    /// What is tried.
    pub columns: Vec<Column>,
}

/// A receiver's port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Column {
    /// `NS/POD`.
    pub to: String,
    /// `TCP`.
    pub protocol: String,
    /// Its number.
    pub port: Option<u16>,
    /// Its name.
    pub name: Option<String>,
    /// A character for each of [`Reachability::from`]: `1` may, `0` may not, `4` or `6` over that
    /// family alone.
    pub marks: String,
}

impl Reachability {
    /// From the daemon's entries, which are by sender, receiver and port.
    pub fn new(generation: u64, matrix: &Matrix) -> Reachability {
        let mut reach = Reachability {
            generation,
            ..Reachability::default()
        };
        let mut place_of: HashMap<(&str, &str, Option<u16>), usize> = HashMap::new();
        for entry in &matrix.entries {
            if reach.from.last() != Some(&entry.from) {
                reach.from.push(entry.from.clone());
            }
            let key = (entry.to.as_str(), entry.protocol.as_str(), entry.port);
            let place = *place_of.entry(key).or_insert_with(|| {
                reach.columns.push(Column::new(entry));
                reach.columns.len() - 1
            });
            let column = &mut reach.columns[place].marks;
            // Two containers may declare one port.
            if column.len() < reach.from.len() {
                column.push(mark(entry));
            }
        }
        reach
    }
}

impl Column {
    fn new(entry: &Entry) -> Column {
        Column {
            to: entry.to.clone(),
            protocol: entry.protocol.clone(),
            port: entry.port,
            name: entry.port_name.clone(),
            marks: String::new(),
        }
    }
}

fn mark(entry: &Entry) -> char {
    match entry.allowed_family {
        _ if entry.verdict == "allow" => '1',
        Some(Family::V4) => '4',
        Some(Family::V6) => '6',
        None => '0',
    }
}

/// The newest matrix that was asked for.
#[derive(Debug, Default)]
pub struct Reach(Mutex<Option<Arc<Reachability>>>);

impl Reach {
    /// The matrix of the live generation. Whoever asks meanwhile waits for the same answer.
    pub async fn get(&self, daemon: &Daemon) -> Result<Arc<Reachability>, Refusal> {
        let mut known = self.0.lock().await;
        let have = known.as_ref().map(|reach| reach.generation);
        let read = daemon.ask(move |client| read(client, have)).await?;
        if let Some(read) = read {
            *known = Some(Arc::new(read));
        }
        known.clone().ok_or_else(|| {
            let status = hyper::StatusCode::SERVICE_UNAVAILABLE;
            Refusal::new(status, "the daemon has no matrix")
        })
    }
}

/// The matrix, unless it is of the generation that is had already.
fn read(client: &mut Client, have: Option<u64>) -> Result<Option<Reachability>, ClientError> {
    let generation = |client: &mut Client| -> Result<u64, ClientError> {
        let status: Status = client.call("status", json!({}))?;
        Ok(status.generation)
    };
    let at = generation(client)?;
    if have == Some(at) {
        return Ok(None);
    }
    let reply: Explained = client.call("matrix", MatrixParams::default())?;
    let matrix = serde_json::from_value(reply.json);
    let matrix = matrix.map_err(|error| ClientError::Protocol(error.to_string()))?;
    // If another generation came in between the matrix is newer than it says and is asked for again.
    Ok(Some(Reachability::new(at, &matrix)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(
        from: &str,
        to: &str,
        port: u16,
        verdict: &'static str,
        only: Option<Family>,
    ) -> Entry {
        Entry {
            from: from.into(),
            to: to.into(),
            protocol: "TCP".into(),
            port: Some(port),
            port_name: None,
            verdict: verdict.into(),
            allowed_family: only,
            some_backends: false,
            without_backend: None,
            reason: String::new(),
        }
    }

    #[test]
    fn marks_are_by_column_in_the_senders_order() {
        let entries = vec![
            entry("n/a", "n/a", 80, "allow", None),
            entry("n/a", "n/b", 81, "deny", None),
            entry("n/a", "n/b", 81, "deny", None),
            entry("n/b", "n/a", 80, "deny", Some(Family::V6)),
            entry("n/b", "n/b", 81, "allow", None),
            entry("n/b", "n/b", 81, "allow", None),
        ];
        let reach = Reachability::new(7, &Matrix { entries });
        assert_eq!(reach.from, ["n/a", "n/b"]);
        let marks: Vec<(&str, &str)> = reach
            .columns
            .iter()
            .map(|column| (column.to.as_str(), column.marks.as_str()))
            .collect();
        assert_eq!(marks, [("n/a", "16"), ("n/b", "01")]);
    }
}
