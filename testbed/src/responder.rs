//! What stands in for a program that the machine does not have: it serves the ports that the
//! container declares, and nothing else.
//!
//! TCP that begins like HTTP is answered as HTTP, within the bounds of [`crate::images::http`]:
//! `/health` with `ok`, any other path with the pod's name and the path. Other TCP is sent back as it
//! comes. UDP is answered with the pod's name
//! and what came. Its standard output, the container's log, has a line per connection.

use std::convert::Infallible;
use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType};
use serde::{Deserialize, Serialize};

use crate::images::http::server::{self, Answer, CONNECTIONS, Response};

/// An idle connection ends after this.
const IDLE: Duration = Duration::from_secs(300);

/// What to serve, for whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The pod, `NS/NAME`.
    pub pod: String,
    /// The container's image, for the log.
    pub image: String,
    /// Protocol (`TCP`, `UDP`, `SCTP`) and port.
    pub ports: Vec<(String, u16)>,
}

/// Serves for good. A port that cannot be had is said in the log, the others are served.
pub fn serve(spec: &Spec) -> io::Result<Infallible> {
    if !spec.image.is_empty() {
        println!("the built-in responder stands in for image {}", spec.image);
    }
    let answer = answer(&spec.pod);
    for (protocol, port) in &spec.ports {
        let (pod, answer) = (spec.pod.clone(), answer.clone());
        let begun = match protocol.as_str() {
            "UDP" => datagram_socket(*port).map(|socket| {
                std::thread::spawn(move || answer_datagrams(&socket, &pod));
            }),
            _ => listener(protocol, *port).map(|listener| {
                std::thread::spawn(move || {
                    server::accept(&listener, CONNECTIONS, move |stream, peer| {
                        if let Err(error) = converse(stream, peer, &answer) {
                            println!("{peer}: {error}");
                        }
                    });
                });
            }),
        };
        match begun {
            Ok(()) => println!("serving {port}/{protocol}"),
            Err(error) => println!("cannot serve {port}/{protocol}: {error}"),
        }
    }
    loop {
        std::thread::park();
    }
}

/// The wildcard addresses to try: both families at once, or IPv4 where there is no IPv6.
fn wildcards(port: u16) -> [SocketAddr; 2] {
    [
        SocketAddr::from(([0_u16; 8], port)),
        SocketAddr::from(([0_u8; 4], port)),
    ]
}

fn datagram_socket(port: u16) -> io::Result<UdpSocket> {
    UdpSocket::bind(&wildcards(port)[..])
}

fn listener(protocol: &str, port: u16) -> io::Result<TcpListener> {
    if protocol != "SCTP" {
        return TcpListener::bind(&wildcards(port)[..]);
    }
    // One-to-one style SCTP sockets (RFC 6458, section 4) behave as TCP's.
    let kind = SocketType::STREAM;
    let sctp = Some(rustix::net::ipproto::SCTP);
    let socket: OwnedFd = rustix::net::socket(AddressFamily::INET6, kind, sctp)?;
    rustix::net::bind(&socket, &wildcards(port)[0])?;
    rustix::net::listen(&socket, 128)?;
    Ok(TcpListener::from(socket))
}

fn answer_datagrams(socket: &UdpSocket, pod: &str) {
    let mut buffer = vec![0_u8; 64 << 10];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let mut answer = format!("{pod}: ").into_bytes();
        answer.extend_from_slice(&buffer[..length.min(60 << 10)]);
        let _peer_gone = socket.send_to(&answer, peer);
    }
}

/// What any HTTP request is answered with.
fn answer(pod: &str) -> Answer {
    let pod = pod.to_owned();
    Arc::new(move |request| {
        let path = &request.target;
        println!("{} {} {path} 200", request.peer, request.method);
        let body = match path.as_str() {
            "/health" | "/healthz" => "ok\n".to_owned(),
            _ => format!("pod: {pod}\npath: {path}\n"),
        };
        Response::new(200, "text/plain", body)
    })
}

fn converse(stream: TcpStream, peer: SocketAddr, answer: &Answer) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    // An SCTP socket has no such option, and needs none.
    let _sctp = stream.set_nodelay(true);
    let mut reader = BufReader::new(stream.try_clone()?);
    let first = reader.fill_buf()?;
    if first.is_empty() {
        return Ok(());
    }
    if looks_like_http(first) {
        return server::converse_on(reader, stream, peer, answer);
    }
    let mut stream = stream;
    io::copy(&mut reader, &mut stream).map(|_| ())
}

fn looks_like_http(bytes: &[u8]) -> bool {
    const METHODS: [&[u8]; 7] = [
        b"GET ",
        b"HEAD ",
        b"POST ",
        b"PUT ",
        b"DELETE ",
        b"OPTIONS ",
        b"PATCH ",
    ];
    METHODS.iter().any(|method| {
        let shorter = method.len().min(bytes.len());
        method[..shorter] == bytes[..shorter]
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn served(request: &[u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, peer) = listener.accept().unwrap();
        let server =
            std::thread::spawn(move || converse(stream, peer, &answer("stars/frontend-x")));
        client.write_all(request).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        // What was sent and never read makes the far end's close a reset.
        let _reset = client.read_to_string(&mut answer);
        server.join().unwrap().unwrap();
        answer
    }

    #[test]
    fn http_is_answered_with_the_pod_and_the_path() {
        let answer = served(b"GET /blogs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(
            answer.ends_with("\r\n\r\npod: stars/frontend-x\npath: /blogs\n"),
            "{answer}"
        );
        let health = served(b"GET /health HTTP/1.0\r\n\r\n");
        assert!(health.ends_with("\r\n\r\nok\n"), "{health}");
    }

    #[test]
    fn several_requests_share_a_connection_and_bodies_are_skipped() {
        let answer =
            served(b"POST /a HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloHEAD /b HTTP/1.1\r\n\r\n");
        assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{answer}");
        assert!(!answer.contains("path: /b"), "{answer}");
    }

    #[test]
    fn other_tcp_comes_back_and_long_heads_end_the_connection() {
        assert_eq!(served(b"hello\n"), "hello\n");
        let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20 << 10));
        assert!(!served(long.as_bytes()).contains("pod:"));
    }
}
