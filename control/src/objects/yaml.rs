//! YAML text to JSON values, as `sigs.k8s.io/yaml` converts it.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Number, Value};
use serde_yaml_ng::Value as Yaml;

/// Why a text is no YAML.
pub(crate) struct SyntaxError {
    /// The document, from 1; empty ones do not count.
    pub(crate) document: usize,
    /// The line of the whole text, from 1, where one is known.
    pub(crate) line: Option<usize>,
    /// What is wrong there, in YAML's words.
    pub(crate) problem: String,
    /// In kubectl's form, with the line that kubectl would tell:
    /// `error converting YAML to JSON: yaml: line 3: mapping values are not allowed in this context`.
    pub(crate) message: String,
}

/// Every document of `text`, empty ones left out.
pub(crate) fn documents(text: &str) -> Result<Vec<Value>, SyntaxError> {
    if text.trim_start().starts_with('{')
        && let Ok(values) = serde_json::Deserializer::from_str(text)
            .into_iter::<Value>()
            .collect::<Result<Vec<_>, _>>()
    {
        return Ok(values);
    }
    let mut values = Vec::new();
    for (first_line, part) in parts(text) {
        for document in serde_yaml_ng::Deserializer::from_str(part) {
            let number = values.len() + 1;
            let complain = |error: &serde_yaml_ng::Error| syntax(error, part, first_line, number);
            let mut yaml = Yaml::deserialize(document).map_err(|error| {
                // A key that stands twice is found while the text is read; what is no YAML further
                // down is the greater mistake, and the one that kubectl tells.
                complain(&syntax_error(part).unwrap_or(error))
            })?;
            yaml.apply_merge().map_err(|error| complain(&error))?;
            if yaml.is_null() {
                continue;
            }
            values.push(to_json(yaml).map_err(|problem| SyntaxError {
                document: number,
                line: None,
                message: format!("error converting YAML to JSON: {problem}"),
                problem,
            })?);
        }
    }
    Ok(values)
}

/// The parts of a text that kubectl reads one by one (apimachinery's `YAMLReader`), each with the
/// number of lines before it: a line of `---`, and perhaps a comment, ends a part that has anything
/// in it, and else belongs to it. kubectl counts lines within a part.
fn parts(text: &str) -> Vec<(usize, &str)> {
    let mut parts = Vec::new();
    let (mut begin, mut begin_line, mut at) = (0, 0, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let separates = line
            .strip_prefix("---")
            .map(str::trim)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('#'));
        if separates && at > begin {
            parts.push((begin_line, &text[begin..at]));
            (begin, begin_line) = (at + line.len(), index + 1);
        }
        at += line.len();
    }
    if at > begin {
        parts.push((begin_line, &text[begin..]));
    }
    parts
}

/// The first place where `text` is no YAML, whatever it says.
fn syntax_error(text: &str) -> Option<serde_yaml_ng::Error> {
    serde_yaml_ng::Deserializer::from_str(text)
        .find_map(|document| IgnoredAny::deserialize(document).err())
}

/// What libyaml's parser complains of, unlike its scanner. Go's port counts the lines of these
/// complaints from 0 (`fail` in its `decode.go`).
const OF_THE_PARSER: [&str; 11] = [
    "did not find expected <stream-start>",
    "did not find expected <document start>",
    "did not find expected node content",
    "did not find expected '-' indicator",
    "did not find expected key",
    "did not find expected ',' or ']'",
    "did not find expected ',' or '}'",
    "found undefined tag handle",
    "found duplicate %YAML directive",
    "found incompatible YAML document",
    "found duplicate %TAG directive",
];

/// `error` of the part that begins behind `before` lines, in Go's words.
fn syntax(error: &serde_yaml_ng::Error, part: &str, before: usize, document: usize) -> SyntaxError {
    let text = error.to_string();
    let end = text.find(" at line ").or(text.find(" at position "));
    let mut problem = text[..end.unwrap_or(text.len())].to_owned();
    let place = error.location();
    let mut told = place.as_ref().map(|place| place.line());
    if OF_THE_PARSER.contains(&problem.as_str()) {
        told = told.map(|line| line - 1);
    } else if told == Some(1) {
        // Go takes its line 0 for none.
        told = None;
    }
    let alias = place
        .as_ref()
        .filter(|_| problem == "unknown anchor")
        .and_then(|place| part.get(place.index()..)?.strip_prefix('*'));
    if let Some(alias) = alias {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let end = alias.find(|c| !is_name(c)).unwrap_or(alias.len());
        problem = format!("unknown anchor '{}' referenced", &alias[..end]);
        told = None;
    }
    let at = match told.filter(|line| *line > 0) {
        Some(line) => format!("line {line}: "),
        None => String::new(),
    };
    SyntaxError {
        document,
        line: place.map(|place| before + place.line()),
        message: format!("error converting YAML to JSON: yaml: {at}{problem}"),
        problem,
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
