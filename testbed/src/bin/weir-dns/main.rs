//! `weir-dns`: the lab's DNS server.
//!
//! It answers from a file of records that the lab's agent replaces ([`testbed::dns`]), over UDP
//! and TCP. It asks nobody: a name that the file does not have does not exist, inside the cluster
//! and outside, so that a search path's wrong turns end at once.

mod file;
mod server;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use tokio::net::{TcpListener, UdpSocket};

/// Ports of one number that are tried when any will do: TCP's is free, UDP's may not be.
const ATTEMPTS: usize = 16;

/// Answers DNS questions from a file
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The records; replaced by renaming, looked at for every question
    #[arg(long, value_name = "FILE")]
    records: PathBuf,
    /// Address and port to serve, UDP and TCP; again for more [default: every address, port 53]
    #[arg(long, value_name = "ADDR")]
    listen: Vec<SocketAddr>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let ended = runtime.and_then(|runtime| runtime.block_on(run(arguments)));
    if let Err(error) = ended {
        eprintln!("error: {error}");
    }
    // It serves until it is killed: an end is a failure.
    ExitCode::FAILURE
}

async fn run(arguments: Arguments) -> io::Result<()> {
    let mut sockets = Vec::new();
    if arguments.listen.is_empty() {
        sockets.push(bind(everywhere()).await?);
    }
    for address in arguments.listen {
        sockets.push(bind(address).await?);
    }
    let records = Arc::new(file::RecordsFile::new(arguments.records));
    records.current();
    for (_, tcp) in &sockets {
        println!("serving {} UDP and TCP", tcp.local_addr()?);
    }
    server::serve(&records, sockets).await
}

/// Port 53 of every address, of both families where the kernel has both.
fn everywhere() -> SocketAddr {
    let no_ipv6 = |error: &io::Error| {
        error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
    };
    match std::net::UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)) {
        Err(error) if no_ipv6(&error) => (Ipv4Addr::UNSPECIFIED, 53).into(),
        _ => (Ipv6Addr::UNSPECIFIED, 53).into(),
    }
}

/// Binds both protocols to one port.
async fn bind(address: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut attempts = if address.port() == 0 { ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        let both = bind_once(address).await;
        if attempts == 0 || both.is_ok() {
            return both.map_err(|error| {
                io::Error::new(error.kind(), format!("cannot serve {address}: {error}"))
            });
        }
    }
}

async fn bind_once(address: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let tcp = TcpListener::bind(address).await?;
    let udp = UdpSocket::bind(tcp.local_addr()?).await?;
    Ok((udp, tcp))
}
