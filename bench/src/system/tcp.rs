//! TCP between the pods' own stacks: a stream, requests and responses, connections.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::set_socket_linger;

use super::interrupt::Interrupt;
use super::setup;
use super::topology::{Pod, Topology};
use super::traffic::{histogram, pin};
use crate::error::BenchError;

const PORT: u16 = 5201;
/// Bytes of one read or write of a stream.
const STREAM_BYTES: usize = 256 << 10;
/// Bytes of a request, and of a response.
const MESSAGE_BYTES: usize = 64;
/// How long anything may take; a forwarder that passes nothing is an error, not a wait.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long the queues get to empty behind a stream.
const DRAIN: Duration = Duration::from_millis(100);
/// What is not counted: until windows are open and caches warm.
const WARM_UP: Duration = Duration::from_millis(100);

/// The cores of both ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Placement {
    /// Of who connects.
    pub client: usize,
    /// Of who listens.
    pub server: usize,
}

struct Work<'a> {
    placement: Placement,
    duration: Duration,
    interrupt: &'a Interrupt,
    stop: AtomicBool,
}

impl Work<'_> {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed) && !self.interrupt.is_set()
    }
}

/// Gigabits a second that one connection brings to the second pod.
pub fn stream(
    topology: &Topology,
    placement: Placement,
    duration: Duration,
    interrupt: &Interrupt,
) -> Result<f64, BenchError> {
    let bytes = AtomicU64::new(0);
    let serve = |mut stream: TcpStream, work: &Work<'_>| -> std::io::Result<()> {
        let mut buffer = vec![0; STREAM_BYTES];
        while work.goes_on() {
            let count = stream.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            bytes.fetch_add(count as u64, Ordering::Relaxed);
        }
        Ok(())
    };
    let call = |to: SocketAddr, work: &Work<'_>| -> Result<f64, BenchError> {
        let mut stream = connect(to)?;
        let buffer = vec![0; STREAM_BYTES];
        let (mut begun, mut before, mut warm) = (Instant::now(), 0, false);
        while work.goes_on() {
            stream.write_all(&buffer).map_err(setup)?;
            if !warm && begun.elapsed() > WARM_UP {
                (begun, before, warm) = (Instant::now(), bytes.load(Ordering::Relaxed), true);
            }
            if warm && begun.elapsed() > work.duration {
                break;
            }
        }
        let bits = (bytes.load(Ordering::Relaxed) - before) * 8;
        let rate = bits as f64 / begun.elapsed().as_secs_f64() / 1e9;
        // What is still to be sent goes with a reset, and what is under way has time to arrive: the
        // next connection's first packet would be lost in a queue full of it, and cost a second.
        set_socket_linger(&stream, Some(Duration::ZERO)).map_err(setup)?;
        drop(stream);
        std::thread::sleep(DRAIN);
        Ok(rate)
    };
    between(topology, placement, duration, interrupt, &serve, &call)
}

/// How long a request and its response take, nanoseconds; the next request follows at once.
pub fn requests(
    topology: &Topology,
    placement: Placement,
    duration: Duration,
    interrupt: &Interrupt,
) -> Result<Histogram<u64>, BenchError> {
    let serve = |mut stream: TcpStream, work: &Work<'_>| -> std::io::Result<()> {
        let mut buffer = [0; MESSAGE_BYTES];
        while work.goes_on() {
            stream.read_exact(&mut buffer)?;
            stream.write_all(&buffer)?;
        }
        Ok(())
    };
    let call = |to: SocketAddr, work: &Work<'_>| -> Result<Histogram<u64>, BenchError> {
        let mut stream = connect(to)?;
        let mut times = histogram()?;
        let mut buffer = [0; MESSAGE_BYTES];
        let begun = Instant::now();
        while work.goes_on() && begun.elapsed() < work.duration + WARM_UP {
            let sent = Instant::now();
            stream.write_all(&buffer).map_err(setup)?;
            stream.read_exact(&mut buffer).map_err(setup)?;
            if begun.elapsed() > WARM_UP {
                times.saturating_record(sent.elapsed().as_nanos() as u64);
            }
        }
        Ok(times)
    };
    between(topology, placement, duration, interrupt, &serve, &call)
}

