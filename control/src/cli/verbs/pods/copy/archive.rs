//! Reads what `tar` writes (POSIX ustar and pax, GNU's long names), member by member, as it comes.

use std::io::{self, Read};

const BLOCK: usize = 512;
/// Bytes of a long name, or of a member's further attributes, at most.
const LONG_BYTES: u64 = 64 << 10;

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file, whose bytes follow.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Symlink,
    /// A hard link, a device, a pipe, or what only newer programs know.
    Other,
}

/// One member of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name, with slashes.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// Where a link leads to.
    pub link: String,
}

/// An archive as it comes.
#[derive(Debug)]
pub struct Archive<R> {
    input: R,
    /// Bytes of the current member that have not been read, and those that fill its last block.
    left: u64,
    padding: u64,
}

/// What comes before a member's own header and is about it.
#[derive(Default)]
struct Before {
    path: Option<String>,
    link: Option<String>,
    size: Option<u64>,
}

fn corrupted(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("tar contents corrupted: {what}"),
    )
}

impl<R: Read> Archive<R> {
    /// Reads an archive from its beginning.
    pub fn new(input: R) -> Archive<R> {
        Archive {
            input,
            left: 0,
            padding: 0,
        }
    }

    /// The next member; what was not read of the one before is passed over.
    pub fn next(&mut self) -> io::Result<Option<Member>> {
        let mut before = Before::default();
        loop {
            self.pass_over()?;
            let mut block = [0_u8; BLOCK];
            if !self.read_block(&mut block)? {
                return Ok(None);
            }
            if block == [0; BLOCK] {
                // The end. What fills up the last record is read, or its writer would break off.
                io::copy(&mut self.input, &mut io::sink())?;
                return Ok(None);
            }
            let header = Header::read(&block)?;
            let size = before.size.unwrap_or(header.size);
            self.left = size;
            self.padding = size.next_multiple_of(BLOCK as u64) - size;
            match header.flag {
                b'L' => before.path = Some(until_nul(&self.read_long()?)),
                b'K' => before.link = Some(until_nul(&self.read_long()?)),
                b'x' => before.take(&self.read_long()?)?,
                b'g' => drop(self.read_long()?),
                _ => {
                    let kind = match header.flag {
                        b'0' | 0 | b'7' => Kind::File,
                        b'5' => Kind::Folder,
                        b'2' => Kind::Symlink,
                        _ => Kind::Other,
                    };
                    let path = before.path.take().unwrap_or(header.path);
                    let link = before.link.take().unwrap_or(header.link);
                    return Ok(Some(Member { path, kind, link }));
                }
            }
        }
    }

    fn pass_over(&mut self) -> io::Result<()> {
        let rest = self.left + self.padding;
        let passed = io::copy(&mut (&mut self.input).take(rest), &mut io::sink())?;
        if passed < rest {
            return Err(corrupted("it ends within a member"));
        }
        (self.left, self.padding) = (0, 0);
        Ok(())
    }

