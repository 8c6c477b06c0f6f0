//! `nc` as busybox has it when it is built with all of it: what Debian's busybox lacks.
//!
//! One connection at a time, as the original: `-k` with `-e` gives each a process of its own, at
//! most [`CHILDREN`] at once. `-n` still resolves names, as busybox's does. Peers are told by
//! address: no name is looked up for them.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::net::SocketType;
use signal_hook::consts::{SIGINT, SIGQUIT, SIGTERM};

use super::carry::Carrier;
use crate::images::errors::strerror;
use crate::images::options::{Argument, Syntax};
use crate::images::{resolve, sockets};

/// Programs that `-l -k -e` runs at once; further connections wait in the listener's queue.
const CHILDREN: usize = 256;

const USAGE: &str = "\
Usage: nc [OPTIONS] HOST PORT  - connect
nc [OPTIONS] -l -p PORT [HOST] [PORT]  - listen

\t-e PROG\tRun PROG after connect (must be last)
\t-l\tListen mode, for inbound connects
\t-lk\tWith -e, provides persistent server
\t-p PORT\tLocal port
\t-s ADDR\tLocal address
\t-w SEC\tTimeout for connects and final net reads
\t-i SEC\tDelay interval for lines sent
\t-n\tDon't do DNS resolution
\t-u\tUDP mode
\t-b\tAllow broadcasts
\t-v\tVerbose
\t-z\tZero-I/O mode (scanning)";

const SYNTAX: Syntax = Syntax {
    short: "np:s:ubvw:lki:z",
    long: &[],
};

/// What a command line asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    udp: bool,
    broadcast: bool,
    verbose: u32,
    wait: Option<Duration>,
    listen: bool,
    persistent: bool,
    zero: bool,
    interval: Option<Duration>,
    local_port: Option<String>,
    local_address: Option<String>,
    operands: Vec<String>,
    program: Vec<String>,
}

/// Runs it.
pub fn main(arguments: &[String]) -> u8 {
    let plan = match Plan::read(arguments) {
        Ok(plan) => plan,
        Err(wrong) => {
            eprintln!("nc: {wrong}\n{USAGE}");
            return 1;
        }
    };
    punt_on_signals();
    match plan.run() {
        Ok(code) => code,
        Err(message) => {
            eprintln!("nc: {message}");
            1
        }
    }
}

/// Says so when it is interrupted.
fn punt_on_signals() {
    let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGINT, SIGQUIT, SIGTERM]) else {
        return;
    };
    std::thread::spawn(move || {
        for signal in signals.forever() {
            eprintln!("punt!");
            let _ends_us = signal_hook::low_level::emulate_default_handler(signal);
        }
    });
}

impl Plan {
    fn read(arguments: &[String]) -> Result<Plan, String> {
        let (arguments, program) = split_program(arguments);
        let mut plan = Plan {
            program,
            ..Plan::default()
        };
        for argument in SYNTAX.read(&arguments)? {
            match argument {
                Argument::Operand(operand) => plan.operands.push(operand),
                Argument::Option(letter, value) => plan.set(letter, value.unwrap_or_default())?,
            }
        }
        if plan.operands.len() > 2 || (plan.operands.is_empty() && !plan.listen) {
            return Err("wrong number of operands".into());
        }
        Ok(plan)
    }

    fn set(&mut self, letter: char, value: String) -> Result<(), String> {
        let seconds = |value: &str| {
            let number: Option<u32> = value.parse().ok();
            let number = number.ok_or_else(|| format!("invalid number '{value}'"))?;
            Ok::<_, String>((number > 0).then(|| Duration::from_secs(number.into())))
        };
        match letter {
            // Names are resolved all the same.
            'n' => {}
            'u' => self.udp = true,
            'b' => self.broadcast = true,
            'v' => self.verbose += 1,
            'z' => self.zero = true,
            'l' => self.listen = true,
            'k' => (self.listen, self.persistent) = (true, true),
            'w' => self.wait = seconds(&value)?,
            'i' => self.interval = seconds(&value)?,
            'p' => self.local_port = Some(value),
            _ => self.local_address = Some(value),
        }
        Ok(())
    }

