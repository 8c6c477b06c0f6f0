//! Text to objects: YAML or JSON, several documents, `List`s.

use serde_json::{Map, Value};
use thiserror::Error;

use super::definitions::Definitions;
use super::go_json::TypeError;
use super::kinds::{self, Kind};
use super::{Object, yaml};

/// The most objects that one call takes, over all documents and lists.
pub const MAX_OBJECTS: usize = 100_000;
/// The deepest nesting of `List`s.
const MAX_LIST_DEPTH: usize = 8;

/// Why a document is no object.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// Neither YAML nor JSON.
    #[error("error parsing {source_name}: {message}")]
    Syntax {
        /// File name, URL or `STDIN`.
        source_name: String,
        /// In the words of kubectl.
        message: String,
    },
    /// Not an object, or without `apiVersion`, `kind` or name.
    #[error("{0}")]
    Malformed(String),
    /// A kind that nobody knows.
    #[error(
        "no matches for kind {kind:?} in version {api_version:?}\nensure CRDs are installed first"
    )]
    UnknownKind {
        /// As it was written.
        api_version: String,
        /// As it was written.
        kind: String,
        /// The object's name.
        name: String,
        /// The object's namespace.
        namespace: String,
    },
    /// A policy that somebody else would enforce and we would not: to store it in silence would
    /// leave open what its author believes closed.
    #[error(
        "{kind} of {api_version} ({name:?}) restricts traffic and is not enforced here; \
         leave it out, or say that it may be ignored (--ignore-kinds={kind})"
    )]
    ForeignPolicy {
        /// As it was written.
        api_version: String,
        /// As it was written.
        kind: String,
        /// The object's name.
        name: String,
    },
    /// A field of the wrong type, or (strict) a field that the kind does not have.
    #[error("{kind} in version {version:?} cannot be handled as a {kind}: {message}")]
    Unfit {
        /// `NetworkPolicy`.
        kind: &'static str,
        /// `v1`.
        version: &'static str,
        /// `strict decoding error: unknown field "spec.x"`, `json: cannot unmarshal …`.
        message: String,
    },
    /// More than [`MAX_OBJECTS`], or lists in lists in lists.
    #[error("too many objects: at most {MAX_OBJECTS} at once, lists nested at most 8 deep")]
    TooMany,
}

impl DecodeError {
    pub(crate) fn mistyped(kind: &'static Kind, error: TypeError) -> DecodeError {
        DecodeError::Unfit {
            kind: kind.kind,
            version: kind.version(),
            message: error.to_string(),
        }
    }
}

/// What to do with fields that a kind does not have (kubectl's `--validate`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FieldValidation {
    /// Refuse.
    #[default]
    Strict,
    /// Warn.
    Warn,
    /// Take no notice.
    Ignore,
}

/// What to do with kinds that nobody knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum UnknownKinds {
    /// Refuse, as a cluster does.
    #[default]
    Refuse,
    /// Leave them out with a warning, for offline use. A policy kind that we do not enforce is
    /// refused all the same.
    Skip,
}

/// How documents are read.
#[derive(Clone, Debug, Default)]
pub struct DecodeOptions<'a> {
    /// Fields that a kind does not have.
    pub fields: FieldValidation,
    /// Kinds that nobody knows.
    pub unknown_kinds: UnknownKinds,
    /// Kinds to leave out, policies of others included (`--ignore-kinds`).
    pub ignored_kinds: &'a [String],
    /// Namespace of objects that name none; `None` is `default`.
    pub namespace: Option<&'a str>,
    /// Kinds beside those that everybody knows.
    pub definitions: Definitions,
}

/// What documents held.
#[derive(Clone, Debug, Default)]
pub struct Decoded {
    /// In the order of the documents.
    pub objects: Vec<Object>,
    /// For stderr, behind `Warning: `.
    pub warnings: Vec<String>,
}

/// The objects in `text`, strictly: as `kubectl apply --validate=true`.
///
/// `source_name` is a file's name, a URL or `STDIN`, for errors.
pub fn decode_documents(text: &str, source_name: &str) -> Result<Vec<Object>, DecodeError> {
    decode_documents_with(text, source_name, &DecodeOptions::default())
        .map(|decoded| decoded.objects)
}

/// The objects in `text`, `List`s taken apart. Kinds that it defines itself are known, too.
pub fn decode_documents_with(
    text: &str,
    source_name: &str,
    options: &DecodeOptions<'_>,
) -> Result<Decoded, DecodeError> {
    let values = documents(text, source_name)?;
    let mut options = options.clone();
    options.definitions.read_all(&values);
    let mut decoded = Decoded::default();
    for value in values {
        decode_value(value, &options, &mut decoded)?;
    }
    Ok(decoded)
}

