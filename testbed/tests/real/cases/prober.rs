//! Real connections between pods, many at once, from inside of their namespaces.
//!
//! A socket belongs to the network namespace of the thread that made it, for good. So one thread
//! makes the sockets of all pods, and one poll drives them: every connection of a step is under way
//! at the same time, and silence is waited for once.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use control::netlink::Namespace;
use control::policy_test::model::Transport;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::raw::{self, Arrived, Raw};

/// How long silence must last at least.
const SILENCE: Duration = Duration::from_millis(300);
/// How long what must connect may take.
const PATIENCE: Duration = Duration::from_millis(1500);

/// A connection to try.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Namespace of the sender.
    pub from: String,
    /// Namespace of the receiver.
    pub to: String,
    /// The sender's address.
    pub source: IpAddr,
    /// The receiver's address.
    pub destination: IpAddr,
    /// Its protocol.
    pub transport: Transport,
    /// The receiver's port; 0 for ICMP.
    pub port: u16,
    /// The Service's address and port, if that is what the sender connects to.
    pub service: Option<SocketAddr>,
    /// Whether there is nobody to answer.
    pub nobody: bool,
    /// Whether it must connect: then it is waited for longer.
    pub allow: bool,
}

/// What became of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It connected: the receiver answered.
    Connected,
    /// The receiver, or somebody, refused.
    Refused,
    /// Silence.
    Silence,
    /// The system would not send: an ICMP error, no route.
    Failed(String),
}

/// Somebody who answers.
enum Server {
    Tcp(TcpListener),
    Udp(UdpSocket),
    /// The pod's own responder has the port.
    Other,
}

/// A connection under way.
enum Attempt {
    Tcp(OwnedFd),
    Udp(UdpSocket),
    /// By this number, on the sender's raw socket.
    Raw(u32),
}

/// Sockets in all namespaces.
#[derive(Default)]
pub struct Prober {
    servers: HashMap<(IpAddr, Transport, u16), Server>,
    raw: HashMap<(IpAddr, Transport), Raw>,
    next: u32,
}

impl Prober {
    /// Closes what it has on an address, whose pod is going.
    pub fn forget(&mut self, address: IpAddr) {
        self.servers.retain(|(of, _, _), _| *of != address);
        self.raw.retain(|(of, _), _| *of != address);
    }

    /// Tries all of them, at once; what must connect and did not, again.
    pub fn probe(&mut self, probes: &[Probe]) -> io::Result<Vec<Seen>> {
        self.serve(probes)?;
        let all: Vec<usize> = (0..probes.len()).collect();
        let mut seen = vec![Seen::Silence; probes.len()];
        self.round(probes, &all, &mut seen)?;
        for _ in 0..3 {
            let again = all.iter().copied();
            let again = again.filter(|&at| probes[at].allow && seen[at] != Seen::Connected);
            let again: Vec<usize> = again.collect();
            if again.is_empty() {
                break;
            }
            self.round(probes, &again, &mut seen)?;
        }
        Ok(seen)
    }

    /// Has somebody answer wherever a probe goes, and raw sockets wherever one begins or ends.
    fn serve(&mut self, probes: &[Probe]) -> io::Result<()> {
        let mut places: HashMap<&str, Vec<(IpAddr, Transport, u16)>> = HashMap::new();
        for probe in probes {
            let ends = [(&probe.to, probe.destination), (&probe.from, probe.source)];
            if raw::carries(probe.transport) {
                for (namespace, address) in ends {
                    if !self.raw.contains_key(&(address, probe.transport)) {
                        let place = (address, probe.transport, 0);
                        places.entry(namespace).or_default().push(place);
                    }
                }
                continue;
            }
            let place = (probe.destination, probe.transport, probe.port);
            if !probe.nobody && !self.servers.contains_key(&place) {
                places.entry(&probe.to).or_default().push(place);
            }
        }
        for (namespace, mut wanted) in places {
            wanted.sort_by_key(|(address, transport, port)| (*address, transport.name(), *port));
            wanted.dedup();
            let made = inside(namespace, || {
                let made = wanted.iter().map(|place| open(*place).map(|s| (*place, s)));
                made.collect::<io::Result<Vec<_>>>()
            })??;
            for (place, opened) in made {
                match opened {
                    Opened::Raw(raw) => drop(self.raw.insert((place.0, place.1), raw)),
                    Opened::Server(server) => drop(self.servers.insert(place, server)),
                }
            }
        }
        Ok(())
    }

