//! In which line of a YAML text a value stands.
//!
//! The YAML crate gives places with its errors only. So the text is read once more by a visitor
//! that fails on every key of a mapping and takes the place from that error. Where the text does
//! not lend itself to it (JSON documents one behind another, keys that are no scalars) lines are
//! unknown, and nothing else is lost.

use std::collections::HashMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// A value's line and those of the values in it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Lines {
    /// Of a mapping its first key's, of a value its key's; from 1.
    line: Option<usize>,
    /// By key; items of a sequence by index.
    children: HashMap<String, Lines>,
}

impl Lines {
    /// Of each document that is not empty.
    pub(super) fn of_documents(text: &str) -> Vec<Lines> {
        serde_yaml_ng::Deserializer::from_str(text)
            .map_while(|document| Scan.deserialize(document).ok())
            .filter_map(|scanned| match scanned {
                Scanned::Empty => None,
                Scanned::Value(lines) => Some(lines),
            })
            .collect()
    }

    /// The line, as far as it is known.
    pub(super) fn line(&self) -> Option<usize> {
        self.line
    }

    /// Of the value behind a key or index.
    pub(super) fn child(&self, key: &str) -> Option<&Lines> {
        self.children.get(key)
    }
}

enum Scanned {
    /// Null: as a document, none at all.
    Empty,
    Value(Lines),
}

struct Scan;

impl<'de> DeserializeSeed<'de> for Scan {
    type Value = Scanned;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Scanned, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Scan {
    type Value = Scanned;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Scanned, E> {
        Ok(Scanned::Empty)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Scanned, E> {
        Ok(Scanned::Value(Lines::default()))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Scanned, E> {
        Ok(Scanned::Value(Lines::default()))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Scanned, E> {
        Ok(Scanned::Value(Lines::default()))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Scanned, E> {
        Ok(Scanned::Value(Lines::default()))
    }

    fn visit_str<E>(self, _: &str) -> Result<Scanned, E> {
        Ok(Scanned::Value(Lines::default()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Scanned, A::Error> {
        let mut lines = Lines::default();
        while let Some(item) = items.next_element_seed(Scan)? {
            let index = lines.children.len().to_string();
            let item = match item {
                Scanned::Empty => Lines::default(),
                Scanned::Value(item) => item,
            };
            lines.line = lines.line.or(item.line);
            lines.children.insert(index, item);
        }
        Ok(Scanned::Value(lines))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Scanned, A::Error> {
        let mut lines = Lines::default();
        loop {
            let mut key = None;
            match entries.next_key_seed(FailingKey(&mut key)) {
                Ok(None) => return Ok(Scanned::Value(lines)),
                // A key that did not fail has no place to tell.
                Ok(Some(())) => return Err(A::Error::custom("a key without a place")),
                Err(error) => {
                    let Some(key) = key else { return Err(error) };
                    let line = place(&error.to_string());
                    let mut value = match entries.next_value_seed(Scan)? {
                        Scanned::Empty => Lines::default(),
                        Scanned::Value(value) => value,
                    };
                    value.line = line.or(value.line);
                    lines.line = lines.line.or(line);
                    lines.children.insert(key, value);
                }
            }
        }
    }
}

/// The line in `… at line 3 column 5`; of a text's very first character nothing is said.
fn place(error: &str) -> Option<usize> {
    let Some((_, behind)) = error.rsplit_once(" at line ") else {
        return Some(1);
    };
    behind.split(' ').next()?.parse().ok()
}

/// Takes a key and fails.
struct FailingKey<'a>(&'a mut Option<String>);

impl<'de> DeserializeSeed<'de> for FailingKey<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for FailingKey<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<(), E> {
        *self.0 = Some(key.to_owned());
        Err(E::custom("here"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mapping_knows_its_line() {
        let text = "# a comment\n---\na: 1\nb:\n- {c: 2}\n-\n  c: &x\n    d: 3\n- c: *x\n---\n---\n\
                    z: [[{y: 1,\n  x: 2}]]\n";
        let documents = Lines::of_documents(text);
        assert_eq!(documents.len(), 2);
        let line = |document: usize, path: &str| {
            let steps = path.split('/').filter(|step| !step.is_empty());
            let mut at = &documents[document];
            for step in steps {
                at = at.child(step).unwrap();
            }
            at.line()
        };
        for (document, path, expected) in [
            (0, "", 3),
            (0, "b", 4),
            (0, "b/0", 5),
            (0, "b/1", 7),
            (0, "b/1/c/d", 8),
            (0, "b/2", 9),
            (1, "", 12),
            (1, "z/0/0/x", 13),
        ] {
            assert_eq!(line(document, path), Some(expected), "{document} {path}");
        }
    }

    #[test]
    fn a_text_may_begin_at_once() {
        let documents = Lines::of_documents("a: 1\n");
        assert_eq!(documents[0].line(), Some(1));
    }

    #[test]
    fn what_has_no_lines_loses_nothing_else() {
        // The lines of the first document are known, those of the others are not.
        assert_eq!(Lines::of_documents("{\"a\": 1}\n{\"b\": 2}\n").len(), 1);
        assert_eq!(Lines::of_documents("a: [\n"), []);
    }
}
