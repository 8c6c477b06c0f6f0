//! The schema of a custom resource (`openAPIV3Schema`): what is read of it ([`Schema::read`]), what
//! of an object it keeps ([`Schema::prune`]) and fills in ([`Schema::fill`]). What it complains of is
//! said by `validate`.
//!
//! Structural schemas only, as `apiextensions.k8s.io/v1` has them (apiextensions-apiserver
//! `pkg/apiserver/schema`). Not looked at: rules in CEL (`x-kubernetes-validations`), formats other
//! than [`Format`]'s, patterns that need Unicode's tables.

use std::collections::BTreeMap;

use regex::bytes::{Regex, RegexBuilder};
use serde_json::Value;

mod fill;
mod prune;

pub use fill::TooLarge;

/// Bytes that a compiled pattern may take.
const PATTERN_BYTES: usize = 1 << 20;

/// A node of a schema.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// `type`; none where anything may stand.
    pub kind: Option<SchemaType>,
    /// `nullable`.
    pub nullable: bool,
    /// `properties`.
    pub properties: BTreeMap<String, Schema>,
    /// `additionalProperties`.
    pub additional: Additional,
    /// `items`.
    pub items: Option<Box<Schema>>,
    /// `default`.
    pub default: Option<Value>,
    /// `x-kubernetes-preserve-unknown-fields`.
    pub keeps_unknown: bool,
    /// `x-kubernetes-embedded-resource`.
    pub is_embedded: bool,
    /// `x-kubernetes-int-or-string`.
    pub is_int_or_string: bool,
    /// `x-kubernetes-list-type`.
    pub list: ListType,
    /// `required`.
    pub required: Vec<String>,
    /// What values must be beside that, if it says anything of it.
    pub checks: Option<Box<Checks>>,
}

/// `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemaType {
    /// `object`.
    Object,
    /// `array`.
    Array,
    /// `string`.
    String,
    /// `integer`.
    Integer,
    /// `number`.
    Number,
    /// `boolean`.
    Boolean,
}

impl SchemaType {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            SchemaType::Object => "object",
            SchemaType::Array => "array",
            SchemaType::String => "string",
            SchemaType::Integer => "integer",
            SchemaType::Number => "number",
            SchemaType::Boolean => "boolean",
        }
    }

    fn read(text: &str) -> Option<SchemaType> {
        [
            SchemaType::Object,
            SchemaType::Array,
            SchemaType::String,
            SchemaType::Integer,
            SchemaType::Number,
            SchemaType::Boolean,
        ]
        .into_iter()
        .find(|kind| kind.name() == text)
    }
}

/// `additionalProperties`.
#[derive(Clone, Debug, Default)]
pub enum Additional {
    /// Nothing is said of them: they are pruned.
    #[default]
    Unknown,
    /// `true`.
    Any,
    /// Each is so.
    Each(Box<Schema>),
}

/// `x-kubernetes-list-type`: what tells the items of a list apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// Nothing.
    #[default]
    Atomic,
    /// Their values.
    Set,
    /// These members of theirs (`x-kubernetes-list-map-keys`).
    Map(Vec<String>),
}

/// Formats of texts that are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the formats'")]
pub enum Format {
    DateTime,
    Date,
    Ipv4,
    Ipv6,
    Cidr,
    Mac,
    Uuid,
}

impl Format {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Format::DateTime => "date-time",
            Format::Date => "date",
            Format::Ipv4 => "ipv4",
            Format::Ipv6 => "ipv6",
            Format::Cidr => "cidr",
            Format::Mac => "mac",
            Format::Uuid => "uuid",
        }
    }

    fn read(text: &str) -> Option<Format> {
        [
            Format::DateTime,
            Format::Date,
            Format::Ipv4,
            Format::Ipv6,
            Format::Cidr,
            Format::Mac,
            Format::Uuid,
        ]
        .into_iter()
        .find(|format| format.name() == text || (text == "datetime" && *format == Format::DateTime))
    }
}

/// What values must be, beside their types.
#[derive(Clone, Debug, Default)]
#[expect(
    missing_docs,
    reason = "each is the member of the schema that is called so"
)]
pub struct Checks {
    pub enumeration: Option<Vec<Value>>,
    pub minimum: Option<f64>,
    pub exclusive_minimum: bool,
    pub maximum: Option<f64>,
    pub exclusive_maximum: bool,
    pub multiple_of: Option<f64>,
    pub min_length: Option<u64>,
    pub max_length: Option<u64>,
    pub pattern: Option<Regex>,
    pub format: Option<Format>,
    pub min_items: Option<u64>,
    pub max_items: Option<u64>,
    pub min_properties: Option<u64>,
    pub max_properties: Option<u64>,
    pub all_of: Vec<Schema>,
    pub any_of: Vec<Schema>,
    pub one_of: Vec<Schema>,
    pub not: Option<Schema>,
}