    /// Whether there was another block.
    fn read_block(&mut self, block: &mut [u8; BLOCK]) -> io::Result<bool> {
        let mut have = 0;
        while have < BLOCK {
            match self.input.read(&mut block[have..]) {
                Ok(0) if have == 0 => return Ok(false),
                Ok(0) => return Err(corrupted("it ends within a header")),
                Ok(length) => have += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn read_long(&mut self) -> io::Result<Vec<u8>> {
        if self.left > LONG_BYTES {
            return Err(corrupted(&format!(
                "a name of {} bytes, {LONG_BYTES} at most",
                self.left
            )));
        }
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// The current member's bytes.
impl<R: Read> Read for Archive<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Ok(0);
        }
        let length = (&mut self.input).take(self.left).read(buffer)?;
        if length == 0 && !buffer.is_empty() {
            return Err(corrupted("it ends within a member"));
        }
        self.left -= length as u64;
        Ok(length)
    }
}

impl Before {
    /// Reads `LENGTH KEY=VALUE\n` lines (POSIX, pax).
    fn take(&mut self, mut records: &[u8]) -> io::Result<()> {
        while !records.is_empty() {
            let wrong = || corrupted("a pax header");
            let space = records.iter().position(|byte| *byte == b' ');
            let space = space.ok_or_else(wrong)?;
            let length = std::str::from_utf8(&records[..space]).ok();
            let length: usize = length
                .and_then(|text| text.parse().ok())
                .ok_or_else(wrong)?;
            let record = records.get(space + 1..length).ok_or_else(wrong)?;
            let record = record.strip_suffix(b"\n").ok_or_else(wrong)?;
            let equals = record.iter().position(|byte| *byte == b'=');
            let (key, value) = record.split_at(equals.ok_or_else(wrong)?);
            let value = String::from_utf8_lossy(&value[1..]).into_owned();
            match key {
                b"path" => self.path = Some(value),
                b"linkpath" => self.link = Some(value),
                b"size" => self.size = Some(value.parse().map_err(|_| wrong())?),
                _ => {}
            }
            records = &records[length..];
        }
        Ok(())
    }
}

struct Header {
    path: String,
    link: String,
    size: u64,
    flag: u8,
}

impl Header {
    fn read(block: &[u8; BLOCK]) -> io::Result<Header> {
        let counted = |at: usize, byte: u8| match at {
            // The sum itself counts as spaces.
            148..156 => u64::from(b' '),
            _ => u64::from(byte),
        };
        let sum: u64 = (block.iter().enumerate())
            .map(|(at, byte)| counted(at, *byte))
            .sum();
        if number(&block[148..156]) != Some(sum) {
            return Err(corrupted("a header's checksum"));
        }
        let name = until_nul(&block[..100]);
        let prefix = match &block[257..263] {
            b"ustar\0" => until_nul(&block[345..500]),
            // GNU's has other fields there.
            _ => String::new(),
        };
        Ok(Header {
            path: match prefix.is_empty() {
                true => name,
                false => format!("{prefix}/{name}"),
            },
            link: until_nul(&block[157..257]),
            size: number(&block[124..136]).ok_or_else(|| corrupted("a member's size"))?,
            flag: block[156],
        })
    }
}

fn until_nul(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
}

/// A number in octal digits, or GNU's binary form of what does not fit those.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] == 0x80 {
        let (head, tail) = field.split_at(field.len() - 8);
        let fits = head[1..].iter().all(|byte| *byte == 0);
        return fits.then(|| u64::from_be_bytes(tail.try_into().unwrap_or_default()));
    }
    let text = until_nul(field);
    match text.trim() {
        "" => Some(0),
        digits => u64::from_str_radix(digits, 8).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// What tar packs of a folder, in one of its formats.
    fn packed(folder: &std::path::Path, format: &str) -> Vec<u8> {
        let output = Command::new("tar")
            .args([
                &format!("--format={format}"),
                "--sort=name",
                "-cf",
                "-",
                "-C",
            ])
            .arg(folder)
            .arg("d")
            .output()
            .unwrap();
        assert!(output.status.success());
        output.stdout
    }

    #[test]
    fn what_tar_writes_in_its_formats_is_read() {
        let folder = std::env::temp_dir().join(format!("weir-tar-{}", std::process::id()));
        let long = "n".repeat(120);
        std::fs::create_dir_all(folder.join("d").join(&long)).unwrap();
        std::fs::write(folder.join("d").join(&long).join(&long), "deep").unwrap();
        std::fs::write(folder.join("d/a"), vec![7_u8; 1000]).unwrap();
        std::os::unix::fs::symlink(format!("/{long}"), folder.join("d/link")).unwrap();
        for format in ["gnu", "pax"] {
            let bytes = packed(&folder, format);
            let mut archive = Archive::new(&bytes[..]);
            let mut found = Vec::new();
            while let Some(member) = archive.next().unwrap() {
                let mut text = Vec::new();
                // Of `d/a` a part alone: the rest is passed over.
                (&mut archive).take(600).read_to_end(&mut text).unwrap();
                found.push((member.path, member.kind, member.link, text.len()));
            }
            let none = String::new;
            let expected = [
                ("d/".to_owned(), Kind::Folder, none(), 0),
                ("d/a".to_owned(), Kind::File, none(), 600),
                ("d/link".to_owned(), Kind::Symlink, format!("/{long}"), 0),
                (format!("d/{long}/"), Kind::Folder, none(), 0),
                (format!("d/{long}/{long}"), Kind::File, none(), 4),
            ];
            assert_eq!(found, expected, "{format}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_breaks_off_or_was_changed_is_an_error_and_no_panic() {
        let folder = std::env::temp_dir().join(format!("weir-tar-cut-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("d")).unwrap();
        std::fs::write(folder.join("d/a"), vec![7_u8; 1000]).unwrap();
        let whole = packed(&folder, "pax");
        std::fs::remove_dir_all(folder).unwrap();
        let read = |bytes: &[u8]| -> io::Result<usize> {
            let mut archive = Archive::new(bytes);
            let mut count = 0;
            while archive.next()?.is_some() {
                io::copy(&mut archive, &mut io::sink())?;
                count += 1;
            }
            Ok(count)
        };
        assert_eq!(read(&whole).unwrap(), 2);
        assert!(read(&whole[..100]).is_err());
        assert!(read(&whole[..BLOCK * 2 + 10]).is_err());
        // But for what fills the sum's own field.
        for at in (0..BLOCK).filter(|at| *at != 155) {
            let mut changed = whole.clone();
            changed[at] ^= 0x41;
            assert!(read(&changed).is_err(), "byte {at}");
        }
    }

    #[test]
    fn numbers_are_octal_or_binary() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"        "), Some(0));
        assert_eq!(number(b"12x4567\0"), None);
        let mut binary = [0_u8; 12];
        (binary[0], binary[6]) = (0x80, 1);
        assert_eq!(number(&binary), Some(1 << 40));
        binary[1] = 1;
        assert_eq!(number(&binary), None);
    }
}
