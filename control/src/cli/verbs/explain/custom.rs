//! The fields of a kind that a CustomResourceDefinition defines, as its schema tells of them.

use serde_json::{Map, Value, json};

use super::wrapped;
use crate::cli::session::{Session, VerbError};
use crate::objects::Definitions;
use crate::objects::definitions::Definition;
use crate::protocol::{GetParams, GetReply};

/// What the API server says of the members of every resource.
const OF_RESOURCES: [(&str, &str, &str); 3] = [
    (
        "apiVersion",
        "string",
        "APIVersion defines the versioned schema of this representation of an object. Servers \
         should convert recognized schemas to the latest internal value, and may reject \
         unrecognized values. More info: \
         https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources",
    ),
    (
        "kind",
        "string",
        "Kind is a string value representing the REST resource this object represents. Servers may \
         infer this from the endpoint the client submits requests to. Cannot be updated. In \
         CamelCase. More info: \
         https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds",
    ),
    (
        "metadata",
        "ObjectMeta",
        "Standard object's metadata. More info: \
         https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
    ),
];

/// What is wanted beside the kind.
#[derive(Clone, Copy)]
pub struct Wanted<'w> {
    /// `--api-version`.
    pub version: Option<&'w str>,
    /// `--recursive`.
    pub recursive: bool,
    /// `--max-depth`; 0: no limit.
    pub depth: usize,
}

/// The page, if `path` begins with a kind that is defined.
pub fn page(
    session: &mut Session,
    path: &str,
    wanted: Wanted,
) -> Result<Option<String>, VerbError> {
    let definitions = session.definitions();
    let Some((definition, fields)) = meant(&definitions, path) else {
        return Ok(None);
    };
    let params = GetParams {
        resource: "customresourcedefinitions".to_owned(),
        name: Some(definition.name()),
        ..GetParams::default()
    };
    let reply: GetReply = session.connect()?.call("get", params)?;
    let crd = reply.items.into_iter().next().unwrap_or_default();
    let group = definition.kind.group();
    let served = definition.versions();
    let version = match wanted.version {
        None => &served[0],
        Some(wanted) => {
            let is_wanted = |name: &str| format!("{group}/{name}") == wanted;
            served
                .iter()
                .find(|version| is_wanted(&version.name))
                .ok_or_else(|| {
                    let resource = definition.kind.plural;
                    let text =
                        format!("couldn't find resource for \"{wanted}, Resource={resource}\"");
                    VerbError::Local(text)
                })?
        }
    };
    let versions = crd["spec"]["versions"].as_array().into_iter().flatten();
    let mut versions = versions.filter(|one| one["name"] == version.name.as_str());
    let schema = versions.next().map(|one| &one["schema"]["openAPIV3Schema"]);
    let mut text = format!(
        "GROUP:      {group}\nKIND:       {}\nVERSION:    {}\n\n",
        definition.kind.kind, version.name
    );
    whole(
        &resource(schema.unwrap_or(&Value::Null)),
        &fields,
        wanted,
        &mut text,
    )?;
    Ok(Some(text))
}

/// The definition that the longest beginning of `path` names, and the fields behind it.
fn meant<'d>(definitions: &'d Definitions, path: &str) -> Option<(&'d Definition, Vec<String>)> {
    let parts: Vec<&str> = path.split('.').filter(|part| !part.is_empty()).collect();
    (1..=parts.len()).rev().find_map(|length| {
        let kind = definitions.find_resource(&parts[..length].join("."))?;
        let rest = parts[length..].iter().map(|part| (*part).to_owned());
        Some((&**definitions.of(kind)?, rest.collect()))
    })
}

/// A schema with what every resource has.
fn resource(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if !schema.is_object() {
        schema = json!({"type": "object"});
    }
    if !schema["properties"].is_object() {
        schema["properties"] = json!({});
    }
    for (name, kind, description) in OF_RESOURCES {
        let said = schema["properties"][name]["description"]
            .as_str()
            .map(str::to_owned);
        let said = said.unwrap_or_else(|| description.to_owned());
        schema["properties"][name] = json!({"type": kind, "description": said});
    }
    schema
}

fn whole(
    schema: &Value,
    path: &[String],
    wanted: Wanted,
    text: &mut String,
) -> Result<(), VerbError> {
    let mut at = schema;
    for (index, name) in path.iter().enumerate() {
        let missing = || VerbError::Local(format!("field \"{name}\" does not exist"));
        at = properties(at)
            .and_then(|fields| fields.get(name))
            .ok_or_else(missing)?;
        if index + 1 == path.len() {
            text.push_str(&format!("FIELD: {name} <{}>\n", type_name(at)));
            if let Some(values) = enumeration(at) {
                text.push_str("ENUM:\n");
                values
                    .iter()
                    .for_each(|value| text.push_str(&format!("    {value}\n")));
                text.push('\n');
            } else {
                text.push_str("\n\n");
            }
        }
    }
    text.push_str("DESCRIPTION:\n");
    match said(at) {
        "" => text.push_str("    <empty>\n"),
        said => wrapped(said, 4, text),
    }
    text.push('\n');
    if properties(at).is_some() {
        text.push_str("FIELDS:\n");
        fields(at, 1, wanted, text);
    }
    text.push('\n');
    Ok(())
}

fn fields(owner: &Value, level: usize, wanted: Wanted, text: &mut String) {
    let indent = "  ".repeat(level);
    let mut all: Vec<_> = properties(owner).into_iter().flatten().collect();
    all.sort_by_key(|(name, _)| name.as_str());
    for (name, field) in all {
        let holder = holder(owner);
        let required = holder["required"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|one| one == name);
        let mark = if required { " -required-" } else { "" };
        text.push_str(&format!("{indent}{name}\t<{}>{mark}\n", type_name(field)));
        if let Some(values) = enumeration(field) {
            text.push_str(&format!("{indent}enum: {}\n", values.join(", ")));
        }
        if !wanted.recursive {
            let said = match said(field) {
                "" => "<no description>",
                said => said,
            };
            wrapped(said, 2 * level + 2, text);
            text.push('\n');
        } else if wanted.depth == 0 || level < wanted.depth {
            fields(field, level + 1, wanted, text);
        }
    }
}

/// What a list or a map holds, or the value itself.
fn holder(schema: &Value) -> &Value {
    match schema["type"].as_str() {
        Some("array") if schema["items"].is_object() => holder(&schema["items"]),
        _ if schema["additionalProperties"].is_object() => holder(&schema["additionalProperties"]),
        _ => schema,
    }
}

fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    let fields = holder(schema)["properties"].as_object();
    fields.filter(|fields| !fields.is_empty())
}

fn said(schema: &Value) -> &str {
    schema["description"].as_str().unwrap_or_default()
}

fn enumeration(schema: &Value) -> Option<Vec<String>> {
    let mut values: Vec<String> = schema["enum"]
        .as_array()?
        .iter()
        .map(|value| {
            value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned)
        })
        .collect();
    values.sort_unstable();
    Some(values)
}

fn type_name(schema: &Value) -> String {
    if schema["x-kubernetes-int-or-string"] == true {
        return "IntOrString".to_owned();
    }
    match schema["type"].as_str() {
        Some("array") => format!("[]{}", type_name(&schema["items"])),
        Some("object") | None if schema["additionalProperties"].is_object() => {
            format!("map[string]{}", type_name(&schema["additionalProperties"]))
        }
        Some("object") | None => "Object".to_owned(),
        Some(other) => other.to_owned(),
    }
}
