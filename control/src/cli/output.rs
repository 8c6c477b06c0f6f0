//! `-o`: the forms in which objects are printed.

use serde_json::{Value, json};

use super::jsonpath::Template;
use super::session::VerbError;

/// A form of output.
#[derive(Debug)]
pub enum Form {
    /// A table.
    Table {
        /// With the columns of `-o wide`.
        wide: bool,
    },
    /// `resource/name` lines.
    Name,
    /// JSON, indented by four, keys sorted.
    Json,
    /// YAML, keys sorted.
    Yaml,
    /// kubectl's JSONPath.
    JsonPath(Template),
}

impl Form {
    /// The form that `-o` names; `template` is `--template`.
    pub fn parse(text: Option<&str>, template: Option<&str>) -> Result<Form, VerbError> {
        let jsonpath = |text: &str| {
            let parsed = Template::parse(text)
                .map_err(|e| VerbError::Local(format!("error parsing jsonpath {text}, {e}")))?;
            Ok(Form::JsonPath(parsed))
        };
        match text {
            None | Some("") => Ok(Form::Table { wide: false }),
            Some("wide") => Ok(Form::Table { wide: true }),
            Some("name") => Ok(Form::Name),
            Some("json") => Ok(Form::Json),
            Some("yaml") => Ok(Form::Yaml),
            Some("jsonpath") => match template {
                Some(template) => jsonpath(template),
                None => Err(VerbError::Local(
                    "template format specified but no template given".into(),
                )),
            },
            Some(other) => match other.split_once('=') {
                Some(("jsonpath", template)) => jsonpath(template),
                Some(("jsonpath-file", file)) => {
                    jsonpath(std::fs::read_to_string(file)?.trim_end())
                }
                _ => Err(VerbError::Local(format!(
                    "unable to match a printer suitable for the output format \"{other}\", \
                     allowed formats are: json,jsonpath,jsonpath-file,name,wide,yaml"
                ))),
            },
        }
    }

    /// The text of one value in a form that is no table and not [`Form::Name`].
    pub fn render(&self, value: &Value) -> Result<String, VerbError> {
        match self {
            Form::Yaml => yaml(value),
            Form::JsonPath(template) => Ok(template.render(value)),
            Form::Json | Form::Table { .. } | Form::Name => Ok(indented(value)),
        }
    }
}

/// Several objects as kubectl prints them together.
pub fn list(items: Vec<Value>) -> Value {
    json!({"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}})
}

/// The value with every object's keys sorted, as Go prints maps.
pub fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut pairs: Vec<_> = map.iter().collect();
            pairs.sort_by_key(|(key, _)| key.as_str());
            Value::Object(
                pairs
                    .into_iter()
                    .map(|(k, v)| (k.clone(), sorted(v)))
                    .collect(),
            )
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

/// JSON indented by four spaces, as kubectl's.
pub fn indented(value: &Value) -> String {
    use serde::Serialize;
    let mut out = Vec::new();
    let form = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, form);
    // Writing a Value into memory cannot fail: keys are strings and a Vec takes any length.
    let _ = sorted(value).serialize(&mut serializer);
    let mut text = String::from_utf8_lossy(&out).into_owned();
    text.push('\n');
    text
}

fn yaml(value: &Value) -> Result<String, VerbError> {
    serde_yaml_ng::to_string(&sorted(value)).map_err(|e| VerbError::Local(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_and_lists_wrapped() {
        let shown = indented(&list(vec![json!({"b": 1, "a": [{"d": 1, "c": 2}]})]));
        assert!(shown.find("\"a\"").unwrap() < shown.find("\"b\"").unwrap());
        assert!(shown.find("\"c\"").unwrap() < shown.find("\"d\"").unwrap());
        assert!(shown.contains("\n    \"kind\": \"List\""));
    }

    #[test]
    fn an_unknown_form_names_the_known_ones() {
        let error = Form::parse(Some("xml"), None).unwrap_err().to_string();
        assert!(error.starts_with("unable to match a printer suitable for the output format"));
    }
}
