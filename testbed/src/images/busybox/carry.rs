//! Standard input to a connection, and a connection to standard output.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, Shutdown};

use crate::images::errors::strerror;
use crate::images::sockets;

/// Bytes carried in one step.
const STEP_BYTES: usize = 8192;

/// A connection, and what went over it.
pub struct Carrier {
    /// The connection.
    pub socket: OwnedFd,
    /// Pause after each line sent.
    pub interval: Option<Duration>,
    /// Bytes sent.
    pub to_peer: u64,
    /// Bytes received.
    pub from_peer: u64,
}

impl Carrier {
    /// Carries until both ends have ended, or until nothing moves for twice `wait`. Bytes sent and
    /// received.
    pub fn run(mut self, wait: Option<Duration>, verbose: u32) -> (u64, u64) {
        let stdin = io::stdin();
        let (mut input, mut peer, mut patience) = (true, true, 2);
        let limit = wait.map(sockets::timespec);
        while input || peer {
            // A descriptor that has ended is asked for nothing.
            let events = |open: bool| {
                if open {
                    PollFlags::IN
                } else {
                    PollFlags::empty()
                }
            };
            let mut fds = [
                PollFd::new(&stdin, events(input)),
                PollFd::new(&self.socket, events(peer)),
            ];
            if !input {
                fds.swap(0, 1);
            }
            let open = match (input, peer) {
                (true, true) => &mut fds[..],
                _ => &mut fds[..1],
            };
            match rustix::event::poll(open, limit.as_ref()) {
                Err(Errno::INTR) => continue,
                Err(_) => break,
                Ok(0) => {
                    patience -= 1;
                    if patience == 0 {
                        if verbose > 1 {
                            eprintln!("net timeout");
                        }
                        break;
                    }
                    continue;
                }
                Ok(_) => {}
            }
            let ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
            let (input_ready, peer_ready) = match (input, peer) {
                (true, true) => (ready(&fds[0]), ready(&fds[1])),
                (true, false) => (ready(&fds[0]), false),
                _ => (false, ready(&fds[0])),
            };
            if peer_ready {
                peer = self.receive(verbose);
            }
            if input_ready {
                input = self.send(peer);
            }
        }
        (self.to_peer, self.from_peer)
    }

    /// Whether more may come.
    fn receive(&mut self, verbose: u32) -> bool {
        let mut buffer = [0_u8; STEP_BYTES];
        match rustix::net::recv(&self.socket, &mut buffer, RecvFlags::empty()) {
            Ok((0, _)) => false,
            Ok((length, _)) => {
                self.from_peer += length as u64;
                write_all(io::stdout().as_fd(), &buffer[..length]).is_ok()
            }
            Err(error) => {
                if verbose > 1 {
                    eprintln!("nc: net read: {}", strerror(&error.into()));
                }
                false
            }
        }
    }

    /// Whether there may be more input.
    fn send(&mut self, peer: bool) -> bool {
        let mut buffer = [0_u8; STEP_BYTES];
        let length = rustix::io::read(io::stdin(), &mut buffer).unwrap_or(0);
        if length == 0 {
            let _not_connected = rustix::net::shutdown(&self.socket, Shutdown::Write);
            return false;
        }
        // With nobody to hear it, input is read and dropped.
        if peer && self.send_slowly(&buffer[..length]).is_ok() {
            self.to_peer += length as u64;
        }
        true
    }

    fn send_slowly(&self, bytes: &[u8]) -> io::Result<()> {
        let Some(interval) = self.interval else {
            return write_all(self.socket.as_fd(), bytes);
        };
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            write_all(self.socket.as_fd(), line)?;
            std::thread::sleep(interval);
        }
        Ok(())
    }
}

fn write_all(fd: std::os::fd::BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
