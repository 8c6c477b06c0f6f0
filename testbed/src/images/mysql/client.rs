//! A client: logs in, asks, reads rows.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::net::SocketType;

use super::packet::{Fields, Packets, put_bytes};
use super::{capability, scramble};
use crate::images::database::Value;
use crate::images::sockets;

/// Rows of one answer, at most.
const ROWS: usize = 10_000;

/// Why something did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection.
    #[error("Can't connect to MySQL server ({0})")]
    Connection(#[from] io::Error),
    /// The server says no.
    #[error("({number}, {message:?})")]
    Refused {
        /// MySQL's error number.
        number: u16,
        /// In words.
        message: String,
    },
}

/// A connection that is logged in.
pub struct Client {
    packets: Packets<TcpStream>,
}

fn wrong(what: &str) -> ClientError {
    io::Error::new(io::ErrorKind::InvalidData, what).into()
}

impl Client {
    /// Connects and logs in; each step takes `limit` at most.
    pub fn connect(
        server: SocketAddr,
        user: &str,
        password: &str,
        limit: Duration,
    ) -> Result<Client, ClientError> {
        let socket = sockets::connect(server, None, SocketType::STREAM, Some(limit))?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        let packets = Packets::new(stream);
        let mut client = Client { packets };
        client.log_in(user, password)?;
        Ok(client)
    }

    fn receive(&mut self) -> Result<Vec<u8>, ClientError> {
        let packet = self.packets.receive()?;
        let packet = packet.ok_or_else(|| wrong("the server closed the connection"))?;
        if packet.first() != Some(&0xff) {
            return Ok(packet);
        }
        let mut fields = Fields(&packet[1..]);
        let number = fields.take(2)?;
        let number = u16::from_le_bytes([number[0], number[1]]);
        if fields.0.first() == Some(&b'#') {
            fields.take(6)?;
        }
        let message = String::from_utf8_lossy(fields.0).into_owned();
        Err(ClientError::Refused { number, message })
    }

    fn log_in(&mut self, user: &str, password: &str) -> Result<(), ClientError> {
        let greeting = self.receive()?;
        let mut fields = Fields(&greeting);
        if fields.byte()? != 10 {
            return Err(wrong("the server speaks another protocol"));
        }
        let _version = fields.string();
        fields.take(4)?;
        let mut nonce = fields.take(8)?.to_vec();
        fields.take(1 + 2 + 1 + 2 + 2 + 1 + 10)?;
        nonce.extend_from_slice(fields.take(12)?);
        fields.take(1)?;
        let mut plugin = fields.string();
        let mut packet =
            (capability::ALL & !capability::CONNECT_WITH_DB & !capability::CONNECT_ATTRS)
                .to_le_bytes()
                .to_vec();
        packet.extend_from_slice(&(1_u32 << 20).to_le_bytes());
        packet.push(45);
        packet.extend_from_slice(&[0; 23]);
        packet.extend_from_slice(user.as_bytes());
        packet.push(0);
        put_bytes(&mut packet, &scramble(&plugin, password, &nonce));
        packet.extend_from_slice(plugin.as_bytes());
        packet.push(0);
        self.packets.send(&[packet])?;
        loop {
            let answer = self.receive()?;
            match answer.as_slice() {
                [0, ..] => return Ok(()),
                // The log-in was known from before.
                [1, 3] => {}
                [1, ..] => return Err(wrong("the server wants TLS for this log-in")),
                [0xfe, rest @ ..] => {
                    let mut fields = Fields(rest);
                    plugin = fields.string();
                    let nonce = fields.0.strip_suffix(&[0]).unwrap_or(fields.0);
                    self.packets.send(&[scramble(&plugin, password, nonce)])?;
                }
                _ => return Err(wrong("the server's answer to the log-in is not understood")),
            }
        }
    }

    /// Runs one statement; the rows it yields.
    pub fn query(&mut self, text: &str) -> Result<Vec<Vec<Value>>, ClientError> {
        self.packets.begin();
        self.packets.send(&[[&[3], text.as_bytes()].concat()])?;
        let first = self.receive()?;
        if first.first() == Some(&0) {
            return Ok(Vec::new());
        }
        let columns = Fields(&first).length()?;
        for _ in 0..=columns {
            self.receive()?;
        }
        let mut rows = Vec::new();
        loop {
            let packet = self.receive()?;
            if packet.first() == Some(&0xfe) && packet.len() < 9 {
                return Ok(rows);
            }
            if rows.len() == ROWS {
                return Err(wrong("the answer has too many rows"));
            }
            let mut fields = Fields(&packet);
            let mut row = Vec::new();
            for _ in 0..columns {
                row.push(match fields.0.first() {
                    Some(0xfb) => {
                        fields.take(1)?;
                        None
                    }
                    _ => Some(String::from_utf8_lossy(fields.bytes()?).into_owned()),
                });
            }
            rows.push(row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::mysql::{CACHING_SHA2, NATIVE, server};

    const LIMIT: Duration = Duration::from_secs(10);

    #[test]
    fn both_ways_to_log_in_work_and_wrong_passwords_do_not() {
        for plugin in [NATIVE, CACHING_SHA2] {
            let address = server::tests::started("8.4.3", plugin);
            let mut client = Client::connect(address, "root", "password", LIMIT).unwrap();
            let version = client.query("SELECT VERSION()").unwrap();
            assert_eq!(version, [[Some("8.4.3".to_owned())]]);
            client.query("USE app").unwrap();
            client.query("CREATE TABLE t (a TEXT, b TEXT)").unwrap();
            let long = "x".repeat(70_000);
            client
                .query(&format!("INSERT INTO t VALUES ('{long}', NULL)"))
                .unwrap();
            let rows = client.query("SELECT * FROM t").unwrap();
            assert_eq!(rows, [[Some(long), None]]);
            let Err(ClientError::Refused { number: 1146, .. }) = client.query("SELECT a FROM u")
            else {
                panic!("a table that is not there");
            };
            for (user, password) in [("root", "wrong"), ("root", ""), ("nobody", "password")] {
                let refused = Client::connect(address, user, password, LIMIT);
                let Err(ClientError::Refused { number, message }) = refused.map(|_| ()) else {
                    panic!("{user} {password}");
                };
                assert_eq!(number, 1045);
                assert!(
                    message.contains("'@'127.0.0.1' (using password: "),
                    "{message}"
                );
            }
        }
    }
}
