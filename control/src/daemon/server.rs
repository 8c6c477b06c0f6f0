//! The control socket's loop: many clients, one thread, nobody waits for anybody.
//!
//! mio tells which sockets can go on. In every turn each client gets a share: so many bytes read,
//! so many requests answered. What is left over is done in the next turn, after the others had
//! theirs.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mio::net::{UnixListener, UnixStream};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use serde_json::Value;

use super::connection::{Bounds, Connection, Input};
use super::watches::{Droppable, Outgoing};
use crate::protocol::{ErrorDetail, ErrorObject, JSONRPC, REFUSED, Reason, Request, Response};

/// Requests answered for one client in one turn.
const REQUESTS_PER_TURN: usize = 16;
/// How often [`Service::tick`] is called at least.
pub const TICK: Duration = Duration::from_millis(100);

const LISTENER: Token = Token(0);
const FIRST_SOURCE: usize = 1;
const FIRST_CLIENT: usize = 64;

/// A client's number; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub usize);

/// What answers the requests.
pub trait Service {
    /// Answers one request, whose last byte came at `arrived`, with the result as JSON text.
    fn call(
        &mut self,
        client: ClientId,
        method: &str,
        params: Value,
        arrived: Instant,
    ) -> Result<String, ErrorObject>;

    /// A client is gone, its watches with it.
    fn gone(&mut self, client: ClientId);

    /// Lines for clients that nobody asked for just now: the watches' events. Called after every
    /// call and tick; lines to a client that is gone are dropped.
    fn take_notifications(&mut self) -> Vec<Outgoing>;

    /// A client had no room for a line that may be left out.
    fn not_taken(&mut self, client: ClientId, line: Droppable);

    /// Time has passed, or the source with that index has something; so many clients are there.
    fn tick(&mut self, source: Option<usize>, clients: usize);

    /// How long to wait for clients and sources at most before the next turn.
    fn patience(&self) -> Duration {
        TICK
    }

    /// Whether to end.
    fn is_stopped(&self) -> bool;
}

/// Bounds of the server.
#[derive(Clone, Copy, Debug)]
pub struct ServerBounds {
    /// Clients at once.
    pub clients: usize,
    /// Of each of them.
    pub connection: Bounds,
}

/// Who may connect, besides root and the daemon's own user.
#[derive(Clone, Copy, Debug, Default)]
pub struct Access {
    /// A user, who also gets to own the socket.
    pub user: Option<u32>,
    /// Members of a group.
    pub group: Option<u32>,
}

/// The listening socket and its clients.
#[derive(Debug)]
pub struct Server {
    poll: Poll,
    listener: UnixListener,
    path: PathBuf,
    access: Access,
    bounds: ServerBounds,
    clients: BTreeMap<usize, Connection>,
    next_client: usize,
}

impl Server {
    /// Listens at `path`. A socket there that nobody listens on is replaced.
    ///
    /// `sources` are descriptors whose readiness is told to [`Service::tick`]; they must outlive
    /// the server.
    pub fn bind(
        path: &Path,
        access: Access,
        bounds: ServerBounds,
        sources: &[RawFd],
    ) -> io::Result<Server> {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another daemon listens there",
            ));
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut listener = listen(path, access)?;
        let poll = Poll::new()?;
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        for (index, source) in sources.iter().enumerate() {
            let token = Token(FIRST_SOURCE + index);
            poll.registry()
                .register(&mut SourceFd(source), token, Interest::READABLE)?;
        }
        Ok(Server {
            poll,
            listener,
            path: path.to_owned(),
            access,
            bounds,
            clients: BTreeMap::new(),
            next_client: FIRST_CLIENT,
        })
    }

    /// Clients connected.
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Serves until the service says stop. The socket's file is removed then.
    pub fn run(&mut self, service: &mut impl Service) -> io::Result<()> {
        let mut events = Events::with_capacity(256);
        let mut ticked = Instant::now();
        while !service.is_stopped() {
            let busy = self.clients.values().any(Connection::has_work);
            let wait = if busy {
                Duration::ZERO
            } else {
                TICK.saturating_sub(ticked.elapsed())
                    .min(service.patience())
            };
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    Token(token) if token < FIRST_CLIENT => {
                        service.tick(Some(token - FIRST_SOURCE), self.clients.len());
                    }
                    Token(token) => {
                        if let Some(client) = self.clients.get_mut(&token) {
                            client.set_readable();
                        }
                    }
                }
            }
            self.serve(service);
            if ticked.elapsed() >= TICK {
                ticked = Instant::now();
                service.tick(None, self.clients.len());
                self.close_stuck(ticked);
            }
            self.deliver(service);
            self.sweep(service);
        }
        fs::remove_file(&self.path)
    }

    fn accept(&mut self) {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // Out of descriptors: whoever waits is served when one is free again.
                Err(_) => return,
            };
            let refusal = self.refusal(&stream);
            let token = self.next_client;
            self.next_client += 1;
            let interest = Interest::READABLE | Interest::WRITABLE;
            if self
                .poll
                .registry()
                .register(&mut stream, Token(token), interest)
                .is_err()
            {
                continue;
            }
            let mut connection = Connection::new(stream, self.bounds.connection);
            if let Some(error) = refusal {
                connection.push(&reply(&Value::Null, Err(error)));
                connection.close_when_sent();
                connection.write();
                // What one write does not take, a refused client does not get.
                continue;
            }
            self.clients.insert(token, connection);
        }
    }

    fn refusal(&self, stream: &UnixStream) -> Option<ErrorObject> {
        if self.clients.len() >= self.bounds.clients {
            let message = format!("the daemon serves {} clients already", self.bounds.clients);
            return Some(refused(Reason::TooManyRequests, message));
        }
        let allowed = rustix::net::sockopt::socket_peercred(stream).is_ok_and(|peer| {
            let own = rustix::process::geteuid();
            peer.uid.is_root()
                || peer.uid == own
                || self.access.user == Some(peer.uid.as_raw())
                || self.access.group == Some(peer.gid.as_raw())
        });
        if allowed {
            return None;
        }
        let message =
            "you may not use this daemon: run as root, or set socket_user or socket_group";
        Some(refused(Reason::Forbidden, message))
    }

    fn serve(&mut self, service: &mut impl Service) {
        let now = Instant::now();
        for (token, client) in &mut self.clients {
            client.read();
            for _ in 0..REQUESTS_PER_TURN {
                match client.next_line(now) {
                    Input::Nothing => break,
                    Input::TooLong => {
                        let message = format!(
                            "the request is longer than {} bytes",
                            self.bounds.connection.message_bytes
                        );
                        let error = refused(Reason::RequestEntityTooLarge, message);
                        client.push(&reply(&Value::Null, Err(error)));
                    }
                    Input::Line(line) if line.trim_ascii().is_empty() => {}
                    Input::Line(line) => {
                        let answer = answer(service, ClientId(*token), &line, client.arrived());
                        client.push(&answer);
                    }
                }
            }
            client.write();
        }
    }

    fn close_stuck(&mut self, now: Instant) {
        for client in self
            .clients
            .values_mut()
            .filter(|client| client.is_stuck(now))
        {
            let seconds = self.bounds.connection.half_message.as_secs();
            let message = format!("the request was still not whole after {seconds} s");
            client.push(&reply(
                &Value::Null,
                Err(refused(Reason::BadRequest, message)),
            ));
            client.close_when_sent();
            client.write();
        }
    }

    fn deliver(&mut self, service: &mut impl Service) {
        for outgoing in service.take_notifications() {
            let Some(client) = self.clients.get_mut(&outgoing.client.0) else {
                continue;
            };
            match outgoing.droppable {
                Some(line) if !client.has_room(outgoing.line.len()) => {
                    service.not_taken(outgoing.client, line);
                }
                _ => {
                    client.push(&outgoing.line);
                    client.write();
                }
            }
        }
    }

    fn sweep(&mut self, service: &mut impl Service) {
        let registry = self.poll.registry();
        self.clients.retain(|token, client| {
            if client.is_done() {
                let _ = registry.deregister(client.stream_mut());
                service.gone(ClientId(*token));
                return false;
            }
            true
        });
    }
}

