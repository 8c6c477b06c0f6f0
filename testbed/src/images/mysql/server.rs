//! Stands in for `mysqld`: greeting, log-in, and a small database behind them.
//!
//! Bounds, as MySQL's defaults: [`CONNECTIONS`] (`max_connections`), [`LOG_IN`]
//! (`connect_timeout`), [`IDLE`] (`wait_timeout`), a packet [`super::packet::PACKET_BYTES`].

use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::packet::{Fields, Packets, put_bytes, put_length};
use super::{CACHING_SHA2, NATIVE, capability, scramble};
use crate::images::database::{Failure, Outcome, Session, Store};
use crate::images::http::server::{accept, listen};

/// Clients at once; a further one hears "Too many connections".
pub const CONNECTIONS: usize = 151;
/// A client that has not logged in by then is cut off.
pub const LOG_IN: Duration = Duration::from_secs(10);
/// A client that says nothing for so long is cut off.
pub const IDLE: Duration = Duration::from_secs(28_800);

/// Status flag: every statement stands by itself.
const AUTOCOMMIT: u16 = 2;
/// utf8mb4_general_ci.
const CHARACTER_SET: u8 = 45;

/// A server's settings, from its environment.
#[derive(Clone, Debug)]
struct Settings {
    version: &'static str,
    plugin: &'static str,
    users: Vec<(String, String)>,
    databases: Vec<String>,
}

struct Server {
    settings: Settings,
    store: Mutex<Store>,
    clients: AtomicUsize,
    numbers: AtomicU32,
}

/// Runs as `mysqld`.
pub fn mysqld(arguments: &[String]) -> u8 {
    run(arguments, "8.4.3", CACHING_SHA2, "MYSQL")
}

/// Runs as `mariadbd`.
pub fn mariadbd(arguments: &[String]) -> u8 {
    run(arguments, "5.5.5-11.4.4-MariaDB", NATIVE, "MARIADB")
}

fn run(arguments: &[String], version: &'static str, plugin: &'static str, prefix: &str) -> u8 {
    let option = |name: &str| {
        let found = arguments
            .iter()
            .find_map(|argument| argument.strip_prefix(name));
        found.map(str::to_owned)
    };
    let native = arguments.iter().any(|argument| {
        argument.starts_with("--default-authentication-plugin") && argument.ends_with(NATIVE)
    });
    let port = option("--port=").map_or(Ok(3306), |text| text.parse::<u16>());
    let Ok(port) = port else {
        eprintln!("mysqld: [ERROR] --port is no port number");
        return 1;
    };
    let settings = settings(
        |name| {
            let own = std::env::var(format!("{prefix}_{name}"));
            own.or_else(|_| std::env::var(format!("MYSQL_{name}"))).ok()
        },
        version,
        if native { NATIVE } else { plugin },
    );
    let listener = match listen(port) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("mysqld: [ERROR] Can't start server: {error}");
            return 1;
        }
    };
    println!("mysqld: ready for connections. Version: '{version}'  port: {port}  Weir's stand-in.");
    let server = Arc::new(Server::new(settings));
    accept(&listener, 2 * CONNECTIONS, move |stream, _| {
        server.serve(stream)
    });
    0
}

/// As the images' entrypoints read their environment.
fn settings(
    variable: impl Fn(&str) -> Option<String>,
    version: &'static str,
    plugin: &'static str,
) -> Settings {
    let root = variable("ROOT_PASSWORD").unwrap_or_else(|| {
        if variable("ALLOW_EMPTY_PASSWORD").is_none() {
            println!(
                "mysqld: MYSQL_ROOT_PASSWORD is not set: the original would not start; this \
                 stand-in starts with an empty one"
            );
        }
        String::new()
    });
    let mut users = vec![("root".to_owned(), root)];
    if let Some(user) = variable("USER") {
        users.push((user, variable("PASSWORD").unwrap_or_default()));
    }
    Settings {
        version,
        plugin,
        users,
        databases: variable("DATABASE").into_iter().collect(),
    }
}

impl Server {
    fn new(settings: Settings) -> Server {
        let system = ["information_schema", "mysql", "performance_schema", "sys"];
        let own = settings.databases.iter().map(String::as_str);
        Server {
            store: Mutex::new(Store::new(system.into_iter().chain(own))),
            settings,
            clients: AtomicUsize::new(0),
            numbers: AtomicU32::new(8),
        }
    }

    fn serve(&self, stream: TcpStream) {
        let before = self.clients.fetch_add(1, Ordering::AcqRel);
        let mut packets = Packets::new(stream);
        // A client that breaks off or breaks the rules loses its connection.
        let _broken = if before < CONNECTIONS {
            self.converse(&mut packets)
        } else {
            let message = "Too many connections".to_owned();
            packets.send(&[failure(1040, "08004", &message)])
        };
        self.clients.fetch_sub(1, Ordering::AcqRel);
    }

