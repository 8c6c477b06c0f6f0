//! Real connections, tried from inside a pod: `weir-lab probe TARGET…`, and the listener that a
//! tutorial starts by hand: `weir-lab listen PORT`.
//!
//! A probe knows neither policies nor verdicts. It looks the name up with the system's resolver,
//! connects with the system's TCP and says what happened. A target written `udp:HOST:PORT` gets a
//! datagram instead; an answer, or a closed port's ICMP error, tells that it arrived.

use std::io::{self, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// What became of a connection that was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Connected.
    Open,
    /// Answered with a reset.
    Refused,
    /// Silence until the time-out.
    TimedOut,
    /// The name has no address, or DNS did not answer in time.
    Unresolved,
    /// An ICMP error, or no route.
    Unreachable,
}

impl Outcome {
    /// One character for a matrix.
    pub const fn sign(self) -> char {
        match self {
            Outcome::Open => '+',
            Outcome::Refused => 'x',
            Outcome::TimedOut => '-',
            Outcome::Unresolved => '?',
            Outcome::Unreachable => '!',
        }
    }
}

/// One target's result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probed {
    /// `HOST:PORT` as it was asked for.
    pub target: String,
    /// What happened.
    pub outcome: Outcome,
    /// How long it took.
    pub elapsed_ms: u64,
}

/// Tries every target at once, each within `limit` for the name and again for the connection.
pub fn probe(targets: &[String], limit: Duration) -> Vec<Probed> {
    let (sender, receiver) = mpsc::channel();
    for (index, target) in targets.iter().enumerate() {
        let (sender, target) = (sender.clone(), target.clone());
        std::thread::spawn(move || {
            let begin = Instant::now();
            let outcome = try_one(&target, limit);
            let elapsed_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
            // The receiver waits for every thread; it is gone only if this process ends.
            let _ = sender.send((
                index,
                Probed {
                    target,
                    outcome,
                    elapsed_ms,
                },
            ));
        });
    }
    drop(sender);
    let mut all: Vec<(usize, Probed)> = receiver.iter().collect();
    all.sort_by_key(|(index, _)| *index);
    all.into_iter().map(|(_, probed)| probed).collect()
}

fn try_one(target: &str, limit: Duration) -> Outcome {
    let (target, udp) = match target.strip_prefix("udp:") {
        Some(target) => (target, true),
        None => (target, false),
    };
    let Some(address) = resolve(target, limit) else {
        return Outcome::Unresolved;
    };
    let tried = if udp {
        ask(address, limit)
    } else {
        TcpStream::connect_timeout(&address, limit).map(drop)
    };
    match tried {
        Ok(()) => Outcome::Open,
        Err(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => Outcome::Refused,
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Outcome::TimedOut,
            _ => Outcome::Unreachable,
        },
    }
}

/// What a datagram says: a DNS question for the root's name servers (RFC 1035), since a DNS server
/// takes no notice of anything else, and whoever echoes echoes this too.
const QUESTION: &[u8] = b"wp\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01";

/// Sends a datagram and waits for any answer; once more half-way, since datagrams may be lost.
fn ask(address: std::net::SocketAddr, limit: Duration) -> io::Result<()> {
    let any: (std::net::IpAddr, u16) = match address {
        std::net::SocketAddr::V4(_) => (std::net::Ipv4Addr::UNSPECIFIED.into(), 0),
        std::net::SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED.into(), 0),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(limit / 2))?;
    let mut answer = [0_u8; 64];
    let mut silence = io::ErrorKind::TimedOut.into();
    for _ in 0..2 {
        socket.send(QUESTION)?;
        match socket.recv(&mut answer) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => silence = error,
            Err(error) => return Err(error),
        }
    }
    Err(silence)
}

/// The first address of `HOST:PORT`. The resolver cannot be interrupted: past the limit its thread
/// is left behind, and ends with the process.
fn resolve(target: &str, limit: Duration) -> Option<std::net::SocketAddr> {
    let (sender, receiver) = mpsc::channel();
    let target = target.to_owned();
    std::thread::spawn(move || {
        let found = target.to_socket_addrs().ok().and_then(|mut all| all.next());
        // Nobody listens any more once the limit has passed.
        let _ = sender.send(found);
    });
    receiver.recv_timeout(limit).ok().flatten()
}

/// Prints one JSON line a target.
pub fn run_probe(targets: &[String], limit: Duration) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for probed in probe(targets, limit) {
        writeln!(out, "{}", serde_json::to_string(&probed)?)?;
    }
    out.flush()
}

/// Accepts connections on `port` of both families for good, and closes each at once.
pub fn run_listen(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind(("::", port))?;
    println!("listening on [::]:{port} ...");
    loop {
        match listener.accept() {
            Ok((connection, _)) => drop(connection),
            // Out of descriptors, or a connection that broke before it was taken.
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_refused_and_unresolved_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap();
        let closed = {
            let passing = TcpListener::bind("127.0.0.1:0").unwrap();
            passing.local_addr().unwrap()
        };
        let targets = [
            open.to_string(),
            closed.to_string(),
            "no-such-host.invalid:1".into(),
        ];
        let found = probe(&targets, Duration::from_secs(2));
        assert_eq!(found[0].outcome, Outcome::Open);
        assert_eq!(found[1].outcome, Outcome::Refused);
        assert_eq!(found[2].outcome, Outcome::Unresolved);
        assert_eq!(found[2].target, targets[2]);
    }

    #[test]
    fn a_datagram_is_answered_refused_or_swallowed() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let answering = server.local_addr().unwrap();
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let closed = UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0_u8; 64];
            let (length, from) = server.recv_from(&mut buffer).unwrap();
            server.send_to(&buffer[..length], from).unwrap();
        });
        let silent_address = silent.local_addr().unwrap();
        let targets = [answering, closed, silent_address].map(|address| format!("udp:{address}"));
        let found = probe(&targets, Duration::from_millis(300));
        let outcomes: Vec<Outcome> = found.iter().map(|one| one.outcome).collect();
        assert_eq!(
            outcomes,
            [Outcome::Open, Outcome::Refused, Outcome::TimedOut]
        );
    }
}