/// The documents in `text`, as they are.
pub fn documents(text: &str, source_name: &str) -> Result<Vec<Value>, DecodeError> {
    yaml::documents(text).map_err(|error| DecodeError::Syntax {
        source_name: source_name.to_owned(),
        message: error.message,
    })
}

/// The objects that `value` holds (a `List` holds several), added to `decoded`.
pub fn decode_value(
    value: Value,
    options: &DecodeOptions<'_>,
    decoded: &mut Decoded,
) -> Result<(), DecodeError> {
    decode_nested(value, options, decoded, 0)
}

fn decode_nested(
    mut value: Value,
    options: &DecodeOptions<'_>,
    decoded: &mut Decoded,
    depth: usize,
) -> Result<(), DecodeError> {
    let (api_version, kind) = type_of(&value)?;
    let listed = kind.strip_suffix("List").is_some_and(|item| {
        (item.is_empty() && api_version == "v1")
            || kinds::find(&api_version, item).is_some()
            || options.definitions.find(&api_version, item).is_some()
    });
    if listed {
        if depth == MAX_LIST_DEPTH {
            return Err(DecodeError::TooMany);
        }
        let items = match value["items"].take() {
            Value::Array(items) => items,
            Value::Null => Vec::new(),
            _ => return Err(DecodeError::Malformed(format!("{kind}: items is no list"))),
        };
        for mut item in items {
            inherit_type(&mut item, &api_version, &kind);
            decode_nested(item, options, decoded, depth + 1)?;
        }
        return Ok(());
    }
    if decoded.objects.len() == MAX_OBJECTS {
        return Err(DecodeError::TooMany);
    }
    if options.ignored_kinds.contains(&kind) {
        decoded
            .warnings
            .push(format!("{kind} {:?} ignored", name_of(&value)));
        return Ok(());
    }
    let deprecated = options.definitions.deprecated(&api_version, &kind);
    let (known, mut gone) = match admit(&mut value, &options.definitions) {
        Err(DecodeError::UnknownKind { .. }) if options.unknown_kinds == UnknownKinds::Skip => {
            decoded.warnings.push(format!(
                "skipped {kind} {:?}: nothing is known of {api_version} {kind}",
                name_of(&value)
            ));
            return Ok(());
        }
        other => other?,
    };
    place(&mut value, known, options.namespace.unwrap_or("default"))?;
    let (object, unknown) = Object::with_kind(known, value)?;
    gone.extend(unknown);
    let warnings = report(known, gone, options.fields)?;
    decoded
        .warnings
        .extend(warnings.into_iter().chain(deprecated));
    decoded.objects.push(object);
    Ok(())
}

/// Items of a typed list (`PodList`) need not repeat their type.
fn inherit_type(item: &mut Value, api_version: &str, list_kind: &str) {
    let (Some(map), Some(kind)) = (item.as_object_mut(), list_kind.strip_suffix("List")) else {
        return;
    };
    if !kind.is_empty() && !map.contains_key("kind") {
        map.insert("apiVersion".to_owned(), Value::from(api_version));
        map.insert("kind".to_owned(), Value::from(kind));
    }
}

/// Fills in the namespace of a namespaced kind, removes it from a cluster-scoped one.
fn place(value: &mut Value, kind: &'static Kind, namespace: &str) -> Result<(), DecodeError> {
    let Some(map) = value.as_object_mut() else {
        return Ok(());
    };
    let meta = map
        .entry("metadata")
        .or_insert_with(|| Value::Object(Map::new()));
    if meta.is_null() {
        *meta = Value::Object(Map::new());
    }
    let Some(meta) = meta.as_object_mut() else {
        return Err(DecodeError::Unfit {
            kind: kind.kind,
            version: kind.version(),
            message: format!(
                "json: cannot unmarshal into Go struct field {}.metadata of type v1.ObjectMeta",
                kind.kind
            ),
        });
    };
    let given = meta.get("namespace").and_then(Value::as_str);
    let empty = given.is_none_or(str::is_empty);
    if !kind.namespaced {
        meta.shift_remove("namespace");
    } else if empty
        && meta
            .get("namespace")
            .is_none_or(|v| v.is_null() || v.is_string())
    {
        meta.insert("namespace".to_owned(), Value::from(namespace));
    }
    Ok(())
}

