//! `diff`: what `apply` would change, by diff(1) or what `KUBECTL_EXTERNAL_DIFF` names.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::cli::flags::{Flag, switch, value};
use crate::cli::output::yaml;
use crate::cli::session::{Session, VerbError};
use crate::client::Client;
use crate::cluster::LAST_APPLIED;
use crate::objects::Object;
use crate::protocol::{ApplyParams, GetParams, GetReply, Mutation, Reason};
use crate::selector::Selector;

use super::mutate::decode;
use super::{FILES, SELECTOR};

/// Flags of `diff`.
pub const FLAGS: &[Flag] = &[
    FILES[0],
    FILES[1],
    FILES[2],
    SELECTOR,
    switch("show-secrets", None, "Print the values of Secrets"),
    switch(
        "server-side",
        None,
        "As without it, in other words; objects of any size",
    ),
    switch("force-conflicts", None, ""),
    switch("show-managed-fields", None, ""),
    value("concurrency", None, ""),
    value("field-manager", None, ""),
];

/// What `diff` ends with if it could not compare: 1 says that there are differences.
pub const FAILED: u8 = 2;

/// Runs `diff`.
pub fn run(session: &mut Session) -> Result<(), VerbError> {
    match compare(session) {
        Ok(0) => Ok(()),
        Ok(status) => Err(VerbError::Status(status)),
        Err(error) => {
            error.report("diff");
            Err(VerbError::Status(FAILED))
        }
    }
}

fn local(text: impl Into<String>) -> VerbError {
    VerbError::Local(text.into())
}

/// Compares, and gives what the comparing program ended with.
fn compare(session: &mut Session) -> Result<u8, VerbError> {
    if !session.parsed.arguments.is_empty() {
        let text = format!("Unexpected args: [{}]", session.parsed.arguments.join(" "));
        return Err(VerbError::Usage(text));
    }
    let objects = decode(session)?;
    let selector = Selector::parse(session.parsed.value("selector").unwrap_or_default())
        .map_err(|error| local(error.to_string()))?;
    let mut client = session.connect()?;
    let folders = [Folder::make("LIVE")?, Folder::make("MERGED")?];
    for object in objects
        .iter()
        .filter(|object| selector.matches(|key| object.label(key)))
    {
        let (mut live, mut merged) = versions(&mut client, session, object)?;
        if object.kind().kind == "Secret" && !session.parsed.is_on("show-secrets") {
            mask(&mut live, &mut merged);
        }
        let name = file_name(object);
        for (folder, value) in folders.iter().zip([live, merged]) {
            folder.write(&name, &value)?;
        }
    }
    program(&folders[0].0, &folders[1].0)
}

/// The object as it is (null: not at all), and as it would be.
fn versions(
    client: &mut Client,
    session: &Session,
    object: &Object,
) -> Result<(Value, Value), VerbError> {
    let params = GetParams {
        resource: object.kind().qualified_plural(),
        namespace: Some(object.namespace().to_owned()),
        name: Some(object.name().to_owned()),
        ..GetParams::default()
    };
    let live = match client.call::<GetReply>("get", &params) {
        Ok(reply) => reply.items.into_iter().next().unwrap_or_default(),
        Err(error) if error.reason() == Some(Reason::NotFound) => Value::Null,
        Err(error) => return Err(error.into()),
    };
    let params = ApplyParams {
        objects: vec![object.to_value()],
        namespace: session.namespace(),
        dry_run: true,
        server_side: session.parsed.is_on("server-side"),
        ..ApplyParams::default()
    };
    let mutation: Mutation = client.call("apply", &params)?;
    let result = mutation.results.into_iter().next();
    let mut merged = result.map_or(Value::Null, |result| result.object);
    if let Some(meta) = merged["metadata"].as_object_mut() {
        // What the server counts is no difference, nor is what `apply` remembers.
        match live["metadata"].get("resourceVersion") {
            Some(version) => drop(meta.insert("resourceVersion".into(), version.clone())),
            None => drop(meta.shift_remove("resourceVersion")),
        }
        let remembered = live["metadata"]["annotations"].get(LAST_APPLIED).cloned();
        let annotations = meta.get_mut("annotations").and_then(Value::as_object_mut);
        if let Some(annotations) = annotations {
            annotations.shift_remove(LAST_APPLIED);
            annotations.extend(remembered.map(|text| (LAST_APPLIED.to_owned(), text)));
            if annotations.is_empty() {
                meta.shift_remove("annotations");
            }
        }
    }
    Ok((live, merged))
}

