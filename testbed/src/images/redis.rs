//! Stands in for Redis: strings by key, in RESP2 and inline, and a client that asks one thing.
//!
//! Bounds: [`CLIENTS`], [`KEYS`] keys, a command of [`ARGUMENTS`] arguments and [`BYTES`] bytes.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::net::SocketType;

use super::http::server::{accept, listen};
use super::{resolve, sockets};

/// Clients at once.
const CLIENTS: usize = 256;
/// Keys.
const KEYS: usize = 10_000;
/// Arguments of a command.
const ARGUMENTS: usize = 128;
/// Bytes of a command.
const BYTES: usize = 1 << 20;
const PORT: u16 = 6379;
/// Without a word for so long a client is cut off.
const IDLE: Duration = Duration::from_secs(3600);

type Kept = Arc<Mutex<BTreeMap<String, String>>>;

/// Runs as `redis-server`.
pub fn server(arguments: &[String]) -> u8 {
    let value_of = |name: &str| {
        let mut words = arguments.iter();
        words.find(|word| *word == name)?;
        words.next().cloned()
    };
    let port = value_of("--port").map_or(Ok(PORT), |text| text.parse());
    let Ok(port) = port else {
        eprintln!("redis-server: --port is no port number");
        return 1;
    };
    let password = value_of("--requirepass").filter(|text| !text.is_empty());
    let listener = match listen(port) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("redis-server: {error}");
            return 1;
        }
    };
    println!("* Ready to accept connections tcp");
    let kept = Kept::default();
    accept(&listener, CLIENTS, move |stream, _| {
        // A client that breaks off or breaks the rules loses its connection.
        let _broken = converse(stream, &kept, password.as_deref());
    });
    0
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn read_line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    reader.take(64 << 10).read_until(b'\n', &mut bytes)?;
    match bytes.last() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(String::from_utf8_lossy(&bytes).trim_end().to_owned())),
        Some(_) => Err(wrong("Protocol error: too big inline request")),
    }
}

/// A command's words; none at the end.
fn read_command(reader: &mut impl BufRead) -> io::Result<Option<Vec<String>>> {
    let Some(first) = read_line(reader)? else {
        return Ok(None);
    };
    let Some(count) = first.strip_prefix('*') else {
        return Ok(Some(first.split_whitespace().map(str::to_owned).collect()));
    };
    let count: usize = count
        .parse()
        .map_err(|_| wrong("Protocol error: invalid multibulk length"))?;
    if count > ARGUMENTS {
        return Err(wrong("Protocol error: invalid multibulk length"));
    }
    let (mut words, mut left) = (Vec::new(), BYTES);
    for _ in 0..count {
        let head = read_line(reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let length = head
            .strip_prefix('$')
            .and_then(|text| text.parse::<usize>().ok());
        let length = length.filter(|length| *length <= left);
        let length = length.ok_or_else(|| wrong("Protocol error: invalid bulk length"))?;
        left -= length;
        words.push(read_bulk(reader, length)?);
    }
    Ok(Some(words))
}

fn read_bulk(reader: &mut impl BufRead, length: usize) -> io::Result<String> {
    let mut bytes = vec![0; length + 2];
    reader.read_exact(&mut bytes)?;
    bytes.truncate(length);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

fn converse(stream: TcpStream, kept: &Kept, password: Option<&str>) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(IDLE))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut stream, mut known) = (stream, password.is_none());
    loop {
        let words = match read_command(&mut reader) {
            Ok(None) => return Ok(()),
            Ok(Some(words)) => words,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return stream.write_all(format!("-ERR {error}\r\n").as_bytes());
            }
            Err(error) => return Err(error),
        };
        let Some((name, rest)) = words.split_first() else {
            continue;
        };
        let name = name.to_uppercase();
        let answer = match name.as_str() {
            "QUIT" => return stream.write_all(b"+OK\r\n"),
            "AUTH" => match (password, rest.last()) {
                (Some(password), Some(given)) if given == password => {
                    known = true;
                    "+OK\r\n".to_owned()
                }
                (None, _) => "-ERR AUTH called without any password configured\r\n".to_owned(),
                _ => "-WRONGPASS invalid username-password pair\r\n".to_owned(),
            },
            _ if !known => "-NOAUTH Authentication required.\r\n".to_owned(),
            name => obey(name, rest, kept),
        };
        stream.write_all(answer.as_bytes())?;
    }
}

