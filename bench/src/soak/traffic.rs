//! What the pods send each other: everything that a node sees in a day, in minutes.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use control::netlink::Namespace;
use rustix::net::sockopt::set_socket_recv_buffer_size_force;

use super::node::Pod;
use super::setup;
use crate::cluster::Numbers;
use crate::error::BenchError;

/// Where servers listen.
const PORT: u16 = 8080;
/// Where nobody does.
const CLOSED: u16 = 8081;
/// How long anything is waited for. Policies come and go, so much of it never comes.
const PATIENCE: Duration = Duration::from_millis(150);
/// The most that a connection carries each way.
const STREAM_BYTES: u32 = 1 << 20;
/// Pauses of the watched flow: 5,000 datagrams a second.
const STEADY: Duration = Duration::from_micros(200);

/// What may wait at its receiver.
const WATCHED_BYTES: usize = 16 << 20;

/// What has happened, by all threads.
#[derive(Debug, Default)]
pub struct Tally {
    /// TCP connections that carried all they were to carry.
    pub streams: AtomicU64,
    /// Bytes that came back by these, each compared.
    pub bytes: AtomicU64,
    /// Connections that were refused, cut or silent: policies come and go.
    pub cut: AtomicU64,
    /// Datagrams sent, and echoes of them that came back unharmed.
    pub datagrams: AtomicU64,
    /// See `datagrams`.
    pub echoes: AtomicU64,
    /// Echo requests sent by `ping`, small and of several fragments.
    pub pings: AtomicU64,
    /// Attempts to reach the pod that policy shuts.
    pub denied: AtomicU64,
    /// What reached it all the same. Must stay 0.
    pub leaked: AtomicU64,
    /// Bytes or datagrams that came back changed. Must stay 0.
    pub harmed: AtomicU64,
    /// Datagrams of the watched flow that were sent.
    pub steady_sent: AtomicU64,
    /// And that arrived.
    pub steady_received: AtomicU64,
    /// The longest time in which none arrived, microseconds.
    pub steady_gap: AtomicU64,
}

/// Adds one.
pub fn count(word: &AtomicU64) {
    word.fetch_add(1, Ordering::Relaxed);
}

/// Threads that end when it is dropped.
#[derive(Debug, Default)]
pub struct Threads {
    stop: Arc<AtomicBool>,
    handles: Vec<JoinHandle<()>>,
}

impl Threads {
    fn start(&mut self, mut step: impl FnMut() + Send + 'static) {
        let stop = Arc::clone(&self.stop);
        self.handles.push(spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                step();
            }
        }));
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for handle in self.handles.drain(..) {
            let _ = handle.join();
        }
    }
}

fn udp(namespace: &Namespace, port: u16) -> Result<UdpSocket, BenchError> {
    let bind = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok::<_, std::io::Error>(socket)
    };
    namespace.run(bind).map_err(setup)?.map_err(setup)
}

/// Serves both protocols in a pod: sends back what comes.
pub fn serve(pod: &Pod) -> Result<Threads, BenchError> {
    let mut threads = Threads::default();
    let socket = udp(&pod.namespace, PORT)?;
    let mut buffer = vec![0; 1 << 16];
    threads.start(move || {
        if let Ok((bytes, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..bytes], from);
        }
    });
    let listener = listen(pod)?;
    threads.start(move || match listener.accept() {
        Ok((stream, _)) => drop(spawn(move || echo(stream))),
        Err(_) => std::thread::sleep(Duration::from_millis(2)),
    });
    Ok(threads)
}

fn listen(pod: &Pod) -> Result<TcpListener, BenchError> {
    let bind = || TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT));
    let listener = pod.namespace.run(bind).map_err(setup)?.map_err(setup)?;
    listener.set_nonblocking(true).map_err(setup)?;
    Ok(listener)
}

