//! What a type is made of, as it was noted while it read nothing.

use std::collections::BTreeMap;

/// The `apiVersion` of the kind of a name.
pub type VersionOf = fn(&str) -> Option<&'static str>;

/// The type of a field.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Type {
    /// Not noted.
    #[default]
    Unknown,
    /// `string`, `integer`, `IntOrString`, …
    Scalar(&'static str),
    /// A struct, by its name.
    Struct(&'static str),
    /// A list.
    List(Box<Type>),
    /// A map by text.
    Map(Box<Type>),
}

/// The structs of a kind, by name, with their fields in order.
#[derive(Debug)]
pub struct Structure {
    pub(super) structs: BTreeMap<&'static str, Vec<(String, Type)>>,
    pub(super) last: Type,
    pub(super) version_of: VersionOf,
}

impl Structure {
    /// The fields of a struct.
    pub fn fields(&self, name: &str) -> &[(String, Type)] {
        self.structs
            .get(name)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// The type of the whole.
    pub fn root(&self) -> &Type {
        &self.last
    }

    /// Every struct's name.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.structs.keys().copied()
    }

    /// What a kind insists on in a field.
    pub(super) fn insisted(&self, owner: &'static str, field: &str) -> Option<&'static str> {
        let version = (self.version_of)(owner)?;
        match field {
            "apiVersion" => Some(version),
            "kind" => Some(owner),
            _ => None,
        }
    }

    /// Notes a struct; whether it is new.
    pub(super) fn begin(&mut self, name: &'static str) -> bool {
        if self.structs.contains_key(name) {
            return false;
        }
        self.structs.insert(name, Vec::new());
        true
    }

    /// Notes what was read of a field.
    pub(super) fn end(&mut self, owner: &'static str, field: &str) {
        let last = std::mem::take(&mut self.last);
        let fields = self.structs.entry(owner).or_default();
        if !fields.iter().any(|(own, _)| own == field) {
            fields.push((field.to_owned(), last));
        }
    }
}
