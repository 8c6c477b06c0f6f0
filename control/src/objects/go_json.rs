//! JSON read as Go's `encoding/json` and Kubernetes' strict decoder read it
//! (`sigs.k8s.io/json`): null is "absent, or zero" wherever it stands, a field that the type does
//! not have is reported with its path, and a value of the wrong type is described in Go's words.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, Expected, MapAccess, SeqAccess,
    Visitor,
};
use serde_json::Value;

/// A value that does not fit its type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TypeError(String);

impl fmt::Display for TypeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TypeError {}

impl serde::de::Error for TypeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        TypeError(message.to_string())
    }
}

/// `value` as a `T`, and the paths of the fields that `T` does not have (`spec.ingress[0].form`).
pub fn decode<T: DeserializeOwned>(value: &Value) -> Result<(T, Vec<String>), TypeError> {
    let unknown = RefCell::new(Vec::new());
    let typed = T::deserialize(Go {
        value,
        at: At {
            path: &Path::Root,
            owner: "",
        },
        unknown: &unknown,
        probe: None,
    })?;
    Ok((typed, unknown.into_inner()))
}

/// The structs that `T` is read by, and their fields: what [`decode`] knows of it. `version_of` gives the
/// `apiVersion` of a struct that is a kind, which kinds insist on.
pub fn structure<T: DeserializeOwned>(version_of: VersionOf) -> Result<Structure, TypeError> {
    let unknown = RefCell::new(Vec::new());
    let probe = RefCell::new(Structure {
        structs: BTreeMap::new(),
        last: Type::Unknown,
        version_of,
    });
    T::deserialize(Go {
        value: &NOTHING,
        at: At {
            path: &Path::Root,
            owner: "",
        },
        unknown: &unknown,
        probe: Some(&probe),
    })?;
    Ok(probe.into_inner())
}

/// As [`decode`], for the unknown fields alone.
pub fn check<T: DeserializeOwned>(value: &Value) -> Result<Vec<String>, TypeError> {
    decode::<T>(value).map(|(_, unknown)| unknown)
}

/// What is read where nothing is.
static NOTHING: Value = Value::Null;

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
    structs: BTreeMap<&'static str, Vec<(String, Type)>>,
    last: Type,
    version_of: VersionOf,
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
    fn insisted(&self, owner: &'static str, field: &str) -> Option<&'static str> {
        let version = (self.version_of)(owner)?;
        match field {
            "apiVersion" => Some(version),
            "kind" => Some(owner),
            _ => None,
        }
    }

    /// Notes a struct; whether it is new.
    fn begin(&mut self, name: &'static str) -> bool {
        if self.structs.contains_key(name) {
            return false;
        }
        self.structs.insert(name, Vec::new());
        true
    }

    /// Notes what was read of a field.
    fn end(&mut self, owner: &'static str, field: &str) {
        let last = std::mem::take(&mut self.last);
        let fields = self.structs.entry(owner).or_default();
        if !fields.iter().any(|(own, _)| own == field) {
            fields.push((field.to_owned(), last));
        }
    }
}

/// Where a value stands.
enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
    Key(&'a Path<'a>),
}

impl Path<'_> {
    /// `spec.ingress[0].ports`, as the strict decoder prints it.
    fn full(&self) -> String {
        match self {
            Path::Root => String::new(),
            Path::Field(Path::Root, name) => (*name).to_owned(),
            Path::Field(parent, name) => format!("{}.{name}", parent.full()),
            Path::Index(parent, index) => format!("{}[{index}]", parent.full()),
            Path::Key(parent) => parent.full(),
        }
    }

    /// `spec.ingress.ports`, as Go's type errors print it.
    fn fields(&self) -> String {
        match self {
            Path::Root => String::new(),
            Path::Field(Path::Root, name) => (*name).to_owned(),
            Path::Field(parent, name) => format!("{}.{name}", parent.fields()),
            Path::Index(parent, _) | Path::Key(parent) => parent.fields(),
        }
    }
}

/// A place and the struct that holds it.
#[derive(Clone, Copy)]
struct At<'a> {
    path: &'a Path<'a>,
    owner: &'static str,
}

/// One value with its place.
struct Go<'de, 'a> {
    value: &'de Value,
    at: At<'a>,
    unknown: &'a RefCell<Vec<String>>,
    /// Notes what is read, while a type is asked for its structure.
    probe: Option<&'a RefCell<Structure>>,
}

impl<'de, 'a> Go<'de, 'a> {
    fn note(&self, scalar: &'static str) {
        if let Some(probe) = self.probe {
            probe.borrow_mut().last = Type::Scalar(scalar);
        }
    }

