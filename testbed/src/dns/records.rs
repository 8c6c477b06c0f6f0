//! What the DNS server answers from, and the file that carries it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Format of the file.
pub const VERSION: u32 = 1;
/// Bytes of a file at most. A Service of 1,000 ready pods takes about 0.5 MiB.
pub const FILE_BYTES: u64 = 64 << 20;
/// Bytes of a name at most, dots counted, the last one not written (RFC 1035, section 3.1).
const NAME_BYTES: usize = 253;
/// Bytes of a label at most.
const LABEL_BYTES: usize = 63;
/// Bytes of a TXT record's string at most.
const TEXT_BYTES: usize = 255;

/// Why records cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// The file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is larger than [`FILE_BYTES`].
    #[error("{path}: {bytes} bytes, more than {FILE_BYTES}")]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The file does not hold records.
    #[error("{path}: {source}")]
    Json {
        /// Which.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// Another version of this program wrote the file.
    #[error("records of version {0}, expected {VERSION}; run weir-lab and weir-dns of one build")]
    Version(u32),
    /// Not a domain name in lower case without its last dot.
    #[error("{name:?} is not a domain name: {why}")]
    Name {
        /// What stands in its place.
        name: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// A name that has a CNAME has nothing else (RFC 1034, section 3.6.2).
    #[error("{0:?} has a CNAME and other records")]
    CnameNotAlone(String),
    /// A TXT record holds one string of at most 255 bytes here.
    #[error("TXT record of {name:?} has {bytes} bytes, more than {TEXT_BYTES}")]
    Text {
        /// Whose.
        name: String,
        /// How long.
        bytes: usize,
    },
}

/// One record. Names are absolute, in lower case, without the last dot; the root is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE", deny_unknown_fields)]
pub enum Record {
    /// Start of a zone: this name is an apex.
    Soa {
        /// The zone's server.
        server: String,
        /// Its keeper's mailbox, as a name.
        mailbox: String,
    },
    /// The zone's server.
    Ns(String),
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// The name that this name is an alias of.
    Cname(String),
    /// Where a service is served (RFC 2782), all targets alike.
    Srv {
        /// Port number.
        port: u16,
        /// Name of the host.
        target: String,
    },
    /// The name of an address.
    Ptr(String),
    /// Text.
    Txt(String),
}

impl Record {
    /// The record that gives an address.
    pub fn address(address: IpAddr) -> Record {
        match address {
            IpAddr::V4(v4) => Record::A(v4),
            IpAddr::V6(v6) => Record::Aaaa(v6),
        }
    }

    /// The name within the record, if there is one.
    pub fn target(&self) -> Option<&str> {
        match self {
            Record::Ns(name) | Record::Cname(name) | Record::Ptr(name) => Some(name),
            Record::Srv { target, .. } => Some(target),
            Record::Soa { server, .. } => Some(server),
            Record::A(_) | Record::Aaaa(_) | Record::Txt(_) => None,
        }
    }
}

/// Everything that the DNS server knows.
///
/// A name may have no records: it exists all the same, and a question about it is answered with no
/// data rather than with "no such name". A name's first label may be `*` (RFC 4592).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Records {
    /// [`VERSION`].
    pub version: u32,
    /// How long clients may keep any of these, in seconds.
    pub ttl_s: u32,
    /// Records by name.
    pub names: BTreeMap<String, BTreeSet<Record>>,
}

impl Records {
    /// No names.
    pub fn new(ttl_s: u32) -> Records {
        let names = BTreeMap::new();
        Records {
            version: VERSION,
            ttl_s,
            names,
        }
    }

    /// Makes a name exist.
    pub fn declare(&mut self, name: &str) {
        self.names.entry(name.to_owned()).or_default();
    }

    /// Adds a record.
    pub fn add(&mut self, name: &str, record: Record) {
        self.names
            .entry(name.to_owned())
            .or_default()
            .insert(record);
    }

    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Records, RecordsError> {
        let failed = |source| RecordsError::File {
            path: path.to_owned(),
            source,
        };
        let bytes = fs::metadata(path).map_err(failed)?.len();
        if bytes > FILE_BYTES {
            return Err(RecordsError::TooLarge {
                path: path.to_owned(),
                bytes,
            });
        }
        let text = fs::read(path).map_err(failed)?;
        let records: Records =
            serde_json::from_slice(&text).map_err(|source| RecordsError::Json {
                path: path.to_owned(),
                source,
            })?;
        records.check()?;
        Ok(records)
    }

    /// Replaces a file at once: whoever reads it meanwhile sees the old records or the new ones.
    /// The file's folder must be writable; a file of the same name with `.new` after it is used.
    pub fn write(&self, path: &Path) -> Result<(), RecordsError> {
        let json = |source| RecordsError::Json {
            path: path.to_owned(),
            source,
        };
        let text = serde_json::to_vec(self).map_err(json)?;
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        let fresh = PathBuf::from(name);
        fs::write(&fresh, text)
            .and_then(|()| fs::rename(&fresh, path))
            .map_err(|source| RecordsError::File {
                path: path.to_owned(),
                source,
            })
    }