/// Connections a second, one after the other: opened, a request and a response, reset.
pub fn connections(
    topology: &Topology,
    placement: Placement,
    duration: Duration,
    interrupt: &Interrupt,
) -> Result<f64, BenchError> {
    let serve = |mut stream: TcpStream, _: &Work<'_>| -> std::io::Result<()> {
        let mut buffer = [0; MESSAGE_BYTES];
        stream.read_exact(&mut buffer)?;
        stream.write_all(&buffer)
    };
    let call = |to: SocketAddr, work: &Work<'_>| -> Result<f64, BenchError> {
        let mut buffer = [0; MESSAGE_BYTES];
        let (begun, mut count) = (Instant::now(), 0);
        while work.goes_on() && begun.elapsed() < work.duration {
            let mut stream = connect(to)?;
            stream.write_all(&buffer).map_err(setup)?;
            stream.read_exact(&mut buffer).map_err(setup)?;
            // A reset, so that no port waits for a minute until it can be used again.
            set_socket_linger(&stream, Some(Duration::ZERO)).map_err(setup)?;
            count += 1;
        }
        Ok(f64::from(count) / begun.elapsed().as_secs_f64())
    };
    between(topology, placement, duration, interrupt, &serve, &call)
}

fn connect(to: SocketAddr) -> Result<TcpStream, BenchError> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE).map_err(setup)?;
    prepare(&stream).map_err(setup)?;
    Ok(stream)
}

fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

/// A client in the first pod and a server in the second, each on its core.
fn between<T: Send>(
    topology: &Topology,
    placement: Placement,
    duration: Duration,
    interrupt: &Interrupt,
    serve: &(impl Fn(TcpStream, &Work<'_>) -> std::io::Result<()> + Sync),
    call: &(impl Fn(SocketAddr, &Work<'_>) -> Result<T, BenchError> + Sync),
) -> Result<T, BenchError> {
    let [client, server] = [&topology.pods[0], &topology.pods[1]];
    let to = SocketAddr::from((server.party.address, PORT));
    let bound = server.namespace.run(|| TcpListener::bind(to));
    let listener = bound.map_err(setup)?.map_err(setup)?;
    listener.set_nonblocking(true).map_err(setup)?;
    let work = Work {
        placement,
        duration,
        interrupt,
        stop: AtomicBool::new(false),
    };
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| -> Result<(), BenchError> {
            place(server, work.placement.server)?;
            accept(&listener, &work, serve)
        });
        let calling = scope.spawn(|| {
            let called = place(client, work.placement.client).and_then(|()| call(to, &work));
            work.stop.store(true, Ordering::Relaxed);
            called
        });
        let called = calling
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let served = serving
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        interrupt.check()?;
        let called = called?;
        served.map(|()| called)
    })
}

fn place(pod: &Pod, core: usize) -> Result<(), BenchError> {
    pod.namespace.enter().map_err(setup)?;
    pin(core)
}

fn accept(
    listener: &TcpListener,
    work: &Work<'_>,
    serve: &impl Fn(TcpStream, &Work<'_>) -> std::io::Result<()>,
) -> Result<(), BenchError> {
    let patience = Timespec {
        tv_sec: 0,
        tv_nsec: 20_000_000,
    };
    while work.goes_on() {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let _ = poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&patience));
                continue;
            }
            Err(error) => return Err(setup(error)),
        };
        stream.set_nonblocking(false).map_err(setup)?;
        prepare(&stream).map_err(setup)?;
        // The client ends by leaving, which is no error; what it lacks it will say itself.
        let _ = serve(stream, work);
    }
    Ok(())
}