fn echo(mut stream: TcpStream) {
    let _ = stream.set_nonblocking(false);
    let _ = stream.set_read_timeout(Some(4 * PATIENCE));
    let _ = stream.set_write_timeout(Some(4 * PATIENCE));
    let mut buffer = vec![0; 1 << 16];
    while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..bytes]).is_err() {
            return;
        }
    }
}

/// A pod that nothing may reach: counts what does.
pub fn vault(pod: &Pod, tally: &Arc<Tally>) -> Result<Threads, BenchError> {
    let mut threads = Threads::default();
    let (socket, own) = (udp(&pod.namespace, PORT)?, Arc::clone(tally));
    threads.start(move || {
        if socket.recv(&mut [0; 64]).is_ok() {
            count(&own.leaked);
        }
    });
    let (listener, own) = (listen(pod)?, Arc::clone(tally));
    threads.start(move || match listener.accept() {
        Ok(_) => count(&own.leaked),
        Err(_) => std::thread::sleep(Duration::from_millis(2)),
    });
    Ok(threads)
}

/// Numbered datagrams from a pod to another, of which no policy speaks: none may be lost.
pub fn steady(from: &Pod, to: &Pod, tally: &Arc<Tally>) -> Result<[Threads; 2], BenchError> {
    let [mut sending, mut receiving] = [Threads::default(), Threads::default()];
    let (socket, own) = (udp(&to.namespace, PORT)?, Arc::clone(tally));
    // What this thread leaves lying while it is not let run is not the daemon's to lose.
    set_socket_recv_buffer_size_force(&socket, WATCHED_BYTES).map_err(setup)?;
    let mut last: Option<Instant> = None;
    receiving.start(move || {
        if socket.recv(&mut [0; 64]).is_ok() {
            let now = Instant::now();
            if let Some(last) = last.replace(now) {
                let gap = (now - last).as_micros() as u64;
                own.steady_gap.fetch_max(gap, Ordering::Relaxed);
            }
            count(&own.steady_received);
        }
    });
    let (socket, own) = (udp(&from.namespace, 0)?, Arc::clone(tally));
    socket.connect((to.address, PORT)).map_err(setup)?;
    let mut next = Instant::now();
    sending.start(move || {
        if socket.send(&[7; 64]).is_ok() {
            count(&own.steady_sent);
        }
        // One that was held up sends no burst afterwards.
        next = (next + STEADY).max(Instant::now());
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    });
    Ok([sending, receiving])
}

/// Sends whatever a pod may send, to whom `targets` names, until it is dropped.
pub fn client(
    pod: &Pod,
    targets: Vec<Ipv4Addr>,
    vault: Ipv4Addr,
    seed: u64,
    tally: &Arc<Tally>,
) -> Result<Threads, BenchError> {
    let mut threads = Threads::default();
    let namespace = || Namespace::open(&pod.network).map_err(setup);
    for (number, act) in (0..).zip([stream, brief, datagrams, ping, denied]) {
        let mut actor = Actor {
            namespace: namespace()?,
            network: pod.network.clone(),
            targets: targets.clone(),
            vault,
            numbers: Numbers(seed ^ number << 32),
            tally: Arc::clone(tally),
        };
        threads.start(move || act(&mut actor));
    }
    Ok(threads)
}

struct Actor {
    namespace: Namespace,
    network: String,
    targets: Vec<Ipv4Addr>,
    vault: Ipv4Addr,
    numbers: Numbers,
    tally: Arc<Tally>,
}

impl Actor {
    fn target(&mut self) -> Ipv4Addr {
        let number = self.numbers.below(self.targets.len() as u32);
        self.targets[number as usize]
    }

    fn connect(&self, to: Ipv4Addr) -> std::io::Result<TcpStream> {
        let target = SocketAddr::from((to, PORT));
        let connected = self.namespace.run(|| {
            let stream = TcpStream::connect_timeout(&target, PATIENCE)?;
            stream.set_read_timeout(Some(2 * PATIENCE))?;
            stream.set_write_timeout(Some(2 * PATIENCE))?;
            Ok(stream)
        });
        connected.unwrap_or_else(|error| Err(std::io::Error::other(error)))
    }
}

