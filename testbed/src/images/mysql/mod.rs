//! MySQL's protocol (MySQL 8's "Client/Server Protocol"): [`server`] stands in for `mysql` and
//! `mariadb`, [`client`] is how other stand-ins ask it.

pub mod client;
mod packet;
pub mod server;

use super::digest::{sha1, sha256};

/// Log in by SHA-1.
pub const NATIVE: &str = "mysql_native_password";
/// Log in by SHA-256, MySQL 8's own.
pub const CACHING_SHA2: &str = "caching_sha2_password";

/// What both ends say that they can do.
mod capability {
    pub const LONG_PASSWORD: u32 = 1;
    pub const LONG_FLAG: u32 = 1 << 2;
    pub const CONNECT_WITH_DB: u32 = 1 << 3;
    pub const PROTOCOL_41: u32 = 1 << 9;
    pub const TRANSACTIONS: u32 = 1 << 13;
    pub const SECURE_CONNECTION: u32 = 1 << 15;
    pub const PLUGIN_AUTH: u32 = 1 << 19;
    pub const CONNECT_ATTRS: u32 = 1 << 20;
    pub const PLUGIN_AUTH_LENENC: u32 = 1 << 21;
    pub const ALL: u32 = LONG_PASSWORD
        | LONG_FLAG
        | CONNECT_WITH_DB
        | PROTOCOL_41
        | TRANSACTIONS
        | SECURE_CONNECTION
        | PLUGIN_AUTH
        | CONNECT_ATTRS
        | PLUGIN_AUTH_LENENC;
}

/// What a client proves that it knows `password` with; nothing for an empty one, and for a plug-in
/// that nobody here knows.
pub fn scramble(plugin: &str, password: &str, nonce: &[u8]) -> Vec<u8> {
    if password.is_empty() {
        return Vec::new();
    }
    let xor = |one: &[u8], other: &[u8]| -> Vec<u8> {
        one.iter().zip(other).map(|(a, b)| a ^ b).collect()
    };
    let password = password.as_bytes();
    match plugin {
        NATIVE => {
            let once = sha1(password);
            let twice = sha1(&once);
            xor(&once, &sha1(&[nonce, &twice[..]].concat()))
        }
        CACHING_SHA2 => {
            let once = sha256(password);
            let twice = sha256(&once);
            xor(&once, &sha256(&[&twice[..], nonce].concat()))
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scrambles_are_the_protocols() {
        // SHA1("password") xor SHA1(nonce + SHA1(SHA1("password"))), worked out with Python's
        // hashlib, and likewise for SHA-256.
        let nonce: Vec<u8> = (1..=20).collect();
        let hex =
            |bytes: Vec<u8>| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
        assert_eq!(
            hex(scramble(NATIVE, "password", &nonce)),
            "c17d6009a5cb47e59f7483fcf05553bbbf7dd0d6"
        );
        assert_eq!(
            hex(scramble(CACHING_SHA2, "password", &nonce)),
            "f7ab1c623a6e98dceab35e926290e5746a3141116115f4dd8ccca994393eccdd"
        );
        assert!(scramble(NATIVE, "", &nonce).is_empty());
        assert!(scramble("sha256_password", "x", &nonce).is_empty());
    }
}
