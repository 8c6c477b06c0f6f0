//! `version`.

use serde_json::{Map, Value, json};

use crate::cli::flags::{Flag, switch};
use crate::cli::output::sorted;
use crate::cli::session::{Session, VerbError};
use crate::protocol::Status;

use super::OUTPUT;

/// Flags of `version`.
pub const FLAGS: &[Flag] = &[
    switch(
        "client",
        None,
        "The client's version only; no daemon needed",
    ),
    OUTPUT,
];

/// The Kubernetes release whose API and command line these are.
const KUBERNETES: (&str, &str) = ("1", "34");

/// Runs `version`.
pub fn run(session: &mut Session) -> Result<(), VerbError> {
    let extra = &session.parsed.arguments;
    if !extra.is_empty() {
        let extra = extra.join(" ");
        return Err(VerbError::Local(format!("extra arguments: [{extra}]")));
    }
    let output = session
        .parsed
        .value("output")
        .unwrap_or_default()
        .to_owned();
    if !["", "yaml", "json"].contains(&output.as_str()) {
        return Err(VerbError::Local("--output must be 'yaml' or 'json'".into()));
    }
    // What is known is told even if no daemon answers.
    let server = match session.parsed.is_on("client") {
        true => Ok(None),
        false => daemons_version(session).map(Some),
    };
    let client = env!("CARGO_PKG_VERSION");
    let daemon = server.as_ref().ok().and_then(Option::as_deref);
    match output.as_str() {
        "" => {
            println!("Client Version: {}", git_version(client));
            if let Some(daemon) = daemon {
                println!("Server Version: {}", git_version(daemon));
            }
        }
        form => {
            let mut both = Map::new();
            both.insert("clientVersion".into(), described(client));
            if let Some(daemon) = daemon {
                both.insert("serverVersion".into(), described(daemon));
            }
            print!("{}", rendered(form, &both.into())?);
        }
    }
    server.map(drop)
}

fn daemons_version(session: &mut Session) -> Result<String, VerbError> {
    let status: Status = session.connect()?.call("status", json!({}))?;
    Ok(status.version)
}

/// Semver's build metadata carries Weir's own version, as distributions of Kubernetes do it.
/// The version of the API that a Weir of that version has: `v1.34.0+weir.0.1.0`.
pub fn git_version(own: &str) -> String {
    let (major, minor) = KUBERNETES;
    format!("v{major}.{minor}.0+weir.{own}")
}

/// apimachinery's `version.Info`. What a Go build would tell of itself is empty.
fn described(own: &str) -> Value {
    let (major, minor) = KUBERNETES;
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    json!({
        "major": major,
        "minor": minor,
        "gitVersion": git_version(own),
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{architecture}", std::env::consts::OS),
    })
}

/// JSON in the type's order, indented by two; YAML by key, with a line behind it, as kubectl ends it.
fn rendered(form: &str, value: &Value) -> Result<String, VerbError> {
    let wrong = |error: &dyn std::fmt::Display| VerbError::Local(error.to_string());
    Ok(match form {
        "json" => serde_json::to_string_pretty(value).map_err(|e| wrong(&e))? + "\n",
        _ => serde_yaml_ng::to_string(&sorted(value)).map_err(|e| wrong(&e))? + "\n",
    })
}
