//! Sockets with the choices that programs' options give.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

/// A socket of the family of `address`, with `SO_REUSEADDR`.
pub fn socket(address: &SocketAddr, kind: SocketType) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    Ok(socket)
}

/// Any address of the family of `other`.
pub fn unspecified(other: &SocketAddr, port: u16) -> SocketAddr {
    match other {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, port).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, port).into(),
    }
}

/// Connects, from `local` where it is given, within `limit` where one is given: else for as long
/// as the kernel tries.
pub fn connect(
    remote: SocketAddr,
    local: Option<SocketAddr>,
    kind: SocketType,
    limit: Option<Duration>,
) -> io::Result<OwnedFd> {
    let socket = socket(&remote, kind)?;
    if let Some(local) = local {
        rustix::net::bind(&socket, &local)?;
    }
    connect_within(&socket, remote, limit)?;
    Ok(socket)
}

/// Connects a socket within `limit` where one is given.
pub fn connect_within(
    socket: &OwnedFd,
    remote: SocketAddr,
    limit: Option<Duration>,
) -> io::Result<()> {
    let Some(limit) = limit else {
        return Ok(rustix::net::connect(socket, &remote)?);
    };
    rustix::io::ioctl_fionbio(socket, true)?;
    match rustix::net::connect(socket, &remote) {
        Ok(()) => {}
        Err(Errno::INPROGRESS) => {
            if !wait(socket, PollFlags::OUT, Some(limit))? {
                return Err(Errno::TIMEDOUT.into());
            }
            sockopt::socket_error(socket)??;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(rustix::io::ioctl_fionbio(socket, false)?)
}

/// Waits until something can be done with the descriptor; false when `limit` passes first.
pub fn wait(
    descriptor: impl std::os::fd::AsFd,
    flags: PollFlags,
    limit: Option<Duration>,
) -> io::Result<bool> {
    let deadline = limit.map(|limit| Instant::now() + limit);
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let mut fds = [PollFd::new(&descriptor, flags)];
        match rustix::event::poll(&mut fds, left.map(timespec).as_ref()) {
            Ok(0) if left.is_some_and(|left| left.is_zero()) => return Ok(false),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

/// A duration as the kernel takes it.
pub fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: duration.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn connections_succeed_are_refused_or_time_out() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let limit = Some(Duration::from_secs(5));
        connect(address, None, SocketType::STREAM, limit).unwrap();
        drop(listener);
        let refused = connect(address, None, SocketType::STREAM, limit).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let (silent, _far) = rustix_pair();
        assert!(!wait(&silent, PollFlags::IN, Some(Duration::from_millis(1))).unwrap());
    }

    fn rustix_pair() -> (OwnedFd, OwnedFd) {
        let flags = SocketFlags::CLOEXEC;
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap()
    }
}
