//! Names to addresses, as busybox looks them up.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

/// Why there is no address.
#[derive(Debug, PartialEq, Eq)]
pub struct BadAddress(pub String);

impl std::fmt::Display for BadAddress {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "bad address '{}'", self.0)
    }
}

/// The address of `host`, which may carry a port of its own (`host:port`, `[address]:port`) and
/// may be an IPv6 address without brackets. IPv4 comes first where a name has both families.
pub fn address(host: &str, port: u16) -> Result<SocketAddr, BadAddress> {
    let (name, port) = split(host, port).ok_or_else(|| BadAddress(host.to_owned()))?;
    if let Ok(literal) = name.parse::<IpAddr>() {
        return Ok(SocketAddr::new(literal, port));
    }
    let bad = || BadAddress(name.to_owned());
    let found: Vec<SocketAddr> = (name, port).to_socket_addrs().map_err(|_| bad())?.collect();
    let first_v4 = found.iter().find(|address| address.is_ipv4());
    first_v4.or(found.first()).copied().ok_or_else(bad)
}

fn split(host: &str, port: u16) -> Option<(&str, u16)> {
    if let Some(inner) = host.strip_prefix('[') {
        let (name, after) = inner.split_once(']')?;
        return match after {
            "" => Some((name, port)),
            after => Some((name, after.strip_prefix(':')?.parse().ok()?)),
        };
    }
    match host.split_once(':') {
        Some((name, number)) if !number.contains(':') => Some((name, number.parse().ok()?)),
        _ => Some((host, port)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_may_carry_their_port() {
        for (host, expected) in [
            ("10.1.2.3", "10.1.2.3:80"),
            ("10.1.2.3:8888", "10.1.2.3:8888"),
            ("fd00::1", "[fd00::1]:80"),
            ("[fd00::1]", "[fd00::1]:80"),
            ("[fd00::1]:8888", "[fd00::1]:8888"),
        ] {
            assert_eq!(address(host, 80).unwrap().to_string(), expected);
        }
        assert_eq!(
            address("[::1", 80).unwrap_err().to_string(),
            "bad address '[::1'"
        );
    }
}