/// Whether `value` fits its kind, which it tells itself; the kind, and warnings. What the kind's
/// schema does not know goes.
pub(crate) fn check(
    value: &mut Value,
    definitions: &Definitions,
    fields: FieldValidation,
) -> Result<(&'static Kind, Vec<String>), DecodeError> {
    let (kind, mut gone) = admit(value, definitions)?;
    gone.extend((kind.check)(value).map_err(|error| DecodeError::mistyped(kind, error))?);
    Ok((kind, report(kind, gone, fields)?))
}

/// The API server's strict decoding error, or warnings.
fn report(
    kind: &'static Kind,
    unknown: Vec<String>,
    fields: FieldValidation,
) -> Result<Vec<String>, DecodeError> {
    match fields {
        FieldValidation::Warn => {
            let warnings = unknown.iter().map(|path| format!("unknown field {path:?}"));
            return Ok(warnings.collect());
        }
        FieldValidation::Ignore => {}
        FieldValidation::Strict if unknown.is_empty() => {}
        FieldValidation::Strict => {
            let list: Vec<String> = unknown
                .iter()
                .map(|path| format!("unknown field {path:?}"))
                .collect();
            return Err(DecodeError::Unfit {
                kind: kind.kind,
                version: kind.version(),
                message: format!("strict decoding error: {}", list.join(", ")),
            });
        }
    }
    Ok(Vec::new())
}

fn name_of(value: &Value) -> String {
    let meta = &value["metadata"];
    let name = meta["name"]
        .as_str()
        .or_else(|| meta["generateName"].as_str());
    name.unwrap_or_default().to_owned()
}

/// `apiVersion` and `kind`, in kubectl's words where they lack.
pub(super) fn type_of(value: &Value) -> Result<(String, String), DecodeError> {
    let Some(map) = value.as_object() else {
        return Err(DecodeError::Malformed(format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go value \
             of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \
             \"json:\\\"kind,omitempty\\\"\" }}",
            match value {
                Value::Array(_) => "array",
                Value::String(_) => "string",
                Value::Bool(_) => "bool",
                _ => "number",
            }
        )));
    };
    let text = |field: &str| match map.get(field) {
        Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
        _ => None,
    };
    let shown = || serde_json::to_string(value).unwrap_or_default();
    let kind = text("kind").ok_or_else(|| {
        DecodeError::Malformed(format!("Object 'Kind' is missing in '{}'", shown()))
    })?;
    let api_version = text("apiVersion").ok_or_else(|| {
        DecodeError::Malformed(format!("Object 'apiVersion' is missing in '{}'", shown()))
    })?;
    Ok((api_version, kind))
}

/// The kind of `value`, of those that everybody knows.
pub(crate) fn kind_of(value: &Value) -> Result<&'static Kind, DecodeError> {
    let (api_version, kind) = type_of(value)?;
    kinds::find(&api_version, &kind).ok_or_else(|| unknown(value, api_version, kind))
}

/// The kind of `value`, which is as its definition keeps it, if it has one.
pub(crate) fn kind_among(
    value: &Value,
    definitions: &Definitions,
) -> Result<&'static Kind, DecodeError> {
    let (api_version, kind) = type_of(value)?;
    let known = kinds::find(&api_version, &kind);
    let defined = || {
        definitions
            .find(&api_version, &kind)
            .map(|(own, _)| own.kind)
    };
    known
        .or_else(defined)
        .ok_or_else(|| unknown(value, api_version, kind))
}

/// The kind of `value`, which is made what its definition keeps, if it has one; the paths of what
/// went.
pub(crate) fn admit(
    value: &mut Value,
    definitions: &Definitions,
) -> Result<(&'static Kind, Vec<String>), DecodeError> {
    let (api_version, kind) = type_of(value)?;
    if let Some(kind) = kinds::find(&api_version, &kind) {
        return Ok((kind, Vec::new()));
    }
    match definitions.find(&api_version, &kind) {
        Some((definition, version)) if !kinds::is_foreign_policy(&api_version, &kind) => {
            Ok((definition.kind, definition.admit(version, value)))
        }
        _ => Err(unknown(value, api_version, kind)),
    }
}

/// Why there is no kind of this name.
fn unknown(value: &Value, api_version: String, kind: String) -> DecodeError {
    let name = name_of(value);
    if kinds::is_foreign_policy(&api_version, &kind) {
        return DecodeError::ForeignPolicy {
            api_version,
            kind,
            name,
        };
    }
    DecodeError::UnknownKind {
        api_version,
        kind,
        name,
        namespace: value["metadata"]["namespace"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
    }
}