/// Stars in place of a Secret's values, which still tell what differs.
fn mask(live: &mut Value, merged: &mut Value) {
    for field in ["data", "stringData"] {
        let keys = |value: &Value| -> Vec<String> {
            let members = value[field].as_object();
            members
                .map(|members| members.keys().cloned().collect())
                .unwrap_or_default()
        };
        let mut all = keys(live);
        all.extend(keys(merged));
        for key in all {
            let (old, new) = (
                live[field].get(&key).cloned(),
                merged[field].get(&key).cloned(),
            );
            let (before, after) = match (&old, &new) {
                (Some(old), Some(new)) if old != new => ("*** (before)", "*** (after)"),
                _ => ("***", "***"),
            };
            if old.is_some() {
                live[field][&key] = before.into();
            }
            if new.is_some() {
                merged[field][&key] = after.into();
            }
        }
    }
    for value in [live, merged].into_iter().filter(|value| value.is_object()) {
        let annotations = value["metadata"].get_mut("annotations");
        if let Some(remembered) = annotations.and_then(|all| all.get_mut(LAST_APPLIED)) {
            *remembered = "***".into();
        }
    }
}

/// `apps.v1.Deployment.default.web`.
fn file_name(object: &Object) -> String {
    let kind = object.kind();
    let dot = if kind.group().is_empty() { "" } else { "." };
    let (group, version, name) = (kind.group(), kind.version(), object.name());
    // A name with a slash would be a path.
    let plain = |text: &str| text.replace('/', "_");
    format!(
        "{group}{dot}{version}.{}.{}.{}",
        kind.kind,
        plain(object.namespace()),
        plain(name)
    )
}

/// A folder of its own that goes with this.
struct Folder(PathBuf);

impl Folder {
    fn make(prefix: &str) -> Result<Folder, VerbError> {
        let mut chance = std::process::id();
        for _ in 0..1000 {
            let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            chance = chance.wrapping_mul(31) ^ nanos.map_or(0, |since| since.subsec_nanos());
            let path = std::env::temp_dir().join(format!("{prefix}-{chance}"));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Folder(path)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(local(format!("{}: {error}", path.display()))),
            }
        }
        Err(local("no name is free for a folder to compare in"))
    }

    fn write(&self, name: &str, value: &Value) -> Result<(), VerbError> {
        use std::io::Write;
        let text = match value {
            Value::Null => String::new(),
            value => yaml(value)?,
        };
        let path = self.0.join(name);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        Ok(file.write_all(text.as_bytes())?)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn program(live: &Path, merged: &Path) -> Result<u8, VerbError> {
    let set = std::env::var("KUBECTL_EXTERNAL_DIFF").ok();
    let set = set.filter(|text| !text.trim().is_empty());
    let mut words = set.as_deref().unwrap_or("diff -u -N").split_whitespace();
    let name = words.next().unwrap_or("diff");
    let plain = |word: &&str| {
        word.chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '='))
    };
    let mut command = Command::new(name);
    command.args(words.filter(plain)).args([live, merged]);
    let failed = |why: String| local(format!("failed to run {name:?}: {why}"));
    let status = command
        .status()
        .map_err(|error| failed(error.to_string()))?;
    match status.code() {
        Some(code @ (0 | 1)) => Ok(code as u8),
        Some(code) => Err(failed(format!("exit status {code}"))),
        None => Err(failed("ended by a signal".to_owned())),
    }
}
