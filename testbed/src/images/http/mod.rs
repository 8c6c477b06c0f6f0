//! HTTP/1.1 as the stand-ins speak it: [`server`] and [`client`], both with bounds on everything
//! that a peer sends.

pub mod client;
mod date;
pub mod server;

pub use date::{common_log_date, http_date};

use std::io::{self, BufRead, Read};

/// Bytes of one line of a head.
pub const LINE_BYTES: u64 = 8 << 10;
/// Lines of a head.
pub const HEAD_LINES: usize = 128;
/// Bytes of a body.
pub const BODY_BYTES: u64 = 1 << 20;

/// Header lines in their order, names as they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    /// The first with this name, whatever its letters' case.
    pub fn get(&self, name: &str) -> Option<&str> {
        let named = |header: &&(String, String)| header.0.eq_ignore_ascii_case(name);
        self.0.iter().find(named).map(|(_, value)| value.as_str())
    }

    /// Adds one, unless there is one of this name.
    pub fn add_missing(&mut self, name: &str, value: impl Into<String>) {
        if self.get(name).is_none() {
            self.0.push((name.to_owned(), value.into()));
        }
    }

    fn has_token(&self, name: &str, token: &str) -> bool {
        let value = self.get(name).unwrap_or_default();
        value
            .split(',')
            .any(|part| part.trim().eq_ignore_ascii_case(token))
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A line without its end; none when the peer has closed before it.
fn read_line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    reader.take(LINE_BYTES).read_until(b'\n', &mut bytes)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.pop() != Some(b'\n') {
        return Err(wrong("a line of the head is too long or cut off"));
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

fn read_headers(reader: &mut impl BufRead) -> io::Result<Headers> {
    let mut headers = Headers::default();
    for _ in 0..HEAD_LINES {
        let line = read_line(reader)?.ok_or_else(|| wrong("the head is cut off"))?;
        if line.is_empty() {
            return Ok(headers);
        }
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| wrong("a header has no colon"))?;
        let header = (name.trim().to_owned(), value.trim().to_owned());
        headers.0.push(header);
    }
    Err(wrong("the head has too many lines"))
}

/// The body that the headers announce. `None` for the length: there is none, or, with `to_end`, it
/// goes on until the connection ends.
fn read_body(reader: &mut impl BufRead, headers: &Headers, to_end: bool) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if headers.has_token("Transfer-Encoding", "chunked") {
        loop {
            let line = read_line(reader)?.ok_or_else(|| wrong("a chunk is missing"))?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16).map_err(|_| wrong("a chunk has no size"))?;
            if size > BODY_BYTES - body.len() as u64 {
                return Err(wrong("the body is too long"));
            }
            if size == 0 {
                // Trailers end as a head does.
                read_headers(reader)?;
                return Ok(body);
            }
            read_exactly(reader, size, &mut body)?;
            read_line(reader)?;
        }
    }
    match headers.get("Content-Length") {
        Some(length) => {
            let length = length
                .parse()
                .map_err(|_| wrong("Content-Length is no number"))?;
            if length > BODY_BYTES {
                return Err(wrong("the body is too long"));
            }
            read_exactly(reader, length, &mut body)?;
        }
        None if to_end => {
            reader.take(BODY_BYTES + 1).read_to_end(&mut body)?;
            if body.len() as u64 > BODY_BYTES {
                return Err(wrong("the body is too long"));
            }
        }
        None => {}
    }
    Ok(body)
}

fn read_exactly(reader: &mut impl BufRead, length: u64, body: &mut Vec<u8>) -> io::Result<()> {
    let got = reader.take(length).read_to_end(body)?;
    match got as u64 == length {
        true => Ok(()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_and_bodies_have_bounds() {
        let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(9 << 10));
        assert!(read_line(&mut long.as_bytes()).is_err());
        let many = "A: b\r\n".repeat(HEAD_LINES + 1) + "\r\n";
        assert!(read_headers(&mut many.as_bytes()).is_err());
        let huge = Headers(vec![(
            "content-length".into(),
            (BODY_BYTES + 1).to_string(),
        )]);
        assert!(read_body(&mut &b"x"[..], &huge, false).is_err());
        let chunked = Headers(vec![("Transfer-Encoding".into(), "chunked".into())]);
        let body = read_body(
            &mut &b"3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\n"[..],
            &chunked,
            false,
        );
        assert_eq!(body.unwrap(), b"abcde");
        let claims = format!("{:x}\r\n", BODY_BYTES + 1);
        assert!(read_body(&mut claims.as_bytes(), &chunked, false).is_err());
        let short = Headers(vec![("Content-Length".into(), "5".into())]);
        assert!(read_body(&mut &b"abc"[..], &short, false).is_err());
    }
}
