//! `label` and `annotate`: one algorithm over two maps of the metadata.

use serde_json::{Map, Value, json};

use crate::cli::flags::{Flag, optional, switch, value};
use crate::cli::session::{Session, VerbError};
use crate::client::Client;
use crate::protocol::{Mutation, PatchParams, PatchType};

use super::done::Done;
use super::find::{Found, find};
use super::mutate::{DryRun, decode, dry_run};
use super::{ALL_NAMESPACES, FILES, MISSING_KEYS, OUTPUT, SELECTOR, TEMPLATE};

/// Flags of both verbs.
pub const FLAGS: &[Flag] = &[
    FILES[0],
    FILES[1],
    FILES[2],
    switch("overwrite", None, "Replace values that are there already"),
    switch("all", None, "All objects of the kind in the namespace"),
    switch(
        "list",
        None,
        "Print what the objects have, after the change",
    ),
    switch(
        "local",
        None,
        "Change what -f holds and print it; nothing is stored",
    ),
    value(
        "resource-version",
        None,
        "Refuse unless the one object has this version",
    ),
    value(
        "field-selector",
        None,
        "Field selector, as status.phase=Running",
    ),
    optional("dry-run", "unchanged", "none, client or server"),
    ALL_NAMESPACES,
    SELECTOR,
    OUTPUT,
    TEMPLATE,
    MISSING_KEYS,
    switch("show-managed-fields", None, ""),
    value("field-manager", None, ""),
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

    /// What kubectl says was done.
    const fn past(self, added: bool, removed: bool) -> &'static str {
        match (self, added, removed) {
            (MetadataMap::Annotations, ..) => "annotated",
            (_, true, true) => "modified",
            (_, true, false) => "labeled",
            (_, false, true) => "unlabeled",
            (_, false, false) => "not labeled",
        }
    }
}

/// What the arguments ask for: values to set, keys to remove.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    set: Vec<(String, String)>,
    remove: Vec<String>,
}

/// What an object's map becomes.
struct Changed {
    map: Map<String, Value>,
    /// The merge patch of the map: only what differs; null removes.
    patch: Map<String, Value>,
    added: bool,
    removed: bool,
}

/// Runs `label` or `annotate`.
pub fn run(session: &mut Session, map: MetadataMap) -> Result<(), VerbError> {
    let (resources, changes) = split(&session.parsed.arguments);
    let changes = parse_changes(&changes, map)?;
    session.parsed.arguments = resources;
    let dry_run = dry_run(session.parsed.value("dry-run"))?;
    check(session, map, &changes, dry_run)?;
    let mut done = Done::new(session, dry_run)?;
    if session.parsed.is_on("local") {
        return run_locally(session, map, &changes, &mut done);
    }
    let mut client = session.connect()?;
    let (found, mut errors) = find(session, &mut client, false)?;
    let version = session.parsed.value("resource-version");
    if version.is_some() && found.len() + errors.len() != 1 {
        return Err(local(
            "--resource-version may only be used with a single resource",
        ));
    }
    let several = found.len() > 1;
    for one in &found {
        if let Err(error) = change(session, map, &changes, one, &mut done, &mut client, several) {
            errors.push(error);
        }
    }
    VerbError::all(errors)
}

fn local(text: &str) -> VerbError {
    VerbError::Local(text.to_owned())
}

/// kubectl's objections to flags that do not go together.
fn check(
    session: &Session,
    map: MetadataMap,
    changes: &Changes,
    dry_run: DryRun,
) -> Result<(), VerbError> {
    let parsed = &session.parsed;
    if parsed.is_on("list") && parsed.was_given("output") {
        return Err(local("--list and --output may not be specified together"));
    }
    for other in ["selector", "field-selector"] {
        if parsed.is_on("all") && parsed.value(other).is_some() {
            let text = format!("cannot set --all and --{other} at the same time");
            return Err(VerbError::Local(text));
        }
    }
    let no_files = !parsed.was_given("filename") && !parsed.was_given("kustomize");
    if parsed.is_on("local") {
        if dry_run == DryRun::Server {
            return Err(local(
                "cannot specify --local and --dry-run=server - did you mean --dry-run=client?",
            ));
        }
        if !parsed.arguments.is_empty() {
            return Err(local(
                "can only use local files by -f pod.yaml or --filename=pod.json when --local=true \
                 is set",
            ));
        }
        if no_files {
            return Err(local(
                "one or more files must be specified as -f pod.yaml or --filename=pod.json",
            ));
        }
    } else if parsed.arguments.is_empty() && no_files {
        return Err(local(
            "one or more resources must be specified as <resource> <name> or <resource>/<name>",
        ));
    }
    if *changes == Changes::default() && !parsed.is_on("list") {
        let text = format!("at least one {} update is required", map.singular());
        return Err(VerbError::Local(text));
    }
    Ok(())
}

