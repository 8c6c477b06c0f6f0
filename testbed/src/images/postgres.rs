//! Stands in for PostgreSQL: greeting, log-in by password, and the small database behind the
//! simple query protocol (PostgreSQL's documentation, "Message Flow").
//!
//! The log-in is by clear text, which every client can. Bounds: [`CLIENTS`], a message of
//! [`BYTES`], [`LOG_IN`] for the log-in.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::net::SocketType;

use super::database::{Outcome, Session, Store};
use super::http::server::{accept, listen};
use super::{resolve, sockets};

/// Clients at once (`max_connections`).
const CLIENTS: usize = 100;
/// Bytes of a message.
const BYTES: usize = 1 << 20;
/// A client that has not logged in by then is cut off (`authentication_timeout`).
const LOG_IN: Duration = Duration::from_secs(60);
const IDLE: Duration = Duration::from_secs(8 * 3600);
const PORT: u16 = 5432;
const PROTOCOL_3: u32 = 3 << 16;
const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;

struct Server {
    user: String,
    password: Option<String>,
    store: Mutex<Store>,
}

/// Runs as `postgres`.
pub fn server(arguments: &[String]) -> u8 {
    let port = arguments.iter().skip_while(|word| *word != "-p").nth(1);
    let Ok(port) = port.map_or(Ok(PORT), |text| text.parse()) else {
        eprintln!("postgres: FATAL:  -p is no port number");
        return 1;
    };
    let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let user = variable("POSTGRES_USER").unwrap_or_else(|| "postgres".into());
    let database = variable("POSTGRES_DB").unwrap_or_else(|| user.clone());
    let trust = variable("POSTGRES_HOST_AUTH_METHOD").as_deref() == Some("trust");
    let password = variable("POSTGRES_PASSWORD").filter(|_| !trust);
    let listener = match listen(port) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("postgres: FATAL:  {error}");
            return 1;
        }
    };
    println!("LOG:  database system is ready to accept connections");
    let server = Server {
        store: Mutex::new(Store::new(["postgres", &database])),
        user,
        password,
    };
    accept(&listener, CLIENTS, move |stream, _| {
        // A client that breaks off or breaks the rules loses its connection.
        let _broken = server.converse(stream);
    });
    0
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The rest of a message, whose length includes itself.
fn read_rest(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = [0; 4];
    stream.read_exact(&mut head)?;
    let length = u32::from_be_bytes(head) as usize;
    let length = length.checked_sub(4).filter(|length| *length <= BYTES);
    let mut rest = vec![0; length.ok_or_else(|| wrong("a message's length is wrong"))?];
    stream.read_exact(&mut rest)?;
    Ok(rest)
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

fn failure(severity: &str, state: &str, text: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for (kind, field) in [(b'S', severity), (b'C', state), (b'M', text)] {
        body.push(kind);
        body.extend_from_slice(field.as_bytes());
        body.push(0);
    }
    body.push(0);
    message(b'E', &body)
}

/// The parameters of a start-up message: names and values, each with a zero.
fn parameter(body: &[u8], name: &str) -> Option<String> {
    let mut texts = body.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    while let (Some(key), Some(value)) = (texts.next(), texts.next()) {
        if key == name {
            return Some(value.into_owned());
        }
    }
    None
}

impl Server {
    fn converse(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LOG_IN))?;
        stream.set_write_timeout(Some(LOG_IN))?;
        let Some(mut session) = self.log_in(&mut stream)? else {
            return Ok(());
        };
        stream.set_read_timeout(Some(IDLE))?;
        loop {
            stream.write_all(&message(b'Z', b"I"))?;
            let mut kind = [0];
            stream.read_exact(&mut kind)?;
            let body = read_rest(&mut stream)?;
            let answer = match kind[0] {
                b'X' => return Ok(()),
                b'Q' => {
                    let text = String::from_utf8_lossy(&body);
                    self.query(&mut session, text.trim_end_matches('\0'))
                }
                _ => failure(
                    "ERROR",
                    "0A000",
                    "this stand-in has the simple query protocol only",
                ),
            };
            stream.write_all(&answer)?;
        }
    }

    fn log_in(&self, stream: &mut TcpStream) -> io::Result<Option<Session>> {
        let startup = loop {
            let body = read_rest(stream)?;
            let (code, rest) = body
                .split_first_chunk()
                .ok_or_else(|| wrong("no version"))?;
            match u32::from_be_bytes(*code) {
                SSL_REQUEST | GSS_REQUEST => stream.write_all(b"N")?,
                PROTOCOL_3.. => break rest.to_vec(),
                _ => return Ok(None),
            }
        };
        let user = parameter(&startup, "user").unwrap_or_default();
        let database = parameter(&startup, "database").unwrap_or_else(|| user.clone());
        let mut given = None;
        if self.password.is_some() {
            stream.write_all(&message(b'R', &3_u32.to_be_bytes()))?;
            let mut kind = [0];
            stream.read_exact(&mut kind)?;
            let body = read_rest(stream)?;
            given = Some(
                String::from_utf8_lossy(&body)
                    .trim_end_matches('\0')
                    .to_owned(),
            );
        }
        if user != self.user || given != self.password {
            let text = format!("password authentication failed for user \"{user}\"");
            println!("FATAL:  {text}");
            stream.write_all(&failure("FATAL", "28P01", &text))?;
            return Ok(None);
        }
        if !self
            .store
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .has(&database)
        {
            let text = format!("database \"{database}\" does not exist");
            stream.write_all(&failure("FATAL", "3D000", &text))?;
            return Ok(None);
        }
        let mut answer = message(b'R', &0_u32.to_be_bytes());
        for (name, value) in [("server_version", "16.1"), ("client_encoding", "UTF8")] {
            answer.extend(message(b'S', format!("{name}\0{value}\0").as_bytes()));
        }
        answer.extend(message(b'K', &[0, 0, 0, 1, 0, 0, 0, 1]));
        stream.write_all(&answer)?;
        Ok(Some(Session {
            database: Some(database),
            user,
            number: 1,
            version: "PostgreSQL 16.1 (Weir's stand-in)".into(),
        }))
    }

    fn query(&self, session: &mut Session, text: &str) -> Vec<u8> {
        if text.trim().trim_end_matches(';').is_empty() {
            return message(b'I', b"");
        }
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        // PostgreSQL's quotes for names are MySQL's for texts.
        let outcome = store.run(session, &text.replace('"', "`"));
        let mut words = text.split_whitespace().map(str::to_uppercase);
        let verb = words.next().unwrap_or_default();
        let kind = words.next().unwrap_or_default();
        let done = |tag: String| message(b'C', format!("{tag}\0").as_bytes());
        match outcome {
            Ok(Outcome::Changed(rows)) => done(match verb.as_str() {
                "INSERT" => format!("INSERT 0 {rows}"),
                "DELETE" => format!("DELETE {rows}"),
                "CREATE" | "DROP" => format!("{verb} {kind}"),
                _ => verb,
            }),
            Ok(Outcome::Rows { columns, rows }) => {
                let mut description = (columns.len() as u16).to_be_bytes().to_vec();
                for name in &columns {
                    description.extend_from_slice(name.as_bytes());
                    // No table; text; of any length; as text.
                    description.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 25]);
                    description.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);
                }
                let mut bytes = message(b'T', &description);
                let count = rows.len();
                for row in rows {
                    let mut body = (row.len() as u16).to_be_bytes().to_vec();
                    for value in row {
                        match value {
                            None => body.extend_from_slice(&u32::MAX.to_be_bytes()),
                            Some(text) => {
                                body.extend_from_slice(&(text.len() as u32).to_be_bytes());
                                body.extend_from_slice(text.as_bytes());
                            }
                        }
                    }
                    bytes.extend(message(b'D', &body));
                }
                bytes.extend(done(format!("SELECT {count}")));
                bytes
            }
            Err(wrong) => failure("ERROR", wrong.state, &wrong.message),
        }
    }
}

