//! Frames.

use std::io::{self, Read, Write};

use super::FRAME_BYTES;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Channel {
    /// To the command. An empty payload ends it.
    Stdin = 0,
    /// From the command; with a terminal both outputs.
    Stdout = 1,
    /// From the command.
    Stderr = 2,
    /// From the agent, last: an [`super::ExitReport`] as JSON.
    Status = 3,
    /// To the terminal: a [`super::WindowSize`] as JSON.
    Resize = 4,
}

impl Channel {
    fn from_number(number: u8) -> Option<Channel> {
        Some(match number {
            0 => Channel::Stdin,
            1 => Channel::Stdout,
            2 => Channel::Stderr,
            3 => Channel::Status,
            4 => Channel::Resize,
            _ => return None,
        })
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it carries.
    pub channel: Channel,
    /// The bytes.
    pub payload: Vec<u8>,
}

/// Reads one frame; `None` at a clean end. A frame that is cut, too long or of an unknown channel
/// is an error.
pub fn read_frame(stream: &mut impl Read) -> io::Result<Option<Frame>> {
    let mut header = [0_u8; 5];
    let mut have = 0;
    while have < header.len() {
        match stream.read(&mut header[have..]) {
            Ok(0) if have == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => have += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let channel = Channel::from_number(header[0]).ok_or_else(|| bad("unknown channel"))?;
    let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
    if length > FRAME_BYTES {
        return Err(bad("frame too long"));
    }
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload)?;
    Ok(Some(Frame { channel, payload }))
}

/// Writes one frame, or several where the payload is longer than one may be.
pub fn write_frame(stream: &mut impl Write, channel: Channel, payload: &[u8]) -> io::Result<()> {
    let mut one = |part: &[u8]| {
        let mut bytes = Vec::with_capacity(5 + part.len());
        bytes.push(channel as u8);
        bytes.extend_from_slice(&(part.len() as u32).to_be_bytes());
        bytes.extend_from_slice(part);
        stream.write_all(&bytes)
    };
    if payload.is_empty() {
        return one(payload);
    }
    payload.chunks(FRAME_BYTES).try_for_each(&mut one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_and_long_ones_are_split() {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, Channel::Stdout, b"hello").unwrap();
        write_frame(&mut bytes, Channel::Stdin, b"").unwrap();
        write_frame(&mut bytes, Channel::Stderr, &vec![7; FRAME_BYTES + 1]).unwrap();
        let mut stream = bytes.as_slice();
        let mut seen = Vec::new();
        while let Some(frame) = read_frame(&mut stream).unwrap() {
            seen.push((frame.channel, frame.payload.len()));
        }
        let expected = [
            (Channel::Stdout, 5),
            (Channel::Stdin, 0),
            (Channel::Stderr, FRAME_BYTES),
            (Channel::Stderr, 1),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn cut_long_and_unknown_frames_are_errors() {
        let long = [1, 0xff, 0xff, 0xff, 0xff];
        for bytes in [
            &[1_u8, 0, 0][..],
            &[1, 0, 0, 0, 2, 9],
            &[9, 0, 0, 0, 0],
            &long,
        ] {
            let mut stream = bytes;
            assert!(read_frame(&mut stream).is_err(), "{bytes:?}");
        }
        assert_eq!(read_frame(&mut [].as_slice()).unwrap(), None);
    }
}
