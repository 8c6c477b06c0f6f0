//! `patch`: parts of an object, by a merge patch, a strategic one or a JSON patch.

use serde_json::Value;

use crate::cli::flags::{Flag, optional, switch, value};
use crate::cli::session::{Session, VerbError};
use crate::cluster::patch;
use crate::objects::yaml;
use crate::protocol::{FieldValidation, Mutation, PatchParams, PatchType};

use super::done::Done;
use super::find::find;
use super::mutate::{DryRun, decode, dry_run};
use super::{FILES, MISSING_KEYS, OUTPUT, TEMPLATE};

/// Flags of `patch`.
pub const FLAGS: &[Flag] = &[
    value("patch", Some('p'), "The patch, as JSON or YAML"),
    value("patch-file", None, "A file that holds the patch"),
    value(
        "type",
        None,
        "json, merge or strategic (default): what the patch is",
    ),
    switch(
        "local",
        None,
        "Change what -f holds and print it; nothing is stored",
    ),
    optional("dry-run", "unchanged", "none, client or server"),
    FILES[0],
    FILES[1],
    FILES[2],
    OUTPUT,
    TEMPLATE,
    MISSING_KEYS,
    value("field-manager", None, ""),
];

/// Runs `patch`.
pub fn run(session: &mut Session) -> Result<(), VerbError> {
    let dry_run = dry_run(session.parsed.value("dry-run"))?;
    let mut done = Done::new(session, dry_run)?;
    let text = text(session)?;
    let is_local = session.parsed.is_on("local");
    if is_local && !session.parsed.arguments.is_empty() {
        return Err(local("cannot specify --local and server resources"));
    }
    if is_local && dry_run == DryRun::Server {
        return Err(local(
            "cannot specify --local and --dry-run=server - did you mean --dry-run=client?",
        ));
    }
    let kind = patch_type(session.parsed.value("type"))?;
    let with = parse(&text?)?;
    if is_local {
        return patch_locally(session, &mut done, kind, &with);
    }
    let mut client = session.connect()?;
    let (found, mut errors) = find(session, &mut client, false)?;
    for one in &found {
        let params = PatchParams {
            target: one.target(),
            patch_type: kind,
            patch: with.clone(),
            dry_run: dry_run != DryRun::None,
            field_validation: FieldValidation::Warn,
        };
        match client.call::<Mutation>("patch", params) {
            Ok(mutation) => {
                let patched = mutation.results.first().map(|result| &result.object);
                let patched = patched.unwrap_or(&one.object);
                done.print(&one.shown, patched, operation(*patched != one.object))?;
                session.report_mutation(&mutation)?;
            }
            Err(error) => errors.push(error.into()),
        }
    }
    VerbError::all(errors)
}

fn local(text: &str) -> VerbError {
    VerbError::Local(text.to_owned())
}

const fn operation(changed: bool) -> &'static str {
    if changed {
        "patched"
    } else {
        "patched (no change)"
    }
}

/// The patch's text: that of the flag, or its file's, which is read when all else is known to be
/// right.
fn text(session: &Session) -> Result<Result<String, VerbError>, VerbError> {
    let given = |flag: &str| session.parsed.value(flag).filter(|text| !text.is_empty());
    match (given("patch"), given("patch-file")) {
        (Some(_), Some(_)) => Err(local("cannot specify --patch and --patch-file together")),
        (None, None) => Err(local(
            "must specify --patch or --patch-file containing the contents of the patch",
        )),
        (Some(text), None) => Ok(Ok(text.to_owned())),
        (None, Some(file)) => Ok(std::fs::read_to_string(file).map_err(|error| {
            let why = match error.kind() {
                std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
                _ => error.to_string(),
            };
            VerbError::Local(format!("unable to read patch file: open {file}: {why}"))
        })),
    }
}

fn patch_type(text: Option<&str>) -> Result<PatchType, VerbError> {
    let text = text.unwrap_or("strategic");
    match text.to_lowercase().as_str() {
        "json" => Ok(PatchType::Json),
        "merge" => Ok(PatchType::Merge),
        "strategic" | "" => Ok(PatchType::Strategic),
        _ => Err(VerbError::Local(format!(
            "--type must be one of [json merge strategic], not \"{text}\""
        ))),
    }
}

fn parse(text: &str) -> Result<Value, VerbError> {
    let unable = |why: &str| VerbError::Local(format!("unable to parse {text:?}: {why}"));
    // A document alone: `---` and another behind it is no patch.
    let mut documents = match serde_json::from_str(text) {
        Ok(value) => vec![value],
        Err(_) => yaml::documents(text).map_err(|error| unable(&error.message))?,
    };
    match documents.len() {
        1 => Ok(documents.remove(0)),
        0 => Ok(Value::Null),
        _ => Err(unable("it holds several documents")),
    }
}

/// Patches the objects of files and prints them.
fn patch_locally(
    session: &Session,
    done: &mut Done,
    kind: PatchType,
    with: &Value,
) -> Result<(), VerbError> {
    for object in decode(session)? {
        let before = object.to_value();
        let mut after = before.clone();
        match kind {
            PatchType::Merge => patch::merge(&mut after, with),
            PatchType::Strategic => {
                patch::strategic(&mut after, with).map_err(VerbError::Local)?;
            }
            PatchType::Json => patch::json(&mut after, with).map_err(VerbError::Local)?,
        }
        let shown = object.kind().qualified_singular();
        done.print(&shown, &after, operation(after != before))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn patches_are_json_or_yaml() {
        let expected = json!({"spec": {"replicas": 2}});
        assert_eq!(parse("{\"spec\":{\"replicas\":2}}").unwrap(), expected);
        assert_eq!(parse("spec:\n  replicas: 2").unwrap(), expected);
        assert_eq!(parse("spec: {replicas: 2}").unwrap(), expected);
        assert!(parse("[{\"op\": \"test\"}]").unwrap().is_array());
        let error = parse("{a: [").unwrap_err().to_string();
        assert!(error.starts_with("unable to parse \"{a: [\": "), "{error}");
        assert!(parse("a: 1\n---\nb: 2").is_err());
    }

    #[test]
    fn types_in_any_case() {
        assert_eq!(patch_type(None).unwrap(), PatchType::Strategic);
        assert_eq!(patch_type(Some("JSON")).unwrap(), PatchType::Json);
        assert_eq!(
            patch_type(Some("x")).unwrap_err().to_string(),
            "--type must be one of [json merge strategic], not \"x\""
        );
    }
}