    /// Whether every name can be put on the wire.
    pub fn check(&self) -> Result<(), RecordsError> {
        if self.version != VERSION {
            return Err(RecordsError::Version(self.version));
        }
        for (name, records) in &self.names {
            check_name(name, true)?;
            let alias = |record: &Record| matches!(record, Record::Cname(_));
            if records.len() > 1 && records.iter().any(alias) {
                return Err(RecordsError::CnameNotAlone(name.clone()));
            }
            for record in records {
                record
                    .target()
                    .map_or(Ok(()), |target| check_name(target, false))?;
                match record {
                    Record::Soa { mailbox, .. } => check_name(mailbox, false)?,
                    Record::Txt(text) if text.len() > TEXT_BYTES => {
                        let (name, bytes) = (name.clone(), text.len());
                        return Err(RecordsError::Text { name, bytes });
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// Whether a text is a name that DNS messages can carry and that lookups, which are made in lower
/// case, can find. The root is the empty text.
fn check_name(name: &str, owner: bool) -> Result<(), RecordsError> {
    let bad = |why| {
        Err(RecordsError::Name {
            name: name.to_owned(),
            why,
        })
    };
    if name.is_empty() {
        return Ok(());
    }
    if name.len() > NAME_BYTES {
        return bad("longer than 253 bytes");
    }
    for (number, label) in name.split('.').enumerate() {
        if label.is_empty() || label.len() > LABEL_BYTES {
            return bad("a label has 1 to 63 bytes");
        }
        let plain = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
        let wildcard = owner && number == 0 && label == "*";
        if !wildcard && !label.bytes().all(plain) {
            return bad("a label has lower-case letters, digits, - and _ only");
        }
    }
    Ok(())
}

/// The name under which an address is looked up (RFC 1035, section 3.5; RFC 3596, section 2.5).
pub fn reverse_name(address: IpAddr) -> String {
    use std::fmt::Write;
    let mut name = String::new();
    let written = match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            write!(name, "{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(v6) => {
            let mut nibbles = v6
                .octets()
                .into_iter()
                .rev()
                .flat_map(|byte| [byte & 15, byte >> 4]);
            nibbles
                .try_for_each(|nibble| write!(name, "{nibble:x}."))
                .and_then(|()| write!(name, "ip6.arpa"))
        }
    };
    debug_assert!(written.is_ok(), "writing to a string");
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, record: Record) -> Records {
        let mut records = Records::new(5);
        records.add(name, record);
        records
    }

    #[test]
    fn names_that_no_question_can_match_are_refused() {
        let address = Record::A(Ipv4Addr::LOCALHOST);
        let long = format!("{}.x", "a".repeat(64));
        let longer = ["a".repeat(63).as_str(); 4].join(".") + ".x";
        for name in [
            "A.x", "a..x", ".x", "a.x.", "a b.x", "a.*.x", "é.x", &long, &longer,
        ] {
            assert!(one(name, address.clone()).check().is_err(), "{name}");
        }
        for name in [
            "",
            "*",
            "*.x",
            "_http._tcp.web.ns.svc.cluster.local",
            "10-0-0-1.x",
        ] {
            one(name, address.clone()).check().unwrap();
        }
        assert!(one("a.x", Record::Cname("*.x".into())).check().is_err());
        assert!(
            one(
                "a.x",
                Record::Srv {
                    port: 1,
                    target: "B".into()
                }
            )
            .check()
            .is_err()
        );
        assert!(one("a.x", Record::Txt("x".repeat(256))).check().is_err());
        let mut alias = one("a.x", Record::Cname("b.x".into()));
        alias.check().unwrap();
        alias.add("a.x", address);
        assert!(matches!(alias.check(), Err(RecordsError::CnameNotAlone(_))));
    }

    #[test]
    fn a_file_carries_them_and_another_format_is_refused() {
        let folder = std::env::temp_dir().join(format!("weir-dns-records-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("records.json");
        let mut records = one("web.x", Record::A(Ipv4Addr::LOCALHOST));
        records.add("web.x", Record::Aaaa(Ipv6Addr::LOCALHOST));
        records.add(
            "_a._tcp.web.x",
            Record::Srv {
                port: 80,
                target: "web.x".into(),
            },
        );
        records.declare("x");
        let (server, mailbox) = ("ns.x".to_owned(), "mail.x".to_owned());
        records.add("", Record::Soa { server, mailbox });
        records.write(&path).unwrap();
        assert_eq!(Records::read(&path).unwrap(), records);
        assert_eq!(
            fs::read_dir(&folder).unwrap().count(),
            1,
            "nothing left beside it"
        );
        for (text, message) in [
            (r#"{"version":2,"ttlS":5,"names":{}}"#, "version 2"),
            (r#"{"version":1,"ttlS":5}"#, "missing field `names`"),
            (
                r#"{"version":1,"ttlS":5,"names":{},"more":1}"#,
                "unknown field `more`",
            ),
            (
                r#"{"version":1,"ttlS":5,"names":{"x":[{"A":"1.2.3"}]}}"#,
                "invalid IPv4",
            ),
            ("", "EOF"),
        ] {
            fs::write(&path, text).unwrap();
            let error = Records::read(&path).unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
        fs::remove_dir_all(&folder).unwrap();
        assert!(matches!(
            Records::read(&path),
            Err(RecordsError::File { .. })
        ));
    }

    #[test]
    fn addresses_have_names() {
        assert_eq!(
            reverse_name("10.244.0.20".parse().unwrap()),
            "20.0.244.10.in-addr.arpa"
        );
        let name = reverse_name("fd00:10:244::1f".parse().unwrap());
        assert!(name.starts_with("f.1.0.0.0.0."), "{name}");
        assert!(
            name.ends_with(".4.4.2.0.0.1.0.0.0.0.d.f.ip6.arpa"),
            "{name}"
        );
        assert_eq!(name.split('.').count(), 34);
    }
}