/// Changes the objects of files and prints them.
fn run_locally(
    session: &Session,
    map: MetadataMap,
    changes: &Changes,
    done: &mut Done,
) -> Result<(), VerbError> {
    let objects = decode(session)?;
    let several = objects.len() > 1;
    for object in objects {
        let mut value = object.to_value();
        let changed = changed(&value, changes, map, session.parsed.is_on("overwrite"))?;
        let operation = map.past(changed.added, changed.removed);
        value["metadata"][map.field()] = Value::Object(changed.map);
        if session.parsed.is_on("list") {
            print_list(map, &value, several);
        } else {
            done.print(&object.kind().qualified_singular(), &value, operation)?;
        }
    }
    Ok(())
}

fn change(
    session: &Session,
    map: MetadataMap,
    changes: &Changes,
    one: &Found,
    done: &mut Done,
    client: &mut Client,
    several: bool,
) -> Result<(), VerbError> {
    let parsed = &session.parsed;
    let changed = changed(&one.object, changes, map, parsed.is_on("overwrite"))?;
    let mut object = one.object.clone();
    let dry_run = dry_run(parsed.value("dry-run"))?;
    let stays = dry_run == DryRun::Client || parsed.is_on("list");
    if map == MetadataMap::Labels && !stays {
        for key in missing(&object, changes, map) {
            println!("label {key:?} not found.");
        }
    }
    let version = parsed.value("resource-version");
    if stays || changed.patch.is_empty() && version.is_none() {
        object["metadata"][map.field()] = Value::Object(changed.map);
    } else {
        let mut patch = json!({"metadata": {map.field(): changed.patch}});
        if let Some(version) = version {
            patch["metadata"]["resourceVersion"] = version.into();
        }
        let params = PatchParams {
            target: one.target(),
            patch_type: PatchType::Merge,
            patch,
            dry_run: dry_run != DryRun::None,
            field_validation: Default::default(),
        };
        let mutation: Mutation = client.call("patch", params)?;
        if let Some(result) = mutation.results.first() {
            object = result.object.clone();
        }
        session.report_mutation(&mutation)?;
    }
    if parsed.is_on("list") {
        print_list(map, &object, several);
        return Ok(());
    }
    done.print(
        &one.shown,
        &object,
        map.past(changed.added, changed.removed),
    )
}

/// Keys that are to be removed and are not there.
fn missing<'c>(object: &Value, changes: &'c Changes, map: MetadataMap) -> Vec<&'c String> {
    let keys = changes.remove.iter();
    keys.filter(|key| object["metadata"][map.field()].get(key.as_str()).is_none())
        .collect()
}