    fn converse(&self, packets: &mut Packets<TcpStream>) -> io::Result<()> {
        packets.stream().set_nodelay(true)?;
        packets.stream().set_write_timeout(Some(LOG_IN))?;
        let Some(mut session) = self.log_in(packets)? else {
            return Ok(());
        };
        packets.stream().set_read_timeout(Some(IDLE))?;
        loop {
            packets.begin();
            let Some(command) = packets.receive()? else {
                return Ok(());
            };
            let Some((kind, rest)) = command.split_first() else {
                return Ok(());
            };
            let text = String::from_utf8_lossy(rest);
            let answer = match kind {
                // Quit.
                1 => return Ok(()),
                // Use a database.
                2 => self.query(&mut session, &format!("USE `{}`", text.replace('`', "``"))),
                3 => self.query(&mut session, &text),
                // A table's columns, which shells complete names with: none.
                4 => vec![end()],
                9 => vec![b"Weir's stand-in for MySQL".to_vec()],
                // Ping, and forget what the session has set.
                14 | 31 => vec![ok(0)],
                27 => vec![end()],
                _ => vec![failure(1047, "08S01", "Unknown command")],
            };
            packets.send(&answer)?;
        }
    }

    fn query(&self, session: &mut Session, text: &str) -> Vec<Vec<u8>> {
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        match store.run(session, text) {
            Ok(Outcome::Changed(rows)) => vec![ok(rows)],
            Ok(Outcome::Rows { columns, rows }) => {
                let mut count = Vec::new();
                put_length(&mut count, columns.len());
                let mut packets = vec![count];
                packets.extend(columns.iter().map(|name| column(name)));
                packets.push(end());
                for row in rows {
                    let mut packet = Vec::new();
                    for value in row {
                        match value {
                            Some(text) => put_bytes(&mut packet, text.as_bytes()),
                            None => packet.push(0xfb),
                        }
                    }
                    packets.push(packet);
                }
                packets.push(end());
                packets
            }
            Err(Failure {
                number,
                state,
                message,
            }) => vec![failure(number, state, &message)],
        }
    }

    /// The session, or nothing for who is not let in.
    fn log_in(&self, packets: &mut Packets<TcpStream>) -> io::Result<Option<Session>> {
        let deadline = Instant::now() + LOG_IN;
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let nonce = nonce()?;
        packets.send(&[greeting(&self.settings, number, &nonce)])?;
        let Some(answer) = receive_by(packets, deadline)? else {
            return Ok(None);
        };
        let mut login = LogIn::read(&answer)?;
        if login.plugin != self.settings.plugin && !login.user.is_empty() {
            let mut switch = vec![0xfe];
            switch.extend_from_slice(self.settings.plugin.as_bytes());
            switch.push(0);
            switch.extend_from_slice(&nonce);
            switch.push(0);
            packets.send(&[switch])?;
            let Some(proof) = receive_by(packets, deadline)? else {
                return Ok(None);
            };
            login.proof = proof;
        }
        let peer = packets.stream().peer_addr()?.ip().to_canonical();
        let known = self
            .settings
            .users
            .iter()
            .find(|(name, _)| *name == login.user);
        // A client without a password may send its empty C string.
        let proof = login
            .proof
            .strip_suffix(&[0])
            .filter(|rest| rest.is_empty());
        let proof = proof.unwrap_or(&login.proof);
        let right = known
            .is_some_and(|(_, password)| proof == scramble(self.settings.plugin, password, &nonce));
        if !right {
            let using = if proof.is_empty() { "NO" } else { "YES" };
            let user = &login.user;
            let message =
                format!("Access denied for user '{user}'@'{peer}' (using password: {using})");
            println!("mysqld: {message}");
            packets.send(&[failure(1045, "28000", &message)])?;
            return Ok(None);
        }
        let mut session = Session {
            database: None,
            user: format!("{}@{peer}", login.user),
            number,
            version: self.settings.version.to_owned(),
        };
        if let Some(database) = login.database.filter(|name| !name.is_empty()) {
            let there = self
                .store
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .has(&database);
            if !there {
                let message = format!("Unknown database '{database}'");
                packets.send(&[failure(1049, "42000", &message)])?;
                return Ok(None);
            }
            session.database = Some(database);
        }
        let mut done = vec![ok(0)];
        if self.settings.plugin == CACHING_SHA2 && !proof.is_empty() {
            // Known from before, so that neither TLS nor a key is needed.
            done.insert(0, vec![1, 3]);
        }
        packets.send(&done)?;
        Ok(Some(session))
    }
}

/// The next packet, if it comes in time.
fn receive_by(packets: &mut Packets<TcpStream>, deadline: Instant) -> io::Result<Option<Vec<u8>>> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Ok(None);
    }
    packets.stream().set_read_timeout(Some(left))?;
    packets.receive()
}

/// 20 bytes that no client can foresee, none of them zero.
fn nonce() -> io::Result<[u8; 20]> {
    let mut bytes = [0; 20];
    io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(bytes.map(|byte| byte % 94 + 33))
}

