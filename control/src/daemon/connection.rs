//! One client of the control socket: bytes in, lines out, both bounded.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use mio::net::UnixStream;

/// Bytes read from a client in one turn, so that a flood cannot hold up the others.
const READ_BYTES: usize = 256 << 10;
/// While more than this waits to be sent, nothing is read: a client that does not take its replies
/// makes no new ones.
const HIGH_WATER: usize = 1 << 20;
/// Room that an idle connection's buffers keep.
const IDLE_BYTES: usize = 64 << 10;

/// Bounds of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of one request.
    pub message_bytes: usize,
    /// Bytes waiting to be sent.
    pub output_bytes: usize,
    /// How long a request may stay half sent.
    pub half_message: Duration,
}

/// A line, or why there is none.
#[derive(Debug, PartialEq, Eq)]
pub enum Input {
    /// A whole line without its end.
    Line(Vec<u8>),
    /// A line longer than the bound; the rest of it is thrown away.
    TooLong,
    /// No whole line is here.
    Nothing,
}

/// A client.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    bounds: Bounds,
    input: Vec<u8>,
    /// Start of the first unread line in `input`.
    start: usize,
    /// Where the search for a line's end goes on.
    scanned: usize,
    /// When the line that is half here began.
    half_since: Option<Instant>,
    /// Whether bytes are thrown away up to the next line's end.
    discarding: bool,
    output: Vec<u8>,
    sent: usize,
    /// When something was read last.
    arrived: Instant,
    /// Whether the socket may have more to read.
    readable: bool,
    /// Whether the client has ended its side.
    ended: bool,
    /// Whether to close once everything is sent.
    closing: bool,
    /// Whether the connection is of no more use.
    broken: bool,
}

impl Connection {
    /// A connection that has just been accepted.
    pub fn new(stream: UnixStream, bounds: Bounds) -> Connection {
        Connection {
            stream,
            bounds,
            input: Vec::new(),
            start: 0,
            scanned: 0,
            half_since: None,
            discarding: false,
            output: Vec::new(),
            sent: 0,
            arrived: Instant::now(),
            readable: true,
            ended: false,
            closing: false,
            broken: false,
        }
    }

    /// The socket, for the poll.
    pub fn stream_mut(&mut self) -> &mut UnixStream {
        &mut self.stream
    }

    /// Takes note that the socket can be read.
    pub fn set_readable(&mut self) {
        self.readable = true;
    }

    /// Reads what is there, up to one turn's share.
    pub fn read(&mut self) {
        if !self.readable || self.ended || self.broken || self.is_backed_up() {
            return;
        }
        // A whole line still waits, so its like must not pile up.
        if self.input.len() - self.start > self.bounds.message_bytes {
            return;
        }
        let before = self.input.len();
        let mut taken = (&mut self.stream).take(READ_BYTES as u64);
        match taken.read_to_end(&mut self.input) {
            // A whole share: there may be more. Less without an error is the end.
            Ok(count) if count == READ_BYTES => {}
            Ok(_) => self.ended = true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
            Err(_) => self.broken = true,
        }
        if self.input.len() > before {
            self.arrived = Instant::now();
        }
    }

    /// When the newest byte came.
    pub fn arrived(&self) -> Instant {
        self.arrived
    }

    /// The next line that is here.
    pub fn next_line(&mut self, now: Instant) -> Input {
        if self.is_backed_up() || self.closing {
            return Input::Nothing;
        }
        let end = self.input[self.scanned..]
            .iter()
            .position(|byte| *byte == b'\n');
        let Some(end) = end.map(|at| at + self.scanned) else {
            self.scanned = self.input.len();
            return self.half_line(now);
        };
        let line = self.start..end;
        self.start = end + 1;
        self.scanned = self.start;
        self.half_since = None;
        if self.discarding {
            // The error has been sent; the client is closed behind it.
            self.closing = true;
            return Input::Nothing;
        }
        if line.len() > self.bounds.message_bytes {
            self.closing = true;
            return Input::TooLong;
        }
        let line = self.input[line].to_vec();
        self.compact();
        Input::Line(line)
    }

    fn half_line(&mut self, now: Instant) -> Input {
        if self.discarding {
            self.input.clear();
            self.start = 0;
            self.scanned = 0;
            return Input::Nothing;
        }
        self.compact();
        if self.input.len() > self.bounds.message_bytes {
            self.discarding = true;
            self.half_since.get_or_insert(now);
            self.input = Vec::new();
            self.scanned = 0;
            return Input::TooLong;
        }
        if self.input.is_empty() {
            self.half_since = None;
        } else {
            self.half_since.get_or_insert(now);
        }
        Input::Nothing
    }

    /// Gives back room, at a cost that is constant per byte.
    fn compact(&mut self) {
        if self.start == self.input.len() {
            self.input.clear();
            self.input.shrink_to(IDLE_BYTES);
            self.start = 0;
            self.scanned = 0;
        } else if self.start > self.input.len() / 2 {
            self.input.drain(..self.start);
            self.scanned -= self.start;
            self.start = 0;
        }
    }

    /// Whether another turn would find something to do without anything new arriving.
    pub fn has_work(&self) -> bool {
        if self.broken || self.closing || self.is_backed_up() {
            return false;
        }
        let unread = self.readable && !self.ended;
        unread || self.input[self.scanned..].contains(&b'\n')
    }

    fn is_backed_up(&self) -> bool {
        self.output.len() - self.sent > HIGH_WATER
    }

    /// Whether so many bytes more may wait, and leave room for what must not be left out.
    pub fn has_room(&self, bytes: usize) -> bool {
        let waiting = self.output.len() - self.sent;
        waiting + bytes <= HIGH_WATER.min(self.bounds.output_bytes / 2)
    }

    /// Queues a line. A client that lets too much gather is given up.
    pub fn push(&mut self, line: &[u8]) {
        if self.broken {
            return;
        }
        // A single message may be longer than the bound; a heap of them may not.
        let waiting = self.output.len() - self.sent;
        if waiting > 0 && waiting + line.len() > self.bounds.output_bytes {
            self.broken = true;
            return;
        }
        self.output.extend_from_slice(line);
        self.output.push(b'\n');
    }

    /// Sends what the socket takes.
    pub fn write(&mut self) {
        while self.sent < self.output.len() && !self.broken {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(0) => self.broken = true,
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.broken = true,
            }
        }
        if self.sent == self.output.len() {
            self.output.clear();
            self.output.shrink_to(IDLE_BYTES);
            self.sent = 0;
        } else if self.sent > self.output.len() / 2 {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Closes once everything is sent.
    pub fn close_when_sent(&mut self) {
        self.closing = true;
    }

    /// Whether a request has been half here for too long.
    pub fn is_stuck(&self, now: Instant) -> bool {
        !self.closing
            && !self.is_backed_up()
            && self
                .half_since
                .is_some_and(|since| now - since >= self.bounds.half_message)
    }

    /// Whether the connection can be dropped.
    pub fn is_done(&self) -> bool {
        let all_sent = self.sent == self.output.len();
        let all_read = self.ended && !self.input[self.scanned..].contains(&b'\n');
        self.broken || (all_sent && (self.closing || all_read))
    }
}
