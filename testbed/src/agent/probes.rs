//! Start-up, liveness and readiness, as the kubelet finds them: from the node.

mod rounds;

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use control::netlink::Namespace;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

pub use rounds::{Probing, Turn};

/// Bytes of an answer's head that are read at most.
const HEAD_BYTES: usize = 12;

/// Which of a container's probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Until it succeeds the others wait.
    Startup,
    /// A container for which it fails is started again.
    Liveness,
    /// A container for which it fails gets no connections through Services.
    Readiness,
}

impl Kind {
    /// All of them, in the order of their numbers.
    pub const ALL: [Kind; 3] = [Kind::Startup, Kind::Liveness, Kind::Readiness];

    /// As the kubelet's events begin.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Liveness => "Liveness",
            Kind::Readiness => "Readiness",
        }
    }

    /// The container's probe of this kind.
    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Kind::Startup => container.startup_probe.as_ref(),
            Kind::Liveness => container.liveness_probe.as_ref(),
            Kind::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It succeeded.
    Good,
    /// It failed, and how.
    Bad(String),
    /// It could not be tried, and why.
    Errored(String),
    /// It is of a kind that labs do not run (gRPC), or asks for a program that a stand-in does not
    /// have, which counts as success. Why, if that is worth telling.
    Unknown(Option<String>),
}

/// Between two runs of a probe.
pub fn period(probe: &Probe) -> Duration {
    Duration::from_secs(probe.period_seconds.map_or(10, |s| s.max(1)) as u64)
}

/// The number of a port that may be a name.
fn port(port: &IntOrString, container: &Container) -> Option<u16> {
    match port {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => {
            let ports = container.ports.iter().flatten();
            let mut named = ports.filter(|port| port.name.as_deref() == Some(name));
            named
                .next()
                .and_then(|port| u16::try_from(port.container_port).ok())
        }
    }
}

/// How long one run of a probe may take.
pub fn time_limit(probe: &Probe) -> Duration {
    Duration::from_secs(probe.timeout_seconds.map_or(1, |s| s.max(1)) as u64)
}

/// Whether a probe asks by TLS, of which labs try the connection only.
pub fn speaks_tls(probe: &Probe) -> bool {
    let action = probe.http_get.as_ref();
    let scheme = action.and_then(|action| action.scheme.as_deref());
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"))
}

/// Runs a probe of connections once, from the node's namespace, so that its packets take the node's way.
pub fn run(probe: &Probe, container: &Container, address: IpAddr, node: &Namespace) -> Finding {
    let limit = time_limit(probe);
    let (target, host) = match (&probe.tcp_socket, &probe.http_get) {
        (Some(action), _) => (&action.port, &action.host),
        (None, Some(action)) => (&action.port, &action.host),
        (None, None) => return Finding::Unknown(None),
    };
    let Some(number) = port(target, container) else {
        return Finding::Errored(format!("couldn't find port: {}", port_text(target)));
    };
    let host = host.as_ref().and_then(|host| host.parse().ok());
    let target = SocketAddr::new(host.unwrap_or(address), number);
    let deadline = Instant::now() + limit;
    let connected = match node.run(|| TcpStream::connect_timeout(&target, limit)) {
        Ok(connected) => connected,
        Err(error) => return Finding::Errored(error.to_string()),
    };
    let connected = connected.map_err(|error| format!("dial tcp {target}: {}", in_words(&error)));
    let action = probe.http_get.as_ref();
    match (connected, action.filter(|_| !speaks_tls(probe))) {
        (Ok(_), None) => Finding::Good,
        (Ok(stream), Some(action)) => ask_http(stream, action, target, deadline),
        (Err(why), Some(action)) => Finding::Bad(got(action, target, &why)),
        (Err(why), None) => Finding::Bad(why),
    }
}

fn port_text(port: &IntOrString) -> String {
    match port {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    }
}

/// A socket's error in Go's words, which the kubelet's are.
fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "i/o timeout".into(),
        io::ErrorKind::ConnectionRefused => "connect: connection refused".into(),
        io::ErrorKind::ConnectionReset => "read: connection reset by peer".into(),
        io::ErrorKind::UnexpectedEof => "EOF".into(),
        _ => error.to_string(),
    }
}

