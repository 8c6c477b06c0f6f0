//! The items of a list and the entries of a map, read one after the other.

use std::cell::RefCell;

use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess};
use serde_json::Value;

use super::path::{At, Path};
use super::{Go, NOTHING, Structure, Type, TypeError};

/// An array's items.
pub(super) struct Items<'de, 'a> {
    pub(super) items: &'de [Value],
    pub(super) next: usize,
    pub(super) at: At<'a>,
    pub(super) unknown: &'a RefCell<Vec<String>>,
    /// Notes what is read, while a type is asked for its structure.
    pub(super) probe: Option<&'a RefCell<Structure>>,
}

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = TypeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, TypeError> {
        let Some(value) = self.items.get(self.next) else {
            return Ok(None);
        };
        let path = Path::Index(self.at.path, self.next);
        self.next += 1;
        seed.deserialize(Go {
            value,
            at: At {
                path: &path,
                owner: self.at.owner,
            },
            unknown: self.unknown,
            probe: self.probe,
        })
        .map(Some)
    }
}

/// An object's entries; for a struct with the fields that it has.
pub(super) struct Entries<'de, 'a> {
    pub(super) entries: Option<serde_json::map::Iter<'de>>,
    pub(super) known: Option<&'static [&'static str]>,
    /// In place of the entries, while a type is asked for its structure: its fields, or a key.
    pub(super) fields: Option<&'static [&'static str]>,
    pub(super) pending: Option<(&'de str, &'de Value)>,
    pub(super) at: At<'a>,
    pub(super) unknown: &'a RefCell<Vec<String>>,
    /// Notes what is read, while a type is asked for its structure.
    pub(super) probe: Option<&'a RefCell<Structure>>,
}

impl<'de> MapAccess<'de> for Entries<'de, '_> {
    type Error = TypeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, TypeError> {
        if let Some(fields) = self.fields {
            let Some((first, rest)) = fields.split_first() else {
                return Ok(None);
            };
            self.fields = Some(rest);
            self.pending = Some((first, &NOTHING));
            return seed.deserialize(StrDeserializer::new(first)).map(Some);
        }
        let Some((key, value)) = self.entries.as_mut().and_then(Iterator::next) else {
            return Ok(None);
        };
        if self
            .known
            .is_some_and(|known| !known.contains(&key.as_str()))
        {
            let path = Path::Field(self.at.path, key).full();
            self.unknown.borrow_mut().push(path);
        }
        self.pending = Some((key, value));
        seed.deserialize(StrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, TypeError> {
        let Some((key, value)) = self.pending.take() else {
            return Err(TypeError::custom("a value was read before its key"));
        };
        let path = match self.known {
            Some(_) => Path::Field(self.at.path, key),
            None => Path::Key(self.at.path),
        };
        if let Some(probe) = self.probe {
            let insisted = probe.borrow().insisted(self.at.owner, key);
            if let Some(text) = insisted.filter(|_| self.known.is_some()) {
                let mut probe = probe.borrow_mut();
                probe.last = Type::Scalar("string");
                probe.end(self.at.owner, key);
                return seed.deserialize(StrDeserializer::<TypeError>::new(text));
            }
        }
        let made = seed.deserialize(Go {
            value,
            at: At {
                path: &path,
                owner: self.at.owner,
            },
            unknown: self.unknown,
            probe: self.probe,
        });
        if let (Some(probe), Some(_)) = (self.probe, self.known) {
            probe.borrow_mut().end(self.at.owner, key);
        }
        made
    }
}