/// Connects and hears the server's answer to a start: whether a PostgreSQL server is there.
pub fn greet(endpoint: &str, limit: Duration) -> io::Result<()> {
    let address = resolve::address(endpoint, PORT)
        .map_err(|bad| io::Error::new(io::ErrorKind::NotFound, bad.to_string()))?;
    let socket = sockets::connect(address, None, SocketType::STREAM, Some(limit))?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    let mut body = PROTOCOL_3.to_be_bytes().to_vec();
    body.extend_from_slice(b"user\0orders\0database\0orders\0\0");
    // A start-up message has no kind.
    stream.write_all(&message(0, &body)[1..])?;
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    match kind[0] {
        b'R' => Ok(()),
        _ => Err(io::Error::other("the database refuses the connection")),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::Arc;

    use super::*;

    fn started() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let server = Arc::new(Server {
            user: "orders".into(),
            password: Some("secret".into()),
            store: Mutex::new(Store::new(["orders"])),
        });
        std::thread::spawn(move || {
            accept(&listener, 8, move |stream, _| {
                let _broken = server.converse(stream);
            });
        });
        endpoint
    }

    fn log_in(endpoint: &str, password: &str) -> (TcpStream, u8) {
        let mut stream = TcpStream::connect(endpoint).unwrap();
        stream
            .write_all(&[&[0, 0, 0, 8][..], &SSL_REQUEST.to_be_bytes()].concat())
            .unwrap();
        let mut kind = [0];
        stream.read_exact(&mut kind).unwrap();
        assert_eq!(&kind, b"N");
        let mut body = PROTOCOL_3.to_be_bytes().to_vec();
        body.extend_from_slice(b"user\0orders\0\0");
        stream.write_all(&message(0, &body)[1..]).unwrap();
        stream.read_exact(&mut kind).unwrap();
        assert_eq!(read_rest(&mut stream).unwrap(), 3_u32.to_be_bytes());
        stream
            .write_all(&message(b'p', format!("{password}\0").as_bytes()))
            .unwrap();
        stream.read_exact(&mut kind).unwrap();
        read_rest(&mut stream).unwrap();
        (stream, kind[0])
    }

    fn next(stream: &mut TcpStream) -> (u8, Vec<u8>) {
        let mut kind = [0];
        stream.read_exact(&mut kind).unwrap();
        (kind[0], read_rest(stream).unwrap())
    }

    #[test]
    fn a_client_logs_in_and_asks() {
        let endpoint = started();
        greet(&endpoint, Duration::from_secs(10)).unwrap();
        assert_eq!(log_in(&endpoint, "wrong").1, b'E');
        let (mut stream, kind) = log_in(&endpoint, "secret");
        assert_eq!(kind, b'R');
        let mut kinds = Vec::new();
        stream.write_all(&message(b'Q', b"SELECT 7\0")).unwrap();
        let value = loop {
            let (kind, body) = next(&mut stream);
            kinds.push(kind);
            if kind == b'D' {
                break body;
            }
        };
        assert_eq!(kinds, b"SSKZTD");
        assert_eq!(value, [0, 1, 0, 0, 0, 1, b'7']);
        assert_eq!(next(&mut stream), (b'C', b"SELECT 1\0".to_vec()));
    }
}
