//! `nslookup` in the words of busybox 1.28 and before, which cluster tutorials show. It asks as
//! programs do: by the search path, of the server in `/etc/resolv.conf`.

use std::net::{IpAddr, ToSocketAddrs};

/// Runs it.
pub fn main(arguments: &[String]) -> u8 {
    let operands: Vec<&String> = arguments
        .iter()
        .filter(|word| !word.starts_with('-'))
        .collect();
    let [name] = operands[..] else {
        eprintln!(
            "Usage: nslookup HOST\n\nQuery DNS about HOST; the server is the first of \
             /etc/resolv.conf"
        );
        return 1;
    };
    if let Some(server) = std::fs::read_to_string("/etc/resolv.conf")
        .ok()
        .as_deref()
        .and_then(server)
    {
        println!("Server:    {server}\nAddress 1: {server}\n");
    }
    let addresses = addresses(name);
    if addresses.is_empty() {
        eprintln!("nslookup: can't resolve '{name}'");
        return 1;
    }
    println!("Name:      {name}");
    for (number, address) in addresses.iter().enumerate() {
        println!("Address {}: {address}", number + 1);
    }
    0
}

fn server(resolv_conf: &str) -> Option<&str> {
    resolv_conf.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next())?
    })
}

/// Each once, IPv4 first.
fn addresses(name: &str) -> Vec<IpAddr> {
    let found = (name, 0).to_socket_addrs().into_iter().flatten();
    let mut addresses = Vec::new();
    for address in found.map(|address| address.ip()) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses.sort_by_key(IpAddr::is_ipv6);
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_server_counts_and_addresses_are_their_own_names() {
        let text = "# nameserver 1.1.1.1\nsearch a b\nnameserver 10.244.0.10\nnameserver 9.9.9.9\n";
        assert_eq!(server(text), Some("10.244.0.10"));
        assert_eq!(server("search a\n"), None);
        assert_eq!(addresses("10.0.0.1"), [IpAddr::from([10, 0, 0, 1])]);
        assert!(addresses("no such name").is_empty());
    }
}