fn obey(name: &str, rest: &[String], kept: &Kept) -> String {
    let mut all = kept.lock().unwrap_or_else(PoisonError::into_inner);
    let nothing = || "$-1\r\n".to_owned();
    let ok = || "+OK\r\n".to_owned();
    let number = |count: usize| format!(":{count}\r\n");
    match (name, rest) {
        ("PING", []) => "+PONG\r\n".to_owned(),
        ("PING" | "ECHO", [text]) => bulk(text),
        ("SELECT" | "CLIENT" | "HELLO" | "CONFIG", _) if name != "HELLO" => ok(),
        ("GET", [key]) => all.get(key).map_or_else(nothing, |text| bulk(text)),
        ("SET", [key, value, ..]) => {
            if all.len() >= KEYS && !all.contains_key(key) {
                return format!("-OOM this stand-in keeps at most {KEYS} keys\r\n");
            }
            all.insert(key.clone(), value.clone());
            ok()
        }
        ("DEL", keys) => number(keys.iter().filter(|key| all.remove(*key).is_some()).count()),
        ("EXISTS", keys) => number(keys.iter().filter(|key| all.contains_key(*key)).count()),
        ("INCR", [key]) => {
            let now = all.get(key).map_or(Ok(0), |text| text.parse::<i64>());
            let Some(next) = now.ok().and_then(|now| now.checked_add(1)) else {
                return "-ERR value is not an integer or out of range\r\n".to_owned();
            };
            if all.len() >= KEYS && !all.contains_key(key) {
                return format!("-OOM this stand-in keeps at most {KEYS} keys\r\n");
            }
            all.insert(key.clone(), next.to_string());
            format!(":{next}\r\n")
        }
        ("DBSIZE", []) => number(all.len()),
        ("KEYS", [pattern]) if pattern == "*" => {
            let keys: String = all.keys().map(|key| bulk(key)).collect();
            format!("*{}\r\n{keys}", all.len())
        }
        ("FLUSHALL" | "FLUSHDB", _) => {
            all.clear();
            ok()
        }
        ("INFO", _) => bulk("# Server\r\nredis_version:7.2.0\r\nredis_mode:standalone\r\n"),
        ("COMMAND", _) => "*0\r\n".to_owned(),
        ("PING" | "ECHO" | "GET" | "SET" | "INCR" | "DBSIZE", _) => format!(
            "-ERR wrong number of arguments for '{}' command\r\n",
            name.to_lowercase()
        ),
        _ => format!("-ERR unknown command '{name}'\r\n"),
    }
}

/// Asks a server (`redis://HOST:PORT`, or without the scheme) one thing.
pub fn ask(endpoint: &str, command: &[&str], limit: Duration) -> io::Result<Option<String>> {
    let host = endpoint
        .rsplit_once("://")
        .map_or(endpoint, |(_, host)| host);
    let host = host.split('/').next().unwrap_or(host);
    let address = resolve::address(host, PORT)
        .map_err(|bad| io::Error::new(io::ErrorKind::NotFound, bad.to_string()))?;
    let socket = sockets::connect(address, None, SocketType::STREAM, Some(limit))?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    let words: String = command.iter().map(|word| bulk(word)).collect();
    stream.write_all(format!("*{}\r\n{words}", command.len()).as_bytes())?;
    let mut reader = BufReader::new(stream);
    let line = read_line(&mut reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    match (line.split_at_checked(1), line.as_str()) {
        (_, "$-1") => Ok(None),
        (Some(("$", length)), _) => {
            let length = length.parse().ok().filter(|length| *length <= BYTES);
            let length = length.ok_or_else(|| wrong("the answer is too long"))?;
            Ok(Some(read_bulk(&mut reader, length)?))
        }
        (Some(("+" | ":", text)), _) => Ok(Some(text.to_owned())),
        (Some(("-", text)), _) => Err(io::Error::other(text.to_owned())),
        _ => Err(wrong("the answer is not understood")),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn what_is_set_is_got_and_passwords_are_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("redis://{}", listener.local_addr().unwrap());
        let kept = Kept::default();
        std::thread::spawn(move || {
            accept(&listener, 8, move |stream, _| {
                let _broken = converse(stream, &kept, None);
            });
        });
        let limit = Duration::from_secs(10);
        let run = |command: &[&str]| ask(&endpoint, command, limit);
        assert_eq!(run(&["ping"]).unwrap().as_deref(), Some("PONG"));
        assert_eq!(run(&["GET", "a"]).unwrap(), None);
        assert_eq!(run(&["SET", "a", "1 2"]).unwrap().as_deref(), Some("OK"));
        assert_eq!(run(&["GET", "a"]).unwrap().as_deref(), Some("1 2"));
        assert!(run(&["INCR", "a"]).is_err());
        assert_eq!(run(&["INCR", "b"]).unwrap().as_deref(), Some("1"));
        assert!(run(&["NONSENSE"]).is_err());

        let (near, far) = {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            (near, listener.accept().unwrap().0)
        };
        let server = std::thread::spawn(move || converse(far, &Kept::default(), Some("s")));
        let mut near = near;
        near.write_all(b"PING\r\nAUTH x\r\nAUTH s\r\nPING\r\nQUIT\r\n")
            .unwrap();
        let mut said = String::new();
        near.read_to_string(&mut said).unwrap();
        server.join().unwrap().unwrap();
        let words: Vec<&str> = said
            .lines()
            .map(|line| line.split(" ").next().unwrap())
            .collect();
        assert_eq!(words, ["-NOAUTH", "-WRONGPASS", "+OK", "+PONG", "+OK"]);
    }
}
