//! A client: one request, one connection.

use std::io::{self, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::net::SocketType;

use super::{Headers, read_body, read_headers, read_line};
use crate::images::url::Url;
use crate::images::{resolve, sockets};

/// An answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Headers.
    pub headers: Headers,
    /// Body, at most [`super::BODY_BYTES`].
    pub body: Vec<u8>,
}

/// Asks for `url`, with a body (of a media type) by POST. Connecting may take `limit`, and so may
/// each wait for the peer.
pub fn ask(
    method: &str,
    url: &str,
    body: Option<(&str, &[u8])>,
    limit: Duration,
) -> io::Result<Answer> {
    let url =
        Url::parse(url).map_err(|wrong| io::Error::new(io::ErrorKind::InvalidInput, wrong))?;
    let begun = Instant::now();
    let address = resolve::address(&url.host, url.port)
        .map_err(|bad| io::Error::new(io::ErrorKind::NotFound, bad.to_string()))?;
    // Looking the name up counts, too.
    let left = limit
        .saturating_sub(begun.elapsed())
        .max(Duration::from_millis(1));
    let socket = sockets::connect(address, None, SocketType::STREAM, Some(left))?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    let mut text = format!(
        "{method} {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nAccept: */*\r\n",
        url.path, url.authority
    );
    let (kind, bytes) = body.unwrap_or_default();
    if body.is_some() {
        text += &format!(
            "Content-Type: {kind}\r\nContent-Length: {}\r\n",
            bytes.len()
        );
    }
    text += "\r\n";
    stream.write_all(&[text.as_bytes(), bytes].concat())?;
    let mut reader = BufReader::new(stream);
    loop {
        let first = read_line(&mut reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| super::wrong("the answer has no status"))?;
        let headers = read_headers(&mut reader)?;
        if status == 100 {
            continue;
        }
        let empty = method == "HEAD" || matches!(status, 204 | 304);
        let body = match empty {
            true => Vec::new(),
            false => read_body(&mut reader, &headers, true)?,
        };
        return Ok(Answer {
            status,
            headers,
            body,
        });
    }
}

/// Asks for `url` by GET.
pub fn get(url: &str, limit: Duration) -> io::Result<Answer> {
    ask("GET", url, None, limit)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::Arc;

    use super::*;
    use crate::images::http::server::{self, Response};

    #[test]
    fn what_a_server_answers_arrives() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answer: server::Answer =
            Arc::new(|request| Response::new(201, "text/x", [b"got ", &request.body[..]].concat()));
        std::thread::spawn(move || server::serve(&listener, &answer));
        let limit = Duration::from_secs(10);
        let url = format!("http://{address}/x");
        let answer = ask("POST", &url, Some(("text/plain", b"hello")), limit).unwrap();
        assert_eq!((answer.status, &answer.body[..]), (201, &b"got hello"[..]));
        assert_eq!(answer.headers.get("content-type"), Some("text/x"));
        assert!(get("http://no such/", limit).is_err());
    }
}
