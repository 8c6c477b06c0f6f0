//! Packets: three bytes of length, one of sequence, then the payload.

use std::io::{self, Read, Write};

/// Bytes of a payload, at most: longer packets end the connection.
pub const PACKET_BYTES: usize = 1 << 20;

/// A connection's packets in both directions.
pub struct Packets<S> {
    stream: S,
    sequence: u8,
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl<S: Read + Write> Packets<S> {
    /// On a fresh connection.
    pub fn new(stream: S) -> Packets<S> {
        let sequence = 0;
        Packets { stream, sequence }
    }

    /// The connection.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// The next payload; none when the peer has closed.
    pub fn receive(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut head = [0; 4];
        match self.stream.read_exact(&mut head) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            done => done?,
        }
        let length = u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize;
        if length > PACKET_BYTES {
            return Err(wrong("a packet is longer than 1 MiB"));
        }
        self.sequence = head[3].wrapping_add(1);
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload)?;
        Ok(Some(payload))
    }

    /// Sends payloads as consecutive packets, in one write.
    pub fn send(&mut self, payloads: &[Vec<u8>]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for payload in payloads {
            if payload.len() > PACKET_BYTES {
                return Err(wrong("a packet would be longer than 1 MiB"));
            }
            bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes()[..3]);
            bytes.push(self.sequence);
            self.sequence = self.sequence.wrapping_add(1);
            bytes.extend_from_slice(payload);
        }
        self.stream.write_all(&bytes)
    }

    /// The next packet begins an exchange.
    pub fn begin(&mut self) {
        self.sequence = 0;
    }
}

/// Puts a length before what has it.
pub fn put_length(out: &mut Vec<u8>, length: usize) {
    match length {
        0..=250 => out.push(length as u8),
        251..=0xffff => {
            out.push(0xfc);
            out.extend_from_slice(&(length as u16).to_le_bytes());
        }
        _ => {
            out.push(0xfd);
            out.extend_from_slice(&(length as u32).to_le_bytes()[..3]);
        }
    }
}

/// Puts bytes behind their length.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Reads a payload piece by piece. Every reader fails at its end.
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    /// So many bytes.
    pub fn take(&mut self, count: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or_else(|| wrong("cut off"))?;
        self.0 = rest;
        Ok(taken)
    }

    /// One byte.
    pub fn byte(&mut self) -> io::Result<u8> {
        Ok(self.take(1)?[0])
    }

    /// Four bytes.
    pub fn word(&mut self) -> io::Result<u32> {
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// Up to a zero, which is taken too, or the end.
    pub fn string(&mut self) -> String {
        let end = self.0.iter().position(|byte| *byte == 0);
        let (text, rest) = match end {
            Some(end) => (&self.0[..end], &self.0[end + 1..]),
            None => (self.0, &self.0[..0]),
        };
        self.0 = rest;
        String::from_utf8_lossy(text).into_owned()
    }

    /// A length.
    pub fn length(&mut self) -> io::Result<usize> {
        let first = self.byte()?;
        let count = match first {
            0..=250 => return Ok(first.into()),
            0xfc => 2,
            0xfd => 3,
            0xfe => 8,
            _ => return Err(wrong("no length")),
        };
        let mut bytes = [0; 8];
        bytes[..count].copy_from_slice(self.take(count)?);
        usize::try_from(u64::from_le_bytes(bytes)).map_err(|_| wrong("too long"))
    }

    /// Bytes behind their length.
    pub fn bytes(&mut self) -> io::Result<&'a [u8]> {
        let length = self.length()?;
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_come_back_as_they_went() {
        for length in [0, 250, 251, 0xffff, 0x1_0000, 0xf_ffff] {
            let mut out = Vec::new();
            put_length(&mut out, length);
            assert_eq!(Fields(&out).length().unwrap(), length);
        }
        assert!(Fields(&[0xfc, 1]).length().is_err());
        assert!(Fields(&[5, 1, 2]).bytes().is_err());
        assert_eq!(Fields(b"ab\0c").string(), "ab");
    }

    #[test]
    fn long_packets_are_refused() {
        let mut packets = Packets::new(io::Cursor::new(vec![0xff, 0xff, 0xff, 0]));
        assert!(packets.receive().is_err());
        let mut empty = Packets::new(io::Cursor::new(Vec::new()));
        assert!(empty.receive().unwrap().is_none());
    }
}