fn print_list(map: MetadataMap, object: &Value, several: bool) {
    let text = |pointer: &str| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or("")
    };
    let mut indent = "";
    if several {
        indent = " ";
        let group = text("/apiVersion")
            .split_once('/')
            .map_or("", |(group, _)| group);
        println!(
            "Listing {} for {}.{group}/{}:",
            map.field(),
            text("/kind"),
            text("/metadata/name")
        );
    }
    if let Some(Value::Object(pairs)) = object["metadata"].get(map.field()) {
        let mut pairs: Vec<_> = pairs.iter().collect();
        pairs.sort_by_key(|(key, _)| key.as_str());
        for (key, value) in pairs {
            println!("{indent}{key}={}", value.as_str().unwrap_or_default());
        }
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

fn parse_changes(texts: &[String], map: MetadataMap) -> Result<Changes, VerbError> {
    let mut changes = Changes::default();
    for text in texts {
        if let Some((key, value)) = text.split_once('=') {
            if map == MetadataMap::Labels && value.contains('=') {
                return Err(VerbError::Local(format!("invalid label spec: {text}")));
            }
            changes.set.retain(|(own, _)| own != key);
            changes.set.push((key.to_owned(), value.to_owned()));
        } else if let Some(key) = text.strip_suffix('-') {
            changes.remove.push(key.to_owned());
        } else {
            return Err(VerbError::Local(format!(
                "all resources must be specified before {} changes: {text}",
                map.singular()
            )));
        }
    }
    let both = |key: &&String| changes.set.iter().any(|(set, _)| set == *key);
    let both: Vec<&str> = { changes.remove.iter() }
        .filter(both)
        .map(String::as_str)
        .collect();
    match (map, both.is_empty()) {
        (_, true) => Ok(changes),
        (MetadataMap::Labels, false) => Err(local(
            "can not both modify and remove a label in the same command",
        )),
        (MetadataMap::Annotations, false) => Err(VerbError::Local(format!(
            "can not both modify and remove the following annotation(s) in the same command: {}",
            both.join(", ")
        ))),
    }
}

/// What the object's map becomes.
fn changed(
    object: &Value,
    changes: &Changes,
    map: MetadataMap,
    overwrite: bool,
) -> Result<Changed, VerbError> {
    let current = object["metadata"][map.field()].as_object();
    let mut changed = Changed {
        map: current.cloned().unwrap_or_default(),
        patch: Map::new(),
        added: false,
        removed: false,
    };
    let mut kept = Vec::new();
    for (key, wanted) in &changes.set {
        match changed
            .map
            .get(key)
            .map(|present| present.as_str().unwrap_or(""))
        {
            Some(present) if present == wanted => continue,
            Some(present) if !overwrite => {
                kept.push((key, present.to_owned()));
                continue;
            }
            _ => {}
        }
        changed.added = true;
        changed.map.insert(key.clone(), wanted.as_str().into());
        changed.patch.insert(key.clone(), wanted.as_str().into());
    }
    if !kept.is_empty() {
        return Err(VerbError::Local(refused(map, &kept)));
    }
    for key in &changes.remove {
        if changed.map.shift_remove(key).is_some() {
            changed.removed = true;
            changed.patch.insert(key.clone(), Value::Null);
        }
    }
    Ok(changed)
}

/// Why values are not replaced.
fn refused(map: MetadataMap, kept: &[(&String, String)]) -> String {
    let each = |form: &dyn Fn(&str, &str) -> String| -> Vec<String> {
        kept.iter()
            .map(|(key, present)| form(key, present))
            .collect()
    };
    match map {
        MetadataMap::Labels => {
            let texts = each(&|key, present| {
                format!("'{key}' already has a value ({present}), and --overwrite is false")
            });
            match texts.len() {
                1 => texts.concat(),
                _ => format!("[{}]", texts.join(", ")),
            }
        }
        MetadataMap::Annotations => {
            let texts = each(&|key, present| format!("'{key}' already has a value ({present})"));
            format!(
                "--overwrite is false but found the following declared annotation(s): {}",
                texts.join("; ")
            )
        }
    }
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
        let changes = parse_changes(&changes, MetadataMap::Labels).unwrap();
        assert_eq!(changes.set, [("role".to_owned(), "web".to_owned())]);
        assert_eq!(changes.remove, ["tier"]);
        for text in ["a=b a-", "a=b pod", "a=b=c"] {
            assert!(
                parse_changes(&words(text), MetadataMap::Labels).is_err(),
                "{text}"
            );
        }
        assert!(parse_changes(&words("a=b=c"), MetadataMap::Annotations).is_ok());
    }

    #[test]
    fn a_value_is_replaced_only_with_overwrite() {
        let object = json!({"metadata": {"labels": {"role": "db"}}});
        let changes = parse_changes(&words("role=web"), MetadataMap::Labels).unwrap();
        let error = changed(&object, &changes, MetadataMap::Labels, false);
        assert_eq!(
            error.err().unwrap().to_string(),
            "'role' already has a value (db), and --overwrite is false"
        );
        let changed = changed(&object, &changes, MetadataMap::Labels, true).unwrap();
        assert_eq!(changed.patch["role"], "web");
    }
}
