//! `-o`: the forms in which objects are printed.

use serde_json::{Value, json};

use super::custom_columns::CustomColumns;
use super::flags::Parsed;
use super::go_template;
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
    /// What the paths lead to, as JSON lists.
    JsonPathAsJson(Template),
    /// Go's `text/template`.
    GoTemplate {
        /// The template.
        template: go_template::Template,
        /// Whether a key that is not there prints `<no value>`.
        missing_keys: bool,
    },
    /// A table of paths.
    CustomColumns(CustomColumns),
}

/// The forms that take a template: behind `=`, in `--template`, or in a file that one of them names.
const TEMPLATED: &[&str] = &[
    "custom-columns",
    "custom-columns-file",
    "go-template",
    "go-template-file",
    "jsonpath",
    "jsonpath-as-json",
    "jsonpath-file",
    "template",
    "templatefile",
];

impl Form {
    /// The form that the flags of a command line name.
    pub fn of(parsed: &Parsed) -> Result<Form, VerbError> {
        let mut form = Form::parse(parsed.value("output"), parsed.value("template"))?;
        let strict = parsed.value("allow-missing-template-keys") == Some("false");
        if let Form::GoTemplate { missing_keys, .. } = &mut form {
            *missing_keys = !strict;
        }
        Ok(form)
    }

    /// The form that `-o` names; `template` is `--template`.
    pub fn parse(text: Option<&str>, template: Option<&str>) -> Result<Form, VerbError> {
        let template = template.filter(|template| !template.is_empty());
        match text {
            None | Some("") if template.is_some() => Form::templated("go-template", template),
            None | Some("") => Ok(Form::Table { wide: false }),
            Some("wide") => Ok(Form::Table { wide: true }),
            Some("name") => Ok(Form::Name),
            Some("json") => Ok(Form::Json),
            Some("yaml") => Ok(Form::Yaml),
            Some(other) => {
                let (kind, inline) = match other.split_once('=') {
                    Some((kind, inline)) => (kind, Some(inline)),
                    None => (other, template),
                };
                if !TEMPLATED.contains(&kind) {
                    return Err(unmatched(other, true));
                }
                Form::templated(kind, inline.filter(|inline| !inline.is_empty()))
            }
        }
    }

    fn templated(kind: &str, given: Option<&str>) -> Result<Form, VerbError> {
        let local = |text: String| VerbError::Local(text);
        let Some(given) = given else {
            return Err(local(match kind {
                "custom-columns" | "custom-columns-file" => {
                    format!("{kind} format specified but no custom columns given")
                }
                _ => "template format specified but no template given".to_owned(),
            }));
        };
        let file;
        let text = match kind {
            "custom-columns-file" | "go-template-file" | "jsonpath-file" | "templatefile" => {
                file = std::fs::read_to_string(given).map_err(|error| {
                    let kind = kind.trim_end_matches("-file");
                    local(format!("error reading {kind} {given}, {error}"))
                })?;
                file.as_str()
            }
            _ => given,
        };
        let jsonpath = |text: &str| {
            Template::parse(text).map_err(|e| local(format!("error parsing jsonpath {text}, {e}")))
        };
        match kind {
            "jsonpath" => Ok(Form::JsonPath(jsonpath(text)?)),
            "jsonpath-file" => Ok(Form::JsonPath(jsonpath(text.trim_end())?)),
            "jsonpath-as-json" => Ok(Form::JsonPathAsJson(jsonpath(text)?)),
            "custom-columns" => Ok(Form::CustomColumns(CustomColumns::parse(text)?)),
            "custom-columns-file" => Ok(Form::CustomColumns(CustomColumns::parse_file(text)?)),
            _ => {
                let template = go_template::Template::parse(text)
                    .map_err(|error| local(format!("error parsing template {text}, {error}")))?;
                Ok(Form::GoTemplate {
                    template,
                    missing_keys: true,
                })
            }
        }
    }

    /// Whether it prints a list as one.
    pub const fn is_whole(&self) -> bool {
        !matches!(self, Form::Table { .. } | Form::Name)
    }

    /// The text of one value in a form that is no table and not [`Form::Name`].
    pub fn render(&self, value: &Value) -> Result<String, VerbError> {
        match self {
            Form::Yaml => yaml(value),
            Form::JsonPath(template) => Ok(template.render(value)),
            Form::JsonPathAsJson(template) => {
                let found = template.select(value).into_iter();
                Ok(found
                    .map(|list| indented(&Value::Array(list.into_iter().cloned().collect())))
                    .collect())
            }
            Form::GoTemplate {
                template,
                missing_keys,
            } => template.render(value, *missing_keys).map_err(|error| {
                // kubectl tells this on stdout; a script would take it for the answer.
                eprintln!(
                    "Error executing template: {error}. Printing more information for debugging \
                     the template:\n\ttemplate was:\n\t\t{}\n\tobject given to template engine \
                     was:\n\t\t{}\n",
                    template.text(),
                    go_template::shown(value)
                );
                VerbError::Local(format!(
                    "error executing template {:?}: {error}",
                    template.text()
                ))
            }),
            Form::CustomColumns(columns) => Ok(columns.render(value, true)),
            Form::Json | Form::Table { .. } | Form::Name => Ok(indented(value)),
        }
    }
}

/// kubectl's refusal of a form; verbs that print tables know two more.
pub fn unmatched(form: &str, tables: bool) -> VerbError {
    let mut known = TEMPLATED.to_vec();
    known.extend(["json", "name", "yaml"]);
    if tables {
        known.push("wide");
    } else {
        known.retain(|form| !form.starts_with("custom-columns"));
    }
    known.sort_unstable();
    VerbError::Local(format!(
        "unable to match a printer suitable for the output format \"{form}\", allowed formats \
         are: {}",
        known.join(",")
    ))
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

/// YAML with sorted keys.
pub fn yaml(value: &Value) -> Result<String, VerbError> {
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
        assert_eq!(
            error,
            "unable to match a printer suitable for the output format \"xml\", allowed formats \
             are: custom-columns,custom-columns-file,go-template,go-template-file,json,jsonpath,\
             jsonpath-as-json,jsonpath-file,name,template,templatefile,wide,yaml"
        );
        let error = unmatched("wide", false).to_string();
        assert!(
            !error.contains("custom") && !error.ends_with("wide,yaml"),
            "{error}"
        );
    }

    #[test]
    fn templates_come_from_either_flag() {
        let pod = json!({"status": {"podIP": "10.0.0.1"}});
        for (output, template) in [
            (Some("go-template"), Some("{{.status.podIP}}")),
            (Some("go-template={{.status.podIP}}"), None),
            (Some("template={{.status.podIP}}"), None),
            (None, Some("{{.status.podIP}}")),
            (Some("jsonpath"), Some("{.status.podIP}")),
        ] {
            let form = Form::parse(output, template).unwrap();
            assert_eq!(form.render(&pod).unwrap(), "10.0.0.1");
        }
        let form = Form::parse(Some("jsonpath-as-json={.status}"), None).unwrap();
        assert_eq!(
            form.render(&pod).unwrap(),
            "[\n    {\n        \"podIP\": \"10.0.0.1\"\n    }\n]\n"
        );
        for (output, error) in [
            (
                "go-template",
                "template format specified but no template given",
            ),
            (
                "custom-columns",
                "custom-columns format specified but no custom columns given",
            ),
            (
                "go-template={{",
                "error parsing template {{, template: output:1: unclosed action",
            ),
        ] {
            assert_eq!(
                Form::parse(Some(output), None).unwrap_err().to_string(),
                error
            );
        }
    }
}
