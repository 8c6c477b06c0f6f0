//! `set`: single fields of objects that hold pod templates (kubectl `pkg/cmd/set`).

use serde_json::{Value, json};

use crate::cli::flags::{Flag, FlagError, optional, switch, value};
use crate::cli::session::{Session, VerbError};
use crate::protocol::{Mutation, PatchParams};

use super::done::Done;
use super::edit::changes;
use super::expose::pairs;
use super::find::find;
use super::mutate::{DryRun, dry_run};
use super::{FILES, MISSING_KEYS, OUTPUT, SELECTOR, TEMPLATE};

/// Flags of all of its verbs.
pub const FLAGS: &[Flag] = &[
    FILES[0],
    FILES[1],
    FILES[2],
    SELECTOR,
    switch("all", None, "All objects of the kind in the namespace"),
    value(
        "containers",
        Some('c'),
        "env: the containers (default *, all)",
    ),
    value("env", Some('e'), "env: KEY=VALUE or KEY-"),
    switch("list", None, "env: print the variables"),
    switch(
        "overwrite",
        None,
        "env: replace values that are there (default true)",
    ),
    optional("dry-run", "unchanged", "none, client or server"),
    OUTPUT,
    TEMPLATE,
    MISSING_KEYS,
    value("field-manager", None, ""),
];

/// The verbs, and the flags that are theirs alone.
const VERBS: [(&str, &[&str]); 4] = [
    ("env", &["containers", "env", "list", "overwrite"]),
    ("image", &[]),
    ("selector", &[]),
    ("serviceaccount", &[]),
];

/// The verbs' names.
pub fn verbs() -> impl Iterator<Item = &'static str> {
    VERBS.iter().map(|(name, _)| *name)
}

fn local(text: impl Into<String>) -> VerbError {
    VerbError::Local(text.into())
}

/// What an object becomes; an error if it cannot.
type Change = Box<dyn Fn(&mut Value) -> Result<(), VerbError>>;

/// Runs `set`.
pub fn run(session: &mut Session) -> Result<(), VerbError> {
    let known: Vec<&str> = verbs().collect();
    if session.parsed.arguments.is_empty() {
        return Err(VerbError::Usage(format!(
            "set takes one of: {}",
            known.join(", ")
        )));
    }
    let word = session.parsed.arguments.remove(0);
    let word = if word == "sa" {
        "serviceaccount".to_owned()
    } else {
        word
    };
    let Some((verb, _)) = VERBS.iter().find(|(name, _)| *name == word) else {
        let why = match word.as_str() {
            "resources" | "subject" => {
                return Err(local(format!(
                    "set {word} is not supported: it has no effect here"
                )));
            }
            _ => format!("unknown command \"{word}\""),
        };
        return Err(VerbError::Usage(why));
    };
    for (_, flags) in VERBS.iter().filter(|(name, _)| name != verb) {
        if let Some(flag) = flags.iter().find(|flag| session.parsed.was_given(flag)) {
            return Err(FlagError::UnknownLong((*flag).to_owned()).into());
        }
    }
    let (change, operation) = match *verb {
        "image" => (image(session)?, "image updated"),
        "env" => (env(session)?, "env updated"),
        "selector" => (selector(session)?, "selector updated"),
        _ => (service_account(session)?, "serviceaccount updated"),
    };
    let lists = session.parsed.is_on("list");
    let dry_run = dry_run(session.parsed.value("dry-run"))?;
    let mut done = Done::new(session, dry_run)?;
    let mut client = session.connect()?;
    let (found, mut errors) = find(session, &mut client, false)?;
    for one in &found {
        if lists {
            list(&one.shown, &one.object);
            continue;
        }
        let mut object = one.object.clone();
        if let Err(error) = change(&mut object) {
            errors.push(error);
            continue;
        }
        let (patch_type, Some(patch)) = changes(&one.object, &object) else {
            continue;
        };
        if dry_run == DryRun::Client {
            done.print(&one.shown, &object, operation)?;
            continue;
        }
        let params = PatchParams {
            target: one.target(),
            patch_type,
            patch,
            dry_run: dry_run != DryRun::None,
            field_validation: Default::default(),
        };
        match client.call::<Mutation>("patch", params) {
            Ok(mutation) => {
                let new = mutation
                    .results
                    .first()
                    .map_or(&object, |result| &result.object);
                done.print(&one.shown, new, operation)?;
                session.report_mutation(&mutation)?;
            }
            Err(error) => errors.push(error.into()),
        }
    }
    VerbError::all(errors)
}

/// Takes the arguments that are `KEY=VALUE`, and for `env` `KEY-`, off the end.
fn assignments(session: &mut Session, removals: bool) -> Vec<String> {
    let arguments = &mut session.parsed.arguments;
    let is_one = |word: &String| word.contains('=') || removals && word.ends_with('-');
    let at = arguments.iter().position(is_one).unwrap_or(arguments.len());
    arguments.split_off(at)
}

