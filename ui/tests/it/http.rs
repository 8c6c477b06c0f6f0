//! A browser's end of HTTP/1.1, as far as tests need one, and a site to ask.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;
use ui::server::{self, Bounds, Site};

use crate::toy::Daemon;

/// Longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Serves a page for this daemon until the tests end.
pub fn site(daemon: &Daemon, bounds: Bounds) -> SocketAddr {
    let listen = "127.0.0.1:0".parse().unwrap();
    let site = Site::new(daemon.socket().to_owned(), listen, Vec::new(), bounds);
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        server::run(site, |_, address| sender.send(address).unwrap()).unwrap();
    });
    receiver.recv_timeout(PATIENCE).unwrap()
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

pub fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends these bytes and reads what is answered until the connection ends.
pub fn exchange(to: SocketAddr, bytes: &[u8]) -> Answer {
    let mut stream = connect(to);
    stream.write_all(bytes).unwrap();
    read(&mut BufReader::new(stream))
}

pub fn get(to: SocketAddr, target: &str) -> Answer {
    ask(to, "GET", target)
}

pub fn ask(to: SocketAddr, method: &str, target: &str) -> Answer {
    let head = format!("{method} {target} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n");
    exchange(to, head.as_bytes())
}

fn read_head(reader: &mut impl BufRead) -> Answer {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap_or_else(|| panic!("{line:?}"));
    let mut answer = Answer {
        status: status.parse().unwrap(),
        headers: Vec::new(),
        body: String::new(),
    };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.trim_end().split_once(": ") {
            Some((name, value)) => {
                answer
                    .headers
                    .push((name.to_ascii_lowercase(), value.to_owned()));
            }
            None => return answer,
        }
    }
}

fn read(reader: &mut impl BufRead) -> Answer {
    let mut answer = read_head(reader);
    reader.read_to_string(&mut answer.body).unwrap();
    answer
}

/// A page's stream.
pub struct Stream {
    reader: BufReader<TcpStream>,
    rest: String,
}

impl Stream {
    pub fn open(to: SocketAddr, query: &str) -> Stream {
        let stream = Stream::try_open(to, query);
        stream.unwrap_or_else(|answer| panic!("{answer:?}"))
    }

    pub fn try_open(to: SocketAddr, query: &str) -> Result<Stream, Answer> {
        let mut stream = connect(to);
        let head = format!("GET /api/stream{query} HTTP/1.1\r\nHost: {to}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut reader = BufReader::new(stream);
        let answer = read_head(&mut reader);
        if answer.status != 200 {
            return Err(answer);
        }
        assert_eq!(answer.header("content-type"), Some("text/event-stream"));
        Ok(Stream {
            reader,
            rest: String::new(),
        })
    }

    /// The next event: its name and what it says.
    pub fn next(&mut self) -> (String, Value) {
        loop {
            if let Some((event, rest)) = self.rest.split_once("\n\n") {
                let (name, data) = event.split_once('\n').unwrap();
                let name = name.strip_prefix("event: ").unwrap().to_owned();
                let data = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
                self.rest = rest.to_owned();
                return (name, data);
            }
            let more = self.chunk();
            self.rest += &more;
        }
    }

    fn chunk(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        let length = usize::from_str_radix(line.trim_end(), 16).unwrap();
        assert!(length > 0, "the stream has ended");
        let mut bytes = vec![0; length + 2];
        self.reader.read_exact(&mut bytes).unwrap();
        bytes.truncate(length);
        String::from_utf8(bytes).unwrap()
    }

    /// The next event of that name that a test accepts; others are passed over.
    pub fn wait(&mut self, name: &str, accept: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "no such {name}");
            let (other, data) = self.next();
            if other == name && accept(&data) {
                return data;
            }
        }
    }
}

/// Waits until something holds.
pub fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
