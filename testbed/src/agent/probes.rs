//! Readiness and start-up, as the kubelet finds them: from the node.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use control::netlink::Namespace;
use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It succeeded.
    Good,
    /// It failed, and how.
    Bad(String),
    /// It is of a kind that labs do not run (gRPC), or asks for a program that a stand-in does not
    /// have, which counts as success.
    Unknown,
}

/// Seconds between two runs of a probe.
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

/// Runs a probe of connections once, from the node's namespace, so that its packets take the node's way.
pub fn run(probe: &Probe, container: &Container, address: IpAddr, node: &Namespace) -> Finding {
    let limit = time_limit(probe);
    let connect = |number: Option<u16>, host: Option<IpAddr>| {
        let number = number.ok_or("no such port")?;
        let target = SocketAddr::new(host.unwrap_or(address), number);
        let connected = node.run(|| TcpStream::connect_timeout(&target, limit));
        let stream = connected
            .map_err(|e| e.to_string())?
            .map_err(|e| e.to_string())?;
        Ok::<_, String>(stream)
    };
    if let Some(action) = &probe.tcp_socket {
        let host = action.host.as_ref().and_then(|host| host.parse().ok());
        return match connect(port(&action.port, container), host) {
            Ok(_) => Finding::Good,
            Err(why) => Finding::Bad(why),
        };
    }
    if let Some(action) = &probe.http_get {
        let host = action.host.as_ref().and_then(|host| host.parse().ok());
        let path = action.path.as_deref().unwrap_or("/");
        let asked = connect(port(&action.port, container), host)
            .and_then(|stream| ask(stream, path, limit).map_err(|e| e.to_string()));
        return match asked {
            Ok(status) if (200..400).contains(&status) => Finding::Good,
            Ok(status) => Finding::Bad(format!("HTTP probe failed with statuscode: {status}")),
            Err(why) => Finding::Bad(why),
        };
    }
    Finding::Unknown
}

/// One HTTP request; the status.
fn ask(mut stream: TcpStream, path: &str, limit: Duration) -> std::io::Result<u16> {
    stream.set_read_timeout(Some(limit))?;
    let host = stream.peer_addr()?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: kube-probe/1.34\r\n\
         Accept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut head = [0_u8; 12];
    stream.read_exact(&mut head)?;
    let text = String::from_utf8_lossy(&head);
    let status = text.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5));
    let bad = || std::io::Error::other("malformed HTTP response");
    status
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_read_from_the_first_line() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server
            .write_all(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
            .unwrap();
        let status = ask(client, "/health", Duration::from_secs(1)).unwrap();
        assert_eq!(status, 503);
        let mut request = [0_u8; 20];
        server.read_exact(&mut request).unwrap();
        assert_eq!(&request, b"GET /health HTTP/1.1");
    }
}