/// The specification of the pods that an object is, or makes.
fn pod_spec(object: &mut Value) -> Result<&mut Value, VerbError> {
    let pointer = match object["kind"].as_str().unwrap_or_default() {
        "Pod" => "/spec",
        "CronJob" => "/spec/jobTemplate/spec/template/spec",
        _ => "/spec/template/spec",
    };
    let kind = object["kind"].as_str().unwrap_or_default().to_lowercase();
    let name = object["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    object
        .pointer_mut(pointer)
        .ok_or_else(|| local(format!("{kind}/{name}: the object has no pod template")))
}

fn containers(spec: &mut Value) -> impl Iterator<Item = &mut Value> {
    let Value::Object(members) = spec else {
        return Vec::new().into_iter();
    };
    let lists = members
        .iter_mut()
        .filter(|(key, _)| ["containers", "initContainers"].contains(&key.as_str()));
    let all: Vec<&mut Value> = lists
        .filter_map(|(_, list)| list.as_array_mut())
        .flatten()
        .collect();
    all.into_iter()
}

fn image(session: &mut Session) -> Result<Change, VerbError> {
    let images = assignments(session, false);
    if images.is_empty() {
        return Err(local("at least one image update is required"));
    }
    let wanted: Vec<(String, String)> = { images.iter() }
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, image)| (name.to_owned(), image.to_owned()))
        .collect();
    Ok(Box::new(move |object| {
        let mut missing: Vec<&String> = wanted.iter().map(|(name, _)| name).collect();
        for container in containers(pod_spec(object)?) {
            let own = container["name"].as_str().unwrap_or_default().to_owned();
            let fits = |name: &str| name == "*" || name == own;
            missing.retain(|name| !fits(name));
            if let Some((_, image)) = wanted.iter().find(|(name, _)| fits(name)) {
                container["image"] = image.as_str().into();
            }
        }
        match missing.first() {
            None => Ok(()),
            Some(name) => Err(local(format!("unable to find container named {name:?}"))),
        }
    }))
}

fn env(session: &mut Session) -> Result<Change, VerbError> {
    let mut changes = assignments(session, true);
    changes.extend(session.parsed.values("env").into_iter().map(str::to_owned));
    let lists = session.parsed.is_on("list");
    if changes.is_empty() && !lists {
        return Err(local("at least one environment variable must be provided"));
    }
    let (mut set, mut unset) = (Vec::new(), Vec::new());
    for change in changes {
        match (change.split_once('='), change.strip_suffix('-')) {
            (Some((name, value)), _) => set.push((name.to_owned(), value.to_owned())),
            (None, Some(name)) => unset.push(name.to_owned()),
            (None, None) => {
                let text =
                    format!("environment variables must be of the form key=value, not {change:?}");
                return Err(local(text));
            }
        }
    }
    let chosen = session.parsed.value("containers").unwrap_or("*").to_owned();
    let overwrite = session.parsed.value("overwrite") != Some("false");
    Ok(Box::new(move |object| {
        let mut any = false;
        for container in containers(pod_spec(object)?) {
            let own = container["name"].as_str().unwrap_or_default();
            if chosen != "*" && chosen != own {
                continue;
            }
            any = true;
            if !container["env"].is_array() {
                container["env"] = json!([]);
            }
            let Some(variables) = container["env"].as_array_mut() else {
                continue;
            };
            variables.retain(|variable| !unset.iter().any(|name| variable["name"] == **name));
            for (name, value) in &set {
                match variables
                    .iter_mut()
                    .find(|variable| variable["name"] == **name)
                {
                    None => variables.push(json!({"name": name, "value": value})),
                    Some(_) if !overwrite => {
                        return Err(local(format!(
                            "'{name}' already has a value, and --overwrite is false"
                        )));
                    }
                    Some(variable) => *variable = json!({"name": name, "value": value}),
                }
            }
            if variables.is_empty()
                && let Some(members) = container.as_object_mut()
            {
                members.shift_remove("env");
            }
        }
        match any {
            true => Ok(()),
            false => Err(local(format!("no container is called {chosen:?}"))),
        }
    }))
}

/// Prints the variables of an object's containers.
fn list(shown: &str, object: &Value) {
    let mut object = object.clone();
    let name = object["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let Ok(spec) = pod_spec(&mut object) else {
        return;
    };
    let kind = shown.split('.').next().unwrap_or(shown);
    for container in containers(spec) {
        let own = container["name"].as_str().unwrap_or_default();
        println!("# {kind} {name}, container {own}");
        for variable in container["env"].as_array().into_iter().flatten() {
            let text = |pointer: &str| {
                let found = variable.pointer(pointer).and_then(Value::as_str);
                found.unwrap_or_default()
            };
            let name = text("/name");
            for (field, what) in [("secretKeyRef", "secret"), ("configMapKeyRef", "configmap")] {
                if variable["valueFrom"][field].is_object() {
                    let (of, key) = (
                        text(&format!("/valueFrom/{field}/name")),
                        text(&format!("/valueFrom/{field}/key")),
                    );
                    println!("# {name} from {what} {of}, key {key}");
                }
            }
            if variable.get("valueFrom").is_none_or(Value::is_null) {
                println!("{name}={}", text("/value"));
            }
        }
    }
}

fn selector(session: &mut Session) -> Result<Change, VerbError> {
    let wanted = assignments(session, false);
    if wanted.is_empty() {
        return Err(local("at least one selector must be specified"));
    }
    let wanted = pairs(&wanted.join(","))?;
    Ok(Box::new(move |object| match object["kind"].as_str() {
        Some("Service") => {
            object["spec"]["selector"] = Value::Object(wanted.clone());
            Ok(())
        }
        other => {
            let kind = other.unwrap_or_default();
            Err(local(format!(
                "setting a selector is only supported for Services, not {kind}"
            )))
        }
    }))
}

fn service_account(session: &mut Session) -> Result<Change, VerbError> {
    let arguments = &mut session.parsed.arguments;
    let account = match arguments.len() {
        0 | 1 => return Err(local("serviceaccount is required")),
        _ => arguments.pop().unwrap_or_default(),
    };
    Ok(Box::new(move |object| {
        pod_spec(object)?["serviceAccountName"] = account.as_str().into();
        Ok(())
    }))
}
