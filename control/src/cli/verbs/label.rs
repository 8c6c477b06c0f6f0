//! `label` and `annotate`: one algorithm over two maps of the metadata.

use serde_json::{Map, Value, json};

use crate::cli::flags::{Flag, optional, switch};
use crate::cli::session::{Session, VerbError};
use crate::protocol::{Mutation, PatchParams, PatchType};

use super::{ALL_NAMESPACES, OUTPUT, SELECTOR, fetch, named, singular, target};

/// Flags of both verbs.
pub const FLAGS: &[Flag] = &[
    switch("overwrite", None, "Replace values that are there already"),
    switch("all", None, "All objects of the kind in the namespace"),
    optional("dry-run", "unchanged", "none, client or server"),
    ALL_NAMESPACES,
    SELECTOR,
    OUTPUT,
];

/// Which map of the metadata is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetadataMap {
    /// `metadata.labels`.
    Labels,
    /// `metadata.annotations`.
    Annotations,
}

impl MetadataMap {
    const fn field(self) -> &'static str {
        match self {
            MetadataMap::Labels => "labels",
            MetadataMap::Annotations => "annotations",
        }
    }

    const fn singular(self) -> &'static str {
        match self {
            MetadataMap::Labels => "label",
            MetadataMap::Annotations => "annotation",
        }
    }
}

/// What the arguments ask for: values to set, keys to remove.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    set: Vec<(String, String)>,
    remove: Vec<String>,
}

/// Runs `label` or `annotate`.
pub fn run(session: &mut Session, map: MetadataMap) -> Result<(), VerbError> {
    let (resources, changes) = split(&session.parsed.arguments);
    let changes = parse_changes(&changes)?;
    if changes == Changes::default() {
        return Err(VerbError::Local(format!(
            "at least one {} update is required",
            map.singular()
        )));
    }
    let wanted = named(&resources)?;
    if wanted.is_empty() {
        return Err(VerbError::Local(
            "one or more resources must be specified as <resource> <name> or <resource>/<name>"
                .into(),
        ));
    }
    let unnamed = wanted.iter().any(|w| w.names.is_empty());
    if unnamed && !session.parsed.is_on("all") && session.parsed.value("selector").is_none() {
        return Err(VerbError::Local(
            "resource(s) were provided, but no name was specified".into(),
        ));
    }
    let mut client = session.connect()?;
    let kubectl = session.kubectl()?;
    for (reply, _) in fetch(session, &mut client, &wanted)? {
        for object in &reply.items {
            let current = object.pointer(&format!("/metadata/{}", map.field()));
            let patch = patch_of(current.and_then(Value::as_object), &changes, map, session)?;
            let (kind, name) = (singular(&reply), target("", object).name);
            let told = |done: &str| kubectl.done(&kind, &name, done);
            if patch.is_empty() {
                println!("{}", told(&format!("not {}", past(map, &changes))));
                continue;
            }
            let dry_run = !matches!(session.parsed.value("dry-run"), None | Some("none"));
            let params = PatchParams {
                target: target(&reply.resource, object),
                patch_type: PatchType::Merge,
                patch: json!({"metadata": {map.field(): patch}}),
                dry_run,
                field_validation: Default::default(),
            };
            let mutation: Mutation = client.call("patch", params)?;
            let suffix = if dry_run { " (server dry run)" } else { "" };
            println!("{}{suffix}", told(past(map, &changes)));
            session.report_mutation(&mutation)?;
        }
    }
    Ok(())
}

/// What kubectl says was done.
fn past(map: MetadataMap, changes: &Changes) -> &'static str {
    match map {
        MetadataMap::Labels if changes.set.is_empty() => "unlabeled",
        MetadataMap::Labels => "labeled",
        MetadataMap::Annotations => "annotated",
    }
}

/// Splits the arguments where the first `key=value` or `key-` stands.
fn split(arguments: &[String]) -> (Vec<String>, Vec<String>) {
    let is_change = |a: &&String| {
        a.contains('=')
            || (a.ends_with('-') && !a.contains('/') || a.ends_with('-') && a.contains('.'))
    };
    let at = arguments
        .iter()
        .position(|a| is_change(&a))
        .unwrap_or(arguments.len());
    (arguments[..at].to_vec(), arguments[at..].to_vec())
}

fn parse_changes(texts: &[String]) -> Result<Changes, VerbError> {
    let mut changes = Changes::default();
    for text in texts {
        if let Some((key, value)) = text.split_once('=') {
            changes.set.push((key.to_owned(), value.to_owned()));
        } else if let Some(key) = text.strip_suffix('-') {
            changes.remove.push(key.to_owned());
        } else {
            return Err(VerbError::Local(format!(
                "all resources must be specified before changes: {text}"
            )));
        }
    }
    if let Some((key, _)) = changes
        .set
        .iter()
        .find(|(key, _)| changes.remove.contains(key))
    {
        return Err(VerbError::Local(format!(
            "can not both modify and remove a label in the same command: {key}"
        )));
    }
    Ok(changes)
}

/// The merge patch of the map: only what differs; null removes.
fn patch_of(
    current: Option<&Map<String, Value>>,
    changes: &Changes,
    map: MetadataMap,
    session: &Session,
) -> Result<Map<String, Value>, VerbError> {
    let mut patch = Map::new();
    for (key, wanted) in &changes.set {
        match current
            .and_then(|labels| labels.get(key))
            .and_then(Value::as_str)
        {
            Some(present) if present == wanted => {}
            Some(present) if !session.parsed.is_on("overwrite") => {
                return Err(VerbError::Local(format!(
                    "'{key}' already has a value ({present}), and --overwrite is false"
                )));
            }
            _ => {
                patch.insert(key.clone(), Value::String(wanted.clone()));
            }
        }
    }
    for key in &changes.remove {
        if current.is_some_and(|labels| labels.contains_key(key)) {
            patch.insert(key.clone(), Value::Null);
        } else {
            println!("{} \"{key}\" not found.", map.singular());
        }
    }
    Ok(patch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn changes_begin_at_the_first_assignment_or_removal() {
        let (resources, changes) = split(&words("pods a b role=web tier-"));
        assert_eq!(resources, words("pods a b"));
        let changes = parse_changes(&changes).unwrap();
        assert_eq!(changes.set, [("role".to_owned(), "web".to_owned())]);
        assert_eq!(changes.remove, ["tier"]);
        assert!(parse_changes(&words("a=b a-")).is_err());
        assert!(parse_changes(&words("a=b pod")).is_err());
    }

    #[test]
    fn a_value_is_replaced_only_with_overwrite() {
        let current = json!({"role": "db"});
        let changes = parse_changes(&words("role=web")).unwrap();
        let session = Session::new(Default::default());
        let error =
            patch_of(current.as_object(), &changes, MetadataMap::Labels, &session).unwrap_err();
        assert_eq!(
            error.to_string(),
            "'role' already has a value (db), and --overwrite is false"
        );
    }
}