    fn kind(&self) -> SocketType {
        match self.udp {
            true => SocketType::DGRAM,
            false => SocketType::STREAM,
        }
    }

    fn run(&self) -> Result<u8, String> {
        let local_port = match &self.local_port {
            Some(text) => port_number(text, self.udp)?,
            None => 0,
        };
        let remote = match self.operands.as_slice() {
            [] => None,
            [host, port @ ..] => {
                let port = port
                    .first()
                    .map_or(Ok(0), |text| port_number(text, self.udp))?;
                Some(resolve::address(host, port).map_err(|bad| bad.to_string())?)
            }
        };
        let local = match &self.local_address {
            Some(host) => Some(resolve::address(host, local_port).map_err(|bad| bad.to_string())?),
            None => None,
        };
        match (self.listen, remote) {
            (true, remote) => self.listen(local, local_port, remote),
            (false, Some(remote)) => {
                let port = (local_port != 0).then(|| sockets::unspecified(&remote, local_port));
                Ok(self.connect(remote, local.or(port)))
            }
            (false, None) => Err(USAGE.into()),
        }
    }

    fn connect(&self, remote: SocketAddr, local: Option<SocketAddr>) -> u8 {
        let host = &self.operands[0];
        let connected = sockets::connect(remote, local, self.kind(), self.wait)
            .and_then(|socket| self.scan_datagrams(&socket, remote).map(|()| socket));
        let socket = match connected {
            Ok(socket) => socket,
            Err(error) => {
                let refused = error.kind() == io::ErrorKind::ConnectionRefused;
                // A scan that says -v once hears of refusals by the exit status only.
                if self.verbose > 1 || (self.verbose == 1 && !refused) {
                    eprintln!("nc: {host} ({remote}): {}", strerror(&error));
                }
                return 1;
            }
        };
        if self.verbose > 0 {
            eprintln!("{host} ({remote}) open");
        }
        if !self.program.is_empty() {
            return self.become_program(socket);
        }
        if self.zero {
            return 0;
        }
        self.carry(socket)
    }

    /// `-u -z`: two datagrams, and a pause between them in which a refusal would come back.
    fn scan_datagrams(&self, socket: &OwnedFd, remote: SocketAddr) -> io::Result<()> {
        if !self.udp || !self.zero {
            return Ok(());
        }
        if self.broadcast {
            rustix::net::sockopt::set_socket_broadcast(socket, true)?;
        }
        rustix::io::write(socket, &[0])?;
        match self.wait {
            Some(wait) => std::thread::sleep(wait),
            // A connection that is most probably refused takes one round trip.
            None => {
                let other = SocketAddr::new(remote.ip(), 31337);
                let limit = Some(Duration::from_secs(5));
                let _refused = sockets::connect(other, None, SocketType::STREAM, limit);
            }
        }
        rustix::io::write(socket, &[0])?;
        Ok(())
    }

    fn listen(
        &self,
        local: Option<SocketAddr>,
        port: u16,
        remote: Option<SocketAddr>,
    ) -> Result<u8, String> {
        let text = |error: io::Error| format!("bind: {}", strerror(&error));
        let local = local.map_or_else(
            || match remote {
                Some(remote) => vec![sockets::unspecified(&remote, port)],
                None => vec![
                    SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
                    SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
                ],
            },
            |local| vec![local],
        );
        let socket = bind_first(&local, self.kind()).map_err(text)?;
        if self.udp {
            let socket = UdpSocket::from(socket);
            let bound = socket.local_addr().map_err(text)?;
            self.announce(bound);
            return self.listen_for_datagrams(socket, remote);
        }
        rustix::net::listen(&socket, 1).map_err(|error| text(error.into()))?;
        let listener = TcpListener::from(socket);
        let bound = listener.local_addr().map_err(text)?;
        self.announce(bound);
        self.accept(&listener, remote)
    }

    fn announce(&self, bound: SocketAddr) {
        if self.verbose > 0 {
            eprintln!("listening on {bound} ...");
        }
    }

