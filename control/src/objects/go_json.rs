//! JSON read as Go's `encoding/json` and Kubernetes' strict decoder read it
//! (`sigs.k8s.io/json`): null is "absent, or zero" wherever it stands, a field that the type does
//! not have is reported with its path, and a value of the wrong type is described in Go's words.

mod entries;
mod path;
mod structure;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error as _, Expected, Visitor};
use serde_json::Value;

use entries::{Entries, Items};
use path::{At, Path};
pub use structure::{Structure, Type, VersionOf};

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
