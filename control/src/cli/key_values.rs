//! What ConfigMaps and Secrets are made of: literals, files and env files, as kubectl and kustomize
//! read them.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::base64;
use super::files::FILE_BYTES;
use super::session::VerbError;

/// Where values come from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// `KEY=VALUE`.
    pub literals: Vec<String>,
    /// `[KEY=]FILE`, or a folder.
    pub files: Vec<String>,
    /// Files of `KEY=VALUE` lines.
    pub env_files: Vec<String>,
}

/// Keys and their values.
pub type Values = Vec<(String, Vec<u8>)>;

fn local(text: impl Into<String>) -> VerbError {
    VerbError::Local(text.into())
}

/// Reads the values; files are below `folder`.
pub fn read(sources: &Sources, folder: &Path) -> Result<Values, VerbError> {
    let mut values = Values::new();
    for literal in &sources.literals {
        let Some((key, value)) = literal.split_once('=') else {
            return Err(local(format!(
                "invalid literal source {literal}, expected key=value"
            )));
        };
        let quoted = |quote| value.len() > 1 && value.starts_with(quote) && value.ends_with(quote);
        let value = match quoted('"') || quoted('\'') {
            true => &value[1..value.len() - 1],
            false => value,
        };
        add(&mut values, key, value.as_bytes().to_vec())?;
    }
    for file in &sources.files {
        read_file(&mut values, file, folder)?;
    }
    for file in &sources.env_files {
        read_env_file(&mut values, &folder.join(file))?;
    }
    Ok(values)
}

fn read_file(values: &mut Values, source: &str, folder: &Path) -> Result<(), VerbError> {
    let (key, file) = match source.split_once('=') {
        Some(("", _)) => return Err(local(format!("key name for file path {source} missing"))),
        Some((_, "")) => return Err(local(format!("file path for key name {source} missing"))),
        Some((_, file)) if file.contains('=') => {
            return Err(local("key names or file paths cannot contain '='"));
        }
        Some((key, file)) => (Some(key), file),
        None => (None, source),
    };
    let path = folder.join(file);
    if !path.is_dir() {
        let base = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or(file);
        let key = key.unwrap_or(base).to_owned();
        return add(values, &key, bytes(&path)?);
    }
    if key.is_some() {
        return Err(local("cannot give a key name for a directory path"));
    }
    let listed = std::fs::read_dir(&path)
        .map_err(|error| local(format!("error listing files in {file}: {error}")))?;
    let mut inside: Vec<_> = listed.flatten().map(|entry| entry.path()).collect();
    inside.sort();
    for path in inside.iter().filter(|path| path.is_file()) {
        let base = path.file_name().and_then(|name| name.to_str());
        if let Some(base) = base.filter(|base| is_key(base)) {
            add(values, base, bytes(path)?)?;
        }
    }
    Ok(())
}

fn bytes(path: &Path) -> Result<Vec<u8>, VerbError> {
    let shown = path.display();
    let about = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            local(format!("error reading {shown}: no such file or directory"))
        }
        _ => local(format!("error reading {shown}: {error}")),
    })?;
    if about.len() > FILE_BYTES {
        return Err(local(format!("{shown} is larger than {FILE_BYTES} bytes")));
    }
    std::fs::read(path).map_err(|error| local(format!("error reading {shown}: {error}")))
}

/// Lines `KEY=VALUE`; a key alone takes its value from the environment; `#` begins a comment.
fn read_env_file(values: &mut Values, path: &Path) -> Result<(), VerbError> {
    let bytes = bytes(path)?;
    let Ok(text) = std::str::from_utf8(&bytes) else {
        return Err(local(format!(
            "env file {} contains invalid utf8 bytes",
            path.display()
        )));
    };
    for line in text.trim_start_matches('\u{feff}').lines() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = match line.split_once('=') {
            Some((key, value)) => (key, value.to_owned()),
            None => (line, std::env::var(line).unwrap_or_default()),
        };
        add(values, key, value.into_bytes())?;
    }
    Ok(())
}

fn is_key(key: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !key.is_empty() && key.len() <= 253 && key != "." && key != ".." && key.chars().all(allowed)
}

fn add(values: &mut Values, key: &str, value: Vec<u8>) -> Result<(), VerbError> {
    if !is_key(key) {
        return Err(local(format!(
            "{key:?} is not a valid key name: a valid config key must consist of alphanumeric \
             characters, '-', '_' or '.'"
        )));
    }
    if values.iter().any(|(own, _)| own == key) {
        return Err(local(format!(
            "cannot add key {key:?}, another key by that name already exists"
        )));
    }
    values.push((key.to_owned(), value));
    Ok(())
}

/// `data` and `binaryData` of a ConfigMap.
pub fn config_map(values: Values) -> Value {
    let (mut data, mut binary) = (Map::new(), Map::new());
    for (key, value) in values {
        match String::from_utf8(value) {
            Ok(text) => data.insert(key, text.into()),
            Err(error) => binary.insert(key, base64::encode(error.as_bytes()).into()),
        };
    }
    let mut made = Map::new();
    for (field, values) in [("data", data), ("binaryData", binary)] {
        if !values.is_empty() {
            made.insert(field.into(), Value::Object(values));
        }
    }
    Value::Object(made)
}

/// `data` of a Secret.
pub fn secret(values: Values) -> Value {
    let pairs = values.into_iter();
    let data: Map<String, Value> = pairs
        .map(|(key, value)| (key, base64::encode(&value).into()))
        .collect();
    match data.is_empty() {
        true => json!({}),
        false => json!({"data": data}),
    }
}
