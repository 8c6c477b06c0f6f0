//! JSON read as Go's `encoding/json` and Kubernetes' strict decoder read it
//! (`sigs.k8s.io/json`): null is "absent, or zero" wherever it stands, a field that the type does
//! not have is reported with its path, and a value of the wrong type is described in Go's words.

use std::cell::RefCell;
use std::fmt;

use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor,
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
    })?;
    Ok((typed, unknown.into_inner()))
}

/// As [`decode`], for the unknown fields alone.
pub fn check<T: DeserializeOwned>(value: &Value) -> Result<Vec<String>, TypeError> {
    decode::<T>(value).map(|(_, unknown)| unknown)
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
}

impl Go<'_, '_> {
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
            Value::Null => visitor.visit_none(),
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
        match self.value {
            Value::Null => visitor.visit_seq(Items {
                items: &[],
                next: 0,
                at: self.at,
                unknown: self.unknown,
            }),
            Value::Array(items) => visitor.visit_seq(Items {
                items,
                next: 0,
                at: self.at,
                unknown: self.unknown,
            }),
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
        visitor.visit_map(Entries {
            entries,
            known: None,
            pending: None,
            at: self.at,
            unknown: self.unknown,
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
        visitor.visit_map(Entries {
            entries,
            known: Some(fields),
            pending: None,
            at: At {
                path: self.at.path,
                owner: name,
            },
            unknown: self.unknown,
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        match self.value {
            Value::Object(map) => {
                let entries = Entries {
                    entries: Some(map.iter()),
                    known: None,
                    pending: None,
                    at: self.at,
                    unknown: self.unknown,
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
        })
        .map(Some)
    }
}

/// An object's entries; for a struct with the fields that it has.
struct Entries<'de, 'a> {
    entries: Option<serde_json::map::Iter<'de>>,
    known: Option<&'static [&'static str]>,
    pending: Option<(&'de str, &'de Value)>,
    at: At<'a>,
    unknown: &'a RefCell<Vec<String>>,
}

impl<'de> MapAccess<'de> for Entries<'de, '_> {
    type Error = TypeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, TypeError> {
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
        seed.deserialize(Go {
            value,
            at: At {
                path: &path,
                owner: self.at.owner,
            },
            unknown: self.unknown,
        })
    }
}
