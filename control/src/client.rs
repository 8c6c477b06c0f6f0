//! A blocking client of the control socket.

use std::collections::VecDeque;
use std::io::{BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::protocol::{
    CAPTURE_NOTIFICATION, CaptureEvent, ErrorObject, JSONRPC, LOG_NOTIFICATION, LogLine,
    Notification, OBSERVE_NOTIFICATION, ObserveEvent, ObserveParams, ObserveReply, Reason, Request,
    Response, WATCH_NOTIFICATION, WatchEvent, WatchParams, WatchReply,
};

/// Bytes of a reply that the client takes; more is an error.
const REPLY_BYTES: usize = 1 << 30;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No daemon listens there.
    #[error("cannot reach the daemon at {path}: {source}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The connection broke.
    #[error("the connection to the daemon broke: {0}")]
    Io(#[from] std::io::Error),
    /// The daemon closed the connection.
    #[error("the daemon closed the connection")]
    Closed,
    /// What came is not what the protocol says.
    #[error("the daemon sent what is not understood: {0}")]
    Protocol(String),
    /// The daemon refused. Its message reads as the API server's.
    #[error("{}", .0.message)]
    Refused(ErrorObject),
}

impl ClientError {
    /// Why the daemon refused, if it did.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            ClientError::Refused(error) => error.data.as_ref().map(|data| data.reason),
            _ => None,
        }
    }
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    next_id: u64,
    /// Notifications that came while a reply was awaited.
    waiting: VecDeque<Notification>,
    /// Bytes of a line that a read time-out cut.
    partial: Vec<u8>,
}

impl Client {
    /// Connects.
    pub fn connect(path: impl AsRef<Path>) -> Result<Client, ClientError> {
        let path = path.as_ref();
        let stream = UnixStream::connect(path).map_err(|source| ClientError::Connect {
            path: path.to_owned(),
            source,
        })?;
        Ok(Client {
            stream: BufReader::with_capacity(64 << 10, stream),
            next_id: 1,
            waiting: VecDeque::new(),
            partial: Vec::new(),
        })
    }

