//! The verbs, one file each, and what they share.

pub mod api_resources;
pub mod capture;
mod categories;
pub mod check;
pub mod cluster;
pub mod config;
mod conntrack;
pub mod create;
pub mod delete;
pub mod describe;
pub mod diff;
mod done;
pub mod edit;
pub mod events;
pub mod explain;
pub mod expose;
mod find;
pub mod get;
mod hits;
pub mod label;
mod last_applied;
pub mod metrics;
pub mod mutate;
pub mod observe;
pub mod patch;
pub mod pods;
pub mod questions;
mod raw;
mod replace;
pub mod rollout;
pub mod scale;
pub mod set;
mod sort;
pub mod status;
pub mod test;
pub mod top;
pub mod version;
pub mod wait;
mod watched;

use serde_json::Value;

use crate::client::Client;
use crate::protocol::{GetParams, GetReply, Target};

use super::flags::{Flag, switch, value};
use super::session::{Session, VerbError};

/// `-f` and `-R`.
pub const FILES: [Flag; 3] = [
    value(
        "filename",
        Some('f'),
        "Files, folders or - that hold the objects",
    ),
    switch("recursive", Some('R'), "Read the folders of a folder too"),
    value("kustomize", Some('k'), "A kustomization folder"),
];
/// `-l`.
pub const SELECTOR: Flag = value("selector", Some('l'), "Label selector, as app=web,tier!=db");
/// `-o`.
pub const OUTPUT: Flag = value("output", Some('o'), "Form of output");
/// `--template`.
pub const TEMPLATE: Flag = value(
    "template",
    None,
    "Template, or the file of one, of -o; alone of -o go-template",
);
/// `--allow-missing-template-keys`.
pub const MISSING_KEYS: Flag = switch(
    "allow-missing-template-keys",
    None,
    "With -o go-template: print <no value> for keys that are not there (default true)",
);
/// `-A`.
pub const ALL_NAMESPACES: Flag = switch("all-namespaces", Some('A'), "All namespaces");

/// What the arguments name: a resource and, if given, names of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Named {
    /// As the user wrote it.
    pub resource: String,
    /// Empty: all of them.
    pub names: Vec<String>,
}

/// Reads `TYPE`, `TYPE NAME…`, `TYPE,TYPE`, `TYPE/NAME …`.
pub fn named(arguments: &[String]) -> Result<Vec<Named>, VerbError> {
    let Some(first) = arguments.first() else {
        return Ok(Vec::new());
    };
    if arguments.iter().any(|argument| argument.contains('/')) {
        return arguments
            .iter()
            .map(|argument| match argument.split_once('/') {
                Some((resource, name)) if !resource.is_empty() && !name.is_empty() => Ok(Named {
                    resource: resource.to_owned(),
                    names: vec![name.to_owned()],
                }),
                _ => Err(VerbError::Local(
                    "there is no need to specify a resource type as a separate argument when \
                     passing arguments in resource/name form (e.g. 'weir get resource/<name>' \
                     instead of 'weir get resource resource/<name>')"
                        .into(),
                )),
            })
            .collect();
    }
    let names = &arguments[1..];
    let resources = first.split(',').filter(|resource| !resource.is_empty());
    Ok(resources
        .map(|r| Named {
            resource: r.to_owned(),
            names: names.to_vec(),
        })
        .collect())
}

/// Gets the objects that the arguments, `-l` and `-A` name, one reply a name or resource.
pub fn fetch(
    session: &Session,
    client: &mut Client,
    wanted: &[Named],
) -> Result<Vec<(GetReply, bool)>, VerbError> {
    let mut replies = Vec::new();
    for Named { resource, names } in wanted {
        let all_namespaces = session.parsed.is_on("all-namespaces");
        if !names.is_empty() && all_namespaces {
            return Err(VerbError::Local(
                "a resource cannot be retrieved by name across all namespaces".into(),
            ));
        }
        let params = GetParams {
            resource: resource.clone(),
            namespace: session.namespace(),
            all_namespaces,
            label_selector: session.parsed.value("selector").map(str::to_owned),
            field_selector: session.parsed.value("field-selector").map(str::to_owned),
            name: None,
        };
        if names.is_empty() {
            replies.push((client.call("get", &params)?, false));
        }
        for name in names {
            let one = GetParams {
                name: Some(name.clone()),
                ..params.clone()
            };
            replies.push((client.call("get", one)?, true));
        }
    }
    Ok(replies)
}

/// The target that names `object` of `resource`.
pub fn target(resource: &str, object: &Value) -> Target {
    let text = |pointer| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    Target {
        resource: resource.to_owned(),
        namespace: text("/metadata/namespace"),
        name: text("/metadata/name").unwrap_or_default(),
    }
}

/// `pods` → `pod`, `networkpolicies.networking.k8s.io` → `networkpolicy.networking.k8s.io`: what
/// kubectl prints before the slash.
pub fn singular(reply: &GetReply) -> String {
    let kind = reply.kind.to_lowercase();
    match reply.resource.split_once('.') {
        Some((_, group)) => format!("{kind}.{group}"),
        None => kind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn resources_and_names_in_every_spelling() {
        let one = |resource: &str, names: &[&str]| Named {
            resource: resource.into(),
            names: names.iter().map(|n| n.to_string()).collect(),
        };
        assert_eq!(named(&words("po")).unwrap(), [one("po", &[])]);
        assert_eq!(named(&words("po a b")).unwrap(), [one("po", &["a", "b"])]);
        assert_eq!(
            named(&words("po,svc")).unwrap(),
            [one("po", &[]), one("svc", &[])]
        );
        assert_eq!(
            named(&words("po/a svc/b")).unwrap(),
            [one("po", &["a"]), one("svc", &["b"])]
        );
        assert!(named(&words("po svc/b")).is_err());
    }
}