    fn round(&mut self, probes: &[Probe], which: &[usize], seen: &mut [Seen]) -> io::Result<()> {
        let mut under_way = self.begin(probes, which, seen)?;
        let begin = Instant::now();
        let mut slowest = Duration::ZERO;
        loop {
            let waiting = under_way.iter().any(|(at, _)| probes[*at].allow);
            // Who denies may not be taken for slow: silence lasts longer than any success took.
            let enough = match waiting {
                true => PATIENCE,
                false => SILENCE.max(slowest * 3),
            };
            let left = enough.saturating_sub(begin.elapsed());
            if under_way.is_empty() || left.is_zero() {
                break;
            }
            let answered = self.turn(&under_way, left)?;
            let mut done = Vec::new();
            for (index, (at, attempt)) in under_way.iter().enumerate() {
                let result = match attempt {
                    Attempt::Raw(number) => {
                        answered.raw.contains(number).then_some(Seen::Connected)
                    }
                    _ if !answered.attempts.contains(&index) => None,
                    Attempt::Tcp(socket) => Some(connected(socket)),
                    Attempt::Udp(socket) => echoed(socket),
                };
                if let Some(result) = result {
                    if result == Seen::Connected {
                        slowest = slowest.max(begin.elapsed());
                    }
                    seen[*at] = result;
                    done.push(index);
                }
            }
            for index in done.into_iter().rev() {
                end(under_way.swap_remove(index).1);
            }
        }
        for (at, attempt) in under_way {
            seen[at] = Seen::Silence;
            end(attempt);
        }
        Ok(())
    }

    /// Sends the first packet of each.
    fn begin(
        &mut self,
        probes: &[Probe],
        which: &[usize],
        seen: &mut [Seen],
    ) -> io::Result<Vec<(usize, Attempt)>> {
        let mut by_sender: HashMap<&str, Vec<usize>> = HashMap::new();
        let mut under_way = Vec::new();
        for &at in which {
            let probe = &probes[at];
            if !raw::carries(probe.transport) {
                by_sender.entry(&probe.from).or_default().push(at);
                continue;
            }
            self.next += 1;
            let number = self.next;
            let sender = &self.raw[&(probe.source, probe.transport)];
            match sender.ask(probe.destination, probe.port, number) {
                Ok(()) => under_way.push((at, Attempt::Raw(number))),
                Err(error) => seen[at] = Seen::Failed(error.to_string()),
            }
        }
        for (namespace, ats) in by_sender {
            let begun = inside(namespace, || {
                let begin = ats.iter().map(|&at| (at, begin_one(&probes[at])));
                begin.collect::<Vec<_>>()
            })?;
            for (at, attempt) in begun {
                match attempt {
                    Ok(attempt) => under_way.push((at, attempt)),
                    Err(error) => seen[at] = failed(&error),
                }
            }
        }
        Ok(under_way)
    }