    /// Bounds how long a reply or the next notification is waited for; none waits for good. When
    /// it passes, calls fail with [`ClientError::Io`] of kind `WouldBlock`, and nothing is lost:
    /// the next read goes on where this one stopped.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) -> Result<(), ClientError> {
        Ok(self.stream.get_ref().set_read_timeout(timeout)?)
    }

    /// The socket, to wait for with poll; look at [`Client::has_buffered`] first.
    pub fn stream(&self) -> &UnixStream {
        self.stream.get_ref()
    }

    /// Whether something is here already that poll on the socket would not show.
    pub fn has_buffered(&self) -> bool {
        !self.waiting.is_empty() || !self.stream.buffer().is_empty()
    }

    /// Calls a method and waits for its reply.
    pub fn call<R: DeserializeOwned>(
        &mut self,
        method: &str,
        params: impl Serialize,
    ) -> Result<R, ClientError> {
        let value = self.call_value(method, params)?;
        serde_json::from_value(value).map_err(|error| ClientError::Protocol(error.to_string()))
    }

    /// As [`Client::call`], with the result as JSON.
    pub fn call_value(
        &mut self,
        method: &str,
        params: impl Serialize,
    ) -> Result<Value, ClientError> {
        let id = self.send(method, params)?;
        self.receive_reply(id)
    }

    /// Sends a request without waiting; the answer is [`Client::receive_reply`]'s.
    pub fn send(&mut self, method: &str, params: impl Serialize) -> Result<u64, ClientError> {
        let id = self.next_id;
        self.next_id += 1;
        let encode = |error: serde_json::Error| ClientError::Protocol(error.to_string());
        let request = Request {
            jsonrpc: JSONRPC.to_owned(),
            id: id.into(),
            method: method.to_owned(),
            params: serde_json::to_value(params).map_err(encode)?,
        };
        let mut line = serde_json::to_vec(&request).map_err(encode)?;
        line.push(b'\n');
        match self.stream.get_mut().write_all(&line) {
            // A daemon that refuses a client says why before it closes: that is read instead.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(id),
            written => Ok(written.map(|()| id)?),
        }
    }

    /// Waits for the reply to the request `id`; replies come in the requests' order.
    pub fn receive_reply(&mut self, id: u64) -> Result<Value, ClientError> {
        loop {
            let message = self.read_message()?;
            if message.get("method").is_some() {
                self.waiting.push_back(notification(message)?);
                continue;
            }
            let response: Response = serde_json::from_value(message)
                .map_err(|error| ClientError::Protocol(error.to_string()))?;
            if let Some(error) = response.error {
                return Err(ClientError::Refused(error));
            }
            if response.id != id {
                return Err(ClientError::Protocol(format!(
                    "reply to request {} where {id} was awaited",
                    response.id
                )));
            }
            return response
                .result
                .ok_or_else(|| ClientError::Protocol("reply without a result".into()));
        }
    }

    /// Begins a watch; its events come from [`Client::next_event`].
    pub fn watch(&mut self, params: &WatchParams) -> Result<u64, ClientError> {
        let reply: WatchReply = self.call("watch", params)?;
        Ok(reply.subscription)
    }

    /// The next event of any watch of this connection.
    pub fn next_event(&mut self) -> Result<WatchEvent, ClientError> {
        self.next_of(WATCH_NOTIFICATION)
    }

    /// The next line of a `log.follow` of this connection.
    pub fn next_log_line(&mut self) -> Result<LogLine, ClientError> {
        self.next_of(LOG_NOTIFICATION)
    }

    /// Asks for flows; if it follows, more come from [`Client::next_flow`].
    pub fn observe(&mut self, params: &ObserveParams) -> Result<ObserveReply, ClientError> {
        self.call("observe", params)
    }

    /// The next flow of an `observe` of this connection, or what is lost of it.
    pub fn next_flow(&mut self) -> Result<ObserveEvent, ClientError> {
        self.next_of(OBSERVE_NOTIFICATION)
    }

    /// The next packets of a `capture` of this connection, or what is to be said of it.
    pub fn next_capture(&mut self) -> Result<CaptureEvent, ClientError> {
        self.next_of(CAPTURE_NOTIFICATION)
    }

    /// The next notification of any subscription of this connection.
    pub fn next_notification(&mut self) -> Result<Notification, ClientError> {
        match self.waiting.pop_front() {
            Some(waiting) => Ok(waiting),
            None => notification(self.read_message()?),
        }
    }

    fn next_of<T: DeserializeOwned>(&mut self, method: &str) -> Result<T, ClientError> {
        let position = self.waiting.iter().position(|n| n.method == method);
        let params = match position.and_then(|at| self.waiting.remove(at)) {
            Some(found) => found.params,
            None => loop {
                let message = notification(self.read_message()?)?;
                if message.method == method {
                    break message.params;
                }
                self.waiting.push_back(message);
            },
        };
        serde_json::from_value(params).map_err(|error| ClientError::Protocol(error.to_string()))
    }

    fn read_message(&mut self) -> Result<Value, ClientError> {
        use std::io::BufRead;
        loop {
            let chunk = match self.stream.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            if chunk.is_empty() {
                return Err(ClientError::Closed);
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(chunk.len(), |end| end + 1);
            self.partial.extend_from_slice(&chunk[..taken]);
            self.stream.consume(taken);
            if self.partial.len() > REPLY_BYTES {
                return Err(ClientError::Protocol("a message without an end".into()));
            }
            if end.is_some() {
                let line = std::mem::take(&mut self.partial);
                return serde_json::from_slice(&line)
                    .map_err(|error| ClientError::Protocol(error.to_string()));
            }
        }
    }
}

fn notification(message: Value) -> Result<Notification, ClientError> {
    serde_json::from_value(message).map_err(|error| ClientError::Protocol(error.to_string()))
}