/// A connection with some data each way.
fn stream(actor: &mut Actor) {
    let (target, size) = (actor.target(), actor.numbers.below(STREAM_BYTES) + 1);
    let block: Vec<u8> = (0..1u32 << 14).map(|at| (at * 31 % 251) as u8).collect();
    let moved = actor.connect(target).and_then(|mut stream| {
        let mut back = vec![0; block.len()];
        let mut left = size as usize;
        while left > 0 {
            let part = left.min(block.len());
            stream.write_all(&block[..part])?;
            stream.read_exact(&mut back[..part])?;
            if back[..part] != block[..part] {
                return Err(ErrorKind::InvalidData.into());
            }
            left -= part;
        }
        Ok(())
    });
    match moved {
        Ok(()) => {
            count(&actor.tally.streams);
            actor.tally.bytes.fetch_add(size.into(), Ordering::Relaxed);
        }
        Err(error) if error.kind() == ErrorKind::InvalidData => count(&actor.tally.harmed),
        Err(_) => count(&actor.tally.cut),
    }
}

/// Connections as short as there are, a few at a time.
fn brief(actor: &mut Actor) {
    for _ in 0..20 {
        let target = actor.target();
        let moved = actor.connect(target).and_then(|mut stream| {
            stream.write_all(b"x")?;
            stream.read_exact(&mut [0])
        });
        match moved {
            Ok(()) => count(&actor.tally.streams),
            Err(_) => {
                count(&actor.tally.cut);
                return;
            }
        }
    }
    std::thread::sleep(Duration::from_millis(5));
}

/// A burst of datagrams of all sizes, some to a port where nobody listens.
fn datagrams(actor: &mut Actor) {
    let Ok(socket) = udp(&actor.namespace, 0) else {
        return;
    };
    let target = actor.target();
    let port = if actor.numbers.below(8) == 0 {
        CLOSED
    } else {
        PORT
    };
    if socket.connect((target, port)).is_err() {
        return;
    }
    let sent: Vec<Vec<u8>> = (0..16)
        .map(|_| vec![actor.numbers.below(256) as u8; actor.numbers.below(1400) as usize + 1])
        .collect();
    for datagram in &sent {
        if socket.send(datagram).is_ok() {
            count(&actor.tally.datagrams);
        }
    }
    let mut buffer = vec![0; 2048];
    for _ in &sent {
        match socket.recv(&mut buffer) {
            Ok(bytes) if sent.iter().any(|one| one == &buffer[..bytes]) => {
                count(&actor.tally.echoes);
            }
            Ok(_) => count(&actor.tally.harmed),
            Err(_) => return,
        }
    }
    std::thread::sleep(Duration::from_millis(2));
}

/// Echo requests, small ones and such as do not fit a packet.
fn ping(actor: &mut Actor) {
    let target = actor.target().to_string();
    let size = ["56", "1400", "3000"][actor.numbers.below(3) as usize];
    let mut command = Command::new("ip");
    command
        .args([
            "netns",
            "exec",
            &actor.network,
            "ping",
            "-nqc5",
            "-i0.05",
            "-W1",
        ])
        .args(["-s", size, &target])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if command.status().is_ok() {
        actor.tally.pings.fetch_add(5, Ordering::Relaxed);
    }
    std::thread::sleep(Duration::from_millis(50));
}

/// What policy forbids, always.
fn denied(actor: &mut Actor) {
    if let Ok(socket) = udp(&actor.namespace, 0) {
        for _ in 0..8 {
            let _ = socket.send_to(b"let me in", (actor.vault, PORT));
            count(&actor.tally.denied);
        }
    }
    if actor.connect(actor.vault).is_ok() {
        count(&actor.tally.leaked);
    }
    count(&actor.tally.denied);
}