fn greeting(settings: &Settings, number: u32, nonce: &[u8; 20]) -> Vec<u8> {
    let capabilities = capability::ALL.to_le_bytes();
    let mut packet = vec![10];
    packet.extend_from_slice(settings.version.as_bytes());
    packet.push(0);
    packet.extend_from_slice(&number.to_le_bytes());
    packet.extend_from_slice(&nonce[..8]);
    packet.push(0);
    packet.extend_from_slice(&capabilities[..2]);
    packet.push(CHARACTER_SET);
    packet.extend_from_slice(&AUTOCOMMIT.to_le_bytes());
    packet.extend_from_slice(&capabilities[2..]);
    packet.push(21);
    packet.extend_from_slice(&[0; 10]);
    packet.extend_from_slice(&nonce[8..]);
    packet.push(0);
    packet.extend_from_slice(settings.plugin.as_bytes());
    packet.push(0);
    packet
}

/// What a client answers the greeting with.
struct LogIn {
    user: String,
    proof: Vec<u8>,
    database: Option<String>,
    plugin: String,
}

impl LogIn {
    fn read(packet: &[u8]) -> io::Result<LogIn> {
        let mut fields = Fields(packet);
        let offered = fields.word()?;
        if offered & capability::PROTOCOL_41 == 0 {
            return Err(io::Error::other("the client is older than MySQL 4.1"));
        }
        // Longest packet, character set, and what is not used.
        fields.take(4 + 1 + 23)?;
        let user = fields.string();
        let proof = if offered & capability::PLUGIN_AUTH_LENENC != 0 {
            fields.bytes()?.to_vec()
        } else {
            let length = fields.byte()?;
            fields.take(length.into())?.to_vec()
        };
        let with_database = offered & capability::CONNECT_WITH_DB != 0;
        let database = with_database.then(|| fields.string());
        let plugin = match offered & capability::PLUGIN_AUTH {
            0 => NATIVE.to_owned(),
            _ => fields.string(),
        };
        Ok(LogIn {
            user,
            proof,
            database,
            plugin,
        })
    }
}

fn ok(rows: u64) -> Vec<u8> {
    let mut packet = vec![0];
    put_length(&mut packet, rows as usize);
    packet.push(0);
    packet.extend_from_slice(&AUTOCOMMIT.to_le_bytes());
    packet.extend_from_slice(&[0, 0]);
    packet
}

fn end() -> Vec<u8> {
    let mut packet = vec![0xfe, 0, 0];
    packet.extend_from_slice(&AUTOCOMMIT.to_le_bytes());
    packet
}

fn failure(number: u16, state: &str, message: &str) -> Vec<u8> {
    let mut packet = vec![0xff];
    packet.extend_from_slice(&number.to_le_bytes());
    packet.push(b'#');
    packet.extend_from_slice(state.as_bytes());
    packet.extend_from_slice(message.as_bytes());
    packet
}

/// A column of text.
fn column(name: &str) -> Vec<u8> {
    let mut packet = Vec::new();
    for field in ["def", "", "", "", name, name] {
        put_bytes(&mut packet, field.as_bytes());
    }
    packet.push(0x0c);
    packet.extend_from_slice(&u16::from(CHARACTER_SET).to_le_bytes());
    packet.extend_from_slice(&1024_u32.to_le_bytes());
    // VARCHAR, without flags.
    packet.extend_from_slice(&[0xfd, 0, 0, 0, 0, 0]);
    packet
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::{SocketAddr, TcpListener};

    use super::*;

    /// A server on this machine for a test.
    pub fn started(version: &'static str, plugin: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let password = |name: &str| match name {
            "ROOT_PASSWORD" => Some("password".to_owned()),
            "DATABASE" => Some("app".to_owned()),
            _ => None,
        };
        let server = Arc::new(Server::new(settings(password, version, plugin)));
        std::thread::spawn(move || accept(&listener, 300, move |stream, _| server.serve(stream)));
        address
    }

    #[test]
    fn the_greeting_is_version_tens() {
        let settings = settings(|_| None, "8.4.3", CACHING_SHA2);
        let packet = greeting(&settings, 9, &[b'x'; 20]);
        let expected = b"\x0a8.4.3\0\x09\0\0\0xxxxxxxx\0";
        assert_eq!(&packet[..expected.len()], expected);
        assert!(packet.ends_with(b"xxxxxxxxxxxx\0caching_sha2_password\0"));
    }

    #[test]
    fn broken_log_ins_are_refused() {
        assert!(LogIn::read(&[]).is_err());
        assert!(LogIn::read(&[0; 64]).is_err());
        let mut packet = capability::ALL.to_le_bytes().to_vec();
        packet.extend_from_slice(&[0; 28]);
        packet.extend_from_slice(b"root\0\xfa");
        assert!(LogIn::read(&packet).is_err());
    }
}