fn path_of(action: &HTTPGetAction) -> String {
    match action.path.as_deref().unwrap_or("/") {
        path if path.starts_with('/') => path.to_owned(),
        path => format!("/{path}"),
    }
}

fn got(action: &HTTPGetAction, target: SocketAddr, why: &str) -> String {
    format!("Get \"http://{target}{}\": {why}", path_of(action))
}

fn ask_http(
    stream: TcpStream,
    action: &HTTPGetAction,
    target: SocketAddr,
    deadline: Instant,
) -> Finding {
    match ask(stream, &request(action, target), deadline) {
        Ok(status) if (200..400).contains(&status) => Finding::Good,
        Ok(status) => Finding::Bad(format!("HTTP probe failed with statuscode: {status}")),
        Err(error) => {
            let why = match error.kind() {
                io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                    "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
                        .to_owned()
                }
                _ => in_words(&error),
            };
            Finding::Bad(got(action, target, &why))
        }
    }
}

/// The request, with the probe's own headers in the usual ones' place.
fn request(action: &HTTPGetAction, target: SocketAddr) -> String {
    let mut headers = vec![
        ("Host".to_owned(), target.to_string()),
        ("User-Agent".to_owned(), "kube-probe/1.34".to_owned()),
        ("Accept".to_owned(), "*/*".to_owned()),
    ];
    let own: Vec<(String, String)> = action
        .http_headers
        .iter()
        .flatten()
        .map(|header| (header.name.clone(), header.value.clone()))
        .collect();
    headers.retain(|(name, _)| {
        !own.iter()
            .any(|(other, _)| other.eq_ignore_ascii_case(name))
    });
    headers.extend(own);
    headers.push(("Connection".to_owned(), "close".to_owned()));
    let lines: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    format!("GET {} HTTP/1.1\r\n{lines}\r\n", path_of(action))
}

/// Sends a request; the answer's status.
fn ask(mut stream: TcpStream, request: &str, deadline: Instant) -> io::Result<u16> {
    stream.write_all(request.as_bytes())?;
    let mut head = [0_u8; HEAD_BYTES];
    let mut have = 0;
    while have < HEAD_BYTES {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut head[have..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => have += length,
        }
    }
    let text = String::from_utf8_lossy(&head);
    let status = text.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5));
    let bad = || io::Error::other(format!("malformed HTTP response {text:?}"));
    status
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn action(json: serde_json::Value) -> HTTPGetAction {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn the_status_is_read_from_the_first_line() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        let client = TcpStream::connect(target).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server
            .write_all(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
            .unwrap();
        let action = action(json!({"path": "/health", "port": 1}));
        let finding = ask_http(
            client,
            &action,
            target,
            Instant::now() + Duration::from_secs(1),
        );
        let expected = "HTTP probe failed with statuscode: 503".to_owned();
        assert_eq!(finding, Finding::Bad(expected));
        let mut request = [0_u8; 20];
        server.read_exact(&mut request).unwrap();
        assert_eq!(&request, b"GET /health HTTP/1.1");
    }

    #[test]
    fn who_does_not_answer_in_time_has_failed() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        let client = TcpStream::connect(target).unwrap();
        let action = action(json!({"path": "slow", "port": 1}));
        let soon = Instant::now() + Duration::from_millis(50);
        let expected = format!(
            "Get \"http://{target}/slow\": context deadline exceeded (Client.Timeout exceeded while \
             awaiting headers)"
        );
        let finding = ask_http(client, &action, target, soon);
        assert_eq!(finding, Finding::Bad(expected));
    }

    #[test]
    fn a_probe_s_own_headers_take_the_usual_ones_place() {
        let action = action(json!({"port": 1, "httpHeaders": [
            {"name": "host", "value": "shop.example"}, {"name": "X-Probe", "value": "yes"},
        ]}));
        let text = request(&action, "10.0.0.1:80".parse().unwrap());
        let expected = "GET / HTTP/1.1\r\nUser-Agent: kube-probe/1.34\r\nAccept: */*\r\n\
                        host: shop.example\r\nX-Probe: yes\r\nConnection: close\r\n\r\n";
        assert_eq!(text, expected);
    }
}