/// Makes the socket under another name, so that it never shows with wrong rights.
fn listen(path: &Path, access: Access) -> io::Result<UnixListener> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    let mode = if access.group.is_some() { 0o660 } else { 0o600 };
    fs::set_permissions(&new, fs::Permissions::from_mode(mode))?;
    if access.user.is_some() || access.group.is_some() {
        std::os::unix::fs::chown(&new, access.user, access.group)?;
    }
    fs::rename(&new, path)?;
    Ok(listener)
}

/// An error that is not about JSON-RPC itself.
pub fn refused(reason: Reason, message: impl Into<String>) -> ErrorObject {
    ErrorObject {
        code: REFUSED,
        message: message.into(),
        data: Some(ErrorDetail {
            reason,
            warnings: Vec::new(),
            object: None,
        }),
    }
}

/// An error about JSON-RPC itself.
pub fn rpc_error(code: i64, message: impl Into<String>) -> ErrorObject {
    ErrorObject {
        code,
        ..refused(Reason::BadRequest, message)
    }
}

/// A reply's line. The result is text already, so that no second tree is made of what may be large.
fn reply(id: &Value, outcome: Result<String, ErrorObject>) -> Vec<u8> {
    match outcome {
        Ok(result) => {
            let head = format!("{{\"jsonrpc\":\"{JSONRPC}\",\"id\":{id},\"result\":");
            [&head, &result, "}"].concat().into_bytes()
        }
        Err(error) => {
            let response = Response {
                jsonrpc: JSONRPC.to_owned(),
                id: id.clone(),
                result: None,
                error: Some(error),
            };
            // Strings, numbers and maps with string keys: there is nothing that JSON could not hold.
            serde_json::to_vec(&response).unwrap_or_default()
        }
    }
}

fn answer(service: &mut impl Service, client: ClientId, line: &[u8], arrived: Instant) -> Vec<u8> {
    let request: Request = match serde_json::from_slice(line) {
        Ok(request) => request,
        Err(_) => return no_request(line),
    };
    let Request { id, params, .. } = request;
    if request.jsonrpc != JSONRPC || !(id.is_number() || id.is_string()) {
        let message = "a request has \"jsonrpc\": \"2.0\" and an id, a number or a string";
        return reply(&identifier(&id), Err(rpc_error(-32600, message)));
    }
    reply(&id, service.call(client, &request.method, params, arrived))
}

/// What is answered to a line that is no request.
fn no_request(line: &[u8]) -> Vec<u8> {
    let value: Value = match serde_json::from_slice(line) {
        Ok(value) => value,
        Err(error) => {
            let error = rpc_error(-32700, format!("the request is not JSON: {error}"));
            return reply(&Value::Null, Err(error));
        }
    };
    let id = identifier(value.get("id").unwrap_or(&Value::Null));
    let error = match serde_json::from_value::<Request>(value) {
        Ok(_) => "it has a field twice".to_owned(),
        Err(error) => error.to_string(),
    };
    reply(
        &id,
        Err(rpc_error(
            -32600,
            format!("this is no JSON-RPC request: {error}"),
        )),
    )
}

/// An identifier as it may be given back; null if it is none.
fn identifier(id: &Value) -> Value {
    if id.is_number() || id.is_string() {
        id.clone()
    } else {
        Value::Null
    }
}