    /// Waits for something to happen; answers for all servers.
    fn turn(&mut self, under_way: &[(usize, Attempt)], longest: Duration) -> io::Result<Answered> {
        let mut fds: Vec<PollFd<'_>> = Vec::new();
        let mut attempts = Vec::new();
        for (index, (_, attempt)) in under_way.iter().enumerate() {
            let (fd, events): (BorrowedFd<'_>, _) = match attempt {
                Attempt::Tcp(socket) => (socket.as_fd(), PollFlags::OUT),
                Attempt::Udp(socket) => (socket.as_fd(), PollFlags::IN),
                Attempt::Raw(_) => continue,
            };
            attempts.push(index);
            fds.push(PollFd::from_borrowed_fd(fd, events));
        }
        let servers: Vec<&Server> = self.servers.values().collect();
        for server in &servers {
            match server {
                Server::Tcp(socket) => fds.push(PollFd::new(socket, PollFlags::IN)),
                Server::Udp(socket) => fds.push(PollFd::new(socket, PollFlags::IN)),
                Server::Other => {}
            }
        }
        for raw in self.raw.values() {
            fds.push(PollFd::new(raw, PollFlags::IN));
        }
        let longest = Timespec::try_from(longest).unwrap();
        match poll(&mut fds, Some(&longest)) {
            Err(rustix::io::Errno::INTR) | Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let attempts = attempts.into_iter().zip(ready);
        let attempts = attempts
            .filter(|(_, ready)| *ready)
            .map(|(at, _)| at)
            .collect();
        servers.into_iter().for_each(answer);
        let mut answered = Answered {
            attempts,
            raw: Vec::new(),
        };
        for raw in self.raw.values() {
            while let Some(arrived) = raw.take()? {
                match arrived {
                    Arrived::Answer(number) => answered.raw.push(number),
                    Arrived::Nothing => {}
                }
            }
        }
        Ok(answered)
    }
}

/// What happened in a turn.
struct Answered {
    /// Indices of attempts whose sockets have something to say.
    attempts: Vec<usize>,
    /// Numbers of answers to raw packets.
    raw: Vec<u32>,
}

enum Opened {
    Server(Server),
    Raw(Raw),
}

/// Runs `work` in a namespace.
fn inside<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let open = Namespace::open(namespace).map_err(io::Error::other)?;
    open.run(work).map_err(io::Error::other)
}

fn open((address, transport, port): (IpAddr, Transport, u16)) -> io::Result<Opened> {
    if raw::carries(transport) {
        return Raw::open(address, transport).map(Opened::Raw);
    }
    let at = SocketAddr::new(address, port);
    let server = match transport {
        Transport::Tcp => TcpListener::bind(at).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(Server::Tcp(listener))
        }),
        _ => UdpSocket::bind(at).and_then(|socket| {
            socket.set_nonblocking(true)?;
            Ok(Server::Udp(socket))
        }),
    };
    match server {
        Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(Opened::Server(Server::Other)),
        Err(error) => Err(io::Error::new(
            error.kind(),
            format!("serve {} {at}: {error}", transport.name()),
        )),
        Ok(server) => Ok(Opened::Server(server)),
    }
}

fn begin_one(probe: &Probe) -> io::Result<Attempt> {
    let from = SocketAddr::new(probe.source, 0);
    let itself = SocketAddr::new(probe.destination, probe.port);
    let to = probe.service.unwrap_or(itself);
    if probe.transport == Transport::Udp {
        let socket = UdpSocket::bind(from)?;
        socket.set_nonblocking(true)?;
        socket.connect(to)?;
        socket.send(b"weir")?;
        return Ok(Attempt::Udp(socket));
    }
    let family = match from {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    // Ends with a reset: no state stays behind, on either side.
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
    rustix::net::bind(&socket, &from)?;
    match rustix::net::connect(&socket, &to) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(Attempt::Tcp(socket)),
        Err(errno) => Err(errno.into()),
    }
}

fn failed(error: &io::Error) -> Seen {
    match error.kind() {
        ErrorKind::ConnectionRefused => Seen::Refused,
        _ => Seen::Failed(error.to_string()),
    }
}

fn connected(socket: &OwnedFd) -> Seen {
    match sockopt::socket_error(socket) {
        Ok(Ok(())) => Seen::Connected,
        Ok(Err(errno)) | Err(errno) => failed(&errno.into()),
    }
}

fn echoed(socket: &UdpSocket) -> Option<Seen> {
    match socket.recv(&mut [0; 64]) {
        Ok(_) => Some(Seen::Connected),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => Some(failed(&error)),
    }
}

fn end(attempt: Attempt) {
    if let Attempt::Tcp(socket) = attempt {
        // Dropping closes; the stream is only here to make that plain.
        drop(TcpStream::from(socket));
    }
}

fn answer(server: &Server) {
    match server {
        Server::Tcp(listener) => {
            while let Ok((stream, _)) = listener.accept() {
                drop(stream);
            }
        }
        Server::Udp(socket) => {
            let mut buffer = [0; 64];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                let _gone = socket.send_to(&buffer[..length], peer);
            }
        }
        Server::Other => {}
    }
}
