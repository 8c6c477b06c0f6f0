//! YAML text to JSON values, as `sigs.k8s.io/yaml` converts it.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Number, Value};
use serde_yaml_ng::Value as Yaml;

/// Every document of `text`, empty ones left out. Errors are in kubectl's form:
/// `error converting YAML to JSON: yaml: line 3: mapping values are not allowed in this context`.
pub(crate) fn documents(text: &str) -> Result<Vec<Value>, String> {
    if text.trim_start().starts_with('{')
        && let Ok(values) = serde_json::Deserializer::from_str(text)
            .into_iter::<Value>()
            .collect::<Result<Vec<_>, _>>()
    {
        return Ok(values);
    }
    let mut values = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(text) {
        let mut yaml = Yaml::deserialize(document).map_err(|error| {
            // A key that stands twice is found while the text is read; what is no YAML further
            // down is the greater mistake, and the one that kubectl tells.
            describe(&syntax_error(text).unwrap_or(error))
        })?;
        yaml.apply_merge().map_err(|error| describe(&error))?;
        if !yaml.is_null() {
            values.push(to_json(yaml).map_err(|e| format!("error converting YAML to JSON: {e}"))?);
        }
    }
    Ok(values)
}

/// The first place where `text` is no YAML, whatever it says.
fn syntax_error(text: &str) -> Option<serde_yaml_ng::Error> {
    serde_yaml_ng::Deserializer::from_str(text)
        .find_map(|document| IgnoredAny::deserialize(document).err())
}

fn describe(error: &serde_yaml_ng::Error) -> String {
    let text = error.to_string();
    let bare = text
        .find(" at line ")
        .map_or(text.as_str(), |end| &text[..end]);
    match error.location() {
        Some(at) => format!(
            "error converting YAML to JSON: yaml: line {}: {bare}",
            at.line()
        ),
        None => format!("error converting YAML to JSON: yaml: {bare}"),
    }
}

/// Keys become text, as JSON wants them; NaN and infinities have no JSON form.
fn to_json(yaml: Yaml) -> Result<Value, String> {
    Ok(match yaml {
        Yaml::Null => Value::Null,
        Yaml::Bool(b) => Value::Bool(b),
        Yaml::Number(n) => Value::Number(number(&n)?),
        Yaml::String(text) => Value::String(text),
        Yaml::Sequence(items) => {
            Value::Array(items.into_iter().map(to_json).collect::<Result<_, _>>()?)
        }
        Yaml::Mapping(entries) => {
            let mut map = Map::with_capacity(entries.len());
            for (key, value) in entries {
                let key = match key {
                    Yaml::String(text) => text,
                    Yaml::Number(n) => n.to_string(),
                    Yaml::Bool(b) => b.to_string(),
                    Yaml::Null => "null".to_owned(),
                    _ => return Err("yaml: invalid map key: it must be a scalar".to_owned()),
                };
                if map.contains_key(&key) {
                    return Err(format!("yaml: key {key:?} already set in map"));
                }
                map.insert(key, to_json(value)?);
            }
            Value::Object(map)
        }
        Yaml::Tagged(tagged) => to_json(tagged.value)?,
    })
}

fn number(n: &serde_yaml_ng::Number) -> Result<Number, String> {
    n.as_i64()
        .map(Number::from)
        .or_else(|| n.as_u64().map(Number::from))
        .or_else(|| {
            let float = n.as_f64()?;
            // YAML's `80.0` is Go's 80.
            if float.fract() == 0.0 && float.abs() < 9e15 {
                Some(Number::from(float as i64))
            } else {
                Number::from_f64(float)
            }
        })
        .ok_or_else(|| format!("json: unsupported value: {n}"))
}