    fn accept(&self, listener: &TcpListener, wanted: Option<SocketAddr>) -> Result<u8, String> {
        let running = Arc::new(AtomicUsize::new(0));
        loop {
            while running.load(Ordering::Acquire) >= CHILDREN {
                std::thread::sleep(Duration::from_millis(5));
            }
            if !sockets::wait(listener, PollFlags::IN, self.wait)
                .map_err(|error| format!("accept: {}", strerror(&error)))?
            {
                return Err("timeout".into());
            }
            let (stream, peer) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(format!("accept: {}", strerror(&error))),
            };
            if wanted.is_some_and(|wanted| !is_same(wanted, peer)) {
                if self.verbose > 0 {
                    eprintln!("nc: connect from wrong ip/port {peer} ignored");
                }
                continue;
            }
            self.tell_connection(&stream, peer);
            if !self.program.is_empty() && self.persistent {
                self.serve(stream, &running);
                continue;
            }
            let socket = OwnedFd::from(stream);
            return Ok(match self.program.is_empty() {
                true => self.carry(socket),
                false => self.become_program(socket),
            });
        }
    }

    fn tell_connection(&self, stream: &TcpStream, peer: SocketAddr) {
        if self.verbose > 0
            && let Ok(own) = stream.local_addr()
        {
            eprintln!("connect to {own} from {peer} ({peer})");
        }
    }

    /// Runs the program for one connection of several.
    fn serve(&self, stream: TcpStream, running: &Arc<AtomicUsize>) {
        let socket = OwnedFd::from(stream);
        match self.command(socket).and_then(|mut command| command.spawn()) {
            Ok(mut child) => {
                running.fetch_add(1, Ordering::AcqRel);
                let running = running.clone();
                std::thread::spawn(move || {
                    let _status = child.wait();
                    running.fetch_sub(1, Ordering::AcqRel);
                });
            }
            Err(error) => eprintln!("nc: {}", self.cannot_run(&error)),
        }
    }

    fn command(&self, socket: OwnedFd) -> io::Result<Command> {
        let mut command = Command::new(&self.program[0]);
        command.args(&self.program[1..]);
        command.stdin(socket.try_clone()?).stdout(socket);
        Ok(command)
    }

    fn become_program(&self, socket: OwnedFd) -> u8 {
        let error = match self.command(socket) {
            Ok(mut command) => command.exec(),
            Err(error) => error,
        };
        eprintln!("nc: {}", self.cannot_run(&error));
        match error.kind() {
            io::ErrorKind::NotFound => 127,
            _ => 126,
        }
    }

    fn cannot_run(&self, error: &io::Error) -> String {
        format!("can't execute '{}': {}", self.program[0], strerror(error))
    }

    fn listen_for_datagrams(
        &self,
        socket: UdpSocket,
        wanted: Option<SocketAddr>,
    ) -> Result<u8, String> {
        let text = |error: io::Error| format!("recvfrom: {}", strerror(&error));
        if let Some(wanted) = wanted {
            socket.connect(wanted).map_err(text)?;
        }
        if !sockets::wait(&socket, PollFlags::IN, self.wait).map_err(text)? {
            return Err("timeout".into());
        }
        let (_, peer) = socket.peek_from(&mut [0]).map_err(text)?;
        if wanted.is_none() {
            socket.connect(peer).map_err(text)?;
        }
        if self.verbose > 0 {
            let own = socket.local_addr().map_err(text)?;
            eprintln!("connect to {own} from {peer} ({peer})");
        }
        let socket = OwnedFd::from(socket);
        Ok(match self.program.is_empty() {
            true => self.carry(socket),
            false => self.become_program(socket),
        })
    }

    /// Carries standard input to the peer and what the peer sends to standard output, until both
    /// have ended, or until nothing moves for twice the time of `-w` once input has ended.
    fn carry(&self, socket: OwnedFd) -> u8 {
        if let Some(interval) = self.interval {
            std::thread::sleep(interval);
        }
        let carried = Carrier {
            socket,
            interval: self.interval,
            to_peer: 0,
            from_peer: 0,
        }
        .run(self.wait, self.verbose);
        if self.verbose > 1 {
            let (sent, received) = carried;
            eprintln!("sent {sent}, rcvd {received}");
        }
        0
    }
}

