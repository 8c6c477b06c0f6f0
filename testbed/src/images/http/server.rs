//! A server: a thread per connection, at most [`CONNECTIONS`] at once.

use std::io::{self, BufReader, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use super::{Headers, http_date, read_body, read_headers, read_line};

/// Connections served at once; further ones wait in the listener's queue.
pub const CONNECTIONS: usize = 256;
/// A connection that is silent for this long ends.
const IDLE: Duration = Duration::from_secs(60);

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET` and the like.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// `HTTP/1.0` or `HTTP/1.1`.
    pub version: String,
    /// Headers.
    pub headers: Headers,
    /// Body.
    pub body: Vec<u8>,
    /// Who asks.
    pub peer: SocketAddr,
    /// Where it was asked.
    pub local: SocketAddr,
}

impl Request {
    /// The path without the query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The query's names and values, decoded.
    pub fn query(&self) -> Vec<(String, String)> {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        pairs
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decode(name), decode(value))
            })
            .collect()
    }

    /// The query's value of a name.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let found = self.query().into_iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value)
    }

    /// As `combined` access logs have it, the answer's status and length with it.
    pub fn log_line(&self, response: &Response) -> String {
        let header = |name| self.headers.get(name).unwrap_or("-");
        format!(
            "{} - - [{}] \"{} {} {}\" {} {} \"{}\" \"{}\"",
            self.peer.ip(),
            super::common_log_date(SystemTime::now()),
            self.method,
            self.target,
            self.version,
            response.status,
            response.body.len(),
            header("Referer"),
            header("User-Agent"),
        )
    }
}

/// `%41` and `+` as what they mean.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = |at: usize| char::from(*after.get(at)?).to_digit(16);
        rest = after;
        match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                rest = &after[2..];
            }
            (b'+', ..) => bytes.push(b' '),
            (other, ..) => bytes.push(*other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An answer. Length, date and connection are added where the headers do not have them.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Headers.
    pub headers: Headers,
    /// Body.
    pub body: Vec<u8>,
}

impl Response {
    /// With a body of a media type.
    pub fn new(status: u16, kind: &str, body: impl Into<Vec<u8>>) -> Response {
        Response {
            status,
            headers: Headers(vec![("Content-Type".into(), kind.to_owned())]),
            body: body.into(),
        }
    }

    /// With nothing but a status.
    pub fn default_with(status: u16) -> Response {
        Response {
            status,
            ..Response::default()
        }
    }

    /// With a JSON body.
    pub fn json(status: u16, value: &serde_json::Value) -> Response {
        Response::new(status, "application/json", value.to_string())
    }

    /// With a text body.
    pub fn text(status: u16, body: impl Into<Vec<u8>>) -> Response {
        Response::new(status, "text/plain; charset=utf-8", body)
    }
}

/// What answers.
pub type Answer = Arc<dyn Fn(&Request) -> Response + Send + Sync>;

/// Listens on a port of every address, of both families where the kernel has both.
pub fn listen(port: u16) -> io::Result<TcpListener> {
    let both = [
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
    ];
    TcpListener::bind(&both[..])
        .map_err(|error| io::Error::new(error.kind(), format!("listen on port {port}: {error}")))
}

/// Serves until the process ends.
pub fn serve(listener: &TcpListener, answer: &Answer) {
    let answer = answer.clone();
    accept(listener, CONNECTIONS, move |stream, peer| {
        // A peer that breaks off or breaks the rules loses its connection.
        let _broken = converse(stream, peer, &answer);
    });
}

/// Accepts connections for good and gives each a thread, `most` at once.
pub fn accept(
    listener: &TcpListener,
    most: usize,
    serve: impl Fn(TcpStream, SocketAddr) + Send + Sync + 'static,
) {
    let (active, serve) = (Arc::new(AtomicUsize::new(0)), Arc::new(serve));
    loop {
        while active.load(Ordering::Acquire) >= most {
            std::thread::sleep(Duration::from_millis(5));
        }
        let Ok((stream, peer)) = listener.accept() else {
            // Out of descriptors, or a connection that was reset before we took it.
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        active.fetch_add(1, Ordering::AcqRel);
        let (active, serve) = (active.clone(), serve.clone());
        std::thread::spawn(move || {
            serve(stream, peer);
            active.fetch_sub(1, Ordering::AcqRel);
        });
    }
}

fn converse(stream: TcpStream, peer: SocketAddr, answer: &Answer) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(IDLE))?;
    stream.set_nodelay(true)?;
    converse_on(BufReader::new(stream.try_clone()?), stream, peer, answer)
}

/// Answers the requests that come by a connection until its end; `reader` is its other half, and may
/// hold what has come already.
///
/// # Errors
/// The connection's, or one of its times being up.
pub fn converse_on(
    mut reader: BufReader<TcpStream>,
    mut stream: TcpStream,
    peer: SocketAddr,
    answer: &Answer,
) -> io::Result<()> {
    let local = stream.local_addr()?;
    while let Some(first) = read_line(&mut reader)? {
        if first.is_empty() {
            continue;
        }
        let request = match read_request(&first, &mut reader, &mut stream, peer, local) {
            Ok(request) => request,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let bad = Response::text(400, format!("{error}\n"));
                return write(&mut stream, bad, "GET", false);
            }
            Err(error) => return Err(error),
        };
        let keep = match request.version.as_str() {
            "HTTP/1.1" => !request.headers.has_token("Connection", "close"),
            _ => request.headers.has_token("Connection", "keep-alive"),
        };
        let response = answer(&request);
        write(&mut stream, response, &request.method, keep)?;
        if !keep {
            break;
        }
    }
    Ok(())
}

fn read_request(
    first: &str,
    reader: &mut BufReader<TcpStream>,
    stream: &mut TcpStream,
    peer: SocketAddr,
    local: SocketAddr,
) -> io::Result<Request> {
    let parts: Vec<&str> = first.split(' ').collect();
    let [method, target, version] = parts[..] else {
        return Err(super::wrong("the request line has not three parts"));
    };
    if !version.starts_with("HTTP/1.") {
        return Err(super::wrong("only HTTP/1.0 and HTTP/1.1 are spoken here"));
    }
    let headers = read_headers(reader)?;
    if headers.has_token("Expect", "100-continue") {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let body = read_body(reader, &headers, false)?;
    // A proxy's form of the target names the server, too.
    let target = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => target,
    };
    Ok(Request {
        method: method.to_owned(),
        target: target.to_owned(),
        version: version.to_owned(),
        headers,
        body,
        peer,
        local,
    })
}

fn write(
    stream: &mut TcpStream,
    mut response: Response,
    method: &str,
    keep: bool,
) -> io::Result<()> {
    let headers = &mut response.headers;
    headers.add_missing("Content-Length", response.body.len().to_string());
    headers.add_missing("Date", http_date(SystemTime::now()));
    headers.add_missing("Connection", if keep { "keep-alive" } else { "close" });
    let (status, reason) = (response.status, reason(response.status));
    let mut text = format!("HTTP/1.1 {status} {reason}\r\n");
    for (name, value) in &response.headers.0 {
        text += &format!("{name}: {value}\r\n");
    }
    text += "\r\n";
    let mut bytes = text.into_bytes();
    if method != "HEAD" {
        bytes.extend_from_slice(&response.body);
    }
    stream.write_all(&bytes)
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        417 => "Expectation Failed",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "",
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Read;
    use std::net::Shutdown;

    use super::*;

    /// What a server with this answer sends for these bytes.
    pub fn served(answer: Answer, bytes: &[u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, peer) = listener.accept().unwrap();
        let server = std::thread::spawn(move || converse(stream, peer, &answer));
        client.write_all(bytes).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        let _reset = client.read_to_string(&mut text);
        let _broken = server.join().unwrap();
        text
    }

    #[test]
    fn requests_are_read_and_answered_one_after_another() {
        let answer: Answer = Arc::new(|request| {
            let body = format!(
                "{} {} {}",
                request.method,
                request.path(),
                request.body.len()
            );
            Response::text(200, body)
        });
        let both = b"POST /a?x=1 HTTP/1.1\r\nContent-Length: 2\r\n\r\nhiGET /b HTTP/1.0\r\n\r\n";
        let text = served(answer.clone(), both);
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert!(
            text.contains("Connection: keep-alive\r\n\r\nPOST /a 2HTTP/1.1"),
            "{text}"
        );
        assert!(
            text.ends_with("Connection: close\r\n\r\nGET /b 0"),
            "{text}"
        );
        let text = served(
            answer.clone(),
            b"HEAD /a HTTP/1.1\r\nConnection: close\r\n\r\n",
        );
        assert!(
            text.contains("Content-Length: 9\r\n") && text.ends_with("\r\n\r\n"),
            "{text}"
        );
        for wrong in [
            &b"GET /a\r\n\r\n"[..],
            b"GET /a HTTP/2\r\n\r\n",
            b"GET / HTTP/1.1\r\nx\r\n\r\n",
        ] {
            let text = served(answer.clone(), wrong);
            assert!(text.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{text}");
        }
    }

    #[test]
    fn queries_are_decoded() {
        let request = Request {
            method: "GET".into(),
            target: "/dial?host=10.0.0.1&request=a%20b+c%zz&flag".into(),
            version: "HTTP/1.1".into(),
            headers: Headers::default(),
            body: Vec::new(),
            peer: ([127, 0, 0, 1], 1).into(),
            local: ([127, 0, 0, 1], 2).into(),
        };
        assert_eq!(request.path(), "/dial");
        assert_eq!(request.parameter("request").as_deref(), Some("a b c%zz"));
        assert_eq!(request.parameter("flag").as_deref(), Some(""));
        assert_eq!(request.parameter("none"), None);
    }
}