    /// What may be of several types: each visitor is given one that it takes.
    fn note_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        let wanted = (&visitor as &dyn Expected).to_string();
        self.note(match wanted.as_str() {
            wanted if wanted.contains("IntOrString") => "IntOrString",
            _ => "Object",
        });
        match wanted.as_str() {
            wanted if wanted.contains("IntOrString") => visitor.visit_i64(0),
            wanted if wanted.contains("OrArray") || wanted.contains("OrStringArray") => {
                visitor.visit_seq(self.items(&[]))
            }
            wanted if wanted.contains("OrBool") => visitor.visit_bool(false),
            _ => visitor.visit_unit(),
        }
    }

    /// A type of one value, with a text in it that it can read.
    fn note_newtype<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        let text = match name {
            "Time" | "MicroTime" => "1970-01-01T00:00:00.000000Z",
            "Quantity" => "0",
            "ByteString" => "",
            _ => return visitor.visit_newtype_struct(self),
        };
        self.note("string");
        visitor.visit_newtype_struct(StrDeserializer::<TypeError>::new(text))
    }

    fn items(&self, items: &'de [Value]) -> Items<'de, 'a> {
        Items {
            items,
            next: 0,
            at: self.at,
            unknown: self.unknown,
            probe: self.probe,
        }
    }

    /// Entries that are these keys.
    fn noted(&self, fields: &'static [&'static str]) -> Entries<'de, 'a> {
        Entries {
            entries: None,
            known: None,
            fields: Some(fields),
            pending: None,
            at: self.at,
            unknown: self.unknown,
            probe: self.probe,
        }
    }

    /// Go's `UnmarshalTypeError`.
    fn mistyped(&self, wanted: &str) -> TypeError {
        let found = match self.value {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let path = self.at.path.fields();
        TypeError(if path.is_empty() {
            format!("json: cannot unmarshal {found} into Go value of type {wanted}")
        } else {
            format!(
                "json: cannot unmarshal {found} into Go struct field {}.{path} of type {wanted}",
                self.at.owner
            )
        })
    }

    /// The number, whole and between `low` and `high`. YAML 1.1 octal (`0644`) comes as text.
    fn whole(&self, wanted: &str, low: i128, high: i128) -> Result<i128, TypeError> {
        let number = match self.value {
            Value::Null => Some(0),
            Value::Number(n) => n
                .as_i64()
                .map(i128::from)
                .or_else(|| n.as_u64().map(i128::from))
                .or_else(|| n.as_f64().filter(|f| f.fract() == 0.0).map(|f| f as i128)),
            Value::String(text) if text.len() > 1 && text.starts_with('0') => {
                i128::from_str_radix(text, 8).ok()
            }
            _ => None,
        };
        number
            .filter(|n| (low..=high).contains(n))
            .ok_or_else(|| match self.value {
                Value::Number(n) => {
                    let owner = self.at.owner;
                    let path = self.at.path.fields();
                    TypeError(format!(
                        "json: cannot unmarshal number {n} into Go struct field {owner}.{path} \
                         of type {wanted}"
                    ))
                }
                _ => self.mistyped(wanted),
            })
    }
}

macro_rules! whole {
    ($method:ident, $visit:ident, $type:ty) => {
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
            self.note("integer");
            let (low, high) = (<$type>::MIN as i128, <$type>::MAX as i128);
            let n = self.whole(go_name(stringify!($type)), low, high)?;
            visitor.$visit(n as $type)
        }
    };
}

fn go_name(rust: &str) -> &'static str {
    match rust {
        "i8" => "int8",
        "i16" => "int16",
        "i32" => "int32",
        "i64" => "int64",
        "u8" => "uint8",
        "u16" => "uint16",
        "u32" => "uint32",
        _ => "uint64",
    }
}

impl<'de> Deserializer<'de> for Go<'de, '_> {
    type Error = TypeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        if self.probe.is_some() {
            return self.note_any(visitor);
        }
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(b) => visitor.visit_bool(*b),
            Value::Number(n) => {
                if let Some(n) = n.as_i64() {
                    visitor.visit_i64(n)
                } else if let Some(n) = n.as_u64() {
                    visitor.visit_u64(n)
                } else {
                    visitor.visit_f64(n.as_f64().unwrap_or_default())
                }
            }
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(_) => self.deserialize_seq(visitor),
            Value::Object(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        self.note("boolean");
        match self.value {
            Value::Null => visitor.visit_bool(false),
            Value::Bool(b) => visitor.visit_bool(*b),
            _ => Err(self.mistyped("bool")),
        }
    }