/// The first of the addresses that can be bound: IPv6's serves both families where there is one.
fn bind_first(addresses: &[SocketAddr], kind: SocketType) -> io::Result<OwnedFd> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        let bound = sockets::socket(address, kind).and_then(|socket| {
            rustix::net::bind(&socket, address)?;
            Ok(socket)
        });
        match bound {
            Ok(socket) => return Ok(socket),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Whether a connection comes from whom `-l` was told to wait for; port 0 is any.
fn is_same(wanted: SocketAddr, peer: SocketAddr) -> bool {
    wanted.ip() == peer.ip().to_canonical() && [0, peer.port()].contains(&wanted.port())
}

fn port_number(text: &str, udp: bool) -> Result<u16, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let protocol = if udp { "/udp" } else { "/tcp" };
    let services = std::fs::read_to_string("/etc/services").unwrap_or_default();
    services
        .lines()
        .find_map(|line| {
            let mut words = line.split('#').next()?.split_whitespace();
            let (name, number) = (words.next()?, words.next()?);
            let named = name == text || words.any(|alias| alias == text);
            let number = number.strip_suffix(protocol).filter(|_| named)?;
            number.parse().ok()
        })
        .ok_or_else(|| format!("bad port '{text}'"))
}

/// Cuts `-e PROGRAM ARGUMENT…` off, which may also be the last letter of joined options.
fn split_program(arguments: &[String]) -> (Vec<String>, Vec<String>) {
    let ends_options = |argument: &String| {
        let letters = argument.strip_prefix('-')?.strip_suffix('e')?;
        letters
            .chars()
            .all(|letter| "nuvlkz".contains(letter))
            .then(|| letters.to_owned())
    };
    for (at, argument) in arguments.iter().enumerate() {
        if let Some(letters) = ends_options(argument) {
            let mut before = arguments[..at].to_vec();
            if !letters.is_empty() {
                before.push(format!("-{letters}"));
            }
            return (before, arguments[at + 1..].to_vec());
        }
    }
    (arguments.to_vec(), Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(line: &str) -> Plan {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        Plan::read(&words).unwrap()
    }

    fn words(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn command_lines_of_tutorials_are_understood() {
        let listen = plan("-vlkp 8888 -e /bin/sh");
        let expected = Plan {
            verbose: 1,
            listen: true,
            persistent: true,
            local_port: Some("8888".into()),
            program: words(&["/bin/sh"]),
            ..Plan::default()
        };
        assert_eq!(listen, expected);
        let scan = plan("-znv -w 2 10.0.0.1 8888");
        let expected = Plan {
            verbose: 1,
            zero: true,
            wait: Some(Duration::from_secs(2)),
            operands: words(&["10.0.0.1", "8888"]),
            ..Plan::default()
        };
        assert_eq!(scan, expected);
        assert_eq!(plan("-zv -w2 a 1").wait, Some(Duration::from_secs(2)));
        assert_eq!(plan("-lve cat -n").program, words(&["cat", "-n"]));
        assert_eq!(plan("a 1 -e").program, words(&[]));
    }

    #[test]
    fn wrong_command_lines_are_refused() {
        for line in ["", "-v", "a 1 2", "-w x a 1", "-q a 1"] {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            assert!(Plan::read(&words).is_err(), "{line}");
        }
    }

    #[test]
    fn ports_may_be_named() {
        assert_eq!(port_number("8888", false), Ok(8888));
        assert_eq!(port_number("65536", false), Err("bad port '65536'".into()));
        assert_eq!(
            port_number("no such", true),
            Err("bad port 'no such'".into())
        );
    }

    #[test]
    fn the_one_whom_it_waits_for_is_known_by_address_and_port() {
        let peer: SocketAddr = "[::ffff:10.0.0.1]:4000".parse().unwrap();
        assert!(is_same("10.0.0.1:0".parse().unwrap(), peer));
        assert!(is_same("10.0.0.1:4000".parse().unwrap(), peer));
        assert!(!is_same("10.0.0.1:4001".parse().unwrap(), peer));
        assert!(!is_same("10.0.0.2:0".parse().unwrap(), peer));
    }
}
