//! A line of the journal.

use std::io;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A place in the journal: a segment's number and bytes in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position(pub u64, pub u64);

/// One change of the store; `V` is `&Value` where it is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record<V = Value> {
    /// The generation that the change led to.
    pub generation: u64,
    /// The store's resource version after the change.
    pub resource_version: u64,
    /// Forget everything before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reset: bool,
    /// Of a reset: the last segment that it and the lines behind it stand for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub through: u64,
    /// Of a reset: how many objects the lines behind it must hold for it to be whole.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub objects: u64,
    /// What was known to be on disk when the line was written: damage before it is the disk's.
    /// [`super::Journal::append`] fills it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub synced: Option<Position>,
    /// Objects as they are now.
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    pub put: Vec<V>,
    /// Objects that are gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub delete: Vec<Gone>,
    /// Policies that were given numbers, in the numbers' order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<Numbered>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl<V> Default for Record<V> {
    fn default() -> Record<V> {
        Record {
            generation: 0,
            resource_version: 0,
            reset: false,
            through: 0,
            objects: 0,
            synced: None,
            put: Vec::new(),
            delete: Vec::new(),
            policies: Vec::new(),
        }
    }
}

/// Names an object that is gone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Gone {
    /// Its `apiVersion`.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its namespace; empty for cluster-scoped kinds.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A policy that has a number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Numbered {
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// FNV-1a, 64 bits: enough to tell a torn line from a whole one.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Bytes of the hash and the space behind it.
const HEAD: usize = 17;

/// Puts the record's line into `line`, in the place of what is there.
pub(super) fn encode<V: Serialize>(record: &Record<V>, line: &mut Vec<u8>) -> io::Result<()> {
    line.clear();
    line.resize(HEAD, b' ');
    serde_json::to_writer(&mut *line, record)?;
    let hash = format!("{:016x}", hash(&line[HEAD..]));
    line[..HEAD - 1].copy_from_slice(hash.as_bytes());
    line.push(b'\n');
    Ok(())
}

/// The record of a line with its end; none if the line is not as it was written.
pub(super) fn decode(line: &[u8]) -> Option<Record> {
    let line = line.strip_suffix(b"\n")?;
    let (head, json) = line.split_at_checked(HEAD)?;
    let stored = u64::from_str_radix(std::str::from_utf8(head).ok()?.trim_end(), 16).ok()?;
    if stored != hash(json) {
        return None;
    }
    serde_json::from_slice(json).ok()
}
