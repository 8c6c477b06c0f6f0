//! `weir-ui`: the page, as `weir ui` runs it.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use control::cli::session::daemon_socket;
use ui::server::{self, Bounds, Site};

/// A page that shows who talks to whom, what is denied and why, and who may reach whom; and the
/// daemon's metrics at /metrics. It only looks: nothing that it serves changes anything.
#[derive(Parser)]
#[command(name = "weir ui", bin_name = "weir ui")]
struct Arguments {
    /// Address and port to listen on. Whoever can reach it sees what the socket shows
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8844")]
    listen: SocketAddr,
    /// A host name that browsers may ask for besides localhost and addresses; may be repeated
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,
    /// The lab that is meant; default: WEIR_LAB's, or the only one that runs
    #[arg(long, value_name = "NAME")]
    lab: Option<String>,
    /// The daemon's socket
    #[arg(long, value_name = "PATH", conflicts_with = "lab")]
    socket: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let socket = match daemon_socket(arguments.socket.as_deref(), arguments.lab.as_deref()) {
        Ok(socket) => socket,
        Err(error) => return error.report("ui"),
    };
    if !arguments.listen.ip().is_loopback() {
        eprintln!(
            "Warning: whoever can reach {} sees every flow and policy, without a password",
            arguments.listen
        );
    }
    let site = Site::new(
        socket,
        arguments.listen,
        arguments.allow_host,
        Bounds::default(),
    );
    let told = |site: &Site, address: SocketAddr| {
        println!("http://{address}/ shows {}", site.socket().display());
    };
    match server::run(site, told) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