/// What of a schema is not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    /// Whether there are rules in CEL.
    pub has_rules: bool,
    /// Patterns that cannot be compiled, at most [`Unread::PATTERNS`] of them.
    pub patterns: Vec<String>,
}

impl Unread {
    const PATTERNS: usize = 3;
}

impl Schema {
    /// What takes everything: of a kind whose schema somebody else holds objects against.
    pub fn open() -> Schema {
        Schema {
            kind: Some(SchemaType::Object),
            keeps_unknown: true,
            ..Schema::default()
        }
    }

    /// Reads a JSONSchemaProps, whose members have their types.
    pub fn read(value: &Value, unread: &mut Unread) -> Schema {
        let flag = |name: &str| value[name].as_bool().unwrap_or_default();
        let is_int_or_string = flag("x-kubernetes-int-or-string");
        let schemas = |name: &str| value[name].as_object().into_iter().flatten();
        let properties = schemas("properties")
            .map(|(name, property)| (name.clone(), Schema::read(property, unread)))
            .collect();
        let additional = match &value["additionalProperties"] {
            Value::Null | Value::Bool(false) => Additional::Unknown,
            Value::Bool(true) => Additional::Any,
            schema => Additional::Each(Box::new(Schema::read(schema, unread))),
        };
        let items = value["items"].as_object().is_some();
        let items = items.then(|| Box::new(Schema::read(&value["items"], unread)));
        let list = match value["x-kubernetes-list-type"].as_str() {
            Some("set") => ListType::Set,
            Some("map") => ListType::Map(texts(&value["x-kubernetes-list-map-keys"])),
            _ => ListType::Atomic,
        };
        let rules = value["x-kubernetes-validations"].as_array();
        unread.has_rules |= rules.is_some_and(|rules| !rules.is_empty());
        let default = value.get("default").filter(|default| !default.is_null());
        Schema {
            kind: value["type"].as_str().and_then(SchemaType::read),
            nullable: flag("nullable"),
            properties,
            additional,
            items,
            default: default.cloned(),
            keeps_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            is_embedded: flag("x-kubernetes-embedded-resource"),
            is_int_or_string,
            list,
            required: texts(&value["required"]),
            checks: Checks::read(value, is_int_or_string, unread),
        }
    }
}

impl Checks {
    /// Names of the members that are read here.
    const MEMBERS: [&str; 16] = [
        "enum",
        "minimum",
        "maximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "pattern",
        "format",
        "minItems",
        "maxItems",
        "minProperties",
        "maxProperties",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
    ];

    fn read(value: &Value, is_int_or_string: bool, unread: &mut Unread) -> Option<Box<Checks>> {
        let has = |name: &&&str| value.get(**name).is_some_and(|member| !member.is_null());
        if !Checks::MEMBERS.iter().any(|name| has(&name)) {
            return None;
        }
        let number = |name: &str| value[name].as_f64();
        let count = |name: &str| value[name].as_u64();
        let flag = |name: &str| value[name].as_bool().unwrap_or_default();
        let mut branches = |name: &str| -> Vec<Schema> {
            let list = value[name].as_array().into_iter().flatten();
            list.map(|branch| Schema::read(branch, unread)).collect()
        };
        let (all_of, one_of) = (branches("allOf"), branches("oneOf"));
        // Beside `x-kubernetes-int-or-string` it says the same once more.
        let any_of = match is_int_or_string {
            true => Vec::new(),
            false => branches("anyOf"),
        };
        let not = value["not"].as_object().is_some();
        let not = not.then(|| Schema::read(&value["not"], unread));
        let pattern = value["pattern"].as_str().filter(|text| !text.is_empty());
        Some(Box::new(Checks {
            enumeration: value["enum"].as_array().cloned(),
            minimum: number("minimum"),
            exclusive_minimum: flag("exclusiveMinimum"),
            maximum: number("maximum"),
            exclusive_maximum: flag("exclusiveMaximum"),
            multiple_of: number("multipleOf"),
            min_length: count("minLength"),
            max_length: count("maxLength"),
            pattern: pattern.and_then(|text| compiled(text, unread)),
            format: value["format"].as_str().and_then(Format::read),
            min_items: count("minItems"),
            max_items: count("maxItems"),
            min_properties: count("minProperties"),
            max_properties: count("maxProperties"),
            all_of,
            any_of,
            one_of,
            not,
        }))
    }
}

/// A pattern as Go takes it: `\d` and its like are ASCII's.
fn compiled(text: &str, unread: &mut Unread) -> Option<Regex> {
    let built = RegexBuilder::new(text)
        .unicode(false)
        .size_limit(PATTERN_BYTES)
        .build();
    if built.is_err() && unread.patterns.len() < Unread::PATTERNS {
        unread.patterns.push(text.to_owned());
    }
    built.ok()
}

fn texts(list: &Value) -> Vec<String> {
    let items = list.as_array().into_iter().flatten();
    items
        .filter_map(|item| item.as_str().map(str::to_owned))
        .collect()
}