    whole!(deserialize_i8, visit_i8, i8);
    whole!(deserialize_i16, visit_i16, i16);
    whole!(deserialize_i32, visit_i32, i32);
    whole!(deserialize_i64, visit_i64, i64);
    whole!(deserialize_u8, visit_u8, u8);
    whole!(deserialize_u16, visit_u16, u16);
    whole!(deserialize_u32, visit_u32, u32);
    whole!(deserialize_u64, visit_u64, u64);

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        self.note("number");
        match self.value {
            Value::Null => visitor.visit_f64(0.0),
            Value::Number(n) => visitor.visit_f64(n.as_f64().unwrap_or_default()),
            _ => Err(self.mistyped("float64")),
        }
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        self.note("string");
        match self.value {
            Value::Null => visitor.visit_borrowed_str(""),
            Value::String(text) => visitor.visit_borrowed_str(text),
            _ => Err(self.mistyped("string")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match self.value {
            Value::Null if self.probe.is_none() => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        if self.probe.is_some() {
            return self.note_newtype(name, visitor);
        }
        match self.value {
            // A Quantity may be written as a bare number (`cpu: 1`).
            Value::Number(n) if name == "Quantity" => {
                let text = n.to_string();
                visitor.visit_newtype_struct(StrDeserializer::<TypeError>::new(&text))
            }
            _ => {
                let place = self.at.path.full();
                visitor.visit_newtype_struct(self).map_err(|e: TypeError| {
                    if e.0.starts_with("json:") {
                        e
                    } else {
                        TypeError::custom(format!("{place}: {e}"))
                    }
                })
            }
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        if let Some(probe) = self.probe {
            let items = std::slice::from_ref(&NOTHING);
            let made = visitor.visit_seq(self.items(items));
            let mut probe = probe.borrow_mut();
            probe.last = Type::List(Box::new(std::mem::take(&mut probe.last)));
            return made;
        }
        match self.value {
            Value::Null => visitor.visit_seq(self.items(&[])),
            Value::Array(items) => visitor.visit_seq(self.items(items)),
            _ => Err(self.mistyped("[]")),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        let entries = match self.value {
            Value::Null => None,
            Value::Object(map) => Some(map.iter()),
            _ => return Err(self.mistyped("map[string]string")),
        };
        if let Some(probe) = self.probe {
            let made = visitor.visit_map(self.noted(&[""]));
            let mut probe = probe.borrow_mut();
            probe.last = Type::Map(Box::new(std::mem::take(&mut probe.last)));
            return made;
        }
        visitor.visit_map(Entries {
            entries,
            known: None,
            fields: None,
            pending: None,
            at: self.at,
            unknown: self.unknown,
            probe: self.probe,
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        let entries = match self.value {
            Value::Null => None,
            Value::Object(map) => Some(map.iter()),
            _ => return Err(self.mistyped(&format!("v1.{name}"))),
        };
        if let Some(probe) = self.probe {
            // A struct within itself has been noted, or will have been.
            let is_new = probe.borrow_mut().begin(name);
            let made = visitor.visit_map(Entries {
                known: Some(fields),
                at: At {
                    path: self.at.path,
                    owner: name,
                },
                ..self.noted(if is_new { fields } else { &[] })
            });
            probe.borrow_mut().last = Type::Struct(name);
            return made;
        }
        visitor.visit_map(Entries {
            entries,
            known: Some(fields),
            fields: None,
            pending: None,
            at: At {
                path: self.at.path,
                owner: name,
            },
            unknown: self.unknown,
            probe: self.probe,
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        if self.probe.is_some() {
            self.note("string");
            let first = variants.first().copied().unwrap_or_default();
            return visitor.visit_enum(StrDeserializer::<TypeError>::new(first));
        }
        match self.value {
            Value::Object(map) => {
                let entries = Entries {
                    entries: Some(map.iter()),
                    known: None,
                    fields: None,
                    pending: None,
                    at: self.at,
                    unknown: self.unknown,
                    probe: self.probe,
                };
                visitor.visit_enum(MapAccessDeserializer::new(entries))
            }
            Value::String(text) => visitor.visit_enum(StrDeserializer::<TypeError>::new(text)),
            _ => Err(self.mistyped("string")),
        }
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        visitor.visit_unit()
    }
}

/// An array's items.
struct Items<'de, 'a> {
    items: &'de [Value],
    next: usize,
    at: At<'a>,
    unknown: &'a RefCell<Vec<String>>,
    /// Notes what is read, while a type is asked for its structure.
    probe: Option<&'a RefCell<Structure>>,
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
struct Entries<'de, 'a> {
    entries: Option<serde_json::map::Iter<'de>>,
    known: Option<&'static [&'static str]>,
    /// In place of the entries, while a type is asked for its structure: its fields, or a key.
    fields: Option<&'static [&'static str]>,
    pending: Option<(&'de str, &'de Value)>,
    at: At<'a>,
    unknown: &'a RefCell<Vec<String>>,
    /// Notes what is read, while a type is asked for its structure.
    probe: Option<&'a RefCell<Structure>>,
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
