//! Listens, and gives each connection to hyper: HTTP/1.1, bounded in number, size and time.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::daemon::Daemon;
use crate::guard::Hosts;
use crate::reach::Reach;
use crate::routes;

/// Bytes of a request's head. A longer one is answered with 431.
pub const HEAD_BYTES: usize = 16 << 10;

/// What clients may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections at once. One more is told so and closed.
    pub connections: usize,
    /// Streams of events at once, one a page. Each is a client of the daemon, which has
    /// `limits.clients` of them for all.
    pub streams: usize,
    /// How long a head may take, and a connection wait for its next one.
    pub head_time: Duration,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            connections: 64,
            streams: 16,
            head_time: Duration::from_secs(15),
        }
    }
}

/// What every connection needs.
#[derive(Debug)]
pub struct Site {
    /// The daemon.
    pub daemon: Daemon,
    /// Which hosts a browser may ask for.
    pub hosts: Hosts,
    /// Room for streams.
    pub streams: Arc<Semaphore>,
    /// Who may reach whom, of the newest generation that was asked for.
    pub reach: Reach,
    /// What clients may take.
    pub bounds: Bounds,
    listen: SocketAddr,
}

impl Site {
    /// A site that looks at the daemon behind `socket`.
    pub fn new(socket: PathBuf, listen: SocketAddr, names: Vec<String>, bounds: Bounds) -> Site {
        Site {
            daemon: Daemon::new(socket),
            hosts: Hosts::new(listen.ip(), names),
            streams: Arc::new(Semaphore::new(bounds.streams)),
            reach: Reach::default(),
            bounds,
            listen,
        }
    }

    /// The daemon's socket.
    pub fn socket(&self) -> &Path {
        self.daemon.socket()
    }
}

/// Listens and serves until the process ends. `told` hears where, once that is so.
pub fn run(site: Site, told: impl FnOnce(&Site, SocketAddr)) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(16)
        .build()?;
    runtime.block_on(async {
        let cannot = |error: std::io::Error| {
            std::io::Error::new(
                error.kind(),
                format!(
                    "cannot listen on {}: {error} (--listen takes another)",
                    site.listen
                ),
            )
        };
        let listener = TcpListener::bind(site.listen).await.map_err(cannot)?;
        told(&site, listener.local_addr()?);
        serve(listener, Arc::new(site)).await;
        Ok(())
    })
}

/// Serves what comes to the listener.
pub async fn serve(listener: TcpListener, site: Arc<Site>) {
    let connections = site.bounds.connections;
    let room = Arc::new(Semaphore::new(connections));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, or the client has gone already: others have to end first.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(permit) = room.clone().try_acquire_owned() else {
            refuse(stream, connections).await;
            continue;
        };
        let site = site.clone();
        tokio::spawn(async move {
            connection(stream, site).await;
            drop(permit);
        });
    }
}

async fn connection(stream: TcpStream, site: Arc<Site>) {
    // Events are small and wanted at once.
    let _ = stream.set_nodelay(true);
    let head_time = site.bounds.head_time;
    let service = service_fn(move |request: Request<Incoming>| {
        let site = site.clone();
        async move { Ok::<_, Infallible>(routes::answer(&site, request).await) }
    });
    // What goes wrong with a connection is between hyper and the client.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_time)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// Says that there is no room, if the client's own buffer takes it.
async fn refuse(stream: TcpStream, connections: usize) {
    let text = format!("{connections} connections are open, which is all there can be\n");
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{text}",
        text.len()
    );
    if stream.writable().await.is_ok() {
        let _ = stream.try_write(answer.as_bytes());
    }
}
